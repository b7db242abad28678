"""False-positive rate and power of the ablation test, by simulation with the functions that reports use.

    python benchmarks/false_positives.py

Two arms judge the same people in five folds. Stage shares and confusions are those of an adult's night; people differ
in how hard they are (alike for both arms), folds too; each arm errs in its own way on each person; epochs are drawn. An
experiment is positive when p is at most .05.

* null: both arms come from the same distribution.
* effect: one arm hits a little more often; its effect in macro-F1 is measured over the experiments.
* training noise: both arms are equal on average, but each trained network (arm and fold) is a little better or worse
  on all its people. The test over people is about the networks that were trained and takes no account of it; the
  corrected t-test over folds does.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tusp.dashboards.contrast import Folds, contrasts, specify
from tusp.dashboards.judged import Judged

FOLDS = 5
EPOCHS = 900
SHARES = np.array([0.18, 0.06, 0.40, 0.14, 0.22])
HITS = np.array([0.90, 0.48, 0.84, 0.82, 0.85])
CONFUSED = np.array([[0, 6, 2, 0.2, 2], [5, 0, 9, 0.1, 5], [1, 3, 0, 4, 2], [0.2, 0.1, 7, 0, 0.1], [1.5, 4, 3, 0.1, 0]])
SPECS = specify({"one": {"csja": True}, "other": {"csja": False}})


@dataclass(frozen=True, kw_only=True)
class World:
    """Standard deviations of the quality of judging, a factor on the share of hits."""

    people: float = 0.06
    folds: float = 0.01
    arm_on_person: float = 0.02
    training: float = 0.0
    gain: float = 0.0
    """By how much the first arm hits more often."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What came out of many experiments."""

    positive: float
    """Share with p of the test over people at most .05."""
    positive_folds: float
    """The same of the corrected t-test over folds."""
    effect: float
    """Mean effect in macro-F1."""
    experiments: int


def measure(n_people: int, world: World, *, experiments: int, seed: int) -> Measured:
    """Run experiments and count how often the test finds a difference."""
    generator = np.random.default_rng([seed, n_people])
    names = tuple(f"P{number:03d}" for number in range(n_people))
    fold_of = np.arange(n_people) % FOLDS
    folds = Folds(of_person=dict(zip(names, fold_of.tolist(), strict=True)), test_share=1 / (FOLDS - 1))
    positive = positive_folds = 0
    effects = []
    for _ in range(experiments):
        shared = 1 + generator.normal(0, world.people, n_people) + generator.normal(0, world.folds, FOLDS)[fold_of]
        shares = generator.dirichlet(SHARES * 40, size=n_people)
        arms = {}
        for arm, gain in (("one", world.gain), ("other", 0.0)):
            own = generator.normal(0, world.arm_on_person, n_people)
            trained = generator.normal(0, world.training, FOLDS)[fold_of]
            arms[arm] = _judged(names, shares, shared + own + trained + gain, generator)
        # 100 resamples are the least; the interval plays no part in the test.
        (contrast,) = contrasts(SPECS, arms, folds=folds, resamples=100)
        positive += contrast.p_holm <= 0.05
        positive_folds += contrast.folds is not None and contrast.folds.p <= 0.05
        effects.append(contrast.effect.value)
    return Measured(
        positive=positive / experiments,
        positive_folds=positive_folds / experiments,
        effect=float(np.mean(effects)),
        experiments=experiments,
    )


def _judged(
    names: tuple[str, ...],
    shares: npt.NDArray[np.float64],
    quality: npt.NDArray[np.float64],
    generator: np.random.Generator,
) -> Judged:
    """Counts of one arm on everybody, one night each."""
    totals = generator.multinomial(EPOCHS, shares)
    hit = np.clip(HITS * quality[:, None], 0.01, 0.99)
    confused = CONFUSED / CONFUSED.sum(1, keepdims=True)
    predicted = confused * (1 - hit[:, :, None]) + np.eye(5) * hit[:, :, None]
    counts = generator.multinomial(totals, predicted)[None]
    return Judged(
        people=names,
        replicates=((0,),),
        by_person=counts,
        present=counts.sum((2, 3)) > 0,
        recordings=names,
        by_recording=counts,
        subjects=names,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--experiments", type=int, default=2000)
    parser.add_argument("--people", type=int, nargs="+", default=[10, 22, 78])
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    worlds = {
        "null": World(),
        "gain .01": World(gain=0.01),
        "gain .02": World(gain=0.02),
        "training noise .01": World(training=0.01),
    }
    print(
        f"share with p <= .05 of {chosen.experiments} experiments under the null, {chosen.experiments // 4} otherwise"
    )
    print(f"{'world':<20}{'people':>8}{'effect':>9}{'over people':>13}{'over folds':>12}{'seconds':>9}")
    for name, world in worlds.items():
        for people in chosen.people:
            began = time.process_time()
            found = measure(
                people,
                world,
                experiments=chosen.experiments if name == "null" else chosen.experiments // 4,
                seed=chosen.seed,
            )
            spent = time.process_time() - began
            print(
                f"{name:<20}{people:>8}{found.effect:>+9.4f}{found.positive:>13.3f}{found.positive_folds:>12.3f}"
                f"{spent:>9.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
