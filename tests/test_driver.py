"""What the driver decides without Ray: how many slots, who runs which cell, what is left to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from store_helpers import planned_cell, submit

from tusp.jobs import driver as driver_module
from tusp.jobs.board import Event
from tusp.jobs.cluster import SLOTS_PER_GROUP, Cluster, groups, slot_count
from tusp.jobs.driver import MAX_CUTS, Driver, Resources, Status
from tusp.jobs.plan import CellTask
from tusp.platform.errors import StoreError, TuspError, UserError
from tusp.platform.settings import load_settings
from tusp.platform.store.cancelling import cancel_submission, is_cancelled
from tusp.platform.store.models import Attempt, Cell, utc_now
from tusp.platform.store.queries import get_submission
from tusp.platform.store.record import PlannedCell, claim
from tusp.platform.store.session import Store, open_store


def cluster(cpus: float, gpus: float = 0, *, local: bool = True) -> Cluster:
    return Cluster(address="local", dashboard_url=None, cpus=cpus, gpus=gpus, local=local)


# --- slots ---


@pytest.mark.parametrize(
    ("cpus", "per_cell", "cells", "slots"),
    [(3, 1, 20, 2), (3, 2, 20, 1), (2, 1, 20, 1), (9, 2, 20, 4), (65, 1, 5, 5), (3, 1, 1, 1)],
)
def test_slots_of_one_machine_by_its_cores(cpus: float, per_cell: float, cells: int, slots: int) -> None:
    """A local Ray is told of one CPU more than there are, for the arms."""
    assert slot_count(cluster(cpus), cpus=per_cell, gpus=0, cells=cells) == slots


@pytest.mark.parametrize(
    ("gpus", "per_cell", "slots"), [(1, 1, 1), (4, 1, 4), (1, 0.5, 2), (2, 0.5, 4), (1, 0.3, 3), (4, 2, 2), (8, 4, 2)]
)
def test_slots_by_gpus(gpus: float, per_cell: float, slots: int) -> None:
    assert slot_count(cluster(65, gpus), cpus=1, gpus=per_cell, cells=100) == slots


def test_the_scarcer_of_cores_and_gpus_decides() -> None:
    assert slot_count(cluster(5, 8), cpus=2, gpus=1, cells=100) == 2
    assert slot_count(cluster(65, 2), cpus=2, gpus=1, cells=100) == 2


def test_a_cluster_of_others_keeps_room_for_the_arms() -> None:
    assert slot_count(cluster(16, local=False), cpus=4, gpus=0, cells=100) == 3
    assert slot_count(cluster(17, local=False), cpus=4, gpus=0, cells=100) == 4


@pytest.mark.parametrize(("cpus", "gpus"), [(8, 0.0), (1, 1.0), (1, 0.5)])
def test_a_cell_that_fits_nowhere_is_refused_with_both_numbers(cpus: float, gpus: float) -> None:
    message = f"a cell asks for {cpus:g} CPUs and {gpus:g} GPUs, but local has 3 CPUs and 0 GPUs"
    with pytest.raises(UserError, match=message):
        slot_count(cluster(3), cpus=cpus, gpus=gpus, cells=1)


def test_a_worker_lies_on_one_machine_and_those_of_a_slot_on_several() -> None:
    """Three machines of 4 CPUs and one GPU, of which a tenth of a CPU is kept."""

    def slots(**asked: float) -> int:
        three = Cluster(address="x", dashboard_url=None, cpus=12, gpus=3, local=False, nodes=[(4, 1)] * 3)
        return slot_count(three, cells=100, **{"cpus": 1, "gpus": 0, **asked})  # type: ignore[arg-type]

    assert slots(cpus=1) == 9
    assert slots(cpus=2) == 3  # not the five that 12 CPUs would hold together
    assert slots(cpus=1, gpus=0.25) == 9
    assert slots(cpus=1, gpus=0.5) == 6
    assert slots(cpus=3, gpus=1, workers=3) == 1
    assert slots(cpus=1, workers=2) == 4
    with pytest.raises(UserError, match=r"2 CPUs and 1 GPUs for each of its 4 workers, but x has .* on 3 machines"):
        slots(cpus=2, gpus=1, workers=4)


@pytest.mark.parametrize("cells", [3, 7, 10])
def test_a_gpu_holds_as_many_cells_as_its_share_says(cells: int) -> None:
    """1 // 0.1 is 9."""
    assert slot_count(cluster(65, 2), cpus=1, gpus=1 / cells, cells=100) == 2 * cells


