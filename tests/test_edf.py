"""EDF and EDF+ as other readers read them, and hypnograms on the 30-s grid."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

import edf_files
import edfio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tusp.datasets.formats import edf
from tusp.datasets.formats.edf import microvolts_per, read_annotations, read_header, read_samples
from tusp.datasets.formats.hypnograms import Run, runs_from_csv, to_epochs
from tusp.platform.errors import DataError
from tusp.platform.stages import N1, N2, N3, REM, UNSCORED, W

MAP = {"W": W, "1": N1, "2": N2, "3": N3, "R": REM, "?": UNSCORED}


def _step(signal: edfio.EdfSignal) -> float:
    return abs(signal.physical_max - signal.physical_min) / abs(signal.digital_max - signal.digital_min)


def _real_files(shared_data: Path) -> list[Path]:
    psg = shared_data / "psg"
    return [psg / "two-eeg-two-eog-20min.edf", psg / "ucddb-24-people" / "ucd018.edf"]


@pytest.mark.parametrize("which", [0, 1])
def test_real_signals_are_those_of_three_other_readers(shared_data: Path, which: int) -> None:
    import mne
    import pyedflib

    path = _real_files(shared_data)[which]
    header = read_header(path)
    theirs = edfio.read_edf(path)
    raw = mne.io.read_raw_edf(path, verbose="error")
    assert [signal.label for signal in header.signals] == list(theirs.labels) == raw.ch_names
    assert header.seconds == theirs.duration
    assert header.start == theirs.startdatetime
    with pyedflib.EdfReader(str(path)) as reader:
        for index, signal in enumerate(header.signals):
            samples = read_samples(header, signal)
            quantum = _step(theirs.signals[index])
            assert signal.sampling_rate_hz == theirs.signals[index].sampling_frequency
            assert samples.dtype == np.float32
            assert np.ptp(samples) > 100 * quantum
            np.testing.assert_allclose(samples, theirs.signals[index].data, atol=quantum / 100, rtol=0)
            np.testing.assert_allclose(samples, reader.readSignal(index), atol=quantum / 100, rtol=0)
            np.testing.assert_allclose(samples, raw.get_data(index)[0] * 1e6, atol=quantum / 100, rtol=0)


def test_each_channel_comes_at_its_own_rate(tmp_path: Path) -> None:
    path = edf_files.write_psg(tmp_path / "night.edf")
    header, theirs = read_header(path), edfio.read_edf(path)
    assert [signal.sampling_rate_hz for signal in header.signals] == [100, 100, 100, 1]
    for ours, other in zip(header.signals, theirs.signals, strict=True):
        np.testing.assert_allclose(read_samples(header, ours), other.data, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("uV", 1), ("µV", 1), ("μV", 1), ("UV", 1), ("Uv", 1), ("æV", 1), ("ÂµV", 1), ("?V", 1), ("\ufffdV", 1),
        (" u V", 1), ("microvolt", 1), ("mV", 1e3), ("MV", 1e3), ("V", 1e6), ("v", 1e6), ("nV", 1e-3),
        ("", None), ("DegC", None), ("mmHg", None), ("%", None), ("uVolts", 1),
    ],
)  # fmt: skip
def test_units_become_microvolts(unit: str, factor: float | None) -> None:
    assert microvolts_per(unit) == factor


@pytest.mark.parametrize(
    ("raw", "factor"), [(b"mV", 1e3), (b"\xb5V", 1), (b"\xc2\xb5V", 1), (b"\xe6V", 1), (b"V", 1e6)]
)
def test_the_unit_in_the_file_scales_the_samples(tmp_path: Path, raw: bytes, factor: float) -> None:
    path = edf_files.write_psg(tmp_path / "night.edf")
    plain = read_samples(read_header(path), read_header(path).signals[0])
    edf_files.patch(path, 256 + 4 * (16 + 80), raw, 8)
    header = read_header(path)
    np.testing.assert_allclose(read_samples(header, header.signals[0]), plain * factor, rtol=1e-5)
    np.testing.assert_allclose(read_samples(header, header.signals[0], unit="uV"), plain, rtol=1e-6)


def test_annotations_of_all_records_are_read(tmp_path: Path) -> None:
    """931 of 960 epochs were once lost because only the first data record's annotation was read."""
    import mne

    path = tmp_path / "night.edf"
    stages = [edfio.EdfAnnotation(30.0 * i, 30.0, f"Sleep stage {'W12R'[i % 4]}") for i in range(960)]
    signal = edfio.EdfSignal(np.zeros(28800), 1, label="Marker", physical_range=(-1, 1))
    edfio.Edf([signal], data_record_duration=30, annotations=stages).write(path)
    header = read_header(path)
    ours = [(a.onset, a.duration, a.text) for a in read_annotations(header)]
    assert ours == [(a.onset, a.duration, a.text) for a in edfio.read_edf(path).annotations]
    assert len(ours) == 960
    theirs = mne.read_annotations(path)
    assert list(zip(theirs.onset, theirs.duration, theirs.description, strict=True)) == ours
    assert header.n_records == 960


