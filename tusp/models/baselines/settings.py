"""Settings of the classical baselines. Nothing heavy is imported, so that plans and reports can be made without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tusp.platform.errors import UserError


def _whole(settings: Any, name: str, *, least: int) -> None:
    value = getattr(settings, name)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{name} = {value!r}: must be a whole number of at least {least}")


def _positive(settings: Any, *names: str) -> None:
    for name in names:
        if not 0 < getattr(settings, name) < float("inf"):
            raise UserError(f"{name} = {getattr(settings, name)}: must be a number above 0")


@dataclass(frozen=True, kw_only=True)
class MajorityConfig:
    """The commonest stage, whatever the signals."""

    n_channels: int = 2
    """Accepted like every family's; the signals are not looked at."""

    def __post_init__(self) -> None:
        _whole(self, "n_channels", least=1)


@dataclass(frozen=True, kw_only=True)
class BandPowerConfig:
    """Logistic regression on band powers."""

    n_channels: int = 2
    neighbours: int = 2
    """Epochs on either side whose features are seen beside an epoch's own."""

    inverse_penalty: float = 1.0
    """C of scikit-learn's LogisticRegression: smaller is smoother."""

    most_epochs: int = 300_000
    """Epochs to fit to; of a larger corpus that many are drawn by the seed."""

    def __post_init__(self) -> None:
        _whole(self, "n_channels", least=1)
        _whole(self, "neighbours", least=0)
        _whole(self, "most_epochs", least=1)
        _positive(self, "inverse_penalty")


@dataclass(frozen=True, kw_only=True)
class BoostingConfig:
    """Gradient boosting on band powers."""

    n_channels: int = 2
    neighbours: int = 2
    """Epochs on either side whose features are seen beside an epoch's own."""

    rounds: int = 100
    """Of boosting; each adds one tree per stage."""

    leaves: int = 31
    """Of a tree, at most."""

    learning_rate: float = 0.1
    most_epochs: int = 300_000
    """Epochs to fit to; of a larger corpus that many are drawn by the seed."""

    def __post_init__(self) -> None:
        _whole(self, "n_channels", least=1)
        _whole(self, "neighbours", least=0)
        _whole(self, "rounds", least=1)
        _whole(self, "leaves", least=2)
        _whole(self, "most_epochs", least=1)
        _positive(self, "learning_rate")


@dataclass(frozen=True, kw_only=True)
class TransitionConfig:
    """Logistic regression on band powers, smoothed by the stage transitions of the training nights."""

    n_channels: int = 2
    neighbours: int = 0
    """Epochs on either side whose features are seen. None by default: the chain alone then carries the context, and
    no evidence is counted twice."""

    inverse_penalty: float = 1.0
    pseudo_count: float = 1.0
    """Added to every count of a transition and of a first stage, so that none is impossible."""

    most_epochs: int = 300_000

    def __post_init__(self) -> None:
        _whole(self, "n_channels", least=1)
        _whole(self, "neighbours", least=0)
        _whole(self, "most_epochs", least=1)
        _positive(self, "inverse_penalty", "pseudo_count")
