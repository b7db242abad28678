"""The truth that hypnograms of others are judged against: a registered corpus, or labels that lie apart.

Labels that lie apart are a folder of hypnograms, a JSON file ``{recording: codes}``, folders ``scorer_*`` of lists,
or a JSON file ``{scorer: {recording: codes}}``. Several scorers become a consensus by the rules of the Dreem Open
Datasets (:mod:`tusp.platform.scoring.consensus`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from tusp.datasets.catalog import adapter_for, get_corpus, list_corpora, recording_files, recordings
from tusp.datasets.corpora.dod_h import DodH
from tusp.datasets.corpora.dod_o import DodO
from tusp.datasets.corpora.scorer_lists import align
from tusp.datasets.hypnogram_files import Given, Submitted, codes_of, nested_codes, read_submission
from tusp.datasets.recording import Stages
from tusp.platform.errors import DataError, UserError
from tusp.platform.files import disk_errors_named
from tusp.platform.scoring.consensus import BEST, consensus, consensus_of_others, ranking
from tusp.platform.stages import UNSCORED
from tusp.platform.store.entries import truth_hash
from tusp.platform.store.session import Store

LEAST_SCORERS: Final = 2
TRIMS: Final = {**DodH.trims, **DodO.trims}
"""Light trims by recording: no other recording has these names."""

LONGEST_RECORDING_NAME: Final = 128
_SCORER_FOLDER: Final = re.compile(r"scorer(\d+|[_-]\w+)", re.IGNORECASE)
_SLEEP_EDF_PERSON: Final = re.compile(r"((?:SC4|ST7)\d\d)\d(?:[A-Z].*)?", re.IGNORECASE | re.ASCII)
_SHHS_PERSON: Final = re.compile(r"shhs[12]-(\d+)(?:\D.*)?", re.IGNORECASE | re.ASCII)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, kw_only=True, eq=False)
class TruthNight:
    """The truth of one recording."""

    recording: str
    subject: str
    stages: Stages
    """int8 [n_epochs] on the recording's grid (that of the scorers' lists where no signal is known)."""
    first: int
    stop: int
    """Epochs ``[first, stop)`` that are labelled: what all scorers scored, or from the first to the last scored one."""
    votes: Mapping[str, Stages] = field(default_factory=dict)
    """Stages by scorer over the labelled span, [stop - first]; empty where one person scored."""

    @property
    def true(self) -> Stages:
        """Stages of the labelled span."""
        return self.stages[self.first : self.stop]

    @property
    def consensus_votes(self) -> tuple[tuple[int, ...], int] | None:
        """How many of the best four scorers gave the truth's stage in each epoch, and how many they are."""
        if not self.votes:
            return None
        table = np.stack(list(self.votes.values()))
        best = table[ranking(table)[:BEST]]
        return tuple((best == self.true).sum(axis=0).tolist()), len(best)

    def others(self, scorer: str) -> tuple[Stages, tuple[int, ...], int]:
        """Consensus of everybody but one scorer over the span, its votes in each epoch, and the number of voters.

        Everybody's consensus where this scorer did not score the recording.
        """
        table = np.stack(list(self.votes.values()))
        names = list(self.votes)
        if scorer in names:
            place = names.index(scorer)
            stages = consensus_of_others(table, place)
            table = np.delete(table, place, axis=0)
        else:
            stages = consensus(table, ranking(table))
        return stages, tuple((table == stages).sum(axis=0).tolist()), len(table)


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """What a submission is judged against."""

    corpus: str
    kind: str
    """``corpus``, ``hypnograms`` or ``scorers``."""
    simulated: bool
    nights: Mapping[str, TruthNight]
    refused: Mapping[str, str] = field(default_factory=dict)
    """Recordings whose labels cannot be used, with the reason."""
    notes: Sequence[str] = ()

    @property
    def scorers(self) -> tuple[str, ...]:
        """Everybody who scored a recording, where several did."""
        return tuple(sorted({scorer for night in self.nights.values() for scorer in night.votes}))

    @property
    def hash(self) -> str:
        """Hash of recordings and stages; the same labels have the same one wherever they were read from."""
        return truth_hash({name: night.true for name, night in self.nights.items()})


