"""Suites: named and versioned sets of corpora, protocol, folds, split seed and rules, so that tables are comparable.

They are in ``suites.toml`` beside this module. A suite goes by the names under which the corpora are published; a
corpus that is registered under another name is not found.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from tusp.dashboards.leaderboard import Board
from tusp.platform.errors import UserError
from tusp.platform.scoring.statistics import Estimate

if TYPE_CHECKING:
    from tusp.dashboards.report import Report

NOTHING = Estimate(value=float("nan"))


@dataclass(frozen=True, kw_only=True)
class Size:
    """A corpus as it is published."""

    people: int
    nights: int


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What a suite fixes."""

    name: str
    version: str
    title: str
    experiment: str
    trained_on: frozenset[str] | None
    """Corpora trained on together; None where each is trained on alone."""
    protocol: str
    folds: int
    split_seed: int
    rules: tuple[str, ...]
    corpora: Mapping[str, Size]

    @property
    def fixed(self) -> str:
        """What it fixes, in one line."""
        trained = f", trained on {'+'.join(sorted(self.trained_on))}" if self.trained_on else ""
        return (
            f"experiment {self.experiment}{trained}, {self.protocol} protocol, {self.folds} folds, "
            f"split seed {self.split_seed}, rule {' or '.join(self.rules)}"
        )


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


@cache
def suites() -> tuple[Suite, ...]:
    """All suites, in the order of the file."""
    text = resources.files("tusp.dashboards").joinpath("suites.toml").read_text(encoding="utf-8")
    return tuple(
        Suite(
            name=item["name"],
            version=item["version"],
            title=item["title"],
            experiment=item["experiment"],
            trained_on=frozenset(item["trained_on"]) if "trained_on" in item else None,
            protocol=item["protocol"],
            folds=item["folds"],
            split_seed=item["split_seed"],
            rules=tuple(item["rules"]),
            corpora={corpus: Size(**size) for corpus, size in item["corpora"].items()},
        )
        for item in tomllib.loads(text)["suite"]
    )


def find_suite(name: str) -> Suite:
    """A suite by name (its last version) or by name and version (``tusp-7 1.0``).

    Raises:
        UserError: there is none.
    """
    found = [suite for suite in suites() if name in {suite.name, f"{suite.name} {suite.version}"}]
    if found:
        return found[-1]
    known = [f"{suite.name} {suite.version}" for suite in suites()]
    nearest = difflib.get_close_matches(name, known, n=1)
    raise UserError(
        f"no suite {name!r}; " + (f"did you mean {nearest[0]}?" if nearest else f"suites are {', '.join(known)}")
    )


def suite_table(report: Report, name: str) -> SuiteTable:
    """What a report has of a suite: pooled macro-F1 of every arm on every corpus, and every hole by name.

    A score counts when the board was made as the suite fixes; one that lacks people or folds is shown with its hole.
    The mean over corpora is given only where there is no hole at all.

    Raises:
        UserError: no such suite.
    """
    suite = find_suite(name)
    problems = []
    if report.rule not in suite.rules:
        problems.append(f"rule {report.rule} is none of the suite's ({', '.join(suite.rules)})")
    recipes = sorted(
        {board.key.recipe for board in report.boards if board.key.judged_on in suite.corpora and board.key.recipe}
    )
    chosen = {
        corpus: {recipe: _nearest(suite, corpus, recipe, report.boards) for recipe in recipes}
        for corpus in suite.corpora
    }
    columns = list(
        dict.fromkeys(
            (recipe, row.name)
            for recipe in recipes
            for corpus in suite.corpora
            if (nearest := chosen[corpus][recipe]) is not None and not nearest.deviations
            for row in nearest.board.rows
            if row.kind == "arm"
        )
    )
    corpora = []
    for corpus in suite.corpora:
        lines = []
        for recipe, nearest in chosen[corpus].items():
            prefix = f"recipe {recipe}: " if len(recipes) > 1 else ""
            said = ["not judged"] if nearest is None else [*nearest.deviations, *nearest.holes]
            lines += [f"{prefix}{line}" for line in said]
        if not recipes:
            lines.append("not judged")
        scores = tuple(_score(chosen[corpus][recipe], arm) for recipe, arm in columns)
        lines += [
            f"{_column(recipe, arm, recipes)}: no score"
            for (recipe, arm), score in zip(columns, scores, strict=True)
            if np.isnan(score.value) and not lines
        ]
        corpora.append(SuiteCorpus(corpus=corpus, problems=tuple(lines), scores=scores))
    whole = not problems and not any(item.problems for item in corpora)
    return SuiteTable(
        name=suite.name,
        version=suite.version,
        title=suite.title,
        rule=report.rule,
        fixed=suite.fixed,
        arms=tuple(_column(recipe, arm, recipes) for recipe, arm in columns),
        corpora=tuple(corpora),
        means=tuple(
            float(np.mean([item.scores[place].value for item in corpora])) if whole else float("nan")
            for place in range(len(columns))
        ),
        problems=tuple(problems),
    )


