"""U-Sleep, DeepSleepNet, TinySleepNet and Chambon 2018: published sizes, any length, gradients, seeds, settings."""

from __future__ import annotations

import dataclasses
import math
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import signal
from torch import Tensor, nn
from torch.nn import functional

from tusp.jobs.recipes import Recipe
from tusp.models.chambon2018 import ConvPool, build_chambon2018
from tusp.models.configs import (
    RECIPE_CHANGES,
    Chambon2018Config,
    DeepSleepNetConfig,
    TinySleepNetConfig,
    USleepConfig,
)
from tusp.models.deepsleepnet import build_deepsleepnet
from tusp.models.epoch_encoder import SequenceLSTM, draw_, same_padding
from tusp.models.families import family_called, family_names
from tusp.models.rates import To100Hz
from tusp.models.tinysleepnet import build_tinysleepnet
from tusp.models.tinyustaging import parameter_counts
from tusp.models.usleep import build_usleep
from tusp.platform.errors import UserError

torch.set_num_threads(1)

Build = Callable[..., nn.Module]

# Every family with its published settings, and with small ones for the tests that compute.
PUBLISHED: dict[str, tuple[Build, Any]] = {
    "usleep": (build_usleep, USleepConfig),
    "deepsleepnet": (build_deepsleepnet, DeepSleepNetConfig),
    "tinysleepnet": (build_tinysleepnet, TinySleepNetConfig),
    "chambon2018": (build_chambon2018, Chambon2018Config),
}
SMALL: dict[str, dict[str, Any]] = {
    "usleep": {"complexity_factor": 0.5},
    "deepsleepnet": {"lstm_units": 8, "dropout": 0.0, "norm_momentum": 0.5},
    "tinysleepnet": {"filters": 16, "lstm_units": 8, "dropout": 0.0, "norm_momentum": 0.5},
    "chambon2018": {"dropout": 0.0},
}
names = pytest.mark.parametrize("name", PUBLISHED)


def small(name: str, *, seed: int = 0, **changes: Any) -> nn.Module:
    build, settings = PUBLISHED[name]
    return build(settings(**{**SMALL[name], **changes}), seed=seed)


def windows(batch: int, epochs: int, channels: int = 2, *, seed: int = 0) -> Tensor:
    return torch.randn(batch, channels, epochs * 3840, generator=torch.Generator().manual_seed(seed))


# --- sizes, counted by hand from the published layer tables ---


def conv(inputs: int, outputs: int, kernel: int, *, bias: bool = True) -> int:
    return inputs * outputs * kernel + (outputs if bias else 0)


def norm(width: int) -> int:
    return 2 * width


def lstm(inputs: int, units: int) -> int:
    """Four gates, each a kernel over inputs and state and one bias; no peepholes."""
    return 4 * ((inputs + units) * units + units)


def usleep_by_hand(channels: int) -> int:
    # Filters of the released configuration: 5 times sqrt(1.67), each level sqrt(2) times as many, rounded down.
    widths = [6, 9, 11, 15, 20, 28, 40, 55, 77, 108, 152, 214]
    bottom = 302
    total, below = 0, channels
    for width in [*widths, bottom]:
        total += conv(below, width, 9) + norm(width)
        below = width
    for width in reversed(widths):
        total += conv(below, width, 2) + norm(width) + conv(2 * width, width, 9) + norm(width)
        below = width
    return total + conv(6, 6, 1) + conv(6, 5, 1) + conv(5, 5, 1)


def branch_by_hand(channels: int, first: tuple[int, int], deep: tuple[int, int]) -> int:
    (filters, kernel), (width, deep_kernel) = first, deep
    total = conv(channels, filters, kernel, bias=False) + norm(filters)
    for inputs in (filters, width, width):
        total += conv(inputs, width, deep_kernel, bias=False) + norm(width)
    return total


def deepsleepnet_by_hand(channels: int) -> int:
    small_branch = branch_by_hand(channels, (64, 50), (128, 8))
    large_branch = branch_by_hand(channels, (64, 400), (128, 6))
    features = 128 * 16 + 128 * 8  # 3000 / 6 / 8 / 4 and 3000 / 50 / 4 / 2, each rounded up
    shortcut = features * 1024 + norm(1024)
    recurrent = 2 * (lstm(features, 512) + lstm(512, 512))
    return small_branch + large_branch + shortcut + recurrent + conv(1024, 5, 1)


def tinysleepnet_by_hand(channels: int) -> int:
    return branch_by_hand(channels, (128, 50), (128, 8)) + lstm(128 * 16, 128) + conv(128, 5, 1)


def chambon_by_hand(channels: int) -> int:
    spatial = channels * channels + channels if channels > 1 else 0
    return spatial + conv(1, 8, 64) + conv(8, 8, 64) + (channels * 8 * 15) * 5 + 5


