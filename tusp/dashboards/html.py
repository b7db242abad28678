"""A report as one page: one file with everything in it, which asks no network and runs no script.

Everything that comes from files (names, reasons) is escaped by the template engine; figures are vectors.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any, Final

from tusp import __version__
from tusp.dashboards.across import Matrix
from tusp.dashboards.charts import contrast_chart, forest_chart, leaderboard_chart, rank_chart, training_chart
from tusp.dashboards.contents import (
    comparison_sentences,
    entry_lines,
    environment_lines,
    nights_lines,
    recompute_lines,
    split_lines,
    text_columns,
    wide_lines,
)
from tusp.dashboards.cost_tables import cost_table
from tusp.dashboards.extras import Extras, TrainingGroup
from tusp.dashboards.html_tables import HeatCell, HeatTable, heat_rows, text_rows
from tusp.dashboards.leaderboard import OUTSIDE, Board, Row
from tusp.dashboards.report import Report
from tusp.dashboards.tables import (
    TextTable,
    contrast_table,
    details_table,
    hole_lines,
    interval,
    leaderboard_table,
    note_lines,
    number,
    published_table,
)
from tusp.dashboards.wide_tables import across_tables, sleep_tables, suite_table_text
from tusp.platform.scoring.rules import rule_in_words
from tusp.platform.scoring.statistics import Estimate
from tusp.platform.stages import STAGE_NAMES

MOST_MATRICES: Final = 12
"""Confusion matrices shown on a board."""

_ONE_MORE: Final = ", the bar below it where one more corpus would be expected."

EXPERIMENTS: Final = {
    "within": "each corpus by itself",
    "joint": "one network on several corpora",
    "transfer": "trained on one corpus, judged on the others",
    OUTSIDE: "imported submissions and human scorers",
}
PROTOCOLS: Final = {"kfold": "everybody is tested once", "paper": "75 / 10 / 15 % of the people"}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure and what is written under it."""

    svg: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class BoardPage:
    """A board as the page shows it."""

    anchor: str
    title: str
    simulated: bool
    facts: tuple[tuple[str, str], ...]
    leaderboard: TextTable
    picture: Picture | None
    heat: HeatTable | None
    contrasts: TextTable | None
    contrast_picture: Picture | None
    sentences: tuple[str, ...]
    published: TextTable | None
    cost: TextTable | None
    details: TextTable
    sleep: tuple[TextTable, ...]
    matrices: tuple[HeatTable, ...]
    matrices_left_out: int
    holes: tuple[str, ...]
    notes: tuple[str, ...]
    best: str
    best_score: str
    people: str


def html_document(report: Report, extras: Extras | None = None) -> str:
    """The whole report as one HTML page.

    Args:
        report: what to show.
        extras: training curves and facts about the corpora; without, these parts are left out.
    """
    known = extras or Extras()
    kinds = {board.key.simulated for board in report.boards}
    template = _environment().get_template("report.html.j2")
    page: str = template.render(
        version=__version__,
        report=report,
        rule_words=rule_in_words(report.rule),
        simulated=True in kinds,
        real=False in kinds,
        dates=sorted({f"{note.created_at:%Y-%m-%d}" for note in report.submissions}),
        boards=[_board(report, board, place) for place, board in enumerate(report.boards, start=1)],
        wide_tables=across_tables(replace(report.across, matrices=())),
        wide_lines=wide_lines(report),
        wide_pictures=_wide_pictures(report),
        transfers=[matrix_table(matrix) for matrix in report.across.matrices],
        suite=None if report.suite is None else suite_table_text(report.suite),
        training=[_training(group) for group in known.training],
        nights=[(note.corpus, nights_lines(note)) for note in report.nights],
        corpora=known.corpora,
        environment=environment_lines(report),
        splits=split_lines(report),
        entries=entry_lines(report),
        recompute=recompute_lines(report),
        text_columns=text_columns,
        text_rows=text_rows,
        heat_rows=heat_rows,
        web_address=_web_address,
        with_code=_with_code,
    )
    return page


