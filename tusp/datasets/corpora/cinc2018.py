"""cinc2018: training set of the PhysioNet/Computing in Cardiology Challenge 2018.

A night is a WFDB record (``tr03-0005.hea`` and ``.mat``) with its stages as annotations (``.arousal``), as one column a
stage in an HDF5 file (``-arousal.mat``), or both. Source: Ghassemi et al. 2018, doi 10.22489/CinC.2018.049.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from tusp.datasets.corpora.folders import walk
from tusp.datasets.corpora.label_pairs import held_against
from tusp.datasets.corpora.simulated import refuse_mixture, says_simulated
from tusp.datasets.formats.edf import microvolts_per, unreadable
from tusp.datasets.formats.hdf5 import dataset_at, length, numbers, opened_hdf5
from tusp.datasets.formats.hypnograms import Run, to_epochs
from tusp.datasets.formats.wfdb import (
    WfdbAnnotation,
    WfdbHeader,
    check_wfdb_files,
    read_wfdb_annotations,
    read_wfdb_header,
    read_wfdb_samples,
    time_resolution_hz,
)
from tusp.datasets.recording import Adapter, Channel, CorpusCard, Discovery, Hypnogram, RecordingFiles, Stages
from tusp.platform.errors import DataError, UserError
from tusp.platform.stages import EPOCH_SECONDS, N1, N2, N3, REM, W

LABEL_MAP: Final = {"W": W, "N1": N1, "N2": N2, "N3": N3, "R": REM}
ONE_HOT: Final = {"wake": "W", "nonrem1": "N1", "nonrem2": "N2", "nonrem3": "N3", "rem": "R", "undefined": ""}
"""Column of ``data/sleep_stages`` to the stage's name in the annotations."""
GROUPS: Final = {"EEG": ("F3-M2", "F4-M1", "C3-M2", "C4-M1", "O1-M2", "O2-M1"), "EOG": ("E1-M2",)}

_NAME: Final = re.compile(r"(t[re]\d\d-\d{4})(\.hea|\.mat|\.arousal|-arousal\.mat)", re.IGNORECASE | re.ASCII)
_SIMILAR: Final = re.compile(r"tr\d.*\.(hea|mat|arousal)", re.IGNORECASE | re.ASCII)
_KINDS: Final = {
    ".mat": "signals (.mat)",
    ".hea": "header (.hea)",
    ".arousal": "labels (.arousal)",
    "-arousal.mat": "labels (-arousal.mat)",
}
_MATLAB_INT16: Final = 30
_EVENT: Final = re.compile(r"\(.*|.*\)|## .*", re.DOTALL)
_EXAMPLE: Final = "tr03-0005.mat"


def runs_from_arousal(
    annotations: Sequence[WfdbAnnotation], *, sampling_rate_hz: float, n_samples: int, path: Path
) -> list[Run]:
    """Stages among the annotations as runs that hold to the next stage; the last one to the last whole epoch.

    Events (``(resp_hypopnea`` ... ``resp_hypopnea)``) are no stages. A note that is neither ends the stage before it
    and is kept as a label of its own, for :func:`to_epochs` to report.

    Args:
        annotations: of one record, at the sampling rate or at the time resolution that they state.
        sampling_rate_hz: of the record.
        n_samples: length of the record.
        path: of the annotations, for messages.

    Raises:
        DataError: no stage is among them, or one begins more than an epoch after the signal's end.
    """
    resolution = time_resolution_hz(annotations) or sampling_rate_hz
    seconds = n_samples / sampling_rate_hz
    end = float(int(seconds / EPOCH_SECONDS + 1e-9) * EPOCH_SECONDS)
    notes = [
        (note.sample / resolution, note.aux_note.strip())
        for note in annotations
        if note.aux_note.strip() and not _EVENT.fullmatch(note.aux_note.strip())
    ]
    notes.sort(key=lambda note: note[0])
    if not any(label in LABEL_MAP for _, label in notes):
        raise DataError(f"{path}: holds no sleep stages among its {len(annotations)} annotations")
    if notes[-1][0] > seconds + EPOCH_SECONDS:
        raise DataError(
            f"{path}: does not belong to this signal: a stage begins at {notes[-1][0]:.0f} s, the signal ends at"
            f" {seconds:.0f} s"
        )
    ends = [*(onset for onset, _ in notes[1:]), end]
    # A stage that begins after the last whole epoch scores none.
    return [
        Run(onset=onset, duration=stop - onset, label=label)
        for (onset, label), stop in zip(notes, ends, strict=True)
        if onset < end
    ]


