"""The parts of training.py about whole trainings with tusp's own trainer: sharing, steady training, an ablation's time.

All of them run on a processor too (slowly; with ``--tiny`` in seconds), which is how they are tested. They need torch
and numpy alone.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import queue
import shutil
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from training_forms import synchronise

from tusp.datasets.prepared import SAMPLES_PER_EPOCH, PreparedChannel, PreparedRecording, write_prepared
from tusp.datasets.splits import make_split
from tusp.jobs.feeding import size_of
from tusp.jobs.prediction import predict_night
from tusp.jobs.probe import measure
from tusp.jobs.recipes import SMOKE, STANDARD, Recipe, full_arm, recipe_settings
from tusp.jobs.sharing import CANDIDATES, decide
from tusp.jobs.training import Trainer
from tusp.models.ablations import csja
from tusp.models.families import family_called, model_settings

CHANNELS = ("EEG", "EOG")
SHARES = (0.68, 0.03, 0.17, 0.055, 0.065)
"""Of W, N1, N2, N3, REM in whole recordings of Sleep-EDF, most of which are a day awake."""


class OutOfTimeError(BaseException):
    """A part has used the time it was given. No Exception: what goes on after a failed form is not to go on."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise OutOfTimeError in this (the main) thread after so many seconds."""

    def late(*_: object) -> None:
        raise OutOfTimeError

    _granted.clear()
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds if math.isfinite(seconds) else 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def grant(seconds: float) -> None:
    """Give the part whose time is over so many seconds more, once.

    Raises:
        OutOfTimeError: it was given more already.
    """
    if _granted:
        raise OutOfTimeError
    _granted.append(seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds)


_granted: list[float] = []


@dataclass(frozen=True, kw_only=True)
class Size:
    """A made-up corpus, and what is done with it."""

    recipe: Recipe = STANDARD
    people: int = 20
    nights: int = 39
    epochs: int = 2700
    """Of each night; Sleep-EDF-20 as tusp keeps it: 39 recordings of 20 people, about 22 hours each."""
    folds: int = 5
    candidates: Sequence[int] = CANDIDATES
    seconds: float = 4.0
    """That processes at once are measured."""
    warm_steps: int = 60
    steps: int = 100


SLEEP_EDF_20 = Size()
TINY = Size(
    recipe=replace(SMOKE, max_passes=2, epochs_per_pass=64, epochs_per_pass_at_least=64),
    people=4, nights=5, epochs=24, folds=2, candidates=(1, 2), seconds=0.3, warm_steps=2, steps=4,
)  # fmt: skip
"""To see on any processor that everything runs."""


def made_up_corpus(folder: Path, size: Size) -> list[PreparedRecording]:
    """Prepared nights of noise with a sine of the stage's own frequency and height; two EEG channels and an EOG."""
    random = np.random.default_rng(0)
    each = 32
    bank = 0.5 * random.standard_normal((5, each, 3, SAMPLES_PER_EPOCH), dtype=np.float32)
    seconds = np.arange(SAMPLES_PER_EPOCH, dtype=np.float32) / 128
    for stage, (hertz, height) in enumerate(((10, 1.5), (6, 0.7), (13, 1.0), (1.2, 3.0), (4, 0.5))):
        phase = random.uniform(0, 2 * np.pi, (each, 3, 1)).astype(np.float32)
        bank[stage] += height * np.sin(2 * np.pi * hertz * seconds + phase)
    halves = bank.astype(np.float16)
    details = [
        PreparedChannel(name=name, group=group, sampling_rate_hz=128.0, unit="uV", median=0.0, iqr=1.0, clipped_share=0)
        for name, group in (("Fpz-Cz", "EEG"), ("Pz-Oz", "EEG"), ("EOG", "EOG"))
    ]
    nights = []
    for number in range(size.nights):
        # Every stage comes first in a bout, then bouts as the shares say.
        bouts = [*range(5), *random.choice(5, size=size.epochs, p=SHARES)]
        stages = np.repeat(bouts, random.integers(2, 12, len(bouts)) if size.epochs > 100 else 2)[: size.epochs]
        signals = halves[stages, random.integers(each, size=size.epochs)].transpose(1, 0, 2)
        nights.append(
            write_prepared(
                folder,
                identity={"made up for": "benchmark", "night": number},
                corpus="made-up-sim",
                name=f"night-{number:03d}",
                subject=f"person-{number % size.people:02d}",
                simulated=True,
                channels=details,
                signals=np.ascontiguousarray(signals).reshape(3, -1),
                stages=stages.astype(np.int8),
            )
        )
    return nights


