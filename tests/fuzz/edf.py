"""EDF signals, EDF+ hypnograms and tables of labels, through the adapters of Sleep-EDF and of described corpora."""

from __future__ import annotations

import csv
import datetime
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import edf_files
import numpy as np

from fuzz.mutation import TEXT_MUTATORS, Content, Rng, hostile_number, pick
from fuzz.nights import AnyMutator, Files, NightTarget, Read, stages_at_middles
from tusp.datasets.corpora.described import Described, parse_description
from tusp.datasets.corpora.sedf_sc import SedfSc
from tusp.datasets.corpora.sleep_edf import LABEL_MAP
from tusp.datasets.recording import Adapter

SECONDS = 150
LATER = edf_files.START + datetime.timedelta(days=40)
_MAIN = ((0, 8), (8, 80), (88, 80), (168, 8), (176, 8), (184, 8), (192, 44), (236, 8), (244, 8), (252, 4))
_WIDTHS = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)
_TO_MICROVOLTS = {"nv": 1e-3, "uv": 1.0, "mv": 1e3, "v": 1e6}
_LABELS = [
    *LABEL_MAP,
    "Sleep stage N2",
    "Sleep stage",
    "W",
    "",
    "Lights off@@EEG F4-A1",
    "é",
    "Sleep stage W\x15",
    "\x15",
]
_TEXTS = (b"X X X X", b"", b"\xff" * 8, b"Startdate 30-FEB-2001", b"EDF+C", b"EDF+D", b"EDF Annotations", b"EEG Fpz-Cz",
          b"EEG Pz-Oz", b"uV", b"mV", b"UV", b"\xb5V", b"\xc2\xb5V", b"DegC", b"99.99.99", b"01.01.85", b"00.00.00",
          b"tusp", b"\x1b[2J", b"a\nb")  # fmt: skip


def _field(raw: bytes, start: int, width: int, value: bytes) -> bytes:
    return raw[:start] + value[:width].ljust(width)[:width] + raw[start + width :]


def _n_signals(raw: bytes) -> int:
    try:
        return max(0, min(int(raw[252:256]), 64))
    except ValueError:
        return 0


