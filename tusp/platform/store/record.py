"""Recording what happens to cells. Each function is one transaction, right under any number of processes.

A cell goes planned -> running -> done or failed. Whoever runs it holds a claim: a token, where its process
lives, and a heartbeat. A claim whose process died or whose heartbeat stopped is taken over; its attempt is
then ``cut``.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import Any, Final

from sqlalchemy import CursorResult, Executable, delete, func, insert, select, update
from sqlalchemy.orm import Session

from tusp.platform import processes
from tusp.platform.errors import StoreError
from tusp.platform.store.models import (
    COUNT_COLUMNS,
    Artefact,
    Attempt,
    Base,
    Cell,
    Count,
    Curve,
    PackedCount,
    Submission,
    SubmissionCell,
    utc_now,
)
from tusp.platform.store.packed import collected, insert_of, keep_packed, plan_columns
from tusp.platform.store.session import Store

STALE_AFTER_S: Final = 120.0
"""Age of a heartbeat after which a claim counts as abandoned, in seconds."""


_COUNT_KEYS: Final = ("cell_id", "corpus", "recording", "rule", "channels", "subject", *COUNT_COLUMNS)


@dataclass(frozen=True, kw_only=True)
class Claimant:
    """Who runs cells: a submission's driver."""

    submission: str
    host: str
    pid: int
    started: str
    """Start of the process (:func:`tusp.platform.processes.started`), so a recycled pid is noticed."""
    token: str
    """Secret of this claimant; only its holder may record an outcome."""

    @classmethod
    def of_this_process(cls, submission: str) -> Claimant:
        """A claimant for this process with a fresh token."""
        return cls(submission=submission, token=uuid.uuid4().hex, **processes.this_process())  # type: ignore[arg-type]

    @property
    def shown(self) -> dict[str, Any]:
        """What the cell shows of its holder: everything but the token."""
        return {"submission": self.submission, "host": self.host, "pid": self.pid, "started": self.started}


@dataclass(frozen=True, kw_only=True)
class ClaimResult:
    """What became of a claim."""

    obtained: bool
    state: str
    """State of the cell after the call."""
    holder: Mapping[str, Any] | None
    """Who holds the cell after the call; None when nobody does."""
    attempt_number: int | None
    """Number of the attempt that was opened, from 1; None when the cell was not obtained."""


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """A cell as the plan has it; ``id`` is the hash of ``plan``."""

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


@dataclass(frozen=True, kw_only=True)
class CountRow:
    """Confusion counts of one test recording: ``matrix[true][predicted]`` epochs, 5 x 5."""

    corpus: str
    recording: str
    subject: str
    rule: str
    matrix: tuple[tuple[int, ...], ...]
    channels: str = "vote"

    def __post_init__(self) -> None:
        if len(self.matrix) != 5 or any(len(row) != 5 for row in self.matrix):
            raise ValueError(f"{self.corpus}/{self.recording}: counts are 5 x 5")
        if any(value < 0 for row in self.matrix for value in row):
            raise ValueError(f"{self.corpus}/{self.recording}: counts are not negative")


@dataclass(frozen=True, kw_only=True)
class CurveRow:
    """One pass of a cell's training, numbered from 1; None (or NaN, kept as None) where nothing was scored."""

    pass_number: int
    train_loss: float
    learning_rate: float
    validation_loss: float | None
    validation_accuracy: float | None
    validation_macro_f1: float | None
    seconds: float

    def __post_init__(self) -> None:
        for name in ("validation_loss", "validation_accuracy", "validation_macro_f1"):
            value = getattr(self, name)
            if value is not None and math.isnan(value):
                object.__setattr__(self, name, None)
            elif value is not None and math.isinf(value):
                raise ValueError(f"pass {self.pass_number}: {name} is infinite")
        if not (math.isfinite(self.train_loss) and math.isfinite(self.learning_rate)):
            raise ValueError(f"pass {self.pass_number}: loss {self.train_loss} or learning rate is not finite")


@dataclass(frozen=True, kw_only=True)
class ArtefactRow:
    """A kept file: its path relative to TUSP_HOME, SHA-256 (hexadecimal) and size."""

    path: str
    kind: str
    recording: str | None
    """``<corpus>/<recording>`` of predictions; None for files of the whole cell."""
    sha256: str
    size_bytes: int

    def __post_init__(self) -> None:
        path = PurePosixPath(self.path)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{self.path}: artefacts are named relative to TUSP_HOME")


