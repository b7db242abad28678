"""Hypnograms and probabilities that others made, in the formats people keep them in.

Everything that is read ends as stage codes, one a 30-s epoch, -1 where nothing is said. Nothing is unpickled, padded or
cut. Which recording a file is of is told by its name.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import re
import stat
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tusp.datasets.formats.edf import read_annotations, read_header, unreadable
from tusp.datasets.formats.hypnograms import plain_label
from tusp.datasets.formats.label_tables import runs_from_table
from tusp.datasets.recording import Stages
from tusp.platform.errors import DataError, UserError, one_line
from tusp.platform.files import disk_errors_named
from tusp.platform.identity import file_sha256
from tusp.platform.stages import EPOCH_SECONDS, N1, N2, N3, N_STAGES, REM, UNSCORED, W

SUFFIXES: Final = (".json", ".csv", ".tsv", ".txt", ".ids", ".npy", ".npz", ".edf", ".safetensors")
MOST_BYTES: Final = 64 * 2**20
"""Of one file, and of one array inside a file."""
MOST_FILES: Final = 50_000
MOST_EPOCHS: Final = 100_000
"""35 days."""
SUM_TOLERANCE: Final = 0.01
"""How far the five probabilities of an epoch may be from 1 together (half precision, rounded text)."""

LABELS: Final = {
    **{str(code): code for code in range(UNSCORED, N_STAGES)},
    **dict.fromkeys(("w", "wake", "sleep stage w"), W),
    **dict.fromkeys(("n1", "sleep stage 1", "sleep stage n1"), N1),
    **dict.fromkeys(("n2", "sleep stage 2", "sleep stage n2"), N2),
    **dict.fromkeys(("n3", "sleep stage 3", "sleep stage 4", "sleep stage n3"), N3),
    **dict.fromkeys(("r", "rem", "sleep stage r", "sleep stage rem"), REM),
    **dict.fromkeys(("?", "unknown", "unscored", "movement time", "sleep stage ?"), UNSCORED),
}
"""Texts to codes, compared without case. A bare number is a code of tusp, never a stage of Rechtschaffen and Kales."""

_SHOWN: Final = 3
_PREDICTION: Final = re.compile(r"[_-]pred$", re.IGNORECASE)
_TRUTH: Final = re.compile(r"[_-]true$", re.IGNORECASE)
_SLEEP_EDF: Final = re.compile(r"((?:sc4|st7)\d{3})[a-z][a-z0-9](?:-psg|-hypnogram)?", re.ASCII)
_TOLERANCE_S: Final = 1e-3
_ARRAYS: Final = ("arr_0", "predicted", "predictions", "prediction", "pred", "y_pred", "hypnogram", "stages")
_NPY_MAGIC: Final = b"\x93NUMPY"


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """What one file says about one recording."""

    stages: Stages
    """int8 [n_epochs], -1 where nothing is said."""
    format: str
    timed: bool = False
    """The file states times from the recording's start: epoch 0 is the recording's first."""
    first_epoch: int | None = None
    """Where the file says that its first epoch lies in the recording."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Submitted:
    """A folder (or one file) of hypnograms."""

    hypnograms: Mapping[str, Given]
    """By what the file, or the key in a file, calls the recording."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """What could not be read, with the reason."""
    left_aside: Sequence[str] = ()
    """Files of other kinds, which were not read."""
    sha256: str = ""
    """Hash over names and SHA-256 of the files that were read, in order of name."""
    n_files: int = 0

    @property
    def formats(self) -> tuple[str, ...]:
        """Formats that were read."""
        return tuple(sorted({given.format for given in self.hypnograms.values()}))


@dataclass(frozen=True, kw_only=True)
class Matching:
    """Which hypnogram is of which recording."""

    found: Mapping[str, str]
    """Recording to what was given."""
    unmatched: Sequence[str]
    """What is of no recording, or of none that can be told."""
    missing: Sequence[str]
    """Recordings without a hypnogram."""


def read_submission(path: Path, *, model: str | None = None) -> Submitted:
    """Read a folder of hypnograms, or one JSON file that holds many.

    Args:
        path: the folder (its own files, not those of folders below it) or file.
        model: which one of a JSON file ``{model: {recording: codes}}``.

    Raises:
        UserError: nothing is there, it is not readable, or the model must be named.
        DataError: two files or keys are of one recording.
    """
    with disk_errors_named("hypnograms", path):
        if path.is_file():
            if path.suffix.casefold() == ".json":
                return _from_one_json(path, model)
            files = [path]
        elif path.is_dir():
            files = _files_in(path)
        else:
            raise UserError(f"{path}: {'neither a folder nor a file' if path.exists() else 'no such folder or file'}")
        if model is not None:
            raise UserError(f"--model names one of several in a JSON file, and {path} is {_kind_of(path)}")
        return _from_files(path, files)


def read_hypnogram(path: Path) -> Given:
    """One hypnogram, or the probabilities of one recording, by the file's suffix.

    Raises:
        DataError: the file cannot be read, is absurdly large, or holds something else; one line.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: not a regular file")
        if status.st_size > MOST_BYTES:
            raise DataError(f"{path}: {status.st_size / 2**20:.0f} MiB; no hypnogram is larger than {MOST_BYTES >> 20}")
        if status.st_size == 0:
            raise DataError(f"{path}: is empty")
        given = _read(path)
    except OSError as error:
        raise unreadable(path, error) from error
    if not given.stages.size:
        raise DataError(f"{path}: holds no epoch")
    return given


