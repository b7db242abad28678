"""Nights drawn from the measured chain: stages, the R&K names of the original files, and where nothing is scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from tusp.datasets.simulation.statistics import (
    BOUT_EDGES,
    Codes,
    CorpusStatistics,
    part_of_night,
    rem_clock,
)
from tusp.platform.stages import N1, N2, N3, N_STAGES, REM, UNSCORED, W

EPOCHS_PER_HOUR: Final = 120

PERSON_TILT: Final = (0.30, 0.20, 0.10, 0.45, 0.15)
"""SD of a person's log-odds of entering each stage."""

PERSON_LENGTH: Final = (0.20, 0.10, 0.15, 0.25, 0.15)
"""SD of a person's log factor on the bout lengths of each stage."""

MARGIN: Final = 40
"""Epochs of wake that a cassette recording begins and ends with, at least."""

REM_REGULATION: Final = 7.0
"""Who has had more REM than usual so far enters it less easily: log-odds per unit of surplus share. Without it the
REM share varies between nights twice as much as in the real ones."""

SCORED_AT_ONCE: Final = 0.12
"""Share of simulated CinC nights that are scored from the first sample on: a trap, more frequent than in the corpus,
so that a few nights are enough to meet it."""

NIGHT_SHARE: Final = 0.6
"""SD of the night's own tilt, as a share of the person's."""


@dataclass(frozen=True, kw_only=True)
class SleepHabit:
    """How one person (or one night of theirs) departs from the age group: [stage] log-odds and log factors."""

    tilt: npt.NDArray[np.float64]
    length: npt.NDArray[np.float64]

    @classmethod
    def draw(cls, random: np.random.Generator) -> SleepHabit:
        """A person's habit."""
        return cls(
            tilt=random.normal(size=N_STAGES) * PERSON_TILT,
            length=random.normal(size=N_STAGES) * PERSON_LENGTH,
        )

    def tonight(self, random: np.random.Generator) -> SleepHabit:
        """The habit in one night: the person's, and the night's own departure from it."""
        other = SleepHabit.draw(random)
        return SleepHabit(tilt=self.tilt + NIGHT_SHARE * other.tilt, length=self.length + NIGHT_SHARE * other.length)

    def scaled(self, by: float) -> SleepHabit:
        """The same departures, larger or smaller."""
        return SleepHabit(tilt=by * self.tilt, length=by * self.length)


@dataclass(frozen=True, kw_only=True)
class Night:
    """The truth about one simulated night on its 30-s grid."""

    stages: Codes
    """Scored stage of every epoch of the recording, -1 where unscored."""
    brain: Codes
    """The same without holes: what the sleeper does where the scorer wrote movement time or nothing."""
    names: tuple[str, ...]
    """The original annotation of every epoch: ``W``, ``1`` ... ``4``, ``R``, ``?``, ``Movement time``; ``""`` for a
    gap without annotation."""


def draw_sleep(
    statistics: CorpusStatistics, *, age: float, habit: SleepHabit, n_epochs: int, random: np.random.Generator
) -> Codes:
    """Stages of one sleep period, int8 [n_epochs], beginning with the first sleep epoch."""
    chain = statistics.chain(age)
    stages = np.empty(n_epochs, dtype=np.int8)
    stage = int(random.choice(N_STAGES, p=chain.first))
    position = 0
    last_rem_end: int | None = None
    while position < n_epochs:
        histogram = chain.lengths[part_of_night(position), stage]
        length_bin = int(random.choice(len(histogram), p=histogram))
        length = int(random.integers(BOUT_EDGES[length_bin], BOUT_EDGES[length_bin + 1]))
        length = 1 + int((length - 1) * np.exp(habit.length[stage]) + random.random())
        stages[position : position + length] = stage
        position += length
        if stage == REM:
            last_rem_end = position
        odds = chain.following[part_of_night(position), rem_clock(position, last_rem_end), stage]
        odds = odds * np.exp(habit.tilt)
        if position > EPOCHS_PER_HOUR:
            surplus = max(0.0, float(np.mean(stages[:position] == REM)) - statistics.rem_share)
            odds[REM] *= np.exp(-REM_REGULATION * surplus)
        stage = int(random.choice(N_STAGES, p=odds / odds.sum()))
    return stages


