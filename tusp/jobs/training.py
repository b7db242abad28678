"""Training one network: passes over balanced windows, early stopping on validation, exact continuation after a cut.

Needs torch and numpy alone. Every random draw comes from (seed, pass, step), so a run that is cut and continued from
its checkpoint ends with the same bits as one that was not, on the same hardware with the same number of threads.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tusp.datasets.prepared import PreparedRecording
from tusp.jobs.augmentation import augment
from tusp.jobs.prediction import predict_night
from tusp.jobs.recipes import Recipe
from tusp.jobs.sampling import BalancedSampler, WindowPlan
from tusp.models.losses import Loss, build_loss
from tusp.platform.errors import CellError
from tusp.platform.scoring.counts import confusion
from tusp.platform.scoring.metrics import accuracy, macro_f1
from tusp.platform.stages import N_STAGES


@dataclass(frozen=True, kw_only=True)
class PassRecord:
    """One finished pass."""

    pass_number: int
    train_loss: float
    learning_rate: float
    validation_loss: float | None
    validation_accuracy: float | None
    validation_macro_f1: float | None
    seconds: float


@dataclass(kw_only=True)
class Progress:
    """Where a training stands; everything but the tensors that a checkpoint must hold."""

    pass_number: int = 0
    """Passes finished."""
    step: int = 0
    """Steps done in the pass under way."""
    loss_sum: float = 0.0
    pass_seconds: float = 0.0
    learning_rate: float = 0.0
    plateau_best: float = -1.0
    plateau_stale: int = 0
    best_pass: int = 0
    best_score: float = -1.0
    finished: bool = False
    history: list[PassRecord] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Progress:
        history = [PassRecord(**record) for record in state["history"]]
        return cls(**{**state, "history": history})


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished training: the best network by validation macro-F1, and how it went."""

    network: nn.Module
    history: Sequence[PassRecord]
    best_pass: int
    training_seconds: float
    train_stage_counts: Sequence[int]
    resumed_from_pass: int | None


