"""U-Sleep (Perslev et al. 2021): a U-Net of twelve halvings with one convolution per level.

Input [batch, channels, T * 3840] (T epochs of 30 s at 128 Hz, the published rate), output logits [batch, 5, T].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tusp.models.attention import glorot_
from tusp.models.config import SAMPLES_PER_EPOCH
from tusp.models.configs import USleepConfig
from tusp.models.tinyustaging import ConvBlock, UpBlock
from tusp.platform.errors import UserError
from tusp.platform.stages import N_STAGES


class USleep(nn.Module):
    """The network of ``config``.

    ``forward(x, window=3840)``: [batch, channels, n] to logits [batch, 5, n // window]; a shorter ``window`` gives a
    finer hypnogram from the same weights; one that does not divide n is a UserError. Any n will do: a level of odd
    length gets one zero in front before it is halved, and what comes up is cut back to the level's length.
    """

    def __init__(self, config: USleepConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        *widths, bottom = config.widths
        kernel, momentum = config.kernel_size, config.norm_momentum
        inputs = [config.n_channels, *widths]
        self.encoder = nn.ModuleList(
            ConvBlock(before, width, kernel, momentum=momentum) for before, width in zip(inputs, widths, strict=False)
        )
        self.bottom = ConvBlock(widths[-1], bottom, kernel, momentum=momentum)
        self.up, self.decoder = nn.ModuleList(), nn.ModuleList()
        below = bottom
        for width in reversed(widths):
            self.up.append(UpBlock(below, width, 2, momentum=momentum))
            self.decoder.append(ConvBlock(2 * width, width, kernel, momentum=momentum))
            below = width
        self.mix = nn.Conv1d(widths[0], config.classifier_channels, 1)
        self.stage = nn.Conv1d(config.classifier_channels, N_STAGES, 1)
        self.output = nn.Conv1d(N_STAGES, N_STAGES, 1)
        glorot_(self, seed=seed)

    def forward(self, x: Tensor, window: int = SAMPLES_PER_EPOCH) -> Tensor:
        length = x.shape[2]
        if window < 1 or length % window:
            raise UserError(f"window = {window}: must divide the {length} samples of the input")
        skips = []
        for block in self.encoder:
            x = block(x)
            x = functional.pad(x, (x.shape[2] % 2, 0))
            skips.append(x)
            x = functional.max_pool1d(x, 2)
        x = self.bottom(x)
        for up, block in zip(self.up, self.decoder, strict=True):
            skip = skips.pop()
            # Where the level below had a zero put in front, two samples too many come up: one goes at either end.
            x = up(x)
            start = (x.shape[2] - skip.shape[2] + 1) // 2
            x = block(torch.cat((skip, x[:, :, start : start + skip.shape[2]]), dim=1))
        x = functional.avg_pool1d(torch.tanh(self.mix(x[:, :, -length:])), window)
        return self.output(functional.elu(self.stage(x)))  # type: ignore[no-any-return]


def build_usleep(settings: USleepConfig, *, seed: int = 0) -> USleep:
    """The network of ``settings`` with freshly drawn weights, the same for the same seed."""
    return USleep(settings, seed=seed)
