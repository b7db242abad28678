"""A log in the cell's folder: what happened in every attempt, also when its worker is long gone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

LOG: Final = "log.txt"
"""Lines of all attempts at a cell, the last one last."""

ERROR: Final = "error.txt"
"""Traceback of the last attempt, where it failed."""

log = logging.getLogger(__name__)


@contextmanager
def cell_log(folder: Path) -> Iterator[None]:
    """Append what is logged meanwhile to the cell's log: all of tusp, warnings and errors of the rest.

    A log that cannot be written stops no cell.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(folder / LOG, encoding="utf-8")
    except OSError as error:
        log.warning("%s cannot be written (%s)", folder / LOG, error.strerror)
        yield
        return
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(lambda record: record.levelno >= logging.WARNING or record.name.startswith("tusp."))
    root, ours = logging.getLogger(), logging.getLogger("tusp")
    level = ours.level
    ours.setLevel(logging.INFO)
    logging.captureWarnings(True)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        logging.captureWarnings(False)
        ours.setLevel(level)
        handler.close()


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a text file; none where there is no such file."""
    if not path.is_file():
        return []
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
