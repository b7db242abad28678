"""Reading HDF5 files that may be damaged or hostile.

h5py reads; this module decides beforehand whether it may. A file of a kilobyte can declare 10^15 elements of fill
values, point to other files, or link to itself, so every size is checked before memory is taken, links are resolved
one step at a time, and nothing outside the file is opened. Whatever h5py raises becomes one line that names the file.

The HDF5 library reads through :class:`_Checked`, which looks at the library's own bookkeeping first: a heap of texts
whose free space has the length 0 makes the library (2.0) loop for ever.
"""

from __future__ import annotations

import io
import math
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

import h5py
import numpy as np
import numpy.typing as npt

from tusp.datasets.formats.edf import unreadable
from tusp.platform.errors import DataError

MOST_VALUES: Final = 10 * 3600 * 2048
"""Longest one-dimensional dataset that is read: 10 h at 2,048 Hz, 295 MB in memory and some three times that while it
is examined. A file of kilobytes can hold as many zeros."""
MOST_CHUNK_BYTES: Final = 2**29
MOST_ATTRIBUTE_BYTES: Final = 2**20
MOST_MEMBERS: Final = 10_000
MOST_LINKS: Final = 16
"""Links in one path, soft ones that point to soft ones counted too; as many as the HDF5 library follows."""
MOST_COMPRESSION: Final = 1100
"""Deflate, the strongest filter that every HDF5 library has, stays below 1,032 to 1."""
LONGEST_REASON: Final = 160

_HEAP: Final = b"GCOL"
_READING: Final = threading.local()
"""``samples`` is set while samples are read, among which no heap is looked for."""
_FAILURES: Final = (
    OSError,
    LookupError,
    RuntimeError,
    ValueError,
    TypeError,
    OverflowError,
    AttributeError,
    MemoryError,
)


def _raised_by_h5py(traceback: TracebackType | None) -> bool:
    while traceback is not None:
        if str(traceback.tb_frame.f_globals.get("__name__", "")).partition(".")[0] == "h5py":
            return True
        traceback = traceback.tb_next
    return False


def _damaged(path: Path, error: BaseException, what: str) -> DataError:
    """The one line for what h5py raised."""
    if isinstance(error, MemoryError):
        return DataError(f"{path}: {what}: more memory needed than there is")
    reason = error.args[0] if isinstance(error, LookupError) and error.args else error
    text = " ".join(str(reason).split())[:LONGEST_REASON] or type(error).__name__
    return DataError(f"{path}: {what}: {''.join(sign if sign.isprintable() else '?' for sign in text)}")


@contextmanager
def _failures(path: Path, what: str) -> Iterator[None]:
    """What h5py raises inside becomes a DataError; a defect of tusp stays what it is."""
    try:
        yield
    except _FAILURES as error:
        if not _raised_by_h5py(error.__traceback__):
            raise
        raise _damaged(path, error, what) from error


