"""What arms cost, in every format: sums, maxima, medians, places kept apart, and nothing unknown shown as 0."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
from report_results import add_cell, add_submission, new_store
from rich.console import Console

from tusp.dashboards.across import mean_cost
from tusp.dashboards.cards import model_card
from tusp.dashboards.cost_tables import cost_table, figure, unit_of
from tusp.dashboards.costs import FIGURES, NOT_RECORDED, costs_of, place_of
from tusp.dashboards.leaderboard import Board, Row
from tusp.dashboards.render import print_report, render_report
from tusp.dashboards.report import Report, build_report
from tusp.dashboards.wide_tables import ablation_table, forest_table
from tusp.platform.store.models import Cell
from tusp.platform.store.session import Store

SCHEMA = json.loads((Path(__file__).parents[1] / "docs" / "report.schema.json").read_text())
EPYC, XEON, CARD = "AMD EPYC 7742 64-Core Processor", "Intel(R) Xeon(R) Processor @ 2.50GHz", "NVIDIA H200"


def on_cpu(fold: int, **other: Any) -> dict[str, Any]:
    """What a cell of two threads says: 600, 660, 720 ... s of training, 400, 410, 420 ... epochs/s."""
    seconds = 600.0 + 60 * fold
    return {
        "device": "cpu", "hardware": XEON, "threads": 2, "workers": 1, "precision": "float32",
        "training_seconds": seconds, "device_seconds": 2 * seconds, "peak_memory_bytes": (1024 + fold) * 2**20,
        "inference_epochs_per_second": 400.0 + 10 * fold, "macs_per_epoch": 130_204_000.0, "energy_joules": None,
        "energy_missing": "the processor's counter of energy may not be read",
    } | other  # fmt: skip


def on_gpu(fold: int, **other: Any) -> dict[str, Any]:
    """What a cell says that had a quarter of a card: 60, 66, 72 ... s, 36 kJ."""
    seconds = 60.0 + 6 * fold
    return {
        "device": "cuda:0", "hardware": CARD, "threads": 4, "workers": 1, "precision": "bf16",
        "training_seconds": seconds, "device_seconds": seconds / 4, "peak_memory_bytes": 3 * 2**30,
        "inference_epochs_per_second": 90_000.0 + fold, "macs_per_epoch": 130_204_000.0, "energy_joules": 36e3,
        "energy_missing": None,
    } | other  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path)


def measured(store: Store, arms: Mapping[str, list[Mapping[str, Any]]], *, corpus: str = "sedf-sc") -> None:
    """A done cell for every result: fold 0, 1, 2 ... of each arm."""
    eye = np.eye(5, dtype=int)
    with store.session() as session:
        if not session.query(Cell).count():
            add_submission(session, "first", arms=tuple(arms))
        for arm, results in arms.items():
            for fold, result in enumerate(results):
                nights = {(f"P{fold}{n}", f"R{fold}{n}"): (8 + n) * eye + (arm == "no-csja") for n in range(2)}
                name = add_cell(session, "first", nights, arm=arm, corpus=corpus, fold=fold, folds=len(results))
                cell = session.get(Cell, name)
                assert cell is not None
                cell.result = {**(cell.result or {}), **result}


def report_of(store: Store) -> Report:
    return build_report(store, bootstrap=100)


def row_of(board: Board, name: str = "full") -> Row:
    return next(row for row in board.rows if row.name == name)


def shown(board: Board) -> dict[str, list[str]]:
    """Columns of the cost table by the first word of their heading, or by what is in brackets in it."""
    table = cost_table(board)
    assert table is not None
    return {
        header.replace("\n", " "): [f"{row[at].main} {row[at].under}".strip() for row in table.rows]
        for at, header in enumerate(table.columns)
    }


def test_sums_maxima_and_medians_over_cells(store: Store) -> None:
    measured(store, {"full": [on_cpu(fold) for fold in range(3)], "no-csja": [on_cpu(0)] * 3})
    report = report_of(store)
    row = row_of(report.boards[0])
    assert row.training_seconds == 600 + 660 + 720
    assert row.device_seconds == 2 * (600 + 660 + 720)
    assert row.peak_memory_bytes == 1026 * 2**20
    assert row.inference_epochs_per_second == 410
    assert row.macs_per_epoch == 130_204_000
    assert np.isnan(row.energy_joules)
    assert shown(report.boards[0]) == {
        "arm": ["full", "no-csja"],
        "parameters": ["2,405,740", "2,405,669"],
        "M MACs per epoch": ["130", "130"],
        "training (min)": ["33.0", "30.0"],
        "device time (h)": ["1.10", "1.00"],
        "peak memory (GiB)": ["1.00", "1.00"],
        "inference (epochs/s)": ["410", "400"],
        "energy (J)": ["–", "–"],
        "cells": ["3", "3"],
        "ran on": ["CPU, 2 threads float32", "CPU, 2 threads float32"],
    }


def test_every_format_has_all_of_them_and_why_some_are_missing(store: Store) -> None:
    measured(store, {"full": [on_cpu(fold) for fold in range(3)], "no-csja": [on_gpu(fold) for fold in range(3)]})
    report = report_of(store)
    board = report.boards[0]
    texts = {name: render_report(report, name) for name in ("table", "md", "latex", "html")}
    for name, text in texts.items():
        for said in ("2,405,740", "130", "33.0", "410", "90,001", "108", "CPU, 2 threads", "0.25 GPU", "float32",
                     "bf16", "may not be read", "NVIDIA H200", "parameters", "device time", "energy"):  # fmt: skip
            words = " ".join(text.split())
            assert said in words.replace("&#39;", "'"), (name, said)
    assert "| full | 2,405,740 | 130 |" in " ".join(texts["md"].split())

    document = json.loads(render_report(report, "json"))
    jsonschema.validate(document, SCHEMA)
    full, other = document["boards"][0]["rows"][:2]
    full, other = (full, other) if full["name"] == "full" else (other, full)
    assert (full["device_seconds"], full["macs_per_epoch"], full["energy_joules"]) == (3960, 130_204_000, None)
    assert other["energy_joules"] == 108_000
    assert full["costs"][0]["energy_joules"] == {
        "value": None,
        "cells": 0,
        "reason": "the processor's counter of energy may not be read",
    }
    assert (other["costs"][0]["device"], other["costs"][0]["hardware"], other["costs"][0]["units"]) == (
        "GPU",
        CARD,
        0.25,
    )
    baseline = next(row for row in document["boards"][0]["rows"] if row["kind"] == "baseline")
    assert baseline["costs"] == []
    assert [baseline[name] for name in FIGURES] == [None] * 6

    frame = pd.read_csv(io.StringIO(render_report(report, "csv")))
    of_arm = frame[(frame.kind == "arm") & (frame.name == "full")].set_index("metric")
    assert of_arm.value["inference_epochs_per_second"] == 410
    assert of_arm.aggregation["inference_epochs_per_second"] == "median"
    assert of_arm.text["device_seconds"] == f"CPU, 2 threads, float32, {XEON}; 3 of 3 cells"
    assert np.isnan(of_arm.value["energy_joules"])
    assert "0 of 3 cells (the processor's counter of energy may not be read)" in of_arm.text["energy_joules"]

    card = model_card(store, report, board, row_of(board))
    for said in ("| parameters | 2,405,740 |", "| MACs per epoch | 130 M |", "| training in all | 33.0 min |",
                 "| device time in all | 1.10 h |", "| peak memory | 1.00 GiB |", "| inference | 410 epochs/s |",
                 "| energy in all | – (the processor's counter of energy may not be read) |",
                 f"| ran on | CPU, 2 threads, float32, {XEON}; 3 cells |"):  # fmt: skip
        assert said in card, said


def test_places_are_never_added_up(store: Store) -> None:
    mixed = [on_cpu(0), on_cpu(1), on_gpu(2), on_cpu(3, hardware=EPYC)]
    measured(store, {"full": mixed, "no-csja": [on_cpu(fold) for fold in range(4)]})
    report = report_of(store)
    row = row_of(report.boards[0])
    assert [(cost.place.words, cost.place.hardware, cost.cells) for cost in row.costs] == [
        ("CPU, 2 threads", XEON, 2),
        ("CPU, 2 threads", EPYC, 1),
        ("0.25 GPU", CARD, 1),
    ]
    assert np.isnan([row.device_seconds, row.peak_memory_bytes, row.inference_epochs_per_second]).all()
    assert row.macs_per_epoch == 130_204_000, "the same everywhere"
    table = shown(report.boards[0])
    assert table["arm"].count("full") == 3
    assert set(table["ran on"]) == {"CPU 1, 2 threads float32", "CPU 2, 2 threads float32", "0.25 GPU bf16"}
    text = " ".join(render_report(report, "md").split())
    assert "cells ran in different places, a row for each, never added up: full" in text
    assert f"CPU 1: {EPYC}; CPU 2: {XEON}" in text
    assert "energy is of the whole device" in text
    jsonschema.validate(json.loads(render_report(report, "json")), SCHEMA)
    frame = pd.read_csv(io.StringIO(render_report(report, "csv")))
    rates = frame[(frame.name == "full") & (frame.metric == "inference_epochs_per_second") & (frame.kind == "arm")]
    assert sorted(rates.value) == [405, 430, 90_002]
    (contrast,) = report.boards[0].contrasts
    assert np.isnan([contrast.training_seconds, contrast.inference_epochs_per_second]).all()
    assert contrast.macs_per_epoch == 0


def test_figures_that_only_some_cells_report_say_how_many(store: Store) -> None:
    stopped = on_gpu(1, energy_joules=None, energy_missing="the cell was continued after a stop")
    measured(store, {"full": [on_gpu(0), stopped, on_gpu(2)]})
    board = report_of(store).boards[0]
    assert shown(board)["energy (kJ)"] == ["72.0 2/3"]
    text = " ".join(render_report(report_of(store), "md").split())
    assert "not reported by all cells: energy: the cell was continued after a stop" in text
    assert "a fraction beneath is how many cells report the figure" in text


def test_cells_from_before_are_unknown_and_never_0(store: Store) -> None:
    measured(store, {"full": [{}, {}]})  # what such cells say: parameters and training seconds
    report = report_of(store)
    table = shown(report.boards[0])
    assert table["training (s)"] == ["43.0"]
    assert table["ran on"] == ["not recorded"]
    for header in ("MACs per epoch", "device time (s)", "peak memory (MiB)", "inference (epochs/s)", "energy (J)"):
        assert table[header] == ["–"], header
    assert NOT_RECORDED in render_report(report, "md")
    jsonschema.validate(json.loads(render_report(report, "json")), SCHEMA)


def test_an_estimator_has_no_multiply_accumulates(store: Store) -> None:
    estimator = [on_cpu(fold, macs_per_epoch=None, precision=None, training_seconds=0.4) for fold in range(2)]
    measured(store, {"full": [on_cpu(fold) for fold in range(2)], "plain": estimator})
    report = report_of(store)
    row = row_of(report.boards[0], "plain")
    assert row.costs[0].macs_per_epoch.reason == "not counted for what is not a network"
    assert "MACs per epoch (plain): not counted for what is not a network" in render_report(report, "md")
    (contrast,) = report.boards[0].contrasts
    assert np.isnan(contrast.macs_per_epoch)
    assert contrast.inference_epochs_per_second == 0, "both on the same two threads"


def test_an_arm_that_is_not_done_has_no_row_of_cost(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "first")
        add_cell(session, "first", None, state="planned", folds=1)
    report = report_of(store)
    assert cost_table(report.boards[0]) is None
    for name in ("table", "md", "html", "csv"):
        assert "Cost" not in render_report(report, name)
    jsonschema.validate(json.loads(render_report(report, "json")), SCHEMA)


def test_the_ablation_board_has_macs_and_inference_rate(store: Store) -> None:
    lighter = [on_cpu(f, macs_per_epoch=129e6, inference_epochs_per_second=500.0 + f) for f in range(2)]
    for corpus in ("dcsm", "sedf-sc"):
        measured(store, {"full": [on_cpu(fold) for fold in range(2)], "no-csja": lighter}, corpus=corpus)
    report = report_of(store)
    (forest,) = report.across.forests
    assert mean_cost(forest)[1] == 0
    assert [round(item.macs_per_epoch) for item in forest.effects] == [1_204_000] * 2
    assert [item.inference_epochs_per_second for item in forest.effects] == [405 - 500.5] * 2
    for table in (ablation_table([forest]), forest_table(forest)):
        words = [header.replace("\n", " ") for header in table.columns[-4:]]
        assert words == ["parame- ters", "M MACs per epoch", "training of a cell", "inference (epochs/s)"]
        assert [entry.main for entry in table.rows[-1][-4:]] == ["+71", "+1.20", "+0 s", "−95.5"]
    document = json.loads(render_report(report, "json"))
    jsonschema.validate(document, SCHEMA)
    assert document["boards"][0]["contrasts"][0]["macs_per_epoch"] == pytest.approx(1_204_000)


def test_the_cost_table_fits_120_columns(store: Store) -> None:
    measured(store, {"full": [on_cpu(fold) for fold in range(3)], "no-csja": [on_gpu(fold) for fold in range(3)]})
    text = io.StringIO()
    print_report(report_of(store), Console(file=text, width=120, highlight=False))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 120
    start = next(n for n, line in enumerate(lines) if line.startswith("Cost"))
    header = " ".join(lines[start + 1 : start + 3])
    for said in ("parameters", "MACs", "training", "device time", "peak memory", "inference", "energy", "ran on"):
        assert said in header, "one part, not two"


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0"), (float("nan"), "–"), (0.01234, "0.0123"), (4.6419, "4.64"),
     (9.999, "10.0"), (33.0, "33.0"), (410.4, "410"),
     (2506.9, "2,507"), (90_001.0, "90,001")],
)  # fmt: skip
def test_figures_have_three_digits_and_no_exponent(value: float, said: str) -> None:
    assert figure(value) == said


def test_a_column_has_one_unit() -> None:
    times = ((1.0, "s"), (60.0, "min"), (3600.0, "h"))
    assert unit_of([3.0, 7200.0, 9000.0], times) == (3600.0, "h")
    assert unit_of([3.0, 5.0, 9000.0], times) == (1.0, "s")
    assert unit_of([float("nan")], times) == (1.0, "s")


def test_places_in_words() -> None:
    assert place_of({"device": "cpu", "threads": 1}).words == "CPU, 1 thread"
    assert place_of({"device": "cpu", "threads": 2, "workers": 2}).words == "CPU, 4 threads, 2 workers"
    assert place_of(on_gpu(0, device_seconds=60.0)).words == "GPU"
    assert place_of(on_gpu(0, device_seconds=120.0, workers=2)).words == "2 GPU, 2 workers"
    assert place_of({}).words == "not recorded"
    assert place_of(on_gpu(0)) == place_of(on_gpu(5, device="cuda:3")), "cards of one name are one place"
    assert costs_of([]) == ()
