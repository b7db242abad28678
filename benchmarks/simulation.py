"""How real are the simulated nights? An outside judge (YASA), and a plain classifier.

Example:
    python benchmarks/simulation.py --corpus sedf-sc --subjects 12 --hours 9

YASA was trained on thousands of real nights; its staging of one EEG channel (Fpz-Cz, C4-M1 or C3-M2) and one EOG
channel should agree with the simulated labels about as it does on real ones. It is optional (`tusp[realism]`).
The classifier (logistic regression on band powers and eye-movement features of five epochs, trained on other simulated
people) shows that stages are neither trivially separable nor hopeless.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import edfio
import h5py
import numpy as np
import numpy.typing as npt
import wfdb
from scipy import ndimage, signal

from tusp.datasets.simulation import simulate
from tusp.platform.scoring.consensus import best_four
from tusp.platform.stages import STAGE_NAMES, UNSCORED

CODES = {"W": 0, "1": 1, "2": 2, "3": 3, "4": 3, "R": 4}
EEG_BANDS = (
    (0.4, 1),
    (1, 2),
    (2, 4),
    (4, 6),
    (6, 8),
    (8, 10),
    (10, 12),
    (12, 15),
    (15, 22),
    (22, 30),
    (30, 45),
)
EYE_BANDS = ((0.2, 0.5), (0.5, 1), (1, 2), (2, 4), (4, 8), (8, 13), (16, 45))


@dataclass(frozen=True, kw_only=True)
class SimulatedNight:
    """One night read back from its files."""

    subject: str
    age: int | None
    male: bool | None
    channels: dict[str, npt.NDArray[np.float32]]
    """EEG in front or at the vertex, EEG further back, EOG: microvolts at 100 Hz."""
    stages: npt.NDArray[np.int8]


def at_100_hz(samples: npt.NDArray[np.floating], rate_hz: float) -> npt.NDArray[np.float32]:
    """Resampled, polyphase."""
    common = math.gcd(int(rate_hz), 100)
    if int(rate_hz) == 100:
        return samples.astype(np.float32)
    return signal.resample_poly(samples.astype(np.float32), 100 // common, int(rate_hz) // common)


def read_sleep_edf(files: Sequence[Path]) -> Iterator[SimulatedNight]:
    for psg in (path for path in files if path.name.endswith("-PSG.edf")):
        labels = next(path for path in files if path.name[:6] == psg.name[:6] and path != psg)
        edf = edfio.read_edf(psg)
        channels = {
            name: edf.get_signal(name).data.astype(np.float32) for name in ("EEG Fpz-Cz", "EEG Pz-Oz", "EOG horizontal")
        }
        n_epochs = len(channels["EEG Fpz-Cz"]) // 3000
        stages = np.full(n_epochs, UNSCORED, dtype=np.int8)
        for annotation in edfio.read_edf(labels).annotations:
            start = int(annotation.onset // 30)
            stages[start : start + int((annotation.duration or 0) // 30)] = CODES.get(annotation.text[-1], UNSCORED)
        age = int(re.sub(r"\D", "", edf.patient.name))
        yield SimulatedNight(
            subject=psg.name[:5], age=age, male=edf.patient.sex == "M", channels=channels, stages=stages
        )


def read_dcsm(files: Sequence[Path]) -> Iterator[SimulatedNight]:
    names = {"W": 0, "N1": 1, "N2": 2, "N3": 3, "REM": 4}
    for psg in (path for path in files if path.name == "psg.h5"):
        with h5py.File(psg) as file:
            channels = {name: at_100_hz(file["channels"][name][:], 256) for name in ("C4-M1", "O2-M1", "E1-M2")}
        if np.median(np.abs(channels["C4-M1"])) < 1e-2:
            channels = {name: 1e6 * data for name, data in channels.items()}
        stages = np.full(len(channels["C4-M1"]) // 3000, UNSCORED, dtype=np.int8)
        for line in (psg.parent / "hypnogram.ids").read_text().splitlines():
            start, duration, name = line.split(",")
            stages[int(start) // 30 : (int(start) + int(duration)) // 30] = names.get(name, UNSCORED)
        yield SimulatedNight(subject=psg.parent.name, age=None, male=None, channels=channels, stages=stages)


def read_cinc2018(files: Sequence[Path]) -> Iterator[SimulatedNight]:
    columns = {"wake": 0, "nonrem1": 1, "nonrem2": 2, "nonrem3": 3, "rem": 4}
    for header in (path for path in files if path.suffix == ".hea"):
        wanted = ["C4-M1", "O2-M1", "E1-M2"]
        record = wfdb.rdrecord(str(header.with_suffix("")), channel_names=wanted, return_res=32)
        at = record.sig_name.index
        channels = {name: at_100_hz(record.p_signal[:, at(name)], record.fs) for name in wanted}
        n_epochs = record.sig_len // 6000
        stages = np.full(n_epochs, UNSCORED, dtype=np.int8)
        with h5py.File(header.with_name(f"{header.stem}-arousal.mat")) as file:
            for name, code in columns.items():
                stages[file["data/sleep_stages"][name][0, 3000 : n_epochs * 6000 : 6000] == 1] = code
        channels = {name: data[: n_epochs * 3000] for name, data in channels.items()}
        yield SimulatedNight(subject=header.stem, age=None, male=None, channels=channels, stages=stages)


def read_shhs(files: Sequence[Path]) -> Iterator[SimulatedNight]:
    codes = {0: 0, 1: 1, 2: 2, 3: 3, 4: 3, 5: 4}
    for psg in (path for path in files if path.suffix == ".edf"):
        edf = edfio.read_edf(psg)
        second = next(label for label in edf.labels if re.match(r"EEG.", label))
        channels = {}
        for name in ("EEG", second, "EOG(L)"):
            one = edf.get_signal(name)
            channels[name] = at_100_hz(one.data, one.sampling_frequency)
        stages = np.full(len(channels["EEG"]) // 3000, UNSCORED, dtype=np.int8)
        profusion = next((path for path in files if path.name == f"{psg.stem}-profusion.xml"), None)
        if profusion is not None:
            found = [int(node.text or 9) for node in ElementTree.parse(profusion).iter("SleepStage")]
            stages[:] = [codes.get(number, UNSCORED) for number in found]
        else:
            for event in ElementTree.parse(psg_xml(files, psg)).iter("ScoredEvent"):
                if event.findtext("EventType") == "Stages|Stages":
                    start, length = (int(float(event.findtext(tag) or 0)) // 30 for tag in ("Start", "Duration"))
                    number = int((event.findtext("EventConcept") or "|9").rpartition("|")[2])
                    stages[start : start + length] = codes.get(number, UNSCORED)
        yield SimulatedNight(
            subject=psg.stem[-6:],
            age=int(re.sub(r"\D", "", edf.patient.name)),
            male=edf.patient.sex == "M",
            channels=channels,
            stages=stages,
        )


def psg_xml(files: Sequence[Path], psg: Path) -> Path:
    """The NSRR's labels of a night."""
    return next(path for path in files if path.name == f"{psg.stem}-nsrr.xml")


