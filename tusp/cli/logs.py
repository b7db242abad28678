"""tusp logs: what happened to a cell."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tusp.cli.context import current_settings
from tusp.cli.output import console, print_json
from tusp.platform.errors import UserError

if TYPE_CHECKING:
    from tusp.platform.store.queries import CellSummary
    from tusp.platform.store.session import Store


def logs(
    what: Annotated[str, typer.Argument(metavar="CELL_OR_SUBMISSION", help="Its id or a unique beginning.")],
    lines: Annotated[int, typer.Option(min=1, help="Last lines of each log.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the last lines of a cell's log, and the traceback where it failed.

    Of a submission, those of its failed and running cells.

    Example: tusp logs 20260105

    Example: tusp logs 3f2a91 --lines 50
    """
    from tusp.platform.store.session import open_store

    settings = current_settings()
    cells = _cells(open_store(settings.db), what)
    found = [_of_cell(settings.home, cell, lines) for cell in cells]
    if as_json:
        print_json(found)
        return
    if not found:
        console.print("No cell of this submission failed or is running; name a cell to see its log.")
    for entry in found:
        where = f"{entry['corpus']}, {entry['arm']}, fold {entry['fold'] + 1}, seed {entry['seed']}"
        title = f"cell {entry['id'][:12]} ({where}): {entry['state']}"
        console.print(title + (f": {entry['reason']}" if entry["reason"] else ""), markup=False, soft_wrap=True)
        for line in entry["log"] or ["no log in its folder: it never ran on this home, or its files were removed"]:
            console.print(f"  {line}", markup=False, soft_wrap=True)
        for line in entry["traceback"]:
            console.print(f"  | {line}", markup=False, soft_wrap=True)


def _cells(store: Store, what: str) -> list[CellSummary]:
    """The cell of this id, or those of the submission of this id that there is something to say of.

    Raises:
        UserError: there is neither, or several begin like this.
    """
    from tusp.platform.errors import StoreError
    from tusp.platform.store.cancelling import cells_like
    from tusp.platform.store.queries import cell_records, get_submission, submission_cells

    if re.fullmatch(r"[0-9a-f]+", what):
        ids = cells_like(store, what)
        if len(ids) == 1:
            return list(cell_records(store, ids))
        if ids:
            raise UserError(f"several cells start with {what!r}; give more of the id")
    try:
        record = get_submission(store, what)
    except StoreError as error:
        raise UserError(f"{error} (nor is there a cell of this id)") from error
    return [cell for cell in submission_cells(store, record.id) if cell.state in ("failed", "running")]


def _of_cell(home: Path, cell: CellSummary, lines: int) -> dict[str, Any]:
    from tusp.jobs.celllog import ERROR, LOG, last_lines
    from tusp.jobs.job import cell_folder

    folder = cell_folder(home, cell.id)
    failed = cell.state == "failed"
    return {
        "id": cell.id,
        "corpus": cell.corpus,
        "arm": cell.arm,
        "fold": cell.fold,
        "seed": cell.seed,
        "state": cell.state,
        "reason": cell.error if failed else None,
        "log": last_lines(folder / LOG, lines),
        "traceback": last_lines(folder / ERROR, lines) if failed else [],
        "folder": str(folder),
    }
