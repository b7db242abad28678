"""A Ray of one's own, or somebody's cluster, and how many slots it can hold."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from tusp.platform.environment import usable_cores
from tusp.platform.errors import UserError

COORDINATION_CPUS = 1
"""CPUs beyond those of the slots that a local Ray is told of, so that the arms' trials always find room."""

COORDINATION_SHARE = 0.1
"""The same on every machine of somebody's cluster, where the arms' trials may land on any of them."""

SLOTS_PER_GROUP = 8


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A connected Ray."""

    address: str
    dashboard_url: str | None
    cpus: float
    gpus: float
    local: bool
    nodes: Sequence[tuple[float, float]] = ()
    """(CPUs, GPUs) of every machine; when empty there is one, with all of them."""


def _quiet_environment() -> None:
    # Ray reads these when its processes start. Workers at a lower priority than the driver would starve on two cores.
    for name, value in {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # A thread that outlives Ray must not start a second one.
        "RAY_ENABLE_AUTO_CONNECT": "0",
    }.items():
        os.environ.setdefault(name, value)


def connect(address: str) -> Cluster:
    """Start a local Ray (``local``) or join the cluster at ``address``.

    Raises:
        UserError: nothing answers at the address.
    """
    _quiet_environment()
    import ray

    local = address == "local"
    try:
        if local:
            context = ray.init(
                address="local",
                num_cpus=usable_cores() + COORDINATION_CPUS,
                include_dashboard=True,
                dashboard_host="127.0.0.1",
                log_to_driver=False,
                logging_level="ERROR",
            )
        else:
            context = ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # Ray raises bare ones, too, when its processes do not start in time
        first = (str(error).splitlines() or [""])[0]
        if local:
            raise UserError(
                f"Ray did not start here ({first}); submit again when the machine has less to do, or see what is in "
                "/tmp/ray/session_latest/logs"
            ) from error
        raise UserError(
            f"no Ray at {address} ({first}); start one with `ray start --head`, or leave --address out for a local one"
        ) from error
    resources = ray.cluster_resources()
    return Cluster(
        address=address,
        dashboard_url=f"http://{context.dashboard_url}" if context.dashboard_url else None,
        cpus=resources.get("CPU", 0.0),
        gpus=resources.get("GPU", 0.0),
        local=local,
        nodes=[
            (node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
            for node in ray.nodes()
            if node["Alive"]
        ],
    )


def _room(node: tuple[float, float], *, cpus: float, gpus: float, local: bool) -> int:
    """How many workers of ``cpus`` and ``gpus`` each one machine holds."""
    has_cpus, has_gpus = node
    room = int((has_cpus - (COORDINATION_CPUS if local else COORDINATION_SHARE)) // cpus)
    if 0 < gpus <= 1:
        room = min(room, int(has_gpus) * int(1 / gpus + 1e-9))  # 1 // 0.1 is 9
    elif gpus > 1:
        room = min(room, int(has_gpus // gpus))
    return max(0, room)


def slot_count(cluster: Cluster, *, cpus: float, gpus: float, cells: int, workers: int = 1) -> int:
    """How many slots of ``workers`` workers with ``cpus`` and ``gpus`` each the cluster holds, at most one a cell.

    A worker lies on one machine, the workers of a slot may lie on several.

    Raises:
        UserError: not even one.
    """
    nodes = cluster.nodes or [(cluster.cpus, cluster.gpus)]
    room = sum(_room(node, cpus=cpus, gpus=gpus, local=cluster.local) for node in nodes) // workers
    if room < 1:
        one = f"a cell asks for {cpus:g} CPUs and {gpus:g} GPUs"
        asked = one if workers == 1 else f"{one} for each of its {workers} workers"
        options = ("--cpus-per-cell", "--gpus-per-cell", *(["--workers-per-cell"] if workers > 1 else []))
        raise UserError(
            f"{asked}, but {cluster.address} has {cluster.cpus:g} CPUs and {cluster.gpus:g} GPUs"
            + (f" on {len(nodes)} machines" if len(nodes) > 1 else "")
            + f"; ask for less with {', '.join(options[:-1])} and {options[-1]}"
        )
    return min(room, cells)


def groups(slots: int) -> list[tuple[int, int]]:
    """(first slot, number of slots) of every group."""
    return [(first, min(SLOTS_PER_GROUP, slots - first)) for first in range(0, slots, SLOTS_PER_GROUP)]
