"""Reading the store: plain frozen records for status, reports and the MLflow mirror."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter, itemgetter
from typing import Any, TypeVar

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tusp.platform.errors import StoreError
from tusp.platform.store.models import (
    BRIEF_COLUMNS,
    COUNT_COLUMNS,
    Artefact,
    Attempt,
    Base,
    Cell,
    Count,
    Curve,
    Submission,
    SubmissionCell,
)
from tusp.platform.store.packed import plan_columns
from tusp.platform.store.record import ArtefactRow, CountRow, CurveRow
from tusp.platform.store.session import Store

_BATCH = 500
_Record = TypeVar("_Record")


@dataclass(frozen=True, kw_only=True)
class SubmissionRecord:
    """One submission and how many of its cells are in which state."""

    id: str
    created_at: datetime
    finished_at: datetime | None
    state: str
    request: Mapping[str, Any]
    environment: Mapping[str, Any]
    simulated: bool
    refused: Sequence[Mapping[str, Any]]
    process: Mapping[str, Any]
    cells: Mapping[str, int]
    """Number of cells by state; states without cells are missing."""
    reused: int
    """How many of its cells were done before it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BriefCell:
    """A cell as status and reports need it: without its plan, which names every person."""

    id: str
    experiment: str
    corpus: str
    protocol: str
    arm: str
    fold: int
    folds: int
    seed: int
    recipe: str
    split_hash: str
    simulated: bool
    state: str
    error: str | None
    done_at: datetime | None
    result: Mapping[str, Any] | None
    settings: str
    """Hash of model, channels and recipe (:func:`tusp.platform.store.packed.settings_hash`)."""
    judged: Mapping[str, Mapping[str, Any]]
    """What it is judged on (:func:`tusp.platform.store.packed.judged_parts`)."""


@dataclass(frozen=True, kw_only=True)
class CellSummary:
    """A cell without its rows of counts, curves and artefacts."""

    id: str
    plan: Mapping[str, Any]
    experiment: str
    corpus: str
    protocol: str
    arm: str
    fold: int
    folds: int
    seed: int
    recipe: str
    split_hash: str
    simulated: bool
    state: str
    error: str | None
    holder: Mapping[str, Any] | None
    """Who runs it now: submission, host, pid, started."""
    heartbeat_at: datetime | None
    done_at: datetime | None
    result: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class AttemptRecord:
    """One try at a cell."""

    number: int
    submission: str
    state: str
    started_at: datetime
    finished_at: datetime | None
    error: str | None
    resumed_from_pass: int | None
    environment: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class CellRecord(CellSummary):
    """A cell with everything the store knows about it."""

    attempts: tuple[AttemptRecord, ...]
    counts: tuple[CountRow, ...]
    curve: tuple[CurveRow, ...]
    artefacts: tuple[ArtefactRow, ...]

    @property
    def done_attempt(self) -> AttemptRecord | None:
        """The attempt that made the cell done."""
        return next((attempt for attempt in reversed(self.attempts) if attempt.state == "done"), None)


def same_named(kind: type[_Record], row: Base, **others: Any) -> _Record:
    """A record of a row of the store: its fields from the columns of their names, but for those that are given."""
    names = [field.name for field in fields(kind) if field.name not in others]  # type: ignore[arg-type]
    return kind(**{name: getattr(row, name) for name in names}, **others)


def list_submissions(store: Store, *, limit: int | None = None) -> list[SubmissionRecord]:
    """Submissions, the newest first."""
    with store.reading() as session:
        newest = select(Submission).order_by(Submission.created_at.desc(), Submission.id.desc()).limit(limit)
        return _submission_records(session, session.scalars(newest).all())


def get_submission(store: Store, id_or_start: str) -> SubmissionRecord:
    """The submission with this id, or the only one whose id starts like this.

    Raises:
        StoreError: none does, or several do.
    """
    with store.reading() as session:
        exact = session.get(Submission, id_or_start)
        matching = select(Submission).where(Submission.id.startswith(id_or_start, autoescape=True)).limit(2)
        found = [exact] if exact is not None else list(session.scalars(matching))
        if not found:
            raise StoreError(f"there is no submission {id_or_start!r}; 'tusp status' lists them")
        if len(found) > 1:
            raise StoreError(f"several submissions start with {id_or_start!r}; give more of the id")
        return _submission_records(session, found)[0]


