"""Slots: Ray Train workers that are started once and fed cells.

Starting a worker costs 10 s and more (a process, torch, a process group), an idle actor call 5 ms. So a slot is a
worker whose training loop asks the board for the next cell until there is none. With ``--workers-per-cell N`` a slot is
N workers: the first one asks, records and predicts, and all of them train.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ray
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from tusp.jobs.board import SlotView
from tusp.jobs.cell import follow_cell, reason_of, run_cell
from tusp.jobs.celllog import ERROR, cell_log
from tusp.jobs.job import CellJob
from tusp.jobs.parallel import PeerError
from tusp.jobs.training import Progress
from tusp.platform.leaving import UNSTOPPABLE

log = logging.getLogger(__name__)
RESTARTS = 50
"""Restarts of one group before it is given up (a single cell is given up much earlier, see tusp.jobs.driver)."""

LONGEST_WAIT_SECONDS = 24 * 3600
"""A worker waits so long for the others of its cell. When one dies, the others know at once."""


@dataclass(frozen=True, kw_only=True)
class SlotResources:
    """What each worker of a slot holds while it runs."""

    cpus: float
    gpus: float
    workers: int = 1
    """Workers of one slot."""

    @property
    def ray(self) -> dict[str, float]:
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}


def _reporter(board: Any, slot: int, job: CellJob) -> Any:
    since = time.time()

    told = 0

    def report(progress: Progress, steps: int) -> None:
        nonlocal told
        last = progress.history[-1] if progress.history else None
        if last and last.pass_number > told:
            told = last.pass_number
            log.info(
                "pass %d: training loss %.4f, validation macro-F1 %.4f, %.1f s",
                *(last.pass_number, last.train_loss, last.validation_macro_f1, last.seconds),
            )
        loss = progress.loss_sum / progress.step if progress.step else (last.train_loss if last else None)
        view = SlotView(
            slot=slot,
            cell=job.id,
            pass_number=progress.pass_number,
            max_passes=job.plan["recipe"]["max_passes"],
            step=progress.step,
            steps=steps,
            loss=loss,
            validation_macro_f1=last.validation_macro_f1 if last else None,
            phase="predicting" if progress.finished else "training",
            since=since,
        )
        board.progress.remote(slot, view)

    return report


class _Leader:
    """The first worker of a slot, which speaks for it: alone, or with others that train the same cell."""

    def __init__(self, board: Any, slot: int, workers: int) -> None:
        self.board, self.slot, self.workers = board, slot, workers

    def run(self) -> None:
        """Run cells until the board says stop."""
        ray.get(self.board.join.remote(self.slot))
        while True:
            job = ray.get(self.board.next_job.remote(self.slot))
            if isinstance(job, CellJob):
                self._cell(job)
                continue
            # Also "wait": the others then never wait for longer than the board does.
            self._tell(job)
            if job == "stop":
                return

    def _tell(self, what: CellJob | str) -> None:
        if self.workers > 1:
            _from_first(what)

    def _cell(self, job: CellJob) -> None:
        with cell_log(job.folder):
            log.info(
                "attempt on %s, process %d: %s, %d threads, %d workers",
                socket.gethostname(),
                os.getpid(),
                job.device,
                job.threads,
                job.workers,
            )
            try:
                outcome = run_cell(
                    job,
                    report=_reporter(self.board, self.slot, job),
                    before_training=lambda: self._tell(job),
                )
            except Exception as error:  # noqa: BLE001 - whatever a cell dies of is recorded and the others go on
                _gave_up(self.board, self.slot, job, error)
                return
            log.info("complete: %d passes, the best is %d", outcome["result"]["passes"], outcome["result"]["best_pass"])
        (job.folder / ERROR).unlink(missing_ok=True)
        ray.get(self.board.finished.remote(self.slot, job.id, outcome))


def _from_first(what: CellJob | str | None) -> CellJob | str:
    """What the first worker of the slot says, in all of its workers."""
    said = [what]
    torch.distributed.broadcast_object_list(said, src=0, device=torch.device("cpu"))
    assert said[0] is not None
    return said[0]


def _follow(board: Any, slot: int, rank: int) -> None:
    """Train along in the cells of the slot's first worker until it says stop."""
    while True:
        job = _from_first(None)
        if job == "stop":
            return
        if isinstance(job, CellJob):
            try:
                follow_cell(job, rank=rank)
            except Exception as error:  # noqa: BLE001 - as in the first worker
                _gave_up(board, slot, job, error)


