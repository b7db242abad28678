"""Cells are recorded once, whole, and by whoever holds them (on PostgreSQL: test_store_postgres)."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from dataclasses import replace
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from sqlalchemy import event, func, select
from store_helpers import RECORDINGS, outcome, planned_cell, run_cell, submit

from tusp.platform import processes
from tusp.platform.errors import StoreError
from tusp.platform.store import queries, record
from tusp.platform.store.models import Artefact, Attempt, Cell, Count, Curve, utc_now
from tusp.platform.store.record import Claimant
from tusp.platform.store.session import Store, open_store
from tusp.platform.store.verification import verify_done

others = multiprocessing.get_context("forkserver")  # processes of their own, without 8 x the imports
others.set_forkserver_preload(["pytest", "tusp.platform.store.queries"])


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'tusp.db'}"


@pytest.fixture
def store(store_url: str) -> Store:
    return open_store(store_url)


def rows(store: Store, table: type) -> int:
    with store.reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def only_record(store: Store, cell_id: str) -> queries.CellRecord:
    (found,) = queries.cell_records(store, [cell_id])
    return found


def test_a_cell_goes_from_planned_to_done_with_everything_it_left(store: Store, tmp_path: Path) -> None:
    cell = planned_cell()
    submit(store, [cell])
    assert only_record(store, cell.id).state == "planned"
    claimant = Claimant.of_this_process("s1")
    claimed = record.claim(store, cell.id, claimant)
    assert (claimed.obtained, claimed.state, claimed.attempt_number) == (True, "running", 1)
    handed_over = outcome(tmp_path, cell, claimant.token)
    record.record_done(store, replace(handed_over, resumed_from_pass=2))

    done = only_record(store, cell.id)
    assert done.state == "done" and done.holder is None and done.done_at is not None
    assert done.plan == cell.plan and done.result == handed_over.result
    assert set(done.counts) == set(handed_over.counts)
    assert list(done.curve) == list(handed_over.curve)
    assert set(done.artefacts) == set(handed_over.artefacts)
    attempt = done.done_attempt
    assert attempt is not None and attempt.resumed_from_pass == 2 and attempt.environment["threads"] == 2
    assert verify_done(store, tmp_path, [cell.id], {cell.id: {("sim", name) for name in RECORDINGS}}) == {cell.id: []}


def test_a_done_cell_is_neither_claimed_nor_recorded_again(store: Store, tmp_path: Path) -> None:
    cell = planned_cell()
    submit(store, [cell])
    claimant = Claimant.of_this_process("s1")
    record.claim(store, cell.id, claimant)
    handed_over = outcome(tmp_path, cell, claimant.token)
    record.record_done(store, handed_over)
    with pytest.raises(StoreError, match="done already"):
        record.record_done(store, handed_over)
    with pytest.raises(StoreError, match="done already"):
        record.record_failed(store, cell.id, claimant.token, 1, "too late", {})
    again = record.claim(store, cell.id, Claimant.of_this_process("s1"))
    assert not again.obtained and again.state == "done"
    assert rows(store, Attempt) == 1


def test_a_later_submission_marks_what_it_reused(store: Store, tmp_path: Path) -> None:
    first, second = planned_cell(0), planned_cell(1)
    submit(store, [first])
    run_cell(store, tmp_path, first)
    submit(store, [first, second], "s2")
    record.add_cells(store, "s2", [first, second])
    later = queries.get_submission(store, "s2")
    assert later.reused == 1 and later.cells == {"done": 1, "planned": 1}
    assert [summary.fold for summary in queries.submission_cells(store, "s2")] == [0, 1]
    assert [found.id for found in queries.list_submissions(store)] == ["s2", "s1"]


def test_submissions_are_found_by_the_start_of_their_id(store: Store) -> None:
    for name in ("abc-1", "abd_2"):
        submit(store, [planned_cell()], name)
    assert queries.get_submission(store, "abc").id == "abc-1"
    with pytest.raises(StoreError, match="several submissions start with 'ab'"):
        queries.get_submission(store, "ab")
    with pytest.raises(StoreError, match="no submission '%'"):
        queries.get_submission(store, "%")
    with pytest.raises(StoreError, match="recorded already"):
        submit(store, [planned_cell()], "abc-1")
    record.finish_submission(store, "abc-1", "done")
    assert queries.get_submission(store, "abc-1").finished_at is not None
    with pytest.raises(StoreError, match="no submission nobody"):
        record.finish_submission(store, "nobody", "done")


def test_failure_in_the_middle_of_recording_leaves_nothing(store: Store, tmp_path: Path) -> None:
    cell = planned_cell()
    submit(store, [cell])
    claimant = Claimant.of_this_process("s1")
    record.claim(store, cell.id, claimant)

    def fail(_c: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith("INSERT INTO artefacts"):
            raise RuntimeError("power cut")

    event.listen(store.engine, "before_cursor_execute", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        record.record_done(store, outcome(tmp_path, cell, claimant.token))
    event.remove(store.engine, "before_cursor_execute", fail)
    assert [rows(store, table) for table in (Count, Curve, Artefact)] == [0, 0, 0]
    held = only_record(store, cell.id)
    assert held.state == "running" and held.result is None and held.attempts[0].state == "running"
    record.record_done(store, outcome(tmp_path, cell, claimant.token))
    assert only_record(store, cell.id).state == "done"


def test_a_failed_cell_keeps_its_reason_and_may_be_tried_again(store: Store) -> None:
    cell = planned_cell()
    submit(store, [cell])
    claimant = Claimant.of_this_process("s1")
    record.claim(store, cell.id, claimant)
    record.record_failed(store, cell.id, claimant.token, 1, "loss is not finite", {"host": "h"})
    failed = only_record(store, cell.id)
    assert (failed.state, failed.error) == ("failed", "loss is not finite")
    again = record.claim(store, cell.id, claimant)
    assert again.obtained and again.attempt_number == 2
    record.release(store, cell.id, claimant.token)
    states = [attempt.state for attempt in only_record(store, cell.id).attempts]
    assert states == ["failed", "cut"] and only_record(store, cell.id).state == "planned"
    assert only_record(store, cell.id).error is None


def test_whoever_lost_a_cell_records_nothing(store: Store, tmp_path: Path) -> None:
    cell = planned_cell()
    submit(store, [cell])
    slow, quick = Claimant.of_this_process("s1"), Claimant.of_this_process("s1")
    start = utc_now()
    record.claim(store, cell.id, slow, now=start)
    waiting = record.claim(store, cell.id, quick, now=start + timedelta(seconds=60))
    assert not waiting.obtained and waiting.holder is not None and waiting.holder["pid"] == os.getpid()
    assert record.heartbeat(store, slow.token, [cell.id], now=start + timedelta(seconds=60)) == set()
    assert not record.claim(store, cell.id, quick, now=start + timedelta(seconds=150)).obtained
    taken = record.claim(store, cell.id, quick, now=start + timedelta(seconds=181))
    assert taken.obtained and taken.attempt_number == 2
    assert record.heartbeat(store, slow.token, [cell.id]) == {cell.id}
    for refused in (
        lambda: record.record_done(store, outcome(tmp_path, cell, slow.token)),
        lambda: record.record_failed(store, cell.id, slow.token, 1, "x", {}),
        lambda: record.release(store, cell.id, slow.token),
    ):
        with pytest.raises(StoreError, match="not held by this claim any more"):
            refused()
    with pytest.raises(StoreError, match="attempt 1 is not open"):
        record.record_done(store, outcome(tmp_path, cell, quick.token, 1))
    record.record_done(store, outcome(tmp_path, cell, quick.token, 2))
    assert [attempt.state for attempt in only_record(store, cell.id).attempts] == ["cut", "done"]


def claim_and_wait(url: str, cell_id: str, pipe: Connection) -> None:
    claimant = Claimant.of_this_process("s1")
    pipe.send(record.claim(open_store(url), cell_id, claimant).obtained)
    time.sleep(600)


def test_kill_9_of_the_holder_frees_its_cell_at_once(store: Store, store_url: str) -> None:
    cell = planned_cell()
    submit(store, [cell])
    here, there = others.Pipe()
    holder = others.Process(target=claim_and_wait, args=(store_url, cell.id, there))
    holder.start()
    try:
        assert here.poll(60) and here.recv() is True
        me = Claimant.of_this_process("s1")
        busy = record.claim(store, cell.id, me)
        assert not busy.obtained and busy.holder is not None and busy.holder["pid"] == holder.pid
        assert holder.pid is not None
        os.kill(holder.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while not (taken := record.claim(store, cell.id, me)).obtained and time.monotonic() < deadline:
            time.sleep(0.02)
        assert taken.obtained and taken.attempt_number == 2
        assert [attempt.state for attempt in only_record(store, cell.id).attempts] == ["cut", "running"]
    finally:
        holder.kill()
        holder.join()


def test_a_killed_process_is_dead_before_it_is_reaped() -> None:
    child = subprocess.Popen(["sleep", "600"])
    process = {
        "host": processes.this_process()["host"],
        "pid": child.pid,
        "started": processes.started(child.pid),
    }
    assert not processes.is_surely_dead(**process)
    child.kill()
    deadline = time.monotonic() + 10
    while not processes.is_surely_dead(**process) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert processes.is_surely_dead(**process)
    assert processes.started(child.pid)  # the zombie is still listed
    child.wait()
    assert processes.is_surely_dead(**process) and processes.started(child.pid) == ""


def test_a_recycled_process_number_does_not_keep_a_claim(store: Store) -> None:
    cell = planned_cell()
    submit(store, [cell])
    before = replace(Claimant.of_this_process("s1"), started=processes.started().rpartition("/")[0] + "/1")
    record.claim(store, cell.id, before)
    assert record.claim(store, cell.id, Claimant.of_this_process("s1")).obtained


@pytest.mark.parametrize("elsewhere", [{"host": "elsewhere"}, {"started": "another-kernel/pid:[1]/1"}, {"started": ""}])
def test_a_claim_from_elsewhere_lives_by_its_heartbeat(store: Store, elsewhere: dict[str, str]) -> None:
    cell = planned_cell()
    submit(store, [cell])
    record.claim(store, cell.id, replace(Claimant.of_this_process("s1"), pid=2**22 + 1, **elsewhere))
    me = Claimant.of_this_process("s1")
    assert not record.claim(store, cell.id, me).obtained
    assert record.claim(store, cell.id, me, now=utc_now() + timedelta(seconds=121)).obtained


def test_submissions_of_dead_drivers_are_interrupted(store: Store) -> None:
    submit(store, [planned_cell()], "alive")
    dead = {**processes.this_process(), "started": processes.started().rpartition("/")[0] + "/1"}
    record.create_submission(store, id="dead", request={}, environment={}, simulated=True, refused=[], process=dead)
    assert record.interrupt_dead_submissions(store) == ["dead"]
    assert queries.get_submission(store, "dead").state == "interrupted"
    assert queries.get_submission(store, "alive").state == "running"


def claim_all(url: str, cell_ids: list[str], pipe: Connection) -> None:
    store = open_store(url)
    claimant = Claimant.of_this_process("s1")
    pipe.send("ready")
    pipe.recv()
    won = [cell_id for cell_id in cell_ids if record.claim(store, cell_id, claimant).obtained]
    record.heartbeat(store, claimant.token, won)
    pipe.send(won)
    pipe.recv()


def test_eight_processes_obtain_fifty_cells_exactly_once(store: Store, store_url: str) -> None:
    cells = [planned_cell(fold, seed=seed) for seed in range(10) for fold in range(5)]
    submit(store, cells)
    pipes, crowd = [], []
    for _ in range(8):
        here, there = others.Pipe()
        crowd.append(others.Process(target=claim_all, args=(store_url, [cell.id for cell in cells], there)))
        pipes.append(here)
        crowd[-1].start()
    try:
        assert all(pipe.poll(120) and pipe.recv() == "ready" for pipe in pipes)
        for pipe in pipes:
            pipe.send("go")
        assert all(pipe.poll(120) for pipe in pipes)
        won = [pipe.recv() for pipe in pipes]
        assert sorted(cell_id for mine in won for cell_id in mine) == sorted(cell.id for cell in cells)
        assert rows(store, Attempt) == len(cells)
        for pipe in pipes:
            pipe.send("end")
    finally:
        for process in crowd:
            process.join(30)
            process.kill()


def add_same(url: str, pipe: Connection) -> None:
    store = open_store(url)
    pipe.send("ready")
    pipe.recv()
    submission = f"s-{os.getpid()}"
    submit(store, [planned_cell(fold, seed=seed) for seed in range(6) for fold in range(5)], submission)
    pipe.send(submission)


def test_submits_at_the_same_moment_share_their_cells(store: Store, store_url: str) -> None:
    pipes, crowd = [], []
    for _ in range(3):
        here, there = others.Pipe()
        crowd.append(others.Process(target=add_same, args=(store_url, there)))
        pipes.append(here)
        crowd[-1].start()
    assert all(pipe.poll(120) and pipe.recv() == "ready" for pipe in pipes)
    for pipe in pipes:
        pipe.send("go")
    assert all(pipe.poll(120) for pipe in pipes)
    for pipe in pipes:
        assert queries.get_submission(store, pipe.recv()).cells == {"planned": 30}
    assert rows(store, Cell) == 30
    for process in crowd:
        process.join(30)


def test_verification_names_every_hole(store: Store, tmp_path: Path) -> None:
    whole, changed, gone, short, planned = (planned_cell(fold) for fold in range(5))
    submit(store, [whole, changed, gone, short, planned])
    for cell in (whole, changed, gone, short):
        run_cell(store, tmp_path, cell)

    def file_of(cell_id: str) -> Path:
        return tmp_path / "cells" / cell_id[:2] / cell_id / "predictions" / "night1.bin"

    content = file_of(changed.id).read_bytes()
    file_of(changed.id).write_bytes(b"X" + content[1:])
    file_of(gone.id).unlink()
    file_of(short.id).write_bytes(content[:-1])
    expected = {cell.id: {("sim", name) for name in RECORDINGS} for cell in (whole, changed, gone, short, planned)}
    expected[whole.id] |= {("sim", "night3")}
    said = verify_done(store, tmp_path, list(expected), expected)
    assert said[whole.id] == [
        "no counts under rule full for sim/night3",
        "no counts under rule trim30 for sim/night3",
        "no predictions for sim/night3",
    ]
    assert len(said[changed.id]) == 1 and "checksum differs" in said[changed.id][0]
    assert len(said[gone.id]) == 1 and said[gone.id][0].endswith("night1.bin is gone")
    assert len(said[short.id]) == 1 and "bytes instead of" in said[short.id][0]
    assert said[planned.id] == ["the store has no done cell of this id"]
    assert verify_done(store, tmp_path, [whole.id, "no such"], None) == {
        whole.id: [],
        "no such": ["the store has no done cell of this id"],
    }


def test_a_cell_whose_files_are_gone_is_done_anew(store: Store, tmp_path: Path) -> None:
    cell = planned_cell()
    submit(store, [cell])
    assert not record.reset_cell(store, cell.id, "never done")
    run_cell(store, tmp_path, cell)
    assert record.reset_cell(store, cell.id, "weights are gone")
    assert [rows(store, table) for table in (Count, Curve, Artefact)] == [0, 0, 0]
    undone = only_record(store, cell.id)
    assert undone.state == "planned" and undone.attempts[0].error == "undone: weights are gone"
    run_cell(store, tmp_path, cell)
    assert [attempt.state for attempt in only_record(store, cell.id).attempts] == ["failed", "done"]


def test_verifying_a_hundred_cells_takes_less_than_a_second(store: Store, tmp_path: Path) -> None:
    cells = [planned_cell(fold, seed=seed) for seed in range(20) for fold in range(5)]
    submit(store, cells)
    for cell in cells:
        run_cell(store, tmp_path, cell)
    start = time.process_time()
    said = verify_done(store, tmp_path, [cell.id for cell in cells], None)
    assert time.process_time() - start < 1
    assert len(said) == 100 and not any(said.values())


def test_what_has_no_place_in_the_store_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="relative to TUSP_HOME"):
        record.ArtefactRow(path="../x", kind="weights", recording=None, sha256="", size_bytes=0)
    with pytest.raises(ValueError, match="5 x 5"):
        record.CountRow(corpus="c", recording="r", subject="s", rule="full", matrix=((1,),))
    scored = {"pass_number": 1, "train_loss": 1.0, "learning_rate": 0.1, "seconds": 1.0}
    unknown = {"validation_loss": None, "validation_accuracy": float("nan")}
    assert record.CurveRow(**scored, **unknown, validation_macro_f1=0.5).validation_accuracy is None
    with pytest.raises(ValueError, match="validation_macro_f1 is infinite"):
        record.CurveRow(**scored, **unknown, validation_macro_f1=float("inf"))
    with pytest.raises(ValueError, match="not finite"):
        record.CurveRow(**{**scored, "train_loss": float("nan")}, **unknown, validation_macro_f1=None)
    with pytest.raises(StoreError, match="there is no cell nowhere"):
        record.claim(store, "nowhere", Claimant.of_this_process("s1"))
    cell = planned_cell()
    submit(store, [cell])
    claimant = Claimant.of_this_process("s1")
    record.claim(store, cell.id, claimant)
    not_json = replace(outcome(tmp_path, cell, claimant.token), result={"accuracy": float("nan")})
    with pytest.raises(Exception, match="not JSON compliant"):
        record.record_done(store, not_json)
    assert only_record(store, cell.id).state == "running"
