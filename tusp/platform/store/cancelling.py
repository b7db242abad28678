"""Small questions and notes of the commands that look after submissions: called off, noted with, found by its id."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select, update

from tusp.platform.errors import StoreError, UserError
from tusp.platform.store.models import Cell, Submission, utc_now
from tusp.platform.store.session import Store

CANCELLED = "cancelled"


def cancel_submission(store: Store, submission_id: str, *, now: datetime | None = None) -> None:
    """Call a running submission off: its driver sees it, stops its cells and gives them back.

    Raises:
        UserError: it does not run.
        StoreError: there is no such submission.
    """
    with store.session() as session:
        obtained = session.scalar(
            update(Submission)
            .where(Submission.id == submission_id, Submission.state == "running")
            .values(state=CANCELLED, finished_at=now or utc_now())
            .returning(Submission.id)
        )
        if obtained is not None:
            return
        state = session.scalar(select(Submission.state).where(Submission.id == submission_id))
    if state is None:
        raise StoreError(f"there is no submission {submission_id}")
    raise UserError(f"submission {submission_id} is {state}: only a running one can be cancelled")


def is_cancelled(store: Store, submission_id: str) -> bool:
    """Whether somebody called the submission off."""
    with store.reading() as session:
        return session.scalar(select(Submission.state).where(Submission.id == submission_id)) == CANCELLED


def cells_like(store: Store, start: str) -> list[str]:
    """Ids of at most two cells that start like this."""
    with store.reading() as session:
        return list(session.scalars(select(Cell.id).where(Cell.id.startswith(start, autoescape=True)).limit(2)))


def note_with_submission(store: Store, submission_id: str, notes: Mapping[str, Any]) -> None:
    """Add to the environment that is recorded with a submission.

    Raises:
        StoreError: there is no such submission.
    """
    with store.session() as session:
        submission = session.get(Submission, submission_id, with_for_update=True)
        if submission is None:
            raise StoreError(f"there is no submission {submission_id}")
        submission.environment = {**submission.environment, **notes}
