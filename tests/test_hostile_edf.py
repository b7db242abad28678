"""Broken files: one clear line each, exit status 2, and everything else unharmed."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
import tempfile
import textwrap
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import edf_files
import numpy as np
import pytest

from tusp.datasets import catalog
from tusp.datasets.formats.edf import read_annotations, read_header, read_samples
from tusp.platform.errors import DataError
from tusp.platform.store.session import open_store

PSG = "SC4001E0-PSG.edf"
HEADER = 256 * 5
RECORD = 2 * (3 * 3000 + 30)


def _truncate(n_bytes: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, n_bytes)


def _main(offset: int, text: str | bytes, width: int) -> Callable[[Path], None]:
    return lambda path: edf_files.patch(path, offset, text, width)


def _signal(index: int, **fields: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        for field, text in fields.items():
            edf_files.patch_signal(path, index, field, text)

    return change


def _many_signals(path: Path) -> None:
    edf_files.patch(path, 252, "9999", 4)
    edf_files.patch(path, 184, "2560000", 8)


def _replace(content: bytes) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_bytes(content)

    return change


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "zero bytes": (_replace(b""), "empty file (0 bytes)"),
    "an error page saved as data": (
        _replace(b"<!DOCTYPE html>" + b" " * 9999),
        "not an EDF file (begins with '<!DOCTYPE",
    ),
    "BDF": (_replace(b"\xffBIOSEMI" + b" " * 9999), "a BDF file"),
    "random bytes": (_replace(np.random.default_rng(0).bytes(5000)), "not an EDF file"),
    "only the first bytes": (_truncate(100), "truncated inside the EDF header (100 of 256 bytes)"),
    "cut in the header": (_truncate(700), "truncated inside the EDF header (700 of 1280 bytes)"),
    "cut in the data": (
        _truncate(HEADER + 4 * RECORD + 7),
        "truncated: header states 10 data records, file holds 4 (0.03 of 0.08 h)",
    ),
    "no data": (_truncate(HEADER), "truncated: header states 10 data records, file holds 0"),
    "no records": (_main(236, "0", 8), "holds no data records"),
    "records -7": (_main(236, "-7", 8), "EDF header is damaged: -7 data records"),
    "9999 signals": (_main(252, "9999", 4), "states 1280 bytes, but 9999 signals need 2560000"),
    "9999 signals, consistent": (_many_signals, "truncated inside the EDF header"),
    "-1 signals": (_main(252, "-1", 4), "EDF header states -1 signals"),
    "2^31 records": (_main(236, "99999999", 8), "truncated: header states 99999999 data records"),
    "2^31 samples": (
        _signal(0, samples="20000000"),
        "truncated: header states 10 data records, file holds 0",
    ),
    "no number": (_main(252, "four", 4), "number of signals is 'four', not a whole number"),
    "underscores": (_main(236, "1_0", 8), "not a whole number"),
    "other digits": (_main(236, "١٠".encode(), 8), "not a whole number"),
    "endless records": (_main(244, "1e300", 8), "days of signal"),
    "records of no length": (_main(244, "0", 8), "no sampling rate"),
    "records of NaN seconds": (_main(244, "nan", 8), "length of a data record is 'nan', not a number"),
    "negative seconds": (_main(244, "-30", 8), "data records of -30 s"),
    "absurd rate": (_main(244, "1e-9", 8), "has a sampling rate of"),
    "discontinuous": (_main(192, "EDF+D", 44), "a discontinuous recording (EDF+D)"),
    "equal physical limits": (
        _signal(2, physical_min="5", physical_max="5.0"),
        "channel 'EOG horizontal': physical minimum and maximum are equal (5)",
    ),
    "equal digital limits": (
        _signal(2, digital_min="7", digital_max="7"),
        "channel 'EOG horizontal': digital minimum and maximum are equal (7)",
    ),
    "physical limits of nothing": (
        _signal(2, physical_min=""),
        "channel 'EOG horizontal': physical limit is '', not a number",
    ),
    "a missing channel": (_signal(2, label="EOG vertical"), "no EOG channel horizontal (the file has Fpz-Cz, Pz-Oz,"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two nights; the first is to be broken."""
    edf_files.write_night(tmp_path / "raw", "SC4001")
    later = edf_files.START + datetime.timedelta(days=40)
    edf_files.write_night(tmp_path / "raw", "SC4021", start=later, seed=1)
    return tmp_path / "raw"


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_night_is_refused_by_name_and_the_other_registered(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    break_it, said = BROKEN[case]
    break_it(folder / PSG)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    status, out, err = edf_files.tusp(monkeypatch, capsys, tmp_path / "home", "datasets", "add", "sedf-sc", folder)
    assert status == 2
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert lines[0].startswith("refused SC4001E0: ")
    assert PSG in lines[0]
    assert said in lines[0]
    assert "1 recording of 1 person" in out
    rows = {r.name: r.usable for r in catalog.recordings(open_store(f"sqlite:///{tmp_path}/home/tusp.db"), "sedf-sc")}
    assert rows == {"SC4001E0": False, "SC4021E0": True}
    assert before == {path: path.read_bytes() for path in folder.iterdir()}
    assert edf_files.tusp(monkeypatch, capsys, tmp_path / "home", "datasets", "audit", "sedf-sc")[0] == 2


def _said_of(folder: Path) -> tuple[list[str], np.ndarray]:
    header = read_header(folder / PSG)
    return list(header.problems), read_samples(header, header.signals[0])


def test_a_record_count_of_minus_one_is_taken_from_the_size(folder: Path) -> None:
    _, whole = _said_of(folder)
    edf_files.patch(folder / PSG, 236, "-1", 8)
    problems, samples = _said_of(folder)
    assert problems == ["header states no number of data records (-1); 10 taken from the size of the file"]
    np.testing.assert_array_equal(samples, whole)
    os.truncate(folder / PSG, HEADER + 4 * RECORD + 7)
    problems, samples = _said_of(folder)
    assert problems[1] == f"the last data record is incomplete (7 of {RECORD} bytes); dropped"
    np.testing.assert_array_equal(samples, whole[:12000])


def test_bytes_after_the_last_record_are_named_and_not_read(folder: Path) -> None:
    _, whole = _said_of(folder)
    with (folder / PSG).open("ab") as stream:
        stream.write(b"x" * (RECORD + 3))
    problems, samples = _said_of(folder)
    assert problems == [f"{RECORD + 3} bytes after the last data record that the header states; not read"]
    np.testing.assert_array_equal(samples, whole)


def test_swapped_limits_are_a_sign(folder: Path) -> None:
    _, whole = _said_of(folder)
    edf_files.patch_signal(folder / PSG, 0, "physical_min", "192")
    edf_files.patch_signal(folder / PSG, 0, "physical_max", "-192")
    problems, samples = _said_of(folder)
    assert problems == ["EEG Fpz-Cz: physical limits are swapped; read with inverted sign"]
    np.testing.assert_allclose(samples, -whole, atol=1e-3)
    edf_files.patch_signal(folder / PSG, 0, "digital_min", "2047")
    edf_files.patch_signal(folder / PSG, 0, "digital_max", "-2048")
    problems, samples = _said_of(folder)
    assert problems == ["EEG Fpz-Cz: physical and digital limits are swapped; no change of sign"]
    np.testing.assert_allclose(samples, whole, atol=1e-3)


def test_a_header_in_another_alphabet_is_read(folder: Path) -> None:
    edf_files.patch(folder / PSG, 8, "Müller Jürgen".encode("latin-1"), 80)
    edf_files.patch(folder / PSG, 256 + 4 * 16, "Ω electrode\x1b[31m".encode(), 80)
    header = read_header(folder / PSG)
    assert header.patient == "Müller Jürgen"
    edf_files.patch(folder / PSG, 8, "Женщина".encode(), 80)
    assert read_header(folder / PSG).patient == "Женщина"


def test_control_characters_of_a_header_never_reach_the_terminal(folder: Path) -> None:
    edf_files.patch_signal(folder / PSG, 0, "label", "\x1b]0;x\x07[/bold]")
    assert read_header(folder / PSG).signals[0].label == "?]0;x?[/bold]"


def test_markup_in_a_header_is_shown_as_it_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edf_files.patch_signal(folder / PSG, 3, "label", "[/bold] Temp")
    assert edf_files.tusp(monkeypatch, capsys, tmp_path / "home", "datasets", "add", "sedf-sc", folder)[0] == 0
    status, out, _ = edf_files.tusp(monkeypatch, capsys, tmp_path / "home", "datasets", "audit", "sedf-sc")
    assert status == 0
    assert "[/bold] Temp" in out


def test_a_flaw_in_an_unused_channel_is_only_reported(folder: Path) -> None:
    edf_files.patch_signal(folder / PSG, 3, "physical_min", "40")
    store = open_store(f"sqlite:///{folder.parent}/tusp.db")
    audit = catalog.add_corpus(store, name="sedf-sc", root=folder)
    assert not audit.refused
    assert "Temp rectal: physical minimum and maximum are equal (40)" in audit.recordings[0].problems[0]


def test_annotations_that_are_damaged_are_refused(tmp_path: Path) -> None:
    path = edf_files.write_hypnogram(tmp_path / "x.edf")
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"\x15", b"!", 1))
    with pytest.raises(DataError, match=r"damaged annotation in data record 1: '\+0!60"):
        read_annotations(read_header(path))
    with pytest.raises(DataError, match=r"no EDF\+ annotations"):
        read_annotations(read_header(edf_files.write_psg(tmp_path / "y.edf")))


