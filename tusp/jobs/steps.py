"""One step of training: forwards, loss, backwards, update; in pieces where the memory is too small for the batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from tusp.jobs.memory import is_out_of_memory, release_memory
from tusp.jobs.parallel import Peers
from tusp.jobs.precision import autocast
from tusp.models.losses import Loss
from tusp.platform.errors import CellError

log = logging.getLogger(__name__)

_FORWARD = 0xD0
"""Sets the generator of the network's own draws (dropout) apart from the others of a step."""


class Stepper:
    """Takes steps on one network.

    Memory too small for a step: it is taken again in pieces of half as many windows, and so are all steps after it.
    The loss stays that of the whole batch: the pieces' logits are computed first, without gradients, the loss and its
    gradient by the logits from all of them together, and then each piece backwards. What differs is batch norm,
    whose statistics are those of a piece.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        call: Callable[[Tensor], Tensor] | None,
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        device: torch.device,
        precision: str,
        peers: Peers,
        micro_batch: int = 0,
    ) -> None:
        """
        Args:
            call: the network compiled; None for the network as it is.
            micro_batch: windows computed at a time; 0 for all.
        """
        self.network, self.optimizer, self.loss = network, optimizer, loss
        self.call = network if call is None else call
        self.device, self.precision, self.peers = device, precision, peers
        self.micro_batch = micro_batch
        # Moving statistics by type: copying tensors of one type is one operation.
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for buffer in network.buffers():
            by_type.setdefault(buffer.dtype, []).append(buffer)
        self._buffers = [(buffers, [torch.empty_like(buffer) for buffer in buffers]) for buffers in by_type.values()]

    def _keep_buffers(self) -> None:
        """So that a step that failed leaves no trace."""
        with torch.no_grad():
            for buffers, kept in self._buffers:
                torch._foreach_copy_(kept, buffers)

    def _give_buffers_back(self) -> None:
        with torch.no_grad():
            for buffers, kept in self._buffers:
                torch._foreach_copy_(buffers, kept)

    def _forward(self, signals: Tensor, key: Sequence[int], first: int) -> Tensor:
        # The network's own draws come from the step, too, or a training that was cut would go on with others.
        seed = np.random.SeedSequence([*key, _FORWARD, first]).generate_state(1, np.uint64)[0]
        torch.manual_seed(int(seed >> np.uint64(1)))
        with autocast(self.precision, self.device):
            return self.call(signals)

    def _gradients(self, signals: Tensor, stages: Tensor, key: Sequence[int]) -> Tensor:
        """Leave the gradients of the batch's loss in the parameters and return the loss."""
        n, size = len(signals), self.micro_batch or len(signals)
        first = self.peers.bounds(len(stages))[self.peers.rank]
        if size >= n:
            logits = self._forward(signals, key, first)
            loss = self.loss(self.peers.whole(logits.float(), len(stages)), stages)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach()
        pieces = [slice(begin, min(n, begin + size)) for begin in range(0, n, size)]
        with torch.no_grad():
            logits = torch.cat([self._forward(signals[piece], key, piece.start).float() for piece in pieces])
        self._give_buffers_back()
        logits.requires_grad_()
        loss = self.loss(logits, stages)
        loss.backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        for piece in pieces:
            self._forward(signals[piece], key, piece.start).float().backward(logits.grad[piece])  # type: ignore[no-untyped-call]
        return loss.detach()

    def step(self, signals: Tensor, stages: Tensor, key: Sequence[int]) -> Tensor:
        """Take one step; returns the loss of the batch before it, on the device.

        Args:
            signals: float32 [n, channels, T * 3840]; this process's slice of the batch.
            stages: int64 [batch, T]; of the whole batch.
            key: (seed, pass, step).

        Raises:
            CellError: not even one window at a time fits into the memory.
        """
        while True:
            self._keep_buffers()
            self.optimizer.zero_grad(set_to_none=True)
            try:
                loss = self._gradients(signals, stages, key)
                self.peers.sum_gradients(self.network)
                self.optimizer.step()
                return loss
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            # After the except, which would hold the tensors of the step that failed.
            self._smaller(len(signals), reason)

    def _smaller(self, n: int, reason: str) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self._give_buffers_back()
        if self.peers.size > 1:
            raise CellError(f"out of memory on {self.device} with {n} windows in each of {self.peers.size} processes")
        size = self.micro_batch or n
        if size == 1:
            raise CellError(
                f"out of memory on {self.device} even with one window at a time ({reason}); "
                "let fewer cells share the device"
            )
        self.micro_batch = (size + 1) // 2
        self.call = self.network  # what was compiled is for another shape
        log.warning("out of memory with %d windows at a time, now with %d (%s)", size, self.micro_batch, reason)
        release_memory(self.device)
