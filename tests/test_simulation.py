"""Simulated nights: original files, measured statistics, signals a scorer recognises, the same bytes every time."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from types import ModuleType

import edfio
import mne
import numpy as np
import pytest
from scipy.signal import welch
from typer.testing import CliRunner

from tusp.datasets.simulation import SIMULATED_FLAG, embedded, ensure_embedded, simulate
from tusp.datasets.simulation.plan import NightPlan, draw_person, draw_truth
from tusp.datasets.simulation.processes import BLOCK, BandNoise, bump
from tusp.datasets.simulation.signals import Signals, stage_activity, synthesise
from tusp.datasets.simulation.statistics import (
    load_spread,
    load_statistics,
    sleep_period,
    stage_shares,
    summary,
)
from tusp.platform.errors import UserError
from tusp.platform.settings import load_settings

ROOT = Path(__file__).resolve().parent.parent
CORPORA = ("sedf-sc", "sedf-st")


def plan_of(corpus: str, subject: int, *, seed: int = 1, night: int = 1, hours: float | None = None) -> NightPlan:
    return NightPlan(corpus=corpus, subject=subject, night=night, seed=seed, hours=hours)


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of all EDF files."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.edf"))
    }


def benchmark(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=CORPORA)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, list[Path]]:
    """Two people with two short nights each, made in this process."""
    corpus = str(request.param)
    folder = tmp_path_factory.mktemp("simulated")
    return corpus, folder, simulate(corpus, folder, subjects=2, seed=7, hours=0.5, workers=1)


def test_same_bytes_whatever_the_workers_and_the_company(written: tuple[str, Path, list[Path]], tmp_path: Path) -> None:
    corpus, folder, _ = written
    simulate(corpus, tmp_path / "two", subjects=2, seed=7, hours=0.5, workers=2)
    assert contents(tmp_path / "two") == contents(folder)
    simulate(corpus, tmp_path / "alone", subjects=1, seed=7, hours=0.5, nights=1, workers=1)
    alone = contents(tmp_path / "alone")
    assert len(alone) == 2
    assert alone.items() <= contents(folder).items()
    simulate(corpus, tmp_path / "other", subjects=1, seed=8, hours=0.5, nights=1, workers=1)
    assert not set(contents(tmp_path / "other").values()) & set(alone.values())


def test_names_of_the_corpus(written: tuple[str, Path, list[Path]]) -> None:
    corpus, folder, files = written
    assert len(files) == 8
    assert files == sorted(folder.rglob("*.edf"))
    pattern = {
        "sedf-sc": r"sleep-cassette/SC4\d\d[12]E(0-PSG|[CHJPVW]-Hypnogram)\.edf",
        "sedf-st": r"sleep-telemetry/ST7\d\d[12]J(0-PSG|[A-Z]-Hypnogram)\.edf",
    }[corpus]
    assert all(re.fullmatch(pattern, path.relative_to(folder).as_posix()) for path in files)


def test_headers_are_those_of_the_corpus_and_say_simulated(written: tuple[str, Path, list[Path]]) -> None:
    corpus, folder, files = written
    assert (
        "SIMULATED" in (folder / "SIMULATED.txt").read_text() and "--seed 7" in (folder / "SIMULATED.txt").read_text()
    )
    for psg in (path for path in files if path.name.endswith("PSG.edf")):
        labels = next(path for path in files if path.name[:6] == psg.name[:6] and path != psg)
        heads = [path.read_bytes()[:256].decode("ascii") for path in (psg, labels)]
        assert heads[0][8:184] == heads[1][8:184]  # patient, recording, start: the pair belongs together
        assert re.match(r"X [FM] X (Female|Male)_\d+yr ", heads[0][8:88])
        assert re.match(rf"Startdate \d\d-[A-Z]{{3}}-(19[89]\d) X X {SIMULATED_FLAG} ", heads[0][88:168])
        assert heads[0][192:236].strip() == ""
        assert heads[1][192:236].strip() == "EDF+C"
        assert float(heads[0][244:252]) == 30
        edf = edfio.read_edf(psg)
        rates = {one.label: one.sampling_frequency for one in edf.signals}
        fast = dict.fromkeys(("EEG Fpz-Cz", "EEG Pz-Oz", "EOG horizontal"), 100)
        slow = dict.fromkeys(("Resp oro-nasal", "EMG submental", "Temp rectal", "Event marker"), 1)
        assert rates == ({**fast, **slow} if corpus == "sedf-sc" else {**fast, "EMG submental": 100, "Marker": 1})
        assert all(edf.get_signal(name).physical_dimension == "uV" for name in fast)


def expected_names(plan: NightPlan) -> list[str]:
    return list(draw_truth(plan, draw_person(plan)).names)


def test_labels_come_back_through_mne(written: tuple[str, Path, list[Path]]) -> None:
    corpus, _, files = written
    for subject, night in ((0, 1), (0, 2), (1, 1), (1, 2)):
        plan = plan_of(corpus, subject, night=night, seed=7, hours=0.5)
        labels = next(path for path in files if path.name.startswith(plan.record) and "Hypnogram" in path.name)
        names = expected_names(plan)
        found = [""] * len(names)
        end = 0.0
        for annotation in mne.read_annotations(labels):
            start = int(annotation["onset"] // 30)
            count = int(annotation["duration"] // 30)
            text = str(annotation["description"]).removeprefix("Sleep stage ")
            found[start : start + count] = [text] * min(count, len(names) - start)
            end = max(end, annotation["onset"] + annotation["duration"])
        assert found[: len(names)] == names
        assert end == (86_400 if corpus == "sedf-sc" else 30 * len(names))


def test_signals_come_back_through_two_readers(written: tuple[str, Path, list[Path]]) -> None:
    pyedflib = pytest.importorskip("pyedflib")
    corpus, _, files = written
    plan = plan_of(corpus, 1, night=2, seed=7, hours=0.5)
    psg = next(path for path in files if path.name.startswith(plan.record) and "PSG" in path.name)
    person = draw_person(plan)
    truth = synthesise(draw_truth(plan, person), person, plan.stream(2, plan.night))
    raw = mne.io.read_raw_edf(psg, verbose="error")
    with pyedflib.EdfReader(str(psg)) as other:
        for index, (name, made) in enumerate(
            (("EEG Fpz-Cz", truth.frontal), ("EEG Pz-Oz", truth.posterior), ("EOG horizontal", truth.eyes))
        ):
            low, high = other.getPhysicalMinimum(index), other.getPhysicalMaximum(index)
            step = (high - low) / 4095
            expected = np.clip(made, low, high)
            assert other.getLabel(index) == name
            assert np.abs(other.readSignal(index) - expected).max() <= step
            assert np.abs(raw.get_data([name])[0] * 1e6 - expected).max() <= step


@pytest.mark.parametrize("corpus", CORPORA)
def test_stages_lie_within_the_spread_of_real_nights(corpus: str) -> None:
    """Shares (also early and late in the night), bout lengths and transitions of 100 nights against the 5th and 95th
    percentile of groups of 20 real nights."""
    nights = [draw_truth(plan, draw_person(plan)).stages for plan in (plan_of(corpus, i) for i in range(100))]
    found = summary(nights)
    outside = {
        f"{name}{list(map(int, where))}": float(found[name][tuple(where)])
        for name, (low, high) in load_spread(corpus).items()
        for where in np.argwhere((found[name] < low) | (found[name] > high))
    }
    assert not outside
    # and nights differ from each other about as real ones do (standard deviation of the N3 and REM share)
    spread = np.std([stage_shares(night) for night in nights], axis=0)
    assert 0.05 < spread[3] < 0.11
    assert 0.05 < spread[4] < 0.09


def test_the_spread_is_that_of_the_real_hypnograms(shared_data: Path) -> None:
    measure = benchmark("measure_hypnograms")
    nights = measure.real_nights(shared_data / "sleep-edf")
    for corpus, prefix in (("sedf-sc", "SC"), ("sedf-st", "ST")):
        own = [night for name, night in nights.items() if name.startswith(prefix)]
        assert len(own) == load_statistics(corpus).nights
        real = summary(own)
        for name, (low, high) in load_spread(corpus).items():
            assert np.all((real[name] >= low - 1e-3) & (real[name] <= high + 1e-3)), name


def test_cassette_nights_have_the_corpus_times() -> None:
    for subject in range(30):
        plan = plan_of("sedf-sc", subject)
        night = draw_truth(plan, draw_person(plan))
        assert 20 * 120 < len(night.stages) < 24 * 120
        assert len(sleep_period(night.stages)) > 3 * 120


def test_telemetry_nights_sometimes_have_gaps_and_unscored_minutes() -> None:
    nights = [draw_truth(plan, draw_person(plan)) for plan in (plan_of("sedf-st", subject) for subject in range(40))]
    assert 3 <= sum("" in night.names for night in nights) <= 25
    assert 8 <= sum(night.names[0] == "?" for night in nights) <= 35
    assert any("Movement time" in night.names for night in nights)
    for night in nights:
        hidden = {"?", "", "Movement time"}
        assert all((name in hidden) == (stage == -1) for name, stage in zip(night.names, night.stages, strict=True))
        assert len(night.stages) < 10.5 * 120
    assert any(stage == "4" for night in nights for stage, _ in groupby(night.names))


def spectra(signals: Signals, stages: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Median spectrum by stage, [5, frequencies], of each channel."""
    result = {}
    for name in ("frontal", "posterior", "eyes"):
        hz, density = welch(getattr(signals, name).reshape(-1, 3000), fs=100, nperseg=400, axis=-1)
        result[name] = hz, np.stack([np.median(density[stages == stage], axis=0) for stage in range(5)])
    return result


