"""Where a training stands: its history, and all but the tensors that a checkpoint must hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class PassRecord:
    """One finished pass."""

    pass_number: int
    train_loss: float
    learning_rate: float
    validation_loss: float | None
    validation_accuracy: float | None
    validation_macro_f1: float | None
    seconds: float


@dataclass(kw_only=True)
class Progress:
    """Where a training stands; everything but the tensors that a checkpoint must hold."""

    pass_number: int = 0
    """Passes finished."""
    step: int = 0
    """Steps done in the pass under way."""
    loss_sum: float = 0.0
    pass_seconds: float = 0.0
    learning_rate: float = 0.0
    plateau_best: float = -1.0
    plateau_stale: int = 0
    best_pass: int = 0
    best_score: float = -1.0
    finished: bool = False
    micro_batch: int = 0
    """Windows computed at a time, after the memory was too small for a batch; 0: the whole batch."""
    history: list[PassRecord] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Progress:
        history = [PassRecord(**record) for record in state["history"]]
        return cls(**{**state, "history": history})
