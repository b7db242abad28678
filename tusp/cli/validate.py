"""``tusp validate``: do recorded results follow from what is on disk?"""

from __future__ import annotations

from typing import Annotated

import typer


def validate(
    submission: Annotated[
        str | None, typer.Option(help="Id of a submission or its unique beginning.", show_default="the latest")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All submissions.")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Hash the signals of the prepared nights too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Derive results again from their artefacts and say what does not hold, one line each.

    Exit status 2 when something does not hold, 1 when all holds but cells are not done.

    Example: tusp validate --all --deep
    """
    from dataclasses import asdict

    from tusp.cli.context import current_settings
    from tusp.cli.output import console, errors, print_json
    from tusp.dashboards.validate import validate as derive_again
    from tusp.platform.store.session import open_store

    settings = current_settings()
    store = open_store(settings.db)
    if errors.is_terminal and not as_json:
        with errors.status("validate") as shown:
            found = derive_again(
                store,
                settings,
                submission=submission,
                everything=everything,
                deep=deep,
                progress=lambda done, total: shown.update(f"validate: {done} of {total} cells"),
            )
    else:
        found = derive_again(store, settings, submission=submission, everything=everything, deep=deep)
    if as_json:
        print_json({**asdict(found), "ok": found.status == 0})
    else:
        for line in (*found.problems, *found.not_done):
            errors.print(line, markup=False, soft_wrap=True)
        for line in found.not_checked:
            console.print(line, markup=False, soft_wrap=True)
        looked_at = (
            f"{found.cells:,} done cells, {found.predictions:,} predictions, {found.nights:,} prepared nights"
            f"{' with their signals' if deep else ''}, {found.entries:,} entries"
            f"{f', {found.kept:,} kept parts of reports' if found.kept else ''}"
        )
        outcome = f"{len(found.problems)} things do not hold" if len(found.problems) > 1 else "1 thing does not hold"
        if not found.problems:
            outcome = f"all holds, but {len(found.not_done)} cells are not done" if found.not_done else "all holds"
        console.print(f"{looked_at}: {outcome}", markup=False, soft_wrap=True)
    if found.status:
        raise typer.Exit(found.status)
