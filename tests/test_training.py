"""Training: it learns, it can be cut anywhere and ends with the same bits, and it stops when it should."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_nights import SHORT, night, small_network

from tusp.datasets.prepared import PreparedRecording
from tusp.jobs import checkpoints, training
from tusp.jobs.checkpoints import STATE, load_checkpoint, save_checkpoint
from tusp.jobs.prediction import predict_night
from tusp.jobs.recipes import NO_AUGMENTATION, Recipe
from tusp.jobs.training import PassRecord, Progress, Trained, Trainer, one_cycle, validate
from tusp.models.tinyustaging import build_network
from tusp.platform.errors import CellError

NETWORK = small_network()


class CutError(Exception):
    """Stands for a process that ends here."""


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> list[PreparedRecording]:
    root = tmp_path_factory.mktemp("nights")
    return [night(root, f"n{number}", seed=number) for number in range(5)]


def trainer(
    nights: Sequence[PreparedRecording], folder: Path | None = None, *, recipe: Recipe = SHORT, **changes: Any
) -> Trainer:
    """A trainer on all nights but the last, which validates; with a folder, one that keeps checkpoints there."""

    def save(tensors: Mapping[str, torch.Tensor], progress: Progress) -> None:
        assert folder is not None
        name = f"pass-{progress.pass_number:05d}-{progress.step:06d}"
        save_checkpoint(folder, name=name, tensors=tensors, state=progress.to_json())

    settings: dict[str, Any] = {
        "network": build_network(NETWORK, seed=3),
        "channels": ("EEG", "EOG"),
        "recipe": recipe,
        "train": nights[:-1],
        "validation": nights[-1:],
        "seed": 3,
        "save": save if folder else None,
        "load": (lambda: load_checkpoint(folder)) if folder else None,
        **changes,
    }
    return Trainer(**settings)


def without_seconds(history: Sequence[PassRecord]) -> list[PassRecord]:
    return [replace(record, seconds=0.0) for record in history]


def bits(trained: Trained, recording: PreparedRecording) -> dict[str, bytes]:
    """Everything a training is judged by, byte for byte."""
    weights = {name: value.numpy().tobytes() for name, value in trained.network.state_dict().items()}
    probabilities = predict_night(trained.network, recording, channels=("EEG", "EOG"), window_epochs=6, stride=4)
    history = json.dumps([asdict(record) for record in without_seconds(trained.history)])
    return {**weights, "probabilities": probabilities.tobytes(), "history": history.encode()}


def cut_after(steps: int) -> Any:
    """A tick that ends the training before the step after the first ``steps``."""
    left = iter(range(steps))

    def tick() -> None:
        if next(left, None) is None:
            raise CutError

    return tick


# --- learning ---


def test_a_few_passes_tell_the_stages_apart(nights: list[PreparedRecording]) -> None:
    recipe = replace(
        SHORT,
        learning_rate=5e-3,
        batch_size=4,
        epochs_per_pass=240,
        epochs_per_pass_at_least=240,
        max_passes=8,
        augmentation=NO_AUGMENTATION,
    )
    trained = trainer(nights, recipe=recipe).fit()
    assert trained.history[-1].train_loss < 0.85 * trained.history[0].train_loss
    best = trained.history[trained.best_pass - 1]
    assert best.validation_macro_f1 is not None
    assert best.validation_macro_f1 > 0.6  # chance is 0.2
    assert best.validation_macro_f1 == max(record.validation_macro_f1 or 0 for record in trained.history)
    assert trained.train_stage_counts == [24, 24, 24, 24, 24]


@pytest.mark.parametrize("loss", ["focal+dice", "focal", "dice", "cross-entropy"])
def test_every_loss_can_be_trained_with(nights: list[PreparedRecording], loss: str) -> None:
    recipe = replace(SHORT, loss=loss, augmentation=NO_AUGMENTATION, epochs_per_pass=120, epochs_per_pass_at_least=120)
    history = trainer(nights, recipe=recipe).fit().history
    assert history[-1].train_loss < history[0].train_loss


def test_the_same_seed_gives_the_same_bits_and_another_does_not(nights: list[PreparedRecording]) -> None:
    recipe = replace(SHORT, max_passes=1)
    torch.manual_seed(11)
    first = bits(trainer(nights, recipe=recipe).fit(), nights[-1])
    torch.manual_seed(12)
    assert bits(trainer(nights, recipe=recipe).fit(), nights[-1]) == first
    other = bits(trainer(nights, recipe=recipe, seed=4).fit(), nights[-1])
    assert other["probabilities"] != first["probabilities"]


def test_a_pass_draws_as_many_epochs_as_there_are_within_its_limits(nights: list[PreparedRecording]) -> None:
    """120 scored epochs in windows of 6, 2 a step."""
    for least, most, steps in ((0, 500_000, 10), (240, 500_000, 20), (0, 48, 4), (0, 1, 1)):
        recipe = replace(SHORT, epochs_per_pass_at_least=least, epochs_per_pass=most)
        assert trainer(nights, recipe=recipe).steps_per_pass == steps


# --- cut and continued ---


@pytest.fixture(scope="module", params=["one-cycle", "plateau"])
def whole(request: pytest.FixtureRequest, nights: list[PreparedRecording]) -> tuple[Recipe, dict[str, bytes]]:
    """An uninterrupted training: AdamW on a cycle, or Adam with a rate that falls after every pass without gain."""
    changes: dict[str, Any] = {"schedule": request.param}
    if request.param == "plateau":
        changes |= {"optimizer": "adam", "plateau_patience": 0, "learning_rate": 3e-2}
    recipe = replace(SHORT, **changes)
    return recipe, bits(trainer(nights, recipe=recipe).fit(), nights[-1])


@pytest.mark.parametrize(
    ("every_step", "cuts"),
    [
        pytest.param(True, [1], id="before the second step"),
        pytest.param(True, [2], id="inside the first pass"),
        pytest.param(True, [3], id="after the first pass"),
        pytest.param(True, [4, 2, 1], id="three times"),
        pytest.param(True, [8], id="before the last step"),
        pytest.param(False, [5], id="inside a pass, from the end of the one before"),
        pytest.param(False, [2], id="before there is a checkpoint"),
    ],
)
def test_cut_and_continued_ends_with_the_same_bits(
    tmp_path: Path,
    nights: list[PreparedRecording],
    whole: tuple[Recipe, dict[str, bytes]],
    every_step: bool,
    cuts: list[int],
) -> None:
    recipe, expected = whole
    often = -1 if every_step else 300
    for steps in cuts:
        with pytest.raises(CutError):
            trainer(nights, tmp_path, recipe=recipe, checkpoint_seconds=often, tick=cut_after(steps)).fit()
    torch.manual_seed(99)
    trained = trainer(nights, tmp_path, recipe=recipe, checkpoint_seconds=often).fit()
    assert bits(trained, nights[-1]) == expected
    kept = sum(cuts) if every_step else sum(cuts) // 3 * 3
    assert trained.resumed_from_pass == (kept // 3 if kept else None)


def test_a_finished_training_is_not_trained_again(tmp_path: Path, nights: list[PreparedRecording]) -> None:
    first = bits(trainer(nights, tmp_path).fit(), nights[-1])
    again = trainer(nights, tmp_path, tick=cut_after(0)).fit()
    assert bits(again, nights[-1]) == first


def test_one_checkpoint_is_kept_and_the_last_whole_one_survives_a_failed_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, name="pass-1", tensors={"x": torch.ones(2)}, state={"a": 0.1})
    save_checkpoint(tmp_path, name="pass-2", tensors={"x": torch.zeros(2)}, state={"a": 0.1 + 0.2})
    assert sorted(path.name for path in tmp_path.iterdir()) == [STATE, "pass-2.safetensors"]

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "write_json_atomic", refuse)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(tmp_path, name="pass-3", tensors={"x": torch.ones(2)}, state={})
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert torch.equal(loaded[0]["x"], torch.zeros(2))
    assert loaded[1] == {"a": 0.1 + 0.2}


@pytest.mark.parametrize("damage", ["flipped", "short", "missing", "no JSON"])
def test_a_damaged_checkpoint_is_said_in_one_line(tmp_path: Path, damage: str) -> None:
    save_checkpoint(tmp_path, name="pass-1", tensors={"x": torch.ones(50)}, state={})
    file = tmp_path / "pass-1.safetensors"
    content = file.read_bytes()
    if damage == "flipped":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "short":
        file.write_bytes(content[:-7])
    elif damage == "missing":
        file.unlink()
    else:
        (tmp_path / STATE).write_text("{")
    with pytest.raises(CellError, match=r"damaged .*; delete .* to train anew") as caught:
        load_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


def test_progress_comes_back_from_json_to_the_last_bit() -> None:
    record = PassRecord(
        pass_number=1,
        train_loss=1 / 3,
        learning_rate=5e-6 * 0.2,
        validation_loss=None,
        validation_accuracy=2 / 3,
        validation_macro_f1=0.1 + 0.2,
        seconds=1e-9,
    )
    progress = Progress(pass_number=1, step=2, loss_sum=1 / 7, learning_rate=1e-3 / 3, history=[record])
    assert Progress.from_json(json.loads(json.dumps(progress.to_json()))) == progress


# --- stopping, schedules, the best network ---


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace validation by given scores; returns the weights that each of them judged."""

    def script(scores: Sequence[float]) -> list[dict[str, torch.Tensor]]:
        judged: list[dict[str, torch.Tensor]] = []
        left: Iterator[float] = iter(scores)

        def pretend(network: torch.nn.Module, *_: object, **__: object) -> tuple[float, float, float]:
            judged.append({name: value.clone() for name, value in network.state_dict().items()})
            return 1.0, 0.5, next(left)

        monkeypatch.setattr(training, "validate", pretend)
        return judged

    return script


