"""Drawing for a page: an ``<svg>`` of lines and words in the page's own colours and letters.

A page has dozens of figures and must be there in a moment, so its figures are written directly; figures for print are
drawn by Matplotlib (:mod:`tusp.dashboards.figures`). Everything that is said is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

from tusp.platform.scoring.statistics import Estimate

SIZE: Final = 12.0
"""Height of the letters in pixels; those of class ``small`` have 11."""

_NARROW: Final = frozenset("iljtfrI.,:;|!'()[]- ")
_WIDE: Final = frozenset("mwMW@%—…")


def text_width(text: str, *, size: float = SIZE) -> float:
    """About how many pixels a text takes, rather too many: which letters a reader has is not known."""
    units = sum(0.36 if c in _NARROW else 0.92 if c in _WIDE else 0.72 if c.isupper() else 0.6 for c in text)
    return units * size


def shortened(text: str, room: float, *, size: float = SIZE) -> str:
    """A text that takes at most ``room`` pixels, with an ellipsis where something was left out."""
    if text_width(text, size=size) <= room:
        return text
    kept = text
    while kept and text_width(kept + "…", size=size) > room:
        kept = kept[:-1]
    return kept.rstrip() + "…"


@dataclass
class Canvas:
    """A figure in the making; positions in pixels from the upper left corner."""

    width: float
    height: float
    parts: list[str] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, cls: str) -> None:
        """A straight line."""
        self.parts.append(f'<path class="{cls}" d="M{_at(x1)} {_at(y1)}L{_at(x2)} {_at(y2)}"/>')

    def path(self, points: Iterable[tuple[float, float]], cls: str, *, closed: bool = False) -> None:
        """A line through points, or the area within."""
        # As :func:`_at` writes them, all at once.
        joined = "L".join([f"{x:.1f} {y:.1f}" for x, y in points])
        joined = joined.replace(".0 ", " ").replace(".0L", "L").removesuffix(".0")
        self.parts.append(f'<path class="{cls}" d="M{joined}{"Z" if closed else ""}"/>')

    def text(self, x: float, y: float, said: str, cls: str = "", *, room: float | None = None) -> None:
        """Words about the height ``y``; those that do not fit into ``room`` are shortened, and said whole in a hint."""
        short = said if room is None else shortened(said, room)
        hint = "" if short == said else f"<title>{escape(said)}</title>"
        shape = f' class="{cls}"' if cls else ""
        self.parts.append(f'<text{shape} x="{_at(x)}" y="{_at(y)}" dy=".35em">{hint}{escape(short)}</text>')

    def box(self, x: float, y: float, width: float, height: float, cls: str) -> None:
        """A filled rectangle."""
        self.parts.append(
            f'<rect class="{cls}" x="{_at(x)}" y="{_at(y)}" width="{_at(max(width, 0))}" height="{_at(height)}"/>'
        )

    def dot(self, x: float, y: float, cls: str, *, radius: float = 4.0, shape: str = "circle") -> None:
        """A mark: ``circle``, ``square`` or ``diamond``."""
        if shape == "circle":
            self.parts.append(f'<circle class="{cls}" cx="{_at(x)}" cy="{_at(y)}" r="{_at(radius)}"/>')
        elif shape == "square":
            self.box(x - radius, y - radius, 2 * radius, 2 * radius, cls)
        else:
            reach = radius * 1.25
            self.path([(x - reach, y), (x, y - reach), (x + reach, y), (x, y + reach)], cls, closed=True)

    def svg(self, alt: str) -> str:
        """The element, with what a reader who does not see it is told."""
        return (
            f'<svg class="chart" role="img" aria-label="{escape(alt)}" viewBox="0 0 {_at(self.width)} '
            f'{_at(self.height)}" style="width:{_at(self.width)}px;min-width:{_at(min(self.width, 520))}px">'
            f"{''.join(self.parts)}</svg>"
        )


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Values along a stretch of pixels."""

    low: float
    high: float
    start: float
    """Pixel of ``low``."""
    stop: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)

    def ticks(self, most: int) -> list[float]:
        """At most so many round values within the scale, 1, 2, 2.5 or 5 times a power of ten apart."""
        reach = self.high - self.low
        power = 10.0 ** math.floor(math.log10(reach / most))
        step = next(power * factor for factor in (1, 2, 2.5, 5, 10, 20) if reach / (power * factor) <= most)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(place * step, 12) for place in range(first, last + 1)]


def tick_text(value: float, step_text: Sequence[float], *, signed: bool = False) -> str:
    """A value of an axis with as many digits as its ticks need: ``.75``, ``+.01``, ``0``."""
    digits = max((len(f"{tick:.12f}".rstrip("0").partition(".")[2]) for tick in step_text), default=0)
    if value == 0:
        return "0"
    text = f"{abs(value):.{digits}f}"
    text = text[1:] if text.startswith("0.") else text
    return ("−" if value < 0 else "+" if signed else "") + text


def span(
    estimates: Iterable[Estimate], *, zero: bool = False, room: float = 0.12, least: float = 0.01
) -> tuple[float, float]:
    """Limits that hold all values and intervals, with room on both sides; (0, 1) where nothing is scored.

    Args:
        estimates: what is to be shown.
        zero: 0 is within.
        room: share of the reach left free on either side.
        least: room on either side at least.
    """
    ends = [end for item in estimates for end in (item.value, item.low, item.high) if not math.isnan(end)]
    if not ends:
        return 0.0, 1.0
    low, high = min([*ends, 0.0] if zero else ends), max([*ends, 0.0] if zero else ends)
    free = max(least, room * (high - low))
    return low - free, high + free


def x_axis(
    canvas: Canvas, scale: Scale, top: float, bottom: float, label: str, *, most: int = 5, signed: bool = False
) -> None:
    """Grid lines, the axis with its ticks below, and what it measures."""
    ticks = scale.ticks(most)
    for tick in ticks:
        x = scale(tick)
        canvas.line(x, top, x, bottom, "zero" if signed and tick == 0 else "grid")
        canvas.text(x, bottom + 12, tick_text(tick, ticks, signed=signed), "small quiet middle")
    canvas.line(scale.start, bottom, scale.stop, bottom, "axis")
    canvas.text((scale.start + scale.stop) / 2, bottom + 30, label, "middle")


def whisker(canvas: Canvas, scale: Scale, estimate: Estimate, y: float, cls: str, *, cap: float = 0.0) -> None:
    """An interval at the height ``y``; nothing where there is none.

    What lies beyond the axis is cut at its end, without a cap there: it would run into the figure beside it.
    """
    if math.isnan(estimate.low) or estimate.high < scale.low or estimate.low > scale.high:
        return
    low, high = scale(max(estimate.low, scale.low)), scale(min(estimate.high, scale.high))
    canvas.line(low, y, high, y, cls)
    if cap and estimate.low >= scale.low:
        canvas.line(low, y - cap, low, y + cap, cls)
    if cap and estimate.high <= scale.high:
        canvas.line(high, y - cap, high, y + cap, cls)


def _at(value: float) -> str:
    """A position with at most one digit after the point."""
    return f"{value:.1f}".removesuffix(".0")
