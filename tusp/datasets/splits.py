"""Who trains, validates and tests: subject-wise splits with a hash, and the check that nobody leaks.

Protocols (shares are of people, never of recordings; all nights of a person stay together):

``kfold``
    ``folds`` disjoint test sets that cover everyone; 10 % of the rest (at least one person) validates.
``paper``
    each fold 75 / 10 / 15 % train / validation / test; the test sets are disjoint, so five folds test 75 % of
    the people once and 25 % never.

The order of people is drawn by sorting them by name and giving each the next 64-bit number of numpy's PCG64
stream, seeded with the SHA-256 of corpus, protocol, number of folds, seed and purpose. numpy promises that
this stream never changes, so neither does a split.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, Protocol, get_args

import numpy as np

from tusp.platform.errors import UserError
from tusp.platform.identity import fingerprint

ProtocolName = Literal["paper", "kfold"]
PROTOCOLS: Final[tuple[str, ...]] = get_args(ProtocolName)
PARTS: Final = ("train", "validation", "test")

MANIFEST_FORMAT: Final = "tusp-split"
MANIFEST_VERSION: Final = 1
LONGEST_TEXT: Final = 255
"""Characters of a name in a manifest; file names are no longer either."""

SUBSET_SEPARATOR: Final = ":"
"""Between a corpus and a named subset of its people: ``sedf-sc:sedf-20``."""

_PAPER_TEST_PERCENT: Final = 15
_VALIDATION_PERCENT: Final = 10


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One division of the people. Subjects are sorted."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Split:
    """A manifest of people. Folds are counted from 0, as everywhere in the store."""

    corpus: str
    protocol: str
    seed: int
    folds: tuple[Fold, ...]
    recordings: Mapping[str, tuple[str, ...]]
    """Subject to the names of the recordings that were usable when the split was made."""

    @cached_property
    def hash(self) -> str:
        """Fingerprint (64 hexadecimal digits) of the manifest, whatever the order of the people."""
        return fingerprint(_manifest(self))

    def recordings_of(self, subjects: Iterable[str]) -> tuple[str, ...]:
        """Names of all recordings of these people, sorted by subject, then name."""
        return tuple(name for subject in sorted(subjects) for name in self.recordings[subject])


class _Night(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def usable(self) -> bool: ...


def usable_by_subject(recordings: Iterable[_Night]) -> dict[str, tuple[str, ...]]:
    """Subject to the sorted names of the usable recordings; people without a usable one are left out."""
    people: dict[str, list[str]] = {}
    for recording in recordings:
        if recording.usable:
            people.setdefault(recording.subject, []).append(recording.name)
    return {subject: tuple(sorted(people[subject])) for subject in sorted(people)}


def corpus_of(label: str) -> str:
    """The registered corpus that a label (``sedf-sc`` or ``sedf-sc:sedf-20``) is about."""
    return label.split(SUBSET_SEPARATOR, 1)[0]


def _percent_of(count: int, percent: int) -> int:
    """``percent`` % of ``count``, rounded, a half upwards."""
    return (count * percent + 50) // 100


def _shuffled(subjects: Iterable[str], derivation: Mapping[str, Any]) -> list[str]:
    """The subjects in an order that depends on their names and the derivation alone."""
    ordered = sorted(subjects)
    bits = np.random.PCG64(int(fingerprint(derivation), 16))
    keys = bits.random_raw(len(ordered))
    return [ordered[index] for index in np.argsort(keys, kind="stable")]


def _test_sizes(n_people: int, *, protocol: str, folds: int) -> list[int]:
    """People in each test set. The first ones are larger by one where it does not divide."""
    tested = n_people
    if protocol == "paper":
        tested = min(n_people, max(folds, _percent_of(n_people * folds, _PAPER_TEST_PERCENT)))
    return [tested // folds + (fold < tested % folds) for fold in range(folds)]


def make_split(
    corpus: str,
    recordings_by_subject: Mapping[str, Sequence[str]],
    *,
    protocol: str,
    folds: int,
    seed: int,
) -> Split:
    """Divide the people of a corpus.

    Args:
        corpus: its name; part of the drawing, so two corpora with equal subject names do not share an order.
        recordings_by_subject: subject to the names of the usable recordings; order does not matter.
        protocol: ``paper`` or ``kfold``.
        folds: number of test sets.
        seed: any integer; the same gives the same split.

    Raises:
        UserError: a fold would have nobody to train on, validate or test, or a recording has two people.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"protocol {protocol!r} is unknown; known are {' and '.join(PROTOCOLS)}")
    people = {subject: tuple(sorted(names)) for subject, names in sorted(recordings_by_subject.items())}
    _refuse_impossible(corpus, people, protocol=protocol, folds=folds)
    derivation = {"corpus": corpus, "protocol": protocol, "folds": folds, "seed": seed}
    order = _shuffled(people, {**derivation, "purpose": "test"})
    made: list[Fold] = []
    begin = 0
    for index, size in enumerate(_test_sizes(len(people), protocol=protocol, folds=folds)):
        test = set(order[begin : begin + size])
        begin += size
        rest = [subject for subject in people if subject not in test]
        base = len(people) if protocol == "paper" else len(rest)
        n_validation = max(1, _percent_of(base, _VALIDATION_PERCENT))
        drawn = _shuffled(rest, {**derivation, "purpose": "validation", "fold": index})
        fold = Fold(
            train=tuple(sorted(drawn[n_validation:])),
            validation=tuple(sorted(drawn[:n_validation])),
            test=tuple(sorted(test)),
        )
        for part in PARTS:
            if not getattr(fold, part):
                raise UserError(
                    f"corpus {corpus}: {folds} folds of {len(people)} people leave fold {index} with nobody "
                    f"to {'train on' if part == 'train' else part}; use other folds or more people"
                )
        made.append(fold)
    return Split(corpus=corpus, protocol=protocol, seed=seed, folds=tuple(made), recordings=people)


