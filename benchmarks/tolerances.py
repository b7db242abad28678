"""How far apart two trainings of the same cell are when one thing about the computation differs.

    python benchmarks/tolerances.py
    LEARNING_RATE=1e-4 python benchmarks/tolerances.py --only "2 threads" "2 processes"

Recipe `quick` (three passes of twenty steps, all augmentations) on eight made-up nights, seed 0. One row a change: the
largest relative difference of the training and validation loss of a pass, the largest difference of validation
macro-F1, and whether weights are the same to the last bit.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from training_nights import night

from tusp.datasets.prepared import PreparedRecording, open_prepared
from tusp.jobs.recipes import PAPER, QUICK
from tusp.jobs.training import Trained, Trainer
from tusp.models.config import NetworkConfig
from tusp.models.tinyustaging import build_network

RECIPE = replace(
    QUICK,
    epochs_per_pass=1280,
    epochs_per_pass_at_least=1280,
    augmentation=PAPER.augmentation,
    precision="float32",
    # By a variable, since the processes that train together read it, too.
    learning_rate=float(os.environ.get("LEARNING_RATE", QUICK.learning_rate)),
)
Row = tuple[list[float], list[float], list[float], dict[str, Tensor]]


class ShortOfMemory(nn.Module):
    """The network on a device that takes half a batch."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) > RECIPE.batch_size // 2:
            raise torch.OutOfMemoryError("out of memory")
        logits: Tensor = self.inside(x)
        return logits


def train(
    nights: Sequence[PreparedRecording], *, threads: int = 1, narrow: bool = False, plain: bool = False, **more: Any
) -> Trained:
    torch.set_num_threads(threads)
    recipe = replace(RECIPE, precision=more.pop("precision", "float32"))
    network = build_network(NetworkConfig(n_channels=2, **RECIPE.network), seed=more.pop("weights", 0))
    network.use_plain_form(plain)
    trainer = Trainer(
        network=ShortOfMemory(network) if narrow else network,
        channels=("EEG", "EOG"),
        recipe=recipe,
        train=nights[:-2],
        validation=nights[-2:],
        seed=more.pop("seed", 0),
        **more,
    )
    return trainer.fit()


def row(trained: Trained) -> Row:
    history = trained.history
    weights = {name.removeprefix("inside."): v.clone() for name, v in trained.network.state_dict().items()}
    return (
        [record.train_loss for record in history],
        [float(record.validation_loss or 0) for record in history],
        [float(record.validation_macro_f1 or 0) for record in history],
        weights,
    )


def together(rank: int, size: int, folder: str, folders: list[str]) -> None:
    """One of several processes."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    found = row(train([open_prepared(Path(f)) for f in folders], rank=rank, world_size=size))
    if rank == 0:
        torch.save(found, Path(folder) / "row")
    dist.destroy_process_group()


def in_two(nights: Sequence[PreparedRecording]) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(together, (2, folder, [str(night.folder) for night in nights]), nprocs=2)
        found = torch.load(Path(folder) / "row", weights_only=True)
        return found[0], found[1], found[2], found[3]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="names of the rows")
    only = parser.parse_args().only
    with tempfile.TemporaryDirectory() as folder:
        nights = [night(Path(folder), f"n{number}", n_epochs=240, seed=number) for number in range(8)]
        ways: dict[str, Callable[[], Row]] = {
            "the same again": lambda: row(train(nights)),
            "nights held in memory": lambda: row(train(nights, feed="resident")),
            "2 threads": lambda: row(train(nights, threads=2)),
            "2 processes": lambda: in_two(nights),
            "torch's blocks instead of compiled ones": lambda: row(train(nights, plain=True)),
            "micro-batch of half": lambda: row(train(nights, narrow=True)),
            "bf16": lambda: row(train(nights, precision="bf16")),
            "another seed": lambda: row(train(nights, seed=1, weights=1)),
        }
        reference = row(train(nights))
        print(
            "reference:",
            *(
                f"pass {i + 1}: loss {a:.5f}, validation {b:.5f}, macro-F1 {c:.4f};"
                for i, (a, b, c) in enumerate(zip(*reference[:3], strict=True))
            ),
        )
        print("| changed | training loss | validation loss | macro-F1 | same bits |\n|---|---|---|---|---|")
        for name, way in ways.items():
            if only and name not in only:
                continue
            found = way()
            loss, validation = (
                max(abs(a - b) / abs(b) for a, b in zip(found[i], reference[i], strict=True)) for i in range(2)
            )
            score = max(abs(a - b) for a, b in zip(found[2], reference[2], strict=True))
            same = all(torch.equal(found[3][key], value) for key, value in reference[3].items())
            print(f"| {name} | {loss:.1e} | {validation:.1e} | {score:.4f} | {'yes' if same else 'no'} |", flush=True)


if __name__ == "__main__":
    main()
