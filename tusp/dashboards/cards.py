"""Cards in Markdown: one for each corpus of a report, one for each row of its boards.

A dataset card follows T. Gebru et al. (Datasheets for datasets, Communications of the ACM 64(12), 2021), a model card
M. Mitchell et al. (Model cards for model reporting, FAT* 2019), as far as tusp knows the answers: what is not recorded
is said to be unknown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from sqlalchemy import select

from tusp.dashboards.contents import environment_lines, night_words, nights_lines, recompute_lines
from tusp.dashboards.cost_tables import cost_facts
from tusp.dashboards.extras import corpora_of
from tusp.dashboards.leaderboard import OUTSIDE, Board, Row
from tusp.dashboards.report import Report
from tusp.dashboards.tables import interval, number, verdict_sentence
from tusp.platform.files import write_text_atomic
from tusp.platform.identity import fingerprint
from tusp.platform.scoring.rules import rule_in_words
from tusp.platform.stages import STAGE_NAMES
from tusp.platform.store.models import Cell, Corpus, Recording, SubmissionCell
from tusp.platform.store.queries import planned_settings
from tusp.platform.store.session import Store

UNKNOWN: Final = "not stated"
SIMULATED: Final = (
    "> **SIMULATED nights.** What stands here shows how the program works, not how well a network stages sleep."
)
LONGEST_NAME: Final = 60
"""Letters of a name within a file name."""


def write_cards(store: Store, report: Report, folder: Path) -> list[Path]:
    """Write ``corpora/NAME.md`` for every registered corpus of the boards, and ``models/BOARD--ROW.md`` for every row.

    Raises:
        OSError: the folder cannot be written.
    """
    written = []
    for name in corpora_of(report):
        card = dataset_card(store, report, name)
        if card is not None:
            written.append(_write(folder / "corpora" / f"{_file_name(name)}.md", card))
    for board in report.boards:
        for row in board.rows:
            name = f"{_file_name(board_name(board))}--{_file_name(row.name)}.md"
            written.append(_write(folder / "models" / name, model_card(store, report, board, row)))
    return written


def _write(path: Path, text: str) -> Path:
    write_text_atomic(path, text)
    return path


def board_name(board: Board) -> str:
    """A name that tells a board from the others of a report."""
    key = board.key
    trained = "" if key.trained_on in {key.judged_on, ""} else f"-from-{key.trained_on}"
    kind = "-simulated" if key.simulated else ""
    return f"{key.judged_on}{trained}{kind}-{key.protocol}{key.folds}-{key.recipe}-{key.split_hash[:6]}".rstrip("-")


def _file_name(name: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:LONGEST_NAME]
    # Two names that a file name cannot tell apart stay two files.
    return safe if safe == name else f"{safe or 'row'}-{fingerprint(name)[:6]}"


def dataset_card(store: Store, report: Report, name: str) -> str | None:
    """The card of a registered corpus in Markdown; None where it is not registered."""
    with store.reading() as session:
        corpus = session.get(Corpus, name)
        if corpus is None:
            return None
        card, simulated, adapter = dict(corpus.card), corpus.simulated, corpus.adapter
        rows = session.execute(
            select(Recording.name, Recording.subject, Recording.usable, Recording.reason, Recording.audit)
            .where(Recording.corpus_name == name)
            .order_by(Recording.name)
        ).all()
    usable = [row for row in rows if row.usable]
    epochs = {stage: sum(int(row.audit.get("epochs", {}).get(stage, 0)) for row in usable) for stage in STAGE_NAMES}
    total = sum(epochs.values())
    hours = sum(float(row.audit.get("signal_hours") or 0) for row in usable)
    people = len({row.subject for row in usable})
    parts = [f"# Dataset card: {_text(card.get('title') or name)}"]
    if simulated:
        parts.append(SIMULATED)
    parts += [
        "## What it is",
        _table(
            [
                ("registered as", f"`{name}`, read by `{adapter}`"),
                ("nights", f"{len(usable):,} usable, {len(rows) - len(usable):,} refused; {night_words(simulated)}"),
                ("people", f"{people:,}"),
                ("signal", f"{hours:,.1f} h"),
                ("version", card.get("version")),
                ("licence", card.get("licence")),
                ("access", card.get("access")),
                ("where", card.get("url")),
                ("citation", card.get("citation")),
            ]
        ),
        "## Labels",
        f"Stages W, N1, N2, N3 and REM in epochs of 30 s, {'simulated' if simulated else 'as experts scored them'}.",
        _table((stage, f"{n:,} epochs, {100 * n / total:.1f} %" if total else "–") for stage, n in epochs.items()),
        "## Channels",
        _bullets(
            f"{group}: {', '.join(map(str, names))}" for group, names in dict(card.get("channel_groups") or {}).items()
        )
        or UNKNOWN,
        "## Whose night it is",
        _text(card.get("subject_rule") or UNKNOWN),
        "## What the audit says",
        _bullets(_text(line) for note in report.nights if note.corpus == name for line in nights_lines(note))
        or UNKNOWN,
        "## Refused nights",
        _bullets(f"{_text(row.name)}: {_text(row.reason)}" for row in rows if not row.usable) or "none",
        "## Intended use",
        "To train and judge networks that stage sleep from EEG and EOG, with people (never nights) divided into train, "
        "validation and test."
        + (" Published to be judged on, never trained on with others." if card.get("hold_out") else ""),
        "## Limits",
        _bullets(
            [
                "Who took part, why and with which conditions is in the publication, not here: look there before "
                "carrying results over to other people.",
                "Experts disagree: one person's hypnogram is one reading of the night.",
                "No figure here says anything about a diagnosis.",
                *(["Simulated: nights that nobody slept."] if simulated else []),
            ]
        ),
    ]
    return "\n\n".join(parts) + "\n"


def model_card(store: Store, report: Report, board: Board, row: Row) -> str:
    """The card of one row of a board in Markdown: an arm, an imported submission, a human scorer or the baseline."""
    key = board.key
    parts = [f"# Model card: {_text(row.name)} on {_text(key.judged_on)}"]
    if key.simulated:
        parts.append(SIMULATED)
    parts += ["## What it is", _what(row), "## Data", _table(_data(board, row))]
    if row.kind == "arm":
        model, recipe = _settings(store, report, board, row)
        parts += [
            "## Network",
            _table(
                [
                    ("parameters", None if row.n_parameters is None else f"{row.n_parameters:,}"),
                    ("trainable", None if row.n_trainable is None else f"{row.n_trainable:,}"),
                    ("seeds", ", ".join(map(str, row.seeds))),
                    *cost_facts(row),
                    ("hash of model and recipe", row.settings and f"`{row.settings}`"),
                ]
            ),
            _code(model),
            "## Training recipe",
            _code(recipe),
        ]
    if row.provenance:
        parts += ["## Where it comes from", _code(row.provenance)]
    parts += [
        "## Scores",
        f"Pooled over epochs under rule {board.rule} ({rule_in_words(board.rule)}), with 95 % intervals over "
        f"{row.people:,} people ({report.bootstrap:,} resamples, seed {report.seed}); – is not scored.",
        _scores(row),
    ]
    if row.coverage_in_words is not None:
        parts.append(f"Coverage: {_text(row.coverage_in_words)}.")
    if row.unranked is not None:
        parts.append(f"Not ranked: {_text(row.unranked)}.")
    said = [verdict_sentence(item) for item in board.contrasts if row.kind == "arm" and row.name in item.weights]
    if said:
        parts += ["## Compared", _bullets(map(_text, said))]
    parts += [
        "## Intended use",
        "To compare ways of staging sleep on the same nights and people. Not a medical device: no clinical decision "
        "rests on it.",
        "## Limits",
        _bullets(_limits(board, row)),
        "## To compute it again",
        "\n".join(f"    {line}" for line in recompute_lines(report)),
        _bullets(map(_text, environment_lines(report))),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(row: Row) -> str:
    return {
        "arm": "A network trained and judged by tusp, one arm of an ablation.",
        "baseline": "No network: always says the most frequent stage of the fold's training nights.",
        "imported": "Somebody else's hypnograms, judged by tusp on the same nights with the same rule.",
        "human": "A human expert, judged against the consensus of the other experts.",
        "human mean": "The mean of the human experts, each judged against the consensus of the others.",
    }.get(row.kind, row.kind)


def _data(board: Board, row: Row) -> list[tuple[str, Any]]:
    key = board.key
    facts: list[tuple[str, Any]] = [("judged on", f"{key.judged_on}, {night_words(key.simulated)}")]
    if key.experiment != OUTSIDE and row.kind in {"arm", "baseline"}:
        facts += [
            ("trained on", key.trained_on.replace("+", ", ")),
            ("split", f"{key.protocol}, {key.folds} folds, hash `{key.split_hash}`"),
            ("folds done", f"{row.folds_done} of {row.folds_planned}"),
        ]
    return [*facts, ("people", f"{row.people:,}"), ("nights", f"{row.recordings:,}"), ("epochs", f"{row.epochs:,}")]


def _scores(row: Row) -> str:
    lines = ["| metric | value | 95 % interval |", "|---|---:|---:|"]
    for name, estimate in row.scores.overall.items():
        words = name.replace("macro_f1", "macro-F1").replace("_", " ")
        lines.append(f"| {words} | {number(estimate.value)} | {interval(estimate) or '–'} |")
    for stage, estimate in zip(STAGE_NAMES, row.scores.stages["f1"], strict=True):
        lines.append(f"| F1 {stage} | {number(estimate.value)} | {interval(estimate) or '–'} |")
    for name, spread in row.per_recording.items():
        words = name.replace("macro_f1", "macro-F1")
        spread_text = "–" if math.isnan(spread.sd) else f"SD {number(spread.sd)}"
        lines.append(f"| {words}, mean over {spread.recordings:,} nights | {number(spread.mean)} | {spread_text} |")
    return "\n".join(lines)


def _limits(board: Board, row: Row) -> list[str]:
    limits = []
    if row.folds_done < row.folds_planned:
        limits.append(f"{row.folds_planned - row.folds_done} of {row.folds_planned} cells are not done.")
    limits += [f"{_text(name)}: nothing to judge under rule {board.rule}." for name in board.without_epochs]
    if board.refused:
        limits.append(f"{len(board.refused):,} nights were refused and are judged by nobody.")
    absent = [
        stage
        for stage, estimate in zip(STAGE_NAMES, row.scores.stages["f1"], strict=True)
        if math.isnan(estimate.value)
    ]
    if absent:
        limits.append(f"Never seen here, so not scored: {', '.join(absent)}.")
    if row.people < 20:
        limits.append(f"Judged on {row.people} people: intervals are wide, and rarer conditions are not there.")
    limits.append("Other recorders, montages, ages and disorders than those of the data were not looked at.")
    if board.key.simulated:
        limits.append("Simulated nights: no statement about real sleep.")
    return limits


def _settings(store: Store, report: Report, board: Board, row: Row) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Model and recipe of an arm, as one of its cells was planned."""
    key = board.key
    asked = select(SubmissionCell.cell_id).where(
        SubmissionCell.submission_id.in_([note.id for note in report.submissions])
    )
    wanted = (
        select(Cell.id)
        .where(Cell.id.in_(asked), Cell.corpus == key.trained_on, Cell.settings.startswith(row.settings or ""))
        .order_by(Cell.id)
        .limit(1)
    )
    with store.reading() as session:
        cell_id = session.scalar(wanted)
    return ({}, {}) if cell_id is None or row.settings is None else planned_settings(store, cell_id)


def _text(value: object) -> str:
    """Text from anywhere within Markdown: one line, and nothing in it is markup or HTML."""
    line = " ".join(str(value).split())
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", line).replace("&", "&amp;")


def _table(rows: Iterable[tuple[str, Any]]) -> str:
    def shown(value: Any) -> str:
        text = str(value) if value not in (None, "") else UNKNOWN
        return text.replace("|", "\\|").replace("<", "\\<").replace("\n", " ")

    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {shown(value)} |" for name, value in rows)])


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _code(settings: Mapping[str, Any]) -> str:
    """Settings, one a line; nested ones with dots."""

    def lines(values: Mapping[str, Any], lead: str) -> Iterable[str]:
        for name, value in values.items():
            if isinstance(value, Mapping):
                yield from lines(value, f"{lead}{name}.")
            else:
                text = " ".join(str(value).split()).replace("```", "'''")
                yield f"{lead}{name}: {text}"

    return "\n".join(["```", *lines(settings, ""), "```"]) if settings else ""
