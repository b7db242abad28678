"""dod-h: Dreem Open Dataset, healthy volunteers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from tusp.datasets.corpora.dod_nights import DodNights, dod_card
from tusp.datasets.recording import CorpusCard


@dataclass(frozen=True, kw_only=True)
class DodH(DodNights):
    """25 nights in the laboratory of 25 healthy volunteers."""

    name: ClassVar[str] = "dod-h"
    eeg: ClassVar[Sequence[str]] = (
        "C3_M2",
        "F4_M1",
        "F3_F4",
        "F3_M2",
        "F4_O2",
        "F3_O1",
        "FP1_F3",
        "FP1_M2",
        "FP1_O1",
        "FP2_F4",
        "FP2_M1",
        "FP2_O2",
    )
    trims: ClassVar[Mapping[str, tuple[int, int | None]]] = {
        "5bf0f969-304c-581e-949c-50c108f62846": (60, None),
        "b5d5785d-87ee-5078-b9b9-aac6abd4d8de": (60, None),
        "3e842aa8-bcd9-521e-93a2-72124233fe2c": (0, 620),
    }

    @property
    def card(self) -> CorpusCard:
        return dod_card(
            name=self.name,
            title="Dreem Open Dataset, healthy volunteers",
            eeg=self.eeg,
            trimmed=(
                "Light trims, as in the publication: the first 60 epochs of 5bf0f969-304c-581e-949c-50c108f62846 and"
                " b5d5785d-87ee-5078-b9b9-aac6abd4d8de, and everything from epoch 620 on of"
                " 3e842aa8-bcd9-521e-93a2-72124233fe2c do not count.",
            ),
            nights=25,
            people=25,
        )