def _refuse_impossible(corpus: str, people: Mapping[str, Sequence[str]], *, protocol: str, folds: int) -> None:
    if not people:
        raise UserError(f"corpus {corpus}: no usable recording to split; see `tusp datasets audit {corpus}`")
    least = 2 if protocol == "kfold" else 1
    if folds < least:
        raise UserError(f"{folds} folds: protocol {protocol} needs at least {least}")
    if protocol == "paper" and folds * _PAPER_TEST_PERCENT > 100:
        raise UserError(
            f"{folds} folds: disjoint test sets of {_PAPER_TEST_PERCENT} % allow at most "
            f"{100 // _PAPER_TEST_PERCENT} in protocol paper"
        )
    if folds > len(people):
        raise UserError(
            f"corpus {corpus}: {folds} folds need at least {folds} people, but only {len(people)} have a "
            "usable recording; use fewer folds"
        )
    problems = _shared_recordings(people)
    if problems:
        raise UserError(f"corpus {corpus}: {problems[0]}")
    for subject, names in people.items():
        if not names:
            raise UserError(f"corpus {corpus}: person {subject} has no recording")


def _shared_recordings(people: Mapping[str, Sequence[str]]) -> list[str]:
    owners: dict[str, list[str]] = {}
    for subject in sorted(people):
        for name in people[subject]:
            owners.setdefault(name, []).append(subject)
    problems = []
    for name, found in sorted(owners.items()):
        different = sorted(set(found))
        if len(different) > 1:
            shown = ", ".join(different[:5]) + (", ..." if len(different) > 5 else "")
            problems.append(f"recording {name} belongs to {len(different)} people ({shown})")
        elif len(found) > 1:
            problems.append(f"recording {name} of person {different[0]} is named {len(found)} times")
    return problems


def verify_split(split: Split, recordings_by_subject: Mapping[str, Sequence[str]]) -> list[str]:
    """Everything wrong with a split of this corpus, one line each; an empty list means that nobody leaks.

    Checked: people in two parts of a fold, in two test sets, in no part, unknown to the corpus; empty parts;
    too few people tested for the protocol; recordings that moved to another person, vanished or are new.
    """
    problems: list[str] = []
    known = set(recordings_by_subject)
    if split.protocol not in PROTOCOLS:
        problems.append(f"protocol {split.protocol!r} is unknown; known are {' and '.join(PROTOCOLS)}")
    if not split.folds:
        problems.append("there is no fold")
    for index, fold in enumerate(split.folds):
        problems += _problems_of_fold(index, fold, known)
    problems += _problems_of_tests(split, known)
    problems += _shared_recordings(split.recordings)
    problems += _problems_of_recordings(split, recordings_by_subject)
    return problems


def _problems_of_fold(index: int, fold: Fold, known: set[str]) -> list[str]:
    problems: list[str] = []
    parts: dict[str, list[str]] = {}
    for part in PARTS:
        subjects: tuple[str, ...] = getattr(fold, part)
        if not subjects:
            problems.append(f"fold {index}: {part} is empty")
        for subject, times in Counter(subjects).items():
            parts.setdefault(subject, []).append(part)
            if times > 1:
                problems.append(f"fold {index}: person {subject} is named {times} times in {part}")
    for subject in sorted(parts):
        if len(parts[subject]) > 1:
            problems.append(f"fold {index}: person {subject} leaks: is in {' and '.join(parts[subject])}")
        if subject not in known:
            problems.append(f"fold {index}: person {subject} of {parts[subject][0]} is unknown to the corpus")
    problems += [f"fold {index}: person {subject} is missing" for subject in sorted(known - set(parts))]
    return problems


