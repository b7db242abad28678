"""A report: everything that `tusp report` says, in one frozen value behind all formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from tusp.dashboards.across import Across, build_across
from tusp.dashboards.board_making import build_boards, cells_of_boards, outside_boards
from tusp.dashboards.entries import COUNTED
from tusp.dashboards.frames import Selection, select_results
from tusp.dashboards.kept import Kept, hash_of
from tusp.dashboards.leaderboard import Board
from tusp.dashboards.sleep import with_sleep
from tusp.dashboards.suites import SuiteTable
from tusp.datasets.corpus_notes import audit_notes
from tusp.datasets.splits import corpus_of
from tusp.platform.errors import UserError
from tusp.platform.scoring.rules import LIGHTS, RULES, RULES_IN_WORDS
from tusp.platform.store.entries import list_entries
from tusp.platform.store.queries import BriefCell
from tusp.platform.store.session import Store

ACROSS: Final = "across"
"""Folder of what corpora give together, among what is kept."""

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

    cells: tuple[BriefCell, ...] = ()
    """Behind the boards, done or not."""

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
    home: Path | None = None,
    sleep: bool = False,
    processes: int = 1,
    kept: Path | None = None,
) -> Report:
    """Build the report of the latest submission, a named one, or all.

    Imported submissions and human scorers stand on the boards of their corpora. Corpora of which there is nothing else
    have a board of their own with ``everything``, when ``corpus`` names them, and where nothing was submitted.

    Args:
        store: the open store; it is only read.
        submission: id or its unique beginning; None for the latest.
        everything: all submissions together.
        rule: scoring rule: ``trim30``, ``full``, ``trim<minutes>`` or ``lights``. What the cells did not count is
            counted from their kept predictions.
        corpus: only what is judged on this corpus.
        bootstrap: resamples over people for the intervals.
        seed: of the resampling and of drawn sign flips: the same report twice, digit by digit.
        home: TUSP_HOME, where the kept predictions are; needed for other rules than ``trim30`` and ``full`` and for
            ``sleep``.
        sleep: add the agreement of sleep statistics of every arm, from kept predictions.
        processes: that make boards at the same time, as in :func:`tusp.dashboards.board_making.build_boards`.
        kept: folder of what was derived before and need not be made again; None makes all. Only reports under ``RULES``
            with the usual resamples and seed are kept, those which ``tusp validate`` makes again.

    Raises:
        UserError: unknown rule, submission or corpus; nothing submitted or imported yet; too few resamples; no home
            where one is needed; rule ``lights`` for nights whose lights are not known.
        DataError: a kept prediction that is needed is missing or was changed.
    """
    if bootstrap < 100:
        raise UserError(f"--bootstrap {bootstrap} is too few for an interval; 2000 is usual, 100 the least")
    if rule not in RULES or bootstrap != BOOTSTRAP or seed:
        kept = None
    outside = {entry.corpus for entry in list_entries(store)}
    selection = select_results(
        store,
        submission=submission,
        everything=everything,
        rule=rule,
        corpus=corpus,
        outside=outside,
        home=home,
        counted=kept is None,
    )
    boards = build_boards(store, selection, resamples=bootstrap, seed=seed, home=home, processes=processes, kept=kept)
    alone = outside if everything or not selection.submissions else set()
    boards += outside_boards(
        store,
        corpora=alone if corpus is None else outside & {corpus},
        rule=rule,
        resamples=bootstrap,
        seed=seed,
        without={(board.key.simulated, board.key.judged_on) for board in boards},
        home=home,
    )
    if rule == LIGHTS and not boards and outside:
        raise UserError(f"rule lights: {COUNTED}; rules are {RULES_IN_WORDS}")
    if sleep:
        boards = with_sleep(store, home, boards, selection, resamples=bootstrap, seed=seed)
    return Report(
        rule=rule,
        everything=everything,
        corpus=corpus,
        bootstrap=bootstrap,
        seed=seed,
        submissions=_submission_notes(selection),
        boards=boards,
        superseded=selection.superseded,
        cells=tuple(cell.summary for cell in selection.cells),
        recomputed=rule not in RULES,
        nights=_nights(store, boards),
        across=build_across(boards) if kept is None else _kept_across(boards, kept),
    )


def keep_boards_of_everything(store: Store, submission: str, *, kept: Path) -> None:
    """Make the boards that the report of everything shows of the cells of one submission, so that it finds them.

    Args:
        store: the open store; it is only read.
        submission: id.
        kept: folder of what is kept.
    """
    for rule in RULES:
        selection = select_results(store, everything=True, rule=rule, counted=False)
        members = selection.members[submission]
        theirs = {
            key for key, cells in cells_of_boards(selection).items() if any(c.summary.id in members for c in cells)
        }
        cells = (
            replace(cell, judged_on=tuple(corpus for corpus in cell.judged_on if cell.key(corpus) in theirs))
            for cell in selection.cells
        )
        only_theirs = replace(selection, cells=tuple(cell for cell in cells if cell.judged_on))
        build_boards(store, only_theirs, resamples=BOOTSTRAP, seed=0, kept=kept)


def _kept_across(boards: Sequence[Board], kept: Path) -> Across:
    before = Kept(kept / ACROSS, Across)
    name = hash_of(boards)
    found = before.find(name)
    if found is None:
        found = before.keep(name, build_across(boards))
        before.forget_old()
    return found


def _nights(store: Store, boards: Sequence[Board]) -> tuple[NightsNote, ...]:
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
