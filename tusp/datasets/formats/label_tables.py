"""Hypnograms that are a table: onset, duration and stage in columns of any names, separated by ``,``, ``;`` or tabs."""

from __future__ import annotations

import csv
import math
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tusp.datasets.formats.edf import LONGEST_SECONDS, unreadable
from tusp.datasets.formats.hypnograms import CSV_COLUMNS, MOST_CSV_BYTES, Run, lines_of
from tusp.platform.errors import DataError
from tusp.platform.stages import EPOCH_SECONDS

SEPARATORS: Final = (",", ";", "\t")
MOST_ROWS: Final = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns; without one of durations every label lasts to the next."""

    onset: str = CSV_COLUMNS[0]
    duration: str | None = CSV_COLUMNS[1]
    stage: str = CSV_COLUMNS[2]


@dataclass(frozen=True, kw_only=True)
class _Places:
    onset: int
    duration: int | None
    stage: int
    header: bool


def runs_from_table(path: Path, columns: Columns | None = None) -> tuple[list[Run], list[str]]:
    """Rows of a table as runs, in order of time where durations are worked out, else in file order.

    Args:
        path: the file, in UTF-8. The separator is told from the first line; where it is not the comma, numbers may
            have a decimal comma.
        columns: names of the columns; with None a table without a header line is understood too, and so is one with
            the usual names but without durations.

    Returns:
        The runs, and what a person should know about them.

    Raises:
        DataError: the file cannot be read, or a row is not what it should be (with its line number).
    """
    text = _text(path)
    lines = lines_of(text)
    first = next((line for line in lines if line.strip()), "")
    if not first:
        raise DataError(f"{path}: holds no labels")
    separator, places = _layout(path, first, columns)
    runs: list[Run] = []
    reader = csv.reader(lines, delimiter=separator)
    skip = places.header
    try:
        for row in reader:
            if not any(field.strip() for field in row):
                continue
            if skip:
                skip = False
                continue
            runs.append(_run(path, reader.line_num, row, places, separator))
            if len(runs) > MOST_ROWS:
                raise DataError(f"{path}: more than {MOST_ROWS} labels")
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}") from error
    if not runs:
        raise DataError(f"{path}: holds no labels")
    if places.duration is not None:
        return runs, []
    return _until_next(runs), ["labels state no durations; each lasts to the next one, the last one 30 s"]


def _text(path: Path) -> str:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: not a regular file")
        if status.st_size > MOST_CSV_BYTES:
            raise DataError(f"{path}: more than {MOST_CSV_BYTES // 2**20} MiB of labels")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file in UTF-8") from error


def _layout(path: Path, line: str, columns: Columns | None) -> tuple[str, _Places]:
    """Separator and places of the columns, told from the first line."""
    wanted = columns or Columns()
    for separator in SEPARATORS:
        fields = [field.strip() for field in _fields(line, separator)]
        names = [field.casefold() for field in fields]
        needed = [wanted.onset, wanted.stage] + ([wanted.duration] if columns and wanted.duration else [])
        if all(name.strip().casefold() in names for name in needed):
            duration = wanted.duration.strip().casefold() if wanted.duration else None
            return separator, _Places(
                onset=names.index(wanted.onset.strip().casefold()),
                duration=names.index(duration) if duration in names else None,
                stage=names.index(wanted.stage.strip().casefold()),
                header=True,
            )
        if columns is None and len(fields) >= 3 and all(_number(field, separator) is not None for field in fields[:2]):
            return separator, _Places(onset=0, duration=1, stage=2, header=False)
    expected = ", ".join(name for name in (wanted.onset, wanted.duration, wanted.stage) if name)
    raise DataError(f"{path}: line 1: {line.strip()[:60]!r} does not name the columns {expected}")


def _fields(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return []


def _number(field: str, separator: str) -> float | None:
    try:
        value = float(field if separator == "," else field.replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _run(path: Path, line: int, row: Sequence[str], places: _Places, separator: str) -> Run:
    last = max(places.onset, places.stage, places.duration or 0)
    if len(row) <= last:
        raise DataError(f"{path}: line {line}: {len(row)} columns; wanted {last + 1} or more")
    onset = _number(row[places.onset].strip(), separator)
    duration = None if places.duration is None else _number(row[places.duration].strip(), separator)
    if onset is None or (places.duration is not None and (duration is None or duration < 0)):
        shown = [row[place].strip()[:20] for place in (places.onset, places.duration) if place is not None]
        named = ", duration ".join(repr(text) for text in shown)
        raise DataError(f"{path}: line {line}: onset {named} {'is' if len(shown) == 1 else 'are'} not seconds")
    if max(abs(onset), duration or 0.0) > LONGEST_SECONDS:
        raise DataError(f"{path}: line {line}: onset {onset:g} s or its duration is longer than any night")
    return Run(onset=onset, duration=duration, label=row[places.stage].strip())


def _until_next(runs: Sequence[Run]) -> list[Run]:
    """Every label, of whatever meaning, ends where the next later one begins."""
    closed: list[Run] = []
    following = later = math.nan
    for run in sorted(runs, key=lambda run: run.onset, reverse=True):
        if run.onset != following:
            following, later = run.onset, following
        end = run.onset + EPOCH_SECONDS if math.isnan(later) else later
        closed.append(Run(onset=run.onset, duration=end - run.onset, label=run.label))
    closed.reverse()
    return closed
