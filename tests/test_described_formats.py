"""Described corpora in every format of signals and labels: real files, and files that are broken."""

from __future__ import annotations

import datetime
import gzip
import re
import struct
import zlib
from pathlib import Path

import described_nights as nights
import edf_files
import h5py
import numpy as np
import pytest

from tusp.datasets import catalog
from tusp.datasets.corpora.described import Described, parse_description
from tusp.datasets.formats.label_lists import runs_from_dataset, runs_from_list
from tusp.datasets.formats.label_tables import Columns, runs_from_table
from tusp.datasets.recording import RecordingFiles
from tusp.platform.errors import DataError, UserError
from tusp.platform.store.session import open_store

HALF_RATE = ("bdf", "hdf5")
"""Kinds whose EOG is written at half the rate."""


def adapter(kind: str, labels: str, /, **changes: str) -> Described:
    return Described(name="mine", description=parse_description(nights.describe(kind, labels, **changes), "mine.toml"))


def only(reader: Described, folder: Path) -> RecordingFiles:
    discovery = reader.discover(folder)
    assert not discovery.refused, discovery.refused
    (found,) = discovery.recordings
    return found


def refusal(reader: Described, folder: Path) -> str:
    """Why the only night is refused, by the search or by what reads it."""
    discovery = reader.discover(folder)
    if discovery.refused:
        (reason,) = discovery.refused.values()
        return reason
    (found,) = discovery.recordings
    with pytest.raises(DataError) as error:
        reader.hypnogram(found)
        for channel in reader.channels(found):
            reader.read(found, channel.name)
    return str(error.value)


# --- what is written comes back ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", nights.SIGNALS)
def test_signals_of_every_format_come_back_in_microvolts_at_their_own_rate(tmp_path: Path, kind: str) -> None:
    nights.write_night(tmp_path, kind, "csv")
    reader = adapter(kind, "csv")
    found = only(reader, tmp_path)
    assert (found.name, found.subject, found.simulated) == ("p01", "p01", False)
    channels = {channel.name: channel for channel in reader.channels(found)}
    written = nights.signals()
    expected = {"Fpz": written[nights.EEG], "E1": written[nights.EOG][:: 2 if kind in HALF_RATE else 1]}
    # One step of the coarsest storage: 12 bits over +-190 uV, whole microvolts in the record of 16+24.
    step = {"wfdb-212": 0.1, "wfdb-16+24": 0.51}.get(kind, 0.02)
    for name, values in expected.items():
        assert channels[name].n_samples == len(values)
        assert channels[name].sampling_rate_hz == len(values) / nights.SECONDS
        read = reader.read(found, name)
        assert read.dtype == np.float32
        np.testing.assert_allclose(read, values, atol=step)
    assert reader.hypnogram(found).stages.tolist() == nights.CODES
    resampled = ["Slow: 50 Hz in the file; MNE brings it to 100 Hz"] if kind == "gdf" else []
    assert reader.problems(found) == resampled


@pytest.mark.parametrize("labels", nights.LABELS)
@pytest.mark.parametrize("kind", ["edf", "wfdb-16", "hdf5"])
def test_labels_of_every_format_come_back(tmp_path: Path, kind: str, labels: str) -> None:
    nights.write_night(tmp_path, kind, labels)
    reader = adapter(kind, labels)
    hypnogram = reader.hypnogram(only(reader, tmp_path))
    assert hypnogram.stages.tolist() == nights.CODES
    assert hypnogram.label_seconds == 300


@pytest.mark.parametrize(
    ("kind", "others"),
    [
        ("edf", set()),
        ("bdf", set()),
        ("eeglab", set()),
        ("eeglab-fdt", {"fdt"}),
        ("brainvision", {"eeg", "vmrk"}),
        ("wfdb-16", {"dat"}),
        ("wfdb-16+24", {"mat"}),
        ("hdf5", set()),
    ],
)
def test_every_file_that_is_read_is_watched(tmp_path: Path, kind: str, others: set[str]) -> None:
    path = nights.write_night(tmp_path, kind, "csv")
    (tmp_path / "p01.notes").write_text("not read")
    found = only(adapter(kind, "csv"), tmp_path)
    assert found.signals == path
    assert set(found.others) == others
    assert {file.suffix[1:] for file in found.others.values()} == others
    assert list(found.files) == ["signals", "labels", *found.others]


