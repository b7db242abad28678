"""Simulated DCSM, CinC 2018, SHHS and DOD: original files, quirks, statistics, the same bytes every time.

Everything is read back with libraries that tusp's adapters do not use for it, or by hand.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import edfio
import h5py
import mne
import numpy as np
import pytest
import wfdb

from tusp.datasets.simulation import cinc2018, dcsm, dod, night_count, shhs, simulate
from tusp.datasets.simulation.hypnogram import Night
from tusp.datasets.simulation.montage import ELECTRODES, Derivation, Potentials, draw_potentials
from tusp.datasets.simulation.person import Person
from tusp.datasets.simulation.plan import SIGNALS, SIMULATED_FLAG, NightPlan, draw_person, draw_truth
from tusp.datasets.simulation.scorers import cut_votes
from tusp.datasets.simulation.statistics import LOANS, load_spread, load_statistics, stage_shares, summary
from tusp.platform.errors import UserError
from tusp.platform.scoring.consensus import best_four, consensus_of_others
from tusp.platform.stages import N3, REM, W

ROOT = Path(__file__).resolve().parent.parent
CORPORA = ("dcsm", "cinc2018", "shhs", "dod-h", "dod-o")
HOURS = 0.25
PEOPLE = {"dcsm": 6, "cinc2018": 6, "shhs": 4, "dod-h": 4, "dod-o": 4}
SEED = 3


@dataclass(frozen=True, kw_only=True)
class Made:
    """One simulated night beside what it was made from."""

    plan: NightPlan
    person: Person
    night: Night


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of everything but the simulation's own notes."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".simulation" not in path.parts and path.name != "SIMULATED.txt"
    }


def measure_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure_hypnograms", ROOT / "benchmarks/measure_hypnograms.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All corpora, a quarter of an hour a night."""
    found = {}
    for corpus in CORPORA:
        found[corpus] = tmp_path_factory.mktemp(corpus)
        simulate(corpus, found[corpus], subjects=PEOPLE[corpus], seed=SEED, hours=HOURS, workers=1)
    return found


def made(corpus: str) -> Iterator[Made]:
    for subject in range(PEOPLE[corpus]):
        for number in range(1, (shhs.nights_of("shhs", subject, SEED) if corpus == "shhs" else 1) + 1):
            plan = NightPlan(corpus=corpus, subject=subject, night=number, seed=SEED, hours=HOURS)
            person = draw_person(plan)
            yield Made(plan=plan, person=person, night=draw_truth(plan, person))


@pytest.mark.parametrize("corpus", CORPORA)
def test_same_bytes_whatever_the_workers_and_the_company(corpus: str, tmp_path: Path) -> None:
    simulate(corpus, tmp_path / "two", subjects=2, seed=SEED, hours=0.05, workers=2)
    simulate(corpus, tmp_path / "one", subjects=1, seed=SEED, hours=0.05, workers=1)
    both, alone = contents(tmp_path / "two"), contents(tmp_path / "one")
    assert alone.items() < both.items()
    simulate(corpus, tmp_path / "other", subjects=1, seed=SEED + 1, hours=0.05, workers=1)
    signals = {digest for name, digest in alone.items() if name.endswith((".h5", ".edf", ".mat"))}
    assert signals and not signals & set(contents(tmp_path / "other").values())


@pytest.mark.parametrize("corpus", CORPORA)
def test_names_of_the_corpus(corpus: str, folders: dict[str, Path]) -> None:
    uuid = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    pattern = {
        "dcsm": rf"tp{uuid.replace('-[', '_[').replace('-(', '_(')}/(psg\.h5|hypnogram\.ids)".replace("){3}-", "){3}_"),
        "cinc2018": r"training/(tr\d\d-\d{4})/\1(\.hea|\.mat|\.arousal|-arousal\.mat)",
        "shhs": (
            r"polysomnography/(edfs/(shhs[12])/\2-\d{6}\.edf"
            r"|annotations-events-(nsrr|profusion)/(shhs[12])/\4-\d{6}-\3\.xml)"
        ),
        "dod-h": rf"({uuid}\.h5|scorer_[1-5]/{uuid}\.json)",
        "dod-o": rf"({uuid}\.h5|scorer_[1-5]/{uuid}\.json)",
    }[corpus]
    names = list(contents(folders[corpus]))
    assert [name for name in names if not re.fullmatch(pattern, name)] == []
    nights = night_count(corpus, subjects=PEOPLE[corpus], seed=SEED)
    files = {"dcsm": 2, "cinc2018": 4, "dod-h": 6, "dod-o": 6}
    if corpus == "shhs":
        assert 2 * nights <= len(names) <= 3 * nights
        assert len([name for name in names if name.endswith(".edf")]) == nights > PEOPLE["shhs"]
    else:
        assert len(names) == files[corpus] * nights == files[corpus] * PEOPLE[corpus]


