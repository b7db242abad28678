"""Fetching against a server of our own that drops, truncates, corrupts, redirects and throttles; sockets are real."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fetch_server import PAGE, Served, Server, serving
from typer.testing import CliRunner

from tusp.cli import main
from tusp.datasets.adapters import adapters
from tusp.datasets.fetching import run
from tusp.datasets.fetching.client import Client, HostRefused, Patience
from tusp.datasets.fetching.items import Item, packaged_list, parse_list, safe_path
from tusp.datasets.fetching.make_lists import make_list
from tusp.datasets.fetching.run import Report, fetch
from tusp.datasets.fetching.sources import SOURCES, Request, chosen
from tusp.datasets.simulation import simulate
from tusp.platform.errors import DataError, UserError

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


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.fixture
def server() -> Iterator[Server]:
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


# --- the lists are the published ones ---


def test_the_lists_are_the_published_checksum_files(shared_data: Path) -> None:
    for name, published in (
        ("sleep-edf", "sleep-edf/SHA256SUMS.txt"),
        ("cinc2018", "cinc2018/phys_checksums.txt"),
        ("dcsm", "dcsm/dcsm_checksums.txt"),
    ):
        lines = [line.split() for line in (shared_data / published).read_text().splitlines()]
        assert {(row.sha256, row.path) for row in packaged_list(name)} == {(line[0], line[1]) for line in lines}
        assert len(packaged_list(name)) == len(lines)


def items_of(corpus: str, tmp_path: Path, **options: object) -> list[Item]:
    request = Request(client=Client(patience=HASTY), control=tmp_path, **options)  # type: ignore[arg-type]
    return chosen(SOURCES[corpus], request, SOURCES[corpus].items(request))


def test_the_nights_of_sleep_edf_are_those_of_records(shared_data: Path, tmp_path: Path) -> None:
    items = items_of("sedf-sc", tmp_path) + items_of("sedf-st", tmp_path)
    signals = {item.path for item in items if item.path.endswith("-PSG.edf")}
    assert signals == set((shared_data / "sleep-edf/RECORDS").read_text().split())
    assert len(items) == 2 * len(signals) == 2 * 197
    assert items[0].url == "https://physionet.org/files/sleep-edfx/1.0.0/sleep-cassette/SC4001E0-PSG.edf"


def test_each_list_names_its_source_and_licence() -> None:
    folder = Path(run.__file__).parent / "lists"
    assert sorted(path.stem for path in folder.iterdir()) == ["cinc2018", "dcsm", "sleep-edf"]
    for path in folder.iterdir():
        head = path.read_text().splitlines()[0]
        assert head.startswith("# ") and "https://" in head and ("ODC-By" in head or "CC-BY" in head)


def test_the_number_of_nights_and_files(tmp_path: Path) -> None:
    nights = {
        name: len({item.recording for item in items_of(name, tmp_path)}) for name in ("sedf-sc", "sedf-st", "dcsm")
    }
    assert nights == {"sedf-sc": 153, "sedf-st": 44, "dcsm": 255}
    first = items_of("dcsm", tmp_path, recordings=1)
    assert [item.path.rpartition("/")[2] for item in first] == ["hypnogram.ids", "psg.h5"]
    assert first[1].url.startswith("https://sid.erda.dk/share_redirect/fUH3xbOXv8/tp005f7e68_a084")


def test_a_subset_has_the_people_of_the_card(tmp_path: Path) -> None:
    people = adapters()["sedf-sc"]().card.subsets["sedf-20"]
    items = items_of("sedf-sc", tmp_path, subjects=people)
    assert {item.recording[:5] for item in items} == set(people)
    assert len(items) == 2 * 39  # SC4131: the second night of person 13 was lost
    with pytest.raises(UserError, match=r"sedf-sc has no subset 'sedf-21'; known: .*sedf-20"):
        fetch("sedf-sc", tmp_path, subset="sedf-21")


def test_a_list_is_made_from_a_published_one(tmp_path: Path) -> None:
    (tmp_path / "published").write_text(f"{'AB' * 32} b/x y.edf\n{'0' * 64}  a.edf  12\n")
    assert make_list(tmp_path / "published", tmp_path / "list", "here, free") == 2
    assert (tmp_path / "list").read_text() == f"# here, free\n{'0' * 64}  a.edf  12\n{'ab' * 32}  b/x y.edf\n"


@pytest.mark.parametrize("line", ["0" * 63 + "  a.edf", "<html>", f"{'0' * 64}  ../a.edf", f"{'0' * 64}  /a.edf"])
def test_a_line_that_is_no_checksum_is_refused(line: str) -> None:
    with pytest.raises(DataError):
        list(parse_list(f"{'0' * 64}  b.edf\n{line}\n", source="list.txt"))


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../a", "a/../../b", "a//b", "a/./b", "C:\\a", "a\\..\\b", "a\nb", ".tusp-fetch/lock"]
)
def test_a_path_that_leaves_the_folder_is_refused(path: str) -> None:
    with pytest.raises(DataError, match="no path of a file below"):
        safe_path(path)


# --- whole and verified ---


def test_real_hypnograms_pass_the_official_checksums(server: Server, shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "sleep-edf/hypnograms-edf"
    for path in folder.glob("*.edf"):
        server.files[f"sleep-cassette/{path.name}"] = Served(body=path.read_bytes())
    report = fetch("sedf-sc", tmp_path, recordings=4, base_url=server.url, patience=HASTY)
    states = {outcome.path: (outcome.state, outcome.verified) for outcome in report.files}
    assert {name for name, state in states.items() if state == ("fetched", "sha256")} == {
        f"sleep-cassette/{name}-Hypnogram.edf" for name in ("SC4001EC", "SC4002EC", "SC4011EH", "SC4012EC")
    }
    # Signals are not on this server: named, the others are not lost.
    assert len(report.failed) == 4 and all("404" in (outcome.reason or "") for outcome in report.failed)


def test_files_arrive_whole_and_are_not_fetched_again(server: Server, tmp_path: Path) -> None:
    bodies = {EDF: noise(200_000), XML: b"<PSGAnnotation/>" * 50}
    listing(server, bodies)
    report = shhs(server, tmp_path / "nights")
    assert report.count("fetched") == 2 and report.bytes == sum(map(len, bodies.values()))
    assert report.how_verified == "2 by MD5"
    for path, body in bodies.items():
        assert (tmp_path / "nights" / path).read_bytes() == body
    before = server.gets()
    again = shhs(server, tmp_path / "nights")
    assert again.count("present") == 2
    assert server.gets()[PREFIX + EDF] == before[PREFIX + EDF] == 1
    assert not (tmp_path / "nights/.tusp-fetch/parts").exists()


def test_what_is_verified_is_not_read_again_but_what_changed_is(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_file(server)
    shhs(server, tmp_path)
    hashed = []
    true = run.what_is_wrong

    def counting(path: Path, item: Item, **options: object) -> str | None:
        hashed.append(item.path)
        return true(path, item, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(run, "what_is_wrong", counting)
    assert shhs(server, tmp_path).count("present") == 1
    assert hashed == []
    os.utime(tmp_path / EDF)  # touched: same bytes, hashed once more, not fetched
    assert shhs(server, tmp_path).count("present") == 1
    assert hashed == [EDF]
    assert server.gets()[PREFIX + EDF] == 1


def test_a_wrong_file_in_place_is_set_aside_and_fetched(server: Server, tmp_path: Path) -> None:
    body = one_file(server)
    (tmp_path / EDF).parent.mkdir(parents=True)
    (tmp_path / EDF).write_bytes(b"another night")
    report = shhs(server, tmp_path)
    assert (tmp_path / EDF).read_bytes() == body
    assert (tmp_path / f".tusp-fetch/set-aside/{EDF}.1").read_bytes() == b"another night"
    assert len(report.notes) == 1 and "set aside" in report.notes[0]


def test_a_right_file_in_place_is_taken_as_it_is(server: Server, tmp_path: Path) -> None:
    body = one_file(server)
    (tmp_path / EDF).parent.mkdir(parents=True)
    (tmp_path / EDF).write_bytes(body)
    assert shhs(server, tmp_path).count("present") == 1
    assert server.gets()[PREFIX + EDF] == 0


def test_only_the_first_nights_with_all_their_files(server: Server, tmp_path: Path) -> None:
    bodies = {
        f"polysomnography/{kind}/shhs1/shhs1-20000{night}{end}": noise(1000, night)
        for night in (3, 1, 2)
        for kind, end in (("edfs", ".edf"), ("annotations-events-nsrr", "-nsrr.xml"))
    }
    listing(server, bodies)
    shhs(server, tmp_path, recordings=2)
    assert [path.rpartition("/")[2] for path in left_over(tmp_path)] == [
        "shhs1-200001-nsrr.xml",
        "shhs1-200002-nsrr.xml",
        "shhs1-200001.edf",
        "shhs1-200002.edf",
    ]


def test_several_files_come_at_the_same_time(server: Server, tmp_path: Path) -> None:
    listing(server, {f"polysomnography/edfs/shhs1/shhs1-20000{n}.edf": noise(20_000, n) for n in range(8)})
    for served in server.files.values():
        served.bytes_per_second = 100_000 if len(served.body) == 20_000 else None
    shhs(server, tmp_path, jobs=4)
    assert server.most_at_once == 4


# --- a server that misbehaves ---


def test_a_dropped_connection_is_continued_by_range(server: Server, tmp_path: Path) -> None:
    body = one_file(server, drop_after=70_000, drops=3)
    assert shhs(server, tmp_path).count("fetched") == 1
    assert (tmp_path / EDF).read_bytes() == body
    ranges = server.ranges(PREFIX + EDF)
    assert len(ranges) == 4 and ranges[0] is None
    assert all(asked is not None and asked != "bytes=0-" for asked in ranges[1:])
    assert server.sent < 1.5 * len(body)


def test_progress_counts_every_byte_once(server: Server, tmp_path: Path) -> None:
    body = one_file(server, drop_after=100_000, drops=2)
    counted: list[int] = []
    totals: list[int | None] = []
    progress = run.Progress(begin=lambda total, files: totals.append(total), advance=counted.append)
    shhs(server, tmp_path, progress=progress)
    assert sum(counted) == len(body) and totals == [len(body)]


def test_a_server_that_ignores_ranges_is_asked_for_all(server: Server, tmp_path: Path) -> None:
    body = one_file(server, ranges=False, drop_after=100_000, drops=2)
    assert shhs(server, tmp_path).count("fetched") == 1
    assert (tmp_path / EDF).read_bytes() == body


@pytest.mark.parametrize("etag", ["strong", "weak", None])
def test_a_file_that_changes_between_two_ranges_is_not_stitched(
    server: Server, tmp_path: Path, etag: str | None
) -> None:
    new = noise(300_000, 1)
    listing(server, {EDF: new})  # the listing is of the new version
    server.files[PREFIX + EDF] = Served(
        body=noise(300_000, 2), change_after_first=new, drop_after=150_000, drops=1, etag=etag
    )
    assert shhs(server, tmp_path).count("fetched") == 1
    assert (tmp_path / EDF).read_bytes() == new
    if etag == "strong":  # the server itself says so, in its answer to the second request
        assert server.gets()[PREFIX + EDF] == 2


def test_another_range_than_asked_for_is_not_used(server: Server, tmp_path: Path) -> None:
    body = one_file(server, drop_after=100_000, drops=1, shifted_ranges=True)
    assert shhs(server, tmp_path).count("fetched") == 1
    assert (tmp_path / EDF).read_bytes() == body


def test_a_corrupted_file_is_fetched_once_more(server: Server, tmp_path: Path) -> None:
    body = one_file(server, corrupt=1)
    assert shhs(server, tmp_path).count("fetched") == 1
    assert (tmp_path / EDF).read_bytes() == body
    assert server.gets()[PREFIX + EDF] == 2


def failure(report: Report) -> str:
    (outcome,) = report.failed
    assert outcome.reason is not None and "\n" not in outcome.reason
    return outcome.reason


def test_a_file_that_stays_wrong_is_refused_and_not_left(server: Server, tmp_path: Path) -> None:
    one_file(server, corrupt=99)
    assert "published is" in failure(shhs(server, tmp_path)) and left_over(tmp_path) == []
    assert not list(tmp_path.rglob("*.part"))


def test_a_short_file_is_refused(server: Server, tmp_path: Path) -> None:
    body = one_file(server, truncate_to=299_999)
    reason = failure(shhs(server, tmp_path))
    assert f"offers 299999 bytes, {len(body)} are published" in reason and left_over(tmp_path) == []


@pytest.mark.parametrize(("announce", "said"), [(299_000, "offers 299000"), (400_000, "offers 400000")])
def test_a_wrong_length_is_refused(server: Server, tmp_path: Path, announce: int, said: str) -> None:
    one_file(server, announce=announce)
    assert said in failure(shhs(server, tmp_path)) and left_over(tmp_path) == []


@pytest.mark.parametrize("announce", [250_000, 350_000])
def test_a_wrong_length_is_refused_when_no_size_is_published(server: Server, tmp_path: Path, announce: int) -> None:
    one_file(server, announce=announce)
    relisted(server, file_size=None)
    assert len(shhs(server, tmp_path).failed) == 1 and left_over(tmp_path) == []


@pytest.mark.parametrize("page_type", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_login_page_is_refused_at_once(server: Server, tmp_path: Path, page_type: str) -> None:
    one_file(server, page=True, page_type=page_type)
    with pytest.raises(HostRefused, match="sent a web page") as refused:
        shhs(server, tmp_path)
    assert TOKEN not in str(refused.value) and "se%2Fcret" not in str(refused.value)
    assert server.gets()[PREFIX + EDF] == 1 and left_over(tmp_path) == []


def test_a_page_of_the_published_length_is_refused_too(server: Server, tmp_path: Path) -> None:
    one_file(server, size=len(PAGE), page=True)
    with pytest.raises(HostRefused, match="sent a web page"):
        shhs(server, tmp_path)


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_waited_for(server: Server, tmp_path: Path, status: int) -> None:
    body = one_file(server, busy=1, busy_status=status, retry_after="1")
    began = time.monotonic()
    assert shhs(server, tmp_path).count("fetched") == 1
    assert time.monotonic() - began >= 1.0
    assert (tmp_path / EDF).read_bytes() == body


def test_a_server_that_stays_busy_is_given_up(server: Server, tmp_path: Path) -> None:
    one_file(server, busy=99, retry_after=None)
    assert "503" in failure(shhs(server, tmp_path)) and server.gets()[PREFIX + EDF] == 4


def test_a_server_that_asks_for_an_hour_is_not_waited_for(server: Server, tmp_path: Path) -> None:
    one_file(server, busy=99, retry_after="3600")
    with pytest.raises(HostRefused, match="come back in 3600 s"):
        shhs(server, tmp_path)


def test_a_redirect_within_the_web_is_followed(server: Server, tmp_path: Path) -> None:
    body = one_file(server)
    server.files["elsewhere/1.edf"] = Served(body=body, drop_after=100_000, drops=1)
    server.files[PREFIX + EDF].redirect = "/elsewhere/1.edf"
    assert shhs(server, tmp_path).count("fetched") == 1
    assert server.ranges("elsewhere/1.edf")[1] not in {None, "bytes=0-"}


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/", ""])
def test_a_redirect_out_of_the_web_is_refused(server: Server, tmp_path: Path, target: str) -> None:
    one_file(server, redirect=target)
    with pytest.raises(HostRefused, match=r"redirects to .*, refused"):
        shhs(server, tmp_path)
    assert left_over(tmp_path) == []


def test_a_redirect_in_a_circle_ends(server: Server, tmp_path: Path) -> None:
    one_file(server, redirect=f"/{PREFIX.replace('se/cret', 'se%2Fcret')}{EDF}")
    with pytest.raises(HostRefused, match="more than 5 redirects"):
        shhs(server, tmp_path)


def test_from_https_to_http_is_refused() -> None:
    client = Client(patience=HASTY)
    with pytest.raises(HostRefused, match="from https to http"):
        client._redirected("https://physionet.org/files/x", "http://physionet.org/files/x")


def test_a_slow_server_is_no_fault(server: Server, tmp_path: Path) -> None:
    body = one_file(server, size=60_000, bytes_per_second=60_000)
    assert shhs(server, tmp_path, patience=replace(HASTY, read_seconds=0.5)).count("fetched") == 1
    assert (tmp_path / EDF).read_bytes() == body


def test_a_server_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute, pytest.raises(UserError, match="no answer in time"):
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        fetch("shhs", tmp_path, base_url=url, token="t", patience=replace(HASTY, read_seconds=0.1, attempts=2))


def test_no_server_at_all_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(HostRefused, match=rf"^127.0.0.1:{port}: cannot be reached .*; tried 2 times$"):
        fetch("sedf-sc", tmp_path, base_url=f"http://127.0.0.1:{port}", patience=replace(HASTY, attempts=2))


def test_a_server_that_refuses_to_tell_sizes_is_asked_for_the_files(server: Server, tmp_path: Path) -> None:
    one_file(server, head_status=403)
    relisted(server, file_size=None)
    assert shhs(server, tmp_path).count("fetched") == 1


def test_access_denied_ends_the_whole_fetch(server: Server, tmp_path: Path) -> None:
    listing(server, {f"polysomnography/edfs/shhs1/shhs1-20000{n}.edf": noise(100, n) for n in range(9)})
    for path, served in server.files.items():
        served.status = 403 if path.startswith(PREFIX) else 200
    with pytest.raises(HostRefused, match="refuses access \\(403 Forbidden\\)"):
        shhs(server, tmp_path, jobs=2)
    assert sum(count for path, count in server.gets().items() if path.startswith(PREFIX)) <= 4


# --- interrupted ---


def command(server: Server, dest: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TUSP_")}
    environment |= {"TUSP_NSRR_TOKEN": TOKEN, "TUSP_FETCH_URL": server.url, "NO_PROXY": "127.0.0.1"}
    tusp = str(Path(sys.executable).with_name("tusp"))
    return subprocess.Popen(
        [tusp, "datasets", "fetch", "shhs", str(dest), "--jobs", "1"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def part_size(dest: Path) -> int:
    return sum(path.stat().st_size for path in dest.rglob("*.part"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_fetch_is_continued(server: Server, tmp_path: Path, number: signal.Signals) -> None:
    small, large = noise(1000, 1), noise(400_000, 2)
    later = EDF.replace("200001", "200002")
    listing(server, {EDF: small, later: large})
    server.files[PREFIX + later].bytes_per_second = 100_000
    process = command(server, tmp_path)
    deadline = time.monotonic() + 30
    while part_size(tmp_path) < 60_000 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    assert b"Traceback" not in said
    assert said.endswith(b"go on from here\n") == (number == signal.SIGINT)
    had = part_size(tmp_path)
    assert 60_000 <= had < 400_000 and left_over(tmp_path) == [EDF]  # nothing half under its final name

    server.files[PREFIX + later].bytes_per_second = None
    process = command(server, tmp_path)
    out, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert b"1 fetched, 1 there already" in out and b"next: tusp datasets add shhs" in out
    assert (tmp_path / later).read_bytes() == large
    assert server.gets()[PREFIX + EDF] == 1
    assert server.ranges(PREFIX + later)[-1] == f"bytes={had}-"


def test_a_part_without_its_record_is_not_built_upon(server: Server, tmp_path: Path) -> None:
    body = one_file(server)
    part = tmp_path / f".tusp-fetch/parts/{EDF}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(body[:1000])
    shhs(server, tmp_path)
    assert server.ranges(PREFIX + EDF) == [None]


def test_a_cut_record_of_verified_files_is_passed_over(server: Server, tmp_path: Path) -> None:
    one_file(server)
    shhs(server, tmp_path)
    record = tmp_path / ".tusp-fetch/verified.jsonl"
    record.write_text(record.read_text()[:-20])
    assert shhs(server, tmp_path).count("present") == 1
    known = [line for line in record.read_text().splitlines() if line.endswith("}")]
    assert len(known) == 1 and json.loads(known[0])["path"] == EDF  # not glued to what was cut
    assert server.gets()[PREFIX + EDF] == 1


def test_two_fetches_into_one_folder_do_not_meet(server: Server, tmp_path: Path) -> None:
    one_file(server, size=100_000, bytes_per_second=100_000)
    first = threading.Thread(target=shhs, args=(server, tmp_path))
    first.start()
    deadline = time.monotonic() + 10
    while not server.gets()[PREFIX + EDF] and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(UserError, match="another fetch into this folder is running"):
        shhs(server, tmp_path)
    first.join()


# --- before anything is fetched ---


def test_the_disk_is_looked_at_beforehand(server: Server, tmp_path: Path) -> None:
    one_file(server)
    relisted(server, file_size=10**18)
    with pytest.raises(UserError, match=r"1000000\.0 TB are needed, .* are free; free some"):
        shhs(server, tmp_path)
    assert server.gets()[PREFIX + EDF] == 0


def test_sizes_that_are_not_published_are_asked_for(server: Server, tmp_path: Path) -> None:
    server.files["sleep-cassette/SC4001E0-PSG.edf"] = Served(body=b"", announce=10**18)
    server.files["sleep-cassette/SC4001EC-Hypnogram.edf"] = Served(body=b"x" * 4000)
    report = fetch("sedf-sc", tmp_path / "new", recordings=1, base_url=server.url, dry_run=True, patience=HASTY)
    assert [(outcome.state, outcome.size) for outcome in report.files] == [("to fetch", 10**18), ("to fetch", 4000)]
    assert not (tmp_path / "new").exists()  # a dry run writes nothing
    with pytest.raises(UserError, match="are needed"):
        fetch("sedf-sc", tmp_path / "new", recordings=1, base_url=server.url, patience=HASTY)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"base_url": "file:///etc"}, "no address of a mirror"),
        ({"base_url": "https://"}, "no address of a mirror"),
        ({"jobs": 0}, "--jobs 0 must be from 1 to 32"),
        ({"recordings": 0}, "--recordings 0 must be at least 1"),
        ({"archive": Path("nothing.zip")}, "nothing.zip: no such file"),
    ],
)
def test_a_wrong_request_is_one_line(tmp_path: Path, options: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        fetch("sedf-sc", tmp_path, **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_that_is_not_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no way to fetch 'mass'; known are sedf-sc, sedf-st, dcsm, cinc2018, shhs"):
        fetch("mass", tmp_path)


def test_a_destination_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not a folder"):
        fetch("sedf-sc", tmp_path / "file", patience=HASTY)


# --- each corpus ---


def test_shhs_explains_how_to_get_a_token(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data-use agreement.*https://sleepdata.org/token.*TUSP_NSRR_TOKEN"):
        fetch("shhs", tmp_path)
    server.files["api/v1/account/profile.json"] = Served(body=b'{"authenticated": false}')
    with pytest.raises(UserError, match="does not know this token"):
        fetch("shhs", tmp_path, token="wrong", base_url=server.url, patience=HASTY)


@pytest.mark.parametrize("path", ["../../shhs1-200001.edf", "/tmp/shhs1-200001.edf", "a/../../shhs1-200001.edf"])
def test_a_listing_cannot_write_elsewhere(server: Server, tmp_path: Path, path: str) -> None:
    listing(server, {path: b"x" * 100})
    with pytest.raises(DataError, match="no path of a file below"):
        shhs(server, tmp_path / "nights")
    assert not list(tmp_path.rglob("*.edf"))


def test_a_path_that_is_listed_twice_is_one_file_or_refused(server: Server, tmp_path: Path) -> None:
    one_file(server)
    first = server.files[f"{LISTING}?{FOLDERS[0]}"]
    server.files[f"{LISTING}?{FOLDERS[1]}"] = first
    assert shhs(server, tmp_path).count("fetched") == 1
    server.files[f"{LISTING}?{FOLDERS[1]}"] = Served(body=first.body)
    relisted(server, file_size=7)
    with pytest.raises(DataError, match="listed twice, with different facts"):
        shhs(server, tmp_path)


def dod_zip(names: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, body in names.items():
            archive.writestr(name, body)
    return packed.getvalue()


UUIDS = [f"{n:08x}-0000-4000-8000-000000000000" for n in range(3)]


def dod_server(server: Server, **faults: object) -> dict[str, bytes]:
    bodies = {f"dodh/{name}.h5": noise(200_000, n) for n, name in enumerate(UUIDS)}
    packed = dod_zip({"dodh/": b"", **bodies, "__MACOSX/dodh/._" + UUIDS[0] + ".h5": b"x", "dodh/readme.txt": b"hello"})
    server.files["dodh.zip"] = Served(body=packed, **faults)  # type: ignore[arg-type]
    for name in UUIDS:
        for scorer in range(1, 6):
            server.files[f"scorers/dodh/scorer_{scorer}/{name}.json"] = Served(body=b"[0, 0, 1, 2]")
    return bodies


@pytest.mark.parametrize("drop_after", [None, 90_000])
def test_single_nights_come_out_of_a_zip_on_a_server(server: Server, tmp_path: Path, drop_after: int | None) -> None:
    bodies = dod_server(server, drop_after=drop_after)
    report = fetch("dod-h", tmp_path, recordings=2, base_url=server.url, patience=HASTY)
    assert report.failed == []
    assert report.how_verified == "2 by CRC-32 of the archive, 10 by size only"
    for name in UUIDS[:2]:
        assert (tmp_path / f"{name}.h5").read_bytes() == bodies[f"dodh/{name}.h5"]
        assert (tmp_path / f"scorer_5/{name}.json").read_bytes() == b"[0, 0, 1, 2]"
    assert not (tmp_path / f"{UUIDS[2]}.h5").exists()
    assert server.gets()["dodh.zip"] > 2 and not any(
        asked is None for method, path, asked in server.asked if path == "dodh.zip"
    )


def test_what_nothing_published_vouches_for_is_begun_anew(server: Server, tmp_path: Path) -> None:
    dod_server(server)
    path = f"scorers/dodh/scorer_3/{UUIDS[0]}.json"
    server.files[path] = Served(body=b"[" + b"0, " * 30_000 + b"0]", drop_after=50_000, drops=2)
    assert fetch("dod-h", tmp_path, recordings=1, base_url=server.url, patience=HASTY).failed == []
    assert server.ranges(path) == [None] * 3


def test_a_zip_that_changes_while_it_is_read_is_refused(server: Server, tmp_path: Path) -> None:
    dod_server(server)
    server.files["dodh.zip"].change_after_first = dod_zip({f"{UUIDS[0]}.h5": noise(200_000, 9)})
    with pytest.raises(DataError, match="changed while it was read"):
        fetch("dod-h", tmp_path, base_url=server.url, patience=HASTY)


def test_a_zip_on_a_server_without_ranges_is_named(server: Server, tmp_path: Path) -> None:
    dod_server(server, ranges=False)
    with pytest.raises(HostRefused, match="gives no parts of this archive; download it whole and give it with --arch"):
        fetch("dod-h", tmp_path, base_url=server.url, patience=HASTY)


def test_a_damaged_member_is_refused(server: Server, tmp_path: Path) -> None:
    dod_server(server)
    packed = bytearray(server.files["dodh.zip"].body)
    packed[packed.index(noise(200_000, 0)[:64]) + 1000] ^= 1
    server.files["dodh.zip"].body = bytes(packed)
    report = fetch("dod-h", tmp_path, recordings=1, base_url=server.url, patience=HASTY)
    assert "CRC" in failure(report) and not (tmp_path / f"{UUIDS[0]}.h5").exists()


def test_cinc_takes_its_one_hot_labels_with_the_hosts_checksums(server: Server, tmp_path: Path) -> None:
    one_hot = noise(500)
    sums = f"{hashlib.sha256(one_hot).hexdigest()} training/tr03-0005/tr03-0005-arousal.mat\n"
    server.files["SHA256SUMS.txt"] = Served(body=sums.encode())
    server.files["training/tr03-0005/tr03-0005-arousal.mat"] = Served(body=one_hot)
    report = fetch("cinc2018", tmp_path, recordings=1, base_url=server.url, patience=HASTY)
    states = {outcome.path.rpartition("/")[2]: outcome.state for outcome in report.files}
    assert states == {
        "tr03-0005-arousal.mat": "fetched",
        **{f"tr03-0005.{end}": "failed" for end in ("arousal", "hea", "mat")},  # not on this server
    }
    assert report.how_verified == "1 by SHA-256"


def test_real_labels_of_cinc_pass_the_official_checksums(server: Server, shared_data: Path, tmp_path: Path) -> None:
    for end in ("hea", "arousal"):
        name = f"tr03-0005.{end}"
        server.files[f"training/tr03-0005/{name}"] = Served(body=(shared_data / "cinc2018" / name).read_bytes())
    report = fetch("cinc2018", tmp_path, recordings=1, base_url=server.url, patience=HASTY)
    assert sorted(outcome.path.rpartition(".")[2] for outcome in report.files if outcome.verified == "sha256") == [
        "arousal",
        "hea",
    ]


@pytest.mark.parametrize("corpus", ["shhs", "dod-h"])
def test_the_adapter_takes_what_was_fetched(server: Server, tmp_path: Path, corpus: str) -> None:
    made = tmp_path / "made"
    simulate(corpus, made, subjects=1, seed=1, hours=0.5, workers=1)
    bodies = {
        path.relative_to(made).as_posix(): path.read_bytes()
        for path in made.rglob("*")
        if path.suffix in {".edf", ".xml", ".h5", ".json"} and ".simulation" not in path.parts
    }
    if corpus == "shhs":
        listing(server, bodies)
    else:
        h5 = {name: body for name, body in bodies.items() if name.endswith(".h5")}
        server.files["dodh.zip"] = Served(body=dod_zip({f"dodh/{name}": body for name, body in h5.items()}))
        server.files |= {f"scorers/dodh/{name}": Served(body=body) for name, body in bodies.items() if name not in h5}
    dest = tmp_path / "nights"
    assert fetch(corpus, dest, base_url=server.url, token=TOKEN, patience=HASTY).failed == []
    adapter = adapters()[corpus]()
    night = next(iter(bodies))
    unfinished = dest / f".tusp-fetch/parts/{night}.part"  # of a later call that was interrupted
    unfinished.parent.mkdir(parents=True)
    unfinished.write_bytes(b"x")
    there, fetched = adapter.discover(made), adapter.discover(dest)
    assert fetched.refused == {} and [r.name for r in fetched.recordings] == [r.name for r in there.recordings] != []
    assert [set(r.files) for r in fetched.recordings] == [set(r.files) for r in there.recordings]


# --- archives ---


def real_archive(shared_data: Path, path: Path, kind: str) -> Path:
    """The real hypnograms as PhysioNet's download has them: below a folder of its own."""
    top = "sleep-edf-database-expanded-1.0.0/sleep-cassette"
    files = sorted((shared_data / "sleep-edf/hypnograms-edf").glob("*.edf"))
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, f"{top}/{file.name}")
    else:
        with tarfile.open(path, f"w:{kind}") as packed:
            for file in files:
                packed.add(file, f"{top}/{file.name}")
    return path


