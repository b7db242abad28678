"""Simulated nights in Sleep-EDF's own files: one EDF of signals and one EDF+ hypnogram a night.

Header habits of the originals are kept: patient ``X F X Female_33yr``, records of 30 s, ranges, units and filters of
the cassette recorder, hypnograms without signals whose first annotation begins at 0. One thing is added and never
missing: the equipment field of both headers says ``tusp-simulated``.
"""

from __future__ import annotations

import datetime
from itertools import groupby
from pathlib import Path
from typing import Final

import edfio
import numpy as np
import numpy.typing as npt

from tusp.datasets.simulation.hypnogram import Night
from tusp.datasets.simulation.person import Person
from tusp.datasets.simulation.plan import DATE, EXTRAS, SIGNALS, SIMULATED_FLAG, NightPlan, draw_person, draw_truth
from tusp.datasets.simulation.processes import Curve, wander
from tusp.datasets.simulation.signals import Signals, chin_muscle, chin_muscle_waveform, synthesise
from tusp.platform.files import atomic_path
from tusp.platform.stages import EPOCH_SECONDS

LETTERS: Final = {"sedf-sc": "E", "sedf-st": "J"}
"""The recorder's letter."""

SCORERS: Final = {"sedf-sc": ("C", "H", "J", "P", "V", "W"), "sedf-st": ("P", "R", "V", "K", "L")}
"""Eighth character of hypnogram names: the scorer."""

HYPNOGRAM_SECONDS: Final = 86_400
"""Span of every cassette hypnogram, longer than the recording; the surplus is ``?``."""

_ANNOTATIONS: Final = {"?": "Sleep stage ?", "Movement time": "Movement time"}


def folder_of(corpus: str) -> str:
    """The corpus's folder name."""
    return "sleep-cassette" if corpus == "sedf-sc" else "sleep-telemetry"


def prefixes(plan: NightPlan) -> list[str]:
    """What the names of the night's files begin with."""
    return [f"{folder_of(plan.corpus)}/{plan.record}"]


def write_night(plan: NightPlan, destination: Path) -> tuple[Path, Path]:
    """Make one night and write its two files (signals first), each whole or not at all.

    Returns:
        Paths of signals and hypnogram.
    """
    person = draw_person(plan)
    night = draw_truth(plan, person)
    signals = synthesise(night, person, plan.stream(SIGNALS, plan.night))
    random = plan.random(EXTRAS)
    start = _start(plan, night, random)
    scorer = SCORERS[plan.corpus][int(random.choice(len(SCORERS[plan.corpus])))]
    patient = edfio.Patient(sex="F" if person.female else "M", name=_name(person))
    recording = edfio.Recording(startdate=start.date(), equipment_code=SIMULATED_FLAG)
    channels = _channels(plan, signals, person, random)

    folder = destination / folder_of(plan.corpus)
    psg = folder / f"{plan.record}{LETTERS[plan.corpus]}0-PSG.edf"
    with atomic_path(psg) as path:
        edfio.Edf(
            channels,
            patient=patient,
            recording=recording,
            starttime=start.time(),
            data_record_duration=EPOCH_SECONDS,
        ).write(path)
    hypnogram = folder / f"{plan.record}{LETTERS[plan.corpus]}{scorer}-Hypnogram.edf"
    with atomic_path(hypnogram) as path:
        edfio.Edf(
            [],
            patient=patient,
            recording=recording,
            starttime=start.time(),
            annotations=run_lengths(night, span_s=HYPNOGRAM_SECONDS if plan.corpus == "sedf-sc" else None),
        ).write(path)
    return psg, hypnogram


def run_lengths(night: Night, *, span_s: int | None) -> list[edfio.EdfAnnotation]:
    """The hypnogram as run-length annotations; a span beyond the signal is filled with ``?``."""
    found = []
    onset = 0
    for name, run in groupby(night.names):
        duration = EPOCH_SECONDS * len(list(run))
        if name:
            found.append(edfio.EdfAnnotation(onset, duration, _ANNOTATIONS.get(name, f"Sleep stage {name}")))
        onset += duration
    if span_s is not None and onset < span_s:
        found.append(edfio.EdfAnnotation(onset, span_s - onset, "Sleep stage ?"))
    return found


def _name(person: Person) -> str:
    return f"{'Female' if person.female else 'Male'}_{person.age}yr"


