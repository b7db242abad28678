"""Leaving a process in which threads run that nobody can stop."""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import Final, NoReturn

UNSTOPPABLE: Final = "until-the-end-"
"""Beginning of the names of threads that wait for something outside and cannot be told to stop."""


def are_left() -> bool:
    """Whether such threads still run."""
    return any(thread.name.startswith(UNSTOPPABLE) for thread in threading.enumerate())


def leave(status: int) -> NoReturn:
    """End the process with this exit status.

    Where unstoppable threads are left it ends at once, after what was printed is written: while Python ends by itself
    they would go on with libraries that are half gone, and some of those (Ray) then end the process with a status of
    their own.
    """
    if are_left():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
