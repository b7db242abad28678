"""Preparing a night: formulas, alignment, fingerprints, and what happens when things go wrong."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from night_adapter import NightAdapter, sources_of, write_night
from scipy.signal import resample_poly

from tusp.datasets import catalog
from tusp.datasets.conditioning import (
    FlatChannelError,
    ShortChannelError,
    Span,
    _clipped_halves,
    condition,
    kept_span,
    resample_span,
    resampling_ratio,
)
from tusp.datasets.order_statistics import Workspace, _quartiles_between_cuts, quartiles
from tusp.datasets.preparation import (
    PreparationSettings,
    PreparedCorpus,
    Source,
    prepare_corpus,
    prepare_recordings,
)
from tusp.datasets.prepared import SAMPLES_PER_EPOCH, SIGNALS, PreparedRecording, open_prepared
from tusp.datasets.recording import RecordingFiles
from tusp.datasets.resampling import resample
from tusp.datasets.simulation import simulate
from tusp.platform.errors import DataError, UserError
from tusp.platform.settings import Settings, load_settings
from tusp.platform.store.session import Store, open_store

STAGES = [-1, -1, 0, 0, 1, 2, -1, 3, 3, 4, 0, -1]
"""Kept: epochs 2 to 10."""
FIRST, KEPT = 2, 9


def night(
    folder: Path, name: str = "n1", *, seed: int = 0, subject: str = "p1", stages: Sequence[int] = STAGES
) -> tuple[RecordingFiles, tuple[Source, ...]]:
    rng = np.random.default_rng(seed)
    seconds = 30 * len(stages)
    channels = {
        "C3": (100.0, rng.normal(3, 25, 100 * seconds)),
        "C4": (256.0, rng.normal(-2, 40, 256 * seconds)),
        "E1": (50.0, rng.normal(0, 60, 50 * seconds)),
        "EMG": (100.0, rng.normal(0, 5, 100 * seconds)),
    }
    return write_night(folder, name, channels, stages, subject=subject)


def prepare(root: Path, nights: Sequence[tuple[RecordingFiles, Sequence[Source]]], **options: Any) -> PreparedCorpus:
    adapter = options.pop("adapter", NightAdapter())
    return prepare_recordings(adapter, nights, corpus="c", root=root, **{"workers": 1, "progress": None, **options})


def prepare_one(root: Path, one: tuple[RecordingFiles, Sequence[Source]], **options: Any) -> PreparedRecording:
    prepared = prepare(root, [one], **options)
    assert not prepared.refused, prepared.refused
    return prepared.recordings[0]


def bytes_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# Resampling and alignment


@pytest.mark.parametrize("rate", [50.0, 64.0, 100.0, 125.0, 128.0, 200.0, 256.0, 300.0, 512.0])
def test_a_10_hz_sine_stays_that_sine(rate: float) -> None:
    seconds, first = 300, 2
    at = np.arange(int(rate * seconds)) / rate
    x = (7 + 50 * np.sin(2 * np.pi * 10 * at + 0.7)).astype(np.float32)
    ratio = resampling_ratio(rate, len(x))
    y = resample_span(x, ratio=ratio, first_sample=first * 3840, n_samples=5 * 3840)
    expected = 7 + 50 * np.sin(2 * np.pi * 10 * (60 + np.arange(5 * 3840) / 128) + 0.7)
    assert np.abs(y - expected).max() < 0.25  # of 50: phase, amplitude and offset


@pytest.mark.parametrize("rate", [100.0, 125.0, 256.0, 300.0])
def test_an_impulse_stays_at_its_second(rate: float) -> None:
    x = np.zeros(int(rate * 600), dtype=np.float32)
    x[int(rate * 405)] = 1000
    y = resample_span(x, ratio=resampling_ratio(rate, len(x)), first_sample=10 * 3840, n_samples=5 * 3840)
    assert int(np.argmax(y)) == (405 - 300) * 128


@pytest.mark.parametrize("rate", [50.0, 100.0, 125.0, 128.0, 256.0, 300.0, 100 / 3])
@pytest.mark.parametrize("first, n_epochs", [(0, 20), (0, 1), (7, 5), (19, 1)])
def test_a_cut_span_equals_the_cut_of_the_whole(rate: float, first: int, n_epochs: int) -> None:
    x = np.random.default_rng(1).normal(size=round(rate * 600)).astype(np.float32)
    ratio = resampling_ratio(rate, len(x))
    whole = resample_poly(x, ratio.numerator, ratio.denominator, padtype="edge")
    expected = whole[first * 3840 : (first + n_epochs) * 3840]
    y = resample_span(x, ratio=ratio, first_sample=first * 3840, n_samples=n_epochs * 3840)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "rate", [1.0, 25.0, 50.0, 99.9, 100.0, 125.0, 128 / 3, 200.0, 256.0, 300.0, 500.0, 512.0, 4000.0]
)
@pytest.mark.parametrize("padding", [0, 1234])
def test_resampling_is_that_of_scipy(rate: float, padding: int) -> None:
    """Over whole signals with offset, with both ends, where the last values are held."""
    x = np.random.default_rng(2).normal(30, 25, size=round(rate * 90)).astype(np.float32)
    ratio = resampling_ratio(rate, len(x))
    expected = resample_poly(x.astype(float), ratio.numerator, ratio.denominator, padtype="edge")[padding:]
    y = resample_span(x, ratio=ratio, first_sample=padding, n_samples=len(expected), centre=0)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * 25)
    centred = resample_poly(x.astype(float) - 30, ratio.numerator, ratio.denominator, padtype="edge")[padding:]
    y = resample_span(x, ratio=ratio, first_sample=padding, n_samples=len(expected), centre=30)
    np.testing.assert_allclose(y, centred, rtol=0, atol=1e-5 * 25)


@given(up=st.integers(1, 300), down=st.integers(1, 300), n=st.integers(1, 700), seed=st.integers(0, 99), data=st.data())
@hypothesis_settings(max_examples=60, deadline=None)
def test_any_part_of_any_signal_at_any_ratio(up: int, down: int, n: int, seed: int, data: st.DataObject) -> None:
    up, down = Fraction(up, down).as_integer_ratio()
    x = np.random.default_rng(seed).normal(size=n).astype(np.float32)
    expected = resample_poly(x.astype(float), up, down, padtype="edge")
    first = data.draw(st.integers(0, len(expected) - 1))
    count = data.draw(st.integers(1, len(expected) - first))
    y = resample(x, up=up, down=down, first_sample=first, n_samples=count)
    np.testing.assert_allclose(y, expected[first : first + count], rtol=0, atol=1e-5)


def test_what_lies_above_the_new_nyquist_frequency_is_removed() -> None:
    at = np.arange(256 * 120) / 256
    x = np.sin(2 * np.pi * 100 * at).astype(np.float32)
    y = resample_span(x, ratio=resampling_ratio(256.0, len(x)), first_sample=3840, n_samples=2 * 3840)
    assert np.abs(y).max() < 0.005


def test_an_uncommon_rate_does_not_drift() -> None:
    rate, hours = 99.9993, 20
    n = int(rate * hours * 3600)
    assert abs(float(resampling_ratio(rate, n)) / (128 / rate) - 1) * n < 0.51
    for bad in (0.0, -1.0, float("nan"), float("inf"), np.pi * 1e-3):
        with pytest.raises(DataError, match="sampling rate"):
            resampling_ratio(bad, n)


def test_a_channel_that_ends_early_is_told() -> None:
    x = np.random.default_rng(0).normal(size=100 * 59).astype(np.float32)
    with pytest.raises(ShortChannelError, match=r"ends 1\.0 s before the last epoch"):
        condition(x, sampling_rate_hz=100.0, span=Span(first=0, stop=2), clip_iqr=20)
    almost = np.random.default_rng(0).normal(size=100 * 60 - 1).astype(np.float32)
    assert condition(almost, sampling_rate_hz=100.0, span=Span(first=0, stop=2), clip_iqr=20).samples.size == 7680


def test_a_workspace_changes_no_sample() -> None:
    """Whatever channels were there before, longer or shorter ones."""
    random, workspace = np.random.default_rng(0), Workspace()
    for rate, n_epochs in ((100.0, 40), (256.0, 4), (128.0, 70), (50.0, 7)):
        x = random.normal(3, 20, int(rate * 30 * n_epochs)).astype(np.float32)
        span = Span(first=1, stop=n_epochs)
        alone = condition(x, sampling_rate_hz=rate, span=span, clip_iqr=20)
        again = condition(x, sampling_rate_hz=rate, span=span, clip_iqr=20, workspace=workspace)
        np.testing.assert_array_equal(again.samples.view(np.uint16), alone.samples.view(np.uint16))
        assert (again.median, again.iqr) == (alone.median, alone.iqr)


# Clipping and scaling


@given(hnp.arrays(np.float32, st.integers(1, 300), elements=st.floats(-1e4, 1e4, width=32)))
@hypothesis_settings(max_examples=60, deadline=None)
def test_quartiles_are_those_of_numpy(x: npt.NDArray[np.float32]) -> None:
    np.testing.assert_allclose(quartiles(x), np.percentile(x.astype(float), (25, 50, 75)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", [4096 * 16, 65_536 * 3 + 8, 200_003])
@pytest.mark.parametrize("kind", ["smooth", "rhythm", "few values", "half one value", "sorted", "outliers"])
def test_quartiles_of_long_signals_are_those_of_numpy(kind: str, n: int) -> None:
    random = np.random.default_rng(n)
    x = random.normal(0, 20, n).astype(np.float32)
    if kind == "smooth":
        x = np.cumsum(x).astype(np.float32)
    elif kind == "rhythm":  # every 16th sample says nothing about the others
        x[::16] = 500
    elif kind == "few values":
        x = np.round(x / 10).astype(np.float32)
    elif kind == "half one value":
        x[random.random(n) < 0.5] = 3
    elif kind == "sorted":
        x.sort()
    else:
        x[random.random(n) < 0.01] *= 1e6
    before = x.copy()
    expected = np.percentile(x.astype(float), (25, 50, 75))
    np.testing.assert_allclose(quartiles(x), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(x, before)
    assert (_quartiles_between_cuts(x) is not None) == (kind in ("smooth", "sorted", "outliers") and n % 8 == 0)


def test_clip_and_scale_follow_the_formula() -> None:
    rng = np.random.default_rng(3)
    x = (rng.standard_t(2, size=128 * 30 * 10) * 20 + 300).astype(np.float32)
    x[5000] = 30_000
    kept = x[2 * 3840 : 8 * 3840].astype(float)
    low, median, high = np.percentile(kept, (25, 50, 75))
    clipped = np.clip(kept, median - 20 * (high - low), median + 20 * (high - low))
    assert (clipped != kept).any(), "the example does not clip"
    again_low, again_median, again_high = np.percentile(clipped, (25, 50, 75))
    expected = (clipped - again_median) / (again_high - again_low)
    done = condition(x, sampling_rate_hz=128.0, span=Span(first=2, stop=8), clip_iqr=20)
    np.testing.assert_allclose(done.samples, expected, atol=2e-3, rtol=1e-3)
    assert done.median == pytest.approx(median, rel=1e-5)
    assert done.iqr == pytest.approx(high - low, rel=1e-5)
    assert done.clipped_share == pytest.approx(np.mean(clipped != kept))
    assert np.abs(done.samples).max() == 20


@given(
    hnp.arrays(np.float32, 40_000, elements=st.floats(-1e6, 1e6, width=32), fill=st.floats(-9, 9, width=32)),
    st.sampled_from([0.5, 20.0, 1000.0]),
)
@hypothesis_settings(max_examples=40, deadline=None)
def test_scaled_samples_are_the_nearest_halves(x: npt.NDArray[np.float32], clip: float) -> None:
    x[: len(x) // 2] += np.random.default_rng(0).normal(0, 5, len(x) // 2).astype(np.float32)
    median, iqr = np.float32(0.75), np.float32(3.0)
    done, n_clipped = _clipped_halves(x, median=float(median), iqr=float(iqr), clip_iqr=clip)
    y = (x - median) / iqr
    assert n_clipped == np.count_nonzero(np.abs(y) > clip)
    y = np.clip(y, -clip, clip)
    numpys = y.astype(np.float16)
    # The same but for ties, which numpy rounds to even: there both are equally near.
    np.testing.assert_array_equal(np.abs(done - y.astype(float)), np.abs(numpys - y.astype(float)))
    assert np.mean(done != numpys) < 0.01


@pytest.mark.parametrize("share", [0.2, 0.49, 0.55, 0.8])
def test_flatness_is_judged_on_all_samples(share: float) -> None:
    """Whatever every 16th sample says."""
    x = np.random.default_rng(0).normal(0, 10, size=128 * 60).astype(np.float32)
    for step in (16, 5):  # every 16th is one value and no other is; then samples anywhere
        y = x.copy()
        y[::step] = 4
        assert condition(y, sampling_rate_hz=128.0, span=Span(first=0, stop=2), clip_iqr=20).iqr > 5
    x[: int(share * len(x))] = 4
    np.random.default_rng(1).shuffle(x)
    low, _, high = np.percentile(x, (25, 50, 75))
    if low == high:
        with pytest.raises(FlatChannelError):
            condition(x, sampling_rate_hz=128.0, span=Span(first=0, stop=2), clip_iqr=20)
    else:
        done = condition(x, sampling_rate_hz=128.0, span=Span(first=0, stop=2), clip_iqr=20)
        assert done.iqr == pytest.approx(high - low, rel=1e-5)


@pytest.mark.parametrize("level", [0.0, 5.0, -3000.0])
def test_a_constant_is_flat_at_every_level(level: float) -> None:
    x = np.full(100 * 60, level, dtype=np.float32)
    x[:100] += 50
    with pytest.raises(FlatChannelError):
        condition(x, sampling_rate_hz=100.0, span=Span(first=0, stop=2), clip_iqr=20)
    x[::9] += 50  # the filter spreads these; the channel stays flat
    with pytest.raises(FlatChannelError):
        condition(x, sampling_rate_hz=100.0, span=Span(first=0, stop=2), clip_iqr=20)


def test_values_that_are_no_number_become_the_median() -> None:
    x = np.random.default_rng(0).normal(100, 10, size=128 * 60).astype(np.float32)
    x[10:20], x[30], x[31] = np.nan, np.inf, -np.inf
    done = condition(x, sampling_rate_hz=128.0, span=Span(first=0, stop=2), clip_iqr=20)
    assert np.isfinite(done.samples).all()
    assert done.not_finite_share == pytest.approx(12 / x.size)
    assert np.abs(done.samples[10:20]).max() < 0.05
    with pytest.raises(FlatChannelError):
        condition(x * np.nan, sampling_rate_hz=128.0, span=Span(first=0, stop=2), clip_iqr=20)


# The span


def test_leading_and_trailing_unscored_epochs_go_and_gaps_stay() -> None:
    assert kept_span(np.array(STAGES, dtype=np.int8)) == Span(first=FIRST, stop=FIRST + KEPT)
    with pytest.raises(DataError, match="no epoch is scored"):
        kept_span(np.full(4, -1, dtype=np.int8))


def test_a_wake_margin_cuts_wake_around_sleep() -> None:
    stages = np.array([0] * 50 + [-1, -1] + [2] * 10 + [0] * 5 + [1] + [0] * 30, dtype=np.int8)
    assert kept_span(stages, wake_margin_minutes=5) == Span(first=42, stop=68 + 10)
    assert kept_span(stages, wake_margin_minutes=1) == Span(first=52, stop=68 + 2)
    assert kept_span(stages, wake_margin_minutes=0) == Span(first=52, stop=68)
    assert kept_span(stages, wake_margin_minutes=600) == kept_span(stages)
    awake = np.zeros(9, dtype=np.int8)
    assert kept_span(awake, wake_margin_minutes=0) == Span(first=0, stop=9)


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


def stored(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.name != ".locks")


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


# Death, races, disks

PREPARE = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from night_adapter import NightAdapter, sources_of
from tusp.datasets.preparation import prepare_recordings
from tusp.datasets.recording import RecordingFiles
from tusp.platform.errors import UserError
if __name__ == "__main__":
    raw = Path({raw!r})
    adapter = NightAdapter(log=Path({log!r}), pause_at={pause_at!r}, pause_seconds={pause_seconds!r})
    nights = []
    for signals in sorted(raw.glob("*.edf")):
        files = RecordingFiles(name=signals.stem, subject="p1", signals=signals,
                               labels=signals.with_suffix(".json"), simulated=True)
        nights.append((files, sources_of(files)))
    try:
        done = prepare_recordings(adapter, nights, corpus="c", root=Path({root!r}), workers={workers!r})
    except UserError as error:
        print(error)
        raise SystemExit(2)
    print(len(done.recordings), done.refused)
"""


