"""CinC 2018 from its own files: real labels, records made byte by byte, and who is refused."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import wfdb
from test_wfdb import annotations

from tusp.datasets.audit import audit_recordings
from tusp.datasets.corpora.cinc2018 import LABEL_MAP, Cinc2018, runs_from_arousal, runs_from_one_hot
from tusp.datasets.corpora.simulated import SIMULATED_TOKEN
from tusp.datasets.formats.hypnograms import to_epochs
from tusp.datasets.formats.wfdb import read_wfdb_annotations, read_wfdb_header
from tusp.datasets.recording import RecordingFiles, Stages
from tusp.platform.errors import DataError, UserError

NAMES = (
    "F3-M2 F4-M1 C3-M2 C4-M1 O1-M2 O2-M1 E1-M2 Chin1-Chin2 ABD CHEST AIRFLOW SaO2 ECG".split()  # noqa: SIM905
)
GAINS = ["1/uV"] * 11 + ["655.35(-32768)/%", "1000/mV"]
RATE = 200
EPOCH = 30 * RATE
STAGES = ("W", "N1", "N2", "N3", "R")
COLUMNS = ("wake", "nonrem1", "nonrem2", "nonrem3", "rem", "undefined")


def write_signals(
    folder: Path,
    name: str,
    n_samples: int,
    *,
    seed: int = 0,
    simulated: bool = False,
    names: Sequence[str] = NAMES,
    gains: Sequence[str] = GAINS,
) -> np.ndarray:
    """Header (lines end CRLF) and MATLAB 4 signals as the challenge has them; returns the integers [n, channels]."""
    digital = np.random.default_rng(seed).normal(0, 40, (n_samples, len(names))).astype("<i2")
    folder.mkdir(parents=True, exist_ok=True)
    head = struct.pack("<5I", 30, len(names), n_samples, 0, 4) + b"val\0"
    (folder / f"{name}.mat").write_bytes(head + digital.tobytes())
    lines = [f"{name} {len(names)} {RATE} {n_samples}"]
    for column, (channel, gain) in enumerate(zip(names, gains, strict=True)):
        total = (int(digital[:, column].sum(dtype=np.int64)) + 2**15) % 2**16 - 2**15
        lines.append(f"{name}.mat 16+24 {gain} 16 0 {digital[0, column]} {total} 0 {channel}")
    if simulated:
        lines.append(f"# {SIMULATED_TOKEN}")
    (folder / f"{name}.hea").write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    return digital


def write_arousal(path: Path, notes: Sequence[tuple[int, str]]) -> None:
    """Stage notes with the challenge's first note and an event that spans the second epoch."""
    events = [(EPOCH + 100, "(resp_hypopnea"), (2 * EPOCH - 100, "resp_hypopnea)"), (EPOCH + 50, "arousal_rera)")]
    every = sorted([*notes, *events], key=lambda note: note[0])
    path.write_bytes(annotations((0, "## time resolution: 200"), *every))


def write_one_hot(path: Path, stages: Sequence[int], n_samples: int, **changes: object) -> None:
    """Columns as in the challenge: [1, n] of bytes, stages one sample early, the last sample undefined."""
    codes = np.full(n_samples, -1)
    spread = np.repeat(np.asarray(stages), EPOCH)[1 : n_samples + 1]
    codes[: len(spread)] = spread
    codes[-1] = -1
    with h5py.File(path, "w", userblock_size=512) as file:
        group = file.create_group("data/sleep_stages")
        for code, column in enumerate(COLUMNS):
            mark = (codes == (code if code < 5 else -1)).astype(np.uint8)[None]
            data = changes.get(column, mark)
            if data is not None:
                group.create_dataset(column, data=data, compression="gzip", chunks=True)
        file["data/arousals"] = np.zeros((n_samples, 1))


