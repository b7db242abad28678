"""Training when something is short or broken: memory, files; and networks with draws of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_nights import SHORT, night, small_network

from tusp.datasets.prepared import SIGNALS, PreparedRecording
from tusp.jobs.checkpoints import load_checkpoint, save_checkpoint
from tusp.jobs.memory import is_out_of_memory
from tusp.jobs.recipes import Recipe
from tusp.jobs.training import Progress, Trained, Trainer
from tusp.models.tinyustaging import build_network
from tusp.platform.errors import CellError, DataError

FOUR = replace(SHORT, batch_size=4, epochs_per_pass=72, epochs_per_pass_at_least=72)
"""Three steps of four windows a pass."""


class CutError(Exception):
    """Stands for a process that ends here."""


class Narrow(nn.Module):
    """A network that runs out of memory, as the device would say it, in training with more than ``most`` windows.

    It fails half-way: after batch norm has changed its moving statistics.
    """

    def __init__(self, network: nn.Module, most: int, error: Any) -> None:
        super().__init__()
        self.inside, self.most, self.error = network, most, error
        self.failures = 0

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inside(x)
        if self.training and torch.is_grad_enabled() and len(x) > self.most:
            self.failures += 1
            raise self.error
        return logits


class NoStatistics(nn.Module):
    """A network without batch norm: windows know nothing of one another."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 8, 64, stride=32)
        self.drop = nn.Dropout(dropout)
        self.last = nn.Conv1d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        n_epochs = x.shape[2] // 3840
        features = torch.relu(self.first(x))
        pooled = nn.functional.adaptive_avg_pool1d(features.abs(), n_epochs)
        logits: Tensor = self.last(self.drop(pooled))
        return logits


