"""Where the seven corpora lie, and which files belong to a night.

Addresses as their owners give them: PhysioNet (sleep-edfx 1.0.0, challenge-2018 1.0.0), the DCSM share at ERDA that
psg-utils reads, Zenodo record 15900394 and the repository dreem-learning-evaluation for the Dreem Open Datasets, and
NSRR's API for SHHS (https://github.com/nsrr/sleepdata.org/wiki).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from tusp.datasets.fetching.archives import open_zip, zip_members
from tusp.datasets.fetching.client import Client, FileRefused, HostRefused
from tusp.datasets.fetching.items import Digest, Item, Listed, name_of, packaged_list, parse_list, safe_path
from tusp.platform.errors import DataError, UserError
from tusp.platform.files import write_text_atomic

_PHYSIONET: Final = "https://physionet.org/files"
_UUID: Final = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_MOST_LISTING: Final = 2**24
SCORERS: Final = 5
NSRR_TOKEN: Final = "TUSP_NSRR_TOKEN"
NO_TOKEN: Final = (
    "shhs is given out under a data-use agreement: ask for it at https://sleepdata.org/datasets/shhs, then take your"
    f" token from https://sleepdata.org/token and set {NSRR_TOKEN} (or --token)"
)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asked for."""

    client: Client
    control: Path
    """Folder for what the source keeps between calls."""
    base_url: str | None = None
    """A mirror that stands in for the corpus's own address."""
    token: str | None = None
    archive: Path | None = None
    """A downloaded archive of the corpus to unpack instead."""
    recordings: int | None = None
    """Only the first N nights, by name."""
    subjects: Sequence[str] | None = None
    """Only nights of these people."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """How the files of a corpus are found."""

    items: Callable[[Request], Iterable[Item]]
    subject: Callable[[str], str] = field(default=lambda recording: recording)
    """Subject of a recording, as the corpus's adapter names it."""


def chosen(source: Source, request: Request, items: Iterable[Item]) -> list[Item]:
    """The items of the nights that are asked for, night by night.

    Raises:
        UserError: no night is left.
        DataError: two different files have one path.
    """
    nights: dict[str, list[Item]] = {}
    seen: dict[str, Item] = {}
    for item in items:
        # Two files on one path, to the eyes of any file system, would be written by two threads at once.
        before = seen.setdefault(item.path.casefold(), item)
        if before is not item:
            if before == item:
                continue
            raise DataError(f"{request.client.shown(item.url)}: listed twice, with different facts")
        nights.setdefault(item.recording, []).append(item)
    names = sorted(nights)
    if request.subjects is not None:
        wanted = set(request.subjects)
        names = [name for name in names if source.subject(name) in wanted]
    names = names[: request.recordings]
    if not names:
        raise UserError("no recording is left to fetch")
    return [item for name in names for item in sorted(nights[name], key=lambda item: item.path)]


def _url(base: str, path: str) -> str:
    return f"{base.rstrip('/')}/{quote(path)}"


def _listed(rows: Iterable[Listed], base: str, recording: Callable[[str], str | None]) -> Iterable[Item]:
    for row in rows:
        name = recording(row.path)
        if name is not None:
            yield Item(
                path=row.path,
                url=_url(base, row.path),
                recording=name,
                size=row.size,
                digest=Digest(algorithm="sha256", value=row.sha256),
            )


def _sleep_edf(folder: str) -> Source:
    def night(path: str) -> str | None:
        return name_of(path)[:6] if path.startswith(f"{folder}/") else None

    def items(request: Request) -> Iterable[Item]:
        return _listed(packaged_list("sleep-edf"), request.base_url or f"{_PHYSIONET}/sleep-edfx/1.0.0", night)

    return Source(items=items, subject=lambda recording: recording[:5])


def _dcsm(request: Request) -> Iterable[Item]:
    base = request.base_url or "https://sid.erda.dk/share_redirect/fUH3xbOXv8"
    return _listed(packaged_list("dcsm"), base, lambda path: path.partition("/")[0])


def _cinc2018(request: Request) -> Iterable[Item]:
    """Signals, headers and stages by the packaged list; the one-hot labels by the host's own SHA256SUMS.txt."""
    base = request.base_url or f"{_PHYSIONET}/challenge-2018/1.0.0"
    items = list(_listed(packaged_list("cinc2018"), base, lambda path: path.split("/")[1]))
    one_hot = {f"training/{name}/{name}-arousal.mat": name for name in sorted({item.recording for item in items})}
    if request.archive is not None:
        text = ""
    else:
        kept = request.control / "SHA256SUMS.txt"
        if kept.exists():
            text = kept.read_text(encoding="utf-8")
        else:
            try:
                text = request.client.text(_url(base, "SHA256SUMS.txt"), most_bytes=_MOST_LISTING)
            except FileRefused:
                text = ""
            else:
                list(parse_list(text, source=f"{base}/SHA256SUMS.txt"))
                if request.control.is_dir():  # a dry run has made none
                    write_text_atomic(kept, text)
    sums = {row.path: row.sha256 for row in parse_list(text, source="SHA256SUMS.txt") if row.path in one_hot}
    for path, name in one_hot.items():
        if text and path not in sums:
            continue  # the owner's own list says that there is none
        digest = Digest(algorithm="sha256", value=sums[path]) if path in sums else None
        items.append(Item(path=path, url=_url(base, path), recording=name, digest=digest))
    return items