@pytest.mark.parametrize("kind", [kind for kind in nights.SIGNALS if not kind.startswith("eeglab")])
def test_files_that_say_so_are_simulated(tmp_path: Path, kind: str) -> None:
    nights.write_night(tmp_path, kind, "csv", token=True)
    reader = adapter(kind, "csv")
    assert only(reader, tmp_path).simulated
    nights.write_night(tmp_path, kind, "csv", name="p02")
    with pytest.raises(UserError, match="mixes simulated nights"):
        reader.discover(tmp_path)


def test_a_comment_in_xml_labels_says_so_too(tmp_path: Path) -> None:
    nights.write_night(tmp_path, "wfdb-16", "nsrr-xml")
    labels = tmp_path / "p01-nsrr.xml"
    labels.write_text(labels.read_text().replace("<PSGAnnotation>", "<!-- tusp-simulated --><PSGAnnotation>"))
    assert only(adapter("wfdb-16", "nsrr-xml"), tmp_path).simulated


def test_a_corpus_is_registered_watched_and_refreshed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        nights.write_night(tmp_path / "raw", "wfdb-16", "json", name=f"p0{number}", seed=number)
    toml = tmp_path / "mine.toml"
    toml.write_text(nights.describe("wfdb-16", "json"))
    home = tmp_path / "home"
    status, out, err = edf_files.tusp(
        monkeypatch, capsys, home, "datasets", "add", "mine", tmp_path / "raw", "--describe", toml
    )
    assert (status, err.strip()) == (0, "")
    assert "3 recordings of 3 people" in out
    store = open_store(f"sqlite:///{home}/tusp.db")
    rows = catalog.recordings(store, "mine")
    assert {source["role"] for row in rows for source in row.sources} == {"signals", "labels", "dat"}
    assert {row.audit["epochs"]["REM"] for row in rows} == {2}
    samples = tmp_path / "raw" / "p01.dat"
    samples.write_bytes(samples.read_bytes()[:-2] + b"\1\0")
    assert catalog.refresh_corpus(store, "mine").changed == ("p01",)


# --- units and rates --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bdf", "eeglab", "brainvision", "wfdb-16", "hdf5"])
def test_a_unit_is_believed_over_the_files(tmp_path: Path, kind: str) -> None:
    nights.write_night(tmp_path, kind, "csv")
    name = "signals/eeg/Fpz" if kind == "hdf5" else nights.EEG
    plain, mended = adapter(kind, "csv"), adapter(kind, "csv", eeg=f'names = ["{name}"]\nunit = "mV"')
    found = only(plain, tmp_path)
    np.testing.assert_allclose(mended.read(found, "Fpz"), 1000 * plain.read(found, "Fpz"), rtol=1e-4)
    assert mended.settings() != plain.settings()


def test_a_unit_that_mne_takes_for_volts_is_read_as_it_is_meant(tmp_path: Path) -> None:
    nights.write_night(tmp_path, "bdf", "csv", eeg_unit="UV")
    reader = adapter("bdf", "csv")
    found = only(reader, tmp_path)
    np.testing.assert_allclose(reader.read(found, "Fpz"), nights.signals()[nights.EEG], atol=0.02)
    assert reader.problems(found) == []


def test_a_unit_that_is_not_electrical_is_reported(tmp_path: Path) -> None:
    nights.write_night(tmp_path, "bdf", "csv", eeg_unit="DegC")
    reader = adapter("bdf", "csv")
    found = only(reader, tmp_path)
    assert reader.problems(found) == ["Fpz: unit 'DegC' is not electrical; values taken as microvolts"]


