"""What all pictures share: colours, sizes, intervals as whiskers, and how numbers are written."""

from __future__ import annotations

import math
import textwrap
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from tusp.platform.scoring.statistics import Estimate

STAGE_COLOURS: Final = ("#E8A33D", "#8CC5E3", "#3B82B8", "#1B3A5C", "#B04A7A")
"""W amber, N1 to N3 from light to dark blue, REM plum."""

INK, QUIET, ALARM = "#22303C", "#8A97A3", "#C8442D"
"""Text and main lines, secondary lines, disagreement."""

GRID: Final = "#E4E8EB"
DPI: Final = 150


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, size in inches."""
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    return Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")


def titled(title: str, second_line: str) -> str:
    """A title of two lines."""
    return f"{title}\n{second_line}"


def wrapped(name: str, *, letters: int = 28) -> str:
    """A name in lines of at most so many letters, so that a long one leaves the picture its room."""
    return textwrap.fill(name, letters, break_long_words=True)


def score_text(value: float) -> str:
    """``0.812``; ``not scored`` for NaN."""
    return "not scored" if math.isnan(value) else f"{value:.3f}"


def signed_text(value: float, _position: int | None) -> str:
    """``+0.03``, ``−0.02``, ``0``: a formatter of axes."""
    return "0" if abs(value) < 1e-12 else f"{value:+.3g}".replace("-", "−")


def whisker(axes: Axes, estimate: Estimate, place: float, *, colour: str, caps: float = 3) -> None:
    """An interval about ``estimate`` at the height ``place``; nothing where there is none."""
    if not math.isnan(estimate.low):
        below, above = estimate.value - estimate.low, estimate.high - estimate.value
        axes.errorbar(
            estimate.value, place, xerr=[[max(0, below)], [max(0, above)]],
            color=colour, capsize=caps, linewidth=1.3, fmt="none",
        )  # fmt: skip


def bare(axes: Axes) -> None:
    """No frame above and on the right."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
