"""The judging behind ``tusp score``: hypnograms of others, and human scorers, against the truth of a corpus.

The same counts, rules and metrics as for tusp's own cells. What is missing is shown as missing; nothing is padded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from tusp.dashboards.entries import HUMAN, IMPORTED, EntryRow, HumanCeiling, entry_rows, human_ceiling
from tusp.datasets.hypnogram_files import Submitted, match_recordings, read_submission
from tusp.datasets.outside_truth import Truth, TruthNight, check_kind, placed, truth_apart, truth_of_corpus
from tusp.datasets.recording import Stages
from tusp.platform.errors import DataError, UserError, one_line
from tusp.platform.scoring.counts import confusion
from tusp.platform.scoring.dreem import mean_over_recordings, weighted_figures
from tusp.platform.scoring.metrics import kappa
from tusp.platform.scoring.rules import RULES, rule_mask
from tusp.platform.stages import N_STAGES, UNSCORED
from tusp.platform.store.entries import EntryNight, NewEntry, add_entries, check_name_is_free, counts_by_rule
from tusp.platform.store.session import Store

DREEM: Final = "dreem"
LONGEST_NAME: Final = 128
LONGEST_TEXT: Final = 1000
_SHOWN: Final = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What ``tusp score`` did."""

    corpus: str
    simulated: bool
    rule: str
    truth_hash: str
    truth_kind: str
    entry: EntryRow | None
    """The imported row; None where only humans were asked for."""
    humans: HumanCeiling | None
    """None where one person scored."""
    notes: tuple[str, ...]


def score_outside(
    store: Store,
    home: Path,
    corpus: str,
    *,
    predictions: Path | None,
    name: str | None,
    truth: Path | None = None,
    model: str | None = None,
    rule: str = "trim30",
    simulated: bool = False,
    author: str | None = None,
    url: str | None = None,
    allow_partial: bool = False,
    replace: bool = False,
    resamples: int = 2000,
    seed: int = 0,
) -> Outcome:
    """Judge a submission of others and the human scorers of its truth, and store both.

    Args:
        store: the open store.
        home: TUSP_HOME.
        corpus: a registered corpus, or with ``truth`` the name of the one that the labels are of.
        predictions: folder or file of hypnograms; None to judge the human scorers only.
        name: what the submission is called on the board.
        truth: labels that lie apart (:mod:`tusp.datasets.outside_truth`).
        model: which one of a JSON file that holds several.
        rule: scoring rule of the figures returned; counts of all rules are stored.
        simulated: the nights of ``truth`` are simulated ones.
        author, url: provenance.
        allow_partial: take a submission that lacks recordings or epochs, or of which files were refused.
        replace: take the place of an entry of this name.
        resamples, seed: of the bootstrap.

    Raises:
        UserError: what is asked for is not there or not allowed; nothing was stored.
        DataError: a file or a recording cannot be used; nothing was stored.
    """
    if rule not in RULES:
        raise UserError(f"no scoring rule {rule!r}; rules are {', '.join(RULES)}")
    wanted = None if predictions is None else (predictions, checked_name(name))
    provenance = {"author": _text(author, "--author"), "url": _text(url, "--url")}
    against = _truth(store, corpus, truth, simulated=simulated)
    truth_hash = against.hash
    humans = human_entries(against, truth_hash)
    new: list[NewEntry] = list(humans)
    notes = [*against.notes]
    if wanted is None:
        if not humans:
            raise UserError(f"{corpus}: one person scored its nights; a human ceiling needs several scorers")
    else:
        path, called = wanted
        if not replace:
            check_name_is_free(store, corpus=corpus, truth_hash=truth_hash, name=called)
        submitted = read_submission(path, model=model)
        entry, said = imported_entry(
            against,
            truth_hash,
            submitted,
            name=called,
            source=path,
            provenance={**provenance, "model": _text(model, "--model")},
            allow_partial=allow_partial,
        )
        new.insert(0, entry)
        notes = [*said, *notes]
    add_entries(store, home, new, replace=replace)
    rows = entry_rows(
        store,
        corpus=corpus,
        simulated=against.simulated,
        rule=rule,
        resamples=resamples,
        seed=seed,
        truth_hash=truth_hash,
        names=[entry.name for entry in new if entry.kind == IMPORTED],
    )
    return Outcome(
        corpus=corpus,
        simulated=against.simulated,
        rule=rule,
        truth_hash=truth_hash,
        truth_kind=against.kind,
        entry=next((row for row in rows if row.kind == IMPORTED), None),
        humans=human_ceiling(rows, rule=rule),
        notes=tuple(notes),
    )


