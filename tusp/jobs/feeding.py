"""Feeding a training: windows of prepared nights, in float32 on the device that trains.

Two ways, the same windows to the last bit: all nights of a cell held on the device as 16-bit floats and gathered there,
or read from the prepared store one batch ahead of the training by a thread. Needs torch and numpy alone.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tusp.datasets.prepared import SAMPLES_PER_EPOCH, PreparedRecording
from tusp.datasets.windows import WindowReader
from tusp.jobs.sampling import WindowPlan
from tusp.platform.errors import UserError

FEEDS: Final = ("auto", "resident", "stream")

SHARE_OF_FREE: Final = 0.4
"""Share of a GPU's free memory that the nights of a cell may take. None of a CPU's: the page cache holds what was
read, once for all cells of the machine, and gathering from memory of one's own takes as long."""

AHEAD: Final = 2
"""Batches that are read before they are asked for."""


class Feed(Protocol):
    """Windows in the order in which they are asked for."""

    kind: str

    def batches(self, plan: WindowPlan, parts: Sequence[slice]) -> Generator[Tensor, None, None]:
        """For each part of the plan its windows, float32 [n, channels, T * 3840] on the device, free to be changed.

        Raises:
            DataError: a prepared file is not what it was.
        """
        ...


def read_night(recording: PreparedRecording) -> npt.NDArray[np.float16]:
    """All signals of a night in memory, float16 [channels, epochs, 3840].

    Raises:
        DataError: the file is not what was prepared.
    """
    reader = WindowReader([recording], window_epochs=recording.n_epochs)
    channels = len(recording.channels)
    signals = reader.signals([0], [0], [list(range(channels))])
    reader.close()
    return signals.reshape(channels, recording.n_epochs, SAMPLES_PER_EPOCH)


def size_of(recordings: Sequence[PreparedRecording]) -> int:
    """Bytes of their signals."""
    return sum(2 * len(night.channels) * night.n_epochs * SAMPLES_PER_EPOCH for night in recordings)


def default_budget(device: torch.device) -> int:
    """Bytes that nights may take on a device by default."""
    if device.type != "cuda":
        return 0
    return int(SHARE_OF_FREE * torch.cuda.mem_get_info(device)[0])


class HeldNights:
    """Nights on a device: rows of one epoch of one channel, float16 [rows + 1, 3840]; the last row is zeros."""

    def __init__(self, recordings: Sequence[PreparedRecording], device: torch.device) -> None:
        """Reads all nights.

        Raises:
            DataError: a file is not what was prepared.
            torch.OutOfMemoryError, RuntimeError: they do not fit.
        """
        self.device = device
        self.n_epochs = np.array([night.n_epochs for night in recordings])
        ends = np.cumsum([night.n_epochs * len(night.channels) for night in recordings])
        self.begins = np.concatenate([[0], ends[:-1]])
        self.zeros = int(ends[-1])
        self.rows = torch.empty(self.zeros + 1, SAMPLES_PER_EPOCH, dtype=torch.float16, device=device)
        self.rows[-1] = 0
        for night, begin, end in zip(recordings, self.begins, ends, strict=True):
            self.rows[begin:end] = torch.from_numpy(read_night(night).reshape(-1, SAMPLES_PER_EPOCH)).to(device)

    def numbers(
        self, night: npt.ArrayLike, start: npt.ArrayLike, channels: npt.ArrayLike, length: int
    ) -> npt.NDArray[np.int64]:
        """Rows [n, channels, length] that make up windows of ``length`` epochs; zeros beyond the end of a night."""
        night, start = np.asarray(night)[:, None, None], np.asarray(start)[:, None, None]
        epoch = start + np.arange(length)
        rows = self.begins[night] + np.asarray(channels)[:, :, None] * self.n_epochs[night] + epoch
        return np.where(epoch < self.n_epochs[night], rows, self.zeros)

    def windows(self, numbers: Tensor) -> Tensor:
        """Float32 windows [n, channels, length * 3840] of rows [n, channels, length] (int64, on the device)."""
        n, channels, length = numbers.shape
        halves = self.rows.index_select(0, numbers.reshape(-1))
        return halves.float().view(n, channels, length * SAMPLES_PER_EPOCH)


class KeptNights:
    """Single nights on a device, kept there from one use to the next as far as a budget allows."""

    def __init__(self, device: torch.device, *, budget_bytes: int | None = None) -> None:
        self.device = device
        self._left = default_budget(device) if budget_bytes is None else budget_bytes
        self._kept: dict[Path, Tensor] = {}

    def get(self, recording: PreparedRecording) -> Tensor:
        """The signals, float16 [channels, epochs, 3840].

        Raises:
            DataError: the file is not what was prepared.
        """
        kept = self._kept.get(recording.folder)
        if kept is None:
            kept = torch.from_numpy(read_night(recording)).to(self.device)
            if kept.nbytes <= self._left:
                self._left -= kept.nbytes
                self._kept[recording.folder] = kept
        return kept


