"""A classical baseline is a cell like any other: predictions, counts, weights and a curve of one pass."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from training_nights import SHORT, night

from tusp.jobs.cell import run_cell
from tusp.jobs.job import CellJob
from tusp.jobs.plan import CorpusNights, Request, make_plan
from tusp.models.families import families

ESTIMATORS = [name for name, family in families().items() if family.kind == "estimator"]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_is_a_cell_like_any_other(name: str, tmp_path: Path) -> None:
    nights = [night(tmp_path / "prepared", f"n{number}", n_epochs=20, seed=number) for number in range(4)]
    corpus = CorpusNights(name="toy", simulated=True, recordings=nights)
    request = Request(ablation="networks", networks=(name,), recipe=replace(SHORT), folds=2)
    task = next(task for task in make_plan(request, [corpus]).tasks if task.cell.arm == name)
    job = CellJob(
        id=task.cell.id,
        plan=json.loads(json.dumps(task.cell.plan)),
        home=str(tmp_path),
        nights={corpus: {n: str(path) for n, path in found.items()} for corpus, found in task.nights.items()},
    )
    outcome = run_cell(job)
    assert len(outcome["curve"]) == outcome["result"]["passes"] == 1
    assert outcome["result"]["n_parameters"] > 0
    assert {row["recording"] for row in outcome["counts"]} == set(task.cell.plan["corpora"][0]["test"])
    assert (job.folder / "weights.safetensors").is_file()
    for path in (job.folder / "predictions" / "toy").iterdir():
        kept = load_file(path)
        np.testing.assert_allclose(kept["probabilities"].sum(axis=1), 1, atol=1e-5)
    again = run_cell(replace(job, home=str(tmp_path / "again")))
    assert again["counts"] == outcome["counts"]
