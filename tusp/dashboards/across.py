"""Across corpora: forest plots, ranks, train-on x judge-on matrices, and ablations side by side.

Everything is put together from the boards of one report. Simulated and real boards never meet here either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tusp.dashboards.contrast import Contrast
from tusp.dashboards.leaderboard import OUTSIDE, Board
from tusp.datasets.splits import corpus_of
from tusp.platform.scoring.evidence import Combined, combine_corpora, critical_difference, ranks
from tusp.platform.scoring.statistics import Estimate

WITHIN: Final = "within"
NOTHING: Final = Estimate(value=float("nan"))


@dataclass(frozen=True, kw_only=True)
class CorpusEffect:
    """A contrast on one corpus."""

    corpus: str
    effect: Estimate
    people: int
    p_holm: float
    variance: float
    """Of the effect, from people: squared SD over their number; NaN with one person."""
    stages: tuple[Estimate, ...]
    """Effect in F1 of W, N1, N2, N3, REM."""
    stages_p_holm: tuple[float, ...]
    verdict: str
    parameters: int | None
    training_seconds: float
    macs_per_epoch: float = float("nan")
    inference_epochs_per_second: float = float("nan")


@dataclass(frozen=True, kw_only=True)
class Forest:
    """One contrast over several corpora, with a random-effects summary."""

    title: str
    simulated: bool
    contrast: str
    kind: str
    """``pair``, ``main effect`` or ``interaction``."""
    effects: tuple[CorpusEffect, ...]
    """By name of the corpus."""
    summary: Combined
    """NaN with fewer than two corpora that have a variance."""


@dataclass(frozen=True, kw_only=True)
class RankDiagram:
    """Mean ranks of arms over corpora. Descriptive: so few corpora cannot carry a test."""

    title: str
    simulated: bool
    corpora: tuple[str, ...]
    ranks: tuple[tuple[str, float], ...]
    """Arm and its mean rank by pooled macro-F1, the best first."""
    critical_difference: float
    """Nemenyi's, at .05."""
    groups: tuple[tuple[str, ...], ...]
    """Runs of arms whose mean ranks lie within the critical difference."""
    words: str
    """What a reader must know about it."""


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Pooled macro-F1 of one arm by corpora trained on (rows) and judged on (columns)."""

    title: str
    simulated: bool
    arm: str
    trained_on: tuple[str, ...]
    judged_on: tuple[str, ...]
    scores: tuple[tuple[Estimate, ...], ...]
    """[trained on][judged on]; NaN where nothing was judged."""
    people: tuple[tuple[int, ...], ...]
    """People behind each score; 0 where nothing was judged."""


@dataclass(frozen=True, kw_only=True)
class Across:
    """Everything about several corpora at once; empty tuples where one board is all there is."""

    forests: tuple[Forest, ...] = ()
    diagrams: tuple[RankDiagram, ...] = ()
    matrices: tuple[Matrix, ...] = ()
    notes: tuple[str, ...] = ()


def build_across(boards: Sequence[Board]) -> Across:
    """Put the boards of a report together.

    Boards are taken together when they share everything but the corpora: kind of nights, experiment, protocol, folds,
    recipe, rule and, in ``joint`` and ``transfer``, what was trained on. A forest and a rank diagram need two corpora
    of different people; a matrix needs a network that was judged on a corpus it was not trained on.
    """
    notes: list[str] = []
    forests: list[Forest] = []
    diagrams: list[RankDiagram] = []
    for title, simulated, together in _families(boards, notes):
        forests += _forests(title, simulated, together)
        diagram = _diagram(title, simulated, together)
        if diagram is not None:
            diagrams.append(diagram)
    return Across(
        forests=tuple(forests), diagrams=tuple(diagrams), matrices=tuple(_matrices(boards)), notes=tuple(notes)
    )


def _families(boards: Sequence[Board], notes: list[str]) -> list[tuple[str, bool, list[Board]]]:
    """Boards that differ in the corpus judged on only, where there are at least two."""
    families: dict[tuple[object, ...], list[Board]] = {}
    for board in boards:
        key = board.key
        if key.experiment == OUTSIDE:
            continue
        trained = "" if key.experiment == WITHIN else key.trained_on
        family = (key.simulated, key.experiment, trained, key.protocol, key.folds, key.recipe, board.rule)
        families.setdefault(family, []).append(board)
    found = []
    for (simulated, experiment, together, protocol, folds, recipe, rule), members in families.items():
        kept = _one_of_each(members, notes)
        if len(kept) > 1:
            nights = "SIMULATED nights" if simulated else "real nights"
            parts = str(together).split("+")
            trained = f"{len(parts)} corpora together" if len(parts) > 1 else parts[0]
            where = f"{experiment} (trained on {trained})" if together else str(experiment)
            title = (
                f"{len(kept)} corpora · {nights} · {where} · {protocol} protocol, {folds} folds · recipe {recipe} · "
                f"rule {rule}"
            )
            found.append((title, bool(simulated), kept))
    return found


def _one_of_each(boards: Sequence[Board], notes: list[str]) -> list[Board]:
    """One board a corpus (that of most people), and no subset beside the corpus whose people it shares."""
    best: dict[str, Board] = {}
    for board in boards:
        corpus = board.key.judged_on
        other = best.get(corpus)
        if other is not None:
            notes.append(f"{corpus} stands on several boards (other splits); the one with most people is taken here")
        if other is None or _people(board) > _people(other):
            best[corpus] = board
    for name in [name for name in best if corpus_of(name) != name and corpus_of(name) in best]:
        notes.append(f"{name} is left out beside {corpus_of(name)}: they are the same people")
        del best[name]
    return [best[name] for name in sorted(best)]


def _people(board: Board) -> int:
    return max((row.people for row in board.rows), default=0)


def _forests(title: str, simulated: bool, boards: Sequence[Board]) -> list[Forest]:
    """A forest of every contrast that at least two boards have."""
    found: dict[str, list[tuple[Board, Contrast]]] = {}
    for board in boards:
        for contrast in board.contrasts:
            found.setdefault(contrast.name, []).append((board, contrast))
    return [
        Forest(
            title=title,
            simulated=simulated,
            contrast=name,
            kind=members[0][1].kind,
            effects=tuple(_effect(board, contrast) for board, contrast in members),
            summary=combine_corpora(
                [contrast.effect.value for _, contrast in members], [contrast.variance for _, contrast in members]
            ),
        )
        for name, members in found.items()
        if len(members) > 1
    ]


def _effect(board: Board, contrast: Contrast) -> CorpusEffect:
    return CorpusEffect(
        corpus=board.key.judged_on,
        effect=contrast.effect,
        people=contrast.people,
        p_holm=contrast.p_holm,
        variance=contrast.variance,
        stages=tuple(stage.effect for stage in contrast.stages),
        stages_p_holm=tuple(stage.p_holm for stage in contrast.stages),
        verdict=contrast.verdict,
        parameters=contrast.parameters,
        training_seconds=contrast.training_seconds,
        macs_per_epoch=contrast.macs_per_epoch,
        inference_epochs_per_second=contrast.inference_epochs_per_second,
    )


def _diagram(title: str, simulated: bool, boards: Sequence[Board]) -> RankDiagram | None:
    """Mean ranks of the arms that every one of these corpora has ranked; at least two arms."""
    scores: list[Mapping[str, float]] = [
        {row.name: row.scores.overall["macro_f1"].value for row in board.rows if row.kind == "arm" and row.people}
        for board in boards
    ]
    arms = sorted(set.intersection(*(set(of_board) for of_board in scores)))
    if len(arms) < 2:
        return None
    table = np.array([[of_board[arm] for arm in arms] for of_board in scores], dtype=np.float64)
    mean_ranks = ranks(table.T).mean(axis=1)
    order = sorted(zip(arms, mean_ranks.tolist(), strict=True), key=lambda item: (item[1], item[0]))
    reach = critical_difference(len(arms), len(boards))
    return RankDiagram(
        title=title,
        simulated=simulated,
        corpora=tuple(board.key.judged_on for board in boards),
        ranks=tuple(order),
        critical_difference=reach,
        groups=tuple(_within_reach(order, reach)),
        words=f"descriptive: {len(boards)} corpora cannot carry a test",
    )


def _within_reach(order: Sequence[tuple[str, float]], reach: float) -> list[tuple[str, ...]]:
    """Maximal runs of at least two arms whose mean ranks lie within the critical difference."""
    runs: list[tuple[int, int]] = []
    for start, (_, rank) in enumerate(order):
        stop = max(place for place, (_, other) in enumerate(order) if other - rank <= reach) + 1
        if stop - start > 1 and (not runs or stop > runs[-1][1]):
            runs.append((start, stop))
    return [tuple(arm for arm, _ in order[start:stop]) for start, stop in runs]


def _matrices(boards: Sequence[Board]) -> list[Matrix]:
    """Train-on x judge-on, one matrix an arm, for what was judged on corpora it was not trained on."""
    families: dict[tuple[object, ...], list[Board]] = {}
    for board in boards:
        key = board.key
        if key.experiment != OUTSIDE:
            families.setdefault((key.simulated, key.protocol, key.folds, key.recipe, board.rule), []).append(board)
    found = []
    for (simulated, protocol, folds, recipe, rule), members in families.items():
        if all(board.key.experiment == WITHIN for board in members):
            continue
        # What was trained together comes first; a network of transfer stands before the same of within.
        members = sorted(members, key=lambda board: (_place(board), board.key.experiment == WITHIN, -_people(board)))
        trained = tuple(dict.fromkeys(board.key.trained_on for board in members))
        judged = tuple(sorted({board.key.judged_on for board in members}))
        arms = list(dict.fromkeys(row.name for board in members for row in board.rows if row.kind == "arm"))
        nights = "SIMULATED nights" if simulated else "real nights"
        for arm in arms:
            cells: dict[tuple[str, str], tuple[Estimate, int]] = {}
            for board in members:
                row = next((row for row in board.rows if row.kind == "arm" and row.name == arm and row.people), None)
                if row is not None:
                    place = (board.key.trained_on, board.key.judged_on)
                    cells.setdefault(place, (row.scores.overall["macro_f1"], row.people))
            found.append(
                Matrix(
                    title=f"{nights} · {protocol} protocol, {folds} folds · recipe {recipe} · rule {rule}",
                    simulated=bool(simulated),
                    arm=arm,
                    trained_on=trained,
                    judged_on=judged,
                    scores=tuple(tuple(cells.get((a, b), (NOTHING, 0))[0] for b in judged) for a in trained),
                    people=tuple(tuple(cells.get((a, b), (NOTHING, 0))[1] for b in judged) for a in trained),
                )
            )
    return found


def _place(board: Board) -> tuple[int, str]:
    """Networks of many corpora first, then by name."""
    return -len(board.key.trained_on.split("+")), board.key.trained_on


def mean_cost(forest: Forest) -> tuple[int | None, float]:
    """Parameters of a contrast (None unless the same on every corpus) and its mean training time of a cell in seconds
    (NaN where it is known nowhere)."""
    parameters = {effect.parameters for effect in forest.effects}
    seconds = [effect.training_seconds for effect in forest.effects if not math.isnan(effect.training_seconds)]
    only = parameters.pop() if len(parameters) == 1 else None
    return only, float(np.mean(seconds)) if seconds else float("nan")
