"""Several corpora at once: forests, rank diagrams, train-on x judge-on matrices, the ablation board."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from report_results import add_cell, add_submission, new_store, night, plausible_results

from tusp.dashboards.across import mean_cost
from tusp.dashboards.documents import report_document, report_frame
from tusp.dashboards.render import render_report
from tusp.dashboards.report import Report, build_report
from tusp.dashboards.wide_tables import across_lines, across_tables, forest_table
from tusp.platform.scoring.evidence import combine_corpora, critical_difference
from tusp.platform.store.models import Cell, Corpus, Recording
from tusp.platform.store.session import Store

SCHEMA = json.loads((Path(__file__).parents[1] / "docs" / "report.schema.json").read_text())
FOUR = ("full", "no-csja", "no-se", "plain")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path)


def ablation(store: Store, corpora: Sequence[str], *, arms: Sequence[str] = FOUR, name: str = "first") -> None:
    with store.session() as session:
        add_submission(session, name, arms=arms, corpora=corpora)
        for place, corpus in enumerate(corpora):
            plausible_results(session, name, arms=arms, corpus=corpus, people=9 + place, folds=3)


def joint(store: Store, trained: Sequence[str], judged: Sequence[str], *, experiment: str = "joint") -> None:
    """Networks trained on corpora together; those that are held out are judged by every fold."""
    with store.session() as session:
        add_submission(session, experiment, corpora=sorted({*trained, *judged}), minutes=5)
        for corpus in judged:
            for fold in range(3):
                for arm in ("full", "no-csja"):
                    generator = np.random.default_rng([fold, len(corpus), len(arm)])
                    people = range(fold, 9, 3) if corpus in trained else range(5)
                    nights = {(f"P{n}", f"{corpus}{n}"): night(generator, quality=0.95) for n in people}
                    add_cell(
                        session, experiment, nights, arm=arm, corpus="+".join(trained), judged_on=corpus, fold=fold,
                        folds=3, experiment=experiment,
                    )  # fmt: skip


def report_of(store: Store, *, everything: bool = False) -> Report:
    return build_report(store, bootstrap=200, everything=everything)


SIDE_BY_SIDE = """
import os, sys
from tusp.dashboards import board_making
from tusp.dashboards.render import render_report
from tusp.dashboards.report import build_report
from tusp.platform.store.session import open_store

store = open_store(sys.argv[1])
begin = board_making._begin
board_making._begin = lambda make: (os.write(2, b"forked "), begin(make))
for processes in (1, 2):
    print(render_report(build_report(store, bootstrap=200, processes=processes), "json"))
    os.write(2, b"| ")
