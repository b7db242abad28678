"""SHHS from EDF and XML: people, visits, aliases, rates, both kinds of labels, and who is refused."""

from __future__ import annotations

import pickle
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import edf_files
import edfio
import mne
import numpy as np
import pytest

from tusp.datasets.audit import audit_recordings
from tusp.datasets.corpora.shhs import NSRR_MAP, PROFUSION_MAP, Shhs
from tusp.datasets.recording import RecordingFiles
from tusp.platform.errors import DataError, UserError

CONCEPTS = {
    0: "Wake|0", 1: "Stage 1 sleep|1", 2: "Stage 2 sleep|2", 3: "Stage 3 sleep|3", 4: "Stage 4 sleep|4",
    5: "REM sleep|5", 6: "Movement|6", 9: "Unscored|9",
}  # fmt: skip
STAGES = [0, 0, 1, 2, 2, 3, 4, 6, 5, 9]
EXPECTED = [0, 0, 1, 2, 2, 3, 3, -1, 4, -1]
CHANNELS = {"EEG(sec)": 125, "EEG": 125, "EOG(L)": 50, "EOG(R)": 50, "EMG": 125}


def write_edf(
    path: Path,
    *,
    epochs: int = 10,
    channels: Mapping[str, int] | None = None,
    unit: str = "uV",
    simulated: bool = False,
    seed: int = 0,
) -> Path:
    """Data records of one second, every channel at its own rate, 8 bits as most of SHHS."""
    rng = np.random.default_rng(seed)
    signals = [
        edfio.EdfSignal(
            np.clip(rng.normal(0, 30, epochs * 30 * rate), -124, 124),
            rate,
            label=label,
            physical_dimension=unit,
            physical_range=(-125, 125),
            digital_range=(-128, 127),
        )
        for label, rate in (channels or CHANNELS).items()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    edfio.Edf(
        signals,
        recording=edf_files.recording(edf_files.START, simulated),
        starttime=edf_files.START.time(),
        data_record_duration=1,
    ).write(path)
    return path


def nsrr(stages: Sequence[int]) -> str:
    """Runs of equal stages, after the start of the recording and a respiratory event."""
    events = [
        ("", "Recording Start Time", 0, 30 * len(stages)),
        ("Respiratory|Respiratory", "Hypopnea|Hypopnea", 61.3, 14.2),
    ]
    first = 0
    for epoch in range(1, len(stages) + 1):
        if epoch == len(stages) or stages[epoch] != stages[first]:
            events.append(("Stages|Stages", CONCEPTS[stages[first]], 30.0 * first, 30.0 * (epoch - first)))
            first = epoch
    body = "".join(
        f"<ScoredEvent><EventType>{kind}</EventType><EventConcept>{concept}</EventConcept><Start>{start}</Start>"
        f"<Duration>{duration}</Duration></ScoredEvent>\n"
        for kind, concept, start, duration in events
    )
    return f"<PSGAnnotation><EpochLength>30</EpochLength><ScoredEvents>{body}</ScoredEvents></PSGAnnotation>\n"


def profusion(stages: Sequence[int]) -> str:
    body = "".join(f"<SleepStage>{stage}</SleepStage>" for stage in stages)
    return f"<CMPStudyConfig><EpochLength>30</EpochLength><SleepStages>{body}</SleepStages></CMPStudyConfig>\n"


def write_night(
    folder: Path, name: str = "shhs1-200001", *, kinds: Sequence[str] = ("nsrr",), stages: Sequence[int] = STAGES,
    **more: object,
) -> None:  # fmt: skip
    write_edf(folder / f"{name}.edf", **more)  # type: ignore[arg-type]
    for kind in kinds:
        (folder / f"{name}-{kind}.xml").write_text({"nsrr": nsrr, "profusion": profusion}[kind](stages))


def only(root: Path) -> RecordingFiles:
    discovery = Shhs().discover(root)
    assert not discovery.refused
    (night,) = discovery.recordings
    return night


@pytest.mark.parametrize("layout", ["official", "flat", "shouting"])
def test_both_visits_of_a_person_are_one_subject(tmp_path: Path, layout: str) -> None:
    study = tmp_path / "polysomnography"
    for seed, name in enumerate(("shhs1-200001", "shhs1-200077", "shhs2-200077")):
        visit = name[:5]
        write_edf(study / "edfs" / visit / f"{name}.edf", seed=seed)
        for kind, text in (("nsrr", nsrr(STAGES)), ("profusion", profusion(STAGES))):
            folder = study / f"annotations-events-{kind}" / visit
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}-{kind}.xml").write_text(text)
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "shhs1-dataset-0.20.0.csv").write_text("nsrrid\n200001\n")
    for file in study.rglob("shhs?-2*"):
        if layout == "flat":
            file.rename(tmp_path / file.name)
        if layout == "shouting":
            file.rename(file.with_name(file.name.upper()))
    adapter = Shhs()
    discovery = adapter.discover(tmp_path)
    assert not discovery.refused
    assert [(night.name, night.subject) for night in discovery.recordings] == [
        ("shhs1-200001", "200001"),
        ("shhs1-200077", "200077"),
        ("shhs2-200077", "200077"),
    ]
    for night in discovery.recordings:
        assert set(night.files) == {"signals", "labels", "profusion"}
        hypnogram = adapter.hypnogram(night)
        assert hypnogram.stages.tolist() == EXPECTED
        assert hypnogram.problems == ()
        assert hypnogram.label_seconds == 300


