"""torch.compile where its start-up pays for itself. No part of a cell's identity; recorded with every cell."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn

from tusp.jobs.memory import release_memory
from tusp.jobs.precision import autocast
from tusp.platform.errors import UserError

log = logging.getLogger(__name__)

COMPILES: Final = ("auto", "never", "always")

PAYS_FROM_STEPS: Final = 10_000
"""Steps from which on ``auto`` compiles on a GPU. Compiling takes about a minute, which 10,000 steps win back when each
becomes 6 ms shorter."""

Call = Callable[[Tensor], Tensor]


def wants_compile(mode: str, *, device: torch.device, steps: int) -> tuple[bool, str]:
    """Whether to compile, and why (not).

    Args:
        mode: ``auto``, ``never`` or ``always``.
        steps: that the training takes at least.

    Raises:
        UserError: there is no such mode.
    """
    if mode not in COMPILES:
        raise UserError(f"compile = {mode!r}: must be one of {', '.join(COMPILES)}")
    if mode != "auto":
        return mode == "always", f"{mode}, as asked"
    if device.type != "cuda":
        return False, "not on a CPU"
    if steps < PAYS_FROM_STEPS:
        return False, f"{steps} steps or a few more do not win back the time that compiling takes"
    return True, f"{steps} steps or more"


def compiled(network: nn.Module, example: Tensor, *, precision: str) -> tuple[Call | None, dict[str, Any]]:
    """The network compiled and tried forwards and backwards on a batch like ``example``, or None where that failed.

    Nothing of the network changes: not its weights, gradients, moving statistics or mode.

    Returns:
        The compiled form, and what to record: ``used``, ``reason`` where it failed, ``seconds`` it took.
    """
    began = time.monotonic()
    buffers = [buffer.clone() for buffer in network.buffers()]
    training = network.training
    try:
        network.train()
        call: Call = torch.compile(network, dynamic=False)
        with autocast(precision, example.device):
            logits = call(example)
        logits.float().square().mean().backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # noqa: BLE001 - whatever the compiler lacks, the network trains without it
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        reason = f"{type(error).__name__}: {first}"[:300]
        log.warning("the network is not compiled: %s", reason)
        return None, {"used": False, "reason": reason, "seconds": time.monotonic() - began}
    finally:
        network.zero_grad(set_to_none=True)
        release_memory(example.device)
        network.train(training)
        with torch.no_grad():
            for buffer, kept in zip(network.buffers(), buffers, strict=True):
                buffer.copy_(kept)
    return call, {"used": True, "seconds": time.monotonic() - began}
