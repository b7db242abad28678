"""Training one network: passes over balanced windows, early stopping on validation, exact continuation after a cut.

Needs torch and numpy alone. Every random draw comes from (seed, pass, step), so a run that is cut and continued from
its checkpoint ends with the same bits as one that was not, on the same hardware with the same number of threads.
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn

from tusp.datasets.prepared import SAMPLES_PER_EPOCH, PreparedRecording
from tusp.jobs.augmentation import augment
from tusp.jobs.compiling import Call, compiled, wants_compile
from tusp.jobs.feeding import KeptNights, make_feed
from tusp.jobs.optimisation import build_optimizer, one_cycle
from tusp.jobs.parallel import Peers, share_batch_norm, unshare_batch_norm
from tusp.jobs.precision import resolve_precision, settle_numerics
from tusp.jobs.progress import PassRecord, Progress
from tusp.jobs.recipes import Recipe
from tusp.jobs.sampling import BalancedSampler
from tusp.jobs.steps import Stepper
from tusp.jobs.validation import validate
from tusp.models import native
from tusp.models.losses import Loss, build_loss
from tusp.models.tinyustaging import TinyUStaging
from tusp.platform.errors import CellError, DataError

__all__ = ["PassRecord", "Progress", "Trained", "Trainer", "one_cycle", "validate"]

LOOK_EVERY: Final = {"cpu": 1, "cuda": 50}
"""Steps after which the losses are looked at. Looking makes a GPU wait for its orders; before every checkpoint, report
and validation they are looked at anyway."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished training: the best network by validation macro-F1, and how it went."""

    network: nn.Module
    history: Sequence[PassRecord]
    best_pass: int
    training_seconds: float
    train_stage_counts: Sequence[int]
    resumed_from_pass: int | None
    precision: str = "float32"
    """What it was trained with, and is to predict with: ``float32`` or ``bf16``."""
    conditions: Mapping[str, Any] = field(default_factory=dict)
    """What is recorded beside a cell's results: precision, compile, feed, micro_batch, processes and the like."""


Save = Callable[[Mapping[str, Tensor], Progress], None]
Load = Callable[[], tuple[Mapping[str, Tensor], Mapping[str, Any]] | None]


