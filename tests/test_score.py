"""Other people's hypnograms: held against the truth, stored with where they come from, shown by the command."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from score_world import (  # noqa: F401  (fixtures)
    NAMES,
    NIGHT,
    SPAN,
    entry,
    given_fixture,
    home_fixture,
    one_line,
    scored_fixture,
    store_fixture,
    truth_fixture,
)
from typer.testing import CliRunner

from tusp.cli.main import app
from tusp.dashboards.entries import entry_rows
from tusp.dashboards.scoring_outside import Outcome, score_outside
from tusp.datasets.outside_truth import subject_of
from tusp.platform.errors import DataError, UserError
from tusp.platform.store.check import check_store
from tusp.platform.store.entries import list_entries, read_kept, verify_entries
from tusp.platform.store.session import Store

# --- what is right scores 1, what is missing is missing ---


def test_perfect_hypnograms_score_one_and_are_stored_with_where_they_come_from(
    store: Store, home: Path, scored: Callable[..., Outcome]
) -> None:
    outcome = scored(author="A. Author", url="https://example.org/paper")
    row = entry(outcome)
    assert row.scores.overall["macro_f1"].value == 1
    assert row.scores.overall["kappa"].value == 1
    assert (row.recordings, row.people, row.epochs, row.coverage) == (3, 2, 27, "complete")
    (record,) = list_entries(store)
    assert record.kind == "imported" and not record.simulated and record.truth_kind == "hypnograms"
    assert record.provenance["author"] == "A. Author"
    assert record.provenance["url"] == "https://example.org/paper"
    assert record.provenance["formats"] == ["json"]
    assert re.fullmatch("[0-9a-f]{64}", record.provenance["sha256"])
    assert record.provenance["coverage"] == {"recordings": 3, "of_recordings": 3, "epochs": 27, "of_epochs": 27}
    nights = read_kept(home, record)
    assert [night.recording for night in nights] == sorted(NAMES)
    assert nights[0].true.tolist() == SPAN
    assert verify_entries(store, home) == []
    assert check_store(store).problems == ()


def test_two_nights_of_one_person_are_one_person() -> None:
    assert subject_of("SC4001E0") == subject_of("SC4002EC-Hypnogram") == subject_of("sc4001") == "SC400"
    assert subject_of("ST7011J0") == "ST701"
    assert subject_of("shhs1-200077") == subject_of("shhs2-200077-nsrr") == "200077"
    assert subject_of("SC40012E0") == "SC40012E0", "seven digits are no Sleep-EDF name"
    assert subject_of("5bf0f969") == "5bf0f969"


def test_a_hypnogram_as_long_as_the_whole_recording_starts_with_it(given: Path, scored: Callable[..., Outcome]) -> None:
    for name in NAMES:
        (given / f"{name}.json").write_text(json.dumps([max(0, code) for code in NIGHT]))
    assert entry(scored()).scores.overall["accuracy"].value == 1
    # The other end would score less: the night begins at epoch 2 of the grid.
    for name in NAMES:
        (given / f"{name}.json").write_text(json.dumps([max(0, code) for code in [*SPAN, 0, 0, 0, 0]]))
    assert entry(scored(name="shifted")).scores.overall["accuracy"].value < 0.6


@pytest.mark.parametrize("n", [9, 11, 13, 15])
def test_any_other_length_is_refused_with_both_lengths(
    n: int, store: Store, given: Path, scored: Callable[..., Outcome]
) -> None:
    (given / "SC4002E0.json").write_text(json.dumps([0] * n))
    with pytest.raises(DataError, match=f"SC4002E0: {n} epochs, but the labelled span has 10 and the whole.* 14") as e:
        scored()
    one_line(e)
    assert list_entries(store) == []


def test_unscored_epochs_of_a_prediction_are_neither_right_nor_wake(
    given: Path, scored: Callable[..., Outcome]
) -> None:
    codes = [max(0, code) for code in SPAN]
    codes[0] = -1
    (given / "SC4011E0.json").write_text(json.dumps(codes))
    with pytest.raises(DataError, match=r"covers 26 of 27 scored epochs: .*SC4011E0 \(1 of 9\); --allow-partial"):
        scored()
    row = entry(scored(allow_partial=True))
    assert row.epochs == 26
    assert row.scores.overall["accuracy"].value == 1
    assert row.coverage == "partial: 3 of 3 recordings, 96.2 % of the epochs"
    assert row.scored == dict.fromkeys(sorted(NAMES), 9)
    assert not row.complete
    assert row.judged.confusion.sum() == 26


def test_a_missing_recording_makes_it_partial(store: Store, given: Path, scored: Callable[..., Outcome]) -> None:
    (given / "SC4002E0.json").unlink()
    (given / "stranger.json").write_text("[0, 0]")
    (given / "readme.md").write_text("hello")
    with pytest.raises(DataError, match="covers 18 of 27 scored epochs: 1 recording is missing: SC4002E0") as error:
        scored()
    one_line(error)
    assert list_entries(store) == []
    outcome = scored(allow_partial=True)
    assert entry(outcome).coverage == "partial: 2 of 3 recordings, 66.6 % of the epochs"
    assert entry(outcome).judged.recordings == ("SC4001E0", "SC4011E0"), "nothing is drawn from a night that is missing"
    assert "of no recording: stranger" in outcome.notes
    assert "not read: readme.md" in outcome.notes
    (record,) = list_entries(store)
    assert record.provenance["missing"] == ["SC4002E0"]
    assert record.provenance["unmatched"] == ["stranger"]


def test_refused_files_of_a_partial_submission_are_kept_by_name(
    store: Store, given: Path, scored: Callable[..., Outcome]
) -> None:
    (given / "SC4002E0.json").write_text("[5, 5]")
    outcome = scored(allow_partial=True)
    assert entry(outcome).recordings == 2
    (record,) = list_entries(store)
    assert "'5' at epoch 0 is no stage code (-1 to 4)" in record.provenance["refused"]["SC4002E0"]


def test_rules_are_decided_by_the_truth(store: Store, home: Path, tmp_path: Path) -> None:
    night = [0] * 100 + [2] * 50 + [0] * 100
    for name, codes in (("truth", night), ("given", [2] * 250)):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "n1.json").write_text(json.dumps(codes))
    score_outside(store, home, "x", predictions=tmp_path / "given", name="net", truth=tmp_path / "truth", resamples=10)
    epochs = {rule: entry_rows(store, corpus="x", simulated=False, rule=rule)[0].epochs for rule in ("full", "trim30")}
    assert epochs == {"full": 250, "trim30": 170}


def test_the_order_and_the_presence_of_other_entries_change_no_digit(
    store: Store, given: Path, scored: Callable[..., Outcome]
) -> None:
    codes = json.loads((given / "SC4001E0.json").read_text())
    (given / "SC4001E0.json").write_text(json.dumps(codes[::-1]))
    first = entry(scored()).scores
    merged = given.with_name("all.json")
    merged.write_text(json.dumps({n.lower(): json.loads((given / f"{n}.json").read_text()) for n in reversed(NAMES)}))
    assert entry(scored(name="again", predictions=merged)).scores == first
    rows = entry_rows(store, corpus="sedf-sc", simulated=False, rule="full", resamples=50)
    assert [row.scores for row in rows] == [first, first]


# --- names ---


def test_a_name_that_exists_is_refused_unless_it_is_to_be_replaced(
    store: Store, home: Path, given: Path, scored: Callable[..., Outcome]
) -> None:
    scored()
    (old,) = list_entries(store)
    (given / "SC4001E0.json").write_text(json.dumps([0] * 10))
    with pytest.raises(UserError, match="'net' is on the board of sedf-sc already; choose another --name, or --repl"):
        scored()
    assert list_entries(store) == [old]
    assert read_kept(home, old)
    row = entry(scored(replace=True))
    assert row.scores.overall["accuracy"].value < 1
    (new,) = list_entries(store)
    assert new.id == old.id and new.sha256 != old.sha256
    assert not (home / old.path).exists()
    assert verify_entries(store, home) == []


def test_nothing_is_left_when_the_store_refuses(store: Store, home: Path, scored: Callable[..., Outcome]) -> None:
    with store.session() as session:
        session.connection().exec_driver_sql("DROP TABLE entry_counts")
    with pytest.raises(Exception, match="entry_counts"):
        scored()
    assert list_entries(store) == []
    assert not list((home / "entries").rglob("*.json"))


@pytest.mark.parametrize("name", [None, "", "   ", "x" * 129, "a\x07b"])
def test_a_name_has_to_be_one(name: str | None, scored: Callable[..., Outcome]) -> None:
    with pytest.raises(UserError, match="--name"):
        scored(name=name)


def test_real_and_simulated_never_meet(store: Store, scored: Callable[..., Outcome], truth: Path) -> None:
    scored(simulated=True)
    assert entry_rows(store, corpus="sedf-sc", simulated=False) == ()
    assert len(entry_rows(store, corpus="sedf-sc", simulated=True)) == 1
    with pytest.raises(UserError, match="'net' was judged on these same nights as simulated ones, not as real ones"):
        scored(name="other")
    (truth / "SC4001E0.json").write_text(json.dumps([0, *NIGHT[1:]]))
    assert list_entries(store)[0].simulated


def test_of_one_name_on_two_truths_the_one_that_fits_the_board_is_shown(
    store: Store, truth: Path, given: Path, scored: Callable[..., Outcome]
) -> None:
    scored()
    (truth / "SC4011E0.json").unlink()
    (given / "SC4011E0.json").unlink()
    scored()
    assert len(list_entries(store)) == 2
    shown = {"corpus": "sedf-sc", "simulated": False, "rule": "full", "resamples": 10}
    (newest,) = entry_rows(store, **shown)  # type: ignore[arg-type]
    assert newest.recordings == 2
    (fitting,) = entry_rows(store, **shown, recordings=dict.fromkeys(NAMES, 9))  # type: ignore[arg-type]
    assert fitting.recordings == 3


# --- tampering ---


def test_what_does_not_follow_from_the_kept_files_is_found(
    store: Store, home: Path, scored: Callable[..., Outcome]
) -> None:
    scored()
    (record,) = list_entries(store)
    database = home / "tusp.db"
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE entry_counts SET n_w_w = n_w_w + 1 WHERE recording = 'SC4001E0' AND rule = 'full'")
    assert verify_entries(store, home) == [
        "entry 'net' of sedf-sc (imported): counts under rule full do not follow from its hypnograms: SC4001E0"
    ]
    path = home / record.path
    path.write_text(path.read_text().replace("[0,0,1", "[0,1,1", 1))
    (problem,) = verify_entries(store, home)
    assert problem.endswith("has changed (its checksum differs)")
    path.unlink()
    (problem,) = verify_entries(store, home)
    assert problem.endswith("is gone")


# --- the command ---


def run(home: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["--home", str(home), "--db", f"sqlite:///{home / 'tusp.db'}", *arguments])


def test_the_command_prints_the_row_and_json(home: Path, truth: Path, given: Path) -> None:
    asked = ["score", "sedf-sc", "--truth", str(truth), "--predictions", str(given), "--name", "net", "--rule", "full"]
    shown = run(home, *asked)
    assert shown.exit_code == 0, shown.output
    assert "sedf-sc (real), rule full, pooled over epochs" in shown.output
    assert "net" in shown.output and "1.000" in shown.output and "100.0 %" in shown.output, shown.output
    printed = run(home, *asked, "--replace", "--json")
    found = json.loads(printed.stdout)
    assert found["entry"]["overall"]["macro_f1"]["value"] == 1
    assert found["entry"]["coverage"] == "complete"
    assert found["humans"] is None
    refused = run(home, *asked)
    assert isinstance(refused.exception, UserError)


def test_the_report_is_ready_with_what_was_scored(home: Path, truth: Path, given: Path) -> None:
    scored = run(home, "score", "sedf-sc", "--truth", str(truth), "--predictions", str(given), "--name", "net")
    assert scored.exit_code == 0, scored.output
    kept = sorted((home / "kept" / "reports").iterdir())
    shown = run(home, "report", "--all", "--json")
    assert shown.exit_code == 0, shown.output
    assert [row["name"] for board in json.loads(shown.stdout)["boards"] for row in board["rows"]] == ["net"]
    assert sorted((home / "kept" / "reports").iterdir()) == kept, "found, not made"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to judge"),
        (["--humans", "--name", "x"], "--humans judges the scorers only"),
        (["--predictions", "x"], "--predictions needs a --name"),
        (["--humans", "--protocol", "best"], "no protocol 'best'"),
    ],
)
def test_requests_that_make_no_sense_are_refused(home: Path, arguments: list[str], said: str) -> None:
    refused = run(home, "score", "x", "--truth", str(home), *arguments)
    assert isinstance(refused.exception, UserError)
    assert said in str(refused.exception)
