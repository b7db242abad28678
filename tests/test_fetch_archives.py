"""Archives that hosts pack nights in: unpacked and checked, hostile ones refused."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from fetch_world import (  # noqa: F401  (fixtures)
    left_over,
    no_proxy_fixture,
    noise,
    server_fixture,
)

from tusp.datasets.fetching.run import fetch
from tusp.platform.errors import DataError


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
