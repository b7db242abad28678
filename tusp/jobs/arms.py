"""Arms through Ray Tune: a fixed grid of corpus and arm, one trial each.

A trial holds no data and trains nothing itself; it puts its arm's state on Tune's record while the slots work on its
cells, so that arms show in Tune's results and in the Ray dashboard. What is left to do is decided by the store alone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune

from tusp.platform.leaving import UNSTOPPABLE

log = logging.getLogger(__name__)


def arm_key(corpus: str, arm: str) -> str:
    """Name of an arm on the board and in Tune."""
    return f"{corpus}/{arm}"


def arm_trial(config: Mapping[str, Any]) -> None:
    """The trial of one arm: report after every settled cell until all are."""
    board, arm, seen = config["board"], config["arm"], -1
    while True:
        state = ray.get(board.arm.remote(arm, seen))
        if state["settled"] != seen:
            seen = state["settled"]
            tune.report({key: state[key] for key in ("cells", "settled", "failed", "validation_macro_f1")})
        if state["settled"] == state["cells"] or state["closed"]:
            return


class ArmTrials:
    """The Tuner over all arms, in a thread of the driver."""

    def __init__(self, *, board: Any, arms: Sequence[str], concurrent: int, storage: Path, run: str) -> None:
        self.error: BaseException | None = None
        self._tuner = tune.Tuner(
            tune.with_resources(arm_trial, {"CPU": 0.01}),
            param_space={"board": board, "arm": tune.grid_search(list(arms))},
            tune_config=tune.TuneConfig(max_concurrent_trials=concurrent, reuse_actors=True),
            run_config=tune.RunConfig(name=f"{run}-arms", storage_path=str(storage), verbose=0),
        )
        self._thread = threading.Thread(target=self._run, name=f"{UNSTOPPABLE}arms", daemon=True)

    def start(self) -> None:
        """Start the trials; returns at once."""
        self._thread.start()

    def _run(self) -> None:
        try:
            self._tuner.fit()
        except Exception as error:
            log.debug("arms ended", exc_info=True)
            self.error = error

    def join(self, timeout: float) -> bool:
        """Wait for the end; whether it came."""
        self._thread.join(timeout)
        return not self._thread.is_alive()
