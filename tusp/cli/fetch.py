"""`tusp datasets fetch`: the published files of a corpus, whole and verified."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tusp.datasets.fetching.run import Progress, Report


def fetch(
    corpus: Annotated[str, typer.Argument(help="sedf-sc, sedf-st, dcsm, cinc2018, shhs, dod-h or dod-o.")],
    dest: Annotated[Path, typer.Argument(help="Folder for the files; made when missing.")],
    recordings: Annotated[int | None, typer.Option(metavar="N", help="Only the first N recordings, by name.")] = None,
    subset: Annotated[str | None, typer.Option(metavar="NAME", help="Only a named subset, such as sedf-20.")] = None,
    jobs: Annotated[int, typer.Option(metavar="N", help="Files at the same time, 1 to 32.")] = 4,
    token: Annotated[
        str | None, typer.Option(help="NSRR token for shhs; better in TUSP_NSRR_TOKEN, where no one sees it.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Mirror with the corpus's own layout (TUSP_FETCH_URL).")
    ] = None,
    archive: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Unpack this downloaded zip or tar of the corpus instead.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be fetched; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Fetch a corpus from where its owners publish it, checked by their checksums.

    An interrupted call is continued by repeating it. Exit status 2 when a file could not be had.

    Example: tusp datasets fetch sedf-sc nights/ --recordings 4

    Example: tusp datasets fetch dcsm nights/ --dry-run
    """
    import os

    from tusp.cli.output import console, errors, print_json
    from tusp.datasets.fetching import run
    from tusp.datasets.fetching.sources import NSRR_TOKEN

    try:
        with _bar(dry_run) as progress:
            report = run.fetch(
                corpus,
                dest,
                recordings=recordings,
                subset=subset,
                jobs=jobs,
                token=token or os.environ.get(NSRR_TOKEN),
                base_url=base_url or os.environ.get("TUSP_FETCH_URL"),
                archive=archive,
                dry_run=dry_run,
                progress=progress,
            )
    except KeyboardInterrupt:
        errors.print("interrupted; repeat the command to go on from here", markup=False, soft_wrap=True)
        raise typer.Exit(130) from None
    next_command = None if dry_run or report.failed else f"tusp datasets add {corpus} {shlex.quote(str(dest))}"
    for note in report.notes:
        errors.print(note, markup=False, soft_wrap=True)
    for outcome in report.failed:
        errors.print(f"failed {outcome.path}: {outcome.reason}", markup=False, soft_wrap=True)
    if as_json:
        print_json(run.to_json(report, next_command=next_command))
    else:
        lines = _listing(report) if dry_run else []
        for line in [*lines, _summary(report, dry_run=dry_run)]:
            console.print(line, markup=False, soft_wrap=True)
        if next_command is not None:
            console.print(f"next: {next_command}", markup=False, soft_wrap=True)
    if report.failed:
        raise typer.Exit(2)


def _listing(report: Report) -> Iterator[str]:
    from tusp.datasets.fetching.run import readable

    for outcome in report.files:
        size = "size unknown" if outcome.size is None else readable(outcome.size)
        yield f"{outcome.state:8}  {size:>12}  {outcome.path}"


def _summary(report: Report, *, dry_run: bool) -> str:
    from tusp.datasets.fetching.run import readable

    files = "1 file" if len(report.files) == 1 else f"{len(report.files)} files"
    unknown = sum(outcome.size is None and outcome.state != "failed" for outcome in report.files)
    size = readable(report.bytes) + (f" and {unknown} of unknown size" if unknown else "")
    if dry_run:
        states = f"{report.count('to fetch')} to fetch, {report.count('present')} there already"
        return f"{report.corpus}: {files}, {size}: {states}"
    states = f"{report.count('fetched')} fetched, {report.count('present')} there already"
    failed = f", {len(report.failed)} failed (repeat the command to try them again)" if report.failed else ""
    verified = f"; verified: {report.how_verified}" if report.how_verified else ""
    return f"{report.corpus}: {files}, {size} in {report.folder}: {states}{failed}{verified}"


@contextmanager
def _bar(hidden: bool) -> Iterator[Progress]:
    """A progress bar on stderr: bytes, rate, time left, files."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    from tusp.cli.output import errors
    from tusp.datasets.fetching.run import Outcome, Progress

    columns = (
        TextColumn("fetching {task.fields[done]}/{task.fields[files]} files"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=errors, transient=True, disable=hidden or not errors.is_terminal) as bar:
        task = bar.add_task("fetching", total=None, done=0, files="?")
        finished = 0

        def begin(total_bytes: int | None, files: int) -> None:
            bar.update(task, total=total_bytes, files=files)

        def done(outcome: Outcome) -> None:
            nonlocal finished
            finished += 1
            bar.update(task, done=finished)

        yield Progress(begin=begin, advance=lambda count: bar.advance(task, count), done=done)