store.engine.dispose()
"""


def test_boards_made_side_by_side_are_the_same(store: Store) -> None:
    """In a process of its own: beside other threads nothing is forked."""
    ablation(store, ["dcsm", "sedf-sc", "sedf-st"])
    run = subprocess.run(
        [sys.executable, "-c", SIDE_BY_SIDE, store.url], capture_output=True, text=True, timeout=300, check=True
    )
    assert run.stderr == "| forked forked | "
    one, two = run.stdout.split("}\n\n")[:2]
    assert json.loads(one + "}") == json.loads(two + "}")
    assert len(json.loads(one + "}")["boards"]) == 3


def test_a_forest_combines_the_effects_of_the_boards(store: Store) -> None:
    ablation(store, ["dcsm", "sedf-sc", "sedf-st"])
    report = report_of(store)
    forests = {forest.contrast: forest for forest in report.across.forests}
    assert list(forests) == [contrast.name for contrast in report.boards[0].contrasts]
    contrasts = [board.contrasts[0] for board in report.boards]
    forest = forests["full − no-csja"]
    assert [(item.corpus, item.effect, item.people) for item in forest.effects] == [
        (board.key.judged_on, contrast.effect, contrast.people)
        for board, contrast in zip(report.boards, contrasts, strict=True)
    ]
    expected = combine_corpora([c.effect.value for c in contrasts], [c.variance for c in contrasts])
    assert forest.summary == expected
    assert expected.effect.low < expected.effect.value < expected.effect.high
    assert [item.stages for item in forest.effects] == [tuple(s.effect for s in c.stages) for c in contrasts]


def test_the_variance_of_an_effect_is_that_of_a_mean_over_people(store: Store) -> None:
    eye = np.eye(5, dtype=int)
    hits = {"full": (9, 8, 7, 9), "no-csja": (7, 7, 7, 6)}
    with store.session() as session:
        add_submission(session, "first")
        for arm, right in hits.items():
            nights = {
                (f"P{n}", f"R{n}"): eye * value + np.roll(eye, 1, axis=1) * (10 - value)
                for n, value in enumerate(right)
            }
            add_cell(session, "first", nights, arm=arm, folds=1)
    contrast = report_of(store).boards[0].contrasts[0]
    assert contrast.variance == pytest.approx(np.var([0.2, 0.1, 0, 0.3], ddof=1) / 4)


def test_the_ablation_board_has_its_cost(store: Store) -> None:
    ablation(store, ["dcsm", "sedf-sc"])
    forests = {forest.contrast: forest for forest in report_of(store).across.forests}
    parameters = {name: mean_cost(forest)[0] for name, forest in forests.items()}
    assert parameters == {
        "full − no-csja": 71,
        "full − no-se": 34_140,
        "full − plain": 34_211,
        "CSJA (main effect)": 71,
        "SE (main effect)": 34_140,
        "CSJA × SE": 0,
    }
    table = forest_table(forests["SE (main effect)"])
    assert [row[0].main for row in table.rows] == ["dcsm", "sedf-sc", "together"]
    assert table.rows[-1][-4].main == "+34,140"


def test_training_time_is_compared_on_one_device_only(store: Store) -> None:
    ablation(store, ["sedf-sc"], arms=("full", "no-csja"))
    with store.session() as session:
        for cell in session.query(Cell):
            seconds = 30.0 if cell.arm == "full" else 20.0
            cell.result = {**(cell.result or {}), "training_seconds": seconds, "device": "cpu"}
    assert report_of(store).boards[0].contrasts[0].training_seconds == pytest.approx(10)
    with store.session() as session:
        for cell in session.query(Cell).filter(Cell.arm == "full"):
            cell.result = {**(cell.result or {}), "device": "cuda"}
    assert np.isnan(report_of(store).boards[0].contrasts[0].training_seconds)


def test_ranks_over_corpora_are_descriptive(store: Store) -> None:
    ablation(store, ["dcsm", "sedf-sc", "sedf-st"])
    (diagram,) = report_of(store).across.diagrams
    assert diagram.ranks == (("full", 1.0), ("no-csja", 2.0), ("no-se", 3.0), ("plain", 4.0))
    assert diagram.critical_difference == pytest.approx(critical_difference(4, 3))
    assert diagram.groups == (("full", "no-csja", "no-se"), ("no-csja", "no-se", "plain"))
    assert diagram.words == "descriptive: 3 corpora cannot carry a test"
    assert any("3 corpora cannot carry a test" in line for line in across_lines(report_of(store).across))


def test_one_corpus_has_nothing_across(store: Store) -> None:
    ablation(store, ["sedf-sc"])
    across = report_of(store).across
    assert (across.forests, across.diagrams, across.matrices, across.notes) == ((), (), (), ())


def test_a_matrix_of_trained_on_and_judged_on(store: Store) -> None:
    joint(store, ["dcsm", "sedf-sc"], ["dcsm", "sedf-sc", "dod-h"])
    for corpus in ("dcsm", "sedf-sc"):
        joint(store, [corpus], ["dcsm", "dod-h", "sedf-sc"], experiment=f"transfer-{corpus}")
    report = report_of(store, everything=True)
    matrix = report.across.matrices[0]
    assert matrix.arm == "full"
    assert matrix.trained_on == ("dcsm+sedf-sc", "dcsm", "sedf-sc")
    assert matrix.judged_on == ("dcsm", "dod-h", "sedf-sc")
    for trained, scores, people in zip(matrix.trained_on, matrix.scores, matrix.people, strict=True):
        for judged, score, number in zip(matrix.judged_on, scores, people, strict=True):
            (board,) = [b for b in report.boards if (b.key.trained_on, b.key.judged_on) == (trained, judged)]
            row = next(row for row in board.rows if row.name == "full")
            assert (score, number) == (row.scores.overall["macro_f1"], row.people)


def test_what_was_not_judged_is_not_scored_in_the_matrix(store: Store) -> None:
    joint(store, ["dcsm", "sedf-sc"], ["dcsm", "dod-h"])
    ablation(store, ["sedf-st"])
    matrix = next(matrix for matrix in report_of(store, everything=True).across.matrices if matrix.arm == "full")
    assert np.isnan(matrix.scores[0][matrix.judged_on.index("sedf-st")].value)
    assert matrix.people[0][matrix.judged_on.index("sedf-st")] == 0


def test_within_alone_has_no_matrix(store: Store) -> None:
    ablation(store, ["dcsm", "sedf-sc"])
    assert report_of(store).across.matrices == ()


def test_a_subset_is_not_taken_together_with_its_corpus(store: Store) -> None:
    ablation(store, ["dcsm", "sedf-sc", "sedf-sc:sedf-20"])
    across = report_of(store).across
    assert {item.corpus for forest in across.forests for item in forest.effects} == {"dcsm", "sedf-sc"}
    assert across.notes == ("sedf-sc:sedf-20 is left out beside sedf-sc: they are the same people",)


def test_simulated_and_real_corpora_are_never_taken_together(store: Store) -> None:
    ablation(store, ["dcsm"], arms=("full", "no-csja"))
    with store.session() as session:
        add_submission(session, "second", corpora=["sedf-sc"], simulated=True, minutes=3)
        plausible_results(session, "second", corpus="sedf-sc", simulated=True, people=6)
    assert report_of(store, everything=True).across.forests == ()


def test_other_recipes_are_not_taken_together(store: Store) -> None:
    ablation(store, ["dcsm"], arms=("full", "no-csja"))
    with store.session() as session:
        add_submission(session, "second", corpora=["sedf-sc"], minutes=3)
        for arm in ("full", "no-csja"):
            nights = {(f"P{n}", f"R{n}"): night(np.random.default_rng(n), quality=0.9) for n in range(4)}
            add_cell(session, "second", nights, arm=arm, folds=3, recipe="paper")
    assert report_of(store, everything=True).across.forests == ()


def test_the_document_follows_its_schema(store: Store) -> None:
    ablation(store, ["dcsm", "sedf-sc", "sedf-st"])
    joint(store, ["dcsm", "sedf-sc"], ["dcsm", "sedf-sc", "dod-h"])
    report = report_of(store, everything=True)
    document = report_document(report)
    jsonschema.validate(document, SCHEMA)
    assert len(document["across"]["forests"]) == len(report.across.forests) > 0
    assert document["across"]["matrices"][0]["trained_on"][0] == ["dcsm", "sedf-sc"]
    assert len(across_tables(report.across)) == 2 + len(report.across.matrices)


def test_the_csv_has_pairs_folds_and_the_summary(store: Store) -> None:
    ablation(store, ["dcsm", "sedf-sc"], arms=("full", "no-csja"))
    report = report_of(store)
    frame = report_frame(report)
    assert render_report(report, "csv") == frame.to_csv(index=False, lineterminator="\n")
    together = frame[(frame["kind"] == "together") & (frame["aggregation"] == "corpora")].iloc[0]
    assert together["value"] == report.across.forests[0].summary.effect.value
    assert together["judged_on"] == "dcsm+sedf-sc"
    board = report.boards[0]
    pair = frame[(frame["kind"] == "pair") & (frame["judged_on"] == "dcsm")].iloc[0]
    assert (pair["name"], pair["p_holm"]) == ("full − no-csja", board.pairs[0].p_holm)
    folds = frame[(frame["aggregation"] == "folds") & (frame["judged_on"] == "dcsm")].iloc[0]
    assert board.contrasts[0].folds is not None
    assert folds["p"] == board.contrasts[0].folds.p


def test_the_nights_of_registered_corpora_are_reported(store: Store) -> None:
    ablation(store, ["sedf-sc", "sedf-st"], arms=("full", "no-csja"))
    audit = {
        "problems": ["EEG Fpz-Cz: 12 % of the samples are clipped"],
        "channels": [{"name": "EEG Fpz-Cz"}],
        "epochs": {"W": 10, "N1": 0, "N2": 25, "N3": 5, "REM": 0},
        "signal_epochs": 50,
    }
    with store.session() as session:
        session.add(Corpus(name="sedf-sc", adapter="sedf-sc", root="/x", simulated=False, card={}))
        session.flush()
        for name, reason in (("R0", None), ("R1", None), ("R2", "zero bytes")):
            session.add(
                Recording(
                    corpus_name="sedf-sc", name=name, subject="P" + name, usable=reason is None, reason=reason,
                    audit=audit, sources=[],
                )
            )  # fmt: skip
    report = report_of(store)
    (note,) = report.nights
    assert (note.corpus, note.usable, note.refused, note.with_problems) == ("sedf-sc", 2, 1, 2)
    assert note.unscored_share == pytest.approx(0.2)
    assert [(problem.recordings, problem.example) for problem in note.problems] == [
        (2, "R0: EEG Fpz-Cz: 12 % of the samples are clipped")
    ]
    document = report_document(report)
    jsonschema.validate(document, SCHEMA)
    assert document["nights"][0]["problems"][0]["recordings"] == 2
