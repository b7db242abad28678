"""The audit: what is in each recording, what is odd about it, and whether it can be used at all.

Computed when a corpus is added and stored with it, so that every later report can show it without reading a signal.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from tusp.datasets.channel_audit import ChannelAudit, copied_channels, examine_channel
from tusp.datasets.duplicates import stages_digest
from tusp.datasets.recording import Adapter, Channel, Discovery, RecordingFiles, Stages, plug_in_failure
from tusp.platform.errors import DataError, one_line
from tusp.platform.identity import file_sha256
from tusp.platform.stages import EPOCH_SECONDS, STAGE_NAMES

AUDIT_VERSION: Final = 2
"""Raise it when the audit says more: recordings audited by an older version are audited again at the next look."""
UNSCORED_PROBLEM_SHARE: Final = 0.2
SMALL_BYTES: Final = 100 * 2**20
"""Below this many bytes in all, starting other processes takes longer than reading."""
BYTES_OF_OPENING: Final = 2**18
"""A file costs as much as this many bytes, however short it is."""
CHUNK_BYTES: Final = 16 * 2**20
"""Short recordings are handed to another process so many bytes at a time: handing over costs as much as reading one."""

Progress = Callable[[int, int, str], None]
"""Called with recordings done, recordings in all, and the name of the one just done."""


@dataclass(frozen=True, kw_only=True)
class RecordingAudit:
    """One row of the audit. ``reason`` says why the recording is refused; None when it is usable."""

    name: str
    subject: str
    reason: str | None
    signal_hours: float
    label_hours: float
    epochs: Mapping[str, int]
    """Epochs by stage name."""
    unscored_share: float
    """Share of the signal's whole epochs without a stage."""
    channels: Sequence[ChannelAudit]
    problems: Sequence[str]
    """What is odd about the recording itself, a line each."""
    sources: Sequence[Mapping[str, Any]]
    """``{"path": relative to root, "role", "size", "mtime_ns", "ctime_ns", "sha256"}`` of each file, signals first."""
    signal_epochs: int = 0
    """Whole 30-s epochs of the signal."""
    scorers: Sequence[str] = ()
    """Names of the people who scored it, where several did."""
    stages: str | None = None
    """Digest of the stages (:func:`tusp.datasets.duplicates.stages_digest`)."""
    duplicates: Sequence[str] = ()
    """Where it is there a second time, a line each; worked out anew at every look."""

    @property
    def usable(self) -> bool:
        """Whether the recording can be used."""
        return self.reason is None

    @property
    def flat_share(self) -> float:
        """The largest flat share among the channels that can be used."""
        return max((c.flat_share for c in self._read()), default=float("nan"))

    @property
    def clipped_share(self) -> float:
        """The largest clipped share among the channels that can be used."""
        return max((c.clipped_share for c in self._read()), default=float("nan"))

    def _read(self) -> list[ChannelAudit]:
        return [c for c in self.channels if c.used and c.reason is None]

    @property
    def remarks(self) -> tuple[str, ...]:
        """Problems and duplicates."""
        return (*self.problems, *self.duplicates)

    def to_json(self) -> dict[str, Any]:
        """Everything but name, subject, reason and sources, which have columns of their own; NaN is null."""

        def plain(value: float) -> float | None:
            return None if value != value else value

        return {
            "version": AUDIT_VERSION,
            "signal_hours": plain(self.signal_hours),
            "signal_epochs": self.signal_epochs,
            "label_hours": plain(self.label_hours),
            "epochs": dict(self.epochs),
            "unscored_share": plain(self.unscored_share),
            "flat_share": plain(self.flat_share),
            "clipped_share": plain(self.clipped_share),
            "scorers": list(self.scorers),
            "channels": [channel.to_json() for channel in self.channels],
            "problems": list(self.problems),
            "duplicates": list(self.duplicates),
            "content": self.content,
            "stages": self.stages,
        }

    @property
    def content(self) -> dict[str, str]:
        """Used channels to the digests of their samples."""
        return {c.name: c.content for c in self.channels if c.content is not None}

    @classmethod
    def from_json(
        cls, *, name: str, subject: str, reason: str | None, audit: Mapping[str, Any], sources: Sequence[Any]
    ) -> RecordingAudit:
        """The row as it was before :meth:`to_json`; what an older audit did not say is left empty."""

        def number(value: float | None) -> float:
            return float("nan") if value is None else value

        return cls(
            name=name,
            subject=subject,
            reason=reason,
            signal_hours=number(audit["signal_hours"]),
            label_hours=number(audit["label_hours"]),
            epochs=dict(audit["epochs"]),
            unscored_share=number(audit["unscored_share"]),
            channels=tuple(ChannelAudit.from_json(channel) for channel in audit["channels"]),
            problems=tuple(audit["problems"]),
            sources=tuple(sources),
            signal_epochs=audit.get("signal_epochs", 0),
            scorers=tuple(audit.get("scorers", ())),
            stages=audit.get("stages"),
            duplicates=tuple(audit.get("duplicates", ())),
        )


