"""Scores of a network on whole validation nights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tusp.datasets.prepared import PreparedRecording
from tusp.jobs.feeding import KeptNights
from tusp.jobs.parallel import Peers, part_of
from tusp.jobs.prediction import predict_night
from tusp.jobs.recipes import Recipe
from tusp.platform.errors import CellError, DataError
from tusp.platform.scoring.counts import confusion
from tusp.platform.scoring.metrics import accuracy, macro_f1
from tusp.platform.stages import N_STAGES


def validate(
    network: nn.Module,
    recordings: Sequence[PreparedRecording],
    *,
    recipe: Recipe,
    channels: Sequence[str],
    known_stages: npt.NDArray[np.bool_],
    device: torch.device,
    precision: str = "float32",
    nights: KeptNights | None = None,
    peers: Peers | None = None,
) -> tuple[float, float, float]:
    """Mean negative log-likelihood per scored epoch, accuracy and macro-F1, pooled over whole validation nights.

    Args:
        nights: keeps nights on the device from one validation to the next.
        peers: processes that share the nights; the result is that of all of them.
    """
    peers = peers or Peers()
    counts = np.zeros((N_STAGES, N_STAGES), np.int64)
    log_likelihood = 0.0
    failed: Exception | None = None
    try:
        for recording in part_of(recordings, peers):
            probabilities = predict_night(
                network,
                recording,
                channels=channels,
                window_epochs=recipe.window_epochs,
                stride=recipe.validation_stride,
                known_stages=known_stages,
                max_pairs=recipe.validation_pairs,
                device=device,
                precision=precision,
                nights=nights,
            )
            stages = recording.stages()
            scored = np.flatnonzero(stages >= 0)
            likelihood = np.maximum(probabilities[scored, stages[scored]], 1e-7)
            log_likelihood += float(np.log(likelihood, dtype=np.float64).sum())
            counts += confusion(stages, probabilities.argmax(axis=1))
    except (CellError, DataError) as error:
        failed = error
    peers.agree(failed, device)
    if peers.size > 1:
        # 64-bit floats hold counts below 2^53 exactly.
        shared = torch.tensor([log_likelihood, *counts.flatten().tolist()], dtype=torch.float64, device=device)
        log_likelihood, *flat = peers.sum_(shared).tolist()
        counts = np.array(flat).astype(np.int64).reshape(N_STAGES, N_STAGES)
    return -log_likelihood / max(1, int(counts.sum())), float(accuracy(counts)), float(macro_f1(counts))
