"""The store of prepared nights: whole or not at all, and every change to it noticed."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tusp.datasets.prepared import (
    META,
    SAMPLES_PER_EPOCH,
    SIGNALS,
    STAGES,
    PreparedChannel,
    PreparedRecording,
    open_prepared,
    recording_lock,
    sweep,
    verify_prepared,
    write_prepared,
    writing,
)
from tusp.platform.errors import DataError
from tusp.platform.identity import fingerprint

N_EPOCHS = 6


def channel(name: str, group: str) -> PreparedChannel:
    return PreparedChannel(
        name=name, group=group, sampling_rate_hz=100.0, unit="uV", median=0.5, iqr=30.0, clipped_share=0.0
    )


def write(root: Path, *, key: str = "a") -> PreparedRecording:
    rng = np.random.default_rng(0)
    return write_prepared(
        root,
        identity={"key": key},
        corpus="c",
        name="night",
        subject="p1",
        simulated=True,
        channels=[channel("C3", "EEG"), channel("C4", "EEG"), channel("E1", "EOG")],
        signals=rng.normal(size=(3, N_EPOCHS * SAMPLES_PER_EPOCH)).astype(np.float16),
        stages=np.array([0, 1, 2, -1, 3, 4], dtype=np.int8),
        first_epoch=7,
        problems=["a gap"],
    )


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    recording = write(tmp_path)
    expected = np.random.default_rng(0).normal(size=(3, N_EPOCHS * SAMPLES_PER_EPOCH)).astype(np.float16)
    again = open_prepared(recording.folder)
    assert again == recording
    assert again.groups == {"EEG": (0, 1), "EOG": (2,)}
    assert (again.corpus, again.name, again.subject, again.simulated) == ("c", "night", "p1", True)
    assert (again.first_epoch, again.n_epochs, again.problems) == (7, N_EPOCHS, ("a gap",))
    assert again.fingerprint == fingerprint({"key": "a"})
    signals = again.signals()
    assert isinstance(signals, np.memmap)
    assert signals.dtype == np.float16
    np.testing.assert_array_equal(signals, expected)
    np.testing.assert_array_equal(again.stages(), [0, 1, 2, -1, 3, 4])
    verify_prepared(again)


def test_signals_cannot_be_written_through_the_map(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        write(tmp_path).signals()[0, 0] = 1


def test_a_recording_travels_to_another_process(tmp_path: Path) -> None:
    recording = write(tmp_path)
    assert pickle.loads(pickle.dumps(recording)) == recording


@pytest.mark.parametrize("file", [SIGNALS, STAGES, META])
def test_a_missing_or_short_file_is_noticed(tmp_path: Path, file: str) -> None:
    path = write(tmp_path).folder / file
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="prepare the corpus again") as caught:
        open_prepared(path.parent)
    assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(DataError):
        open_prepared(path.parent)


def test_changed_stages_are_noticed_on_opening(tmp_path: Path) -> None:
    recording = write(tmp_path)
    stages = np.load(recording.folder / STAGES)
    stages[0] = 4
    np.save(recording.folder / STAGES, stages)
    with pytest.raises(DataError, match=r"stages\.npy was changed"):
        open_prepared(recording.folder)


def test_a_changed_signal_is_noticed_by_the_full_check(tmp_path: Path) -> None:
    recording = write(tmp_path)
    with (recording.folder / SIGNALS).open("r+b") as stream:
        stream.seek(-2, 2)
        stream.write(b"\x00\x3c")
    open_prepared(recording.folder)
    with pytest.raises(DataError, match=r"signals\.npy: was changed"):
        verify_prepared(recording)


def test_a_night_with_the_earlier_checksum_is_still_verified(tmp_path: Path) -> None:
    recording = write(tmp_path)
    signals, record = recording.folder / SIGNALS, recording.folder / META
    meta = json.loads(record.read_text())
    del meta["files"][SIGNALS]["crc32_of_samples"], meta["sha256_of_the_rest"]
    meta["files"][SIGNALS]["blake2b"] = hashlib.blake2b(signals.read_bytes()).hexdigest()
    record.write_text(json.dumps({**meta, "sha256_of_the_rest": fingerprint(meta)}))
    verify_prepared(recording)
    damaged = bytearray(signals.read_bytes())
    damaged[-1] ^= 1
    signals.write_bytes(damaged)
    with pytest.raises(DataError, match=r"signals\.npy: was changed"):
        verify_prepared(recording)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -np.nan])
def test_a_value_that_is_no_number_is_never_written(tmp_path: Path, value: float) -> None:
    details = (channel("C3", "EEG"),)
    signals = np.full((1, N_EPOCHS * SAMPLES_PER_EPOCH), -1, np.float16)
    signals[0, 77] = value
    with pytest.raises(AssertionError, match="C3: a value that is not finite"):
        write_prepared(
            tmp_path,
            identity={"recording": "x"},
            corpus="c",
            name="x",
            subject="p",
            simulated=True,
            channels=details,
            signals=signals,
            stages=np.zeros(N_EPOCHS, np.int8),
        )
    assert not [path for path in tmp_path.iterdir() if path.name != ".locks"]


@pytest.mark.parametrize("key, value", [("simulated", False), ("subject", "p2"), ("n_epochs", 5)])
def test_a_changed_record_is_noticed(tmp_path: Path, key: str, value: object) -> None:
    folder = write(tmp_path).folder
    meta = json.loads((folder / META).read_text())
    meta[key] = value
    (folder / META).write_text(json.dumps(meta))
    with pytest.raises(DataError, match="was changed after it was written"):
        open_prepared(folder)


def test_a_folder_under_another_name_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path).folder
    moved = folder.rename(tmp_path / ("0" * 20))
    with pytest.raises(DataError, match="do not belong together"):
        open_prepared(moved)


def test_nothing_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no prepared recording here"):
        open_prepared(tmp_path / "none")


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    class BreakdownError(Exception):
        pass

    with pytest.raises(BreakdownError), writing(tmp_path, identity={"key": "a"}, n_epochs=1) as writer:
        writer.add(channel("C3", "EEG"), np.zeros(SAMPLES_PER_EPOCH, dtype=np.float16))
        raise BreakdownError
    assert list(tmp_path.iterdir()) == []


def test_values_that_are_no_number_never_reach_the_store(tmp_path: Path) -> None:
    bad = np.zeros(SAMPLES_PER_EPOCH, dtype=np.float16)
    bad[5] = np.nan
    with pytest.raises(AssertionError), writing(tmp_path, identity={"key": "a"}, n_epochs=1) as writer:
        writer.add(channel("C3", "EEG"), bad)


def test_the_sweep_takes_what_the_dead_left_and_spares_the_living(tmp_path: Path) -> None:
    dead, alive = "1" * 20, "2" * 20
    for digits in (dead, alive):
        (tmp_path / f".{digits}.part").mkdir()
        (tmp_path / f".{digits}.part" / SIGNALS).write_bytes(b"x")
    with recording_lock(tmp_path, alive):
        assert sweep(tmp_path) == [tmp_path / f".{dead}.part"]
    assert (tmp_path / f".{alive}.part").exists()


def test_reading_needs_numpy_and_the_standard_library_only() -> None:
    script = (
        "import json, sys, tusp.datasets.prepared, tusp.datasets.splits;"
        "loaded = {name.split('.')[0] for name in sys.modules} - set(sys.stdlib_module_names);"
        "print(json.dumps(sorted(loaded)))"
    )
    result = subprocess.run([sys.executable, "-S", "-c", _with_path(script)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    loaded = {name for name in json.loads(result.stdout) if not name.startswith("_")}
    assert loaded <= {"numpy", "tusp"}, loaded


def _with_path(script: str) -> str:
    return f"import sys; sys.path[:] = {sys.path!r};" + script
