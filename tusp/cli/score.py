"""``tusp score``: hypnograms of others, and human scorers, judged as tusp's own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tusp.cli.context import current_settings
from tusp.cli.output import console, print_json, print_table
from tusp.platform.errors import UserError

if TYPE_CHECKING:
    from tusp.dashboards.entries import EntryRow
    from tusp.dashboards.scoring_outside import Outcome
    from tusp.platform.scoring.statistics import Estimate

_PROTOCOLS = ("pooled", "dreem")
_MOST_NOTES = 8
_WIDE = 130
"""Columns of a terminal in which intervals fit on one line."""


def score(
    corpus: Annotated[str, typer.Argument(help="A registered corpus; with --truth the name of the labels' corpus.")],
    predictions: Annotated[
        Path | None, typer.Option(help="Folder of hypnograms or probabilities, or a JSON file of them.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What the submission is called on the board.")] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Labels that lie apart: hypnograms, or lists of several scorers.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Which model of a JSON file that holds several.")] = None,
    humans: Annotated[bool, typer.Option("--humans", help="Judge the human scorers only.")] = False,
    rule: Annotated[str, typer.Option(help="Scoring rule: trim30 or full.")] = "trim30",
    protocol: Annotated[
        str, typer.Option(help="pooled (over epochs), or dreem (weighted by the consensus, mean over recordings).")
    ] = "pooled",
    simulated: Annotated[bool, typer.Option("--simulated", help="The nights of --truth are simulated ones.")] = False,
    author: Annotated[str | None, typer.Option(help="Who made the submission.")] = None,
    url: Annotated[str | None, typer.Option(help="Where it is described.")] = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Take a submission that lacks recordings or epochs.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of an entry of this name.")] = False,
    bootstrap: Annotated[int, typer.Option(min=1, help="Resamples over people for the intervals.")] = 2000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Judge other people's hypnograms on the same nights, and what human experts reach there.

    Example: tusp score dod-h --truth scorers.json --predictions models.json --model SimpleNet --name SimpleSleepNet
    """
    if protocol not in _PROTOCOLS:
        raise UserError(f"no protocol {protocol!r}; protocols are {', '.join(_PROTOCOLS)}")
    if humans and (predictions is not None or name is not None):
        raise UserError("--humans judges the scorers only; leave out --predictions and --name")
    if not humans and predictions is None:
        raise UserError("nothing to judge: name a folder with --predictions, or ask for the scorers with --humans")

    from tusp.cli.leaving_ready import leave_reports_ready
    from tusp.dashboards.scoring_outside import score_outside
    from tusp.platform.store.session import open_store

    settings = current_settings()
    store = open_store(settings.db)
    outcome = score_outside(
        store,
        settings.home,
        corpus,
        predictions=predictions,
        name=name,
        truth=truth,
        model=model,
        rule=rule,
        simulated=simulated,
        author=author,
        url=url,
        allow_partial=allow_partial,
        replace=replace,
        resamples=bootstrap,
    )
    if as_json:
        print_json(_as_json(outcome))
    else:
        _print(outcome, protocol)
    leave_reports_ready(store, kept=settings.kept)


def _number(value: float) -> str:
    """A score without its leading zero, a dash where not scored."""
    return "–" if math.isnan(value) else f"{value:.3f}".replace("0.", ".", 1)


def _interval(estimate: Estimate, *, wide: bool) -> str:
    """``.790–.833``, on two lines where there is no room for nine columns of that width."""
    if math.isnan(estimate.low):
        return ""
    return f"{_number(estimate.low)}–{'' if wide else chr(10)}{_number(estimate.high)}"


def _rows(outcome: Outcome) -> list[EntryRow]:
    humans = (outcome.humans.mean, *outcome.humans.scorers) if outcome.humans else ()
    return [*((outcome.entry,) if outcome.entry else ()), *humans]


def _print(outcome: Outcome, protocol: str) -> None:
    kind = "SIMULATED" if outcome.simulated else "real"
    if protocol == "dreem":
        _print_dreem(outcome, kind)
    else:
        _print_pooled(outcome, kind)
    for note in outcome.notes[:_MOST_NOTES]:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    if len(outcome.notes) > _MOST_NOTES:
        more = len(outcome.notes) - _MOST_NOTES
        console.print(f"note: {more} more notes on the truth (--json prints all)", markup=False)


