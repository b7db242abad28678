"""Things that go wrong on a real Ray: a cell that they happen to fails with its reason, the others are as ever."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ray_homes import (
    SUBMIT,
    cells,
    checkpoint_passes,
    environment,
    newest,
    plugin_of_arms,
    results,
    start,
    tusp,
    wait_for,
)

from tusp.platform.store.queries import CellRecord

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]

FAULTS = '''
import dataclasses

def faults(full, recipe):
    """One arm that works, one whose loss cannot stay finite, one that asks for more memory than can be addressed."""
    return {
        "full": full,
        "diverges": dataclasses.replace(full, recipe={"learning_rate": 1e30}),
        "too-large": dataclasses.replace(full, recipe={"window_epochs": 10**14}),
    }
'''


def processes_of(home: Path) -> list[str]:
    """Command lines of all processes that were started for a home, Ray's own among them."""
    found = []
    mark = f"TUSP_HOME={home}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
    return found


def assert_nothing_is_left_running(home: Path) -> None:
    end = time.monotonic() + 120
    while (left := processes_of(home)) and time.monotonic() < end:
        time.sleep(0.2)
    assert left == []


# --- cells that cannot be run, beside others that can ---


@dataclass(frozen=True)
class Run:
    home: Path
    status: int
    said: str
    damaged: Path

    @property
    def cells(self) -> list[CellRecord]:
        return cells(self.home)


