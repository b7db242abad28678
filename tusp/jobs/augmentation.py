"""Augmentations of scaled windows [n, channels, samples], a whole batch at once on the device that holds it.

Every draw comes from a key (seed, pass, step) and belongs to a row of the whole batch, so a part of a batch (of one
process among several, or of one that ran out of memory) is augmented as it is inside the whole one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tusp.jobs.recipes import Augmentation

WARP, NOISE, REGION_NOISE, ERASE, CHANNEL_DROPOUT = range(5)
_FIELDS: Final = 0xF1E1D
"""Sets the generators of noise apart from those of everything else with the same key."""

Numbers = npt.NDArray[np.float64]


def _generator(key: Sequence[int], kind: int, device: torch.device) -> torch.Generator:
    """A generator of the device; the same hardware draws the same numbers for the same key."""
    seed = np.random.SeedSequence([*key, _FIELDS, kind]).generate_state(1, np.uint64)[0]
    return torch.Generator(device=device).manual_seed(int(seed >> np.uint64(1)))


def _between(share: Numbers, limits: Sequence[float]) -> Numbers:
    return limits[0] + share * (limits[1] - limits[0])


def _regions(length_share: Numbers, place_share: Numbers, samples: int, fraction: Sequence[float]) -> npt.NDArray[Any]:
    """First and last + 1 sample of stretches of log-uniform length, anywhere in the window; int64 [n, 2]."""
    share = np.exp(_between(length_share, [math.log(fraction[0]), math.log(fraction[1])]))
    length = np.maximum(1, (samples * share).astype(np.int64))
    first = (place_share * (samples - length + 1)).astype(np.int64)
    return np.stack([first, first + length], axis=1)


def _fast_length(least: int) -> int:
    """The smallest number from ``least`` on without a prime factor above 5: Fourier transforms of it are fast."""
    for n in range(least, 2 * least + 1):
        rest = n
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return n
    raise AssertionError("there is a power of two between a number and its double")


def elastic_warp(windows: Tensor, displacement: Tensor, sigma: Tensor, *, largest_sigma: float) -> Tensor:
    """Move each sample by a smoothed displacement (Simard et al. 2003), with linear interpolation.

    A sample that would come from beyond an end comes from the end. Smoothing is a Gaussian cut off at four standard
    deviations, zeros beyond the ends; computed by a Fourier transform, since its kernels have hundreds of taps.

    Args:
        windows: [n, channels, samples].
        displacement: [n, samples], in samples, before smoothing.
        sigma: [n], standard deviation of the smoothing in samples.
        largest_sigma: none of them is above it. It sets the length of the transform, which is thus the same for every
            batch.
    """
    n, channels, samples = windows.shape
    # floor(4 sigma + 0.5) taps on either side, as scipy.ndimage.gaussian_filter1d cuts it.
    reach = torch.floor(4 * sigma + 0.5).clamp(min=1)
    length = _fast_length(samples + max(1, int(4 * largest_sigma + 0.5)))
    grid = torch.arange(length, dtype=torch.float32, device=windows.device)
    away = torch.minimum(grid, length - grid)  # the kernel's centre is sample 0 of a circle
    kernel = torch.exp(-0.5 * (away / sigma[:, None]) ** 2) * (away <= reach[:, None])
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    spectrum = torch.fft.rfft(displacement, n=length) * torch.fft.rfft(kernel)
    smooth = torch.fft.irfft(spectrum, n=length)[:, :samples]
    # The whole and the broken part apart: a place of 100,000 samples has no room for a fraction in 32 bits.
    whole = smooth.floor()
    share = (smooth - whole)[:, None]
    left = torch.arange(samples, device=windows.device) + whole.long()
    right = (left + 1).clamp(0, samples - 1)[:, None].expand(n, channels, samples)
    left = left.clamp(0, samples - 1)[:, None].expand(n, channels, samples)
    warped: Tensor = windows.gather(2, left) * (1 - share) + windows.gather(2, right) * share
    return warped


def augment(
    signals: Tensor, settings: Augmentation, key: Sequence[int], *, batch: int | None = None, first: int = 0
) -> Tensor:
    """Augment windows [n, channels, samples] in place and return them.

    Args:
        key: what the draws come from (seed, pass, step).
        batch: windows of the whole batch, when these are a part of it.
        first: row of the whole batch that the first of these is.
    """
    n, channels, samples = signals.shape
    batch = n if batch is None else batch
    device = signals.device
    random = np.random.default_rng(np.random.SeedSequence([*key, 0xA6]))
    # Always the same draws, used or not: one switch does not change the others' luck.
    happens, shares = random.random((batch, 5)), random.random((batch, 7))

    def here(kind: int, probability: float) -> tuple[npt.NDArray[np.int64], slice]:
        """Rows of the whole batch to which it happens, and which of these are ours."""
        rows = np.flatnonzero(happens[:, kind] < probability)
        return rows, slice(int(np.searchsorted(rows, first)), int(np.searchsorted(rows, first + n)))

    def put(values: npt.NDArray[Any], dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device, dtype)

    def inside(regions: npt.NDArray[Any]) -> Tensor:
        """Bool [rows, 1, samples]."""
        grid, ends = torch.arange(samples, device=device), put(regions, torch.int64)
        return ((grid >= ends[:, :1]) & (grid < ends[:, 1:]))[:, None]

    def normal(kind: int, rows: int) -> Tensor:
        return torch.randn(rows, channels, samples, generator=_generator(key, kind, device), device=device)

    rows, mine = here(WARP, settings.warp_probability)
    own = rows[mine]
    if len(own):
        noise = torch.rand(len(rows), samples, generator=_generator(key, WARP, device), device=device)[mine]
        alpha = put(_between(shares[own, 0], settings.warp_alpha), torch.float32)
        sigma = put(_between(shares[own, 1], settings.warp_sigma), torch.float32)
        at = put(own - first, torch.int64)
        warped = elastic_warp(
            signals.index_select(0, at), (2 * noise - 1) * alpha[:, None], sigma, largest_sigma=settings.warp_sigma[1]
        )
        signals.index_copy_(0, at, warped)

    rows, mine = here(NOISE, settings.noise_probability)
    own = rows[mine]
    if len(own):
        at = put(own - first, torch.int64)
        noisy = signals.index_select(0, at) + settings.noise_sigma * normal(NOISE, len(rows))[mine]
        signals.index_copy_(0, at, noisy)

    rows, mine = here(REGION_NOISE, settings.region_noise_probability)
    own = rows[mine]
    if len(own):
        at = put(own - first, torch.int64)
        where = inside(_regions(shares[own, 2], shares[own, 3], samples, settings.region_noise_fraction))
        noise = settings.region_noise_sigma * normal(REGION_NOISE, len(rows))[mine]
        signals.index_copy_(0, at, signals.index_select(0, at) + noise * where)

    rows, mine = here(ERASE, settings.erase_probability)
    own = rows[mine]
    if len(own):
        at = put(own - first, torch.int64)
        where = inside(_regions(shares[own, 4], shares[own, 5], samples, settings.erase_fraction))
        signals.index_copy_(0, at, signals.index_select(0, at).masked_fill(where, 0))

    rows, mine = here(CHANNEL_DROPOUT, settings.channel_dropout_probability if channels > 1 else 0)
    own = rows[mine]
    if len(own):
        at = put(own - first, torch.int64)
        silent = put((shares[own, 6] * channels).astype(np.int64), torch.int64)
        where = torch.arange(channels, device=device)[None] == silent[:, None]
        signals.index_copy_(0, at, signals.index_select(0, at).masked_fill(where[:, :, None], 0))
    return signals
