"""Recipes: how a cell is trained and judged. Every setting is part of the cell's identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from tusp.models.ablations import Arm
from tusp.models.config import LOSSES, NetworkConfig
from tusp.platform.errors import UserError
from tusp.platform.stages import N_STAGES

TRAINING_VERSION: Final = 2
"""Part of every cell's identity: raise it when the same settings would train or predict differently."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Augmentations of a scaled window (median 0, IQR 1). Probabilities are per window; 0 switches one off."""

    noise_probability: float = 0.2
    noise_sigma: float = 0.1

    region_noise_probability: float = 0.2
    region_noise_sigma: float = 0.2
    region_noise_fraction: tuple[float, float] = (0.001, 0.5)
    """Share of the window, log-uniform."""

    warp_probability: float = 0.2
    warp_alpha: tuple[float, float] = (0.0, 35.0)
    """Amplitude of the displacement in samples before smoothing."""
    warp_sigma: tuple[float, float] = (3.0, 30.0)
    """Standard deviation of the smoothing in samples."""

    erase_probability: float = 0.2
    erase_fraction: tuple[float, float] = (0.001, 0.3)

    channel_dropout_probability: float = 0.1


NO_AUGMENTATION = Augmentation(
    noise_probability=0,
    region_noise_probability=0,
    warp_probability=0,
    erase_probability=0,
    channel_dropout_probability=0,
)


CHOICES: Final[Mapping[str, Sequence[str]]] = {
    "loss": LOSSES,
    "optimizer": ("adam", "adamw"),
    "schedule": ("plateau", "one-cycle"),
    "precision": ("auto", "float32", "bf16"),
}
AT_LEAST_ONE: Final = (
    "window_epochs",
    "batch_size",
    "epochs_per_pass",
    "max_passes",
    "stop_patience",
    "validation_pairs",
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of training, validation and prediction."""

    name: str
    network: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the network that this recipe changes (its width), the same in every arm."""

    window_epochs: int = 31
    """T: epochs of 30 s in one training window."""

    batch_size: int = 16
    epochs_per_pass: int = 500_000
    """A pass draws as many epochs as there are to train on, but at most this many."""

    epochs_per_pass_at_least: int = 0
    """And at least this many, where a corpus is small."""

    max_passes: int = 10_000
    loss: str = "focal+dice"
    class_weights: tuple[float, float, float, float, float] = (0.2, 0.3, 0.2, 0.2, 0.2)
    focal_gamma: float = 2.0

    optimizer: str = "adam"
    """``adam`` or ``adamw``."""

    learning_rate: float = 5e-6
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    schedule: str = "plateau"
    """``plateau`` (times ``plateau_factor`` when validation macro-F1 stalls) or ``one-cycle`` (linear warm-up over the
    first tenth, then a cosine to zero over ``max_passes``)."""

    plateau_factor: float = 0.2
    plateau_patience: int = 30
    stop_patience: int = 100
    """Stop after this many passes without a better validation macro-F1."""

    augmentation: Augmentation = Augmentation()

    precision: str = "auto"
    """Of the arithmetic of training and prediction: ``float32``, ``bf16`` (autocast; weights stay in float32), or
    ``auto``: bf16 where the hardware computes with it, else float32. What was used is recorded with the cell."""

    prediction_stride: int = 15
    """Epochs between the starts of two overlapping windows of a whole-night prediction."""

    validation_stride: int = 31
    validation_pairs: int = 1
    """Channel pairs used in validation; a prediction of the test set votes over all of them."""

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise UserError(f"{name} = {getattr(self, name)!r}: must be one of {', '.join(known)}")
        for name in AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise UserError(f"{name} = {getattr(self, name)}: must be at least 1")
        if not 0 < self.learning_rate < float("inf"):
            raise UserError(f"learning_rate = {self.learning_rate}: must be above 0")
        if len(self.class_weights) != N_STAGES or min(self.class_weights) < 0 or not sum(self.class_weights):
            raise UserError(
                f"class_weights = {list(self.class_weights)}: must be one weight for each of W, N1, N2, N3, REM, none"
                " of them negative"
            )
        for name in ("prediction_stride", "validation_stride"):
            if not 1 <= getattr(self, name) <= self.window_epochs:
                raise UserError(
                    f"{name} = {getattr(self, name)}: must lie in 1 to window_epochs ({self.window_epochs}), "
                    "else epochs between windows are never seen"
                )


PAPER = Recipe(name="paper")
"""The published recipe of the method."""

STANDARD = Recipe(
    name="standard",
    # The published network. Its moving statistics follow faster, since there are far fewer steps.
    network={"norm_momentum": 0.1},
    batch_size=4,
    epochs_per_pass_at_least=5000,
    max_passes=20,
    optimizer="adamw",
    learning_rate=2e-3,
    weight_decay=1e-3,
    schedule="one-cycle",
    stop_patience=20,
)
"""The published network, loss and augmentation, trained in far fewer passes: AdamW with a rate 400 times as high that
rises and falls once, and four times as many steps a pass. benchmarks/recipes.py compares it with ``paper``."""

QUICK = Recipe(
    name="quick",
    network={
        "complexity_factor": 1.0,
        "input_decimation": 4,
        "pools": (10, 6, 4, 4),
        "classifier_width": 16,
        "norm_momentum": 0.1,
    },
    # Many short windows: in trials with this network, few long ones ended at a much higher training loss.
    window_epochs=8,
    batch_size=8,
    epochs_per_pass=2500,
    epochs_per_pass_at_least=2500,
    max_passes=3,
    loss="cross-entropy",
    class_weights=(0.2, 0.2, 0.2, 0.2, 0.2),
    optimizer="adamw",
    learning_rate=1e-2,
    weight_decay=1e-3,
    schedule="one-cycle",
    stop_patience=3,
    augmentation=NO_AUGMENTATION,
    prediction_stride=8,
    validation_stride=8,
)
"""A small network at 32 Hz and a few passes: for the demo and for a first look at new data, not for publication."""

SMOKE = Recipe(
    name="smoke",
    network={"complexity_factor": 0.0625, "input_decimation": 4, "pools": (10, 6, 4, 4), "norm_momentum": 0.1},
    window_epochs=8,
    batch_size=2,
    epochs_per_pass=320,
    epochs_per_pass_at_least=320,
    max_passes=4,
    optimizer="adamw",
    learning_rate=2e-3,
    schedule="one-cycle",
    stop_patience=4,
    prediction_stride=8,
    validation_stride=8,
)
"""A few steps with a tiny network: to see whether a machine or a cluster works. Its scores mean nothing."""

RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in (STANDARD, PAPER, QUICK, SMOKE)}


