"""From the store to frames: which cells a report is about, and one row of counts per cell and recording.

The same SQL runs on SQLite and PostgreSQL. Nothing is averaged here, and nothing that is missing disappears:
cells that are not done stay in the selection with their state and reason.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from sqlalchemy import select

from tusp.dashboards.predictions import counts_from_predictions
from tusp.platform.errors import UserError
from tusp.platform.identity import fingerprint
from tusp.platform.scoring.counts import Counts
from tusp.platform.scoring.rules import RULES, check_rule
from tusp.platform.stages import N_STAGES
from tusp.platform.store.models import COUNT_COLUMNS, Cell, Count, SubmissionCell
from tusp.platform.store.queries import (
    CellSummary,
    SubmissionRecord,
    get_submission,
    list_submissions,
    submission_cells,
)
from tusp.platform.store.session import Store

VOTE = "vote"
"""Channel choice that reports are about: probabilities summed over all channel pairs."""

Variant: TypeAlias = tuple[str, str]
"""An arm's name and the hash of its model and recipe: two arms of one name but other settings never mix."""


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


@dataclass(frozen=True, kw_only=True)
class ReportCell:
    """A cell as a report needs it."""

    summary: CellSummary
    variant: Variant
    judged_on: tuple[str, ...]

    def key(self, corpus: str) -> BoardKey:
        """The board of this cell for one corpus it is judged on."""
        cell = self.summary
        return BoardKey(
            simulated=cell.simulated,
            experiment=cell.experiment,
            trained_on=cell.corpus,
            judged_on=corpus,
            protocol=cell.protocol,
            folds=cell.folds,
            recipe=cell.recipe,
            split_hash=cell.split_hash,
        )

    def test_recordings(self, corpus: str) -> set[str]:
        """Recordings of one corpus that the plan says this cell judges; empty where the plan does not say."""
        return set(_planned_part(self.summary.plan, corpus).get("test", {}))

    def test_share(self, corpus: str) -> float | None:
        """Recordings of one corpus tested over those trained on; None where the plan does not say, or it trains on
        none."""
        part = _planned_part(self.summary.plan, corpus)
        trained, tested = len(part.get("train", ())), len(part.get("test", ()))
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

    counts: pd.DataFrame
    """One row per done cell and recording: ``cell, corpus, recording, subject`` and the 25 count columns."""

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
    submissions = _submissions(store, submission, everything=everything, needed=not outside)
    by_id: dict[str, ReportCell] = {}
    members: dict[str, frozenset[str]] = {}
    for record in submissions:
        asked = submission_cells(store, record.id)
        members[record.id] = frozenset(cell.id for cell in asked)
        by_id.update({cell.id: _report_cell(cell) for cell in asked})
    known = sorted({name for cell in by_id.values() for name in cell.judged_on})
    if corpus is not None:
        if corpus not in known and corpus not in outside:
            named = sorted({*known, *outside})
            nearest = difflib.get_close_matches(corpus, named, n=1)
            others = ", ".join(named) or "none"
            hint = f"did you mean {nearest[0]}?" if nearest else f"judged are {others}"
            raise UserError(f"nothing in this report is judged on corpus {corpus!r}; {hint}")
        by_id = {
            key: ReportCell(summary=cell.summary, variant=cell.variant, judged_on=(corpus,))
            for key, cell in by_id.items()
            if corpus in cell.judged_on
        }
    cells, superseded = _latest(by_id.values())
    if rule in RULES or home is None:
        counts = _count_frame(store, submissions, cells, rule=rule, corpus=corpus)
    else:
        done = [cell.summary.id for cell in cells if cell.summary.state == "done"]
        counts = in_order(counts_from_predictions(store, home, done, rule=rule, corpus=corpus))
    return Selection(
        rule=rule,
        submissions=tuple(submissions),
        cells=tuple(cells),
        members=members,
        counts=counts,
        superseded=superseded,
    )


def matrices(frame: pd.DataFrame) -> Counts:
    """The counts of a frame as int64 [rows, 5, 5]."""
    return frame[list(COUNT_COLUMNS)].to_numpy(dtype=np.int64).reshape(-1, N_STAGES, N_STAGES)


def in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """By corpus, person, recording and cell: the database's own order differs between engines; figures and resamples
    must not."""
    return frame.sort_values(["corpus", "subject", "recording", "cell"], kind="stable").reset_index(drop=True)


def _submissions(store: Store, submission: str | None, *, everything: bool, needed: bool) -> list[SubmissionRecord]:
    if submission is not None:
        known = [record.id for record in list_submissions(store)]
        if not any(name.startswith(submission) for name in known):
            nearest = difflib.get_close_matches(submission, known, n=1, cutoff=0.5)
            hint = f"did you mean {nearest[0]}?" if nearest else "`tusp status` lists them"
            raise UserError(f"no submission {submission!r}; {hint}")
        return [get_submission(store, submission)]
    found = list_submissions(store, limit=None if everything else 1)
    if not found and needed:
        raise UserError("nothing was submitted yet; `tusp submit --ablation csja` makes the first results")
    return found[::-1]


def _report_cell(cell: CellSummary) -> ReportCell:
    settings = {"model": cell.plan.get("model", {}), "recipe": cell.plan.get("recipe", {})}
    parts: Sequence[Mapping[str, Any]] = cell.plan.get("corpora", ())
    tested = [str(part["name"]) for part in parts if part.get("test")]
    names = cell.plan.get("judged_on") or tested or cell.corpus.split("+")
    judged_on = [names] if isinstance(names, str) else names
    return ReportCell(
        summary=cell,
        variant=(cell.arm, fingerprint(settings)),
        judged_on=tuple(_corpus_name(name) for name in judged_on),
    )


def _corpus_name(item: Any) -> str:
    return str(item["name"]) if isinstance(item, Mapping) else str(item)


def _planned_part(plan: Mapping[str, Any], corpus: str) -> Mapping[str, Any]:
    parts: Sequence[Mapping[str, Any]] = plan.get("corpora", ())
    return next((part for part in parts if part.get("name") == corpus), {})


def _latest(cells: Iterable[ReportCell]) -> tuple[list[ReportCell], int]:
    """One cell for each thing to do: a done one before one that is not, the latest of several."""

    def freshness(cell: ReportCell) -> tuple[bool, str, str]:
        done_at = cell.summary.done_at
        return cell.summary.state == "done", done_at.isoformat() if done_at else "", cell.summary.id

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


def _count_frame(
    store: Store,
    submissions: Sequence[SubmissionRecord],
    cells: Sequence[ReportCell],
    *,
    rule: str,
    corpus: str | None,
) -> pd.DataFrame:
    names = ("cell", "corpus", "recording", "subject", *COUNT_COLUMNS)
    columns = (Count.cell_id, Count.corpus, Count.recording, Count.subject)
    wanted = (
        select(*columns, *(getattr(Count, column) for column in COUNT_COLUMNS))
        .join(Cell, Cell.id == Count.cell_id)
        .where(Count.rule == rule, Count.channels == VOTE, Cell.state == "done")
    )
    ids = [submission.id for submission in submissions]
    asked = select(SubmissionCell.cell_id).where(SubmissionCell.submission_id.in_(ids))
    wanted = wanted.where(Count.cell_id.in_(asked))
    if corpus is not None:
        wanted = wanted.where(Count.corpus == corpus)
    with store.reading() as session:
        rows = session.execute(wanted).all()
    frame = pd.DataFrame.from_records([tuple(row) for row in rows], columns=list(names))
    frame = frame[frame["cell"].isin([cell.summary.id for cell in cells])]
    return in_order(frame)
