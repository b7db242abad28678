"""What reports keep: the same report with it and without, made anew whenever anything behind it changed."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judged_home import judged_home
from kept_world import (  # noqa: F401  (fixtures)
    CORPORA,
    WHOLE,
    boards_in,
    entry,
    files_in,
    in_store,
    made_fixture,
    rewritten,
    sole,
    store_fixture,
    texts,
    without_whole_reports,
)
from report_results import START, add_cell, add_submission, night, plausible_results
from sqlalchemy import delete, select, update
from typer.testing import CliRunner

from tusp.cli.main import app
from tusp.dashboards import kept, kept_checks
from tusp.dashboards.extras import read_extras
from tusp.dashboards.kept import Kept
from tusp.dashboards.leaderboard import Board
from tusp.dashboards.ready import make_ready
from tusp.dashboards.report import build_report
from tusp.dashboards.validate import validate
from tusp.platform.scoring.rules import RULES
from tusp.platform.store.models import Cell, Count, Curve, Entry, EntryCount, PackedCount, Submission
from tusp.platform.store.packed import collected, count_rows, keep_packed, packed
from tusp.platform.store.session import Store


@pytest.mark.parametrize("how", [{}, {"everything": True}, {"corpus": "sedf-sc"}, {"rule": "full"}])
def test_a_report_is_the_same_with_it_and_without(
    store: Store, tmp_path: Path, made: list[str], how: dict[str, Any]
) -> None:
    if how.get("rule") == "full":
        with store.session() as session:
            session.execute(update(Count).values(rule="full"))
    without = texts(store, None, tmp_path, **how)
    assert "scorer_1" in without["html"] and "elsewhere" in without["json"]
    boards = len(made)
    assert boards == (1 if "corpus" in how else 3)
    assert texts(store, tmp_path / "kept", tmp_path, **how) == without
    assert len(made) == 2 * boards
    assert texts(store, tmp_path / "kept", tmp_path, **how) == without
    assert len(made) == 2 * boards, "a board was made again"


def test_a_board_is_the_same_in_the_report_of_all_and_of_one_corpus(
    store: Store, tmp_path: Path, made: list[str]
) -> None:
    build_report(store, kept=tmp_path / "kept")
    assert made == list(CORPORA)
    build_report(store, kept=tmp_path / "kept", corpus="dcsm")
    build_report(store, kept=tmp_path / "kept", everything=True)
    assert made == list(CORPORA)


def test_packed_counts_are_known_as_their_rows_are(store: Store, tmp_path: Path, made: list[str]) -> None:
    before = texts(store, tmp_path / "kept", tmp_path)
    with store.session() as session:
        keep_packed(session, collected(tuple(row) for row in session.execute(count_rows(select(Cell.id)))))
        session.execute(delete(Count))
    made.clear()
    assert texts(store, tmp_path / "kept", tmp_path) == before
    assert made == []
    with store.session() as session:
        other = packed(np.ones((8, 5, 5)))
        row = session.scalars(select(PackedCount).where(PackedCount.corpus == "sedf-st")).first()
        assert row is not None and len(row.matrices) == 400
        row.matrices, row.sha256 = other, hashlib.sha256(other).hexdigest()
    after = texts(store, tmp_path / "kept", tmp_path)
    assert made == ["sedf-st"]
    assert after == texts(store, None, tmp_path) != before


def test_a_submission_leaves_the_reports_of_everything(store: Store, tmp_path: Path, made: list[str]) -> None:
    with store.session() as session:
        add_submission(session, "second", corpora=("sedf-sc", "shhs"), minutes=9)
        plausible_results(session, "second", corpus="shhs", people=6, folds=3)
        plausible_results(session, "second", corpus="sedf-sc", people=6, folds=3, seeds=(4,))
    make_ready(store, kept=tmp_path / "kept", look=None)
    assert sorted(made) == sorted([*CORPORA, "shhs", "sedf-sc"] * 2), "of all and of the latest one, under both rules"
    assert sorted(path.parent.name for path in files_in(tmp_path / "kept") if path.parent.name in WHOLE) == [
        *["extras"] * 4, *["reports"] * 4,
    ]  # fmt: skip
    report = build_report(store, kept=tmp_path / "kept", home=tmp_path, everything=True)
    assert len(made) == 10
    shown = next(board for board in report.boards if board.key.judged_on == "sedf-sc")
    assert {seed for row in shown.rows for seed in row.seeds} == {0, 4}


def another_count(session: Any) -> None:
    sole(session, Count, Count.corpus == "sedf-sc").n_w_n1 += 1


def another_person(session: Any) -> None:
    name = sole(session, Count, Count.corpus == "sedf-sc").recording
    session.execute(update(Count).where(Count.recording == name).values(subject="somebody else"))


def another_cost(session: Any) -> None:
    cell = sole(session, Cell, Cell.corpus == "sedf-sc")
    cell.result = {**cell.result, "training_seconds": 1e6}


def a_cell_that_failed(session: Any) -> None:
    cell = sole(session, Cell, Cell.corpus == "sedf-sc", Cell.fold == 1)
    cell.state, cell.error, cell.result, cell.done_at = "failed", "a loss that is not finite", None, None


def another_seed(session: Any) -> None:
    add_cell(
        session, "first", {("P0", "C400"): night(np.random.default_rng(0), quality=1)}, corpus="sedf-sc", folds=3,
        seed=7,
    )  # fmt: skip


def another_refusal(session: Any) -> None:
    session.get(Submission, "first").refused = [{"corpus": "sedf-sc", "recording": "y", "reason": "too short"}]


def another_entry_count(session: Any) -> None:
    sole(session, EntryCount, EntryCount.rule == "trim30").n_w_w += 1


def another_provenance(session: Any) -> None:
    found = sole(session, Entry, Entry.kind == "imported")
    found.provenance = {**found.provenance, "author": "N. N."}


@pytest.mark.parametrize(
    "change",
    [
        *map(
            in_store,
            (
                another_count, another_person, another_cost, a_cell_that_failed, another_seed, another_refusal,
                another_entry_count, another_provenance,
            ),
        ),
        lambda store, home: entry(store, home, "imported", "one more"),
        lambda store, home: entry(store, home, "human", "scorer_1", moved=3),
    ],
    ids=[
        "count", "person", "cost", "state", "cell", "refusal", "entry count", "provenance", "new entry", "other scorer",
    ],
)  # fmt: skip
def test_what_changed_is_made_again_and_nothing_else(
    store: Store, tmp_path: Path, made: list[str], change: Callable[[Store, Path], None]
) -> None:
    before = texts(store, tmp_path / "kept", tmp_path)
    change(store, tmp_path)
    made.clear()
    after = texts(store, tmp_path / "kept", tmp_path)
    assert "sedf-sc" in made and "sedf-st" not in made
    assert after["json"] != before["json"]
    assert after == texts(store, None, tmp_path)


def test_settings_of_a_request_are_part_of_a_board(store: Store, tmp_path: Path, made: list[str]) -> None:
    """The split's seed is said on every board of the submission."""
    build_report(store, kept=tmp_path / "kept")
    with store.session() as session:
        submission = session.get(Submission, "first")
        assert submission is not None
        submission.request = {**submission.request, "split_seed": 5}
    made.clear()
    report = build_report(store, kept=tmp_path / "kept")
    assert made == list(CORPORA)
    assert {board.split_seeds for board in report.boards} == {(5,)}


