"""Reading EDF and EDF+ files, including those that break the rules.

The header is parsed here rather than by a library because every number in it is checked against the size of the file
before anything is allocated from it, and because a night with one odd channel must stay readable for its other
channels. Samples come through a memory map, so that three channels out of seven cost three channels. The tests hold
this reader against MNE, pyedflib and edfio. Format: Kemp et al. 1992 (EDF), Kemp and Olivan 2003 (EDF+).
"""

from __future__ import annotations

import math
import mmap
import re
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from tusp.platform.errors import DataError

ANNOTATIONS_LABEL: Final = "EDF Annotations"
LONGEST_SECONDS: Final = 31 * 24 * 3600
"""A recording longer than a month is a broken header, not a night."""
HIGHEST_RATE_HZ: Final = 1e6
HIGHEST_PHYSICAL: Final = 1e20
"""In any unit; beyond it the samples would leave what float32 holds."""
MOST_ANNOTATION_BYTES: Final = 64 * 2**20
_SAMPLES_AT_ONCE: Final = 64 * 1024
"""Samples converted at a time; they stay in the processor's cache."""
_SETTLED_NS: Final = 2 * 10**9
"""A file that was not changed for so long has other times after its next change."""

_MICROVOLTS: Final = {"nv": 1e-3, "uv": 1.0, "mv": 1e3, "v": 1e6}
_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_FIELDS: Final = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)
_TAL: Final = re.compile(rb"([+-]?\d+(?:\.\d*)?)(?:\x15(\d+(?:\.\d*)?))?\x14(.*)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class EdfSignal:
    """One signal as the header states it. ``flaw`` says why its samples have no physical value."""

    label: str
    unit: str
    sampling_rate_hz: float
    samples_per_record: int
    first_sample: int
    """Position of its samples inside a data record, in samples of two bytes."""
    physical: tuple[float, float]
    digital: tuple[int, int]
    flaw: str | None

    @property
    def to_microvolts(self) -> float | None:
        """Factor from the stated unit to microvolts; None when the unit is not electrical or not known."""
        return microvolts_per(self.unit)

    def scale(self, unit: str | None = None) -> tuple[float, float]:
        """Gain and offset from stored integers to microvolts (to the stated unit where that is not electrical).

        Args:
            unit: unit to believe instead of the header's.
        """
        low, high = self.physical
        gain = (high - low) / (self.digital[1] - self.digital[0])
        offset = low - self.digital[0] * gain
        factor = microvolts_per(unit if unit is not None else self.unit) or 1.0
        return gain * factor, offset * factor

    def limits(self, unit: str | None = None) -> tuple[float, float]:
        """Lowest and highest value that can be stored, in the unit of :func:`read_samples`."""
        gain, offset = self.scale(unit)
        ends = sorted(digital * gain + offset for digital in self.digital)
        return ends[0], ends[1]


@dataclass(frozen=True, kw_only=True)
class EdfHeader:
    """Header of one file, checked against the file's size."""

    path: Path
    patient: str
    recording: str
    start: datetime | None
    """Start as the header states it; None when it cannot be read."""
    header_bytes: int
    record_bytes: int
    n_records: int
    """Whole data records that are in the file."""
    record_seconds: float
    signals: tuple[EdfSignal, ...]
    """Ordinary signals, in file order."""
    annotations: tuple[tuple[int, int], ...]
    """First byte inside a data record and number of bytes of each annotation signal."""
    problems: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Length of the signals in seconds."""
        return self.n_records * self.record_seconds


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """One EDF+ annotation: seconds after the start of the file's first record."""

    onset: float
    duration: float | None
    text: str


def microvolts_per(unit: str) -> float | None:
    """Factor from ``unit`` to microvolts, or None when it is not a known electrical unit.

    Understands the ways in which recorders write the micro sign: u, U, both Unicode signs, and what becomes of them in
    other encodings (``æV`` from code page 437, ``ÂµV`` from UTF-8 read as Latin-1, ``?V``).
    """
    plain = "".join(unit.split()).casefold()
    for sign in ("âμ", "μ", "æ", "?", "\ufffd", "micro"):  # casefold turns the micro sign into Greek mu
        plain = plain.replace(sign, "u", 1)
    if plain.endswith("volts") or plain.endswith("volt"):
        plain = plain[: plain.rindex("volt")].replace("milli", "m").replace("nano", "n") + "v"
    return _MICROVOLTS.get(plain)


def _text(raw: bytes) -> str:
    """A header field as printable text, whatever its encoding."""
    raw = raw.strip(b" \0")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "?" for character in text)