def test_a_rate_comes_from_the_description_or_from_the_innermost_attribute(tmp_path: Path) -> None:
    path = nights.write_night(tmp_path, "hdf5", "csv")
    with h5py.File(path, "a") as file:
        file.attrs["fs"] = 7
    reader = adapter("hdf5", "csv")
    found = only(reader, tmp_path)
    assert [c.sampling_rate_hz for c in reader.channels(found)] == [100, 50]
    told = adapter("hdf5", "csv", eog='names = ["signals/eog/horizontal"]\nunit = "mV"\nrate_hz = 25')
    assert [c.sampling_rate_hz for c in told.channels(found)] == [100, 25]
    assert told.problems(found) == ["E1: the file states 50 Hz, the description 25 Hz; the description is believed"]
    with h5py.File(path, "a") as file:
        del file["signals/eog/horizontal"].attrs["fs"]
        del file.attrs["fs"]
    assert [c.name for c in reader.channels(found)] == ["Fpz", "signals/eog/horizontal"]
    assert reader.problems(found) == ["E1: no attribute 'fs' tells its rate (channel not used)"]
    with pytest.raises(DataError, match="channel 'E1': no attribute 'fs' tells its rate"):
        reader.read(found, "E1")


def test_a_dataset_that_is_no_signal_costs_only_its_channel(tmp_path: Path) -> None:
    path = nights.write_night(tmp_path, "hdf5", "csv")
    with h5py.File(path, "a") as file:
        del file["signals/eog/horizontal"]
        file["signals/eog/horizontal"] = np.zeros((10, 20))
        file["notes"] = "free text"
        file["other"] = np.zeros(5)
    reader = adapter("hdf5", "csv")
    found = only(reader, tmp_path)
    assert [c.name for c in reader.channels(found)] == ["Fpz", "other"]
    assert "E1: dataset '/signals/eog/horizontal' has shape [10, 20]" in reader.problems(found)[0]
    assert reader.hypnogram(found).stages.tolist() == nights.CODES


def test_pauses_in_the_signal_are_reported(tmp_path: Path) -> None:
    nights.write_night(tmp_path, "brainvision", "csv", pauses=2)
    reader = adapter("brainvision", "csv")
    (problem,) = reader.problems(only(reader, tmp_path))
    assert problem == "the signal was cut or paused 2 times (first: 'New Segment/'); later labels may be early"


def test_edf_labels_are_aligned_by_the_clock_of_other_signals(tmp_path: Path) -> None:
    nights.write_night(tmp_path, "brainvision", "edf+")
    start = datetime.datetime(2020, 1, 1, 22, 1)  # a minute after the first marker of the signals
    edf_files.write_hypnogram(tmp_path / "p01-h.edf", [(0, 60, "N1"), (60, 30, "R")], start=start)
    told = 'files = "{stem}-h.edf"\nformat = "edf+"\nalignment = "clock"'
    reader = adapter("brainvision", "edf+", labels=told)
    assert reader.hypnogram(only(reader, tmp_path)).stages.tolist()[:6] == [-1, -1, 1, 1, 4, -1]
    plain = adapter("brainvision", "edf+")
    hypnogram = plain.hypnogram(only(plain, tmp_path))
    assert hypnogram.stages.tolist()[:4] == [1, 1, 4, -1]
    assert "different starts" in hypnogram.problems[0]


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("texts", [False, True])
def test_labels_inside_the_signals_file(tmp_path: Path, texts: bool) -> None:
    words = nights.NAMES if texts else {code: str(code) for code in nights.NAMES}
    labels = [nights.NAMES[code] for code in nights.CODES] if texts else np.array(nights.CODES, np.int8)
    nights.write_hdf5(tmp_path / "p01.h5", nights.signals(), labels=labels)
    stages = "\n".join(f'"{word}" = "{nights.STAGES[code]}"' for code, word in words.items())
    reader = adapter("hdf5", "csv", labels='dataset = "scoring/hypnogram"', stages=stages)
    found = only(reader, tmp_path)
    assert found.labels == found.signals
    assert list(found.files) == ["signals"]
    assert reader.hypnogram(found).stages.tolist() == nights.CODES
    # As the registry hands it back: one file, one role.
    again = RecordingFiles(name=found.name, subject=found.subject, signals=found.signals, labels=None)
    assert reader.hypnogram(again).stages.tolist() == nights.CODES