class Trainer:
    """Trains one network under ``recipe`` on prepared nights.

    Args:
        network: freshly drawn weights; gives logits [batch, 5, T] for [batch, channels, T * 3840].
        channels: channel groups of its inputs.
        train, validation: prepared nights; no person in both (the caller's split says so).
        seed: of sampling and augmentation.
        save, load: keep and give back a checkpoint; None for a training that is not kept. Of several processes only
            the first calls them.
        checkpoint_seconds: also keep a checkpoint inside a pass after so many seconds.
        report: called after every pass, and every few seconds with the running loss inside one.
        tick: called at every step (raise in it to stop the training at once).
        compile_mode: ``auto``, ``never`` or ``always`` (tusp.jobs.compiling).
        feed: ``auto``, ``resident`` or ``stream`` (tusp.jobs.feeding).
        feed_budget_bytes: what the training nights may take on the device; by default a share of what is free.
        rank, world_size, process_group: of the processes that train this network together (tusp.jobs.parallel); all of
            them are given the same of everything else, and each takes its slice of every batch.

    Raises:
        CellError: the data cannot be trained on.
        DataError: a prepared file is not what it was.
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
        compile_mode: str = "auto",
        feed: str = "auto",
        feed_budget_bytes: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        process_group: Any = None,
    ) -> None:
        self.channels, self.recipe, self.seed = tuple(channels), recipe, seed
        self.validation = validation
        self.device = torch.device(device)
        self.peers = Peers(rank=rank, size=world_size, group=process_group)
        self.save, self.load = save, load
        self.checkpoint_seconds = checkpoint_seconds
        self.report, self.tick = report, tick
        numerics = settle_numerics(self.device)
        self.precision = resolve_precision(recipe.precision, self.device, network)
        self.sampler = BalancedSampler(train, window_epochs=recipe.window_epochs, channels=self.channels)
        epochs = min(max(self.sampler.n_scored, recipe.epochs_per_pass_at_least), recipe.epochs_per_pass)
        self.steps_per_pass = max(1, round(epochs / (recipe.window_epochs * recipe.batch_size)))
        self.mine = self.peers.slice_of(recipe.batch_size)
        self.network = network.to(self.device)
        self.best = copy.deepcopy(self.network.state_dict())
        self.optimizer = build_optimizer(self.network, recipe)
        self.loss: Loss = build_loss(
            recipe.loss, class_weights=recipe.class_weights, gamma=recipe.focal_gamma, device=self.device
        )
        self.progress = Progress(learning_rate=recipe.learning_rate)
        self.feed = make_feed(
            train,
            window_epochs=recipe.window_epochs,
            device=self.device,
            kind=feed,
            budget_bytes=feed_budget_bytes,
        )
        self.nights = KeptNights(self.device)
        self.compile_mode = compile_mode
        self._unseen: list[Tensor] = []
        self._conditions: dict[str, Any] = {
            "precision": self.precision,
            "feed": self.feed.kind,
            "processes": self.peers.size,
            **numerics,
        }
        if isinstance(network, TinyUStaging) and self.device.type == "cpu":
            self._conditions["native"] = native.status()

    def _resume(self) -> int | None:
        kept = self.peers.broadcast(self.load() if self.load and self.peers.rank == 0 else None, self.device)
        if kept is None:
            return None
        from tusp.jobs.checkpoints import restore_optimizer  # needs safetensors

        tensors, state = kept
        self.network.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("network.")})
        self.best = {k[5:]: v for k, v in tensors.items() if k.startswith("best.")}
        restore_optimizer(self.optimizer, tensors)
        self.progress = Progress.from_json(state)
        return self.progress.pass_number

    def _keep(self) -> None:
        if self.save is None or self.peers.rank:
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

    def _compiled(self) -> Call | None:
        """The network compiled where that is wanted, and what is recorded of it."""
        recipe = self.recipe
        # A training that never gains stops after so many passes; none stops earlier.
        least = (min(recipe.max_passes, recipe.stop_patience + 1) - self.progress.pass_number) * self.steps_per_pass
        wanted, why = wants_compile(self.compile_mode, device=self.device, steps=least)
        if wanted and self.peers.size > 1:
            wanted, why = False, "several processes train the cell"
        record: dict[str, Any] = {"used": False, "reason": why}
        call = None
        if wanted and not self.progress.finished and not self.progress.micro_batch:
            samples = recipe.window_epochs * SAMPLES_PER_EPOCH
            example = torch.zeros(recipe.batch_size, len(self.channels), samples, device=self.device)
            call, tried = compiled(self.network, example, precision=self.precision)
            record |= tried
        self._conditions["compile"] = record
        return call

    def _look(self) -> None:
        """Add up the losses since the last look.

        Raises:
            CellError: one of them is not finite.
        """
        if not self._unseen:
            return
        values = torch.stack(self._unseen).tolist()
        first = self.progress.step - len(values)
        self._unseen.clear()
        for number, value in enumerate(values, start=first + 1):
            if not math.isfinite(value):
                raise CellError(
                    f"loss became {value} in pass {self.progress.pass_number + 1}, step {number}; "
                    f"a lower learning rate than {self.progress.learning_rate:.3g} may cure it"
                )
            self.progress.loss_sum += value

    def _next(self, batches: Iterator[Tensor]) -> Tensor:
        """The next batch; what goes wrong in one process goes wrong in all."""
        signals, failed = None, None
        try:
            signals = next(batches)
        except (CellError, DataError) as error:
            failed = error
        self.peers.agree(failed, self.device)
        assert signals is not None
        return signals

    def _one_pass(self, stepper: Stepper) -> None:
        progress, size = self.progress, self.recipe.batch_size
        plan = self.sampler.plan(
            seed=self.seed,
            pass_number=progress.pass_number,
            windows=self.steps_per_pass * size,
        )
        stages = torch.from_numpy(self.sampler.stages(plan)).to(self.device)
        steps = range(progress.step, self.steps_per_pass)
        parts = [slice(step * size + self.mine.start, step * size + self.mine.stop) for step in steps]
        look_every = LOOK_EVERY.get(self.device.type, 1)
        self.network.train()
        clock = kept = reported = time.monotonic()
        with contextlib.closing(self.feed.batches(plan, parts)) as batches:
            for step in steps:
                if self.tick:
                    self.tick()
                self._set_learning_rate(step)
                key = (self.seed, progress.pass_number, step)
                signals = augment(self._next(batches), self.recipe.augmentation, key, batch=size, first=self.mine.start)
                loss = stepper.step(signals, stages[step * size : (step + 1) * size], key)
                self._unseen.append(loss)
                progress.step = step + 1
                progress.micro_batch = stepper.micro_batch
                report = self.report is not None and time.monotonic() - reported > 2
                keep = time.monotonic() - kept > self.checkpoint_seconds and progress.step < self.steps_per_pass
                if report or keep or len(self._unseen) >= look_every or progress.step == self.steps_per_pass:
                    self._look()
                now = time.monotonic()
                progress.pass_seconds += now - clock
                clock = now
                if report and self.report:
                    self.report(progress, self.steps_per_pass)
                    reported = now
                if keep:
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
            precision=self.precision,
            nights=self.nights,
            peers=self.peers,
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
            CellError: the loss is not finite, the memory is too small for one window, or the data cannot be trained on.
            DataError: a prepared file is not what it was.
        """
        resumed = self._resume()
        call = self._compiled()
        share_batch_norm(self.network, self.peers)
        stepper = Stepper(
            network=self.network,
            call=call,
            optimizer=self.optimizer,
            loss=self.loss,
            device=self.device,
            precision=self.precision,
            peers=self.peers,
            micro_batch=self.progress.micro_batch,
        )
        while not self.progress.finished:
            self._one_pass(stepper)
            self._end_pass()
            self._keep()
            if self.report:
                self.report(self.progress, self.steps_per_pass)
        unshare_batch_norm(self.network)
        self.network.load_state_dict(self.best)
        if self.progress.micro_batch:
            self._conditions["micro_batch"] = self.progress.micro_batch
        return Trained(
            network=self.network,
            history=tuple(self.progress.history),
            best_pass=self.progress.best_pass,
            training_seconds=sum(record.seconds for record in self.progress.history),
            train_stage_counts=[int(count) for count in self.sampler.stage_counts],
            resumed_from_pass=resumed,
            precision=self.precision,
            conditions=dict(self._conditions),
        )