def _wide_pictures(report: Report) -> list[Picture]:
    """Forest plots and rank diagrams."""
    forests = [
        Picture(
            svg=forest_chart(
                forest,
                alt=f"Forest plot of {forest.contrast}: effect in macro-F1 on each of {len(forest.effects)} corpora "
                "with its interval; the table above has the figures",
            ),
            caption=f"{forest.contrast} ({forest.title})."
            + (
                " Effect on each corpus with its 95 % interval over people; the diamond is the random-effects mean"
                + ("." if math.isnan(forest.summary.prediction.low) else _ONE_MORE)
                if place == 0
                else ""
            ),
        )
        for place, forest in enumerate(report.across.forests)
    ]
    diagrams = [
        Picture(
            svg=rank_chart(
                diagram,
                alt="Mean ranks over corpora: " + ", ".join(f"{arm} {rank:.2f}" for arm, rank in diagram.ranks),
            ),
            caption=f"{diagram.title}. Mean rank over {len(diagram.corpora)} corpora by pooled macro-F1; "
            f"{diagram.words}.",
        )
        for diagram in report.across.diagrams
    ]
    return [*forests, *diagrams]


def matrix_table(matrix: Matrix) -> HeatTable:
    """Corpora trained on (rows) and judged on (columns), tinted; framed where the network knows the corpus."""

    def cell(trained: str, judged: str, score: Estimate) -> HeatCell:
        strength = None if math.isnan(score.value) else score.value
        framed = strength is not None and judged in trained.split("+")
        return HeatCell(text=number(score.value), under=interval(score), strength=strength, framed=framed)

    return HeatTable(
        caption=f"{matrix.arm}: pooled macro-F1 ({'SIMULATED' if matrix.simulated else 'real'} nights; framed: people "
        "of a corpus it was trained on)",
        corner="trained on ↓  judged on →",
        groups=(),
        columns=matrix.judged_on,
        rows=tuple(
            (trained.replace("+", " + "), "", tuple(map(cell, [trained] * len(row), matrix.judged_on, row)))
            for trained, row in zip(matrix.trained_on, matrix.scores, strict=True)
        ),
    )