def imported_entry(
    truth: Truth,
    truth_hash: str,
    submitted: Submitted,
    *,
    name: str,
    source: Path,
    provenance: Mapping[str, Any],
    allow_partial: bool,
) -> tuple[NewEntry, list[str]]:
    """A submission held against the truth, and what is odd about it.

    Raises:
        DataError: two files are of one recording, nothing matches, files were refused, or it is partial and that was
            not allowed.
    """
    matching = match_recordings(submitted.hypnograms.keys() | submitted.refused.keys(), truth.nights)
    if not matching.found:
        given = sorted({*submitted.hypnograms, *submitted.refused})[:_SHOWN]
        raise DataError(
            f"{source}: no file is of a recording of {truth.corpus}: it has {', '.join(given)}, the truth"
            f" {', '.join(sorted(truth.nights)[:_SHOWN])}"
        )
    stages: dict[str, Stages] = {}
    refused: dict[str, str] = {}
    for recording, given_name in matching.found.items():
        if given_name in submitted.refused:
            refused[recording] = submitted.refused[given_name]
            continue
        try:
            stages[recording] = placed(truth.nights[recording], submitted.hypnograms[given_name])
        except DataError as error:
            refused[recording] = f"{source}: {error}"
    if refused and not allow_partial:
        others = f" (and {len(refused) - 1} more recordings)" if len(refused) > 1 else ""
        raise DataError(f"{refused[min(refused)]}{others}; --allow-partial judges the rest")
    nights = [_entry_night(night, stages.get(recording)) for recording, night in sorted(truth.nights.items())]
    n_scored, n_covered, lacking = 0, 0, []
    for night in nights:
        counts, scored = counts_by_rule(night)["full"]
        n_scored, n_covered = n_scored + scored, n_covered + int(counts.sum())
        if night.predicted is not None and counts.sum() < scored:
            lacking.append(f"{night.recording} ({scored - int(counts.sum())} of {scored})")
    if n_covered == 0:
        raise DataError(f"{source}: covers no scored epoch of {truth.corpus}")
    missing = [recording for recording in matching.missing if recording not in refused]
    notes = _coverage_notes(matching.unmatched, missing, refused, lacking, submitted.left_aside)
    partial = n_covered < n_scored
    if partial and not allow_partial:
        said = "; ".join(note for note in notes if not note.startswith(("of no recording", "not read")))
        raise DataError(
            f"{source}: covers {n_covered:,} of {n_scored:,} scored epochs: {said}; --allow-partial shows it as partial"
        )
    entry = NewEntry(
        corpus=truth.corpus,
        truth_hash=truth_hash,
        truth_kind=truth.kind,
        kind=IMPORTED,
        name=name,
        simulated=truth.simulated,
        provenance={
            **provenance,
            "source": one_line(source.name),
            "formats": list(submitted.formats),
            "sha256": submitted.sha256,
            "n_files": submitted.n_files,
            "coverage": {
                "recordings": len(stages),
                "of_recordings": len(nights),
                "epochs": n_covered,
                "of_epochs": n_scored,
            },
            "missing": missing,
            "refused": refused,
            "unmatched": list(matching.unmatched),
        },
        protocols={} if partial else _dreem(nights),
        nights=nights,
    )
    return entry, notes


def human_entries(truth: Truth, truth_hash: str) -> list[NewEntry]:
    """Each scorer against the consensus of the others, over the epochs that this scorer scored."""
    entries = []
    scorers = truth.scorers
    pairs = {rule: _pairwise_kappa(list(truth.nights.values()), scorers, rule) for rule in RULES} if scorers else {}
    for scorer in scorers:
        nights = []
        for recording, night in sorted(truth.nights.items()):
            if not night.votes:
                continue
            true, agreeing, voters = night.others(scorer)
            nights.append(
                EntryNight(
                    recording=recording,
                    subject=night.subject,
                    true=true,
                    predicted=night.votes.get(scorer),
                    agreeing=agreeing,
                    voters=voters,
                )
            )
        entries.append(
            NewEntry(
                corpus=truth.corpus,
                truth_hash=truth_hash,
                truth_kind=truth.kind,
                kind=HUMAN,
                name=scorer,
                simulated=truth.simulated,
                provenance={
                    "against": "consensus of the other scorers",
                    "pairwise_kappa": {rule: pairs[rule][scorer] for rule in RULES},
                },
                protocols=_dreem(nights),
                nights=nights,
            )
        )
    return entries