def read_dod(files: Sequence[Path]) -> Iterator[SimulatedNight]:
    for psg in (path for path in files if path.suffix == ".h5"):
        lists = [json.loads(path.read_text()) for path in files if path.name == f"{psg.stem}.json"]
        with h5py.File(psg) as file:
            group = file["signals"]
            names = {"C3_M2": "eeg", "F3_O1": "eeg", "EOG1": "eog"}
            channels = {name: at_100_hz(group[kind][name][:], 250) for name, kind in names.items()}
        n_epochs = len(channels["C3_M2"]) // 3000
        first = max(next(i for i, code in enumerate(one) if code >= 0) for one in lists)
        stages = best_four(np.array([one[first : first + n_epochs] for one in lists], dtype=np.int8))
        yield SimulatedNight(subject=psg.stem, age=None, male=None, channels=channels, stages=stages)


READERS: dict[str, Callable[[Sequence[Path]], Iterator[SimulatedNight]]] = {
    "sedf-sc": read_sleep_edf,
    "sedf-st": read_sleep_edf,
    "dcsm": read_dcsm,
    "cinc2018": read_cinc2018,
    "shhs": read_shhs,
    "dod-h": read_dod,
    "dod-o": read_dod,
}


def read_nights(files: Sequence[Path], corpus: str = "sedf-sc") -> list[SimulatedNight]:
    """Read the files that :func:`simulate` wrote, without tusp's own readers."""
    return list(READERS[corpus](files))


def trim30(stages: npt.NDArray[np.int8]) -> npt.NDArray[np.bool_]:
    """Scored epochs from 30 min before the first to 30 min after the last sleep epoch."""
    asleep = np.flatnonzero(stages > 0)
    mask = np.zeros(len(stages), dtype=bool)
    mask[max(0, asleep[0] - 60) : asleep[-1] + 61] = True
    return mask & (stages != UNSCORED)


def band_powers(data: npt.NDArray[np.float32], bands: Sequence[tuple[float, float]]) -> npt.NDArray[np.float64]:
    """Log power of each band in each epoch of 100-Hz data, [n_epochs, bands]."""
    hz, density = signal.welch(data.reshape(-1, 3000), fs=100, nperseg=500, axis=-1)
    return np.stack([np.log10(density[:, (hz >= low) & (hz < high)].sum(axis=1) + 1e-3) for low, high in bands], axis=1)


