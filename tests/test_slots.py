"""Whose fault an error in a worker of several is: only the worker that failed itself says why."""

from __future__ import annotations

import pytest
import torch

from tusp.jobs.parallel import PeerError
from tusp.jobs.slots import _is_of_another
from tusp.platform.errors import CellError, DataError


@pytest.mark.parametrize(
    "error",
    [
        PeerError("another process that trains this cell failed; its log says why"),
        PeerError("in other words"),
        torch.distributed.DistNetworkError("the store is gone"),
        torch.distributed.DistBackendError("NCCL error"),
        # What torch raises over gloo when the other process was killed.
        RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:544] Connection closed by peer [127.0.0.1]:4711"),
        ConnectionResetError(104, "Connection reset by peer"),
    ],
)
def test_the_loss_of_another_worker_is_of_another(error: Exception) -> None:
    assert _is_of_another(error)


@pytest.mark.parametrize(
    "error",
    [
        CellError("loss is NaN in pass 3"),
        # A file on a disk far away: this worker's own trouble, whatever the words.
        DataError("/data/night.edf: Connection reset by peer"),
        CellError("gloomy.edf: another process that trains this cell"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    ],
)
def test_what_a_worker_met_itself_is_its_own(error: Exception) -> None:
    assert not _is_of_another(error)
