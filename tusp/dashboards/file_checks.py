"""Do a done cell's files hold: checksums, predictions and what was counted from them, the curve of its training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from tusp.dashboards.plan_checks import Nights
from tusp.dashboards.predictions import Prediction, read_prediction
from tusp.platform.errors import DataError
from tusp.platform.identity import file_sha256
from tusp.platform.scoring.counts import confusion
from tusp.platform.scoring.rules import RULES, rule_mask
from tusp.platform.stages import N_STAGES, UNSCORED
from tusp.platform.store.queries import CellRecord
from tusp.platform.store.record import ArtefactRow, CountRow

VOTE: Final = "vote"
SUM_TOLERANCE: Final = 1e-3
"""Probabilities are float32 means of many windows; those of an epoch sum to 1 within this."""


def check_files(cell: CellRecord, home: Path, nights: Nights, *, plan_holds: bool) -> list[str]:
    """Everything about the files of a done cell; of each file the first thing that is wrong.

    Args:
        cell: with its counts, curve and artefacts.
        home: TUSP_HOME, which paths of artefacts are relative to.
        nights: the prepared nights.
        plan_holds: the plan is the one the cell was made from; else it is not asked what should be there.
    """
    lines = []
    counts: dict[tuple[str, str], dict[str, CountRow]] = {}
    for row in cell.counts:
        if row.channels == VOTE:
            counts.setdefault((row.corpus, row.recording), {})[row.rule] = row
    expected = (
        {(entry["name"], name): digest for entry in cell.plan["corpora"] for name, digest in entry["test"].items()}
        if plan_holds
        else {}
    )
    predictions = {row.recording: row for row in cell.artefacts if row.kind == "predictions" and row.recording}
    if plan_holds:
        lines += _differences(set(predictions), {f"{corpus}/{name}" for corpus, name in expected}, "prediction")
        for rule in RULES:
            judged = {f"{corpus}/{name}" for (corpus, name), rows in counts.items() if rule in rows}
            lines += _differences(judged, {f"{corpus}/{name}" for corpus, name in expected}, f"counts under {rule}")
    for kept in cell.artefacts:
        said = file_problem(home, kept)
        if said is None and kept.kind == "predictions" and kept.recording:
            corpus, _, name = kept.recording.partition("/")
            digest = expected.get((corpus, name))
            stored = counts.get((corpus, name), {})
            said = _prediction_problem(cell, home / kept.path, corpus, name, digest, stored, nights)
        if said is None and kept.kind == "history":
            said = _history_problem(cell, home / kept.path)
        if said is not None:
            lines.append(f"{kept.path}: {said}")
    return lines


def _differences(found: set[str], expected: set[str], what: str) -> list[str]:
    lines = []
    if expected - found:
        lines.append(f"no {what} of {', '.join(sorted(expected - found))}")
    if found - expected:
        lines.append(f"{what} of {', '.join(sorted(found - expected))}, which its plan does not test")
    return lines


def file_problem(home: Path, kept: ArtefactRow) -> str | None:
    """Why a kept file is not the one that was recorded; None where it is."""
    path = home / kept.path
    try:
        size = path.stat().st_size
        if size != kept.size_bytes:
            return f"has {size} bytes instead of {kept.size_bytes}"
        if file_sha256(path) != kept.sha256:
            return "was changed after it was written (its checksum differs)"
    except FileNotFoundError:
        return "is gone"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def _prediction_problem(
    cell: CellRecord,
    path: Path,
    corpus: str,
    name: str,
    digest: str | None,
    counts: Mapping[str, CountRow],
    nights: Nights,
) -> str | None:
    try:
        prediction, said = read_prediction(path), _metadata(path)
    except DataError as error:
        return str(error).removeprefix(f"{path}: ")
    wanted = {"cell": cell.id, "corpus": corpus, "recording": name, "simulated": json.dumps(cell.simulated)}
    wrong = [f"{key} {said.get(key)}, not {value}" for key, value in wanted.items() if said.get(key) != value]
    if wrong:
        return f"says it is of {'; '.join(wrong)}"
    problem = _array_problem(prediction)
    if problem is not None:
        return problem
    if digest is not None:
        problem = _truth_problem(prediction, said, corpus, name, digest, nights)
        if problem is not None:
            return problem
    return _count_problem(prediction, said, counts, None if digest is None else nights.subject(corpus, name, digest))


def _metadata(path: Path) -> Mapping[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as opened:
        return dict(opened.metadata() or {})


def _array_problem(prediction: Prediction) -> str | None:
    true, predicted, probabilities = prediction.true, prediction.predicted, prediction.probabilities
    if true.ndim != 1 or predicted.shape != true.shape or probabilities.shape != (*true.shape, N_STAGES):
        return (
            f"its arrays do not belong together: true {list(true.shape)}, predicted {list(predicted.shape)}, "
            f"probabilities {list(probabilities.shape)}"
        )
    for array, what, lowest in ((true, "true", UNSCORED), (predicted, "predicted", 0)):
        if array.dtype.kind not in "iu":
            return f"its {what} stages are of type {array.dtype}; stage codes are integers"
        outside = np.flatnonzero((array < lowest) | (array >= N_STAGES))
        if outside.size:
            return (
                f"{what} stage {array[outside[0]]} at epoch {outside[0]} ({outside.size} epochs) is outside the codes "
                f"{lowest} to {N_STAGES - 1}"
            )
    if not np.isfinite(probabilities).all() or (probabilities < 0).any():
        return "holds probabilities that are negative or no numbers"
    if true.size and float(np.abs(probabilities.sum(1, dtype=np.float64) - 1).max()) > SUM_TOLERANCE:
        return "holds probabilities that do not sum to 1"
    if not np.array_equal(probabilities.argmax(1), predicted):
        return "its predicted stages are not the most probable ones"
    return None


def _truth_problem(
    prediction: Prediction, said: Mapping[str, str], corpus: str, name: str, digest: str, nights: Nights
) -> str | None:
    night, stages = nights.prepared(corpus, name, digest), nights.stages(corpus, name, digest)
    if night is None or stages is None:
        return None
    if prediction.true.size != stages.size:
        return f"has {prediction.true.size} epochs where the prepared night has {stages.size}"
    different = np.flatnonzero(prediction.true != stages)
    if different.size:
        return f"its true stages differ from the prepared night's in {different.size} epochs (first: {different[0]})"
    if said.get("simulated") != json.dumps(night.simulated):
        return f"says simulated: {said.get('simulated')}, the prepared night says {json.dumps(night.simulated)}"
    return None


def _count_problem(
    prediction: Prediction, said: Mapping[str, str], counts: Mapping[str, CountRow], subject: str | None
) -> str | None:
    wrong = []
    for rule, row in sorted(counts.items()):
        if rule in RULES:
            mask = rule_mask(prediction.true, rule)
            again = confusion(prediction.true[mask], prediction.predicted[mask])
            if again.tolist() != [list(line) for line in row.matrix]:
                wrong.append(rule)
    if wrong:
        return f"the counts in the store under {' and '.join(wrong)} are not those of this prediction"
    subjects = {row.subject for row in counts.values()} | {said.get("subject")} | ({subject} if subject else set())
    if len(subjects) > 1:
        return f"is of several people: {', '.join(sorted(map(str, subjects)))} (file, counts and corpus must agree)"
    return None


def _history_problem(cell: CellRecord, path: Path) -> str | None:
    try:
        passes: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        return f"is not JSON ({error})"
    curve = [asdict(point) for point in cell.curve]
    names = list(curve[0]) if curve else []
    kept = [{name: item.get(name) for name in names} for item in passes] if isinstance(passes, list) else None
    if kept != curve:
        return "its passes are not those of the curve in the store"
    best = (cell.result or {}).get("best_pass")
    score = (cell.result or {}).get("validation_macro_f1")
    if best is not None and score is not None and curve and curve[best - 1]["validation_macro_f1"] != score:
        return f"pass {best} validated at {curve[best - 1]['validation_macro_f1']}, the cell's result says {score}"
    return None
