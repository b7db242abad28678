"""Which night of whom: what decides the bytes of one simulated night, and its name in the corpus."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from tusp.datasets.simulation.hypnogram import Night, draw_night
from tusp.datasets.simulation.person import Person
from tusp.datasets.simulation.statistics import load_statistics

SIMULATED_FLAG: Final = "tusp-simulated"
"""Token that stands in the files of every simulated night (see tusp.datasets.corpora.simulated)."""

CORPUS_NUMBERS: Final = {
    "sedf-sc": 1,
    "sedf-st": 2,
    "dcsm": 3,
    "cinc2018": 4,
    "shhs": 5,
    "dod-h": 6,
    "dod-o": 7,
}
"""Part of the seed, so that no two corpora have the same people."""

PERSON, TRUTH, SIGNALS, EXTRAS, DATE, IDENTITY, QUIRKS = range(7)
"""Purposes of chance. Each has a stream of its own, so that a change in one leaves the others alone."""


@dataclass(frozen=True, kw_only=True)
class NightPlan:
    """What decides the bytes of one night."""

    corpus: str
    subject: int
    night: int
    seed: int
    hours: float | None
    ambiguity: float = 1.0
    """How unclear stages are to a scorer: 1 as in real nights, 0 for signs of the true stage only."""

    @property
    def record(self) -> str:
        """The night's name as the corpus's files begin."""
        match self.corpus:
            case "sedf-sc":
                return f"SC4{self.subject:02d}{self.night}"
            case "sedf-st":
                return f"ST7{self.subject:02d}{self.night}"
            case "cinc2018":
                return f"tr03-{self.subject + 1:04d}"
            case "shhs":
                return f"shhs{self.night}-{200_001 + self.subject}"
            case "dcsm":
                return "tp" + str(self._uuid(4)).replace("-", "_")
            case _:
                return str(self._uuid(5))

    def stream(self, *path: int) -> np.random.SeedSequence:
        """Chance for one purpose; does not depend on how many people or nights are asked for."""
        return np.random.SeedSequence(self.seed, spawn_key=(CORPUS_NUMBERS[self.corpus], self.subject, *path))

    def random(self, purpose: int) -> np.random.Generator:
        """Chance for one purpose in this night."""
        return np.random.default_rng(self.stream(purpose, self.night))

    def _uuid(self, version: int) -> uuid.UUID:
        return uuid.UUID(bytes=np.random.default_rng(self.stream(IDENTITY)).bytes(16), version=version)


def draw_person(plan: NightPlan) -> Person:
    """The same person for every night of a subject."""
    statistics = load_statistics(plan.corpus)
    person = Person.draw(statistics, np.random.default_rng(plan.stream(PERSON)))
    return replace(person, ambiguity=person.ambiguity * statistics.ambiguity * plan.ambiguity)


def draw_truth(plan: NightPlan, person: Person) -> Night:
    """The night's stages."""
    random = plan.random(TRUTH)
    statistics = load_statistics(plan.corpus)
    return draw_night(
        statistics,
        age=person.age,
        habit=person.habit.tonight(random).scaled(statistics.variability),
        random=random,
        hours=plan.hours,
    )
