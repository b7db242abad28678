"""Resampling by a ratio of whole numbers as products of small matrices. Reads no file.

A linear-phase low-pass between ``up`` and ``down`` repeats itself every ``up`` output samples, which lie over ``down``
input samples. So a tile of neighbouring outputs of each repetition is one row of input samples times one matrix that
never changes, and all repetitions together are one product of matrices, which every processor does far faster than a
loop over filter taps.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided
from scipy.signal import firwin

from tusp.datasets.order_statistics import Workspace

_HALF_LENGTH: Final = 10
"""The filter reaches this many samples of the slower rate to either side, as in scipy's ``resample_poly``."""
_KAISER_BETA: Final = 5.0
_TILE: Final = 32
"""Output samples computed by one matrix: enough to fill a processor's vectors, few enough to keep zeros rare."""
_MOST_PRODUCTS: Final = 4 * 65536
"""Multiplications of one call of BLAS. OpenBLAS starts threads beyond that, which would make results and speed depend
on how many cores there are; one process a core is how nights are prepared in parallel."""
_WORKING_FLOATS: Final = 128 * 1024
"""Input samples worked on at a time; they stay in the processor's cache."""


@lru_cache(maxsize=4)
def low_pass(up: int, down: int) -> npt.NDArray[np.float64]:
    """Taps of ``scipy.signal.resample_poly``: Kaiser window, 20 x max(up, down) + 1 of them, gain ``up``."""
    slower = max(up, down)
    taps: npt.NDArray[np.float64] = firwin(2 * _HALF_LENGTH * slower + 1, 1 / slower, window=("kaiser", _KAISER_BETA))
    return taps * up


@lru_cache(maxsize=4)
def _tiles(up: int, down: int) -> tuple[int, int, tuple[tuple[int, int, npt.NDArray[np.float32]], ...]]:
    """Outputs and inputs of one repetition, and its tiles: first output, first input, matrix [inputs, outputs]."""
    taps = low_pass(up, down)
    half = _HALF_LENGTH * max(up, down)
    repeats = max(1, _TILE // up)
    tiles = []
    for first in range(0, up * repeats, _TILE):
        outputs = np.arange(first, min(first + _TILE, up * repeats))
        low = -((half - first * down) // up)
        high = (int(outputs[-1]) * down + half) // up
        place = outputs * down - np.arange(low, high + 1)[:, None] * up + half
        inside = (place >= 0) & (place < len(taps))
        matrix = np.where(inside, taps[np.where(inside, place, 0)], 0).astype(np.float32)
        tiles.append((first, low, matrix))
    return up * repeats, down * repeats, tuple(tiles)


def _piece(
    samples: npt.NDArray[np.float32], low: int, high: int, centre: np.float32, *, all_finite: bool
) -> npt.NDArray[np.float32]:
    """Samples ``[low, high)`` less ``centre``; the first and the last sample are held beyond the ends."""
    if low >= 0 and high <= len(samples):
        piece = samples[low:high] - centre
    else:
        piece = samples[np.clip(np.arange(low, high), 0, len(samples) - 1)] - centre
    if not all_finite:
        piece[~np.isfinite(piece)] = 0
    return piece


def resample(
    samples: npt.NDArray[np.float32],
    *,
    up: int,
    down: int,
    first_sample: int,
    n_samples: int,
    centre: float = 0.0,
    all_finite: bool = True,
    workspace: Workspace | None = None,
) -> npt.NDArray[np.float32]:
    """Output samples ``[first_sample, first_sample + n_samples)`` of ``samples - centre`` resampled by up / down.

    Output ``m`` is ``sum over k of h[m * down - k * up] * (samples[k] - centre)`` with the filter ``h`` of
    :func:`low_pass` centred at 0: what ``scipy.signal.resample_poly(samples - centre, up, down, padtype="edge")``
    gives, but nothing outside the span is computed. Beyond its ends the signal keeps its first and last value.

    Args:
        samples: [n], n at least 1, the whole signal.
        up, down: without common divisor.
        first_sample, n_samples: in output samples, from 0.
        centre: subtracted from every sample.
        all_finite: False makes samples that are no number ``centre``.
        workspace: where the result is to lie.

    Returns:
        float32 [n_samples]; valid until the workspace is used again.
    """
    level = np.float32(centre)
    if up == down == 1:
        return _piece(samples, first_sample, first_sample + n_samples, level, all_finite=all_finite)
    period_out, period_in, tiles = _tiles(up, down)
    first = first_sample // period_out
    rows = -((first_sample + n_samples) // -period_out) - first
    widest = max(len(matrix) for _, _, matrix in tiles)
    # Rows of input overlap. BLAS takes rows that do not, so every few rows make a matrix of their own, without a copy.
    apart = -(-widest // period_in)
    rows = -(-rows // apart) * apart
    out = (workspace or Workspace()).floats("resampled", rows * period_out).reshape(rows, period_out)
    together = max(1, _MOST_PRODUCTS // (widest * _TILE))
    step = together * apart * max(1, _WORKING_FLOATS // (together * apart * period_in))
    begin = min(low for _, low, _ in tiles)
    end = max(low + len(matrix) for _, low, matrix in tiles)
    for row in range(0, rows, step):
        n = min(step, rows - row)
        at = (first + row) * period_in
        piece = _piece(samples, at + begin, at + (n - 1) * period_in + end, level, all_finite=all_finite)
        for start, low, matrix in tiles:
            for phase in range(apart):
                _multiply(
                    piece[low - begin + phase * period_in :],
                    matrix,
                    out[row + phase : row + n : apart, start : start + matrix.shape[1]],
                    stride=apart * period_in,
                    together=together,
                )
    skipped = first_sample - first * period_out
    return out.reshape(-1)[skipped : skipped + n_samples]


def _multiply(
    samples: npt.NDArray[np.float32],
    matrix: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    *,
    stride: int,
    together: int,
) -> None:
    """``out[i] = samples[i * stride :][: len(matrix)] @ matrix`` for every row, ``together`` rows a call of BLAS."""
    n, (width, outputs) = len(out), matrix.shape
    item = samples.itemsize
    rows = as_strided(samples, (n, width), (stride * item, item), writeable=False)
    whole = n // together
    if whole:
        np.matmul(
            as_strided(samples, (whole, together, width), (together * stride * item, stride * item, item)),
            matrix,
            out=as_strided(out, (whole, together, outputs), (together * out.strides[0], *out.strides)),
        )
    if whole * together < n:
        np.matmul(rows[whole * together :], matrix, out=out[whole * together :])
