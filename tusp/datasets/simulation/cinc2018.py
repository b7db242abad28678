"""Simulated nights in the files of the CinC Challenge 2018: ``training/trXX-NNNN/`` with a WFDB record and its labels.

Header lines end in CRLF, samples are 16-bit numbers behind the 24 bytes of a MATLAB 4 header, stages are annotations at
changes among breathing events, the first minutes are unscored, most records are no whole number of epochs long, some
are scored from the first sample on. ``-arousal.mat`` (HDF5 with MATLAB's user block) has a column for each stage in
which changes come one sample early and the last sample is undefined.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tusp.datasets.simulation import body
from tusp.datasets.simulation.hdf5 import new_hdf5
from tusp.datasets.simulation.hypnogram import Night
from tusp.datasets.simulation.montage import Derivation, Potentials, draw_potentials
from tusp.datasets.simulation.person import Person
from tusp.datasets.simulation.plan import EXTRAS, QUIRKS, SIGNALS, SIMULATED_FLAG, NightPlan, draw_person, draw_truth
from tusp.datasets.simulation.signals import chin_muscle
from tusp.platform.files import atomic_path
from tusp.platform.stages import EPOCH_SECONDS, UNSCORED

RATE_HZ: Final = 200
LINE_HZ: Final = 60.0
SAMPLES_PER_EPOCH: Final = EPOCH_SECONDS * RATE_HZ


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How a channel is stored: ``value * gain + baseline``, rounded."""

    gain: float
    text: str
    """Gain, baseline and unit as the header has them."""
    baseline: int = 0


MICROVOLTS: Final = Scale(gain=1, text="1/uV")
CHANNELS: Final = {
    **dict.fromkeys(("F3-M2", "F4-M1", "C3-M2", "C4-M1", "O1-M2", "O2-M1", "E1-M2"), MICROVOLTS),
    **dict.fromkeys(("Chin1-Chin2", "ABD", "CHEST", "AIRFLOW"), MICROVOLTS),
    "SaO2": Scale(gain=655.35, baseline=-32768, text="655.35(-32768)/%"),
    "ECG": Scale(gain=1000, text="1000/mV"),
}
DERIVED: Final = {
    name: Derivation(plus=name[:2], minus=name[3:], rate_hz=RATE_HZ) for name in CHANNELS if name[2:4] == "-M"
}

STAGE_NOTES: Final = {0: "W", 1: "N1", 2: "N2", 3: "N3", 4: "R"}
COLUMNS: Final = {"undefined": UNSCORED, "nonrem3": 3, "nonrem2": 2, "nonrem1": 1, "rem": 4, "wake": 0}
SUBTYPES: Final = {"W": 5, "N1": 3, "N2": 2, "N3": 1, "R": 4}

_NOTE, _SKIP, _SUB, _CHAN, _AUX = 22, 59, 61, 62, 63
_MAT4_INT16: Final = 30

Note = tuple[int, str]
"""Sample and text of an annotation."""


def prefixes(plan: NightPlan) -> list[str]:
    """What the names of the night's files begin with."""
    return [f"training/{plan.record}/{plan.record}"]


def length_of(plan: NightPlan, night: Night) -> int:
    """Samples of the record: all epochs and, in seven nights of eight, a part of another."""
    random = plan.random(QUIRKS)
    rest = int(random.integers(1, SAMPLES_PER_EPOCH)) if random.random() < 0.88 else 0
    return len(night.stages) * SAMPLES_PER_EPOCH + rest