def submission_cells(store: Store, submission_id: str) -> list[CellSummary]:
    """Cells of a submission by corpus, arm, seed and fold."""
    with store.reading() as session:
        rows = session.scalars(
            select(Cell)
            .join(SubmissionCell, SubmissionCell.cell_id == Cell.id)
            .where(SubmissionCell.submission_id == submission_id)
            .order_by(Cell.corpus, Cell.arm, Cell.seed, Cell.fold)
        )
        return [same_named(CellSummary, row, holder=row.claim) for row in rows]


def brief_cells(store: Store, submissions: Sequence[str]) -> tuple[list[BriefCell], dict[str, frozenset[str]]]:
    """Cells of some submissions, each once, by corpus, arm, seed and fold; and the ids of each submission's cells."""
    # The tables themselves, not the classes that are mapped to them: tens of thousands of rows are plain tuples.
    table, of_submission = Cell.__table__.c, SubmissionCell.__table__.c
    asked = of_submission.submission_id.in_(submissions)
    members: dict[str, set[str]] = {name: set() for name in submissions}
    with store.reading() as session:
        for name, cell_id in session.execute(select(of_submission.submission_id, of_submission.cell_id).where(asked)):
            members[name].add(cell_id)
        rows = session.execute(
            select(*(table[name] for name in BRIEF_COLUMNS)).where(
                table.id.in_(select(of_submission.cell_id).where(asked))
            )
        ).all()
        # Cells that something else than tusp put there say nothing of their plan beside it.
        silent = [row.id for row in rows if row.settings is None or row.judged is None]
        known: dict[str, dict[str, Any]] = {}
        for start in range(0, len(silent), _BATCH):
            plans = select(Cell.id, Cell.plan, Cell.corpus).where(Cell.id.in_(silent[start : start + _BATCH]))
            known |= {cell_id: plan_columns(plan, corpus) for cell_id, plan, corpus in session.execute(plans)}
    cells = [BriefCell(**dict(zip(BRIEF_COLUMNS, row, strict=True)) | known.get(row.id, {})) for row in rows]
    return in_order(cells), {name: frozenset(ids) for name, ids in members.items()}


def in_order(cells: Iterable[BriefCell]) -> list[BriefCell]:
    """Cells by corpus, arm, seed and fold: the database's own order differs between engines."""
    return sorted(cells, key=attrgetter("corpus", "arm", "seed", "fold", "id"))


