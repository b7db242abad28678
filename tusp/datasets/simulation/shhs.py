"""Simulated nights in the files of SHHS as the NSRR hands them out: EDF, NSRR XML and Profusion XML.

Some people were visited twice. EEG at 125 Hz and EOG at 50 Hz on the first visit, 128 and 64 Hz on the second; eight
bits a sample. The second EEG channel has one of several names. Either label file is missing in some nights. The EDF
says that it is simulated in its recording identification, the XML in a comment.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

import edfio
import numpy as np
import numpy.typing as npt

from tusp.datasets.simulation import body
from tusp.datasets.simulation.hypnogram import Night
from tusp.datasets.simulation.montage import Derivation, draw_potentials
from tusp.datasets.simulation.person import Person
from tusp.datasets.simulation.plan import (
    CORPUS_NUMBERS,
    EXTRAS,
    QUIRKS,
    SIGNALS,
    SIMULATED_FLAG,
    NightPlan,
    draw_person,
    draw_truth,
)
from tusp.datasets.simulation.signals import chin_muscle
from tusp.platform.files import atomic_path, write_text_atomic
from tusp.platform.stages import EPOCH_SECONDS

LINE_HZ: Final = 60.0
RATES: Final = {1: (125, 50), 2: (128, 64)}
"""EEG and EOG rate in Hz by visit."""

TWO_VISITS: Final = 0.457
"""Share of people with a second visit: 2647 of 5797."""

SECOND_EEG: Final = ("EEG(sec)", "EEG2", "EEG 2", "EEG_SEC", "EEG sec")
LIMIT_UV: Final = 125.0
BITS: Final = (-128, 127)

CONCEPTS: Final = {
    "W": "Wake|0",
    "1": "Stage 1 sleep|1",
    "2": "Stage 2 sleep|2",
    "3": "Stage 3 sleep|3",
    "4": "Stage 4 sleep|4",
    "R": "REM sleep|5",
    "Movement time": "Movement|6",
    "?": "Unscored|9",
}
EVENTS: Final = {
    "hypopnea": "Hypopnea|Hypopnea",
    "obstructiveapnea": "Obstructive apnea|Obstructive Apnea",
    "centralapnea": "Central apnea|Central Apnea",
    "mixedapnea": "Mixed apnea|Mixed Apnea",
}


def prefixes(plan: NightPlan) -> list[str]:
    """What the names of the night's files begin with."""
    visit = f"shhs{plan.night}"
    return [
        f"polysomnography/edfs/{visit}/{plan.record}.edf",
        f"polysomnography/annotations-events-nsrr/{visit}/{plan.record}-nsrr.xml",
        f"polysomnography/annotations-events-profusion/{visit}/{plan.record}-profusion.xml",
    ]


def nights_of(corpus: str, subject: int, seed: int) -> int:
    """One visit or two."""
    chance = np.random.SeedSequence(seed, spawn_key=(CORPUS_NUMBERS[corpus], subject, QUIRKS))
    return 2 if np.random.default_rng(chance).random() < TWO_VISITS else 1


@dataclass(frozen=True, kw_only=True)
class ShhsChannel:
    """One channel before it is stored."""

    name: str
    rate_hz: int
    unit: str
    samples: npt.NDArray[np.float32]


def draw_channels(plan: NightPlan, night: Night, person: Person) -> tuple[list[ShhsChannel], list[body.BreathingEvent]]:
    """All channels in the file's order, and the breathing events."""
    eeg_hz, eog_hz = RATES[plan.night]
    potentials = draw_potentials(
        night,
        person,
        plan.stream(SIGNALS, plan.night),
        electrodes=("C3", "C4", "E1", "E2", "M1", "M2"),
        line_hz=LINE_HZ,
    )
    random = plan.random(EXTRAS)
    seconds = potentials.seconds
    events = body.breathing_events(plan.corpus, potentials, random)
    depth = body.breath_depth(seconds, events)
    found: list[ShhsChannel] = []

    def add(name: str, rate_hz: int, unit: str, samples: npt.NDArray[np.floating]) -> None:
        found.append(ShhsChannel(name=name, rate_hz=rate_hz, unit=unit, samples=samples.astype(np.float32)))

    def derive(name: str, plus: str, minus: str, rate_hz: int) -> None:
        add(name, rate_hz, "uV", potentials.derive(Derivation(plus=plus, minus=minus, rate_hz=rate_hz)))

    add("SaO2", 1, "%", body.saturation(seconds, events, random))
    add("H.R.", 1, "BPM", body.pulse(seconds, random))
    derive(SECOND_EEG[int(plan.random(QUIRKS).integers(len(SECOND_EEG)))], "C3", "M2", eeg_hz)
    add("ECG", eeg_hz, "mV", body.heart(potentials, random, eeg_hz))
    tone = 2 * chin_muscle(potentials, person, random)
    add("EMG", eeg_hz, "uV", body.muscle_waveform(tone, random, eeg_hz))
    derive("EOG(L)", "E1", "M2", eog_hz)
    derive("EOG(R)", "E2", "M2", eog_hz)
    derive("EEG", "C4", "M1", eeg_hz)
    for name, depths in (("THOR RES", 0.3 + 0.7 * depth), ("ABDO RES", 0.3 + 0.7 * depth), ("NEW AIR", depth)):
        add(name, 10, "", np.float32(0.4) * body.breath(potentials, depths, random, 10))
    add("LIGHT", 1, "", random.random(seconds) < 0.01 * potentials.activity[0])
    return found, events


