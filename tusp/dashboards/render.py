"""One report in six formats: terminal tables, Markdown, CSV (one long table), JSON, LaTeX and HTML."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from functools import lru_cache
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

from tusp.dashboards.asked import FORMATS as FORMATS
from tusp.dashboards.contents import (
    board_tables,
    comparison_sentences,
    foot_lines,
    recompute_lines,
    wide_lines,
    wide_tables,
)
from tusp.dashboards.documents import FRAME_COLUMNS, WHOLE_COLUMNS, frame_rows, report_document
from tusp.dashboards.kept_texts import Look
from tusp.dashboards.leaderboard import Board
from tusp.dashboards.report import Report
from tusp.dashboards.tables import (
    Entry,
    TextTable,
    hole_lines,
    note_lines,
)
from tusp.platform.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rich.console import Console
    from rich.text import Text

    from tusp.dashboards.extras import Extras

WIDTH: Final = 100
"""Columns of a table that is not drawn on a terminal."""


def render_report(
    report: Report,
    format: str,  # noqa: A002  (the option's name)
    *,
    extras: Extras | None = None,
    look: Look | None = None,
) -> str:
    """The whole report as text.

    Args:
        report: what to render.
        format: one of ``FORMATS``.
        extras: training curves and corpora for ``html`` (:func:`tusp.dashboards.extras.read_extras`); left out without.
        look: how a table is drawn; without, for a file.

    Raises:
        UserError: unknown format, or simulated and real boards in one CSV.
    """
    if format == "table":
        from rich.console import Console

        text = io.StringIO()
        drawn = look or Look(width=WIDTH)
        console = Console(
            file=text,
            width=drawn.width,
            height=25,  # with both of them rich does not ask for the terminal's size before every line
            color_system=drawn.colours,  # type: ignore[arg-type]
            no_color=drawn.no_colour,
            force_terminal=drawn.terminal,
            highlight=False,
        )
        print_report(report, console)
        return text.getvalue()
    if format == "md":
        return _markdown(report)
    if format == "csv":
        if len({board.key.simulated for board in report.boards}) > 1:
            raise UserError(
                "simulated and real results never share a table, and a CSV is one; choose one with --corpus"
            )
        return _csv(report)
    if format == "json":
        return _laid_out(report_document(report)) + "\n"
    if format == "latex":
        from tusp.dashboards.latex import latex_document

        return latex_document(report)
    if format == "html":
        from tusp.dashboards.html import html_document

        return html_document(report, extras)
    raise UserError(f"no format {format!r}; formats are {', '.join(FORMATS)}")


_ENCODE: Final = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode


def _laid_out(value: Any, indent: str = "") -> str:
    """JSON in which whatever holds no list or object stands in one line. `json.dumps` with an indent has every number
    in a line of its own and is written in Python, which takes a second for many boards."""
    if not isinstance(value, dict | list) or not any(
        isinstance(item, dict | list) for item in (value.values() if isinstance(value, dict) else value)
    ):
        return _ENCODE(value)
    inner = indent + "  "
    if isinstance(value, dict):
        opening, closing = "{", "}"
        items = [f"{_ENCODE(str(name))}: {_laid_out(item, inner)}" for name, item in value.items()]
    else:
        opening, closing = "[", "]"
        items = [_laid_out(item, inner) for item in value]
    return f"{opening}\n{inner}" + f",\n{inner}".join(items) + f"\n{indent}{closing}"


def print_report(report: Report, console: Console) -> None:
    """Draw the report on a console; made for 100 columns, legible on fewer."""
    from rich.console import Console
    from rich.rule import Rule
    from rich.text import Text

    if not console.is_terminal and console.width < WIDTH:
        console = Console(file=console.file, width=WIDTH, height=25, highlight=False)
    for board in report.boards:
        console.print()
        _print_board(report, board, console)
    if not report.boards:
        console.print(Text("No cell is planned yet."))
    if wide_tables(report):
        console.print()
        console.print(Rule("Corpora together", style="dim", align="left"))
        for table in wide_tables(report):
            _print_table(table, console)
        _print_list("·", [Text(line) for line in wide_lines(report)], console)
    console.print()
    console.print(Rule("How this was made", style="dim", align="left"))
    _print_list("·", [Text(line, style="dim") for line in foot_lines(report)], console)
    _print_list("$", [Text(line, style="dim") for line in recompute_lines(report)], console)


def _print_board(report: Report, board: Board, console: Console) -> None:
    from rich.rule import Rule
    from rich.text import Text

    title = Text(board.title, style="bold")
    title.highlight_words(["SIMULATED nights"], style="bold black on yellow")
    console.print(Rule(style="dim"))
    console.print(title)
    console.print(Rule(style="dim"))
    for table in board_tables(board):
        _print_table(table, console)
    sentences = [Text(line) for line in comparison_sentences(board)]
    for sentence, contrast in zip(sentences, board.contrasts, strict=False):
        sentence.stylize("bold", 0, len(f"{contrast.name}: {contrast.verdict}"))
    _print_list("→", sentences, console)
    _print_list("!", [Text(line, style="yellow") for line in hole_lines(board)], console)
    _print_list("·", [Text(line, style="dim") for line in note_lines(report, board)], console)


def _print_list(mark: str, lines: Sequence[Text], console: Console) -> None:
    """Lines with a mark in front, further lines indented."""
    from rich.text import Text

    room = console.width - 2
    if console.color_system is None:
        folded = [_folded(line.plain, room) for line in lines]
        texts = [f"{' ' if number else mark} {piece}\n" for pieces in folded for number, piece in enumerate(pieces)]
        console.out("".join(texts), end="", highlight=False)
        return
    found = Text()
    for line in lines:
        for number, piece in enumerate(line.wrap(console, room, overflow="fold")):
            piece.rstrip()
            found.append_text(Text.assemble(mark if number == 0 else " ", " ", piece, "\n"))
    console.print(found, end="", soft_wrap=True)


@lru_cache(4096)
def _folded(text: str, width: int) -> tuple[str, ...]:
    """A text in lines of at most ``width`` columns, as rich folds it. Remembered: many boards say the same."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.text import Text

    if text.isprintable():
        wide = cell_len(text)
        if wide <= width:
            return (text.rstrip(),)
        # Sentences of letters of one column each: the standard library does the same in a tenth of the time.
        words = text.split(" ")
        if wide == len(text) and all(words) and max(map(len, words)) <= width:
            return tuple(textwrap.wrap(text, width, break_on_hyphens=False))
    return tuple(line.plain.rstrip() for line in Text(text).wrap(Console(width=width), width, overflow="fold"))