@pytest.mark.parametrize("kind", ["zip", "", "gz", "xz"])
def test_a_downloaded_archive_is_unpacked_and_checked(shared_data: Path, tmp_path: Path, kind: str) -> None:
    archive = real_archive(shared_data, tmp_path / "archive", kind)
    report = fetch("sedf-sc", tmp_path / "nights", recordings=2, archive=archive)
    assert [(outcome.path.rpartition("/")[2], outcome.state) for outcome in report.files] == [
        ("SC4001E0-PSG.edf", "failed"),
        ("SC4001EC-Hypnogram.edf", "fetched"),
        ("SC4002E0-PSG.edf", "failed"),
        ("SC4002EC-Hypnogram.edf", "fetched"),
    ]
    assert "holds no file sleep-cassette/SC4001E0-PSG.edf" in str(report.failed[0].reason)
    assert len(left_over(tmp_path / "nights")) == 2  # nothing else was unpacked


def test_a_member_that_is_not_what_its_compression_says_is_named(tmp_path: Path) -> None:
    """bzip2 says so with an error of the operating system's kind."""
    name = "sleep-cassette/SC4001EC-Hypnogram.edf"
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr(name, noise(5000))
    raw = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(raw.replace(b"BZh", b"XYZ"))
    report = fetch("sedf-sc", tmp_path / "nights", recordings=1, archive=tmp_path / "a.zip")
    (found,) = [outcome for outcome in report.failed if outcome.path == name]
    assert f"a.zip: {name}: cannot be unpacked (Invalid data stream)" in str(found.reason)
    assert left_over(tmp_path / "nights") == []