ONE_STEP = replace(SHORT, epochs_per_pass=12, epochs_per_pass_at_least=12, max_passes=50)


def test_the_best_network_is_the_one_that_is_used(nights: list[PreparedRecording], scripted: Any) -> None:
    judged = scripted([0.1, 0.4, 0.2, 0.4, 0.3])
    trained = trainer(nights, recipe=replace(ONE_STEP, max_passes=5)).fit()
    assert trained.best_pass == 2
    used = trained.network.state_dict()
    assert all(torch.equal(used[name], value) for name, value in judged[1].items())
    assert not all(torch.equal(used[name], value) for name, value in judged[4].items())


def test_training_stops_after_so_many_passes_without_gain(nights: list[PreparedRecording], scripted: Any) -> None:
    scripted([0.1, 0.3, 0.2, 0.3, 0.25, 0.9])
    trained = trainer(nights, recipe=replace(ONE_STEP, stop_patience=3)).fit()
    assert (len(trained.history), trained.best_pass) == (5, 2)


def test_the_rate_falls_when_validation_stalls(nights: list[PreparedRecording], scripted: Any) -> None:
    """Patience 1: the second pass in a row without gain lowers the rate of the next."""
    scripted([0.1, 0.3, 0.2, 0.3, 0.25, 0.1, 0.4, 0.1])
    recipe = replace(ONE_STEP, schedule="plateau", plateau_patience=1, learning_rate=1e-3, max_passes=8)
    rates = [record.learning_rate for record in trainer(nights, recipe=recipe).fit().history]
    assert rates == pytest.approx([1e-3] * 4 + [2e-4] * 2 + [4e-5] * 2)


