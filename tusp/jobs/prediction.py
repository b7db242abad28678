"""Whole-night prediction by overlapping windows of the training length, averaged, voting over channel pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tusp.datasets.prepared import SAMPLES_PER_EPOCH, PreparedRecording
from tusp.jobs.sampling import channel_choices
from tusp.platform.stages import N_STAGES

Probabilities = npt.NDArray[np.float32]
WINDOWS_PER_BATCH = 4


def window_starts(n_epochs: int, window_epochs: int, stride: int) -> list[int]:
    """First epochs of overlapping windows that cover a night; the last one ends with the night.

    A night shorter than a window has the one start 0.
    """
    last = max(0, n_epochs - window_epochs)
    starts = list(range(0, last + 1, stride))
    if starts[-1] != last:
        starts.append(last)
    return starts


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
    """
    network.eval()
    pairs = channel_choices(recording, channels)[:max_pairs]
    signals = recording.signals()
    n = recording.n_epochs
    starts = window_starts(n, window_epochs, stride)
    length = min(window_epochs, n)
    total = np.zeros((n, N_STAGES), np.float64)
    seen = np.zeros(n, np.int64)
    for start in starts:
        seen[start : start + length] += 1
    for pair in pairs:
        for first in range(0, len(starts), WINDOWS_PER_BATCH):
            group = starts[first : first + WINDOWS_PER_BATCH]
            batch = np.stack(
                [signals[list(pair), s * SAMPLES_PER_EPOCH : (s + length) * SAMPLES_PER_EPOCH] for s in group]
            )
            logits = network(torch.from_numpy(batch.astype(np.float32)).to(device))
            logits = logits.float()
            if known_stages is not None:
                logits = logits.masked_fill(~torch.from_numpy(known_stages).to(device)[:, None], -torch.inf)
            probabilities = torch.softmax(logits, dim=1).transpose(1, 2).cpu().numpy()
            for start, block in zip(group, probabilities, strict=True):
                total[start : start + length] += block
    return (total / (seen[:, None] * len(pairs))).astype(np.float32)
