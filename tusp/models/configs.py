"""Settings of the networks that TinyUStaging is compared with, and the training they were published with.

Free of torch, so that plans and reports can be made without it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tusp.platform.errors import UserError


def _at_least_one(settings: Any, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{name} = {value!r}: must be a whole number of at least 1")


def _dropout(settings: Any) -> None:
    if not 0 <= settings.dropout < 1:
        raise UserError(f"dropout = {settings.dropout}: must lie in [0, 1)")


def _momentum(settings: Any) -> None:
    if not 0 < settings.norm_momentum <= 1:
        raise UserError(f"norm_momentum = {settings.norm_momentum}: must lie in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class USleepConfig:
    """U-Sleep (Perslev et al. 2021) as published."""

    n_channels: int = 2
    """One EEG and one EOG, or EEG alone."""

    depth: int = 12
    """Encoder levels; each halves the length."""

    first_filters: int = 5
    """Filters of the first level before the complexity factor; each level has sqrt(2) times as many, rounded down."""

    complexity_factor: float = 1.67
    """Widths grow with its square root."""

    kernel_size: int = 9
    norm_momentum: float = 0.01
    """Weight of the newest batch in batch norm's moving statistics (PyTorch's convention)."""

    def __post_init__(self) -> None:
        _at_least_one(self, "n_channels", "depth", "first_filters", "kernel_size")
        if not self.complexity_factor > 0:
            raise UserError(f"complexity_factor = {self.complexity_factor}: must be above 0")
        if self.widths[0] < 1:
            raise UserError(
                f"complexity_factor = {self.complexity_factor} with first_filters = {self.first_filters}: leaves the"
                " first level without a channel; raise one of them"
            )
        _momentum(self)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every encoder level and, last, of the bottom."""
        filters, widths = self.first_filters, []
        for _ in range(self.depth + 1):
            widths.append(int(filters * math.sqrt(self.complexity_factor)))
            filters = int(filters * math.sqrt(2))
        return tuple(widths)

    @property
    def classifier_channels(self) -> int:
        """Channels between the full-rate features and the five stages: 5 before the complexity factor."""
        return max(1, int(5 * math.sqrt(self.complexity_factor)))


@dataclass(frozen=True, kw_only=True)
class DeepSleepNetConfig:
    """DeepSleepNet (Supratak et al. 2017), its released form."""

    n_channels: int = 2
    """The published network has one EEG channel; here its first convolutions take as many as there are."""

    lstm_units: int = 512
    """Of each direction."""

    lstm_layers: int = 2
    dropout: float = 0.5
    norm_momentum: float = 0.001
    """Weight of the newest batch in batch norm's moving statistics (PyTorch's convention)."""

    def __post_init__(self) -> None:
        _at_least_one(self, "n_channels", "lstm_units", "lstm_layers")
        _dropout(self)
        _momentum(self)


@dataclass(frozen=True, kw_only=True)
class TinySleepNetConfig:
    """TinySleepNet (Supratak and Guo 2020), its released form."""

    n_channels: int = 2
    """The published network has one EEG channel; here its first convolution takes as many as there are."""

    filters: int = 128
    """Of every convolution."""

    lstm_units: int = 128
    dropout: float = 0.5
    norm_momentum: float = 0.01
    """Weight of the newest batch in batch norm's moving statistics (PyTorch's convention)."""

    def __post_init__(self) -> None:
        _at_least_one(self, "n_channels", "filters", "lstm_units")
        _dropout(self)
        _momentum(self)


@dataclass(frozen=True, kw_only=True)
class Chambon2018Config:
    """The network of Chambon et al. (2018), its form for one epoch."""

    n_channels: int = 2
    filters: int = 8
    """Of both temporal convolutions, shared by all virtual channels."""

    dropout: float = 0.25

    def __post_init__(self) -> None:
        _at_least_one(self, "n_channels", "filters")
        _dropout(self)


_ALIKE: Final = (0.2, 0.2, 0.2, 0.2, 0.2)

RECIPE_CHANGES: Final[Mapping[str, Mapping[str, Any]]] = {
    "usleep": {
        "window_epochs": 35,
        "batch_size": 64,
        "prediction_stride": 17,
        "validation_stride": 35,
        "loss": "cross-entropy",
        "class_weights": _ALIKE,
        "optimizer": "adam",
        "learning_rate": 1e-7,
    },
    "deepsleepnet": {
        "window_epochs": 25,
        "batch_size": 10,
        "prediction_stride": 12,
        "validation_stride": 25,
        "loss": "cross-entropy",
        "class_weights": _ALIKE,
        "optimizer": "adam",
        "learning_rate": 1e-4,
    },
    "tinysleepnet": {
        "window_epochs": 20,
        "batch_size": 15,
        "prediction_stride": 10,
        "validation_stride": 20,
        "loss": "cross-entropy",
        # N1 counts one and a half times.
        "class_weights": (1.0, 1.5, 1.0, 1.0, 1.0),
        "optimizer": "adam",
        "learning_rate": 1e-4,
    },
    "chambon2018": {
        "window_epochs": 1,
        "batch_size": 128,
        "prediction_stride": 1,
        "validation_stride": 1,
        "loss": "cross-entropy",
        "class_weights": _ALIKE,
        "optimizer": "adam",
        "learning_rate": 1e-3,
    },
}
"""By network, the settings of a recipe (tusp.jobs.recipes.Recipe) that it was published with."""
