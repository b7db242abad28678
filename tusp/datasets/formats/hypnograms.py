"""Expert labels as runs of (onset, duration, label), and their way onto the grid of 30-s epochs."""

from __future__ import annotations

import csv
import math
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tusp.datasets.formats.edf import LONGEST_SECONDS, EdfHeader, read_annotations, unreadable
from tusp.datasets.recording import Hypnogram
from tusp.platform.errors import DataError
from tusp.platform.stages import EPOCH_SECONDS, UNSCORED

CSV_COLUMNS: Final = ("onset_seconds", "duration_seconds", "stage")
MOST_CSV_BYTES: Final = 64 * 2**20
LIGHTS: Final = ("lights off", "lights on")
"""Standard texts of EDF+ for these moments (B. Kemp and J. Olivan, Clinical Neurophysiology 114, 1755-1761, 2003)."""

_EMPTY: Final = -2
_UNKNOWN: Final = -3
_TOLERANCE_SECONDS: Final = 1e-3


@dataclass(frozen=True, kw_only=True)
class Run:
    """One label and the time it holds, in seconds; ``duration`` None lasts to the next label."""

    onset: float
    duration: float | None
    label: str


def plain_label(label: str) -> str:
    """A label as it is compared: without case and with single spaces."""
    return " ".join(label.split()).casefold()


def lines_of(text: str) -> list[str]:
    """Lines of a text as editors show them; ``str.splitlines`` also breaks at form feeds and other control characters,
    which would make two rows of a damaged one."""
    lines = re.split(r"\r\n|\n|\r", text)
    return lines if lines[-1] else lines[:-1]


def runs_from_edf(header: EdfHeader) -> list[Run]:
    """Annotations of an EDF+ file as runs, in file order.

    Raises:
        DataError: the file holds no annotations or damaged ones.
    """
    return [Run(onset=a.onset, duration=a.duration, label=a.text) for a in read_annotations(header)]