LIMITS: Final = {"%": (0.0, 127.0), "BPM": (0.0, 255.0), "mV": (-1.25, 1.25), "": (-1.0, 1.0)}
"""Physical range by unit; microvolts: :data:`LIMIT_UV`."""


def write_night(plan: NightPlan, destination: Path) -> tuple[Path, ...]:
    """Make one night and write its two or three files (signals first), each whole or not at all.

    Returns:
        Paths of signals and label files.
    """
    person = draw_person(plan)
    night = draw_truth(plan, person)
    quirks = plan.random(QUIRKS)
    _, missing, minutes = quirks.random(3).tolist()
    start = datetime.datetime(1985, 1, 1, 21, 30) + datetime.timedelta(minutes=int(90 * minutes))
    psg, nsrr, profusion = (destination / name for name in prefixes(plan))
    channels, events = draw_channels(plan, night, person)
    signals = [_signal(channel) for channel in channels]
    with atomic_path(psg) as path:
        edfio.Edf(
            signals,
            patient=edfio.Patient(sex="F" if person.female else "M", name=f"age_{person.age}"),
            recording=edfio.Recording(startdate=start.date(), equipment_code=SIMULATED_FLAG),
            starttime=start.time(),
            data_record_duration=1,
        ).write(path)
    files = [psg]
    # most nights have both label files
    if missing >= 0.12:
        write_text_atomic(nsrr, nsrr_xml(night, events, start))
        files.append(nsrr)
    if missing < 0.85:
        write_text_atomic(profusion, profusion_xml(night))
        files.append(profusion)
    return tuple(files)


def _signal(channel: ShhsChannel) -> edfio.EdfSignal:
    """The channel in eight bits; what exceeds the range saturates."""
    low, high = LIMITS.get(channel.unit, (-LIMIT_UV, LIMIT_UV))
    return edfio.EdfSignal(
        np.clip(channel.samples, np.float32(low), np.float32(high)),
        channel.rate_hz,
        label=channel.name,
        physical_dimension=channel.unit,
        physical_range=(low, high),
        digital_range=BITS if low < 0 else (int(low), int(high)),
    )


def nsrr_xml(night: Night, events: Sequence[body.BreathingEvent], start: datetime.datetime) -> str:
    """The NSRR's annotations: stages as runs, breathing events."""
    found = [("", "Recording Start Time", 0.0, float(EPOCH_SECONDS * len(night.names)))]
    onset = 0
    for name, run in groupby(night.names):
        duration = EPOCH_SECONDS * len(list(run))
        found.append(("Stages|Stages", CONCEPTS[name], float(onset), float(duration)))
        onset += duration
    found.extend(("Respiratory|Respiratory", EVENTS[event.kind], event.start, event.duration) for event in events)
    lines = [
        '<?xml version="1.0" encoding="UTF-8" standalone="no"?>',
        f"<!-- {SIMULATED_FLAG} -->",
        "<PSGAnnotation>",
        "<SoftwareVersion>Compumedics</SoftwareVersion>",
        f"<EpochLength>{EPOCH_SECONDS}</EpochLength>",
        "<ScoredEvents>",
    ]
    for kind, concept, begin, length in found:
        clock = f"\n<ClockTime>00.00.00 {start:%H.%M.%S}</ClockTime>" if not kind else ""
        lines.append(
            f"<ScoredEvent>\n<EventType>{escape(kind)}</EventType>\n<EventConcept>{escape(concept)}</EventConcept>"
            f"\n<Start>{begin:.1f}</Start>\n<Duration>{length:.1f}</Duration>{clock}\n</ScoredEvent>"
        )
    return "\n".join([*lines, "</ScoredEvents>", "</PSGAnnotation>", ""])


def profusion_xml(night: Night) -> str:
    """Profusion's annotations: one number an epoch."""
    numbers = (CONCEPTS[name].rpartition("|")[2] for name in night.names)
    stages = "".join(f"<SleepStage>{number}</SleepStage>" for number in numbers)
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<!-- {SIMULATED_FLAG} -->\n<CMPStudyConfig>'
        f"<EpochLength>{EPOCH_SECONDS}</EpochLength><ScoredEvents></ScoredEvents>"
        f"<SleepStages>{stages}</SleepStages></CMPStudyConfig>\n"
    )
