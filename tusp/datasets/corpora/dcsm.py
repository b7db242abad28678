"""dcsm: nights of the Danish Center for Sleep Medicine, HDF5 signals beside a table of stages.

The layout is that of the published archive, whose file list is shipped with U-Time. Source: Perslev et al. 2021,
doi 10.1038/s41746-021-00440-5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from tusp.datasets.corpora.folders import walk
from tusp.datasets.corpora.hdf5_nights import Hdf5Night, Hdf5Nights, Hdf5Signal, is_simulated, usable_rate
from tusp.datasets.corpora.simulated import refuse_mixture
from tusp.datasets.formats.hdf5 import attribute, excerpt, group_at, length, member, members, opened_hdf5
from tusp.datasets.formats.hypnograms import runs_from_csv, to_epochs
from tusp.datasets.recording import CorpusCard, Discovery, Hypnogram, RecordingFiles
from tusp.platform.errors import DataError, UserError, one_line
from tusp.platform.stages import N1, N2, N3, REM, UNSCORED, W

LABEL_MAP: Final = {"W": W, "N1": N1, "N2": N2, "N3": N3, "REM": REM, "UNKNOWN": UNSCORED}
VOLTS_BELOW: Final = 0.02
"""A night whose EEG and EOG have a median inter-quartile range below this is in volts, else in microvolts. That of real
EEG and EOG is 5 to 100 microvolts, so 5 to 100 in the one case and at most 0.0001 in the other; this lies between."""

_GROUPS: Final = {
    "EEG": ("F3-M2", "F4-M1", "C3-M2", "C4-M1", "O1-M2", "O2-M1"),
    "EOG": ("E1-M2", "E2-M2"),
}
_CANONICAL: Final = {name.casefold(): name for names in _GROUPS.values() for name in names}
_SIGNALS: Final = "psg.h5"
_LABELS: Final = "hypnogram.ids"
_FOLDER: Final = re.compile(r"tp[0-9a-f]{8}(_[0-9a-f]{4}){3}_[0-9a-f]{12}", re.IGNORECASE)
_EXAMPLE: Final = "tp005f7e68_a084_46bb_9f0a_b6a084155a1c/psg.h5"


@dataclass(frozen=True, kw_only=True)
class Dcsm(Hdf5Nights):
    """255 nights in the laboratory, of 255 people."""

    @property
    def card(self) -> CorpusCard:
        return CorpusCard(
            name="dcsm",
            title="Danish Center for Sleep Medicine",
            version="1",
            licence="CC BY 4.0",
            access="open",
            citation=(
                "M. Perslev, S. Darkner, L. Kempfner, M. Nikolic, P. J. Jennum, C. Igel. U-Sleep: resilient"
                " high-frequency sleep staging. npj Digital Medicine 4:72, 2021."
            ),
            url="https://erda.ku.dk/public/archives/db553715ecbe1f3ac66c1dc569826eef/published-archive.html",
            channel_groups=_GROUPS,
            label_map=LABEL_MAP,
            subject_rule="the folder's name: one night a person",
            nights=255,
            people=255,
            obtain="From the archive of the University of Copenhagen, without registration.",
            layout=("data/sleep/DCSM/tpNIGHT/psg.h5", "data/sleep/DCSM/tpNIGHT/hypnogram.ids"),
            reads=(
                "A night is a folder with psg.h5 and hypnogram.ids, anywhere below the corpus's folder; a psg.edf"
                " beside them is not read.",
                "The sampling rate is the attribute sample_rate of the channel's dataset, else of the group channels,"
                " else of the file.",
                "The files state no unit. A night whose EEG and EOG channels have a median inter-quartile range below"
                " 0.02 is taken as volts, any other as microvolts; all its channels alike, and that is reported.",
                "Channels come in the order of the attribute channel_index where every channel has one, else by name.",
                "Labels are the rows start, duration, stage of hypnogram.ids; UNKNOWN is unscored, and so is every"
                " epoch without a row.",
                "Labels longer than the signal are clipped, a remainder of less than 30 s of signal is dropped; both"
                " are reported.",
            ),
            refuses=(
                "A night without a sampling rate: it is never guessed.",
                "A folder that lacks one of the two files, and two folders of one name.",
                "HDF5 signals that lie in other files, were never written, or have more than one dimension.",
            ),
        )

    def discover(self, root: Path) -> Discovery:
        found = walk(root)
        refused = dict(found.unreadable)
        folders: dict[str, dict[Path, set[str]]] = {}
        for file in found.files:
            kind = file.name.lower()
            if kind not in (_SIGNALS, _LABELS):
                continue
            folder = (root / file).absolute().parent
            if _FOLDER.fullmatch(folder.name):
                folders.setdefault(folder.name.lower(), {}).setdefault(root / file.parent, set()).add(file.name)
            else:
                refused[file.as_posix()] = f"{root / file}: its folder's name does not follow {_EXAMPLE}"
        if not folders and not refused:
            raise UserError(f"{root}: holds no night of {self.card.name} (files such as {_EXAMPLE})")
        recordings: list[RecordingFiles] = []
        flags: dict[str, bool] = {}
        for name, places in sorted(folders.items()):
            try:
                recordings.append(_files(name, places))
                flags[name] = recordings[-1].simulated
            except DataError as error:
                refused[name] = str(error)
        refuse_mixture(root, flags)
        return Discovery(recordings=recordings, refused=refused)

    def hypnogram(self, recording: RecordingFiles) -> Hypnogram:
        if recording.labels is None:
            raise DataError(f"{recording.signals}: no {_LABELS} beside these signals")
        seconds = self.signal_seconds(self.night(recording))
        return to_epochs(runs_from_csv(recording.labels), LABEL_MAP, signal_seconds=seconds)

    def _night(self, file: h5py.File, path: Path) -> Hdf5Night:
        group = group_at(file, "channels")
        inherited = attribute(group, "sample_rate", attribute(file, "sample_rate"))
        problems: list[str] = []
        listed: list[tuple[Any, str, Hdf5Signal]] = []
        stated = False
        for label in members(group):
            name = _CANONICAL.get(label.casefold(), one_line(label))
            try:
                dataset = member(group, label)
                if not isinstance(dataset, h5py.Dataset):
                    raise DataError(f"{path}: no dataset at 'channels/{label}'")
                rate = attribute(dataset, "sample_rate", inherited)
                index = attribute(dataset, "channel_index")
                n_samples = length(dataset, path=path)
            except DataError as error:
                problems.append(f"{name}: {str(error).removeprefix(f'{path}: ')} (channel not used)")
                continue
            stated = stated or rate is not None
            if rate is not None and not usable_rate(rate):
                said = " ".join(str(rate).split())[:40]
                problems.append(f"{name}: a sample_rate of {said} is no sampling rate (channel not used)")
            signal = Hdf5Signal(
                name=name,
                dataset=f"channels/{label}",
                sampling_rate_hz=usable_rate(rate),
                n_samples=n_samples,
                unit="",
            )
            listed.append((index, label, signal))
        if listed and not stated:
            raise DataError(
                f"{path}: no sample_rate at a channel, at the group 'channels' or at the file, and it is never guessed"
            )
        names = [signal.name for _, _, signal in listed]
        for name in _CANONICAL.values():
            if names.count(name) > 1:
                raise DataError(f"{path}: {names.count(name)} channels are named {name!r} in one case or another")
        if all(isinstance(index, int | float) for index, _, _ in listed):
            listed.sort(key=lambda entry: (entry[0], entry[1]))
        signals = [signal for _, _, signal in listed]
        return _with_unit(path, signals, problems)


def _files(name: str, places: dict[Path, set[str]]) -> RecordingFiles:
    if len(places) > 1:
        raise DataError(f"{min(places)}: {len(places)} folders have this name: {', '.join(map(str, sorted(places)))}")
    ((folder, files),) = places.items()
    by_kind: dict[str, list[str]] = {}
    for file in sorted(files):
        by_kind.setdefault(file.lower(), []).append(file)
    for kind, what in ((_SIGNALS, "signals"), (_LABELS, "hypnogram")):
        if kind not in by_kind:
            raise DataError(f"{folder}: no {what} ({kind}) in this folder")
        if len(by_kind[kind]) > 1:
            raise DataError(f"{folder}: {len(by_kind[kind])} files claim to be its {what}: {', '.join(by_kind[kind])}")
    signals = folder / by_kind[_SIGNALS][0]
    with opened_hdf5(signals) as file:
        simulated = is_simulated(file)
    return RecordingFiles(
        name=name, subject=name, signals=signals, labels=folder / by_kind[_LABELS][0], simulated=simulated
    )


def _with_unit(path: Path, signals: list[Hdf5Signal], problems: list[str]) -> Hdf5Night:
    """The night with one unit for its EEG and EOG, told from their amplitude (:data:`VOLTS_BELOW`)."""
    electrical = tuple(signal.dataset for signal in signals if signal.name in _CANONICAL.values())
    if not electrical:
        return Hdf5Night(signals=signals, problems=problems)
    status = path.stat()
    spread = _median_spread(path, status.st_size, status.st_mtime_ns, status.st_ino, electrical)
    volts = spread is not None and spread < VOLTS_BELOW
    measured = "no channel varies" if spread is None else f"median inter-quartile range {spread:.3g}"
    taken = "volts" if volts else "microvolts"
    problems = [f"no unit stated; EEG and EOG taken as {taken} ({measured})", *problems]
    unit, factor = ("V", 1e6) if volts else ("uV", 1.0)
    return Hdf5Night(
        signals=[
            Hdf5Signal(**{**vars(signal), "unit": unit, "factor": factor}) if signal.dataset in electrical else signal
            for signal in signals
        ],
        problems=problems,
    )


@lru_cache(maxsize=256)
def _median_spread(path: Path, size: int, mtime_ns: int, inode: int, datasets: tuple[str, ...]) -> float | None:
    """Median over the channels of their inter-quartile range in stored values; None when no channel varies.

    Taken from an excerpt of every channel, once a file: size, time and inode stand for its content.
    """
    spreads = []
    with opened_hdf5(path) as file:
        for name in datasets:
            dataset = member(file, name)
            assert isinstance(dataset, h5py.Dataset)
            try:
                values = excerpt(dataset, path=path)
            except DataError:
                continue  # reading the channel itself says so
            values = values[np.isfinite(values)]
            if values.size:
                low, high = np.percentile(values.astype(np.float64), (25, 75))
                spreads.append(float(high - low))
    varying = [spread for spread in spreads if spread > 0]
    return float(np.median(varying)) if varying else None
