"""Pictures: what they show is what was counted, everything legible, nothing drawn through pyplot."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from report_results import add_cell, add_submission, new_store, night, plausible_results
from safetensors.numpy import save_file

from tusp.dashboards.figures import (
    ablation_figure,
    ablation_heatmap,
    cell_pictures,
    class_figure,
    confusion_figure,
    critical_difference_figure,
    curves_figure,
    forest_figure,
    hypnogram_figure,
    leaderboard_figure,
    matrix_figure,
)
from tusp.dashboards.leaderboard import Board
from tusp.dashboards.predictions import read_prediction
from tusp.dashboards.report import Report, build_report
from tusp.platform.errors import DataError
from tusp.platform.scoring import confusion
from tusp.platform.scoring.evidence import combine_corpora
from tusp.platform.scoring.statistics import Estimate
from tusp.platform.store.models import Artefact, Curve
from tusp.platform.store.queries import cell_records
from tusp.platform.store.record import CurveRow


def texts(figure: Figure) -> list[str]:
    return [artist.get_text() for artist in figure.findobj(Text) if isinstance(artist, Text)]


def assert_legible(figure: Figure) -> None:
    """Every text lies inside the picture, and it can be drawn."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    renderer = canvas.get_renderer()
    for part in (*figure.axes, *figure.texts):
        box = part.get_tightbbox(renderer)
        assert box is not None
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, part


@pytest.fixture
def board(tmp_path: Path) -> Board:
    store = new_store(tmp_path)
    arms = ["full", "no-csja", "no-se", "plain"]
    with store.session() as session:
        add_submission(session, "first", arms=arms, simulated=True)
        plausible_results(session, "first", arms=arms, people=8, folds=4, simulated=True)
        add_cell(session, "first", None, arm="plain", fold=4, folds=4, simulated=True, state="failed", error="killed")
    return build_report(store, bootstrap=200).boards[0]


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """Three corpora judged within, and two more by one network that was trained on both."""
    (tmp_path / "several").mkdir()
    store = new_store(tmp_path / "several")
    arms = ["full", "no-csja", "no-se", "plain"]
    with store.session() as session:
        add_submission(session, "first", arms=arms)
        for place, corpus in enumerate(["dcsm", "sedf-sc", "sedf-st"]):
            plausible_results(session, "first", arms=arms, corpus=corpus, people=8 + place, folds=4)
        add_submission(session, "second", arms=["full"], minutes=1)
        for corpus in ("dcsm", "dod-h"):
            nights = {(f"P{n}", f"R{n}"): night(np.random.default_rng(n), quality=0.9) for n in range(4)}
            add_cell(session, "second", nights, corpus="dcsm+sedf-sc", judged_on=corpus, folds=4, experiment="joint")
    return build_report(store, bootstrap=200, everything=True)


def a_night(n: int = 400) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(5) * 0.3, size=n).astype(np.float32)
    predicted = probabilities.argmax(1).astype(np.int8)
    true = np.where(generator.random(n) < 0.8, predicted, 2).astype(np.int8)
    true[100:120] = -1
    return true, predicted, probabilities


def test_confusion_matrix_has_row_shares_of_three_decimals_and_counts() -> None:
    matrix = np.zeros((5, 5), dtype=int)
    matrix[0, 0], matrix[0, 1], matrix[2, 2] = 2000, 1000, 5
    figure = confusion_figure(matrix, title="one night")
    shown = texts(figure)
    assert {"0.667", "0.333", "1.000", "2,000", "1,000"} <= set(shown)
    # N1, N3 and REM never occur in the truth: not scored, no number.
    assert shown.count("–") == 15
    assert_legible(figure)


