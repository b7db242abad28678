"""dcsm from its own files: rates, units, labels, and who is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tusp.datasets.audit import audit_recordings
from tusp.datasets.corpora.dcsm import Dcsm
from tusp.datasets.recording import RecordingFiles
from tusp.platform.errors import DataError, UserError

NAME = "tp005f7e68_a084_46bb_9f0a_b6a084155a1c"
OTHER = "tp00c5869f_db8e_4b13_8c20_1a77b1bdc261"
RATE = 16
LABELS = "0,60,W\n60,30,N1\n90,30,N2\n120,30,N3\n150,90,REM\n240,60,UNKNOWN\n"


def write_night(
    root: Path,
    name: str = NAME,
    *,
    seconds: float = 300,
    channels: tuple[str, ...] = ("F3-M2", "C3-M2", "E1-M2", "E2-M2", "SPO2"),
    rate: Any = RATE,
    scale: float = 1.0,
    labels: str | None = LABELS,
    seed: int = 1,
) -> Path:
    """One night without any attribute but the rate, at the file."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    with h5py.File(folder / "psg.h5", "w") as file:
        if rate is not None:
            file.attrs["sample_rate"] = rate
        for channel in channels:
            file[f"channels/{channel}"] = (rng.normal(0, 20, round(seconds * RATE)) * scale).astype(np.float32)
    if labels is not None:
        (folder / "hypnogram.ids").write_text(labels)
    return folder / "psg.h5"


def one_night(root: Path) -> tuple[Dcsm, RecordingFiles]:
    adapter = Dcsm()
    found = adapter.discover(root)
    assert not found.refused
    (night,) = found.recordings
    return adapter, night


def refusal(root: Path) -> str:
    adapter = Dcsm()
    (row,) = audit_recordings(adapter, root, adapter.discover(root))
    assert row.reason is not None
    assert "\n" not in row.reason
    return row.reason


@pytest.mark.parametrize("layout", ["archive", "flat", "shouting", "the night itself"])
def test_nights_are_found_in_any_layout(tmp_path: Path, layout: str) -> None:
    root = tmp_path / "data" / "sleep" / "DCSM" if layout == "archive" else tmp_path
    write_night(root)
    (root / NAME / "psg.edf").touch()
    (tmp_path / "notes.txt").touch()
    if layout == "shouting":
        for file in (tmp_path / NAME).iterdir():
            file.rename(file.with_name(file.name.upper()))
        (tmp_path / NAME).rename(tmp_path / NAME.upper())
    adapter, night = one_night(tmp_path / NAME if layout == "the night itself" else tmp_path)
    assert (night.name, night.subject, night.simulated) == (NAME, NAME, False)
    assert sorted(night.files) == ["labels", "signals"]
    assert adapter.hypnogram(night).stages.tolist() == [0, 0, 1, 2, 3, 4, 4, 4, -1, -1]


def test_all_published_names_are_understood(shared_data: Path, tmp_path: Path) -> None:
    rows = (shared_data / "dcsm" / "dcsm_checksums.txt").read_text().split()[1::2]
    for row in rows:
        (tmp_path / row).parent.mkdir(exist_ok=True)
        (tmp_path / row).touch()
    found = Dcsm().discover(tmp_path)
    assert len(found.refused) == 255
    assert all("psg.h5: empty file (0 bytes)" in reason for reason in found.refused.values())


def test_channels_and_their_order(tmp_path: Path) -> None:
    path = write_night(tmp_path)
    adapter, night = one_night(tmp_path)
    channels = adapter.channels(night)
    assert [(c.name, c.unit) for c in channels] == [
        ("C3-M2", "uV"),
        ("E1-M2", "uV"),
        ("E2-M2", "uV"),
        ("F3-M2", "uV"),
        ("SPO2", ""),
    ]
    assert {(c.sampling_rate_hz, c.n_samples) for c in channels} == {(16.0, 4800)}
    with h5py.File(path, "a") as file:
        for index, name in enumerate(("F3-M2", "SPO2", "E2-M2", "E1-M2", "C3-M2")):
            file["channels"][name].attrs["channel_index"] = index
        file.attrs["date"] = "2015-01-01"
        expected = file["channels/E2-M2"][()]
    assert [c.name for c in adapter.channels(night)] == ["F3-M2", "SPO2", "E2-M2", "E1-M2", "C3-M2"]
    np.testing.assert_array_equal(adapter.read(night, "E2-M2"), expected)
    with pytest.raises(DataError, match="no channel 'O1-M2'; the file has F3-M2, SPO2"):
        adapter.read(night, "O1-M2")


