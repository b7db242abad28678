"""Optimizers and learning rates of the recipes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from tusp.jobs.recipes import Recipe
from tusp.platform.errors import CellError


def build_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over all parameters of a network.

    Raises:
        CellError: there is no such optimizer.
    """
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
