"""Fetching from a server that drops, truncates, corrupts, redirects and throttles, and after interruptions."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fetch_server import PAGE, Served, Server
from fetch_world import (  # noqa: F401  (fixtures)
    EDF,
    HASTY,
    PREFIX,
    TOKEN,
    failure,
    left_over,
    listing,
    no_proxy_fixture,
    noise,
    one_file,
    relisted,
    server_fixture,
    shhs,
)

from tusp.datasets.fetching import run
from tusp.datasets.fetching.client import Client, HostRefused
from tusp.datasets.fetching.run import fetch
from tusp.platform.errors import UserError

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
