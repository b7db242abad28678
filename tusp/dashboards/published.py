"""Published figures, to be shown beside a board's rows of the same kind and never ranked with them."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from tusp.platform.errors import DataError, UserError
from tusp.platform.scoring.rules import RULES
from tusp.platform.stages import STAGE_NAMES

PUBLISHED: Final = Path(__file__).with_name("published.toml")
NOT_STATED: Final = "not stated"
AGGREGATIONS: Final = ("pooled", "recordings")
PROTOCOLS: Final = ("unweighted", "dreem")
KINDS: Final = ("network", "human")
METRICS: Final = ("macro_f1", "accuracy", "kappa", "weighted_f1", *(f"f1_{stage}" for stage in STAGE_NAMES))
ALL_TEST_SETS: Final = "all"

_REQUIRED: Final = ("system", "corpus", "aggregation", "rule", "values", "source")
_OPTIONAL: Final = ("kind", "protocol", "note")


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """What somebody published. Not reproduced."""

    system: str
    kind: str
    """``network`` or ``human``."""
    corpus: str
    aggregation: str
    """``pooled`` over epochs, or the mean over ``recordings``: never mixed."""
    protocol: str
    """``unweighted``, or ``dreem`` (epochs weighted by the consensus)."""
    rule: str
    """``full``, ``trim30`` or ``not stated``."""
    values: Mapping[str, float]
    """Metric (``macro_f1``, ``accuracy``, ``kappa``, ``weighted_f1``, ``f1_W`` ...) to its value."""
    source: str
    note: str = ""
    remark: str = ""
    """On a board: how its rule differs from the board's; empty where it does not."""


def load_published(path: Path = PUBLISHED) -> tuple[PublishedRow, ...]:
    """All rows of the data file, in its order.

    Raises:
        DataError: the file cannot be read or a row is not what it should be; one line names row and defect.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path}: not TOML ({' '.join(str(error).split())[:100]})") from error
    strange = sorted(content.keys() - {"sources", "row"})
    if strange:
        raise DataError(f"{path}: {strange[0]!r} has no place here; it holds [sources] and [[row]]")
    sources, rows = content.get("sources", {}), content.get("row", [])
    if not isinstance(sources, dict) or not all(isinstance(text, str) and text.strip() for text in sources.values()):
        raise DataError(f"{path}: [sources] wants a citation, as a text, for every key")
    if not isinstance(rows, list):
        raise DataError(f"{path}: rows are written [[row]]")
    found = [_row(f"{path.name}: row {number}", row, sources) for number, row in enumerate(rows, start=1)]
    seen: dict[tuple[str, ...], int] = {}
    for number, row in enumerate(found, start=1):
        for metric in row.values:
            key = (row.system, row.corpus, row.aggregation, row.protocol, row.rule, metric, row.note)
            if key in seen:
                raise DataError(f"{path.name}: row {number}: {metric} of {row.system} is in row {seen[key]} already")
            seen[key] = number
    return tuple(found)


def published_rows(
    corpus: str, simulated: bool, rule: str, *, aggregation: str = "pooled", protocol: str = "unweighted"
) -> tuple[PublishedRow, ...]:
    """Rows to show beside a board of one corpus, none beside simulated nights.

    Only rows of the same corpus, aggregation and protocol; a row under another or an unstated rule says so in its
    ``remark``.

    Raises:
        UserError: no such rule, aggregation or protocol.
        DataError: the data file is damaged.
    """
    for name, value, known in (
        ("rule", rule, RULES),
        ("aggregation", aggregation, AGGREGATIONS),
        ("protocol", protocol, PROTOCOLS),
    ):
        if value not in known:
            raise UserError(f"no {name} {value!r}; there are {', '.join(known)}")
    if simulated:
        return ()
    return tuple(
        PublishedRow(**{**vars(row), "remark": _remark(row.rule, rule)})
        for row in _all_rows()
        if (row.corpus, row.aggregation, row.protocol) == (corpus, aggregation, protocol)
    )


@lru_cache(maxsize=1)
def _all_rows() -> tuple[PublishedRow, ...]:
    return load_published()


def _remark(published: str, board: str) -> str:
    if published == board:
        return ""
    return "rule not stated" if published == NOT_STATED else f"rule {published}, not {board}"


def _row(where: str, row: Any, sources: Mapping[str, str]) -> PublishedRow:
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a table")
    for key in row:
        if key not in (*_REQUIRED, *_OPTIONAL):
            near = difflib.get_close_matches(key, (*_REQUIRED, *_OPTIONAL), n=1)
            raise DataError(f"{where}: no field {key!r}" + (f"; did you mean {near[0]}?" if near else ""))
    for key in _REQUIRED:
        if key not in row:
            raise DataError(f"{where}: no {key}")
    for key in (*_REQUIRED, *_OPTIONAL):
        if key != "values" and not isinstance(row.get(key, ""), str):
            raise DataError(f"{where}: {key} is no text")
    for key in ("system", "corpus"):
        if not row[key].strip():
            raise DataError(f"{where}: {key} is empty")
    choices = {
        "aggregation": AGGREGATIONS,
        "rule": (*RULES, NOT_STATED),
        "kind": KINDS,
        "protocol": PROTOCOLS,
    }
    for key, known in choices.items():
        if key in row and row[key] not in known:
            raise DataError(f"{where}: {key} {row[key]!r}; wanted {', '.join(known)}")
    if row["source"] not in sources:
        raise DataError(f"{where}: its source {row['source']!r} is not in [sources]")
    return PublishedRow(
        system=row["system"],
        kind=row.get("kind", "network"),
        corpus=row["corpus"],
        aggregation=row["aggregation"],
        protocol=row.get("protocol", "unweighted"),
        rule=row["rule"],
        values=_values(where, row["values"]),
        source=sources[row["source"]],
        note=row.get("note", ""),
    )


def _values(where: str, values: Any) -> dict[str, float]:
    if not isinstance(values, dict) or not values:
        raise DataError(f"{where}: values is no table of metrics")
    found = {}
    for metric, value in values.items():
        if metric not in METRICS:
            raise DataError(f"{where}: no metric {metric!r}; there are {', '.join(METRICS)}")
        lowest = -1 if metric == "kappa" else 0
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise DataError(f"{where}: {metric} is no number")
        if not lowest <= value <= 1:
            raise DataError(f"{where}: {metric} is {value}; wanted {lowest} to 1 (.784, not 78.4)")
        found[metric] = float(value)
    return found
