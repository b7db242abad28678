"""The network of Chambon et al. (2018): a spatial filter over the channels, then two temporal convolutions.

Input [batch, channels, T * 3840] (T epochs of 30 s at 128 Hz, the published rate), output logits [batch, 5, T]. This
is the published form for one epoch: each is staged by itself, whatever the window.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from tusp.models.attention import glorot_
from tusp.models.config import SAMPLES_PER_EPOCH
from tusp.models.configs import Chambon2018Config
from tusp.platform.stages import N_STAGES

KERNEL: Final = 64
POOL: Final = 16


class ConvPool(nn.Module):
    """'Same' convolution of 64 taps, ReLU, max-pool of 16. [batch, inputs, n * 16] to [batch, filters, n].

    Computed for all 16 phases of a pool at once, which is one small convolution over blocks of 16 samples: the same
    weights, the same answer, and a gradient in a fraction of the time (the plain one has a single input channel).
    """

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(inputs, filters, KERNEL)

    def forward(self, x: Tensor) -> Tensor:
        batch, inputs, _ = x.shape
        weight, bias = self.convolution.weight, self.convolution.bias
        assert bias is not None
        filters, blocks = weight.shape[0], KERNEL // POOL + 1
        # The kernel of phase r begins r samples into the first block: [filters, phase, inputs, blocks * POOL].
        shifted = torch.stack([functional.pad(weight, (phase, POOL - phase)) for phase in range(POOL)], dim=1)
        phases = shifted.reshape(filters * POOL, inputs, blocks, POOL).transpose(2, 3)
        padded = functional.pad(x, ((KERNEL - 1) // 2, KERNEL // 2 + 1))
        blocked = padded.reshape(batch, inputs, -1, POOL).transpose(2, 3).reshape(batch, inputs * POOL, -1)
        all_phases = functional.conv1d(blocked, phases.reshape(filters * POOL, inputs * POOL, blocks))
        strongest = all_phases.reshape(batch, filters, POOL, -1).amax(dim=2)
        return functional.relu(strongest + bias[:, None])


class Chambon2018(nn.Module):
    """The network of ``config``. ``forward(x)``: [batch, channels, T * 3840] to logits [batch, 5, T].

    With more than one channel, as many virtual channels are formed by a linear filter over the channels (none for a
    single channel, where it would only scale). Both temporal convolutions are shared by all virtual channels.
    """

    def __init__(self, config: Chambon2018Config, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.spatial = nn.Conv1d(config.n_channels, config.n_channels, 1) if config.n_channels > 1 else None
        self.temporal = nn.Sequential(ConvPool(1, config.filters), ConvPool(config.filters, config.filters))
        self.dropout = nn.Dropout(config.dropout)
        steps = SAMPLES_PER_EPOCH // POOL // POOL
        self.stage = nn.Linear(config.n_channels * config.filters * steps, N_STAGES)
        glorot_(self, seed=seed)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, _ = x.shape
        if self.spatial is not None:
            x = self.spatial(x)
        x = x.reshape(batch, channels, -1, SAMPLES_PER_EPOCH).transpose(1, 2).reshape(-1, 1, SAMPLES_PER_EPOCH)
        features = self.temporal(x).reshape(batch, -1, self.stage.in_features)
        return self.stage(self.dropout(features)).transpose(1, 2)  # type: ignore[no-any-return]


def build_chambon2018(settings: Chambon2018Config, *, seed: int = 0) -> Chambon2018:
    """The network of ``settings`` with freshly drawn weights, the same for the same seed."""
    return Chambon2018(settings, seed=seed)