def shape(recipe: Recipe) -> dict[str, Any]:
    """The part of a plan that decides what a training step takes."""
    arm = full_arm(recipe, channels=CHANNELS)
    return {
        "model": model_settings(arm.family, arm.settings),
        "channels": list(CHANNELS),
        "recipe": recipe_settings(recipe),
    }


def sharing(device: torch.device, results: Any, size: Size) -> None:
    """Throughput and memory by the number of cells on the device at once, and the number that tusp chooses."""
    found = measure([shape(size.recipe)], device=str(device), candidates=size.candidates, seconds=size.seconds)
    resident = int(3 * 2 * SAMPLES_PER_EPOCH * size.nights * size.epochs * (1 - 1 / size.folds))
    decision = decide(found, resident_bytes=resident, most=max(size.candidates))
    for cells, rate in found.epochs_per_second.items():
        results.say(f"  {cells} cells at once: {rate:9.0f} epochs/s together")
    results.say(f"  best: {decision.reason}")
    results.keep("sharing", {**found.to_json(), "best": decision.cells_per_gpu, "reason": decision.reason})


class _EnoughError(Exception):
    """Ends a training that was measured for long enough."""


def steady(device: torch.device, results: Any, size: Size) -> None:
    """Share of the time in which the device has nothing to do, in tusp's own training with its own feed.

    Wall time is that of ``steps`` steps without a profiler; the time in which any kernel runs is that of as many steps
    after them, with one. One training alone; how busy several keep the device, ``ablation`` says.
    """
    from torch.profiler import DeviceType, ProfilerActivity, profile

    gpu = device.type == "cuda"
    kind = DeviceType.CUDA if gpu else DeviceType.CPU
    per_step = size.recipe.batch_size * size.recipe.window_epochs
    epochs = (size.warm_steps + 3 * size.steps) * per_step
    endless = replace(size.recipe, epochs_per_pass=epochs, epochs_per_pass_at_least=epochs, max_passes=10**6)
    table: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        few = made_up_corpus(Path(folder), replace(size, nights=min(8, size.nights)))
        for mode in ("never", "always") if gpu else ("never",):
            trace = profile(activities=[ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU])
            taken, profiled, steps, began = 0.0, 0.0, 0, 0.0

            def tick() -> None:
                nonlocal taken, profiled, steps, began
                done, steps = steps, steps + 1
                if done == size.warm_steps:
                    synchronise(device)
                    began = time.perf_counter()
                elif done == size.warm_steps + size.steps:
                    synchronise(device)
                    taken = time.perf_counter() - began
                    trace.start()  # noqa: B023 - called within this turn of the loop
                    began = time.perf_counter()
                elif done == size.warm_steps + 2 * size.steps:
                    synchronise(device)
                    profiled = time.perf_counter() - began
                    trace.stop()  # noqa: B023
                    raise _EnoughError

            arm = full_arm(size.recipe, channels=CHANNELS)
            try:
                trainer = Trainer(
                    network=family_called(arm.family).build(arm.settings, seed=0), channels=CHANNELS, recipe=endless,
                    train=few[1:], validation=few[:1], seed=0, device=device, tick=tick, compile_mode=mode,
                )  # fmt: skip
                trainer.fit()
            except _EnoughError:
                spans = [
                    (event.time_range.start, event.time_range.end)
                    for event in trace.events() or []
                    if event.device_type == kind
                ]
            busy = busy_seconds(spans)
            name = "compiled" if mode == "always" else "not compiled"
            table[name] = {
                "idle share": max(0.0, 1 - busy / taken),
                "seconds a step": taken / size.steps,
                "busy seconds a step": busy / size.steps,
                "profiled seconds a step": profiled / size.steps,
                "epochs/s": per_step * size.steps / taken,
                "feed": trainer.feed.kind,
                "precision": trainer.precision,
            }
            idle = 100 * table[name]["idle share"]
            results.say(
                f"  {name}, {trainer.precision}, feed {trainer.feed.kind}: device idle {idle:.1f} %, "
                f"{1e3 * taken / size.steps:.2f} ms a step ({1e3 * busy / size.steps:.2f} busy)"
            )
            results.keep("steady", table)


