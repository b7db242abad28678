"""Several corpora in one network: who trains, who is judged, and that nobody does both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from edf_files import write_night
from test_plan import corpus, ids, planned
from training_nights import SHORT, night

from tusp.datasets import catalog
from tusp.datasets.splits import corpus_of, make_split
from tusp.datasets.subsets import choose, people_of
from tusp.jobs.cell import run_cell
from tusp.jobs.job import CellJob
from tusp.jobs.plan import HELD_OUT, CorpusNights, Plan, Request, hold_out_hash, make_plan
from tusp.jobs.submit import choose_hold_out
from tusp.platform.errors import UserError
from tusp.platform.store.session import Store, open_store

A, B, C = corpus("a"), corpus("b"), replace(corpus("c"), hold_out=True)


def entries(plan: Plan) -> list[dict[str, dict[str, Any]]]:
    """What every cell says of every corpus."""
    return [{entry["name"]: entry for entry in task.cell.plan["corpora"]} for task in plan.tasks]


def test_joint_trains_one_network_and_judges_it_on_each_corpus_and_on_the_held_out_one() -> None:
    plan = planned(A, B, C, experiment="joint")
    assert len(plan.tasks) == 4 * 2
    assert {task.cell.corpus for task in plan.tasks} == {"a+b"}
    for task, said in zip(plan.tasks, entries(plan), strict=True):
        assert set(task.judged_on) == {"a", "b", "c"}
        for name in "ab":
            assert said[name]["train"] and said[name]["validation"] and said[name]["test"]
            assert said[name]["split"] == plan.splits[name].hash
        assert said["c"]["train"] == said["c"]["validation"] == {}
        assert len(said["c"]["test"]) == len(C.recordings)
        assert said["c"]["protocol"] == HELD_OUT
        assert said["c"]["split"] == hold_out_hash(C)
        assert set(task.nights) == {"a", "b", "c"}
        assert task.judged == {(name, night) for name, entry in said.items() for night in entry["test"]}


def test_joint_tests_the_same_people_of_a_corpus_as_within() -> None:
    """So that a corpus's own network and the joint one can be compared person by person."""
    alone = {task.cell.fold: task.cell.plan["corpora"][0]["test"] for task in planned(A).tasks}
    for task, said in zip((together := planned(A, B, experiment="joint")).tasks, entries(together), strict=True):
        assert said["a"]["test"] == alone[task.cell.fold]


def test_transfer_trains_on_each_corpus_and_judges_on_all_others() -> None:
    plan = planned(A, B, C, experiment="transfer")
    assert {task.cell.corpus for task in plan.tasks} == {"a", "b"}, "c is never trained on"
    for task, said in zip(plan.tasks, entries(plan), strict=True):
        for name, entry in said.items():
            assert bool(entry["train"]) == (name == task.cell.corpus)
            assert len(entry["test"]) == (4 if name == task.cell.corpus else 16)


def test_the_order_of_a_command_changes_no_cell() -> None:
    for experiment in ("joint", "transfer"):
        assert ids(planned(A, B, C, experiment=experiment)) == ids(planned(C, B, A, experiment=experiment))


def test_what_is_held_out_can_be_chosen() -> None:
    assert {t.cell.corpus for t in planned(A, B, C, experiment="joint", hold_out=["a"]).tasks} == {"b+c"}
    assert {t.cell.corpus for t in planned(A, B, C, experiment="joint", hold_out=[]).tasks} == {"a+b+c"}


def test_experiments_are_not_confused_by_their_cells() -> None:
    within, joint = planned(A, B), planned(A, B, experiment="joint")
    assert not set(ids(within).values()) & set(ids(joint).values())
    alone = planned(A, B, experiment="transfer")
    assert not set(ids(within).values()) & set(ids(alone).values()), "judged on more"


