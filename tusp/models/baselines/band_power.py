"""Band powers with logistic regression, and with gradient boosting."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tusp.models.baselines.band_features import Matrix, night_features, training_matrix
from tusp.models.baselines.estimator import Night, Probabilities, Signals, Tensors
from tusp.models.baselines.settings import BandPowerConfig, BoostingConfig
from tusp.models.baselines.trees import Trees
from tusp.platform.stages import N_STAGES


def softmax(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Along the stages; a score of minus infinity gives exactly 0."""
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


class BandPowerLogistic:
    """Multinomial logistic regression, every stage with the same weight, whatever its share of the nights.

    Its probabilities are those of a sleeper who spends the same time in every stage that was learned.
    """

    def __init__(self, config: BandPowerConfig) -> None:
        self.config = config
        self.weights = np.zeros((N_STAGES, 0))
        self.bias = np.zeros(N_STAGES)

    def fit(self, nights: Iterable[Night], *, seed: int) -> Self:
        """See ``Estimator.fit``."""
        config = self.config
        x, y = training_matrix(nights, neighbours=config.neighbours, most_epochs=config.most_epochs, seed=seed)
        return self.fit_features(x, y)

    def fit_features(self, x: Matrix, y: npt.NDArray[np.int64]) -> Self:
        """Fit to rows of ``night_features`` and their stages, all scored."""
        from sklearn.linear_model import LogisticRegression

        present = np.unique(y)
        self.weights = np.zeros((N_STAGES, x.shape[1]))
        # A stage that was never seen gets no probability at all.
        self.bias = np.full(N_STAGES, -np.inf)
        self.bias[present] = 0.0
        if len(present) > 1:
            model = LogisticRegression(C=self.config.inverse_penalty, class_weight="balanced", max_iter=1000)
            model.fit(x, y)
            # With two stages there is one row, for the second against the first.
            rows = present if len(present) > 2 else present[1:]
            self.weights[rows], self.bias[rows] = model.coef_, model.intercept_
        return self

    def probabilities(self, signals: Signals) -> Probabilities:
        """See ``Estimator.probabilities``."""
        features = night_features(signals, neighbours=self.config.neighbours).astype(np.float64)
        return softmax(features @ self.weights.T + self.bias).astype(np.float32)

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """See ``Estimator.tensors``."""
        return {"weights": self.weights, "bias": self.bias}

    @classmethod
    def from_tensors(cls, settings: BandPowerConfig, tensors: Tensors) -> Self:
        """See ``Estimator.from_tensors``."""
        restored = cls(settings)
        restored.weights, restored.bias = np.asarray(tensors["weights"]), np.asarray(tensors["bias"])
        return restored

    @property
    def n_parameters(self) -> int:
        """A weight per feature and a bias, for every stage that was seen."""
        return int(np.isfinite(self.bias).sum()) * (self.weights.shape[1] + 1)


class BandPowerBoosting:
    """Gradient-boosted trees (scikit-learn's HistGradientBoostingClassifier), every stage with the same weight."""

    def __init__(self, config: BoostingConfig) -> None:
        self.config = config
        self.present = np.zeros(0, np.int64)
        self.trees: Trees | None = None

    def fit(self, nights: Iterable[Night], *, seed: int) -> Self:
        """See ``Estimator.fit``.

        Raises:
            RuntimeError: the trees read from scikit-learn do not score as it does (its internals have changed).
        """
        from sklearn.ensemble import HistGradientBoostingClassifier

        config = self.config
        x, y = training_matrix(nights, neighbours=config.neighbours, most_epochs=config.most_epochs, seed=seed)
        self.present, self.trees = np.unique(y), None
        if len(self.present) == 1:
            return self
        model = HistGradientBoostingClassifier(
            learning_rate=config.learning_rate,
            max_iter=config.rounds,
            max_leaf_nodes=config.leaves,
            class_weight="balanced",
            early_stopping=False,
            random_state=seed,
        ).fit(x, y)
        self.trees = Trees.from_sklearn(model)
        some = x[:: max(1, len(x) // 200)]
        if not np.allclose(self._stage_probabilities(some)[:, self.present], model.predict_proba(some), atol=1e-9):
            raise RuntimeError("the trees read from scikit-learn do not score as it does: its internals have changed")
        return self

    def _stage_probabilities(self, features: Matrix) -> npt.NDArray[np.float64]:
        scores = np.full((len(features), N_STAGES), -np.inf)
        scores[:, self.present] = 0.0
        if self.trees is not None:
            # With two stages there is one score, for the second against the first.
            columns = self.present if len(self.present) > 2 else self.present[1:]
            scores[:, columns] = self.trees.scores(features)
        return softmax(scores)

    def probabilities(self, signals: Signals) -> Probabilities:
        """See ``Estimator.probabilities``."""
        features = night_features(signals, neighbours=self.config.neighbours)
        return self._stage_probabilities(features).astype(np.float32)

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """See ``Estimator.tensors``."""
        return {"present": self.present, **(self.trees.tensors() if self.trees is not None else {})}

    @classmethod
    def from_tensors(cls, settings: BoostingConfig, tensors: Tensors) -> Self:
        """See ``Estimator.from_tensors``."""
        restored = cls(settings)
        restored.present = np.asarray(tensors["present"])
        if len(restored.present) > 1:
            restored.trees = Trees.from_tensors(tensors)
        return restored

    @property
    def n_parameters(self) -> int:
        """Thresholds and leaf values of all trees."""
        return self.trees.n_parameters if self.trees is not None else 0


def build_band_power_logistic(settings: BandPowerConfig, *, seed: int = 0) -> BandPowerLogistic:
    """The unfitted baseline; ``fit`` takes the seed."""
    return BandPowerLogistic(settings)


def build_band_power_boosting(settings: BoostingConfig, *, seed: int = 0) -> BandPowerBoosting:
    """The unfitted baseline; ``fit`` takes the seed."""
    return BandPowerBoosting(settings)
