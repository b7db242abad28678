"""Several workers for one cell, on two machines of a Ray cluster: the loss curve of one, also after one was killed."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster
from ray_homes import (
    SUBMIT,
    cells,
    checkpoint_passes,
    newest,
    plugin_of_arms,
    prepared_folders,
    start,
    tusp,
    wait_for,
    workers_of,
)

from tusp.jobs.cell import run_cell
from tusp.jobs.job import CellJob
from tusp.platform.store.queries import CellRecord

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]

ARMS = """
def faults(full, recipe):
    return {"full": full}
"""


@pytest.fixture(scope="module")
def two_machines() -> Iterator[str]:
    """Address of a Ray cluster of two machines (on this one), neither with CPUs for two workers of two CPUs."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3})
    try:
        cluster.add_node(num_cpus=3)
        yield cluster.address
    finally:
        cluster.shutdown()


def leader_of(home: Path) -> int | None:
    """The process that wrote into the cells' logs: the first worker."""
    found = [re.search(r"process (\d+):", log.read_text()) for log in home.glob("cells/*/*/log.txt")]
    return next((int(match[1]) for match in found if match), None)


def test_two_workers_learn_what_one_learns_also_after_one_was_killed(
    two_machines: str, prepared_home: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(prepared_home, home)
    log = tmp_path / "log"
    arguments = [*("faults" if word == "csja" else word for word in SUBMIT), "--set", "precision=float32"]
    arguments += ["--set", "max_passes=2"]
    two = ["--workers-per-cell", "2", "--cpus-per-cell", "2", "--address", two_machines]
    driver = start(home, log, [*arguments, *two], plugins=plugin_of_arms(tmp_path / "plugin", ARMS))
    try:
        wait_for("a cell under way", lambda: any(n == 1 for n in checkpoint_passes(home).values()), log=log)
        follower = next(pid for pid in workers_of(driver.pid) if pid != leader_of(home))
        os.kill(follower, signal.SIGKILL)
        assert driver.wait(timeout=600) == 0, log.read_text()[-3000:]
    finally:
        driver.kill()

    assert newest(home).environment["running"]["workers_per_cell"] == 2
    records = cells(home)
    assert [cell.state for cell in records] == ["done"] * 3
    assert sorted(attempt.state for cell in records for attempt in cell.attempts) == ["cut", "done", "done", "done"]
    cut = next(cell for cell in records if len(cell.attempts) == 2)
    assert cut.attempts[1].resumed_from_pass
    for cell in records:
        assert cell.result["workers"] == 2
        assert cell.attempts[-1].environment["workers"] == 2
    # One that was cut and continued, and one that was not.
    for cell in (cut, next(cell for cell in records if cell is not cut)):
        assert_same_curve(cell, home, tmp_path / "alone")
    shown = tusp(home, "status", newest(home).id)
    assert "2 workers" in shown.stdout


def assert_same_curve(cell: CellRecord, home: Path, alone: Path) -> None:
    """Within the tolerance of docs/reproducibility.md."""
    job = CellJob(id=cell.id, plan=cell.plan, home=str(alone), nights=prepared_folders(home, cell))
    one = run_cell(replace(job, threads=2))
    for row, record in zip(one["curve"], cell.curve, strict=True):
        assert record.train_loss == pytest.approx(row["train_loss"], rel=1e-3)
        assert record.validation_loss == pytest.approx(row["validation_loss"], rel=1e-2)
        assert record.validation_macro_f1 == pytest.approx(row["validation_macro_f1"], abs=0.01)
    assert one["result"]["workers"] == 1


def test_cells_run_on_both_machines_with_the_results_of_one(
    two_machines: str, prepared_home: Path, tmp_path: Path
) -> None:
    """Two cells at a time, since each machine has room for one of two CPUs."""
    home = tmp_path / "home"
    shutil.copytree(prepared_home, home)
    done = tusp(home, *SUBMIT, "--cpus-per-cell", "2", "--address", two_machines)
    assert done.returncode == 0, done.stderr
    records = cells(home)
    assert [cell.state for cell in records] == ["done"] * 6
    assert newest(home).environment["running"]["slots"] == 2
    spans = sorted((cell.attempts[0].started_at, cell.attempts[0].finished_at) for cell in records)
    assert any(later[0] < earlier[1] for earlier, later in pairwise(spans)), "one after another"
    alone = CellJob(
        id=records[0].id,
        plan=records[0].plan,
        home=str(tmp_path / "alone"),
        nights=prepared_folders(home, records[0]),
        threads=2,
    )
    one = run_cell(alone)
    assert [row["train_loss"] for row in one["curve"]] == [row.train_loss for row in records[0].curve]
    assert {(row["recording"], row["rule"]): row["matrix"] for row in one["counts"]} == {
        (row.recording, row.rule): [list(line) for line in row.matrix] for row in records[0].counts
    }


def test_more_workers_than_a_batch_has_windows_are_refused(prepared_home: Path) -> None:
    refused = tusp(prepared_home, *SUBMIT, "--workers-per-cell", "3")
    assert refused.returncode == 2
    assert "--workers-per-cell 3: arm full has batches of 2 windows; each worker needs at least one" in refused.stderr
