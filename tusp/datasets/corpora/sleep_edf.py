"""What both halves of Sleep-EDF Expanded 1.0.0 share: pairs of original EDF files.

Signals and labels of a night are two files whose first six characters agree (``SC4001E0-PSG.edf`` and
``SC4001EC-Hypnogram.edf``). Source: Kemp et al. 2000, doi 10.1109/10.867928; PhysioNet sleep-edfx 1.0.0.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

from tusp.datasets.corpora.edf_nights import EdfNights, is_simulated
from tusp.datasets.corpora.folders import walk
from tusp.datasets.corpora.simulated import refuse_mixture
from tusp.datasets.formats.edf import EdfHeader, read_header
from tusp.datasets.formats.hypnograms import runs_from_edf, to_epochs
from tusp.datasets.recording import CorpusCard, Discovery, Hypnogram, RecordingFiles
from tusp.platform.errors import DataError, UserError
from tusp.platform.stages import N1, N2, N3, REM, UNSCORED, W

LABEL_MAP: Final = {
    "Sleep stage W": W,
    "Sleep stage 1": N1,
    "Sleep stage 2": N2,
    "Sleep stage 3": N3,
    "Sleep stage 4": N3,
    "Sleep stage R": REM,
    "Sleep stage ?": UNSCORED,
    "Movement time": UNSCORED,
}
_ALIASES: Final = {
    "Fpz-Cz": ("EEG Fpz-Cz", "Fpz-Cz"),
    "Pz-Oz": ("EEG Pz-Oz", "Pz-Oz"),
    "horizontal": ("EOG horizontal", "horizontal"),
}
_GROUPS: Final = {"EEG": ("Fpz-Cz", "Pz-Oz"), "EOG": ("horizontal",)}


def same_patient(one: str, other: str) -> bool:
    """Whether two patient identifications can be of one person; a sub-field that is X or absent fits any."""
    pairs = zip(one.casefold().split(), other.casefold().split(), strict=False)
    return all(left == right or "x" in (left, right) for left, right in pairs)


def partner_reason(signals: EdfHeader, labels: EdfHeader) -> str | None:
    """Why the hypnogram cannot belong to these signals, or None when both headers agree."""
    names = f"{labels.path.name} does not belong to {signals.path.name}"
    if signals.start is None or labels.start is None:
        return f"{names} for certain: a header has no readable start date and time"
    if signals.start != labels.start:
        return f"{names}: signals start {signals.start:%Y-%m-%d %H:%M:%S}, labels {labels.start:%Y-%m-%d %H:%M:%S}"
    if not same_patient(signals.patient, labels.patient):
        return f"{names}: signals are of patient {signals.patient!r}, labels of {labels.patient!r}"
    return None


class _Night(NamedTuple):
    signals: list[Path]
    labels: list[Path]


class SleepEdf(EdfNights):
    """What both halves of Sleep-EDF share."""

    prefix: ClassVar[str]
    """First two characters and series digit of the file names."""
    letter: ClassVar[str]

    @property
    @abstractmethod
    def card(self) -> CorpusCard: ...

    @property
    def aliases(self) -> Mapping[str, Sequence[str]]:
        return _ALIASES

    def _nights(self, files: Sequence[Path]) -> tuple[dict[str, _Night], list[Path]]:
        """Nights by the six characters that pair their files, and files of this corpus with a strange name."""
        pattern = re.compile(rf"({self.prefix}\d\d\d)([A-Z][A-Z0-9])-(PSG|Hypnogram)\.edf", re.IGNORECASE | re.ASCII)
        nights: dict[str, _Night] = {}
        strange = []
        for file in files:
            match = pattern.fullmatch(file.name)
            if match is None:
                if file.suffix.lower() == ".edf" and file.name.upper().startswith(self.prefix):
                    strange.append(file)
                continue
            night = nights.setdefault(match[1].upper(), _Night([], []))
            (night.signals if match[3].upper() == "PSG" else night.labels).append(file)
        return nights, strange

    def discover(self, root: Path) -> Discovery:
        found = walk(root)
        nights, strange = self._nights(found.files)
        example = f"{self.prefix}001{self.letter}0-PSG.edf"
        if not nights and not strange and not found.unreadable:
            raise UserError(f"{root}: holds no night of {self.card.name} (files such as {example})")
        refused = dict(found.unreadable)
        for file in strange:
            refused[file.stem] = (
                f"{root / file}: name does not follow {example} or {self.prefix}001{self.letter}C-Hypnogram.edf"
            )
        recordings: list[RecordingFiles] = []
        flags: dict[str, bool] = {}
        for key, night in sorted(nights.items()):
            name = night.signals[0].name[:8].upper() if night.signals else key
            headers, reason = self._headers(root, night)
            for header in headers:
                flags[header.path.name] = is_simulated(header)
            if reason is not None:
                refused[name] = reason
                continue
            recordings.append(
                RecordingFiles(
                    name=name,
                    subject=key[:5],
                    signals=root / night.signals[0],
                    labels=root / night.labels[0],
                    simulated=is_simulated(headers[0]),
                )
            )
        refuse_mixture(root, flags)
        return Discovery(recordings=recordings, refused=refused)

    def _headers(self, root: Path, night: _Night) -> tuple[list[EdfHeader], str | None]:
        """Headers of a night's files as far as they are readable, and why the night is refused."""
        headers, reasons = [], []
        for file in (*night.signals, *night.labels):
            try:
                headers.append(read_header(root / file))
            except DataError as error:
                reasons.append(str(error))
        if not night.labels:
            return headers, f"{root / night.signals[0]}: no hypnogram beside these signals"
        if not night.signals:
            return headers, f"{root / night.labels[0]}: no signals (PSG) for this hypnogram"
        for kind, files in (("signals", night.signals), ("hypnogram", night.labels)):
            if len(files) > 1:
                return (
                    headers,
                    f"{root}: {len(files)} files claim to be its {kind}: {', '.join(map(str, files))}",
                )
        if reasons:
            return headers, "; ".join(reasons)
        signals, labels = headers
        return headers, partner_reason(signals, labels)

    def hypnogram(self, recording: RecordingFiles) -> Hypnogram:
        if recording.labels is None:
            raise DataError(f"{recording.signals}: no hypnogram beside these signals")
        signals, labels = read_header(recording.signals), read_header(recording.labels)
        reason = partner_reason(signals, labels)
        if reason is not None:
            raise DataError(f"{recording.labels}: {reason}")
        return to_epochs(runs_from_edf(labels), LABEL_MAP, signal_seconds=signals.seconds)


