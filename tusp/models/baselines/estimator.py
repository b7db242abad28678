"""What a classical baseline is: something fitted to whole nights that gives a probability per epoch and stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

Signals = npt.NDArray[np.floating[Any]]
"""[channels, n * 3840] at 128 Hz, prepared (median 0, inter-quartile range 1)."""
Stages = npt.NDArray[np.integer[Any]]
"""[n] stage codes, -1 where unscored."""
Probabilities = npt.NDArray[np.float32]
"""[n, 5] by stage code; rows sum to 1."""
Night = tuple[Signals, Stages]
Tensors = Mapping[str, npt.NDArray[Any]]


class Estimator(Protocol):
    """A classical baseline. Its state is arrays alone: it is saved and restored without pickle."""

    def fit(self, nights: Iterable[Night], *, seed: int) -> Self:
        """Learn from nights, which are gone through once, in order. Unscored epochs are not learned from.

        Raises:
            CellError: no epoch of any night is scored.
        """
        ...

    def probabilities(self, signals: Signals) -> Probabilities:
        """Probabilities of the stages in every epoch of one night; 0 for a stage that no training night holds."""
        ...

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """All that was learned; ``from_tensors(settings, tensors)`` of the same class restores it."""
        ...

    @classmethod
    def from_tensors(cls, settings: Any, tensors: Tensors) -> Self:
        """The fitted estimator that gave these tensors, with the settings it was built with."""
        ...

    @property
    def n_parameters(self) -> int:
        """Numbers that were learned."""
        ...
