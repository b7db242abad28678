"""The hash of every packed array beside it: reports know a board that they made before without reading its counts."""

from __future__ import annotations

import hashlib
from typing import Literal

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BATCH = 100


def upgrade() -> None:
    connection = op.get_bind()
    # SQLite reads a row from its beginning: the array last, so that nobody who wants its hash reads it.
    order: list[tuple[str, ...]] = [("cell_id", "corpus", "rule", "channels", "nights_id", "sha256", "matrices")]
    recreate: Literal["always", "never"] = "always" if connection.dialect.name == "sqlite" else "never"
    with op.batch_alter_table("packed_counts", recreate=recreate, partial_reordering=order) as packed:
        packed.add_column(sa.Column("sha256", sa.String(length=64), nullable=False, server_default=""))
    _fill(connection)
    with op.batch_alter_table("packed_counts", recreate="auto") as packed:
        packed.alter_column("sha256", existing_type=sa.String(length=64), server_default=None)


def _fill(connection: sa.Connection) -> None:
    names = ("cell_id", "corpus", "rule", "channels", "sha256")
    packed = sa.table("packed_counts", *map(sa.column, names), sa.column("matrices", sa.LargeBinary()))
    cells = list(connection.scalars(sa.select(packed.c.cell_id).distinct().order_by(packed.c.cell_id)))
    for start in range(0, len(cells), BATCH):
        wanted = sa.select(packed).where(packed.c.cell_id.in_(cells[start : start + BATCH]))
        rows = [
            {"of_cell": row.cell_id, "on": row.corpus, "under": row.rule, "with": row.channels,
             "hash": hashlib.sha256(row.matrices).hexdigest()}
            for row in connection.execute(wanted).all()
        ]  # fmt: skip
        if rows:
            connection.execute(
                sa.update(packed)
                .where(
                    packed.c.cell_id == sa.bindparam("of_cell"),
                    packed.c.corpus == sa.bindparam("on"),
                    packed.c.rule == sa.bindparam("under"),
                    packed.c.channels == sa.bindparam("with"),
                )
                .values(sha256=sa.bindparam("hash")),
                rows,
            )
