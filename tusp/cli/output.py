"""The one way commands print: tables for people, JSON for programs, errors on stderr."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

WIDTH_OF_FILES = 110
"""Columns of a table that goes to a file or a pipe, where no terminal says how wide it is."""

HEIGHT_OF_FILES = 25
"""Lines that rich is told such a file has; nothing depends on them."""


class _Lazy:
    """A rich console that is made when first used: importing rich takes longer than `tusp --help` may."""

    def __init__(self, *, stderr: bool) -> None:
        self._stderr = stderr
        self._made: Console | None = None

    def __call__(self) -> Console:
        """The console itself."""
        if self._made is None:
            from rich.console import Console

            stream = sys.stderr if self._stderr else sys.stdout
            # With both of them rich does not ask for the terminal's size before every line.
            unknown = not stream.isatty() and "COLUMNS" not in os.environ
            width, height = (WIDTH_OF_FILES, HEIGHT_OF_FILES) if unknown else (None, None)
            self._made = Console(stderr=self._stderr, highlight=False, width=width, height=height)
        return self._made

    def __getattr__(self, name: str) -> Any:
        return getattr(self(), name)

    def __enter__(self) -> Console:
        return self().__enter__()

    def __exit__(self, *exception: Any) -> None:
        self().__exit__(*exception)


if TYPE_CHECKING:
    console: Console
    errors: Console
else:
    console = _Lazy(stderr=False)
    errors = _Lazy(stderr=True)


def _nan_as_null(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _nan_as_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_nan_as_null(item) for item in value]
    return value


def print_json(value: Any) -> None:
    """Print one JSON document; a value that was not scored (NaN) is null."""
    sys.stdout.write(json.dumps(_nan_as_null(value), indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    title: str | None = None,
    caption: str | None = None,
    tight: bool = False,
) -> None:
    """Print a table; columns whose cells are all numbers are aligned to the right.

    Args:
        tight: without lines between columns, so that ten of them fit into 80 characters.
    """
    from rich import box
    from rich.table import Table

    lines: dict[str, Any] = {"box": box.SIMPLE_HEAD, "padding": 0, "show_edge": False} if tight else {}
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left", **lines)
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*("–" if item is None else str(item) for item in row))
    console.print(table)
