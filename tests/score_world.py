"""Three nights with their truth and a perfect submission, for the tests of `tusp score`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import edfio
import numpy as np
import pytest

from tusp.dashboards.entries import EntryRow
from tusp.dashboards.scoring_outside import Outcome, score_outside
from tusp.platform.store.session import Store, open_store

# Unscored before and after: the labelled span is epochs 2 to 12 of 14.
NIGHT = [-1, -1, 0, 0, 1, 2, 2, 3, 3, 4, -1, 0, -1, -1]
SPAN = NIGHT[2:12]
NAMES = ("SC4001E0", "SC4002E0", "SC4011E0")


@pytest.fixture(name="store")
def store_fixture(tmp_path: Path) -> Store:
    return open_store(f"sqlite:///{tmp_path / 'home' / 'tusp.db'}")


@pytest.fixture(name="home")
def home_fixture(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture(name="truth")
def truth_fixture(tmp_path: Path) -> Path:
    folder = tmp_path / "truth"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.json").write_text(json.dumps(NIGHT))
    return folder


@pytest.fixture(name="given")
def given_fixture(tmp_path: Path) -> Path:
    """A submission that is right everywhere, as long as the labelled span."""
    folder = tmp_path / "given"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.json").write_text(json.dumps([max(0, code) for code in SPAN]))
    return folder


@pytest.fixture(name="scored")
def scored_fixture(store: Store, home: Path, truth: Path, given: Path) -> Callable[..., Outcome]:
    def score(**how: Any) -> Outcome:
        options: dict[str, Any] = {
            "predictions": given,
            "name": "net",
            "truth": truth,
            "rule": "full",
            "resamples": 50,
            **how,
        }
        return score_outside(store, home, options.pop("corpus", "sedf-sc"), **options)

    return score


def entry(outcome: Outcome) -> EntryRow:
    assert outcome.entry is not None
    return outcome.entry


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    message = str(error.value)
    assert message and "\n" not in message and len(message) <= 1200
    return message


def probabilities(codes: list[int]) -> np.ndarray:
    return np.eye(5)[codes] * 0.6 + 0.08


def write_npy(path: Path, array: np.ndarray) -> None:
    np.save(path, array, allow_pickle=True)


def write_edf(path: Path, codes: list[int]) -> None:
    labels = {-1: "Sleep stage ?", 0: "Sleep stage W", 1: "Sleep stage 1", 2: "Sleep stage 2", 3: "Sleep stage 4"}
    labels[4] = "Sleep stage R"
    notes = [edfio.EdfAnnotation(30.0 * i, 30.0, labels[code]) for i, code in enumerate(codes)]
    notes.append(edfio.EdfAnnotation(7.5, 1.0, "arousal"))
    edfio.Edf([], annotations=notes).write(path)


TEXTS = {-1: "?", 0: "W", 1: "N1", 2: "N2", 3: "N3", 4: "R"}
CODES = [max(0, code) for code in SPAN]
GRID = [max(0, code) for code in NIGHT]
