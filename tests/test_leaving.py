"""The end of a process in which threads still run."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import atexit, logging, os, sys, threading, time
import tusp.cli.main as main
from tusp.platform.errors import CellError
from tusp.platform.leaving import UNSTOPPABLE

name = UNSTOPPABLE + "late" if {marked} else "late"
threading.Thread(target=time.sleep, args=(100,), daemon=True, name=name).start()
atexit.register(lambda: os._exit(77))  # a library that is half gone when its thread calls it

def app():
    print("said", end="")
    {ends}

main.app = app
main.run()
"""


@pytest.mark.parametrize(
    ("ends", "status", "said"),
    [
        ("raise CellError('a cell failed')", 1, "tusp: a cell failed\n"),
        ("raise main.TuspError('wrong')", 2, "tusp: wrong\n"),
        ("sys.exit(130)", 130, ""),
        ("sys.exit(0)", 0, ""),
    ],
)
def test_the_status_and_what_was_said_survive_threads_that_cannot_be_stopped(ends: str, status: int, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(ends=ends, marked=True)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (status, "said", said)


def test_others_end_as_python_does() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(ends="sys.exit(3)", marked=False)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 77
