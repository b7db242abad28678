"""What human experts reach on DOD-H, published models on the same nights, and the weighted protocol: real labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score
from test_dod import write_lists, write_signals
from typer.testing import CliRunner

from tusp.cli.main import app
from tusp.dashboards.entries import entry_rows, human_ceiling
from tusp.dashboards.scoring_outside import Outcome, score_outside
from tusp.datasets.catalog import add_corpus
from tusp.datasets.outside_truth import truth_apart, truth_of_corpus
from tusp.platform.errors import DataError, UserError
from tusp.platform.scoring.dreem import weighted_figures
from tusp.platform.store.entries import list_entries, read_kept, truth_hash, verify_entries
from tusp.platform.store.session import Store, open_store

PUBLISHED = {
    "SimpleNet": (0.873, 0.815, 0.822),
    "DeepSleepNet": (0.873, 0.816, 0.822),
    "SeqSleepNet": (0.846, 0.776, 0.796),
}
"""Accuracy, kappa, macro-F1, pooled over epochs, unweighted."""

HUMANS = (0.838, 0.768, 0.784)
METRICS = ("accuracy", "kappa", "macro_f1")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> Store:
    return open_store(f"sqlite:///{home / 'tusp.db'}")


@pytest.fixture
def dod_h(shared_data: Path) -> Path:
    return shared_data / "dod-h"


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def as_folders(lists: dict[str, dict[str, list[int]]], folder: Path) -> Path:
    for name, nights in lists.items():
        (folder / name).mkdir(parents=True)
        for night, codes in nights.items():
            (folder / name / f"{night}.json").write_text(json.dumps(codes))
    return folder


def overall(row: Any) -> tuple[float, ...]:
    return tuple(row.scores.overall[name].value for name in METRICS)


def score(store: Store, home: Path, truth: Path, predictions: Path | None, name: str | None, **how: Any) -> Outcome:
    how = {"rule": "full", "resamples": 100, **how}
    return score_outside(store, home, "dod-h", predictions=predictions, name=name, truth=truth, **how)


def test_published_models_and_humans_on_the_real_nights(store: Store, home: Path, dod_h: Path) -> None:
    for model, expected in PUBLISHED.items():
        outcome = score(store, home, dod_h / "scorers.json", dod_h / "models.json", model, model=model)
        assert outcome.entry is not None and outcome.humans is not None
        assert overall(outcome.entry) == pytest.approx(expected, abs=0.001)
        assert outcome.entry.coverage == "complete"
        assert (outcome.entry.recordings, outcome.entry.people, outcome.entry.epochs) == (25, 25, 24662)
        assert outcome.entry.judged.confusion.sum(1).tolist() == [3037, 1505, 11879, 3514, 4727]
        assert overall(outcome.humans.mean) == pytest.approx(HUMANS, abs=0.001)
    humans = outcome.humans
    assert [row.name for row in humans.scorers] == [f"scorer_{number}" for number in range(1, 6)]
    assert humans.note.best == "scorer_3"
    assert humans.note.ranges["macro_f1"] == pytest.approx((0.727, 0.813), abs=0.001)
    assert 0.6 < humans.note.pairwise_kappa < 0.768, "two people agree less than one does with a consensus"
    means = np.mean([overall(row) for row in humans.scorers], axis=0)
    assert overall(humans.mean) == pytest.approx(tuple(means), abs=1e-12)
    estimate = humans.mean.scores.overall["macro_f1"]
    assert estimate.low < estimate.value < estimate.high
    # 17 epochs in which somebody did not score are not held against them.
    assert sum(sum(row.scored.values()) - row.epochs for row in humans.scorers) == 17
    rows = entry_rows(store, corpus="dod-h", simulated=False, rule="full", resamples=10)
    assert [row.kind for row in rows] == ["imported"] * 3 + ["human mean"] + ["human"] * 5
    assert [row.name for row in rows[:3]] == ["DeepSleepNet", "SimpleNet", "SeqSleepNet"]
    assert verify_entries(store, home) == []


def test_the_weighted_protocol_of_the_publication(store: Store, home: Path, dod_h: Path) -> None:
    outcome = score(store, home, dod_h / "scorers.json", dod_h / "models.json", "net", model="SimpleNet")
    assert outcome.entry is not None and outcome.humans is not None
    assert round(100 * outcome.entry.protocols["dreem"]["f1"]["mean"], 1) == 89.9
    assert round(100 * outcome.humans.mean.protocols["dreem"]["f1"]["mean"], 1) == 86.8
    assert outcome.humans.mean.protocols["dreem"]["f1"]["recordings"] == 125
    shown = CliRunner().invoke(
        app,
        [
            *("--home", str(home), "--db", store.url, "score", "dod-h", "--truth", str(dod_h / "scorers.json")),
            *("--predictions", str(dod_h / "models.json"), "--model", "SimpleNet", "--name", "net", "--replace"),
            *("--protocol", "dreem", "--bootstrap", "10"),
        ],
    )
    assert shown.exit_code == 0, shown.output
    assert ".899" in shown.output and ".868" in shown.output
    assert "weighted by the consensus, mean ± SD over recordings" in " ".join(shown.output.split())


def test_folders_say_the_same_as_json_files(store: Store, home: Path, dod_h: Path, tmp_path: Path) -> None:
    truth = as_folders(read(dod_h / "scorers.json"), tmp_path / "scorers")
    models = as_folders(read(dod_h / "models.json"), tmp_path / "models")
    one = score(store, home, dod_h / "scorers.json", dod_h / "models.json", "a", model="SimpleNet")
    other = score(store, home, truth, models / "SimpleNet", "b")
    assert one.truth_hash == other.truth_hash
    assert one.entry is not None and other.entry is not None
    assert one.entry.scores == other.entry.scores
    assert len(list_entries(store)) == 7, "two submissions and five humans, who are the same"


def test_as_long_as_the_scorers_lists_works_too(store: Store, home: Path, dod_h: Path, tmp_path: Path) -> None:
    """A published hypnogram put back where it lies in the lists; a light trim moves its start by 60 epochs."""
    truth = truth_apart(store, "dod-h", dod_h / "scorers.json", simulated=False)
    models = read(dod_h / "models.json")["SimpleNet"]
    folder = tmp_path / "given"
    folder.mkdir()
    for name, codes in models.items():
        night = truth.nights[name]
        whole = np.zeros(len(night.stages), int)
        whole[night.first : night.stop] = codes
        np.save(folder / f"{name}.npy", whole)
    assert truth.nights["5bf0f969-304c-581e-949c-50c108f62846"].first == 60
    outcome = score(store, home, dod_h / "scorers.json", folder, "whole")
    assert outcome.entry is not None
    assert overall(outcome.entry) == pytest.approx(PUBLISHED["SimpleNet"], abs=0.001)


def test_a_registered_corpus_and_labels_apart_are_the_same_truth(
    store: Store, home: Path, dod_h: Path, tmp_path: Path
) -> None:
    scorers, models = read(dod_h / "scorers.json"), read(dod_h / "models.json")["SimpleNet"]
    # The first two have signals as long as the span, the trimmed one as long as the lists.
    names = ["119f9726-eb4c-5a0e-a7bb-9e15256149a1", "095d6e40-5f19-55b6-a0ec-6e0ad3793da0"]
    names.append("5bf0f969-304c-581e-949c-50c108f62846")
    raw, given = tmp_path / "dod-h", tmp_path / "given"
    given.mkdir()
    for place, name in enumerate(names):
        n_epochs = len(models[name]) if place < 2 else len(scorers["scorer_1"][name])
        write_signals(raw / f"{name}.h5", n_epochs, seed=place)
        write_lists(raw, name, [scorers[scorer][name] for scorer in sorted(scorers)])
        (given / f"{name}.json").write_text(json.dumps(models[name]))
    add_corpus(store, name="dod-h", root=raw, workers=1)
    some = {scorer: {name: own[name] for name in names} for scorer, own in scorers.items()}
    (tmp_path / "some.json").write_text(json.dumps(some))
    apart = truth_apart(store, "dod-h", tmp_path / "some.json", simulated=False)
    registered = truth_of_corpus(store, "dod-h")
    assert registered.kind == "corpus" and not registered.simulated
    assert registered.hash == apart.hash
    for name in names:
        assert (registered.nights[name].true == apart.nights[name].true).all()
        assert registered.nights[name].consensus_votes == apart.nights[name].consensus_votes
    asked = ["--home", str(home), "--db", store.url, "score", "dod-h", "--humans", "--rule", "full", "--json"]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    humans = json.loads(shown.stdout)["humans"]
    assert len(humans["scorers"]) == 5 and humans["mean"]["kind"] == "human mean"
    kept = list_entries(store)
    assert CliRunner().invoke(app, asked).exit_code == 0
    assert list_entries(store) == kept, "the same humans are not stored anew"
    outcome = score_outside(
        store, home, "dod-h", predictions=given, name="net", rule="full", resamples=10, author="those who made it"
    )
    assert outcome.entry is not None and outcome.entry.complete
    with pytest.raises(UserError, match="corpus 'dod-h' is registered as real"):
        score(store, home, tmp_path / "some.json", given, "sim", simulated=True)


def votes(*rows: list[int]) -> dict[str, dict[str, list[int]]]:
    return {f"scorer_{number}": {"n": row} for number, row in enumerate(rows, start=1)}


def test_each_scorer_is_held_against_the_others(store: Store, home: Path, tmp_path: Path) -> None:
    truth = as_folders(votes([0, 1, 2, 2], [0, 1, 2, 2], [0, 1, 2, 2], [0, 1, 2, 2], [0, 0, 2, 2]), tmp_path / "truth")
    outcome = score(store, home, truth, None, None)
    assert outcome.entry is None and outcome.humans is not None
    accuracy = [row.scores.overall["accuracy"].value for row in outcome.humans.scorers]
    assert accuracy == [1, 1, 1, 1, 0.75]
    rows = entry_rows(store, corpus="dod-h", simulated=False, rule="full", resamples=10)
    found = human_ceiling(rows, rule="full")
    assert found is not None and found.note.best == "scorer_4", "of equally good ones the last name"
    assert found.note.ranges["accuracy"] == (0.75, 1.0)
    kappa = cohen_kappa_score([0, 1, 2, 2], [0, 0, 2, 2])
    assert found.note.pairwise_kappa == pytest.approx((6 * 1 + 4 * kappa) / 10)


def test_a_list_from_the_first_to_the_last_scored_epoch_fits_too(store: Store, home: Path, tmp_path: Path) -> None:
    """All have begun at epoch 2, but only one scores it, so the consensus begins an epoch later."""
    most = [0, 0, -1, 1, 2, 2]
    truth = as_folders(votes(most, most, most, most, [-1, -1, 0, 1, 2, 2]), tmp_path / "truth")
    for name, codes in (("span", [4, 1, 2, 2]), ("scored", [1, 2, 2]), ("lists", [4, 4, 4, 1, 2, 2])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "n.json").write_text(json.dumps(codes))
        outcome = score(store, home, truth, tmp_path / name, name)
        assert outcome.entry is not None
        assert (outcome.entry.epochs, outcome.entry.scores.overall["accuracy"].value) == (3, 1), name


def test_a_truth_is_known_by_its_scored_epochs_wherever_they_lie() -> None:
    here = truth_hash({"b": [-1, 0, -1, 2, -1], "a": [0]})
    assert truth_hash({"a": [-1, 0, -1], "b": [0, -1, 2]}) == here
    assert truth_hash({"a": [0], "b": [0, -1, 1]}) != here
    assert truth_hash({"a": [0], "b": [0, 2]}) != here
    assert truth_hash({"a": [0], "c": [0, -1, 2]}) != here


def test_a_scorer_who_lacks_a_night_is_shown_without_it(store: Store, home: Path, tmp_path: Path) -> None:
    lists = {f"scorer_{number}": {"a": [0, 1, 2], "b": [0, 2, 2]} for number in range(1, 6)}
    del lists["scorer_2"]["b"]
    outcome = score(store, home, as_folders(lists, tmp_path / "truth"), None, None)
    assert outcome.humans is not None
    second = outcome.humans.scorers[1]
    assert (second.recordings, second.covered) == (1, 0.5)
    assert second.coverage == "partial: 1 of 2 recordings, 50.0 % of the epochs"
    assert any("b: no list of scorer_2" in note for note in outcome.notes)
    record = next(row for row in list_entries(store) if row.name == "scorer_2")
    assert [night.predicted is None for night in read_kept(home, record)] == [False, True]
    assert verify_entries(store, home) == []


def test_what_makes_no_consensus_is_refused(store: Store, home: Path, tmp_path: Path) -> None:
    one = as_folders({"scorer_1": {"n": [0, 1]}}, tmp_path / "one")
    with pytest.raises(DataError, match="only scorer_1 has lists; a consensus needs at least 2"):
        score(store, home, one, None, None)
    apart = as_folders({"scorer_1": {"n": [0, 1, -1, -1]}, "scorer_2": {"n": [-1, -1, 0, 1]}}, tmp_path / "apart")
    with pytest.raises(DataError, match="n: its scorers have no epoch in common"):
        score(store, home, apart, None, None)
    single = tmp_path / "single"
    single.mkdir()
    (single / "n.json").write_text("[0, 1]")
    with pytest.raises(UserError, match="one person scored its nights; a human ceiling needs several"):
        score(store, home, single, None, None)
    broken = as_folders(votes([0, 1], [0, 7]), tmp_path / "broken")
    with pytest.raises(DataError, match="'7' at epoch 1 is no stage code"):
        score(store, home, broken, None, None)


def test_weighted_figures_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for stages in ([0, 1, 2, 3, 4], [0, 2, 4]):
        true = rng.choice([-1, *stages], 400)
        said = rng.choice([-1, 0, 1, 2, 3, 4], 400)
        weight = rng.choice([0.25, 0.5, 0.75, 1.0], 400)
        found = weighted_figures(true, said, weight)
        kept = true != -1
        y, p, w = true[kept], said[kept], weight[kept]
        how = {"labels": [0, 1, 2, 3, 4], "sample_weight": w, "zero_division": 0}
        assert found["f1"] == pytest.approx(f1_score(y, p, average="weighted", **how))
        each = f1_score(y, p, average=None, **how)
        assert [found[f"f1_{name}"] for name in ("W", "N1", "N2", "N3", "REM")] == pytest.approx(list(each))
        assert found["kappa"] == pytest.approx(cohen_kappa_score(y, p, sample_weight=w))
        assert found["accuracy"] == pytest.approx(((y == p) * w).sum() / w.sum())
    assert np.isnan(weighted_figures([-1], [0], [1.0])["f1"])
