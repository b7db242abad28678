"""Statistics over people: bootstrap clustered by person, paired sign-flip test, Holm's correction.

The person is the unit everywhere: two nights of one person, or two seeds of one network on the same person,
are never treated as independent. Everything is seeded and does not depend on the order of recordings.

Arrays of counts have shape [R, P, 5, 5]: R replicates (repetitions of the whole judging with another seed;
usually 1) and P people, each matrix summed over the person's recordings, zero where a replicate did not
judge a person. A metric is computed from the counts pooled within a replicate and then averaged over
replicates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from tusp.platform.scoring.metrics import (
    Floats,
    accuracy,
    f1,
    kappa,
    macro,
    precision,
    recall,
)
from tusp.platform.stages import N_STAGES

CONFIDENCE: Final = 0.95
EXACT_PEOPLE: Final = 16
"""Up to this many people all 2^n sign patterns are enumerated; beyond, patterns are drawn."""

FLIPS: Final = 10_000
"""Sign patterns drawn when there are too many to enumerate."""

PER_STAGE: Final = ("precision", "recall", "f1")
OVERALL: Final = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "kappa")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its interval; NaN where it was not scored, or where an interval cannot be given."""

    value: float
    low: float = float("nan")
    high: float = float("nan")


@dataclass(frozen=True, kw_only=True)
class PooledScores:
    """Pooled metrics with 95 % intervals; per-stage ones ordered W, N1, N2, N3, REM."""

    overall: Mapping[str, Estimate]
    """``accuracy``, ``macro_precision``, ``macro_recall``, ``macro_f1``, ``kappa``."""

    stages: Mapping[str, tuple[Estimate, ...]]
    """``precision``, ``recall``, ``f1``: five estimates each."""


@dataclass(frozen=True, kw_only=True)
class SignFlip:
    """Outcome of the paired sign-flip permutation test."""

    p: float
    exact: bool
    patterns: int
    """Sign patterns compared: all 2^n, or the number drawn."""


def person_weights(n_people: int, *, resamples: int, seed: int) -> npt.NDArray[np.int64]:
    """How often each person is drawn in each bootstrap resample: [resamples, n_people], each row sums to
    n_people.

    Raises:
        ValueError: no people or no resamples.
    """
    if n_people < 1 or resamples < 1:
        raise ValueError(f"a bootstrap needs people and resamples, not {n_people} and {resamples}")
    return _person_weights(n_people, resamples, seed)


@lru_cache(maxsize=4)
def _person_weights(n_people: int, resamples: int, seed: int) -> npt.NDArray[np.int64]:
    """The same resamples serve all rows and contrasts of a board; read-only."""
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(n_people, np.full(n_people, 1 / n_people), size=resamples)
    drawn.flags.writeable = False
    return drawn


def percentile_interval(values: Floats, *, confidence: float = CONFIDENCE) -> Floats:
    """Percentile interval of bootstrap values [B, ...]: [2, ...] low and high.

    Undefined resamples (NaN) are left out; the interval is NaN when fewer than half are defined.
    """
    tail = 50 * (1 - confidence)
    defined = ~np.isnan(values)
    enough = defined.sum(0) * 2 >= len(values)
    # A column of NaN only would warn; it is replaced by the NaN that ``enough`` demands.
    safe = np.where(enough, values, 0.0)
    return np.where(enough, np.nanpercentile(safe, [tail, 100 - tail], axis=0), np.nan)


def resampled_counts(counts: npt.NDArray[np.int64], weights: npt.NDArray[np.int64]) -> Floats:
    """Pooled counts of every resample: [R, P, 5, 5] and [B, P] give [R, B, 5, 5]."""
    replicates, people = counts.shape[:2]
    flat = counts.reshape(replicates, people, N_STAGES**2).astype(np.float64)
    return (weights.astype(np.float64) @ flat).reshape(replicates, len(weights), N_STAGES, N_STAGES)


def pooled_values(counts: npt.NDArray[np.generic]) -> dict[str, Floats]:
    """Every metric of counts [R, ..., 5, 5] averaged over the replicates: name to [...] or [..., 5]."""
    per_class = {"precision": precision(counts), "recall": recall(counts), "f1": f1(counts)}
    each = {
        "accuracy": accuracy(counts),
        "kappa": kappa(counts),
        **{f"macro_{name}": macro(values) for name, values in per_class.items()},
        **per_class,
    }
    return {name: nan_mean(values) for name, values in each.items()}


def nan_mean(values: Floats, axis: int = 0) -> Floats:
    """Mean of what was scored along an axis; NaN, without a warning, where nothing was."""
    scored = ~np.isnan(values)
    number = scored.sum(axis)
    total = np.where(scored, values, 0.0).sum(axis)
    return np.asarray(np.divide(total, number, out=np.full(np.shape(number), np.nan), where=number > 0))


