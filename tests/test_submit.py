"""tusp submit on a real Ray: nothing is lost, nothing is done twice, and a cut run ends with the same bits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from ray_homes import SUBMIT, cells, checkpoint_passes, first_of, newest, results, start, tusp, wait_for, workers_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def test_every_cell_is_recorded_with_its_files(whole_home: Path) -> None:
    records = cells(whole_home)
    assert len(records) == 6
    for cell in records:
        assert cell.state == "done"
        assert [attempt.state for attempt in cell.attempts] == ["done"]
        assert cell.simulated
        assert {row.kind for row in cell.artefacts} == {"predictions", "weights", "history"}
        assert cell.attempts[0].environment["packages"]["torch"]


def test_an_identical_submit_runs_no_cell_and_starts_no_ray(whole_home: Path) -> None:
    before = results(whole_home)
    again = tusp(whole_home, *SUBMIT)
    assert again.returncode == 0, again.stderr
    assert "6 done already, 0 to run" in again.stdout
    assert "Ray dashboard" not in again.stderr
    assert results(whole_home) == before
    assert all(len(cell.attempts) == 1 for cell in cells(whole_home))


def test_another_ablation_reuses_the_cells_they_share(whole_home: Path) -> None:
    dry = tusp(whole_home, *["attention" if word == "csja" else word for word in SUBMIT], "--dry-run", "--json")
    assert dry.returncode == 0, dry.stderr
    planned = json.loads(dry.stdout)["cells"]
    assert len(planned) == 12
    assert {cell["arm"] for cell in planned if cell["state"] == "reused"} == {"full", "no-csja"}


def test_a_lost_artefact_is_noticed_and_its_cell_run_again(whole_home: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(whole_home, home)
    victim = sorted(home.glob("cells/*/*/predictions/*/*.safetensors"))[0]
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    again = tusp(home, *SUBMIT)
    assert again.returncode == 0, again.stderr
    assert "does not hold any more" in again.stdout
    assert "5 done already, 1 to run" in again.stdout
    assert results(home) == results(whole_home)
    assert newest(home).environment["running"]["slots"] == 1, "a cell has the same bits with another number of slots"
    if len(os.sched_getaffinity(0)) > 1:
        assert first_of(whole_home).environment["running"]["slots"] > 1


def test_killed_worker_killed_driver_and_two_submits_at_once_end_like_an_uncut_run(
    prepared_home: Path, whole_home: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(prepared_home, home)

    # A worker dies in the middle of a cell: its slot comes back and the cell goes on.
    log = tmp_path / "first.log"
    driver = start(home, log)
    wait_for("a checkpoint", lambda: checkpoint_passes(home), log=log)
    worker = wait_for("a worker", lambda: workers_of(driver.pid), log=log)[0]
    os.kill(worker, signal.SIGKILL)
    wait_for("a cut attempt", lambda: any(a.state == "cut" for c in cells(home) for a in c.attempts), log=log)

    # The driver dies with some cells done and one under way.
    wait_for("a finished cell", lambda: any(cell.state == "done" for cell in cells(home)), log=log)
    wait_for("a cell under way", lambda: any(0 < n < 4 for n in checkpoint_passes(home).values()), log=log)
    driver.kill()
    driver.wait()
    done_before = {cell.id: cell.attempts for cell in cells(home) if cell.state == "done"}
    assert done_before

    # Two submits at the same moment share what is left.
    logs = [tmp_path / "second.log", tmp_path / "third.log"]
    both = [start(home, log) for log in logs]
    for process, log in zip(both, logs, strict=True):
        assert process.wait(timeout=600) == 0, log.read_text()[-3000:]

    records = cells(home)
    assert results(home) == results(whole_home)
    for cell in records:
        states = [attempt.state for attempt in cell.attempts]
        assert states.count("done") == 1, "no cell is recorded twice"
        assert states[-1] == "done"
        if cell.id in done_before:
            assert cell.attempts == done_before[cell.id], "nothing finished is done again"
    assert any(attempt.resumed_from_pass for cell in records for attempt in cell.attempts)


def test_a_full_disk_is_one_line_and_loses_nothing(prepared_home: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small tmpfs: {mounted.stderr.strip()}")
    try:
        home = small / "home"
        shutil.copytree(prepared_home, home, ignore=shutil.ignore_patterns("prepared"))
        full = tusp(home, *SUBMIT)
        assert full.returncode == 2, full.stderr
        lines = [line for line in full.stderr.splitlines() if line.startswith("tusp: ")]
        assert len(lines) == 1
        assert "no space left" in lines[0]
        assert "Traceback" not in full.stderr
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert tusp(prepared_home, "datasets", "list").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ablation", "nothing"], "no ablation called 'nothing'; there are csja, se, attention"),
        (["--recipe", "nothing"], "no recipe called 'nothing'; there are standard, paper, quick, smoke"),
        (["--corpus", "nothing"], "corpus 'nothing' is not registered"),
        (["--folds", "9"], "9"),
        (["--seeds", "a"], "--seeds a: whole numbers"),
        (["--reuse", "only"], "--reuse only: no cell of this request is done yet"),
        (["--reuse", "often"], "--reuse often: must be missing, never or only"),
        (["--rule", "nothing"], "--rule nothing: must be one of full, trim30"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_status_2(prepared_home: Path, arguments: list[str], said: str) -> None:
    wrong = tusp(prepared_home, *SUBMIT, *arguments)
    assert wrong.returncode == 2
    assert said in wrong.stderr
    assert sum(line.startswith("tusp: ") for line in wrong.stderr.splitlines()) == 1
    assert "Traceback" not in wrong.stderr
