"""What dod-h and dod-o share: the Dreem Open Datasets, nights that five people scored.

Signals are ``<uuid>.h5``, the scorers' stages ``scorer_1/<uuid>.json`` to ``scorer_5/<uuid>.json``. Source: A. Guillot,
F. Sauvet, E. H. During, V. Thorey 2020, doi 10.1109/TNSRE.2020.3011181.
"""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import h5py
import numpy as np

from tusp.datasets.corpora.folders import walk
from tusp.datasets.corpora.hdf5_nights import Hdf5Night, Hdf5Nights, Hdf5Signal, is_simulated, usable_rate
from tusp.datasets.corpora.scorer_lists import Aligned, align, read_list
from tusp.datasets.corpora.simulated import refuse_mixture
from tusp.datasets.formats.edf import microvolts_per
from tusp.datasets.formats.hdf5 import (
    MOST_ATTRIBUTE_BYTES,
    attribute,
    dataset_at,
    group_at,
    length,
    member,
    members,
    numbers,
    opened_hdf5,
)
from tusp.datasets.recording import CorpusCard, Discovery, Hypnogram, RecordingFiles, Stages
from tusp.platform.errors import DataError, UserError, one_line
from tusp.platform.scoring.consensus import BEST, consensus, ranking
from tusp.platform.stages import EPOCH_SECONDS, N1, N2, N3, N_STAGES, REM, UNSCORED, W

LABEL_MAP: Final = {"-1": UNSCORED, "0": W, "1": N1, "2": N2, "3": N3, "4": REM}
SCORERS: Final = tuple(f"scorer_{number}" for number in range(1, 6))
FALLBACK_RATE_HZ: Final = 250.0
LEAST_SCORERS: Final = 2
OWN_HYPNOGRAM_AGREES: Final = 0.7
"""Below this share of equal epochs the file's own hypnogram is reported."""

EOG: Final = ("EOG1", "EOG2")
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_EXAMPLE: Final = "00a1b2c3-1111-5222-8333-444455556666.h5"
_DOMAINS: Final = ("eeg", "eog", "emg")
_MARKS: Final = {
    "dod-h": {"f4_m1", "fp1_f3", "fp1_m2", "fp1_o1", "fp2_f4", "fp2_m1", "fp2_o2"},
    "dod-o": {"c4_m1", "o1_m2", "o2_m1"},
}
"""EEG channels that only one of the two corpora has."""
_FOLDERS: Final = {"dod-h": {"dodh", "dod-h", "dod_h"}, "dod-o": {"dodo", "dod-o", "dod_o"}}
_MOST_DESCRIBED: Final = 1000


