"""Whole-night prediction against a slow one that is written down as the definition says it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_nights import night, small_network

from tusp.datasets.prepared import SAMPLES_PER_EPOCH, PreparedRecording
from tusp.jobs.prediction import predict_night, window_starts
from tusp.jobs.sampling import channel_choices
from tusp.models.tinyustaging import TinyUStaging, build_network


@pytest.fixture(scope="module")
def network() -> TinyUStaging:
    torch.manual_seed(3)
    made = build_network(small_network())
    with torch.no_grad():
        made.train()(torch.randn(4, 2, 5 * SAMPLES_PER_EPOCH))  # moving statistics that are not 0 and 1
    return made


@given(n_epochs=st.integers(1, 200), window=st.integers(1, 40), share=st.floats(0, 1))
def test_windows_cover_the_night_and_stay_inside(n_epochs: int, window: int, share: float) -> None:
    stride = 1 + int(share * (window - 1))
    starts = window_starts(n_epochs, window, stride)
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    covered = {epoch for start in starts for epoch in range(start, min(start + window, n_epochs))}
    assert covered == set(range(n_epochs))
    assert starts[-1] == max(0, n_epochs - window)
    assert all(later - earlier <= stride for earlier, later in pairwise(starts))


def test_window_starts_by_hand() -> None:
    assert window_starts(10, 4, 2) == [0, 2, 4, 6]
    assert window_starts(11, 4, 2) == [0, 2, 4, 6, 7]
    assert window_starts(4, 4, 4) == [0]
    assert window_starts(3, 4, 4) == [0]


def slow(
    network: TinyUStaging, recording: PreparedRecording, *, window: int, stride: int, known: np.ndarray | None = None
) -> np.ndarray:
    """The mean over channel pairs of the mean over windows of the softmax, one window and one epoch at a time."""
    network.eval()
    signals = np.asarray(recording.signals(), np.float32)
    per_pair = []
    for pair in channel_choices(recording, ("EEG", "EOG")[: network.config.n_channels]):
        votes: list[list[np.ndarray]] = [[] for _ in range(recording.n_epochs)]
        for start in window_starts(recording.n_epochs, window, stride):
            last = min(start + window, recording.n_epochs)
            piece = signals[list(pair), start * SAMPLES_PER_EPOCH : last * SAMPLES_PER_EPOCH]
            with torch.no_grad():
                logits = network(torch.from_numpy(piece)[None])[0].numpy().astype(np.float64)
            if known is not None:
                logits[~known] = -np.inf
            for offset in range(last - start):
                odds = np.exp(logits[:, offset] - logits[:, offset].max())
                votes[start + offset].append(odds / odds.sum())
        per_pair.append([np.mean(vote, axis=0) for vote in votes])
    return np.mean(per_pair, axis=0)


@pytest.mark.parametrize(
    ("n_epochs", "window", "stride", "eeg", "eog"),
    [(15, 6, 4, 2, 1), (13, 6, 6, 3, 2), (8, 6, 1, 1, 1), (6, 6, 3, 2, 2), (4, 6, 3, 2, 1), (1, 6, 6, 1, 1)],
)
def test_equal_to_the_slow_definition(
    tmp_path: Path, network: TinyUStaging, n_epochs: int, window: int, stride: int, eeg: int, eog: int
) -> None:
    recording = night(tmp_path, "n", n_epochs=n_epochs, eeg=eeg, eog=eog)
    fast = predict_night(network, recording, channels=("EEG", "EOG"), window_epochs=window, stride=stride)
    assert fast.dtype == np.float32
    assert fast.shape == (n_epochs, 5)
    np.testing.assert_allclose(fast, slow(network, recording, window=window, stride=stride), atol=1e-5)
    np.testing.assert_allclose(fast.sum(axis=1), 1, atol=1e-5)


def test_max_pairs_takes_the_first_pairs(tmp_path: Path, network: TinyUStaging) -> None:
    both = night(tmp_path, "n", n_epochs=12, eeg=2, seed=4)
    signals = both.signals()
    alone = predict_night(network, both, channels=("EEG", "EOG"), window_epochs=6, stride=6, max_pairs=1)
    piece = torch.from_numpy(np.asarray(signals[[0, 2], : 6 * SAMPLES_PER_EPOCH], np.float32))[None]
    with torch.no_grad():
        expected = torch.softmax(network.eval()(piece), dim=1)[0].T.numpy()
    np.testing.assert_allclose(alone[:6], expected, atol=1e-5)


def test_a_stage_the_training_nights_lack_is_never_predicted(tmp_path: Path, network: TinyUStaging) -> None:
    recording = night(tmp_path, "n", n_epochs=14)
    known = np.array([True, False, True, True, False])
    fast = predict_night(network, recording, channels=("EEG", "EOG"), window_epochs=6, stride=4, known_stages=known)
    assert not fast[:, ~known].any()
    np.testing.assert_allclose(fast.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(fast, slow(network, recording, window=6, stride=4, known=known), atol=1e-5)


def test_one_eeg_channel(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_network(small_network(n_channels=1))
    recording = night(tmp_path, "n", n_epochs=13, eeg=2, eog=0)
    fast = predict_night(network, recording, channels=("EEG",), window_epochs=6, stride=4)
    np.testing.assert_allclose(fast, slow(network, recording, window=6, stride=4), atol=1e-5)


def test_prediction_leaves_the_network_and_the_random_state_as_they_were(tmp_path: Path, network: TinyUStaging) -> None:
    recording = night(tmp_path, "n", n_epochs=12)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = predict_night(network, recording, channels=("EEG", "EOG"), window_epochs=6, stride=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    np.testing.assert_array_equal(
        first, predict_night(network, recording, channels=("EEG", "EOG"), window_epochs=6, stride=3)
    )
