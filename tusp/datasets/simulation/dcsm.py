"""Simulated nights in the files of DCSM: ``tp<uuid>/psg.h5`` (17 channels at 256 Hz) and ``hypnogram.ids``.

Quirks, by chance in every night: the sampling rate and the date stand on the file, on the group or on every dataset;
samples are volts or microvolts, which the file does not say; hypnograms may begin or end with ``UNKNOWN``.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from tusp.datasets.simulation import body
from tusp.datasets.simulation.hdf5 import add_samples, new_hdf5
from tusp.datasets.simulation.hypnogram import Night
from tusp.datasets.simulation.montage import Derivation, Potentials, draw_potentials
from tusp.datasets.simulation.person import Person
from tusp.datasets.simulation.plan import DATE, EXTRAS, QUIRKS, SIGNALS, NightPlan, draw_person, draw_truth
from tusp.datasets.simulation.signals import chin_muscle
from tusp.platform.files import write_text_atomic
from tusp.platform.stages import EPOCH_SECONDS

RATE_HZ: Final = 256
LINE_HZ: Final = 50.0

CHANNELS: Final = (
    "ABDOMEN", "C3-M2", "C4-M1", "CHIN", "E1-M2", "E2-M2", "ECG-II", "F3-M2", "F4-M1", "LAT", "NASAL", "O1-M2", "O2-M1",
    "RAT", "SNORE", "SPO2", "THORAX",
)  # fmt: skip
DERIVED: Final = {
    name: Derivation(plus=name[:2], minus=name[3:], rate_hz=RATE_HZ) for name in CHANNELS if name[2:4] == "-M"
}
RECORDER_ORDER: Final = (*DERIVED, *(name for name in CHANNELS if name not in DERIVED))
"""What ``channel_index`` counts: not the order of the names, in which HDF5 lists them."""

MICROVOLT_STEP: Final = 2.0**-3
VOLT_STEP: Final = 2.0**-23
"""The recorder's resolution, about an eighth of a microvolt in both units."""

STAGE_NAMES: Final = {-1: "UNKNOWN", 0: "W", 1: "N1", 2: "N2", 3: "N3", 4: "REM"}


def prefixes(plan: NightPlan) -> list[str]:
    """What the names of the night's files begin with."""
    return [f"{plan.record}/"]


def in_volts(plan: NightPlan) -> bool:
    """Whether the night's samples are volts: half of the nights."""
    return bool(plan.random(QUIRKS).random() < 0.5)


def draw_channels(plan: NightPlan, night: Night, person: Person) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Name and samples at 256 Hz of every channel in the file's order: microvolts, oxygen in percent."""
    potentials = draw_potentials(
        night,
        person,
        plan.stream(SIGNALS, plan.night),
        electrodes=(electrode for one in DERIVED.values() for electrode in (one.plus, one.minus)),
        line_hz=LINE_HZ,
    )
    random = plan.random(EXTRAS)
    events = body.breathing_events(plan.corpus, potentials, random)
    depth = body.breath_depth(potentials.seconds, events)
    for name in CHANNELS:
        if name in DERIVED:
            yield name, potentials.derive(DERIVED[name])
        else:
            yield name, _other(name, potentials, person, events, depth, random)


def _other(
    name: str,
    potentials: Potentials,
    person: Person,
    events: list[body.BreathingEvent],
    depth: npt.NDArray[np.float64],
    random: np.random.Generator,
) -> npt.NDArray[np.float32]:
    seconds = potentials.seconds
    match name:
        case "CHIN":
            return body.muscle_waveform(4 * chin_muscle(potentials, person, random), random, RATE_HZ)
        case "LAT" | "RAT":
            return body.muscle_waveform(body.leg_muscle(seconds, random), random, RATE_HZ)
        case "ECG-II":
            return np.float32(900) * body.heart(potentials, random, RATE_HZ)
        case "SPO2":
            return body.stretched(body.saturation(seconds, events, random), RATE_HZ)
        case "SNORE":
            return body.muscle_waveform(12 * body.snore_level(potentials, random), random, RATE_HZ)
        case "NASAL":
            return np.float32(150) * body.breath(potentials, depth, random, RATE_HZ)
        case _:
            # the belts go on moving in an apnoea, against a closed airway
            return np.float32(300) * body.breath(potentials, 0.3 + 0.7 * depth, random, RATE_HZ)


def write_night(plan: NightPlan, destination: Path) -> tuple[Path, Path]:
    """Make one night and write its two files (signals first), each whole or not at all.

    Returns:
        Paths of signals and hypnogram.
    """
    person = draw_person(plan)
    night = draw_truth(plan, person)
    quirks = plan.random(QUIRKS)
    volts = in_volts(plan)
    _, where, dated, ordered = quirks.random(4).tolist()
    day = datetime.datetime(2015, 3, 1, 22, 0, 0) + datetime.timedelta(
        minutes=int(np.random.default_rng(plan.stream(DATE)).integers(0, 3 * 365)) * 24 * 60 + int(90 * dated)
    )
    folder = destination / plan.record
    psg = folder / "psg.h5"
    with new_hdf5(psg) as file:
        group = file.create_group("channels")
        datasets = []
        for name, samples in draw_channels(plan, night, person):
            electric = name != "SPO2"
            values = samples * np.float32(1e-6) if volts and electric else samples
            datasets.append(add_samples(group, name, values, step=VOLT_STEP if volts and electric else MICROVOLT_STEP))
            if ordered < 0.7:
                datasets[-1].attrs["channel_index"] = RECORDER_ORDER.index(name)
        for node in ([file], [group], datasets)[0 if where < 0.5 else 1 if where < 0.75 else 2]:
            node.attrs["sample_rate"] = RATE_HZ
            node.attrs["date"] = day.strftime("%Y-%m-%d %H:%M:%S")
    hypnogram = folder / "hypnogram.ids"
    write_text_atomic(hypnogram, run_lengths(night))
    return psg, hypnogram


def run_lengths(night: Night) -> str:
    """The hypnogram's lines: start and duration in seconds, stage."""
    lines = []
    start = 0
    for stage, run in groupby(night.stages.tolist()):
        duration = EPOCH_SECONDS * len(list(run))
        lines.append(f"{start},{duration},{STAGE_NAMES[stage]}\n")
        start += duration
    return "".join(lines)
