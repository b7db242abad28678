"""shhs: Sleep Heart Health Study, visits 1 and 2, as the National Sleep Research Resource hands it out.

A night is an EDF file (``shhs1-200001.edf``) with its hypnogram in the NSRR's XML, in Profusion's, or both. Sources:
Quan et al. 1997, Sleep 20(12):1077-1085; Zhang et al. 2018, doi 10.1093/jamia/ocy064.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tusp.datasets.corpora.edf_nights import EdfNights, is_simulated
from tusp.datasets.corpora.folders import walk
from tusp.datasets.corpora.label_pairs import held_against
from tusp.datasets.corpora.simulated import refuse_mixture
from tusp.datasets.formats.edf import read_header
from tusp.datasets.formats.hypnograms import Run, to_epochs
from tusp.datasets.formats.sleep_xml import runs_from_nsrr, runs_from_profusion
from tusp.datasets.recording import CorpusCard, Discovery, Hypnogram, RecordingFiles, Stages
from tusp.platform.errors import DataError, UserError
from tusp.platform.stages import EPOCH_SECONDS, N1, N2, N3, REM, UNSCORED, W

NSRR_MAP: Final = {
    "Wake|0": W,
    "Stage 1 sleep|1": N1,
    "Stage 2 sleep|2": N2,
    "Stage 3 sleep|3": N3,
    "Stage 4 sleep|4": N3,
    "REM sleep|5": REM,
    "Movement|6": UNSCORED,
    "Unscored|9": UNSCORED,
}
PROFUSION_MAP: Final = {"0": W, "1": N1, "2": N2, "3": N3, "4": N3, "5": REM, "6": UNSCORED, "9": UNSCORED}
LABEL_MAP: Final = {**NSRR_MAP, **PROFUSION_MAP}
MOST_LENGTH_DIFFERENCE: Final = 0.2
"""By which share of the signal's length the labels may be longer or shorter than the signal."""

_ALIASES: Final = {
    "C4-A1": ("EEG", "C4-A1"),
    "C3-A2": ("EEG(sec)", "EEG2", "EEG 2", "EEG_SEC", "EEG sec", "C3-A2"),
    "EOG(L)": ("EOG(L)",),
    "EOG(R)": ("EOG(R)",),
}
_GROUPS: Final = {"EEG": ("C4-A1", "C3-A2"), "EOG": ("EOG(L)", "EOG(R)")}
_NAME: Final = re.compile(r"(shhs[12]-(\d{6}))(\.edf|-nsrr\.xml|-profusion\.xml)", re.IGNORECASE | re.ASCII)
_SIMILAR: Final = re.compile(r"shhs\d?-\d.*\.(edf|xml)", re.IGNORECASE | re.ASCII)
_KINDS: Final = {".edf": "signals", "-nsrr.xml": "NSRR labels", "-profusion.xml": "Profusion labels"}
_EXAMPLE: Final = "shhs1-200001.edf"


