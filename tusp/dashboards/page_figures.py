"""Pictures that only a report's page shows: training curves of all folds, forest plots."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tusp.dashboards.across import Forest
from tusp.dashboards.extras import TrainingCurve, TrainingGroup
from tusp.dashboards.figures import INK, QUIET, STAGE_COLOURS
from tusp.platform.scoring.statistics import Estimate

MOST_LINES: Final = 40
"""With more curves than this in a panel, their median and range are drawn instead."""

COLUMNS: Final = 4
"""Panels side by side."""

_GRID: Final = "#E4E8EB"


def training_figure(group: TrainingGroup) -> Figure:
    """Validation macro-F1 over the passes of training: a panel for each arm, a line for each fold and seed."""
    arms: dict[tuple[str, str], list[TrainingCurve]] = {}
    for curve in group.curves:
        arms.setdefault((curve.arm, curve.settings), []).append(curve)
    names = [arm for arm, _ in arms]
    columns = min(COLUMNS, len(arms))
    rows = math.ceil(len(arms) / columns)
    figure = _figure(max(4.2, 2.6 * columns), 0.3 + 2.1 * rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for place, ((arm, settings), curves) in enumerate(arms.items()):
        axes = panels[divmod(place, columns)]
        axes.set_title(arm if names.count(arm) == 1 else f"{arm} {settings[:6]}", fontsize=9, loc="left")
        _curves(axes, curves)
    for place in range(len(arms), rows * columns):
        panels[divmod(place, columns)].set_visible(False)
    for line in panels:
        line[0].set_ylabel("validation macro-F1", fontsize=8.5)
    for axes in panels[-1]:
        axes.set_xlabel("pass", fontsize=8.5)
    return figure


def _curves(axes: Axes, curves: list[TrainingCurve]) -> None:
    if len(curves) <= MOST_LINES:
        for curve in curves:
            colour = STAGE_COLOURS[2]
            axes.plot(curve.passes, curve.macro_f1, color=colour, linewidth=1.1, alpha=0.75)
            if curve.best_pass in curve.passes:
                best = curve.macro_f1[curve.passes.index(curve.best_pass)]
                axes.plot(curve.best_pass, best, "o", color=colour, markersize=3.2)
    else:
        longest = max(max(curve.passes) for curve in curves)
        table = np.full((len(curves), longest), np.nan)
        for place, curve in enumerate(curves):
            table[place, np.array(curve.passes) - 1] = curve.macro_f1
        passes = np.flatnonzero(~np.isnan(table).all(0))
        known = table[:, passes]
        axes.fill_between(passes + 1, np.nanmin(known, 0), np.nanmax(known, 0), color="#C5D3DE", linewidth=0)
        axes.plot(passes + 1, np.nanmedian(known, 0), color=STAGE_COLOURS[2], linewidth=1.6)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(color=_GRID, linewidth=0.8)
    axes.tick_params(labelsize=8)
    _bare(axes)


def forest_figure(forest: Forest) -> Figure:
    """Effect of a contrast on every corpus with its interval, and the random-effects mean with its prediction."""
    effects = forest.effects
    summary = forest.summary
    together = not math.isnan(summary.effect.value)
    figure = _figure(7.6, 0.75 + 0.3 * (len(effects) + 1.6 * together))
    axes = figure.subplots()
    places = [len(effects) - 1 - place for place in range(len(effects))]
    for place, item in zip(places, effects, strict=True):
        _whisker(axes, item.effect, place, colour=INK)
        axes.plot(item.effect.value, place, "s", color=STAGE_COLOURS[2], markersize=5.5)
    labels = [f"{item.corpus}  ({item.people:,})" for item in effects]
    if together:
        at = -1.5
        mean = summary.effect
        if not math.isnan(summary.prediction.low):
            axes.plot([summary.prediction.low, summary.prediction.high], [at, at], color=QUIET, linewidth=1.2)
        if not math.isnan(mean.low):
            corners = ([mean.low, mean.value, mean.high, mean.value], [at, at + 0.28, at, at - 0.28])
            axes.fill(*corners, color=STAGE_COLOURS[4])
        else:
            axes.plot(mean.value, at, "D", color=STAGE_COLOURS[4], markersize=6)
        places, labels = [*places, at], [*labels, f"together  ({sum(item.people for item in effects):,})"]
    axes.set_yticks(places, labels)
    axes.set_ylim(-2.2 if together else -0.7, len(effects) - 0.4)
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.grid(axis="x", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(_signed))
    axes.tick_params(axis="y", length=0, labelsize=9)
    axes.tick_params(axis="x", labelsize=9)
    axes.set_xlabel(f"{forest.contrast}: effect in macro-F1 (people)", fontsize=9)
    _bare(axes)
    axes.spines["left"].set_visible(False)
    return figure


def _signed(value: float, _position: int | None) -> str:
    return "0" if abs(value) < 1e-12 else f"{value:+.3g}".replace("-", "−")


def _whisker(axes: Axes, estimate: Estimate, place: float, *, colour: str) -> None:
    if not math.isnan(estimate.low):
        axes.plot([estimate.low, estimate.high], [place, place], color=colour, linewidth=1.3)


def _figure(width: float, height: float) -> Figure:
    """An empty figure, size in inches."""
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.05)
    return Figure(figsize=(width, height), layout=layout, facecolor="white")


def _bare(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
