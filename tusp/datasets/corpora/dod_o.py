"""dod-o: Dreem Open Dataset, patients with obstructive sleep apnoea."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tusp.datasets.corpora.dod_nights import DodNights, dod_card
from tusp.datasets.recording import CorpusCard


@dataclass(frozen=True, kw_only=True)
class DodO(DodNights):
    """55 nights in the laboratory of 55 patients."""

    name: ClassVar[str] = "dod-o"
    eeg: ClassVar[Sequence[str]] = ("C3_M2", "C4_M1", "F3_F4", "F3_M2", "F4_O2", "F3_O1", "O1_M2", "O2_M1")

    @property
    def card(self) -> CorpusCard:
        return dod_card(
            name=self.name,
            title="Dreem Open Dataset, patients with obstructive sleep apnoea",
            eeg=self.eeg,
            nights=55,
            people=55,
        )
