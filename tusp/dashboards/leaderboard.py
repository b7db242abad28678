"""Leaderboards: one row per arm, every figure derived from stored counts, intervals over people, holes
named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from tusp.dashboards.comparison import Comparison, compare, fold_plan, seed_components
from tusp.dashboards.contrast import Contrast, ContrastSpec, contrasts, specify
from tusp.dashboards.costs import ArmCost, arm_cost, contrast_cost
from tusp.dashboards.entries import CeilingNote
from tusp.dashboards.frames import BoardKey, ReportCell, Selection, Variant
from tusp.dashboards.guests import guests, truth_of
from tusp.dashboards.judged import Judged, Part, folds_repeat, judge
from tusp.dashboards.published import PublishedRow, published_rows
from tusp.dashboards.rows import (
    BASELINE,
    NOTHING,
    Hole,
    Refused,
    Row,
    Spread,
    arm_row,
    baseline_row,
    or_worst,
)
from tusp.platform.scoring.evidence import PairTest
from tusp.platform.scoring.rules import RULES
from tusp.platform.stages import N_STAGES, STAGE_NAMES
from tusp.platform.store.packed import Counted
from tusp.platform.store.queries import planned_tests
from tusp.platform.store.session import Store

__all__ = [
    "BASELINE",
    "OUTSIDE",
    "Board",
    "Hole",
    "Refused",
    "Row",
    "Spread",
    "arm_labels",
    "make_board",
]

OUTSIDE: Final = "outside"
"""Experiment of boards that hold entries only."""


@dataclass(frozen=True, kw_only=True)
class Board:
    """One leaderboard with its contrasts and everything a reader must know about it."""

    key: BoardKey
    rule: str
    rows: tuple[Row, ...]
    """Arms and ranked imported submissions by pooled macro-F1, the best first; the baseline; then imported submissions
    that cannot be ranked, and human scorers."""

    contrasts: tuple[Contrast, ...]
    holes: tuple[Hole, ...]
    refused: tuple[Refused, ...]
    without_epochs: tuple[str, ...]
    """Recordings in which the rule judges nothing."""

    notes: tuple[str, ...]

    pairs: tuple[PairTest, ...] = ()
    """All pairs of ranked rows on the people judged in all of them, one Holm family."""

    groups: tuple[tuple[str, ...], ...] = ()
    """Names of ranked rows that no pair test tells apart, the best first."""

    compared_people: int = 0
    """People judged in every ranked row: ranks and pairs are about them."""

    split_seeds: tuple[int, ...] = ()
    """Seeds of the splits, where the submissions say; several only where they make the same split."""

    published: tuple[PublishedRow, ...] = ()
    """Published figures for the same corpus, pooled as ours, never ranked; none under other rules than ``RULES``."""

    ceiling: CeilingNote | None = None
    """What human experts reach on the same nights, where several scored them."""

    @property
    def title(self) -> str:
        """What the board is about, in one line; says whether the nights are simulated or real."""
        key = self.key
        if key.experiment == OUTSIDE:
            kind = "SIMULATED nights" if key.simulated else "real nights"
            return f"{key.judged_on} · {kind} · imported submissions and human scorers · rule {self.rule}"
        where = key.judged_on if key.judged_on == key.trained_on else f"{key.judged_on} (trained on {key.trained_on})"
        nights = "SIMULATED nights" if key.simulated else "real nights"
        return (
            f"{where} · {nights} · {key.experiment} · {key.protocol} protocol, {key.folds} folds · "
            f"recipe {key.recipe} · rule {self.rule}"
        )


def make_board(
    store: Store,
    key: BoardKey,
    cells: Sequence[ReportCell],
    selection: Selection,
    *,
    resamples: int,
    seed: int,
    home: Path | None,
) -> Board:
    """The leaderboard of some cells.

    Args:
        store: asked for the imported submissions and human scorers of the same nights, and for plans where something is
            missing. Whatever else is read here must be part of :func:`tusp.dashboards.kept_boards.board_hashes`.
        key: which board.
        cells: of the selection, those of this board.
        selection: their counts and submissions.
        resamples: of the bootstrap over people.
        seed: of the bootstrap and of drawn sign flips.
        home: TUSP_HOME, where hypnograms are kept, for other rules than ``RULES``.
    """
    labels = _labels(cells)
    counted = {
        cell.summary.id: selection.counts[place]
        for cell in cells
        if (place := (cell.summary.id, key.judged_on)) in selection.counts
    }
    parts: dict[str, list[Part]] = {}
    for cell in cells:
        if cell.summary.id in counted:
            part = Part(seed=cell.summary.seed, fold=cell.summary.fold, counted=counted[cell.summary.id])
            parts.setdefault(labels[cell.variant], []).append(part)
    parts = {arm: of_arm for arm, of_arm in parts.items() if any(part.counted.counts.any() for part in of_arm)}
    repeated = any(folds_repeat(of_arm) for of_arm in parts.values())
    judged = {arm: judge(of_arm, folds_repeat=repeated) for arm, of_arm in sorted(parts.items())}
    by_arm: dict[str, list[ReportCell]] = {}
    for cell in cells:
        by_arm.setdefault(labels[cell.variant], []).append(cell)
    arms = [arm_row(arm, of_arm, judged.get(arm), resamples=resamples, seed=seed) for arm, of_arm in by_arm.items()]
    baseline, baseline_notes = baseline_row(cells, counted, folds_repeat=repeated, resamples=resamples, seed=seed)
    everything = [part for of_arm in parts.values() for part in of_arm]
    folds = None if repeated else fold_plan(cells, everything, key.judged_on)
    results = {
        arm: [cell.summary.result for cell in of_arm if cell.summary.state == "done" and cell.summary.result]
        for arm, of_arm in by_arm.items()
    }
    costs = {arm: arm_cost(of_arm) for arm, of_arm in results.items() if of_arm}
    board_contrasts = [
        _with_cost(contrast, costs)
        for contrast in contrasts(
            _specs(cells, selection, labels, key.trained_on), judged, folds=folds, resamples=resamples, seed=seed
        )
    ]
    guest = guests(
        store,
        corpus=key.judged_on,
        simulated=key.simulated,
        rule=selection.rule,
        truth=truth_of(counted[name] for name in sorted(counted, reverse=True)),
        taken=[*by_arm, BASELINE],
        resamples=resamples,
        seed=seed,
        home=home,
    )
    compared = compare({**judged, **guest.judged}, seeded=judged, resamples=resamples, seed=seed)
    rows = [
        *(replace(row, variance=seed_components(judged[row.name])) if row.name in judged else row for row in arms),
        *guest.rows,
    ]
    corpora = {key.judged_on, *key.trained_on.split("+")}
    refused = {
        Refused(corpus=str(item["corpus"]), recording=str(item["recording"]), reason=str(item["reason"]))
        for submission in selection.submissions
        for item in submission.refused
        if item["corpus"] in corpora
    }
    return Board(
        key=key,
        rule=selection.rule,
        rows=tuple(in_order([ranked(row, compared) for row in rows], baseline)),
        contrasts=tuple(board_contrasts),
        holes=tuple(_holes(store, key, cells, labels, counted)),
        refused=tuple(sorted(refused, key=lambda item: (item.corpus, item.recording))),
        without_epochs=_without_epochs(counted.values()),
        notes=(*_notes(arms, judged, board_contrasts), *baseline_notes, *guest.notes),
        pairs=compared.pairs,
        groups=compared.groups,
        compared_people=compared.people,
        split_seeds=_split_seeds(cells, selection),
        published=published_rows(key.judged_on, key.simulated, selection.rule) if selection.rule in RULES else (),
        ceiling=guest.ceiling.note if guest.ceiling else None,
    )


def ranked(row: Row, compared: Comparison) -> Row:
    """A row with its rank among the compared ones."""
    if row.kind == "arm" and not row.people:
        return replace(row, unranked="no result yet")
    return replace(row, rank=compared.ranks.get(row.name, NOTHING))


def in_order(rows: Sequence[Row], baseline: Row | None) -> list[Row]:
    """Arms and ranked rows by pooled macro-F1, the baseline, then those that are not ranked."""

    def among(row: Row) -> bool:
        return row.kind == "arm" or row.unranked is None

    best = sorted(filter(among, rows), key=lambda row: (-or_worst(row.scores.overall["macro_f1"].value), row.name))
    return [*best, *([baseline] if baseline else []), *(row for row in rows if not among(row))]


def _with_cost(contrast: Contrast, costs: Mapping[str, ArmCost]) -> Contrast:
    """A contrast with what it costs: parameters, multiply-accumulates, training time of a cell, inference rate."""
    if not contrast.weights.keys() <= costs.keys():
        return contrast
    return replace(contrast, **contrast_cost(contrast.weights, costs))


def _split_seeds(cells: Sequence[ReportCell], selection: Selection) -> tuple[int, ...]:
    ids = {cell.summary.id for cell in cells}
    found = {
        submission.request.get("split_seed")
        for submission in selection.submissions
        if ids & selection.members[submission.id]
    }
    return tuple(sorted(seed for seed in found if isinstance(seed, int)))


def arm_labels(selection: Selection, key: BoardKey) -> dict[str, str]:
    """Ids of the cells of one board and the names that their arms have there."""
    cells = [cell for cell in selection.cells if key.judged_on in cell.judged_on and cell.key(key.judged_on) == key]
    labels = _labels(cells)
    return {cell.summary.id: labels[cell.variant] for cell in cells}


def _labels(cells: Sequence[ReportCell]) -> dict[Variant, str]:
    """Names of the arms; where one name stands for several settings, with the beginning of their hash."""
    variants = sorted({cell.variant for cell in cells})
    names = [name for name, _ in variants]
    return {(name, digest): name if names.count(name) == 1 else f"{name} {digest[:6]}" for name, digest in variants}


def _without_epochs(counted: Iterable[Counted]) -> tuple[str, ...]:
    """Recordings in which the rule judges nothing."""
    found: set[str] = set()
    for item in counted:
        empty = ~item.counts.any((1, 2))
        if empty.any():
            found.update(item.nights.recordings[place] for place in np.flatnonzero(empty).tolist())
    return tuple(sorted(found))


def _specs(
    cells: Sequence[ReportCell], selection: Selection, labels: Mapping[Variant, str], trained_on: str
) -> list[ContrastSpec]:
    """Contrasts within each submission (arms that were asked for together), each once."""
    found: dict[str, ContrastSpec] = {}
    for submission in selection.submissions:
        members = selection.members[submission.id]
        asked = {cell.variant[0]: cell for cell in cells if cell.summary.id in members}
        order = _reference_first(submission.request.get("arms", {}), set(asked), trained_on)
        configs = {labels[asked[arm].variant]: selection.models[asked[arm].summary.settings] for arm in order}
        for spec in specify(configs):
            found.setdefault(spec.name, spec)
    return list(found.values())


def _reference_first(requested: Mapping[str, Any], asked: set[str], trained_on: str) -> list[str]:
    """Arms in the order of the request, which may give them for each corpus; others follow, ``full``
    first."""
    by_corpus = requested.get(trained_on)
    if not set(requested) & asked and isinstance(by_corpus, Mapping):
        requested = by_corpus
    order = [arm for arm in requested if arm in asked]
    return order + sorted(asked - set(order), key=lambda arm: (arm != "full", arm))


def _holes(
    store: Store,
    key: BoardKey,
    cells: Sequence[ReportCell],
    labels: Mapping[Variant, str],
    counted: Mapping[str, Counted],
) -> list[Hole]:
    """Cells without a result, and done ones that lack a recording of their plan, which is read only for those."""
    missing: dict[str, list[str]] = {}
    for cell in cells:
        summary, planned = cell.summary, cell.test_names_hash(key.judged_on)
        there = counted.get(summary.id)
        if summary.state == "done" and planned not in (None, there.nights.names_hash if there else ""):
            tested = planned_tests(store, [summary.id], key.judged_on)[summary.id]
            lacking = sorted(tested.difference(there.nights.recordings if there else ()))
            if lacking:
                missing[summary.id] = lacking
    holes = [
        Hole(
            arm=labels[cell.variant],
            fold=summary.fold,
            seed=summary.seed,
            state=summary.state if summary.state != "done" else "incomplete",
            reason=summary.error if summary.state != "done" else f"no counts for {', '.join(missing[summary.id])}",
        )
        for cell in cells
        if (summary := cell.summary).state != "done" or summary.id in missing
    ]
    return sorted(holes, key=lambda hole: (hole.arm, hole.seed, hole.fold))


def _notes(rows: Sequence[Row], judged: Mapping[str, Judged], found: Sequence[Contrast]) -> list[str]:
    notes = []
    if judged:
        longest = max(judged.values(), key=lambda arm: len(arm.people))
        with_stage = (longest.by_person.sum((0, 3)) > 0).sum(0)
        absent = [STAGE_NAMES[code] for code in range(N_STAGES) if with_stage[code] == 0]
        alone = [STAGE_NAMES[code] for code in range(N_STAGES) if with_stage[code] == 1]
        if absent:
            notes.append(f"{', '.join(absent)}: in no expert hypnogram here, so not scored (–)")
            notes += _predicted_only(absent, judged)
        if alone and len(longest.people) > 1:
            stages = ", ".join(alone)
            notes.append(f"{stages}: from one person only, so without an interval, as are macro means")
        if len(longest.people) == 1:
            notes.append("one person only: no intervals")
    if len({row.people for row in rows}) > 1 or any(row.folds_done < row.folds_planned for row in rows):
        notes.append("arms are judged on different people where folds are missing: compare them in the contrast only")
    left_out = sorted({person for contrast in found for person in contrast.left_out})
    if left_out:
        number = f"{len(left_out)} {'person' if len(left_out) == 1 else 'people'}"
        notes.append(f"the contrast leaves out {number} not judged in every arm: {', '.join(left_out)}")
    seeds = sorted({seed for row in rows for seed in row.seeds})
    if len(seeds) > 1:
        notes.append(
            f"{len(seeds)} seeds: metrics are computed within each seed and averaged; "
            "two seeds of one person are not two people"
        )
    return notes


def _predicted_only(absent: Sequence[str], judged: Mapping[str, Judged]) -> list[str]:
    notes = []
    for arm, result in judged.items():
        predicted = result.confusion.sum(0)
        epochs = {stage: int(predicted[STAGE_NAMES.index(stage)]) for stage in absent}
        said = ", ".join(f"{stage} in {n} epochs" for stage, n in epochs.items() if n)
        if said:
            notes.append(f"{arm} predicted {said}: F1 0 there, and macro means count it")
    return notes
