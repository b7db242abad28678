"""Rows for boards that no cell made: imported submissions and human scorers, each figure from stored counts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tusp.dashboards.judged import Judged, Part, judge
from tusp.platform.errors import UserError
from tusp.platform.scoring.counts import Counts
from tusp.platform.scoring.metrics import accuracy, kappa, macro_f1
from tusp.platform.scoring.rules import LIGHTS, RULES, RULES_IN_WORDS, check_rule
from tusp.platform.scoring.statistics import PooledScores, nan_mean, pooled_scores
from tusp.platform.stages import N_STAGES
from tusp.platform.store.entries import EntryCounts, EntryRecord, counts_from_kept, entry_counts, list_entries
from tusp.platform.store.packed import Counted, Nights
from tusp.platform.store.session import Store

IMPORTED: Final = "imported"
HUMAN: Final = "human"
HUMAN_MEAN: Final = "human mean"
COUNTED: Final = (
    "hypnograms from elsewhere are counted under full and trim<minutes> only, since nobody said when the lights were on"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class EntryRow:
    """One entry as a board shows it. It is never ranked with arms that were judged on other recordings."""

    name: str
    kind: str
    """``imported``, ``human`` (one scorer against the consensus of the others) or ``human mean`` (their mean)."""
    scores: PooledScores
    """Pooled over epochs, with 95 % intervals over people."""
    judged: Judged
    """The counts behind them; of ``human mean``, one replicate a scorer."""
    per_recording: Mapping[str, npt.NDArray[np.float64]]
    """``accuracy``, ``macro_f1``, ``kappa`` of each of ``judged.recordings`` (NaN where not defined)."""
    people: int
    recordings: int
    """Recordings in which something was judged."""
    epochs: int
    """Epochs that were judged."""
    scored: Mapping[str, int]
    """Recording to the epochs that its truth scores under the rule, recordings that the entry lacks included: what a
    board's own rows must have been judged on for the two to be comparable."""
    covered: float
    """Share of those epochs that the entry covers, 0 to 1; NaN where there are none."""
    coverage: str
    """The same in words: ``complete``, or ``partial: 23 of 25 recordings, 91.3 % of the epochs``."""
    truth_hash: str
    truth_kind: str
    entry_ids: tuple[str, ...]
    created_at: datetime
    provenance: Mapping[str, Any]
    protocols: Mapping[str, Any]
    """Figures under other protocols (``dreem``), which are never mixed with the pooled ones."""

    @property
    def complete(self) -> bool:
        """Every epoch that the truth scores is covered."""
        return self.coverage == "complete"


@dataclass(frozen=True, kw_only=True)
class CeilingNote:
    """What human experts reach, as a board says it."""

    scorers: tuple[str, ...]
    """Their names."""
    mean: PooledScores
    ranges: Mapping[str, tuple[float, float]]
    """Lowest and highest of the scorers, of ``accuracy``, ``kappa`` and ``macro_f1``."""
    best: str
    """The scorer with the highest macro-F1."""
    pairwise_kappa: float
    """Mean over all pairs of scorers of Cohen's kappa between them, pooled over epochs that both scored; NaN where no
    pair has one, and under other rules than those that were counted when the scorers were judged."""


@dataclass(frozen=True, kw_only=True)
class HumanCeiling:
    """What human experts reach on the same nights: each against the consensus of the others."""

    scorers: tuple[EntryRow, ...]
    mean: EntryRow
    note: CeilingNote