@pytest.fixture(scope="module")
def people_spectra() -> list[tuple[NightPlan, dict[str, tuple[np.ndarray, np.ndarray]]]]:
    found = []
    for subject in range(12):
        plan = plan_of("sedf-st", subject, seed=3, hours=7)
        person = draw_person(plan)
        night = draw_truth(plan, person)
        counts = np.bincount(night.stages[night.stages >= 0], minlength=5)
        if counts.min() < 12:
            continue
        found.append((plan, spectra(synthesise(night, person, plan.stream(2, 1)), night.stages)))
        if len(found) == 4:
            break
    assert len(found) == 4
    return found


def power(spectrum: tuple[np.ndarray, np.ndarray], low: float, high: float) -> np.ndarray:
    hz, density = spectrum
    return density[:, (hz >= low) & (hz <= high)].mean(axis=1)


def test_what_a_scorer_looks_for_is_there(people_spectra: list) -> None:
    w, n1, n2, n3, rem = range(5)
    for plan, found in people_spectra:
        person = draw_person(plan)
        delta, sigma = power(found["frontal"], 0.5, 2), power(found["frontal"], 12, 14.5)
        assert delta[n3] == delta.max() and delta[n3] > 3 * delta[n2]
        assert sigma[n2] > 1.3 * max(sigma[n1], sigma[rem])
        eyes = power(found["eyes"], 0.3, 2)
        assert min(eyes[w], eyes[rem]) > 1.25 * eyes[n2]
        assert power(found["frontal"], 20, 45)[w] > 1.5 * power(found["frontal"], 20, 45)[rem]
        assert power(found["frontal"], 4, 7)[n1] > power(found["frontal"], 4, 7)[w]
        alpha = power(found["posterior"], person.alpha_hz - 1, person.alpha_hz + 1)
        if person.alpha_uv > 8:
            assert alpha[w] > 1.5 * max(alpha[n2], alpha[rem])
            hz, density = found["posterior"]
            around = (hz > 7) & (hz < 13)
            peak = hz[around][np.argmax(density[w][around] * hz[around] ** 1.5)]
            assert abs(peak - person.alpha_hz) < 1
            assert alpha[w] > power(found["frontal"], person.alpha_hz - 1, person.alpha_hz + 1)[w]


