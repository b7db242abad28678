"""From a request to cells: an id says exactly what a cell is, and nothing about how or where it is run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from training_nights import SHORT

from tusp.datasets.prepared import PreparedRecording
from tusp.jobs import plan as plan_module
from tusp.jobs.job import CellJob, cell_folder
from tusp.jobs.plan import CorpusNights, Plan, Request, input_channels, make_plan
from tusp.jobs.recipes import (
    NO_AUGMENTATION,
    PAPER,
    RECIPES,
    Recipe,
    full_arm,
    recipe_called,
    recipe_from_settings,
    recipe_settings,
)
from tusp.models.config import NetworkConfig
from tusp.models.families import from_plan
from tusp.platform.errors import UserError
from tusp.platform.identity import SCHEMA_VERSION, fingerprint

PEOPLE = tuple(f"p{number}" for number in range(8))


def recording(
    name: str, *, corpus: str = "toy", version: int = 1, eog: bool = True, **changes: Any
) -> PreparedRecording:
    """A prepared night as the plan sees it; nothing is read from its folder."""
    values: dict[str, Any] = {
        "corpus": corpus,
        "name": name,
        "subject": name.split("-")[0],
        "simulated": False,
        "fingerprint": fingerprint([corpus, name, version]),
        "folder": Path("/prepared") / corpus / name,
        "channels": ("C3", "E1")[: 1 + eog],
        "groups": {"EEG": (0,), "EOG": (1,)} if eog else {"EEG": (0,)},
        "n_epochs": 10,
        "first_epoch": 0,
        "problems": (),
    }
    return PreparedRecording(**{**values, **changes})


def corpus(name: str = "toy", *, simulated: bool = False, **changes: Any) -> CorpusNights:
    """Eight people with two nights each."""
    nights = [
        recording(f"{person}-{number}", corpus=name, simulated=simulated, **changes)
        for person in PEOPLE
        for number in "12"
    ]
    return CorpusNights(name=name, simulated=simulated, recordings=nights)


def planned(*corpora: CorpusNights, **changes: Any) -> Plan:
    request: dict[str, Any] = {"ablation": "csja", "recipe": SHORT, "folds": 4}
    return make_plan(Request(**{**request, **changes}), corpora or [corpus()])


def ids(plan: Plan) -> dict[tuple[str, str, int, int], str]:
    """Ids by corpus, arm, fold and seed."""
    return {(t.cell.corpus, t.cell.arm, t.cell.fold, t.cell.seed): t.cell.id for t in plan.tasks}


def first(**changes: Any) -> str:
    return ids(planned(**changes))["toy", "full", 0, 0]


# --- what is planned ---


def test_one_cell_for_every_arm_fold_and_seed_of_every_corpus() -> None:
    plan = planned(corpus("a"), corpus("b"), seeds=(0, 1), ablation="attention")
    assert set(ids(plan)) == {
        (name, arm, fold, seed)
        for name in "ab"
        for arm in ("full", "no-csja", "no-se", "plain")
        for fold in range(4)
        for seed in (0, 1)
    }
    assert len({task.cell.id for task in plan.tasks}) == len(plan.tasks) == 64


def test_arms_of_a_fold_come_together_so_that_an_early_end_leaves_whole_folds() -> None:
    order = [(task.cell.fold, task.cell.arm) for task in planned().tasks]
    assert order == [(fold, arm) for fold in range(4) for arm in ("full", "no-csja")]


def test_no_person_is_in_two_parts_and_everyone_is_tested_once() -> None:
    tested: list[str] = []
    for task in planned().tasks:
        entry = task.cell.plan["corpora"][0]
        people = {role: {name.split("-")[0] for name in entry[role]} for role in ("train", "validation", "test")}
        assert all(people.values())
        assert sum(map(len, people.values())) == len(set.union(*people.values())) == len(PEOPLE)
        assert task.judged == {("toy", name) for name in entry["test"]}
        if task.cell.arm == "full":
            tested += people["test"]
    assert sorted(tested) == sorted(PEOPLE)


def test_arms_differ_in_their_switches_alone() -> None:
    by_arm = {task.cell.arm: task.cell.plan for task in planned(ablation="attention").tasks if task.cell.fold == 1}
    for arm, plan in by_arm.items():
        assert {**plan, "model": None} == {**by_arm["full"], "model": None}
        switches = {name for name, value in plan["model"].items() if value != by_arm["full"]["model"][name]}
        expected = {"full": set(), "no-csja": {"csja"}, "no-se": {"se_bottom", "se_classifier"}}
        assert switches == expected.get(arm, {"csja", "se_bottom", "se_classifier"})


def test_a_task_knows_where_every_night_of_its_plan_lies() -> None:
    for task in planned().tasks:
        entry = task.cell.plan["corpora"][0]
        used = {name for role in ("train", "validation", "test") for name in entry[role]}
        assert set(task.nights["toy"]) == used
        assert all(path == Path("/prepared/toy") / name for name, path in task.nights["toy"].items())


# --- identity ---


def test_an_id_is_the_hash_of_the_stored_plan() -> None:
    for task in planned().tasks:
        assert fingerprint(json.loads(json.dumps(task.cell.plan))) == task.cell.id
        assert task.cell.plan["schema"] == SCHEMA_VERSION


def test_a_plan_names_its_split() -> None:
    """Two divisions can give one fold the same people; they are two experiments all the same."""
    plan = planned()
    for task in plan.tasks:
        entry = task.cell.plan["corpora"][0]
        assert entry["split"] == task.cell.split_hash == plan.splits["toy"].hash
        assert (entry["protocol"], entry["fold"], entry["folds"]) == ("kfold", task.cell.fold, 4)


def test_cells_that_ablations_share_are_one_cell_of_one_name() -> None:
    csja, se, attention = (ids(planned(ablation=name)) for name in ("csja", "se", "attention"))
    assert csja.items() <= attention.items()
    assert se.items() <= attention.items()
    assert len(csja.items() & se.items()) == 4
    by_id: dict[str, str] = {}
    for made in (csja, se, attention):
        for (_, arm, _, _), cell in made.items():
            assert by_id.setdefault(cell, arm) == arm


def test_ids_do_not_depend_on_the_company_or_order_of_corpora() -> None:
    a, b = corpus("a"), corpus("b")
    together = ids(planned(a, b))
    assert together == ids(planned(b, a)) == {**ids(planned(a)), **ids(planned(b))}
    shuffled = replace(a, recordings=list(reversed(a.recordings)))
    assert ids(planned(shuffled)) == ids(planned(a))


def test_ids_do_not_depend_on_where_the_nights_lie_or_what_was_said_of_them() -> None:
    elsewhere = corpus(folder=Path("/somewhere/else"), problems=("a gap",))
    assert ids(planned(elsewhere)) == ids(planned())


def test_ids_of_a_seed_do_not_depend_on_the_other_seeds() -> None:
    assert ids(planned(seeds=(1,))).items() <= ids(planned(seeds=(0, 1, 2))).items()


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": (1,)},
        {"split_seed": 1},
        {"folds": 3},
        {"protocol": "paper"},
        {"recipe": PAPER},
        {"recipe": replace(SHORT, name="other")},
        {"recipe": replace(SHORT, network={**SHORT.network, "complexity_factor": 0.5})},
        {"recipe": replace(SHORT, augmentation=replace(SHORT.augmentation, noise_sigma=0.3))},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_an_id_changes_with_the_request(changes: Mapping[str, Any]) -> None:
    seed = changes.get("seeds", (0,))[0]
    assert ids(planned(**changes))["toy", "full", 0, seed] != first()


OTHER_VALUES: dict[str, Any] = {
    "loss": "dice",
    "class_weights": (0.1, 0.3, 0.2, 0.2, 0.2),
    "optimizer": "adam",
    "schedule": "plateau",
    "precision": "float32",
    "betas": (0.8, 0.999),
}


@pytest.mark.parametrize("setting", sorted(set(recipe_settings(SHORT)) - {"augmentation", "name"}))
def test_an_id_changes_with_every_setting_of_the_recipe(setting: str) -> None:
    value = OTHER_VALUES.get(setting)
    if value is None:
        value = getattr(SHORT, setting) + (0.5 if isinstance(getattr(SHORT, setting), float) else 1)
    if setting in {"prediction_stride", "validation_stride"}:
        value = 2
    assert value != getattr(SHORT, setting)
    assert first(recipe=replace(SHORT, **{setting: value})) != first()


def test_an_id_changes_with_one_fingerprint_of_any_role() -> None:
    """Of every night, since each is trained on, validates or is tested."""
    whole = corpus()
    for index, one in enumerate(whole.recordings):
        nights = list(whole.recordings)
        nights[index] = recording(one.name, version=2)
        assert not set(ids(planned(replace(whole, recordings=nights))).values()) & set(ids(planned(whole)).values())


def test_an_id_changes_with_the_simulated_flag_and_the_training_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = first()
    assert ids(planned(corpus(simulated=True)))["toy", "full", 0, 0] != before
    monkeypatch.setattr(plan_module, "TRAINING_VERSION", -1)
    assert first() != before


def test_an_id_changes_with_the_people_of_the_split() -> None:
    whole = corpus()
    fewer = replace(whole, recordings=[one for one in whole.recordings if one.name != "p0-2"])
    assert not set(ids(planned(fewer)).values()) & set(ids(planned(whole)).values())


# --- refusals ---


def test_simulated_and_real_never_meet() -> None:
    with pytest.raises(UserError, match=r"simulated \(b, c\) and real corpora never meet in one submission"):
        planned(corpus("a"), corpus("b", simulated=True), corpus("c", simulated=True))
    assert planned(corpus("b", simulated=True)).simulated
    assert not planned(corpus("a")).simulated


def test_a_corpus_with_eog_in_some_nights_only_is_refused() -> None:
    whole = corpus()
    mixed = replace(whole, recordings=[*whole.recordings[:-1], recording("p7-2", eog=False)])
    with pytest.raises(UserError, match=r"toy: 1 of 16 nights have no EOG channel \(first: p7-2\)"):
        planned(mixed)


def test_eeg_alone_makes_a_network_of_one_channel() -> None:
    assert (input_channels(corpus()), input_channels(corpus(eog=False))) == (("EEG", "EOG"), ("EEG",))
    for plan, channels in ((planned(), 2), (planned(corpus(eog=False)), 1)):
        assert {task.cell.plan["model"]["n_channels"] for task in plan.tasks} == {channels}
        assert {len(task.cell.plan["channels"]) for task in plan.tasks} == {channels}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ablation": "nothing"}, "no ablation called 'nothing'"),
        ({"seeds": ()}, r"seeds \[\]: give at least one, each once"),
        ({"seeds": (1, 1)}, r"seeds \[1, 1\]: give at least one, each once"),
        ({"folds": 9}, "9 folds need at least 9 people"),
        ({"protocol": "loso"}, "protocol 'loso' is unknown"),
    ],
)
def test_an_impossible_request_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        planned(**changes)
    assert "\n" not in str(caught.value)


# --- settings that travel ---


@pytest.mark.parametrize("recipe", [*RECIPES.values(), SHORT], ids=lambda recipe: recipe.name)
def test_a_recipe_comes_back_from_a_stored_plan(recipe: Recipe) -> None:
    stored = json.loads(json.dumps(recipe_settings(recipe)))
    assert recipe_from_settings(stored) == replace(recipe, network={})
    assert fingerprint(stored) == fingerprint(recipe_settings(recipe))


def test_a_network_comes_back_from_a_stored_plan() -> None:
    for task in planned(ablation="attention").tasks[:4]:
        stored = json.loads(json.dumps(task.cell.plan["model"]))
        family, config = from_plan(stored)
        assert config == planned(ablation="attention").arms["toy"][task.cell.arm].settings
        assert {"family": family.name, **asdict(config)} == task.cell.plan["model"]


def test_the_published_recipe_is_the_published_one() -> None:
    assert full_arm(PAPER, channels=("EEG", "EOG")).settings == NetworkConfig()
    assert (PAPER.optimizer, PAPER.learning_rate, PAPER.betas, PAPER.epsilon) == ("adam", 5e-6, (0.9, 0.999), 1e-8)
    assert (PAPER.window_epochs, PAPER.batch_size, PAPER.epochs_per_pass) == (31, 16, 500_000)
    assert (PAPER.loss, PAPER.focal_gamma, PAPER.class_weights) == ("focal+dice", 2, (0.2, 0.3, 0.2, 0.2, 0.2))
    assert (PAPER.schedule, PAPER.plateau_factor) == ("plateau", 0.2)
    assert 30 <= PAPER.plateau_patience <= 40
    assert 100 <= PAPER.stop_patience <= 200
    assert PAPER.augmentation != NO_AUGMENTATION
    assert PAPER.weight_decay == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer = 'sgd': must be one of adam, adamw"),
        ({"schedule": "step"}, "schedule = 'step': must be one of plateau, one-cycle"),
        ({"precision": "half"}, "precision = 'half': must be one of auto, float32, bf16"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0: must be above 0"),
        ({"batch_size": 0}, "batch_size = 0: must be at least 1"),
        ({"class_weights": (1.0, 1.0)}, "must be one weight for each of W, N1, N2, N3, REM"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(SHORT, **change)


def test_recipes_are_found_by_name() -> None:
    assert {recipe_called(name).name for name in RECIPES} == set(RECIPES) >= {"paper", "quick"}
    with pytest.raises(UserError, match="no recipe called 'slow'; there are standard, paper, quick"):
        recipe_called("slow")


def test_a_job_travels_as_json() -> None:
    task = planned().tasks[0]
    nights = {name: {n: str(path) for n, path in found.items()} for name, found in task.nights.items()}
    job = CellJob(id=task.cell.id, plan=task.cell.plan, home="/home/tusp", nights=nights)
    again = CellJob(**json.loads(json.dumps(asdict(job))))
    assert fingerprint(again.plan) == job.id
    assert again.folder == cell_folder(Path("/home/tusp"), job.id) == Path("/home/tusp/cells") / job.id[:2] / job.id