class DodNights(Hdf5Nights):
    """An adapter of one of the two corpora."""

    name: ClassVar[str]
    eeg: ClassVar[Sequence[str]]
    trims: ClassVar[Mapping[str, tuple[int, int | None]]] = {}
    """Light trims: night to the epochs to keep of the span that all scorers scored."""

    @property
    @abstractmethod
    def card(self) -> CorpusCard: ...

    def discover(self, root: Path) -> Discovery:
        found = walk(root)
        refused = dict(found.unreadable)
        signals: dict[str, list[Path]] = {}
        lists: dict[str, dict[str, list[Path]]] = {}
        strays: list[Path] = []
        for file in found.files:
            kind, scorer = file.suffix.lower(), (root / file).absolute().parent.name.lower()
            if kind == ".h5" and _UUID.fullmatch(file.stem):
                signals.setdefault(file.stem.lower(), []).append(root / file)
            elif kind == ".json" and _UUID.fullmatch(file.stem) and scorer in SCORERS:
                lists.setdefault(file.stem.lower(), {}).setdefault(scorer, []).append(root / file)
            elif kind == ".h5" and (reason := _night_of_another_name(root / file)) is not None:
                refused[file.as_posix()] = reason
            elif kind == ".json" and _UUID.fullmatch(file.stem):
                strays.append(file)
        for file in strays:
            if any(path.parent == (root / file).parent for path in signals.get(file.stem.lower(), ())):
                refused[file.as_posix()] = (
                    f"{root / file}: not read, since nothing says whose list it is; put it into a folder scorer_1 to"
                    " scorer_5"
                )
        recordings: list[RecordingFiles] = []
        foreign: list[str] = []
        flags: dict[str, bool] = {}
        for name in sorted({*signals, *lists}):
            try:
                belongs, night = self._found(root, name, signals.get(name, []), lists.get(name, {}), flags)
            except DataError as error:
                refused[name] = str(error)
                continue
            if night is not None:
                recordings.append(night)
            elif not belongs:
                foreign.append(name)
        if not recordings and not refused:
            other = f"; its {len(foreign)} nights are of the other Dreem corpus" if foreign else ""
            raise UserError(f"{root}: holds no night of {self.name} (files such as {_EXAMPLE}){other}")
        refuse_mixture(root, flags)
        return Discovery(recordings=recordings, refused=refused, excluded=tuple(foreign))

    def _found(
        self,
        root: Path,
        name: str,
        signals: Sequence[Path],
        lists: Mapping[str, Sequence[Path]],
        flags: dict[str, bool],
    ) -> tuple[bool, RecordingFiles | None]:
        """Whether the night is of this corpus, and the night.

        Raises:
            DataError: it cannot be used, or nothing tells of which corpus it is.
        """
        places = [path.relative_to(root) for path in (*signals, *(path for paths in lists.values() for path in paths))]
        said = _corpus_of_folders(places)
        if not signals:
            if said not in (None, self.name):
                return False, None
            first = next(iter(lists.values()))[0]
            raise DataError(f"{first}: no signals ({name}.h5) for this scorer's list")
        try:
            corpora = set()
            for path in signals:
                with opened_hdf5(path) as file:
                    corpora.add(_corpus_of_channels(file) or said)
                    simulated = is_simulated(file)
        except DataError:
            if said not in (None, self.name):
                return False, None
            raise
        if corpora == {None}:
            raise DataError(
                f"{signals[0]}: its EEG channels do not tell dod-h from dod-o; put it below a folder named {self.name}"
            )
        if self.name not in corpora:
            return False, None
        if len(signals) > 1:
            raise DataError(f"{root}: {len(signals)} files claim to be night {name}: {', '.join(map(str, signals))}")
        for scorer, paths in lists.items():
            if len(paths) > 1:
                raise DataError(f"{root}: {len(paths)} files claim to be its {scorer}: {', '.join(map(str, paths))}")
        flags[name] = simulated
        if 0 < len(lists) < LEAST_SCORERS:
            raise DataError(
                f"{signals[0]}: only {next(iter(lists))} has a list; a consensus needs at least {LEAST_SCORERS} scorers"
            )
        ordered = [(scorer, lists[scorer][0]) for scorer in SCORERS if scorer in lists]
        return True, RecordingFiles(
            name=name,
            subject=name,
            signals=signals[0],
            labels=ordered[0][1] if ordered else signals[0],
            others=dict(ordered[1:]),
            simulated=simulated,
        )

    def hypnogram(self, recording: RecordingFiles) -> Hypnogram:
        if recording.labels is None or recording.labels == recording.signals:
            return self._own_hypnogram(recording)
        aligned, problems, label_epochs = self._aligned(recording)
        votes = np.stack(list(aligned.votes.values()))
        ranked = ranking(votes[:, aligned.first : aligned.stop])
        stages = consensus(votes, ranked[:BEST])
        stages[: aligned.first] = UNSCORED
        stages[aligned.stop :] = UNSCORED
        problems += self._held_against_own(recording, stages)
        return Hypnogram(stages=stages, problems=tuple(problems), label_seconds=float(label_epochs * EPOCH_SECONDS))

    def scorers(self, recording: RecordingFiles) -> Mapping[str, Stages]:
        if recording.labels is None or recording.labels == recording.signals:
            return {}
        return self._aligned(recording)[0].votes

    def _aligned(self, recording: RecordingFiles) -> tuple[Aligned, list[str], int]:
        """The scorers' stages on the signal's grid, what is odd about them, and the epochs of the longest list."""
        assert recording.labels is not None
        lists = {path.parent.name.lower(): read_list(path) for path in (recording.labels, *_later(recording))}
        signal_epochs, rest = self._epochs(recording)
        aligned = align(
            lists,
            signal_epochs=signal_epochs,
            trim=self.trims.get(recording.name, (0, None)),
            path=recording.signals,
        )
        missing = [scorer for scorer in SCORERS if scorer not in lists]
        problems = [*aligned.problems, *rest]
        if missing:
            problems.append(f"{len(lists)} scorers, not five (no list of {', '.join(missing)})")
        return aligned, problems, max(map(len, lists.values()))

    def _epochs(self, recording: RecordingFiles) -> tuple[int, list[str]]:
        """Whole epochs of the signal, and a line about what is left."""
        seconds = self.signal_seconds(self.night(recording))
        n_epochs = int(seconds / EPOCH_SECONDS + 1e-9)
        rest = seconds - n_epochs * EPOCH_SECONDS
        return n_epochs, [f"the signal's last {rest:.6g} s are no whole epoch; dropped"] if rest > 1e-3 else []

    def _own_hypnogram(self, recording: RecordingFiles) -> Hypnogram:
        """The hypnogram inside the signal file, where no scorer's list is there."""
        signal_epochs, rest = self._epochs(recording)
        stages = _stored_hypnogram(recording.signals)
        if stages is None:
            raise DataError(f"{recording.signals}: no scorer's list beside it and no '/hypnogram' in it")
        if len(stages) != signal_epochs:
            raise DataError(
                f"{recording.signals}: its '/hypnogram' has {len(stages)} epochs, its signal {signal_epochs}"
            )
        return Hypnogram(
            stages=stages,
            problems=("one hypnogram (that of the signal file), not five scorers", *rest),
            label_seconds=float(len(stages) * EPOCH_SECONDS),
        )

    def _held_against_own(self, recording: RecordingFiles, stages: Stages) -> list[str]:
        """What the signal file's own hypnogram says about the alignment; it is not used otherwise."""
        try:
            own = _stored_hypnogram(recording.signals)
        except DataError as error:
            return [f"its own hypnogram is not used, and odd: {str(error).removeprefix(f'{recording.signals}: ')}"]
        if own is None:
            return []
        if len(own) != len(stages):
            return [f"its own hypnogram (not used) has {len(own)} epochs, its signal {len(stages)}"]
        both = (own != UNSCORED) & (stages != UNSCORED)
        agree = float((own == stages)[both].mean()) if both.any() else 0.0
        if agree >= OWN_HYPNOGRAM_AGREES:
            return []
        return [f"its own hypnogram (not used) agrees with the consensus in only {agree:.1%} of the epochs"]

    def _night(self, file: h5py.File, path: Path) -> Hdf5Night:
        described, problems = _description(file)
        canonical = {name.casefold(): name for name in (*self.eeg, *EOG)}
        signals: dict[str, Hdf5Signal] = {}
        group_at(file, "signals/eeg")
        domains = members(group_at(file, "signals"))
        for domain in sorted(domains, key=lambda name: (_DOMAINS.index(name) if name in _DOMAINS else 9, name)):
            group = member(file, f"signals/{domain}")
            if not isinstance(group, h5py.Group):
                continue
            rate, unit = attribute(group, "fs"), attribute(group, "unit")
            for label in members(group):
                where = f"signals/{domain}/{label}"
                name = canonical.get(label.casefold()) if domain in ("eeg", "eog") else None
                name = one_line(name or label)
                if name in signals:
                    name = one_line(where)
                said = described.get(where, {})
                try:
                    signals[name] = _signal(
                        file,
                        path,
                        name=name,
                        where=where,
                        rate=(said.get("fs"), rate),
                        unit=said.get("unit", unit),
                        electrical=domain in _DOMAINS,
                        problems=problems,
                    )
                except DataError as error:
                    problems.append(f"{name}: {str(error).removeprefix(f'{path}: ')} (channel not used)")
        return Hdf5Night(signals=list(signals.values()), problems=_together(problems))


