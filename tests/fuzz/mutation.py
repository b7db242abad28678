# ruff: noqa: E501 - tables of hostile values read better with one case a line
"""Ways to break a file, whatever its format."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

Rng = np.random.Generator
Mutator = Callable[[bytes, Rng], tuple[bytes, str]]
"""From the content of a file to another content and what was done."""

HOSTILE_NUMBERS = (
    "-1", "0", "1", "-0", "2", "30", "255", "256", "65535", "65536", "2147483647", "-2147483648", "4294967296",
    "9223372036854775807", "99999999999999999999999", "1e3", "1e9", "1e18", "1e300", "1.7e308", "1e38", "1e309", "-1e309", "1e-300",
    "1e-320", "nan", "NaN", "inf", "-inf", "Infinity", "0x10", "1_000", "1,5", "0.1", "29.999", "1e", "--3", "+", "",
    " ", "٣٠", "½", "null", "true", '"30"', "9" * 400, "9" * 5000, "-" + "9" * 400, "0." + "0" * 400 + "1", "$", "%s",
    "%n", "../..", "\x00",
)  # fmt: skip
HOSTILE_BYTES = (0x00, 0xFF, 0x7F, 0x80, 0x20, 0x2D, 0x39, 0x0A, 0x0D, 0x22, 0x3C, 0x14, 0x15)


@dataclass(frozen=True, kw_only=True)
class Odd:
    """Something else than a regular file in a file's place: fifo, folder, dangling, loop, zero, missing."""

    kind: str


Content = bytes | Odd
ODD_KINDS = ("fifo", "folder", "dangling", "loop", "zero", "missing")


@dataclass(kw_only=True)
class Mutant:
    """The files of one case by name, what was done to them, and whether only a refusal is right."""

    files: dict[str, Content]
    what: list[str] = field(default_factory=list)
    must_refuse: bool = False
    seed: int = 0
    """Which of the sound versions it was made from."""


def pick(rng: Rng, choices: Sequence[object]) -> int:
    """Index of a random choice."""
    return int(rng.integers(len(choices)))


def _place(raw: bytes, rng: Rng) -> int:
    """A position, half of the time among the first 2 KiB, where headers are."""
    if not raw:
        return 0
    return int(rng.integers(min(len(raw), 2048) if rng.random() < 0.5 else len(raw)))


def _block(raw: bytes, rng: Rng) -> tuple[int, int]:
    start = _place(raw, rng)
    return start, min(len(raw), start + int(2 ** rng.uniform(0, 13)))


def flip_bits(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    changed = bytearray(raw)
    places = [_place(raw, rng) for _ in range(int(rng.integers(1, 9)))]
    for place in places if raw else []:
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed), f"bits flipped at {places}"


