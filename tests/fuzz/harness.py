"""Runs cases in another process, one after the other, and says what became of them."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
CPU_SECONDS = 5.0
WALL_SECONDS = 30.0
"""Generous, since the machine may be busy with something else; processor time is what counts."""
MEMORY_BYTES = 2**30
MEMORY_DISK = Path("/dev/shm")
"""Where cases are written, when there is room: thousands of small files, some of them synced."""
OUTCOMES = ("refused", "equal", "different")


@dataclass(frozen=True, kw_only=True)
class Found:
    """One finding: the case, what was done to the file, and what went wrong."""

    format: str
    seed: int
    index: int
    what: tuple[str, ...]
    detail: str
    kept: Path | None = None

    def __str__(self) -> str:
        where = f" [{self.kept}]" if self.kept else ""
        return f"{self.format} seed {self.seed} case {self.index} ({'; '.join(self.what)}): {self.detail}{where}"


@dataclass(kw_only=True)
class Tally:
    """What became of the cases of one format."""

    format: str
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[Found] = field(default_factory=list)
    seconds: float = 0.0
    slowest: float = 0.0
    """Processor seconds of the slowest case."""
    peak_mib: float = 0.0
    """Resident memory of the process at its highest, with everything that it has imported."""
    grown_mib: float = 0.0
    """Largest growth of that peak in one case."""

    def line(self) -> str:
        """One line for a person."""
        counts = ", ".join(f"{self.outcomes[outcome]} {outcome}" for outcome in OUTCOMES)
        return (
            f"{self.format:18} {sum(self.outcomes.values()):6} cases: {counts}, {len(self.findings)} findings;"
            f" {self.seconds:.1f} s, slowest {self.slowest:.2f} s, peak {self.peak_mib:.0f} MiB"
            f" (at most +{self.grown_mib:.0f} a case)"
        )


class Harness:
    """Holds the process that reads; to be used as a context."""

    def __init__(
        self,
        *,
        keep: Path | None = None,
        cpu_seconds: float = CPU_SECONDS,
        wall_seconds: float = WALL_SECONDS,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self.keep = keep
        self.limits = (cpu_seconds, memory_bytes)
        self.wall_seconds = wall_seconds
        self.worker: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Harness:
        in_memory = MEMORY_DISK.is_dir() and shutil.disk_usage(MEMORY_DISK).free > 2**29
        self.workspace = Path(tempfile.mkdtemp(prefix="tusp-fuzz-", dir=MEMORY_DISK if in_memory else None))
        self.log = self.workspace / "worker.log"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        shutil.rmtree(self.workspace, ignore_errors=True)

    def run(self, format_name: str, *, count: int, seed: int, first: int = 0) -> Tally:
        """Judge ``count`` cases of one format."""
        tally = Tally(format=format_name)
        start = time.monotonic()
        for index in range(first, first + count):
            request = {"format": format_name, "seed": seed, "index": index}
            answer = self._ask(request)
            tally.outcomes[answer["outcome"]] += 1
            tally.slowest = max(tally.slowest, answer.get("cpu", 0.0))
            tally.peak_mib = max(tally.peak_mib, answer.get("peak_mib", 0.0))
            tally.grown_mib = max(tally.grown_mib, answer.get("grown_mib", 0.0))
            if answer["outcome"] == "finding":
                folder = self.keep / f"{format_name}-{seed}-{index:05d}" if self.keep else None
                again = {**request, "keep": str(folder or self.workspace / "kept"), "detail": answer["detail"]}
                what = self._ask(again).get("what", ["the case cannot be made again"])
                tally.findings.append(
                    Found(
                        format=format_name,
                        seed=seed,
                        index=index,
                        what=tuple(what),
                        detail=answer["detail"],
                        kept=folder,
                    )
                )
        tally.seconds = time.monotonic() - start
        return tally

    def replay(self, folder: Path) -> dict[str, Any]:
        """Judge a kept case again."""
        case = json.loads((folder / "case.json").read_text())
        return self._ask({"format": case["format"], "folder": str(folder)})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        worker = self.worker or self._start()
        assert worker.stdin is not None and worker.stdout is not None
        try:
            worker.stdin.write(json.dumps(request).encode() + b"\n")
            worker.stdin.flush()
        except BrokenPipeError:
            return self._ended("the process ended")
        with selectors.DefaultSelector() as selector:
            selector.register(worker.stdout, selectors.EVENT_READ)
            if not selector.select(self.wall_seconds):
                worker.kill()
                return self._ended(f"no answer within {self.wall_seconds:g} s")
        line = worker.stdout.readline()
        if not line:
            return self._ended("")
        answer: dict[str, Any] = json.loads(line)
        if "broken" in answer:
            self._stop()
            raise RuntimeError(f"{request['format']}: the sound files are not read\n{answer['broken']}")
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]),
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        with self.log.open("wb") as log:
            self.worker = subprocess.Popen(
                [sys.executable, "-m", "fuzz.worker", str(self.workspace), *map(str, self.limits)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                cwd=self.workspace,
            )
        return self.worker

    def _ended(self, reason: str) -> dict[str, Any]:
        """What to say of a process that is gone; the next request starts another."""
        assert self.worker is not None
        status = self.worker.wait()
        if not reason:
            name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            hung = f"more than {self.limits[0]:g} s of processor time" if status == -signal.SIGPROF else "crash"
            reason = f"{hung} ({name})"
        said = self.log.read_text(errors="replace").strip()[-3000:]
        self._stop()
        return {"outcome": "finding", "detail": f"{reason}\n{said}".strip()}

    def _stop(self) -> None:
        if self.worker is None:
            return
        for stream in (self.worker.stdin, self.worker.stdout):
            if stream is not None:
                stream.close()
        try:
            self.worker.wait(5)
        except subprocess.TimeoutExpired:
            self.worker.kill()
            self.worker.wait()
        self.worker = None
