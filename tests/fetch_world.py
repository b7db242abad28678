"""What NSRR and the others would serve, from a server of our own, for tests of fetching."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from fetch_server import Served, Server, serving

from tusp.datasets.fetching.client import Patience
from tusp.datasets.fetching.run import Report, fetch

TOKEN = "1234-se/cret"
HASTY = Patience(connect_seconds=5, read_seconds=2, attempts=4, first_wait_seconds=0.01)
FOLDERS = [
    f"polysomnography/{kind}/shhs{visit}"
    for visit in (1, 2)
    for kind in ("edfs", "annotations-events-nsrr", "annotations-events-profusion")
]
LISTING = "api/v1/datasets/shhs/files.json"
EDF = "polysomnography/edfs/shhs1/shhs1-200001.edf"
XML = "polysomnography/annotations-events-nsrr/shhs1/shhs1-200001-nsrr.xml"
PREFIX = f"datasets/shhs/files/a/{TOKEN}/m/tusp/"


@pytest.fixture(autouse=True, name="no_proxy")
def no_proxy_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("TUSP_FETCH_URL", "TUSP_NSRR_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def nsrr(bodies: dict[str, bytes]) -> dict[str, Served]:
    """A server that answers as NSRR does: profile, listings with MD5, files behind the token."""
    files = {"api/v1/account/profile.json": Served(body=b'{"authenticated": true}', query="auth_token=1234-se%2Fcret")}
    files |= {PREFIX + path: Served(body=body) for path, body in bodies.items()}
    return files


@pytest.fixture(name="server")
def server_fixture() -> Iterator[Server]:
    with serving() as state:
        yield state


def listing(server: Server, bodies: dict[str, bytes]) -> None:
    """Serve these files with NSRR's listing of every folder; what belongs to none is in the first."""
    server.files |= nsrr(bodies)
    for folder in FOLDERS:
        rows: list[dict[str, object]] = [
            {
                "full_path": path,
                "is_file": True,
                "file_size": len(body),
                "file_checksum_md5": hashlib.md5(body).hexdigest(),
                "archived": False,
            }
            for path, body in bodies.items()
            if path.startswith(f"{folder}/") or (folder == FOLDERS[0] and not path.startswith("polysomnography/"))
        ]
        rows.append({"full_path": f"{folder}/old", "is_file": False, "file_size": 4096, "file_checksum_md5": None})
        server.files[f"{LISTING}?{folder}"] = Served(body=json.dumps(rows).encode())


def relisted(server: Server, **facts: object) -> None:
    """Change what the listing says of the first file."""
    served = server.files[f"{LISTING}?{FOLDERS[0]}"]
    rows = json.loads(served.body)
    rows[0] |= facts
    served.body = json.dumps(rows).encode()


def shhs(server: Server, dest: Path, *, patience: Patience = HASTY, **options: object) -> Report:
    return fetch("shhs", dest, base_url=server.url, token=TOKEN, patience=patience, **options)  # type: ignore[arg-type]


def one_file(server: Server, size: int = 300_000, **faults: object) -> bytes:
    """Serve one night of one file that misbehaves."""
    body = noise(size)
    listing(server, {EDF: body})
    server.files[PREFIX + EDF] = Served(body=body, **faults)  # type: ignore[arg-type]
    return body


def left_over(dest: Path) -> list[str]:
    """Files outside the control folder."""
    return sorted(
        path.relative_to(dest).as_posix()
        for path in dest.rglob("*")
        if path.is_file() and ".tusp-fetch" not in path.relative_to(dest).parts
    )


def failure(report: Report) -> str:
    (outcome,) = report.failed
    assert outcome.reason is not None and "\n" not in outcome.reason
    return outcome.reason
