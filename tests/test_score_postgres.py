"""Entries on PostgreSQL: the same rows, refusals and figures as on SQLite (see tests/postgres.sh)."""

from __future__ import annotations

from pathlib import Path

import pytest
from score_world import given_fixture, home_fixture, scored_fixture, truth_fixture  # noqa: F401  (fixtures)
from test_score import (  # noqa: F401  (run here again, with the store below)
    test_a_missing_recording_makes_it_partial,
    test_a_name_that_exists_is_refused_unless_it_is_to_be_replaced,
    test_nothing_is_left_when_the_store_refuses,
    test_of_one_name_on_two_truths_the_one_that_fits_the_board_is_shown,
    test_perfect_hypnograms_score_one_and_are_stored_with_where_they_come_from,
    test_real_and_simulated_never_meet,
)
from test_store_postgres import empty_url, url  # noqa: F401

from tusp.dashboards.entries import EntryRow, entry_rows
from tusp.dashboards.scoring_outside import score_outside
from tusp.platform.store.session import Store, open_store

pytestmark = pytest.mark.postgres


@pytest.fixture
def store(url: str) -> Store:  # noqa: F811
    return open_store(url)


def test_both_databases_give_the_same_rows(
    store: Store,
    home: Path,
    shared_data: Path,
    tmp_path: Path,
) -> None:
    def rows(of: Store) -> list[EntryRow]:
        score_outside(
            of,
            home,
            "dod-h",
            predictions=shared_data / "dod-h" / "models.json",
            name="net",
            truth=shared_data / "dod-h" / "scorers.json",
            model="SimpleNet",
            resamples=10,
        )
        return list(entry_rows(of, corpus="dod-h", simulated=False, resamples=200))

    here, there = rows(store), rows(open_store(f"sqlite:///{tmp_path / 'other' / 'tusp.db'}"))
    assert [row.name for row in here] == [row.name for row in there]
    for one, other in zip(here, there, strict=True):
        assert one.scores == other.scores
        assert one.scored == other.scored
        assert one.protocols == other.protocols
        assert one.entry_ids == other.entry_ids
