"""The length of a run is counted on one step of its own method, without leaving a trace."""

import pytest
import torch

from builders import IMAGE_METHODS
from similitude import distributed
from similitude.recipes import RECIPES, override
from similitude.recipes.duration import in_words, seconds_per_step
from similitude.recipes.recipe import InitConfig

CPU = torch.device("cpu")


def seconds(name, *settings):
    return seconds_per_step(override(RECIPES[f"small.{name}"](), settings), CPU)


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_every_method_can_be_counted(name):
    state = torch.get_rng_state()
    assert 0 < seconds(name) == seconds(name)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
def test_a_step_costs_what_its_batch_its_views_and_its_targets_do():
    simclr = seconds("simclr")
    assert seconds("simclr", "batch_size=128") == pytest.approx(2 * simclr, rel=0.15)
    assert seconds("simclr", "method.view.size=32") < 0.5 * simclr
    assert seconds("simclr", "backbone.base_width=32") > 1.5 * simclr
    assert 1.2 < seconds("byol") / simclr < 1.8  # two more passes forward


@pytest.mark.slow
def test_what_stays_as_it_is_costs_no_backward_pass():
    init = InitConfig(name="some", fingerprint="0", frozen=1.0)
    recipe = RECIPES["small.simclr"]()
    frozen = seconds_per_step(recipe.model_copy(update={"init": init}), CPU)
    assert frozen < 0.6 * seconds_per_step(recipe, CPU)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [["method.bn_splits=5", "batch_size=60"], ["batch_size=6"]])
def test_any_number_of_splits_and_any_batch_can_be_counted(settings):
    settings = settings if "bn_splits" in settings[0] else ["method.bn_splits=3", *settings]
    assert seconds("moco_v2", *settings) > 0


@pytest.mark.slow
def test_processes_share_a_batch_and_none_waits_for_the_others(monkeypatch):
    alone = seconds("simclr", "batch_size=128")
    monkeypatch.setattr(distributed, "_are_together", lambda: not distributed._alone)
    monkeypatch.setattr(distributed.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed.dist, "get_rank", lambda: 1)
    assert seconds("simclr", "batch_size=128") == pytest.approx(alone / 2, rel=0.15)


def test_durations_in_words():
    assert [in_words(s) for s in (40, 420, 12_600)] == ["40 seconds", "7 minutes", "3.5 hours"]
