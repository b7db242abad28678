"""sedf-st: Sleep-EDF Expanded 1.0.0, sleep-telemetry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tusp.datasets.corpora.sleep_edf import SleepEdf, sleep_edf_card
from tusp.datasets.recording import CorpusCard


@dataclass(frozen=True, kw_only=True)
class SedfSt(SleepEdf):
    """44 nights of 22 people, one under placebo and one under temazepam each."""

    prefix: ClassVar[str] = "ST7"
    letter: ClassVar[str] = "J"

    @property
    def card(self) -> CorpusCard:
        return sleep_edf_card(
            name="sedf-st",
            title="Sleep-EDF Expanded, sleep-telemetry",
            subject_rule="characters 4 and 5 of the file name: ST7ssN",
            folder="sleep-telemetry",
            files=("ST7ssNJ0-PSG.edf", "ST7ssNJx-Hypnogram.edf"),
            reads=(
                "The night under placebo and the one under temazepam are two nights of one person; which is which is"
                " not read.",
            ),
            nights=44,
            people=22,
        )
