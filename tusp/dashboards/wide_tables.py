"""Tables about several boards, and those made on request: corpora side by side, suites, sleep statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from tusp.dashboards.across import Across, Forest, Matrix, RankDiagram, mean_cost
from tusp.dashboards.cost_tables import figure
from tusp.dashboards.leaderboard import Board, Row
from tusp.dashboards.suites import SuiteTable
from tusp.dashboards.tables import NOT_SCORED, Entry, TextTable, duration, interval, number, p_value
from tusp.platform.scoring.evidence import Combined
from tusp.platform.scoring.sleep_statistics import UNITS, Agreement
from tusp.platform.scoring.statistics import Estimate
from tusp.platform.stages import STAGE_NAMES

COSTS = ("parame-\nters", "M MACs\nper epoch", "training\nof a cell", "inference\n(epochs/s)")
"""Columns of what an effect costs."""
WORDS = {
    "total_sleep_time": "total sleep time",
    "sleep_efficiency": "sleep efficiency",
    "sleep_latency": "sleep latency",
    "rem_latency": "REM latency",
    "wake_after_sleep_onset": "wake after sleep onset",
    "share_n1": "N1 of sleep",
    "share_n2": "N2 of sleep",
    "share_n3": "N3 of sleep",
    "share_rem": "REM of sleep",
}
"""How a reader calls the sleep statistics."""


def forest_table(forest: Forest) -> TextTable:
    """One contrast on every corpus, per stage and with its cost, and the random-effects summary below."""
    rows = [
        (
            Entry(main=item.corpus),
            _effect(item.effect),
            Entry(main=p_value(item.p_holm)),
            *(
                Entry(main=number(stage.value, signed=True), under="" if math.isnan(p) else f"p {p_value(p)}")
                for stage, p in zip(item.stages, item.stages_p_holm, strict=True)
            ),
            Entry(main=f"{item.people:,}"),
            *_costs(item.parameters, item.training_seconds, item.macs_per_epoch, item.inference_epochs_per_second),
        )
        for item in forest.effects
    ]
    parameters, seconds = mean_cost(forest)
    together = (
        Entry(main="together"),
        _effect(forest.summary.effect),
        *(Entry(main="") for _ in range(1 + len(STAGE_NAMES))),
        Entry(main=f"{sum(item.people for item in forest.effects):,}"),
        *_costs(parameters, seconds, *_arithmetic(forest)),
    )
    return TextTable(
        title=f"{forest.contrast} on {len(forest.effects)} corpora: effect in macro-F1 and in F1 of each stage, cost",
        columns=("corpus", "effect in\nmacro-F1", "p\nHolm", *STAGE_NAMES, "people", *COSTS),
        rows=(*rows, together),
    )


def ablation_table(forests: Sequence[Forest]) -> TextTable:
    """All contrasts (rows) on all corpora (columns) with their random-effects summary and cost.

    Effects of stages are in the contrast table of every board and in :func:`forest_table`.
    """
    corpora = sorted({item.corpus for forest in forests for item in forest.effects})

    def row(forest: Forest) -> tuple[Entry, ...]:
        on = {item.corpus: item for item in forest.effects}
        parameters, seconds = mean_cost(forest)
        return (
            Entry(main=forest.contrast),
            *(_effect(on[corpus].effect) if corpus in on else Entry(main=NOT_SCORED) for corpus in corpora),
            _effect(forest.summary.effect),
            *_costs(parameters, seconds, *_arithmetic(forest)),
        )

    return TextTable(
        title="Effect in macro-F1 on every corpus, and together by random effects; cost of a cell",
        columns=("contrast", *corpora, "together", *COSTS),
        rows=tuple(row(forest) for forest in forests),
    )


def forest_line(forest: Forest) -> str:
    """How much a contrast differs between corpora, in words."""
    summary = forest.summary
    if math.isnan(summary.effect.value):
        return f"{forest.contrast}: no summary, which needs two corpora whose people differ"
    return (
        f"{forest.contrast}: SD between the {summary.corpora} corpora {number(summary.tau)} "
        f"(I² {100 * summary.i_squared:.0f} %); {_prediction(summary)}"
    )


def _prediction(summary: Combined) -> str:
    if math.isnan(summary.prediction.low):
        return "two corpora give no prediction interval"
    return f"one more corpus would be expected within {interval(summary.prediction, signed=True)}"


def diagram_lines(diagram: RankDiagram) -> list[str]:
    """Mean ranks over corpora, and that they prove nothing."""
    ranks = ", ".join(f"{arm} {rank:.2f}" for arm, rank in diagram.ranks)
    lines = [f"mean rank over {len(diagram.corpora)} corpora: {ranks} ({diagram.words})"]
    together = "; ".join(", ".join(group) for group in diagram.groups)
    lines.append(
        f"critical difference {diagram.critical_difference:.2f} (Nemenyi, .05): "
        + (f"within it {together}" if together else "no two arms lie within it")
    )
    return lines


def matrix_table(matrix: Matrix) -> TextTable:
    """Trained on (rows) and judged on (columns)."""

    def entry(score: Estimate, people: int) -> Entry:
        return Entry(main=number(score.value), under=interval(score)) if people else Entry(main=NOT_SCORED)

    return TextTable(
        title=f"{matrix.arm}: pooled macro-F1 by corpus trained on (row) and judged on (column)",
        columns=("trained on", *matrix.judged_on),
        rows=tuple(
            (Entry(main=name.replace("+", " + ")), *(entry(s, n) for s, n in zip(scores, people, strict=True)))
            for name, scores, people in zip(matrix.trained_on, matrix.scores, matrix.people, strict=True)
        ),
    )


def across_tables(across: Across) -> list[TextTable]:
    """Everything about several corpora, in order: an ablation table for what was trained alike, then matrices."""
    alike: dict[str, list[Forest]] = {}
    for forest in across.forests:
        alike.setdefault(forest.title, []).append(forest)
    tables = []
    for title, forests in alike.items():
        table = ablation_table(forests)
        tables.append(table if len(alike) == 1 else replace(table, title=f"{table.title} ({title})"))
    return tables + [matrix_table(item) for item in across.matrices]


def across_lines(across: Across) -> list[str]:
    """What goes with these tables, in words."""
    lines = [forest_line(forest) for forest in across.forests]
    lines += [line for diagram in across.diagrams for line in diagram_lines(diagram)]
    return [*lines, *across.notes]


def suite_table_text(suite: SuiteTable) -> TextTable:
    """Pooled macro-F1 of every arm on every corpus of a suite; the mean only where nothing is missing."""

    def row(name: str, scores: tuple[Estimate, ...], *, warning: bool) -> tuple[Entry, ...]:
        return (
            Entry(main=name, warning=warning),
            *(Entry(main=number(score.value), under=interval(score)) for score in scores),
        )

    rows = [row(item.corpus, item.scores, warning=bool(item.problems)) for item in suite.corpora]
    means = tuple(Estimate(value=mean) for mean in suite.means)
    return TextTable(
        title=f"Suite {suite.name} {suite.version}: {suite.title} (pooled macro-F1, rule {suite.rule})",
        columns=("corpus", *suite.arms),
        rows=(*rows, row("mean", means, warning=bool(suite.holes))),
    )


def suite_lines(suite: SuiteTable) -> list[str]:
    """Holes of a suite, each by name."""
    return [f"{suite.name} {suite.version}: {hole}" for hole in suite.holes]


def sleep_table(row: Row) -> TextTable:
    """Agreement of every sleep statistic of one arm with the expert's."""

    def line(item: Agreement) -> tuple[Entry, ...]:
        share = UNITS[item.statistic] == "share"

        def entry(estimate: Estimate) -> Entry:
            if share:
                return Entry(main=number(estimate.value, signed=True), under=interval(estimate, signed=True))
            return Entry(main=_minutes(estimate.value), under=_minutes_interval(estimate))

        name = WORDS[item.statistic] + ("" if share else " (min)")
        return (
            Entry(main=name),
            entry(item.bias),
            entry(item.lower),
            entry(item.upper),
            Entry(main=f"{item.recordings:,}", under=f"{item.people:,}"),
        )

    return TextTable(
        title=f"{row.name}: sleep statistics, predicted minus expert (Bland-Altman, 95 % intervals over people)",
        columns=("statistic", "bias", "lower limit", "upper limit", "nights\npeople"),
        rows=tuple(line(item) for item in row.sleep),
    )


