"""Signals of one night with what a scorer sees: Fpz-Cz, Pz-Oz and horizontal EOG at 100 Hz, and the slow channels.

What is drawn where follows the scoring rules (Rechtschaffen & Kales 1968; AASM manual): alpha, blinks and saccades
awake, theta, slow eye movements and vertex waves in N1, spindles and K-complexes in N2, slow waves in N3, low mixed
EEG, sawtooth waves and bursts of rapid eye movements in REM. The brain does not keep to 30-s epochs: stages change
inside epochs, fade into each other, and many epochs carry signs of a neighbouring stage, as they do in real nights,
where two scorers agree on about four epochs of five.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from scipy import ndimage, signal

from tusp.datasets.simulation.artefacts import add_artefacts
from tusp.datasets.simulation.hypnogram import Night
from tusp.datasets.simulation.person import Person
from tusp.datasets.simulation.processes import (
    EEG_HZ,
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
from tusp.platform.stages import EPOCH_SECONDS, N_STAGES, W

LOOKALIKES: Final = (
    # stage: what its unclear epochs look like, and how often [W, N1, N2, N3, REM]
    (0.00, 0.90, 0.05, 0.00, 0.05),
    (0.40, 0.00, 0.42, 0.00, 0.18),
    (0.05, 0.40, 0.00, 0.45, 0.10),
    (0.00, 0.00, 1.00, 0.00, 0.00),
    (0.08, 0.57, 0.35, 0.00, 0.00),
)
UNCLEAR_SHARE: Final = (0.22, 0.66, 0.32, 0.42, 0.26)
"""Share of the epochs of each stage that carry signs of another one."""

Activity = npt.NDArray[np.float64]
"""[stage, second]"""


class Shown(Protocol):
    """What slow channels follow."""

    @property
    def activity(self) -> Activity:
        """[stage, second]"""

    @property
    def movement(self) -> Curve:
        """Body movement, 0 to 1 a second."""


@dataclass(frozen=True, kw_only=True)
class Signals:
    """One night's channels in their physical units."""

    frontal: Samples
    """EEG Fpz-Cz, microvolts at 100 Hz."""
    posterior: Samples
    """EEG Pz-Oz, microvolts at 100 Hz."""
    eyes: Samples
    """EOG horizontal, microvolts at 100 Hz."""
    activity: Activity
    """How much of each stage the sleeper shows, [stage, second]; rows sum to 1."""
    movement: Curve
    """Body movement, 0 to 1 a second."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What the head gives off in one night, before any artefact: microvolts at 100 Hz as Fpz-Cz and Pz-Oz see it."""

    frontal: Samples
    posterior: Samples
    eye_background: Samples
    """What an eye electrode shows without any movement."""
    gaze: Samples
    """Saccades, rapid eye movements and rolling eyes, as the horizontal EOG sees them."""
    blinks: Samples
    activity: Activity
    chance: np.random.Generator
    """For the artefacts, which come last."""


def draw_sources(night: Night, person: Person, seeds: np.random.SeedSequence) -> Sources:
    """Draw what the sleeper's head gives off.

    Args:
        night: what the sleeper does.
        person: whose traits shape it.
        seeds: parts of the signal get streams of their own, so a change in one leaves the others alone.
    """
    states, rhythms, eyes_stream, events, artefacts = (np.random.default_rng(s) for s in seeds.spawn(5))
    n_samples = len(night.brain) * EPOCH_SECONDS * EEG_HZ
    activity = stage_activity(night.brain, person, states)
    wake = activity[0]
    closed = _eyes_closed(night.brain, states)

    frontal, posterior = _rhythms(activity, closed, person, rhythms)
    background = _eye_background(n_samples, wake, rhythms, person)
    _sleep_events(frontal, posterior, activity, person, events)
    gaze = _eye_movements(activity, closed, person, eyes_stream)
    blinks = _blinks(n_samples, wake * ~closed, person, eyes_stream)
    return Sources(
        frontal=frontal,
        posterior=posterior,
        eye_background=background,
        gaze=gaze,
        blinks=blinks,
        activity=activity,
        chance=artefacts,
    )


