"""Names of the scoring rules (:mod:`tusp.platform.scoring.rules`), for what asks for one without judging anything."""

from typing import Final

RULES: Final = ("full", "trim30")
"""Rules that every cell counts: ``full`` judges every scored epoch, ``trim30`` from 30 min before the first to 30 min
after the last sleep epoch."""
