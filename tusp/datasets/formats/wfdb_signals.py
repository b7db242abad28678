"""Signals of WFDB records (PhysioNet) in every storage format that the wfdb library knows.

The library allocates what a header states and opens every name in it, so names and sizes are checked first. Formats:
https://wfdb.io/spec/header-files.html and https://wfdb.io/spec/signal-files.html.
"""

from __future__ import annotations

import math
import stat
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tusp.datasets.formats.edf import unreadable
from tusp.datasets.formats.signals import (
    SignalHeader,
    StoredSignal,
    beside,
    by_role,
    check_extent,
    refused_by,
    to_microvolts,
)
from tusp.platform.errors import DataError

MOST_HEADER_BYTES: Final = 2**18
MOST_SIGNALS: Final = 1024
MOST_STORED: Final = 2**30
"""Samples of all signals of one file together."""
MOST_COMPRESSED: Final = 2**28
_LONGEST_LINE: Final = 1024
_LONGEST_SKEW: Final = 10_000
_BITS: Final = {
    "8": 8.0, "80": 8.0, "16": 16.0, "61": 16.0, "160": 16.0, "212": 12.0, "310": 32 / 3, "311": 32 / 3,
    "24": 24.0, "32": 32.0,
}  # fmt: skip
_COMPRESSED: Final = ("508", "516", "524")


def read_record_header(path: Path) -> SignalHeader:
    """The header of a record (``.hea``), checked against the files that it names; reads no samples.

    Raises:
        DataError: the header is unreadable or damaged, a file is missing, outside the folder or too short.
    """
    record, comments = _header(path)
    names = list(dict.fromkeys(record.file_name))
    files = {name: beside(path, name) for name in names}
    frames = record.sig_len
    problems: list[str] = []
    for name, file in files.items():
        here = [index for index, other in enumerate(record.file_name) if other == name]
        frames = _check_file(path, record, here, file, frames, problems)
    signals = []
    for index in range(record.n_sig):
        per_frame = int(record.samps_per_frame[index])
        label = str(record.sig_name[index] or f"signal {index + 1}")
        rate = float(record.fs) * per_frame
        check_extent(path, label, rate, frames * per_frame)
        signals.append(
            StoredSignal(
                label=label,
                unit=str(record.units[index] or ""),
                sampling_rate_hz=rate,
                n_samples=frames * per_frame,
                position=index,
            )
        )
    start = record.base_datetime
    return SignalHeader(
        path=path,
        signals=tuple(signals),
        start=start if isinstance(start, datetime) else None,
        comments=comments,
        companions=by_role(list(files.values())),
        problems=tuple(problems),
    )


def read_record_samples(
    header: SignalHeader, signal: StoredSignal, *, unit: str | None = None
) -> npt.NDArray[np.float32]:
    """All samples of one signal at its own rate, in microvolts (in the header's unit where that is not electrical).

    Samples that the record marks as missing are NaN.

    Returns:
        float32 [n_samples].

    Raises:
        DataError: the files cannot be read.
    """
    import wfdb

    path = header.path
    try:
        record = wfdb.rdrecord(
            str(path.with_suffix("")), channels=[signal.position], physical=True, smooth_frames=False, return_res=32
        )
        values = np.asarray(record.e_p_signal[0])
    except Exception as error:
        raise refused_by("wfdb", path, error) from error
    if len(values) != signal.n_samples:
        raise DataError(f"{path}: channel {signal.label!r} has {len(values)} of {signal.n_samples} samples")
    return to_microvolts(values, signal, unit)


def _header(path: Path) -> tuple[Any, str]:
    import wfdb

    if path.suffix != ".hea":
        raise DataError(f"{path}: not the header of a WFDB record (NAME.hea)")
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: not a regular file")
        if status.st_size > MOST_HEADER_BYTES:
            raise DataError(f"{path}: WFDB header of more than {MOST_HEADER_BYTES // 2**10} KiB")
        text = path.read_bytes().decode("latin-1")
    except OSError as error:
        raise unreadable(path, error) from error
    if not text.strip():
        raise DataError(f"{path}: empty file ({len(text)} bytes)")
    if any(len(line) > _LONGEST_LINE for line in text.splitlines()):
        raise DataError(f"{path}: WFDB header has a line of more than {_LONGEST_LINE} characters")
    try:
        record = wfdb.rdheader(str(path.with_suffix("")))
    except Exception as error:
        raise refused_by("wfdb", path, error) from error
    if not isinstance(record, wfdb.Record):
        raise DataError(f"{path}: a record of several segments; write it as one (wfdb: xform)")
    listed = len(record.file_name or ())
    if not 0 < listed <= MOST_SIGNALS or listed != record.n_sig:
        raise DataError(f"{path}: WFDB header states {record.n_sig} signals and describes {listed}")
    return record, "\n".join(line for line in text.splitlines() if line.startswith("#"))


def _check_file(path: Path, record: Any, here: list[int], file: Path, frames: int | None, problems: list[str]) -> int:
    """Whether a file holds what the header states of it; returns the number of frames."""
    kinds = {str(record.fmt[index]) for index in here}
    offsets = {int(record.byte_offset[index] or 0) for index in here}
    per_frame = [int(record.samps_per_frame[index]) for index in here]
    if len(kinds) > 1 or len(offsets) > 1:
        raise DataError(f"{path}: WFDB header gives {file.name} two formats")
    if min(per_frame) < 1 or max(int(record.skew[index] or 0) for index in here) > _LONGEST_SKEW:
        raise DataError(f"{path}: WFDB header is damaged: samples per frame or skew of {file.name}")
    kind, offset = kinds.pop(), offsets.pop()
    size = file.stat().st_size - (0 if kind in _COMPRESSED else offset)
    if kind in _COMPRESSED:
        if frames is None or not 0 < frames * sum(per_frame) <= MOST_COMPRESSED:
            raise DataError(f"{path}: WFDB header states {frames} samples of compressed {file.name}")
        return frames
    if kind not in _BITS:
        raise DataError(f"{path}: unknown WFDB storage format {kind!r}; known are {', '.join((*_BITS, *_COMPRESSED))}")
    held = max(0, math.floor(size * 8 / _BITS[kind] / sum(per_frame) + 1e-9))
    if frames is None:
        problems.append(f"header states no number of samples; {held} taken from the size of {file.name}")
        frames = held
    if held < frames:
        raise DataError(f"{path}: truncated: header states {frames} samples, {file.name} holds {held}")
    if frames * sum(per_frame) > MOST_STORED:
        raise DataError(f"{path}: {file.name} holds more than {MOST_STORED} samples; at most so many are read")
    return frames
