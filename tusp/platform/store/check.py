"""Is the store what it should be? Its tables, its file, and whether what it says about cells agrees with itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, text

from tusp.platform.identity import fingerprint
from tusp.platform.scoring.rules import RULES
from tusp.platform.store.models import Artefact, Attempt, Base, Cell
from tusp.platform.store.packed import OTHER_THAN_PLAN, VOTE, collected, count_rows, packed_problems, plan_columns
from tusp.platform.store.session import HEAD_REVISION, VERSION_TABLE, Store, store_revision
from tusp.platform.store.verification import judged_by_plan

_BATCH = 200


@dataclass(frozen=True, kw_only=True)
class StoreCheck:
    """What was found."""

    store: str
    revision: str | None
    newest_revision: str
    rows: dict[str, int]
    """Number of rows by table."""
    problems: tuple[str, ...]
    """One line each; none when all is well."""


def check_store(store: Store) -> StoreCheck:
    """Compare the tables with the models, let SQLite check its file, and check every done cell's rows.

    Raises:
        StoreError: the store is out of reach.
    """
    problems = [*_drift(store), *_damage(store)]
    with store.reading() as session:
        rows = {
            name: session.scalar(select(func.count()).select_from(table)) or 0
            for name, table in sorted(Base.metadata.tables.items())
        }
    problems += _cells(store)
    return StoreCheck(
        store=store.name,
        revision=store_revision(store),
        newest_revision=HEAD_REVISION,
        rows=rows,
        problems=tuple(problems),
    )


def _drift(store: Store) -> list[str]:
    """Differences between the tables that are there and those of the models."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    def ours(_object: Any, name: str | None, kind: str, reflected: bool, compared_to: Any) -> bool:
        return kind != "table" or not reflected or compared_to is not None  # other people's tables are theirs

    with store.engine.connect() as connection:
        options = {"version_table": VERSION_TABLE, "include_object": ours}
        context = MigrationContext.configure(connection, opts=options)
        return [
            f"tables differ from this tusp's: {_shown(found)}" for found in compare_metadata(context, Base.metadata)
        ]


def _shown(difference: Any) -> str:
    if isinstance(difference, list):
        return "; ".join(_shown(item) for item in difference)
    kind, *what = difference
    return " ".join([kind.replace("_", " "), *(str(getattr(item, "name", item)) for item in what if item is not None)])


def _damage(store: Store) -> list[str]:
    if store.engine.dialect.name != "sqlite":
        return []
    with store.reading() as session:
        said = [str(line) for line in session.scalars(text("PRAGMA integrity_check(10)"))]
        broken = session.execute(text("PRAGMA foreign_key_check")).fetchall()
    return [f"damaged: {line}" for line in said if line != "ok"] + [
        f"a row of {row[0]} refers to nothing" for row in broken
    ]


def _cells(store: Store) -> list[str]:
    """Problems of cells: identity, and for done ones attempts, counts under every rule, and predictions."""
    problems: list[str] = []
    with store.reading() as session:
        ids = list(session.scalars(select(Cell.id).order_by(Cell.id)))
        for start in range(0, len(ids), _BATCH):
            batch = ids[start : start + _BATCH]
            attempts: dict[str, list[str]] = {}
            for cell_id, state in session.execute(
                select(Attempt.cell_id, Attempt.state).where(Attempt.cell_id.in_(batch)).order_by(Attempt.number)
            ):
                attempts.setdefault(cell_id, []).append(state)
            counted = collected(tuple(row) for row in session.execute(count_rows(batch)))
            judged: dict[tuple[str, str], set[tuple[str, str]]] = {}
            for (cell_id, corpus, rule, channels), item in counted.items():
                if channels == VOTE:
                    judged.setdefault((cell_id, rule), set()).update((corpus, name) for name in item.nights.recordings)
            differing = packed_problems(session, batch, counted)
            predicted: dict[str, set[str]] = {}
            for cell_id, kept in session.execute(
                select(Artefact.cell_id, Artefact.recording).where(
                    Artefact.cell_id.in_(batch), Artefact.kind == "predictions"
                )
            ):
                predicted.setdefault(cell_id, set()).add(str(kept))
            for cell in session.scalars(select(Cell).where(Cell.id.in_(batch)).order_by(Cell.id)):
                name = f"cell {cell.id[:12]}"
                said = []
                if fingerprint(cell.plan) != cell.id:
                    said.append("its id is not the hash of its plan")
                open_attempts = attempts.get(cell.id, []).count("running")
                if open_attempts != (1 if cell.state == "running" else 0):
                    said.append(f"is {cell.state} with {open_attempts} open attempts")
                if (cell.state == "running") != (cell.claim_token is not None):
                    said.append(f"is {cell.state} {'without' if cell.claim_token is None else 'with'} a claim")
                if (cell.settings, cell.judged) != tuple(plan_columns(cell.plan, cell.corpus).values()):
                    said.append(OTHER_THAN_PLAN)
                said += differing.get(cell.id, [])
                if cell.state == "done":
                    if attempts.get(cell.id, []).count("done") != 1:
                        said.append("is done, but not by exactly one attempt")
                    expected = judged_by_plan(cell.plan)
                    said += [
                        f"counts under rule {rule} are of {len(judged.get((cell.id, rule), set()))} recordings, "
                        f"not of the {len(expected)} it was planned to be judged on"
                        for rule in RULES
                        if judged.get((cell.id, rule), set()) != expected
                    ]
                    if predicted.get(cell.id, set()) != {f"{corpus}/{recording}" for corpus, recording in expected}:
                        said.append("its predictions are not those of the recordings it was planned to be judged on")
                elif any((cell.id, rule) in judged for rule in RULES):
                    said.append(f"is {cell.state}, but has counts")
                problems += [f"{name}: {line}" for line in said]
            session.expunge_all()
    return problems
