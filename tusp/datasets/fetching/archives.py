"""Files out of zip and tar archives: by names of ours, never by theirs; no links, no bombs, bounded memory.

A zip on a server is read by range, so that one night of a large archive can be fetched without the rest.
"""

from __future__ import annotations

import errno
import gzip
import io
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import requests

from tusp.datasets.fetching.client import Again, Attempts, Client, FileRefused, HostRefused, Stopped
from tusp.datasets.fetching.items import Item, what_is_wrong
from tusp.datasets.fetching.transfer import Advance, Part
from tusp.platform.errors import DataError

MOST_LISTING_BYTES: Final = 2**24
"""Largest table of contents that is read (more than 100,000 files)."""
MOST_RATIO: Final = 100
"""Highest compression that is believed: deflate packs zeros 1,000 to 1, recordings at most 10 to 1."""
_CHUNK: Final = 2**18
_NETWORK_CHUNK: Final = 2**14
_DAMAGED: Final = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    ValueError,  # a number in a header that is none, or too large
    IndexError,
    struct.error,
    OverflowError,
    RuntimeError,  # an encrypted member, or a compression that Python does not know
)
_RANGE: Final = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})")


@dataclass(frozen=True, kw_only=True)
class Member:
    """A regular file of an archive."""

    name: str
    size: int
    crc32: str | None
    """Checksum in a zip's table of contents, 8 hex digits."""


def _checked_name(where: str, name: str) -> str:
    """The name, when it stays below whatever folder it is put into; an archive with another one is hostile."""
    parts = re.split(r"[/\\]", name)
    if not name:
        raise DataError(f"{where}: refused, holds a member without a name")
    if name.startswith(("/", "\\")) or ".." in parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise DataError(f"{where}: refused, holds {name[:200]!r}, which leaves the folder it is unpacked into")
    return name


def _check_size(where: str, name: str, size: int, packed: int) -> None:
    if size > MOST_RATIO * packed + _CHUNK:
        raise DataError(f"{where}: refused, up to {name[:200]!r} {packed} bytes unpack to {size}")


