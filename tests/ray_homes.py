"""Homes with prepared nights for tests on a real Ray, and looking at what was run there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tusp.platform.store.queries import CellRecord, SubmissionRecord, cell_records, list_submissions, submission_cells
from tusp.platform.store.session import Store, open_store

TUSP = [str(Path(sys.executable).with_name("tusp"))]
SUBMIT = ["submit", "--ablation", "csja", "--corpus", "nights", "--folds", "3", "--recipe", "smoke", "--no-mlflow"]


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "TUSP_HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0", "TUSP_DB": ""}


def tusp(home: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TUSP, *arguments], env=environment(home), capture_output=True, text=True, timeout=600, **options
    )


def start(
    home: Path, log: Path, arguments: Sequence[str] = SUBMIT, *, plugins: Path | None = None, **options: Any
) -> subprocess.Popen[bytes]:
    """Start tusp and return at once; ``plugins`` is a folder with installed packages."""
    variables = {**environment(home), **({"PYTHONPATH": str(plugins)} if plugins else {})}
    with log.open("wb") as stream:
        return subprocess.Popen([*TUSP, *arguments], env=variables, stdout=stream, stderr=stream, **options)


def wait_for(what: str, condition: Callable[[], Any], *, log: Path, seconds: float = 240) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come in {seconds} s:\n{log.read_text()[-3000:]}")


def store_of(home: Path) -> Store:
    return open_store(f"sqlite:///{home / 'tusp.db'}")


def newest(home: Path) -> SubmissionRecord:
    return list_submissions(store_of(home))[0]


def first_of(home: Path) -> SubmissionRecord:
    """The submission that ran the cells; later ones may have found them done."""
    return list_submissions(store_of(home))[-1]


def cells(home: Path) -> list[CellRecord]:
    store = store_of(home)
    ids = {cell.id for submission in list_submissions(store) for cell in submission_cells(store, submission.id)}
    return cell_records(store, sorted(ids))


def results(home: Path) -> dict[str, Any]:
    """Everything that must be the same to the last bit, by cell."""
    return {
        cell.id: {
            "counts": sorted((row.recording, row.rule, row.matrix) for row in cell.counts),
            "files": sorted(
                (Path(row.path).name, row.sha256) for row in cell.artefacts if row.kind in ("predictions", "weights")
            ),
            "curve": [
                (row.pass_number, row.train_loss, row.validation_loss, row.validation_macro_f1) for row in cell.curve
            ],
        }
        for cell in cells(home)
    }


def workers_of(driver: int) -> list[int]:
    """Processes of Ray Train workers below the driver's own Ray."""
    sessions = os.getsid(driver)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
                same = os.getsid(int(entry.name)) == sessions
            except OSError:
                continue
            if same and b"ray::RayTrainWorker" in command:
                found.append(int(entry.name))
    return found


def checkpoint_passes(home: Path) -> dict[str, int]:
    found = {}
    for path in home.glob("cells/*/*/checkpoint.json"):
        try:
            found[path.parent.name] = json.loads(path.read_text())["state"]["pass_number"]
        except FileNotFoundError:
            continue
    return found


@pytest.fixture(scope="session")
def prepared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which six short simulated nights are registered and prepared."""
    folder = tmp_path_factory.mktemp("nights")
    home = tmp_path_factory.mktemp("home")
    made = tusp(home, "datasets", "simulate", "sedf-sc", str(folder / "sc"), "--subjects", "6", "--hours", "2.5")
    assert made.returncode == 0, made.stderr
    added = tusp(home, "datasets", "add", "sedf-sc", str(folder / "sc"), "--name", "nights")
    assert added.returncode == 0, added.stderr
    dry = tusp(home, *SUBMIT, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "6 to run" in dry.stdout
    assert not list_submissions(store_of(home)), "a dry run records nothing"
    return home


@pytest.fixture(scope="session")
def whole_home(prepared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which one submission ran from beginning to end."""
    home = tmp_path_factory.mktemp("whole") / "home"
    shutil.copytree(prepared_home, home)
    done = tusp(home, *SUBMIT)
    assert done.returncode == 0, done.stderr
    assert "full − no-csja" in done.stdout
    return home


def plugin_of_arms(folder: Path, code: str) -> Path:
    """A folder with an installed package whose ablation ``faults`` is the function of that name in ``code``."""
    about = folder / "faults-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "faults.py").write_text(code)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: faults\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[tusp.ablations]\nfaults = faults:faults\n")
    return folder


def prepared_folders(home: Path, cell: CellRecord) -> dict[str, dict[str, str]]:
    """Where the nights of a cell lie, by corpus and recording."""
    return {
        entry["name"]: {
            name: str(next(home.glob(f"prepared/{entry['name']}/{fingerprint[:16]}*")))
            for role in ("train", "validation", "test")
            for name, fingerprint in entry[role].items()
        }
        for entry in cell.plan["corpora"]
    }
