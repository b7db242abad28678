"""`tusp validate`: what was tampered with is found, and said in one clear line; what holds is left in peace."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judged_home import CORPUS, Home, judged_home, stages_of
from sqlalchemy import update
from typer.testing import CliRunner

from tusp.cli.main import app
from tusp.dashboards.validate import Validation, validate
from tusp.jobs.plan import CorpusNights, hold_out_hash
from tusp.platform.errors import StoreError, UserError
from tusp.platform.identity import fingerprint
from tusp.platform.store.entries import EntryNight, NewEntry, add_entries, truth_hash
from tusp.platform.store.models import (
    Artefact,
    Cell,
    Corpus,
    Count,
    Curve,
    Entry,
    EntryCount,
    PackedCount,
    Recording,
    Submission,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that holds, made once."""
    folder = tmp_path_factory.mktemp("made")
    judged_home(folder).store.close()
    return folder


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Home:
    """A copy of it to tamper with."""
    from tusp.platform.settings import load_settings
    from tusp.platform.store.queries import submission_cells
    from tusp.platform.store.session import open_store

    folder = tmp_path / "home"
    shutil.copytree(made, folder)
    settings = load_settings(home=folder, db=f"sqlite:///{folder / 'tusp.db'}", environment={})
    store = open_store(settings.db)
    return Home(settings, store, {(cell.arm, cell.fold): cell.id for cell in submission_cells(store, "first")})


def found(home: Home, **how: Any) -> Validation:
    return validate(home.store, home.settings, **how)


def only_line(home: Home, **how: Any) -> str:
    """The one problem there is; the command ends with status 2."""
    result = found(home, **how)
    assert len(result.problems) == 1, result.problems
    assert "\n" not in result.problems[0]
    assert result.status == 2
    return result.problems[0]


def test_results_that_were_left_alone_hold(home: Home) -> None:
    result = found(home, deep=True)
    assert result.problems == result.not_done == result.not_checked == ()
    assert (result.cells, result.predictions, result.nights, result.status) == (4, 12, 6, 0)


def test_a_split_drawn_with_another_seed_holds(tmp_path: Path) -> None:
    assert found(judged_home(tmp_path, split_seed=7)).problems == ()


def test_a_tampered_artefact(home: Home) -> None:
    kept = home.prediction()
    path = home.folder / kept.path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    cell = home.cells["full", 0][:12]
    assert only_line(home) == f"cell {cell}: {kept.path}: was changed after it was written (its checksum differs)"


def test_an_artefact_cut_short_and_one_that_is_gone(home: Home) -> None:
    kept = home.prediction()
    path = home.folder / kept.path
    path.write_bytes(path.read_bytes()[:-10])
    assert only_line(home).endswith(f"has {kept.size_bytes - 10} bytes instead of {kept.size_bytes}")
    path.unlink()
    assert only_line(home).endswith(f"{kept.path}: is gone")


def test_a_file_that_is_no_prediction(home: Home) -> None:
    kept = home.prediction()
    (home.folder / kept.path).write_bytes(b"nothing of the kind")
    home.believe(kept)
    assert "not a readable prediction" in only_line(home)


def test_a_leaked_subject(tmp_path: Path) -> None:
    def leak(plan: dict[str, Any]) -> None:
        entry = plan["corpora"][0]
        if entry["fold"] == 0:
            name = sorted(entry["test"])[0]
            entry["train"][name] = entry["test"][name]

    home = judged_home(tmp_path, change_plan=leak)
    line = only_line(home)
    cells = {home.cells["full", 0][:12], home.cells["no-csja", 0][:12]}
    assert set(line.partition(":")[0].removeprefix("cells ").split(", ")) == cells
    name = line.partition("person P")[2][0]
    assert line.endswith(f"person P{name} of toy leaks: is in train (R{name}) and in test (R{name})")


def test_a_second_night_of_a_tested_person_leaks_too(home: Home) -> None:
    with home.store.session() as session:  # R1 turns out to be a night of P0
        session.execute(update(Recording).where(Recording.name == "R1").values(subject="P0"))
    lines = found(home).problems
    assert any("person P0 of toy leaks: is in" in line for line in lines)


def test_people_divided_otherwise_than_the_split_says(tmp_path: Path) -> None:
    def swap(plan: dict[str, Any]) -> None:
        entry = plan["corpora"][0]
        validated, trained = sorted(entry["validation"])[0], sorted(entry["train"])[0]
        entry["train"][validated] = entry["validation"].pop(validated)
        entry["validation"][trained] = entry["train"].pop(trained)

    lines = found(judged_home(tmp_path, change_plan=swap)).problems
    assert [line.partition(": ")[2] for line in lines] == [
        f"fold {fold} of toy is divided otherwise than its split says: train, validation" for fold in (0, 1)
    ]


