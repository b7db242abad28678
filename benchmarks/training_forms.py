"""The forms of the network that training.py compares, and a training step under one of them."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tusp.models import native
from tusp.models.config import SAMPLES_PER_EPOCH, NetworkConfig
from tusp.models.losses import build_loss
from tusp.models.tinyustaging import TinyUStaging, build_network

WINDOW, STRIDE, NIGHT = 31, 15, 960
CLASS_WEIGHTS = (0.2, 0.3, 0.2, 0.2, 0.2)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
LARGEST_MMAP_THRESHOLD = 32 * 2**20


@dataclass(frozen=True, kw_only=True)
class Form:
    """One way of computing the same network."""

    name: str
    plain: bool = False
    compiled_blocks: bool = False
    keep_memory: bool = True
    autocast: bool = False
    tf32: bool = False
    torch_compile: str | None = None


CPU_FORMS = (
    Form(name="plain float32", plain=True, keep_memory=False),
    Form(name="plain float32, freed memory kept", plain=True),
    Form(name="plain bf16 autocast", plain=True, autocast=True, keep_memory=False),
    Form(name="torch form (low rate) float32, freed memory kept"),
    Form(name="compiled blocks float32", compiled_blocks=True),
)
GPU_FORMS = (
    Form(name="plain float32", plain=True),
    Form(name="torch form (low rate) float32"),
    Form(name="torch form (low rate) TF32", tf32=True),
    Form(name="plain bf16 autocast", plain=True, autocast=True, tf32=True),
    Form(name="torch form bf16 autocast", autocast=True, tf32=True),
    Form(name="bf16 autocast + torch.compile", autocast=True, tf32=True, torch_compile="default"),
    Form(name="bf16 autocast + torch.compile + CUDA graphs", autocast=True, tf32=True, torch_compile="reduce-overhead"),
    Form(name="float32 TF32 + torch.compile", tf32=True, torch_compile="default"),
)
CPU_COMPILED = (
    Form(name="torch form float32 + torch.compile", torch_compile="default"),
    Form(name="torch form bf16 autocast + torch.compile", autocast=True, torch_compile="default"),
)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def timed(device: torch.device, action: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of an action that the device has finished."""
    synchronise(device)
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    synchronise(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def keep_memory(keep: bool) -> None:
    """Set glibc's allocator to keep freed memory, or as it behaves by itself after a while."""
    if keep:
        native.keep_freed_memory()
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_MAX, 65536)
    mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
    mallopt(M_TRIM_THRESHOLD, 2 * LARGEST_MMAP_THRESHOLD)


@contextmanager
def as_form(form: Form, device: torch.device) -> Iterator[None]:
    """The process-wide switches of a form."""
    keep_memory(form.keep_memory)
    torch.backends.cuda.matmul.allow_tf32 = form.tf32
    torch.backends.cudnn.allow_tf32 = form.tf32
    native.native.cache_clear()
    before = os.environ.get("TUSP_NATIVE")
    os.environ["TUSP_NATIVE"] = "1" if form.compiled_blocks else "0"
    try:
        if form.compiled_blocks:
            native.native()
        with torch.autocast(device.type, torch.bfloat16) if form.autocast else nullcontext():
            yield
    finally:
        native.native.cache_clear()
        os.environ.pop("TUSP_NATIVE")
        if before is not None:
            os.environ["TUSP_NATIVE"] = before


class Training:
    """One network with its optimiser and a batch of noise, under one form."""

    def __init__(self, form: Form, device: torch.device, batch: int, network: nn.Module | None = None) -> None:
        self.form, self.device = form, device
        self.network = (network or build_network(NetworkConfig())).to(device).train()
        if isinstance(self.network, TinyUStaging):
            self.network.use_plain_form(form.plain)
        self.run: Any = self.network
        if form.torch_compile:
            mode = None if form.torch_compile == "default" else form.torch_compile
            self.run = torch.compile(self.network, mode=mode)
        self.loss = build_loss("focal+dice", class_weights=CLASS_WEIGHTS, gamma=2.0, device=device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-4, fused=True)
        self.signal = torch.randn(batch, 2, WINDOW * SAMPLES_PER_EPOCH, device=device)
        self.stages = torch.randint(0, 5, (batch, WINDOW), device=device)

    def step(self) -> None:
        with torch.autocast(self.device.type, torch.bfloat16) if self.form.autocast else nullcontext():
            logits = self.run(self.signal)
        loss = self.loss(logits, self.stages)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()


def forms_of(device: torch.device, compiled: bool = False, only: Sequence[str] = ("",)) -> tuple[Form, ...]:
    """The forms for a device whose names hold one of the words ``only``."""
    forms = GPU_FORMS if device.type == "cuda" else CPU_COMPILED if compiled else CPU_FORMS
    return tuple(form for form in forms if any(word in form.name for word in only))
