"""Marks that tell that nothing was written to a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text, update

from tusp.platform.store.change_mark import change_mark
from tusp.platform.store.models import Submission
from tusp.platform.store.session import Store, open_store, upgrade_store


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'tusp.db'}"


@pytest.fixture
def marked(store_url: str) -> Store:
    upgrade_store(store_url)
    store = open_store(store_url)
    add(store, "a")
    return store


def add(store: Store, name: str) -> None:
    with store.session() as session:
        session.add(Submission(id=name, request={}, environment={}, simulated=True, refused=[], process={}))


def rename(store: Store) -> None:
    with store.session() as session:
        session.execute(update(Submission).values(state="failed"))


def read(store: Store) -> None:
    with store.reading() as session:
        assert session.scalar(text("SELECT count(*) FROM submissions")) == 1


def test_reading_leaves_the_mark(marked: Store) -> None:
    before = change_mark(marked)
    read(marked)
    read(open_store(marked.url))
    assert change_mark(marked) == before


@pytest.mark.parametrize("write", [lambda store: add(store, "b"), rename])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_every_write_changes_the_mark(marked: Store, write: Callable[[Store], None], elsewhere: bool) -> None:
    before = change_mark(marked)
    write(open_store(marked.url) if elsewhere else marked)
    assert change_mark(marked) != before


def test_what_another_transaction_writes_shows_when_it_is_committed(marked: Store) -> None:
    with open_store(marked.url).session() as session:
        session.execute(update(Submission).values(state="failed"))
        session.flush()
        before = change_mark(marked)
        assert change_mark(marked) == before
    assert change_mark(marked) != before


def test_a_new_connection_has_another_mark(marked: Store) -> None:
    before = change_mark(marked)
    marked.close()
    if marked.engine.dialect.name == "sqlite":
        assert change_mark(marked) != before, "what was written before it was opened it does not tell"
    else:
        assert change_mark(marked) == before