def test_onsets_count_from_the_first_sample(tmp_path: Path) -> None:
    path = tmp_path / "night.edf"
    signal = edfio.EdfSignal(np.zeros(60), 1, label="Marker", physical_range=(-1, 1))
    start = datetime(2000, 1, 1, 22, 0, 0, 250000)
    edfio.Edf([signal], starttime=start.time(), annotations=[edfio.EdfAnnotation(30, 30, "Sleep stage W")]).write(path)
    assert [a.onset for a in read_annotations(read_header(path))] == [30.0]


def test_real_hypnograms_are_those_of_three_other_readers(shared_data: Path) -> None:
    import mne
    import pyedflib

    for path in sorted((shared_data / "sleep-edf" / "hypnograms-edf").glob("*.edf")):
        ours = [(a.onset, a.duration, a.text) for a in read_annotations(read_header(path))]
        assert ours == [(a.onset, a.duration, a.text) for a in edfio.read_edf(path).annotations]
        theirs = mne.read_annotations(path)
        assert list(zip(theirs.onset, theirs.duration, theirs.description, strict=True)) == ours
        with pyedflib.EdfReader(str(path)) as reader:
            assert list(zip(*map(list, reader.readAnnotations()), strict=True)) == ours


# --- labels on the grid -----------------------------------------------------------------------------------------


def _epochs(*runs: tuple[float, float | None, str], seconds: float = 300.0) -> tuple[list[int], str]:
    hypnogram = to_epochs([Run(onset=o, duration=d, label=label) for o, d, label in runs], MAP, signal_seconds=seconds)
    return hypnogram.stages.tolist(), " | ".join(hypnogram.problems)


def test_runs_fill_their_epochs() -> None:
    assert _epochs((0, 90, "W"), (90, 60, "2"), (150, 150, "R")) == ([0, 0, 0, 2, 2, 4, 4, 4, 4, 4], "")


def test_the_order_of_runs_does_not_matter() -> None:
    assert _epochs((150, 150, "R"), (0, 90, "W"), (90, 60, "2")) == _epochs(
        (0, 90, "W"), (90, 60, "2"), (150, 150, "R")
    )


def test_a_gap_is_unscored_and_named_and_shifts_nothing() -> None:
    stages, problems = _epochs((0, 60, "W"), (120, 60, "2"), (240, 60, "R"))
    assert stages == [0, 0, -1, -1, 2, 2, -1, -1, 4, 4]
    assert problems == "2 gaps in the labels (4 epochs, the first at epoch 2); filled with unscored"


def test_labels_that_begin_late_or_end_early_are_named() -> None:
    stages, problems = _epochs((60, 60, "W"))
    assert stages == [-1, -1, 0, 0, -1, -1, -1, -1, -1, -1]
    assert "the first 2 epochs are unscored" in problems
    assert "the last 6 epochs are unscored" in problems


def test_surplus_is_clipped_and_named_only_when_something_scored_is_lost() -> None:
    assert _epochs((0, 300, "W"), (300, 9000, "?")) == ([0] * 10, "")
    stages, problems = _epochs((-60, 120, "W"), (60, 300, "2"))
    assert stages == [0, 0, 2, 2, 2, 2, 2, 2, 2, 2]
    assert "2 scored epochs before the signal begins" in problems
    assert "2 scored epochs after the signal's last whole epoch" in problems


def test_different_stages_on_one_epoch_leave_it_unscored() -> None:
    stages, problems = _epochs((0, 120, "W"), (90, 210, "2"))
    assert stages == [0, 0, 0, -1, 2, 2, 2, 2, 2, 2]
    assert "1 epochs have two different stages (first: epoch 3)" in problems
    assert _epochs((0, 120, "W"), (90, 210, "W")) == ([0] * 10, "")


