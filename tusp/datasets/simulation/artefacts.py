"""What spoils recordings: muscle, movement, electrode pops, sweat drift, mains residue, loose electrodes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tusp.datasets.simulation.hypnogram import Night
from tusp.datasets.simulation.person import Person
from tusp.datasets.simulation.processes import (
    BandNoise,
    Curve,
    Samples,
    add_event,
    alternating,
    bump,
    event_times,
    power_law,
    smooth,
    times,
    to_samples,
    wander,
)
from tusp.platform.stages import EPOCH_SECONDS, UNSCORED, W


def add_artefacts(
    frontal: Samples,
    posterior: Samples,
    eyes: Samples,
    *,
    night: Night,
    activity: npt.NDArray[np.float64],
    person: Person,
    random: np.random.Generator,
) -> Curve:
    """Spoil the channels in place; returns body movement, 0 to 1 a second."""
    channels = (frontal, posterior, eyes)
    wake, n1, n2, n3, rem = activity
    seconds = activity.shape[1]
    moving = body_movements(night, wake, random)

    # muscle: in wake, at movements, hardly in REM
    muscle = BandNoise(random, len(frontal), power_law(-0.3), 18, 49.5)
    tone = 1.0 * wake + 0.20 * n1 + 0.25 * n2 + 0.25 * n3 + 0.22 * rem
    level = person.muscle_uv * tone * wander(random, seconds, every_s=20, spread=0.45) + 14 * moving
    envelope = to_samples(level)
    for channel, gain in zip(channels, (1.0, 0.7, 1.1), strict=True):
        channel += np.float32(gain) * envelope * muscle.another()

    sway = BandNoise(random, len(frontal), bump(0.6, 0.6), 0.3, 4)
    envelope = to_samples(moving * wander(random, seconds, every_s=2, spread=0.5))
    for channel, gain in zip(channels, (55.0, 40.0, 90.0), strict=True):
        channel += np.float32(gain) * envelope * sway.another()

    for channel in channels:
        add_pops(channel, seconds, random)
    if person.sweats:
        drift = BandNoise(random, len(frontal), bump(0.25, 0.12), 0.1, 0.6)
        spells = smooth(alternating(random, seconds, mean_on_s=1500, mean_off_s=9000).astype(np.float64), 60.0)
        envelope = to_samples(spells)
        for channel, gain in zip(channels, (28.0, 18.0, 35.0), strict=True):
            channel += np.float32(gain) * envelope * drift.another()

    # 50 Hz sampled at 100 Hz: a beat as slow as the mains' distance from 50 Hz
    beat = np.cos(2 * np.pi * np.cumsum(random.normal(0, 2e-3, seconds)) + random.uniform(0, 6.28))
    line = to_samples(person.line_uv * beat)
    line[1::2] *= -1
    for channel in channels:
        channel += np.float32(random.uniform(0.3, 1.0)) * line
    return moving


def body_movements(night: Night, wake: Curve, random: np.random.Generator) -> Curve:
    """Body movement, 0 to 1 a second: where wake begins, at movement time, in long wake, rarely elsewhere."""
    seconds = len(wake)
    moving = np.zeros(seconds)
    rate = 0.05 / 60 + 0.5 / 60 * wake
    long_wake = ndimage.minimum_filter1d((night.brain == W).astype(np.int8), 81)
    rate = rate + 2.0 / 60 * np.repeat(long_wake, EPOCH_SECONDS)
    spots = event_times(random, rate)
    wakes = np.flatnonzero((night.brain[1:] == W) & (night.brain[:-1] != W)) + 1
    spots = np.r_[spots, (wakes[random.random(len(wakes)) < 0.6] + random.uniform(-0.1, 0.4)) * EPOCH_SECONDS]
    labelled = np.array([name == "Movement time" for name in night.names])
    labelled_epochs = np.flatnonzero(labelled & (night.stages == UNSCORED))
    spots = np.r_[spots, (labelled_epochs + 0.2) * EPOCH_SECONDS]
    durations = np.r_[random.gamma(2.0, 2.2, len(spots) - len(labelled_epochs)), np.full(len(labelled_epochs), 20.0)]
    strengths = random.uniform(0.3, 1.0, len(spots))
    for spot, duration, strength in zip(spots.tolist(), durations.tolist(), strengths.tolist(), strict=True):
        start = max(0, int(spot))
        end = min(seconds, start + 1 + int(duration))
        moving[start:end] = np.maximum(moving[start:end], strength)
    return ndimage.gaussian_filter1d(moving, 0.8)


def add_pops(channel: Samples, seconds: int, random: np.random.Generator) -> None:
    """Electrode pops, and rarely a loose electrode: minutes of drift into saturation."""
    for onset in event_times(random, np.full(seconds, 1.2 / 3600)).tolist():
        t = times(2.5)
        add_event(channel, onset, random.choice([-1, 1]) * random.uniform(80, 350) * np.exp(-t / 0.5))
    if random.random() < 0.05:
        duration = float(random.uniform(20, 240))
        t = times(duration)
        jumps = np.cumsum((random.random(len(t)) < 0.01) * random.normal(0, 300, len(t)))
        add_event(channel, float(random.uniform(0, seconds)), jumps)
