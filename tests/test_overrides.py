"""`--set key=value`: any setting by its name, in its own type, with one clear line for a wrong one."""

from __future__ import annotations

import pytest

from tusp.jobs.overrides import known_settings, parse_settings, with_settings
from tusp.jobs.recipes import PAPER, QUICK, RECIPES, Recipe, full_arm
from tusp.platform.errors import UserError


def test_settings_of_recipe_augmentation_and_network_are_set() -> None:
    changed = with_settings(
        PAPER,
        [
            "learning_rate=1e-3",
            "batch_size=4",
            "loss=dice",
            "class_weights=[1, 1, 1, 1, 1]",
            "augmentation.noise_sigma=0.5",
            "augmentation.warp_alpha=[0, 10]",
            "network.csja_kernel=7",
            "network.csja_combine=add",
            "network.classifier_width=9",
        ],
    )
    assert (changed.learning_rate, changed.batch_size, changed.loss) == (1e-3, 4, "dice")
    assert changed.class_weights == (1.0,) * 5
    assert changed.augmentation.noise_sigma == 0.5
    assert changed.augmentation.warp_alpha == (0.0, 10.0)
    assert changed.augmentation.noise_probability == PAPER.augmentation.noise_probability
    network = full_arm(changed, channels=("EEG", "EOG")).settings
    assert (network.csja_kernel, network.csja_combine, network.classifier_width) == (7, "add", 9)


def test_a_changed_recipe_has_a_name_of_its_own() -> None:
    one, other = with_settings(QUICK, ["batch_size=4"]), with_settings(QUICK, ["batch_size=2"])
    assert len({QUICK.name, one.name, other.name}) == 3
    assert one.name.startswith("quick+")
    assert len(one.name) <= 32  # the store's column
    assert with_settings(QUICK, ["batch_size=4"]) == one


def test_setting_what_is_set_already_changes_nothing() -> None:
    assert with_settings(QUICK, [f"batch_size={QUICK.batch_size}"]) == QUICK


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_every_setting_can_be_set_to_what_it_is(recipe: Recipe) -> None:
    def text(value: object) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        return str(list(value)) if isinstance(value, tuple) else str(value)

    texts = [f"{key}={text(value)}" for key, value in known_settings(recipe).items() if value is not None]
    assert with_settings(recipe, texts) == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate", "--set learning_rate: must be key=value"),
        ("=3", "--set =3: must be key=value"),
        ("lerning_rate=3", "recipe paper has no such setting; did you mean learning_rate?"),
        ("name=mine", "recipe paper has no such setting"),
        ("network.n_channels=3", "recipe paper has no such setting"),
        ("batch_size=3.5", r"--set batch_size=3.5: must be a whole number \(it is 16 in this recipe\)"),
        ("batch_size=true", "must be a whole number"),
        ("batch_size=0", "batch_size = 0: must be at least 1"),
        ("learning_rate=fast", "--set learning_rate=fast: must be a number"),
        ("class_weights=[1, 2]", "must be numbers in brackets, for example .*, 5 of them"),
        ("network.csja=maybe", "must be true or false"),
        ("network.pools=[7, 8]", "which does not divide an epoch"),
        ("loss=hinge", "loss = 'hinge': must be one of focal"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        with_settings(PAPER, [text])
    assert "\n" not in str(caught.value)


def test_a_setting_given_twice_is_refused() -> None:
    with pytest.raises(UserError, match="--set batch_size: given twice"):
        parse_settings(PAPER, ["batch_size=2", "batch_size=4"])
