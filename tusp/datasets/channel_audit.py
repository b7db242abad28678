"""The audit of one channel: how much of it is flat or clipped, how large it is, and what content it has.

Content is told by a digest that survives another name, another container, another unit or gain, and an inverted
sign: two channels with one digest hold the same recorded samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tusp.datasets.order_statistics import quartiles
from tusp.datasets.recording import Channel

FLAT_PROBLEM_SHARE: Final = 0.05
CLIPPED_PROBLEM_SHARE: Final = 0.01
PLAUSIBLE_IQR_MICROVOLTS: Final = (0.5, 2000.0)
LEAST_STEPS: Final = 1000
"""A signal that changes less often than this has no digest: too little content to call another one the same."""


@dataclass(frozen=True, kw_only=True)
class ChannelAudit:
    """One signal of a recording; numbers are NaN for signals that were not read."""

    name: str
    sampling_rate_hz: float
    unit: str
    used: bool
    """It belongs to one of the corpus's channel groups."""
    flat_share: float = float("nan")
    """Share of seconds in which the signal does not change."""
    clipped_share: float = float("nan")
    """Share of samples at the recorder's limits (:func:`clipped_share`)."""
    iqr_microvolts: float = float("nan")
    """Inter-quartile range between the first and the last scored epoch."""
    reason: str | None = None
    """Why this channel cannot be used, although its group could use it."""
    content: str | None = None
    """Digest of the samples (:func:`content_digest`); None where there is too little content."""

    def to_json(self) -> dict[str, Any]:
        """All fields; NaN is null."""
        return {key: None if value != value else value for key, value in vars(self).items()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> ChannelAudit:
        """The channel as it was before :meth:`to_json`; what an older audit did not say is NaN or None."""
        numbers = ("flat_share", "clipped_share", "iqr_microvolts")
        given = {key: value for key, value in fields.items() if not (key in numbers and value is None)}
        return cls(**given)


def _share(flags: npt.NDArray[np.bool_]) -> float:
    """Share of flags that are set; counting them is several times as fast as their mean."""
    return int(np.count_nonzero(flags)) / flags.size if flags.size else float("nan")


def flat_share(samples: npt.NDArray[np.float32], sampling_rate_hz: float) -> float:
    """Share of whole seconds (of at least two samples) in which the signal does not change."""
    width = max(round(sampling_rate_hz), 2)
    n_windows = len(samples) // width
    if n_windows == 0:
        return float(len(samples) > 0 and np.ptp(samples) == 0)
    windows = samples[: n_windows * width].reshape(n_windows, width)
    return _share(windows.max(axis=1) == windows.min(axis=1))


def clipped_share(samples: npt.NDArray[np.float32], limits: tuple[float, float] | None) -> float:
    """Share of samples at the recorder's limits; where those are not known, at the lowest and highest that occur."""
    if not len(samples):
        return float("nan")
    if limits is None:
        return _share((samples == np.nanmin(samples)) | (samples == np.nanmax(samples)))
    low, high = limits
    margin = (high - low) * 5e-6  # a third of the smallest step of 16 bits, far above the rounding of float32
    return _share((samples <= low + margin) | (samples >= high - margin))


def content_digest(samples: npt.NDArray[np.float32]) -> str | None:
    """Digest of where a signal rises and where it falls, followed by the sign under which it was taken.

    Rises and falls do not change with unit, gain or offset, and change places when the sign is inverted, so two
    exports of the same samples agree in all but the last character, and in that too unless one is inverted. Samples
    that were resampled, filtered, cut or quantised anew have another digest.

    Args:
        samples: [n].

    Returns:
        32 hexadecimal digits and ``+`` or ``-``; None for a signal that hardly changes.
    """
    rises, falls = samples[1:] > samples[:-1], samples[1:] < samples[:-1]
    if np.count_nonzero(rises) + np.count_nonzero(falls) < LEAST_STEPS:
        return None
    patterns = (np.packbits(rises).tobytes(), np.packbits(falls).tobytes())
    digest = hashlib.sha256(len(samples).to_bytes(8, "little"))
    for pattern in sorted(patterns):
        digest.update(pattern)
    return digest.hexdigest()[:32] + ("+" if patterns[0] < patterns[1] else "-")


def _spread(samples: npt.NDArray[np.float32]) -> float:
    """Inter-quartile range."""
    low, _, high = quartiles(samples)
    return high - low


def examine_channel(
    channel: Channel, samples: npt.NDArray[np.float32], span: tuple[int, int]
) -> tuple[ChannelAudit, list[str]]:
    """Say what is in a channel, and what is odd about it.

    Args:
        channel: as the header states it.
        samples: [n] in microvolts.
        span: first second and end of the scored part, which is what would be prepared.

    Returns:
        The channel, with a reason when it cannot be used, and problems (one line each) when it can.
    """
    row = ChannelAudit(name=channel.name, sampling_rate_hz=channel.sampling_rate_hz, unit=channel.unit, used=True)
    missing = span[1] - len(samples) / channel.sampling_rate_hz
    if missing > 1 / channel.sampling_rate_hz + 1e-6:
        return replace(row, reason=f"ends {missing:.1f} s before the last scored epoch"), []
    problems: list[str] = []
    finite = np.isfinite(samples)
    lost = 1.0 - _share(finite)
    if lost:
        problems.append(f"{channel.name}: {lost:.2%} of the samples are no number")
    if lost == 1.0:
        return replace(row, reason="holds no number"), []
    flat = flat_share(samples, channel.sampling_rate_hz)
    row = replace(row, flat_share=flat, clipped_share=clipped_share(samples, channel.limits))
    scored = samples[round(span[0] * channel.sampling_rate_hz) : round(span[1] * channel.sampling_rate_hz)]
    if lost:
        scored = scored[np.isfinite(scored)]
    if flat == 1.0:
        return replace(row, reason="is flat throughout"), []
    if not len(scored):
        return replace(row, reason="has no number in the scored epochs"), []
    # A sample of the samples says enough about the amplitude; only a suspicion is worth sorting them all.
    spread = _spread(scored[:: max(1, len(scored) // 500_000)])
    if spread == 0 and _spread(scored) == 0:
        return replace(row, reason="has the same value in more than half the samples"), []
    row = replace(row, iqr_microvolts=spread, content=content_digest(samples))
    if flat > FLAT_PROBLEM_SHARE:
        problems.append(f"{channel.name}: flat for {flat:.1%} of the time")
    if row.clipped_share > CLIPPED_PROBLEM_SHARE:
        at = "the lowest and highest value" if channel.limits is None else "the recorder's limits"
        problems.append(f"{channel.name}: clipped at {at} in {row.clipped_share:.1%} of the samples")
    if not PLAUSIBLE_IQR_MICROVOLTS[0] <= spread <= PLAUSIBLE_IQR_MICROVOLTS[1]:
        problems.append(f"{channel.name}: inter-quartile range of {spread:.3g} µV; is the unit {channel.unit!r} right?")
    if channel.unit.strip() == "UV":
        problems.append(f"{channel.name}: unit 'UV' taken as microvolts; other readers (MNE) take it as volts")
    return row, problems


def copied_channels(channels: Sequence[ChannelAudit]) -> list[str]:
    """Used channels of one night that hold the same samples, a line each: one of them is a copy of the other."""
    first: dict[str, ChannelAudit] = {}
    problems = []
    for channel in channels:
        if channel.content is None:
            continue
        other = first.setdefault(channel.content[:-1], channel)
        if other is not channel:
            inverted = ", inverted" if other.content != channel.content else ""
            problems.append(f"{channel.name}: the same samples as {other.name}{inverted}; one is a copy")
    return problems
