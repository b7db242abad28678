"""Feeding: both ways give exactly the windows of the plan, ahead of time, and say what is wrong with a file."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from training_nights import night

from tusp.datasets.prepared import SIGNALS, PreparedRecording
from tusp.jobs.feeding import AHEAD, FEEDS, KeptNights, ResidentFeed, StreamingFeed, make_feed, read_night, size_of
from tusp.jobs.sampling import BalancedSampler
from tusp.platform.errors import DataError, UserError

CPU = torch.device("cpu")
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
DEVICES = [CPU, pytest.param(torch.device("cuda"), marks=[pytest.mark.gpu, NO_GPU])]
KINDS = ["resident", "stream"]


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> list[PreparedRecording]:
    """Nights of different lengths and channels; the last is shorter than a window."""
    root = tmp_path_factory.mktemp("nights")
    return [
        night(root, "a", n_epochs=20, seed=1),
        night(root, "b", n_epochs=33, eeg=1, eog=2, seed=2),
        night(root, "c", stages=[0, 1, 2], seed=3),
    ]


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 4, 7])
def test_both_ways_give_the_windows_of_the_plan(
    nights: list[PreparedRecording], kind: str, size: int, device: torch.device
) -> None:
    sampler = BalancedSampler(nights, window_epochs=6, channels=("EEG", "EOG"))
    plan = sampler.plan(seed=1, pass_number=2, windows=30)
    parts = [slice(first, min(30, first + size)) for first in range(0, 30, size)][2:]
    feed = make_feed(nights, window_epochs=6, device=device, kind=kind)
    assert feed.kind == kind
    expected, _ = sampler.gather(plan, slice(0, 30))
    assert set(plan.recording) == {0, 1, 2}
    given = list(feed.batches(plan, parts))
    assert len(given) == len(parts)
    for part, signals in zip(parts, given, strict=True):
        assert signals.dtype == torch.float32
        assert signals.device.type == device.type
        np.testing.assert_array_equal(signals.cpu().numpy(), expected[part])


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_may_be_changed_without_changing_the_next(nights: list[PreparedRecording], kind: str) -> None:
    """Augmentation works in place."""
    plan = BalancedSampler(nights, window_epochs=6, channels=("EEG", "EOG")).plan(seed=1, pass_number=0, windows=4)
    feed = make_feed(nights, window_epochs=6, device=CPU, kind=kind)
    twice = [slice(0, 4)] * (2 * AHEAD + 2)
    first = None
    for signals in feed.batches(plan, twice):
        first = signals.clone() if first is None else first
        assert torch.equal(signals, first)
        signals.fill_(7)


def readers() -> int:
    return sum(thread.name == "windows ahead" for thread in threading.enumerate())


def test_a_training_that_is_given_up_leaves_no_thread(nights: list[PreparedRecording]) -> None:
    plan = BalancedSampler(nights, window_epochs=6, channels=("EEG", "EOG")).plan(seed=1, pass_number=0, windows=400)
    feed = StreamingFeed(nights, window_epochs=6, device=CPU)
    before = readers()
    with contextlib.closing(feed.batches(plan, [slice(i, i + 4) for i in range(0, 400, 4)])) as batches:
        next(batches)
        assert readers() == before + 1
    assert readers() == before


def test_the_thread_reads_no_further_than_it_should(nights: list[PreparedRecording]) -> None:
    """Memory for AHEAD + 1 batches, however slow the training is."""
    plan = BalancedSampler(nights, window_epochs=6, channels=("EEG", "EOG")).plan(seed=1, pass_number=0, windows=100)
    feed = StreamingFeed(nights, window_epochs=6, device=CPU)
    read = []
    signals = feed.reader.signals
    feed.reader.signals = lambda *given, out: read.append(1) or signals(*given, out=out)  # type: ignore[method-assign, func-returns-value]
    with contextlib.closing(feed.batches(plan, [slice(i, i + 1) for i in range(100)])) as batches:
        for taken in range(1, 6):
            next(batches)
            threading.Event().wait(0.05)
            assert len(read) <= taken + AHEAD + 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_short_is_told(tmp_path: Path, kind: str) -> None:
    torn = night(tmp_path, "n", n_epochs=12)
    plan = BalancedSampler([torn], window_epochs=6, channels=("EEG", "EOG")).plan(seed=1, pass_number=0, windows=40)
    with (torn.folder / SIGNALS).open("r+b") as stream:
        stream.truncate(5000)
    with pytest.raises(DataError, match=r"signals\.npy.*prepare the corpus again") as caught:
        list(make_feed([torn], window_epochs=6, device=CPU, kind=kind).batches(plan, [slice(0, 40)]))
    assert "\n" not in str(caught.value)
    assert readers() == 0


def test_nights_are_held_where_they_fit(nights: list[PreparedRecording]) -> None:
    size = size_of(nights)
    assert size == sum((night.folder / SIGNALS).stat().st_size - 128 for night in nights)
    for budget, kind in ((size, ResidentFeed), (size - 1, StreamingFeed)):
        assert type(make_feed(nights, window_epochs=6, device=CPU, budget_bytes=budget)) is kind
    assert type(make_feed(nights, window_epochs=6, device=CPU)) is StreamingFeed
    with pytest.raises(UserError, match="feed = 'held': must be one of auto, resident, stream"):
        make_feed(nights, window_epochs=6, device=CPU, kind="held")
    assert FEEDS == ("auto", "resident", "stream")


def test_kept_nights_stay_within_their_budget(nights: list[PreparedRecording]) -> None:
    kept = KeptNights(CPU, budget_bytes=size_of(nights[:1]) + size_of(nights[2:]))
    first = [kept.get(recording) for recording in nights]
    again = [kept.get(recording) for recording in nights]
    assert [a is b for a, b in zip(first, again, strict=True)] == [True, False, True]
    for recording, signals in zip(nights, again, strict=True):
        np.testing.assert_array_equal(signals.reshape(len(signals), -1).numpy(), recording.signals())
        np.testing.assert_array_equal(read_night(recording), signals.numpy())