def draw_record(
    plan: NightPlan, night: Night, person: Person
) -> tuple[dict[str, npt.NDArray[np.float32]], list[body.BreathingEvent]]:
    """Samples of every channel in its unit, float32 [samples], and the breathing events."""
    n_samples = length_of(plan, night)
    longer = Night(
        stages=np.append(night.stages, night.stages[-1]),
        brain=np.append(night.brain, night.brain[-1]),
        names=(*night.names, night.names[-1]),
    )
    potentials = draw_potentials(
        longer,
        person,
        plan.stream(SIGNALS, plan.night),
        electrodes=(electrode for one in DERIVED.values() for electrode in (one.plus, one.minus)),
        line_hz=LINE_HZ,
    )
    random = plan.random(EXTRAS)
    events = body.breathing_events(plan.corpus, potentials, random)
    depth = body.breath_depth(potentials.seconds, events)
    channels = {}
    for name in CHANNELS:
        if name in DERIVED:
            samples = potentials.derive(DERIVED[name])
        else:
            samples = _other(name, potentials, person, events, depth, random)
        channels[name] = samples[:n_samples]
    end = n_samples / RATE_HZ
    return channels, [event for event in events if event.start + event.duration < end]


def _other(
    name: str,
    potentials: Potentials,
    person: Person,
    events: list[body.BreathingEvent],
    depth: npt.NDArray[np.float64],
    random: np.random.Generator,
) -> npt.NDArray[np.float32]:
    match name:
        case "Chin1-Chin2":
            return body.muscle_waveform(4 * chin_muscle(potentials, person, random), random, RATE_HZ)
        case "SaO2":
            return body.stretched(body.saturation(potentials.seconds, events, random), RATE_HZ)
        case "ECG":
            return body.heart(potentials, random, RATE_HZ)
        case "AIRFLOW":
            return np.float32(200) * body.breath(potentials, depth, random, RATE_HZ)
        case _:
            return np.float32(400) * body.breath(potentials, 0.3 + 0.7 * depth, random, RATE_HZ)


