"""What a change of structure must leave as it is; `tests/golden/make.py` says what and makes it."""

import json
import shutil

import pytest
import yaml

from builders import IMAGE_METHODS, random_images
from golden import make
from similitude import load, pretrain
from similitude.recipes import RECIPES, parse_recipe

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked_runs")]

TRACES = json.loads((make.HERE / "traces.json").read_text())


@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_twenty_steps_give_the_same_numbers(name):
    made, kept = make.trace(name), TRACES[name]

    if make.machine() == TRACES["machine"]:
        assert made == kept
    else:
        assert made["losses"][:10] == pytest.approx(kept["losses"][:10], rel=1e-3)


def test_every_recipe_says_the_same():
    assert make.recipes() == (make.HERE / "recipes.yaml").read_text()


def test_recipes_from_before_data_was_of_a_kind_are_the_same():
    """They had sizes, mean and std at the top, and no kind."""
    old = (make.HERE / "recipes_of_before.yaml").read_text()
    for document in old.split("--- # ")[1:]:
        name, _, text = document.partition("\n")
        assert parse_recipe(yaml.safe_load(text), name) == RECIPES[name]()


@pytest.mark.parametrize("name", make.RUNS)
def test_the_page_of_a_stored_run_is_the_same(name):
    folder = make.HERE / "stored" / name

    assert make.page(folder) == (folder / "page.html").read_text()


def test_a_stored_run_goes_on(tmp_path):
    folder = shutil.copytree(make.HERE / "stored" / "stopped", tmp_path / "run")

    run = pretrain(random_images(64), out=folder, resume=True)

    assert run.checkpoint.step == make.STEPS


def test_a_stored_run_gives_its_scores_again(tmp_path):
    folder = shutil.copytree(make.HERE / "stored" / "finished", tmp_path / "run")
    kept = json.loads((folder / "evaluation.json").read_text())

    made = load(folder).evaluate(random_images(64)).to_json()

    for ours, theirs in zip(made["rows"], kept["rows"], strict=True):
        assert ours["name"] == theirs["name"]
        for column, score in theirs["scores"].items():
            assert ours["scores"][column]["mean"] == pytest.approx(score["mean"], abs=0.05)
