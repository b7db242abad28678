"""Statistics over people: bootstrap clustered by person, paired sign-flip test, Holm's correction.

The person is the unit everywhere: two nights of one person, or two seeds of one network on the same person,
are never treated as independent. Everything is seeded and does not depend on the order of recordings.

Arrays of counts have shape [R, P, 5, 5]: R replicates (repetitions of the whole judging with another seed;
usually 1) and P people, each matrix summed over the person's recordings, zero where a replicate did not
judge a person. A metric is computed from the counts pooled within a replicate and then averaged over
replicates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, wraps
from threading import Lock
from typing import Any, Final, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from tusp.platform.scoring.metrics import (
    Floats,
    Margins,
    accuracy_of,
    f1_of,
    flat_margins,
    kappa_of,
    macro,
    margins,
    precision_of,
    recall_of,
)
from tusp.platform.stages import N_STAGES

CONFIDENCE: Final = 0.95
EXACT_PEOPLE: Final = 16
"""Up to this many people all 2^n sign patterns are enumerated; beyond, patterns are drawn."""

FLIPS: Final = 10_000
"""Sign patterns drawn when there are too many to enumerate."""

_CACHED: Final = 2**17
"""Numbers of eight bytes that a processor's cache holds beside what is made of them."""

_FEW: Final = 64
"""Up to this many people products are made in float64 at once."""

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
    return shared_weights(n_people, resamples, seed).astype(np.int64)


_Result = TypeVar("_Result")
_Given = ParamSpec("_Given")