def features(night: SimulatedNight) -> npt.NDArray[np.float64]:
    """Band powers and eye-movement features of an epoch and its neighbours, standardised within the night."""
    frontal, posterior, eyes = night.channels.values()
    speed = np.abs(np.diff(ndimage.uniform_filter1d(eyes, 5), prepend=eyes[:1])).reshape(-1, 3000)
    own = np.hstack(
        [
            band_powers(frontal, EEG_BANDS),
            band_powers(posterior, EEG_BANDS),
            band_powers(eyes, EYE_BANDS),
            np.log10(np.quantile(speed, [0.9, 0.99], axis=1).T + 1e-2),
            np.log10(np.ptp(frontal.reshape(-1, 3000), axis=1) + 1)[:, None],
        ]
    )
    spread = np.quantile(own, 0.9, axis=0) - np.quantile(own, 0.1, axis=0)
    own = (own - np.median(own, axis=0)) / (spread + 1e-6)
    padded = np.pad(own, ((2, 2), (0, 0)), mode="edge")
    around = [padded[shift : shift + len(own)] for shift in range(5)]
    wide = ndimage.uniform_filter1d(own, 15, axis=0, mode="nearest")
    elapsed = np.arange(len(own))[:, None] / len(own)
    return np.hstack([*around, wide, elapsed])


def classify(nights: Sequence[SimulatedNight], folds: int = 4) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Cross-validated predictions (by subject) in rule trim30: (true, predicted) over all nights."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold

    masks = [trim30(night.stages) for night in nights]
    table = np.vstack([features(night)[mask] for night, mask in zip(nights, masks, strict=True)])
    true = np.concatenate([night.stages[mask] for night, mask in zip(nights, masks, strict=True)])
    people = np.repeat([night.subject for night in nights], [int(mask.sum()) for mask in masks])
    predicted = np.empty_like(true)
    for train, test in GroupKFold(folds).split(table, true, people):
        model = LogisticRegression(C=0.05, max_iter=150)
        predicted[test] = model.fit(table[train], true[train]).predict(table[test])
    return true, predicted


def judge_with_yasa(
    nights: Sequence[SimulatedNight],
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """YASA's staging of the first EEG and the EOG, with age and sex where the files say them.

    Returns (true, predicted) over all nights in rule trim30."""
    import mne
    import yasa

    codes = {"W": 0, "WAKE": 0, "N1": 1, "N2": 2, "N3": 3, "R": 4, "REM": 4}
    true, predicted = [], []
    for night in nights:
        eeg, _, eog = night.channels
        data = np.stack([night.channels[eeg], night.channels[eog]]) * 1e-6
        raw = mne.io.RawArray(data, mne.create_info(["eeg", "eog"], 100.0, ["eeg", "eog"]), verbose="error")
        known = night.age is not None and night.male is not None
        staging = yasa.SleepStaging(
            raw, eeg_name="eeg", eog_name="eog", metadata={"age": night.age, "male": night.male} if known else None
        )
        result = staging.predict()
        values = result.hypno.to_numpy() if hasattr(result, "hypno") else result
        found = np.array([codes[str(stage)] for stage in values], dtype=np.int8)
        mask = trim30(night.stages)[: len(found)]
        true.append(night.stages[: len(found)][mask])
        predicted.append(found[mask])
    return np.concatenate(true), np.concatenate(predicted)


def show(title: str, true: npt.NDArray[np.int8], predicted: npt.NDArray[np.int8]) -> None:
    """Print accuracy, kappa, F1 and the row-normalised confusion matrix."""
    from sklearn.metrics import accuracy_score, cohen_kappa_score, confusion_matrix, f1_score

    each = f1_score(true, predicted, labels=range(5), average=None, zero_division=0)
    print(
        f"{title}: accuracy {accuracy_score(true, predicted):.3f}, "
        f"kappa {cohen_kappa_score(true, predicted):.3f}, macro-F1 {each.mean():.3f}; "
        + ", ".join(f"{name} {value:.2f}" for name, value in zip(STAGE_NAMES, each, strict=True))
    )
    for name, row in zip(
        STAGE_NAMES, confusion_matrix(true, predicted, labels=range(5), normalize="true"), strict=True
    ):
        print(f"   {name:>4} " + " ".join(f"{value:5.2f}" for value in row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", choices=tuple(READERS), default="sedf-sc")
    parser.add_argument("--subjects", type=int, default=12)
    parser.add_argument("--hours", type=float, default=9.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--judge", choices=("yasa", "classifier", "both"), default="both")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        files = simulate(
            arguments.corpus,
            Path(folder) / "nights",
            subjects=arguments.subjects,
            seed=arguments.seed,
            nights=1,
            hours=arguments.hours,
        )
        seconds = time.perf_counter() - began
        print(f"{arguments.subjects} nights of {arguments.hours} h in {seconds:.1f} s")
        nights = read_nights(files, arguments.corpus)
        if arguments.judge != "classifier":
            show("YASA", *judge_with_yasa(nights))
        if arguments.judge != "yasa":
            show("logistic regression", *classify(nights))


if __name__ == "__main__":
    main()