@dataclass(frozen=True, kw_only=True)
class CellOutcome:
    """Everything that makes a cell done."""

    cell_id: str
    token: str
    attempt: int
    result: Mapping[str, Any]
    counts: Sequence[CountRow]
    curve: Sequence[CurveRow]
    artefacts: Sequence[ArtefactRow]
    environment: Mapping[str, Any]
    resumed_from_pass: int | None = field(default=None)


def create_submission(
    store: Store,
    *,
    id: str,  # noqa: A002  (the column's name)
    request: Mapping[str, Any],
    environment: Mapping[str, Any],
    simulated: bool,
    refused: Sequence[Mapping[str, Any]],
    process: Mapping[str, Any],
) -> None:
    """Record a new submission in state ``running``.

    Raises:
        StoreError: there is a submission with this id.
    """
    with store.session() as session:
        if session.get(Submission, id) is not None:
            raise StoreError(f"submission {id} is recorded already; choose another id")
        session.add(
            Submission(
                id=id,
                request=dict(request),
                environment=dict(environment),
                simulated=simulated,
                refused=[dict(item) for item in refused],
                process=dict(process),
            )
        )


def finish_submission(store: Store, submission_id: str, state: str, *, now: datetime | None = None) -> None:
    """Record how a submission ended: ``done``, ``failed`` or ``interrupted``.

    Raises:
        StoreError: there is no such submission.
    """
    if state not in {"done", "failed", "interrupted"}:
        raise ValueError(f"a submission does not end as {state!r}")
    statement = update(Submission).where(Submission.id == submission_id)
    with store.session() as session:
        if not _changed(session, statement.values(state=state, finished_at=now or utc_now())):
            raise StoreError(f"there is no submission {submission_id}")


def interrupt_dead_submissions(store: Store) -> list[str]:
    """Mark ``running`` submissions whose driver is known to be gone as ``interrupted``; returns their ids."""
    with store.session() as session:
        running = session.scalars(select(Submission).where(Submission.state == "running")).all()
        dead = [submission for submission in running if _is_dead(submission.process)]
        for submission in dead:
            submission.state = "interrupted"
            submission.finished_at = utc_now()
        return [submission.id for submission in dead]


def add_cells(store: Store, submission_id: str, cells: Sequence[PlannedCell]) -> None:
    """Make ``cells`` members of a submission; those that the store does not know yet become ``planned``.

    A member is ``reused`` when it was done before. Calling it again changes nothing.
    """
    if not cells:
        return
    with store.session() as session:
        new = [
            {**asdict(cell), "plan": dict(cell.plan), "state": "planned", **plan_columns(cell.plan, cell.corpus)}
            for cell in cells
        ]
        _insert_missing(session, Cell, new, key="id")
        done = _done_among(session, [cell.id for cell in cells])
        members = [{"submission_id": submission_id, "cell_id": cell.id, "reused": cell.id in done} for cell in cells]
        _insert_missing(session, SubmissionCell, members, key="submission_id", second_key="cell_id")


def claim(
    store: Store,
    cell_id: str,
    claimant: Claimant,
    *,
    now: datetime | None = None,
    stale_after_s: float = STALE_AFTER_S,
) -> ClaimResult:
    """Try to obtain a cell, in one step that no two processes can both win.

    Obtained are planned and failed cells, and running ones whose claim is stale: the heartbeat is older
    than ``stale_after_s`` seconds, or the process is known to have ended; its attempt is then ``cut``.

    Raises:
        StoreError: there is no such cell.
    """
    now = now or utc_now()
    with store.session() as session:
        cell = session.get(Cell, cell_id, with_for_update=True)
        if cell is None:
            raise StoreError(f"there is no cell {cell_id}")
        if cell.state == "done" or (
            cell.state == "running" and not _is_stale(cell, now=now, stale_after_s=stale_after_s)
        ):
            return ClaimResult(obtained=False, state=cell.state, holder=cell.claim, attempt_number=None)
        take = (
            update(Cell)
            .where(
                Cell.id == cell_id,
                Cell.state == cell.state,
                Cell.claim_token.is_not_distinct_from(cell.claim_token),
                Cell.heartbeat_at.is_not_distinct_from(cell.heartbeat_at),
            )
            .values(
                state="running",
                error=None,
                claim=claimant.shown,
                claim_token=claimant.token,
                heartbeat_at=now,
            )
        )
        if not _changed(session, take):
            return ClaimResult(obtained=False, state="running", holder=None, attempt_number=None)
        _end_open_attempts(session, cell_id, now=now)
        last = session.scalar(select(func.max(Attempt.number)).where(Attempt.cell_id == cell_id)) or 0
        session.add(
            Attempt(
                cell_id=cell_id,
                number=last + 1,
                submission_id=claimant.submission,
                started_at=now,
                environment={},
            )
        )
        return ClaimResult(obtained=True, state="running", holder=claimant.shown, attempt_number=last + 1)


