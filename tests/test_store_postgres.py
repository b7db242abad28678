"""The promises of test_record and test_store, kept on PostgreSQL (see tests/postgres.sh)."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text
from sqlalchemy.exc import InternalError
from test_change_mark import (  # noqa: F401
    marked,
    test_a_new_connection_has_another_mark,
    test_every_write_changes_the_mark,
    test_reading_leaves_the_mark,
    test_what_another_transaction_writes_shows_when_it_is_committed,
)
from test_lent import (  # noqa: F401
    lender,
    test_other_programs_and_other_names_are_not_borrowed,
    test_the_next_to_lend_takes_the_place_of_the_last,
    test_what_one_home_lends_another_borrows,
)
from test_record import (  # noqa: F401  (run here again, with the store_url below)
    store,
    test_a_cell_goes_from_planned_to_done_with_everything_it_left,
    test_a_cell_whose_files_are_gone_is_done_anew,
    test_a_claim_from_elsewhere_lives_by_its_heartbeat,
    test_a_done_cell_is_neither_claimed_nor_recorded_again,
    test_a_failed_cell_keeps_its_reason_and_may_be_tried_again,
    test_a_later_submission_marks_what_it_reused,
    test_a_recycled_process_number_does_not_keep_a_claim,
    test_eight_processes_obtain_fifty_cells_exactly_once,
    test_failure_in_the_middle_of_recording_leaves_nothing,
    test_kill_9_of_the_holder_frees_its_cell_at_once,
    test_submissions_are_found_by_the_start_of_their_id,
    test_submissions_of_dead_drivers_are_interrupted,
    test_submits_at_the_same_moment_share_their_cells,
    test_verification_names_every_hole,
    test_what_has_no_place_in_the_store_is_refused,
    test_whoever_lost_a_cell_records_nothing,
)
from test_store import (  # noqa: F401
    test_a_writer_neither_blocks_readers_nor_is_seen_early,
    test_an_error_rolls_everything_back,
    test_moments_keep_their_zone_and_null_is_null,
)

from tusp.platform.errors import StoreError
from tusp.platform.store.models import Base, Submission
from tusp.platform.store.session import HEAD_REVISION, VERSION_TABLE, open_store, upgrade_store

pytestmark = pytest.mark.postgres


@pytest.fixture
def empty_url() -> Iterator[str]:
    """URL of a fresh schema that is dropped afterwards."""
    server = os.environ.get("TUSP_TEST_POSTGRES")
    if not server:
        pytest.skip("no PostgreSQL (set TUSP_TEST_POSTGRES, see tests/postgres.sh)")
    schema = f"tusp_{uuid.uuid4().hex[:12]}"
    engine = create_engine(server)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    yield f"{server}?options=-csearch_path%3D{schema}"
    with engine.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()


@pytest.fixture
def url(empty_url: str) -> str:
    upgrade_store(empty_url)
    return empty_url


@pytest.fixture
def store_url(url: str) -> str:
    return url


def test_an_empty_database_is_refused_with_the_command_to_run(empty_url: str) -> None:
    with pytest.raises(StoreError, match="has no tables of tusp yet; bring it up to date with 'tusp db upgrade'"):
        open_store(empty_url)
    assert upgrade_store(empty_url) == (None, HEAD_REVISION)
    assert upgrade_store(empty_url) == (HEAD_REVISION, HEAD_REVISION)
    opened = open_store(empty_url)
    with opened.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, Base.metadata) == []


def test_a_newer_database_is_refused(url: str) -> None:
    with open_store(url).session() as session:
        session.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    for how in (open_store, upgrade_store):
        with pytest.raises(StoreError, match="written by a newer tusp") as error:
            how(url)
        assert "tusp_test:***@" in str(error.value) or "@" not in str(error.value)


def test_a_reading_transaction_cannot_write(url: str) -> None:
    opened = open_store(url)
    with pytest.raises(InternalError, match="read-only transaction"), opened.reading() as session:
        session.add(Submission(id="x", request={}, environment={}, simulated=True, refused=[], process={}))
    with opened.session() as session:
        assert session.get(Submission, "x") is None


def test_a_wrong_password_is_one_line(url: str) -> None:
    server = os.environ["TUSP_TEST_POSTGRES"].replace("tusp_test:tusp_test@", "tusp_test:wrong@")
    with pytest.raises(StoreError, match="PostgreSQL cannot be used") as error:
        open_store(server)
    assert "\n" not in str(error.value) and "wrong@" not in str(error.value)
