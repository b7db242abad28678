"""The whole way on real nights: 23 people of the UCD Sleep Apnea Database, one EEG channel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1800)]

DESCRIPTION = Path(__file__).resolve().parent.parent / "docs" / "examples" / "ucddb.toml"


def tusp(home: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("tusp")), *arguments],
        env={**os.environ, "TUSP_HOME": str(home), "TUSP_DB": ""},
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def board_of(shared_data: Path, tmp_path: Path, *options: str, without: str | None) -> dict[str, Any]:
    nights = shared_data / "psg" / "ucddb-24-people"
    if not nights.is_dir():
        pytest.skip(f"no real signals at {nights}")
    description = tmp_path / "ucddb.toml"
    text = DESCRIPTION.read_text(encoding="utf-8")
    if without:
        text = text.replace("exclude = []", f'exclude = ["{without}"]')
    description.write_text(text, encoding="utf-8")
    home = tmp_path / "home"
    tusp(home, "datasets", "add", "ucddb", str(nights), "--describe", str(description))
    tusp(home, "submit", "--ablation", "csja", "--corpus", "ucddb", "--folds", "5", "--no-mlflow", *options)
    report = json.loads(tusp(home, "report", "--format", "json", "--rule", "full"))
    (board,) = report["boards"]
    assert board["simulated"] is False
    return dict(board)


def test_wake_and_deep_sleep_of_real_people_are_told_apart_in_both_arms(shared_data: Path, tmp_path: Path) -> None:
    board = board_of(shared_data, tmp_path, "--recipe", "quick", without="ucd018")
    arms = [row for row in board["rows"] if row["kind"] == "arm"]
    assert {row["name"] for row in arms} == {"full", "no-csja"}
    for row in arms:
        f1 = {stage: scores["f1"]["value"] for stage, scores in row["stages"].items()}
        assert f1["W"] >= 0.92, f1
        assert f1["N3"] >= 0.92, f1
        assert f1["N1"] is None, "not scored, not 0"
        assert f1["N2"] is None
        assert f1["REM"] is None


def test_the_one_person_with_every_stage_is_shown_as_what_they_are(shared_data: Path, tmp_path: Path) -> None:
    board = board_of(shared_data, tmp_path, "--recipe", "smoke", without=None)
    for row in board["rows"]:
        f1 = {stage: scores["f1"]["value"] for stage, scores in row["stages"].items()}
        assert all(f1[stage] is not None for stage in ("N1", "N2", "REM"))
        # One person holds these stages, so no interval over people can be given for them.
        assert all(row["stages"][stage]["f1"]["low"] is None for stage in ("N1", "N2", "REM"))