def draw_night(
    statistics: CorpusStatistics,
    *,
    age: float,
    habit: SleepHabit,
    random: np.random.Generator,
    hours: float | None = None,
) -> Night:
    """One night as the corpus records it, or ``hours`` of it with sleep in the middle."""
    cassette = statistics.corpus == "sedf-sc"
    if hours is None:
        spans, n_epochs = _natural_times(statistics, random, cassette)
    else:
        n_epochs = max(4, round(hours * EPOCHS_PER_HOUR))
        before, after = (max(1, round(n_epochs * random.uniform(0.03, 0.09))) for _ in range(2))
        spans = [(before, n_epochs - before - after)]
    brain = np.full(n_epochs, W, dtype=np.int8)
    for start, length in spans:
        brain[start : start + length] = draw_sleep(statistics, age=age, habit=habit, n_epochs=length, random=random)
    stages = brain.copy()
    names = _rechtschaffen_kales(brain, statistics, random)
    _hide_movements(stages, names, statistics, random)
    before = int(np.argmax(brain > 0))
    after = int(np.argmax(brain[::-1] > 0))
    match statistics.corpus:
        case "sedf-st":
            _hide_ends(stages, names, before, random)
        case "cinc2018":
            # real: 3 of 994 are scored from the first sample on
            lead = 0 if random.random() < SCORED_AT_ONCE else min(before, round(statistics.draw("lead_in", random)))
            _hide(stages, names, 0, lead)
        case "dcsm" | "shhs":
            if random.random() < 0.4:
                _hide(stages, names, 0, int(random.integers(0, max(1, before))))
            if random.random() < 0.4:
                _hide(stages, names, len(stages) - int(random.integers(0, max(1, after))), len(stages))
    return Night(stages=stages, brain=brain, names=tuple(names))


def _natural_times(
    statistics: CorpusStatistics, random: np.random.Generator, cassette: bool
) -> tuple[list[tuple[int, int]], int]:
    """Sleep periods (first epoch, length) and the length of the recording, in epochs."""
    main = round(statistics.draw("main_sleep", random))
    before = round(statistics.draw("wake_before", random))
    if not cassette:
        if statistics.corpus == "cinc2018":
            before += round(statistics.draw("lead_in", random))
        return [(before, main)], before + main + round(statistics.draw("wake_after", random))
    n_epochs = round(statistics.draw("recording", random))
    main = min(main, n_epochs - 2 * MARGIN)
    before = min(max(before, MARGIN), n_epochs - main - MARGIN)
    spans = [(before, main)]
    # a day and a night are recorded: there may be naps before and after the night
    nap, gap = round(statistics.draw("nap", random)), round(statistics.draw("nap_gap", random))
    if random.random() < statistics.nap_before and before - gap - nap >= MARGIN:
        spans.append((before - gap - nap, nap))
    nap, gap = round(statistics.draw("nap", random)), round(statistics.draw("nap_gap", random))
    if random.random() < statistics.nap_after and before + main + gap + nap + MARGIN <= n_epochs:
        spans.append((before + main + gap, nap))
    return spans, n_epochs


def _rechtschaffen_kales(brain: Codes, statistics: CorpusStatistics, random: np.random.Generator) -> list[str]:
    """The annotation names of the original files: N3 becomes a mix of stages 3 and 4 (two-state chain)."""
    plain = {W: "W", N1: "1", N2: "2", REM: "R"}
    luck = random.random(len(brain))
    # some people are scored with much stage 4, others with hardly any
    deepening = min(0.9, statistics.deep_from_3 * float(np.exp(random.normal(0, 0.8))))
    names: list[str] = []
    for code, chance in zip(brain.tolist(), luck.tolist(), strict=True):
        if code != N3:
            names.append(plain[code])
            continue
        previous = names[-1] if names else ""
        if previous == "4":
            names.append("3" if chance < statistics.shallow_from_4 else "4")
        else:
            names.append("4" if previous == "3" and chance < deepening else "3")
    return names


def _hide_movements(stages: Codes, names: list[str], statistics: CorpusStatistics, random: np.random.Generator) -> None:
    """Replace some epochs where a bout begins by movement time."""
    changes = np.flatnonzero(np.diff(stages)) + 1
    hours = len(changes) and (changes[-1] - changes[0]) / EPOCHS_PER_HOUR
    count = min(len(changes), int(random.poisson(statistics.movement_per_hour * hours)))
    for epoch in random.choice(changes, size=count, replace=False) if count else ():
        stages[epoch] = UNSCORED
        names[epoch] = "Movement time"


def _hide(stages: Codes, names: list[str], start: int, end: int) -> None:
    """Nothing is scored from ``start`` to ``end``."""
    stages[start:end] = UNSCORED
    names[start:end] = ["?"] * max(0, end - start)


def _hide_ends(stages: Codes, names: list[str], before: int, random: np.random.Generator) -> None:
    """Telemetry habits: unscored minutes before lights off, and now and then epochs without any annotation."""
    if random.random() < 0.55:
        lead = int(random.integers(0, max(1, before)))
        stages[:lead] = UNSCORED
        names[:lead] = ["?"] * lead
    if random.random() < 0.3 and len(stages) > 60:
        start = int(random.integers(10, len(stages) - 20))
        length = int(random.integers(1, 6))
        stages[start : start + length] = UNSCORED
        names[start : start + length] = [""] * length