def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("tusp.dashboards", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _board(report: Report, board: Board, place: int) -> BoardPage:
    arms = [row for row in board.rows if row.kind == "arm"]
    shown = [row for row in board.rows if row.kind != "baseline" and row.epochs]
    first = board.rows[0] if board.rows else None
    best = first.scores.overall["macro_f1"] if first else None
    return BoardPage(
        anchor=f"board-{place}",
        title=_title(board),
        simulated=board.key.simulated,
        facts=_facts(board),
        leaderboard=leaderboard_table(board),
        picture=Picture(
            svg=leaderboard_chart(
                board,
                alt=f"Pooled macro-F1, accuracy and kappa with intervals for {len(board.rows)} rows; the table above "
                "has the figures",
            ),
            caption="Pooled over epochs, with 95 % intervals over people.",
        )
        if any(not math.isnan(row.scores.overall["macro_f1"].value) for row in board.rows)
        else None,
        heat=_heat(board) if shown else None,
        contrasts=contrast_table(board) if board.contrasts else None,
        contrast_picture=Picture(
            svg=contrast_chart(
                board,
                alt=f"Effects of {len(board.contrasts)} contrasts in macro-F1 and in F1 of each stage, with intervals; "
                "the table above has the figures",
            ),
            caption="Left: effect in macro-F1, mean over people; dark bars are distinguishable after Holm at .05. "
            "Right: effect in F1 of each stage. Lines are 95 % intervals over people.",
        )
        if board.contrasts
        else None,
        sentences=tuple(comparison_sentences(board)),
        published=published_table(board) if board.published else None,
        cost=cost_table(board),
        details=details_table(board),
        sleep=tuple(sleep_tables(board)),
        matrices=tuple(confusion_table(row) for row in shown[:MOST_MATRICES]),
        matrices_left_out=max(0, len(shown) - MOST_MATRICES),
        holes=tuple(hole_lines(board)),
        notes=tuple(note_lines(report, board)),
        best=first.name if first else "–",
        best_score=f"{number(best.value)} {_bracketed(interval(best))}".strip() if best else "–",
        people=f"{max((row.people for row in arms or board.rows), default=0):,}",
    )


def _bracketed(text: str) -> str:
    return f"({text})" if text else ""


def _title(board: Board) -> str:
    key = board.key
    if key.experiment == OUTSIDE or key.judged_on == key.trained_on:
        return key.judged_on
    return f"{key.judged_on}, trained on {key.trained_on.replace('+', ' + ')}"


def _facts(board: Board) -> tuple[tuple[str, str], ...]:
    """What all rows have in common, in words."""
    key = board.key
    facts = [("Nights", "SIMULATED" if key.simulated else "real"), ("Judged on", key.judged_on)]
    if key.experiment != OUTSIDE:
        protocol = PROTOCOLS.get(key.protocol)
        facts += [
            ("Trained on", key.trained_on.replace("+", ", ")),
            ("Experiment", EXPERIMENTS.get(key.experiment, key.experiment)),
            ("Split", f"{key.protocol}, {key.folds} folds{f': {protocol}' if protocol else ''}"),
            ("Recipe", key.recipe),
        ]
    facts.append(("Scoring rule", f"{board.rule}: {rule_in_words(board.rule)}"))
    if key.split_hash:
        facts.append(("Split hash", key.split_hash))
    return tuple(facts)


def _heat(board: Board) -> HeatTable:
    """Precision, recall and F1 of every stage, tinted."""
    names = ("f1", "precision", "recall")

    def cells(row: Row) -> tuple[HeatCell, ...]:
        values = [row.scores.stages[name][code].value for name in names for code in range(len(STAGE_NAMES))]
        return tuple(HeatCell(text=number(v), strength=None if math.isnan(v) else v) for v in values)

    return HeatTable(
        caption="Each stage by itself, pooled over epochs",
        corner="",
        groups=tuple((word, len(STAGE_NAMES)) for word in ("F1", "precision", "recall")),
        columns=STAGE_NAMES * len(names),
        rows=tuple((row.name, "", cells(row)) for row in board.rows if row.epochs),
    )


def confusion_table(row: Row) -> HeatTable:
    """Confusion matrix of a row: shares of the true stage's epochs, the epochs beneath."""

    def cell(epochs: int, total: int) -> HeatCell:
        if not total:
            return HeatCell(text="–")
        share = "100 %" if epochs == total else f"{100 * epochs / total:.1f} %"
        return HeatCell(text=share, under=f"{epochs:,}", strength=epochs / total)

    return HeatTable(
        caption=row.name,
        corner="true ↓  predicted →",
        groups=(),
        columns=STAGE_NAMES,
        rows=tuple(
            (stage, f"{sum(counts):,}", tuple(cell(epochs, sum(counts)) for epochs in counts))
            for stage, counts in zip(STAGE_NAMES, row.confusion, strict=True)
        ),
    )


def _training(group: TrainingGroup) -> Picture:
    nights = "SIMULATED nights" if group.simulated else "real nights"
    many = len(group.curves)
    return Picture(
        svg=training_chart(
            group, alt=f"Validation macro-F1 over the passes of training of {many} networks on {group.trained_on}"
        ),
        caption=f"{group.trained_on.replace('+', ' + ')} ({nights}, {group.protocol}, {group.folds} folds, recipe "
        f"{group.recipe}): macro-F1 on the validation people after each pass; a line for each fold and seed, a dot at "
        "the pass that was kept. With more than 40 lines: their median and range.",
    )


def _with_code(text: str) -> str:
    """A sentence as text of the page, what stands between `backticks` set as code; everything else is escaped."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _web_address(text: str) -> bool:
    """Whether a text may become a link: an address of the web and nothing else."""
    return re.fullmatch(r"https?://[\w.~:/?#@!&()*+,;=%-]+", text) is not None
