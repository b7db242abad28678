"""Signals in whatever MNE reads: BDF, BrainVision, EEGLAB, FIF, GDF, Neuroscan and others.

MNE's readers believe what a header says, so counts are checked against the size of the file before MNE sees it, and
whatever MNE raises becomes one line. MNE brings all channels of a BDF file to the highest rate among them and takes
units that it does not know for volts; both are undone here: such a channel is read alone, at its own rate, in the unit
that its header states. In a GDF file a channel cannot be read alone (MNE 1.13 then returns the samples of another one),
so what MNE resamples is reported. EDF has a reader of its own (:mod:`tusp.datasets.formats.edf`).
"""

from __future__ import annotations

import re
import stat
import struct
import warnings
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tusp.datasets.formats.edf import microvolts_per, unreadable
from tusp.datasets.formats.signals import (
    SignalHeader,
    StoredSignal,
    beside,
    by_role,
    check_extent,
    one_line,
    refused_by,
    to_microvolts,
)
from tusp.platform.errors import DataError

MOST_CHANNELS: Final = 4096
MOST_HEADER_BYTES: Final = 16 * 2**20
MOST_SET_BYTES: Final = 4 * 2**30
"""Uncompressed size of an EEGLAB file."""
MOST_WARNINGS: Final = 5
MOST_TAGS: Final = 2_000_000
_FIF_FILE_ID, _FIF_DIRECTORY_AT, _FIF_DIRECTORY, _FIF_ROLE = 100, 101, 102, 115
_TOKEN_BYTES: Final = 2**16
_COMPANIONS: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys((".bdf", ".gdf", ".fif", ".fif.gz", ".nedf", ".cnt", ".nxe", ".ns3", ".vhdr", ".ahdr"), ()),
    ".set": (".fdt",),
    ".eeg": (".21e", ".pnt", ".log"),
    ".lay": (".dat",),
    ".data": (".head",),
}
"""Files of the same name that belong to a format; of a format that is not listed, all files of the same name do."""
_NAMING: Final = "naming conventions"
"""MNE asks for file names such as ``_raw.fif``; the owner's are as good."""
_CUTS: Final = ("boundary", "edge boundary", "bad boundary", "bad_acq_skip", "new segment")


def ending(path: Path) -> str:
    """The ending by which MNE chooses its reader."""
    name = path.name.casefold()
    return ".fif.gz" if name.endswith(".fif.gz") else path.suffix.casefold()


def read_mne_header(path: Path) -> SignalHeader:
    """What MNE finds in a file, without its samples.

    Raises:
        DataError: the file is unreadable, its header states what cannot be, or MNE does not read it.
    """
    start = _start_of(path)
    named = _checked(path, start)
    raw, notes = _opened(path)
    try:
        signals = _signals(raw, path, start)
        notes += _resampled(raw) if ending(path) == ".gdf" else []
        cut = [
            one_line(str(note["description"]))
            for note in raw.annotations
            if float(note["onset"]) > 0 and str(note["description"]).casefold().startswith(_CUTS)
        ]
        begun = raw.info["meas_date"]
        comments = f"{start.decode('latin-1')}\n{raw.info['description'] or ''}"
        stored = [Path(str(name)) for name in raw.filenames if name is not None]
    except DataError:
        raise
    except Exception as error:
        raise refused_by("MNE", path, error) from error
    if cut:
        notes.append(f"the signal was cut or paused {len(cut)} times (first: {cut[0]!r}); later labels may be early")
    folder = path.parent.resolve()
    for file in stored:
        if file.parent.resolve() != folder:
            raise DataError(f"{path}: refers to {str(file)[:80]!r}; its files must lie in its own folder")
    names = dict.fromkeys([*(file.name for file in stored), *named])
    others = [beside(path, name) for name in names if name != path.name]
    others += [file for file in _same_name(path) if file not in others]
    needed = 4 * len(signals) * signals[0].n_samples
    for file in others:
        if file.suffix.casefold() == ".fdt" and file.stat().st_size < needed:
            raise DataError(f"{file}: truncated: {needed} bytes are stated, the file has {file.stat().st_size}")
    return SignalHeader(
        path=path,
        signals=signals,
        start=None if begun is None else begun.replace(tzinfo=None),
        comments=comments,
        companions=by_role(others),
        problems=tuple(notes),
    )


