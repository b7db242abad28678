"""Parts of reports that the store lends, so that who shares it makes only what changed since somebody's report.

Nothing heavy is imported: a text that was lent is told at once.
"""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import delete, select

from tusp.dashboards.kept import FORGOTTEN_AFTER, program_hash
from tusp.platform.files import atomic_path
from tusp.platform.store.models import KeptPart, utc_now
from tusp.platform.store.session import Store

_NAME: Final = re.compile("(?:boards|extras|reports|texts)/[0-9a-f]{64}")
_BOARDS: Final = "boards/"
MOST_BOARDS: Final = 1000
"""Parts beyond which no more boards of earlier reports are lent."""

_FAST: Final = 1
"""Level of zlib: a third of the size, in hundredths of a second."""

log = logging.getLogger(__name__)


def lend(store: Store, kept: Path, names: Iterable[str]) -> None:
    """Put parts that are kept here into the store, in place of the whole reports that this program put there before;
    of boards, which are parts of the reports of several submissions, the latest stay too.

    Args:
        store: written in one transaction.
        kept: folder of what is kept.
        names: of the parts, folder and file; one that is not there is left out.

    Raises:
        StoreError: the store cannot be written.
    """
    from tusp.platform.store.packed import insert_of

    program, now = program_hash().hex(), utc_now()
    files = {name: _file(kept, name) for name in sorted(set(names))}
    parts = {name: zlib.compress(path.read_bytes(), _FAST) for name, path in files.items() if path.is_file()}
    with store.session() as session:
        ours = KeptPart.program == program
        latest = select(KeptPart.name, KeptPart.packed).where(ours).order_by(KeptPart.made_at.desc(), KeptPart.name)
        there = {row.name: row.packed for row in session.execute(latest)}
        other = [name for name in there if name not in parts and name.startswith(_BOARDS)]
        stay = set(other[: max(0, MOST_BOARDS - len(parts))])
        wrong = [name for name, raw in there.items() if name not in stay and parts.get(name) != raw]
        outlived = (KeptPart.program != program) & (KeptPart.made_at < now - timedelta(seconds=FORGOTTEN_AFTER))
        session.execute(delete(KeptPart).where(KeptPart.name.in_(wrong) | outlived))
        rows = [
            {"name": name, "program": program, "made_at": now, "packed": raw}
            for name, raw in parts.items()
            if there.get(name) != raw
        ]
        if rows:
            session.execute(insert_of(session)(KeptPart).on_conflict_do_nothing(index_elements=["name"]), rows)


def borrow(store: Store, kept: Path, report: str | None = None) -> None:
    """Put what the store lends to this program where reports look for it; what is there already stays.

    Args:
        store: only read.
        kept: folder of what is kept. If it cannot be written, reports are made without.
        report: hash of the report that is asked for: of others only their boards are of use, and of its own boards
            nothing where it is there as a whole. None for everything.
    """
    program = program_hash().hex()
    with store.reading() as session:
        lent = session.scalars(select(KeptPart.name).where(KeptPart.program == program)).all()
        if report is not None:
            whole = f"reports/{report}" in lent or _file(kept, f"reports/{report}").exists()
            lent = [name for name in lent if _of_use(name, report, whole=whole)]
        lacking = [name for name in lent if _NAME.fullmatch(name) and not _file(kept, name).exists()]
        if not lacking:
            return
        rows = session.execute(select(KeptPart.name, KeptPart.packed).where(KeptPart.name.in_(lacking))).all()
    for name, packed in rows:
        try:
            raw = zlib.decompress(packed)
            with atomic_path(_file(kept, name), durable=False) as temporary:
                temporary.write_bytes(raw)
        except zlib.error as error:
            log.warning("the store lends a damaged part of a report, %s (%s); it is made again", name, error)
        except OSError as error:
            log.warning("what the store lends is made again: %s", error)
            return


def _of_use(name: str, report: str, *, whole: bool) -> bool:
    folder, _, part = name.partition("/")
    return folder == "texts" or part == report if whole else name.startswith(_BOARDS)


def lent_names(store: Store) -> frozenset[str]:
    """Names of what the store lends to this program."""
    with store.reading() as session:
        program = program_hash().hex()
        return frozenset(session.scalars(select(KeptPart.name).where(KeptPart.program == program)))


def _file(kept: Path, name: str) -> Path:
    return kept / f"{name}.msgpack"
