"""Simulated nights in the files of the Dreem Open Datasets: ``<uuid>.h5`` and five lists ``scorer_N/<uuid>.json``.

The signals cover the span in which every scorer has begun and none has stopped; the lists may begin earlier (in dod-o
by hours) and end later, and in some nights differ in length. Sampling rate and unit stand in the file's attribute
``description`` (JSON) or on the groups ``signals/eeg``, ``signals/eog``, ``signals/emg``, or on both.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
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
from tusp.datasets.simulation.scorers import N_SCORERS, Scorings, cut_votes, score
from tusp.datasets.simulation.signals import chin_muscle
from tusp.platform.files import write_text_atomic
from tusp.platform.scoring.consensus import consensus, ranking

RATE_HZ: Final = 250
LINE_HZ: Final = 50.0
STEP_UV: Final = 2.0**-3
"""The recorder's resolution in microvolts."""

EEG: Final = {
    "dod-h": (
        "C3_M2", "F4_M1", "F3_F4", "F3_M2", "F4_O2", "F3_O1", "FP1_F3", "FP1_M2", "FP1_O1", "FP2_F4", "FP2_M1",
        "FP2_O2",
    ),
    "dod-o": ("C3_M2", "C4_M1", "F3_F4", "F3_M2", "F4_O2", "F3_O1", "O1_M2", "O2_M1"),
}  # fmt: skip
EOG: Final = {"EOG1": "E1_M2", "EOG2": "E2_M2"}
EMG: Final = ("EMG", "ECG")


def prefixes(plan: NightPlan) -> list[str]:
    """What the names of the night's files begin with."""
    return [f"{plan.record}.h5", *(f"scorer_{number}/{plan.record}.json" for number in range(1, N_SCORERS + 1))]


def derivations(corpus: str) -> dict[str, Derivation]:
    """EEG and EOG channels by their path below ``signals``."""
    names = {f"eeg/{name}": name for name in EEG[corpus]} | {f"eog/{name}": pair for name, pair in EOG.items()}
    return {
        path: Derivation(plus=pair.split("_")[0], minus=pair.split("_")[1], rate_hz=RATE_HZ)
        for path, pair in names.items()
    }


def draw_scorings(plan: NightPlan, night: Night, person: Person) -> Scorings:
    """The five lists of a night."""
    random = plan.random(QUIRKS)
    lead = 0
    if random.random() < (0.6 if plan.corpus == "dod-o" else 0.15):
        longest = 457 if plan.hours is None else max(2, len(night.brain) // 8)
        lead = int(min(longest, 1 + random.exponential(60 if plan.hours is None else longest / 3)))
    return score(night, person, plan.stream(SIGNALS, plan.night), random, lead=lead)


def draw_channels(plan: NightPlan, night: Night, person: Person) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Path below ``signals`` and microvolts at 250 Hz of every channel."""
    derived = derivations(plan.corpus)
    potentials = draw_potentials(
        night,
        person,
        plan.stream(SIGNALS, plan.night),
        electrodes=(electrode for one in derived.values() for electrode in (one.plus, one.minus)),
        line_hz=LINE_HZ,
    )
    for path, derivation in derived.items():
        yield path, potentials.derive(derivation)
    random = plan.random(EXTRAS)
    for name in EMG:
        yield f"emg/{name}", _muscle_or_heart(name, potentials, person, random)


def _muscle_or_heart(
    name: str, potentials: Potentials, person: Person, random: np.random.Generator
) -> npt.NDArray[np.float32]:
    if name == "ECG":
        return np.float32(800) * body.heart(potentials, random, RATE_HZ)
    return body.muscle_waveform(4 * chin_muscle(potentials, person, random), random, RATE_HZ)


def write_night(plan: NightPlan, destination: Path) -> tuple[Path, ...]:
    """Make one night and write its six files (signals first), each whole or not at all.

    Returns:
        Paths of the signals and the five lists.
    """
    person = draw_person(plan)
    night = draw_truth(plan, person)
    scorings = draw_scorings(plan, night, person)
    random = np.random.default_rng(plan.stream(DATE))
    start = datetime.datetime(2019, 1, 1, 22, tzinfo=datetime.UTC) + datetime.timedelta(
        days=int(random.integers(0, 300)), minutes=int(random.integers(0, 120))
    )
    described, grouped, full = random.random(3).tolist()
    votes = cut_votes(scorings, len(night.brain))
    signals = destination / f"{plan.record}.h5"
    with new_hdf5(signals) as file:
        entries = []
        for path, samples in draw_channels(plan, night, person):
            domain, name = path.split("/")
            add_samples(file.require_group(f"signals/{domain}"), name, samples, step=STEP_UV)
            entries.append(
                {"fs": RATE_HZ, "unit": "µV", "path": f"/signals/{path}", "name": name, "domain": domain}
                | {"default": name in ("C3_M2", "EOG1", "EMG")}
            )
        stages = consensus(votes, ranking(votes)).astype(np.int64)
        file.create_dataset("hypnogram", data=stages, track_times=False)
        # two nights in three have the list, two in three the attributes of the groups, and every night one of them
        if described < 0.67:
            file.attrs["description"] = json.dumps(entries)
        if described >= 0.67 or grouped < 0.5:
            for domain in ("eeg", "eog", "emg"):
                file[f"signals/{domain}"].attrs["fs"] = RATE_HZ
                file[f"signals/{domain}"].attrs["unit"] = "µV"
        if full < 0.7:
            file.attrs["duration"] = len(night.brain) * 30
            file.attrs["start_time"] = int(start.timestamp())
            file.attrs["events_description"] = "[]"
    lists = []
    for number, found in enumerate(scorings.lists, start=1):
        lists.append(destination / f"scorer_{number}" / f"{plan.record}.json")
        write_text_atomic(lists[-1], json.dumps(found.tolist()))
    return signals, *lists
