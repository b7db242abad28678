"""The estimate of a dry run, and what it says that it does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training_nights import SHORT, night, small_network

from tusp.jobs.driver import Resources
from tusp.jobs.plan import CellTask
from tusp.jobs.recipes import recipe_settings
from tusp.jobs.timing import not_measured, time_cell
from tusp.models.families import model_settings
from tusp.platform.store.record import PlannedCell


def task(tmp_path: Path, model: dict[str, Any], **recipe: Any) -> CellTask:
    nights = {name: night(tmp_path, name) for name in ("a", "b", "c")}
    roles = {role: {name: ""} for role, name in zip(("train", "validation", "test"), nights, strict=True)}
    cell = PlannedCell(
        id="0", experiment="within", corpus="toy", protocol="kfold", arm="full", fold=0, folds=2, seed=0,
        recipe="short", split_hash="0", simulated=True,
        plan={
            "corpora": [{"name": "toy", **roles}],
            "model": model,
            "channels": ["EEG", "EOG"],
            "recipe": {**recipe_settings(SHORT), **recipe},
        },
    )  # fmt: skip
    return CellTask(cell=cell, nights={"toy": {name: found.folder for name, found in nights.items()}})


def test_a_network_takes_time_and_more_passes_take_more(tmp_path: Path) -> None:
    model = model_settings("tinyustaging", small_network())
    few, many = (time_cell(task(tmp_path, model, max_passes=passes)) for passes in (1, 1000))
    assert 0 < few < many


def test_an_estimator_counts_as_nothing(tmp_path: Path) -> None:
    assert time_cell(task(tmp_path, {"family": "majority", "n_channels": 2})) == 0


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        (Resources(gpus_per_cell=0), []),
        (Resources(gpus_per_cell=0, address="host:1"), ["cells on host:1 were not measured here"]),
        (Resources(address="host:1"), ["cells on a GPU were not measured here and take less"]),
        (Resources(gpus_per_cell=0, workers_per_cell=2), ["2 workers for each cell count as one"]),
    ],
)
def test_what_was_not_measured_is_said(resources: Resources, said: list[str]) -> None:
    assert not_measured(resources) == said


def test_a_gpu_of_this_machine_is_not_measured_either() -> None:
    expected = ["cells on a GPU were not measured here and take less"] if torch.cuda.is_available() else []
    assert not_measured(Resources()) == expected