def shown_stages(brain: npt.NDArray[np.int8], person: Person, seeds: np.random.SeedSequence) -> Activity:
    """The activity that :func:`draw_sources` shows with the same (fresh) seeds, [stage, second]."""
    return stage_activity(brain, person, np.random.default_rng(seeds.spawn(5)[0]))


def synthesise(night: Night, person: Person, seeds: np.random.SeedSequence) -> Signals:
    """Draw the signals of a night as Sleep-EDF records them (arguments as in :func:`draw_sources`)."""
    sources = draw_sources(night, person, seeds)
    frontal, posterior, eyes = sources.frontal, sources.posterior, sources.eye_background
    eyes += 0.38 * frontal + 0.10 * posterior  # the eyes' electrodes see the front of the head
    frontal += 0.16 * sources.gaze + sources.blinks
    eyes += np.float32(person.eog_gain) * sources.gaze + 0.25 * sources.blinks
    moving = add_artefacts(
        frontal,
        posterior,
        eyes,
        night=night,
        activity=sources.activity,
        person=person,
        random=sources.chance,
    )
    return Signals(frontal=frontal, posterior=posterior, eyes=eyes, activity=sources.activity, movement=moving)


def stage_activity(brain: npt.NDArray[np.int8], person: Person, random: np.random.Generator) -> Activity:
    """How much of each stage shows in each second, float64 [5, n_epochs * 30]."""
    n_epochs = len(brain)
    seconds = n_epochs * EPOCH_SECONDS
    # a bout begins up to 12 s before or after the epoch boundary that the scorer had to choose
    edges = np.flatnonzero(np.diff(brain)) + 1
    moments = np.round(edges * EPOCH_SECONDS + random.uniform(-12, 12, len(edges))).astype(int)
    stage = np.repeat(brain[np.r_[0, edges]], np.diff(np.r_[0, moments, seconds]))
    clear = (stage == np.arange(N_STAGES)[:, None]).astype(np.float64)
    clear = smooth(clear, 4.0)

    unclear_share = np.minimum(0.92, np.array(UNCLEAR_SHARE)[brain] * person.ambiguity)
    # a stage that is near in time is a likelier lookalike; so is one reached within minutes
    nearby = smooth((brain == np.arange(N_STAGES)[:, None]).astype(np.float64), 4.0)
    odds = np.array(LOOKALIKES)[brain].T * (0.25 + 3 * nearby)
    cumulative = np.cumsum(odds / odds.sum(axis=0), axis=0)
    other = (random.random(n_epochs) > cumulative).sum(axis=0).clip(0, N_STAGES - 1)
    amount = np.where(random.random(n_epochs) < unclear_share, random.beta(1.8, 1.0, n_epochs), 0.0)
    # far from sleep nobody takes an awake person for anything else
    awake = ndimage.uniform_filter1d((brain == W).astype(np.float64), 41, mode="nearest") > 0.97
    amount[awake] *= 0.2
    lookalike = np.zeros((N_STAGES, n_epochs))
    lookalike[other, np.arange(n_epochs)] = 1
    amount_s = smooth(np.repeat(amount, EPOCH_SECONDS), 5.0)
    lookalike_s = smooth(np.repeat(lookalike, EPOCH_SECONDS, axis=1), 5.0)
    return (1 - amount_s) * clear + amount_s * lookalike_s