@pytest.mark.parametrize(
    ("name", "channels", "by_hand", "trainable"),
    [
        # The publication says "about 3.1 million"; the released configuration gives exactly this.
        pytest.param("usleep", 2, usleep_by_hand, 3_114_337, id="usleep"),
        pytest.param("deepsleepnet", 1, deepsleepnet_by_hand, 22_639_493, id="deepsleepnet, as published"),
        pytest.param("deepsleepnet", 2, deepsleepnet_by_hand, 22_668_293, id="deepsleepnet"),
        pytest.param("tinysleepnet", 1, tinysleepnet_by_hand, 1_515_909, id="tinysleepnet, as published"),
        pytest.param("tinysleepnet", 2, tinysleepnet_by_hand, 1_522_309, id="tinysleepnet"),
        pytest.param("chambon2018", 2, chambon_by_hand, 5_835, id="chambon2018"),
        pytest.param("chambon2018", 1, chambon_by_hand, 5_229, id="chambon2018, one channel"),
    ],
)
def test_as_many_parameters_as_published(
    name: str, channels: int, by_hand: Callable[[int], int], trainable: int
) -> None:
    build, settings = PUBLISHED[name]
    with torch.device("meta"):
        network = build(settings(n_channels=channels))
    assert by_hand(channels) == trainable
    assert parameter_counts(network)[1] == trainable


def test_tinysleepnet_is_its_released_code_less_the_peepholes() -> None:
    # The variables that the released code lists (issue 8 of its repository) sum to this, before the last layer.
    released, last_layer, peepholes = 1_515_648, 128 * 5 + 5, 3 * 128
    with torch.device("meta"):
        network = build_tinysleepnet(TinySleepNetConfig(n_channels=1))
    assert parameter_counts(network)[1] == released + last_layer - peepholes


# --- interface ---


@names
@pytest.mark.parametrize("epochs", [1, 2, 5])
@pytest.mark.parametrize("channels", [1, 2])
def test_one_stage_per_epoch_for_any_number_of_epochs(name: str, epochs: int, channels: int) -> None:
    network = small(name, n_channels=channels).eval()
    with torch.inference_mode():
        logits = network(windows(2, epochs, channels))
    assert logits.shape == (2, 5, epochs)
    assert logits.isfinite().all()


@names
def test_gradient_reaches_every_parameter(name: str) -> None:
    network = small(name).train()
    stages = torch.arange(6).reshape(2, 3) % 5
    functional.cross_entropy(network(windows(2, 3)), stages).backward()
    for parameter_name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.abs().sum() > 0, parameter_name


@names
def test_weights_follow_from_the_seed_alone(name: str) -> None:
    torch.manual_seed(1)
    first = small(name, seed=3).state_dict()
    torch.manual_seed(2)
    again, other = small(name, seed=3).state_dict(), small(name, seed=4).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    weights = [key for key in first if key.endswith(("weight", "weight_ih_l0", "weight_hh_l0")) and "norm" not in key]
    assert weights
    assert not any(torch.equal(first[key], other[key]) for key in weights)


