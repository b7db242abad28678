"""Telling that memory ran out, whatever said so, and making room."""

from __future__ import annotations

import gc
from typing import Final

import torch

_SAYS: Final = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
"""What errors of torch's CPU allocator, cuDNN and cuBLAS say, which have no type of their own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an operation failed because the memory of the device (or of the machine) was too small for it."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAYS)


def release_memory(device: torch.device) -> None:
    """Give back what nothing refers to any more. Call it outside of the ``except``: the error holds the tensors."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
