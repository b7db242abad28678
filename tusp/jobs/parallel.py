"""Several processes that train one network: the same batch, the same loss and the same statistics as one process.

Each process takes a slice of every batch. Batch norm takes its statistics over all slices, the loss is that of all
logits together, and gradients are summed; so only the order of additions differs from one process. Needs torch alone;
any process group will do (gloo for CPUs, NCCL or gloo for GPUs).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tusp.platform.errors import CellError


class PeerError(CellError):
    """Another process that trains the same cell failed; it has said why itself."""


@dataclass(frozen=True, kw_only=True)
class Peers:
    """The processes that train one cell, and which of them this is. One process alone by default."""

    rank: int = 0
    size: int = 1
    group: Any = None
    """A torch.distributed process group; None for the default one."""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise CellError(f"rank {self.rank} of {self.size} processes: must lie in 0 to {self.size - 1}")
        if self.size > 1 and not dist.is_initialized():
            raise CellError(f"{self.size} processes for one cell, but torch.distributed was not initialised")

    def bounds(self, n: int) -> list[int]:
        """Where the processes' slices of ``n`` windows begin, and the end: ``size + 1`` numbers.

        Raises:
            CellError: a process would get nothing.
        """
        if n < self.size:
            raise CellError(f"a batch of {n} windows cannot be divided among {self.size} processes; use fewer")
        return [n * rank // self.size for rank in range(self.size + 1)]

    def slice_of(self, n: int) -> slice:
        """This process's slice of ``n`` windows."""
        bounds = self.bounds(n)
        return slice(bounds[self.rank], bounds[self.rank + 1])

    def sum_(self, tensor: Tensor) -> Tensor:
        """Add up a tensor over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor, group=self.group)
        return tensor

    def sum_gradients(self, network: nn.Module) -> None:
        """Add up the gradients of all processes, in one message."""
        if self.size == 1:
            return
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = self.sum_(torch.cat([gradient.flatten() for gradient in gradients]))
        begin = 0
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = flat[begin : begin + gradient.numel()].view_as(gradient)
            begin += gradient.numel()

    def whole(self, rows: Tensor, n: int) -> Tensor:
        """All ``n`` rows of a batch from every process's slice; gradients flow back to the slice.

        Every process computes the same loss from them, so that a slice's gradient is what the loss says of its rows.
        """
        if self.size == 1:
            return rows
        gathered: Tensor = _Gather.apply(rows, n, self)  # type: ignore[no-untyped-call]
        return gathered

    def agree(self, error: Exception | None, device: torch.device) -> None:
        """Raise in all processes what went wrong in one of them, before others wait for it.

        Raises:
            PeerError: another process failed; its own error in the one that failed.
        """
        if self.size > 1:
            # Over gloo on the CPU, which does not make a GPU wait.
            place = device if dist.get_backend(self.group) == "nccl" else torch.device("cpu")
            failed = self.sum_(torch.tensor([0 if error is None else 1], device=place))
            if error is None and int(failed):
                raise PeerError("another process that trains this cell failed; its log says why")
        if error is not None:
            raise error

    def broadcast(
        self, kept: tuple[Mapping[str, Tensor], Mapping[str, Any]] | None, device: torch.device
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What the first process holds (tensors and JSON values), in all of them; on the CPU."""
        if self.size == 1:
            return None if kept is None else (dict(kept[0]), dict(kept[1]))
        tensors, state = ({}, None) if kept is None else kept
        header = {
            "state": state,
            "tensors": [[name, str(value.dtype), list(value.shape)] for name, value in tensors.items()],
        }
        text = json.dumps(header if self.rank == 0 else None).encode()
        length = self._from_first(torch.tensor([len(text)], dtype=torch.int64), device)
        content = torch.zeros(int(length), dtype=torch.uint8)
        if self.rank == 0:
            content = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        header = json.loads(bytes(self._from_first(content, device).tolist()))
        received: dict[str, Tensor] = {}
        for name, dtype, shape in header["tensors"]:
            value = tensors[name] if self.rank == 0 else torch.empty(shape, dtype=getattr(torch, dtype[6:]))
            received[name] = self._from_first(value.detach().clone(), device)
        return None if header["state"] is None else (received, header["state"])

    def _from_first(self, tensor: Tensor, device: torch.device) -> Tensor:
        moved = tensor.contiguous().to(device)
        dist.broadcast(moved, src=0 if self.group is None else dist.get_global_rank(self.group, 0), group=self.group)
        return moved.cpu()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, n: int, peers: Peers) -> Tensor:
        ctx.part = peers.slice_of(n)
        # A sum with zeros, since slices may differ in length and not every backend gathers.
        whole = rows.new_zeros((n, *rows.shape[1:]))
        whole[ctx.part] = rows
        return peers.sum_(whole)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0][ctx.part], None, None


