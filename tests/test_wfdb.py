"""WFDB records: against the wfdb package, against a real record, and hostile ones."""

from __future__ import annotations

import re
import struct
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import wfdb

from tusp.datasets.formats.wfdb import (
    check_wfdb_files,
    read_wfdb_annotations,
    read_wfdb_header,
    read_wfdb_samples,
    time_resolution_hz,
)
from tusp.platform.errors import DataError

NOTE, SKIP, NUM, SUB, CHAN, AUX = 22, 59, 60, 61, 62, 63


def write_record(folder: Path, *, offset: int = 24, digital: np.ndarray | None = None) -> np.ndarray:
    """A record of three signals with different gains, written by wfdb; returns the stored integers [1000, 3]."""
    if digital is None:
        digital = np.random.default_rng(0).integers(-2000, 2000, (1000, 3))
    wfdb.Record(
        record_name="night",
        n_sig=3,
        fs=200,
        sig_len=1000,
        file_name=["night.mat"] * 3,
        fmt=["16"] * 3,
        byte_offset=[offset] * 3 if offset else None,
        adc_gain=[1.0, 655.35, 1000.0],
        baseline=[0, -32768, 5],
        units=["uV", "%", "mV"],
        sig_name=["F3-M2", "SaO2", "ECG two"],
        adc_res=[16] * 3,
        adc_zero=[0] * 3,
        init_value=[int(value) for value in digital[0]],
        checksum=[int(value % 65536) for value in digital.sum(axis=0)],
        block_size=[0] * 3,
        d_signal=digital,
        comments=["made for a test"],
    ).wrsamp(write_dir=str(folder))
    return digital


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new).encode())


def annotation(sample: int, aux: str = "", *, since: int = 0, code: int = NOTE) -> bytes:
    """One annotation by the book: a long skip, its type, its text."""
    delta = (sample - since) & 0xFFFFFFFF
    raw = struct.pack("<HHH", SKIP << 10, delta >> 16, delta & 0xFFFF) + struct.pack("<H", code << 10)
    text = aux.encode()
    return raw + (struct.pack("<H", AUX << 10 | len(text)) + text + b"\0" * (len(text) % 2) if aux else b"")


def annotations(*notes: tuple[int, str]) -> bytes:
    raw, since = b"", 0
    for sample, aux in notes:
        raw += annotation(sample, aux, since=since)
        since = sample
    return raw + b"\0\0"


def test_the_real_header(shared_data: Path) -> None:
    path = shared_data / "cinc2018" / "tr03-0005.hea"
    assert b"\r\n" in path.read_bytes()
    ours, theirs = read_wfdb_header(path), wfdb.rdheader(str(path.with_suffix("")))
    assert (ours.record, ours.sampling_rate_hz, ours.n_samples, ours.seconds) == ("tr03-0005", 200, 5147000, 25735)
    assert [signal.name for signal in ours.signals] == theirs.sig_name
    assert [signal.unit for signal in ours.signals] == theirs.units
    assert [signal.gain for signal in ours.signals] == theirs.adc_gain
    assert [signal.baseline for signal in ours.signals] == theirs.baseline
    assert [signal.checksum for signal in ours.signals] == theirs.checksum
    assert {(signal.format, signal.byte_offset) for signal in ours.signals} == {("16", 24)}
    assert ours.signals[11].limits == pytest.approx((1 / 655.35, 65535 / 655.35))
    with pytest.raises(DataError, match=r"tr03-0005.mat: no such file"):
        check_wfdb_files(ours)


def test_the_real_annotations(shared_data: Path) -> None:
    path = shared_data / "cinc2018" / "tr03-0005.arousal"
    ours = read_wfdb_annotations(path)
    theirs = wfdb.rdann(str(path.with_suffix("")), "arousal")
    assert (ours[0].sample, ours[0].aux_note) == (0, "## time resolution: 200")
    assert time_resolution_hz(ours) == 200
    assert [a.sample for a in ours[1:]] == theirs.sample.tolist()
    assert [a.symbol for a in ours[1:]] == theirs.symbol
    assert [a.aux_note for a in ours[1:]] == [note.rstrip("\0") for note in theirs.aux_note]
    assert len(ours) == 241


