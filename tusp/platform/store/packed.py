"""What the store keeps beside plans and single counts, so that a report reads little.

A plan names everybody who is trained, validated and tested (some 80 kB with a thousand nights), and a cell has a row of
counts for each night and rule. A report needs neither by itself: of a plan what makes an arm that arm and how many
are tested where (``cells.settings``, ``cells.judged``), of the counts all matrices of a cell at once
(``packed_counts``), whose nights are those of many cells (``night_sets``). Everything here follows from plans and
counts: it is written in the same transaction, and ``tusp db check`` derives it again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import Select, insert, select
from sqlalchemy.orm import Session

from tusp.platform.errors import StoreError
from tusp.platform.identity import fingerprint
from tusp.platform.scoring.counts import Counts
from tusp.platform.stages import N_STAGES
from tusp.platform.store.models import COUNT_COLUMNS, Cell, Count, NightSet, PackedCount

VOTE: Final = "vote"
"""Channel choice that reports are about: probabilities summed over all channel pairs."""

_BATCH: Final = 500
_N_CELLS: Final = N_STAGES**2


@dataclass(frozen=True, kw_only=True)
class Nights:
    """Recordings that a cell judges together, by name, and whose they are. Equal when they are the same set."""

    id: str
    recordings: tuple[str, ...] = field(compare=False)
    subjects: tuple[str, ...] = field(compare=False)

    @classmethod
    def of(cls, owners: Mapping[str, str]) -> Nights:
        """A set of nights from recordings and their people."""
        names = sorted(owners)
        subjects = [owners[name] for name in names]
        found = cls(id="", recordings=tuple(names), subjects=tuple(subjects))
        return replace(found, id=fingerprint({"nights": found.pairs}))

    @property
    def pairs(self) -> list[list[str]]:
        """``[[recording, subject], ...]`` as the store has them."""
        return [list(pair) for pair in zip(self.recordings, self.subjects, strict=True)]

    @cached_property
    def names_hash(self) -> str:
        """Hash of the recordings' names, as ``cells.judged`` has it of a plan."""
        return names_hash(self.recordings)


@dataclass(frozen=True, kw_only=True, eq=False)
class Counted:
    """Counts of one cell on one corpus under one rule."""

    nights: Nights
    counts: npt.NDArray[np.unsignedinteger[Any]] | Counts
    """[n_nights, 5, 5] in the order of ``nights.recordings``."""


CountedCells = dict[tuple[str, str], Counted]
"""Counts by cell and corpus judged on."""


def names_hash(names: Iterable[str]) -> str:
    """Hash of a set of recordings."""
    return fingerprint({"recordings": sorted(names)})


def settings_hash(plan: Mapping[str, Any]) -> str:
    """Hash of what makes an arm that arm: model, input channels and recipe.

    Plans of before there were several families and choices of channels say neither; they mean TinyUStaging, and EEG
    with EOG unless the model has one channel.
    """
    model = dict(plan.get("model") or {})
    channels = ["EEG"] if model.get("n_channels") == 1 else ["EEG", "EOG"]
    return fingerprint(
        {
            "model": {"family": "tinyustaging", **model},
            "channels": list(plan.get("channels") or channels),
            "recipe": plan.get("recipe") or {},
        }
    )


def judged_parts(plan: Mapping[str, Any], corpus: str) -> dict[str, dict[str, Any]]:
    """What a plan says of the corpora that it is judged on, in its order.

    Args:
        plan: the plan of a cell.
        corpus: corpora trained on, joined by ``+``: they are judged on where a plan does not say.

    Returns:
        By corpus ``{"tested": recordings, "trained": recordings, "names": hash of the tested ones}``.
    """
    parts: Sequence[Mapping[str, Any]] = plan.get("corpora", ())
    by_name = {str(part["name"]): part for part in parts}
    named = plan.get("judged_on") or [name for name, part in by_name.items() if part.get("test")] or corpus.split("+")
    found = {}
    for item in [named] if isinstance(named, str) else named:
        name = str(item["name"]) if isinstance(item, Mapping) else str(item)
        part = by_name.get(name, {})
        tested, trained = part.get("test", {}), part.get("train", {})
        found[name] = {"tested": len(tested), "trained": len(trained), "names": names_hash(tested)}
    return found


def plan_columns(plan: Mapping[str, Any], corpus: str) -> dict[str, Any]:
    """The columns of a cell that follow from its plan."""
    return {"settings": settings_hash(plan), "judged": judged_parts(plan, corpus)}


def packed(matrices: npt.ArrayLike) -> bytes:
    """Counts [n, 5, 5] as bytes: little-endian, two bytes a count, four where one does not fit into two.

    Raises:
        ValueError: a count is negative or needs more than four bytes.
    """
    flat = np.asarray(matrices, dtype=np.int64).reshape(-1, _N_CELLS)
    if flat.size and (flat.min() < 0 or flat.max() >= 2**32):
        raise ValueError(f"counts run from {flat.min()} to {flat.max()}; they are whole numbers below 2^32")
    return flat.astype("<u2" if flat.max(initial=0) < 2**16 else "<u4").tobytes()


