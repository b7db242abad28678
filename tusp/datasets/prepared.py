"""Prepared recordings on disk: one folder a night, read by memory map, written whole or not at all.

```
prepared/<corpus>/<first 20 digits of the fingerprint>/
    signals.npy   float16 [channels, epochs x 3840], clipped and scaled
    stages.npy    int8 [epochs], codes of tusp.platform.stages
    meta.json     identity, channels, problems, sizes and checksums; sealed by a checksum of its own
prepared/<corpus>/settings.json                     settings it was prepared with last, where not the default ones
prepared/<corpus>/.locks/<the same digits>.lock     held by the one process that writes this folder
prepared/<corpus>/.<the same digits>.part/          being written; left over only by a process that died
```

Nothing but numpy and the standard library is needed here, so a training process can read nights at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import BufferedRandom
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tusp.platform.errors import DataError
from tusp.platform.files import file_lock
from tusp.platform.identity import canonical_json, fingerprint
from tusp.platform.stages import EPOCH_SECONDS, N_STAGES, UNSCORED

SAMPLING_RATE_HZ: Final = 128
"""Rate of every prepared signal."""

SAMPLES_PER_EPOCH: Final = SAMPLING_RATE_HZ * EPOCH_SECONDS
"""Samples in one 30-s epoch (3840)."""

STORE_VERSION: Final = 2
"""Version of this layout: raise it when the files or the keys of ``meta.json`` change their meaning."""

FOLDER_DIGITS: Final = 20
"""Digits of the fingerprint that name the folder."""

META: Final = "meta.json"
SIGNALS: Final = "signals.npy"
STAGES: Final = "stages.npy"
_SEAL: Final = "sha256_of_the_rest"
_CRC: Final = "crc32_of_samples"


@dataclass(frozen=True, kw_only=True)
class PreparedChannel:
    """One channel of a prepared night and what was done to it."""

    name: str
    group: str
    """Group of the corpus card the channel belongs to (``EEG``, ``EOG``)."""
    sampling_rate_hz: float
    """Rate in the original file."""
    unit: str
    """Unit in the original file's header."""
    median: float
    iqr: float
    """Median and inter-quartile range over the kept span: what was subtracted and divided by. In microvolts (in
    ``unit`` where that is not electrical)."""
    clipped_share: float
    """Share of samples that lay outside the clipping range, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class PreparedRecording:
    """A night in the prepared store. Holds no array; safe to send to another process."""

    corpus: str
    name: str
    subject: str
    simulated: bool
    fingerprint: str
    """64 hexadecimal digits: hash of ``identity`` in meta.json (source bytes, adapter, preparation)."""
    folder: Path
    channels: tuple[str, ...]
    """Canonical names, in the order of the rows of ``signals()``."""
    groups: Mapping[str, tuple[int, ...]]
    """Group name to row numbers, for example ``{"EEG": (0, 1), "EOG": (2,)}``."""
    n_epochs: int
    first_epoch: int
    """Index, in the raw recording's 30-s grid, of the first epoch kept."""
    problems: tuple[str, ...]
    details: tuple[PreparedChannel, ...] = field(repr=False, default=())
    """One entry a channel, in the order of ``channels``."""
    lights: tuple[int, int] | None = None
    """First epoch with lights off, and first with lights on again, in the raw recording; None where not known."""

    def signals(self) -> np.memmap[Any, np.dtype[np.float16]]:
        """Memory map, float16 [n_channels, n_epochs x 3840], median 0 and inter-quartile range 1, read-only.

        Raises:
            DataError: the file does not hold what meta.json says.
        """
        return _load(self.folder / SIGNALS, (len(self.channels), self.n_epochs * SAMPLES_PER_EPOCH), np.float16)

    def stages(self) -> npt.NDArray[np.int8]:
        """Stage codes, int8 [n_epochs], -1 where unscored.

        Raises:
            DataError: the file does not hold what meta.json says.
        """
        return np.array(_load(self.folder / STAGES, (self.n_epochs,), np.int8))


