"""Signals that are one-dimensional datasets of an HDF5 file (also MATLAB 7.3), wherever they lie in it.

HDF5 has no rule for rates and units: the rate is an attribute whose name somebody must tell, the unit is told too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import h5py
import numpy as np
import numpy.typing as npt

from tusp.datasets.formats.hdf5 import attribute, dataset_at, length, member, members, numbers, opened_hdf5
from tusp.datasets.formats.signals import MOST_SAMPLES, SignalHeader, StoredSignal, to_microvolts
from tusp.platform.errors import DataError

MOST_LISTED: Final = 200
DEEPEST: Final = 8
COMMENT: Final = "comment"
"""Attribute of the root in which a file may say that it is simulated."""


def plain_path(name: str) -> str:
    """A dataset's path without slashes at its ends."""
    return "/".join(part for part in name.split("/") if part)


def read_datasets_header(
    path: Path, wanted: Sequence[str], *, rate_attribute: str | None = None
) -> tuple[SignalHeader, dict[str, str]]:
    """What an HDF5 file holds at the wanted paths, and which other datasets could be signals; reads no samples.

    Args:
        path: the file.
        wanted: paths of datasets; those that are missing are left out.
        rate_attribute: name of the attribute that holds the sampling rate, looked up at the dataset, then at its
            groups from the inside out, then at the file.

    Returns:
        The header (rate 0 where there is no such attribute) and, for wanted datasets that cannot be used, the reason.

    Raises:
        DataError: the file is not readable HDF5.
    """
    signals: list[StoredSignal] = []
    flaws: dict[str, str] = {}
    with opened_hdf5(path) as file:
        for name in dict.fromkeys(plain_path(name) for name in wanted):
            try:
                if member(file, name) is not None:
                    signals.append(_stored(file, name, path, rate_attribute))
            except DataError as error:
                flaws[name] = str(error).removeprefix(f"{path}: ")
        known = {*(signal.label for signal in signals), *flaws}
        signals += _others(file, path, known, rate_attribute)
        comment = attribute(file, COMMENT, "")
    return SignalHeader(path=path, signals=tuple(signals), comments=comment if isinstance(comment, str) else ""), flaws


def read_dataset_samples(
    header: SignalHeader, signal: StoredSignal, *, unit: str | None = None
) -> npt.NDArray[np.float32]:
    """All samples of one dataset in microvolts, when the unit is told; else as they are.

    Returns:
        float32 [n_samples].

    Raises:
        DataError: the dataset is missing, not wholly in the file, or holds values that are no finite numbers.
    """
    with opened_hdf5(header.path) as file:
        values = numbers(dataset_at(file, signal.label), path=header.path, largest=MOST_SAMPLES)
    return to_microvolts(values, signal, unit)


def _stored(file: h5py.File, name: str, path: Path, rate_attribute: str | None) -> StoredSignal:
    count = length(dataset_at(file, name), path=path, largest=MOST_SAMPLES)
    return StoredSignal(label=name, unit="", sampling_rate_hz=_rate(file, name, rate_attribute), n_samples=count)


def _rate(file: h5py.File, name: str, rate_attribute: str | None) -> float:
    """The innermost rate on the way to a dataset; 0 where there is none."""
    if rate_attribute is None:
        return 0.0
    parts = plain_path(name).split("/")
    for depth in range(len(parts), -1, -1):
        node = file if depth == 0 else member(file, "/".join(parts[:depth]))
        value = None if node is None else attribute(node, rate_attribute)
        if value is None:
            continue
        try:
            rate = float(value)
        except (TypeError, ValueError):
            rate = float("nan")
        if not np.isfinite(rate) or rate <= 0:
            where = "the file" if depth == 0 else repr("/".join(parts[:depth]))
            raise DataError(f"{file.filename}: attribute {rate_attribute!r} of {where} is {value!r}, no sampling rate")
        return rate
    return 0.0


def _others(file: h5py.File, path: Path, known: set[str], rate_attribute: str | None) -> list[StoredSignal]:
    """Datasets that nobody asked for but that could be signals, so that a message can name them."""
    found: list[StoredSignal] = []
    waiting = [""]
    visited = 0
    while waiting and len(found) < MOST_LISTED and visited < 10 * MOST_LISTED:
        folder = waiting.pop(0)
        group = file if not folder else member(file, folder)
        if not isinstance(group, h5py.Group):
            continue
        for name in members(group):
            visited += 1
            inner = f"{folder}/{name}" if folder else name
            if inner in known or visited >= 10 * MOST_LISTED:
                continue
            try:
                node = member(file, inner)
                if isinstance(node, h5py.Group) and inner.count("/") < DEEPEST:
                    waiting.append(inner)
                elif isinstance(node, h5py.Dataset):
                    found.append(_stored(file, inner, path, rate_attribute))
            except DataError:
                continue  # a table, a text, a link to elsewhere: no signal, and nobody asked for it
    return found
