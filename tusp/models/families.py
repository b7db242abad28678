"""The networks there are: TinyUStaging, those it is compared with, and those of plug-ins. Free of torch.

A network takes float [batch, channels, T * 3840] (T epochs of 30 s at 128 Hz, scaled to median 0 and inter-quartile
range 1) and gives logits [batch, 5, T]; one that was published at another rate resamples inside. An estimator (a
classical baseline) is fitted on whole nights instead of being trained in passes.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final, Literal

from tusp.platform.errors import UserError

ENTRY_POINTS: Final = "tusp.models"


@dataclass(frozen=True, kw_only=True)
class Family:
    """One network architecture (or classical estimator) and its settings."""

    name: str
    title: str
    citation: str
    licence: str
    """Of the published method's code; ours is written from the publication."""

    settings: Callable[..., Any]
    """A frozen dataclass with a field ``n_channels``; it refuses wrong values with a UserError."""

    build: Callable[..., Any]
    """``build(settings, seed=...)``: an nn.Module, or an estimator (see tusp.models.baselines.estimator)."""

    kind: Literal["network", "estimator"] = "network"
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the recipe that it was published with. Under recipe `paper` all of them hold; under the others only
    its context (``window_epochs``) does, so that networks are compared under one training."""

    def settings_from(self, values: Mapping[str, Any]) -> Any:
        """The settings with some values given, from a plan or a command line.

        Raises:
            UserError: an unknown name, or a value that the settings refuse.
        """
        known = {entry.name for entry in dataclasses.fields(self.settings)}  # type: ignore[arg-type]
        for name in values:
            if name not in known:
                raise UserError(f"{self.name} has no setting {name!r}; it has {', '.join(sorted(known))}")
        return self.settings(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


BUILT_IN: Final[Mapping[str, str]] = {
    "tinyustaging": "tusp.models.own:TINYUSTAGING",
    "usleep": "tusp.models.others:USLEEP",
    "deepsleepnet": "tusp.models.others:DEEPSLEEPNET",
    "tinysleepnet": "tusp.models.others:TINYSLEEPNET",
    "chambon2018": "tusp.models.others:CHAMBON2018",
    "band-power": "tusp.models.baselines.families:BAND_POWER",
    "band-power-boosting": "tusp.models.baselines.families:BAND_POWER_BOOSTING",
    "transition": "tusp.models.baselines.families:TRANSITION",
    "majority": "tusp.models.baselines.families:MAJORITY",
}
"""Module and object of every built-in family."""


def family_names() -> list[str]:
    """Names of all families, the built-in ones first.

    Raises:
        UserError: a plug-in's name is taken.
    """
    return [*BUILT_IN, *_plugins()]


def _plugins() -> dict[str, Any]:
    points: dict[str, Any] = {}
    for point in entry_points(group=ENTRY_POINTS):
        if point.name in BUILT_IN or point.name in points:
            raise UserError(
                f"plug-in {point.value!r} brings a network {point.name!r}, but that name is taken;"
                " uninstall one of them"
            )
        points[point.name] = point
    return points


def family_called(name: str) -> Family:
    """The family of that name.

    Raises:
        UserError: there is none, or a plug-in's cannot be loaded.
    """
    if name in BUILT_IN:
        module, attribute = BUILT_IN[name].split(":")
        family: Family = getattr(import_module(module), attribute)
        return family
    points = _plugins()
    if name not in points:
        raise UserError(f"no network called {name!r}; there are {', '.join([*BUILT_IN, *points])}")
    try:
        loaded = points[name].load()
        if not isinstance(loaded, Family):
            raise TypeError(f"{points[name].value} is no tusp.models.families.Family")
        if loaded.name != name:
            raise ValueError(f"it calls itself {loaded.name!r}")
    except Exception as error:
        raise UserError(f"plug-in network {name!r} ({points[name].value}) cannot be used: {error}") from error
    return loaded


def families() -> dict[str, Family]:
    """All families by name; a plug-in that cannot be loaded is left out with a warning.

    Raises:
        UserError: a plug-in's name is taken.
    """
    found: dict[str, Family] = {}
    for name in family_names():
        try:
            found[name] = family_called(name)
        except UserError as error:
            if name in BUILT_IN:
                raise
            warnings.warn(str(error), stacklevel=2)
    return found


def model_settings(family: str, settings: Any) -> dict[str, Any]:
    """What a cell's plan says of its network."""
    return {"family": family, **dataclasses.asdict(settings)}


def from_plan(model: Mapping[str, Any]) -> tuple[Family, Any]:
    """The family and the settings that a plan names: the inverse of ``model_settings``.

    Raises:
        UserError: the family is not installed here, or does not know a setting.
    """
    family = family_called(model["family"])
    return family, family.settings_from({name: value for name, value in model.items() if name != "family"})