@pytest.mark.parametrize("offset", [0, 24])
def test_samples_are_those_of_wfdb(tmp_path: Path, offset: int) -> None:
    digital = write_record(tmp_path, offset=offset)
    header = read_wfdb_header(tmp_path / "night.hea")
    assert header.comments == ("made for a test",)
    assert check_wfdb_files(header) == (1000, [])
    theirs = wfdb.rdrecord(str(tmp_path / "night")).p_signal
    for index in range(3):
        ours = read_wfdb_samples(header, index)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs[:, index], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(read_wfdb_samples(header, 0), digital[:, 0])
    assert header.signals[2].name == "ECG two"


def test_missing_samples_are_no_numbers(tmp_path: Path) -> None:
    digital = np.random.default_rng(0).integers(-2000, 2000, (1000, 3))
    digital[7, 0] = -32768
    write_record(tmp_path, digital=digital)
    ours = read_wfdb_samples(read_wfdb_header(tmp_path / "night.hea"), 0)
    np.testing.assert_array_equal(np.isnan(ours), np.arange(1000) == 7)
    np.testing.assert_array_equal(ours, wfdb.rdrecord(str(tmp_path / "night")).p_signal[:, 0])


def test_a_header_without_checksums_is_believed(tmp_path: Path) -> None:
    digital = write_record(tmp_path)
    hea = tmp_path / "night.hea"
    hea.write_text(re.sub(r" 16 0 (-?\d+) -?\d+ 0 ", r" 16 0 \1 0 0 ", hea.read_text()))
    header = read_wfdb_header(hea)
    assert {signal.checksum for signal in header.signals} == {0}
    np.testing.assert_array_equal(read_wfdb_samples(header, 0), digital[:, 0])


def test_several_samples_a_frame(tmp_path: Path) -> None:
    """Two signals at 100 Hz and one at 200 Hz in one file; what wfdb makes of it is the yardstick."""
    stored = np.random.default_rng(1).integers(-500, 500, (300, 4)).astype("<i2")
    stored.tofile(tmp_path / "night.dat")
    (tmp_path / "night.hea").write_text("night 3 100 300\nnight.dat 16 2/uV\nnight.dat 16x2 4/uV\nnight.dat 16\n")
    header = read_wfdb_header(tmp_path / "night.hea")
    theirs = wfdb.rdrecord(str(tmp_path / "night"), smooth_frames=False).e_p_signal
    for index in range(3):
        np.testing.assert_allclose(read_wfdb_samples(header, index), theirs[index], rtol=1e-6)
    assert len(read_wfdb_samples(header, 1)) == 600
    assert header.signals[2].gain == 200
    assert header.signals[2].unit == "mV"


