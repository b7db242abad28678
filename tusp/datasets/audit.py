"""The audit: what is in each recording, what is odd about it, and whether it can be used at all.

Computed when a corpus is added and stored with it, so that every later report can show it without reading a signal.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tusp.datasets.recording import Adapter, Channel, Discovery, RecordingFiles
from tusp.platform.errors import DataError
from tusp.platform.identity import file_sha256
from tusp.platform.stages import EPOCH_SECONDS, STAGE_NAMES

AUDIT_VERSION: Final = 1
FLAT_PROBLEM_SHARE: Final = 0.05
CLIPPED_PROBLEM_SHARE: Final = 0.01
PLAUSIBLE_IQR_MICROVOLTS: Final = (0.5, 2000.0)
SMALL_BYTES: Final = 100 * 2**20
"""Below this many bytes in all, starting other processes takes longer than reading."""

Progress = Callable[[int, int, str], None]
"""Called with recordings done, recordings in all, and the name of the one just done."""


@dataclass(frozen=True, kw_only=True)
class ChannelAudit:
    """One signal of a recording; shares are NaN for signals that tusp does not use."""

    name: str
    sampling_rate_hz: float
    unit: str
    used: bool
    flat_share: float
    """Share of seconds in which the signal does not change."""
    clipped_share: float
    """Share of samples at the recorder's lowest or highest value."""


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
    sources: Sequence[Mapping[str, Any]]
    """``{"path": relative to root, "role", "size", "mtime_ns", "ctime_ns", "sha256"}`` of each file, signals first."""

    @property
    def usable(self) -> bool:
        """Whether the recording can be used."""
        return self.reason is None

    @property
    def flat_share(self) -> float:
        """The largest flat share among the used channels."""
        return max((c.flat_share for c in self.channels if c.used), default=float("nan"))

    @property
    def clipped_share(self) -> float:
        """The largest clipped share among the used channels."""
        return max((c.clipped_share for c in self.channels if c.used), default=float("nan"))

    def to_json(self) -> dict[str, Any]:
        """Everything but name, subject, reason and sources, which have columns of their own; NaN is null."""

        def plain(value: float) -> float | None:
            return None if value != value else value

        return {
            "version": AUDIT_VERSION,
            "signal_hours": plain(self.signal_hours),
            "label_hours": plain(self.label_hours),
            "epochs": dict(self.epochs),
            "unscored_share": plain(self.unscored_share),
            "flat_share": plain(self.flat_share),
            "clipped_share": plain(self.clipped_share),
            "channels": [
                {
                    "name": c.name,
                    "sampling_rate_hz": c.sampling_rate_hz,
                    "unit": c.unit,
                    "used": c.used,
                    "flat_share": plain(c.flat_share),
                    "clipped_share": plain(c.clipped_share),
                }
                for c in self.channels
            ],
            "problems": list(self.problems),
        }

    @classmethod
    def from_json(
        cls, *, name: str, subject: str, reason: str | None, audit: Mapping[str, Any], sources: Sequence[Any]
    ) -> RecordingAudit:
        """The row as it was before :meth:`to_json`."""

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
            channels=tuple(
                ChannelAudit(
                    name=c["name"],
                    sampling_rate_hz=c["sampling_rate_hz"],
                    unit=c["unit"],
                    used=c["used"],
                    flat_share=number(c["flat_share"]),
                    clipped_share=number(c["clipped_share"]),
                )
                for c in audit["channels"]
            ),
            problems=tuple(audit["problems"]),
            sources=tuple(sources),
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


def flat_share(samples: npt.NDArray[np.float32], sampling_rate_hz: float) -> float:
    """Share of whole seconds (of at least two samples) in which the signal does not change."""
    width = max(round(sampling_rate_hz), 2)
    n_windows = len(samples) // width
    if n_windows == 0:
        return float(len(samples) > 0 and np.ptp(samples) == 0)
    windows = samples[: n_windows * width].reshape(n_windows, width)
    return float((windows.max(axis=1) == windows.min(axis=1)).mean())


