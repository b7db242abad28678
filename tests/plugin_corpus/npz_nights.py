"""Nights in NumPy archives: ``PERSON_NIGHT.npz`` with one array a channel, ``rate_hz``, and ``stages`` in words.

An archive that holds an entry ``simulated`` is simulated.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tusp.datasets.recording import Adapter, Channel, CorpusCard, Discovery, Hypnogram, RecordingFiles
from tusp.platform.errors import DataError, UserError

CHANNELS: Final = ("C3-A2", "C4-A1", "EOG")
STAGES: Final = {"wake": 0, "light": 2, "deep": 3, "rem": 4, "unknown": -1}
LARGEST_BYTES: Final = 2**30


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The archive; whatever is wrong with it is a DataError. Nothing in it is unpickled.

    Raises:
        DataError: it cannot be read, or unpacks to more than 1 GiB.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST_BYTES:
                raise DataError(f"{path}: unpacks to more than 1 GiB; not a night")
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except KeyError as error:
        raise DataError(f"{path}: holds no array {error}") from error
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a NumPy archive ({error})") from error


@dataclass(frozen=True, kw_only=True)
class NpzNights(Adapter):
    """Reads the archives."""

    @property
    def card(self) -> CorpusCard:
        return CorpusCard(
            name="npz-nights",
            title="Nights in NumPy archives",
            version="1",
            licence="CC0",
            access="private",
            citation="none",
            url="none",
            channel_groups={"EEG": ("C3-A2", "C4-A1"), "EOG": ("EOG",)},
            label_map=STAGES,
            subject_rule="what stands before the underscore: PERSON_NIGHT.npz",
            nights=4,
            people=3,
        )

    def discover(self, root: Path) -> Discovery:
        if not root.is_dir():
            raise UserError(f"{root}: no such folder; give the folder that holds the nights")
        nights, refused = [], {}
        for path in sorted(root.rglob("*.npz")):
            match = re.fullmatch(r"([a-z]+\d+)_n\d+", path.stem)
            if match is None:
                refused[path.stem] = f"{path}: name does not follow p1_n1.npz"
                continue
            try:
                with opened(path) as arrays:
                    simulated = "simulated" in arrays
            except DataError as error:
                refused[path.stem] = str(error)
                continue
            # signals and labels are in one file
            nights.append(
                RecordingFiles(name=path.stem, subject=match[1], signals=path, labels=path, simulated=simulated)
            )
        if not nights and not refused:
            raise UserError(f"{root}: holds no night of npz-nights (files such as p1_n1.npz)")
        return Discovery(recordings=nights, refused=refused)

    def channels(self, recording: RecordingFiles) -> list[Channel]:
        with opened(recording.signals) as arrays:
            rate = float(arrays["rate_hz"])
            return [
                Channel(name=name, sampling_rate_hz=rate, unit="uV", n_samples=len(arrays[name]))
                for name in CHANNELS
                if name in arrays
            ]

    def hypnogram(self, recording: RecordingFiles) -> Hypnogram:
        with opened(recording.signals) as arrays:
            words = [str(word) for word in arrays["stages"]]
        strange = sorted(set(words) - set(STAGES))
        if strange:
            raise DataError(f"{recording.signals}: stage {strange[0]!r} is none of {', '.join(STAGES)}")
        return Hypnogram(stages=np.array([STAGES[word] for word in words], np.int8))

    def read(self, recording: RecordingFiles, name: str) -> npt.NDArray[np.float32]:
        with opened(recording.signals) as arrays:
            return np.asarray(arrays[name], np.float32)