def _dod(name: str) -> Source:
    """Members of the corpus's zip, read by range, and the scorers' lists beside them."""

    def items(request: Request) -> Iterable[Item]:
        base = request.base_url
        place = f"{base.rstrip('/')}/{name}.zip" if base else _zenodo(f"{name}.zip")
        if request.archive is not None:
            place = str(request.archive)
        scorers = (
            f"{base.rstrip('/')}/scorers/{name}"
            if base
            else f"https://raw.githubusercontent.com/Dreem-Organization/dreem-learning-evaluation/master/scorers/{name}"
        )
        with open_zip(request.client, place) as archive:
            members = zip_members(archive, request.client.shown(place))
        found = 0
        for member in members:
            match = re.search(rf"(?:^|/)({_UUID})\.h5$", member.name)
            if match is None or member.name.startswith("__MACOSX"):
                continue
            found += 1
            digest = Digest(algorithm="crc32", value=member.crc32) if member.crc32 else None
            yield Item(
                path=f"{match[1]}.h5",
                url=place,
                recording=match[1],
                size=member.size,
                digest=digest,
                member=member.name,
            )
            for scorer in range(1, SCORERS + 1):
                path = f"scorer_{scorer}/{match[1]}.json"
                yield Item(path=path, url=f"{scorers}/{path}", recording=match[1])
        if not found:
            raise DataError(f"{request.client.shown(place)}: holds no recording (UUID.h5)")

    return Source(items=items)


def _zenodo(file: str) -> str:
    return f"https://zenodo.org/api/records/15900394/files/{file}/content"


_SHHS_FOLDERS: Final = tuple(
    f"polysomnography/{kind}/shhs{visit}"
    for visit in (1, 2)
    for kind in ("edfs", "annotations-events-nsrr", "annotations-events-profusion")
)


def _shhs(request: Request) -> Iterable[Item]:
    """NSRR's listing with its MD5 sums; a token of an approved account is needed."""
    if not request.token:
        raise UserError(NO_TOKEN)
    base = (request.base_url or "https://sleepdata.org").rstrip("/")
    client, token = request.client, request.token

    def asked(place: str, **query: str) -> Any:
        text = client.text(f"{base}{place}?{urlencode({**query, 'auth_token': token})}", most_bytes=_MOST_LISTING)
        try:
            return json.loads(text)
        except ValueError as error:
            raise DataError(f"{client.shown(base + place)}: the answer is not JSON") from error

    try:
        profile = asked("/api/v1/account/profile.json")
    except HostRefused as error:
        raise HostRefused(f"{error}; {NO_TOKEN}") from error
    if not isinstance(profile, Mapping) or profile.get("authenticated") is not True:
        raise UserError(f"sleepdata.org does not know this token; {NO_TOKEN}")
    for folder in _SHHS_FOLDERS:
        rows = asked("/api/v1/datasets/shhs/files.json", path=folder)
        if not isinstance(rows, list):
            raise DataError(f"{base}: the listing of {folder} is no list")
        for row in rows:
            item = _nsrr_item(row, base, token)
            if item is not None:
                yield item


def _nsrr_item(row: Any, base: str, token: str) -> Item | None:
    if not isinstance(row, Mapping) or row.get("is_file") is not True or not isinstance(row.get("full_path"), str):
        return None
    path = safe_path(row["full_path"])
    match = re.match(r"shhs[12]-\d{6}(?=[.-])", name_of(path))
    if match is None:
        return None
    size, md5 = row.get("file_size"), row.get("file_checksum_md5")
    if not isinstance(md5, str) or not re.fullmatch(r"[0-9a-fA-F]{32}", md5):
        md5 = None
    return Item(
        path=path,
        url=f"{base}/datasets/shhs/files/a/{quote(token, safe='')}/m/tusp/{quote(path)}",
        recording=match[0],
        size=size if isinstance(size, int) and not isinstance(size, bool) and size > 0 else None,
        digest=Digest(algorithm="md5", value=md5.lower()) if md5 else None,
    )


SOURCES: Final[Mapping[str, Source]] = {
    "sedf-sc": _sleep_edf("sleep-cassette"),
    "sedf-st": _sleep_edf("sleep-telemetry"),
    "dcsm": Source(items=_dcsm),
    "cinc2018": Source(items=_cinc2018),
    "shhs": Source(items=_shhs, subject=lambda recording: recording.partition("-")[2]),
    "dod-h": _dod("dodh"),
    "dod-o": _dod("dodo"),
}
"""Corpora that can be fetched, by the name of their adapter."""


def check_base_url(base_url: str) -> str:
    """The address of a mirror as it is.

    Raises:
        UserError: it is none.
    """
    parts = urlsplit(base_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise UserError(f"{base_url!r} is no address of a mirror, such as https://mirror.example/sleep-edfx/1.0.0")
    return base_url