def _shown(raw: bytes) -> str:
    return repr(_text(raw)[:24])


class _Reader:
    """Parses the fields of one header; every complaint names the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def bad(self, reason: str) -> DataError:
        return DataError(f"{self.path}: {reason}")

    def integer(self, raw: bytes, what: str) -> int:
        field = raw.strip(b" \0")
        if not re.fullmatch(rb"[+-]?\d+", field):
            raise self.bad(f"EDF header is damaged: {what} is {_shown(raw)}, not a whole number")
        return int(field)

    def number(self, raw: bytes, what: str) -> float:
        try:
            value = float(raw.strip(b" \0").replace(b",", b".").decode("ascii"))
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.bad(f"EDF header is damaged: {what} is {_shown(raw)}, not a number")
        return value


def _start(date: bytes, time: bytes, recording: str) -> datetime | None:
    """Start of the recording: the EDF+ date where there is one (it has four digits of year), else the EDF date."""
    clock = re.fullmatch(rb"(\d{1,2})[.:](\d{1,2})[.:](\d{1,2})", time.replace(b" ", b"").strip(b"\0"))
    day = re.fullmatch(rb"(\d{1,2})[./-](\d{1,2})[./-](\d{1,2})", date.replace(b" ", b"").strip(b"\0"))
    plus = re.match(r"Startdate (\d{1,2})-([A-Za-z]{3})-(\d{4})(?: |$)", recording)
    if clock is None:
        return None
    if plus is not None and plus[2].upper() in _MONTHS:
        calendar = int(plus[3]), _MONTHS.index(plus[2].upper()) + 1, int(plus[1])
    elif day is not None:
        year = int(day[3])
        calendar = year + (1900 if year >= 85 else 2000), int(day[2]), int(day[1])
    else:
        return None
    try:
        return datetime(*calendar, int(clock[1]), int(clock[2]), int(clock[3]))
    except ValueError:
        return None


def _read_bytes(path: Path) -> tuple[bytes, int]:
    """The header's bytes (main part and signal part) and the size of the file."""
    reader = _Reader(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise reader.bad("not a regular file")
        with path.open("rb") as stream:
            main = stream.read(256)
            if not main:
                raise reader.bad("empty file (0 bytes)")
            if main[:1] == b"\xff":
                raise reader.bad("a BDF file (24 bits a sample), not EDF; convert it to EDF")
            if main[:8].strip(b" \0") != b"0":
                raise reader.bad(f"not an EDF file (begins with {_shown(main[:16])})")
            if len(main) < 256:
                raise reader.bad(f"truncated inside the EDF header ({len(main)} of 256 bytes)")
            n_signals = reader.integer(main[252:256], "number of signals")
            stated = reader.integer(main[184:192], "length of the header")
            wanted = 256 * (n_signals + 1)
            if n_signals < 1:
                raise reader.bad(f"EDF header states {n_signals} signals")
            if stated != wanted:
                raise reader.bad(
                    f"EDF header is damaged: it states {stated} bytes, but {n_signals} signals need {wanted}"
                )
            if wanted > status.st_size:
                raise reader.bad(f"truncated inside the EDF header ({status.st_size} of {wanted} bytes)")
            return main + stream.read(wanted - 256), status.st_size
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> DataError:
    """The one line for a file that the operating system does not hand out."""
    reason = "no permission to read it" if isinstance(error, PermissionError) else (error.strerror or str(error))
    return DataError(f"{path}: {reason[0].lower()}{reason[1:]}")


def _parse_signals(
    reader: _Reader, raw: bytes, n_signals: int, record_seconds: float
) -> tuple[list[EdfSignal], list[tuple[int, int]], int]:
    """Ordinary signals, annotation signals (byte offset, bytes) and samples per data record."""
    columns: list[list[bytes]] = []
    position = 256
    for width in _FIELDS:
        block = raw[position : position + width * n_signals]
        columns.append([block[i * width : (i + 1) * width] for i in range(n_signals)])
        position += width * n_signals
    signals: list[EdfSignal] = []
    annotations: list[tuple[int, int]] = []
    first = 0
    for index in range(n_signals):
        label = _text(columns[0][index])
        named = f"signal {index + 1} ({label or 'no label'})"
        count = reader.integer(columns[8][index], f"samples per data record of {named}")
        if count < 0:
            raise reader.bad(f"EDF header is damaged: {named} has {count} samples per data record")
        if label == ANNOTATIONS_LABEL:
            annotations.append((2 * first, 2 * count))
            first += count
            continue
        rate = count / record_seconds if record_seconds > 0 else 0.0
        if rate > HIGHEST_RATE_HZ:
            raise reader.bad(f"EDF header is damaged: {named} has a sampling rate of {rate:g} Hz")
        physical, digital, flaw = (0.0, 0.0), (0, 0), None
        try:
            physical = tuple(reader.number(columns[c][index], "physical limit") for c in (3, 4))  # type: ignore[assignment]
            digital = tuple(reader.integer(columns[c][index], "digital limit") for c in (5, 6))  # type: ignore[assignment]
        except DataError as error:
            flaw = str(error).removeprefix(f"{reader.path}: EDF header is damaged: ")
        else:
            if physical[0] == physical[1]:
                flaw = f"physical minimum and maximum are equal ({physical[0]:g}), so its values are unknown"
            elif digital[0] == digital[1]:
                flaw = f"digital minimum and maximum are equal ({digital[0]}), so its values are unknown"
            elif max(map(abs, physical)) > HIGHEST_PHYSICAL:
                flaw = f"physical limits are absurd ({physical[0]:g} to {physical[1]:g})"
        if flaw is None and count == 0:
            flaw = "no samples"
        if flaw is None and rate == 0:
            flaw = "the data records last 0 s, so it has no sampling rate"
        signals.append(
            EdfSignal(
                label=label,
                unit=_text(columns[2][index]),
                sampling_rate_hz=rate,
                samples_per_record=count,
                first_sample=first,
                physical=physical,
                digital=digital,
                flaw=flaw,
            )
        )
        first += count
    return signals, annotations, first


def _swapped(signals: Iterable[EdfSignal]) -> list[str]:
    problems = []
    for signal in signals:
        physical = signal.physical[0] > signal.physical[1]
        digital = signal.digital[0] > signal.digital[1]
        if signal.flaw is None and (physical or digital):
            which = "physical and digital" if physical and digital else "physical" if physical else "digital"
            sign = "no change of sign" if physical and digital else "read with inverted sign"
            problems.append(f"{signal.label}: {which} limits are swapped; {sign}")
    return problems


def read_header(path: Path) -> EdfHeader:
    """Read and check the header of an EDF or EDF+ file; reads no samples.

    A night is asked for its header once for each channel and more; the last headers are remembered for as long as
    nothing about their files changes. What was changed a moment ago is read again: it could change once more within
    the resolution of the file system's clock.

    Raises:
        DataError: the file is unreadable, empty, not EDF, damaged, truncated or discontinuous (EDF+D).
    """
    try:
        status = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < _SETTLED_NS:
        return _read_header(path)
    state = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return _remembered_header(path, state)


@lru_cache(maxsize=8)
def _remembered_header(path: Path, _: tuple[int, ...]) -> EdfHeader:
    return _read_header(path)


def _read_header(path: Path) -> EdfHeader:
    raw, size = _read_bytes(path)
    reader = _Reader(path)
    n_signals = reader.integer(raw[252:256], "number of signals")
    n_records = reader.integer(raw[236:244], "number of data records")
    record_seconds = reader.number(raw[244:252], "length of a data record")
    if record_seconds < 0:
        raise reader.bad(f"EDF header is damaged: data records of {record_seconds:g} s")
    signals, annotations, record_samples = _parse_signals(reader, raw, n_signals, record_seconds)
    if signals and raw[192:197] == b"EDF+D":
        raise reader.bad("a discontinuous recording (EDF+D); export it as EDF or EDF+C")
    record_bytes = 2 * record_samples
    if record_bytes == 0:
        raise reader.bad("EDF header states data records without samples")

    problems: list[str] = []
    held, rest = divmod(size - len(raw), record_bytes)
    if n_records == -1:
        problems.append(f"header states no number of data records (-1); {held} taken from the size of the file")
        if rest:
            problems.append(f"the last data record is incomplete ({rest} of {record_bytes} bytes); dropped")
        n_records = held
    elif n_records < 0:
        raise reader.bad(f"EDF header is damaged: {n_records} data records")
    elif held < n_records:
        raise reader.bad(
            f"truncated: header states {n_records} data records, file holds {held}"
            f" ({held * record_seconds / 3600:.2f} of {n_records * record_seconds / 3600:.2f} h)"
        )
    elif held > n_records or rest:
        extra = size - len(raw) - n_records * record_bytes
        problems.append(f"{extra} bytes after the last data record that the header states; not read")
    if n_records == 0:
        raise reader.bad("holds no data records")
    if n_records * record_seconds > LONGEST_SECONDS:
        raise reader.bad(f"EDF header is damaged: {n_records * record_seconds / 86400:g} days of signal")

    recording = _text(raw[88:168])
    start = _start(raw[168:176], raw[176:184], recording)
    if start is None:
        problems.append(f"start date and time are not readable ({_shown(raw[168:176])}, {_shown(raw[176:184])})")
    problems += _swapped(signals)
    return EdfHeader(
        path=path,
        patient=_text(raw[8:88]),
        recording=recording,
        start=start,
        header_bytes=len(raw),
        record_bytes=record_bytes,
        n_records=n_records,
        record_seconds=record_seconds,
        signals=tuple(signals),
        annotations=tuple(annotations),
        problems=tuple(problems),
    )


def read_samples(header: EdfHeader, signal: EdfSignal, *, unit: str | None = None) -> npt.NDArray[np.float32]:
    """All samples of one signal at its own rate, in microvolts (in the stated unit where that is not electrical).

    Args:
        header: header of the file.
        signal: one of ``header.signals``.
        unit: unit to believe instead of the header's.

    Returns:
        float32 [n_records * samples_per_record].

    Raises:
        DataError: the signal has no physical values (equal limits), or the file cannot be read.
    """
    if signal.flaw is not None:
        raise DataError(f"{header.path}: channel {signal.label!r}: {signal.flaw}")
    shape = header.n_records, header.record_bytes // 2
    try:
        # What numpy.memmap does, which takes longer than to read a short recording.
        with header.path.open("rb") as stream:
            whole = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        records = np.frombuffer(whole, "<i2", shape[0] * shape[1], header.header_bytes).reshape(shape)
    except OSError as error:
        raise unreadable(header.path, error) from error
    except ValueError as error:  # shorter than when the header was read
        raise DataError(f"{header.path}: changed while it was read") from error
    last = signal.first_sample + signal.samples_per_record
    gain, offset = signal.scale(unit)
    samples = np.empty((header.n_records, signal.samples_per_record), np.float32)
    together = max(1, _SAMPLES_AT_ONCE // signal.samples_per_record)
    for first in range(0, header.n_records, together):
        block = samples[first : first + together]
        block[...] = records[first : first + together, signal.first_sample : last]
        block *= np.float32(gain)
        block += np.float32(offset)
    return samples.reshape(-1)


def read_annotations(header: EdfHeader) -> list[Annotation]:
    """All annotations of all data records, in file order; onsets count from the start of the first record.

    Raises:
        DataError: the file has no annotation signal, or an annotation is damaged.
    """
    if not header.annotations:
        raise DataError(f"{header.path}: holds no EDF+ annotations")
    if header.n_records * sum(count for _, count in header.annotations) > MOST_ANNOTATION_BYTES:
        raise DataError(f"{header.path}: more than {MOST_ANNOTATION_BYTES // 2**20} MiB of annotations")
    found: list[Annotation] = []
    file_start: float | None = None
    try:
        with header.path.open("rb") as stream:
            for record in range(header.n_records):
                for offset, count in header.annotations:
                    stream.seek(header.header_bytes + record * header.record_bytes + offset)
                    for annotation in _parse_record(header, stream.read(count), record):
                        if file_start is None:
                            # The first annotation of the first record keeps the time: its fraction of a second is
                            # where the signal starts.
                            file_start = annotation.onset if not annotation.text else 0.0
                        if annotation.text:
                            found.append(annotation)
    except OSError as error:
        raise unreadable(header.path, error) from error
    if not file_start:
        return found
    return [Annotation(onset=a.onset - file_start, duration=a.duration, text=a.text) for a in found]


def _parse_record(header: EdfHeader, raw: bytes, record: int) -> Iterable[Annotation]:
    for tal in raw.split(b"\0"):
        if not tal.strip():
            continue
        match = _TAL.fullmatch(tal)
        if match is None or (not match[3].endswith(b"\x14") and match[3]):
            raise DataError(f"{header.path}: damaged annotation in data record {record + 1}: {_shown(tal)}")
        texts = match[3].split(b"\x14")[:-1] or [b""]
        onset, duration = float(match[1]), float(match[2]) if match[2] else None
        if not (abs(onset) <= LONGEST_SECONDS and (duration is None or duration <= LONGEST_SECONDS)):
            raise DataError(f"{header.path}: annotation beyond 31 days in data record {record + 1}: {_shown(tal)}")
        for text in texts:
            yield Annotation(onset=onset, duration=duration, text=_text(text))
