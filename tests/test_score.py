"""Other people's hypnograms: read in any usual format, held against the truth, refused in one clear line."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import sqlite3
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import edfio
import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from tusp.cli.main import app
from tusp.dashboards.entries import EntryRow, entry_rows
from tusp.dashboards.scoring_outside import Outcome, score_outside
from tusp.datasets import hypnogram_files
from tusp.datasets.hypnogram_files import match_recordings, read_hypnogram, read_submission
from tusp.datasets.outside_truth import subject_of
from tusp.platform.errors import DataError, UserError
from tusp.platform.store.check import check_store
from tusp.platform.store.entries import list_entries, read_kept, verify_entries
from tusp.platform.store.session import Store, open_store

# Unscored before and after: the labelled span is epochs 2 to 12 of 14.
NIGHT = [-1, -1, 0, 0, 1, 2, 2, 3, 3, 4, -1, 0, -1, -1]
SPAN = NIGHT[2:12]
NAMES = ("SC4001E0", "SC4002E0", "SC4011E0")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"sqlite:///{tmp_path / 'home' / 'tusp.db'}")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    folder = tmp_path / "truth"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.json").write_text(json.dumps(NIGHT))
    return folder


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A submission that is right everywhere, as long as the labelled span."""
    folder = tmp_path / "given"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.json").write_text(json.dumps([max(0, code) for code in SPAN]))
    return folder


@pytest.fixture
def scored(store: Store, home: Path, truth: Path, given: Path) -> Callable[..., Outcome]:
    def score(**how: Any) -> Outcome:
        options: dict[str, Any] = {
            "predictions": given,
            "name": "net",
            "truth": truth,
            "rule": "full",
            "resamples": 50,
            **how,
        }
        return score_outside(store, home, options.pop("corpus", "sedf-sc"), **options)

    return score


def entry(outcome: Outcome) -> EntryRow:
    assert outcome.entry is not None
    return outcome.entry


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    message = str(error.value)
    assert message and "\n" not in message and len(message) <= 1200
    return message


def probabilities(codes: list[int]) -> np.ndarray:
    return np.eye(5)[codes] * 0.6 + 0.08


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
    with pytest.raises(DataError, match="covers 18 of 27 scored epochs: 1 recordings are missing: SC4002E0") as error:
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


# --- formats ---


def write_npy(path: Path, array: np.ndarray) -> None:
    np.save(path, array, allow_pickle=True)


def write_edf(path: Path, codes: list[int]) -> None:
    labels = {-1: "Sleep stage ?", 0: "Sleep stage W", 1: "Sleep stage 1", 2: "Sleep stage 2", 3: "Sleep stage 4"}
    labels[4] = "Sleep stage R"
    notes = [edfio.EdfAnnotation(30.0 * i, 30.0, labels[code]) for i, code in enumerate(codes)]
    notes.append(edfio.EdfAnnotation(7.5, 1.0, "arousal"))
    edfio.Edf([], annotations=notes).write(path)


TEXTS = {-1: "?", 0: "W", 1: "N1", 2: "N2", 3: "N3", 4: "R"}
CODES = [max(0, code) for code in SPAN]
GRID = [max(0, code) for code in NIGHT]
FORMATS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "json": (".json", lambda p: p.write_text(json.dumps(CODES))),
    "json with labels": (".json", lambda p: p.write_text(json.dumps([TEXTS[c] for c in CODES]))),
    "json with probabilities": (".json", lambda p: p.write_text(json.dumps(probabilities(CODES).tolist()))),
    "a code a line": (".txt", lambda p: p.write_text("\n".join(map(str, CODES)) + "\n")),
    "a stage a line": (".csv", lambda p: p.write_text("stage\n" + "\n".join(TEXTS[c] for c in CODES))),
    "table": (
        ".csv",
        lambda p: p.write_text("onset,duration,stage\n" + "".join(f"{30 * i},30,{c}\n" for i, c in enumerate(GRID))),
    ),
    "table without header": (
        ".ids",
        lambda p: p.write_text("".join(f"{30 * i},30,{TEXTS[c]}\n" for i, c in enumerate(GRID))),
    ),
    "table to the last labelled epoch": (
        ".tsv",
        lambda p: p.write_text(
            "onset_seconds\tduration_seconds\tstage\n"
            + "".join(f"{30 * i}\t30\t{TEXTS[c]}\n" for i, c in enumerate(GRID[:12]))
        ),
    ),
    "npy": (".npy", lambda p: write_npy(p, np.array(CODES, np.uint8))),
    "npy column": ("_PRED.npy", lambda p: write_npy(p, np.array(CODES, np.int64)[:, None])),
    "npy probabilities": (".npy", lambda p: write_npy(p, np.asfortranarray(probabilities(CODES)))),
    "half precision": (".npy", lambda p: write_npy(p, probabilities(CODES).astype(np.float16))),
    "npz": (".npz", lambda p: np.savez(p, np.array(CODES))),
    "npz probabilities": (".npz", lambda p: np.savez_compressed(p, probabilities=probabilities(CODES), t=np.ones(3))),
    "edf": (".edf", lambda p: write_edf(p, [*GRID, -1, -1, -1])),
    "safetensors": (
        ".safetensors",
        lambda p: save_file(
            {"predicted": np.array(CODES, np.int8), "probabilities": probabilities(CODES).astype(np.float32)}, p
        ),
    ),
    "first epoch stated": (
        ".safetensors",
        lambda p: save_file({"predicted": np.array(CODES[:-1], np.int8)}, p, metadata={"first_epoch": "2"}),
    ),
}


