"""Simulated corpora on disk: which nights, in which processes, kept across interruptions."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from tusp.datasets.simulation.corpora import SIMULATED
from tusp.datasets.simulation.plan import SIMULATED_FLAG, NightPlan
from tusp.platform.errors import UserError
from tusp.platform.files import disk_errors_named, file_lock, write_json_atomic, write_text_atomic
from tusp.platform.identity import fingerprint

SIMULATION_VERSION: Final = 1
"""Raise it when the same seed gives other bytes."""

STATE_FOLDER: Final = ".simulation"
NOTE: Final = "SIMULATED.txt"

Progress = Callable[[int, int, str], None]
"""Called as ``progress(nights done, nights in all, name of the night)``."""


def simulate(
    corpus: str,
    destination: Path,
    *,
    subjects: int,
    seed: int,
    nights: int | None = None,
    hours: float | None = None,
    ambiguity: float = 1.0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write simulated nights in the corpus's original format.

    The same arguments give the same bytes, whatever the number of workers; person i is the same whoever else is asked
    for. Finished nights of an interrupted call with the same settings are kept. One call at a time works on a folder.

    Args:
        corpus: one of :data:`~tusp.datasets.simulation.corpora.SIMULATED`.
        destination: folder to write below; new, empty, or begun by an earlier call with the same settings.
        subjects: number of people.
        seed: of all chance.
        nights: nights of each person; by default as in the corpus (two in Sleep-EDF, one or two in SHHS, else one).
        hours: length of every recording; by default the corpus's own lengths.
        ambiguity: how unclear stages are: 1 as hard to score as real nights, 0 for signs of the true stage only.
        workers: processes (default: one a core).
        progress: told after every night.

    Returns:
        All files of the corpus, in order of their names.

    Raises:
        UserError: an argument is out of range, the destination holds other files, or cannot be written.
    """
    plans = _plans(corpus, subjects=subjects, seed=seed, nights=nights, hours=hours, ambiguity=ambiguity)
    request = {"corpus": corpus, "seed": seed, "hours": hours, "ambiguity": ambiguity, "simulation": SIMULATION_VERSION}
    if workers is not None and workers < 1:
        raise UserError(f"--workers {workers}: give at least 1")
    destination = Path(destination)
    with disk_errors_named("simulate", destination):
        _refuse_foreign(destination, request, plans)
        with file_lock(destination / STATE_FOLDER / "lock"):
            _refuse_foreign(destination, request, plans)
            _remove_parts(destination)
            write_json_atomic(destination / STATE_FOLDER / "request.json", request)
            write_text_atomic(destination / NOTE, _note(plans, request))
            missing = [plan for plan in plans if not _finished(plan, destination)]
            done = len(plans) - len(missing)
            for record in _run(missing, destination, workers):
                done += 1
                if progress is not None:
                    progress(done, len(plans), record)
            return sorted(path for plan in plans for path in _files(plan, destination))


def _plans(
    corpus: str, *, subjects: int, seed: int, nights: int | None, hours: float | None, ambiguity: float
) -> list[NightPlan]:
    if corpus not in SIMULATED:
        raise UserError(f"no simulation of {corpus!r}; there are {', '.join(SIMULATED)}")
    kind = SIMULATED[corpus]
    if not 1 <= subjects <= kind.most_subjects:
        raise UserError(f"--subjects {subjects}: give 1 to {kind.most_subjects} people of this corpus")
    if nights is not None and not 1 <= nights <= kind.most_nights:
        most = "1 night" if kind.most_nights == 1 else f"1 or {kind.most_nights} nights"
        raise UserError(f"--nights {nights}: a person of this corpus has {most}")
    if not 0 <= ambiguity <= 2:
        raise UserError(f"--ambiguity {ambiguity:g}: give 0 (clear) to 2; 1 is as hard to score as real nights")
    if seed < 0:
        raise UserError(f"--seed {seed}: give 0 or a positive number")
    if hours is not None and not (math.isfinite(hours) and 0.05 <= hours <= 23.5):
        raise UserError(f"--hours {hours:g}: give between 0.05 and 23.5")
    return [
        NightPlan(
            corpus=corpus,
            subject=subject,
            night=night,
            seed=seed,
            hours=None if hours is None else float(hours),
            ambiguity=float(ambiguity),
        )
        for subject in range(subjects)
        for night in range(1, (nights or kind.nights_of(corpus, subject, seed)) + 1)
    ]


def night_count(corpus: str, *, subjects: int, seed: int, nights: int | None = None) -> int:
    """How many nights :func:`simulate` makes with these arguments.

    Raises:
        UserError: an argument is out of range.
    """
    return len(_plans(corpus, subjects=subjects, seed=seed, nights=nights, hours=None, ambiguity=1.0))


