"""`tusp report --format latex`: it compiles, says everything a table must say, and takes any name as text."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from judged_home import judged_home
from report_results import add_cell, add_submission, new_store, night, plausible_results
from typer.testing import CliRunner

from tusp.cli.main import app
from tusp.dashboards.latex import PREAMBLE, ROWS_PER_TABLE, caption, latex_document, latex_tables, latex_text
from tusp.dashboards.render import render_report
from tusp.dashboards.report import Report, build_report
from tusp.dashboards.tables import Entry, TextTable, leaderboard_table

HOSTILE = "x_1 & 50% $a^2$ #{}~\\input{/etc/passwd} <i>|\"`' -- “漢字” é ß ł 😀 µV ²\x07"


def compile_latex(text: str, folder: Path) -> Path:
    """The PDF that pdflatex makes of a document; any error of TeX fails the test."""
    pdflatex = shutil.which("pdflatex")
    if pdflatex is None:
        pytest.skip("no pdflatex here (apt-get install texlive-latex-base texlive-latex-recommended)")
    (folder / "report.tex").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [pdflatex, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "report.tex"],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull \\hbox" not in done.stdout
    return folder / "report.pdf"


def structure(text: str) -> None:
    """What TeX would stumble over: environments that are not closed, braces that do not match."""
    open_now: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            open_now.append(name)
        else:
            assert open_now.pop() == name
    assert open_now == []
    bare = re.sub(r"\\[\\{}]", "", text)
    assert bare.count("{") == bare.count("}")


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """Real nights, four arms, one of them with a hole, and refused recordings with hostile names."""
    store = new_store(tmp_path)
    arms = ("full", "no-csja", "no-se", "plain")
    with store.session() as session:
        refused = [{"corpus": "sedf-sc", "recording": HOSTILE, "reason": "no hypnogram: 100 % of $x_1$"}]
        add_submission(session, "first", arms=arms, refused=refused)
        plausible_results(session, "first", arms=arms, people=12)
        add_cell(session, "first", None, arm="plain", fold=4, folds=5, seed=1, state="failed", error=HOSTILE)
    return build_report(store, bootstrap=200)


@pytest.mark.parametrize("simulated", [False, True])
def test_the_document_compiles(tmp_path: Path, simulated: bool) -> None:
    store = new_store(tmp_path)
    with store.session() as session:
        add_submission(session, "first", simulated=simulated)
        for arm in ("full", "no-csja"):
            nights = {(f"P{n}", f"R{n}"): night(np.random.default_rng(n), quality=0.9) for n in range(6)}
            add_cell(session, "first", nights, arm=arm, folds=1, simulated=simulated)
    text = latex_document(build_report(store, bootstrap=200))
    structure(text)
    assert ("SIMULATED" in text) is simulated
    board = build_report(store, bootstrap=200).boards[0]
    assert text.count("\\begin{tabular}{@{}>") == 4 + bool(board.published)
    assert compile_latex(text, tmp_path).stat().st_size > 10_000


def test_hostile_names_and_reasons_are_set_as_text(report: Report, tmp_path: Path) -> None:
    text = latex_document(report)
    structure(text)
    assert "\\input{" not in text
    assert "[U+6F22]" in text
    compile_latex(text, tmp_path)


def test_every_character_can_be_set(tmp_path: Path) -> None:
    characters = [*map(chr, range(0x00, 0x250)), *"−–—±×·→≤≥τµ²“”…€中文😀\u200b\u202e\ufeff"]
    lines = "\n\n".join(latex_text(f"a{character}b") for character in characters)
    compile_latex(f"{PREAMBLE}{lines}\n\\end{{document}}\n", tmp_path)


def test_a_caption_says_rule_people_split_and_kind_of_nights(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    with store.session() as session:
        add_submission(session, "first", simulated=True)
        plausible_results(session, "first", people=10, simulated=True)
    board = build_report(store, bootstrap=200).boards[0]
    said = caption(board, leaderboard_table(board))
    assert said == (
        "Pooled over epochs, with 95 % intervals over people. sedf-sc, SIMULATED nights; rule trim30; 10 people; "
        "within, kfold protocol, 5 folds, recipe quick; split 555555555555."
    )
    document = latex_document(build_report(store, bootstrap=200))
    assert "\\textbf{\\mbox{SIMULATED} nights}" in document


def test_holes_refusals_and_figures_are_in_it(report: Report) -> None:
    text = latex_document(report)
    assert "hole: plain, fold 4, seed 1: failed" in text
    assert "refused: sedf-{}sc" in text
    assert "no hypnogram: 100 \\% of \\$x\\_" in text
    best = report.boards[0].rows[0].scores.overall["macro_f1"].value
    assert f" & {best:.3f}".replace("0.", ".") in text
    assert "submission first" in text
    assert "tusp validate -{}-{}submission first" in text


def test_long_tables_go_on_in_another_float() -> None:
    rows = tuple((Entry(main=f"arm {n}"), Entry(main=".5", under=".4–.6")) for n in range(2 * ROWS_PER_TABLE + 1))
    parts = latex_tables(TextTable(title="", columns=("arm", "x\ny"), rows=rows), caption="All.", label="tab:x")
    assert len(parts) == 3
    assert sum(part.count(" & .5 ") for part in parts) == len(rows)
    assert [re.findall(r"\\label\{(.*?)\}", part)[0] for part in parts] == ["tab:x", "tab:xb", "tab:xc"]
    assert all("\\toprule" in part and "\\bottomrule" in part for part in parts)


def test_sentences_in_a_table_are_broken_into_lines(tmp_path: Path) -> None:
    rows = ((Entry(main="one"), Entry(main=".5"), Entry(main="words " * 60)),)
    (part,) = latex_tables(TextTable(title="", columns=("arm", "x", "note"), rows=rows), caption="C.", label="tab:x")
    assert part.count("raggedright") == 2
    text = f"{PREAMBLE}{part}\n\\end{{document}}\n"
    compile_latex(text, tmp_path)


def test_the_command_writes_it(tmp_path: Path) -> None:
    home = judged_home(tmp_path / "home")
    output = tmp_path / "report.tex"
    done = CliRunner().invoke(
        app,
        ["--home", str(home.folder), "--db", home.settings.db, "report", "--format", "latex", "--bootstrap", "200",
         "--output", str(output)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    text = output.read_text(encoding="utf-8")
    assert text == render_report(build_report(home.store, bootstrap=200), "latex")
    compile_latex(text, tmp_path)
