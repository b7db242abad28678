"""The driver: claims cells, hands them to slots, records what comes back. It alone writes to the store."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tusp.jobs.cluster import Cluster, connect, groups, slot_count
from tusp.jobs.job import CellJob
from tusp.jobs.plan import CellTask
from tusp.platform.errors import TuspError, UserError
from tusp.platform.leaving import are_left
from tusp.platform.processes import this_process
from tusp.platform.settings import Settings
from tusp.platform.store.cancelling import is_cancelled, note_with_submission
from tusp.platform.store.queries import submission_cells
from tusp.platform.store.record import (
    ArtefactRow,
    CellOutcome,
    Claimant,
    CountRow,
    CurveRow,
    claim,
    heartbeat,
    record_done,
    record_failed,
    release,
    release_all,
)
from tusp.platform.store.session import Store

POLL_SECONDS = 0.2
HEARTBEAT_SECONDS = 15.0
OTHERS_SECONDS = 1.0
"""How often cells that another submission runs are looked at, and whether this one was called off."""

MAX_CUTS = 3
"""A cell whose worker process died so often in one submission is failed (out of memory, most likely)."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a cell may use."""

    address: str = "local"
    cpus_per_cell: int = 1
    gpus_per_cell: float | None = None
    """None: as a measurement on one of them says where the cluster has GPUs, none otherwise."""
    workers_per_cell: int = 1
    """Processes that train a cell together; CPUs and GPUs are of each of them."""


@dataclass(kw_only=True)
class Status:
    """Where a submission stands; shown live."""

    total: int
    reused: int = 0
    done: int = 0
    """Done in all, reused ones included."""
    failed: dict[str, str] = field(default_factory=dict)
    elsewhere: int = 0
    """Cells that another submission is running now."""
    running: Sequence[Any] = ()
    """What each slot does (tusp.jobs.board.SlotView)."""
    started: float = field(default_factory=time.monotonic)
    seconds_left: float | None = None
    dashboard_url: str | None = None
    note: str = ""


Watch = Callable[[Status], None]


