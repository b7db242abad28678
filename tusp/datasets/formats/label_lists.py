"""Hypnograms that are a plain list: one label an epoch, from the first sample of the signals on.

Text with a label a line, a JSON list, a NumPy array of whole numbers, or a dataset of an HDF5 file. Nothing is
unpickled.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from tusp.datasets.formats.edf import unreadable
from tusp.datasets.formats.hdf5 import dataset_at, numbers, opened_hdf5
from tusp.datasets.formats.hypnograms import Run, lines_of, plain_label
from tusp.datasets.formats.signals import one_line
from tusp.platform.errors import DataError
from tusp.platform.stages import EPOCH_SECONDS

MOST_LIST_BYTES: Final = 16 * 2**20
MOST_LABELS: Final = 1_000_000
MOST_TEXTS: Final = 100_000
"""Texts in an HDF5 dataset, which are read one by one."""
LONGEST_LABEL: Final = 200


def runs_from_list(path: Path, *, known: Collection[str], epoch_seconds: float = EPOCH_SECONDS) -> list[Run]:
    """Labels of a list in a file of its own: ``.json``, ``.npy``, or text with a label a line.

    Args:
        path: the file.
        known: the labels that mean something. The first line of a text has to be one of them: a header line would
            move the whole night by an epoch.
        epoch_seconds: seconds that one label holds.

    Raises:
        DataError: the file cannot be read, holds something else or nothing.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: not a regular file")
        if status.st_size > MOST_LIST_BYTES:
            raise DataError(f"{path}: more than {MOST_LIST_BYTES // 2**20} MiB of labels")
        suffix = path.suffix.casefold()
        if suffix == ".npy":
            labels = _from_npy(path)
        elif suffix == ".json":
            labels = _from_json(path, _text(path))
        else:
            labels = _from_text(path, _text(path), known)
    except OSError as error:
        raise unreadable(path, error) from error
    return _runs(path, labels, epoch_seconds)


def runs_from_dataset(path: Path, name: str, *, epoch_seconds: float = EPOCH_SECONDS) -> list[Run]:
    """Labels of a one-dimensional dataset (whole numbers or texts) of an HDF5 file.

    Raises:
        DataError: the file or the dataset cannot be read, or holds something else or nothing.
    """
    with opened_hdf5(path) as file:
        dataset = dataset_at(file, name)
        text = h5py.check_string_dtype(dataset.dtype)
        if text is None:
            values = numbers(dataset, path=path, largest=MOST_LABELS)
            labels = [_label(path, index, float(value)) for index, value in enumerate(values)]
        else:
            labels = _texts(path, dataset, text.length)
    return _runs(path, labels, epoch_seconds)


def _runs(path: Path, labels: Sequence[str], epoch_seconds: float) -> list[Run]:
    if not labels:
        raise DataError(f"{path}: holds no labels")
    if len(labels) > MOST_LABELS:
        raise DataError(f"{path}: more than {MOST_LABELS} labels")
    return [Run(onset=index * epoch_seconds, duration=epoch_seconds, label=label) for index, label in enumerate(labels)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file in UTF-8") from error


def _from_text(path: Path, text: str, known: Collection[str]) -> list[str]:
    labels = [line.strip() for line in lines_of(text.rstrip())]
    if "" in labels:
        raise DataError(f"{path}: line {labels.index('') + 1} is empty; a list has one label a line, for every epoch")
    if labels and plain_label(labels[0]) not in {plain_label(label) for label in known}:
        raise DataError(
            f"{path}: line 1: {labels[0][:40]!r} is not in labels.stages; a list has no header line"
            " (map the label to unscored if it is one)"
        )
    return labels


def _from_json(path: Path, text: str) -> list[str]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a JSON list ({str(error)[:80]})") from error
    if not isinstance(content, list):
        raise DataError(f"{path}: a JSON {type(content).__name__}, not a list of labels")
    return [_label(path, index, item) for index, item in enumerate(content)]


def _from_npy(path: Path) -> list[str]:
    try:
        # A memory map compares the stated shape with the size of the file before anything is read.
        values = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:
        raise DataError(f"{path}: not a NumPy file of whole numbers ({one_line(str(error))[:80]})") from error
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise DataError(f"{path}: holds {values.dtype} {list(values.shape)}; wanted whole numbers in one dimension")
    if len(values) > MOST_LABELS:
        raise DataError(f"{path}: more than {MOST_LABELS} labels")
    return [str(int(value)) for value in values]


def _label(path: Path, index: int, item: Any) -> str:
    """One entry as a label; whole numbers are written without a point."""
    if isinstance(item, str):
        return item.strip()[:LONGEST_LABEL]
    if isinstance(item, float) and item.is_integer():
        item = int(item)
    if isinstance(item, int) and not isinstance(item, bool) and abs(item) < 10**9:
        return str(item)
    raise DataError(f"{path}: label {index + 1} is {str(item)[:40]}; wanted a text or a whole number")


def _texts(path: Path, dataset: h5py.Dataset, width: int | None) -> list[str]:
    if len(dataset.shape or ()) != 1 or dataset.is_virtual or dataset.external:
        raise DataError(f"{path}: dataset {dataset.name!r} is not a list of texts in this file")
    count = int(dataset.shape[0])
    if count > MOST_TEXTS or (width or 0) > LONGEST_LABEL or dataset.id.get_storage_size() > path.stat().st_size:
        raise DataError(f"{path}: dataset {dataset.name!r} is absurdly large ({count} texts)")
    labels: list[str] = []
    read = 0
    for index in range(count):
        item = dataset[index]
        text = item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)
        read += len(text)
        if read > MOST_LIST_BYTES:
            raise DataError(f"{path}: dataset {dataset.name!r}: more than {MOST_LIST_BYTES // 2**20} MiB of labels")
        labels.append(text.strip("\0 \t\r\n")[:LONGEST_LABEL])
    return labels