def _drawn_once(maxsize: int) -> Callable[[Callable[_Given, _Result]], Callable[_Given, _Result]]:
    """As ``lru_cache``, but threads that ask for the same at the same time wait for the first."""

    def wrap(function: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
        lock, cached = Lock(), lru_cache(maxsize)(function)

        @wraps(function)
        def once(*args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
            with lock:
                return cached(*args, **kwargs)  # type: ignore[arg-type]

        return once

    return wrap


@_drawn_once(32)
def shared_weights(n_people: int, resamples: int, seed: int) -> npt.NDArray[np.unsignedinteger[Any]]:
    """:func:`person_weights`, read-only and as small as they can be: the same resamples serve all rows and contrasts of
    a report."""
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(n_people, np.full(n_people, 1 / n_people), size=resamples)
    small: npt.NDArray[np.unsignedinteger[Any]]
    small = drawn.astype(np.uint8) if drawn.max() < 256 else drawn.astype(np.uint32)
    small.flags.writeable = False
    return small


@_drawn_once(4)
def _turned_weights(n_people: int, resamples: int, seed: int) -> tuple[npt.NDArray[np.float32], int]:
    """``person_weights`` as float32 [n_people, resamples], and the largest of them; read-only."""
    weights = np.ascontiguousarray(shared_weights(n_people, resamples, seed).T, dtype=np.float32)
    weights.flags.writeable = False
    return weights, int(weights.max())


def percentile_interval(values: Floats, *, confidence: float = CONFIDENCE) -> Floats:
    """Percentile interval of bootstrap values [B, ...]: [2, ...] low and high.

    Undefined resamples (NaN) are left out; the interval is NaN when fewer than half are defined.
    """
    tail = 50 * (1 - confidence)
    columns = np.ascontiguousarray(values.reshape(len(values), -1).T)
    undefined = np.isnan(columns).sum(1)
    found = np.full((2, len(columns)), np.nan)
    whole = undefined == 0
    if whole.any():
        found[:, whole] = np.percentile(columns[whole], [tail, 100 - tail], axis=1)
    for place in np.flatnonzero(~whole & ((len(values) - undefined) * 2 >= len(values))):
        found[:, place] = np.nanpercentile(columns[place], [tail, 100 - tail])
    return found.reshape(2, *values.shape[1:])


def resampled_margins(counts: npt.NDArray[np.integer[Any]], *, resamples: int, seed: int) -> Margins:
    """Pooled margins of every resample of people: counts [R, P, 5, 5] give arrays [R, 5, B]."""
    parts = list(_margins_in_parts(counts, resamples, seed, at_once=resamples))
    return parts[0]


def _margins_in_parts(
    counts: npt.NDArray[np.integer[Any]], resamples: int, seed: int, *, at_once: int
) -> Iterator[Margins]:
    """The same, some resamples after another."""
    replicates, people = counts.shape[:2]
    flat = flat_margins(counts.astype(np.float64))
    # Replicates stand within stages, so that sums over stages and over replicates run along long rows.
    table = flat.transpose(2, 0, 1).reshape(3 * N_STAGES * replicates, people)
    weights, most = _turned_weights(people, resamples, seed)
    # Whole numbers below 2^24 are added up by float32 without rounding, in half the time; of few people the product
    # takes less time than making float64 of it.
    exact = people > _FEW and float(table.sum(1).max(initial=0)) * most < 2**24
    kind: type[np.float32] | type[np.float64] = np.float32 if exact else np.float64
    of_kind: npt.NDArray[Any] = table.astype(kind)
    for start in range(0, resamples, at_once):
        some: npt.NDArray[Any] = weights[:, start : start + at_once].astype(kind, copy=False)
        product: Floats = (of_kind @ some).astype(np.float64, copy=False)
        right, true, predicted = product.reshape(3, N_STAGES, replicates, some.shape[1]).transpose(0, 2, 1, 3)
        yield Margins(right=right, true=true, predicted=predicted, stages=-2)


def pooled_margins(counts: npt.NDArray[np.integer[Any]]) -> Margins:
    """Margins of counts [R, P, 5, 5] pooled over everybody, as one resample: arrays [R, 5, 1]."""
    pooled = margins(counts.sum(1))
    return Margins(
        right=pooled.right[..., None], true=pooled.true[..., None], predicted=pooled.predicted[..., None], stages=-2
    )


def pooled_values(of: Margins) -> dict[str, Floats]:
    """Every metric of margins [R, 5, B] averaged over the replicates: name to [B] or, per stage, [5, B]."""
    if of.true.size and of.true.min() > 0 and of.predicted.min() > 0:
        return _all_defined(of)
    per_class = {"precision": precision_of(of), "recall": recall_of(of), "f1": f1_of(of)}
    each = {
        "accuracy": accuracy_of(of),
        "kappa": kappa_of(of),
        **{f"macro_{name}": macro(values, axis=-2) for name, values in per_class.items()},
        **per_class,
    }
    return {name: nan_mean(values) for name, values in each.items()}


def _all_defined(of: Margins) -> dict[str, Floats]:
    """The same, digit by digit, where every stage is in the truth and in the prediction: nothing is searched for what
    was not scored, which takes as long as the metrics themselves."""
    replicates = len(of.true)
    total, right = of.true.sum(-2), of.right.sum(-2)
    scratch = of.true * of.predicted
    chance = scratch.sum(-2)
    values = {"accuracy": (right / total).sum(0)}
    square = total * total
    agreement = square - chance
    chancy = not agreement.all()
    values["kappa"] = np.zeros(0) if chancy else ((total * right - chance) / agreement).sum(0)
    per_stage = {}
    for name, part, whole in (
        ("precision", of.right, of.predicted),
        ("recall", of.right, of.true),
        ("f1", of.right + of.right, of.true + of.predicted),
    ):
        np.divide(part, whole, out=scratch)
        values[f"macro_{name}"] = (scratch.sum(-2) / N_STAGES).sum(0)
        per_stage[name] = scratch.sum(0)
    found = {name: value / replicates for name, value in (values | per_stage).items()}
    return found | {"kappa": nan_mean(kappa_of(of))} if chancy else found


def nan_mean(values: Floats, axis: int = 0) -> Floats:
    """Mean of what was scored along an axis; NaN, without a warning, where nothing was."""
    missing = np.isnan(values)
    if not missing.any() and values.shape[axis]:
        return np.asarray(values.sum(axis) / values.shape[axis], dtype=np.float64)
    number = (~missing).sum(axis)
    total = np.where(missing, 0.0, values).sum(axis)
    return np.asarray(np.divide(total, number, out=np.full(np.shape(number), np.nan), where=number > 0))


@dataclass(frozen=True, kw_only=True, eq=False)
class Resampled:
    """Every metric of every resample of people, averaged over the replicates."""

    values: Mapping[str, Floats]
    """As :func:`pooled_values`: [B], or [5, B] per stage."""
    true_macro_f1: Floats
    """[B]: mean F1 over the stages in the truth, whatever was predicted."""
    has_stages: npt.NDArray[np.bool_]
    """[B]: somebody was drawn for each stage that somebody has."""


def resampled_values(counts: npt.NDArray[np.integer[Any]], *, resamples: int, seed: int) -> Resampled:
    """Metrics of counts [R, P, 5, 5] in resamples of people."""
    somebody = with_stages(counts) > 0
    # As many resamples at once as the processor's cache holds.
    at_once = max(50, _CACHED // (len(counts) * 3 * N_STAGES))
    parts = []
    for pooled in _margins_in_parts(counts, resamples, seed, at_once=at_once):
        of_part = pooled_values(pooled)
        every_stage = bool((pooled.true > 0).all())
        true_f1 = of_part["macro_f1"] if every_stage else true_macro_f1(pooled)
        parts.append((of_part, true_f1, (pooled.true.sum(0)[somebody] > 0).all(0)))
    values, scores, there = zip(*parts, strict=True)
    return Resampled(
        values={name: np.concatenate([part[name] for part in values], axis=-1) for name in values[0]},
        true_macro_f1=np.concatenate(scores),
        has_stages=np.concatenate(there),
    )


def true_macro_f1(pooled: Margins) -> Floats:
    """Mean F1 over the stages in the truth [B], averaged over the replicates."""
    scores = f1_of(pooled)
    absent = pooled.true == 0
    return nan_mean(nan_mean(np.where(absent, np.nan, scores) if absent.any() else scores, axis=-2))


def with_stages(counts: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.integer[Any]]:
    """How many people have each stage in their expert hypnograms [5], of counts [R, P, 5, 5]."""
    return np.asarray((margins(counts).true.sum(0) > 0).sum(0))


def pooled_scores(
    counts: npt.NDArray[np.int64], *, resamples: int = 2000, seed: int = 0, drawn: Resampled | None = None
) -> PooledScores:
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
        drawn: ``resampled_values`` of the same, where they are known already.
    """
    people = counts.shape[1]
    point = {name: value[..., 0] for name, value in pooled_values(pooled_margins(counts)).items()}
    bounds = {name: np.full((2, *value.shape), np.nan) for name, value in point.items()}
    if people >= 2:
        drawn = drawn or resampled_values(counts, resamples=resamples, seed=seed)
        with_stage = with_stages(counts)
        values = dict(drawn.values)
        for name, value in drawn.values.items():
            if name in PER_STAGE and (with_stage < 2).any():
                values[name] = np.where((with_stage < 2)[:, None], np.nan, value)
            elif name.startswith("macro_"):
                out = ~drawn.has_stages if (with_stage != 1).all() else np.ones(len(value), dtype=np.bool_)
                values[name] = np.where(out, np.nan, value)
        stacked = np.concatenate([np.atleast_2d(value) for value in values.values()])
        found = percentile_interval(stacked.T)
        for name, place in _places(values).items():
            bounds[name] = found[:, place].reshape(2, *point[name].shape)

    def estimate(name: str, *stage: int) -> Estimate:
        low, high = (float(bound[stage]) for bound in bounds[name])
        return Estimate(value=float(point[name][stage]), low=low, high=high)

    return PooledScores(
        overall={name: estimate(name) for name in OVERALL},
        stages={name: tuple(estimate(name, stage) for stage in range(N_STAGES)) for name in PER_STAGE},
    )


def _places(values: Mapping[str, Floats]) -> dict[str, slice]:
    """Where each metric stands when they are stacked."""
    places, start = {}, 0
    for name, value in values.items():
        length = 1 if value.ndim == 1 else len(value)
        places[name] = slice(start, start + length)
        start += length
    return places


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
    p, exact, patterns = _extreme_shares(values[None], flips=flips, seed=seed)
    return SignFlip(p=float(p[0]), exact=exact, patterns=patterns)


def sign_flip_tests(differences: Sequence[Floats], *, flips: int = FLIPS, seed: int = 0) -> list[SignFlip]:
    """:func:`sign_flip_test` of many lists of differences; those of equally many people share their sign patterns."""
    found: list[SignFlip | None] = [None] * len(differences)
    alike: dict[int, list[int]] = {}
    for place, values in enumerate(differences):
        alike.setdefault(len(values), []).append(place)
    for people, places in alike.items():
        table = np.array([differences[place] for place in places], dtype=np.float64)
        if people == 0 or not np.isfinite(table).all():
            shares, exact, patterns = [sign_flip_test(row).p for row in table], True, 0
        else:
            p, exact, patterns = _extreme_shares(table, flips=flips, seed=seed)
            shares = p.tolist()
        for place, share in zip(places, shares, strict=True):
            found[place] = SignFlip(p=share, exact=exact, patterns=patterns)
    return [test for test in found if test is not None]


def _extreme_shares(table: Floats, *, flips: int, seed: int) -> tuple[Floats, bool, int]:
    """p of each row of differences [M, P], whether all patterns were enumerated, and how many patterns there were."""
    people = table.shape[1]
    # Sums of the same numbers in another order differ in their last bits; ties must still count as ties.
    absolute = np.abs(table).sum(1)
    thresholds = np.abs(table.sum(1)) - 1e-10 * absolute
    if people <= EXACT_PEOPLE:
        patterns = 2**people
        every = ((np.arange(patterns)[:, None] >> np.arange(people)) & 1).astype(np.int8)
        return _as_extreme(every, table, thresholds, absolute) / patterns, True, patterns
    parts = (_as_extreme(minus, table, thresholds, absolute) for minus in _drawn_signs(people, flips, seed))
    return (np.sum(list(parts), axis=0) + 1) / (flips + 1), False, flips


def _as_extreme(minus: npt.NDArray[np.integer[Any]], table: Floats, thresholds: Floats, absolute: Floats) -> Floats:
    """How many sign patterns [n, P] (1 for a minus, 0 for a plus) make the sum of each row [M, P] at least as large as
    its threshold, either way.

    Sums are made in float32, and once more in float64 where float32 could have decided otherwise.
    """
    people = table.shape[1]
    columns = np.ascontiguousarray(table.T, dtype=np.float32)
    # Twice the bound of a sum of so many rounded terms (N. J. Higham, Accuracy and Stability, 2002, section 3.1).
    doubt = 2 * (people + 2) * float(np.finfo(np.float32).eps) * absolute
    found = np.zeros(len(table))
    at_once = max(16, _CACHED // people)  # as many as the processor's cache holds
    for start in range(0, len(minus), at_once):
        some = minus[start : start + at_once]
        signs = some.astype(np.float32)
        signs *= -2
        signs += 1
        sums = signs @ columns
        np.abs(sums, out=sums)
        extreme = sums >= thresholds
        unsure = np.abs(sums - thresholds) <= doubt
        for place in np.flatnonzero(unsure.any(0)):
            those = np.flatnonzero(unsure[:, place])
            again = np.abs(signs[those].astype(np.float64) @ table[place])
            extreme[those, place] = again >= thresholds[place]
        found += extreme.sum(0)
    return found


def _drawn_signs(people: int, flips: int, seed: int) -> Iterator[npt.NDArray[np.integer[Any]]]:
    """Sign patterns [n, people], 1 for a minus, ``flips`` in all, in parts of at most 10 million signs."""
    if people * flips <= 10_000_000:
        yield _few_signs(people, flips, seed)
        return
    generator, part = np.random.default_rng(seed), max(1, 10_000_000 // people)
    for start in range(0, flips, part):
        yield generator.integers(0, 2, size=(min(part, flips - start), people), dtype=np.int8)


@_drawn_once(4)
def _few_signs(people: int, flips: int, seed: int) -> npt.NDArray[np.uint8]:
    """The same patterns serve all contrasts and stages of a board; read-only.

    They are ``default_rng(seed).integers(0, 2, size=(flips, people), dtype=np.int8)`` (a test compares), which takes
    the highest bit of one byte after another, but made of whole words.
    """
    number = flips * people
    words = np.random.PCG64(seed).random_raw((number + 7) // 8).astype("<u8", copy=False)
    signs = np.right_shift(words.view(np.uint8)[:number], 7, dtype=np.uint8)
    signs.flags.writeable = False
    return signs.reshape(flips, people)


def paired_interval(differences: npt.ArrayLike, *, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Mean of one difference per person with its percentile interval from a bootstrap over people.

    Both arms are resampled together, since the difference is taken first. No interval with fewer than two
    people.
    """
    return paired_intervals([np.asarray(differences, dtype=np.float64)], resamples=resamples, seed=seed)[0]


def paired_intervals(differences: Sequence[Floats], *, resamples: int = 2000, seed: int = 0) -> list[Estimate]:
    """:func:`paired_interval` of many lists of differences."""
    several = [place for place, values in enumerate(differences) if values.size > 1]
    bounds = np.full((2, len(differences)), np.nan)
    if several:
        means = _resampled_means([differences[place] for place in several], resamples, seed)
        bounds[:, several] = percentile_interval(means.T)
    return [
        Estimate(value=float(values.mean()) if values.size else float("nan"), low=float(low), high=float(high))
        for values, low, high in zip(differences, *bounds, strict=True)
    ]


def _resampled_means(lists: Sequence[Floats], resamples: int, seed: int) -> Floats:
    """Mean of each list in every resample of its people, [lists, resamples]."""
    found = np.empty((len(lists), resamples))
    alike: dict[int, list[int]] = {}
    for place, values in enumerate(lists):
        alike.setdefault(values.size, []).append(place)
    for people, places in alike.items():
        weights = shared_weights(people, resamples, seed)
        # As many resamples at once as the processor's cache holds, for all lists of so many people. In eights, so that
        # each product is made as it would be with all resamples at once, to the last digit.
        at_once = max(8, _CACHED // people // 8 * 8)
        for start in range(0, resamples, at_once):
            some = weights[start : start + at_once].astype(np.float64)
            for place in places:
                found[place, start : start + at_once] = some @ lists[place] / people
    return found


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
