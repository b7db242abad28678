"""Ablations: named functions that return arms. An arm is an edited copy of the full configuration.

One configuration has one name in every ablation, so a cell that two ablations share is recognised and named alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from typing import Any, Final

from tusp.models.config import NetworkConfig
from tusp.models.families import family_called, family_names
from tusp.platform.errors import UserError

ENTRY_POINTS: Final = "tusp.ablations"
FULL, NO_CSJA, NO_SE, PLAIN = "full", "no-csja", "no-se", "plain"
EEG, EOG = "EEG", "EOG"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One configuration: a network, its input channels and what it changes of the recipe."""

    family: str = "tinyustaging"
    settings: Any
    channels: tuple[str, ...] = (EEG, EOG)
    """Channel groups of the network's inputs; a group named twice gives two different channels of it."""
    recipe: Mapping[str, Any] = field(default_factory=dict)


Arms = Mapping[str, Arm]
"""Arms by name. The first is the reference that the others are compared with."""
Ablation = Callable[[Arm, Mapping[str, Any]], Arms]
"""From the full arm and the recipe's settings to the arms."""


def _network(full: Arm) -> NetworkConfig:
    settings = full.settings
    assert isinstance(settings, NetworkConfig)
    return settings


def _changed(full: Arm, **changes: Any) -> Arm:
    return replace(full, settings=replace(_network(full), **changes))


def csja(full: Arm, recipe: Mapping[str, Any]) -> Arms:
    """With and without channel and spatial joint attention."""
    return {FULL: full, NO_CSJA: _changed(full, csja=False)}


def se(full: Arm, recipe: Mapping[str, Any]) -> Arms:
    """With and without squeeze-and-excitation (at the bottom and before the classifier)."""
    return {FULL: full, NO_SE: _changed(full, se_bottom=False, se_classifier=False)}


def _plain(full: Arm) -> Arm:
    return _changed(full, csja=False, se_bottom=False, se_classifier=False)


def attention(full: Arm, recipe: Mapping[str, Any]) -> Arms:
    """All four combinations of CSJA and SE; ``plain`` is U-Time with neither."""
    return {**csja(full, recipe), **se(full, recipe), PLAIN: _plain(full)}


def channels(full: Arm, recipe: Mapping[str, Any]) -> Arms:
    """EEG and EOG, two EEG channels, one EEG channel."""
    if full.channels != (EEG, EOG):
        raise UserError("ablation channels: the corpus has no EOG channel, so there is nothing to compare with")
    return {
        FULL: full,
        "two-eeg": replace(full, channels=(EEG, EEG)),
        "one-eeg": replace(_changed(full, n_channels=1), channels=(EEG,)),
    }


def loss(full: Arm, recipe: Mapping[str, Any]) -> Arms:
    """The recipe's loss, and the others: focal + Dice, focal, Dice, cross-entropy."""
    others = [name for name in ("focal+dice", "focal", "dice", "cross-entropy") if name != recipe["loss"]]
    return {FULL: full, **{f"loss-{name}": _with(full, loss=name) for name in others}}


def _with(full: Arm, **changes: Any) -> Arm:
    return replace(full, recipe={**full.recipe, **changes})


def augmentation(full: Arm, recipe: Mapping[str, Any]) -> Arms:
    """With and without the augmentation of training windows."""
    probabilities = {name: value for name, value in recipe["augmentation"].items() if name.endswith("_probability")}
    if any(probabilities.values()):
        nothing = {**recipe["augmentation"], **dict.fromkeys(probabilities, 0.0)}
        return {FULL: full, "no-augmentation": _with(full, augmentation=nothing)}
    published = {name: 0.1 if name == "channel_dropout_probability" else 0.2 for name in probabilities}
    return {FULL: full, "augmented": _with(full, augmentation={**recipe["augmentation"], **published})}


