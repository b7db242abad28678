"""The corpora that can be simulated: how many people and nights their names hold, and who writes their files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tusp.datasets.simulation import cinc2018, dcsm, dod, shhs, sleep_edf
from tusp.datasets.simulation.plan import NightPlan


@dataclass(frozen=True, kw_only=True)
class SimulatedCorpus:
    """One corpus's files."""

    write: Callable[[NightPlan, Path], Sequence[Path]]
    """Makes one night below a folder, each file whole or not at all; returns the files."""
    prefixes: Callable[[NightPlan], Sequence[str]]
    """What the names of the night's files, seen from that folder, begin with."""
    most_subjects: int = 1000
    most_nights: int = 1
    """Nights of one person."""
    nights_of: Callable[[str, int, int], int] = lambda corpus, subject, seed: 1
    """Nights of a person (corpus, subject, seed) where nobody asked for a number."""


def _two(corpus: str, subject: int, seed: int) -> int:
    return 2


SIMULATED: Final[Mapping[str, SimulatedCorpus]] = {
    **dict.fromkeys(
        ("sedf-sc", "sedf-st"),
        SimulatedCorpus(
            write=sleep_edf.write_night,
            prefixes=sleep_edf.prefixes,
            most_subjects=100,
            most_nights=2,
            nights_of=_two,
        ),
    ),
    "dcsm": SimulatedCorpus(write=dcsm.write_night, prefixes=dcsm.prefixes),
    "cinc2018": SimulatedCorpus(write=cinc2018.write_night, prefixes=cinc2018.prefixes),
    "shhs": SimulatedCorpus(write=shhs.write_night, prefixes=shhs.prefixes, most_nights=2, nights_of=shhs.nights_of),
    **dict.fromkeys(("dod-h", "dod-o"), SimulatedCorpus(write=dod.write_night, prefixes=dod.prefixes)),
}
"""By name."""
