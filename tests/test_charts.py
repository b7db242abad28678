"""Figures of the page: every word lies within them, every figure is said, names are text, nothing scored is drawn."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_results import add_cell, add_submission, new_store, plausible_results

from tusp.dashboards.charts import contrast_chart, forest_chart, leaderboard_chart, rank_chart, training_chart
from tusp.dashboards.drawing import Canvas, Scale, shortened, span, text_width, tick_text
from tusp.dashboards.extras import TrainingCurve, TrainingGroup
from tusp.dashboards.leaderboard import Board
from tusp.dashboards.report import Report, build_report
from tusp.platform.scoring.evidence import combine_corpora
from tusp.platform.scoring.statistics import Estimate

HOSTILE = "<script>alert(1)</script>\"'$a_b$ &amp;"
ARMS = ["full", "no-csja", "no-se", "plain"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Three corpora, a fold that is not done."""
    store = new_store(tmp_path_factory.mktemp("charts"))
    with store.session() as session:
        add_submission(session, "first", arms=ARMS)
        for place, corpus in enumerate(["dcsm", "sedf-sc", "sedf-st"]):
            plausible_results(session, "first", arms=ARMS, corpus=corpus, people=8 + place, folds=4)
        add_cell(session, "first", None, arm="plain", corpus="dcsm", fold=4, folds=4, state="failed", error="killed")
    return build_report(store, bootstrap=200)


@pytest.fixture(scope="module")
def board(report: Report) -> Board:
    return report.boards[0]


def elements(drawn: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(drawn).iter(tag))


def words(drawn: str) -> list[str]:
    return ["".join(item.itertext()) for item in elements(drawn, "text")]


def assert_legible(drawn: str) -> None:
    """Well formed, and every word and mark within the figure."""
    root = ElementTree.fromstring(drawn)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for item in root.iter("text"):
        cls = item.attrib.get("class", "").split()
        long = text_width(item.text or "", size=11 if "small" in cls else 12)
        left = float(item.attrib["x"]) - (long if "right" in cls else long / 2 if "middle" in cls else 0)
        assert left >= -1, item.text
        assert left + long <= width + 1, item.text
        assert 5 <= float(item.attrib["y"]) <= height - 5, item.text
    for item in root.iter("path"):
        numbers = [float(part) for part in re.findall(r"-?[\d.]+", item.attrib["d"])]
        assert all(-1 <= x <= width + 1 for x in numbers[::2])
        assert all(-1 <= y <= height + 1 for y in numbers[1::2])
    for item in root.iter("circle"):
        assert 0 <= float(item.attrib["cx"]) <= width


def test_leaderboard_says_every_value_within_its_panel(board: Board) -> None:
    drawn = leaderboard_chart(board, alt="it")
    assert_legible(drawn)
    for row in board.rows:
        assert row.name in words(drawn)
        for estimate in (row.scores.overall[name] for name in ("macro_f1", "accuracy", "kappa")):
            said = f"{estimate.value:.3f}".removeprefix("0")
            assert said in words(drawn) or f"◂ {said}" in words(drawn)
    assert "4 of 5 folds" in words(drawn)
    assert any(text.startswith("◂ ") for text in words(drawn)), "the baseline lies far below"


def test_a_perfect_row_and_a_long_name_stay_within(board: Board) -> None:
    best = board.rows[0]
    overall = {name: Estimate(value=1.0, low=1.0, high=1.0) for name in best.scores.overall}
    long = replace(best, name="a name of a submission that is longer than any label has room for, version 2")
    perfect = replace(long, scores=replace(best.scores, overall=overall), kind="imported", unranked="other nights")
    drawn = leaderboard_chart(replace(board, rows=(perfect, *board.rows)), alt="it")
    assert_legible(drawn)
    assert "imported, not ranked" in words(drawn)
    (hint,) = elements(drawn, "title")
    assert hint.text == perfect.name


def test_an_interval_beyond_the_axis_is_cut_at_its_end(board: Board) -> None:
    # The baseline scores within the panel of the arms, but its interval reaches far below it.
    best = board.rows[0]
    arm = {name: Estimate(value=0.40, low=0.35, high=0.45) for name in best.scores.overall}
    wide = {name: Estimate(value=0.35, low=0.05, high=0.38) for name in best.scores.overall}
    rows = (
        replace(best, scores=replace(best.scores, overall=arm)),
        replace(best, name="majority stage", kind="baseline", scores=replace(best.scores, overall=wide)),
    )
    drawn = leaderboard_chart(replace(board, rows=rows), alt="it")
    assert_legible(drawn)

    def ends(cls: str) -> list[tuple[float, ...]]:
        paths = [item.attrib["d"] for item in elements(drawn, "path") if cls in item.attrib["class"].split()]
        return sorted(tuple(float(part) for part in re.findall(r"-?[\d.]+", path)) for path in paths)

    axes, bars = ends("axis"), ends("k-baseline")
    flat = [bar for bar in bars if len(bar) == 4 and bar[1] == bar[3] and bar[0] != bar[2]]
    assert len(axes) == len(flat) == 3
    assert [bar[0] for bar in flat] == [axis[0] for axis in axes], "each begins where its own axis does"
    assert len(bars) == 6, "one cap each: none at the end that was cut"


