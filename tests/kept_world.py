"""A store with reports, and what they keep."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from report_results import add_cell, add_submission, new_store, plausible_results
from sqlalchemy import select

from tusp.dashboards import board_making
from tusp.dashboards.extras import read_extras
from tusp.dashboards.kept import checksum
from tusp.dashboards.leaderboard import Board
from tusp.dashboards.render import FORMATS, render_report
from tusp.dashboards.report import build_report
from tusp.platform.scoring.rules import RULES
from tusp.platform.store.entries import EntryNight, NewEntry, add_entries
from tusp.platform.store.models import Cell, Curve
from tusp.platform.store.session import Store

CORPORA = ("dcsm", "sedf-sc", "sedf-st")
WHOLE = ("reports", "extras")
"""What is kept of whole reports; boards and curves are parts of them."""


@pytest.fixture(name="store")
def store_fixture(tmp_path: Path) -> Store:
    """Three corpora; human scorers and an imported submission on one; curves; a hole."""
    store = new_store(tmp_path)
    with store.session() as session:
        add_submission(
            session, "first", corpora=CORPORA, refused=[{"corpus": "dcsm", "recording": "x", "reason": "no EOG"}]
        )
        for place, corpus in enumerate(CORPORA):
            plausible_results(session, "first", corpus=corpus, people=9 + place, folds=3)
        add_cell(session, "first", None, corpus="dcsm", fold=0, folds=3, seed=1, state="failed", error="out of memory")
        for cell in session.scalars(select(Cell).where(Cell.state == "done")):
            for number, score in enumerate((0.5, None, 0.7), start=1):
                session.add(
                    Curve(
                        cell_id=cell.id, pass_number=number, train_loss=1.0, learning_rate=0.1,
                        validation_macro_f1=score, seconds=1.0,
                    )
                )  # fmt: skip
    for kind, name in (("human", "scorer_1"), ("human", "scorer_2"), ("imported", "elsewhere")):
        entry(store, tmp_path, kind, name)
    return store


def entry(store: Store, home: Path, kind: str, name: str, *, moved: int = 1) -> None:
    true = np.repeat(np.arange(5, dtype=np.int8), 10)
    nights = [
        EntryNight(recording=f"C4{n}", subject=f"P{n}", true=true, predicted=np.roll(true, moved)) for n in range(4)
    ]
    new = NewEntry(
        corpus="sedf-sc", truth_hash="t" * 64, truth_kind="hypnograms", kind=kind, name=name, simulated=False,
        provenance={"pairwise_kappa": {rule: {} for rule in RULES}}, protocols={}, nights=nights,
    )  # fmt: skip
    add_entries(store, home, [new], replace=True)


def texts(store: Store, folder: Path | None, home: Path, **how: Any) -> dict[str, str]:
    """The report in every format."""
    report = build_report(store, home=home, kept=folder, **how)
    extras = read_extras(store, report, kept=folder)
    return {name: render_report(report, name, extras=extras) for name in FORMATS}


@pytest.fixture(name="made")
def made_fixture(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Corpora of the boards that are made, in this order."""
    corpora: list[str] = []
    make = board_making.make_board

    def counted(store: Store, key: Any, *rest: Any, **how: Any) -> Board:
        corpora.append(key.judged_on)
        return make(store, key, *rest, **how)

    monkeypatch.setattr(board_making, "make_board", counted)
    return corpora


def in_store(change: Callable[[Any], object]) -> Callable[[Store, Path], None]:
    def changed(store: Store, home: Path) -> None:
        with store.session() as session:
            change(session)

    return changed


def sole(session: Any, kind: Any, *where: Any) -> Any:
    return session.scalars(select(kind).where(*where).limit(1)).one()


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def without_whole_reports(folder: Path) -> Path:
    """Only the parts of reports are left."""
    for name in WHOLE:
        shutil.rmtree(folder / name, ignore_errors=True)
    return folder


def boards_in(folder: Path) -> list[Path]:
    return sorted((folder / "boards").glob("*.msgpack"))


def rewritten(path: Path, change: Callable[[Any], None]) -> None:
    """A kept file that says something else and has the checksum of it."""
    content = msgspec.msgpack.decode(path.read_bytes()[32:])
    change(content)
    raw = msgspec.msgpack.encode(content)
    path.write_bytes(checksum(raw) + raw)
