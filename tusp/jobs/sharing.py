"""How many cells share a GPU, from what was measured on one. Free of torch and Ray.

Small networks leave most of a GPU idle while they wait for kernels to start, so several cells at once finish sooner
than one after the other, until memory or arithmetic is used up. Where that is differs by network, batch and GPU.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tusp.datasets.prepared import SIGNALS
from tusp.models.families import from_plan
from tusp.platform.files import write_json_atomic
from tusp.platform.identity import fingerprint

if TYPE_CHECKING:  # it needs the store, and benchmarks measure where there is torch and numpy alone
    from tusp.jobs.plan import CellTask

CANDIDATES: Final = (1, 2, 4, 8)
"""Numbers of cells that are tried on one GPU."""

USABLE: Final = 0.9
"""Share of a GPU's memory that is planned with: allocators fragment it, and validation takes other shapes."""

RESIDENT: Final = 0.4
"""Share of a GPU's memory up to which a cell's nights are held there (as tusp.jobs.feeding does)."""

WORTH: Final = 1.05
"""More cells on a GPU must be so much faster together than fewer, or the fewer are taken."""

VERSION: Final = 1
"""Of the measurement; another one is not taken from the cache."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a probe found on one GPU."""

    gpu: str
    """Its name."""
    total_bytes: int
    step_bytes: int
    """Most that one training process takes, nights not counted."""
    epochs_per_second: Mapping[int, float]
    """Of all processes together in training, by the number of processes."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "epochs_per_second": {str(n): rate for n, rate in self.epochs_per_second.items()}}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Measured:
        rates = {int(n): float(rate) for n, rate in values["epochs_per_second"].items()}
        return cls(**{**values, "epochs_per_second": rates})


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """How many cells share a GPU, and why in one line."""

    cells_per_gpu: int
    reason: str

    @property
    def gpus_per_cell(self) -> float:
        """The share of a GPU that Ray is asked for; so many of them never add up to more than one GPU."""
        # Ray counts in ten-thousandths and rounds: 7 x 0.1429 would be too much.
        return 1.0 if self.cells_per_gpu == 1 else math.floor(10_000 / self.cells_per_gpu) / 10_000


def process_bytes(measured: Measured, resident_bytes: int) -> int:
    """Memory of one cell on the GPU: a training step, and its nights where they are held there."""
    total = measured.total_bytes
    held = resident_bytes <= RESIDENT * total and measured.step_bytes + resident_bytes <= USABLE * total
    return measured.step_bytes + (resident_bytes if held else 0)


def fits(measured: Measured, cells: int, resident_bytes: int) -> bool:
    """Whether so many cells fit into the memory of a GPU; one always counts as fitting."""
    return cells == 1 or cells * process_bytes(measured, resident_bytes) <= USABLE * measured.total_bytes


def decide(measured: Measured, *, resident_bytes: int, most: int) -> Sharing:
    """The number of cells on one GPU that train the most epochs a second together.

    Args:
        resident_bytes: of the nights that a cell trains on, the largest there is.
        most: more would not find a CPU, or a cell.
    """
    rates = {n: rate for n, rate in sorted(measured.epochs_per_second.items()) if n <= max(1, most)}
    best = 1
    for n, rate in rates.items():
        if fits(measured, n, resident_bytes) and rate >= WORTH * rates.get(best, 0.0):
            best = n
    too_large = [n for n in rates if not fits(measured, n, resident_bytes)]
    shown = ", ".join(f"{n}: {rate:.0f}" for n, rate in rates.items())
    each = process_bytes(measured, resident_bytes)
    reason = (
        f"{best} on a {measured.gpu}: epochs/s by cells at once {shown}; {each / 2**30:.1f} of "
        f"{measured.total_bytes / 2**30:.0f} GiB each"
    )
    if too_large:
        reason += f", {too_large[0]} do not fit"
    if most < max(CANDIDATES):
        reason += f"; more than {max(1, most)} were not wanted"
    return Sharing(cells_per_gpu=best, reason=reason)


def shapes_of(tasks: Sequence[CellTask]) -> list[Mapping[str, Any]]:
    """The parts of the plans that decide what a training step takes: each pair of network and recipe once.

    Estimators are left out: they use no GPU.
    """
    found = {}
    for task in tasks:
        plan = task.cell.plan
        if from_plan(plan["model"])[0].kind == "estimator":
            continue
        shape = {key: plan[key] for key in ("model", "channels", "recipe")}
        found[fingerprint(shape)] = shape
    return [found[key] for key in sorted(found)]


def resident_bytes(tasks: Sequence[CellTask]) -> int:
    """Bytes of the training nights of the cell that has most of them."""
    sizes: dict[Path, int] = {}
    most = 0
    for task in tasks:
        total = 0
        for entry in task.cell.plan["corpora"]:
            for name in entry["train"]:
                folder = task.nights[entry["name"]][name]
                if folder not in sizes:
                    sizes[folder] = (folder / SIGNALS).stat().st_size
                total += sizes[folder]
        most = max(most, total)
    return most


def _cache(home: Path, gpu: str, shapes: Sequence[Mapping[str, Any]]) -> Path:
    key = fingerprint({"version": VERSION, "gpu": gpu, "shapes": list(shapes)})
    return home / "probes" / f"{key[:32]}.json"


def remembered(home: Path, gpu: str, shapes: Sequence[Mapping[str, Any]]) -> Measured | None:
    """What was measured before for these networks and recipes on such a GPU."""
    path = _cache(home, gpu, shapes)
    return Measured.from_json(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def remember(home: Path, measured: Measured, shapes: Sequence[Mapping[str, Any]]) -> None:
    """Keep a measurement for the next submission."""
    write_json_atomic(_cache(home, measured.gpu, shapes), measured.to_json())
