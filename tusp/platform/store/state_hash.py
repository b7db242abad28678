"""Hash of all rows of the store that a report reads, for knowing whether it would be the same again.

The rows are hashed as the database has them: ten thousand cells are read in a fraction of the time that it takes to
make something of them. Where a report is made after all, it is made of the same rows, which are not read twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import JSON, ColumnElement, Select, Text, case, cast, or_, select
from sqlalchemy.orm import Session

from tusp.platform.store.models import (
    BRIEF_COLUMNS,
    Cell,
    Corpus,
    Count,
    Entry,
    EntryCount,
    PackedCount,
    Recording,
    Submission,
    SubmissionCell,
    UtcDateTime,
)
from tusp.platform.store.session import Store

_BATCH: Final = 500
_SUBMISSION: Final = ("id", "created_at", "state", "simulated", "request", "environment", "refused")
PACKED_COLUMNS: Final = ("cell_id", "corpus", "rule", "channels", "nights_id", "sha256")
_RECORDING: Final = ("corpus_name", "name", "usable", "audit")

# The tables themselves, not the classes that are mapped to them: tens of thousands of rows are plain tuples.
_cell, _member = Cell.__table__.c, SubmissionCell.__table__.c
_packed, _count, _submission = PackedCount.__table__.c, Count.__table__.c, Submission.__table__.c


@dataclass(frozen=True, kw_only=True)
class ReportState:
    """What the store holds for a report, as rows in which times and JSON are text."""

    digest: bytes
    submissions: Sequence[str]
    """Their ids."""
    members: Sequence[Sequence[Any]]
    """Submission and cell ids."""
    cells: Sequence[Sequence[Any]]
    """``BRIEF_COLUMNS``, and the plan of a cell that does not say beside it what is in it."""
    packed: Sequence[Sequence[Any]]
    """``PACKED_COLUMNS`` of the packed counts under the rule."""


def report_state(store: Store, *, submission: str | None, everything: bool, rule: str) -> ReportState | None:
    """What the store holds for a report under a rule that cells count, and its hash.

    It covers submissions and which cells are theirs, the cells without what a report does not read of them, the hashes
    of their packed counts (of a cell without them its counts), imported submissions and human scorers with their
    counts, corpora and audits. Plans and training curves are not read: a cell's id is the hash of its plan, and the
    curve of a done cell never changes without the moment at which it was done.

    Args:
        store: only read.
        submission: id of a submission or its unique beginning; None for the latest.
        everything: all submissions.
        rule: scoring rule of the counts.

    Returns:
        None where there is no such submission, or several begin like this.
    """
    whole = hashlib.blake2b(store.address.encode())
    with store.reading() as session:
        chosen = None if everything else _chosen(session, submission)
        if not everything and chosen is None:
            return None

        def add(wanted: Select[Any]) -> list[Sequence[Any]]:
            rows: list[Sequence[Any]] = list(map(tuple, session.execute(wanted).all()))
            raw = msgspec.msgpack.encode(rows)
            whole.update(len(raw).to_bytes(8, "little"))
            whole.update(raw)
            return rows

        asked = select(_member.cell_id)
        submissions, members = _raw(Submission, _SUBMISSION), _raw(SubmissionCell, ("submission_id", "cell_id"))
        if chosen is not None:
            asked = asked.where(_member.submission_id == chosen)
            submissions = submissions.where(_submission.id == chosen)
            members = members.where(_member.submission_id == chosen)
        names = [row[0] for row in add(submissions)]
        belonging = add(members)
        # Cells that something else than tusp put there say nothing of their plan beside it.
        silent = case((or_(_cell.settings.is_(None), _cell.judged.is_(None)), cast(_cell.plan, Text)))
        cells = add(_raw(Cell, BRIEF_COLUMNS).add_columns(silent).where(_cell.id.in_(asked)))
        packed = add(_raw(PackedCount, PACKED_COLUMNS).where(_packed.rule == rule, _packed.cell_id.in_(asked)))
        there = {row[0] for row in packed}
        state = BRIEF_COLUMNS.index("state")
        lacking = [row[0] for row in cells if row[state] == "done" and row[0] not in there]
        for start in range(0, len(lacking), _BATCH):
            one_of = lacking[start : start + _BATCH]
            add(_raw(Count).where(_count.rule == rule, _count.cell_id.in_(one_of)))
        add(_raw(Entry))
        add(_raw(EntryCount).where(EntryCount.__table__.c.rule == rule))
        add(_raw(Corpus))
        add(_raw(Recording, _RECORDING))
    return ReportState(
        digest=whole.digest(), submissions=names, members=belonging, cells=cells, packed=packed
    )  # fmt: skip


def _chosen(session: Session, submission: str | None) -> str | None:
    if submission is None:
        newest = select(Submission.id).order_by(Submission.created_at.desc(), Submission.id.desc()).limit(1)
        return session.scalar(newest)
    if session.get(Submission, submission) is not None:
        return submission
    matching = select(Submission.id).where(Submission.id.startswith(submission, autoescape=True)).limit(2)
    found = list(session.scalars(matching))
    return found[0] if len(found) == 1 else None


def _raw(kind: Any, names: Sequence[str] | None = None) -> Select[Any]:
    """Columns of a table by its primary key, times and JSON as text."""
    table = kind.__table__
    columns = table.columns.values() if names is None else [table.columns[name] for name in names]
    return select(*map(_as_text, columns)).order_by(*table.primary_key)


def _as_text(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return cast(column, Text) if isinstance(column.type, JSON | UtcDateTime) else column