def context(full: Arm, recipe: Mapping[str, Any]) -> Arms:
    """Windows of 1, 11 and 31 epochs beside the recipe's own; a batch holds the same number of epochs in all arms."""
    own = recipe["window_epochs"]
    arms = {FULL: full}
    for length in (1, 11, 31):
        if length != own:
            arms[f"context-{length}"] = _with(full, **_context(recipe, length))
    return arms


def _context(recipe: Mapping[str, Any], length: int) -> dict[str, Any]:
    """Changes to a recipe for windows of ``length`` epochs: as many epochs a batch, strides in the same proportion."""
    share = length / recipe["window_epochs"]
    return {
        "window_epochs": length,
        "batch_size": max(1, round(recipe["batch_size"] / share)),
        **{name: max(1, round(recipe[name] * share)) for name in ("prediction_stride", "validation_stride")},
    }


# Pooling steps whose product with the decimation still divides an epoch.
_POOLS_BY_DECIMATION: Final = {1: (10, 8, 6, 4), 2: (10, 8, 6, 4), 4: (10, 6, 4, 4)}


def resolution(full: Arm, recipe: Mapping[str, Any]) -> Arms:
    """The signals at 128, 64 and 32 Hz."""
    arms = {FULL: full}
    for decimation, pools in _POOLS_BY_DECIMATION.items():
        if decimation != _network(full).input_decimation:
            arms[f"rate-{128 // decimation}"] = _changed(full, input_decimation=decimation, pools=pools)
    return arms


def all_networks(full: Arm, recipe: Mapping[str, Any], names: Sequence[str] = ()) -> Arms:
    """TinyUStaging, plain U-Time and the other networks and baselines, with the same folds.

    Args:
        names: families to compare with; all there are when empty.

    Raises:
        UserError: a family is unknown.
    """
    arms = {FULL: full, PLAIN: _plain(full)}
    for name in names or [name for name in family_names() if name != full.family]:
        family = family_called(name)
        settings = family.settings_from({"n_channels": len(full.channels)})
        changes = dict(family.recipe)
        if changes and recipe["name"].partition("+")[0] != "paper":
            changes = _context(recipe, changes.get("window_epochs", recipe["window_epochs"]))
        arms[name] = Arm(family=name, settings=settings, channels=full.channels, recipe=changes)
    return arms


ABLATIONS: Mapping[str, Ablation] = {
    "csja": csja,
    "se": se,
    "attention": attention,
    "channels": channels,
    "loss": loss,
    "augmentation": augmentation,
    "context": context,
    "resolution": resolution,
    "networks": all_networks,
}


def ablations() -> dict[str, Ablation]:
    """Ablations by name: ours and those of plug-ins (entry-point group ``tusp.ablations``).

    A plug-in that cannot be loaded is left out with a warning.

    Raises:
        UserError: a plug-in's name is taken.
    """
    known = dict(ABLATIONS)
    for point in entry_points(group=ENTRY_POINTS):
        if point.name in known:
            raise UserError(
                f"plug-in {point.value!r} brings an ablation {point.name!r}, but that name is taken; uninstall one of"
                " them"
            )
        try:
            known[point.name] = point.load()
        except Exception as error:  # noqa: BLE001  (whatever a plug-in does wrong, the others work on)
            warnings.warn(f"plug-in ablation {point.name!r} ({point.value}) cannot be loaded: {error}", stacklevel=2)
    return known


def arms_of(ablation: str, full: Arm, recipe: Mapping[str, Any], *, networks: Sequence[str] = ()) -> Arms:
    """The arms of a named ablation.

    Args:
        full: the reference.
        recipe: the recipe's settings, as plain values.
        networks: for the ablation of that name, the families to compare with.

    Raises:
        UserError: there is no such ablation, or it does not fit the corpus or the recipe.
    """
    known = ablations()
    if ablation not in known:
        raise UserError(f"no ablation called {ablation!r}; there are {', '.join(known)}")
    if ablation == "networks":
        return all_networks(full, recipe, networks)
    if networks:
        raise UserError(f"--network: ablation {ablation} edits TinyUStaging; name networks with --ablation networks")
    return known[ablation](full, recipe)
