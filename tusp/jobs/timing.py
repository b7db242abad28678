"""How long a cell may take on this machine, from one timed step."""

from __future__ import annotations

import time

import torch

from tusp.datasets.prepared import SAMPLES_PER_EPOCH, open_prepared
from tusp.jobs.driver import Resources
from tusp.jobs.plan import CellTask
from tusp.jobs.precision import autocast, resolve_precision
from tusp.jobs.prediction import window_starts
from tusp.jobs.recipes import recipe_from_settings
from tusp.jobs.sampling import channel_choices
from tusp.models.families import from_plan
from tusp.platform.stages import UNSCORED


def time_cell(task: CellTask) -> float:
    """Seconds of training (every pass used), validation and prediction of one cell, with one thread on the CPU.

    An estimator counts as 0: it takes seconds, which is nothing beside the networks it stands with.
    """
    plan = task.cell.plan
    recipe, channels = recipe_from_settings(plan["recipe"]), plan["channels"]
    family, settings = from_plan(plan["model"])
    if family.kind == "estimator":
        return 0.0
    nights = {
        role: [open_prepared(task.nights[entry["name"]][name]) for entry in plan["corpora"] for name in entry[role]]
        for role in ("train", "validation", "test")
    }
    torch.set_num_threads(1)
    network = family.build(settings, seed=0)
    precision = resolve_precision(recipe.precision, "cpu", network)
    window = torch.randn(1, len(channels), recipe.window_epochs * SAMPLES_PER_EPOCH)

    def seconds(train: bool) -> float:
        network.train(train)
        taken = []
        for _ in range(3):
            began = time.perf_counter()
            with torch.set_grad_enabled(train):
                with autocast(precision, "cpu"):
                    output = network(window)
                if train:
                    output.float().square().mean().backward()
            taken.append(time.perf_counter() - began)
        return min(taken)

    per_train, per_window = seconds(train=True), seconds(train=False)
    scored = sum(int((night.stages() != UNSCORED).sum()) for night in nights["train"])
    windows_per_pass = min(max(scored, recipe.epochs_per_pass_at_least), recipe.epochs_per_pass) / recipe.window_epochs

    def windows(role: str, stride: int, pairs: int | None) -> int:
        return sum(
            len(window_starts(night.n_epochs, recipe.window_epochs, stride))
            * len(channel_choices(night, channels)[:pairs])
            for night in nights[role]
        )

    validation = windows("validation", recipe.validation_stride, recipe.validation_pairs)
    test = windows("test", recipe.prediction_stride, None)
    per_pass = windows_per_pass * per_train + validation * per_window
    return recipe.max_passes * per_pass + test * per_window


def not_measured(resources: Resources) -> list[str]:
    """What an estimate from this machine's CPU does not know of where the cells will run."""
    said = []
    if resources.gpus_per_cell != 0 and (resources.address != "local" or torch.cuda.is_available()):
        said.append("cells on a GPU were not measured here and take less")
    elif resources.address != "local":
        said.append(f"cells on {resources.address} were not measured here")
    if resources.workers_per_cell > 1:
        said.append(f"{resources.workers_per_cell} workers for each cell count as one")
    return said
