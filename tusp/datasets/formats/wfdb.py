"""Reading WFDB records: headers, signals of format 16, annotations.

A small reader of its own rather than the wfdb package's, for two reasons. ``wfdb.rdann`` (4.3.1) drops a note at sample
0, and three records of the CinC 2018 training set are scored from the first sample on. And every number in a header is
checked here against the size of the signal file before anything is allocated from it. The tests hold this reader
against wfdb. Formats: header(5), signal(5) and annot(5) of the WFDB Applications Guide.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from tusp.datasets.formats.edf import HIGHEST_RATE_HZ, LONGEST_SECONDS, unreadable
from tusp.platform.errors import DataError

MOST_HEADER_BYTES: Final = 2**20
MOST_ANNOTATION_BYTES: Final = 2 * 2**20
MOST_SAMPLES_PER_FRAME: Final = 1000
LONGEST_NAME: Final = 80
LONGEST_UNIT: Final = 20
"""Characters that are kept of a signal's name and unit."""
DEFAULT_RATE_HZ: Final = 250.0
DEFAULT_GAIN: Final = 200.0
DEFAULT_UNIT: Final = "mV"
MISSING: Final = -32768
"""Stored in place of a sample that was not recorded (format 16)."""

_NUMBER: Final = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RATE: Final = re.compile(rf"({_NUMBER})(?:/{_NUMBER}(?:\({_NUMBER}\))?)?", re.ASCII)
_FORMAT: Final = re.compile(r"(\d{1,4})(?:x(\d{1,6}))?(?::(\d{1,9}))?(?:\+(\d{1,15}))?", re.ASCII)
_GAIN: Final = re.compile(rf"({_NUMBER})(?:\(([-+]?\d{{1,12}})\))?(?:/(\S+))?", re.ASCII)
_WHOLE: Final = re.compile(r"[-+]?\d{1,15}", re.ASCII)
_MNEMONICS: Final = ' NLRaVFJASEj/Q~_|_sT*D"=pB^t+u?![]en@xf()r'
"""Symbol of every type of annotation, at its number."""
_SKIP, _NUM, _SUB, _CHAN, _AUX = 59, 60, 61, 62, 63
_HIGHEST_CODE: Final = 49


@dataclass(frozen=True, kw_only=True)
class WfdbSignal:
    """One signal as the header states it."""

    name: str
    unit: str
    file: Path
    """Signal file; it may be missing."""
    format: str
    """Storage format as a number in text, ``16`` for the one that is read."""
    byte_offset: int
    """Bytes before the first sample of the file."""
    samples_per_frame: int
    skew: int
    gain: float
    """Stored units per physical unit."""
    baseline: int
    """Stored value of physical zero."""
    checksum: int | None
    """Sum of all stored samples modulo 2^16 as the header states it."""

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest value that format 16 can store, in :attr:`unit`."""
        ends = sorted((value - self.baseline) / self.gain for value in (MISSING + 1, -(MISSING + 1)))
        return ends[0], ends[1]


@dataclass(frozen=True, kw_only=True)
class WfdbHeader:
    """Header of one record. Nothing in it was compared with the signal files yet: :func:`check_wfdb_files` does."""

    path: Path
    record: str
    sampling_rate_hz: float
    """Frames a second: the rate of every signal with one sample a frame."""
    n_samples: int | None
    """Frames; None when the header does not say."""
    start: datetime | None
    """Base date and time; None unless both are stated."""
    signals: tuple[WfdbSignal, ...]
    comments: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        """Length of the record in seconds, where it is stated."""
        return None if self.n_samples is None else self.n_samples / self.sampling_rate_hz


@dataclass(frozen=True, kw_only=True, slots=True)
class WfdbAnnotation:
    """One annotation: its place in ticks (samples, unless the file has a time resolution of its own)."""

    sample: int
    symbol: str
    """Mnemonic of the annotation's type (``"`` is a note), or its number where there is none."""
    aux_note: str


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _shown(text: str) -> str:
    return repr(_printable(text)[:40])


