"""The registry of corpora: adding, looking again, removing; plug-ins."""

from __future__ import annotations

import datetime
import json
import os
import warnings
from importlib.metadata import EntryPoint
from pathlib import Path

import edf_files
import pytest

from tusp.datasets import adapters, audit, catalog
from tusp.datasets.corpora.sedf_sc import SedfSc
from tusp.platform.errors import UserError
from tusp.platform.identity import file_sha256
from tusp.platform.store.session import Store, open_store

NAMES = ("SC4001", "SC4002", "SC4011")


def start_of(name: str) -> datetime.datetime:
    return edf_files.START + datetime.timedelta(days=int(name[3:]))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"sqlite:///{tmp_path}/tusp.db")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for seed, name in enumerate(NAMES):
        edf_files.write_night(tmp_path / "raw", name, start=start_of(name), seed=seed)
    return tmp_path / "raw"


def rewrite(raw: Path, name: str, seed: int) -> None:
    """Other signals under the same name, with size and time of change as before."""
    path = raw / f"{name}E0-PSG.edf"
    before = path.stat()
    edf_files.write_psg(path, start=start_of(name), seed=seed)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_several_processes_find_the_same(store: Store, raw: Path) -> None:
    (raw / "SC4002E0-PSG.edf").write_bytes(b"")
    adapter = SedfSc()
    told: list[tuple[int, int, str]] = []
    alone = audit.audit_recordings(adapter, raw, adapter.discover(raw), workers=1)
    together = audit.audit_recordings(
        adapter, raw, adapter.discover(raw), workers=2, progress=lambda *call: told.append(call)
    )
    assert [(row.name, row.reason, row.sources) for row in alone] == [
        (row.name, row.reason, row.sources) for row in together
    ]
    assert [json.dumps(row.to_json()) for row in alone] == [json.dumps(row.to_json()) for row in together]
    assert [call[:2] for call in told] == [(2, 3), (3, 3)]


def test_a_taken_name_is_refused_unless_replaced(store: Store, raw: Path) -> None:
    catalog.add_corpus(store, name="sedf-sc", root=raw)
    with pytest.raises(UserError, match="already registered"):
        catalog.add_corpus(store, name="sedf-sc", root=raw)
    (raw / "SC4002E0-PSG.edf").unlink()
    replaced = catalog.add_corpus(store, name="sedf-sc", root=raw, replace=True)
    assert [row.usable for row in replaced.recordings] == [True, False, True]
    assert len(catalog.recordings(store, "sedf-sc")) == 3


def test_when_nothing_can_be_used_nothing_is_registered(store: Store, raw: Path, tmp_path: Path) -> None:
    catalog.add_corpus(store, name="sedf-sc", root=raw)
    bad = tmp_path / "bad"
    edf_files.write_psg(bad / "SC4001E0-PSG.edf")
    with pytest.raises(catalog.NothingUsable, match="none of 1 recordings can be used") as error:
        catalog.add_corpus(store, name="sedf-sc", root=bad, replace=True)
    assert error.value.refused.keys() == {"SC4001E0"}
    assert catalog.get_corpus(store, "sedf-sc").root == str(raw)


@pytest.mark.parametrize("name", ["", "Sedf", "a+b", "a/b", "../x", "-x", "a" * 65])
def test_a_name_must_be_a_name(store: Store, raw: Path, name: str) -> None:
    with pytest.raises(UserError, match="not a name for a corpus"):
        catalog.add_corpus(store, name=name, root=raw, adapter="sedf-sc")


def test_the_flag_of_simulated_nights_is_registered(store: Store, tmp_path: Path) -> None:
    edf_files.write_night(tmp_path / "raw", simulated=True)
    assert catalog.add_corpus(store, name="sedf-sc-sim", root=tmp_path / "raw", embedded=True).simulated
    (summary,) = catalog.list_corpora(store)
    assert (summary.adapter, summary.simulated, summary.embedded) == ("sedf-sc", True, True)
    corpus = catalog.get_corpus(store, "sedf-sc-sim")
    (row,) = catalog.recordings(store, "sedf-sc-sim")
    assert catalog.recording_files(corpus, row).simulated
    edf_files.write_night(tmp_path / "raw")
    with pytest.raises(UserError, match="were simulated and are real now"):
        catalog.refresh_corpus(store, "sedf-sc-sim")
    assert catalog.get_corpus(store, "sedf-sc-sim").simulated