def test_header_in_full_and_in_brief(tmp_path: Path) -> None:
    path = tmp_path / "a.hea"
    path.write_text("# before\na 1 128/10(3.5) 4000 12:30:15.250 24/04/1989\na.dat 16 1e-1(-5)/uV\n#after\n\n")
    header = read_wfdb_header(path)
    assert header.sampling_rate_hz == 128
    assert header.start == datetime(1989, 4, 24, 12, 30, 15, 250000)
    assert header.signals[0].gain == 0.1
    assert header.signals[0].baseline == -5
    assert header.signals[0].checksum is None
    assert header.comments == ("before", "after")
    path.write_text("a 1\na.dat 16 0\n")
    header = read_wfdb_header(path)
    assert (header.sampling_rate_hz, header.n_samples, header.seconds, header.start) == (250, None, None, None)
    assert header.signals[0].gain == 200
    (tmp_path / "a.dat").write_bytes(b"\0" * 21)
    assert check_wfdb_files(header) == (
        10,
        ["1 bytes after the last sample that the header states in a.dat; not read"],
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty file"),
        ("# only words\n", "only comments"),
        ("hello\n", "not a WFDB header"),
        ("<!DOCTYPE html>\n<html>", "not a WFDB header"),
        ("a one 200 1000\n", "not a WFDB header"),
        ("a/3 1 200 1000\na.dat 16\n", "several segments"),
        ("a 2 200 1000\na.dat 16\n", "states 2 signals but describes 1"),
        ("a 1000000000000 200 1000\na.dat 16\n", "states 1000000000000 signals but describes 1"),
        ("a -1 200 1000\n", "states -1 signals"),
        ("a 1 0 1000\na.dat 16\n", "sampling rate '0'"),
        ("a 1 nan 1000\na.dat 16\n", "sampling rate 'nan'"),
        ("a 1 1e300 1000\na.dat 16\n", "sampling rate"),
        ("a 1 200 many\na.dat 16\n", "number of samples 'many'"),
        ("a 1 200 -5\na.dat 16\n", "number of samples '-5'"),
        ("a 1 200 999999999999999\na.dat 16\n", "days of signal"),
        ("a 1 200 1000 25:00:00 01/01/2000\na.dat 16\n", "no date and time"),
        ("a 1 200 1000 noon today\na.dat 16\n", "base time and date"),
        ("a 1 200 1000\na.dat\n", "no file and format"),
        ("a 1 200 1000\na.dat sixteen\n", "format 'sixteen'"),
        ("a 1 200 1000\na.dat 16x0\n", "0 samples a frame"),
        ("a 1 200 1000\na.dat 16x999999\n", "999999 samples a frame"),
        ("a 1 200 1000\na.dat 16 fine/uV\n", "gain 'fine/uV'"),
        ("a 1 200 1000\na.dat 16 1e999/uV\n", "gain '1e999/uV'"),
        ("a 1 200 1000\na.dat 16 1/uV 16 0 x 5\n", "first sample 'x'"),
        ("a 1 200 1000\n../../etc/passwd 16\n", "a file beside the header"),
        ("a 1 200 1000\n/etc/passwd 16\n", "a file beside the header"),
        ("a 1 200 1000\n~ 0\n", "a file beside the header"),
    ],
)
def test_headers_that_cannot_be(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "a.hea"
    path.write_text(text)
    with pytest.raises(DataError, match=reason) as raised:
        read_wfdb_header(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_signal_files_that_do_not_fit_the_header(tmp_path: Path) -> None:
    write_record(tmp_path)
    hea, mat = tmp_path / "night.hea", tmp_path / "night.mat"
    whole_header, whole = hea.read_text(), mat.read_bytes()

    def refused(reason: str) -> None:
        header = read_wfdb_header(hea)
        with pytest.raises(DataError, match=reason):
            check_wfdb_files(header)
        with pytest.raises(DataError, match=reason):
            read_wfdb_samples(header, 0)
        hea.write_text(whole_header)
        mat.write_bytes(whole)

    mat.write_bytes(whole[:-1])
    refused("truncated: header states 1000 samples of 3 signals, file holds 999")
    mat.write_bytes(whole[:10])
    refused("truncated: .* file holds 0")
    replace(hea, "200 1000", "200 200000000")
    refused("truncated")
    replace(hea, "16+24", "212+24")
    refused("format 212; only format 16 is read")
    replace(hea, "night.mat 16+24 655", "night.mat 16:3+24 655")
    refused("skew of 3 samples")
    replace(hea, "night.mat 16+24 655", "night.mat 16+26 655")
    refused("begin at byte 24 and elsewhere")
    hea.write_text(whole_header.replace("16+24", "16+999999999999"))
    refused("truncated")
    mat.unlink()
    refused("no such file")
    mat.unlink()
    mat.mkdir()
    header = read_wfdb_header(hea)
    with pytest.raises(DataError, match="not a regular file"):
        check_wfdb_files(header)


def test_files_of_different_length(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(b"\0" * 20)
    (tmp_path / "b.dat").write_bytes(b"\0" * 40)
    (tmp_path / "a.hea").write_text("a 2 100\na.dat 16\nb.dat 16\n")
    with pytest.raises(DataError, match="hold 10, 20 samples"):
        check_wfdb_files(read_wfdb_header(tmp_path / "a.hea"))
    (tmp_path / "a.hea").write_text("a 0 100 5\n")
    with pytest.raises(DataError, match="describes no signals"):
        check_wfdb_files(read_wfdb_header(tmp_path / "a.hea"))


def test_one_damaged_sample_is_noticed(tmp_path: Path) -> None:
    write_record(tmp_path)
    raw = bytearray((tmp_path / "night.mat").read_bytes())
    raw[24 + 6 * 500] ^= 1
    (tmp_path / "night.mat").write_bytes(raw)
    header = read_wfdb_header(tmp_path / "night.hea")
    with pytest.raises(DataError, match="signal 'F3-M2' is damaged or of another record"):
        read_wfdb_samples(header, 0)
    read_wfdb_samples(header, 1)


def test_a_note_at_sample_0_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "night.arousal"
    notes = [(0, "W"), (0, "## time resolution: 200"), (6000, "N1"), (2**31 + 5, "N2")]
    path.write_bytes(annotations(*notes))
    ours = read_wfdb_annotations(path)
    assert [(a.sample, a.aux_note) for a in ours] == notes
    assert {a.symbol for a in ours} == {'"'}


def test_annotations_written_by_wfdb(tmp_path: Path) -> None:
    samples = np.array([5, 700, 1800, 6_000_000, 6_000_001])
    symbols = ["N", '"', "+", '"', "V"]
    texts = ["", "(resp_hypopnea", "(AFIB", "W", ""]
    wfdb.wrann(
        "night", "atr", samples, symbols, aux_note=texts, fs=250, chan=np.array([0, 1, 0, 2, 0]),
        num=np.array([0, 3, 0, 0, 1]), subtype=np.array([0, 1, 0, 2, 0]), write_dir=str(tmp_path),
    )  # fmt: skip
    ours = read_wfdb_annotations(tmp_path / "night.atr")
    assert time_resolution_hz(ours) == 250
    ours = [a for a in ours if not a.aux_note.startswith("## ")]
    assert [a.sample for a in ours] == samples.tolist()
    assert [a.symbol for a in ours] == symbols
    assert [a.aux_note for a in ours] == texts


def test_every_symbol_is_that_of_wfdb(tmp_path: Path) -> None:
    table = wfdb.io.annotation.ann_label_table
    known = {int(row.label_store): row.symbol for row in table.itertuples() if row.label_store}
    raw = b"".join(annotation(10, since=0 if code == min(known) else 10, code=code) for code in known)
    (tmp_path / "night.atr").write_bytes(raw + annotation(10, since=10, code=45) + b"\0\0")
    ours = read_wfdb_annotations(tmp_path / "night.atr")
    assert [a.symbol for a in ours] == [*known.values(), "45"]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "empty file"),
        (b"\0", "truncated: the annotations have no end"),
        (annotations((0, "W"))[:-2], "truncated: the annotations have no end"),
        (annotations((0, "W"))[:3], "truncated inside an annotation"),
        (annotation(0, "resp_hypopnea")[:-6], "truncated inside an annotation"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file, not WFDB annotations"),
        (struct.pack("<HH", 55 << 10, 0), "not WFDB annotations"),
        (b"<!DOCTYPE html><html><body>Not found</body></html>", ".*"),
        (annotations((0, "W")) + b"more and more", "bytes after the end"),
        (annotation(-5, "W") + b"\0\0", "an annotation at sample -5"),
    ],
)
def test_annotation_files_that_cannot_be(tmp_path: Path, raw: bytes, reason: str) -> None:
    path = tmp_path / "night.arousal"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=reason) as raised:
        read_wfdb_annotations(path)
    assert str(path) in str(raised.value)


