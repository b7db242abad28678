"""float32 against bf16: validation and test macro-F1 of the same training in both, seed by seed.

    python benchmarks/precision.py FOLDER --seeds 4
    python benchmarks/precision.py FOLDER --table
    python benchmarks/precision.py FOLDER --table --json

The network and recipe of `quick` are trained on simulated corpora (each alone, fold 1 of 4) with the same people, the
same starting weights and the same windows in the same order, once in float32 and once under bf16 autocast; validation
and prediction use the precision of the training. Nights are simulated and prepared once in FOLDER. A run that is cut
goes on when it is started again; --table shows what is there so far.

Printed per corpus: macro-F1 of every seed, mean and standard deviation over seeds for each precision, the mean of
bf16 - float32 over seeds with its 95 % interval (paired t, so it takes the seeds as a sample of all seeds), and whether
the two agree within the spread over seeds: the mean difference is not larger than the standard deviation over seeds
(of both precisions together). A processor without bf16 instructions emulates bf16: the scores are those of bf16, the
seconds are not.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from tusp.datasets.catalog import add_corpus, list_corpora
from tusp.datasets.simulation import simulate
from tusp.jobs.cell import OUTCOME, run_cell
from tusp.jobs.job import CellJob
from tusp.jobs.plan import CellTask, CorpusNights, Request, make_plan
from tusp.jobs.recipes import QUICK
from tusp.jobs.submit import prepare_nights
from tusp.platform.environment import computes_bf16, cpu_flags, cpu_model
from tusp.platform.scoring.metrics import macro_f1
from tusp.platform.settings import load_settings
from tusp.platform.store.session import open_store

PRECISIONS = ("float32", "bf16")
SCORES = ("validation", "test")


def corpora(folder: Path, names: Sequence[str], people: int) -> list[CorpusNights]:
    """The simulated corpora, one night of each person, registered and prepared in ``folder``."""
    settings = load_settings(home=folder / "home", environment={}, working_directory=folder)
    store = open_store(settings.db)
    known = {corpus.name for corpus in list_corpora(store)}
    for name in names:
        if name not in known:
            simulate(name, folder / "raw" / name, subjects=people, nights=1, seed=11)
            add_corpus(store, name=name, root=folder / "raw" / name)
    return list(prepare_nights(store, settings, list(names), embedded=False, tell=lambda *_: None).corpora)


def tasks_of(nights: Sequence[CorpusNights], precision: str, given: argparse.Namespace) -> dict[Any, CellTask]:
    """The cell of every corpus and seed: the full network, fold 1."""
    recipe = replace(
        QUICK,
        precision=precision,
        max_passes=given.passes,
        stop_patience=given.passes,
        epochs_per_pass=given.epochs,
        epochs_per_pass_at_least=given.epochs,
    )
    plan = make_plan(Request(ablation="csja", recipe=recipe, folds=4, seeds=range(given.seeds)), nights)
    return {
        (task.cell.corpus, task.cell.seed): task
        for task in plan.tasks
        if task.cell.arm == "full" and task.cell.fold == 0
    }


def run(folder: Path, task: CellTask, threads: int, *, only_done: bool) -> dict[str, Any] | None:
    """Train and judge one cell, or read what an earlier run left; None where that is nothing and nothing may run."""
    job = CellJob(
        id=task.cell.id,
        plan=task.cell.plan,
        home=str(folder / "home"),
        nights={corpus: {night: str(at) for night, at in found.items()} for corpus, found in task.nights.items()},
        threads=threads,
    )
    if only_done and not (job.folder / OUTCOME).exists():
        return None
    began = time.process_time()
    outcome = run_cell(job, checkpoint_seconds=60)
    matrices = [np.array(row["matrix"]) for row in outcome["counts"] if row["rule"] == "trim30"]
    return {
        "validation": outcome["result"]["validation_macro_f1"],
        "test": float(macro_f1(np.sum(matrices, axis=0))),
        "best pass": outcome["result"]["best_pass"],
        "training seconds": outcome["result"]["training_seconds"],
        "precision": outcome["result"]["precision"],
        "CPU seconds now": time.process_time() - began,
    }


def compare(float32: Sequence[float], bf16: Sequence[float]) -> dict[str, Any]:
    """Scores seed by seed, and whether they agree within the spread over seeds.

    The spread is the standard deviation over seeds, pooled over both precisions: the root of the mean variance.
    """
    one, other = np.array(float32), np.array(bf16)
    differences = other - one
    found: dict[str, Any] = {
        "float32": one.tolist(),
        "bf16": other.tolist(),
        "float32 mean": float(one.mean()),
        "bf16 mean": float(other.mean()),
        "mean difference": float(differences.mean()),
    }
    if len(one) > 1:
        spread = float(np.sqrt((one.var(ddof=1) + other.var(ddof=1)) / 2))
        margin = float(stats.t.ppf(0.975, len(one) - 1) * differences.std(ddof=1) / np.sqrt(len(one)))
        found |= {
            "float32 SD over seeds": float(one.std(ddof=1)),
            "bf16 SD over seeds": float(other.std(ddof=1)),
            "SD over seeds": spread,
            "95 % interval": [found["mean difference"] - margin, found["mean difference"] + margin],
            "agree": bool(abs(found["mean difference"]) <= spread),
        }
    return found


def summary(rows: dict[Any, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Comparisons by corpus and score, of the seeds that both precisions have."""
    both = {key: row for key, row in rows.items() if len(row) == len(PRECISIONS)}
    found: dict[str, Any] = {}
    for corpus in sorted({corpus for corpus, _ in both}):
        seeds = sorted(seed for name, seed in both if name == corpus)
        found[corpus] = {"seeds": seeds}
        for score in SCORES:
            values = [[both[corpus, seed][precision][score] for seed in seeds] for precision in PRECISIONS]
            found[corpus][score] = compare(*values)
        for precision in PRECISIONS:
            seconds = [both[corpus, seed][precision]["training seconds"] for seed in seeds]
            found[corpus][f"{precision} training seconds, median"] = float(np.median(seconds))
    return found