def match_recordings(given: Iterable[str], recordings: Iterable[str]) -> Matching:
    """Match names of files with recordings: alike without case, or the one beginning with the other.

    A beginning counts only where it leaves one recording to choose and does not end inside a number or a word
    (``tr03-1`` is no beginning of ``tr03-10``). Both files of a Sleep-EDF night count as the night.

    Raises:
        DataError: two files are of one recording.
    """
    known = {_plain(name): name for name in recordings}
    found: dict[str, str] = {}
    unmatched = []
    for name in sorted(given):
        plain = _plain(name)
        candidates = [plain] if plain in known else [other for other in known if _begins(plain, other)]
        if len(candidates) != 1:
            unmatched.append(name)
            continue
        recording = known[candidates[0]]
        if recording in found:
            raise DataError(f"{found[recording]} and {name} are both of recording {recording}; leave one of them")
        found[recording] = name
    missing = [name for name in sorted(known.values()) if name not in found]
    return Matching(found=found, unmatched=tuple(unmatched), missing=tuple(missing))


def nested_codes(path: Path) -> dict[str, Any]:
    """The content of a JSON file that is an object; no key may stand in it twice.

    Raises:
        DataError: it cannot be read or is no object.
    """
    content = _json(path)
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path}: not a JSON object {{recording: [codes]}}")
    return content


def codes_of(value: Any, *, where: str) -> Stages:
    """Stage codes, labels or probabilities [n, 5] of a JSON list as int8 [n_epochs].

    Raises:
        DataError: it holds something else.
    """
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: not a list of stage codes")
    if len(value) > MOST_EPOCHS:
        raise DataError(f"{where}: {len(value)} epochs; no night is that long")
    if isinstance(value[0], list):
        for epoch, row in enumerate(value):
            if not isinstance(row, list) or len(row) != N_STAGES or any(type(n) not in (int, float) for n in row):
                raise DataError(f"{where}: epoch {epoch} is not {N_STAGES} probabilities")
        try:
            return _stages_of(np.array(value, dtype=np.float64), where=where)
        except OverflowError as error:
            raise DataError(f"{where}: a probability is too large to be a number") from error
    return np.array([_code(item, epoch, where) for epoch, item in enumerate(value)], dtype=np.int8)


def _read(path: Path) -> Given:
    suffix = path.suffix.casefold()
    where = str(path)
    if suffix == ".json":
        content = _json(path)
        if isinstance(content, dict):
            raise DataError(f"{path}: a JSON object; one recording's hypnogram is a list")
        return Given(stages=codes_of(content, where=where), format="json")
    if suffix == ".npy":
        return Given(stages=_stages_of(_npy(path.read_bytes(), where), where=where), format="npy")
    if suffix == ".npz":
        return Given(stages=_stages_of(_from_npz(path), where=where), format="npz")
    if suffix == ".edf":
        header = read_header(path)
        runs = [
            (a.onset, a.duration, a.text) for a in read_annotations(header) if plain_label(a.text) in LABELS
        ]  # other annotations are events, not stages
        return Given(stages=_on_grid(runs, where=where), format="edf", timed=True)
    if suffix == ".safetensors":
        return _from_safetensors(path)
    return _from_text(path)


