"""What a report shows and in which order, whatever its format: tables, holes, notes, and what it was made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tusp.dashboards.cost_tables import cost_table
from tusp.dashboards.leaderboard import Board
from tusp.dashboards.report import Report
from tusp.dashboards.report_notes import NightsNote, SubmissionNote
from tusp.dashboards.tables import (
    TextTable,
    comparison_lines,
    contrast_table,
    details_table,
    leaderboard_table,
    published_table,
    verdict_sentence,
)
from tusp.dashboards.wide_tables import across_lines, across_tables, sleep_tables, suite_lines, suite_table_text

TEXT_LENGTH: Final = 18
"""A column with a longer entry than this is text."""


def board_tables(board: Board) -> list[TextTable]:
    """Tables of one board: leaderboard, published figures, contrasts and costs where there are any,
    details."""
    tables = [leaderboard_table(board)]
    if board.published:
        tables.append(published_table(board))
    if board.contrasts:
        tables.append(contrast_table(board))
    cost = cost_table(board)
    if cost is not None:
        tables.append(cost)
    return [*tables, details_table(board), *sleep_tables(board)]


def text_columns(table: TextTable) -> frozenset[int]:
    """Columns (never the first) that hold sentences, which are set from the left and broken into lines."""
    return frozenset(
        column
        for column in range(1, len(table.columns))
        if any(len(row[column].main) > TEXT_LENGTH for row in table.rows)
    )


def comparison_sentences(board: Board) -> list[str]:
    """What the comparisons of a board say: each contrast, then what stands beside them."""
    return [*(verdict_sentence(contrast) for contrast in board.contrasts), *comparison_lines(board)]


def wide_tables(report: Report) -> list[TextTable]:
    """Tables about several boards: corpora side by side, train-on x judge-on matrices, a suite."""
    tables = across_tables(report.across)
    return tables if report.suite is None else [*tables, suite_table_text(report.suite)]


def wide_lines(report: Report) -> list[str]:
    """What goes with them, in words; holes of a suite by name."""
    lines = across_lines(report.across)
    return lines if report.suite is None else [*lines, *suite_lines(report.suite)]


def night_words(key_simulated: bool) -> str:
    """``SIMULATED nights`` or ``real nights``."""
    return "SIMULATED nights" if key_simulated else "real nights"


def submission_line(note: SubmissionNote) -> str:
    """A submission with the programs and the machine that made it, in one line."""
    environment = note.environment
    packages: Mapping[str, Any] = environment.get("packages") or {}
    versions = [f"{name} {packages[name]}" for name in ("tusp", "torch", "numpy") if packages.get(name)]
    if environment.get("python"):
        versions.insert(1 if versions else 0, f"Python {environment['python']}")
    git = environment.get("git") or {}
    commit = [f"commit {str(git['commit'])[:12]}{' with changes' if git.get('dirty') else ''}"] if git else []
    cpu = environment.get("cpu") or {}
    gpu = environment.get("gpu") or {}
    cores = f", {cpu['usable_cores']} cores" if cpu.get("usable_cores") else ""
    machine = [f"{cpu['model']}{cores}"] if cpu.get("model") else []
    machine += [str(gpu["name"])] if gpu.get("name") else []
    made = "; ".join([", ".join(versions), *commit, *machine]) if versions or commit or machine else "not recorded"
    nights = night_words(note.simulated)
    return f"submission {note.id} ({note.created_at:%Y-%m-%d %H:%M} UTC, {note.state}, {nights}): {made}"


def environment_lines(report: Report) -> list[str]:
    """A line for each submission of the report."""
    return [submission_line(note) for note in report.submissions]


def split_lines(report: Report) -> list[str]:
    """The whole hash of every split, once."""
    found = {}
    for board in report.boards:
        key = board.key
        if not key.split_hash:
            continue  # imported submissions and human scorers only: nothing was trained
        found[key.split_hash] = f"split {key.trained_on}, {key.protocol}, {_folds(key.folds)}: {key.split_hash}"
    return list(found.values())


def _folds(number: int) -> str:
    return "1 fold" if number == 1 else f"{number} folds"


def recompute_lines(report: Report) -> list[str]:
    """Commands that make the report again from the store and verify what it rests on."""
    which = [f" --submission {note.id}" for note in report.submissions] or [""]
    if report.everything:
        which = [" --all"]
    only = f" --corpus {report.corpus}" if report.corpus else ""
    lines = []
    for chosen in which:
        lines.append(f"tusp report{chosen} --rule {report.rule}{only} --bootstrap {report.bootstrap}")
        lines.append(f"tusp validate{chosen}")
    return lines


def entry_lines(report: Report) -> list[str]:
    """Where each imported submission and human scorer comes from, with the checksum over its files; each once."""
    lines: dict[str, None] = {}
    for board in report.boards:
        for row in board.rows:
            said = row.provenance or {}
            if said.get("sha256"):
                whom = ", ".join(str(said[name]) for name in ("author", "url") if said.get(name))
                files = (
                    "1 file" if said.get("n_files") == 1 else f"{said['n_files']} files" if "n_files" in said else ""
                )
                origin = ", ".join(part for part in (whom, str(said.get("source") or ""), files) if part)
                line = f"{row.kind} {row.name} on {board.key.judged_on}: {origin}; SHA-256 {said['sha256']}"
                lines[line] = None
    return list(lines)


def nights_lines(note: NightsNote) -> list[str]:
    """What the audit says of a corpus: one line of numbers, then its most frequent problems."""
    unscored = "" if note.unscored_share != note.unscored_share else f", {100 * note.unscored_share:.1f} % unscored"
    lines = [
        f"{note.corpus}: {_nights(note.usable)} usable, {note.refused:,} refused, "
        f"{note.with_problems:,} with something to know{unscored}"
    ]
    return lines + [
        f"{note.corpus}: {problem.kind} ({_nights(problem.recordings)}; {problem.example})" for problem in note.problems
    ]


def _nights(number: int) -> str:
    return "1 night" if number == 1 else f"{number:,} nights"


def foot_lines(report: Report) -> list[str]:
    """What stands at the end of every report: audits of the nights, splits, environment."""
    audits: Sequence[str] = [line for note in report.nights for line in nights_lines(note)]
    return [*audits, *split_lines(report), *entry_lines(report), *environment_lines(report)]
