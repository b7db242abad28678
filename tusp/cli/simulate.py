"""`tusp datasets simulate`: nights that look like a corpus and belong to nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def simulate(
    corpus: Annotated[
        str, typer.Argument(help="Corpus to imitate: sedf-sc, sedf-st, dcsm, cinc2018, shhs, dod-h, dod-o.")
    ],
    dest: Annotated[Path, typer.Argument(help="New or empty folder for the files.")],
    subjects: Annotated[int, typer.Option(help="People; Sleep-EDF names 100 at most.")] = 10,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    nights: Annotated[int | None, typer.Option(help="Nights of each person (default: as in the corpus).")] = None,
    hours: Annotated[
        float | None, typer.Option(help="Length of each recording (default: the corpus's own lengths).")
    ] = None,
    ambiguity: Annotated[
        float, typer.Option(help="How unclear stages are: 1 as hard to score as real nights, 0 clear.")
    ] = 1.0,
    workers: Annotated[int | None, typer.Option(help="Processes (default: one a core).")] = None,
) -> None:
    """Write simulated nights in a corpus's original format, marked as simulated in every file.

    An interrupted call is continued by repeating it.

    Example: tusp datasets simulate sedf-sc nights/ --subjects 20 --seed 1
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from tusp.cli.output import console, errors
    from tusp.datasets.simulation import night_count
    from tusp.datasets.simulation import simulate as make

    with Progress(
        TextColumn("simulating nights"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=errors,
    ) as bar:
        task = bar.add_task("nights", total=None)
        make(
            corpus,
            dest,
            subjects=subjects,
            seed=seed,
            nights=nights,
            hours=hours,
            ambiguity=ambiguity,
            workers=workers,
            progress=lambda done, total, _: bar.update(task, completed=done, total=total),
        )
    count = night_count(corpus, subjects=subjects, seed=seed, nights=nights)
    console.print(
        f"{count} simulated nights of {corpus} (seed {seed}) in {dest}",
        markup=False,
        soft_wrap=True,
    )
