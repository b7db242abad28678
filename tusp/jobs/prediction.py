"""Whole-night prediction by overlapping windows of the training length, averaged, voting over channel pairs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tusp.datasets.prepared import SAMPLES_PER_EPOCH, PreparedRecording
from tusp.jobs.feeding import KeptNights
from tusp.jobs.memory import is_out_of_memory, release_memory
from tusp.jobs.precision import autocast
from tusp.jobs.sampling import channel_choices
from tusp.platform.errors import CellError
from tusp.platform.stages import N_STAGES

log = logging.getLogger(__name__)

Probabilities = npt.NDArray[np.float32]

EPOCHS_PER_BATCH: Final = {"cpu": 124, "cuda": 2048}
"""Epochs computed together: what a CPU's caches like, and enough to fill a GPU. A rule, not a measurement, so that the
same hardware computes the same bits whatever else it does; a batch that does not fit is halved."""


def window_starts(n_epochs: int, window_epochs: int, stride: int) -> list[int]:
    """First epochs of overlapping windows that cover a night; the last one ends with the night.

    A night shorter than a window has the one start 0.
    """
    last = max(0, n_epochs - window_epochs)
    starts = list(range(0, last + 1, stride))
    if starts[-1] != last:
        starts.append(last)
    return starts


def _softmax(logits: Tensor, unknown: Tensor | None) -> Tensor:
    """Probabilities [batch, T, 5] of logits [batch, 5, T], 0 for unknown stages."""
    logits = logits.float()
    if unknown is not None:
        logits = logits.masked_fill(unknown[:, None], -torch.inf)
    return torch.softmax(logits, dim=1).transpose(1, 2)


@torch.inference_mode()
def predict_night(
    network: nn.Module,
    recording: PreparedRecording,
    *,
    channels: Sequence[str],
    window_epochs: int,
    stride: int,
    known_stages: npt.NDArray[np.bool_] | None = None,
    max_pairs: int | None = None,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    nights: KeptNights | None = None,
) -> Probabilities:
    """Stage probabilities of every epoch of a night, float32 [n_epochs, 5], each row summing to 1.

    The softmax of every window that holds an epoch is averaged, then the average over channel pairs is taken (the
    sum of softmax over pairs has the same most probable stage).

    Args:
        network: gives logits [batch, 5, T] for [batch, channels, T * 3840]; switched to evaluation here.
        channels: channel groups of the network's inputs.
        stride: epochs between the starts of two windows; ``window_epochs`` for no overlap.
        known_stages: bool [5], the stages that the training nights hold; the others get probability 0, since a network
            knows nothing of them. None for all.
        max_pairs: use only the first so many channel pairs; None for all.
        precision: ``float32`` or ``bf16``.
        nights: gives the night's signals on the device and may keep them there.

    Raises:
        CellError: not even one window fits into the device's memory.
        DataError: the prepared file is not what it was.
    """
    device = torch.device(device)
    network.eval()
    pairs = np.array(channel_choices(recording, channels)[:max_pairs])
    n = recording.n_epochs
    starts = np.array(window_starts(n, window_epochs, stride))
    length = min(window_epochs, n)
    # Rows of the night [channels * epochs, 3840] for all windows of the first pair, then of the second, ...
    epochs = starts[:, None] + np.arange(length)
    rows = (pairs[:, None, :, None] * n + epochs[None, :, None, :]).reshape(-1, pairs.shape[1], length)
    held = (nights or KeptNights(device, budget_bytes=0)).get(recording).reshape(-1, SAMPLES_PER_EPOCH)
    unknown = None if known_stages is None else torch.from_numpy(~np.asarray(known_stages)).to(device)
    size = max(1, EPOCHS_PER_BATCH.get(device.type, 124) // length)
    blocks: list[Tensor] = []
    first = 0
    while first < len(rows):
        some = torch.from_numpy(rows[first : first + size]).to(device)
        try:
            batch = held.index_select(0, some.reshape(-1)).float().view(len(some), pairs.shape[1], -1)
            with autocast(precision, device):
                logits = network(batch)
            blocks.append(_softmax(logits, unknown))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise CellError(f"{device}: the memory is too small for one window of {length} epochs") from error
            size = (size + 1) // 2
            log.warning("%s: too little memory to predict; now %d windows at a time", recording.name, size)
        else:
            first += len(some)
            continue
        release_memory(device)
    probabilities = torch.cat(blocks).cpu().numpy().astype(np.float64)
    total = np.zeros((n, N_STAGES), np.float64)
    seen = np.zeros(n, np.int64)
    for window, block in enumerate(probabilities):
        start = starts[window % len(starts)]
        total[start : start + length] += block
        seen[start : start + length] += 1
    return (total / seen[:, None]).astype(np.float32)
