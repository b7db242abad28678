"""tusp cancel: call a running submission off."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tusp.cli.context import current_settings
from tusp.cli.output import console, print_json
from tusp.platform.errors import CellError

if TYPE_CHECKING:
    from tusp.platform.store.session import Store

WAIT_SECONDS: Final = 60.0


def cancel(
    submission: Annotated[str, typer.Argument(help="Its id or a unique beginning.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Call a running submission off, from any machine that reaches the store.

    Its cells are stopped and given back; what is done is kept. The same submit goes on from there.

    Example: tusp cancel 20260105
    """
    from tusp.platform.store import queries
    from tusp.platform.store.cancelling import cancel_submission
    from tusp.platform.store.record import interrupt_dead_submissions
    from tusp.platform.store.session import open_store

    store = open_store(current_settings().db)
    interrupt_dead_submissions(store)
    record = queries.get_submission(store, submission)
    cancel_submission(store, record.id)
    left = _wait_for_its_driver(store, record.id)
    record = queries.get_submission(store, record.id)
    if as_json:
        print_json({"id": record.id, "state": record.state, "cells": dict(record.cells), "still_running": left})
    else:
        done, total = record.cells.get("done", 0), sum(record.cells.values())
        console.print(
            f"Submission {record.id} is cancelled: {done} of {total} cells are done and kept; the same submit goes on "
            "from there.",
            markup=False,
            soft_wrap=True,
        )
    if left:
        raise CellError(f"{left} of its cells did not stop within {WAIT_SECONDS:.0f} s; does its driver still run?")


def _wait_for_its_driver(store: Store, submission: str) -> int:
    """How many cells it still holds after it had time to give them back."""
    from tusp.platform.store.queries import submission_cells

    end = time.monotonic() + WAIT_SECONDS
    while True:
        held = [
            cell
            for cell in submission_cells(store, submission)
            if cell.state == "running" and (cell.holder or {}).get("submission") == submission
        ]
        if not held or time.monotonic() > end:
            return len(held)
        time.sleep(0.5)
