"""Kept predictions: reading them, and counting them anew under any rule without training."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sqlalchemy import select

from tusp.platform.errors import DataError, UserError
from tusp.platform.files import disk_errors_named
from tusp.platform.identity import file_sha256
from tusp.platform.scoring.counts import confusion
from tusp.platform.scoring.rules import LIGHTS, RULES, RULES_IN_WORDS, rule_mask
from tusp.platform.store.models import Artefact, Count
from tusp.platform.store.packed import VOTE, CountedCells, collected
from tusp.platform.store.session import Store

_BATCH = 500


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """The kept prediction of one recording."""

    true: npt.NDArray[np.int8]
    """Expert stages [n_epochs], -1 where unscored."""

    predicted: npt.NDArray[np.int8]
    """[n_epochs]"""

    probabilities: npt.NDArray[np.float32]
    """[n_epochs, 5]"""

    first_epoch: int = 0
    """Index of the first epoch in the raw recording."""

    lights: tuple[int, int] | None = None
    """First epoch with lights off, and first with lights on again, in the raw recording; None where not known."""


@dataclass(frozen=True, kw_only=True, eq=False)
class KeptNight:
    """One recording that a done cell judged, with its kept prediction."""

    cell: str
    corpus: str
    recording: str
    subject: str
    prediction: Prediction


def read_prediction(path: Path) -> Prediction:
    """The kept prediction of one recording.

    Raises:
        DataError: the file is missing, torn, or lacks one of them.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with disk_errors_named("prediction", path), safe_open(path, framework="numpy") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            metadata = opened.metadata() or {}
    except (FileNotFoundError, SafetensorError) as error:
        raise DataError(f"{path}: not a readable prediction ({error})") from error
    missing = sorted({"true", "predicted", "probabilities"} - set(tensors))
    if missing:
        raise DataError(f"{path}: holds no {missing[0]}; a prediction holds true, predicted and probabilities")
    lights = {"lights_off", "lights_on"} <= set(metadata)
    try:
        return Prediction(
            true=tensors["true"],
            predicted=tensors["predicted"],
            probabilities=tensors["probabilities"],
            first_epoch=int(metadata.get("first_epoch", "0")),
            lights=(int(metadata["lights_off"]), int(metadata["lights_on"])) if lights else None,
        )
    except ValueError as error:
        raise DataError(f"{path}: not a readable prediction ({error})") from error


def kept_nights(store: Store, home: Path, cells: Collection[str], *, corpus: str | None = None) -> Iterator[KeptNight]:
    """Kept predictions of everything that these done cells judged, each after its checksum was compared.

    Args:
        store: the open store.
        home: TUSP_HOME, to which the paths are relative.
        cells: ids of done cells.
        corpus: only what was judged on this corpus.

    Raises:
        DataError: a file is missing, was changed, or is not a prediction.
    """
    for cell, name, recording, subject, path, sha256 in _kept_files(store, sorted(cells), corpus):
        if path is None:
            raise DataError(f"cell {cell[:12]} kept no prediction of {name}/{recording}")
        file = home / path
        with disk_errors_named("prediction", file):
            if not file.is_file():
                raise DataError(f"{path} is gone: it held the prediction of {name}/{recording}")
            if file_sha256(file) != sha256:
                raise DataError(
                    f"{path} has changed (its checksum differs); tusp validate says what else does not hold"
                )
        yield KeptNight(
            cell=cell, corpus=name, recording=recording, subject=subject, prediction=read_prediction(file)
        )  # fmt: skip


def counts_from_predictions(
    store: Store, home: Path, cells: Collection[str], *, rule: str, corpus: str | None = None
) -> CountedCells:
    """Counts of these done cells under any rule, made from their kept predictions.

    Returns:
        By cell and corpus, as the store has them for the rules that were counted when the cells ran.

    Raises:
        UserError: rule ``lights`` for a night whose lights are not known.
        DataError: a file is missing, was changed, or does not hold hypnograms of one night.
        ValueError: no such rule.
    """
    rows = []
    for night in kept_nights(store, home, cells, corpus=corpus):
        kept = night.prediction
        where = f"{night.corpus} {night.recording}"
        if rule == LIGHTS and kept.lights is None:
            raise UserError(
                f"{where}: rule lights needs the moments of lights off and on, which this corpus does not tell; "
                f"rules are {RULES_IN_WORDS}"
            )
        lights = None if kept.lights is None else (kept.lights[0] - kept.first_epoch, kept.lights[1] - kept.first_epoch)
        mask = rule_mask(kept.true, rule, lights=lights)
        try:
            if kept.predicted.shape != kept.true.shape:
                raise ValueError(f"{kept.predicted.size} predicted and {kept.true.size} true epochs")
            matrix = confusion(kept.true[mask], kept.predicted[mask])
        except ValueError as error:
            raise DataError(
                f"{where}: the kept prediction of cell {night.cell[:12]} cannot be counted ({error})"
            ) from error
        rows.append((night.cell, night.corpus, night.recording, rule, VOTE, night.subject, *matrix.ravel().tolist()))
    return {(cell, name): counted for (cell, name, _, _), counted in collected(rows).items()}


def _kept_files(
    store: Store, cells: list[str], corpus: str | None
) -> list[tuple[str, str, str, str, str | None, str | None]]:
    """(cell, corpus, recording, subject, path, SHA-256) of all judged recordings, sorted; without a file: None."""
    found: list[tuple[str, str, str, str, str | None, str | None]] = []
    with store.reading() as session:
        for start in range(0, len(cells), _BATCH):
            batch = cells[start : start + _BATCH]
            kept = {
                (cell, where): (path, sha256)
                for cell, where, path, sha256 in session.execute(
                    select(Artefact.cell_id, Artefact.recording, Artefact.path, Artefact.sha256).where(
                        Artefact.cell_id.in_(batch), Artefact.kind == "predictions"
                    )
                )
            }
            judged = (
                select(Count.cell_id, Count.corpus, Count.recording, Count.subject)
                .where(Count.cell_id.in_(batch), Count.rule.in_(RULES), Count.channels == VOTE)
                .distinct()
            )
            if corpus is not None:
                judged = judged.where(Count.corpus == corpus)
            for cell, name, recording, subject in session.execute(judged):
                found.append((cell, name, recording, subject, *kept.get((cell, f"{name}/{recording}"), (None, None))))
    return sorted(found, key=lambda row: row[:3])
