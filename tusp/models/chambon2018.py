"""The network of Chambon et al. (2018): a spatial filter over the channels, then two temporal convolutions.

Input [batch, channels, T * 3840] (T epochs of 30 s at 128 Hz, the published rate), output logits [batch, 5, T]. This
is the published form for one epoch: each is staged by itself, whatever the window.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn
from torch.nn import functional

from tusp.models.attention import glorot_
from tusp.models.config import SAMPLES_PER_EPOCH
from tusp.models.configs import Chambon2018Config
from tusp.platform.stages import N_STAGES

KERNEL: Final = 64
POOL: Final = 16


class Chambon2018(nn.Module):
    """The network of ``config``. ``forward(x)``: [batch, channels, T * 3840] to logits [batch, 5, T].

    With more than one channel, as many virtual channels are formed by a linear filter over the channels (none for a
    single channel, where it would only scale). Both temporal convolutions are shared by all virtual channels.
    """

    def __init__(self, config: Chambon2018Config, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.spatial = nn.Conv1d(config.n_channels, config.n_channels, 1) if config.n_channels > 1 else None
        self.first = nn.Conv1d(1, config.filters, KERNEL)
        self.second = nn.Conv1d(config.filters, config.filters, KERNEL)
        self.dropout = nn.Dropout(config.dropout)
        steps = SAMPLES_PER_EPOCH // POOL // POOL
        self.stage = nn.Linear(config.n_channels * config.filters * steps, N_STAGES)
        glorot_(self, seed=seed)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, _ = x.shape
        if self.spatial is not None:
            x = self.spatial(x)
        x = x.reshape(batch, channels, -1, SAMPLES_PER_EPOCH).transpose(1, 2).reshape(-1, 1, SAMPLES_PER_EPOCH)
        for convolution in (self.first, self.second):
            x = functional.pad(x, ((KERNEL - 1) // 2, KERNEL // 2))
            x = functional.max_pool1d(functional.relu(convolution(x)), POOL)
        features = x.reshape(batch, -1, channels * x.shape[1] * x.shape[2])
        return self.stage(self.dropout(features)).transpose(1, 2)  # type: ignore[no-any-return]


def build_chambon2018(settings: Chambon2018Config, *, seed: int = 0) -> Chambon2018:
    """The network of ``settings`` with freshly drawn weights, the same for the same seed."""
    return Chambon2018(settings, seed=seed)
