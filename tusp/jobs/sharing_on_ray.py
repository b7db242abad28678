"""The measurement behind `--gpus-per-cell auto`, on a worker of the cluster that has the GPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from tusp.jobs.cluster import Cluster
from tusp.jobs.plan import CellTask
from tusp.jobs.sharing import CANDIDATES, Measured, Sharing, decide, remember, remembered, resident_bytes, shapes_of


def _gpu_name() -> str:
    import torch

    return torch.cuda.get_device_name(0)


def _measure(shapes: Sequence[Mapping[str, Any]], threads: int, candidates: Sequence[int]) -> Measured:
    from tusp.jobs.probe import measure

    return measure(shapes, device="cuda", threads=threads, candidates=candidates)


def most_per_gpu(cluster: Cluster, *, cpus_per_cell: int, cells: int) -> int:
    """How many cells on one GPU would find CPUs, and cells to be."""
    nodes = cluster.nodes or [(cluster.cpus, cluster.gpus)]
    by_cpus = min(int(cpus // cpus_per_cell / gpus) for cpus, gpus in nodes if gpus >= 1)
    return max(1, min(by_cpus, math.ceil(cells / int(cluster.gpus))))


def share_gpus(
    cluster: Cluster, *, home: Path, tasks: Sequence[CellTask], cpus_per_cell: int, say: Callable[[str], None]
) -> Sharing:
    """How many cells share a GPU of this cluster; measured once for a GPU, the networks and the recipe.

    One each when there is nothing to gain, and when the measurement fails: the reason says so.
    """
    most = most_per_gpu(cluster, cpus_per_cell=cpus_per_cell, cells=len(tasks))
    if most == 1:
        return Sharing(cells_per_gpu=1, reason="1: no more cells than GPUs, or no more CPUs")
    shapes = shapes_of(tasks)
    if not shapes:
        return Sharing(cells_per_gpu=1, reason="1: baselines use no GPU")
    try:
        name = ray.get(ray.remote(num_gpus=1, num_cpus=1)(_gpu_name).remote())
        measured = remembered(home, name, shapes)
        if measured is None:
            say(f"Measuring how many cells share a {name} best (once for these networks and this recipe) ...")
            # With the CPUs that the cells would have, as far as there are any.
            cpus = min(cluster.cpus - 1, max(CANDIDATES) * cpus_per_cell)
            probe = ray.remote(num_gpus=1, num_cpus=max(1, int(cpus)), max_retries=0)(_measure)
            measured = ray.get(probe.remote(shapes, cpus_per_cell, CANDIDATES))
            remember(home, measured, shapes)
    except Exception as error:  # noqa: BLE001 - cells also run without a measurement; why there is none is recorded
        first = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        return Sharing(cells_per_gpu=1, reason=f"1, because the measurement failed ({first})")
    return decide(measured, resident_bytes=resident_bytes(tasks), most=most)