def read_mne_samples(header: SignalHeader, signal: StoredSignal, *, unit: str | None = None) -> npt.NDArray[np.float32]:
    """All samples of one signal at its own rate, in microvolts (in the file's unit where that is not electrical).

    Returns:
        float32 [n_samples].

    Raises:
        DataError: the file cannot be read.
    """
    path = header.path
    alone = {"include": [signal.label]} if ending(path) == ".bdf" else {}
    _checked(path, _start_of(path))
    raw, _ = _opened(path, **alone)
    try:
        values = raw.get_data(picks=[0 if alone else signal.position], verbose="error")
    except Exception as error:
        raise refused_by("MNE", path, error) from error
    if values.shape != (1, signal.n_samples):
        raise DataError(f"{path}: channel {signal.label!r} has {values.shape[-1]} of {signal.n_samples} samples")
    return to_microvolts(values, signal, unit)


def _opened(path: Path, **options: Any) -> tuple[Any, list[str]]:
    """The file as MNE opens it, and what MNE warned of."""
    import mne

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            raw = mne.io.read_raw(path, preload=False, verbose="warning", **options)
    except Exception as error:
        raise refused_by("MNE", path, error) from error
    told = (one_line(str(warning.message)) for warning in caught)
    said = list(dict.fromkeys(line for line in told if _NAMING not in line))
    notes = [f"MNE: {line}" for line in said[:MOST_WARNINGS]]
    return raw, notes + ([f"MNE: {len(said) - MOST_WARNINGS} more warnings"] if len(said) > MOST_WARNINGS else [])


def _signals(raw: Any, path: Path, start: bytes) -> tuple[StoredSignal, ...]:
    from mne.io.constants import FIFF

    if len(raw.ch_names) > MOST_CHANNELS:
        raise DataError(f"{path}: states {len(raw.ch_names)} channels; at most {MOST_CHANNELS} are read")
    units = getattr(raw, "_orig_units", {})
    found = []
    for position, label in enumerate(raw.ch_names):
        rate, count = float(raw.info["sfreq"]), int(raw.n_times)
        stated, gain = units.get(label, ""), 1.0
        if ending(path) == ".bdf":
            rate, count, stated, gain = _own(raw, position, start)
        elif ending(path) == ".gdf":  # MNE knows two units, and takes the values as they are where it does not know
            gain = float(raw._raw_extras[0]["units"][position])
            stated = {1e-6: "uV", 1e-3: "mV"}.get(gain, "")
        elif raw.info["chs"][position]["unit"] == FIFF.FIFF_UNIT_V:
            # MNE has made volts of it; the stated unit and the factor undo that exactly.
            known = "uV" if ending(path) == ".set" else stated
            factor = microvolts_per(known)
            stated, gain = ("V", 1.0) if factor is None else (known, factor * 1e-6)
        check_extent(path, label, rate, count)
        found.append(
            StoredSignal(label=label, unit=stated, sampling_rate_hz=rate, n_samples=count, position=position, gain=gain)
        )
    if not found:
        raise DataError(f"{path}: holds no signals")
    return tuple(found)


def _own(raw: Any, position: int, start: bytes) -> tuple[float, int, str, float]:
    """Rate, samples, unit and MNE's factor of one channel of a BDF file."""
    facts = raw._raw_extras[0]
    index = int(facts["sel"][position])
    per_record = int(np.asarray(facts["n_samps"]).reshape(-1)[index])
    seconds, part = (float(value) for value in facts["record_length"])
    gain = float(facts["units"][position])
    offset = 256 + 96 * int(start[252:256]) + 8 * index
    stated = start[offset : offset + 8].decode("latin-1").strip(" \0")
    return per_record * part / seconds, int(facts["n_records"]) * per_record, stated, gain


def _resampled(raw: Any) -> list[str]:
    facts = raw._raw_extras[0]
    seconds, part = (float(value) for value in facts["record_length"])
    return [
        f"{label}: {count * part / seconds:g} Hz in the file; MNE brings it to {raw.info['sfreq']:g} Hz"
        for label, count in zip(raw.ch_names, facts["n_samps"], strict=False)
        if count != facts["max_samp"]
    ]


def _same_name(path: Path) -> list[Path]:
    """Files beside ``path`` that belong to it by their name."""
    stem, suffix = path.name[: -len(ending(path)) or None].casefold(), ending(path)
    wanted = _COMPANIONS.get(suffix)
    if wanted == ():
        return []
    found = []
    for file in path.parent.iterdir():
        name = file.name.casefold()
        if file.name != path.name and name.startswith(f"{stem}.") and file.is_file():
            rest = name[len(stem) :]
            if wanted is None or rest in wanted:
                found.append(file)
    return sorted(found)