@names
def test_neighbours_in_a_batch_do_not_matter(name: str) -> None:
    network = small(name)
    network.train()
    with torch.no_grad():
        network(windows(4, 2, seed=5))  # so that the moving statistics are not those of a fresh network
    network.eval()
    batch = windows(3, 2, seed=6)
    with torch.inference_mode():
        together = network(batch)
        alone = torch.cat([network(batch[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@names
def test_half_precision_gives_nearly_the_same(name: str) -> None:
    network = small(name).eval()
    x = windows(1, 2)
    with torch.inference_mode():
        full = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(x).float()
    assert (half - full).abs().max() < 0.1 * full.abs().max() + 0.05


@names
def test_a_toy_problem_is_learned(name: str) -> None:
    """Epochs of a 2-Hz and of a 12-Hz wave are told apart after a few steps."""
    network = small(name, **({"depth": 6} if name == "usleep" else {})).train()
    time = torch.arange(3840) / 128
    waves = torch.stack([torch.sin(2 * math.pi * f * time) for f in (2.0, 12.0)])
    random = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        stages = torch.randint(2, (4, 2), generator=random)
        x = waves[stages].reshape(4, 1, -1).expand(-1, 2, -1)
        x = x + 0.3 * torch.randn(x.shape, generator=random)
        loss = functional.cross_entropy(network(x), stages)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.3:
            return
    pytest.fail(f"still at a loss of {loss.item():.2f}")


# --- what an epoch may depend on ---


def changed_epochs(network: nn.Module, changed: int, epochs: int = 5) -> list[int]:
    """Epochs whose logits move when epoch ``changed`` of the input is another."""
    x = windows(1, epochs)
    other = x.clone()
    # Its edges stay, so that the resampling filter's reach does not touch the neighbours.
    other[..., changed * 3840 + 400 : (changed + 1) * 3840 - 400] *= -3
    with torch.inference_mode():
        moved = (network.eval()(x) - network(other)).abs().amax(dim=(0, 1)) > 1e-6
    return moved.nonzero().flatten().tolist()


def test_chambon_stages_each_epoch_by_itself() -> None:
    assert changed_epochs(small("chambon2018"), 2) == [2]


def test_tinysleepnet_sees_no_later_epoch() -> None:
    assert changed_epochs(small("tinysleepnet"), 2) == [2, 3, 4]


def test_deepsleepnet_sees_both_ways() -> None:
    assert changed_epochs(small("deepsleepnet"), 2) == [0, 1, 2, 3, 4]
    for silent, seen in (("forwards", [0, 1]), ("backwards", [1, 2, 3, 4])):
        network = small("deepsleepnet")
        for parameter in network.get_submodule(silent).parameters():
            nn.init.zeros_(parameter)
        assert changed_epochs(network, 1) == seen, silent


# --- 100 Hz ---


@pytest.mark.parametrize("epochs", [1, 3])
def test_resampling_is_scipys(epochs: int) -> None:
    x = windows(2, epochs)
    ours = To100Hz()(x)
    assert ours.shape == (2, 2, epochs * 3000)
    np.testing.assert_allclose(ours.numpy(), signal.resample_poly(x.double().numpy(), 25, 32, axis=2), atol=1e-5)


def test_resampling_is_neither_trained_nor_saved() -> None:
    assert not list(To100Hz().parameters())
    assert not To100Hz().state_dict()


def test_a_tone_above_50_hz_does_not_come_back_as_a_slower_one() -> None:
    time = torch.arange(3840) / 128
    tones = torch.sin(2 * math.pi * torch.tensor([[10.0], [61.0]]) * time)[:, None]
    kept, gone = To100Hz()(tones)[:, 0, 300:-300].std(dim=1)
    assert kept.item() == pytest.approx(math.sqrt(0.5), rel=0.01)
    assert gone.item() < 0.002


# --- DeepSleepNet and TinySleepNet ---


@pytest.mark.parametrize(
    ("length", "kernel", "stride", "padding"),
    [(3000, 50, 6, (22, 22)), (500, 8, 8, (2, 2)), (63, 8, 1, (3, 4)), (63, 4, 4, (0, 1)), (3000, 400, 50, (175, 175))],
)
def test_same_padding_is_tensorflows(length: int, kernel: int, stride: int, padding: tuple[int, int]) -> None:
    assert same_padding(length, kernel, stride) == padding
    assert (length + sum(padding) - kernel) // stride + 1 == math.ceil(length / stride)


def test_the_lstm_is_that_of_the_published_cell_without_peepholes() -> None:
    network = SequenceLSTM(3, 2)
    network.draw_(torch.Generator().manual_seed(0))
    x = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(1))
    state, cell = torch.zeros(2), torch.zeros(2)
    expected = []
    for step in x[0]:
        gates = network.weight_ih_l0 @ step + network.weight_hh_l0 @ state
        enter, forget, candidate, leave = gates.split(2)
        cell = torch.sigmoid(forget + 1) * cell + torch.sigmoid(enter) * torch.tanh(candidate)
        state = torch.sigmoid(leave) * torch.tanh(cell)
        expected.append(state)
    torch.testing.assert_close(network(x)[0][0], torch.stack(expected))


def test_dropout_is_off_in_evaluation() -> None:
    for name in ("deepsleepnet", "tinysleepnet", "chambon2018"):
        network, x = small(name, dropout=0.5), windows(1, 2)
        with torch.no_grad():
            assert not torch.equal(network.train()(x), network(x)), name
            assert torch.equal(network.eval()(x), network(x)), name


# --- Chambon 2018 ---


@pytest.mark.parametrize(("inputs", "samples"), [(1, 3840), (8, 240), (3, 16)])
def test_convolution_and_pooling_by_phases_is_the_plain_one(inputs: int, samples: int) -> None:
    network = ConvPool(inputs, 4).double()
    draw_(network, seed=1, scale=1.0, corrected=False)
    nn.init.uniform_(network.convolution.bias, -0.5, 0.5)
    x = torch.randn(2, inputs, samples, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    asked = (x, *network.parameters())
    plain = functional.max_pool1d(functional.relu(network.convolution(functional.pad(x, (31, 32)))), 16)
    expected = torch.autograd.grad(plain.square().sum(), asked)
    ours = network(x)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(torch.autograd.grad(ours.square().sum(), asked), expected)


# --- U-Sleep ---


def usleep_as_written(network: Any, x: Tensor) -> Tensor:
    """The network in the words of the released code: up-sample, pad right, convolve; pad in front; crop both ends."""

    def level(block: Any, x: Tensor) -> Tensor:
        kernel = block.convolution.kernel_size[0]
        x = functional.pad(x, ((kernel - 1) // 2, kernel // 2))
        return block.norm(functional.elu(functional.conv1d(x, block.convolution.weight, block.convolution.bias)))

    skips = []
    for block in network.encoder:
        x = level(block, x)
        x = functional.pad(x, (x.shape[2] % 2, 0))
        skips.append(x)
        x = functional.max_pool1d(x, 2)
    x = level(network.bottom, x)
    for up, block in zip(network.up, network.decoder, strict=True):
        x = level(up, x.repeat_interleave(2, dim=2))
        skip = skips.pop()
        more = x.shape[2] - skip.shape[2]
        start = more // 2 + more % 2
        x = level(block, torch.cat((skip, x[:, :, start : start + skip.shape[2]]), dim=1))
    x = functional.avg_pool1d(torch.tanh(network.mix(x)), 3840)
    return network.output(functional.elu(network.stage(x)))


@pytest.mark.parametrize("epochs", [1, 3])
def test_usleep_pads_and_crops_as_the_released_code(epochs: int) -> None:
    network = small("usleep").double().eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm1d):
            nn.init.uniform_(part.bias, -0.5, 0.5)
    x = windows(1, epochs).double()
    with torch.inference_mode():
        torch.testing.assert_close(network(x), usleep_as_written(network, x))


def test_usleep_gives_finer_hypnograms_from_the_same_weights() -> None:
    network = small("usleep").eval()
    with torch.inference_mode():
        assert network(windows(1, 2), window=128).shape == (1, 5, 60)
        with pytest.raises(UserError, match="must divide the 7680 samples"):
            network(windows(1, 2), window=1000)


# --- settings ---


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        *((settings, {"n_channels": 0}, "n_channels = 0: ") for _, settings in PUBLISHED.values()),
        (USleepConfig, {"depth": 0}, "depth = 0: "),
        (USleepConfig, {"depth": 2.5}, "depth = 2.5: must be a whole number"),
        (USleepConfig, {"complexity_factor": 0.0}, "complexity_factor = 0.0: must be above 0"),
        (USleepConfig, {"complexity_factor": 0.01}, "leaves the first level without a channel"),
        (USleepConfig, {"norm_momentum": 0.0}, "norm_momentum = 0.0: "),
        (DeepSleepNetConfig, {"dropout": 1.0}, "dropout = 1.0: "),
        (DeepSleepNetConfig, {"lstm_layers": 0}, "lstm_layers = 0: "),
        (TinySleepNetConfig, {"lstm_units": 0}, "lstm_units = 0: "),
        (TinySleepNetConfig, {"norm_momentum": 2.0}, "norm_momentum = 2.0: "),
        (Chambon2018Config, {"filters": -1}, "filters = -1: "),
    ],
)
def test_a_wrong_setting_is_one_line(settings: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as raised:
        settings(**changes)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@names
def test_the_published_training_is_a_recipe(name: str) -> None:
    recipe = Recipe(name="own", **RECIPE_CHANGES[name])
    assert recipe.window_epochs == RECIPE_CHANGES[name]["window_epochs"]
    assert set(RECIPE_CHANGES[name]) <= {entry.name for entry in dataclasses.fields(Recipe)}


def test_settings_are_free_of_torch() -> None:
    code = "import sys, tusp.models.configs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- a network of another package ---


def test_the_documents_example_is_a_network_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = (Path(__file__).parents[1] / "docs" / "networks.md").read_text("utf-8")
    module, points = re.findall(r"```(?:python|toml)\n(.*?)```", document, flags=re.DOTALL)
    (tmp_path / "my_net.py").write_text(module, "utf-8")
    declared = tomllib.loads(points)["project"]["entry-points"]["tusp.models"]
    described = tmp_path / "my_net-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: my-net\nVersion: 1.0\n", "utf-8")
    lines = [f"{name} = {value}" for name, value in declared.items()]
    (described / "entry_points.txt").write_text("\n".join(["[tusp.models]", *lines]), "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    family = family_called("my-net")
    assert "my-net" in family_names()
    with pytest.raises(UserError, match="width = 0: must be at least 1"):
        family.settings_from({"width": 0})
    network = family.build(family.settings_from({"n_channels": 1}), seed=3)
    assert network(windows(2, 4, 1)).shape == (2, 5, 4)
    Recipe(name="own", **family.recipe)
