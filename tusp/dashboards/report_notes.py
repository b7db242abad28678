"""What a report says beside its boards: which submissions it is about, and what the audits say of their nights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tusp.dashboards.frames import Selection
from tusp.dashboards.leaderboard import Board
from tusp.datasets.corpus_notes import audit_notes
from tusp.datasets.splits import corpus_of
from tusp.platform.store.session import Store


@dataclass(frozen=True, kw_only=True)
class SubmissionNote:
    """A submission that a report is about."""

    id: str
    created_at: datetime
    state: str
    simulated: bool
    request: Mapping[str, Any]
    environment: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ProblemKind:
    """A kind of problem that the audit found, and in how many usable recordings."""

    kind: str
    recordings: int
    example: str


@dataclass(frozen=True, kw_only=True)
class NightsNote:
    """What the audit says of one corpus of the report."""

    corpus: str
    usable: int
    refused: int
    with_problems: int
    """Usable recordings with something to know about."""
    unscored_share: float
    """Of the epochs of the usable recordings, 0 to 1; NaN without any."""
    problems: tuple[ProblemKind, ...]
    """The most frequent first."""


def nights_notes(store: Store, boards: Sequence[Board]) -> tuple[NightsNote, ...]:
    """Audits of the corpora that are judged or trained on, as far as they are registered."""
    names = {board.key.judged_on for board in boards} | {
        name for board in boards for name in board.key.trained_on.split("+")
    }
    notes = audit_notes(store, sorted({corpus_of(name) for name in names if name}))
    return tuple(
        NightsNote(
            corpus=corpus,
            usable=note["usable"],
            refused=note["refused"],
            with_problems=note["with_problems"],
            unscored_share=float("nan") if note["unscored_share"] is None else note["unscored_share"],
            problems=tuple(ProblemKind(**problem) for problem in note["problems"]),
        )
        for corpus, note in notes.items()
    )


def submission_notes(selection: Selection) -> tuple[SubmissionNote, ...]:
    """The submissions of a selection, oldest first."""
    return tuple(
        SubmissionNote(
            id=record.id,
            created_at=record.created_at,
            state=record.state,
            simulated=record.simulated,
            request=record.request,
            environment=record.environment,
        )
        for record in selection.submissions
    )
