"""Parts of reports that the store lends to who reports from another home."""

from __future__ import annotations

import logging
import zlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from kept_world import files_in, in_store, made_fixture, rewritten, sole, store_fixture, texts  # noqa: F401  (fixtures)
from sqlalchemy import select, update

from tusp.dashboards import kept_checks, lent, ready
from tusp.dashboards.kept import FORGOTTEN_AFTER, program_hash
from tusp.dashboards.lent import borrow, lend, lent_names
from tusp.platform.store.models import Count, KeptPart, utc_now
from tusp.platform.store.session import Store, open_store, upgrade_store

ONE, OTHER = "boards/" + "a" * 64, "reports/" + "b" * 64
ALL: dict[str, Any] = {"everything": True}


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'tusp.db'}"


@pytest.fixture
def lender(store_url: str) -> Store:
    upgrade_store(store_url)
    return open_store(store_url)


def keep(folder: Path, name: str, content: bytes) -> None:
    path = folder / f"{name}.msgpack"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def contents(folder: Path) -> dict[str, bytes]:
    return {f"{path.parent.name}/{path.stem}": path.read_bytes() for path in files_in(folder)}


def test_what_one_home_lends_another_borrows(lender: Store, tmp_path: Path) -> None:
    keep(tmp_path / "a", ONE, b"one")
    keep(tmp_path / "a", OTHER, b"other")
    lend(lender, tmp_path / "a", [ONE, OTHER, ONE, "boards/" + "c" * 64])
    keep(tmp_path / "b", OTHER, b"mine")
    borrow(lender, tmp_path / "b")
    assert contents(tmp_path / "b") == {ONE: b"one", OTHER: b"mine"}


def test_only_what_a_report_has_use_for_is_borrowed(lender: Store, tmp_path: Path) -> None:
    mine, other = "b" * 64, "d" * 64
    parts = [ONE, OTHER, f"extras/{mine}", f"reports/{other}", f"extras/{other}", "texts/" + "e" * 64]
    for name in parts:
        keep(tmp_path / "a", name, b"content")
    lend(lender, tmp_path / "a", parts)
    borrow(lender, tmp_path / "b", mine)
    assert set(contents(tmp_path / "b")) == {OTHER, f"extras/{mine}", "texts/" + "e" * 64}
    borrow(lender, tmp_path / "c", "f" * 64)
    assert set(contents(tmp_path / "c")) == {ONE}
    keep(tmp_path / "d", "reports/" + "f" * 64, b"mine")
    borrow(lender, tmp_path / "d", "f" * 64)
    assert ONE not in contents(tmp_path / "d")
    borrow(lender, tmp_path / "e")
    assert set(contents(tmp_path / "e")) == set(parts)


def test_the_next_to_lend_takes_the_place_of_the_last(
    lender: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path / "a", ONE, b"one")
    keep(tmp_path / "a", OTHER, b"other")
    lend(lender, tmp_path / "a", [ONE])
    with lender.session() as session:
        session.execute(update(KeptPart).values(packed=b"something else"))
        for letter, days in (("d", 0), ("e", FORGOTTEN_AFTER / 86400 + 1)):
            made = utc_now() - timedelta(days=days)
            session.add(KeptPart(name=f"boards/{letter * 64}", program="old", made_at=made, packed=b""))
    lend(lender, tmp_path / "a", [ONE, OTHER])
    lend(lender, tmp_path / "a", [ONE, OTHER])
    with lender.reading() as session:
        rows = {row.name: row.packed for row in session.scalars(select(KeptPart))}
    others = {"boards/" + "d" * 64: b""}
    assert rows == {ONE: zlib.compress(b"one", 1), OTHER: zlib.compress(b"other", 1)} | others
    lend(lender, tmp_path / "a", [])
    assert lent_names(lender) == {ONE}, "boards stay"
    monkeypatch.setattr(lent, "MOST_BOARDS", 1)
    lend(lender, tmp_path / "a", [OTHER])
    assert lent_names(lender) == {OTHER}


def test_other_programs_and_other_names_are_not_borrowed(
    lender: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours, packed = program_hash().hex(), zlib.compress(b"content")
    with lender.session() as session:
        session.add(KeptPart(name=ONE, program="f" * 64, packed=packed))
        session.add(KeptPart(name=OTHER, program=ours, packed=b"no zlib"))
        for name in ("../escaped", "/tmp/escaped", "boards/" + "A" * 64, "curves/" + "a" * 64):
            session.add(KeptPart(name=name, program=ours, packed=packed))
    with caplog.at_level(logging.WARNING):
        borrow(lender, tmp_path / "home" / "kept")
    assert files_in(tmp_path / "home") == []
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"the store lends a damaged part of a report, {OTHER} (")


def test_a_folder_that_cannot_be_written_is_done_without(
    lender: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep(tmp_path / "a", ONE, b"one")
    lend(lender, tmp_path / "a", [ONE])
    (tmp_path / "b").write_text("a file")
    with caplog.at_level(logging.WARNING):
        borrow(lender, tmp_path / "b")
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("what the store lends is made again: ")


def test_somebody_else_makes_only_what_changed(store: Store, tmp_path: Path, made: list[str]) -> None:
    ready.make_ready(store, kept=tmp_path / "mine", look=None)
    right = texts(store, None, tmp_path, **ALL)
    made.clear()
    borrow(store, tmp_path / "theirs")
    assert texts(store, tmp_path / "theirs", tmp_path, **ALL) == right
    texts(store, tmp_path / "theirs", tmp_path)
    texts(store, tmp_path / "theirs", tmp_path, **ALL, rule="full")
    assert made == []

    def recounted(session: Any) -> None:
        sole(session, Count, Count.corpus == "dcsm", Count.rule == "trim30").n_w_n1 += 1

    in_store(recounted)(store, tmp_path)
    borrow(store, tmp_path / "third")
    again = texts(store, tmp_path / "third", tmp_path, **ALL)
    assert made == ["dcsm"]
    assert again == texts(store, None, tmp_path, **ALL) != right


def test_who_shares_a_store_under_another_name_finds_the_same(store: Store, tmp_path: Path) -> None:
    assert Store(url="postgresql+psycopg://me:secret@host/db", engine=store.engine).address == (
        Store(url="postgresql+psycopg://you@host/db", engine=store.engine).address
    )
    assert store.address == store.url


def test_validation_says_what_the_store_should_not_lend(store: Store, tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    ready.make_ready(store, kept=mine, look=None)
    how: dict[str, Any] = {"submissions": ["first"], "everything": True}
    (path,) = [path for path in files_in(mine / "boards") if b"dcsm" in path.read_bytes()][:1]
    rewritten(path, lambda board: board.update(compared_people=99))
    name = f"boards/{path.stem}"
    lend(store, mine, [])
    lend(store, mine, [name])
    borrow(store, theirs)
    there, lines = kept_checks.check_kept(store, theirs, **how)
    assert there > 2
    (line,) = lines
    assert line.startswith(f"{theirs / name}.msgpack: is not the board ")
    assert line.endswith(f"; delete it and what the store lends: DELETE FROM kept_parts WHERE name = '{name}'")