def test_a_split_whose_hash_is_another(tmp_path: Path) -> None:
    def forge(plan: dict[str, Any]) -> None:
        plan["corpora"][0]["split"] = "0" * 64

    lines = found(judged_home(tmp_path, change_plan=forge)).problems
    assert any("the split of toy made again (kfold, 2 folds) has hash" in line for line in lines)


def test_hold_out_corpora_are_hashed_as_the_plan_does(home: Home) -> None:
    from tusp.dashboards.plan_checks import Nights, check_entry
    from tusp.datasets.prepared import open_prepared

    nights = [open_prepared(path.parent) for path in sorted((home.settings.prepared / CORPUS).glob("*/meta.json"))]
    corpus = CorpusNights(name=CORPUS, simulated=True, recordings=nights)
    entry = {
        "name": CORPUS, "simulated": True, "protocol": "hold-out", "split": hold_out_hash(corpus), "fold": 0,
        "folds": 1, "train": {}, "validation": {}, "test": {night.name: night.fingerprint for night in nights},
    }  # fmt: skip
    known = Nights(store=home.store, prepared_root=home.settings.prepared, deep=False)
    assert check_entry(entry, known, split_seeds=[0]) == []
    entry["split"] = "0" * 64
    assert "hash" in check_entry(entry, known, split_seeds=[0])[0]


def test_a_prediction_of_the_wrong_length(home: Home) -> None:
    kept = home.prediction()

    def cut(arrays: dict[str, Any]) -> None:
        arrays.update({name: array[:-1] for name, array in arrays.items()})

    home.forge(kept, cut)
    assert only_line(home).endswith(f"{kept.path}: has 79 epochs where the prepared night has 80")


@pytest.mark.parametrize(
    ("array", "code", "said"),
    [("predicted", 5, "predicted stage 5 at epoch 9 (1 epochs) is outside the codes 0 to 4"),
     ("predicted", -1, "predicted stage -1 at epoch 9 (1 epochs) is outside the codes 0 to 4"),
     ("true", 9, "true stage 9 at epoch 9 (1 epochs) is outside the codes -1 to 4")],
)  # fmt: skip
def test_codes_outside_the_set(home: Home, array: str, code: int, said: str) -> None:
    kept = home.prediction()
    home.forge(kept, lambda arrays: arrays[array].__setitem__(9, code))
    assert only_line(home).endswith(f"{kept.path}: {said}")


def test_true_stages_that_are_not_the_experts(home: Home) -> None:
    kept = home.prediction()

    def flatter(arrays: dict[str, Any]) -> None:
        arrays["true"] = np.where(arrays["true"] >= 0, arrays["predicted"], -1).astype(np.int8)

    home.forge(kept, flatter)
    assert "its true stages differ from the prepared night's in" in only_line(home)


def test_better_predictions_than_were_counted(home: Home) -> None:
    kept = home.prediction()

    def improve(arrays: dict[str, Any]) -> None:
        arrays["predicted"] = np.maximum(arrays["true"], 0)
        arrays["probabilities"][:] = np.eye(5, dtype=np.float32)[arrays["predicted"]]

    home.forge(kept, improve)
    assert only_line(home).endswith("the counts in the store under full and trim30 are not those of this prediction")


def test_stages_that_are_not_the_most_probable(home: Home) -> None:
    home.forge(home.prediction(), lambda arrays: arrays["predicted"].__setitem__(3, (arrays["predicted"][3] + 1) % 5))
    assert only_line(home).endswith("its predicted stages are not the most probable ones")


def test_probabilities_that_are_none(home: Home) -> None:
    home.forge(home.prediction(), lambda arrays: arrays["probabilities"].__imul__(2))
    assert only_line(home).endswith("holds probabilities that do not sum to 1")


def test_counts_changed_in_the_store(home: Home) -> None:
    name = str(home.prediction().recording).partition("/")[2]
    with home.store.session() as session:
        session.execute(
            update(Count)
            .where(Count.cell_id == home.cells["full", 0], Count.recording == name, Count.rule == "trim30")
            .values(n_w_w=Count.n_w_w + 5)
        )
    assert only_line(home).endswith("the counts in the store under trim30 are not those of this prediction")


