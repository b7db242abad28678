"""What is done to the samples of one channel: resampling to 128 Hz, clipping, robust scaling. Reads no file.

Nothing is fitted across recordings: every number used comes from the channel itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from tusp.datasets.order_statistics import Workspace, quartiles
from tusp.datasets.prepared import SAMPLES_PER_EPOCH, SAMPLING_RATE_HZ
from tusp.datasets.recording import Stages
from tusp.datasets.resampling import resample
from tusp.platform.errors import DataError
from tusp.platform.stages import EPOCH_SECONDS, UNSCORED, W

_DENOMINATORS = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)
_LARGEST_FACTOR = 200_000
"""Bounds the filter's length (20 taps a unit)."""

_STRIDE = 16
_BLOCK = 48 * 1024
"""Samples worked on at a time: the intermediate results stay in the processor's cache."""


class FlatChannelError(Exception):
    """At least half of the samples share one value, so the channel has no scale."""


class ShortChannelError(Exception):
    """The channel ends before the last epoch of the span."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """Epochs kept of a raw recording: ``[first, stop)`` on its own 30-s grid."""

    first: int
    stop: int

    @property
    def n_epochs(self) -> int:
        """Number of epochs kept."""
        return self.stop - self.first


@dataclass(frozen=True, kw_only=True)
class Conditioned:
    """A channel ready for the store."""

    samples: npt.NDArray[np.float16]
    """[n_epochs x 3840], median 0, inter-quartile range 1, within +-clip."""
    median: float
    iqr: float
    clipped_share: float
    """0 to 1."""
    not_finite_share: float
    """Share of original samples that were NaN or infinite and were replaced by the median, 0 to 1."""


def kept_span(stages: Stages, *, wake_margin_minutes: int | None = None) -> Span:
    """From the first to the last scored epoch; with a margin, no more than that much wake around sleep.

    Args:
        stages: codes on the recording's grid.
        wake_margin_minutes: what to keep before the first and after the last sleep epoch; None keeps all. A
            night without sleep is kept whole.

    Raises:
        DataError: no epoch is scored.
    """
    scored = np.flatnonzero(stages != UNSCORED)
    if not scored.size:
        raise DataError("no epoch is scored")
    first, last = int(scored[0]), int(scored[-1])
    asleep = np.flatnonzero(stages > W)
    if wake_margin_minutes is not None and asleep.size:
        margin = wake_margin_minutes * 60 // EPOCH_SECONDS
        within = scored[(scored >= asleep[0] - margin) & (scored <= asleep[-1] + margin)]
        first, last = int(within[0]), int(within[-1])
    return Span(first=first, stop=last + 1)


def resampling_ratio(rate_hz: float, n_samples: int) -> Fraction:
    """128 Hz over ``rate_hz`` as the simplest ratio that drifts less than half a sample over the recording.

    Raises:
        DataError: the rate is not a positive number, or no small ratio is close enough.
    """
    if not math.isfinite(rate_hz) or rate_hz <= 0:
        raise DataError(f"sampling rate {rate_hz} Hz is not a positive number")
    for denominator in _DENOMINATORS:
        rate = Fraction(rate_hz).limit_denominator(denominator)
        if rate and abs(float(rate) / rate_hz - 1) * n_samples < 0.5:
            ratio = SAMPLING_RATE_HZ / rate
            if max(ratio.numerator, ratio.denominator) <= _LARGEST_FACTOR:
                return ratio
    raise DataError(f"sampling rate {rate_hz} Hz is no simple ratio of {SAMPLING_RATE_HZ} Hz")


def resample_span(
    samples: npt.NDArray[np.float32],
    *,
    ratio: Fraction,
    first_sample: int,
    n_samples: int,
    centre: float = 0.0,
    all_finite: bool = True,
    workspace: Workspace | None = None,
) -> npt.NDArray[np.float32]:
    """Output samples ``[first_sample, first_sample + n_samples)`` of the whole signal resampled by ``ratio``.

    Polyphase filtering with a linear-phase low-pass (that of scipy's ``resample_poly``: Kaiser window, beta 5,
    20 x max(up, down) + 1 taps, cut off at the lower Nyquist frequency), its delay removed, so that output
    sample ``m`` lies at ``m / 128`` seconds. Only what the filter can see is filtered: the result is that of
    resampling everything and cutting afterwards. Beyond the ends of the recording the last value is held.

    Args:
        samples: the whole recording at its own rate.
        ratio: output rate over input rate.
        first_sample, n_samples: in output samples.
        centre: subtracted from every sample.
        all_finite: False makes samples that are no number ``centre``.
        workspace: where the result is to lie, until the workspace is used again.

    Raises:
        ShortChannelError: the signal ends more than one of its own samples before the span does.
    """
    there = math.ceil(len(samples) * ratio)
    lacking = first_sample + n_samples - there
    if lacking > math.ceil(ratio):
        raise ShortChannelError(f"ends {lacking / SAMPLING_RATE_HZ:.1f} s before the last epoch")
    out = resample(
        samples,
        up=ratio.numerator,
        down=ratio.denominator,
        first_sample=first_sample,
        n_samples=n_samples,
        centre=centre,
        all_finite=all_finite,
        workspace=workspace,
    )
    if lacking > 0:
        out[-lacking:] = out[-lacking - 1]
    return out


def _usual_level(samples: npt.NDArray[np.float32], *, all_finite: bool) -> float:
    """A value in the middle of the samples, to be subtracted before filtering so that an offset cannot ripple.

    The median of every 16th sample where that shows that the channel is not flat, else of all of them. Flatness is
    judged on original samples: the filter's ripple would give a constant a tiny scale.

    Raises:
        FlatChannelError: the inter-quartile range is 0.
    """
    if not all_finite:
        samples = samples[np.isfinite(samples)]
    few = samples[::_STRIDE].copy()
    few.partition(len(few) // 2)
    level = few[len(few) // 2]
    # With more than a quarter of all samples at or below it and more than a quarter above it, the quartiles differ.
    if abs(np.count_nonzero(samples <= level) - len(samples) / 2) < len(samples) / 4 - 1:
        return float(level)
    low, median, high = quartiles(samples)
    if high <= low:
        raise FlatChannelError
    return median


def condition(
    samples: npt.NDArray[np.float32],
    *,
    sampling_rate_hz: float,
    span: Span,
    clip_iqr: float,
    workspace: Workspace | None = None,
) -> Conditioned:
    """Resample a channel, cut it to the span, clip it about its median and scale it.

    With ``m`` the median and ``q`` the inter-quartile range (25 % to 75 %, linear interpolation) of the
    resampled samples of the span: ``y = clip((x - m) / q, -clip_iqr, clip_iqr)``. Clipping at
    ``m +- clip_iqr x q`` leaves median and quartiles as they are, so they may be taken before it.

    Args:
        samples: [n] the whole recording at its own rate, any unit.
        sampling_rate_hz: that rate.
        span: epochs to keep; epoch ``i`` covers seconds ``[30 i, 30 i + 30)``.
        clip_iqr: clipping range in inter-quartile ranges.
        workspace: memory to use again for the next channel.

    Raises:
        FlatChannelError: the inter-quartile range is 0.
        ShortChannelError: the channel ends before the span does.
        DataError: the sampling rate cannot be used.
    """
    samples = np.asarray(samples)
    ratio = resampling_ratio(sampling_rate_hz, len(samples))
    raw_begin = math.floor(span.first * EPOCH_SECONDS * sampling_rate_hz)
    raw_span = samples[raw_begin : math.ceil(span.stop * EPOCH_SECONDS * sampling_rate_hz)]
    all_finite = _not_finite_share(samples) == 0
    not_finite_share = 0.0 if all_finite and raw_span.size else _not_finite_share(raw_span)
    if not_finite_share == 1.0:
        raise FlatChannelError
    centre = _usual_level(raw_span, all_finite=not_finite_share == 0)
    x = resample_span(
        samples,
        ratio=ratio,
        first_sample=span.first * SAMPLES_PER_EPOCH,
        n_samples=span.n_epochs * SAMPLES_PER_EPOCH,
        centre=centre,
        all_finite=all_finite,
        workspace=workspace,
    )
    low, median, high = quartiles(x, workspace)
    iqr = high - low
    if not iqr > 0:
        raise FlatChannelError
    scaled, n_clipped = _clipped_halves(x, median=median, iqr=iqr, clip_iqr=clip_iqr)
    return Conditioned(
        samples=scaled,
        median=centre + median,
        iqr=iqr,
        clipped_share=n_clipped / x.size,
        not_finite_share=not_finite_share,
    )


def _not_finite_share(samples: npt.NDArray[np.float32]) -> float:
    """Share of samples that are NaN or infinite; 1 when there are none at all."""
    if not samples.size:
        return 1.0
    # The least and the greatest are NaN when any sample is.
    if math.isfinite(samples.min()) and math.isfinite(samples.max()):
        return 0.0
    return 1.0 - np.count_nonzero(np.isfinite(samples)) / samples.size


def _clipped_halves(
    x: npt.NDArray[np.float32], *, median: float, iqr: float, clip_iqr: float
) -> tuple[npt.NDArray[np.float16], int]:
    """``clip((x - median) / iqr, -clip_iqr, clip_iqr)`` as float16, and how many samples were clipped.

    Rounded to the nearest float16, ties away from zero. numpy converts one value after the other; whole blocks of
    integers take a fraction of that. Times 2^-112 a float32 has the exponent of a float16 in the lowest 5 of its 8
    bits; adding half of the last kept bit and dropping the last 13 of its 23 bits of fraction rounds it.
    """
    out = np.empty(x.shape, np.float16)
    halves = out.view(np.uint16)
    scaled, signs = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.uint32)
    # Arrays without a dimension: numpy takes them several times as fast as numbers.
    centre, scale, tiny = (np.array(value, np.float32) for value in (median, iqr, 2.0**-112))
    half_a_bit, sign_bit, to_sign, to_fraction = (np.array(value, np.uint32) for value in (0x1000, 0x8000, 16, 13))
    n_clipped = 0
    for begin in range(0, len(x), _BLOCK):
        block = x[begin : begin + _BLOCK]
        y, sign = scaled[: len(block)], signs[: len(block)]
        np.subtract(block, centre, y)
        np.divide(y, scale, y)
        if np.maximum.reduce(y) > clip_iqr or np.minimum.reduce(y) < -clip_iqr:
            n_clipped += int(np.count_nonzero(np.abs(y) > clip_iqr))
            np.clip(y, -clip_iqr, clip_iqr, out=y)
        np.multiply(y, tiny, y)
        bits = y.view(np.uint32)
        np.add(bits, half_a_bit, bits)
        np.right_shift(bits, to_sign, sign)
        np.bitwise_and(sign, sign_bit, sign)
        np.right_shift(bits, to_fraction, bits)
        np.bitwise_or(bits, sign, bits)
        np.copyto(halves[begin : begin + _BLOCK], bits, casting="unsafe")
    return out, n_clipped
