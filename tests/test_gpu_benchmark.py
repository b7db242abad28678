"""The GPU parts of benchmarks/training.py, as far as a processor shows them: they run alone and keep to their time."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

ALONE = """
import runpy, sys
for name in "scipy sqlalchemy safetensors pandas sklearn ray h5py mne mlflow matplotlib pydantic rich typer".split():
    sys.modules[name] = None  # importing it fails as where it is not installed
sys.path.insert(0, sys.argv[1])
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import training_gpu

    return training_gpu


def run(folder: Path, *arguments: str, alone: bool = False) -> dict[str, Any]:
    """training.json of a run on the CPU with the tiny network."""
    before = ["-c", ALONE, str(BENCHMARKS)] if alone else []
    command = [sys.executable, *before, str(BENCHMARKS / "training.py"), "--device", "cpu", "--threads", "1", "--tiny"]
    done = subprocess.run(
        [*command, "--folder", str(folder), *arguments], capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    values: dict[str, Any] = json.loads((folder / "training.json").read_text())
    return values


def test_steady_training_needs_torch_and_numpy_alone(tmp_path: Path) -> None:
    row = run(tmp_path, "--only", "steady", alone=True)["steady"]["not compiled"]
    assert 0 <= row["idle share"] < 1
    assert row["busy seconds a step"] > 0
    assert row["epochs/s"] == pytest.approx(16 / row["seconds a step"])


@pytest.mark.slow
def test_an_ablation_is_timed_with_what_sharing_found(tmp_path: Path) -> None:
    values = run(tmp_path, "--only", "sharing", "ablation")
    assert set(values["sharing"]["epochs_per_second"]) == {"1", "2"}
    assert values["ablation"]["at once"] == values["sharing"]["best"]
    assert values["ablation"]["finished"] == values["ablation"]["cells"] == 4
    assert values["ablation"]["whole"] == {"seconds": values["ablation"]["measured seconds"]}
    assert not values["ablation"]["failed"]


def test_parts_fit_into_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import training

    named = ("ceilings", "step", "sharing", "steady", "ablation", "inference", "others")
    assert tuple(training.GPU_PARTS)[: len(named)] == named
    assert sum(training.GPU_PARTS[part] for part in named) <= 9.5 * 60


def test_a_part_without_time_is_not_begun(tmp_path: Path) -> None:
    values = run(tmp_path, "--only", "steady", "--minutes", "0.1")
    assert set(values["steady"]) == {"not begun"}


def test_a_part_is_cut_and_may_ask_for_more_once(parts: ModuleType) -> None:
    began = time.monotonic()
    with parts.limited(0.05):
        with pytest.raises(parts.OutOfTimeError):
            time.sleep(60)
        parts.grant(0.05)
        with pytest.raises(parts.OutOfTimeError):
            time.sleep(60)
        with pytest.raises(parts.OutOfTimeError):
            parts.grant(60)
    assert time.monotonic() - began < 30


def test_what_several_kernels_do_at_once_counts_once(parts: ModuleType) -> None:
    assert parts.busy_seconds([(0, 2e6), (1e6, 3e6), (1.5e6, 1.6e6), (5e6, 6e6)]) == pytest.approx(4)
    assert parts.busy_seconds([]) == 0


def test_the_rest_of_an_ablation_is_extrapolated(parts: ModuleType) -> None:
    cut = [
        ("began", "a", 0.0, 100.0),
        ("progress", "a", 0.1, 110.0),  # 10 s until its first word: a tenth of its training is in them
        ("progress", "a", 0.4, 140.0),  # 100 s for all of it
    ]
    found = parts.estimate(cut, cells=10, workers=4)
    assert found["seconds a cell"] == pytest.approx(10 + 90)
    assert found["seconds"] == pytest.approx(3 * 100)  # 4, 4 and 2 cells at once
    assert "without predicting" in found["note"]
    whole = [*cut, ("trained", "a", 1.0, 200.0), ("done", "a", 1.0, 205.0)]
    found = parts.estimate(whole, cells=10, workers=5)
    assert found["seconds"] == pytest.approx(2 * (100 + 5))
    assert "note" not in found
    assert parts.estimate(cut[:2], cells=10, workers=4) == {"note": "too short to tell"}


def test_a_made_up_corpus_is_learnable_and_whole(parts: ModuleType, tmp_path: Path) -> None:
    nights = parts.made_up_corpus(tmp_path, parts.TINY)
    assert len(nights) == 5
    assert len({night.subject for night in nights}) == 4
    for night in nights:
        assert set(night.stages().tolist()) == set(range(5))
        assert night.groups == {"EEG": (0, 1), "EOG": (2,)}
        assert night.signals().shape == (3, 24 * 3840)
