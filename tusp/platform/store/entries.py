"""Entries: rows of boards that no cell made. Imported submissions, and human scorers against one another.

An entry has a row in ``entries``, counts in ``entry_counts`` and one file with its hypnograms and the truth they were
judged against, so that everything can be derived again without the files it came from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from tusp.platform.errors import DataError, StoreError, UserError
from tusp.platform.files import disk_errors_named, write_text_atomic
from tusp.platform.identity import file_sha256, fingerprint
from tusp.platform.scoring.counts import Counts, confusion
from tusp.platform.scoring.rules import RULES, rule_mask
from tusp.platform.stages import N_STAGES, UNSCORED
from tusp.platform.store.models import COUNT_COLUMNS, Entry, EntryCount
from tusp.platform.store.queries import same_named
from tusp.platform.store.session import Store

KINDS: Final = ("imported", "human")
TRUTH_KINDS: Final = ("corpus", "hypnograms", "scorers")
KEPT_SCHEMA: Final = 1
_BATCH: Final = 200

Stages = npt.NDArray[np.int8]


@dataclass(frozen=True, kw_only=True, eq=False)
class EntryNight:
    """One recording of an entry, both hypnograms over the span that the truth labels."""

    recording: str
    subject: str
    true: Stages
    """int8 [n_epochs], -1 where the truth does not score."""
    predicted: Stages | None
    """int8 [n_epochs], -1 where the entry says nothing; None where it lacks the recording."""
    agreeing: tuple[int, ...] | None = None
    """How many scorers gave the truth's stage in each epoch, where the truth is a consensus."""
    voters: int | None = None
    """How many scorers the truth is the consensus of."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NewEntry:
    """An entry before it is stored."""

    corpus: str
    truth_hash: str
    truth_kind: str
    kind: str
    name: str
    simulated: bool
    provenance: Mapping[str, Any]
    protocols: Mapping[str, Any]
    nights: Sequence[EntryNight]

    @property
    def id(self) -> str:
        """Hash of corpus, truth, kind and name."""
        return entry_id(corpus=self.corpus, truth_hash=self.truth_hash, kind=self.kind, name=self.name)


@dataclass(frozen=True, kw_only=True)
class EntryRecord:
    """A stored entry without its counts."""

    id: str
    corpus: str
    truth_hash: str
    truth_kind: str
    kind: str
    name: str
    simulated: bool
    created_at: datetime
    provenance: Mapping[str, Any]
    protocols: Mapping[str, Any]
    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class EntryCounts:
    """Counts of one recording of an entry under one rule."""

    entry_id: str
    recording: str
    subject: str
    n_scored: int
    """Epochs that the truth scores under the rule."""
    counts: tuple[int, ...]
    """The 25 columns, true stage by row."""


def entry_id(*, corpus: str, truth_hash: str, kind: str, name: str) -> str:
    """What an entry is known by: 64 hexadecimal digits."""
    return fingerprint({"entry": 1, "corpus": corpus, "truth": truth_hash, "kind": kind, "name": name})


def truth_hash(stages: Mapping[str, npt.ArrayLike]) -> str:
    """Hash of a truth: recordings and their stages from the first to the last scored epoch.

    Unscored epochs before and after do not count, so the same labels have the same hash whether they were read on the
    grid of a signal or from a list that lies apart.
    """
    digests = {}
    for recording, codes in stages.items():
        array = np.asarray(codes, dtype=np.int8)
        scored = np.flatnonzero(array != UNSCORED)
        kept = array[scored[0] : scored[-1] + 1] if scored.size else array[:0]
        digests[recording] = hashlib.sha256(kept.tobytes()).hexdigest()
    return fingerprint({"truth": 1, "recordings": digests})


def counts_by_rule(night: EntryNight) -> dict[str, tuple[Counts, int]]:
    """:func:`counts_under` every rule that is counted when an entry is stored."""
    return {rule: counts_under(night, rule) for rule in RULES}


def counts_under(night: EntryNight, rule: str) -> tuple[Counts, int]:
    """Counts [5, 5] under a rule, and how many epochs the truth scores under it.

    Which epochs a rule judges is decided by the truth alone. An epoch without a prediction is not counted: it is
    neither right nor wrong, but missing from the coverage.

    Raises:
        ValueError: the hypnograms differ in length or hold a code outside the set; no such rule, or ``lights``, which
            are not kept with entries.
    """
    true = np.where(rule_mask(night.true, rule), night.true, UNSCORED)
    n_scored = int((true != UNSCORED).sum())
    if night.predicted is None:
        return np.zeros((N_STAGES, N_STAGES), dtype=np.int64), n_scored
    if len(night.predicted) == len(true):
        true = np.where(night.predicted == UNSCORED, UNSCORED, true)
    return confusion(true, night.predicted), n_scored


def add_entries(store: Store, home: Path, entries: Sequence[NewEntry], *, replace: bool = False) -> list[str]:
    """Store entries with their counts and hypnograms, all in one transaction; returns their ids.

    A human entry that is there already is left as it is when it says the same, and replaced when it does not.

    Args:
        store: the open store.
        home: TUSP_HOME; the hypnograms are kept below ``entries``.
        entries: what to store.
        replace: imported entries take the place of those of the same name.

    Raises:
        UserError: an imported entry of that name exists, these nights were judged as simulated before and are real
            now (or the other way round), or the disk does not take the files.
    """
    kept: dict[str, tuple[str, str, int]] = {}
    written: list[Path] = []
    stale: list[str] = []
    try:
        for entry in entries:
            kept[entry.id] = _keep(home, entry, written)
        with store.session() as session:
            for entry in entries:
                old = session.get(Entry, entry.id)
                _check_kind_of_nights(session, entry)
                path, digest, size = kept[entry.id]
                if old is not None:
                    if entry.kind == "imported" and not replace:
                        raise UserError(_exists(entry))
                    if entry.kind == "human" and (old.sha256, old.path) == (digest, path):
                        continue
                    stale.append(old.path)
                    session.execute(delete(Entry).where(Entry.id == entry.id))
                    session.expunge(old)
                session.execute(insert(Entry), [_entry_values(entry, path, digest, size)])
                session.execute(insert(EntryCount), _count_values(entry))
    except IntegrityError as error:
        raise UserError(f"{_exists(entries[0])} (somebody else stored it meanwhile)") from error
    except BaseException:
        for file in written:
            file.unlink(missing_ok=True)
        raise
    for path in set(stale) - {path for path, _, _ in kept.values()}:
        (home / path).unlink(missing_ok=True)
    return [entry.id for entry in entries]


def check_name_is_free(store: Store, *, corpus: str, truth_hash: str, name: str) -> None:
    """Refuse early what :func:`add_entries` would refuse.

    Raises:
        UserError: an imported entry of that name exists for this truth.
    """
    wanted = entry_id(corpus=corpus, truth_hash=truth_hash, kind="imported", name=name)
    with store.reading() as session:
        if session.get(Entry, wanted) is not None:
            raise UserError(f"{name!r} is on the board of {corpus} already; choose another --name, or --replace it")


def list_entries(store: Store, *, corpus: str | None = None, simulated: bool | None = None) -> list[EntryRecord]:
    """Stored entries by corpus, kind, name and age, oldest first."""
    wanted = select(Entry).order_by(Entry.corpus, Entry.kind, Entry.name, Entry.created_at, Entry.id)
    if corpus is not None:
        wanted = wanted.where(Entry.corpus == corpus)
    if simulated is not None:
        wanted = wanted.where(Entry.simulated == simulated)
    with store.reading() as session:
        return [same_named(EntryRecord, row) for row in session.scalars(wanted)]


def entry_counts(store: Store, ids: Sequence[str], *, rule: str) -> list[EntryCounts]:
    """Counts of entries under one rule, by entry and recording."""
    columns = [getattr(EntryCount, name) for name in COUNT_COLUMNS]
    keys = (EntryCount.entry_id, EntryCount.recording, EntryCount.subject, EntryCount.n_scored)
    rows: list[EntryCounts] = []
    with store.reading() as session:
        for start in range(0, len(ids), _BATCH):
            wanted = select(*keys, *columns).where(
                EntryCount.entry_id.in_(ids[start : start + _BATCH]), EntryCount.rule == rule
            )
            rows += [
                EntryCounts(entry_id=row[0], recording=row[1], subject=row[2], n_scored=row[3], counts=tuple(row[4:]))
                for row in session.execute(wanted)
            ]
    return sorted(rows, key=lambda row: (row.entry_id, row.recording))  # the database's own order differs


def read_kept(home: Path, record: EntryRecord) -> list[EntryNight]:
    """The kept hypnograms of an entry, after its checksum was compared.

    Raises:
        DataError: the file is gone, was changed, or is not what was kept.
    """
    path = home / record.path
    try:
        raw = path.read_bytes()
    except OSError as error:
        reason = "is gone" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise DataError(f"{record.path} {reason}") from error
    if len(raw) != record.size_bytes or hashlib.sha256(raw).hexdigest() != record.sha256:
        raise DataError(f"{record.path} has changed (its checksum differs)")
    content = json.loads(raw)
    return [
        EntryNight(
            recording=recording,
            subject=night["subject"],
            true=np.array(night["true"], dtype=np.int8),
            predicted=None if night["predicted"] is None else np.array(night["predicted"], dtype=np.int8),
            agreeing=tuple(night["agreeing"]) if "agreeing" in night else None,
            voters=night.get("voters"),
        )
        for recording, night in sorted(content["recordings"].items())
    ]


def counts_from_kept(home: Path, record: EntryRecord, *, rule: str) -> list[EntryCounts]:
    """Counts of an entry under any rule but ``lights``, made from its kept hypnograms, by recording.

    Raises:
        DataError: the file is gone, was changed, or does not hold hypnograms.
    """
    found = []
    for night in read_kept(home, record):
        try:
            counts, n_scored = counts_under(night, rule)
        except ValueError as error:
            raise DataError(f"{record.path}: {night.recording} cannot be counted ({error})") from error
        row = EntryCounts(
            entry_id=record.id,
            recording=night.recording,
            subject=night.subject,
            n_scored=n_scored,
            counts=tuple(int(n) for n in counts.ravel()),
        )
        found.append(row)
    return found


def verify_entries(store: Store, home: Path) -> list[str]:
    """Derive everything that is stored about entries again from their kept files; one line for what does not hold."""
    problems: list[str] = []
    for record in list_entries(store):
        where = f"entry {record.name!r} of {record.corpus} ({record.kind})"
        wanted = entry_id(corpus=record.corpus, truth_hash=record.truth_hash, kind=record.kind, name=record.name)
        if record.id != wanted:
            problems.append(f"{where}: its id is not the hash of what it is")
        try:
            nights = read_kept(home, record)
        except DataError as error:
            problems.append(f"{where}: {error}")
            continue
        if record.kind == "imported" and truth_hash({n.recording: n.true for n in nights}) != record.truth_hash:
            problems.append(f"{where}: the truth in {record.path} is not the one it was judged against")
        derived = {night.recording: (night.subject, counts_by_rule(night)) for night in nights}
        for rule in RULES:
            stored = {row.recording: row for row in entry_counts(store, [record.id], rule=rule)}
            if stored.keys() != derived.keys():
                problems.append(f"{where}: counts under rule {rule} are not of the recordings in {record.path}")
                continue
            wrong = [
                name
                for name, row in stored.items()
                if (row.subject, row.n_scored, row.counts)
                != (
                    derived[name][0],
                    derived[name][1][rule][1],
                    tuple(int(n) for n in derived[name][1][rule][0].ravel()),
                )
            ]
            if wrong:
                problems.append(
                    f"{where}: counts under rule {rule} do not follow from its hypnograms: {', '.join(sorted(wrong))}"
                )
    return problems


def _keep(home: Path, entry: NewEntry, written: list[Path]) -> tuple[str, str, int]:
    """Write the hypnograms unless they are there; returns path below the home, SHA-256 and size.

    The name holds the beginning of the checksum, so an entry that is replaced keeps its file until the store has the
    new row, whatever happens in between.
    """
    recordings = {}
    for night in entry.nights:
        kept: dict[str, Any] = {
            "subject": night.subject,
            "true": night.true.tolist(),
            "predicted": None if night.predicted is None else night.predicted.tolist(),
        }
        if night.agreeing is not None:
            kept |= {"agreeing": list(night.agreeing), "voters": night.voters}
        recordings[night.recording] = kept
    content = {
        "schema": KEPT_SCHEMA,
        "corpus": entry.corpus,
        "kind": entry.kind,
        "name": entry.name,
        "truth": entry.truth_hash,
        "recordings": recordings,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n"
    raw = text.encode()
    digest = hashlib.sha256(raw).hexdigest()
    path = PurePosixPath("entries") / entry.id / f"hypnograms-{digest[:12]}.json"
    with disk_errors_named("entry", home):
        if not (home / path).exists() or file_sha256(home / path) != digest:
            write_text_atomic(home / path, text)
            written.append(home / path)
    return str(path), digest, len(raw)


def _check_kind_of_nights(session: Session, entry: NewEntry) -> None:
    other = session.scalar(
        select(Entry.name).where(Entry.truth_hash == entry.truth_hash, Entry.simulated != entry.simulated).limit(1)
    )
    if other is not None:
        said, now = ("real", "simulated") if entry.simulated else ("simulated", "real")
        raise UserError(f"{entry.corpus}: {other!r} was judged on these same nights as {said} ones, not as {now} ones")


def _exists(entry: NewEntry) -> str:
    return f"{entry.name!r} is on the board of {entry.corpus} already; choose another --name, or --replace it"


def _entry_values(entry: NewEntry, path: str, digest: str, size: int) -> dict[str, Any]:
    if entry.kind not in KINDS or entry.truth_kind not in TRUTH_KINDS:
        raise StoreError(f"an entry of kind {entry.kind!r} on a truth of kind {entry.truth_kind!r}")
    return {
        "id": entry.id,
        "corpus": entry.corpus,
        "truth_hash": entry.truth_hash,
        "truth_kind": entry.truth_kind,
        "kind": entry.kind,
        "name": entry.name,
        "simulated": entry.simulated,
        "provenance": dict(entry.provenance),
        "protocols": dict(entry.protocols),
        "path": path,
        "sha256": digest,
        "size_bytes": size,
    }


def _count_values(entry: NewEntry) -> list[dict[str, Any]]:
    return [
        {
            "entry_id": entry.id,
            "recording": night.recording,
            "rule": rule,
            "subject": night.subject,
            "n_scored": n_scored,
            **{column: int(value) for column, value in zip(COUNT_COLUMNS, counts.ravel(), strict=True)},
        }
        for night in entry.nights
        for rule, (counts, n_scored) in counts_by_rule(night).items()
    ]
