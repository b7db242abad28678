"""The compiled blocks of `native.cpp`: built once per machine with its C++ compiler, kept in the user's cache.

Where there is no compiler, or the build fails, the network runs in its torch form, and `status` says why: the answers
agree to 1e-5, the time does not. ``TUSP_NATIVE=0`` switches the compiled blocks off.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

SOURCES: Final = tuple(Path(__file__).with_name(name) for name in ("native.cpp", "native_parts.h", "native_short.h"))
FLAGS: Final = ("-O3", "-march=native", "-std=c++17", "-fno-math-errno", "-fPIC", "-fopenmp")
COMPILERS: Final = ("c++", "g++", "clang++")
BUILD_SECONDS: Final = 300
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's mallopt

Address = ctypes.c_void_p
Long = ctypes.c_int64
Threads = ctypes.c_int


class Source(ctypes.Structure):
    """One tensor a block reads, see native.cpp."""

    _fields_ = (
        ("values", Address),
        ("scale", Address),
        ("shift", Address),
        ("channels", Long),
        ("gradient", Address),
        ("scale_gradient", Address),
    )


_A, _L, _T = Address, Long, Threads
SIGNATURES: Final = {
    "tusp_conv_forward": (_A, _L, _L, _L, _A, _A, _L, _L, _L, _L, _A, _A, _T, _T),
    "tusp_pair_forward": (_A, _L, _L, _L, _A, _A, _A, _A, _A, _A, _L, _L, _L, _L, _A, _A, _T),
    "tusp_conv_backward": (_A, _L, _L, _L, _A, _L, _L, _L, _L, _A, _A, _A, _A, _A, _T),
    "tusp_up_forward": (_A, _L, _L, _A, _A, _L, _L, _A, _A, _T),
    "tusp_up_backward": (_A, _L, _L, _A, _L, _L, _A, _A, _A, _A, _A, _T),
    "tusp_pool_forward": (_A, _L, _L, _L, _A, _A, _T),
    "tusp_pool_backward": (_A, _L, _L, _L, _A, _A, _T),
    "tusp_head_forward": (_A, _L, _L, _L, _A, _A, _L, _L, _A, _T),
    "tusp_head_backward": (_A, _L, _L, _L, _A, _A, _L, _L, _A, _A, _A, _A, _T),
}


@dataclass(frozen=True, kw_only=True)
class Native:
    """The loaded blocks, or why there are none."""

    library: ctypes.CDLL | None
    reason: str
    """One line: the compiler and vector width, or what is missing."""


def _processor() -> str:
    """What `-march=native` depends on: a cache may be shared by unlike machines."""
    described = Path("/proc/cpuinfo")
    if not described.exists():
        return platform.processor()
    wanted = ("flags", "Features", "model name", "CPU part")
    lines = described.read_text(errors="replace").split("\n\n")[0].splitlines()
    return "\n".join(line for line in lines if line.startswith(wanted))


def _cache_folder() -> Path:
    base = os.environ.get("TUSP_NATIVE_CACHE") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "tusp"


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
        raise OSError(f"{Path(command[0]).name} failed: {first}")
    return done.stdout


def _built(compiler: str) -> Path:
    """Path of the shared library, built now unless it is in the cache."""
    version = _run([compiler, "--version"]).splitlines()[0]
    described = "\n".join((*(source.read_text() for source in SOURCES), version, *FLAGS, _processor()))
    key = hashlib.sha256(described.encode()).hexdigest()[:16]
    kept = _cache_folder() / f"native-{key}.so"
    if kept.exists():
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        compiled, linked = Path(folder) / "native.o", Path(folder) / "native.so"
        _run([compiler, *FLAGS, "-c", str(SOURCES[0]), "-o", str(compiled)])
        # Not linked against an OpenMP of its own: it finds torch's, and so shares its threads.
        _run([compiler, "-shared", str(compiled), "-o", str(linked)])
        linked.replace(kept)  # whole or not at all, also when several workers build at once
    return kept


def _load() -> Native:
    if os.environ.get("TUSP_NATIVE") == "0":
        return Native(library=None, reason="switched off by TUSP_NATIVE=0")
    compiler = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    if compiler is None:
        return Native(library=None, reason=f"no C++ compiler ({', '.join(COMPILERS)}) on this machine")
    try:
        library = ctypes.CDLL(str(_built(compiler)))
        for name, arguments in SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, None
        library.tusp_pair_forward.restype = ctypes.c_int
        lanes = int(library.tusp_lanes())
    except (OSError, RuntimeError, AttributeError, subprocess.TimeoutExpired) as error:
        return Native(library=None, reason=f"could not be built or loaded: {error}")
    return Native(library=library, reason=f"{Path(compiler).name}, {lanes} values at once")


def keep_freed_memory() -> None:
    """Have glibc keep freed memory instead of giving it back: every training step asks for the same large tensors.

    Without this, each of them is mapped anew and filled page by page, which takes half of a step's time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@cache
def native() -> Native:
    """The compiled blocks; the first call of a process loads them, the first on a machine builds them (10 s)."""
    loaded = _load()
    if loaded.library is None:
        if os.environ.get("TUSP_NATIVE") != "0":
            warnings.warn(f"compiled network blocks are not used: {loaded.reason}", RuntimeWarning, stacklevel=3)
    else:
        keep_freed_memory()
    return loaded


def status() -> str:
    """One line for `tusp doctor` and for the record of a cell's environment."""
    loaded = native()
    return f"{'on' if loaded.library is not None else 'off'} ({loaded.reason})"


def library() -> ctypes.CDLL:
    """The loaded library; only to be called where `native` says there is one."""
    found = native().library
    assert found is not None
    return found


def address(tensor: Tensor | None) -> int | None:
    """Where a tensor's values lie; None for none."""
    if tensor is None:
        return None
    assert tensor.is_contiguous()
    return tensor.data_ptr()


def usable(x: Tensor) -> bool:
    """Whether the compiled blocks can take ``x``: float32 on a processor, no autocast, no tracing, and they exist."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and native().library is not None
    )
