"""How many cells share a GPU: the decision with made-up measurements, and the measurement's pieces on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from training_nights import SHORT, night, small_network

from tusp.jobs.cluster import Cluster
from tusp.jobs.plan import CellTask
from tusp.jobs.probe import measure, together, train_for
from tusp.jobs.recipes import recipe_settings
from tusp.jobs.sharing import (
    Measured,
    Sharing,
    decide,
    process_bytes,
    remember,
    remembered,
    resident_bytes,
    shapes_of,
)
from tusp.models.families import model_settings
from tusp.platform.errors import CellError
from tusp.platform.store.record import PlannedCell

GIB = 2**30
SHAPE: dict[str, Any] = {
    "model": model_settings("tinyustaging", small_network()),
    "channels": ["EEG", "EOG"],
    "recipe": recipe_settings(SHORT),
}


def measured(rates: dict[int, float], *, total: float = 80, step: float = 4) -> Measured:
    return Measured(gpu="a GPU", total_bytes=int(total * GIB), step_bytes=int(step * GIB), epochs_per_second=rates)


# --- the decision ---


@pytest.mark.parametrize(
    ("rates", "cells"),
    [
        ({1: 1000, 2: 1900, 4: 3000, 8: 3100}, 4),  # 3 % more are not worth eight
        ({1: 1000, 2: 1900, 4: 3000, 8: 3400}, 8),
        ({1: 1000, 2: 1010, 4: 1020, 8: 1030}, 1),  # one cell keeps the GPU busy
        ({1: 1000, 2: 900, 4: 1200}, 4),
        ({1: 1000}, 1),
        ({1: 1000, 2: 1500, 4: 1400}, 2),
    ],
)
def test_the_fewest_cells_that_come_close_to_the_best_rate(rates: dict[int, float], cells: int) -> None:
    assert decide(measured(rates), resident_bytes=0, most=100).cells_per_gpu == cells


def test_memory_bounds_the_cells() -> None:
    rates = {1: 1000.0, 2: 1900.0, 4: 3600.0, 8: 7000.0}
    assert decide(measured(rates, step=8), resident_bytes=0, most=100).cells_per_gpu == 8  # 64 of 72 usable GiB
    assert decide(measured(rates, step=10), resident_bytes=0, most=100).cells_per_gpu == 4
    assert decide(measured(rates, step=8), resident_bytes=3 * GIB, most=100).cells_per_gpu == 4
    assert decide(measured(rates, step=60), resident_bytes=0, most=100).cells_per_gpu == 1
    decision = decide(measured(rates, step=10), resident_bytes=0, most=100)
    assert "8 do not fit" in decision.reason
    assert "10.0 of 80 GiB each" in decision.reason


def test_nights_that_are_not_held_on_the_gpu_take_no_room_there() -> None:
    found = measured({1: 1000.0, 2: 2000.0}, step=4)
    assert process_bytes(found, 20 * GIB) == 24 * GIB
    assert process_bytes(found, 40 * GIB) == 4 * GIB  # more than 0.4 of 80 GiB: streamed
    assert decide(found, resident_bytes=40 * GIB, most=8).cells_per_gpu == 2


def test_cpus_and_cells_bound_the_cells() -> None:
    rates = {1: 1000.0, 2: 1900.0, 4: 3600.0, 8: 7000.0}
    assert decide(measured(rates), resident_bytes=0, most=3).cells_per_gpu == 2
    assert decide(measured(rates), resident_bytes=0, most=1).cells_per_gpu == 1
    assert "more than 3 were not wanted" in decide(measured(rates), resident_bytes=0, most=3).reason


@pytest.mark.parametrize("cells", range(1, 33))
def test_shares_never_add_up_to_more_than_a_gpu_as_ray_counts(cells: int) -> None:
    """Ray counts in ten-thousandths."""
    share = Sharing(cells_per_gpu=cells, reason="").gpus_per_cell
    assert round(share * 10_000) * cells <= 10_000
    assert share * (cells + 1) > 1


def test_cells_that_find_no_cpu_are_not_counted() -> None:
    from tusp.jobs.sharing_on_ray import most_per_gpu

    def cluster(*nodes: tuple[float, float]) -> Cluster:
        cpus, gpus = (sum(node[part] for node in nodes) for part in (0, 1))
        return Cluster(address="x", dashboard_url=None, cpus=cpus, gpus=gpus, local=False, nodes=nodes)

    assert most_per_gpu(cluster((16, 1)), cpus_per_cell=1, cells=100) == 16
    assert most_per_gpu(cluster((16, 1)), cpus_per_cell=4, cells=100) == 4
    assert most_per_gpu(cluster((16, 8)), cpus_per_cell=1, cells=100) == 2
    assert most_per_gpu(cluster((64, 8), (8, 8), (99, 0)), cpus_per_cell=1, cells=100) == 1
    assert most_per_gpu(cluster((64, 4)), cpus_per_cell=1, cells=10) == 3
    assert most_per_gpu(cluster((1, 2)), cpus_per_cell=1, cells=10) == 1


# --- what is measured, and kept ---


def task(plan: dict[str, Any], nights: dict[str, dict[str, Path]] | None = None) -> CellTask:
    cell = PlannedCell(
        id="0", plan={"corpora": [], **plan}, experiment="within", corpus="toy", protocol="kfold", arm="full",
        fold=0, folds=2, seed=0, recipe="short", split_hash="0", simulated=True,
    )  # fmt: skip
    return CellTask(cell=cell, nights=nights or {})


def test_each_network_and_recipe_is_measured_once_and_estimators_are_not() -> None:
    other = {**SHAPE, "model": model_settings("tinyustaging", small_network(csja=False))}
    majority = {**SHAPE, "model": {"family": "majority", "n_channels": 2}}
    shapes = shapes_of([task({**SHAPE, "seed": 1}), task({**other, "seed": 1}), task({**SHAPE, "seed": 2})])
    assert len(shapes) == 2
    assert {json.dumps(shape["model"], sort_keys=True) for shape in shapes} == {
        json.dumps(plan["model"], sort_keys=True) for plan in (SHAPE, other)
    }
    assert shapes_of([task(majority)]) == []


def test_room_for_nights_is_that_of_the_cell_with_most_of_them(tmp_path: Path) -> None:
    nights = {name: night(tmp_path, name, n_epochs=10) for name in ("a", "b", "c")}
    folders = {"toy": {name: recording.folder for name, recording in nights.items()}}
    one, two = ({"corpora": [{"name": "toy", "train": dict.fromkeys(names, "")}]} for names in ("a", "bc"))
    size = (nights["a"].folder / "signals.npy").stat().st_size
    assert resident_bytes([task(one, folders)]) == size
    assert resident_bytes([task(one, folders), task(two, folders)]) == 2 * size


def test_a_measurement_is_kept_for_the_gpu_the_networks_and_the_recipe(tmp_path: Path) -> None:
    found = measured({1: 1000.5, 2: 1900.25})
    remember(tmp_path, found, [SHAPE])
    assert remembered(tmp_path, "a GPU", [SHAPE]) == found
    assert remembered(tmp_path, "another GPU", [SHAPE]) is None
    assert remembered(tmp_path, "a GPU", [SHAPE, {**SHAPE, "channels": ["EEG"]}]) is None


# --- the measurement, on the CPU ---


def test_a_training_is_measured_after_it_is_warm() -> None:
    said = []
    trial = train_for(SHAPE, device="cpu", seconds=0.2, ready=lambda: said.append("ready"))
    assert said == ["ready"]
    assert trial.epochs_per_second > 0
    assert 0 < trial.held_bytes < trial.total_bytes
    assert trial.name


@pytest.mark.slow
def test_processes_train_at_the_same_time_and_their_rates_add_up() -> None:
    found = measure([SHAPE], device="cpu", candidates=(1, 2), seconds=0.5)
    assert sorted(found.epochs_per_second) == [1, 2]
    assert min(found.epochs_per_second.values()) > 0
    assert found.step_bytes > 0


@pytest.mark.slow
def test_a_training_that_fails_says_why() -> None:
    wrong = {**SHAPE, "recipe": {**SHAPE["recipe"], "learning_rate": 1e30}}
    with pytest.raises(CellError, match=r"a training process ended: .*loss became"):
        together(wrong, device="cpu", processes=1, seconds=60)


@pytest.mark.gpu
def test_cells_on_a_gpu_are_measured() -> None:
    found = measure([SHAPE], device="cuda", candidates=(1, 2), seconds=1)
    assert sorted(found.epochs_per_second) == [1, 2]
    assert 0 < found.step_bytes < found.total_bytes
    assert decide(found, resident_bytes=0, most=2).cells_per_gpu in (1, 2)
