"""`tusp report --cards DIR`: a card of every corpus and every row, with nothing in it that files could have written."""

from __future__ import annotations

from pathlib import Path

from judged_home import CORPUS, judged_home
from report_results import add_submission, new_store, plausible_results
from typer.testing import CliRunner

from tusp.cli.main import app
from tusp.dashboards.cards import board_name, dataset_card, model_card, write_cards
from tusp.dashboards.report import build_report


def test_the_command_writes_a_card_of_every_corpus_and_row(tmp_path: Path) -> None:
    home = judged_home(tmp_path / "home")
    folder = tmp_path / "cards"
    done = CliRunner().invoke(
        app, ["--home", str(home.folder), "--db", home.settings.db, "report", "--cards", str(folder)]
    )
    assert done.exit_code == 0, done.output
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.md"))
    assert files[0] == f"corpora/{CORPUS}.md"
    assert [name.rpartition("--")[2].partition("-")[0] for name in files[1:]] == ["full.md", "majority_stage", "no"]
    assert len(done.stdout.splitlines()) == 4


def test_a_dataset_card_says_what_is_known(tmp_path: Path) -> None:
    home = judged_home(tmp_path)
    report = build_report(home.store, bootstrap=200)
    card = dataset_card(home.store, report, CORPUS)
    assert card is not None
    for said in ("# Dataset card: Toy nights", "SIMULATED", "6 usable, 1 refused", "A. Author, 2026", "| people | 6 |",
                 "| N2 | 348 epochs, 74.4 % |", "## Limits", "## Intended use"):  # fmt: skip
        assert said in card, said
    # The refused night's name and reason hold markup.
    assert "R\\<9\\>: no hypnogram &amp; no \\<b\\>signal\\</b\\>" in card
    assert "<b>" not in card
    assert dataset_card(home.store, report, "other") is None


def test_a_model_card_has_scores_training_and_limits(tmp_path: Path) -> None:
    home = judged_home(tmp_path)
    report = build_report(home.store, bootstrap=200)
    (board,) = report.boards
    row = next(row for row in board.rows if row.name == "full")
    card = model_card(home.store, report, board, row)
    value = f"{row.scores.overall['macro_f1'].value:.3f}".replace("0.", ".")
    assert f"| macro-F1 | {value} | " in card
    for said in (f"hash `{board.key.split_hash}`", "| parameters | 1,000 |", "csja: True", "optimizer: ", "SIMULATED",
                 "Judged on 6 people: intervals are wide", "tusp validate --submission first", "| people | 6 |",
                 "Not a medical device"):  # fmt: skip
        assert said in card, said
    baseline = model_card(home.store, report, board, board.rows[-1])
    assert "No network: always says the most frequent stage" in baseline
    assert "## Training recipe" not in baseline


def test_real_nights_are_not_called_simulated(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    with store.session() as session:
        add_submission(session, "first")
        plausible_results(session, "first", people=10)
    report = build_report(store, bootstrap=200)
    for path in write_cards(store, report, tmp_path / "cards"):
        assert "simulated" not in path.read_text(encoding="utf-8").lower()


def test_boards_and_rows_have_files_of_their_own(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    with store.session() as session:
        add_submission(session, "first", simulated=False)
        plausible_results(session, "first", people=10)
        add_submission(session, "second", simulated=True, minutes=1)
        plausible_results(session, "second", people=10, simulated=True)
    report = build_report(store, bootstrap=200, everything=True)
    assert len({board_name(board) for board in report.boards}) == 2
    written = write_cards(store, report, tmp_path / "cards")
    assert len(written) == len(set(written)) == 6
    assert all((tmp_path / "cards") in path.parents for path in written)
