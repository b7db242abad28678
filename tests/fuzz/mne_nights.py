"""Signals that MNE reads (BDF, BrainVision, FIF) in a described corpus.

There is no second reader of these formats here: what is held is that nothing but a refusal or a finite night of the
stated length comes out, and that the labels stay what they were.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fuzz.edf import CSV, DESCRIPTION, many_signals, one_field
from fuzz.mutation import TEXT_MUTATORS, Content, Rng, pick
from fuzz.nights import AnyMutator, Files, NightTarget, Read
from tusp.datasets.corpora.described import Described, parse_description
from tusp.datasets.recording import Adapter

LABELS = ("EEG Fpz-Cz", "EOG horizontal")
RATE = 64
SECONDS = 150


def _values(seed: int, seconds: int) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).normal(0, 30, (len(LABELS), seconds * RATE)), -180, 180)


def write_bdf(path: Path, seed: int, seconds: int = SECONDS) -> None:
    import pyedflib

    with pyedflib.EdfWriter(str(path), len(LABELS), file_type=pyedflib.FILETYPE_BDF) as writer:
        for index, label in enumerate(LABELS):
            writer.setSignalHeader(
                index,
                {
                    "label": label,
                    "dimension": "uV",
                    "sample_frequency": RATE,
                    "physical_max": 200,
                    "physical_min": -200,
                    "digital_max": 8388607,
                    "digital_min": -8388608,
                    "transducer": "",
                    "prefilter": "",
                },
            )
        writer.writeSamples(list(_values(seed, seconds)))


def write_brainvision(path: Path, seed: int, seconds: int = SECONDS) -> None:
    path.with_suffix(".eeg").write_bytes((_values(seed, seconds).T * 10).astype("<i2").tobytes())
    channels = "\n".join(f"Ch{index}={label},,0.1,µV" for index, label in enumerate(LABELS, start=1))
    path.with_suffix(".vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={path.stem}.eeg\n[Marker Infos]\nMk1=New Segment,,1,1,0,20200101220000000000\n",
        encoding="utf-8",
    )
    path.write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={path.stem}.eeg\nMarkerFile={path.stem}.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\n"
        f"NumberOfChannels={len(LABELS)}\nSamplingInterval={1e6 / RATE:g}\n[Binary Infos]\nBinaryFormat=INT_16\n"
        f"[Channel Infos]\n{channels}\n",
        encoding="utf-8",
    )


def write_fif(path: Path, seed: int, seconds: int = SECONDS) -> None:
    import mne

    info = mne.create_info(list(LABELS), RATE, ["eeg", "eog"])
    raw = mne.io.RawArray(_values(seed, seconds) * 1e-6, info, verbose="error")
    raw.save(path, verbose="error")


def fif_tag(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    """Another number in the header of one tag."""
    places, at = [], 0
    while at + 16 <= len(raw) and len(places) < 500:
        places.append(at)
        size = struct.unpack(">i", raw[at + 8 : at + 12])[0]
        if size < 0:
            break
        at += 16 + size
    place = places[pick(rng, places)] + 4 * int(rng.integers(4)) if places else 0
    value = int(
        rng.choice([-1, 0, 1, 3, 4, 100, 101, 102, 104, 105, 115, 200, 201, 300, 2**16, 2**30, 2**31 - 1, -(2**31)])
    )
    return raw[:place] + struct.pack(">i", value) + raw[place + 4 :], f"{value} at byte {place}"


class MneTarget(NightTarget):
    """What these formats share."""

    without_signals_no_night = True
    suffix: str
    known: Sequence[AnyMutator]
    write: Callable[..., None]

    def make_adapter(self) -> Adapter:
        text = DESCRIPTION.replace("*.edf", f"*{self.suffix}")
        return Described(name="mine", description=parse_description(text, "mine.toml"))

    def _night(self, folder: Path, name: str, seed: int) -> None:
        type(self).write(folder / f"{name}{self.suffix}", seed)
        (folder / f"{name}{self.suffix}").with_suffix(".csv").write_text(CSV)

    def writers(self) -> Sequence[Callable[[Path], None]]:
        return [lambda folder: self._night(folder, "p1", 1)]

    def write_beside(self, folder: Path) -> None:
        self._night(folder, "p2", 2)

    def victims(self, files: Files) -> Sequence[str]:
        return [name for name in files if not name.endswith(".csv")]

    def mutators(self, name: str) -> Sequence[AnyMutator]:
        return TEXT_MUTATORS if name.endswith((".vhdr", ".vmrk")) else self.known

    def truth(self, root: Path, baseline: Read, files: Mapping[str, Content]) -> Read | None:
        return None


class BdfTarget(MneTarget):
    """BDF."""

    name = "mne-bdf"
    suffix = ".bdf"
    known = (one_field, one_field, many_signals)
    write = staticmethod(write_bdf)


class BrainVisionTarget(MneTarget):
    """BrainVision: header, markers and samples in three files."""

    name = "mne-brainvision"
    suffix = ".vhdr"
    known = ()
    write = staticmethod(write_brainvision)


class FifTarget(MneTarget):
    """FIF."""

    name = "mne-fif"
    suffix = ".fif"
    known = (fif_tag,)
    write = staticmethod(write_fif)
