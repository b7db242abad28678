"""`tusp submit` as a function: corpora, preparation, plan, what is left to do, run, record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tusp.datasets.recording_preparation import PreparationSettings
from tusp.datasets.splits import corpus_of
from tusp.jobs.driver import Driver, Resources, Status, Watch
from tusp.jobs.job import forget_cell
from tusp.jobs.plan import CellTask, CorpusNights, Plan
from tusp.jobs.recipes import recipe_settings
from tusp.platform.environment import capture_environment, usable_cores
from tusp.platform.errors import UserError
from tusp.platform.files import disk_errors_named
from tusp.platform.identity import fingerprint
from tusp.platform.processes import this_process
from tusp.platform.settings import Settings
from tusp.platform.store.cancelling import CANCELLED
from tusp.platform.store.record import (
    add_cells,
    create_submission,
    finish_submission,
    interrupt_dead_submissions,
    reset_cell,
)
from tusp.platform.store.session import Store
from tusp.platform.store.verification import NOT_DONE, verify_done

Reuse = Literal["missing", "never", "only"]
Say = Callable[[str], None]
Tell = Callable[[str, int, int], None]
"""Progress of a stage of the work: its name, done, total."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The nights a request can use, and those it cannot."""

    corpora: Sequence[CorpusNights]
    refused: Sequence[dict[str, str]]
    embedded: bool


@dataclass(frozen=True, kw_only=True)
class Todo:
    """Which of a plan's cells are done already."""

    plan: Plan
    done: Sequence[CellTask]
    left: Sequence[CellTask]
    broken: dict[str, list[str]] = field(default_factory=dict)
    """Cells recorded as done whose files do not hold any more, and why."""


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """What became of a submission."""

    id: str
    state: str
    """``done``, ``failed`` or ``cancelled``."""
    ran: int
    reused: int
    failed: dict[str, str]
    """Cell to reason."""


def choose_corpora(
    store: Store, settings: Settings, names: Sequence[str], *, say: Say, tell: Tell
) -> tuple[list[str], bool]:
    """The corpora (or subsets) to run on: those named, else all registered ones, else the embedded simulated ones.

    Raises:
        UserError: a corpus is not registered, or has no such subset.
    """
    from tusp.datasets import catalog
    from tusp.datasets.subsets import choose

    registered = catalog.list_corpora(store)
    known = {corpus.name for corpus in registered}
    own = [corpus.name for corpus in registered if not corpus.embedded]
    wanted = list(dict.fromkeys(names)) or own
    if wanted:
        from tusp.datasets.simulation.embedded import EMBEDDED

        # Two ways to name one subset are one corpus of the request.
        wanted = list(dict.fromkeys(name if name in EMBEDDED else choose(store, name).label for name in wanted))
        if all(corpus_of(name) in known for name in wanted):
            return wanted, False
    else:
        say(
            "No corpus is registered: using the embedded SIMULATED corpora. Their results show how tusp works, not how "
            "well a network stages sleep. Register real nights with `tusp datasets add sedf-sc PATH`."
        )
    embedded = _embedded(store, settings, say=say, tell=tell)
    return wanted or embedded, not wanted


def _embedded(store: Store, settings: Settings, *, say: Say, tell: Tell) -> list[str]:
    from tusp.datasets import catalog
    from tusp.datasets.simulation.embedded import ensure_embedded

    with disk_errors_named("simulating the embedded corpora", settings.home):
        folders = ensure_embedded(settings, progress=lambda done, total, _: tell("simulate nights", done, total))
    registered = {corpus.name: corpus for corpus in catalog.list_corpora(store)}
    for name, folder in folders.items():
        old = registered.get(name)
        if old is None or Path(old.root) != folder:
            catalog.add_corpus(store, name=name, root=folder, embedded=True, replace=old is not None)
    return list(folders)


def choose_hold_out(store: Store, names: Sequence[str] | None) -> list[str] | None:
    """The corpora to hold out, by label; ``none`` alone holds none out, and None leaves it to the corpora themselves.

    Raises:
        UserError: a corpus is not registered.
    """
    from tusp.datasets.subsets import choose

    if not names:
        return None
    return [] if list(names) == ["none"] else [choose(store, name).label for name in names]


