"""Quartiles of millions of samples, exactly and fast. Needs numpy alone."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

_QUARTERS: Final = (0.25, 0.5, 0.75)
_STRIDE: Final = 16
_BLOCK: Final = 64 * 1024
"""Samples worked on at a time: the intermediate results stay in the processor's cache."""
_LEAST: Final = 4096
"""Fewer than this many samples in a sixteenth say too little about the rest."""


class Workspace:
    """Memory for intermediate results that is used again for the next channel: fresh memory costs as much as a copy."""

    def __init__(self) -> None:
        self._held: dict[str, npt.NDArray[np.float32]] = {}

    def floats(self, name: str, n: int) -> npt.NDArray[np.float32]:
        """float32 [n] of any content; the next call with this name gives the same memory."""
        held = self._held.get(name)
        if held is None or len(held) < n:
            held = self._held[name] = np.empty(n, np.float32)
        return held[:n]


def quartiles(x: npt.NDArray[np.float32], workspace: Workspace | None = None) -> tuple[float, float, float]:
    """Quartiles of finite samples, linearly interpolated as by ``numpy.percentile``, but faster.

    Args:
        x: [n], n at least 1.
        workspace: memory to use again.
    """
    if len(x) < 8:
        low, median, high = (float(value) for value in np.percentile(x.astype(float), (25, 50, 75)))
        return low, median, high
    return _quartiles_between_cuts(x) or _quartiles_by_partition(x, workspace or Workspace())


def _quartiles_by_partition(x: npt.NDArray[np.float32], workspace: Workspace) -> tuple[float, float, float]:
    """Only the wanted order statistics are put in their places: the middle one, then one in each half.

    The next higher one is the least of what stands behind.
    """
    ordered = workspace.floats("ordered", len(x))
    np.copyto(ordered, x)
    places = [share * (len(x) - 1) for share in _QUARTERS]
    first, middle, last = (int(place) for place in places)
    ordered.partition(middle)
    ordered[:middle].partition(first)
    ordered[middle + 1 :].partition(last - middle - 1)

    def at(place: float, end: int) -> float:
        index = int(place)
        below, above = float(ordered[index]), float(ordered[index + 1 : end].min())
        return below + (above - below) * (place - index)

    return at(places[0], middle + 1), at(places[1], last + 1), at(places[2], len(x))


def _quartiles_between_cuts(x: npt.NDArray[np.float32]) -> tuple[float, float, float] | None:
    """Every 16th sample tells between which values each quartile lies; what lies there is collected and sorted.

    All samples are read once, a block at a time: counted below each lower cut, collected between the cuts.

    Returns:
        None where that does not find them (few samples, few different values, a rhythm of 16 samples).
    """
    n, few = len(x), np.sort(x[::_STRIDE])
    if len(few) < _LEAST or n % 8:
        return None
    cuts = []
    for share in _QUARTERS:
        place, reach = share * (len(few) - 1), 3.5 * math.sqrt(share * (1 - share) * len(few)) + 4
        cuts += [few[int(place - reach)], few[int(place + reach) + 1]]
    if any(high <= low for low, high in pairwise(cuts)):
        return None
    below = [0, 0, 0]
    samples, chosen = [], []
    edges = [np.array(cut, np.float32) for cut in cuts]
    flags, inside = np.empty(_BLOCK, bool), np.empty(_BLOCK, bool)
    for begin in range(0, n, _BLOCK):
        block = x[begin : begin + _BLOCK]
        flag, within = flags[: len(block)], inside[: len(block)]
        within[:] = False
        for quarter in range(3):
            # A sample between two cuts is not below the lower one and not above the upper one, and between no others.
            np.less(block, edges[2 * quarter], flag)
            below[quarter] += int(np.count_nonzero(flag))
            np.bitwise_xor(within, flag, within)
            np.less_equal(block, edges[2 * quarter + 1], flag)
            np.bitwise_xor(within, flag, within)
        # Eight flags are one word: numpy looks for words that are not 0 far faster than for single flags.
        eights = within.view(np.uint64)
        places = np.flatnonzero(eights != 0)
        samples.append(block.reshape(-1, 8).take(places, axis=0).reshape(-1))
        chosen.append(eights.take(places))
    between = np.sort(np.concatenate(samples)[np.concatenate(chosen).view(bool)])
    found = []
    for quarter, share in enumerate(_QUARTERS):
        begin = int(np.searchsorted(between, edges[2 * quarter]))
        end = int(np.searchsorted(between, edges[2 * quarter + 1], "right"))
        place = share * (n - 1)
        index = begin + int(place) - below[quarter]
        if not begin <= index < end - 1:
            return None
        low, high = float(between[index]), float(between[index + 1])
        found.append(low + (high - low) * (place - int(place)))
    return found[0], found[1], found[2]
