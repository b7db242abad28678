"""Imported submissions and human scorers beside the arms of a board: what they are called there, and who is ranked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tusp.dashboards.entries import (
    COUNTED,
    HUMAN,
    HUMAN_MEAN,
    IMPORTED,
    EntryRow,
    HumanCeiling,
    entry_rows,
    human_ceiling,
)
from tusp.dashboards.judged import Judged
from tusp.dashboards.rows import Row, entry_row
from tusp.platform.scoring.rules import LIGHTS, RULES
from tusp.platform.store.entries import list_entries
from tusp.platform.store.packed import Counted
from tusp.platform.store.session import Store

AGAINST_OTHERS = "each scorer is judged against the consensus of the other scorers"


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What the ranked rows of a board were judged on, under the board's rule."""

    stages: Mapping[str, tuple[int, ...]]
    """Recording to its epochs of each true stage; recordings without an epoch are left out."""
    people: Mapping[str, str]
    """Recording to its person."""

    @property
    def epochs(self) -> dict[str, int]:
        """Recording to its scored epochs."""
        return {recording: sum(stages) for recording, stages in self.stages.items()}


@dataclass(frozen=True, kw_only=True)
class Guests:
    """Rows that no cell of the board made."""

    rows: tuple[Row, ...] = ()
    """Imported by pooled macro-F1, then the mean human and the scorers."""
    judged: Mapping[str, Judged]
    """Counts of those that are ranked, by their name on the board."""
    ceiling: HumanCeiling | None = None
    notes: tuple[str, ...] = ()


def truth_of(counted: Iterable[Counted]) -> Truth:
    """What arms were judged on: their counts, which all have the same truth; recordings without an epoch are left
    out."""
    stages: dict[str, tuple[int, ...]] = {}
    people: dict[str, str] = {}
    seen = set()
    for item in counted:
        nights = item.nights
        if nights in seen:
            continue
        seen.add(nights)
        epochs = item.counts.sum(2).tolist()
        for name, subject, row in zip(nights.recordings, nights.subjects, epochs, strict=True):
            if any(row):
                stages[name], people[name] = tuple(row), subject
    return Truth(stages=stages, people=people)


def guests(
    store: Store,
    *,
    corpus: str,
    simulated: bool,
    rule: str,
    truth: Truth | None,
    taken: Collection[str],
    resamples: int,
    seed: int,
    home: Path | None = None,
) -> Guests:
    """Entries of a corpus as rows of one board.

    An imported submission is ranked when it covers every epoch of the recordings that the arms were judged on, and its
    truth has the same stages there. Human scorers never are: each has a truth of its own.

    Args:
        store: the open store.
        corpus: corpus judged on.
        simulated: kind of nights.
        rule: scoring rule; other rules than ``RULES`` are counted from the kept hypnograms, ``lights`` not at all.
        truth: what the arms were judged on; None on a board without arms, where the imported entries of the truth that
            most of them share are ranked among each other.
        taken: names of other rows; an entry of such a name is told apart by its kind.
        resamples: of the bootstrap over people.
        seed: of the bootstrap.
        home: TUSP_HOME, where the hypnograms are kept.

    Raises:
        DataError: kept hypnograms that are needed are gone or were changed.
    """
    if not can_be_counted(rule, home):
        there = any(entry.simulated == simulated for entry in list_entries(store, corpus=corpus))
        return Guests(judged={}, notes=(COUNTED,) if there else ())
    entries = entry_rows(
        store,
        corpus=corpus,
        simulated=simulated,
        rule=rule,
        resamples=resamples,
        seed=seed,
        recordings=truth.epochs if truth else None,
        home=home,
    )
    if truth is None:
        truth = _most_shared(entries)
    rows, judged, names = [], {}, set(taken)
    for entry in entries:
        name = entry.name if entry.name not in names else f"{entry.name} ({entry.kind})"
        names.add(name)
        reason = why_unranked(entry, truth)
        rows.append(entry_row(entry, name=name, unranked=reason))
        if reason is None:
            judged[name] = entry.judged
    return Guests(rows=tuple(rows), judged=judged, ceiling=human_ceiling(entries, rule=rule))


def can_be_counted(rule: str, home: Path | None) -> bool:
    """Whether imported submissions and human scorers have counts under a rule, or can be counted from what is kept."""
    return rule in RULES or (rule != LIGHTS and home is not None)


def why_unranked(entry: EntryRow, truth: Truth | None) -> str | None:
    """Why an entry cannot be ranked among rows that were judged on ``truth``; None when it can."""
    if entry.kind in {HUMAN, HUMAN_MEAN}:
        return AGAINST_OTHERS
    if not entry.complete:
        return entry.coverage
    if truth is None or not truth.stages:
        return "nothing else was judged yet"
    here = _entry_truth(entry)
    missing, more = truth.stages.keys() - here.stages.keys(), here.stages.keys() - truth.stages.keys()
    if missing or more:
        parts = [f"lacks {_named(missing)}" if missing else "", f"has {_named(more)} besides" if more else ""]
        return f"judged on other recordings: {' and '.join(part for part in parts if part)}"
    differing = {name for name, stages in truth.stages.items() if here.stages[name] != stages}
    if differing:
        return f"judged on another truth in {_named(differing)}"
    renamed = {name for name, person in truth.people.items() if here.people[name] != person}
    return f"knows {_named(renamed)} as nights of other people" if renamed else None


def _named(recordings: Collection[str]) -> str:
    first = sorted(recordings)[0]
    return first if len(recordings) == 1 else f"{len(recordings)} recordings (first: {first})"


def _entry_truth(entry: EntryRow) -> Truth:
    judged = entry.judged
    stages = judged.by_recording.sum(-1).max(0).tolist()
    return Truth(
        stages={name: tuple(row) for name, row in zip(judged.recordings, stages, strict=True)},
        people=dict(zip(judged.recordings, judged.subjects, strict=True)),
    )


def _most_shared(entries: Collection[EntryRow]) -> Truth | None:
    """The truth of most complete imported entries, of the newest where several have as many."""
    imported = [entry for entry in entries if entry.kind == IMPORTED and entry.complete]
    if not imported:
        return None
    hashes = [entry.truth_hash for entry in imported]
    return _entry_truth(max(imported, key=lambda entry: (hashes.count(entry.truth_hash), entry.created_at)))