def test_looking_again_reads_only_what_changed(store: Store, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog.add_corpus(store, name="sedf-sc", root=raw)
    before = {row.name: row.sources[0]["sha256"] for row in catalog.recordings(store, "sedf-sc")}
    hashed: list[str] = []
    monkeypatch.setattr(audit, "file_sha256", lambda path: hashed.append(path.name) or file_sha256(path))
    assert catalog.refresh_corpus(store, "sedf-sc").changed == ()
    assert hashed == []
    rewrite(raw, "SC4002", seed=77)
    edf_files.write_night(raw, "SC4021", start=start_of("SC4021"), seed=21)
    (raw / "SC4011E0-PSG.edf").rename(raw / "elsewhere")
    (raw / "SC4011EC-Hypnogram.edf").unlink()
    refresh = catalog.refresh_corpus(store, "sedf-sc")
    assert (refresh.added, refresh.changed, refresh.vanished) == (("SC4021E0",), ("SC4002E0",), ("SC4011E0",))
    assert sorted(hashed) == ["SC4002E0-PSG.edf", "SC4021E0-PSG.edf", "SC4021EC-Hypnogram.edf"]
    rows = {row.name: row for row in catalog.recordings(store, "sedf-sc")}
    assert rows["SC4002E0"].sources[0]["sha256"] == file_sha256(raw / "SC4002E0-PSG.edf") != before["SC4002E0"]
    assert "vanished" in (rows["SC4011E0"].reason or "")
    assert rows["SC4021E0"].usable
    again = catalog.refresh_corpus(store, "sedf-sc")
    assert (again.added, again.changed, again.vanished) == ((), (), ())
    (raw / "elsewhere").rename(raw / "SC4011E0-PSG.edf")
    edf_files.write_hypnogram(raw / "SC4011EC-Hypnogram.edf", start=start_of("SC4011"))
    assert not catalog.refresh_corpus(store, "sedf-sc").audit.refused


def test_a_folder_that_is_away_changes_nothing(store: Store, raw: Path) -> None:
    catalog.add_corpus(store, name="sedf-sc", root=raw)
    raw.rename(raw.with_name("away"))
    with pytest.raises(UserError, match="no such folder"):
        catalog.refresh_corpus(store, "sedf-sc")
    assert all(row.usable for row in catalog.recordings(store, "sedf-sc"))


def test_looking_again_at_nights_reads_no_file_twice(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "raw"
    for number in range(3):
        for night in (1, 2):
            edf_files.write_psg(raw / f"SC4{number:02}{night}E0-PSG.edf", seconds=30, seed=2 * number + night)
            edf_files.write_hypnogram(raw / f"SC4{number:02}{night}EC-Hypnogram.edf", [(0, 30, "Sleep stage W")])
    assert len(catalog.add_corpus(store, name="sedf-sc", root=raw).usable) == 6

    def refuse(path: Path) -> str:
        raise AssertionError(f"{path} was hashed again")

    monkeypatch.setattr(audit, "file_sha256", refuse)
    refreshed = catalog.refresh_corpus(store, "sedf-sc")
    assert not (refreshed.added or refreshed.changed or refreshed.vanished)
    stored = {row.name: row.audit for row in catalog.recordings(store, "sedf-sc")}
    with monkeypatch.context() as patched:  # nor when the registration is made anew
        patched.setattr(audit, "audit_recording", refuse)
        catalog.add_corpus(store, name="sedf-sc", root=raw, replace=True)
    assert {row.name: row.audit for row in catalog.recordings(store, "sedf-sc")} == stored
    (raw / "SC4001E0-PSG.edf").touch()
    with pytest.raises(AssertionError, match="was hashed again"):
        catalog.refresh_corpus(store, "sedf-sc")
    with pytest.raises(AssertionError, match="was hashed again"):
        catalog.add_corpus(store, name="sedf-sc", root=raw, replace=True)
    catalog.remove_corpus(store, "sedf-sc")  # this is how one asks for it
    hashed: list[str] = []
    monkeypatch.setattr(audit, "file_sha256", lambda path: hashed.append(path.name) or file_sha256(path))
    catalog.add_corpus(store, name="sedf-sc", root=raw)
    assert len(hashed) == 12


def test_a_new_version_of_an_adapter_reads_every_night_again(
    store: Store, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.add_corpus(store, name="sedf-sc", root=raw)
    read: list[str] = []
    plain = audit.audit_recording
    monkeypatch.setattr(audit, "audit_recording", lambda *given: read.append(given[2].name) or plain(*given))
    catalog.add_corpus(store, name="sedf-sc", root=raw, replace=True)
    assert read == []
    monkeypatch.setattr(SedfSc, "code_version", SedfSc.code_version + 1)
    catalog.add_corpus(store, name="sedf-sc", root=raw, replace=True)
    assert len(read) == 3


def test_a_plug_in_that_is_broken_warns_and_the_rest_works(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("broken", "no_such_module_at_all:Adapter", adapters.ENTRY_POINTS),
        EntryPoint("mine", "tusp.datasets.corpora.sedf_st:SedfSt", adapters.ENTRY_POINTS),
    ]
    monkeypatch.setattr(adapters, "entry_points", lambda group: points if group == "tusp.datasets" else [])
    with pytest.warns(UserWarning, match="plug-in corpus 'broken'"):
        known = catalog.adapters()
    assert known.keys() == {*catalog.BUILT_IN, "mine"}
    assert known["mine"]().card.name == "sedf-st"


def test_a_plug_in_that_fails_when_it_is_used_is_one_line(
    store: Store, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint("mine", "os:fspath", adapters.ENTRY_POINTS)  # loads, and wants an argument
    monkeypatch.setattr(adapters, "entry_points", lambda group: [point])
    with pytest.raises(UserError, match="plug-in corpus 'mine' cannot be used"):
        catalog.add_corpus(store, name="mine", root=raw)
    with pytest.warns(UserWarning, match="plug-in corpus 'mine' cannot be used"):
        assert adapters.cards().keys() == catalog.BUILT_IN.keys()


@pytest.mark.parametrize("name", ["sedf-sc", "described"])
def test_a_plug_in_with_a_taken_name_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    point = EntryPoint(name, "tusp.datasets.corpora.sedf_st:SedfSt", adapters.ENTRY_POINTS)
    monkeypatch.setattr(adapters, "entry_points", lambda group: [point])
    with pytest.raises(UserError, match=f"'{name}', but that name is taken"):
        catalog.adapters()


def test_the_command_line_from_add_to_remove(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"

    def tusp(*arguments: object) -> tuple[int, str, str]:
        return edf_files.tusp(monkeypatch, capsys, home, "datasets", *arguments)

    assert "No corpus is registered" in tusp("list")[1]
    (raw / "SC4002EC-Hypnogram.edf").unlink()
    status, out, err = tusp("add", "sedf-sc", raw, "--name", "ours")
    assert status == 2
    assert err.splitlines()[-1] == f"refused SC4002E0: {raw}/SC4002E0-PSG.edf: no hypnogram beside these signals"
    assert "ours: real, 2 recordings of 2 people, 0.2 h, 1 refused" in out
    status, _, err = tusp("add", "sedf-sc", raw, "--name", "ours")
    assert (status, err.strip()) == (2, f"tusp: corpus 'ours' is already registered ({raw}); --replace takes its place")
    assert tusp("add", "sedf-sc", raw, "--name", "ours", "--replace", "--allow-refused")[0] == 0
    listed = json.loads(tusp("list", "--json")[1])
    assert [(c["name"], c["adapter"], c["recordings"], c["refused"]) for c in listed] == [("ours", "sedf-sc", 2, 1)]
    assert [(c["licence"], c["access"], c["people"]) for c in listed] == [("ODC-By 1.0", "open", 2)]
    assert listed[0]["hours"] == pytest.approx(2 * 300 / 3600)
    known = tusp("list", "--known")[1]
    assert all(name in known for name in catalog.BUILT_IN)
    cards = {card["name"]: card for card in json.loads(tusp("list", "--known", "--json")[1])}
    assert (cards["shhs"]["access"], cards["shhs"]["nights"], cards["dod-h"]["hold_out"]) == ("agreement", 8444, True)
    status, out, err = tusp("audit", "ours")
    assert status == 2
    assert "SC4002E0" in out
    assert "refused SC4002E0" in err
    document = json.loads(tusp("audit", "ours", "--json")[1])
    assert [row["usable"] for row in document["recordings"]] == [True, False, True]
    prepared = home / "prepared" / "ours"
    prepared.mkdir(parents=True)
    files = {path: path.read_bytes() for path in raw.iterdir()}
    assert tusp("remove", "ours", "--yes")[0] == 0
    assert prepared.is_dir()
    assert {path: path.read_bytes() for path in raw.iterdir()} == files
    assert "No corpus is registered" in tusp("list")[1]
    status, _, err = tusp("audit", "ours")
    assert (status, err.count("\n")) == (2, 1)
    assert "no corpus 'ours'; none is registered yet" in err
    assert tusp("add", "sedf-sc", raw, "--allow-refused")[0] == 0
    (home / "prepared" / "sedf-sc").mkdir()
    assert tusp("remove", "sedf-sc", "--yes", "--prepared")[0] == 0
    assert not (home / "prepared" / "sedf-sc").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("shhs9", "{raw}"), "no corpus 'shhs9'; known are cinc2018, dcsm, dod-h, dod-o, sedf-sc"),
        (("sedf-sc", "{raw}/absent"), "no such folder"),
        (("sedf-st", "{raw}"), "holds no night of sedf-st"),
        (("sedf-sc", "{raw}", "--describe", "{toml}"), "is the name of a built-in corpus"),
        (("mine", "{raw}", "--describe", "{raw}/absent.toml"), "no such file"),
        (("mine", "{raw}", "--describe", "{toml}"), "corpus.title: is missing"),
    ],
)
def test_a_wrong_request_is_one_line_and_registers_nothing(
    raw: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    toml = tmp_path / "mine.toml"
    toml.write_text("[corpus]\n")
    given = [argument.format(raw=raw, toml=toml) for argument in arguments]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        status, out, err = edf_files.tusp(monkeypatch, capsys, tmp_path / "home", "datasets", "add", *given)
    assert status == 2
    assert out == ""
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert catalog.list_corpora(open_store(f"sqlite:///{tmp_path}/home/tusp.db")) == []
