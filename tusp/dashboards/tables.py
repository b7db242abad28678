"""What the tables of a report say, as text: shared by the terminal and Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tusp.dashboards.contrast import ALPHA, Contrast
from tusp.dashboards.costs import cost_lines
from tusp.dashboards.leaderboard import Board, Row, Spread
from tusp.dashboards.published import PublishedRow
from tusp.dashboards.report import Report
from tusp.platform.scoring.rules import rule_in_words
from tusp.platform.scoring.statistics import Estimate
from tusp.platform.stages import STAGE_NAMES

NOT_SCORED = "–"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One cell of a table: what it says, and what stands small beneath it (an interval, a p-value)."""

    main: str
    under: str = ""
    warning: bool = False
    """Something is missing here."""


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """A table ready to be drawn. ``plain`` rows (the baseline) are drawn without emphasis."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    plain: frozenset[int] = frozenset()


def number(value: float, *, digits: int = 3, signed: bool = False) -> str:
    """A score without its leading zero (``.812``, ``1.000``, ``−.031``), ``–`` where not scored."""
    if math.isnan(value):
        return NOT_SCORED
    text = f"{value:.{digits}f}".removeprefix("-")
    rounds_to_zero = not text.strip("0.")  # and then has no sign
    text = text[1:] if text.startswith("0.") else text
    if rounds_to_zero:
        return text
    return ("−" if value < 0 else "+" if signed else "") + text


def interval(estimate: Estimate, *, digits: int = 3, signed: bool = False) -> str:
    """``.790–.833``, ``−.003 to +.021``; empty where there is none."""
    if math.isnan(estimate.low):
        return ""
    low, high = (number(end, digits=digits, signed=signed) for end in (estimate.low, estimate.high))
    return f"{low} to {high}" if signed or estimate.low < 0 else f"{low}–{high}"


def p_value(p: float) -> str:
    """``.031``, ``<.001``; ``–`` where there is none."""
    return "<.001" if p < 0.001 else number(p)


def duration(seconds: float) -> str:
    """``42 s``, ``3.1 min``, ``2.4 h``."""
    if math.isnan(seconds):
        return NOT_SCORED
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def leaderboard_table(board: Board) -> TextTable:
    """Pooled metrics with intervals, one row per arm, imported submission or human scorer; ranks where rows are
    compared."""
    ranked = any(not math.isnan(item.rank.value) for item in board.rows)
    several_seeds = any(len(item.seeds) > 1 for item in board.rows)

    def row(item: Row) -> tuple[Entry, ...]:
        overall = [item.scores.overall[name] for name in ("macro_f1", "accuracy", "kappa")]
        scores = [Entry(main=number(e.value), under=interval(e)) for e in (*overall, *item.scores.stages["f1"])]
        rank = [_rank(item)] if ranked else []
        return Entry(main=item.name, under=_kind(item)), *rank, *scores, _coverage(item)

    return TextTable(
        title="Pooled over epochs, with 95 % intervals over people",
        columns=(
            _first_column(board),
            *(["rank"] if ranked else []),
            "macro-F1",
            "accuracy",
            "kappa",
            *(f"F1 {stage}" for stage in STAGE_NAMES),
            f"{'cells' if several_seeds else 'folds' if _has_arms(board) else 'covered'}\npeople",
        ),
        rows=tuple(row(item) for item in board.rows),
        plain=_baselines(board),
    )


def _has_arms(board: Board) -> bool:
    return any(row.kind == "arm" for row in board.rows)


def _first_column(board: Board) -> str:
    return "arm" if _has_arms(board) else "name"


def _kind(row: Row) -> str:
    return "" if row.kind in {"arm", "baseline"} or row.kind in row.name else row.kind


def _rank(row: Row) -> Entry:
    """``1`` above ``1–2``; ties share their mean rank."""
    if math.isnan(row.rank.value):
        return Entry(main="" if row.kind != "arm" else NOT_SCORED)
    low, high = f"{row.rank.low:.3g}", f"{row.rank.high:.3g}"
    return Entry(main=f"{row.rank.value:.3g}", under="" if math.isnan(row.rank.low) else f"{low}–{high}")


def _coverage(row: Row) -> Entry:
    """Folds done of those planned, or how much of the nights an imported submission or a scorer covers, and people."""
    people = f"{row.people:,}"
    if row.kind in {"arm", "baseline"}:
        done = f"{row.folds_done}/{row.folds_planned}"
        return Entry(main=done, under=people, warning=row.folds_done < row.folds_planned)
    whole = row.coverage_in_words == "complete"
    # Rounded down, as in words: what is not whole never reads 100 %.
    share = NOT_SCORED if math.isnan(row.coverage) else f"{math.floor(1000 * row.coverage) / 10:.1f} %"
    share = "all" if whole else share
    return Entry(main=share, under=people, warning=row.kind == "imported" and not whole)


def published_table(board: Board) -> TextTable:
    """What others published for this corpus: not reproduced, never ranked with the rows above."""
    metrics = ("macro_f1", "accuracy", "kappa", *(f"f1_{stage}" for stage in STAGE_NAMES))
    shown = [name for name in metrics if any(name in row.values for row in board.published)]
    words = {"macro_f1": "macro-F1"} | {f"f1_{stage}": f"F1 {stage}" for stage in STAGE_NAMES}

    def row(item: PublishedRow) -> tuple[Entry, ...]:
        values = [Entry(main=number(item.values.get(name, float("nan")))) for name in shown]
        return Entry(main=item.system), *values, Entry(main=item.rule)

    return TextTable(
        title="Published, not reproduced",
        columns=("system", *(words.get(name, name) for name in shown), "rule"),
        rows=tuple(row(item) for item in board.published),
        plain=frozenset(range(len(board.published))),
    )


def details_table(board: Board) -> TextTable:
    """Macro precision and recall, means over recordings, coverage."""

    def spread(value: Spread) -> Entry:
        return Entry(main=number(value.mean), under="" if math.isnan(value.sd) else f"± {number(value.sd)}")

    def row(item: Row) -> tuple[Entry, ...]:
        pooled = [item.scores.overall[name] for name in ("macro_precision", "macro_recall")]
        return (
            Entry(main=item.name),
            *(Entry(main=number(e.value), under=interval(e)) for e in pooled),
            *(spread(item.per_recording[name]) for name in ("macro_f1", "accuracy", "kappa")),
            Entry(main=f"{item.recordings:,}"),
            Entry(main=f"{item.epochs:,}"),
        )

    return TextTable(
        title="Pooled precision and recall; mean ± SD over recordings; coverage",
        columns=(
            _first_column(board),
            "macro\nprecision",
            "macro\nrecall",
            "recording\nmacro-F1",
            "recording\naccuracy",
            "recording\nkappa",
            "recor-\ndings",
            "epochs",
        ),
        rows=tuple(row(item) for item in board.rows),
        plain=_baselines(board),
    )


def contrast_table(board: Board) -> TextTable:
    """Effects, p-values and per-stage effects, one row per contrast."""

    def row(item: Contrast) -> tuple[Entry, ...]:
        stages = [
            Entry(
                main=number(stage.effect.value, signed=True),
                under="" if math.isnan(stage.p_holm) else f"p {p_value(stage.p_holm)}",
            )
            for stage in item.stages
        ]
        return (
            Entry(main=item.name),
            Entry(
                main=number(item.effect.value, signed=True),
                under=interval(item.effect, signed=True),
            ),
            Entry(main=p_value(item.p)),
            Entry(main=p_value(item.p_holm)),
            *stages,
            Entry(main=f"{item.people:,}", under=f"+{item.improved} −{item.worsened}"),
        )

    return TextTable(
        title="Contrast: difference paired by person (F1 of each stage beside it, p after Holm)",
        columns=(
            "contrast",
            "effect in\nmacro-F1",
            "p",
            "p\nHolm",
            *STAGE_NAMES,
            "people",
        ),
        rows=tuple(row(item) for item in board.contrasts),
    )


def verdict_sentence(contrast: Contrast) -> str:
    """A contrast in words, effect first."""
    effect = number(contrast.effect.value, signed=True)
    pooled = number(contrast.pooled.value, signed=True)
    span = interval(contrast.effect, signed=True)
    pooled_span = interval(contrast.pooled, signed=True)
    return (
        f"{contrast.name}: {contrast.verdict}. Macro-F1 {effect} per person{f' ({span})' if span else ''}, "
        f"p Holm {p_value(contrast.p_holm)}; {contrast.improved} of {contrast.people} people up, "
        f"{contrast.worsened} down; pooled {pooled}{f' ({pooled_span})' if pooled_span else ''}."
    )


def comparison_lines(board: Board) -> list[str]:
    """What pairs, folds, seeds and human scorers say beside the contrasts, in short lines; nothing where they say
    nothing that the contrasts do not."""
    lines = []
    ranked = [row for row in board.rows if not math.isnan(row.rank.value)]
    if len(ranked) > 2:
        together = [group for group in board.groups if len(group) > 1]
        family = f"all {len(board.pairs)} pairs, sign flips over {board.compared_people} people, Holm"
        lines += [f"not distinguishable ({family}): {', '.join(group)}" for group in together]
        if not together:
            lines.append(f"every pair of rows is distinguishable ({family})")
    folds = [(item.name, item.folds) for item in board.contrasts if item.folds and not math.isnan(item.folds.p)]
    if folds:
        said = "; ".join(f"{name} {number(test.mean, signed=True)}, p {p_value(test.p)}" for name, test in folds)
        lines.append(f"sensitivity, corrected t over {folds[0][1].folds} folds (not adjusted): {said}")
    for row in board.rows:
        if row.variance is not None and not math.isnan(row.variance.rest):
            parts = row.variance
            lines.append(
                f"{row.name}: macro-F1 varies with SD {number(parts.people)} between {parts.n_people} people, "
                f"{number(parts.seeds)} between {parts.n_seeds} seeds, {number(parts.rest)} otherwise"
            )
    return lines + _human_lines(board)


def _human_lines(board: Board) -> list[str]:
    if board.ceiling is None:
        return []
    mean, ranges = board.ceiling.mean.overall, board.ceiling.ranges
    said = ", ".join(
        f"{words} {number(mean[name].value)} ({number(ranges[name][0])} to {number(ranges[name][1])})"
        for name, words in (("macro_f1", "macro-F1"), ("accuracy", "accuracy"), ("kappa", "kappa"))
    )
    return [
        f"human scorers, mean (lowest to highest): {said}; best {board.ceiling.best}; "
        f"kappa between two scorers {number(board.ceiling.pairwise_kappa)}"
    ]


def hole_lines(board: Board) -> list[str]:
    """Every cell without a result and every recording that could not be used or judged, one line each."""
    lines = [
        f"hole: {hole.arm}, fold {hole.fold}, seed {hole.seed}: {hole.state}"
        + (f" ({hole.reason})" if hole.reason else "")
        for hole in board.holes
    ]
    lines += [f"refused: {item.corpus} {item.recording}: {item.reason}" for item in board.refused]
    if board.without_epochs:
        names = ", ".join(board.without_epochs)
        lines.append(f"nothing to judge under rule {board.rule}: {names} (no sleep epoch in the expert hypnogram)")
    return lines


def note_lines(report: Report, board: Board) -> list[str]:
    """How the figures of a board came about."""
    lines = [
        f"rule {board.rule}: {rule_in_words(board.rule)}"
        + (f"; split {board.key.split_hash[:12]}" if board.key.split_hash else "")
        + ("; counted from kept predictions" if report.recomputed else ""),
        f"intervals: percentile bootstrap over people, {report.bootstrap:,} resamples, seed {report.seed}",
    ]
    if board.contrasts:
        lines.append(
            f"p: two-sided sign-flip permutation over people, {_enumerated(board.contrasts)}; Holm over "
            f"{_counted(len(board.contrasts), 'contrast')} (stages: over {5 * len(board.contrasts)}); "
            f"distinguishable at {number(ALPHA, digits=2)}"
        )
    if board.contrasts and all(len(row.seeds) < 2 for row in board.rows):
        lines.append(
            "one seed: p is about these trained networks on people like these; training again varies, too "
            "(see the line over folds; `--seeds`)"
        )
    if any(not math.isnan(row.rank.value) for row in board.rows):
        lines.append(
            f"rank: by pooled macro-F1 over the {_counted(board.compared_people, 'person', 'people')} judged in every "
            "ranked row, with its interval over resamples of them"
        )
    lines += _unranked_lines(board)
    if any(row.kind == "baseline" for row in board.rows):
        lines.append("majority stage: always says the most frequent stage of the fold's training nights")
    lines += cost_lines({row.name: row.costs for row in board.rows if row.costs})
    lines += [f"published {item.system}: {item.note}" for item in board.published if item.note]
    lines += board.notes
    if report.superseded:
        lines.append(f"{report.superseded} done cells are left out because a later one did the same")
    if any(math.isnan(e.value) for row in board.rows for e in row.scores.stages["f1"]):
        lines.append("– means not scored: in neither truth nor prediction, or nothing judged yet; never 0")
    return lines


def _unranked_lines(board: Board) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for row in board.rows:
        if row.unranked is not None and row.kind != "arm":
            reasons.setdefault(row.unranked, []).append(row.name)
    return [f"not ranked: {', '.join(names)}: {reason}" for reason, names in reasons.items()]


def _baselines(board: Board) -> frozenset[int]:
    return frozenset(index for index, row in enumerate(board.rows) if row.kind == "baseline")


def _enumerated(contrasts: Sequence[Contrast]) -> str:
    exact = [contrast.exact for contrast in contrasts]
    return "exact" if all(exact) else "drawn" if not any(exact) else "exact with up to 16 people, else drawn"


def _counted(n: int, noun: str, many: str | None = None) -> str:
    return f"{n:,} {noun if n == 1 else many or noun + 's'}"
