"""Scoring: counts, rules and metrics, checked against scikit-learn and by hand."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    confusion_matrix,
    precision_recall_fscore_support,
)

from tusp.platform.scoring import RULES, add_counts, confusion, rule_mask
from tusp.platform.scoring.counts import checked_counts
from tusp.platform.scoring.metrics import (
    accuracy,
    f1,
    kappa,
    macro_f1,
    macro_precision,
    macro_recall,
    metrics,
    precision,
    recall,
)

settings.register_profile("tusp-scoring", deadline=None, max_examples=60)
settings.load_profile("tusp-scoring")


@st.composite
def hypnogram_pairs(draw: st.DrawFn) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Two hypnograms of one night, over some of the stages only, partly unscored, agreeing more or less."""
    n = draw(st.integers(1, 60))
    stages = draw(st.lists(st.integers(0, 4), min_size=1, max_size=5, unique=True))
    true = draw(st.lists(st.sampled_from([*stages, -1]), min_size=n, max_size=n))
    wrong = draw(st.lists(st.sampled_from([None, None, 0, 1, 2, 3, 4]), min_size=n, max_size=n))
    predicted = [max(t, 0) if w is None else w for t, w in zip(true, wrong, strict=True)]
    return np.array(true, dtype=np.int8), np.array(predicted, dtype=np.int8)


@given(hypnogram_pairs())
def test_metrics_equal_scikit_learn(pair: tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]) -> None:
    true, predicted = pair
    counts = confusion(true, predicted)
    t, p = true[true >= 0], predicted[true >= 0]
    assert counts.sum() == t.size
    scored = metrics(counts)
    assert scored.n_epochs == t.size
    if t.size == 0:
        assert np.isnan([scored.accuracy, scored.macro_f1, scored.kappa, *scored.f1]).all()
        return
    np.testing.assert_array_equal(counts, confusion_matrix(t, p, labels=range(5)))
    assert scored.accuracy == pytest.approx(accuracy_score(t, p))
    expected = precision_recall_fscore_support(t, p, average="macro", zero_division=0)
    assert [scored.macro_precision, scored.macro_recall, scored.macro_f1] == pytest.approx(expected[:3])
    seen = sorted({*t.tolist(), *p.tolist()})
    each = precision_recall_fscore_support(t, p, labels=seen, zero_division=0)
    for ours, theirs in zip((scored.precision, scored.recall, scored.f1), each[:3], strict=True):
        assert [ours[code] for code in seen] == pytest.approx(list(theirs))
        assert all(np.isnan(ours[code]) for code in range(5) if code not in seen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected_kappa = cohen_kappa_score(t, p) if len(seen) > 1 else float("nan")
    assert scored.kappa == pytest.approx(expected_kappa, nan_ok=True)


@given(st.sets(st.integers(0, 4), min_size=1), st.integers(1, 40), st.randoms(use_true_random=False))
def test_perfect_predictions_score_one_in_every_defined_stage(stages: set[int], n: int, random: object) -> None:
    true = np.resize(sorted(stages), max(n, len(stages)))
    scored = metrics(confusion(true, true))
    for values in (scored.precision, scored.recall, scored.f1):
        assert all(values[code] == 1 if code in stages else np.isnan(values[code]) for code in range(5))
    assert scored.accuracy == scored.macro_f1 == scored.macro_precision == scored.macro_recall == 1
    assert scored.kappa == 1 if len(stages) > 1 else np.isnan(scored.kappa)


def test_half_the_nights_without_n3_does_not_halve_its_f1() -> None:
    nights = [[0, 1, 2, 3, 4], [0, 1, 2, 4, 4]] * 5
    per_night = np.array([metrics(confusion(night, night)).f1[3] for night in nights])
    assert np.nanmean(per_night) == 1
    assert np.isnan(per_night).sum() == 5


def test_kappa_worked_example() -> None:
    """The textbook 2 x 2 table 20, 5 / 10, 15: p_o = .7, p_e = .5, kappa = .4."""
    counts = np.zeros((5, 5), dtype=int)
    counts[:2, :2] = [[20, 5], [10, 15]]
    scored = metrics(counts)
    assert scored.accuracy == pytest.approx(0.7)
    assert scored.kappa == pytest.approx(0.4)
    assert scored.f1[:2] == pytest.approx((2 * 20 / 55, 2 * 15 / 45))
    assert scored.macro_f1 == pytest.approx((2 * 20 / 55 + 2 * 15 / 45) / 2)


@given(st.lists(hypnogram_pairs(), min_size=1, max_size=4))
def test_vectorised_metrics_equal_one_by_one(
    pairs: list[tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]],
) -> None:
    stack = np.stack([confusion(*pair) for pair in pairs])
    one_by_one = [metrics(matrix) for matrix in stack]
    for function in (accuracy, kappa, macro_f1, macro_precision, macro_recall, precision, recall, f1):
        expected = np.array([getattr(one, function.__name__) for one in one_by_one])
        np.testing.assert_array_equal(function(stack[None])[0], expected)
    np.testing.assert_array_equal(add_counts(stack), stack.sum(0))