@pytest.mark.parametrize("how", FORMATS)
def test_every_format_gives_the_same_stages(
    how: str, store: Store, given: Path, scored: Callable[..., Outcome]
) -> None:
    suffix, write = FORMATS[how]
    for name in NAMES:
        (given / f"{name}.json").unlink()
        write(given / f"{name}{suffix}")
    partial = how == "first epoch stated"
    row = entry(scored(allow_partial=partial))
    assert row.scores.overall["accuracy"].value == 1
    assert row.complete != partial


def test_original_sleep_edf_hypnograms_are_a_truth(
    shared_data: Path, tmp_path: Path, scored: Callable[..., Outcome]
) -> None:
    """20 real EDF+ files that run on for a whole day; submissions are called as the signals are."""
    edf = shared_data / "sleep-edf" / "hypnograms-edf"
    folder = tmp_path / "spans"
    folder.mkdir()
    for path in edf.glob("*.edf"):
        stages = read_hypnogram(path).stages
        labelled = np.flatnonzero(stages != -1)
        np.save(folder / f"{path.name[:6]}E0.npy", np.maximum(stages[labelled[0] : labelled[-1] + 1], 0))
    row = entry(scored(truth=edf, predictions=folder))
    assert (row.recordings, row.people, row.coverage) == (20, 10, "complete")
    assert row.scores.overall["accuracy"].value == 1
    assert entry(scored(truth=edf, predictions=edf, name="itself")).scores == row.scores


def test_a_text_list_is_read_as_the_bytes_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf0\r\n1\r\n-1\r\n")
    assert read_hypnogram(path).stages.tolist() == [0, 1, -1]


def test_a_model_of_a_json_file_has_to_be_named(given: Path, tmp_path: Path, scored: Callable[..., Outcome]) -> None:
    nights = dict.fromkeys(NAMES, CODES)
    models = tmp_path / "models.json"
    models.write_text(json.dumps({"a": nights, "b": dict.fromkeys(NAMES, [0] * 10)}))
    with pytest.raises(UserError, match="holds 2 models; name one with --model: a, b"):
        scored(predictions=models)
    with pytest.raises(UserError, match="holds no model 'c'; it has a, b"):
        scored(predictions=models, model="c")
    assert entry(scored(predictions=models, model="a")).scores.overall["accuracy"].value == 1
    models.write_text(json.dumps({"a": nights}))
    assert entry(scored(predictions=models, name="only")).complete
    models.write_text(json.dumps(nights))
    with pytest.raises(UserError, match="has recordings at its top"):
        scored(predictions=models, model="a", name="top")
    with pytest.raises(UserError, match="a folder"):
        scored(predictions=given, model="a", name="folder")


# --- matching ---


