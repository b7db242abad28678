"""From a request to cells. A cell's id is the hash of its plan: what is trained and judged on what, and how.

Worker counts, addresses and paths are no part of a plan, and neither is the name of the ablation: a cell that two
ablations share is one cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tusp.datasets.prepared import PreparedRecording
from tusp.datasets.splits import Split, corpus_of, make_split
from tusp.jobs.recipes import TRAINING_VERSION, Recipe, full_arm, recipe_settings, with_changes
from tusp.models.ablations import Arm, arms_of
from tusp.models.families import model_settings
from tusp.platform.errors import UserError
from tusp.platform.identity import SCHEMA_VERSION, fingerprint
from tusp.platform.store.record import PlannedCell

WITHIN: Final = "within"
JOINT: Final = "joint"
TRANSFER: Final = "transfer"
EXPERIMENTS: Final = (WITHIN, JOINT, TRANSFER)
"""``within``: each corpus alone; ``joint``: one network on all corpora together, judged on each and on the held-out
ones; ``transfer``: each corpus alone, judged on its own test people and on all the others."""

HELD_OUT: Final = "hold-out"
"""Protocol of a corpus that a cell is only judged on."""

LONGEST_LABEL: Final = 200
"""Room for the names of the corpora trained on, in the store."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What one ``tusp submit`` asks for."""

    ablation: str
    recipe: Recipe
    protocol: str = "kfold"
    folds: int = 5
    seeds: Sequence[int] = (0,)
    split_seed: int = 0
    experiment: str = WITHIN
    hold_out: Sequence[str] | None = None
    """Corpora to judge on but never to train on; None for those that are published to be held out."""
    networks: Sequence[str] = ()
    """For the ablation ``networks``: the families to compare with; all there are when empty."""


@dataclass(frozen=True, kw_only=True)
class CorpusNights:
    """The prepared nights of one corpus."""

    name: str
    simulated: bool
    recordings: Sequence[PreparedRecording]
    hold_out: bool = False
    """Published to be judged on, never trained on."""

    @property
    def by_subject(self) -> dict[str, tuple[str, ...]]:
        """Recording names of every person."""
        people: dict[str, list[str]] = {}
        for recording in self.recordings:
            people.setdefault(recording.subject, []).append(recording.name)
        return {subject: tuple(sorted(names)) for subject, names in sorted(people.items())}


@dataclass(frozen=True, kw_only=True)
class CellTask:
    """A planned cell and where its prepared nights lie on this machine's disks."""

    cell: PlannedCell
    nights: Mapping[str, Mapping[str, Path]]
    """Folder of every prepared recording the cell needs, by corpus and recording."""

    @property
    def judged_on(self) -> list[str]:
        """Names of the corpora that the cell is judged on."""
        return [entry["name"] for entry in self.cell.plan["corpora"] if entry["test"]]

    @property
    def judged(self) -> set[tuple[str, str]]:
        """(corpus, recording) of every night the cell is judged on."""
        return {(entry["name"], name) for entry in self.cell.plan["corpora"] for name in entry["test"]}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All cells of a request, arms in the order of the ablation (the reference first)."""

    request: Request
    tasks: Sequence[CellTask]
    arms: Mapping[str, Mapping[str, Arm]]
    """Arms by corpus and name."""
    splits: Mapping[str, Split]
    simulated: bool


def input_channels(corpus: CorpusNights) -> tuple[str, ...]:
    """EEG and EOG where every night has an EOG channel, EEG alone where none has.

    Raises:
        UserError: some nights have an EOG channel and some have not.
    """
    without = [recording.name for recording in corpus.recordings if not recording.groups.get("EOG")]
    if not without:
        return ("EEG", "EOG")
    if len(without) == len(corpus.recordings):
        return ("EEG",)
    raise UserError(
        f"{corpus.name}: {len(without)} of {len(corpus.recordings)} nights have no EOG channel (first: {without[0]}); "
        "leave them out of the corpus, or describe it without EOG"
    )


def hold_out_hash(corpus: CorpusNights) -> str:
    """What stands in the place of a split's hash where all people of a corpus are judged and none is trained on."""
    people = {subject: list(names) for subject, names in corpus.by_subject.items()}
    return fingerprint({"corpus": corpus.name, "protocol": HELD_OUT, "recordings": people})


def _fingerprints(corpus: CorpusNights, names: Iterable[str]) -> dict[str, str]:
    recordings = {recording.name: recording for recording in corpus.recordings}
    return {name: recordings[name].fingerprint for name in names}


