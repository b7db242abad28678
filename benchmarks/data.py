"""How fast nights are prepared, windows are read and large corpora are handled, side by side with plain scripts.

    python benchmarks/data.py [--only nights|cores|windows|index] [--folder DIR] [--rounds 7] [--json FILE]

Run it several times on a quiet machine; every comparison is made in turns within one run, so that other work on the
machine slows both sides. CPU time is printed beside wall time: it is what a core spends, whoever else uses the machine.

- ``nights``: four simulated 8-hour nights of sedf-st, three channels, files in the page cache. tusp's whole
  `prepare_recording` (labels, checks, checksum, flush to disk) on one core, against a plain script: MNE reads the
  channels, SciPy resamples them to 128 Hz, clip at 20 inter-quartile ranges, robust scale, `numpy.save`.
- ``cores``: the same nights in one process and in one process a core at the same time, in turns: seconds a night,
  beside what plain arithmetic and plain writing lose when every core does it; and peak memory, early and late.
- ``windows``: random windows of 31 epochs x 2 channels from a prepared store larger than the processor's cache: as
  views of nights that are held in memory (every byte summed, or converted to float32), gathered from them as float16,
  read from the files, and as training takes them; against the speed at which this machine reads and copies memory.
- ``index``: 10,000 nights of SHHS, one epoch each: files, labels and names are real, signals as short as they can be.
  Registering, registering again, listing, looking again and splitting by people; and the store's part of it alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np

from tusp.datasets.prepared import SAMPLES_PER_EPOCH, PreparedRecording, write_prepared
from tusp.datasets.recording import Adapter, RecordingFiles
from tusp.datasets.recording_preparation import PreparationSettings, preparation_identity, prepare_recording
from tusp.platform.environment import cpu_model, usable_cores

WINDOW = 31
CHANNELS = ("EEG Fpz-Cz", "EEG Pz-Oz", "EOG horizontal")
N_NIGHTS_OF_INDEX = 10_000


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - wall, time.process_time() - cpu


def median(values: list[float]) -> float:
    return statistics.median(values)


@contextmanager
def scratch(folder: Path | None) -> Iterator[Path]:
    """A folder for everything, removed at the end unless it was named."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="tusp-data-") as made:
        yield Path(made)


# Preparing nights


def simulated_nights(folder: Path) -> tuple[Adapter, list[RecordingFiles]]:
    """Four nights of 8 hours, their files in the page cache."""
    from tusp.datasets.corpora.sedf_st import SedfSt
    from tusp.datasets.simulation import simulate

    raw = folder / "sedf-st"
    if not raw.exists():
        simulate("sedf-st", raw, subjects=2, seed=0, hours=8)
    adapter = SedfSt()
    nights = list(adapter.discover(raw).recordings)
    for night in nights:
        for path in night.files.values():
            path.read_bytes()
    return adapter, nights


def prepare(adapter: Adapter, night: RecordingFiles, root: Path) -> PreparedRecording:
    """As `tusp submit` prepares a night that is not there yet."""
    chosen = PreparationSettings()
    identity = preparation_identity(
        adapter,
        recording=night.name,
        subject=night.subject,
        simulated=night.simulated,
        source_sha256s=["0" * 64],
        preparation=chosen,
    )
    return prepare_recording(
        adapter, night, corpus="bench", destination_root=root, identity=identity, preparation=chosen
    )


def plain_script(signals: Path, destination: Path) -> None:
    """What one would write with MNE and SciPy: no labels, no checks, nothing flushed."""
    import mne
    from scipy.signal import resample_poly

    raw = mne.io.read_raw_edf(signals, include=list(CHANNELS), verbose="error")
    data = raw.get_data() * 1e6
    prepared = []
    for x in data:
        y = resample_poly(x, 32, 25)
        low, middle, high = np.percentile(y, (25, 50, 75))
        y = np.clip(y, middle - 20 * (high - low), middle + 20 * (high - low))
        prepared.append((y - middle) / (high - low))
    np.save(destination, np.array(prepared, np.float32))


