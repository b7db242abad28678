"""Rows of a board: arms from their cells, the majority-stage baseline, imported submissions and human scorers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tusp.dashboards.costs import Cost, costs_of, first_of, in_all
from tusp.dashboards.entries import EntryRow
from tusp.dashboards.frames import ReportCell
from tusp.dashboards.judged import Judged, Part, judge
from tusp.platform.scoring.evidence import VarianceComponents
from tusp.platform.scoring.metrics import Floats, accuracy_of, f1_of, kappa_of, macro, margins
from tusp.platform.scoring.sleep_statistics import Agreement
from tusp.platform.scoring.statistics import Estimate, PooledScores, nan_mean, pooled_scores
from tusp.platform.stages import N_STAGES
from tusp.platform.store.packed import Counted

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
    """``arm``, ``imported``, ``human mean``, ``human`` or ``baseline``."""

    scores: PooledScores
    per_recording: Mapping[str, Spread]
    """``accuracy``, ``macro_f1``, ``kappa``: never mixed with the pooled figures."""

    confusion: tuple[tuple[int, ...], ...]
    """Epochs by true (row) and predicted stage, summed over seeds."""

    folds_done: int
    folds_planned: int
    """Folds; with several seeds, folds x seeds; 0 for imported and human rows."""

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
    """Why an imported or human row, or an arm, is not ranked; None for ranked rows and the baseline."""

    variance: VarianceComponents | None = None
    """Of macro-F1 per person, between people and seeds; None with one seed."""

    coverage: float = float("nan")
    """Share of the truth's epochs that an imported submission or a human scorer gives, 0 to 1."""

    coverage_in_words: str | None = None
    """``complete`` or ``partial: ...``; None for arms and the baseline."""

    provenance: Mapping[str, Any] | None = None
    """Where an imported or human row comes from."""

    protocols: Mapping[str, Any] | None = None
    """Figures of an imported or human row under other protocols, never mixed with the pooled ones."""

    entries: tuple[str, ...] = ()
    """Ids of the entries behind an imported or human row."""

    sleep: tuple[Agreement, ...] = ()
    """Sleep statistics against the expert's, where they were asked for."""

    costs: tuple[Cost, ...] = ()
    """Of the done cells, one for each place that they ran on; none for what was not trained here."""

    @property
    def macs_per_epoch(self) -> float:
        """Multiply-accumulates of one 30-s epoch; NaN where they are not counted."""
        return in_all(self.costs, "macs_per_epoch")

    @property
    def device_seconds(self) -> float:
        """Summed over the cells; NaN, as all below, where they ran in different places or none says."""
        return in_all(self.costs, "device_seconds")

    @property
    def peak_memory_bytes(self) -> float:
        """Largest of the cells."""
        return in_all(self.costs, "peak_memory_bytes")

    @property
    def inference_epochs_per_second(self) -> float:
        """Median of the cells."""
        return in_all(self.costs, "inference_epochs_per_second")

    @property
    def energy_joules(self) -> float:
        """Summed over the cells."""
        return in_all(self.costs, "energy_joules")


def or_worst(value: float) -> float:
    return -1.0 if np.isnan(value) else value


def arm_row(name: str, cells: Sequence[ReportCell], judged: Judged | None, *, resamples: int, seed: int) -> Row:
    done = [cell.summary for cell in cells if cell.summary.state == "done"]
    results: list[Mapping[str, Any]] = [cell.result or {} for cell in done]
    seconds = [float(result["training_seconds"]) for result in results if "training_seconds" in result]
    return Row(
        name=name,
        kind="arm",
        folds_done=len(done),
        folds_planned=len(cells),
        seeds=tuple(sorted({cell.summary.seed for cell in cells})),
        n_parameters=first_of(results, "n_parameters"),
        n_trainable=first_of(results, "n_trainable"),
        training_seconds=sum(seconds) if seconds else float("nan"),
        settings=cells[0].variant[1][:12],
        costs=costs_of(results),
        **_figures(judged, resamples=resamples, seed=seed),
    )


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
    drawn = judged.resampled(resamples=resamples, seed=seed) if len(judged.people) > 1 else None
    return {
        "scores": pooled_scores(judged.by_person, resamples=resamples, seed=seed, drawn=drawn),
        "per_recording": {name: _spread(values) for name, values in by_recording(judged).items()},
        "confusion": tuple(tuple(int(n) for n in row) for row in judged.confusion),
        "people": len(judged.people),
        "recordings": len(judged.recordings),
        "epochs": judged.n_epochs,
    }


