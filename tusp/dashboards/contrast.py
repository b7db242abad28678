"""Contrasts between arms: paired by person, tested by sign flips, corrected by Holm, effects before p-values.

A person's score in an arm is the F1 of each stage from their pooled counts (all their nights), averaged over
the replicates (seeds) that both sides of the contrast have. Their macro-F1 is the mean over *the stages in
their own expert hypnograms*: the same stages in every arm, always defined, whatever either arm predicted. A
stage they never had but an arm predicted still costs that arm recall in the stages they did have; giving it
an F1 of 0 in one arm while it has none in the other would compare means over different stages.

The effect is the mean over people of the difference of these scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from tusp.dashboards.judged import Judged, person_f1
from tusp.platform.scoring.counts import Counts
from tusp.platform.scoring.evidence import FoldTest, nadeau_bengio
from tusp.platform.scoring.metrics import Floats
from tusp.platform.scoring.statistics import (
    Estimate,
    SignFlip,
    holm,
    nan_mean,
    paired_intervals,
    percentile_interval,
    pooled_margins,
    resampled_values,
    sign_flip_tests,
    true_macro_f1,
    with_stages,
)
from tusp.platform.stages import STAGE_NAMES

ALPHA = 0.05


@dataclass(frozen=True, kw_only=True)
class ContrastSpec:
    """A linear combination of arms: ``{"full": 1, "no-csja": -1}``."""

    name: str
    kind: str
    """``pair``, ``main effect`` or ``interaction``."""

    weights: Mapping[str, float]
    better: str
    """How a reader calls it when the effect is positive."""

    worse: str
    """And when it is negative."""


@dataclass(frozen=True, kw_only=True)
class Folds:
    """Who is tested in which fold."""

    of_person: Mapping[str, int]
    test_share: float
    """People (or recordings) tested over trained, of a fold."""


@dataclass(frozen=True, kw_only=True)
class StageContrast:
    """The contrast in F1 of one stage, over the people who have it."""

    stage: str
    effect: Estimate
    p: float
    p_holm: float
    """Adjusted over all contrasts x stages of the board."""

    people: int


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """One contrast with everything one says about it."""

    name: str
    kind: str
    weights: Mapping[str, float]
    effect: Estimate
    """Mean over people of the difference in macro-F1, with the paired bootstrap interval."""

    p: float
    p_holm: float
    """Adjusted over the contrasts of the board."""

    exact: bool
    """All sign patterns were enumerated."""

    people: int
    """People judged in every arm of the contrast."""

    left_out: tuple[str, ...]
    """People judged in some but not all of its arms."""

    improved: int
    worsened: int
    """People with a positive and with a negative difference."""

    pooled: Estimate
    """The same combination of pooled macro-F1 over the same people."""

    stages: tuple[StageContrast, ...]
    verdict: str

    variance: float = float("nan")
    """Of the mean effect, from people: squared SD over their number."""

    folds: FoldTest | None = None
    """Nadeau and Bengio's corrected t-test over folds, a sensitivity line; None with fewer than two folds, and where
    every fold judges the same people."""

    parameters: int | None = None
    """The same combination of the arms' parameters: what the effect costs."""

    training_seconds: float = float("nan")
    """The same combination of the arms' mean training time of a cell; NaN where their cells ran on different
    devices."""

    macs_per_epoch: float = float("nan")
    """The same combination of the arms' multiply-accumulates of one 30-s epoch; NaN where an arm has none."""

    inference_epochs_per_second: float = float("nan")
    """The same combination of the arms' median inference rate; NaN where their cells ran on different devices."""


def specify(arms: Mapping[str, Mapping[str, object]]) -> list[ContrastSpec]:
    """The contrasts of an ablation: every arm against the first, and for a 2 x 2 its main effects and
    interaction.

    Args:
        arms: arm to its configuration, the reference first. A 2 x 2 is recognised from the configurations:
            four arms whose settings vary in exactly two crossed groups.
    """
    names = list(arms)
    if not names:
        return []
    reference = names[0]
    pairs = [
        ContrastSpec(
            name=f"{reference} − {other}",
            kind="pair",
            weights={reference: 1.0, other: -1.0},
            better=f"{reference} is better",
            worse=f"{other} is better",
        )
        for other in names[1:]
    ]
    return pairs + _factorial(arms, reference)


