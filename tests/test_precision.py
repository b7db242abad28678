"""Precision and compilation: what ``auto`` means, what is recorded, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from training_nights import SHORT, night, small_network

from tusp.datasets.prepared import SAMPLES_PER_EPOCH, PreparedRecording
from tusp.jobs import precision
from tusp.jobs.compiling import PAYS_FROM_STEPS, compiled, wants_compile
from tusp.jobs.precision import autocast, resolve_precision, settle_numerics
from tusp.jobs.prediction import predict_night
from tusp.jobs.training import Trained, Trainer
from tusp.models.tinyustaging import build_network
from tusp.platform.errors import UserError


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> list[PreparedRecording]:
    root = tmp_path_factory.mktemp("nights")
    return [night(root, f"n{number}", seed=number) for number in range(3)]


def train(nights: list[PreparedRecording], *, compile_mode: str = "auto", **changes: object) -> Trained:
    return Trainer(
        network=build_network(small_network(), seed=3),
        channels=("EEG", "EOG"),
        recipe=replace(SHORT, **changes),
        train=nights[:-1],
        validation=nights[-1:],
        seed=3,
        compile_mode=compile_mode,
    ).fit()


@pytest.mark.parametrize(
    ("flags", "means"),
    [([], "float32"), (["avx2", "avx512f"], "float32"), (["avx512_bf16"], "bf16"), (["avx2", "amx_bf16"], "bf16")],
    ids=str,
)
def test_auto_is_bf16_where_the_cpu_computes_it(flags: list[str], means: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_flags", lambda: flags)
    assert resolve_precision("auto", "cpu") == means
    assert [resolve_precision(asked, "cpu") for asked in ("float32", "bf16")] == ["float32", "bf16"]
    with pytest.raises(UserError, match="precision = 'half': must be one of auto, float32, bf16"):
        resolve_precision("half", "cpu")


def test_auto_leaves_compiled_blocks_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """They gain more than bf16 does, and compute in float32 alone; without them bf16 it is."""
    monkeypatch.setattr(precision, "cpu_flags", lambda: ["avx512_bf16", "amx_bf16"])
    network, other = build_network(small_network(), seed=0), torch.nn.Linear(2, 2)
    for library, means in ((object(), "float32"), (None, "bf16")):
        monkeypatch.setattr(precision, "native", lambda library=library: SimpleNamespace(library=library))
        assert resolve_precision("auto", "cpu", network) == means
        assert resolve_precision("auto", "cpu", other) == "bf16"
        assert resolve_precision("bf16", "cpu", network) == "bf16"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_computes_float32_as_float32_and_always_alike() -> None:
    settle_numerics("cuda")
    a, b = (torch.randn(512, 512, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    exact = a.double() @ b.double()
    error = ((a.cuda() @ b.cuda()).cpu() - exact).abs().max()
    assert float(error) < 1e-3  # TensorFloat-32 is off by 0.05
    assert torch.are_deterministic_algorithms_enabled()
    assert resolve_precision("auto", "cuda") in ("float32", "bf16")


def test_bf16_changes_the_arithmetic_and_not_the_weights(nights: list[PreparedRecording]) -> None:
    full, half = train(nights, precision="float32"), train(nights, precision="bf16")
    assert (full.precision, half.precision) == ("float32", "bf16")
    assert half.conditions["precision"] == "bf16"
    assert {value.dtype for value in half.network.state_dict().values()} <= {torch.float32, torch.int64}
    for one, other in zip(full.history, half.history, strict=True):
        assert one.train_loss != other.train_loss
        assert other.train_loss == pytest.approx(one.train_loss, rel=0.05)
    assert train(nights, precision="bf16").history[-1].train_loss == half.history[-1].train_loss


def test_prediction_uses_the_same_precision(nights: list[PreparedRecording]) -> None:
    network = train(nights).network
    full, half = (
        predict_night(network, nights[-1], channels=("EEG", "EOG"), window_epochs=6, stride=4, precision=precision)
        for precision in ("float32", "bf16")
    )
    assert half.dtype == np.float32
    assert 0 < float(np.abs(full - half).max()) < 0.1
    np.testing.assert_allclose(half.sum(axis=1), 1, atol=1e-5)


def test_autocast_of_float32_is_nothing() -> None:
    with autocast("float32", "cpu"):
        assert not torch.is_autocast_enabled("cpu")
    with autocast("bf16", "cpu"):
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
        assert torch.is_autocast_enabled("cpu")


# --- compilation ---


def test_compiling_only_where_it_pays() -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert wants_compile("auto", device=cuda, steps=PAYS_FROM_STEPS)[0]
    assert not wants_compile("auto", device=cuda, steps=PAYS_FROM_STEPS - 1)[0]
    assert not wants_compile("auto", device=cpu, steps=10**9)[0]
    assert wants_compile("always", device=cpu, steps=1)[0]
    assert not wants_compile("never", device=cuda, steps=10**9)[0]
    with pytest.raises(UserError, match="compile = 'yes': must be one of auto, never, always"):
        wants_compile("yes", device=cpu, steps=1)


def test_a_training_says_whether_it_was_compiled_and_why_not(nights: list[PreparedRecording]) -> None:
    record = train(nights, max_passes=1).conditions["compile"]
    assert record == {"used": False, "reason": "not on a CPU"}


@pytest.mark.slow
def test_without_a_compiler_the_network_trains_as_it_is(
    nights: list[PreparedRecording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    expected = train(nights, max_passes=1)
    torch._dynamo.reset()
    with config.patch({"cpp.cxx": (str(tmp_path / "no-compiler"),)}):
        trained = train(nights, max_passes=1, compile_mode="always")
    torch._dynamo.reset()
    record = trained.conditions["compile"]
    assert record["used"] is False
    assert "ompile" in record["reason"]
    assert "\n" not in record["reason"]
    assert trained.history[0].train_loss == expected.history[0].train_loss
    for name, value in trained.network.state_dict().items():
        assert torch.equal(value, expected.network.state_dict()[name]), name


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(nights: list[PreparedRecording]) -> None:
    torch._dynamo.reset()
    expected, trained = train(nights), train(nights, compile_mode="always")
    assert trained.conditions["compile"]["used"] is True
    assert trained.conditions["compile"]["seconds"] > 0
    for one, other in zip(expected.history, trained.history, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-3)


def test_trying_a_compiled_form_leaves_the_network_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise RuntimeError("no\ncompiler")

    network = build_network(small_network(), seed=1).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    example = torch.randn(2, 2, 6 * SAMPLES_PER_EPOCH)
    for form in (lambda module, **_: module, refuse):
        monkeypatch.setattr(torch, "compile", form)
        call, record = compiled(network, example, precision="float32")
        assert record["used"] is (call is not None) is (form is not refuse)
        assert not network.training
        assert all(parameter.grad is None for parameter in network.parameters())
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert record["reason"] == "RuntimeError: no"
