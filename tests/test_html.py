"""`tusp report --format html`: one file that asks for nothing, says everything, and takes any name as text."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from judged_home import judged_home
from report_results import add_cell, add_submission, new_store, night, plausible_results
from sqlalchemy import insert
from typer.testing import CliRunner

from tusp.cli.main import app
from tusp.dashboards.charts import MOST_LINES, training_chart
from tusp.dashboards.extras import Extras, TrainingCurve, TrainingGroup, read_extras
from tusp.dashboards.html import html_document
from tusp.dashboards.report import Report, build_report
from tusp.platform.store.entries import EntryNight, NewEntry, add_entries
from tusp.platform.store.models import Curve
from tusp.platform.store.session import Store

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>$a_b$ &amp;"
VOID = {"meta", "br", "hr", "img", "input", "link", "wbr"}


class Page(HTMLParser):
    """A page as a browser sees it: elements with attributes, texts, and whether it is well formed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} closed where {self.open} are open"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        return " ".join(text for text in self.texts if text)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def assert_asks_for_nothing(text: str) -> None:
    """No element, attribute or style of the page makes a browser load anything or run anything."""
    page = Page(text)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form", "foreignobject", "image", "audio"}
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "srcset", "poster", "data", "action", "background", "xlink:href"):
            assert name not in attributes, (tag, attributes)
        target = attributes.get("href")
        if target is not None and not target.startswith("#"):
            assert tag == "a", (tag, target)
            assert target.startswith(("https://", "http://"))
        assert "javascript:" not in " ".join(attributes.values()).lower()
    assert "@import" not in text
    assert not re.findall(r"url\((?!#)", text)
    policy = [item["content"] for item in page.all("meta") if item.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for reference in re.findall(r'(?:href="#|url\(#)([\w-]+)', text):
        assert reference in ids


def some_results(store: Store, *, simulated: bool = False, corpus: str = "sedf-sc", name: str = "first") -> None:
    with store.session() as session:
        refused = [{"corpus": corpus, "recording": HOSTILE, "reason": f"unreadable {HOSTILE}"}]
        add_submission(session, name, simulated=simulated, refused=refused, corpora=[corpus])
        plausible_results(session, name, people=8, corpus=corpus, folds=2, simulated=simulated)
        add_cell(
            session, name, None, corpus=corpus, fold=1, folds=2, seed=1, simulated=simulated, state="failed",
            error=HOSTILE,
        )  # fmt: skip
        cells = [f"{name}-{corpus}-{corpus}-{arm}-quick-{simulated:d}-0-{fold}" for arm in ("full", "no-csja")
                 for fold in (0, 1)]  # fmt: skip
        session.execute(
            insert(Curve),
            [
                {
                    "cell_id": cell, "pass_number": n, "train_loss": 1.0, "learning_rate": 0.1, "seconds": 1.0,
                    "validation_macro_f1": None if n == 1 else 0.2 * n,
                }
                for cell in cells
                for n in (1, 2, 3)
            ],
        )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Extras]:
    store = new_store(tmp_path_factory.mktemp("html"))
    some_results(store)
    report = build_report(store, bootstrap=200)
    return report, read_extras(store, report)


@pytest.fixture(scope="module")
def page(made: tuple[Report, Extras]) -> str:
    return html_document(*made)


def test_it_asks_for_nothing(page: str) -> None:
    assert_asks_for_nothing(page)


def test_names_and_reasons_from_files_are_text(page: str) -> None:
    assert "<script" not in page
    assert "<img" not in page
    shown = Page(page).text
    assert f"refused: sedf-sc {HOSTILE}: unreadable {HOSTILE}" in shown
    assert f"hole: full, fold 1, seed 1: failed ({HOSTILE})" in shown


def test_commands_in_notes_are_set_as_code_and_the_rest_is_text(made: tuple[Report, Extras]) -> None:
    board = replace(made[0].boards[0], notes=("see `--seeds` & `<b>it</b>`",))
    shown = html_document(replace(made[0], boards=(board,)))
    assert "<li>see <code>--seeds</code> &amp; <code>&lt;b&gt;it&lt;/b&gt;</code></li>" in shown