@pytest.mark.parametrize("kind", ["nsrr", "profusion"])
def test_either_kind_of_labels_will_do(tmp_path: Path, kind: str) -> None:
    write_night(tmp_path, kinds=[kind])
    night = only(tmp_path)
    assert night.labels == tmp_path / f"shhs1-200001-{kind}.xml"
    assert set(night.files) == {"signals", "labels"}
    hypnogram = Shhs().hypnogram(night)
    assert hypnogram.stages.tolist() == EXPECTED
    assert hypnogram.stages.dtype == np.int8
    assert hypnogram.problems == ()


@pytest.mark.parametrize("name", ["learn-nsrr01.xml", "learn-nsrr02.xml"])
def test_real_labels_through_the_adapter(shared_data: Path, tmp_path: Path, name: str) -> None:
    """A real Profusion file beside a simulated signal that is one epoch longer."""
    labels = shared_data / "shhs" / name
    texts = re.findall(r"<SleepStage>(\d)</SleepStage>", labels.read_text())
    write_edf(tmp_path / "shhs1-200001.edf", epochs=len(texts) + 1, channels={"EEG": 2})
    shutil.copy(labels, tmp_path / "shhs1-200001-profusion.xml")
    hypnogram = Shhs().hypnogram(only(tmp_path))
    counted = Counter(hypnogram.stages[:-1].tolist())
    by_text = Counter(texts)
    assert hypnogram.stages[-1] == -1
    assert hypnogram.problems == ("labels end before the signal; the last 1 epochs are unscored",)
    assert counted == {
        stage: by_text[code] + (by_text["4"] if code == "3" else 0)
        for stage, code in enumerate(["0", "1", "2", "3", "5"])
    }


def test_label_maps_agree() -> None:
    """What stands behind the bar of an NSRR concept is Profusion's code."""
    assert {label.partition("|")[2]: code for label, code in NSRR_MAP.items()} == PROFUSION_MAP
    assert set(CONCEPTS.values()) == set(NSRR_MAP)


def test_channels_have_canonical_names_and_their_own_rates(tmp_path: Path) -> None:
    write_night(tmp_path)
    adapter, night = Shhs(), only(tmp_path)
    channels = adapter.channels(night)
    assert [(c.name, c.sampling_rate_hz, c.n_samples, c.unit) for c in channels] == [
        ("C3-A2", 125, 37500, "uV"),
        ("C4-A1", 125, 37500, "uV"),
        ("EOG(L)", 50, 15000, "uV"),
        ("EOG(R)", 50, 15000, "uV"),
        ("EMG", 125, 37500, "uV"),
    ]
    assert channels[0].limits == pytest.approx((-125, 125))
    assert {c.name for c in channels} >= {name for names in adapter.card.channel_groups.values() for name in names}
    theirs = edfio.read_edf(night.signals)
    for ours, label in (("C4-A1", "EEG"), ("C3-A2", "EEG(sec)"), ("EOG(R)", "EOG(R)"), ("EMG", "EMG")):
        np.testing.assert_allclose(adapter.read(night, ours), theirs.get_signal(label).data, atol=1e-3)
    raw = mne.io.read_raw_edf(night.signals, include=["EEG"], verbose="error")
    np.testing.assert_allclose(adapter.read(night, "C4-A1"), raw.get_data()[0] * 1e6, atol=1e-3)
    assert adapter.problems(night) == []