def unpacked(raw: bytes, n_nights: int) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Counts [n_nights, 5, 5] from :func:`packed`.

    Raises:
        StoreError: so many bytes are not the counts of so many nights.
    """
    width = len(raw) // (_N_CELLS * n_nights) if n_nights else 2
    if width not in (2, 4) or len(raw) != width * _N_CELLS * n_nights:
        raise StoreError(f"packed counts have {len(raw)} bytes for {n_nights} nights; run 'tusp db check'")
    return np.frombuffer(raw, dtype=f"<u{width}").reshape(n_nights, N_STAGES, N_STAGES)


Key = tuple[str, str, str, str]
"""Cell, corpus, rule, channels."""


def collected(rows: Iterable[Sequence[Any]]) -> dict[Key, Counted]:
    """Rows of counts (cell, corpus, recording, rule, channels, subject, 25 counts) put together by cell, corpus, rule
    and channels."""
    groups: dict[Key, list[Sequence[Any]]] = {}
    for row in rows:
        groups.setdefault((row[0], row[1], row[3], row[4]), []).append(row)
    found, sets = {}, {}
    for key, members in groups.items():
        members.sort(key=lambda row: row[2])
        owners = tuple((row[2], row[5]) for row in members)
        if owners not in sets:
            sets[owners] = Nights.of(dict(owners))
        counts = np.array([row[6:] for row in members], dtype=np.int64).reshape(-1, N_STAGES, N_STAGES)
        found[key] = Counted(nights=sets[owners], counts=counts)
    return found


def insert_of(session: Session) -> Any:
    """The ``insert`` of the database, which knows ``on_conflict_do_nothing``; the other's is never imported."""
    if session.get_bind().dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert as of_sqlite

        return of_sqlite
    from sqlalchemy.dialects.postgresql import insert as of_postgresql

    return of_postgresql


def keep_packed(session: Session, groups: Mapping[Key, Counted]) -> None:
    """Store counts once more as whole arrays, and their sets of nights unless they are there."""
    if not groups:
        return
    sets = {counted.nights.id: counted.nights for counted in groups.values()}
    session.execute(
        insert_of(session)(NightSet).on_conflict_do_nothing(index_elements=["id"]),
        [{"id": nights.id, "nights": nights.pairs} for nights in sets.values()],
    )
    session.execute(
        insert(PackedCount),
        [
            {
                "cell_id": cell_id,
                "corpus": corpus,
                "rule": rule,
                "channels": channels,
                "nights_id": counted.nights.id,
                "sha256": sha256(matrices).hexdigest(),
                "matrices": matrices,
            }
            for (cell_id, corpus, rule, channels), counted in groups.items()
            for matrices in [packed(counted.counts)]
        ],
    )


def count_rows(cells: Collection[str] | Select[Any]) -> Select[Any]:
    """The statement that reads rows of counts as :func:`collected` wants them."""
    columns = (Count.cell_id, Count.corpus, Count.recording, Count.rule, Count.channels, Count.subject)
    return select(*columns, *(getattr(Count, name) for name in COUNT_COLUMNS)).where(Count.cell_id.in_(cells))


OTHER_THAN_PLAN: Final = "what stands beside its plan does not follow from it"
"""What is said of a cell whose ``settings`` or ``judged`` are not those of its plan."""


def packed_problems(session: Session, cells: Sequence[str], counted: Mapping[Key, Counted]) -> dict[str, list[str]]:
    """What is wrong with the arrays that reports read, by cell: they must be the rows of counts once more.

    Args:
        session: a transaction.
        cells: ids.
        counted: their rows, put together.
    """
    wanted = (
        select(
            PackedCount.cell_id, PackedCount.corpus, PackedCount.rule, PackedCount.channels, PackedCount.nights_id,
            PackedCount.matrices, NightSet.nights, PackedCount.sha256,
        )
        .join(NightSet, NightSet.id == PackedCount.nights_id)
        .where(PackedCount.cell_id.in_(cells))
    )  # fmt: skip
    found: dict[str, list[str]] = {}
    there = set()
    for cell_id, corpus, rule, channels, nights_id, matrices, nights, digest in session.execute(wanted):
        key = (cell_id, corpus, rule, channels)
        there.add(key)
        rows = counted.get(key)
        if (
            rows is None
            or (nights_id, nights, matrices) != (rows.nights.id, rows.nights.pairs, packed(rows.counts))
            or digest != sha256(matrices).hexdigest()
        ):
            found.setdefault(cell_id, []).append(f"its packed counts of {corpus} under rule {rule} are not its counts")
    for cell_id, corpus, rule, _ in sorted(counted.keys() - there):
        found.setdefault(cell_id, []).append(f"its counts of {corpus} under rule {rule} are not packed")
    return found