def write_night(
    folder: Path, name: str = "tr03-0005", *, seed: int = 0, one_hot: bool = False, rest: int = 0, **more: bool
) -> np.ndarray:
    """Two unscored epochs, then every stage for two epochs; the last stage is written once and lasts to the end."""
    n_samples = 12 * EPOCH + rest
    digital = write_signals(folder, name, n_samples, seed=seed, **more)  # type: ignore[arg-type]
    write_arousal(folder / f"{name}.arousal", [((2 + 2 * i) * EPOCH, stage) for i, stage in enumerate(STAGES)])
    if one_hot:
        write_one_hot(folder / f"{name}-arousal.mat", EXPECTED, n_samples)
    return digital


EXPECTED = [-1, -1, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def only(root: Path) -> RecordingFiles:
    discovery = Cinc2018().discover(root)
    assert not discovery.refused
    (night,) = discovery.recordings
    return night


def refusal(root: Path) -> str:
    """Why the only night is refused; one line."""
    discovery = Cinc2018().discover(root)
    assert not discovery.recordings
    (reason,) = discovery.refused.values()
    assert "\n" not in reason
    return reason


def real_stages(shared_data: Path) -> tuple[Stages, Stages, np.ndarray]:
    folder = shared_data / "cinc2018"
    header = read_wfdb_header(folder / "tr03-0005.hea")
    assert header.n_samples is not None
    at = {"sampling_rate_hz": header.sampling_rate_hz, "n_samples": header.n_samples}
    path = folder / "tr03-0005.arousal"
    seconds = header.n_samples / header.sampling_rate_hz
    notes = to_epochs(
        runs_from_arousal(read_wfdb_annotations(path), path=path, **at), LABEL_MAP, signal_seconds=seconds
    )
    one_hot = to_epochs(runs_from_one_hot(folder / "tr03-0005-arousal.mat", **at), LABEL_MAP, signal_seconds=seconds)
    assert (
        notes.problems
        == one_hot.problems
        == (
            "labels begin after the signal; the first 12 epochs are unscored",
            "the signal's last 25 s are no whole epoch; dropped",
        )
    )
    rle = json.loads((folder / "hypnograms-rle.json").read_text())["tr03-0005"]
    return notes.stages, one_hot.stages, np.repeat([code for code, _ in rle], [length for _, length in rle])


def test_the_real_label_files_agree_at_every_epoch(shared_data: Path) -> None:
    """Header, annotations and one-hot columns of tr03-0005; the published list also has the incomplete last epoch."""
    notes, one_hot, published = real_stages(shared_data)
    assert len(notes) == len(one_hot) == 857
    assert len(published) == 858
    np.testing.assert_array_equal(notes, one_hot)
    np.testing.assert_array_equal(notes, published[:857])
    assert set(np.unique(notes)) == {-1, 0, 1, 2, 3, 4}


def test_the_real_labels_through_the_adapter(shared_data: Path, tmp_path: Path) -> None:
    """The real header and labels with a simulated signal of the real length, 128 MB and sparse."""
    folder = tmp_path / "training" / "tr03-0005"
    folder.mkdir(parents=True)
    for name in ("tr03-0005.hea", "tr03-0005.arousal", "tr03-0005-arousal.mat"):
        shutil.copy(shared_data / "cinc2018" / name, folder / name)
    with (folder / "tr03-0005.mat").open("wb") as stream:
        stream.write(struct.pack("<5I", 30, 13, 5147000, 0, 4) + b"val\0")
        stream.truncate(24 + 26 * 5147000)
    adapter, night = Cinc2018(), only(tmp_path)
    hypnogram = adapter.hypnogram(night)
    np.testing.assert_array_equal(hypnogram.stages, real_stages(shared_data)[0])
    assert len(hypnogram.problems) == 2
    assert adapter.channels(night)[6].n_samples == 5147000
    with pytest.raises(DataError, match="'F3-M2' is damaged or of another record"):
        adapter.read(night, "F3-M2")  # the real checksum, and zeros


def test_all_published_names_are_understood(shared_data: Path, tmp_path: Path) -> None:
    """994 records by name in the published list of checksums; every one is asked for its labels or header in turn."""
    lines = (shared_data / "cinc2018" / "phys_checksums.txt").read_text().splitlines()
    for line in lines:
        file = tmp_path / line.split()[-1]
        if file.suffix != ".hea":
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    discovery = Cinc2018().discover(tmp_path)
    assert len(discovery.refused) == 994
    assert not discovery.recordings
    assert not discovery.excluded
    assert all("no header (.hea)" in reason for reason in discovery.refused.values())
    published = json.loads((shared_data / "cinc2018" / "hypnograms-rle.json").read_text())
    assert set(discovery.refused) == set(published)


def test_signals_come_back_through_wfdb_and_through_the_adapter(tmp_path: Path) -> None:
    digital = write_night(tmp_path)
    adapter, night = Cinc2018(), only(tmp_path)
    theirs = wfdb.rdrecord(str(tmp_path / "tr03-0005"))
    assert [channel.name for channel in adapter.channels(night)] == theirs.sig_name == NAMES
    for index, name in enumerate(NAMES):
        factor = 1000 if name == "ECG" else 1
        ours = adapter.read(night, name)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs.p_signal[:, index] * factor, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(adapter.read(night, "E1-M2"), digital[:, 6])
    eeg, ecg = adapter.channels(night)[0], adapter.channels(night)[12]
    assert (eeg.sampling_rate_hz, eeg.unit, eeg.n_samples, eeg.limits) == (200, "uV", 72000, (-32767, 32767))
    assert (ecg.unit, ecg.limits) == ("mV", pytest.approx((-32767, 32767)))
    groups = adapter.card.channel_groups
    assert {name for names in groups.values() for name in names} <= set(NAMES)
    assert adapter.problems(night) == []


@pytest.mark.parametrize("layout", ["official", "flat", "shouting", "labels apart"])
def test_nights_are_found_in_any_layout(tmp_path: Path, layout: str) -> None:
    for seed, name in enumerate(("tr03-0005", "tr12-0741")):
        write_night(tmp_path / "training" / name, name, seed=seed, one_hot=seed == 0)
    (tmp_path / "RECORDS").write_text("training/tr03-0005/\n")
    (tmp_path / "age-sex.csv").write_text("Record,Age,Sex\n")
    for file in tmp_path.glob("training/*/*"):
        if layout == "flat":
            file.rename(tmp_path / file.name)
        if layout == "shouting":
            file.rename(file.with_name(file.name.upper()))
        if layout == "labels apart" and "arousal" in file.name:
            (tmp_path / "labels").mkdir(exist_ok=True)
            file.rename(tmp_path / "labels" / file.name)
    adapter = Cinc2018()
    discovery = adapter.discover(tmp_path)
    assert not discovery.refused
    assert [(n.name, n.subject, sorted(n.files)) for n in discovery.recordings] == [
        ("tr03-0005", "tr03-0005", ["header", "labels", "one_hot", "signals"]),
        ("tr12-0741", "tr12-0741", ["header", "labels", "signals"]),
    ]
    for night in discovery.recordings:
        assert adapter.hypnogram(night).stages.tolist() == EXPECTED
        assert len(adapter.read(night, "C4-M1")) == 12 * EPOCH


def test_stages_hold_to_the_next_and_the_last_to_the_end(tmp_path: Path) -> None:
    write_night(tmp_path, rest=3210)
    hypnogram = Cinc2018().hypnogram(only(tmp_path))
    assert hypnogram.stages.tolist() == EXPECTED
    assert hypnogram.stages.dtype == np.int8
    assert hypnogram.problems == (
        "labels begin after the signal; the first 2 epochs are unscored",
        "the signal's last 16.05 s are no whole epoch; dropped",
    )


@pytest.mark.parametrize("kind", [".arousal", "-arousal.mat"])
def test_a_record_scored_from_the_first_sample_on(tmp_path: Path, kind: str) -> None:
    """As tr03-0314, tr05-0326 and tr07-0602; wfdb's own reader drops the first note."""
    write_signals(tmp_path, "tr03-0314", 6 * EPOCH)
    if kind == ".arousal":
        write_arousal(tmp_path / "tr03-0314.arousal", [(0, "W"), (3 * EPOCH, "N1")])
        theirs = wfdb.rdann(str(tmp_path / "tr03-0314"), "arousal").aux_note
        assert [note for note in theirs if note in STAGES] == ["N1"]
    else:
        write_one_hot(tmp_path / "tr03-0314-arousal.mat", [0, 0, 0, 1, 1, 1], 6 * EPOCH)
    hypnogram = Cinc2018().hypnogram(only(tmp_path))
    assert hypnogram.stages.tolist() == [0, 0, 0, 1, 1, 1]
    assert hypnogram.problems == ()


def test_one_hot_columns_alone(tmp_path: Path) -> None:
    write_night(tmp_path, one_hot=True, rest=100)
    (tmp_path / "tr03-0005.arousal").unlink()
    night = only(tmp_path)
    assert night.labels == tmp_path / "tr03-0005-arousal.mat"
    assert set(night.files) == {"signals", "labels", "header"}
    hypnogram = Cinc2018().hypnogram(night)
    assert hypnogram.stages.tolist() == EXPECTED
    assert hypnogram.problems == (
        "labels begin after the signal; the first 2 epochs are unscored",
        "the signal's last 0.5 s are no whole epoch; dropped",
    )


def _long_night(folder: Path, wrong: int) -> None:
    """200 epochs of N2; in the one-hot file ``wrong`` of them are REM, from the 50th on."""
    write_signals(folder, "tr03-0005", 200 * EPOCH, names=NAMES[:1], gains=GAINS[:1])
    write_arousal(folder / "tr03-0005.arousal", [(0, "N2")])
    stages = np.full(200, 2)
    stages[50 : 50 + wrong] = 4
    write_one_hot(folder / "tr03-0005-arousal.mat", stages, 200 * EPOCH)


def test_two_label_files_that_differ_are_reported_or_refused(tmp_path: Path) -> None:
    adapter = Cinc2018()
    for wrong in (0, 2, 3):
        _long_night(tmp_path, wrong)
        if wrong == 3:
            with pytest.raises(DataError, match=r"differ in 3 of 200 epochs \(first: epoch 50\); keep the one"):
                adapter.hypnogram(only(tmp_path))
            continue
        hypnogram = adapter.hypnogram(only(tmp_path))
        assert set(hypnogram.stages.tolist()) == {2}
        assert any("differ in 2 of 200 epochs" in problem for problem in hypnogram.problems) == (wrong == 2)


def test_a_broken_second_label_file_is_reported(tmp_path: Path) -> None:
    write_night(tmp_path)
    (tmp_path / "tr03-0005-arousal.mat").write_bytes(b"an error page")
    hypnogram = Cinc2018().hypnogram(only(tmp_path))
    assert hypnogram.stages.tolist() == EXPECTED
    assert any("second label file not compared" in problem for problem in hypnogram.problems)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rem": None}, "no dataset"),
        ({"rem": np.zeros((1, 999), np.uint8)}, "'rem' has 999 samples, the signal 72000"),
        ({"rem": np.zeros((2, 36000), np.uint8)}, "wanted one dimension"),
        ({"rem": np.full((1, 72000), b"x")}, "no plain numbers"),
        ({"rem": np.full((1, 72000), np.nan)}, "'rem' holds other values than 0 and 1|not finite"),
        (dict.fromkeys(COLUMNS, np.zeros((1, 72000), np.uint8)), "no epoch has a sleep stage"),
        (dict.fromkeys(COLUMNS, np.ones((1, 72000), np.uint8)), "no epoch has a sleep stage"),
    ],
)
def test_one_hot_columns_that_cannot_be(tmp_path: Path, changes: Mapping[str, object], reason: str) -> None:
    write_signals(tmp_path, "tr03-0005", 12 * EPOCH)
    write_one_hot(tmp_path / "tr03-0005-arousal.mat", EXPECTED, 12 * EPOCH, **changes)
    with pytest.raises(DataError, match=reason) as raised:
        Cinc2018().hypnogram(only(tmp_path))
    assert "tr03-0005-arousal.mat" in str(raised.value)


