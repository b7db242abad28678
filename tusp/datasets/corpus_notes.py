"""What the stored audits say about whole corpora, for reports and for refusing a submission. Reads only the store."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from tusp.datasets.duplicates import Night, same_nights, shared_lines
from tusp.platform.stages import STAGE_NAMES
from tusp.platform.store import models

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tusp.platform.store.session import Store

MOST_KINDS: Final = 5


def stored_nights(session: Session, names: Sequence[str]) -> list[Night]:
    """Usable nights of these corpora, for comparing them with others."""
    from tusp.datasets.adapters import BUILT_IN  # only here: a report reads audits, no files

    row, corpus = models.Recording, models.Corpus
    found = session.execute(
        select(
            row.corpus_name,
            row.name,
            row.subject,
            corpus.adapter,
            corpus.simulated,
            row.sources,
            row.audit["content"],
            row.audit["stages"],
        )
        .join(corpus)
        .where(row.corpus_name.in_(names), row.usable)
        .order_by(row.corpus_name, row.name)
    )
    return [
        Night(
            corpus=corpus_name,
            name=name,
            subject=subject,
            adapter=adapter,
            real=not simulated,
            published=adapter in BUILT_IN,
            sources=sources,
            content=content or {},
            stages=stages,
        )
        for corpus_name, name, subject, adapter, simulated, sources, content, stages in found
    ]


def shared_nights(store: Store, names: Sequence[str]) -> list[str]:
    """What any two of these corpora have in common, as their audits are stored: same nights, or people.

    Returns:
        A line for each pair and kind, such as ``sedf-sc and mine share 2 nights: SC4001E0 = n1, SC4002E0 = n2``;
        empty when they may be trained on and judged together.
    """
    with store.reading() as session:
        nights = stored_nights(session, names)
    return shared_lines(same_nights(nights), nights)


def problem_kind(problem: str, channels: Iterable[str]) -> str:
    """A problem without what is particular to one recording: numbers are ``N``, its channel is left out."""
    for channel in channels:
        for lead in (f"{channel}: ", f"{channel} "):
            if problem.startswith(lead):
                problem = problem.removeprefix(lead)
    problem = re.sub(r"^\((EEG|EOG)\): ", r"a channel of \1: ", problem)
    problem = re.sub(
        r"(same bytes as|are those of|epoch, those of|name is that of|person is that of) .*", r"\1 another", problem
    )
    return re.sub(r"(?<![\w-])-?\d+(?:[.,]\d+)*(?:e[+-]?\d+)?", "N", problem)


def audit_notes(store: Store, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What a report should say about the nights of each corpus, as their audits are stored.

    Returns:
        By corpus: ``usable``, ``refused`` and ``with_problems`` (usable recordings with something to know about),
        ``unscored_share`` of the epochs of the usable recordings (None without any), and ``problems``, the most
        frequent kinds first: ``{"kind", "recordings", "example"}``, at most five. Corpora that are not registered are
        left out.
    """
    row = models.Recording
    notes: dict[str, dict[str, Any]] = {}
    with store.reading() as session:
        known = session.scalars(select(models.Corpus.name).where(models.Corpus.name.in_(names)))
        rows: dict[str, list[tuple[str, bool, dict[str, Any]]]] = {name: [] for name in known}
        for corpus, name, usable, audit in session.execute(
            select(row.corpus_name, row.name, row.usable, row.audit)
            .where(row.corpus_name.in_(names))
            .order_by(row.corpus_name, row.name)
        ):
            rows[corpus].append((name, usable, audit))
    for corpus in names:
        if corpus in rows:
            notes[corpus] = _notes(rows[corpus])
    return notes


def _notes(rows: Sequence[tuple[str, bool, dict[str, Any]]]) -> dict[str, Any]:
    usable = [(name, audit) for name, good, audit in rows if good]
    kinds: Counter[str] = Counter()
    examples: dict[str, str] = {}
    with_problems = epochs = scored = 0
    for name, audit in usable:
        remarks = [*audit["problems"], *audit.get("duplicates", ())]
        with_problems += bool(remarks)
        channels = [channel["name"] for channel in audit["channels"]]
        said = {problem_kind(remark, channels): remark for remark in reversed(remarks)}
        kinds.update(said.keys())
        for kind, remark in said.items():
            examples.setdefault(kind, f"{name}: {remark}")
        of_night = sum(audit["epochs"].get(stage, 0) for stage in STAGE_NAMES)
        scored += of_night
        epochs += max(audit.get("signal_epochs", 0), of_night)
    most = sorted(kinds, key=lambda kind: (-kinds[kind], kind))[:MOST_KINDS]
    return {
        "usable": len(usable),
        "refused": len(rows) - len(usable),
        "with_problems": with_problems,
        "unscored_share": 1 - scored / epochs if epochs else None,
        "problems": [{"kind": kind, "recordings": kinds[kind], "example": examples[kind]} for kind in most],
    }
