"""The network: its published counts, its receptive field, its switches, and its fast form equal to the plain one."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from training_nights import small_network

from tusp.models import fused, native
from tusp.models.attention import ChannelSpatialJointAttention, SqueezeExcitation
from tusp.models.config import NetworkConfig, config_from_settings
from tusp.models.losses import build_loss
from tusp.models.tinyustaging import ConvBlock, TinyUStaging, UpBlock, build_network, parameter_counts
from tusp.platform.errors import UserError

FULL = NetworkConfig()
PLAIN = NetworkConfig(csja=False, se_bottom=False, se_classifier=False)


def made(config: NetworkConfig, seed: int = 0) -> TinyUStaging:
    torch.manual_seed(seed)
    return build_network(config)


def lived_in(network: nn.Module) -> nn.Module:
    """Give biases and batch norm values that no fresh network has, so that nothing hides behind 0 and 1."""
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, nn.BatchNorm1d):
                part.running_mean.normal_(0, 0.3)
                part.running_var.uniform_(0.5, 2)
                part.weight.uniform_(0.5, 1.5)
                part.bias.normal_(0, 0.3)
            elif isinstance(part, nn.Conv1d | nn.Linear) and part.bias is not None:
                part.bias.normal_(0, 0.3)
    return network


@pytest.mark.parametrize(
    ("config", "count", "trainable"),
    [
        pytest.param(PLAIN, 2_371_529, 2_366_701, id="plain U-Time, 2 channels"),
        pytest.param(replace(PLAIN, se_bottom=True), 2_404_516, 2_399_688, id="SE at the bottom"),
        pytest.param(
            replace(PLAIN, se_bottom=True, se_classifier=True, se_classifier_ratio=4),
            2_404_763,
            2_399_935,
            id="both SE",
        ),
        pytest.param(FULL, 2_405_740, 2_400_912, id="full"),
        pytest.param(
            replace(PLAIN, csja=True, csja_where="classifier", csja_ratio=4, csja_kernel=3840),
            2_379_456,
            2_374_628,
            id="CBAM form before the classifier",
        ),
    ],
)
def test_published_parameter_counts(config: NetworkConfig, count: int, trainable: int) -> None:
    with torch.device("meta"):
        assert parameter_counts(build_network(config)) == (count, trainable)


def test_widths_and_pools_are_the_published_ones() -> None:
    assert FULL.widths == (22, 45, 90, 181, 362)
    assert FULL.total_pool == 1920
    assert FULL.classifier_channels == 7


def test_one_stage_per_epoch_for_any_number_of_epochs() -> None:
    network = made(small_network()).eval()
    for epochs in (1, 2, 7):
        assert network(torch.randn(3, 2, epochs * 3840)).shape == (3, 5, epochs)


def test_130_million_multiply_accumulates_per_epoch_of_which_44_percent_in_up_sampling() -> None:
    with torch.device("meta"):
        network = build_network(FULL)
        window = torch.empty(1, 2, 31 * 3840)
    network.use_plain_form()
    with FlopCounterMode(display=False) as counter:
        network(window)
    assert counter.get_total_flops() / 2 / 31 == pytest.approx(130e6, rel=0.01)
    by_part = counter.get_flop_counts()
    up = sum(sum(flops.values()) for name, flops in by_part.items() if name.rpartition(".")[0].endswith(".up"))
    assert up / counter.get_total_flops() == pytest.approx(0.44, abs=0.01)


def test_the_low_rate_form_needs_less_than_the_plain_form() -> None:
    totals = []
    for plain in (False, True):
        with torch.device("meta"):
            network = build_network(FULL)
            window = torch.empty(1, 2, 31 * 3840)
        network.use_plain_form(plain)
        with FlopCounterMode(display=False) as counter:
            network(window)
        totals.append(counter.get_total_flops())
    assert totals[0] < 0.75 * totals[1]


# --- receptive field ---


def test_receptive_field_is_the_published_one() -> None:
    assert FULL.receptive_field_samples == 26_416


@pytest.mark.parametrize(
    "changes",
    [
        {"pools": (4, 3), "input_decimation": 1},
        {"pools": (4, 3), "input_decimation": 2},
        {"pools": (2, 2, 2), "input_decimation": 1, "dilation": 1},
        {"pools": (5,), "input_decimation": 1, "kernel_size": 3},
    ],
)
def test_receptive_field_is_what_reaches_one_position_of_the_bottom(changes: dict[str, Any]) -> None:
    """Measured by gradients: every input sample that moves the middle position of the bottom block."""
    config = small_network(csja=False, se_bottom=False, se_classifier=False, **changes)
    network = made(config).double().eval()
    # Max-pooling passes one gradient a window; the mean over it has the same reach and passes all.
    caught: list[torch.Tensor] = []
    network.bottom.register_forward_hook(lambda *call: caught.append(call[-1]))
    original, functional.max_pool1d = functional.max_pool1d, functional.avg_pool1d
    try:
        signal = torch.randn(1, 2, 2 * 3840, dtype=torch.float64, requires_grad=True)
        network(signal)
    finally:
        functional.max_pool1d = original
    bottom = caught[0]
    bottom[0, :, bottom.shape[2] // 2].sum().backward()
    assert signal.grad is not None
    reached = signal.grad.abs().sum(dim=(0, 1)).nonzero().squeeze(1)
    assert int(reached[-1] - reached[0]) + 1 == config.receptive_field_samples


def test_without_attention_no_sample_beyond_the_receptive_field_matters() -> None:
    """And with SE, which pools over the whole input, every sample does."""
    config = small_network(pools=(4, 3), input_decimation=1, csja=False, se_bottom=False, se_classifier=False)
    signal = torch.randn(1, 2, 4 * 3840)
    changed = signal.clone()
    changed[:, :, 0] += 100
    for se, same in ((False, True), (True, False)):
        network = made(replace(config, se_bottom=se)).eval()
        last, after = network(signal)[:, :, -1], network(changed)[:, :, -1]
        assert bool(torch.equal(last, after)) == same


# --- the low-rate form ---


@pytest.mark.parametrize("factor", [2, 3, 4, 5, 6, 7, 8, 10])
def test_low_rate_up_sampling_equals_the_plain_form(factor: int) -> None:
    torch.manual_seed(factor)
    block = lived_in(UpBlock(6, 5, factor, momentum=0.1)).train()
    assert isinstance(block, UpBlock)
    # Every neighbour, also beyond the ends, where the plain form meets zeros and not the last value.
    signal = torch.randn(3, 6, 9)
    toward = torch.randn(3, 5, 9 * factor)
    results = []
    for plain in (False, True):
        block.plain = plain
        block.zero_grad()
        given = signal.clone().requires_grad_(True)
        output = block(given)
        (output * toward).sum().backward()
        gradients = [given.grad, *(parameter.grad for parameter in block.parameters())]
        results.append((output.detach(), gradients))
    (fast, fast_gradients), (plain_output, plain_gradients) = results
    assert fast.shape == (3, 5, 9 * factor)
    torch.testing.assert_close(fast, plain_output, rtol=0, atol=1e-5)
    for one, other in zip(fast_gradients, plain_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_plain_form_is_up_sampling_and_then_a_same_convolution() -> None:
    torch.manual_seed(0)
    block = UpBlock(3, 2, 4, momentum=0.1).eval()
    block.plain = True
    signal = torch.randn(1, 3, 5)
    raised = nn.Upsample(scale_factor=4, mode="nearest")(signal)
    convolution = functional.conv1d(functional.pad(raised, (1, 2)), block.convolution.weight, block.convolution.bias)
    expected = functional.elu(convolution)
    torch.testing.assert_close(block(signal), expected / (1 + 1e-3) ** 0.5)


def test_the_whole_network_is_the_same_in_both_forms() -> None:
    network = lived_in(made(replace(FULL, complexity_factor=0.25))).eval()
    assert isinstance(network, TinyUStaging)
    signal = torch.randn(1, 2, 3 * 3840)
    with torch.no_grad():
        fast = network(signal)
        network.use_plain_form()
        torch.testing.assert_close(network(signal), fast, rtol=0, atol=1e-5)


# --- compiled blocks ---

compiled = pytest.mark.skipif(native.native().library is None, reason=native.native().reason)


def two_forms(
    network: TinyUStaging, epochs: int = 3, **call: int
) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """Output, and gradients and buffers after one backward pass, of the compiled and of the plain form (in double)."""
    torch.manual_seed(1)
    signal = torch.randn(2, network.config.n_channels, epochs * 3840)
    toward = torch.randn(2, 5, epochs * 3840 // call.get("window", 3840))
    results = []
    for form in (copy.deepcopy(network), copy.deepcopy(network).double()):
        given = signal.to(next(form.parameters()).dtype, copy=True)
        given.requires_grad_(True)
        form.use_plain_form(given.dtype == torch.float64)
        logits = form(given, **call)
        (logits * toward.to(logits.dtype)).sum().backward()
        values = {name: parameter.grad for name, parameter in form.named_parameters()}
        assert given.grad is not None
        results.append((logits.detach(), {**values, **dict(form.named_buffers()), "signal": given.grad}))
    return results


@compiled
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"pools": (10, 8, 6, 4), "input_decimation": 1},
        {"pools": (3, 5, 2), "input_decimation": 1, "dilation": 3},
        {"pools": (16, 15), "kernel_size": 3, "input_decimation": 1},
        {"kernel_size": 4, "dilation": 1},
        {"kernel_size": 1},
        {"n_channels": 1, "complexity_factor": 0.7},
        {"csja_combine": "add", "csja_kernel": 8},
        {"csja_where": "classifier"},
        {"csja": False, "se_classifier": False},
        {"csja": False, "se_bottom": False},
    ],
    ids=str,
)
def test_compiled_blocks_give_the_plain_form_and_its_gradients(change: dict[str, Any], training: bool) -> None:
    network = lived_in(made(small_network(**change)))
    assert isinstance(network, TinyUStaging)
    (fast, fast_gradients), (plain, plain_gradients) = two_forms(network.train(training))
    torch.testing.assert_close(fast.double(), plain, rtol=0, atol=1e-5)
    assert fast_gradients.keys() == plain_gradients.keys()
    for name, gradient in plain_gradients.items():
        scale = float(gradient.abs().max())
        error = float((fast_gradients[name].double() - gradient).abs().max())
        assert error <= 1e-5 * max(1.0, scale) + 1e-4 * scale, name


@compiled
def test_compiled_blocks_at_full_width_give_the_gradients_of_the_loss() -> None:
    # Of two samples of a pool that differ by less than rounding, forms may take either, which moves the gradient: this
    # seed has no such pair.
    torch.manual_seed(1)
    signal, stages = torch.randn(2, 2, 4 * 3840), torch.randint(0, 5, (2, 4))
    loss = build_loss("focal+dice", class_weights=(0.2, 0.3, 0.2, 0.2, 0.2), gamma=2.0)
    gradients = []
    for plain in (False, True):
        network = made(FULL).train()
        network.use_plain_form(plain)
        loss(network(signal), stages).backward()
        gradients.append({name: parameter.grad for name, parameter in network.named_parameters()})
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], gradient, rtol=0, atol=1e-5)


@compiled
@pytest.mark.parametrize("window", [1, 3, 128, 3840, 7680])
def test_compiled_blocks_average_over_any_window(window: int) -> None:
    network = lived_in(made(small_network(input_decimation=1, pools=(8, 6, 4, 10))))
    assert isinstance(network, TinyUStaging)
    (fast, _), (plain, _) = two_forms(network.train(), epochs=2, window=window)
    torch.testing.assert_close(fast.double(), plain, rtol=0, atol=1e-5)


@compiled
@pytest.mark.parametrize(
    ("inputs", "width", "dilation", "samples"),
    [
        pytest.param(2, 22, 2, 3840, id="into the first level"),
        pytest.param((22, 22), 22, 1, 3840, id="joined"),
        pytest.param((9, 9), 9, 2, 2999, id="no multiple of anything"),
        pytest.param(45, 45, 2, 2049, id="a tile of few samples at the end"),
        pytest.param((90, 90), 90, 1, 1500, id="one after the other"),
        pytest.param(8, 8, 3, 4000, id="a dilation without a short form"),
    ],
)
def test_two_convolutions_tile_by_tile_equal_the_plain_form(
    inputs: int | tuple[int, int], width: int, dilation: int, samples: int
) -> None:
    torch.manual_seed(0)
    channels = (inputs,) if isinstance(inputs, int) else inputs
    first, second = (ConvBlock(n, width, 5, momentum=0.1, dilation=dilation) for n in (sum(channels), width))
    both = lived_in(nn.Sequential(first, second)).eval()
    tensors = [torch.randn(2, n, samples) for n in channels]
    sources = [
        fused.Stored(values=tensor, scale=torch.rand(n) + 0.5, shift=torch.randn(n))
        for n, tensor in zip(channels, tensors, strict=True)
    ]
    with torch.no_grad():
        fast = fused.twice(
            first.convolution, first.norm, second.convolution, second.norm, *sources, padding=first.padding
        )
        plain = both.double()(torch.cat([source.normalised() for source in sources], dim=1).double())
    error = (fast.normalised().double() - plain).abs().max()
    assert float(error) <= 1e-5 * max(1.0, float(plain.std()))
    torch.testing.assert_close(fast.mean().double(), plain.mean(dim=2), rtol=0, atol=1e-5)


@compiled
def test_compiled_blocks_repeat_their_bits_and_hardly_depend_on_threads() -> None:
    network = made(small_network()).train()
    signal = torch.randn(3, 2, 7 * 3840)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 1, 2, 2, 3):
            torch.set_num_threads(threads)
            network.zero_grad()
            logits = network(signal)
            logits.square().sum().backward()
            results.append([logits.detach(), *(parameter.grad.clone() for parameter in network.parameters())])
    finally:
        torch.set_num_threads(before)
    for one, other in ((0, 1), (2, 3)):
        assert all(torch.equal(a, b) for a, b in zip(results[one], results[other], strict=True))
    for other in (2, 4):
        for a, b in zip(results[0], results[other], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@compiled
def test_not_a_number_is_not_hidden_by_the_compiled_blocks() -> None:
    network = made(small_network()).train()
    signal = torch.randn(1, 2, 2 * 3840)
    signal[0, 0, 100] = float("nan")
    assert network(signal).isnan().any()


@compiled
def test_compiled_blocks_are_used_for_float32_on_processors_alone() -> None:
    signal = torch.randn(1, 2, 3840)
    assert native.usable(signal)
    assert not native.usable(signal.double())
    assert not native.usable(signal.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not native.usable(signal)


def _status_in(environment: dict[str, str]) -> str:
    code = "import torch; from tusp.models import native; print(native.status())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip() + "|" + done.stderr.strip()


def test_a_machine_without_a_compiler_says_so_and_still_runs(tmp_path: Path) -> None:
    said = _status_in({"PATH": str(tmp_path), "TUSP_NATIVE_CACHE": str(tmp_path)})
    assert said.startswith("off (no C++ compiler")
    assert "compiled network blocks are not used" in said
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho 'error: out of paper' >&2; exit 1\n")
    broken.chmod(0o755)
    assert "off (could not be built or loaded: c++ failed: error: out of paper)" in _status_in(
        {"PATH": f"{tmp_path}:/usr/bin:/bin", "TUSP_NATIVE_CACHE": str(tmp_path)}
    )
    assert _status_in({"TUSP_NATIVE": "0"}) == "off (switched off by TUSP_NATIVE=0)|"


# --- blocks ---


def test_activation_comes_before_batch_norm() -> None:
    block = lived_in(ConvBlock(2, 3, 5, momentum=0.1, dilation=2)).eval()
    assert isinstance(block, ConvBlock)
    signal = torch.randn(1, 2, 40)
    convolution = functional.conv1d(signal, block.convolution.weight, block.convolution.bias, padding=4, dilation=2)
    torch.testing.assert_close(block(signal), block.norm(functional.elu(convolution)))


def test_same_padding_of_an_even_kernel_puts_the_smaller_half_left() -> None:
    block = ConvBlock(1, 1, 4, momentum=0.1).eval()
    with torch.no_grad():
        block.convolution.weight.copy_(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]))
        nn.init.zeros_(block.convolution.bias)
    impulse = torch.zeros(1, 1, 8)
    impulse[0, 0, 4] = 1
    # Output i sees inputs i-1 to i+2: the impulse at 4 meets tap 3 at output 2 and tap 0 at output 5.
    expected = torch.tensor([0, 0, 4, 3, 2, 1, 0, 0]) / (1 + 1e-3) ** 0.5
    torch.testing.assert_close(block(impulse)[0, 0], expected)


def test_batch_norm_and_initial_weights_are_the_published_ones() -> None:
    network = made(FULL)
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm1d)]
    assert len(norms) == 4 * 2 + 2 + 4 * 3
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}
    for part in network.modules():
        if isinstance(part, nn.Conv1d | nn.Linear):
            if part.bias is not None:
                assert not part.bias.any()
            taps = part.weight[0, 0].numel()
            limit = (6 / ((part.weight.shape[0] + part.weight.shape[1]) * taps)) ** 0.5
            weight = part.weight.detach()
            assert float(weight.abs().max()) <= limit
            if weight.numel() > 1000:
                assert float(weight.abs().max()) > 0.98 * limit
                assert float(weight.std()) == pytest.approx(limit / 3**0.5, rel=0.05)
    assert network.csja is not None
    assert network.csja.spatial.bias is None


def test_squeeze_and_excitation_is_a_gate_per_channel() -> None:
    block = lived_in(SqueezeExcitation(8, ratio=4))
    assert isinstance(block, SqueezeExcitation)
    assert block.squeeze.out_features == 2
    signal = torch.randn(2, 8, 30)
    hidden = functional.elu(signal.mean(2) @ block.squeeze.weight.T + block.squeeze.bias)
    gate = torch.sigmoid(hidden @ block.excite.weight.T + block.excite.bias)
    torch.testing.assert_close(block(signal), signal * gate[:, :, None])


def test_csja_in_sequence_multiplies_and_added_branches_add() -> None:
    torch.manual_seed(0)
    block = ChannelSpatialJointAttention(10, ratio=5, kernel=5, combine="sequence")
    lived_in(block)
    signal = torch.randn(2, 10, 50)

    def channel(x: torch.Tensor) -> torch.Tensor:
        def mlp(pooled: torch.Tensor) -> torch.Tensor:
            return block.excite(functional.relu(block.squeeze(pooled)))

        return x * torch.sigmoid(mlp(x.mean(2)) + mlp(x.max(2).values))[:, :, None]

    def spatial(x: torch.Tensor) -> torch.Tensor:
        summary = torch.stack([x.max(1).values, x.mean(1)], dim=1)
        return x * torch.sigmoid(functional.conv1d(summary, block.spatial.weight, padding=2))

    torch.testing.assert_close(block(signal), spatial(channel(signal)))
    block.combine = "add"
    torch.testing.assert_close(block(signal), channel(signal) + spatial(signal))


@pytest.mark.parametrize("kernel", [4, 5, 3840])
def test_csja_keeps_the_length_with_any_kernel(kernel: int) -> None:
    block = ChannelSpatialJointAttention(4, ratio=2, kernel=kernel, combine="sequence")
    assert block(torch.randn(1, 4, 5000)).shape == (1, 4, 5000)


# --- switches ---


@pytest.mark.parametrize(
    "change",
    [
        {"csja": False},
        {"csja_where": "classifier"},
        {"csja_combine": "add"},
        {"csja_kernel": 7},
        {"csja_ratio": 2},
        {"se_bottom": False},
        {"se_bottom_ratio": 2},
        {"se_classifier": False},
        {"se_classifier_ratio": 2},
        {"dilation": 1},
        {"kernel_size": 3},
        {"input_decimation": 10},
        {"classifier_width": 9},
    ],
    ids=str,
)
def test_every_switch_changes_the_answer(change: dict[str, Any]) -> None:
    config = small_network()
    torch.manual_seed(0)
    reference, changed = made(config), made(replace(config, **change))
    # Weights that both have are made equal: what differs then is the switch.
    shared = {
        name: value
        for name, value in reference.state_dict().items()
        if name in changed.state_dict() and changed.state_dict()[name].shape == value.shape
    }
    changed.load_state_dict(shared, strict=False)
    signal = torch.randn(1, 2, 3 * 3840)
    with torch.no_grad():
        difference = (reference.eval()(signal) - changed.eval()(signal)).abs().max()
    assert float(difference) > 1e-6


def test_a_finer_window_uses_the_same_weights() -> None:
    network = made(small_network(input_decimation=1, pools=(8, 6, 4, 10))).eval()
    signal = torch.randn(2, 2, 3 * 3840)
    with torch.no_grad():
        assert network(signal, window=128).shape == (2, 5, 90)
        # Tanh features are averaged over the window: a window of the whole input is the mean of all.
        features = {}
        network.use_plain_form()  # the compiled form calls no module inside, so that a hook there sees nothing
        network.classifier.mix.register_forward_hook(lambda *call: features.update(mixed=call[-1]))
        whole = network(signal, window=3 * 3840)
        pooled = torch.tanh(features["mixed"]).mean(dim=2, keepdim=True)
        expected = network.classifier.output(functional.elu(network.classifier.stage(pooled)))
    torch.testing.assert_close(whole, expected)


@pytest.mark.parametrize("window", [0, 128, 3840 * 2])
def test_a_window_that_does_not_fit_is_refused(window: int) -> None:
    with pytest.raises(UserError, match=f"window = {window}: must divide"):
        made(small_network())(torch.randn(1, 2, 3 * 3840), window=window)


# --- configuration ---


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"n_channels": 0}, "n_channels = 0: a network needs"),
        ({"complexity_factor": 0.0}, "complexity_factor = 0.0: must be above 0"),
        ({"complexity_factor": float("nan")}, "complexity_factor = nan: must be above 0"),
        ({"pools": ()}, "pools = (): each level"),
        ({"pools": (4, 1)}, "pools = (4, 1): each level"),
        ({"pools": (7, 5)}, "pools = (7, 5) with input_decimation = 1: they make 35 samples into one"),
        ({"input_decimation": 0}, "input_decimation = 0: must be at least 1"),
        ({"input_decimation": 4}, "which does not divide an epoch of 3840"),
        ({"kernel_size": 0}, "kernel_size = 0"),
        ({"dilation": 0}, "dilation = 0"),
        ({"csja_ratio": 0}, "csja_ratio = 0"),
        ({"csja_kernel": 0}, "csja_kernel = 0"),
        ({"csja_where": "decoder"}, "csja_where = 'decoder': encoder or classifier"),
        ({"csja_combine": "product"}, "csja_combine = 'product': sequence or add"),
        ({"se_bottom_ratio": -1}, "se_bottom_ratio = -1"),
        ({"se_classifier_ratio": 0}, "se_classifier_ratio = 0"),
        ({"norm_momentum": 0.0}, "norm_momentum = 0.0"),
        ({"classifier_width": 0}, "classifier_width = 0: must be at least 1"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_bad_setting_is_refused_in_one_line(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        NetworkConfig(**setting)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_configuration_comes_back_from_json() -> None:
    for config in (FULL, small_network(csja_where="classifier", csja_combine="add")):
        assert config_from_settings(json.loads(json.dumps(asdict(config)))) == config


# --- on a GPU ---

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.gpu
@on_gpu
def test_a_gpu_gives_the_answers_and_gradients_of_the_processor() -> None:
    torch.manual_seed(1)
    signal, stages = torch.randn(2, 2, 4 * 3840), torch.randint(0, 5, (2, 4))
    answers = []
    for device in ("cpu", "cuda"):
        network = made(FULL).to(device).train()
        loss = build_loss("focal+dice", class_weights=(0.2, 0.3, 0.2, 0.2, 0.2), gamma=2.0, device=device)
        logits = network(signal.to(device))
        loss(logits, stages.to(device)).backward()
        answers.append([logits.detach().cpu(), *(parameter.grad.cpu() for parameter in network.parameters())])
    for here, there in zip(*answers, strict=True):
        torch.testing.assert_close(there, here, rtol=0, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.slow
@on_gpu
def test_half_precision_and_compilation_stay_near_float32_on_a_gpu() -> None:
    torch.manual_seed(1)
    network = made(FULL).cuda().eval()
    signal = torch.randn(2, 2, 4 * 3840, device="cuda")
    with torch.no_grad():
        exact = network(signal)
        torch.testing.assert_close(torch.compile(network)(signal), exact, rtol=0, atol=1e-3)
        with torch.autocast("cuda", torch.bfloat16):
            torch.testing.assert_close(network(signal).float(), exact, rtol=0, atol=0.05)
