"""Broken files end in a named refusal or are read as what they say: tests/fuzz, a short run and what it found."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import edf_files
import h5py
import numpy as np
import pytest
from fuzz.defective import DEFECTS
from fuzz.edf import DESCRIPTION
from fuzz.formats import FORMATS, make_target
from fuzz.harness import Harness
from fuzz.mne_nights import write_brainvision
from fuzz.worker import generator, keep, kept

from tusp.datasets.audit import audit_recording
from tusp.datasets.corpora.dcsm import Dcsm
from tusp.datasets.corpora.description import parse_description
from tusp.datasets.corpora.folders import walk
from tusp.datasets.corpora.sedf_sc import SedfSc
from tusp.datasets.fetching.archives import unpack_listed
from tusp.datasets.fetching.client import Client, Patience
from tusp.datasets.fetching.items import Item
from tusp.datasets.fetching.transfer import Part
from tusp.datasets.formats.edf import read_annotations, read_header
from tusp.datasets.formats.hypnograms import runs_from_csv
from tusp.datasets.formats.label_lists import runs_from_list
from tusp.datasets.formats.label_tables import runs_from_table
from tusp.datasets.formats.mne_signals import read_mne_header
from tusp.datasets.formats.wfdb import read_wfdb_header
from tusp.datasets.recording import Channel, Hypnogram, RecordingFiles
from tusp.datasets.splits import make_split, parse_manifest, to_json, verify_split
from tusp.platform.errors import LONGEST_MESSAGE, DataError, UserError
from tusp.platform.identity import file_sha256

QUICK = 40
FULL = 2000


@pytest.fixture(scope="module")
def harness() -> Iterator[Harness]:
    with Harness() as made:
        yield made


@pytest.mark.parametrize("name", FORMATS)
def test_a_short_run(harness: Harness, name: str) -> None:
    tally = harness.run(name, count=QUICK, seed=1)
    assert not tally.findings, "\n".join(map(str, tally.findings))
    assert sum(tally.outcomes.values()) == QUICK
    assert tally.outcomes["refused"] >= QUICK // 10


@pytest.mark.fuzz
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", FORMATS)
def test_two_thousand_of_every_format(harness: Harness, name: str) -> None:
    tally = harness.run(name, count=FULL, seed=20)
    assert not tally.findings, "\n".join(map(str, tally.findings))
    assert tally.peak_mib < 1024


def test_the_harness_catches_every_kind_of_defect_and_goes_on(tmp_path: Path) -> None:
    drawn = {DEFECTS[int(generator("defective", 0, index).integers(len(DEFECTS)))]: index for index in range(60)}
    assert set(drawn) == set(DEFECTS)
    said = {
        "raises": "ZeroDivisionError: a traceback",
        "spins": "more than 0.5 s of processor time (SIGPROF)",
        "sleeps": "no answer within 6 s",
        "crashes": "crash (SIGSEGV)",
        "allocates": "MemoryError",
        "exits": "SystemExit",
        "two lines": "message is not one printable line",
        "accepts": "accepted (equal) what must be refused",
        "wrong": "labels differ",
    }
    with Harness(keep=tmp_path, cpu_seconds=0.5) as harness:
        for defect, index in drawn.items():
            harness.wall_seconds = 6 if defect == "sleeps" else 60
            tally = harness.run("defective", count=1, seed=0, first=index)
            if defect == "sound":
                assert dict(tally.outcomes) == {"equal": 1}
                continue
            (found,) = tally.findings
            assert found.what == (defect,)
            assert said[defect] in found.detail
            assert found.kept is not None
            if defect not in ("sleeps", "spins"):
                again = harness.replay(found.kept)
                assert again["outcome"] == "finding"
                assert said[defect] in again["detail"]


def test_a_case_is_made_again_by_its_number(tmp_path: Path) -> None:
    made = []
    for attempt in ("one", "two"):
        (folder := tmp_path / attempt).mkdir()
        target = make_target("edf", folder)
        made.append([target.mutant(generator("edf", 1, index)) for index in range(20)])
    assert made[0] == made[1]
    assert len({str(mutant.what) for mutant in made[0]}) > 10
    for number, mutant in enumerate(made[0]):
        keep(tmp_path / f"kept{number}", {"format": "edf", "seed": 1, "index": number}, mutant, "")
        assert kept(tmp_path / f"kept{number}") == ("edf", dataclasses.replace(mutant))


# What the harness found; each was a traceback, a hang or a wrong night.


def test_a_link_in_a_circle_does_not_hide_a_folder(tmp_path: Path) -> None:
    edf_files.write_night(tmp_path, "SC4001")
    (tmp_path / "SC4021E0-PSG.edf").symlink_to("SC4021E0-PSG.edf")
    assert len(walk(tmp_path).files) == 3
    discovery = SedfSc().discover(tmp_path)
    assert [night.name for night in discovery.recordings] == ["SC4001E0"]
    assert list(discovery.refused) == ["SC4021E0"]


@pytest.mark.timeout(10)
def test_a_device_in_place_of_a_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    endless = tmp_path / "night.csv"
    endless.symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"night.csv: not a regular file"):
        runs_from_csv(endless)
    with pytest.raises(DataError, match=r"night.csv: not a regular file"):
        runs_from_table(endless)
    with pytest.raises(OSError, match="not a regular file"):
        file_sha256(endless)
    edf_files.write_night(tmp_path, "SC4001")
    (night,) = SedfSc().discover(tmp_path).recordings
    row = audit_recording(SedfSc(), tmp_path, dataclasses.replace(night, labels=endless))
    assert row.reason == f"{endless}: not a regular file"


@pytest.mark.parametrize("cell", ["9" * 5000, "1e18", "-1.7e308"])
def test_labels_beyond_any_night_are_refused_in_a_short_line(tmp_path: Path, cell: str) -> None:
    table = tmp_path / "night.csv"
    table.write_text(f"0,30,W\n{cell},30,N2\n")
    for reader in (runs_from_csv, runs_from_table):
        with pytest.raises(DataError, match=r"night.csv: line 2: ") as error:
            reader(table)
        assert len(str(error.value)) < 300


@pytest.mark.parametrize("sign", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_only_line_ends_end_a_row(tmp_path: Path, sign: str) -> None:
    """A damaged label must not become a row of its own: it would move or overlay other epochs."""
    table = tmp_path / "night.csv"
    table.write_text(f"0,30,W\n30,30,N1{sign}0,30,N3\n60,30,N2\n", encoding="utf-8")
    for runs in (runs_from_csv(table), runs_from_table(table)[0]):
        assert [run.onset for run in runs] == [0, 30, 60]
    labels = tmp_path / "night.txt"
    labels.write_text(f"W\nN1{sign}N3\nN2\n", encoding="utf-8")
    assert len(runs_from_list(labels, known=["W"])) == 3


def test_names_of_channels_cannot_fill_the_terminal(tmp_path: Path) -> None:
    class Wordy(SedfSc):
        def problems(self, recording: RecordingFiles) -> list[str]:
            return ["x\x1b[2J" + "y" * 100_000]

        def channels(self, recording: RecordingFiles) -> list[Channel]:
            return [dataclasses.replace(c, name="a\n" * 9000) for c in super().channels(recording)[:1]]

    edf_files.write_night(tmp_path, "SC4001")
    (night,) = Wordy().discover(tmp_path).recordings
    row = audit_recording(Wordy(), tmp_path, night)
    assert row.reason is not None
    for text in (row.reason, *row.problems, *(channel.name for channel in row.channels)):
        assert text.isprintable()
        assert len(text) <= LONGEST_MESSAGE


@pytest.mark.parametrize(
    ("key", "name"),
    [
        *(("DataFile", name) for name in ("9" * 400, ".", "..", "a\\b", "sub/p1.eeg", "/dev/zero", "\0")),
        *(("MarkerFile", name) for name in ("9" * 400, ".", "sub/p1.vmrk", "/dev/zero")),
    ],
)
def test_names_in_a_brainvision_header_that_are_none(tmp_path: Path, key: str, name: str) -> None:
    write_brainvision(tmp_path / "p1.vhdr", seed=0)
    header = tmp_path / "p1.vhdr"
    lines = [f"{key}={name}" if line.startswith(f"{key}=") else line for line in header.read_text().splitlines()]
    header.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"p1\.vhdr: "):
        read_mne_header(header)


def test_annotations_beyond_any_night_are_refused(tmp_path: Path) -> None:
    path = edf_files.write_hypnogram(tmp_path / "h.edf", [(0, 99_999_999.0, "Sleep stage W")])
    with pytest.raises(DataError, match="beyond 31 days"):
        read_annotations(read_header(path))


def test_absurd_physical_limits_make_no_samples(tmp_path: Path) -> None:
    path = edf_files.write_psg(tmp_path / "night.edf")
    edf_files.patch_signal(path, 0, "physical_max", "1e300")
    header = read_header(path)
    assert header.signals[0].flaw == "physical limits are absurd (-192 to 1e+300)"
    assert header.signals[1].flaw is None


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000])
def test_a_manifest_nested_without_end_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"split.json: not a split manifest"):
        parse_manifest(text, where="split.json")


def test_a_manifest_with_a_text_for_a_list_is_refused() -> None:
    people = {f"p{n}": (f"n{n}",) for n in range(4)}
    document = json.loads(to_json(make_split("mine", people, protocol="kfold", folds=2, seed=0)))
    document["recordings"]["p1"] = "n1"
    with pytest.raises(UserError, match="'n1' is not a list"):
        parse_manifest(json.dumps(document))


def test_a_recording_that_a_manifest_names_often_is_said_in_a_short_line() -> None:
    people = {f"p{n}": (f"n{n}",) for n in range(4)}
    split = make_split("mine", people, protocol="kfold", folds=2, seed=0)
    often = dataclasses.replace(split, recordings={**people, "p1": ("n1",) * 900})
    assert "recording n1 of person p1 is named 900 times" in verify_split(often, people)


def test_a_manifest_of_people_who_cannot_be_printed_is_refused() -> None:
    people = {f"p{n}": (f"n{n}",) for n in range(4)}
    text = to_json(make_split("mine", people, protocol="kfold", folds=2, seed=0))
    with pytest.raises(UserError, match="not a printable text"):
        parse_manifest(text.replace("p1", "p1\\u001b[31m"))


def test_names_and_units_of_a_header_are_of_bounded_length(tmp_path: Path) -> None:
    header = tmp_path / "a.hea"
    header.write_text(f"a 1 200 6000\na.mat 16 1/{'x' * 9999} 16 0 0 0 0 {'C3-M2' * 9999}\n")
    (signal,) = read_wfdb_header(header).signals
    assert (len(signal.unit), len(signal.name)) == (20, 80)


@pytest.mark.parametrize("rate", [0.02, [[1.0, 2.0], [3.0, 4.0]]])
def test_an_hdf5_night_of_years_or_without_a_rate_is_refused_in_one_line(tmp_path: Path, rate: object) -> None:
    folder = tmp_path / "tp005f7e68_a084_46bb_9f0a_b6a084155a1c"
    folder.mkdir()
    with h5py.File(folder / "psg.h5", "w") as file:
        for name in ("C3-M2", "E1-M2"):
            file[f"channels/{name}"] = np.zeros(100_000, "f4")
        file["channels"].attrs["sample_rate"] = rate
    (folder / "hypnogram.ids").write_text("0,30,W\n")
    (night,) = Dcsm().discover(tmp_path).recordings
    row = audit_recording(Dcsm(), tmp_path, night)
    assert row.reason is not None
    assert ("lasts 57.9 days" in row.reason) == (rate == 0.02)
    assert all(problem.isprintable() for problem in (row.reason, *row.problems))


def test_a_night_that_needs_too_much_memory_is_refused_like_any_other(tmp_path: Path) -> None:
    class Greedy(SedfSc):
        def hypnogram(self, recording: RecordingFiles) -> Hypnogram:
            raise MemoryError

    edf_files.write_night(tmp_path, "SC4001")
    (night,) = Greedy().discover(tmp_path).recordings
    row = audit_recording(Greedy(), tmp_path, night)
    assert row.reason == f"{night.signals}: reading it needs more memory than there is"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x = " + "9" * 5000, "not valid TOML"),
        ("x = " + "[" * 100_000, "nested too deeply"),
        ("a." * 20_000 + "b = 1", "more than 200 dots"),
        ("[labels.stages]\nW = {}", "{} is not one of"),
        ("[labels.stages]\nW = 0x" + "f" * 50_000, "a number of thousands of digits is not one of"),
        ("[signals]\nfiles = '" + "x/" * 5000 + "{y}'", "unknown placeholder {y}"),
    ],
)
def test_hostile_descriptions_are_refused_in_a_short_line(line: str, reason: str) -> None:
    parts = DESCRIPTION.split("[labels.stages]") if line.startswith("[labels") else DESCRIPTION.split("[signals]")
    rest = parts[1][parts[1].index("\n[") :]
    text = parts[0] + line + "\n" + rest if line.startswith("[") else line + "\n" + DESCRIPTION
    with pytest.raises(UserError) as error:
        parse_description(text, "mine.toml")
    assert str(error.value).startswith("mine.toml: ")
    assert reason in str(error.value)
    assert len(str(error.value)) <= 500


def _zip(name: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as made:
        made.writestr("night/a.bin", b"abc")
        info = zipfile.ZipInfo("x")
        info.filename = name
        made.writestr(info, b"evil")
    return held.getvalue()


def _tar(headers: dict[str, str]) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=tarfile.PAX_FORMAT) as made:
        info = tarfile.TarInfo("night/a.bin")
        info.size, info.pax_headers = 3, headers
        made.addfile(info, io.BytesIO(b"abc"))
    return held.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (_zip("../../evil"), "leaves the folder"),
        (_zip("night/b.bin").replace(b"PK\1\2", b"PK\1\2", 1)[:-6] + b"\xff\xff\0\0\0\0", "lies outside the file"),
        (_zip(""), "a member without a name"),
        (_tar({"GNU.sparse.realsize": "1e9"}), "not a whole zip or tar archive"),
        (_tar({"path": "../../evil"}), "leaves the folder"),
    ],
)
def test_hostile_archives_are_refused_whole(tmp_path: Path, content: bytes, reason: str) -> None:
    archive = tmp_path / "corpus.archive"
    archive.write_bytes(content)
    item = Item(path="night/a.bin", url=str(archive), recording="night", size=3)
    client = Client(patience=Patience(), secrets=())
    placed = Part(tmp_path / "part"), tmp_path / "out" / "a.bin"
    with pytest.raises(DataError, match=reason):
        list(unpack_listed(client, archive, {item.path: item}, lambda item: placed, lambda count: None))


def test_messages_are_one_printable_line() -> None:
    error = UserError("a\nb\x1b[31m\u202e\ud800" + "x" * 10_000 + "the end")
    assert str(error).startswith("a?b?[31m??xxx")
    assert str(error).endswith("xthe end")
    assert len(str(error)) < LONGEST_MESSAGE
    assert str(error).isprintable()