def planned_models(store: Store, cells: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Settings of the model in the plans of some cells."""
    return {cell_id: part or {} for cell_id, (part,) in _plan_parts(store, cells, "model").items()}


def planned_settings(store: Store, cell_id: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Model and recipe in the plan of a cell; empty where there is no such cell."""
    model, recipe = _plan_parts(store, [cell_id], "model", "recipe").get(cell_id, ({}, {}))
    return model or {}, recipe or {}


def planned_tests(store: Store, cells: Sequence[str], corpus: str) -> dict[str, frozenset[str]]:
    """Recordings of one corpus that the plans of some cells say they are judged on."""
    return {
        cell_id: frozenset(name for part in parts or () if part.get("name") == corpus for name in part.get("test", ()))
        for cell_id, (parts,) in _plan_parts(store, cells, "corpora").items()
    }


def _plan_parts(store: Store, cells: Sequence[str], *names: str) -> dict[str, tuple[Any, ...]]:
    """Parts of plans; the database reads the plan, only the part is sent."""
    found: dict[str, tuple[Any, ...]] = {}
    with store.reading() as session:
        for start in range(0, len(cells), _BATCH):
            wanted = select(Cell.id, *(Cell.plan[name] for name in names)).where(
                Cell.id.in_(cells[start : start + _BATCH])
            )
            found |= {cell_id: tuple(parts) for cell_id, *parts in session.execute(wanted)}
    return found


def curve_scores(store: Store, cells: Sequence[str]) -> dict[str, tuple[tuple[int, ...], tuple[float, ...]]]:
    """Numbers of the passes of each cell's training and the macro-F1 on its validation people after each, NaN where a
    pass was not validated; cells without a pass are left out."""
    table = Curve.__table__.c
    points: dict[str, list[tuple[int, float]]] = defaultdict(list)
    with store.reading() as session:
        for start in range(0, len(cells), _BATCH):
            wanted = select(table.cell_id, table.pass_number, table.validation_macro_f1).where(
                table.cell_id.in_(cells[start : start + _BATCH])
            )
            for cell_id, number, score in session.execute(wanted):
                points[cell_id].append((number, float("nan") if score is None else score))
    found: dict[str, tuple[tuple[int, ...], tuple[float, ...]]] = {}
    for cell_id, passes in points.items():
        passes.sort(key=itemgetter(0))
        found[cell_id] = (tuple(number for number, _ in passes), tuple(score for _, score in passes))
    return found


def reused_cells(store: Store, submission_id: str) -> frozenset[str]:
    """Cells of a submission that were done before it."""
    with store.reading() as session:
        reused = select(SubmissionCell.cell_id).where(
            SubmissionCell.submission_id == submission_id, SubmissionCell.reused
        )
        return frozenset(session.scalars(reused))


def done_attempts(store: Store, cell_ids: Sequence[str]) -> dict[str, int]:
    """Of each done cell the number of the attempt that made it so."""
    found: dict[str, int] = {}
    with store.reading() as session:
        for start in range(0, len(cell_ids), _BATCH):
            done = (
                select(Attempt.cell_id, func.max(Attempt.number))
                .join(Cell, Cell.id == Attempt.cell_id)
                .where(
                    Attempt.cell_id.in_(cell_ids[start : start + _BATCH]),
                    Attempt.state == "done",
                    Cell.state == "done",
                )
                .group_by(Attempt.cell_id)
            )
            found.update((cell_id, number) for cell_id, number in session.execute(done))
    return found


def cell_records(store: Store, cell_ids: Sequence[str]) -> list[CellRecord]:
    """Everything about some cells, in the order asked; cells that the store does not have are left out."""
    records: dict[str, CellRecord] = {}
    with store.reading() as session:
        for start in range(0, len(cell_ids), _BATCH):
            batch = cell_ids[start : start + _BATCH]
            attempts = defaultdict(list)
            for attempt in session.scalars(
                select(Attempt).where(Attempt.cell_id.in_(batch)).order_by(Attempt.cell_id, Attempt.number)
            ):
                attempts[attempt.cell_id].append(same_named(AttemptRecord, attempt, submission=attempt.submission_id))
            counts = defaultdict(list)
            columns = (
                Count.cell_id,
                Count.corpus,
                Count.recording,
                Count.subject,
                Count.rule,
                Count.channels,
            )
            cells_of_matrix = [getattr(Count, column) for column in COUNT_COLUMNS]
            for cell_id, corpus, recording, subject, rule, channels, *values in session.execute(
                select(*columns, *cells_of_matrix)
                .where(Count.cell_id.in_(batch))
                .order_by(Count.corpus, Count.recording, Count.rule, Count.channels)
            ):
                counts[cell_id].append(
                    CountRow(
                        corpus=corpus,
                        recording=recording,
                        subject=subject,
                        rule=rule,
                        channels=channels,
                        matrix=tuple(tuple(values[row : row + 5]) for row in range(0, 25, 5)),
                    )
                )
            curves = defaultdict(list)
            for point in session.scalars(
                select(Curve).where(Curve.cell_id.in_(batch)).order_by(Curve.cell_id, Curve.pass_number)
            ):
                curves[point.cell_id].append(same_named(CurveRow, point))
            artefacts = defaultdict(list)
            for kept in session.scalars(
                select(Artefact).where(Artefact.cell_id.in_(batch)).order_by(Artefact.cell_id, Artefact.path)
            ):
                artefacts[kept.cell_id].append(same_named(ArtefactRow, kept))
            for cell in session.scalars(select(Cell).where(Cell.id.in_(batch))):
                records[cell.id] = same_named(
                    CellRecord,
                    cell,
                    holder=cell.claim,
                    attempts=tuple(attempts[cell.id]),
                    counts=tuple(counts[cell.id]),
                    curve=tuple(curves[cell.id]),
                    artefacts=tuple(artefacts[cell.id]),
                )
    return [records[cell_id] for cell_id in cell_ids if cell_id in records]


def _submission_records(session: Session, submissions: Sequence[Submission]) -> list[SubmissionRecord]:
    ids = [submission.id for submission in submissions]
    states: dict[str, dict[str, int]] = defaultdict(dict)
    reused: dict[str, int] = defaultdict(int)
    counted = (
        select(SubmissionCell.submission_id, Cell.state, SubmissionCell.reused, func.count())
        .join(Cell, Cell.id == SubmissionCell.cell_id)
        .where(SubmissionCell.submission_id.in_(ids))
        .group_by(SubmissionCell.submission_id, Cell.state, SubmissionCell.reused)
    )
    for submission_id, state, was_done, number in session.execute(counted):
        states[submission_id][state] = states[submission_id].get(state, 0) + number
        reused[submission_id] += number if was_done else 0
    return [
        same_named(
            SubmissionRecord,
            submission,
            refused=tuple(submission.refused),
            cells=states[submission.id],
            reused=reused[submission.id],
        )
        for submission in submissions
    ]
