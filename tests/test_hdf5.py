"""The HDF5 reader: what it reads, and what wild files end in."""

from __future__ import annotations

import os
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tusp.datasets.formats import hdf5
from tusp.datasets.formats.hdf5 import (
    attribute,
    dataset_at,
    excerpt,
    group_at,
    length,
    member,
    members,
    numbers,
    opened_hdf5,
)
from tusp.platform.errors import DataError


def _write(path: Path, fill: Callable[[h5py.File], object]) -> Path:
    with h5py.File(path, "w") as file:
        fill(file)
    return path


def _numbers(path: Path, name: str = "x", **more: int) -> np.ndarray:
    with opened_hdf5(path) as file:
        return numbers(dataset_at(file, name), path=path, **more)


def _reason(path: Path, name: str = "x", **more: int) -> str:
    with pytest.raises(DataError) as caught:
        _numbers(path, name, **more)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < len(str(path)) + 300
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", ">f8", "<f2", "<i2", ">i4", "<i8", "|u1", "|i1", "?"])
@pytest.mark.parametrize("layout", ["contiguous", "chunked", "gzip", "shuffled", "lzf", "row", "column"])
def test_numbers_of_any_type_and_layout(tmp_path: Path, kind: str, layout: str) -> None:
    values = (np.arange(1000) % 100).astype(kind)
    options: dict[str, dict[str, object]] = {
        "chunked": {"chunks": (64,)},
        "gzip": {"compression": "gzip", "chunks": (300,)},
        "shuffled": {"compression": "gzip", "shuffle": True, "fletcher32": True},
        "lzf": {"compression": "lzf"},
    }
    shaped = {"row": values[None], "column": values[:, None]}.get(layout, values)
    path = _write(tmp_path / "a.h5", lambda f: f.create_dataset("x", data=shaped, **options.get(layout, {})))
    read = _numbers(path)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, values.astype(np.float32))


