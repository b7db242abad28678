"""The commonest stage of the training nights, for every epoch: the floor of every comparison."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tusp.models.baselines.band_features import SAMPLES_PER_EPOCH
from tusp.models.baselines.estimator import Night, Probabilities, Signals, Tensors
from tusp.models.baselines.settings import MajorityConfig
from tusp.platform.errors import CellError
from tusp.platform.stages import N_STAGES


class Majority:
    """Every epoch gets the share of each stage in the training nights, so the stage named is always the commonest."""

    def __init__(self, config: MajorityConfig) -> None:
        self.config = config
        self.shares = np.zeros(N_STAGES)

    def fit(self, nights: Iterable[Night], *, seed: int) -> Self:
        """Count the stages. See ``Estimator.fit``."""
        counts = np.zeros(N_STAGES, np.int64)
        for _, stages in nights:
            codes = np.asarray(stages)
            counts += np.bincount(codes[codes >= 0], minlength=N_STAGES)
        if not counts.any():
            raise CellError("no scored epoch to fit to")
        self.shares = counts / counts.sum()
        return self

    def probabilities(self, signals: Signals) -> Probabilities:
        """See ``Estimator.probabilities``."""
        return np.tile(self.shares.astype(np.float32), (signals.shape[1] // SAMPLES_PER_EPOCH, 1))

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """See ``Estimator.tensors``."""
        return {"shares": self.shares}

    @classmethod
    def from_tensors(cls, settings: MajorityConfig, tensors: Tensors) -> Self:
        """See ``Estimator.from_tensors``."""
        restored = cls(settings)
        restored.shares = np.asarray(tensors["shares"])
        return restored

    @property
    def n_parameters(self) -> int:
        """One share per stage."""
        return N_STAGES


def build_majority(settings: MajorityConfig, *, seed: int = 0) -> Majority:
    """The unfitted baseline; nothing about it is random."""
    return Majority(settings)
