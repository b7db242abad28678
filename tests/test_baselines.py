"""The classical baselines: what they learn, what they say of stages they never saw, and their state as arrays."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save
from threadpoolctl import threadpool_limits

from tusp.models.baselines.band_features import BANDS_HZ, FEATURES, night_features, training_matrix
from tusp.models.baselines.band_power import (
    BandPowerBoosting,
    BandPowerLogistic,
    build_band_power_boosting,
    build_band_power_logistic,
)
from tusp.models.baselines.estimator import Estimator, Night
from tusp.models.baselines.majority import Majority, build_majority
from tusp.models.baselines.settings import BandPowerConfig, BoostingConfig, MajorityConfig, TransitionConfig
from tusp.models.baselines.transition import Transition, build_transition, forward_backward
from tusp.models.baselines.trees import Trees
from tusp.platform.errors import CellError, UserError

TONES_HZ = {0: 20.0, 1: 6.0, 2: 14.0, 3: 2.0, 4: 10.0}
"""The stage's rhythm in a simulated night."""

BASELINES: dict[str, Any] = {
    "majority": lambda: build_majority(MajorityConfig()),
    "logistic": lambda: build_band_power_logistic(BandPowerConfig()),
    "boosting": lambda: build_band_power_boosting(BoostingConfig(rounds=5, leaves=8)),
    "transition": lambda: build_transition(TransitionConfig()),
}
every = pytest.mark.parametrize("name", BASELINES)


def night(
    seed: int, *, epochs: int = 60, among: tuple[int, ...] = (0, 1, 2, 3, 4), noise: float = 1.0, bout: int = 6
) -> Night:
    """A night of bouts, each epoch a tone of its stage in noise; the third stage is the commonest."""
    random = np.random.default_rng(seed)
    bouts = random.permutation(np.repeat(among, [2 if stage == 2 else 1 for stage in among]))
    stages = np.resize(np.repeat(bouts, bout), epochs).astype(np.int8)
    time = np.arange(3840) / 128
    tones = np.stack([np.sin(2 * np.pi * TONES_HZ[int(stage)] * time + random.uniform(0, 6)) for stage in stages])
    signals = tones.reshape(1, -1) + noise * random.standard_normal((2, epochs * 3840))
    return signals.astype(np.float16), stages


