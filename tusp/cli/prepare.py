"""``tusp datasets prepare``: a corpus in the prepared store ahead of a submission."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer


def prepare(
    corpus: Annotated[str, typer.Argument(help="Name of a registered corpus.", metavar="CORPUS")],
    wake_margin_minutes: Annotated[
        int | None,
        typer.Option(metavar="N", help="Wake kept before the first and after the last sleep epoch [default: all]."),
    ] = None,
    clip_iqr: Annotated[
        float, typer.Option(metavar="X", help="Clip beyond X inter-quartile ranges from the median.")
    ] = 20.0,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Processes at the same time [default: one a core].")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prepare every usable night of a corpus now, so that a submission finds it ready.

    Exit status 2 when a recording is refused.

    Example: tusp datasets prepare sedf-sc

    Example: tusp datasets prepare sedf-sc --wake-margin-minutes 30
    """
    from tusp.cli.context import current_settings
    from tusp.cli.output import console, errors, print_json
    from tusp.datasets.preparation import PreparationSettings, prepare_corpus
    from tusp.platform.store.session import open_store

    settings = current_settings()
    chosen = PreparationSettings(wake_margin_minutes=wake_margin_minutes, clip_iqr=clip_iqr)
    with _bar(f"prepare {corpus}") as progress:
        prepared = prepare_corpus(
            open_store(settings.db), settings, corpus, workers=workers, progress=progress, preparation=chosen
        )
    for name, reason in prepared.repaired.items():
        errors.print(f"prepared again {name}: {reason}", markup=False, soft_wrap=True)
    for name, reason in prepared.refused.items():
        errors.print(f"refused {name}: {reason}", markup=False, soft_wrap=True)
    folder = settings.prepared / corpus
    if as_json:
        print_json(
            {
                "corpus": corpus,
                "simulated": prepared.simulated,
                "folder": str(folder),
                "wake_margin_minutes": wake_margin_minutes,
                "clip_iqr": clip_iqr,
                "made": list(prepared.made),
                "found": sorted({recording.name for recording in prepared.recordings} - set(prepared.made)),
                "repaired": prepared.repaired,
                "refused": prepared.refused,
                "fingerprints": {recording.name: recording.fingerprint for recording in prepared.recordings},
            }
        )
    else:
        found = len(prepared.recordings) - len(prepared.made)
        made = "1 night" if len(prepared.made) == 1 else f"{len(prepared.made)} nights"
        console.print(
            f"{corpus}: {made} prepared, {found} were there already, {len(prepared.refused)} refused; in {folder}",
            markup=False,
            soft_wrap=True,
        )
    if prepared.refused:
        raise typer.Exit(2)


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on stderr."""
    from rich.progress import Progress as Bar

    from tusp.cli.output import errors

    with Bar(console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task(what, total=None)

        def told(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total)

        yield told
