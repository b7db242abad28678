"""The figures of a report's page: leaderboard, contrasts, forest plot, critical differences, training curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Final

import numpy as np

from tusp.dashboards.across import Forest, RankDiagram
from tusp.dashboards.drawing import Canvas, Scale, span, text_width, tick_text, whisker, x_axis
from tusp.dashboards.extras import TrainingCurve, TrainingGroup
from tusp.dashboards.leaderboard import Board, Row
from tusp.dashboards.tables import interval, number
from tusp.platform.scoring.statistics import Estimate
from tusp.platform.stages import STAGE_NAMES

WIDEST_LABEL: Final = 250.0
MOST_LINES: Final = 40
"""With more training curves than this in a panel, their median and range are drawn instead."""

PANELS: Final = 4
"""Panels of training curves side by side."""

_SHAPES: Final = {"imported": "square", "human mean": "diamond", "human": "diamond"}
_STAGE_CLASSES: Final = ("w", "n1", "n2", "n3", "rem")


def leaderboard_chart(board: Board, *, alt: str) -> str:
    """Pooled macro-F1, accuracy and kappa of every row with intervals, in the order of the board.

    A row far below the others (the baseline) is said at the edge, so that the others keep the room.
    """
    rows = board.rows
    labels = [(row.name, _said_of(row)) for row in rows]
    left = _label_room([text for pair in labels for text in pair])
    panel, gap, step, top = 226.0, 26.0, 34.0, 6.0
    bottom = top + step * len(rows)
    canvas = Canvas(left + 3 * panel + 2 * gap + 16, bottom + 42)
    for place, (name, under) in enumerate(labels):
        y = top + step * (place + 0.5)
        canvas.text(left - 12, y - (7 if under else 0), name, "right", room=left - 12)
        if under:
            canvas.text(left - 12, y + 8, under, "small quiet right", room=left - 12)
    for column, (metric, label) in enumerate((("macro_f1", "macro-F1"), ("accuracy", "accuracy"), ("kappa", "kappa"))):
        start = left + column * (panel + gap)
        low, high = _limits(rows, metric)
        scale = Scale(low=low, high=high, start=start, stop=start + panel)
        x_axis(canvas, scale, top, bottom, label)
        for place, row in enumerate(rows):
            y = top + step * (place + 0.5) + 6
            _score(canvas, scale, row, row.scores.overall[metric], y)
    return canvas.svg(alt)


def _score(canvas: Canvas, scale: Scale, row: Row, estimate: Estimate, y: float) -> None:
    said = number(estimate.value)
    if math.isnan(estimate.value) or estimate.value < scale.low:
        canvas.text(scale.start + 5, y, f"◂ {said}" if estimate.value < scale.low else "not scored", "small quiet")
        return
    x = scale(estimate.value)
    cls = row.kind.replace(" ", "-")
    whisker(canvas, scale, estimate, y, f"k-{cls} bar", cap=3)
    canvas.dot(x, y, f"k-{cls}", radius=3.6, shape=_SHAPES.get(row.kind, "circle"))
    # Never beyond the panel, where the next one begins or the page ends.
    half = text_width(said, size=11) / 2 + 2
    canvas.text(min(max(x, scale.start + half), scale.stop - half), y - 14, said, "small middle")


def _limits(rows: Sequence[Row], metric: str) -> tuple[float, float]:
    values = [row.scores.overall[metric] for row in rows if row.kind != "baseline"]
    low, high = span(values, room=0.2, least=0.02)
    return low, min(1.0 + 0.02 * (1.0 - low), high)


def _said_of(row: Row) -> str:
    """What stands under a name: its kind, or how many folds are done where some are missing."""
    if row.kind not in {"arm", "baseline"}:
        said = row.kind if row.unranked is None or row.kind != "imported" else f"{row.kind}, not ranked"
        return "" if said in row.name else said
    return "" if row.folds_done == row.folds_planned else f"{row.folds_done} of {row.folds_planned} folds"


def contrast_chart(board: Board, *, alt: str) -> str:
    """Effect of every contrast in macro-F1 with its interval, and in F1 of each stage."""
    rows = board.contrasts
    left = _label_room([row.name for row in rows])
    width, other, gap, step, top = 290.0, 380.0, 30.0, 62.0, 26.0
    bottom = top + step * len(rows)
    canvas = Canvas(left + width + gap + other + 16, bottom + 42)
    effects = Scale(**_ends([row.effect for row in rows]), start=left, stop=left + width)
    x_axis(canvas, effects, top, bottom, "effect in macro-F1, mean over people", signed=True)
    start = left + width + gap
    stages = Scale(
        **_ends([stage.effect for row in rows for stage in row.stages]), start=start, stop=start + other
    )  # fmt: skip
    x_axis(canvas, stages, top, bottom, "effect in F1 of each stage", signed=True)
    x = start
    for stage, cls in zip(STAGE_NAMES, _STAGE_CLASSES, strict=True):
        canvas.dot(x + 4, 10, f"s-{cls}", radius=3.6)
        canvas.text(x + 13, 10, stage, "small")
        x += 26 + text_width(stage, size=11)
    for place, row in enumerate(rows):
        y = top + step * (place + 0.5)
        canvas.text(left - 12, y, row.name, "right", room=left - 12)
        if place:
            canvas.line(start, y - step / 2, start + other, y - step / 2, "grid")
        _bar(canvas, effects, row.effect, y, sure=row.p_holm <= 0.05)
        for code, (item, cls) in enumerate(zip(row.stages, _STAGE_CLASSES, strict=True)):
            at = y + 10.5 * (code - 2)
            if not math.isnan(item.effect.value):
                whisker(canvas, stages, item.effect, at, f"s-{cls} bar")
                canvas.dot(stages(item.effect.value), at, f"s-{cls}", radius=3.2)
    return canvas.svg(alt)


def _bar(canvas: Canvas, scale: Scale, effect: Estimate, y: float, *, sure: bool) -> None:
    if math.isnan(effect.value):
        return
    zero, end = scale(0.0), scale(effect.value)
    canvas.box(min(zero, end), y - 13, abs(end - zero), 26, "sure" if sure else "unsure")
    whisker(canvas, scale, effect, y, "ink bar", cap=3.5)


def _ends(estimates: Sequence[Estimate]) -> dict[str, float]:
    low, high = span(estimates, zero=True, least=0.0005)
    return {"low": low, "high": high}


def forest_chart(forest: Forest, *, alt: str) -> str:
    """Effect of one contrast on every corpus with interval and people, the random-effects mean as a diamond, and the
    prediction interval as a thin bar below it."""
    effects, summary = forest.effects, forest.summary
    known = not math.isnan(summary.effect.value)
    predicted = known and not math.isnan(summary.prediction.low)
    lines = [(item.corpus, f"{item.people:,} people", item.effect) for item in effects]
    if known:
        lines.append(("together", f"{summary.corpora} corpora", summary.effect))
    if predicted:
        lines.append(("one more corpus", "", summary.prediction))
    left = _label_room([text for name, under, _ in lines for text in (name, under)])
    width, step, top = 430.0, 32.0, 6.0
    bottom = top + step * len(lines)
    right = 12 + max((text_width(_in_numbers(item), size=11) for *_, item in lines), default=0.0)
    canvas = Canvas(left + width + right + 8, bottom + 42)
    scale = Scale(**_ends([item for *_, item in lines]), start=left, stop=left + width)
    x_axis(canvas, scale, top, bottom, "effect in macro-F1, mean over people, 95 % interval", signed=True)
    precise = [1 / item.variance if item.variance > 0 else 0.0 for item in effects]
    most = max(precise, default=0.0) or 1.0
    for place, (name, under, estimate) in enumerate(lines):
        y = top + step * (place + 0.5)
        canvas.text(left - 12, y - (7 if under else 0), name, "right", room=left - 12)
        if under:
            canvas.text(left - 12, y + 8, under, "small quiet right")
        shown = estimate if place < len(effects) + 1 else Estimate(value=math.nan, low=estimate.low, high=estimate.high)
        canvas.text(left + width + 12, y, _in_numbers(shown), "small")
        if place < len(effects):
            whisker(canvas, scale, estimate, y, "ink bar")
            if not math.isnan(estimate.value):
                radius = 2.5 + 4 * math.sqrt(precise[place] / most)
                canvas.dot(scale(estimate.value), y, "s-n2", radius=radius, shape="square")
        elif place == len(effects):
            canvas.line(left, y - step / 2, left + width, y - step / 2, "grid")
            low, middle, high = scale(estimate.low), scale(estimate.value), scale(estimate.high)
            canvas.path([(low, y), (middle, y - 8), (high, y), (middle, y + 8)], "s-n3", closed=True)
        else:
            whisker(canvas, scale, estimate, y, "s-n3 thick")
    return canvas.svg(alt)


def _in_numbers(estimate: Estimate) -> str:
    ends = interval(estimate, signed=True)
    if math.isnan(estimate.value):
        return ends or number(math.nan)
    return f"{number(estimate.value, signed=True)}{f'  ({ends})' if ends else ''}"


def rank_chart(diagram: RankDiagram, *, alt: str) -> str:
    """Mean ranks of arms on a line, the best on the right; bars join arms within the critical difference."""
    arms = diagram.ranks
    worse = [item for item in arms if item[1] > (len(arms) + 1) / 2][::-1]
    better = [item for item in arms if item not in worse]
    side = _label_room([f"{arm}  0.00" for arm, _ in arms])
    width, line = 420.0, 62.0
    first = line + 22 + 11 * len(diagram.groups)
    canvas = Canvas(2 * side + width, first + 22 * max(len(worse), len(better)) + 6)
    scale = Scale(low=len(arms), high=1, start=side, stop=side + width)
    reach = min(diagram.critical_difference, len(arms) - 1.0)
    more = "" if reach == diagram.critical_difference else ", longer than the axis"
    canvas.line(scale(len(arms)), 12, scale(len(arms) - reach), 12, "ink thick")
    said = f"critical difference {diagram.critical_difference:.2f}{more}"
    at = scale(len(arms) - reach) + 8
    # Beside the bar where there is room, else beneath.
    beneath = at + text_width(said, size=11) > canvas.width
    canvas.text(side if beneath else at, 28 if beneath else 12, said, "small")
    canvas.line(side, line, side + width, line, "axis")
    for rank in range(1, len(arms) + 1):
        canvas.line(scale(rank), line - 5, scale(rank), line, "axis")
        canvas.text(scale(rank), line - 15, str(rank), "small middle")
    for level, group in enumerate(diagram.groups):
        ranks = [rank for arm, rank in arms if arm in group]
        y = line + 11 * (level + 1)
        canvas.line(scale(max(ranks)) - 4, y, scale(min(ranks)) + 4, y, "s-n2 thick")
    for members, edge, cls in ((worse, side - 8, "right"), (better, side + width + 8, "")):
        for row, (arm, mean) in enumerate(members):
            y = first + 22 * row
            end = edge + (4 if cls else -4)
            canvas.path([(scale(mean), line), (scale(mean), y), (end, y)], "lead")
            canvas.text(edge, y, f"{arm}  {mean:.2f}", cls, room=side - 10)
    return canvas.svg(alt)


def training_chart(group: TrainingGroup, *, alt: str) -> str:
    """Validation macro-F1 over the passes of training: a panel for each arm, a line for each fold and seed; of many
    lines their median and range."""
    arms: dict[tuple[str, str], list[TrainingCurve]] = {}
    for curve in group.curves:
        arms.setdefault((curve.arm, curve.settings), []).append(curve)
    names = [arm for arm, _ in arms]
    columns = min(PANELS, len(arms))
    n_rows = math.ceil(len(arms) / columns)
    left, panel, height, gap, top = 56.0, 218.0, 118.0, 18.0, 22.0
    step = top + height + 22
    canvas = Canvas(left + columns * panel + (columns - 1) * gap + 12, n_rows * step + 22)
    scores = np.fromiter(chain.from_iterable(curve.macro_f1 for curve in group.curves), dtype=np.float64)
    scored = scores[~np.isnan(scores)]
    low, high = span(
        [Estimate(value=float(end)) for end in (scored.min(), scored.max())] if scored.size else [], room=0.05
    )
    longest = max(max(curve.passes) for curve in group.curves)
    for place, ((arm, settings), curves) in enumerate(arms.items()):
        row, column = divmod(place, columns)
        x, y = left + column * (panel + gap), row * step + top
        across = Scale(low=min(1, longest - 1), high=longest, start=x, stop=x + panel)
        up = Scale(low=low, high=high, start=y + height, stop=y)
        said = arm if names.count(arm) == 1 else f"{arm} {settings[:6]}"
        canvas.text(x, y - 11, said, "", room=panel)
        ticks = up.ticks(4)
        for tick in ticks:
            canvas.line(x, up(tick), x + panel, up(tick), "grid")
            if column == 0:
                canvas.text(x - 8, up(tick), tick_text(tick, ticks), "small quiet right")
        for tick in across.ticks(5):
            if tick == int(tick):
                canvas.text(across(tick), y + height + 12, f"{int(tick)}", "small quiet middle")
        canvas.line(x, y + height, x + panel, y + height, "axis")
        if place + columns >= len(arms):
            canvas.text(x + panel / 2, y + height + 28, "pass", "small middle")
        _curves(canvas, across, up, curves)
    return canvas.svg(alt)


def _curves(canvas: Canvas, across: Scale, up: Scale, curves: Sequence[TrainingCurve]) -> None:
    if len(curves) <= MOST_LINES:
        for curve in curves:
            _polyline(canvas, across, up, dict(zip(curve.passes, curve.macro_f1, strict=True)), "s-n2 thin")
            if curve.best_pass in curve.passes:
                best = curve.macro_f1[curve.passes.index(curve.best_pass)]
                if not math.isnan(best):
                    canvas.dot(across(float(curve.best_pass or 0)), up(best), "s-n2", radius=2.4)
        return
    table = np.full((len(curves), max(max(curve.passes) for curve in curves)), np.nan)
    places = np.repeat(np.arange(len(curves)), [len(curve.passes) for curve in curves])
    columns = np.fromiter(chain.from_iterable(curve.passes for curve in curves), dtype=np.intp) - 1
    table[places, columns] = np.fromiter(chain.from_iterable(curve.macro_f1 for curve in curves), dtype=np.float64)
    passes = np.flatnonzero(~np.isnan(table).all(0))
    if passes.size:
        known = table[:, passes]
        numbers = (passes + 1).tolist()
        # NumPy looks for NaN one column after another.
        median = np.nanmedian if np.isnan(known).any() else np.median
        lowest, middle, highest = np.nanmin(known, 0).tolist(), median(known, 0).tolist(), np.nanmax(known, 0).tolist()
        edge = [*zip(numbers, highest, strict=True), *reversed(list(zip(numbers, lowest, strict=True)))]
        canvas.path([(across(n), up(value)) for n, value in edge], "band", closed=True)
        _polyline(canvas, across, up, dict(zip(numbers, middle, strict=True)), "s-n2 bar")


def _polyline(canvas: Canvas, across: Scale, up: Scale, points: Mapping[int, float], cls: str) -> None:
    shown = [(across(n), up(value)) for n, value in points.items() if not math.isnan(value)]
    if len(shown) > 1:
        canvas.path(shown, f"{cls} open")
    elif shown:
        canvas.dot(*shown[0], cls.split()[0], radius=2)


def _label_room(labels: Sequence[str]) -> float:
    """Room on the left for the longest label."""
    return min(WIDEST_LABEL, max((text_width(label) for label in labels), default=0.0)) + 14
