"""Sleep statistics of the arms against the expert's: Bland-Altman agreement, from kept predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tusp.dashboards.frames import Selection
from tusp.dashboards.leaderboard import Board, arm_labels
from tusp.dashboards.predictions import kept_nights
from tusp.platform.errors import DataError, UserError
from tusp.platform.scoring.sleep_statistics import (
    STATISTICS,
    Agreement,
    SleepStatistics,
    bland_altman,
    sleep_statistics,
)
from tusp.platform.stages import UNSCORED
from tusp.platform.store.session import Store


@dataclass(frozen=True, kw_only=True)
class _Night:
    """Statistics of one night as a cell predicted them and by the expert."""

    cell: str
    corpus: str
    recording: str
    subject: str
    predicted: SleepStatistics
    expert: SleepStatistics


def with_sleep(
    store: Store, home: Path | None, boards: Sequence[Board], selection: Selection, *, resamples: int, seed: int
) -> tuple[Board, ...]:
    """The boards with the agreement of every sleep statistic in the rows of their arms.

    Statistics are those of the whole kept night, whatever the scoring rule, over the epochs that the expert scored: a
    predicted stage where the expert gave none is left out on both sides. With several seeds or folds that judge the
    same night, each prediction is a night of its own in bias and limits; intervals resample people.

    Raises:
        UserError: no home.
        DataError: a kept prediction is missing or was changed.
    """
    if home is None:
        raise UserError("sleep statistics are made from kept predictions, and no home says where they are")
    nights = _statistics(store, home, selection)
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
                    replace(row, sleep=_agreements(by_arm[row.name], resamples=resamples, seed=seed))
                    if row.kind == "arm" and row.name in by_arm
                    else row
                    for row in board.rows
                ),
            )
        )
    return tuple(done)


def _statistics(store: Store, home: Path, selection: Selection) -> list[_Night]:
    """Every cell and night."""
    cells = {cell.summary.id: cell for cell in selection.cells if cell.summary.state == "done"}
    found = []
    for night in kept_nights(store, home, cells):
        if night.corpus not in cells[night.cell].judged_on:
            continue
        true, predicted = night.prediction.true, night.prediction.predicted
        if true.shape != predicted.shape:
            raise DataError(
                f"{night.corpus} {night.recording}: cell {night.cell[:12]} kept {predicted.size} predicted and "
                f"{true.size} true epochs"
            )
        try:
            said, expert = (
                sleep_statistics(np.where(true == UNSCORED, UNSCORED, stages)) for stages in (predicted, true)
            )
        except ValueError as error:
            raise DataError(f"{night.corpus} {night.recording}: {error}") from error
        found.append(
            _Night(
                cell=night.cell,
                corpus=night.corpus,
                recording=night.recording,
                subject=night.subject,
                predicted=said,
                expert=expert,
            )
        )
    return found


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
