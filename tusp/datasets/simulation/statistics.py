"""What was measured on real hypnograms, and how: stage bouts, transitions, times. The numbers lie in statistics.json.

A semi-Markov chain needs two tables: which stage follows a stage, and how long a bout lasts. Both change over the
night (N3 early, REM late) and with age (less N3), and REM comes in cycles. So the next stage is counted by age group,
by hours since sleep onset, and by minutes since the last REM epoch ("REM clock"; a second one runs from sleep onset
to the first REM epoch); the bout length by age group and hours. Cells with few bouts lean on the coarser tables
(:data:`PRIOR_BOUTS`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from tusp.platform.stages import N_STAGES, REM, UNSCORED, W

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int8]

HOUR_EDGES: Final = (0.0, 1.5, 3.0, 4.5, 6.0, 8.0)
"""Lower edges, in hours since sleep onset, of the parts of the night."""

REM_CLOCK_EDGES: Final = (0.0, 10.0, 45.0, 75.0)
"""Lower edges, in minutes since the last REM epoch, of the REM clock."""

FIRST_REM_EDGES: Final = (0.0, 45.0, 75.0)
"""Lower edges, in minutes since sleep onset, of the clock that runs until the first REM epoch."""

N_CLOCKS: Final = len(REM_CLOCK_EDGES) + len(FIRST_REM_EDGES)

BOUT_EDGES: Final = (1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 22, 30, 40, 55, 75, 101, 140, 200)
"""Edges of the bout-length histograms in epochs; a bin holds ``edge <= length < next edge``."""

QUANTILES: Final = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
"""Probabilities at which times and ages are stored."""

LONG_WAKE: Final = 100
"""Epochs: a longer bout of wake parts a nap from the night."""

PRIOR_BOUTS: Final = 8.0
"""Weight, in bouts, of the coarser table a sparse cell leans on."""


@dataclass(frozen=True, kw_only=True)
class Bout:
    """Consecutive epochs of one stage. ``start`` counts epochs from sleep onset."""

    stage: int
    start: int
    length: int


def sleep_period(stages: Codes) -> Codes:
    """The epochs from the first to the last sleep epoch, unscored ones left out (empty when nobody sleeps)."""
    asleep = np.flatnonzero(stages > 0)
    if not len(asleep):
        return np.zeros(0, dtype=np.int8)
    period = stages[asleep[0] : asleep[-1] + 1]
    scored: Codes = period[period != UNSCORED]
    return scored


def bouts(stages: Codes) -> list[Bout]:
    """The bouts of a night's sleep period (int8 [n_epochs] in, any wake around it is ignored)."""
    period = sleep_period(stages)
    if not len(period):
        return []
    starts = np.r_[0, np.flatnonzero(np.diff(period)) + 1]
    lengths = np.diff(np.r_[starts, len(period)])
    return [
        Bout(stage=int(period[start]), start=start, length=length)
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)
    ]


def main_sleep(period: Codes) -> tuple[int, int]:
    """First epoch and end of the longest stretch of a sleep period between wakes longer than :data:`LONG_WAKE`.

    The rest are naps: many cassette nights, recorded over a day and a night, have one.
    """
    breaks = [bout for bout in bouts(period) if bout.stage == W and bout.length > LONG_WAKE]
    starts = [0, *(bout.start + bout.length for bout in breaks)]
    ends = [*(bout.start for bout in breaks), len(period)]
    return max(zip(starts, ends, strict=True), key=lambda stretch: stretch[1] - stretch[0])


def part_of_night(epochs_since_onset: int) -> int:
    """Index into :data:`HOUR_EDGES`."""
    return int(np.searchsorted(HOUR_EDGES, epochs_since_onset / 120, side="right")) - 1


def rem_clock(position: int, last_rem_end: int | None) -> int:
    """Which clock cell holds at ``position`` (epochs since onset), REM having last ended there (None: never yet)."""
    if last_rem_end is None:
        return len(REM_CLOCK_EDGES) + int(np.searchsorted(FIRST_REM_EDGES, position / 2, side="right")) - 1
    return int(np.searchsorted(REM_CLOCK_EDGES, (position - last_rem_end) / 2, side="right")) - 1


def transition_table(nights: Sequence[Codes]) -> Floats:
    """Probability [stage, next stage] over all nights; rows of stages that never end are 0."""
    counts = np.zeros((N_STAGES, N_STAGES))
    for night in nights:
        sequence = [bout.stage for bout in bouts(night)]
        np.add.at(counts, (sequence[:-1], sequence[1:]), 1)
    total = counts.sum(axis=1, keepdims=True)
    shares: Floats = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    return shares


def stage_shares(night: Codes) -> Floats:
    """Share of each stage [5] in the sleep period of one night."""
    period = sleep_period(night)
    return np.bincount(period, minlength=N_STAGES) / max(1, len(period))