def truth_of_corpus(store: Store, name: str) -> Truth:
    """The expert hypnograms of a registered corpus's usable recordings.

    Raises:
        UserError: there is no such corpus, or none of its recordings can be used.
        DataError: labels that the audit could read cannot be read any more.
    """
    corpus = get_corpus(store, name)
    adapter = adapter_for(corpus)
    nights: dict[str, TruthNight] = {}
    refused: dict[str, str] = {}
    for row in recordings(store, name):
        if not row.usable:
            refused[row.name] = row.reason or "refused by the audit"
            continue
        files = recording_files(corpus, row)
        stages = adapter.hypnogram(files).stages
        votes = {scorer: own for scorer, own in adapter.scorers(files).items() if (own != UNSCORED).any()}
        labelled = np.stack(list(votes.values())) if len(votes) >= LEAST_SCORERS else stages[None]
        scored = np.flatnonzero((labelled != UNSCORED).any(axis=0))
        if not scored.size or not (stages != UNSCORED).any():
            refused[row.name] = f"{files.labels}: no epoch is scored"
            continue
        first, stop = int(scored[0]), int(scored[-1]) + 1
        nights[row.name] = TruthNight(
            recording=row.name,
            subject=row.subject,
            stages=stages,
            first=first,
            stop=stop,
            votes={s: own[first:stop] for s, own in votes.items()} if len(votes) >= LEAST_SCORERS else {},
        )
    if not nights:
        raise UserError(f"{name}: none of its recordings has labels to judge against (`tusp datasets audit {name}`)")
    notes = [f"{len(refused)} of its recordings were refused and are not judged"] if refused else []
    return Truth(corpus=name, kind="corpus", simulated=corpus.simulated, nights=nights, refused=refused, notes=notes)


def truth_apart(store: Store, corpus: str, path: Path, *, simulated: bool) -> Truth:
    """Labels that lie apart from any corpus.

    Args:
        store: tells whether a corpus of that name is registered, whether it is simulated and who its people are.
        corpus: name of the corpus that the labels are of.
        path: folder or JSON file.
        simulated: the nights are simulated ones.

    Raises:
        UserError: the path holds no labels, the name is none, or the registered corpus is of the other kind.
        DataError: labels cannot be read or do not fit together.
    """
    if _NAME.fullmatch(corpus) is None:
        raise UserError(f"{corpus!r} is not a name for a corpus; use small letters, digits, '.', '_' and '-'")
    registered = next((row for row in list_corpora(store) if row.name == corpus), None)
    if registered is not None:
        check_kind(corpus, registered.simulated, simulated)
        simulated = registered.simulated
    subjects = {row.name: row.subject for row in recordings(store, corpus)} if registered else {}
    with disk_errors_named("labels", path):
        lists = _scorer_lists(path)
        if lists is None:
            nights, notes = _single(read_submission(path), subjects)
            kind = "hypnograms"
        else:
            nights, notes = _several(path, lists, subjects)
            kind = "scorers"
    if not registered:
        notes.append(
            f"no corpus {corpus!r} is registered: the nights count as {'simulated' if simulated else 'real'} ones, and"
            " people are told from the recordings' names"
        )
    return Truth(corpus=corpus, kind=kind, simulated=simulated, nights=nights, notes=notes)


def check_kind(corpus: str, registered_simulated: bool, simulated: bool) -> None:
    """Refuse ``--simulated`` for a corpus that is registered as real.

    Raises:
        UserError: the two differ.
    """
    if simulated and not registered_simulated:
        raise UserError(f"corpus {corpus!r} is registered as real; simulated and real nights never share a board")


def subject_of(recording: str) -> str:
    """Whose recording it is, by the names of Sleep-EDF and SHHS; elsewhere every recording is of its own person."""
    match = _SLEEP_EDF_PERSON.fullmatch(recording) or _SHHS_PERSON.fullmatch(recording)
    return match[1].upper() if match else recording


def _scorer_lists(path: Path) -> dict[str, dict[str, Stages]] | None:
    """Lists by scorer and recording, or None where there are no several scorers.

    Raises:
        DataError: a list cannot be read.
    """
    if path.is_dir():
        folders = [below for below in sorted(path.iterdir()) if below.is_dir() and _SCORER_FOLDER.fullmatch(below.name)]
        if not folders:
            return None
        lists = {folder.name.casefold(): _whole(folder) for folder in folders}
    elif path.suffix.casefold() == ".json" and path.is_file():
        content = _json_object(path)
        if content is None or not all(isinstance(value, dict) for value in content.values()):
            return None
        lists = {
            str(scorer): {
                str(name): codes_of(codes, where=f"{path}: {scorer}: {name}") for name, codes in value.items()
            }
            for scorer, value in sorted(content.items())
        }
    else:
        return None
    for scorer in lists:
        _checked(scorer)
    if len(lists) < LEAST_SCORERS:
        raise DataError(f"{path}: only {next(iter(lists))} has lists; a consensus needs at least {LEAST_SCORERS}")
    return lists