def test_epochs_with_two_stages_at_once_are_unscored(tmp_path: Path) -> None:
    write_signals(tmp_path, "tr03-0005", 12 * EPOCH)
    rem = np.zeros((1, 12 * EPOCH), np.uint8)
    rem[0, 4 * EPOCH :] = 1
    write_one_hot(tmp_path / "tr03-0005-arousal.mat", EXPECTED, 12 * EPOCH, rem=rem)
    hypnogram = Cinc2018().hypnogram(only(tmp_path))
    assert hypnogram.stages.tolist() == [-1, -1, 0, 0, -1, -1, -1, -1, -1, -1, 4, 4]
    assert any("'2 stages at once'" in problem for problem in hypnogram.problems)


def test_notes_that_are_neither_stage_nor_event_end_the_stage(tmp_path: Path) -> None:
    write_signals(tmp_path, "tr03-0005", 6 * EPOCH)
    write_arousal(tmp_path / "tr03-0005.arousal", [(0, "W"), (2 * EPOCH, "S4?"), (4 * EPOCH, "N1")])
    hypnogram = Cinc2018().hypnogram(only(tmp_path))
    assert hypnogram.stages.tolist() == [0, 0, -1, -1, 1, 1]
    assert any("labels that are no stage: 'S4?' (1)" in problem for problem in hypnogram.problems)


