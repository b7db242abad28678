"""What was derived before, in files named by the hash of all it was derived from.

What is found is what would be made again, so nothing needs the files: they may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import msgspec

import tusp
from tusp.platform.files import atomic_path

FORGOTTEN_AFTER: Final = 90 * 24 * 3600.0
"""Seconds after which a file that no report used is deleted."""

_DIGEST: Final = 32
_PART: Final = ".part"
_MARKED: Final = 24 * 3600.0
"""A file that is used is marked as used once in so many seconds."""
_Kind = TypeVar("_Kind")

log = logging.getLogger(__name__)


class Kept(Generic[_Kind]):
    """Values of one type in a folder."""

    def __init__(self, folder: Path, kind: type[_Kind]) -> None:
        self._folder = folder
        self._decoder = msgspec.msgpack.Decoder(kind)
        self._can_write = True

    def find(self, name: str) -> _Kind | None:
        """What was kept under a hash; None where there is nothing, or a damaged file."""
        path = self.path(name)
        try:
            raw = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            log.warning("what was kept cannot be read and is made again: %s", error)
            return None
        if checksum(raw[_DIGEST:]) == raw[:_DIGEST]:
            try:
                found = self._decoder.decode(raw[_DIGEST:])
            except msgspec.DecodeError as error:
                log.warning("%s holds something else (%s); it is made again", path, error)
                return None
            self._mark(path)
            return found
        log.warning("%s is damaged; what it kept is made again", path)
        return None

    def all(self) -> list[_Kind]:
        """Everything that is there and whole."""
        found = (self.find(path.stem) for path in sorted(self._folder.glob("*.msgpack")))
        return [one for one in found if one is not None]

    def keep(self, name: str, value: _Kind) -> _Kind:
        """Keep a value; returns it as it will be found, so that a report is the same either way."""
        raw = msgspec.msgpack.encode(value)
        if self._can_write:
            try:
                with atomic_path(self.path(name), durable=False) as temporary:  # the checksum tells what is damaged
                    temporary.write_bytes(checksum(raw) + raw)
            except OSError as error:
                self._can_write = False  # said once, not for every board
                log.warning("nothing more is kept for the next report: %s", error)
        return self._decoder.decode(raw)

    def forget_old(self, *, at_most: int | None = None) -> None:
        """Delete what no report has used for :data:`FORGOTTEN_AFTER`, what killed processes left behind, and of the
        rest all but the ``at_most`` files that were made or marked as used last."""
        now, ages = time.time(), {}
        for path in self._folder.glob("*"):
            with self._named():
                ages[path] = now - path.stat().st_mtime
        latest = sorted((path for path in ages if path.suffix != _PART), key=ages.__getitem__)
        dropped = set(latest[at_most:] if at_most is not None else ())
        for path, age in ages.items():
            if path in dropped or age > (_MARKED if path.suffix == _PART else FORGOTTEN_AFTER):
                with self._named():
                    path.unlink(missing_ok=True)

    @staticmethod
    @contextmanager
    def _named() -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            pass  # another process deleted it
        except OSError as error:
            log.warning("an old file is still there: %s", error)

    def path(self, name: str) -> Path:
        """The file of what is kept under a hash."""
        return self._folder / f"{name}.msgpack"

    def _mark(self, path: Path) -> None:
        try:
            if path.stat().st_mtime < time.time() - _MARKED:
                os.utime(path)
        except OSError:
            # Somebody else's folder, or deleted just now: at worst it is made again in some months.
            log.debug("%s is not marked as used", path, exc_info=True)


def hash_of(parts: Any) -> str:
    """The name under which something is kept that was derived from these parts by this program."""
    return hashlib.blake2b(program_hash() + msgspec.msgpack.encode(parts), digest_size=_DIGEST).hexdigest()


def checksum(raw: bytes) -> bytes:
    """BLAKE2b of some bytes."""
    return hashlib.blake2b(raw, digest_size=_DIGEST).digest()


@cache
def program_hash() -> bytes:
    """Hash of what derives: this package's files, and the Python, NumPy and SciPy that run it."""
    folder = Path(tusp.__file__).parent
    whole = hashlib.blake2b(digest_size=_DIGEST)
    libraries = [importlib.metadata.version(name) for name in ("numpy", "scipy")]  # importing them takes long
    for said in (sys.version, sys.byteorder, str(sys.maxsize), *libraries):
        whole.update(said.encode() + b"\0")
    for part in ("dashboards", "datasets", "platform"):
        for path in sorted((folder / part).rglob("*.*")):
            if path.suffix != ".pyc" and path.is_file():
                raw = path.read_bytes()
                whole.update(f"{path.relative_to(folder)}\0{len(raw)}\0".encode())
                whole.update(raw)
    return whole.digest()
