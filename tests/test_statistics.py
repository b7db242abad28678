"""Statistics over people, against SciPy, scikit-learn and examples worked by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tusp.platform.scoring import statistics
from tusp.platform.scoring.metrics import accuracy_of, f1_of, kappa_of, macro, metrics, precision_of, recall_of
from tusp.platform.scoring.statistics import (
    holm,
    nan_mean,
    paired_interval,
    paired_intervals,
    percentile_interval,
    person_weights,
    pooled_scores,
    resampled_margins,
    sign_flip_test,
    sign_flip_tests,
)

relaxed = settings(deadline=None, max_examples=60)


def some_counts(seed: int, people: int, replicates: int = 1, hit: float = 8.0) -> np.ndarray:
    """Confusion counts of people, mostly on the diagonal."""
    generator = np.random.default_rng(seed)
    rates = 1 + hit * np.eye(5)
    return generator.poisson(rates * generator.uniform(0.5, 2, size=(people, 1, 1)), (replicates, people, 5, 5))


def test_person_weights_draw_people_with_replacement() -> None:
    weights = person_weights(7, resamples=500, seed=1)
    assert weights.shape == (500, 7)
    assert (weights.sum(1) == 7).all()
    np.testing.assert_array_equal(weights, person_weights(7, resamples=500, seed=1))
    assert (weights != person_weights(7, resamples=500, seed=2)).any()
    assert weights.mean() == pytest.approx(1)
    assert weights[:, 0].var() == pytest.approx(6 / 7, rel=0.2)


def test_a_resample_pools_all_counts_of_its_people() -> None:
    counts = some_counts(0, people=4, replicates=2)
    pooled = resampled_margins(counts, resamples=50, seed=3)
    weights = person_weights(4, resamples=50, seed=3)
    expected = np.einsum("bp,rptq->rbtq", weights, counts)
    np.testing.assert_array_equal(pooled.right, np.einsum("rbtt->rtb", expected))
    np.testing.assert_array_equal(pooled.true, expected.sum(3).swapaxes(1, 2))
    np.testing.assert_array_equal(pooled.predicted, expected.sum(2).swapaxes(1, 2))


@given(st.integers(0, 2**31), st.integers(1, 2**30))
@relaxed
def test_whole_numbers_stay_whole_whatever_their_size(seed: int, largest: int) -> None:
    counts = np.random.default_rng(seed).integers(0, largest, size=(1, 5, 5, 5))
    pooled = resampled_margins(counts, resamples=20, seed=0)
    expected = np.einsum("bp,rptq->rtb", person_weights(5, resamples=20, seed=0), counts)
    np.testing.assert_array_equal(pooled.true, expected)


def test_pooled_values_are_the_metrics_of_the_summed_counts() -> None:
    counts = some_counts(3, people=6)
    scores, expected = pooled_scores(counts, resamples=200), metrics(counts[0].sum(0))
    for name, estimate in scores.overall.items():
        assert estimate.value == pytest.approx(getattr(expected, name))
        assert estimate.low < estimate.value < estimate.high
    assert [estimate.value for estimate in scores.stages["f1"]] == pytest.approx(expected.f1)


def test_interval_agrees_with_scipys_bootstrap_over_people() -> None:
    counts = some_counts(5, people=30)
    people = np.arange(30)

    def accuracy_of(drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        hits = np.trace(counts[0], axis1=1, axis2=2)[drawn].sum(axis)
        return hits / counts[0].sum((1, 2))[drawn].sum(axis)

    theirs = stats.bootstrap(
        (people,), accuracy_of, method="percentile", n_resamples=20_000, rng=1, vectorized=True
    ).confidence_interval
    ours = pooled_scores(counts, resamples=20_000, seed=2).overall["accuracy"]
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.05 * width)


def test_nights_of_one_person_are_not_independent() -> None:
    """Ten people judged twice with the same outcome know no more than ten people."""
    once = some_counts(6, people=10)
    as_persons = pooled_scores(once, resamples=4000).overall["macro_f1"]
    two_nights = pooled_scores(once * 2, resamples=4000).overall["macro_f1"]
    as_if_independent = pooled_scores(np.concatenate([once, once], axis=1), resamples=4000).overall["macro_f1"]
    assert (two_nights.low, two_nights.high) == pytest.approx((as_persons.low, as_persons.high))
    assert as_if_independent.high - as_if_independent.low < 0.85 * (as_persons.high - as_persons.low)


def test_seeds_are_averaged_and_not_counted_as_people() -> None:
    counts = some_counts(7, people=8, replicates=3)
    scores = pooled_scores(counts, resamples=300)
    each = [metrics(counts[seed].sum(0)).macro_f1 for seed in range(3)]
    assert scores.overall["macro_f1"].value == pytest.approx(np.mean(each))
    same = pooled_scores(np.repeat(counts[:1], 3, axis=0), resamples=300).overall["kappa"]
    once = pooled_scores(counts[:1], resamples=300).overall["kappa"]
    assert (same.value, same.low, same.high) == pytest.approx((once.value, once.low, once.high))


def test_no_interval_from_one_person_and_none_for_a_stage_that_one_person_has() -> None:
    alone = pooled_scores(some_counts(8, people=1), resamples=100)
    assert np.isfinite(alone.overall["accuracy"].value)
    assert np.isnan([alone.overall["accuracy"].low, alone.overall["accuracy"].high]).all()

    counts = some_counts(9, people=10)
    counts[:, 1:, 4, :] = counts[:, 1:, :, 4] = 0
    scores = pooled_scores(counts, resamples=500)
    assert np.isfinite(scores.stages["f1"][4].value)
    assert np.isnan(scores.stages["f1"][4].low)
    assert np.isfinite(scores.stages["f1"][0].low)
    assert np.isfinite(scores.overall["accuracy"].low)
    assert np.isnan(scores.overall["macro_f1"].low)


def test_a_stage_nobody_has_is_not_scored_and_the_rest_is() -> None:
    counts = some_counts(10, people=10)
    counts[:, :, 3, :] = counts[:, :, :, 3] = 0
    scores = pooled_scores(counts, resamples=300)
    assert np.isnan(scores.stages["f1"][3].value)
    assert np.isfinite([scores.overall["macro_f1"].low, scores.overall["macro_f1"].value]).all()


def test_resamples_without_a_rare_stage_are_left_out_of_the_macro_interval() -> None:
    counts = np.zeros((1, 6, 5, 5), dtype=np.int64)
    counts[0, :, 0, 0] = 100
    counts[0, :2, 4, 4] = 10  # REM in two people, always right: every resample that has it scores 1
    counts[0, :2, 4, 0] = 30
    macro = pooled_scores(counts, resamples=1000).overall["macro_f1"]
    # Resamples without REM would score 1.0 from W alone.
    assert macro.high < 0.8


def test_percentiles_are_numpys() -> None:
    values = np.random.default_rng(0).normal(size=(999, 3))
    np.testing.assert_allclose(percentile_interval(values), np.percentile(values, [2.5, 97.5], axis=0))
    values[:600, 1] = np.nan
    assert np.isnan(percentile_interval(values)).tolist() == [[False, True, False]] * 2


def test_sign_flip_worked_by_hand() -> None:
    """Four people, all better: only ++++ and ---- are as extreme, 2 of 16."""
    assert sign_flip_test([0.1, 0.2, 0.3, 0.05]).p == pytest.approx(2 / 16)
    # Three people 1, 2, -3: |sum| = 0 is reached by every pattern.
    assert sign_flip_test([1, 2, -3]).p == 1
    # 3, 1, 1: sums +-5, +-3, +-3, +-1; observed 5.
    assert sign_flip_test([3, 1, 1]).p == pytest.approx(2 / 8)
    # 3, 1, -1: observed 3; as extreme are +-5, and +-3 four times.
    assert sign_flip_test([3, 1, -1]).p == pytest.approx(6 / 8)


def test_sign_flip_on_darwins_maize() -> None:
    """Fisher's own example (The Design of Experiments, 21): 15 pairs, 863 of 32,768 patterns in one tail."""
    differences = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    result = sign_flip_test(differences)
    assert result.exact
    assert result.p == pytest.approx(2 * 863 / 32_768)