def _print_table(table: TextTable, console: Console) -> None:
    """Draw a table; one that is wider than the console goes on below, its first column repeated."""
    title = table.title
    for part in _parts(table, console.width):
        _print_part(table, part, console, title=title)
        title = ""


def _print_part(table: TextTable, columns: Sequence[int], console: Console, *, title: str) -> None:
    """Draw some columns, put together here at a tenth of the time of a table of rich. That draws what is too wide even
    with names folded."""
    from rich.text import Text

    widths = {column: _column_width(table, column) for column in columns}
    if title:
        console.print(Text(title, style="italic"))
    room = console.width - sum(widths.values()) - len(widths) + 1 + widths[0]
    if room < min(widths[0], _longest_word(table)):
        _print_cropped(table, columns, console)
    else:
        widths[0] = min(widths[0], room)  # names may break, figures never do
        drawn = list(_drawn(table, widths))
        if console.color_system is None:
            console.out("".join(text for text, _ in drawn), end="", highlight=False)
        else:
            console.print(Text.assemble(*drawn), end="", soft_wrap=True)
    console.print()


def _drawn(table: TextTable, widths: Mapping[int, int]) -> Iterator[tuple[str, str]]:
    """Columns of a table, each of its width, as texts with their styles."""

    def lines(column: int, text: str, style: str) -> list[tuple[str, str]]:
        pieces = _folded(text, widths[0]) if column == 0 else text.split("\n")
        return [(piece, style) for piece in pieces]

    def side_by_side(cells: Iterable[Sequence[tuple[str, str]]]) -> Iterator[tuple[str, str]]:
        for line in zip_longest(*cells, fillvalue=("", "")):
            for (column, width), (text, style) in zip(widths.items(), line, strict=True):
                yield text.ljust(width) if column == 0 else " " + text.rjust(width), style
            yield "\n", ""

    names = [lines(column, table.columns[column], "bold") for column in widths]
    height = max(map(len, names))
    yield from side_by_side([("", "")] * (height - len(name)) + name for name in names)
    yield "─" * (sum(widths.values()) + len(widths) - 1) + "\n", ""
    for index, row in enumerate(table.rows):
        cells = []
        for column in widths:
            entry = row[column]
            style = _style(entry, plain=index in table.plain, leading=column <= 1)
            below = lines(column, entry.under, f"{style} dim not bold".strip()) if entry.under else []
            cells.append(lines(column, entry.main, style) + below)
        yield from side_by_side(cells)


