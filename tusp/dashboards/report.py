"""A report: everything that `tusp report` says, in one frozen value behind all formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from tusp.dashboards.across import Across
from tusp.dashboards.frames import Selection, select_results
from tusp.dashboards.leaderboard import Board, build_boards
from tusp.dashboards.suites import SuiteTable
from tusp.platform.errors import UserError
from tusp.platform.store.session import Store

BOOTSTRAP: Final = 2000
"""Resamples of a report's intervals unless told otherwise."""


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


@dataclass(frozen=True, kw_only=True)
class Report:
    """Boards (one per corpus judged on and way of training), never mixing simulated and real nights."""

    rule: str
    everything: bool
    """All submissions together, not one."""

    corpus: str | None
    """Only what is judged on this corpus."""

    bootstrap: int
    seed: int
    submissions: tuple[SubmissionNote, ...]
    boards: tuple[Board, ...]
    superseded: int

    recomputed: bool = False
    """The counts were made from kept predictions, since the cells did not count this rule."""

    nights: tuple[NightsNote, ...] = ()
    """Audits of the registered corpora of the boards, by name."""

    across: Across = field(default_factory=Across)
    """Several corpora at once."""

    suite: SuiteTable | None = None
    """The table of a suite, where one was asked for (:func:`tusp.dashboards.suites.suite_table`)."""


def build_report(
    store: Store,
    *,
    submission: str | None = None,
    everything: bool = False,
    rule: str = "trim30",
    corpus: str | None = None,
    bootstrap: int = BOOTSTRAP,
    seed: int = 0,
) -> Report:
    """Build the report of the latest submission, a named one, or all.

    Args:
        store: the open store; it is only read.
        submission: id or its unique beginning; None for the latest.
        everything: all submissions together.
        rule: scoring rule, ``trim30`` or ``full``.
        corpus: only what is judged on this corpus.
        bootstrap: resamples over people for the intervals.
        seed: of the resampling and of drawn sign flips: the same report twice, digit by digit.

    Raises:
        UserError: unknown rule, submission or corpus; nothing submitted yet; too few resamples.
    """
    if bootstrap < 100:
        raise UserError(f"--bootstrap {bootstrap} is too few for an interval; 2000 is usual, 100 the least")
    selection = select_results(store, submission=submission, everything=everything, rule=rule, corpus=corpus)
    return Report(
        rule=rule,
        everything=everything,
        corpus=corpus,
        bootstrap=bootstrap,
        seed=seed,
        submissions=_submission_notes(selection),
        boards=build_boards(selection, resamples=bootstrap, seed=seed),
        superseded=selection.superseded,
    )


def _submission_notes(selection: Selection) -> tuple[SubmissionNote, ...]:
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
