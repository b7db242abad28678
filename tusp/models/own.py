"""TinyUStaging as a family. Its no-attention arm is U-Time with two channels."""

from __future__ import annotations

from typing import Any

from tusp.models.config import NetworkConfig
from tusp.models.families import Family


def _build(settings: NetworkConfig, *, seed: int = 0) -> Any:
    from tusp.models.tinyustaging import build_network

    return build_network(settings, seed=seed)


TINYUSTAGING = Family(
    name="tinyustaging",
    title="TinyUStaging",
    citation="TinyUStaging: a light U-Net with channel-spatial joint attention and squeeze-and-excitation; it extends "
    "U-Time (Perslev et al., NeurIPS 2019)",
    licence="method's own code: see its authors; this implementation: Apache-2.0",
    settings=NetworkConfig,
    build=_build,
)
