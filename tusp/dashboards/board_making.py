"""Making the boards of a report: those of its cells, several at a time, and those of entries alone."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Final

from tusp.dashboards.board_hashes import board_hashes
from tusp.dashboards.comparison import compare
from tusp.dashboards.frames import BoardKey, ReportCell, Selection, with_counts
from tusp.dashboards.guests import can_be_counted, guests
from tusp.dashboards.kept import Kept
from tusp.dashboards.leaderboard import OUTSIDE, Board, in_order, make_board, ranked
from tusp.dashboards.published import published_rows
from tusp.platform.errors import TuspError
from tusp.platform.scoring.rules import RULES
from tusp.platform.store.entries import list_entries
from tusp.platform.store.session import Store
from tusp.platform.store.state_hash import ReportState

BOARDS: Final = "boards"
"""Folder of boards among what is kept."""

FEWEST_APART: Final = 3
"""Boards from which on several processes are worth their start."""


def build_boards(
    store: Store,
    selection: Selection,
    *,
    resamples: int,
    seed: int,
    home: Path | None = None,
    processes: int = 1,
    kept: Path | None = None,
    state: ReportState | None = None,
) -> tuple[Board, ...]:
    """Every board of a selection, real ones first, then by what they are about; the store is asked for the imported
    submissions and human scorers of the same nights, ``home`` (TUSP_HOME) under other rules than ``RULES``.

    Args:
        processes: that make boards at the same time, forked from one that runs no other thread. The boards are the
            same.
        kept: folder of boards that were made before; those that are made now are kept there, and counts are
            read for them alone.
        state: rows that were read of the store for the same selection.
    """
    places = cells_of_boards(selection)

    order = sorted(places)
    if kept is None:
        make = partial(_board, store, places, selection, resamples, seed, home)
        return tuple(_made_of(order, make, store, processes))
    names = board_hashes(store, selection, places, resamples=resamples, seed=seed, state=state)
    before = Kept(kept / BOARDS, Board)
    boards = {key: there for key in order if (there := before.find(names[key])) is not None}
    lacking = [key for key in order if key not in boards]
    make = partial(_board, store, places, with_counts(store, selection, lacking), resamples, seed, home)
    for key, made in zip(lacking, _made_of(lacking, make, store, processes), strict=True):
        boards[key] = before.keep(names[key], made)
    if lacking:
        before.forget_old()
    return tuple(boards[key] for key in order)


def _board(
    store: Store,
    places: Mapping[BoardKey, Sequence[ReportCell]],
    selection: Selection,
    resamples: int,
    seed: int,
    home: Path | None,
    key: BoardKey,
) -> Board:
    return make_board(store, key, places[key], selection, resamples=resamples, seed=seed, home=home)


def cells_of_boards(selection: Selection) -> dict[BoardKey, list[ReportCell]]:
    """The cells of each board."""
    places: dict[BoardKey, list[ReportCell]] = {}
    for cell in selection.cells:
        for corpus in cell.judged_on:
            places.setdefault(cell.key(corpus), []).append(cell)
    return places


def _made_of(
    order: Sequence[BoardKey], make: Callable[[BoardKey], Board], store: Store, processes: int
) -> Sequence[Board]:
    processes = min(processes, len(order))
    # What is forked beside other threads may wait forever for a lock that one of them held.
    can_fork = "fork" in multiprocessing.get_all_start_methods() and threading.active_count() == 1
    if processes < 2 or len(order) < FEWEST_APART or not can_fork:
        return list(map(make, order))
    return _in_processes(store, make, order, processes)


_make: Callable[[BoardKey], Board] | None = None
"""What a forked process makes boards with."""


def _begin(make: Callable[[BoardKey], Board]) -> None:
    global _make
    _make = make


def _made(key: BoardKey) -> Board:
    assert _make is not None
    return _make(key)


def _in_processes(
    store: Store, make: Callable[[BoardKey], Board], order: Sequence[BoardKey], processes: int
) -> tuple[Board, ...]:
    """Forked processes see all that was read without a copy; what they make comes back through a pipe."""
    store.engine.dispose()  # a connection must not be used, or closed, by two processes
    forked = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, mp_context=forked, initializer=_begin, initargs=(make,)) as pool:
        try:
            return tuple(pool.map(_made, order))
        except BrokenProcessPool as error:
            raise TuspError("a process that made boards was killed (out of memory?); report fewer at once") from error


def outside_boards(
    store: Store,
    *,
    corpora: Collection[str],
    rule: str,
    resamples: int,
    seed: int,
    without: Collection[tuple[bool, str]],
    home: Path | None = None,
) -> tuple[Board, ...]:
    """Boards of imported submissions and human scorers on corpora that no cell of the report was judged on.

    Args:
        store: the open store.
        corpora: corpora to show.
        rule: scoring rule; one that entries cannot be counted under gives no board.
        resamples: of the bootstrap over people.
        seed: of the bootstrap and of drawn sign flips.
        without: (simulated, corpus) that have boards with cells.
        home: TUSP_HOME, where the hypnograms are kept.
    """
    found = sorted({(entry.simulated, entry.corpus) for entry in list_entries(store)})
    boards = []
    for simulated, corpus in found:
        if corpus not in corpora or (simulated, corpus) in without or not can_be_counted(rule, home):
            continue
        guest = guests(
            store, corpus=corpus, simulated=simulated, rule=rule, truth=None, taken=(), resamples=resamples, seed=seed,
            home=home,
        )  # fmt: skip
        compared = compare(guest.judged, seeded=(), resamples=resamples, seed=seed)
        boards.append(
            Board(
                key=BoardKey(
                    simulated=simulated,
                    experiment=OUTSIDE,
                    trained_on="",
                    judged_on=corpus,
                    protocol="",
                    folds=0,
                    recipe="",
                    split_hash="",
                ),
                rule=rule,
                rows=tuple(in_order([ranked(row, compared) for row in guest.rows], None)),
                contrasts=(),
                holes=(),
                refused=(),
                without_epochs=(),
                notes=(),
                pairs=compared.pairs,
                groups=compared.groups,
                compared_people=compared.people,
                published=published_rows(corpus, simulated, rule) if rule in RULES else (),
                ceiling=guest.ceiling.note if guest.ceiling else None,
            )
        )
    return tuple(boards)
