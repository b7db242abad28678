"""Reports as texts, kept for the next time, and made before somebody asks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tusp.dashboards.asked import Asked, Known, known
from tusp.dashboards.board_hashes import board_hashes
from tusp.dashboards.board_making import BOARDS, cells_of_boards
from tusp.dashboards.extras import EXTRAS, read_extras
from tusp.dashboards.kept_texts import TEXTS, KeptText, Look, keep_text, text_hash
from tusp.dashboards.lent import borrow, lend
from tusp.dashboards.render import render_report
from tusp.dashboards.report import REPORTS, Report, build_report, selected
from tusp.platform.scoring.rules import RULES
from tusp.platform.store.session import Store

READY: Final = ("table", "json", "html")
"""Formats that are ready when a submission has ended."""


def render_and_keep(
    store: Store,
    report: Report,
    format: str,  # noqa: A002  (the option's name)
    *,
    look: Look | None,
    kept: Path | None,
    before: Known | None = None,
) -> str:
    """A report as text, kept where the report is.

    Args:
        store: only read, for what a page shows besides.
        report: what to render.
        format: one of :data:`tusp.dashboards.asked.FORMATS`.
        look: how a table is drawn; None for a file, and for other formats.
        kept: folder of what is kept; None keeps nothing.
        before: by what the report is known, where that was asked.

    Raises:
        UserError: as :func:`tusp.dashboards.render.render_report`.
    """
    extras = read_extras(store, report, kept=kept, before=before) if format == "html" else None
    text = render_report(report, format, extras=extras, look=look)
    if kept is not None and report.kept_as is not None and (extras is None or extras.kept_as == report.kept_as):
        keep_text(kept, KeptText(report=report.kept_as, format=format, look=look, text=text))
    return text


def make_ready(store: Store, *, kept: Path, look: Look | None, submissions: Sequence[str | None] = (None,)) -> None:
    """Make the reports of all submissions together, and of some of them, as somebody may ask for them next, here or
    from another home.

    Args:
        store: lends the parts of these reports afterwards.
        kept: folder of what is kept.
        look: how tables are drawn here; None draws none.
        submissions: ids; None for the latest.

    Raises:
        TuspError: as :func:`tusp.dashboards.report.build_report`, or the store cannot be written.
    """
    borrow(store, kept)
    names: list[str] = []
    single = [Asked(submission=name, rule=rule) for name in submissions for rule in RULES]
    for asked in (*single, *(Asked(everything=True, rule=rule) for rule in RULES)):
        before = known(store, asked)
        if before is not None:
            whole = build_report(
                store,
                submission=asked.submission,
                everything=asked.everything,
                rule=asked.rule,
                kept=kept,
                before=before,
            )
            read_extras(store, whole, kept=kept, before=before)
            names += _parts_of(store, before)
    report = build_report(store, everything=True, kept=kept)
    for name in READY:
        if name != "table" or look is not None:
            render_and_keep(store, report, name, look=look if name == "table" else None, kept=kept)
    if report.kept_as is not None:
        names += [f"{TEXTS}/{text_hash(report.kept_as, name, None)}" for name in READY if name != "table"]
    lend(store, kept, names)


def _parts_of(store: Store, before: Known) -> list[str]:
    """Names of what is kept of a report: itself, what a page shows besides, and its boards."""
    asked = before.asked
    selection = selected(store, asked, home=None, counted=False, state=before.state)
    boards = board_hashes(
        store,
        selection,
        cells_of_boards(selection),
        resamples=asked.bootstrap,
        seed=asked.seed,
        state=before.state,
    )
    return [f"{REPORTS}/{before.name}", f"{EXTRAS}/{before.name}", *(f"{BOARDS}/{name}" for name in boards.values())]