def test_labels_of_another_record_are_refused(tmp_path: Path) -> None:
    adapter = Cinc2018()
    write_night(tmp_path)
    labels = tmp_path / "tr03-0005.arousal"
    write_arousal(labels, [(0, "W"), (14 * EPOCH, "N1")])
    with pytest.raises(DataError, match="does not belong to this signal: a stage begins at 420 s"):
        adapter.hypnogram(only(tmp_path))
    write_arousal(labels, [])
    with pytest.raises(DataError, match="no sleep stages among its 4 annotations"):
        adapter.hypnogram(only(tmp_path))
    write_arousal(labels, [(0, "W"), (12 * EPOCH, "N1")])
    assert set(adapter.hypnogram(only(tmp_path)).stages.tolist()) == {0}


def test_annotations_with_a_time_resolution_of_their_own(tmp_path: Path) -> None:
    write_signals(tmp_path, "tr03-0005", 4 * EPOCH)
    raw = annotations((0, "## time resolution: 1000"), (0, "W"), (60_000, "N2"))
    (tmp_path / "tr03-0005.arousal").write_bytes(raw)
    assert Cinc2018().hypnogram(only(tmp_path)).stages.tolist() == [0, 0, 2, 2]


def test_test_records_are_left_out_by_name(tmp_path: Path) -> None:
    write_night(tmp_path / "training" / "tr03-0005")
    write_signals(tmp_path / "test" / "te03-0094", "te03-0094", EPOCH)
    write_signals(tmp_path / "test" / "tr99-0001", "tr99-0001", EPOCH)
    discovery = Cinc2018().discover(tmp_path)
    assert [night.name for night in discovery.recordings] == ["tr03-0005"]
    assert discovery.excluded == ("te03-0094", "tr99-0001")
    assert not discovery.refused
    with pytest.raises(UserError, match="only test records"):
        Cinc2018().discover(tmp_path / "test")


