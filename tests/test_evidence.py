"""Statistics beside the paired test, against SciPy, statsmodels and published worked examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from tusp.platform.scoring.evidence import (
    PairTest,
    all_pairs,
    combine_corpora,
    critical_difference,
    groups_not_distinguished,
    nadeau_bengio,
    rank_intervals,
    ranks,
    variance_components,
)
from tusp.platform.scoring.statistics import sign_flip_test


def test_without_overlap_the_corrected_test_is_the_plain_one() -> None:
    differences = np.array([0.02, 0.01, 0.03, -0.01, 0.02])
    plain = stats.ttest_1samp(differences, 0)
    found = nadeau_bengio(differences, test_share=0)
    assert (found.t, found.p) == pytest.approx((plain.statistic, plain.pvalue))


def test_overlap_of_training_people_makes_the_test_more_careful() -> None:
    differences = np.array([0.02, 0.01, 0.03, -0.01, 0.02])
    found = nadeau_bengio(differences, test_share=0.25)
    # By hand: mean .014, variance .00023, (1/5 + .25) * .00023 = .0001035.
    assert found.t == pytest.approx(0.014 / np.sqrt(0.0001035))
    assert found.p > stats.ttest_1samp(differences, 0).pvalue


@pytest.mark.parametrize("differences", [[], [0.1], [0.1, 0.1], [np.nan, 0.1]])
def test_too_few_folds_give_no_test(differences: list[float]) -> None:
    assert np.isnan(nadeau_bengio(differences, test_share=0.25).p)


def test_variance_components_are_found_again() -> None:
    random = np.random.default_rng(1)
    people, seeds = random.normal(0, 0.08, (4000, 1)), random.normal(0, 0.03, (1, 400))
    found = variance_components(0.7 + people + seeds + random.normal(0, 0.02, (4000, 400)))
    assert (found.people, found.seeds, found.rest) == pytest.approx((0.08, 0.03, 0.02), rel=0.1)


def test_variance_components_of_a_worked_table() -> None:
    # Rows people, columns seeds: additive, so nothing is left for the rest.
    found = variance_components([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert found.rest == pytest.approx(0)
    assert found.people == pytest.approx(2.0)
    assert found.seeds == pytest.approx(np.sqrt(0.5))


def test_one_seed_has_no_component() -> None:
    assert np.isnan(variance_components([[1.0], [2.0]]).seeds)


def test_ranks_carry_their_uncertainty() -> None:
    random = np.random.default_rng(0)
    clear, even = np.full(1001, 0.9), 0.5 + random.normal(0, 0.1, (2, 1001))
    even[:, 0] = 0.51, 0.5
    ranks = rank_intervals({"clear": clear, "a": even[0], "b": even[1]})
    assert (ranks["clear"].value, ranks["clear"].low, ranks["clear"].high) == (1, 1, 1)
    assert (ranks["a"].value, ranks["a"].low, ranks["a"].high) == (2, 2, 3)
    assert ranks["b"].value == 3


def test_all_pairs_are_one_family() -> None:
    random = np.random.default_rng(0)
    base = random.normal(0.7, 0.05, 12)
    scores = {"a": base, "b": base + 0.03 + random.normal(0, 0.01, 12), "c": base + random.normal(0, 0.01, 12)}
    pairs = {(pair.first, pair.second): pair for pair in all_pairs(scores)}
    assert set(pairs) == {("a", "b"), ("a", "c"), ("b", "c")}
    assert pairs["a", "b"].p == sign_flip_test(scores["a"] - scores["b"]).p
    assert all(pair.p_holm >= pair.p for pair in pairs.values())
    assert pairs["a", "b"].p_holm < 0.05 < pairs["a", "c"].p_holm


def _pair(first: str, second: str, p: float) -> PairTest:
    return PairTest(first=first, second=second, effect=0, p=p, p_holm=p, people=9)


def test_groups_hold_no_pair_that_is_told_apart() -> None:
    pairs = [_pair("a", "b", 0.5), _pair("b", "c", 0.5), _pair("a", "c", 0.01), _pair("c", "d", 0.01)]
    pairs += [_pair("a", "d", 0.01), _pair("b", "d", 0.01)]
    assert groups_not_distinguished("abcd", pairs, alpha=0.05) == [("a", "b"), ("b", "c"), ("d",)]


@given(st.lists(st.booleans(), min_size=10, max_size=10))
def test_every_arm_is_in_a_group_and_no_group_holds_another(told: list[bool]) -> None:
    pairs = [
        _pair(one, other, 0.01 if apart else 0.5)
        for (one, other), apart in zip(
            [(a, b) for i, a in enumerate("abcde") for b in "abcde"[i + 1 :]], told, strict=True
        )
    ]
    groups = groups_not_distinguished("abcde", pairs, alpha=0.05)
    assert {arm for group in groups for arm in group} == set("abcde")
    assert not any(set(one) < set(other) for one in groups for other in groups)
    apart = {(pair.first, pair.second) for pair in pairs if pair.p_holm <= 0.05}
    assert not any((a, b) in apart for group in groups for i, a in enumerate(group) for b in group[i + 1 :])


def test_corpora_are_combined_as_statsmodels_does() -> None:
    effects, variances = [0.03, 0.01, 0.05, -0.01], [0.0001, 0.0002, 0.0004, 0.0003]
    found = combine_corpora(effects, variances)
    frame = combine_effects(np.array(effects), np.array(variances), method_re="iterated", use_t=True).summary_frame()
    # statsmodels scales the interval by Hartung and Knapp in the row named so.
    assert found.effect.value == frame.loc["random effect", "eff"]
    assert found.effect.low < found.effect.value < found.effect.high
    assert found.prediction.low < found.effect.low
    assert found.corpora == 4


@given(st.lists(st.tuples(st.floats(-0.2, 0.2), st.floats(1e-6, 1e-2)), min_size=2, max_size=7))
@settings(max_examples=100, deadline=None)
def test_corpora_are_combined_to_the_last_digit_as_statsmodels_does(pairs: list[tuple[float, float]]) -> None:
    effects, variances = (np.array(column) for column in zip(*pairs, strict=True))
    with np.errstate(all="ignore"):
        theirs = combine_effects(effects, variances, method_re="iterated", use_t=True)
    found = combine_corpora(effects.tolist(), variances.tolist())
    assert found.effect.value == theirs.mean_effect_re
    assert found.tau == math.sqrt(max(0.0, theirs.tau2))
    half = stats.t.ppf(0.975, len(pairs) - 1) * max(theirs.sd_eff_w_re_hksj, theirs.var_eff_w_re**0.5)
    assert found.effect.high == pytest.approx(found.effect.value + half, rel=1e-12)
    if theirs.q > 0:
        assert found.i_squared == max(0.0, theirs.i2)


def test_ranks_are_those_of_scipy() -> None:
    scores = np.round(np.random.default_rng(2).random((6, 50)), 1)
    np.testing.assert_array_equal(ranks(scores), stats.rankdata(-scores, axis=0))
    scores[2, :7] = np.nan
    np.testing.assert_array_equal(ranks(scores), stats.rankdata(-scores, axis=0, nan_policy="omit"))


@pytest.mark.parametrize("arms", [2, 3, 7, 31, 33])
def test_quantiles_of_the_studentized_range_are_those_of_scipy(arms: int) -> None:
    quantile = stats.studentized_range.ppf(0.95, arms, np.inf) / np.sqrt(2)
    assert critical_difference(arms, 5) == pytest.approx(quantile * np.sqrt(arms * (arms + 1) / 30), rel=1e-14)


def test_corpora_that_happen_to_agree_do_not_look_certain() -> None:
    found = combine_corpora([0.02, 0.0201, 0.0199], [0.0001, 0.0001, 0.0001])
    # Unscaled: t with 2 degrees of freedom times the SD of a mean of three.
    half = stats.t.ppf(0.975, 2) * np.sqrt(0.0001 / 3)
    assert (found.effect.low, found.effect.high) == pytest.approx((0.02 - half, 0.02 + half))


def test_equal_effects_have_no_variance_between_corpora() -> None:
    found = combine_corpora([0.02, 0.02, 0.02], [0.0001, 0.0002, 0.0001])
    assert (found.effect.value, found.tau, found.i_squared) == pytest.approx((0.02, 0, 0), abs=1e-6)


def test_one_corpus_is_not_combined() -> None:
    assert np.isnan(combine_corpora([0.02, float("nan")], [0.1, 0.1]).effect.value)
    assert np.isnan(combine_corpora([0.02, 0.03], [0.1, 0.1]).prediction.low)


def test_critical_difference_of_demsars_example() -> None:
    # Demsar 2006, section 3.2.2: k = 4 classifiers, N = 14 data sets, q.05 = 2.569, CD = 1.25.
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert critical_difference(4, 14, alpha=0.10) == pytest.approx(1.12, abs=0.005)