def entry_rows(
    store: Store,
    *,
    corpus: str,
    simulated: bool,
    rule: str = "trim30",
    resamples: int = 2000,
    seed: int = 0,
    recordings: Mapping[str, int] | None = None,
    truth_hash: str | None = None,
    names: Collection[str] | None = None,
    home: Path | None = None,
) -> tuple[EntryRow, ...]:
    """Imported entries by pooled macro-F1, then the mean human and the human scorers.

    Of several imported entries of one name (judged on different truths) there is one row, and the humans are of one
    truth: that which fits ``recordings`` where one does, else the newest.

    Args:
        store: the open store.
        corpus: corpus judged on.
        simulated: simulated and real nights never share a board.
        rule: scoring rule of the counts.
        resamples, seed: of the bootstrap over people.
        recordings: scored epochs of each recording on the board, under the rule.
        truth_hash: only what was judged on this truth.
        names: only imported entries of these names.
        home: TUSP_HOME; needed for other rules than ``RULES``, which are counted from the kept hypnograms.

    Raises:
        UserError: no such rule, or one that cannot be counted: ``lights``, or another than ``RULES`` without a home.
        DataError: kept hypnograms that are needed are gone or were changed.
    """
    try:
        check_rule(rule)
    except ValueError as error:
        raise UserError(str(error)) from error
    if rule == LIGHTS or (rule not in RULES and home is None):
        raise UserError(f"rule {rule} of imported submissions: {COUNTED}; rules are {RULES_IN_WORDS}")
    records = [
        record
        for record in list_entries(store, corpus=corpus, simulated=simulated)
        if truth_hash in (None, record.truth_hash) and (names is None or record.kind == HUMAN or record.name in names)
    ]
    counts: dict[str, list[EntryCounts]] = {record.id: [] for record in records}
    if rule in RULES or home is None:
        for row in entry_counts(store, list(counts), rule=rule):
            counts[row.entry_id].append(row)
    else:
        for record in records:
            counts[record.id] = counts_from_kept(home, record, rule=rule)

    def preference(record: EntryRecord) -> tuple[bool, datetime, str]:
        judged_on = {row.recording: row.n_scored for row in counts[record.id] if row.n_scored}
        return judged_on == recordings, record.created_at, record.id

    imported: dict[str, EntryRecord] = {}
    for record in sorted((r for r in records if r.kind == IMPORTED), key=preference):
        imported[record.name] = record
    rows = [_row([record], counts, kind=IMPORTED, resamples=resamples, seed=seed) for record in imported.values()]
    rows.sort(key=lambda row: (-_or_worst(row.scores.overall["macro_f1"].value), row.name))
    humans = _humans([record for record in records if record.kind == HUMAN], counts, recordings)
    if humans:
        if len(humans) > 1:
            rows.append(_row(humans, counts, kind=HUMAN_MEAN, resamples=resamples, seed=seed))
        rows += [_row([record], counts, kind=HUMAN, resamples=resamples, seed=seed) for record in humans]
    return tuple(rows)


def human_ceiling(rows: Sequence[EntryRow], *, rule: str = "trim30") -> HumanCeiling | None:
    """Mean, best, range and pairwise kappa of the human rows among ``rows``; None where there are not several."""
    scorers = tuple(row for row in rows if row.kind == HUMAN)
    mean = next((row for row in rows if row.kind == HUMAN_MEAN), None)
    if mean is None:
        return None
    names = ("accuracy", "kappa", "macro_f1")
    values = {name: [row.scores.overall[name].value for row in scorers] for name in names}
    pairs = [
        float(value)
        for row in scorers
        for other, value in row.provenance["pairwise_kappa"].get(rule, {}).items()
        if row.name < other and value is not None
    ]
    note = CeilingNote(
        scorers=tuple(row.name for row in scorers),
        mean=mean.scores,
        ranges={name: (float(np.nanmin(found)), float(np.nanmax(found))) for name, found in values.items()},
        best=max(scorers, key=lambda row: (_or_worst(row.scores.overall["macro_f1"].value), row.name)).name,
        pairwise_kappa=float(np.mean(pairs)) if pairs else float("nan"),
    )
    return HumanCeiling(scorers=scorers, mean=mean, note=note)


def _humans(
    records: Sequence[EntryRecord], counts: Mapping[str, Sequence[EntryCounts]], recordings: Mapping[str, int] | None
) -> list[EntryRecord]:
    """The scorers of one truth, by name."""
    truths: dict[str, list[EntryRecord]] = {}
    for record in records:
        truths.setdefault(record.truth_hash, []).append(record)
    if not truths:
        return []

    def preference(scorers: Iterable[EntryRecord]) -> tuple[bool, datetime, str]:
        scorers = list(scorers)
        # Each scorer is held against another consensus, so epochs differ a little; the recordings do not.
        judged_on = {row.recording for record in scorers for row in counts[record.id] if row.n_scored}
        newest = max(scorers, key=lambda record: (record.created_at, record.id))
        return recordings is not None and judged_on == recordings.keys(), newest.created_at, newest.truth_hash

    return sorted(max(truths.values(), key=preference), key=lambda record: record.name)


