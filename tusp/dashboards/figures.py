"""Pictures: confusion matrix, hypnogram with hypnodensity, training curves, ablation effects, leaderboard.

Figures are made without pyplot, so they keep no global state and need no display: save them with
``figure.savefig(path)``. Colours are told apart by colour-blind readers and in grey.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tusp.dashboards.figure_style import (
    ALARM,
    DPI,
    GRID,
    INK,
    QUIET,
    STAGE_COLOURS,
    bare,
    new_figure,
    score_text,
    signed_text,
    titled,
    whisker,
    wrapped,
)
from tusp.dashboards.leaderboard import Board, Row
from tusp.dashboards.predictions import read_prediction
from tusp.dashboards.wide_figures import (
    ablation_heatmap,
    class_figure,
    critical_difference_figure,
    forest_figure,
    matrix_figure,
)
from tusp.platform.scoring.counts import add_counts, checked_counts
from tusp.platform.scoring.metrics import metrics
from tusp.platform.stages import EPOCH_SECONDS, N_STAGES, STAGE_NAMES, UNSCORED
from tusp.platform.store.queries import CellRecord
from tusp.platform.store.record import CurveRow

__all__ = [
    "ALARM",
    "DPI",
    "INK",
    "QUIET",
    "STAGE_COLOURS",
    "ablation_figure",
    "ablation_heatmap",
    "cell_pictures",
    "class_figure",
    "confusion_figure",
    "critical_difference_figure",
    "curves_figure",
    "forest_figure",
    "hypnogram_figure",
    "leaderboard_figure",
    "matrix_figure",
]

HYPNOGRAM_ORDER: Final = (0, 4, 1, 2, 3)
"""Stages from top to bottom of a hypnogram: W, REM, N1, N2, N3."""

ROW_STYLES: Final = {
    "arm": (STAGE_COLOURS[2], "o"),
    "imported": ("#B5761B", "s"),
    "human mean": (STAGE_COLOURS[4], "D"),
    "human": (STAGE_COLOURS[4], "d"),
    "baseline": (QUIET, "o"),
}
"""Colour and marker of each kind of row in the leaderboard."""


def confusion_figure(counts: npt.ArrayLike, *, title: str) -> Figure:
    """Confusion matrix, each row divided by its true epochs (three decimals), with the epochs beneath.

    Args:
        counts: [5, 5] epochs by true (row) and predicted stage.
        title: above the picture.
    """
    matrix = checked_counts(counts)
    totals = matrix.sum(1)
    shares = np.divide(matrix, totals[:, None], out=np.full(matrix.shape, np.nan), where=totals[:, None] > 0)
    figure = new_figure(6.2, 5.4)
    axes = figure.subplots()
    image = axes.imshow(np.ma.masked_invalid(shares), cmap="Blues", vmin=0, vmax=1)
    axes.set_facecolor("#F0F0F0")
    for true in range(N_STAGES):
        for predicted in range(N_STAGES):
            share, epochs = shares[true, predicted], int(matrix[true, predicted])
            colour = "white" if share > 0.55 else INK
            if math.isnan(share):
                axes.text(predicted, true, "–", ha="center", va="center", color=QUIET, fontsize=11)
                continue
            weight = "bold" if true == predicted else "normal"
            axes.text(
                predicted, true - 0.1, f"{share:.3f}",
                ha="center", va="center", color=colour, fontsize=11, fontweight=weight,
            )  # fmt: skip
            axes.text(predicted, true + 0.22, f"{epochs:,}", ha="center", va="center", color=colour, fontsize=7.5)
    axes.set_xticks(range(N_STAGES), STAGE_NAMES)
    axes.set_yticks(range(N_STAGES), [f"{name}\n{n:,}" for name, n in zip(STAGE_NAMES, totals, strict=True)])
    axes.set_xlabel("predicted stage")
    axes.set_ylabel("true stage (number of epochs)")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xticks(np.arange(N_STAGES - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(N_STAGES - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    bar = figure.colorbar(image, ax=axes, fraction=0.045, pad=0.03)
    bar.set_label("share of the true stage's epochs")
    bar.outline.set_visible(False)
    scored = metrics(matrix)
    axes.set_title(titled(title, f"macro-F1 {score_text(scored.macro_f1)}   accuracy {score_text(scored.accuracy)}   "
                                  f"kappa {score_text(scored.kappa)}   {scored.n_epochs:,} epochs"),
                   loc="left", fontsize=10)  # fmt: skip
    return figure


def hypnogram_figure(
    true: npt.NDArray[np.integer],
    predicted: npt.NDArray[np.integer],
    probabilities: npt.NDArray[np.floating] | None,
    *,
    title: str,
    first_epoch: int = 0,
) -> Figure:
    """True and predicted hypnogram above each other, disagreement between them, hypnodensity below.

    Args:
        true: stages [n_epochs], -1 where unscored (drawn as a gap).
        predicted: stages [n_epochs].
        probabilities: [n_epochs, 5], stacked in the order W, N1, N2, N3, REM; None leaves the hypnodensity out.
        title: above the picture.
        first_epoch: index of the first epoch in the recording, so the axis shows hours of recording.
    """
    if true.shape != predicted.shape or (probabilities is not None and probabilities.shape != (*true.shape, N_STAGES)):
        raise ValueError("hypnograms and probabilities of one night have the same number of epochs")
    hours = (first_epoch + np.arange(true.size + 1)) * EPOCH_SECONDS / 3600
    figure = new_figure(10, 5.6 if probabilities is not None else 3.9)
    ratios = [3.0, 0.35, 3.0] + ([2.6] if probabilities is not None else [])
    panels: list[Axes] = list(figure.subplots(len(ratios), sharex=True, gridspec_kw={"height_ratios": ratios}))
    _hypnogram(panels[0], hours, true, "expert")
    _hypnogram(panels[2], hours, predicted, "predicted")
    scored = true != UNSCORED
    wrong = scored & (true != predicted)
    _strip(panels[1], hours, wrong)
    if probabilities is not None:
        _hypnodensity(panels[3], hours, probabilities)
    for panel in panels[:-1]:
        panel.tick_params(axis="x", length=0)
    panels[-1].set_xlabel("hours of the recording")
    panels[-1].set_xlim(hours[0], hours[-1])
    panels[-1].xaxis.set_major_locator(MaxNLocator(12, steps=[1, 2, 5, 10]))
    agreement = 1 - wrong.sum() / scored.sum() if scored.any() else math.nan
    said = f"agreement {score_text(float(agreement))} of {int(scored.sum()):,} scored epochs; red: they differ"
    panels[0].set_title(titled(title, said), loc="left", fontsize=10)
    return figure


def curves_figure(curve: Sequence[CurveRow], *, title: str, best_pass: int | None = None) -> Figure:
    """Loss and validation scores over the passes, the kept pass marked."""
    figure = new_figure(8.4, 3.6)
    left, right = figure.subplots(1, 2)
    passes = [point.pass_number for point in curve]
    marker = "o" if len(passes) <= 40 else ""
    style = {"marker": marker, "markersize": 3.5, "linewidth": 1.8}

    def line(axes: Axes, values: Sequence[float | None], colour: str, label: str, *, dashed: bool = False) -> None:
        numbers = [math.nan if value is None else value for value in values]
        if not all(math.isnan(value) for value in numbers):
            axes.plot(passes, numbers, color=colour, label=label, linestyle="--" if dashed else "-", **style)  # type: ignore[arg-type]

    line(left, [point.train_loss for point in curve], STAGE_COLOURS[2], "training")
    line(left, [point.validation_loss for point in curve], STAGE_COLOURS[0], "validation", dashed=True)
    line(right, [point.validation_macro_f1 for point in curve], STAGE_COLOURS[3], "macro-F1")
    line(right, [point.validation_accuracy for point in curve], STAGE_COLOURS[4], "accuracy", dashed=True)
    left.set_ylabel("loss")
    right.set_ylabel("validation score")
    right.set_ylim(0, 1)
    for axes in (left, right):
        axes.set_xlabel("pass over the training data")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color=GRID, linewidth=0.8)
        if best_pass is not None:
            axes.axvline(best_pass, color=QUIET, linewidth=1, linestyle=":", label=f"kept: pass {best_pass}")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure


def ablation_figure(board: Board) -> Figure:
    """Effect of every contrast in macro-F1 with its interval, and in F1 of each stage."""
    rows = board.contrasts
    figure = new_figure(9.5, 1.9 + 0.62 * max(1, len(rows)))
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.35], sharey=True)
    places = np.arange(len(rows))[::-1].astype(float)
    for place, contrast in zip(places, rows, strict=True):
        sure = contrast.p_holm <= 0.05
        left.barh(place, contrast.effect.value, height=0.5, color=STAGE_COLOURS[2] if sure else "#C5D3DE")
        whisker(left, contrast.effect, place, colour=INK)
        for code, stage in enumerate(contrast.stages):
            at = place + 0.3 - 0.15 * code
            right.plot(stage.effect.value, at, "o", color=STAGE_COLOURS[code], markersize=4.5)
            whisker(right, stage.effect, at, colour=STAGE_COLOURS[code], caps=0)
    left.set_yticks(places, [wrapped(contrast.name) for contrast in rows])
    left.set_xlabel("effect in macro-F1, mean over people")
    right.set_xlabel("effect in F1 of each stage")
    for axes in (left, right):
        axes.axvline(0, color=INK, linewidth=0.9)
        axes.grid(axis="x", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.xaxis.set_major_formatter(FuncFormatter(signed_text))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.tick_params(axis="x", labelsize=9)
        axes.tick_params(axis="y", length=0)
        bare(axes)
    left.set_ylim(-0.6, len(rows) - 0.4)
    for code, name in enumerate(STAGE_NAMES):
        right.plot([], [], "o", color=STAGE_COLOURS[code], markersize=4.5, label=name)
    right.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.suptitle(
        titled(board.title, "95 % intervals over people; dark bars: p after Holm at most .05"), x=0.01, ha="left",
        fontsize=9,
    )  # fmt: skip
    return figure


def leaderboard_figure(board: Board) -> Figure:
    """Pooled macro-F1, accuracy and kappa of every arm with intervals, best first."""
    rows = board.rows
    labels = [_row_label(row) for row in rows]
    tallest = max((label.count("\n") + 1 for label in labels), default=1)
    figure = new_figure(10.5, 1.7 + max(0.5, 0.19 * tallest) * max(1, len(rows)))
    panels = figure.subplots(1, 3, sharey=True)
    places = np.arange(len(rows))[::-1].astype(float)
    for axes, metric, label in zip(
        panels, ("macro_f1", "accuracy", "kappa"), ("macro-F1", "accuracy", "kappa"), strict=True
    ):
        low, high = _span(rows, metric)
        axes.set_xlim(low, high)
        for place, row in zip(places, rows, strict=True):
            colour, marker = ROW_STYLES[row.kind]
            estimate = row.scores.overall[metric]
            said = score_text(estimate.value)
            if math.isnan(estimate.value) or estimate.value < low:
                # Far below (the baseline) or not scored: said at the edge, so the arms keep the room.
                axes.text(0.03, place, said if math.isnan(estimate.value) else f"◂ {said}", color=QUIET,
                          fontsize=8.5, va="center", transform=axes.get_yaxis_transform())  # fmt: skip
                continue
            axes.plot(estimate.value, place, marker, color=colour, markersize=6, clip_on=False)
            whisker(axes, estimate, place, colour=colour)
            # Near an edge the figure is written towards the middle, so that it is not cut.
            share = (estimate.value - low) / (high - low)
            side: Literal["left", "center", "right"] = "left" if share < 0.1 else "right" if share > 0.9 else "center"
            axes.annotate(
                said, (estimate.value, place), xytext=(0, 6), textcoords="offset points",
                ha=side, va="bottom", fontsize=8.5, color=INK,
            )  # fmt: skip
        axes.set_xlabel(label)
        axes.grid(axis="x", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.tick_params(axis="x", labelsize=9)
        axes.tick_params(axis="y", length=0)
        bare(axes)
    panels[0].set_yticks(places, labels)
    panels[0].set_ylim(-0.6, len(rows) - 0.4)
    figure.suptitle(titled(board.title, "pooled over epochs, 95 % intervals over people"), x=0.01, ha="left",
                    fontsize=9)  # fmt: skip
    return figure


def cell_pictures(record: CellRecord, *, home: Path, rule: str = "trim30") -> dict[str, Figure]:
    """Pictures of a done cell for the MLflow mirror, by name without suffix.

    ``confusion`` (pooled over its test recordings), ``curves``, and for each corpus it was judged on
    ``hypnogram-<corpus>-<recording>`` of the recording with the median accuracy (neither the best nor the worst).

    Args:
        record: the cell with its counts, curve and artefacts.
        home: TUSP_HOME, to which artefact paths are relative.
        rule: scoring rule of the confusion matrix.

    Raises:
        DataError: a prediction file is missing or not what it should be.
    """
    nights = "SIMULATED nights" if record.simulated else "real nights"
    name = f"{record.corpus} · {nights} · {record.arm} · fold {record.fold} · seed {record.seed}"
    pictures: dict[str, Figure] = {}
    ruled = [row for row in record.counts if row.rule == rule and row.channels == "vote"]
    for corpus in sorted({row.corpus for row in ruled}):
        here = [row for row in ruled if row.corpus == corpus]
        only = len({row.corpus for row in ruled}) == 1
        pictures["confusion" if only else f"confusion-{corpus}"] = confusion_figure(
            add_counts(row.matrix for row in here), title=f"{name}\njudged on {corpus} · rule {rule}"
        )
        accuracies = sorted((metrics(row.matrix).accuracy, row.recording) for row in here if np.sum(row.matrix))
        files = {item.recording: item.path for item in record.artefacts if item.kind == "predictions"}
        if accuracies and (path := files.get(f"{corpus}/{accuracies[len(accuracies) // 2][1]}")):
            recording = accuracies[len(accuracies) // 2][1]
            night = read_prediction(home / path)
            pictures[f"hypnogram-{corpus}-{recording}"] = hypnogram_figure(
                night.true,
                night.predicted,
                night.probabilities,
                title=f"{name} · {recording}",
                first_epoch=night.first_epoch,
            )
    if record.curve:
        best = (record.result or {}).get("best_pass")
        pictures["curves"] = curves_figure(record.curve, title=name, best_pass=best)
    return pictures


def _span(rows: Sequence[Row], metric: str) -> tuple[float, float]:
    """Limits of an axis that shows the intervals of all rows but the baseline, which may lie outside."""
    values = [row.scores.overall[metric] for row in rows if row.kind != "baseline"]
    known = [end for item in values for end in (item.value, item.low, item.high) if not math.isnan(end)]
    if not known:
        return 0.0, 1.0
    room = max(0.02, 0.25 * (max(known) - min(known)))
    # Just beyond 1, so that a mark there is whole and no tick says more than 1.
    return min(known) - room, min(max(known) + room, 1.0 + 0.02 * room)


def _row_label(row: Row) -> str:
    if row.kind not in {"arm", "baseline"}:
        said = row.kind if row.unranked is None or row.kind != "imported" else f"{row.kind}, not ranked"
        return wrapped(row.name) if said in row.name else f"{wrapped(row.name)}\n({said})"
    if row.folds_done == row.folds_planned:
        return wrapped(row.name)
    return f"{wrapped(row.name)}\n({row.folds_done}/{row.folds_planned} folds)"


def _hypnogram(axes: Axes, hours: npt.NDArray[np.floating], stages: npt.NDArray[np.integer], name: str) -> None:
    level = np.full(N_STAGES + 1, np.nan)
    level[list(HYPNOGRAM_ORDER)] = np.arange(N_STAGES)[::-1]
    heights = level[stages]  # code -1 takes the last place, which is NaN: a gap
    axes.stairs(heights, hours, baseline=None, color=INK, linewidth=1.0)
    starts = np.flatnonzero(np.diff(stages, prepend=np.iinfo(np.int8).min))
    ends = np.append(starts[1:], stages.size)
    for code, colour in enumerate(STAGE_COLOURS):
        runs = stages[starts] == code
        axes.hlines(
            level[code] * np.ones(runs.sum()), hours[starts[runs]], hours[ends[runs]],
            color=colour, linewidth=4.5, capstyle="butt",
        )  # fmt: skip
    names = [STAGE_NAMES[code] for code in HYPNOGRAM_ORDER]
    axes.set_yticks(range(N_STAGES)[::-1], names)
    axes.set_ylim(-0.6, N_STAGES - 0.4)
    axes.set_ylabel(name)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    bare(axes)


def _strip(axes: Axes, hours: npt.NDArray[np.floating], wrong: npt.NDArray[np.bool_]) -> None:
    axes.stairs(wrong.astype(float), hours, fill=True, color=ALARM)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.set_facecolor("#F3F4F5")
    bare(axes)


def _hypnodensity(axes: Axes, hours: npt.NDArray[np.floating], probabilities: npt.NDArray[np.floating]) -> None:
    upper = np.cumsum(probabilities.astype(np.float64), axis=1)
    lower = np.zeros(len(upper))
    for code, name in enumerate(STAGE_NAMES):
        axes.stairs(upper[:, code], hours, baseline=lower, fill=True, color=STAGE_COLOURS[code], label=name)
        lower = upper[:, code]
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel("probability")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8, reverse=True)
    bare(axes)
