"""Rows of a board against each other: ranks, groups, folds, seeds, imported rows; other rules; sleep statistics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_results import add_cell, add_submission, new_store, plausible_results
from safetensors.numpy import save_file

from tusp.dashboards.comparison import compare
from tusp.dashboards.contrast import contrasts, specify
from tusp.dashboards.judged import Judged, Part, judge, person_f1
from tusp.dashboards.leaderboard import Board
from tusp.dashboards.report import Report, build_report
from tusp.dashboards.tables import comparison_lines, leaderboard_table, note_lines
from tusp.dashboards.wide_tables import sleep_tables
from tusp.platform.errors import DataError, UserError
from tusp.platform.identity import file_sha256
from tusp.platform.scoring.counts import confusion
from tusp.platform.scoring.evidence import nadeau_bengio, variance_components
from tusp.platform.scoring.rules import RULES, check_rule, rule_in_words, rule_mask
from tusp.platform.scoring.sleep_statistics import sleep_statistics
from tusp.platform.scoring.statistics import nan_mean, pooled_scores
from tusp.platform.store.entries import EntryNight, NewEntry, add_entries
from tusp.platform.store.models import Artefact
from tusp.platform.store.packed import collected
from tusp.platform.store.session import Store

TRUE = np.repeat(np.arange(5, dtype=np.int8), 10)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path)


def matrix(right: int) -> np.ndarray[Any, Any]:
    """Ten epochs of every stage, ``right`` of them hit, the others taken for the next stage."""
    return np.eye(5, dtype=int) * right + np.roll(np.eye(5, dtype=int), 1, axis=1) * (10 - right)


def hypnogram(right: int) -> np.ndarray[Any, Any]:
    """The same as stages."""
    place = np.tile(np.arange(10), 5)
    return np.where(place < right, TRUE, (TRUE + 1) % 5).astype(np.int8)


def arms_with(store: Store, hits: dict[str, int], *, people: int = 8) -> None:
    with store.session() as session:
        add_submission(session, "first", arms=list(hits))
        for arm, right in hits.items():
            nights = {(f"P{n}", f"R{n}"): matrix(right) for n in range(people)}
            add_cell(session, "first", nights, arm=arm, folds=1)


def entry(
    store: Store,
    home: Path,
    name: str,
    right: int,
    *,
    people: int = 8,
    true: Sequence[int] | None = None,
    kind: str = "imported",
    lacks: int = 0,
    owner: str = "P",
) -> None:
    stages = TRUE if true is None else np.array(true, dtype=np.int8)
    nights = [
        EntryNight(
            recording=f"R{n}", subject=f"{owner}{n}", true=stages, predicted=None if n < lacks else hypnogram(right)
        )
        for n in range(people)
    ]
    new = NewEntry(
        corpus="sedf-sc", truth_hash="t" * 64, truth_kind="hypnograms", kind=kind, name=name, simulated=False,
        provenance={"pairwise_kappa": {rule: {} for rule in RULES}}, protocols={}, nights=nights,
    )  # fmt: skip
    add_entries(store, home, [new])


def board_of(report: Report) -> Board:
    assert len(report.boards) == 1
    return report.boards[0]


# --- ranks, pairs, groups ---


def test_ranks_and_groups_of_arms(store: Store) -> None:
    arms_with(store, {"full": 9, "no-csja": 7, "no-se": 7})
    report = build_report(store, bootstrap=200)
    board = board_of(report)
    ranks = {row.name: (row.rank.value, row.rank.low, row.rank.high) for row in board.rows if row.kind == "arm"}
    # Ties share their mean rank.
    assert ranks == {"full": (1, 1, 1), "no-csja": (2.5, 2.5, 2.5), "no-se": (2.5, 2.5, 2.5)}
    assert board.groups == (("full",), ("no-csja", "no-se"))
    # Two pairs differ with p = 2 / 256; Holm over three.
    assert [pair.p_holm for pair in board.pairs] == pytest.approx([6 / 256, 6 / 256, 1])
    assert comparison_lines(board)[0] == (
        "not distinguishable (all 3 pairs, sign flips over 8 people, Holm): no-csja, no-se"
    )
    assert leaderboard_table(board).columns[1] == "rank"


def test_two_arms_say_no_more_about_pairs_than_their_contrast(store: Store) -> None:
    arms_with(store, {"full": 9, "no-csja": 7})
    board = board_of(build_report(store, bootstrap=200))
    assert comparison_lines(board) == []
    assert board.pairs[0].p_holm == board.contrasts[0].p_holm


def test_ranks_are_about_people_judged_in_every_arm(store: Store) -> None:
    """The arm with a hole was judged on the easy people only; among those it is the worse one."""
    with store.session() as session:
        add_submission(session, "first")
        easy, hard = {(f"P{n}", f"R{n}"): n for n in range(4)}, {(f"Q{n}", f"S{n}"): n for n in range(4)}
        add_cell(session, "first", dict.fromkeys(easy, matrix(9)), fold=0, folds=2)
        add_cell(session, "first", dict.fromkeys(hard, matrix(3)), fold=1, folds=2)
        add_cell(session, "first", dict.fromkeys(easy, matrix(8)), arm="no-csja", fold=0, folds=2)
        add_cell(session, "first", None, arm="no-csja", fold=1, folds=2, state="failed", error="disk full")
    board = board_of(build_report(store, bootstrap=200))
    assert [row.name for row in board.rows[:2]] == ["no-csja", "full"]
    assert {row.name: row.rank.value for row in board.rows[:2]} == {"full": 1, "no-csja": 2}
    assert board.compared_people == 4


def test_arms_are_compared_on_the_seeds_that_all_have(store: Store) -> None:
    """Two people of the other arm were judged with a seed that ``full`` has not."""
    with store.session() as session:
        add_submission(session, "first")
        four, two = [{(f"P{n}", f"R{n}"): n for n in range(people)} for people in (4, 2)]
        add_cell(session, "first", dict.fromkeys(four, matrix(8)), folds=1)
        add_cell(session, "first", dict.fromkeys(two, matrix(7)), folds=1, arm="no-csja")
        add_cell(session, "first", dict.fromkeys(four, matrix(10)), folds=1, arm="no-csja", seed=1)
    board = board_of(build_report(store, bootstrap=200))
    assert board.compared_people == 2
    assert {row.name: row.rank.value for row in board.rows[:2]} == {"full": 1, "no-csja": 2}
    assert board.pairs[0].effect == pytest.approx(0.1)


def test_an_arm_without_results_is_not_ranked(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "first")
        add_cell(session, "first", {("P0", "R0"): matrix(9)}, folds=1)
        add_cell(session, "first", None, arm="no-csja", folds=1, state="planned")
    rows = {row.name: row for row in board_of(build_report(store, bootstrap=200)).rows}
    assert rows["no-csja"].unranked == "no result yet"
    assert np.isnan(rows["full"].rank.value)


# --- folds, seeds, cost ---


def test_folds_give_the_corrected_t_test(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "first")
        for fold, (one, other) in enumerate([(9, 7), (8, 7), (9, 6)]):
            for arm, right in (("full", one), ("no-csja", other)):
                nights = {(f"P{fold}{n}", f"R{fold}{n}"): matrix(right) for n in range(3)}
                add_cell(session, "first", nights, arm=arm, fold=fold, folds=3)
    board = board_of(build_report(store, bootstrap=200))
    expected = nadeau_bengio([0.2, 0.1, 0.3], test_share=1 / 2)
    found = board.contrasts[0].folds
    assert found is not None
    assert (found.mean, found.t, found.p, found.folds) == pytest.approx((0.2, expected.t, expected.p, 3))
    assert any(line.startswith("sensitivity, corrected t over 3 folds") for line in comparison_lines(board))


def test_folds_that_judge_the_same_people_give_none(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "first")
        for fold, right in enumerate((9, 5, 7)):
            for arm, less in (("full", 0), ("no-csja", 1 + fold)):
                nights = {(f"P{n}", f"R{n}"): matrix(right - less) for n in range(4)}
                add_cell(session, "first", nights, judged_on="dod-h", fold=fold, folds=3, arm=arm)
    assert board_of(build_report(store, bootstrap=200)).contrasts[0].folds is None


def test_seeds_are_a_variance_component_of_their_own(store: Store) -> None:
    hits = np.array([[9, 8, 7], [7, 7, 4], [5, 4, 4], [8, 5, 6]])
    with store.session() as session:
        add_submission(session, "first", arms=["full"])
        for seed in range(3):
            nights = {(f"P{n}", f"R{n}"): matrix(int(hits[n, seed])) for n in range(4)}
            add_cell(session, "first", nights, folds=1, seed=seed)
    row = board_of(build_report(store, bootstrap=200)).rows[0]
    expected = variance_components(hits / 10)
    assert row.variance is not None
    assert (row.variance.people, row.variance.seeds, row.variance.rest) == pytest.approx(
        (expected.people, expected.seeds, expected.rest)
    )
    assert (row.variance.n_people, row.variance.n_seeds) == (4, 3)


def test_one_seed_has_no_components(store: Store) -> None:
    arms_with(store, {"full": 9})
    assert board_of(build_report(store, bootstrap=200)).rows[0].variance is None


def test_a_contrast_says_what_it_costs(store: Store) -> None:
    arms_with(store, {"full": 9, "no-csja": 7})
    contrast = board_of(build_report(store, bootstrap=200)).contrasts[0]
    assert (contrast.parameters, contrast.training_seconds) == (71, 0)


# --- imported, human and published rows ---


def test_an_imported_submission_on_the_same_nights_is_ranked_among_the_arms(store: Store, tmp_path: Path) -> None:
    arms_with(store, {"full": 9, "no-csja": 7})
    entry(store, tmp_path, "theirs", 8)
    board = board_of(build_report(store, bootstrap=200))
    assert [(row.name, row.kind, row.rank.value) for row in board.rows[:3]] == [
        ("full", "arm", 1),
        ("theirs", "imported", 2),
        ("no-csja", "arm", 3),
    ]
    assert board.rows[3].kind == "baseline"
    assert {frozenset((pair.first, pair.second)) for pair in board.pairs} == {
        frozenset(("full", "theirs")), frozenset(("full", "no-csja")), frozenset(("no-csja", "theirs"))
    }  # fmt: skip
    # An imported row is in no contrast of the ablation and changes none.
    assert [contrast.name for contrast in board.contrasts] == ["full − no-csja"]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"lacks": 2}, "partial: 6 of 8 recordings, 75.0 % of the epochs"),
        ({"people": 7}, "judged on other recordings: lacks R7"),
        ({"people": 10}, "judged on other recordings: has 2 recordings (first: R8) besides"),
        ({"true": [4, *TRUE[1:]]}, "judged on another truth in 8 recordings (first: R0)"),
        ({"owner": "Q"}, "knows 8 recordings (first: R0) as nights of other people"),
        ({"kind": "human"}, "each scorer is judged against the consensus of the other scorers"),
    ],
)
def test_what_was_not_judged_on_the_same_is_listed_with_the_reason(
    store: Store, tmp_path: Path, how: dict[str, Any], reason: str
) -> None:
    arms_with(store, {"full": 9, "no-csja": 7})
    entry(store, tmp_path, "theirs", 10, **how)
    report = build_report(store, bootstrap=200)
    board = board_of(report)
    assert board.rows[-1].name == "theirs"
    assert board.rows[-1].unranked == reason
    assert np.isnan(board.rows[-1].rank.value)
    assert {pair.first for pair in board.pairs} == {"full"}
    assert f"not ranked: theirs: {reason}" in note_lines(report, board)
    covered = [entries[-1].main for entries in leaderboard_table(board).rows][-1]
    assert covered == ("75.0 %" if "lacks" in how else "all"), "as exact as in words"


def test_an_imported_submission_may_be_called_like_an_arm(store: Store, tmp_path: Path) -> None:
    arms_with(store, {"full": 9, "no-csja": 7})
    entry(store, tmp_path, "full", 8)
    assert [row.name for row in board_of(build_report(store, bootstrap=200)).rows[:3]] == [
        "full", "full (imported)", "no-csja"
    ]  # fmt: skip


def test_a_corpus_with_entries_only_has_a_board(store: Store, tmp_path: Path) -> None:
    entry(store, tmp_path, "theirs", 8)
    entry(store, tmp_path, "others", 9)
    report = build_report(store, bootstrap=200)
    board = board_of(report)
    assert board.key.experiment == "outside"
    assert [(row.name, row.rank.value) for row in board.rows] == [("others", 1), ("theirs", 2)]
    assert report.submissions == ()
    with store.session() as session:
        add_submission(session, "first", arms=["full"], corpora=["dcsm"])
        add_cell(session, "first", {("P0", "R0"): matrix(9)}, corpus="dcsm", folds=1)
    # A report of a submission is about its corpora; --all and --corpus show the others.
    assert board_of(build_report(store, bootstrap=200)).key.judged_on == "dcsm"
    assert [b.key.judged_on for b in build_report(store, everything=True, bootstrap=200).boards] == ["dcsm", "sedf-sc"]
    assert board_of(build_report(store, corpus="sedf-sc", bootstrap=200)).key.experiment == "outside"


def test_published_figures_stand_beside_real_nights_only(store: Store) -> None:
    for place, simulated in enumerate((False, True)):
        with store.session() as session:
            add_submission(session, f"s{place}", arms=["full"], simulated=simulated, minutes=place)
            add_cell(session, f"s{place}", {("P0", "R0"): matrix(9)}, folds=1, simulated=simulated)
    real, simulated_board = build_report(store, everything=True, bootstrap=200).boards
    assert "U-Sleep" in [row.system for row in real.published]
    assert simulated_board.published == ()


# --- rules counted from kept predictions ---


def keep(store: Store, home: Path, *, lights: tuple[int, int] | None = None, hours: int = 2, unscored: int = 0) -> None:
    """A done cell of two people whose kept nights have hours of wake before and after ten minutes of sleep."""
    wake = np.zeros(hours * 120, dtype=np.int8)
    true = np.concatenate([wake, np.full(20, 2, np.int8), wake])
    predicted = true.copy()
    predicted[::2] = 1
    true[:unscored] = -1
    with store.session() as session:
        add_submission(session, "first", arms=["full"])
        nights = {}
        for name in ("R0", "R1"):
            mask = rule_mask(true, "trim30")
            nights["P" + name, name] = confusion(true[mask], predicted[mask])
        cell = add_cell(session, "first", nights, folds=1)
        for name in ("R0", "R1"):
            path = f"cells/x/{name}.safetensors"
            (home / path).parent.mkdir(parents=True, exist_ok=True)
            metadata = {"first_epoch": "100"}
            if lights:
                metadata |= {"lights_off": str(100 + lights[0]), "lights_on": str(100 + lights[1])}
            tensors = {
                "true": true, "predicted": predicted, "probabilities": np.zeros((true.size, 5), np.float32)
            }  # fmt: skip
            save_file(tensors, home / path, metadata=metadata)
            session.add(
                Artefact(
                    cell_id=cell, path=path, kind="predictions", recording=f"sedf-sc/{name}",
                    sha256=file_sha256(home / path), size_bytes=(home / path).stat().st_size,
                )
            )  # fmt: skip


@pytest.mark.parametrize(("minutes", "epochs"), [(0, 20), (5, 40), (60, 260), (600, 500)])
def test_a_rule_that_was_not_counted_is_counted_from_kept_predictions(
    store: Store, tmp_path: Path, minutes: int, epochs: int
) -> None:
    keep(store, tmp_path)
    report = build_report(store, rule=f"trim{minutes}", bootstrap=200, home=tmp_path)
    row = board_of(report).rows[0]
    assert report.recomputed
    assert row.epochs == 2 * epochs
    assert row.scores.overall["accuracy"].value == pytest.approx(0.5)
    assert any("counted from kept predictions" in line for line in note_lines(report, board_of(report)))


def test_entries_are_counted_from_kept_hypnograms_too(store: Store, tmp_path: Path) -> None:
    wake = np.zeros(40, dtype=np.int8)
    true = np.concatenate([wake, np.full(20, 2, np.int8), wake])
    wrong_far_away = true.copy()
    wrong_far_away[0] = 1
    nights = [EntryNight(recording=f"R{n}", subject=f"P{n}", true=true, predicted=wrong_far_away) for n in range(3)]
    nights.append(EntryNight(recording="R3", subject="P3", true=true, predicted=None))
    said = {"pairwise_kappa": {rule: {"s2": 0.5} for rule in RULES}}
    for kind, name in (("imported", "theirs"), ("human", "s1"), ("human", "s2")):
        new = NewEntry(
            corpus="sedf-sc", truth_hash="t" * 64, truth_kind="scorers", kind=kind, name=name, simulated=False,
            provenance=said, protocols={}, nights=nights,
        )  # fmt: skip
        add_entries(store, tmp_path, [new])
    board = board_of(build_report(store, rule="trim10", bootstrap=200, home=tmp_path))
    row = {row.name: row for row in board.rows}["theirs"]
    assert row.epochs == 3 * (20 + 20 + 20), "ten minutes are twenty epochs on either side"
    assert row.scores.overall["accuracy"].value == 1, "what is wrong lies outside"
    assert row.coverage == pytest.approx(3 / 4)
    assert row.unranked == "partial: 3 of 4 recordings, 75.0 % of the epochs"
    assert board.published == ()
    assert board.ceiling is not None and np.isnan(board.ceiling.pairwise_kappa)
    board = board_of(build_report(store, rule="trim60", bootstrap=200, home=tmp_path))
    assert {row.name: row.epochs for row in board.rows}["theirs"] == 3 * 100
    with pytest.raises(UserError, match=r"^rule lights: hypnograms from elsewhere .* rules are full, trim30"):
        build_report(store, rule="lights", bootstrap=200, home=tmp_path)
    kept = next((tmp_path / "entries").rglob("*.json"))
    kept.write_text(kept.read_text().replace("[0,0", "[1,0", 1))
    with pytest.raises(DataError, match="has changed"):
        build_report(store, rule="trim10", bootstrap=200, home=tmp_path)


def test_an_imported_submission_is_ranked_under_any_rule(store: Store, tmp_path: Path) -> None:
    keep(store, tmp_path)
    wake = np.zeros(240, dtype=np.int8)
    true = np.concatenate([wake, np.full(20, 2, np.int8), wake])
    nights = [EntryNight(recording=name, subject="P" + name, true=true, predicted=true) for name in ("R0", "R1")]
    new = NewEntry(
        corpus="sedf-sc", truth_hash="t" * 64, truth_kind="hypnograms", kind="imported", name="theirs",
        simulated=False, provenance={}, protocols={}, nights=nights,
    )  # fmt: skip
    add_entries(store, tmp_path, [new])
    board = board_of(build_report(store, rule="trim5", bootstrap=200, home=tmp_path))
    assert [(row.name, row.rank.value, row.epochs) for row in board.rows[:2]] == [("theirs", 1, 80), ("full", 2, 80)]


def test_counting_again_gives_what_was_stored(store: Store, tmp_path: Path) -> None:
    keep(store, tmp_path)
    stored = board_of(build_report(store, bootstrap=200)).rows[0]
    from tusp.dashboards.predictions import counts_from_predictions

    with store.reading() as session:
        cells = [session.query(Artefact).first().cell_id]  # type: ignore[union-attr]
    again = counts_from_predictions(store, tmp_path, cells, rule="trim30")
    assert tuple(map(tuple, again[cells[0], "sedf-sc"].counts.sum(0).tolist())) == stored.confusion


def test_a_changed_or_missing_prediction_is_not_counted(store: Store, tmp_path: Path) -> None:
    keep(store, tmp_path)
    path = tmp_path / "cells/x/R1.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataError, match=r"cells/x/R1.safetensors has changed \(its checksum differs\)"):
        build_report(store, rule="trim60", bootstrap=200, home=tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"cells/x/R1.safetensors is gone"):
        build_report(store, rule="trim60", bootstrap=200, home=tmp_path)
    build_report(store, rule="trim30", bootstrap=200, home=tmp_path)


def test_lights_are_judged_where_they_are_known(store: Store, tmp_path: Path) -> None:
    keep(store, tmp_path, lights=(200, 270))
    row = board_of(build_report(store, rule="lights", bootstrap=200, home=tmp_path)).rows[0]
    assert row.epochs == 2 * 70


def test_lights_that_are_not_known_are_refused_in_one_line(store: Store, tmp_path: Path) -> None:
    keep(store, tmp_path)
    with pytest.raises(UserError, match="sedf-sc R0: rule lights needs the moments of lights off and on") as raised:
        build_report(store, rule="lights", bootstrap=200, home=tmp_path)
    assert "\n" not in str(raised.value)


def test_rules() -> None:
    assert rule_in_words("trim60") == "from 60 min before the first to 60 min after the last sleep epoch"
    assert rule_mask([0, 0, 0, 2, 0, 0], "trim0").tolist() == [False, False, False, True, False, False]
    assert rule_mask([0, 0, 0, 2, 0, 0], "trim1").sum() == 5
    assert rule_mask([0] * 6, "lights", lights=(-3, 2)).tolist() == [True, True, False, False, False, False]
    for wrong in ("trim", "trim-1", "trim030", "trim30.5", "trim99999", "half"):
        with pytest.raises(ValueError, match="rules are full, trim30, trim<minutes> or lights"):
            check_rule(wrong)
    with pytest.raises(ValueError, match="not known"):
        rule_mask([0], "lights")
    with pytest.raises(ValueError, match="before lights off"):
        rule_mask([0], "lights", lights=(5, 2))


# --- sleep statistics ---


def test_sleep_statistics_on_request(store: Store, tmp_path: Path) -> None:
    keep(store, tmp_path)
    assert board_of(build_report(store, bootstrap=200)).rows[0].sleep == ()
    board = board_of(build_report(store, bootstrap=200, home=tmp_path, sleep=True))
    found = {item.statistic: item for item in board.rows[0].sleep}
    wake = np.zeros(240, dtype=np.int8)
    true = np.concatenate([wake, np.full(20, 2, np.int8), wake])
    predicted = true.copy()
    predicted[::2] = 1
    expected = sleep_statistics(predicted).total_sleep_time - sleep_statistics(true).total_sleep_time
    assert found["total_sleep_time"].bias.value == pytest.approx(expected) == pytest.approx(120)
    assert (found["total_sleep_time"].recordings, found["total_sleep_time"].people) == (2, 2)
    assert found["rem_latency"].recordings == 0
    assert sleep_tables(board)[0].rows[0][0].main == "total sleep time (min)"
    with pytest.raises(UserError, match="no home"):
        build_report(store, bootstrap=200, sleep=True)


def test_entries_have_sleep_statistics_too(store: Store, tmp_path: Path) -> None:
    true = np.concatenate([np.zeros(20, np.int8), np.full(40, 2, np.int8)])
    late = np.concatenate([np.zeros(30, np.int8), np.full(30, 2, np.int8)])
    silent = late.copy()
    silent[20:30] = -1  # what it says nothing of is left out on both sides, and is no wake
    said = {"pairwise_kappa": {rule: {} for rule in RULES}}
    for kind, name, predicted in (("imported", "theirs", late), ("imported", "silent", silent), ("human", "s1", true)):
        nights = [
            EntryNight(recording="R0", subject="P0", true=true, predicted=predicted),
            EntryNight(recording="R1", subject="P1", true=true, predicted=predicted),
            EntryNight(recording="R2", subject="P2", true=true, predicted=None),
        ]
        new = NewEntry(
            corpus="sedf-sc", truth_hash="t" * 64, truth_kind="scorers", kind=kind, name=name, simulated=False,
            provenance=said, protocols={}, nights=nights,
        )  # fmt: skip
        add_entries(store, tmp_path, [new])
    board = board_of(build_report(store, bootstrap=200, home=tmp_path, sleep=True))
    found = {row.name: {item.statistic: item for item in row.sleep} for row in board.rows}
    latency = {name: items["sleep_latency"].bias.value for name, items in found.items()}
    assert latency == {"theirs": 5, "silent": 0, "s1": 0}
    time_asleep = {name: items["total_sleep_time"].bias.value for name, items in found.items()}
    assert time_asleep == {"theirs": -5, "silent": 0, "s1": 0}
    assert {item.recordings for items in found.values() for item in items.values()} == {0, 2}, "R2 was never given"


def test_epochs_that_the_expert_left_out_are_left_out_on_both_sides(store: Store, tmp_path: Path) -> None:
    keep(store, tmp_path, unscored=240)
    board = board_of(build_report(store, bootstrap=200, home=tmp_path, sleep=True))
    found = {item.statistic: item.bias.value for item in board.rows[0].sleep}
    # Every other epoch of the two hours of wake that are left was taken for N1.
    assert found["total_sleep_time"] == pytest.approx(60)


# --- properties ---

NIGHTS = st.lists(
    st.tuples(st.integers(0, 4), st.sets(st.integers(0, 4), min_size=1), st.integers(1, 30)), min_size=1, max_size=8
)


def parts_of(nights: Sequence[tuple[int, np.ndarray[Any, Any]]], order: Sequence[int]) -> list[Part]:
    """One fold of one seed, its rows in some order."""
    rows = [("cell", "toy", f"R{n}", "full", "vote", f"P{nights[n][0]}", *nights[n][1].ravel().tolist()) for n in order]
    (counted,) = collected(rows).values()
    return [Part(seed=0, fold=0, counted=counted)]


@given(NIGHTS)
@settings(max_examples=50, deadline=None)
def test_perfect_predictions_score_one_in_every_defined_stage(nights: list[tuple[int, set[int], int]]) -> None:
    """Although nights lack stages, such as N3 in half of them."""
    counts = [
        (person, np.diag([epochs if stage in stages else 0 for stage in range(5)])) for person, stages, epochs in nights
    ]
    judged = judge(parts_of(counts, range(len(counts))), folds_repeat=False)
    scores = pooled_scores(judged.by_person, resamples=100)
    present = judged.confusion.sum(1) > 0
    for estimates in scores.stages.values():
        assert [estimate.value for estimate in estimates] == [1.0 if there else pytest.approx(np.nan, nan_ok=True)
                                                              for there in present]  # fmt: skip
    assert scores.overall["macro_f1"].value == scores.overall["accuracy"].value == 1
    by_person = person_f1(judged.by_person)
    assert set(by_person[~np.isnan(by_person)].tolist()) == {1.0}
    assert (nan_mean(by_person, axis=-1) == 1).all()


@given(st.integers(0, 2**31), st.permutations(range(9)))
@settings(max_examples=25, deadline=None)
def test_the_order_of_recordings_changes_no_digit(seed: int, order: list[int]) -> None:
    generator = np.random.default_rng(seed)
    arms = {
        arm: [(n % 4, generator.poisson(1 + 9 * np.eye(5))) for n in range(9)] for arm in ("full", "no-csja", "no-se")
    }

    def outcome(of: Sequence[int]) -> str:
        judged: dict[str, Judged] = {
            arm: judge(parts_of(nights, of), folds_repeat=False) for arm, nights in arms.items()
        }
        specs = specify({arm: {"arm": arm} for arm in arms})
        return repr((
            contrasts(specs, judged, resamples=100),
            compare(judged, seeded=judged, resamples=100, seed=0),
            [pooled_scores(one.by_person, resamples=100) for one in judged.values()],
        ))  # fmt: skip

    assert outcome(range(9)) == outcome(order)


def test_other_corpora_change_no_rank(tmp_path: Path) -> None:
    boards = []
    for folder, corpora in (("a", ["sedf-sc"]), ("b", ["dcsm", "sedf-sc", "sedf-st"])):
        (tmp_path / folder).mkdir()
        store = new_store(tmp_path / folder)
        with store.session() as session:
            add_submission(session, "first", corpora=corpora)
            for corpus in corpora:
                plausible_results(session, "first", corpus=corpus, people=6)
        found = build_report(store, bootstrap=200).boards
        boards.append(next(board for board in found if board.key.judged_on == "sedf-sc"))
    assert repr(boards[0]) == repr(boards[1])