@dataclass(frozen=True, kw_only=True)
class _Nearest:
    """The board that is nearest to what a suite fixes for a corpus."""

    board: Board
    deviations: tuple[str, ...]
    """It was made otherwise, so its scores do not belong to the suite."""
    holes: tuple[str, ...]
    """It was made as fixed, but lacks something."""


def _nearest(suite: Suite, corpus: str, recipe: str, boards: Sequence[Board]) -> _Nearest | None:
    candidates = [
        _Nearest(board=board, deviations=_deviations(suite, corpus, board), holes=_holes(suite.corpora[corpus], board))
        for board in boards
        if board.key.judged_on == corpus and board.key.recipe == recipe
    ]
    return min(candidates, key=lambda found: (len(found.deviations), len(found.holes)), default=None)


def _deviations(suite: Suite, corpus: str, board: Board) -> tuple[str, ...]:
    key = board.key
    lines = ["simulated nights"] if key.simulated else []
    wanted = suite.trained_on or frozenset({corpus})
    if key.experiment != suite.experiment:
        lines.append(f"experiment {key.experiment} (suite: {suite.experiment})")
    if frozenset(key.trained_on.split("+")) != wanted:
        lines.append(f"trained on {key.trained_on} (suite: {'+'.join(sorted(wanted))})")
    if key.protocol != suite.protocol:
        lines.append(f"{key.protocol} protocol (suite: {suite.protocol})")
    if key.folds != suite.folds:
        lines.append(f"{key.folds} folds (suite: {suite.folds})")
    if suite.split_seed not in board.split_seeds:
        seeds = ", ".join(map(str, board.split_seeds)) or "not recorded"
        lines.append(f"split seed {seeds} (suite: {suite.split_seed})")
    return tuple(lines)


def _holes(size: Size, board: Board) -> tuple[str, ...]:
    n_holes = len(board.holes)
    lines = [f"{n_holes} cell{'' if n_holes == 1 else 's'} without a whole result"] if n_holes else []
    arms = [row for row in board.rows if row.kind == "arm"]
    people, nights = max(row.people for row in arms), max(row.recordings for row in arms)
    # Nights without an epoch under the rule were judged, too.
    nights += len(board.without_epochs)
    if people <= size.people and nights <= size.nights and (people, nights) != (size.people, size.nights):
        lines.append(f"{people:,} of {size.people:,} people, {nights:,} of {size.nights:,} nights")
    elif (people, nights) != (size.people, size.nights):
        lines.append(f"{people:,} people and {nights:,} nights (suite: {size.people:,} and {size.nights:,})")
    return tuple(lines)


def _score(nearest: _Nearest | None, arm: str) -> Estimate:
    if nearest is None or nearest.deviations:
        return NOTHING
    found = [row.scores.overall["macro_f1"] for row in nearest.board.rows if row.kind == "arm" and row.name == arm]
    return found[0] if found else NOTHING


def _column(recipe: str, arm: str, recipes: Sequence[str]) -> str:
    return f"{arm} ({recipe})" if len(recipes) > 1 else arm