def nights(folder: Path, rounds: int) -> dict[str, Any]:
    """One core, in turns."""
    adapter, recordings = simulated_nights(folder)
    root, saved = folder / "prepared", folder / "plain.npy"
    ours: list[tuple[float, float]] = []
    plain: list[tuple[float, float]] = []
    prepare(adapter, recordings[0], root)  # imports
    plain_script(recordings[0].signals, saved)
    for _ in range(rounds):
        shutil.rmtree(root, ignore_errors=True)
        for night in recordings:
            ours.append(timed(lambda night=night: prepare(adapter, night, root)))
            plain.append(timed(lambda night=night: plain_script(night.signals, saved)))
    result = {}
    for kind, at in (("wall", 0), ("cpu", 1)):
        mine, theirs = [pair[at] for pair in ours], [pair[at] for pair in plain]
        result[kind] = {
            "tusp_s": median(mine),
            "tusp_least_s": min(mine),
            "plain_s": median(theirs),
            "plain_least_s": min(theirs),
            "ratio": median([b / a for a, b in zip(mine, theirs, strict=True)]),
        }
    print(f"\nOne 8-hour night, three channels, one core; median of {len(ours)} nights in turns (least)")
    print("| | tusp | MNE + SciPy script | ratio, pair by pair |\n|---|---|---|---|")
    for kind, row in result.items():
        print(
            f"| {kind} s | {row['tusp_s']:.3f} ({row['tusp_least_s']:.3f}) |"
            f" {row['plain_s']:.3f} ({row['plain_least_s']:.3f}) | {row['ratio']:.2f} |"
        )
    return result


# Several cores


def _arithmetic() -> None:
    """Half a second of products of matrices that the first cache holds: what cores can do that share nothing."""
    matrix = np.full((64, 64), 0.5, dtype=np.float32)
    for _ in range(50_000):
        np.dot(matrix, matrix)


def _copying() -> None:
    """Half a second of writing to memory that no cache holds."""
    source = np.ones(2**23, dtype=np.float32)
    target = np.empty_like(source)
    for _ in range(50):
        np.multiply(source, 1.5, out=target)