class ResidentFeed:
    """All nights are on the device; windows are gathered there."""

    kind = "resident"

    def __init__(self, recordings: Sequence[PreparedRecording], *, window_epochs: int, device: torch.device) -> None:
        self.window_epochs = window_epochs
        self.held = HeldNights(recordings, device)

    def batches(self, plan: WindowPlan, parts: Sequence[slice]) -> Generator[Tensor, None, None]:
        numbers = self.held.numbers(plan.recording, plan.start, plan.channels, self.window_epochs)
        # One transfer for the whole pass.
        on_device = torch.from_numpy(numbers).to(self.held.device)
        for part in parts:
            yield self.held.windows(on_device[part])


class StreamingFeed:
    """Windows are read from the prepared store by a thread that is some batches ahead.

    On CUDA the thread reads into pinned memory and copies on a stream of its own; only 16-bit floats travel.
    """

    kind = "stream"

    def __init__(self, recordings: Sequence[PreparedRecording], *, window_epochs: int, device: torch.device) -> None:
        self.device = device
        self.window_epochs = window_epochs
        self.reader = WindowReader(recordings, window_epochs=window_epochs)
        self.copies: Any = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def batches(self, plan: WindowPlan, parts: Sequence[slice]) -> Generator[Tensor, None, None]:
        if not parts:
            return
        most = max(len(plan.recording[part]) for part in parts)
        shape = (most, plan.channels.shape[1], self.window_epochs * SAMPLES_PER_EPOCH)
        free: queue.SimpleQueue[tuple[Tensor, Any] | None] = queue.SimpleQueue()
        ready: queue.SimpleQueue[tuple[Tensor, Tensor, Any] | BaseException] = queue.SimpleQueue()
        given_up = threading.Event()
        for _ in range(AHEAD + 1):
            free.put((torch.empty(shape, dtype=torch.float16, pin_memory=self.copies is not None), None))
        reading = threading.Thread(
            target=self._read, args=(plan, parts, free, ready, given_up), name="windows ahead", daemon=True
        )
        reading.start()
        try:
            for _ in parts:
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                buffer, halves, copied = item
                if copied is not None:
                    current = torch.cuda.current_stream(self.device)
                    current.wait_event(copied)
                    halves.record_stream(current)
                signals = halves.float()
                free.put((buffer, copied))
                yield signals
        finally:
            given_up.set()
            free.put(None)  # wakes a thread that waits for memory
            reading.join()

    def _read(self, plan: WindowPlan, parts: Sequence[slice], free: Any, ready: Any, given_up: threading.Event) -> None:
        try:
            for part in parts:
                taken = free.get()
                if taken is None or given_up.is_set():
                    return
                buffer, copied = taken
                if copied is not None:
                    copied.synchronize()  # the copy out of this memory has ended
                some = plan.part(part)
                halves = buffer[: len(some)]
                self.reader.signals(some.recording, some.start, some.channels, out=halves.numpy())
                if self.copies is None:
                    ready.put((buffer, halves, None))
                    continue
                with torch.cuda.stream(self.copies):
                    on_device = halves.to(self.device, non_blocking=True)
                    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                    event.record(self.copies)
                ready.put((buffer, on_device, event))
        except BaseException as error:  # noqa: BLE001 - raised by the thread that waits for the batch
            ready.put(error)


def make_feed(
    recordings: Sequence[PreparedRecording],
    *,
    window_epochs: int,
    device: torch.device,
    kind: str = "auto",
    budget_bytes: int | None = None,
) -> Feed:
    """The feed for these nights: ``resident`` where they fit into the budget, else ``stream``.

    Args:
        kind: one of FEEDS. It changes no bit of what is learned.
        budget_bytes: what the nights may take on the device; by default a share of what is free there.

    Raises:
        UserError: there is no such kind.
        DataError: a file is not what was prepared.
    """
    if kind not in FEEDS:
        raise UserError(f"feed = {kind!r}: must be one of {', '.join(FEEDS)}")
    if kind == "auto":
        budget = default_budget(device) if budget_bytes is None else budget_bytes
        kind = "resident" if size_of(recordings) <= budget else "stream"
    if kind == "resident":
        return ResidentFeed(recordings, window_epochs=window_epochs, device=device)
    return StreamingFeed(recordings, window_epochs=window_epochs, device=device)
