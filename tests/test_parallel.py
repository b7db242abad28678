"""Several processes that train one network learn what one process learns."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from safetensors.torch import load_file, save_file
from torch import nn
from training_nights import SHORT, night, small_network

from tusp.datasets.prepared import SIGNALS, PreparedRecording, open_prepared
from tusp.jobs.checkpoints import load_checkpoint, save_checkpoint
from tusp.jobs.parallel import Peers, SharedBatchNorm, part_of, share_batch_norm, unshare_batch_norm
from tusp.jobs.recipes import Augmentation
from tusp.jobs.training import Progress, Trained, Trainer
from tusp.models.tinyustaging import build_network
from tusp.platform.errors import CellError, TuspError

RECIPE = replace(
    SHORT,
    batch_size=5,  # slices of 2 and 3 windows
    epochs_per_pass=120,
    epochs_per_pass_at_least=120,
    learning_rate=3e-3,
    schedule="plateau",
    augmentation=Augmentation(),
)


class CutError(Exception):
    """Stands for processes that end here."""


def trainer(nights: list[PreparedRecording], folder: Path | None = None, **more: Any) -> Trainer:
    def save(tensors: Any, progress: Progress) -> None:
        assert folder is not None
        save_checkpoint(folder, name=f"pass-{progress.pass_number}", tensors=tensors, state=progress.to_json())

    settings: dict[str, Any] = {
        "network": build_network(small_network(), seed=3),
        "channels": ("EEG", "EOG"),
        "recipe": RECIPE,
        "train": nights[:-3],
        "validation": nights[-3:],
        "seed": 3,
        "save": save if folder else None,
        "load": (lambda: load_checkpoint(folder)) if folder else None,
        **more,
    }
    return Trainer(**settings)


def keep(trained: Trained, folder: Path, name: str) -> None:
    save_file(dict(trained.network.state_dict()), folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps([asdict(record) for record in trained.history]))


def cut_after(steps: int) -> Any:
    left = iter(range(steps))

    def tick() -> None:
        if next(left, None) is None:
            raise CutError

    return tick


def work(rank: int, size: int, root: str, nights: list[str]) -> None:
    """One of several processes; leaves files for the test to compare."""
    torch.set_num_threads(1)
    folder = Path(root)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=size)
    made = [open_prepared(Path(night)) for night in nights]
    together = {"rank": rank, "world_size": size}

    keep(trainer(made, **together).fit(), folder, f"whole-{rank}")

    plain = build_network(small_network(), seed=3)
    plain.use_plain_form()  # the one through this module's batch norm, where the other takes its statistics itself
    keep(trainer(made, network=plain, **together).fit(), folder, f"plain-{rank}")

    kept = folder / "checkpoint"  # which only the first process sees
    own = kept if rank == 0 else folder / "nowhere"
    with contextlib.suppress(CutError):
        trainer(made, own, tick=cut_after(5), **together).fit()
    torch.manual_seed(rank)
    other = build_network(small_network(), seed=3 + rank)  # whatever it starts with, it goes on from the checkpoint
    trained = trainer(made, own, network=other, **together).fit()
    assert trained.resumed_from_pass == 1
    keep(trained, folder, f"continued-{rank}")

    norms = nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3, momentum=0.1, eps=1e-3)).double()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in norms.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x = 3 + torch.randn(5, 2, 40, generator=generator, dtype=torch.float64)
    target = torch.randn(5, 3, 38, generator=generator, dtype=torch.float64)
    peers = Peers(rank=rank, size=size)
    norms = norms.float()
    share_batch_norm(norms, peers)
    mine = x.float()[peers.slice_of(5)].requires_grad_()
    whole = peers.whole(norms(mine), 5)
    ((whole - target.float()) ** 3).mean().backward()
    peers.sum_gradients(norms)
    assert mine.grad is not None
    save_file(
        {
            "x": peers.whole(mine.grad, 5),
            "result": whole.detach(),
            **{name: parameter.grad for name, parameter in norms.named_parameters() if parameter.grad is not None},
            **{f"buffer.{name}": buffer for name, buffer in norms.named_buffers()},
        },
        folder / f"norm-{rank}.safetensors",
    )

    step = iter(range(1000))

    def break_files() -> None:
        if rank == 1 and next(step) == 6:
            for recording in made:
                with (recording.folder / SIGNALS).open("r+b") as stream:
                    stream.truncate(200)

    # Nights of its own: as on another machine, where the disk broke.
    made = [open_prepared(Path(shutil.copytree(night, folder / str(rank) / Path(night).name))) for night in nights]
    try:
        trainer(made, tick=break_files, **together).fit()
        reason = "none"
    except TuspError as error:
        reason = f"{type(error).__name__}: {error}"
    (folder / f"reason-{rank}").write_text(reason)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> list[PreparedRecording]:
    root = tmp_path_factory.mktemp("nights")
    return [night(root, f"n{number}", seed=number) for number in range(8)]


@pytest.fixture(scope="module")
def done(nights: list[PreparedRecording], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left."""
    folder = tmp_path_factory.mktemp("two")
    multiprocessing.spawn(work, (2, str(folder), [str(recording.folder) for recording in nights]), nprocs=2)
    return folder