def _worker(
    folder: Path, number: int, rounds: int, barrier: Barrier, results: multiprocessing.Queue[tuple[int, list[Any]]]
) -> None:
    adapter, recordings = simulated_nights(folder)
    root = folder / f"worker-{number}"
    shutil.rmtree(root, ignore_errors=True)
    made = 0

    def some_nights() -> None:
        nonlocal made
        for night in recordings:
            prepare(adapter, replace(night, name=f"{night.name}-{made}"), root)
            made += 1

    found: list[Any] = []
    for action in (some_nights, _arithmetic, _copying):
        action()
        for _ in range(rounds):
            barrier.wait()
            alone = timed(action) if number == 0 else None
            barrier.wait()
            found.append((action.__name__, alone, timed(action), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
    barrier.wait()
    results.put((number, found))
    shutil.rmtree(root, ignore_errors=True)


def cores(folder: Path, rounds: int) -> dict[str, Any]:
    """One process alone, then one a core at the same time, in turns: nights, and what the machine itself loses."""
    _, recordings = simulated_nights(folder)
    n = usable_cores()
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(n), context.Queue()
    processes = [context.Process(target=_worker, args=(folder, i, rounds, barrier, results)) for i in range(n)]
    for process in processes:
        process.start()
    by_process = dict(results.get(timeout=600) for _ in processes)
    for process in processes:
        process.join()

    print(f"\nOne process and {n} at the same time, {rounds} turns; median, quartiles in brackets")
    print(f"| | alone, wall s (CPU s) | each of {n}, wall s (CPU s) | scaling by wall time | by CPU time |")
    print("|---|---|---|---|---|")
    figures: dict[str, Any] = {}
    for name, count, label in (
        ("some_nights", len(recordings), "a night"),
        ("_arithmetic", 1, "matrices in the first cache"),
        ("_copying", 1, "writing to memory"),
    ):
        turns = [[row for row in by_process[i] if row[0] == name] for i in range(n)]
        alone = np.array([row[1] for row in turns[0]]) / count
        each = np.array([[row[2] for row in of_one] for of_one in turns]).mean(axis=0) / count
        quartiles = np.quantile(alone / each, [0.25, 0.5, 0.75], axis=0)
        shown = ["{1:.0%} ({0:.0%} to {2:.0%})".format(*quartiles[:, k]) for k in (0, 1)]
        one, several = np.median(alone, axis=0), np.median(each, axis=0)
        print(f"| {label} | {one[0]:.3f} ({one[1]:.3f}) | {several[0]:.3f} ({several[1]:.3f}) | {' | '.join(shown)} |")
        figures[label] = {"alone": one.tolist(), "each": several.tolist(), "scaling": quartiles.tolist()}
    peaks = [row[3] / 1024 for row in by_process[0] if row[0] == "some_nights"]
    print(f"peak memory: {peaks[0]:.0f} MB in the first turn, {peaks[-1]:.0f} MB in the last")
    return {**figures, "peak_mb": [peaks[0], peaks[-1]]}


# Windows


def window_store(folder: Path, n_nights: int = 48) -> list[PreparedRecording]:
    """About a gigabyte of prepared nights: the simulated ones again and again, each moved in time."""
    adapter, recordings = simulated_nights(folder)
    made = [prepare(adapter, night, folder / "prepared") for night in recordings]
    several = []
    for i in range(n_nights):
        night = made[i % len(made)]
        several.append(
            write_prepared(
                folder / "store",
                identity={"night": i},
                corpus="bench",
                name=f"n{i}",
                subject=f"p{i}",
                simulated=True,
                channels=night.details,
                signals=np.roll(night.signals(), i * SAMPLES_PER_EPOCH, axis=1),
                stages=np.roll(night.stages(), i),
            )
        )
    return several


def windows(folder: Path, rounds: int) -> dict[str, Any]:
    """Epochs (of two channels) a second."""
    import torch

    from tusp.datasets.windows import WindowReader
    from tusp.jobs.sampling import BalancedSampler

    store = window_store(folder)
    random = np.random.default_rng(0)
    lengths = np.array([night.n_epochs for night in store])
    n = usable_cores()
    pool = ThreadPoolExecutor(n)
    torch.set_num_threads(1)  # threads are those of this benchmark
    everything = WindowReader(store, window_epochs=WINDOW, held_bytes=2**40)
    size = sum((night.folder / "signals.npy").stat().st_size for night in store)
    wall, cpu = timed(lambda: [everything.held(index) for index in range(len(store))])
    print(f"\nHolding {len(store)} nights, {size / 1e9:.2f} GB from the page cache: {wall:.2f} s, {cpu:.2f} CPU s")

    def draw(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        index = random.integers(len(store), size=n)
        start = (random.random(n) * (lengths[index] - WINDOW)).astype(int)
        return index, start, np.stack([random.integers(2, size=n), np.full(n, 2)], axis=1)

    drawn = {batch: [draw(batch) for _ in range(960 // batch)] for batch in (8, 32, 64)}
    # As in training the windows of a pass are known before it begins. They are half a gigabyte: no cache holds them.

    Batches = list[tuple[np.ndarray, np.ndarray, np.ndarray]]

    def spread(share: Callable[[Batches], None], threads: int) -> None:
        """Run a share of 960 windows on each thread."""
        others = [pool.submit(share, drawn[32][thread::threads]) for thread in range(1, threads)]
        share(drawn[32][::threads])
        for other in others:
            other.result()

    def summed(batches: Batches) -> None:
        """Every byte of a view is read, and nothing is written."""
        for batch in batches:
            for window in everything.views(*batch):
                np.add.reduce(window.view(np.uint64), axis=None)

    def converted(batches: Batches) -> None:
        """Float32 in memory that stays in the processor's cache, as a step of training finds its window."""
        out = torch.empty(2, WINDOW * SAMPLES_PER_EPOCH)
        for batch in batches:
            for window in everything.views(*batch):
                out.copy_(torch.from_numpy(window))

    def in_batches(batches: Batches) -> None:
        """Float32 batches of 32, written to the same memory again and again."""
        out = torch.empty(32, 2, WINDOW * SAMPLES_PER_EPOCH)
        for batch in batches:
            for rows, window in zip(out, everything.views(*batch), strict=True):
                rows.copy_(torch.from_numpy(window))

    def reading(batch: int, threads: int, held_bytes: int) -> Callable[[], object]:
        reader = WindowReader(store, window_epochs=WINDOW, threads=threads, held_bytes=held_bytes)
        out = np.empty((batch, 2, WINDOW * SAMPLES_PER_EPOCH), np.float16)

        def read() -> None:
            for windows in drawn[batch]:
                reader.signals(*windows, out=out)

        return read

    def as_before() -> None:
        """A window after the other: open the night, convert in numpy."""
        out = np.empty((32, 2, WINDOW * SAMPLES_PER_EPOCH), np.float32)
        for _ in range(3):
            for row, (night, start, channels) in enumerate(zip(*drawn[32][0], strict=True)):
                signals = store[night].signals()
                for position, channel in enumerate(channels):
                    first = start * SAMPLES_PER_EPOCH
                    out[row, position] = signals[channel, first : first + out.shape[2]]

    sampler = BalancedSampler(store, window_epochs=WINDOW, channels=("EEG", "EOG"))
    plan = sampler.plan(seed=0, pass_number=0, windows=320)

    def gather() -> None:
        for step in range(10):
            sampler.gather(plan, slice(step * 32, step * 32 + 32))

    ways: dict[str, tuple[Callable[[], object], int]] = {}
    for what, share in {
        "views of held nights, every byte read (summed)": summed,
        "views of held nights, each converted to float32 in the cache": converted,
        "views of held nights, float32 batches of 32": in_batches,
    }.items():
        for threads in sorted({1, n}):
            ways[f"{what}, {threads} thread{'s' if threads > 1 else ''}"] = (
                (lambda share=share, threads=threads: spread(share, threads)),
                960,
            )
    for what, held in {"gathered from held nights": 2**40, "read from the files": 0}.items():
        for batch in (8, 64):
            for threads in sorted({1, n}):
                name = f"float16 {what}, batches of {batch}, {threads} thread{'s' if threads > 1 else ''}"
                ways[name] = reading(batch, threads, held), 960
    ways["float32 as training takes them, batches of 32, 1 thread"] = gather, 320
    ways["the same, opened one by one and converted by numpy"] = as_before, 96
    cached = np.ones(2**21, np.uint8), np.ones(2**21, np.uint8)
    large = np.ones(2**28, np.uint8), np.ones(2**28, np.uint8)
    halves = [block.view(np.uint64) for block in np.split(large[0], n)]
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    every_core = "all cores" if n > 2 else f"{n} cores"
    speeds: dict[str, list[float]] = {
        name: []
        for name in (
            "copy in the cache, one core",
            "copy in memory, one core",
            "read memory, one core",
            f"read memory, {every_core}",
        )
    }
    for way, _ in ways.values():
        way()
    for _ in range(rounds):
        for name, (way, _) in ways.items():
            seconds[name].append(timed(way))
        for found, (n_bytes, action, at) in zip(
            speeds.values(),
            (
                (256 * 2**21, lambda: [np.copyto(*cached) for _ in range(256)], 1),
                (2**28, lambda: np.copyto(*large), 1),
                (2**28, lambda: np.add.reduce(large[0].view(np.uint64)), 1),
                (2**28, lambda: list(pool.map(np.add.reduce, halves)), 0),
            ),
            strict=True,
        ):
            found.append(n_bytes / timed(action)[at])
    pool.shutdown()
    per_epoch = 2 * 2 * SAMPLES_PER_EPOCH
    print(f"Random windows of {WINDOW} epochs x 2 channels, {len(store)} nights, {size / 1e9:.2f} GB")
    print("| | epochs a second, median (most) | epochs a CPU second (most) |\n|---|---|---|")
    result: dict[str, Any] = {}
    for name, (_, n_windows) in ways.items():
        wall_rates = [n_windows * WINDOW / pair[0] for pair in seconds[name]]
        cpu_rates = [n_windows * WINDOW / pair[1] for pair in seconds[name]]
        result[name] = {"median": median(wall_rates), "most": max(wall_rates), "cpu": max(cpu_rates)}
        print(f"| {name} | {median(wall_rates):,.0f} ({max(wall_rates):,.0f}) | {max(cpu_rates):,.0f} |")
    for name, rates in speeds.items():
        result[name] = max(rates)
        print(
            f"{name}: {max(rates) / 1e9:.1f} GB a second, median {median(rates) / 1e9:.1f};"
            f" at most {max(rates) / per_epoch:,.0f} epochs x 2 channels of float16"
        )
    return result


# A corpus of ten thousand nights


def write_index(raw: Path, n_nights: int) -> None:
    """SHHS, both visits of every person, one epoch each; every signal differs."""
    import edfio

    rates = {"EEG(sec)": 125, "EEG": 125, "EOG(L)": 50, "EOG(R)": 50}
    empty = edfio.Edf(
        [
            edfio.EdfSignal(
                np.zeros(30 * rate),
                rate,
                label=label,
                physical_dimension="uV",
                physical_range=(-125, 125),
                digital_range=(-128, 127),
            )
            for label, rate in rates.items()
        ],
        recording=edfio.Recording(equipment_code="tusp-simulated"),
        data_record_duration=1,
    )
    raw.mkdir(parents=True)
    empty.write(raw / "empty")
    whole = (raw / "empty").read_bytes()
    (raw / "empty").unlink()
    n_samples = 30 * sum(rates.values())
    header = whole[: len(whole) - 2 * n_samples]
    labels = (
        "<PSGAnnotation><!-- tusp-simulated {} --><EpochLength>30</EpochLength><ScoredEvents><ScoredEvent>"
        "<EventType>Stages|Stages</EventType><EventConcept>{}</EventConcept><Start>0.0</Start>"
        "<Duration>30.0</Duration></ScoredEvent></ScoredEvents></PSGAnnotation>\n"
    )
    stages = ("Wake|0", "Stage 1 sleep|1", "Stage 2 sleep|2", "Stage 3 sleep|3", "REM sleep|5")
    random = np.random.default_rng(0)
    for i in range(n_nights):
        visit, person = 1 + i % 2, 200_001 + i // 2
        name = f"shhs{visit}-{person}"
        samples = random.integers(-128, 128, n_samples, dtype=np.int16)
        (raw / f"{name}.edf").write_bytes(header + samples.tobytes())
        (raw / f"{name}-nsrr.xml").write_text(labels.format(name, stages[i % 5]))


def stored(folder: Path, home: Path) -> dict[str, tuple[float, float]]:
    """The index alone, in this process: audited nights that are written to a store of their own, and read from it."""
    from tusp.datasets import catalog
    from tusp.platform.store import models
    from tusp.platform.store.session import open_store

    first = open_store(f"sqlite:///{home}/tusp.db")
    corpus, rows = catalog.get_corpus(first, "shhs"), catalog.recordings(first, "shhs")
    fields = ("name", "subject", "usable", "reason", "audit", "sources")
    copy = models.Corpus(
        name="shhs", adapter="shhs", root=corpus.root, simulated=corpus.simulated, embedded=False, card=corpus.card
    )
    copy.recordings = [models.Recording(**{field: getattr(row, field) for field in fields}) for row in rows]
    (folder / "second.db").unlink(missing_ok=True)
    second = open_store(f"sqlite:///{folder}/second.db")

    def write() -> None:
        with second.session() as session:
            session.add(copy)

    return {
        "(in one process) writing the audited nights to the store": timed(write),
        "(in one process) listing": timed(lambda: catalog.list_corpora(second)),
        "(in one process) loading every night's audit": timed(lambda: catalog.recordings(second, "shhs")),
    }


def index(folder: Path, rounds: int) -> dict[str, Any]:
    """Commands as a user types them."""
    raw, home = folder / "index", folder / "home"
    if not raw.exists():
        write_index(raw, N_NIGHTS_OF_INDEX)
    shutil.rmtree(home, ignore_errors=True)

    def run(*arguments: str) -> tuple[float, float]:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        start = "from tusp.cli.main import run; run()"
        command = [sys.executable, "-c", start, "--home", str(home), "datasets", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wall = time.perf_counter() - began
        if done.returncode or not done.stdout:
            raise SystemExit(f"{' '.join(arguments)}: {done.stderr[-2000:]}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    result: dict[str, tuple[float, float]] = {"add (reads and audits every file)": run("add", "shhs", str(raw))}
    result["add --replace (every file is as it was)"] = run("add", "shhs", str(raw), "--replace")
    for what, arguments in {
        "list": ["list"],
        "audit (looks at every file again)": ["audit", "shhs", "--json"],
        "splits show, 5 folds": ["splits", "show", "shhs"],
        "splits show, paper": ["splits", "show", "shhs", "--protocol", "paper", "--json"],
        "gc": ["gc"],
    }.items():
        found = [run(*arguments) for _ in range(max(1, rounds // 2))]
        result[what] = median([pair[0] for pair in found]), median([pair[1] for pair in found])
    in_the_store = [stored(folder, home) for _ in range(max(1, rounds // 2))]
    for what in in_the_store[0]:
        pairs = [found[what] for found in in_the_store]
        result[what] = median([pair[0] for pair in pairs]), median([pair[1] for pair in pairs])
    print(f"\nA corpus of {N_NIGHTS_OF_INDEX:,} nights (5,000 people, one epoch each)")
    print("| tusp datasets | wall s | CPU s |\n|---|---|---|")
    for what, (wall, cpu) in result.items():
        print(f"| {what} | {wall:.2f} | {cpu:.2f} |")
    return {what: {"wall": wall, "cpu": cpu} for what, (wall, cpu) in result.items()}


PARTS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "nights": nights,
    "cores": cores,
    "windows": windows,
    "index": index,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(PARTS))
    parser.add_argument("--folder", type=Path, help="keep the simulated files here, for the next run")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    options = parser.parse_args()
    load = os.getloadavg()
    print(f"{cpu_model()}, {usable_cores()} cores, load before the start {load[0]:.2f}")
    figures: dict[str, Any] = {"machine": cpu_model(), "cores": usable_cores(), "load": load}
    with scratch(options.folder) as folder:
        for name, part in PARTS.items():
            if options.only in (None, name):
                figures[name] = part(folder, options.rounds)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
