# ruff: noqa: E501 - tables of hostile values read better with one case a line
"""Text documents that tusp is handed: descriptions of corpora (TOML) and split manifests (JSON)."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path

from fuzz.edf import DESCRIPTION
from fuzz.mutation import BYTE_MUTATORS, TEXT_MUTATORS, Mutant, Mutator, Rng, hostile_number, nested, pick
from fuzz.target import Finding, Target, judged, say
from tusp.datasets.corpora.described import Described, parse_description
from tusp.datasets.splits import make_split, parse_manifest, to_json, verify_split
from tusp.platform.errors import UserError

WRONG_VALUES = (
    None, True, -1, 10**30, 1.5, float("nan"), float("inf"), "", "x", "\ud800", "a\nb", "\x1b[31m", [], {}, [[]],
    [None], {"": ""}, "x" * 10_000, [1, "a"], "../../etc/passwd", "/", "{name", "{", "(?P<subject>.*)", "[", "**", "*" * 300,
)  # fmt: skip


def another_value(document: object, rng: Rng) -> str:
    """Replace, drop or add one value somewhere in a tree of dictionaries and lists; says what was done."""
    places: list[tuple[dict[str, object] | list[object], str | int]] = []

    def visit(node: object) -> None:
        children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, child in list(children):
            places.append((node, key))  # type: ignore[arg-type]
            visit(child)

    visit(document)
    node, key = places[pick(rng, places)]
    kind = int(rng.integers(4))
    value = WRONG_VALUES[pick(rng, WRONG_VALUES)]
    if kind == 0:
        del node[key]  # type: ignore[arg-type]
        return f"{key!r} gone"
    if kind == 1 and isinstance(node, list):
        node.insert(0, value)
        return f"{str(value)[:20]!r} inserted"
    if kind == 2:
        other, there = places[pick(rng, places)]
        node[key] = other[there]  # type: ignore[index,call-overload]
        return f"{key!r} set to the value at {there!r}"
    node[key] = value  # type: ignore[index,call-overload]
    return f"{key!r} set to {str(value)[:20]!r}"


def json_value(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    """One value of a JSON document replaced, dropped or added."""
    try:
        document = json.loads(raw)
        said = another_value(document, rng)
        return json.dumps(document).encode(), said
    except (ValueError, IndexError, TypeError, RecursionError):  # an earlier change broke it, or a value holds itself
        return raw[: len(raw) // 2], "cut in half"


def json_deep(raw: bytes, rng: Rng) -> tuple[bytes, str, bool]:
    """Nested far deeper than any parser likes, alone or in place of a value."""
    depth = int(10 ** rng.uniform(2, 5.3))
    brackets = ((b"[", b"]"), (b'{"a":', b"}"))[int(rng.integers(2))]
    deep = nested(*brackets, depth, closed=rng.random() < 0.5)
    if rng.random() < 0.5 and (place := raw.find(b":")) > 0:
        return raw[: place + 1] + deep + raw[place + 1 :], f"{depth} deep inside", True
    return deep, f"{depth} deep", True


def toml_tricks(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    """What TOML allows and nobody writes."""
    tricks = (
        b"x = " + nested(b"[", b"]", 100_000), b"x = " + nested(b"{a=", b"}", 5_000, closed=False),
        b"[" + b"a." * 20_000 + b"b]\n", b"a." * 20_000 + b"b = 1\n", b"[[corpus]]\n", b"corpus = 1\n", b"[signals.files]\n",
        b"[channels]\n", b'[channels.""]\nnames = [""]\ngroup = "EEG"\n', b"x = " + b"9" * 5000, b"x = 0x" + b"f" * 50_000,
        b"x = 1979-05-27T07:32:00Z\n", b"x = nan\n", b"x = '''" + b"\n" * 1000, b'x = "\\uD800"\n', b"[labels]\nfiles='x'\n",
    )  # fmt: skip
    trick = tricks[pick(rng, tricks)]
    lines = raw.splitlines(keepends=True)
    place = int(rng.integers(len(lines) + 1))
    return b"".join([*lines[:place], trick + b"\n", *lines[place:]]), f"{trick[:20]!r} at line {place}"


def toml_value(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    """Another value behind one equals sign."""
    lines = raw.splitlines(keepends=True)
    with_values = [i for i, line in enumerate(lines) if b"=" in line]
    if not with_values:
        return raw + b"= 1", "no key"
    place = with_values[pick(rng, with_values)]
    values = (hostile_number(rng), b'"x"', b"[]", b"{}", b'""', b"true", b"'''a\nb'''", b'"\\u001b[2J"', b'["a", 1]',
              b"'(?P<subject>((a+)+)+)$'", b"'['", b"'{name}{name}'", b"'**/**/**'", b"'/etc/*'", b"'../x'", b"'\xff'",
              b"1979-05-27", b"'" + b"(" * 5000 + b"'", b"'" + b"*" * 300 + b"'", b'"{}"', b'"{0}"', b'"a{name"')  # fmt: skip
    value = values[pick(rng, values)]
    lines[place] = lines[place].split(b"=")[0] + b"= " + value + b"\n"
    return b"".join(lines), f"line {place} set to {value[:24]!r}"


class DocumentTarget(Target):
    """One text file of which only the text counts."""

    file: str
    known: Sequence[Mutator]

    def __init__(self, workspace: Path) -> None:
        super().__init__(workspace)
        self.seed = self.write()

    def write(self) -> bytes:
        raise NotImplementedError

    def mutant(self, rng: Rng) -> Mutant:
        content, what, must = self.seed, [], False
        rounds = 1 if rng.random() < 0.6 else int(rng.integers(2, 4))
        for _ in range(rounds):
            mutators = self.known if rng.random() < 0.8 else BYTE_MUTATORS
            content, said, *refuse = mutators[pick(rng, mutators)](content, rng)
            what.append(said)
            must = bool(refuse and refuse[0] and rounds == 1)
        return Mutant(files={self.file: content}, what=what, must_refuse=must)

    def text(self, root: Path, mutant: Mutant) -> tuple[Path, str]:
        content = mutant.files[self.file]
        assert isinstance(content, bytes)
        path = root / self.file
        path.write_bytes(content)
        try:
            return path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:  # the command line says so itself
            raise UserError(f"{path}: not UTF-8 text") from error

    def check(self, root: Path, mutant: Mutant) -> str:
        try:
            return judged(self.judge(root, mutant), mutant)
        except UserError as error:
            say(str(error), self.file, str(root))
            return "refused"

    def judge(self, root: Path, mutant: Mutant) -> str:
        raise NotImplementedError


class DescriptionTarget(DocumentTarget):
    """Descriptions of a corpus; an accepted one is used on an empty night as well."""

    name = "description"
    file = "mine.toml"
    known = (toml_value, toml_value, toml_value, toml_tricks, *TEXT_MUTATORS)

    def write(self) -> bytes:
        return DESCRIPTION.encode()

    def judge(self, root: Path, mutant: Mutant) -> str:
        path, text = self.text(root, mutant)
        description = parse_description(text, str(path))
        sound = parse_description(self.seed.decode(), str(path))
        said = tomllib.loads(text)
        if description.title != said["corpus"]["title"] or {c.name for c in description.channels} != set(
            said["channels"]
        ):
            raise Finding(f"reads another description than the file's: {description}")
        adapter = Described(name="mine", description=description)
        json.dumps([str(adapter.settings()), adapter.card.title], ensure_ascii=False)
        (root / "p1.edf").write_bytes(b"")
        (root / "p1.csv").write_bytes(b"")
        try:
            discovery = adapter.discover(root)
        except UserError as error:
            say(str(error))
        else:
            if not discovery.refused and not discovery.excluded:
                raise Finding(f"an empty night is neither refused nor excluded: {discovery}")
        return "equal" if description == sound else "different"


class ManifestTarget(DocumentTarget):
    """Split manifests."""

    name = "split"
    file = "split.json"
    known = (json_value, json_value, json_value, json_deep, *TEXT_MUTATORS)

    def write(self) -> bytes:
        self.people = {f"p{n}": (f"p{n}a", f"p{n}b") for n in range(8)}
        self.split = make_split("mine", self.people, protocol="kfold", folds=3, seed=0)
        return to_json(self.split).encode()

    def judge(self, root: Path, mutant: Mutant) -> str:
        path, text = self.text(root, mutant)
        split, claimed = parse_manifest(text, where=str(path))
        problems = verify_split(split, self.people)
        for problem in problems:
            say(problem)
        if split.hash != claimed:  # what `verify` says and `from_json` refuses
            return "refused"
        if split.hash != self.split.hash:
            raise Finding("another split with a hash that fits")
        if problems:
            raise Finding(f"the same split has problems: {problems}")
        return "equal"
