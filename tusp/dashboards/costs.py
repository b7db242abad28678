"""What the arms of a board cost: sums, maxima and medians over their cells, apart for each kind of hardware.

A cell says what it cost in its result (:mod:`tusp.jobs.cost`). Absent is never 0: a figure that no cell reports is NaN
with the reason beside it, and one that only some report says how many.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

Results: TypeAlias = Sequence[Mapping[str, Any]]

NOT_RECORDED: Final = "finished before tusp measured it"


@dataclass(frozen=True, kw_only=True, order=True)
class Place:
    """What cells ran on. Figures of two places are never put into one."""

    kind: str
    """``CPU``, ``GPU`` or another kind of device; empty where the cell does not say."""

    hardware: str
    """Name of the processor or card; empty where the cell does not say."""

    units: float
    """CPU threads or GPUs of a cell, a fraction of a GPU where cells share it; 0 where the cell does not say."""

    workers: int
    """Processes that trained a cell together."""

    precision: str
    """``float32``, ``bf16``; empty where the cell does not say, and for what has no such choice."""

    @property
    def same_speed(self) -> tuple[str, str, float, int]:
        """What times must have in common to be compared; precision is a choice of the arm."""
        return self.kind, self.hardware, self.units, self.workers

    @property
    def words(self) -> str:
        """``CPU, 2 threads``, ``GPU``, ``0.25 GPU``, ``2 GPU, 2 workers``."""
        if not self.kind:
            return "not recorded"
        if self.kind == "CPU":
            said = f"CPU, {self.units:g} thread{'' if self.units == 1 else 's'}" if self.units else "CPU"
        else:
            said = self.kind if self.units in {0, 1} else f"{self.units:g} {self.kind}"
        return said if self.workers == 1 else f"{said}, {self.workers} workers"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One figure over cells."""

    value: float = float("nan")
    """NaN where no cell reports one."""

    cells: int = 0
    """Cells that report it."""

    reason: str | None = None
    """Why some or all cells do not; None where all do."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What the done cells of one arm cost on one place."""

    place: Place
    cells: int
    macs_per_epoch: Measured
    """Multiply-accumulates of one 30-s epoch, in evaluation."""

    training_seconds: Measured
    """Sum over cells."""

    device_seconds: Measured
    """Sum over cells of training seconds times the GPUs (or CPU threads) held."""

    peak_memory_bytes: Measured
    """Largest of the cells: of the process on a CPU, of what torch held on a GPU."""

    inference_epochs_per_second: Measured
    """Median of the cells."""

    energy_joules: Measured
    """Sum over cells of what the whole device used while they ran."""


FIGURES: Final = (
    "macs_per_epoch", "training_seconds", "device_seconds", "peak_memory_bytes", "inference_epochs_per_second",
    "energy_joules",
)  # fmt: skip
"""Of :class:`Cost`, and of a cell's result."""

_OVER_CELLS: Final[Mapping[str, Callable[[list[float]], float]]] = {
    "macs_per_epoch": max,
    "training_seconds": math.fsum,
    "device_seconds": math.fsum,
    "peak_memory_bytes": max,
    "inference_epochs_per_second": lambda values: float(np.median(values)),
    "energy_joules": math.fsum,
}
_UNSAID: Final = {
    "macs_per_epoch": "not counted for what is not a network",
    "peak_memory_bytes": "the system does not tell",
    "inference_epochs_per_second": "no night was predicted",
    "energy_joules": "no counter that may be read, or a cell that was continued after a stop",
}
"""Why a cell that measures a figure may have none, where it does not say itself."""


def place_of(result: Mapping[str, Any]) -> Place:
    """What a cell with this result ran on."""
    said = tuple(result.get(name) for name in ("device", "hardware", "precision", "threads", "workers"))
    if said[0] == "cpu":
        return _place(*said, None)
    held, trained = _number(result, "device_seconds"), _number(result, "training_seconds")
    return _place(*said, round(held / trained, 3) if held and trained else None)


