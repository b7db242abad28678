"""The network's blocks on processors, through the compiled code of `native.cpp`: same weights, same answer.

Between blocks lie *stored* values, after ELU and before batch norm, with the scale and shift per channel that batch
norm would apply: whoever reads them applies both. Every block also gives the sums and sums of squares of what it
stores, from which batch norm and squeeze-and-excitation take their statistics. Gradients are exact (first order only).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tusp.models.native import Source, address, library


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Values [windows, channels, samples] and what batch norm makes of them.

    ``scale`` and ``shift`` [channels] are None for values that are final; ``sums`` [windows, channels, 2] (float64) are
    those of the values and of their squares.
    """

    values: Tensor
    scale: Tensor | None = None
    shift: Tensor | None = None
    sums: Tensor | None = None

    def normalised(self) -> Tensor:
        """The values after batch norm, as a tensor."""
        if self.scale is None or self.shift is None:
            return self.values
        return torch.addcmul(self.shift[:, None], self.values, self.scale[:, None])

    def mean(self) -> Tensor:
        """Mean over the samples of the normalised values, [windows, channels]."""
        if self.sums is None or self.scale is None or self.shift is None:
            return self.normalised().mean(dim=2)
        return torch.addcmul(self.shift, (self.sums[..., 0] / self.values.shape[2]).float(), self.scale)


def normalise(values: Tensor, sums: Tensor, norm: nn.BatchNorm1d) -> Stored:
    """The scale and shift of batch norm, from the batch in training (its moving statistics follow), else from those."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    if norm.training:
        count = values.shape[0] * values.shape[2]
        totals = sums.sum(dim=0)
        over_processes = getattr(norm, "over_processes", None)  # see tusp.jobs.parallel
        if over_processes is not None:
            totals, count = over_processes(totals, count)
        mean, squares = (totals / count).unbind(dim=1)
        variance = (squares - mean * mean).clamp_min(0)
        with torch.no_grad():
            assert norm.momentum is not None
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked += 1
            norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
            unbiased = variance * (count / max(1, count - 1))
            norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), norm.momentum)
    else:
        mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = norm.weight * (variance + norm.eps).rsqrt()
    shift = norm.bias - mean * scale
    return Stored(values=values, scale=scale.float(), shift=shift.float(), sums=sums)


def _sources(
    tensors: tuple[Tensor | None, ...], gradients: list[Tensor] | None = None, pairs: list[Tensor] | None = None
) -> Any:
    """The C description of (values, scale, shift) triples, with where their gradients go."""
    triples = [tensors[i : i + 3] for i in range(0, len(tensors), 3)]
    described = (Source * len(triples))()
    for index, (values, scale, shift) in enumerate(triples):
        assert values is not None
        described[index] = Source(
            values=address(values),
            scale=address(scale),
            shift=address(shift),
            channels=values.shape[1],
            gradient=address(gradients[index]) if gradients else None,
            scale_gradient=address(pairs[index]) if pairs and scale is not None else None,
        )
    return described


def _room(tensors: tuple[Tensor | None, ...], wanted: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Tensors for the gradients of every source's values, and of its scale and shift [channels, 2]."""
    if not wanted:
        return [], []
    values = [tensor for tensor in tensors[::3] if tensor is not None]
    return (
        [torch.empty_like(value) for value in values],
        [torch.empty(value.shape[1], 2, dtype=torch.float64) for value in values],
    )


def _returned(tensors: tuple[Tensor | None, ...], gradients: list[Tensor], pairs: list[Tensor]) -> list[Tensor | None]:
    """Gradients in the order of the (values, scale, shift) triples."""
    if not gradients:
        return [None] * len(tensors)
    given: list[Tensor | None] = []
    for index, (gradient, pair) in enumerate(zip(gradients, pairs, strict=True)):
        scaled = tensors[3 * index + 1] is not None
        by_scale, by_shift = pair.float().unbind(dim=1)
        given += [gradient, by_scale if scaled else None, by_shift if scaled else None]
    return given