@pytest.mark.parametrize(
    ("corpora", "changes", "message"),
    [
        ((A, B), {"experiment": "all"}, "--experiment all: must be one of within, joint, transfer"),
        ((A,), {"experiment": "joint"}, "needs at least two corpora"),
        ((C, replace(C, name="d")), {"experiment": "joint"}, r"all corpora \(c, d\) are held out"),
        ((A, B), {"experiment": "joint", "hold_out": ["x"]}, r"--hold-out x: not among the corpora .* \(a, b\)"),
        ((A, B), {"hold_out": ["a"]}, "experiment within trains and judges each corpus alone"),
        ((A, corpus("b", eog=False)), {"experiment": "joint"}, "b: no EOG channel, which the other corpora have"),
        (
            (A, replace(A, name="a:half")),
            {"experiment": "joint"},
            "a and a:half share people, who would train and be judged",
        ),
        (
            (replace(A, name="a" * 120), replace(B, name="b" * 120)),
            {"experiment": "joint"},
            "register them under shorter names",
        ),
        ((A, corpus("s", simulated=True)), {"experiment": "joint"}, "never meet in one submission"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    corpora: tuple[CorpusNights, ...], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        planned(*corpora, **changes)
    assert "\n" not in str(caught.value)


def test_a_corpus_and_its_subset_may_stand_side_by_side_where_each_is_alone() -> None:
    assert {t.cell.corpus for t in planned(A, replace(A, name="a:half")).tasks} == {"a", "a:half"}


def _cell_of(tmp_path: Path, **changes: Any) -> tuple[Plan, CellJob]:
    prepared = tmp_path / "prepared"
    toys = [
        CorpusNights(
            name=name,
            simulated=True,
            recordings=[night(prepared, f"{name}{n}", corpus=corpus_of(name), n_epochs=30, seed=n) for n in range(4)],
            hold_out=name == "kept",
        )
        for name in changes.pop("names")
    ]
    plan = make_plan(Request(ablation="csja", recipe=SHORT, folds=2, **changes), toys)
    task = plan.tasks[0]
    nights = {name: {n: str(path) for n, path in found.items()} for name, found in task.nights.items()}
    return plan, CellJob(id=task.cell.id, plan=task.cell.plan, home=str(tmp_path / "home"), nights=nights)


def test_a_joint_cell_runs_and_counts_every_corpus_apart(tmp_path: Path) -> None:
    plan, job = _cell_of(tmp_path, names=("one", "two", "kept"), experiment="joint")
    outcome = run_cell(job)
    judged = {(row["corpus"], row["recording"]) for row in outcome["counts"]}
    assert judged == plan.tasks[0].judged
    assert len([name for name, _ in judged if name == "kept"]) == 4
    assert {artefact["recording"] for artefact in outcome["artefacts"] if artefact["recording"]} == {
        f"{name}/{recording}" for name, recording in judged
    }


def test_a_subsets_cell_runs_on_the_corpuss_nights_and_stands_under_its_own_name(tmp_path: Path) -> None:
    plan, job = _cell_of(tmp_path, names=("toy:half",))
    outcome = run_cell(job)
    assert {row["corpus"] for row in outcome["counts"]} == {"toy:half"}
    assert plan.splits["toy:half"].corpus == "toy:half"


# --- subsets ---


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with Sleep-EDF nights of three people, one of them beyond the first twenty."""
    for name in ("SC4001", "SC4191", "SC4201"):
        write_night(tmp_path / "nights", name, seed=int(name[2:]))
    store = open_store(f"sqlite:///{tmp_path / 'tusp.db'}")
    catalog.add_corpus(store, name="sedf-sc", root=tmp_path / "nights")
    return store


@pytest.mark.parametrize("label", ["sedf-20", "sedf-sc:sedf-20"])
def test_a_subset_is_found_by_its_name(store: Store, label: str) -> None:
    chosen = choose(store, label)
    assert (chosen.corpus, chosen.label) == ("sedf-sc", "sedf-sc:sedf-20")
    assert set(people_of(store, label)) == {"SC400", "SC419"}
    assert set(people_of(store, "sedf-sc")) == {"SC400", "SC419", "SC420"}


def test_a_subset_of_two_registered_corpora_must_be_named_in_full(store: Store, tmp_path: Path) -> None:
    catalog.add_corpus(store, name="again", root=tmp_path / "nights", adapter="sedf-sc")
    with pytest.raises(UserError, match="2 registered corpora; say again:sedf-20 or sedf-sc:sedf-20"):
        choose(store, "sedf-20")
    assert choose(store, "again:sedf-20").corpus == "again"


def test_an_unknown_corpus_or_subset_is_one_line(store: Store) -> None:
    with pytest.raises(UserError, match=r"corpus 'sedf-sc' has no subset 'sedf-10'; it has sedf-20"):
        choose(store, "sedf-sc:sedf-10")
    with pytest.raises(UserError, match=r"corpus 'mass' is not registered; registered: sedf-sc"):
        choose(store, "mass")


def test_a_subsets_split_is_its_own(store: Store) -> None:
    everybody, subset = (people_of(store, label) for label in ("sedf-sc", "sedf-sc:sedf-20"))
    assert make_split("sedf-sc", everybody, protocol="kfold", folds=3, seed=0).hash
    with pytest.raises(UserError, match="corpus sedf-sc:sedf-20: 3 folds need at least 3 people"):
        make_split("sedf-sc:sedf-20", subset, protocol="kfold", folds=3, seed=0)


def test_hold_out_none_holds_nothing_out(store: Store) -> None:
    assert choose_hold_out(store, None) is None
    assert choose_hold_out(store, ["none"]) == []
    assert choose_hold_out(store, ["sedf-20"]) == ["sedf-sc:sedf-20"]
