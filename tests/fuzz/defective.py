"""A reader with every defect that the harness must catch: shows that it can."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

from fuzz.mutation import Mutant, Rng
from fuzz.target import Finding, Target, judged, say

DEFECTS = ("sound", "raises", "spins", "sleeps", "crashes", "allocates", "exits", "two lines", "accepts", "wrong")


class DefectiveTarget(Target):
    """Case ``n`` shows defect ``n``."""

    name = "defective"

    def __init__(self, workspace: Path) -> None:
        super().__init__(workspace)
        self.made = 0

    def mutant(self, rng: Rng) -> Mutant:
        defect = DEFECTS[int(rng.integers(len(DEFECTS)))]
        return Mutant(files={"defect": defect.encode()}, what=[defect], must_refuse=defect == "accepts")

    def check(self, root: Path, mutant: Mutant) -> str:
        defect = mutant.what[0]
        if defect == "raises":
            raise ZeroDivisionError("a traceback")
        if defect == "spins":
            while True:
                pass
        if defect == "sleeps":
            time.sleep(3600)
        if defect == "crashes":
            ctypes.string_at(0)
        if defect == "allocates":
            bytearray(2**33)
        if defect == "exits":
            raise SystemExit(0)
        if defect == "two lines":
            say("one\ntwo")
        if defect == "wrong":
            raise Finding("labels differ")
        return judged("equal", mutant)
