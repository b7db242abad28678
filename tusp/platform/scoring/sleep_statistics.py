"""Sleep statistics of a hypnogram, and how well those of two hypnograms agree. numpy alone.

Definitions follow the AASM manual for the scoring of sleep (version 2.6, section II) with the hypnogram's own span in
the place of lights off to lights on, which most corpora do not tell.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt

from tusp.platform.scoring.statistics import Estimate, percentile_interval, shared_weights
from tusp.platform.stages import EPOCH_SECONDS, N1, N2, N3, N_STAGES, REM, UNSCORED, W

_MINUTES: Final = EPOCH_SECONDS / 60
_LIMIT: Final = 1.959963984540054
"""97.5 % quantile of the normal distribution."""


@dataclass(frozen=True, kw_only=True)
class SleepStatistics:
    """What a clinician reads from a night. NaN where it is not defined (a latency without the stage, a share without
    sleep)."""

    total_sleep_time: float
    """Minutes asleep."""
    sleep_efficiency: float
    """Minutes asleep over scored minutes, 0 to 1."""
    sleep_latency: float
    """Minutes from the beginning to the first sleep epoch."""
    rem_latency: float
    """Minutes from the first sleep epoch to the first REM epoch."""
    wake_after_sleep_onset: float
    """Minutes awake between the first and the last sleep epoch."""
    share_n1: float
    share_n2: float
    share_n3: float
    share_rem: float
    """Share of the time asleep in each stage, 0 to 1."""


STATISTICS: Final = tuple(field.name for field in fields(SleepStatistics))
UNITS: Final = {
    name: "share" if name.startswith("share") or name == "sleep_efficiency" else "min" for name in STATISTICS
}


def sleep_statistics(stages: npt.ArrayLike) -> SleepStatistics:
    """Statistics of a night.

    Args:
        stages: [n_epochs] codes; unscored epochs (-1) pass time but belong to no stage.

    Raises:
        ValueError: a code outside -1 to 4.
    """
    codes = np.asarray(stages, dtype=np.int64)
    if codes.ndim != 1 or ((codes < UNSCORED) | (codes >= N_STAGES)).any():
        raise ValueError("a hypnogram is a list of stage codes from -1 to 4")
    asleep = np.flatnonzero(codes > W)
    scored = int((codes != UNSCORED).sum())
    nan = float("nan")
    if not asleep.size:
        efficiency = 0.0 if scored else nan
        return SleepStatistics(
            total_sleep_time=0.0 if scored else nan,
            sleep_efficiency=efficiency,
            sleep_latency=nan,
            rem_latency=nan,
            wake_after_sleep_onset=nan,
            share_n1=nan,
            share_n2=nan,
            share_n3=nan,
            share_rem=nan,
        )
    onset, end = int(asleep[0]), int(asleep[-1]) + 1
    rem = np.flatnonzero(codes == REM)
    counts = np.bincount(codes[asleep], minlength=N_STAGES)
    return SleepStatistics(
        total_sleep_time=asleep.size * _MINUTES,
        sleep_efficiency=asleep.size / scored,
        sleep_latency=onset * _MINUTES,
        rem_latency=(int(rem[0]) - onset) * _MINUTES if rem.size else nan,
        wake_after_sleep_onset=int((codes[onset:end] == W).sum()) * _MINUTES,
        share_n1=counts[N1] / asleep.size,
        share_n2=counts[N2] / asleep.size,
        share_n3=counts[N3] / asleep.size,
        share_rem=counts[REM] / asleep.size,
    )


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Bland-Altman agreement of one statistic between predicted and expert hypnograms."""

    statistic: str
    recordings: int
    """Recordings in which both define the statistic."""
    people: int
    bias: Estimate
    """Mean of predicted minus expert, with an interval over people."""
    lower: Estimate
    upper: Estimate
    """Limits of agreement, bias -+ 1.96 SD of the differences, each with an interval over people."""


def bland_altman(
    predicted: npt.ArrayLike,
    expert: npt.ArrayLike,
    people: npt.ArrayLike,
    *,
    statistic: str,
    resamples: int = 2000,
    seed: int = 0,
) -> Agreement:
    """Bias and limits of agreement (J. M. Bland and D. G. Altman, Statistical Methods in Medical Research 8, 135-160,
    1999), with percentile intervals from a bootstrap clustered by person, since two nights of a person are alike.

    Args:
        predicted, expert: [n] one value a recording; pairs with a NaN are left out.
        people: [n] whose recording it is.

    Returns:
        NaN where nothing is left, and no interval with fewer than two people.
    """
    difference = np.asarray(predicted, np.float64) - np.asarray(expert, np.float64)
    names = np.asarray(people, dtype=object)
    kept = ~np.isnan(difference)
    difference, names = difference[kept], names[kept]
    persons = sorted(set(names.tolist()))
    nothing = Estimate(value=float("nan"))
    if difference.size == 0:
        return Agreement(statistic=statistic, recordings=0, people=0, bias=nothing, lower=nothing, upper=nothing)
    place = {name: index for index, name in enumerate(persons)}
    owner = np.array([place[name] for name in names.tolist()])

    def bounds(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Bias, lower and upper limit [3, B] of weighted recordings [B, n]."""
        total = weights.sum(1)
        mean = weights @ difference / total
        square = (weights * (difference - mean[:, None]) ** 2).sum(1)
        spread = np.sqrt(np.divide(square, total - 1, out=np.full_like(square, np.nan), where=total > 1))
        return np.stack([mean, mean - _LIMIT * spread, mean + _LIMIT * spread])

    point = bounds(np.ones((1, difference.size)))[:, 0]
    low = high = np.full(3, np.nan)
    if len(persons) >= 2:
        drawn = shared_weights(len(persons), resamples, seed)
        # As many resamples at once as the processor's cache holds; in eights, so that no digit depends on it.
        at_once = max(8, 2**16 // difference.size // 8 * 8)
        parts = [
            bounds(drawn[start : start + at_once, owner].astype(np.float64)) for start in range(0, resamples, at_once)
        ]
        low, high = percentile_interval(np.concatenate(parts, axis=1).T)
    bias, lower, upper = (
        Estimate(value=float(value), low=float(below), high=float(above))
        for value, below, above in zip(point, low, high, strict=True)
    )
    return Agreement(
        statistic=statistic, recordings=difference.size, people=len(persons), bias=bias, lower=lower, upper=upper
    )