class Driver:
    """Runs the cells of one submission that are not done.

    Args:
        tasks: the cells to run, in order; none of them done.
        status: updated as things happen and shown through ``watch``.
        recorded: called with a cell's id after it is in the store.
    """

    def __init__(
        self,
        *,
        store: Store,
        settings: Settings,
        submission: str,
        tasks: Sequence[CellTask],
        resources: Resources,
        status: Status,
        watch: Watch,
        recorded: Callable[[str], None],
    ) -> None:
        self.store, self.settings, self.submission = store, settings, submission
        self.tasks = {task.cell.id: task for task in tasks}
        self.queue = [task.cell.id for task in tasks]
        self.resources, self.status, self.watch, self.recorded = resources, status, watch, recorded
        process = this_process()
        self.claimant = Claimant(
            submission=submission,
            host=str(process["host"]),
            pid=int(process["pid"]),
            started=str(process["started"]),
            token=uuid.uuid4().hex,
        )
        self.attempts: dict[str, int] = {}
        """Cells claimed by us and not finished, with the number of the open attempt."""
        self.cuts: dict[str, int] = {}
        self.others: set[str] = set()
        """Cells that somebody else is running."""
        self.own_seconds: list[float] = []
        self.device, self.gpus = "cpu", 0.0
        self.cancelled = False
        """Somebody called the submission off."""
        self._running: dict[str, Any] = {}
        self._claimed_at: dict[str, float] = {}
        self._last_heartbeat = self._last_look = 0.0

    # --- the store ---

    def _claim(self, cell: str) -> CellJob | None:
        result = claim(self.store, cell, self.claimant)
        if not result.obtained:
            if result.state == "done":
                self._settled(cell, "done")
            else:
                self.others.add(cell)
            return None
        assert result.attempt_number is not None
        self.others.discard(cell)
        self.attempts[cell] = result.attempt_number
        self._claimed_at[cell] = time.monotonic()
        task = self.tasks[cell]
        return CellJob(
            id=cell,
            plan=task.cell.plan,
            home=str(self.settings.home),
            nights={corpus: {name: str(path) for name, path in n.items()} for corpus, n in task.nights.items()},
            device=self.device,
            threads=self.resources.cpus_per_cell,
            gpus=self.gpus,
            workers=self.resources.workers_per_cell,
        )

    def _record(self, cell: str, outcome: Mapping[str, Any]) -> None:
        record_done(
            self.store,
            CellOutcome(
                cell_id=cell,
                token=self.claimant.token,
                attempt=self.attempts.pop(cell),
                result=outcome["result"],
                counts=[CountRow(**{**row, "matrix": _tuples(row["matrix"])}) for row in outcome["counts"]],
                curve=[CurveRow(**row) for row in outcome["curve"]],
                artefacts=[ArtefactRow(**row) for row in outcome["artefacts"]],
                environment=outcome["environment"],
                resumed_from_pass=outcome["resumed_from_pass"],
            ),
        )
        self.own_seconds.append(time.monotonic() - self._claimed_at[cell])
        self._settled(cell, "done", outcome["result"]["validation_macro_f1"])
        self.recorded(cell)

    def _fail(self, cell: str, reason: str) -> None:
        record_failed(self.store, cell, self.claimant.token, self.attempts.pop(cell), reason, {})
        self.status.failed[cell] = reason
        self._settled(cell, "failed")

    def _settled(self, cell: str, state: str, score: float | None = None) -> None:
        self.tasks.pop(cell)
        self.others.discard(cell)
        if state == "done":
            self.status.done += 1
        self._ray.get(self._board.settle.remote(cell, state, score))

    def _release_all(self) -> None:
        release_all(self.store, self.claimant.token)
        self.attempts.clear()

    # --- the loop ---

    def run(self) -> Cluster:
        """Run until every cell is done or failed, here or elsewhere, or the submission is called off.

        Raises:
            UserError: no Ray, or a cell asks for more than it has, or for more workers than a batch has windows.
            TuspError: the workers could not be kept running.
        """
        self._refuse_small_batches()
        cluster = connect(self.resources.address)
        import ray

        self._ray = ray
        self.status.dashboard_url = cluster.dashboard_url
        try:
            self._start(cluster)
            while self.tasks and not self.cancelled:
                self._turn()
                self.watch(self.status)
                time.sleep(POLL_SECONDS)
            if not self.cancelled:
                self._finish()
        finally:
            try:
                self._release_all()
            finally:
                # A submission that is called off, or ends with an error, leaves threads of Train and Tune behind. Their
                # next call after a shutdown would end this process without a word; so Ray stays as long as it does.
                if not are_left():
                    ray.shutdown()
        return cluster

    def _refuse_small_batches(self) -> None:
        workers = self.resources.workers_per_cell
        for task in self.tasks.values():
            batch = task.cell.plan["recipe"]["batch_size"]
            if batch < workers:
                raise UserError(
                    f"--workers-per-cell {workers}: arm {task.cell.arm} has batches of {batch} windows; each worker "
                    "needs at least one"
                )

    def _start(self, cluster: Cluster) -> None:
        from tusp.jobs.arms import ArmTrials, arm_key
        from tusp.jobs.board import Board
        from tusp.jobs.slots import RESTARTS, SlotGroup, SlotResources

        cpus, workers = self.resources.cpus_per_cell, self.resources.workers_per_cell
        gpus = self._gpus_per_cell(cluster)
        self.device, self.gpus = ("cuda" if gpus else "cpu"), gpus
        slots = slot_count(cluster, cpus=cpus, gpus=gpus, cells=len(self.tasks), workers=workers)
        self._note({"slots": slots, "workers_per_cell": workers, "cpus_per_cell": cpus, "gpus_per_cell": gpus})
        arms: dict[str, list[str]] = {}
        for cell, task in self.tasks.items():
            arms.setdefault(arm_key(task.cell.corpus, task.cell.arm), []).append(cell)
        self._board = Board.remote(arms)  # type: ignore[attr-defined]
        storage = self.settings.home / "ray"
        self._groups = [
            SlotGroup(
                first=first,
                size=size,
                board=self._board,
                resources=SlotResources(cpus=cpus, gpus=gpus, workers=workers),
                storage=storage,
                run=self.submission,
                # A slot of several workers also starts anew when a cell fails.
                restarts=RESTARTS + (len(self.tasks) if workers > 1 else 0),
            )
            for first, size in (groups(slots) if workers == 1 else [(slot, 1) for slot in range(slots)])
        ]
        for group in self._groups:
            group.start()
        self._arms = ArmTrials(
            board=self._board,
            arms=list(arms),
            # They only report, and each is a process: on one machine they take turns at that.
            concurrent=1 if cluster.local else len(arms),
            storage=storage,
            run=self.submission,
        )
        self._arms.start()

    def _note(self, notes: Mapping[str, Any]) -> None:
        """Keep with the submission how its cells are run."""
        self._running |= notes
        note_with_submission(self.store, self.submission, {"running": self._running})

    def _gpus_per_cell(self, cluster: Cluster) -> float:
        """GPUs of one worker: as asked, or as many cells on each GPU as train the most together.

        Raises:
            UserError: several workers for a cell and less than a GPU for each.
        """
        asked, workers = self.resources.gpus_per_cell, self.resources.workers_per_cell
        if asked is not None:
            if workers > 1 and 0 < asked < 1:
                raise UserError(
                    f"--gpus-per-cell {asked:g} with --workers-per-cell {workers}: workers of one cell cannot share a "
                    "GPU; give each of them one (--gpus-per-cell 1)"
                )
            return asked
        if cluster.gpus < 1:
            return 0.0
        if workers > 1:
            return 1.0
        from tusp.jobs.sharing_on_ray import share_gpus

        sharing = share_gpus(
            cluster,
            home=self.settings.home,
            tasks=list(self.tasks.values()),
            cpus_per_cell=self.resources.cpus_per_cell,
            say=self._say,
        )
        self._note({"cells_per_gpu": sharing.cells_per_gpu, "why": sharing.reason})
        self._say(f"Cells on each GPU: {sharing.reason}")
        return sharing.gpus_per_cell

    def _say(self, line: str) -> None:
        self.status.note = line
        self.watch(self.status)

    def _turn(self) -> None:
        events, free, views = self._ray.get(self._board.poll.remote())
        for event in events:
            self._handle(event)
        for _ in range(free):
            if not self._hand_out_next():
                break
        now = time.monotonic()
        if now - self._last_look > OTHERS_SECONDS:
            self._last_look = now
            self.cancelled = is_cancelled(self.store, self.submission)
            if self.others:
                self._look_at_others()
        if self.attempts and now - self._last_heartbeat > HEARTBEAT_SECONDS:
            self._last_heartbeat = now
            self._beat()
        if self.tasks and not any(group.alive for group in self._groups):
            self._workers_lost()
        self.status.elsewhere = len(self.others)
        self.status.running = [view for view in views if view.cell]
        self.status.seconds_left = self._seconds_left(len(self._groups) and len(views))

    def _beat(self) -> None:
        for lost in heartbeat(self.store, self.claimant.token, list(self.attempts)):
            # This machine slept too long and another submission took the cell over; theirs will be recorded.
            del self.attempts[lost]
            self.others.add(lost)

    def _handle(self, event: Any) -> None:
        if event.cell not in self.attempts:
            return  # lost to somebody else meanwhile
        if event.kind == "done":
            self._record(event.cell, event.outcome)
        elif event.kind == "failed":
            self._fail(event.cell, event.reason)
        else:
            self.cuts[event.cell] = self.cuts.get(event.cell, 0) + 1
            if self.cuts[event.cell] >= MAX_CUTS:
                self._fail(
                    event.cell, f"its worker process died {MAX_CUTS} times (killed from outside, or out of memory)"
                )
            else:
                # A new attempt of ours, from the checkpoint, ahead of everything else.
                release(self.store, event.cell, self.claimant.token)
                del self.attempts[event.cell]
                self.queue.insert(0, event.cell)

    def _hand_out_next(self) -> bool:
        while self.queue:
            job = self._claim(self.queue.pop(0))
            if job is not None:
                self._ray.get(self._board.hand_out.remote(job))
                return True
        return False

    def _look_at_others(self) -> None:
        """Cells that others ran: take what they finished, and what they left behind when a slot is free."""
        states = {cell.id: cell.state for cell in submission_cells(self.store, self.submission)}
        for cell in list(self.others):
            if states[cell] == "done":
                self._settled(cell, "done")
            elif states[cell] != "running":
                self.others.discard(cell)
                self.queue.append(cell)
        if self.others and not self.queue:
            # One look at whether its runner is still alive; claim() decides.
            self.queue.append(self.others.pop())

    def _workers_lost(self) -> None:
        reasons = [
            (str(group.error).strip().splitlines() or [type(group.error).__name__])[-1]
            for group in self._groups
            if group.error
        ]
        raise TuspError(
            f"the workers ended before the cells did ({reasons[0] if reasons else 'no reason given'}); "
            "what is done is kept: submit again to go on"
        )

    def _seconds_left(self, slots: int) -> float | None:
        if not self.own_seconds or not slots:
            return None
        mean = sum(self.own_seconds) / len(self.own_seconds)
        left = len(self.tasks) * mean
        # Half of what is under way is done, on average.
        return max(0.0, left - 0.5 * mean * len(self.attempts)) / slots

    def _finish(self) -> None:
        self._ray.get(self._board.close.remote())
        self.watch(self.status)
        if not self._arms.join(20) or self._arms.error:
            reason = type(self._arms.error).__name__ if self._arms.error else "no answer in 20 s"
            self.status.note = (
                f"Ray Tune's record of the arms is incomplete ({reason}); cells and store are not affected"
            )
            self.watch(self.status)
        for group in self._groups:
            group.join(20)


def _tuples(matrix: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in matrix)