def test_recordings_are_matched_by_name_without_case_and_by_their_only_beginning() -> None:
    recordings = ["SC4001E0", "SC4002E0", "tr03-1", "tr03-10", "shhs1-1"]
    found = match_recordings(["sc4001e0-PSG", "SC4002", "TR03-1", "tr03-10.hyp", "shhs1", "x"], recordings)
    assert found.found == {
        "SC4001E0": "sc4001e0-PSG",
        "SC4002E0": "SC4002",
        "tr03-1": "TR03-1",
        "tr03-10": "tr03-10.hyp",
        "shhs1-1": "shhs1",
    }
    assert found.unmatched == ("x",) and found.missing == ()
    assert match_recordings(["SC400"], recordings).unmatched == ("SC400",), "two recordings begin so"
    assert match_recordings(["SC4001EC-Hypnogram"], recordings).found == {"SC4001E0": "SC4001EC-Hypnogram"}
    assert match_recordings(["tr03-100"], ["tr03-10"]).unmatched == ("tr03-100",), "inside a number"


def test_two_files_of_one_recording_are_refused(given: Path, scored: Callable[..., Outcome]) -> None:
    np.save(given / "SC4001E0.npy", np.array(CODES))
    with pytest.raises(DataError, match=r"SC4001E0.json and SC4001E0.npy are both of recording SC4001E0"):
        scored(allow_partial=True)
    (given / "SC4001E0.npy").rename(given / "sc4001e0-psg.npy")
    with pytest.raises(DataError, match="are both of recording SC4001E0; leave one of them"):
        scored(allow_partial=True)


def test_one_recording_twice_in_a_json_file_is_refused(tmp_path: Path, scored: Callable[..., Outcome]) -> None:
    path = tmp_path / "all.json"
    path.write_text('{"SC4001E0": [0], "SC4002E0": [0], "SC4001E0": [1]}')
    with pytest.raises(DataError, match="'SC4001E0' stands in it twice"):
        scored(predictions=path)


def test_the_truth_that_lies_beside_predictions_is_not_taken_for_one(
    given: Path, scored: Callable[..., Outcome]
) -> None:
    np.save(given / "SC4001E0_TRUE.npy", np.array(CODES))
    outcome = scored()
    assert "not read: SC4001E0_TRUE.npy" in outcome.notes
    assert entry(outcome).complete


# --- hostile input ---


