# ruff: noqa: E501 - tables of hostile values read better with one case a line
"""Ways to break an HDF5 file that need the library: shapes, types, links, attributes, filters.

A sound file is opened in memory, changed, and handed back as bytes. The library is never given bytes that were broken
before; those are only broken further as bytes.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable

import h5py
import numpy as np

from fuzz.mutation import Rng, flip_bits, pick

HOSTILE_VALUES: tuple[object, ...] = (
    0, -1, 1, 30, 255, 256.0, 257.0, 1e-300, 1e300, float("nan"), float("inf"), "", "256", "uV", "V", "mV", "\x1b[2J",
    "a\nb", b"\xff\xfe", "x" * 60_000, 2**62, -(2**62), np.uint64(2**64 - 1), True, np.complex128(1 + 1j),
    np.array([256, 256]), np.array([], np.float64), np.array([[1.0]]), np.zeros((100, 70)), h5py.Empty("f8"), "[]", "{}",
    "null", "[" * 3000, '[{"fs": 1e309}]', '[{"fs": "250", "path": "/etc/passwd"}]', '[{"name": null}]', "[1, 2]",
    '{"a": [{}]}', "9" * 5000, "1970", "2018-01-01",
)  # fmt: skip


def _nodes(file: h5py.File) -> tuple[list[str], list[str]]:
    """Names of all groups and of all datasets."""
    groups, datasets = ["/"], []
    file.visititems(lambda name, node: (datasets if isinstance(node, h5py.Dataset) else groups).append(name))
    return groups, datasets


def _sound(dataset: h5py.Dataset) -> bool:
    """Whether the library reads it without harm: a dataset that is made of itself ends the process."""
    return not dataset.is_virtual and not dataset.external and dataset.shape is not None and dataset.size < 10**7


def _put(file: h5py.File, name: str, **made: object) -> h5py.Dataset:
    """Another dataset under the same name, with the attributes of the old one."""
    attributes = dict(file[name].attrs)
    del file[name]
    dataset = file.create_dataset(name, **made)
    for key, value in attributes.items():
        dataset.attrs[key] = value
    return dataset


def _wild_shape(file: h5py.File, name: str, rng: Rng) -> str:
    old = file[name][()]
    shapes: tuple[tuple[int, ...], ...] = (
        (10**15,), (2**62,), (10**9,), (3 * 10**8,), (0,), (), (1, 10**12), (10**6, 10**6), (old.size, 2), (2,) * 32,
        (old.size * 1000,),
    )  # fmt: skip
    shape = shapes[pick(rng, shapes)]
    chunks = (
        tuple(min(extent, 1024) if len(shape) == 1 else min(extent, 16) for extent in shape)
        if shape and 0 not in shape
        else None
    )
    dataset = _put(file, name, shape=shape, dtype=old.dtype, chunks=None if len(shape) > 8 else chunks)
    if rng.random() < 0.5 and chunks is not None and len(shape) == 1:
        dataset[: min(old.size, shape[0])] = old.reshape(-1)[: min(old.size, shape[0])]
    return f"{name} has shape {shape}"


def _another_type(file: h5py.File, name: str, rng: Rng) -> str:
    old = file[name][()].reshape(-1)
    kinds = (
        "S8",
        "f8",
        ">f4",
        ">i2",
        "f2",
        "i8",
        "u1",
        "i1",
        "c8",
        "?",
        "vlen",
        "text",
        "compound",
        "enum",
        "reference",
        "empty",
        "array",
    )
    kind = kinds[pick(rng, kinds)]
    if kind == "vlen":
        dataset = _put(file, name, shape=(4,), dtype=h5py.vlen_dtype("f4"))
        dataset[0] = np.arange(3)
    elif kind == "text":
        _put(file, name, data=[str(value) for value in old[:50]], dtype=h5py.string_dtype())
    elif kind == "compound":
        _put(file, name, shape=old.shape, dtype=[("a", "f4"), ("b", "i2")])
    elif kind == "enum":
        _put(file, name, data=(old[:100] % 2).astype("i1"), dtype=h5py.enum_dtype({"A": 0, "B": 1}, "i1"))
    elif kind == "reference":
        _put(file, name, shape=old.shape, dtype=h5py.ref_dtype)
    elif kind == "empty":
        _put(file, name, data=h5py.Empty("f4"))
    elif kind == "array":
        _put(file, name, shape=(old.size // 4,), dtype=np.dtype((np.float32, (4,))))
    else:
        with np.errstate(all="ignore"):
            _put(file, name, data=old.astype(kind))
    return f"{name} is of type {kind}"


def _another_storage(file: h5py.File, name: str, rng: Rng) -> str:
    old = file[name][()].reshape(-1)
    ways: dict[str, Callable[[], object]] = {
        "gzip": lambda: _put(file, name, data=old, compression="gzip"),
        "lzf, shuffled": lambda: _put(file, name, data=old, compression="lzf", shuffle=True),
        "checksums": lambda: _put(file, name, data=old, fletcher32=True, chunks=True),
        "chunks of 7": lambda: _put(file, name, data=old[:2000], chunks=(7,)),
        "[1, n]": lambda: _put(file, name, data=old.reshape(1, -1)),
        "[n, 1]": lambda: _put(file, name, data=old.reshape(-1, 1)),
        "extendible": lambda: _put(file, name, data=old, maxshape=(None,)),
        "resized": lambda: _put(file, name, data=old, maxshape=(None,)).resize((old.size * 3,)),
        "another file": lambda: _put(file, name, shape=old.shape, dtype=old.dtype, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]),
        "a device": lambda: _put(file, name, shape=old.shape, dtype=old.dtype, external=[("/dev/zero", 0, h5py.h5f.UNLIMITED)]),
        "shorter": lambda: _put(file, name, data=old[: -int(rng.integers(1, old.size))]),
        "longer": lambda: _put(file, name, data=np.concatenate([old, old[: int(rng.integers(1, old.size))]])),
    }  # fmt: skip
    way = list(ways)[pick(rng, list(ways))]
    ways[way]()
    return f"{name} stored anew: {way}"


def _virtual(file: h5py.File, name: str, rng: Rng) -> str:
    old = file[name]
    source = (".", "elsewhere.h5", "/dev/zero")[int(rng.integers(3))]
    layout = h5py.VirtualLayout(shape=(old.size,), dtype=old.dtype)
    layout[:] = h5py.VirtualSource(source, name if rng.random() < 0.5 else "nothing", shape=(old.size,))
    attributes = dict(old.attrs)
    del file[name]
    dataset = file.create_virtual_dataset(name, layout)
    for key, value in attributes.items():
        dataset.attrs[key] = value
    return f"{name} is virtual, from {source}"


def _bomb(file: h5py.File, name: str, rng: Rng) -> str:
    """Hundreds of millions of zeros in some kilobytes."""
    old = file[name]
    per_chunk, n_chunks = 2**22, int(2 ** rng.uniform(0, 7))
    dataset = _put(file, name, shape=(per_chunk * n_chunks,), dtype=old.dtype, chunks=(per_chunk,), compression="gzip")
    packed = zlib.compress(bytes(per_chunk * dataset.dtype.itemsize), 1)
    for chunk in range(n_chunks):
        dataset.id.write_direct_chunk((chunk * per_chunk,), packed)
    return f"{name} is {per_chunk * n_chunks} zeros, compressed"


def _values(file: h5py.File, name: str, rng: Rng) -> str:
    values = (np.nan, np.inf, -np.inf, 1e30, -1e38, 0, 1, 7, -1, 99, 255, 0.5)
    value = values[pick(rng, values)]
    dataset = file[name]
    start = int(rng.integers(dataset.size))
    data = dataset[()].reshape(-1).copy()
    end = start + int(2 ** rng.uniform(0, np.log2(data.size)))
    with np.errstate(all="ignore"):
        data[start:end] = np.array(value).astype(data.dtype)
    dataset[...] = data.reshape(dataset.shape)
    return f"{name} is {value} from {start} to {end}"


def _link(file: h5py.File, name: str, rng: Rng) -> str:
    groups, datasets = _nodes(file)
    others = [other for other in datasets if other != name]
    ways: dict[str, Callable[[], object]] = {
        "to itself": lambda: h5py.SoftLink(f"/{name}"),
        "to nothing": lambda: h5py.SoftLink("/nothing/here"),
        "to the root": lambda: h5py.SoftLink("/"),
        "to another": lambda: h5py.SoftLink(f"/{others[pick(rng, others)]}" if others else "/"),
        "in a long path": lambda: h5py.SoftLink("/." * 20_000 + f"/{name}"),
        "to a file": lambda: h5py.ExternalLink("elsewhere.h5", f"/{name}"),
        "to a device": lambda: h5py.ExternalLink("/dev/zero", "/"),
        "to this file": lambda: h5py.ExternalLink(".", f"/{name}"),
        "to a group": lambda: file[groups[pick(rng, groups)]],
    }  # fmt: skip
    way = list(ways)[pick(rng, list(ways))]
    target = ways[way]()
    del file[name]
    file[name] = target
    return f"{name} is a link {way}"


def _chain(file: h5py.File, name: str, rng: Rng) -> str:
    """A chain of soft links, some of them longer than any reader follows."""
    length = int(10 ** rng.uniform(0, 3))
    file.move(name, "end_of_chain")
    for index in range(length):
        file[f"chain{index}"] = h5py.SoftLink(f"/chain{index + 1}" if index + 1 < length else "/end_of_chain")
    file[name] = h5py.SoftLink("/chain0")
    return f"{name} is at the end of {length} soft links"


def _group_in_place(file: h5py.File, name: str, rng: Rng) -> str:
    kind = int(rng.integers(4))
    if kind == 0:
        del file[name]
        file.create_group(name)
        return f"{name} is a group"
    if kind == 1:
        del file[name]
        return f"{name} is gone"
    if kind == 2:
        del file[name]
        file[name] = np.dtype("f4")
        return f"{name} is a named type"
    groups, _ = _nodes(file)
    group = groups[pick(rng, groups)]
    if group != "/":
        kept = dict(file[group].attrs)
        del file[group]
        node = file.create_dataset(group, data=np.arange(5.0))
        for key, value in kept.items():
            node.attrs[key] = value
    return f"{group} is a dataset"


def _more_members(file: h5py.File, name: str, rng: Rng) -> str:
    groups, datasets = _nodes(file)
    group = file[groups[pick(rng, groups)]]
    kind = int(rng.integers(5))
    if kind == 0:
        for index in range(int(10 ** rng.uniform(1, 3))):
            group.create_group(f"more{index}")
    elif kind == 1:
        node = group
        for _ in range(int(10 ** rng.uniform(1, 2.7))):
            node = node.create_group("deeper")
    elif kind == 2:
        group["again"] = file["/"]
    elif kind == 3:
        for odd in ("a\nb", "\x1b[2J", " ", "." * 300, "ä" * 100, "x" * 3000, "\u202e"):
            group[odd] = file[datasets[pick(rng, datasets)]]
    else:
        group["copy of it"] = file[name]
    return f"{group.name} has more members ({('many', 'deep', 'the root', 'odd names', 'a copy')[kind]})"


def _attribute(file: h5py.File, name: str, rng: Rng) -> str:
    groups, datasets = _nodes(file)
    there = [(node, key) for node in (*groups, *datasets) for key in file[node].attrs]
    value = HOSTILE_VALUES[pick(rng, HOSTILE_VALUES)]
    if there and rng.random() < 0.75:
        node, key = there[pick(rng, there)]
        if rng.random() < 0.15:
            del file[node].attrs[key]
            return f"attribute {key} of {node} gone"
    else:
        node = (*groups, *datasets)[pick(rng, (*groups, *datasets))]
        keys = (
            "sample_rate",
            "fs",
            "unit",
            "channel_index",
            "description",
            "date",
            "comment",
            "duration",
            "MATLAB_class",
        )
        key = keys[pick(rng, keys)]
    if key in file[node].attrs:
        del file[node].attrs[key]
    file[node].attrs[key] = value
    return f"attribute {key} of {node} is {str(value)[:40]!r}"


def _exchange(file: h5py.File, name: str, rng: Rng) -> str:
    _, datasets = _nodes(file)
    other = datasets[pick(rng, datasets)]
    if other != name:
        file.move(name, "aside")
        file.move(other, name)
        file.move("aside", other)
    return f"{name} and {other} exchanged"


WAYS = (
    _wild_shape, _wild_shape, _another_type, _another_type, _another_storage, _another_storage, _virtual, _bomb, _values,
    _values, _link, _link, _chain, _group_in_place, _more_members, _attribute, _attribute, _attribute, _attribute,
    _exchange,
)  # fmt: skip


class Hdf5Mutator:
    """Breaks one of the sound files given with the library; anything else as bytes."""

    def __init__(self) -> None:
        self.sound: set[int] = set()

    def knows(self, raw: bytes) -> None:
        """Take up a sound file."""
        self.sound.add(hash(raw))

    def __call__(self, raw: bytes, rng: Rng) -> tuple[bytes, str]:
        if hash(raw) not in self.sound:
            return flip_bits(raw, rng)
        held = io.BytesIO(raw)
        said = []
        with h5py.File(held, "r+") as file:
            for _ in range(1 if rng.random() < 0.8 else 2):
                datasets = [name for name in _nodes(file)[1] if _sound(file[name])]
                if not datasets:
                    break
                way = WAYS[pick(rng, WAYS)]
                try:
                    said.append(way(file, datasets[pick(rng, datasets)], rng))
                except (OSError, ValueError, TypeError, KeyError, RuntimeError, OverflowError, MemoryError) as error:
                    said.append(f"{way.__name__} not possible ({type(error).__name__})")
        return held.getvalue(), "; ".join(said)