def test_the_deeper_rate_wins(tmp_path: Path) -> None:
    path = write_night(tmp_path, rate=999)
    with h5py.File(path, "a") as file:
        file["channels"].attrs["sample_rate"] = 16.0
        file["channels/SPO2"].attrs["sample_rate"] = np.array([4])
    adapter, night = one_night(tmp_path)
    rates = {channel.name: channel.sampling_rate_hz for channel in adapter.channels(night)}
    assert rates == {"C3-M2": 16, "E1-M2": 16, "E2-M2": 16, "F3-M2": 16, "SPO2": 4}
    assert len(adapter.hypnogram(night).stages) == 10


def test_a_rate_at_every_channel_is_enough(tmp_path: Path) -> None:
    path = write_night(tmp_path, rate=None)
    assert "no sample_rate at a channel, at the group 'channels' or at the file, and it is never guessed" in refusal(
        tmp_path
    )
    with h5py.File(path, "a") as file:
        for dataset in file["channels"].values():
            dataset.attrs["sample_rate"] = RATE
    adapter, night = one_night(tmp_path)
    assert len(adapter.hypnogram(night).stages) == 10


@pytest.mark.parametrize("rate", [0, -256, float("inf"), 1e9, "quick", [1, 2]])
def test_a_rate_that_is_none(tmp_path: Path, rate: Any) -> None:
    write_night(tmp_path, rate=rate)
    assert "has no sampling rate" in refusal(tmp_path)
    adapter, night = one_night(tmp_path)
    assert any("is no sampling rate (channel not used)" in problem for problem in adapter.problems(night))


def test_a_rate_that_is_a_reference(tmp_path: Path) -> None:
    path = write_night(tmp_path, rate=None)
    with h5py.File(path, "a") as file:
        file.attrs["sample_rate"] = file.ref
    assert "attribute 'sample_rate' of '/' is neither a number nor a text" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("scale", "factor", "said"),
    [
        (1.0, 1.0, "no unit stated; EEG and EOG taken as microvolts (median inter-quartile range 2"),
        (1e-6, 1e6, "no unit stated; EEG and EOG taken as volts (median inter-quartile range 2"),
        (0.2e-6, 1e6, "taken as volts"),
        (5e-6, 1e6, "taken as volts"),
        (0.2, 1.0, "taken as microvolts"),
        (50.0, 1.0, "taken as microvolts"),
        (0.0, 1.0, "taken as microvolts (no channel varies)"),
    ],
)
def test_volts_or_microvolts(tmp_path: Path, scale: float, factor: float, said: str) -> None:
    path = write_night(tmp_path, scale=scale)
    adapter, night = one_night(tmp_path)
    assert [said in problem for problem in adapter.problems(night)] == [True]
    with h5py.File(path) as file:
        for name in ("F3-M2", "E2-M2"):
            np.testing.assert_allclose(adapter.read(night, name), file["channels"][name][()] * np.float32(factor))
        np.testing.assert_array_equal(adapter.read(night, "SPO2"), file["channels/SPO2"])


