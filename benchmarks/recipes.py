"""Recipes against each other: validation macro-F1 by pass, on the seven simulated corpora.

    python benchmarks/recipes.py FOLDER --recipe paper --passes 200 --network small
    python benchmarks/recipes.py FOLDER --recipe standard --passes 20 --network small
    python benchmarks/recipes.py FOLDER --table

One network is trained on the five training corpora together (experiment `joint`, fold 1) and validated on people of
each; their test people are judged at the end, with --hold-outs also dod-h and dod-o (many channel pairs: minutes).
Nights are simulated and prepared once in FOLDER; every run leaves FOLDER/runs/NAME.json, and --table prints them side
by side with the first pass at which each recipe reached the best validation score of the recipe `paper`. `--set
key=value` tries other settings. A run that is cut goes on from its checkpoint when it is started again.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from tusp.datasets.catalog import BUILT_IN, add_corpus, list_corpora
from tusp.datasets.simulation import simulate
from tusp.jobs.cell import run_cell
from tusp.jobs.job import CellJob
from tusp.jobs.plan import CorpusNights, Request, make_plan
from tusp.jobs.recipes import QUICK, Recipe, recipe_called
from tusp.jobs.submit import prepare_nights
from tusp.platform.environment import cpu_model
from tusp.platform.scoring.metrics import macro_f1
from tusp.platform.settings import load_settings
from tusp.platform.store.session import open_store

NETWORKS = {"published": {}, "small": dict(QUICK.network)}
"""`small` is the network of recipe `quick` (32 Hz): a tenth of the arithmetic, so hundreds of passes can be seen."""


def corpora(folder: Path, people: int) -> list[CorpusNights]:
    """The seven simulated corpora, one night of each person, registered and prepared in ``folder``."""
    settings = load_settings(home=folder / "home", environment={}, working_directory=folder)
    store = open_store(settings.db)
    known = {corpus.name for corpus in list_corpora(store)}
    for name in BUILT_IN:
        if name not in known:
            simulate(name, folder / "raw" / name, subjects=people, nights=1, seed=11)
            add_corpus(store, name=name, root=folder / "raw" / name)
    return list(prepare_nights(store, settings, list(BUILT_IN), embedded=False, tell=lambda *_: None).corpora)


def run(folder: Path, recipe: Recipe, *, people: int, threads: int, name: str, hold_outs: bool) -> None:
    """Train and judge one cell; its curve and scores go to ``runs/NAME.json``."""
    nights = [corpus for corpus in corpora(folder, people) if hold_outs or not corpus.hold_out]
    plan = make_plan(Request(ablation="csja", recipe=recipe, folds=4, experiment="joint"), nights)
    task = next(task for task in plan.tasks if task.cell.arm == "full" and task.cell.fold == 0)
    job = CellJob(
        id=task.cell.id,
        plan=task.cell.plan,
        home=str(folder / "home"),
        nights={corpus: {night: str(at) for night, at in found.items()} for corpus, found in task.nights.items()},
        threads=threads,
    )
    began = time.monotonic()

    def report(progress, steps) -> None:
        if progress.history and not progress.step:
            last = progress.history[-1]
            print(
                f"{name}: pass {last.pass_number}, loss {last.train_loss:.4f}, validation macro-F1 "
                f"{last.validation_macro_f1:.4f}, {time.monotonic() - began:.0f} s",
                flush=True,
            )

    outcome = run_cell(job, report=report)
    test: dict[str, np.ndarray] = {}
    for row in outcome["counts"]:
        if row["rule"] == "trim30":
            test[row["corpus"]] = test.get(row["corpus"], 0) + np.array(row["matrix"])
    content = {
        "name": name,
        "recipe": task.cell.plan["recipe"],
        "network": task.cell.plan["model"],
        "cpu": cpu_model(),
        "threads": threads,
        "curve": [row["validation_macro_f1"] for row in outcome["curve"]],
        "loss": [row["train_loss"] for row in outcome["curve"]],
        "training_seconds": outcome["result"]["training_seconds"],
        "test_macro_f1": {corpus: float(macro_f1(matrix)) for corpus, matrix in sorted(test.items())},
    }
    runs = folder / "runs"
    runs.mkdir(exist_ok=True)
    (runs / f"{name}.json").write_text(json.dumps(content, indent=1))


def table(folder: Path) -> None:
    """Print all runs beside one another."""
    runs = [json.loads(path.read_text()) for path in sorted((folder / "runs").glob("*.json"))]
    goals = {
        json.dumps(run["network"], sort_keys=True): max(run["curve"]) for run in runs if run["name"].startswith("paper")
    }
    print("run | passes | best validation macro-F1 (pass) | reached paper's best in pass | test macro-F1 | seconds")
    for run in runs:
        best = max(run["curve"])
        goal = goals.get(json.dumps(run["network"], sort_keys=True))
        reached = next((number for number, score in enumerate(run["curve"], 1) if goal and score >= goal), None)
        tests = " ".join(f"{corpus} {score:.3f}" for corpus, score in run["test_macro_f1"].items())
        print(
            f"{run['name']} | {len(run['curve'])} | {best:.4f} ({run['curve'].index(best) + 1}) | {reached or '-'} | "
            f"{tests} | {run['training_seconds']:.0f}"
        )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--recipe", default="paper")
    arguments.add_argument("--passes", type=int)
    arguments.add_argument("--network", choices=NETWORKS, default="published")
    arguments.add_argument("--set", action="append", default=[], metavar="KEY=JSON")
    arguments.add_argument("--people", type=int, default=8)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--name")
    arguments.add_argument("--hold-outs", action="store_true")
    arguments.add_argument("--table", action="store_true")
    given = arguments.parse_args()
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if given.table:
        table(folder)
        return
    recipe = recipe_called(given.recipe)
    network = {**recipe.network, **NETWORKS[given.network]}
    changes = {}
    for text in given.set:
        key, value = text.split("=", 1)
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = value
        if key.startswith("network."):
            network[key.removeprefix("network.")] = parsed
        else:
            changes[key] = tuple(parsed) if isinstance(parsed, list) else parsed
    if given.passes:
        changes["max_passes"] = given.passes
    recipe = replace(recipe, network=network, **changes)
    name = given.name or f"{given.recipe}-{given.network}"
    run(folder, recipe, people=given.people, threads=given.threads, name=name, hold_outs=given.hold_outs)


if __name__ == "__main__":
    main()