def script(
    tmp_path: Path, *, root: Path, workers: int = 1, pause_at: str | None = None, pause_seconds: float = 300.0
) -> Path:
    """A program that prepares everything in ``tmp_path / "raw"``."""
    path = tmp_path / f"prepare{workers}{pause_at}{pause_seconds}.py"
    path.write_text(
        PREPARE.format(
            path=[str(Path(__file__).parent)],
            raw=str(tmp_path / "raw"),
            log=str(tmp_path / "log"),
            root=str(root),
            workers=workers,
            pause_at=pause_at,
            pause_seconds=pause_seconds,
        )
    )
    return path


def wait_for(condition_holds: Any, seconds: float = 90) -> None:
    ends = time.monotonic() + seconds
    while not condition_holds():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.02)


def log_lines(tmp_path: Path) -> list[str]:
    log = tmp_path / "log"
    return log.read_text().splitlines() if log.exists() else []


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def test_a_kill_leaves_no_half_recording(tmp_path: Path) -> None:
    one = night(tmp_path / "raw")
    root = tmp_path / "store"
    process = subprocess.Popen([sys.executable, script(tmp_path, root=root, pause_at="C4")])
    wait_for(lambda: len(log_lines(tmp_path)) == 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = stored(root)
    assert [path.name[0] for path in left] == ["."], left
    assert (left[0] / SIGNALS).stat().st_size > 0
    with pytest.raises(DataError):
        open_prepared(left[0])
    # Another night's preparation sweeps it, its own one completes it.
    prepare_one(root, night(tmp_path / "other", "n2"))
    assert not left[0].exists()
    recording = prepare_one(root, one)
    assert bytes_of(recording.folder) == bytes_of(prepare_one(tmp_path / "fresh", one).folder)


def test_workers_die_with_a_killed_command(tmp_path: Path) -> None:
    for i in range(3):
        night(tmp_path / "raw", f"n{i}", seed=i)
    process = subprocess.Popen([sys.executable, script(tmp_path, root=tmp_path / "store", workers=2, pause_at="C3")])
    wait_for(lambda: len(log_lines(tmp_path)) == 2)
    workers = {int(line.split()[0]) for line in log_lines(tmp_path)}
    assert len(workers) == 2
    assert process.pid not in workers
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: all(gone(pid) for pid in workers))


