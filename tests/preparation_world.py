"""Nights that are prepared in tests, and looking at what was written."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from night_adapter import NightAdapter, write_night

from tusp.datasets.preparation import (
    PreparedCorpus,
    Source,
    prepare_recordings,
)
from tusp.datasets.prepared import PreparedRecording
from tusp.datasets.recording import RecordingFiles

STAGES = [-1, -1, 0, 0, 1, 2, -1, 3, 3, 4, 0, -1]
"""Kept: epochs 2 to 10."""
FIRST, KEPT = 2, 9


def night(
    folder: Path, name: str = "n1", *, seed: int = 0, subject: str = "p1", stages: Sequence[int] = STAGES
) -> tuple[RecordingFiles, tuple[Source, ...]]:
    rng = np.random.default_rng(seed)
    seconds = 30 * len(stages)
    channels = {
        "C3": (100.0, rng.normal(3, 25, 100 * seconds)),
        "C4": (256.0, rng.normal(-2, 40, 256 * seconds)),
        "E1": (50.0, rng.normal(0, 60, 50 * seconds)),
        "EMG": (100.0, rng.normal(0, 5, 100 * seconds)),
    }
    return write_night(folder, name, channels, stages, subject=subject)


def prepare(root: Path, nights: Sequence[tuple[RecordingFiles, Sequence[Source]]], **options: Any) -> PreparedCorpus:
    adapter = options.pop("adapter", NightAdapter())
    return prepare_recordings(adapter, nights, corpus="c", root=root, **{"workers": 1, "progress": None, **options})


def prepare_one(root: Path, one: tuple[RecordingFiles, Sequence[Source]], **options: Any) -> PreparedRecording:
    prepared = prepare(root, [one], **options)
    assert not prepared.refused, prepared.refused
    return prepared.recordings[0]


def bytes_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def stored(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.name != ".locks")
