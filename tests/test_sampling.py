"""Which windows a pass sees: the stated probabilities, reproducible, and exactly the prepared bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chisquare
from training_nights import night

from tusp.datasets.prepared import SAMPLES_PER_EPOCH, PreparedRecording
from tusp.jobs.sampling import BalancedSampler, channel_choices
from tusp.platform.errors import CellError

WINDOWS = 6000
WELL_ABOVE = 1e-3
"""Seeds are fixed, so a correct sampler passes always; a wrong one is many orders below."""


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> list[PreparedRecording]:
    """Two corpora, 3 nights and 1. N3 in one night only; REM missing from the second corpus; some epochs unscored."""
    root = tmp_path_factory.mktemp("nights")
    first = [0] * 10 + [1] * 5 + [2] * 10 + [4] * 5
    return [
        night(root, "a1", stages=first, seed=1),
        night(root, "a2", stages=[-1] * 3 + [0] * 12 + [2] * 5 + [3] * 4, seed=2),
        night(root, "a3", stages=first + [-1] * 2, seed=3),
        night(root, "b1", corpus="other", stages=[0] * 6 + [1] * 3 + [2] * 9, seed=4),
    ]


def sampler(nights: list[PreparedRecording], window_epochs: int = 5) -> BalancedSampler:
    return BalancedSampler(nights, window_epochs=window_epochs, channels=("EEG", "EOG"))


def centres(nights: list[PreparedRecording]) -> tuple[np.ndarray, np.ndarray]:
    """Recording and stage of windows that are one epoch long: the drawn epoch itself."""
    plan = sampler(nights, window_epochs=1).plan(seed=5, pass_number=0, windows=WINDOWS)
    stages = [recording.stages() for recording in nights]
    return plan.recording, np.array([stages[r][s] for r, s in zip(plan.recording, plan.start, strict=True)])


def chance(observed: list[int], shares: list[float]) -> float:
    expected = np.array(shares) / sum(shares) * sum(observed)
    return float(chisquare(observed, expected).pvalue)


def test_a_corpus_is_drawn_half_by_size_half_evenly(nights: list[PreparedRecording]) -> None:
    recording, _ = centres(nights)
    observed = [int((recording < 3).sum()), int((recording == 3).sum())]
    assert chance(observed, [0.5 * 3 / 4 + 0.25, 0.5 * 1 / 4 + 0.25]) > WELL_ABOVE


def test_every_stage_of_a_corpus_is_drawn_alike_and_unscored_never(nights: list[PreparedRecording]) -> None:
    recording, stage = centres(nights)
    assert (stage >= 0).all()
    assert chance([int((stage[recording < 3] == s).sum()) for s in range(5)], [1] * 5) > WELL_ABOVE
    other = stage[recording == 3]
    assert set(other) == {0, 1, 2}
    assert chance([int((other == s).sum()) for s in range(3)], [1] * 3) > WELL_ABOVE


def test_every_night_holding_the_stage_is_drawn_alike(nights: list[PreparedRecording]) -> None:
    recording, stage = centres(nights)
    mine = recording < 3
    for s, holders in {0: [0, 1, 2], 1: [0, 2], 2: [0, 1, 2], 3: [1], 4: [0, 2]}.items():
        drawn = recording[mine & (stage == s)]
        assert set(drawn) == set(holders)
        if len(holders) > 1:
            assert chance([int((drawn == h).sum()) for h in holders], [1] * len(holders)) > WELL_ABOVE


def test_every_epoch_of_the_stage_is_drawn_alike(nights: list[PreparedRecording]) -> None:
    plan = sampler(nights, window_epochs=1).plan(seed=6, pass_number=0, windows=WINDOWS)
    wake = plan.start[(plan.recording == 0) & (plan.start < 10)]
    assert chance(np.bincount(wake, minlength=10).tolist(), [1] * 10) > WELL_ABOVE


def test_the_drawn_epoch_lies_anywhere_in_the_window_alike(tmp_path: Path) -> None:
    """One REM epoch far from both ends: each of the five starts that hold it, and the four others never."""
    alone = night(tmp_path, "n", stages=[-1] * 20 + [4] + [-1] * 20)
    plan = sampler([alone]).plan(seed=1, pass_number=0, windows=2000)
    counts = np.bincount(plan.start, minlength=41)
    assert counts[16:21].sum() == 2000
    assert chance(counts[16:21].tolist(), [1] * 5) > WELL_ABOVE


def defined(nights: list[PreparedRecording], window: int) -> list[np.ndarray]:
    """Probability of every first epoch of every night, step by step as docs/network.md defines the draw."""
    chances = [np.zeros(recording.n_epochs) for recording in nights]
    corpora = sorted({recording.corpus for recording in nights})
    for corpus in corpora:
        members = [index for index, recording in enumerate(nights) if recording.corpus == corpus]
        of_corpus = 0.5 * len(members) / len(nights) + 0.5 / len(corpora)
        stages = sorted({int(s) for index in members for s in nights[index].stages() if s >= 0})
        for stage in stages:
            holders = [index for index in members if (nights[index].stages() == stage).any()]
            for index in holders:
                epochs = np.flatnonzero(nights[index].stages() == stage)
                last = max(0, nights[index].n_epochs - window)
                for epoch in epochs:
                    for shift in range(window):
                        start = min(max(int(epoch) - shift, 0), last)
                        chances[index][start] += of_corpus / len(stages) / len(holders) / len(epochs) / window
    assert sum(float(chance.sum()) for chance in chances) == pytest.approx(1)
    return chances


@pytest.mark.parametrize("window", [1, 5, 31])
def test_windows_are_drawn_as_defined(nights: list[PreparedRecording], window: int) -> None:
    """Every night and first epoch at once, against the definition; 31 epochs are longer than some nights."""
    plan = sampler(nights, window_epochs=window).plan(seed=8, pass_number=3, windows=40_000)
    observed, expected = [], []
    for index, probability in enumerate(defined(nights, window)):
        counts = np.bincount(plan.start[plan.recording == index], minlength=len(probability))
        assert not counts[probability == 0].any()
        observed += counts[probability > 0].tolist()
        expected += probability[probability > 0].tolist()
    assert sum(observed) == 40_000
    assert chance(observed, expected) > WELL_ABOVE


def test_windows_stay_inside_the_night_and_reach_both_ends(nights: list[PreparedRecording]) -> None:
    plan = sampler(nights).plan(seed=2, pass_number=0, windows=WINDOWS)
    for index, recording in enumerate(nights):
        starts = plan.start[plan.recording == index]
        assert starts.min() >= 0
        assert starts.max() <= recording.n_epochs - 5
    starts = plan.start[plan.recording == 3]
    assert (starts.min(), starts.max()) == (0, nights[3].n_epochs - 5)


def test_all_channel_pairs_are_drawn_alike(tmp_path: Path) -> None:
    recording = night(tmp_path, "n", eeg=3, eog=2)
    plan = sampler([recording]).plan(seed=3, pass_number=0, windows=WINDOWS)
    pairs = channel_choices(recording, ("EEG", "EOG"))
    assert pairs == [(0, 3), (0, 4), (1, 3), (1, 4), (2, 3), (2, 4)]
    drawn = [int((plan.channels == pair).all(axis=1).sum()) for pair in pairs]
    assert sum(drawn) == WINDOWS
    assert chance(drawn, [1] * 6) > WELL_ABOVE


def test_one_eeg_alone_where_the_network_takes_one_channel(tmp_path: Path) -> None:
    recording = night(tmp_path, "n", eeg=2, eog=0)
    assert channel_choices(recording, ("EEG",)) == [(0,), (1,)]
    with pytest.raises(CellError, match="toy/n: no EOG channel was prepared"):
        channel_choices(recording, ("EEG", "EOG"))


def test_a_plan_depends_on_seed_and_pass_alone(nights: list[PreparedRecording]) -> None:
    def plan(seed: int, pass_number: int) -> bytes:
        made = sampler(nights).plan(seed=seed, pass_number=pass_number, windows=50)
        return made.recording.tobytes() + made.start.tobytes() + made.channels.tobytes()

    used = sampler(nights)
    used.plan(seed=9, pass_number=9, windows=77)
    again = used.plan(seed=1, pass_number=2, windows=50)
    assert plan(1, 2) == again.recording.tobytes() + again.start.tobytes() + again.channels.tobytes()
    assert len({plan(1, 2), plan(1, 3), plan(2, 2), plan(2, 1)}) == 4


def test_a_plan_does_not_depend_on_torchs_or_numpys_global_state(nights: list[PreparedRecording]) -> None:
    np.random.seed(0)  # noqa: NPY002
    first = sampler(nights).plan(seed=1, pass_number=0, windows=20)
    np.random.seed(1)  # noqa: NPY002
    second = sampler(nights).plan(seed=1, pass_number=0, windows=20)
    np.testing.assert_array_equal(first.start, second.start)


def test_gather_returns_exactly_the_prepared_bytes(nights: list[PreparedRecording]) -> None:
    made = sampler(nights)
    plan = made.plan(seed=4, pass_number=0, windows=40)
    signals, stages = made.gather(plan, slice(10, 30))
    assert signals.dtype == np.float32
    assert signals.shape == (20, 2, 5 * SAMPLES_PER_EPOCH)
    assert stages.dtype == np.int64
    for row, window in enumerate(range(10, 30)):
        recording, first = nights[plan.recording[window]], plan.start[window]
        span = slice(first * SAMPLES_PER_EPOCH, (first + 5) * SAMPLES_PER_EPOCH)
        for position, channel in enumerate(plan.channels[window]):
            np.testing.assert_array_equal(signals[row, position].astype(np.float16), recording.signals()[channel, span])
        np.testing.assert_array_equal(stages[row], recording.stages()[first : first + 5])


def test_a_night_shorter_than_a_window_is_padded_with_unscored_zeros(tmp_path: Path) -> None:
    short = night(tmp_path, "n", stages=[0, 1, 2])
    made = sampler([short])
    plan = made.plan(seed=0, pass_number=0, windows=8)
    assert not plan.start.any()
    signals, stages = made.gather(plan, slice(0, 8))
    assert (stages == [0, 1, 2, -1, -1]).all()
    assert not signals[:, :, 3 * SAMPLES_PER_EPOCH :].any()
    assert signals[:, :, : 3 * SAMPLES_PER_EPOCH].any(axis=2).all()


def test_stages_are_counted_over_scored_epochs(nights: list[PreparedRecording]) -> None:
    made = sampler(nights)
    assert made.stage_counts.tolist() == [38, 13, 34, 4, 10]
    assert made.n_scored == 99


def test_nothing_to_train_on_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(CellError, match="no recordings to train on"):
        sampler([])
    with pytest.raises(CellError, match="toy: no scored epoch to train on"):
        sampler([night(tmp_path, "n", stages=[-1] * 6)])