def test_hypnogram_shows_gaps_disagreement_and_hypnodensity() -> None:
    true, predicted, probabilities = a_night()
    figure = hypnogram_figure(true, predicted, probabilities, title="a night", first_epoch=120)
    assert len(figure.axes) == 4
    assert figure.axes[-1].get_xlim() == pytest.approx((1.0, 1.0 + 400 / 120))
    heights = figure.axes[0].patches[0].get_data().values  # type: ignore[attr-defined]
    assert np.isnan(heights[100:120]).all()
    assert np.isfinite(heights[:100]).all()
    red = figure.axes[1].patches[0].get_data().values  # type: ignore[attr-defined]
    np.testing.assert_array_equal(red.astype(bool), (true != predicted) & (true >= 0))
    assert any("probability" in text for text in texts(figure))
    assert_legible(figure)
    assert len(hypnogram_figure(true, predicted, None, title="a night").axes) == 3
    with pytest.raises(ValueError, match="same number of epochs"):
        hypnogram_figure(true, predicted[:-1], probabilities, title="a night")


def test_curves_leave_out_what_was_not_validated() -> None:
    curve = [
        CurveRow(pass_number=n, train_loss=1 / n, learning_rate=1e-3, validation_loss=None,
                 validation_accuracy=0.5 if n % 2 else None, validation_macro_f1=0.4, seconds=1.0)
        for n in range(1, 6)
    ]  # fmt: skip
    figure = curves_figure(curve, title="a cell", best_pass=3)
    assert [line.get_label() for line in figure.axes[0].lines] == ["training", "kept: pass 3"]
    assert_legible(figure)


def test_board_pictures_say_simulated_and_name_missing_folds(board: Board) -> None:
    for figure in (leaderboard_figure(board), ablation_figure(board)):
        assert any("SIMULATED nights" in text for text in texts(figure))
        assert_legible(figure)
    assert any("plain\n(4/5 folds)" in text for text in texts(leaderboard_figure(board)))
    names = [text for text in texts(ablation_figure(board)) if "−" in text or "effect" in text]
    assert {"full − no-csja", "CSJA (main effect)"} <= set(names)


def test_a_perfect_row_and_a_long_name_are_not_cut(board: Board) -> None:
    best = board.rows[0]
    overall = {name: Estimate(value=1.0, low=1.0, high=1.0) for name in best.scores.overall}
    stages = {name: (Estimate(value=1.0, low=1.0, high=1.0),) * 5 for name in best.scores.stages}
    name = "A long name of a submission from elsewhere, version 2, of which nobody knows where it ends"
    scores = replace(best.scores, overall=overall, stages=stages)
    row = replace(best, name=name, scores=scores, kind="imported", unranked="other nights")
    for draw in (leaderboard_figure, class_figure):
        figure = draw(replace(board, rows=(row, *board.rows)))
        assert_legible(figure)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        panels = [axes.get_window_extent() for axes in figure.axes]
        for axes, panel in zip(figure.axes, panels, strict=True):
            if not axes.get_xlabel() and not axes.texts:
                continue  # the scale of colours
            assert panel.width > 150, "the name leaves the panels their room"
            for text in axes.texts:
                box = text.get_window_extent(canvas.get_renderer())
                assert panel.x0 - 1 <= box.x0 and box.x1 <= panel.x1 + 1, text.get_text()
            beyond = [label.get_text() for label in axes.get_xticklabels() if label.get_visible()]
            low, high = axes.get_xlim()
            shown = [text for text, at in zip(beyond, axes.get_xticks(), strict=True) if low <= at <= high]
            assert not [text for text in shown if re.fullmatch(r"1\.0*[1-9]\d*", text)], "no tick says more than 1"


def test_forest_shows_every_corpus_and_the_summary(report: Report) -> None:
    forest = report.across.forests[0]
    figure = forest_figure(forest)
    shown = texts(figure)
    for item in forest.effects:
        assert f"{item.corpus}  ({item.people} people)" in shown
    assert {"together  (3 corpora)", "one more corpus"} <= set(shown)
    number = f"{forest.summary.effect.value:+.3f}".replace("+0.", "+.")
    assert any(text.startswith(number) for text in shown)
    assert_legible(figure)
    # Without a summary there is neither a diamond nor a prediction.
    nothing = replace(forest, effects=forest.effects[:1], summary=combine_corpora([0.1], [0.1]))
    assert "together  (1 corpora)" not in texts(forest_figure(nothing))
    assert_legible(forest_figure(nothing))