class _Checked(io.RawIOBase):
    """The file as the HDF5 library sees it: whole reads only, and no heap of texts that would make it loop."""

    def __init__(self, path: Path, stream: io.FileIO) -> None:
        self.path = path
        self.stream = stream

    def __repr__(self) -> str:
        # h5py takes this for the name of the file, and keeps the ASCII of it
        return quote(os.fsencode(self.path))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self.stream.seek(offset, whence)

    def tell(self) -> int:
        return self.stream.tell()

    def readinto(self, buffer: Any, /) -> int:
        wanted = memoryview(buffer).cast("B")
        start, done = self.tell(), 0
        while done < len(wanted):
            count = self.stream.readinto(wanted[done:])
            if not count:
                raise DataError(f"{self.path}: HDF5 file is damaged: it points beyond its end")
            done += count
        if not getattr(_READING, "samples", False):
            first = max(start - 8, 0)
            block = os.pread(self.stream.fileno(), start + done + 8 - first, first)
            place = block.find(_HEAP)
            while place >= 0:
                self._check_heap(first + place)
                place = block.find(_HEAP, place + 1)
        return done

    def _check_heap(self, place: int) -> None:
        """Walk the objects of a global heap collection (HDF5 file format 3.0, section III.E)."""
        head = os.pread(self.stream.fileno(), 16, place)
        size = int.from_bytes(head[8:16], "little")
        if len(head) == 16 and head[4] != 1:
            return  # not one that the library would read
        here = 16
        for _ in range(2**16 + 1):
            if here + 16 > size:
                return
            entry = os.pread(self.stream.fileno(), 16, place + here)
            length = int.from_bytes(entry[8:], "little")
            need = 16 + -(-length // 8) * 8 if entry[:2] != b"\0\0" else length
            if len(entry) < 16 or not 0 < need <= size - here:
                break
            here += need
        raise DataError(f"{self.path}: HDF5 file is damaged: its heap of texts at byte {place} is broken")


@contextmanager
def opened_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading; what h5py raises while it is open becomes a DataError.

    Raises:
        DataError: not readable, not a regular file, empty, not HDF5, truncated or damaged.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: not a regular file")
        if status.st_size == 0:
            raise DataError(f"{path}: empty file (0 bytes)")
        with path.open("rb") as stream:
            start = stream.read(8)
    except OSError as error:
        raise unreadable(path, error) from error
    with _failures(path, "HDF5 file is damaged"):
        if not h5py.is_hdf5(str(path)):
            shown = "".join(chr(byte) if 32 <= byte < 127 else "?" for byte in start)
            raise DataError(f"{path}: not an HDF5 file (begins with {shown!r})")
        with path.open("rb", buffering=0) as raw, h5py.File(_Checked(path, raw), "r") as file:
            if file.id.get_create_plist().get_sizes() != (8, 8):
                raise DataError(f"{path}: an HDF5 file with addresses of other than 8 bytes")
            yield file


def path_of(node: h5py.Group | h5py.Dataset) -> Path:
    """The file in which a group or dataset is."""
    return Path(os.fsdecode(unquote_to_bytes(node.file.filename)))


def member(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    """The group or dataset at ``name`` (a path with slashes, seen from ``group``), or None when there is none.

    Soft links are followed inside the file. Nothing outside the file is opened.

    Raises:
        DataError: a link leads to another file or in a circle, or the object is damaged.
    """
    path = path_of(group)
    with _failures(path, f"HDF5 object {name!r} is damaged"):
        here: Any = group.file["/"] if name.startswith("/") else group
        waiting = [part for part in name.split("/") if part not in ("", ".")]
        links = 0
        while waiting:
            part = waiting.pop(0)
            if not isinstance(here, h5py.Group):
                return None
            if part not in here.id:
                return None
            link = here.get(part, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise DataError(f"{path}: {name!r} lies in another file ({link.filename!r}); merge the files first")
            if isinstance(link, h5py.SoftLink):
                links += 1
                if links > MOST_LINKS:
                    raise DataError(f"{path}: {name!r} leads in a circle, or over more than {MOST_LINKS} links")
                if link.path.startswith("/"):
                    here = group.file["/"]
                waiting = [step for step in link.path.split("/") if step not in ("", ".")] + waiting
                if len(waiting) > 1000:
                    raise DataError(f"{path}: {name!r} is a link of absurd length")
                continue
            here = here[part]
        return here if isinstance(here, h5py.Group | h5py.Dataset) else None


def group_at(group: h5py.Group, name: str) -> h5py.Group:
    """The group at ``name``.

    Raises:
        DataError: it is missing, or no group.
    """
    found = member(group, name)
    if not isinstance(found, h5py.Group):
        raise DataError(
            f"{path_of(group)}: {'no group' if found is None else 'a dataset, not a group, is at'} {name!r}"
        )
    return found


def dataset_at(group: h5py.Group, name: str) -> h5py.Dataset:
    """The dataset at ``name``.

    Raises:
        DataError: it is missing, or no dataset.
    """
    found = member(group, name)
    if not isinstance(found, h5py.Dataset):
        raise DataError(
            f"{path_of(group)}: {'no dataset' if found is None else 'a group, not a dataset, is at'} {name!r}"
        )
    return found


def members(group: h5py.Group) -> list[str]:
    """Names of a group's members, sorted.

    Raises:
        DataError: there are absurdly many, or the group is damaged.
    """
    path = path_of(group)
    with _failures(path, f"HDF5 group {group.name!r} is damaged"):
        count = len(group)
        if count > MOST_MEMBERS:
            raise DataError(f"{path}: {group.name!r} has {count} members; at most {MOST_MEMBERS} are read")
        names = list(group)
        if not all(isinstance(name, str) for name in names):
            raise DataError(f"{path}: {group.name!r} has a member whose name is not UTF-8")
        return sorted(names)


def _plain(value: Any) -> Any:
    """An attribute's value as Python has it: text, number, or an array of numbers or list of texts."""
    if isinstance(value, np.ndarray):
        if value.size == 1:
            return _plain(value.reshape(-1)[0])
        if value.dtype.kind in "SO":
            return [_plain(item) for item in value.reshape(-1)]
        return value
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8").rstrip("\0")
        except UnicodeDecodeError:
            return value.decode("latin-1").rstrip("\0")
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    return value.item() if isinstance(value, np.generic) else value


def attribute(node: h5py.Group | h5py.Dataset, name: str, default: Any = None) -> Any:
    """An attribute as text, number, array of numbers or list of texts; an array of one element is that element.

    Raises:
        DataError: it is of another type (a reference, a compound), absurdly large, or damaged.
    """
    path = path_of(node)
    where = f"attribute {name!r} of {node.name!r}"
    with _failures(path, f"HDF5 {where} is damaged"):
        if name not in node.attrs:
            return default
        held = node.attrs.get_id(name)
        shape, kind = held.shape, held.dtype
        if shape is None:
            return default
        count = math.prod(shape)
        text = h5py.check_string_dtype(kind)
        if kind.kind not in "iufbS" and text is None:
            raise DataError(f"{path}: {where} is neither a number nor a text")
        # The length of a text of variable length is known only once it is read; one of them is at most the file.
        if count * kind.itemsize > MOST_ATTRIBUTE_BYTES or (text is not None and text.length is None and count > 1):
            raise DataError(f"{path}: {where} is absurdly large (shape {list(shape)})")
        return _plain(node.attrs[name])


def length(dataset: h5py.Dataset, *, path: Path, largest: int = MOST_VALUES) -> int:
    """Number of values of a one-dimensional numeric dataset that is wholly stored in the file; reads none.

    Dimensions of length 1 do not count (MATLAB writes vectors as ``[1, n]``).

    Raises:
        DataError: not numeric, more than one dimension, more than ``largest`` values, stored in other files, or never
            written.
    """
    where = repr(dataset.name)
    with _failures(path, f"HDF5 dataset {where} is damaged"):
        shape = dataset.shape
        if shape is None:
            raise DataError(f"{path}: dataset {where} holds nothing")
        kind = dataset.dtype
        if kind.kind not in "iufb":
            raise DataError(f"{path}: dataset {where} holds no plain numbers (type {str(kind)[:40]})")
        count: int = math.prod(shape)
        if sum(extent != 1 for extent in shape) > 1:
            raise DataError(f"{path}: dataset {where} has shape {list(shape)}; wanted one dimension")
        if count > largest:
            raise DataError(f"{path}: dataset {where} states {count} values; at most {largest} are read")
        _check_storage(dataset, path, count, kind.itemsize)
        return count


def _check_storage(dataset: h5py.Dataset, path: Path, count: int, width: int) -> None:
    """Refuse values that are not in the file: of other files, or fill values in place of what was never written."""
    where = repr(dataset.name)
    properties = dataset.id.get_create_plist()
    if dataset.is_virtual or properties.get_external_count():
        raise DataError(f"{path}: dataset {where} lies in other files; merge them first")
    stored = dataset.id.get_storage_size()
    wanted = count * width
    ratio = MOST_COMPRESSION if properties.get_nfilters() else 1
    missing = count > 0 and stored * ratio < wanted
    if dataset.chunks is not None:
        if math.prod(dataset.chunks) * width > MOST_CHUNK_BYTES:
            raise DataError(f"{path}: dataset {where} has absurdly large chunks ({list(dataset.chunks)})")
        extents = zip(dataset.shape, dataset.chunks, strict=True)
        chunks = math.prod(-(-extent // max(size, 1)) for extent, size in extents)
        missing = missing or dataset.id.get_num_chunks() < chunks
    missing = missing or stored > path.stat().st_size
    if missing:
        raise DataError(f"{path}: dataset {where} states {count} values, but not all were written")


def numbers(dataset: h5py.Dataset, *, path: Path, largest: int = MOST_VALUES) -> npt.NDArray[np.float32]:
    """All values of a one-dimensional numeric dataset, converted while they are read.

    Returns:
        float32 [n]; NaN and infinite where the file has them, infinite where a value is beyond float32.

    Raises:
        DataError: see :func:`length`; or the values cannot be decoded.
    """
    count = length(dataset, path=path, largest=largest)
    try:
        values = np.empty(dataset.shape, np.float32)
    except MemoryError as error:
        raise DataError(f"{path}: dataset {dataset.name!r}: no memory for its {count} values") from error
    _read(dataset, path, values, None)
    return values.reshape(-1)


def excerpt(dataset: h5py.Dataset, *, path: Path, blocks: int = 16, width: int = 4096) -> npt.NDArray[np.float32]:
    """Values from all over a dataset: ``blocks`` runs of ``width`` values, evenly spaced; all where there are few.

    Raises:
        DataError: see :func:`numbers`.
    """
    count = length(dataset, path=path)
    chunk = math.prod(dataset.chunks) if dataset.chunks else 1
    if len(dataset.shape) != 1 or count <= blocks * width or chunk > count // blocks:
        return numbers(dataset, path=path)[:: max(1, count // (blocks * width))]
    values = np.empty((blocks, width), np.float32)
    for row, first in zip(values, np.linspace(0, count - width, blocks).astype(int), strict=True):
        _read(dataset, path, row, np.s_[first : first + width])
    return values.reshape(-1)


def _read(dataset: h5py.Dataset, path: Path, values: npt.NDArray[np.float32], part: slice | None) -> None:
    with _failures(path, f"HDF5 dataset {dataset.name!r} cannot be read"):
        _READING.samples = True
        try:
            if values.size:
                dataset.read_direct(values, part)
        finally:
            _READING.samples = False