def _signal(
    file: h5py.File,
    path: Path,
    *,
    name: str,
    where: str,
    rate: tuple[Any, Any],
    unit: Any,
    electrical: bool,
    problems: list[str],
) -> Hdf5Signal:
    n_samples = length(dataset_at(file, where), path=path)
    of_description, of_group = rate
    stated = of_group if of_description is None else of_description
    hertz = FALLBACK_RATE_HZ if stated is None else usable_rate(stated)
    if stated is None:
        problems.append(f"no sampling rate stated; taken as {FALLBACK_RATE_HZ:g} Hz: {name}")
    elif not hertz:
        problems.append(f"a sampling rate of {' '.join(str(stated).split())[:40]} is none (channel not used): {name}")
    elif of_group is not None and usable_rate(of_group) != hertz:
        problems.append(
            f"sampling rate {hertz:g} Hz (description), not {' '.join(str(of_group).split())[:40]} (group): {name}"
        )
    text = unit.strip() if isinstance(unit, str) else ""
    factor = microvolts_per(text) if electrical else 1.0
    if factor is None and text:
        problems.append(f"unit {text[:20]!r} is not electrical; taken as microvolts: {name}")
    return Hdf5Signal(
        name=name,
        dataset=where,
        sampling_rate_hz=hertz,
        n_samples=n_samples,
        unit=text or ("uV" if electrical else ""),
        factor=factor or 1.0,
    )


