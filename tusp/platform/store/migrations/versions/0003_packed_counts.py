"""Counts once more as whole arrays, and what a report needs of a plan: reports of large stores read little."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STAGES = ("w", "n1", "n2", "n3", "rem")
COLUMNS = tuple(f"n_{true}_{predicted}" for true in STAGES for predicted in STAGES)
BATCH = 100


def upgrade() -> None:
    op.create_table(
        "night_sets",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("nights", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_night_sets")),
    )
    op.create_table(
        "packed_counts",
        sa.Column("cell_id", sa.String(length=64), nullable=False),
        sa.Column("corpus", sa.String(length=64), nullable=False),
        sa.Column("rule", sa.String(length=16), nullable=False),
        sa.Column("channels", sa.String(length=64), nullable=False),
        sa.Column("nights_id", sa.String(length=64), nullable=False),
        sa.Column("matrices", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["cell_id"], ["cells.id"], name=op.f("fk_packed_counts_cell_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["nights_id"], ["night_sets.id"], name=op.f("fk_packed_counts_nights_id")),
        sa.PrimaryKeyConstraint("cell_id", "corpus", "rule", "channels", name=op.f("pk_packed_counts")),
    )
    connection = op.get_bind()
    added = (
        sa.Column("settings", sa.String(length=64), nullable=True),
        sa.Column("judged", sa.JSON(), nullable=True),
    )
    # SQLite reads a row from its beginning: the long plan last, so that nobody who wants another column reads it.
    order: list[tuple[str, ...]] = [
        ("id", "experiment", "corpus", "protocol", "arm", "fold", "folds", "seed", "recipe", "split_hash", "simulated",
         "state", "error", "claim", "claim_token", "heartbeat_at", "done_at", "settings", "judged", "result", "plan"),
    ]  # fmt: skip
    recreate: Literal["always", "never"] = "always" if connection.dialect.name == "sqlite" else "never"
    with op.batch_alter_table("cells", recreate=recreate, partial_reordering=order) as cells:
        for column in added:
            cells.add_column(column)
    if connection.dialect.name == "postgresql":
        # Arrays of small numbers are read whole and often; taking them out of compression costs more than it saves.
        op.execute("ALTER TABLE packed_counts ALTER COLUMN matrices SET STORAGE EXTERNAL")
    _fill(connection)


def _fill(connection: sa.Connection) -> None:
    """Derive everything for the cells that are there; written out, so that it stays what it is now."""
    text = sa.String()
    cells = sa.table(
        "cells", sa.column("id", text), sa.column("plan", sa.JSON()), sa.column("corpus", text),
        sa.column("settings", text), sa.column("judged", sa.JSON()),
    )  # fmt: skip
    keys: list[sa.ColumnClause[Any]] = [
        sa.column(name) for name in ("cell_id", "corpus", "recording", "rule", "channels", "subject")
    ]
    counts = sa.table("counts", *keys, *(sa.column(name) for name in COLUMNS))
    night_sets = sa.table("night_sets", sa.column("id", text), sa.column("nights", sa.JSON()))
    packed_counts = sa.table(
        "packed_counts", *(sa.column(name) for name in ("cell_id", "corpus", "rule", "channels", "nights_id")),
        sa.column("matrices", sa.LargeBinary()),
    )  # fmt: skip
    known: set[str] = set()
    ids = list(connection.scalars(sa.select(cells.c.id).order_by(cells.c.id)))
    for start in range(0, len(ids), BATCH):
        batch = ids[start : start + BATCH]
        for cell_id, plan, corpus in connection.execute(
            sa.select(cells.c.id, cells.c.plan, cells.c.corpus).where(cells.c.id.in_(batch))
        ).all():
            connection.execute(
                sa.update(cells)
                .where(cells.c.id == cell_id)
                .values(settings=_settings(plan), judged=_judged(plan, corpus))
            )
        rows = connection.execute(sa.select(counts).where(counts.c.cell_id.in_(batch))).all()
        for key, nights, matrices in _groups([tuple(row) for row in rows]):
            digest = _fingerprint({"nights": nights})
            if digest not in known:
                known.add(digest)
                connection.execute(sa.insert(night_sets).values(id=digest, nights=nights))
            cell_id, corpus, rule, channels = key
            connection.execute(
                sa.insert(packed_counts).values(
                    cell_id=cell_id, corpus=corpus, rule=rule, channels=channels, nights_id=digest, matrices=matrices
                )
            )


def _groups(rows: list[tuple[Any, ...]]) -> Iterator[tuple[tuple[str, ...], list[list[str]], bytes]]:
    groups: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    for row in rows:
        groups.setdefault((row[0], row[1], row[3], row[4]), []).append(row)
    for key, members in groups.items():
        members.sort(key=lambda row: str(row[2]))
        flat = np.array([row[6:] for row in members], dtype=np.int64)
        raw = flat.astype("<u2" if flat.max(initial=0) < 2**16 else "<u4").tobytes()
        yield key, [[row[2], row[5]] for row in members], raw


def _settings(plan: Mapping[str, Any]) -> str:
    model = dict(plan.get("model") or {})
    channels = ["EEG"] if model.get("n_channels") == 1 else ["EEG", "EOG"]
    return _fingerprint(
        {
            "model": {"family": "tinyustaging", **model},
            "channels": list(plan.get("channels") or channels),
            "recipe": plan.get("recipe") or {},
        }
    )


def _judged(plan: Mapping[str, Any], corpus: str) -> dict[str, Any]:
    parts: Sequence[Mapping[str, Any]] = plan.get("corpora", ())
    by_name = {str(part["name"]): part for part in parts}
    named = [name for name, part in by_name.items() if part.get("test")] or corpus.split("+")
    found = {}
    for name in named:
        part = by_name.get(name, {})
        tested = sorted(part.get("test", {}))
        found[name] = {
            "tested": len(tested),
            "trained": len(part.get("train", {})),
            "names": _fingerprint({"recordings": tested}),
        }
    return found


def _fingerprint(value: Any) -> str:
    said = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(said.encode()).hexdigest()
