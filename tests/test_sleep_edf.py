"""Sleep-EDF from its own files: pairing, people, labels, and who is refused."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path

import edf_files
import edfio
import numpy as np
import pytest

from tusp.datasets.audit import audit_recordings
from tusp.datasets.corpora.sedf_sc import SedfSc
from tusp.datasets.corpora.sedf_st import SedfSt
from tusp.datasets.corpora.sleep_edf import LABEL_MAP
from tusp.datasets.formats.edf import read_header
from tusp.datasets.formats.hypnograms import runs_from_edf, to_epochs
from tusp.platform.errors import UserError

OTHER_DAY = edf_files.START + datetime.timedelta(days=1)


def _expected(rle: list[list[int]]) -> np.ndarray:
    return np.repeat([code for code, _ in rle], [length for _, length in rle])


def test_the_twenty_real_hypnograms_are_the_published_stages(shared_data: Path) -> None:
    """hypnograms-rle.json runs from 60 epochs before the first sleep epoch to 60 after the last."""
    folder = shared_data / "sleep-edf"
    published = json.loads((folder / "hypnograms-rle.json").read_text())
    compared = unscored = 0
    files = sorted((folder / "hypnograms-edf").glob("*.edf"))
    assert len(files) == 20
    for file in files:
        expected = _expected(published[f"{file.name[:6]}E0"])
        hypnogram = to_epochs(runs_from_edf(read_header(file)), LABEL_MAP, signal_seconds=86400.0)
        assert hypnogram.problems == ()
        assert hypnogram.label_seconds == 86400.0
        asleep = np.flatnonzero(hypnogram.stages > 0)
        ours = hypnogram.stages[asleep[0] - 60 : asleep[-1] + 60]
        np.testing.assert_array_equal(ours, expected, err_msg=file.name)
        compared += int(((ours >= 0) & (expected >= 0)).sum())
        unscored += int((ours < 0).sum())
    assert (compared, unscored) == (21019, 32)


def test_labels_are_clipped_to_the_signal(tmp_path: Path, shared_data: Path) -> None:
    """A real hypnogram of 24 h beside signals of its night's start, 13 h long."""
    labels = shared_data / "sleep-edf" / "hypnograms-edf" / "SC4001EC-Hypnogram.edf"
    shutil.copy(labels, tmp_path / labels.name)
    edf_files.write_psg(tmp_path / "SC4001E0-PSG.edf", seconds=13 * 3600)
    adapter = SedfSc()
    (night,) = adapter.discover(tmp_path).recordings
    hypnogram = adapter.hypnogram(night)
    whole = to_epochs(runs_from_edf(read_header(labels)), LABEL_MAP, signal_seconds=86400.0)
    np.testing.assert_array_equal(hypnogram.stages, whole.stages[: 13 * 120])
    assert hypnogram.stages.dtype == np.int8
    assert any("scored epochs after the signal" in problem for problem in hypnogram.problems)


@pytest.mark.parametrize("layout", ["official", "flat", "shouting", "halves"])
def test_nights_are_found_in_any_layout(tmp_path: Path, layout: str) -> None:
    for name in ("SC4001", "SC4002", "SC4011"):
        start = edf_files.START + datetime.timedelta(days=int(name[3:]))
        edf_files.write_night(tmp_path / "sleep-cassette", name, start=start)
    edf_files.write_night(tmp_path / "sleep-telemetry", "ST7011", letter="J")
    if layout == "flat":
        for file in tmp_path.glob("*/*.edf"):
            file.rename(tmp_path / file.name)
    if layout == "shouting":
        for file in tmp_path.glob("*/*.edf"):
            file.rename(file.with_name(file.name.upper()))
    if layout == "halves":
        (tmp_path / "labels").mkdir()
        for file in tmp_path.glob("*/*-Hypnogram.edf"):
            file.rename(tmp_path / "labels" / file.name)
    cassette, telemetry = SedfSc().discover(tmp_path), SedfSt().discover(tmp_path)
    assert [(n.name, n.subject) for n in cassette.recordings] == [
        ("SC4001E0", "SC400"),
        ("SC4002E0", "SC400"),
        ("SC4011E0", "SC401"),
    ]
    assert [(n.name, n.subject) for n in telemetry.recordings] == [("ST7011J0", "ST701")]
    assert not cassette.refused
    assert not telemetry.refused
    assert not any(n.simulated for n in cassette.recordings)