def bout_lengths(nights: Sequence[Codes]) -> Floats:
    """Mean bout length of each stage [5] in epochs over all nights."""
    found = [bout for night in nights for bout in bouts(night)]
    stages = np.array([bout.stage for bout in found])
    lengths = np.array([bout.length for bout in found], dtype=np.float64)
    counts = np.bincount(stages, minlength=N_STAGES)
    return np.bincount(stages, weights=lengths, minlength=N_STAGES) / np.maximum(1, counts)


def summary(nights: Sequence[Codes]) -> dict[str, Floats]:
    """What a simulation must have in common with real nights.

    Returns:
        ``shares`` [stage] (mean over nights), ``early_shares`` and ``late_shares`` [stage] (first and last third of
        the sleep period), ``bout_lengths`` [stage] (mean, epochs) and ``transitions`` [stage, next stage].
    """
    periods = [sleep_period(night) for night in nights]

    def mean_share(parts: list[Codes]) -> Floats:
        shares: Floats = np.mean([np.bincount(part, minlength=N_STAGES) / max(1, len(part)) for part in parts], axis=0)
        return shares

    return {
        "shares": mean_share(periods),
        "early_shares": mean_share([period[: len(period) // 3] for period in periods]),
        "late_shares": mean_share([period[-(len(period) // 3) :] for period in periods]),
        "bout_lengths": bout_lengths(nights),
        "transitions": transition_table(nights),
    }


def measure_chain(nights: Sequence[Codes], *, whole: bool = False, prior_bouts: float = PRIOR_BOUTS) -> dict[str, Any]:
    """Next-stage probabilities and bout-length histograms of a group of nights, in the layout of statistics.json.

    Args:
        nights: stage codes, int8 [n_epochs] each.
        whole: measure the whole sleep period with its long wakes; else the main sleep only (days with naps).
        prior_bouts: weight of the coarser table a sparse cell leans on.

    Returns:
        ``next`` [part of night, REM clock, stage, next stage] and ``lengths`` [part of night, stage, length bin]
        (probabilities), ``first`` [stage] (the stage that sleep begins with).
    """
    parts, clocks, bins = len(HOUR_EDGES), N_CLOCKS, len(BOUT_EDGES) - 1
    following = np.zeros((parts, clocks, N_STAGES, N_STAGES))
    lengths = np.zeros((parts, N_STAGES, bins))
    first = np.zeros(N_STAGES)
    for night in nights:
        period = sleep_period(night)
        start, stop = (0, len(period)) if whole else main_sleep(period)
        sequence = bouts(period[start:stop])
        last_rem_end: int | None = None
        if sequence:
            first[sequence[0].stage] += 1
        for index, bout in enumerate(sequence):
            length_bin = int(np.searchsorted(BOUT_EDGES, bout.length, side="right")) - 1
            lengths[part_of_night(bout.start), bout.stage, min(length_bin, bins - 1)] += 1
            if index + 1 < len(sequence):
                end = bout.start + bout.length
                last_rem_end = end if bout.stage == REM else last_rem_end
                clock = rem_clock(end, last_rem_end)
                following[part_of_night(end), clock, bout.stage, sequence[index + 1].stage] += 1
    by_stage = _normalised(following.sum(axis=(0, 1)))
    by_part = _normalised(following.sum(axis=1) + prior_bouts * by_stage)
    by_length = _normalised(lengths.sum(axis=0))
    return {
        "first": np.round(_normalised(first), 3).tolist(),
        "next": np.round(_normalised(following + prior_bouts * by_part[:, None]), 3).tolist(),
        "lengths": np.round(_normalised(lengths + prior_bouts * by_length), 3).tolist(),
    }


def _normalised(counts: Floats) -> Floats:
    total = counts.sum(axis=-1, keepdims=True)
    shares: Floats = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    return shares


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The semi-Markov tables of one age group."""

    youngest: float
    oldest: float
    first: Floats
    """[stage]"""
    following: Floats
    """[part of night, REM clock, stage, next stage]"""
    lengths: Floats
    """[part of night, stage, length bin]"""


@dataclass(frozen=True, kw_only=True)
class CorpusStatistics:
    """Everything the simulation knows about the nights of one corpus."""

    corpus: str
    nights: int
    persons: int
    chains: Sequence[Chain]
    female_share: float
    rem_share: float
    """Mean share of REM in the sleep period."""
    nap_before: float
    """Share of nights with a nap before the main sleep."""
    nap_after: float
    movement_per_hour: float
    """Single unscored epochs ("Movement time") per hour of sleep period."""
    deep_from_3: float
    """Probability that an epoch of stage 3 is followed by stage 4, where N3 goes on."""
    shallow_from_4: float
    quantiles: dict[str, Floats]
    """Age (years), main sleep, nap, wake between them, wake before, wake after, recording, and what is unscored
    before the first stage (epochs)."""
    variability: float = 1.0
    """How much people and nights depart from the tables, as a multiple of what Sleep-EDF's do."""
    ambiguity: float = 1.0
    """How unclear the corpus's stages are beside those of Sleep-EDF."""

    def chain(self, age: float) -> Chain:
        """The tables for a person of this age (the nearest group)."""
        for chain in self.chains:
            if age <= chain.oldest:
                return chain
        return self.chains[-1]

    def draw(self, what: str, random: np.random.Generator) -> float:
        """A value of the measured distribution ``what``."""
        return float(np.interp(random.random(), QUANTILES, self.quantiles[what]))


@dataclass(frozen=True, kw_only=True)
class Loan:
    """Numbers of a corpus whose own labels are not at hand: another's, and ages and sexes that are assumed."""

    ages: tuple[float, float, float, float]
    """Lowest, mean, highest, and standard deviation (years)."""
    female_share: float
    chain_of: str = ""
    """Whose transitions and bouts (empty: its own)."""
    times_of: str = ""
    """Whose times around and of the sleep period (empty: its own)."""
    variability: float = 1.0
    ambiguity: float = 1.0
    """How unclear the corpus's stages are beside those of Sleep-EDF."""

    def ages_at(self) -> Floats:
        """The assumed ages at :data:`QUANTILES`: normal, cut at the ends."""
        youngest, mean, oldest, deviation = self.ages
        points = ndtri(np.clip(QUANTILES, 0.01, 0.99)) * deviation + mean
        ages: Floats = np.clip(points, youngest, oldest)
        ages[[0, -1]] = youngest, oldest
        return ages


LOANS: Final[Mapping[str, Loan]] = {
    # hypnograms at hand, ages not
    "cinc2018": Loan(ages=(18, 55, 90, 14), female_share=0.35, variability=1.5),
    # what five people agree on is clearer than what one person wrote
    "dod-h": Loan(ages=(18, 35, 65, 8), female_share=0.25, variability=0.8, ambiguity=0.6),
    # patients of a sleep clinic
    "dcsm": Loan(ages=(18, 50, 85, 15), female_share=0.45, chain_of="cinc2018", times_of="cinc2018", variability=1.5),
    # people with sleep apnoea
    "dod-o": Loan(
        ages=(20, 46, 80, 14),
        female_share=0.36,
        chain_of="cinc2018",
        times_of="cinc2018",
        variability=1.5,
        ambiguity=0.6,
    ),
    # recorded at home and scored by the same rules as the cassette nights; everybody is over 40
    "shhs": Loan(ages=(40, 63, 89, 11), female_share=0.52, chain_of="sedf-sc", times_of="cinc2018"),
}
"""Corpora besides the two of Sleep-EDF. Ages and sexes are assumptions about such people, not measurements."""


@lru_cache
def _entries() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("statistics.json").read_text(encoding="utf-8")
    entries: dict[str, Any] = json.loads(text)["corpora"]
    return entries


def load_spread(corpus: str) -> dict[str, tuple[Floats, Floats]]:
    """Lowest and highest value of every :func:`summary` figure over groups of 20 real nights drawn by person."""
    return {name: (np.array(low), np.array(high)) for name, (low, high) in _entries()[corpus]["spread"].items()}


@lru_cache
def load_statistics(corpus: str) -> CorpusStatistics:
    """The committed numbers of one corpus, or those it borrows (:data:`LOANS`).

    Raises:
        KeyError: no numbers for this corpus.
    """
    loan = LOANS.get(corpus)
    if loan is None:
        return _measured(corpus, corpus)
    own = _measured(loan.chain_of or corpus, corpus)
    times = _measured(loan.times_of or corpus, corpus)
    return replace(
        own,
        quantiles={**times.quantiles, "age": loan.ages_at()},
        female_share=loan.female_share,
        nap_before=times.nap_before,
        nap_after=times.nap_after,
        variability=loan.variability,
        ambiguity=loan.ambiguity,
    )


def _measured(source: str, corpus: str) -> CorpusStatistics:
    entry = _entries()[source]
    chains = [
        Chain(
            youngest=group["ages"][0],
            oldest=group["ages"][1],
            first=_normalised(np.array(group["first"])),
            following=_normalised(np.array(group["next"])),
            lengths=_normalised(np.array(group["lengths"])),
        )
        for group in entry["groups"]
    ]
    return CorpusStatistics(
        corpus=corpus,
        nights=entry["nights"],
        persons=entry["persons"],
        chains=chains,
        female_share=entry.get("female_share", 0.5),
        rem_share=entry["rem_share"],
        nap_before=entry["nap_before"],
        nap_after=entry["nap_after"],
        movement_per_hour=entry["movement_per_hour"],
        deep_from_3=entry["deep_from_3"],
        shallow_from_4=entry["shallow_from_4"],
        quantiles={name: np.array(values) for name, values in entry["quantiles"].items()},
    )