def test_one_cycle_rises_for_a_tenth_and_falls_to_zero(nights: list[PreparedRecording]) -> None:
    assert [one_cycle(share) for share in (0.05, 0.1, 0.55, 1)] == pytest.approx([0.5, 1, 0.5, 0], abs=1e-12)
    made = trainer(nights)
    rates: list[float] = []
    made.tick = lambda: rates.append(made.optimizer.param_groups[0]["lr"])
    made.fit()
    expected = [SHORT.learning_rate * one_cycle((step + 1) / 9) for step in range(9)]
    assert rates[1:] == pytest.approx(expected[:-1])
    assert made.optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_reports_come_after_every_pass(nights: list[PreparedRecording]) -> None:
    seen: list[tuple[int, int, int]] = []
    trainer(
        nights, report=lambda progress, steps: seen.append((progress.pass_number, len(progress.history), steps))
    ).fit()
    assert [entry for entry in seen if entry[0]] == [(1, 1, 3), (2, 2, 3), (3, 3, 3)]


# --- what can go wrong ---


def test_a_loss_that_is_not_finite_names_pass_step_and_cure(nights: list[PreparedRecording]) -> None:
    recipe = replace(SHORT, learning_rate=1e30, schedule="plateau")
    with pytest.raises(
        CellError, match=r"^loss became (nan|inf) in pass 1, step \d; a lower learning rate than 1e\+30"
    ):
        trainer(nights, recipe=recipe).fit()


