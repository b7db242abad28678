"""Anybody's own nights: signals and labels in many formats, read as a TOML description says (docs/describe.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from tusp.datasets.corpora.described_files import (
    by_file_name,
    check_lists,
    glob,
    label_files,
    safe_name,
    stated_name,
)
from tusp.datasets.corpora.description import GROUPS, Description, parse_description
from tusp.datasets.corpora.edf_nights import EdfNights, is_simulated
from tusp.datasets.corpora.folders import walk
from tusp.datasets.corpora.simulated import refuse_mixture, says_simulated
from tusp.datasets.formats.edf import microvolts_per, read_header, unreadable
from tusp.datasets.formats.hypnograms import Run, plain_label, runs_from_edf, to_epochs
from tusp.datasets.formats.label_tables import runs_from_table
from tusp.datasets.formats.signals import SignalHeader, StoredSignal
from tusp.datasets.formats.sleep_xml import runs_from_nsrr, runs_from_profusion
from tusp.datasets.recording import Channel, CorpusCard, Discovery, Hypnogram, RecordingFiles
from tusp.platform.errors import DataError, UserError
from tusp.platform.stages import EPOCH_SECONDS

__all__ = ["Described", "parse_description"]

_TOKEN_BYTES: Final = 2**16
"""Where in a file of labels the mark of a simulation is looked for."""


@dataclass(frozen=True, kw_only=True)
class _Night:
    """The signals of one night as their header has them, under the names of the description."""

    header: SignalHeader
    needed: Mapping[str, StoredSignal]
    """Described channels that are there and can be used, at the rate that is believed."""
    flaws: Mapping[str, str]
    """Described channels that are there and cannot be used, with the reason."""

    @property
    def seconds(self) -> float:
        """Length of the longest described channel; one that ends before the last label is left out by the audit."""
        if not self.needed:
            has = ", ".join(signal.label for signal in self.header.signals[:20]) or "none"
            raise DataError(f"{self.header.path}: none of the described channels is there (the file has {has})")
        return max(signal.n_samples / signal.sampling_rate_hz for signal in self.needed.values())


@dataclass(frozen=True, kw_only=True)
class Described(EdfNights):
    """Adapter of a corpus that its owner described."""

    name: str
    description: Description

    @property
    def card(self) -> CorpusCard:
        said = self.description
        groups: dict[str, tuple[str, ...]] = {}
        for channel in said.channels:
            groups[channel.group] = (*groups.get(channel.group, ()), channel.name)
        return CorpusCard(
            name=self.name,
            title=said.title,
            version=said.version,
            licence=said.licence,
            access=said.access,
            citation=said.citation,
            url=said.url,
            channel_groups={group: groups[group] for group in GROUPS if group in groups},
            label_map=dict(said.stages),
            subject_rule=f"group 'subject' of {said.subject_pattern}",
        )

    @property
    def aliases(self) -> Mapping[str, Sequence[str]]:
        return {channel.name: channel.labels for channel in self.description.channels}

    @property
    def units(self) -> Mapping[str, str]:
        return {channel.name: channel.unit for channel in self.description.channels if channel.unit is not None}

    def settings(self) -> Mapping[str, object]:
        """What decides how a night is read. A key that is not used is not there: prepared nights stay valid."""
        said = self.description
        more: dict[str, object] = {}
        if said.signal_format != "edf":
            more["signal_format"] = said.signal_format
        if said.rate_attribute is not None:
            more["rate_attribute"] = said.rate_attribute
        if said.label_dataset is not None:
            more["label_dataset"] = said.label_dataset
        if said.epoch_seconds != EPOCH_SECONDS:
            more["epoch_seconds"] = said.epoch_seconds
        if said.columns is not None:
            more["columns"] = [said.columns.onset, said.columns.duration, said.columns.stage]
        return {
            "channels": [
                {
                    "name": c.name,
                    "labels": list(c.labels),
                    "group": c.group,
                    "unit": c.unit,
                    **({} if c.rate_hz is None else {"rate_hz": c.rate_hz}),
                }
                for c in said.channels
            ],
            "stages": dict(said.stages),
            "label_format": said.label_format,
            "alignment": said.alignment,
            **more,
        }

    def discover(self, root: Path) -> Discovery:
        said = self.description
        found = walk(root)
        wanted = glob(said.signal_files)
        files = [file for file in found.files if wanted.fullmatch(file.as_posix())]
        if not files and not found.unreadable:
            raise UserError(f"{root}: no file matches signals.files = {said.signal_files!r}")
        refused = dict(found.unreadable)
        named: dict[str, list[Path]] = {}
        for file in files:
            name = safe_name(stated_name(said, file) or "")
            if name:
                named.setdefault(name, []).append(file)
            else:
                refused[file.name] = f"{root / file}: signals.name finds no name for the recording"
        check_lists(said, root, named)
        excluded = [n for n in named if n in said.exclude or (said.include and n not in said.include)]
        recordings: list[RecordingFiles] = []
        names = by_file_name(found.files)
        owners: dict[Path, list[str]] = {}
        flags: dict[str, bool] = {}
        for name, same in sorted(named.items()):
            if name in excluded:
                continue
            night = self._found(root, name, same, names)
            if isinstance(night, str):
                refused[name] = night
                continue
            recordings.append(night)
            flags[name] = night.simulated
            assert night.labels is not None
            owners.setdefault(night.labels, []).append(name)
        shared = {name: path for path, them in owners.items() if len(them) > 1 for name in them}
        for name, path in shared.items():
            refused[name] = f"{path}: labels of more than one night ({', '.join(owners[path])})"
        refuse_mixture(root, flags)
        usable = [recording for recording in recordings if recording.name not in shared]
        return Discovery(recordings=usable, refused=refused, excluded=tuple(excluded))

    def _found(
        self, root: Path, name: str, same: Sequence[Path], names: Mapping[str, Sequence[Path]]
    ) -> RecordingFiles | str:
        """The night's files, or why it is refused."""
        said = self.description
        if len(same) > 1:
            return f"{root}: {len(same)} files would have this name: {', '.join(map(str, same))}; set signals.name"
        file = same[0]
        subject = re.search(said.subject_pattern, name)
        if subject is None or not subject["subject"]:
            return f"{root / file}: subject.pattern does not match the name {name!r}"
        labels = [file] if said.label_files is None else label_files(said, file, names)
        if not labels:
            return f"{root / file}: no hypnogram beside these signals (looked for {said.label_files})"
        if len(labels) > 1:
            return f"{root / file}: {len(labels)} files could be its hypnogram: {', '.join(map(str, labels[:3]))}"
        try:
            simulated, others = self._opened(root / file)
            simulated = simulated or said.simulated or self._labels_simulated(root / labels[0])
        except DataError as error:
            return str(error)
        return RecordingFiles(
            name=name,
            subject=subject["subject"],
            signals=root / file,
            labels=root / labels[0],
            others={role: path for role, path in others.items() if path != root / labels[0]},
            simulated=simulated,
        )

    def _opened(self, path: Path) -> tuple[bool, Mapping[str, Path]]:
        """Whether the signals say that they are simulated, and what other files they are read from."""
        if self.description.signal_format == "edf":
            return is_simulated(read_header(path)), {}
        header = self._night(path).header
        return says_simulated(header.comments), header.companions

    def _labels_simulated(self, path: Path) -> bool:
        said = self.description
        if said.label_format == "edf+":
            return is_simulated(read_header(path))
        if said.label_dataset is not None:
            return _hdf5_simulated(path)
        if said.label_format in ("nsrr-xml", "profusion-xml"):
            try:
                with path.open("rb") as stream:
                    return says_simulated(stream.read(_TOKEN_BYTES).decode("latin-1"))
            except OSError as error:
                raise unreadable(path, error) from error
        return False

    def _night(self, path: Path) -> _Night:
        """Header of signals that are not EDF, with the described channels found in it."""
        said = self.description
        flaws: Mapping[str, str] = {}
        # Each library is loaded only by those who need it.
        if said.signal_format == "mne":
            from tusp.datasets.formats.mne_signals import read_mne_header

            header = read_mne_header(path)
        elif said.signal_format == "wfdb":
            from tusp.datasets.formats.wfdb_signals import read_record_header

            header = read_record_header(path)
        else:
            from tusp.datasets.formats.hdf5_signals import read_datasets_header

            wanted = [label for channel in said.channels for label in channel.labels]
            header, flaws = read_datasets_header(path, wanted, rate_attribute=said.rate_attribute)
        return self._named(header, flaws)

    def _named(self, header: SignalHeader, flaws: Mapping[str, str]) -> _Night:
        needed: dict[str, StoredSignal] = {}
        flawed: dict[str, str] = {}
        for channel in self.description.channels:
            for label in channel.labels:
                matching = [signal for signal in header.signals if _plain(signal.label) == _plain(label)]
                if len(matching) > 1:
                    raise DataError(
                        f"{header.path}: {len(matching)} channels are named {label!r}; which is {channel.name}?"
                    )
                if matching:
                    rate = channel.rate_hz or matching[0].sampling_rate_hz
                    if rate > 0:
                        needed[channel.name] = replace(matching[0], sampling_rate_hz=rate)
                        flawed.pop(channel.name, None)
                    else:
                        flawed[channel.name] = f"no attribute {self.description.rate_attribute!r} tells its rate"
                    break
                flaw = flaws.get(label.strip("/"))
                if flaw is not None:
                    flawed.setdefault(channel.name, flaw)
        return _Night(header=header, needed=needed, flaws=flawed)

    def channels(self, recording: RecordingFiles) -> list[Channel]:
        if self.description.signal_format == "edf":
            return super().channels(recording)
        night = self._night(recording.signals)
        canonical = {signal.label: name for name, signal in night.needed.items()}
        channels = []
        for signal in night.header.signals:
            name = canonical.get(signal.label)
            if name is None and signal.label in self.aliases:
                continue  # under a name that a described channel goes by, but not that channel
            believed = night.needed[name] if name else signal
            channels.append(
                Channel(
                    name=name or signal.label,
                    sampling_rate_hz=believed.sampling_rate_hz,
                    unit=self.units.get(name, signal.unit) if name else signal.unit,
                    n_samples=signal.n_samples,
                )
            )
        return channels

    def read(self, recording: RecordingFiles, name: str) -> npt.NDArray[np.float32]:
        said = self.description
        if said.signal_format == "edf":
            return super().read(recording, name)
        night = self._night(recording.signals)
        if name in night.flaws:
            raise DataError(f"{recording.signals}: channel {name!r}: {night.flaws[name]}")
        signal = night.needed.get(name)
        if signal is None and name not in self.aliases:
            matching = [stored for stored in night.header.signals if stored.label == name]
            signal = matching[0] if len(matching) == 1 else None
        if signal is None:
            has = ", ".join(stored.label for stored in night.header.signals[:50]) or "none"
            raise DataError(f"{recording.signals}: no channel {name!r}; the file has {has}")
        unit = self.units.get(name)
        if said.signal_format == "mne":
            from tusp.datasets.formats.mne_signals import read_mne_samples

            return read_mne_samples(night.header, signal, unit=unit)
        if said.signal_format == "wfdb":
            from tusp.datasets.formats.wfdb_signals import read_record_samples

            return read_record_samples(night.header, signal, unit=unit)
        from tusp.datasets.formats.hdf5_signals import read_dataset_samples

        return read_dataset_samples(night.header, signal, unit=unit)

    def problems(self, recording: RecordingFiles) -> Sequence[str]:
        if self.description.signal_format == "edf":
            return super().problems(recording)
        night = self._night(recording.signals)
        problems = [*night.header.problems]
        stated = {signal.label: signal for signal in night.header.signals}
        for name, signal in night.needed.items():
            if name not in self.units and microvolts_per(signal.unit) is None:
                said = f"unit {signal.unit!r} is not electrical" if signal.unit else "no unit stated"
                problems.append(f"{name}: {said}; values taken as microvolts")
            rate = stated[signal.label].sampling_rate_hz
            if rate not in (0.0, signal.sampling_rate_hz):
                problems.append(
                    f"{name}: the file states {rate:g} Hz, the description {signal.sampling_rate_hz:g} Hz;"
                    " the description is believed"
                )
        problems += [f"{name}: {reason} (channel not used)" for name, reason in night.flaws.items()]
        return problems

    def hypnogram(self, recording: RecordingFiles) -> Hypnogram:
        said = self.description
        path = recording.labels
        if path is None and said.label_files is None:
            path = recording.signals
        if path is None:
            raise DataError(f"{recording.signals}: no hypnogram beside these signals")
        seconds, start = self._span(recording.signals)
        runs, problems, shift = self._runs(path, start)
        hypnogram = to_epochs(runs, dict(said.stages), signal_seconds=seconds, shift_seconds=shift)
        return replace(hypnogram, problems=(*problems, *hypnogram.problems))

    def _span(self, path: Path) -> tuple[float, datetime | None]:
        """Length and start of the signals."""
        if self.description.signal_format == "edf":
            header = read_header(path)
            return header.seconds, header.start
        night = self._night(path)
        return night.seconds, night.header.start

    def _runs(self, path: Path, start: datetime | None) -> tuple[list[Run], list[str], float]:
        """Labels, what is odd about them, and seconds from the signals' start to their zero."""
        said = self.description
        match said.label_format:
            case "csv":
                runs, problems = runs_from_table(path, said.columns)
                return runs, problems, 0.0
            case "nsrr-xml":
                return runs_from_nsrr(path), [], 0.0
            case "profusion-xml":
                return runs_from_profusion(path), [], 0.0
            case "list":
                from tusp.datasets.formats.label_lists import runs_from_dataset, runs_from_list

                if said.label_dataset is not None:
                    return runs_from_dataset(path, said.label_dataset, epoch_seconds=said.epoch_seconds), [], 0.0
                known = [label for label, _ in said.stages]
                return runs_from_list(path, known=known, epoch_seconds=said.epoch_seconds), [], 0.0
        labels = read_header(path)
        runs = runs_from_edf(labels)
        if said.alignment == "signal-start":
            unlike = start != labels.start if said.signal_format == "edf" else start not in (None, labels.start)
            odd = ["headers of signals and labels state different starts; aligned by signal-start"] if unlike else []
            return runs, odd, 0.0
        if start is None or labels.start is None:
            raise DataError(f"{path}: a header has no readable start; no clock to align by")
        shift = (labels.start - start).total_seconds()
        if abs(shift) > 86400:
            raise DataError(
                f"{path}: labels start {labels.start:%Y-%m-%d %H:%M:%S}, signals"
                f" {start:%Y-%m-%d %H:%M:%S}; they are not of one night"
            )
        return runs, [], shift


def _plain(label: str) -> str:
    """A channel's name as it is compared: without case, repeated spaces, and slashes at its ends."""
    return plain_label(label.strip().strip("/"))


def _hdf5_simulated(path: Path) -> bool:
    from tusp.datasets.formats.hdf5 import attribute, opened_hdf5
    from tusp.datasets.formats.hdf5_signals import COMMENT

    with opened_hdf5(path) as file:
        return says_simulated(str(attribute(file, COMMENT, "")))