def by_recording(judged: Judged) -> dict[str, Floats]:
    """``accuracy``, ``macro_f1`` and ``kappa`` of each recording [N], averaged over the replicates; NaN where not
    defined."""
    nights = margins(judged.by_recording)
    return {
        "accuracy": nan_mean(accuracy_of(nights)),
        "macro_f1": nan_mean(macro(f1_of(nights))),
        "kappa": nan_mean(kappa_of(nights)),
    }


def _spread(values: Floats) -> Spread:
    defined = values[~np.isnan(values)]
    return Spread(
        mean=float(defined.mean()) if defined.size else float("nan"),
        sd=float(defined.std(ddof=1)) if defined.size > 1 else float("nan"),
        recordings=int(defined.size),
    )


def baseline_row(
    cells: Sequence[ReportCell],
    counted: Mapping[str, Counted],
    *,
    folds_repeat: bool,
    resamples: int,
    seed: int,
) -> tuple[Row | None, list[str]]:
    """The row of a scorer that always says the most frequent stage of the fold's training recordings.

    Its counts are the row sums of any arm's counts on the same recordings (the truth is the same in all of
    them), put into the column of that stage.

    Args:
        cells: cells of the board.
        counted: counts of the done ones, by id.
        folds_repeat: see :func:`tusp.dashboards.judged.judge`.
        resamples, seed: of the bootstrap over people.
    """
    parts, notes = [], []
    done: dict[int, list[ReportCell]] = {cell.summary.fold: [] for cell in cells}
    for cell in cells:
        if cell.summary.state == "done":
            done[cell.summary.fold].append(cell)
    for fold, of_fold in sorted(done.items()):
        source = next((cell for cell in of_fold if (cell.summary.result or {}).get("train_stage_counts")), None)
        if source is None:
            if of_fold:
                notes.append(f"baseline: fold {fold} does not say which stages it was trained on")
            continue
        if source.summary.id not in counted:
            continue
        trained = np.asarray((source.summary.result or {})["train_stage_counts"])
        judged = counted[source.summary.id]
        counts = np.zeros(judged.counts.shape, dtype=np.int64)
        counts[:, :, int(trained.argmax())] = judged.counts.sum(2)
        parts.append(Part(seed=0, fold=fold, counted=Counted(nights=judged.nights, counts=counts)))
    if not any(part.counted.counts.any() for part in parts):
        return None, notes
    row = Row(
        name=BASELINE,
        kind="baseline",
        folds_done=len(parts),
        folds_planned=len(done),
        seeds=(),
        n_parameters=None,
        n_trainable=None,
        training_seconds=float("nan"),
        settings=None,
        **_figures(judge(parts, folds_repeat=folds_repeat), resamples=resamples, seed=seed),
    )
    return row, notes


def entry_row(entry: EntryRow, *, name: str, unranked: str | None) -> Row:
    """An imported submission or a human scorer as a row, under the name it has on this board."""
    return Row(
        name=name,
        kind=entry.kind,
        scores=entry.scores,
        per_recording={metric: _spread(values) for metric, values in entry.per_recording.items()},
        confusion=tuple(tuple(int(n) for n in row) for row in entry.judged.confusion),
        folds_done=0,
        folds_planned=0,
        seeds=(),
        people=entry.people,
        recordings=entry.recordings,
        epochs=entry.epochs,
        n_parameters=None,
        n_trainable=None,
        training_seconds=float("nan"),
        settings=None,
        unranked=unranked,
        coverage=entry.covered,
        coverage_in_words=entry.coverage,
        provenance=entry.provenance,
        protocols=entry.protocols,
        entries=entry.entry_ids,
    )
