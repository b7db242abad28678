"""Building blocks of the signals: band noise over a whole night, envelopes, events, all vectorised and seeded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

Samples = npt.NDArray[np.float32]
Curve = npt.NDArray[np.float64]
"""A quantity at one value a second."""

EEG_HZ: Final = 100


BLOCK: Final = 65_536
"""Samples (11 min) made by one inverse transform: small enough for the processor's cache."""

JOINT: Final = 256
"""Samples over which one block fades into the next."""


class BandNoise:
    """Stationary Gaussian noise with a given spectrum, unit RMS, as long as the night.

    Blocks with random phases are periodic, so the beginning of a block is also its continuation: fading from that into
    the next block, with weights whose squares sum to one, joins independent blocks without a seam.
    """

    def __init__(
        self,
        random: np.random.Generator,
        n_samples: int,
        amplitude: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]],
        low_hz: float,
        high_hz: float,
        rate_hz: int = EEG_HZ,
    ) -> None:
        """Make the noise.

        Args:
            random: source of chance.
            n_samples: length.
            amplitude: spectral amplitude (any scale) at given frequencies in Hz.
            low_hz, high_hz: nothing outside this band.
            rate_hz: sampling rate.
        """
        blocks = -(-n_samples // BLOCK) + 1
        first = max(1, int(np.ceil(low_hz * BLOCK / rate_hz)))
        last = min(BLOCK // 2, int(high_hz * BLOCK / rate_hz)) + 1
        shape = amplitude(np.arange(first, last, dtype=np.float32) * np.float32(rate_hz / BLOCK))
        shape = shape * np.float32(BLOCK / 2 / np.sqrt(np.sum(shape.astype(np.float64) ** 2)))
        spectrum = np.zeros((blocks, BLOCK // 2 + 1), dtype=np.complex64)
        parts = random.standard_normal((blocks, last - first, 2), dtype=np.float32)
        np.multiply(parts.view(np.complex64)[..., 0], shape, out=spectrum[:, first:last])
        whole = fft.irfft(spectrum, n=BLOCK, overwrite_x=True)
        angle = np.linspace(0, np.pi / 2, JOINT, dtype=np.float32)
        whole[:, :JOINT] = np.cos(angle) * np.roll(whole[:, :JOINT], 1, axis=0) + np.sin(angle) * whole[:, :JOINT]
        self._whole = whole.reshape(-1)
        self._n_samples = n_samples
        self._random = random

    def first(self) -> Samples:
        """float32 [n_samples]"""
        result: Samples = self._whole[: self._n_samples]
        return result

    def another(self) -> Samples:
        """The noise turned around by a random time: beside the first a practically independent process.

        It costs a copy instead of a transform; float32 [n_samples].
        """
        length = len(self._whole)
        turn = int(self._random.integers(length // 8, length - length // 8))
        result: Samples = np.concatenate([self._whole[turn:], self._whole[:turn]])[: self._n_samples]
        return result


def bump(centre_hz: float, width_hz: float) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
    """Gaussian spectral peak."""
    return lambda hz: np.exp(-0.5 * ((hz - np.float32(centre_hz)) / np.float32(width_hz)) ** 2)


def power_law(exponent: float, knee_hz: float = 0.5) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
    """Amplitude of a 1/f^exponent power spectrum, flat below the knee."""
    return lambda hz: (np.maximum(hz, np.float32(knee_hz)) ** np.float32(-exponent / 2)).astype(np.float32)


def to_samples(curve: Curve, rate_hz: int = EEG_HZ) -> Samples:
    """Linear interpolation from one value a second to the sampling rate; float32 [len(curve) * rate]."""
    values = curve.astype(np.float32)
    following = np.r_[values[1:], values[-1:]]
    ramp = np.arange(rate_hz, dtype=np.float32) / np.float32(rate_hz)
    result: Samples = (values[:, None] + (following - values)[:, None] * ramp).reshape(-1)
    return result


def wander(random: np.random.Generator, seconds: int, *, every_s: float, spread: float) -> Curve:
    """A slowly varying positive factor around 1 (log-normal, standard deviation ``spread``), float64 [seconds]."""
    step = max(1.0, every_s / 3)  # a slow curve needs few points
    points = int(np.ceil(seconds / step)) + 2
    width = every_s / step
    noise = ndimage.gaussian_filter1d(random.standard_normal(points), width, mode="wrap")
    noise *= np.sqrt(2 * np.sqrt(np.pi) * width)  # the filter's loss of variance
    if step > 1.0:
        noise = np.interp(np.arange(seconds) / step, np.arange(points), noise)
    return np.exp(spread * noise[:seconds] - spread**2 / 2)


def smooth(curve: Curve, sigma_s: float) -> Curve:
    """Low-pass over about ``sigma_s`` seconds along the last axis (three box filters: cost free of the width)."""
    size = max(1, round(2 * sigma_s)) | 1
    for _ in range(3):
        curve = ndimage.uniform_filter1d(curve, size, axis=-1, mode="nearest")
    return curve


def alternating(
    random: np.random.Generator, seconds: int, *, mean_on_s: float, mean_off_s: float
) -> npt.NDArray[np.bool_]:
    """On and off by turns, exponential durations, bool [seconds]."""
    turns = 2 + int(2.5 * seconds / (mean_on_s + mean_off_s))
    durations = np.empty(2 * turns)
    durations[0::2] = random.exponential(mean_on_s, turns)
    durations[1::2] = random.exponential(mean_off_s, turns)
    edges = np.cumsum(np.r_[-random.uniform(0, mean_on_s + mean_off_s), durations])
    index = np.searchsorted(edges, np.arange(seconds), side="right")
    result: npt.NDArray[np.bool_] = (index % 2 == 1) & (index < len(edges))
    return result


def event_times(random: np.random.Generator, per_second: Curve) -> npt.NDArray[np.float64]:
    """Times in seconds of a Poisson process of the given rate, ascending."""
    counts = random.poisson(np.maximum(per_second, 0.0))
    seconds = np.repeat(np.arange(len(per_second)), counts)
    return np.sort(seconds + random.random(len(seconds)))


def add_event(target: Samples, start_s: float, waveform: npt.NDArray[np.floating]) -> None:
    """Add a waveform (100 Hz) into the signal, cut at its ends."""
    start = round(start_s * EEG_HZ)
    begin, end = max(0, start), min(len(target), start + len(waveform))
    if begin < end:
        target[begin:end] += waveform[begin - start : end - start].astype(np.float32)


def times(duration_s: float) -> npt.NDArray[np.float64]:
    """Sample times of an event."""
    return np.arange(max(2, round(duration_s * EEG_HZ))) / EEG_HZ
