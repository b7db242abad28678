"""A report: everything that `tusp report` says, in one frozen value behind all formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from tusp.dashboards.across import Across, build_across
from tusp.dashboards.asked import BOOTSTRAP, Asked, Known, known
from tusp.dashboards.board_making import build_boards, outside_boards
from tusp.dashboards.entries import COUNTED
from tusp.dashboards.frames import Selection, select_results
from tusp.dashboards.kept import Kept, hash_of
from tusp.dashboards.leaderboard import Board
from tusp.dashboards.report_notes import NightsNote, SubmissionNote, nights_notes, submission_notes
from tusp.dashboards.sleep import with_sleep
from tusp.dashboards.suites import SuiteTable
from tusp.platform.errors import UserError
from tusp.platform.scoring.rules import LIGHTS, RULES, RULES_IN_WORDS
from tusp.platform.store.entries import list_entries
from tusp.platform.store.queries import BriefCell
from tusp.platform.store.session import Store
from tusp.platform.store.state_hash import ReportState

ACROSS: Final = "across"
"""Folder of what corpora give together, among what is kept."""

REPORTS: Final = "reports"
"""Folder of whole reports among what is kept."""

MOST_REPORTS: Final = 24
"""Whole reports that are kept, the latest ones: each holds every board it shows."""


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

    cells: tuple[BriefCell, ...] | None = None
    """Behind the boards, done or not; None in a report that was kept."""

    kept_as: str | None = None
    """Hash of everything in the store that the report is made of, under which it is kept; None where it is not."""

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
    before: Known | None = None,
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
        before: what :func:`tusp.dashboards.asked.known` said just now, where it was asked.

    Raises:
        UserError: unknown rule, submission or corpus; nothing submitted or imported yet; too few resamples; no home
            where one is needed; rule ``lights`` for nights whose lights are not known.
        DataError: a kept prediction that is needed is missing or was changed.
    """
    if bootstrap < 100:
        raise UserError(f"--bootstrap {bootstrap} is too few for an interval; 2000 is usual, 100 the least")
    asked = Asked(
        submission=submission, everything=everything, rule=rule, corpus=corpus, bootstrap=bootstrap, seed=seed
    )
    if not asked.can_be_kept:
        kept = None
    if kept is None or sleep:
        return _made(store, asked, home=home, sleep=sleep, processes=processes, kept=kept)
    if before is None:
        before = known(store, asked)
    reports = Kept(kept / REPORTS, Report)
    if before is not None and (found := reports.find(before.name)) is not None:
        return found
    made = _made(store, asked, home=home, sleep=False, processes=processes, kept=kept, before=before)
    if before is None or not before.still_holds(store):
        return made  # something changed meanwhile, and nobody knows of which state this is
    found = reports.keep(before.name, replace(made, cells=None, kept_as=before.name))
    reports.forget_old(at_most=MOST_REPORTS)
    return replace(found, cells=made.cells)


def _made(
    store: Store,
    asked: Asked,
    *,
    home: Path | None,
    sleep: bool,
    processes: int,
    kept: Path | None,
    before: Known | None = None,
) -> Report:
    state = None if before is None else before.state
    selection = selected(store, asked, home=home, counted=kept is None, state=state)
    resampling = {"resamples": asked.bootstrap, "seed": asked.seed}
    boards = build_boards(store, selection, **resampling, home=home, processes=processes, kept=kept, state=state)
    boards = with_outside(store, asked, selection, boards, home=home)
    if sleep:
        boards = with_sleep(store, home, boards, selection, **resampling)
    across = build_across(boards) if kept is None else _kept_across(boards, kept)
    return assembled(store, asked, selection, boards, across)


def selected(
    store: Store, asked: Asked, *, home: Path | None, counted: bool, state: ReportState | None = None
) -> Selection:
    """The cells of a report, of rows that were read already where there are any; raises as
    :func:`tusp.dashboards.frames.select_results`."""
    return select_results(
        store,
        submission=asked.submission,
        everything=asked.everything,
        rule=asked.rule,
        corpus=asked.corpus,
        outside={entry.corpus for entry in list_entries(store)},
        home=home,
        counted=counted,
        state=state,
    )


def with_outside(
    store: Store, asked: Asked, selection: Selection, boards: tuple[Board, ...], *, home: Path | None
) -> tuple[Board, ...]:
    """The boards of cells, and those of entries alone that the report shows beside them.

    Raises:
        UserError: rule ``lights`` for entries alone.
    """
    outside = {entry.corpus for entry in list_entries(store)}
    alone = outside if asked.everything or not selection.submissions else set()
    boards += outside_boards(
        store,
        corpora=alone if asked.corpus is None else outside & {asked.corpus},
        rule=asked.rule,
        resamples=asked.bootstrap,
        seed=asked.seed,
        without={(board.key.simulated, board.key.judged_on) for board in boards},
        home=home,
    )
    if asked.rule == LIGHTS and not boards and outside:
        raise UserError(f"rule lights: {COUNTED}; rules are {RULES_IN_WORDS}")
    return boards


def assembled(store: Store, asked: Asked, selection: Selection, boards: tuple[Board, ...], across: Across) -> Report:
    """The report from its boards."""
    return Report(
        rule=asked.rule,
        everything=asked.everything,
        corpus=asked.corpus,
        bootstrap=asked.bootstrap,
        seed=asked.seed,
        submissions=submission_notes(selection),
        boards=boards,
        superseded=selection.superseded,
        cells=tuple(cell.summary for cell in selection.cells),
        recomputed=asked.rule not in RULES,
        nights=nights_notes(store, boards),
        across=across,
    )


def _kept_across(boards: Sequence[Board], kept: Path) -> Across:
    before = Kept(kept / ACROSS, Across)
    name = hash_of(boards)
    found = before.find(name)
    if found is None:
        found = before.keep(name, build_across(boards))
        before.forget_old()
    return found
