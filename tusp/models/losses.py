"""Losses over logits [batch, 5, T] and stage codes [batch, T]; unscored epochs (-1) are masked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tusp.models.config import LOSSES
from tusp.platform.errors import UserError
from tusp.platform.stages import N_STAGES

Loss = Callable[[Tensor, Tensor], Tensor]
DICE_SMOOTHING = 1.0


def _scored(logits: Tensor, stages: Tensor) -> tuple[Tensor, Tensor]:
    flat = logits.float().transpose(1, 2).reshape(-1, N_STAGES)
    codes = stages.reshape(-1)
    scored = codes >= 0
    return flat[scored], codes[scored]


def focal(logits: Tensor, stages: Tensor, weights: Tensor, gamma: float) -> Tensor:
    """Weighted focal loss (Lin et al. 2017): mean over scored epochs of ``-w (1 - p)^gamma log p`` of the true stage.

    The mean is weighted (divided by the sum of the epochs' class weights), as torch's cross-entropy does it.
    """
    scores, codes = _scored(logits, stages)
    log_p = functional.log_softmax(scores, dim=1).gather(1, codes[:, None]).squeeze(1)
    w = weights[codes]
    return (w * (1 - log_p.exp()) ** gamma * -log_p).sum() / w.sum().clamp_min(1e-8)


def dice(logits: Tensor, stages: Tensor, weights: Tensor) -> Tensor:
    """Soft Dice loss (Milletari et al. 2016): weighted mean over the stages present of 1 - (2 pg + s) / (p + g + s).

    Sums run over all scored epochs of the batch; s = 1.
    """
    scores, codes = _scored(logits, stages)
    p = functional.softmax(scores, dim=1)
    g = functional.one_hot(codes, N_STAGES).to(p.dtype)
    overlap = (2 * (p * g).sum(0) + DICE_SMOOTHING) / (p.sum(0) + g.sum(0) + DICE_SMOOTHING)
    w = weights * (g.sum(0) > 0)
    return (w * (1 - overlap)).sum() / w.sum().clamp_min(1e-8)


def cross_entropy(logits: Tensor, stages: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy, mean over scored epochs."""
    return focal(logits, stages, weights, 0.0)


def build_loss(name: str, *, class_weights: Sequence[float], gamma: float, device: torch.device | str = "cpu") -> Loss:
    """The loss called ``name`` (one of LOSSES) as a function of logits [batch, 5, T] and stages [batch, T] (int64).

    Raises:
        UserError: there is no such loss.
    """
    weights = torch.tensor(class_weights, dtype=torch.float32, device=device)
    if name == "focal+dice":
        return lambda logits, stages: focal(logits, stages, weights, gamma) + dice(logits, stages, weights)
    if name == "focal":
        return lambda logits, stages: focal(logits, stages, weights, gamma)
    if name == "dice":
        return lambda logits, stages: dice(logits, stages, weights)
    if name == "cross-entropy":
        return lambda logits, stages: cross_entropy(logits, stages, weights)
    raise UserError(f"no loss called {name!r}; there are {', '.join(LOSSES)}")