def _trained_entry(corpus: CorpusNights, split: Split, number: int) -> dict[str, Any]:
    """What a cell's plan says of a corpus that it trains on."""
    fold = split.folds[number]
    parts = (("train", fold.train), ("validation", fold.validation), ("test", fold.test))
    return {
        "name": corpus.name,
        "simulated": corpus.simulated,
        "protocol": split.protocol,
        "split": split.hash,
        "fold": number,
        "folds": len(split.folds),
        **{role: _fingerprints(corpus, split.recordings_of(people)) for role, people in parts},
    }


def _held_out_entry(corpus: CorpusNights) -> dict[str, Any]:
    """What a cell's plan says of a corpus that it is only judged on: everybody, in every fold."""
    return {
        "name": corpus.name,
        "simulated": corpus.simulated,
        "protocol": HELD_OUT,
        "split": hold_out_hash(corpus),
        "fold": 0,
        "folds": 1,
        "train": {},
        "validation": {},
        "test": _fingerprints(corpus, (recording.name for recording in corpus.recordings)),
    }


def _split_hash(entries: Sequence[Mapping[str, Any]]) -> str:
    """The split's hash; where several corpora have a part, the hash of theirs."""
    if len(entries) == 1:
        return str(entries[0]["split"])
    return fingerprint({entry["name"]: entry["split"] for entry in entries})


def _channels_of_all(corpora: Sequence[CorpusNights]) -> tuple[str, ...]:
    """The input channels that all these corpora have.

    Raises:
        UserError: they differ.
    """
    found = {corpus.name: input_channels(corpus) for corpus in corpora}
    if len(set(found.values())) > 1:
        without = ", ".join(name for name, channels in found.items() if len(channels) == 1)
        raise UserError(f"{without}: no EOG channel, which the other corpora have; one network cannot take both")
    return next(iter(found.values()))


def _cells(
    request: Request,
    trained: Sequence[CorpusNights],
    held_out: Sequence[CorpusNights],
    splits: Mapping[str, Split],
) -> tuple[list[CellTask], Mapping[str, Arm]]:
    """The cells that train on some corpora together and are judged on these and on others."""
    full = full_arm(request.recipe, channels=_channels_of_all([*trained, *held_out]))
    arms = arms_of(request.ablation, full, recipe_settings(request.recipe), networks=request.networks)
    recipes = {name: with_changes(request.recipe, arm.recipe) for name, arm in arms.items()}
    for name, arm in arms.items():
        _refuse_missing_channels(name, arm, [*trained, *held_out])
    label = _label(trained)
    folders = {corpus.name: {recording.name: recording.folder for recording in corpus.recordings} for corpus in trained}
    folders |= {
        corpus.name: {recording.name: recording.folder for recording in corpus.recordings} for corpus in held_out
    }
    others = [_held_out_entry(corpus) for corpus in held_out]
    tasks = []
    # Folds outermost: when a run is cut early, whole folds with all their arms are there to compare.
    for number in range(request.folds):
        entries = [*(_trained_entry(corpus, splits[corpus.name], number) for corpus in trained), *others]
        used = {
            entry["name"]: {
                name: folders[entry["name"]][name] for role in ("train", "validation", "test") for name in entry[role]
            }
            for entry in entries
        }
        split_hash = _split_hash(entries)
        for name, arm in arms.items():
            for seed in request.seeds:
                plan: dict[str, Any] = {
                    "schema": SCHEMA_VERSION,
                    "training": TRAINING_VERSION,
                    "experiment": request.experiment,
                    "corpora": entries,
                    "model": model_settings(arm.family, arm.settings),
                    "channels": list(arm.channels),
                    "recipe": recipe_settings(recipes[name]),
                    "seed": seed,
                }
                cell = PlannedCell(
                    id=fingerprint(plan),
                    plan=plan,
                    experiment=request.experiment,
                    corpus=label,
                    protocol=request.protocol,
                    arm=name,
                    fold=number,
                    folds=request.folds,
                    seed=seed,
                    recipe=request.recipe.name,
                    split_hash=split_hash,
                    simulated=entries[0]["simulated"],
                )
                tasks.append(CellTask(cell=cell, nights=used))
    return tasks, arms


def _refuse_missing_channels(name: str, arm: Arm, corpora: Sequence[CorpusNights]) -> None:
    """An arm takes channels that every night must have, or its cells would be judged on other nights than the rest.

    Raises:
        UserError: a night lacks one.
    """
    for corpus in corpora:
        for group in sorted(set(arm.channels)):
            needed = arm.channels.count(group)
            short = [night.name for night in corpus.recordings if len(night.groups.get(group, ())) < needed]
            if short:
                raise UserError(
                    f"arm {name} takes {needed} {group} channel{'s' if needed > 1 else ''}, which {len(short)} of"
                    f" {len(corpus.recordings)} nights of {corpus.name} do not have (first: {short[0]});"
                    " leave the corpus out of this ablation"
                )


