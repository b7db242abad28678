"""What a cell cost: arithmetic against hand-made sums, time and memory measured, energy only where it is told."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch import nn

from tusp.jobs.cost import Meter, multiply_accumulates
from tusp.models.config import NetworkConfig
from tusp.models.native import native
from tusp.models.tinyustaging import build_network
from tusp.platform.environment import cpu_model


def test_the_published_form_has_the_published_arithmetic() -> None:
    network = build_network(NetworkConfig())
    found = multiply_accumulates(network, n_channels=2, window_epochs=1)
    assert found == pytest.approx(130e6, rel=0.005)
    assert not any(block.plain for block in network.up), "the network itself is left as it was"


class Recurrent(nn.Module):
    """One LSTM over the epochs of a window, and a dense layer."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.cells = nn.LSTM(3840, 7, num_layers=2, bidirectional=True, batch_first=batch_first)
        self.dense = nn.Linear(14, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.mean(dim=1).reshape(x.shape[0], -1, 3840)
        out, _ = self.cells(x if self.batch_first else x.transpose(0, 1))
        return self.dense(out if self.batch_first else out.transpose(0, 1)).transpose(1, 2)


@pytest.mark.parametrize("batch_first", [True, False])
def test_recurrent_layers_count(batch_first: bool) -> None:
    gates = 4 * 7 * ((3840 + 7) + (14 + 7)) * 2  # two layers, two directions
    network = Recurrent(batch_first=batch_first)
    assert multiply_accumulates(network, n_channels=2, window_epochs=3) == gates + 14 * 5


def test_a_meter_sees_memory_and_speed() -> None:
    meter = Meter(device="cpu", devices=2)
    with meter.whole():
        block = np.ones(30_000_000)  # 240 MB
        with meter.prediction(100):
            time.sleep(0.02)
        with meter.prediction(60):
            time.sleep(0.02)
        held = block.nbytes
        del block
    cost = meter.record(training_seconds=10.0, resumed=False)
    assert cost["device_seconds"] == 20
    assert cost["peak_memory_bytes"] > held
    assert 1000 < cost["inference_epochs_per_second"] <= 4000
    assert cost["energy_joules"] is None or cost["energy_joules"] >= 0
    assert (cost["energy_joules"] is None) == (cost["energy_missing"] is not None), "a figure or the reason"
    assert cost["hardware"] == cpu_model()
    continued = meter.record(training_seconds=10.0, resumed=True)
    assert continued["energy_joules"] is None
    assert continued["energy_missing"] == "the cell was continued after a stop"


def test_the_peak_is_of_this_cell_and_not_of_the_one_before() -> None:
    native()  # has the process keep what is freed
    first, second = Meter(device="cpu", devices=1), Meter(device="cpu", devices=1)
    with first.whole():
        block = np.ones(60_000_000)
        del block
    with second.whole():
        pass
    assert first.peak_bytes is not None and second.peak_bytes is not None
    assert second.peak_bytes < first.peak_bytes - 300_000_000