def one_field(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    """Another value in one field of the header."""
    count = _n_signals(raw)
    fields = list(_MAIN)
    position = 256
    for width in _WIDTHS:
        fields += [(position + index * width, width) for index in range(count)]
        position += width * count
    start, width = fields[pick(rng, fields)] if rng.random() < 0.7 else _MAIN[int(rng.integers(5, 10))]
    value = hostile_number(rng) if rng.random() < 0.7 else _TEXTS[pick(rng, _TEXTS)]
    if rng.random() < 0.3:
        try:
            number = float(raw[start : start + width])
            near = (number + 1, number - 1, -number, number * 2, number / 2, number * 10, number + 0.5)
            value = f"{near[pick(rng, near)]:g}".encode()
        except ValueError:
            pass
    return _field(raw, start, width, value), f"field at {start} set to {value[:width]!r}"


def many_signals(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    """Another number of signals, with a length of the header that fits it."""
    count = (0, 1, _n_signals(raw) + 1, _n_signals(raw) - 1, 64, 999, 9999)[int(rng.integers(7))]
    changed = _field(_field(raw, 252, 4, str(count).encode()), 184, 8, str(256 * (count + 1)).encode())
    return changed, f"{count} signals"


def doubled_signal(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    """One column of the signal headers copied over another, in all or some of its fields."""
    count = _n_signals(raw)
    if count < 2:
        return one_field(raw, rng)
    one, other = int(rng.integers(count)), int(rng.integers(count))
    position = 256
    for width in _WIDTHS:
        if rng.random() < 0.6:
            source = raw[position + one * width : position + (one + 1) * width]
            raw = _field(raw, position + other * width, width, source)
        position += width * count
    return raw, f"header of signal {one} copied over {other}"


def records(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    """Data records swapped, doubled, lost, with or without the header's number following."""
    count = _n_signals(raw)
    header = 256 * (count + 1)
    try:
        number = max(1, int(raw[236:244]))
    except ValueError:
        number = 1
    width = max(2, (len(raw) - header) // number)
    parts = [raw[i : i + width] for i in range(header, len(raw), width)] or [b""]
    one, other, kind = pick(rng, parts), pick(rng, parts), int(rng.integers(4))
    if kind == 0:
        parts[one], parts[other] = parts[other], parts[one]
    elif kind == 1:
        parts.insert(other, parts[one])
    elif kind == 2:
        del parts[one]
    else:
        parts[one] = parts[one][: len(parts[one]) // 2]
    head = raw[:header]
    if rng.random() < 0.5:
        stated = (len(parts), -1, len(parts) + 1)[int(rng.integers(3))]
        head = _field(head, 236, 8, str(stated).encode())
    return head + b"".join(parts), f"data records {('swapped', 'doubled', 'lost', 'halved')[kind]}"


def cut_at_a_seam(raw: bytes, rng: Rng) -> tuple[bytes, str, bool]:
    """The file ends where a part of it ends, or one byte beside; the header still states all records."""
    header = 256 * (_n_signals(raw) + 1)
    seams = [0, 1, 8, 255, 256, 257, header - 1, header, header + 1, len(raw) // 2, len(raw) - 1, len(raw) - 2]
    seam = max(0, min(seams[pick(rng, seams)], len(raw)))
    return raw[:seam], f"cut at {seam}", True


def annotation_text(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    """Something else in the annotations; the size of the data records stays as it is."""
    header = 256 * (_n_signals(raw) + 1)
    body, length = raw[header:], len(raw) - header
    kind = int(rng.integers(5))
    if kind <= 1:
        body, said, *_ = TEXT_MUTATORS[pick(rng, TEXT_MUTATORS)](body, rng)
    elif kind == 2:
        old, new = (label.encode() for label in (_LABELS[int(rng.integers(8))], _LABELS[pick(rng, _LABELS)]))
        body, said = body.replace(old, new, 1), f"{old!r} replaced by {new!r}"
    elif kind == 3:
        separators = (b"\x14", b"\x15", b"\0", b"+", b"\x14\x14")
        old, new = separators[pick(rng, separators)], separators[pick(rng, separators)]
        place = body.find(old, int(rng.integers(max(1, len(body)))))
        if place >= 0:
            body = body[:place] + new + body[place + len(old) :]
        said = f"{old!r} at {place} replaced by {new!r}"
    else:
        label = _LABELS[pick(rng, _LABELS)].encode()
        extra = b"+" + hostile_number(rng) + b"\x15" + hostile_number(rng) + b"\x14" + label + b"\x14\0"
        end = len(body.rstrip(b"\0")) + 1
        body, said = body[:end] + extra + body[end:], f"{extra[:40]!r} appended"
    return raw[:header] + body[:length].ljust(length, b"\0"), f"annotations: {said}"


def _printable(text: str) -> str:
    """What stands for a control character in the hypnograms that tusp reads."""
    return "".join(character if character.isprintable() else "?" for character in text)


def second_reader(
    raw: bytes,
) -> tuple[float, dict[str, tuple[float, np.ndarray]], list[tuple[float, float | None, str]]]:
    """Seconds, signals by label, and annotations of EDF bytes, read in the plainest way."""

    def number(field: bytes) -> float:
        return float(field.strip(b" \0").replace(b",", b".").decode("ascii"))

    count, stated, length = int(raw[252:256].strip(b" \0")), int(raw[236:244].strip(b" \0")), number(raw[244:252])
    columns, position = [], 256
    for width in _WIDTHS:
        columns.append([raw[position + i * width : position + (i + 1) * width] for i in range(count)])
        position += width * count
    per_record = [int(field.strip(b" \0")) for field in columns[8]]
    n_records = stated if stated >= 0 else (len(raw) - position) // (2 * sum(per_record))
    body = np.frombuffer(raw, "<i2", n_records * sum(per_record), position).reshape(n_records, -1)
    signals: dict[str, tuple[float, np.ndarray]] = {}
    annotations: list[tuple[float, float | None, str]] = []
    zero: float | None = None
    for index in range(count):
        first = sum(per_record[:index])
        block = body[:, first : first + per_record[index]]
        label = columns[0][index].strip(b" \0").decode("latin-1")
        if label == "EDF Annotations":
            for record in block:
                for tal in record.tobytes().split(b"\0"):
                    if not tal.strip():
                        continue
                    times, _, rest = tal.partition(b"\x14")
                    onset, _, duration = times.partition(b"\x15")
                    texts = rest.split(b"\x14")[:-1]
                    if zero is None:
                        zero = 0.0 if any(texts) else float(onset)
                    for text in filter(None, (text.strip(b" \0") for text in texts)):
                        run = (float(onset), float(duration) if duration else None, _printable(text.decode("latin-1")))
                        annotations.append(run)
            continue
        try:
            (low, high), (bottom, top) = ([number(columns[c][index]) for c in pair] for pair in ((3, 4), (5, 6)))
            gain = (high - low) / (top - bottom)
            factor = _TO_MICROVOLTS.get(columns[2][index].strip(b" \0").decode("latin-1").casefold(), 1.0)
        except (ValueError, ZeroDivisionError):
            continue
        values = ((block.reshape(-1).astype(np.float64) - bottom) * gain + low) * factor
        signals[" ".join(label.split()).casefold()] = (per_record[index] / length if length else 0.0, values)
    return n_records * length, signals, [(onset - (zero or 0.0), length, text) for onset, length, text in annotations]


def edf_truth(psg: bytes, aliases: Mapping[str, Sequence[str]]) -> tuple[int, dict[str, tuple[float, np.ndarray]]]:
    """Whole epochs and canonical channels of an EDF file by the second reader."""
    seconds, signals, _ = second_reader(psg)
    samples = {}
    for name, labels in aliases.items():
        for label in labels:
            if label.casefold() in signals:
                samples[name] = signals[label.casefold()]
                break
    return int(seconds / 30 + 1e-9), samples


def _hypnogram(path: Path, **header: object) -> None:
    stages = ["Sleep stage W", "Sleep stage 1", "Sleep stage 2", "Sleep stage 3", "Sleep stage R"]
    runs = [(30.0 * epoch, 30.0, stage) for epoch, stage in enumerate(stages)]
    edf_files.write_hypnogram(path, [*runs, (150.0, 86250.0, "Sleep stage ?")], **header)  # type: ignore[arg-type]


class EdfTarget(NightTarget):
    """Signals of Sleep-EDF."""

    name = "edf"
    victim = "PSG"

    def make_adapter(self) -> Adapter:
        return SedfSc()

    def writers(self) -> Sequence[Callable[[Path], None]]:
        def night(folder: Path) -> None:
            edf_files.write_psg(folder / "SC4001E0-PSG.edf", seconds=SECONDS)
            _hypnogram(folder / "SC4001EC-Hypnogram.edf")

        return [night]

    def write_beside(self, folder: Path) -> None:
        edf_files.write_psg(folder / "SC4021E0-PSG.edf", seconds=60, start=LATER, seed=1)
        _hypnogram(folder / "SC4021EC-Hypnogram.edf", start=LATER)

    def victims(self, files: Files) -> Sequence[str]:
        return [name for name in files if self.victim in name]

    def mutators(self, name: str) -> Sequence[AnyMutator]:
        return (one_field, one_field, one_field, many_signals, doubled_signal, records, cut_at_a_seam)

    def truth(self, root: Path, baseline: Read, files: Mapping[str, Content]) -> Read:
        psg, labels = ((root / name).read_bytes() for name in files)
        n_epochs, samples = edf_truth(psg, {"Fpz-Cz": ("EEG Fpz-Cz", "Fpz-Cz"), "Pz-Oz": ("EEG Pz-Oz", "Pz-Oz"),
                                            "horizontal": ("EOG horizontal", "horizontal")})  # fmt: skip
        runs = second_reader(labels)[2]
        return Read(stages=stages_at_middles(runs, LABEL_MAP, n_epochs), samples=samples)


class EdfLabelsTarget(EdfTarget):
    """Hypnograms of Sleep-EDF."""

    name = "edf-hypnogram"
    victim = "Hypnogram"

    def mutators(self, name: str) -> Sequence[AnyMutator]:
        return (one_field, records, cut_at_a_seam, *[annotation_text] * 5)


DESCRIPTION = """
[corpus]
title = "Nights of our laboratory"
licence = "none: own data"
access = "private"
[signals]
files = "*.edf"
[labels]
files = "{folder}/{stem}.csv"
[labels.stages]
W = "W"
N1 = "N1"
N2 = "N2"
N3 = "N3"
R = "REM"
"?" = "unscored"
[subject]
pattern = '^(?P<subject>p\\d+)'
[channels.Fpz-Cz]
names = ["EEG Fpz-Cz"]
group = "EEG"
[channels.E1]
names = ["EOG horizontal"]
group = "EOG"
"""
CSV = "onset_seconds,duration_seconds,stage\n0,30,W\n30,30,N1\n60,30,N2\n90,30.0,R\n120,30,?\n"


def _table(text: str) -> list[tuple[float, float | None, str]]:
    rows = [row for row in csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")) if any(map(str.strip, row))]
    order = [0, 1, 2]
    try:
        float(rows[0][0])
    except ValueError:
        head = [cell.strip().casefold() for cell in rows.pop(0)]
        if "duration_seconds" not in head:
            places = [head.index(name) for name in ("onset_seconds", "stage")]
            starts = [(float(row[places[0]]), row[places[1]].strip()) for row in rows]
            later = [min((other for other, _ in starts if other > onset), default=onset + 30) for onset, _ in starts]
            return [(onset, end - onset, label) for (onset, label), end in zip(starts, later, strict=True)]
        order = [head.index(name) for name in ("onset_seconds", "duration_seconds", "stage")]
    cells = [[row[column].strip() for column in order] for row in rows]
    return [(float(onset), float(duration), label) for onset, duration, label in cells]


class CsvTarget(EdfTarget):
    """Tables of labels beside EDF signals, as a description says."""

    name = "csv"
    victim = ".csv"

    def make_adapter(self) -> Adapter:
        return Described(name="mine", description=parse_description(DESCRIPTION, "mine.toml"))

    def writers(self) -> Sequence[Callable[[Path], None]]:
        def night(folder: Path, header: bool = True) -> None:
            edf_files.write_psg(folder / "p1.edf", seconds=SECONDS)
            (folder / "p1.csv").write_text(CSV if header else CSV[CSV.index("\n") + 1 :])

        return [night, lambda folder: night(folder, False)]

    def write_beside(self, folder: Path) -> None:
        edf_files.write_psg(folder / "p2.edf", seconds=60, start=LATER, seed=1)
        (folder / "p2.csv").write_text(CSV)

    def mutators(self, name: str) -> Sequence[AnyMutator]:
        return TEXT_MUTATORS

    def truth(self, root: Path, baseline: Read, files: Mapping[str, Content]) -> Read:
        labels, psg = (root / name for name in sorted(files))
        n_epochs, samples = edf_truth(psg.read_bytes(), {"Fpz-Cz": ("EEG Fpz-Cz",), "E1": ("EOG horizontal",)})
        runs = _table(labels.read_bytes().decode("utf-8"))
        if not all(math.isfinite(onset) for onset, _, _ in runs):
            raise ValueError("an onset that is no number")
        stages = stages_at_middles(runs, {"W": 0, "N1": 1, "N2": 2, "N3": 3, "R": 4, "?": -1}, n_epochs)
        return Read(stages=stages, samples=samples)