def busy_seconds(spans: Sequence[tuple[float, float]]) -> float:
    """Length of the union of spans in microseconds, as seconds."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total / 1e6


class Watch:
    """Samples what nvidia-smi says of the device, twice a second."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float, float, float]] = []
        self._process: subprocess.Popen[str] | None = None
        if shutil.which("nvidia-smi"):
            query = "--query-gpu=utilization.gpu,memory.used,power.draw"
            self._process = subprocess.Popen(
                ["nvidia-smi", query, "--format=csv,noheader,nounits", "-lms", "500"],
                stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            threading.Thread(target=self._read, args=(self._process,), daemon=True).start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            try:
                busy, memory, power = (float(part) for part in line.split(","))
            except ValueError:  # "[N/A]", or a line cut by the end
                continue
            self.rows.append((time.perf_counter(), busy, memory, power))

    def stop(self) -> None:
        """End sampling."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def between(self, begin: float, end: float) -> dict[str, float]:
        """Means over a span of time.perf_counter(); empty where nothing was sampled."""
        rows = [row for row in self.rows if begin <= row[0] <= end]
        if not rows:
            return {}
        _, busy, memory, power = (statistics.mean(column) for column in zip(*rows, strict=True))
        return {
            "idle share, nvidia-smi": 1 - busy / 100,
            "MiB of memory in use": memory,
            "W of power": power,
            "samples": len(rows),
        }


def _work(device: str, recipe: Recipe, threads: int, cells: Any, answers: Any) -> None:
    """A process that trains and judges cells until there are none left."""
    torch.set_num_threads(threads)
    while True:
        cell = cells.get()
        if cell is None:
            return
        try:
            _cell(cell, device, recipe, answers)
        except Exception as error:  # noqa: BLE001 - the parent says what failed
            answers.put(("failed", cell["name"], 0.0, f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"))


def _cell(cell: Mapping[str, Any], device: str, recipe: Recipe, answers: Any) -> None:
    arm = cell["arm"]
    answers.put(("began", cell["name"], 0.0, time.time()))

    def report(progress: Any, steps: int) -> None:
        done = (progress.pass_number + progress.step / steps) / recipe.max_passes
        answers.put(("progress", cell["name"], done, time.time()))

    trained = Trainer(
        network=family_called(arm.family).build(arm.settings, seed=0), channels=arm.channels, recipe=recipe,
        train=cell["train"], validation=cell["validation"], seed=0, device=device, report=report,
    ).fit()  # fmt: skip
    answers.put(("trained", cell["name"], 1.0, time.time()))
    for night in cell["test"]:
        predict_night(
            trained.network, night, channels=arm.channels, window_epochs=recipe.window_epochs,
            stride=recipe.prediction_stride, device=device, precision=trained.precision,
        )  # fmt: skip
    answers.put(("done", cell["name"], 1.0, time.time()))


def estimate(said: Sequence[tuple[str, str, float, Any]], *, cells: int, workers: int) -> dict[str, Any]:
    """What a whole ablation takes, from what its cells have said so far.

    A cell takes what lies before its first word of progress, the rest of its training at the rate between its first
    and its last word, and its prediction where one was seen. Cells come in rounds of as many as there are workers.
    """
    times: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for kind, name, done, at in said:
        times.setdefault(name, {}).setdefault(kind, []).append((done, at))
    each, predictions = [], []
    for of in times.values():
        words = [*of.get("progress", ()), *of.get("trained", ())]
        if len(words) < 2 or words[-1][0] <= words[0][0]:
            continue
        (first, began), (last, ended) = words[0], words[-1]
        each.append((began - of["began"][0][1]) + (1 - first) * (ended - began) / (last - first))
        if "done" in of:
            predictions.append(of["done"][0][1] - of["trained"][0][1])
    if not each:
        return {"note": "too short to tell"}
    prediction = statistics.median(predictions) if predictions else 0.0
    seconds = math.ceil(cells / workers) * (statistics.median(each) + prediction)
    found = {"seconds a cell": statistics.median(each), "seconds of prediction a cell": prediction, "seconds": seconds}
    return found | ({} if predictions else {"note": "without predicting the test nights, which was not reached"})


def ablation(device: torch.device, results: Any, size: Size, *, seconds: float, workers: int) -> None:
    """A whole csja ablation (2 arms x folds) on a made-up corpus; what is left after ``seconds`` is extrapolated."""
    start = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    cells, answers = context.Queue(), context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        nights = made_up_corpus(Path(folder), size)
        people: dict[str, list[str]] = {}
        for night in nights:
            people.setdefault(night.subject, []).append(night.name)
        split = make_split("made-up-sim", people, protocol="kfold", folds=size.folds, seed=0)
        full = full_arm(size.recipe, channels=CHANNELS)
        arms = csja(full, recipe_settings(size.recipe))
        jobs = [
            {"name": f"{name}, fold {number}", "arm": arm}
            | {
                part: [night for night in nights if night.subject in getattr(fold, part)]
                for part in ("train", "validation", "test")
            }
            for number, fold in enumerate(split.folds, 1)
            for name, arm in arms.items()
        ]
        results.say(
            f"  {len(nights)} made-up nights ({size_of(nights) / 1e9:.2f} GB) in {time.perf_counter() - start:.0f} s; "
            f"{len(jobs)} cells, recipe {size.recipe.name}, {workers} at once"
        )
        for job in [*jobs, *[None] * workers]:
            cells.put(job)
        watch = Watch() if device.type == "cuda" else None
        began = time.perf_counter()
        running = [
            context.Process(target=_work, args=(str(device), size.recipe, 1, cells, answers)) for _ in range(workers)
        ]
        said: list[tuple[str, str, float, Any]] = []
        heard: list[float] = []
        try:
            for process in running:
                process.start()
            done = 0
            while done < len(jobs) and time.perf_counter() - start < seconds:
                try:
                    said.append(answers.get(timeout=0.2))
                except queue.Empty:
                    if not any(process.is_alive() for process in running):
                        break
                    continue
                if said[-1][0] == "progress":
                    heard.append(time.perf_counter())
                done += said[-1][0] in ("done", "failed")
            taken = time.perf_counter() - began
        finally:
            for process in running:
                process.kill()
                process.join()
            if watch is not None:
                watch.stop()
    failed = {name: why for kind, name, _, why in said if kind == "failed"}
    finished = sum(kind == "done" for kind, *_ in said)
    words = [each for each in said if each[1] not in failed]
    whole = finished == len(jobs)
    table: dict[str, Any] = {
        "cells": len(jobs), "finished": finished, "at once": workers, "measured seconds": taken, "failed": failed,
        "nights": len(nights), "epochs": size.nights * size.epochs, "recipe": size.recipe.name,
        "passes": size.recipe.max_passes, "whole": {"seconds": taken} if whole else {
            "extrapolated": True, **estimate(words, cells=len(jobs), workers=workers)
        },
    }  # fmt: skip
    if watch is not None and heard:
        # Several processes at once: no profiler sees them all, so the device itself is asked.
        table["device"] = watch.between(heard[0], heard[-1]) or {"note": "nvidia-smi said nothing"}
        results.say(f"  device while all trained: {table['device']}")
    for name, why in failed.items():
        results.say(f"  {name}: failed: {why}")
    results.say(f"  {finished} of {len(jobs)} cells in {taken:.0f} s; the whole ablation: {table['whole']}")
    results.keep("ablation", table)
    if failed:
        raise RuntimeError(f"{len(failed)} cells failed")


def size_for(args: argparse.Namespace) -> Size:
    """The corpus and recipe of this run."""
    return TINY if args.tiny else SLEEP_EDF_20
