"""From one raw night to the prepared store: load, resample, cut to the hypnogram, clip, scale, write."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

import tusp
from tusp.datasets.prepared import (
    SAMPLING_RATE_HZ,
    PreparedChannel,
    PreparedRecording,
    PreparedWriter,
    open_prepared,
    prepared_folder,
    recording_lock,
    remove_folder,
    writing,
)
from tusp.datasets.recording import Adapter, RecordingFiles
from tusp.platform.errors import DataError, UserError
from tusp.platform.files import disk_errors_named, write_json_atomic
from tusp.platform.identity import fingerprint

if TYPE_CHECKING:
    from tusp.datasets.conditioning import Span

PREPARATION_VERSION: Final = 2
"""Part of every fingerprint: raise it when the same bytes would be prepared differently."""


@dataclass(frozen=True, kw_only=True)
class PreparationSettings:
    """What may be chosen about preparation; all of it is part of the fingerprint."""

    wake_margin_minutes: int | None = None
    """Wake kept before the first and after the last sleep epoch; None keeps everything that is scored."""

    clip_iqr: float = 20.0
    """Samples further than this many inter-quartile ranges from the median are clipped."""

    def __post_init__(self) -> None:
        if self.wake_margin_minutes is not None and self.wake_margin_minutes < 0:
            raise UserError(f"wake_margin_minutes = {self.wake_margin_minutes} must be 0 or more")
        if not 0 < self.clip_iqr <= 1000:
            raise UserError(f"clip_iqr = {self.clip_iqr} must lie between 0 and 1000")


LAST_SETTINGS: Final = "settings.json"
"""In a corpus's folder of the prepared store: the settings it was prepared with last, for ``tusp datasets gc``."""


def note_settings(root: Path, preparation: PreparationSettings) -> None:
    """Note in a corpus's folder which settings it is prepared with now.

    Raises:
        OSError: the disk does not allow it.
    """
    try:
        noted = last_settings(root)
    except UserError:
        noted = None  # damaged: noted anew
    if noted != preparation:
        write_json_atomic(root / LAST_SETTINGS, asdict(preparation))


def last_settings(root: Path) -> PreparationSettings:
    """The settings that a corpus was prepared with last; the default ones when that was not noted.

    Raises:
        UserError: the note is damaged.
    """
    path = root / LAST_SETTINGS
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
        return PreparationSettings(**noted)
    except FileNotFoundError:
        return PreparationSettings()
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: damaged; delete it and prepare the corpus again") from error


@dataclass(frozen=True, kw_only=True)
class Source:
    """One raw file of a recording as the audit saw it."""

    path: Path
    size: int
    mtime_ns: int
    sha256: str


def preparation_identity(
    adapter: Adapter,
    *,
    recording: str,
    subject: str,
    simulated: bool,
    source_sha256s: Sequence[str],
    preparation: PreparationSettings,
) -> dict[str, Any]:
    """The value whose hash is a prepared recording's fingerprint: source bytes, adapter, preparation.

    Raises:
        ValueError: the adapter's settings have no canonical form.
    """
    return {
        "recording": recording,
        "subject": subject,
        "simulated": simulated,
        "sources": sorted(source_sha256s),
        "adapter": {
            "name": adapter.card.name,
            "code_version": adapter.code_version,
            "settings": dict(adapter.settings()),
            "channel_groups": {group: list(names) for group, names in adapter.card.channel_groups.items()},
            "label_map": dict(adapter.card.label_map),
        },
        "preparation": {
            "version": PREPARATION_VERSION,
            "sampling_rate_hz": SAMPLING_RATE_HZ,
            "wake_margin_minutes": preparation.wake_margin_minutes,
            "clip_iqr": float(preparation.clip_iqr),
        },
    }


def prepare_recording(
    adapter: Adapter,
    files: RecordingFiles,
    *,
    corpus: str,
    destination_root: Path,
    identity: Mapping[str, Any],
    preparation: PreparationSettings,
    sources: Sequence[Source] = (),
) -> PreparedRecording:
    """Prepare one night, unless it is there already; while another process prepares it, wait for that.

    Args:
        adapter: reads the corpus.
        files: the night.
        corpus: name under which the corpus is registered.
        destination_root: the corpus's folder in the prepared store.
        identity: what ``preparation_identity`` says of this night.
        preparation: choices, the same as in ``identity``.
        sources: the raw files as hashed; if one changes meanwhile, the night is refused.

    Returns:
        The prepared night, opened.

    Raises:
        DataError: the night cannot be used; one line with the reason.
        UserError: the disk is full or does not allow writing; nothing half-written stays.
    """
    with disk_errors_named(f"prepare {corpus}", destination_root):
        destination_root.mkdir(parents=True, exist_ok=True)
        folder = prepared_folder(destination_root, fingerprint(identity))
        with recording_lock(destination_root, folder.name):
            if folder.exists():
                try:
                    return open_prepared(folder)
                except DataError:
                    remove_folder(folder)
            return _prepare_locked(
                adapter,
                files,
                corpus=corpus,
                root=destination_root,
                identity=identity,
                preparation=preparation,
                sources=sources,
            )


