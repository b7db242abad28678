"""From the store: which cells a report is about, and the counts of each on every corpus it was judged on.

The same SQL runs on SQLite and PostgreSQL. Nothing is averaged here, and nothing that is missing disappears:
cells that are not done stay in the selection with their state and reason.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias

from tusp.dashboards.predictions import counts_from_predictions
from tusp.platform.errors import StoreError, UserError
from tusp.platform.scoring.rules import RULES, check_rule
from tusp.platform.store.packed import CountedCells, read_counted
from tusp.platform.store.queries import (
    BriefCell,
    SubmissionRecord,
    brief_cells,
    get_submission,
    list_submissions,
    planned_models,
)
from tusp.platform.store.session import Store
from tusp.platform.store.state_cells import cells_of_state
from tusp.platform.store.state_hash import ReportState

_NEVER: Final = datetime.min.replace(tzinfo=UTC)

Variant: TypeAlias = tuple[str, str]
"""An arm's name and the hash of its model, channels and recipe: two arms of one name but other settings never mix."""


@dataclass(frozen=True, kw_only=True, order=True)
class BoardKey:
    """What all rows of one leaderboard have in common. Simulated and real never share a board."""

    simulated: bool
    experiment: str
    trained_on: str
    judged_on: str
    protocol: str
    folds: int
    recipe: str
    split_hash: str


@lru_cache(1024)
def _board_key(
    simulated: bool,
    experiment: str,
    trained_on: str,
    judged_on: str,
    protocol: str,
    folds: int,
    recipe: str,
    split_hash: str,
) -> BoardKey:
    """Of tens of thousands of cells there are few boards."""
    return BoardKey(
        simulated=simulated,
        experiment=experiment,
        trained_on=trained_on,
        judged_on=judged_on,
        protocol=protocol,
        folds=folds,
        recipe=recipe,
        split_hash=split_hash,
    )


