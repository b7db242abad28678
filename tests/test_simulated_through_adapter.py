"""Simulated nights go out in the original files and come back unchanged: through our adapter, MNE and pyedflib."""

from __future__ import annotations

from pathlib import Path

import mne
import numpy as np
import pyedflib
import pytest

from tusp.datasets.corpora.sedf_sc import SedfSc
from tusp.datasets.corpora.sedf_st import SedfSt
from tusp.datasets.simulation import simulate
from tusp.datasets.simulation.plan import NightPlan, draw_person, draw_truth
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
