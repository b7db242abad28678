"""`--set key=value`: settings of a recipe, its augmentation and its network, changed on the command line."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tusp.jobs.recipes import Recipe, recipe_settings
from tusp.models.config import NetworkConfig
from tusp.platform.errors import UserError
from tusp.platform.identity import fingerprint

_PARTS: Final = ("augmentation", "network")


def _fields(of: Any) -> dict[str, Any]:
    """Settings of a dataclass and the values they have now."""
    return {entry.name: getattr(of, entry.name) for entry in dataclasses.fields(of)}


def known_settings(recipe: Recipe) -> dict[str, Any]:
    """Every key that can be set, with the value that it has now."""
    known = {name: value for name, value in _fields(recipe).items() if name not in ("name", *_PARTS)}
    known |= {f"augmentation.{name}": value for name, value in _fields(recipe.augmentation).items()}
    network = NetworkConfig(**recipe.network)
    # The number of channels follows from the corpus and the arm.
    return known | {f"network.{name}": value for name, value in _fields(network).items() if name != "n_channels"}


def _value(key: str, text: str, now: Any) -> Any:
    """The value in the type of the present one.

    Raises:
        UserError: it is of another type.
    """
    if isinstance(now, str):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if isinstance(now, bool):
        wanted, fits = "true or false", isinstance(value, bool)
    elif isinstance(now, tuple):
        wanted, fits = f"numbers in brackets, for example {list(now)}", isinstance(value, list)
        if fits:
            wanted += f", {len(now)} of them" if key != "network.pools" else ""
            fits = all(isinstance(part, int | float) and not isinstance(part, bool) for part in value)
            fits = fits and (key == "network.pools" or len(value) == len(now))
            value = tuple(type(now[0])(part) for part in value) if fits else value
    elif isinstance(now, float):
        wanted, fits = "a number", isinstance(value, int | float) and not isinstance(value, bool)
        value = float(value) if fits else value
    else:
        # A whole number, also where nothing is set now.
        wanted, fits = "a whole number", isinstance(value, int) and not isinstance(value, bool)
    if not fits:
        raise UserError(f"--set {key}={text}: must be {wanted} (it is {json.dumps(now)} in this recipe)")
    return value


def parse_settings(recipe: Recipe, texts: Sequence[str]) -> dict[str, Any]:
    """Changes by key, in the types of the settings.

    Raises:
        UserError: not ``key=value``, an unknown key, a value of a wrong type, or a key given twice.
    """
    known = known_settings(recipe)
    changes: dict[str, Any] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        key = key.strip()
        if not separator or not key:
            raise UserError(f"--set {text}: must be key=value, for example --set learning_rate=0.001")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
            raise UserError(f"--set {key}: recipe {recipe.name} has no such setting; {hint}")
        if key in changes:
            raise UserError(f"--set {key}: given twice")
        changes[key] = _value(key, value.strip(), known[key])
    return changes


def with_settings(recipe: Recipe, texts: Sequence[str]) -> Recipe:
    """The recipe with ``--set`` applied, under a name of its own: its results never stand under the plain one's.

    Setting what is set already changes nothing, the name included.

    Raises:
        UserError: as ``parse_settings``, or the recipe or the network refuses a value.
    """
    known = known_settings(recipe)
    changes = {key: value for key, value in parse_settings(recipe, texts).items() if value != known[key]}
    if not changes:
        return recipe
    network = {**recipe.network, **_below("network", changes)}
    NetworkConfig(**network)
    changed = dataclasses.replace(
        recipe,
        network=network,
        augmentation=dataclasses.replace(recipe.augmentation, **_below("augmentation", changes)),
        **{key: value for key, value in changes.items() if "." not in key},
    )
    settings = {**recipe_settings(changed), "name": recipe.name, "network": dict(network)}
    return dataclasses.replace(changed, name=f"{recipe.name}+{fingerprint(settings)[:8]}")


def _below(part: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    return {key.partition(".")[2]: value for key, value in changes.items() if key.startswith(f"{part}.")}