def _triples(sources: tuple[Stored, ...]) -> list[Tensor | None]:
    return [tensor for source in sources for tensor in (source.values.contiguous(), source.scale, source.shift)]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, fewer: bool, dilation: int, left: int, weight: Tensor, bias: Tensor, *sources: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        first = sources[0]
        assert first is not None
        windows, _, samples = first.shape
        outputs, _, taps = weight.shape
        values = torch.empty(windows, outputs, samples)
        sums = torch.empty(windows, outputs, 2, dtype=torch.float64)
        described = _sources(sources)
        library().tusp_conv_forward(
            described, len(described), windows, samples, address(weight), address(bias), outputs, taps,
            dilation, left, address(values), address(sums), fewer, torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(weight, values, *sources)
        ctx.shape = (dilation, left)
        return values, sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, sum_gradient: Tensor) -> tuple[Any, ...]:
        weight, values, *sources = ctx.saved_tensors
        dilation, left = ctx.shape
        windows, outputs, samples = values.shape
        gradient, sum_gradient = gradient.contiguous(), sum_gradient.contiguous()
        gradients, pairs = _room(tuple(sources), any(ctx.needs_input_grad[5:]))
        weight_gradient, bias_gradient = torch.empty_like(weight), torch.empty(outputs)
        described = _sources(tuple(sources), gradients, pairs)
        library().tusp_conv_backward(
            described, len(described), windows, samples, address(weight), outputs, weight.shape[2], dilation, left,
            address(gradient), address(values), address(sum_gradient), address(weight_gradient),
            address(bias_gradient), torch.get_num_threads(),
        )  # fmt: skip
        return None, None, None, weight_gradient, bias_gradient, *_returned(tuple(sources), gradients, pairs)