def refuse_shared_nights(store: Store, names: Sequence[str]) -> None:
    """Corpora that meet in one network may not hold the same nights: a person would train it and be judged by it.

    Raises:
        UserError: two of the corpora share a night.
    """
    from tusp.datasets import catalog

    shared = catalog.shared_nights(store, list(dict.fromkeys(corpus_of(name) for name in names)))
    if shared:
        more = f" (and {len(shared) - 1} more)" if len(shared) > 1 else ""
        raise UserError(f"{shared[0]}{more}; leave one of these corpora out")


def prepare_nights(
    store: Store,
    settings: Settings,
    names: Sequence[str],
    *,
    embedded: bool,
    tell: Tell,
    preparation: PreparationSettings | None = None,
) -> Prepared:
    """Have every usable night of the corpora (or subsets) in the prepared store.

    Raises:
        UserError: a corpus has no usable night, or the disk cannot be written.
    """
    from tusp.datasets import catalog
    from tusp.datasets.preparation import prepare_corpus
    from tusp.datasets.subsets import choose

    corpora, refused = [], []
    for name in names:

        def report(done: int, total: int, _: str, name: str = name) -> None:
            tell(f"prepare {name}", done, total)

        chosen = choose(store, name)
        # Its subset's nights are the corpus's: whatever is prepared once serves both.
        prepared = prepare_corpus(store, settings, chosen.corpus, progress=report, preparation=preparation)
        people = {row.name: row.subject for row in catalog.recordings(store, chosen.corpus)}
        refused += [
            {"corpus": name, "recording": recording, "reason": reason}
            for recording, reason in sorted(prepared.refused.items())
            # Who a recording refused on sight belongs to is not known: better named too often than lost.
            if not people.get(recording) or chosen.has(people[recording])
        ]
        recordings = [recording for recording in prepared.recordings if chosen.has(recording.subject)]
        if not recordings:
            raise UserError(f"{name}: no usable recording; see `tusp datasets audit {chosen.corpus}`")
        card = catalog.adapter_for(catalog.get_corpus(store, chosen.corpus)).card
        corpora.append(
            CorpusNights(name=name, simulated=prepared.simulated, recordings=recordings, hold_out=card.hold_out)
        )
    return Prepared(corpora=corpora, refused=refused, embedded=embedded)


def look_up(store: Store, settings: Settings, plan: Plan, *, reuse: Reuse) -> Todo:
    """Divide a plan's cells into those that are really done (row, counts, files with their checksums) and the rest."""
    if reuse == "never":
        return Todo(plan=plan, done=[], left=plan.tasks)
    problems = verify_done(
        store,
        settings.home,
        [task.cell.id for task in plan.tasks],
        {task.cell.id: task.judged for task in plan.tasks},
    )
    recorded = {task.cell.id for task in plan.tasks if not problems[task.cell.id]}
    broken = {
        task.cell.id: problems[task.cell.id] for task in plan.tasks if problems[task.cell.id] not in ([], [NOT_DONE])
    }
    return Todo(
        plan=plan,
        done=[task for task in plan.tasks if task.cell.id in recorded],
        left=[task for task in plan.tasks if task.cell.id not in recorded],
        broken=broken,
    )


def new_submission_id(request: dict[str, Any]) -> str:
    """A name that sorts by time: date, time and a few digits."""
    now = datetime.now(UTC)
    return f"{now:%Y%m%d-%H%M%S}-{fingerprint({'request': request, 'now': now.isoformat(), **this_process()})[:6]}"


