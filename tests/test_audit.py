"""The audit: what it says of a recording, when it refuses it, and which nights are there twice."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import edf_files
import edfio
import mne
import night_adapter
import numpy as np
import pytest
from sqlalchemy import event

from tusp.datasets import adapters, audit, catalog
from tusp.datasets.channel_audit import clipped_share, content_digest, examine_channel
from tusp.datasets.duplicates import stages_digest
from tusp.datasets.preparation import prepare_corpus, prepare_recordings
from tusp.datasets.recording import Channel, Discovery, Hypnogram, RecordingFiles, Stages
from tusp.platform.identity import file_sha256
from tusp.platform.settings import Settings
from tusp.platform.store.session import Store, open_store

PSG = "SC4001E0-PSG.edf"


def start_of(name: str) -> datetime.datetime:
    return edf_files.START + datetime.timedelta(days=int(name[3:]))


def noise(seed: int, seconds: int = 300) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 40, seconds * 100).clip(-190, 190)


def hypnogram_of(seed: int, epochs: int = 120) -> list[edf_files.Run]:
    """Stages that change at nearly every epoch; wake in the first two."""
    drawn = np.random.default_rng(seed).integers(0, 5, epochs)
    drawn[:2] = 0
    return [(30.0 * i, 30.0, edf_files.STAGES[stage]) for i, stage in enumerate(drawn)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"sqlite:///{tmp_path}/tusp.db")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for seed, name in enumerate(("SC4001", "SC4002", "SC4011")):
        edf_files.write_night(tmp_path / "raw", name, start=start_of(name), seed=seed)
    return tmp_path / "raw"


def only(store: Store, root: Path) -> audit.RecordingAudit:
    """The audit of SC4001E0."""
    return catalog.add_corpus(store, name="sedf-sc", root=root).recordings[0]


def test_the_audit_says_what_is_in_a_recording(store: Store, raw: Path) -> None:
    signal = noise(3)
    signal[:6000] = 12.0
    signal[6000:9000] = 192.0
    edf_files.write_psg(raw / PSG, data={"EEG Pz-Oz": signal}, start=start_of("SC4001"))
    found = catalog.add_corpus(store, name="sedf-sc", root=raw)
    row = found.recordings[0]
    assert (row.name, row.subject, row.usable) == ("SC4001E0", "SC400", True)
    assert row.signal_hours == pytest.approx(300 / 3600)
    assert row.signal_epochs == 10
    assert row.label_hours == 24
    assert row.epochs == {"W": 2, "N1": 2, "N2": 2, "N3": 2, "REM": 2}
    assert row.unscored_share == 0
    channels = {channel.name: channel for channel in row.channels}
    assert channels["Pz-Oz"].flat_share == pytest.approx(0.3)
    assert channels["Pz-Oz"].clipped_share == pytest.approx(0.1)
    assert channels["Fpz-Cz"].flat_share == channels["Fpz-Cz"].clipped_share == 0
    assert channels["Fpz-Cz"].iqr_microvolts == pytest.approx(40 * 1.349, rel=0.03)
    assert not channels["Temp rectal"].used
    assert np.isnan(channels["Temp rectal"].flat_share)
    assert row.problems == (
        "Pz-Oz: flat for 30.0% of the time",
        "Pz-Oz: clipped at the recorder's limits in 10.0% of the samples",
    )
    assert [source["path"] for source in row.sources] == [PSG, "SC4001EC-Hypnogram.edf"]
    assert row.sources[0]["sha256"] == file_sha256(raw / PSG)
    stored = catalog.corpus_audit(store, "sedf-sc")
    assert json.dumps([r.to_json() for r in stored.recordings]) == json.dumps([r.to_json() for r in found.recordings])


STILL = np.full(30000, 3.0)
RARE = np.where(np.arange(30000) % 5, 3.0, 9.0)


@pytest.mark.parametrize(
    ("signal", "said"), [(STILL, "is flat throughout"), (RARE, "has the same value in more than half the samples")]
)
def test_the_only_channel_of_a_group_that_says_nothing_refuses_the_recording(
    store: Store, raw: Path, signal: np.ndarray, said: str
) -> None:
    edf_files.write_psg(raw / PSG, data={"EOG horizontal": signal}, start=start_of("SC4001"))
    assert catalog.add_corpus(store, name="sedf-sc", root=raw).refused == {
        "SC4001E0": f"{raw / PSG}: no EOG channel can be used: channel 'horizontal' {said}"
    }


def test_one_channel_of_two_is_enough(store: Store, raw: Path, tmp_path: Path) -> None:
    edf_files.write_psg(raw / PSG, data={"EEG Fpz-Cz": STILL}, start=start_of("SC4001"))
    edf_files.write_psg(
        raw / "SC4002E0-PSG.edf", labels=("EEG Pz-Oz", "EOG horizontal"), start=start_of("SC4002"), seed=1
    )
    edf_files.patch_signal(raw / "SC4011E0-PSG.edf", 1, "physical_max", "-192")
    found = catalog.add_corpus(store, name="sedf-sc", root=raw)
    assert not found.refused
    assert [row.problems for row in found.recordings] == [
        ("Fpz-Cz (EEG): is flat throughout; not used",),
        ("Fpz-Cz (EEG): is not in the file; not used",),
        (
            "Pz-Oz (EEG): cannot be read: channel 'EEG Pz-Oz': physical minimum and maximum are equal (-192),"
            " so its values are unknown; not used",
        ),
    ]
    assert found.recordings[0].channels[0].reason == "is flat throughout"
    prepared = prepare_corpus(store, Settings(home=tmp_path / "home", db="", address="local"), "sedf-sc", workers=1)
    assert not prepared.refused
    assert [len(night.channels) for night in prepared.recordings] == [2, 2, 2]


def test_when_no_channel_of_a_group_works_each_is_named(store: Store, raw: Path) -> None:
    edf_files.write_psg(raw / PSG, data={"EEG Fpz-Cz": STILL, "EEG Pz-Oz": RARE}, start=start_of("SC4001"))
    assert catalog.add_corpus(store, name="sedf-sc", root=raw).refused["SC4001E0"] == (
        f"{raw / PSG}: no EEG channel can be used: channel 'Fpz-Cz' is flat throughout;"
        " channel 'Pz-Oz' has the same value in more than half the samples"
    )


def test_labels_without_a_single_stage_refuse_the_recording(store: Store, raw: Path) -> None:
    edf_files.write_hypnogram(raw / "SC4001EC-Hypnogram.edf", [(0, 86400, "Sleep stage ?")], start=start_of("SC4001"))
    assert "no scored epoch" in catalog.add_corpus(store, name="sedf-sc", root=raw).refused["SC4001E0"]


def test_a_large_unscored_share_is_named(store: Store, raw: Path) -> None:
    edf_files.write_hypnogram(
        raw / "SC4001EC-Hypnogram.edf",
        [(0, 210, "Sleep stage 2"), (210, 90, "Sleep stage ?")],
        start=start_of("SC4001"),
    )
    row = only(store, raw)
    assert row.unscored_share == pytest.approx(0.3)
    assert row.problems == ("30.0% of the signal's epochs are unscored",)


@pytest.mark.parametrize(("unit", "spread"), [("V", "microvolts"), ("nV", "a thousandth")])
def test_an_implausible_amplitude_is_named(store: Store, raw: Path, unit: str, spread: str) -> None:
    edf_files.write_psg(raw / PSG, unit=unit, start=start_of("SC4001"))
    assert any(f"is the unit {unit!r} right?" in problem for problem in only(store, raw).problems)


def test_a_unit_that_others_misread_is_named(store: Store, raw: Path) -> None:
    edf_files.write_psg(raw / PSG, start=start_of("SC4001"))
    right = mne.io.read_raw_edf(raw / PSG, verbose="error").get_data("EEG Fpz-Cz")
    edf_files.patch_signal(raw / PSG, 0, "unit", "UV")
    wrong = mne.io.read_raw_edf(raw / PSG, verbose="error").get_data("EEG Fpz-Cz")
    assert np.allclose(wrong, right * 1e6), "MNE no longer takes UV as volts"
    row = only(store, raw)
    assert row.problems == ("Fpz-Cz: unit 'UV' taken as microvolts; other readers (MNE) take it as volts",)
    assert row.channels[0].iqr_microvolts == pytest.approx(54, abs=2)


def test_an_eog_that_is_a_copy_of_the_eeg_is_named(store: Store, raw: Path) -> None:
    signal = noise(8)
    edf_files.write_psg(raw / PSG, data={"EEG Pz-Oz": signal, "EOG horizontal": signal}, start=start_of("SC4001"))
    assert only(store, raw).problems == ("horizontal: the same samples as Pz-Oz; one is a copy",)


def test_an_inverted_copy_is_named(store: Store, raw: Path) -> None:
    signal = noise(8)
    edf_files.write_psg(raw / PSG, data={"EEG Pz-Oz": signal, "EOG horizontal": signal}, start=start_of("SC4001"))
    edf_files.patch_signal(raw / PSG, 2, "physical_min", "192")
    edf_files.patch_signal(raw / PSG, 2, "physical_max", "-192")
    assert "horizontal: the same samples as Pz-Oz, inverted; one is a copy" in only(store, raw).problems


def test_content_survives_gain_offset_and_sign_but_nothing_else() -> None:
    signal = noise(1).astype(np.float32)
    digest = content_digest(signal)
    assert digest is not None
    assert content_digest(signal * np.float32(1000) + np.float32(7)) == digest
    inverted = content_digest(-signal)
    assert inverted is not None and inverted[:-1] == digest[:-1] and inverted != digest
    changed = signal.copy()
    changed[15000] = changed[14999] - 1 if changed[15000] > changed[14999] else changed[14999] + 1
    others = [changed, signal[1:], noise(2).astype(np.float32)]
    assert all(content_digest(other)[:-1] != digest[:-1] for other in others)  # type: ignore[index]
    assert content_digest(np.zeros(30000, np.float32)) is None
    assert content_digest(np.full(30000, np.nan, np.float32)) is None


def test_clipping_is_seen_where_nobody_states_the_recorders_limits() -> None:
    signal = noise(1).astype(np.float32)
    assert clipped_share(signal, None) == pytest.approx(0, abs=1e-3)
    assert clipped_share(signal.clip(-40, 40), None) == pytest.approx(0.317, abs=0.02)


def test_a_channel_that_ends_before_the_last_scored_epoch_cannot_be_used() -> None:
    signal = noise(1).astype(np.float32)
    channel = Channel(name="E1", sampling_rate_hz=100, unit="uV", n_samples=len(signal))
    assert examine_channel(channel, signal, (0, 300))[0].reason is None
    assert examine_channel(channel, signal[:-1], (0, 300))[0].reason is None, "a sample more or less is rounding"
    assert examine_channel(channel, signal[:-150], (0, 300))[0].reason == "ends 1.5 s before the last scored epoch"
    assert examine_channel(channel, signal[:-150], (30, 270))[0].reason is None


def test_samples_that_are_no_number_are_named() -> None:
    signal = noise(1).astype(np.float32)
    channel = Channel(name="E1", sampling_rate_hz=100, unit="uV", n_samples=len(signal))
    signal[:3000] = np.nan
    row, problems = examine_channel(channel, signal, (0, 300))
    assert (row.reason, problems) == (None, ["E1: 10.00% of the samples are no number"])
    assert row.iqr_microvolts == pytest.approx(54, abs=2)
    assert examine_channel(channel, signal, (0, 30))[0].reason == "has no number in the scored epochs"
    assert examine_channel(channel, np.full_like(signal, np.nan), (0, 300))[0].reason == "holds no number"


def test_stages_are_the_same_however_the_wake_around_was_trimmed() -> None:
    sleep = np.tile([1, 2, 3, 4, 0], 20).astype(np.int8)
    night = np.concatenate([np.zeros(30, np.int8), sleep, np.full(5, -1, np.int8)])
    assert stages_digest(night) == stages_digest(sleep) is not None
    assert stages_digest(np.tile([1, 2, 3, 4, -1], 20).astype(np.int8)) != stages_digest(sleep)
    assert stages_digest(np.zeros(500, np.int8)) is None
    assert stages_digest(np.repeat([0, 1, 2], 100).astype(np.int8)) is None


def test_the_same_signals_under_two_names_are_named(store: Store, raw: Path) -> None:
    (raw / "SC4012E0-PSG.edf").write_bytes((raw / "SC4011E0-PSG.edf").read_bytes())
    (raw / "SC4012EC-Hypnogram.edf").write_bytes((raw / "SC4011EC-Hypnogram.edf").read_bytes())
    rows = {row.name: row.duplicates for row in catalog.add_corpus(store, name="sedf-sc", root=raw).recordings}
    assert rows == {
        "SC4001E0": (),
        "SC4002E0": (),
        "SC4011E0": (
            "its signals are the same bytes as those of SC4012E0",
            "its labels are the same bytes as those of SC4012E0",
        ),
        "SC4012E0": (
            "its signals are the same bytes as those of SC4011E0",
            "its labels are the same bytes as those of SC4011E0",
        ),
    }
    (raw / "SC4012E0-PSG.edf").unlink()
    (raw / "SC4012EC-Hypnogram.edf").unlink()
    rows = {row.name: row.duplicates for row in catalog.refresh_corpus(store, "sedf-sc").audit.recordings}
    assert not any(rows.values()), "a night that vanished is no duplicate any more"


def test_the_same_content_in_other_bytes_is_named(store: Store, raw: Path) -> None:
    signals = {label: noise(seed, 3600) for seed, label in enumerate(edf_files.LABELS)}
    for name, unit in (("SC4001", "uV"), ("SC4002", "mV")):
        edf_files.write_psg(raw / f"{name}E0-PSG.edf", seconds=3600, data=signals, unit=unit, start=start_of(name))
        edf_files.write_hypnogram(raw / f"{name}EC-Hypnogram.edf", hypnogram_of(1), start=start_of(name))
    rows = {row.name: row.duplicates for row in catalog.add_corpus(store, name="sedf-sc", root=raw).recordings}
    assert rows["SC4001E0"] == (
        "its samples are those of SC4002E0 (Fpz-Cz, Pz-Oz, horizontal)",
        "its stages are, epoch for epoch, those of SC4002E0",
    )
    assert rows["SC4011E0"] == ()
    stored = {row.name: row.duplicates for row in catalog.corpus_audit(store, "sedf-sc").recordings}
    assert stored == rows


DESCRIPTION = """
[corpus]
title = "Ours"
licence = "none"
access = "private"
[signals]
files = "*.edf"
[labels]
files = "{name}.csv"
[labels.stages]
W = "W"
N1 = "N1"
N2 = "N2"
N3 = "N3"
R = "REM"
[subject]
pattern = "(?P<subject>.+)"
[channels.Fpz-Cz]
names = ["EEG Fpz-Cz"]
group = "EEG"
"""


def described(folder: Path, nights: Mapping[str, np.ndarray], stages: Mapping[str, str]) -> tuple[Path, Path]:
    """A described corpus with one channel, and its description."""
    folder.mkdir()
    for name, samples in nights.items():
        edfio.Edf(
            [edfio.EdfSignal(samples, 100, label="EEG Fpz-Cz", physical_dimension="mV", physical_range=(-1, 1))]
        ).write(folder / f"{name}.edf")
        (folder / f"{name}.csv").write_text(stages[name])
    (folder / "corpus.toml").write_text(DESCRIPTION)
    return folder, folder / "corpus.toml"


def as_csv(runs: list[edf_files.Run]) -> str:
    names = dict(zip(edf_files.STAGES, ("W", "N1", "N2", "N3", "R"), strict=True))
    return "".join(f"{onset},{duration},{names[label]}\n" for onset, duration, label in runs)


def test_a_night_in_two_corpora_is_named_in_both(store: Store, raw: Path, tmp_path: Path) -> None:
    edf_files.write_psg(raw / PSG, seconds=3600, start=start_of("SC4001"))
    edf_files.write_hypnogram(raw / "SC4001EC-Hypnogram.edf", hypnogram_of(1), start=start_of("SC4001"))
    assert catalog.add_corpus(store, name="sedf-sc", root=raw).shared == ()
    # the same night resampled and trimmed by somebody, under another name: only its stages give it away
    trimmed = [(onset - 60, duration, label) for onset, duration, label in hypnogram_of(1)[2:]]
    folder, toml = described(
        tmp_path / "ours",
        {"n1": noise(5, 3540) / 1000, "n2": noise(6) / 1000, "sc4002e0": noise(7) / 1000},
        {"n1": as_csv(trimmed), "n2": "0,270,N2\n", "sc4002e0": "0,300,N2\n"},
    )
    ours = catalog.add_corpus(store, name="ours", root=folder, describe=toml)
    assert {row.name: row.duplicates for row in ours.recordings} == {
        "n1": ("its stages are, epoch for epoch, those of sedf-sc/SC4001E0",),
        "n2": (),
        "sc4002e0": ("its name is that of sedf-sc/SC4002E0",),
    }
    assert ours.shared == ("ours and sedf-sc share 2 nights: n1 = SC4001E0, sc4002e0 = SC4002E0",)
    assert catalog.shared_nights(store, ["sedf-sc", "ours"]) == list(ours.shared)
    assert catalog.shared_nights(store, ["sedf-sc"]) == []
    refreshed = catalog.refresh_corpus(store, "sedf-sc").audit
    assert refreshed.recordings[0].duplicates == ("its stages are, epoch for epoch, those of ours/n1",)
    assert refreshed.shared == ("sedf-sc and ours share 2 nights: SC4001E0 = n1, SC4002E0 = sc4002e0",)
    catalog.remove_corpus(store, "ours")
    refreshed = catalog.refresh_corpus(store, "sedf-sc").audit
    assert (refreshed.recordings[0].duplicates, refreshed.shared) == ((), ())


def test_names_that_anybody_could_give_say_nothing(store: Store, tmp_path: Path) -> None:
    for seed, name in enumerate(("ours", "theirs")):
        labels = {"n1": f"0,{240 + 30 * seed},N2\n"}
        folder, toml = described(tmp_path / name, {"n1": noise(seed) / 1000}, labels)
        found = catalog.add_corpus(store, name=name, root=folder, describe=toml)
        assert (found.recordings[0].duplicates, found.shared) == ((), ())


def test_people_in_two_folders_are_named(store: Store, raw: Path, tmp_path: Path) -> None:
    catalog.add_corpus(store, name="sedf-sc", root=raw)
    edf_files.write_night(tmp_path / "more", "SC4012", start=start_of("SC4012"), seed=77)
    more = catalog.add_corpus(store, name="more", adapter="sedf-sc", root=tmp_path / "more")
    assert more.shared == ("more and sedf-sc share 1 person: SC401",)
    assert more.recordings[0].duplicates == ("its person is that of sedf-sc/SC4011E0",)
    assert catalog.shared_nights(store, ["more", "sedf-sc"]) == ["more and sedf-sc share 1 person: SC401"]


def test_simulated_people_are_nobody(store: Store, raw: Path, tmp_path: Path) -> None:
    for seed, name in ((50, "a-sim"), (51, "b-sim")):
        edf_files.write_night(tmp_path / name, "SC4001", simulated=True, seed=seed)
        assert catalog.add_corpus(store, name=name, adapter="sedf-sc", root=tmp_path / name).recordings[0].usable
    catalog.add_corpus(store, name="sedf-sc", root=raw)
    shared = catalog.shared_nights(store, ["a-sim", "b-sim", "sedf-sc"])
    assert not any("person" in line for line in shared)


def test_labels_inside_the_signal_file_are_one_file_with_two_roles(tmp_path: Path) -> None:
    night = RecordingFiles(
        name="n",
        subject="s",
        signals=tmp_path / "signals",
        labels=tmp_path / "signals",
        others={"header": tmp_path / "header", "scorer_3": tmp_path / "third"},
    )
    assert audit.file_roles(night) == [
        (tmp_path / "signals", ("signals", "labels")),
        (tmp_path / "header", ("header",)),
        (tmp_path / "third", ("scorer_3",)),
    ]


class Scored(night_adapter.NightAdapter):
    """Nights of three scorers, the second and third in files of their own."""

    def discover(self, root: Path) -> Discovery:
        return Discovery(
            recordings=[
                RecordingFiles(
                    name=path.stem,
                    subject=path.stem,
                    signals=path,
                    labels=path.with_suffix(".json"),
                    others={f"scorer_{n}": path.with_suffix(f".scorer_{n}") for n in (2, 3)},
                    simulated=True,
                )
                for path in sorted(root.glob("*.edf"))
            ]
        )

    def scorers(self, recording: RecordingFiles) -> dict[str, Stages]:
        assert recording.labels is not None
        files = {"scorer_1": recording.labels, **recording.others}
        return {name: np.array(json.loads(path.read_text()), np.int8) for name, path in files.items()}


@pytest.fixture
def scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one night of three scorers, whose adapter is a plug-in."""
    point = EntryPoint("scored", f"{__name__}:Scored", adapters.ENTRY_POINTS)
    monkeypatch.setattr(adapters, "entry_points", lambda group: [point])
    signals = {name: (100.0, noise(seed, 120)) for seed, name in enumerate(("C3", "C4", "E1"))}
    night_adapter.write_night(tmp_path / "scored", "n1", signals, [0, 1, 2, 3])
    (tmp_path / "scored" / "n1.scorer_2").write_text("[0, 1, 2, 2]")
    (tmp_path / "scored" / "n1.scorer_3").write_text("[0, 1, 1, 3]")
    return tmp_path / "scored"


