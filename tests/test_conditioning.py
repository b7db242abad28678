"""Conditioning a channel: resampling, alignment, clipping, scaling, the span that is kept."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from preparation_world import FIRST, KEPT, STAGES
from scipy.signal import resample_poly

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
from tusp.datasets.resampling import resample
from tusp.platform.errors import DataError

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