def _factorial(arms: Mapping[str, Mapping[str, object]], reference: str) -> list[ContrastSpec]:
    if len(arms) != 4:
        return []
    factors: dict[frozenset[str], list[str]] = {}
    for setting in sorted({key for config in arms.values() for key in config}):
        like_reference = frozenset(
            arm for arm, config in arms.items() if config.get(setting) == arms[reference].get(setting)
        )
        others = {repr(config.get(setting)) for arm, config in arms.items() if arm not in like_reference}
        if len(like_reference) == 2 and len(others) == 1:
            factors.setdefault(like_reference, []).append(setting)
    if len(factors) != 2:
        return []
    (first, first_settings), (second, second_settings) = factors.items()
    names = _factor_name(first_settings), _factor_name(second_settings)
    signs = [{arm: 1.0 if arm in with_it else -1.0 for arm in arms} for with_it in (first, second)]
    specs = [
        ContrastSpec(
            name=f"{name} (main effect)",
            kind="main effect",
            weights={arm: value / 2 for arm, value in sign.items()},
            better=f"better with {name}",
            worse=f"better without {name}",
        )
        for name, sign in zip(names, signs, strict=True)
    ]
    interaction = ContrastSpec(
        name=f"{names[0]} × {names[1]}",
        kind="interaction",
        weights={arm: signs[0][arm] * signs[1][arm] for arm in arms},
        better="more together than the sum",
        worse="less together than the sum",
    )
    return [*specs, interaction]


def _factor_name(settings: Sequence[str]) -> str:
    """What the settings of one factor have in common: ``se`` for ``se_bottom, se_classifier``."""
    common = settings[0]
    for _, other in pairwise(settings):
        parts = zip(common.split("_"), other.split("_"), strict=False)
        shared = []
        for ours, theirs in parts:
            if ours != theirs:
                break
            shared.append(ours)
        common = "_".join(shared) or common
    return {"csja": "CSJA", "se": "SE"}.get(common, common)