def test_every_part_is_there(made: tuple[Report, Extras], page: str) -> None:
    seen = Page(page)
    for heading in ("At a glance", "Leaderboard", "Comparisons", "Stages", "Confusion matrices", "Details", "Training",
                    "How this was made", "Environment", "Splits", "To compute it again", "To cite"):  # fmt: skip
        assert heading in seen.texts, heading
    board = made[0].boards[0]
    row = board.rows[0]
    for value in (row.scores.overall["macro_f1"].value, *(item.value for item in row.scores.stages["recall"])):
        assert f"{value:.3f}".replace("0.", ".", 1) in seen.texts
    hits = 100 * row.confusion[0][0] / sum(row.confusion[0])
    assert f"{hits:.1f} %" in seen.texts
    assert board.key.split_hash in seen.text
    assert "submission first (2026-01-05 09:00 UTC, done, real nights): Python 3.11" in seen.texts
    assert "tusp validate --submission first" in seen.text
    assert "SIMULATED" not in seen.text


def test_readers_of_any_kind_are_served(page: str) -> None:
    seen = Page(page)
    assert seen.all("html") == [{"lang": "en"}]
    tags = [tag for tag, _ in seen.elements]
    for landmark in ("header", "nav", "main", "footer"):
        assert tags.count(landmark) == 1
    levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    for picture in seen.all("svg"):
        assert picture["role"] == "img"
        assert len(picture["aria-label"]) > 20
    assert len(seen.all("svg")) == 3  # leaderboard, contrasts, training
    assert all("scope" in attributes for attributes in seen.all("th"))
    assert page.count("<figcaption>") == len(seen.all("figure"))


def test_light_dark_and_paper(page: str) -> None:
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert "tabular-nums" in page
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    # A colour of its own would stay as it is in the dark: figures have classes, which the page's style knows.
    assert not re.findall(r"#[0-9a-fA-F]{3,6}\b|rgb|fill=|stroke=", drawn)
    style = re.search(r"<style>(.*?)</style>", page, flags=re.DOTALL)
    assert style is not None
    used = {name for names in re.findall(r'class="([^"]*)"', drawn) for name in names.split()} - {"chart"}
    assert used
    assert {name for name in used if f".chart .{name}" not in style[1]} == set()


