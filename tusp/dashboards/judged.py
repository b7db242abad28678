"""What one arm did on one board: its counts by replicate and person, ready for metrics and statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from tusp.platform.scoring.counts import Counts
from tusp.platform.scoring.metrics import Floats, f1_of, margins
from tusp.platform.scoring.statistics import Resampled, nan_mean, resampled_values
from tusp.platform.stages import N_STAGES
from tusp.platform.store.packed import Counted, Nights

Replicate = tuple[int, ...]
"""``(seed,)``; ``(seed, fold)`` where several folds judge the same recordings (hold-out corpora)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """Counts of one arm on one board, people and replicates in sorted order."""

    people: tuple[str, ...]
    replicates: tuple[Replicate, ...]
    by_person: Counts
    """[R, P, 5, 5], summed over the person's recordings; zero where the replicate did not judge the
    person."""

    present: npt.NDArray[np.bool_]
    """[R, P]: the replicate judged the person."""

    recordings: tuple[str, ...]
    by_recording: Counts
    """[R, N, 5, 5]"""

    subjects: tuple[str, ...] = ()
    """Whose night each recording is."""

    @property
    def confusion(self) -> Counts:
        """Counts over everybody, [5, 5], summed over replicates."""
        return np.asarray(self.by_person.sum((0, 1)), dtype=np.int64)

    @property
    def n_epochs(self) -> int:
        """Scored epochs of the recordings, each recording once however many replicates judged it."""
        return int(self.by_recording.sum((2, 3)).max(0, initial=0).sum())

    @cached_property
    def person_f1(self) -> Floats:
        """F1 of everybody's true stages, [P, 5]."""
        return person_f1(self.by_person)

    def resampled(self, *, resamples: int, seed: int) -> Resampled:
        """Metrics in every resample of its people; the last ones are remembered."""
        return _resampled(self, resamples, seed)

    def part(self, people: tuple[str, ...], replicates: tuple[Replicate, ...]) -> tuple[Counts, npt.NDArray[np.bool_]]:
        """``by_person`` and ``present`` of some people and replicates, in the order given; all must be
        known. Everything there is comes as the very arrays, not as copies."""
        if people == self.people and replicates == self.replicates:
            return self.by_person, self.present
        rows = np.array([self.replicates.index(replicate) for replicate in replicates], dtype=np.intp)
        place = {person: index for index, person in enumerate(self.people)}
        columns = np.array([place[person] for person in people], dtype=np.intp)
        grid = np.ix_(rows, columns)
        return self.by_person[grid], self.present[grid]


@lru_cache(maxsize=64)
def _resampled(judged: Judged, resamples: int, seed: int) -> Resampled:
    return resampled_values(judged.by_person, resamples=resamples, seed=seed)


def true_stage_f1(counts: Counts | Floats) -> Floats:
    """F1 of the stages that occur in the truth, [..., 5]; NaN for the others."""
    of = margins(counts)
    return np.where(of.true > 0, f1_of(of), np.nan)


def person_f1(counts: Counts) -> Floats:
    """[R, P, 5, 5] to F1 per person and true stage, [P, 5], averaged over replicates."""
    return nan_mean(true_stage_f1(counts))


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Counts of one cell (or entry) that belong to an arm."""

    seed: int
    fold: int
    counted: Counted


@dataclass(frozen=True, kw_only=True, eq=False)
class _Layout:
    """Where the recordings of some sets of nights stand when they are put together."""

    recordings: tuple[str, ...]
    subjects: tuple[str, ...]
    places: Mapping[str, npt.NDArray[np.intp]]
    """Of each set of nights, by its id."""


@lru_cache(maxsize=64)
def _layout(sets: frozenset[Nights]) -> _Layout:
    owners: dict[str, str] = {}
    for nights in sorted(sets, key=lambda item: item.id):
        owners |= zip(nights.recordings, nights.subjects, strict=True)
    recordings = tuple(sorted(owners))
    place = {name: index for index, name in enumerate(recordings)}
    return _Layout(
        recordings=recordings,
        subjects=tuple(owners[name] for name in recordings),
        places={nights.id: np.array([place[name] for name in nights.recordings], dtype=np.intp) for nights in sets},
    )


def folds_repeat(parts: Sequence[Part]) -> bool:
    """Whether several folds of one arm and seed judge the same recording."""
    layout = _layout(frozenset(part.counted.nights for part in parts))
    judged: dict[int, npt.NDArray[np.intp]] = {}
    for part in parts:
        times = judged.setdefault(part.seed, np.zeros(len(layout.recordings), dtype=np.intp))
        times[layout.places[part.counted.nights.id]] += part.counted.counts.any((1, 2))
    return any(int(times.max(initial=0)) > 1 for times in judged.values())


def judge(parts: Sequence[Part], *, folds_repeat: bool) -> Judged:
    """Arrange the counts of one arm.

    Args:
        parts: counts of its cells, at least one; each recording at most once in a fold and seed. Recordings and
            replicates without an epoch are left out, unless there is no epoch at all.
        folds_repeat: several folds judge the same recordings on this board, so every fold is a replicate.
    """
    layout = _layout(frozenset(part.counted.nights for part in parts))
    labels: list[Replicate] = [(part.seed, part.fold) if folds_repeat else (part.seed,) for part in parts]
    replicates = sorted(set(labels))
    row = {label: index for index, label in enumerate(replicates)}
    nights = np.zeros((len(replicates), len(layout.recordings), N_STAGES, N_STAGES), dtype=np.int64)
    for label, part in zip(labels, parts, strict=True):
        nights[row[label], layout.places[part.counted.nights.id]] += part.counted.counts
    recordings, subjects = layout.recordings, layout.subjects
    somewhere: npt.NDArray[np.bool_] = nights.reshape(*nights.shape[:2], -1).max(-1, initial=0) > 0
    if somewhere.any() and not (somewhere.any(0).all() and somewhere.any(1).all()):
        kept, those = np.flatnonzero(somewhere.any(0)).tolist(), np.flatnonzero(somewhere.any(1)).tolist()
        nights = nights[those][:, kept]
        replicates = [replicates[at] for at in those]
        recordings, subjects = tuple(recordings[at] for at in kept), tuple(subjects[at] for at in kept)
    people = sorted(set(subjects))
    place = {person: index for index, person in enumerate(people)}
    owner = np.array([place[subject] for subject in subjects], dtype=np.intp)
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], np.arange(len(people)))
    by_person = np.add.reduceat(nights[:, order], starts, axis=1)
    return Judged(
        people=tuple(people),
        replicates=tuple(replicates),
        by_person=by_person,
        present=by_person.reshape(*by_person.shape[:2], -1).max(-1, initial=0) > 0,
        recordings=recordings,
        by_recording=nights,
        subjects=subjects,
    )