@pytest.mark.parametrize("label", ["EEG(sec)", "EEG2", "EEG 2", "EEG_SEC", "EEG sec", "eeg(SEC)"])
def test_names_of_the_second_eeg(tmp_path: Path, label: str) -> None:
    write_night(tmp_path, channels={"EEG": 128, label: 128, "EOG(L)": 64, "EOG(R)": 64})
    adapter, night = Shhs(), only(tmp_path)
    assert [c.name for c in adapter.channels(night)] == ["C4-A1", "C3-A2", "EOG(L)", "EOG(R)"]
    theirs = edfio.read_edf(night.signals).get_signal(label).data
    np.testing.assert_allclose(adapter.read(night, "C3-A2"), theirs, atol=1e-3)


def test_a_channel_that_is_not_there_is_not_made_up(tmp_path: Path) -> None:
    write_night(tmp_path, channels={"EEG(sec)": 125, "EOG(L)": 50})
    adapter, night = Shhs(), only(tmp_path)
    assert [c.name for c in adapter.channels(night)] == ["C3-A2", "EOG(L)"]
    with pytest.raises(DataError, match="no channel 'C4-A1'; the file has EEG"):
        adapter.read(night, "C4-A1")


def test_units_are_believed_unless_they_are_not_electrical(tmp_path: Path) -> None:
    write_night(tmp_path, unit="mV")
    adapter, night = Shhs(), only(tmp_path)
    theirs = edfio.read_edf(night.signals).get_signal("EEG").data
    np.testing.assert_allclose(adapter.read(night, "C4-A1"), theirs * 1000, rtol=1e-5, atol=0.1)
    write_night(tmp_path, unit="%")
    np.testing.assert_allclose(adapter.read(night, "C4-A1"), theirs, atol=1e-3)
    assert adapter.problems(night)[0] == "C4-A1: unit '%' is not electrical; values taken as microvolts"


@pytest.mark.parametrize("kind", ["nsrr", "profusion"])
@pytest.mark.parametrize(
    ("epochs", "outcome"),
    [
        (50, ()),
        (51, ("the last 1 epochs are unscored",)),
        (53, ("the last 3 epochs are unscored", "labels end at 1500 s, the signal at 1590 s")),
        (47, ("3 scored epochs after the signal", "labels end at 1500 s, the signal at 1410 s")),
        (63, "labels end at 1500 s, the signal at 1890 s; these labels are not of this night"),
        (41, "labels end at 1500 s, the signal at 1230 s; these labels are not of this night"),
        (500, "not of this night"),
        (1, "not of this night"),
    ],
)
def test_labels_longer_or_shorter_than_the_signal(
    tmp_path: Path, kind: str, epochs: int, outcome: str | tuple[str, ...]
) -> None:
    write_night(tmp_path, kinds=[kind], stages=[2] * 50, epochs=epochs, channels={"EEG": 2})
    adapter, night = Shhs(), only(tmp_path)
    if isinstance(outcome, str):
        with pytest.raises(DataError, match=outcome) as raised:
            adapter.hypnogram(night)
        assert str(night.labels) in str(raised.value)
        return
    hypnogram = adapter.hypnogram(night)
    assert len(hypnogram.problems) == len(outcome)
    assert all(part in problem for part, problem in zip(outcome, hypnogram.problems, strict=True))
    assert hypnogram.stages.tolist() == [2] * min(epochs, 50) + [-1] * (epochs - 50)


def test_two_label_files_that_differ_are_reported_or_refused(tmp_path: Path) -> None:
    adapter = Shhs()
    write_night(tmp_path, kinds=("nsrr", "profusion"), stages=[2] * 200, epochs=200, channels={"EEG": 2})
    other = tmp_path / "shhs1-200001-profusion.xml"
    for wrong in (2, 3):
        other.write_text(profusion([2] * 20 + [5] * wrong + [2] * (180 - wrong)))
        if wrong == 3:
            with pytest.raises(DataError, match=r"differ in 3 of 200 epochs \(first: epoch 20\); keep the one"):
                adapter.hypnogram(only(tmp_path))
            continue
        hypnogram = adapter.hypnogram(only(tmp_path))
        assert set(hypnogram.stages.tolist()) == {2}
        assert hypnogram.problems == (
            "shhs1-200001-nsrr.xml and shhs1-200001-profusion.xml differ in 2 of 200 epochs (first: epoch 20);"
            " shhs1-200001-nsrr.xml is used",
        )
    other.write_text("<html>Sign in</html>")
    hypnogram = adapter.hypnogram(only(tmp_path))
    assert len(hypnogram.problems) == 1
    assert "second label file not compared" in hypnogram.problems[0]