def test_zeros_compress_well_and_are_read(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.h5", lambda f: f.create_dataset("x", data=np.zeros(5_000_000), compression="gzip"))
    assert path.stat().st_size < 400_000
    assert not _numbers(path).any()


def test_an_empty_dataset_is_empty(tmp_path: Path) -> None:
    assert _numbers(_write(tmp_path / "a.h5", lambda f: f.create_dataset("x", data=np.zeros(0)))).shape == (0,)


def test_what_is_not_finite_stays_so(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.h5", lambda f: f.create_dataset("x", data=[0.0, np.nan, -np.inf, 1e300]))
    assert _numbers(path).tolist() == pytest.approx([0.0, np.nan, -np.inf, np.inf], nan_ok=True)


@pytest.mark.parametrize("layout", [{}, {"compression": "gzip", "chunks": (1000,)}, {"chunks": (300_000,)}])
def test_an_excerpt_comes_from_all_over(tmp_path: Path, layout: dict[str, object]) -> None:
    path = _write(tmp_path / "a.h5", lambda f: f.create_dataset("x", data=np.arange(300_000), **layout))
    with opened_hdf5(path) as file:
        part = excerpt(dataset_at(file, "x"), path=path, blocks=10, width=100)
        assert len(part) in (1000, 1001)
        assert np.percentile(part, (25, 75)) == pytest.approx([75_000, 225_000], rel=0.15)
        assert len(excerpt(dataset_at(file, "x"), path=path, blocks=10, width=40_000)) == 300_000


def test_the_real_one_hot_labels(shared_data: Path) -> None:
    path = shared_data / "cinc2018" / "tr03-0005-arousal.mat"
    with opened_hdf5(path) as file:
        stages = group_at(file, "data/sleep_stages")
        assert members(stages) == ["nonrem1", "nonrem2", "nonrem3", "rem", "undefined", "wake"]
        total = sum(numbers(dataset_at(stages, name), path=path) for name in members(stages))
    assert total.shape == (5_147_000,)
    assert (total == 1).all()


def _absurd(file: h5py.File) -> None:
    file.create_dataset("x", shape=(10**15,), chunks=(1000,), dtype="f8", fillvalue=1.0)


@pytest.mark.parametrize(
    ("fill", "reason"),
    [
        (_absurd, "states 1000000000000000 values; at most 73728000 are read"),
        (lambda f: f.create_dataset("x", shape=(6 * 10**7,), chunks=(1000,), dtype="f4"), "not all were written"),
        (lambda f: f.create_dataset("x", shape=(6 * 10**7,), dtype="f4"), "not all were written"),
        (
            lambda f: f.create_dataset("x", shape=(6 * 10**7,), compression="gzip", chunks=(10**6,), dtype="f4"),
            "not all were written",
        ),
        (
            lambda f: f.create_dataset("x", shape=(10,), maxshape=(None,), chunks=(2**28,), dtype="f4"),
            "absurdly large chunks",
        ),
        (lambda f: f.create_dataset("x", data=np.zeros((3, 4))), "shape [3, 4]; wanted one dimension"),
        (lambda f: f.create_dataset("x", shape=(10**9, 10**9), chunks=(1, 9), dtype="f4"), "wanted one dimension"),
        (lambda f: f.create_dataset("x", data=["W", "N1"]), "no plain numbers"),
        (lambda f: f.create_dataset("x", data=np.array([b"W", b"N1"])), "no plain numbers"),
        (lambda f: f.create_dataset("x", data=np.zeros(4, "c16")), "no plain numbers"),
        (lambda f: f.create_dataset("x", data=np.zeros(4, [("a", "f4"), ("b", "i4")])), "no plain numbers"),
        (lambda f: f.create_dataset("x", data=np.zeros(4, "V16")), "no plain numbers"),
        (lambda f: f.create_dataset("x", data=[f.ref], dtype=h5py.ref_dtype), "no plain numbers"),
        (lambda f: f.create_dataset("x", shape=(3,), dtype=h5py.vlen_dtype("f4")), "no plain numbers"),
        (lambda f: f.create_dataset("x", dtype=h5py.Empty("f4").dtype, data=h5py.Empty("f4")), "holds nothing"),
        (lambda f: f.create_group("x"), "a group, not a dataset, is at 'x'"),
        (lambda f: f.create_group("y"), "no dataset 'x'"),
        (lambda f: f.__setitem__("x", np.dtype("f4")), "no dataset 'x'"),
        (lambda f: f.__setitem__("x", h5py.SoftLink("/nowhere")), "no dataset 'x'"),
        (lambda f: f.__setitem__("x", h5py.SoftLink("/x")), "leads in a circle"),
        (lambda f: (f.__setitem__("x", h5py.SoftLink("y")), f.__setitem__("y", h5py.SoftLink("x"))), "in a circle"),
        (lambda f: f.__setitem__("x", h5py.SoftLink("x/x/x/x")), "in a circle"),
        (lambda f: f.__setitem__("x", h5py.ExternalLink("other.h5", "/x")), "lies in another file ('other.h5')"),
        (lambda f: f.__setitem__("x", h5py.ExternalLink("/dev/zero", "/x")), "lies in another file"),
        (
            lambda f: (f.__setitem__("y", h5py.ExternalLink("a.h5", "/")), f.__setitem__("x", h5py.SoftLink("/y/x"))),
            "lies in another file",
        ),
    ],
)
def test_wild_datasets(tmp_path: Path, fill: Callable[[h5py.File], object], reason: str) -> None:
    started = time.monotonic()
    assert reason in _reason(_write(tmp_path / "a.h5", fill))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}])
def test_a_chunk_that_was_never_written(tmp_path: Path, options: dict[str, str]) -> None:
    def fill(file: h5py.File) -> None:
        x = file.create_dataset("x", shape=(10_000,), chunks=(1000,), dtype="f8", **options)
        x[:8000] = np.random.default_rng(1).normal(size=8000)
        x[9000:] = 1

    assert "states 10000 values, but not all were written" in _reason(_write(tmp_path / "a.h5", fill))


