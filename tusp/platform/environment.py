"""What a result was made with: versions, git state and hardware. Imports nothing heavy and takes milliseconds."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

PACKAGES: Final = (
    "tusp", "torch", "ray", "mne", "edfio", "numpy", "scipy", "pandas", "mlflow", "sqlalchemy", "alembic",
    "safetensors",
)  # fmt: skip
"""Packages whose versions are recorded with every submission and attempt."""

GIT_TIMEOUT_S: Final = 5.0
BF16_CAPABILITY: Final = (8, 0)
"""CUDA compute capability from which on a card computes in bfloat16."""

_CPU_FLAGS: Final = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile")


def capture_environment() -> dict[str, Any]:
    """The environment of this process as JSON values; what this machine does not tell is None.

    Keys: ``packages`` (name to version), ``git`` (``{"commit", "dirty"}`` of the checkout that tusp runs from, or
    None), ``python``, ``platform``, ``hostname``, ``cpu`` (``{"model", "cores", "usable_cores", "flags"}``),
    ``memory_bytes`` and ``usable_memory_bytes`` (the limit of the container, if there is one), ``gpu`` (None: the
    process that uses one fills it).
    """
    memory, limit = memory_bytes(), _cgroup_memory_limit()
    return {
        "packages": package_versions(PACKAGES),
        "git": git_state(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "hostname": socket.gethostname(),
        "cpu": {
            "model": cpu_model(),
            "cores": os.cpu_count(),
            "usable_cores": usable_cores(),
            "flags": cpu_flags(),
        },
        "memory_bytes": memory,
        "usable_memory_bytes": min(memory, limit) if memory and limit else memory or limit,
        "gpu": None,
    }


def package_versions(names: Iterable[str]) -> dict[str, str | None]:
    """Installed version of each package, None for one that is not installed."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


@lru_cache(maxsize=4)
def _git_state(package: Path) -> tuple[str, bool] | None:
    root = next((folder for folder in package.parents if (folder / ".git").exists()), None)
    if root is None:
        return None

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=GIT_TIMEOUT_S,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", str(package / "__init__.py"))
        return git("rev-parse", "HEAD"), bool(
            git("status", "--porcelain", "--untracked-files=normal", "--", str(package))
        )
    except (OSError, subprocess.SubprocessError):
        return None  # no git here, not this repository's package, or it does not answer: unknown, as documented


def git_state(package: Path | None = None) -> dict[str, Any] | None:
    """Commit of the checkout a package runs from, and whether its files differ from it; None outside a checkout.

    Args:
        package: folder of the package (tusp itself by default).
    """
    state = _git_state((package or Path(__file__).parent.parent).resolve())
    return None if state is None else {"commit": state[0], "dirty": state[1]}


def usable_cores() -> int:
    """CPU cores that this process may use: its affinity, cut by the container's quota (rounded up)."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    quota = _first_line("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit() and int(quota[1]) > 0:
        cores = min(cores, max(1, -(-int(quota[0]) // int(quota[1]))))
    return cores


def cpu_model() -> str | None:
    """Name of the CPU as the kernel gives it."""
    return _cpuinfo("model name") or platform.processor() or None


def cpu_flags() -> list[str]:
    """Those instruction sets of the CPU that matter for training: AVX2, AVX-512, bf16, AMX."""
    flags = set((_cpuinfo("flags") or "").split())
    return [flag for flag in _CPU_FLAGS if flag in flags]


def computes_bf16(flags: Iterable[str]) -> bool:
    """Whether a CPU with these instruction sets computes in bfloat16 rather than emulating it."""
    return any(flag in ("avx512_bf16", "amx_bf16") for flag in flags)


def memory_bytes() -> int | None:
    """Memory of the machine in bytes."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _cgroup_memory_limit() -> int | None:
    limit = _first_line("/sys/fs/cgroup/memory.max") or _first_line("/sys/fs/cgroup/memory/memory.limit_in_bytes")
    return int(limit) if limit.isdigit() and int(limit) < 1 << 60 else None


def _cpuinfo(key: str) -> str | None:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as stream:
            for line in stream:
                name, _, value = line.partition(":")
                if name.strip() == key:
                    return value.strip()
    except OSError:
        return None
    return None


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError):
        return ""