@dataclass(frozen=True, kw_only=True)
class ReportCell:
    """A cell as a report needs it."""

    summary: BriefCell
    judged_on: tuple[str, ...]

    @property
    def variant(self) -> Variant:
        """Which arm it is."""
        return self.summary.arm, self.summary.settings

    def key(self, corpus: str) -> BoardKey:
        """The board of this cell for one corpus it is judged on."""
        cell = self.summary
        return _board_key(
            cell.simulated,
            cell.experiment,
            cell.corpus,
            corpus,
            cell.protocol,
            cell.folds,
            cell.recipe,
            cell.split_hash,
        )

    def test_names_hash(self, corpus: str) -> str | None:
        """Hash of the recordings of one corpus that the plan says this cell judges; None where it names none."""
        part = self.summary.judged.get(corpus, {})
        return str(part["names"]) if part.get("tested") else None

    def test_share(self, corpus: str) -> float | None:
        """Recordings of one corpus tested over those trained on; None where the plan does not say, or it trains on
        none."""
        part = self.summary.judged.get(corpus, {})
        trained, tested = part.get("trained", 0), part.get("tested", 0)
        return tested / trained if trained and tested else None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What one report is about."""

    rule: str
    submissions: tuple[SubmissionRecord, ...]
    """Oldest first."""

    cells: tuple[ReportCell, ...]
    members: Mapping[str, frozenset[str]]
    """Submission id to the ids of its cells."""

    counts: CountedCells
    """Counts of every done cell on each corpus it was judged on."""

    models: Mapping[str, Mapping[str, Any]]
    """Model in the plan of each variant, by the hash of its settings."""

    superseded: int
    """Done cells left out because a later one did the same (only when everything is selected)."""


def select_results(
    store: Store,
    *,
    submission: str | None = None,
    everything: bool = False,
    rule: str = "trim30",
    corpus: str | None = None,
    outside: Collection[str] = (),
    home: Path | None = None,
    counted: bool = True,
    state: ReportState | None = None,
) -> Selection:
    """The cells and counts of the latest submission, of a named one, or of all of them.

    Args:
        store: the open store.
        submission: id (or its unique beginning) of a submission; None for the latest.
        everything: all submissions together; the latest of several cells that do the same counts.
        rule: scoring rule of the counts; one that the cells did not count is counted from kept predictions.
        corpus: only what is judged on this corpus.
        outside: corpora that entries are there for, which may be asked for although nothing was submitted on them.
        home: TUSP_HOME, where the kept predictions are.
        counted: read the counts too; else :func:`with_counts` does where they are needed.
        state: rows that were read of the store just now, for the same submissions.

    Raises:
        UserError: no such rule, submission or corpus, nothing was submitted yet, or a rule that was not counted
            without a home.
        DataError: a kept prediction is missing or was changed.
    """
    try:
        check_rule(rule)
    except ValueError as error:
        raise UserError(str(error)) from error
    if rule not in RULES and home is None:
        raise UserError(f"rule {rule} is counted from kept predictions, and no home says where they are")
    if submission is not None and everything:
        raise UserError("--submission and --all exclude each other: one submission, or all of them")
    if state is not None and not everything:
        submission = next(iter(state.submissions), None)  # the latest then, whatever was submitted since
    submissions = _submissions(store, submission, everything=everything, needed=not outside)
    if state is not None:
        submissions = [record for record in submissions if record.id in state.submissions]
    names = [record.id for record in submissions]
    asked, members = brief_cells(store, names) if state is None else cells_of_state(state, names)
    by_id = {cell.id: ReportCell(summary=cell, judged_on=tuple(cell.judged)) for cell in asked}
    known = sorted({name for cell in by_id.values() for name in cell.judged_on})
    if corpus is not None:
        if corpus not in known and corpus not in outside:
            named = sorted({*known, *outside})
            nearest = difflib.get_close_matches(corpus, named, n=1)
            others = ", ".join(named) or "none"
            hint = f"did you mean {nearest[0]}?" if nearest else f"judged are {others}"
            raise UserError(f"nothing in this report is judged on corpus {corpus!r}; {hint}")
        by_id = {key: replace(cell, judged_on=(corpus,)) for key, cell in by_id.items() if corpus in cell.judged_on}
    cells, superseded = _latest(by_id.values())
    done = [cell.summary.id for cell in cells if cell.summary.state == "done"]
    if not counted:
        counts: CountedCells = {}
    elif rule in RULES or home is None:
        with store.reading() as session:
            counts = read_counted(session, done, rule=rule, corpus=corpus)
    else:
        counts = counts_from_predictions(store, home, done, rule=rule, corpus=corpus)
    return Selection(
        rule=rule,
        submissions=tuple(submissions),
        cells=tuple(cells),
        members=members,
        counts=counts,
        models=_models(store, cells),
        superseded=superseded,
    )


def with_counts(store: Store, selection: Selection, boards: Iterable[BoardKey]) -> Selection:
    """A selection under one of ``RULES`` with the counts of some of its boards."""
    wanted = set(boards)
    counts: CountedCells = {}
    with store.reading() as session:
        for corpus in sorted({key.judged_on for key in wanted}):
            cells = [
                cell.summary.id
                for cell in selection.cells
                if corpus in cell.judged_on and cell.summary.state == "done" and cell.key(corpus) in wanted
            ]
            counts |= read_counted(session, cells, rule=selection.rule, corpus=corpus)
    return replace(selection, counts=counts)


def _models(store: Store, cells: Iterable[ReportCell]) -> dict[str, Mapping[str, Any]]:
    """The model of every variant, from the plan of one of its cells."""
    one_of = {cell.summary.settings: cell.summary.id for cell in cells}
    models = planned_models(store, list(one_of.values()))
    return {settings: {"family": "tinyustaging", **models[cell_id]} for settings, cell_id in one_of.items()}


def _submissions(store: Store, submission: str | None, *, everything: bool, needed: bool) -> list[SubmissionRecord]:
    if submission is not None:
        try:
            return [get_submission(store, submission)]
        except StoreError:
            known = [record.id for record in list_submissions(store)]
            if any(name.startswith(submission) for name in known):
                raise
        nearest = difflib.get_close_matches(submission, known, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]}?" if nearest else "`tusp status` lists them"
        raise UserError(f"no submission {submission!r}; {hint}")
    found = list_submissions(store, limit=None if everything else 1)
    if not found and needed:
        raise UserError("nothing was submitted yet; `tusp submit --ablation csja` makes the first results")
    return found[::-1]


def _latest(cells: Iterable[ReportCell]) -> tuple[list[ReportCell], int]:
    """One cell for each thing to do: a done one before one that is not, the latest of several."""

    def freshness(cell: ReportCell) -> tuple[bool, datetime, str]:
        summary = cell.summary
        return summary.state == "done", summary.done_at or _NEVER, summary.id

    best: dict[tuple[object, ...], ReportCell] = {}
    superseded = 0
    for cell in sorted(cells, key=freshness, reverse=True):
        keys = tuple(cell.key(corpus) for corpus in cell.judged_on)
        place = (*keys, cell.variant, cell.summary.fold, cell.summary.seed)
        if place in best:
            superseded += cell.summary.state == "done"
        else:
            best[place] = cell

    def place_in_report(cell: ReportCell) -> tuple[str, Variant, int, int]:
        return cell.summary.corpus, cell.variant, cell.summary.seed, cell.summary.fold

    return sorted(best.values(), key=place_in_report), superseded
