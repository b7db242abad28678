"""The registry of corpora: which folders are known, which adapter reads them, what their audit said."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import case, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from tusp.datasets.adapters import BUILT_IN, DESCRIBED, adapters, make_adapter
from tusp.datasets.audit import AUDIT_VERSION, Progress, RecordingAudit, audit_recordings, file_roles
from tusp.datasets.corpora.described import parse_description
from tusp.datasets.corpus_notes import audit_notes, shared_nights, stored_nights
from tusp.datasets.duplicates import Night, duplicate_lines, same_nights, shared_lines
from tusp.datasets.recording import Adapter, Discovery, RecordingFiles
from tusp.platform.errors import DataError, UserError
from tusp.platform.store import models
from tusp.platform.store.session import Store

__all__ = [
    "BUILT_IN",
    "CorpusAudit",
    "CorpusSummary",
    "NothingUsable",
    "Refresh",
    "adapter_for",
    "adapters",
    "add_corpus",
    "audit_notes",
    "corpus_audit",
    "get_corpus",
    "list_corpora",
    "recording_files",
    "recordings",
    "refresh_corpus",
    "remove_corpus",
    "shared_nights",
]

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VANISHED: Final = "vanished: its files are gone from the corpus's folder"
_DECIDES_READING: Final = ("adapter_code_version", "channel_groups", "label_map")
"""What of a card decides what the audit says."""
MOST_DESCRIPTION_BYTES: Final = 2**20


@dataclass(frozen=True, kw_only=True)
class CorpusAudit:
    """The audit of a registered corpus."""

    name: str
    adapter: str
    title: str
    root: Path
    simulated: bool
    embedded: bool
    recordings: Sequence[RecordingAudit]
    excluded: Sequence[str]
    """Nights that the description leaves out."""
    shared: Sequence[str] = ()
    """What it shares with other registered corpora, nights or people, a line for each."""

    @property
    def usable(self) -> list[RecordingAudit]:
        """Recordings that can be used."""
        return [row for row in self.recordings if row.usable]

    @property
    def refused(self) -> dict[str, str]:
        """Recordings that cannot be used, with the reason."""
        return {row.name: row.reason for row in self.recordings if row.reason is not None}


@dataclass(frozen=True, kw_only=True)
class CorpusSummary:
    """One row of ``tusp datasets list``."""

    name: str
    adapter: str
    title: str
    root: Path
    simulated: bool
    embedded: bool
    recordings: int
    """Usable recordings."""
    refused: int
    people: int
    """People with a usable recording."""
    hours: float
    """Hours of usable signal."""
    licence: str
    access: str
    added_at: datetime


@dataclass(frozen=True, kw_only=True)
class Refresh:
    """What changed on disk since the last audit, and the audit as it is now."""

    audit: CorpusAudit
    added: Sequence[str]
    changed: Sequence[str]
    vanished: Sequence[str]


class NothingUsable(UserError):  # noqa: N818  (it says what happened, like the errors it belongs to)
    """A folder in which every recording is refused; nothing was registered."""

    def __init__(self, message: str, refused: Mapping[str, str]) -> None:
        super().__init__(message)
        self.refused = dict(refused)


def adapter_for(corpus: models.Corpus) -> Adapter:
    """The adapter that reads a registered corpus.

    Raises:
        UserError: the plug-in that brought it is gone.
    """
    return make_adapter(corpus.adapter, corpus.name, corpus.description)


def recording_files(corpus: models.Corpus, recording: models.Recording) -> RecordingFiles:
    """Where the files of a registered recording are, as its adapter wants to be told.

    Raises:
        DataError: the audit found no signal file.
    """
    root = Path(corpus.root)
    paths = {
        role: root / source["path"]
        for source in recording.sources
        for role in (source["role"], *source.get("also", ()))
    }
    if "signals" not in paths:
        raise DataError(f"{corpus.name}/{recording.name}: {recording.reason or 'has no signal file'}")
    return RecordingFiles(
        name=recording.name,
        subject=recording.subject,
        signals=paths.pop("signals"),
        labels=paths.pop("labels", None),
        others=paths,
        simulated=corpus.simulated,
    )


def _read_description(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_DESCRIPTION_BYTES:
            raise UserError(f"{path}: larger than 1 MiB; not a description")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {(error.strerror or str(error)).lower()}; give a description in TOML") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8; give a description in TOML") from error


def _simulated(root: Path, discovery: Discovery) -> bool:
    """Whether the nights are simulated.

    Raises:
        UserError: some are and some are not.
    """
    flags = {recording.simulated for recording in discovery.recordings}
    if len(flags) > 1:
        raise UserError(f"{root}: mixes simulated and real nights; keep them in folders of their own")
    return flags == {True}


def _row(audit: RecordingAudit) -> models.Recording:
    return models.Recording(
        name=audit.name,
        subject=audit.subject,
        usable=audit.usable,
        reason=audit.reason,
        audit=audit.to_json(),
        sources=[dict(source) for source in audit.sources],
    )


def _audit_of(recording: models.Recording) -> RecordingAudit:
    return RecordingAudit.from_json(
        name=recording.name,
        subject=recording.subject,
        reason=recording.reason,
        audit=recording.audit,
        sources=recording.sources,
    )


def _corpus_audit(corpus: models.Corpus, rows: Sequence[RecordingAudit], shared: Sequence[str]) -> CorpusAudit:
    return CorpusAudit(
        name=corpus.name,
        adapter=corpus.adapter,
        title=corpus.card["title"],
        root=Path(corpus.root),
        simulated=corpus.simulated,
        embedded=corpus.embedded,
        recordings=tuple(sorted(rows, key=lambda row: row.name)),
        excluded=tuple(corpus.card.get("excluded", ())),
        shared=tuple(shared),
    )


def _night(corpus: str, adapter: str, real: bool, row: RecordingAudit) -> Night:
    return Night(
        corpus=corpus,
        name=row.name,
        subject=row.subject,
        adapter=adapter,
        real=real,
        published=adapter in BUILT_IN,
        sources=row.sources,
        content=row.content,
        stages=row.stages,
    )


def _nights_elsewhere(store: Store, corpus: str, *, real: bool) -> list[Night]:
    """Usable nights of all other corpora of the same kind; simulated and real ones have nothing in common."""
    with store.reading() as session:
        names = session.scalars(
            select(models.Corpus.name).where(models.Corpus.name != corpus, models.Corpus.simulated != real)
        )
        return stored_nights(session, list(names))


def _with_duplicates(
    corpus: models.Corpus, rows: Sequence[RecordingAudit], others: Sequence[Night]
) -> tuple[list[RecordingAudit], list[str]]:
    """The rows with what is said of nights that are there twice, and a line for each other corpus."""
    own = [
        _night(corpus.name, corpus.adapter, not corpus.simulated, row)
        for row in rows
        if row.sources and not (row.reason or "").endswith(_VANISHED)
    ]
    nights = [*own, *others]
    found = same_nights(nights)
    lines = duplicate_lines(found, corpus.name)
    shared = shared_lines(found, nights, of=corpus.name)
    return [replace(row, duplicates=tuple(lines.get(row.name, ()))) for row in rows], shared


def _card(adapter: Adapter, discovery: Discovery) -> dict[str, Any]:
    """The card as the store gives it back: lists where the adapter has tuples, so that the two can be compared."""
    card = {**asdict(adapter.card), "excluded": discovery.excluded, "adapter_code_version": adapter.code_version}
    stored: dict[str, Any] = json.loads(json.dumps(card))
    return stored


def add_corpus(
    store: Store,
    *,
    name: str,
    root: Path,
    adapter: str | None = None,
    describe: Path | None = None,
    embedded: bool = False,
    replace: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> CorpusAudit:
    """Register a folder of nights and audit every one.

    A registration of the same folder that is replaced lends its audit to nights whose files did not change; to have
    every file read again, remove it first.

    Args:
        store: where to register it.
        name: name of the registration.
        root: folder of the raw files; only ever read.
        adapter: adapter to read it with; default the one called ``name`` (or called so before ``-sim``).
        describe: description (TOML) of a corpus that has no adapter of its own.
        embedded: it is one of the corpora that tusp simulates itself.
        replace: take the place of a registration with this name.
        workers: processes for the audit; default one a core.
        progress: told after every recording.

    Raises:
        UserError: the name is taken or not a name, the folder is not readable or mixes simulated and real nights,
            the description is wrong.
        NothingUsable: no recording can be used; nothing was registered.
    """
    if _NAME.fullmatch(name) is None:
        raise UserError(f"{name!r} is not a name for a corpus; use small letters, digits, '.', '_' and '-'")
    description: str | None = None
    if describe is not None:
        if name == DESCRIBED or name in adapters():
            raise UserError(f"{name!r} is the name of a built-in corpus; give the described one another name")
        description = _read_description(describe)
        parse_description(description, str(describe))
        adapter = DESCRIBED
    elif adapter is None:
        adapter = name if name in adapters() else name.removesuffix("-sim")
    reader = make_adapter(adapter, name, description)
    root = root.expanduser().absolute()
    with store.reading() as session:
        old = session.get(models.Corpus, name)
        if old is not None and not replace:
            raise UserError(f"corpus {name!r} is already registered ({old.root}); --replace takes its place")
        same = old is not None and (old.root, old.adapter, old.description) == (str(root), adapter, description)
        before = _Before.of(old) if same else _Before()
        session.expunge_all()
    discovery = reader.discover(root)
    simulated = _simulated(root, discovery)
    kept, rows = _audited(reader, root, discovery, before, workers=workers, progress=progress)
    rows += kept.values()
    refused = {row.name: row.reason for row in rows if row.reason is not None}
    if len(refused) == len(rows):
        raise NothingUsable(f"{root}: none of {len(rows)} recordings can be used; nothing registered", refused)
    corpus = models.Corpus(
        name=name,
        adapter=adapter,
        root=str(root),
        simulated=simulated,
        embedded=embedded,
        description=description,
        card=_card(reader, discovery),
    )
    rows, shared = _with_duplicates(corpus, rows, _nights_elsewhere(store, name, real=not simulated))
    corpus.recordings = [_row(row) for row in rows]
    try:
        with store.session() as session:
            old = session.get(models.Corpus, name)
            if old is not None:
                if not replace:
                    raise UserError(f"corpus {name!r} was registered by somebody else meanwhile ({old.root})")
                session.delete(old)
                session.flush()
            session.add(corpus)
    except IntegrityError as error:
        raise UserError(f"corpus {name!r} was registered by somebody else meanwhile") from error
    return _corpus_audit(corpus, rows, shared)


@contextmanager
def _registered(store: Store, name: str, *, write: bool = False) -> Iterator[tuple[Session, models.Corpus]]:
    """A transaction with the corpus of that name."""
    with store.session() if write else store.reading() as session:
        corpus = session.get(models.Corpus, name)
        if corpus is None:
            names = list(session.scalars(select(models.Corpus.name).order_by(models.Corpus.name)))
            has = f"registered are {', '.join(names)}" if names else "none is registered yet"
            raise UserError(f"no corpus {name!r}; {has} (tusp datasets add CORPUS PATH)")
        yield session, corpus


def get_corpus(store: Store, name: str) -> models.Corpus:
    """The registration called ``name``, detached from the store; its recordings come from :func:`recordings`.

    Raises:
        UserError: there is none.
    """
    with _registered(store, name) as (session, corpus):
        session.expunge(corpus)
        return corpus


def recordings(store: Store, name: str) -> list[models.Recording]:
    """All recordings of a corpus, refused ones included, by name, detached from the store.

    Raises:
        UserError: no such corpus.
    """
    with _registered(store, name) as (session, corpus):
        rows = sorted(corpus.recordings, key=lambda row: row.name)
        session.expunge_all()
        return rows


def corpus_audit(store: Store, name: str) -> CorpusAudit:
    """The audit as it is stored.

    Raises:
        UserError: no such corpus.
    """
    with _registered(store, name) as (_, corpus):
        rows = [_audit_of(row) for row in corpus.recordings]
    others = _nights_elsewhere(store, name, real=not corpus.simulated)
    return _corpus_audit(corpus, *_with_duplicates(corpus, rows, others))


def list_corpora(store: Store) -> list[CorpusSummary]:
    """All registrations, by name. The database counts; no recording is loaded."""
    row = models.Recording
    counts = (
        select(
            row.corpus_name.label("corpus"),
            func.count().label("recordings"),
            func.count(case((row.usable, 1))).label("usable"),
            func.count(case((row.usable, row.subject)).distinct()).label("people"),
            func.sum(case((row.usable, row.audit["signal_hours"].as_float()), else_=0.0)).label("hours"),
        )
        .group_by(row.corpus_name)
        .subquery()
    )
    with store.reading() as session:
        found = session.execute(
            select(models.Corpus, counts)
            .outerjoin(counts, counts.c.corpus == models.Corpus.name)
            .order_by(models.Corpus.name)
        )
        return [
            CorpusSummary(
                name=corpus.name,
                adapter=corpus.adapter,
                title=corpus.card["title"],
                root=Path(corpus.root),
                simulated=corpus.simulated,
                embedded=corpus.embedded,
                recordings=usable or 0,
                refused=(recordings or 0) - (usable or 0),
                people=people or 0,
                hours=hours or 0.0,
                licence=corpus.card["licence"],
                access=corpus.card["access"],
                added_at=corpus.added_at,
            )
            for corpus, _, recordings, usable, people, hours in found
        ]


def remove_corpus(store: Store, name: str) -> None:
    """Forget a registration. Raw files, prepared data and recorded results stay.

    Raises:
        UserError: no such corpus.
    """
    with _registered(store, name, write=True) as (session, corpus):
        session.delete(corpus)


def _unchanged(root: Path, night: RecordingFiles, old: models.Recording) -> bool:
    """Whether the files of a usable night are, by size and times, the ones that were audited."""
    facts = {source["role"]: source for source in old.sources}
    files = file_roles(night)
    if (
        not old.usable
        or old.audit["version"] != AUDIT_VERSION
        or night.subject != old.subject
        or facts.keys() != {roles[0] for _, roles in files}
    ):
        return False
    for path, (role, *also) in files:
        if list(facts[role].get("also", ())) != also:
            return False
        try:
            status = path.stat()
        except OSError:
            return False
        seen = (path.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if seen != tuple(facts[role].get(key) for key in ("path", "size", "mtime_ns", "ctime_ns")):
            return False
    return True


@dataclass(frozen=True, kw_only=True)
class _Before:
    """What was stored of a corpus when it was looked at last."""

    card: Mapping[str, Any] = field(default_factory=dict)
    rows: Mapping[str, models.Recording] = field(default_factory=dict)

    @classmethod
    def of(cls, corpus: models.Corpus | None) -> _Before:
        return cls() if corpus is None else cls(card=corpus.card, rows={row.name: row for row in corpus.recordings})


def _audited(
    adapter: Adapter,
    root: Path,
    discovery: Discovery,
    before: _Before,
    *,
    workers: int | None,
    progress: Progress | None,
) -> tuple[dict[str, RecordingAudit], list[RecordingAudit]]:
    """Rows that are kept, since nothing about their files and their adapter changed; and the others, audited now."""
    now = _card(adapter, discovery)
    same_reading = all(before.card.get(key) == now[key] for key in _DECIDES_READING)
    kept = {
        night.name: _audit_of(before.rows[night.name])
        for night in discovery.recordings
        if same_reading and night.name in before.rows and _unchanged(root, night, before.rows[night.name])
    }
    todo = Discovery(
        recordings=[night for night in discovery.recordings if night.name not in kept],
        refused=discovery.refused,
        excluded=discovery.excluded,
    )
    known = {name: row.sources for name, row in before.rows.items()}
    return kept, audit_recordings(adapter, root, todo, known=known, workers=workers, progress=progress)


def refresh_corpus(store: Store, name: str, *, workers: int | None = None, progress: Progress | None = None) -> Refresh:
    """Look at the folder again: audit what is new or changed, refuse what vanished, leave the rest as it is.

    Raises:
        UserError: no such corpus; its folder is not readable; its nights were real and are simulated now, or the
            other way round. The registration is then as it was.
    """
    corpus = get_corpus(store, name)
    old = {row.name: row for row in recordings(store, name)}
    adapter = adapter_for(corpus)
    root = Path(corpus.root)
    discovery = adapter.discover(root)
    if discovery.recordings and _simulated(root, discovery) != corpus.simulated:
        was, now = ("simulated", "real") if corpus.simulated else ("real", "simulated")
        raise UserError(f"{root}: nights of {name!r} were {was} and are {now} now; add it anew with --replace")
    kept, rows = _audited(
        adapter, root, discovery, _Before(card=corpus.card, rows=old), workers=workers, progress=progress
    )
    seen = {*kept, *(row.name for row in rows), *discovery.excluded}
    vanished = [row for row in old.values() if row.name not in seen]
    for row in vanished:
        audit = _audit_of(row)
        rows.append(replace(audit, reason=f"{root / row.name}: {_VANISHED}"))
    others = _nights_elsewhere(store, name, real=not corpus.simulated)
    audits, shared = _with_duplicates(corpus, [*kept.values(), *rows], others)
    card = _card(adapter, discovery)
    if card != corpus.card or any(row.name not in old or not _same(old[row.name], row) for row in audits):
        with _registered(store, name, write=True) as (session, current):
            current.card = card
            by_name = {row.name: row for row in current.recordings}
            for audit in audits:
                _update(current, by_name.pop(audit.name, None), audit)
            for leftover in by_name.values():
                session.delete(leftover)
    corpus.card = card
    return Refresh(
        audit=_corpus_audit(corpus, audits, shared),
        added=tuple(row.name for row in audits if row.name not in old),
        changed=tuple(row.name for row in rows if row.name in old and _hashes(old[row.name]) != _hashes(row)),
        vanished=tuple(row.name for row in vanished if not (row.reason or "").endswith(_VANISHED)),
    )


def _hashes(row: models.Recording | RecordingAudit) -> list[str]:
    return [source["sha256"] for source in row.sources]


def _same(old: models.Recording, new: RecordingAudit) -> bool:
    return (old.subject, old.reason, old.audit, old.sources) == (
        new.subject,
        new.reason,
        new.to_json(),
        [dict(source) for source in new.sources],
    )


def _update(corpus: models.Corpus, row: models.Recording | None, audit: RecordingAudit) -> None:
    if row is None:
        corpus.recordings.append(_row(audit))
    elif not _same(row, audit):
        row.subject, row.usable, row.reason = audit.subject, audit.usable, audit.reason
        row.audit, row.sources = audit.to_json(), [dict(source) for source in audit.sources]
