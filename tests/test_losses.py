"""Losses against numbers worked out by hand and against torch's own cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from tusp.models.losses import LOSSES, build_loss
from tusp.platform.errors import UserError

MADE_BY = {
    "focal": lambda logits, stages, weights: picked_focal(logits, stages, weights, 2.0),
    "cross-entropy": lambda logits, stages, weights: picked_focal(logits, stages, weights, 0.0),
    "dice": lambda logits, stages, weights: picked_dice(logits, stages, weights),
    "focal+dice": lambda logits, stages, weights: (
        picked_focal(logits, stages, weights, 2.0) + picked_dice(logits, stages, weights)
    ),
}
"""The losses with the scored epochs picked out, as the formulas say it; on a GPU picking waits for the host."""
EVEN = (1.0, 1.0, 1.0, 1.0, 1.0)
PUBLISHED = (0.2, 0.3, 0.2, 0.2, 0.2)


def logits_of(*rows: tuple[float, ...]) -> torch.Tensor:
    """Logits [1, 5, T] whose softmax are the given rows (each summing to 1)."""
    return torch.tensor(rows, dtype=torch.float64).log().T[None]


def random_batch(seed: int = 0, unscored: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(4, 5, 9, generator=generator)
    stages = torch.randint(0, 5, (4, 9), generator=generator)
    stages[torch.rand(4, 9, generator=generator) < unscored] = -1
    return logits, stages


def test_focal_by_hand() -> None:
    """True W at p = .7 and true N1 at p = .4: .3^2 ln(1/.7) and .6^2 ln(1/.4), weighted .2 and .3."""
    logits = logits_of((0.7, 0.1, 0.1, 0.05, 0.05), (0.2, 0.4, 0.2, 0.1, 0.1))
    loss = build_loss("focal", class_weights=PUBLISHED, gamma=2)(logits, torch.tensor([[0, 1]]))
    expected = (0.2 * 0.09 * -math.log(0.7) + 0.3 * 0.36 * -math.log(0.4)) / 0.5
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(0.210759, abs=1e-6)


def test_dice_by_hand() -> None:
    """W: p sums to .7 + .2 and g to 1, overlap .7. N1: .1 + .4, 1, .4. Other stages are absent and do not count."""
    logits = logits_of((0.7, 0.1, 0.1, 0.05, 0.05), (0.2, 0.4, 0.2, 0.1, 0.1))
    loss = build_loss("dice", class_weights=PUBLISHED, gamma=2)(logits, torch.tensor([[0, 1]]))
    wake, n1 = 1 - (2 * 0.7 + 1) / (0.9 + 1 + 1), 1 - (2 * 0.4 + 1) / (0.5 + 1 + 1)
    assert float(loss) == pytest.approx((0.2 * wake + 0.3 * n1) / 0.5, rel=1e-6)


def test_dice_of_a_perfect_prediction_is_nearly_0_and_of_a_wrong_one_nearly_1() -> None:
    stages = torch.arange(5).repeat(40)[None]
    right = 50.0 * functional.one_hot(stages, 5).transpose(1, 2)
    wrong = 50.0 * functional.one_hot((stages + 1) % 5, 5).transpose(1, 2)
    loss = build_loss("dice", class_weights=EVEN, gamma=2)
    assert float(loss(right, stages)) == pytest.approx(0, abs=1e-6)
    assert float(loss(wrong, stages)) == pytest.approx(1 - 1 / 81, abs=1e-6)


@pytest.mark.parametrize("weights", [EVEN, PUBLISHED, (0.5, 0.0, 1.0, 2.0, 3.0)])
def test_cross_entropy_and_focal_without_focus_are_torchs(weights: tuple[float, ...]) -> None:
    logits, stages = random_batch()
    theirs = functional.cross_entropy(logits, stages, weight=torch.tensor(weights), ignore_index=-1)
    for name, gamma in (("cross-entropy", 2.0), ("focal", 0.0)):
        torch.testing.assert_close(build_loss(name, class_weights=weights, gamma=gamma)(logits, stages), theirs)


def test_focal_is_the_smaller_the_more_it_focuses() -> None:
    logits, stages = random_batch()
    values = [float(build_loss("focal", class_weights=EVEN, gamma=g)(logits, stages)) for g in (0, 1, 2, 5)]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]


def test_the_recipes_loss_is_the_sum_of_both() -> None:
    logits, stages = random_batch()
    value = {name: build_loss(name, class_weights=PUBLISHED, gamma=2)(logits, stages) for name in LOSSES}
    torch.testing.assert_close(value["focal+dice"], value["focal"] + value["dice"])


@pytest.mark.parametrize("name", LOSSES)
def test_unscored_epochs_change_nothing_and_get_no_gradient(name: str) -> None:
    loss = build_loss(name, class_weights=PUBLISHED, gamma=2)
    logits, stages = random_batch()
    logits.requires_grad_(True)
    value = loss(logits, stages)
    value.backward()
    unscored = (stages == -1)[:, None].expand_as(logits)
    assert unscored.any()
    assert logits.grad is not None
    assert not logits.grad[unscored].any()
    assert logits.grad[~unscored].any()
    with torch.no_grad():
        torch.testing.assert_close(loss(torch.where(unscored, 1e3, logits), stages), value)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_with_only_unscored_epochs_is_finite_and_moves_nothing(name: str) -> None:
    logits = torch.randn(2, 5, 3, requires_grad=True)
    value = build_loss(name, class_weights=PUBLISHED, gamma=2)(logits, torch.full((2, 3), -1))
    assert float(value.detach()) == 0
    value.backward()
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("name", LOSSES)
def test_a_heavier_stage_weighs_more(name: str) -> None:
    """One epoch right, one N1 epoch wrong: the loss grows with the weight of N1."""
    logits = logits_of((0.9, 0.025, 0.025, 0.025, 0.025), (0.9, 0.025, 0.025, 0.025, 0.025))
    stages = torch.tensor([[0, 1]])
    light = build_loss(name, class_weights=EVEN, gamma=2)(logits, stages)
    heavy = build_loss(name, class_weights=(1, 5, 1, 1, 1), gamma=2)(logits, stages)
    assert float(heavy) > float(light)


@pytest.mark.parametrize("name", LOSSES)
def test_certain_and_wrong_stays_finite(name: str) -> None:
    logits = torch.zeros(1, 5, 2)
    logits[0, 0] = 1e4
    logits.requires_grad_(True)
    value = build_loss(name, class_weights=EVEN, gamma=2)(logits, torch.tensor([[0, 3]]))
    value.backward()
    assert math.isfinite(float(value.detach()))
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


def test_an_unknown_loss_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"no loss called 'hinge'; there are focal\+dice, focal, dice, cross-entropy"):
        build_loss("hinge", class_weights=EVEN, gamma=2)


# --- the same as with the scored epochs picked out ---


def picked(logits: torch.Tensor, stages: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    flat = logits.float().transpose(1, 2).reshape(-1, 5)
    return flat[stages.reshape(-1) >= 0], stages[stages >= 0]


def picked_focal(logits: torch.Tensor, stages: torch.Tensor, weights: torch.Tensor, gamma: float) -> torch.Tensor:
    scores, codes = picked(logits, stages)
    log_p = functional.log_softmax(scores, dim=1).gather(1, codes[:, None]).squeeze(1)
    w = weights[codes]
    return (w * (1 - log_p.exp()) ** gamma * -log_p).sum() / w.sum().clamp_min(1e-8)


def picked_dice(logits: torch.Tensor, stages: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    scores, codes = picked(logits, stages)
    p = functional.softmax(scores, dim=1)
    g = functional.one_hot(codes, 5).to(p.dtype)
    overlap = (2 * (p * g).sum(0) + 1) / (p.sum(0) + g.sum(0) + 1)
    w = weights * (g.sum(0) > 0)
    return (w * (1 - overlap)).sum() / w.sum().clamp_min(1e-8)


def batch_with(unscored: str, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Four windows of 31 epochs: all scored, some not, whole windows not, nothing at all, or one epoch only."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(4, 5, 31, generator=generator)
    stages = torch.randint(0, 5, (4, 31), generator=generator)
    if unscored == "some":
        stages[torch.rand(4, 31, generator=generator) < 0.3] = -1
    elif unscored == "windows":
        stages[1:3] = -1
    elif unscored == "all":
        stages[:] = -1
    elif unscored == "all but one":
        stages.view(-1)[1:] = -1
    return logits, stages


def value_and_gradient(loss: Callable[..., torch.Tensor], logits: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
    leaf = logits.clone().requires_grad_(True)
    value = loss(leaf, *rest)
    (gradient,) = torch.autograd.grad(value, leaf)
    return torch.cat([value.detach()[None], gradient.flatten()])


@pytest.mark.parametrize("unscored", ["none", "some", "windows", "all", "all but one"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_mask_gives_what_picking_gives(name: str, unscored: str) -> None:
    for seed in range(5):
        logits, stages = batch_with(unscored, seed)
        weights = torch.tensor(PUBLISHED)
        expected = value_and_gradient(MADE_BY[name], logits, stages, weights)
        found = value_and_gradient(build_loss(name, class_weights=PUBLISHED, gamma=2), logits, stages)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        if unscored == "none":
            assert torch.equal(found, expected), "the same bits where every epoch is scored"
        again = value_and_gradient(build_loss(name, class_weights=PUBLISHED, gamma=2), logits, stages)
        assert torch.equal(found, again)


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_not_finite_in_an_unscored_epoch_stays_there(name: str) -> None:
    logits, stages = random_batch()
    broken = torch.where((stages == -1)[:, None], torch.nan, logits)
    loss = build_loss(name, class_weights=PUBLISHED, gamma=2)
    assert torch.equal(value_and_gradient(loss, broken, stages), value_and_gradient(loss, logits, stages))


@pytest.mark.parametrize("name", LOSSES)
def test_no_shape_depends_on_the_stages(name: str) -> None:
    """On tensors without content every shape must be known: what would ask for a number raises."""
    loss = build_loss(name, class_weights=PUBLISHED, gamma=2, device="meta")
    value = loss(torch.empty(4, 5, 31, device="meta"), torch.empty(4, 31, dtype=torch.int64, device="meta"))
    assert value.shape == ()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", LOSSES)
def test_a_gpu_does_not_wait_for_the_host(name: str) -> None:
    loss = build_loss(name, class_weights=PUBLISHED, gamma=2, device="cuda")
    logits, stages = (tensor.cuda() for tensor in random_batch())
    logits.requires_grad_(True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss(logits, stages).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
