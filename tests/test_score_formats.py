"""Other people's hypnograms: read in any usual format, matched with the recordings of the truth."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from score_world import (  # noqa: F401  (fixtures)
    CODES,
    GRID,
    NAMES,
    TEXTS,
    entry,
    given_fixture,
    home_fixture,
    probabilities,
    scored_fixture,
    store_fixture,
    truth_fixture,
    write_edf,
    write_npy,
)

from tusp.dashboards.scoring_outside import Outcome
from tusp.datasets import hypnogram_files
from tusp.datasets.hypnogram_files import match_recordings, read_hypnogram
from tusp.platform.errors import DataError, UserError
from tusp.platform.store.session import Store

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


def test_npy_reading_is_of_the_bytes_that_are_there() -> None:
    stream = io.BytesIO()
    np.save(stream, np.arange(5))
    assert hypnogram_files._npy(stream.getvalue(), "x").tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(DataError, match="states shape"):
        hypnogram_files._npy(stream.getvalue()[:-1], "x")