@pytest.mark.parametrize("slots", [1, 7, 8, 9, 16, 33])
def test_groups_hold_every_slot_once(slots: int) -> None:
    made = groups(slots)
    assert [slot for first, size in made for slot in range(first, first + size)] == list(range(slots))
    assert all(1 <= size <= SLOTS_PER_GROUP for _, size in made)


def test_planning_and_the_driver_load_neither_ray_nor_torch() -> None:
    code = (
        "import sys, tusp.jobs.driver, tusp.jobs.plan, tusp.jobs.submit, tusp.jobs.job\n"
        "print(sorted({'ray', 'torch', 'mlflow'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


# --- cells ---


class QuietBoard:
    """Takes what the driver tells the board and answers nothing; the record is the store's."""

    def __init__(self) -> None:
        self.settled: list[tuple[Any, ...]] = []
        self.handed: list[str] = []
        self.settle = SimpleNamespace(remote=lambda *what: self.settled.append(what))
        self.hand_out = SimpleNamespace(remote=lambda job: self.handed.append(job.id))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'tusp.db'}")
    yield opened
    opened.engine.dispose()


@pytest.fixture
def cells(store: Store) -> list[PlannedCell]:
    planned = [planned_cell(fold) for fold in range(3)]
    submit(store, planned, "s1")
    submit(store, planned, "s2")
    return planned


def driver(store: Store, home: Path, cells: Sequence[PlannedCell], submission: str = "s1", **resources: Any) -> Driver:
    made = Driver(
        store=store,
        settings=load_settings(home=home, environment={}, working_directory=home),
        submission=submission,
        tasks=[CellTask(cell=cell, nights={"sim": {"night1": home / "night1"}}) for cell in cells],
        resources=Resources(cpus_per_cell=2, **resources),
        status=Status(total=len(cells)),
        watch=lambda _: None,
        recorded=lambda _: None,
    )
    made._ray = SimpleNamespace(get=lambda answer: answer)
    made._board = QuietBoard()
    made._groups = []
    return made


def state_of(store: Store, cell: str) -> tuple[str, list[str]]:
    """State of the cell and of its attempts."""
    with store.session() as session:
        attempts = session.query(Attempt).filter_by(cell_id=cell).order_by(Attempt.number)
        found = session.get(Cell, cell)
        assert found is not None
        return found.state, [attempt.state for attempt in attempts]


def test_a_claimed_cell_becomes_a_job(store: Store, tmp_path: Path, cells: list[PlannedCell]) -> None:
    made = driver(store, tmp_path, cells)
    assert made._hand_out_next()
    assert made._board.handed == [cells[0].id]
    assert made.attempts == {cells[0].id: 1}
    job = made._claim(cells[1].id)
    assert job is not None
    assert (job.id, job.home, job.threads, job.device) == (cells[1].id, str(tmp_path), 2, "cpu")
    assert dict(job.plan) == cells[1].plan
    assert job.nights == {"sim": {"night1": str(tmp_path / "night1")}}


def test_two_submissions_never_run_the_same_cell(store: Store, tmp_path: Path, cells: list[PlannedCell]) -> None:
    one, other = driver(store, tmp_path, cells), driver(store, tmp_path, cells, "s2")
    one._hand_out_next()
    assert other._hand_out_next()
    assert other._hand_out_next()
    assert not other._hand_out_next()
    assert not one._hand_out_next()
    assert one._board.handed == [cells[0].id]
    assert other._board.handed == [cells[1].id, cells[2].id]
    assert other.others == {cells[0].id}
    assert one.others == {cells[1].id, cells[2].id}