def test_curves_are_read_again_when_a_cell_was_done_again(store: Store, tmp_path: Path) -> None:
    def drawn() -> list[tuple[float, ...]]:
        report = build_report(store, kept=tmp_path / "kept")
        groups = read_extras(store, report, kept=tmp_path / "kept").training
        return [curve.macro_f1 for group in groups for curve in group.curves]

    before = drawn()
    assert len(before) == 18
    with store.session() as session:
        cell = sole(session, Cell, Cell.state == "done")
        cell.done_at = START.replace(year=2027)
        session.execute(
            update(Curve).where(Curve.cell_id == cell.id, Curve.pass_number == 3).values(validation_macro_f1=0.9)
        )
    assert sum(curve[2] == 0.9 for curve in drawn()) == 1


@pytest.mark.parametrize("how", [{"bootstrap": 200}, {"seed": 1}])
def test_only_what_validation_makes_again_is_kept(store: Store, tmp_path: Path, how: dict[str, int]) -> None:
    build_report(store, kept=tmp_path / "kept", **how)
    assert not (tmp_path / "kept").exists()


def test_another_program_makes_its_own(
    store: Store, tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    build_report(store, kept=tmp_path / "kept")
    monkeypatch.setattr(kept, "program_hash", lambda: b"a later one")
    build_report(store, kept=tmp_path / "kept")
    assert made == [*CORPORA, *CORPORA]


def test_the_hash_of_the_program_is_that_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "tusp"
    for part in ("dashboards", "platform", "jobs"):
        (package / part).mkdir(parents=True)
        (package / part / "a.py").write_text("1")
    (package / "__init__.py").touch()
    monkeypatch.setattr(kept.tusp, "__file__", str(package / "__init__.py"))

    def now() -> bytes:
        kept.program_hash.cache_clear()
        return kept.program_hash()

    try:
        first = now()
        (package / "jobs" / "a.py").write_text("2")
        assert now() == first, "boards do not depend on it"
        (package / "dashboards" / "a.cpython-311.pyc").write_text("2")
        assert now() == first
        (package / "platform" / "a.py").write_text("2")
        second = now()
        assert second != first
        (package / "dashboards" / "published.toml").write_text("")
        assert now() != second
    finally:
        kept.program_hash.cache_clear()


@pytest.mark.parametrize("harm", ["cut", "empty", "changed", "other"])
def test_a_damaged_file_is_made_again(
    store: Store, tmp_path: Path, made: list[str], caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    folder = tmp_path / "kept"
    right = texts(store, folder, tmp_path)
    path = boards_in(without_whole_reports(folder))[1]
    raw = path.read_bytes()
    path.write_bytes(
        {"cut": raw[:-7], "empty": b"", "changed": raw[:200] + b"!" + raw[201:], "other": b"x" * 900}[harm]
    )
    made.clear()
    with caplog.at_level(logging.WARNING):
        assert texts(store, folder, tmp_path) == right
    assert len(made) == 1
    assert [record.getMessage() for record in caplog.records] == [f"{path} is damaged; what it kept is made again"]
    assert path.read_bytes() == raw


def test_a_file_that_holds_something_else_is_made_again(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "kept"
    right = texts(store, folder, tmp_path)
    path = boards_in(without_whole_reports(folder))[1]
    rewritten(path, lambda board: board.pop("rows"))
    with caplog.at_level(logging.WARNING):
        assert texts(store, folder, tmp_path) == right
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} holds something else (Object missing required field `rows`); it is made again"
    ]


def test_a_folder_that_cannot_be_written_costs_time_and_nothing_else(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "kept").write_text("a file where a folder should be")
    with caplog.at_level(logging.WARNING):
        assert texts(store, tmp_path / "kept", tmp_path) == texts(store, None, tmp_path)
    said = [record.getMessage() for record in caplog.records if "nothing more is kept" in record.getMessage()]
    assert len(said) == 5, "once for boards, what they give together, curves, the report and its extras"
    assert len(caplog.records) == 5


def test_what_nobody_used_for_long_is_deleted(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    build_report(store, kept=folder)
    used, unused = boards_in(folder)[0], folder / "boards" / f"{'0' * 64}.msgpack"
    unused.write_bytes(b"")
    long_ago = time.time() - kept.FORGOTTEN_AFTER - 60
    torn, being_written = (folder / "boards" / f".{name}.msgpack.x.part" for name in ("torn", "now"))
    torn.touch()
    being_written.touch()
    for path in (used, unused, torn):
        os.utime(path, (long_ago, long_ago))
    build_report(store, kept=without_whole_reports(folder))
    assert used.stat().st_mtime > time.time() - 60
    assert unused.exists(), "nothing was made, so nothing was looked for"
    with store.session() as session:
        another_count(session)
    build_report(store, kept=folder)
    assert used.exists() and not unused.exists()
    assert being_written.exists() and not torn.exists()


def test_the_command_keeps_and_makes_anew(tmp_path: Path, made: list[str]) -> None:
    home = judged_home(tmp_path)

    def shown(*words: str) -> str:
        called = ["--home", str(tmp_path), "--db", home.store.url, "report", *words]
        result = CliRunner().invoke(app, called)
        assert result.exit_code == 0, result.output
        return result.stdout

    first = shown()
    assert made == ["toy"]
    assert shown() == first
    assert made == ["toy"]
    assert shown("--fresh") == first
    assert made == ["toy", "toy"]
    assert shown("--format", "html") == shown("--format", "html", "--fresh")


@pytest.mark.parametrize("everything", [False, True])
def test_validation_makes_again_what_is_kept(tmp_path: Path, everything: bool) -> None:
    home = judged_home(tmp_path)
    folder = home.settings.kept
    for rule in RULES:
        report = build_report(home.store, rule=rule, home=tmp_path, kept=folder)
        read_extras(home.store, report, kept=folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert [path.parent.name for path in files] == [
        "across", "across", "boards", "boards", "curves", "extras", "extras", "reports", "reports",
    ]  # fmt: skip
    times = {path: path.read_bytes() for path in files}
    found = validate(home.store, home.settings, everything=everything)
    assert found.problems == ()
    # The report of everything has the same boards here; curves are looked at with every rule.
    assert found.kept == 10 + 6 * everything
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == times

    def better(board: Any) -> None:
        board["rows"][0]["scores"]["overall"]["macro_f1"]["value"] = 0.99

    rewritten(boards_in(without_whole_reports(folder))[0], better)
    assert 0.99 in {
        row.scores.overall["macro_f1"].value
        for rule in RULES
        for row in build_report(home.store, rule=rule, home=tmp_path, kept=folder).boards[0].rows
    }
    board, report_with_it = validate(home.store, home.settings, everything=everything).problems
    assert board.startswith(f"{boards_in(folder)[0]}: is not the board 'toy · SIMULATED nights")
    assert report_with_it.endswith("is not the report that its boards and the store make; delete it")
    boards_in(without_whole_reports(folder))[0].unlink()
    rewritten(next((folder / "curves").iterdir()), lambda group: group["curves"][0].update(macro_f1=[0.99]))
    (line,) = validate(home.store, home.settings, everything=everything).problems
    assert line.endswith("has other training curves than the store; delete it")


def test_summaries_that_are_not_what_boards_give(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    build_report(store, home=tmp_path, kept=folder)
    how = {"submissions": ["first"], "everything": False}
    assert kept_checks.check_kept(store, folder, **how) == (5, [])  # type: ignore[arg-type]
    rewritten(next((folder / "across").iterdir()), lambda across: across.update(notes=["all is well"]))
    found, (line,) = kept_checks.check_kept(store, folder, **how)  # type: ignore[arg-type]
    assert found == 5 and line.endswith("is not what its boards give together; delete it")


def test_every_field_of_a_board_comes_back(store: Store, tmp_path: Path) -> None:
    """What a field's type does not say would come back as something else: a tuple as a list, a whole number as 1.0."""
    for board in build_report(store, home=tmp_path).boards:
        back = Kept(tmp_path / "kept", Board).keep("name", board)
        same_types(board, back)


def same_types(one: Any, other: Any) -> None:
    assert type(one) is type(other), (one, other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for name in one:
            same_types(one[name], other[name])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            same_types(mine, theirs)
    elif hasattr(one, "__dataclass_fields__"):
        for name in one.__dataclass_fields__:
            same_types(getattr(one, name), getattr(other, name))
    else:
        assert repr(one) == repr(other)
