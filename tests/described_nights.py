"""One small night in many formats, written by libraries that tusp does not read with, or byte by byte."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import edfio
import h5py
import mne
import numpy as np
import scipy.io
import wfdb

EEG, EOG = "Fpz", "EOG horizontal"
RATE = 100
SECONDS = 300
CODES = [0, 0, 1, 2, 2, 3, 3, 4, 4, -1]
"""Stages of the ten epochs."""
NAMES = {0: "W", 1: "N1", 2: "N2", 3: "N3", 4: "R", -1: "?"}
NSRR = {
    0: "Wake|0",
    1: "Stage 1 sleep|1",
    2: "Stage 2 sleep|2",
    3: "Stage 3 sleep|3",
    4: "REM sleep|5",
    -1: "Unscored|9",
}
PROFUSION = {0: "0", 1: "1", 2: "2", 3: "3", 4: "5", -1: "9"}


def signals(seed: int = 0) -> dict[str, np.ndarray]:
    """Microvolts by channel."""
    rng = np.random.default_rng(seed)
    return {name: np.clip(rng.normal(0, 40, SECONDS * RATE), -190, 190) for name in (EEG, EOG)}


def write_bdf(path: Path, data: dict[str, np.ndarray], *, token: bool = False, eeg_unit: str = "uV") -> None:
    """The EOG at half the rate and in millivolts, beside an accelerometer at twice the rate."""
    wide = {"physical_range": (-1000, 1000)}
    edfio.Bdf(
        [
            edfio.BdfSignal(data[EEG], RATE, label=EEG, physical_dimension=eeg_unit, **wide),
            edfio.BdfSignal(
                data[EOG][::2] / 1000, RATE // 2, label=EOG, physical_dimension="mV", physical_range=(-1, 1)
            ),
            edfio.BdfSignal(np.zeros(SECONDS * RATE * 2), RATE * 2, label="Acc", physical_dimension="g", **wide),
        ],
        recording=edfio.Recording(equipment_code="tusp-simulated" if token else "X"),
    ).write(path)


def write_gdf(path: Path, data: dict[str, np.ndarray], *, token: bool = False) -> None:
    """GDF 1.25, data records of 1 s; a third channel at half the rate."""
    channels = [(EEG, data[EEG], RATE), (EOG, data[EOG], RATE), ("Slow", data[EOG][::2], RATE // 2)]
    identity = b"tusp-simulated" if token else b"X"
    main = b"GDF 1.25" + bytes(80) + identity.ljust(80) + b"2020010122000000" + struct.pack("<q", 256 * 4)
    main += bytes(44) + struct.pack("<qIII", SECONDS, 1, 1, len(channels))
    columns = [
        [label.encode().ljust(16) for label, _, _ in channels],
        [bytes(80)] * 3,
        [b"uV".ljust(8)] * 3,
        [struct.pack("<d", -200.0)] * 3,
        [struct.pack("<d", 200.0)] * 3,
        [struct.pack("<q", -20000)] * 3,
        [struct.pack("<q", 20000)] * 3,
        [bytes(80)] * 3,
        [struct.pack("<i", rate) for _, _, rate in channels],
        [struct.pack("<i", 3)] * 3,
        [bytes(32)] * 3,
    ]
    stored = [(values * 100).round().astype("<i2").reshape(SECONDS, rate) for _, values, rate in channels]
    events = bytes([1, RATE, 0, 0]) + bytes(4)  # a table without events
    path.write_bytes(main + b"".join(b"".join(column) for column in columns) + np.hstack(stored).tobytes() + events)


def write_fif(path: Path, data: dict[str, np.ndarray], *, token: bool = False) -> None:
    info = mne.create_info([EEG, EOG], RATE, ["eeg", "eog"])
    if token:
        info["description"] = "made by tusp-simulated"
    raw = mne.io.RawArray(np.stack([data[EEG], data[EOG]]) * 1e-6, info, verbose="error")
    raw.save(path, overwrite=True, verbose="error")


def write_set(path: Path, data: dict[str, np.ndarray], *, token: bool = False, outside: bool = False) -> None:
    """EEGLAB: samples inside the MAT-file, or in an .fdt file beside it."""
    both = np.stack([data[EEG], data[EOG]]).astype("<f4")
    if outside:
        path.with_suffix(".fdt").write_bytes(both.T.tobytes())
    eeg = {
        "setname": "night",
        "nbchan": 2.0,
        "pnts": float(both.shape[1]),
        "trials": 1.0,
        "srate": float(RATE),
        "xmin": 0.0,
        "data": path.with_suffix(".fdt").name if outside else both,
        "chanlocs": np.array([(EEG, "EEG"), (EOG, "EOG")], dtype=[("labels", "O"), ("type", "O")]),
        "chaninfo": {"plotrad": 0.5},
        "event": np.array([]),
        "urevent": np.array([]),
        "epoch": np.array([]),
        "comments": "",
    }
    scipy.io.savemat(path, {"EEG": eeg}, appendmat=False, do_compression=True)


def write_brainvision(path: Path, data: dict[str, np.ndarray], *, token: bool = False, pauses: int = 0) -> None:
    stem = path.stem
    both = np.stack([data[EEG], data[EOG] / 1000], axis=1)
    path.with_suffix(".eeg").write_bytes((both / [0.01, 0.00001]).round().astype("<i2").tobytes())
    markers = "".join(f"Mk{2 + i}=New Segment,,{1000 * (i + 1)},1,0\n" for i in range(pauses))
    path.with_suffix(".vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={stem}.eeg\n[Marker Infos]\nMk1=New Segment,,1,1,0,20200101220000000000\n{markers}"
    )
    path.write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n"
        f"[Common Infos]\nCodepage=UTF-8\nDataFile={stem}.eeg\nMarkerFile={stem}.vmrk\nDataFormat=BINARY\n"
        f"DataOrientation=MULTIPLEXED\nNumberOfChannels=2\nSamplingInterval={1_000_000 // RATE}\n"
        f"[Binary Infos]\nBinaryFormat=INT_16\n[Channel Infos]\nCh1={EEG},,0.01,µV\nCh2={EOG},,0.00001,mV\n"
        f"[Comment]\n{'tusp-simulated' if token else 'a night'}\n",
        encoding="utf-8",
    )


def write_wfdb(path: Path, data: dict[str, np.ndarray], *, token: bool = False, fmt: str = "16") -> None:
    wfdb.wrsamp(
        path.stem,
        fs=RATE,
        units=["uV", "mV"],
        sig_name=[EEG, EOG],
        p_signal=np.stack([data[EEG], data[EOG] / 1000], axis=1),
        fmt=[fmt, fmt],
        comments=["tusp-simulated"] if token else [],
        write_dir=str(path.parent),
    )


def write_mat_record(path: Path, data: dict[str, np.ndarray], *, token: bool = False) -> None:
    """As the records of the CinC Challenge 2018: samples of format 16 behind 24 bytes of a MAT-file, lines end CRLF."""
    both = np.stack([data[EEG], data[EOG]], axis=1).round().astype("<i2")
    path.with_suffix(".mat").write_bytes(bytes(24) + both.tobytes())
    lines = [f"{path.stem} 2 {RATE} {len(both)}"]
    lines += [f"{path.stem}.mat 16+24 1/uV 16 0 {both[0, i]} 0 0 {name}" for i, name in enumerate((EEG, EOG))]
    path.write_bytes("".join(f"{line}\r\n" for line in [*lines, *(["# tusp-simulated"] if token else [])]).encode())


def write_hdf5(path: Path, data: dict[str, np.ndarray], *, token: bool = False, labels: Any = None) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("signals/eeg")
        group.attrs["fs"] = float(RATE)
        group.create_dataset("Fpz", data=data[EEG].astype(np.float32), compression="gzip")
        eog = file.create_dataset("signals/eog/horizontal", data=(data[EOG][None, ::2] / 1000))
        eog.attrs["fs"] = np.array([RATE // 2])
        if labels is not None:
            file.create_dataset("scoring/hypnogram", data=labels)
        if token:
            file.attrs["comment"] = "made by tusp-simulated"


def write_edf(path: Path, data: dict[str, np.ndarray], *, token: bool = False) -> None:
    edfio.Edf(
        [
            edfio.EdfSignal(data[name], RATE, label=name, physical_dimension="uV", physical_range=(-192, 192))
            for name in (EEG, EOG)
        ],
        recording=edfio.Recording(equipment_code="tusp-simulated" if token else "X"),
    ).write(path)


def write_csv(path: Path) -> None:
    path.write_text("".join(f"{30 * i},30,{NAMES[code]}\n" for i, code in enumerate(CODES)))


def write_edf_plus(path: Path) -> None:
    annotations = [edfio.EdfAnnotation(30 * i, 30, NAMES[code]) for i, code in enumerate(CODES)]
    edfio.Edf([], annotations=annotations).write(path)


def write_nsrr(path: Path) -> None:
    events = "".join(
        f"<ScoredEvent><EventType>Stages|Stages</EventType><EventConcept>{NSRR[code]}</EventConcept>"
        f"<Start>{30.0 * i}</Start><Duration>30.0</Duration></ScoredEvent>"
        for i, code in enumerate(CODES)
    )
    path.write_text(
        f'<?xml version="1.0" encoding="UTF-8"?><PSGAnnotation><SoftwareVersion>Compumedics</SoftwareVersion>'
        f"<EpochLength>30</EpochLength><ScoredEvents>{events}</ScoredEvents></PSGAnnotation>"
    )


def write_profusion(path: Path) -> None:
    stages = "".join(f"<SleepStage>{PROFUSION[code]}</SleepStage>" for code in CODES)
    path.write_text(
        f"<CMPStudyConfig><EpochLength>30</EpochLength><SleepStages>{stages}</SleepStages></CMPStudyConfig>"
    )


def write_text_list(path: Path) -> None:
    path.write_text("".join(f"{NAMES[code]}\n" for code in CODES))


def write_json_list(path: Path) -> None:
    path.write_text(json.dumps(CODES))


def write_npy_list(path: Path) -> None:
    np.save(path, np.array(CODES, np.int8))


Writer = Callable[..., None]
SIGNALS: dict[str, tuple[str, str, Writer]] = {
    "edf": (".edf", "edf", write_edf),
    "bdf": (".bdf", "mne", write_bdf),
    "gdf": (".gdf", "mne", write_gdf),
    "fif": (".fif", "mne", write_fif),
    "eeglab": (".set", "mne", write_set),
    "eeglab-fdt": (".set", "mne", lambda path, data, **more: write_set(path, data, outside=True, **more)),
    "brainvision": (".vhdr", "mne", write_brainvision),
    "wfdb-16": (".hea", "wfdb", write_wfdb),
    "wfdb-212": (".hea", "wfdb", lambda path, data, **more: write_wfdb(path, data, fmt="212", **more)),
    "wfdb-24": (".hea", "wfdb", lambda path, data, **more: write_wfdb(path, data, fmt="24", **more)),
    "wfdb-16+24": (".hea", "wfdb", write_mat_record),
    "hdf5": (".h5", "hdf5", write_hdf5),
}
"""Ending, format in a description, and writer."""

LABELS: dict[str, tuple[str, str, dict[int, str], Callable[[Path], None]]] = {
    "csv": (".csv", "csv", NAMES, write_csv),
    "edf+": ("-h.edf", "edf+", NAMES, write_edf_plus),
    "nsrr-xml": ("-nsrr.xml", "nsrr-xml", NSRR, write_nsrr),
    "profusion-xml": ("-p.xml", "profusion-xml", PROFUSION, write_profusion),
    "text": (".txt", "list", NAMES, write_text_list),
    "json": (".json", "list", {code: str(code) for code in NAMES}, write_json_list),
    "npy": (".npy", "list", {code: str(code) for code in NAMES}, write_npy_list),
}
"""Ending, format in a description, words for the stages, and writer."""

STAGES = {0: "W", 1: "N1", 2: "N2", 3: "N3", 4: "REM", -1: "unscored"}


def describe(kind: str, labels: str, /, **changes: str) -> str:
    """A description of nights written by :data:`SIGNALS` and :data:`LABELS`."""
    ending, signal_format, _ = SIGNALS[kind]
    label_ending, label_format, words, _ = LABELS[labels]
    hdf5 = signal_format == "hdf5"
    parts = {
        "signals": f'files = "p0?{ending}"\nformat = "{signal_format}"' + ('\nrate_attribute = "fs"' if hdf5 else ""),
        "labels": f'files = "{{stem}}{label_ending}"\nformat = "{label_format}"',
        "stages": "\n".join(f'"{word}" = "{STAGES[code]}"' for code, word in words.items()),
        "eeg": 'names = ["signals/eeg/Fpz"]\nunit = "uV"' if hdf5 else f'names = ["{EEG}"]',
        "eog": 'names = ["/signals/eog/horizontal"]\nunit = "mV"' if hdf5 else f'names = ["{EOG}"]',
        **changes,
    }
    return f"""
[corpus]
title = "Nights"
licence = "none"
access = "private"
[signals]
{parts["signals"]}
[labels]
{parts["labels"]}
[labels.stages]
{parts["stages"]}
[subject]
pattern = '^(?P<subject>p\\d+)'
[channels.Fpz]
group = "EEG"
{parts["eeg"]}
[channels.E1]
group = "EOG"
{parts["eog"]}
"""


def write_night(folder: Path, kind: str, labels: str, *, name: str = "p01", seed: int = 0, **options: Any) -> Path:
    """Signals and labels of one night; returns the file that a description's signals.files names."""
    ending, _, write = SIGNALS[kind]
    label_ending, _, _, write_labels = LABELS[labels]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}{ending}"
    write(path, signals(seed), **options)
    write_labels(folder / f"{name}{label_ending}")
    return path