def sleep_tables(board: Board) -> list[TextTable]:
    """A table for each arm whose sleep statistics were asked for."""
    return [sleep_table(row) for row in board.rows if row.sleep]


def _effect(estimate: Estimate) -> Entry:
    return Entry(main=number(estimate.value, signed=True), under=interval(estimate, signed=True))


def _parameters(value: int | None) -> str:
    return NOT_SCORED if value is None else f"{value:+,}".replace("-", "−") if value else "0"


def _arithmetic(forest: Forest) -> tuple[float, float]:
    """Multiply-accumulates of a contrast (NaN unless the same on every corpus) and its mean inference rate in epochs/s
    (NaN where it is known nowhere)."""
    macs = {effect.macs_per_epoch for effect in forest.effects}
    rates = [effect.inference_epochs_per_second for effect in forest.effects]
    known = [rate for rate in rates if not math.isnan(rate)]
    return macs.pop() if len(macs) == 1 else math.nan, sum(known) / len(known) if known else math.nan


def _costs(parameters: int | None, seconds: float, macs: float, rate: float) -> tuple[Entry, ...]:
    """What an effect costs, one entry for each of ``COSTS``."""
    return (
        Entry(main=_parameters(parameters)),
        Entry(main=_signed(macs / 1e6)),
        Entry(main=_seconds(seconds)),
        Entry(main=_signed(rate)),
    )


def _signed(value: float) -> str:
    return ("−" if value < 0 else "+" if value > 0 else "") + figure(abs(value))


def _seconds(value: float) -> str:
    if math.isnan(value):
        return NOT_SCORED
    return ("−" if value < 0 else "+") + duration(abs(value))


def _minutes(value: float) -> str:
    return NOT_SCORED if math.isnan(value) else f"{value:+.1f}".replace("-", "−")


def _minutes_interval(estimate: Estimate) -> str:
    return "" if math.isnan(estimate.low) else f"{_minutes(estimate.low)} to {_minutes(estimate.high)}"