@pytest.fixture(scope="module")
def faulty(prepared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One submission with a diverging arm, one that needs too much memory, and a night of a second corpus that is cut
    short while cells train on it."""
    folder = tmp_path_factory.mktemp("faults")
    home = folder / "home"
    shutil.copytree(prepared_home, home)
    made = tusp(home, "datasets", "simulate", "sedf-sc", str(folder / "more"), "--subjects", "3", "--nights", "1",
                "--hours", "2.5", "--seed", "7")  # fmt: skip
    assert made.returncode == 0, made.stderr
    added = tusp(home, "datasets", "add", "sedf-sc", str(folder / "more"), "--name", "more")
    assert added.returncode == 0, added.stderr

    log = folder / "log"
    arguments = ["faults" if word == "csja" else word for word in SUBMIT]
    driver = start(home, log, [*arguments, "--corpus", "more"], plugins=plugin_of_arms(folder / "plugin", FAULTS))

    def trains_on_more() -> CellRecord | None:
        passes = checkpoint_passes(home)
        return next((c for c in cells(home) if c.corpus == "more" and 0 < passes.get(c.id, 0) < 4), None)

    try:
        cell = wait_for("a training on the second corpus", trains_on_more, log=log)
        # It has its nights of training in memory; this one it reads at the end.
        night = next(iter(cell.plan["corpora"][0]["test"].values()))
        damaged = next(home.glob(f"prepared/more/{night[:16]}*")) / "signals.npy"
        os.truncate(damaged, damaged.stat().st_size // 2)
        status = driver.wait(timeout=600)
    finally:
        driver.kill()
    return Run(home=home, status=status, said=log.read_text(), damaged=damaged)


def test_what_can_be_run_is_done_and_what_cannot_fails_with_its_reason(faulty: Run) -> None:
    assert faulty.status == 1, faulty.said[-3000:]
    by_state = {(c.corpus, c.arm, c.fold): (c.state, c.error) for c in faulty.cells}
    assert len(by_state) == 18
    for (corpus, arm, _), (state, error) in by_state.items():
        if arm == "full" and corpus == "nights":
            assert (state, error) == ("done", None)
        elif arm == "diverges" and corpus == "nights":
            assert state == "failed"
            assert "loss became" in error
            assert "a lower learning rate" in error
        elif arm == "too-large" and corpus == "nights":
            assert state == "failed"
            assert "out of memory on cpu" in error
    damaged = [
        error for (corpus, arm, _), (_, error) in by_state.items() if (corpus, arm) == ("more", "full") and error
    ]
    assert damaged, "a night was cut short while cells trained on its corpus"
    assert all(f"{faulty.damaged.parent}: signals.npy has" in error for error in damaged)
    assert newest(faulty.home).state == "failed"


def test_every_failed_cell_is_named_with_its_reason_in_one_line(faulty: Run) -> None:
    failed = [cell for cell in faulty.cells if cell.state == "failed"]
    shown = tusp(faulty.home, "status", newest(faulty.home).id)
    for output in (faulty.said, shown.stdout):
        lines = [line for line in output.splitlines() if line.startswith("cell ") and " failed: " in line]
        assert sorted(lines) == sorted(f"cell {cell.id[:12]} failed: {cell.error}" for cell in failed)
    assert f"tusp: {len(failed)} of 18 cells failed" in faulty.said
    assert "Traceback" not in faulty.said


def test_logs_show_what_happened(faulty: Run) -> None:
    cell = next(cell for cell in faulty.cells if (cell.corpus, cell.arm) == ("nights", "diverges"))
    shown = tusp(faulty.home, "logs", cell.id[:10])
    assert shown.returncode == 0, shown.stderr
    assert f"cell {cell.id[:12]}" in shown.stdout
    assert "attempt on" in shown.stdout
    assert "failed: loss became" in shown.stdout
    assert "CellError" in shown.stdout, "the traceback"
    all_of_them = tusp(faulty.home, "logs", newest(faulty.home).id[:15], "--lines", "1")
    failed = sum(cell.state == "failed" for cell in faulty.cells)
    assert sum(line.startswith("cell ") for line in all_of_them.stdout.splitlines()) == failed


def test_cells_end_with_the_same_bits_beside_other_corpora(faulty: Run, whole_home: Path) -> None:
    expected, found = results(whole_home), results(faulty.home)
    same = [cell.id for cell in faulty.cells if cell.corpus == "nights" and cell.arm == "full"]
    assert len(same) == 3
    assert {cell: found[cell] for cell in same} == {cell: expected[cell] for cell in same}


# --- stopping ---

LATE_CALL = """
import threading
from tusp.jobs.cluster import connect

connect("local")
import ray

ray.shutdown()

def late():
    try:
        ray.put(1)
    except Exception as error:
        print(type(error).__name__)

thread = threading.Thread(target=late)
thread.start()
thread.join()
print(ray.is_initialized())
"""


def test_no_thread_starts_ray_again_after_its_end(tmp_path: Path) -> None:
    """Threads of Train and Tune outlive a submission that is called off; a second Ray would end the process early."""
    done = subprocess.run(
        [sys.executable, "-c", LATE_CALL], env=environment(tmp_path), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["RaySystemError", "False"]


def test_cancel_and_interrupt_stop_everything_and_lose_nothing(prepared_home: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(prepared_home, home)
    log = tmp_path / "log"

    driver = start(home, log)
    wait_for("a checkpoint", lambda: checkpoint_passes(home), log=log)
    cancelled = tusp(home, "cancel", newest(home).id)
    assert cancelled.returncode == 0, cancelled.stderr
    assert "is cancelled" in cancelled.stdout
    assert driver.wait(timeout=300) == 1
    assert "was cancelled; what is done is kept" in log.read_text()
    assert_nothing_is_left_running(home)
    assert newest(home).state == "cancelled"
    assert {cell.state for cell in cells(home)} <= {"planned", "done"}
    again = tusp(home, "cancel", newest(home).id)
    assert again.returncode == 2
    assert "is cancelled: only a running one can be cancelled" in again.stderr

    # Goes on from the checkpoints; then Ctrl-C, which reaches every process of the terminal.
    driver = start(home, log, start_new_session=True)
    wait_for("a continued cell", lambda: resumed(home), log=log)
    os.killpg(driver.pid, signal.SIGINT)
    assert driver.wait(timeout=300) == 130, log.read_text()[-3000:]
    assert "Interrupted. What is done is kept; the same command goes on from here." in log.read_text()
    assert "Traceback" not in log.read_text()
    assert_nothing_is_left_running(home)
    assert newest(home).state == "interrupted"
    assert {cell.state for cell in cells(home)} <= {"planned", "done"}


def resumed(home: Path) -> list[Any]:
    return [attempt for cell in cells(home) for attempt in cell.attempts if attempt.resumed_from_pass]
