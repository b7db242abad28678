"""DeepSleepNet (Supratak et al. 2017): two convolutional branches per epoch, then a bidirectional LSTM with a shortcut.

Input [batch, channels, T * 3840] (T epochs of 30 s at 128 Hz), output logits [batch, 5, T]. As in the released code,
each direction is a stack of its own: the second layer of one direction does not see the first of the other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tusp.models.configs import DeepSleepNetConfig
from tusp.models.epoch_encoder import EpochEncoder, EpochsAt100Hz, SequenceLSTM, draw_
from tusp.platform.stages import N_STAGES

NORM_EPSILON = 1e-5


class DeepSleepNet(nn.Module):
    """The network of ``config``. ``forward(x)``: [batch, channels, T * 3840] to logits [batch, 5, T]."""

    def __init__(self, config: DeepSleepNetConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        common = {"dropout": config.dropout, "epsilon": NORM_EPSILON, "momentum": config.norm_momentum}
        self.epochs = EpochsAt100Hz()
        self.small = EpochEncoder(
            config.n_channels, first=(64, 50, 6), first_pool=8, deep=(128, 8), deep_pool=4, **common
        )
        self.large = EpochEncoder(
            config.n_channels, first=(64, 400, 50), first_pool=4, deep=(128, 6), deep_pool=2, **common
        )
        features = self.small.features + self.large.features
        both = 2 * config.lstm_units
        self.shortcut = nn.Linear(features, both, bias=False)
        self.shortcut_norm = nn.BatchNorm1d(both, eps=NORM_EPSILON, momentum=config.norm_momentum)
        self.forwards = SequenceLSTM(features, config.lstm_units, layers=config.lstm_layers, dropout=config.dropout)
        self.backwards = SequenceLSTM(features, config.lstm_units, layers=config.lstm_layers, dropout=config.dropout)
        self.dropout = nn.Dropout(config.dropout)
        self.stage = nn.Linear(both, N_STAGES)
        draw_(self, seed=seed, scale=2.0, corrected=False)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        epochs = self.epochs(x)
        features = self.dropout(torch.cat((self.small(epochs), self.large(epochs)), dim=1))
        shortcut = functional.relu(self.shortcut_norm(self.shortcut(features)))
        sequence = features.reshape(batch, -1, features.shape[1])
        forwards, _ = self.forwards(sequence)
        backwards, _ = self.backwards(sequence.flip(1))
        context = self.dropout(torch.cat((forwards, backwards.flip(1)), dim=2))
        joined = self.dropout(context + shortcut.reshape(context.shape))
        return self.stage(joined).transpose(1, 2)  # type: ignore[no-any-return]


def build_deepsleepnet(settings: DeepSleepNetConfig, *, seed: int = 0) -> DeepSleepNet:
    """The network of ``settings`` with freshly drawn weights, the same for the same seed."""
    return DeepSleepNet(settings, seed=seed)
