"""The weighted per-recording protocol of the Dreem Open Datasets' evaluation.

An epoch weighs as much as the consensus is sure of it (the winning share of the scorers' votes). In each recording the
weighted accuracy, Cohen's kappa and F1 are computed, F1 as the mean over stages by their weight in the truth; reported
is the mean over recordings. Source: A. Guillot et al. 2020, doi 10.1109/TNSRE.2020.3011181, and the evaluation that was
published with it, which computes them by scikit-learn (``f1_score(average="weighted", sample_weight=...)``). These
figures are never mixed with the pooled, unweighted ones of the boards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from tusp.platform.stages import N_STAGES, STAGE_NAMES, UNSCORED

METRICS: Final = ("f1", "accuracy", "kappa", *(f"f1_{name}" for name in STAGE_NAMES))
"""Keys of the figures; ``f1`` is weighted by the stages' share of the truth."""


def weighted_figures(true: npt.ArrayLike, predicted: npt.ArrayLike, weights: npt.ArrayLike) -> dict[str, float]:
    """Figures of one recording.

    As in the published evaluation an epoch without a prediction (-1) is wrong, and the F1 of a stage that the
    recording lacks is 0 (it has no weight in ``f1``).

    Args:
        true: [n_epochs], codes 0 to 4; unscored epochs (-1) are left out.
        predicted: [n_epochs], codes 0 to 4 or -1.
        weights: [n_epochs], the consensus's winning share, 0 to 1.

    Returns:
        A value by name of :data:`METRICS`; NaN where nothing is scored.
    """
    codes, said, weight = np.asarray(true), np.asarray(predicted), np.asarray(weights, dtype=np.float64)
    scored = codes != UNSCORED
    codes, said, weight = codes[scored], said[scored], weight[scored]
    total = weight.sum()
    if total == 0:
        return dict.fromkeys(METRICS, float("nan"))
    table = np.zeros((N_STAGES, N_STAGES + 1))
    np.add.at(table, (codes, np.where(said == UNSCORED, N_STAGES, said)), weight)
    right = table.diagonal()
    of_true, of_predicted = table.sum(1), table[:, :N_STAGES].sum(0)
    both = of_true + of_predicted
    f1 = np.divide(2 * right, both, out=np.zeros(N_STAGES), where=both > 0)
    agreed, chance = right.sum() / total, (of_true @ of_predicted) / total**2
    return {
        "f1": float(f1 @ of_true / total),
        "accuracy": float(agreed),
        "kappa": float((agreed - chance) / (1 - chance)) if chance < 1 else float("nan"),
        **{f"f1_{name}": float(value) for name, value in zip(STAGE_NAMES, f1, strict=True)},
    }


def mean_over_recordings(figures: Iterable[Mapping[str, float]]) -> dict[str, dict[str, float | int | None]]:
    """Mean, SD (n, as published) and number of the recordings in which a figure is defined, by name."""
    rows = list(figures)
    found: dict[str, dict[str, float | int | None]] = {}
    for name in METRICS:
        values = np.array([row[name] for row in rows], dtype=np.float64)
        values = values[~np.isnan(values)]
        found[name] = {
            "mean": float(values.mean()) if values.size else None,
            "sd": float(values.std()) if values.size else None,
            "recordings": int(values.size),
        }
    return found