def _prepare_locked(
    adapter: Adapter,
    files: RecordingFiles,
    *,
    corpus: str,
    root: Path,
    identity: Mapping[str, Any],
    preparation: PreparationSettings,
    sources: Sequence[Source],
) -> PreparedRecording:
    from scipy import __version__ as scipy_version

    from tusp.datasets.conditioning import kept_span

    _refuse_changed(sources)
    if files.labels is None:
        raise DataError(f"{files.name}: no hypnogram was found")
    hypnogram = adapter.hypnogram(files)
    try:
        span = kept_span(hypnogram.stages, wake_margin_minutes=preparation.wake_margin_minutes)
    except DataError as error:
        raise DataError(f"{files.name}: {error}") from None
    problems = [*adapter.problems(files), *hypnogram.problems]
    with writing(root, identity=identity, n_epochs=span.n_epochs) as writer:
        groups = _write_channels(adapter, files, span, preparation, writer, problems)
        if "EEG" not in groups:
            raise DataError(f"{files.name}: no EEG channel can be used ({'; '.join(problems)})")
        # The signals just read must be those that were hashed.
        _refuse_changed(sources)
        return writer.finish(
            corpus=corpus,
            name=files.name,
            subject=files.subject,
            simulated=files.simulated,
            stages=hypnogram.stages[span.first : span.stop].astype(np.int8),
            first_epoch=span.first,
            lights=hypnogram.lights,
            problems=problems,
            versions={"tusp": tusp.__version__, "numpy": np.__version__, "scipy": scipy_version},
        )


def _write_channels(
    adapter: Adapter,
    files: RecordingFiles,
    span: Span,
    preparation: PreparationSettings,
    writer: PreparedWriter,
    problems: list[str],
) -> set[str]:
    """Condition and write every grouped channel, one at a time; returns the groups that got at least one."""
    from tusp.datasets.conditioning import FlatChannelError, ShortChannelError, condition
    from tusp.datasets.order_statistics import Workspace

    workspace = Workspace()
    headers = {channel.name: channel for channel in adapter.channels(files)}
    written: set[str] = set()
    for group, names in adapter.card.channel_groups.items():
        for name in names:
            header = headers.get(name)
            if header is None:
                problems.append(f"channel {name} ({group}) is not in this recording")
                continue
            try:
                conditioned = condition(
                    adapter.read(files, name),
                    sampling_rate_hz=header.sampling_rate_hz,
                    span=span,
                    clip_iqr=preparation.clip_iqr,
                    workspace=workspace,
                )
            except FlatChannelError:
                problems.append(f"channel {name} ({group}) is flat and was left out")
                continue
            except ShortChannelError as error:
                problems.append(f"channel {name} ({group}) {error} and was left out")
                continue
            except DataError as error:
                problems.append(f"channel {name} ({group}) was left out: {error}")
                continue
            if conditioned.not_finite_share:
                problems.append(
                    f"channel {name} ({group}): {conditioned.not_finite_share:.2%} of the samples are no "
                    "number; the median stands in for them"
                )
            writer.add(
                PreparedChannel(
                    name=name,
                    group=group,
                    sampling_rate_hz=header.sampling_rate_hz,
                    unit=header.unit,
                    median=conditioned.median,
                    iqr=conditioned.iqr,
                    clipped_share=conditioned.clipped_share,
                ),
                conditioned.samples,
            )
            written.add(group)
    return written


def _refuse_changed(sources: Sequence[Source]) -> None:
    for source in sources:
        try:
            found = source.path.stat()
        except OSError as error:
            raise DataError(f"{source.path}: not readable ({error.strerror})") from error
        if (found.st_size, found.st_mtime_ns) != (source.size, source.mtime_ns):
            raise DataError(f"{source.path}: changed since it was audited; run again")
        if not os.access(source.path, os.R_OK):
            raise DataError(f"{source.path}: no permission to read it")
