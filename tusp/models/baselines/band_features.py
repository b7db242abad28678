"""Features of an epoch: the power of the classical EEG bands and the shape of the signal, with the epochs around it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.signal import welch

from tusp.models.baselines.estimator import Night, Signals
from tusp.platform.errors import CellError
from tusp.platform.stages import EPOCH_SECONDS, UNSCORED

RATE_HZ: Final = 128
SAMPLES_PER_EPOCH: Final = RATE_HZ * EPOCH_SECONDS
BANDS_HZ: Final = {
    "delta": (0.5, 4.0),
    "theta": (4.0, 8.0),
    "alpha": (8.0, 12.0),
    "sigma": (12.0, 16.0),
    "beta": (16.0, 30.0),
}
"""From and up to, in Hz."""
FEATURES: Final = (
    *(f"log relative {band}" for band in BANDS_HZ),
    "log power",
    "spectral edge",
    "log activity",
    "mobility",
    "complexity",
    "log kurtosis",
)
"""Of one channel. Powers lie in 0.5 to 30 Hz; the edge is the frequency below which 95 % of them lie."""

SEGMENT: Final = 4 * RATE_HZ
LIMIT: Final = 10.0
"""Standardised features are cut here, so that an artefact does not outweigh a night."""
TINY: Final = 1e-10

Matrix = npt.NDArray[np.float32]


def _channel_features(epochs: Matrix) -> npt.NDArray[np.float64]:
    """[n, 3840] to [n, features]. Hjorth's activity, mobility and complexity: Hjorth 1970."""
    frequencies, power = welch(epochs, fs=RATE_HZ, nperseg=SEGMENT, axis=1)
    low, high = BANDS_HZ["delta"][0], BANDS_HZ["beta"][1]
    inside = (frequencies >= low) & (frequencies < high)
    frequencies, power = frequencies[inside], power[:, inside]
    total = power.sum(axis=1)
    relative = [
        power[:, (frequencies >= first) & (frequencies < last)].sum(axis=1) / (total + TINY)
        for first, last in BANDS_HZ.values()
    ]
    edge = frequencies[(power.cumsum(axis=1) >= 0.95 * total[:, None]).argmax(axis=1)]
    once = np.diff(epochs, axis=1)
    activity, of_once, of_twice = (part.var(axis=1) + TINY for part in (epochs, once, np.diff(once, axis=1)))
    mobility = np.sqrt(of_once / activity)
    complexity = np.sqrt(of_twice / of_once) / mobility
    squares = np.square(epochs - epochs.mean(axis=1, keepdims=True))
    kurtosis = (np.square(squares).mean(axis=1) + TINY) / activity**2
    columns = [
        *(np.log10(share + 1e-4) for share in relative),
        np.log10(total + TINY),
        edge,
        np.log10(activity),
        mobility,
        complexity,
        np.log(kurtosis),
    ]
    return np.stack(columns, axis=1).astype(np.float64)


def night_features(signals: Signals, *, neighbours: int) -> Matrix:
    """Features [n, channels * 11 * (2 * neighbours + 1)] of one night's epochs.

    Each feature is standardised over the night (mean 0, standard deviation 1), since the level of a signal says more
    of the electrodes than of the sleeper. Then those of the ``neighbours`` epochs before and after are put beside an
    epoch's own; at the ends of the night the outermost epoch is repeated.

    Args:
        signals: [channels, n * 3840] at 128 Hz.
    """
    per_channel = [
        _channel_features(np.asarray(channel, np.float32).reshape(-1, SAMPLES_PER_EPOCH)) for channel in signals
    ]
    own = np.concatenate(per_channel, axis=1)
    spread = own.std(axis=0)
    own = (own - own.mean(axis=0)) / np.where(spread > TINY, spread, 1.0)
    own = np.clip(own, -LIMIT, LIMIT)
    n_epochs = len(own)
    beside = [
        own[np.clip(np.arange(n_epochs) + shift, 0, n_epochs - 1)] for shift in range(-neighbours, neighbours + 1)
    ]
    return np.concatenate(beside, axis=1).astype(np.float32)


def training_matrix(
    nights: Iterable[Night], *, neighbours: int, most_epochs: int, seed: int
) -> tuple[Matrix, npt.NDArray[np.int64]]:
    """Features and stages of the scored epochs of all nights; ``most_epochs`` drawn by the seed where there are more.

    Raises:
        CellError: no epoch is scored.
    """
    features: list[Matrix] = []
    codes: list[npt.NDArray[Any]] = []
    for signals, stages in nights:
        scored = np.asarray(stages) != UNSCORED
        if scored.any():
            features.append(night_features(signals, neighbours=neighbours)[scored])
            codes.append(np.asarray(stages)[scored])
    if not codes:
        raise CellError("no scored epoch to fit to")
    x, y = np.concatenate(features), np.concatenate(codes).astype(np.int64)
    if len(y) > most_epochs:
        kept = np.sort(np.random.default_rng(seed).choice(len(y), size=most_epochs, replace=False))
        x, y = x[kept], y[kept]
    return x, y
