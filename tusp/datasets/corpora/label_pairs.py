"""Nights whose hypnogram is there twice, in two formats: the one that is read is held against the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from tusp.datasets.recording import Hypnogram, Stages
from tusp.platform.errors import DataError

MOST_DISAGREEMENT: Final = 0.01
"""Share of epochs in which the two label files of a night may differ before it is refused."""


def held_against(hypnogram: Hypnogram, labels: Path, other: Path, read_other: Callable[[], Stages]) -> Hypnogram:
    """The hypnogram of ``labels`` with a line about the second label file, where there is something to say.

    Args:
        hypnogram: what ``labels`` says; it is used.
        labels: file that was read.
        other: the second label file.
        read_other: reads its stages on the same grid; what it refuses is reported, not raised.

    Raises:
        DataError: the two differ in more than 1 % of the epochs, so that one of them is of another night.
    """
    problem = ""
    try:
        differs = hypnogram.stages != read_other()
    except DataError as error:
        problem = f"second label file not compared: {error}"
    else:
        if differs.any():
            found = f"differ in {int(differs.sum())} of {len(differs)} epochs (first: epoch {int(differs.argmax())})"
            if differs.mean() > MOST_DISAGREEMENT:
                raise DataError(f"{labels}: this file and {other.name} {found}; keep the one that is right")
            problem = f"{labels.name} and {other.name} {found}; {labels.name} is used"
    return replace(hypnogram, problems=(*hypnogram.problems, problem)) if problem else hypnogram