def test_unscored_epochs_do_not_count_whatever_was_predicted() -> None:
    counts = confusion([-1, 0, -1, 4], [-1, 0, 3, 2])
    assert counts.sum() == 2
    assert counts[0, 0] == counts[4, 2] == 1


@pytest.mark.parametrize(
    ("true", "predicted", "message"),
    [
        ([0, 1], [0], "2 epochs, the predicted one 1"),
        ([0, 7], [0, 1], "true hypnogram has code 7 at epoch 1"),
        ([-1, 0, 1], [0, 0, -1], "predicted hypnogram has code -1 at epoch 2"),
        ([0.5], [0], "stage codes are integers"),
        ([[0]], [[0]], "one stage per epoch"),
    ],
)
def test_what_cannot_be_counted_is_refused_in_one_line(true: object, predicted: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        confusion(true, predicted)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "counts", [np.zeros((4, 5)), -np.eye(5, dtype=int), np.full((5, 5), 0.5), np.full((5, 5), np.nan)]
)
def test_what_is_no_confusion_matrix_is_refused(counts: npt.NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="confusion counts"):
        checked_counts(counts)


def test_trim30_keeps_thirty_minutes_on_either_side_of_sleep() -> None:
    stages = np.zeros(400, dtype=np.int8)
    stages[[100, 200]] = [1, 4]
    stages[150] = -1
    mask = rule_mask(stages, "trim30")
    assert np.flatnonzero(mask).tolist() == list(range(40, 261))
    assert rule_mask(stages, "full").all()


@given(st.lists(st.integers(-1, 4), max_size=400))
def test_trim30_keeps_every_sleep_epoch_and_one_span(codes: list[int]) -> None:
    stages = np.array(codes, dtype=np.int8)
    mask = rule_mask(stages, "trim30")
    assert mask[stages > 0].all()
    kept = np.flatnonzero(mask)
    assert (np.diff(kept) == 1).all()
    if not (stages > 0).any():
        assert not mask.any()
    else:
        first, last = np.flatnonzero(stages > 0)[[0, -1]]
        assert kept[0] == max(0, first - 60)
        assert kept[-1] == min(len(codes) - 1, last + 60)


def test_unknown_rule_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'half'; rules are full, trim30"):
        rule_mask([0], "half")
    assert RULES == ("full", "trim30")


def test_scoring_core_needs_numpy_only() -> None:
    code = (
        "import sys; import tusp.platform.scoring; "
        "print([m for m in ('scipy', 'pandas', 'sqlalchemy', 'torch', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_published_models_on_dod_h_against_the_first_scorer_equal_scikit_learn(shared_data: Path) -> None:
    """Real hypnograms: a published network against one expert on 25 nights, pooled."""
    scorers = json.loads((shared_data / "dod-h" / "scorers.json").read_text())
    models = json.loads((shared_data / "dod-h" / "models.json").read_text())
    truth, predicted = next(iter(scorers.values())), next(iter(models.values()))
    pairs = []
    for night, codes in predicted.items():
        n = min(len(codes), len(truth[night]))
        pairs.append((np.array(truth[night][:n]), np.clip(codes[:n], 0, 4)))
    pooled = metrics(add_counts(confusion(*pair) for pair in pairs))
    t = np.concatenate([true[true >= 0] for true, _ in pairs])
    p = np.concatenate([guess[true >= 0] for true, guess in pairs])
    assert pooled.kappa == pytest.approx(cohen_kappa_score(t, p), abs=1e-12)
    assert pooled.macro_f1 == pytest.approx(precision_recall_fscore_support(t, p, average="macro")[2], abs=1e-12)