class _Normalise(torch.autograd.Function):
    """Batch norm [batch, channels, ...] over the batches of all processes. Statistics in 32 bits or more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, peers: Peers) -> Any:
        over = [0, *range(2, x.dim())]
        wide = x.float()
        variance, mean = torch.var_mean(wide, dim=over, correction=0)
        slot = wide.new_zeros((peers.size, 2 * x.shape[1] + 1), dtype=torch.float64)
        slot[peers.rank] = torch.cat((mean, variance, mean.new_full((1,), x.numel() // x.shape[1]))).double()
        means, variances, counts = peers.sum_(slot).tensor_split((x.shape[1], 2 * x.shape[1]), dim=1)
        n = counts.sum()
        mean64 = (counts * means).sum(0) / n
        variance64 = (counts * (variances + (means - mean64) ** 2)).sum(0) / n
        scale = (variance64 + eps).rsqrt().float()
        shape = (1, -1, *[1] * (x.dim() - 2))
        normal = (wide - mean64.float().view(shape)) * scale.view(shape)
        ctx.save_for_backward(normal, weight, scale, n)
        ctx.peers, ctx.over, ctx.shape, ctx.dtype = peers, over, shape, x.dtype
        result = (normal * weight.view(shape) + bias.view(shape)).to(x.dtype)
        unbiased = variance64 * n / (n - 1).clamp_min(1)
        ctx.mark_non_differentiable(mean64, unbiased)
        return result, mean64, unbiased

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        normal, weight, scale, n = ctx.saved_tensors
        gradient = gradients[0].float()
        to_bias, to_weight = gradient.sum(ctx.over), (gradient * normal).sum(ctx.over)
        # Those of the weights are summed with all other gradients; here the sums over the whole batch are needed.
        sums = ctx.peers.sum_(torch.stack((to_bias, to_weight)).double()) / n
        mean, projected = (row.float().view(ctx.shape) for row in sums)
        to_x = (gradient - mean - normal * projected) * (weight * scale).view(ctx.shape)
        return to_x.to(ctx.dtype), to_weight, to_bias, None, None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: Tensor, peers: Peers) -> Tensor:
        ctx.peers = peers
        return peers.sum_(mine.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return ctx.peers.sum_(gradients[0].clone()), None


class SharedBatchNorm(nn.BatchNorm1d):
    """Batch norm whose statistics are those of the whole batch that several processes share."""

    peers: Peers

    def over_processes(self, totals: Tensor, count: int) -> tuple[Tensor, int]:
        """Sums over this process's slice, and how many values went into them, to those of the whole batch.

        For forms of a network that take the statistics themselves instead of calling this module.
        """
        # One message for both; 64-bit floats hold counts exactly.
        mine = torch.cat((totals.double().flatten(), totals.new_full((1,), count, dtype=torch.float64)))
        summed: Tensor = _Sum.apply(mine, self.peers)  # type: ignore[no-untyped-call]
        return summed[:-1].view_as(totals), int(summed[-1])

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return super().forward(x)
        momentum = self.momentum
        if momentum is None:
            raise CellError("batch norm with a cumulative average cannot be shared by several processes")
        result, mean, variance = _Normalise.apply(  # type: ignore[no-untyped-call]
            x, self.weight, self.bias, self.eps, self.peers
        )
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
            self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        normalised: Tensor = result
        return normalised


def share_batch_norm(network: nn.Module, peers: Peers) -> None:
    """Let every batch norm of a network take its statistics over all processes. Names of tensors stay as they are.

    Raises:
        CellError: a kind of batch norm that cannot be shared (of two or three dimensions, or without weights).
    """
    if peers.size == 1:
        return
    for name, module in network.named_modules():
        if type(module) is nn.BatchNorm1d and module.affine:
            module.__class__ = SharedBatchNorm
            module.__dict__["peers"] = peers
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, SharedBatchNorm):
            raise CellError(f"{name}: {type(module).__name__} cannot be shared by several processes; use one per cell")


def unshare_batch_norm(network: nn.Module) -> None:
    """Undo ``share_batch_norm``."""
    for module in network.modules():
        if isinstance(module, SharedBatchNorm):
            module.__class__ = nn.BatchNorm1d  # type: ignore[assignment]
            del module.__dict__["peers"]


def part_of(items: Sequence[Any], peers: Peers) -> list[Any]:
    """Every ``size``-th item, beginning with the process's own: its share of work that needs no batch."""
    return list(items[peers.rank :: peers.size])