def runs_from_one_hot(path: Path, *, sampling_rate_hz: float, n_samples: int) -> list[Run]:
    """Stages of an ``-arousal.mat`` as runs of whole epochs; undefined epochs are in none.

    Each epoch takes what holds at its middle: in these files stages change one sample early, and the last sample is
    undefined.

    Raises:
        DataError: unreadable, a column is missing or not as long as the signal.
    """
    middles = ((np.arange(int(n_samples / sampling_rate_hz / EPOCH_SECONDS + 1e-9)) + 0.5) * EPOCH_SECONDS).astype(
        np.float64
    )
    at = np.floor(middles * sampling_rate_hz).astype(np.int64)
    marks = np.zeros((len(ONE_HOT), len(at)), bool)
    with opened_hdf5(path) as file:
        for row, column in enumerate(ONE_HOT):
            dataset = dataset_at(file, f"data/sleep_stages/{column}")
            held = length(dataset, path=path)
            if held != n_samples:
                raise DataError(f"{path}: {column!r} has {held} samples, the signal {n_samples}; not of one record")
            values = numbers(dataset, path=path)[at]
            if not bool(np.isin(values, (0, 1)).all()):
                raise DataError(f"{path}: {column!r} holds other values than 0 and 1")
            marks[row] = values == 1
    names = list(ONE_HOT.values())
    labels = [
        names[int(column.argmax())] if column.sum() == 1 else f"{int(column.sum())} stages at once"
        for column in marks.T
    ]
    runs: list[Run] = []
    first = 0
    for epoch in range(1, len(labels) + 1):
        if epoch == len(labels) or labels[epoch] != labels[first]:
            if labels[first]:
                onset = float(first * EPOCH_SECONDS)
                runs.append(Run(onset=onset, duration=float((epoch - first) * EPOCH_SECONDS), label=labels[first]))
            first = epoch
    if not any(run.label in LABEL_MAP for run in runs):
        raise DataError(f"{path}: no epoch has a sleep stage")
    return runs