def test_all_published_names_are_understood(shared_data: Path) -> None:
    """Every PSG and hypnogram in the official list finds its partner: 153 and 44 nights."""
    names = [line.split()[-1] for line in (shared_data / "sleep-edf" / "SHA256SUMS.txt").read_text().splitlines()]
    files = [Path(name) for name in names if name.endswith(".edf")]
    people = {}
    for adapter, n_nights in ((SedfSc(), 153), (SedfSt(), 44)):
        nights, strange = adapter._nights(files)
        assert not strange
        assert len(nights) == n_nights
        assert all(len(night.signals) == len(night.labels) == 1 for night in nights.values())
        people[adapter.card.name] = len({key[:5] for key in nights})
    assert people == {"sedf-sc": 78, "sedf-st": 22}


def test_channels_have_canonical_names_rates_and_microvolts(tmp_path: Path) -> None:
    edf_files.write_night(tmp_path)
    adapter = SedfSc()
    (night,) = adapter.discover(tmp_path).recordings
    channels = adapter.channels(night)
    assert [(c.name, c.sampling_rate_hz, c.unit, c.n_samples) for c in channels] == [
        ("Fpz-Cz", 100, "uV", 30000),
        ("Pz-Oz", 100, "uV", 30000),
        ("horizontal", 100, "uV", 30000),
        ("Temp rectal", 1, "DegC", 300),
    ]
    assert channels[0].limits == pytest.approx((-192, 192))
    theirs = edfio.read_edf(night.signals)
    np.testing.assert_allclose(adapter.read(night, "Pz-Oz"), theirs.get_signal("EEG Pz-Oz").data, atol=1e-3)
    np.testing.assert_allclose(adapter.read(night, "Temp rectal"), theirs.get_signal("Temp rectal").data, atol=1e-3)


def test_a_gap_in_the_labels_is_filled_and_named(tmp_path: Path) -> None:
    """Telemetry hypnograms whose times and durations do not add up."""
    edf_files.write_psg(tmp_path / "ST7011J0-PSG.edf")
    stages = [(0.0, 60.0, "Sleep stage W"), (120.0, 60.0, "Movement time"), (180.0, 120.0, "Sleep stage 4")]
    edf_files.write_hypnogram(tmp_path / "ST7011JP-Hypnogram.edf", stages)
    adapter = SedfSt()
    (night,) = adapter.discover(tmp_path).recordings
    hypnogram = adapter.hypnogram(night)
    assert hypnogram.stages.tolist() == [0, 0, -1, -1, -1, -1, 3, 3, 3, 3]
    assert hypnogram.problems == ("1 gap in the labels (2 epochs, the first at epoch 2); filled with unscored",)