def test_a_killed_worker_is_one_clear_line_and_the_next_run_completes(tmp_path: Path) -> None:
    nights = [night(tmp_path / "raw", f"n{i}", seed=i) for i in range(3)]
    root = tmp_path / "store"
    process = subprocess.Popen(
        [sys.executable, script(tmp_path, root=root, workers=2, pause_at="C4")],
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: len(log_lines(tmp_path)) == 4)
    os.kill(int(log_lines(tmp_path)[0].split()[0]), signal.SIGKILL)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 2
    assert "a worker process was killed" in output
    assert len(prepare(root, nights).recordings) == 3
    assert all(not path.name.startswith(".") for path in stored(root))


def test_two_commands_at_once_prepare_a_night_once(tmp_path: Path) -> None:
    one = night(tmp_path / "raw")
    program = script(tmp_path, root=tmp_path / "store", pause_at="E1", pause_seconds=1.0)
    processes = [subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert outputs == ["1 {}", "1 {}"]
    assert len(log_lines(tmp_path)) == 3, "read twice"
    assert len(stored(tmp_path / "store")) == 1
    prepare_one(tmp_path / "store", one)


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode != 0,
    reason="needs a mount namespace of its own for a small disk",
)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_one_clear_line_and_harms_nothing(tmp_path: Path, workers: int) -> None:
    for i in range(8):
        night(tmp_path / "raw", f"n{i}", seed=i)
    disk = tmp_path / "disk"
    disk.mkdir()
    program = script(tmp_path, root=disk / "store", workers=workers)
    # One night takes 0.2 MB.
    shell = (
        f"mount -t tmpfs -o size=1m tmpfs {disk} && {sys.executable} {program}; echo $?; "
        f"ls -A {disk}/store | grep -c part; cd {disk}/store && for f in [0-9a-f]*; do "
        f"{sys.executable} -c 'import sys; from pathlib import Path; "
        "from tusp.datasets.prepared import *; verify_prepared(open_prepared(Path(sys.argv[1]).absolute()))"
        f'; print("whole")\' $f; done'
    )
    result = subprocess.run(
        ["unshare", "-rm", "sh", "-c", shell], capture_output=True, text=True, timeout=200, check=False
    )
    lines = result.stdout.splitlines()
    assert "no space left on the disk" in lines[0], (lines, result.stderr)
    assert lines[1:3] == ["2", "0"], lines
    assert len(lines) > 4, lines
    assert set(lines[3:]) == {"whole"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_without_permission_is_one_clear_line(tmp_path: Path) -> None:
    one = night(tmp_path / "raw")
    (tmp_path / "store").mkdir(mode=0o500)
    with pytest.raises(UserError, match="no permission"):
        prepare(tmp_path / "store", [one])


def test_a_store_that_is_a_file_is_one_clear_line(tmp_path: Path) -> None:
    one = night(tmp_path / "raw")
    (tmp_path / "store").write_text("not a folder")
    with pytest.raises(UserError, match="not a folder"):
        prepare(tmp_path / "store" / "c", [one])


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(UserError, match="wake_margin_minutes = -1"):
        PreparationSettings(wake_margin_minutes=-1)
    with pytest.raises(UserError, match="clip_iqr = 0"):
        PreparationSettings(clip_iqr=0)


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
