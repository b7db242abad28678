"""Figures as SVG that may stand inside a page: its colours and letters, no scripts, nothing from elsewhere."""

from __future__ import annotations

import io
import re
from typing import Any, Final
from xml.etree import ElementTree

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.text import Text

_SVG: Final = "http://www.w3.org/2000/svg"
_XLINK: Final = "{http://www.w3.org/1999/xlink}href"
_KEPT: Final = frozenset(
    f"{{{_SVG}}}{name}"
    for name in ("svg", "g", "path", "text", "tspan", "use", "defs", "clipPath", "rect", "line", "circle", "polygon")
)
"""Everything else (scripts, style sheets, metadata, raster images) is left out."""

COLOURS: Final = {
    "#22303c": "var(--ink)",
    "#000000": "var(--ink)",
    "black": "var(--ink)",
    "#ffffff": "var(--paper)",
    "#8a97a3": "var(--quiet)",
    "#e4e8eb": "var(--line)",
    "#b0b0b0": "var(--line)",
    "#c5d3de": "var(--faint)",
    "#e8a33d": "var(--w)",
    "#8cc5e3": "var(--n1)",
    "#3b82b8": "var(--n2)",
    "#1b3a5c": "var(--n3)",
    "#b04a7a": "var(--rem)",
}
"""Colours of the figures to those of the page, which knows a light and a dark set of them."""


def inline_svg(figure: Figure, *, alt: str, prefix: str) -> str:
    """A figure as an ``<svg>`` element.

    Args:
        figure: drawn without its heading: the page has one.
        alt: what a reader who does not see it is told.
        prefix: of every id, so that several figures in a page do not take each other's.
    """
    figure.suptitle("")
    for axes in figure.axes:
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)  # names are names, also those with dollars in them
    target = io.StringIO()
    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "tusp", "axes.formatter.use_mathtext": False}
    with rc_context(settings):
        figure.savefig(
            target, format="svg", transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )  # fmt: skip
    root = ElementTree.fromstring(target.getvalue())
    _clean(root, prefix)
    width = float(root.attrib.pop("width").removesuffix("pt"))
    root.attrib.pop("height")
    root.attrib.pop("version", None)
    # Letters of the figures are in points of print; a page is read from a little farther away.
    root.attrib |= {"role": "img", "aria-label": alt, "style": f"width:{round(width * 4 / 3)}px"}
    ElementTree.register_namespace("", _SVG)
    return ElementTree.tostring(root, encoding="unicode")


def _clean(element: ElementTree.Element, prefix: str) -> None:
    for child in list(element):
        if child.tag in _KEPT:
            _clean(child, prefix)
        else:
            element.remove(child)
    for name, value in list(element.attrib.items()):
        if name == "id":
            element.attrib[name] = f"{prefix}-{value}"
        elif name == _XLINK:
            del element.attrib[name]
            element.attrib["href"] = f"#{prefix}-{value.removeprefix('#')}"
        elif name == "style":
            element.attrib[name] = _style(value)
        elif "url(#" in value:
            element.attrib[name] = value.replace("url(#", f"url(#{prefix}-")
        elif name.startswith("on"):
            del element.attrib[name]


def _style(style: str) -> str:
    style = re.sub(r"font: ((?:\d+ )?[\d.]+px) [^;]*", r"font: \1 var(--sans)", style)
    style = re.sub(r"font-family: [^;]*", "font-family: var(--sans)", style)
    for colour, variable in COLOURS.items():
        style = re.sub(rf"(?<=: ){colour}\b", variable, style, flags=re.IGNORECASE)
    return style