def show(found: dict[str, Any]) -> None:
    """Print every comparison."""
    for corpus, entry in found.items():
        seconds = ", ".join(f"{name} {entry[f'{name} training seconds, median']:.0f}" for name in PRECISIONS)
        print(f"{corpus} (SIMULATED), seeds {entry['seeds']}, seconds of training (median): {seconds}")
        for score in SCORES:
            row = entry[score]
            for precision in PRECISIONS:
                values = " ".join(f"{value:.4f}" for value in row[precision])
                spread = f", SD {row[f'{precision} SD over seeds']:.4f}" if "agree" in row else ""
                print(f"  {score} macro-F1, {precision}: {values}; mean {row[f'{precision} mean']:.4f}{spread}")
            if "agree" in row:
                low, high = row["95 % interval"]
                print(
                    f"  {score}: bf16 - float32 = {row['mean difference']:+.4f} ({low:+.4f} to {high:+.4f}), SD over "
                    f"seeds {row['SD over seeds']:.4f}: {'agree' if row['agree'] else 'DO NOT AGREE'} within the spread"
                )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--corpora", nargs="+", default=["sedf-st", "shhs"])
    arguments.add_argument("--people", type=int, default=8)
    arguments.add_argument("--seeds", type=int, default=4)
    arguments.add_argument("--passes", type=int, default=QUICK.max_passes)
    arguments.add_argument("--epochs", type=int, default=QUICK.epochs_per_pass, help="of 30 s in a pass")
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--table", action="store_true", help="run nothing: show what earlier runs left")
    arguments.add_argument("--json", action="store_true")
    given = arguments.parse_args()
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    nights = corpora(folder, given.corpora, given.people)
    tasks = {precision: tasks_of(nights, precision, given) for precision in PRECISIONS}
    rows: dict[Any, dict[str, dict[str, Any]]] = {}
    # Seed by seed, both precisions one after the other: a run that is cut leaves pairs.
    for key in sorted(tasks["float32"], key=lambda key: (key[1], key[0])):
        for precision in PRECISIONS:
            found = run(folder, tasks[precision][key], given.threads, only_done=given.table)
            if found is None:
                continue
            rows.setdefault(key, {})[precision] = found
            print(
                f"{key[0]}, seed {key[1]}, {precision}: validation {found['validation']:.4f} (pass "
                f"{found['best pass']}), test {found['test']:.4f}, {found['training seconds']:.0f} s of training, "
                f"{found['CPU seconds now']:.0f} CPU s for all now",
                file=sys.stderr,
                flush=True,
            )
    found = summary(rows)
    if given.json:
        machine = {"cpu": cpu_model(), "computes bf16": computes_bf16(cpu_flags()), "load": os.getloadavg()}
        print(json.dumps({"machine": machine, "threads": given.threads, "corpora": found}, indent=1))
    else:
        show(found)


if __name__ == "__main__":
    main()
