"""Channels besides EEG and EOG: heart, breath, oxygen, muscle. Simple, but alive: they follow stages and movements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from tusp.datasets.simulation.processes import BandNoise, Curve, Samples, power_law, smooth, to_samples, wander
from tusp.datasets.simulation.signals import Shown

EVENTS_AN_HOUR: Final = {"cinc2018": 18.0, "dcsm": 12.0, "shhs": 9.0, "dod-o": 22.0, "dod-h": 2.0}
"""Median of breathing events per hour of sleep. A choice, not a measurement."""

KINDS: Final = ("hypopnea", "obstructiveapnea", "centralapnea", "mixedapnea")
KIND_SHARES: Final = (0.62, 0.22, 0.12, 0.04)


@dataclass(frozen=True, kw_only=True)
class BreathingEvent:
    """One apnoea or hypopnoea, in seconds from the first sample."""

    start: float
    duration: float
    kind: str


def breathing_events(corpus: str, shown: Shown, random: np.random.Generator) -> list[BreathingEvent]:
    """Events of a night, ascending and apart, in sleep only; people differ a lot (log-normal)."""
    asleep = 1 - shown.activity[0]
    per_hour = EVENTS_AN_HOUR[corpus] * float(np.exp(random.normal(0, 0.7)))
    rate = np.minimum(per_hour, 60.0) / 3600 * asleep * (1 + 0.6 * shown.activity[4])
    found: list[BreathingEvent] = []
    free = 0.0
    for second in np.flatnonzero(random.random(len(rate)) < rate).tolist():
        duration = float(np.clip(random.gamma(6, 3.6), 10, 60))
        if second < free or second + duration + 5 > len(rate):
            continue
        start = second + float(random.random())
        found.append(BreathingEvent(start=start, duration=duration, kind=str(random.choice(KINDS, p=KIND_SHARES))))
        free = second + duration + 12
    return found


def breath_depth(seconds: int, events: Sequence[BreathingEvent]) -> Curve:
    """How deep every breath is: 1 outside events, 0.4 in hypopnoeas, almost nothing in apnoeas."""
    depth = np.ones(seconds)
    for event in events:
        depth[int(event.start) : int(event.start + event.duration)] = 0.4 if event.kind == "hypopnea" else 0.05
    result: Curve = smooth(depth, 1.0)
    return result


def breath(shown: Shown, depth: Curve, random: np.random.Generator, rate_hz: int) -> Samples:
    """Breathing, amplitude about 1: regular in deep sleep, restless awake and in REM; float32 [seconds * rate]."""
    wake, _, _, _, rem = shown.activity
    seconds = len(wake)
    unrest = 0.05 + 0.25 * (wake + rem)
    hz = 0.25 * np.exp(unrest * random.normal(0, 0.6, seconds))
    turns = np.cumsum(hz)
    phase = np.interp(np.arange(seconds * rate_hz) / rate_hz, np.arange(seconds) + 1, turns)
    swing = np.sin(2 * np.pi * phase).astype(np.float32)
    level = depth * wander(random, seconds, every_s=15, spread=0.25) * (1 + shown.movement)
    result: Samples = to_samples(level, rate_hz) * swing
    return result


def saturation(seconds: int, events: Sequence[BreathingEvent], random: np.random.Generator) -> Curve:
    """Oxygen saturation in percent at one value a second: dips half a minute after events, whole percents."""
    level = 96.5 + 0.8 * np.log(wander(random, seconds, every_s=900, spread=1.0))
    for event in events:
        start = int(event.start + 15)
        depth = random.uniform(2, 3 + event.duration / 6)
        t = np.arange(60)[: max(0, seconds - start)]
        level[start : start + len(t)] -= depth * np.sin(np.pi * t / 60) ** 2
    return np.clip(np.round(level), 50, 100)


def heart(shown: Shown, random: np.random.Generator, rate_hz: int) -> Samples:
    """Electrocardiogram with R waves of 1; float32 [seconds * rate]."""
    seconds = len(shown.movement)
    beats = int(seconds * 1.4) + 2
    gaps = random.normal(0.95, 0.03, beats) + 0.05 * np.sin(np.arange(beats) * 2 * np.pi / 4.2)
    spots = (np.cumsum(gaps) * rate_hz).astype(int)
    t = np.arange(int(0.5 * rate_hz)) / rate_hz - 0.2
    wave = np.exp(-0.5 * (t / 0.011) ** 2) - 0.22 * np.exp(-0.5 * ((t - 0.03) / 0.012) ** 2)
    wave += 0.12 * np.exp(-0.5 * ((t + 0.15) / 0.025) ** 2) + 0.25 * np.exp(-0.5 * ((t - 0.25) / 0.04) ** 2)
    spots = spots[spots + len(t) < seconds * rate_hz]
    trace = 0.02 * to_samples(random.standard_normal(seconds), rate_hz)
    # beats are further apart than the wave is long
    trace[spots[:, None] + np.arange(len(t))] += wave.astype(np.float32)
    return trace


def pulse(seconds: int, random: np.random.Generator) -> Curve:
    """Heart rate in beats a minute at one value a second."""
    return np.round(63 * wander(random, seconds, every_s=120, spread=0.06))


def muscle_waveform(tone: Curve, random: np.random.Generator, rate_hz: int) -> Samples:
    """A muscle's waveform whose mean rectified value follows the tone; float32 [seconds * rate]."""
    noise = BandNoise(random, len(tone) * rate_hz, power_law(-0.2), 10, 0.45 * rate_hz, rate_hz=rate_hz)
    return to_samples(1.25 * tone, rate_hz) * noise.first()


def leg_muscle(seconds: int, random: np.random.Generator) -> Curve:
    """Tone of a leg: little, and kicks."""
    kicks = (random.random(seconds) < 20 / 3600) * random.exponential(30.0, seconds)
    result: Curve = 1.5 + smooth(kicks, 1.0)
    return result


def snore_level(shown: Shown, random: np.random.Generator) -> Curve:
    """How loud somebody snores, 0 to about 1 a second."""
    asleep = 1 - shown.activity[0]
    loud = wander(random, len(asleep), every_s=300, spread=0.8)
    result: Curve = asleep * loud * (1 + np.sin(2 * np.pi * 0.25 * np.arange(len(asleep)))) / 2
    return result


def stretched(values: Curve, rate_hz: int) -> npt.NDArray[np.float32]:
    """A value a second held for the whole second; float32 [seconds * rate]."""
    return np.repeat(values.astype(np.float32), rate_hz)