def test_a_pipe_with_the_right_name_does_not_hang(folder: Path) -> None:
    (folder / PSG).unlink()
    os.mkfifo(folder / PSG)
    with pytest.raises(DataError, match="not a regular file"):
        read_header(folder / PSG)


def test_no_header_makes_the_reader_allocate(tmp_path: Path) -> None:
    """Random damage to a header ends in an answer or one line, in little memory."""
    path = edf_files.write_psg(tmp_path / "night.edf", seconds=60)
    sound = path.read_bytes()
    rng = np.random.default_rng(5)
    outcomes = set()
    tracemalloc.start()
    for _ in range(400):
        raw = bytearray(sound)
        for _ in range(rng.integers(1, 6)):
            raw[rng.integers(0, HEADER)] = rng.choice([32, 45, 46, 48, 57, 57, 101, 255, rng.integers(0, 256)])
        path.write_bytes(raw)
        try:
            header = read_header(path)
            for signal in header.signals:
                if signal.flaw is None:
                    read_samples(header, signal)
            outcomes.add("read")
        except DataError as error:
            assert "\n" not in str(error)
            outcomes.add("refused")
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()
    assert outcomes == {"read", "refused"}


def test_folders_without_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a person without rights: a whole folder, a sub-folder, and one file that may not be read."""
    with tempfile.TemporaryDirectory() as made:
        base = Path(made)
        for part in ("closed", "half/locked", "single"):
            edf_files.write_night(base / part, "SC4001")
        later = edf_files.START + datetime.timedelta(days=40)
        for part in ("half", "single"):
            edf_files.write_night(base / part, "SC4021", start=later, seed=1)
        (base / "homes").mkdir()
        base.chmod(0o755)
        (base / "homes").chmod(0o777)
        (base / "closed").chmod(0)
        (base / "half" / "locked").chmod(0)
        (base / "single" / PSG).chmod(0)
        script = textwrap.dedent(
            """
            import os, sys
            from pathlib import Path
            base = Path(sys.argv[1])
            from tusp.cli.main import run
            def tusp(part):
                home = ["--home", str(base / "homes" / part)]
                sys.argv = ["tusp", *home, "datasets", "add", "sedf-sc", str(base / part)]
                print("##", part, file=sys.stderr, flush=True)
                try:
                    run()
                except SystemExit as stopped:
                    print("status", stopped.code, file=sys.stderr, flush=True)
            if os.getuid() == 0:
                tusp("single")  # what is imported late must be there before the rights are given up
                import shutil; shutil.rmtree(base / "homes" / "single")
                os.setgroups([]); os.setgid(65534); os.setuid(65534)
            for part in ("closed", "half", "single"):
                tusp(part)
            """
        )
        try:
            done = subprocess.run(
                [sys.executable, "-c", script, str(base)], capture_output=True, text=True, timeout=120, check=False
            )
        finally:
            for path in (base / "closed", base / "half" / "locked", base / "single" / PSG):
                path.chmod(0o755)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    lines = lines[lines.index("## closed") :]
    assert lines == [
        "## closed",
        f"tusp: {base}/closed: no permission to read this folder; give the folder that holds the corpus",
        "status 2",
        "## half",
        f"refused locked/: {base}/half/locked: no permission to read this folder",
        "status 2",
        "## single",
        f"refused SC4001E0: {base}/single/{PSG}: no permission to read it",
        "status 2",
    ], done.stderr
    assert done.stdout.count("1 recording of 1 person") >= 2
