"""Preparing nights while processes are killed, race for a night, or find the disk full."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from preparation_world import bytes_of, night, prepare, prepare_one, stored

from tusp.datasets.preparation import (
    PreparationSettings,
)
from tusp.datasets.prepared import SIGNALS, open_prepared
from tusp.platform.errors import DataError, UserError

PREPARE = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from night_adapter import NightAdapter, sources_of
from tusp.datasets.preparation import prepare_recordings
from tusp.datasets.recording import RecordingFiles
from tusp.platform.errors import UserError
if __name__ == "__main__":
    raw = Path({raw!r})
    adapter = NightAdapter(log=Path({log!r}), pause_at={pause_at!r}, pause_seconds={pause_seconds!r})
    nights = []
    for signals in sorted(raw.glob("*.edf")):
        files = RecordingFiles(name=signals.stem, subject="p1", signals=signals,
                               labels=signals.with_suffix(".json"), simulated=True)
        nights.append((files, sources_of(files)))
    try:
        done = prepare_recordings(adapter, nights, corpus="c", root=Path({root!r}), workers={workers!r})
    except UserError as error:
        print(error)
        raise SystemExit(2)
    print(len(done.recordings), done.refused)
"""


def script(
    tmp_path: Path, *, root: Path, workers: int = 1, pause_at: str | None = None, pause_seconds: float = 300.0
) -> Path:
    """A program that prepares everything in ``tmp_path / "raw"``."""
    path = tmp_path / f"prepare{workers}{pause_at}{pause_seconds}.py"
    path.write_text(
        PREPARE.format(
            path=[str(Path(__file__).parent)],
            raw=str(tmp_path / "raw"),
            log=str(tmp_path / "log"),
            root=str(root),
            workers=workers,
            pause_at=pause_at,
            pause_seconds=pause_seconds,
        )
    )
    return path


def wait_for(condition_holds: Any, seconds: float = 90) -> None:
    ends = time.monotonic() + seconds
    while not condition_holds():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.02)


def log_lines(tmp_path: Path) -> list[str]:
    log = tmp_path / "log"
    return log.read_text().splitlines() if log.exists() else []


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def test_a_kill_leaves_no_half_recording(tmp_path: Path) -> None:
    one = night(tmp_path / "raw")
    root = tmp_path / "store"
    process = subprocess.Popen([sys.executable, script(tmp_path, root=root, pause_at="C4")])
    wait_for(lambda: len(log_lines(tmp_path)) == 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = stored(root)
    assert [path.name[0] for path in left] == ["."], left
    assert (left[0] / SIGNALS).stat().st_size > 0
    with pytest.raises(DataError):
        open_prepared(left[0])
    # Another night's preparation sweeps it, its own one completes it.
    prepare_one(root, night(tmp_path / "other", "n2"))
    assert not left[0].exists()
    recording = prepare_one(root, one)
    assert bytes_of(recording.folder) == bytes_of(prepare_one(tmp_path / "fresh", one).folder)


def test_workers_die_with_a_killed_command(tmp_path: Path) -> None:
    for i in range(3):
        night(tmp_path / "raw", f"n{i}", seed=i)
    process = subprocess.Popen([sys.executable, script(tmp_path, root=tmp_path / "store", workers=2, pause_at="C3")])
    wait_for(lambda: len(log_lines(tmp_path)) == 2)
    workers = {int(line.split()[0]) for line in log_lines(tmp_path)}
    assert len(workers) == 2
    assert process.pid not in workers
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: all(gone(pid) for pid in workers))


def test_a_killed_worker_is_one_clear_line_and_the_next_run_completes(tmp_path: Path) -> None:
    nights = [night(tmp_path / "raw", f"n{i}", seed=i) for i in range(3)]
    root = tmp_path / "store"
    process = subprocess.Popen(
        [sys.executable, script(tmp_path, root=root, workers=2, pause_at="C4")],
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: len(log_lines(tmp_path)) == 4)
    os.kill(int(log_lines(tmp_path)[0].split()[0]), signal.SIGKILL)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 2
    assert "a worker process was killed" in output
    assert len(prepare(root, nights).recordings) == 3
    assert all(not path.name.startswith(".") for path in stored(root))


def test_two_commands_at_once_prepare_a_night_once(tmp_path: Path) -> None:
    one = night(tmp_path / "raw")
    program = script(tmp_path, root=tmp_path / "store", pause_at="E1", pause_seconds=1.0)
    processes = [subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert outputs == ["1 {}", "1 {}"]
    assert len(log_lines(tmp_path)) == 3, "read twice"
    assert len(stored(tmp_path / "store")) == 1
    prepare_one(tmp_path / "store", one)


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode != 0,
    reason="needs a mount namespace of its own for a small disk",
)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_one_clear_line_and_harms_nothing(tmp_path: Path, workers: int) -> None:
    for i in range(8):
        night(tmp_path / "raw", f"n{i}", seed=i)
    disk = tmp_path / "disk"
    disk.mkdir()
    program = script(tmp_path, root=disk / "store", workers=workers)
    # One night takes 0.2 MB.
    shell = (
        f"mount -t tmpfs -o size=1m tmpfs {disk} && {sys.executable} {program}; echo $?; "
        f"ls -A {disk}/store | grep -c part; cd {disk}/store && for f in [0-9a-f]*; do "
        f"{sys.executable} -c 'import sys; from pathlib import Path; "
        "from tusp.datasets.prepared import *; verify_prepared(open_prepared(Path(sys.argv[1]).absolute()))"
        f'; print("whole")\' $f; done'
    )
    result = subprocess.run(
        ["unshare", "-rm", "sh", "-c", shell], capture_output=True, text=True, timeout=200, check=False
    )
    lines = result.stdout.splitlines()
    assert "no space left on the disk" in lines[0], (lines, result.stderr)
    assert lines[1:3] == ["2", "0"], lines
    assert len(lines) > 4, lines
    assert set(lines[3:]) == {"whole"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_without_permission_is_one_clear_line(tmp_path: Path) -> None:
    one = night(tmp_path / "raw")
    (tmp_path / "store").mkdir(mode=0o500)
    with pytest.raises(UserError, match="no permission"):
        prepare(tmp_path / "store", [one])


def test_a_store_that_is_a_file_is_one_clear_line(tmp_path: Path) -> None:
    one = night(tmp_path / "raw")
    (tmp_path / "store").write_text("not a folder")
    with pytest.raises(UserError, match="not a folder"):
        prepare(tmp_path / "store" / "c", [one])


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(UserError, match="wake_margin_minutes = -1"):
        PreparationSettings(wake_margin_minutes=-1)
    with pytest.raises(UserError, match="clip_iqr = 0"):
        PreparationSettings(clip_iqr=0)
