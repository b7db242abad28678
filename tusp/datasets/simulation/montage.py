"""The head as a whole montage sees it: electrodes as mixtures of the same sources, derivations at a corpus's rates.

Every electrode sees the frontal and the posterior source with its own weights, the background of its side of the head,
noise of its own, and the eyes from its own side; a derivation is the difference of two electrodes. So neighbours look
alike, both sides differ, bipolar derivations are small, and the two EOG channels move in opposite directions with the
gaze and together with the frontal EEG.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import gcd
from typing import Final

import numpy as np
from scipy import signal

from tusp.datasets.simulation.artefacts import add_pops, body_movements
from tusp.datasets.simulation.hypnogram import Night
from tusp.datasets.simulation.person import Person
from tusp.datasets.simulation.processes import (
    EEG_HZ,
    BandNoise,
    Curve,
    Samples,
    alternating,
    bump,
    power_law,
    smooth,
    to_samples,
    wander,
)
from tusp.datasets.simulation.signals import Activity, Sources, draw_sources

HIGHEST_HZ: Final = 70.0
"""Amplifiers pass no more."""


@dataclass(frozen=True, kw_only=True)
class Electrode:
    """How much one electrode sees."""

    frontal: float
    posterior: float
    gaze: float = 0.0
    """Positive on the left."""
    blink: float = 0.0
    muscle: float = 1.0
    side: int = 0
    """-1 left, 0 middle, 1 right."""
    eye: float = 0.0
    """Share of the eye's own background."""


ELECTRODES: Final = {
    "FP1": Electrode(frontal=1.00, posterior=0.06, gaze=0.10, blink=1.10, muscle=1.2, side=-1),
    "FP2": Electrode(frontal=1.00, posterior=0.06, gaze=-0.10, blink=1.10, muscle=1.2, side=1),
    "F3": Electrode(frontal=1.05, posterior=0.16, gaze=0.07, blink=0.32, side=-1),
    "F4": Electrode(frontal=1.05, posterior=0.16, gaze=-0.07, blink=0.32, side=1),
    "C3": Electrode(frontal=0.88, posterior=0.42, gaze=0.03, blink=0.08, muscle=0.7, side=-1),
    "C4": Electrode(frontal=0.88, posterior=0.42, gaze=-0.03, blink=0.08, muscle=0.7, side=1),
    "O1": Electrode(frontal=0.22, posterior=1.20, muscle=0.9, side=-1),
    "O2": Electrode(frontal=0.22, posterior=1.20, muscle=0.9, side=1),
    # behind the ears: some of everything, so that a reference is never silent
    "M1": Electrode(frontal=0.06, posterior=0.14, gaze=0.05, muscle=0.7, side=-1),
    "M2": Electrode(frontal=0.06, posterior=0.14, gaze=-0.05, muscle=0.7, side=1),
    # beside the eyes, the left one a finger below, the right one a finger above
    "E1": Electrode(frontal=0.44, posterior=0.12, gaze=0.60, blink=-0.30, muscle=1.1, side=-1, eye=1.0),
    "E2": Electrode(frontal=0.44, posterior=0.12, gaze=-0.60, blink=0.45, muscle=1.1, side=1, eye=1.0),
}
"""Positions of the 10-20 system; A1 and A2 are M1 and M2."""

SIDE_SHARE: Final = 0.30
OWN_SHARE: Final = 0.28
"""RMS of the background of one side of the head, and of one electrode alone, as shares of the person's background."""


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """One channel: the difference of two electrodes at a sampling rate."""

    plus: str
    minus: str
    rate_hz: int


@dataclass(kw_only=True)
class Potentials:
    """One night at all electrodes of a montage, microvolts at 100 Hz, artefacts included."""

    electrodes: dict[str, Samples]
    activity: Activity
    movement: Curve
    muscle: Curve
    """Muscle in the EEG, microvolts RMS a second."""
    line_hz: float
    line_uv: float
    chance: np.random.Generator
    _fast: dict[int, BandNoise] = field(default_factory=dict)
    _line: dict[int, Samples] = field(default_factory=dict)

    @property
    def seconds(self) -> int:
        """Length of the night."""
        return len(self.movement)

    def derive(self, derivation: Derivation) -> Samples:
        """One channel in microvolts, float32 [seconds * rate]: resampled, with what is above the sources' 50 Hz."""
        rate = derivation.rate_hz
        slow = self.electrodes[derivation.plus] - self.electrodes[derivation.minus]
        add_pops(slow, self.seconds, self.chance)
        common = gcd(rate, EEG_HZ)
        up, down = rate // common, EEG_HZ // common
        channel: Samples = slow if rate == EEG_HZ else signal.resample_poly(slow, up, down).astype(np.float32)
        channel = channel[: self.seconds * rate]
        highest = min(HIGHEST_HZ, 0.45 * rate)
        if highest > 0.5 * EEG_HZ:
            if rate not in self._fast:
                self._fast[rate] = BandNoise(
                    self.chance, self.seconds * rate, power_law(-0.1), 0.46 * EEG_HZ, highest, rate_hz=rate
                )
            level = 0.35 + 0.55 * self.muscle
            channel += to_samples(level, rate) * self._fast[rate].another()
        if self.line_hz < 0.5 * rate:
            channel += np.float32(self.chance.uniform(0.3, 1.0)) * self._mains(rate)
        return channel

    def _mains(self, rate: int) -> Samples:
        if rate not in self._line:
            wandering = np.cumsum(self.chance.normal(0, 2e-3, self.seconds + 1))
            turns = np.interp(np.arange(self.seconds * rate) / rate, np.arange(self.seconds + 1), wandering)
            turns += np.arange(self.seconds * rate) * (self.line_hz / rate) % 1.0
            self._line[rate] = np.float32(self.line_uv) * np.cos(2 * np.pi * turns).astype(np.float32)
        return self._line[rate]