def _together(problems: Sequence[str]) -> list[str]:
    """Lines that differ only in the channel after the last colon, as one."""
    lines: dict[str, list[str]] = {}
    for problem in problems:
        text, _, name = problem.rpartition(": ")
        lines.setdefault(text, []).append(name)
    return [f"{text}: {', '.join(names)}" if text else ", ".join(names) for text, names in lines.items()]


def _later(recording: RecordingFiles) -> list[Path]:
    return [path for role, path in sorted(recording.others.items()) if role in SCORERS]


def _night_of_another_name(path: Path) -> str | None:
    """What is wrong with an HDF5 file that is not named like a night; None where it is of something else."""
    try:
        with opened_hdf5(path) as file:
            is_night = isinstance(member(file, "signals/eeg"), h5py.Group)
    except DataError as error:
        return f"{error}; and its name does not follow {_EXAMPLE}"
    return f"{path}: name does not follow {_EXAMPLE}" if is_night else None


def _corpus_of_folders(places: Sequence[Path]) -> str | None:
    """The corpus that the names of the folders say, when they say one."""
    parts = {part.lower() for place in places for part in place.parent.parts}
    said = [corpus for corpus, names in _FOLDERS.items() if parts & names]
    return said[0] if len(said) == 1 else None


def _corpus_of_channels(file: h5py.File) -> str | None:
    """The corpus that the EEG channels tell, when they tell one."""
    names = {name.casefold() for name in members(group_at(file, "signals/eeg"))}
    said = [corpus for corpus, marks in _MARKS.items() if names & marks]
    return said[0] if len(said) == 1 else None


def _stored_hypnogram(path: Path) -> Stages | None:
    """The dataset ``/hypnogram``, or None where there is none.

    Raises:
        DataError: it holds something other than stage codes.
    """
    with opened_hdf5(path) as file:
        dataset = member(file, "hypnogram")
        if dataset is None:
            return None
        codes = numbers(dataset_at(file, "hypnogram"), path=path)
    known = np.isin(codes, np.arange(UNSCORED, N_STAGES))
    if not known.all():
        epoch = int(np.argmin(known))
        raise DataError(f"{path}: '/hypnogram' has code {codes[epoch]:g} at epoch {epoch}; codes are -1 to 4")
    return codes.astype(np.int8)