def test_dcsm_comes_back_through_h5py(folders: dict[str, Path]) -> None:
    codes = {"UNKNOWN": -1, "W": 0, "N1": 1, "N2": 2, "N3": 3, "REM": 4}
    places, units = set(), set()
    for one in made("dcsm"):
        folder = folders["dcsm"] / one.plan.record
        rows = [line.split(",") for line in (folder / "hypnogram.ids").read_text().splitlines()]
        stages = [codes[name] for _, duration, name in rows for _ in range(int(duration) // 30)]
        assert stages == one.night.stages.tolist()
        starts = np.cumsum([0, *(int(duration) for _, duration, _ in rows)])
        assert [int(start) for start, _, _ in rows] == starts[:-1].tolist()
        volts = dcsm.in_volts(one.plan)
        units.add(volts)
        with h5py.File(folder / "psg.h5") as file:
            assert SIMULATED_FLAG in file.attrs["comment"]
            group = file["channels"]
            assert sorted(group) == sorted(dcsm.CHANNELS) and len(group) == 17
            nodes = {"file": file, "group": group, "dataset": group["C4-M1"]}
            having = [place for place, node in nodes.items() if "sample_rate" in node.attrs]
            assert len(having) == 1
            assert int(nodes[having[0]].attrs["sample_rate"]) == 256
            assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", nodes[having[0]].attrs["date"])
            places.add(having[0])
            if one.plan.subject < 2:
                for name, samples in dcsm.draw_channels(one.plan, one.night, one.person):
                    stored = group[name][:]
                    assert stored.dtype == np.float32 and len(stored) == 256 * 30 * len(stages)
                    if volts and name != "SPO2":
                        stored = stored * 1e6
                    np.testing.assert_allclose(stored, samples, atol=0.07, rtol=1e-4)
                    assert np.std(samples) > 0.1 or name == "SPO2"
    assert units == {True, False}
    assert len(places) > 1


def test_cinc2018_comes_back_through_wfdb(folders: dict[str, Path]) -> None:
    rests, first_notes = [], []
    for one in made("cinc2018"):
        path = folders["cinc2018"] / "training" / one.plan.record / one.plan.record
        header = path.with_suffix(".hea").read_bytes()
        assert header.count(b"\r\n") == header.count(b"\n") == 15
        record = wfdb.rdrecord(str(path))
        assert record.comments == [SIMULATED_FLAG]
        assert record.fs == 200 and record.sig_name == list(cinc2018.CHANNELS)
        assert set(record.fmt) == {"16"} and set(record.byte_offset) == {24}
        stored = wfdb.rdrecord(str(path), physical=False)
        sums = stored.d_signal.astype(np.int64).sum(axis=0).astype(np.int16)
        assert sums.tolist() == record.checksum
        rests.append(record.sig_len % 6000)
        assert record.sig_len // 6000 == len(one.night.stages)
        if one.plan.subject < 2:
            samples, _ = cinc2018.draw_record(one.plan, one.night, one.person)
            for index, name in enumerate(record.sig_name):
                step = 1 / cinc2018.CHANNELS[name].gain
                np.testing.assert_allclose(record.p_signal[:, index], samples[name], atol=0.51 * step + 1e-4)
        # notes, except one at sample 0, which this reader loses
        notes = wfdb.rdann(str(path), "arousal")
        assert notes.fs == 200
        expected = dict(cinc2018.stage_notes(one.night.stages))
        found = {
            int(sample): text
            for sample, text in zip(notes.sample, notes.aux_note, strict=True)
            if text in {"W", "N1", "N2", "N3", "R"}
        }
        assert found == {sample: text for sample, text in expected.items() if sample > 0}
        first_notes.append(min(expected))
        events = [text for text in notes.aux_note if text not in {"W", "N1", "N2", "N3", "R"}]
        assert all(re.fullmatch(r"\(resp_\w+|resp_\w+\)", text) for text in events)
        with h5py.File(f"{path}-arousal.mat") as file:
            columns = {name: node[0] for name, node in file["data/sleep_stages"].items()}
        assert set(columns) == set(cinc2018.COLUMNS)
        assert np.array_equal(sum(columns.values()), np.ones(record.sig_len))
        assert columns["undefined"][-1] == 1
        middle = slice(3000, 6000 * len(one.night.stages), 6000)
        for name, code in cinc2018.COLUMNS.items():
            assert np.array_equal(columns[name][middle] == 1, one.night.stages == code)
        changes = np.flatnonzero(np.any([np.diff(column) != 0 for column in columns.values()], axis=0)) + 1
        assert set((changes[:-1] % 6000).tolist()) <= {5999}
    assert any(rests) and any(first_notes)


def test_cinc2018_keeps_a_note_at_sample_0() -> None:
    scored_at_once = []
    for subject in range(40):
        plan = NightPlan(corpus="cinc2018", subject=subject, night=1, seed=SEED, hours=1.0)
        night = draw_truth(plan, draw_person(plan))
        scored_at_once.append(bool(night.stages[0] >= 0))
    assert 1 <= sum(scored_at_once) <= 15
    raw = cinc2018.annotation_bytes([(0, "W"), (6000, "N1"), (6001, "(resp_hypopnea"), (200_000, "resp_hypopnea)")])
    # by hand, after the title: code 22 at 0, subtype 5, text "W"; skip 6000, code 22, subtype 3, text "N1"
    title = 2 + 2 + 24 + 6 + 2
    assert raw[:2] == b"\x00\x58" and raw[4:27] == b"## time resolution: 200"
    assert raw[title : title + 8] == b"\x00\x58\x05\xf4\x01\xfcW\x00"
    assert raw[title + 8 : title + 14] == b"\x00\xec\x00\x00\x70\x17"
    assert raw[-2:] == b"\0\0"


def test_shhs_comes_back_through_two_readers(folders: dict[str, Path]) -> None:
    codes = {"W": 0, "1": 1, "2": 2, "3": 3, "4": 4, "R": 5, "Movement time": 6, "?": 9}
    visits, kinds, seconds = [], set(), set()
    for one in made("shhs"):
        psg, nsrr, profusion = (folders["shhs"] / name for name in shhs.prefixes(one.plan))
        visits.append(one.plan.record)
        eeg_hz, eog_hz = shhs.RATES[one.plan.night]
        edf = edfio.read_edf(psg)
        assert SIMULATED_FLAG in psg.read_bytes()[88:168].decode("ascii")
        second = next(label for label in edf.labels if label in shhs.SECOND_EEG)
        seconds.add(second)
        rates = {label: edf.get_signal(label).sampling_frequency for label in edf.labels}
        assert rates["EEG"] == rates[second] == eeg_hz
        assert rates["EOG(L)"] == rates["EOG(R)"] == eog_hz
        raw = mne.io.read_raw_edf(psg, include=["EEG"], verbose="error")
        channels, _ = shhs.draw_channels(one.plan, one.night, one.person)
        for channel in channels:
            if channel.unit == "uV":
                found = edf.get_signal(channel.name).data
                clipped = np.clip(channel.samples, -shhs.LIMIT_UV, shhs.LIMIT_UV)
                np.testing.assert_allclose(found, clipped, atol=0.5 * 250 / 255 + 1e-3)
        np.testing.assert_allclose(raw.get_data()[0] * 1e6, edf.get_signal("EEG").data, atol=1e-3)
        assert nsrr.exists() or profusion.exists()
        kinds.add((nsrr.exists(), profusion.exists()))
        expected = [codes[name] for name in one.night.names]
        if profusion.exists():
            tree = ElementTree.parse(profusion)
            assert [int(node.text or -1) for node in tree.iter("SleepStage")] == expected
            assert SIMULATED_FLAG in profusion.read_text()
        if nsrr.exists():
            assert SIMULATED_FLAG in nsrr.read_text()
            stages: list[int] = []
            for event in ElementTree.parse(nsrr).iter("ScoredEvent"):
                if event.findtext("EventType") == "Stages|Stages":
                    assert float(event.findtext("Start") or -1) == 30 * len(stages)
                    number = int((event.findtext("EventConcept") or "").rpartition("|")[2])
                    stages += [number] * int(float(event.findtext("Duration") or 0) / 30)
            assert stages == expected
    assert any(name.startswith("shhs2") for name in visits)
    assert len(seconds) > 1
    assert (True, True) in kinds


def test_almost_half_of_the_people_of_shhs_are_visited_twice() -> None:
    two = [shhs.nights_of("shhs", subject, 0) for subject in range(400)]
    assert two.count(2) / 400 == pytest.approx(shhs.TWO_VISITS, abs=0.08)


@pytest.mark.parametrize("corpus", ["dod-h", "dod-o"])
def test_dod_comes_back_through_h5py_and_json(corpus: str, folders: dict[str, Path]) -> None:
    described, grouped, begins = [], [], []
    for one in made(corpus):
        psg, *paths = (folders[corpus] / name for name in dod.prefixes(one.plan))
        lists = [json.loads(path.read_text()) for path in paths]
        n_epochs = len(one.night.stages)
        scorings = dod.draw_scorings(one.plan, one.night, one.person)
        assert lists == [found.tolist() for found in scorings.lists]
        # the span in which everybody has begun and nobody has stopped is the signal's
        first = max(next(i for i, code in enumerate(codes) if code >= 0) for codes in lists)
        last = min(max(i for i, code in enumerate(codes) if code >= 0) for codes in lists)
        assert (first, last + 1) == (scorings.first, scorings.first + n_epochs)
        begins.append(first)
        with h5py.File(psg) as file:
            assert SIMULATED_FLAG in file.attrs["comment"]
            described.append("description" in file.attrs)
            grouped.append("fs" in file["signals/eeg"].attrs)
            if described[-1]:
                entries = json.loads(file.attrs["description"])
                assert {entry["fs"] for entry in entries} == {250}
                assert all(entry["path"] in file for entry in entries)
            if grouped[-1]:
                assert file["signals/eog"].attrs["fs"] == 250
            assert described[-1] or grouped[-1]
            assert len(file["hypnogram"]) == n_epochs
            assert sorted(file["signals/eeg"]) == sorted(dod.EEG[corpus])
            assert sorted(file["signals/eog"]) == ["EOG1", "EOG2"]
            assert sorted(file["signals/emg"]) == ["ECG", "EMG"]
            if one.plan.subject < 2:
                for path, samples in dod.draw_channels(one.plan, one.night, one.person):
                    stored = file[f"signals/{path}"][:]
                    assert len(stored) == 250 * 30 * n_epochs
                    np.testing.assert_allclose(stored, samples, atol=0.5 * dod.STEP_UV + 1e-3)
    if corpus == "dod-o":
        assert any(begins)
        assert max(max(dod.draw_scorings(*whole_night(subject)).first for subject in range(12)), 60) < 458


def whole_night(subject: int, corpus: str = "dod-o", seed: int = 1) -> tuple[NightPlan, Night, Person]:
    plan = NightPlan(corpus=corpus, subject=subject, night=1, seed=seed, hours=None)
    person = draw_person(plan)
    return plan, draw_truth(plan, person), person


@pytest.mark.parametrize("corpus", ["cinc2018", "dod-h"])
def test_stages_lie_within_the_spread_of_real_nights(corpus: str) -> None:
    """Shares (also early and late in the night), bout lengths and transitions of 100 nights against the 5th and 95th
    percentile of groups of 20 real nights."""
    nights = [whole_night(subject, corpus)[1].stages for subject in range(100)]
    found = summary(nights)
    outside = {
        f"{name}{list(map(int, where))}": float(found[name][tuple(where)])
        for name, (low, high) in load_spread(corpus).items()
        for where in np.argwhere((found[name] < low) | (found[name] > high))
    }
    assert not outside
    spread = np.std([stage_shares(night) for night in nights], axis=0)
    # real: N3 .087 and REM .082 in CinC 2018, .077 and .066 in DOD-H
    assert 0.05 < spread[N3] < 0.13 and 0.05 < spread[REM] < 0.1


def test_the_statistics_are_those_of_the_real_hypnograms(shared_data: Path) -> None:
    measure = measure_module()
    nights = {
        "cinc2018": measure.real_nights(shared_data / "cinc2018"),
        "dod-h": measure.dod_h_nights(shared_data / "dod-h"),
    }
    counts = np.bincount(np.concatenate(list(nights["dod-h"].values())) + 1)
    assert counts[1:].tolist() == [3037, 1505, 11879, 3514, 4727]
    for corpus, own in nights.items():
        assert load_statistics(corpus).nights == len(own)
        real = summary(list(own.values()))
        for name, (low, high) in load_spread(corpus).items():
            assert np.all((real[name] >= low - 1e-3) & (real[name] <= high + 1e-3)), name


def test_corpora_without_labels_at_hand_say_whose_they_borrow() -> None:
    assert {name for name, loan in LOANS.items() if loan.chain_of} == {"dcsm", "dod-o", "shhs"}
    ages = [whole_night(subject, "shhs")[2].age for subject in range(60)]
    assert min(ages) >= 40 and 55 < np.mean(ages) < 70
    for corpus in ("dcsm", "dod-o", "shhs"):
        stages = np.concatenate([whole_night(subject, corpus)[1].stages for subject in range(20)])
        assert set(np.unique(stages).tolist()) <= {-1, 0, 1, 2, 3, 4}
        assert 0.3 < np.mean(stages == 2) < 0.6


def agreement(nights: list[np.ndarray]) -> tuple[float, float]:
    """Mean accuracy and kappa of the scorers against the consensus of the other four, pooled over epochs."""
    accuracies, kappas = [], []
    for scorer in range(5):
        table = np.zeros((5, 5))
        for votes in nights:
            others = consensus_of_others(votes, scorer)
            both = (others >= 0) & (votes[scorer] >= 0)
            np.add.at(table, (others[both], votes[scorer][both]), 1)
        total = table.sum()
        accuracy = np.trace(table) / total
        expected = float(table.sum(axis=0) @ table.sum(axis=1)) / total**2
        accuracies.append(accuracy)
        kappas.append((accuracy - expected) / (1 - expected))
    return float(np.mean(accuracies)), float(np.mean(kappas))


def test_scorers_disagree_as_real_ones_do(shared_data: Path) -> None:
    """Real scorers of DOD-H: accuracy .838, kappa .768."""
    lists = json.loads((shared_data / "dod-h" / "scorers.json").read_text())
    measure = measure_module()
    real = [measure.dod_h_votes(lists, record) for record in lists["scorer_1"]]
    assert agreement(real) == pytest.approx((0.838, 0.768), abs=0.001)
    simulated, truths = [], []
    for subject in range(25):
        plan, night, person = whole_night(subject, "dod-h")
        simulated.append(cut_votes(dod.draw_scorings(plan, night, person), len(night.stages)))
        truths.append(night.stages)
    accuracy, kappa = agreement(simulated)
    assert accuracy == pytest.approx(0.838, abs=0.03)
    assert kappa == pytest.approx(0.768, abs=0.04)
    # together they find the truth
    agreed = np.concatenate([best_four(votes) for votes in simulated]) == np.concatenate(truths)
    assert agreed.mean() > 0.9


@pytest.fixture(scope="module")
def head() -> tuple[Potentials, Night]:
    plan = NightPlan(corpus="cinc2018", subject=1, night=1, seed=6, hours=3.0)
    person = draw_person(plan)
    night = draw_truth(plan, person)
    stream = plan.stream(SIGNALS, 1)
    return draw_potentials(night, person, stream, electrodes=ELECTRODES, line_hz=60.0), night


def derived(head: tuple[Potentials, Night], plus: str, minus: str, rate: int = 100) -> np.ndarray:
    return head[0].derive(Derivation(plus=plus, minus=minus, rate_hz=rate))


def robust_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Median over epochs, so that a loose electrode does not decide."""
    pairs = zip(a.reshape(-1, 3000), b.reshape(-1, 3000), strict=True)
    return float(np.median([np.corrcoef(x, y)[0, 1] for x, y in pairs]))


def test_neighbours_are_alike_and_eyes_opposite(head: tuple[Potentials, Night]) -> None:
    f3, f4, c3, o1 = (
        derived(head, name, mastoid) for name, mastoid in (("F3", "M2"), ("F4", "M1"), ("C3", "M2"), ("O1", "M2"))
    )
    assert 0.5 < robust_correlation(f3, f4) < 0.98
    assert robust_correlation(f3, c3) > robust_correlation(f3, o1) > 0
    bipolar = derived(head, "F3", "F4")
    assert np.median(np.abs(bipolar)) < 0.7 * np.median(np.abs(f3))
    potentials, night = head
    left, right = derived(head, "E1", "M2"), derived(head, "E2", "M2")
    moving = np.flatnonzero(night.brain == W)
    epochs = [(left.reshape(-1, 3000)[i], right.reshape(-1, 3000)[i]) for i in moving]
    assert np.median([np.corrcoef(a, b)[0, 1] for a, b in epochs]) < -0.1
    assert robust_correlation(left[:], right[:]) > np.median([np.corrcoef(a, b)[0, 1] for a, b in epochs])
    assert len(left) == potentials.seconds * 100


@pytest.mark.parametrize("rate", [50, 64, 125, 128, 200, 250, 256])
def test_any_rate_shows_the_same_waves(head: tuple[Potentials, Night], rate: int) -> None:
    from scipy.signal import welch

    reference = derived(head, "C4", "M1")
    samples = derived(head, "C4", "M1", rate)
    assert len(samples) == head[0].seconds * rate and samples.dtype == np.float32
    for low, high in ((0.5, 4), (5, 8), (9, 14)):
        powers = []
        for data, hz in ((reference, 100), (samples, rate)):
            f, density = welch(data.reshape(-1, 30 * hz), fs=hz, nperseg=4 * hz, axis=-1)
            powers.append(float(np.median(density[:, (f >= low) & (f <= high)].mean(axis=1))))
        assert powers[1] == pytest.approx(powers[0], rel=0.1)
    if rate >= 200:
        f, density = welch(samples.reshape(-1, 30 * rate), fs=rate, nperseg=4 * rate, axis=-1)
        fast = np.median(density[:, (f > 51) & (f < 58)].mean(axis=1))
        assert 1e-4 < fast < np.median(density[:, (f > 20) & (f < 30)].mean(axis=1))


def test_torn_nights_are_made_anew(tmp_path: Path) -> None:
    files = simulate("dod-o", tmp_path, subjects=2, seed=SEED, hours=0.05, workers=1)
    before = contents(tmp_path)
    torn = next(path for path in files if path.suffix == ".h5")
    torn.write_bytes(torn.read_bytes()[:999])
    files[-1].unlink()
    (torn.parent / f".{torn.name}.abc.part").write_bytes(b"half")
    assert simulate("dod-o", tmp_path, subjects=2, seed=SEED, hours=0.05, workers=1) == files
    assert contents(tmp_path) == before
    assert not list(tmp_path.rglob("*.part"))


def test_folders_with_other_content_are_refused(tmp_path: Path) -> None:
    def make(corpus: str = "dcsm", **change: object) -> None:
        simulate(corpus, tmp_path / "n", **{"subjects": 1, "seed": 0, "hours": 0.05, "workers": 1, **change})

    make()
    for change in ({"seed": 1}, {"corpus": "shhs"}, {"hours": 0.1}):
        with pytest.raises(UserError, match="other settings"):
            make(**change)
    make(subjects=2)
    with pytest.raises(UserError, match="other files"):
        make(subjects=1)
    (tmp_path / "n" / "thesis.txt").write_text("do not touch")
    with pytest.raises(UserError, match="thesis"):
        make(subjects=2)
    for arguments, text in (({"nights": 2}, "1 night"), ({"subjects": 1001}, "1000")):
        with pytest.raises(UserError, match=text):
            make(**arguments)
