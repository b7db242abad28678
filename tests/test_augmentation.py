"""Each augmentation alone does what it says, is off when it is off, and is reproducible."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.stats import kstest

from tusp.jobs.augmentation import augment, elastic_warp
from tusp.jobs.recipes import NO_AUGMENTATION, PAPER, Augmentation

SAMPLES = 2 * 3840


def windows(n: int = 4, channels: int = 2, samples: int = SAMPLES) -> torch.Tensor:
    return torch.randn(n, channels, samples, generator=torch.Generator().manual_seed(0))


def changed(settings: Augmentation, given: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return augment(given.clone(), settings, (seed, 0, 0))


def only(**settings: object) -> Augmentation:
    return replace(NO_AUGMENTATION, **settings)  # type: ignore[arg-type]


EACH = {
    "noise": only(noise_probability=1.0),
    "region noise": only(region_noise_probability=1.0),
    "warp": only(warp_probability=1.0),
    "erase": only(erase_probability=1.0),
    "channel dropout": only(channel_dropout_probability=1.0),
}


def test_off_means_off() -> None:
    given = windows()
    assert torch.equal(changed(NO_AUGMENTATION, given), given)


@pytest.mark.parametrize("name", EACH)
def test_each_changes_every_window_when_it_always_happens(name: str) -> None:
    given = windows()
    result = changed(EACH[name], given)
    assert result.shape == given.shape
    assert all(not torch.equal(result[row], given[row]) for row in range(4))


@pytest.mark.parametrize("name", EACH)
def test_reproducible_from_the_key_alone(name: str) -> None:
    given = windows(n=20, samples=1024)
    torch.manual_seed(1)
    first = changed(EACH[name], given, seed=7)
    torch.manual_seed(2)
    assert torch.equal(first, changed(EACH[name], given, seed=7))
    assert not torch.equal(first, changed(EACH[name], given, seed=8))


@pytest.mark.parametrize("name", EACH)
def test_each_happens_as_often_as_its_probability_says(name: str) -> None:
    probability = {key: 0.3 for key, value in vars(EACH[name]).items() if key.endswith("probability") and value == 1}
    given = windows(n=400, samples=256)
    result = changed(replace(EACH[name], **probability), given)
    touched = (result != given).flatten(1).any(dim=1).double().mean()
    assert float(touched) == pytest.approx(0.3, abs=0.07)


def test_noise_is_gaussian_of_its_sigma_on_every_channel() -> None:
    given = windows()
    added = (changed(only(noise_probability=1.0, noise_sigma=0.1), given) - given).numpy().astype(np.float64)
    for row in range(4):
        for channel in range(2):
            assert kstest(added[row, channel] / 0.1, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(added[0, 0], added[0, 1])[0, 1]) < 0.05


def regions(result: torch.Tensor, given: torch.Tensor) -> list[tuple[int, int]]:
    """First and last + 1 changed sample of every window; all channels alike, without a gap."""
    found = []
    for row in range(len(given)):
        touched = (result[row] != given[row]).all(dim=0).nonzero().squeeze(1)
        assert int(touched[-1] - touched[0]) + 1 == len(touched)
        assert torch.equal((result[row] != given[row]).any(dim=0), (result[row] != given[row]).all(dim=0))
        found.append((int(touched[0]), int(touched[-1]) + 1))
    return found


def test_region_noise_stays_in_one_region_of_log_uniform_length() -> None:
    given = torch.zeros(300, 2, SAMPLES)
    settings = only(region_noise_probability=1.0, region_noise_sigma=0.2)
    result = changed(settings, given)
    found = regions(result, given)
    shares = np.array([last - first for first, last in found]) / SAMPLES
    assert shares.min() >= 0.001 - 1 / SAMPLES
    assert shares.max() <= 0.5
    place = np.log(shares / 0.001) / np.log(0.5 / 0.001)
    assert kstest(place, "uniform").pvalue > 1e-3
    added = np.concatenate([result[row, :, first:last].flatten() for row, (first, last) in enumerate(found)])
    assert float(added.std()) == pytest.approx(0.2, rel=0.02)
    assert min(first for first, _ in found) < 0.05 * SAMPLES
    assert max(last for _, last in found) > 0.95 * SAMPLES


def test_erase_silences_one_region_of_all_channels() -> None:
    given = windows(n=200) + 100
    result = changed(only(erase_probability=1.0, erase_fraction=(0.001, 0.3)), given)
    found = regions(result, given)
    assert all(not result[row][:, first:last].any() for row, (first, last) in enumerate(found))
    lengths = [last - first for first, last in found]
    assert max(lengths) <= 0.3 * SAMPLES
    assert max(lengths) > 0.2 * SAMPLES


def test_channel_dropout_silences_one_channel_and_either_one() -> None:
    given = windows(n=100, samples=50)
    result = changed(only(channel_dropout_probability=1.0), given)
    silent = ~result.any(dim=2)
    assert (silent.sum(dim=1) == 1).all()
    assert 30 < int(silent[:, 0].sum()) < 70
    kept = ~silent
    assert torch.equal(result[kept], given[kept])


def test_the_only_channel_is_never_dropped() -> None:
    given = windows(channels=1)
    assert torch.equal(changed(only(channel_dropout_probability=1.0), given), given)


def test_a_constant_displacement_shifts_the_window() -> None:
    ramp = torch.arange(200, dtype=torch.float32)
    moved = torch.stack([torch.full((200,), 2.5), torch.full((200,), -7.25)])
    warped = elastic_warp(ramp.expand(2, 1, 200), moved, torch.tensor([1.0, 2.0]), largest_sigma=2.0)
    torch.testing.assert_close(warped[0, 0, 10:-10], ramp[10:-10] + 2.5)
    torch.testing.assert_close(warped[1, 0, 10:-10], ramp[10:-10] - 7.25)
    assert (float(warped.min()), float(warped.max())) == (0, 199)


def test_warp_follows_the_smoothed_displacement() -> None:
    """A ramp shows where each sample was taken from; scipy's Gaussian filter is the reference."""
    random = np.random.default_rng(0)
    displacement = 35 * random.uniform(-1, 1, (3, 2000))
    sigma = (3.0, 10.0, 30.0)
    ramp = torch.arange(2000, dtype=torch.float32).expand(3, 1, 2000)
    given = torch.from_numpy(displacement.astype(np.float32))
    warped = elastic_warp(ramp, given, torch.tensor(sigma), largest_sigma=30.0)
    for row in range(3):
        place = np.arange(2000) + gaussian_filter1d(displacement[row], sigma[row], mode="constant")
        np.testing.assert_allclose(warped[row, 0].numpy(), np.clip(place, 0, 1999), atol=1e-3)