def heartbeat(store: Store, token: str, cell_ids: Collection[str], *, now: datetime | None = None) -> frozenset[str]:
    """Say that the holder of ``token`` is alive; returns those of ``cell_ids`` that it no longer holds."""
    if not cell_ids:
        return frozenset()
    with store.session() as session:
        held = frozenset(
            session.scalars(
                update(Cell)
                .where(Cell.id.in_(cell_ids), Cell.state == "running", Cell.claim_token == token)
                .values(heartbeat_at=now or utc_now())
                .returning(Cell.id)
                .execution_options(synchronize_session=False)
            )
        )
    return frozenset(cell_ids) - held


def record_done(store: Store, outcome: CellOutcome, *, now: datetime | None = None) -> None:
    """Record a finished cell, all of it or nothing.

    Raises:
        StoreError: the cell is done already, or is no longer held by this token, or the attempt is not open.
    """
    now = now or utc_now()
    cell_id = outcome.cell_id
    with store.session() as session:
        _give_up(session, cell_id, outcome.token, state="done", result=dict(outcome.result), done_at=now)
        closed = _changed(
            session,
            update(Attempt)
            .where(Attempt.cell_id == cell_id, Attempt.number == outcome.attempt, Attempt.state == "running")
            .values(
                state="done",
                finished_at=now,
                resumed_from_pass=outcome.resumed_from_pass,
                environment=dict(outcome.environment),
            ),
        )
        if not closed:
            raise StoreError(f"cell {cell_id[:12]}: attempt {outcome.attempt} is not open")
        rows: dict[type[Base], list[dict[str, Any]]] = {
            Count: [_count_values(cell_id, row) for row in outcome.counts],
            Curve: [{"cell_id": cell_id, **asdict(row)} for row in outcome.curve],
            Artefact: [{"cell_id": cell_id, **asdict(row)} for row in outcome.artefacts],
        }
        for table, values in rows.items():
            if values:
                session.execute(insert(table), values)
        keep_packed(session, collected(tuple(values[name] for name in _COUNT_KEYS) for values in rows[Count]))


def record_failed(
    store: Store,
    cell_id: str,
    token: str,
    attempt: int,
    reason: str,
    environment: Mapping[str, Any],
    *,
    now: datetime | None = None,
) -> None:
    """Record why a cell failed; a later claim may try it again.

    Raises:
        StoreError: the cell is not held by this token.
    """
    now = now or utc_now()
    with store.session() as session:
        _give_up(session, cell_id, token, state="failed", error=reason)
        _changed(
            session,
            update(Attempt)
            .where(Attempt.cell_id == cell_id, Attempt.number == attempt, Attempt.state == "running")
            .values(state="failed", finished_at=now, error=reason, environment=dict(environment)),
        )


def release(store: Store, cell_id: str, token: str, *, now: datetime | None = None) -> None:
    """Give a cell back unfinished: it is ``planned`` again and its attempt was ``cut``.

    Raises:
        StoreError: the cell is not held by this token.
    """
    with store.session() as session:
        _give_up(session, cell_id, token, state="planned")
        _end_open_attempts(session, cell_id, now=now or utc_now())


def release_all(store: Store, token: str, *, now: datetime | None = None) -> list[str]:
    """Give back unfinished whatever the holder of ``token`` still holds, as the store knows it; returns the cells.

    The store's knowledge counts, not the holder's: a holder that was interrupted between a claim and its own note of
    it would otherwise leave the cell ``running``.
    """
    with store.session() as session:
        held = sorted(
            session.scalars(
                update(Cell)
                .where(Cell.state == "running", Cell.claim_token == token)
                .values(state="planned", claim=None, claim_token=None, heartbeat_at=None)
                .returning(Cell.id)
                .execution_options(synchronize_session=False)
            )
        )
        for cell_id in held:
            _end_open_attempts(session, cell_id, now=now or utc_now())
    return held


