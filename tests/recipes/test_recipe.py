"""Recipes: complete, validated, and the same again from YAML."""

import pytest
from pydantic import ValidationError

from similitude.errors import UserError
from similitude.methods import build_method
from similitude.recipes import RECIPES, cifar10, dump_recipe, find_recipe, load_recipe, override
from similitude.recipes.recipe import because

CIFAR = RECIPES["cifar10.simclr"]()


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_yaml_and_back_is_the_same_recipe(name, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(RECIPES[name]()))
    assert load_recipe(path) == RECIPES[name]()


# Those of ImageNet are large; several sensors are known by their table alone.
@pytest.mark.parametrize(
    "name", sorted(n for n in RECIPES if not n.startswith(("imagenet", "multimodal")))
)
def test_every_small_recipe_builds(name):
    recipe = find_recipe(name)
    method = build_method(recipe.method, recipe.backbone.build())
    assert method.config == recipe.method


def test_override_replaces_one_field_and_nothing_else():
    changed = override(CIFAR, ["method.temperature=0.5"])
    assert changed.method.temperature == 0.5
    assert override(changed, ["method.temperature=0.2"]) == CIFAR


def test_override_reads_yaml_values():
    changed = override(
        CIFAR,
        [
            "method.view.crop_scale=[0.5, 1]",
            "micro_batch_size=64",
            "backbone.base_width=null",
            "method.projector_norm=false",
        ],
    )
    assert changed.method.view.crop_scale == (0.5, 1.0)
    assert changed.micro_batch_size == 64
    assert changed.backbone.base_width is None
    assert changed.method.projector_norm is False


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("method.temprature=0.2", "did you mean temperature"),
        ("epoch=3", "did you mean epochs"),
        ("epochs.x=3", "no field 'x' in epochs"),
        ("temperature=0.5", "no field 'temperature' in a recipe: did you mean method.temperature"),
        ("method.temperature=-1", "temperature.*greater than 0"),
        ("method.temperature", "FIELD=VALUE"),
        ("epochs=0", "epochs.*greater than or equal to 1"),
        ("method.view.flip=2", "flip.*less than or equal to 1"),
        ("optimizer.name=rmsprop", "sgd"),
        ("method.name=byol", "--method"),
        ("epochs=[1", "not valid YAML"),
    ],
)
def test_a_wrong_setting_is_one_clear_sentence(assignment, words):
    with pytest.raises(UserError, match=words) as error:
        override(CIFAR, [assignment])
    assert "\n" not in str(error.value)


def test_unknown_recipes_are_told_with_the_nearest_names(tmp_path):
    with pytest.raises(UserError, match=r"cifar10\.simclr"):
        find_recipe("cifar10.simcrl")
    with pytest.raises(UserError, match=r"cannot read .*missing\.yaml"):
        find_recipe(tmp_path / "missing.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("method: [")
    with pytest.raises(UserError, match="not valid YAML"):
        find_recipe(broken)
    broken.write_text("just words")
    with pytest.raises(UserError, match="not a recipe"):
        find_recipe(broken)


def test_a_value_and_its_reason_are_written_together_and_the_value_is_checked():
    recipe = because(cifar10.simclr(), "it is so", epochs=3, **{"optimizer.warmup_epochs": 0.5})
    assert (recipe.epochs, recipe.optimizer.warmup_epochs) == (3, 0.5)
    assert recipe.reasons == {"epochs": "it is so", "optimizer.warmup_epochs": "it is so"}
    for wrong in ({"method.temprature": 0.1}, {"method.temperature": -3}, {"optimizer.lr": 1}):
        with pytest.raises((ValidationError, AttributeError)):
            because(recipe, "", **wrong)