def hostile(path: Path, kind: str) -> Path:
    """An archive that wants out of its folder, or to fill the disk."""
    wanted = "sleep-cassette/SC4001EC-Hypnogram.edf"
    if kind.startswith("zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            if kind == "zip-dots":
                archive.writestr(f"../../{wanted}", b"x")
            elif kind == "zip-absolute":
                archive.writestr(f"/{wanted}", b"x")
            elif kind == "zip-drive":
                archive.writestr(f"C:\\{wanted}", b"x")
            elif kind == "zip-bomb":
                archive.writestr(wanted, bytes(2**25))
            elif kind == "zip-link":
                link = zipfile.ZipInfo(wanted)
                link.external_attr = 0o120777 << 16
                archive.writestr(link, "/etc/passwd")
        return path
    with tarfile.open(path, "w:gz" if "bomb" in kind or "header" in kind else "w") as packed:
        info = tarfile.TarInfo(wanted)
        if kind == "tar-dots":
            info.name = f"a/../../{wanted}"
            info.size = 1
            packed.addfile(info, io.BytesIO(b"x"))
        elif kind == "tar-bomb":
            info.size = 2**25
            packed.addfile(info, io.BytesIO(bytes(2**25)))
        elif kind in {"tar-link", "tar-hard-link", "tar-device"}:
            info.type = {"tar-link": tarfile.SYMTYPE, "tar-hard-link": tarfile.LNKTYPE, "tar-device": tarfile.CHRTYPE}[
                kind
            ]
            info.linkname = "/etc/passwd"
            packed.addfile(info)
        elif kind == "tar-header":
            info.type, info.size = tarfile.XHDTYPE, 2**25
            packed.addfile(info, io.BytesIO(bytes(2**25)))
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("zip-dots", "leaves the folder"),
        ("zip-absolute", "leaves the folder"),
        ("zip-drive", "leaves the folder"),
        ("zip-bomb", "unpack to"),
        ("zip-link", "holds no file"),
        ("tar-dots", "leaves the folder"),
        ("tar-bomb", "unpack to"),
        ("tar-link", "holds no file"),
        ("tar-hard-link", "holds no file"),
        ("tar-device", "holds no file"),
        ("tar-header", "a header of"),
    ],
)
def test_a_hostile_archive_writes_nothing(tmp_path: Path, kind: str, said: str) -> None:
    archive = hostile(tmp_path / "archive", kind)
    dest = tmp_path / "a/b/nights"
    try:
        report = fetch("sedf-sc", dest, recordings=1, archive=archive)
    except DataError as error:
        reasons = str(error)
    else:
        assert len(report.failed) == 2
        reasons = str(report.failed[1].reason)  # the hypnogram's; the signals are in none of these
    assert said in reasons and "\n" not in reasons
    assert left_over(dest) == [] and {path.name for path in tmp_path.iterdir()} == {"archive", "a"}


