"""Pictures that only a report's page shows: training curves of all folds."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tusp.dashboards.extras import TrainingCurve, TrainingGroup
from tusp.dashboards.figure_style import GRID, STAGE_COLOURS, bare, new_figure

MOST_LINES: Final = 40
"""With more curves than this in a panel, their median and range are drawn instead."""

COLUMNS: Final = 4
"""Panels side by side."""


def training_figure(group: TrainingGroup) -> Figure:
    """Validation macro-F1 over the passes of training: a panel for each arm, a line for each fold and seed."""
    arms: dict[tuple[str, str], list[TrainingCurve]] = {}
    for curve in group.curves:
        arms.setdefault((curve.arm, curve.settings), []).append(curve)
    names = [arm for arm, _ in arms]
    columns = min(COLUMNS, len(arms))
    rows = math.ceil(len(arms) / columns)
    figure = new_figure(max(4.2, 2.6 * columns), 0.3 + 2.1 * rows)
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
    axes.grid(color=GRID, linewidth=0.8)
    axes.tick_params(labelsize=8)
    bare(axes)
