# ruff: noqa: E501 - tables of hostile values read better with one case a line
"""WFDB records of cinc2018: headers, samples, annotations, and the labels in HDF5 beside them."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from fuzz.hdf5 import Hdf5Mutator
from fuzz.mutation import TEXT_MUTATORS, Content, Rng, hostile_number, pick
from fuzz.nights import AnyMutator, Files, NightTarget, Read, stages_at_middles
from tusp.datasets.corpora.cinc2018 import Cinc2018
from tusp.datasets.recording import Adapter

CHANNELS = ("F3-M2", "F4-M1", "C3-M2", "C4-M1", "O1-M2", "O2-M1", "E1-M2", "SaO2")
RATE = 200
CODES = {"W": 0, "N1": 1, "N2": 2, "N3": 3, "R": 4}
COLUMNS = {"wake": 0, "nonrem1": 1, "nonrem2": 2, "nonrem3": 3, "rem": 4, "undefined": -1}
_TO_MICROVOLTS = {"uv": 1.0, "mv": 1e3, "v": 1e6, "nv": 1e-3}


def annotation(delta: int, note: str) -> bytes:
    """One note, ``delta`` samples after the one before."""
    text = note.encode() + b"\0" * (len(note) % 2)
    skip = struct.pack("<H", 59 << 10) + struct.pack("<HH", delta >> 16, delta & 0xFFFF) if delta > 1023 else b""
    return skip + struct.pack("<HH", 22 << 10 | (0 if skip else delta), 63 << 10 | len(note)) + text


def write_record(folder: Path, name: str, *, n_samples: int, seed: int, notes: bool, one_hot: bool) -> None:
    """A record of the challenge as it was published; stages change every epoch after one without."""
    rng = np.random.default_rng(seed)
    stored = np.clip(rng.normal(0, 40, (n_samples, len(CHANNELS))), -300, 300).astype("<i2")
    folder.mkdir(parents=True, exist_ok=True)
    matlab = struct.pack("<5I", 30, len(CHANNELS), n_samples, 0, 4) + b"val\0"
    (folder / f"{name}.mat").write_bytes(matlab + stored.tobytes())
    lines = [f"{name} {len(CHANNELS)} {RATE} {n_samples}"]
    for index, channel in enumerate(CHANNELS):
        gain = "655.35(-32768)/%" if channel == "SaO2" else "1/uV"
        checksum = int(stored[:, index].astype(np.int64).sum()) % 2**16
        checksum -= 2**16 if checksum >= 2**15 else 0
        lines.append(f"{name}.mat 16+24 {gain} 16 0 {stored[0, index]} {checksum} 0 {channel}")
    (folder / f"{name}.hea").write_text("\r\n".join(lines) + "\r\n", newline="")
    stages = [-1, 0, 1, 2, 4][: n_samples // (30 * RATE)]
    if notes:
        names = {code: stage for stage, code in CODES.items()}
        raw, before = b"", 0
        for epoch, stage in enumerate(stages):
            if stage >= 0:
                raw += annotation(epoch * 30 * RATE - before, names[stage])
                before = epoch * 30 * RATE
                raw += annotation(500, "(resp_hypopnea") + annotation(900, "resp_hypopnea)")
                before += 1400
        (folder / f"{name}.arousal").write_bytes(raw + b"\0\0")
    if one_hot:
        full = np.full(n_samples, -1)
        for epoch, stage in enumerate(stages):
            full[max(epoch * 30 * RATE - 1, 0) : (epoch + 1) * 30 * RATE - 1] = stage
        if stages[-1] >= 0:
            full[len(stages) * 30 * RATE - 1 : -1] = stages[-1]
        with h5py.File(folder / f"{name}-arousal.mat", "w", userblock_size=512) as file:
            for column, code in COLUMNS.items():
                marks = (full == code).astype("u1")[None]
                file.create_dataset(f"data/sleep_stages/{column}", data=marks, compression="gzip")
            file.create_dataset("data/arousals", data=np.zeros((n_samples, 1)), compression="gzip")


def header_number(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    """Another number or word in one field of the header."""
    lines = raw.split(b"\r\n")
    place = 0 if rng.random() < 0.4 else pick(rng, lines)
    fields = lines[place].split(b" ")
    at = pick(rng, fields)
    values = (hostile_number(rng), b"16", b"16x2+24", b"16:3+24", b"16+0", b"16+25", b"212", b"80+24", b"24", b"1/mV", b"0/uV",
              b"-1/uV", b"1(5)/uV", b"200", b"tr01-0002.mat", b"/etc/passwd", b"../x.mat", b"~", b"200/1(0)", b"12:00:00",
              b"31/02/2001", b"tr01-0001/2", b"F3-M2", b"E1-M2", b"0", b"1e-5/uV", b"1e9/uV")  # fmt: skip
    fields[at] = values[pick(rng, values)]
    lines[place] = b" ".join(fields)
    return b"\r\n".join(lines), f"line {place} field {at} is {fields[at][:20]!r}"


def matlab_header(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    """Another number in the 24 bytes before the samples."""
    at = int(rng.integers(6)) * 4
    value = int(rng.choice([0, 1, 8, 13, 30, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1]))
    return raw[:at] + struct.pack("<I", value) + raw[at + 4 :], f"{value} at byte {at}"


def cut_samples(raw: bytes, rng: Rng) -> tuple[bytes, str, bool]:
    """Some samples are missing at the end: fewer bytes than the header states."""
    ends = (0, 1, 23, 24, 25, len(raw) // 2, len(raw) - 1, len(raw) - 2, len(raw) - 2 * len(CHANNELS))
    end = ends[pick(rng, ends)]
    return raw[:end], f"cut at {end}", True


def annotation_words(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    """Another 16-bit word, or annotations more or less."""
    words = [raw[i : i + 2] for i in range(0, len(raw), 2)]
    if not words:
        return raw, "nothing there"
    at, kind = pick(rng, words), int(rng.integers(4))
    if kind == 0:
        word = int(rng.integers(64)) << 10 | int(rng.choice([0, 1, 2, 255, 256, 1023]))
        words[at] = struct.pack("<H", word)
    elif kind == 1:
        del words[at]
    elif kind == 2:
        notes = (
            "W",
            "N1",
            "N2",
            "N3",
            "R",
            "",
            "x" * 255,
            "(resp",
            "\x1b[2J",
            "## time resolution: 100",
            "W\0N2",
            "é",
            "N9",
        )
        delta = int(rng.choice([0, 1, 999, 6000, 2**31 - 1, 2**31, 2**32 - 6000, 2**32 - 1]))
        words.insert(at, annotation(delta, notes[pick(rng, notes)]))
    else:
        words[at] = b"\0\0"
    return b"".join(words), f"word {at} {('changed', 'gone', 'doubled by a note', 'set to the end')[kind]}"


def second_reader(raw: bytes) -> list[tuple[int, str]]:
    """Samples and notes of annotation bytes, read in the plainest way."""
    notes: list[list[object]] = []
    words = np.frombuffer(raw[: len(raw) // 2 * 2], "<u2").tolist()
    sample, at = 0, 0
    while words[at] != 0:
        kind, value = words[at] >> 10, words[at] & 1023
        at += 1
        if kind == 59:
            skip = words[at] << 16 | words[at + 1]
            sample += skip - 2**32 if skip >= 2**31 else skip
            at += 2
            notes.append([sample, "", 0])
        elif kind == 63:
            value &= 255
            text = raw[2 * at : 2 * at + value].split(b"\0")[0].decode("utf-8", "replace")
            at += (value + 1) // 2
            if notes:
                notes[-1][1] = text
        elif kind <= 49:
            sample += value
            notes.append([sample, "", kind])
    return [(int(str(sample)), str(text)) for sample, text, kind in notes if kind]


class WfdbTarget(NightTarget):
    """Headers and samples."""

    name = "wfdb"
    endings: tuple[str, ...] = (".hea", ".hea", "1.mat")

    def make_adapter(self) -> Adapter:
        return Cinc2018()

    def writers(self) -> Sequence[Callable[[Path], None]]:
        def record(folder: Path, notes: bool = True, one_hot: bool = False) -> None:
            write_record(folder, "tr01-0001", n_samples=150 * RATE + 77, seed=1, notes=notes, one_hot=one_hot)

        return [record]

    def write_beside(self, folder: Path) -> None:
        write_record(folder, "tr01-0002", n_samples=60 * RATE, seed=2, notes=True, one_hot=False)

    def victims(self, files: Files) -> Sequence[str]:
        return [name for ending in self.endings for name in files if name.endswith(ending)]

    def mutators(self, name: str) -> Sequence[AnyMutator]:
        if name.endswith(".hea"):
            return (*[header_number] * 5, *TEXT_MUTATORS)
        return (matlab_header, cut_samples)

    def truth(self, root: Path, baseline: Read, files: Mapping[str, Content]) -> Read:
        header = next(root / name for name in files if name.endswith(".hea"))
        text = header.read_bytes().decode("utf-8", "replace")
        lines = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip() and not line.startswith("#")]
        first = lines[0].split()
        rate = float(first[2].split("/")[0]) if len(first) > 2 else 250.0
        rows = [line.split(maxsplit=8) for line in lines[1:]]
        raw = (root / rows[0][0]).read_bytes()
        per_frame = [int((re.search(r"x(\d+)", row[1]) or ["", "1"])[1]) for row in rows]
        offset = int((re.search(r"\+(\d+)", rows[0][1]) or ["", "0"])[1])
        n_samples = int(first[3]) if len(first) > 3 and int(first[3]) else (len(raw) - offset) // (2 * sum(per_frame))
        body = np.frombuffer(raw, "<i2", n_samples * sum(per_frame), offset).reshape(n_samples, -1)
        samples = {}
        for index, row in enumerate(rows):
            gain, _, unit = (row[2] if len(row) > 2 else "").partition("/")
            zero = re.search(r"\((.*)\)", gain)
            baseline_value = int(zero[1]) if zero else int(row[4]) if len(row) > 4 else 0
            scale = float(gain.split("(")[0] or 0) or 200.0
            begin = sum(per_frame[:index])
            column = body[:, begin : begin + per_frame[index]].reshape(-1)
            values = (
                (column.astype(np.float64) - baseline_value)
                / scale
                * _TO_MICROVOLTS.get((unit or "mV").casefold(), 1.0)
            )
            values[column == -32768] = np.nan
            samples[row[8].strip() if len(row) > 8 else f"signal {index + 1}"] = (rate * per_frame[index], values)
        n_epochs = int(n_samples / rate / 30 + 1e-9)
        return Read(stages=self._stages(root, files, rate, n_samples, n_epochs), samples=samples)

    def _stages(
        self, root: Path, files: Mapping[str, Content], rate: float, n_samples: int, n_epochs: int
    ) -> np.ndarray:
        labels = [root / name for name in files if name.endswith(".arousal") and (root / name).is_file()]
        if not labels:
            (labels,) = (root / name for name in files if name.endswith("-arousal.mat"))
            with h5py.File(labels) as file:
                columns = {key: file[f"data/sleep_stages/{key}"][()].reshape(-1) for key in COLUMNS}
            stages = np.full(n_epochs, -1, np.int8)
            for epoch in range(n_epochs):
                marks = [code for key, code in COLUMNS.items() if columns[key][int((epoch + 0.5) * 30 * rate)] != 0]
                if len(marks) == 1:
                    stages[epoch] = marks[0]
            return stages
        notes = [(sample, note.strip()) for sample, note in second_reader(labels[0].read_bytes()) if note.strip()]
        resolution = [
            float(note.split(":")[1]) for at, note in notes if note.startswith("## time resolution:") and at == 0
        ]
        ticks = resolution[0] if resolution and resolution[0] > 0 else rate
        notes = [(at, note) for at, note in notes if not (note[0] == "(" or note[-1] == ")" or note.startswith("## "))]
        notes.sort(key=lambda note: note[0])
        ends = [*(at / ticks for at, _ in notes[1:]), n_epochs * 30.0]
        runs = [(at / ticks, end - at / ticks, note) for (at, note), end in zip(notes, ends, strict=True)]
        return stages_at_middles([run for run in runs if run[0] < n_epochs * 30], CODES, n_epochs)


class AnnotationTarget(WfdbTarget):
    """Annotations."""

    name = "wfdb-annotations"
    endings = (".arousal",)

    def mutators(self, name: str) -> Sequence[AnyMutator]:
        return (annotation_words,)


class OneHotTarget(WfdbTarget):
    """Labels in HDF5, alone and beside annotations."""

    name = "cinc2018-hdf5"
    endings = ("-arousal.mat",)

    def __init__(self, workspace: Path) -> None:
        self.mutator = Hdf5Mutator()
        super().__init__(workspace)
        for files in self.seeds:
            for name, raw in files.items():
                if name.endswith("-arousal.mat"):
                    self.mutator.knows(raw)

    def writers(self) -> Sequence[Callable[[Path], None]]:
        def record(folder: Path, notes: bool) -> None:
            write_record(folder, "tr01-0001", n_samples=150 * RATE + 77, seed=1, notes=notes, one_hot=True)

        return [lambda folder: record(folder, True), lambda folder: record(folder, False)]

    def mutators(self, name: str) -> Sequence[AnyMutator]:
        return (self.mutator,)
