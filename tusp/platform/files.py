"""Writing that survives a kill: temporary name, flush to disk, rename. And locks that a dead process cannot hold."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tusp.platform.errors import UserError


@contextmanager
def atomic_path(destination: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``destination``; on success it is synced and renamed to it, else removed.

    The caller writes one file at the temporary path. Readers see the old file or the whole new one, never a part.
    What is not ``durable`` is not synced: a power cut may leave a damaged file, but no flush has to be waited for.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{destination.name}.", suffix=".part", dir=destination.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if durable:
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(destination)
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomic(destination: Path, text: str) -> None:
    """Write a whole text file or nothing."""
    with atomic_path(destination) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json_atomic(destination: Path, value: Any) -> None:
    """Write a whole JSON file or nothing; NaN is refused (write ``None`` for "not scored")."""
    write_text_atomic(destination, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


@contextmanager
def file_lock(path: Path, *, blocking: bool = True) -> Iterator[bool]:
    """Hold an exclusive advisory lock on ``path``; yields whether it was obtained (always true when blocking).

    The kernel releases the lock when the process dies, however it dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(stream, fcntl.LOCK_UN)


@contextmanager
def disk_errors_named(what: str, where: Path) -> Iterator[None]:
    """Turn a full or read-only disk and missing permission into one clear line.

    Raises:
        UserError: the operating system refused to write or read at ``where``.
    """
    try:
        yield
    except OSError as error:
        path = error.filename or where
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise UserError(f"{what}: no space left on the disk that holds {where}; free some and run again") from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise UserError(
                f"{what}: no permission for {path}; allow this user to use it, or choose another folder"
            ) from error
        raise