def _bytes_of(path: Path, most: int, what: str) -> bytes:
    """The whole file, when it is a regular one and not absurdly large."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: not a regular file")
        if status.st_size == 0:
            raise DataError(f"{path}: empty file (0 bytes)")
        if status.st_size > most:
            raise DataError(f"{path}: {status.st_size} bytes are too many for {what} (at most {most})")
        with path.open("rb") as stream:
            return stream.read(most)
    except OSError as error:
        raise unreadable(path, error) from error


def _start(path: Path, fields: Sequence[str]) -> datetime | None:
    """Base date and time: ``H:M:S[.fraction]`` and ``D/M/Y``; a header may leave out either."""
    if len(fields) < 2:
        return None
    clock = re.fullmatch(r"(?:(\d{1,2}):)?(?:(\d{1,2}):)?(\d{1,2})(\.\d*)?", fields[0], re.ASCII)
    day = re.fullmatch(r"(\d{1,2})/(\d{1,2})/(\d{1,4})", fields[1], re.ASCII)
    if clock is None or day is None:
        raise DataError(f"{path}: base time and date {_shown(' '.join(fields))} are not HH:MM:SS DD/MM/YYYY")
    hours, minutes = (clock[1], clock[2]) if clock[2] else (None, clock[1])
    try:
        return datetime(
            int(day[3]),
            int(day[2]),
            int(day[1]),
            int(hours or 0),
            int(minutes or 0),
            int(clock[3]),
            int(float(clock[4] or 0) * 1e6) if clock[4] not in (None, ".") else 0,
        )
    except ValueError:
        raise DataError(f"{path}: {_shown(' '.join(fields))} is no date and time") from None


def _file_beside(header: Path, name: str) -> Path:
    """The signal file of that name beside the header (also all in capitals or in none); a folder in it is refused."""
    if name in ("~", "-", ".", "..") or "/" in name or "\\" in name or "\0" in name or len(name) > 200:
        raise DataError(f"{header}: names {_shown(name)} as a signal file; wanted a file beside the header")
    for spelling in (name, name.upper(), name.lower()):
        if (header.parent / spelling).is_file():
            return header.parent / spelling
    return header.parent / name


def _signal(path: Path, line: str, index: int) -> WfdbSignal:
    fields = line.split(maxsplit=8)
    where = f"{path}: signal {index + 1}"
    if len(fields) < 2:
        raise DataError(f"{where}: {_shown(line)} states no file and format")
    form = _FORMAT.fullmatch(fields[1])
    if form is None:
        raise DataError(f"{where}: format {_shown(fields[1])} is not like 16 or 16+24")
    per_frame = int(form[2] or 1)
    if not 1 <= per_frame <= MOST_SAMPLES_PER_FRAME:
        raise DataError(f"{where}: {per_frame} samples a frame; wanted 1 to {MOST_SAMPLES_PER_FRAME}")
    numbers: list[int | None] = []
    for what, text in zip(("ADC resolution", "ADC zero", "first sample", "checksum"), fields[3:7], strict=False):
        if not _WHOLE.fullmatch(text):
            raise DataError(f"{where}: {what} {_shown(text)} is not a whole number")
        numbers.append(int(text))
    numbers += [None] * (4 - len(numbers))
    _, zero, _, checksum = numbers
    gain, baseline, unit = DEFAULT_GAIN, zero or 0, DEFAULT_UNIT
    if len(fields) > 2:
        stated = _GAIN.fullmatch(fields[2])
        value = float(stated[1]) if stated else math.nan
        if stated is None or not math.isfinite(value) or (value != 0 and not 1e-12 < abs(value) < 1e12):
            raise DataError(f"{where}: gain {_shown(fields[2])} is not like 200, 1/uV or 655.35(-32768)/%")
        gain = value or DEFAULT_GAIN
        baseline = int(stated[2]) if stated[2] else baseline
        unit = _printable(stated[3] or unit)[:LONGEST_UNIT]
    return WfdbSignal(
        name=_printable(fields[8].strip())[:LONGEST_NAME] if len(fields) > 8 else f"signal {index + 1}",
        unit=unit,
        file=_file_beside(path, fields[0]),
        format=form[1],
        byte_offset=int(form[4] or 0),
        samples_per_frame=per_frame,
        skew=int(form[3] or 0),
        gain=gain,
        baseline=baseline,
        checksum=checksum,
    )


def read_wfdb_header(path: Path) -> WfdbHeader:
    """Read a header file (``.hea``); opens no signal file.

    Raises:
        DataError: unreadable, not a WFDB header, of several segments, or with a number that cannot be.
    """
    text = _bytes_of(path, MOST_HEADER_BYTES, "a WFDB header").decode("utf-8", "replace")
    lines = [line.strip() for line in re.split(r"\r\n|\n|\r", text)]
    comments = tuple(_printable(line[1:].strip()) for line in lines if line.startswith("#"))
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise DataError(f"{path}: not a WFDB header (only comments)")
    fields = lines[0].split()
    if len(fields) < 2 or not _WHOLE.fullmatch(fields[1]):
        raise DataError(f"{path}: not a WFDB header (begins with {_shown(lines[0])}; wanted: record, signals, rate)")
    if "/" in fields[0]:
        raise DataError(f"{path}: a record of several segments ({_shown(fields[0])}); join them into one")
    count = int(fields[1])
    if count < 0 or count != len(lines) - 1:
        raise DataError(f"{path}: header states {count} signals but describes {len(lines) - 1}")
    rate = DEFAULT_RATE_HZ
    if len(fields) > 2:
        stated = _RATE.fullmatch(fields[2])
        rate = float(stated[1]) if stated else math.nan
    if not 1e-6 < rate <= HIGHEST_RATE_HZ:
        raise DataError(f"{path}: sampling rate {_shown(fields[2])} is not a number of Hz")
    n_samples = None
    if len(fields) > 3:
        if not _WHOLE.fullmatch(fields[3]) or int(fields[3]) < 0:
            raise DataError(f"{path}: number of samples {_shown(fields[3])} is not a whole number")
        n_samples = int(fields[3]) or None
    if n_samples is not None and n_samples / rate > LONGEST_SECONDS:
        raise DataError(f"{path}: header states {n_samples / rate / 86400:.3g} days of signal")
    return WfdbHeader(
        path=path,
        record=_printable(fields[0]),
        sampling_rate_hz=rate,
        n_samples=n_samples,
        start=_start(path, fields[4:6]),
        signals=tuple(_signal(path, line, index) for index, line in enumerate(lines[1:])),
        comments=comments,
    )


@dataclass(frozen=True, kw_only=True)
class _Frames:
    """How the samples of one signal file lie: frames of all its signals, one after another."""

    file: Path
    offset: int
    width: int
    """Samples in a frame, of all signals."""
    first: int
    """Samples in a frame before those of the signal asked for."""
    n_frames: int
    surplus: int
    """Bytes after the last frame that the header states."""


def _frames(header: WfdbHeader, index: int) -> _Frames:
    """Compare what the header states about a signal's file with the file."""
    signal = header.signals[index]
    group = [other for other in header.signals if other.file == signal.file]
    for other in group:
        if other.format != "16":
            raise DataError(f"{header.path}: signal {other.name!r} has format {other.format}; only format 16 is read")
        if other.skew:
            raise DataError(f"{header.path}: signal {other.name!r} has a skew of {other.skew} samples; not supported")
        if other.byte_offset != signal.byte_offset:
            raise DataError(f"{header.path}: signals of one file begin at byte {signal.byte_offset} and elsewhere")
    try:
        status = signal.file.stat()
    except OSError as error:
        raise unreadable(signal.file, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{signal.file}: not a regular file")
    width = sum(other.samples_per_frame for other in group)
    held, rest = divmod(max(status.st_size - signal.byte_offset, 0), 2 * width)
    n_frames = held if header.n_samples is None else header.n_samples
    if held < n_frames:
        rate = header.sampling_rate_hz * 3600
        raise DataError(
            f"{signal.file}: truncated: header states {n_frames} samples of {len(group)} signals, file holds {held}"
            f" ({held / rate:.2f} of {n_frames / rate:.2f} h)"
        )
    if n_frames == 0:
        raise DataError(f"{signal.file}: holds no samples")
    if n_frames / header.sampling_rate_hz > LONGEST_SECONDS:
        raise DataError(f"{signal.file}: {n_frames / header.sampling_rate_hz / 86400:.3g} days of signal")
    return _Frames(
        file=signal.file,
        offset=signal.byte_offset,
        width=width,
        first=sum(other.samples_per_frame for other in header.signals[:index] if other.file == signal.file),
        n_frames=n_frames,
        surplus=(held - n_frames) * 2 * width + rest,
    )


def check_wfdb_files(header: WfdbHeader) -> tuple[int, list[str]]:
    """Compare the header with the size of its signal files; reads no samples.

    Returns:
        Frames in every signal file, and what is odd about the files.

    Raises:
        DataError: no signals, a file is missing, shorter than the header says, or not in format 16; or files of
            different length where the header states none.
    """
    if not header.signals:
        raise DataError(f"{header.path}: header describes no signals")
    problems = []
    lengths = {}
    for index, signal in enumerate(header.signals):
        if signal.file not in lengths:
            frames = _frames(header, index)
            lengths[signal.file] = frames.n_frames
            if frames.surplus:
                problems.append(
                    f"{frames.surplus} bytes after the last sample that the header states in {signal.file.name};"
                    " not read"
                )
    if len(set(lengths.values())) > 1:
        raise DataError(f"{header.path}: its signal files hold {', '.join(map(str, lengths.values()))} samples")
    return next(iter(lengths.values())), problems


def read_wfdb_samples(header: WfdbHeader, index: int) -> npt.NDArray[np.float32]:
    """All samples of one signal in its physical unit, at its own rate (samples a frame times the record's rate).

    Physical value = (stored - baseline) / gain. Samples that were not recorded (-32768) are NaN, as in wfdb.

    Returns:
        float32 [frames * samples_per_frame].

    Raises:
        DataError: another format than 16, a truncated or missing file, or samples whose sum is not the header's
            checksum (skipped where the header states none, or 0 for all signals).
    """
    signal = header.signals[index]
    frames = _frames(header, index)
    try:
        stored = np.memmap(
            frames.file, dtype="<i2", mode="r", offset=frames.offset, shape=(frames.n_frames, frames.width)
        )
    except OSError as error:
        raise unreadable(frames.file, error) from error
    except ValueError as error:  # shorter than a moment ago
        raise DataError(f"{frames.file}: changed while it was read") from error
    digital = np.array(stored[:, frames.first : frames.first + signal.samples_per_frame]).reshape(-1)
    if signal.checksum is not None and any(other.checksum for other in header.signals):
        total = int(digital.sum(dtype=np.int64))
        if (total - signal.checksum) % 2**16:
            raise DataError(
                f"{frames.file}: signal {signal.name!r} is damaged or of another record: its samples sum to"
                f" {total % 2**16}, the header says {signal.checksum % 2**16} (modulo 2^16)"
            )
    samples = digital.astype(np.float32)
    samples -= np.float32(signal.baseline)
    samples /= np.float32(signal.gain)
    samples[digital == MISSING] = np.nan
    return samples


def read_wfdb_annotations(path: Path) -> list[WfdbAnnotation]:
    """All annotations of a file in WFDB's (MIT's) annotation format, in file order; a note at sample 0 is kept.

    Notes that describe the file itself (``## time resolution: 200``) are annotations too: see
    :func:`time_resolution_hz`.

    Raises:
        DataError: unreadable, truncated, or not an annotation file.
    """
    raw = _bytes_of(path, MOST_ANNOTATION_BYTES, "annotations")
    if raw[:4] == b"\x89HDF":
        raise DataError(f"{path}: an HDF5 file, not WFDB annotations")
    found: list[WfdbAnnotation] = []
    code, sample, note = 0, 0, ""
    position = 0

    def add() -> None:
        if code:
            if sample < 0:
                raise DataError(f"{path}: damaged: an annotation at sample {sample}")
            found.append(
                WfdbAnnotation(
                    sample=sample, symbol=_MNEMONICS[code] if code < len(_MNEMONICS) else str(code), aux_note=note
                )
            )

    while True:
        if position + 2 > len(raw):
            raise DataError(f"{path}: truncated: the annotations have no end")
        word = raw[position] | raw[position + 1] << 8
        position += 2
        kind, value = word >> 10, word & 0x3FF
        if word == 0:
            add()
            break
        if kind <= _HIGHEST_CODE:
            add()
            code, sample, note = kind, sample + value, ""
        elif kind == _SKIP:
            if position + 4 > len(raw):
                raise DataError(f"{path}: truncated inside an annotation")
            add()
            high, low = raw[position] | raw[position + 1] << 8, raw[position + 2] | raw[position + 3] << 8
            skipped = high << 16 | low
            code, sample, note = 0, sample + skipped - (2**32 if skipped >= 2**31 else 0), ""
            position += 4
        elif kind == _AUX:
            value &= 0xFF
            if position + value > len(raw):
                raise DataError(f"{path}: truncated inside an annotation")
            note = raw[position : position + value].split(b"\0", 1)[0].decode("utf-8", "replace")
            position += value + value % 2
        elif kind not in (_NUM, _SUB, _CHAN):
            raise DataError(f"{path}: not WFDB annotations (type {kind} at byte {position - 2})")
    if len(raw) - position > 1:
        raise DataError(f"{path}: damaged: {len(raw) - position} bytes after the end of the annotations")
    return found


def time_resolution_hz(annotations: Sequence[WfdbAnnotation]) -> float | None:
    """Ticks a second that the annotation file states for itself; None when the record's sampling rate holds."""
    for annotation in annotations:
        stated = re.fullmatch(rf"## time resolution: ({_NUMBER})\s*", annotation.aux_note, re.ASCII)
        if stated and annotation.sample == 0 and 1e-6 < float(stated[1]) <= HIGHEST_RATE_HZ:
            return float(stated[1])
    return None
