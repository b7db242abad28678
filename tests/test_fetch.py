"""Fetching against a server of our own: whole, verified, each corpus as its host serves it; sockets are real."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path

import pytest
from fetch_server import Served, Server
from fetch_world import (  # noqa: F401  (fixtures)
    EDF,
    FOLDERS,
    HASTY,
    LISTING,
    PREFIX,
    TOKEN,
    XML,
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
from typer.testing import CliRunner

from tusp.cli import main
from tusp.datasets.adapters import adapters
from tusp.datasets.fetching import run
from tusp.datasets.fetching.client import HostRefused
from tusp.datasets.fetching.items import Item
from tusp.datasets.fetching.run import fetch
from tusp.datasets.simulation import simulate
from tusp.platform.errors import DataError, UserError

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
