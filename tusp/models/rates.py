"""From 128 Hz, the rate of prepared nights, to 100 Hz, the rate some networks were published at."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

UP: Final = 25
DOWN: Final = 32
REACH: Final = 10 * DOWN
"""Half the filter's length, in samples at the common rate of 3200 Hz."""
KAISER_BETA: Final = 5.0


def low_pass() -> np.ndarray:
    """The filter at the common rate, [641]: a sinc to 50 Hz under a Kaiser window, gain 25.

    The one of scipy.signal.resample_poly (Kaiser 5.0, ten zero crossings a side), written with numpy alone.
    """
    steps = np.arange(-REACH, REACH + 1)
    taps = np.sinc(steps / DOWN) * np.kaiser(2 * REACH + 1, KAISER_BETA)
    return np.asarray(UP * taps / taps.sum())


class To100Hz(nn.Module):
    """Resample [batch, channels, n * 32] at 128 Hz to [batch, channels, n * 25] at 100 Hz; an epoch has 3000 samples.

    Every 32 samples give 25, each phase with its own taps, so this is one strided convolution. Beyond both ends the
    signal counts as zero. The filter is fixed: it is neither trained nor saved.
    """

    phases: Tensor

    def __init__(self) -> None:
        super().__init__()
        filter_ = low_pass()
        first = math.ceil(-REACH / UP)
        last = math.floor((DOWN * (UP - 1) + REACH) / UP)
        phases = np.zeros((UP, 1, last - first + 1))
        for phase in range(UP):
            for sample in range(first, last + 1):
                step = DOWN * phase - UP * sample
                if abs(step) <= REACH:
                    phases[phase, 0, sample - first] = filter_[REACH + step]
        self.padding = (-first, last - DOWN + 1)
        self.register_buffer("phases", torch.tensor(phases, dtype=torch.float32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, length = x.shape
        rows = functional.pad(x.reshape(batch * channels, 1, length), self.padding)
        resampled = functional.conv1d(rows, self.phases, stride=DOWN)
        return resampled.transpose(1, 2).reshape(batch, channels, length * UP // DOWN)
