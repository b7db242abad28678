"""Sleep statistics and their agreement, by hand and against statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tusp.platform.scoring.sleep_statistics import STATISTICS, UNITS, bland_altman, sleep_statistics


def test_a_night_by_hand() -> None:
    # 10 min awake, N1 1 min, N2 2 min, awake 30 s, unscored 30 s, REM 1 min, N3 30 s, awake 5 min
    night = [0] * 20 + [1] * 2 + [2] * 4 + [0] + [-1] + [4] * 2 + [3] + [0] * 10
    found = sleep_statistics(night)
    assert found.total_sleep_time == 4.5
    assert found.sleep_efficiency == pytest.approx(9 / 40)
    assert found.sleep_latency == 10
    assert found.rem_latency == 4
    assert found.wake_after_sleep_onset == 0.5
    assert (found.share_n1, found.share_n2, found.share_n3, found.share_rem) == pytest.approx(
        (2 / 9, 4 / 9, 1 / 9, 2 / 9)
    )


def test_who_does_not_sleep_has_no_latency() -> None:
    found = sleep_statistics([0, 0, -1])
    assert (found.total_sleep_time, found.sleep_efficiency) == (0, 0)
    assert np.isnan([found.sleep_latency, found.rem_latency, found.wake_after_sleep_onset, found.share_n2]).all()
    assert np.isnan(sleep_statistics([-1]).total_sleep_time)
    assert np.isnan(sleep_statistics([0, 2, 2]).rem_latency)


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=200))
def test_shares_are_whole_and_times_fit_in_the_night(night: list[int]) -> None:
    found = sleep_statistics(night)
    if any(stage > 0 for stage in night):
        assert found.share_n1 + found.share_n2 + found.share_n3 + found.share_rem == pytest.approx(1)
        assert found.sleep_latency + found.wake_after_sleep_onset + found.total_sleep_time <= len(night) / 2
    assert set(UNITS) == set(STATISTICS)


@pytest.mark.parametrize("night", [[5], [-2], [[0, 1]]])
def test_codes_that_are_no_stages_are_refused(night: list[int]) -> None:
    with pytest.raises(ValueError, match="stage codes from -1 to 4"):
        sleep_statistics(night)


def test_bland_altman_by_hand() -> None:
    predicted, expert = [410.0, 395.0, 402.0, 430.0], [400.0, 400.0, 400.0, 400.0]
    found = bland_altman(predicted, expert, ["a", "b", "c", "d"], statistic="total_sleep_time")
    difference = np.subtract(predicted, expert)
    spread = 1.959964 * difference.std(ddof=1)
    assert found.bias.value == pytest.approx(difference.mean())
    assert (found.lower.value, found.upper.value) == pytest.approx(
        (difference.mean() - spread, difference.mean() + spread)
    )
    assert found.bias.low <= found.bias.value <= found.bias.high
    assert (found.recordings, found.people) == (4, 4)


def test_two_nights_of_one_person_are_one_person() -> None:
    # The same differences, once from eight people and once from four with two alike nights each.
    difference = np.repeat([1.0, 5.0, -3.0, 9.0], 2)
    alone = bland_altman(difference, np.zeros(8), list("abcdefgh"), statistic="x")
    pairs = bland_altman(difference, np.zeros(8), list("aabbccdd"), statistic="x")
    assert pairs.bias.value == alone.bias.value
    assert pairs.bias.high - pairs.bias.low > alone.bias.high - alone.bias.low


def test_a_pair_without_a_value_is_left_out_and_one_person_has_no_interval() -> None:
    found = bland_altman([1.0, np.nan], [0.0, 1.0], ["a", "b"], statistic="rem_latency")
    assert (found.recordings, found.people, found.bias.value) == (1, 1, 1.0)
    assert np.isnan([found.bias.low, found.lower.value]).all()
    assert np.isnan(bland_altman([np.nan], [0.0], ["a"], statistic="x").bias.value)