_LOST: Final = ("gloo", "NCCL", "Connection closed by peer", "Connection reset")
"""What torch's errors say of which another worker of the slot is the cause; gloo's are plain ``RuntimeError``."""


def _is_of_another(error: Exception) -> bool:
    """Whether the error only says that another worker failed or died, which has told why itself (or cannot)."""
    if isinstance(error, PeerError | torch.distributed.DistError | ConnectionError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _LOST)


def _gave_up(board: Any, slot: int, job: CellJob, error: Exception) -> None:
    """Keep the reason with the cell and tell the board.

    Raises:
        Exception: the same error, where several workers train the cell. They may be at different places now, and what
            one waits for the other will never send; Ray Train starts all of them anew.
    """
    if job.workers > 1 and _is_of_another(error):
        raise error
    trace = "".join(traceback.format_exception(error))
    reason = reason_of(error)
    log.error("failed: %s", reason)
    log.debug("cell %s\n%s", job.id, trace)  # in the worker's log, also when the disk is full
    with contextlib.suppress(OSError):
        (job.folder / ERROR).write_text(trace, encoding="utf-8")
    ray.get(board.failed.remote(slot, job.id, reason))
    if job.workers > 1:
        raise error


def slot_loop(config: Mapping[str, Any]) -> None:
    """The training loop of a worker: run cells, or train along in those of its slot, until the board says stop."""
    board, workers = config["board"], config["workers"]
    rank = ray.train.get_context().get_world_rank()
    if workers == 1:
        _Leader(board, config["first"] + rank, 1).run()
    elif rank == 0:
        _Leader(board, config["first"], workers).run()
    else:
        _follow(board, config["first"], rank)


class SlotGroup:
    """Slots ``first`` to ``first + size - 1``: one TorchTrainer, in a thread of the driver.

    A trainer brings three helper processes of its own, so slots of one worker share one; when a worker dies, Ray Train
    restarts the group, and every cell of it continues from its checkpoint. The ranks then never wait for one another:
    ``train.report`` is a barrier over ranks and therefore not used; progress goes through the board.

    A slot of several workers has a trainer to itself.
    """

    def __init__(
        self,
        *,
        first: int,
        size: int,
        board: Any,
        resources: SlotResources,
        storage: Path,
        run: str,
        restarts: int = RESTARTS,
    ) -> None:
        if resources.workers > 1 and size != 1:
            raise ValueError(f"{size} slots of {resources.workers} workers do not share a trainer")
        self.first, self.size = first, size
        self.error: BaseException | None = None
        self._trainer = TorchTrainer(
            slot_loop,
            train_loop_config={"board": board, "first": first, "workers": resources.workers},
            scaling_config=ScalingConfig(
                num_workers=size * resources.workers, use_gpu=resources.gpus > 0, resources_per_worker=resources.ray
            ),
            torch_config=TorchConfig(
                # Workers of different cells have nothing to reduce between them; gloo also lets several of them share
                # one GPU, which NCCL refuses. Workers of one cell talk through gloo too, and train through NCCL.
                backend="cpu:gloo,cuda:nccl" if resources.gpus and resources.workers > 1 else "gloo",
                # While the first worker predicts the test nights, the others wait for the next cell.
                timeout_s=LONGEST_WAIT_SECONDS,
            ),
            run_config=RunConfig(
                name=f"{run}-slots-{first}",
                storage_path=str(storage),
                failure_config=FailureConfig(max_failures=restarts),
            ),
        )
        self._thread = threading.Thread(target=self._run, name=f"{UNSTOPPABLE}slots-{first}", daemon=True)

    def start(self) -> None:
        """Start the workers; returns at once."""
        self._thread.start()

    def _run(self) -> None:
        try:
            self._trainer.fit()
        except Exception as error:
            log.debug("slots from %d ended", self.first, exc_info=True)
            self.error = error

    @property
    def alive(self) -> bool:
        """Its trainer still runs."""
        return self._thread.is_alive()

    def join(self, timeout: float) -> None:
        """Wait for the end."""
        self._thread.join(timeout)