def test_packed_counts_changed_in_the_store(home: Home) -> None:
    cell = home.cells["full", 0]
    with home.store.session() as session:
        row = session.get(PackedCount, (cell, CORPUS, "trim30", "vote"))
        assert row is not None
        row.matrices = bytes([row.matrices[0] ^ 1]) + row.matrices[1:]
    assert only_line(home) == f"cell {cell[:12]}: its packed counts of toy under rule trim30 are not its counts"
    with home.store.session() as session:
        session.delete(session.get(PackedCount, (cell, CORPUS, "trim30", "vote")))
    assert only_line(home) == f"cell {cell[:12]}: its counts of toy under rule trim30 are not packed"


def test_settings_beside_the_plan_that_are_not_its_own(home: Home) -> None:
    cell = home.cells["full", 0]
    with home.store.session() as session:
        session.execute(update(Cell).where(Cell.id == cell).values(settings="0" * 64))
    assert only_line(home) == f"cell {cell[:12]}: what stands beside its plan does not follow from it"


def test_a_count_that_is_missing(home: Home) -> None:
    name = str(home.prediction().recording).partition("/")[2]
    with home.store.session() as session:
        row = session.get(Count, (home.cells["full", 0], CORPUS, name, "full", "vote"))
        session.delete(row)
    assert only_line(home).endswith(f": no counts under full of toy/{name}")


def test_counts_of_another_person(home: Home) -> None:
    name = str(home.prediction().recording).partition("/")[2]
    with home.store.session() as session:
        session.execute(
            update(Count).where(Count.cell_id == home.cells["full", 0], Count.recording == name).values(subject="P77")
        )
    assert "is of several people: P" in only_line(home)


@pytest.mark.parametrize("other", [1, 2, 3, 4, 5])
def test_the_same_night_under_two_names(tmp_path: Path, other: int) -> None:
    line = only_line(judged_home(tmp_path, copies={other: 0}))
    assert line.endswith(
        f": toy/R0 and toy/R{other} are one night under two names (its signals are the same bytes as those of the "
        "other), and one is tested where the other is used"
    )


def test_a_person_of_two_corpora_is_known_by_the_words_of_the_audit() -> None:
    from tusp.dashboards import plan_checks
    from tusp.datasets import duplicates

    assert plan_checks.SAME_PERSON == duplicates._PERSON


def test_an_id_that_is_not_the_hash_of_its_plan(home: Home) -> None:
    with home.store.session() as session:
        cell = session.get(Cell, home.cells["full", 0])
        assert cell is not None
        cell.plan = {**cell.plan, "seed": 5}
    assert only_line(home).endswith("its id is not the hash of its plan: one of them was changed")


def test_a_row_that_says_other_than_its_plan(home: Home) -> None:
    with home.store.session() as session:
        session.execute(update(Cell).where(Cell.id == home.cells["full", 1]).values(seed=3))
    assert only_line(home).endswith("its seed is 3 in the store, but 0 in its plan")


@pytest.mark.parametrize("table", [Corpus, Submission])
def test_simulated_nights_passed_off_as_real(home: Home, table: type[Corpus] | type[Submission]) -> None:
    with home.store.session() as session:
        session.execute(update(table).values(simulated=False))
    said = "corpus toy" if table is Corpus else "submission first"
    line = only_line(home)
    assert line.startswith("cells ")
    assert line.endswith(f"its nights are simulated says the cell, {'submission first, ' if table is Corpus else ''}"
                         f"the plan of toy{'' if table is Corpus else ', corpus toy'}; real says {said}")  # fmt: skip


def test_a_curve_that_is_not_that_of_the_history(home: Home) -> None:
    with home.store.session() as session:
        session.execute(
            update(Curve)
            .where(Curve.cell_id == home.cells["full", 0], Curve.pass_number == 2)
            .values(validation_macro_f1=0.99)
        )
    assert only_line(home).endswith("history.json: its passes are not those of the curve in the store")


def test_training_stages_that_were_not_those(home: Home) -> None:
    with home.store.session() as session:
        cell = session.get(Cell, home.cells["full", 0])
        assert cell is not None and cell.result is not None
        cell.result = {**cell.result, "train_stage_counts": [9, 0, 0, 0, 0]}
    assert "it says it was trained on [9, 0, 0, 0, 0] epochs of W, N1, N2, N3, REM" in only_line(home)


def test_prepared_stages_that_were_changed(home: Home) -> None:
    path = next(iter((home.settings.prepared / CORPUS).glob("*/stages.npy")))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "stages.npy was changed after it was written" in only_line(home)


def test_prepared_signals_are_hashed_with_deep_only(home: Home) -> None:
    path = next(iter((home.settings.prepared / CORPUS).glob("*/signals.npy")))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert found(home).problems == ()
    assert "signals.npy: was changed after it was written" in only_line(home, deep=True)


