"""What all corpora of EDF nights share: canonical channel names, units, the signal's own problems."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tusp.datasets.corpora.simulated import says_simulated
from tusp.datasets.formats.edf import EdfHeader, EdfSignal, microvolts_per, read_header, read_samples
from tusp.datasets.recording import Adapter, Channel, RecordingFiles
from tusp.platform.errors import DataError


def is_simulated(header: EdfHeader) -> bool:
    """Whether the file says of itself that it is simulated."""
    return says_simulated(header.recording)


def _plain(label: str) -> str:
    """A label without what recorders vary in it: blanks and capitals."""
    return " ".join(label.split()).casefold()


class EdfNights(Adapter):
    """An adapter whose signals are in one EDF file a night."""

    @property
    @abstractmethod
    def aliases(self) -> Mapping[str, Sequence[str]]:
        """Canonical channel name to the labels it may have in a file, in order of preference."""

    @property
    def units(self) -> Mapping[str, str]:
        """Canonical channel name to the unit to believe instead of the header's."""
        return {}

    def _needed(self, header: EdfHeader) -> dict[str, EdfSignal]:
        """The signals that have a canonical name and are in the file."""
        found: dict[str, EdfSignal] = {}
        labelled: dict[str, list[EdfSignal]] = {}
        for signal in header.signals:
            labelled.setdefault(_plain(signal.label), []).append(signal)
        for name, labels in self.aliases.items():
            for label in labels:
                matching = labelled.get(_plain(label), [])
                if len(matching) > 1:
                    raise DataError(f"{header.path}: {len(matching)} channels are named {label!r}; which is {name}?")
                if matching:
                    found[name] = matching[0]
                    break
        return found

    def channels(self, recording: RecordingFiles) -> list[Channel]:
        header = read_header(recording.signals)
        canonical = {signal.first_sample: name for name, signal in self._needed(header).items()}
        channels = []
        for signal in header.signals:
            name = canonical.get(signal.first_sample, signal.label) if signal.samples_per_record else signal.label
            unit = self.units.get(name, signal.unit)
            channels.append(
                Channel(
                    name=name,
                    sampling_rate_hz=signal.sampling_rate_hz,
                    unit=unit,
                    n_samples=header.n_records * signal.samples_per_record,
                    limits=None if signal.flaw else signal.limits(unit),
                )
            )
        return channels

    def read(self, recording: RecordingFiles, name: str) -> npt.NDArray[np.float32]:
        header = read_header(recording.signals)
        needed = self._needed(header)
        if name in needed:
            return read_samples(header, needed[name], unit=self.units.get(name))
        if name not in self.aliases:
            matching = [signal for signal in header.signals if signal.label == name]
            if len(matching) == 1:
                return read_samples(header, matching[0])
        raise DataError(
            f"{recording.signals}: no channel {name!r}; the file has"
            f" {', '.join(signal.label for signal in header.signals) or 'none'}"
        )

    def problems(self, recording: RecordingFiles) -> Sequence[str]:
        header = read_header(recording.signals)
        problems = list(header.problems)
        needed = self._needed(header)
        used = {signal.first_sample for signal in needed.values()}
        for name, signal in needed.items():
            if name not in self.units and microvolts_per(signal.unit) is None:
                stated = f"unit {signal.unit!r} is not electrical" if signal.unit else "no unit stated"
                problems.append(f"{name}: {stated}; values taken as microvolts")
        problems += [
            f"{signal.label}: {signal.flaw} (channel not used)"
            for signal in header.signals
            if signal.flaw and signal.first_sample not in used
        ]
        return problems
