"""What training takes on a device, measured: memory of one process, epochs a second of several at once.

Every process trains a network on a made-up night, with the trainer that cells use, uncompiled (compiling takes a minute
and changes little about what fits together). Processes say when they are warm and begin together, so that each is
measured while all of them work.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from tusp.datasets.prepared import SAMPLES_PER_EPOCH, PreparedChannel, PreparedRecording, write_prepared
from tusp.jobs.sharing import CANDIDATES, Measured, fits
from tusp.platform.environment import cpu_model, memory_bytes
from tusp.platform.errors import CellError
from tusp.platform.stages import N_STAGES

WARM_STEPS: Final = 5
"""Steps before a process counts as warm: kernels are loaded and the allocator has its memory."""

SECONDS: Final = 4.0
"""How long processes are measured."""

LIMIT: Final = 300.0
"""A process that says nothing for so long is given up, in seconds."""

STEPS_PER_PASS: Final = 50
_READY: Final = "ready"


class _EnoughError(Exception):
    """Ends a training that was measured for long enough."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one process found."""

    epochs_per_second: float
    held_bytes: int
    """Most that it held of the device's memory, the context of the device included."""
    total_bytes: int
    """Of the device."""
    name: str
    """Of the device."""


def train_for(
    shape: Mapping[str, Any], *, device: str, seconds: float, threads: int = 1, ready: Callable[[], None]
) -> Trial:
    """Train a network for some seconds after it is warm.

    Args:
        shape: ``model``, ``channels`` and ``recipe`` of a plan.
        ready: called when it is warm; the clock starts when it returns.
    """
    import torch

    from tusp.jobs.recipes import recipe_from_settings
    from tusp.jobs.training import Trainer
    from tusp.models.families import from_plan

    torch.set_num_threads(threads)
    recipe = recipe_from_settings(shape["recipe"])
    per_step = recipe.batch_size * recipe.window_epochs
    endless = replace(
        recipe,
        epochs_per_pass=STEPS_PER_PASS * per_step,
        epochs_per_pass_at_least=STEPS_PER_PASS * per_step,
        max_passes=10**9,
        stop_patience=10**9,
    )
    family, settings = from_plan(shape["model"])
    steps, began = 0, 0.0

    def tick() -> None:
        nonlocal steps, began
        steps += 1
        if steps == WARM_STEPS + 1:
            _settle(device)
            ready()
            began = time.perf_counter()
        elif steps > WARM_STEPS + 1 and time.perf_counter() - began >= seconds:
            _settle(device)
            raise _EnoughError

    with tempfile.TemporaryDirectory() as folder:
        night = _made_up_night(Path(folder), shape["channels"], recipe.window_epochs)
        trainer = Trainer(
            network=family.build(settings, seed=0),
            channels=shape["channels"],
            recipe=endless,
            train=[night],
            validation=[night],
            seed=0,
            device=device,
            tick=tick,
            compile_mode="never",
        )
        try:
            trainer.fit()
        except _EnoughError:
            taken = time.perf_counter() - began
        else:
            raise CellError(f"a training of {steps} steps ended by itself while it was measured")
    held, total, name = _memory(device)
    rate = (steps - 1 - WARM_STEPS) * per_step / taken
    return Trial(epochs_per_second=rate, held_bytes=held, total_bytes=total, name=name)


def _made_up_night(root: Path, channels: Sequence[str], window_epochs: int) -> PreparedRecording:
    """A night of noise with all stages, long enough for windows to differ."""
    random = np.random.default_rng(0)
    n_epochs = 2 * window_epochs + N_STAGES
    signals = random.standard_normal((len(channels), n_epochs * SAMPLES_PER_EPOCH), dtype=np.float32)
    details = [
        PreparedChannel(
            name=f"{group}{row}",
            group=group,
            sampling_rate_hz=128.0,
            unit="uV",
            median=0.0,
            iqr=1.0,
            clipped_share=0.0,
        )
        for row, group in enumerate(channels)
    ]
    return write_prepared(
        root,
        identity={"made up for": "probe"},
        corpus="probe",
        name="probe",
        subject="probe",
        simulated=True,
        channels=details,
        signals=signals.astype(np.float16),
        stages=(np.arange(n_epochs) % N_STAGES).astype(np.int8),
    )