def _print_cropped(table: TextTable, columns: Sequence[int], console: Console) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    for column in columns:
        # Names may break, figures never do.
        if column == 0:
            drawn.add_column(table.columns[0], overflow="fold", min_width=_longest_word(table))
        else:
            drawn.add_column(table.columns[column], justify="right", no_wrap=True)
    for index, row in enumerate(table.rows):
        cells = []
        for column in columns:
            entry = row[column]
            style = _style(entry, plain=index in table.plain, leading=column <= 1)
            text = Text(entry.main, style=style)
            if entry.under:
                text.append(f"\n{entry.under}", style="dim not bold")
            cells.append(text)
        drawn.add_row(*cells)
    console.print(drawn)


def _parts(table: TextTable, width: int) -> list[list[int]]:
    """Columns of each part of a table that must fit ``width``, one space between them; 0 leads every part."""
    widths = [_column_width(table, column) for column in range(len(table.columns))]
    parts: list[list[int]] = []
    room = 0
    for column in range(1, len(widths)):
        if not parts or widths[column] + 1 > room:
            parts.append([0])
            room = width - _longest_word(table)
        parts[-1].append(column)
        room -= widths[column] + 1
    return parts


def _column_width(table: TextTable, column: int) -> int:
    entries = [row[column] for row in table.rows]
    texts = [table.columns[column], *(entry.main for entry in entries), *(entry.under for entry in entries)]
    return max(map(_width, texts))


def _width(text: str) -> int:
    return max(map(len, text.split("\n"))) if "\n" in text else len(text)


def _longest_word(table: TextTable) -> int:
    words = [word for row in table.rows for word in row[0].main.split()]
    return max((len(word) for word in [*words, table.columns[0]]), default=0)


def _style(entry: Entry, *, plain: bool, leading: bool) -> str:
    if entry.warning:
        return "bold yellow"
    return "dim" if plain else "bold" if leading else ""


def _csv(report: Report) -> str:
    """The long table as ``report_frame(report).to_csv(index=False)`` writes it (a test compares), without pandas, which
    takes longer to import than the report takes to make."""
    rows = frame_rows(report)
    columns = [_csv_column([row.get(name) for row in rows], whole=name in WHOLE_COLUMNS) for name in FRAME_COLUMNS]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FRAME_COLUMNS)
    writer.writerows(zip(*columns, strict=True))
    return text.getvalue()


def _csv_column(values: Sequence[object], *, whole: bool) -> list[object]:
    """A column of the CSV: nothing for what is missing; numbers have a point unless the column is of whole ones."""
    # NaN equals nothing, itself included.
    return [
        ""
        if value is None or value != value
        else float(value)
        if isinstance(value, int) and not whole and not isinstance(value, bool)
        else value
        for value in values
    ]


def _markdown(report: Report) -> str:
    parts = []
    for board in report.boards:
        parts.append(f"## {board.title}\n")
        parts += [_markdown_table(table) for table in board_tables(board)]
        lines = comparison_sentences(board)
        lines += [f"**{line}**" for line in hole_lines(board)] + note_lines(report, board)
        parts.append("\n".join(f"- {line}" for line in lines) + "\n")
    if wide_tables(report):
        parts.append("## Corpora together\n")
        parts += [_markdown_table(table) for table in wide_tables(report)]
        parts.append("\n".join(f"- {line}" for line in wide_lines(report)) + "\n")
    parts.append("## How this was made\n")
    parts.append("\n".join(f"- {line}" for line in foot_lines(report)) + "\n")
    parts.append("\n".join(f"    {line}" for line in recompute_lines(report)) + "\n")
    return "\n".join(parts)


def _markdown_table(table: TextTable) -> str:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    rows = [
        line([f"{entry.main} ({entry.under})" if entry.under else entry.main for entry in row]) for row in table.rows
    ]
    header = line(list(table.columns).copy())
    ruler = line(["---", *(["---:"] * (len(table.columns) - 1))])
    return "\n".join([f"**{table.title}**", "", header, ruler, *rows]) + "\n"