def pickled(path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {path}.exploded",)

    np.save(path, np.array([Bomb(), 1], dtype=object), allow_pickle=True)


def pickled_in_npz(path: Path) -> None:
    pickled(path.with_suffix(".npy"))
    raw = path.with_suffix(".npy").read_bytes()
    path.with_suffix(".npy").unlink()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", raw)


def header_of(shape: str, descr: str = "'|i1'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("arr_0.npy", "w") as stream:
        for _ in range(65):
            stream.write(bytes(2**20))


def broken_zip(path: Path) -> None:
    np.savez_compressed(path, np.zeros(5000, np.int64))
    raw = bytearray(path.read_bytes())
    middle = len(raw) // 3
    raw[middle : middle + 8] = b"\xff" * 8
    path.write_bytes(raw)


HOSTILE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "code 5": (".json", lambda p: p.write_text("[0, 5]"), r"'5' at epoch 1 is no stage code \(-1 to 4\)"),
    "code -2": (".npy", lambda p: np.save(p, np.array([0, -2])), "-2 at epoch 1 is no stage code"),
    "half a stage": (".npy", lambda p: np.save(p, np.array([0.5])), "0.5 at epoch 0 is no stage code"),
    "true": (".json", lambda p: p.write_text("[true]"), "'True' at epoch 0 is no stage code"),
    "a label": (".txt", lambda p: p.write_text("W\nS2\n"), "'S2' at epoch 1 is no stage code"),
    "an empty line": (".txt", lambda p: p.write_text("W\n\nW\n"), "'' at epoch 1 is no stage code"),
    "nan": (
        ".npy",
        lambda p: np.save(p, np.where(np.eye(5) > 0, np.nan, 0.2)),
        "a probability of epoch 0 is not a number",
    ),
    "nan in json": (".json", lambda p: p.write_text("[[NaN,0,0,0,1]]"), "a probability of epoch 0 is not a number"),
    "huge number": (".json", lambda p: p.write_text(f"[[1{'0' * 400},0,0,0,1]]"), "too large to be a number"),
    "logits": (".npy", lambda p: np.save(p, np.full((3, 5), 2.0)), "of epoch 0 add up to 10, not to 1"),
    "negative": (
        ".npy",
        lambda p: np.save(p, np.array([[-0.5, 1.5, 0, 0, 0]])),
        "of epoch 0 add up to 1 and one is negative",
    ),
    "four stages": (".npy", lambda p: np.save(p, np.full((3, 4), 0.25)), r"has shape \[3, 4\]"),
    "no epoch": (".npy", lambda p: np.save(p, np.zeros(0, int)), "holds no epoch"),
    "objects": (".npy", pickled, "holds Python objects, which are never unpickled"),
    "objects in npz": (".npz", pickled_in_npz, "holds Python objects, which are never unpickled"),
    "a pickle": (".npy", lambda p: p.write_bytes(pickle.dumps([1, 2])), "not a NumPy array"),
    "texts": (".npy", lambda p: np.save(p, np.array(["W"])), "wanted whole numbers"),
    "a lie": (".npy", lambda p: p.write_bytes(header_of("(10000000000000,)") + b"\0"), "and holds 1 bytes"),
    "below zero": (".npy", lambda p: p.write_bytes(header_of("(-1,)")), "states shape|not a NumPy array"),
    "not a header": (".npy", lambda p: p.write_bytes(header_of("__import__('os')")), "not a NumPy array"),
    "records": (
        ".npy",
        lambda p: np.save(p, np.zeros(3, dtype=[("a", "i4"), ("b", "f8")])),
        "wanted whole numbers",
    ),
    "zip bomb": (".npz", bomb, "its array 'arr_0' is 65 MiB unpacked"),
    "broken zip": (".npz", broken_zip, "not a readable .npz file"),
    "no zip": (".npz", lambda p: p.write_bytes(b"PK"), "not a readable .npz file"),
    "empty zip": (".npz", lambda p: np.savez(p), "which array is the hypnogram. It holds nothing"),
    "which": (".npz", lambda p: np.savez(p, a=np.zeros(3), b=np.zeros(3)), "It holds a, b; save one, or call it arr_0"),
    "not utf-8": (".csv", lambda p: p.write_bytes(b"W\n\xff\xfe\n"), "not a text file in UTF-8"),
    "not json": (".json", lambda p: p.write_bytes(b"\xff["), "not JSON"),
    "deep json": (".json", lambda p: p.write_text("[" * 200_000), "not JSON|not a list"),
    "an object": (".json", lambda p: p.write_text('{"a": [0]}'), "a JSON object; one recording's hypnogram is a list"),
    "empty": (".edf", lambda p: p.write_bytes(b""), "is empty"),
    "no edf": (".edf", lambda p: p.write_bytes(b"0" * 300), "EDF"),
    "no stages": (
        ".edf",
        lambda p: edfio.Edf([], annotations=[edfio.EdfAnnotation(0, 30, "apnea")]).write(p),
        "holds no sleep stages",
    ),
    "off the grid": (".csv", lambda p: p.write_text("0,30,W\n45,30,N1\n"), "'N1' from 45 to 75 s lies off the grid"),
    "overlap": (".csv", lambda p: p.write_text("0,60,W\n30,30,N1\n"), "'N1' at 30 s overlaps the one before"),
    "before": (".csv", lambda p: p.write_text("-30,60,W\n30,30,N1\n"), "'W' begins at -30 s, before second 0"),
    "beyond": (".csv", lambda p: p.write_text("0,30,W\n1e12,30,N1\n"), "longer than any night"),
    "no columns": (".csv", lambda p: p.write_text("a,b\n1,2\n"), "does not name the columns"),
    "torn": (".safetensors", lambda p: p.write_bytes(b"\xff" * 64), "not a readable prediction"),
    "else": (
        ".safetensors",
        lambda p: save_file({"weight": np.zeros(3, np.float32)}, p),
        "holds no 'predicted' and no 'probabilities'",
    ),
    "placed nowhere": (
        ".safetensors",
        lambda p: save_file({"predicted": np.zeros(3, np.int8)}, p, metadata={"first_epoch": "-3"}),
        "its first_epoch is '-3'; wanted a whole number",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_are_refused_in_one_line(
    what: str, store: Store, given: Path, scored: Callable[..., Outcome]
) -> None:
    suffix, write, said = HOSTILE[what]
    (given / "SC4001E0.json").unlink()
    path = given / f"SC4001E0{suffix}"
    write(path)
    with pytest.raises(DataError, match=said) as error:
        read_hypnogram(path)
    assert str(path) in one_line(error)
    with pytest.raises(DataError, match=said) as error:
        scored()
    one_line(error)
    assert list_entries(store) == []
    assert not list(given.glob("*.exploded"))


def test_a_file_that_is_too_large_is_not_read(given: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = given / "SC4001E0.json"
    with path.open("wb") as stream:
        stream.truncate(hypnogram_files.MOST_BYTES + 1)  # a hole: no disk is used
    with pytest.raises(DataError, match="64 MiB; no hypnogram is larger than 64"):
        read_hypnogram(path)
    assert "SC4001E0" in read_submission(given).refused
    monkeypatch.setattr(hypnogram_files, "MOST_FILES", 2)
    with pytest.raises(UserError, match="more than 2 files"):
        read_submission(given)


def test_names_that_are_no_text_are_shown_and_stored(
    store: Store, given: Path, scored: Callable[..., Outcome], tmp_path: Path
) -> None:
    Path(os.fsdecode(os.fsencode(given) + b"/\xff\xfe.json")).write_text("[0]")
    Path(os.fsdecode(os.fsencode(given) + b"/\xff.dat")).write_text("x")
    assert "not read: ?.dat" in scored().notes
    assert list_entries(store)[0].provenance["unmatched"] == ["??"]
    path = tmp_path / "all.json"
    path.write_text(json.dumps({"a\0b\ud800": [0], **dict.fromkeys(NAMES, CODES)}))
    assert "of no recording: a?b?" in scored(predictions=path, name="other").notes


def test_a_pipe_is_no_hypnogram(given: Path) -> None:
    (given / "SC4001E0.json").unlink()
    os.mkfifo(given / "SC4001E0.json")
    assert "not a regular file" in read_submission(given).refused["SC4001E0"]


def test_folders_without_hypnograms_are_refused(tmp_path: Path, given: Path, scored: Callable[..., Outcome]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="holds no files"):
        scored(predictions=empty)
    (empty / "majority").mkdir()
    with pytest.raises(UserError, match=r"holds no files; it holds folders \(majority\): name one of them"):
        scored(predictions=empty)
    (empty / "notes.md").write_text("x")
    with pytest.raises(UserError, match="none of its 1 files is a hypnogram"):
        scored(predictions=empty)
    with pytest.raises(UserError, match="no such folder or file"):
        scored(predictions=tmp_path / "nowhere")
    for file in given.iterdir():
        file.rename(given / f"other_{file.name}")
    with pytest.raises(DataError, match="no file is of a recording of sedf-sc: it has other_SC4001E0"):
        scored(allow_partial=True)


def test_a_truth_that_cannot_be_read_is_refused(truth: Path, scored: Callable[..., Outcome]) -> None:
    (truth / "SC4001E0.json").write_text("[7]")
    with pytest.raises(DataError, match="'7' at epoch 0"):
        scored()
    (truth / "SC4001E0.json").write_text("[-1, -1]")
    with pytest.raises(DataError, match="SC4001E0: its truth has no scored epoch"):
        scored()


def test_an_unknown_corpus_is_named(scored: Callable[..., Outcome]) -> None:
    with pytest.raises(UserError, match="no corpus 'nowhere'"):
        scored(corpus="nowhere", truth=None)
    with pytest.raises(UserError, match="is not a name for a corpus"):
        scored(corpus="No Where")
    with pytest.raises(UserError, match="no scoring rule 'half'"):
        scored(rule="half")


# --- the command ---


def run(home: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["--home", str(home), "--db", f"sqlite:///{home / 'tusp.db'}", *arguments])


def test_the_command_prints_the_row_and_json(home: Path, truth: Path, given: Path) -> None:
    asked = ["score", "sedf-sc", "--truth", str(truth), "--predictions", str(given), "--name", "net", "--rule", "full"]
    shown = run(home, *asked)
    assert shown.exit_code == 0, shown.output
    assert "sedf-sc (real), rule full, pooled over epochs" in shown.output
    assert "net" in shown.output and "1.000" in shown.output and "100.0 %" in shown.output
    printed = run(home, *asked, "--replace", "--json")
    found = json.loads(printed.stdout)
    assert found["entry"]["overall"]["macro_f1"]["value"] == 1
    assert found["entry"]["coverage"] == "complete"
    assert found["humans"] is None
    refused = run(home, *asked)
    assert isinstance(refused.exception, UserError)


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


def test_npy_reading_is_of_the_bytes_that_are_there() -> None:
    stream = io.BytesIO()
    np.save(stream, np.arange(5))
    assert hypnogram_files._npy(stream.getvalue(), "x").tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(DataError, match="states shape"):
        hypnogram_files._npy(stream.getvalue()[:-1], "x")