def test_nights_that_are_not_prepared_any_more_are_said_and_no_problem(home: Home) -> None:
    shutil.rmtree(home.settings.prepared)
    result = found(home)
    assert result.problems == ()
    assert result.status == 0
    assert result.not_checked == (
        "true stages of 6 nights could not be compared, since these are not prepared any more: "
        "toy/R0, toy/R1, toy/R2, toy/R3, toy/R4 and 1 more",
    )


def test_people_known_to_nobody(home: Home) -> None:
    shutil.rmtree(home.settings.prepared)
    with home.store.session() as session:
        session.delete(session.get(Corpus, CORPUS))
    lines = found(home).problems
    assert lines
    assert all("neither registered nor prepared, so the split cannot be made again" in line for line in lines)


def test_cells_that_are_not_done_are_named_with_status_1(home: Home) -> None:
    cell = home.cells["no-csja", 1]
    with home.store.session() as session:
        session.execute(
            update(Cell).where(Cell.id == cell).values(state="failed", error="out of memory", result=None, done_at=None)
        )
        session.query(Artefact).filter(Artefact.cell_id == cell).delete()
    result = found(home)
    assert result.problems == ()
    assert result.not_done == (f"cell {cell[:12]} (toy, no-csja, fold 1, seed 0): failed (out of memory)",)
    assert result.status == 1


def imported(home: Home) -> Path:
    """Somebody else's hypnograms of two nights of the corpus; returns their kept file."""
    nights = [EntryNight(recording=f"R{n}", subject=f"P{n}", true=stages_of(n), predicted=stages_of(n)) for n in (0, 1)]
    truth = truth_hash({night.recording: night.true for night in nights})
    entry = NewEntry(
        corpus=CORPUS, truth_hash=truth, truth_kind="corpus", kind="imported", name="theirs", simulated=True,
        provenance={}, protocols={}, nights=nights,
    )  # fmt: skip
    add_entries(home.store, home.folder, [entry])
    return next((home.folder / "entries").rglob("*.json"))


def test_imported_hypnograms_that_were_changed(home: Home) -> None:
    kept = imported(home)
    assert found(home).problems == ()
    assert found(home).entries == 1
    kept.write_bytes(kept.read_bytes().replace(b"2", b"3", 1))
    line = only_line(home)
    assert line.startswith("entry 'theirs' of toy (imported): ")
    assert line.endswith("has changed (its checksum differs)")


def test_imported_counts_that_were_changed(home: Home) -> None:
    imported(home)
    with home.store.session() as session:
        wanted = (EntryCount.recording == "R1", EntryCount.rule == "full")
        session.execute(update(EntryCount).where(*wanted).values(n_w_w=EntryCount.n_w_w + 1))
    assert only_line(home).endswith("counts under rule full do not follow from its hypnograms: R1")


def test_imported_on_simulated_nights_passed_off_as_real(home: Home) -> None:
    imported(home)
    with home.store.session() as session:
        session.execute(update(Entry).values(simulated=False))
    assert only_line(home) == (
        "entry 'theirs' of toy (imported): says its nights are real, the corpus is registered as simulated"
    )


def test_which_submission(home: Home) -> None:
    assert found(home, submission="fi").submissions == found(home, everything=True).submissions == ("first",)
    with pytest.raises(StoreError, match="no submission 'other'"):
        found(home, submission="other")
    with pytest.raises(UserError, match="exclude each other"):
        found(home, submission="first", everything=True)


def test_nothing_to_validate(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["--home", str(tmp_path), "validate"])
    assert shown.exit_code != 0
    assert "nothing was submitted or imported yet" in str(shown.exception)


def test_the_command_line(home: Home) -> None:
    arguments = ["--home", str(home.folder), "--db", home.settings.db, "validate"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0
    assert shown.stdout == "4 done cells, 12 predictions, 6 prepared nights, 0 entries: all holds\n"
    kept = home.prediction()
    (home.folder / kept.path).unlink()
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 2
    assert shown.stderr == f"cell {home.cells['full', 0][:12]}: {kept.path}: is gone\n"
    assert shown.stdout.endswith("1 thing does not hold\n")
    shown = CliRunner().invoke(app, [*arguments, "--json"])
    assert shown.exit_code == 2
    document = json.loads(shown.stdout)
    assert document["ok"] is False
    assert len(document["problems"]) == 1


def test_ids_are_made_of_plans_here_as_they_are_there(home: Home) -> None:
    with home.store.reading() as session:
        assert all(fingerprint(cell.plan) == cell.id for cell in session.query(Cell))
