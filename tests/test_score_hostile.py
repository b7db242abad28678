"""Other people's hypnograms: what cannot be used is refused in one clear line."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import edfio
import numpy as np
import pytest
from safetensors.numpy import save_file
from score_world import (  # noqa: F401  (fixtures)
    CODES,
    NAMES,
    given_fixture,
    home_fixture,
    one_line,
    probabilities,
    scored_fixture,
    store_fixture,
    truth_fixture,
)

from tusp.dashboards.scoring_outside import Outcome
from tusp.datasets import hypnogram_files
from tusp.datasets.hypnogram_files import read_hypnogram, read_submission
from tusp.platform.errors import DataError, UserError
from tusp.platform.store.entries import list_entries
from tusp.platform.store.session import Store

# --- hostile input ---


def pickled(path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {path}.exploded",)

    np.save(path, np.array([Bomb(), 1], dtype=object), allow_pickle=True)


def pickled_in_npz(path: Path) -> None:
    pickled(path.with_suffix(".npy"))
    raw = path.with_suffix(".npy").read_bytes()
    path.with_suffix(".npy").unlink()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", raw)


def header_of(shape: str, descr: str = "'|i1'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("arr_0.npy", "w") as stream:
        for _ in range(65):
            stream.write(bytes(2**20))


def broken_zip(path: Path) -> None:
    np.savez_compressed(path, np.zeros(5000, np.int64))
    raw = bytearray(path.read_bytes())
    middle = len(raw) // 3
    raw[middle : middle + 8] = b"\xff" * 8
    path.write_bytes(raw)


HOSTILE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "code 5": (".json", lambda p: p.write_text("[0, 5]"), r"'5' at epoch 1 is no stage code \(-1 to 4\)"),
    "code -2": (".npy", lambda p: np.save(p, np.array([0, -2])), "-2 at epoch 1 is no stage code"),
    "half a stage": (".npy", lambda p: np.save(p, np.array([0.5])), "0.5 at epoch 0 is no stage code"),
    "true": (".json", lambda p: p.write_text("[true]"), "'True' at epoch 0 is no stage code"),
    "a label": (".txt", lambda p: p.write_text("W\nS2\n"), "'S2' at epoch 1 is no stage code"),
    "an empty line": (".txt", lambda p: p.write_text("W\n\nW\n"), "'' at epoch 1 is no stage code"),
    "nan": (
        ".npy",
        lambda p: np.save(p, np.where(np.eye(5) > 0, np.nan, 0.2)),
        "a probability of epoch 0 is not a number",
    ),
    "nan in json": (".json", lambda p: p.write_text("[[NaN,0,0,0,1]]"), "a probability of epoch 0 is not a number"),
    "huge number": (".json", lambda p: p.write_text(f"[[1{'0' * 400},0,0,0,1]]"), "too large to be a number"),
    "logits": (".npy", lambda p: np.save(p, np.full((3, 5), 2.0)), "of epoch 0 add up to 10, not to 1"),
    "negative": (
        ".npy",
        lambda p: np.save(p, np.array([[-0.5, 1.5, 0, 0, 0]])),
        "of epoch 0 add up to 1 and one is negative",
    ),
    "four stages": (".npy", lambda p: np.save(p, np.full((3, 4), 0.25)), r"has shape \[3, 4\]"),
    "no epoch": (".npy", lambda p: np.save(p, np.zeros(0, int)), "holds no epoch"),
    "objects": (".npy", pickled, "holds Python objects, which are never unpickled"),
    "objects in npz": (".npz", pickled_in_npz, "holds Python objects, which are never unpickled"),
    "a pickle": (".npy", lambda p: p.write_bytes(pickle.dumps([1, 2])), "not a NumPy array"),
    "texts": (".npy", lambda p: np.save(p, np.array(["W"])), "wanted whole numbers"),
    "a lie": (".npy", lambda p: p.write_bytes(header_of("(10000000000000,)") + b"\0"), "and holds 1 bytes"),
    "below zero": (".npy", lambda p: p.write_bytes(header_of("(-1,)")), "states shape|not a NumPy array"),
    "not a header": (".npy", lambda p: p.write_bytes(header_of("__import__('os')")), "not a NumPy array"),
    "records": (
        ".npy",
        lambda p: np.save(p, np.zeros(3, dtype=[("a", "i4"), ("b", "f8")])),
        "wanted whole numbers",
    ),
    "zip bomb": (".npz", bomb, "its array 'arr_0' is 65 MiB unpacked"),
    "broken zip": (".npz", broken_zip, "not a readable .npz file"),
    "no zip": (".npz", lambda p: p.write_bytes(b"PK"), "not a readable .npz file"),
    "empty zip": (".npz", lambda p: np.savez(p), "which array is the hypnogram. It holds nothing"),
    "which": (".npz", lambda p: np.savez(p, a=np.zeros(3), b=np.zeros(3)), "It holds a, b; save one, or call it arr_0"),
    "not utf-8": (".csv", lambda p: p.write_bytes(b"W\n\xff\xfe\n"), "not a text file in UTF-8"),
    "not json": (".json", lambda p: p.write_bytes(b"\xff["), "not JSON"),
    "deep json": (".json", lambda p: p.write_text("[" * 200_000), "not JSON|not a list"),
    "an object": (".json", lambda p: p.write_text('{"a": [0]}'), "a JSON object; one recording's hypnogram is a list"),
    "empty": (".edf", lambda p: p.write_bytes(b""), "is empty"),
    "no edf": (".edf", lambda p: p.write_bytes(b"0" * 300), "EDF"),
    "no stages": (
        ".edf",
        lambda p: edfio.Edf([], annotations=[edfio.EdfAnnotation(0, 30, "apnea")]).write(p),
        "holds no sleep stages",
    ),
    "off the grid": (".csv", lambda p: p.write_text("0,30,W\n45,30,N1\n"), "'N1' from 45 to 75 s lies off the grid"),
    "overlap": (".csv", lambda p: p.write_text("0,60,W\n30,30,N1\n"), "'N1' at 30 s overlaps the one before"),
    "before": (".csv", lambda p: p.write_text("-30,60,W\n30,30,N1\n"), "'W' begins at -30 s, before second 0"),
    "beyond": (".csv", lambda p: p.write_text("0,30,W\n1e12,30,N1\n"), "longer than any night"),
    "no columns": (".csv", lambda p: p.write_text("a,b\n1,2\n"), "does not name the columns"),
    "torn": (".safetensors", lambda p: p.write_bytes(b"\xff" * 64), "not a readable prediction"),
    "else": (
        ".safetensors",
        lambda p: save_file({"weight": np.zeros(3, np.float32)}, p),
        "holds no 'predicted' and no 'probabilities'",
    ),
    "placed nowhere": (
        ".safetensors",
        lambda p: save_file({"predicted": np.zeros(3, np.int8)}, p, metadata={"first_epoch": "-3"}),
        "its first_epoch is '-3'; wanted a whole number",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_are_refused_in_one_line(
    what: str, store: Store, given: Path, scored: Callable[..., Outcome]
) -> None:
    suffix, write, said = HOSTILE[what]
    (given / "SC4001E0.json").unlink()
    path = given / f"SC4001E0{suffix}"
    write(path)
    with pytest.raises(DataError, match=said) as error:
        read_hypnogram(path)
    assert str(path) in one_line(error)
    with pytest.raises(DataError, match=said) as error:
        scored()
    one_line(error)
    assert list_entries(store) == []
    assert not list(given.glob("*.exploded"))


def test_a_file_that_is_too_large_is_not_read(given: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = given / "SC4001E0.json"
    with path.open("wb") as stream:
        stream.truncate(hypnogram_files.MOST_BYTES + 1)  # a hole: no disk is used
    with pytest.raises(DataError, match="64 MiB; no hypnogram is larger than 64"):
        read_hypnogram(path)
    assert "SC4001E0" in read_submission(given).refused
    monkeypatch.setattr(hypnogram_files, "MOST_FILES", 2)
    with pytest.raises(UserError, match="more than 2 files"):
        read_submission(given)


def test_names_that_are_no_text_are_shown_and_stored(
    store: Store, given: Path, scored: Callable[..., Outcome], tmp_path: Path
) -> None:
    Path(os.fsdecode(os.fsencode(given) + b"/\xff\xfe.json")).write_text("[0]")
    Path(os.fsdecode(os.fsencode(given) + b"/\xff.dat")).write_text("x")
    assert "not read: ?.dat" in scored().notes
    assert list_entries(store)[0].provenance["unmatched"] == ["??"]
    path = tmp_path / "all.json"
    path.write_text(json.dumps({"a\0b\ud800": [0], **dict.fromkeys(NAMES, CODES)}))
    assert "of no recording: a?b?" in scored(predictions=path, name="other").notes


def test_a_pipe_is_no_hypnogram(given: Path) -> None:
    (given / "SC4001E0.json").unlink()
    os.mkfifo(given / "SC4001E0.json")
    assert "not a regular file" in read_submission(given).refused["SC4001E0"]


def test_folders_without_hypnograms_are_refused(tmp_path: Path, given: Path, scored: Callable[..., Outcome]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="holds no files"):
        scored(predictions=empty)
    (empty / "majority").mkdir()
    with pytest.raises(UserError, match=r"holds no files; it holds folders \(majority\): name one of them"):
        scored(predictions=empty)
    (empty / "notes.md").write_text("x")
    with pytest.raises(UserError, match="none of its 1 files is a hypnogram"):
        scored(predictions=empty)
    with pytest.raises(UserError, match="no such folder or file"):
        scored(predictions=tmp_path / "nowhere")
    for file in given.iterdir():
        file.rename(given / f"other_{file.name}")
    with pytest.raises(DataError, match="no file is of a recording of sedf-sc: it has other_SC4001E0"):
        scored(allow_partial=True)


def test_a_truth_that_cannot_be_read_is_refused(truth: Path, scored: Callable[..., Outcome]) -> None:
    (truth / "SC4001E0.json").write_text("[7]")
    with pytest.raises(DataError, match="'7' at epoch 0"):
        scored()
    (truth / "SC4001E0.json").write_text("[-1, -1]")
    with pytest.raises(DataError, match="SC4001E0: its truth has no scored epoch"):
        scored()


def test_an_unknown_corpus_is_named(scored: Callable[..., Outcome]) -> None:
    with pytest.raises(UserError, match="no corpus 'nowhere'"):
        scored(corpus="nowhere", truth=None)
    with pytest.raises(UserError, match="is not a name for a corpus"):
        scored(corpus="No Where")
    with pytest.raises(UserError, match="no scoring rule 'half'"):
        scored(rule="half")
