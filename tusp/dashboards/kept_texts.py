"""Whole texts of reports, so that one of which nothing changed costs neither making nor writing it."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tusp.dashboards.kept import Kept, hash_of

if TYPE_CHECKING:
    from rich.console import Console

TEXTS: Final = "texts"
"""Folder of texts among what is kept."""

MOST_TEXTS: Final = 16
"""Texts that are kept, the latest ones."""

_WRITERS: Final = ("rich", "jinja2", "markupsafe")
"""Libraries that a text depends on beside the report."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a table is drawn."""

    width: int
    terminal: bool = False
    colours: str | None = None
    """What the terminal shows as rich names it; None draws without."""
    no_colour: bool = False
    """``NO_COLOR`` was asked for."""


@dataclass(frozen=True, kw_only=True)
class KeptText:
    """A text and what it is the text of."""

    report: str
    """Hash of the report (:func:`tusp.dashboards.asked.report_hash`)."""
    format: str
    look: Look | None
    """Of a table; other formats have none."""
    text: str


def look_of(console: Console) -> Look | None:
    """How a console draws; None where that cannot be repeated, since it does not know every letter."""
    if not console.encoding.startswith("utf") or console.legacy_windows:
        return None
    return Look(
        width=console.width,
        terminal=console.is_terminal,
        colours=console.color_system,
        no_colour=console.no_color,
    )


def find_text(folder: Path, report: str, format: str, look: Look | None) -> str | None:  # noqa: A002
    """The text that was kept of a report; None where there is none.

    Args:
        folder: what reports keep.
        report: hash of the report.
        format: one of :data:`tusp.dashboards.asked.FORMATS`.
        look: of a table.
    """
    found = Kept(folder / TEXTS, KeptText).find(text_hash(report, format, look))
    return None if found is None else found.text


def keep_text(folder: Path, kept: KeptText) -> None:
    """Keep a text for the next report; arguments as for :func:`find_text`."""
    before = Kept(folder / TEXTS, KeptText)
    before.keep(text_hash(kept.report, kept.format, kept.look), kept)
    before.forget_old(at_most=MOST_TEXTS)


def text_hash(report: str, format: str, look: Look | None) -> str:  # noqa: A002
    """The name under which a text is kept."""
    versions = [importlib.metadata.version(name) for name in _WRITERS]
    return hash_of((report, format, look, versions))
