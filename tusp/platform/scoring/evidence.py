"""What else there is to say about a difference: sensitivity to folds, seeds, ranks, and corpora taken together.

Everything here stands beside the paired test over people (:mod:`tusp.platform.scoring.statistics`), never in its place.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from types import ModuleType
from typing import Final

import numpy as np
import numpy.typing as npt

from tusp.platform.scoring.metrics import Floats
from tusp.platform.scoring.statistics import CONFIDENCE, Estimate, holm, percentile_interval, sign_flip_tests


@dataclass(frozen=True, kw_only=True)
class FoldTest:
    """The corrected resampled t-test over folds: a sensitivity line."""

    mean: float
    t: float
    p: float
    folds: int


def nadeau_bengio(differences: npt.ArrayLike, *, test_share: float) -> FoldTest:
    """Corrected resampled t-test of one difference per fold.

    ``t = mean / sqrt((1 / k + n_test / n_train) * variance)`` with k - 1 degrees of freedom (C. Nadeau and Y. Bengio,
    Machine Learning 52, 239-281, 2003): the folds share training data, so a plain t-test finds too much.

    Args:
        differences: one a fold; NaN ones are left out.
        test_share: tested over trained people, ``n_test / n_train``.

    Returns:
        NaN with fewer than two folds, or where the differences do not vary.
    """
    special = _special()
    values = np.asarray(differences, np.float64)
    values = values[~np.isnan(values)]
    mean = float(values.mean()) if values.size else float("nan")
    variance = float(values.var(ddof=1)) if values.size > 1 else float("nan")
    if not variance > 0:
        return FoldTest(mean=mean, t=float("nan"), p=float("nan"), folds=values.size)
    t = mean / math.sqrt((1 / values.size + test_share) * variance)
    return FoldTest(mean=mean, t=t, p=float(2 * special.stdtr(values.size - 1, -abs(t))), folds=values.size)


def _special() -> ModuleType:
    """``scipy.special``; of SciPy only this, since ``scipy.stats`` takes longer to import than a whole report.

    Half of its own time goes into ``numpy.f2py``, which it names and never uses, so that is imported when somebody
    does.
    """
    if "scipy.special" not in sys.modules and "numpy.f2py" not in sys.modules:
        spec = importlib.util.find_spec("numpy.f2py")
        if spec is not None and spec.loader is not None:
            spec.loader = importlib.util.LazyLoader(spec.loader)
            module = importlib.util.module_from_spec(spec)
            sys.modules["numpy.f2py"] = np.f2py = module
            spec.loader.exec_module(module)
    return importlib.import_module("scipy.special")


@dataclass(frozen=True, kw_only=True)
class VarianceComponents:
    """Standard deviations of a score between people, between seeds, and of the rest."""

    people: float
    seeds: float
    rest: float
    n_people: int
    n_seeds: int


def variance_components(scores: npt.ArrayLike) -> VarianceComponents:
    """Two-way random effects without replication: ``score = mean + person + seed + rest``.

    Method of moments (S. R. Searle, G. Casella and C. E. McCulloch, Variance Components, 1992, section 4.3):
    mean squares of rows, columns and rest give the components; a negative estimate is 0.

    Args:
        scores: [people, seeds] one score a person and seed; people with a NaN are left out.

    Returns:
        NaN with fewer than two people or seeds.
    """
    values = np.asarray(scores, np.float64)
    values = values[~np.isnan(values).any(axis=1)]
    people, seeds = values.shape
    if people < 2 or seeds < 2:
        nan = float("nan")
        return VarianceComponents(people=nan, seeds=nan, rest=nan, n_people=people, n_seeds=seeds)
    by_person, by_seed, mean = values.mean(1), values.mean(0), values.mean()
    rest = values - by_person[:, None] - by_seed + mean
    ms_people = seeds * float(((by_person - mean) ** 2).sum()) / (people - 1)
    ms_seeds = people * float(((by_seed - mean) ** 2).sum()) / (seeds - 1)
    ms_rest = float((rest**2).sum()) / ((people - 1) * (seeds - 1))
    return VarianceComponents(
        people=math.sqrt(max(0.0, (ms_people - ms_rest) / seeds)),
        seeds=math.sqrt(max(0.0, (ms_seeds - ms_rest) / people)),
        rest=math.sqrt(ms_rest),
        n_people=people,
        n_seeds=seeds,
    )


def rank_intervals(scores: Mapping[str, Floats]) -> dict[str, Estimate]:
    """Rank of each arm (1 is best; ties share their mean) with a percentile interval over resamples.

    Args:
        scores: arm to [1 + resamples] scores, the observed one first; all arms over the same people and resamples.
    """
    found = {}
    for name, row in zip(scores, ranks(np.stack(list(scores.values()))), strict=True):
        low, high = percentile_interval(row[1:]) if row.size > 1 else (float("nan"), float("nan"))
        found[name] = Estimate(value=float(row[0]), low=float(low), high=float(high))
    return found


def ranks(scores: Floats) -> Floats:
    """Ranks along the first axis, 1 the highest score; ties share their mean, NaN has no rank and counts for none.

    As ``scipy.stats.rankdata`` of the negative scores.
    """
    found = np.empty(scores.shape)
    for place, own in enumerate(scores):
        better, equal = (scores > own).sum(0), (scores == own).sum(0)
        found[place] = np.where(np.isnan(own), np.nan, better + (equal + 1) / 2)
    return found


@dataclass(frozen=True, kw_only=True)
class PairTest:
    """One pair of a family of paired tests."""

    first: str
    second: str
    effect: float
    p: float
    p_holm: float
    people: int


def all_pairs(scores: Mapping[str, Floats], *, seed: int = 0) -> list[PairTest]:
    """Every pair of arms by the paired sign-flip test over people, adjusted by Holm over all pairs.

    Args:
        scores: arm to [people] scores, the same people in the same order; people with a NaN in either are left out.
    """
    names = list(combinations(scores, 2))
    differences = [scores[first] - scores[second] for first, second in names]
    differences = [values[~np.isnan(values)] for values in differences]
    tests = [
        (first, second, float(values.mean()) if values.size else float("nan"), test.p, values.size)
        for (first, second), values, test in zip(
            names, differences, sign_flip_tests(differences, seed=seed), strict=True
        )
    ]
    adjusted = holm([p for *_, p, _ in tests])
    return [
        PairTest(first=first, second=second, effect=effect, p=p, p_holm=p_holm, people=people)
        for (first, second, effect, p, people), p_holm in zip(tests, adjusted, strict=True)
    ]


def groups_not_distinguished(order: Sequence[str], pairs: Sequence[PairTest], *, alpha: float) -> list[tuple[str, ...]]:
    """Maximal runs of arms, best first, in which no pair is told apart at ``alpha`` after Holm.

    As in a critical-difference diagram; a run of one arm that no other run holds stands alone.

    Args:
        order: arms from best to worst.
        pairs: tests of all pairs.
    """
    apart = {frozenset((pair.first, pair.second)) for pair in pairs if pair.p_holm <= alpha}
    runs: list[tuple[int, int]] = []
    for start in range(len(order)):
        stop = start + 1
        while stop < len(order) and all(frozenset((order[stop], other)) not in apart for other in order[start:stop]):
            stop += 1
        if not runs or stop > runs[-1][1]:
            runs.append((start, stop))
    return [tuple(order[start:stop]) for start, stop in runs]


@dataclass(frozen=True, kw_only=True)
class Combined:
    """Effects of several corpora taken together by a random-effects model."""

    effect: Estimate
    """Mean effect over corpora like these, with a Hartung-Knapp interval."""
    prediction: Estimate
    """Where the effect of one more corpus would be expected to lie."""
    tau: float
    """Standard deviation of the effect between corpora."""
    i_squared: float
    """Share of the variation that is not due to sampling people, 0 to 1."""
    corpora: int


def combine_corpora(effects: Sequence[float], variances: Sequence[float]) -> Combined:
    """Random-effects summary of one effect a corpus.

    Between-corpora variance by Paule and Mandel (J. Res. Natl. Bur. Stand. 87, 377-385, 1982), interval by Hartung and
    Knapp (Statistics in Medicine 20, 3875-3889, 2001), but never narrower than without their scaling: few corpora that
    happen to agree would else look certain (G. Knapp and J. Hartung, Statistics in Medicine 22, 2693-2710, 2003).
    Prediction interval with k - 2 degrees of freedom (J. P. T. Higgins et al., J. R. Statist. Soc. A 172, 137-159,
    2009). Mean, variance and spread are those of statsmodels' ``combine_effects`` to the last digit (a test compares
    them), written out because importing it takes a second that every report would wait for.

    Args:
        effects: one a corpus; variances: of each, from people.

    Returns:
        NaN with fewer than two corpora; no prediction interval with fewer than three.
    """
    special = _special()
    nan = float("nan")
    nothing = Estimate(value=nan)
    pairs = [(e, v) for e, v in zip(effects, variances, strict=True) if not math.isnan(e) and v > 0]
    if len(pairs) < 2:
        return Combined(effect=nothing, prediction=nothing, tau=nan, i_squared=nan, corpora=len(pairs))
    effect, variance = (np.array(column) for column in zip(*pairs, strict=True))
    tau2 = _paule_mandel(effect, variance)
    weights = 1 / (variance + tau2)
    shares = weights / weights.sum()
    mean = float((shares * effect).sum())
    sampling = 1 / weights.sum()
    scaled = (shares * (effect - mean) ** 2).sum() / (len(pairs) - 1)
    spread = math.sqrt(max(scaled, sampling))
    half = float(special.stdtrit(len(pairs) - 1, 0.5 + CONFIDENCE / 2)) * spread
    prediction = Estimate(value=mean)
    if len(pairs) >= 3:
        reach = float(special.stdtrit(len(pairs) - 2, 0.5 + CONFIDENCE / 2)) * math.sqrt(tau2 + sampling)
        prediction = Estimate(value=mean, low=mean - reach, high=mean + reach)
    return Combined(
        effect=Estimate(value=mean, low=mean - half, high=mean + half),
        prediction=prediction,
        tau=math.sqrt(tau2),
        i_squared=_i_squared(effect, variance),
        corpora=len(pairs),
    )


def _paule_mandel(effect: Floats, variance: Floats) -> float:
    """Variance between corpora, by the iteration of R. DerSimonian and R. Kacker (Contemporary Clinical Trials 28,
    105-114, 2007, appendix 8), with the tolerance of statsmodels."""
    tau2 = 0.0
    for _ in range(50):
        weights = 1 / (variance + tau2)
        squares = (effect - weights.dot(effect) / weights.sum()) ** 2
        excess = float(weights.dot(squares)) - (len(effect) - 1)
        if excess < 0:
            return 0.0
        if excess <= 1e-5:
            break
        tau2 += excess / float((weights**2).dot(squares))
    return tau2


def _i_squared(effect: Floats, variance: Floats) -> float:
    """Share of Cochran's Q that is above its degrees of freedom; 0 where there is none."""
    weights = 1 / variance
    q = float((weights * effect**2).sum() - (weights * effect).sum() ** 2 / weights.sum())
    return max(0.0, 1 - 1 / (q / (len(effect) - 1))) if q > 0 else 0.0