def test_age_takes_slow_waves_and_spindles() -> None:
    people = [draw_person(plan_of("sedf-sc", subject)) for subject in range(100)]
    ages = np.array([person.age for person in people])
    assert ages.min() >= 25 and ages.max() <= 101
    young, old = ages < 45, ages > 70
    for trait in ("delta_uv", "spindle_uv", "spindles_per_minute"):
        values = np.array([getattr(person, trait) for person in people])
        assert values[young].mean() > 1.3 * values[old].mean(), trait
    n3 = np.array(
        [stage_shares(draw_truth(plan_of("sedf-sc", i), person).stages)[3] for i, person in enumerate(people)]
    )
    assert n3[young].mean() > 1.5 * n3[old].mean()


def test_ambiguity_hides_stages_behind_their_neighbours() -> None:
    shown = []
    for ambiguity in (0.0, 1.0):
        plan = NightPlan(corpus="sedf-sc", subject=1, night=1, seed=2, hours=6, ambiguity=ambiguity)
        person = draw_person(plan)
        night = draw_truth(plan, person)
        activity = stage_activity(night.brain, person, np.random.default_rng(0))
        assert np.allclose(activity.sum(axis=0), 1)
        true_share = activity[np.repeat(night.brain, 30), np.arange(activity.shape[1])]
        shown.append(np.mean(true_share > 0.5))
    assert shown[0] > 0.93
    assert 0.6 < shown[1] < 0.9