def _refuse_foreign(destination: Path, request: dict[str, Any], plans: list[NightPlan]) -> None:
    """Only an empty folder or one of the same simulation will do."""
    if destination.exists() and not destination.is_dir():
        raise UserError(f"{destination} is a file; give a folder to write the simulated nights to")
    if not destination.is_dir():
        return
    state = destination / STATE_FOLDER / "request.json"
    begun = state.exists()
    if begun:
        try:
            found = json.loads(state.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{state} is damaged; give an empty or new folder") from error
        if found != request:
            raise UserError(
                f"{destination} holds a simulation with other settings ({_settings(found)}); "
                f"give a new folder or repeat those settings"
            )
    ours = [f"{STATE_FOLDER}/"]
    if begun:
        ours += [NOTE, *(prefix for plan in plans for prefix in SIMULATED[plan.corpus].prefixes(plan))]
    # the first look is at the top only: a home folder given by mistake holds millions of files
    top = {name.split("/")[0] for name in ours}
    starts = tuple(name for name in ours if "/" not in name)
    foreign = sorted(
        path.name
        for path in destination.iterdir()
        if path.name not in top and not path.name.startswith(starts) and not _is_part(path)
    )
    if not foreign and begun:
        inside = (path for path in destination.rglob("*") if path.is_file() and not _is_part(path))
        names = (path.relative_to(destination).as_posix() for path in inside)
        foreign = sorted(name for name in names if not name.startswith(tuple(ours)))
    if foreign:
        raise UserError(f"{destination} holds other files ({foreign[0]}); give an empty or new folder")


def _settings(request: Any) -> str:
    if not isinstance(request, dict):
        return "unknown"
    return ", ".join(f"{name} {value}" for name, value in sorted(request.items()) if value is not None)


def _is_part(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".part")


def _remove_parts(destination: Path) -> None:
    """Remove what a killed process left half-written (nobody else writes here while the lock is held)."""
    for path in destination.rglob(".*.part"):
        path.unlink(missing_ok=True)


def _marker(plan: NightPlan, destination: Path) -> Path:
    return destination / STATE_FOLDER / f"{plan.record}.json"


def _identity(plan: NightPlan) -> str:
    return fingerprint({"plan": plan, "simulation": SIMULATION_VERSION})


def _read_marker(plan: NightPlan, destination: Path) -> dict[str, int]:
    """Names (below the destination) and sizes of the night's finished files; empty when it is not finished."""
    try:
        marker = json.loads(_marker(plan, destination).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(marker, dict) or marker.get("plan") != _identity(plan):
        return {}
    files: dict[str, int] = marker["files"]
    return files


def _finished(plan: NightPlan, destination: Path) -> bool:
    files = _read_marker(plan, destination)
    return bool(files) and all(
        (destination / name).is_file() and (destination / name).stat().st_size == size for name, size in files.items()
    )


def _files(plan: NightPlan, destination: Path) -> list[Path]:
    return [destination / name for name in _read_marker(plan, destination)]


def _make(plan: NightPlan, destination: Path) -> str:
    """One night in one process; the marker comes last. Returns the night's name."""
    with disk_errors_named("simulate", destination):
        files = SIMULATED[plan.corpus].write(plan, destination)
        write_json_atomic(
            _marker(plan, destination),
            {
                "plan": _identity(plan),
                "files": {path.relative_to(destination).as_posix(): path.stat().st_size for path in files},
            },
        )
    return plan.record


def _run(plans: list[NightPlan], destination: Path, workers: int | None) -> Iterator[str]:
    """Make the nights; yields the name of each that is done."""
    processes = min(workers or len(os.sched_getaffinity(0)), len(plans))
    if processes <= 1:
        for plan in plans:
            yield _make(plan, destination)
        return
    # a forked child would inherit locks of threads that the parent may run (Ray, PyTorch)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        try:
            for future in as_completed([pool.submit(_make, plan, destination) for plan in plans]):
                yield future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "simulate: a worker process was killed (out of memory?); run again, perhaps with fewer --workers: "
                "finished nights are kept"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _note(plans: list[NightPlan], request: dict[str, Any]) -> str:
    people = len({plan.subject for plan in plans})
    nights = len({plan.night for plan in plans})
    hours = "" if request["hours"] is None else f" --hours {request['hours']:g}"
    if request["ambiguity"] != 1:
        hours += f" --ambiguity {request['ambiguity']:g}"
    corpus, seed = request["corpus"], request["seed"]
    return (
        "SIMULATED DATA, NOT RECORDINGS OF PEOPLE. The files below this folder were made by tusp "
        f"{metadata.version('tusp')} (simulation {SIMULATION_VERSION}) in the format of the corpus {corpus}: stages "
        "follow statistics measured on its real hypnograms, signals are synthetic. Both files of every night say "
        f"{SIMULATED_FLAG} in the header's recording identification, and results on them never meet results on real "
        f"nights in one table. Seed {seed}. Command: tusp datasets simulate {corpus} DEST --subjects {people} "
        f"--nights {nights} --seed {seed}{hours}\n"
    )