def seeded(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> list[PreparedRecording]:
    root = tmp_path_factory.mktemp("nights")
    return [night(root, f"n{number}", seed=number) for number in range(4)]


def trainer(
    nights: Sequence[PreparedRecording],
    network: nn.Module,
    *,
    recipe: Recipe = FOUR,
    folder: Path | None = None,
    **more: Any,
) -> Trainer:
    def save(tensors: Any, progress: Progress) -> None:
        assert folder is not None
        name = f"pass-{progress.pass_number:05d}-{progress.step:06d}"
        save_checkpoint(folder, name=name, tensors=tensors, state=progress.to_json())

    return Trainer(
        network=network,
        channels=("EEG", "EOG"),
        recipe=recipe,
        train=nights[:-1],
        validation=nights[-1:],
        seed=3,
        save=save if folder else None,
        load=(lambda: load_checkpoint(folder)) if folder else None,
        **more,
    )


def losses(trained: Trained) -> list[float]:
    return [record.train_loss for record in trained.history]


def weights(trained: Trained) -> dict[str, bytes]:
    return {
        name.removeprefix("inside."): value.numpy().tobytes() for name, value in trained.network.state_dict().items()
    }


ERRORS = {
    "GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
    "cuDNN": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "CPU": RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    "Python": MemoryError(),
}


@pytest.mark.parametrize("loss", ["focal+dice", "dice", "cross-entropy"])
@pytest.mark.parametrize(("most", "micro"), [(3, 2), (2, 2), (1, 1)])
def test_smaller_pieces_learn_from_the_loss_of_the_whole_batch(
    nights: list[PreparedRecording], loss: str, most: int, micro: int
) -> None:
    """Without batch norm nothing else differs, so the curve is that of the whole batch."""
    recipe = replace(FOUR, loss=loss)
    whole = trainer(nights, seeded(NoStatistics()), recipe=recipe).fit()
    narrow = Narrow(seeded(NoStatistics()), most, ERRORS["GPU"])
    pieces = trainer(nights, narrow, recipe=recipe).fit()
    assert pieces.conditions["micro_batch"] == micro
    assert "micro_batch" not in whole.conditions
    assert narrow.failures == (1 if micro == 2 else 2)
    assert losses(pieces) == pytest.approx(losses(whole), rel=1e-5)
    assert losses(whole)[-1] < losses(whole)[0]


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_memory_that_ran_out_is_known_by_all_its_names(nights: list[PreparedRecording], error: BaseException) -> None:
    assert is_out_of_memory(error)
    trained = trainer(nights, Narrow(build_network(small_network(), seed=3), 2, error)).fit()
    assert trained.conditions["micro_batch"] == 2


def test_other_errors_are_not_taken_for_it(nights: list[PreparedRecording]) -> None:
    broken = Narrow(build_network(small_network(), seed=3), 2, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        trainer(nights, broken).fit()


def test_a_failed_step_leaves_no_trace(nights: list[PreparedRecording]) -> None:
    """Taken again in pieces, it ends as one that was taken in pieces from the start: moving statistics too."""
    failing = trainer(nights, Narrow(build_network(small_network(), seed=3), 2, ERRORS["GPU"])).fit()
    made = trainer(nights, build_network(small_network(), seed=3))
    made.progress.micro_batch = 2
    assert weights(made.fit()) == weights(failing)
    whole = trainer(nights, build_network(small_network(), seed=3)).fit()
    assert losses(failing) == pytest.approx(losses(whole), rel=0.2)  # statistics of half a batch
    assert losses(failing) != losses(whole)


def test_one_window_that_does_not_fit_fails_the_cell_in_one_line(nights: list[PreparedRecording]) -> None:
    with pytest.raises(
        CellError, match=r"^out of memory on cpu even with one window at a time \(CUDA out of"
    ) as caught:
        trainer(nights, Narrow(build_network(small_network(), seed=3), 0, ERRORS["GPU"])).fit()
    assert "\n" not in str(caught.value)


def cut_after(steps: int) -> Any:
    left = iter(range(steps))

    def tick() -> None:
        if next(left, None) is None:
            raise CutError

    return tick


def test_after_a_cut_the_pieces_stay_as_small(tmp_path: Path, nights: list[PreparedRecording]) -> None:
    def network() -> Narrow:
        return Narrow(build_network(small_network(), seed=3), 2, ERRORS["GPU"])

    expected = weights(trainer(nights, network()).fit())
    with pytest.raises(CutError):
        trainer(nights, network(), folder=tmp_path, checkpoint_seconds=-1, tick=cut_after(4)).fit()
    again = network()
    trained = trainer(nights, again, folder=tmp_path, checkpoint_seconds=-1).fit()
    assert again.failures == 0
    assert trained.conditions["micro_batch"] == 2
    assert weights(trained) == expected


def test_draws_of_the_network_itself_survive_a_cut(tmp_path: Path, nights: list[PreparedRecording]) -> None:
    expected = weights(trainer(nights, seeded(NoStatistics(dropout=0.5))).fit())
    assert expected != weights(trainer(nights, seeded(NoStatistics())).fit())
    torch.manual_seed(8)
    for steps in (2, 3):
        with pytest.raises(CutError):
            network = seeded(NoStatistics(dropout=0.5))
            trainer(nights, network, folder=tmp_path, checkpoint_seconds=-1, tick=cut_after(steps)).fit()
        torch.manual_seed(9)
    again = trainer(nights, seeded(NoStatistics(dropout=0.5)), folder=tmp_path, checkpoint_seconds=-1).fit()
    assert weights(again) == expected


@pytest.mark.parametrize("feed", ["resident", "stream"])
def test_the_way_of_feeding_changes_no_bit(nights: list[PreparedRecording], feed: str) -> None:
    recipe = replace(FOUR, augmentation=Recipe(name="all").augmentation)
    trained = trainer(nights, build_network(small_network(), seed=3), recipe=recipe, feed=feed).fit()
    assert trained.conditions["feed"] == feed
    expected = trainer(nights, build_network(small_network(), seed=3), recipe=recipe, feed="stream").fit()
    assert weights(trained) == weights(expected)


def test_a_file_cut_short_after_the_first_pass_ends_the_cell_with_its_name(tmp_path: Path) -> None:
    made = [night(tmp_path, f"n{number}", seed=number) for number in range(3)]
    step = iter(range(1000))

    def tick() -> None:
        if next(step) == 3:  # the first step of the second pass
            for recording in made[:-1]:
                with (recording.folder / SIGNALS).open("r+b") as stream:
                    stream.truncate(200)

    training = trainer(made, build_network(small_network(), seed=3), tick=tick, recipe=replace(FOUR, max_passes=9))
    with pytest.raises(DataError, match=r"signals\.npy: not readable .* prepare the corpus again") as caught:
        training.fit()
    assert "\n" not in str(caught.value)
    assert training.progress.pass_number >= 1


def test_no_checkpoint_is_kept_of_a_loss_that_is_not_finite(
    tmp_path: Path, nights: list[PreparedRecording], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where losses are looked at now and then only."""
    monkeypatch.setattr("tusp.jobs.training.LOOK_EVERY", {"cpu": 50})
    recipe = replace(FOUR, learning_rate=1e30, schedule="plateau")
    for seconds in (-1, 300):
        folder = tmp_path / str(seconds)
        folder.mkdir()
        made = trainer(
            nights, build_network(small_network(), seed=3), recipe=recipe, folder=folder, checkpoint_seconds=seconds
        )
        with pytest.raises(CellError, match=r"^loss became (nan|inf) in pass 1, step [23]; a lower"):
            made.fit()
        assert not made.progress.history
        kept = load_checkpoint(folder)
        if kept is not None:
            assert kept[1]["step"] == 1  # the loss before the first update was finite


def test_looking_at_losses_now_and_then_changes_no_bit(
    nights: list[PreparedRecording], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = trainer(nights, build_network(small_network(), seed=3)).fit()
    monkeypatch.setattr("tusp.jobs.training.LOOK_EVERY", {"cpu": 50})
    trained = trainer(nights, build_network(small_network(), seed=3)).fit()
    assert losses(trained) == losses(expected)
    assert weights(trained) == weights(expected)