def test_noise_has_the_asked_band_power_and_no_seam() -> None:
    noise = BandNoise(np.random.default_rng(0), 6 * BLOCK, bump(2.0, 0.3), 1, 3)
    for whole in (noise.first(), noise.another()):
        assert len(whole) == 6 * BLOCK
        assert whole.std() == pytest.approx(1, abs=0.03)
        steps = np.abs(np.diff(whole))
        joints = np.abs(np.diff(whole.reshape(6, BLOCK)[:, :300], axis=1))
        assert joints.max() < 1.05 * steps.max()
    first, second = noise.first(), noise.another()
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1


def test_finished_nights_are_kept_and_torn_ones_made_anew(tmp_path: Path) -> None:
    files = simulate("sedf-sc", tmp_path, subjects=2, seed=3, nights=1, hours=0.1, workers=1)
    before, times = contents(tmp_path), {path: path.stat().st_mtime_ns for path in files}
    torn = next(path for path in files if path.name.startswith("SC4011") and "PSG" in path.name)
    torn.write_bytes(torn.read_bytes()[:5000])
    (torn.parent / f".{torn.name}.abc.part").write_bytes(b"half")
    reports: list[tuple[int, int, str]] = []
    again = simulate(
        "sedf-sc", tmp_path, subjects=2, seed=3, nights=1, hours=0.1, workers=1, progress=lambda *a: reports.append(a)
    )
    assert again == files and contents(tmp_path) == before
    assert reports == [(2, 2, "SC4011")]
    assert not list(tmp_path.rglob("*.part"))
    untouched = [path for path in files if path.name.startswith("SC4001")]
    assert all(path.stat().st_mtime_ns == times[path] for path in untouched)