def request_record(plan: Plan, corpora: Sequence[str], *, reuse: Reuse, embedded: bool) -> dict[str, Any]:
    """The resolved request as it is stored with the submission."""
    request = plan.request
    first = next(iter(plan.arms.values()))
    return {
        "ablation": request.ablation,
        "arms": {name: asdict(arm) for name, arm in first.items()},
        "corpora": list(corpora),
        "embedded": embedded,
        "experiment": request.experiment,
        "trained_together": [label.split("+") for label in plan.arms],
        "protocol": request.protocol,
        "folds": request.folds,
        "seeds": list(request.seeds),
        "split_seed": request.split_seed,
        "splits": {corpus: split.hash for corpus, split in plan.splits.items()},
        "recipe": request.recipe.name,
        "recipe_settings": recipe_settings(request.recipe),
        "reuse": reuse,
    }


def submit(
    store: Store,
    settings: Settings,
    todo: Todo,
    nights: Prepared,
    *,
    resources: Resources,
    reuse: Reuse,
    watch: Watch,
    recorded: Callable[[str, str], None],
    say: Say,
) -> Submitted:
    """Run what is left of a plan and record it as one submission.

    Args:
        watch: shown the state several times a second.
        recorded: called with (submission, cell) after a cell is in the store.

    Raises:
        UserError: ``reuse`` is ``only`` and nothing is done; no Ray; too few resources; the disk is full.
    """
    if reuse == "only" and not todo.done:
        raise UserError("--reuse only: no cell of this request is done yet; leave the option out to run them")
    for cell, problems in todo.broken.items():
        say(f"cell {cell[:12]} was done but does not hold any more ({problems[0]}): it is run again")
    interrupt_dead_submissions(store)
    plan = todo.plan
    request = request_record(plan, [corpus.name for corpus in nights.corpora], reuse=reuse, embedded=nights.embedded)
    submission = new_submission_id(request)
    create_submission(
        store,
        id=submission,
        request=request,
        environment=capture_environment(),
        simulated=plan.simulated,
        refused=nights.refused,
        process=this_process(),
    )
    state, cancelled = "interrupted", False
    try:
        left = _open_again(store, settings, todo, reuse)
        add_cells(store, submission, [task.cell for task in plan.tasks])
        status = Status(total=len(plan.tasks), reused=len(todo.done), done=len(todo.done))
        if left and reuse != "only":
            driver = Driver(
                store=store,
                settings=settings,
                submission=submission,
                tasks=left,
                resources=resources,
                status=status,
                watch=watch,
                recorded=lambda cell: recorded(submission, cell),
            )
            driver.run()
            cancelled = driver.cancelled
        state = "failed" if status.failed or status.done < status.total else "done"
    finally:
        if not cancelled:  # whoever called it off has said so
            finish_submission(store, submission, state)
    return Submitted(
        id=submission,
        state=CANCELLED if cancelled else state,
        ran=status.done - status.reused,
        reused=status.reused,
        failed=dict(status.failed),
    )


def _open_again(store: Store, settings: Settings, todo: Todo, reuse: Reuse) -> Sequence[CellTask]:
    """Cells to run; done ones among them (asked anew, or broken) are taken back first."""
    again = {task.cell.id for task in todo.left} if reuse == "never" else set(todo.broken)
    for cell in again:
        if reset_cell(store, cell, "run again on request" if reuse == "never" else todo.broken[cell][0]):
            forget_cell(settings.home, cell)
    return todo.left


def estimate_seconds(todo: Todo, resources: Resources) -> tuple[float, str]:
    """Seconds that the cells left may take, at most, and what the estimate rests on.

    One training step and one predicted window are timed on this machine's CPU, so this takes a few seconds.
    """
    from tusp.jobs.timing import not_measured, time_cell

    by_shape: dict[str, float] = {}
    total = 0.0
    for task in todo.left:
        shape = fingerprint([task.cell.plan["model"], task.cell.plan["recipe"], task.cell.corpus, task.judged_on])
        if shape not in by_shape:
            by_shape[shape] = time_cell(task)
        total += by_shape[shape]
    slots = usable_cores() // (resources.cpus_per_cell * resources.workers_per_cell)
    waves = max(1, min(slots, len(todo.left)))
    basis = [f"one step timed here with one thread, {waves} cells at a time, every pass used"]
    if not any(by_shape.values()):
        basis = ["baselines only, each takes seconds"]
    return total / waves, "; ".join([*basis, *not_measured(resources)])