def derived_problems(session: Session, cells: Sequence[str]) -> dict[str, list[str]]:
    """What reports read of some cells and does not follow from their plans and rows of counts, by cell."""
    found = packed_problems(session, cells, collected(tuple(row) for row in session.execute(count_rows(cells))))
    wanted = select(Cell.id, Cell.plan, Cell.corpus, Cell.settings, Cell.judged).where(Cell.id.in_(cells))
    for cell_id, plan, corpus, settings, judged in session.execute(wanted):
        if {"settings": settings, "judged": judged} != plan_columns(plan, corpus):
            found.setdefault(cell_id, []).append(OTHER_THAN_PLAN)
    return found


Mark = tuple[str, str]
"""What counts are known by: the id of their nights, and the SHA-256 of the packed array."""


def read_marks(
    session: Session,
    cells: Sequence[str],
    *,
    rule: str,
    corpus: str | None = None,
    there: Mapping[tuple[str, str], Mark] | None = None,
) -> dict[tuple[str, str], Mark]:
    """What the counts that :func:`read_counted` would give are known by; arguments as there.

    Args:
        there: by cell and corpus, those of all packed counts under the rule, where they were read just now.
    """
    found: dict[tuple[str, str], Mark] = {}
    if there is None:
        for batch in _batches(cells):
            wanted = _packed_of(batch, ("nights_id", "sha256"), rule=rule, corpus=corpus)
            found |= {(row[0], row[1]): (row[2], row[3]) for row in session.execute(wanted)}
    else:
        asked = set(cells)
        found = {
            key: mark for key, mark in there.items() if key[0] in asked and (corpus is None or key[1] == corpus)
        }  # fmt: skip
    packed_ones = {cell_id for cell_id, _ in found}
    lacking = [cell_id for cell_id in cells if cell_id not in packed_ones]
    single = _from_rows(session, lacking, rule=rule, corpus=corpus)
    return found | {
        key: (counted.nights.id, sha256(packed(counted.counts)).hexdigest()) for key, counted in single.items()
    }


def read_counted(session: Session, cells: Sequence[str], *, rule: str, corpus: str | None = None) -> CountedCells:
    """Counts of done cells under a rule, from the packed ones; of cells that have none, from their rows.

    Args:
        session: a transaction.
        cells: ids of cells; those that are not done are left out.
        rule: scoring rule that the cells counted.
        corpus: only what was judged on this corpus.
    """
    rows: list[tuple[str, str, str, bytes]] = []
    for batch in _batches(cells):
        wanted = _packed_of(batch, ("nights_id", "matrices"), rule=rule, corpus=corpus)
        rows += [(row[0], row[1], row[2], row[3]) for row in session.execute(wanted)]
    sets = _night_sets(session, sorted({row[2] for row in rows}))
    found = {
        (cell_id, name): Counted(nights=sets[nights], counts=unpacked(raw, len(sets[nights].recordings)))
        for cell_id, name, nights, raw in rows
    }
    there = {cell_id for cell_id, _ in found}
    lacking = [cell_id for cell_id in cells if cell_id not in there]
    return found | _from_rows(session, lacking, rule=rule, corpus=corpus)


def _batches(cells: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(cells), _BATCH):
        yield cells[start : start + _BATCH]


def _packed_of(cells: Sequence[str], columns: Iterable[str], *, rule: str, corpus: str | None) -> Select[Any]:
    # The tables themselves: tens of thousands of rows are plain tuples.
    table, cell = PackedCount.__table__.c, Cell.__table__.c
    wanted = (
        select(table.cell_id, table.corpus, *(table[name] for name in columns))
        .join(Cell.__table__, cell.id == table.cell_id)
        .where(table.cell_id.in_(cells), cell.state == "done")
        .where(table.rule == rule, table.channels == VOTE)
    )
    return wanted if corpus is None else wanted.where(table.corpus == corpus)


def _from_rows(session: Session, cells: Sequence[str], *, rule: str, corpus: str | None) -> CountedCells:
    """Counts of cells that have none packed."""
    found: CountedCells = {}
    for batch in _batches(cells):
        single = (
            count_rows(batch)
            .join(Cell, Cell.id == Count.cell_id)
            .where(Cell.state == "done", Count.rule == rule, Count.channels == VOTE)
        )
        if corpus is not None:
            single = single.where(Count.corpus == corpus)
        groups = collected(tuple(row) for row in session.execute(single))
        found |= {(key[0], key[1]): counted for key, counted in groups.items()}
    return found


def _night_sets(session: Session, ids: Sequence[str]) -> dict[str, Nights]:
    found = {}
    for start in range(0, len(ids), _BATCH):
        wanted = select(NightSet.id, NightSet.nights).where(NightSet.id.in_(ids[start : start + _BATCH]))
        for name, nights in session.execute(wanted):
            recordings, subjects = zip(*nights, strict=True) if nights else ((), ())
            found[name] = Nights(id=name, recordings=tuple(recordings), subjects=tuple(subjects))
    return found