def _refused(folder: Path) -> dict[str, str]:
    """Reasons by recording, from discovery and audit together."""
    adapter = SedfSc()
    rows = audit_recordings(adapter, folder, adapter.discover(folder))
    assert {row.name for row in rows if row.usable} == {"SC4991E0"}, "the sound night stays usable"
    return {row.name: row.reason for row in rows if row.reason is not None}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A corpus with one sound night."""
    edf_files.write_night(tmp_path, "SC4991", start=OTHER_DAY + datetime.timedelta(days=900), seed=9)
    return tmp_path


def test_signals_without_hypnogram(folder: Path) -> None:
    edf_files.write_psg(folder / "SC4001E0-PSG.edf")
    reason = _refused(folder)["SC4001E0"]
    assert "SC4001E0-PSG.edf: no hypnogram beside these signals" in reason


def test_hypnogram_without_signals(folder: Path) -> None:
    edf_files.write_hypnogram(folder / "SC4001EC-Hypnogram.edf")
    assert "SC4001EC-Hypnogram.edf: no signals (PSG)" in _refused(folder)["SC4001"]


def test_swapped_partners_of_one_person_are_told_by_the_start(folder: Path) -> None:
    edf_files.write_night(folder, "SC4001")
    edf_files.write_night(folder, "SC4002", start=OTHER_DAY, seed=1)
    one, other = folder / "SC4001EC-Hypnogram.edf", folder / "SC4002EC-Hypnogram.edf"
    one.rename(folder / "x")
    other.rename(one)
    (folder / "x").rename(other)
    refused = _refused(folder)
    assert refused.keys() == {"SC4001E0", "SC4002E0"}
    assert "does not belong" in refused["SC4001E0"]
    assert "1989-04-24 16:13:00" in refused["SC4001E0"]
    assert "1989-04-25 16:13:00" in refused["SC4001E0"]


def test_a_partner_of_another_person_is_told_by_the_patient(folder: Path) -> None:
    edf_files.write_psg(folder / "SC4001E0-PSG.edf")
    other = edfio.Patient(sex="M", name="Male_50yr")
    edf_files.write_hypnogram(folder / "SC4001EC-Hypnogram.edf", patient=other)
    assert "signals are of patient 'X F X Female_33yr'" in _refused(folder)["SC4001E0"]


def test_an_anonymous_partner_is_accepted(folder: Path) -> None:
    edf_files.write_psg(folder / "SC4001E0-PSG.edf")
    edf_files.write_hypnogram(folder / "SC4001EC-Hypnogram.edf", patient=edfio.Patient())
    adapter = SedfSc()
    assert not adapter.discover(folder).refused


def test_a_missing_channel(folder: Path) -> None:
    edf_files.write_night(folder, "SC4001")
    edf_files.write_psg(folder / "SC4001E0-PSG.edf", labels=("EOG horizontal",))
    reason = _refused(folder)["SC4001E0"]
    assert "no EEG channel Fpz-Cz or Pz-Oz (the file has horizontal, Temp rectal)" in reason


def test_a_channel_twice(folder: Path) -> None:
    edf_files.write_night(folder, "SC4001")
    edf_files.patch_signal(folder / "SC4001E0-PSG.edf", 1, "label", "EEG Fpz-Cz")
    assert "2 channels are named 'EEG Fpz-Cz'" in _refused(folder)["SC4001E0"]


def test_two_hypnograms_for_one_night(folder: Path) -> None:
    edf_files.write_night(folder, "SC4001")
    edf_files.write_hypnogram(folder / "SC4001EH-Hypnogram.edf")
    assert "2 files claim to be its hypnogram" in _refused(folder)["SC4001E0"]


def test_a_file_whose_name_is_almost_right(folder: Path) -> None:
    edf_files.write_psg(folder / "SC4001E0-PSG (1).edf")
    assert "name does not follow" in _refused(folder)["SC4001E0-PSG (1)"]


def test_simulated_nights_say_so(tmp_path: Path) -> None:
    edf_files.write_night(tmp_path, "SC4001", simulated=True)
    assert [night.simulated for night in SedfSc().discover(tmp_path).recordings] == [True]


@pytest.mark.parametrize("orphan", [False, True])
def test_simulated_and_real_nights_in_one_folder_are_refused(folder: Path, orphan: bool) -> None:
    edf_files.write_night(folder, "SC4001", simulated=True)
    if orphan:
        (folder / "SC4001E0-PSG.edf").unlink()
    with pytest.raises(UserError, match="mixes simulated nights"):
        SedfSc().discover(folder)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(UserError, match=r"holds no night of sedf-st .*ST7001J0-PSG\.edf"):
        SedfSt().discover(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        SedfSt().discover(tmp_path / "absent")
    with pytest.raises(UserError, match="not a folder"):
        SedfSt().discover(tmp_path / "notes.txt")


def test_links_to_folders_are_followed_but_never_in_circles(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("links")
    (root / "cassette").symlink_to(folder)
    (folder / "circle").symlink_to(root)
    assert [night.name for night in SedfSc().discover(root).recordings] == ["SC4991E0"]