_READS: Final = (
    "Signals and hypnogram are paired by the first six characters of their names, in one folder or in several; the"
    " start time and the patient in both headers must agree.",
    "EEG Fpz-Cz, EEG Pz-Oz and EOG horizontal are read at the sampling rate of the file, in microvolts as the header's"
    " unit says; a value without an electrical unit is taken as microvolts, and that is reported.",
    "Stages 3 and 4 become N3; Sleep stage ? and Movement time become unscored.",
    "An epoch takes the stage that holds at its middle. Labels beyond the signal's last whole epoch are clipped, gaps"
    " between labels are unscored, labels that overlap with different stages are unscored; all of this is reported.",
    "A header that states no number of data records, a last record that is incomplete, swapped limits and bytes after"
    " the last record are read around and reported.",
)
_REFUSES: Final = (
    "Signals without a hypnogram, a hypnogram without signals, and two files that claim to be the same of these.",
    "A hypnogram whose start time or patient differs from that of its signals: it is of another night.",
    "A file that holds fewer data records than its header states, a discontinuous recording (EDF+D), and a BDF file.",
)


def sleep_edf_card(
    *, name: str, title: str, subject_rule: str, folder: str, files: Sequence[str], reads: Sequence[str], **more: Any
) -> CorpusCard:
    """What both halves say of themselves, and what ``more`` adds.

    Args:
        folder: where PhysioNet keeps the files.
        files: patterns of their names.
        reads: what this half has of its own.
    """
    return CorpusCard(
        name=name,
        title=title,
        version="1.0.0",
        licence="ODC-By 1.0",
        access="open",
        citation=(
            "B. Kemp, A. H. Zwinderman, B. Tuk, H. A. C. Kamphuisen, J. J. L. Oberye. Analysis of a sleep-dependent"
            " neuronal feedback loop: the slow-wave microcontinuity of the EEG. IEEE-BME 47(9):1185-1194, 2000."
        ),
        url="https://physionet.org/content/sleep-edfx/1.0.0/",
        channel_groups=_GROUPS,
        label_map=LABEL_MAP,
        subject_rule=subject_rule,
        obtain="From PhysioNet, without registration.",
        layout=tuple(f"{folder}/{file}" for file in files),
        reads=(*_READS, *reads),
        refuses=_REFUSES,
        **more,
    )
