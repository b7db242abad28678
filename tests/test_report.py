"""`tusp report`: known numbers from a store, holes named, simulated apart, one content in four formats."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
from report_results import (
    Matrix,
    add_cell,
    add_submission,
    new_store,
    plausible_results,
)
from rich.console import Console
from test_store_postgres import empty_url, url  # noqa: F401  (fixtures)
from typer.testing import CliRunner

from tusp.cli.main import app
from tusp.dashboards.contrast import specify
from tusp.dashboards.leaderboard import Board
from tusp.dashboards.render import print_report, render_report
from tusp.dashboards.report import Report, build_report
from tusp.platform.errors import UserError
from tusp.platform.scoring.metrics import metrics
from tusp.platform.store.session import Store, open_store

SCHEMA = json.loads((Path(__file__).parents[1] / "docs" / "report.schema.json").read_text())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path)


def counts(hits: int, misses: int = 0, *, stages: tuple[int, ...] = (0, 1, 2, 3, 4)) -> Matrix:
    """``hits`` right epochs of every stage and ``misses`` taken for the next one."""
    matrix = np.zeros((5, 5), dtype=np.int64)
    for place, stage in enumerate(stages):
        matrix[stage, stage] = hits
        matrix[stage, stages[(place + 1) % len(stages)]] += misses
    return matrix


def two_arms(store: Store, *, people: int = 4, gain: int = 2) -> None:
    """Everybody is judged in one fold; ``full`` has ``gain`` more hits in ten than ``no-csja``."""
    with store.session() as session:
        add_submission(session, "first")
        for arm, better in (("full", gain), ("no-csja", 0)):
            nights = {(f"P{n}", f"R{n}"): counts(6 + better, 4 - better) for n in range(people)}
            add_cell(session, "first", nights, arm=arm, folds=1)


def only_board(report: Report) -> Board:
    assert len(report.boards) == 1
    return report.boards[0]


def test_known_numbers(store: Store) -> None:
    two_arms(store)
    board = only_board(build_report(store, bootstrap=200))
    full, no_csja, baseline = board.rows
    assert [row.name for row in board.rows] == ["full", "no-csja", "majority stage"]
    assert full.scores.overall["accuracy"].value == pytest.approx(0.8)
    assert full.scores.overall["macro_f1"].value == pytest.approx(0.8)
    assert full.scores.overall["kappa"].value == pytest.approx(0.75)
    assert no_csja.scores.overall["macro_f1"].value == pytest.approx(0.6)
    assert full.per_recording["macro_f1"].mean == pytest.approx(0.8)
    assert full.per_recording["macro_f1"].sd == pytest.approx(0)
    assert (full.people, full.recordings, full.epochs, full.folds_done, full.folds_planned) == (4, 4, 200, 1, 1)
    assert full.n_parameters == 2_405_740
    # Always N2, the most frequent stage of the training nights: accuracy 1/5, F1(N2) = 2/6, the others 0.
    assert baseline.scores.overall["accuracy"].value == pytest.approx(0.2)
    assert baseline.scores.overall["macro_f1"].value == pytest.approx(1 / 15)
    assert baseline.scores.overall["kappa"].value == pytest.approx(0)
    contrast = board.contrasts[0]
    assert contrast.name == "full − no-csja"
    assert (contrast.effect.value, contrast.pooled.value) == pytest.approx((0.2, 0.2))
    assert contrast.p == contrast.p_holm == pytest.approx(2 / 16)
    assert (contrast.people, contrast.improved, contrast.worsened) == (4, 4, 0)
    assert contrast.verdict == "not distinguishable (4 people cannot give p below 0.125)"


def test_enough_people_make_a_verdict(store: Store) -> None:
    two_arms(store, people=7)
    contrast = only_board(build_report(store, bootstrap=200)).contrasts[0]
    assert contrast.p == pytest.approx(2 / 128)
    assert contrast.verdict == "full is better"


def test_no_verdict_without_a_difference(store: Store) -> None:
    two_arms(store, people=7, gain=0)
    contrast = only_board(build_report(store, bootstrap=200)).contrasts[0]
    assert contrast.p == 1
    assert contrast.verdict == "not distinguishable"


def test_two_nights_of_a_person_are_one_person(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "first")
        for arm, hits in (("full", 8), ("no-csja", 6)):
            nights = {(f"P{n % 3}", f"R{n}"): counts(hits, 10 - hits) for n in range(6)}
            add_cell(session, "first", nights, arm=arm, folds=1)
    board = only_board(build_report(store, bootstrap=200))
    assert board.rows[0].people == 3
    assert board.rows[0].recordings == 6
    assert board.contrasts[0].p == pytest.approx(2 / 8)


def test_absent_stages_are_not_scored_and_never_shown_as_zero(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "first", arms=["full"])
        nights = {(f"P{n}", f"R{n}"): counts(9, 1, stages=(0, 3)) for n in range(4)}
        add_cell(session, "first", nights, folds=1)
    report = build_report(store, bootstrap=200)
    board = only_board(report)
    f1 = board.rows[0].scores.stages["f1"]
    assert [f1[stage].value for stage in (0, 3)] == pytest.approx([0.9, 0.9])
    assert np.isnan([f1[stage].value for stage in (1, 2, 4)]).all()
    assert board.rows[0].scores.overall["macro_f1"].value == pytest.approx(0.9)
    assert "N1, N2, REM: in no expert hypnogram here, so not scored (–)" in board.notes
    row = next(line for line in render_report(report, "md").splitlines() if line.startswith("| full"))
    assert [cell.strip() for cell in row.split("|")].count("–") == 3
    document = json.loads(render_report(report, "json"))
    assert document["boards"][0]["rows"][0]["stages"]["N1"]["f1"] == {"value": None, "low": None, "high": None}


def test_a_stage_predicted_but_never_true_is_said(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "first", arms=["full"])
        matrix = counts(10, stages=(0, 3))
        matrix[0, 1] = 3
        add_cell(session, "first", {("P0", "R0"): matrix, ("P1", "R1"): counts(10, stages=(0, 3))}, folds=1)
    board = only_board(build_report(store, bootstrap=200))
    assert board.rows[0].scores.stages["f1"][1].value == 0
    assert "full predicted N1 in 3 epochs: F1 0 there, and macro means count it" in board.notes


def test_contrast_compares_the_same_stages_in_both_arms(store: Store) -> None:
    """One arm predicts REM in people without REM: it loses recall in their stages, not a whole macro share."""
    with store.session() as session:
        add_submission(session, "first")
        for arm, stray in (("full", 1), ("no-csja", 2)):
            matrix = counts(10, stages=(0, 3))
            matrix[0, 0], matrix[0, 4] = 10 - stray, stray
            add_cell(session, "first", {(f"P{n}", f"R{n}"): matrix for n in range(4)}, arm=arm, folds=1)
    contrast = only_board(build_report(store, bootstrap=200)).contrasts[0]
    # F1 of W is 18/19 and 16/18, of N3 1 in both; REM, in nobody's hypnogram, takes no part.
    assert contrast.effect.value == pytest.approx((18 / 19 - 16 / 18) / 2)
    assert contrast.pooled.value == pytest.approx((18 / 19 - 16 / 18) / 2)
    assert contrast.stages[4].people == 0
    assert np.isnan(contrast.stages[4].p)


def test_holes_are_named_and_the_contrast_pairs_only_common_people(store: Store) -> None:
    with store.session() as session:
        add_submission(
            session, "first",
            refused=[{"corpus": "sedf-sc", "recording": "R9", "reason": "hypnogram without partner"},
                     {"corpus": "dcsm", "recording": "X", "reason": "another corpus"}],
        )  # fmt: skip
        for fold in range(3):
            nights = {(f"P{fold}{n}", f"R{fold}{n}"): counts(8, 2) for n in range(2)}
            add_cell(session, "first", nights, fold=fold, folds=3)
            if fold < 2:
                add_cell(session, "first", {k: counts(6, 4) for k in nights}, arm="no-csja", fold=fold, folds=3)
        add_cell(session, "first", None, arm="no-csja", fold=2, folds=3, state="failed", error="disk full")
    report = build_report(store, bootstrap=200)
    board = only_board(report)
    assert [(row.name, row.folds_done, row.folds_planned) for row in board.rows[:2]] == [
        ("full", 3, 3),
        ("no-csja", 2, 3),
    ]
    assert [(h.arm, h.fold, h.state, h.reason) for h in board.holes] == [("no-csja", 2, "failed", "disk full")]
    assert board.contrasts[0].people == 4
    assert board.contrasts[0].left_out == ("P20", "P21")
    for kind in ("table", "md", "csv"):
        text = render_report(report, kind)
        assert "disk full" in text
        assert "hypnogram without partner" in text
        assert "another corpus" not in text
    assert "2/3" in render_report(report, "table")
    assert any("2 people not judged in every arm: P20, P21" in note for note in board.notes)
    document = json.loads(render_report(report, "json"))["boards"][0]
    assert document["holes"][0]["reason"] == "disk full"
    assert document["refused"][0]["recording"] == "R9"


def test_a_done_cell_without_counts_of_a_test_recording_is_a_hole(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "first", arms=["full"])
        add_cell(session, "first", {("P0", "R0"): counts(5)}, folds=1, planned_test=["R0", "R1"])
    holes = only_board(build_report(store, bootstrap=200)).holes
    assert [(hole.state, hole.reason) for hole in holes] == [("incomplete", "no counts for R1")]


def test_nothing_done_yet_is_a_board_of_holes(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "first", arms=["full"])
        add_cell(session, "first", None, folds=1, state="planned")
    report = build_report(store, bootstrap=200)
    board = only_board(report)
    assert np.isnan(board.rows[0].scores.overall["accuracy"].value)
    assert "0/1" in render_report(report, "table")
    assert ".000" not in render_report(report, "table")


def test_simulated_and_real_never_meet(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "real", arms=["full"])
        add_cell(session, "real", {("P0", "R0"): counts(9, 1)}, folds=1)
        add_submission(session, "simulated", arms=["full"], simulated=True, minutes=1)
        add_cell(session, "simulated", {("P0", "R0"): counts(5, 5)}, folds=1, simulated=True)
    report = build_report(store, everything=True, bootstrap=200)
    assert [board.key.simulated for board in report.boards] == [False, True]
    assert [board.rows[0].epochs for board in report.boards] == [50, 50]
    assert "SIMULATED nights" in report.boards[1].title
    assert "real nights" in report.boards[0].title
    with pytest.raises(UserError, match="never share a table"):
        render_report(report, "csv")
    assert only_board(build_report(store, bootstrap=200)).key.simulated


def test_a_recording_without_sleep_is_named_and_left_out(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "first", arms=["full"])
        nights = {("P0", "R0"): counts(9, 1), ("P1", "R1"): np.zeros((5, 5), int), ("P2", "R2"): counts(9, 1)}
        add_cell(session, "first", nights, folds=1)
    board = only_board(build_report(store, bootstrap=200))
    assert board.without_epochs == ("R1",)
    assert board.rows[0].people == 2


def test_seeds_are_averaged_within_the_person(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "first", arms=["full"])
        hits = {0: 9, 1: 5, 2: 7}
        for seed, right in hits.items():
            nights = {(f"P{n}", f"R{n}"): counts(right, 10 - right) for n in range(3)}
            add_cell(session, "first", nights, folds=1, seed=seed)
    row = only_board(build_report(store, bootstrap=200)).rows[0]
    expected = np.mean([metrics(counts(right, 10 - right)).macro_f1 for right in hits.values()])
    assert row.scores.overall["macro_f1"].value == pytest.approx(expected)
    assert (row.people, row.recordings, row.epochs, row.folds_done) == (3, 3, 150, 3)
    assert row.seeds == (0, 1, 2)


def test_seeds_are_paired_where_both_arms_have_them(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "first")
        for arm, seed, right in (("full", 0, 8), ("full", 1, 2), ("no-csja", 0, 7)):
            nights = {(f"P{n}", f"R{n}"): counts(right, 10 - right) for n in range(3)}
            add_cell(session, "first", nights, folds=1, seed=seed, arm=arm)
        add_cell(session, "first", None, folds=1, seed=1, arm="no-csja", state="planned")
    contrast = only_board(build_report(store, bootstrap=200)).contrasts[0]
    assert contrast.effect.value == pytest.approx(0.1)


def test_recordings_judged_by_every_fold_count_once(store: Store) -> None:
    """A hold-out corpus: each of three folds judges the same nights."""
    with store.session() as session:
        add_submission(session, "first", arms=["full"])
        for fold, right in enumerate((9, 5, 7)):
            nights = {(f"P{n}", f"R{n}"): counts(right, 10 - right) for n in range(2)}
            add_cell(session, "first", nights, judged_on="dod-h", fold=fold, folds=3)
    row = only_board(build_report(store, bootstrap=200)).rows[0]
    assert row.scores.overall["accuracy"].value == pytest.approx(0.7)
    assert (row.people, row.recordings, row.epochs) == (2, 2, 100)


def test_the_latest_of_equal_cells_counts_when_everything_is_shown(store: Store) -> None:
    with store.session() as session:
        for place, right in enumerate((5, 9)):
            add_submission(session, f"s{place}", arms=["full"], minutes=place)
            add_cell(session, f"s{place}", {("P0", "R0"): counts(right, 10 - right)}, folds=1, minutes=place)
    report = build_report(store, everything=True, bootstrap=200)
    assert only_board(report).rows[0].scores.overall["accuracy"].value == pytest.approx(0.9)
    assert report.superseded == 1
    first = only_board(build_report(store, submission="s0", bootstrap=200))
    assert first.rows[0].scores.overall["accuracy"].value == pytest.approx(0.5)


def test_arms_of_one_name_with_other_settings_do_not_mix(store: Store) -> None:
    with store.session() as session:
        for place, ratio in enumerate((5, 8)):
            add_submission(session, f"s{place}", arms=["full"], minutes=place)
            model = {"csja": True, "csja_ratio": ratio}
            add_cell(session, f"s{place}", {("P0", "R0"): counts(9 - place, 1 + place)}, folds=1, model=model)
    rows = only_board(build_report(store, everything=True, bootstrap=200)).rows
    assert [row.scores.overall["accuracy"].value for row in rows[:2]] == pytest.approx([0.9, 0.8])
    assert len({row.name for row in rows[:2]}) == 2
    assert all(row.name.startswith("full ") for row in rows[:2])


def test_other_corpora_and_the_order_of_rows_change_nothing(tmp_path: Path) -> None:
    def results(folder: str, *, others: bool, reverse: bool) -> Board:
        (tmp_path / folder).mkdir()
        store = new_store(tmp_path / folder)
        with store.session() as session:
            add_submission(session, "first", corpora=["sedf-sc"])
            cells = [(arm, fold) for arm in ("full", "no-csja") for fold in range(3)]
            for arm, fold in reversed(cells) if reverse else cells:
                generator = np.random.default_rng([fold, arm == "full"])
                people = [f"P{fold}{n}" for n in range(3)]
                nights = {(p, f"R{p}"): generator.poisson(2 + 20 * np.eye(5)) for p in people}
                ordered = dict(reversed(nights.items())) if reverse else nights
                add_cell(session, "first", ordered, arm=arm, fold=fold, folds=3)
            if others:
                plausible_results(session, "first", corpus="sedf-st", people=5)
        report = build_report(store, bootstrap=300)
        return next(board for board in report.boards if board.key.judged_on == "sedf-sc")

    alone = results("a", others=False, reverse=False)
    assert repr(alone) == repr(results("b", others=True, reverse=True))  # NaN is not equal to itself


@pytest.mark.postgres
def test_postgresql_gives_the_same_report_as_sqlite(tmp_path: Path, url: str) -> None:  # noqa: F811
    reports = []
    for store in (new_store(tmp_path), open_store(url)):
        with store.session() as session:
            add_submission(session, "first")
            plausible_results(session, "first", people=7)
        reports.append(build_report(store, bootstrap=300))
    assert render_report(reports[0], "json") == render_report(reports[1], "json")
    assert render_report(reports[0], "csv") == render_report(reports[1], "csv")


def test_factorial_contrasts_of_the_attention_ablation(store: Store) -> None:
    hits = {"full": 9, "no-csja": 7, "no-se": 8, "plain": 5}
    with store.session() as session:
        add_submission(session, "first", arms=list(hits))
        for arm, right in hits.items():
            nights = {(f"P{n}", f"R{n}"): counts(right, 10 - right) for n in range(8)}
            add_cell(session, "first", nights, arm=arm, folds=1)
    contrasts = {c.name: c for c in only_board(build_report(store, bootstrap=200)).contrasts}
    effects = {name: round(contrast.effect.value, 6) for name, contrast in contrasts.items()}
    assert effects == {
        "full − no-csja": 0.2,
        "full − no-se": 0.1,
        "full − plain": 0.4,
        "CSJA (main effect)": 0.25,
        "SE (main effect)": 0.15,
        "CSJA × SE": -0.1,
    }
    # Each has p = 2 / 256; Holm over six makes the smallest, and so all of them, 12 / 256.
    assert [c.p_holm for c in contrasts.values()] == pytest.approx([12 / 256] * 6)
    assert contrasts["CSJA (main effect)"].verdict == "better with CSJA"


def test_four_arms_that_are_not_crossed_have_no_main_effects() -> None:
    arms = {name: {"loss": name} for name in ("focal+dice", "focal", "dice", "cross-entropy")}
    assert [spec.kind for spec in specify(arms)] == ["pair"] * 3
    assert specify({}) == []


def test_the_reference_is_the_first_arm_of_the_request(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "first", arms=["no-csja", "full"])
        for arm in ("full", "no-csja"):
            add_cell(session, "first", {("P0", "R0"): counts(8, 2)}, arm=arm, folds=1)
    assert only_board(build_report(store, bootstrap=200)).contrasts[0].name == "no-csja − full"


def test_json_follows_its_schema(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "first", arms=["full", "no-csja", "no-se", "plain"],
                       refused=[{"corpus": "sedf-sc", "recording": "R9", "reason": "zero bytes"}])  # fmt: skip
        plausible_results(session, "first", arms=["full", "no-csja", "no-se", "plain"], people=6, folds=3)
        add_cell(session, "first", None, arm="plain", fold=4, state="failed", error="killed")
        add_cell(session, "first", {("P0", "W0"): counts(3, stages=(0,))}, corpus="one-stage", folds=1)
    document = json.loads(render_report(build_report(store, bootstrap=200), "json"))
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(document, SCHEMA)
    document["boards"][0]["rows"][0]["pooled"]["kappa"]["value"] = "NaN"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA)


def test_one_content_in_all_formats(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "first")
        plausible_results(session, "first", people=10)
    report = build_report(store, bootstrap=300)
    board = only_board(report)
    frame = pd.read_csv(io.StringIO(render_report(report, "csv")))
    document = json.loads(render_report(report, "json"))["boards"][0]
    markdown = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in render_report(report, "md").splitlines()
        if line.startswith("| ")
    ]
    for place, row in enumerate(board.rows):
        for metric, estimate in row.scores.overall.items():
            found = frame.query(f"name == {row.name!r} and aggregation == 'pooled' and metric == {metric!r}")
            assert found[found["stage"].isna()][["value", "low", "high"]].to_numpy().tolist() == [
                [estimate.value, estimate.low, estimate.high]
            ]
            assert document["rows"][place]["pooled"][metric]["value"] == estimate.value
        line = next(cells for cells in markdown if cells[0] == row.name)
        shown = [float(cell.split()[0]) for cell in line[2:5]]  # the rank stands before the scores
        expected = [row.scores.overall[name].value for name in ("macro_f1", "accuracy", "kappa")]
        assert shown == pytest.approx(expected, abs=5e-4)
    (made,) = frame.query("kind == 'environment'").to_dict("records")
    assert (made["name"], made["simulated"]) == ("first", False)
    assert made["text"].endswith("Python 3.11")
    plain = pd.read_csv(io.StringIO(render_report(report, "csv")), dtype=str)
    assert {*plain["people"].dropna(), *plain["folds"].dropna()} <= set(map(str, range(20))), "whole numbers"
    contrast = frame.query("kind == 'contrast' and aggregation == 'people' and metric == 'macro_f1'").iloc[0]
    assert contrast["p"] == board.contrasts[0].p
    assert contrast["text"] == board.contrasts[0].verdict


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_the_table_fits_its_terminal_and_hides_no_figure(store: Store, width: int) -> None:
    arms = ["full", "no-csja", "no-se", "plain"]
    with store.session() as session:
        add_submission(session, "first", arms=arms)
        plausible_results(session, "first", arms=arms, people=12)
    text = io.StringIO()
    terminal = Console(file=text, width=width, highlight=False, force_terminal=True, no_color=True)
    print_report(build_report(store, bootstrap=200), terminal)
    shown = re.sub("\x1b\\[[0-9;]*m", "", text.getvalue())
    assert max(len(line) for line in shown.splitlines()) <= width
    assert "…" not in shown
    assert "2,405,740" in shown
    # Wide enough, the three tables of arms have one part each; else more, and each part repeats the names.
    parts = [line for line in shown.splitlines() if line.startswith("arm ")]
    assert (len(parts) > 3) == (width < 100)
    assert sum(line.startswith("plain ") for line in shown.splitlines()) >= len(parts)


def test_rule_and_corpus_are_chosen(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "first", arms=["full"], corpora=["sedf-sc", "sedf-st"])
        add_cell(session, "first", {("P0", "R0"): counts(9, 1)}, folds=1, rule="full")
        add_cell(session, "first", {("P0", "R0"): counts(5, 5)}, folds=1, corpus="sedf-st")
    full = build_report(store, rule="full", corpus="sedf-sc", bootstrap=200)
    assert only_board(full).rows[0].scores.overall["accuracy"].value == pytest.approx(0.9)
    assert [board.key.judged_on for board in build_report(store, bootstrap=200).boards] == ["sedf-sc", "sedf-st"]


def test_wrong_requests_are_one_line(store: Store) -> None:
    with pytest.raises(UserError, match="nothing was submitted yet"):
        build_report(store)
    two_arms(store)
    for arguments, message in [
        ({"rule": "trimmed"}, "no scoring rule 'trimmed'; rules are full, trim30, trim<minutes> or lights"),
        ({"submission": "frist"}, "no submission 'frist'; did you mean first"),
        ({"submission": "zzz"}, "no submission 'zzz'; `tusp status` lists them"),
        ({"corpus": "sedf-cs"}, "'sedf-cs'; did you mean sedf-sc"),
        ({"submission": "first", "everything": True}, "exclude each other"),
        ({"bootstrap": 3}, "--bootstrap 3 is too few"),
    ]:
        with pytest.raises(UserError, match=message) as raised:
            build_report(store, **arguments)  # type: ignore[arg-type]
        assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match="formats are table, md, csv, json"):
        render_report(build_report(store, bootstrap=200), "pdf")


def test_command_line(tmp_path: Path, store: Store) -> None:
    two_arms(store)
    base = ["--home", str(tmp_path), "--db", store.url, "report", "--bootstrap", "200"]
    shown = CliRunner().invoke(app, base)
    assert shown.exit_code == 0, shown.output
    assert "full − no-csja" in shown.output
    document = json.loads(CliRunner().invoke(app, [*base, "--json"]).output)
    assert document["schema"] == "tusp-report/1"
    target = tmp_path / "out" / "report.md"
    assert CliRunner().invoke(app, [*base, "--format", "md", "--output", str(target)]).exit_code == 0
    assert target.read_text().startswith("## sedf-sc · real nights")
    wrong = subprocess.run(
        [sys.executable, "-c", "from tusp.cli.main import run; run()", *base, "--rule", "half"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert wrong.returncode == 2
    assert wrong.stderr == "tusp: no scoring rule 'half'; rules are full, trim30, trim<minutes> or lights\n"
