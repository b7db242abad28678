"""A mark that tells at once that nothing was written to a store since an earlier one."""

from __future__ import annotations

from typing import Any, TypeAlias

from sqlalchemy import text

from tusp.platform.store.session import Store

Mark: TypeAlias = tuple[Any, ...]
"""Marks are compared, and mean nothing else."""


def change_mark(store: Store) -> Mark:
    """A mark of the store as it is now.

    Of two equal marks that one process took, nothing was committed between them. The opposite does not hold: other
    databases of the same PostgreSQL server change it too, and so does a new connection to SQLite.
    """
    if store.engine.dialect.name == "sqlite":
        with store.reading() as session:
            connection = session.connection()
            # https://sqlite.org/pragma.html#pragma_data_version: of one connection, and of what others wrote.
            token = connection.info.setdefault("tusp_mark", object())
            version = connection.scalar(text("PRAGMA data_version"))
            return token, version, connection.connection.driver_connection.total_changes  # type: ignore[union-attr]
    with store.reading() as session:
        # Which transactions that write are under way, and how many there ever were; those that read have no number.
        return (session.scalar(text("SELECT CAST(pg_current_snapshot() AS text)")),)
