"""Leaderboards: one row per arm, every figure derived from stored counts, intervals over people, holes
named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd

from tusp.dashboards.comparison import Comparison, compare, fold_plan, seed_components
from tusp.dashboards.contrast import Contrast, ContrastSpec, contrasts, specify
from tusp.dashboards.frames import BoardKey, ReportCell, Selection, Variant, matrices
from tusp.dashboards.judged import Judged, judge
from tusp.platform.scoring.evidence import PairTest, VarianceComponents
from tusp.platform.scoring.metrics import Floats, accuracy, kappa, macro_f1
from tusp.platform.scoring.sleep_statistics import Agreement
from tusp.platform.scoring.statistics import Estimate, PooledScores, nan_mean, pooled_scores
from tusp.platform.stages import N_STAGES, STAGE_NAMES
from tusp.platform.store.models import COUNT_COLUMNS

BASELINE = "majority stage"
NOTHING: Final = Estimate(value=float("nan"))


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean and standard deviation (n - 1) over recordings in which the metric is defined."""

    mean: float
    sd: float
    recordings: int


@dataclass(frozen=True, kw_only=True)
class Hole:
    """A cell of the board that has no result, or a recording that a done cell should have judged."""

    arm: str
    fold: int
    seed: int
    state: str
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A recording that could not be used."""

    corpus: str
    recording: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One arm (or the baseline) on one board."""

    name: str
    kind: str
    """``arm``, ``imported``, ``human`` or ``baseline``."""

    scores: PooledScores
    per_recording: Mapping[str, Spread]
    """``accuracy``, ``macro_f1``, ``kappa``: never mixed with the pooled figures."""

    confusion: tuple[tuple[int, ...], ...]
    """Epochs by true (row) and predicted stage, summed over seeds."""

    folds_done: int
    folds_planned: int
    """Folds; with several seeds, folds x seeds."""

    seeds: tuple[int, ...]
    people: int
    recordings: int
    epochs: int
    n_parameters: int | None
    n_trainable: int | None
    training_seconds: float
    """Summed over the cells; NaN where none says."""

    settings: str | None
    """Beginning of the hash of model and recipe; None for the baseline."""

    rank: Estimate = NOTHING
    """Among the ranked rows over the people judged in all of them, 1 the best, with an interval over resamples of these
    people; NaN where the row is not ranked."""

    unranked: str | None = None
    """Why an imported, human or published row, or an arm, is not ranked; None for ranked rows and the baseline."""

    variance: VarianceComponents | None = None
    """Of macro-F1 per person, between people and seeds; None with one seed."""

    coverage: float = float("nan")
    """Share of the truth's epochs that an imported submission or a human scorer gives, 0 to 1."""

    provenance: Mapping[str, Any] | None = None
    """Where an imported, human or published row comes from."""

    sleep: tuple[Agreement, ...] = ()
    """Sleep statistics against the expert's, where they were asked for."""


@dataclass(frozen=True, kw_only=True)
class Board:
    """One leaderboard with its contrasts and everything a reader must know about it."""

    key: BoardKey
    rule: str
    rows: tuple[Row, ...]
    """By pooled macro-F1, the best first; the baseline last."""

    contrasts: tuple[Contrast, ...]
    holes: tuple[Hole, ...]
    refused: tuple[Refused, ...]
    without_epochs: tuple[str, ...]
    """Recordings in which the rule judges nothing."""

    notes: tuple[str, ...]

    pairs: tuple[PairTest, ...] = ()
    """All pairs of ranked rows on the people judged in all of them, one Holm family."""

    groups: tuple[tuple[str, ...], ...] = ()
    """Names of ranked rows that no pair test tells apart, the best first."""

    compared_people: int = 0
    """People judged in every ranked row: ranks and pairs are about them."""

    split_seeds: tuple[int, ...] = ()
    """Seeds of the splits, where the submissions say; several only where they make the same split."""

    published: tuple[Any, ...] = ()
    """Published figures for the same corpus and rule, never ranked."""

    @property
    def title(self) -> str:
        """What the board is about, in one line; says whether the nights are simulated or real."""
        key = self.key
        where = key.judged_on if key.judged_on == key.trained_on else f"{key.judged_on} (trained on {key.trained_on})"
        nights = "SIMULATED nights" if key.simulated else "real nights"
        return (
            f"{where} · {nights} · {key.experiment} · {key.protocol} protocol, {key.folds} folds · "
            f"recipe {key.recipe} · rule {self.rule}"
        )