def _eyes_closed(brain: npt.NDArray[np.int8], random: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Eyes closed, bool [seconds]: mostly near sleep, by spells at other times."""
    seconds = len(brain) * EPOCH_SECONDS
    in_bed = alternating(random, seconds, mean_on_s=90, mean_off_s=35)
    out_of_bed = alternating(random, seconds, mean_on_s=12, mean_off_s=90)
    near_sleep = ndimage.maximum_filter1d((brain != W).astype(np.int8), 61)
    return np.where(np.repeat(near_sleep, EPOCH_SECONDS) > 0, in_bed, out_of_bed)


def _rhythms(
    activity: Activity, closed: npt.NDArray[np.bool_], person: Person, random: np.random.Generator
) -> tuple[Samples, Samples]:
    """The ongoing EEG at Fpz-Cz and Pz-Oz."""
    wake, n1, n2, n3, rem = activity
    seconds = activity.shape[1]
    n = seconds * EEG_HZ
    gain = np.float32(person.posterior_gain)

    pink = BandNoise(random, n, power_law(person.slope), 0.3, 48)
    level = person.background_uv * (0.85 * wake + 0.95 * n1 + 1.0 * n2 + 1.1 * n3 + 0.75 * rem)
    envelope = to_samples(level * wander(random, seconds, every_s=40, spread=0.15))
    shared = 0.6 * pink.first()
    frontal = envelope * (shared + 0.8 * pink.another())
    posterior = gain * envelope * (shared + 0.8 * pink.another())

    # alpha: full with eyes closed, gone with eyes open, fading and slower in N1, a little in REM
    alpha = BandNoise(random, n, bump(person.alpha_hz, 0.55), 6.5, 13.5)
    slow_alpha = BandNoise(random, n, bump(person.alpha_hz - 0.9, 0.8), 5.5, 12.5)
    waxing = wander(random, seconds, every_s=3, spread=0.5)
    awake_alpha = to_samples(person.alpha_uv * waxing * wake * np.where(closed, 1.0, 0.22))
    other_alpha = to_samples(person.alpha_uv * waxing * (0.18 * n1 + 0.10 * n2 + 0.06 * n3 + 0.22 * rem))
    front = np.float32(person.alpha_frontal)
    posterior += awake_alpha * alpha.first() + other_alpha * slow_alpha.first()
    frontal += front * (awake_alpha * alpha.first() + other_alpha * slow_alpha.another())

    theta = BandNoise(random, n, bump(5.4, 1.0), 3, 8.5)
    level = person.theta_uv * (0.45 * wake + 1.35 * n1 + 0.95 * n2 + 0.7 * n3 + 0.95 * rem)
    envelope = to_samples(level * wander(random, seconds, every_s=5, spread=0.35))
    frontal += envelope * theta.first()
    posterior += 0.75 * envelope * theta.another()

    # slow waves come in trains; in N2 they herald N3, in N3 they cover 20 to 100 % of an epoch
    delta = BandNoise(random, n, bump(person.delta_hz, 0.42), 0.4, 3.5)
    depth = smooth(n3, 60.0)
    trains = wander(random, seconds, every_s=6, spread=0.35)
    level = person.delta_uv * trains * ((0.62 + 0.38 * depth) * n3 + (0.20 + 0.22 * depth) * n2 + 0.17 * n1)
    level += 0.17 * person.delta_uv * rem + 0.10 * person.delta_uv * wake
    envelope = to_samples(level)
    waves = delta.first()
    frontal += envelope * waves
    posterior += 0.55 * envelope * (0.75 * np.roll(waves, 4) + 0.66 * delta.another())

    sigma = BandNoise(random, n, bump(person.spindle_hz, 0.9), 10, 16.5)
    level = 0.06 * person.spindle_uv * (0.5 * wake + 0.6 * n1 + 1.5 * n2 + 1.2 * n3 + 0.5 * rem)
    envelope = to_samples(level * wander(random, seconds, every_s=4, spread=0.4))
    frontal += envelope * sigma.first()
    posterior += 0.7 * envelope * sigma.another()

    beta = BandNoise(random, n, bump(21, 5.0), 14, 40)
    level = person.beta_uv * (1.25 * wake + 0.82 * n1 + 0.75 * n2 + 0.55 * n3 + 0.85 * rem)
    envelope = to_samples(level * wander(random, seconds, every_s=15, spread=0.2))
    frontal += envelope * beta.first()
    posterior += 0.8 * envelope * beta.another()
    return frontal, posterior


def _eye_background(n_samples: int, wake: Curve, random: np.random.Generator, person: Person) -> Samples:
    """What the EOG shows without any eye movement."""
    pink = BandNoise(random, n_samples, power_law(1.4), 0.3, 48)
    result: Samples = to_samples(2.6 + 5.4 * wake) * pink.first() * np.float32(person.eog_gain)
    return result


def _sleep_events(
    frontal: Samples, posterior: Samples, activity: Activity, person: Person, random: np.random.Generator
) -> None:
    """Spindles, K-complexes, vertex waves and sawtooth waves."""
    _, n1, n2, n3, rem = activity
    seconds = activity.shape[1]
    # below half, another stage has the say: a trace of N2 in a REM epoch brings no train of spindles
    firm_n2 = np.clip(1.5 * n2 - 0.25, 0, 1)
    busy = wander(random, seconds, every_s=25, spread=0.4)

    rate = person.spindles_per_minute / 60 * (firm_n2 + 0.35 * n3) * busy
    onsets = event_times(random, rate).tolist()
    k_rate = person.k_complexes_per_minute / 60 * (firm_n2 + 0.25 * n3) * busy
    for onset in event_times(random, k_rate).tolist():
        size = person.k_complex_uv * np.exp(random.normal(0, 0.25))
        add_event(frontal, onset, size * _k_complex(random))
        add_event(posterior, onset + 0.02, 0.45 * size * _k_complex(random))
        if random.random() < 0.4:
            onsets.append(onset + 0.9)
    for onset in onsets:
        duration = float(np.clip(random.gamma(6, 0.16), 0.5, 2.0))
        t = times(duration)
        hz = person.spindle_hz + random.normal(0, 0.35) - 0.4 * (t - duration / 2)  # spindles slow down
        wave = np.sin(2 * np.pi * np.cumsum(hz) / EEG_HZ + random.uniform(0, 6.28)) * np.sin(np.pi * t / duration)
        size = person.spindle_uv * np.exp(random.normal(0, 0.3))
        add_event(frontal, onset, size * wave)
        add_event(posterior, onset, size * random.uniform(0.35, 0.75) * wave)

    for onset in event_times(random, 2.0 / 60 * np.clip(n1 - 0.3, 0, 1) + 0.4 / 60 * firm_n2).tolist():
        t = times(0.35)
        vertex = random.uniform(35, 75) * -np.sin(2 * np.pi * t / 0.35) * np.sin(np.pi * t / 0.35)
        add_event(frontal, onset, vertex)
        add_event(posterior, onset, 0.3 * vertex)

    for onset in event_times(random, 1.2 / 60 * np.clip(rem - 0.3, 0, 1)).tolist():
        length_s, teeth_hz, size = random.uniform((1.0, 2.2, 14.0), (4.0, 4.5, 28.0)).tolist()
        t = times(length_s)
        teeth = size * signal.sawtooth(2 * np.pi * teeth_hz * t, 0.75) * np.sin(np.pi * t / length_s)
        add_event(frontal, onset, teeth)
        add_event(posterior, onset, 0.3 * teeth)


def _k_complex(random: np.random.Generator) -> npt.NDArray[np.float64]:
    """A sharp negative wave and a slower positive one, 0.7 to 1.2 s, peak -1."""
    t = times(float(random.uniform(0.7, 1.2)))
    u = t / t[-1]
    wave: npt.NDArray[np.float64] = -np.exp(-0.5 * ((u - 0.3) / 0.09) ** 2) + 0.6 * np.exp(
        -0.5 * ((u - 0.62) / 0.14) ** 2
    )
    return wave


def _eye_movements(
    activity: Activity, closed: npt.NDArray[np.bool_], person: Person, random: np.random.Generator
) -> Samples:
    """Saccades awake, rapid eye movements in bursts, slow rolling eyes at the edge of sleep; as the EOG sees them."""
    wake, n1, n2, _, rem = activity
    seconds = activity.shape[1]
    phasic = alternating(random, seconds, mean_on_s=9, mean_off_s=26)
    density = wander(random, seconds, every_s=300, spread=0.5)
    reading = wander(random, seconds, every_s=30, spread=0.6)
    rate = np.where(closed, 0.10, 1.1) * wake * reading
    rate += np.clip(1.25 * rem - 0.25, 0, 1) * np.where(phasic, 1.1, 0.03) * density
    onsets = event_times(random, rate)
    sizes = person.saccade_uv * random.gamma(2.2, 0.4, len(onsets))
    # eyes come back: a step is mostly undone by one of the next ones
    direction = np.where(random.random(len(onsets)) < 0.5, -1.0, 1.0)
    steps = np.zeros(seconds * EEG_HZ, dtype=np.float32)
    spot = np.minimum((onsets * EEG_HZ).astype(int), len(steps) - 1)
    np.add.at(steps, spot, (sizes * direction).astype(np.float32))
    # a leaky sum turns impulses into steps that the amplifier lets decay; the short one rounds the edge
    decay, rise = np.exp(-1 / (0.55 * EEG_HZ)), np.exp(-1 / (0.025 * EEG_HZ))
    numerator = np.array([1 - rise], dtype=np.float32)
    denominator = np.convolve([1, -decay], [1, -rise]).astype(np.float32)
    gaze = signal.lfilter(numerator, denominator, steps)

    rolling = BandNoise(random, seconds * EEG_HZ, bump(0.35, 0.1), 0.12, 0.8)
    drowsy = 0.80 * n1 + 0.25 * wake * closed + 0.12 * n2 + 0.15 * rem
    drowsy *= np.where(alternating(random, seconds, mean_on_s=40, mean_off_s=14), 1.0, 0.25)
    slow = to_samples(person.slow_eye_uv * smooth(drowsy, 3.0)) * rolling.first()
    result: Samples = gaze + slow
    return result


def _blinks(n_samples: int, open_eyes: Curve, person: Person, random: np.random.Generator) -> Samples:
    """Blinks as Fpz-Cz sees them, float32 [n_samples]."""
    blinks = np.zeros(n_samples, dtype=np.float32)
    for onset in event_times(random, 14 / 60 * open_eyes).tolist():
        t = times(float(random.uniform(0.22, 0.38)))
        add_event(blinks, onset, person.blink_uv * random.uniform(0.6, 1.3) * np.sin(np.pi * t / t[-1]) ** 2)
    return blinks


def chin_muscle(signals: Shown, person: Person, random: np.random.Generator) -> Curve:
    """Submental muscle tone in microvolts at one value a second."""
    wake, n1, n2, n3, rem = signals.activity
    tone = person.emg_uv * (1.0 * wake + 0.55 * n1 + 0.45 * n2 + 0.38 * n3 + 0.2 * rem)
    tone = tone * wander(random, len(tone), every_s=120, spread=0.3)
    twitches = (random.random(len(tone)) < 0.01 * rem) * random.exponential(1.0, len(tone))
    result: Curve = tone * (1 + 3 * signals.movement) + twitches
    return result


def chin_muscle_waveform(tone: Curve, random: np.random.Generator) -> Samples:
    """Submental EMG as a waveform at 100 Hz, microvolts, whose mean rectified value follows the tone."""
    n_samples = len(tone) * EEG_HZ
    noise = BandNoise(random, n_samples, power_law(-0.2), 10, 49.5)
    result: Samples = to_samples(1.25 * tone) * noise.first()
    return result
