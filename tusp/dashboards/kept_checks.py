"""Whether what reports keep is what would be made again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from tusp.dashboards.across import Across, build_across
from tusp.dashboards.board_hashes import board_hashes
from tusp.dashboards.board_making import BOARDS, cells_of_boards
from tusp.dashboards.extras import CURVES, TrainingGroup, curves_hash, trained_alike, training_groups
from tusp.dashboards.frames import Selection, select_results
from tusp.dashboards.kept import Kept, hash_of
from tusp.dashboards.leaderboard import Board, make_board
from tusp.dashboards.report import ACROSS, BOOTSTRAP
from tusp.platform.scoring.rules import RULES
from tusp.platform.store.session import Store


def check_kept(store: Store, folder: Path, *, submissions: Sequence[str], everything: bool) -> tuple[int, list[str]]:
    """Make again what reports of these submissions would find.

    Args:
        store: only read.
        folder: what is kept.
        submissions: ids.
        everything: the report of all submissions too.

    Returns:
        How much was found, and one line for what is not what it should be.
    """
    found, lines = 0, []
    for rule in RULES:
        selections = [select_results(store, submission=name, rule=rule) for name in submissions]
        if everything and submissions:
            selections.append(select_results(store, everything=True, rule=rule))
        for selection in selections:
            there, wrong = _check(store, folder, selection)
            found += there
            lines += wrong
    return found, list(dict.fromkeys(lines))


def _check(store: Store, folder: Path, selection: Selection) -> tuple[int, list[str]]:
    places = cells_of_boards(selection)
    names = board_hashes(store, selection, places, resamples=BOOTSTRAP, seed=0)
    kept, boards, lines = Kept(folder / BOARDS, Board), [], []
    found = 0
    for key in sorted(places):
        there = kept.find(names[key])
        if there is None:
            continue
        found += 1
        boards.append(there)
        made = make_board(store, key, places[key], selection, resamples=BOOTSTRAP, seed=0, home=None)
        if not _same(there, made):
            lines.append(f"{kept.path(names[key])}: is not the board {made.title!r} that it is kept for; delete it")
    together = Kept(folder / ACROSS, Across)
    across = together.find(hash_of(boards))
    if across is not None:
        found += 1
        if not _same(across, build_across(boards)):
            lines.append(f"{together.path(hash_of(boards))}: is not what its boards give together; delete it")
    groups = trained_alike((cell.summary for cell in selection.cells), places)
    curves = Kept(folder / CURVES, TrainingGroup)
    for group, made_now in training_groups(store, groups).items():
        name = curves_hash(store, groups[group])
        drawn = curves.find(name)
        if drawn is not None:
            found += 1
            if not _same(drawn, made_now):
                lines.append(f"{curves.path(name)}: has other training curves than the store; delete it")
    return found, lines


def _same(one: object, other: object) -> bool:
    """To the last bit, NaN like NaN."""
    return msgspec.msgpack.encode(one) == msgspec.msgpack.encode(other)