class _UpSampling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, running: Tensor, bias: Tensor, *source: Tensor | None) -> tuple[Tensor, Tensor]:
        first = source[0]
        assert first is not None
        windows, _, samples = first.shape
        outputs, _, factor = running.shape
        values = torch.empty(windows, outputs, samples * factor)
        sums = torch.empty(windows, outputs, 2, dtype=torch.float64)
        library().tusp_up_forward(
            _sources(source), windows, samples, address(running), address(bias), outputs, factor,
            address(values), address(sums), torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(running, values, *source)
        return values, sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, sum_gradient: Tensor) -> tuple[Any, ...]:
        running, values, *source = ctx.saved_tensors
        windows, outputs, _ = values.shape
        gradient, sum_gradient = gradient.contiguous(), sum_gradient.contiguous()
        gradients, pairs = _room(tuple(source), True)
        running_gradient, bias_gradient = torch.empty_like(running), torch.empty(outputs)
        library().tusp_up_backward(
            _sources(tuple(source), gradients, pairs), windows, source[0].shape[2], address(running), outputs,
            running.shape[2], address(gradient), address(values), address(sum_gradient), address(running_gradient),
            address(bias_gradient), torch.get_num_threads(),
        )  # fmt: skip
        return running_gradient, bias_gradient, *_returned(tuple(source), gradients, pairs)


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pool: int, *source: Tensor | None) -> Tensor:
        first = source[0]
        assert first is not None
        windows, channels, samples = first.shape
        pooled = torch.empty(windows, channels, samples // pool)
        place = torch.empty(pooled.shape, dtype=torch.int32) if any(ctx.needs_input_grad) else None
        library().tusp_pool_forward(
            _sources(source), windows, samples, pool, address(pooled), address(place), torch.get_num_threads()
        )
        ctx.save_for_backward(place, *source)
        ctx.pool = pool
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        place, *source = ctx.saved_tensors
        windows, _, samples = source[0].shape
        gradient = gradient.contiguous()
        gradients, pairs = _room(tuple(source), True)
        library().tusp_pool_backward(
            _sources(tuple(source), gradients, pairs), windows, samples, ctx.pool, address(gradient), address(place),
            torch.get_num_threads(),
        )  # fmt: skip
        return None, *_returned(tuple(source), gradients, pairs)


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, view: int, values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        windows, inputs, samples = values.shape
        outputs = weight.shape[1]
        weight, bias = weight.contiguous(), bias.contiguous()
        pooled = torch.empty(windows, outputs, samples // view)
        library().tusp_head_forward(
            address(values), windows, inputs, samples, address(weight), address(bias), outputs, view,
            address(pooled), torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(values, weight, bias)
        ctx.view = view
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        values, weight, bias = ctx.saved_tensors
        windows, inputs, samples = values.shape
        gradient = gradient.contiguous()
        value_gradient, weight_gradient = torch.empty_like(values), torch.empty_like(weight)
        bias_gradient = torch.empty_like(bias)
        library().tusp_head_backward(
            address(values), windows, inputs, samples, address(weight), address(bias), weight.shape[1], ctx.view,
            address(gradient), address(value_gradient), address(weight_gradient), address(bias_gradient),
            torch.get_num_threads(),
        )  # fmt: skip
        return None, value_gradient, weight_gradient, bias_gradient


def convolution(convolution: nn.Conv1d, norm: nn.BatchNorm1d, *sources: Stored, padding: tuple[int, int]) -> Stored:
    """'Same' convolution over the joined channels of ``sources``, ELU, batch norm."""
    # Fewer products round a little more: for a network that learns the direct form is kept.
    values, sums = _Convolution.apply(  # type: ignore[no-untyped-call]
        not norm.training, convolution.dilation[0], padding[0], convolution.weight, convolution.bias, *_triples(sources)
    )
    return normalise(values, sums, norm)


def twice(
    first: nn.Conv1d,
    first_norm: nn.BatchNorm1d,
    second: nn.Conv1d,
    second_norm: nn.BatchNorm1d,
    *sources: Stored,
    padding: tuple[int, int],
) -> Stored:
    """Two such convolutions of one shape, the second over the first.

    In evaluation, where nothing is kept for backward, what lies between them never exists in memory as a whole.
    """
    tensors = tuple(_triples(sources))
    inputs = (first.weight, first.bias, *tensors)
    wants_gradients = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)
    if not first_norm.training and not second_norm.training and not wants_gradients:
        values = tensors[0]
        assert values is not None
        windows, _, samples = values.shape
        outputs, _, taps = first.weight.shape
        between = normalise(values, values, first_norm)
        values = torch.empty(windows, outputs, samples)
        sums = torch.empty(windows, outputs, 2, dtype=torch.float64)
        described = _sources(tensors)
        done = library().tusp_pair_forward(
            described, len(described), windows, samples, address(first.weight), address(first.bias),
            address(between.scale), address(between.shift), address(second.weight), address(second.bias), outputs, taps,
            first.dilation[0], padding[0], address(values), address(sums), torch.get_num_threads(),
        )  # fmt: skip
        if done:
            return normalise(values, sums, second_norm)
    return convolution(second, second_norm, convolution(first, first_norm, *sources, padding=padding), padding=padding)


def up_sampling(convolution: nn.Conv1d, norm: nn.BatchNorm1d, source: Stored) -> Stored:
    """Nearest up-sampling by the kernel's length, 'same' convolution, ELU, batch norm; all at the low rate.

    Nearest up-sampling repeats each value, so output phase r is a sum of the first taps on one low-rate sample and of
    the others on the next: differences of running sums of the weight over its taps. That needs as many products as
    the weight has entries for each low-rate sample, a third of three taps for every phase.
    """
    running = convolution.weight.cumsum(dim=2)
    values, sums = _UpSampling.apply(  # type: ignore[no-untyped-call]
        running, convolution.bias, *_triples((source,))
    )
    return normalise(values, sums, norm)


def max_pool(source: Stored, pool: int) -> Tensor:
    """Maximum of ``pool`` normalised samples, [windows, channels, samples // pool]."""
    pooled: Tensor = _MaxPool.apply(pool, *_triples((source,)))  # type: ignore[no-untyped-call]
    return pooled


def head(mix: nn.Conv1d, source: Stored, gate: Tensor | None, view: int) -> Tensor:
    """Mean over ``view`` samples of tanh(mix(gate * normalised)), [windows, outputs, samples // view].

    ``gate`` [windows, channels] or None. Gate and batch norm go into the weights of every window.
    """
    assert mix.bias is not None
    matrix = mix.weight[:, :, 0].expand(source.values.shape[0], -1, -1)
    if gate is not None:
        matrix = matrix * gate[:, None, :]
    bias = mix.bias.expand(matrix.shape[:2])
    if source.scale is not None and source.shift is not None:
        bias = bias + matrix @ source.shift
        matrix = matrix * source.scale
    pooled: Tensor = _Head.apply(view, source.values.contiguous(), matrix, bias)  # type: ignore[no-untyped-call]
    return pooled