def test_rank_diagram_says_that_it_is_descriptive(report: Report) -> None:
    figure = critical_difference_figure(report.across.diagrams[0])
    shown = texts(figure)
    assert {"full  1.00", "plain  4.00"} <= set(shown)
    assert any("descriptive: 3 corpora cannot carry a test" in text for text in shown)
    assert_legible(figure)


def test_matrix_frames_what_a_network_was_trained_on(report: Report) -> None:
    matrix = report.across.matrices[0]
    figure = matrix_figure(matrix)
    framed = [patch.get_xy() for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    known = [
        (column - 0.47, row - 0.46)
        for row, trained in enumerate(matrix.trained_on)
        for column, corpus in enumerate(matrix.judged_on)
        if corpus in trained.split("+") and matrix.people[row][column]
    ]
    np.testing.assert_allclose(framed, known)
    empty = sum(number == 0 for people in matrix.people for number in people)
    assert texts(figure).count("–") == empty > 0
    assert_legible(figure)


def test_heat_maps_of_effects_and_classes(report: Report, board: Board) -> None:
    forests = report.across.forests
    figure = ablation_heatmap(forests)
    shown = texts(figure)
    assert all(forest.contrast in shown for forest in forests)
    effect = forests[0].effects[0].stages[2].value
    assert f"{effect:+.3f}".replace("0.", ".", 1).replace("-", "−") in shown
    assert_legible(figure)
    classes = class_figure(board)
    assert f"{board.rows[0].scores.stages['f1'][1].value:.3f}".replace("0.", ".") in texts(classes)
    assert_legible(classes)
    with pytest.raises(ValueError, match="at least one contrast"):
        ablation_heatmap([])


def test_cell_pictures_of_a_done_cell(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    true, predicted, probabilities = a_night()
    path = "cells/ab/x/predictions/sedf-sc/R1.safetensors"
    (tmp_path / path).parent.mkdir(parents=True)
    tensors = {"true": true, "predicted": predicted, "probabilities": probabilities}
    save_file(tensors, tmp_path / path, metadata={"first_epoch": "60"})
    with store.session() as session:
        add_submission(session, "first", arms=["full"])
        nights = {("P1", "R1"): confusion(true, predicted)}
        cell = add_cell(session, "first", nights, folds=1)
        session.add(
            Artefact(cell_id=cell, path=path, kind="predictions", recording="sedf-sc/R1", sha256="0", size_bytes=1)
        )
        session.add(Curve(cell_id=cell, pass_number=1, train_loss=1.0, learning_rate=0.1, seconds=2.0))
    (record,) = cell_records(store, [cell])
    pictures = cell_pictures(record, home=tmp_path)
    assert set(pictures) == {"confusion", "curves", "hypnogram-sedf-sc-R1"}
    assert pictures["hypnogram-sedf-sc-R1"].axes[-1].get_xlim()[0] == pytest.approx(0.5)
    for name, figure in pictures.items():
        assert_legible(figure)
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_unreadable_predictions_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.safetensors: not a readable prediction"):
        read_prediction(tmp_path / "gone.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"\x10")
    with pytest.raises(DataError, match=r"torn.safetensors: not a readable prediction"):
        read_prediction(tmp_path / "torn.safetensors")
    save_file({"true": np.zeros(3, np.int8)}, tmp_path / "part.safetensors")
    with pytest.raises(DataError, match="holds no predicted"):
        read_prediction(tmp_path / "part.safetensors")


def test_figures_do_not_touch_pyplot() -> None:
    code = "import sys, tusp.dashboards.figures; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