def _start_of(path: Path) -> bytes:
    """The beginning of the file: enough for a fixed header, for a text header all of it."""
    most = MOST_HEADER_BYTES if ending(path) in (".vhdr", ".ahdr", ".lay") else _TOKEN_BYTES
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: not a regular file")
        with path.open("rb") as stream:
            start = stream.read(most)
            if start[:1] == b"\xff" and ending(path) == ".bdf":
                stated = start[252:256].strip()
                start += stream.read(max(0, 256 * (int(stated) + 1) - len(start)) if stated.isdigit() else 0)
    except OSError as error:
        raise unreadable(path, error) from error
    if not start:
        raise DataError(f"{path}: empty file (0 bytes)")
    if most == MOST_HEADER_BYTES and status.st_size > most:
        raise DataError(f"{path}: header of more than {most // 2**20} MiB")
    return start


def _checked(path: Path, start: bytes) -> Sequence[str]:
    """Refuse counts that the file cannot hold; returns the names of the files that a text header refers to."""
    kind = ending(path)
    if kind == ".edf":
        raise DataError(f'{path}: an EDF file; EDF has a reader of its own (signals.format = "edf")')
    if kind == ".bdf":
        _check_bdf(path, start)
    elif kind == ".gdf":
        _check_gdf(path, start)
    elif kind == ".set":
        _check_set(path, start)
    elif kind == ".fif":
        _check_fif(path)
    elif kind == ".fif.gz":
        raise DataError(f"{path}: a compressed FIF file, of which nobody knows the size; unpack it (gunzip)")
    elif kind in (".vhdr", ".ahdr"):
        return _check_brainvision(path, start)
    return ()


def _check_bdf(path: Path, start: bytes) -> None:
    size = path.stat().st_size
    if start[:8] != b"\xffBIOSEMI":
        raise DataError(f"{path}: not a BDF file (begins with {start[:8]!r})")
    numbers = [start[first:last].strip(b" \0") for first, last in ((252, 256), (184, 192), (236, 244))]
    if not all(re.fullmatch(rb"-?\d+", number) for number in numbers):
        raise DataError(f"{path}: BDF header is damaged: its counts are no whole numbers")
    count, stated, records = (int(number) for number in numbers)
    seconds = start[244:252].strip(b" \0")
    if not re.fullmatch(rb"\d+(\.\d*)?", seconds) or float(seconds) <= 0:  # MNE would take it for 1 s
        raise DataError(f"{path}: BDF header is damaged: data records of {seconds.decode('latin-1')!r} s")
    if not 0 < count <= MOST_CHANNELS or stated != 256 * (count + 1) or stated > size:
        raise DataError(f"{path}: BDF header is damaged: {count} channels, header of {stated} of {size} bytes")
    if start[192:197] == b"BDF+D":
        raise DataError(f"{path}: a discontinuous recording (BDF+D); export it as BDF or BDF+C")
    block = start[256 + 216 * count : 256 + 224 * count]
    fields = [block[8 * i : 8 * i + 8].strip(b" \0") for i in range(count)]
    if not all(field.isdigit() for field in fields) or not any(int(field) for field in fields):
        raise DataError(f"{path}: BDF header is damaged: samples per data record are no whole numbers")
    held = (size - stated) // (3 * sum(int(field) for field in fields))
    if held < records:
        raise DataError(f"{path}: truncated: header states {records} data records, file holds {held}")
    if held == 0:
        raise DataError(f"{path}: holds no data records")


def _check_gdf(path: Path, start: bytes) -> None:
    if start[:3] != b"GDF" or len(start) < 256:
        raise DataError(f"{path}: not a GDF file (begins with {start[:8]!r})")
    old = start[4:5] == b"1"
    count = struct.unpack("<I", start[252:256])[0] if old else struct.unpack("<H", start[252:254])[0]
    if not 0 < count <= MOST_CHANNELS or 256 * (count + 1) > path.stat().st_size:
        raise DataError(f"{path}: GDF header is damaged: {count} channels do not fit into the file")
    if 0 in struct.unpack("<II", start[244:252]):  # MNE would take it for 1 s
        raise DataError(f"{path}: GDF header is damaged: data records of no length")