def test_simulated_boards_have_a_banner_each_and_real_ones_none(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    some_results(store, simulated=True, corpus="sedf-st", name="second")
    text = html_document(build_report(store, bootstrap=200))
    assert text.count('class="banner"') == 2  # the page's and the board's
    assert "(SIMULATED nights)" in text
    some_results(store, name="first")
    both = html_document(build_report(store, everything=True, bootstrap=200))
    sections = re.findall(r'<section class="board".*?</section>', both, flags=re.DOTALL)
    assert [("SIMULATED" in section, 'class="banner"' in section) for section in sections] == [
        (False, False),
        (True,) * 2,
    ]
    assert_asks_for_nothing(both)


def test_the_same_report_is_the_same_page(made: tuple[Report, Extras], page: str) -> None:
    assert html_document(*made) == page


def test_training_curves_are_those_of_the_boards_cells(made: tuple[Report, Extras]) -> None:
    (group,) = made[1].training
    assert group.has(made[0].boards[0].key)
    assert [(curve.arm, curve.fold, curve.passes) for curve in group.curves] == [
        (arm, fold, (1, 2, 3)) for arm in ("full", "no-csja") for fold in (0, 1)
    ]
    assert group.curves[0].macro_f1[1:] == pytest.approx((0.4, 0.6))
    assert {curve.settings for curve in group.curves} == {row.settings for row in made[0].boards[0].rows} - {None}


def test_many_curves_become_a_band() -> None:
    curves = tuple(
        TrainingCurve(arm="full", settings="0", fold=n, seed=0, passes=(1, 2), macro_f1=(0.1, 0.2), best_pass=2)
        for n in range(MOST_LINES + 1)
    )
    group = TrainingGroup(
        simulated=True, experiment="within", trained_on="x", protocol="kfold", folds=9, recipe="quick", split_hash="0",
        curves=curves,
    )  # fmt: skip
    drawn = training_chart(group, alt="many")
    assert drawn.count('class="band"') == drawn.count('class="s-n2 bar open"') == 1
    assert drawn.count("<circle") == 0
    few = training_chart(replace(group, curves=curves[:3]), alt="few")
    assert few.count('class="s-n2 thin open"') == few.count("<circle") == 3


def test_nothing_done_yet_is_a_page_too(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    with store.session() as session:
        add_submission(session, "first")
        add_cell(session, "first", None, state="planned", folds=1)
    text = html_document(build_report(store, bootstrap=200))
    assert "hole: full, fold 0, seed 0: planned" in Page(text).text
    assert_asks_for_nothing(text)


def test_the_command_writes_it_with_audits_and_citations(tmp_path: Path) -> None:
    home = judged_home(tmp_path / "home")
    output = tmp_path / "report.html"
    done = CliRunner().invoke(
        app,
        ["--home", str(home.folder), "--db", home.settings.db, "report", "--format", "html", "--bootstrap", "200",
         "--output", str(output)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    text = output.read_text(encoding="utf-8")
    assert_asks_for_nothing(text)
    shown = Page(text).text
    assert "toy: 6 nights usable, 1 refused" in shown
    assert "A. Author, 2026" in shown
    assert "tusp 0.1.0, Python 3.11.0" in shown


def test_addresses_that_are_none_become_no_links(tmp_path: Path) -> None:
    from tusp.dashboards.html import _web_address

    assert _web_address("https://zenodo.org/records/15900394")
    for text in ("javascript:alert(1)", 'https://x/"onclick=', "", "data:text/html,x", "http://a b"):
        assert not _web_address(text)


def test_matrices_of_counts_stay_readable(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    with store.session() as session:
        add_submission(session, "first", arms=["full"])
        nights = {("P1", "R1"): np.diag([5, 0, 7, 0, 9])}
        nights[("P2", "R2")] = night(np.random.default_rng(1), quality=0.9)
        add_cell(session, "first", nights, folds=1)
    text = html_document(build_report(store, bootstrap=200))
    assert "true ↓  predicted →" in text


def test_labels_that_lie_apart_are_cited_too(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    stages = np.tile(np.arange(5, dtype=np.int8), 20)
    nights = [EntryNight(recording=f"R{n}", subject=f"P{n}", true=stages, predicted=stages) for n in range(3)]
    new = NewEntry(
        corpus="dod-h", truth_hash="t" * 64, truth_kind="hypnograms", kind="imported", name="theirs", simulated=False,
        provenance={"sha256": "a" * 64}, protocols={}, nights=nights,
    )  # fmt: skip
    add_entries(store, tmp_path, [new])
    report = build_report(store, bootstrap=100)
    (facts,) = read_extras(store, report).corpora
    assert (facts.name, facts.simulated) == ("dod-h", False)
    assert facts.citation in unescape(html_document(report, read_extras(store, report)))


@pytest.mark.parametrize(("corpora", "said"), [(2, False), (3, True)])
def test_one_more_corpus_is_explained_where_it_is_drawn(tmp_path: Path, corpora: int, said: bool) -> None:
    store = new_store(tmp_path)
    names = ["dcsm", "sedf-sc", "sedf-st"][:corpora]
    with store.session() as session:
        add_submission(session, "first", corpora=names)
        for place, corpus in enumerate(names):
            plausible_results(session, "first", people=6 + place, corpus=corpus, folds=2)
    text = html_document(build_report(store, bootstrap=100))
    assert "the diamond is the random-effects mean" in text
    assert (">one more corpus<" in text) is said
    assert ("the bar below it where one more corpus" in text) is said