def contrasts(
    specs: Sequence[ContrastSpec],
    arms: Mapping[str, Judged],
    *,
    folds: Folds | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> list[Contrast]:
    """Evaluate contrasts and correct them together.

    Holm's families are: the macro-F1 of all contrasts of this board; and, apart from it, all contrasts x
    stages. A contrast with an arm that has no results yet is left out (the report names the hole).

    Args:
        specs: what to evaluate.
        arms: counts by arm.
        folds: who is tested in which fold, for the sensitivity line; None where folds do not divide the people.
        resamples: of the bootstrap.
        seed: of the bootstrap and of drawn sign flips.
    """
    known = [spec for spec in specs if set(spec.weights) <= set(arms)]
    pairings = [found for spec in known if (found := _pairing(spec, arms)) is not None]
    differences = [values for pairing in pairings for values in (pairing.differences, *pairing.of_stages)]
    tests = iter(sign_flip_tests(differences, seed=seed))
    effects = iter(paired_intervals(differences, resamples=resamples, seed=seed))
    evaluated = [
        _evaluate(pairing, tests, effects, folds=folds, resamples=resamples, seed=seed) for pairing in pairings
    ]
    adjusted = holm([contrast.p for contrast in evaluated])
    flat = iter(holm([stage.p for contrast in evaluated for stage in contrast.stages]))
    return [
        replace(
            contrast,
            p_holm=p_holm,
            stages=tuple(replace(stage, p_holm=next(flat)) for stage in contrast.stages),
            verdict=_verdict(pairing.spec, contrast, p_holm),
        )
        for pairing, contrast, p_holm in zip(pairings, evaluated, adjusted, strict=True)
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pairing:
    """The sides of a contrast over the people that all of them judged."""

    spec: ContrastSpec
    sides: Sequence[Judged]
    people: tuple[str, ...]
    left_out: tuple[str, ...]
    counts: Sequence[Counts]
    """Of each side [R, P, 5, 5]."""
    differences: Floats
    """Of each person [P], in macro-F1."""
    of_stages: Sequence[Floats]
    """Of the people who have each stage, in its F1."""


def _pairing(spec: ContrastSpec, arms: Mapping[str, Judged]) -> _Pairing | None:
    sides = [arms[arm] for arm in spec.weights]
    everybody = set().union(*(side.people for side in sides))
    common = tuple(sorted(everybody.intersection(*(side.people for side in sides))))
    replicates = tuple(r for r in sides[0].replicates if all(r in side.replicates for side in sides[1:]))
    if not common or not replicates:
        return None
    parts = [side.part(common, replicates) for side in sides]
    both = np.logical_and.reduce([present for _, present in parts])
    judged = both.any(0)
    people = tuple(person for person, kept in zip(common, judged, strict=True) if kept)
    if not people:
        return None
    counts = [matrix for matrix, _ in parts]
    if not both.all():
        counts = [np.where(both[..., None, None], matrix, 0)[:, judged] for matrix in counts]
    each = [
        side.person_f1 if matrix is side.by_person else person_f1(matrix)
        for side, matrix in zip(sides, counts, strict=True)
    ]
    per_stage = sum(weight * values for weight, values in zip(spec.weights.values(), each, strict=True))
    assert isinstance(per_stage, np.ndarray)
    return _Pairing(
        spec=spec,
        sides=sides,
        people=people,
        left_out=tuple(sorted(everybody - set(people))),
        counts=counts,
        differences=nan_mean(per_stage, axis=-1),
        of_stages=[values[~np.isnan(values)] for values in per_stage.T],
    )


def _evaluate(
    pairing: _Pairing,
    tests: Iterator[SignFlip],
    effects: Iterator[Estimate],
    *,
    folds: Folds | None,
    resamples: int,
    seed: int,
) -> Contrast:
    """One contrast; of ``tests`` and ``effects`` it takes its own and those of its stages."""
    spec, people, differences = pairing.spec, pairing.people, pairing.differences
    effect, test = next(effects), next(tests)
    stages = [
        StageContrast(stage=stage, effect=next(effects), p=next(tests).p, p_holm=float("nan"), people=having.size)
        for stage, having in zip(STAGE_NAMES, pairing.of_stages, strict=True)
    ]
    return Contrast(
        name=spec.name,
        kind=spec.kind,
        weights=spec.weights,
        effect=effect,
        p=test.p,
        p_holm=float("nan"),
        exact=test.exact,
        people=len(people),
        left_out=pairing.left_out,
        improved=int((differences > 0).sum()),
        worsened=int((differences < 0).sum()),
        pooled=_pooled(pairing, resamples=resamples, seed=seed),
        stages=tuple(stages),
        verdict="",
        variance=float(differences.var(ddof=1)) / len(people) if len(people) > 1 else float("nan"),
        folds=_over_folds(differences, people, folds),
    )


def _over_folds(differences: Floats, people: Sequence[str], folds: Folds | None) -> FoldTest | None:
    """The corrected t-test of the mean difference of each fold's people."""
    if folds is None:
        return None
    numbers = np.array([folds.of_person[person] for person in people])
    each = [float(differences[numbers == number].mean()) for number in sorted(set(numbers.tolist()))]
    return nadeau_bengio(each, test_share=folds.test_share) if len(each) > 1 else None


def _pooled(pairing: _Pairing, *, resamples: int, seed: int) -> Estimate:
    """The combination of pooled macro-F1; no interval where a macro mean has none (see ``pooled_scores``)."""
    counts = pairing.counts

    def combined(values: Iterable[Floats]) -> Floats:
        return np.asarray(
            sum(weight * value for weight, value in zip(pairing.spec.weights.values(), values, strict=True))
        )

    value = float(combined(true_macro_f1(pooled_margins(one)) for one in counts)[0])
    if counts[0].shape[1] < 2 or (with_stages(counts[0]) == 1).any():
        return Estimate(value=value)
    drawn = [
        side.resampled(resamples=resamples, seed=seed)
        if one is side.by_person
        else resampled_values(one, resamples=resamples, seed=seed)
        for side, one in zip(pairing.sides, counts, strict=True)
    ]
    values = combined(one.true_macro_f1 for one in drawn)
    values[~drawn[0].has_stages] = np.nan
    low, high = percentile_interval(values)
    return Estimate(value=value, low=float(low), high=float(high))


def _verdict(spec: ContrastSpec, contrast: Contrast, p_holm: float) -> str:
    if p_holm <= ALPHA:
        return spec.better if contrast.effect.value > 0 else spec.worse
    undecided = "no interaction shown" if spec.kind == "interaction" else "not distinguishable"
    smallest = 2.0 ** (1 - contrast.people)
    if smallest > ALPHA:
        return f"{undecided} ({_people(contrast.people)} cannot give p below {smallest:.3g})"
    return undecided


def _people(n: int) -> str:
    return "1 person" if n == 1 else f"{n} people"