@functools.lru_cache(maxsize=1024)  # many cells, few places
def _place(device: Any, hardware: Any, precision: Any, threads: Any, workers: Any, held: float | None) -> Place:
    name = str(device or "").partition(":")[0]
    kind = {"cpu": "CPU", "cuda": "GPU"}.get(name, name.upper())
    units = float(threads or 0) * int(workers or 1) if kind == "CPU" else held or 0.0
    return Place(
        kind=kind, hardware=str(hardware or ""), units=units, workers=int(workers or 1), precision=str(precision or "")
    )


def _number(result: Mapping[str, Any], name: str) -> float | None:
    value = result.get(name)
    if type(value) is float or type(value) is int:  # no bool, and fast
        return float(value) if math.isfinite(value) else None
    return None


def costs_of(results: Results) -> tuple[Cost, ...]:
    """Costs of an arm from the results of its done cells, one for each place they ran on; the place of most cells
    first."""
    at: dict[Place, list[Mapping[str, Any]]] = {}
    for result in results:
        at.setdefault(place_of(result), []).append(result)
    return tuple(
        Cost(place=place, cells=len(of_place), **{name: _measured(of_place, name) for name in FIGURES})
        for place, of_place in sorted(at.items(), key=lambda item: (-len(item[1]), item[0]))
    )


def _measured(results: Results, name: str) -> Measured:
    each = [_number(result, name) for result in results]
    values = [value for value in each if value is not None]
    if len(values) == len(results):
        return Measured(value=_OVER_CELLS[name](values), cells=len(values))
    reasons = sorted({_reason(result, name) for result, value in zip(results, each, strict=True) if value is None})
    return Measured(
        value=_OVER_CELLS[name](values) if values else float("nan"), cells=len(values), reason="; ".join(reasons)
    )


def _reason(result: Mapping[str, Any], name: str) -> str:
    if name not in result:
        return NOT_RECORDED
    said = result.get("energy_missing") if name == "energy_joules" else None
    return str(said or _UNSAID.get(name, NOT_RECORDED))


def in_all(costs: Sequence[Cost], name: str) -> float:
    """One figure of an arm; NaN where its cells ran on different places (the figures of each are in ``costs``), and
    where none reports it. Multiply-accumulates do not depend on the place."""
    if name == "macs_per_epoch":
        return next((cost.macs_per_epoch.value for cost in costs if cost.macs_per_epoch.cells), float("nan"))
    return getattr(costs[0], name).value if len(costs) == 1 else float("nan")


@dataclass(frozen=True, kw_only=True)
class ArmCost:
    """What a cell of an arm costs, for the contrasts that the arm is in."""

    n_parameters: int | None
    macs_per_epoch: float
    training_seconds: float
    """Mean of its cells."""
    inference_epochs_per_second: float
    """Median of its cells."""
    speeds: frozenset[tuple[str, str, float, int]]
    """What its cells ran on, as far as it decides the speed."""


def arm_cost(results: Results) -> ArmCost:
    """From the results of an arm's done cells; NaN where one of them does not say."""

    def over(name: str, summary: Callable[[list[float]], float]) -> float:
        values = [_number(result, name) for result in results]
        known = [value for value in values if value is not None]
        return summary(known) if len(known) == len(values) else float("nan")

    return ArmCost(
        n_parameters=first_of(results, "n_parameters"),
        macs_per_epoch=over("macs_per_epoch", max),
        training_seconds=over("training_seconds", lambda values: float(np.mean(values))),
        inference_epochs_per_second=over("inference_epochs_per_second", lambda values: float(np.median(values))),
        speeds=frozenset(place_of(result).same_speed for result in results),
    )