def test_all_channels_of_a_night_have_one_unit(tmp_path: Path) -> None:
    """One dead and one loose electrode do not change it, nor does a file put in its place go unnoticed."""
    names = ("F3-M2", "F4-M1", "C3-M2", "E1-M2", "E2-M2", "ECG-II")
    path = write_night(tmp_path, scale=1e-6, channels=names)
    with h5py.File(path, "a") as file:
        file["channels/F3-M2"][...] = 0
        file["channels/F4-M1"][...] *= 1e5
        file["channels/ECG-II"][...] *= 1e6
        file["channels/E1-M2"][:100] = np.nan
    adapter, night = one_night(tmp_path)
    assert {c.name: c.unit for c in adapter.channels(night)} == {
        **dict.fromkeys(("F3-M2", "F4-M1", "C3-M2", "E1-M2", "E2-M2"), "V"),
        "ECG-II": "",
    }
    replaced = write_night(tmp_path / "new", channels=names)
    replaced.replace(path)
    assert {c.unit for c in adapter.channels(night) if c.name != "ECG-II"} == {"uV"}


def test_a_whole_night_is_judged_by_excerpts(tmp_path: Path) -> None:
    """The electrodes are put on after two hours; compressed, in chunks larger and smaller than an excerpt."""
    folder = tmp_path / NAME
    folder.mkdir()
    samples = np.random.default_rng(1).normal(0, 20e-6, 6 * 3600 * 64).astype(np.float32)
    samples[: 2 * 3600 * 64] = 0
    with h5py.File(folder / "psg.h5", "w") as file:
        file.attrs["sample_rate"] = 64
        file.create_dataset("channels/F3-M2", data=samples, compression="gzip", compression_opts=1)
        file.create_dataset("channels/E1-M2", data=samples, chunks=(len(samples),))
    (folder / "hypnogram.ids").write_text("0,21600,N2\n")
    adapter, night = one_night(tmp_path)
    assert "taken as volts" in adapter.problems(night)[0]
    np.testing.assert_allclose(adapter.read(night, "F3-M2"), samples * np.float32(1e6))
    assert adapter.hypnogram(night).stages.tolist() == [2] * 720


def test_labels_are_clipped_gaps_and_remainders_reported(tmp_path: Path) -> None:
    write_night(tmp_path, seconds=310, labels="0,30,W\n60,30,n2\n90,300,REM\n30,30,artefact\n")
    adapter, night = one_night(tmp_path)
    hypnogram = adapter.hypnogram(night)
    assert hypnogram.stages.tolist() == [0, -1, 2, 4, 4, 4, 4, 4, 4, 4]
    said = " | ".join(hypnogram.problems)
    assert "labels that are no stage: 'artefact' (1)" in said
    assert "3 scored epochs after the signal's last whole epoch; clipped" in said
    assert "the signal's last 10 s are no whole epoch; dropped" in said


def test_the_longest_channel_is_the_length_of_the_signal(tmp_path: Path) -> None:
    path = write_night(tmp_path)
    with h5py.File(path, "a") as file:
        del file["channels/E2-M2"]
        file["channels/E2-M2"] = np.zeros(3)
    adapter, night = one_night(tmp_path)
    assert len(adapter.hypnogram(night).stages) == 10
    (row,) = audit_recordings(adapter, tmp_path, adapter.discover(tmp_path))
    assert row.usable


def _wild(name: str, change: Callable[[h5py.Group], object]) -> Callable[[h5py.File], None]:
    def apply(file: h5py.File) -> None:
        del file[f"channels/{name}"]
        change(file["channels"])

    return apply


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_wild("C3-M2", lambda g: g.create_dataset("C3-M2", shape=(10**15,), chunks=(99,), dtype="f4")), "at most"),
        (_wild("C3-M2", lambda g: g.create_dataset("C3-M2", shape=(4800,), chunks=(99,), dtype="f4")), "not all were"),
        (_wild("C3-M2", lambda g: g.create_dataset("C3-M2", data=["a"])), "no plain numbers"),
        (_wild("C3-M2", lambda g: g.create_group("C3-M2")), "no dataset at 'channels/C3-M2'"),
        (_wild("C3-M2", lambda g: g.__setitem__("C3-M2", h5py.ExternalLink("/x", "/"))), "lies in another file"),
        (_wild("C3-M2", lambda g: g.__setitem__("C3-M2", h5py.SoftLink("C3-M2"))), "leads in a circle"),
        (_wild("C3-M2", lambda g: g.__setitem__("C3-M2", h5py.SoftLink("/no"))), "no dataset at 'channels/C3-M2'"),
    ],
)
def test_one_wild_channel_costs_only_itself(tmp_path: Path, change: Callable[[h5py.File], None], said: str) -> None:
    path = write_night(tmp_path)
    with h5py.File(path, "a") as file:
        change(file)
    adapter, night = one_night(tmp_path)
    assert [c.name for c in adapter.channels(night)] == ["E1-M2", "E2-M2", "F3-M2", "SPO2"]
    assert any(problem.startswith("C3-M2: ") and said in problem for problem in adapter.problems(night))
    (row,) = audit_recordings(adapter, tmp_path, adapter.discover(tmp_path))
    assert row.usable


