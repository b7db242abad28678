"""Rule lights, where lights are known: from the annotations of a night to the report, without training twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edf_files import STAGES, write_hypnogram, write_psg
from training_nights import SHORT

from tusp.dashboards.predictions import read_prediction
from tusp.dashboards.report import build_report
from tusp.datasets.corpora.sedf_sc import SedfSc
from tusp.datasets.formats.hypnograms import Run, to_epochs
from tusp.datasets.prepared import PreparedRecording
from tusp.datasets.recording_preparation import PreparationSettings, preparation_identity, prepare_recording
from tusp.jobs.cell import run_cell
from tusp.jobs.job import CellJob
from tusp.jobs.plan import CorpusNights, Request, make_plan
from tusp.platform import processes
from tusp.platform.errors import UserError
from tusp.platform.identity import file_sha256
from tusp.platform.store.record import (
    ArtefactRow,
    CellOutcome,
    Claimant,
    CountRow,
    CurveRow,
    add_cells,
    claim,
    create_submission,
    record_done,
)
from tusp.platform.store.session import Store, open_store

EPOCHS = 14
STAGES_OF = {"W": 0, "N1": 1, "N2": 2, "N3": 3, "REM": 4}


def runs(*lights: Run) -> list[Run]:
    return [Run(onset=0, duration=300, label="W"), *lights]


def moment(seconds: float, text: str) -> Run:
    return Run(onset=seconds, duration=None, label=text)


def test_moments_of_the_lights_are_no_labels() -> None:
    found = to_epochs(runs(moment(60, "Lights off"), moment(240, "LIGHTS ON")), STAGES_OF, signal_seconds=300)
    assert found.lights == (2, 8)
    assert found.problems == ()
    assert found.stages.tolist() == [0] * 10
    shifted = to_epochs(
        runs(moment(60, "Lights off@@EEG"), moment(240, "Lights on")), STAGES_OF, signal_seconds=300, shift_seconds=30
    )
    assert shifted.lights == (3, 9)
    # An epoch belongs to where its middle lies.
    between = to_epochs(runs(moment(44, "Lights off"), moment(46, "Lights on")), STAGES_OF, signal_seconds=300)
    assert between.lights == (1, 2)


def test_without_lights_nothing_is_said() -> None:
    found = to_epochs(runs(), STAGES_OF, signal_seconds=300)
    assert (found.lights, found.problems) == (None, ())


@pytest.mark.parametrize(
    ("lights", "said"),
    [
        ([(60, "Lights off")], "lights off 1 times, on 0 times"),
        ([(60, "Lights off"), (90, "Lights off"), (200, "Lights on")], "lights off 2 times, on 1 times"),
        ([(200, "Lights off"), (60, "Lights on")], "on before off"),
    ],
)
def test_lights_that_are_in_doubt_are_not_known(lights: list[tuple[float, str]], said: str) -> None:
    found = to_epochs(runs(*(moment(*item) for item in lights)), STAGES_OF, signal_seconds=300)
    assert found.lights is None
    assert found.problems == (f"lights are not known: {said} (rule lights needs each once, off first)",)


def night(folder: Path, prepared: Path, person: int, *, lights: bool) -> PreparedRecording:
    """A simulated night in the files of Sleep-EDF, prepared; lights are off from epoch 3 to epoch 11."""
    name, seconds = f"SC4{person:02d}1", EPOCHS * 30
    write_psg(folder / f"{name}E0-PSG.edf", seconds=seconds, seed=person, simulated=True)
    labels = [(float(30 * n), 30.0, STAGES[(n // 2 + person) % 5]) for n in range(EPOCHS)]
    moments = [(90.0, None, "Lights off"), (330.0, None, "Lights on")] if lights else []
    write_hypnogram(folder / f"{name}EC-Hypnogram.edf", [*labels, *moments], simulated=True)
    adapter = SedfSc()
    (files,) = [found for found in adapter.discover(folder).recordings if found.name.startswith(name)]
    identity = preparation_identity(
        adapter, recording=files.name, subject=files.subject, simulated=True,
        source_sha256s=[file_sha256(path) for path in files.files.values()], preparation=PreparationSettings(),
    )  # fmt: skip
    return prepare_recording(
        adapter, files, corpus="lit", destination_root=prepared, identity=identity, preparation=PreparationSettings()
    )


def judged(folder: Path, *, lights: bool) -> tuple[Store, dict[str, Any]]:
    """A store with one trained cell, and what the cell said."""
    (folder / "raw").mkdir()
    nights = [night(folder / "raw", folder / "prepared", person, lights=lights) for person in range(6)]
    request = Request(ablation="csja", recipe=replace(SHORT, max_passes=1), folds=2)
    task = make_plan(request, [CorpusNights(name="lit", simulated=True, recordings=nights)]).tasks[0]
    job = CellJob(
        id=task.cell.id, plan=task.cell.plan, home=str(folder),
        nights={corpus: {name: str(path) for name, path in of.items()} for corpus, of in task.nights.items()},
    )  # fmt: skip
    outcome = dict(run_cell(job))
    store = open_store(f"sqlite:///{folder / 'tusp.db'}")
    create_submission(
        store, id="first", request={}, environment={}, simulated=True, refused=[], process=processes.this_process()
    )
    add_cells(store, "first", [task.cell])
    claimant = Claimant.of_this_process("first")
    number = claim(store, task.cell.id, claimant).attempt_number
    assert number is not None
    record_done(
        store,
        CellOutcome(
            cell_id=task.cell.id, token=claimant.token, attempt=number, result=outcome["result"],
            counts=[CountRow(**row | {"matrix": tuple(map(tuple, row["matrix"]))}) for row in outcome["counts"]],
            curve=[CurveRow(**row) for row in outcome["curve"]],
            artefacts=[ArtefactRow(**row) for row in outcome["artefacts"]], environment={},
        ),
    )  # fmt: skip
    return store, outcome


def test_from_annotations_to_the_report(tmp_path: Path) -> None:
    store, outcome = judged(tmp_path, lights=True)
    kept = [tmp_path / row["path"] for row in outcome["artefacts"] if row["kind"] == "predictions"]
    assert {read_prediction(path).lights for path in kept} == {(3, 11)}
    (board,) = build_report(store, rule="lights", bootstrap=200, home=tmp_path).boards
    assert board.key.simulated
    (row,) = (row for row in board.rows if row.kind == "arm")
    assert row.epochs == len(kept) * 8
    expected = np.zeros((5, 5), dtype=int)
    for path in kept:
        night = read_prediction(path)
        np.add.at(expected, (night.true[3:11], night.predicted[3:11]), 1)
    assert row.confusion == tuple(map(tuple, expected.tolist()))


def test_nights_without_lights_are_refused_by_name(tmp_path: Path) -> None:
    store, _ = judged(tmp_path, lights=False)
    with pytest.raises(UserError, match=r"^lit SC4\d\d1E0: rule lights needs the moments of lights off and on"):
        build_report(store, rule="lights", bootstrap=200, home=tmp_path)
