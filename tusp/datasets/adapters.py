"""Which adapters there are: the built-in ones, those of plug-ins, and what a description makes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from typing import Final

from tusp.datasets.corpora.described import Described, parse_description
from tusp.datasets.recording import Adapter, CorpusCard
from tusp.platform.errors import UserError

ENTRY_POINTS: Final = "tusp.datasets"
DESCRIBED: Final = "described"
"""Adapter name of corpora that came with a description."""

BUILT_IN: Final = {
    "sedf-sc": "sedf_sc:SedfSc",
    "sedf-st": "sedf_st:SedfSt",
    "dcsm": "dcsm:Dcsm",
    "cinc2018": "cinc2018:Cinc2018",
    "shhs": "shhs:Shhs",
    "dod-h": "dod_h:DodH",
    "dod-o": "dod_o:DodO",
}
"""Module and class of every built-in adapter, below ``tusp.datasets.corpora``."""


def adapters() -> dict[str, Callable[[], Adapter]]:
    """Adapters by name: the built-in ones and those of plug-ins (entry-point group ``tusp.datasets``).

    A plug-in that cannot be loaded is left out with a warning.

    Raises:
        UserError: two adapters have one name.
    """
    known: dict[str, Callable[[], Adapter]] = {name: partial(_built_in, name) for name in BUILT_IN}
    for point in entry_points(group=ENTRY_POINTS):
        if point.name in known or point.name == DESCRIBED:
            raise UserError(
                f"plug-in {point.value!r} brings a corpus {point.name!r}, but that name is taken; uninstall one of them"
            )
        try:
            factory = point.load()
            if not callable(factory):
                raise TypeError(f"{point.value} is not callable")
        except Exception as error:  # noqa: BLE001  (whatever a plug-in does wrong, the others work on)
            warnings.warn(f"plug-in corpus {point.name!r} ({point.value}) cannot be loaded: {error}", stacklevel=2)
            continue
        known[point.name] = factory
    return known


def _built_in(name: str) -> Adapter:
    """Make a built-in adapter; its module is loaded only now, with the readers that it alone needs."""
    module, class_name = BUILT_IN[name].split(":")
    adapter: Adapter = getattr(import_module(f"tusp.datasets.corpora.{module}"), class_name)()
    return adapter


def make_adapter(adapter: str, name: str, description: str | None) -> Adapter:
    """The adapter of that name, or the one that a description makes.

    Raises:
        UserError: there is none of that name, or the description is wrong.
    """
    if description is not None:
        return Described(name=name, description=parse_description(description, f"description of {name}"))
    known = adapters()
    if adapter in known:
        try:
            made = known[adapter]()
            _ = made.card  # a plug-in that cannot say what it is fails here and by name
            return made
        except Exception as error:
            if adapter in BUILT_IN:
                raise
            raise UserError(f"plug-in corpus {adapter!r} cannot be used: {error}") from error
    raise UserError(
        f"no corpus {adapter!r}; known are {', '.join(sorted(known))}, and any other with --describe FILE.toml"
    )


def cards() -> dict[str, CorpusCard]:
    """What every adapter says of its corpus, by adapter; a plug-in that fails is left out with a warning.

    Raises:
        UserError: two adapters have one name.
    """
    found: dict[str, CorpusCard] = {}
    for name in adapters():
        try:
            found[name] = make_adapter(name, name, None).card
        except UserError as error:
            warnings.warn(str(error), stacklevel=2)
    return found