def _json_object(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file when it is an object, None when it is a list.

    Raises:
        DataError: it is not JSON.
    """
    with path.open("rb") as stream:
        beginning = stream.read(200).lstrip()
    return None if beginning[:1] == b"[" else dict(nested_codes(path))


def _whole(folder: Path) -> dict[str, Stages]:
    """Every list of a scorer; one that cannot be read is no reason to go on without it."""
    submitted = read_submission(folder)
    if submitted.refused:
        raise DataError(next(iter(submitted.refused.values())))
    return {name: given.stages for name, given in submitted.hypnograms.items()}


def _single(submitted: Submitted, subjects: Mapping[str, str]) -> tuple[dict[str, TruthNight], list[str]]:
    if submitted.refused:
        raise DataError(next(iter(submitted.refused.values())))
    nights = {}
    for name, given in submitted.hypnograms.items():
        scored = np.flatnonzero(given.stages != UNSCORED)
        if not scored.size:
            raise DataError(f"{name}: its truth has no scored epoch")
        nights[name] = TruthNight(
            recording=_checked(name),
            subject=subjects.get(name) or subject_of(name),
            stages=given.stages,
            first=int(scored[0]),
            stop=int(scored[-1]) + 1,
        )
    return nights, []


def _several(
    path: Path, lists: Mapping[str, Mapping[str, Stages]], subjects: Mapping[str, str]
) -> tuple[dict[str, TruthNight], list[str]]:
    nights: dict[str, TruthNight] = {}
    notes: list[str] = []
    for name in sorted({name for own in lists.values() for name in own}):
        of_night = {scorer: own[name] for scorer, own in lists.items() if name in own}
        missing = sorted(lists.keys() - of_night.keys())
        if missing:
            notes.append(f"{name}: no list of {', '.join(missing)}")
        if len(of_night) < LEAST_SCORERS:
            raise DataError(f"{path}: {name}: only {next(iter(of_night))} has a list; a consensus needs two scorers")
        longest = max(map(len, of_night.values()))
        aligned = align(
            of_night, signal_epochs=longest, trim=TRIMS.get(name.casefold(), (0, None)), path=Path(f"{path}: {name}")
        )
        notes += [f"{name}: {problem}" for problem in aligned.problems]
        votes = {scorer: own[aligned.first : aligned.stop] for scorer, own in aligned.votes.items()}
        table = np.stack(list(votes.values()))
        stages = np.full(longest, UNSCORED, dtype=np.int8)
        stages[aligned.first : aligned.stop] = consensus(table, ranking(table)[:BEST])
        if not (stages != UNSCORED).any():
            raise DataError(f"{path}: {name}: its scorers agree on no scored epoch")
        nights[name] = TruthNight(
            recording=_checked(name),
            subject=subjects.get(name) or subject_of(name),
            stages=stages,
            first=aligned.first,
            stop=aligned.stop,
            votes=votes,
        )
    return nights, notes


def _checked(name: str) -> str:
    if not name or len(name) > LONGEST_RECORDING_NAME or not name.isprintable():
        raise DataError(
            f"{name[:40]!r} is no name for a recording or a scorer (up to {LONGEST_RECORDING_NAME} printable letters)"
        )
    return name


def placed(night: TruthNight, given: Given) -> Stages:
    """A hypnogram over the labelled span of its recording, -1 where it says nothing.

    It has to be as long as the span or as the recording's whole grid. One that states times from the recording's start
    may also end anywhere from the last labelled epoch on, and where it begins later, its first epochs are not covered.

    Raises:
        DataError: it has another length; both are named.
    """
    n, grid, span = len(given.stages), len(night.stages), night.stop - night.first
    scored = np.flatnonzero(night.stages != UNSCORED)
    inner = (int(scored[0]), int(scored[-1]) + 1)
    stages = np.full(grid, UNSCORED, dtype=np.int8)
    said = given.stages
    if given.timed and n > grid and (said[grid:] == UNSCORED).all():
        said, n = said[:grid], grid  # the surplus says nothing
    if n == span:
        stages[night.first : night.stop] = said
    elif n == grid or (given.timed and night.stop <= n <= grid):
        stages[:n] = said
    elif n == inner[1] - inner[0]:
        stages[inner[0] : inner[1]] = said
    elif given.first_epoch is not None and given.first_epoch + n <= grid:
        stages[given.first_epoch : given.first_epoch + n] = said
    else:
        whole = f" and the whole recording {grid}" if grid != span else ""
        raise DataError(f"{night.recording}: {n} epochs, but the labelled span has {span}{whole}")
    return stages[night.first : night.stop]