def history(folder: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((folder / f"{name}.json").read_text())
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def one(nights: list[PreparedRecording]) -> Trained:
    return trainer(nights).fit()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["whole", "plain"])
def test_two_processes_learn_what_one_learns(done: Path, one: Trained, form: str) -> None:
    two = history(done, f"{form}-0")
    assert len(two) == len(one.history)
    for row, record in zip(two, one.history, strict=True):
        assert row["train_loss"] == pytest.approx(record.train_loss, rel=1e-4)
        assert row["validation_loss"] == pytest.approx(record.validation_loss, rel=1e-3)
        assert row["validation_macro_f1"] == pytest.approx(record.validation_macro_f1, abs=0.02)
    assert one.history[-1].train_loss < one.history[0].train_loss
    weights = load_file(done / f"{form}-0.safetensors")
    for name, value in one.network.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=2e-2, atol=2e-3, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["whole", "plain"])
def test_both_hold_the_same_network_to_the_last_bit(done: Path, form: str) -> None:
    assert history(done, f"{form}-0") == history(done, f"{form}-1")
    first, second = (load_file(done / f"{form}-{rank}.safetensors") for rank in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_cut_and_continued_ends_with_the_same_bits(done: Path) -> None:
    expected = load_file(done / "whole-0.safetensors")
    for rank in range(2):
        assert history(done, f"continued-{rank}") == history(done, "whole-0")
        weights = load_file(done / f"continued-{rank}.safetensors")
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert not (done / "nowhere").exists()


@pytest.mark.slow
def test_batch_norm_is_that_of_the_whole_batch(done: Path) -> None:
    norms = nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3, momentum=0.1, eps=1e-3)).double()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in norms.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x = (3 + torch.randn(5, 2, 40, generator=generator, dtype=torch.float64)).requires_grad_()
    target = torch.randn(5, 3, 38, generator=generator, dtype=torch.float64)
    result = norms(x)
    ((result - target) ** 3).mean().backward()
    expected = {"x": x.grad, "result": result.detach()}
    expected |= {name: parameter.grad for name, parameter in norms.named_parameters()}
    expected |= {f"buffer.{name}": buffer for name, buffer in norms.named_buffers()}
    for rank in range(2):
        found = load_file(done / f"norm-{rank}.safetensors")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert value is not None
            slack = {"rtol": 1e-3, "atol": 1e-5}
            torch.testing.assert_close(
                found[name].double(), value.double(), **slack, msg=f"{name} {found[name]} {value}"
            )


@pytest.mark.slow
def test_what_breaks_in_one_ends_both_with_a_reason(done: Path) -> None:
    assert (done / "reason-0").read_text().startswith("PeerError: another process that trains this cell failed")
    assert "signals.npy: not readable" in (done / "reason-1").read_text()


def test_one_process_is_not_asked_to_share() -> None:
    network = build_network(small_network())
    share_batch_norm(network, Peers())
    assert not any(isinstance(module, SharedBatchNorm) for module in network.modules())
    assert part_of([1, 2, 3], Peers()) == [1, 2, 3]


def test_slices_cover_the_batch() -> None:
    for size in (1, 2, 3, 5):
        peers = Peers.__new__(Peers)
        object.__setattr__(peers, "rank", 0)
        object.__setattr__(peers, "size", size)
        bounds = peers.bounds(5)
        assert (bounds[0], bounds[-1], len(bounds)) == (0, 5, size + 1)
        assert all(last > first for first, last in pairwise(bounds))
    with pytest.raises(CellError, match="a batch of 4 windows cannot be divided among 5 processes; use fewer"):
        peers.bounds(4)


def test_processes_that_were_never_joined_are_refused() -> None:
    with pytest.raises(CellError, match=r"torch\.distributed was not initialised"):
        Peers(rank=0, size=2)
    with pytest.raises(CellError, match="rank 2 of 2 processes: must lie in 0 to 1"):
        Peers(rank=2, size=2)


def test_sharing_changes_no_name_and_is_undone() -> None:
    network = build_network(small_network())
    names = list(network.state_dict())
    peers = Peers.__new__(Peers)
    object.__setattr__(peers, "rank", 0)
    object.__setattr__(peers, "size", 2)
    share_batch_norm(network, peers)
    assert any(isinstance(module, SharedBatchNorm) for module in network.modules())
    assert list(network.state_dict()) == names
    unshare_batch_norm(network)
    assert not any(isinstance(module, SharedBatchNorm) for module in network.modules())
    with pytest.raises(CellError, match=r"1: BatchNorm2d cannot be shared"):
        share_batch_norm(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)), peers)
