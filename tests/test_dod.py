"""dod-h and dod-o from their own files: consensus, alignment, two corpora in one folder, and who is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tusp.datasets.audit import audit_recordings
from tusp.datasets.corpora.dod_h import DodH
from tusp.datasets.corpora.dod_nights import DodNights
from tusp.datasets.corpora.dod_o import DodO
from tusp.datasets.recording import Hypnogram, RecordingFiles
from tusp.platform.errors import DataError, UserError
from tusp.platform.scoring.consensus import best_four, consensus_of_others

RATE = 8.0
TRIMMED = "5bf0f969-304c-581e-949c-50c108f62846"
CUT_SHORT = "3e842aa8-bcd9-521e-93a2-72124233fe2c"


def uuid(number: int) -> str:
    return f"{number:08x}-0000-5000-8000-00000000000a"


def write_signals(
    path: Path,
    n_epochs: float,
    *,
    eeg: tuple[str, ...] = ("C3_M2", "FP1_M2"),
    hypnogram: list[int] | None = None,
    fs: Any = RATE,
    unit: str | None = "µV",
    seed: int = 0,
) -> Path:
    """One night; ``fs`` at the groups, at the rate of :data:`RATE` whatever it says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        for domain, names in (("eeg", eeg), ("eog", ("EOG1", "EOG2")), ("emg", ("EMG", "ECG"))):
            group = file.create_group(f"signals/{domain}")
            if fs is not None:
                group.attrs["fs"] = fs
            if unit is not None:
                group.attrs["unit"] = unit
            for name in names:
                samples = rng.normal(0, 20, round(n_epochs * 30 * RATE)).astype(np.float32)
                group.create_dataset(name, data=samples, compression="gzip", compression_opts=1)
        if hypnogram is not None:
            file["hypnogram"] = np.array(hypnogram, np.int64)
    return path


def write_lists(folder: Path, name: str, lists: list[list[int]], first: int = 1) -> None:
    for number, stages in enumerate(lists, start=first):
        path = folder / f"scorer_{number}" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(stages))


def one_night(root: Path, adapter: DodNights | None = None) -> tuple[DodNights, RecordingFiles]:
    adapter = adapter or DodH()
    found = adapter.discover(root)
    assert not found.refused
    (night,) = found.recordings
    return adapter, night


def hypnogram_of(root: Path) -> Hypnogram:
    adapter, night = one_night(root)
    return adapter.hypnogram(night)


def refusal(root: Path, adapter: DodNights | None = None) -> str:
    adapter = adapter or DodH()
    (row,) = audit_recordings(adapter, root, adapter.discover(root))
    assert row.reason is not None
    assert "\n" not in row.reason
    return row.reason


