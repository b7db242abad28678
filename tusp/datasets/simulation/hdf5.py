"""HDF5 files whose bytes depend on their content only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import numpy.typing as npt

from tusp.datasets.simulation.plan import SIMULATED_FLAG
from tusp.platform.files import atomic_path

MARK: Final = f"{SIMULATED_FLAG}: synthetic signals and labels, no recording of a person"
"""Text of the root's attribute ``comment``."""

CHUNK: Final = 65_536


@contextmanager
def new_hdf5(destination: Path, *, userblock: bytes = b"") -> Iterator[h5py.File]:
    """A file that appears at ``destination`` when it is whole, marked as simulated.

    ``userblock`` stands before the HDF5 content; its length is 0 or a power of two from 512 on.
    """
    with atomic_path(destination) as path:
        with h5py.File(path, "w", libver=("earliest", "v110"), userblock_size=len(userblock)) as file:
            file.attrs["comment"] = MARK
            yield file
        if userblock:
            with path.open("r+b") as stream:
                stream.write(userblock)


def add_samples(group: Any, name: str, values: npt.NDArray[np.floating], *, step: float = 0.0) -> Any:
    """A dataset of float32, compressed; returns it.

    ``step`` > 0 rounds to its multiples as a recorder does. A power of two leaves few bits of the fraction set, and the
    bytes that are left compress well.
    """
    data = values.astype(np.float32)
    if step:
        data = np.rint(data / np.float32(step)) * np.float32(step)
    return group.create_dataset(
        name,
        data=data,
        chunks=(min(CHUNK, max(1, len(data))),),
        compression="gzip",
        compression_opts=1,
        shuffle=True,
        track_times=False,
    )
