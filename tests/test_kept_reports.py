"""Whole reports that are kept: found while nothing changed in the store, made again with the first row that did."""

from __future__ import annotations

import io
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kept_world import (  # noqa: F401  (fixtures)
    files_in,
    in_store,
    made_fixture,
    rewritten,
    sole,
    store_fixture,
    texts,
)
from report_results import START, add_submission
from rich.console import Console
from sqlalchemy import delete, select, update

from tusp.dashboards import kept_checks, kept_texts, ready, report
from tusp.dashboards.asked import FORMATS, Asked, known, report_hash
from tusp.dashboards.extras import read_extras
from tusp.dashboards.kept_texts import Look, look_of
from tusp.dashboards.report import build_report
from tusp.platform.errors import StoreError, UserError
from tusp.platform.store.models import (
    Cell,
    Corpus,
    Count,
    Entry,
    EntryCount,
    PackedCount,
    Recording,
    Submission,
    SubmissionCell,
)
from tusp.platform.store.packed import collected, count_rows, keep_packed, read_marks
from tusp.platform.store.queries import brief_cells
from tusp.platform.store.session import Store
from tusp.platform.store.state_cells import cells_of_state, marks_of_state

AUDIT = {"problems": [], "channels": [], "epochs": {"W": 10}, "signal_epochs": 10}


@pytest.fixture
def registered(store: Store) -> Store:
    """With a corpus, its audits, and packed counts of all cells but one."""
    with store.session() as session:
        corpus = Corpus(name="sedf-sc", adapter="sedf-sc", root="/nights", simulated=False, card={"title": "Cassette"})
        for number in range(3):
            corpus.recordings.append(
                Recording(name=f"n{number}", subject=f"P{number}", usable=True, audit=AUDIT, sources=[])
            )
        session.add(corpus)
        keep_packed(session, collected(tuple(row) for row in session.execute(count_rows(select(Cell.id)))))
        session.execute(delete(PackedCount).where(PackedCount.cell_id == sole(session, Cell, Cell.state == "done").id))
    return store


@pytest.fixture
def selections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """How often the cells of a report were read."""
    found: list[Any] = []
    select_results = report.select_results

    def counted(*arguments: Any, **how: Any) -> Any:
        found.append(how)
        return select_results(*arguments, **how)

    monkeypatch.setattr(report, "select_results", counted)
    return found


@pytest.mark.parametrize(
    "how", [{}, {"submission": "fir"}, {"everything": True}, {"everything": True, "corpus": "sedf-sc"}]
)
def test_while_nothing_changes_no_cell_is_read_again(
    registered: Store, tmp_path: Path, selections: list[Any], how: dict[str, Any]
) -> None:
    first = texts(registered, tmp_path / "kept", tmp_path, **how)
    assert len(selections) == 1
    assert texts(registered, tmp_path / "kept", tmp_path, **how) == first
    assert len(selections) == 1
    assert texts(registered, None, tmp_path, **how) == first


def test_the_latest_submission_is_kept_under_its_own_name(
    registered: Store, tmp_path: Path, selections: list[Any]
) -> None:
    folder = tmp_path / "kept"
    latest = build_report(registered, kept=folder)
    named = build_report(registered, submission="first", kept=folder)
    assert msgspec.msgpack.encode(named.boards) == msgspec.msgpack.encode(latest.boards)
    assert len(selections) == 1
    assert report_hash(registered, Asked()) != report_hash(registered, Asked(everything=True))
    assert report_hash(registered, Asked()) != report_hash(registered, Asked(rule="full"))
    assert report_hash(registered, Asked()) != report_hash(registered, Asked(corpus="dcsm"))


def changed(kind: Any, *where: Any, **values: Any) -> Callable[[Any], None]:
    def change(session: Any) -> None:
        names = [column.name for column in kind.__table__.primary_key]
        one = sole(session, kind, *where)
        session.execute(
            update(kind).where(*(getattr(kind, name) == getattr(one, name) for name in names)).values(**values)
        )

    return change


def one_submission_more(session: Any) -> None:
    add_submission(session, "second", corpora=("shhs",), minutes=9)


def one_cell_less(session: Any) -> None:
    session.delete(sole(session, SubmissionCell, SubmissionCell.cell_id.in_(select(PackedCount.cell_id))))