def _print_pooled(outcome: Outcome, kind: str) -> None:
    from tusp.platform.stages import STAGE_NAMES

    table = []
    wide = console.width >= _WIDE
    for row in _rows(outcome):
        estimates = [row.scores.overall[name] for name in ("macro_f1", "accuracy", "kappa")]
        estimates += row.scores.stages["f1"]
        cells = [f"{_number(e.value)}\n{_interval(e, wide=wide)}".rstrip() for e in estimates]
        # Rounded down: what is not complete never reads 100.0 %.
        share = "" if math.isnan(row.covered) else f"\n{math.floor(1000 * row.covered) / 10:.1f} %"
        coverage = f"{row.recordings}/{len(row.scored)}{share}"
        table.append([f"{row.name}\n{row.kind}", *cells, coverage])
    columns = ["", "macro\nF1", "accu-\nracy", "kappa", *(f"F1\n{stage}" for stage in STAGE_NAMES), "covers"]
    print_table(
        columns,
        table,
        title=f"{outcome.corpus} ({kind}), rule {outcome.rule}, pooled over epochs, 95 % intervals over people",
        tight=True,
    )
    if outcome.humans:
        humans = outcome.humans
        low, high = humans.note.ranges["macro_f1"]
        console.print(
            f"human scorers: macro-F1 {_number(low)} to {_number(high)}, best {humans.note.best}; "
            f"mean kappa between two of them {_number(humans.note.pairwise_kappa)}",
            markup=False,
            soft_wrap=True,
        )


def _print_dreem(outcome: Outcome, kind: str) -> None:
    from tusp.dashboards.scoring_outside import DREEM
    from tusp.platform.scoring.dreem import METRICS

    table = []
    for row in _rows(outcome):
        figures = row.protocols.get(DREEM)
        if figures is None:
            table.append([row.name, *["–"] * len(METRICS)])
            continue
        cells = [
            "–"
            if figures[name]["mean"] is None
            else f"{_number(figures[name]['mean'])}\n± {_number(figures[name]['sd'])}"
            for name in METRICS
        ]
        table.append([row.name, *cells])
    if not any(row.protocols.get(DREEM) for row in _rows(outcome)):
        raise UserError("the dreem protocol needs several scorers of every recording, and every epoch covered")
    print_table(
        ["", *(name.replace("_", " ") for name in METRICS)],
        table,
        title=f"{outcome.corpus} ({kind}), all scored epochs, weighted by the consensus, mean ± SD over recordings",
    )


def _as_json(outcome: Outcome) -> dict[str, Any]:
    humans = outcome.humans
    return {
        "corpus": outcome.corpus,
        "simulated": outcome.simulated,
        "rule": outcome.rule,
        "aggregation": "pooled",
        "truth": {"hash": outcome.truth_hash, "kind": outcome.truth_kind},
        "entry": _row_as_json(outcome.entry) if outcome.entry else None,
        "humans": None
        if humans is None
        else {
            "mean": _row_as_json(humans.mean),
            "scorers": [_row_as_json(row) for row in humans.scorers],
            "best": humans.note.best,
            "ranges": {name: list(ends) for name, ends in humans.note.ranges.items()},
            "pairwise_kappa": humans.note.pairwise_kappa,
        },
        "notes": list(outcome.notes),
    }


def _row_as_json(row: EntryRow) -> dict[str, Any]:
    from dataclasses import asdict

    from tusp.platform.stages import STAGE_NAMES

    return {
        "name": row.name,
        "kind": row.kind,
        "ids": list(row.entry_ids),
        "overall": {name: asdict(estimate) for name, estimate in row.scores.overall.items()},
        "stages": {
            stage: {metric: asdict(found[code]) for metric, found in row.scores.stages.items()}
            for code, stage in enumerate(STAGE_NAMES)
        },
        "people": row.people,
        "recordings": row.recordings,
        "epochs": row.epochs,
        "covered": row.covered,
        "coverage": row.coverage,
        "confusion": row.judged.confusion.tolist(),
        "protocols": dict(row.protocols),
        "provenance": dict(row.provenance),
    }