def test_who_is_refused(tmp_path: Path) -> None:
    write_night(tmp_path / "whole")
    for missing, reason in ((".mat", "no signals"), (".hea", "no header"), (".arousal", "no labels")):
        root = tmp_path / missing
        shutil.copytree(tmp_path / "whole", root)
        (root / f"tr03-0005{missing}").unlink()
        assert reason in refusal(root)
    root = tmp_path / "twice"
    for copy in ("a", "b"):
        shutil.copytree(tmp_path / "whole", root / copy)
    assert "2 files claim to be the signals (.mat) of tr03-0005" in refusal(root)
    root = tmp_path / "renamed"
    root.mkdir()
    for file in (tmp_path / "whole").iterdir():
        shutil.copy(file, root / file.name.replace("0005", "0029"))
    assert "describes the record 'tr03-0005', not 'tr03-0029'" in refusal(root)
    root = tmp_path / "other file"
    shutil.copytree(tmp_path / "whole", root)
    text = (root / "tr03-0005.hea").read_text().replace("tr03-0005.mat 16", "tr03-0029.mat 16")
    (root / "tr03-0005.hea").write_text(text)
    assert "lies in 'tr03-0029.mat'" in refusal(root)
    root = tmp_path / "misnamed"
    root.mkdir()
    shutil.copy(tmp_path / "whole" / "tr03-0005.hea", root / "tr03-0005 (1).hea")
    assert "name does not follow" in refusal(root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no night of cinc2018 \(files such as tr03-0005.mat\)"):
        Cinc2018().discover(tmp_path / "empty")


def test_signals_that_do_not_fit_the_header(tmp_path: Path) -> None:
    adapter = Cinc2018()
    write_night(tmp_path)
    night = only(tmp_path)
    whole = night.signals.read_bytes()
    header = (tmp_path / "tr03-0005.hea").read_text()

    def refused(reason: str) -> None:
        for ask in (adapter.channels, adapter.problems, adapter.hypnogram):
            with pytest.raises(DataError, match=reason):
                ask(night)
        with pytest.raises(DataError, match=reason):
            adapter.read(night, "F3-M2")
        night.signals.write_bytes(whole)
        (tmp_path / "tr03-0005.hea").write_text(header)

    night.signals.write_bytes(whole[: len(whole) // 2])
    refused("truncated: header states 72000 samples")
    night.signals.write_bytes(b"")
    refused("truncated")
    (tmp_path / "tr03-0005.hea").write_text(header.replace(" 72000", " 99999999999"))
    refused("days of signal")
    (tmp_path / "tr03-0005.hea").write_text(header.replace(" 72000", " 72"))
    refused("holds 13 signals of 72000 samples, but tr03-0005.hea describes 13 of 72")
    (tmp_path / "tr03-0005.hea").write_text(header.replace("16+24", "80+24"))
    refused("format 80; only format 16 is read")
    (tmp_path / "tr03-0005.hea").unlink()
    refused("tr03-0005.hea: no such file")
    with pytest.raises(DataError, match="no channel 'C7'; the record has F3-M2"):
        adapter.read(night, "C7")


def test_odd_units_and_surplus_bytes_are_problems(tmp_path: Path) -> None:
    write_night(tmp_path)
    header = tmp_path / "tr03-0005.hea"
    header.write_text(header.read_text().replace("1/uV 16 0", "1/furlong 16 0", 1))
    with (tmp_path / "tr03-0005.mat").open("ab") as stream:
        stream.write(b"\0" * 7)
    assert Cinc2018().problems(only(tmp_path)) == [
        "7 bytes after the last sample that the header states in tr03-0005.mat; not read",
        "F3-M2: unit 'furlong' is not electrical; values taken as microvolts",
    ]


def test_simulated_and_real_records_do_not_mix(tmp_path: Path) -> None:
    write_night(tmp_path, "tr03-0005", simulated=True)
    assert only(tmp_path).simulated
    write_night(tmp_path, "tr03-0029", seed=1)
    with pytest.raises(UserError, match="mixes simulated nights"):
        Cinc2018().discover(tmp_path)


def test_the_audit_of_a_record(tmp_path: Path) -> None:
    """Some samples of one channel are missing; the adapter travels to other processes."""
    digital = write_night(tmp_path, one_hot=True, rest=600)
    digital[5000:5100, 0] = -32768
    header = (tmp_path / "tr03-0005.hea").read_bytes().split(b"\r\n")
    header[1] = re.sub(rb"-?\d+ 0 F3-M2", b"%d 0 F3-M2" % (int(digital[:, 0].sum()) % 2**16), header[1])
    (tmp_path / "tr03-0005.hea").write_bytes(b"\r\n".join(header))
    with (tmp_path / "tr03-0005.mat").open("r+b") as stream:
        stream.seek(24)
        stream.write(digital.tobytes())
    adapter: Cinc2018 = pickle.loads(pickle.dumps(Cinc2018()))
    (row,) = audit_recordings(adapter, tmp_path, adapter.discover(tmp_path))
    assert row.reason is None
    assert row.subject == "tr03-0005"
    assert [channel.name for channel in row.channels if channel.used] == NAMES[:7]
    assert not any("inter-quartile" in problem for problem in row.problems)
