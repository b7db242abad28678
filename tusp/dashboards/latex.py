"""A report as LaTeX: one document that compiles with pdflatex or tectonic, its tables set with booktabs.

Tables can be copied into a paper one by one: they need ``booktabs``, ``array`` and ``graphicx`` only. Whatever a name
or a reason holds, it is set as text: characters with a meaning in TeX are escaped, those that pdflatex does not know
are named by their code point.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from tusp.dashboards.contents import (
    board_tables,
    comparison_sentences,
    foot_lines,
    night_words,
    recompute_lines,
    text_columns,
    wide_lines,
    wide_tables,
)
from tusp.dashboards.leaderboard import Board
from tusp.dashboards.report import Report
from tusp.dashboards.tables import Entry, TextTable, hole_lines, note_lines

ROWS_PER_TABLE: Final = 24
"""A table with more rows goes on in another one: floats do not break over pages."""

PREAMBLE: Final = r"""\documentclass[10pt,a4paper]{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage{textcomp}
\usepackage[margin=2cm]{geometry}
\usepackage{array}
\usepackage{booktabs}
\usepackage{graphicx}
\setlength{\parindent}{0pt}
\setlength{\abovecaptionskip}{2pt}
\setlength{\belowcaptionskip}{6pt}
\setlength{\emergencystretch}{3em}
\begin{document}
"""

_SPECIAL: Final = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_\allowbreak{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    # Two hyphens in a row would become a dash.
    "-": r"-{}",
    "−": r"$-$",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"\textperiodcentered{}",
    "→": r"$\rightarrow$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "τ": r"$\tau$",
    "µ": r"\textmu{}",
    "²": r"\texttwosuperior{}",
    "\N{NO-BREAK SPACE}": "~",
    "\n": " ",
    "\t": " ",
}


def latex_text(text: str) -> str:
    """Any text as LaTeX that sets it, in one line."""
    return "".join(map(_character, text))


def _character(character: str) -> str:
    known = _SPECIAL.get(character)
    if known is not None:
        return known
    code = ord(character)
    # Letters of Latin-1 and Latin Extended-A are in the T1 encoding; pdflatex stops at others.
    if 0x20 <= code < 0x7F or (0xC0 <= code <= 0x17F and character not in "ŉĿŀſĦħĸŦŧ"):
        return character
    return f"[U+{code:04X}]"


def latex_document(report: Report) -> str:
    """The whole report as a LaTeX document."""
    parts = [PREAMBLE]
    if any(board.key.simulated for board in report.boards):
        parts.append("\\textbf{Boards marked SIMULATED show how tusp works, not how well a network stages sleep.}\n")
    for number, board in enumerate(report.boards, start=1):
        parts.append(_board(report, board, number))
    if not report.boards:
        parts.append("No cell is planned yet.\n")
    if wide_tables(report):
        parts.append("\\section*{Corpora together}\n")
        simulated = {board.key.simulated for board in report.boards}
        nights = " and ".join(night_words(kind) for kind in sorted(simulated))
        for place, table in enumerate(wide_tables(report), start=1):
            said = f"{table.title}. {nights}; rule {report.rule}."
            parts += latex_tables(table, caption=said, label=f"tab:wide-{place}")
        parts.append(_items(wide_lines(report)) + "\n\\clearpage\n")
    parts.append("\\section*{How this was made}\n" + _items(foot_lines(report)))
    parts.append("Made again by:\n" + _items(recompute_lines(report), code=True))
    parts.append("\\end{document}\n")
    return "\n".join(parts)


def _board(report: Report, board: Board, number: int) -> str:
    parts = [f"\\section*{{{latex_text(board.title)}}}\n"]
    for place, table in enumerate(board_tables(board), start=1):
        parts += latex_tables(table, caption=caption(board, table), label=f"tab:board{number}-{place}")
    lists = (
        comparison_sentences(board),
        hole_lines(board),
        note_lines(report, board),
    )
    parts += [_items(lines) for lines in lists if lines]
    return "\n".join([*parts, "\\clearpage\n"])


def caption(board: Board, table: TextTable) -> str:
    """What a reader of a table alone must know, as plain text."""
    key = board.key
    where = key.judged_on if key.judged_on == key.trained_on else f"{key.judged_on}, trained on {key.trained_on}"
    numbers = [row.people for row in board.rows if row.people]
    people = f"{min(numbers):,} to {max(numbers):,}" if len(set(numbers)) > 1 else f"{max(numbers, default=0):,}"
    if not key.split_hash:
        return f"{table.title}. {key.judged_on}, {night_words(key.simulated)}; rule {board.rule}; {people} people."
    return (
        f"{table.title}. {where}, {night_words(key.simulated)}; rule {board.rule}; {people} "
        f"{'person' if people == '1' else 'people'}; {key.experiment}, {key.protocol} protocol, {key.folds} folds, "
        f"recipe {key.recipe}; split {key.split_hash[:12]}."
    )


def latex_tables(table: TextTable, *, caption: str, label: str) -> list[str]:
    """A table as one or more floats, each of at most ``ROWS_PER_TABLE`` rows.

    Args:
        table: what to set.
        caption: plain text.
        label: for ``\\ref``; further floats have a letter behind it.
    """
    chunks = [table.rows[start : start + ROWS_PER_TABLE] for start in range(0, len(table.rows), ROWS_PER_TABLE)] or [()]
    return [
        _float(
            table,
            rows,
            caption=caption if not index else f"{caption} Continued.",
            label=label if not index else f"{label}{chr(ord('a') + index)}",
        )
        for index, rows in enumerate(chunks)
    ]


def _float(table: TextTable, rows: Sequence[tuple[Entry, ...]], *, caption: str, label: str) -> str:
    texts = text_columns(table)
    columns = r">{\raggedright\arraybackslash}p{3.2cm}" + "".join(
        r">{\raggedright\arraybackslash}p{6.5cm}" if column in texts else "r" for column in range(1, len(table.columns))
    )
    lines = [
        r"\begin{table}[htbp]",
        r"\centering\small\setlength{\tabcolsep}{4pt}",
        f"\\caption{{{_bold_simulated(latex_text(caption))}}}\\label{{{label}}}",
        # Shrunk only where it would be wider than the page.
        r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
        f"\\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
        r"\toprule",
        " & ".join(map(_header, table.columns)) + r" \\",
        r"\midrule",
    ]
    for index, row in enumerate(rows):
        if index:
            lines.append(r"\addlinespace[2pt]")
        lines.append(" & ".join(_warned(entry) for entry in row) + r" \\")
        if any(entry.under for entry in row):
            unders = (f"\\scriptsize {latex_text(entry.under)}" if entry.under else "" for entry in row)
            lines.append(" & ".join(unders) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""])


def _header(text: str) -> str:
    lines = [latex_text(line) for line in text.split("\n")]
    if len(lines) == 1:
        return lines[0]
    return r"\begin{tabular}[b]{@{}r@{}}" + r" \\ ".join(lines) + r"\end{tabular}"


def _warned(entry: Entry) -> str:
    text = latex_text(entry.main)
    return f"\\textbf{{{text}}}" if entry.warning else text


def _bold_simulated(text: str) -> str:
    return text.replace("SIMULATED nights", "\\textbf{\\mbox{SIMULATED} nights}")


def _items(lines: Sequence[str], *, code: bool = False) -> str:
    """Lines as a list; a row of letters without a place to break gets some."""
    if not lines:
        return ""

    def item(line: str) -> str:
        text = latex_text(re.sub(r"(\S{24})(?=\S)", "\\1\N{ZERO WIDTH SPACE}", line))
        text = text.replace("[U+200B]", r"\allowbreak{}")
        return f"\\item {{\\ttfamily {text}}}" if code else f"\\item {text}"

    return "\n".join(
        [r"\begin{itemize}\small\raggedright\setlength{\itemsep}{0pt}", *map(item, lines), r"\end{itemize}", ""]
    )