def test_warp_moves_all_channels_alike_and_makes_no_new_values() -> None:
    ramp = torch.linspace(-1, 1, SAMPLES).repeat(3, 2, 1)
    result = changed(only(warp_probability=1.0), ramp)
    assert torch.equal(result[:, 0], result[:, 1])
    assert float(result.abs().max()) <= 1
    assert not torch.equal(result[0], result[1])


def test_one_switch_does_not_change_the_luck_of_the_first_window() -> None:
    """Every window has its draws, used or not."""
    given = windows(n=40, samples=256)
    others = {"noise_probability": 0.5, "erase_probability": 0.5, "region_noise_probability": 0.5}
    alone = changed(only(channel_dropout_probability=0.5), given)
    with_others = changed(only(channel_dropout_probability=0.5, **others), given)
    assert torch.equal(alone.any(dim=2), with_others.any(dim=2))
    assert 10 < int((~alone.any(dim=2)).sum()) < 30


@pytest.mark.parametrize("cuts", [(0, 3, 16), (0, 1, 2, 9, 16), tuple(range(17))], ids=str)
def test_a_part_of_a_batch_is_augmented_as_inside_the_whole(cuts: tuple[int, ...]) -> None:
    """As processes that share a batch need it."""
    given, key = windows(n=16), (1, 2, 3)
    whole = augment(given.clone(), replace(PAPER.augmentation, channel_dropout_probability=0.5), key)
    parts = [
        augment(
            given[first:last].clone(),
            replace(PAPER.augmentation, channel_dropout_probability=0.5),
            key,
            batch=16,
            first=first,
        )
        for first, last in pairwise(cuts)
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-5, atol=1e-5)
    untouched = (whole == given).flatten(1).all(dim=1)
    assert 0 < int(untouched.sum()) < 16
    assert torch.equal((torch.cat(parts) == given).flatten(1).all(dim=1), untouched)


def test_the_published_recipe_uses_the_published_settings() -> None:
    assert Augmentation() == PAPER.augmentation
    settings = PAPER.augmentation
    assert (settings.noise_probability, settings.noise_sigma) == (0.2, 0.1)
    assert (settings.region_noise_probability, settings.region_noise_sigma) == (0.2, 0.2)
    assert settings.region_noise_fraction == (0.001, 0.5)
    assert (settings.warp_probability, settings.warp_alpha, settings.warp_sigma) == (0.2, (0, 35), (3, 30))
    assert (settings.erase_probability, settings.erase_fraction[1]) == (0.2, 0.3)
    assert settings.channel_dropout_probability == 0.1
