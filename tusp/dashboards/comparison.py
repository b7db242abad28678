"""Rows of one board against each other: ranks with intervals, all pairs, groups that nothing tells apart, seeds.

Ranks and pairs are about the people judged in every ranked row, so that no arm gains from whom it was not judged on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tusp.dashboards.contrast import ALPHA, Folds
from tusp.dashboards.frames import ReportCell
from tusp.dashboards.judged import Judged, Part, person_f1, true_stage_f1
from tusp.platform.scoring.counts import Counts
from tusp.platform.scoring.evidence import (
    PairTest,
    VarianceComponents,
    all_pairs,
    groups_not_distinguished,
    rank_intervals,
    variance_components,
)
from tusp.platform.scoring.metrics import Floats, f1_of, macro
from tusp.platform.scoring.statistics import Estimate, nan_mean, pooled_margins, resampled_values


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What the ranked rows of a board are among each other."""

    people: int
    ranks: Mapping[str, Estimate]
    pairs: tuple[PairTest, ...]
    groups: tuple[tuple[str, ...], ...]


NOTHING_COMPARED = Comparison(people=0, ranks={}, pairs=(), groups=())


def compare(rows: Mapping[str, Judged], *, seeded: Collection[str], resamples: int, seed: int) -> Comparison:
    """Compare rows over the people judged in all of them.

    A rank is that of pooled macro-F1, each resample of people ranking all rows; a pair is the paired sign-flip test of
    macro-F1 per person, Holm over all pairs.

    Args:
        rows: counts of every ranked row.
        seeded: names of those that are arms: they are compared on the seeds that all of them have.
        resamples: of the bootstrap over people.
        seed: of the bootstrap and of drawn sign flips.

    Returns:
        Nothing where fewer than two rows share a person.
    """
    if len(rows) < 2:
        return NOTHING_COMPARED
    people, counts = _same_people(rows, seeded)
    if not people:
        return NOTHING_COMPARED
    ranks = rank_intervals(
        {name: _resampled_macro_f1(rows[name], each, resamples=resamples, seed=seed) for name, each in counts.items()}
    )
    of_people = {
        name: rows[name].person_f1 if each is rows[name].by_person else person_f1(each) for name, each in counts.items()
    }
    pairs = all_pairs({name: nan_mean(values, axis=-1) for name, values in of_people.items()}, seed=seed)
    order = sorted(rows, key=lambda name: (ranks[name].value, name))
    return Comparison(
        people=len(people),
        ranks=ranks,
        pairs=tuple(pairs),
        groups=tuple(groups_not_distinguished(order, pairs, alpha=ALPHA)),
    )


def seed_components(judged: Judged) -> VarianceComponents | None:
    """Macro-F1 per person taken apart into people, seeds and the rest; None with one seed.

    Where every fold judges everybody, the folds of a seed are averaged first.
    """
    seeds = sorted({replicate[0] for replicate in judged.replicates})
    if len(seeds) < 2:
        return None
    per_stage = np.where(judged.present[..., None], true_stage_f1(judged.by_person), np.nan)
    scores = nan_mean(per_stage, axis=-1)  # [R, P]
    of_seed = np.array([replicate[0] for replicate in judged.replicates])
    return variance_components(np.stack([nan_mean(scores[of_seed == seed]) for seed in seeds], axis=1))


def fold_plan(cells: Sequence[ReportCell], parts: Sequence[Part], corpus: str) -> Folds | None:
    """Who is tested in which fold, and how many for each one trained on; None with fewer than two folds.

    Args:
        cells: cells of the board.
        parts: their counts; every person must have one fold.
        corpus: corpus judged on.
    """
    of_person: dict[str, int] = {}
    for fold, nights in sorted({(part.fold, part.counted.nights) for part in parts}, key=lambda item: item[0]):
        of_person |= dict.fromkeys(nights.subjects, fold)
    folds = len(set(of_person.values()))
    if folds < 2:
        return None
    shares = [share for cell in cells if (share := cell.test_share(corpus)) is not None]
    # A plan that does not say whom it trains on: k folds that cover everyone.
    return Folds(of_person=of_person, test_share=float(np.mean(shares)) if shares else 1 / (folds - 1))


def same_nights(one: Judged, other: Judged) -> bool:
    """Both judge the same recordings and in each the same epochs of every stage."""
    return one.recordings == other.recordings and bool((_truth(one) == _truth(other)).all())


def _truth(judged: Judged) -> Counts:
    """Epochs of every true stage in each recording, [N, 5]."""
    return np.asarray(judged.by_recording.sum(-1).max(0), dtype=np.int64)


def _same_people(rows: Mapping[str, Judged], seeded: Collection[str]) -> tuple[tuple[str, ...], dict[str, Counts]]:
    """People judged in every row, and the counts [R, P, 5, 5] of each row over them.

    Of arms only what every arm judged counts, seed by seed; where they have no seed in common, each has its own.
    """
    everybody = tuple(sorted(set.intersection(*(set(judged.people) for judged in rows.values()))))
    if not everybody:
        return (), {}
    arms = [judged for name, judged in rows.items() if name in seeded]
    shared = tuple(r for r in arms[0].replicates if all(r in arm.replicates for arm in arms)) if arms else ()
    counts: dict[str, Counts] = {}
    present: dict[str, npt.NDArray[np.bool_]] = {}
    for name, judged in rows.items():
        replicates = shared if shared and name in seeded else judged.replicates
        counts[name], present[name] = judged.part(everybody, replicates)
    if shared:
        in_all = np.logical_and.reduce([there for name, there in present.items() if name in seeded])
        for name in set(present) & set(seeded):
            if not in_all.all():
                counts[name] = np.where(in_all[..., None, None], counts[name], 0)
            present[name] = in_all
    kept = np.logical_and.reduce([there.any(0) for there in present.values()])
    people = tuple(person for person, there in zip(everybody, kept, strict=True) if there)
    return people, counts if kept.all() else {name: matrix[:, kept] for name, matrix in counts.items()}


def _resampled_macro_f1(judged: Judged, counts: Counts, *, resamples: int, seed: int) -> Floats:
    """Pooled macro-F1 [1 + resamples] of a row over some people, the observed one first; the same resamples of people
    for every row."""
    observed = nan_mean(macro(f1_of(pooled_margins(counts)), axis=-2))
    if counts.shape[1] < 2:
        return observed
    if counts is judged.by_person:
        drawn = judged.resampled(resamples=resamples, seed=seed)
    else:
        drawn = resampled_values(counts, resamples=resamples, seed=seed)
    return np.concatenate([observed, drawn.values["macro_f1"]])
