"""Whether what reports keep is what would be made again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from tusp.dashboards.across import Across, build_across
from tusp.dashboards.asked import Asked, report_hash
from tusp.dashboards.board_hashes import board_hashes
from tusp.dashboards.board_making import BOARDS, cells_of_boards
from tusp.dashboards.extras import (
    CURVES,
    EXTRAS,
    Extras,
    Group,
    TrainingGroup,
    curves_hash,
    read_extras,
    trained_alike,
    training_groups,
)
from tusp.dashboards.frames import BoardKey
from tusp.dashboards.kept import Kept, hash_of
from tusp.dashboards.kept_texts import TEXTS, KeptText, text_hash
from tusp.dashboards.leaderboard import Board, make_board
from tusp.dashboards.lent import lent_names
from tusp.dashboards.render import render_report
from tusp.dashboards.report import (
    ACROSS,
    REPORTS,
    Report,
    assembled,
    selected,
    with_outside,
)
from tusp.platform.scoring.rules import RULES
from tusp.platform.store.entries import list_entries
from tusp.platform.store.queries import BriefCell
from tusp.platform.store.session import Store

OTHER_BOARD: Final = "is not the board {title!r} that it is kept for"
OTHER_ACROSS: Final = "is not what its boards give together"
OTHER_CURVES: Final = "has other training curves than the store"
OTHER_REPORT: Final = "is not the report that its boards and the store make"
OTHER_TEXT: Final = "is not the text of its report"
OTHER_EXTRAS: Final = "has other training curves or corpora than the store"
DELETE: Final = "delete it"
DELETE_BOTH: Final = "delete it and what the store lends: DELETE FROM kept_parts WHERE name = '{name}'"

_Kind = TypeVar("_Kind")


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
    texts, lent = Kept(folder / TEXTS, KeptText).all(), lent_names(store)
    for rule in RULES:
        asked = [Asked(submission=name, rule=rule) for name in submissions]
        if everything and submissions:
            asked.append(Asked(everything=True, rule=rule))
        for one in asked:
            check = _Check(store, folder, one, texts, lent)
            check.run()
            found += check.found
            lines += check.lines
    return found, list(dict.fromkeys(lines))


class _Check:
    """What is kept for one report, and for the reports of its single corpora."""

    def __init__(
        self, store: Store, folder: Path, asked: Asked, texts: Sequence[KeptText], lent: frozenset[str]
    ) -> None:
        self._lent = lent
        self._store, self._folder, self._asked = store, folder, asked
        self._selection = selected(store, asked, home=None, counted=True)
        self._places = cells_of_boards(self._selection)
        self._boards: dict[BoardKey, Board] = {}
        self._texts = texts
        self.found = 0
        self.lines: list[str] = []

    def run(self) -> None:
        """Look at everything."""
        names = board_hashes(self._store, self._selection, self._places, resamples=self._asked.bootstrap, seed=0)
        kept = Kept(self._folder / BOARDS, Board)
        there = []
        for key in sorted(self._places):
            board = self._compare(kept, names[key], partial(self._board, key), OTHER_BOARD)
            there += [] if board is None else [board]
        across = Kept(self._folder / ACROSS, Across)
        self._compare(across, hash_of(there), partial(build_across, there), OTHER_ACROSS)

        groups = trained_alike((cell.summary for cell in self._selection.cells), self._places)
        curves = Kept(self._folder / CURVES, TrainingGroup)
        for group, cells in groups.items():
            made = partial(self._group, group, cells)
            self._compare(curves, curves_hash(self._store, cells), made, OTHER_CURVES)

        judged = {key.judged_on for key in self._places} | {entry.corpus for entry in list_entries(self._store)}
        for corpus in (None, *sorted(judged)):
            self._report(replace(self._asked, corpus=corpus))

    def _group(self, group: Group, cells: Sequence[BriefCell]) -> TrainingGroup:
        return training_groups(self._store, {group: cells})[group]

    def _report(self, asked: Asked) -> None:
        name = report_hash(self._store, asked)
        if name is None:
            return
        again = cache(partial(self._assembled, asked, name))
        self._compare(Kept(self._folder / REPORTS, Report), name, lambda: replace(again(), cells=None), OTHER_REPORT)
        extras = Kept(self._folder / EXTRAS, Extras)
        beside = cache(lambda: replace(read_extras(self._store, again()), kept_as=name))
        self._compare(extras, name, beside, OTHER_EXTRAS)
        texts = Kept(self._folder / TEXTS, KeptText)
        for text in self._texts:
            if text.report == name:
                written = partial(self._written, text, again, beside)
                self._compare(texts, text_hash(name, text.format, text.look), written, OTHER_TEXT)

    @staticmethod
    def _written(text: KeptText, report: Callable[[], Report], extras: Callable[[], Extras]) -> KeptText:
        """The text as it is written now."""
        return replace(text, text=render_report(report(), text.format, extras=extras(), look=text.look))

    def _assembled(self, asked: Asked, name: str) -> Report:
        """The report as it is made now."""
        selection = selected(self._store, asked, home=None, counted=False)
        boards = tuple(self._board(key) for key in sorted(cells_of_boards(selection)))
        boards = with_outside(self._store, asked, selection, boards, home=None)
        return replace(assembled(self._store, asked, selection, boards, build_across(boards)), kept_as=name)

    def _board(self, key: BoardKey) -> Board:
        """The board as it is made now."""
        if key not in self._boards:
            self._boards[key] = make_board(
                self._store,
                key,
                self._places[key],
                self._selection,
                resamples=self._asked.bootstrap,
                seed=self._asked.seed,
                home=None,
            )
        return self._boards[key]

    def _compare(self, kept: Kept[_Kind], name: str, make: Callable[[], _Kind], otherwise: str) -> _Kind | None:
        """What is kept under a name, after it was compared with what is made now."""
        there = kept.find(name)
        if there is None:
            return None
        self.found += 1
        made = make()
        if not _same(there, made):
            path = kept.path(name)
            here = f"{path.parent.name}/{name}"
            advice = DELETE_BOTH.format(name=here) if here in self._lent else DELETE
            self.lines.append(f"{path}: {otherwise.format(title=getattr(made, 'title', ''))}; {advice}")
        return there


def _same(one: object, other: object) -> bool:
    """To the last bit, NaN like NaN."""
    return msgspec.msgpack.encode(one) == msgspec.msgpack.encode(other)
