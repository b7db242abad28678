"""Suites: what they fix, what of them a report has, and every hole by name."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_results import add_cell, add_submission, new_store
from sqlalchemy.orm import Session

from tusp.dashboards.report import build_report
from tusp.dashboards.suites import SuiteTable, find_suite, suite_table, suites
from tusp.dashboards.wide_tables import suite_lines, suite_table_text
from tusp.platform.errors import UserError
from tusp.platform.store.session import Store

SIZES = {"sedf-sc": (78, 153), "sedf-st": (22, 44)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path)


def counts(hits: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.eye(5, dtype=np.int64) * hits + np.roll(np.eye(5, dtype=np.int64), 1, axis=1) * (10 - hits)


def judge_all(
    session: Session, name: str, corpus: str, *, hits: int = 8, folds: int = 5, arms: tuple[str, ...] = ("full",),
    simulated: bool = False, less: int = 0,
) -> None:  # fmt: skip
    """Every night of a corpus, its people spread over the folds."""
    people, nights = SIZES[corpus]
    people -= less
    nights -= 2 * less
    owners = [f"P{n:03d}" for n in [*range(people), *range(nights - people)]]
    for arm in arms:
        for fold in range(folds):
            mine = {
                (owner, f"{corpus}{n}"): counts(hits)
                for n, owner in enumerate(owners)
                if int(owner[1:]) % folds == fold
            }
            add_cell(session, name, mine, corpus=corpus, fold=fold, folds=folds, arm=arm, simulated=simulated)


def table(store: Store, name: str = "sleep-edf", *, rule: str = "trim30", everything: bool = False) -> SuiteTable:
    return suite_table(build_report(store, bootstrap=100, rule=rule, everything=everything), name)


def test_suites_are_consistent() -> None:
    known = suites()
    assert len({(suite.name, suite.version) for suite in known}) == len(known)
    seven = find_suite("tusp-7 1.0")
    assert list(seven.corpora) == ["sedf-sc", "sedf-st", "dcsm", "cinc2018", "shhs", "dod-h", "dod-o"]
    assert seven.trained_on is not None
    # The held-out corpora are judged only.
    assert set(seven.corpora) - seven.trained_on == {"dod-h", "dod-o"}
    assert all(suite.rules and suite.folds > 1 for suite in known)


def test_sizes_are_those_of_the_pages_of_the_corpora() -> None:
    pages = Path(__file__).parents[1] / "docs" / "corpora"
    for suite in suites():
        for corpus, size in suite.corpora.items():
            text = (pages / f"{corpus}.md").read_text(encoding="utf-8")
            said = re.search(r"\| size \| ([\d,]+) nights.*? of ([\d,]+) people", text)
            assert said is not None, corpus
            assert [int(number.replace(",", "")) for number in said.groups()] == [size.nights, size.people], corpus


def test_a_complete_suite_has_a_mean(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "first", corpora=list(SIZES))
        judge_all(session, "first", "sedf-sc", hits=8, arms=("full", "no-csja"))
        judge_all(session, "first", "sedf-st", hits=6, arms=("full", "no-csja"))
    found = table(store)
    assert found.holes == ()
    assert found.arms == ("full", "no-csja")
    assert [score.value for score in found.corpora[0].scores] == pytest.approx([0.8, 0.8])
    assert found.means == pytest.approx((0.7, 0.7))
    assert [row[0].main for row in suite_table_text(found).rows] == ["sedf-sc", "sedf-st", "mean"]
    assert suite_table_text(found).rows[-1][1].main == ".700"


def test_a_missing_corpus_is_a_hole_and_there_is_no_mean(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "first")
        judge_all(session, "first", "sedf-sc")
    found = table(store)
    assert found.holes == ("sedf-st: not judged",)
    assert found.corpora[0].scores[0].value == pytest.approx(0.8)
    assert np.isnan(found.means[0])
    assert suite_lines(found) == ["sleep-edf 1.0: sedf-st: not judged"]


def test_missing_people_and_cells_are_holes_but_shown(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "first")
        judge_all(session, "first", "sedf-sc", less=4)
        judge_all(session, "first", "sedf-st")
        add_cell(session, "first", None, corpus="sedf-st", fold=0, folds=5, arm="no-csja", state="failed", error="full")
    found = table(store)
    assert found.holes == (
        "sedf-sc: 74 of 78 people, 145 of 153 nights",
        "sedf-st: 1 cell without a whole result",
    )
    assert not np.isnan(found.corpora[0].scores[0].value)
    assert np.isnan(found.means[0])


def test_what_was_made_otherwise_has_no_score_in_the_suite(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "first", split_seed=7)
        judge_all(session, "first", "sedf-sc", folds=3)
        judge_all(session, "first", "sedf-st")
    found = table(store)
    assert found.holes == (
        "sedf-sc: 3 folds (suite: 5)",
        "sedf-sc: split seed 7 (suite: 0)",
        "sedf-st: split seed 7 (suite: 0)",
    )
    assert found.arms == ()


def test_another_experiment_is_named(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "first")
        judge_all(session, "first", "sedf-sc")
    lines = table(store, "tusp-7").corpora[0].problems
    assert lines[0] == "experiment within (suite: joint)"
    assert lines[1].startswith("trained on sedf-sc (suite: cinc2018+dcsm+")


def test_simulated_nights_are_no_part_of_a_suite(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "first", simulated=True)
        for corpus in SIZES:
            judge_all(session, "first", corpus, simulated=True)
    assert table(store).holes == ("sedf-sc: simulated nights", "sedf-st: simulated nights")


def test_the_nearest_of_several_boards_counts(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "first")
        judge_all(session, "first", "sedf-sc", folds=3, hits=9)
        add_submission(session, "second", minutes=1)
        judge_all(session, "second", "sedf-sc", hits=7)
        judge_all(session, "second", "sedf-st", hits=7)
    found = table(store, everything=True)
    assert found.holes == ()
    assert found.means == pytest.approx((0.7,))


def test_a_rule_of_another_kind_gives_no_mean(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "first")
        for corpus in SIZES:
            judge_all(session, "first", corpus)
    report = replace(build_report(store, bootstrap=100), rule="trim60")
    found = suite_table(report, "sleep-edf")
    assert found.problems == ("rule trim60 is none of the suite's (trim30, full)",)
    assert np.isnan(found.means).all()


def test_an_unknown_suite_is_one_line(store: Store) -> None:
    for name, hint in [
        ("tusp-8", "did you mean tusp-7 1.0?"),
        ("tusp-7 9.9", "did you mean"),
        ("x", "suites are tusp-7"),
    ]:
        with pytest.raises(UserError, match=hint) as raised:
            find_suite(name)
        assert "\n" not in str(raised.value)