def set_bytes(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    changed = bytearray(raw)
    places = [_place(raw, rng) for _ in range(int(rng.integers(1, 5)))]
    for place in places if raw else []:
        changed[place] = HOSTILE_BYTES[pick(rng, HOSTILE_BYTES)]
    return bytes(changed), f"bytes set at {places}"


def insert(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    place, length = _place(raw, rng), int(2 ** rng.uniform(0, 10))
    return raw[:place] + rng.bytes(length) + raw[place:], f"{length} bytes inserted at {place}"


def delete(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    start, end = _block(raw, rng)
    return raw[:start] + raw[end:], f"bytes {start} to {end} deleted"


def truncate(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    place = _place(raw, rng)
    return raw[:place], f"truncated to {place} bytes"


def extend(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    length = int(2 ** rng.uniform(0, 16))
    tail = [bytes(length), b" " * length, rng.bytes(length), (raw * (length // max(len(raw), 1) + 1))[:length]]
    return raw + tail[pick(rng, tail)], f"{length} bytes appended"


def duplicate(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    start, end = _block(raw, rng)
    return raw[:end] + raw[start:end] + raw[end:], f"bytes {start} to {end} doubled"


def swap(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    (a, b), (c, d) = sorted((_block(raw, rng), _block(raw, rng)))
    b = min(b, c)
    return raw[:a] + raw[c:d] + raw[b:c] + raw[a:b] + raw[d:], f"blocks {a} to {b} and {c} to {d} swapped"


def blank(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    start, end = _block(raw, rng)
    value = bytes([HOSTILE_BYTES[pick(rng, HOSTILE_BYTES)]])
    return raw[:start] + value * (end - start) + raw[end:], f"bytes {start} to {end} set to {value!r}"


def garbage(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    start, end = _block(raw, rng)
    return raw[:start] + rng.bytes(end - start) + raw[end:], f"bytes {start} to {end} replaced by noise"


def nothing_left(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    wholes = (
        b"", rng.bytes(int(2 ** rng.uniform(0, 14))), bytes(len(raw)), b"<!DOCTYPE html><html>404</html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    )  # fmt: skip
    whole = wholes[pick(rng, wholes)]
    return whole, f"replaced by {len(whole)} bytes that begin with {whole[:12]!r}"


BYTE_MUTATORS: tuple[Mutator, ...] = (
    flip_bits, flip_bits, flip_bits, set_bytes, insert, delete, truncate, extend, duplicate, swap, blank, garbage,
    nothing_left,
)  # fmt: skip


def hostile_number(rng: Rng) -> bytes:
    return HOSTILE_NUMBERS[pick(rng, HOSTILE_NUMBERS)].encode()


def replace_number(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    found = list(re.finditer(rb"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", raw))
    if not found:
        return flip_bits(raw, rng)
    match, value = found[pick(rng, found)], hostile_number(rng)
    return raw[: match.start()] + value + raw[match.end() :], f"{match[0][:20]!r} replaced by {value[:20]!r}"


def replace_word(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    found = list(re.finditer(rb"[A-Za-z_][\w-]*", raw))
    if not found:
        return flip_bits(raw, rng)
    other = found[pick(rng, found)][0]
    values = (other, b"", b"x" * 5000, "Ωμ\u202e".encode(), b"\xff\xfe", b"NaN", b"\x1b[31m", b"a\x85b", b"\\ud800")
    match, value = found[pick(rng, found)], values[pick(rng, values)]
    return raw[: match.start()] + value + raw[match.end() :], f"{match[0][:20]!r} replaced by {value[:20]!r}"


def change_lines(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    lines = raw.splitlines(keepends=True)
    if not lines:
        return extend(raw, rng)
    one, other = pick(rng, lines), pick(rng, lines)
    kind = int(rng.integers(6))
    if kind == 0:
        del lines[one]
    elif kind == 1:
        lines.insert(other, lines[one])
    elif kind == 2:
        lines[one], lines[other] = lines[other], lines[one]
    elif kind == 3:
        lines[one] = lines[one].rstrip() + b" "
    elif kind == 4:
        lines[one] = lines[one].strip() * int(2 ** rng.uniform(1, 12)) + b"\n"
    else:
        lines[one] = b"\n"
    return b"".join(lines), f"lines changed ({('gone', 'doubled', 'swapped', 'joined', 'long', 'blank')[kind]} {one})"


def recode(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    text = raw.decode("utf-8", "replace")
    ways = {
        "utf-16": text.encode("utf-16", "replace"), "utf-32": text.encode("utf-32", "replace"),
        "byte order mark": b"\xef\xbb\xbf" + raw, "returns": raw.replace(b"\r", b"").replace(b"\n", b"\r"),
        "CRLF": raw.replace(b"\r", b"").replace(b"\n", b"\r\n"), "NUL between": b"\0".join(raw[i : i + 1] for i in range(len(raw))),
        "latin-1": text.replace("e", "é").encode("latin-1", "replace"), "quotes": raw.replace(b",", b'",', 1),
        "tabs": raw.replace(b" ", b"\t"), "lone surrogate": raw + b"\xed\xa0\x80", "form feeds": raw.replace(b"\n", b"\x0c\n"),
    }  # fmt: skip
    way = list(ways)[pick(rng, list(ways))]
    return ways[way], f"recoded: {way}"


TEXT_MUTATORS: tuple[Mutator, ...] = (
    replace_number, replace_number, replace_number, replace_number, replace_word, replace_word, change_lines,
    change_lines, recode,
)  # fmt: skip


def nested(opening: bytes, closing: bytes, depth: int, *, closed: bool = True) -> bytes:
    return opening * depth + (closing * depth if closed else b"")