def reset_cell(store: Store, cell_id: str, reason: str) -> bool:
    """Undo a done cell (say its files are gone): it is ``planned`` again, without counts, curve, artefacts.

    Its attempts stay, the done one as ``failed`` with the reason. Returns whether the cell was done; if not,
    nothing changes.
    """
    with store.session() as session:
        undo = (
            update(Cell)
            .where(Cell.id == cell_id, Cell.state == "done")
            .values(state="planned", result=None, done_at=None, error=reason)
        )
        if not _changed(session, undo):
            return False
        for table in (Count, PackedCount, Curve, Artefact):
            session.execute(delete(table).where(table.cell_id == cell_id))
        _changed(
            session,
            update(Attempt)
            .where(Attempt.cell_id == cell_id, Attempt.state == "done")
            .values(state="failed", error=f"undone: {reason}"),
        )
        return True


def _is_dead(process: Mapping[str, Any] | None) -> bool:
    if not process or not {"host", "pid", "started"} <= process.keys():
        return False
    return processes.is_surely_dead(host=str(process["host"]), pid=int(process["pid"]), started=str(process["started"]))


def _is_stale(cell: Cell, *, now: datetime, stale_after_s: float) -> bool:
    beat = cell.heartbeat_at
    return beat is None or now - beat > timedelta(seconds=stale_after_s) or _is_dead(cell.claim)


def _give_up(session: Session, cell_id: str, token: str, *, state: str, **values: Any) -> None:
    """Move a running cell that ``token`` holds to ``state``, or say why that cannot be."""
    statement = (
        update(Cell)
        .where(Cell.id == cell_id, Cell.state == "running", Cell.claim_token == token)
        .values(state=state, claim=None, claim_token=None, heartbeat_at=None, **values)
    )
    if _changed(session, statement):
        return
    cell = session.get(Cell, cell_id)
    if cell is None:
        raise StoreError(f"there is no cell {cell_id}")
    if cell.state == "done":
        raise StoreError(f"cell {cell_id[:12]}: is done already; it is not recorded twice")
    holder = f", {cell.claim['host']} process {cell.claim['pid']} does" if cell.claim else ""
    raise StoreError(f"cell {cell_id[:12]}: is {cell.state} and not held by this claim any more{holder}")


def _end_open_attempts(session: Session, cell_id: str, *, now: datetime) -> None:
    _changed(
        session,
        update(Attempt)
        .where(Attempt.cell_id == cell_id, Attempt.state == "running")
        .values(state="cut", finished_at=now),
    )


def _count_values(cell_id: str, row: CountRow) -> dict[str, Any]:
    flat = (value for line in row.matrix for value in line)
    return {
        "cell_id": cell_id,
        "corpus": row.corpus,
        "recording": row.recording,
        "subject": row.subject,
        "rule": row.rule,
        "channels": row.channels,
        **{column: int(value) for column, value in zip(COUNT_COLUMNS, flat, strict=True)},
    }


def _changed(session: Session, statement: Executable) -> int:
    """Run an UPDATE and return how many rows it changed."""
    result = session.execute(statement, execution_options={"synchronize_session": False})
    assert isinstance(result, CursorResult)
    return result.rowcount


def _insert_missing(
    session: Session,
    table: type[Base],
    rows: list[dict[str, Any]],
    *,
    key: str,
    second_key: str | None = None,
) -> None:
    """Insert the rows whose key the table does not have yet."""
    keys = [key] if second_key is None else [key, second_key]
    session.execute(insert_of(session)(table).on_conflict_do_nothing(index_elements=keys), rows)


def batches(values: Sequence[str], size: int = 500) -> list[Sequence[str]]:
    """Pieces of a list that a statement can name one by one."""
    return [values[start : start + size] for start in range(0, len(values), size)]


def _done_among(session: Session, cell_ids: Sequence[str]) -> set[str]:
    return {
        cell_id
        for batch in batches(cell_ids)
        for cell_id in session.scalars(select(Cell.id).where(Cell.id.in_(batch), Cell.state == "done"))
    }