@dataclass(frozen=True, kw_only=True)
class Shhs(EdfNights):
    """8,444 nights at home of 5,797 people; some were visited twice."""

    @property
    def card(self) -> CorpusCard:
        return CorpusCard(
            name="shhs",
            title="Sleep Heart Health Study, visits 1 and 2",
            version="as the NSRR hands it out",
            licence="NSRR data access and use agreement",
            access="agreement",
            citation=(
                "S. F. Quan, B. V. Howard, C. Iber, J. P. Kiley, F. J. Nieto, G. T. O'Connor, D. M. Rapoport,"
                " S. Redline, J. Robbins, J. M. Samet, P. W. Wahl. The Sleep Heart Health Study: design, rationale, and"
                " methods. Sleep 20(12):1077-1085, 1997."
            ),
            url="https://sleepdata.org/datasets/shhs",
            channel_groups=_GROUPS,
            label_map=LABEL_MAP,
            subject_rule="the six digits of the file name; both visits of a person are one subject",
            nights=8444,
            people=5797,
            obtain=(
                "From the National Sleep Research Resource, after its data access and use agreement was granted; its"
                " terms forbid passing the data on."
            ),
            layout=(
                "polysomnography/edfs/shhsV/shhsV-NNNNNN.edf",
                "polysomnography/annotations-events-nsrr/shhsV/shhsV-NNNNNN-nsrr.xml",
                "polysomnography/annotations-events-profusion/shhsV/shhsV-NNNNNN-profusion.xml",
            ),
            reads=(
                "Both visits of a person are one subject, so they never part between training and test.",
                "EEG is C4-A1, EEG(sec) is C3-A2, also under the names EEG2, EEG 2, EEG_SEC and EEG sec.",
                "Every channel is read at its own sampling rate (EEG 125 or 128 Hz, EOG 50 or 64 Hz).",
                "The unit in the header is believed; values without an electrical unit are taken as microvolts, and"
                " that is reported.",
                "Labels are the NSRR's XML, or Profusion's where that is all there is. Stages 3 and 4 become N3;"
                " movement and unscored become unscored.",
                "Where both label files are there, every epoch in which they differ is reported, and the NSRR's is"
                " used.",
                "Labels that are more than an epoch shorter or longer than the signal are reported; what is longer is"
                " clipped, what is missing is unscored.",
            ),
            refuses=(
                "A night without signals or without labels, or with two files that claim to be the same of these.",
                "Labels that last more than 20 % longer or shorter than the signal: they belong to another night.",
                "A night whose two label files differ in more than 1 % of the epochs.",
                "XML with a document type declaration or entities, and XML of more than 64 MiB.",
            ),
        )

    @property
    def aliases(self) -> Mapping[str, Sequence[str]]:
        return _ALIASES

    def discover(self, root: Path) -> Discovery:
        found = walk(root)
        nights: dict[str, dict[str, list[Path]]] = {}
        refused = dict(found.unreadable)
        for file in found.files:
            match = _NAME.fullmatch(file.name)
            if match is not None:
                nights.setdefault(match[1].lower(), {}).setdefault(match[3].lower(), []).append(file)
            elif _SIMILAR.fullmatch(file.name):
                refused[file.as_posix()] = (
                    f"{root / file}: name does not follow {_EXAMPLE}, shhs1-200001-nsrr.xml or"
                    " shhs1-200001-profusion.xml"
                )
        if not nights and not refused:
            raise UserError(f"{root}: holds no night of {self.card.name} (files such as {_EXAMPLE})")
        recordings: list[RecordingFiles] = []
        flags: dict[str, bool] = {}
        for name, files in sorted(nights.items()):
            try:
                recordings.append(_night(root, name, files, flags))
            except DataError as error:
                refused[name] = str(error)
        refuse_mixture(root, flags)
        return Discovery(recordings=recordings, refused=refused)

    def hypnogram(self, recording: RecordingFiles) -> Hypnogram:
        if recording.labels is None:
            raise DataError(f"{recording.signals}: no labels (NSRR or Profusion XML) for these signals")
        seconds = read_header(recording.signals).seconds
        if recording.labels.name.lower().endswith("-profusion.xml"):
            runs, label_map = runs_from_profusion(recording.labels), PROFUSION_MAP
        else:
            runs, label_map = runs_from_nsrr(recording.labels), NSRR_MAP
        hypnogram = to_epochs(runs, label_map, signal_seconds=seconds)
        hypnogram = replace(
            hypnogram, problems=(*hypnogram.problems, *_length_problem(runs, recording.labels, seconds))
        )
        if "profusion" not in recording.others:
            return hypnogram
        profusion = recording.others["profusion"]

        def of_profusion() -> Stages:
            return to_epochs(runs_from_profusion(profusion), PROFUSION_MAP, signal_seconds=seconds).stages

        return held_against(hypnogram, recording.labels, profusion, of_profusion)


def _night(root: Path, name: str, files: Mapping[str, Sequence[Path]], flags: dict[str, bool]) -> RecordingFiles:
    """The files of one night. ``flags`` takes up whether its signals are simulated.

    Raises:
        DataError: the night cannot be used.
    """
    for file in files.get(".edf", ()):
        flags[str(file)] = is_simulated(read_header(root / file))
    for kind, what in _KINDS.items():
        if len(files.get(kind, ())) > 1:
            listed = ", ".join(map(str, files[kind]))
            raise DataError(f"{root}: {len(files[kind])} files claim to be the {what} of {name}: {listed}")
    nsrr, profusion = (files[kind][0] if kind in files else None for kind in ("-nsrr.xml", "-profusion.xml"))
    labels = nsrr or profusion
    if ".edf" not in files:
        raise DataError(f"{root / labels if labels else root}: no signals ({name}.edf) for these labels")
    signals = files[".edf"][0]
    if labels is None:
        raise DataError(f"{root / signals}: no labels ({name}-nsrr.xml or {name}-profusion.xml) for these signals")
    return RecordingFiles(
        name=name,
        subject=name.partition("-")[2],
        signals=root / signals,
        labels=root / labels,
        others={"profusion": root / profusion} if nsrr and profusion else {},
        simulated=flags[str(signals)],
    )


def _length_problem(runs: Sequence[Run], labels: Path, signal_seconds: float) -> list[str]:
    """Say that labels and signal differ in length by more than an epoch, in at most one line.

    Raises:
        DataError: they differ by more than a fifth of the signal.
    """
    end = max(run.onset + (run.duration or 0.0) for run in runs)
    difference = abs(end - signal_seconds)
    lengths = f"labels end at {end:g} s, the signal at {signal_seconds:g} s"
    if difference > max(MOST_LENGTH_DIFFERENCE * signal_seconds, EPOCH_SECONDS):
        raise DataError(f"{labels}: {lengths}; these labels are not of this night")
    return [lengths] if difference > EPOCH_SECONDS else []
