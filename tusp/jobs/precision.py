"""The arithmetic of a cell: float32 or bf16, TensorFloat-32 off, kernels that add in one order.

Needs torch alone. ``bf16`` is torch's autocast: weights, optimizer, losses and batch statistics stay in float32,
convolutions and products are computed in bfloat16.
"""

from __future__ import annotations

import os
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Literal

import torch
from torch import nn

from tusp.models.native import native
from tusp.models.tinyustaging import TinyUStaging
from tusp.platform.environment import BF16_CAPABILITY, computes_bf16, cpu_flags
from tusp.platform.errors import UserError

Precision = Literal["float32", "bf16"]

WORKSPACE: Final = ":4096:8"
"""Of cuBLAS: with a fixed workspace its products do not depend on what else runs on the card."""

_ONE_CONTRIBUTION: Final = (
    r".*max_pool2d_with_indices_backward_cuda.*",
    r".*scatter_add_cuda_kernel.*",
    r".*index_copy_cuda.*",
)
"""Operations that torch warns of because additions may come in any order, but in which nothing here is added to the
same place twice: windows of pooling do not overlap, and every epoch has one true stage."""


def resolve_precision(wanted: str, device: torch.device | str, network: nn.Module | None = None) -> Precision:
    """What ``precision = wanted`` of a recipe means for a network on a device.

    ``auto`` is bf16 where the hardware computes with it: on CUDA from compute capability 8.0 on, on a CPU with
    AVX-512 bf16 or AMX instructions. Elsewhere bf16 is emulated and slower than float32. A network with compiled
    blocks stays in float32 on a CPU, which is what those compute in: they gain more than bf16 does
    (docs/benchmarks.md).

    Raises:
        UserError: there is no such precision.
    """
    if wanted == "float32":
        return "float32"
    if wanted == "bf16":
        return "bf16"
    if wanted != "auto":
        raise UserError(f"precision = {wanted!r}: must be one of auto, float32, bf16")
    device = torch.device(device)
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= BF16_CAPABILITY else "float32"
    if device.type != "cpu" or not computes_bf16(cpu_flags()):
        return "float32"
    return "float32" if isinstance(network, TinyUStaging) and native().library is not None else "bf16"


def autocast(precision: str, device: torch.device | str) -> AbstractContextManager[Any]:
    """The context in which a network is called."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)


def settle_numerics(device: torch.device | str) -> dict[str, Any]:
    """Make a device compute the same bits whenever it computes the same thing; returns what was set.

    On CUDA: TensorFloat-32 off (float32 means float32), cuDNN picks its kernels by rule and not by timing them, and
    operations that have a deterministic form use it. On a CPU nothing needs to be set. These are settings of the
    process.
    """
    if torch.device(device).type != "cuda":
        return {"tf32": False, "deterministic": True}
    # Read when cuBLAS starts, which is after this: nothing was computed on the device yet.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", WORKSPACE)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    # A network of a plug-in may hold an operation without a deterministic form: torch then warns, and goes on.
    torch.use_deterministic_algorithms(True, warn_only=True)
    utilities: Any = torch.utils
    utilities.deterministic.fill_uninitialized_memory = False  # writing NaN into fresh memory costs time
    for message in _ONE_CONTRIBUTION:
        warnings.filterwarnings("ignore", message=message)
    return {"tf32": False, "deterministic": True}
