"""Reports as texts, kept for the next time, and made before somebody asks."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tusp.dashboards.asked import Asked, Known, known
from tusp.dashboards.extras import read_extras
from tusp.dashboards.kept_texts import KeptText, Look, keep_text
from tusp.dashboards.render import render_report
from tusp.dashboards.report import Report, build_report
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


def make_ready(store: Store, *, kept: Path, look: Look | None) -> None:
    """Make the report of all submissions as somebody may ask for it next.

    Args:
        store: only read.
        kept: folder of what is kept.
        look: how tables are drawn here; None draws none.

    Raises:
        TuspError: as :func:`tusp.dashboards.report.build_report`.
    """
    for rule in RULES:
        before = known(store, Asked(everything=True, rule=rule))
        report = build_report(store, everything=True, rule=rule, kept=kept, before=before)
        read_extras(store, report, kept=kept, before=before)
    report = build_report(store, everything=True, kept=kept)
    for name in READY:
        if name != "table" or look is not None:
            render_and_keep(store, report, name, look=look if name == "table" else None, kept=kept)
