"""tusp submit: plan, run and record an ablation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tusp.cli.context import current_settings
from tusp.cli.output import console, errors, print_json, print_table
from tusp.platform.errors import CellError, UserError

if TYPE_CHECKING:
    from tusp.jobs.driver import Resources
    from tusp.jobs.recipes import Recipe
    from tusp.jobs.submit import Prepared, Todo
    from tusp.platform.settings import Settings
    from tusp.platform.store.session import Store


def submit(
    ablation: Annotated[
        str,
        typer.Option(
            help="csja, se, attention (all four combinations), channels, loss, augmentation, context, resolution, "
            "networks, or a plug-in's."
        ),
    ] = "csja",
    network: Annotated[
        list[str] | None,
        typer.Option(
            help="With --ablation networks: a network to compare TinyUStaging with; repeat for several. Default: all."
        ),
    ] = None,
    corpus: Annotated[
        list[str] | None,
        typer.Option(help="A registered corpus or subset (sedf-20); repeat for several. Default: all registered ones."),
    ] = None,
    experiment: Annotated[
        str,
        typer.Option(
            help="within (each corpus alone), joint (one network on all of them, judged on each) or transfer (trained "
            "on each, judged on all)."
        ),
    ] = "within",
    hold_out: Annotated[
        list[str] | None,
        typer.Option(
            help="Corpus to judge on, never to train on, in joint and transfer; repeat for several. Default: dod-h "
            "and dod-o; --hold-out none for none."
        ),
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="kfold (everybody is tested once) or paper (folds of 75/10/15 % of the people).")
    ] = "kfold",
    folds: Annotated[int, typer.Option(help="Folds of every corpus.")] = 5,
    seeds: Annotated[str, typer.Option(help="Seeds of training, separated by commas.")] = "0",
    split_seed: Annotated[int, typer.Option(help="Seed of the division of people into folds.")] = 0,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="standard (for results), paper (the published one), quick (a first look) or smoke (does the machine "
            "work?). Default: standard; quick for the embedded simulated corpora."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting of the recipe (learning_rate=0.001, augmentation.noise_probability=0, "
            "network.complexity_factor=1); repeat for several. Its results stand under a name of their own.",
        ),
    ] = None,
    wake_margin_minutes: Annotated[
        int | None, typer.Option(min=0, help="Wake kept around sleep when nights are prepared. Default: all of it.")
    ] = None,
    clip_iqr: Annotated[
        float, typer.Option(help="Signals are clipped at this many inter-quartile ranges from the median.")
    ] = 20.0,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to run on (TUSP_ADDRESS). Default: a Ray of its own.")
    ] = None,
    cpus_per_cell: Annotated[int, typer.Option(min=1, help="CPU threads of each worker of a cell.")] = 1,
    gpus_per_cell: Annotated[
        str,
        typer.Option(
            metavar="auto|N",
            help="GPUs of each worker of a cell, or a fraction of one. auto: as many cells share a GPU as train the "
            "most together, which is measured once; none where there is no GPU.",
        ),
    ] = "auto",
    workers_per_cell: Annotated[
        int, typer.Option(min=1, help="Processes that train one cell together, with the same batch.")
    ] = 1,
    reuse: Annotated[str, typer.Option(help="missing (run what is not done), never or only.")] = "missing",
    rule: Annotated[str, typer.Option(help="Scoring rule of the report at the end: trim30 or full.")] = "trim30",
    mlflow: Annotated[bool, typer.Option(help="Keep the MLflow mirror up to date.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the cells and an estimate; run nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan or the result as JSON.")] = False,
) -> None:
    """Run an ablation on every fold of the corpora, and report.

    With no corpus registered, the embedded simulated corpora are used. Finished cells are never run twice; a cell that
    was cut continues from its checkpoint.

    Example: tusp submit --ablation csja --corpus sedf-sc --folds 5

    Example: tusp submit --experiment joint --corpus sedf-sc --corpus dcsm --corpus dod-h
    """
    from tusp.datasets.recording_preparation import PreparationSettings
    from tusp.datasets.simulation.embedded import EMBEDDED
    from tusp.jobs import submit as jobs
    from tusp.jobs.overrides import with_settings
    from tusp.jobs.plan import EXPERIMENTS, WITHIN, Request, make_plan
    from tusp.jobs.recipes import QUICK, STANDARD, recipe_called
    from tusp.platform.scoring.rules import RULES
    from tusp.platform.store.session import open_store

    if reuse not in ("missing", "never", "only"):
        raise UserError(f"--reuse {reuse}: must be missing, never or only")
    if rule not in RULES:
        raise UserError(f"--rule {rule}: must be one of {', '.join(RULES)}")
    if experiment not in EXPERIMENTS:
        raise UserError(f"--experiment {experiment}: must be one of {', '.join(EXPERIMENTS)}")
    resources = _resources(cpus_per_cell, gpus_per_cell, workers_per_cell)
    texts = set_ or ()
    request = Request(
        ablation=ablation,
        recipe=with_settings(recipe_called(recipe or STANDARD.name), texts),
        protocol=protocol,
        folds=folds,
        seeds=_numbers(seeds),
        split_seed=split_seed,
        experiment=experiment,
        networks=tuple(dict.fromkeys(network or ())),
    )
    preparation = PreparationSettings(wake_margin_minutes=wake_margin_minutes, clip_iqr=clip_iqr)
    say = _quiet if as_json else _say
    settings = current_settings(address=address)
    store = open_store(settings.db)
    with _bars(visible=not as_json) as tell:
        names, embedded = jobs.choose_corpora(store, settings, corpus or (), say=say, tell=tell)
        request = replace(request, hold_out=jobs.choose_hold_out(store, hold_out))
        if recipe is None and set(names) <= set(EMBEDDED):
            request = replace(request, recipe=with_settings(QUICK, texts))
        nights = jobs.prepare_nights(store, settings, names, embedded=embedded, tell=tell, preparation=preparation)
        # After preparing: that is when changed files were looked at.
        if experiment != WITHIN:
            jobs.refuse_shared_nights(store, names)
    plan = make_plan(request, nights.corpora)
    todo = jobs.look_up(store, settings, plan, reuse=reuse)  # type: ignore[arg-type]
    if not as_json:
        _announce(nights, todo, request.recipe)
    if dry_run:
        _show_plan(todo, replace(resources, address=settings.address), as_json=as_json)
        return
    resources = replace(resources, address=settings.address)
    result = _run(store, settings, todo, nights, reuse, resources, mlflow=mlflow, quiet=as_json)
    if result.state == "cancelled":
        raise CellError(
            f"submission {result.id} was cancelled; what is done is kept, the same command goes on from here"
        )
    _report(store, result.id, rule, as_json=as_json, kept=settings.kept)
    if result.failed:
        for cell, reason in result.failed.items():
            errors.print(f"cell {cell[:12]} failed: {reason}", markup=False, soft_wrap=True)
        raise CellError(f"{len(result.failed)} of {len(plan.tasks)} cells failed; `tusp status` has them all")


def _resources(cpus: int, gpus: str, workers: int) -> Resources:
    """What each cell may use.

    Raises:
        UserError: the number of GPUs is neither ``auto`` nor a number from 0 on.
    """
    from tusp.jobs.driver import Resources

    if gpus == "auto":
        return Resources(cpus_per_cell=cpus, workers_per_cell=workers)
    try:
        number = float(gpus)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf") or (number > 1 and number % 1):
        raise UserError(f"--gpus-per-cell {gpus}: auto, 0, a fraction of a GPU (0.25) or a whole number of them")
    return Resources(cpus_per_cell=cpus, gpus_per_cell=number, workers_per_cell=workers)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--seeds {text}: whole numbers separated by commas, for example 0,1,2") from None


def _say(line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)


def _quiet(line: str) -> None:
    errors.print(line, markup=False, soft_wrap=True)


@contextmanager
def _bars(*, visible: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Progress bars of simulation and preparation, one a stage; shown when there is something to wait for."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bars = Progress(
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=errors,
        disable=not visible,
    )
    ids: dict[str, Any] = {}

    def tell(stage: str, done: int, total: int) -> None:
        if stage not in ids:
            ids[stage] = bars.add_task(stage, total=total)
        bars.update(ids[stage], completed=done, total=total)

    with bars:
        yield tell


def _announce(nights: Prepared, todo: Todo, recipe: Recipe) -> None:
    for corpus in nights.corpora:
        people = len(corpus.by_subject)
        kind = "SIMULATED" if corpus.simulated else "real"
        _say(f"{corpus.name}: {len(corpus.recordings)} nights of {people} people ({kind})")
    for row in nights.refused:
        _say(f"refused: {row['corpus']}/{row['recording']}: {row['reason']}")
    if "+" in recipe.name:
        _say(
            f"Recipe {recipe.name}: {recipe.name.partition('+')[0]} with settings of your own; its results stand apart."
        )
    if recipe.name.startswith("quick"):
        _say(
            "Recipe quick: a small network at 32 Hz and a few passes, for a first look; for results, --recipe standard."
        )
    _say(
        f"{len(todo.plan.tasks)} cells: {len(todo.done)} done already, {len(todo.left)} to run "
        f"({', '.join(f'{corpus}: {chr(32).join(arms)}' for corpus, arms in todo.plan.arms.items())})"
    )


def _show_plan(todo: Todo, resources: Resources, *, as_json: bool) -> None:
    from tusp.jobs.submit import estimate_seconds

    done = {task.cell.id for task in todo.done}
    seconds, basis = estimate_seconds(todo, resources) if todo.left else (0.0, "nothing is left to run")
    if as_json:
        print_json(
            {
                "cells": [
                    {
                        "id": task.cell.id,
                        "corpus": task.cell.corpus,
                        "arm": task.cell.arm,
                        "fold": task.cell.fold,
                        "seed": task.cell.seed,
                        "state": "reused" if task.cell.id in done else "to run",
                    }
                    for task in todo.plan.tasks
                ],
                "splits": {corpus: split.hash for corpus, split in todo.plan.splits.items()},
                "estimate_seconds": seconds,
                "estimate_basis": basis,
            }
        )
        return
    rows = [
        (
            task.cell.id[:12],
            task.cell.corpus,
            task.cell.arm,
            f"{task.cell.fold + 1}/{task.cell.folds}",
            task.cell.seed,
            "reused" if task.cell.id in done else "to run",
        )
        for task in todo.plan.tasks
    ]
    print_table(("cell", "corpus", "arm", "fold", "seed", "state"), rows)
    _say(f"Estimate: at most {seconds / 60:.1f} min of training and prediction ({basis}).")


def _run(
    store: Store,
    settings: Settings,
    todo: Todo,
    nights: Prepared,
    reuse: str,
    resources: Resources,
    *,
    mlflow: bool,
    quiet: bool,
) -> Any:
    from tusp.cli.live import Live
    from tusp.jobs.mirroring import MirrorProcess
    from tusp.jobs.submit import submit as run

    mirror = MirrorProcess(settings, pictures="tusp.dashboards.figures:cell_pictures") if mlflow and todo.left else None
    if todo.left and not quiet:
        _say("Starting Ray and its workers ..." if settings.address == "local" else f"Joining {settings.address} ...")
    try:
        with Live(visible=not quiet) as live:
            result = run(
                store,
                settings,
                todo,
                nights,
                resources=resources,
                reuse=reuse,  # type: ignore[arg-type]
                watch=live.show,
                recorded=lambda submission, _: mirror.nudge(submission) if mirror else None,
                say=_quiet if quiet else _say,
            )
        if mirror:
            if not quiet:
                _say("Mirroring to MLflow ...")
            problem = mirror.finish(result.id)
            if problem:
                errors.print(f"MLflow mirror: {problem}; `tusp mlflow --rebuild` makes it anew", markup=False)
    except KeyboardInterrupt:
        errors.print("Interrupted. What is done is kept; the same command goes on from here.")
        sys.exit(130)
    finally:
        if mirror:
            mirror.close()
    return result


def _report(store: Store, submission: str, rule: str, *, as_json: bool, kept: Path) -> None:
    from threadpoolctl import threadpool_limits

    from tusp.cli.leaving_ready import leave_reports_ready
    from tusp.dashboards.render import print_report, render_report
    from tusp.dashboards.report import build_report

    # One thread, as `tusp report`: no digit depends on how many cores there are.
    with threadpool_limits(1, user_api="blas"):
        report = build_report(store, submission=submission, rule=rule, kept=kept)
    if as_json:
        sys.stdout.write(render_report(report, "json"))
    else:
        print_report(report, console)
        _say(f"Submission {submission}. Look further: tusp report, tusp status, tusp mlflow.")
    leave_reports_ready(store, kept=kept, submission=submission)
