"""Every study can be run as it stands, and its expectations can turn out either way."""

import math
from pathlib import Path

import pytest
import torch

from builders import random_images
from similitude.ablation import find_study
from similitude.ablation.grid import folder_name
from similitude.ablation.studies import STUDIES
from similitude.ablation.study import COLLAPSED, MEASURES, Cell, Expectation, Study, judge
from similitude.errors import UserError
from similitude.images.backbones import build_backbone, check_input
from similitude.method import Batch, Progress
from similitude.methods import build_method
from similitude.recipes import Recipe, find_recipe, override
from similitude.recipes.choose import set_num_samples
from similitude.recipes.sizes import input_sizes

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked_runs")]

CELLS = [(name, cell) for name, study in STUDIES.items() for cell in study.cells]
EXPECTED = [(name, e) for name, study in STUDIES.items() for e in study.expected]


def recipe_of(study: Study, cell: Cell) -> Recipe:
    recipe = override(find_recipe(cell.recipe), [*study.settings, *cell.settings])
    return set_num_samples(recipe, study.images)


def label(value):
    return value if isinstance(value, str) else f"{value.cell}"


# --- cells -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STUDIES)
def test_cells_of_a_study_differ_in_name_folder_and_recipe(name):
    study = STUDIES[name]
    assert len({cell.name for cell in study.cells}) == len(study.cells) >= 2
    assert len({folder_name(cell.name) for cell in study.cells}) == len(study.cells)
    recipes = [recipe_of(study, cell).model_copy(update={"reasons": {}}) for cell in study.cells]
    for i, recipe in enumerate(recipes):
        assert recipe not in recipes[:i]


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_fits_into_ten_minutes_and_its_images(name):
    study = STUDIES[name]
    assert study.minutes <= 10
    for cell in study.cells:
        recipe = recipe_of(study, cell)
        steps = study.epochs * study.images // 128  # of the recipes' batch
        assert 250 <= steps <= 800  # fewer show nothing; a collapse shows within some hundred
        memory = getattr(recipe.method, "queue_length", 0)
        assert memory <= study.images // 2, "a key would meet its own older self"


@pytest.mark.parametrize("name", STUDIES)
def test_cells_of_a_study_share_what_is_not_studied(name):
    study = STUDIES[name]
    recipes = [recipe_of(study, cell) for cell in study.cells]
    studied = {setting.partition("=")[0] for cell in study.cells for setting in cell.settings}
    for field in {"backbone", "batch_size", "data"} - {name.split(".")[0] for name in studied}:
        assert len({str(getattr(recipe, field)) for recipe in recipes}) == 1, field
    assert len({str(input_sizes(recipe)) for recipe in recipes}) == 1


@pytest.mark.parametrize(("name", "cell"), CELLS, ids=lambda v: v if isinstance(v, str) else v.name)
def test_a_cell_trains_a_step_and_measures_what_is_expected_of_it(name, cell):
    study = STUDIES[name]
    recipe = recipe_of(study, cell)
    backbone = build_backbone(recipe.backbone)
    for size in input_sizes(recipe):
        check_input(backbone, recipe.backbone, size, recipe.data.image_size)
    method = build_method(recipe.method, backbone)
    n = 16
    images = random_images(n, recipe.data.image_size)
    views = method.views(recipe.facts)(images.take(slice(None)), torch.arange(n), seed=0, epoch=0)
    output = method.training_loss(Batch(views, torch.arange(n)), Progress(0, 10, 5))
    output.loss.backward()
    assert math.isfinite(output.loss.item())
    known = {*MEASURES, "loss", COLLAPSED, *output.metrics}
    for expectation in study.expected:
        if cell.name in (expectation.cell, expectation.than):
            assert expectation.measure in known


# --- expectations ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_says_what_was_published_where(name):
    study = STUDIES[name]
    assert study.question.endswith("?")
    assert study.expected
    assert any(expectation.published for expectation in study.expected)
    cells = {cell.name for cell in study.cells}
    for expectation in study.expected:
        assert expectation.cell in cells
        assert not isinstance(expectation.than, str) or expectation.than in cells
        assert expectation.than != expectation.cell


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_is_in_the_manual(name):
    page = (Path(__file__).parents[2] / "docs" / "ablations.md").read_text(encoding="utf-8")
    assert f"| `{name}` |" in page


