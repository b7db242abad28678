"""sedf-sc: Sleep-EDF Expanded 1.0.0, sleep-cassette."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tusp.datasets.corpora.sleep_edf import SleepEdf, sleep_edf_card
from tusp.datasets.recording import CorpusCard


@dataclass(frozen=True, kw_only=True)
class SedfSc(SleepEdf):
    """153 nights at home of 78 healthy people."""

    prefix: ClassVar[str] = "SC4"
    letter: ClassVar[str] = "E"

    @property
    def card(self) -> CorpusCard:
        return sleep_edf_card(
            name="sedf-sc",
            title="Sleep-EDF Expanded, sleep-cassette",
            subject_rule="characters 4 and 5 of the file name: SC4ssN",
            folder="sleep-cassette",
            files=("SC4ssNE0-PSG.edf", "SC4ssNEx-Hypnogram.edf"),
            reads=(
                "A hypnogram spans 24 h, its night about 22 h: what is left over is clipped.",
                "sedf-20 is a named subset, the people 00 to 19: the same people, never a corpus of its own.",
            ),
            nights=153,
            people=78,
            subsets={"sedf-20": tuple(f"SC4{person:02d}" for person in range(20))},
        )
