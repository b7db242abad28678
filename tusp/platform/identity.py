"""Identity: canonical JSON and the hashes made from it.

An identity is computed from values only (never from ``repr``, paths, addresses or worker counts), so the same
identity can be computed from the plan and from the stored record.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Final

SCHEMA_VERSION: Final = 1
"""Part of every cell's identity: raise it when the meaning of a recorded value changes."""


def _plain(value: Any, where: str) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where}: {value} has no place in an identity")
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ValueError(f"{where}: keys of an identity are strings")
        return {key: _plain(value[key], f"{where}.{key}") for key in sorted(value)}
    if isinstance(value, Sequence):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise ValueError(f"{where}: {type(value).__name__} has no canonical form")


def canonical_json(value: Any) -> str:
    """Canonical JSON of plain values, mappings, sequences and dataclasses: sorted keys, no spaces, finite floats.

    Raises:
        ValueError: a value has no canonical form (a set, an array, NaN).
    """
    return json.dumps(_plain(value, "value"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def fingerprint(value: Any) -> str:
    """SHA-256 (64 hexadecimal digits) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 (hexadecimal) of a file's bytes, read in blocks.

    Raises:
        OSError: the file cannot be read, or is no regular file (a pipe or a device may never end).
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