def test_labels_in_another_hdf5_file(tmp_path: Path) -> None:
    nights.write_night(tmp_path, "edf", "csv")
    nights.write_hdf5(tmp_path / "p01-labels.h5", nights.signals(), labels=np.array(nights.CODES, float))
    stages = "\n".join(f'"{code}" = "{stage}"' for code, stage in nights.STAGES.items())
    told = 'files = "{stem}-labels.h5"\ndataset = "/scoring/hypnogram"'
    reader = adapter("edf", "csv", labels=told, stages=stages)
    assert reader.hypnogram(only(reader, tmp_path)).stages.tolist() == nights.CODES


@pytest.mark.parametrize(
    # 10 s: the middles of epochs 0 and 1 (15 s, 45 s) lie in labels 1 and 4; 20 s: in labels 0, 2 and 3.
    ("seconds", "expected"),
    [(10, [1, 4]), (20, [0, 2, 3]), (60, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4])],
)
def test_lists_of_other_epochs_are_sampled_at_the_middle(tmp_path: Path, seconds: int, expected: list[int]) -> None:
    nights.write_night(tmp_path, "edf", "text")
    (tmp_path / "p01.txt").write_text("W\nN1\nN2\nN3\nR\n")
    told = f'files = "{{stem}}.txt"\nformat = "list"\nepoch_seconds = {seconds}'
    reader = adapter("edf", "text", labels=told)
    hypnogram = reader.hypnogram(only(reader, tmp_path))
    assert hypnogram.stages.tolist() == expected + [-1] * (10 - len(expected))
    assert any("off the 30-s grid" in problem for problem in hypnogram.problems) == (seconds != 60)


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("onset_seconds,duration_seconds,stage\n0,30,W\n30,60,N2\n", None, [(0, 30, "W"), (30, 60, "N2")]),
        ("0,30,W\n30,60,N2\n", None, [(0, 30, "W"), (30, 60, "N2")]),
        ("0,5;30,0;W\n30,5;60;N2\n", None, [(0.5, 30, "W"), (30.5, 60, "N2")]),
        ("stage\tonset_seconds\tduration_seconds\nW\t0\t30\n", None, [(0, 30, "W")]),
        ("onset_seconds,stage\n0,W\n90,N2\n120,?\n", None, [(0, 90, "W"), (90, 30, "N2"), (120, 30, "?")]),
        ("Start;Len;Score\n0;30;W\n", Columns(onset="start", duration="len", stage="SCORE"), [(0, 30, "W")]),
        ("Start;Len;Score\n0;9;W\n60;9;R\n", Columns(onset="Start", duration=None, stage="Score"),
         [(0, 60, "W"), (60, 30, "R")]),
    ],
)  # fmt: skip
def test_tables_with_other_columns_and_separators(
    tmp_path: Path, text: str, columns: Columns | None, expected: list[tuple[float, float, str]]
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    runs, problems = runs_from_table(path, columns)
    assert [(run.onset, run.duration, run.label) for run in runs] == expected
    durations_told = "duration" in text or "Len" in text or text[0].isdigit()
    assert bool(problems) == (not durations_told or (columns is not None and columns.duration is None))


def test_columns_of_a_description(tmp_path: Path) -> None:
    nights.write_night(tmp_path, "edf", "csv")
    (tmp_path / "p01.csv").write_text("von;Stadium\n0;W\n60;N2\n240;?\n")
    told = 'files = "{stem}.csv"\ncolumns = { onset = "von", stage = "Stadium" }'
    reader = adapter("edf", "csv", labels=told)
    hypnogram = reader.hypnogram(only(reader, tmp_path))
    assert hypnogram.stages.tolist() == [0, 0, 2, 2, 2, 2, 2, 2, -1, -1]
    assert hypnogram.problems[0] == "labels state no durations; each lasts to the next one, the last one 30 s"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "", "holds no labels"),
        ("a.csv", "start,stage\n0,W\n", "line 1: 'start,stage' does not name the columns onset_seconds, duration"),
        ("a.csv", "0,30,W\nx,30,W\n", "line 2: onset 'x', duration '30' are not seconds"),
        ("a.csv", "0,30,W\n30,-1,W\n", "line 2: onset '30', duration '-1' are not seconds"),
        ("a.csv", "0,30,W\n30,nan,W\n", "line 2: onset '30', duration 'nan' are not seconds"),
        ("a.csv", "0,30,W\n30,1e9,W\n", "line 2: onset 30 s or its duration is longer than any night"),
        ("a.csv", "0,30,W\n30\n", "line 2: 1 columns; wanted 3 or more"),
        ("a.csv", "onset_seconds,stage\n-,W\n", "line 2: onset '-' is not seconds"),
        ("a.csv", b"\xff\xfe0,30,W\n", "not a text file in UTF-8"),
        ("a.txt", "", "holds no labels"),
        ("a.txt", "W\n\nW\n", "line 2 is empty"),
        ("a.txt", "stage\nW\n", "line 1: 'stage' is not in labels.stages; a list has no header line"),
        ("a.txt", b"\xff\xfe", "not a text file in UTF-8"),
        ("a.json", "[1, 2", "not a JSON list"),
        ("a.json", '{"a": 1}', "a JSON dict, not a list of labels"),
        ("a.json", "[0, [1]]", "label 2 is [1]; wanted a text or a whole number"),
        ("a.json", "[0, 0.5]", "label 2 is 0.5"),
        ("a.json", "[true]", "label 1 is True"),
        ("a.json", "[NaN]", "label 1 is nan"),
        ("a.json", "[" * 100_000, "not a JSON list"),
        ("a.json", "[1" + "0" * 10_000 + "]", "not a JSON list"),
        ("a.npy", b"\x93NUMPY", "not a NumPy file"),
        ("a.npy", np.zeros(3), "holds float64 [3]; wanted whole numbers"),
        ("a.npy", np.zeros((3, 2), int), "holds int64 [3, 2]; wanted whole numbers in one dimension"),
        ("a.npy", np.array([{"a": 1}]), "not a NumPy file of whole numbers"),
    ],
)
def test_wrong_labels_are_one_line(tmp_path: Path, name: str, content: object, said: str) -> None:
    path = tmp_path / name
    if isinstance(content, np.ndarray):
        np.save(path, content, allow_pickle=True)
    else:
        path.write_bytes(content if isinstance(content, bytes) else str(content).encode())
    with pytest.raises(DataError) as error:
        runs_from_table(path) if name == "a.csv" else runs_from_list(path, known=["W"])
    assert str(error.value).startswith(f"{path}: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_list_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros(10, np.int8))
    path.write_bytes(path.read_bytes().replace(b"(10,), } ", b"(99999,)}"))
    with pytest.raises(DataError, match=r"not a NumPy file of whole numbers .*mmap length is greater than file size"):
        runs_from_list(path, known=[])
    path.write_bytes(path.read_bytes().replace(b"(99999,)}", b"(99999,) "))
    with pytest.raises(DataError, match="not a NumPy file of whole numbers"):
        runs_from_list(path, known=[])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((2, 3), int), "has shape [2, 3]; wanted one dimension"),
        (np.array([0.5]), "label 1 is 0.5"),
        (np.array([np.nan]), "label 1 is nan"),
        (np.array([], int), "holds no labels"),
        (np.array([b"x" * 1000]), "absurdly large"),
        (np.array([["W"]], dtype="S1"), "is not a list of texts"),
    ],
)
def test_a_dataset_that_is_no_list_of_labels(tmp_path: Path, values: np.ndarray, said: str) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["h"] = values
    with pytest.raises(DataError, match=re.escape(said)):
        runs_from_dataset(path, "h")
    with pytest.raises(DataError, match="no dataset"):
        runs_from_dataset(path, "missing")