def pooled_scores(counts: npt.NDArray[np.int64], *, resamples: int = 2000, seed: int = 0) -> PooledScores:
    """Pooled metrics with percentile intervals from a bootstrap clustered by person.

    People are drawn with replacement, all their counts with them (B. Efron and R. Tibshirani, An
    Introduction to the Bootstrap, 1993, chapter 13; clusters as units: C. Field and A. Welsh, J. R. Statist.
    Soc. B 69, 369-390, 2007).

    No interval is given with fewer than two people, for a stage that fewer than two people have in their
    expert hypnograms, and for a macro mean that contains a stage of one person only: what varies between
    people cannot be seen from one. A resample that drew nobody with some true stage says nothing about a
    macro mean and is left out.

    Args:
        counts: [R, P, 5, 5].
        resamples: bootstrap resamples; 2,000 or more for a report.
        seed: of the resampling. The same for every arm, so arms over the same people share their resamples.
    """
    people = counts.shape[1]
    point = pooled_values(counts.sum(1))
    bounds = {name: np.full((2, *value.shape), np.nan) for name, value in point.items()}
    if people >= 2:
        pooled = resampled_counts(counts, person_weights(people, resamples=resamples, seed=seed))
        with_stage = (counts.sum((0, 3)) > 0).sum(0)
        drawn = (pooled.sum((0, 3))[:, with_stage > 0] > 0).all(1)
        for name, values in pooled_values(pooled).items():
            if name in PER_STAGE:
                values[:, with_stage < 2] = np.nan
            elif name.startswith("macro_"):
                values[~drawn if (with_stage != 1).all() else slice(None)] = np.nan
            bounds[name] = percentile_interval(values)

    def estimate(name: str, *stage: int) -> Estimate:
        low, high = (float(bound[stage]) for bound in bounds[name])
        return Estimate(value=float(point[name][stage]), low=low, high=high)

    return PooledScores(
        overall={name: estimate(name) for name in OVERALL},
        stages={name: tuple(estimate(name, stage) for stage in range(N_STAGES)) for name in PER_STAGE},
    )


def sign_flip_test(differences: npt.ArrayLike, *, flips: int = FLIPS, seed: int = 0) -> SignFlip:
    """Paired two-sided sign-flip permutation test of the mean of one difference per person.

    Under the null hypothesis each person's difference is as likely to carry the other sign (R. A. Fisher,
    The Design of Experiments, 1935, section 21). The p-value is the share of sign patterns whose mean is at
    least as far from 0 as the observed one: over all 2^n patterns with up to 16 people, else over ``flips``
    drawn ones, where the observed pattern counts as one of them, ``(b + 1) / (flips + 1)`` (B. Phipson and
    G. Smyth, Statistical Applications in Genetics and Molecular Biology 9:39, 2010).

    Args:
        differences: one finite number per person; NaN without people.
        flips: patterns drawn where they cannot all be enumerated.
        seed: of the drawing.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError("the sign-flip test takes one finite difference per person")
    people = values.size
    if people == 0:
        return SignFlip(p=float("nan"), exact=True, patterns=0)
    # Sums of the same numbers in another order differ in their last bits; ties must still count as ties.
    threshold = abs(values.sum()) - 1e-10 * np.abs(values).sum()
    if people <= EXACT_PEOPLE:
        patterns = 2**people
        signs = 1 - 2 * ((np.arange(patterns)[:, None] >> np.arange(people)) & 1)
        return SignFlip(p=float(np.mean(np.abs(signs @ values) >= threshold)), exact=True, patterns=patterns)
    as_extreme = sum(
        int(np.sum(np.abs(signs.astype(np.float64) @ values) >= threshold))
        for signs in _drawn_signs(people, flips, seed)
    )
    return SignFlip(p=(as_extreme + 1) / (flips + 1), exact=False, patterns=flips)


def _drawn_signs(people: int, flips: int, seed: int) -> Iterator[npt.NDArray[np.int8]]:
    """Sign patterns [n, people], ``flips`` in all, in parts of at most 10 million signs."""
    if people * flips <= 10_000_000:
        yield _few_signs(people, flips, seed)
        return
    generator, part = np.random.default_rng(seed), max(1, 10_000_000 // people)
    for start in range(0, flips, part):
        yield 1 - 2 * generator.integers(0, 2, size=(min(part, flips - start), people), dtype=np.int8)


@lru_cache(maxsize=2)
def _few_signs(people: int, flips: int, seed: int) -> npt.NDArray[np.int8]:
    """The same patterns serve all contrasts and stages of a board."""
    return 1 - 2 * np.random.default_rng(seed).integers(0, 2, size=(flips, people), dtype=np.int8)


def paired_interval(differences: npt.ArrayLike, *, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Mean of one difference per person with its percentile interval from a bootstrap over people.

    Both arms are resampled together, since the difference is taken first. No interval with fewer than two
    people.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.size == 0:
        return Estimate(value=float("nan"))
    if values.size == 1:
        return Estimate(value=float(values[0]))
    means = person_weights(values.size, resamples=resamples, seed=seed) @ values / values.size
    low, high = percentile_interval(means)
    return Estimate(value=float(values.mean()), low=float(low), high=float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (S. Holm, Scandinavian Journal of Statistics 6, 65-70, 1979).

    The i-th smallest of m p-values is multiplied by m - i + 1; adjusted values never decrease and are at
    most 1. A NaN (a contrast that could not be tested) stays NaN and does not count as a member of the
    family.
    """
    given = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(given.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(given))
    order = tested[np.argsort(given[tested], kind="stable")]
    factors = np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(given[order] * factors))
    return [float(value) for value in adjusted]
