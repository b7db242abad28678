"""What all corpora of HDF5 nights share: a list of signals, each a dataset with a rate and a unit of its own."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import numpy.typing as npt

from tusp.datasets.corpora.simulated import says_simulated
from tusp.datasets.formats.edf import HIGHEST_RATE_HZ, LONGEST_SECONDS
from tusp.datasets.formats.hdf5 import attribute, dataset_at, numbers, opened_hdf5
from tusp.datasets.recording import Adapter, Channel, RecordingFiles
from tusp.platform.errors import DataError

LOWEST_RATE_HZ: Final = 0.01


@dataclass(frozen=True, kw_only=True)
class Hdf5Signal:
    """One signal of a night."""

    name: str
    dataset: str
    """Path of its dataset inside the file."""
    sampling_rate_hz: float
    """0 where the file states none that can be used."""
    n_samples: int
    unit: str
    factor: float = 1.0
    """From the stored values to the unit of :meth:`Adapter.read`."""


@dataclass(frozen=True, kw_only=True)
class Hdf5Night:
    """What one file holds, and what is odd about it."""

    signals: Sequence[Hdf5Signal]
    problems: Sequence[str]


def is_simulated(file: h5py.File) -> bool:
    """Whether the file says of itself that it is simulated: in the attribute ``comment`` of its root."""
    return says_simulated(str(attribute(file, "comment", "")))


def usable_rate(stated: Any) -> float:
    """A stated sampling rate in Hz as a number; 0 where it is none."""
    try:
        rate = float(stated)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return rate if math.isfinite(rate) and LOWEST_RATE_HZ <= rate <= HIGHEST_RATE_HZ else 0.0


class Hdf5Nights(Adapter):
    """An adapter whose signals are in one HDF5 file a night."""

    @abstractmethod
    def _night(self, file: h5py.File, path: Path) -> Hdf5Night:
        """What the open file holds.

        Raises:
            DataError: it is damaged, or not a night of this corpus.
        """

    def night(self, recording: RecordingFiles) -> Hdf5Night:
        """What the night's signal file holds.

        Raises:
            DataError: the file is not readable as this format.
        """
        with opened_hdf5(recording.signals) as file:
            return self._bounded(file, recording.signals)

    def _bounded(self, file: h5py.File, path: Path) -> Hdf5Night:
        night = self._night(file, path)
        for signal in night.signals:
            if signal.sampling_rate_hz > 0 and signal.n_samples / signal.sampling_rate_hz > LONGEST_SECONDS:
                days = signal.n_samples / signal.sampling_rate_hz / 86400
                raise DataError(f"{path}: channel {signal.name[:40]!r} lasts {days:.3g} days; is its rate right?")
        return night

    def signal_seconds(self, night: Hdf5Night) -> float:
        """Length of the longest EEG or EOG channel; 0 where there is none with a sampling rate."""
        groups = {name for names in self.card.channel_groups.values() for name in names}
        return max(
            (s.n_samples / s.sampling_rate_hz for s in night.signals if s.name in groups and s.sampling_rate_hz > 0),
            default=0.0,
        )

    def channels(self, recording: RecordingFiles) -> list[Channel]:
        return [
            Channel(
                name=signal.name,
                sampling_rate_hz=signal.sampling_rate_hz,
                unit=signal.unit,
                n_samples=signal.n_samples,
            )
            for signal in self.night(recording).signals
        ]

    def read(self, recording: RecordingFiles, name: str) -> npt.NDArray[np.float32]:
        path = recording.signals
        with opened_hdf5(path) as file:
            night = self._bounded(file, path)
            for signal in night.signals:
                if signal.name == name:
                    samples = numbers(dataset_at(file, signal.dataset), path=path)
                    if signal.factor != 1.0:
                        samples *= np.float32(signal.factor)
                    return samples
        has = ", ".join(signal.name for signal in night.signals) or "none"
        raise DataError(f"{path}: no channel {name!r}; the file has {has}")

    def problems(self, recording: RecordingFiles) -> Sequence[str]:
        return self.night(recording).problems
