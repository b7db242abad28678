"""`tusp datasets prepare` and `tusp datasets gc`: what is of use stays, the rest goes, nothing else is touched."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from edf_files import tusp, write_hypnogram, write_night, write_psg

from tusp.datasets import catalog
from tusp.datasets.disposal import Disposal, dispose
from tusp.datasets.preparation import PreparationSettings, PreparedCorpus, prepare_corpus
from tusp.datasets.prepared import FOLDER_DIGITS, META, open_prepared, recording_lock, verify_prepared
from tusp.datasets.recording_preparation import LAST_SETTINGS, last_settings
from tusp.platform.errors import UserError
from tusp.platform.settings import Settings, load_settings
from tusp.platform.store import models
from tusp.platform.store.session import Store, open_store

MARGIN = PreparationSettings(wake_margin_minutes=1)


@pytest.fixture
def place(tmp_path: Path) -> tuple[Store, Settings]:
    """A store with two nights of two people in corpus sedf-sc."""
    for i, name in enumerate(("SC4001", "SC4011")):
        write_night(tmp_path / "raw", name, seed=i, simulated=True)
    settings = load_settings(home=tmp_path / "home", environment={}, working_directory=tmp_path)
    store = open_store(settings.db)
    catalog.add_corpus(store, name="sedf-sc", root=tmp_path / "raw", workers=1)
    return store, settings


def prepare(place: tuple[Store, Settings], preparation: PreparationSettings | None = None) -> PreparedCorpus:
    prepared = prepare_corpus(*place, "sedf-sc", workers=1, preparation=preparation)
    assert not prepared.refused
    return prepared


def folders(prepared: PreparedCorpus) -> set[str]:
    return {recording.folder.name for recording in prepared.recordings}


def there(settings: Settings, corpus: str = "sedf-sc") -> set[str]:
    return {
        path.name
        for path in (settings.prepared / corpus).iterdir()
        if path.is_dir() and not path.name.startswith(".locks")
    }


def gone(disposal: Disposal) -> set[str]:
    return {night.folder.name for night in disposal.removed}


def add_cell(store: Store, prepared: PreparedCorpus, *, state: str, corpus: str = "sedf-sc") -> None:
    one, two = prepared.recordings
    part = {"name": corpus, "train": {one.name: one.fingerprint}, "validation": {}, "test": {two.name: two.fingerprint}}
    with store.session() as session:
        session.add(
            models.Cell(
                id=f"{state}-{corpus}".ljust(64, "0"),
                plan={"corpora": [part]},
                experiment="within",
                corpus=corpus,
                protocol="kfold",
                arm="full",
                fold=0,
                folds=2,
                seed=0,
                recipe="smoke",
                split_hash="0" * 64,
                simulated=True,
                state=state,
                result={} if state == "done" else None,
            )
        )


def test_nothing_goes_while_everything_is_of_use(place: tuple[Store, Settings]) -> None:
    assert dispose(*place).removed == []  # nothing is prepared yet
    prepared = prepare(place)
    disposal = dispose(*place)
    assert (disposal.removed, disposal.kept, disposal.size) == ([], 2, 0)
    assert there(place[1]) == folders(prepared)


def test_the_old_nights_stay_until_gc_when_a_setting_changes(place: tuple[Store, Settings]) -> None:
    store, settings = place
    old = prepare(place)
    new = prepare(place, MARGIN)
    assert folders(old).isdisjoint(folders(new))
    for recording in (*old.recordings, *new.recordings):
        verify_prepared(recording)
    size = sum(path.stat().st_size for r in old.recordings for path in r.folder.rglob("*"))
    tried = dispose(store, settings, dry_run=True)
    assert gone(tried) == folders(old)
    assert there(settings) == folders(old) | folders(new), "a dry run removed something"
    done = dispose(store, settings)
    assert (gone(done), done.kept, done.size) == (folders(old), 2, size)
    assert {night.reason for night in done.removed} == {"made with other settings or version of preparation"}
    assert {night.recording for night in done.removed} == {"SC4001E0", "SC4011E0"}
    assert there(settings) == folders(new)
    for recording in new.recordings:
        verify_prepared(recording)
    prepare(place)
    assert gone(dispose(store, settings)) == folders(new), "the settings used last decide"


def test_a_replaced_raw_night_and_a_refused_one_leave_unused_nights(
    place: tuple[Store, Settings], tmp_path: Path
) -> None:
    store, settings = place
    old = {recording.name: recording for recording in prepare(place).recordings}
    write_psg(tmp_path / "raw" / "SC4001E0-PSG.edf", seed=9, simulated=True)
    assert gone(dispose(store, settings)) == set(), "nobody looked at the folder yet"
    new = {recording.name: recording for recording in prepare(place).recordings}
    assert new["SC4001E0"].fingerprint != old["SC4001E0"].fingerprint
    assert not np.array_equal(new["SC4001E0"].signals(), old["SC4001E0"].signals())
    verify_prepared(old["SC4001E0"])
    (night,) = dispose(store, settings).removed
    assert (night.folder, night.reason) == (old["SC4001E0"].folder, "made with other raw files")
    write_hypnogram(tmp_path / "raw" / "SC4011EC-Hypnogram.edf", [(0.0, 300.0, "Sleep stage ?")], simulated=True)
    catalog.refresh_corpus(store, "sedf-sc", workers=1)
    (night,) = dispose(store, settings).removed
    assert (night.folder, night.reason) == (old["SC4011E0"].folder, "the recording is gone or refused")


@pytest.mark.parametrize("state, kept", [("planned", True), ("running", True), ("done", False), ("failed", False)])
@pytest.mark.parametrize("corpus", ["sedf-sc", "sedf-20"])
def test_what_a_cell_still_needs_stays(place: tuple[Store, Settings], state: str, kept: bool, corpus: str) -> None:
    """Also when the cell names a subset of the corpus."""
    store, settings = place
    old = prepare(place)
    add_cell(store, old, state=state, corpus=corpus)
    new = prepare(place, MARGIN)
    dispose(store, settings)
    assert there(settings) == (folders(old) | folders(new) if kept else folders(new))


def test_nights_of_a_forgotten_corpus_go_and_other_files_stay(place: tuple[Store, Settings]) -> None:
    store, settings = place
    prepared = prepare(place)
    root = settings.prepared / "sedf-sc"
    (root / "notes.txt").write_text("mine")
    (root / "figures").mkdir()
    (settings.prepared / "list.csv").write_text("mine")
    elsewhere = settings.home / "elsewhere"
    shutil.copytree(prepared.recordings[0].folder, elsewhere)
    (root / ("a" * FOLDER_DIGITS)).symlink_to(elsewhere)
    catalog.remove_corpus(store, "sedf-sc")
    disposal = dispose(store, settings)
    assert {night.reason for night in disposal.removed} == {"corpus sedf-sc is not registered"}
    assert len(disposal.removed) == 2
    assert {path.name for path in root.iterdir()} == {"notes.txt", "figures", ".locks", "a" * FOLDER_DIGITS}
    assert (elsewhere / META).exists()
    assert (settings.prepared / "list.csv").read_text() == "mine"


def test_a_night_that_is_being_written_stays(place: tuple[Store, Settings]) -> None:
    store, settings = place
    old = prepare(place)
    prepare(place, MARGIN)
    held = old.recordings[0]
    with recording_lock(held.folder.parent, held.fingerprint):
        disposal = dispose(store, settings)
    assert disposal.busy == [held.folder]
    assert gone(disposal) == {old.recordings[1].folder.name}
    verify_prepared(held)
    assert gone(dispose(store, settings)) == {held.folder.name}


def test_recent_nights_may_be_kept(place: tuple[Store, Settings]) -> None:
    store, settings = place
    old = prepare(place)
    prepare(place, MARGIN)
    long_ago = old.recordings[0].folder
    os.utime(long_ago, (0, 0))
    assert gone(dispose(store, settings, keep_days=1)) == {long_ago.name}
    with pytest.raises(UserError, match="keep-days = -1"):
        dispose(store, settings, keep_days=-1)


def test_a_damaged_night_nobody_needs_goes_and_what_the_dead_left(place: tuple[Store, Settings]) -> None:
    store, settings = place
    old = prepare(place)
    prepare(place, MARGIN)
    (old.recordings[0].folder / META).write_text("{")
    left = settings.prepared / "sedf-sc" / f".{'b' * FOLDER_DIGITS}.part"
    left.mkdir()
    dispose(store, settings, dry_run=True)
    assert left.exists()
    disposal = dispose(store, settings)
    assert {night.recording for night in disposal.removed} == {None, "SC4011E0"}
    assert not left.exists()


def test_when_settings_cannot_be_told_everything_of_that_corpus_stays(place: tuple[Store, Settings]) -> None:
    store, settings = place
    old = prepare(place)
    prepare(place, MARGIN)
    note = settings.prepared / "sedf-sc" / LAST_SETTINGS
    assert last_settings(note.parent) == MARGIN
    note.write_text('{"clip_iqr": "wide"')
    disposal = dispose(store, settings)
    assert (disposal.removed, disposal.kept) == ([], 4)
    assert "settings.json: damaged" in disposal.untouched["sedf-sc"]
    prepare(place)  # notes them anew
    assert last_settings(note.parent) == PreparationSettings()
    assert not folders(old) & gone(dispose(store, settings))


# The commands


def test_prepare_and_gc_from_the_command_line(
    place: tuple[Store, Settings], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = place[1]

    def run(*arguments: object) -> tuple[int, str, str]:
        return tusp(monkeypatch, capsys, settings.home, "datasets", *arguments)

    code, out, _ = run("prepare", "sedf-sc", "--workers", 1)
    assert code == 0
    assert out.startswith("sedf-sc: 2 nights prepared, 0 were there already, 0 refused; in ")
    old = there(settings)
    code, out, _ = run("prepare", "sedf-sc", "--wake-margin-minutes", 1, "--clip-iqr", 10, "--json", "--workers", 1)
    report = json.loads(out)
    assert code == 0
    assert (report["made"], report["found"]) == (["SC4001E0", "SC4011E0"], [])
    assert (report["wake_margin_minutes"], report["clip_iqr"], report["simulated"]) == (1, 10, True)
    for name, digest in report["fingerprints"].items():
        recording = open_prepared(Path(report["folder"]) / digest[:FOLDER_DIGITS])
        assert (recording.name, recording.fingerprint) == (name, digest)
        assert np.abs(recording.signals()).max() <= 10
    code, out, _ = run("gc", "--dry-run")
    assert code == 0
    assert "SC4001E0: made with other settings" in out
    assert "2 prepared nights would be removed" in out
    assert there(settings) > old
    code, out, _ = run("gc", "--json")
    report = json.loads(out)
    assert code == 0
    assert {Path(night["folder"]).name for night in report["removed"]} == old
    assert (report["kept"], report["bytes"] > 0, report["dry_run"]) == (2, True, False)
    assert there(settings).isdisjoint(old)
    for wrong in (
        ("prepare", "no-such"),
        ("prepare", "sedf-sc", "--clip-iqr", "0"),
        ("prepare", "sedf-sc", "--wake-margin-minutes", "-1"),
        ("gc", "--keep-days", "-1"),
    ):
        code, _, err = run(*wrong)
        assert code == 2
        assert len(err.strip().splitlines()) == 1, err


def test_prepare_says_what_it_refuses(
    place: tuple[Store, Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "raw" / "SC4001E0-PSG.edf").write_bytes(b"nothing")
    code, out, err = tusp(monkeypatch, capsys, place[1].home, "datasets", "prepare", "sedf-sc", "--workers", 1)
    assert code == 2
    assert "1 night prepared, 0 were there already, 1 refused" in out
    assert "refused SC4001E0" in err
