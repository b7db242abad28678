"""HDF5 nights of dcsm and of the Dreem Open Datasets, with their labels: tables and lists of several scorers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from fuzz.documents import json_deep, json_value
from fuzz.edf import _table
from fuzz.hdf5 import Hdf5Mutator
from fuzz.mutation import TEXT_MUTATORS, Content
from fuzz.nights import AnyMutator, Files, NightTarget, Read, stages_at_middles
from tusp.datasets.corpora.dcsm import LABEL_MAP, Dcsm
from tusp.datasets.recording import Adapter

NIGHT = "tp005f7e68_a084_46bb_9f0a_b6a084155a1c"
OTHER = "tp10000000_a084_46bb_9f0a_b6a084155a1c"
DCSM_CHANNELS = ("C3-M2", "F4-M1", "E1-M2", "CHIN")
RATE = 64
"""Lower than the corpora's, so that a case takes less time."""


def write_dcsm(
    folder: Path, *, seconds: int, seed: int, place: str = "file", storage: Mapping[str, object] | None = None
) -> None:
    """A night with its sampling rate at the file, the group or every dataset."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    with h5py.File(folder / "psg.h5", "w") as file:
        group = file.create_group("channels")
        for index, name in enumerate(DCSM_CHANNELS):
            values = rng.normal(0, 30, seconds * RATE).astype("f4")
            dataset = group.create_dataset(name, data=values, **(storage or {}))
            dataset.attrs["channel_index"] = index
            if place == "dataset":
                dataset.attrs["sample_rate"] = RATE
        node = {"file": file, "group": group}.get(place)
        if node is not None:
            node.attrs["sample_rate"] = RATE
        file.attrs["date"] = "2018-01-01 22:00:00"
    stages = ("W", "N1", "N2", "N3", "REM")[: seconds // 30]
    rows = [f"{30 * epoch},30,{stage}" for epoch, stage in enumerate(stages)]
    (folder / "hypnogram.ids").write_text("\n".join(rows) + "\n")


NOT_READ = (OSError, ValueError, TypeError, IndexError, KeyError, RuntimeError, AttributeError, OverflowError)


def plain_values(dataset: object) -> np.ndarray:
    """All values of a dataset that lies in its own file.

    Raises:
        ValueError: it is none, or is of a size that no test has.
    """
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "iufb" or dataset.shape is None:
        raise ValueError("no numbers")
    if dataset.is_virtual or dataset.external or dataset.size > 10**7:
        raise ValueError("not in this file, or too large")
    return np.asarray(dataset[()]).astype(np.float64).reshape(-1)


class Hdf5Target(NightTarget):
    """What all HDF5 nights share: the mutator knows the sound files."""

    exact_length = False

    def __init__(self, workspace: Path) -> None:
        self.mutator = Hdf5Mutator()
        super().__init__(workspace)
        for files in self.seeds:
            for name, raw in files.items():
                if name.endswith(".h5"):
                    self.mutator.knows(raw)

    def mutators(self, name: str) -> Sequence[AnyMutator]:
        return (self.mutator,)


class DcsmTarget(Hdf5Target):
    """Signals of dcsm."""

    name = "dcsm-hdf5"
    ending = ".h5"

    def make_adapter(self) -> Adapter:
        return Dcsm()

    def writers(self) -> Sequence[Callable[[Path], None]]:
        def night(folder: Path, place: str, **storage: object) -> None:
            write_dcsm(folder / NIGHT, seconds=150, seed=1, place=place, storage=storage)

        return [
            lambda folder: night(folder, "file"),
            lambda folder: night(folder, "group", compression="gzip", chunks=(4096,)),
            lambda folder: night(folder, "dataset", chunks=(1024,), fletcher32=True),
        ]

    def write_beside(self, folder: Path) -> None:
        write_dcsm(folder / OTHER, seconds=60, seed=2)

    def victims(self, files: Files) -> Sequence[str]:
        return [name for name in files if name.endswith(self.ending)]

    def truth(self, root: Path, baseline: Read, files: Mapping[str, Content]) -> Read:
        samples: dict[str, tuple[float, np.ndarray]] = {}
        with h5py.File(root / NIGHT / "psg.h5") as file:
            group = file["channels"]
            for key in group:
                names = [name for name in DCSM_CHANNELS if name.casefold() == key.casefold()]
                try:
                    dataset = group.get(key)
                    stated = [
                        node.attrs["sample_rate"] for node in (dataset, group, file) if "sample_rate" in node.attrs
                    ]
                    rate = float(np.asarray(stated[0]).reshape(-1)[0])
                    values = plain_values(dataset)
                except NOT_READ:
                    continue  # whoever reads it all the same reads what is not there
                samples[names[0] if names else key] = (rate, values)
        used = {name: kept for name, kept in samples.items() if name in DCSM_CHANNELS[:-1]}
        finite = [values[np.isfinite(values)] for _, values in used.values()]
        spreads = [float(np.subtract(*np.percentile(values, (75, 25)))) for values in finite if len(values)]
        if (varying := [spread for spread in spreads if spread > 0]) and np.median(varying) < 0.02:
            samples = {name: (rate, values * 1e6) for name, (rate, values) in samples.items()}
        seconds = max(len(values) / rate for rate, values in used.values() if 0.01 <= rate <= 1e6)
        runs = _table((root / NIGHT / "hypnogram.ids").read_text(encoding="utf-8"))
        return Read(stages=stages_at_middles(runs, LABEL_MAP, int(seconds / 30 + 1e-9)), samples=samples)


class IdsTarget(DcsmTarget):
    """Labels of dcsm."""

    name = "dcsm-ids"
    ending = ".ids"

    def mutators(self, name: str) -> Sequence[AnyMutator]:
        return TEXT_MUTATORS


UUID, OTHER_UUID = "095d6e40-5f19-55b6-a0ec-6e0ad3793da0", "1da3544e-dc5c-5795-adc3-f5068959211f"
DOD_EEG = ("C3_M2", "F4_M1")
SCORES = ((0, 1, 2, 3, 4), (0, 1, 2, 3, 4), (0, 2, 2, 3, 4), (0, 1, 2, 2, 4), (0, 0, 2, 3, 4))


def write_dod(folder: Path, uuid: str, *, seconds: int, seed: int, described: bool, scorers: bool) -> None:
    """A night of the Dreem Open Datasets; lists of five scorers, or the hypnogram in the file."""
    rng = np.random.default_rng(seed)
    n_epochs = seconds // 30
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    with h5py.File(folder / f"{uuid}.h5", "w") as file:
        for kind, names in (("eeg", DOD_EEG), ("eog", ("EOG1", "EOG2")), ("emg", ("ECG",))):
            group = file.create_group(f"signals/{kind}")
            group.attrs["fs"] = RATE
            group.attrs["unit"] = "µV"
            for name in names:
                group.create_dataset(name, data=rng.normal(0, 30, seconds * RATE).astype("f4"), compression="gzip")
                entries.append(
                    {
                        "fs": RATE,
                        "unit": "µV",
                        "path": f"signals/{kind}/{name}",
                        "name": name,
                        "domain": kind,
                        "default": True,
                    }
                )
        file.create_dataset("hypnogram", data=np.array(SCORES[0][:n_epochs], "i8"))
        if described:
            file.attrs["description"] = json.dumps(entries)
        file.attrs["duration"] = seconds
        file.attrs["start_time"] = 1.5e9
    for scorer, stages in enumerate(SCORES if scorers else (), start=1):
        (folder / f"scorer_{scorer}").mkdir(exist_ok=True)
        (folder / f"scorer_{scorer}" / f"{uuid}.json").write_text(json.dumps(stages[:n_epochs]))


class DodTarget(Hdf5Target):
    """Signals of dod-h."""

    name = "dod-hdf5"
    ending = ".h5"

    def make_adapter(self) -> Adapter:
        from tusp.datasets.corpora.dod_h import DodH

        return DodH()

    def writers(self) -> Sequence[Callable[[Path], None]]:
        def night(folder: Path, described: bool, scorers: bool) -> None:
            write_dod(folder, UUID, seconds=150, seed=1, described=described, scorers=scorers)

        return [
            lambda folder: night(folder, False, True),
            lambda folder: night(folder, True, True),
            lambda folder: night(folder, False, False),
        ]

    def write_beside(self, folder: Path) -> None:
        write_dod(folder, OTHER_UUID, seconds=150, seed=2, described=False, scorers=True)

    def victims(self, files: Files) -> Sequence[str]:
        return [name for name in files if name.endswith(self.ending)]

    def truth(self, root: Path, baseline: Read, files: Mapping[str, Content]) -> Read:
        """Samples by the library; labels can only be what they were, or be checked where the file holds them."""
        samples: dict[str, tuple[float, np.ndarray]] = {}
        with h5py.File(root / f"{UUID}.h5") as file:
            described = file.attrs.get("description")
            entries = json.loads(described) if isinstance(described, str | bytes) else []
            entries = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
            # A channel is known by its own name, wherever it lies.
            for kind in file["signals"]:
                for name in (*DOD_EEG, "EOG1", "EOG2"):
                    try:
                        dataset = file.get(f"signals/{kind}/{name}")
                        values = plain_values(dataset)
                    except NOT_READ:
                        continue
                    said = [e for e in entries if str(e.get("path", "")).strip("/") == f"signals/{kind}/{name}"][:1]
                    said.append(dict(dataset.parent.attrs))
                    rate = next((facts["fs"] for facts in said if facts.get("fs") is not None), 250.0)
                    unit = next((facts["unit"] for facts in said if "unit" in facts), "")
                    factor = {"v": 1e6, "mv": 1e3}.get(unit.casefold() if isinstance(unit, str) else "", 1.0)
                    samples[name] = (float(np.asarray(rate).reshape(-1)[0]), values * factor)
            if len(files) > 1:
                return Read(stages=baseline.stages, samples=samples)
            try:
                own = plain_values(file["hypnogram"])
            except NOT_READ:  # behind more links than the library follows
                return Read(samples=samples)
        return Read(stages=np.where((own >= 0) & (own <= 4), own, -1).astype(np.int8), samples=samples)


class ScorerTarget(DodTarget):
    """Lists of the scorers of dod-h."""

    name = "dod-scorers"
    ending = ".json"

    def mutators(self, name: str) -> Sequence[AnyMutator]:
        return (json_value, json_value, json_deep, *TEXT_MUTATORS)

    def writers(self) -> Sequence[Callable[[Path], None]]:
        return list(super().writers())[:2]

    def truth(self, root: Path, baseline: Read, files: Mapping[str, Content]) -> Read:
        """Each scorer's list as it stands in its file; the signals cannot have changed."""
        lists = {}
        for name in files:
            if name.endswith(".json") and (root / name).is_file():
                stages = json.loads((root / name).read_bytes())
                lists[Path(name).parts[0]] = np.array([s if s in (0, 1, 2, 3, 4) else -1 for s in stages], np.int8)
        # Votes count from where all have begun to where the first stops; a list that ends early is unscored there.
        longest = max(map(len, lists.values()))
        padded = {key: np.pad(stages, (0, longest - len(stages)), constant_values=-1) for key, stages in lists.items()}
        scored = [np.flatnonzero(stages >= 0) for stages in padded.values()]
        first, stop = max(epochs[0] for epochs in scored), min(epochs[-1] for epochs in scored) + 1
        for stages in padded.values():
            stages[:first] = -1
            stages[stop:] = -1
        # What is scored beyond the five epochs of the signal by one scorer alone lies outside that span.
        ends = {key: stages[: max(stop, 5)] for key, stages in padded.items()}
        return Read(stages=None, scorers=ends, samples=baseline.samples)
