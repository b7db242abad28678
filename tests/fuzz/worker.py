"""The process in which broken files are read: it may hang, crash or run out of memory, and is replaced then.

Takes one JSON request a line (``format``, ``seed``, ``index``; or ``folder`` with a kept case) and answers each with
one line. A case that takes more processor time than it may ends the process by SIGPROF.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.formats import make_target
from fuzz.mutation import Mutant, Odd
from fuzz.target import Finding, Target

CASE = "case.json"


def generator(format_name: str, seed: int, index: int) -> np.random.Generator:
    """The generator of one case."""
    return np.random.default_rng([seed, zlib.crc32(format_name.encode()), index])


def keep(folder: Path, request: dict[str, Any], mutant: Mutant, detail: str) -> None:
    """Store a case so that it can be replayed and looked at."""
    folder.mkdir(parents=True, exist_ok=True)
    odd = {}
    for number, (name, content) in enumerate(mutant.files.items()):
        if isinstance(content, Odd):
            odd[name] = content.kind
        else:
            (folder / f"{number}-{Path(name).name}").write_bytes(content)
    case = {**request, "what": mutant.what, "files": list(mutant.files), "odd": odd, "version": mutant.seed}
    (folder / CASE).write_text(json.dumps({**case, "must_refuse": mutant.must_refuse, "detail": detail}, indent=1))


def kept(folder: Path) -> tuple[str, Mutant]:
    """A stored case and the name of its format."""
    case = json.loads((folder / CASE).read_text())
    files = {
        name: Odd(kind=case["odd"][name])
        if name in case["odd"]
        else (folder / f"{number}-{Path(name).name}").read_bytes()
        for number, name in enumerate(case["files"])
    }
    mutant = Mutant(files=files, what=case["what"], must_refuse=case["must_refuse"], seed=case["version"])
    return case["format"], mutant


def _data_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


def _judge(target: Target, root: Path, mutant: Mutant) -> tuple[str, str]:
    try:
        return target.check(root, mutant), ""
    except Finding as finding:
        return "finding", str(finding)
    except BaseException:  # noqa: BLE001 - whatever comes out is what is looked for
        return "finding", traceback.format_exc(limit=-8)


def serve(workspace: Path, cpu_seconds: float, memory_bytes: int) -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print do not disturb the answers
    faulthandler.enable()
    faulthandler.register(signal.SIGPROF, chain=True)
    targets: dict[str, Target] = {}
    for line in sys.stdin:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, 0)
        name = request["format"]
        if name not in targets:
            (folder := Path(tempfile.mkdtemp(prefix=f"{name}-", dir=workspace))).mkdir(exist_ok=True)
            try:
                targets[name] = make_target(name, folder)
            except BaseException:
                answers.write(json.dumps({"broken": traceback.format_exc(limit=-8)}) + "\n")
                answers.flush()
                raise
            resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + memory_bytes, resource.RLIM_INFINITY))
        target = targets[name]
        mutant = (
            kept(Path(request["folder"]))[1]
            if "folder" in request
            else target.mutant(generator(name, request["seed"], request["index"]))
        )
        if request.get("keep"):  # a case that ended an earlier process: written down, not read again
            keep(Path(request["keep"]), request, mutant, request["detail"])
            answers.write(json.dumps({"what": mutant.what}) + "\n")
            answers.flush()
            continue
        root = Path(tempfile.mkdtemp(prefix="case-", dir=workspace))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        outcome, detail = _judge(target, root, mutant)
        signal.setitimer(signal.ITIMER_PROF, 0)
        shutil.rmtree(root, ignore_errors=True)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answer = {
            "outcome": outcome,
            "detail": detail,
            "what": mutant.what,
            "cpu": time.process_time() - start,
            "peak_mib": peak / 1024,
            "grown_mib": (peak - before) / 1024,
        }
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