def _files_in(folder: Path) -> list[Path]:
    """Files of a folder by name, hidden ones left out."""
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            (folders if entry.is_dir() else files).append(entry.name)
            if len(files) > MOST_FILES:
                raise UserError(f"{folder}: more than {MOST_FILES:,} files; a submission is a folder of hypnograms")
    if not files:
        inside = f"; it holds folders ({', '.join(sorted(folders)[:_SHOWN])}): name one of them" if folders else ""
        raise UserError(f"{folder}: holds no files{inside}")
    return [folder / name for name in sorted(files)]


def _from_files(root: Path, files: Sequence[Path]) -> Submitted:
    hypnograms: dict[str, Given] = {}
    origin: dict[str, str] = {}
    refused: dict[str, str] = {}
    left_aside: list[str] = []
    digest = hashlib.sha256()
    n_files = 0
    for path in files:
        if path.suffix.casefold() not in SUFFIXES or _TRUTH.search(path.stem):
            left_aside.append(one_line(path.name))
            continue
        name = one_line(_PREDICTION.sub("", path.stem))  # a name may hold bytes that are no text
        if name in origin:
            raise DataError(f"{root}: {origin[name]} and {path.name} are both of recording {name}; leave one of them")
        origin[name] = path.name
        n_files += 1
        try:
            hypnograms[name] = read_hypnogram(path)
            digest.update(f"{path.name}\0{file_sha256(path)}\n".encode(errors="surrogateescape"))
        except DataError as error:
            refused[name] = str(error)
    if not origin:
        raise UserError(
            f"{root}: none of its {len(files)} files is a hypnogram ({', '.join(SUFFIXES)}); first is {files[0].name}"
        )
    return Submitted(
        hypnograms=hypnograms,
        refused=refused,
        left_aside=tuple(left_aside),
        sha256=digest.hexdigest(),
        n_files=n_files,
    )


def _from_one_json(path: Path, model: str | None) -> Submitted:
    content = _json(path)
    if isinstance(content, list):
        if model is not None:
            raise UserError(f"--model {model}: {path} is one list, not an object {{model: {{recording: codes}}}}")
        return _from_files(path, [path])
    recordings = nested_codes(path)
    if all(isinstance(value, dict) for value in recordings.values()):
        names = sorted(recordings)
        if model is None and len(names) > 1:
            raise UserError(f"{path}: holds {len(names)} models; name one with --model: {', '.join(names)}")
        chosen = names[0] if model is None else model
        if chosen not in recordings:
            raise UserError(f"{path}: holds no model {chosen!r}; it has {', '.join(names)}")
        recordings = recordings[chosen]
    elif model is not None:
        raise UserError(f"--model {model}: {path} has recordings at its top, not models")
    hypnograms, refused = {}, {}
    for name, value in ((one_line(key), value) for key, value in recordings.items()):
        try:
            hypnograms[name] = Given(stages=codes_of(value, where=f"{path}: {name}"), format="json")
        except DataError as error:
            refused[name] = str(error)
    if not recordings:
        raise UserError(f"{path}: holds no recording")
    return Submitted(hypnograms=hypnograms, refused=refused, sha256=file_sha256(path), n_files=1)


def _json(path: Path) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise DataError(f"{path}: {twice!r} stands in it twice")
        return found

    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path}: more than {MOST_BYTES >> 20} MiB of JSON")
        return json.loads(path.read_bytes(), object_pairs_hook=unique)
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())[:100]
        raise DataError(f"{path}: not JSON ({reason})") from error


def _code(item: Any, epoch: int, where: str) -> int:
    code: int | None = None
    if isinstance(item, str):
        code = LABELS.get(plain_label(item))
    elif isinstance(item, int | float) and not isinstance(item, bool) and item in range(UNSCORED, N_STAGES):
        code = int(item)
    if code is None:
        raise DataError(f"{where}: {str(item)[:24]!r} at epoch {epoch} is no stage code ({UNSCORED} to {N_STAGES - 1})")
    return code


def _stages_of(array: npt.NDArray[Any], *, where: str) -> Stages:
    """Codes [n], [n, 1] or probabilities [n, 5] as int8 [n]."""
    if array.dtype.kind not in "iuf":
        raise DataError(f"{where}: holds {array.dtype.name[:24]}; wanted whole numbers [n] or probabilities [n, 5]")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.shape[1] == N_STAGES:
        return _most_probable(array.astype(np.float64), where=where)
    if array.ndim != 1:
        raise DataError(f"{where}: has shape {list(array.shape)}; wanted stages [n] or probabilities [n, 5]")
    if array.size > MOST_EPOCHS:
        raise DataError(f"{where}: {array.size} epochs; no night is that long")
    known = np.isin(array, np.arange(UNSCORED, N_STAGES))
    if not known.all():
        epoch = int(np.argmin(known))
        raise DataError(f"{where}: {array[epoch]} at epoch {epoch} is no stage code ({UNSCORED} to {N_STAGES - 1})")
    return array.astype(np.int8)


