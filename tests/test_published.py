"""The published rows: one file, checked, shown beside rows of the same kind only."""

from __future__ import annotations

from pathlib import Path

import pytest

from tusp.dashboards.published import load_published, published_rows
from tusp.datasets.catalog import BUILT_IN
from tusp.platform.errors import DataError, UserError

GOOD = """
[sources]
p = "A paper."

[[row]]
system = "Net"
corpus = "dod-h"
aggregation = "pooled"
rule = "full"
values = { macro_f1 = 0.5 }
source = "p"
"""


def test_the_file_that_comes_with_tusp_is_whole() -> None:
    rows = load_published()
    assert {row.corpus for row in rows} == {*BUILT_IN, "all"}
    assert all(row.source.endswith(".") and row.system for row in rows)
    found = {(row.system, row.corpus): row.values for row in rows if row.aggregation == "pooled"}
    assert found["U-Sleep", "dod-o"] == {"macro_f1": 0.79}
    assert found["TinyUStaging", "dcsm"] == {"macro_f1": 0.804, "accuracy": 0.914, "kappa": 0.851}
    assert found["mean human", "dod-h"]["macro_f1"] == 0.784
    assert found["TinyUStaging", "all"]["f1_N1"] == 0.51


POOLED_MACRO_F1 = {
    "sedf-sc": {"U-Time": 0.76, "U-Sleep": 0.79, "XSleepNet2": 0.787, "SleePyCo": 0.790},
    "sedf-st": {"U-Sleep": 0.76},
    "dcsm": {"U-Time": 0.79, "U-Sleep": 0.81, "TinyUStaging": 0.804},
    "cinc2018": {"U-Time": 0.77, "U-Sleep": 0.79, "XSleepNet2": 0.799, "SleePyCo": 0.789},
    "shhs": {"U-Sleep": 0.80, "XSleepNet2": 0.818},
    "dod-h": {"U-Sleep": 0.82, "SimpleSleepNet": 0.822, "mean human": 0.784},
    "dod-o": {"U-Sleep": 0.79, "SimpleSleepNet": 0.794, "mean human": 0.750},
    "all": {"TinyUStaging": 0.7782},
}
"""As published; nothing else may stand in the file, and nothing may be missing."""


def test_every_pooled_figure_is_the_published_one() -> None:
    pooled = [row for row in load_published() if row.aggregation == "pooled"]
    found: dict[str, dict[str, float]] = {}
    for row in pooled:
        found.setdefault(row.corpus, {})[row.system] = row.values["macro_f1"]
    assert found == POOLED_MACRO_F1
    # Only these say under which rule they were computed.
    stated = {(row.system, row.corpus): row.rule for row in pooled if row.rule != "not stated"}
    assert stated == {
        ("XSleepNet2", "sedf-sc"): "trim30",
        ("SleePyCo", "sedf-sc"): "trim30",
        **{(system, corpus): "full" for system in ("SimpleSleepNet", "mean human") for corpus in ("dod-h", "dod-o")},
    }
    others = {(row.system, row.corpus): dict(row.values) for row in pooled if len(row.values) > 1}
    assert others == {
        ("TinyUStaging", "dcsm"): {"macro_f1": 0.804, "accuracy": 0.914, "kappa": 0.851},
        ("SimpleSleepNet", "dod-h"): {"macro_f1": 0.822, "accuracy": 0.873, "kappa": 0.815},
        ("mean human", "dod-h"): {"macro_f1": 0.784, "accuracy": 0.838, "kappa": 0.768},
        ("TinyUStaging", "all"): {
            "macro_f1": 0.7782, "accuracy": 0.8272, "kappa": 0.7639, "f1_W": 0.901, "f1_N1": 0.510, "f1_N2": 0.840,
            "f1_N3": 0.762, "f1_REM": 0.879,
        },
    }  # fmt: skip


def test_rows_are_of_the_corpus_and_say_where_their_rule_differs() -> None:
    remarks = {row.system: row.remark for row in published_rows("sedf-sc", False, "trim30")}
    assert remarks == {
        "U-Time": "rule not stated",
        "U-Sleep": "rule not stated",
        "XSleepNet2": "",
        "SleePyCo": "",
    }
    remarks = {row.system: row.remark for row in published_rows("sedf-sc", False, "full")}
    assert remarks["SleePyCo"] == "rule trim30, not full"


def test_simulated_boards_show_none() -> None:
    assert published_rows("dod-h", True, "full") == ()
    assert published_rows("dod-h-sim", False, "full") == ()


def test_means_over_recordings_stand_apart_from_pooled_figures() -> None:
    pooled = published_rows("dod-h", False, "full")
    weighted = published_rows("dod-h", False, "full", aggregation="recordings", protocol="dreem")
    assert all(set(row.values) <= {"macro_f1", "accuracy", "kappa"} for row in pooled)
    assert {row.system: row.values for row in weighted} == {
        "SimpleSleepNet": {"weighted_f1": 0.899},
        "mean human": {"weighted_f1": 0.868},
    }
    assert published_rows("dod-h", False, "full", aggregation="recordings") == ()


@pytest.mark.parametrize("how", [{"rule": "half"}, {"aggregation": "best"}, {"protocol": "mine"}])
def test_unknown_choices_are_refused(how: dict[str, str]) -> None:
    with pytest.raises(UserError, match="there are"):
        published_rows("dod-h", False, how.pop("rule", "full"), **how)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('system = "Net"\n', "", "row 1: no system"),
        ("system", "sistem", "row 1: no field 'sistem'; did you mean system?"),
        ('"Net"', '" "', "row 1: system is empty"),
        ('"Net"', "3", "row 1: system is no text"),
        ('"pooled"', '"mixed"', "row 1: aggregation 'mixed'; wanted pooled, recordings"),
        ('"full"', '"some"', "row 1: rule 'some'; wanted full, trim30, not stated"),
        ("0.5", "50.2", "row 1: macro_f1 is 50.2; wanted 0 to 1"),
        ("0.5", "nan", "row 1: macro_f1 is no number"),
        ("0.5", "true", "row 1: macro_f1 is no number"),
        ("macro_f1", "f2", "row 1: no metric 'f2'"),
        ("{ macro_f1 = 0.5 }", "{}", "row 1: values is no table of metrics"),
        ('source = "p"', 'source = "q"', "row 1: its source 'q' is not in"),
        ('"A paper."', '""', "wants a citation"),
        ("[sources]", "[source]", "'source' has no place here"),
        ("[[row]]", "[row]", "rows are written"),
        ("[[row]]", "[[row]", "not TOML"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "published.toml"
    path.write_text(GOOD)
    assert len(load_published(path)) == 1
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(DataError) as error:
        load_published(path)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_one_figure_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "published.toml"
    path.write_text(GOOD + GOOD[GOOD.index("[[row]]") :])
    with pytest.raises(DataError, match="row 2: macro_f1 of Net is in row 1 already"):
        load_published(path)
    with pytest.raises(DataError, match="cannot be read"):
        load_published(tmp_path / "nowhere.toml")
