"""Lists of files with their checksums: those of the hosts, and what is no list."""

from __future__ import annotations

from pathlib import Path

import pytest
from fetch_world import (  # noqa: F401  (fixtures)
    HASTY,
    no_proxy_fixture,
    server_fixture,
)

from tusp.datasets.adapters import adapters
from tusp.datasets.fetching import run
from tusp.datasets.fetching.client import Client
from tusp.datasets.fetching.items import Item, packaged_list, parse_list, safe_path
from tusp.datasets.fetching.make_lists import make_list
from tusp.datasets.fetching.run import fetch
from tusp.datasets.fetching.sources import SOURCES, Request, chosen
from tusp.platform.errors import DataError, UserError


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
