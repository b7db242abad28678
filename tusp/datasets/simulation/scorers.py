"""Five people who score the same simulated night: how they disagree, and where each begins and stops.

Each sees the same signs: how much of every stage an epoch shows (the unclear epochs are unclear to all of them), and
what comes before and after. Each weighs them with an inclination of their own towards each stage, with a care of their
own, and with errors that last for some epochs. The constants are set so that the agreement is that of the real scorers
of DOD-H.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tusp.datasets.simulation.hypnogram import Night
from tusp.datasets.simulation.person import Person
from tusp.datasets.simulation.signals import shown_stages
from tusp.datasets.simulation.statistics import Codes
from tusp.platform.stages import EPOCH_SECONDS, N_STAGES, UNSCORED, W

N_SCORERS: Final = 5

SIGNS: Final = 0.2
"""Weight of what an epoch shows beside what it is in the course of the night."""

NEARBY_EPOCHS: Final = 0.8
"""How far (SD of a Gaussian, epochs) the course of the night is blurred: where a bout ends is a matter of opinion."""

CONFUSED: Final = (
    (0.00, 0.30, 0.05, 0.00, 0.05),
    (0.30, 0.00, 0.35, 0.00, 0.20),
    (0.05, 0.25, 0.00, 0.30, 0.10),
    (0.00, 0.00, 0.35, 0.00, 0.00),
    (0.05, 0.15, 0.10, 0.00, 0.00),
)
"""What every stage is taken for [true stage, other stage]: a head start in the unit of a stage's share."""

INCLINATION: Final = (0.09, 0.15, 0.09, 0.23, 0.12)
"""SD of a scorer's inclination towards each stage in one night."""

ERROR: Final = 0.33
"""SD of what a scorer of usual care adds to the share of a stage."""

LASTING: Final = 2.0
"""Epochs (SD of a Gaussian) over which an error lasts."""


@dataclass(frozen=True, kw_only=True)
class Scorings:
    """The lists of all scorers of one night, and where the signal lies in them."""

    lists: tuple[Codes, ...]
    """Stages by scorer on one grid, -1 where a scorer had not begun, had stopped, or left an epoch out. The ends may
    be missing from some."""
    first: int
    """Epoch of the lists with which the signal begins: every scorer has begun."""


def score(
    night: Night,
    person: Person,
    seeds: np.random.SeedSequence,
    random: np.random.Generator,
    *,
    lead: int = 0,
) -> Scorings:
    """Draw the five lists.

    Args:
        night: the truth; the signal covers just this.
        person: whose signs are more or less clear.
        seeds: those of the night's signals, so that scorers see what the signals show.
        random: of the scorers.
        lead: epochs awake before the signal begins that the lists have, too; in some nights all but one scorer
            has begun somewhere in them.
    """
    shown = shown_stages(night.brain, person, seeds)
    course = (night.brain == np.arange(N_STAGES)[:, None]).astype(np.float64)
    shares = SIGNS * shown.reshape(N_STAGES, -1, EPOCH_SECONDS).mean(axis=2)
    shares += ndimage.gaussian_filter1d(course, NEARBY_EPOCHS, axis=1, mode="nearest")
    shares += np.array(CONFUSED)[night.brain].T
    n_epochs = len(night.brain)
    begins = np.zeros(N_SCORERS, dtype=int)
    if lead:
        begins = random.integers(0, lead + 1, N_SCORERS)
        begins[int(random.integers(N_SCORERS))] = lead
    tail = int(random.integers(8, 60)) if n_epochs > 600 else int(random.integers(1, 5))
    ends = np.zeros(N_SCORERS, dtype=int)
    if random.random() < 0.6:
        ends = np.where(random.random(N_SCORERS) < 0.4, tail, random.integers(0, tail + 1, N_SCORERS))
        ends[int(random.integers(N_SCORERS))] = 0
    ends = np.minimum(ends.max() - ends, tail)
    ragged = random.random() < 0.25
    total = lead + n_epochs + int(ends.max())
    lists = []
    for scorer in range(N_SCORERS):
        care = float(np.exp(random.normal(0, 0.25)))
        inclination = random.normal(size=N_STAGES) * INCLINATION
        error = ndimage.gaussian_filter1d(random.standard_normal(shares.shape), LASTING, axis=1, mode="reflect")
        error *= np.sqrt(2 * np.sqrt(np.pi) * LASTING)
        found = np.full(total, W, dtype=np.int8)
        found[lead : lead + n_epochs] = np.argmax(shares + inclination[:, None] + ERROR * care * error, axis=0)
        end = lead + n_epochs + int(ends[scorer])
        inside = np.arange(lead + 1, lead + n_epochs - 1)
        forgotten = inside[random.random(len(inside)) < 0.0005] if random.random() < 0.3 else inside[:0]
        found[forgotten] = UNSCORED
        found[: begins[scorer]] = UNSCORED
        found[end:] = UNSCORED
        lists.append(found[:end] if ragged and scorer else found)
    return Scorings(lists=tuple(lists), first=lead)


def cut_votes(scorings: Scorings, n_epochs: int) -> npt.NDArray[np.int8]:
    """What the scorers gave the epochs of the signal, [scorer, epoch]."""
    return np.stack([one[scorings.first : scorings.first + n_epochs] for one in scorings.lists])