def _settle(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def _memory(device: str) -> tuple[int, int, str]:
    """(bytes held at most by this process, bytes there are, name of the device)."""
    if device.startswith("cuda"):
        import torch

        free, total = torch.cuda.mem_get_info(device)
        # What is in use beyond torch's own is the context; where others use the GPU too, theirs is counted with it,
        # which errs on the safe side.
        beyond = max(0, total - free - torch.cuda.memory_reserved(device))
        return torch.cuda.max_memory_reserved(device) + beyond, total, torch.cuda.get_device_name(device)
    import resource

    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return held, memory_bytes() or 0, cpu_model() or "CPU"


class _Process:
    """A training in a process of its own, which waits when it is warm."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in stop()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tusp.jobs.probe"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        assert self._process.stdout is not None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()
        self.tell(json.dumps(order))

    def _listen(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put(line.strip())
        self._lines.put("")

    def tell(self, line: str) -> None:
        """Write a line to the process; one that has ended does not hear it and is noticed by ``answer``."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return

    def answer(self) -> str:
        """Its next line.

        Raises:
            CellError: it ended, or says nothing; with its last words.
        """
        try:
            line = self._lines.get(timeout=LIMIT)
        except queue.Empty:
            raise CellError(f"a training process said nothing for {LIMIT:.0f} s") from None
        if line:
            return line
        self._process.wait()
        self._errors.seek(0)
        last = (self._errors.read().strip().splitlines() or ["no reason given"])[-1]
        raise CellError(f"a training process ended: {last}")

    def stop(self) -> None:
        """End it, if it has not."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:  # what was written to a dead process and never read
                    continue


def together(
    shape: Mapping[str, Any], *, device: str, processes: int, seconds: float = SECONDS, threads: int = 1
) -> list[Trial]:
    """Train the same network in several processes at once.

    Raises:
        CellError: one of them failed, for example because the memory is too small.
    """
    order = {"shape": shape, "device": device, "seconds": seconds, "threads": threads}
    running: list[_Process] = []
    try:
        running.extend(_Process(order) for _ in range(processes))
        for process in running:
            answer = process.answer()
            if answer != _READY:
                raise CellError(f"a training process said {answer!r} instead of {_READY!r}")
        for process in running:
            process.tell("go")
        return [Trial(**json.loads(process.answer())) for process in running]
    finally:
        for process in running:
            process.stop()


def measure(
    shapes: Sequence[Mapping[str, Any]],
    *,
    device: str,
    threads: int = 1,
    candidates: Sequence[int] = CANDIDATES,
    seconds: float = SECONDS,
) -> Measured:
    """Memory of every network, and throughput by the number of processes for the one that takes most memory.

    Raises:
        CellError: not even one process trains.
    """
    alone = [together(shape, device=device, processes=1, seconds=seconds, threads=threads)[0] for shape in shapes]
    heaviest = max(range(len(shapes)), key=lambda index: alone[index].held_bytes)
    first = alone[heaviest]
    measured = Measured(
        gpu=first.name,
        total_bytes=first.total_bytes,
        step_bytes=first.held_bytes,
        epochs_per_second={1: first.epochs_per_second},
    )
    for n in candidates:
        if n == 1 or not fits(measured, n, 0):
            continue
        try:
            trials = together(shapes[heaviest], device=device, processes=n, seconds=seconds, threads=threads)
        except CellError:
            break  # so many do not fit after all; more will not either
        rates = {**measured.epochs_per_second, n: sum(trial.epochs_per_second for trial in trials)}
        measured = replace(measured, epochs_per_second=rates)
    return measured


def main() -> None:
    """One training process: its orders come on standard input, its answers go to standard output."""
    order = json.loads(sys.stdin.readline())

    def ready() -> None:
        sys.stdout.write(_READY + "\n")
        sys.stdout.flush()
        sys.stdin.readline()

    trial = train_for(
        order["shape"], device=order["device"], seconds=order["seconds"], threads=order["threads"], ready=ready
    )
    sys.stdout.write(json.dumps(trial.__dict__) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
