"""TinySleepNet (Supratak and Guo 2020): one convolutional branch per epoch, then an LSTM forward in time.

Input [batch, channels, T * 3840] (T epochs of 30 s at 128 Hz), output logits [batch, 5, T].
"""

from __future__ import annotations

from torch import Tensor, nn

from tusp.models.configs import TinySleepNetConfig
from tusp.models.epoch_encoder import EpochEncoder, EpochsAt100Hz, SequenceLSTM, draw_
from tusp.platform.stages import N_STAGES

NORM_EPSILON = 1e-3


class TinySleepNet(nn.Module):
    """The network of ``config``. ``forward(x)``: [batch, channels, T * 3840] to logits [batch, 5, T].

    An epoch's logits depend on it and those before it in the window, never on later ones (but for the few samples
    that the resampling filter reaches into the next).
    """

    def __init__(self, config: TinySleepNetConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.epochs = EpochsAt100Hz()
        self.encoder = EpochEncoder(
            config.n_channels,
            first=(config.filters, 50, 6),
            first_pool=8,
            deep=(config.filters, 8),
            deep_pool=4,
            dropout=config.dropout,
            epsilon=NORM_EPSILON,
            momentum=config.norm_momentum,
        )
        self.lstm = SequenceLSTM(self.encoder.features, config.lstm_units)
        self.dropout = nn.Dropout(config.dropout)
        self.stage = nn.Linear(config.lstm_units, N_STAGES)
        draw_(self, seed=seed, scale=1.0, corrected=True)

    def forward(self, x: Tensor) -> Tensor:
        features = self.dropout(self.encoder(self.epochs(x)))
        sequence, _ = self.lstm(features.reshape(x.shape[0], -1, features.shape[1]))
        return self.stage(self.dropout(sequence)).transpose(1, 2)  # type: ignore[no-any-return]


def build_tinysleepnet(settings: TinySleepNetConfig, *, seed: int = 0) -> TinySleepNet:
    """The network of ``settings`` with freshly drawn weights, the same for the same seed."""
    return TinySleepNet(settings, seed=seed)