def accuracy(estimator: Estimator, nights: list[Night]) -> float:
    right = [estimator.probabilities(signals).argmax(axis=1) == stages for signals, stages in nights]
    return float(np.concatenate(right).mean())


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Problems this small only lose by more, the more so beside other tests."""
    with threadpool_limits(1):
        yield


TRAIN = [night(seed) for seed in range(4)]
TEST = [night(seed) for seed in range(10, 12)]


# --- all of them ---


@every
def test_probabilities_per_epoch_and_stage(name: str) -> None:
    estimator = BASELINES[name]().fit(TRAIN, seed=0)
    probabilities = estimator.probabilities(TEST[0][0])
    assert probabilities.shape == (60, 5)
    assert probabilities.dtype == np.float32
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert estimator.n_parameters > 0


@every
@pytest.mark.parametrize("among", [(0, 2, 4), (1, 2), (3,)])
def test_a_stage_no_training_night_holds_gets_nothing(name: str, among: tuple[int, ...]) -> None:
    estimator = BASELINES[name]().fit([night(seed, among=among) for seed in range(3)], seed=0)
    probabilities = estimator.probabilities(TEST[0][0])
    missing = [stage for stage in range(5) if stage not in among]
    assert not probabilities[:, missing].any()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    if name != "majority":
        held_out = [night(20, among=among, epochs=24)]
        assert accuracy(estimator, held_out) > 0.9


@every
@pytest.mark.parametrize("among", [(0, 1, 2, 3, 4), (1, 2), (3,)])
def test_saved_and_restored_as_arrays(name: str, among: tuple[int, ...]) -> None:
    estimator = BASELINES[name]().fit([night(seed, among=among) for seed in range(2)], seed=0)
    file = save({key: np.ascontiguousarray(value) for key, value in estimator.tensors().items()})
    restored = type(estimator).from_tensors(estimator.config, load(file))
    np.testing.assert_array_equal(restored.probabilities(TEST[0][0]), estimator.probabilities(TEST[0][0]))
    assert restored.n_parameters == estimator.n_parameters


@every
def test_the_same_for_the_same_seed(name: str) -> None:
    first, again = (BASELINES[name]().fit(TRAIN, seed=7).tensors() for _ in range(2))
    assert all(np.array_equal(first[key], again[key]) for key in first)


@every
def test_nights_without_a_scored_epoch_are_refused(name: str) -> None:
    signals, stages = night(0)
    with pytest.raises(CellError, match="no scored epoch"):
        BASELINES[name]().fit([(signals, np.full_like(stages, -1))], seed=0)


def test_unscored_epochs_are_not_learned_from() -> None:
    signals, stages = night(0)
    hidden = stages.copy()
    hidden[6:12] = -1
    x, y = training_matrix([(signals, hidden), TRAIN[1]], neighbours=1, most_epochs=1000, seed=0)
    kept = hidden >= 0
    np.testing.assert_array_equal(y, np.concatenate([stages[kept], TRAIN[1][1]]))
    np.testing.assert_array_equal(x[: kept.sum()], night_features(signals, neighbours=1)[kept])


@every
def test_nights_may_come_one_by_one(name: str) -> None:
    at_once = BASELINES[name]().fit(TRAIN, seed=0).tensors()
    one_by_one = BASELINES[name]().fit(iter(TRAIN), seed=0).tensors()
    assert all(np.array_equal(at_once[key], one_by_one[key]) for key in at_once)


def test_bands_are_learned_better_than_the_commonest_stage() -> None:
    scores = {name: accuracy(made().fit(TRAIN, seed=0), TEST) for name, made in BASELINES.items()}
    assert scores["majority"] < 0.5
    assert min(scores[name] for name in ("logistic", "boosting", "transition")) > scores["majority"] + 0.3


# --- majority ---


def test_majority_names_the_commonest_stage_with_its_share() -> None:
    signals = np.zeros((2, 4 * 3840), np.float16)
    nights = [(signals, np.array([2, 2, 0, -1])), (signals, np.array([2, 4, -1, -1]))]
    estimator = Majority(MajorityConfig()).fit(nights, seed=0)
    np.testing.assert_allclose(estimator.probabilities(signals), np.tile([0.2, 0, 0.6, 0, 0.2], (4, 1)), atol=1e-7)


# --- features ---


def test_a_tone_shows_in_its_band() -> None:
    time = np.arange(5 * 3840) / 128
    for band, (low, high) in BANDS_HZ.items():
        # One epoch of the band's own tone among four of noise, so that standardising leaves a contrast.
        signal = np.random.default_rng(0).standard_normal(5 * 3840)
        signal[:3840] = np.sin(2 * np.pi * (low + high) / 2 * time[:3840])
        features = night_features(signal[None], neighbours=0)
        column = FEATURES.index(f"log relative {band}")
        assert features[0, column] > 1.5, band
        assert (features[1:, column] < 0).all(), band


def test_features_are_standardised_over_the_night() -> None:
    features = night_features(TRAIN[0][0], neighbours=0)
    assert features.shape == (60, 2 * len(FEATURES))
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(features.std(axis=0), 1, atol=1e-5)
    louder = night_features(3 * TRAIN[0][0].astype(np.float32), neighbours=0)
    np.testing.assert_allclose(louder, features, atol=1e-3)


def test_neighbours_stand_beside_an_epoch_and_the_ends_are_repeated() -> None:
    own = night_features(TRAIN[0][0], neighbours=0)
    three = night_features(TRAIN[0][0], neighbours=1)
    width = own.shape[1]
    np.testing.assert_array_equal(three[:, width : 2 * width], own)
    np.testing.assert_array_equal(three[5, :width], own[4])
    np.testing.assert_array_equal(three[5, 2 * width :], own[6])
    np.testing.assert_array_equal(three[0, :width], own[0])
    np.testing.assert_array_equal(three[-1, 2 * width :], own[-1])


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("value", [0.0, 4.0])
def test_a_channel_without_signal_gives_finite_features(epochs: int, value: float) -> None:
    signals = np.full((2, epochs * 3840), value, np.float16)
    assert np.isfinite(night_features(signals, neighbours=2)).all()


def test_of_a_large_corpus_epochs_are_drawn_by_the_seed() -> None:
    drawn = [training_matrix(TRAIN, neighbours=0, most_epochs=50, seed=seed) for seed in (1, 1, 2)]
    assert [len(stages) for _, stages in drawn] == [50, 50, 50]
    np.testing.assert_array_equal(drawn[0][0], drawn[1][0])
    assert not np.array_equal(drawn[0][0], drawn[2][0])


# --- logistic regression and trees against scikit-learn ---


@pytest.mark.parametrize("among", [(0, 1, 2, 3, 4), (0, 2, 4), (1, 2)])
def test_logistic_probabilities_are_scikit_learns(among: tuple[int, ...]) -> None:
    from sklearn.linear_model import LogisticRegression

    nights = [night(seed, among=among) for seed in range(3)]
    estimator = BandPowerLogistic(BandPowerConfig()).fit(nights, seed=0)
    x, y = training_matrix(nights, neighbours=2, most_epochs=10_000, seed=0)
    expected = LogisticRegression(class_weight="balanced", max_iter=1000).fit(x, y)
    signals, _ = TEST[0]
    np.testing.assert_allclose(
        estimator.probabilities(signals)[:, among],
        expected.predict_proba(night_features(signals, neighbours=2)),
        atol=1e-5,
    )


@pytest.mark.parametrize("among", [(0, 1, 2, 3, 4), (0, 2, 4), (1, 2)])
def test_trees_score_exactly_as_scikit_learn(among: tuple[int, ...]) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    x, y = training_matrix(
        [night(seed, among=among, noise=4.0) for seed in range(3)], neighbours=1, most_epochs=10_000, seed=0
    )
    model = HistGradientBoostingClassifier(max_iter=12, max_leaf_nodes=16, early_stopping=False).fit(x, y)
    trees = Trees.from_sklearn(model)
    other = night_features(night(30, noise=4.0)[0], neighbours=1)
    scores = trees.scores(other)
    np.testing.assert_array_equal(scores, np.asarray(model._raw_predict(other)).reshape(scores.shape))
    # On a threshold: to the left, as scikit-learn.
    edge = other.astype(np.float64)
    first = trees.roots[0, 0]
    edge[:, trees.feature[first]] = trees.threshold[first]
    np.testing.assert_array_equal(trees.scores(edge), np.asarray(model._raw_predict(edge)).reshape(scores.shape))


def test_boosting_probabilities_are_scikit_learns() -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    estimator = BandPowerBoosting(BoostingConfig(rounds=5, leaves=8)).fit(TRAIN, seed=3)
    x, y = training_matrix(TRAIN, neighbours=2, most_epochs=10_000, seed=3)
    expected = HistGradientBoostingClassifier(
        max_iter=5, max_leaf_nodes=8, class_weight="balanced", early_stopping=False, random_state=3
    ).fit(x, y)
    signals, _ = TEST[0]
    np.testing.assert_allclose(
        estimator.probabilities(signals), expected.predict_proba(night_features(signals, neighbours=2)), atol=1e-6
    )


# --- transitions ---


def test_forward_backward_is_the_sum_over_all_paths() -> None:
    random = np.random.default_rng(0)
    first = random.dirichlet(np.ones(3))
    transition = random.dirichlet(np.ones(3), size=3)
    likelihood = random.random((4, 3))
    expected = np.zeros((4, 3))
    for path in np.ndindex(3, 3, 3, 3):
        weight = first[path[0]] * likelihood[0, path[0]]
        for step in range(1, 4):
            weight *= transition[path[step - 1], path[step]] * likelihood[step, path[step]]
        for step in range(4):
            expected[step, path[step]] += weight
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(forward_backward(first, transition, likelihood), expected, atol=1e-12)


def test_forward_backward_does_not_run_out_of_digits_in_a_long_night() -> None:
    likelihood = np.full((3000, 2), 1e-12)
    result = forward_backward(np.array([0.5, 0.5]), np.array([[0.9, 0.1], [0.1, 0.9]]), likelihood)
    np.testing.assert_allclose(result, 0.5)


def test_transitions_are_those_of_the_training_nights() -> None:
    signals = TRAIN[0][0][:, : 6 * 3840]
    nights = [(signals, np.array([0, 0, 4, -1, 4, 4])), (signals, np.array([-1, 4, 0, 0, 4, 4]))]
    estimator = Transition(TransitionConfig(pseudo_count=1.0)).fit(nights, seed=0)
    # 0 to 0 twice, 0 to 4 twice, 4 to 0 once, 4 to 4 twice; one more each. An unscored epoch breaks the chain.
    np.testing.assert_allclose(estimator.transition[np.ix_([0, 4], [0, 4])], [[3 / 6, 3 / 6], [2 / 5, 3 / 5]])
    np.testing.assert_allclose(estimator.first[[0, 4]], [0.5, 0.5])
    assert estimator.transition.sum() == pytest.approx(2)


def test_the_chain_corrects_single_epochs() -> None:
    noisy = [night(seed, epochs=80, noise=9.0, bout=15) for seed in range(4)]
    held_out = [night(seed, epochs=120, noise=9.0, bout=15) for seed in range(40, 42)]
    alone = BandPowerLogistic(BandPowerConfig(neighbours=0)).fit(noisy, seed=0)
    chain = Transition(TransitionConfig()).fit(noisy, seed=0)
    assert accuracy(chain, held_out) > accuracy(alone, held_out) + 0.05


# --- settings ---


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        (MajorityConfig, {"n_channels": 0}, "n_channels = 0: "),
        (BandPowerConfig, {"neighbours": -1}, "neighbours = -1: must be a whole number of at least 0"),
        (BandPowerConfig, {"neighbours": 1.5}, "neighbours = 1.5: "),
        (BandPowerConfig, {"inverse_penalty": 0.0}, "inverse_penalty = 0.0: must be a number above 0"),
        (BandPowerConfig, {"inverse_penalty": float("nan")}, "inverse_penalty = nan: "),
        (BoostingConfig, {"rounds": 0}, "rounds = 0: "),
        (BoostingConfig, {"leaves": 1}, "leaves = 1: must be a whole number of at least 2"),
        (BoostingConfig, {"learning_rate": -0.1}, "learning_rate = -0.1: "),
        (TransitionConfig, {"pseudo_count": 0.0}, "pseudo_count = 0.0: "),
        (TransitionConfig, {"most_epochs": 0}, "most_epochs = 0: "),
    ],
)
def test_a_wrong_setting_is_one_line(settings: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as raised:
        settings(**changes)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_settings_need_neither_torch_nor_scikit_learn() -> None:
    code = (
        "import sys, tusp.models.baselines.settings, tusp.models.baselines.band_power;"
        "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
