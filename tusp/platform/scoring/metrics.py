"""Metrics from confusion counts, equal to scikit-learn's; NaN where a stage was not scored.

A stage is *scored* when it occurs in the truth or in the prediction. Its precision, recall and F1 are then
defined (0 where nothing was hit); a stage in neither is NaN and left out of the macro means. This is what
scikit-learn computes from the same hypnograms with ``labels=None, zero_division=0``. With ``n`` the counts:

* accuracy ``p_o = sum_i n_ii / N``
* precision ``n_ii / sum_t n_ti``, recall ``n_ii / sum_p n_ip``, F1 ``2 n_ii / (sum_t n_ti + sum_p n_ip)``
* kappa ``(p_o - p_e) / (1 - p_e)``, ``p_e = sum_i (sum_p n_ip)(sum_t n_ti) / N^2`` (J. Cohen, Educational and
  Psychological Measurement 20, 37-46, 1960); NaN where ``p_e = 1`` (one stage only, on both sides).

All functions take counts [..., 5, 5] and are vectorised over the leading axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from tusp.platform.scoring.counts import checked_counts

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Metrics of one confusion matrix; NaN means not scored. Tuples are ordered W, N1, N2, N3, REM."""

    n_epochs: int
    accuracy: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    kappa: float
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    f1: tuple[float, ...]


def metrics(counts: npt.ArrayLike) -> Metrics:
    """All metrics of one confusion matrix [5, 5].

    Raises:
        ValueError: not 5 x 5 non-negative whole numbers.
    """
    matrix = checked_counts(counts)
    if matrix.ndim != 2:
        raise ValueError(f"one confusion matrix has shape [5, 5], not {list(matrix.shape)}")
    per_class = {"precision": precision(matrix), "recall": recall(matrix), "f1": f1(matrix)}
    return Metrics(
        n_epochs=int(matrix.sum()),
        accuracy=float(accuracy(matrix)),
        macro_precision=float(macro(per_class["precision"])),
        macro_recall=float(macro(per_class["recall"])),
        macro_f1=float(macro(per_class["f1"])),
        kappa=float(kappa(matrix)),
        **{name: tuple(map(float, values)) for name, values in per_class.items()},
    )


def accuracy(counts: npt.NDArray[np.generic]) -> Floats:
    """Share of epochs with the right stage, shape [...]; NaN without epochs."""
    return accuracy_of(margins(counts))


def kappa(counts: npt.NDArray[np.generic]) -> Floats:
    """Cohen's kappa, shape [...]; NaN without epochs or where chance agreement is already 1."""
    return kappa_of(margins(counts))


def precision(counts: npt.NDArray[np.generic]) -> Floats:
    """Precision of each stage, shape [..., 5]: 0 for a true stage never predicted, NaN for one in neither."""
    return precision_of(margins(counts))


def recall(counts: npt.NDArray[np.generic]) -> Floats:
    """Recall of each stage, shape [..., 5]: 0 for a stage predicted but never true, NaN in neither."""
    return recall_of(margins(counts))


def f1(counts: npt.NDArray[np.generic]) -> Floats:
    """F1 of each stage, shape [..., 5]; NaN for a stage in neither truth nor prediction."""
    return f1_of(margins(counts))


def macro(per_class: Floats, *, axis: int = -1) -> Floats:
    """Mean over the scored stages along an axis of five; NaN where no stage was scored."""
    missing = np.isnan(per_class)
    if not missing.any():
        return np.asarray(per_class.sum(axis) / per_class.shape[axis], dtype=np.float64)
    return _ratio(np.where(missing, 0.0, per_class).sum(axis), (~missing).sum(axis).astype(np.float64))


def macro_f1(counts: npt.NDArray[np.generic]) -> Floats:
    """Macro-F1, shape [...]."""
    return macro(f1(counts))


def macro_precision(counts: npt.NDArray[np.generic]) -> Floats:
    """Macro precision, shape [...]."""
    return macro(precision(counts))


def macro_recall(counts: npt.NDArray[np.generic]) -> Floats:
    """Macro recall, shape [...]."""
    return macro(recall(counts))


@dataclass(frozen=True, kw_only=True, eq=False)
class Margins:
    """All that metrics need of counts: right, true and predicted epochs of each stage, of one shape."""

    right: Floats
    true: Floats
    predicted: Floats
    stages: int = -1
    """Axis of the five stages."""


def margins(counts: npt.NDArray[np.generic]) -> Margins:
    """Of counts [..., 5, 5]: three arrays [..., 5]."""
    parts = flat_margins(np.asarray(counts, dtype=np.float64))
    return Margins(right=parts[..., 0:5], true=parts[..., 5:10], predicted=parts[..., 10:15])


def flat_margins(counts: Floats) -> Floats:
    """Right, true and predicted epochs of each stage side by side: [..., 5, 5] to [..., 15].

    One product of matrices: sums of a few numbers each would take many times as long.
    """
    leading = counts.shape[:-2]
    return (counts.reshape(-1, 25) @ _MARGINS).reshape(*leading, 15)


def _margin_columns() -> Floats:
    cells = np.eye(25).reshape(25, 5, 5)
    return np.concatenate([np.diagonal(cells, axis1=1, axis2=2), cells.sum(2), cells.sum(1)], axis=1)


_MARGINS: Final = _margin_columns()


def accuracy_of(of: Margins) -> Floats:
    """:func:`accuracy` without the axis of stages."""
    return _ratio(of.right.sum(of.stages), of.true.sum(of.stages))


def kappa_of(of: Margins) -> Floats:
    """:func:`kappa` without the axis of stages."""
    total = of.true.sum(of.stages)
    # Multiplied out by N^2, so that agreement by chance of exactly 1 is recognised without rounding.
    chance = (of.true * of.predicted).sum(of.stages)
    return _ratio(total * of.right.sum(of.stages) - chance, total * total - chance)


def precision_of(of: Margins) -> Floats:
    """:func:`precision` of each stage."""
    return _per_class(of, of.predicted)


def recall_of(of: Margins) -> Floats:
    """:func:`recall` of each stage."""
    return _per_class(of, of.true)


def f1_of(of: Margins) -> Floats:
    """:func:`f1` of each stage."""
    return _ratio(2 * of.right, of.true + of.predicted)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Quotient, NaN where the denominator is 0."""
    undefined = denominator == 0
    if not undefined.any():
        return np.asarray(numerator / denominator, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(undefined, np.nan, numerator / denominator)


def _per_class(of: Margins, denominator: Floats) -> Floats:
    """0 for a stage that was scored but is not in the denominator, NaN for one in neither truth nor prediction."""
    undefined = denominator == 0
    quotient = _ratio(of.right, denominator)
    if not undefined.any():
        return quotient
    return np.where(undefined, np.where((of.true + of.predicted) > 0, 0.0, np.nan), quotient)
