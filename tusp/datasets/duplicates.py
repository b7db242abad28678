"""Nights that are there twice: under two names, in two corpora, as the same files or as the same content.

What is certain is named: the same bytes; the same samples whatever the container, unit, gain or sign; the same stages
epoch for epoch through a whole sleep. Of real nights also: a person who is in two registrations that one adapter
reads, and a name of a published corpus that turns up in another one. Copies that were resampled, filtered or cut are
found by their stages alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tusp.datasets.recording import Stages
from tusp.platform.stages import W

LEAST_STAGE_CHANGES: Final = 20
"""Fewer changes of stage than this are too little to call two hypnograms the same."""
MOST_NAMED: Final = 5
_MOST_COMPARED: Final = 200
"""Bounds the work where one file is there a thousand times."""

_SIGNALS: Final = "its signals are the same bytes as those of"
_SAMPLES: Final = "its samples are those of"
_LABELS: Final = "its labels are the same bytes as those of"
_STAGES: Final = "its stages are, epoch for epoch, those of"
_NAME: Final = "its name is that of"
_PERSON: Final = "its person is that of"
_SAME_NIGHT: Final = (_SIGNALS, _SAMPLES, _LABELS, _STAGES, _NAME)
"""Strongest first: of two nights only the strongest is said of the signals and of the labels."""


def stages_digest(stages: Stages) -> str | None:
    """Digest of the stages from the first to the last epoch of sleep; None when they change too rarely.

    Wake and unscored epochs around the sleep do not count, so a night that was trimmed keeps its digest.
    """
    asleep = np.flatnonzero(stages > W)
    if not asleep.size:
        return None
    sleep = stages[asleep[0] : asleep[-1] + 1].astype(np.int8)
    if np.count_nonzero(sleep[1:] != sleep[:-1]) < LEAST_STAGE_CHANGES:
        return None
    return hashlib.sha256(sleep.tobytes()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class Night:
    """What is known of a night for comparing it with others."""

    corpus: str
    name: str
    subject: str
    adapter: str
    real: bool
    published: bool
    """The corpus is a published one, whose names of recordings and people are nobody else's."""
    sources: Sequence[Mapping[str, Any]]
    content: Mapping[str, str]
    """Used channel to the digest of its samples."""
    stages: str | None
    """Digest of its stages."""

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from every other."""
        return self.corpus, self.name


def _keys(night: Night, common_stems: set[tuple[str, str]], *, several: bool) -> Iterable[tuple[str, str, str]]:
    """What another night must not have too: (how they would be the same, value, channel or path).

    Args:
        common_stems: file names that a corpus has more than once (``psg.h5``); they say nothing.
        several: there is more than one corpus, so names and people are worth comparing.
    """
    for source in night.sources:
        if source["role"] in ("signals", "labels"):
            yield _SIGNALS if source["role"] == "signals" else _LABELS, source["sha256"], source["path"]
    for channel, digest in night.content.items():
        yield _SAMPLES, digest[:-1], channel
    if night.stages:
        yield _STAGES, night.stages, ""
    if night.real and several:
        if night.published:
            yield _PERSON, f"{night.adapter}/{night.subject}", ""
        names = {night.name.casefold()}
        stem = _stem(night)
        if stem is not None and (night.corpus, stem) not in common_stems:
            names.add(stem)
        for name in sorted(names):
            yield _NAME, name, ""


def _stem(night: Night) -> str | None:
    """Name of the signal file without its ending."""
    for source in night.sources:
        if source["role"] == "signals":
            name: str = source["path"].rpartition("/")[2].casefold()
            return name.rpartition(".")[0] or name
    return None


def _means_something(how: str, one: tuple[Night, str], other: tuple[Night, str]) -> bool:
    """Whether a shared value says that two nights are one, or of one person."""
    (night, where), (other_night, other_where) = one, other
    if night.key == other_night.key:
        return False
    elsewhere = night.corpus != other_night.corpus
    if how in (_SIGNALS, _LABELS):
        # One file that serves many nights of a corpus (a table of all hypnograms) is no duplicate.
        return elsewhere or where != other_where
    if how == _NAME:
        return elsewhere and (night.published or other_night.published)
    return elsewhere or how != _PERSON


Others = dict[tuple[str, str], dict[str, list[str]]]
"""The other nights that one is the same as, to how (with its own channels for samples)."""


def same_nights(nights: Sequence[Night]) -> dict[tuple[str, str], Others]:
    """Every night that is there more than once.

    Args:
        nights: of one or more corpora.

    Returns:
        Others by night; of a night with very many copies a few in each corpus.
    """
    stems = Counter((night.corpus, stem) for night in nights if (stem := _stem(night)) is not None)
    common = {key for key, count in stems.items() if count > 1}
    several = len({night.corpus for night in nights}) > 1
    owners: dict[tuple[str, str], list[tuple[Night, str]]] = {}
    for night in nights:
        for how, value, where in _keys(night, common, several=several):
            owners.setdefault((how, value), []).append((night, where))
    found: dict[tuple[str, str], Others] = {}
    for (how, _), group in owners.items():
        if len(group) < 2:
            continue
        for one in group:
            named: Counter[str] = Counter()
            for other in group[:_MOST_COMPARED]:
                if named[other[0].corpus] <= 4 * MOST_NAMED and _means_something(how, one, other):
                    named[other[0].corpus] += 1
                    channels = found.setdefault(one[0].key, {}).setdefault(other[0].key, {}).setdefault(how, [])
                    if how == _SAMPLES and one[1] not in channels:
                        channels.append(one[1])
    return found


def _strongest(how: Mapping[str, Sequence[str]]) -> list[str]:
    """What to say of two nights: the strongest about the signals and about the labels, else name, else person."""
    said = [next((kind for kind in pair if kind in how), None) for pair in ((_SIGNALS, _SAMPLES), (_LABELS, _STAGES))]
    kinds = [kind for kind in said if kind is not None]
    return kinds or [next(kind for kind in (_NAME, _PERSON) if kind in how)]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def duplicate_lines(found: Mapping[tuple[str, str], Others], corpus: str) -> dict[str, list[str]]:
    """What to say of each night of ``corpus`` that is there twice, a line each; others of it are not in the result."""
    lines: dict[str, list[str]] = {}
    for (owner, name), others in found.items():
        if owner != corpus:
            continue
        by_line: dict[tuple[str, str], list[str]] = {}
        for (other_corpus, other), how in sorted(others.items()):
            named = other if other_corpus == corpus else f"{other_corpus}/{other}"
            for kind in _strongest(how):
                channels = f" ({', '.join(how[kind])})" if how[kind] else ""
                by_line.setdefault((kind, channels), []).append(named)
        lines[name] = [f"{kind} {_listed(names)}{channels}" for (kind, channels), names in by_line.items()]
    return lines


def shared_lines(
    found: Mapping[tuple[str, str], Others], nights: Sequence[Night], *, of: str | None = None
) -> list[str]:
    """What any two corpora have in common, a line for each pair and kind: nights, and people of other nights.

    Args:
        found: what :func:`same_nights` says of ``nights``.
        of: only pairs with this corpus.
    """
    subjects = {night.key: night.subject for night in nights}
    shared: dict[tuple[str, str, str], dict[str, None]] = {}
    for (corpus, name), others in sorted(found.items(), key=lambda item: (item[0][0] != of, item[0])):
        for (other_corpus, other), how in sorted(others.items()):
            if corpus == other_corpus or (of is not None and of not in (corpus, other_corpus)):
                continue
            if (other_corpus, corpus, "night") in shared or (other_corpus, corpus, "person") in shared:
                continue  # said from the other side
            kind = "night" if any(night in how for night in _SAME_NIGHT) else "person"
            what = subjects[corpus, name] if kind == "person" else name if name == other else f"{name} = {other}"
            shared.setdefault((corpus, other_corpus, kind), {})[what] = None
    plural = {"night": "nights", "person": "people"}
    return [
        f"{one} and {other} share {len(what)} {kind if len(what) == 1 else plural[kind]}: {_listed(list(what))}"
        for (one, other, kind), what in shared.items()
    ]
