"""Nights that several people scored: their lists of stages, the span that all of them scored, and the signal's place.

The rules are those of the Dreem Open Datasets. Source: A. Guillot et al. 2020, doi 10.1109/TNSRE.2020.3011181.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tusp.datasets.formats.edf import unreadable
from tusp.datasets.recording import Stages
from tusp.platform.errors import DataError
from tusp.platform.stages import N_STAGES, UNSCORED

MOST_LIST_BYTES: Final = 2**20


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """The scorers' stages on the grid of the signal."""

    votes: Mapping[str, Stages]
    """Stages by scorer, one a whole epoch of the signal; unscored outside the span that counts."""
    first: int
    stop: int
    """Epochs ``[first, stop)`` of the signal that count."""
    problems: Sequence[str]


def read_list(path: Path) -> Stages:
    """A JSON list of stage codes, -1 to 4, one an epoch.

    Raises:
        DataError: the file cannot be read, is absurdly large, or holds something else.
    """
    try:
        if not path.is_file():
            raise DataError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")
        if path.stat().st_size > MOST_LIST_BYTES:
            raise DataError(f"{path}: more than {MOST_LIST_BYTES // 2**20} MiB of stages")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())[:100]
        raise DataError(f"{path}: not JSON ({reason})") from error
    if not isinstance(content, list) or not content:
        raise DataError(f"{path}: not a list of stage codes")
    for epoch, code in enumerate(content):
        if type(code) is not int or not UNSCORED <= code < N_STAGES:
            raise DataError(
                f"{path}: {str(code)[:24]!r} at epoch {epoch} is no stage code ({UNSCORED} to {N_STAGES - 1})"
            )
    return np.array(content, np.int8)


def align(
    lists: Mapping[str, Stages], *, signal_epochs: int, trim: tuple[int, int | None] = (0, None), path: Path
) -> Aligned:
    """Find where the signal lies in the scorers' lists, and cut the lists to what every scorer scored.

    The span runs from the latest first scored epoch to the earliest last scored one; ``trim`` then keeps
    ``[trim[0], trim[1])`` of it. A signal as long as the trimmed span starts with it; a signal as long as the (longest)
    list starts with the lists.

    Args:
        lists: stages by scorer, all beginning at the same moment.
        signal_epochs: whole epochs of the signal.
        trim: epochs to keep of the span, relative to its start.
        path: the signals, for messages.

    Raises:
        DataError: a scorer scored nothing, there is no common span, or the signal has another length.
    """
    longest = max(len(stages) for stages in lists.values())
    problems = []
    if any(len(stages) != longest for stages in lists.values()):
        lengths = ", ".join(f"{name} {len(stages)}" for name, stages in lists.items())
        problems.append(f"scorers' lists differ in length ({lengths} epochs); what a list lacks counts as unscored")
    table = np.full((len(lists), longest), UNSCORED, np.int8)
    begins, ends = [], []
    for row, (name, stages) in zip(table, lists.items(), strict=True):
        row[: len(stages)] = stages
        scored = np.flatnonzero(row != UNSCORED)
        if not scored.size:
            raise DataError(f"{path}: {name} scored no epoch of it")
        begins.append(int(scored[0]))
        ends.append(int(scored[-1]) + 1)
    first, stop = max(begins), min(ends)
    if first >= stop:
        raise DataError(f"{path}: its scorers have no epoch in common (one begins at {first}, another stops at {stop})")
    if (first, stop) != (0, longest):
        problems.append(
            f"scorers' lists cut to epochs {first} to {stop} of {longest}: every scorer has begun, none has stopped"
        )
    span = stop - first
    kept = range(span)[trim[0] : trim[1]]
    if len(kept) < span:
        problems.append(f"light trims: epochs {kept.start} to {kept.stop} of the {span} are kept")
    first, stop = first + kept.start, first + kept.stop
    if not kept:
        raise DataError(f"{path}: the light trims leave none of its scorers' {span} epochs")
    if signal_epochs == len(kept):
        start = first
    elif signal_epochs == longest:
        start = 0
    else:
        after = f", {len(kept)} after the light trims" if len(kept) < span else ""
        raise DataError(
            f"{path}: {signal_epochs} epochs of signal fit neither the scorers' lists ({longest} epochs) nor the span"
            f" that all of them scored ({span} epochs{after})"
        )
    table[:, :first] = UNSCORED
    table[:, stop:] = UNSCORED
    votes = {name: row[start : start + signal_epochs] for name, row in zip(lists, table, strict=True)}
    return Aligned(votes=votes, first=first - start, stop=stop - start, problems=tuple(problems))