def _description(file: h5py.File) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The attribute ``description`` by path of the dataset, and a line when it cannot be read."""
    text = attribute(file, "description")
    if text is None:
        return {}, []
    try:
        if not isinstance(text, str) or len(text) > MOST_ATTRIBUTE_BYTES:
            raise ValueError("not a text of a reasonable length")
        entries = json.loads(text)
        if not isinstance(entries, list) or len(entries) > _MOST_DESCRIBED:
            raise ValueError("not a list of channels")
        described: dict[str, dict[str, Any]] = {}
        for entry in entries:
            if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
                raise ValueError("an entry without a path")
            described.setdefault(entry["path"].strip("/"), entry)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())[:80]
        return {}, [f"the attribute 'description' is not readable ({reason})"]
    return described, []


def dod_card(*, name: str, title: str, eeg: Sequence[str], trimmed: Sequence[str] = (), **more: Any) -> CorpusCard:
    """What both corpora say of themselves, and what ``more`` adds."""
    return CorpusCard(
        name=name,
        title=title,
        version="1",
        licence="as stated at Zenodo record 15900394; the scorers' lists are under the MIT licence",
        access="open",
        citation=(
            "A. Guillot, F. Sauvet, E. H. During, V. Thorey. Dreem Open Datasets: multi-scored sleep datasets to"
            " compare human and automated sleep staging. IEEE Transactions on Neural Systems and Rehabilitation"
            " Engineering 28(9):1955-1965, 2020."
        ),
        channel_groups={"EEG": tuple(eeg), "EOG": EOG},
        label_map=LABEL_MAP,
        subject_rule="the file's name: one night a person",
        hold_out=True,
        url="https://zenodo.org/records/15900394",
        obtain=(
            "Signals from Zenodo record 15900394, scorers' lists from the repository dreem-learning-evaluation, both"
            " without registration."
        ),
        layout=("UUID.h5", "scorer_1/UUID.json", "...", "scorer_5/UUID.json"),
        reads=(
            "Signals and scorers' lists may lie anywhere below the corpus's folder; a list is known by the name of its"
            " folder, scorer_1 to scorer_5.",
            "A root with both Dreem corpora works: a night's EEG channels tell which of the two it is of (where they do"
            " not, a folder named dod-h or dod-o does), and the nights of the other are left out by name.",
            "The sampling rate is that of the attribute description, else that of the channel's group, else 250 Hz;"
            " the last is reported, and so is a description that contradicts the group.",
            "Signals are in microvolts unless the file states another electrical unit.",
            "The hypnogram is the consensus of the four scorers with the highest soft agreement in this night: the"
            " majority's stage, and in a tie that of the best-ranked scorer among the tied. Every scorer's own stages"
            " are kept beside it.",
            "Lists are cut to the span in which every scorer has begun and none has stopped; a signal as long as that"
            " span starts with it, a signal as long as the lists starts with them. The signal may be less than one"
            " epoch longer; the remainder is dropped. Every cut, and lists that differ in length, are reported.",
            *trimmed,
            "With two to four scorers the consensus is that of all or of the best four, and the missing lists are"
            " reported. Without any list the hypnogram inside the signal file is used, and that is reported.",
            "A hypnogram inside the signal file that agrees with the consensus in less than 70 % of the epochs, or has"
            " another length than the signal, is reported.",
        ),
        refuses=(
            "A signal that is as long neither as the scorers' lists nor as the span that all of them scored.",
            "A night of which only one scorer's list is there, one whose list holds something other than the codes -1"
            " to 4, and one in which a scorer scored nothing.",
            "A night whose EEG channels do not tell dod-h from dod-o and whose folders do not either.",
            "A list beside its night that lies in no scorer's folder, and HDF5 files of other names that are nights or"
            " cannot be read.",
            "Two files of one name, lists without signals, HDF5 signals that lie in other files or were never written.",
        ),
        **more,
    )