def build_boards(selection: Selection, *, resamples: int, seed: int) -> tuple[Board, ...]:
    """Every board of a selection, real ones first, then by what they are about."""
    places: dict[BoardKey, list[ReportCell]] = {}
    for cell in selection.cells:
        for corpus in cell.judged_on:
            places.setdefault(cell.key(corpus), []).append(cell)
    return tuple(_board(key, places[key], selection, resamples=resamples, seed=seed) for key in sorted(places))


def _board(key: BoardKey, cells: Sequence[ReportCell], selection: Selection, *, resamples: int, seed: int) -> Board:
    labels = _labels(cells)
    frame = _frame_of(key, cells, selection, labels)
    totals = frame[list(COUNT_COLUMNS)].sum(axis=1)
    without_epochs = tuple(sorted(set(frame.loc[totals == 0, "recording"])))
    scored = frame[totals > 0]
    folds_repeat = bool(scored.duplicated(["arm", "seed", "recording"]).any())
    judged = {str(arm): judge(part, folds_repeat=folds_repeat) for arm, part in scored.groupby("arm", sort=True)}
    by_arm: dict[str, list[ReportCell]] = {}
    for cell in cells:
        by_arm.setdefault(labels[cell.variant], []).append(cell)
    rows = [_row(arm, arm_cells, judged.get(arm), resamples=resamples, seed=seed) for arm, arm_cells in by_arm.items()]
    rows.sort(key=lambda row: (-_or_worst(row.scores.overall["macro_f1"].value), row.name))
    baseline, baseline_notes = _baseline(cells, scored, folds_repeat=folds_repeat, resamples=resamples, seed=seed)
    folds = None if folds_repeat else fold_plan(cells, scored, key.judged_on)
    board_contrasts = [
        _with_cost(contrast, by_arm)
        for contrast in contrasts(
            _specs(cells, selection, labels, key.trained_on), judged, folds=folds, resamples=resamples, seed=seed
        )
    ]
    compared = compare(judged, seeded=judged, resamples=resamples, seed=seed)
    rows = [_compared(row, judged.get(row.name), compared) for row in rows]
    corpora = {key.judged_on, *key.trained_on.split("+")}
    refused = {
        Refused(corpus=str(item["corpus"]), recording=str(item["recording"]), reason=str(item["reason"]))
        for submission in selection.submissions
        for item in submission.refused
        if item["corpus"] in corpora
    }
    return Board(
        key=key,
        rule=selection.rule,
        rows=(*rows, baseline) if baseline else tuple(rows),
        contrasts=tuple(board_contrasts),
        holes=tuple(_holes(key, cells, labels, frame)),
        refused=tuple(sorted(refused, key=lambda item: (item.corpus, item.recording))),
        without_epochs=without_epochs,
        notes=(*_notes(rows, judged, board_contrasts), *baseline_notes),
        pairs=compared.pairs,
        groups=compared.groups,
        compared_people=compared.people,
        split_seeds=_split_seeds(cells, selection),
    )


def _compared(row: Row, judged: Judged | None, compared: Comparison) -> Row:
    """An arm with its rank and the components of its seeds."""
    if judged is None:
        return replace(row, unranked="no result yet")
    return replace(row, rank=compared.ranks.get(row.name, NOTHING), variance=seed_components(judged))


def _with_cost(contrast: Contrast, by_arm: Mapping[str, Sequence[ReportCell]]) -> Contrast:
    """A contrast with what it costs in parameters and in training time of a cell."""
    results = {
        arm: [cell.summary.result for cell in by_arm[arm] if cell.summary.state == "done" and cell.summary.result]
        for arm in contrast.weights
    }
    parameters = {arm: _first(of_arm, "n_parameters") for arm, of_arm in results.items()}
    known = all(value is not None for value in parameters.values())
    places = {(result.get("device"), result.get("threads")) for of_arm in results.values() for result in of_arm}
    seconds = float("nan")
    if len(places) == 1 and all("training_seconds" in result for of_arm in results.values() for result in of_arm):
        seconds = sum(
            weight * float(np.mean([result["training_seconds"] for result in results[arm]]))
            for arm, weight in contrast.weights.items()
        )
    return replace(
        contrast,
        parameters=round(sum(w * (parameters[arm] or 0) for arm, w in contrast.weights.items())) if known else None,
        training_seconds=seconds,
    )


def _split_seeds(cells: Sequence[ReportCell], selection: Selection) -> tuple[int, ...]:
    ids = {cell.summary.id for cell in cells}
    found = {
        submission.request.get("split_seed")
        for submission in selection.submissions
        if ids & selection.members[submission.id]
    }
    return tuple(sorted(seed for seed in found if isinstance(seed, int)))


def _labels(cells: Sequence[ReportCell]) -> dict[Variant, str]:
    """Names of the arms; where one name stands for several settings, with the beginning of their hash."""
    variants = sorted({cell.variant for cell in cells})
    names = [name for name, _ in variants]
    return {(name, digest): name if names.count(name) == 1 else f"{name} {digest[:6]}" for name, digest in variants}


