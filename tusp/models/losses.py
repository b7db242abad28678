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
    """Logits [batch * T, 5] in 32 bits and stage codes [batch * T]; the logits of unscored epochs are 0.

    Nothing is picked out by a boolean index: how many epochs are scored would have to be known on the host, and a GPU
    would wait for it at every step. ``where`` keeps also what is not finite out of the loss and its gradient.
    """
    flat = logits.float().transpose(1, 2).reshape(-1, N_STAGES)
    codes = stages.reshape(-1)
    return torch.where((codes >= 0)[:, None], flat, 0.0), codes


def focal(logits: Tensor, stages: Tensor, weights: Tensor, gamma: float) -> Tensor:
    """Weighted focal loss (Lin et al. 2017): mean over scored epochs of ``-w (1 - p)^gamma log p`` of the true stage.

    The mean is weighted (divided by the sum of the epochs' class weights), as torch's cross-entropy does it.
    """
    scores, codes = _scored(logits, stages)
    known = codes.clamp_min(0)
    log_p = functional.log_softmax(scores, dim=1).gather(1, known[:, None]).squeeze(1)
    w = weights[known] * (codes >= 0)
    return (w * (1 - log_p.exp()) ** gamma * -log_p).sum() / w.sum().clamp_min(1e-8)


def dice(logits: Tensor, stages: Tensor, weights: Tensor) -> Tensor:
    """Soft Dice loss (Milletari et al. 2016): weighted mean over the stages present of 1 - (2 pg + s) / (p + g + s).

    Sums run over all scored epochs of the batch; s = 1.
    """
    scores, codes = _scored(logits, stages)
    p = functional.softmax(scores, dim=1) * (codes >= 0)[:, None]
    # An unscored epoch, -1, is none of the stages.
    g = (codes[:, None] == torch.arange(N_STAGES, device=codes.device)).to(p.dtype)
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
