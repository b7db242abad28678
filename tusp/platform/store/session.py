"""Opening the store, and its transactions.

SQLite is created and brought up to date on the way, under a file lock. PostgreSQL is shared by people,
so an empty or older one is refused with the command that brings it up to date (``tusp db upgrade``).
An up-to-date store opens without importing Alembic.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from sqlite3 import Connection as SQLiteConnection
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.orm import Session

from tusp.platform.errors import StoreError
from tusp.platform.files import file_lock

if TYPE_CHECKING:
    from alembic.config import Config

HEAD_REVISION: Final = "0005"
"""Revision of the tables this program works with: the newest in migrations/versions (a test compares)."""

VERSION_TABLE: Final = "tusp_alembic_version"
LOCK_WAIT_S: Final = 30.0
"""How long a transaction waits for another process before it gives up, in seconds."""

_EXAMPLE_URLS: Final = "sqlite:////path/to/tusp.db or postgresql+psycopg://user@host/database"
_UPGRADE_LOCK: Final = 7_587_001
"""Key of the advisory lock that serialises upgrades on PostgreSQL."""


@dataclass(frozen=True)
class Store:
    """An open store."""

    url: str
    engine: Engine

    @property
    def name(self) -> str:
        """The store as a message names it: the file, or the URL without its password."""
        return _name(make_url(self.url))

    @property
    def address(self) -> str:
        """Where the store is, the same for everybody who shares it: the URL without user and password."""
        url = make_url(self.url)
        return URL.create(
            url.drivername, host=url.host, port=url.port, database=url.database, query=url.query
        ).render_as_string()  # fmt: skip

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One writing transaction: committed on success, rolled back on an error.

        On SQLite it holds the write lock from its first statement on, so it never fails half-way for it.

        Raises:
            StoreError: the store is locked for longer than 30 s, full, read-only or out of reach.
        """
        writer = self.engine.execution_options(tusp_mode="write")
        with (
            _errors_named(make_url(self.url)),
            Session(writer, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One reading transaction over one state of the store; it waits for no writer and blocks none.

        Raises:
            StoreError: the store is out of reach.
        """
        if self.engine.dialect.name == "sqlite":
            reader = self.engine.execution_options(tusp_mode="read")
        else:
            reader = self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with (
            _errors_named(make_url(self.url)),
            Session(reader, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def close(self) -> None:
        """Close the connections that wait in the pool."""
        self.engine.dispose()


def open_store(url: str, *, upgrade: bool = True, lock_wait_s: float = LOCK_WAIT_S) -> Store:
    """Open the store at ``url``.

    Args:
        url: SQLAlchemy URL, ``sqlite:////path`` or ``postgresql+psycopg://user@host/database``.
        upgrade: create an SQLite store that is not there and bring an older one up to date. (PostgreSQL is
            only ever changed by :func:`upgrade_store`.)
        lock_wait_s: how long a transaction waits for another process, in seconds.

    Raises:
        StoreError: wrong URL, missing driver, not a database, no permission, locked, older or newer tables.
    """
    parsed = _parse(url)
    database = _sqlite_file(parsed)
    if database is not None and not database.exists():
        if not upgrade:
            raise StoreError(f"{database}: no store there; create it with 'tusp db upgrade'")
        upgrade_store(url)
    engine = _engine(parsed, lock_wait_s=lock_wait_s)
    try:
        with _errors_named(parsed):
            with engine.connect() as connection:
                revision = _revision(connection)
            if revision != HEAD_REVISION:
                if database is None or not upgrade:
                    _refuse_newer(parsed, revision)
                    state = "has no tables of tusp yet" if revision is None else f"is older (revision {revision})"
                    raise StoreError(f"{_name(parsed)}: {state}; bring it up to date with 'tusp db upgrade'")
                engine.dispose()
                upgrade_store(url)
    except BaseException:
        engine.dispose()
        raise
    return Store(url=url, engine=engine)


def upgrade_store(url: str) -> tuple[str | None, str]:
    """Create the tables, or bring them up to date, in one transaction; returns the revision before and after.

    Raises:
        StoreError: as for :func:`open_store`; the store is then as it was before.
    """
    parsed = _parse(url)
    database = _sqlite_file(parsed)
    if database is None:
        return _upgrade(parsed)
    if database.is_dir():
        raise StoreError(f"{database}: is a folder; the store is a file, such as {database / 'tusp.db'}")
    try:
        with file_lock(database.with_name(database.name + ".lock")):
            return _upgrade(parsed)
    except OSError as error:
        raise StoreError(f"{database}: cannot be created ({error.strerror}: {error.filename})") from error


def store_revision(store: Store) -> str | None:
    """Revision of the tables in ``store``, or None where there are none."""
    with _errors_named(make_url(store.url)), store.engine.connect() as connection:
        return _revision(connection)


def alembic_config() -> Config:
    """Alembic's configuration for the migrations that come with tusp; no ini file is needed."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "tusp.platform.store:migrations")
    return config


def _upgrade(url: URL) -> tuple[str | None, str]:
    from alembic import command

    engine = _engine(url, lock_wait_s=LOCK_WAIT_S, migrating=True)
    try:
        with _errors_named(url), engine.execution_options(tusp_mode="write").begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
            before = _revision(connection)
            _refuse_newer(url, before)
            if before is None and inspect(connection).has_table("submission_cells"):
                raise StoreError(f"{_name(url)}: has tables of tusp but no revision; name another store with --db")
            if before != HEAD_REVISION:
                config = alembic_config()
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
                _check_foreign_keys(url, connection)
            return before, HEAD_REVISION
    finally:
        engine.dispose()


def _check_foreign_keys(url: URL, connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise StoreError(f"{_name(url)}: {len(broken)} rows of {broken[0][0]} refer to nothing; left as it was")


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StoreError(f"{url!r} is not the URL of a store; it looks like {_EXAMPLE_URLS}") from None
    if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
        raise StoreError(f"a store lives in SQLite or PostgreSQL, not in {parsed.drivername}: {_EXAMPLE_URLS}")
    if parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise StoreError(f"{url!r} names no file; a store outlives its process: {_EXAMPLE_URLS}")
    return parsed


def _sqlite_file(url: URL) -> Path | None:
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def _name(url: URL) -> str:
    database = _sqlite_file(url)
    return url.render_as_string(hide_password=True) if database is None else str(database)


def _engine(url: URL, *, lock_wait_s: float, migrating: bool = False) -> Engine:
    serializer = partial(json.dumps, allow_nan=False, ensure_ascii=False)
    sqlite = url.get_backend_name() == "sqlite"
    arguments: dict[str, Any] = {"connect_args": {"timeout": lock_wait_s}} if sqlite else {"pool_pre_ping": True}
    try:
        engine = create_engine(url, json_serializer=serializer, json_deserializer=msgspec.json.decode, **arguments)
    except ModuleNotFoundError as error:
        raise StoreError(f"{_name(url)}: needs {error.name}, install it with: pip install 'tusp[postgres]'") from error
    except ArgumentError as error:
        raise StoreError(f"{_name(url)}: {error}; a store's URL looks like {_EXAMPLE_URLS}") from error
    if sqlite:
        event.listen(engine, "connect", partial(_prepare_sqlite, migrating=migrating))
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: SQLiteConnection, _record: object, *, migrating: bool) -> None:
    connection.isolation_level = None  # BEGIN is ours (see _begin_sqlite), as SQLAlchemy's documentation advises
    if migrating:
        # A table altered in batch mode is dropped and made anew: foreign keys would empty its children.
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("PRAGMA journal_mode = WAL")
    else:
        connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    mode = connection.get_execution_options().get("tusp_mode")
    connection.exec_driver_sql(f"PRAGMA query_only = {'ON' if mode == 'read' else 'OFF'}")
    # A reader that turns writer cannot wait for another (SQLite refuses at once), so writers start as such.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if mode == "write" else "BEGIN")


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    revision: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
    return revision


def _refuse_newer(url: URL, revision: str | None) -> None:
    if revision in {None, HEAD_REVISION}:
        return
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()}
    if revision not in known:
        raise StoreError(
            f"{_name(url)}: was written by a newer tusp (revision {revision}, here {HEAD_REVISION}); "
            "update tusp, or name another store with --db"
        )


_SQLITE_MESSAGES: Final = {
    "database is locked": "locked by another process for too long; wait until it is done and run again",
    "file is not a database": "not an SQLite database; move that file away, or name another store with --db",
    "malformed": "damaged; restore a copy of it, or move it away to start a new one",
    "readonly database": "no permission to write; allow this user to, or name another store with --db",
    "unable to open": "cannot be opened; allow this user to read and write it and its folder",
    "disk is full": "no space left on its disk; free some and run again",
    "disk I/O error": "its disk cannot be read or written (or is full)",
}


@contextmanager
def _errors_named(url: URL) -> Iterator[None]:
    """Turn what the database says of its state into one line; errors in our statements stay tracebacks."""
    try:
        yield
    except DBAPIError as error:
        said = str(error.orig)
        if url.get_backend_name() == "sqlite":
            for symptom, message in _SQLITE_MESSAGES.items():
                if symptom in said:
                    raise StoreError(f"{_name(url)}: {message}") from error
        elif type(error.orig).__name__ in {"OperationalError", "InsufficientPrivilege"} or error.connection_invalidated:
            line = " ".join(said.split())
            raise StoreError(f"{_name(url)}: PostgreSQL cannot be used ({line})") from error
        raise
