"""Preparing a night and a corpus: what is written, fingerprints, through the store."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from night_adapter import NightAdapter, sources_of, write_night
from preparation_world import FIRST, KEPT, STAGES, bytes_of, night, prepare, prepare_one, stored
from scipy.signal import resample_poly

from tusp.datasets import catalog
from tusp.datasets.conditioning import (
    resampling_ratio,
)
from tusp.datasets.preparation import (
    PreparationSettings,
    prepare_corpus,
)
from tusp.datasets.prepared import SAMPLES_PER_EPOCH, SIGNALS, open_prepared
from tusp.datasets.simulation import simulate
from tusp.platform.errors import UserError
from tusp.platform.settings import Settings, load_settings
from tusp.platform.store.session import Store, open_store

# A whole night


def test_a_prepared_night_is_its_raw_night(tmp_path: Path) -> None:
    one = night(tmp_path / "raw")
    recording = prepare_one(tmp_path / "store", one)
    assert recording.channels == ("C3", "C4", "E1")
    assert recording.groups == {"EEG": (0, 1), "EOG": (2,)}
    assert (recording.first_epoch, recording.n_epochs) == (FIRST, KEPT)
    assert recording.simulated
    np.testing.assert_array_equal(recording.stages(), STAGES[FIRST : FIRST + KEPT])
    adapter = NightAdapter()
    for row, name in enumerate(recording.channels):
        detail = recording.details[row]
        raw = adapter.read(one[0], name).astype(float)
        ratio = resampling_ratio(detail.sampling_rate_hz, len(raw))
        whole = resample_poly(raw - np.median(raw), ratio.numerator, ratio.denominator) + np.median(raw)
        x = whole[FIRST * SAMPLES_PER_EPOCH : (FIRST + KEPT) * SAMPLES_PER_EPOCH]
        low, median, high = np.percentile(x, (25, 50, 75))
        np.testing.assert_allclose(recording.signals()[row], (x - median) / (high - low), atol=5e-3, rtol=2e-3)
        assert detail.median == pytest.approx(median, abs=0.02)
        assert detail.iqr == pytest.approx(high - low, rel=1e-3)
        assert detail.unit == "uV"


def test_every_prepared_channel_has_median_0_and_iqr_1(tmp_path: Path) -> None:
    signals = np.array(prepare_one(tmp_path / "store", night(tmp_path / "raw")).signals(), dtype=float)
    low, median, high = np.percentile(signals, (25, 50, 75), axis=1)
    np.testing.assert_allclose(median, 0, atol=1e-3)
    np.testing.assert_allclose(high - low, 1, atol=2e-3)


def test_a_flat_channel_is_left_out_and_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 30 * 4
    channels = {
        "C3": (100.0, np.full(100 * n, 12.0)),
        "C4": (128.0, rng.normal(size=128 * n)),
    }
    recording = prepare_one(tmp_path / "store", write_night(tmp_path / "raw", "n1", channels, [0, 1, 2, 2]))
    assert recording.channels == ("C4",)
    assert recording.groups == {"EEG": (0,)}
    assert any("C3" in problem and "flat" in problem for problem in recording.problems)
    assert any("E1" in problem and "not in this recording" in problem for problem in recording.problems)


def test_a_night_without_eeg_is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    flat = {"C3": (100.0, np.full(12000, 12.0)), "E1": (100.0, rng.normal(size=12000))}
    bad = write_night(tmp_path / "raw", "bad", flat, [0, 1, 2, 2])
    unscored = night(tmp_path / "raw", "unscored", stages=[-1] * 4)
    broken = night(tmp_path / "raw", "broken")
    broken[0].signals.write_bytes(b"<html>not found</html>")
    broken = (broken[0], sources_of(broken[0]))
    good = night(tmp_path / "raw", "good")
    prepared = prepare(tmp_path / "store", [bad, unscored, broken, good], workers=2)
    assert [recording.name for recording in prepared.recordings] == ["good"]
    assert set(prepared.refused) == {"bad", "unscored", "broken"}
    assert "no EEG channel" in prepared.refused["bad"]
    assert "flat" in prepared.refused["bad"]
    assert "no epoch is scored" in prepared.refused["unscored"]
    assert "not EDF" in prepared.refused["broken"]
    assert all("\n" not in reason for reason in prepared.refused.values())
    assert len(stored(tmp_path / "store")) == 1
    assert prepared.by_subject == {"p1": ("good",)}


# Fingerprints


def test_the_fingerprint_follows_source_adapter_and_settings_and_nothing_else(tmp_path: Path) -> None:
    one = night(tmp_path / "raw")
    first = prepare_one(tmp_path / "store", one).fingerprint
    moved = night(tmp_path / "elsewhere")
    assert prepare_one(tmp_path / "store2", moved).fingerprint == first

    class NewCode(NightAdapter):
        code_version = 2

    others = {
        "adapter settings": prepare_one(tmp_path / "store", one, adapter=NightAdapter(choice="b")),
        "adapter code": prepare_one(tmp_path / "store", one, adapter=NewCode()),
        "channels": prepare_one(tmp_path / "store", one, adapter=NightAdapter(groups=(("EEG", ("C3",)),))),
        "wake": prepare_one(tmp_path / "store", one, preparation=PreparationSettings(wake_margin_minutes=30)),
        "clip": prepare_one(tmp_path / "store", one, preparation=PreparationSettings(clip_iqr=10)),
        "subject": prepare_one(tmp_path / "store", (replace(one[0], subject="p2"), one[1])),
        "simulated": prepare_one(tmp_path / "store", (replace(one[0], simulated=False), one[1])),
        "name": prepare_one(tmp_path / "store", (replace(one[0], name="n2"), one[1])),
        "labels": prepare_one(tmp_path / "store", night(tmp_path / "relabelled", stages=[0, *STAGES[1:]])),
        "signal": prepare_one(tmp_path / "store", night(tmp_path / "other", seed=1)),
    }
    prints = [first, *(recording.fingerprint for recording in others.values())]
    assert len(set(prints)) == len(prints)
    assert len(stored(tmp_path / "store")) == len(prints)


def test_a_replaced_file_is_prepared_anew_and_the_old_night_stays(tmp_path: Path) -> None:
    old = prepare_one(tmp_path / "store", night(tmp_path / "raw"))
    old_bytes = bytes_of(old.folder)
    new = prepare_one(tmp_path / "store", night(tmp_path / "raw", seed=9))
    assert new.fingerprint != old.fingerprint
    assert not np.array_equal(new.signals(), old.signals())
    assert bytes_of(old.folder) == old_bytes


def test_a_file_replaced_behind_the_audit_is_refused(tmp_path: Path) -> None:
    one = night(tmp_path / "raw")
    night(tmp_path / "raw", seed=9)
    prepared = prepare(tmp_path / "store", [one])
    assert "changed since it was audited" in prepared.refused["n1"]
    assert stored(tmp_path / "store") == []


def test_what_is_there_is_not_read_again(tmp_path: Path) -> None:
    nights = [night(tmp_path / "raw", f"n{i}", seed=i) for i in range(3)]
    log = tmp_path / "log"
    first = prepare(tmp_path / "store", nights, adapter=NightAdapter(log=log))
    assert len(log.read_text().splitlines()) == 9
    log.unlink()
    calls: list[tuple[int, int, str]] = []
    again = prepare(
        tmp_path / "store", nights, adapter=NightAdapter(log=log), progress=lambda *call: calls.append(call)
    )
    assert not log.exists()
    assert again == first
    assert calls == [(3, 3, "c")]


def test_two_hundred_prepared_nights_open_within_a_second(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=2 * 3840)
    one = write_night(tmp_path / "raw", "n1", {"C3": (128.0, noise)}, [0, 1])
    nights = [(replace(one[0], name=f"n{i:03d}"), one[1]) for i in range(200)]
    prepare(tmp_path / "store", nights)
    began = time.process_time()
    assert len(prepare(tmp_path / "store", nights).recordings) == 200
    assert time.process_time() - began < 1


def test_a_torn_night_is_prepared_again_and_told(tmp_path: Path) -> None:
    one = night(tmp_path / "raw")
    recording = prepare_one(tmp_path / "store", one)
    whole = bytes_of(recording.folder)
    with (recording.folder / SIGNALS).open("r+b") as stream:
        stream.truncate(1000)
    prepared = prepare(tmp_path / "store", [one])
    assert "signals.npy has 1000 bytes" in prepared.repaired["n1"]
    assert bytes_of(recording.folder) == whole


def test_parallel_and_serial_write_the_same_bytes(tmp_path: Path) -> None:
    nights = [night(tmp_path / "raw", f"n{i}", seed=i, subject=f"p{i}") for i in range(4)]
    calls: list[tuple[int, int, str]] = []
    prepare(tmp_path / "serial", nights)
    parallel = prepare(tmp_path / "parallel", nights, workers=2, progress=lambda *call: calls.append(call))
    assert bytes_of(tmp_path / "serial") == bytes_of(tmp_path / "parallel")
    assert [recording.name for recording in parallel.recordings] == ["n0", "n1", "n2", "n3"]
    assert [call[:2] for call in calls] == [(i, 4) for i in range(5)]
    assert {call[2] for call in calls[1:]} == {"n0", "n1", "n2", "n3"}


# Through the store


def registered(tmp_path: Path) -> tuple[Store, Settings]:
    """A store with three simulated people in corpus sedf-sc."""
    simulate("sedf-sc", tmp_path / "raw", subjects=3, seed=0, nights=1, hours=0.25, workers=1)
    settings = load_settings(home=tmp_path / "home", environment={}, working_directory=tmp_path)
    store = open_store(settings.db)
    catalog.add_corpus(store, name="sedf-sc", root=tmp_path / "raw", workers=1)
    return store, settings


def test_a_registered_corpus_is_prepared_and_found_again(tmp_path: Path) -> None:
    store, settings = registered(tmp_path)
    prepared = prepare_corpus(store, settings, "sedf-sc", workers=2)
    assert prepared.simulated
    assert prepared.refused == {}
    assert len(prepared.by_subject) == 3
    for recording in prepared.recordings:
        assert recording.simulated
        assert recording.folder.parent == settings.prepared / "sedf-sc"
        assert recording.groups == {"EEG": (0, 1), "EOG": (2,)}
        assert recording.signals().shape == (3, recording.n_epochs * SAMPLES_PER_EPOCH)
    before = bytes_of(settings.prepared)
    assert prepare_corpus(store, settings, "sedf-sc") == prepared
    assert bytes_of(settings.prepared) == before
    trimmed = prepare_corpus(
        store, settings, "sedf-sc", workers=1, preparation=PreparationSettings(wake_margin_minutes=1)
    )
    assert {r.fingerprint for r in trimmed.recordings}.isdisjoint(r.fingerprint for r in prepared.recordings)


def test_a_replaced_raw_night_is_noticed_and_a_broken_one_refused(tmp_path: Path) -> None:
    store, settings = registered(tmp_path)
    old = {recording.name: recording for recording in prepare_corpus(store, settings, "sedf-sc").recordings}
    simulate("sedf-sc", tmp_path / "other", subjects=3, seed=1, nights=1, hours=0.25, workers=1)
    first, second, third = sorted(old)
    for path in (tmp_path / "other").rglob(f"{first[:6]}*.edf"):
        target = next((tmp_path / "raw").rglob(path.name[:6] + "*" + path.name[8:]))
        shutil.copyfile(path, target)
    broken = next((tmp_path / "raw").rglob(f"{second}-PSG.edf"))
    broken.write_bytes(broken.read_bytes()[:100])
    prepared = prepare_corpus(store, settings, "sedf-sc")
    now = {recording.name: recording for recording in prepared.recordings}
    assert set(now) == {first, third}
    assert set(prepared.refused) == {second}
    assert now[third] == old[third]
    assert now[first].fingerprint != old[first].fingerprint
    assert not np.array_equal(now[first].signals(), old[first].signals())
    assert open_prepared(old[first].folder) == old[first]


def test_a_corpus_that_is_not_registered_is_one_clear_line(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "home", environment={}, working_directory=tmp_path)
    with pytest.raises(UserError, match="no corpus 'sedf-sc'"):
        prepare_corpus(open_store(settings.db), settings, "sedf-sc")