def test_a_zip_with_an_absurd_table_of_contents_is_refused(tmp_path: Path) -> None:
    packed = tmp_path / "archive.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a", b"x")
    body = packed.read_bytes()
    end = body.index(b"PK\5\6")
    with packed.open("wb") as stream:  # sparse: a table of 128 MiB that costs nothing to write
        stream.write(body[:end])
        stream.seek(2**27)
        stream.write(body[end : end + 12] + (2**27 - 100).to_bytes(4, "little") + (50).to_bytes(4, "little") + b"\0\0")
    with pytest.raises(DataError, match="table of contents or a header of"):
        fetch("sedf-sc", tmp_path / "nights", recordings=1, archive=packed)


@pytest.mark.parametrize("cut", [0, 10, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["zip", "", "gz", "xz"])
def test_a_cut_archive_is_refused(shared_data: Path, tmp_path: Path, kind: str, cut: float) -> None:
    archive = real_archive(shared_data, tmp_path / "archive", kind)
    body = archive.read_bytes()
    archive.write_bytes(body[: int(cut if cut >= 1 else cut * len(body))])
    try:
        report = fetch("sedf-sc", tmp_path / "nights", archive=archive, subset="sedf-20")
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert report.failed
    for path in left_over(tmp_path / "nights"):  # what came out before the cut is right
        real = shared_data / "sleep-edf/hypnograms-edf" / Path(path).name
        assert (tmp_path / "nights" / path).read_bytes() == real.read_bytes()


def test_an_altered_file_in_an_archive_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("sleep-cassette/SC4001EC-Hypnogram.edf", b"not the hypnogram")
    report = fetch("sedf-sc", tmp_path / "nights", recordings=1, archive=archive)
    assert "its sha256 is" in str(report.failed[1].reason) and left_over(tmp_path / "nights") == []


# --- the command ---


def test_the_command_says_what_to_do_next(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUSP_NSRR_TOKEN", TOKEN)
    one_file(server)
    dest = tmp_path / "my nights"
    arguments = ["datasets", "fetch", "shhs", str(dest), "--base-url", server.url]
    dry = CliRunner().invoke(main.app, [*arguments, "--dry-run"])
    assert dry.exit_code == 0 and "to fetch      300.0 kB  " + EDF in dry.output
    assert "shhs: 1 file, 300.0 kB: 1 to fetch, 0 there already" in dry.output
    done = CliRunner().invoke(main.app, arguments)
    assert done.exit_code == 0
    assert "1 fetched, 0 there already; verified: 1 by MD5" in done.output
    assert f"next: tusp datasets add shhs '{dest}'" in done.output
    told = json.loads(CliRunner().invoke(main.app, [*arguments, "--json"]).stdout)
    assert told["next"] == f"tusp datasets add shhs '{dest}'" and told["bytes"] == 300_000
    assert told["files"] == [{"path": EDF, "state": "present", "size": 300_000, "verified": "md5", "reason": None}]
    assert TOKEN not in done.output + dry.output


def test_the_command_names_what_failed_with_status_2(server: Server, tmp_path: Path) -> None:
    one_file(server, corrupt=99)
    arguments = ["datasets", "fetch", "shhs", str(tmp_path), "--base-url", server.url, "--token", TOKEN]
    done = CliRunner().invoke(main.app, arguments)
    assert done.exit_code == 2
    assert f"failed {EDF}: " in done.output and "next:" not in done.output and "Traceback" not in done.output
    assert TOKEN not in done.output and "se%2Fcret" not in done.output
