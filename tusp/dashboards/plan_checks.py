"""Does a cell's plan hold: who trains and who is tested, the split it names, nights that are there twice, and what is
simulated. Everything is derived again from the registered corpora and the prepared nights."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import select

from tusp.datasets.corpus_notes import stored_nights
from tusp.datasets.duplicates import Others, same_nights
from tusp.datasets.prepared import (
    META,
    STORE_VERSION,
    PreparedRecording,
    open_prepared,
    prepared_folder,
    verify_prepared,
)
from tusp.datasets.splits import PARTS, Split, corpus_of, make_split
from tusp.platform.errors import DataError, UserError
from tusp.platform.identity import fingerprint
from tusp.platform.stages import N_STAGES
from tusp.platform.store.models import Corpus, Recording
from tusp.platform.store.queries import CellSummary
from tusp.platform.store.session import Store

HELD_OUT: Final = "hold-out"
"""Protocol of a corpus that a cell is only judged on."""

SAME_PERSON: Final = "its person is that of"
"""How :mod:`tusp.datasets.duplicates` says that two corpora have a person in common."""

MOST_NAMED: Final = 5

Key = tuple[str, str]
"""Corpus (or subset) of a plan, and recording."""


@dataclass(kw_only=True)
class Nights:
    """What is known of the nights that plans name; every corpus and every prepared night is looked at once."""

    store: Store
    prepared_root: Path
    deep: bool
    """Hash the prepared signals too."""
    problems: list[str] = field(default_factory=list)
    """Prepared nights that do not hold."""
    missing: set[str] = field(default_factory=set)
    """Prepared nights that are not there any more, or in a layout that this program does not read any more."""
    opened: int = 0
    _simulated: dict[str, bool | None] = field(default_factory=dict)
    _subjects: dict[str, dict[str, str]] = field(default_factory=dict)
    _prepared: dict[tuple[str, str], PreparedRecording | None] = field(default_factory=dict)
    _stages: dict[str, npt.NDArray[np.int8] | None] = field(default_factory=dict)
    _same: dict[tuple[str, ...], dict[Key, Others]] = field(default_factory=dict)

    def _register(self, corpus: str) -> None:
        if corpus not in self._simulated:
            with self.store.reading() as session:
                self._simulated[corpus] = session.scalar(select(Corpus.simulated).where(Corpus.name == corpus))
                rows = session.execute(select(Recording.name, Recording.subject).where(Recording.corpus_name == corpus))
                self._subjects[corpus] = {row.name: row.subject for row in rows}

    def registered_as_simulated(self, label: str) -> bool | None:
        """Whether the corpus of a label is simulated; None where it is not registered."""
        corpus = corpus_of(label)
        self._register(corpus)
        return self._simulated[corpus]

    def prepared(self, label: str, recording: str, digest: str) -> PreparedRecording | None:
        """A prepared night, checked when first asked for; None where it is gone or does not hold."""
        key = (label, digest)
        if key not in self._prepared:
            self._prepared[key] = self._open(label, recording, digest)
        return self._prepared[key]

    def _open(self, label: str, recording: str, digest: str) -> PreparedRecording | None:
        folder = prepared_folder(self.prepared_root / corpus_of(label), digest)
        if not folder.exists() or _older_layout(folder):
            self.missing.add(f"{label}/{recording}")
            return None
        try:
            found = open_prepared(folder)
            if self.deep:
                verify_prepared(found)
        except DataError as error:
            self.problems.append(f"prepared {label}/{recording}: {error}")
            return None
        self.opened += 1
        if found.fingerprint != digest or found.name != recording:
            self.problems.append(
                f"prepared {label}/{recording}: {folder} holds {found.corpus}/{found.name} {found.fingerprint[:12]}"
            )
            return None
        return found

    def stages(self, label: str, recording: str, digest: str) -> npt.NDArray[np.int8] | None:
        """Stages of a prepared night [n_epochs]; None where it is gone or does not hold."""
        key = f"{label}/{digest}"
        if key not in self._stages:
            night = self.prepared(label, recording, digest)
            self._stages[key] = None if night is None else night.stages()
        return self._stages[key]

    def subject(self, label: str, recording: str, digest: str) -> str | None:
        """Whose night it is: as registered, else as prepared; None where neither is there."""
        corpus = corpus_of(label)
        self._register(corpus)
        known = self._subjects[corpus].get(recording)
        if known is not None:
            return known
        night = self.prepared(label, recording, digest)
        return None if night is None else night.subject

    def same(self, labels: Iterable[str]) -> dict[Key, Others]:
        """Nights of these corpora that are there more than once, by registered corpus and recording."""
        names = tuple(sorted({corpus_of(label) for label in labels}))
        if names not in self._same:
            with self.store.reading() as session:
                self._same[names] = same_nights(stored_nights(session, names))
        return self._same[names]


def _older_layout(folder: Path) -> bool:
    """Whether an older tusp prepared this night; what is damaged is left to :func:`open_prepared`."""
    try:
        version = json.loads((folder / META).read_text(encoding="utf-8"))["store_version"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return isinstance(version, int) and version < STORE_VERSION


def check_columns(cell: CellSummary) -> list[str]:
    """The columns of a cell's row against its plan, of which its id is the hash."""
    plan, entries = cell.plan, cell.plan["corpora"]
    trained = [entry for entry in entries if entry["train"]]
    planned = {
        "experiment": plan["experiment"],
        "corpus": "+".join(entry["name"] for entry in trained),
        "fold": trained[0]["fold"] if trained else None,
        "folds": trained[0]["folds"] if trained else None,
        "protocol": trained[0]["protocol"] if trained else None,
        "seed": plan["seed"],
        "recipe": plan["recipe"]["name"],
        "split_hash": entries[0]["split"]
        if len(entries) == 1
        else fingerprint({entry["name"]: entry["split"] for entry in entries}),
    }
    return [
        f"its {name} is {getattr(cell, name)} in the store, but {value} in its plan"
        for name, value in planned.items()
        if getattr(cell, name) != value
    ]