Save = Callable[[Mapping[str, Tensor], Progress], None]
Load = Callable[[], tuple[Mapping[str, Tensor], Mapping[str, Any]] | None]


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    builders: dict[str, Callable[..., torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    if recipe.optimizer not in builders:
        raise CellError(f"no optimizer called {recipe.optimizer!r}; there are {', '.join(builders)}")
    return builders[recipe.optimizer](
        network.parameters(),
        lr=recipe.learning_rate,
        betas=recipe.betas,
        eps=recipe.epsilon,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def one_cycle(share: float) -> float:
    """Factor on the learning rate at ``share`` (0 to 1) of a training: linear to 1 over a tenth, cosine to 0."""
    return share / 0.1 if share < 0.1 else 0.5 * (1 + math.cos(math.pi * (share - 0.1) / 0.9))


def validate(
    network: nn.Module,
    recordings: Sequence[PreparedRecording],
    *,
    recipe: Recipe,
    channels: Sequence[str],
    known_stages: npt.NDArray[np.bool_],
    device: torch.device,
) -> tuple[float, float, float]:
    """Mean negative log-likelihood per scored epoch, accuracy and macro-F1, pooled over whole validation nights."""
    counts = np.zeros((N_STAGES, N_STAGES), np.int64)
    log_likelihood, scored_epochs = 0.0, 0
    for recording in recordings:
        probabilities = predict_night(
            network,
            recording,
            channels=channels,
            window_epochs=recipe.window_epochs,
            stride=recipe.validation_stride,
            known_stages=known_stages,
            max_pairs=recipe.validation_pairs,
            device=device,
        )
        stages = recording.stages()
        scored = np.flatnonzero(stages >= 0)
        log_likelihood += float(np.log(np.maximum(probabilities[scored, stages[scored]], 1e-7), dtype=np.float64).sum())
        scored_epochs += len(scored)
        counts += confusion(stages, probabilities.argmax(axis=1))
    return -log_likelihood / max(1, scored_epochs), float(accuracy(counts)), float(macro_f1(counts))


class Trainer:
    """Trains one network under ``recipe`` on prepared nights.

    Args:
        network: freshly drawn weights; gives logits [batch, 5, T] for [batch, channels, T * 3840].
        channels: channel groups of its inputs.
        train, validation: prepared nights; no person in both (the caller's split says so).
        seed: of sampling and augmentation.
        save, load: keep and give back a checkpoint; None for a training that is not kept.
        checkpoint_seconds: also keep a checkpoint inside a pass after so many seconds.
        report: called after every pass, and every few seconds with the running loss inside one.
        tick: called at every step (raise in it to stop the training at once).
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        channels: Sequence[str],
        recipe: Recipe,
        train: Sequence[PreparedRecording],
        validation: Sequence[PreparedRecording],
        seed: int,
        device: torch.device | str = "cpu",
        save: Save | None = None,
        load: Load | None = None,
        checkpoint_seconds: float = 300,
        report: Callable[[Progress, int], None] | None = None,
        tick: Callable[[], None] | None = None,
    ) -> None:
        self.channels, self.recipe, self.seed = tuple(channels), recipe, seed
        self.validation = validation
        self.device = torch.device(device)
        self.save, self.load = save, load
        self.checkpoint_seconds = checkpoint_seconds
        self.report, self.tick = report, tick
        self.sampler = BalancedSampler(train, window_epochs=recipe.window_epochs, channels=self.channels)
        epochs = min(max(self.sampler.n_scored, recipe.epochs_per_pass_at_least), recipe.epochs_per_pass)
        self.steps_per_pass = max(1, round(epochs / (recipe.window_epochs * recipe.batch_size)))
        self.network = network.to(self.device)
        self.best = copy.deepcopy(self.network.state_dict())
        self.optimizer = _optimizer(self.network, recipe)
        self.loss: Loss = build_loss(
            recipe.loss, class_weights=recipe.class_weights, gamma=recipe.focal_gamma, device=self.device
        )
        self.progress = Progress(learning_rate=recipe.learning_rate)

    def _resume(self) -> int | None:
        from tusp.jobs.checkpoints import restore_optimizer  # needs safetensors

        kept = self.load() if self.load else None
        if kept is None:
            return None
        tensors, state = kept
        self.network.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("network.")})
        self.best = {k[5:]: v for k, v in tensors.items() if k.startswith("best.")}
        restore_optimizer(self.optimizer, tensors)
        self.progress = Progress.from_json(state)
        return self.progress.pass_number

    def _keep(self) -> None:
        if self.save is None:
            return
        from tusp.jobs.checkpoints import flatten_optimizer  # needs safetensors

        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        self.save({**tensors, **flatten_optimizer(self.optimizer)}, self.progress)

    def _set_learning_rate(self, step: int) -> None:
        recipe, progress = self.recipe, self.progress
        if recipe.schedule == "one-cycle":
            done = (progress.pass_number * self.steps_per_pass + step + 1) / (recipe.max_passes * self.steps_per_pass)
            progress.learning_rate = recipe.learning_rate * one_cycle(min(1.0, done))
        elif recipe.schedule != "plateau":
            raise CellError(f"no schedule called {recipe.schedule!r}; there are plateau, one-cycle")
        for group in self.optimizer.param_groups:
            group["lr"] = progress.learning_rate

    def _step(self, plan: WindowPlan, step: int) -> float:
        size = self.recipe.batch_size
        signals, stages = self.sampler.gather(plan, slice(step * size, (step + 1) * size))
        key = (self.seed, self.progress.pass_number, step)
        batch = augment(torch.from_numpy(signals).to(self.device), self.recipe.augmentation, key)
        loss = self.loss(self.network(batch), torch.from_numpy(stages).to(self.device))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise CellError(
                f"loss became {value} in pass {self.progress.pass_number + 1}, step {step + 1}; "
                f"a lower learning rate than {self.progress.learning_rate:.3g} may cure it"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return value

    def _one_pass(self) -> None:
        progress = self.progress
        plan = self.sampler.plan(
            seed=self.seed,
            pass_number=progress.pass_number,
            windows=self.steps_per_pass * self.recipe.batch_size,
        )
        self.network.train()
        clock = kept = reported = time.monotonic()
        for step in range(progress.step, self.steps_per_pass):
            if self.tick:
                self.tick()
            self._set_learning_rate(step)
            progress.loss_sum += self._step(plan, step)
            progress.step = step + 1
            now = time.monotonic()
            progress.pass_seconds += now - clock
            clock = now
            if self.report and now - reported > 2:
                self.report(progress, self.steps_per_pass)
                reported = now
            if now - kept > self.checkpoint_seconds and progress.step < self.steps_per_pass:
                self._keep()
                clock = kept = time.monotonic()

    def _end_pass(self) -> None:
        progress, recipe = self.progress, self.recipe
        began = time.monotonic()
        loss, score_accuracy, score = validate(
            self.network,
            self.validation,
            recipe=recipe,
            channels=self.channels,
            known_stages=self.sampler.stage_counts > 0,
            device=self.device,
        )
        progress.pass_number += 1
        if math.isnan(score):
            raise CellError("validation: no scored epoch in any night")
        if score > progress.best_score:
            progress.best_score, progress.best_pass = score, progress.pass_number
            self.best = copy.deepcopy(self.network.state_dict())
        progress.history.append(
            PassRecord(
                pass_number=progress.pass_number,
                train_loss=progress.loss_sum / self.steps_per_pass,
                learning_rate=progress.learning_rate,
                validation_loss=loss,
                validation_accuracy=score_accuracy,
                validation_macro_f1=score,
                seconds=progress.pass_seconds + time.monotonic() - began,
            )
        )
        if score > progress.plateau_best:
            progress.plateau_best, progress.plateau_stale = score, 0
        else:
            progress.plateau_stale += 1
            if recipe.schedule == "plateau" and progress.plateau_stale > recipe.plateau_patience:
                progress.learning_rate *= recipe.plateau_factor
                progress.plateau_stale = 0
        progress.step, progress.loss_sum, progress.pass_seconds = 0, 0.0, 0.0
        progress.finished = (
            progress.pass_number >= recipe.max_passes
            or progress.pass_number - progress.best_pass >= recipe.stop_patience
        )

    def fit(self) -> Trained:
        """Train to the end, from the checkpoint where there is one.

        Raises:
            CellError: the loss is not finite, or the data cannot be trained on.
        """
        resumed = self._resume()
        while not self.progress.finished:
            self._one_pass()
            self._end_pass()
            self._keep()
            if self.report:
                self.report(self.progress, self.steps_per_pass)
        self.network.load_state_dict(self.best)
        return Trained(
            network=self.network,
            history=tuple(self.progress.history),
            best_pass=self.progress.best_pass,
            training_seconds=sum(record.seconds for record in self.progress.history),
            train_stage_counts=[int(count) for count in self.sampler.stage_counts],
            resumed_from_pass=resumed,
        )