def stored(name: str, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """The channel as 16-bit numbers; what exceeds the range saturates, and -32768 means missing."""
    scale = CHANNELS[name]
    values = np.rint(samples.astype(np.float64) * scale.gain + scale.baseline)
    return np.clip(values, -32767, 32767).astype("<i2")


def stage_notes(stages: npt.NDArray[np.int8]) -> list[Note]:
    """Where a stage begins, and which."""
    found: list[Note] = []
    epoch = 0
    for stage, run in groupby(stages.tolist()):
        if stage != UNSCORED:
            found.append((epoch * SAMPLES_PER_EPOCH, STAGE_NOTES[stage]))
        epoch += len(list(run))
    return found


def event_notes(events: Sequence[body.BreathingEvent]) -> list[Note]:
    """Beginning and end of every breathing event."""
    found: list[Note] = []
    for event in events:
        start = round(event.start * RATE_HZ)
        found.append((start, f"(resp_{event.kind}"))
        found.append((start + round(event.duration * RATE_HZ), f"resp_{event.kind})"))
    return found


def annotation_bytes(notes: Sequence[Note]) -> bytes:
    """Annotations in the MIT format (annot(5) of the WFDB Applications Guide), as the challenge's own files begin.

    Written here because ``wfdb.wrann`` and its reader lose a note at sample 0.
    """
    title = f"## time resolution: {RATE_HZ}"
    words = [_word(_NOTE, 0), _aux(title), _skip(-1), _word(0, 1)]
    before = 0
    channel = 0
    for sample, text in sorted(notes, key=lambda note: note[0]):
        step = sample - before
        if step > 1023:
            words.append(_skip(step))
            step = 0
        words.append(_word(_NOTE, step))
        if text in SUBTYPES:
            words.append(_word(_SUB, SUBTYPES[text]))
        wanted = 0 if text in SUBTYPES else 1
        if wanted != channel:
            words.append(_word(_CHAN, wanted))
            channel = wanted
        words.append(_aux(text))
        before = sample
    return b"".join([*words, b"\0\0"])


def _word(code: int, value: int) -> bytes:
    return struct.pack("<H", code << 10 | value & 0x3FF)


def _skip(samples: int) -> bytes:
    high, low = (samples >> 16) & 0xFFFF, samples & 0xFFFF
    return _word(_SKIP, 0) + struct.pack("<HH", high, low)


def _aux(text: str) -> bytes:
    raw = text.encode("ascii")
    return _word(_AUX, len(raw)) + raw + b"\0" * (len(raw) % 2)


def header_text(record: str, channels: dict[str, npt.NDArray[np.int16]]) -> str:
    """The WFDB header: 16-bit samples behind 24 bytes."""
    n_samples = len(next(iter(channels.values())))
    lines = [f"{record} {len(channels)} {RATE_HZ} {n_samples}"]
    for name, data in channels.items():
        checksum = int(np.sum(data, dtype=np.int64)) & 0xFFFF
        checksum -= 0x10000 if checksum > 0x7FFF else 0
        lines.append(f"{record}.mat 16+24 {CHANNELS[name].text} 16 0 {int(data[0])} {checksum} 0 {name}")
    lines.append(f"# {SIMULATED_FLAG}")
    return "".join(f"{line}\r\n" for line in lines)


def write_night(plan: NightPlan, destination: Path) -> tuple[Path, ...]:
    """Make one night and write its four files (signals first), each whole or not at all.

    Returns:
        Paths of signals, header, annotations and columns.
    """
    person = draw_person(plan)
    night = draw_truth(plan, person)
    samples, events = draw_record(plan, night, person)
    channels = {name: stored(name, data) for name, data in samples.items()}
    del samples
    n_samples = length_of(plan, night)
    folder = destination / "training" / plan.record
    signals, header, annotations, columns = (
        folder / f"{plan.record}{end}" for end in (".mat", ".hea", ".arousal", "-arousal.mat")
    )
    with atomic_path(signals) as path, path.open("wb") as stream:
        stream.write(struct.pack("<5I", _MAT4_INT16, len(channels), n_samples, 0, 4) + b"val\0")
        stream.write(np.stack(list(channels.values()), axis=1).tobytes())
    with atomic_path(header) as path:
        path.write_bytes(header_text(plan.record, channels).encode("ascii"))
    with atomic_path(annotations) as path:
        path.write_bytes(annotation_bytes([*stage_notes(night.stages), *event_notes(events)]))
    _write_columns(columns, night, events, n_samples)
    return signals, header, annotations, columns


def _write_columns(destination: Path, night: Night, events: Sequence[body.BreathingEvent], n_samples: int) -> None:
    """One column of 0 and 1 for each stage, and the arousal target, as MATLAB 7.3 stores them."""
    last = np.repeat(night.stages, SAMPLES_PER_EPOCH)
    by_sample = np.full(n_samples, night.stages[-1], dtype=np.int8)
    # stages change one sample early, and the last sample has none
    by_sample[: len(last) - 1] = last[1:]
    by_sample[-1] = UNSCORED
    arousals = np.where(by_sample > 0, 0.0, -1.0)
    for event in events:
        arousals[round(event.start * RATE_HZ) : round((event.start + event.duration) * RATE_HZ)] = 1.0
    block = f"MATLAB 7.3 MAT-file, {SIMULATED_FLAG}, HDF5 schema 1.00 .".encode("ascii").ljust(124)
    with new_hdf5(destination, userblock=(block + b"\0\2IM").ljust(512, b"\0")) as file:
        group = file.create_group("data/sleep_stages")
        for node in (file["data"], group):
            node.attrs["MATLAB_class"] = np.bytes_(b"struct")
        for name, stage in COLUMNS.items():
            column = _column(group, name, (by_sample == stage).astype(np.uint8)[None])
            column.attrs["MATLAB_class"] = np.bytes_(b"logical")
            column.attrs["MATLAB_int_decode"] = np.int32(1)
        target = _column(file["data"], "arousals", arousals[:, None])
        target.attrs["MATLAB_class"] = np.bytes_(b"double")


def _column(group: Any, name: str, data: npt.NDArray[Any]) -> Any:
    chunks = tuple(min(65_536, size) for size in data.shape)
    return group.create_dataset(
        name, data=data, chunks=chunks, compression="gzip", compression_opts=1, track_times=False
    )