def test_one_name_in_two_cases(tmp_path: Path) -> None:
    path = write_night(tmp_path)
    with h5py.File(path, "a") as file:
        file["channels/c3-m2"] = np.zeros(4800)
    assert "2 channels are named 'C3-M2' in one case or another" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ("", "holds no labels"),
        ("0,30\n", "line 1: 2 columns"),
        ("0,soon,W\n", "line 1: onset '0', duration 'soon' are not seconds"),
        ("0,30,X\n", "no scored epoch"),
        ("\udcff\udcfe", "not a text file in UTF-8"),
    ],
)
def test_labels_that_are_none(tmp_path: Path, labels: str, reason: str) -> None:
    write_night(tmp_path)
    (tmp_path / NAME / "hypnogram.ids").write_bytes(labels.encode("utf-8", "surrogateescape"))
    assert reason in refusal(tmp_path)


def test_what_discovery_refuses(tmp_path: Path) -> None:
    write_night(tmp_path / "a", labels=None)
    write_night(tmp_path / "b", OTHER)
    write_night(tmp_path / "c", OTHER)
    lone = "tp11111111_1111_1111_1111_111111111111"
    (tmp_path / lone).mkdir()
    (tmp_path / lone / "hypnogram.ids").write_text(LABELS)
    page = "tp22222222_1111_1111_1111_111111111111"
    write_night(tmp_path, page).write_text("<html>")
    write_night(tmp_path, "patient 7")
    found = Dcsm().discover(tmp_path)
    assert not found.recordings
    assert {name: reason.partition(": ")[2] for name, reason in found.refused.items()} == {
        NAME: "no hypnogram (hypnogram.ids) in this folder",
        OTHER: f"2 folders have this name: {tmp_path / 'b' / OTHER}, {tmp_path / 'c' / OTHER}",
        lone: "no signals (psg.h5) in this folder",
        page: "not an HDF5 file (begins with '<html>')",
        "patient 7/psg.h5": f"its folder's name does not follow {NAME}/psg.h5",
        "patient 7/hypnogram.ids": f"its folder's name does not follow {NAME}/psg.h5",
    }


def test_nothing_of_this_corpus(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"holds no night of dcsm \\(files such as {NAME}/psg.h5\\)"):
        Dcsm().discover(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        Dcsm().discover(tmp_path / "absent")


def test_a_file_without_channels(tmp_path: Path) -> None:
    path = write_night(tmp_path)
    with h5py.File(path, "w") as file:
        file.attrs["sample_rate"] = 256
    assert "no group 'channels'" in refusal(tmp_path)
    with h5py.File(path, "w") as file:
        file.create_group("channels")
    assert "no EEG channel F3-M2 or F4-M1" in refusal(tmp_path)


def test_simulated_nights_say_so_and_never_mix(tmp_path: Path) -> None:
    with h5py.File(write_night(tmp_path), "a") as file:
        file.attrs["comment"] = "tusp-simulated"
    assert one_night(tmp_path)[1].simulated
    write_night(tmp_path, OTHER)
    with pytest.raises(UserError, match="mixes simulated nights"):
        Dcsm().discover(tmp_path)


def test_the_card() -> None:
    card = Dcsm().card
    assert (card.nights, card.people, card.hold_out) == (255, 255, False)
    assert card.obtain
    assert card.layout
    assert all(sentence.endswith(".") for sentence in (*card.reads, *card.refuses))
