"""How fast the network trains and predicts, every form of it side by side in one run. Needs torch and numpy alone.

    python benchmarks/training.py [--only PART ...] [--forms WORD ...] [--device cpu|cuda] [--rounds 5] [--batch 4]

Runs unattended and ends within --minutes (9.5 on a GPU: every part has its share, is cut when it has used it, and what
comes last waits for what is left); prints every part as it is done and writes training.json into
--folder (or $OUT, or nowhere). All forms of a comparison take turns (A B C A B C ...), so that other work on the
machine slows all of them; times are medians over the rounds. On a processor, CPU seconds stand beside wall seconds.

- ``ceilings``: what this machine can do: matrix products in every precision, and copying memory.
- ``step``: a training step (forward, loss, backward, optimiser), 31 epochs x 2 channels a window, full-size network, as
  published in plain float32 and in all faster forms; with the share of the ceilings reached.
- ``batches`` (GPU): the same for larger batches.
- ``inference``: a whole night of 960 epochs in one pass, and in overlapping windows of 31 epochs every 15.
- ``others``: training steps and predictions of U-Sleep: ours, and braindecode's where it can be imported.
- ``sharing`` (GPU): epochs/s and memory of 1, 2, 4, 8 cells at once with tusp's own trainer, and the best number.
- ``steady`` (GPU): the share of wall time in which the device has nothing to do, in tusp's own training.
- ``ablation`` (GPU): a whole 5-fold csja ablation, recipe `standard`, on a made-up corpus the size of Sleep-EDF-20, as
  many cells at once as ``sharing`` found best, with what nvidia-smi says of the device meanwhile. What does not fit
  into its time is extrapolated, and said to be.
- ``folds``: 1, 2, 4, 8 networks at the same time in as many processes, and (GPU) on as many streams of one process.
- ``idle`` (GPU): as ``steady``, for the forms of the network one by one.
- ``compile`` (CPU; takes minutes): the torch form through torch.compile.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import checkout  # noqa: F401 - before tusp
import torch
from torch import Tensor, nn
from training_forms import (
    CPU_FORMS,
    GPU_FORMS,
    NIGHT,
    STRIDE,
    WINDOW,
    Form,
    Training,
    as_form,
    forms_of,
    synchronise,
    timed,
)
from training_gpu import OutOfTimeError, ablation, grant, limited, sharing, size_for, steady

from tusp.models import native
from tusp.models.config import SAMPLES_PER_EPOCH, NetworkConfig
from tusp.models.tinyustaging import build_network

GPU_PARTS = {
    "ceilings": 30, "step": 160, "sharing": 90, "steady": 70, "ablation": 150, "inference": 40, "others": 30,
    "idle": 200, "batches": 200, "folds": 200,
}  # fmt: skip
"""Parts in the order of what they tell, and the seconds that each may take."""
GRACE = 30
"""Seconds for measuring the forms that are warm when a part's time is over before its rounds begin."""
LEAST = 20
"""Seconds; a part is not begun with less."""
CPU_PARTS = ("ceilings", "step", "inference", "others", "folds")


def step_macs(epochs: int) -> dict[str, float]:
    """Multiply-accumulates of a training step: three times the forward pass, plain and at the low rate."""
    from torch.utils.flop_counter import FlopCounterMode

    counts = {}
    for name, plain in (("plain", True), ("low rate", False)):
        with torch.device("meta"):
            network = build_network(NetworkConfig())
            network.use_plain_form(plain)
            with FlopCounterMode(display=False) as counter:
                network(torch.empty(1, 2, SAMPLES_PER_EPOCH * WINDOW))
        counts[name] = 3 * counter.get_total_flops() / 2 / WINDOW * epochs
    return counts


def least_traffic(batch: int, bytes_each: int) -> float:
    """Bytes a step must move if nothing stays in cache between blocks and all within a block does.

    Every convolution reads its input and writes its output in forward, and in backward reads both and the output's
    gradient and writes the input's.
    """
    with torch.device("meta"):
        network = build_network(NetworkConfig())
        total = 0

        def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            nonlocal total
            total += 3 * (inputs[0].numel() + output.numel())

        # The plain form calls every convolution but those behind up-sampling as a module.
        network.use_plain_form()
        for part in network.modules():
            if isinstance(part, nn.Conv1d):
                part.register_forward_hook(count)
        for up in network.up:
            up.register_forward_hook(count)
        network(torch.empty(batch, 2, SAMPLES_PER_EPOCH * WINDOW))
    return float(total * bytes_each)