CHANGES = {
    "state of a submission": changed(Submission, state="failed"),
    "request": changed(Submission, request={"ablation": "csja", "corpora": ["dcsm"]}),
    "environment": changed(Submission, environment={"python": "9"}),
    "refused": changed(Submission, refused=[{"corpus": "dcsm", "recording": "y", "reason": "too short"}]),
    "moment": changed(Cell, Cell.state == "done", done_at=START.replace(year=2027)),
    "result": changed(Cell, Cell.state == "done", result={"passes": 1}),
    "error": changed(Cell, Cell.state == "failed", error="something else"),
    "settings": changed(Cell, settings="f" * 64),
    "plan of a cell that says nothing else of it": changed(Cell, Cell.corpus == "dcsm", plan={"corpora": []}),
    "cell": one_cell_less,
    "submission": one_submission_more,
    "packed counts": changed(PackedCount, PackedCount.rule == "trim30", sha256="0" * 64),
    "counts of a cell without packed ones": changed(
        Count, Count.cell_id.not_in(select(PackedCount.cell_id)), n_w_n1=77
    ),
    "entry": changed(Entry, Entry.kind == "imported", provenance={"author": "N. N."}),
    "counts of an entry": changed(EntryCount, EntryCount.rule == "trim30", n_w_w=1),
    "card of a corpus": changed(Corpus, card={"title": "Telemetry"}),
    "audit": changed(Recording, audit={**AUDIT, "problems": ["EEG: 12 flat epochs"]}),
    "refusal of a night": changed(Recording, usable=False, reason="no EOG"),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("everything", [False, True])
def test_a_report_is_made_again_with_the_first_row_that_changed(
    registered: Store, tmp_path: Path, name: str, everything: bool
) -> None:
    asked = Asked(submission=None if everything else "first", everything=everything)
    before = report_hash(registered, asked)
    texts(registered, tmp_path / "kept", tmp_path, submission=asked.submission, everything=everything)
    in_store(CHANGES[name])(registered, tmp_path)
    after = report_hash(registered, asked)
    if name == "submission" and not everything:
        assert after == before, "the first one is as it was"
    else:
        assert after != before
    again = texts(registered, tmp_path / "kept", tmp_path, submission=asked.submission, everything=everything)
    assert again == texts(registered, None, tmp_path, submission=asked.submission, everything=everything)


def test_another_submission_changes_what_is_the_latest(registered: Store, tmp_path: Path) -> None:
    before = report_hash(registered, Asked())
    in_store(one_submission_more)(registered, tmp_path)
    assert report_hash(registered, Asked()) != before == report_hash(registered, Asked(submission="first"))


def test_whose_cells_they_are_is_part_of_a_report_of_everything(registered: Store, tmp_path: Path) -> None:
    in_store(one_submission_more)(registered, tmp_path)
    before = report_hash(registered, Asked(everything=True))

    def asked_for_too(session: Any) -> None:
        cell = sole(session, Cell, Cell.state == "done")
        session.add(SubmissionCell(submission_id="second", cell_id=cell.id, reused=True))

    in_store(asked_for_too)(registered, tmp_path)
    assert report_hash(registered, Asked(everything=True)) != before


def test_no_submission_and_several_are_refused_as_ever(registered: Store, tmp_path: Path) -> None:
    in_store(lambda session: add_submission(session, "fifth", corpora=("shhs",), minutes=9))(registered, tmp_path)
    for name in ("none", "fi"):
        assert report_hash(registered, Asked(submission=name)) is None
        with pytest.raises((UserError, StoreError), match="no submission" if name == "none" else "several submissions"):
            build_report(registered, submission=name, kept=tmp_path / "kept")


def test_what_contradicts_itself_is_refused_also_where_one_half_is_kept(registered: Store, tmp_path: Path) -> None:
    build_report(registered, everything=True, kept=tmp_path / "kept")
    with pytest.raises(UserError, match="exclude each other"):
        build_report(registered, submission="first", everything=True, kept=tmp_path / "kept")


def test_a_report_during_which_a_cell_ends_is_not_kept(
    registered: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "kept"
    build_across = report.build_across

    def meanwhile(boards: Any) -> Any:
        in_store(changed(Submission, state="failed"))(registered, tmp_path)
        return build_across(boards)

    monkeypatch.setattr(report, "build_across", meanwhile)
    build_report(registered, kept=folder)
    assert not (folder / "reports").exists()
    monkeypatch.undo()
    (told,) = build_report(registered, kept=folder).submissions
    assert told.state == "failed"
    assert len(files_in(folder / "reports")) == 1


@pytest.mark.parametrize("everything", [False, True])
def test_a_report_is_of_one_moment(registered: Store, tmp_path: Path, everything: bool) -> None:
    how: dict[str, Any] = {"everything": everything, "kept": tmp_path / "kept"}
    right = build_report(registered, everything=everything)
    before = known(registered, Asked(everything=everything))
    in_store(one_submission_more)(registered, tmp_path)
    late = build_report(registered, before=before, **how)
    assert late.kept_as is None and not (tmp_path / "kept" / "reports").exists()
    assert [note.id for note in late.submissions] == [note.id for note in right.submissions] == ["first"]
    assert msgspec.msgpack.encode(late.boards) == msgspec.msgpack.encode(right.boards)


@pytest.mark.parametrize("everything", [False, True])
def test_cells_are_the_same_from_the_rows_that_were_hashed(registered: Store, everything: bool) -> None:
    in_store(changed(Cell, Cell.corpus == "dcsm", settings=None))(registered, Path())
    in_store(one_submission_more)(registered, Path())
    before = known(registered, Asked(submission=None if everything else "first", everything=everything))
    assert before is not None
    names = ["first", "second"] if everything else ["first"]
    assert sorted(before.state.submissions) == names
    cells, members = cells_of_state(before.state, names)
    assert (cells, members) == brief_cells(registered, names)
    assert any(cell.done_at for cell in cells) and any(cell.result for cell in cells)
    with registered.reading() as session:
        done = [cell.id for cell in cells if cell.state == "done"]
        marks = read_marks(session, done, rule="trim30")
        there = marks_of_state(before.state)
        assert 0 < len(there) < len(marks)
        assert read_marks(session, done, rule="trim30", there=there) == marks
        one = read_marks(session, done, rule="trim30", corpus="sedf-sc")
        assert one == read_marks(session, done, rule="trim30", corpus="sedf-sc", there=there)
        assert {corpus for _, corpus in one} == {"sedf-sc"}


def test_extras_of_another_moment_are_not_kept(registered: Store, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    build_report(registered, kept=folder)
    kept = build_report(registered, kept=folder)
    assert kept.cells is None and kept.kept_as
    in_store(CHANGES["card of a corpus"])(registered, tmp_path)
    found = read_extras(registered, kept, kept=folder)
    assert [facts.title for facts in found.corpora if facts.name == "sedf-sc"] == ["Telemetry"]
    assert not (folder / "extras").exists()


@pytest.mark.parametrize("name", ["reports", "extras"])
def test_a_damaged_file_is_made_again(
    registered: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    folder = tmp_path / "kept"
    right = texts(registered, folder, tmp_path)
    (path,) = files_in(folder / name)
    raw = path.read_bytes()
    path.write_bytes(raw[:-9])
    with caplog.at_level(logging.WARNING):
        assert texts(registered, folder, tmp_path) == right
    assert [record.getMessage() for record in caplog.records] == [f"{path} is damaged; what it kept is made again"]
    assert path.read_bytes() == raw


def test_only_the_latest_reports_are_kept(registered: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST_REPORTS", 3)
    folder = tmp_path / "kept"
    for number in range(6):
        in_store(changed(Submission, environment={"number": number}))(registered, tmp_path)
        build_report(registered, kept=folder)
        for path in files_in(folder / "reports"):
            os.utime(path, (time.time() - 60, path.stat().st_mtime - 60))
    assert len(files_in(folder / "reports")) == 3
    assert len(files_in(folder / "boards")) == 3, "what they share"
    assert build_report(registered, kept=folder).submissions[0].environment == {"number": 5}


@pytest.mark.parametrize("how", [{"rule": "trim60"}, {"bootstrap": 200}, {"seed": 1}, {"sleep": True}])
def test_reports_that_validation_does_not_make_are_not_kept(
    registered: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    monkeypatch.setattr(report, "with_sleep", lambda store, home, boards, *_, **__: boards)
    monkeypatch.setattr(report, "select_results", lambda store, **arguments: selection_without_rule(store, arguments))
    build_report(registered, home=tmp_path, kept=tmp_path / "kept", **how)
    assert not (tmp_path / "kept" / "reports").exists()


def selection_without_rule(store: Store, arguments: dict[str, Any]) -> Any:
    """There are no predictions here to count another rule from."""
    from tusp.dashboards.frames import select_results

    return select_results(store, **{**arguments, "rule": "trim30"})


# --- texts ---


@pytest.fixture
def shown(registered: Store, tmp_path: Path) -> Callable[..., str]:
    """What the command writes, in a process of its own."""

    def run(*words: str, **variables: str) -> str:
        command = [sys.executable, "-c", "from tusp.cli.main import run; run()"]
        done = subprocess.run(
            [*command, "--home", str(tmp_path), "--db", registered.url, "report", *words],
            env={**os.environ, **variables}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("name", FORMATS)
def test_a_text_is_told_again_as_it_was_written(
    registered: Store, tmp_path: Path, shown: Callable[..., str], name: str
) -> None:
    words = ("--all", "--format", name)
    first = shown(*words)
    (path,) = files_in(tmp_path / "kept" / "texts")
    assert shown(*words) == first == shown(*words, "--fresh")
    assert files_in(tmp_path / "kept" / "texts") == [path]
    shown(*words, "--output", str(tmp_path / "there"))
    written = (tmp_path / "there").read_text()
    if name != "table":  # the table of a file is narrower
        assert written == first
        assert files_in(tmp_path / "kept" / "texts") == [path]
    shown(*words, "--output", str(tmp_path / "there"))
    assert (tmp_path / "there").read_text() == written

    in_store(changed(Submission, environment={"python": "9"}))(registered, tmp_path)
    assert shown(*words) == shown(*words, "--fresh")
    assert len(files_in(tmp_path / "kept" / "texts")) == 2 + (name == "table")


def test_a_kept_text_costs_no_library_that_makes_reports(
    registered: Store, tmp_path: Path, shown: Callable[..., str]
) -> None:
    first = shown("--json")
    watched = (
        "import sys; from tusp.cli.main import app\n"
        "try: app()\n"
        "except SystemExit: print([n for n in ('numpy', 'jinja2', 'tusp.dashboards.report') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", watched, "--home", str(tmp_path), "--db", registered.url, "report", "--json"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout == first + "[]\n"


def test_tables_are_kept_for_each_width_and_terminal(tmp_path: Path, shown: Callable[..., str]) -> None:
    narrow, wide = shown(COLUMNS="100"), shown(COLUMNS="140")
    colours = shown(FORCE_COLOR="1", COLUMNS="100", TERM="xterm-256color")
    without = shown(FORCE_COLOR="1", COLUMNS="100", TERM="xterm-256color", NO_COLOR="1")
    assert len({narrow, wide, colours, without}) == 4 == len(files_in(tmp_path / "kept" / "texts"))
    assert "\x1b[" in colours and "\x1b[" not in narrow
    for text, variables in (
        (narrow, {"COLUMNS": "100"}),
        (wide, {"COLUMNS": "140"}),
        (colours, {"FORCE_COLOR": "1", "COLUMNS": "100", "TERM": "xterm-256color"}),
        (without, {"FORCE_COLOR": "1", "COLUMNS": "100", "TERM": "xterm-256color", "NO_COLOR": "1"}),
    ):
        assert shown(**variables) == text == shown("--fresh", **variables)


def test_a_console_without_every_letter_is_not_kept_for() -> None:
    plain = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert look_of(Console(file=plain)) is None
    assert look_of(Console(file=io.StringIO(), width=90)) == Look(width=90)


@pytest.mark.parametrize("words", [("--bootstrap", "200"), ("--suite", "tusp-7"), ("--cards", "cards")])
def test_what_is_more_than_a_report_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: Callable[..., str], words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    shown(*words)
    assert not (tmp_path / "kept" / "texts").exists()


def test_a_page_with_extras_of_another_moment_is_not_kept(registered: Store, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    build_report(registered, kept=folder)
    kept = build_report(registered, kept=folder)
    in_store(CHANGES["card of a corpus"])(registered, tmp_path)
    ready.render_and_keep(registered, kept, "html", look=None, kept=folder)
    assert not (folder / "texts").exists()
    ready.render_and_keep(registered, kept, "json", look=None, kept=folder)
    assert len(files_in(folder / "texts")) == 1


def test_what_is_made_ready_is_found(registered: Store, tmp_path: Path, shown: Callable[..., str]) -> None:
    folder = tmp_path / "kept"
    ready.make_ready(registered, kept=folder, look=Look(width=110))
    before = files_in(folder)
    assert len(files_in(folder / "texts")) == 3
    for words in (("--all",), ("--all", "--json"), ("--all", "--format", "html")):
        assert shown(*words, COLUMNS="110") == shown(*words, "--fresh", COLUMNS="110")
    assert files_in(folder) == before


def test_what_was_made_ready_elsewhere_is_borrowed(
    registered: Store, tmp_path: Path, shown: Callable[..., str]
) -> None:
    ready.make_ready(registered, kept=tmp_path / "elsewhere", look=Look(width=110))
    for words in (("--all",), ("--all", "--json"), ("--all", "--format", "html"), ("--suite", "tusp-7"), ()):
        shutil.rmtree(tmp_path / "kept", ignore_errors=True)
        assert shown(*words, COLUMNS="110") == shown(*words, "--fresh", COLUMNS="110")
        lent = {path.name for path in files_in(tmp_path / "elsewhere") if path.parent.name != "curves"}
        assert lent & {path.name for path in files_in(tmp_path / "kept" / "reports")}
    shutil.rmtree(tmp_path / "kept")
    shown("--all", "--json", "--fresh")
    assert files_in(tmp_path / "kept") == []


def test_only_the_latest_texts_are_kept(registered: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_texts, "MOST_TEXTS", 2)
    report_now = build_report(registered, kept=tmp_path / "kept")
    for name in FORMATS:
        ready.render_and_keep(registered, report_now, name, look=None, kept=tmp_path / "kept")
    assert len(files_in(tmp_path / "kept" / "texts")) == 2


def test_validation_writes_every_text_again(registered: Store, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    report_now = build_report(registered, kept=folder)
    for name in FORMATS:
        ready.render_and_keep(registered, report_now, name, look=None, kept=folder)
    look = Look(width=90, terminal=True, colours="256")
    ready.render_and_keep(registered, report_now, "table", look=look, kept=folder)
    how: dict[str, Any] = {"submissions": ["first"], "everything": False}
    there, lines = kept_checks.check_kept(registered, folder, **how)
    assert lines == []
    for path in files_in(folder / "texts"):
        raw = path.read_bytes()
        rewritten(path, lambda kept: kept.update(text=kept["text"].replace(".8", ".9", 1)))
        assert kept_checks.check_kept(registered, folder, **how) == (
            there, [f"{path}: is not the text of its report; delete it"],
        )  # fmt: skip
        path.write_bytes(raw)


@pytest.mark.parametrize("everything", [False, True])
def test_validation_makes_whole_reports_again(registered: Store, tmp_path: Path, everything: bool) -> None:
    folder = tmp_path / "kept"
    for corpus in (None, "sedf-sc"):
        made = build_report(registered, everything=everything, corpus=corpus, kept=folder)
        read_extras(registered, made, kept=folder)
    how: dict[str, Any] = {"submissions": ["first"], "everything": everything}
    there, lines = kept_checks.check_kept(registered, folder, **how)
    assert lines == []

    for name, change, said in (
        ("reports", lambda whole: whole.update(superseded=9), "is not the report that its boards and the store make"),
        ("extras", lambda said: said.update(corpora=[]), "has other training curves or corpora than the store"),
    ):
        paths = files_in(folder / name)
        assert len(paths) == 2
        for path in paths:
            raw = path.read_bytes()
            rewritten(path, change)
            assert kept_checks.check_kept(registered, folder, **how) == (there, [f"{path}: {said}; delete it"])
            path.write_bytes(raw)