_STUDENTIZED_RANGE: Final = (
    2.771807648699355, 3.314493155398122, 3.6331595749026278, 3.857655510378623, 4.030092053180576,
    4.169554155006547, 4.286309409349043, 4.38650911549537, 4.474124221725907, 4.551863584065974,
    4.621655471868518, 4.684919847313499, 4.7427317076846975, 4.795923860431186, 4.845154183957343,
    4.890951125576789, 4.933745358126922, 4.973892348748306, 5.0116887941184425, 5.0473848150087655,
    5.081193155799909, 5.1132962282719765, 5.143851577247147, 5.17299617312959, 5.200849820280358,
    5.227517890554401, 5.25309353580552, 5.27765949383823, 5.30128957403117, 5.324049888290209,
)  # fmt: skip
"""Quantiles at .95 of the studentized range of k = 2, 3, ... means with infinitely many degrees of freedom, as
``scipy.stats.studentized_range.ppf`` gives them (a test compares)."""


def critical_difference(arms: int, corpora: int, *, alpha: float = 0.05) -> float:
    """Nemenyi's critical difference of mean ranks, ``q * sqrt(k (k + 1) / (6 n))`` with q the studentized range over
    sqrt 2 (J. Demsar, JMLR 7, 1-30, 2006). Descriptive here: a handful of corpora cannot carry this test."""
    place = arms - 2
    if alpha == 0.05 and 0 <= place < len(_STUDENTIZED_RANGE):
        quantile = _STUDENTIZED_RANGE[place]
    else:
        from scipy import stats

        quantile = float(stats.studentized_range.ppf(1 - alpha, arms, np.inf))
    return quantile / math.sqrt(2) * math.sqrt(arms * (arms + 1) / (6 * corpora))
