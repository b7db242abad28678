"""What a cell does with its training nights: train a network in passes, or fit an estimator to whole nights.

Both end in the same form, so that everything after it (predicting, counting, keeping) does not know the difference.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch

from tusp.datasets.prepared import PreparedRecording
from tusp.jobs.checkpoints import load_checkpoint, save_checkpoint
from tusp.jobs.cost import multiply_accumulates
from tusp.jobs.job import CellJob
from tusp.jobs.prediction import Probabilities, predict_night
from tusp.jobs.recipes import Recipe
from tusp.jobs.sampling import channel_choices
from tusp.jobs.training import PassRecord, Progress, Trainer
from tusp.models.families import Family
from tusp.models.tinyustaging import parameter_counts
from tusp.platform.errors import CellError
from tusp.platform.scoring.counts import confusion
from tusp.platform.scoring.metrics import accuracy, macro_f1
from tusp.platform.stages import N_STAGES

NIGHTS_OF_LOSS: Final = 20
"""Training nights that an estimator's loss is taken from; more would cost as much as fitting it."""
Report = Callable[[Progress, int], None]
COMPILE: Final = "TUSP_COMPILE"
"""Variable: ``auto``, ``never`` or ``always`` (tusp.jobs.compiling)."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A network or estimator that has seen its training nights."""

    predict: Callable[[PreparedRecording], Probabilities]
    """Stage probabilities of a night, float32 [n_epochs, 5]."""
    tensors: Mapping[str, torch.Tensor]
    """All that was learned, by name."""
    n_parameters: int
    n_trainable: int
    macs_per_epoch: float | None
    """Multiply-accumulates of one epoch; None for an estimator."""
    history: Sequence[PassRecord]
    best_pass: int
    training_seconds: float
    train_stage_counts: Sequence[int]
    resumed_from_pass: int | None
    conditions: Mapping[str, Any] = field(default_factory=dict)
    """How it was computed (precision, compile, feed, micro_batch, processes), to stand beside the results."""


def fit_network(
    job: CellJob,
    network: torch.nn.Module,
    recipe: Recipe,
    train: Sequence[PreparedRecording],
    validation: Sequence[PreparedRecording],
    *,
    report: Report | None,
    checkpoint_seconds: float,
    rank: int = 0,
) -> Fitted:
    """Train the network from the cell's last checkpoint, where there is one.

    Args:
        rank: of this process among ``job.workers`` that train the network together; only the first keeps anything.

    Raises:
        CellError: the training cannot be carried on.
    """
    channels = tuple(job.plan["channels"])

    def save(tensors: Mapping[str, torch.Tensor], progress: Progress) -> None:
        name = f"pass-{progress.pass_number:05d}-{progress.step:06d}"
        save_checkpoint(job.folder, name=name, tensors=tensors, state=progress.to_json())

    trainer = Trainer(
        network=network,
        channels=channels,
        recipe=recipe,
        train=train,
        validation=validation,
        seed=job.plan["seed"],
        device=job.device,
        save=save,
        load=lambda: load_checkpoint(job.folder),
        checkpoint_seconds=checkpoint_seconds,
        report=report,
        compile_mode=os.environ.get(COMPILE) or "auto",
        rank=rank,
        world_size=job.workers,
    )
    trained = trainer.fit()

    def predict(recording: PreparedRecording) -> Probabilities:
        return predict_night(
            trained.network,
            recording,
            channels=channels,
            window_epochs=recipe.window_epochs,
            stride=recipe.prediction_stride,
            known_stages=np.array(trained.train_stage_counts) > 0,
            device=job.device,
            precision=trained.precision,
        )

    n_parameters, n_trainable = parameter_counts(trained.network)
    return Fitted(
        predict=predict,
        tensors=trained.network.state_dict(),
        n_parameters=n_parameters,
        n_trainable=n_trainable,
        macs_per_epoch=multiply_accumulates(
            trained.network, n_channels=len(channels), window_epochs=recipe.window_epochs
        ),
        history=trained.history,
        best_pass=trained.best_pass,
        training_seconds=trained.training_seconds,
        train_stage_counts=trained.train_stage_counts,
        resumed_from_pass=trained.resumed_from_pass,
        conditions=trained.conditions,
    )


def _score(predict: Callable[[PreparedRecording], Probabilities], nights: Sequence[PreparedRecording]) -> Any:
    """Mean negative log-likelihood of the true stages, and the counts, over all scored epochs of the nights."""
    counts = np.zeros((N_STAGES, N_STAGES), np.int64)
    log_likelihood = 0.0
    for night in nights:
        probabilities, stages = predict(night), night.stages()
        scored = np.flatnonzero(stages >= 0)
        log_likelihood += float(np.log(np.maximum(probabilities[scored, stages[scored]], 1e-7), dtype=np.float64).sum())
        counts += confusion(stages, probabilities.argmax(axis=1))
    return -log_likelihood / max(1, int(counts.sum())), counts


def fit_estimator(
    job: CellJob,
    family: Family,
    settings: Any,
    train: Sequence[PreparedRecording],
    validation: Sequence[PreparedRecording],
) -> Fitted:
    """Fit an estimator to every channel choice of the training nights; it predicts by the mean over a night's choices.

    Its curve is one pass: the loss is the mean negative log-likelihood of the first training nights.

    Raises:
        CellError: no training epoch is scored, or no validation epoch.
    """
    channels = tuple(job.plan["channels"])
    began = time.monotonic()
    stage_counts = np.zeros(N_STAGES, np.int64)
    for night in train:
        stages = night.stages()
        stage_counts += np.bincount(stages[stages >= 0], minlength=N_STAGES)
    if not stage_counts.any():
        raise CellError("no scored epoch to train on")
    estimator = family.build(settings, seed=job.plan["seed"]).fit(
        # One at a time: all nights of a large corpus would not fit the memory.
        (
            (night.signals()[list(choice)], night.stages())
            for night in train
            for choice in channel_choices(night, channels)
        ),
        seed=job.plan["seed"],
    )

    def predict(night: PreparedRecording) -> Probabilities:
        signals = night.signals()
        votes = [estimator.probabilities(signals[list(choice)]) for choice in channel_choices(night, channels)]
        return np.asarray(np.mean(votes, axis=0, dtype=np.float64), np.float32)

    train_loss, _ = _score(predict, train[:NIGHTS_OF_LOSS])
    loss, counts = _score(predict, validation)
    score = float(macro_f1(counts))
    if math.isnan(score):
        raise CellError("validation: no scored epoch in any night")
    seconds = time.monotonic() - began
    record = PassRecord(
        pass_number=1,
        train_loss=train_loss,
        learning_rate=0.0,
        validation_loss=loss,
        validation_accuracy=float(accuracy(counts)),
        validation_macro_f1=score,
        seconds=seconds,
    )
    return Fitted(
        predict=predict,
        tensors={name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in estimator.tensors().items()},
        n_parameters=estimator.n_parameters,
        n_trainable=estimator.n_parameters,
        macs_per_epoch=None,
        history=[record],
        best_pass=1,
        training_seconds=seconds,
        train_stage_counts=[int(count) for count in stage_counts],
        resumed_from_pass=None,
    )
