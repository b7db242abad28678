"""TinyUStaging: U-Time (Perslev et al. 2019) made light, with squeeze-and-excitation and CSJA as switches.

Input [batch, channels, T * 3840] (T epochs of 30 s at 128 Hz), output logits [batch, 5, T].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from tusp.models import fused, native
from tusp.models.attention import ChannelSpatialJointAttention, SqueezeExcitation, glorot_
from tusp.models.config import SAMPLES_PER_EPOCH, NetworkConfig
from tusp.platform.errors import UserError
from tusp.platform.stages import N_STAGES

NORM_EPSILON = 1e-3


class ConvBlock(nn.Module):
    """'Same' convolution, ELU, batch norm, in this order. [batch, inputs, n] to [batch, outputs, n].

    An even kernel is padded with ``(k - 1) // 2`` zeros on the left and ``k // 2`` on the right.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, momentum: float, dilation: int = 1) -> None:
        super().__init__()
        reach = dilation * (kernel - 1)
        self.padding = (reach // 2, reach - reach // 2)
        symmetric = self.padding[0] == self.padding[1]
        self.pad_by_hand = not symmetric
        self.convolution = nn.Conv1d(
            inputs, outputs, kernel, dilation=dilation, padding=self.padding[0] if symmetric else 0
        )
        self.norm = nn.BatchNorm1d(outputs, eps=NORM_EPSILON, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        if self.pad_by_hand:
            x = functional.pad(x, self.padding)
        return self.norm(functional.elu(self.convolution(x), inplace=True))  # type: ignore[no-any-return]

    def fused(self, *sources: fused.Stored) -> fused.Stored:
        """The same through compiled code; the inputs are the joined channels of ``sources``."""
        return fused.convolution(self.convolution, self.norm, *sources, padding=self.padding)


def _twice(blocks: nn.Module, *sources: fused.Stored) -> fused.Stored:
    first, second = blocks.children()
    assert isinstance(first, ConvBlock)
    assert isinstance(second, ConvBlock)
    return fused.twice(first.convolution, first.norm, second.convolution, second.norm, *sources, padding=first.padding)


def phase_taps(factor: int) -> Tensor:
    """Which taps of a kernel of ``factor`` samples fall on which low-rate neighbour, for every output phase.

    Up-sampling by ``factor`` (nearest) and then convolving with a 'same' kernel of ``factor`` taps only ever meets
    the low-rate samples before, at and after the output's own: entry [phase, neighbour, tap] is 1 where tap j of
    phase r falls on neighbour floor((r - left + j) / factor) + 1.
    """
    left = (factor - 1) // 2
    taps = torch.zeros(factor, 3, factor)
    for phase in range(factor):
        for tap in range(factor):
            taps[phase, math.floor((phase - left + tap) / factor) + 1, tap] = 1
    return taps


class UpBlock(nn.Module):
    """Nearest up-sampling by ``factor``, 'same' convolution of kernel ``factor``, ELU, batch norm.

    Computed at the low rate: the same weights give ``factor`` phase kernels of three taps, whose outputs are
    interleaved (the sub-pixel form). ``plain=True`` computes it as written, for comparison.
    """

    taps: Tensor

    def __init__(self, inputs: int, outputs: int, factor: int, *, momentum: float) -> None:
        super().__init__()
        self.factor = factor
        self.convolution = nn.Conv1d(inputs, outputs, factor)
        self.norm = nn.BatchNorm1d(outputs, eps=NORM_EPSILON, momentum=momentum)
        self.register_buffer("taps", phase_taps(factor), persistent=False)
        self.plain = False

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.convolution.weight, self.convolution.bias
        if self.plain:
            raised = x.repeat_interleave(self.factor, dim=2)
            raised = functional.pad(raised, ((self.factor - 1) // 2, self.factor // 2))
            raised = functional.conv1d(raised, weight, bias)
        else:
            outputs = weight.shape[0]
            phases = torch.einsum("oij,rnj->orin", weight, self.taps.to(weight.dtype))
            phases = phases.reshape(outputs * self.factor, weight.shape[1], 3)
            low = functional.conv1d(x, phases, padding=1)
            low = low.view(x.shape[0], outputs, self.factor, x.shape[2])
            raised = low.transpose(2, 3).reshape(x.shape[0], outputs, x.shape[2] * self.factor)
            assert bias is not None
            raised = raised + bias[:, None]
        return self.norm(functional.elu(raised, inplace=True))  # type: ignore[no-any-return]

    def fused(self, source: fused.Stored) -> fused.Stored:
        """The same through compiled code."""
        return fused.up_sampling(self.convolution, self.norm, source)


class RandomWindowClassifier(nn.Module):
    """Full-rate features to one prediction per window: 1x1 conv (tanh), mean over the window, two 1x1 convs.

    Input [batch, width, n], output logits [batch, 5, n // window].
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        hidden = config.classifier_channels
        self.mix = nn.Conv1d(config.widths[0], hidden, 1)
        self.stage = nn.Conv1d(hidden, N_STAGES, 1)
        self.output = nn.Conv1d(N_STAGES, N_STAGES, 1)

    def forward(self, x: Tensor, window: int) -> Tensor:
        pooled = functional.avg_pool1d(torch.tanh(self.mix(x)), window)
        return self.output(functional.elu(self.stage(pooled)))  # type: ignore[no-any-return]

    def fused(self, source: fused.Stored, window: int, se: SqueezeExcitation | None) -> Tensor:
        """The same through compiled code, behind squeeze-and-excitation."""
        gate = se.gate(source.mean()) if se is not None else None
        pooled = fused.head(self.mix, source, gate, window)
        return self.output(functional.elu(self.stage(pooled)))  # type: ignore[no-any-return]


class TinyUStaging(nn.Module):
    """The network of ``config``.

    ``forward(x, window=3840)``: x [batch, channels, n] with n a multiple of 3840 (and of the pools' product, which it
    then is by default); returns logits [batch, 5, n // window]. A shorter ``window`` gives a finer hypnogram from the
    same weights; one that does not divide n, or is no multiple of the input's decimation, is a UserError.
    """

    def __init__(self, config: NetworkConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.plain = False
        widths, kernel, momentum = config.widths, config.kernel_size, config.norm_momentum
        levels = len(config.pools)
        self.encoder = nn.ModuleList()
        inputs = config.n_channels
        for width in widths[:-1]:
            self.encoder.append(
                nn.Sequential(
                    ConvBlock(inputs, width, kernel, momentum=momentum, dilation=config.dilation),
                    ConvBlock(width, width, kernel, momentum=momentum, dilation=config.dilation),
                )
            )
            inputs = width
        self.bottom = nn.Sequential(
            ConvBlock(inputs, widths[-1], kernel, momentum=momentum),
            ConvBlock(widths[-1], widths[-1], kernel, momentum=momentum),
        )
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for level in reversed(range(levels)):
            width = widths[level]
            self.up.append(UpBlock(widths[level + 1], width, config.pools[level], momentum=momentum))
            self.decoder.append(
                nn.Sequential(
                    ConvBlock(2 * width, width, kernel, momentum=momentum),
                    ConvBlock(width, width, kernel, momentum=momentum),
                )
            )
        self.classifier = RandomWindowClassifier(config)
        self.csja = (
            ChannelSpatialJointAttention(
                widths[0], ratio=config.csja_ratio, kernel=config.csja_kernel, combine=config.csja_combine
            )
            if config.csja
            else None
        )
        self.se_bottom = SqueezeExcitation(widths[-1], ratio=config.se_bottom_ratio) if config.se_bottom else None
        self.se_classifier = (
            SqueezeExcitation(widths[0], ratio=config.se_classifier_ratio) if config.se_classifier else None
        )
        glorot_(self, seed=seed)

    def forward(self, x: Tensor, window: int = SAMPLES_PER_EPOCH) -> Tensor:
        if window < 1 or window % self.config.input_decimation or x.shape[2] % window:
            raise UserError(
                f"window = {window}: must divide the {x.shape[2]} samples of the input and be a multiple of "
                f"input_decimation = {self.config.input_decimation}"
            )
        if self.config.input_decimation > 1:
            x = functional.avg_pool1d(x, self.config.input_decimation)
        if not self.plain and native.usable(x):
            return self._fused(x, window // self.config.input_decimation)
        in_encoder = self.csja is not None and self.config.csja_where == "encoder"
        skips = []
        for level, (block, pool) in enumerate(zip(self.encoder, self.config.pools, strict=True)):
            x = block(x)
            skips.append(x)
            x = functional.max_pool1d(x, pool)
            if level == 0 and in_encoder:
                assert self.csja is not None
                x = self.csja(x)
        x = self.bottom(x)
        if self.se_bottom is not None:
            x = self.se_bottom(x)
        for up, block in zip(self.up, self.decoder, strict=True):
            x = block(torch.cat((skips.pop(), up(x)), dim=1))
        if self.csja is not None and not in_encoder:
            x = self.csja(x)
        if self.se_classifier is not None:
            x = self.se_classifier(x)
        return self.classifier(x, window // self.config.input_decimation)  # type: ignore[no-any-return]

    def _fused(self, x: Tensor, window: int) -> Tensor:
        """``forward`` through compiled code; the normalised tensors exist only where attention needs them."""
        in_encoder = self.csja is not None and self.config.csja_where == "encoder"
        skips = []
        here = fused.Stored(values=x)
        for level, (block, pool) in enumerate(zip(self.encoder, self.config.pools, strict=True)):
            here = _twice(block, here)
            skips.append(here)
            pooled = fused.max_pool(here, pool)
            if level == 0 and in_encoder:
                assert self.csja is not None
                pooled = self.csja(pooled)
            here = fused.Stored(values=pooled)
        here = _twice(self.bottom, here)
        if self.se_bottom is not None:
            here = fused.Stored(values=self.se_bottom(here.normalised()))
        for up, block in zip(self.up, self.decoder, strict=True):
            assert isinstance(up, UpBlock)
            here = _twice(block, skips.pop(), up.fused(here))
        if self.csja is not None and not in_encoder:
            here = fused.Stored(values=self.csja(here.normalised()))
        return self.classifier.fused(here, window, self.se_classifier)

    def use_plain_form(self, plain: bool = True) -> None:
        """Compute everything as written: no compiled code, no low rate (same weights, same answer, slower)."""
        self.plain = plain
        for block in self.up:
            assert isinstance(block, UpBlock)
            block.plain = plain


def build_network(config: NetworkConfig, *, seed: int = 0) -> TinyUStaging:
    """The network of ``config`` with freshly drawn weights; layers that two configurations share start alike."""
    return TinyUStaging(config, seed=seed)


def parameter_counts(network: nn.Module) -> tuple[int, int]:
    """Parameters as the publications count them (batch norm's moving statistics included), and the trainable ones."""
    trainable = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    moving = sum(
        part.running_mean.numel() + part.running_var.numel()
        for part in network.modules()
        if isinstance(part, nn.BatchNorm1d) and part.running_mean is not None and part.running_var is not None
    )
    return trainable + moving, trainable