def runs_from_csv(path: Path) -> list[Run]:
    """Rows of a table with the columns onset_seconds, duration_seconds, stage.

    A header line may be there (then the columns may stand in any order, and others beside them) or not.

    Raises:
        DataError: the file cannot be read, or a row is not what it should be (with its line number).
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: not a regular file")
        if status.st_size > MOST_CSV_BYTES:
            raise DataError(f"{path}: more than {MOST_CSV_BYTES // 2**20} MiB of labels")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file in UTF-8") from error
    runs: list[Run] = []
    columns: tuple[int, int, int] | None = None
    reader = csv.reader(lines_of(text))
    try:
        for row in reader:
            if not any(field.strip() for field in row):
                continue
            if columns is None:
                columns = _columns(path, row)
                if columns is not None:
                    continue
                columns = (0, 1, 2)
            runs.append(_run(path, reader.line_num, row, columns))
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}") from error
    if not runs:
        raise DataError(f"{path}: holds no labels")
    return runs


def _columns(path: Path, row: Sequence[str]) -> tuple[int, int, int] | None:
    """Positions of the columns when ``row`` is a header line, None when it is data."""
    try:
        float(row[0])
    except ValueError:
        names = [field.strip().casefold() for field in row]
        missing = [name for name in CSV_COLUMNS if name not in names]
        if missing:
            raise DataError(
                f"{path}: line 1: no column {missing[0]!r}; a header names {','.join(CSV_COLUMNS)}"
            ) from None
        onset, duration, stage = (names.index(name) for name in CSV_COLUMNS)
        return onset, duration, stage
    return None


def _run(path: Path, line: int, row: Sequence[str], columns: tuple[int, int, int]) -> Run:
    if len(row) <= max(columns):
        raise DataError(f"{path}: line {line}: {len(row)} columns; wanted {','.join(CSV_COLUMNS)}")
    onset_text, duration_text, label = (row[column].strip() for column in columns)
    try:
        onset, duration = float(onset_text), float(duration_text)
    except ValueError:
        onset = duration = math.nan
    if not (math.isfinite(onset) and math.isfinite(duration)) or duration < 0:
        said = f"onset {onset_text[:24]!r}, duration {duration_text[:24]!r}"
        raise DataError(f"{path}: line {line}: {said} are not seconds")
    if max(abs(onset), duration) > LONGEST_SECONDS:
        raise DataError(f"{path}: line {line}: onset {onset:g} s, duration {duration:g} s; no night is that long")
    return Run(onset=onset, duration=duration, label=label)


def _closed(runs: Sequence[Run]) -> tuple[list[tuple[float, float, str]], int]:
    """Runs in order of time as (start, end, label), and how many stated no duration."""
    closed: list[tuple[float, float, str]] = []
    open_ended = 0
    following = following_later = math.nan  # onset of the next run, and of the next one with a later onset
    for run in sorted(runs, key=lambda run: run.onset, reverse=True):
        if run.onset != following:
            following, following_later = run.onset, following
        end = run.onset + (run.duration or 0.0)
        if not run.duration:
            open_ended += 1
            end = run.onset + EPOCH_SECONDS if math.isnan(following_later) else following_later
        closed.append((run.onset, end, run.label))
    closed.reverse()
    return closed, open_ended


def _epoch_bounds(start: float, end: float, n_epochs: int) -> tuple[int, int]:
    """First and one past the last epoch whose middle lies in [start, end)."""
    middle = EPOCH_SECONDS / 2

    def first_at_or_after(seconds: float) -> int:
        bounded = min(max(seconds, -1.0), (n_epochs + 1.0) * EPOCH_SECONDS)
        return min(max(math.ceil((bounded - middle) / EPOCH_SECONDS - 1e-9), 0), n_epochs)

    return first_at_or_after(start), first_at_or_after(end)


def to_epochs(
    runs: Sequence[Run], label_map: Mapping[str, int], *, signal_seconds: float, shift_seconds: float = 0.0
) -> Hypnogram:
    """Put runs on the grid of 30-s epochs of the signal.

    An epoch takes the stage that holds at its middle, so labels off the grid and durations that are no multiple of
    30 s need no rule of their own. Two different stages there, no label, or a label that the map does not know, leave
    it unscored. Everything beyond the signal's whole epochs is clipped. ``Lights off`` and ``Lights on`` are moments
    and no labels of epochs; they are known where each is there once, in this order.

    Args:
        runs: labels in any order.
        label_map: the corpus's labels to stage codes; compared without case.
        signal_seconds: length of the signal.
        shift_seconds: seconds from the signal's start to the labels' zero.

    Returns:
        Hypnogram with one stage a whole epoch of the signal.
    """
    codes = {plain_label(label): code for label, code in label_map.items()}
    known = [run for run in runs if plain_label(run.label) in codes]
    other = [run for run in runs if plain_label(run.label) not in codes]
    strange = [run for run in other if _moment(run) not in LIGHTS]
    n_epochs = int(signal_seconds / EPOCH_SECONDS + 1e-9)
    grid = np.full(n_epochs, _EMPTY, np.int8)
    conflicts = np.zeros(n_epochs, bool)
    problems: list[str] = []

    closed, open_ended = _closed(known)
    off_grid, largest, surplus, early = 0, 0.0, 0, 0
    for start, end, label in closed:
        start, end = start + shift_seconds, end + shift_seconds
        code = codes[plain_label(label)]
        for edge in (start, end):
            distance = abs(edge - EPOCH_SECONDS * round(edge / EPOCH_SECONDS))
            if distance > _TOLERANCE_SECONDS:
                off_grid += 1
                largest = max(largest, distance)
        first, last = _epoch_bounds(start, end, n_epochs)
        part = grid[first:last]
        conflicts[first:last] |= (part != _EMPTY) & (part != code)
        part[part == _EMPTY] = code
        if code != UNSCORED:
            surplus += max(0, round((end - max(start, n_epochs * EPOCH_SECONDS)) / EPOCH_SECONDS))
            early += max(0, round((min(end, 0.0) - start) / EPOCH_SECONDS))
    grid[conflicts] = UNSCORED
    lights, doubts = _lights(other, n_epochs, shift_seconds)
    problems += doubts
    problems += _strange_labels(strange, grid, shift_seconds)
    problems += _gaps(grid)
    if open_ended:
        problems.append(f"{open_ended} labels state no duration; each lasts to the next label")
    if off_grid:
        problems.append(
            f"{off_grid} label boundaries lie off the 30-s grid (by up to {largest:.3g} s);"
            " each epoch takes the stage at its middle"
        )
    if conflicts.any():
        problems.append(
            f"labels overlap: {int(conflicts.sum())} epochs have two different stages"
            f" (first: epoch {int(conflicts.argmax())}); unscored"
        )
    if early:
        problems.append(f"{early} scored epochs before the signal begins; clipped")
    if surplus:
        problems.append(f"{surplus} scored epochs after the signal's last whole epoch; clipped")
    rest = signal_seconds - n_epochs * EPOCH_SECONDS
    if rest > _TOLERANCE_SECONDS:
        problems.append(f"the signal's last {rest:.6g} s are no whole epoch; dropped")
    stages = np.where(grid < 0, np.int8(UNSCORED), grid).astype(np.int8)
    label_seconds = max(end for _, end, _ in closed) - min(start for start, _, _ in closed) if closed else 0.0
    return Hypnogram(stages=stages, problems=tuple(problems), label_seconds=label_seconds, lights=lights)


def _moment(run: Run) -> str:
    """The text of an annotation without the signal it is about (``Lights off@@EEG``)."""
    return plain_label(run.label.partition("@@")[0])


def _lights(runs: Sequence[Run], n_epochs: int, shift: float) -> tuple[tuple[int, int] | None, list[str]]:
    """Epochs of lights off and on where both are known, and what is odd about them."""
    off, on = ([run.onset + shift for run in runs if _moment(run) == text] for text in LIGHTS)
    if not off and not on:
        return None, []
    if len(off) != 1 or len(on) != 1 or on[0] <= off[0]:
        said = f"lights off {len(off)} times, on {len(on)} times" if (len(off), len(on)) != (1, 1) else "on before off"
        return None, [f"lights are not known: {said} (rule lights needs each once, off first)"]
    return _epoch_bounds(off[0], on[0], n_epochs), []


def _strange_labels(strange: Sequence[Run], grid: np.ndarray[tuple[int], np.dtype[np.int8]], shift: float) -> list[str]:
    """Report labels that the map does not know, and mark epochs that have nothing else."""
    counts: dict[str, int] = {}
    for run in strange:
        counts[run.label] = counts.get(run.label, 0) + 1
        first, last = _epoch_bounds(run.onset + shift, run.onset + shift + (run.duration or 0.0), len(grid))
        part = grid[first:last]
        part[part == _EMPTY] = _UNKNOWN
    unknown = int((grid == _UNKNOWN).sum())
    if not counts:
        return []
    most = sorted(counts, key=lambda label: (-counts[label], label))
    shown = ", ".join(f"{label[:40]!r} ({counts[label]})" for label in most[:5]) + (", ..." if len(most) > 5 else "")
    return [f"labels that are no stage: {shown}; {unknown} epochs with nothing else are unscored"]


def _gaps(grid: np.ndarray[tuple[int], np.dtype[np.int8]]) -> list[str]:
    """Report epochs without any label: before the first, after the last, and between."""
    empty = grid == _EMPTY
    if not empty.any():
        return []
    if empty.all():
        return ["no epoch of the signal has a label"]
    labelled = np.flatnonzero(~empty)
    first, last = int(labelled[0]), int(labelled[-1]) + 1
    inner = empty[first:last]
    problems = []
    if inner.any():
        starts = np.flatnonzero(inner & ~np.concatenate(([False], inner[:-1])))
        where = "gap" if len(starts) == 1 else "gaps"
        problems.append(
            f"{len(starts)} {where} in the labels ({int(inner.sum())} epochs,"
            f" the first at epoch {first + int(starts[0])}); filled with unscored"
        )
    if first:
        problems.append(f"labels begin after the signal; the first {first} epochs are unscored")
    if last < len(grid):
        problems.append(f"labels end before the signal; the last {len(grid) - last} epochs are unscored")
    return problems
