"""What a cell cost: arithmetic, time, memory and, where the device tells, energy."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tusp.datasets.prepared import SAMPLES_PER_EPOCH
from tusp.platform.environment import cpu_model

_RAPL: Final = Path("/sys/class/powercap")
_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")


def _recurrent(network: nn.Module, counted: list[int]) -> list[Any]:
    """Hooks that add the multiplications of recurrent layers, which the counter of operations does not see."""

    def count(layer: Any, inputs: tuple[torch.Tensor, ...], _: Any) -> None:
        x = inputs[0]
        batch, steps = (x.shape[0], x.shape[1]) if layer.batch_first else (x.shape[1], x.shape[0])
        weights = sum(w.numel() for name, w in layer.named_parameters() if name.startswith("weight"))
        counted.append(batch * steps * weights)

    return [part.register_forward_hook(count) for part in network.modules() if isinstance(part, nn.RNNBase)]


@torch.no_grad()
def multiply_accumulates(network: nn.Module, *, n_channels: int, window_epochs: int) -> float:
    """Multiply-accumulates of one epoch in a window of ``window_epochs``, in evaluation.

    Convolutions, matrix products and recurrent layers count; element-wise operations do not. A network that has a
    cheaper form of the same function is counted in the form that was published.
    """
    model = copy.deepcopy(network).to("cpu").eval()
    for part in model.modules():
        if hasattr(part, "plain"):
            part.plain = True  # type: ignore[assignment]
    counted: list[int] = []
    hooks = _recurrent(model, counted)
    counter = FlopCounterMode(display=False)
    with counter:
        model(torch.zeros(1, n_channels, window_epochs * SAMPLES_PER_EPOCH))
    for hook in hooks:
        hook.remove()
    return (counter.get_total_flops() / 2 + sum(counted)) / window_epochs


def _own_energy(device: torch.device) -> float | str:
    """Joules that the device has used since some moment, or why it does not tell."""
    if device.type == "cuda":
        try:
            import pynvml
        except ImportError:
            return "pynvml is not installed"
        try:
            pynvml.nvmlInit()
            uuid = str(torch.cuda.get_device_properties(device).uuid)
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
        except pynvml.NVMLError:
            return "the card has no counter of energy"
    try:
        packages = [folder for folder in _RAPL.glob("intel-rapl:*") if re.fullmatch(r"intel-rapl:\d+", folder.name)]
        if not packages:
            return "the processor shows no counter of energy"
        return sum(int((folder / "energy_uj").read_text()) for folder in packages) / 1e6
    except (OSError, ValueError):
        return "the processor's counter of energy may not be read"  # most systems let only root read it


def hardware_name(device: str) -> str | None:
    """Name of the card or processor, None where the system does not tell."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_properties(device).name
    return cpu_model()


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        # What an earlier cell freed may still be held for the next large tensor: it is not this cell's.
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5")  # Linux: start the peak of the resident set anew


def _peak(device: torch.device) -> int | None:
    """Most bytes held since ``_forget_peak``: of the device's memory, or of the process where it is the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


@dataclass(kw_only=True)
class Meter:
    """Measures one attempt at a cell on a device."""

    device: str
    devices: float
    """GPUs that the cell holds, or a fraction; on the CPU its threads."""
    energy: float | None = None
    """Joules of the whole device while the cell ran on it, also for what others computed there."""
    energy_missing: str | None = "the cell did not end"
    """Why it is not known."""
    peak_bytes: int | None = None
    predicted: list[tuple[int, float]] = field(default_factory=list)

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Around training and prediction: peak memory and energy."""
        device = torch.device(self.device)
        _forget_peak(device)
        before = _own_energy(device)
        yield
        after = _own_energy(device)
        self.peak_bytes = _peak(device)
        self.energy, self.energy_missing = None, None
        if isinstance(before, str) or isinstance(after, str):
            self.energy_missing = before if isinstance(before, str) else str(after)
        elif after < before:
            self.energy_missing = "the counter of energy started again"
        else:
            self.energy = after - before

    @contextlib.contextmanager
    def prediction(self, epochs: int) -> Iterator[None]:
        """Around the prediction of one night of ``epochs`` epochs."""
        began = time.perf_counter()
        yield
        self.predicted.append((epochs, time.perf_counter() - began))

    def record(self, *, training_seconds: float, resumed: bool) -> dict[str, Any]:
        """What the cell's result says of its cost.

        Energy and peak memory are of the attempt that completed the cell; of one that was continued, energy is not
        known, and ``energy_missing`` says why.
        """
        seconds = sum(taken for _, taken in self.predicted)
        epochs = sum(count for count, _ in self.predicted)
        return {
            "device_seconds": training_seconds * self.devices,
            "peak_memory_bytes": self.peak_bytes,
            "inference_epochs_per_second": epochs / seconds if seconds else None,
            "energy_joules": None if resumed else self.energy,
            "energy_missing": "the cell was continued after a stop" if resumed else self.energy_missing,
            "hardware": hardware_name(self.device),
        }
