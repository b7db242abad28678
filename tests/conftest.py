"""What all tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from ray_homes import prepared_home, whole_home

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell starts what it runs in the background so, and whatever the tests start and interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = ["prepared_home", "whole_home"]  # fixtures of the tests that start a real Ray

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real expert labels and signals beside the checkout (TUSP_SHARED_DATA), or a skip."""
    folder = Path(os.environ.get("TUSP_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set TUSP_SHARED_DATA)")
    return folder


@pytest.fixture(autouse=True)
def no_flags_from_other_tests() -> None:
    """The global flags of a command line that an earlier test ran are forgotten."""
    from tusp.cli import context

    context.set_flags(home=None, db=None)