# --- damaged signals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", nights.SIGNALS)
def test_an_empty_a_short_and_a_foreign_file_are_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    reader = adapter(kind, "csv")
    path = nights.write_night(tmp_path, kind, "csv")
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 3], whole[:100], b"<html>not found</html>" * 100, bytes(5000)):
        if path.suffix == ".hea" and content == whole[:100]:
            continue  # a header that lost its last name is a whole header: the audit misses that channel
        path.write_bytes(content)
        reason = refusal(reader, tmp_path)
        assert reason.startswith(str(tmp_path)), reason
        assert "\n" not in reason


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        (
            "wfdb-16",
            (".hea", "p01.dat", "../p01.dat"),
            "wfdb cannot read it (HeaderSyntaxError: invalid syntax in signal line)",
        ),
        ("wfdb-16", (".hea", "p01.dat", "~"), "refers to '~', which is not beside it"),
        ("wfdb-16", (".hea", "p01.dat", "s3://a/b"), "wfdb cannot read it"),
        ("wfdb-16", (".hea", "p01.dat", "x.dat"), "refers to 'x.dat', which is not beside it"),
        ("wfdb-16", (".hea", "100 30000", "100 30001"), "truncated: header states 30001 samples, p01.dat holds 30000"),
        ("wfdb-16", (".hea", "100 30000", "100 99999999999"), "truncated: header states 99999999999 samples"),
        ("wfdb-16", (".hea", "p01 2 ", "p01 3 "), "states 3 signals and describes 2"),
        ("wfdb-16", (".hea", "p01 2 100", "p01 2 0"), "has a sampling rate of 0 Hz"),
        ("wfdb-16", (".hea", " 16 ", " 17 "), "unknown WFDB storage format '17'"),
        ("wfdb-16", (".hea", " 16 ", " 16:99999999999 "), "samples per frame or skew"),
        ("wfdb-16", (".hea", " 16 ", " 16x99999999 "), "truncated"),
        ("brainvision", (".vhdr", "Channels=2", "Channels=999999999"), "no number of channels between 1 and 4096"),
        ("brainvision", (".vhdr", "DataFile=p01", "DataFile=/etc/p01"), "its files must lie in its own folder"),
        ("brainvision", (".vhdr", "DataFile=p01", "DataFile=p02"), "refers to 'p02.eeg', which is not beside it"),
        ("brainvision", (".vhdr", "Interval=10000", "Interval=-1"), "sampling rate"),
    ],
)
def test_what_a_header_claims_is_not_believed(
    tmp_path: Path, kind: str, change: tuple[str, str, str], said: str
) -> None:
    path = nights.write_night(tmp_path, kind, "csv")
    suffix, old, new = change
    header = path.with_suffix(suffix)
    text = header.read_text(encoding="utf-8")
    assert old in text
    header.write_text(text.replace(old, new), encoding="utf-8")
    reason = refusal(adapter(kind, "csv"), tmp_path)
    assert said in reason
    assert "\n" not in reason