def test_what_another_submission_released_is_taken_over(store: Store, tmp_path: Path, cells: list[PlannedCell]) -> None:
    one, other = driver(store, tmp_path, cells[:1]), driver(store, tmp_path, cells[:1], "s2")
    one._hand_out_next()
    assert not other._hand_out_next()
    one._release_all()
    assert state_of(store, cells[0].id) == ("planned", ["cut"])
    other._look_at_others()
    assert other._hand_out_next()
    assert other.attempts == {cells[0].id: 2}


@pytest.mark.parametrize("moment", ["claim", "record_done", "record_failed"])
def test_an_interruption_at_any_moment_leaves_no_cell_running(
    store: Store, tmp_path: Path, cells: list[PlannedCell], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    made = driver(store, tmp_path, cells[:2])
    outcome = {
        "result": {"validation_macro_f1": 0.5},
        "environment": {},
        "resumed_from_pass": None,
        **{name: [] for name in ("counts", "curve", "artefacts")},
    }
    real = getattr(driver_module, moment)

    def interrupted(*args: Any, **kwargs: Any) -> None:
        if moment == "claim":
            real(*args, **kwargs)  # in the store, and not yet in the driver's own books
        raise KeyboardInterrupt

    if moment != "claim":
        assert made._hand_out_next()
    monkeypatch.setattr(driver_module, moment, interrupted)
    with pytest.raises(KeyboardInterrupt):
        if moment == "claim":
            made._hand_out_next()
        else:
            kind = moment.removeprefix("record_")
            made._handle(SimpleNamespace(kind=kind, cell=cells[0].id, outcome=outcome, reason="none"))
    made._release_all()
    assert state_of(store, cells[0].id) == ("planned", ["cut"])
    assert state_of(store, cells[1].id) == ("planned", [])


def test_a_cell_that_was_taken_over_while_this_machine_slept_is_left_to_its_new_owner(
    store: Store, tmp_path: Path, cells: list[PlannedCell]
) -> None:
    one, other = driver(store, tmp_path, cells[:1]), driver(store, tmp_path, cells[:1], "s2")
    one._hand_out_next()
    later = utc_now() + timedelta(hours=1)
    assert claim(store, cells[0].id, other.claimant, now=later).obtained
    one._beat()
    assert one.attempts == {}
    assert one.others == {cells[0].id}
    one._handle(SimpleNamespace(kind="done", cell=cells[0].id, outcome={}))
    assert one.status.done == 0
    assert state_of(store, cells[0].id) == ("running", ["cut", "running"])


def test_a_cell_whose_worker_died_is_tried_again_first_and_then_given_up(
    store: Store, tmp_path: Path, cells: list[PlannedCell]
) -> None:
    made = driver(store, tmp_path, cells)
    cell = cells[0].id
    for attempt in range(1, MAX_CUTS + 1):
        assert made._hand_out_next()
        assert made._board.handed[-1] == cell
        assert made.attempts[cell] == attempt
        made._handle(Event(kind="cut", cell=cell))
    assert state_of(store, cell) == ("failed", ["cut"] * (MAX_CUTS - 1) + ["failed"])
    assert made.status.failed == {
        cell: f"its worker process died {MAX_CUTS} times (killed from outside, or out of memory)"
    }
    assert cell not in made.tasks
    assert made._hand_out_next()
    assert made._board.handed[-1] == cells[1].id


def test_a_failed_cell_is_recorded_with_its_reason_and_the_others_go_on(
    store: Store, tmp_path: Path, cells: list[PlannedCell]
) -> None:
    made = driver(store, tmp_path, cells)
    made._hand_out_next()
    made._handle(Event(kind="failed", cell=cells[0].id, reason="loss became nan"))
    assert state_of(store, cells[0].id) == ("failed", ["failed"])
    assert made.status.failed == {cells[0].id: "loss became nan"}
    assert made._board.settled == [(cells[0].id, "failed", None)]
    assert set(made.tasks) == {cells[1].id, cells[2].id}
    assert made.status.done == 0


def test_seconds_left_come_from_own_cells_and_slots(store: Store, tmp_path: Path, cells: list[PlannedCell]) -> None:
    made = driver(store, tmp_path, cells)
    assert made._seconds_left(2) is None
    made.own_seconds = [10.0, 20.0]
    assert made._seconds_left(0) is None
    assert made._seconds_left(1) == 45
    assert made._seconds_left(3) == 15
    made._hand_out_next()
    assert made._seconds_left(1) == 45 - 7.5


def test_lost_workers_end_the_submission_with_the_last_line_of_the_reason(
    store: Store, tmp_path: Path, cells: list[PlannedCell]
) -> None:
    made = driver(store, tmp_path, cells)
    made._groups = [SimpleNamespace(error=RuntimeError("a long story\nno space left"))]
    with pytest.raises(TuspError, match=r"the workers ended before the cells did \(no space left\)"):
        made._workers_lost()
    made._groups = [SimpleNamespace(error=None)]
    with pytest.raises(TuspError, match="no reason given"):
        made._workers_lost()


# --- resources ---


def test_gpus_are_as_asked_and_none_where_there_are_none(
    store: Store, tmp_path: Path, cells: list[PlannedCell]
) -> None:
    def gpus(found: float, asked: float | None = None, workers: int = 1) -> float:
        made = driver(store, tmp_path, cells, gpus_per_cell=asked, workers_per_cell=workers)
        return made._gpus_per_cell(cluster(9, found))

    assert gpus(0) == 0
    assert gpus(2, asked=0.25) == 0.25
    assert gpus(2, asked=0) == 0
    assert gpus(2, workers=2) == 1
    assert gpus(2, asked=1, workers=2) == 1
    with pytest.raises(UserError, match=r"--gpus-per-cell 0.5 with --workers-per-cell 2: .* give each of them one"):
        gpus(2, asked=0.5, workers=2)
    # As many GPUs as cells: nothing to measure.
    assert gpus(3) == 1
    noted = get_submission(store, "s1").environment["running"]
    assert noted["cells_per_gpu"] == 1
    assert "no more cells than GPUs" in noted["why"]


def test_more_workers_than_windows_are_refused_before_ray_starts(
    store: Store, tmp_path: Path, cells: list[PlannedCell]
) -> None:
    made = driver(store, tmp_path, cells, workers_per_cell=65)
    with pytest.raises(UserError, match="--workers-per-cell 65: arm full has batches of 64 windows"):
        made.run()


def test_workers_travel_with_the_job(store: Store, tmp_path: Path, cells: list[PlannedCell]) -> None:
    job = driver(store, tmp_path, cells, workers_per_cell=3)._claim(cells[0].id)
    assert job is not None
    assert job.workers == 3


def test_what_is_noted_stands_with_the_submission(store: Store, tmp_path: Path, cells: list[PlannedCell]) -> None:
    before = dict(get_submission(store, "s1").environment)
    made = driver(store, tmp_path, cells)
    made._note({"slots": 2})
    made._note({"why": "so"})
    assert get_submission(store, "s1").environment == {**before, "running": {"slots": 2, "why": "so"}}


# --- calling off ---


def test_the_driver_sees_that_its_submission_was_cancelled(
    store: Store, tmp_path: Path, cells: list[PlannedCell]
) -> None:
    made = driver(store, tmp_path, cells)
    made._board.poll = SimpleNamespace(remote=lambda: ([], 0, []))
    made._groups = [SimpleNamespace(alive=True)]
    made._turn()
    assert not made.cancelled
    cancel_submission(store, "s2")
    made._last_look = 0
    made._turn()
    assert not made.cancelled, "another one was"
    cancel_submission(store, "s1")
    made._last_look = 0
    made._turn()
    assert made.cancelled


def test_only_a_running_submission_is_cancelled(store: Store, cells: list[PlannedCell]) -> None:
    assert not is_cancelled(store, "s1")
    cancel_submission(store, "s1")
    assert is_cancelled(store, "s1")
    assert get_submission(store, "s1").finished_at is not None
    with pytest.raises(UserError, match="submission s1 is cancelled: only a running one can be cancelled"):
        cancel_submission(store, "s1")
    with pytest.raises(StoreError, match="there is no submission s9"):
        cancel_submission(store, "s9")
