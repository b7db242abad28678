"""Sleep statistics of the arms against the expert's: Bland-Altman agreement, from kept predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from tusp.dashboards.frames import Selection
from tusp.dashboards.leaderboard import Board, arm_labels
from tusp.dashboards.predictions import kept_nights
from tusp.platform.errors import DataError, UserError
from tusp.platform.scoring.sleep_statistics import STATISTICS, Agreement, bland_altman, sleep_statistics
from tusp.platform.stages import UNSCORED
from tusp.platform.store.session import Store


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
    frame = _statistics(store, home, selection)
    done = []
    for board in boards:
        labels = arm_labels(selection, board.key)
        here = frame[(frame["corpus"] == board.key.judged_on) & frame["cell"].isin(labels)]
        by_arm = dict(iter(here.groupby(here["cell"].map(labels))))
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


def _statistics(store: Store, home: Path, selection: Selection) -> pd.DataFrame:
    """A row a cell and night: every statistic as predicted and by the expert."""
    cells = {cell.summary.id: cell for cell in selection.cells if cell.summary.state == "done"}
    rows = []
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
            found, expert = (
                sleep_statistics(np.where(true == UNSCORED, UNSCORED, stages)) for stages in (predicted, true)
            )
        except ValueError as error:
            raise DataError(f"{night.corpus} {night.recording}: {error}") from error
        rows.append(
            {"cell": night.cell, "corpus": night.corpus, "recording": night.recording, "subject": night.subject}
            | {f"predicted {name}": getattr(found, name) for name in STATISTICS}
            | {f"expert {name}": getattr(expert, name) for name in STATISTICS}
        )
    columns = [f"{who} {name}" for who in ("predicted", "expert") for name in STATISTICS]
    return pd.DataFrame(rows, columns=["cell", "corpus", "recording", "subject", *columns])


def _agreements(frame: pd.DataFrame, *, resamples: int, seed: int) -> tuple[Agreement, ...]:
    """Agreement of every statistic; ``recordings`` counts each night once."""
    found = []
    for name in STATISTICS:
        predicted, expert = frame[f"predicted {name}"], frame[f"expert {name}"]
        agreement = bland_altman(predicted, expert, frame["subject"], statistic=name, resamples=resamples, seed=seed)
        both = frame.loc[predicted.notna() & expert.notna(), "recording"]
        found.append(replace(agreement, recordings=int(both.nunique())))
    return tuple(found)