def recipe_called(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        UserError: there is none.
    """
    if name not in RECIPES:
        raise UserError(f"no recipe called {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]


def full_arm(recipe: Recipe, *, channels: Sequence[str]) -> Arm:
    """TinyUStaging in full under ``recipe``, from which ablations take away."""
    return Arm(settings=NetworkConfig(n_channels=len(channels), **recipe.network), channels=tuple(channels))


def recipe_settings(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values. Its changes to the network are left out: the resolved network holds them."""
    settings = asdict(recipe)
    del settings["network"]
    return settings


def recipe_from_settings(settings: Mapping[str, Any]) -> Recipe:
    """The inverse of ``recipe_settings`` (from a stored plan)."""
    values = _with_tuples(settings)
    values["augmentation"] = Augmentation(**_with_tuples(settings["augmentation"]))
    return Recipe(**values)


def _with_tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}


def with_changes(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with some settings replaced, under the same name (an arm's changes; ``network`` is no such setting).

    Raises:
        UserError: there is no such setting, or it refuses the value.
    """
    known = recipe_settings(recipe)
    for name in changes:
        if name not in known or name == "name":
            raise UserError(f"a recipe has no setting {name!r}; it has {', '.join(sorted(known.keys() - {'name'}))}")
    values = _with_tuples(changes)
    if isinstance(values.get("augmentation"), Mapping):
        values["augmentation"] = Augmentation(**_with_tuples(values["augmentation"]))
    return replace(recipe, **values)