def made_up(expectation: Expectation, distance: float) -> dict:
    """Two seeds whose cell lies ``distance`` beyond what is expected, in the right direction."""
    scale = MEASURES[expectation.measure][1] if expectation.measure in MEASURES else 1.0
    sign = 1 if expectation.relation == "above" else -1
    if not isinstance(expectation.than, str):
        if expectation.measure == COLLAPSED:
            share = 1.0 if sign * distance > 0 else 0.0
            return {expectation.cell: {COLLAPSED: [share, share]}}
        value = expectation.than + sign * (expectation.by + distance)
        return {expectation.cell: {expectation.measure: [value / scale] * 2}}
    other = [40.0 / scale, 60.0 / scale]
    ours = [value + sign * (expectation.by + distance) / scale for value in other]
    return {
        expectation.cell: {expectation.measure: ours},
        expectation.than: {expectation.measure: other},
    }


@pytest.mark.parametrize(("name", "expectation"), EXPECTED, ids=label)
def test_an_expectation_can_turn_out_either_way(name, expectation):
    assert judge(expectation, made_up(expectation, 0.01)).shows is True
    assert judge(expectation, made_up(expectation, -0.01)).shows is False
    line = judge(expectation, made_up(expectation, -0.01)).line
    assert line.startswith("does not show at this size: " + expectation.cell)
    assert expectation.published in line
    assert judge(expectation, {}).shows is None
    nothing = {c: {expectation.measure: [math.nan]} for c in (expectation.cell, "")}
    assert judge(expectation, nothing).shows is None


def test_accuracies_are_compared_in_points_and_seed_by_seed():
    expectation = Expectation("b", "knn", "below", "a", by=5, published="0.1 against 67.7")
    values = {"a": {"knn": [0.60, 0.50]}, "b": {"knn": [0.50, 0.40]}}
    judged = judge(expectation, values)
    assert judged.shows is True
    # the seeds differ by 10 points, and so in the same way in both
    assert judged.numbers == "45.0 against 55.0, a difference of -10.0 ± 0.0"
    assert judged.sentence == "b: kNN more than 5 points below a"
    assert judge(Expectation("b", "knn", "below", "a", by=10), values).shows is False
    assert judge(Expectation("b", "knn", "above", "a"), values).shows is False
    assert judge(Expectation("b", "knn", "below", 45.5), values).shows is True


def test_a_difference_that_seeds_do_not_settle_is_called_noise():
    """Differences of 1 and 3 points: mean 2, and 12.7 is t with one degree of freedom."""
    values = {"a": {"knn": [0.50, 0.50]}, "b": {"knn": [0.51, 0.53]}}
    judged = judge(Expectation("b", "knn", "above", "a"), values)
    assert judged.shows is True
    assert judged.numbers.endswith("+2.0 ± 12.7, within the noise of so few seeds")
    clear = {"a": {"knn": [0.50, 0.50]}, "b": {"knn": [0.70, 0.72]}}
    assert "noise" not in judge(Expectation("b", "knn", "above", "a", by=5), clear).numbers


def test_a_seed_without_a_number_is_left_out():
    values = {"a": {"loss": [1.0, math.nan, 3.0]}, "b": {"loss": [2.0, 5.0, 6.0]}}
    judged = judge(Expectation("a", "loss", "below", "b"), values)
    assert judged.shows is True
    # -1 and -3: seeds 0 and 2 have both
    assert judged.numbers.startswith("2 against 4.333, a difference of -2 ± ")
    assert "runs without a number: 1" in judged.numbers


def test_half_of_the_runs_is_no_collapse():
    collapses = Expectation("a", COLLAPSED, "above", 0.5)
    assert judge(collapses, {"a": {COLLAPSED: [1.0, 0.0]}}).shows is False
    judged = judge(collapses, {"a": {COLLAPSED: [1.0, 1.0, 0.0]}})
    assert judged.shows is True
    assert judged.line == "shows: a collapses (2 of 3 runs collapsed)."


def test_an_unknown_study_is_told_with_the_nearest():
    with pytest.raises(UserError, match="did you mean simsiam_stop_gradient"):
        find_study("simsiam_stopgradient")


def test_a_cell_may_be_expected_not_to_lie_far_on_the_other_side():
    expectation = Expectation("b", "linear", "above", "a", by=-3)
    assert expectation.sentence == "b: linear probe less than 3 points below a"
    values = {"a": {"linear": [0.50, 0.50]}}
    assert judge(expectation, {**values, "b": {"linear": [0.48, 0.48]}}).shows is True
    assert judge(expectation, {**values, "b": {"linear": [0.46, 0.46]}}).shows is False