def test_off_the_grid_the_middle_of_an_epoch_decides() -> None:
    stages, problems = _epochs((0, 44, "W"), (44, 60, "2"), (104, 196, "R"))
    assert stages == [0, 2, 2, 4, 4, 4, 4, 4, 4, 4]
    assert "lie off the 30-s grid (by up to 14 s)" in problems


def test_labels_without_duration_last_to_the_next() -> None:
    stages, problems = _epochs((0, None, "W"), (90, 0, "2"), (270, None, "R"))
    assert stages == [0, 0, 0, 2, 2, 2, 2, 2, 2, 4]
    assert "3 labels state no duration" in problems


def test_unknown_labels_are_named_and_never_replace_a_stage() -> None:
    stages, problems = _epochs((0, 300, "W"), (60, 30, "Arousal"))
    assert stages == [0] * 10
    assert "'Arousal' (1); 0 epochs" in problems
    stages, problems = _epochs((0, 270, "W"), (270, 30, "N9"))
    assert stages == [*[0] * 9, -1]
    assert "'N9' (1); 1 epochs" in problems


def test_an_incomplete_last_epoch_is_dropped_and_named() -> None:
    stages, problems = _epochs((0, 312, "W"), seconds=312)
    assert len(stages) == 10
    assert "last 12 s are no whole epoch" in problems


@given(
    st.lists(
        st.tuples(st.floats(-1e12, 1e12), st.one_of(st.none(), st.floats(0, 1e12)), st.sampled_from([*MAP, "x"])),
        max_size=20,
    ),
    st.floats(0, 90000),
)
def test_any_runs_give_one_known_code_an_epoch(runs: list[tuple[float, float | None, str]], seconds: float) -> None:
    hypnogram = to_epochs([Run(onset=o, duration=d, label=x) for o, d, x in runs], MAP, signal_seconds=seconds)
    assert len(hypnogram.stages) in {int(seconds // 30), int(seconds // 30) + 1}
    assert set(hypnogram.stages.tolist()) <= {-1, 0, 1, 2, 3, 4}


@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from(list(MAP))), min_size=1, max_size=60))
def test_whole_epoch_runs_come_back_as_they_were(bouts: list[tuple[int, str]]) -> None:
    onset, runs, expected = 0, [], []
    for length, label in bouts:
        runs.append(Run(onset=30.0 * onset, duration=30.0 * length, label=label))
        expected += [MAP[label]] * length
        onset += length
    assert to_epochs(runs, MAP, signal_seconds=30.0 * onset).stages.tolist() == expected


# --- CSV --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "onset_seconds,duration_seconds,stage\n0,30,W\n30,60,N1\n",
        "0,30,W\n30,60,N1\n",
        "\ufeffstage,who,duration_seconds,onset_seconds\r\nW,a,30,0\r\n\r\nN1,b,60,30\r\n",
        " 0 , 30 , W \n30.0,6e1,N1",
    ],
)
def test_csv_with_and_without_header(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8", newline="")
    assert [(r.onset, r.duration, r.label) for r in runs_from_csv(path)] == [(0, 30, "W"), (30, 60, "N1")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no labels"),
        (b"onset_seconds,duration_seconds,stage\n", "holds no labels"),
        (b"onset,duration,stage\n0,30,W\n", "line 1: no column 'onset_seconds'"),
        (b"0,30,W\n30,N1\n", "line 2: 2 columns"),
        (b"0,30,W\n30,thirty,N1\n", "line 2: onset '30', duration 'thirty' are not seconds"),
        (b"0,30,W\nnan,30,N1\n", "line 2"),
        (b"0,30,W\n30,inf,N1\n", "line 2"),
        (b"0,30,W\n30,-30,N1\n", "line 2"),
        (b"\xff\xfe0\x00,\x00", "not a text file"),
    ],
)
def test_a_wrong_csv_is_named_with_its_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        runs_from_csv(path)
    assert said in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_headers_are_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = edf_files.write_psg(tmp_path / "a.edf")
    assert edf.read_header(path) is not edf.read_header(path), "what was written just now may change within a tick"
    monkeypatch.setattr(edf, "_SETTLED_NS", 0)
    header = edf.read_header(path)
    assert edf.read_header(path) is header
    time.sleep(0.02)  # the file system's clock has moved on
    edf_files.patch(path, 88, "another recording", 80)
    assert edf.read_header(path).recording == "another recording"
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        edf.read_header(path)