def contrast_cost(weights: Mapping[str, float], of: Mapping[str, ArmCost]) -> dict[str, Any]:
    """What an effect costs: the combination of the arms that the effect is of.

    Args:
        weights: of the arms in the contrast.
        of: what each of these arms costs.

    Returns:
        ``parameters`` and ``macs_per_epoch``; ``training_seconds`` (of the arms' means of a cell) and
        ``inference_epochs_per_second`` (of the arms' medians), both NaN unless all cells ran on the same hardware.
        None or NaN where an arm does not say.
    """
    parameters = [(weight, of[arm].n_parameters) for arm, weight in weights.items()]
    known = all(value is not None for _, value in parameters)
    alike = len({speed for arm in weights for speed in of[arm].speeds}) == 1

    def combined(name: str) -> float:
        return float(sum(weight * getattr(of[arm], name) for arm, weight in weights.items()))

    return {
        "parameters": round(sum(weight * (value or 0) for weight, value in parameters)) if known else None,
        "macs_per_epoch": combined("macs_per_epoch"),
        "training_seconds": combined("training_seconds") if alike else float("nan"),
        "inference_epochs_per_second": combined("inference_epochs_per_second") if alike else float("nan"),
    }


def first_of(results: Results, name: str) -> int | None:
    """The first value that a cell reports."""
    return next((int(result[name]) for result in results if result.get(name) is not None), None)


def hardware_names(costs: Iterable[Cost]) -> dict[str, list[str]]:
    """Names of the processors and cards of a board by kind, sorted."""
    found: dict[str, set[str]] = {}
    for cost in costs:
        if cost.place.hardware:
            found.setdefault(cost.place.kind, set()).add(cost.place.hardware)
    return {kind: sorted(names) for kind, names in sorted(found.items())}


def cost_lines(costs_by_arm: Mapping[str, Sequence[Cost]]) -> list[str]:
    """How the figures of a cost table came about, and why some are missing."""
    costs = [cost for of_arm in costs_by_arm.values() for cost in of_arm]
    if not costs:
        return []
    partly = any(0 < getattr(cost, name).cells < cost.cells for cost in costs for name in FIGURES)
    lines = [
        "cost: training, device time and energy are sums over cells, peak memory the largest, epochs/s the median"
        + ("; a fraction beneath is how many cells report the figure" if partly else ""),
        "device time is training time x GPUs held (on a CPU x threads); peak memory is what torch held on a GPU (on a "
        "CPU the whole process); MACs are multiply-accumulates of one 30-s epoch in evaluation, in the published form",
    ]
    for kind, names in hardware_names(costs).items():
        several = len(names) > 1
        lines.append("; ".join(f"{kind}{f' {n}' if several else ''}: {name}" for n, name in enumerate(names, start=1)))
    split = [arm for arm, of_arm in costs_by_arm.items() if len(of_arm) > 1]
    if split:
        lines.append(f"cells ran in different places, a row for each, never added up: {', '.join(split)}")
    if any(cost.energy_joules.cells for cost in costs):
        lines.append("energy is of the whole device while a cell ran; cells that shared it count it more than once")
    reasons: dict[tuple[str, str], list[str]] = {}
    for arm, of_arm in costs_by_arm.items():
        for cost in of_arm:
            for name in FIGURES:
                reason = getattr(cost, name).reason
                if reason and arm not in reasons.setdefault((name, reason), []):
                    reasons[name, reason].append(arm)
    merged: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (name, reason), arms in reasons.items():
        merged.setdefault((reason, tuple(arms)), []).append(WORDS[name])
    arms_there = len(costs_by_arm)
    for (reason, of_arms), names in merged.items():
        whom = "" if len(of_arms) == arms_there else f" ({', '.join(of_arms)})"
        lines.append(f"not reported by all cells: {', '.join(names)}{whom}: {reason}")
    return lines


WORDS: Final = {
    "macs_per_epoch": "MACs per epoch",
    "training_seconds": "training time",
    "device_seconds": "device time",
    "peak_memory_bytes": "peak memory",
    "inference_epochs_per_second": "inference epochs/s",
    "energy_joules": "energy",
}
"""How a reader calls the figures."""
