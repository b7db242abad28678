"""One file from a server to the disk: continued by range, never stitched from two versions, checked, then renamed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import requests

from tusp.datasets.fetching.client import Again, Attempts, Client, FileRefused, HostRefused, Stopped, is_page
from tusp.datasets.fetching.items import Item, what_is_wrong
from tusp.platform.errors import DataError
from tusp.platform.files import write_json_atomic

Advance = Callable[[int], None]
"""Told how many bytes more (or, when thrown away, fewer) are on the disk."""

_CHUNK: Final = 2**14  # what a broken connection can lose
_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


@dataclass(frozen=True, kw_only=True)
class _Version:
    """Which version of a file the unfinished part belongs to."""

    etag: str | None
    modified: str | None
    total: int | None

    @property
    def validator(self) -> str | None:
        """What If-Range may say: a strong ETag, or a date (RFC 9110, section 13.1.5)."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.modified

    def differs(self, other: _Version) -> bool:
        """Whether two answers are certainly of different versions."""
        pairs = ((self.etag, other.etag), (self.total, other.total), (self.modified, other.modified))
        return any(one is not None and two is not None and one != two for one, two in pairs)


class Part:
    """The unfinished file of an item, and which version of it that is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._about = path.with_name(path.name + ".json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self) -> _Version | None:
        """Version that was begun; None where that is not known, so that nothing may be added to the part."""
        try:
            found = json.loads(self._about.read_text(encoding="utf-8"))
            version = _Version(**found)
        except (FileNotFoundError, ValueError, TypeError):
            return None
        texts = (version.etag, version.modified)
        if not all(text is None or isinstance(text, str) for text in texts):
            return None
        return version if version.total is None or isinstance(version.total, int) else None

    def begin(self, version: _Version) -> None:
        """Start anew with this version; noted before the first byte is written."""
        self.discard()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(self._about, asdict(version))

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)

    def finish(self, target: Path) -> None:
        """Give the whole and checked file its final name."""
        with self.path.open("rb") as stream:
            os.fsync(stream.fileno())
        target.parent.mkdir(parents=True, exist_ok=True)
        self.path.replace(target)
        self._about.unlink(missing_ok=True)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 19 else None


def _version_of(response: requests.Response, total: int | None) -> _Version:
    return _Version(etag=response.headers.get("ETag"), modified=response.headers.get("Last-Modified"), total=total)


def _continue(client: Client, item: Item, part: Part, advance: Advance) -> None:
    """One request: bring the part further, or to its end.

    Raises:
        Again: it is not whole yet.
        FileRefused, HostRefused: it never will be.
    """
    name, version, have = client.shown(item.url), part.version(), part.size
    # What nothing published can vouch for is not pieced together.
    resumable = have > 0 and version is not None and item.digest is not None
    if have and not resumable:
        part.discard()
        advance(-have)
        have = 0
    headers = {}
    if have and version is not None:
        headers["Range"] = f"bytes={have}-"
        if version.validator:
            headers["If-Range"] = version.validator
    with client.answer("GET", item.url, headers) as response:
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise FileRefused(f"{name}: the server sends it compressed although asked not to")
        if response.status_code == 416:
            whole = response.headers.get("Content-Range", "") == f"bytes */{have}"
            if have and (whole or item.size == have):
                return  # the part lacked nothing but its new name
            part.discard()
            advance(-have)
            raise Again(f"{name}: the server has no byte {have}", wait=0 if have else None)
        if response.status_code == 206:
            match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            start = int(match[1]) if match else None
            total = (_number(match[3]) if match else None) or (version.total if version else None)
            stale = version is None or version.differs(_version_of(response, total))
            if start != have or stale or not have:
                part.discard()
                advance(-have)
                raise Again(f"{name}: the file changed between two requests, or another range came", wait=0)
        else:
            total = _number(response.headers.get("Content-Length"))
            advance(-have)
            have = 0
            part.begin(_version_of(response, total))
        if item.size is not None and total is not None and total != item.size:
            _refuse_if_page(client, item, response)
            part.discard()
            advance(-have)
            raise FileRefused(f"{name}: the server offers {total} bytes, {item.size} are published")
        _append(client, item, part, response, have=have, total=total, advance=advance)


def _append(
    client: Client,
    item: Item,
    part: Part,
    response: requests.Response,
    *,
    have: int,
    total: int | None,
    advance: Advance,
) -> None:
    expected = item.size if item.size is not None else total
    with part.path.open("ab") as stream:
        for chunk in response.iter_content(_CHUNK):
            if client.stop.is_set():
                raise Stopped
            if have == 0 and is_page(response, chunk):
                raise _page(client, item)
            have += len(chunk)
            if expected is not None and have > expected:
                part.discard()
                advance(-(have - len(chunk)))
                raise FileRefused(f"{client.shown(item.url)}: more than the {expected} bytes it should have")
            stream.write(chunk)
            advance(len(chunk))
    if expected is not None and have < expected:
        raise Again(f"{client.shown(item.url)}: the connection ended after {have} of {expected} bytes")


def _refuse_if_page(client: Client, item: Item, response: requests.Response) -> None:
    if is_page(response, next(response.iter_content(1024), b"")):
        raise _page(client, item)


def _page(client: Client, item: Item) -> HostRefused:
    return HostRefused(
        f"{client.shown(item.url)}: the server sent a web page (a login or an error) instead of the file"
    )


def download(client: Client, item: Item, part: Part, target: Path, advance: Advance) -> None:
    """Fetch ``item`` into ``part`` and rename it to ``target`` when it is whole and right.

    A wrong checksum throws the part away; the file is fetched from its beginning once more.

    Raises:
        FileRefused: this file cannot be had.
        HostRefused: no file can be had from this server.
        Stopped: interrupted; the part stays for the next time.
    """
    for last in (False, True):
        attempts, furthest = Attempts(client), part.size
        while True:
            if client.stop.is_set():
                raise Stopped
            try:
                _continue(client, item, part, advance)
                break
            except Again as error:
                attempts.failed(error, progress=part.size > furthest)
                furthest = max(furthest, part.size)
        wrong = what_is_wrong(part.path, item, stopped=client.stop.is_set)
        if client.stop.is_set():
            raise Stopped
        if wrong is None:
            part.finish(target)
            return
        advance(-part.size)
        part.discard()
        if last:
            raise FileRefused(f"{client.shown(item.url)}: {wrong}; fetched twice")


def set_aside(path: Path, control: Path, item: Item) -> Path:
    """Move a file that is not the published one out of the way; nothing of the user's is deleted."""
    folder = control / "set-aside"
    for number in range(1, 1000):
        aside = folder / f"{item.path}.{number}"
        if not aside.exists():
            aside.parent.mkdir(parents=True, exist_ok=True)
            path.replace(aside)
            return aside
    raise DataError(f"{folder}: full of files that were set aside; look at them and delete them")
