"""Entries: rows of boards that no cell made (imported submissions and human scorers)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "entries",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("corpus", sa.String(length=64), nullable=False),
        sa.Column("truth_hash", sa.String(length=64), nullable=False),
        sa.Column("truth_kind", sa.String(length=16), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("provenance", sa.JSON(), nullable=False),
        sa.Column("protocols", sa.JSON(), nullable=False),
        sa.Column("path", sa.String(length=400), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.CheckConstraint("kind IN ('imported', 'human')", name=op.f("ck_entries_kind_known")),
        sa.CheckConstraint(
            "truth_kind IN ('corpus', 'hypnograms', 'scorers')", name=op.f("ck_entries_truth_kind_known")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entries")),
        sa.UniqueConstraint(
            "corpus", "truth_hash", "kind", "name", name=op.f("uq_entries_corpus_truth_hash_kind_name")
        ),
    )
    op.create_table(
        "entry_counts",
        sa.Column("entry_id", sa.String(length=64), nullable=False),
        sa.Column("recording", sa.String(length=128), nullable=False),
        sa.Column("rule", sa.String(length=16), nullable=False),
        sa.Column("subject", sa.String(length=128), nullable=False),
        sa.Column("n_scored", sa.Integer(), nullable=False),
        sa.Column("n_w_w", sa.Integer(), nullable=False),
        sa.Column("n_w_n1", sa.Integer(), nullable=False),
        sa.Column("n_w_n2", sa.Integer(), nullable=False),
        sa.Column("n_w_n3", sa.Integer(), nullable=False),
        sa.Column("n_w_rem", sa.Integer(), nullable=False),
        sa.Column("n_n1_w", sa.Integer(), nullable=False),
        sa.Column("n_n1_n1", sa.Integer(), nullable=False),
        sa.Column("n_n1_n2", sa.Integer(), nullable=False),
        sa.Column("n_n1_n3", sa.Integer(), nullable=False),
        sa.Column("n_n1_rem", sa.Integer(), nullable=False),
        sa.Column("n_n2_w", sa.Integer(), nullable=False),
        sa.Column("n_n2_n1", sa.Integer(), nullable=False),
        sa.Column("n_n2_n2", sa.Integer(), nullable=False),
        sa.Column("n_n2_n3", sa.Integer(), nullable=False),
        sa.Column("n_n2_rem", sa.Integer(), nullable=False),
        sa.Column("n_n3_w", sa.Integer(), nullable=False),
        sa.Column("n_n3_n1", sa.Integer(), nullable=False),
        sa.Column("n_n3_n2", sa.Integer(), nullable=False),
        sa.Column("n_n3_n3", sa.Integer(), nullable=False),
        sa.Column("n_n3_rem", sa.Integer(), nullable=False),
        sa.Column("n_rem_w", sa.Integer(), nullable=False),
        sa.Column("n_rem_n1", sa.Integer(), nullable=False),
        sa.Column("n_rem_n2", sa.Integer(), nullable=False),
        sa.Column("n_rem_n3", sa.Integer(), nullable=False),
        sa.Column("n_rem_rem", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["entry_id"], ["entries.id"], name=op.f("fk_entry_counts_entry_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("entry_id", "recording", "rule", name=op.f("pk_entry_counts")),
    )