def _most_probable(probabilities: npt.NDArray[np.float64], *, where: str) -> Stages:
    if len(probabilities) > MOST_EPOCHS:
        raise DataError(f"{where}: {len(probabilities)} epochs; no night is that long")
    finite = np.isfinite(probabilities).all(axis=1)
    if not finite.all():
        raise DataError(f"{where}: a probability of epoch {int(np.argmin(finite))} is not a number")
    sums = probabilities.sum(axis=1)
    fit = (np.abs(sums - 1) <= SUM_TOLERANCE) & (probabilities >= 0).all(axis=1)
    if not fit.all():
        epoch = int(np.argmin(fit))
        below = " and one is negative" if (probabilities[epoch] < 0).any() else ""
        raise DataError(f"{where}: the probabilities of epoch {epoch} add up to {sums[epoch]:.4g}{below}, not to 1")
    stages: Stages = probabilities.argmax(axis=1).astype(np.int8)
    return stages


def _npy(raw: bytes, where: str) -> npt.NDArray[Any]:
    """The array of an .npy file, after its stated shape was compared with its size; objects are refused unread."""
    stream = io.BytesIO(raw)
    try:
        if not raw.startswith(_NPY_MAGIC):
            raise ValueError("it does not begin as one")
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version[0]}.{version[1]}")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_column, dtype = read(stream)
    except Exception as error:
        raise DataError(f"{where}: not a NumPy array ({' '.join(str(error).split())[:80]})") from error
    if dtype.hasobject:
        raise DataError(f"{where}: holds Python objects, which are never unpickled; save whole numbers")
    if dtype.kind not in "iuf":
        raise DataError(f"{where}: holds {dtype.name[:24]}; wanted whole numbers [n] or probabilities [n, 5]")
    data = raw[stream.tell() :]
    if len(shape) > 2 or any(length < 0 for length in shape) or math.prod(shape) * dtype.itemsize != len(data):
        raise DataError(f"{where}: states shape {list(shape)[:4]} of {dtype.name}, and holds {len(data)} bytes")
    return np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if by_column else "C")


