"""The settings of TinyUStaging. Free of torch, so that plans and reports can be made without it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from tusp.platform.errors import UserError
from tusp.platform.stages import N_STAGES

LOSSES: Final = ("focal+dice", "focal", "dice", "cross-entropy")
SAMPLES_PER_EPOCH: Final = 3840
"""Samples of the input in one 30-s epoch, at 128 Hz."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """One configuration of the network; every attention block is a switch."""

    n_channels: int = 2
    """Input channels: one EEG and one EOG, or one EEG alone."""

    complexity_factor: float = 2.0
    """Widths grow with its square root: level i has ``int(16 * 2**i * sqrt(complexity_factor))`` channels."""

    pools: tuple[int, ...] = (10, 8, 6, 4)
    kernel_size: int = 5
    dilation: int = 2
    """Of the encoder's convolutions above the bottom."""

    csja: bool = True
    """Channel and spatial joint attention."""

    csja_where: Literal["encoder", "classifier"] = "encoder"
    """After the first max-pool, or on the full-rate channels before the classifier."""

    csja_ratio: int = 5
    csja_kernel: int = 5
    csja_combine: Literal["sequence", "add"] = "sequence"

    se_bottom: bool = True
    """Squeeze-and-excitation after the bottom block."""

    se_bottom_ratio: int = 8

    se_classifier: bool = True
    """Squeeze-and-excitation before the Random Window Classifier."""

    se_classifier_ratio: int = 1

    input_decimation: int = 1
    """Samples of the input averaged into one before the first convolution (1: the published resolution)."""

    classifier_width: int | None = None
    """Channels of the classifier's first convolution; None for the published ``int(5 * sqrt(complexity_factor))``."""

    norm_momentum: float = 0.01
    """Weight of the newest batch in batch norm's moving statistics (PyTorch's convention)."""

    def __post_init__(self) -> None:
        if self.n_channels < 1:
            raise UserError(f"n_channels = {self.n_channels}: a network needs at least one channel")
        if not self.complexity_factor > 0:
            raise UserError(f"complexity_factor = {self.complexity_factor}: must be above 0")
        for name in (
            "csja_ratio",
            "csja_kernel",
            "se_bottom_ratio",
            "se_classifier_ratio",
            "kernel_size",
            "dilation",
            "input_decimation",
        ):
            if getattr(self, name) < 1:
                raise UserError(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.classifier_width is not None and self.classifier_width < 1:
            raise UserError(f"classifier_width = {self.classifier_width}: must be at least 1")
        if any(pool < 2 for pool in self.pools) or not self.pools:
            raise UserError(f"pools = {self.pools}: each level pools at least 2 samples into one")
        if SAMPLES_PER_EPOCH % self.total_pool:
            raise UserError(
                f"pools = {self.pools} with input_decimation = {self.input_decimation}: they make {self.total_pool} "
                f"samples into one, which does not divide an epoch of {SAMPLES_PER_EPOCH}"
            )
        if not 0 < self.norm_momentum <= 1:
            raise UserError(f"norm_momentum = {self.norm_momentum}: must lie in (0, 1]")
        if self.csja_where not in ("encoder", "classifier"):
            raise UserError(f"csja_where = {self.csja_where!r}: encoder or classifier")
        if self.csja_combine not in ("sequence", "add"):
            raise UserError(f"csja_combine = {self.csja_combine!r}: sequence or add")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every encoder level and, last, of the bottom."""
        factor = math.sqrt(self.complexity_factor)
        return tuple(max(1, int(16 * 2**level * factor)) for level in range(len(self.pools) + 1))

    @property
    def classifier_channels(self) -> int:
        """Channels between the full-rate features and the five stages."""
        return self.classifier_width or max(1, int(N_STAGES * math.sqrt(self.complexity_factor)))

    @property
    def total_pool(self) -> int:
        """Samples of the input that become one at the bottom."""
        return self.input_decimation * math.prod(self.pools)

    @property
    def receptive_field_samples(self) -> int:
        """Input samples that one position of the bottom block sees."""
        field, jump = self.input_decimation, self.input_decimation
        for pool in self.pools:
            field += 2 * (self.kernel_size - 1) * self.dilation * jump + (pool - 1) * jump
            jump *= pool
        return field + 2 * (self.kernel_size - 1) * jump


def config_from_settings(settings: Mapping[str, Any]) -> NetworkConfig:
    """The inverse of ``dataclasses.asdict`` (from a stored plan)."""
    return NetworkConfig(**{**settings, "pools": tuple(settings["pools"])})
