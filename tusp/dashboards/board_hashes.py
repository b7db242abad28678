"""The hash of all that a board is made of: boards that were made before are known by it.

A board follows from its cells, their counts, the submissions that asked for them, the entries beside them, the rule and
the resampling, and from this program (:func:`tusp.dashboards.kept.program_hash`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tusp.dashboards.frames import BoardKey, ReportCell, Selection
from tusp.dashboards.kept import hash_of
from tusp.platform.scoring.rules import RULES
from tusp.platform.store.entries import EntryRecord, entry_counts, list_entries
from tusp.platform.store.packed import read_marks
from tusp.platform.store.session import Store
from tusp.platform.store.state_cells import marks_of_state
from tusp.platform.store.state_hash import ReportState


def board_hashes(
    store: Store,
    selection: Selection,
    places: Mapping[BoardKey, Sequence[ReportCell]],
    *,
    resamples: int,
    seed: int,
    state: ReportState | None = None,
) -> dict[BoardKey, str]:
    """Hash of everything that each board of a selection is made of.

    Args:
        store: the open store, which is asked for imported submissions and human scorers, and what counts are known by.
        selection: cells and submissions, under one of ``RULES``; its counts are not looked at.
        places: the cells of each board.
        resamples: of the bootstrap over people.
        seed: of the bootstrap and of drawn sign flips.
        state: rows that were read of the store for the same selection.
    """
    entries = _Entries(store, selection.rule)
    cells: dict[str, bytes] = {}
    done = [cell.summary.id for cell in selection.cells if cell.summary.state == "done"]
    corpora = {key.judged_on for key in places}
    one = corpora.pop() if len(corpora) == 1 else None
    there = None if state is None else marks_of_state(state)
    with store.reading() as session:
        marks = read_marks(session, done, rule=selection.rule, corpus=one, there=there)
    found = {}
    for key, of_board in places.items():
        parts: list[Any] = [key, selection.rule, resamples, seed]
        for cell in of_board:
            name = cell.summary.id
            if name not in cells:
                cells[name] = msgspec.msgpack.encode(cell.summary)
            parts.append(cells[name])
            parts.append(marks.get((name, key.judged_on)))
        parts.append([(name, selection.models[name]) for name in dict.fromkeys(c.summary.settings for c in of_board)])
        ids = [cell.summary.id for cell in of_board]
        for submission in selection.submissions:
            members = selection.members[submission.id]
            theirs = [place for place, name in enumerate(ids) if name in members]
            if theirs:
                parts.append((submission.id, submission.request, theirs))
        corpora = {key.judged_on, *key.trained_on.split("+")}
        refused = [item for submission in selection.submissions for item in submission.refused]
        parts.append(sorted({(i["corpus"], i["recording"], i["reason"]) for i in refused if i["corpus"] in corpora}))
        parts.append(entries.of(key.judged_on, simulated=key.simulated))
        found[key] = hash_of(parts)
    return found


class _Entries:
    """Everything that the store knows of imported submissions and human scorers, as bytes."""

    def __init__(self, store: Store, rule: str) -> None:
        self._store, self._rule = store, rule
        self._records: dict[tuple[str, bool], list[EntryRecord]] = {}
        for record in list_entries(store):
            self._records.setdefault((record.corpus, record.simulated), []).append(record)

    def of(self, corpus: str, *, simulated: bool) -> bytes:
        """Those of one corpus, with their counts; other rules than ``RULES`` are counted from their files, which have
        the checksums of their records or are refused."""
        records = self._records.get((corpus, simulated), [])
        ids = [record.id for record in records]
        counts = entry_counts(self._store, ids, rule=self._rule) if ids and self._rule in RULES else []
        return msgspec.msgpack.encode((records, counts))
