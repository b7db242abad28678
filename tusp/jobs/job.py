"""What travels between the driver and a worker. Free of torch and Ray."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tusp.platform.files import file_lock


@dataclass(frozen=True, kw_only=True)
class CellJob:
    """All a worker needs to run a cell; plain values that travel between processes."""

    id: str
    plan: Mapping[str, Any]
    home: str
    """TUSP_HOME; artefact paths are relative to it."""
    nights: Mapping[str, Mapping[str, str]]
    """Folder of every prepared recording, by corpus and recording."""
    device: str = "cpu"
    threads: int = 1
    gpus: float = 0.0
    """GPUs it holds, or the fraction of one; of each of its workers."""
    workers: int = 1
    """Processes that train it together; no part of its identity."""

    @property
    def folder(self) -> Path:
        """The cell's folder."""
        return cell_folder(Path(self.home), self.id)


Outcome = Mapping[str, Any]
"""JSON: ``result``, ``counts``, ``curve``, ``artefacts``, ``environment``, ``resumed_from_pass``."""


def cell_folder(home: Path, cell_id: str) -> Path:
    """Folder of a cell's files."""
    return home / "cells" / cell_id[:2] / cell_id


def forget_cell(home: Path, cell_id: str) -> None:
    """Remove a cell's files, so that it is trained anew."""
    folder = cell_folder(home, cell_id)
    if folder.is_dir():
        with file_lock(folder / "lock"):
            shutil.rmtree(folder)