class Failing(night_adapter.NightAdapter):
    """Fails on one night in a way that no adapter should."""

    def discover(self, root: Path) -> Discovery:
        return Discovery(
            recordings=[
                RecordingFiles(name=path.stem, subject=path.stem, signals=path, labels=path.with_suffix(".json"))
                for path in sorted(root.glob("*.edf"))
            ]
        )

    def hypnogram(self, recording: RecordingFiles) -> Hypnogram:
        if recording.name == "n2":
            raise ZeroDivisionError("nothing\nto divide by")
        return super().hypnogram(recording)


class BuiltIn(Failing):
    """The same, as if it were tusp's own."""

    __module__ = "tusp.datasets.corpora.built_in"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_plug_in_that_fails_on_one_night_costs_that_night(tmp_path: Path, workers: int) -> None:
    for number in (1, 2, 3):
        signals = {name: (100.0, noise(seed, 120)) for seed, name in enumerate(("C3", "C4", "E1"), start=3 * number)}
        night_adapter.write_night(tmp_path, f"n{number}", signals, [0, 1, 2, 3])
    adapter = Failing()
    rows = audit.audit_recordings(adapter, tmp_path, adapter.discover(tmp_path), workers=workers)
    assert [row.usable for row in rows] == [True, False, True]
    said = f"adapter 'nights' of {__name__} failed with ZeroDivisionError: nothing to divide by"
    assert rows[1].reason == f"{tmp_path}/n2.edf: {said}"
    with pytest.raises(ZeroDivisionError):  # a defect of tusp itself is not hidden
        audit.audit_recordings(BuiltIn(), tmp_path, adapter.discover(tmp_path), workers=1)
    # the same when it fails only later, while nights are prepared
    nights = [(night, night_adapter.sources_of(night)) for night in adapter.discover(tmp_path).recordings]
    prepared = prepare_recordings(adapter, nights, corpus="nights", root=tmp_path / "prepared", workers=workers)
    assert [night.name for night in prepared.recordings] == ["n1", "n3"]
    assert prepared.refused == {"n2": rows[1].reason}