def draw_potentials(
    night: Night, person: Person, seeds: np.random.SeedSequence, *, electrodes: Iterable[str], line_hz: float
) -> Potentials:
    """Draw one night at the given electrodes (names of :data:`ELECTRODES`)."""
    sources = draw_sources(night, person, seeds)
    random = sources.chance
    names = sorted(set(electrodes))
    found = _mix(sources, person, names, random)
    moving = body_movements(night, sources.activity[0], random)
    muscle = _spoil(found, sources.activity, moving, person, random)
    return Potentials(
        electrodes=found,
        activity=sources.activity,
        movement=moving,
        muscle=muscle,
        line_hz=line_hz,
        line_uv=person.line_uv,
        chance=random,
    )


def _mix(sources: Sources, person: Person, names: list[str], random: np.random.Generator) -> dict[str, Samples]:
    wake, n1, n2, n3, rem = sources.activity
    n_samples = len(sources.frontal)
    pink = BandNoise(random, n_samples, power_law(person.slope - 0.3), 0.3, 49)
    level = to_samples(person.background_uv * (0.85 * wake + 0.95 * n1 + 1.0 * n2 + 1.15 * n3 + 0.75 * rem))
    sides = {-1: level * pink.first(), 1: level * pink.another()}
    found = {}
    for name in names:
        seen = ELECTRODES[name]
        potential = np.float32(seen.frontal) * sources.frontal
        potential += np.float32(seen.posterior) * sources.posterior
        potential += np.float32(OWN_SHARE) * level * pink.another()
        if seen.side:
            potential += np.float32(SIDE_SHARE) * sides[seen.side]
        if seen.gaze:
            potential += np.float32(seen.gaze * person.eog_gain) * sources.gaze
        if seen.blink:
            potential += np.float32(seen.blink) * sources.blinks
        if seen.eye:
            # both eyes see much the same face
            own = sources.eye_background if seen.side < 0 else np.roll(sources.eye_background, 7 * EEG_HZ)
            potential += np.float32(0.7 * seen.eye) * own
        found[name] = potential
    return found


def _spoil(
    found: dict[str, Samples], activity: Activity, moving: Curve, person: Person, random: np.random.Generator
) -> Curve:
    """Muscle, movement and sweat at every electrode; returns the level of muscle."""
    wake, n1, n2, n3, rem = activity
    seconds = len(moving)
    n_samples = seconds * EEG_HZ
    noise = BandNoise(random, n_samples, power_law(-0.3), 18, 49.5)
    tone = 1.0 * wake + 0.20 * n1 + 0.25 * n2 + 0.25 * n3 + 0.22 * rem
    level = 0.75 * person.muscle_uv * tone * wander(random, seconds, every_s=20, spread=0.45) + 11 * moving
    muscle = to_samples(level)
    sway = BandNoise(random, n_samples, bump(0.6, 0.6), 0.3, 4)
    swaying = to_samples(40.0 * moving * wander(random, seconds, every_s=2, spread=0.5))
    for name, potential in found.items():
        seen = ELECTRODES[name]
        potential += np.float32(seen.muscle) * muscle * noise.another()
        potential += np.float32(1.5 if seen.eye else 1.0) * swaying * sway.another()
    if person.sweats:
        drift = BandNoise(random, n_samples, bump(0.25, 0.12), 0.1, 0.6)
        spells = smooth(alternating(random, seconds, mean_on_s=1500, mean_off_s=9000).astype(np.float64), 60.0)
        envelope = to_samples(20.0 * spells)
        for potential in found.values():
            potential += envelope * drift.another()
    result: Curve = level
    return result
