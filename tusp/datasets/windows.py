"""Random windows of prepared nights, as fast as memory can be copied.

A window is a few hundred kilobytes in one piece for each channel, so what costs time is everything but copying:
opening files, checking headers, reading stages. All of that is done once a night. Samples are read straight into the
batch: the first visit to a memory map costs more than the copy, and a file that is cut short under a map ends the
process, while a read that comes back short is an error with a name.

The copy itself costs memory's bandwidth twice, so nights may also be held in memory, read once each, and their windows
handed out as views that whoever needs them converts or sends on in a single pass. Only numpy and the standard library
are needed.
"""

from __future__ import annotations

import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tusp.datasets.prepared import SAMPLES_PER_EPOCH, SIGNALS, PreparedRecording
from tusp.platform.errors import DataError
from tusp.platform.stages import UNSCORED

_MOST_OPEN: Final = 4096


def _files_allowed() -> int:
    """A quarter of the files that this process may have open."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return _MOST_OPEN
    return max(16, min(_MOST_OPEN, allowed // 4))


class _OpenFile:
    """A file that is closed when the last thread has let go of it."""

    __slots__ = ("handle",)

    def __init__(self, path: Path) -> None:
        self.handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        handle = getattr(self, "handle", None)
        if handle is not None:
            os.close(handle)


class WindowReader:
    """Reads windows of ``window_epochs`` epochs from any of the given nights.

    The most recently used files are kept open, up to a limit, so the number of nights is not bounded. Stages (one byte
    an epoch) are kept for every night that was used. May be sent to another process, which opens the nights itself.
    """

    def __init__(
        self,
        recordings: Sequence[PreparedRecording],
        *,
        window_epochs: int,
        threads: int = 1,
        most_open: int | None = None,
        held_bytes: int = 0,
    ) -> None:
        """Nothing is opened before it is read.

        Args:
            recordings: the nights; windows name them by index.
            window_epochs: length of every window.
            threads: copy with that many threads. More than one helps where one core cannot use all of the memory's
                bandwidth; the windows are the same.
            most_open: files kept open (default: a quarter of those that the process may open, at most 4096).
            held_bytes: memory for whole nights. A night is read into it when it is first used, and stays; once it is
                full, windows of other nights are read from their files. (Windows are drawn at random: to make room
                for a night would cost the reading of a whole night for one window, again and again.)
        """
        self.recordings = tuple(recordings)
        self.window_epochs = window_epochs
        self.threads = threads
        self.most_open = most_open if most_open is not None else _files_allowed()
        self.held_bytes = held_bytes
        self._forget()

    def _forget(self) -> None:
        self._files: OrderedDict[int, _OpenFile] = OrderedDict()
        self._begins: dict[int, int] = {}
        self._stages: dict[int, npt.NDArray[np.int8]] = {}
        self._held: dict[int, npt.NDArray[np.float16] | None] = {}
        self._bytes = 0
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def close(self) -> None:
        """Let go of all files and held nights; reading opens them again. Views that are in use stay whole."""
        if self._pool is not None:
            self._pool.shutdown()
        self._forget()

    @property
    def n_open(self) -> int:
        """Files that are kept open now."""
        return len(self._files)

    @property
    def bytes_held(self) -> int:
        """Memory that nights are held in now."""
        return self._bytes

    def held(self, recording: int) -> npt.NDArray[np.float16] | None:
        """A whole night in memory, float16 [channels, epochs x 3840], shared by all windows; None where it has no room.

        It is not to be written to: every later window would show it. (numpy is not told so, since torch warns of arrays
        that cannot be written to.)

        Raises:
            DataError: the file is not what was prepared.
        """
        try:
            return self._held[recording]
        except KeyError:
            pass
        night = self.recordings[recording]
        shape = len(night.channels), night.n_epochs * SAMPLES_PER_EPOCH
        n_bytes = 2 * shape[0] * shape[1]
        with self._lock:
            if recording not in self._held:
                fits = self._bytes + n_bytes <= self.held_bytes
                self._held[recording] = _whole_night(night, np.empty(shape, np.float16)) if fits else None
                self._bytes += n_bytes if fits else 0
            return self._held[recording]

    def views(
        self, recording: npt.ArrayLike, start: npt.ArrayLike, channels: npt.ArrayLike
    ) -> list[npt.NDArray[np.float16]]:
        """Windows without a copy, where their nights are held.

        Of a night that is not held, and where more than two channels do not lie evenly apart or stand in falling order,
        a window is in memory of its own.

        Args:
            recording: [n] index of each window's night.
            start: [n] first epoch of each window, inside its night.
            channels: [n, channels] rows of the night's signals.

        Returns:
            n windows, float16 [channels, window_epochs x 3840], or as many samples as the night still has. Each channel
            lies in one piece. Not to be written to (see :meth:`held`).

        Raises:
            DataError: a file is not what was prepared.
            IndexError: a start or a channel lies outside its night.
        """
        windows = zip(np.asarray(recording).tolist(), np.asarray(start).tolist(), _picked(channels), strict=True)
        found = []
        for index, epoch, (rows, evenly) in windows:
            first, n = self._span(index, epoch, rows)
            held = self.held(index) if self.held_bytes else None
            if held is not None:
                found.append(held[rows if evenly is None else evenly, first : first + n])
            else:
                window = np.empty((len(rows), n), np.float16)
                self._read(index, first, rows, window)
                found.append(window)
        return found

    def _span(self, recording: int, start: int, rows: Sequence[int]) -> tuple[int, int]:
        """First sample of a window and how many of it its night has.

        Raises:
            IndexError: the start or a channel lies outside the night.
        """
        night = self.recordings[recording]
        n_samples = night.n_epochs * SAMPLES_PER_EPOCH
        first = start * SAMPLES_PER_EPOCH
        if not 0 <= first < n_samples:
            raise IndexError(f"{night.name}: no epoch {start} in this night")
        for channel in rows:
            if not 0 <= channel < len(night.channels):
                raise IndexError(f"{night.name}: no channel {channel} in this night")
        return first, min(self.window_epochs * SAMPLES_PER_EPOCH, n_samples - first)

    def _read(self, recording: int, first: int, rows: Sequence[int], out: npt.NDArray[np.float16]) -> None:
        """Read samples from ``first`` on of some channels into ``out`` [channels, samples], from the file."""
        night = self.recordings[recording]
        file, data_begins = self._signals_file(recording)
        n_samples = night.n_epochs * SAMPLES_PER_EPOCH
        for target, channel in zip(out, rows, strict=True):
            _read_exactly(night, file.handle, target, data_begins + 2 * (channel * n_samples + first))

    def _signals_file(self, recording: int) -> tuple[_OpenFile, int]:
        """The open file of a night's signals and its byte at which they begin.

        Raises:
            DataError: the file is not what was prepared.
        """
        with self._lock:
            file = self._files.get(recording)
            if file is None:
                night = self.recordings[recording]
                if recording not in self._begins:
                    self._begins[recording] = int(night.signals().offset)  # checks header and size
                try:
                    file = self._files[recording] = _OpenFile(night.folder / SIGNALS)
                except OSError as error:
                    raise _unreadable(night, error.strerror or str(error)) from error
                while len(self._files) > self.most_open:
                    self._files.popitem(last=False)
            else:
                self._files.move_to_end(recording)
            return file, self._begins[recording]

    def stages_of(self, recording: int) -> npt.NDArray[np.int8]:
        """Stages of one night, int8 [epochs].

        Raises:
            DataError: the file is not what was prepared.
        """
        stages = self._stages.get(recording)
        if stages is None:
            stages = self._stages[recording] = self.recordings[recording].stages()
        return stages

    def signals(
        self,
        recording: npt.ArrayLike,
        start: npt.ArrayLike,
        channels: npt.ArrayLike,
        out: npt.NDArray[np.float16] | None = None,
    ) -> npt.NDArray[np.float16]:
        """A batch of windows; where a night ends before its window, zeros follow.

        Args:
            recording: [n] index of each window's night.
            start: [n] first epoch of each window, inside its night.
            channels: [n, channels] rows of the night's signals.
            out: float16 [n, channels, window_epochs x 3840], contiguous, to write into. Giving the same one again and
                again saves the time that fresh memory costs.

        Returns:
            ``out``, or a new array of that shape.

        Raises:
            DataError: a file is not what was prepared.
            IndexError: a start or a channel lies outside its night.
        """
        nights, starts = np.asarray(recording).tolist(), np.asarray(start).tolist()
        rows = np.asarray(channels).tolist()
        shape = (len(nights), np.asarray(channels).shape[-1], self.window_epochs * SAMPLES_PER_EPOCH)
        if out is None:
            out = np.empty(shape, np.float16)
        elif out.shape != shape or out.dtype != np.float16:
            raise ValueError(f"out is {out.dtype} {out.shape} where float16 {shape} is needed")
        parts = min(self.threads, len(nights) // 2)
        if parts < 2:
            self._copy(nights, starts, rows, out, 0, len(nights))
            return out
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads, "windows")
        cuts = [len(nights) * part // parts for part in range(parts + 1)]
        copies = [
            self._pool.submit(self._copy, nights, starts, rows, out, begin, end) for begin, end in pairwise(cuts[1:])
        ]
        self._copy(nights, starts, rows, out, 0, cuts[1])
        for copy in copies:
            copy.result()
        return out

    def _copy(
        self,
        nights: list[int],
        starts: list[int],
        rows: list[list[int]],
        out: npt.NDArray[np.float16],
        begin: int,
        end: int,
    ) -> None:
        for window in range(begin, end):
            first, n = self._span(nights[window], starts[window], rows[window])
            target = out[window]
            held = self.held(nights[window]) if self.held_bytes else None
            if held is None:
                self._read(nights[window], first, rows[window], target[:, :n])
            else:
                for position, channel in enumerate(rows[window]):
                    target[position, :n] = held[channel, first : first + n]
            target[:, n:] = 0

    def stages(self, recording: npt.ArrayLike, start: npt.ArrayLike) -> npt.NDArray[np.int8]:
        """Stages of a batch, int8 [n, window_epochs], -1 where unscored and where the night has ended."""
        nights, starts = np.asarray(recording).tolist(), np.asarray(start).tolist()
        out = np.full((len(nights), self.window_epochs), UNSCORED, np.int8)
        for window, (night, first) in enumerate(zip(nights, starts, strict=True)):
            stages = self.stages_of(night)[first : first + self.window_epochs]
            out[window, : len(stages)] = stages
        return out


def _picked(channels: npt.ArrayLike) -> Iterator[tuple[list[int], slice | None]]:
    """Rows of each window, and the same as a slice where they rise by equal steps."""
    slices: dict[tuple[int, ...], slice | None] = {}
    for rows in np.asarray(channels).tolist():
        key = tuple(rows)
        if key not in slices:
            steps = {after - before for before, after in pairwise(rows)} or {1}
            step = steps.pop()
            slices[key] = slice(rows[0], rows[-1] + 1, step) if not steps and step > 0 else None
        yield rows, slices[key]


def _whole_night(night: PreparedRecording, signals: npt.NDArray[np.float16]) -> npt.NDArray[np.float16]:
    """Fill ``signals`` [channels, epochs x 3840] with a night's samples.

    Raises:
        DataError: the file is not what was prepared.
    """
    begins = int(night.signals().offset)  # checks header and size
    try:
        with (night.folder / SIGNALS).open("rb", buffering=0) as stream:
            _read_exactly(night, stream.fileno(), signals.reshape(-1), begins)
    except OSError as error:
        raise _unreadable(night, error.strerror or str(error)) from error
    return signals


def _read_exactly(night: PreparedRecording, handle: int, out: npt.NDArray[np.float16], begins: int) -> None:
    """Fill ``out`` [n], contiguous, from byte ``begins`` of a file.

    Raises:
        DataError: the file cannot be read or is too short.
    """
    done = 0
    place: Any = out.view(np.uint8)
    while done < len(place):  # one call reads at most 2 GiB
        try:
            n = os.preadv(handle, [place[done:]], begins + done)
        except OSError as error:
            raise _unreadable(night, error.strerror or str(error)) from error
        if n == 0:
            raise _unreadable(night, "shorter than it was when it was opened")
        done += n


def _unreadable(night: PreparedRecording, reason: str) -> DataError:
    return DataError(
        f"{night.folder / SIGNALS}: not readable ({reason}); delete its folder and prepare the corpus again"
    )
