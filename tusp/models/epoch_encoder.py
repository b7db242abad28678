"""What DeepSleepNet and TinySleepNet share: a convolutional encoder of one epoch at 100 Hz, and their LSTM."""

from __future__ import annotations

import hashlib
import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from tusp.models.rates import To100Hz

SAMPLES: Final = 3000
"""Of one epoch at 100 Hz."""
CORRECTION: Final = 0.87962566103423978
"""Standard deviation of a unit normal cut at two standard deviations."""


def same_padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros left and right of ``length`` samples that make ``ceil(length / stride)`` outputs (TensorFlow's 'same')."""
    total = max((math.ceil(length / stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


class ConvNormReLU(nn.Module):
    """'Same' convolution without bias, batch norm, ReLU. [batch, inputs, n] to [batch, outputs, ceil(n / stride)]."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, epsilon: float, momentum: float):
        super().__init__()
        self.convolution = nn.Conv1d(inputs, outputs, kernel, stride=stride, bias=False)
        self.norm = nn.BatchNorm1d(outputs, eps=epsilon, momentum=momentum)
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        x = functional.pad(x, same_padding(x.shape[2], self.kernel, self.stride))
        return functional.relu(self.norm(self.convolution(x)), inplace=True)


def pooled(x: Tensor, size: int) -> Tensor:
    """'Same' max-pool. Padding with zeros is right because ``x`` is not negative (it comes from a ReLU)."""
    return functional.max_pool1d(functional.pad(x, same_padding(x.shape[2], size, size)), size)


class EpochEncoder(nn.Module):
    """One epoch to one vector: a strided convolution, max-pool, dropout, three convolutions, max-pool.

    Input [epochs, channels, 3000] at 100 Hz, output [epochs, ``features``].
    """

    def __init__(
        self,
        channels: int,
        *,
        first: tuple[int, int, int],
        first_pool: int,
        deep: tuple[int, int],
        deep_pool: int,
        dropout: float,
        epsilon: float,
        momentum: float,
    ) -> None:
        """``first``: filters, kernel and stride; ``deep``: filters and kernel."""
        super().__init__()
        filters, kernel, stride = first
        width, deep_kernel = deep
        self.first = ConvNormReLU(channels, filters, kernel, stride=stride, epsilon=epsilon, momentum=momentum)
        self.dropout = nn.Dropout(dropout)
        self.deep = nn.Sequential(
            *(
                ConvNormReLU(inputs, width, deep_kernel, epsilon=epsilon, momentum=momentum)
                for inputs in (filters, width, width)
            )
        )
        self.first_pool, self.deep_pool = first_pool, deep_pool
        steps = SAMPLES
        for size in (stride, first_pool, deep_pool):
            steps = math.ceil(steps / size)
        self.features = width * steps

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(pooled(self.first(x), self.first_pool))
        return pooled(self.deep(x), self.deep_pool).flatten(1)


class EpochsAt100Hz(nn.Module):
    """[batch, channels, T * 3840] at 128 Hz to single epochs [batch * T, channels, 3000] at 100 Hz.

    The window is resampled in one piece, as a recording would be.
    """

    def __init__(self) -> None:
        super().__init__()
        self.resample = To100Hz()

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, _ = x.shape
        resampled: Tensor = self.resample(x)
        return resampled.reshape(batch, channels, -1, SAMPLES).transpose(1, 2).reshape(-1, channels, SAMPLES)


class SequenceLSTM(nn.LSTM):
    """An LSTM as TensorFlow's cell counts it: one trained bias, and 1 always added to the forget gate.

    torch has two biases; the second is fixed and holds that 1. The cells' peephole weights (three per unit) are left
    out: no fast kernel has them. Input [batch, T, inputs], output [batch, T, units].
    """

    def __init__(self, inputs: int, units: int, *, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__(inputs, units, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        for name, parameter in self.named_parameters():
            if name.startswith("bias_hh"):
                parameter.requires_grad_(False)

    def reset_parameters(self) -> None:
        """Nothing: ``draw_`` sets every weight, and torch's own first draw takes a second for a large network."""

    def draw_(self, stream: torch.Generator) -> None:
        """Glorot-uniform kernels over a layer's inputs and state together, zero bias (TensorFlow's default)."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.startswith("weight"):
                    layer_inputs = self.input_size if name.endswith("l0") else self.hidden_size
                    limit = math.sqrt(6 / (layer_inputs + 5 * self.hidden_size))
                    parameter.uniform_(-limit, limit, generator=stream)
                else:
                    parameter.zero_()
                    if name.startswith("bias_hh"):
                        parameter[self.hidden_size : 2 * self.hidden_size] = 1


def draw_(module: nn.Module, *, seed: int, scale: float, corrected: bool) -> None:
    """Weights of every convolution, dense layer and LSTM, each from its own stream given by seed and name.

    Convolutions and dense layers: normal with variance ``scale / inputs``, cut at two standard deviations
    (``corrected``: the variance is that after the cut); zero bias.
    """
    for name, part in module.named_modules():
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        stream = torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)
        if isinstance(part, SequenceLSTM):
            part.draw_(stream)
        elif isinstance(part, nn.Conv1d | nn.Linear):
            inputs = part.weight[0].numel()
            deviation = math.sqrt(scale / inputs) / (CORRECTION if corrected else 1.0)
            nn.init.trunc_normal_(part.weight, std=deviation, a=-2 * deviation, b=2 * deviation, generator=stream)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