def test_a_header_without_a_length_takes_it_from_the_file(tmp_path: Path) -> None:
    path = nights.write_night(tmp_path, "wfdb-16", "csv")
    path.write_text(path.read_text().replace("100 30000", "100"))
    reader = adapter("wfdb-16", "csv")
    found = only(reader, tmp_path)
    assert reader.problems(found) == ["header states no number of samples; 30000 taken from the size of p01.dat"]
    np.testing.assert_allclose(reader.read(found, "Fpz"), nights.signals()[nights.EEG], atol=0.02)


def test_a_record_of_several_segments_is_refused(tmp_path: Path) -> None:
    path = nights.write_night(tmp_path, "wfdb-16", "csv")
    path.write_text("p01/2 2 100 30000\na 15000\nb 15000\n")
    assert "a record of several segments; write it as one (wfdb: xform)" in refusal(adapter("wfdb-16", "csv"), tmp_path)


def test_bdf_counts_are_held_against_the_file(tmp_path: Path) -> None:
    path = nights.write_night(tmp_path, "bdf", "csv")
    reader = adapter("bdf", "csv")
    for offset, text, width, said in (
        (236, "999999", 8, "truncated: header states 999999 data records"),
        (252, "9999", 4, "BDF header is damaged: 9999 channels"),
        (252, "x", 4, "its counts are no whole numbers"),
        (192, "BDF+D", 5, "a discontinuous recording (BDF+D)"),
        (256 + 216 * 3, "-1", 8, "samples per data record are no whole numbers"),
        (244, "0", 8, "data records of '0' s"),
    ):
        whole = path.read_bytes()
        edf_files.patch(path, offset, text, width)
        assert said in refusal(reader, tmp_path)
        path.write_bytes(whole)