def test_short_nights_are_handed_over_together() -> None:
    def night(name: str) -> RecordingFiles:
        return RecordingFiles(name=name, subject=name, signals=Path(name), labels=None)

    nights = [night(str(number)) for number in range(130)]
    chunks = audit._chunks(nights, [audit.BYTES_OF_OPENING] * 130)
    assert [file for chunk in chunks for file in chunk] == nights
    assert [len(chunk) for chunk in chunks] == [64, 64, 2]
    assert [len(chunk) for chunk in audit._chunks(nights[:4], [1, audit.CHUNK_BYTES + 1, 1, 1])] == [1, 1, 2]


def test_every_file_of_a_night_is_watched(store: Store, scored: Path) -> None:
    (row,) = catalog.add_corpus(store, name="scored", root=scored).recordings
    assert row.scorers == ("scorer_1", "scorer_2", "scorer_3")
    assert [source["role"] for source in row.sources] == ["signals", "labels", "scorer_2", "scorer_3"]
    corpus, (stored,) = catalog.get_corpus(store, "scored"), catalog.recordings(store, "scored")
    files = catalog.recording_files(corpus, stored)
    assert files == Scored().discover(scored).recordings[0]
    assert catalog.refresh_corpus(store, "scored").changed == ()
    third = scored / "n1.scorer_3"
    before = third.stat()
    third.write_text("[0, 1, 1, 4]")
    os.utime(third, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert catalog.refresh_corpus(store, "scored").changed == ("n1",)
    third.write_text("[0, 1, 2, 2]")
    (row,) = catalog.refresh_corpus(store, "scored").audit.recordings
    assert row.problems == ("its scorer_3 is the same bytes as its scorer_2",)
    third.unlink()
    assert catalog.refresh_corpus(store, "scored").audit.refused["n1"].startswith(f"{third}: No such file")


def test_scorers_of_unequal_length_refuse_the_recording(store: Store, scored: Path) -> None:
    (scored / "n1.scorer_2").write_text("[0, 1, 2]")
    with pytest.raises(catalog.NothingUsable) as error:
        catalog.add_corpus(store, name="scored", root=scored)
    assert error.value.refused == {"n1": f"{scored}/n1.json: scorer_2 has 3 epochs, the hypnogram 4"}


def test_a_hypnogram_that_ends_early_is_named(store: Store, scored: Path) -> None:
    for name in ("n1.json", "n1.scorer_2", "n1.scorer_3"):
        (scored / name).write_text("[0, 1, 2]" if name != "n1.scorer_3" else "[0, 1, 1]")
    (row,) = catalog.add_corpus(store, name="scored", root=scored).recordings
    assert row.problems[:2] == (
        "the hypnogram ends 30 s before the signal",
        "25.0% of the signal's epochs are unscored",
    )


def test_looking_at_an_unchanged_corpus_writes_nothing(store: Store, raw: Path) -> None:
    catalog.add_corpus(store, name="sedf-sc", root=raw)
    written: list[str] = []
    listen = lambda *call: written.append(call[2]) if not call[2].startswith(("SELECT", "BEGIN", "PRAGMA")) else None  # noqa: E731
    event.listen(store.engine, "before_cursor_execute", listen)
    catalog.refresh_corpus(store, "sedf-sc")
    assert written == []
    (raw / "SC4011E0-PSG.edf").unlink()
    catalog.refresh_corpus(store, "sedf-sc")
    assert any("UPDATE" in statement for statement in written)


def test_reports_get_counts_and_kinds_of_problems(store: Store, raw: Path) -> None:
    edf_files.write_psg(raw / PSG, data={"EEG Fpz-Cz": STILL}, start=start_of("SC4001"))
    edf_files.write_psg(raw / "SC4002E0-PSG.edf", data={"EEG Pz-Oz": STILL}, start=start_of("SC4002"), seed=1)
    edf_files.patch_signal(raw / "SC4002E0-PSG.edf", 0, "unit", "UV")
    (raw / "SC4011E0-PSG.edf").write_bytes(b"")
    edf_files.write_hypnogram(
        raw / "SC4001EC-Hypnogram.edf",
        [(0, 270, "Sleep stage 2"), (270, 30, "Sleep stage ?")],
        start=start_of("SC4001"),
    )
    catalog.add_corpus(store, name="sedf-sc", root=raw)
    assert catalog.audit_notes(store, ["sedf-sc", "absent"]) == {
        "sedf-sc": {
            "usable": 2,
            "refused": 1,
            "with_problems": 2,
            "unscored_share": pytest.approx(0.05),
            "problems": [
                {
                    "kind": "a channel of EEG: is flat throughout; not used",
                    "recordings": 2,
                    "example": "SC4001E0: Fpz-Cz (EEG): is flat throughout; not used",
                },
                {
                    "kind": "unit 'UV' taken as microvolts; other readers (MNE) take it as volts",
                    "recordings": 1,
                    "example": "SC4002E0: Fpz-Cz: unit 'UV' taken as microvolts; other readers (MNE) take it as volts",
                },
            ],
        }
    }


def test_an_audit_of_an_older_version_is_made_anew(store: Store, raw: Path) -> None:
    from tusp.platform.store import models

    catalog.add_corpus(store, name="sedf-sc", root=raw)
    with store.session() as session:
        for row in session.query(models.Recording):
            old = {
                key: row.audit[key] for key in ("signal_hours", "label_hours", "epochs", "unscored_share", "problems")
            }
            channels = [
                {key: c[key] for key in ("name", "sampling_rate_hz", "unit", "used", "flat_share", "clipped_share")}
                for c in row.audit["channels"]
            ]
            row.audit = {"version": 1, **old, "channels": channels}
    assert catalog.corpus_audit(store, "sedf-sc").recordings[0].scorers == ()
    assert catalog.refresh_corpus(store, "sedf-sc").changed == ()
    found = {(row.audit["version"], row.audit["signal_epochs"]) for row in catalog.recordings(store, "sedf-sc")}
    assert found == {(audit.AUDIT_VERSION, 10)}


def test_a_hypnogram_longer_than_the_signal_is_refused(
    store: Store, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever an adapter says, labels never reach beyond the signal."""
    from tusp.datasets.corpora.sedf_sc import SedfSc

    read = SedfSc.hypnogram
    longer = np.zeros(11, np.int8)
    monkeypatch.setattr(SedfSc, "hypnogram", lambda self, night: replace(read(self, night), stages=longer))
    with pytest.raises(catalog.NothingUsable) as error:
        catalog.add_corpus(store, name="sedf-sc", root=raw)
    assert "11 epochs for 10 epochs of signal" in error.value.refused["SC4001E0"]