def _load(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> np.memmap[Any, Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not readable ({error}); delete its folder and prepare the corpus again") from error
    if not isinstance(array, np.memmap) or array.shape != shape or array.dtype != dtype:
        raise DataError(
            f"{path}: holds {array.dtype} {array.shape} where {np.dtype(dtype)} {shape} was prepared; "
            "delete its folder and prepare the corpus again"
        )
    return array


def _checksum(path: Path) -> str:
    """BLAKE2b of a file: as good as SHA-256 and faster on processors without instructions for the latter."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()


def _samples_crc32(path: Path, n_bytes: int) -> str:
    """CRC-32 of the last ``n_bytes`` of a file: what the writer took of the samples, channel after channel.

    It finds what disks and copies do to a file, as it does in gzip and PNG, and costs a fifth of what BLAKE2b does: on
    gigabytes of samples that is a tenth of a night's preparation.
    """
    crc = 0
    with path.open("rb") as stream:
        stream.seek(-n_bytes, os.SEEK_END)
        while block := stream.read(2**20):
            crc = zlib.crc32(block, crc)
    return f"{crc:08x}"


def prepared_folder(root: Path, fingerprint_: str) -> Path:
    """Folder of the night with this fingerprint; ``root`` is the corpus's folder in the prepared store."""
    return root / fingerprint_[:FOLDER_DIGITS]


def open_prepared(folder: Path) -> PreparedRecording:
    """Open a prepared night after checking that it is whole. No signal is read.

    Checked: meta.json is sealed and belongs to this folder, both files have the recorded sizes, and the
    stages have the recorded checksum. ``verify_prepared`` also hashes the signals.

    Raises:
        DataError: the folder is missing, torn or tampered with; one line naming what is wrong.
    """

    def torn(what: str) -> DataError:
        return DataError(f"{folder}: {what}; delete this folder and prepare the corpus again")

    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder}: no prepared recording here") from None
    except OSError as error:
        raise DataError(f"{folder / META}: not readable ({error.strerror})") from error
    except ValueError as error:
        raise torn(f"{META} is not JSON") from error
    if not isinstance(meta, dict) or meta.get("store_version") != STORE_VERSION:
        raise torn(f"{META} is not of store version {STORE_VERSION}")
    seal = meta.pop(_SEAL, None)
    if seal != fingerprint(meta):
        raise torn(f"{META} was changed after it was written")
    digest = meta["fingerprint"]
    if fingerprint(meta["identity"]) != digest or folder.name != digest[:FOLDER_DIGITS]:
        raise torn("the folder's name, its fingerprint and its identity do not belong together")
    for file, recorded in meta["files"].items():
        try:
            size = (folder / file).stat().st_size
        except OSError as error:
            raise torn(f"{file} is not there ({error.strerror})") from error
        if size != recorded["size"]:
            raise torn(f"{file} has {size} bytes instead of {recorded['size']}")
    if _checksum(folder / STAGES) != meta["files"][STAGES]["blake2b"]:
        raise torn(f"{STAGES} was changed after it was written")
    return _from_meta(folder, meta)


def verify_prepared(recording: PreparedRecording) -> None:
    """Sum up the signals too: for audits, not for every run (about 1 s per GB).

    Raises:
        DataError: a byte differs from what was written.
    """
    open_prepared(recording.folder)
    meta = json.loads((recording.folder / META).read_text(encoding="utf-8"))
    path, recorded = recording.folder / SIGNALS, meta["files"][SIGNALS]
    if _CRC in recorded:
        n_bytes = len(recording.channels) * recording.n_epochs * SAMPLES_PER_EPOCH * 2
        whole = recording.signals().nbytes == n_bytes and _samples_crc32(path, n_bytes) == recorded[_CRC]
    else:  # a night of an earlier version
        whole = _checksum(path) == recorded["blake2b"]
    if not whole:
        raise DataError(f"{path}: was changed after it was written; delete this folder and prepare the corpus again")


def _from_meta(folder: Path, meta: Mapping[str, Any]) -> PreparedRecording:
    details = tuple(PreparedChannel(**entry) for entry in meta["channels"])
    groups: dict[str, tuple[int, ...]] = {}
    for row, channel in enumerate(details):
        groups[channel.group] = (*groups.get(channel.group, ()), row)
    return PreparedRecording(
        corpus=meta["corpus"],
        name=meta["recording"],
        subject=meta["subject"],
        simulated=meta["simulated"],
        fingerprint=meta["fingerprint"],
        folder=folder,
        channels=tuple(channel.name for channel in details),
        groups=groups,
        n_epochs=meta["n_epochs"],
        first_epoch=meta["first_epoch"],
        problems=tuple(meta["problems"]),
        details=details,
        lights=(meta["lights"][0], meta["lights"][1]) if "lights" in meta else None,
    )


class PreparedWriter:
    """Writes one night into the temporary folder of ``writing``, one channel at a time."""

    def __init__(self, *, folder: Path, temporary: Path, identity: Mapping[str, Any], n_epochs: int) -> None:
        self._folder = folder
        self._temporary = temporary
        self._identity = identity
        self._n_epochs = n_epochs
        self._details: list[PreparedChannel] = []
        self._crc = 0
        self._stream: BufferedRandom = (temporary / SIGNALS).open("w+b")
        self._data_begins = self._write_header()

    def _write_header(self) -> int:
        """(Re)write the .npy header for the rows so far; numpy pads it so that its length stays the same."""
        self._stream.seek(0)
        shape = (len(self._details), self._n_epochs * SAMPLES_PER_EPOCH)
        np.lib.format.write_array_header_1_0(
            self._stream, {"descr": np.dtype("<f2").str, "fortran_order": False, "shape": shape}
        )
        return self._stream.tell()

    def add(self, channel: PreparedChannel, samples: npt.NDArray[np.float16]) -> None:
        """Append one channel: ``samples`` float16 [n_epochs x 3840], finite."""
        assert samples.shape == (self._n_epochs * SAMPLES_PER_EPOCH,), samples.shape
        samples = np.ascontiguousarray(samples, dtype="<f2")
        # All bits of the exponent are set in infinities and NaN only: the largest integers of either sign. Looking for
        # them as integers is several times as fast, and makes no copy.
        largest = samples.view("<i2").max(), samples.view("<u2").max()
        assert largest[0] < 0x7C00 and largest[1] < 0xFC00, f"{channel.name}: a value that is not finite"
        self._stream.seek(0, os.SEEK_END)
        self._stream.write(samples.data)
        self._crc = zlib.crc32(samples.data, self._crc)
        self._details.append(channel)

    def close(self) -> None:
        """Release the open file; called by ``writing``, whatever happened."""
        self._stream.close()

    def finish(
        self,
        *,
        corpus: str,
        name: str,
        subject: str,
        simulated: bool,
        stages: npt.NDArray[np.int8],
        first_epoch: int,
        problems: Sequence[str],
        versions: Mapping[str, str],
        lights: tuple[int, int] | None = None,
    ) -> PreparedRecording:
        """Complete the night: flush everything to disk and give the folder its name."""
        assert self._details, "a night without a channel"
        assert stages.shape == (self._n_epochs,), stages.shape
        assert bool(((stages >= UNSCORED) & (stages < N_STAGES)).all()), "unknown stage code"
        begins = self._write_header()
        assert begins == self._data_begins, "numpy changed the length of the header"
        self._stream.flush()
        os.fsync(self._stream.fileno())
        with (self._temporary / STAGES).open("wb") as stream:
            np.save(stream, stages.astype(np.int8), allow_pickle=False)
            stream.flush()
            os.fsync(stream.fileno())
        meta: dict[str, Any] = {
            "store_version": STORE_VERSION,
            "fingerprint": fingerprint(self._identity),
            "identity": dict(self._identity),
            "corpus": corpus,
            "recording": name,
            "subject": subject,
            "simulated": simulated,
            "sampling_rate_hz": SAMPLING_RATE_HZ,
            "n_epochs": self._n_epochs,
            "first_epoch": first_epoch,
            **({} if lights is None else {"lights": list(lights)}),
            "channels": [asdict(channel) for channel in self._details],
            "problems": list(problems),
            "versions": dict(versions),
            "files": {
                SIGNALS: {"size": (self._temporary / SIGNALS).stat().st_size, _CRC: f"{self._crc:08x}"},
                STAGES: {
                    "size": (self._temporary / STAGES).stat().st_size,
                    "blake2b": _checksum(self._temporary / STAGES),
                },
            },
        }
        meta = json.loads(canonical_json(meta))
        meta[_SEAL] = fingerprint(meta)
        with (self._temporary / META).open("w", encoding="utf-8") as text:
            text.write(json.dumps(meta, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
            text.flush()
            os.fsync(text.fileno())
        _sync_folder(self._temporary)
        self._temporary.rename(self._folder)
        _sync_folder(self._folder.parent)
        return open_prepared(self._folder)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _temporary_folder(root: Path, digits: str) -> Path:
    return root / f".{digits}.part"


def _lock_path(root: Path, digits: str) -> Path:
    return root / ".locks" / f"{digits}.lock"


@contextmanager
def recording_lock(root: Path, fingerprint_: str) -> Iterator[None]:
    """Be the only process that writes (or repairs) this fingerprint's folder; wait while another is.

    The kernel releases the lock of a process that dies.
    """
    with file_lock(_lock_path(root, fingerprint_[:FOLDER_DIGITS])):
        yield


@contextmanager
def writing(root: Path, *, identity: Mapping[str, Any], n_epochs: int) -> Iterator[PreparedWriter]:
    """A writer for the night with this identity. The caller holds ``recording_lock``.

    The folder appears when ``PreparedWriter.finish`` is called; without that, everything written is removed.

    Args:
        root: the corpus's folder in the prepared store.
        identity: plain values whose hash is the fingerprint.
        n_epochs: epochs of the kept span.
    """
    digits = fingerprint(identity)[:FOLDER_DIGITS]
    temporary = _temporary_folder(root, digits)
    # Whoever holds the lock is the only writer: what lies here was left by a process that died.
    remove_folder(temporary)
    temporary.mkdir(parents=True)
    try:
        writer = PreparedWriter(folder=root / digits, temporary=temporary, identity=identity, n_epochs=n_epochs)
        try:
            yield writer
        finally:
            writer.close()
    finally:
        remove_folder(temporary)


def write_prepared(
    root: Path,
    *,
    identity: Mapping[str, Any],
    corpus: str,
    name: str,
    subject: str,
    simulated: bool,
    channels: Sequence[PreparedChannel],
    signals: npt.NDArray[np.float16],
    stages: npt.NDArray[np.int8],
    first_epoch: int = 0,
    problems: Sequence[str] = (),
    versions: Mapping[str, str] | None = None,
) -> PreparedRecording:
    """Write a night that is in memory already, whole or not at all; one that is there is returned instead.

    Args:
        root: the corpus's folder in the prepared store.
        identity: plain values whose hash is the fingerprint.
        channels: one entry a row of ``signals``.
        signals: float16 [n_channels, n_epochs x 3840], finite, scaled.
        stages: int8 [n_epochs].
    """
    folder = prepared_folder(root, fingerprint(identity))
    with recording_lock(root, fingerprint(identity)):
        if folder.exists():
            return open_prepared(folder)
        with writing(root, identity=identity, n_epochs=len(stages)) as writer:
            for channel, samples in zip(channels, signals, strict=True):
                writer.add(channel, samples)
            return writer.finish(
                corpus=corpus,
                name=name,
                subject=subject,
                simulated=simulated,
                stages=stages,
                first_epoch=first_epoch,
                problems=problems,
                versions=versions or {},
            )


def remove_folder(folder: Path) -> None:
    """Remove a folder with everything in it; nothing happens when there is none."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return


def sweep(root: Path) -> list[Path]:
    """Remove the temporary folders of processes that died; those being written right now stay.

    Returns:
        The folders removed.
    """
    removed = []
    for temporary in sorted(root.glob(".*.part")):
        digits = temporary.name[1:].removesuffix(".part")
        with file_lock(_lock_path(root, digits), blocking=False) as obtained:
            if obtained:
                remove_folder(temporary)
                removed.append(temporary)
    return removed


def remove_prepared(folder: Path) -> bool:
    """Remove a prepared night, at once for every reader; false when another process writes it or waits for it.

    Its name goes first: a process that is killed here leaves a temporary folder, which the next ``sweep`` removes.
    """
    root, digits = folder.parent, folder.name
    with file_lock(_lock_path(root, digits), blocking=False) as obtained:
        if not obtained:
            return False
        temporary = _temporary_folder(root, digits)
        remove_folder(temporary)
        folder.rename(temporary)
        remove_folder(temporary)
    return True
