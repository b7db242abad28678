"""Which prepared nights are of no use any more, and removing them.

A prepared night is of use when a registered corpus would use it today (the files, adapter and settings that are in
force now lead to its fingerprint) or when a cell that is planned or running was planned with it. Everything else was
left behind by a change: other raw files, another version of an adapter, other settings, a corpus that was forgotten.
Done cells keep their scores and predictions without it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from tusp.datasets.prepared import FOLDER_DIGITS, META, remove_prepared, sweep
from tusp.datasets.recording_preparation import (
    PreparationSettings,
    last_settings,
    preparation_identity,
)
from tusp.platform.errors import UserError
from tusp.platform.files import disk_errors_named
from tusp.platform.identity import fingerprint
from tusp.platform.store import models

if TYPE_CHECKING:
    from tusp.platform.settings import Settings
    from tusp.platform.store.session import Store

_FOLDER: Final = re.compile(rf"[0-9a-f]{{{FOLDER_DIGITS}}}")
_NEEDED: Final = ("planned", "running")


@dataclass(frozen=True, kw_only=True)
class Unused:
    """A prepared night that nothing uses."""

    corpus: str
    folder: Path
    recording: str | None
    """None when its ``meta.json`` cannot be read."""
    reason: str
    size: int
    """Bytes on disk."""


@dataclass(frozen=True, kw_only=True)
class Disposal:
    """What ``dispose`` removed, or would remove."""

    removed: list[Unused]
    kept: int
    """Prepared nights that stay."""
    busy: list[Path]
    """Unused folders that another process holds; they stay until the next time."""
    untouched: dict[str, str]
    """Corpora whose nights cannot be told to be unused, and why; all of theirs stay."""

    @property
    def size(self) -> int:
        """Bytes freed."""
        return sum(night.size for night in self.removed)


def needed_by_cells(store: Store) -> set[str]:
    """Folder names of the nights that planned and running cells were planned with."""
    needed: set[str] = set()
    with store.reading() as session:
        for plan in session.scalars(select(models.Cell.plan).where(models.Cell.state.in_(_NEEDED))):
            for corpus in plan["corpora"]:
                for role in ("train", "validation", "test"):
                    needed.update(print_[:FOLDER_DIGITS] for print_ in corpus[role].values())
    return needed


def current_identities(store: Store, corpus: str, preparation: PreparationSettings) -> dict[str, dict[str, Any]]:
    """Identity of every usable night of a registered corpus as it is recorded now, by recording.

    Raises:
        UserError: the adapter is gone.
    """
    from tusp.datasets import catalog

    registered = catalog.get_corpus(store, corpus)
    adapter = catalog.adapter_for(registered)
    return {
        row.name: preparation_identity(
            adapter,
            recording=row.name,
            subject=row.subject,
            simulated=registered.simulated,
            source_sha256s=[source["sha256"] for source in row.sources],
            preparation=preparation,
        )
        for row in catalog.recordings(store, corpus)
        if row.usable
    }


def dispose(store: Store, settings: Settings, *, dry_run: bool = False, keep_days: float = 0) -> Disposal:
    """Remove the prepared nights that nothing uses; what another process writes or waits for is left alone.

    A corpus's settings are those it was prepared with last. Its raw files are taken as the last audit saw them.
    Only folders named like prepared nights are ever looked at.

    Args:
        store: says which corpora there are and which cells are planned.
        settings: say where the prepared store is.
        dry_run: only say what would be removed.
        keep_days: leave alone what was prepared during so many days until now.

    Raises:
        UserError: the disk does not allow it, or ``keep_days`` is negative.
    """
    if not keep_days >= 0:
        raise UserError(f"keep-days = {keep_days} must be 0 or more")
    needed = needed_by_cells(store)
    with store.reading() as session:
        registered = set(session.scalars(select(models.Corpus.name)))
    removed: list[Unused] = []
    busy: list[Path] = []
    untouched: dict[str, str] = {}
    kept = 0
    for root in _subfolders(settings.prepared):
        current: dict[str, dict[str, Any]] = {}
        if root.name in registered:
            try:
                current = current_identities(store, root.name, last_settings(root))
            except UserError as error:
                untouched[root.name] = str(error)
                kept += sum(1 for _ in _nights(root))
                continue
        with disk_errors_named("remove prepared nights", root):
            if not dry_run:
                sweep(root)
            used = needed | {fingerprint(identity)[:FOLDER_DIGITS] for identity in current.values()}
            for folder in _nights(root):
                age = time.time() - folder.stat().st_mtime
                if folder.name in used or age < keep_days * 86_400:
                    kept += 1
                    continue
                night = _unused(root.name, folder, current, registered=root.name in registered)
                if not dry_run and not remove_prepared(folder):
                    busy.append(folder)
                    continue
                removed.append(night)
    return Disposal(removed=removed, kept=kept, busy=busy, untouched=untouched)


def _subfolders(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(path for path in folder.iterdir() if path.is_dir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{folder}: {(error.strerror or str(error)).lower()}; allow this user to read it") from error


def _nights(root: Path) -> Iterator[Path]:
    for folder in _subfolders(root):
        if _FOLDER.fullmatch(folder.name) and not folder.is_symlink():
            yield folder


def _unused(corpus: str, folder: Path, current: Mapping[str, dict[str, Any]], *, registered: bool) -> Unused:
    size = sum(path.lstat().st_size for path in folder.rglob("*"))
    try:
        made_from = json.loads((folder / META).read_text(encoding="utf-8"))["identity"]
        recording = str(made_from["recording"])
    except (OSError, ValueError, KeyError, TypeError):
        return Unused(corpus=corpus, folder=folder, recording=None, reason="its meta.json is damaged", size=size)
    if not registered:
        reason = f"corpus {corpus} is not registered"
    elif recording not in current:
        reason = "the recording is gone or refused"
    else:
        names = {"sources": "raw files", "adapter": "adapter", "preparation": "settings or version of preparation"}
        now = current[recording]
        other = [name for key, name in names.items() if made_from.get(key) != now[key]] or ["subject or simulated flag"]
        reason = f"made with other {' and '.join(other)}"
    return Unused(corpus=corpus, folder=folder, recording=recording, reason=reason, size=size)