def test_absurdly_large_files_are_not_read(tmp_path: Path) -> None:
    for name, read in (("a.hea", read_wfdb_header), ("a.arousal", read_wfdb_annotations)):
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(2**40)  # sparse
        started = time.monotonic()
        with pytest.raises(DataError, match="too many"):
            read(tmp_path / name)
        assert time.monotonic() - started < 1
        with pytest.raises(DataError, match="not a regular file"):
            read(tmp_path)
        with pytest.raises(DataError, match="no such file"):
            read(tmp_path / "none")


def test_mutated_files_end_in_a_refusal_or_in_sane_numbers(shared_data: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = shared_data / "cinc2018"
    outcomes = {"refused": 0, "read": 0}
    for name, read in (("tr03-0005.hea", read_wfdb_header), ("tr03-0005.arousal", read_wfdb_annotations)):
        whole = (folder / name).read_bytes()
        path = tmp_path / name
        for _ in range(150):
            raw = bytearray(whole[: int(rng.integers(1, len(whole) + 1))] if rng.random() < 0.3 else whole)
            for place in rng.integers(0, len(raw), int(rng.integers(1, 5))):
                raw[place] = rng.integers(0, 256)
            path.write_bytes(raw)
            try:
                read(path)
                outcomes["read"] += 1
            except DataError as error:
                assert str(path) in str(error)
                assert "\n" not in str(error)
                outcomes["refused"] += 1
    assert min(outcomes.values()) > 20