def _check_set(path: Path, start: bytes) -> None:
    """Refuse a MAT-file (version 5) that grows beyond bounds when it is decompressed."""
    if start[:8] == b"\x89HDF\r\n\x1a\n" or start[512:520] == b"\x89HDF\r\n\x1a\n":
        return
    total, position, size = 0, 128, path.stat().st_size
    with path.open("rb") as stream:
        while position + 8 <= size:
            stream.seek(position)
            kind, count = struct.unpack("<II", stream.read(8))
            if kind == 15:  # miCOMPRESSED: the size is in the tag inside
                try:
                    tag = zlib.decompressobj().decompress(stream.read(min(count, 256)), 8)
                except zlib.error as error:
                    raise DataError(f"{path}: EEGLAB file is damaged ({error})") from error
                total += struct.unpack("<II", tag)[1] if len(tag) == 8 else 0
            else:
                total += count
            if total > MOST_SET_BYTES:
                raise DataError(f"{path}: holds more than {MOST_SET_BYTES // 2**30} GiB; or its header is damaged")
            position += 8 + count


def _check_fif(path: Path) -> None:
    """Follow the chain of tags that MNE follows, which must lead to the end of the file and to no other file.

    A tag is a header of four numbers (kind, type, size, next) and its data; the second tag of a file points to a
    directory of all tags, if there is one.
    """
    size = path.stat().st_size
    kinds: dict[int, int] = {}
    directory, position = -1, 0
    with path.open("rb") as stream:
        while position + 16 <= size:
            stream.seek(position)
            kind, _, count, following = struct.unpack(">iiii", stream.read(16))
            if count < 0 or position + 16 + count > size or len(kinds) >= MOST_TAGS:
                raise DataError(f"{path}: FIF file is damaged or truncated: a tag of {count} bytes at byte {position}")
            if not kinds and kind != _FIF_FILE_ID:
                raise DataError(f"{path}: not a FIF file (begins with tag {kind})")
            kinds[position] = kind
            if kind in (_FIF_ROLE, _FIF_DIRECTORY_AT) and count >= 4:
                value = struct.unpack(">i", stream.read(4))[0]
                if kind == _FIF_ROLE:
                    raise DataError(f"{path}: one of several parts of a recording; save it as one file")
                directory = value
            if following < 0:
                break
            following = following or position + 16 + count
            if following <= position:
                raise DataError(f"{path}: FIF file is damaged: the tag at byte {position} points back")
            position = following
        if directory <= 0:
            return
        if kinds.get(directory) != _FIF_DIRECTORY:
            raise DataError(f"{path}: FIF file is damaged: no directory at byte {directory}")
        stream.seek(directory)
        count = struct.unpack(">iiii", stream.read(16))[2]
        for kind, _, _, place in struct.iter_unpack(">iiii", stream.read(count - count % 16)):
            if place >= 0 and kinds.get(place) != kind:
                raise DataError(f"{path}: FIF file is damaged: its directory does not fit its tags")


def _check_brainvision(path: Path, start: bytes) -> list[str]:
    text = start.decode("latin-1")
    stated = re.search(r"^\s*NumberOfChannels\s*=\s*(\d+)\s*$", text, re.MULTILINE | re.IGNORECASE)
    if stated is None or not 0 < int(stated[1][:9]) <= MOST_CHANNELS:
        raise DataError(f"{path}: BrainVision header is damaged: no number of channels between 1 and {MOST_CHANNELS}")
    names = []
    for key in ("DataFile", "MarkerFile"):
        found = re.search(rf"^\s*{key}\s*=(.*)$", text, re.MULTILINE | re.IGNORECASE)
        name = found[1].strip() if found else ""
        with suppress(UnicodeDecodeError):  # an older header is in Latin-1
            name = name.encode("latin-1").decode("utf-8")
        if key == "DataFile" and not name:
            raise DataError(f"{path}: BrainVision header names no DataFile")
        if not name:
            continue
        plain = PurePath(name).name == name and len(name) <= 255  # what is no plain name is refused below
        if key == "MarkerFile" and plain and not path.with_name(name).is_file():
            sibling = path.with_suffix(".vmrk")  # where MNE looks next; it warns when there is none
            if not sibling.is_file():
                continue
            name = sibling.name
        file = beside(path, name)
        if key == "MarkerFile" and file.stat().st_size > MOST_HEADER_BYTES:
            raise DataError(f"{file}: more than {MOST_HEADER_BYTES // 2**20} MiB of markers")
        names.append(name)
    return names