@pytest.mark.parametrize("stages", [[0] * 6 + [2] * 9, [3] * 8, [-1] * 4 + [1]], ids=str)
def test_validation_without_some_stages_is_a_number(
    tmp_path: Path, nights: list[PreparedRecording], stages: list[int]
) -> None:
    lacking = night(tmp_path, "v", stages=stages)
    trained = trainer([*nights[:-1], lacking]).fit()
    for record in trained.history:
        assert record.validation_macro_f1 is not None
        assert record.validation_loss is not None
        assert 0 <= record.validation_macro_f1 <= 1
        assert np.isfinite(record.validation_loss)


def test_validation_without_any_scored_epoch_is_refused(tmp_path: Path, nights: list[PreparedRecording]) -> None:
    with pytest.raises(CellError, match="validation: no scored epoch in any night"):
        trainer([*nights[:-1], night(tmp_path, "v", stages=[-1] * 8)]).fit()


def test_validation_is_pooled_over_nights(tmp_path: Path, nights: list[PreparedRecording]) -> None:
    network = trainer(nights, recipe=replace(SHORT, max_passes=1)).fit().network
    judged = [night(tmp_path, "v", stages=[-1, 0, 0, 3, 3, 1, 2, 2]), nights[-1]]
    known = np.array([True, True, True, False, True])
    loss, accuracy, score = validate(
        network, judged, recipe=SHORT, channels=("EEG", "EOG"), known_stages=known, device=torch.device("cpu")
    )
    true, probabilities = [], []
    for recording in judged:
        scored = recording.stages() >= 0
        true.append(recording.stages()[scored])
        probabilities.append(
            predict_night(
                network,
                recording,
                channels=("EEG", "EOG"),
                window_epochs=6,
                stride=SHORT.validation_stride,
                known_stages=known,
                max_pairs=1,
            )[scored]
        )
    stages, p = np.concatenate(true), np.concatenate(probabilities)
    predicted = p.argmax(axis=1)
    f1 = [
        2 * ((stages == s) & (predicted == s)).sum() / ((stages == s).sum() + (predicted == s).sum())
        for s in range(5)
        if (stages == s).any() or (predicted == s).any()
    ]
    assert accuracy == pytest.approx((stages == predicted).mean())
    assert score == pytest.approx(np.mean(f1))
    assert loss == pytest.approx(-np.log(np.maximum(p[np.arange(len(p)), stages], 1e-7)).mean(), rel=1e-5)


def test_the_training_core_needs_torch_and_numpy_alone() -> None:
    """A machine with a GPU and nothing else can run it."""
    others = "('ray', 'safetensors', 'sqlalchemy', 'pandas', 'scipy', 'sklearn', 'mlflow', 'edfio', 'matplotlib')"
    code = f"""
import sys
class Nothing:
    def find_spec(self, name, *_):
        if name.split('.')[0] in {others}:
            raise ImportError(name)
sys.meta_path.insert(0, Nothing())
import tusp.jobs.training, tusp.jobs.parallel, tusp.jobs.feeding
"""
    subprocess.run([sys.executable, "-c", code], check=True)