def refused_audit(
    name: str, reason: str, *, subject: str = "", sources: Sequence[Mapping[str, Any]] = ()
) -> RecordingAudit:
    """The row of a recording that could not be read at all."""
    return RecordingAudit(
        name=name,
        subject=subject,
        reason=reason,
        signal_hours=float("nan"),
        label_hours=float("nan"),
        epochs={},
        unscored_share=float("nan"),
        channels=(),
        problems=(),
        sources=tuple(sources),
    )


def file_roles(files: RecordingFiles) -> list[tuple[Path, tuple[str, ...]]]:
    """Every file of a night once, with its roles: first the one it is hashed under."""
    roles: dict[Path, list[str]] = {path: [role] for role, path in files.files.items()}
    every = {"signals": files.signals, **({"labels": files.labels} if files.labels else {}), **files.others}
    for role, path in every.items():
        if role not in roles[path]:
            roles[path].append(role)
    return [(path, tuple(names)) for path, names in roles.items()]


def source_facts(root: Path, path: Path, role: str, known: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Size, times and SHA-256 of a file; the hash is taken from ``known`` when nothing about the file changed.

    The time of the last change of status counts too: a file put in place of another with its size and time kept still
    changes it.

    Raises:
        OSError: the file cannot be read.
    """
    status = path.stat()
    facts: dict[str, Any] = {
        "path": path.relative_to(root).as_posix(),
        "role": role,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
    }
    for old in known:
        if old.get("sha256") and all(old.get(key) == value for key, value in facts.items()):
            return {**facts, "sha256": old["sha256"]}
    return {**facts, "sha256": file_sha256(path)}


def _usable_groups(
    adapter: Adapter, files: RecordingFiles, channels: Mapping[str, ChannelAudit], has: Sequence[str]
) -> tuple[str | None, list[str]]:
    """Why the recording cannot be used, or None; and what is lacking although another channel of the group works.

    A group needs one channel that is there, readable, long enough and not flat.
    """
    problems: list[str] = []
    for group, names in adapter.card.channel_groups.items():
        lacking = {name: "is not in the file" for name in names if name not in channels}
        lacking |= {name: why for name in names if name in channels and (why := channels[name].reason) is not None}
        if len(lacking) < len(names):
            problems += [f"{name} ({group}): {why}; not used" for name, why in lacking.items()]
            continue
        there = {name: why for name, why in lacking.items() if name in channels}
        if not there:
            wanted = " or ".join(names)
            return f"{files.signals}: no {group} channel {wanted} (the file has {', '.join(has) or 'none'})", problems
        why = "; ".join(f"channel {name!r} {why}" for name, why in there.items())
        return f"{files.signals}: no {group} channel can be used: {why}", problems
    return None, problems


def _grouped(adapter: Adapter, listed: Sequence[Channel]) -> dict[str, Channel]:
    """Channels of the file that belong to a group, by name."""
    by_name = {channel.name: channel for channel in listed}
    wanted = [name for names in adapter.card.channel_groups.values() for name in names]
    return {name: by_name[name] for name in wanted if name in by_name}


def _examine(adapter: Adapter, files: RecordingFiles, row: RecordingAudit) -> RecordingAudit:
    listed = adapter.channels(files)
    has = [channel.name for channel in listed]
    needed = _grouped(adapter, listed)
    audits: dict[str, ChannelAudit] = {}
    for channel in listed:
        reason = None if channel.sampling_rate_hz > 0 else "has no sampling rate"
        audits[channel.name] = ChannelAudit(
            name=channel.name,
            sampling_rate_hz=channel.sampling_rate_hz,
            unit=channel.unit,
            used=channel.name in needed,
            reason=reason if channel.name in needed else None,
        )
    row = replace(row, channels=tuple(audits.values()))
    reason, _ = _usable_groups(adapter, files, {name: audits[name] for name in needed}, has)
    if reason is not None:
        return replace(row, reason=reason)
    problems = list(adapter.problems(files))
    seconds = max(c.n_samples / c.sampling_rate_hz for c in needed.values() if c.sampling_rate_hz > 0)
    n_epochs = int(seconds / EPOCH_SECONDS + 1e-9)
    row = replace(row, signal_hours=seconds / 3600, signal_epochs=n_epochs, problems=tuple(problems))
    if not n_epochs:
        return replace(row, reason=f"{files.signals}: {seconds:g} s of signal are shorter than one epoch of 30 s")
    try:
        row, stages = _with_labels(adapter, files, row)
    except DataError as error:
        return replace(row, reason=str(error))
    if row.reason is not None:
        return row
    scored = np.flatnonzero(stages >= 0)
    span = int(scored[0]) * EPOCH_SECONDS, int(scored[-1] + 1) * EPOCH_SECONDS
    problems = list(row.problems)
    for name, channel in needed.items():
        if audits[name].reason is not None:
            continue
        try:
            audits[name], odd = examine_channel(channel, adapter.read(files, name), span)
        except DataError as error:
            why = str(error).removeprefix(f"{files.signals}: ").removeprefix(f"channel {name!r}: ")
            audits[name], odd = replace(audits[name], reason=f"cannot be read: {why}"), []
        problems += odd
    reason, lacking = _usable_groups(adapter, files, {name: audits[name] for name in needed}, has)
    problems += [*lacking, *copied_channels(list(audits.values()))]
    return replace(row, channels=tuple(audits.values()), problems=tuple(dict.fromkeys(problems)), reason=reason)


def _with_labels(adapter: Adapter, files: RecordingFiles, row: RecordingAudit) -> tuple[RecordingAudit, Stages]:
    """The row with what the hypnogram says, and the stages."""
    problems = list(row.problems)
    hypnogram = adapter.hypnogram(files)
    scorers = adapter.scorers(files)
    stages, n_epochs = hypnogram.stages, row.signal_epochs
    problems += hypnogram.problems
    if len(stages) and not -1 <= stages.min() <= stages.max() < len(STAGE_NAMES):
        raise DataError(f"{files.labels}: stage codes from {stages.min()} to {stages.max()}; known are -1 to 4")
    counts = np.bincount(stages[stages >= 0], minlength=len(STAGE_NAMES))
    label_seconds = hypnogram.label_seconds
    unscored = 1 - float(counts.sum()) / max(n_epochs, len(stages))
    row = replace(
        row,
        label_hours=(len(stages) * EPOCH_SECONDS if label_seconds is None else label_seconds) / 3600,
        epochs={name: int(count) for name, count in zip(STAGE_NAMES, counts, strict=True)},
        unscored_share=unscored,
        scorers=tuple(scorers),
        stages=stages_digest(stages),
        problems=tuple(problems),
    )
    if len(stages) > n_epochs:
        return replace(row, reason=f"{files.labels}: {len(stages)} epochs for {n_epochs} epochs of signal"), stages
    uneven = [name for name, votes in scorers.items() if len(votes) != len(stages)]
    if uneven:
        return replace(
            row, reason=f"{files.labels}: {uneven[0]} has {len(scorers[uneven[0]])} epochs, the hypnogram {len(stages)}"
        ), stages
    if not counts.any():
        return replace(row, reason=f"{files.labels}: no scored epoch inside the signal"), stages
    if len(stages) < n_epochs:
        problems.append(f"the hypnogram ends {(n_epochs - len(stages)) * EPOCH_SECONDS} s before the signal")
    if unscored > UNSCORED_PROBLEM_SHARE:
        problems.append(f"{unscored:.1%} of the signal's epochs are unscored")
    problems += _same_bytes(row.sources)
    return replace(row, problems=tuple(problems)), stages


def _same_bytes(sources: Sequence[Mapping[str, Any]]) -> list[str]:
    """Files of one night that are copies of each other: a scorer who is there twice."""
    first: dict[str, str] = {}
    problems = []
    for source in sources:
        other = first.setdefault(source["sha256"], source["role"])
        if other != source["role"]:
            problems.append(f"its {source['role']} is the same bytes as its {other}")
    return problems


def audit_recording(
    adapter: Adapter, root: Path, files: RecordingFiles, known: Sequence[Mapping[str, Any]] = ()
) -> RecordingAudit:
    """Audit one recording; one that cannot be used comes back refused, with the reason.

    Holds one channel in memory at a time.

    Args:
        known: source facts of an earlier audit, whose hashes are taken over where the file is unchanged.
    """
    row = _audited(adapter, root, files, known)
    # What comes from files may be of any length and hold anything.
    return replace(
        row,
        reason=None if row.reason is None else one_line(row.reason),
        problems=tuple(one_line(problem) for problem in row.problems),
        channels=tuple(replace(channel, name=one_line(channel.name)) for channel in row.channels),
    )


def _audited(adapter: Adapter, root: Path, files: RecordingFiles, known: Sequence[Mapping[str, Any]]) -> RecordingAudit:
    row = replace(refused_audit(files.name, "", subject=files.subject), reason=None)
    try:
        row = replace(
            row,
            sources=tuple(
                {**source_facts(root, path, roles[0], known), **({"also": list(roles[1:])} if roles[1:] else {})}
                for path, roles in file_roles(files)
            ),
        )
        return _examine(adapter, files, row)
    except DataError as error:
        return replace(row, reason=str(error))
    except OSError as error:
        reason = "no permission to read it" if isinstance(error, PermissionError) else error.strerror or str(error)
        return replace(row, reason=f"{error.filename or files.signals}: {reason}")
    except MemoryError:
        return replace(row, reason=f"{files.signals}: reading it needs more memory than there is")
    except Exception as error:
        failure = plug_in_failure(adapter, files, error)
        if failure is None:
            raise
        return replace(row, reason=failure)


def audit_recordings(
    adapter: Adapter,
    root: Path,
    discovery: Discovery,
    *,
    known: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[RecordingAudit]:
    """Audit all nights that were found, in parallel, and add those that were refused on sight; sorted by name.

    Args:
        known: source facts of an earlier audit by recording.
        workers: processes; default one a core, none at all for a small corpus.
        progress: told after every recording.
    """
    known = known or {}
    nights = list(discovery.recordings)
    rows = [refused_audit(name, reason) for name, reason in discovery.refused.items()]

    def told(row: RecordingAudit) -> None:
        rows.append(row)
        if progress is not None:
            progress(len(rows), len(nights) + len(discovery.refused), row.name)

    costs = [_cost(night) for night in nights]
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if sum(costs) > SMALL_BYTES else 1
    workers = min(workers, len(nights))
    if workers <= 1:
        for night in nights:
            told(audit_recording(adapter, root, night, known.get(night.name, ())))
    else:
        for row in _in_parallel(adapter, root, _chunks(nights, costs), known, workers):
            told(row)
    return sorted(rows, key=lambda row: row.name)


def _cost(night: RecordingFiles) -> int:
    """Bytes that reading a night is like."""
    try:
        return BYTES_OF_OPENING + night.signals.stat().st_size
    except OSError:
        return BYTES_OF_OPENING  # its own audit will name it


def _chunks(nights: Sequence[RecordingFiles], costs: Sequence[int]) -> list[list[RecordingFiles]]:
    """Neighbours that are handed over together."""
    chunks: list[list[RecordingFiles]] = []
    room = 0
    for night, cost in zip(nights, costs, strict=True):
        if cost > room:
            chunks.append([])
            room = CHUNK_BYTES
        chunks[-1].append(night)
        room -= cost
    return chunks


def _audit_chunk(
    adapter: Adapter, root: Path, nights: Sequence[RecordingFiles], known: Sequence[Sequence[Mapping[str, Any]]]
) -> list[RecordingAudit]:
    return [audit_recording(adapter, root, night, facts) for night, facts in zip(nights, known, strict=True)]


def _in_parallel(
    adapter: Adapter,
    root: Path,
    chunks: Sequence[Sequence[RecordingFiles]],
    known: Mapping[str, Sequence[Mapping[str, Any]]],
    workers: int,
) -> Iterator[RecordingAudit]:
    # A fresh interpreter, not a fork: the caller may run threads (a progress bar, a database pool).
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(chunks)), mp_context=context) as pool:
        running: dict[Future[list[RecordingAudit]], str] = {
            pool.submit(_audit_chunk, adapter, root, nights, [known.get(night.name, ()) for night in nights]): nights[
                0
            ].name
            for nights in chunks
        }
        try:
            for future in as_completed(running):  # each is looked at once, however many there are
                try:
                    yield from future.result()
                except BrokenProcessPool as error:
                    raise DataError(
                        f"{running[future]}: the process that audited recordings was killed (out of memory, or a file"
                        " that shrank or became unreadable while it was read)"
                    ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def stage_totals(rows: Sequence[RecordingAudit]) -> dict[str, int]:
    """Epochs by stage over the usable recordings."""
    totals: Counter[str] = Counter()
    for row in rows:
        if row.usable:
            totals.update(row.epochs)
    return {name: totals[name] for name in STAGE_NAMES}