def test_unknown_stages_are_unscored_and_reported(tmp_path: Path) -> None:
    write_night(tmp_path, kinds=("profusion",))
    (tmp_path / "shhs1-200001-profusion.xml").write_text(profusion([0, 1, 7, 2, 8, 8, 5, 5, 5, 5]))
    hypnogram = Shhs().hypnogram(only(tmp_path))
    assert hypnogram.stages.tolist() == [0, 1, -1, 2, -1, -1, 4, 4, 4, 4]
    assert hypnogram.problems == (
        "labels that are no stage: '8' (2), '7' (1); 3 epochs with nothing else are unscored",
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('<!DOCTYPE a [<!ENTITY b "c">]><PSGAnnotation>&b;</PSGAnnotation>', "document type declaration"),
        (profusion(STAGES), "root element 'CMPStudyConfig', wanted 'PSGAnnotation'"),
        (nsrr(STAGES)[:400], "not well-formed"),
        (nsrr([]), "no sleep stages"),
        ("", "empty file"),
    ],
)
def test_labels_that_cannot_be_read(tmp_path: Path, text: str, reason: str) -> None:
    write_night(tmp_path)
    night = only(tmp_path)
    assert night.labels is not None
    night.labels.write_text(text)
    with pytest.raises(DataError, match=reason):
        Shhs().hypnogram(night)


def test_who_is_refused(tmp_path: Path) -> None:
    write_night(tmp_path / "whole")
    write_night(tmp_path / "mixed", "shhs1-200002")
    write_edf(tmp_path / "mixed" / "shhs1-200003.edf", seed=3)
    (tmp_path / "mixed" / "shhs2-200003-nsrr.xml").write_text(nsrr(STAGES))
    (tmp_path / "mixed" / "shhs1-200004.xml").write_text(nsrr(STAGES))
    (tmp_path / "mixed" / "shhs3-200004.edf").write_bytes(b"")
    (tmp_path / "mixed" / "shhs1-200005.edf").write_bytes(b"<html>")
    (tmp_path / "mixed" / "shhs1-200005-nsrr.xml").write_text(nsrr(STAGES))
    (tmp_path / "mixed" / "learn-nsrr01.xml").write_text(profusion(STAGES))
    discovery = Shhs().discover(tmp_path / "mixed")
    assert [night.name for night in discovery.recordings] == ["shhs1-200002"]
    reasons = dict(discovery.refused)
    assert "no labels" in reasons.pop("shhs1-200003")
    assert "no signals (shhs2-200003.edf) for these labels" in reasons.pop("shhs2-200003")
    assert "name does not follow" in reasons.pop("shhs1-200004.xml")
    assert "name does not follow" in reasons.pop("shhs3-200004.edf")
    assert "not an EDF file" in reasons.pop("shhs1-200005")
    assert not reasons
    for copy in ("a", "b"):
        shutil.copytree(tmp_path / "whole", tmp_path / "twice" / copy)
    (reason,) = Shhs().discover(tmp_path / "twice").refused.values()
    assert "2 files claim to be the signals of shhs1-200001" in reason
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no night of shhs \(files such as shhs1-200001.edf\)"):
        Shhs().discover(tmp_path / "empty")


def test_simulated_and_real_nights_do_not_mix(tmp_path: Path) -> None:
    write_night(tmp_path, simulated=True)
    assert only(tmp_path).simulated
    write_night(tmp_path, "shhs2-200001")
    with pytest.raises(UserError, match="mixes simulated nights"):
        Shhs().discover(tmp_path)


def test_the_audit_of_both_visits(tmp_path: Path) -> None:
    stages = [0] * 5 + [2] * 10 + [5] * 5
    for seed, name in enumerate(("shhs1-200001", "shhs2-200001")):
        write_night(tmp_path, name, kinds=("nsrr", "profusion"), stages=stages, epochs=20, seed=seed)
    adapter: Shhs = pickle.loads(pickle.dumps(Shhs()))
    rows = audit_recordings(adapter, tmp_path, adapter.discover(tmp_path))
    assert [(row.name, row.subject, row.reason) for row in rows] == [
        ("shhs1-200001", "200001", None),
        ("shhs2-200001", "200001", None),
    ]
    used = {channel.name: channel.sampling_rate_hz for channel in rows[0].channels if channel.used}
    assert used == {"C3-A2": 125, "C4-A1": 125, "EOG(L)": 50, "EOG(R)": 50}