def clipped_share(samples: npt.NDArray[np.float32], limits: tuple[float, float] | None) -> float:
    """Share of samples at the recorder's limits; NaN where the limits are not known."""
    if limits is None or not len(samples):
        return float("nan")
    low, high = limits
    margin = (high - low) * 5e-6  # a third of the smallest step of 16 bits, far above the rounding of float32
    return float(((samples <= low + margin) | (samples >= high - margin)).mean())


def file_roles(files: RecordingFiles) -> list[tuple[Path, tuple[str, ...]]]:
    """Every file of a night once, with its roles: the one it is hashed under, and others (labels inside the signals)."""
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


def _spread(samples: npt.NDArray[np.float32]) -> float:
    """Inter-quartile range."""
    low, high = np.percentile(samples, (25, 75))
    return float(high - low)


def _channel(adapter: Adapter, files: RecordingFiles, channel: Channel, problems: list[str]) -> ChannelAudit:
    """Read one used channel and say what is odd about it.

    Raises:
        DataError: the channel cannot be scaled or read.
    """
    samples = adapter.read(files, channel.name)
    flat = flat_share(samples, channel.sampling_rate_hz)
    clipped = clipped_share(samples, channel.limits)
    if flat == 1.0:
        raise DataError(f"{files.signals}: channel {channel.name!r} is flat throughout")
    # A sample of the samples says enough about the amplitude; only a suspicion is worth sorting them all.
    spread = _spread(samples[:: max(1, len(samples) // 500_000)])
    if spread == 0 and _spread(samples) == 0:
        raise DataError(f"{files.signals}: channel {channel.name!r} has the same value in more than half the samples")
    if flat > FLAT_PROBLEM_SHARE:
        problems.append(f"{channel.name}: flat for {flat:.1%} of the time")
    if clipped > CLIPPED_PROBLEM_SHARE:
        problems.append(f"{channel.name}: clipped at the recorder's limits in {clipped:.1%} of the samples")
    if not PLAUSIBLE_IQR_MICROVOLTS[0] <= spread <= PLAUSIBLE_IQR_MICROVOLTS[1]:
        problems.append(f"{channel.name}: inter-quartile range of {spread:.3g} µV; is the unit {channel.unit!r} right?")
    return ChannelAudit(
        name=channel.name,
        sampling_rate_hz=channel.sampling_rate_hz,
        unit=channel.unit,
        used=True,
        flat_share=flat,
        clipped_share=clipped,
    )


def _examine(adapter: Adapter, files: RecordingFiles, row: RecordingAudit) -> RecordingAudit:
    needed = [name for names in adapter.card.channel_groups.values() for name in names]
    channels = adapter.channels(files)
    by_name = {channel.name: channel for channel in channels}
    listed = tuple(
        ChannelAudit(
            name=channel.name,
            sampling_rate_hz=channel.sampling_rate_hz,
            unit=channel.unit,
            used=channel.name in needed,
            flat_share=float("nan"),
            clipped_share=float("nan"),
        )
        for channel in channels
    )
    row = replace(row, channels=listed)
    missing = [name for name in needed if name not in by_name]
    if missing:
        has = ", ".join(channel.name for channel in channels) or "none"
        return replace(row, reason=f"{files.signals}: no channel {', '.join(missing)} (the file has {has})")
    still = [name for name in needed if by_name[name].sampling_rate_hz <= 0]
    if still:
        return replace(row, reason=f"{files.signals}: channel {still[0]!r} has no sampling rate")
    problems = list(adapter.problems(files))
    seconds = min(by_name[name].n_samples / by_name[name].sampling_rate_hz for name in needed)
    row = replace(row, signal_hours=seconds / 3600, problems=tuple(problems))
    if seconds < EPOCH_SECONDS:
        return replace(row, reason=f"{files.signals}: {seconds:g} s of signal are shorter than one epoch of 30 s")
    try:
        hypnogram = adapter.hypnogram(files)
    except DataError as error:
        return replace(row, reason=str(error))
    stages = hypnogram.stages
    problems += hypnogram.problems
    counts = np.bincount(stages[stages >= 0], minlength=len(STAGE_NAMES))
    label_seconds = hypnogram.label_seconds
    row = replace(
        row,
        label_hours=(len(stages) * EPOCH_SECONDS if label_seconds is None else label_seconds) / 3600,
        epochs={name: int(count) for name, count in zip(STAGE_NAMES, counts, strict=True)},
        unscored_share=float((stages < 0).mean()),
        problems=tuple(problems),
    )
    if not counts.any():
        return replace(row, reason=f"{files.labels}: no scored epoch inside the signal")
    try:
        read = {name: _channel(adapter, files, by_name[name], problems) for name in needed}
    except DataError as error:
        return replace(row, reason=str(error))
    return replace(row, channels=tuple(read.get(c.name, c) for c in listed), problems=tuple(problems))


def audit_recording(
    adapter: Adapter, root: Path, files: RecordingFiles, known: Sequence[Mapping[str, Any]] = ()
) -> RecordingAudit:
    """Audit one recording; one that cannot be used comes back refused, with the reason.

    Holds one channel in memory at a time.

    Args:
        known: source facts of an earlier audit, whose hashes are taken over where the file is unchanged.
    """
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

    if workers is None:
        workers = len(os.sched_getaffinity(0)) if _bytes(nights) > SMALL_BYTES else 1
    workers = min(workers, len(nights))
    if workers <= 1:
        for night in nights:
            told(audit_recording(adapter, root, night, known.get(night.name, ())))
    else:
        for row in _in_parallel(adapter, root, nights, known, workers):
            told(row)
    return with_duplicates(sorted(rows, key=lambda row: row.name))


def _in_parallel(
    adapter: Adapter,
    root: Path,
    nights: Sequence[RecordingFiles],
    known: Mapping[str, Sequence[Mapping[str, Any]]],
    workers: int,
) -> Any:
    # A fresh interpreter, not a fork: the caller may run threads (a progress bar, a database pool).
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        running: dict[Future[RecordingAudit], str] = {
            pool.submit(audit_recording, adapter, root, night, known.get(night.name, ())): night.name
            for night in nights
        }
        try:
            while running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    name = running.pop(future)
                    try:
                        yield future.result()
                    except BrokenProcessPool as error:
                        raise DataError(
                            f"{name}: the process that audited recordings was killed (out of memory, or a file that"
                            " shrank or became unreadable while it was read)"
                        ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _bytes(nights: Sequence[RecordingFiles]) -> int:
    total = 0
    for night in nights:
        try:
            total += night.signals.stat().st_size
        except OSError:
            continue  # its own audit will name it
    return total


def with_duplicates(rows: Sequence[RecordingAudit]) -> list[RecordingAudit]:
    """Note recordings whose signals or labels are the same bytes under two names."""
    noted: dict[str, list[str]] = {}
    for role in ("signals", "labels"):
        by_hash: dict[str, list[str]] = {}
        for row in rows:
            for source in row.sources:
                if source["role"] == role:
                    by_hash.setdefault(source["sha256"], []).append(row.name)
        for names in by_hash.values():
            for name in names if len(names) > 1 else ():
                others = ", ".join(other for other in names if other != name)
                noted.setdefault(name, []).append(f"its {role} are the same bytes as those of {others}")
    return [
        replace(
            row,
            problems=(
                *(p for p in row.problems if "are the same bytes as" not in p),
                *noted.get(row.name, ()),
            ),
        )
        for row in rows
    ]


def stage_totals(rows: Sequence[RecordingAudit]) -> dict[str, int]:
    """Epochs by stage over the usable recordings."""
    totals: Counter[str] = Counter()
    for row in rows:
        if row.usable:
            totals.update(row.epochs)
    return {name: totals[name] for name in STAGE_NAMES}
