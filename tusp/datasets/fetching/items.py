"""What is fetched: files by their path below the destination, with what is published of them."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from tusp.platform.errors import DataError

CONTROL_FOLDER: Final = ".tusp-fetch"
"""Folder below the destination for unfinished files and the record of verified ones."""

_CHUNK: Final = 2**20
_LINE: Final = re.compile(r"([0-9a-f]{64})  (\S.*?)(?:  (\d+))?")
_HEX_DIGITS: Final = {"sha256": 64, "md5": 32, "crc32": 8}


@dataclass(frozen=True, kw_only=True)
class Digest:
    """A published checksum: ``sha256``, ``md5`` or (of a member of a zip archive) ``crc32``, in lower-case hex."""

    algorithm: str
    value: str

    def __post_init__(self) -> None:
        if not re.fullmatch(rf"[0-9a-f]{{{_HEX_DIGITS[self.algorithm]}}}", self.value):
            raise ValueError(f"{self.value!r} is no {self.algorithm}")

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file of a corpus."""

    path: str
    """Path below the destination, with ``/``."""
    url: str
    """Where it lies; for a member of an archive, the archive (a URL or the path of a local file)."""
    recording: str
    """Night it belongs to: files of one recording are fetched together or not at all."""
    size: int | None = None
    """Bytes, where published."""
    digest: Digest | None = None
    member: str | None = None
    """Name inside the archive at ``url``; None for a file that lies there by itself."""


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def _new_hash(algorithm: str) -> _Hash:
    return _Crc32() if algorithm == "crc32" else hashlib.new(algorithm, usedforsecurity=False)


def what_is_wrong(path: Path, item: Item, *, stopped: Callable[[], bool] = lambda: False) -> str | None:
    """Why the file at ``path`` is not the published one, or None when it is (as far as anything is published).

    ``stopped`` is asked between the blocks that are read; the answer is then of no use.
    """
    size = path.stat().st_size
    if item.size is not None and size != item.size:
        return f"it has {size} bytes, {item.size} are published"
    if size == 0 and item.size is None:
        return "it is empty"
    if item.digest is None:
        return None
    found = _new_hash(item.digest.algorithm)
    with path.open("rb") as stream:
        while (block := stream.read(_CHUNK)) and not stopped():
            found.update(block)
    if found.hexdigest() != item.digest.value:
        return f"its {item.digest.algorithm} is {found.hexdigest()}, published is {item.digest.value}"
    return None


def safe_path(path: str) -> str:
    """The path as it is, when it stays below the folder it is put into.

    Raises:
        DataError: it is absolute, leaves the folder, or holds what is no part of a plain name.
    """
    parts = path.split("/")
    if (
        not path
        or any(part in {"", ".", ".."} or part != part.strip() for part in parts)
        or parts[0] == CONTROL_FOLDER
        or any(character < " " or character in '\\:*?"<>|\x7f' for character in path)
        or len(path) > 1024
    ):
        raise DataError(f"{path[:200]!r} is no path of a file below the destination")
    return path


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A line of a checksum list."""

    path: str
    sha256: str
    size: int | None


def parse_list(text: str, *, source: str) -> Iterator[Listed]:
    """Lines ``SHA-256``, two blanks (one in PhysioNet's), path, and where known two blanks and the size in bytes.

    Raises:
        DataError: a line is none; ``source`` is named.
    """
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        checksum, _, rest = line.partition(" ")
        match = _LINE.fullmatch(f"{checksum.lower()}  {rest.strip()}")
        if match is None:
            raise DataError(f"{source}: line {number} is not a SHA-256 and a path")
        yield Listed(path=safe_path(match[2]), sha256=match[1], size=int(match[3]) if match[3] else None)


def packaged_list(name: str) -> list[Listed]:
    """A list that comes with tusp, as the corpus's owner published it."""
    file = files("tusp.datasets.fetching") / "lists" / f"{name}.txt"
    return list(parse_list(file.read_text(encoding="utf-8"), source=f"{name}.txt"))


def name_of(path: str) -> str:
    """Last part of a path below the destination."""
    return PurePosixPath(path).name
