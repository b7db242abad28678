"""What a file of signals says of itself, whichever library reads it: for the formats of described corpora."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePath
from typing import Final

import numpy as np
import numpy.typing as npt

from tusp.datasets.formats.edf import HIGHEST_RATE_HZ, LONGEST_SECONDS, microvolts_per
from tusp.platform.errors import DataError

MOST_SAMPLES: Final = 2**28
"""Of one channel: 26 h at 2,800 Hz, 2 GiB while a library holds them in double precision."""
LONGEST_REASON: Final = 200


@dataclass(frozen=True, kw_only=True)
class StoredSignal:
    """One signal as the header states it."""

    label: str
    unit: str
    """As the file states it; empty where it states none."""
    sampling_rate_hz: float
    """0 where the file states none."""
    n_samples: int
    position: int = 0
    """Where the reader finds it again."""
    gain: float = 1.0
    """What the library multiplied the file's values by, beyond the unit that is stated here."""


@dataclass(frozen=True, kw_only=True)
class SignalHeader:
    """Header of one night's signals, checked against the size of its files."""

    path: Path
    signals: Sequence[StoredSignal]
    start: datetime | None = None
    """As the header states it, without a time zone; None when it does not."""
    comments: str = ""
    """Free text in which a file may say that it is simulated."""
    companions: Mapping[str, Path] = field(default_factory=dict)
    """Other files that are read with this one, by role; all in the same folder."""
    problems: Sequence[str] = ()


def to_microvolts(
    values: npt.NDArray[np.float32] | npt.NDArray[np.float64], signal: StoredSignal, unit: str | None = None
) -> npt.NDArray[np.float32]:
    """Values of a signal in microvolts; as they are where the unit is not electrical or not known.

    Args:
        values: as the library gave them.
        signal: the signal that they are of.
        unit: unit to believe instead of the file's.
    """
    factor = microvolts_per(signal.unit if unit is None else unit) or 1.0
    scaled = np.asarray(values, np.float32).reshape(-1)
    if factor != signal.gain:
        scaled = scaled * np.float32(factor / signal.gain)
    return scaled


def check_extent(path: Path, label: str, sampling_rate_hz: float, n_samples: int) -> None:
    """Refuse rates and lengths that no night has.

    Raises:
        DataError: the rate or the number of samples is absurd.
    """
    if not 0 < sampling_rate_hz <= HIGHEST_RATE_HZ:
        raise DataError(f"{path}: header is damaged: {label} has a sampling rate of {sampling_rate_hz:g} Hz")
    if not 0 < n_samples <= MOST_SAMPLES:
        raise DataError(f"{path}: header states {n_samples} samples of {label}; wanted 1 to {MOST_SAMPLES}")
    if n_samples / sampling_rate_hz > LONGEST_SECONDS:
        raise DataError(f"{path}: header is damaged: {n_samples / sampling_rate_hz / 86400:g} days of {label}")


def beside(path: Path, name: str) -> Path:
    """The file called ``name`` in the folder of ``path``.

    Raises:
        DataError: the name leads out of the folder, or there is no such file.
    """
    if not name or PurePath(name).name != name or "\\" in name or ":" in name:
        raise DataError(f"{path}: refers to {name[:80]!r}; its files must lie in its own folder")
    found = path.with_name(name)
    if len(name) > 255 or not found.is_file():  # no file system has longer names
        raise DataError(f"{path}: refers to {name[:80]!r}, which is not beside it")
    return found


def by_role(files: Sequence[Path]) -> dict[str, Path]:
    """Files under roles made of their endings (``dat``, ``dat_2``), in order."""
    roles: dict[str, Path] = {}
    for file in files:
        role = file.suffix[1:].lower() or "data"
        same = sum(known == role or known.startswith(f"{role}_") for known in roles)
        roles[role if not same else f"{role}_{same + 1}"] = file
    return roles


def refused_by(library: str, path: Path, error: BaseException) -> DataError:
    """The one line for whatever a library raised about a file."""
    if isinstance(error, MemoryError):
        return DataError(f"{path}: reading it needs more memory than there is")
    text = one_line(str(error)).replace(str(path), path.name)
    return DataError(f"{path}: {library} cannot read it ({type(error).__name__}{': ' if text else ''}{text})")


def one_line(text: str) -> str:
    """The first line of a message, printable and of bounded length."""
    first = next((line for line in text.splitlines() if line.strip()), "").strip()[:LONGEST_REASON]
    return "".join(sign if sign.isprintable() else "?" for sign in first)
