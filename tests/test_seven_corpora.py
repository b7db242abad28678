"""All seven corpora in their original formats, from simulated files to the boards of one submission."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tusp.datasets.catalog import BUILT_IN

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1800)]

SUBMIT = ["submit", "--ablation", "csja", "--folds", "3", "--recipe", "smoke", "--no-mlflow"]
TRAINED = sorted(set(BUILT_IN) - {"dod-h", "dod-o"})


def tusp(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("tusp")), *arguments],
        env={**os.environ, "TUSP_HOME": str(home), "TUSP_DB": ""},
        capture_output=True,
        text=True,
        timeout=1500,
    )


def report(home: Path) -> list[dict[str, Any]]:
    done = tusp(home, "report", "--format", "json")
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout)["boards"])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the seven simulated corpora are registered: short nights of three people each."""
    folder = tmp_path_factory.mktemp("corpora")
    home = tmp_path_factory.mktemp("home")
    for name in BUILT_IN:
        made = tusp(home, "datasets", "simulate", name, str(folder / name), "--subjects", "3", "--hours", "0.75")
        assert made.returncode == 0, made.stderr
        added = tusp(home, "datasets", "add", name, str(folder / name))
        assert added.returncode == 0, added.stderr
    return home


def test_every_corpus_alone_in_one_submission(home: Path) -> None:
    done = tusp(home, *SUBMIT, *(part for name in BUILT_IN for part in ("--corpus", name)))
    assert done.returncode == 0, done.stderr[-3000:]
    boards = report(home)
    assert {board["judged_on"] for board in boards} == set(BUILT_IN)
    for board in boards:
        assert board["trained_on"] == [board["judged_on"]]
        assert board["simulated"] is True
        assert not board["holes"] and not board["refused"]
        people = {row["people"] for row in board["rows"]}
        assert people == {3}, "everybody is tested once"


def test_one_network_for_five_corpora_judged_on_seven(home: Path) -> None:
    """The corpora are not named: all that are registered take part, and the hold-outs are known as such."""
    done = tusp(home, *SUBMIT, "--experiment", "joint")
    assert done.returncode == 0, done.stderr[-3000:]
    boards = report(home)
    assert {board["judged_on"] for board in boards} == set(BUILT_IN)
    for board in boards:
        assert board["trained_on"] == TRAINED
        assert board["experiment"] == "joint"
        assert not board["holes"] and not board["refused"]
        arms = [row for row in board["rows"] if row["kind"] == "arm"]
        assert {row["name"] for row in arms} == {"full", "no-csja"}
        assert {row["people"] for row in arms} == {3}
        assert {row["folds_done"] for row in arms} == {3}
    again = tusp(home, *SUBMIT, "--experiment", "joint", "--json")
    assert again.returncode == 0, again.stderr[-3000:]
    assert "6 done already, 0 to run" in tusp(home, *SUBMIT, "--experiment", "joint", "--dry-run").stdout
