"""Suites: named and versioned sets of corpora, protocol, folds, split seed and rules, so that tables are comparable."""

from __future__ import annotations

from dataclasses import dataclass

from tusp.platform.scoring.statistics import Estimate


@dataclass(frozen=True, kw_only=True)
class SuiteCorpus:
    """One corpus of a suite and what the report has of it."""

    corpus: str
    problems: tuple[str, ...]
    """What is missing or deviates from the suite; empty where it is judged as the suite fixes."""
    scores: tuple[Estimate, ...]
    """Pooled macro-F1 of every arm, in the order of the table's arms; NaN where there is none."""


@dataclass(frozen=True, kw_only=True)
class SuiteTable:
    """The table of a suite."""

    name: str
    version: str
    title: str
    rule: str
    fixed: str
    """What the suite fixes, in one line."""
    arms: tuple[str, ...]
    corpora: tuple[SuiteCorpus, ...]
    means: tuple[float, ...]
    """Mean over the corpora of every arm; NaN as soon as there is a hole."""
    problems: tuple[str, ...]
    """About the report as a whole."""

    @property
    def holes(self) -> tuple[str, ...]:
        """Every problem in one line; empty where the suite is complete."""
        return (*self.problems, *(f"{item.corpus}: {line}" for item in self.corpora for line in item.problems))