@pytest.mark.parametrize("length", ["span", "lists"])
def test_the_25_real_nights(tmp_path: Path, shared_data: Path, length: str) -> None:
    """Five real scorers of every DOD-H night, with signals as published and with signals as long as the lists."""
    scorers = json.loads((shared_data / "dod-h" / "scorers.json").read_text())
    models = json.loads((shared_data / "dod-h" / "models.json").read_text())
    for name in scorers["scorer_1"]:
        write_lists(tmp_path, name, [scorers[scorer][name] for scorer in sorted(scorers)])
        n_epochs = len(models["SimpleNet"][name] if length == "span" else scorers["scorer_1"][name])
        path = tmp_path / f"{name}.h5"
        with h5py.File(path, "w") as file:
            for domain, channel in (("eeg", "FP1_M2"), ("eog", "EOG1")):
                group = file.create_group(f"signals/{domain}")
                group.attrs["fs"] = 1.0
                group[channel] = np.arange(n_epochs * 30 + 7, dtype=np.float32)
    adapter = DodH()
    found = adapter.discover(tmp_path)
    assert not found.refused
    assert len(found.recordings) == 25
    pooled, outside = np.zeros(6, int), 0
    for night in found.recordings:
        assert sorted(night.files) == ["labels", "scorer_2", "scorer_3", "scorer_4", "scorer_5", "signals"]
        hypnogram = adapter.hypnogram(night)
        votes = adapter.scorers(night)
        assert list(votes) == [f"scorer_{number}" for number in range(1, 6)]
        assert all(len(stages) == len(hypnogram.stages) for stages in votes.values())
        pooled += np.bincount(hypnogram.stages + 1, minlength=6)
        assert "the signal's last 7 s are no whole epoch; dropped" in hypnogram.problems
        inside = np.flatnonzero(np.stack(list(votes.values())).max(axis=0) >= 0)
        outside += len(hypnogram.stages) - (inside[-1] + 1 - inside[0])
        if length == "span":
            assert len(hypnogram.stages) == len(models["SimpleNet"][night.name])
        table = np.stack(list(votes.values()))
        np.testing.assert_array_equal(best_four(table), hypnogram.stages)
        assert len(consensus_of_others(table, 0)) == len(hypnogram.stages)
    assert pooled[1:].tolist() == [3037, 1505, 11879, 3514, 4727]
    lost = sum(len(scorers["scorer_1"][name]) - len(models["SimpleNet"][name]) for name in scorers["scorer_1"])
    assert (pooled[0], outside) == ((3, 0) if length == "span" else (3 + lost, lost))


def test_lists_are_cut_to_what_every_scorer_scored(tmp_path: Path) -> None:
    lists = [
        [-1, -1, 0, 1, 2, 2, 3, 4],
        [0, 0, 0, 1, 2, 2, 3, -1],
        [0, 0, 0, 1, 2, -1, 3, 4],
        [0, 0, 0, 1, 2, 2, 3, 4],
        [0, 0, 0, 1, 1, 2, 3, 4],
    ]
    write_lists(tmp_path, uuid(1), lists)
    for n_epochs, start in ((5, 2), (5.9, 2), (8, 0), (8.5, 0)):
        write_signals(tmp_path / f"{uuid(1)}.h5", n_epochs)
        adapter, night = one_night(tmp_path)
        hypnogram = adapter.hypnogram(night)
        expected = [-1, -1, 0, 1, 2, 2, 3, -1][start : start + int(n_epochs)]
        assert hypnogram.stages.tolist() == expected
        assert hypnogram.stages.dtype == np.int8
        assert hypnogram.label_seconds == 240
        assert any("cut to epochs 2 to 7 of 8" in problem for problem in hypnogram.problems)
        third = adapter.scorers(night)["scorer_3"]
        assert third.tolist() == [-1, -1, 0, 1, 2, -1, 3, -1][start : start + int(n_epochs)]
    for n_epochs in (4.99, 6, 7.99, 9):
        write_signals(tmp_path / f"{uuid(1)}.h5", n_epochs)
        reason = refusal(tmp_path)
        assert f"{int(n_epochs)} epochs of signal fit neither the scorers' lists (8 epochs)" in reason
        assert "(5 epochs)" in reason