def test_fif_tags_that_lead_back_or_to_other_files_are_not_followed(tmp_path: Path) -> None:
    path = nights.write_night(tmp_path, "fif", "csv")
    reader = adapter("fif", "csv")
    whole = path.read_bytes()
    second = 16 + 20  # the first tag holds an identity of 20 bytes
    for position, field, value, said in (
        (second, 3, 0x10, "points back"),
        (second, 2, 2**31 - 1, "a tag of 2147483647 bytes at byte 36"),
        (second, 0, 115, "one of several parts of a recording"),
        (0, 0, 7, "not a FIF file (begins with tag 7)"),
    ):
        raw = bytearray(whole)
        raw[position + 4 * field : position + 4 * field + 4] = struct.pack(">i", value)
        path.write_bytes(raw)
        assert said in refusal(reader, tmp_path)
    path.unlink()
    (tmp_path / "p01.fif.gz").write_bytes(gzip.compress(whole))
    (tmp_path / "p01.fif.csv").write_text("0,30,W\n")
    told = adapter("fif", "csv", signals='files = "*.fif.gz"\nformat = "mne"')
    assert "a compressed FIF file" in refusal(told, tmp_path)


def test_eeglab_files_that_grow_beyond_bounds_are_refused(tmp_path: Path) -> None:
    path = nights.write_night(tmp_path, "eeglab", "csv")
    bomb = zlib.compress(struct.pack("<II", 14, 2**32 - 8) + bytes(1000))
    path.write_bytes(path.read_bytes()[:128] + 2 * (struct.pack("<II", 15, len(bomb)) + bomb))
    assert "holds more than 4 GiB; or its header is damaged" in refusal(adapter("eeglab", "csv"), tmp_path)


def test_eeglab_samples_that_are_missing_elsewhere_or_too_short(tmp_path: Path) -> None:
    path = nights.write_night(tmp_path, "eeglab-fdt", "csv")
    reader = adapter("eeglab-fdt", "csv")
    samples = path.with_suffix(".fdt")
    samples.write_bytes(samples.read_bytes()[:-4])
    assert "truncated: 240000 bytes are stated, the file has 239996" in refusal(reader, tmp_path)
    samples.unlink()
    assert "cannot read it" in refusal(reader, tmp_path)


def test_two_channels_of_one_name_are_not_guessed_between(tmp_path: Path) -> None:
    path = nights.write_night(tmp_path, "wfdb-16", "csv")
    path.write_text(path.read_text().replace(nights.EOG, nights.EEG))
    assert "2 channels are named 'Fpz'; which is Fpz?" in refusal(adapter("wfdb-16", "csv"), tmp_path)


def test_edf_is_never_read_through_mne(tmp_path: Path) -> None:
    nights.write_night(tmp_path, "edf", "csv")
    reader = adapter("edf", "csv", signals='files = "p*.*df"\nformat = "mne"')
    assert 'EDF has a reader of its own (signals.format = "edf")' in refusal(reader, tmp_path)