def _matlab_shape(path: Path) -> tuple[int, int] | None:
    """Rows and columns that the MATLAB 4 header of a signal file states; None when there is no such header."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(24)
    except OSError as error:
        raise unreadable(path, error) from error
    if len(raw) < 24 or raw[20:] != b"val\0":
        return None
    kind, rows, columns, _, name = struct.unpack("<5I", raw[:20])
    return (rows, columns) if (kind, name) == (_MATLAB_INT16, 4) else None


@dataclass(frozen=True, kw_only=True)
class Cinc2018(Adapter):
    """994 nights in a sleep laboratory, of 994 people."""

    @property
    def card(self) -> CorpusCard:
        return CorpusCard(
            name="cinc2018",
            title="PhysioNet/Computing in Cardiology Challenge 2018, training set",
            version="1.0.0",
            licence="ODC-By 1.0",
            access="open",
            citation=(
                "M. M. Ghassemi, B. E. Moody, L.-W. H. Lehman, C. Song, Q. Li, H. Sun, R. G. Mark, M. B. Westover,"
                " G. D. Clifford. You Snooze, You Win: the PhysioNet/Computing in Cardiology Challenge 2018."
                " Computing in Cardiology 45, 2018. doi 10.22489/CinC.2018.049."
            ),
            url="https://physionet.org/content/challenge-2018/1.0.0/",
            channel_groups=GROUPS,
            label_map=LABEL_MAP,
            subject_rule="the record name: one record a person",
            nights=994,
            people=994,
            obtain=(
                "Free to download from PhysioNet without an account; the labelled records are in the folder training."
            ),
            layout=(
                "training/trXX-NNNN/trXX-NNNN.hea",
                "training/trXX-NNNN/trXX-NNNN.mat",
                "training/trXX-NNNN/trXX-NNNN.arousal",
                "training/trXX-NNNN/trXX-NNNN-arousal.mat",
            ),
            reads=(
                "Signals are WFDB format 16 behind the 24 bytes of a MATLAB header, 13 channels at 200 Hz; E1-M2 is the"
                " only EOG. Samples marked as missing (-32768) are read as no number.",
                "Stages are the annotations W, N1, N2, N3 and R; each holds to the next, the last one to the end of the"
                " signal. Events such as (resp_hypopnea are no stages.",
                "Epochs before the first stage are unscored. A stage at the very first sample is kept.",
                "Where -arousal.mat stands in place of .arousal it is read; the stage of an epoch is what holds at its"
                " middle, because stages change one sample early in that file. Where both are there, .arousal is read"
                " and every epoch in which they differ is reported.",
                "Most records are no whole number of epochs long; the rest is dropped and reported.",
                "Unlabelled test records (te..., or in a folder named test) are left out and listed.",
            ),
            refuses=(
                "A record without signals, header or labels, or with two files that claim to be the same of these.",
                "A header that names another record or another signal file than the one beside it.",
                "Signals shorter than the header says, or whose MATLAB header or checksum says otherwise.",
                "Labels in which a stage begins more than an epoch after the signal's end, or one-hot columns that are"
                " not as long as the signal.",
                "A night whose two label files differ in more than 1 % of the epochs.",
            ),
        )

    def discover(self, root: Path) -> Discovery:
        found = walk(root)
        nights: dict[str, dict[str, list[Path]]] = {}
        refused = dict(found.unreadable)
        strange = []
        for file in found.files:
            match = _NAME.fullmatch(file.name)
            if match is not None:
                nights.setdefault(match[1].lower(), {}).setdefault(match[2].lower(), []).append(file)
            elif _SIMILAR.fullmatch(file.name):
                strange.append(file)
                refused[file.as_posix()] = (
                    f"{root / file}: name does not follow {_EXAMPLE}, .hea, .arousal or tr03-0005-arousal.mat"
                )
        if not nights and not refused:
            raise UserError(f"{root}: holds no night of {self.card.name} (files such as {_EXAMPLE})")
        excluded = [name for name, files in nights.items() if _is_test(root, name, files)]
        if excluded and len(excluded) == len(nights) and not refused:
            raise UserError(
                f"{root}: holds only test records ({len(excluded)}, such as {min(excluded)}), which have no published"
                f" labels; give the folder with training records (files such as {_EXAMPLE})"
            )
        recordings: list[RecordingFiles] = []
        flags: dict[str, bool] = {}
        for name, files in sorted(nights.items()):
            if name in excluded:
                continue
            try:
                recording = _night(root, name, files, flags)
            except DataError as error:
                refused[name] = str(error)
            else:
                recordings.append(recording)
        refuse_mixture(root, flags)
        return Discovery(recordings=recordings, refused=refused, excluded=tuple(sorted(excluded)))

    def _record(self, recording: RecordingFiles) -> tuple[WfdbHeader, int, list[str]]:
        """Header, frames in the signal file, and what is odd about the file."""
        path = recording.others.get("header", recording.signals.with_suffix(".hea"))
        header = read_wfdb_header(path)
        _check_names(header, recording.name, recording.signals)
        n_samples, problems = check_wfdb_files(header)
        shape = _matlab_shape(recording.signals)
        if shape is not None and shape != (len(header.signals), n_samples):
            raise DataError(
                f"{recording.signals}: holds {shape[0]} signals of {shape[1]} samples, but {path.name} describes"
                f" {len(header.signals)} of {n_samples}"
            )
        return header, n_samples, problems

    def channels(self, recording: RecordingFiles) -> list[Channel]:
        header, n_samples, _ = self._record(recording)
        channels = []
        for signal in header.signals:
            factor = microvolts_per(signal.unit) or 1.0
            low, high = signal.limits
            channels.append(
                Channel(
                    name=signal.name,
                    sampling_rate_hz=header.sampling_rate_hz * signal.samples_per_frame,
                    unit=signal.unit,
                    n_samples=n_samples * signal.samples_per_frame,
                    limits=(low * factor, high * factor),
                )
            )
        return channels

    def read(self, recording: RecordingFiles, name: str) -> npt.NDArray[np.float32]:
        header, _, _ = self._record(recording)
        matching = [index for index, signal in enumerate(header.signals) if signal.name == name]
        if not matching:
            raise DataError(
                f"{header.path}: no channel {name!r}; the record has"
                f" {', '.join(signal.name for signal in header.signals)}"
            )
        if len(matching) > 1:
            raise DataError(f"{header.path}: {len(matching)} channels are named {name!r}; which is meant?")
        samples = read_wfdb_samples(header, matching[0])
        factor = microvolts_per(header.signals[matching[0]].unit)
        if factor not in (None, 1.0):
            samples *= np.float32(factor)
        return samples

    def problems(self, recording: RecordingFiles) -> Sequence[str]:
        header, _, problems = self._record(recording)
        needed = {name for names in GROUPS.values() for name in names}
        problems += [
            f"{signal.name}: unit {signal.unit!r} is not electrical; values taken as microvolts"
            for signal in header.signals
            if signal.name in needed and microvolts_per(signal.unit) is None
        ]
        return problems

    def hypnogram(self, recording: RecordingFiles) -> Hypnogram:
        if recording.labels is None:
            raise DataError(f"{recording.signals}: no labels (.arousal or -arousal.mat) for these signals")
        header, n_samples, _ = self._record(recording)
        rate = header.sampling_rate_hz
        if recording.labels.suffix.lower() == ".mat":
            runs = runs_from_one_hot(recording.labels, sampling_rate_hz=rate, n_samples=n_samples)
            return to_epochs(runs, LABEL_MAP, signal_seconds=n_samples / rate)
        annotations = read_wfdb_annotations(recording.labels)
        runs = runs_from_arousal(annotations, sampling_rate_hz=rate, n_samples=n_samples, path=recording.labels)
        hypnogram = to_epochs(runs, LABEL_MAP, signal_seconds=n_samples / rate)
        if "one_hot" not in recording.others:
            return hypnogram
        one_hot = recording.others["one_hot"]

        def of_one_hot() -> Stages:
            other = runs_from_one_hot(one_hot, sampling_rate_hz=rate, n_samples=n_samples)
            return to_epochs(other, LABEL_MAP, signal_seconds=n_samples / rate).stages

        return held_against(hypnogram, recording.labels, one_hot, of_one_hot)


def _is_test(root: Path, name: str, files: Mapping[str, Sequence[Path]]) -> bool:
    """Whether a record is of the test set, whose labels were never published."""
    labelled = ".arousal" in files or "-arousal.mat" in files
    folders = {part.casefold() for paths in files.values() for path in paths for part in path.parent.parts}
    folders.add(root.name.casefold())
    return name.startswith("te") or (not labelled and "test" in folders)


def _check_names(header: WfdbHeader, name: str, signals: Path) -> None:
    """Refuse a header of another record, or one that describes another file."""
    if header.record.casefold() != name.casefold():
        raise DataError(f"{header.path}: describes the record {header.record[:40]!r}, not {name!r}")
    if not header.signals:
        raise DataError(f"{header.path}: header describes no signals")
    for signal in header.signals:
        if signal.file != signals:
            raise DataError(f"{header.path}: {signal.name!r} lies in {signal.file.name!r}, not in {signals}")


def _night(root: Path, name: str, files: Mapping[str, Sequence[Path]], flags: dict[str, bool]) -> RecordingFiles:
    """The files of one night. ``flags`` takes up whether it is simulated, also when it is refused afterwards.

    Raises:
        DataError: the night cannot be used.
    """
    headers = [read_wfdb_header(root / file) for file in files.get(".hea", ())]
    for header in headers:
        flags[str(header.path.relative_to(root))] = any(says_simulated(comment) for comment in header.comments)
    some = root / next(iter(files.values()))[0]
    for kind, what in _KINDS.items():
        if len(files.get(kind, ())) > 1:
            listed = ", ".join(map(str, files[kind]))
            raise DataError(f"{root}: {len(files[kind])} files claim to be the {what} of {name}: {listed}")
    for kind in (".mat", ".hea"):
        if kind not in files:
            raise DataError(f"{some}: no {_KINDS[kind]} of {name} beside it")
    if ".arousal" not in files and "-arousal.mat" not in files:
        raise DataError(f"{some}: no labels (.arousal or -arousal.mat) for {name}")
    (header,) = headers
    signals = root / files[".mat"][0]
    _check_names(header, name, signals)
    labels = files.get(".arousal", files.get("-arousal.mat", ()))[0]
    others = {"header": header.path}
    if ".arousal" in files and "-arousal.mat" in files:
        others["one_hot"] = root / files["-arousal.mat"][0]
    return RecordingFiles(
        name=name,
        subject=name,
        signals=signals,
        labels=root / labels,
        others=others,
        simulated=any(says_simulated(comment) for comment in header.comments),
    )