@pytest.mark.slow
def test_a_kill_leaves_no_half_file(tmp_path: Path) -> None:
    arguments = "'sedf-st', Path(sys.argv[1]), subjects=6, seed=5, nights=1, hours=1, workers=1"
    program = (
        f"import sys; from pathlib import Path; from tusp.datasets.simulation import simulate; simulate({arguments})"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "cut")], cwd=ROOT)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "cut" / ".simulation").glob("ST7*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    survivors = contents(tmp_path / "cut")
    simulate("sedf-st", tmp_path / "cut", subjects=6, seed=5, nights=1, hours=1, workers=2)
    simulate("sedf-st", tmp_path / "whole", subjects=6, seed=5, nights=1, hours=1, workers=2)
    assert 0 < len(survivors) < 12
    assert survivors.items() <= contents(tmp_path / "whole").items()
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpus": "dreams"}, "dreams"),
        ({"subjects": 0}, "--subjects 0"),
        ({"subjects": 101}, "--subjects 101"),
        ({"nights": 3}, "--nights 3"),
        ({"seed": -1}, "--seed -1"),
        ({"hours": 0.0}, "--hours 0"),
        ({"hours": float("nan")}, "--hours nan"),
        ({"hours": 24.0}, "--hours 24"),
        ({"ambiguity": 2.5}, "--ambiguity 2.5"),
        ({"workers": 0}, "--workers 0"),
    ],
)
def test_wrong_requests_are_one_line(tmp_path: Path, change: dict, message: str) -> None:
    arguments = {"corpus": "sedf-sc", "subjects": 1, "seed": 0, "nights": 1, "hours": 0.1, "workers": 1, **change}
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        simulate(arguments.pop("corpus"), tmp_path / "new", **arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_folders_with_other_content_are_refused(tmp_path: Path) -> None:
    def make(folder: Path, **change: object) -> None:
        simulate("sedf-sc", folder, **{"subjects": 1, "seed": 0, "nights": 1, "hours": 0.1, "workers": 1, **change})

    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("do not touch")
    with pytest.raises(UserError, match="thesis"):
        make(tmp_path / "notes")
    assert sorted(path.name for path in (tmp_path / "notes").iterdir()) == ["thesis.txt"]
    # real recordings in the corpus's own folder are foreign, too
    (tmp_path / "real" / "sleep-cassette").mkdir(parents=True)
    (tmp_path / "real" / "sleep-cassette" / "SC4001E0-PSG.edf").write_bytes(b"real")
    with pytest.raises(UserError, match="other files"):
        make(tmp_path / "real")
    make(tmp_path / "made")
    for change in ({"seed": 1}, {"hours": 0.2}, {"ambiguity": 0.5}):
        with pytest.raises(UserError, match="other settings"):
            make(tmp_path / "made", **change)
    make(tmp_path / "made", subjects=2)
    with pytest.raises(UserError, match="SC4011"):
        make(tmp_path / "made", subjects=1)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        make(tmp_path / "file")


def test_embedded_corpora_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {name: replace(corpus, subjects=1, hours=0.1) for name, corpus in embedded.EMBEDDED.items()}
    monkeypatch.setattr(embedded, "EMBEDDED", small)
    settings = load_settings(home=tmp_path, environment={}, working_directory=tmp_path)
    reports: list[tuple[int, int, str]] = []
    folders = ensure_embedded(settings, progress=lambda *a: reports.append(a))
    assert set(folders) == {"sedf-sc-sim", "sedf-st-sim"}
    assert [report[:2] for report in reports] == [(1, 2), (2, 2)]
    assert all(folder.is_relative_to(settings.simulated) and contents(folder) for folder in folders.values())
    assert ensure_embedded(settings, progress=lambda *a: reports.append(a)) == folders
    assert len(reports) == 2


def test_command(tmp_path: Path) -> None:
    import typer

    from tusp.cli.simulate import simulate as command

    app = typer.Typer()
    app.command()(command)
    runner = CliRunner()
    asked = ["sedf-sc", str(tmp_path / "n"), "--subjects", "1", "--nights", "1", "--hours", "0.1", "--workers", "1"]
    result = runner.invoke(app, asked)
    assert result.exit_code == 0, result.output
    assert "1 simulated nights" in result.output
    assert len(contents(tmp_path / "n")) == 2
    assert "Example" in runner.invoke(app, ["--help"]).output


@pytest.mark.slow
def test_neither_trivial_nor_hopeless_for_a_classifier(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    from sklearn.metrics import f1_score

    judge = benchmark("simulation")
    files = simulate("sedf-sc", tmp_path, subjects=6, seed=1, nights=1, hours=7.5)
    true, predicted = judge.classify(judge.read_nights(files), folds=3)
    each = f1_score(true, predicted, labels=range(5), average=None)
    assert 0.70 < each.mean() < 0.90
    assert 0.30 < each[1] < 0.65
    assert each[1] == each.min()
    assert each[[0, 2, 4]].min() > 0.75


@pytest.mark.slow
def test_yasa_agrees(tmp_path: Path) -> None:
    pytest.importorskip("yasa")
    from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score

    judge = benchmark("simulation")
    files = simulate("sedf-sc", tmp_path, subjects=6, seed=1, nights=1, hours=8)
    true, predicted = judge.judge_with_yasa(judge.read_nights(files))
    assert accuracy_score(true, predicted) >= 0.65
    assert cohen_kappa_score(true, predicted) >= 0.50
    assert f1_score(true, predicted, labels=range(5), average=None).min() > 0.25
