"""The cost of every arm as a table and as lines of a card: units in the headings, each column in one unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from tusp.dashboards.costs import Cost, Measured, Place, hardware_names
from tusp.dashboards.leaderboard import Board, Row
from tusp.dashboards.tables import NOT_SCORED, Entry, TextTable

TIMES: Final = ((1.0, "s"), (60.0, "min"), (3600.0, "h"))
MACS: Final = ((1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G"))
BYTES: Final = ((2.0**20, "MiB"), (2.0**30, "GiB"))
JOULES: Final = ((1.0, "J"), (1e3, "kJ"), (3.6e6, "kWh"))


def figure(value: float) -> str:
    """Three significant digits without an exponent (``0.0123``, ``4.64``, ``90,001``); ``–`` for NaN."""
    if math.isnan(value):
        return NOT_SCORED
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(float(f"{value:.3g}")))))  # 9.999 is 10.0
    return f"{value:,.{digits}f}"


def unit_of(values: Sequence[float], units: Sequence[tuple[float, str]]) -> tuple[float, str]:
    """The largest unit that the middle one of some values is at least one of; the smallest where there is none."""
    known = sorted(value for value in values if not math.isnan(value))
    middle = known[len(known) // 2] if known else 0.0
    return next(((size, name) for size, name in reversed(units) if middle >= size), units[0])


def cost_table(board: Board) -> TextTable | None:
    """Cost of every arm, a row for each place that its cells ran on; None where no arm has a done cell."""
    places = [(row, cost) for row in board.rows for cost in row.costs]
    if not places:
        return None
    costs = [cost for _, cost in places]
    scales = {
        name: unit_of([getattr(cost, name).value for cost in costs], units)
        for name, units in (
            ("macs_per_epoch", MACS),
            ("training_seconds", TIMES),
            ("device_seconds", TIMES),
            ("peak_memory_bytes", BYTES),
            ("inference_epochs_per_second", ((1.0, ""),)),
            ("energy_joules", JOULES),
        )
    }
    names = hardware_names(costs)

    def row(item: Row, cost: Cost) -> tuple[Entry, ...]:
        return (
            Entry(main=item.name),
            Entry(main=NOT_SCORED if item.n_parameters is None else f"{item.n_parameters:,}"),
            *(_entry(getattr(cost, name), cost.cells, size) for name, (size, _) in scales.items()),
            Entry(main=f"{cost.cells:,}"),
            Entry(main=_where(cost.place, names), under=cost.place.precision),
        )

    def headed(words: str, name: str) -> str:
        return f"{words}\n({scales[name][1]})"

    macs = scales["macs_per_epoch"][1]
    return TextTable(
        title="Cost: all cells of an arm together, but a row for each kind of hardware they ran on",
        columns=(
            "arm",
            "parameters",
            f"{macs}{' ' if macs else ''}MACs\nper epoch",
            headed("training", "training_seconds"),
            headed("device time", "device_seconds"),
            headed("peak memory", "peak_memory_bytes"),
            "inference\n(epochs/s)",
            headed("energy", "energy_joules"),
            "cells",
            "ran on",
        ),
        rows=tuple(row(item, cost) for item, cost in places),
    )


def _entry(measured: Measured, cells: int, size: float) -> Entry:
    short = 0 < measured.cells < cells
    return Entry(main=figure(measured.value / size), under=f"{measured.cells}/{cells}" if short else "")


def _where(place: Place, names: dict[str, list[str]]) -> str:
    """In words, with the number of the processor or card where a board has several."""
    of_kind = names.get(place.kind, [])
    if len(of_kind) < 2 or place.hardware not in of_kind:
        return place.words
    return place.words.replace(place.kind, f"{place.kind} {of_kind.index(place.hardware) + 1}", 1)


def cost_facts(row: Row) -> list[tuple[str, str]]:
    """The cost of an arm as names and values, units beside the values; nothing where no cell is done."""
    facts: list[tuple[str, str]] = []
    for cost in row.costs:
        place = ", ".join(part for part in (cost.place.words, cost.place.precision, cost.place.hardware) if part)
        lead = "" if len(row.costs) == 1 else f"{cost.place.words}: "
        facts.append(("ran on", f"{place}; {cost.cells} cell{'' if cost.cells == 1 else 's'}"))
        for name, words, units in (
            ("macs_per_epoch", "MACs per epoch", MACS),
            ("training_seconds", "training in all", TIMES),
            ("device_seconds", "device time in all", TIMES),
            ("peak_memory_bytes", "peak memory", BYTES),
            ("inference_epochs_per_second", "inference", ((1.0, "epochs/s"),)),
            ("energy_joules", "energy in all", JOULES),
        ):
            measured: Measured = getattr(cost, name)
            size, unit = unit_of([measured.value], units)
            value = f"{figure(measured.value / size)}{f' {unit}' if unit and measured.cells else ''}"
            short = f", {measured.cells} of {cost.cells} cells" if 0 < measured.cells < cost.cells else ""
            said = f" ({measured.reason}{short})" if measured.reason else ""
            facts.append((f"{lead}{words}", f"{value}{said}"))
    return facts
