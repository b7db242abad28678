"""tusp status: running and past submissions, and their cells."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tusp.cli.context import current_settings
from tusp.cli.output import console, print_json, print_table

if TYPE_CHECKING:
    from tusp.platform.store.queries import BriefCell, SubmissionRecord


def status(
    submission: Annotated[
        str | None, typer.Argument(help="Show the cells of this submission (its id or a unique beginning).")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Submissions to list, newest first.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List submissions, or the cells of one: what is done, running, failed and why.

    Example: tusp status
    """
    gc.disable()  # the process ends before there is anything to collect
    from tusp.platform.store import queries
    from tusp.platform.store.record import interrupt_dead_submissions
    from tusp.platform.store.session import open_store

    store = open_store(current_settings().db)
    interrupt_dead_submissions(store)
    if submission is None:
        records = queries.list_submissions(store, limit=limit)
        if as_json:
            print_json([_submission_json(record) for record in records])
        elif not records:
            console.print("No submission yet. Start one: tusp submit --ablation csja")
        else:
            print_table(
                ("submission", "state", "what", "corpora", "cells", "done", "running", "failed"),
                [_submission_row(record) for record in records],
            )
        return
    record = queries.get_submission(store, submission)
    cells, _ = queries.brief_cells(store, [record.id])
    if as_json:
        print_json({**_submission_json(record), "members": [_cell_json(cell) for cell in cells]})
        return
    print_table(
        ("cell", "corpus", "arm", "fold", "seed", "state", "passes", "validation macro-F1", "notes"),
        [_cell_row(cell) for cell in cells],
        title=f"{record.id} ({record.state})",
    )
    _show_running(record)
    failed = [cell for cell in cells if cell.state == "failed"]
    for cell in failed:
        # One line each, however long: a table would break it.
        console.print(f"cell {cell.id[:12]} failed: {_one_line(cell.error)}", markup=False, soft_wrap=True)
    if failed:
        console.print(f"More: tusp logs {failed[0].id[:12]}", markup=False)


def _submission_json(record: SubmissionRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "state": record.state,
        "created_at": record.created_at.isoformat(),
        "finished_at": record.finished_at.isoformat() if record.finished_at else None,
        "request": dict(record.request),
        "simulated": record.simulated,
        "refused": [dict(row) for row in record.refused],
        "cells": dict(record.cells),
        "reused": record.reused,
        "running": record.environment.get("running"),
    }


def _submission_row(record: SubmissionRecord) -> tuple[object, ...]:
    request = record.request
    return (
        record.id,
        record.state,
        f"{request.get('ablation')} ({request.get('recipe')})",
        " ".join(request.get("corpora", ())) + (" SIMULATED" if record.simulated else ""),
        sum(record.cells.values()),
        record.cells.get("done", 0),
        record.cells.get("running", 0),
        record.cells.get("failed", 0),
    )


def _cell_json(cell: BriefCell) -> dict[str, Any]:
    return {
        "id": cell.id,
        "corpus": cell.corpus,
        "arm": cell.arm,
        "fold": cell.fold,
        "seed": cell.seed,
        "state": cell.state,
        "error": cell.error,
        "notes": notes_on(cell.result or {}),
        "result": dict(cell.result) if cell.result else None,
    }


def _cell_row(cell: BriefCell) -> tuple[object, ...]:
    result = cell.result or {}
    score = result.get("validation_macro_f1")
    return (
        cell.id[:12],
        cell.corpus,
        cell.arm,
        f"{cell.fold + 1}/{cell.folds}",
        cell.seed,
        cell.state,
        result.get("passes"),
        None if score is None else f"{score:.3f}",
        notes_on(result) or None,
    )


def notes_on(result: Mapping[str, Any]) -> str:
    """What of a done cell's way of running is not the plain case: precision, pieces of a batch, several workers."""
    notes = []
    if result.get("precision") not in (None, "float32"):
        notes.append(str(result["precision"]))
    if result.get("micro_batch"):
        notes.append(f"{result['micro_batch']} windows at a time (memory)")
    if (result.get("workers") or 1) > 1:
        notes.append(f"{result['workers']} workers")
    return ", ".join(notes)


def _one_line(error: str | None) -> str:
    return " ".join((error or "no reason recorded").split())


def _show_running(record: SubmissionRecord) -> None:
    """How the cells were divided among the machine's parts."""
    running = record.environment.get("running")
    if not running:
        return
    parts = [f"cells at a time: {running['slots']}" if running.get("slots") else ""]
    if running.get("workers_per_cell", 1) > 1:
        parts.append(f"{running['workers_per_cell']} workers each")
    if running.get("cells_per_gpu"):
        parts.append(f"cells on each GPU: {running['why']}")
    console.print(", ".join(part for part in parts if part), markup=False, soft_wrap=True)