def _frame_of(
    key: BoardKey, cells: Sequence[ReportCell], selection: Selection, labels: Mapping[Variant, str]
) -> pd.DataFrame:
    done = pd.DataFrame(
        [
            (cell.summary.id, labels[cell.variant], cell.summary.seed, cell.summary.fold)
            for cell in cells
            if cell.summary.state == "done"
        ],
        columns=["cell", "arm", "seed", "fold"],
    )
    here = selection.counts[selection.counts["corpus"] == key.judged_on]
    return here.merge(done, on="cell", how="inner", validate="many_to_one")


def _or_worst(value: float) -> float:
    return -1.0 if np.isnan(value) else value


def _row(name: str, cells: Sequence[ReportCell], judged: Judged | None, *, resamples: int, seed: int) -> Row:
    done = [cell.summary for cell in cells if cell.summary.state == "done"]
    results: list[Mapping[str, Any]] = [cell.result or {} for cell in done]
    seconds = [float(result["training_seconds"]) for result in results if "training_seconds" in result]
    return Row(
        name=name,
        kind="arm",
        folds_done=len(done),
        folds_planned=len(cells),
        seeds=tuple(sorted({cell.summary.seed for cell in cells})),
        n_parameters=_first(results, "n_parameters"),
        n_trainable=_first(results, "n_trainable"),
        training_seconds=sum(seconds) if seconds else float("nan"),
        settings=cells[0].variant[1][:12],
        **_figures(judged, resamples=resamples, seed=seed),
    )


def _first(results: Sequence[Mapping[str, Any]], name: str) -> int | None:
    return next((int(result[name]) for result in results if result.get(name) is not None), None)


def _figures(judged: Judged | None, *, resamples: int, seed: int) -> dict[str, Any]:
    """What a row derives from counts; everything is not scored (NaN) where nothing was judged."""
    if judged is None:
        nothing = np.zeros((1, 1, N_STAGES, N_STAGES), dtype=np.int64)
        unknown = Spread(mean=float("nan"), sd=float("nan"), recordings=0)
        return {
            "scores": pooled_scores(nothing, resamples=1),
            "per_recording": dict.fromkeys(("accuracy", "macro_f1", "kappa"), unknown),
            "confusion": ((0,) * N_STAGES,) * N_STAGES,
            "people": 0,
            "recordings": 0,
            "epochs": 0,
        }
    nights = judged.by_recording
    return {
        "scores": pooled_scores(judged.by_person, resamples=resamples, seed=seed),
        "per_recording": {
            "accuracy": _spread(nan_mean(accuracy(nights))),
            "macro_f1": _spread(nan_mean(macro_f1(nights))),
            "kappa": _spread(nan_mean(kappa(nights))),
        },
        "confusion": tuple(tuple(int(n) for n in row) for row in judged.confusion),
        "people": len(judged.people),
        "recordings": len(judged.recordings),
        "epochs": judged.n_epochs,
    }


def _spread(values: Floats) -> Spread:
    defined = values[~np.isnan(values)]
    return Spread(
        mean=float(defined.mean()) if defined.size else float("nan"),
        sd=float(defined.std(ddof=1)) if defined.size > 1 else float("nan"),
        recordings=int(defined.size),
    )


def _baseline(
    cells: Sequence[ReportCell],
    scored: pd.DataFrame,
    *,
    folds_repeat: bool,
    resamples: int,
    seed: int,
) -> tuple[Row | None, list[str]]:
    """The row of a scorer that always says the most frequent stage of the fold's training recordings.

    Its counts are the row sums of any arm's counts on the same recordings (the truth is the same in all of
    them), put into the column of that stage.
    """
    parts, notes = [], []
    planned = sorted({cell.summary.fold for cell in cells})
    done = {fold: [c for c in cells if c.summary.fold == fold and c.summary.state == "done"] for fold in planned}
    for fold in planned:
        source = next((cell for cell in done[fold] if (cell.summary.result or {}).get("train_stage_counts")), None)
        if source is None:
            if done[fold]:
                notes.append(f"baseline: fold {fold} does not say which stages it was trained on")
            continue
        trained = np.asarray((source.summary.result or {})["train_stage_counts"])
        part = scored[scored["cell"] == source.summary.id].copy()
        truth = matrices(part).sum(2)
        counts = np.zeros((len(part), N_STAGES, N_STAGES), dtype=np.int64)
        counts[:, :, int(trained.argmax())] = truth
        part[list(COUNT_COLUMNS)] = counts.reshape(len(part), N_STAGES**2)
        part["seed"] = 0
        parts.append(part)
    if not parts or all(part.empty for part in parts):
        return None, notes
    row = Row(
        name=BASELINE,
        kind="baseline",
        folds_done=len(parts),
        folds_planned=len(planned),
        seeds=(),
        n_parameters=None,
        n_trainable=None,
        training_seconds=float("nan"),
        settings=None,
        **_figures(judge(pd.concat(parts), folds_repeat=folds_repeat), resamples=resamples, seed=seed),
    )
    return row, notes


