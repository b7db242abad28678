"""What reports read beside plans and counts: the same figures, kept with the cell, checked, made for old stores."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from alembic import command
from hypothesis import given, settings
from hypothesis import strategies as st
from report_results import add_submission, new_store, plausible_results
from sqlalchemy import create_engine, delete, select, text, update
from store_helpers import planned_cell, run_cell, submit
from test_store_postgres import empty_url, url  # noqa: F401  (fixtures)

from tusp.dashboards.render import render_report
from tusp.dashboards.report import build_report
from tusp.platform.errors import StoreError
from tusp.platform.scoring.rules import RULES
from tusp.platform.store.check import check_store
from tusp.platform.store.models import Cell, Count, NightSet, PackedCount
from tusp.platform.store.packed import (
    Nights,
    collected,
    count_rows,
    judged_parts,
    keep_packed,
    packed,
    read_counted,
    settings_hash,
    unpacked,
)
from tusp.platform.store.record import reset_cell
from tusp.platform.store.session import HEAD_REVISION, Store, alembic_config, open_store, upgrade_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path)


@given(st.integers(0, 5), st.integers(1, 2**32), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_counts_come_back_as_they_were(nights: int, largest: int, seed: int) -> None:
    counts = np.random.default_rng(seed).integers(0, largest, size=(nights, 5, 5))
    raw = packed(counts)
    np.testing.assert_array_equal(unpacked(raw, nights), counts)
    assert len(raw) == nights * 25 * (2 if counts.max(initial=0) < 2**16 else 4)


def test_what_is_no_count_is_not_packed_and_a_torn_array_not_read() -> None:
    for wrong in (-1, 2**32):
        with pytest.raises(ValueError, match=r"whole numbers below 2\^32"):
            packed(np.full((1, 5, 5), wrong))
    with pytest.raises(StoreError, match="have 49 bytes for 1 nights"):
        unpacked(bytes(49), 1)
    with pytest.raises(StoreError, match="for 3 nights"):
        unpacked(bytes(50), 3)


def test_settings_of_old_plans_mean_tinyustaging_with_eeg_and_eog() -> None:
    old = {"model": {"csja": True, "n_channels": 2}, "recipe": {"name": "quick"}}
    new = {**old, "model": {"family": "tinyustaging", **old["model"]}, "channels": ["EEG", "EOG"]}
    assert settings_hash(old) == settings_hash(new)
    assert settings_hash({**new, "channels": ["EEG", "EEG"]}) != settings_hash(new)
    assert settings_hash({**new, "recipe": {"name": "paper"}}) != settings_hash(new)
    assert settings_hash({**new, "model": {**new["model"], "family": "usleep"}}) != settings_hash(new)
    alone = {"model": {"n_channels": 1}, "recipe": {}}
    assert settings_hash(alone) == settings_hash({**alone, "channels": ["EEG"]})


def test_what_a_plan_is_judged_on() -> None:
    plan = {"corpora": [{"name": "a", "train": {"x": 1, "y": 2}, "test": {"z": 3}}, {"name": "b", "test": {}}]}
    assert judged_parts(plan, "a")["a"] == judged_parts(plan, "a")["a"] | {"tested": 1, "trained": 2}
    assert list(judged_parts(plan, "a")) == ["a"]
    assert list(judged_parts({}, "a+b")) == ["a", "b"]
    assert list(judged_parts({"judged_on": ["b"], **plan}, "a")) == ["b"]


def test_a_done_cell_has_its_counts_packed_and_an_undone_one_has_not(store: Store, tmp_path: Path) -> None:
    cells = [planned_cell(fold) for fold in range(2)]
    submit(store, cells)
    for cell in cells:
        run_cell(store, tmp_path, cell)
    with store.reading() as session:
        assert len(session.scalars(select(NightSet)).all()) == 1, "both judged the same nights"
        rows = collected(tuple(row) for row in session.execute(count_rows([cell.id for cell in cells])))
        for rule in ("full", "trim30"):
            read = read_counted(session, [cell.id for cell in cells], rule=rule)
            assert set(read) == {(cell.id, "sim") for cell in cells}
            for (cell_id, corpus), counted in read.items():
                single = rows[cell_id, corpus, rule, "vote"]
                assert counted.nights == single.nights
                assert counted.nights.subjects == ("person of night1", "person of night2")
                np.testing.assert_array_equal(counted.counts, single.counts)
    assert not check_store(store).problems
    assert reset_cell(store, cells[0].id, "its files are gone")
    with store.reading() as session:
        assert set(session.scalars(select(PackedCount.cell_id))) == {cells[1].id}


def test_packed_counts_that_are_not_the_counts_are_found(store: Store, tmp_path: Path) -> None:
    cells = [planned_cell(fold) for fold in range(4)]
    submit(store, cells)
    for cell in cells:
        run_cell(store, tmp_path, cell)
    with store.session() as session:
        first, second, third, fourth = (cell.id for cell in cells)
        session.execute(update(Count).where(Count.cell_id == first, Count.rule == "full").values(n_w_w=39))
        session.execute(delete(PackedCount).where(PackedCount.cell_id == second, PackedCount.rule == "trim30"))
        session.execute(update(Cell).where(Cell.id == third).values(settings="0" * 64))
        session.execute(update(PackedCount).where(PackedCount.cell_id == fourth).values(sha256="0" * 64))
    assert set(check_store(store).problems) == {
        f"cell {first[:12]}: its packed counts of sim under rule full are not its counts",
        f"cell {second[:12]}: its counts of sim under rule trim30 are not packed",
        f"cell {third[:12]}: what stands beside its plan does not follow from it",
        *(f"cell {fourth[:12]}: its packed counts of sim under rule {rule} are not its counts" for rule in RULES),
    }


def pack_everything(store: Store) -> None:
    with store.session() as session:
        rows = [tuple(row) for row in session.execute(count_rows(select(Cell.id)))]
        keep_packed(session, collected(rows))


def test_a_report_from_packed_counts_is_the_report_from_their_rows(store: Store) -> None:
    with store.session() as session:
        add_submission(session, "first", arms=["full", "no-csja", "plain"])
        plausible_results(session, "first", arms=["full", "no-csja", "plain"], people=12, seeds=(0, 1))
    single = render_report(build_report(store, bootstrap=200), "json")
    pack_everything(store)
    with store.session() as session:
        session.execute(delete(Count))
    assert render_report(build_report(store, bootstrap=200), "json") == single


def older(address: str) -> None:
    """Take a store back to what it was before revision 0003."""
    engine = create_engine(address)
    with engine.begin() as connection:
        for statement in (
            "DROP TABLE kept_parts", "DROP TABLE packed_counts", "DROP TABLE night_sets",
            "ALTER TABLE cells DROP COLUMN settings",
            "ALTER TABLE cells DROP COLUMN judged", "UPDATE tusp_alembic_version SET version_num = '0002'",
        ):  # fmt: skip
            connection.execute(text(statement))
    engine.dispose()


def upgraded(address: str, home: Path) -> None:
    upgrade_store(address)
    store = open_store(address)
    cells = [planned_cell(fold) for fold in range(3)]
    submit(store, cells)
    for cell in cells[:2]:
        run_cell(store, home, cell)
    with store.reading() as session:
        before = [session.get(Cell, cell.id).settings for cell in cells]  # type: ignore[union-attr]
        arrays = set(session.execute(select(PackedCount.cell_id, PackedCount.rule, PackedCount.matrices)).all())
    store.close()
    older(address)
    assert upgrade_store(address) == ("0002", HEAD_REVISION)
    store = open_store(address)
    assert not check_store(store).problems
    with store.reading() as session:
        assert [session.get(Cell, cell.id).settings for cell in cells] == before  # type: ignore[union-attr]
        again = session.execute(select(PackedCount.cell_id, PackedCount.rule, PackedCount.matrices)).all()
        assert set(again) == arrays
        assert len(arrays) == 4
    store.close()


def test_an_older_store_gets_everything_from_its_plans_and_counts(tmp_path: Path) -> None:
    upgraded(f"sqlite:///{tmp_path / 'tusp.db'}", tmp_path)


@pytest.mark.postgres
def test_an_older_postgres_store_does_too(empty_url: str, tmp_path: Path) -> None:  # noqa: F811  (fixture)
    upgraded(empty_url, tmp_path)


def test_the_tables_of_the_migrations_are_those_of_the_models(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'tusp.db'}")
    with engine.begin() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()
    assert not check_store(open_store(f"sqlite:///{tmp_path / 'tusp.db'}")).problems


def hashed(address: str, home: Path) -> None:
    """A store of revision 0003, which had no hashes of packed arrays, gets them."""
    upgrade_store(address)
    store = open_store(address)
    cells = [planned_cell(fold) for fold in range(2)]
    submit(store, cells)
    for cell in cells:
        run_cell(store, home, cell)
    with store.reading() as session:
        before = set(session.execute(select(PackedCount.cell_id, PackedCount.rule, PackedCount.sha256)).all())
    store.close()
    engine = create_engine(address)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE kept_parts"))
        connection.execute(text("ALTER TABLE packed_counts DROP COLUMN sha256"))
        connection.execute(text("UPDATE tusp_alembic_version SET version_num = '0003'"))
    engine.dispose()
    assert upgrade_store(address) == ("0003", HEAD_REVISION)
    store = open_store(address)
    assert not check_store(store).problems
    with store.reading() as session:
        rows = session.execute(
            select(PackedCount.cell_id, PackedCount.rule, PackedCount.sha256, PackedCount.matrices)
        ).all()
    assert {row[:3] for row in rows} == before
    assert len(rows) == 4
    assert all(row.sha256 == hashlib.sha256(row.matrices).hexdigest() for row in rows)
    store.close()


def test_packed_arrays_of_before_get_their_hashes(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'tusp.db'}"
    hashed(address, tmp_path)
    engine = create_engine(address)
    with engine.connect() as connection:
        names = [row[1] for row in connection.execute(text("PRAGMA table_info(packed_counts)"))]
    engine.dispose()
    assert names[-2:] == ["sha256", "matrices"], "SQLite would read the array to come to its hash"


@pytest.mark.postgres
def test_packed_arrays_of_before_get_their_hashes_on_postgres(empty_url: str, tmp_path: Path) -> None:  # noqa: F811
    hashed(empty_url, tmp_path)


def test_sets_of_nights_are_known_by_recordings_and_people() -> None:
    one, other = Nights.of({"b": "P1", "a": "P2"}), Nights.of({"a": "P2", "b": "P1"})
    assert one == other
    assert (one.recordings, one.subjects) == (("a", "b"), ("P2", "P1"))
    assert Nights.of({"a": "P1", "b": "P1"}) != one