def _row(
    records: Sequence[EntryRecord],
    counts: Mapping[str, Sequence[EntryCounts]],
    *,
    kind: str,
    resamples: int,
    seed: int,
) -> EntryRow:
    """A row of one entry, or of the mean of several (each a replicate)."""
    all_rows = [(place, row) for place, record in enumerate(records) for row in counts[record.id]]
    judged = judge(
        [Part(seed=place, fold=0, counted=_counted(counts[record.id])) for place, record in enumerate(records)],
        folds_repeat=False,
    )
    scored: dict[str, int] = {}
    for _, row in all_rows:
        if row.n_scored:
            scored[row.recording] = max(scored.get(row.recording, 0), row.n_scored)
    n_scored = sum(row.n_scored for _, row in all_rows)
    n_covered = sum(sum(row.counts) for _, row in all_rows)
    touched = {row.recording for _, row in all_rows if any(row.counts)}
    first = records[0]
    whole = len(records) == 1
    return EntryRow(
        name=first.name if whole else f"mean of {len(records)} scorers",
        kind=kind,
        scores=pooled_scores(judged.by_person, resamples=resamples, seed=seed),
        judged=judged,
        per_recording={
            "accuracy": nan_mean(accuracy(judged.by_recording)),
            "macro_f1": nan_mean(macro_f1(judged.by_recording)),
            "kappa": nan_mean(kappa(judged.by_recording)),
        },
        people=len(judged.people) if touched else 0,
        recordings=len(touched),
        epochs=judged.n_epochs,
        scored=dict(sorted(scored.items())),
        covered=n_covered / n_scored if n_scored else float("nan"),
        coverage=_in_words(len(touched), len(scored), n_covered, n_scored),
        truth_hash=first.truth_hash,
        truth_kind=first.truth_kind,
        entry_ids=tuple(record.id for record in records),
        created_at=max(record.created_at for record in records),
        provenance=first.provenance if whole else {"scorers": [record.name for record in records]},
        protocols=first.protocols if whole else _mean_protocols(records),
    )


def _counted(rows: Sequence[EntryCounts]) -> Counted:
    ordered = sorted(rows, key=lambda row: row.recording)
    counts: Counts = np.array([row.counts for row in ordered], dtype=np.int64).reshape(-1, N_STAGES, N_STAGES)
    return Counted(nights=Nights.of({row.recording: row.subject for row in ordered}), counts=counts)


def _mean_protocols(records: Sequence[EntryRecord]) -> dict[str, Any]:
    """Mean over scorers and recordings of each figure: all recordings of all scorers count the same."""
    found: dict[str, Any] = {}
    for protocol in sorted({name for record in records for name in record.protocols}):
        parts = [record.protocols[protocol] for record in records if protocol in record.protocols]
        found[protocol] = {}
        for metric in parts[0]:
            defined = [part[metric] for part in parts if part[metric]["mean"] is not None]
            n = sum(part["recordings"] for part in defined)
            total = sum(part["mean"] * part["recordings"] for part in defined)
            mean = total / n if n else None
            square = sum((part["sd"] ** 2 + part["mean"] ** 2) * part["recordings"] for part in defined)
            sd = None if mean is None else max(0.0, square / n - mean**2) ** 0.5
            found[protocol][metric] = {"mean": mean, "sd": sd, "recordings": n}
    return found


def _in_words(touched: int, recordings: int, covered: int, scored: int) -> str:
    if not scored:
        return "nothing to judge under this rule"
    if (touched, covered) == (recordings, scored):
        return "complete"
    # Rounded down: what is not complete never reads 100.0 %.
    return f"partial: {touched} of {recordings} recordings, {int(1000 * covered / scored) / 10:.1f} % of the epochs"


def _or_worst(value: float) -> float:
    return -1.0 if np.isnan(value) else value
