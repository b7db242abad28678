"""The rows of a page's tables. There are so many cells that the template engine would take half of the page's time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from tusp.dashboards.tables import Entry, TextTable

if TYPE_CHECKING:
    from markupsafe import Markup


@dataclass(frozen=True, kw_only=True)
class HeatCell:
    """One tinted cell: its text, what stands beneath, and how strong the tint is, 0 to 1 (None: not scored)."""

    text: str
    under: str = ""
    strength: float | None = None
    framed: bool = False


@dataclass(frozen=True, kw_only=True)
class HeatTable:
    """A table of tinted cells."""

    caption: str
    corner: str
    groups: tuple[tuple[str, int], ...]
    """Headings over several columns and how many; empty for none."""
    columns: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[HeatCell, ...]], ...]
    """Name, what stands beneath it, cells."""


def text_rows(table: TextTable, texts: Collection[int]) -> Markup:
    """The rows of a table; the columns in ``texts`` hold sentences."""
    from markupsafe import Markup

    lines = []
    for place, row in enumerate(table.rows):
        lines.append(f"<tr{_class('plain' if place in table.plain else '')}>\n")
        for column, entry in enumerate(row):
            warning = "warn" if entry.warning else ""
            if column == 0:
                lines.append(f'<th scope="row"{_class(warning)}>{_entry(entry)}</th>\n')
            else:
                kind = "text" if column in texts else "figure"
                lines.append(f"<td{_class(f'{kind} {warning}'.rstrip())}>{_entry(entry)}</td>\n")
        lines.append("</tr>\n")
    return Markup("".join(lines))  # all that was not written here is escaped


def heat_rows(table: HeatTable) -> Markup:
    """The rows of a table of tinted cells."""
    from markupsafe import Markup

    lines = []
    for name, under, cells in table.rows:
        lines.append(f'<tr><th scope="row">{_escaped(name)}{_under(under)}</th>\n')
        for cell in cells:
            tint = "" if cell.strength is None else f' style="--v:{cell.strength:.3f}"'
            kind = _class("figure framed" if cell.framed else "figure")
            lines.append(f"<td{kind}{tint}>{_escaped(cell.text)}{_under(cell.under)}</td>\n")
        lines.append("</tr>\n")
    return Markup("".join(lines))  # all that was not written here is escaped


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""


def _entry(entry: Entry) -> str:
    return _escaped(entry.main) + _under(entry.under)


def _under(text: str) -> str:
    return f'<span class="under">{_escaped(text)}</span>' if text else ""


@lru_cache(1 << 16)
def _escaped(text: str) -> str:
    """Remembered: the same figures and names stand in many cells."""
    from markupsafe import escape

    return str(escape(text))