def test_lists_of_different_length(tmp_path: Path) -> None:
    lists = [[0, 1, 2, 3], [0, 1, 2, 3, 4, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    write_lists(tmp_path, uuid(1), lists)
    for n_epochs, expected in ((4, [0, 1, 2, 3]), (6, [0, 1, 2, 3, -1, -1])):
        write_signals(tmp_path / f"{uuid(1)}.h5", n_epochs)
        hypnogram = hypnogram_of(tmp_path)
        assert hypnogram.stages.tolist() == expected
        assert hypnogram.problems[0].startswith("scorers' lists differ in length (scorer_1 4, scorer_2 6, scorer_3 5")
    write_signals(tmp_path / f"{uuid(1)}.h5", 5)
    assert "5 epochs of signal fit neither" in refusal(tmp_path)


@pytest.mark.parametrize(("name", "n_list", "kept"), [(TRIMMED, 100, range(62, 99)), (CUT_SHORT, 700, range(2, 622))])
def test_light_trims(tmp_path: Path, name: str, n_list: int, kept: range) -> None:
    """Counted from the start of the span that all scorers scored, which here is epoch 2."""
    stages = np.arange(n_list) % 5
    lists = [stages.tolist() for _ in range(5)]
    lists[1][:2] = [-1, -1]
    lists[4][-1] = -1
    write_lists(tmp_path, name, lists)
    for n_epochs, start in ((len(kept), kept.start), (n_list, 0)):
        write_signals(tmp_path / f"{name}.h5", n_epochs)
        hypnogram = hypnogram_of(tmp_path)
        expected = np.full(n_list, -1)
        expected[kept] = stages[kept]
        assert hypnogram.stages.tolist() == expected[start : start + n_epochs].tolist()
        assert any(f"of the {n_list - 3} are kept" in problem for problem in hypnogram.problems)
    write_signals(tmp_path / f"{name}.h5", n_list - 3)
    assert f"({n_list - 3} epochs, {len(kept)} after the light trims)" in refusal(tmp_path)


def test_the_unscored_consensus_and_ties(tmp_path: Path) -> None:
    """scorer_5 disagrees everywhere and has no vote; a tie goes to the best-ranked."""
    lists = [[0, 2, 2, 3, -1, 0], [0, 2, 2, 3, -1, 0], [0, 2, 1, 3, -1, 0], [0, 2, 1, 3, 2, 0], [4, 4, 4, 4, 4, 4]]
    write_lists(tmp_path, uuid(1), lists)
    write_signals(tmp_path / f"{uuid(1)}.h5", 6)
    assert hypnogram_of(tmp_path).stages.tolist() == [0, 2, 2, 3, -1, 0]


@pytest.mark.parametrize("n_scorers", [2, 3, 4])
def test_fewer_scorers_are_reported(tmp_path: Path, n_scorers: int) -> None:
    write_lists(tmp_path, uuid(1), [[0, 1, 2, 3]] * n_scorers, first=2)
    write_signals(tmp_path / f"{uuid(1)}.h5", 4)
    adapter, night = one_night(tmp_path)
    assert night.labels is not None
    assert night.labels.parent.name == "scorer_2"
    hypnogram = adapter.hypnogram(night)
    assert hypnogram.stages.tolist() == [0, 1, 2, 3]
    assert any(p.startswith(f"{n_scorers} scorers, not five (no list of scorer_1") for p in hypnogram.problems)
    assert list(adapter.scorers(night)) == [f"scorer_{number}" for number in range(2, n_scorers + 2)]


def test_one_scorer_is_no_consensus(tmp_path: Path) -> None:
    write_lists(tmp_path, uuid(1), [[0, 1, 2, 3]])
    write_signals(tmp_path / f"{uuid(1)}.h5", 4)
    assert "only scorer_1 has a list; a consensus needs at least 2 scorers" in refusal(tmp_path)


def test_the_hypnogram_inside_the_file_where_there_is_no_scorer(tmp_path: Path) -> None:
    path = write_signals(tmp_path / f"{uuid(1)}.h5", 4.2, hypnogram=[-1, 0, 4, 3])
    adapter, night = one_night(tmp_path)
    assert night.labels == night.signals
    assert list(night.files) == ["signals"]
    hypnogram = adapter.hypnogram(night)
    assert hypnogram.stages.tolist() == [-1, 0, 4, 3]
    assert hypnogram.problems[0] == "one hypnogram (that of the signal file), not five scorers"
    assert adapter.scorers(night) == {}
    for stages, reason in (
        ([0, 1, 2], "its '/hypnogram' has 3 epochs, its signal 4"),
        ([0, 1, 2, 5], "has code 5 at epoch 3"),
        (None, "no scorer's list beside it and no '/hypnogram' in it"),
    ):
        write_signals(path, 4, hypnogram=stages)
        assert reason in refusal(tmp_path)


def test_the_files_own_hypnogram_is_held_against_the_consensus(tmp_path: Path) -> None:
    write_lists(tmp_path, uuid(1), [[0, 1, 2, 3]] * 5)
    for stages, said in (
        ([0, 1, 2, 3], None),
        ([0, 0, 0, 0], "its own hypnogram (not used) agrees with the consensus in only 25.0% of the epochs"),
        ([0, 1, 2], "its own hypnogram (not used) has 3 epochs, its signal 4"),
        ([0, 1, 2, 9], "its own hypnogram is not used, and odd: '/hypnogram' has code 9 at epoch 3; codes are -1 to 4"),
    ):
        write_signals(tmp_path / f"{uuid(1)}.h5", 4, hypnogram=stages)
        hypnogram = hypnogram_of(tmp_path)
        assert hypnogram.stages.tolist() == [0, 1, 2, 3]
        assert hypnogram.problems == (() if said is None else (said,))


def test_channels_rates_and_units(tmp_path: Path) -> None:
    path = write_signals(tmp_path / f"{uuid(1)}.h5", 4, hypnogram=[0, 0, 0, 0])
    with h5py.File(path, "a") as file:
        group = file["signals/eog"]
        group.attrs["fs"], group.attrs["unit"] = 4.0, "V"
        del group["EOG2"]
        group["eog2"] = np.full(480, 3e-5)
    adapter, night = one_night(tmp_path)
    channels = {c.name: (c.sampling_rate_hz, c.unit, c.n_samples) for c in adapter.channels(night)}
    assert channels == {
        "C3_M2": (8.0, "µV", 960),
        "FP1_M2": (8.0, "µV", 960),
        "EOG1": (4.0, "V", 960),
        "EOG2": (4.0, "V", 480),
        "ECG": (8.0, "µV", 960),
        "EMG": (8.0, "µV", 960),
    }
    with h5py.File(path) as file:
        np.testing.assert_array_equal(adapter.read(night, "C3_M2"), file["signals/eeg/C3_M2"])
    np.testing.assert_allclose(adapter.read(night, "EOG2"), 30.0)
    assert adapter.read(night, "ECG").dtype == np.float32
    with pytest.raises(DataError, match="no channel 'FP2_O2'; the file has C3_M2, FP1_M2, EOG1"):
        adapter.read(night, "FP2_O2")


def _described(path: Path, description: object) -> None:
    with h5py.File(path, "a") as file:
        file.attrs["description"] = description if isinstance(description, str) else json.dumps(description)


def test_the_description_wins_and_contradictions_are_said(tmp_path: Path) -> None:
    path = write_signals(tmp_path / f"{uuid(1)}.h5", 4, hypnogram=[0] * 4, fs=250)
    every = [
        {"path": f"{slash}signals/{domain}/{name}", "fs": 8, "unit": "uV", "name": name, "default": True}
        for slash, domain, name in (
            ("", "eeg", "C3_M2"),
            ("/", "eeg", "FP1_M2"),
            ("", "eog", "EOG1"),
            ("", "eog", "EOG2"),
        )
    ]
    _described(path, every)
    adapter, night = one_night(tmp_path)
    rates = {channel.name: channel.sampling_rate_hz for channel in adapter.channels(night)}
    assert rates == {"C3_M2": 8, "FP1_M2": 8, "EOG1": 8, "EOG2": 8, "EMG": 250, "ECG": 250}
    assert adapter.problems(night) == ["sampling rate 8 Hz (description), not 250 (group): C3_M2, FP1_M2, EOG1, EOG2"]
    assert len(adapter.hypnogram(night).stages) == 4


def test_without_any_rate_it_is_250_hz_and_said(tmp_path: Path) -> None:
    write_signals(tmp_path / f"{uuid(1)}.h5", 250 / RATE, hypnogram=[0], fs=None, unit=None)
    adapter, night = one_night(tmp_path)
    assert {c.sampling_rate_hz for c in adapter.channels(night)} == {250.0}
    assert adapter.problems(night) == ["no sampling rate stated; taken as 250 Hz: C3_M2, FP1_M2, EOG1, EOG2, ECG, EMG"]
    assert len(adapter.hypnogram(night).stages) == 1


@pytest.mark.parametrize(
    ("description", "said"),
    [
        ("{", "not readable (Expecting property name"),
        ("[" * 100_000, "not readable ("),
        ("null", "not readable (not a list of channels)"),
        ("[1]", "not readable (an entry without a path)"),
        ('[{"path": 7}]', "not readable (an entry without a path)"),
        ("[" + ",".join(["{}"] * 1001) + "]", "not readable (not a list of channels)"),
    ],
)
def test_odd_descriptions(tmp_path: Path, description: str, said: str) -> None:
    path = write_signals(tmp_path / f"{uuid(1)}.h5", 4, hypnogram=[0] * 4)
    if len(description) < 60_000:
        _described(path, description)
    else:
        with h5py.File(path, "a") as file:
            file.attrs.create("description", description, dtype=h5py.string_dtype())
    adapter, night = one_night(tmp_path)
    assert {c.sampling_rate_hz for c in adapter.channels(night)} == {8.0}
    assert any(said in problem for problem in adapter.problems(night))


@pytest.mark.parametrize("fs", [0, -250, float("nan"), 1e12, "fast"])
def test_a_rate_that_is_none(tmp_path: Path, fs: object) -> None:
    write_signals(tmp_path / f"{uuid(1)}.h5", 4, hypnogram=[0] * 4, fs=fs)
    assert "has no sampling rate" in refusal(tmp_path)


def test_the_group_attribute_of_odd_type(tmp_path: Path) -> None:
    path = write_signals(tmp_path / f"{uuid(1)}.h5", 4, hypnogram=[0] * 4, fs=None)
    with h5py.File(path, "a") as file:
        file["signals/eeg"].attrs["fs"] = file.ref
    assert "attribute 'fs' of '/signals/eeg' is neither a number nor a text" in refusal(tmp_path)


def test_one_wild_channel_costs_only_itself(tmp_path: Path) -> None:
    path = write_signals(tmp_path / f"{uuid(1)}.h5", 4, hypnogram=[0, 1, 2, 3])
    with h5py.File(path, "a") as file:
        eeg = file["signals/eeg"]
        eeg.create_dataset("FP2_O2", shape=(10**15,), chunks=(1000,), dtype="f4")
        eeg["FP2_M1"] = h5py.ExternalLink("/etc/passwd", "/")
        eeg["FP2_F4"] = np.zeros((4, 4))
        eeg["F3_F4"] = h5py.SoftLink("/signals/eeg/F3_F4")
        eeg.create_group("F3_M2")
    adapter, night = one_night(tmp_path)
    assert [c.name for c in adapter.channels(night)] == ["C3_M2", "FP1_M2", "EOG1", "EOG2", "ECG", "EMG"]
    assert len(adapter.problems(night)) == 5
    assert all("(channel not used)" in problem for problem in adapter.problems(night))
    (row,) = audit_recordings(adapter, tmp_path, adapter.discover(tmp_path))
    assert row.usable


def test_both_corpora_below_one_root(tmp_path: Path) -> None:
    """Told apart by their channels; scorers' lists of both in the same folders."""
    for number, eeg in ((1, ("C3_M2", "FP1_M2")), (2, ("C3_M2", "C4_M1")), (3, ("C3_M2", "O2_M1"))):
        write_signals(tmp_path / "h5" / f"{uuid(number)}.h5", 4, eeg=eeg)
        write_lists(tmp_path, uuid(number), [[0, 1, 2, 3]] * 5)
    healthy, patients = DodH().discover(tmp_path), DodO().discover(tmp_path)
    assert [night.name for night in healthy.recordings] == [uuid(1)]
    assert [night.name for night in patients.recordings] == [uuid(2), uuid(3)]
    assert (list(healthy.excluded), list(patients.excluded)) == ([uuid(2), uuid(3)], [uuid(1)])
    assert not healthy.refused
    assert not patients.refused
    assert all(len(DodO().scorers(night)) == 5 for night in patients.recordings)


def test_folders_tell_what_the_channels_do_not(tmp_path: Path) -> None:
    write_signals(tmp_path / "dodh" / f"{uuid(1)}.h5", 4, eeg=("C3_M2",), hypnogram=[0] * 4)
    write_signals(tmp_path / "DOD-O" / f"{uuid(2)}.h5", 4, eeg=("C3_M2",), hypnogram=[0] * 4)
    (tmp_path / "DOD-O" / f"{uuid(4)}.h5").write_text("<html>")
    write_lists(tmp_path / "dodo", uuid(5), [[0]])
    assert [night.name for night in DodH().discover(tmp_path).recordings] == [uuid(1)]
    patients = DodO().discover(tmp_path)
    assert [night.name for night in patients.recordings] == [uuid(2)]
    assert set(patients.refused) == {uuid(4), uuid(5)}
    (tmp_path / "DOD-O" / f"{uuid(2)}.h5").rename(tmp_path / f"{uuid(2)}.h5")
    for adapter in (DodH(), DodO()):
        assert "do not tell dod-h from dod-o" in adapter.discover(tmp_path).refused[uuid(2)]


def test_only_the_other_corpus(tmp_path: Path) -> None:
    write_signals(tmp_path / f"{uuid(1)}.h5", 4, hypnogram=[0] * 4)
    with pytest.raises(UserError, match=r"holds no night of dod-o .*; its 1 nights are of the other Dreem corpus"):
        DodO().discover(tmp_path)
    with pytest.raises(UserError, match="holds no night of dod-h"):
        DodH().discover((tmp_path / "empty").absolute() if (tmp_path / "empty").mkdir() else tmp_path / "empty")


def test_what_discovery_refuses(tmp_path: Path) -> None:
    write_signals(tmp_path / f"{uuid(1)}.h5", 4)
    write_signals(tmp_path / "copy" / f"{uuid(1).upper()}.h5", 4)
    write_signals(tmp_path / f"{uuid(2)}.h5", 4)
    write_lists(tmp_path, uuid(2), [[0, 1, 2, 3]] * 5)
    write_lists(tmp_path / "copy", uuid(2), [[0, 1, 2, 3]])
    write_lists(tmp_path, uuid(3), [[0, 1, 2, 3]] * 5)
    (tmp_path / f"{uuid(4)}.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    write_signals(tmp_path / "night.h5", 4)
    (tmp_path / "notes.h5").write_text("mine")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["channels/C3-M2"] = np.zeros(4)
    found = DodH().discover(tmp_path)
    assert not found.recordings
    assert {name: reason.partition(": ")[2] for name, reason in found.refused.items() if name != uuid(4)} == {
        uuid(1): f"2 files claim to be night {uuid(1)}: {tmp_path / uuid(1)}.h5,"
        f" {tmp_path / 'copy' / uuid(1).upper()}.h5",
        uuid(2): "2 files claim to be its scorer_1:"
        f" {tmp_path}/copy/scorer_1/{uuid(2)}.json, {tmp_path}/scorer_1/{uuid(2)}.json",
        uuid(3): f"no signals ({uuid(3)}.h5) for this scorer's list",
        "night.h5": "name does not follow 00a1b2c3-1111-5222-8333-444455556666.h5",
        "notes.h5": "not an HDF5 file (begins with 'mine'); and its name does not follow"
        " 00a1b2c3-1111-5222-8333-444455556666.h5",
    }
    assert "HDF5" in found.refused[uuid(4)]


def test_a_flat_folder_of_signals_and_lists_drops_nothing_in_silence(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        write_signals(tmp_path / f"{uuid(number)}.h5", 4, hypnogram=[0, 1, 2, 3] if number == 3 else None)
    (tmp_path / f"{uuid(2)}.json").write_text("[0, 1, 2, 3]")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / f"{uuid(1)}.json").write_text("{}")  # some result, beside no night
    write_lists(tmp_path, uuid(1), [[0, 1, 2, 3]] * 5)
    adapter = DodH()
    rows = {row.name: row.reason for row in audit_recordings(adapter, tmp_path, adapter.discover(tmp_path))}
    no_list = "no scorer's list beside it and no '/hypnogram' in it"
    assert rows == {
        uuid(1): None,
        uuid(2): f"{tmp_path}/{uuid(2)}.h5: {no_list}",
        uuid(3): None,
        f"{uuid(2)}.json": f"{tmp_path}/{uuid(2)}.json: not read, since nothing says whose list it is; put it into a"
        " folder scorer_1 to scorer_5",
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[0, 1, 2, 5]", "'5' at epoch 3 is no stage code (-1 to 4)"),
        ("[0, 1, 2, -2]", "'-2' at epoch 3"),
        ("[0, 1, 2, 1.5]", "'1.5' at epoch 3"),
        ("[0, 1, 2, true]", "'True' at epoch 3"),
        ("[0, 1, 2, NaN]", "'nan' at epoch 3"),
        ('[0, 1, 2, "W"]', "'W' at epoch 3"),
        ("[0, 1, 2, 1" + "0" * 5000 + "]", "not JSON"),
        ("[]", "not a list of stage codes"),
        ("{}", "not a list of stage codes"),
        ("[" * 200_000, "not JSON"),
        ("[0, 1", "not JSON"),
        ("\udcff", "not JSON"),
        ("<html>404</html>", "not JSON"),
        (" " * 2**20 + "[0]", "more than 1 MiB of stages"),
        ("[-1, -1, -1, -1]", "scorer_3 scored no epoch"),
        ("[-1, -1, -1, -1, 0]", "have no epoch in common"),
    ],
)
def test_hostile_lists(tmp_path: Path, text: str, reason: str) -> None:
    write_lists(tmp_path, uuid(1), [[0, 1, 2, 3]] * 5)
    write_signals(tmp_path / f"{uuid(1)}.h5", 4)
    (tmp_path / "scorer_3" / f"{uuid(1)}.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert reason in refusal(tmp_path)


def test_a_list_that_vanished(tmp_path: Path) -> None:
    write_lists(tmp_path, uuid(1), [[0, 1, 2, 3]] * 5)
    write_signals(tmp_path / f"{uuid(1)}.h5", 4)
    adapter, night = one_night(tmp_path)
    (tmp_path / "scorer_4" / f"{uuid(1)}.json").unlink()
    with pytest.raises(DataError, match="no such file"):
        adapter.hypnogram(night)


def test_simulated_nights_say_so_and_never_mix(tmp_path: Path) -> None:
    path = write_signals(tmp_path / f"{uuid(1)}.h5", 4, hypnogram=[0] * 4)
    with h5py.File(path, "a") as file:
        file.attrs["comment"] = "made by tusp-simulated 0.1"
    assert one_night(tmp_path)[1].simulated
    write_signals(tmp_path / f"{uuid(2)}.h5", 4, hypnogram=[0] * 4)
    with pytest.raises(UserError, match="mixes simulated nights"):
        DodH().discover(tmp_path)


@pytest.mark.parametrize(("adapter", "n_eeg", "nights"), [(DodH(), 12, 25), (DodO(), 8, 55)])
def test_the_cards(adapter: DodNights, n_eeg: int, nights: int) -> None:
    card = adapter.card
    assert (card.nights, card.people, card.hold_out) == (nights, nights, True)
    assert len(card.channel_groups["EEG"]) == n_eeg
    assert tuple(card.channel_groups["EOG"]) == ("EOG1", "EOG2")
    assert card.obtain
    assert card.layout
    assert all(sentence.endswith(".") for sentence in (*card.reads, *card.refuses))
