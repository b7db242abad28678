"""Across corpora: forest plots, ranks, train-on x judge-on matrices, and ablations side by side.

Everything is put together from the boards of one report. Simulated and real boards never meet here either.
"""

from __future__ import annotations

from dataclasses import dataclass

from tusp.platform.scoring.evidence import Combined
from tusp.platform.scoring.statistics import Estimate


@dataclass(frozen=True, kw_only=True)
class CorpusEffect:
    """A contrast on one corpus."""

    corpus: str
    effect: Estimate
    people: int
    p_holm: float
    stages: tuple[Estimate, ...]
    """Effect in F1 of W, N1, N2, N3, REM."""


@dataclass(frozen=True, kw_only=True)
class Forest:
    """One contrast over several corpora, with a random-effects summary."""

    title: str
    simulated: bool
    contrast: str
    effects: tuple[CorpusEffect, ...]
    """By name of the corpus."""
    summary: Combined
    """NaN with fewer than two corpora."""
    parameters: int | None
    """What the contrast costs in parameters; None where it is not the same everywhere."""
    training_seconds: float
    """What it costs in training time of a cell, mean over corpora."""


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
