"""A report as data: the JSON document (docs/report.schema.json) and the long frame behind the CSV (docs/report.md)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from tusp.dashboards.across import Forest, Matrix, RankDiagram
from tusp.dashboards.contents import entry_lines, submission_line
from tusp.dashboards.contrast import Contrast
from tusp.dashboards.costs import FIGURES, Cost
from tusp.dashboards.entries import CeilingNote
from tusp.dashboards.leaderboard import Board, Row
from tusp.dashboards.published import PublishedRow
from tusp.dashboards.report import Report
from tusp.dashboards.report_notes import NightsNote
from tusp.dashboards.suites import SuiteTable
from tusp.platform.scoring.evidence import FoldTest, PairTest, VarianceComponents
from tusp.platform.scoring.sleep_statistics import UNITS, Agreement
from tusp.platform.scoring.statistics import CONFIDENCE, Estimate
from tusp.platform.stages import STAGE_NAMES

if TYPE_CHECKING:
    import pandas as pd

SCHEMA: Final = "tusp-report/1"
"""Name and version of the JSON document; the number is raised when a field changes its meaning."""

FRAME_COLUMNS: Final = (
    "simulated", "experiment", "trained_on", "judged_on", "protocol", "folds", "recipe", "rule", "split",
    "kind", "name", "aggregation", "metric", "stage", "value", "low", "high", "sd", "p", "p_holm", "people", "text",
)  # fmt: skip

WHOLE_COLUMNS: Final = ("folds", "people")
"""Of these, the columns of whole numbers."""


def report_document(report: Report) -> dict[str, Any]:
    """The report as one JSON document; null means not scored."""
    document = {
        "schema": SCHEMA,
        "rule": report.rule,
        "selection": {
            "all": report.everything,
            "corpus": report.corpus,
            "superseded_cells": report.superseded,
        },
        "bootstrap": {
            "unit": "person",
            "resamples": report.bootstrap,
            "seed": report.seed,
            "confidence": CONFIDENCE,
        },
        "submissions": [
            {
                **_fields(item, "id", "state", "simulated", "request", "environment"),
                "created_at": item.created_at.isoformat(),
            }
            for item in report.submissions
        ],
        "counted": "kept predictions" if report.recomputed else "store",
        "boards": [_board(board) for board in report.boards],
        "across": {
            "forests": [_forest(forest) for forest in report.across.forests],
            "rank_diagrams": [_diagram(diagram) for diagram in report.across.diagrams],
            "matrices": [_matrix(matrix) for matrix in report.across.matrices],
            "notes": list(report.across.notes),
        },
        "suite": None if report.suite is None else _suite(report.suite),
        "nights": [_nights(note) for note in report.nights],
    }
    plain: dict[str, Any] = _null_for_nan(document)
    return plain


def report_frame(report: Report) -> pd.DataFrame:
    """The report as one long table, a row per figure; NaN means not scored (empty in the CSV)."""
    import pandas as pd  # only here: it takes as long to import as the rest of a report

    frame = pd.DataFrame.from_records(frame_rows(report), columns=list(FRAME_COLUMNS))
    return frame.astype(dict.fromkeys(WHOLE_COLUMNS, "Int64"))  # whole numbers although some rows have none


def frame_rows(report: Report) -> list[dict[str, Any]]:
    """The rows of :func:`report_frame`; what a row does not have is not in it."""
    rows = [row for board in report.boards for row in _frame_rows(board)]
    rows += [row for forest in report.across.forests for row in _forest_rows(forest, report.rule)]
    return rows + _made_rows(report)


def _made_rows(report: Report) -> list[dict[str, Any]]:
    """Where the figures were made: a row for each submission, and for each imported submission and its checksum."""
    rows: list[dict[str, Any]] = [
        {"simulated": note.simulated, "kind": "environment", "name": note.id, "text": submission_line(note)}
        for note in report.submissions
    ]
    simulated = any(board.key.simulated for board in report.boards)
    rows += [{"simulated": simulated, "kind": "provenance", "text": line} for line in entry_lines(report)]
    return rows


def _board(board: Board) -> dict[str, Any]:
    key = board.key
    return {
        "title": board.title,
        **_place(board),
        "trained_on": key.trained_on.split("+") if key.trained_on else [],
        "rows": [_row(row) for row in board.rows],
        "contrasts": [_contrast(contrast) for contrast in board.contrasts],
        "holes": [_fields(hole, "arm", "fold", "seed", "state", "reason") for hole in board.holes],
        "refused": [_fields(item, "corpus", "recording", "reason") for item in board.refused],
        "without_epochs": list(board.without_epochs),
        "notes": list(board.notes),
        "split_seeds": list(board.split_seeds),
        "comparison": {
            "people": board.compared_people,
            "pairs": [_pair(pair) for pair in board.pairs],
            "not_distinguishable": [list(group) for group in board.groups if len(group) > 1],
        },
        "published": [_published(row) for row in board.published],
        "human_ceiling": None if board.ceiling is None else _ceiling(board.ceiling),
    }


def _place(board: Board) -> dict[str, Any]:
    """Which board it is."""
    same = _fields(board.key, "simulated", "experiment", "trained_on", "judged_on", "protocol", "folds", "recipe")
    return {**same, "rule": board.rule, "split": board.key.split_hash}


def _fields(item: object, *names: str) -> dict[str, Any]:
    """Some fields of a record under their own names."""
    return {name: getattr(item, name) for name in names}


def _pair(pair: PairTest) -> dict[str, Any]:
    return _fields(pair, "first", "second", "effect", "p", "p_holm", "people")


def _published(row: PublishedRow) -> dict[str, Any]:
    same = _fields(row, "system", "kind", "aggregation", "protocol", "rule", "source", "note", "remark")
    return {**same, "values": dict(row.values)}


def _ceiling(ceiling: CeilingNote) -> dict[str, Any]:
    return {
        "scorers": list(ceiling.scorers),
        "best": ceiling.best,
        "ranges": {name: list(ends) for name, ends in ceiling.ranges.items()},
        "pairwise_kappa": ceiling.pairwise_kappa,
    }


def _forest(forest: Forest) -> dict[str, Any]:
    summary = forest.summary
    return {
        **_fields(forest, "title", "simulated", "contrast", "kind"),
        "corpora": [
            {
                **_fields(item, "corpus", "variance", "people", "p_holm", *_OF_EFFECT),
                "effect": _estimate(item.effect),
                "stages": {
                    stage: {"effect": _estimate(effect), "p_holm": p}
                    for stage, effect, p in zip(STAGE_NAMES, item.stages, item.stages_p_holm, strict=True)
                },
            }
            for item in forest.effects
        ],
        "random_effects": {
            **_fields(summary, "tau", "i_squared", "corpora"),
            "effect": _estimate(summary.effect),
            "prediction": _estimate(summary.prediction),
        },
    }


def _diagram(diagram: RankDiagram) -> dict[str, Any]:
    return {
        **_fields(diagram, "title", "simulated", "critical_difference", "words"),
        "corpora": list(diagram.corpora),
        "mean_ranks": dict(diagram.ranks),
        "within": [list(group) for group in diagram.groups],
    }


def _matrix(matrix: Matrix) -> dict[str, Any]:
    return {
        **_fields(matrix, "title", "simulated", "arm"),
        "trained_on": [name.split("+") for name in matrix.trained_on],
        "judged_on": list(matrix.judged_on),
        "macro_f1": [[_estimate(score) for score in scores] for scores in matrix.scores],
        "people": [list(people) for people in matrix.people],
    }


def _suite(suite: SuiteTable) -> dict[str, Any]:
    return {
        **_fields(suite, "name", "version", "title", "fixed"),
        "arms": list(suite.arms),
        "corpora": [
            {
                "corpus": item.corpus,
                "macro_f1": [_estimate(score) for score in item.scores],
                "problems": list(item.problems),
            }
            for item in suite.corpora
        ],
        "means": list(suite.means),
        "problems": list(suite.problems),
    }


def _nights(note: NightsNote) -> dict[str, Any]:
    return {
        **_fields(note, "corpus", "usable", "refused", "with_problems", "unscored_share"),
        "problems": [_fields(problem, "kind", "recordings", "example") for problem in note.problems],
    }


def _estimate(estimate: Estimate) -> dict[str, float]:
    return _fields(estimate, "value", "low", "high")


_OF_EFFECT: Final = ("parameters", "training_seconds", "macs_per_epoch", "inference_epochs_per_second")
_OF_CELLS: Final = {
    "macs_per_epoch": "total",
    "training_seconds": "total",
    "device_seconds": "total",
    "peak_memory_bytes": "highest",
    "inference_epochs_per_second": "median",
    "energy_joules": "total",
}
"""How the figures of cost are taken over cells."""
_OF_ROW: Final = (
    "name", "kind", "folds_done", "folds_planned", "people", "recordings", "epochs", "n_parameters", "n_trainable",
    "training_seconds", "macs_per_epoch", "device_seconds", "peak_memory_bytes", "inference_epochs_per_second",
    "energy_joules", "settings", "unranked", "coverage", "provenance", "protocols",
)  # fmt: skip


def _row(row: Row) -> dict[str, Any]:
    return {
        **_fields(row, *_OF_ROW),
        "pooled": {name: _estimate(estimate) for name, estimate in row.scores.overall.items()},
        "stages": {
            stage: {name: _estimate(values[code]) for name, values in row.scores.stages.items()}
            for code, stage in enumerate(STAGE_NAMES)
        },
        "per_recording": {
            name: _fields(spread, "mean", "sd", "recordings") for name, spread in row.per_recording.items()
        },
        "confusion": [list(counts) for counts in row.confusion],
        "seeds": list(row.seeds),
        "costs": [_cost(cost) for cost in row.costs],
        "rank": _estimate(row.rank),
        "variance": None if row.variance is None else _variance(row.variance),
        "sleep": {item.statistic: _agreement(item) for item in row.sleep},
    }


def _cost(cost: Cost) -> dict[str, Any]:
    figures = {name: _fields(getattr(cost, name), "value", "cells", "reason") for name in FIGURES}
    place = cost.place
    where = {
        "device": place.kind or None,
        "hardware": place.hardware or None,
        "precision": place.precision or None,
        "units": place.units or None,
        "workers": place.workers,
    }
    return {**where, "cells": cost.cells, **figures}


def _variance(parts: VarianceComponents) -> dict[str, Any]:
    return {
        "people_sd": parts.people,
        "seeds_sd": parts.seeds,
        "rest_sd": parts.rest,
        "people": parts.n_people,
        "seeds": parts.n_seeds,
    }


def _agreement(item: Agreement) -> dict[str, Any]:
    return {
        "unit": UNITS[item.statistic],
        **_fields(item, "recordings", "people"),
        "bias": _estimate(item.bias),
        "lower_limit": _estimate(item.lower),
        "upper_limit": _estimate(item.upper),
    }


_OF_CONTRAST: Final = (
    "name", "kind", "p", "p_holm", "exact", "people", "improved", "worsened", "verdict", "variance", "parameters",
    "training_seconds", "macs_per_epoch", "inference_epochs_per_second",
)  # fmt: skip


def _contrast(contrast: Contrast) -> dict[str, Any]:
    return {
        **_fields(contrast, *_OF_CONTRAST),
        "weights": dict(contrast.weights),
        "effect": _estimate(contrast.effect),
        "left_out": list(contrast.left_out),
        "pooled_effect": _estimate(contrast.pooled),
        "stages": {
            stage.stage: {**_fields(stage, "p", "p_holm", "people"), "effect": _estimate(stage.effect)}
            for stage in contrast.stages
        },
        "folds": None if contrast.folds is None else _folds(contrast.folds),
    }


def _folds(test: FoldTest) -> dict[str, Any]:
    return _fields(test, "mean", "t", "p", "folds")


def _frame_rows(board: Board) -> Iterator[dict[str, Any]]:
    key = board.key
    same = _place(board)
    for row in board.rows:
        for figure in _row_figures(row):
            yield same | {"kind": row.kind, "name": row.name} | figure
    for published in board.published:
        for name, value in published.values.items():
            metric, _, stage = name.partition("_") if name.startswith("f1_") else (name, "", "")
            yield same | {
                "kind": "published",
                "name": published.system,
                "aggregation": published.aggregation,
                "metric": metric,
                "stage": stage or None,
                "value": value,
                "text": "; ".join(text for text in (published.remark, published.note, published.source) if text),
            }
    for contrast in board.contrasts:
        for figure in _contrast_figures(contrast):
            yield same | {"kind": "contrast", "name": contrast.name} | figure
    for pair in board.pairs:
        yield same | {
            "kind": "pair",
            "name": f"{pair.first} − {pair.second}",
            "aggregation": "people",
            "metric": "macro_f1",
            "value": pair.effect,
            **_fields(pair, "p", "p_holm", "people"),
        }
    for hole in board.holes:
        text = f"fold {hole.fold}, seed {hole.seed}: {hole.state}" + (f" ({hole.reason})" if hole.reason else "")
        yield same | {"kind": "hole", "name": hole.arm, "text": text}
    for item in board.refused:
        yield same | {"kind": "refused", "name": f"{item.corpus}/{item.recording}", "text": item.reason}
    for recording in board.without_epochs:
        yield same | {"kind": "without epochs", "name": f"{key.judged_on}/{recording}"}


def _forest_rows(forest: Forest, rule: str) -> Iterator[dict[str, Any]]:
    """The random-effects summary; the effect on every corpus is in the rows of its board."""
    same = {
        "simulated": forest.simulated,
        "judged_on": "+".join(item.corpus for item in forest.effects),
        "rule": rule,
        "kind": "together",
        "name": forest.contrast,
        "metric": "macro_f1",
        "people": sum(item.people for item in forest.effects),
        "text": forest.title,
    }
    yield same | {"aggregation": "corpora", "sd": forest.summary.tau} | _estimate(forest.summary.effect)
    yield same | {"aggregation": "next corpus"} | _estimate(forest.summary.prediction)


def _row_figures(row: Row) -> Iterator[dict[str, Any]]:
    people = {"people": row.people}
    for name, estimate in row.scores.overall.items():
        yield {"aggregation": "pooled", "metric": name} | _estimate(estimate) | people
    for name, values in row.scores.stages.items():
        for stage, estimate in zip(STAGE_NAMES, values, strict=True):
            yield {"aggregation": "pooled", "metric": name, "stage": stage} | _estimate(estimate) | people
    for name, spread in row.per_recording.items():
        figure = {"metric": name, "value": spread.mean, "sd": spread.sd}
        yield {"aggregation": "recordings"} | figure | people
    if row.kind != "baseline":
        yield {"aggregation": "total", "metric": "rank"} | _estimate(row.rank) | people | {"text": row.unranked}
    for item in row.sleep:
        for metric, estimate in (("bias", item.bias), ("lower_limit", item.lower), ("upper_limit", item.upper)):
            name = f"{item.statistic}_{metric}"
            yield {"aggregation": "recordings", "metric": name} | _estimate(estimate) | {"people": item.people}
    for name in ("folds_done", "folds_planned", "people", "recordings", "epochs", "n_parameters"):
        yield {"aggregation": "total", "metric": name, "value": getattr(row, name)} | people
    for name in FIGURES:
        if not row.costs:
            yield {"aggregation": _OF_CELLS[name], "metric": name} | people
        for cost in row.costs:
            measured = getattr(cost, name)
            said = ", ".join(part for part in (cost.place.words, cost.place.precision, cost.place.hardware) if part)
            said += f"; {measured.cells} of {cost.cells} cells" + (f" ({measured.reason})" if measured.reason else "")
            yield {"aggregation": _OF_CELLS[name], "metric": name, "value": measured.value} | people | {"text": said}


def _contrast_figures(contrast: Contrast) -> Iterator[dict[str, Any]]:
    yield {
        "aggregation": "people",
        "metric": "macro_f1",
        **_estimate(contrast.effect),
        **_fields(contrast, "p", "p_holm", "people"),
        "text": contrast.verdict,
    }
    people = {"people": contrast.people}
    if contrast.folds is not None:
        yield {
            "aggregation": "folds",
            "metric": "macro_f1",
            "value": contrast.folds.mean,
            "p": contrast.folds.p,
        } | people
    yield {"aggregation": "pooled", "metric": "macro_f1"} | _estimate(contrast.pooled) | people
    for name, metric in zip(_OF_EFFECT, ("n_parameters", *_OF_EFFECT[1:]), strict=True):
        yield {"aggregation": "cell", "metric": metric, "value": getattr(contrast, name)} | people
    for stage in contrast.stages:
        yield {
            "aggregation": "people",
            "metric": "f1",
            "stage": stage.stage,
            **_estimate(stage.effect),
            **_fields(stage, "p", "p_holm", "people"),
        }


def _null_for_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _null_for_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_null_for_nan(item) for item in value]
    return value