def test_virtual_and_external_storage_is_never_opened(tmp_path: Path) -> None:
    _write(tmp_path / "b.h5", lambda f: f.create_dataset("x", data=np.arange(10.0)))

    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout(shape=(10,), dtype="f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "b.h5"), "x", shape=(10,))
        file.create_virtual_dataset("x", layout)

    assert "lies in other files" in _reason(_write(tmp_path / "a.h5", virtual))
    (tmp_path / "raw.bin").write_bytes(bytes(80))
    external = [(str(tmp_path / "raw.bin"), 0, 80)]
    path = _write(tmp_path / "c.h5", lambda f: f.create_dataset("x", shape=(10,), dtype="f8", external=external))
    assert "lies in other files" in _reason(path)


def test_soft_links_inside_the_file_are_followed(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file.create_dataset("deep/er/x", data=[1.0, 2.0])
        file["deep/again"] = h5py.SoftLink("er")
        file["x"] = h5py.SoftLink("/deep/again/x")
        file["deep/round"] = file["deep"]

    path = _write(tmp_path / "a.h5", fill)
    assert _numbers(path).tolist() == [1.0, 2.0]
    assert _numbers(path, "deep/round/round/again/x").tolist() == [1.0, 2.0]
    with opened_hdf5(path) as file:
        assert member(file, "deep/er/x/y") is None
        assert member(file["deep"], "/x") is not None
        with pytest.raises(DataError, match="a dataset, not a group, is at 'x'"):
            group_at(file, "x")
        with pytest.raises(DataError, match="no group 'z'"):
            group_at(file, "z")


def test_the_largest_can_be_stated(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.h5", lambda f: f.create_dataset("x", data=np.arange(11)))
    assert _reason(path, largest=10) == "dataset '/x' states 11 values; at most 10 are read"
    assert len(_numbers(path, largest=11)) == 11
    with opened_hdf5(path) as file:
        assert length(dataset_at(file, "x"), path=path) == 11


def test_attributes(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file.attrs["text"] = "grün"
        file.attrs["bytes"] = np.bytes_("µV".encode("latin-1"))
        file.attrs["number"] = np.float32(256)
        file.attrs["whole"] = 256
        file.attrs["one"] = np.array([[250]])
        file.attrs["many"] = np.arange(3)
        file.attrs["names"] = np.array([b"a", b"b"])
        file.attrs["nothing"] = h5py.Empty("f4")

    with opened_hdf5(_write(tmp_path / "a.h5", fill)) as file:
        assert attribute(file, "text") == "grün"
        assert attribute(file, "bytes") == "µV"
        assert (attribute(file, "number"), attribute(file, "whole"), attribute(file, "one")) == (256.0, 256, 250)
        assert attribute(file, "many").tolist() == [0, 1, 2]
        assert attribute(file, "names") == ["a", "b"]
        assert attribute(file, "nothing") is None
        assert attribute(file, "absent", 7) == 7


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(2, [("a", "f4"), ("b", "i4")]),
        np.zeros(1, "c8"),
        np.zeros(1, "V4"),
        ["one", "two"],
    ],
)
def test_attributes_of_odd_types(tmp_path: Path, value: object) -> None:
    path = _write(tmp_path / "a.h5", lambda f: f.attrs.create("fs", value))
    with opened_hdf5(path) as file, pytest.raises(DataError, match=r"attribute 'fs' of '/' is"):
        attribute(file, "fs")


def test_attributes_that_are_references_or_huge(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file.attrs["reference"] = file.ref
        file.attrs["ragged"] = np.array([np.arange(3), np.arange(2)], dtype=h5py.vlen_dtype("i4"))

    with opened_hdf5(_write(tmp_path / "a.h5", fill)) as file:
        for name in ("reference", "ragged"):
            with pytest.raises(DataError, match="neither a number nor a text"):
                attribute(file, name)
    with h5py.File(tmp_path / "b.h5", "w", libver="latest") as file:
        file.attrs["fs"] = np.zeros(2**18)
    with opened_hdf5(tmp_path / "b.h5") as file, pytest.raises(DataError, match="absurdly large"):
        attribute(file, "fs")


def test_a_text_with_broken_encoding_is_still_a_text(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.h5", lambda f: f.attrs.create("unit", b"\xb5V", dtype=h5py.string_dtype()))
    with opened_hdf5(path) as file:
        attribute(file, "unit").encode("utf-8")


def test_files_that_are_no_hdf5(tmp_path: Path) -> None:
    good = _write(tmp_path / "good.h5", lambda f: f.create_dataset("x", data=np.arange(1000.0)))
    cases = {"absent": "no such file or directory", "empty": "empty file (0 bytes)", "page": "not an HDF5 file"}
    (tmp_path / "empty").touch()
    (tmp_path / "page").write_text("<html>404")
    (tmp_path / "short").write_bytes(good.read_bytes()[:2000])
    cases["short"] = "truncated"
    (tmp_path / "signature").write_bytes(good.read_bytes()[:8])
    cases["signature"] = "damaged"
    os.mkfifo(tmp_path / "fifo")
    cases["fifo"] = cases["."] = "not a regular file"
    for name, reason in cases.items():
        assert reason in _reason(tmp_path / name)


def test_what_h5py_raises_inside_is_one_line_and_our_own_defects_are_not_hidden(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.h5", lambda f: f.create_dataset("x", data=np.arange(3)))
    with pytest.raises(DataError, match=r"a\.h5: .*doesn't exist"), opened_hdf5(path) as file:
        file["nothing"]
    with pytest.raises(KeyError), opened_hdf5(path):
        {}["defect"]


def test_a_heap_of_texts_that_would_make_the_library_loop(tmp_path: Path) -> None:
    """A free-space entry of length 0: HDF5 2.0 never returns from reading the attribute."""
    path = _write(tmp_path / "a b%20ü.h5", lambda f: f.attrs.create("text", "hello", dtype=h5py.string_dtype()))
    raw = bytearray(path.read_bytes())
    heap = raw.find(b"GCOL")
    assert raw[heap + 4] == 1
    free = heap + 16 + 16 + 8
    assert raw[free : free + 2] == b"\0\0"
    raw[free + 8 : free + 16] = bytes(8)
    with opened_hdf5(path) as file:
        assert attribute(file, "text") == "hello"
    path.write_bytes(raw)
    with opened_hdf5(path) as file, pytest.raises(DataError, match=r"its heap of texts at byte \d+ is broken"):
        attribute(file, "text")


def test_texts_that_fill_several_heaps(tmp_path: Path) -> None:
    texts = {f"a{i}": "x" * (i * 97 % 6000) for i in range(60)}
    path = _write(tmp_path / "a.h5", lambda f: f.attrs.update(texts))
    with opened_hdf5(path) as file:
        assert {name: attribute(file, name) for name in texts} == texts


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "MOST_MEMBERS", 3)
    path = _write(tmp_path / "a.h5", lambda f: [f.create_group(str(i)) for i in range(4)])
    with opened_hdf5(path) as file, pytest.raises(DataError, match="4 members; at most 3"):
        members(file)


def test_damaged_files_end_in_one_line(tmp_path: Path) -> None:
    """Flipped, overwritten and cut files: read as they were, or refused in one line; never anything else."""
    values = np.arange(3000.0)

    def fill(file: h5py.File) -> None:
        group = file.create_group("signals/eeg")
        group.attrs["fs"] = 250
        group.create_dataset("x", data=values, compression="gzip", fletcher32=True, chunks=(500,))
        file.attrs["description"] = "text " * 30

    whole = _write(tmp_path / "good.h5", fill).read_bytes()
    rng = random.Random(3)
    refused = 0
    started = time.monotonic()
    for _ in range(400):
        raw = bytearray(whole)
        for _ in range(rng.choice((1, 2, 8))):
            place = rng.randrange(len(raw))
            raw[place : place + 4] = rng.choice((rng.randbytes(1), b"\xff" * 4, b"\0" * 4, rng.randbytes(4)))
        path = tmp_path / "bad.h5"
        path.write_bytes(raw[: rng.randrange(len(raw))] if rng.random() < 0.1 else raw)
        try:
            with opened_hdf5(path) as file:
                members(file)
                for node in (file, group_at(file, "signals/eeg")):
                    attribute(node, "fs")
                    attribute(node, "description")
                read = numbers(dataset_at(file, "signals/eeg/x"), path=path)
        except DataError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)
        else:
            assert len(read) <= 10**6
    assert refused > 50
    assert time.monotonic() - started < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 * 2**20