def test_what_is_not_scored_is_said_and_not_drawn(board: Board) -> None:
    nothing = Estimate(value=math.nan)
    row = board.rows[0]
    empty = replace(row, scores=replace(row.scores, overall=dict.fromkeys(row.scores.overall, nothing)))
    drawn = leaderboard_chart(replace(board, rows=(empty,)), alt="it")
    assert words(drawn).count("not scored") == 3
    assert not elements(drawn, "circle")
    contrast = replace(board.contrasts[0], effect=nothing, stages=tuple(
        replace(stage, effect=nothing) for stage in board.contrasts[0].stages
    ))  # fmt: skip
    assert_legible(contrast_chart(replace(board, contrasts=(contrast,)), alt="it"))


def test_contrasts_show_effects_and_stages(board: Board) -> None:
    drawn = contrast_chart(board, alt="it")
    assert_legible(drawn)
    assert {contrast.name for contrast in board.contrasts} <= set(words(drawn))
    bars = [item for item in elements(drawn, "rect") if item.attrib["class"] in {"sure", "unsure"}]
    assert [item.attrib["class"] == "sure" for item in bars] == [item.p_holm <= 0.05 for item in board.contrasts]
    assert len(elements(drawn, "circle")) == 5 + 5 * len(board.contrasts)


def test_forest_with_and_without_a_summary(report: Report) -> None:
    forest = report.across.forests[0]
    drawn = forest_chart(forest, alt="it")
    assert_legible(drawn)
    assert {"together", "3 corpora", "one more corpus"} <= set(words(drawn))
    number = f"{forest.summary.effect.value:+.3f}".replace("+0.", "+.")
    assert any(text.startswith(number) for text in words(drawn))
    nothing = replace(forest, effects=forest.effects[:1], summary=combine_corpora([0.1], [0.1]))
    assert "together" not in words(forest_chart(nothing, alt="it"))
    two = replace(forest, effects=forest.effects[:2], summary=combine_corpora([0.1, 0.2], [0.1, 0.1]))
    assert "one more corpus" not in words(forest_chart(two, alt="it"))
    assert_legible(forest_chart(two, alt="it"))


def test_ranks_of_few_and_of_many(report: Report) -> None:
    diagram = report.across.diagrams[0]
    drawn = rank_chart(diagram, alt="it")
    assert_legible(drawn)
    assert "full  1.00" in words(drawn)
    many = tuple((f"arm number {n}", 1.0 + n * 0.9) for n in range(12))
    wide = replace(diagram, ranks=many, groups=(tuple(arm for arm, _ in many[:5]),), critical_difference=30.0)
    assert "critical difference 30.00, longer than the axis" in words(rank_chart(wide, alt="it"))
    assert_legible(rank_chart(wide, alt="it"))


@pytest.mark.parametrize("passes", [(1,), (1, 2, 3)])
@pytest.mark.parametrize("arms", [1, 5])
def test_training_curves(passes: tuple[int, ...], arms: int) -> None:
    curves = tuple(
        TrainingCurve(arm=f"arm {n}", settings="0", fold=0, seed=0, passes=passes,
                      macro_f1=(math.nan, *np.linspace(0.4, 0.6, len(passes) - 1).tolist()), best_pass=passes[-1])
        for n in range(arms)
    )  # fmt: skip
    group = TrainingGroup(
        simulated=True, experiment="within", trained_on="x", protocol="kfold", folds=9, recipe="quick", split_hash="0",
        curves=curves,
    )  # fmt: skip
    drawn = training_chart(group, alt="it")
    assert_legible(drawn)
    assert words(drawn).count("pass") == min(arms, 4)


def test_names_are_text_whatever_they_hold(board: Board) -> None:
    row = replace(board.rows[0], name=HOSTILE)
    drawn = leaderboard_chart(replace(board, rows=(row,)), alt=HOSTILE)
    root = ElementTree.fromstring(drawn)
    assert root.attrib["aria-label"] == HOSTILE
    assert HOSTILE in "".join(root.itertext())
    assert not elements(drawn, "script")


@given(st.floats(-1e3, 1e3), st.floats(1e-4, 1e3), st.integers(2, 8))
def test_ticks_are_round_few_and_within(low: float, reach: float, most: int) -> None:
    scale = Scale(low=low, high=low + reach, start=0, stop=100)
    ticks = scale.ticks(most)
    assert 1 <= len(ticks) <= most + 1
    assert all(low - 1e-6 * reach <= tick <= low + reach * (1 + 1e-6) for tick in ticks)
    assert len({tick_text(tick, ticks) for tick in ticks}) == len(ticks)


def test_ticks_in_words() -> None:
    assert [tick_text(tick, [0.7, 0.75]) for tick in (0.7, 0.75, 1.0)] == [".70", ".75", "1.00"]
    assert [tick_text(tick, [0.01], signed=True) for tick in (-0.01, 0.0, 0.01)] == ["−.01", "0", "+.01"]


@given(st.text(max_size=60), st.floats(0, 300))
def test_shortened_text_fits(text: str, room: float) -> None:
    short = shortened(text, room)
    assert short == text or short == "…" or text_width(short) <= room


def test_limits_hold_everything() -> None:
    assert span([]) == (0.0, 1.0)
    low, high = span([Estimate(value=0.5, low=0.4, high=0.6)])
    assert low < 0.4 < 0.6 < high
    low, high = span([Estimate(value=0.5)], zero=True)
    assert low < 0 < 0.5 < high


def test_marks_and_words_without_room() -> None:
    canvas = Canvas(100, 50)
    canvas.dot(10, 10, "x", shape="diamond")
    canvas.dot(10, 10, "x", shape="square")
    canvas.text(5, 10, "a long text that has no room", "small", room=40)
    assert_legible(canvas.svg("it"))
