"""Simulated nights go out in the original files and come back unchanged through the corpus's adapter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mne
import numpy as np
import pyedflib
import pytest

from tusp.datasets.corpora.cinc2018 import Cinc2018
from tusp.datasets.corpora.dcsm import Dcsm
from tusp.datasets.corpora.dod_h import DodH
from tusp.datasets.corpora.dod_o import DodO
from tusp.datasets.corpora.sedf_sc import SedfSc
from tusp.datasets.corpora.sedf_st import SedfSt
from tusp.datasets.corpora.shhs import Shhs
from tusp.datasets.recording import Adapter
from tusp.datasets.simulation import cinc2018, dcsm, dod, shhs, simulate
from tusp.datasets.simulation.hypnogram import Night
from tusp.datasets.simulation.person import Person
from tusp.datasets.simulation.plan import NightPlan, draw_person, draw_truth
from tusp.datasets.simulation.scorers import cut_votes
from tusp.platform.errors import UserError
from tusp.platform.scoring.consensus import best_four
from tusp.platform.stages import UNSCORED

NEEDED = {"Fpz-Cz": "EEG Fpz-Cz", "Pz-Oz": "EEG Pz-Oz", "horizontal": "EOG horizontal"}


@pytest.mark.parametrize(("corpus", "adapter"), [("sedf-sc", SedfSc()), ("sedf-st", SedfSt())])
def test_labels_and_signals_come_back(corpus: str, adapter: SedfSc | SedfSt, tmp_path: Path) -> None:
    simulate(corpus, tmp_path, subjects=2, seed=5, nights=1, hours=2.5)
    found = adapter.discover(tmp_path)
    assert not found.refused
    assert len(found.recordings) == 2
    for subject, recording in enumerate(sorted(found.recordings, key=lambda night: night.name)):
        assert recording.simulated
        plan = NightPlan(corpus=corpus, subject=subject, night=1, seed=5, hours=2.5)
        truth = draw_truth(plan, draw_person(plan)).stages
        stages = adapter.hypnogram(recording).stages
        assert (stages != UNSCORED).any()
        np.testing.assert_array_equal(stages, truth[: len(stages)])
        assert (truth[len(stages) :] == UNSCORED).all()

        raw = mne.io.read_raw_edf(recording.signals, verbose="error")
        with pyedflib.EdfReader(str(recording.signals)) as reader:
            labels = reader.getSignalLabels()
            for name, original in NEEDED.items():
                samples = adapter.read(recording, name)
                channel = labels.index(original)
                step = (reader.getPhysicalMaximum(channel) - reader.getPhysicalMinimum(channel)) / 65535
                np.testing.assert_allclose(samples, reader.readSignal(channel), atol=step)
                from_mne = raw.get_data(picks=[original])[0] * 1e6
                np.testing.assert_allclose(samples, from_mne[: len(samples)], atol=step)


ADAPTERS: dict[str, Adapter] = {
    "dcsm": Dcsm(),
    "cinc2018": Cinc2018(),
    "shhs": Shhs(),
    "dod-h": DodH(),
    "dod-o": DodO(),
}
PEOPLE = 3
SEED = 5
HOURS = 0.25


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All corpora but Sleep-EDF, a quarter of an hour a night."""
    found = {}
    for corpus in ADAPTERS:
        found[corpus] = tmp_path_factory.mktemp(corpus)
        simulate(corpus, found[corpus], subjects=PEOPLE, seed=SEED, hours=HOURS, workers=1)
    return found


def plans(corpus: str) -> Iterator[NightPlan]:
    for subject in range(PEOPLE):
        for night in range(1, (shhs.nights_of("shhs", subject, SEED) if corpus == "shhs" else 1) + 1):
            yield NightPlan(corpus=corpus, subject=subject, night=night, seed=SEED, hours=HOURS)


def truth(plan: NightPlan, night: Night, person: Person) -> np.ndarray:
    """Stages as the files have them."""
    if not plan.corpus.startswith("dod"):
        return night.stages
    return best_four(cut_votes(dod.draw_scorings(plan, night, person), len(night.stages)))


def drawn(plan: NightPlan, night: Night, person: Person) -> dict[str, tuple[np.ndarray, float]]:
    """Channels under the adapter's names before they are stored (microvolts), and the step of storing."""
    match plan.corpus:
        case "dcsm":
            return {name: (data, dcsm.MICROVOLT_STEP) for name, data in dcsm.draw_channels(plan, night, person)}
        case "cinc2018":
            samples, _ = cinc2018.draw_record(plan, night, person)
            return {name: (data, 1.0) for name, data in samples.items()}
        case "shhs":
            names = {"EEG": "C4-A1", **dict.fromkeys(shhs.SECOND_EEG, "C3-A2")}
            channels, _ = shhs.draw_channels(plan, night, person)
            return {
                names.get(one.name, one.name): (np.clip(one.samples, -shhs.LIMIT_UV, shhs.LIMIT_UV), 250 / 255)
                for one in channels
            }
        case _:
            return {path.split("/")[1]: (data, dod.STEP_UV) for path, data in dod.draw_channels(plan, night, person)}


@pytest.mark.parametrize("corpus", list(ADAPTERS))
def test_every_corpus_comes_back_through_its_adapter(corpus: str, folders: dict[str, Path]) -> None:
    adapter = ADAPTERS[corpus]
    found = adapter.discover(folders[corpus])
    assert not found.refused
    recordings = {recording.name: recording for recording in found.recordings}
    assert sorted(recordings) == sorted(plan.record for plan in plans(corpus))
    assert all(recording.simulated for recording in found.recordings)
    assert len({recording.subject for recording in found.recordings}) == PEOPLE
    for plan in plans(corpus):
        recording = recordings[plan.record]
        person = draw_person(plan)
        night = draw_truth(plan, person)
        np.testing.assert_array_equal(adapter.hypnogram(recording).stages, truth(plan, night, person))
        if corpus.startswith("dod"):
            votes = cut_votes(dod.draw_scorings(plan, night, person), len(night.stages))
            scorers = adapter.scorers(recording)
            assert len(scorers) == 5
            np.testing.assert_array_equal(np.stack([scorers[name] for name in sorted(scorers)]), votes)
        there = {channel.name: channel for channel in adapter.channels(recording)}
        originals = drawn(plan, night, person)
        for group, names in adapter.card.channel_groups.items():
            for name in names:
                original, step = originals[name]
                samples = adapter.read(recording, name)
                assert len(samples) == there[name].n_samples == len(original), (group, name)
                np.testing.assert_allclose(samples, original, atol=0.52 * step + 1e-3, rtol=1e-5)


@pytest.mark.parametrize("corpus", list(ADAPTERS))
def test_simulated_and_real_nights_do_not_mix(corpus: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """The mark is in the files: without it the same night is taken for a real one, and refused beside the others."""
    import shutil

    mark, other = b"tusp-simulated", b"real-recordings"[:14]
    mixed = tmp_path / "mixed"
    shutil.copytree(folders[corpus], mixed)
    night = next(plans(corpus)).record
    changed = 0
    for path in mixed.rglob("*"):
        if path.is_file() and night in path.as_posix() and mark in path.read_bytes():
            path.write_bytes(path.read_bytes().replace(mark, other))
            changed += 1
    assert changed
    with pytest.raises(UserError, match="mixes simulated nights"):
        ADAPTERS[corpus].discover(mixed)
