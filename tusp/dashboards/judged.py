"""What one arm did on one board: its counts by replicate and person, ready for metrics and statistics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from tusp.dashboards.frames import matrices
from tusp.platform.scoring.counts import Counts
from tusp.platform.stages import N_STAGES

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

    def part(self, people: tuple[str, ...], replicates: tuple[Replicate, ...]) -> tuple[Counts, npt.NDArray[np.bool_]]:
        """``by_person`` and ``present`` of some people and replicates, in the order given; all must be
        known."""
        rows = np.array([self.replicates.index(replicate) for replicate in replicates], dtype=np.intp)
        place = {person: index for index, person in enumerate(self.people)}
        columns = np.array([place[person] for person in people], dtype=np.intp)
        grid = np.ix_(rows, columns)
        return self.by_person[grid], self.present[grid]


def judge(frame: pd.DataFrame, *, folds_repeat: bool) -> Judged:
    """Arrange the counts of one arm.

    Args:
        frame: rows with ``seed, fold, recording, subject`` and the count columns, at most one row per
            recording, fold and seed. Recordings without an epoch under the rule must have been taken out.
        folds_repeat: several folds judge the same recordings on this board, so every fold is a replicate.
    """
    seeds, folds = frame["seed"].tolist(), frame["fold"].tolist()
    labels: list[Replicate] = [
        (seed, fold) if folds_repeat else (seed,) for seed, fold in zip(seeds, folds, strict=True)
    ]
    replicates = tuple(sorted(set(labels)))
    people = tuple(sorted(set(frame["subject"])))
    recordings = tuple(sorted(set(frame["recording"])))
    owner = dict(zip(frame["recording"].tolist(), frame["subject"].tolist(), strict=True))
    counts = matrices(frame)
    row = np.array([replicates.index(label) for label in labels], dtype=np.intp)
    person = np.searchsorted(np.array(people, dtype=object), frame["subject"].to_numpy(dtype=object))
    night = np.searchsorted(np.array(recordings, dtype=object), frame["recording"].to_numpy(dtype=object))
    shape = (N_STAGES, N_STAGES)
    by_person = np.zeros((len(replicates), len(people), *shape), dtype=np.int64)
    by_recording = np.zeros((len(replicates), len(recordings), *shape), dtype=np.int64)
    np.add.at(by_person, (row, person), counts)
    np.add.at(by_recording, (row, night), counts)
    return Judged(
        people=people,
        replicates=replicates,
        by_person=by_person,
        present=by_person.sum((2, 3)) > 0,
        recordings=recordings,
        by_recording=by_recording,
        subjects=tuple(owner[name] for name in recordings),
    )