def _label(corpora: Sequence[CorpusNights]) -> str:
    label = "+".join(corpus.name for corpus in corpora)
    if len(label) > LONGEST_LABEL:
        raise UserError(
            f"the names of {len(corpora)} corpora trained on together have {len(label)} letters, more than"
            f" {LONGEST_LABEL}; register them under shorter names (--name)"
        )
    return label


def _held_out(request: Request, corpora: Sequence[CorpusNights]) -> set[str]:
    """Names of the corpora that are only judged on.

    Raises:
        UserError: a corpus to hold out is not in the request, or the experiment holds none out.
    """
    if request.hold_out is None:
        return set() if request.experiment == WITHIN else {corpus.name for corpus in corpora if corpus.hold_out}
    if request.experiment == WITHIN:
        raise UserError("--hold-out: experiment within trains and judges each corpus alone; use joint or transfer")
    names = [corpus.name for corpus in corpora]
    for name in request.hold_out:
        if name not in names:
            raise UserError(f"--hold-out {name}: not among the corpora of this request ({', '.join(names)})")
    return set(request.hold_out)


def _groups(
    request: Request, corpora: Sequence[CorpusNights]
) -> list[tuple[Sequence[CorpusNights], Sequence[CorpusNights]]]:
    """Pairs of corpora trained on together and corpora judged on besides.

    Raises:
        UserError: the experiment is unknown or has nothing to train on or to compare.
    """
    if request.experiment not in EXPERIMENTS:
        raise UserError(f"--experiment {request.experiment}: must be one of {', '.join(EXPERIMENTS)}")
    away = _held_out(request, corpora)
    if request.experiment == WITHIN:
        return [((corpus,), ()) for corpus in corpora]
    # By name, so that the order of a command changes no cell.
    corpora = sorted(corpora, key=lambda corpus: corpus.name)
    trained = [corpus for corpus in corpora if corpus.name not in away]
    held_out = [corpus for corpus in corpora if corpus.name in away]
    if not trained:
        raise UserError(
            f"--experiment {request.experiment}: all corpora ({', '.join(sorted(away))}) are held out, so there is"
            " nothing to train on; name another with --corpus"
        )
    if len(corpora) < 2:
        raise UserError(f"--experiment {request.experiment}: needs at least two corpora; --corpus names them")
    if request.experiment == JOINT:
        return [(trained, held_out)]
    return [((one,), [other for other in corpora if other is not one]) for one in trained]


def _refuse_same_people(request: Request, corpora: Sequence[CorpusNights]) -> None:
    """A corpus and its own subset must not meet in one network: whoever trains it would be judged by it."""
    if request.experiment == WITHIN:
        return
    by_corpus: dict[str, list[str]] = {}
    for corpus in corpora:
        by_corpus.setdefault(corpus_of(corpus.name), []).append(corpus.name)
    for names in by_corpus.values():
        if len(names) > 1:
            raise UserError(f"{' and '.join(names)} share people, who would train and be judged; name one of them")


def make_plan(request: Request, corpora: Sequence[CorpusNights]) -> Plan:
    """All cells of a request.

    Raises:
        UserError: simulated and real corpora in one request, an unknown ablation or experiment, a split that cannot be
            made, or nothing to train on.
    """
    if len({corpus.simulated for corpus in corpora}) > 1:
        simulated = ", ".join(corpus.name for corpus in corpora if corpus.simulated)
        raise UserError(f"simulated ({simulated}) and real corpora never meet in one submission; submit them apart")
    if not request.seeds or len(set(request.seeds)) != len(request.seeds):
        raise UserError(f"seeds {list(request.seeds)}: give at least one, each once")
    _refuse_same_people(request, corpora)
    groups = _groups(request, corpora)
    splits = {
        corpus.name: make_split(
            corpus.name, corpus.by_subject, protocol=request.protocol, folds=request.folds, seed=request.split_seed
        )
        for trained, _ in groups
        for corpus in trained
    }
    tasks: list[CellTask] = []
    arms: dict[str, Mapping[str, Arm]] = {}
    for trained, held_out in groups:
        more, arms[_label(trained)] = _cells(request, trained, held_out, splits)
        tasks += more
    return Plan(request=request, tasks=tasks, arms=arms, splits=splits, simulated=any(c.simulated for c in corpora))
