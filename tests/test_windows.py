"""Random windows: exactly the prepared samples, from any number of nights, with few files open."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from training_nights import night

from tusp.datasets.prepared import SAMPLES_PER_EPOCH, SIGNALS, PreparedRecording
from tusp.datasets.windows import WindowReader
from tusp.jobs.sampling import BalancedSampler
from tusp.platform.errors import DataError

LENGTHS = (30, 41, 7, 33, 52)
"""Epochs a night; one is shorter than a window."""


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> list[PreparedRecording]:
    root = tmp_path_factory.mktemp("nights")
    return [
        night(root, f"n{i}", stages=[(i + epoch) % 6 - 1 for epoch in range(length)], eeg=2, eog=1, seed=i)
        for i, length in enumerate(LENGTHS)
    ]


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    index = random.integers(len(LENGTHS), size=n)
    start = np.array([random.integers(LENGTHS[i]) for i in index])  # many windows reach beyond the end
    return index, start, np.stack([random.integers(2, size=n), np.full(n, 2)], axis=1)


def expected(
    nights: list[PreparedRecording], index: np.ndarray, start: np.ndarray, channels: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """As slowly and plainly as possible."""
    signals = np.zeros((len(index), channels.shape[1], length * SAMPLES_PER_EPOCH), np.float16)
    stages = np.full((len(index), length), -1)
    for window in range(len(index)):
        raw, labels = np.load(nights[index[window]].folder / SIGNALS), nights[index[window]].stages()
        for epoch in range(length):
            at = start[window] + epoch
            if at < len(labels):
                stages[window, epoch] = labels[at]
                part = slice(epoch * SAMPLES_PER_EPOCH, (epoch + 1) * SAMPLES_PER_EPOCH)
                signals[window, :, part] = raw[channels[window], at * SAMPLES_PER_EPOCH : (at + 1) * SAMPLES_PER_EPOCH]
    return signals, stages


def size(night: PreparedRecording) -> int:
    return 2 * 3 * night.n_epochs * SAMPLES_PER_EPOCH


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("most_open", [None, 2])
@pytest.mark.parametrize("held_bytes", [0, 3_000_000, 10**9])
def test_windows_are_the_prepared_samples(
    nights: list[PreparedRecording], threads: int, most_open: int | None, held_bytes: int
) -> None:
    reader = WindowReader(nights, window_epochs=10, threads=threads, most_open=most_open, held_bytes=held_bytes)
    index, start, channels = drawn(30)
    signals, stages = expected(nights, index, start, channels, 10)
    batch = reader.signals(index, start, channels)
    assert batch.dtype == np.float16
    np.testing.assert_array_equal(batch.view(np.uint16), signals.view(np.uint16))
    np.testing.assert_array_equal(reader.stages(index, start), stages)
    reader.close()
    again = np.full_like(batch, 9)
    assert reader.signals(index, start, channels, out=again) is again
    np.testing.assert_array_equal(again.view(np.uint16), signals.view(np.uint16))


@pytest.mark.parametrize("held_bytes", [0, 3_000_000, 10**9])
@pytest.mark.parametrize("rows", [[0, 2], [2, 0], [1, 2], [1, 1], [2], [0, 1, 2], [0, 2, 1], [2, 1, 0]])
def test_views_are_the_prepared_samples_as_far_as_the_night_goes(
    nights: list[PreparedRecording], held_bytes: int, rows: list[int]
) -> None:
    reader = WindowReader(nights, window_epochs=10, held_bytes=held_bytes)
    index, start, _ = drawn(20)
    channels = np.array([rows] * 20)
    signals, _ = expected(nights, index, start, channels, 10)
    for window, view in enumerate(reader.views(index, start, channels)):
        n = min(10, LENGTHS[index[window]] - start[window]) * SAMPLES_PER_EPOCH
        assert (view.dtype, view.shape, view.strides[1]) == (np.float16, (len(rows), n), 2)
        np.testing.assert_array_equal(view.view(np.uint16), signals[window, :, :n].view(np.uint16))
        held = reader.held(index[window])
        assert held is not None or held_bytes < 10**9
        if held is not None and rows in ([0, 2], [1, 2], [2], [0, 1, 2]):
            assert np.shares_memory(view, held), "a copy"


def test_nights_are_held_once_and_as_far_as_the_budget_goes(nights: list[PreparedRecording]) -> None:
    budget = size(nights[1]) + size(nights[2])
    reader = WindowReader(nights, window_epochs=10, held_bytes=budget)
    first, second, other = reader.views([1, 1, 2], [0, 0, 1], [[0], [0], [2]])
    assert np.shares_memory(first, second) and not np.shares_memory(first, other)
    assert (reader.bytes_held, reader.n_open) == (budget, 0)
    whole = reader.held(1)
    assert whole is not None and np.shares_memory(whole, first)
    np.testing.assert_array_equal(whole.view(np.uint16), np.load(nights[1].folder / SIGNALS).view(np.uint16))
    # The budget is used up: other nights are read from their files, and nobody makes room for them.
    one, again = reader.views([0, 0], [0, 0], [[0], [0]])
    assert not np.shares_memory(one, again)
    assert reader.held(0) is None
    assert (reader.bytes_held, reader.n_open) == (budget, 1)
    reader.close()
    assert (reader.bytes_held, reader.n_open) == (0, 0)
    np.testing.assert_array_equal(first[0, :9], whole[0, :9])  # what is in use stays


def test_many_threads_hold_a_night_once(nights: list[PreparedRecording]) -> None:
    reader = WindowReader(nights, window_epochs=10, threads=4, held_bytes=10**9)
    reader.signals(*drawn(64))
    assert reader.bytes_held == sum(map(size, nights))


def test_a_held_night_outlives_its_file(tmp_path: Path) -> None:
    torn = night(tmp_path, "n", stages=[0, 1, 2])
    reader = WindowReader([torn], window_epochs=2, held_bytes=10**9)
    before = reader.signals([0], [1], [[0, 1]])
    with (torn.folder / SIGNALS).open("r+b") as stream:
        stream.truncate(5000)  # under a memory map this would end the process
    np.testing.assert_array_equal(reader.signals([0], [1], [[0, 1]]), before)
    other = WindowReader([torn], window_epochs=2, held_bytes=10**9)
    with pytest.raises(DataError, match="prepare the corpus again"):
        other.views([0], [0], [[0, 1]])
    assert other.bytes_held == 0


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_few_files_stay_open(nights: list[PreparedRecording]) -> None:
    open_before = open_files()
    for most_open, kept in ((2, 2), (None, len(nights))):
        reader = WindowReader(nights, window_epochs=10, most_open=most_open, threads=2)
        assert reader.n_open == 0
        reader.signals(*drawn(30))
        assert reader.n_open == kept
        assert open_files() == open_before + kept
        reader.close()
        assert reader.n_open == 0
        assert open_files() == open_before


def test_a_reader_travels_to_another_process(nights: list[PreparedRecording]) -> None:
    reader = WindowReader(nights, window_epochs=10, threads=2, held_bytes=10**9)
    batch = reader.signals(*drawn(8))
    sent = pickle.dumps(reader)
    assert len(sent) < 20_000, "signals were sent"
    other = pickle.loads(sent)
    assert (other.n_open, other.bytes_held) == (0, 0)
    np.testing.assert_array_equal(other.signals(*drawn(8)), batch)


@pytest.mark.parametrize("held_bytes", [0, 10**9])
@pytest.mark.parametrize("start", [-1, 30, 99])
def test_a_window_outside_its_night_is_refused(nights: list[PreparedRecording], start: int, held_bytes: int) -> None:
    reader = WindowReader(nights, window_epochs=10, threads=2, held_bytes=held_bytes)
    with pytest.raises(IndexError, match="no epoch"):
        reader.signals([1, 0, 1, 0], [0, start, 0, start], [[0, 2]] * 4)
    for channel in (3, -1):
        with pytest.raises(IndexError, match="no channel"):
            reader.signals([0], [0], [[0, channel]])
        with pytest.raises(IndexError, match="no channel"):
            reader.views([0], [0], [[0, channel]])


def test_an_array_of_another_shape_is_refused(nights: list[PreparedRecording]) -> None:
    reader = WindowReader(nights, window_epochs=10)
    with pytest.raises(ValueError, match="float16"):
        reader.signals([0], [0], [[0, 2]], out=np.empty((1, 2, 5), np.float16))


def test_a_torn_night_is_told(tmp_path: Path) -> None:
    torn = night(tmp_path, "n", stages=[0, 1, 2])
    path = torn.folder / SIGNALS
    reader = WindowReader([torn], window_epochs=2)
    reader.signals([0], [0], [[0, 1]])
    with path.open("r+b") as stream:
        stream.truncate(5000)
    with pytest.raises(DataError, match="prepare the corpus again"):
        reader.signals([0], [0], [[0, 1]])
    with pytest.raises(DataError, match="prepare the corpus again"):
        WindowReader([torn], window_epochs=2).signals([0], [0], [[0, 1]])
    path.unlink()
    with pytest.raises(DataError, match="prepare the corpus again"):
        WindowReader([torn], window_epochs=2).signals([0], [0], [[0, 1]])


def test_training_gathers_the_same_windows_as_float32(nights: list[PreparedRecording]) -> None:
    sampler = BalancedSampler(nights, window_epochs=10, channels=("EEG", "EOG"))
    plan = sampler.plan(seed=3, pass_number=1, windows=50)
    signals, stages = sampler.gather(plan, slice(5, 45))
    part = plan.recording[5:45], plan.start[5:45], plan.channels[5:45]
    halves, labels = expected(nights, *part, 10)
    assert (signals.dtype, stages.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(signals.view(np.uint32), halves.astype(np.float32).view(np.uint32))
    np.testing.assert_array_equal(stages, labels)


def test_every_half_becomes_the_same_float32() -> None:
    import torch

    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    wide = torch.from_numpy(halves).to(torch.float32).numpy()
    np.testing.assert_array_equal(wide.view(np.uint32), halves.astype(np.float32).view(np.uint32))
