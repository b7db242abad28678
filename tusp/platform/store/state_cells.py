"""Cells and what their counts are known by, from the rows that were read for the hash of a report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from sqlalchemy import JSON

from tusp.platform.store.models import BRIEF_COLUMNS, Cell, UtcDateTime
from tusp.platform.store.packed import VOTE, Mark, plan_columns
from tusp.platform.store.queries import BriefCell, in_order
from tusp.platform.store.state_hash import PACKED_COLUMNS, ReportState

_TIMES: Final = tuple(name for name in BRIEF_COLUMNS if isinstance(Cell.__table__.c[name].type, UtcDateTime))
_JSON: Final = tuple(name for name in BRIEF_COLUMNS if isinstance(Cell.__table__.c[name].type, JSON))


def cells_of_state(state: ReportState, submissions: Sequence[str]) -> tuple[list[BriefCell], dict[str, frozenset[str]]]:
    """As :func:`tusp.platform.store.queries.brief_cells`, from rows that were read for these submissions."""
    members: dict[str, set[str]] = {name: set() for name in submissions}
    for name, cell_id in state.members:
        if name in members:
            members[name].add(cell_id)
    wanted = set().union(*members.values())
    cells = [_cell(row) for row in state.cells if row[0] in wanted]
    return in_order(cells), {name: frozenset(ids) for name, ids in members.items()}


def marks_of_state(state: ReportState) -> dict[tuple[str, str], Mark]:
    """By cell and corpus, what the packed counts of the vote are known by."""
    place = {name: PACKED_COLUMNS.index(name) for name in PACKED_COLUMNS}
    cell, corpus, channels = place["cell_id"], place["corpus"], place["channels"]
    nights, sha256 = place["nights_id"], place["sha256"]
    return {(row[cell], row[corpus]): (row[nights], row[sha256]) for row in state.packed if row[channels] == VOTE}


def _cell(row: Sequence[Any]) -> BriefCell:
    *columns, plan = row
    said = dict(zip(BRIEF_COLUMNS, columns, strict=True))
    for name in _JSON:
        if said[name] is not None:
            said[name] = msgspec.json.decode(said[name])
    for name in _TIMES:
        if said[name] is not None:
            moment = datetime.fromisoformat(said[name])  # SQLite keeps UTC without its zone
            said[name] = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if plan is not None:
        said |= plan_columns(msgspec.json.decode(plan), said["corpus"])
    return BriefCell(**said)