def check_simulated(cell: CellSummary, nights: Nights, *, submissions: Mapping[str, bool]) -> list[str]:
    """One line when what is said of a cell's nights is not the same everywhere.

    Args:
        submissions: those that the cell belongs to, and whether their nights are simulated.
    """
    said = {"the cell": cell.simulated}
    said |= {f"submission {name}": simulated for name, simulated in submissions.items()}
    for entry in cell.plan["corpora"]:
        said[f"the plan of {entry['name']}"] = entry["simulated"]
        registered = nights.registered_as_simulated(entry["name"])
        if registered is not None:
            said[f"corpus {corpus_of(entry['name'])}"] = registered
    by_flag = {flag: [name for name, value in said.items() if value is flag] for flag in (True, False)}
    if by_flag[True] and by_flag[False]:
        return [f"its nights are simulated says {', '.join(by_flag[True])}; real says {', '.join(by_flag[False])}"]
    return []


def check_entry(entry: Mapping[str, Any], nights: Nights, *, split_seeds: Sequence[int]) -> list[str]:
    """Who trains, validates and tests on one corpus of a plan: nobody twice, and as the split says that is named.

    Args:
        entry: what the plan says of the corpus.
        split_seeds: seeds that the submissions of the cell drew their splits with.
    """
    label = entry["name"]
    where: dict[str, dict[str, list[str]]] = {}
    unknown = []
    for part in PARTS:
        for recording, digest in entry[part].items():
            subject = nights.subject(label, recording, digest)
            if subject is None:
                unknown.append(recording)
            else:
                where.setdefault(subject, {}).setdefault(part, []).append(recording)
    leaks = [
        f"person {subject} of {label} leaks: is in "
        + " and in ".join(f"{part} ({_named(names)})" for part, names in parts.items())
        for subject, parts in sorted(where.items())
        if len(parts) > 1
    ]
    if leaks:
        return leaks
    if unknown:
        return [
            f"nobody knows any more whose nights {_named(unknown)} of {label} are: neither registered nor prepared, "
            "so the split cannot be made again"
        ]
    people = {subject: sorted(name for names in parts.values() for name in names) for subject, parts in where.items()}
    if entry["protocol"] == HELD_OUT:
        again = fingerprint({"corpus": label, "protocol": HELD_OUT, "recordings": people})
        return [] if again == entry["split"] else [_other_split(entry, again)]
    return _check_split(entry, people, split_seeds)


def _check_split(entry: Mapping[str, Any], people: Mapping[str, Sequence[str]], seeds: Sequence[int]) -> list[str]:
    split: Split | None = None
    for seed in seeds:
        try:
            split = make_split(entry["name"], people, protocol=entry["protocol"], folds=entry["folds"], seed=seed)
        except UserError as error:
            return [f"the split of {entry['name']} cannot be made again: {error}"]
        if split.hash == entry["split"]:
            break
    assert split is not None
    if split.hash != entry["split"]:
        return [_other_split(entry, split.hash)]
    fold = split.folds[entry["fold"]]
    wrong = [part for part in PARTS if set(entry[part]) != set(split.recordings_of(getattr(fold, part)))]
    if wrong:
        return [f"fold {entry['fold']} of {entry['name']} is divided otherwise than its split says: {', '.join(wrong)}"]
    return []


def _other_split(entry: Mapping[str, Any], again: str) -> str:
    return (
        f"the split of {entry['name']} made again ({entry['protocol']}, {entry['folds']} folds) has hash {again[:12]}, "
        f"the plan names {entry['split'][:12]}"
    )


def check_duplicates(entries: Sequence[Mapping[str, Any]], nights: Nights) -> list[str]:
    """Nights (or people of two corpora) of a plan that are there twice, one of them tested: a line for each pair."""
    parts = {
        (corpus_of(entry["name"]), recording): (part, f"{entry['name']}/{recording}")
        for entry in entries
        for part in PARTS
        for recording in entry[part]
    }
    same = nights.same(entry["name"] for entry in entries)
    lines = []
    for key, (part, name) in sorted(parts.items()):
        for other, how in sorted(same.get(key, {}).items()):
            if other in parts and key < other and "test" in (part, parts[other][0]):
                kind = next(iter(how))
                what = "of one person" if kind == SAME_PERSON else "one night under two names"
                lines.append(
                    f"{name} and {parts[other][1]} are {what} ({kind} the other), "
                    "and one is tested where the other is used"
                )
    return lines


def check_training_stages(cell: CellSummary, nights: Nights) -> list[str]:
    """The stages a cell says it was trained on (the baseline rests on them) against the prepared training nights."""
    said = (cell.result or {}).get("train_stage_counts")
    if said is None:
        return []
    total = np.zeros(N_STAGES, np.int64)
    for entry in cell.plan["corpora"]:
        for recording, digest in entry["train"].items():
            stages = nights.stages(entry["name"], recording, digest)
            if stages is None:
                return []
            total += np.bincount(stages[stages >= 0], minlength=N_STAGES)[:N_STAGES]
    if total.tolist() != list(said):
        return [
            f"it says it was trained on {list(said)} epochs of W, N1, N2, N3, REM; its training nights hold "
            f"{total.tolist()}"
        ]
    return []


def _named(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(sorted(names)[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
