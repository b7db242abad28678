"""Pictures of several rows or corpora: forest plot, critical differences, train-on x judge-on matrix, heat maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tusp.dashboards.across import Forest, Matrix, RankDiagram
from tusp.dashboards.figure_style import (
    GRID,
    INK,
    QUIET,
    STAGE_COLOURS,
    bare,
    new_figure,
    signed_text,
    titled,
    whisker,
    wrapped,
)
from tusp.dashboards.leaderboard import Board
from tusp.dashboards.tables import interval, number
from tusp.platform.scoring.statistics import Estimate
from tusp.platform.stages import STAGE_NAMES


def forest_figure(forest: Forest) -> Figure:
    """Effect of one contrast on every corpus with interval and people, the random-effects mean as a diamond, and the
    prediction interval as a thin bar below it."""
    effects = forest.effects
    known = not math.isnan(forest.summary.effect.value)
    n_rows = len(effects) + (2 if known else 0)
    figure = new_figure(9.0, 1.75 + 0.42 * n_rows)
    axes = figure.subplots()
    places = np.arange(len(effects))[::-1] + (2.0 if known else 0.0)
    precise = [1 / item.variance if item.variance > 0 else 0.0 for item in effects]
    most = max(precise, default=0.0) or 1.0
    labels = [f"{wrapped(item.corpus)}  ({item.people:,} people)" for item in effects]
    ticks = places.tolist()
    for item, place, weight in zip(effects, places.tolist(), precise, strict=True):
        whisker(axes, item.effect, place, colour=INK, caps=0)
        axes.plot(item.effect.value, place, "s", color=STAGE_COLOURS[2], markersize=4 + 5 * math.sqrt(weight / most))
        _beside(axes, place, item.effect)
    if known:
        summary = forest.summary
        low, middle, high = summary.effect.low, summary.effect.value, summary.effect.high
        axes.fill([low, middle, high, middle], [1, 1.28, 1, 0.72], color=STAGE_COLOURS[3], linewidth=0)
        _beside(axes, 1, summary.effect)
        ticks, labels = [*ticks, 1.0], [*labels, f"together  ({summary.corpora} corpora)"]
        if not math.isnan(summary.prediction.low):
            axes.plot([summary.prediction.low, summary.prediction.high], [0, 0], color=STAGE_COLOURS[3], linewidth=2.5)
            axes.text(1.02, 0, interval(summary.prediction, signed=True), transform=axes.get_yaxis_transform(),
                      va="center", fontsize=8.5, color=INK)  # fmt: skip
            ticks, labels = [*ticks, 0.0], [*labels, "one more corpus"]
        axes.axhline(1.5, color=GRID, linewidth=0.9)
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.set_yticks(ticks, labels)
    axes.set_ylim(-0.6, max(places.tolist(), default=0.0) + 0.6)
    axes.set_xlabel(f"{forest.contrast}: effect in macro-F1, mean over people, 95 % interval")
    axes.xaxis.set_major_formatter(FuncFormatter(signed_text))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    bare(axes)
    said = "random effects, Hartung-Knapp interval" if known else "no summary: it needs two corpora whose people differ"
    if known:
        said += f"; SD between corpora {number(forest.summary.tau)}, I² {100 * forest.summary.i_squared:.0f} %"
    figure.suptitle(titled(forest.title, said), x=0.01, ha="left", fontsize=9)
    return figure


def critical_difference_figure(diagram: RankDiagram) -> Figure:
    """Mean ranks of arms on a line, the best on the right; bars join arms within the critical difference."""
    arms = diagram.ranks
    left = [item for item in arms if item[1] > (len(arms) + 1) / 2]
    right = [item for item in arms if item not in left]
    levels = max(len(left), len(right))
    bars = len(diagram.groups)
    figure = new_figure(9.0, 2.0 + 0.3 * levels + 0.16 * bars)
    axes = figure.subplots()
    axes.set_xlim(len(arms) + 0.12, 0.88)
    bottom = -1.0 - 0.45 * bars - levels
    axes.set_ylim(bottom - 0.4, 2.2)
    axes.axis("off")
    axes.plot([1, len(arms)], [0, 0], color=INK, linewidth=1.2)
    for rank in range(1, len(arms) + 1):
        axes.plot([rank, rank], [0, 0.25], color=INK, linewidth=1)
        axes.text(rank, 0.4, str(rank), ha="center", va="bottom", fontsize=9, color=INK)
    for level, group in enumerate(diagram.groups):
        ranks = [rank for arm, rank in arms if arm in group]
        bar = -0.45 - 0.45 * level
        axes.plot([min(ranks) - 0.03, max(ranks) + 0.03], [bar, bar], color=STAGE_COLOURS[2], linewidth=3.5,
                  solid_capstyle="butt")  # fmt: skip
    for members, edge, side in ((left[::-1], len(arms) + 0.12, "right"), (right, 0.88, "left")):
        for row, (arm, mean) in enumerate(members):
            height = -1.0 - 0.45 * bars - row
            axes.plot([mean, mean, edge], [0, height, height], color=QUIET, linewidth=0.9)
            axes.annotate(f"{arm}  {mean:.2f}", (edge, height), xytext=(-5 if side == "right" else 5, 0),
                          textcoords="offset points", ha=side, va="center", fontsize=9, color=INK)  # fmt: skip
    reach = min(diagram.critical_difference, len(arms) - 1.0)
    axes.plot([len(arms), len(arms) - reach], [1.6, 1.6], color=INK, linewidth=2)
    more = "" if reach == diagram.critical_difference else ", longer than the axis"
    axes.text(len(arms) - reach - 0.05, 1.6, f"critical difference {diagram.critical_difference:.2f}{more}", ha="left",
              va="center", fontsize=8.5, color=INK)  # fmt: skip
    said = f"mean rank over {', '.join(diagram.corpora)}; {diagram.words}"
    figure.suptitle(titled(diagram.title, said), x=0.01, ha="left", fontsize=9)
    return figure


def matrix_figure(matrix: Matrix) -> Figure:
    """Pooled macro-F1 by corpus trained on (row) and judged on (column), with intervals; framed where a network
    knows the corpus."""
    values = np.array([[score.value for score in row] for row in matrix.scores], dtype=np.float64)
    names = [_wrapped(name) for name in matrix.trained_on]
    n_rows, n_columns = values.shape
    tallest = max(name.count("\n") + 1 for name in names)
    figure = new_figure(3.0 + 1.15 * n_columns, 2.1 + max(0.62, 0.2 * tallest) * n_rows)
    axes = figure.subplots()
    known = values[~np.isnan(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    image = axes.imshow(np.ma.masked_invalid(values), cmap="Blues", vmin=low - 0.15 * (high - low), vmax=high + 1e-9,
                        aspect="auto")  # fmt: skip
    _cells(axes, [[(number(s.value), interval(s)) for s in row] for row in matrix.scores],
           dark=(values - low) / max(high - low, 1e-9) > 0.55)  # fmt: skip
    for place, name in enumerate(matrix.trained_on):
        for column, corpus in enumerate(matrix.judged_on):
            if corpus in name.split("+") and matrix.people[place][column]:
                axes.add_patch(_frame(column, place))
    axes.set_xticks(range(n_columns), matrix.judged_on, rotation=20 if n_columns > 4 else 0, ha="center")
    axes.set_yticks(range(n_rows), names)
    axes.set_xlabel("judged on")
    axes.set_ylabel("trained on")
    _no_frame(axes)
    bar = figure.colorbar(image, ax=axes, fraction=0.045, pad=0.03)
    bar.set_label("pooled macro-F1")
    bar.outline.set_visible(False)
    said = f"{matrix.arm}; framed: people of a corpus it was trained on; 95 % intervals over people"
    figure.suptitle(titled(matrix.title, said), x=0.01, ha="left", fontsize=9)
    return figure


def ablation_heatmap(forests: Sequence[Forest]) -> Figure:
    """Effect of every contrast on every corpus in macro-F1 and F1 of each stage; bold: p after Holm at most .05.

    Args:
        forests: of boards that were made alike (one title).

    Raises:
        ValueError: no forest.
    """
    if not forests:
        raise ValueError("a heat map shows at least one contrast")
    rows = [(forest, item) for forest in forests for item in forest.effects]
    values = np.array(
        [[item.effect.value, *(stage.value for stage in item.stages)] for _, item in rows], dtype=np.float64
    )
    sure = np.array([[item.p_holm, *item.stages_p_holm] for _, item in rows], dtype=np.float64) <= 0.05
    widest = max(0.01, float(np.nanmax(np.abs(values), initial=0.0)))
    figure = new_figure(9.6, 2.0 + 0.3 * len(rows))
    axes = figure.subplots()
    image = axes.imshow(
        np.ma.masked_invalid(values), cmap="PuOr_r", norm=TwoSlopeNorm(0, -widest, widest), aspect="auto"
    )
    for row, column in np.ndindex(values.shape):
        value = float(values[row, column])
        colour = QUIET if math.isnan(value) else "white" if abs(value) > 0.6 * widest else INK
        axes.text(column, row, number(value, signed=True), ha="center", va="center", fontsize=9, color=colour,
                  fontweight="bold" if sure[row, column] else "normal")  # fmt: skip
    axes.set_xticks(range(6), ["macro-F1", *(f"F1 {stage}" for stage in STAGE_NAMES)])
    axes.set_yticks(range(len(rows)), [item.corpus for _, item in rows])
    edge = 0
    for forest in forests:
        middle, edge = edge + (len(forest.effects) - 1) / 2, edge + len(forest.effects)
        axes.text(-0.17, middle, forest.contrast, transform=axes.get_yaxis_transform(), ha="right", va="center",
                  fontsize=9.5, color=INK, fontweight="bold")  # fmt: skip
        axes.axhline(edge - 0.5, color="white", linewidth=4)
    axes.axvline(0.5, color="white", linewidth=4)
    _no_frame(axes)
    bar = figure.colorbar(image, ax=axes, fraction=0.045, pad=0.03, format=FuncFormatter(signed_text))
    bar.set_label("effect, mean over people")
    bar.outline.set_visible(False)
    figure.suptitle(titled(forests[0].title, "bold: p after Holm at most .05 on that corpus"), x=0.01, ha="left",
                    fontsize=9)  # fmt: skip
    return figure


def class_figure(board: Board) -> Figure:
    """F1 of each stage and macro-F1 of every row as a heat map with intervals."""
    scored = [[row.scores.overall["macro_f1"], *row.scores.stages["f1"]] for row in board.rows]
    values = np.array([[item.value for item in row] for row in scored], dtype=np.float64)
    figure = new_figure(11.0, 1.9 + 0.52 * max(1, len(board.rows)))
    axes = figure.subplots()
    image = axes.imshow(np.ma.masked_invalid(values), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    _cells(axes, [[(number(item.value), interval(item)) for item in row] for row in scored], dark=values > 0.6)
    axes.set_xticks(range(6), ["macro-F1", *(f"F1 {stage}" for stage in STAGE_NAMES)])
    axes.set_yticks(range(len(board.rows)), [wrapped(row.name) for row in board.rows])
    axes.axvline(0.5, color="white", linewidth=4)
    _no_frame(axes)
    bar = figure.colorbar(image, ax=axes, fraction=0.045, pad=0.03)
    bar.outline.set_visible(False)
    figure.suptitle(titled(board.title, "pooled over epochs, 95 % intervals over people"), x=0.01, ha="left",
                    fontsize=9)  # fmt: skip
    return figure


def _beside(axes: Axes, place: float, estimate: Estimate) -> None:
    """The figure in numbers, right of the axes."""
    span = interval(estimate, signed=True)
    axes.text(1.02, place, f"{number(estimate.value, signed=True)}{f'  ({span})' if span else ''}",
              transform=axes.get_yaxis_transform(), va="center", fontsize=8.5, color=INK)  # fmt: skip


def _cells(axes: Axes, texts: Sequence[Sequence[tuple[str, str]]], *, dark: npt.NDArray[np.bool_]) -> None:
    """A number and its interval in every cell of a heat map."""
    axes.set_facecolor("#F0F0F0")
    for row, line in enumerate(texts):
        for column, (main, under) in enumerate(line):
            colour = "white" if dark[row, column] else INK
            axes.text(column, row - (0.14 if under else 0), main, ha="center", va="center", fontsize=10, color=colour)
            axes.text(column, row + 0.22, under, ha="center", va="center", fontsize=7, color=colour)


def _frame(column: int, row: int) -> Rectangle:
    return Rectangle((column - 0.47, row - 0.46), 0.94, 0.92, fill=False, edgecolor=STAGE_COLOURS[0], linewidth=2)


def _no_frame(axes: Axes) -> None:
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _wrapped(name: str) -> str:
    """Corpora trained on together, two in a line."""
    parts = name.split("+")
    return "\n".join(" + ".join(parts[start : start + 2]) for start in range(0, len(parts), 2))
