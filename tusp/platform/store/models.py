"""The tables of the SQL store. Every constraint is named, so migrations find it on both databases."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


def utc_now() -> datetime:
    """The current time in UTC, with its zone."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, always with its zone: SQLite forgets zones, so UTC goes in and comes out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value} has no time zone; the store keeps moments in UTC")
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy's own protocol)
        datetime: UtcDateTime,
        dict[str, Any]: JSON(none_as_null=True),
        list[Any]: JSON(none_as_null=True),
    }


class Corpus(Base):
    """A registered corpus: a folder, the adapter that reads it, and whether it is simulated."""

    __tablename__ = "corpora"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    adapter: Mapped[str] = mapped_column(String(64))
    root: Mapped[str] = mapped_column(Text)
    simulated: Mapped[bool]
    embedded: Mapped[bool] = mapped_column(default=False)
    """One of the simulated corpora that tusp makes itself when none is registered."""
    description: Mapped[str | None] = mapped_column(Text)
    """The TOML text of a corpus described by its owner (``--describe``)."""
    card: Mapped[dict[str, Any]]
    """Metadata as recorded when added: version, licence, access, citation, channel groups."""
    added_at: Mapped[datetime] = mapped_column(default=utc_now)
    recordings: Mapped[list[Recording]] = relationship(
        back_populates="corpus", cascade="all, delete-orphan", passive_deletes=True
    )


