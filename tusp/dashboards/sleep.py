"""Sleep statistics of arms, imported submissions and human scorers against the expert's: Bland-Altman agreement, from
kept predictions and hypnograms."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tusp.dashboards.frames import Selection
from tusp.dashboards.leaderboard import Board, arm_labels
from tusp.dashboards.predictions import kept_nights
from tusp.dashboards.rows import Row
from tusp.platform.errors import DataError, UserError
from tusp.platform.scoring.sleep_statistics import (
    STATISTICS,
    Agreement,
    SleepStatistics,
    bland_altman,
    sleep_statistics,
)
from tusp.platform.stages import UNSCORED
from tusp.platform.store.entries import list_entries, read_kept
from tusp.platform.store.session import Store


@dataclass(frozen=True, kw_only=True)
class _Night:
    """Statistics of one night as a cell or an entry has them and by the expert."""

    cell: str
    """The cell's id, or the entry's."""
    corpus: str
    recording: str
    subject: str
    predicted: SleepStatistics
    expert: SleepStatistics


def with_sleep(
    store: Store, home: Path | None, boards: Sequence[Board], selection: Selection, *, resamples: int, seed: int
) -> tuple[Board, ...]:
    """The boards with the agreement of every sleep statistic in the rows of arms, imported submissions and scorers.

    Statistics are those of the whole kept night, whatever the scoring rule, over the epochs that the expert scored: a
    predicted stage where the expert gave none is left out on both sides, and so is an epoch of which an entry says
    nothing. A recording that an entry lacks is no night of it. With several seeds or folds that judge the same night,
    each prediction is a night of its own in bias and limits; intervals resample people.

    Raises:
        UserError: no home.
        DataError: a kept prediction is missing or was changed.
    """
    if home is None:
        raise UserError("sleep statistics are made from kept predictions, and no home says where they are")
    nights = _statistics(store, home, selection)
    wanted = {entry for board in boards for row in board.rows for entry in row.entries}
    of_entries = _entry_statistics(store, home, wanted)
    done = []
    for board in boards:
        labels = arm_labels(selection, board.key)
        by_arm: dict[str, list[_Night]] = {}
        for night in nights:
            if night.corpus == board.key.judged_on and night.cell in labels:
                by_arm.setdefault(labels[night.cell], []).append(night)
        done.append(
            replace(
                board,
                rows=tuple(
                    replace(row, sleep=_agreements(of_row, resamples=resamples, seed=seed)) if of_row else row
                    for row in board.rows
                    for of_row in [_of_row(row, by_arm, of_entries)]
                ),
            )
        )
    return tuple(done)


def _of_row(row: Row, by_arm: Mapping[str, list[_Night]], of_entries: Mapping[str, list[_Night]]) -> list[_Night]:
    """The nights behind a row: of an arm, or of one entry. The mean of several scorers has none of its own."""
    if row.kind == "arm":
        return by_arm.get(row.name, [])
    return of_entries.get(row.entries[0], []) if len(row.entries) == 1 else []


def _entry_statistics(store: Store, home: Path, wanted: Collection[str]) -> dict[str, list[_Night]]:
    """Entry to its nights, from kept hypnograms."""
    found: dict[str, list[_Night]] = {}
    for record in list_entries(store) if wanted else ():
        if record.id not in wanted:
            continue
        found[record.id] = [
            _night(record.id, record.corpus, night.recording, night.subject, night.true, night.predicted)
            for night in read_kept(home, record)
            if night.predicted is not None
        ]
    return found


def _statistics(store: Store, home: Path, selection: Selection) -> list[_Night]:
    """Every cell and night."""
    cells = {cell.summary.id: cell for cell in selection.cells if cell.summary.state == "done"}
    found = []
    for night in kept_nights(store, home, cells):
        if night.corpus not in cells[night.cell].judged_on:
            continue
        true, predicted = night.prediction.true, night.prediction.predicted
        found.append(_night(night.cell, night.corpus, night.recording, night.subject, true, predicted))
    return found


def _night(
    cell: str,
    corpus: str,
    recording: str,
    subject: str,
    true: npt.NDArray[np.int8],
    predicted: npt.NDArray[np.int8],
) -> _Night:
    """Statistics of one night over the epochs of which both say something.

    Raises:
        DataError: not two hypnograms of one length.
    """
    if true.shape != predicted.shape:
        raise DataError(
            f"{corpus} {recording}: {cell[:12]} kept {predicted.size} predicted and {true.size} true epochs"
        )
    neither = (true == UNSCORED) | (predicted == UNSCORED)
    try:
        said, expert = (sleep_statistics(np.where(neither, UNSCORED, stages)) for stages in (predicted, true))
    except ValueError as error:
        raise DataError(f"{corpus} {recording}: {error}") from error
    return _Night(cell=cell, corpus=corpus, recording=recording, subject=subject, predicted=said, expert=expert)


def _agreements(nights: Sequence[_Night], *, resamples: int, seed: int) -> tuple[Agreement, ...]:
    """Agreement of every statistic; ``recordings`` counts each night once."""
    found = []
    for name in STATISTICS:
        predicted, expert = (
            np.array([getattr(source, name) for source in sources], dtype=np.float64)
            for sources in ([night.predicted for night in nights], [night.expert for night in nights])
        )
        agreement = bland_altman(
            predicted, expert, [night.subject for night in nights], statistic=name, resamples=resamples, seed=seed
        )
        both = ~np.isnan(predicted) & ~np.isnan(expert)
        recordings = {night.recording for night, known in zip(nights, both.tolist(), strict=True) if known}
        found.append(replace(agreement, recordings=len(recordings)))
    return tuple(found)