def _specs(
    cells: Sequence[ReportCell], selection: Selection, labels: Mapping[Variant, str], trained_on: str
) -> list[ContrastSpec]:
    """Contrasts within each submission (arms that were asked for together), each once."""
    found: dict[str, ContrastSpec] = {}
    for submission in selection.submissions:
        members = selection.members[submission.id]
        asked = {cell.variant[0]: cell for cell in cells if cell.summary.id in members}
        order = _reference_first(submission.request.get("arms", {}), set(asked), trained_on)
        configs = {labels[asked[arm].variant]: dict(asked[arm].summary.plan.get("model", {})) for arm in order}
        for spec in specify(configs):
            found.setdefault(spec.name, spec)
    return list(found.values())


def _reference_first(requested: Mapping[str, Any], asked: set[str], trained_on: str) -> list[str]:
    """Arms in the order of the request, which may give them for each corpus; others follow, ``full``
    first."""
    by_corpus = requested.get(trained_on)
    if not set(requested) & asked and isinstance(by_corpus, Mapping):
        requested = by_corpus
    order = [arm for arm in requested if arm in asked]
    return order + sorted(asked - set(order), key=lambda arm: (arm != "full", arm))


def _holes(
    key: BoardKey, cells: Sequence[ReportCell], labels: Mapping[Variant, str], frame: pd.DataFrame
) -> list[Hole]:
    holes = []
    judged: dict[str, set[str]] = {str(cell): set(part) for cell, part in frame.groupby("cell")["recording"]}
    for cell in sorted(cells, key=lambda c: (labels[c.variant], c.summary.seed, c.summary.fold)):
        summary, reason = cell.summary, cell.summary.error
        state = summary.state
        if state == "done":
            missing = sorted(cell.test_recordings(key.judged_on) - judged.get(summary.id, set()))
            if not missing:
                continue
            state, reason = "incomplete", f"no counts for {', '.join(missing)}"
        holes.append(Hole(arm=labels[cell.variant], fold=summary.fold, seed=summary.seed, state=state, reason=reason))
    return holes


def _notes(rows: Sequence[Row], judged: Mapping[str, Judged], found: Sequence[Contrast]) -> list[str]:
    notes = []
    if judged:
        longest = max(judged.values(), key=lambda arm: len(arm.people))
        with_stage = (longest.by_person.sum((0, 3)) > 0).sum(0)
        absent = [STAGE_NAMES[code] for code in range(N_STAGES) if with_stage[code] == 0]
        alone = [STAGE_NAMES[code] for code in range(N_STAGES) if with_stage[code] == 1]
        if absent:
            notes.append(f"{', '.join(absent)}: in no expert hypnogram here, so not scored (–)")
            notes += _predicted_only(absent, judged)
        if alone and len(longest.people) > 1:
            stages = ", ".join(alone)
            notes.append(f"{stages}: from one person only, so without an interval, as are macro means")
        if len(longest.people) == 1:
            notes.append("one person only: no intervals")
    if len({row.people for row in rows}) > 1 or any(row.folds_done < row.folds_planned for row in rows):
        notes.append("arms are judged on different people where folds are missing: compare them in the contrast only")
    left_out = sorted({person for contrast in found for person in contrast.left_out})
    if left_out:
        number = f"{len(left_out)} {'person' if len(left_out) == 1 else 'people'}"
        notes.append(f"the contrast leaves out {number} not judged in every arm: {', '.join(left_out)}")
    seeds = sorted({seed for row in rows for seed in row.seeds})
    if len(seeds) > 1:
        notes.append(
            f"{len(seeds)} seeds: metrics are computed within each seed and averaged; "
            "two seeds of one person are not two people"
        )
    return notes


def _predicted_only(absent: Sequence[str], judged: Mapping[str, Judged]) -> list[str]:
    notes = []
    for arm, result in judged.items():
        predicted = result.confusion.sum(0)
        epochs = {stage: int(predicted[STAGE_NAMES.index(stage)]) for stage in absent}
        said = ", ".join(f"{stage} in {n} epochs" for stage, n in epochs.items() if n)
        if said:
            notes.append(f"{arm} predicted {said}: F1 0 there, and macro means count it")
    return notes