class Recording(Base):
    """One night of a registered corpus as the audit last saw it."""

    __tablename__ = "recordings"
    id: Mapped[int] = mapped_column(primary_key=True)
    corpus_name: Mapped[str] = mapped_column(ForeignKey("corpora.name", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(128))
    subject: Mapped[str] = mapped_column(String(128))
    usable: Mapped[bool]
    reason: Mapped[str | None] = mapped_column(Text)
    """Why the recording is refused; null exactly when it is usable."""
    audit: Mapped[dict[str, Any]]
    sources: Mapped[list[Any]]
    """``[{"path": relative to root, "size": bytes, "mtime_ns": int, "sha256": hex}, ...]``"""
    corpus: Mapped[Corpus] = relationship(back_populates="recordings")
    __table_args__ = (
        UniqueConstraint("corpus_name", "name"),
        CheckConstraint("usable = (reason IS NULL)", name="refused_has_reason"),
    )


class Submission(Base):
    """The cells that one ``tusp submit`` asked for."""

    __tablename__ = "submissions"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    finished_at: Mapped[datetime | None]
    state: Mapped[str] = mapped_column(String(16), default="running")
    """``running``, ``done``, ``failed`` (some cells failed), ``interrupted``, ``cancelled``."""
    request: Mapped[dict[str, Any]]
    """The resolved request: ablation, corpora, experiment, protocol, folds, seeds, recipe."""
    environment: Mapped[dict[str, Any]]
    simulated: Mapped[bool]
    refused: Mapped[list[Any]]
    """Recordings that could not be used: ``[{"corpus", "recording", "reason"}, ...]``."""
    process: Mapped[dict[str, Any]]
    """``{"host", "pid", "started"}`` of the driver."""
    members: Mapped[list[SubmissionCell]] = relationship(cascade="all, delete-orphan", passive_deletes=True)


class Cell(Base):
    """The unit of work: experiment x corpus set x fold x arm x seed. Done or not, never half."""

    __tablename__ = "cells"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Hash of ``plan`` (see tusp.jobs.plan): identical from the plan and from this record."""
    plan: Mapped[dict[str, Any]]
    experiment: Mapped[str] = mapped_column(String(16))
    corpus: Mapped[str] = mapped_column(String(200))
    """Corpora trained on, joined by '+'."""
    protocol: Mapped[str] = mapped_column(String(16))
    arm: Mapped[str] = mapped_column(String(64))
    fold: Mapped[int]
    folds: Mapped[int]
    seed: Mapped[int]
    recipe: Mapped[str] = mapped_column(String(32))
    split_hash: Mapped[str] = mapped_column(String(64))
    simulated: Mapped[bool]
    state: Mapped[str] = mapped_column(String(16), default="planned")
    """``planned``, ``running``, ``done``, ``failed``."""
    error: Mapped[str | None] = mapped_column(Text)
    claim: Mapped[dict[str, Any] | None]
    """Who runs it now: ``{"submission", "host", "pid", "started"}``; null when nobody does."""
    claim_token: Mapped[str | None] = mapped_column(String(64))
    heartbeat_at: Mapped[datetime | None]
    done_at: Mapped[datetime | None]
    result: Mapped[dict[str, Any] | None]
    """Summary of the done cell: parameters, training_seconds, passes, best_pass, validation scores."""
    settings: Mapped[str | None] = mapped_column(String(64))
    """Hash of the plan's model, channels and recipe (see tusp.platform.store.packed)."""
    judged: Mapped[dict[str, Any] | None]
    """``{corpus: {"tested": recordings, "trained": recordings, "names": hash of the tested ones}}``, from the plan."""
    __table_args__ = (
        Index(None, "corpus", "arm"),
        CheckConstraint("state IN ('planned', 'running', 'done', 'failed')", name="state_known"),
        CheckConstraint("(state = 'done') = (result IS NOT NULL)", name="done_has_result"),
    )


class SubmissionCell(Base):
    """Which cells a submission asked for; a cell may serve many submissions."""

    __tablename__ = "submission_cells"
    submission_id: Mapped[str] = mapped_column(ForeignKey("submissions.id", ondelete="CASCADE"), primary_key=True)
    cell_id: Mapped[str] = mapped_column(ForeignKey("cells.id"), primary_key=True)
    reused: Mapped[bool]
    """It was done before this submission."""
    __table_args__ = (Index(None, "cell_id"),)


class Attempt(Base):
    """One try at a cell. A cut attempt is continued from its checkpoint by the next."""

    __tablename__ = "attempts"
    id: Mapped[int] = mapped_column(primary_key=True)
    cell_id: Mapped[str] = mapped_column(ForeignKey("cells.id", ondelete="CASCADE"))
    number: Mapped[int]
    submission_id: Mapped[str] = mapped_column(ForeignKey("submissions.id", ondelete="CASCADE"))
    state: Mapped[str] = mapped_column(String(16), default="running")
    """``running``, ``done``, ``failed``, ``cut`` (its process died)."""
    started_at: Mapped[datetime] = mapped_column(default=utc_now)
    finished_at: Mapped[datetime | None]
    error: Mapped[str | None] = mapped_column(Text)
    resumed_from_pass: Mapped[int | None]
    environment: Mapped[dict[str, Any]]
    """Host, versions, hardware, threads, device and git state of the worker."""
    __table_args__ = (UniqueConstraint("cell_id", "number"),)


class Count(Base):
    """Confusion counts of one test recording, rule and channel choice: ``n_TRUE_PREDICTED`` epochs."""

    __tablename__ = "counts"
    cell_id: Mapped[str] = mapped_column(ForeignKey("cells.id", ondelete="CASCADE"), primary_key=True)
    corpus: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Corpus judged on."""
    recording: Mapped[str] = mapped_column(String(128), primary_key=True)
    rule: Mapped[str] = mapped_column(String(16), primary_key=True)
    channels: Mapped[str] = mapped_column(String(64), primary_key=True, default="vote")
    """``vote`` (sum of probabilities over all channel pairs) or the name of one choice."""
    subject: Mapped[str] = mapped_column(String(128))
    n_w_w: Mapped[int]
    n_w_n1: Mapped[int]
    n_w_n2: Mapped[int]
    n_w_n3: Mapped[int]
    n_w_rem: Mapped[int]
    n_n1_w: Mapped[int]
    n_n1_n1: Mapped[int]
    n_n1_n2: Mapped[int]
    n_n1_n3: Mapped[int]
    n_n1_rem: Mapped[int]
    n_n2_w: Mapped[int]
    n_n2_n1: Mapped[int]
    n_n2_n2: Mapped[int]
    n_n2_n3: Mapped[int]
    n_n2_rem: Mapped[int]
    n_n3_w: Mapped[int]
    n_n3_n1: Mapped[int]
    n_n3_n2: Mapped[int]
    n_n3_n3: Mapped[int]
    n_n3_rem: Mapped[int]
    n_rem_w: Mapped[int]
    n_rem_n1: Mapped[int]
    n_rem_n2: Mapped[int]
    n_rem_n3: Mapped[int]
    n_rem_rem: Mapped[int]


class NightSet(Base):
    """Recordings that were judged together, and whose they are: many cells judge the same ones."""

    __tablename__ = "night_sets"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Hash of ``nights``."""
    nights: Mapped[list[Any]]
    """``[[recording, subject], ...]`` by recording."""


class PackedCount(Base):
    """The rows of ``counts`` of one cell, corpus, rule and channels once more, as one array: reports read these."""

    __tablename__ = "packed_counts"
    cell_id: Mapped[str] = mapped_column(ForeignKey("cells.id", ondelete="CASCADE"), primary_key=True)
    corpus: Mapped[str] = mapped_column(String(64), primary_key=True)
    rule: Mapped[str] = mapped_column(String(16), primary_key=True)
    channels: Mapped[str] = mapped_column(String(64), primary_key=True)
    nights_id: Mapped[str] = mapped_column(ForeignKey("night_sets.id"))
    sha256: Mapped[str] = mapped_column(String(64))
    """Of ``matrices``."""
    matrices: Mapped[bytes] = mapped_column(LargeBinary)
    """[nights, 25] little-endian counts of two bytes each, or four where one does not fit into two."""


class Curve(Base):
    """One pass of one cell's training."""

    __tablename__ = "curves"
    cell_id: Mapped[str] = mapped_column(ForeignKey("cells.id", ondelete="CASCADE"), primary_key=True)
    pass_number: Mapped[int] = mapped_column(primary_key=True)
    train_loss: Mapped[float]
    learning_rate: Mapped[float]
    validation_loss: Mapped[float | None]
    validation_accuracy: Mapped[float | None]
    validation_macro_f1: Mapped[float | None]
    seconds: Mapped[float]


class Artefact(Base):
    """A kept file of a done cell, with the checksum it must still have."""

    __tablename__ = "artefacts"
    cell_id: Mapped[str] = mapped_column(ForeignKey("cells.id", ondelete="CASCADE"), primary_key=True)
    path: Mapped[str] = mapped_column(String(400), primary_key=True)
    """Relative to TUSP_HOME."""
    kind: Mapped[str] = mapped_column(String(32))
    """``predictions``, ``weights``, ``history``."""
    recording: Mapped[str | None] = mapped_column(String(128))
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int]