def checked_name(name: str | None) -> str:
    """The name of a submission.

    Raises:
        UserError: it is missing, empty, too long or holds what cannot be printed.
    """
    if name is None:
        raise UserError("--predictions needs a --name to stand on the board with")
    text = " ".join(name.split())
    if not text or len(text) > LONGEST_NAME or not text.isprintable():
        raise UserError(f"--name {name[:40]!r}: wanted 1 to {LONGEST_NAME} printable characters")
    return text


def _truth(store: Store, corpus: str, truth: Path | None, *, simulated: bool) -> Truth:
    if truth is not None:
        return truth_apart(store, corpus, truth, simulated=simulated)
    found = truth_of_corpus(store, corpus)
    check_kind(corpus, found.simulated, simulated)
    return found


def _text(text: str | None, option: str) -> str | None:
    if text is None:
        return None
    if len(text) > LONGEST_TEXT or not text.isprintable():
        raise UserError(f"{option}: wanted one line of at most {LONGEST_TEXT} printable characters")
    return text


def _entry_night(night: TruthNight, predicted: Stages | None) -> EntryNight:
    votes = night.consensus_votes
    return EntryNight(
        recording=night.recording,
        subject=night.subject,
        true=night.true,
        predicted=predicted,
        agreeing=votes[0] if votes else None,
        voters=votes[1] if votes else None,
    )


def _dreem(nights: Sequence[EntryNight]) -> dict[str, Any]:
    """The weighted per-recording figures, where the truth of every recording is a consensus."""
    judged = [night for night in nights if night.predicted is not None]
    if not judged or any(night.agreeing is None for night in nights):
        return {}
    figures = []
    for night in judged:
        assert night.predicted is not None and night.agreeing is not None and night.voters
        figures.append(weighted_figures(night.true, night.predicted, np.array(night.agreeing) / night.voters))
    return {DREEM: mean_over_recordings(figures)}


def _pairwise_kappa(
    nights: Sequence[TruthNight], scorers: Sequence[str], rule: str
) -> dict[str, dict[str, float | None]]:
    """Cohen's kappa between two scorers, pooled over the epochs that both scored and the rule judges."""
    found: dict[str, dict[str, float | None]] = {scorer: {} for scorer in scorers}
    for place, one in enumerate(scorers):
        for other in scorers[place + 1 :]:
            counts = np.zeros((N_STAGES, N_STAGES), dtype=np.int64)
            for night in nights:
                if one not in night.votes or other not in night.votes:
                    continue
                first, second = night.votes[one], night.votes[other]
                both = rule_mask(night.true, rule) & (first != UNSCORED) & (second != UNSCORED)
                counts += confusion(first[both], second[both])
            value = float(kappa(counts))
            found[one][other] = found[other][one] = None if np.isnan(value) else value
    return found


def _coverage_notes(
    unmatched: Sequence[str],
    missing: Sequence[str],
    refused: Mapping[str, str],
    lacking: Sequence[str],
    left_aside: Sequence[str],
) -> list[str]:
    notes = []
    if missing:
        notes.append(f"{_recordings(missing, 'is', 'are')} missing: {_few(missing)}")
    if refused:
        notes.append(f"{_recordings(refused, 'was', 'were')} refused: {_few(list(refused.values()))}")
    if lacking:
        notes.append(f"{_recordings(lacking, 'lacks', 'lack')} scored epochs: {_few(lacking)}")
    if unmatched:
        notes.append(f"of no recording: {_few(unmatched)}")
    if left_aside:
        notes.append(f"not read: {_few(left_aside)}")
    return notes


def _recordings(names: Collection[str], one: str, several: str) -> str:
    return f"1 recording {one}" if len(names) == 1 else f"{len(names)} recordings {several}"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
