"""Whether done cells really are: their counts, predictions and files, held against the plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from sqlalchemy import select

from tusp.platform.identity import file_sha256
from tusp.platform.scoring.rules import RULES
from tusp.platform.store.models import Artefact, Cell, Count
from tusp.platform.store.record import ArtefactRow, batches
from tusp.platform.store.session import Store

NOT_DONE: Final = "the store has no done cell of this id"
"""What ``verify_done`` says of a cell that is simply not done yet."""


def verify_done(
    store: Store,
    home: Path,
    cell_ids: Collection[str],
    expected_recordings: Mapping[str, set[tuple[str, str]]] | None,
) -> dict[str, list[str]]:
    """Check that done cells really are: row, counts under every rule, prediction files, checksums.

    Args:
        home: TUSP_HOME, which the paths of artefacts are relative to.
        cell_ids: the cells to check.
        expected_recordings: by cell the ``(corpus, recording)`` pairs that it must have been judged on; None
            takes them from the plan that is stored with the cell.

    Returns:
        By cell what is wrong with it, in words; an empty list means really done.
    """
    wanted = list(cell_ids)
    problems: dict[str, list[str]] = {cell_id: [] for cell_id in wanted}
    with store.reading() as session:
        planned = {
            cell_id: plan
            for batch in batches(wanted)
            for cell_id, plan in session.execute(
                select(Cell.id, Cell.plan).where(Cell.id.in_(batch), Cell.state == "done")
            )
        }
        judged: dict[str, dict[str, set[tuple[str, str]]]] = {}
        for batch in batches(wanted):
            keys = select(Count.cell_id, Count.rule, Count.corpus, Count.recording)
            for cell_id, rule, corpus, recording in session.execute(
                keys.where(Count.cell_id.in_(batch), Count.channels == "vote")
            ):
                judged.setdefault(cell_id, {}).setdefault(rule, set()).add((corpus, recording))
        files: dict[str, list[ArtefactRow]] = {}
        for batch in batches(wanted):
            for row in session.scalars(select(Artefact).where(Artefact.cell_id.in_(batch))):
                files.setdefault(row.cell_id, []).append(
                    ArtefactRow(
                        path=row.path,
                        kind=row.kind,
                        recording=row.recording,
                        sha256=row.sha256,
                        size_bytes=row.size_bytes,
                    )
                )
    for cell_id in wanted:
        said = problems[cell_id]
        if cell_id not in planned:
            said.append(NOT_DONE)
            continue
        by_rule = judged.get(cell_id, {})
        expected = judged_by_plan(planned[cell_id]) if expected_recordings is None else expected_recordings[cell_id]
        if not expected:
            said.append("no recording was judged")
        for rule in RULES:
            said += _differences(by_rule.get(rule, set()), expected, f"counts under rule {rule}")
        predicted = {
            (corpus, name)
            for row in files.get(cell_id, [])
            if row.kind == "predictions" and row.recording
            for corpus, _, name in [row.recording.partition("/")]
        }
        said += _differences(predicted, expected, "predictions")
        said += [problem for kept in files.get(cell_id, []) if (problem := _file_problem(home, kept)) is not None]
    return problems


def judged_by_plan(plan: Mapping[str, Any]) -> set[tuple[str, str]]:
    """The ``(corpus, recording)`` pairs that a cell with this plan is judged on."""
    return {(str(corpus["name"]), str(name)) for corpus in plan["corpora"] for name in corpus["test"]}


def _differences(found: set[tuple[str, str]], expected: set[tuple[str, str]], what: str) -> list[str]:
    missing = [f"no {what} for {corpus}/{name}" for corpus, name in sorted(expected - found)]
    return missing + [f"unexpected {what} for {corpus}/{name}" for corpus, name in sorted(found - expected)]


def _file_problem(home: Path, row: ArtefactRow) -> str | None:
    path = home / row.path
    try:
        size = path.stat().st_size
        if size != row.size_bytes:
            return f"{row.path} has {size} bytes instead of {row.size_bytes}"
        if file_sha256(path) != row.sha256:
            return f"{row.path} has changed (its checksum differs)"
    except FileNotFoundError:
        return f"{row.path} is gone"
    except OSError as error:
        return f"{row.path} cannot be read ({error.strerror})"
    return None
