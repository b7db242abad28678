"""``tusp report``: leaderboards and ablation contrasts from the store."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from tusp.cli.context import current_settings
from tusp.cli.output import console
from tusp.platform.errors import UserError


def report(
    submission: Annotated[
        str | None, typer.Option(help="Id of a submission or its unique beginning.", show_default="the latest")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All submissions together.")] = False,
    rule: Annotated[str, typer.Option(help="Scoring rule: full, trim30, trim<minutes> or lights.")] = "trim30",
    format: Annotated[  # noqa: A002  (the option's name)
        str, typer.Option(help="table, md, csv, json, latex or html.")
    ] = "table",
    output: Annotated[Path | None, typer.Option(help="Write to this file.", show_default="standard output")] = None,
    corpus: Annotated[str | None, typer.Option(help="Only what is judged on this corpus.")] = None,
    suite: Annotated[str | None, typer.Option(help="Add the table of a suite, with its holes.")] = None,
    sleep: Annotated[bool, typer.Option("--sleep", help="Add the agreement of sleep statistics.")] = False,
    cards: Annotated[
        Path | None, typer.Option(help="Write a card of every corpus and every row to this folder instead.")
    ] = None,
    bootstrap: Annotated[int, typer.Option(help="Resamples over people for the intervals.")] = 2000,
    fresh: Annotated[bool, typer.Option("--fresh", help="Make every board anew, also those made before.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Leaderboards with intervals over people, and ablation contrasts paired by person.

    Example: tusp report --rule full --format html --output report.html
    """
    # One thread: the products are small, others use the machine, and no digit depends on how many cores there are.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.disable()  # the process ends before there is anything to collect; looking for it takes a tenth of the time
    from tusp.dashboards.asked import FORMATS, Asked, known
    from tusp.dashboards.kept_texts import find_text, look_of
    from tusp.dashboards.lent import borrow
    from tusp.platform.store.session import open_store

    chosen = "json" if as_json else format
    if chosen not in FORMATS:
        raise UserError(f"no format {chosen!r}; formats are {', '.join(FORMATS)}")
    settings = current_settings()
    store = open_store(settings.db)
    kept = None if fresh else settings.kept
    drawn = chosen == "table" and output is None
    look = look_of(console) if drawn else None
    plain = suite is None and cards is None and not sleep and (look is not None or not drawn)
    asked = Asked(submission=submission, everything=everything, rule=rule, corpus=corpus, bootstrap=bootstrap)
    before = None if kept is None or sleep else known(store, asked)
    if kept is not None and before is not None:
        text = find_text(kept, before.name, chosen, look) if plain else None
        if text is None:
            borrow(store, kept, before.name)
            text = find_text(kept, before.name, chosen, look) if plain else None
        if text is not None:
            _write(text, output)
            return

    # Only now: what makes reports takes longer to import than a kept one to tell.
    from dataclasses import replace

    from tusp.dashboards.ready import render_and_keep
    from tusp.dashboards.render import print_report
    from tusp.dashboards.report import build_report
    from tusp.dashboards.suites import suite_table
    from tusp.platform.environment import usable_cores
    from tusp.platform.files import disk_errors_named

    found = build_report(
        store,
        submission=submission,
        everything=everything,
        rule=rule,
        corpus=corpus,
        bootstrap=bootstrap,
        home=settings.home,
        sleep=sleep,
        processes=usable_cores(),
        kept=kept,
        before=before,
    )
    if suite is not None:
        found = replace(found, suite=suite_table(found, suite), kept_as=None)
    if cards is not None:
        from tusp.dashboards.cards import write_cards

        with disk_errors_named("cards", cards):
            for path in write_cards(store, found, cards):
                console.print(str(path), markup=False, soft_wrap=True)
    elif drawn and look is None:
        print_report(found, console)
    else:
        _write(render_and_keep(store, found, chosen, look=look, kept=kept, before=before), output)


def _write(text: str, output: Path | None) -> None:
    from tusp.platform.files import disk_errors_named, write_text_atomic

    if output is None:
        sys.stdout.write(text)
        return
    with disk_errors_named("report", output):
        write_text_atomic(output, text)