class _Bounded(io.BufferedReader):
    """A file whose single reads are bounded: a zip's whole table of contents is one read, so is a tar's long header."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MOST_LISTING_BYTES:
            raise DataError(f"an archive with a table of contents or a header of {size} bytes")
        return super().read(size)


class _Ranges(io.RawIOBase):
    """A file on a server, read by range at any position; it must stay the same version throughout."""

    def __init__(self, client: Client, url: str) -> None:
        self._client, self._url = client, url
        self._position = 0
        self._version: tuple[str | None, int] | None = None
        self._stream: Iterator[bytes] | None = None
        self._answer = ExitStack()
        self._ahead = b""
        self.total = client.persistently(self._first)

    def _first(self) -> int:
        with self._client.answer("GET", self._url, {"Range": "bytes=0-0"}) as response:
            return self._checked(response, 0)

    def _checked(self, response: requests.Response, start: int) -> int:
        shown = self._client.shown(self._url)
        match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if response.status_code == 416 and self._version is not None:
            raise FileRefused(f"{shown}: changed while it was read; repeat the command")
        if response.status_code != 206 or match is None or int(match[1]) != start:
            raise HostRefused(
                f"{shown}: the server gives no parts of this archive; download it whole and give it with --archive"
            )
        version = (response.headers.get("ETag"), int(match[2]))
        if self._version is not None and version != self._version:
            raise FileRefused(f"{shown}: changed while it was read; repeat the command")
        self._version = version
        return version[1]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        target = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.total}[whence]
        if target != self._position:
            self._hang_up()
            self._position = max(0, target)
        return self._position

    def _hang_up(self) -> None:
        self._answer.close()
        self._stream, self._ahead = None, b""

    def close(self) -> None:
        self._hang_up()
        super().close()

    def readinto(self, buffer: Any, /) -> int:
        if self._position >= self.total:
            return 0
        attempts = Attempts(self._client)
        while not self._ahead:
            if self._client.stop.is_set():
                raise Stopped
            try:
                self._ahead = self._next()
            except Again as error:
                self._hang_up()
                attempts.failed(error)
        count = min(len(buffer), len(self._ahead))
        buffer[:count] = self._ahead[:count]
        self._ahead = self._ahead[count:]
        self._position += count
        return count

    def _next(self) -> bytes:
        if self._stream is None:
            # The answer outlives this call: the next read goes on where this one ends.
            answer = self._client.answer("GET", self._url, {"Range": f"bytes={self._position}-"})
            response = self._answer.enter_context(answer)
            self._checked(response, self._position)
            self._stream = response.iter_content(_NETWORK_CHUNK)
        try:
            chunk = next(self._stream, b"")
        except requests.RequestException as error:
            raise Again(f"{self._client.shown(self._url)}: the connection broke") from error
        if not chunk:
            raise Again(f"{self._client.shown(self._url)}: the connection ended early")
        return chunk


@contextmanager
def _damage_named(where: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise DataError(f"{where}: not a whole zip or tar archive ({error})") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: the table of contents points before the file's beginning
            raise
        raise DataError(f"{where}: not a whole zip archive (an entry lies outside the file)") from error
    except DataError as error:
        if str(error).startswith("an archive"):
            raise DataError(f"{where}: refused, {error}") from error
        raise


@contextmanager
def open_zip(client: Client, place: str) -> Iterator[zipfile.ZipFile]:
    """A zip archive on a server (by range) or on the disk.

    Raises:
        DataError: it is no zip, or its table of contents is absurd.
        FileRefused, HostRefused: the server does not give it.
    """
    where = client.shown(place)
    remote = place.startswith(("http://", "https://"))
    raw: io.RawIOBase = _Ranges(client, place) if remote else io.FileIO(place)
    with raw, _damage_named(where), _Bounded(raw, _CHUNK) as file, zipfile.ZipFile(file) as archive:
        yield archive


def zip_members(archive: zipfile.ZipFile, where: str) -> list[Member]:
    """The regular files of a zip; every name and size is checked.

    Raises:
        DataError: a name leaves the folder, or a size cannot be true.
    """
    members, unpacked = [], 0
    for info in archive.infolist():
        name = _checked_name(where, info.filename)
        kind = (info.external_attr >> 16) & 0o170000
        if info.is_dir() or kind not in {0, 0o100000} or info.flag_bits & 1:
            continue  # folders, links, devices and encrypted files are never unpacked
        unpacked += info.file_size
        _check_size(where, name, info.file_size, info.compress_size)
        _check_size(where, name, unpacked, archive.start_dir)
        members.append(Member(name=name, size=info.file_size, crc32=f"{info.CRC:08x}"))
    return members


def _unpacked(path: Path) -> _Bounded:
    with path.open("rb") as stream:
        magic = stream.read(6)
    if magic.startswith(b"\x1f\x8b"):
        return _Bounded(gzip.open(path), _CHUNK)
    if magic == b"\xfd7zXZ\0":
        return _Bounded(lzma.open(path), _CHUNK)
    return _Bounded(io.FileIO(path), _CHUNK)


def tar_members(archive: tarfile.TarFile, where: str, packed: int) -> Iterator[tuple[Member, tarfile.TarInfo]]:
    """The regular files of a tar, in order; every name and the sum of the sizes is checked.

    Raises:
        DataError: a name leaves the folder, or the sizes cannot be true.
    """
    unpacked = 0
    for info in archive:
        name = _checked_name(where, info.name)
        unpacked += info.size
        _check_size(where, name, unpacked, packed)
        if info.isreg():
            yield Member(name=name, size=info.size, crc32=None), info


def _copy(source: IO[bytes], part: Part, size: int, client: Client, advance: Advance) -> None:
    part.discard()
    part.path.parent.mkdir(parents=True, exist_ok=True)
    left = size
    with part.path.open("wb") as stream:
        while left:
            if client.stop.is_set():
                raise Stopped
            block = _unpacked_block(source, min(_CHUNK, left))
            if not block:
                raise DataError(f"ends {left} bytes early")
            stream.write(block)
            advance(len(block))
            left -= len(block)
        _unpacked_block(source, 1)  # zipfile compares the checksum at the end only


def _unpacked_block(source: IO[bytes], size: int) -> bytes:
    """At most so many bytes of a member."""
    try:
        return source.read(size)
    except OSError as error:
        if error.errno is not None:  # the disk's or the network's
            raise
        raise DataError(f"cannot be unpacked ({error})") from error  # bzip2 says so of bytes that are not its own


def unpack_member(client: Client, item: Item, part: Part, target: Path, advance: Advance) -> None:
    """Take one member out of the zip at ``item.url`` to ``target``, checked by size and CRC-32.

    Raises:
        DataError: the archive or the member is damaged.
        FileRefused, HostRefused: the server does not give it.
    """
    assert item.member is not None and item.size is not None
    for last in (False, True):
        try:
            with open_zip(client, item.url) as archive, archive.open(item.member) as source:
                try:
                    _copy(source, part, item.size, client, advance)
                except DataError as error:
                    raise DataError(f"{item.path}: {error}") from error
            _finish(item, part, target)
            return
        except DataError:
            # Damaged on the way or changed meanwhile: once more from its beginning.
            advance(-part.size)
            part.discard()
            if last:
                raise


def _finish(item: Item, part: Part, target: Path) -> None:
    wrong = what_is_wrong(part.path, item)
    if wrong is not None:
        raise FileRefused(f"{item.path}: {wrong}")
    part.finish(target)


def unpack_listed(
    client: Client,
    archive: Path,
    wanted: dict[str, Item],
    place: Callable[[Item], tuple[Part, Path]],
    advance: Advance,
) -> Iterator[tuple[Item, DataError | None]]:
    """Take the wanted files out of a local zip or tar (also .tar.gz, .tar.xz); each is checked as if fetched.

    A member stands for the item whose path its name ends with: archives put their own folders on top.

    Yields:
        Every item found, with the reason where it is not the published one.

    Raises:
        DataError: the file is no archive, is damaged, or hostile.
    """
    where = str(archive)

    def item_of(name: str) -> Item | None:
        parts = name.split("/")
        paths = ("/".join(parts[start:]) for start in range(len(parts)))
        return next((wanted[path] for path in paths if path in wanted), None)

    def taken(item: Item, member: Member, source: IO[bytes]) -> DataError | None:
        part, target = place(item)
        try:
            _copy(source, part, member.size, client, advance)
            _finish(item, part, target)
        except (*_DAMAGED, DataError) as error:
            advance(-part.size)
            part.discard()
            return DataError(f"{where}: {member.name}: {error}")
        return None

    with _damage_named(where):
        if zipfile.is_zipfile(archive):
            with open_zip(client, where) as packed:
                found = [(item, member) for member in zip_members(packed, where) if (item := item_of(member.name))]
                for item, member in found:
                    with packed.open(member.name) as source:
                        yield item, taken(item, member, source)
            return
        with _unpacked(archive) as stream_of_tar, tarfile.open(fileobj=stream_of_tar, mode="r:") as opened:
            for member, info in tar_members(opened, where, archive.stat().st_size):
                listed = item_of(member.name)
                stream = opened.extractfile(info) if listed is not None else None
                if listed is not None and stream is not None:
                    with stream:
                        yield listed, taken(listed, member, stream)