@dataclass
class Results:
    """What was measured, printed as it comes and written after every part."""

    folder: Path | None
    values: dict[str, Any] = field(default_factory=dict)

    def say(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def keep(self, part: str, value: Any) -> None:
        self.values[part] = value
        if self.folder is not None:
            (self.folder / "training.json").write_text(json.dumps(self.values, indent=1))


def ceilings(device: torch.device, results: Results) -> dict[str, float]:
    """GMAC/s of matrix products, GB/s (read and written) of copying."""
    gpu = device.type == "cuda"
    found: dict[str, float] = {}
    kinds = [("float32", torch.float32, False), ("bf16", torch.bfloat16, False)]
    if gpu:
        kinds.insert(1, ("TF32", torch.float32, True))
    for name, dtype, tf32 in kinds:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        size = 8192 if gpu else 2048 if dtype == torch.float32 else 1024
        one = torch.randn(size, size, device=device).to(dtype)
        repeats = 10 if gpu else 1
        seconds = [
            timed(device, lambda one=one, repeats=repeats: [one @ one for _ in range(repeats)])[0] for _ in range(6)
        ]
        found[f"matrix product {name}, GMAC/s"] = size**3 * repeats / statistics.median(seconds[1:]) / 1e9
    torch.backends.cuda.matmul.allow_tf32 = False
    source = torch.zeros((4 if gpu else 1) * 2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = [timed(device, lambda: target.copy_(source))[0] for _ in range(8)]
    found["copy, GB/s read and written"] = 2 * source.numel() / statistics.median(seconds[1:]) / 1e9
    for name, value in found.items():
        results.say(f"  {name}: {value:,.0f}")
    results.keep("ceilings", found)
    return found


def measure_steps(
    trainings: Sequence[tuple[str, Training]], rounds: int, results: Results, steps: int = 1
) -> dict[str, dict[str, float]]:
    """Median seconds of a step of every training, in turns; one that fails is reported and left out."""
    seconds: dict[str, list[tuple[float, float]]] = {}
    peaks: dict[str, float] = {}
    device = trainings[0][1].device
    epochs = trainings[0][1].signal.shape[0] * WINDOW
    alive = dict(trainings)
    warmed, spent = set(), False
    warm = 3 if device.type == "cuda" else 1
    for turn in range(-1, rounds):
        for name, training in list(alive.items()):
            try:
                with as_form(training.form, device):
                    if turn < 0:
                        start = time.perf_counter()
                        if device.type == "cuda":
                            torch.cuda.reset_peak_memory_stats()
                        for _ in range(warm):
                            training.step()
                        synchronise(device)
                        warmed.add(name)
                        results.say(f"  {name}: first {warm} steps {time.perf_counter() - start:.1f} s")
                        if device.type == "cuda":
                            peaks[name] = torch.cuda.max_memory_allocated() / 2**30
                    else:
                        if training.form.keep_memory or device.type == "cuda":
                            training.step()  # the one after a form that gives memory back pays for that
                        taken = timed(device, lambda t=training: [t.step() for _ in range(steps)])
                        seconds.setdefault(name, []).append((taken[0] / steps, taken[1] / steps))
            except Exception as error:  # noqa: BLE001 - an unattended run goes on, and says what failed
                results.say(f"  {name}: failed: {type(error).__name__}: {str(error).splitlines()[0][:200]}")
                del alive[name]
            except OutOfTimeError:
                reached = warmed if turn < 0 else seconds
                missing = [each for each in alive if each not in reached]
                results.say(
                    f"  out of time in round {turn + 1} of {rounds}; left out: {', '.join(missing) or 'nothing'}"
                )
                alive = {each: alive[each] for each in alive if each in reached}
                spent = turn >= 0
                grant(GRACE)  # for the rounds of what is warm
                break
        if spent:
            break
    table = {}
    for name in alive:
        wall = statistics.median(each[0] for each in seconds[name])
        table[name] = {
            "seconds a step": wall,
            "least seconds a step": min(each[0] for each in seconds[name]),
            "CPU seconds a step": statistics.median(each[1] for each in seconds[name]),
            "epochs/s": epochs / wall,
        }
        if name in peaks:
            table[name]["peak GB allocated by all so far"] = peaks[name]
    return table


def show_steps(table: dict[str, dict[str, float]], results: Results, reference: str) -> None:
    """The table with every form's rate relative to the reference."""
    base = table.get(reference)
    for name, row in table.items():
        if base:
            row[f"times {reference}"] = base["seconds a step"] / row["seconds a step"]
            row[f"times {reference}, CPU seconds"] = base["CPU seconds a step"] / max(1e-9, row["CPU seconds a step"])
        results.say(
            f"  {name:52s} {row['seconds a step'] * 1e3:8.1f} ms ({row['CPU seconds a step'] * 1e3:8.1f} ms CPU) "
            f"{row['epochs/s']:9.0f} epochs/s" + (f"  x {row[f'times {reference}']:.2f}" if base else "")
        )


def step(device: torch.device, results: Results, args: argparse.Namespace) -> None:
    """The forms of a training step, and the share of the ceilings that each reaches."""
    # One form's network at a time on the device is not enough for turns: all live together, they are small.
    table = measure_steps(
        [(form.name, Training(form, device, args.batch)) for form in forms_of(device, only=args.forms)],
        args.rounds,
        results,
        steps=10 if device.type == "cuda" else 1,
    )
    macs = step_macs(args.batch * WINDOW)
    found = results.values.get("ceilings", {})
    for form in forms_of(device):
        row = table.get(form.name)
        if row is None or not found:
            continue
        kind = "bf16" if form.autocast else "TF32" if form.tf32 else "float32"
        done = macs["plain" if form.plain else "low rate"] / row["seconds a step"] / 1e9
        row["share of the matrix product's rate"] = done / found[f"matrix product {kind}, GMAC/s"]
        moved = least_traffic(args.batch, 2 if form.autocast else 4) / row["seconds a step"] / 1e9
        row["share of the copy's rate, least traffic"] = moved / found["copy, GB/s read and written"]
    show_steps(table, results, "plain float32")
    results.keep("step", table)


def compiled_step(device: torch.device, results: Results, args: argparse.Namespace) -> None:
    """torch.compile on a processor."""
    forms = (CPU_FORMS[0], *forms_of(device, compiled=True), CPU_FORMS[-1])
    table = measure_steps([(form.name, Training(form, device, args.batch)) for form in forms], args.rounds, results)
    show_steps(table, results, "plain float32")
    results.keep("compile", table)


def batches(device: torch.device, results: Results, args: argparse.Namespace) -> None:
    """Throughput and memory by batch size (GPU)."""
    chosen = [form for form in GPU_FORMS if form.name in ("plain float32", "torch form bf16 autocast")]
    chosen += [form for form in GPU_FORMS if form.torch_compile == "default" and form.autocast]
    tables = {}
    for batch in (8, 16, 32, 64):
        results.say(f" batch {batch}")
        torch.cuda.empty_cache()
        table = measure_steps([(f.name, Training(f, device, batch)) for f in chosen], min(3, args.rounds), results, 5)
        show_steps(table, results, "plain float32")
        tables[batch] = table
    results.keep("batches", tables)


def inference(device: torch.device, results: Results, args: argparse.Namespace) -> None:
    """Seconds for a night of 960 epochs: one pass, and overlapping windows as prediction does it."""
    night = torch.randn(1, 2, NIGHT * SAMPLES_PER_EPOCH, device=device)
    last = NIGHT - WINDOW
    starts = [*range(0, last, STRIDE), last]
    size = 4 if device.type == "cpu" else 2048 // WINDOW
    wanted = ("plain float32", "torch form (low rate)", "compiled blocks", "torch form bf16")
    forms = [form for form in forms_of(device, only=args.forms) if form.name.startswith(wanted)]
    network = build_network(NetworkConfig()).to(device).eval()

    def one_pass() -> None:
        network(night)

    def overlapping() -> None:
        for first in range(0, len(starts), size):
            windows = [
                night[0, :, start * SAMPLES_PER_EPOCH : (start + WINDOW) * SAMPLES_PER_EPOCH]
                for start in starts[first : first + size]
            ]
            network(torch.stack(windows))

    seconds: dict[str, list[tuple[float, float]]] = {}
    with torch.inference_mode():
        for turn in range(-1, args.rounds):
            for form in forms:
                network.use_plain_form(form.plain)
                for name, action in (("one pass", one_pass), (f"windows every {STRIDE}", overlapping)):
                    with as_form(form, device):
                        taken = timed(device, action)
                    if turn >= 0:
                        seconds.setdefault(f"{form.name}, {name}", []).append(taken)
    table = {}
    for name, values in seconds.items():
        wall = statistics.median(each[0] for each in values)
        table[name] = {
            "seconds a night": wall,
            "least seconds a night": min(each[0] for each in values),
            "CPU seconds a night": statistics.median(each[1] for each in values),
            "epochs/s": NIGHT / wall,
        }
        results.say(
            f"  {name:52s} {wall:7.3f} s a night (least {table[name]['least seconds a night']:.3f}, "
            f"{table[name]['CPU seconds a night']:.3f} s CPU) {NIGHT / wall:9.0f} epochs/s"
        )
    results.keep("inference", table)


class _Sequence(nn.Module):
    """braindecode's U-Sleep takes [batch, epochs, channels, samples] and gives [batch, 5, epochs]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        given: Tensor = self.network(x.unflatten(2, (WINDOW, SAMPLES_PER_EPOCH)).transpose(1, 2))
        return given


def measure_forwards(trainings: Sequence[tuple[str, Training]], rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds of a prediction of the training's batch, in turns."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name, _ in trainings}
    for turn in range(-1, rounds):
        for name, training in trainings:
            training.network.eval()
            with as_form(training.form, training.device), torch.inference_mode():
                taken = timed(training.device, lambda t=training: t.run(t.signal))
            if turn >= 0:
                seconds[name].append(taken)
    return {
        name: {
            "seconds a forward": statistics.median(each[0] for each in values),
            "CPU seconds a forward": statistics.median(each[1] for each in values),
        }
        for name, values in seconds.items()
    }


def others(device: torch.device, results: Results, args: argparse.Namespace) -> None:
    """U-Sleep, ours and braindecode's, beside the fastest and the plain form of TinyUStaging: a step and a forward.

    braindecode 0.8.1 is the last release without torchaudio, whose published build does not load beside CPU torch.
    """
    chosen = [forms_of(device)[0], CPU_FORMS[-1] if device.type == "cpu" else GPU_FORMS[4]]
    trainings = [(f"TinyUStaging, {form.name}", Training(form, device, args.batch)) for form in chosen]
    plain = Form(name="as it comes")
    ours = [plain, Form(name="compiled blocks", compiled_blocks=True)] if device.type == "cpu" else [plain]
    try:
        from tusp.models.configs import USleepConfig
        from tusp.models.usleep import build_usleep
    except ImportError as error:
        results.say(f"  our U-Sleep: not there ({error})")
    else:
        trainings += [
            (f"U-Sleep of tusp, {form.name}", Training(form, device, args.batch, build_usleep(USleepConfig())))
            for form in ours
        ]
    note = ""
    try:
        from braindecode.models import USleep
    except Exception as error:  # noqa: BLE001 - its own requirements may fail in any way
        note = f"braindecode cannot be imported here ({type(error).__name__}: {str(error).splitlines()[0][:120]})"
        results.say(f"  U-Sleep of braindecode: not measured, {note}")
    else:
        network = USleep(n_chans=2, sfreq=128, n_outputs=5, input_window_seconds=30)
        name = f"U-Sleep of braindecode {version('braindecode')}"
        trainings.append((name, Training(plain, device, args.batch, _Sequence(network))))
    table = measure_steps(trainings, args.rounds, results)
    show_steps(table, results, f"TinyUStaging, {chosen[0].name}")
    forwards = measure_forwards([each for each in trainings if each[0] in table], args.rounds)
    for name, training in trainings:
        if name in table:
            row = table[name] | forwards[name]
            row["parameters"] = sum(p.numel() for p in training.network.parameters())
            table[name] = row
            results.say(
                f"  {name:52s} forward alone {row['seconds a forward'] * 1e3:8.1f} ms "
                f"({row['CPU seconds a forward'] * 1e3:8.1f} ms CPU), {row['parameters']:,} parameters"
            )
    results.keep("others", {**table, **({"note": note} if note else {})})


def _fold(form: Form, device: str, batch: int, threads: int, barrier: Any, seconds: float, answers: Any) -> None:
    """One fold in a process of its own: steps for so many seconds once all are ready."""
    torch.set_num_threads(threads)
    where = torch.device(device)
    try:
        training = Training(form, where, batch)
        with as_form(form, where):
            for _ in range(3):
                training.step()
            synchronise(where)
            barrier.wait(300)
            start, done = time.perf_counter(), 0
            while time.perf_counter() - start < seconds:
                training.step()
                done += 1
            synchronise(where)
            taken = time.perf_counter() - start
        memory = torch.cuda.max_memory_reserved() / 2**30 if where.type == "cuda" else 0.0
        answers.put((done * batch * WINDOW / taken, memory, ""))
    except Exception as error:  # noqa: BLE001 - out of memory with many folds is a result
        barrier.abort()
        answers.put((0.0, 0.0, f"{type(error).__name__}: {str(error).splitlines()[0][:150]}"))


def folds(device: torch.device, results: Results, args: argparse.Namespace) -> None:
    """Networks trained at the same time on one device."""
    gpu = device.type == "cuda"
    form = GPU_FORMS[4] if gpu else CPU_FORMS[-1]
    cores = len(os.sched_getaffinity(0))
    counts = (1, 2, 4, 8) if gpu else tuple(n for n in (1, 2, 4, 8) if n <= cores)
    seconds = 8.0 if gpu else 15.0
    context = multiprocessing.get_context("spawn")
    table: dict[str, Any] = {}
    for count in counts:
        threads = max(1, cores // count)
        barrier, answers = context.Barrier(count), context.Queue()
        arguments = (form, str(device), args.batch, threads, barrier, seconds, answers)
        workers = [context.Process(target=_fold, args=arguments) for _ in range(count)]
        for worker in workers:
            worker.start()
        gained = [answers.get(timeout=400) for _ in workers]
        for worker in workers:
            worker.join(60)
        failed = next((problem for *_, problem in gained if problem), "")
        table[f"{count} processes"] = {
            "epochs/s together": sum(rate for rate, _, _ in gained),
            "GB reserved each": max(memory for _, memory, _ in gained),
            "failed": failed,
        }
        results.say(
            f"  {count} processes of {threads} threads: {sum(rate for rate, _, _ in gained):9.0f} epochs/s together, "
            f"{max(memory for _, memory, _ in gained):.1f} GB each {failed}"
        )
    if gpu:
        for count in counts:
            trainings = [Training(form, device, args.batch) for _ in range(count)]
            streams = [torch.cuda.Stream() for _ in trainings]

            def turn(trainings: list[Training] = trainings, streams: list[Any] = streams) -> None:
                for training, stream in zip(trainings, streams, strict=True):
                    with torch.cuda.stream(stream):
                        training.step()

            with as_form(form, device):
                for _ in range(3):
                    turn()
                taken = timed(device, lambda turn=turn: [turn() for _ in range(20)])[0]
            rate = 20 * count * args.batch * WINDOW / taken
            table[f"{count} streams"] = {"epochs/s together": rate}
            results.say(f"  {count} streams of one process: {rate:9.0f} epochs/s together")
    results.keep("folds", table)


def idle(device: torch.device, results: Results, args: argparse.Namespace) -> None:
    """Share of wall time without any kernel, in training from nights that lie on the device in half precision."""
    from torch.profiler import DeviceType, ProfilerActivity, profile

    table = {}
    nights = torch.randn(8, 2, NIGHT * SAMPLES_PER_EPOCH, device=device, dtype=torch.float16)
    for form in (GPU_FORMS[0], GPU_FORMS[4], GPU_FORMS[5], GPU_FORMS[6]):
        for batch in (args.batch, 16):
            try:
                training = Training(form, device, batch)

                def fed(training: Training = training, batch: int = batch) -> None:
                    starts = torch.randint(0, NIGHT - WINDOW, (batch,))
                    windows = [
                        nights[i % 8, :, s * SAMPLES_PER_EPOCH : (s + WINDOW) * SAMPLES_PER_EPOCH]
                        for i, s in enumerate(starts.tolist())
                    ]
                    training.signal = torch.stack(windows).float()
                    training.step()

                with as_form(form, device):
                    for _ in range(5):
                        fed()
                    unprofiled = timed(device, lambda fed=fed: [fed() for _ in range(20)])[0]
                    with profile(activities=[ProfilerActivity.CUDA]) as trace:
                        synchronise(device)
                        for _ in range(20):
                            fed()
                        synchronise(device)
                spans = sorted(
                    (event.time_range.start, event.time_range.end)
                    for event in trace.events() or []
                    if event.device_type == DeviceType.CUDA
                )
                busy, reached = 0.0, float("-inf")
                for start, end in spans:
                    busy += max(0.0, end - max(start, reached))
                    reached = max(reached, end)
                table[f"{form.name}, batch {batch}"] = {
                    "idle share": max(0.0, 1 - busy / 1e6 / unprofiled),
                    "busy seconds": busy / 1e6,
                    "wall seconds": unprofiled,
                }
                results.say(f"  {form.name}, batch {batch}: idle {100 * max(0.0, 1 - busy / 1e6 / unprofiled):.1f} %")
            except Exception as error:  # noqa: BLE001 - an unattended run goes on, and says what failed
                results.say(f"  {form.name}, batch {batch}: failed: {type(error).__name__}: {str(error)[:200]}")
    results.keep("idle", table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted({*GPU_PARTS, *CPU_PARTS, "compile"}))
    parser.add_argument("--forms", nargs="+", default=[""], help="only forms whose name holds one of these words")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4, help="windows of 31 epochs a step")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", type=Path, default=os.environ.get("OUT"))
    parser.add_argument(
        "--minutes", type=float, help="for all parts together (default 9.5 on a GPU, no limit on a CPU)"
    )
    parser.add_argument("--tiny", action="store_true", help="sharing, steady, ablation: a tiny network and corpus")
    args = parser.parse_args()
    began = time.perf_counter()
    device = torch.device(args.device)
    gpu = device.type == "cuda"
    torch.set_num_threads(args.threads)
    results = Results(Path(args.folder) if args.folder else None)
    machine = {
        "device": torch.cuda.get_device_name() if gpu else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "compiled blocks": native.status(),
        "load": os.getloadavg(),
    }
    results.say(", ".join(f"{name}: {value}" for name, value in machine.items()))
    results.keep("machine", machine)
    run: dict[str, Callable[[], object]] = {
        "ceilings": lambda: ceilings(device, results),
        "step": lambda: step(device, results, args),
        "inference": lambda: inference(device, results, args),
        "idle": lambda: idle(device, results, args),
        "folds": lambda: folds(device, results, args),
        "batches": lambda: batches(device, results, args),
        "others": lambda: others(device, results, args),
        "compile": lambda: compiled_step(device, results, args),
        "sharing": lambda: sharing(device, results, size_for(args)),
        "steady": lambda: steady(device, results, size_for(args)),
    }
    minutes = args.minutes or (9.5 if gpu else math.inf)
    failed = False
    for part in args.only or (GPU_PARTS if gpu else CPU_PARTS):
        if part in ("idle", "batches") and not gpu:
            results.say(f"{part}: needs a GPU")
            continue
        start = time.perf_counter()
        left = 60 * minutes - (start - began)
        seconds = min(left, GPU_PARTS.get(part, left)) if gpu else left
        if seconds < LEAST:
            results.say(f"{part}: not begun, {max(0, left):.0f} s are left")
            results.keep(part, {"not begun": left})
            continue
        results.say(f"{part}:")
        try:
            if part == "ablation":  # keeps its own time, so that it can say what is left
                # A part that failed is no reason to leave out another: 4 cells at once is then a guess.
                workers = results.values.get("sharing", {}).get("best") or (4 if gpu else 1)
                ablation(device, results, size_for(args), seconds=min(seconds, 600), workers=workers)
                continue
            with limited(seconds):
                run[part]()
        except OutOfTimeError:
            results.say(f"  cut after {seconds:.0f} s")
            results.keep(part, {**(results.values.get(part) or {}), "cut after seconds": seconds})
        except Exception:  # noqa: BLE001 - an unattended run goes on to the next part, and ends with status 1
            failed = True
            results.say(traceback.format_exc())
            results.keep(part, {**(results.values.get(part) or {}), "failed": traceback.format_exc()})
        results.say(f"  ({time.perf_counter() - start:.0f} s)")
    results.keep("load at the end", os.getloadavg())
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