class Entry(Base):
    """A row of a board that no cell made: an imported submission, or one scorer against the consensus of the others.

    It was judged against one truth, known by the hash of its recordings' stages.
    """

    __tablename__ = "entries"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Hash of corpus, truth, kind and name."""
    corpus: Mapped[str] = mapped_column(String(64))
    truth_hash: Mapped[str] = mapped_column(String(64))
    truth_kind: Mapped[str] = mapped_column(String(16))
    """``corpus`` (a registered corpus), ``hypnograms`` or ``scorers`` (labels that lay apart)."""
    kind: Mapped[str] = mapped_column(String(16))
    """``imported`` or ``human``."""
    name: Mapped[str] = mapped_column(String(128))
    simulated: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    provenance: Mapped[dict[str, Any]]
    """Author, address, file format, SHA-256 over the files, coverage, refused files, what is odd."""
    protocols: Mapped[dict[str, Any]]
    """Figures that cannot be derived from counts, by protocol: ``{"dreem": {...}}``."""
    path: Mapped[str] = mapped_column(String(400))
    """The kept hypnograms, relative to TUSP_HOME."""
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int]
    __table_args__ = (
        UniqueConstraint("corpus", "truth_hash", "kind", "name"),
        CheckConstraint("kind IN ('imported', 'human')", name="kind_known"),
        CheckConstraint("truth_kind IN ('corpus', 'hypnograms', 'scorers')", name="truth_kind_known"),
    )


class EntryCount(Base):
    """Confusion counts of an entry in one recording under one rule; a recording that it does not cover has zeros."""

    __tablename__ = "entry_counts"
    entry_id: Mapped[str] = mapped_column(ForeignKey("entries.id", ondelete="CASCADE"), primary_key=True)
    recording: Mapped[str] = mapped_column(String(128), primary_key=True)
    rule: Mapped[str] = mapped_column(String(16), primary_key=True)
    subject: Mapped[str] = mapped_column(String(128))
    n_scored: Mapped[int]
    """Epochs that the truth scores under the rule; the counts add up to less where the entry covers less."""
    n_w_w: Mapped[int]
    n_w_n1: Mapped[int]
    n_w_n2: Mapped[int]
    n_w_n3: Mapped[int]
    n_w_rem: Mapped[int]
    n_n1_w: Mapped[int]
    n_n1_n1: Mapped[int]
    n_n1_n2: Mapped[int]
    n_n1_n3: Mapped[int]
    n_n1_rem: Mapped[int]
    n_n2_w: Mapped[int]
    n_n2_n1: Mapped[int]
    n_n2_n2: Mapped[int]
    n_n2_n3: Mapped[int]
    n_n2_rem: Mapped[int]
    n_n3_w: Mapped[int]
    n_n3_n1: Mapped[int]
    n_n3_n2: Mapped[int]
    n_n3_n3: Mapped[int]
    n_n3_rem: Mapped[int]
    n_rem_w: Mapped[int]
    n_rem_n1: Mapped[int]
    n_rem_n2: Mapped[int]
    n_rem_n3: Mapped[int]
    n_rem_rem: Mapped[int]


class KeptPart(Base):
    """A part of a report that was derived from this store, for whoever reports next; any row may be deleted."""

    __tablename__ = "kept_parts"
    name: Mapped[str] = mapped_column(String(80), primary_key=True)
    """Folder and name among what reports keep: the hash of all that it was derived from."""
    program: Mapped[str] = mapped_column(String(64))
    """Hash of the program that derived it."""
    made_at: Mapped[datetime] = mapped_column(default=utc_now)
    packed: Mapped[bytes] = mapped_column(LargeBinary)
    """The file, compressed by zlib."""


COUNT_COLUMNS = tuple(
    f"n_{true}_{predicted}" for true in ("w", "n1", "n2", "n3", "rem") for predicted in ("w", "n1", "n2", "n3", "rem")
)
"""The 25 count columns in row-major order (true stage by row, predicted by column)."""

BRIEF_COLUMNS = (
    "id", "experiment", "corpus", "protocol", "arm", "fold", "folds", "seed", "recipe", "split_hash", "simulated",
    "state", "error", "done_at", "result", "settings", "judged",
)  # fmt: skip
"""Columns of a cell that are read of tens of thousands of cells (:class:`tusp.platform.store.queries.BriefCell`)."""
