"""The attention blocks of TinyUStaging: squeeze-and-excitation, and channel and spatial joint attention."""

from __future__ import annotations

import hashlib
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional


def glorot_(module: nn.Module, *, seed: int) -> None:
    """Glorot-uniform weights and zero bias for every convolution and dense layer of ``module`` (Keras' default).

    Each layer draws from its own stream, given by the seed and the layer's name: networks that differ in one block
    start with the same weights everywhere else, so that arms of an ablation are compared without that noise.
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.Conv1d | nn.Linear):
            stream = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8]) >> 1
            nn.init.xavier_uniform_(part.weight, generator=torch.Generator().manual_seed(stream))
            if part.bias is not None:
                nn.init.zeros_(part.bias)


class SqueezeExcitation(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018): scale each channel by a gate computed from all channels' means.

    Input and output [batch, channels, samples]. The squeezed layer has ``max(1, channels // ratio)`` units (ELU).
    """

    def __init__(self, channels: int, *, ratio: int) -> None:
        super().__init__()
        squeezed = max(1, channels // ratio)
        self.squeeze = nn.Linear(channels, squeezed)
        self.excite = nn.Linear(squeezed, channels)

    def gate(self, mean: Tensor) -> Tensor:
        """The gate [batch, channels] for the channels' means over time."""
        return torch.sigmoid(self.excite(functional.elu(self.squeeze(mean))))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean(dim=2)).unsqueeze(2)


class ChannelSpatialJointAttention(nn.Module):
    """CSJA: a gate per channel and a gate per position, in the form of CBAM (Woo et al. 2018) in one dimension.

    channel gate = sigmoid(MLP(mean over time) + MLP(maximum over time)), one MLP for both (ReLU between);
    spatial gate = sigmoid(conv over [channel maximum, channel mean], no bias).
    ``combine="sequence"`` multiplies by the one, then by the other computed from the result;
    ``combine="add"`` adds the two branches, each gated on the input.
    Input and output [batch, channels, samples].
    """

    def __init__(self, channels: int, *, ratio: int, kernel: int, combine: Literal["sequence", "add"]) -> None:
        super().__init__()
        squeezed = max(1, channels // ratio)
        self.squeeze = nn.Linear(channels, squeezed)
        self.excite = nn.Linear(squeezed, channels)
        self.spatial = nn.Conv1d(2, 1, kernel, bias=False)
        self.padding = ((kernel - 1) // 2, kernel // 2)
        self.combine = combine

    def _mlp(self, pooled: Tensor) -> Tensor:
        return self.excite(functional.relu(self.squeeze(pooled)))  # type: ignore[no-any-return]

    def _channel(self, x: Tensor) -> Tensor:
        gate = self._mlp(x.mean(dim=2)) + self._mlp(x.amax(dim=2))
        return x * torch.sigmoid(gate).unsqueeze(2)

    def _spatial(self, x: Tensor) -> Tensor:
        summary = torch.stack((x.amax(dim=1), x.mean(dim=1)), dim=1)
        return x * torch.sigmoid(self.spatial(functional.pad(summary, self.padding)))

    def forward(self, x: Tensor) -> Tensor:
        if self.combine == "add":
            return self._channel(x) + self._spatial(x)
        return self._spatial(self._channel(x))