def _start(plan: NightPlan, night: Night, random: np.random.Generator) -> datetime.datetime:
    """Date and time of the first sample: about the corpus's hour of day, in its years."""
    first_year = 1989 if plan.corpus == "sedf-sc" else 1994
    # nights of one person follow each other; the person's date must not depend on the night
    day = datetime.date(first_year, 1, 1) + datetime.timedelta(
        days=int(np.random.default_rng(plan.stream(DATE)).integers(0, 700)) + plan.night - 1
    )
    if plan.hours is None and plan.corpus == "sedf-sc":
        minutes = round(random.normal(16.6 * 60, 35))
    else:
        minutes = 22 * 60 + 20 + int(random.integers(0, 80))
    return datetime.datetime.combine(day, datetime.time(minutes // 60, minutes % 60))


def _channels(plan: NightPlan, signals: Signals, person: Person, random: np.random.Generator) -> list[edfio.EdfSignal]:
    """The corpus's channels in its order, with its ranges, units and filters."""
    cassette = plan.corpus == "sedf-sc"
    eeg_filter = "HP:0.5Hz LP:100Hz [enhanced cassette BW]" if cassette else ""
    # the original calibrations differ a little between recordings
    frontal_uv, posterior_uv, eyes_uv = (
        round(range_uv * random.uniform(0.97, 1.03)) for range_uv in ((192, 197, 1009) if cassette else (230, 230, 470))
    )
    electrodes = {"transducer_type": "Ag-AgCl electrodes", "physical_dimension": "uV"}
    twelve_bits = (-2048, 2047)

    def fast(label: str, data: npt.NDArray[np.float32], limit_uv: int) -> edfio.EdfSignal:
        return _signal(data, 100, label, (-limit_uv, limit_uv), twelve_bits, prefiltering=eeg_filter, **electrodes)

    channels = [
        fast("EEG Fpz-Cz", signals.frontal, frontal_uv),
        fast("EEG Pz-Oz", signals.posterior, posterior_uv),
        fast("EOG horizontal", signals.eyes, eyes_uv),
    ]
    tone = chin_muscle(signals, person, random)
    seconds = len(tone)
    if not cassette:
        return [
            *channels,
            fast("EMG submental", chin_muscle_waveform(tone, random), 115),
            _signal(_marker(seconds, random) / 400, 1, "Marker", (-5, 5), (-5, 5), physical_dimension="ID+M-E"),
        ]
    return [
        *channels,
        _signal(
            _breathing(signals, random), 1, "Resp oro-nasal", (-2048, 2047), twelve_bits,
            transducer_type="Oral-nasal thermistors", prefiltering="HP:0.03Hz LP:0.9Hz",
        ),
        _signal(
            tone, 1, "EMG submental", (-5, 5), (-2500, 2500),
            prefiltering="HP:16Hz Rectification LP:0.7Hz", **electrodes,
        ),
        _signal(
            _temperature(seconds, random), 1, "Temp rectal", (34, 40), (-2849, 2731),
            transducer_type="Rectal thermistor", physical_dimension="DegC",
        ),
        _signal(
            _marker(seconds, random), 1, "Event marker", (-2047, 2048), (-2047, 2048),
            transducer_type="Marker button", prefiltering="Hold during 2 seconds",
        ),
    ]  # fmt: skip


def _signal(
    data: npt.NDArray[np.floating],
    rate_hz: int,
    label: str,
    physical: tuple[float, float],
    digital: tuple[int, int],
    **fields: str,
) -> edfio.EdfSignal:
    """One channel; what exceeds the range saturates, as in the recorder."""
    clipped = np.clip(data, np.float32(physical[0]), np.float32(physical[1]), dtype=np.float32)
    return edfio.EdfSignal(clipped, rate_hz, label=label, physical_range=physical, digital_range=digital, **fields)


def _breathing(signals: Signals, random: np.random.Generator) -> Curve:
    """Airflow by thermistor at 1 Hz: regular in N3, restless awake and in REM."""
    wake, _, _, _, rem = signals.activity
    seconds = len(wake)
    unrest = 0.05 + 0.25 * (wake + rem)
    hz = 0.25 * np.exp(unrest * random.normal(0, 0.6, seconds))
    swing = np.sin(2 * np.pi * np.cumsum(hz)) * wander(random, seconds, every_s=15, spread=0.3)
    return 420 * swing * (1 + signals.movement) + random.normal(0, 25, seconds)


def _temperature(seconds: int, random: np.random.Generator) -> Curve:
    """Rectal temperature in degrees Celsius: falls over the night."""
    hours = np.arange(seconds) / 3600
    return 37.1 - 0.45 * np.sin(np.pi * np.clip(hours / 20, 0, 1)) + 0.01 * np.cumsum(random.normal(0, 0.01, seconds))


def _marker(seconds: int, random: np.random.Generator) -> Curve:
    """Event button: a constant level, and 2-s deflections where it was pressed."""
    marker = np.full(seconds, 800.0)
    for press in random.integers(0, max(1, seconds - 2), size=int(random.poisson(2))).tolist():
        marker[press : press + 2] = 1200.0
    return marker