def _problems_of_tests(split: Split, known: set[str]) -> list[str]:
    tested: dict[str, list[int]] = {}
    for index, fold in enumerate(split.folds):
        for subject in set(fold.test):
            tested.setdefault(subject, []).append(index)
    problems = [
        f"person {subject} is tested more than once: in folds {', '.join(map(str, found))}"
        for subject, found in sorted(tested.items())
        if len(found) > 1
    ]
    if split.protocol == "kfold":
        problems += [f"person {subject} is in no test set" for subject in sorted(known - set(tested))]
    elif split.protocol == "paper" and split.folds and len(known) >= len(split.folds):
        promised = sum(_test_sizes(len(known), protocol="paper", folds=len(split.folds)))
        if len(tested) != promised:
            problems.append(f"{len(tested)} of {len(known)} people are tested where the protocol says {promised}")
    return problems


def _problems_of_recordings(split: Split, recordings_by_subject: Mapping[str, Sequence[str]]) -> list[str]:
    owner_now = {name: subject for subject, names in recordings_by_subject.items() for name in names}
    owner_then = {name: subject for subject, names in split.recordings.items() for name in names}
    problems: list[str] = []
    for name, subject in sorted(owner_then.items()):
        if name not in owner_now:
            problems.append(f"recording {name} of person {subject} is not among the usable recordings")
        elif owner_now[name] != subject:
            problems.append(f"recording {name} belongs to person {owner_now[name]}, not to {subject}")
    problems += [
        f"recording {name} of person {subject} is not in the manifest"
        for name, subject in sorted(owner_now.items())
        if name not in owner_then
    ]
    return problems


def _manifest(split: Split) -> dict[str, Any]:
    return {
        "format": MANIFEST_FORMAT,
        "version": MANIFEST_VERSION,
        "corpus": split.corpus,
        "protocol": split.protocol,
        "seed": split.seed,
        "folds": [{part: sorted(getattr(fold, part)) for part in PARTS} for fold in split.folds],
        "recordings": {subject: sorted(names) for subject, names in sorted(split.recordings.items())},
    }


def to_json(split: Split) -> str:
    """The manifest as JSON text, with its hash."""
    return json.dumps({**_manifest(split), "hash": split.hash}, indent=1, ensure_ascii=False) + "\n"


def parse_manifest(text: str, *, where: str = "split manifest") -> tuple[Split, str]:
    """The split of a manifest and the hash it claims, unchecked; for a look at what was changed.

    Raises:
        UserError: the text is not a split manifest.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error})") from None
    except RecursionError:
        raise UserError(f"{where}: not a split manifest (nested too deeply)") from None
    if not isinstance(content, dict) or content.get("format") != MANIFEST_FORMAT:
        raise UserError(f"{where}: not a split manifest; `tusp datasets splits export` writes one")
    if content.get("version") != MANIFEST_VERSION:
        raise UserError(f"{where}: manifest version {content.get('version')!r}; this program reads {MANIFEST_VERSION}")
    try:
        split = Split(
            corpus=_text(content["corpus"]),
            protocol=_text(content["protocol"]),
            seed=_integer(content["seed"]),
            folds=tuple(Fold(**{part: _texts(fold[part]) for part in PARTS}) for fold in content["folds"]),
            recordings={_text(subject): _texts(names) for subject, names in content["recordings"].items()},
        )
        return split, _text(content["hash"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: not a whole split manifest ({type(error).__name__}: {error})") from None


def from_json(text: str, *, where: str = "split manifest") -> Split:
    """Read a manifest.

    Args:
        text: what ``to_json`` wrote.
        where: named in errors, for example the file.

    Raises:
        UserError: not a manifest, or one that was changed after it was written.
    """
    split, claimed = parse_manifest(text, where=where)
    if split.hash != claimed:
        raise UserError(
            f"{where}: changed after it was written (its hash is {split.hash[:12]}, it claims {claimed[:12]})"
            "; export it again"
        )
    return split


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable() or len(value) > LONGEST_TEXT:
        raise TypeError(f"{str(value)[:60]!r} is not a printable text of reasonable length")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{str(value)[:60]!r} is not a list")
    return tuple(sorted(map(_text, value)))


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not a whole number")
    return value
