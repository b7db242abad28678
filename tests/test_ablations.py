"""Arms of every ablation: what they change, what they share, and when they are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from training_nights import SHORT

from tusp.jobs.recipes import PAPER, QUICK, Recipe, full_arm, recipe_settings, with_changes
from tusp.models.ablations import ABLATIONS, Arm, Arms, arms_of
from tusp.models.families import families, family_called, from_plan, model_settings
from tusp.platform.errors import UserError


def arms(ablation: str, recipe: Recipe = PAPER, channels: tuple[str, ...] = ("EEG", "EOG"), **more: Any) -> Arms:
    return arms_of(ablation, full_arm(recipe, channels=channels), recipe_settings(recipe), **more)


@pytest.mark.parametrize("recipe", [PAPER, QUICK], ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_the_reference_comes_first_and_arms_differ(ablation: str, recipe: Recipe) -> None:
    found = arms(ablation, recipe)
    assert next(iter(found)) == "full"
    assert found["full"] == full_arm(recipe, channels=("EEG", "EOG"))
    assert len(found) > 1
    distinct = {
        repr((arm.family, arm.settings, arm.channels, sorted(arm.recipe.items(), key=str))) for arm in found.values()
    }
    assert len(distinct) == len(found)
    for arm in found.values():
        assert arm.settings.n_channels == len(arm.channels)
        with_changes(recipe, arm.recipe)  # every change is one that a recipe takes


def test_one_name_means_one_configuration_in_every_ablation() -> None:
    known: dict[str, Arm] = {}
    for ablation in ABLATIONS:
        for name, arm in arms(ablation).items():
            assert known.setdefault(name, arm) == arm, name


def test_attention_is_switched_and_nothing_else() -> None:
    found = arms("attention")
    switches = {name: (a.settings.csja, a.settings.se_bottom, a.settings.se_classifier) for name, a in found.items()}
    assert switches == {
        "full": (True, True, True),
        "no-csja": (False, True, True),
        "no-se": (True, False, False),
        "plain": (False, False, False),
    }
    for arm in found.values():
        again = replace(arm, settings=replace(arm.settings, csja=True, se_bottom=True, se_classifier=True))
        assert again == found["full"]
    assert list(arms("csja")) == ["full", "no-csja"]
    assert list(arms("se")) == ["full", "no-se"]


def test_channels_are_eeg_and_eog_two_eeg_or_one() -> None:
    assert {name: arm.channels for name, arm in arms("channels").items()} == {
        "full": ("EEG", "EOG"),
        "two-eeg": ("EEG", "EEG"),
        "one-eeg": ("EEG",),
    }
    with pytest.raises(UserError, match="the corpus has no EOG channel"):
        arms("channels", channels=("EEG",))


def test_context_keeps_the_epochs_of_a_batch_and_covers_every_epoch() -> None:
    found = {name: with_changes(PAPER, arm.recipe) for name, arm in arms("context").items()}
    assert {name: recipe.window_epochs for name, recipe in found.items()} == {
        "full": 31,
        "context-1": 1,
        "context-11": 11,
    }
    for recipe in found.values():
        assert recipe.window_epochs * recipe.batch_size == pytest.approx(31 * 16, rel=0.02)
        assert 1 <= recipe.prediction_stride <= recipe.window_epochs
    short = {name: with_changes(QUICK, arm.recipe).window_epochs for name, arm in arms("context", QUICK).items()}
    assert short == {"full": 8, "context-1": 1, "context-11": 11, "context-31": 31}


def test_resolution_halves_the_rate_and_still_divides_an_epoch() -> None:
    rates = {name: 128 // arm.settings.input_decimation for name, arm in arms("resolution").items()}
    assert rates == {"full": 128, "rate-64": 64, "rate-32": 32}


def test_augmentation_is_taken_away_or_added() -> None:
    without = with_changes(PAPER, arms("augmentation")["no-augmentation"].recipe).augmentation
    assert without.noise_probability == without.warp_probability == without.channel_dropout_probability == 0
    assert with_changes(QUICK, arms("augmentation", QUICK)["augmented"].recipe).augmentation == PAPER.augmentation


def test_networks_are_compared_by_name() -> None:
    assert list(arms("networks", networks=[])) == ["full", "plain", *(n for n in families() if n != "tinyustaging")]
    with pytest.raises(UserError, match="no network called 'resnet'; there are tinyustaging"):
        arms("networks", networks=["resnet"])
    with pytest.raises(UserError, match="name networks with --ablation networks"):
        arms("csja", networks=["tinyustaging"])


@pytest.mark.parametrize("name", families())
def test_a_family_comes_back_from_a_plan(name: str) -> None:
    family = family_called(name)
    settings = family.settings_from({"n_channels": 2})
    again, same = from_plan(model_settings(name, settings))
    assert again.name == name
    assert same == settings
    with_changes(SHORT, {**family.recipe})


def test_an_unknown_family_or_setting_is_one_clear_line() -> None:
    with pytest.raises(UserError, match="no network called 'resnet'; there are tinyustaging"):
        family_called("resnet")
    with pytest.raises(UserError, match="tinyustaging has no setting 'depth'; it has classifier_width, complexity"):
        family_called("tinyustaging").settings_from({"depth": 3})