def _from_npz(path: Path) -> npt.NDArray[Any]:
    """The one array of an .npz file, or the one that is called as predictions are."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            names = [name for name in _ARRAYS if name in members] if len(members) > 1 else list(members)
            if not names and "probabilities" in members:
                names = ["probabilities"]
            if not names:
                held = ", ".join(sorted(members))[:120] or "nothing"
                raise DataError(f"{path}: which array is the hypnogram? It holds {held}; save one, or call it arr_0")
            info = members[names[0]]
            if info.file_size > MOST_BYTES or info.flag_bits & 1:
                reason = "encrypted" if info.flag_bits & 1 else f"{info.file_size / 2**20:.0f} MiB unpacked"
                raise DataError(f"{path}: its array {names[0]!r} is {reason}")
            with archive.open(info) as stream:
                raw = stream.read(MOST_BYTES + 1)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, RuntimeError) as error:
        raise DataError(f"{path}: not a readable .npz file ({' '.join(str(error).split())[:80]})") from error
    except Exception as error:
        if type(error).__module__ in {"zlib", "lzma", "_lzma"} or (isinstance(error, OSError) and error.errno is None):
            raise DataError(f"{path}: not a readable .npz file ({' '.join(str(error).split())[:80]})") from error
        raise
    return _npy(raw, f"{path}: {names[0]}")


def _from_safetensors(path: Path) -> Given:
    """A prediction as tusp keeps it: ``predicted`` [n], else ``probabilities`` [n, 5]."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as opened:
            held = set(opened.keys())
            name = next((name for name in ("predicted", "probabilities") if name in held), None)
            array = None if name is None else opened.get_tensor(name)
            first = (opened.metadata() or {}).get("first_epoch")
    except (SafetensorError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a readable prediction ({' '.join(str(error).split())[:80]})") from error
    if array is None:
        raise DataError(f"{path}: holds no 'predicted' and no 'probabilities'")
    if first is not None and (not first.isdecimal() or int(first) > MOST_EPOCHS):
        raise DataError(f"{path}: its first_epoch is {first[:24]!r}; wanted a whole number")
    return Given(
        stages=_stages_of(np.asarray(array), where=str(path)),
        format="safetensors",
        first_epoch=None if first is None else int(first),
    )


def _from_text(path: Path) -> Given:
    """A stage a line, or a table of onset, duration and stage."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file in UTF-8") from error
    lines = text.rstrip().splitlines()
    if not lines:
        raise DataError(f"{path}: holds no stages")
    if any(separator in lines[0] for separator in ",;\t"):
        runs = [(run.onset, run.duration, run.label) for run in _table(path)]
        for onset, _, label in runs:
            if plain_label(label) not in LABELS:
                raise DataError(f"{path}: {label[:24]!r} at {onset:g} s is no stage")
        return Given(stages=_on_grid(runs, where=str(path)), format="table", timed=True)
    if len(lines) > MOST_EPOCHS + 1:
        raise DataError(f"{path}: {len(lines)} lines; no night is that long")
    header = plain_label(lines[0]) in {"stage", "stages", "hypnogram", "prediction", "predicted"}
    stages = [_code(line, epoch, str(path)) for epoch, line in enumerate(lines[header:])]
    return Given(stages=np.array(stages, dtype=np.int8), format="text")


def _table(path: Path) -> Iterable[Any]:
    """Runs of a table; columns may be called onset or onset_seconds, duration or duration_seconds, and stage."""
    from tusp.datasets.formats.label_tables import Columns

    with path.open(encoding="utf-8-sig", newline="") as stream:
        first = stream.readline()
    for separator in ",;\t":
        names = {field.strip().casefold() for field in next(csv.reader([first], delimiter=separator), [])}
        if {"onset", "stage"} <= names:
            return runs_from_table(path, Columns(onset="onset", duration="duration" if "duration" in names else None))[
                0
            ]
    return runs_from_table(path)[0]


def _on_grid(runs: Sequence[tuple[float, float | None, str]], *, where: str) -> Stages:
    """Runs of labels on the grid of 30-s epochs from second 0 on, unscored where there is none.

    Raises:
        DataError: a boundary lies off the grid, before second 0, or two runs overlap.
    """
    if not runs:
        raise DataError(f"{where}: holds no sleep stages")
    ordered = sorted(runs, key=lambda run: run[0])
    ends = [
        onset + (duration or (ordered[index + 1][0] - onset if index + 1 < len(ordered) else EPOCH_SECONDS))
        for index, (onset, duration, _) in enumerate(ordered)
    ]
    if max(ends) > MOST_EPOCHS * EPOCH_SECONDS:
        raise DataError(f"{where}: reaches to {max(ends) / 86400:.0f} days; no night is that long")
    stages = np.full(round(max(ends) / EPOCH_SECONDS), UNSCORED, dtype=np.int8)
    filled = 0
    for (onset, _, label), end in zip(ordered, ends, strict=True):
        first, stop = round(onset / EPOCH_SECONDS), round(end / EPOCH_SECONDS)
        if max(abs(onset - first * EPOCH_SECONDS), abs(end - stop * EPOCH_SECONDS)) > _TOLERANCE_S:
            raise DataError(f"{where}: {label[:24]!r} from {onset:g} to {end:g} s lies off the grid of 30-s epochs")
        if first < filled:
            said = f"begins at {onset:g} s, before second 0" if onset < 0 else f"at {onset:g} s overlaps the one before"
            raise DataError(f"{where}: {label[:24]!r} {said}")
        stages[first:stop] = LABELS[plain_label(label)]
        filled = stop
    return stages


def _plain(name: str) -> str:
    """A name as it is compared: without case; of Sleep-EDF the six characters that pair signals and hypnogram."""
    plain = name.casefold()
    match = _SLEEP_EDF.fullmatch(plain)
    return match[1] if match else plain


def _begins(one: str, other: str) -> bool:
    """Whether the shorter name is the beginning of the longer one and ends at a boundary."""
    short, long = sorted((one, other), key=len)
    if not short or not long.startswith(short) or len(short) == len(long):
        return False
    last, following = short[-1], long[len(short)]
    return not (last.isdigit() and following.isdigit()) and not (last.isalpha() and following.isalpha())


def _kind_of(path: Path) -> str:
    return "a folder" if path.is_dir() else f"a file {path.suffix}"