@relaxed
@given(st.lists(st.floats(-1, 1, allow_nan=False), min_size=2, max_size=9))
def test_sign_flip_equals_scipy_where_exact(values: list[float]) -> None:
    differences = np.round(values, 3)
    theirs = stats.permutation_test(
        (differences,),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert sign_flip_test(differences).p == pytest.approx(theirs.pvalue)


def test_drawn_sign_flips_approach_the_exact_answer_and_are_never_zero() -> None:
    generator = np.random.default_rng(4)
    differences = generator.normal(0.3, 1, size=18)
    signs = np.array(list(itertools.product([1.0, -1.0], repeat=18)))
    exact = np.mean(np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12)
    drawn = sign_flip_test(differences, seed=3)
    assert not drawn.exact
    assert drawn.p == pytest.approx(exact, abs=0.01)
    assert drawn.p == sign_flip_test(differences, seed=3).p
    certain = sign_flip_test(np.ones(200), flips=10_000)
    assert certain.p == 1 / 10_001


@relaxed
@given(st.lists(st.integers(-20, 20), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_sign_flip_is_two_sided(values: list[int], random: object) -> None:
    one = sign_flip_test(values, flips=500)
    assert one.p == sign_flip_test([-value for value in values], flips=500).p
    assert 0 < one.p <= 1


def test_sign_flip_without_people_or_difference() -> None:
    assert np.isnan(sign_flip_test([]).p)
    assert sign_flip_test([0.4]).p == 1
    assert sign_flip_test(np.zeros(5)).p == 1
    with pytest.raises(ValueError, match="finite difference per person"):
        sign_flip_test([0.1, np.nan])


@pytest.mark.slow
def test_false_positives_stay_near_five_percent() -> None:
    generator = np.random.default_rng(11)
    hits = sum(sign_flip_test(generator.standard_t(4, size=12)).p <= 0.05 for _ in range(2000))
    assert 0.035 <= hits / 2000 <= 0.065


def test_paired_interval_agrees_with_scipy() -> None:
    differences = np.random.default_rng(2).normal(0.02, 0.05, size=25)
    ours = paired_interval(differences, resamples=20_000)
    theirs = stats.bootstrap(
        (differences,), np.mean, method="percentile", n_resamples=20_000, rng=0
    ).confidence_interval
    assert ours.value == pytest.approx(differences.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-3)
    assert np.isnan(paired_interval([0.1]).low)
    assert np.isnan(paired_interval([]).value)


def test_holm_worked_example() -> None:
    """.01, .04, .03, .005 in a family of four: .03, .06, .06, .02 (the third is pulled up to the second)."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    adjusted = holm([0.02, float("nan"), 0.04])
    assert adjusted[0] == pytest.approx(0.04)
    assert np.isnan(adjusted[1])
    assert adjusted[2] == pytest.approx(0.04)


@relaxed
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float]) -> None:
    adjusted, level = holm(p_values), 0.05
    rejected: set[int] = set()
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] * (len(p_values) - rank) > level:
            break
        rejected.add(index)
    assert {index for index, p in enumerate(adjusted) if p <= level} == rejected


def test_many_tests_at_once_are_the_same_tests() -> None:
    generator = np.random.default_rng(5)
    differences = [generator.normal(0.1, 1, size=people) for people in (40, 9, 40, 0, 1, 40, 17)]
    together = sign_flip_tests(differences, seed=4)
    alone = [sign_flip_test(values, seed=4) for values in differences]
    assert repr(together) == repr(alone)
    with pytest.raises(ValueError, match="one finite difference"):
        sign_flip_tests([np.array([0.1, np.nan])])


def test_sign_patterns_are_those_of_the_generator() -> None:
    """Made of whole words of the generator, the same signs come out as when it is asked for single ones."""
    for people in (17, 40, 333):
        drawn = np.random.default_rng(5).integers(0, 2, size=(1000, people), dtype=np.int8)
        np.testing.assert_array_equal(statistics._few_signs(people, 1000, 5), drawn)


def test_intervals_of_many_lists_are_those_of_each() -> None:
    """Lists share their resamples, which are taken in parts; no digit depends on either."""
    random = np.random.default_rng(1)
    lists = [random.normal(size=n) for n in (1, 2, 30, 30, 31, 700)]
    together = paired_intervals(lists, resamples=300, seed=2)
    assert str(together) == str([paired_interval(values, resamples=300, seed=2) for values in lists])
    weights = person_weights(700, resamples=300, seed=2).astype(float)
    low, high = statistics.percentile_interval(weights @ lists[-1] / 700)
    assert (together[-1].low, together[-1].high) == (low, high)


def test_metrics_where_every_stage_occurs_are_those_of_the_general_way() -> None:
    """Where nothing is undefined the metrics are made in another order of work, to the same last digit."""
    counts = np.random.default_rng(3).integers(1, 90, size=(6, 30, 5, 5))
    drawn = statistics.resampled_margins(counts, resamples=100, seed=0)
    found = statistics.pooled_values(drawn)
    for name, metric in {"accuracy": accuracy_of, "kappa": kappa_of, "precision": precision_of, "f1": f1_of}.items():
        np.testing.assert_array_equal(found[name], nan_mean(metric(drawn)))
    np.testing.assert_array_equal(found["macro_recall"], nan_mean(macro(recall_of(drawn), axis=-2)))
    # One stage that nobody predicts in one resample of one replicate.
    drawn.right[0, 1, 4] = drawn.predicted[0, 1, 4] = 0
    again = statistics.pooled_values(drawn)
    assert again["precision"][1, 4] == nan_mean(precision_of(drawn))[1, 4] < found["precision"][1, 4]
