"""Boosted trees as plain arrays, evaluated with numpy.

Trees are fitted by scikit-learn and kept as the arrays of their nodes rather than as its object: an array can be saved
without pickle, and gives the same answer under every later version of scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tusp.models.baselines.estimator import Tensors

LEAF = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class Trees:
    """Rounds of one tree per output. A row's score is the start plus the value of its leaf in every round's tree."""

    start: npt.NDArray[np.float64]
    """[outputs]."""

    roots: npt.NDArray[np.int64]
    """[rounds, outputs]: index of each tree's root among the nodes."""

    feature: npt.NDArray[np.int64]
    """[nodes]: column that a node looks at; LEAF for a leaf."""

    threshold: npt.NDArray[np.float64]
    """[nodes]: up to this it goes left, beyond it right."""

    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    """[nodes]: of a leaf."""

    @classmethod
    def from_sklearn(cls, model: Any) -> Self:
        """The trees of a fitted HistGradientBoostingClassifier without categorical or missing values."""
        rounds = model._predictors
        nodes = [tree.nodes for trees in rounds for tree in trees]
        starts = np.concatenate([[0], np.cumsum([len(part) for part in nodes])])
        roots = starts[:-1].reshape(len(rounds), -1)
        joined = np.concatenate(nodes)
        offset = np.repeat(starts[:-1], [len(part) for part in nodes])
        leaf = joined["is_leaf"].astype(bool)
        return cls(
            start=np.asarray(model._baseline_prediction, np.float64).reshape(-1),
            roots=roots.astype(np.int64),
            feature=np.where(leaf, LEAF, joined["feature_idx"]).astype(np.int64),
            threshold=joined["num_threshold"].astype(np.float64),
            left=joined["left"].astype(np.int64) + offset,
            right=joined["right"].astype(np.int64) + offset,
            value=np.where(leaf, joined["value"], 0.0),
        )

    def scores(self, x: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
        """Scores [n, outputs] of rows [n, columns], summed in the order of the rounds, as scikit-learn does it."""
        x = np.asarray(x, np.float64)
        rows = np.arange(len(x))[:, None]
        total = np.repeat(self.start[None], len(x), axis=0)
        for roots in self.roots:
            node = np.repeat(roots[None], len(x), axis=0)
            while True:
                column = self.feature[node]
                inner = column != LEAF
                if not inner.any():
                    break
                goes_left = x[rows, column] <= self.threshold[node]
                node = np.where(inner, np.where(goes_left, self.left[node], self.right[node]), node)
            total += self.value[node]
        return total

    @property
    def n_parameters(self) -> int:
        """A threshold per inner node, a value per leaf, and the start."""
        return len(self.feature) + len(self.start)

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Tensors) -> Self:
        """The inverse of ``tensors``; arrays of other names are left alone."""
        return cls(**{entry.name: np.asarray(tensors[entry.name]) for entry in fields(cls)})
