"""tusp status, logs and cancel, on a store without Ray; and the log of a cell."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_helpers import planned_cell, run_cell, submit
from typer.testing import CliRunner

from tusp.cli import main
from tusp.cli.status import notes_on
from tusp.jobs.celllog import ERROR, LOG, cell_log, last_lines
from tusp.jobs.job import cell_folder
from tusp.platform.errors import CellError, UserError
from tusp.platform.store.cancelling import note_with_submission
from tusp.platform.store.queries import get_submission, list_submissions
from tusp.platform.store.record import Claimant, claim, record_failed
from tusp.platform.store.session import Store, open_store

REASON = "loss became nan in pass 3, step 17; a lower learning rate than 0.01 may cure it" + ", and so on" * 20


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A home with a done, a failed and a planned cell."""
    monkeypatch.setenv("TUSP_HOME", str(tmp_path))
    monkeypatch.delenv("TUSP_DB", raising=False)
    opened = open_store(f"sqlite:///{tmp_path / 'tusp.db'}")
    cells = [planned_cell(fold) for fold in range(3)]
    submit(opened, cells)
    run_cell(opened, tmp_path, cells[0])
    claimant = Claimant(submission="s1", host="h", pid=1, started="", token="t")
    attempt = claim(opened, cells[1].id, claimant).attempt_number
    assert attempt
    record_failed(opened, cells[1].id, "t", attempt, REASON, {})
    folder = cell_folder(tmp_path, cells[1].id)
    folder.mkdir(parents=True)
    (folder / LOG).write_text("".join(f"line {number}\n" for number in range(30)))
    (folder / ERROR).write_text("Traceback\n  somewhere\nCellError: loss became nan\n")
    yield opened
    opened.engine.dispose()


def tusp(*arguments: str) -> str:
    done = CliRunner().invoke(main.app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


# --- tusp status ---


def test_a_failed_cell_has_one_line_with_all_of_its_reason(store: Store) -> None:
    cell = planned_cell(1).id[:12]
    lines = tusp("status", "s1").splitlines()
    assert f"cell {cell} failed: {REASON}" in lines
    assert f"More: tusp logs {cell}" in lines
    assert sum(line.startswith("cell ") for line in lines) == 1


def test_notes_say_what_is_not_plain() -> None:
    assert notes_on({}) == ""
    assert notes_on({"precision": "float32", "micro_batch": None, "workers": 1}) == ""
    assert notes_on({"precision": "bf16", "micro_batch": 4, "workers": 2}) == (
        "bf16, 4 windows at a time (memory), 2 workers"
    )


def test_how_cells_were_divided_is_shown(store: Store) -> None:
    running = {"slots": 8, "workers_per_cell": 1, "cells_per_gpu": 4, "why": "4 on a GPU: as measured"}
    note_with_submission(store, "s1", {"running": running})
    assert "cells at a time: 8, cells on each GPU: 4 on a GPU: as measured" in tusp("status", "s1").splitlines()
    assert json.loads(tusp("status", "s1", "--json"))["running"] == running


# --- tusp logs ---


def test_the_last_lines_and_the_traceback_of_a_cell(store: Store) -> None:
    cell = planned_cell(1).id
    lines = tusp("logs", cell[:9], "--lines", "2").splitlines()
    assert lines[0] == f"cell {cell[:12]} (sim, full, fold 2, seed 1): failed: {REASON}"
    shown = [line.strip() for line in lines[1:]]
    assert shown == ["line 28", "line 29", "|   somewhere", "| CellError: loss became nan"]


def test_of_a_submission_the_cells_that_failed(store: Store) -> None:
    found = json.loads(tusp("logs", "s1", "--json"))
    assert [entry["id"] for entry in found] == [planned_cell(1).id]
    assert len(found[0]["log"]) == 20
    assert found[0]["traceback"][-1] == "CellError: loss became nan"


def test_a_cell_that_did_not_fail_shows_no_old_traceback(store: Store, tmp_path: Path) -> None:
    cell = planned_cell(0).id
    (cell_folder(tmp_path, cell) / ERROR).write_text("of an earlier attempt")
    assert "of an earlier attempt" not in tusp("logs", cell)


def test_neither_cell_nor_submission_is_one_line(store: Store) -> None:
    with pytest.raises(UserError, match=r"no submission 'ffffffff'.*nor is there a cell of this id"):
        tusp("logs", "ffffffff")


# --- tusp cancel ---


def test_a_submission_that_does_not_answer_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tusp.cli.cancel.WAIT_SECONDS", 0.1)
    third = planned_cell(2).id
    assert claim(store, third, Claimant(submission="s1", host="elsewhere", pid=1, started="", token="u")).obtained
    with pytest.raises(CellError, match="1 of its cells did not stop within 0 s"):
        tusp("cancel", "s1")
    assert get_submission(store, "s1").state == "cancelled"


def test_cancelled_says_what_is_kept(store: Store) -> None:
    assert "Submission s1 is cancelled: 1 of 3 cells are done and kept" in tusp("cancel", "s1")
    assert [record.state for record in list_submissions(store)] == ["cancelled"]
    with pytest.raises(UserError, match="only a running one can be cancelled"):
        tusp("cancel", "s1")


# --- the log of a cell ---


def test_a_cell_keeps_what_tusp_says_and_what_others_warn_of(tmp_path: Path) -> None:
    ours, other = logging.getLogger("tusp.jobs.slots"), logging.getLogger("other")
    for attempt in (1, 2):
        with cell_log(tmp_path / "cell"):
            ours.info("attempt %d", attempt)
            other.info("not this")
            other.warning("but this")
            warnings.warn("and this", stacklevel=1)
    ours.info("nor this")
    lines = last_lines(tmp_path / "cell" / LOG, 100)
    said = [line for line in lines if any(word in line for word in ("attempt", "this"))]
    assert ["attempt 1" in line or "attempt 2" in line for line in said].count(True) == 2
    assert not any("not this" in line or "nor this" in line for line in said)
    assert sum("other: but this" in line for line in said) == 2
    assert any("and this" in line for line in said)


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "cell").write_text("a file where the folder should be")
    with cell_log(tmp_path / "cell"):
        ran = True
    assert ran
    assert last_lines(tmp_path / "nothing", 3) == []
