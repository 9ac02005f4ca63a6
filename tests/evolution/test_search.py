"""What ``--search`` means, and the points that the strategy asks for."""

import math
import sys

import numpy as np
import pytest

from similitude.errors import UserError
from similitude.evolution.search import (
    Range,
    as_options,
    check_installed,
    parse_searches,
    population,
    with_settings,
)
from similitude.recipes import cifar10

SQUARE = [Range("a", 0.0, 1.0), Range("b", 0.01, 100.0, log=True)]


def test_numbers_have_the_bounds_that_are_given_or_their_own():
    given = ["optimizer.base_lr=0.05..2:log", "temperature=1e-1..1", "optimizer.final_lr"]
    lr, temperature, final = parse_searches([*given, "batch_size=16..65"], cifar10.simclr())[:3]
    assert lr == Range("optimizer.base_lr", 0.05, 2.0, log=True)
    assert temperature == Range("method.temperature", 0.1, 1.0)
    assert final == Range("optimizer.final_lr", 0.0, 1.0)
    assert lr.value(0.5) == pytest.approx(math.sqrt(0.05 * 2), rel=1e-3)
    assert (temperature.value(0.0), temperature.value(1.0)) == (0.1, 1.0)


def test_integers_stay_integers():
    (size,) = parse_searches(["batch_size=16..65"], cifar10.simclr())
    assert [size.value(place) for place in (0.0, 0.26, 1.0)] == [16, 29, 65]
    assert as_options({size.path: size.value(0.26)}) == "--set batch_size=29"


def test_a_table_stands_for_its_entries_between_0_and_1():
    options = {"drop_rate": 0.1, "drop_path_rate": 0.0}
    recipe = cifar10.simclr().with_value("backbone.options", options)
    places = [Range(f"backbone.options.{name}", 0.0, 1.0) for name in options]
    assert parse_searches(["backbone.options"], recipe) == places
    assert parse_searches(["backbone.options.drop_rate"], recipe) == places[:1]
    assert {r.high for r in parse_searches(["backbone.options=0..0.5"], recipe)} == {0.5}
    changed = with_settings(recipe, {places[0].path: 0.25})
    assert changed.backbone.options == {"drop_rate": 0.25, "drop_path_rate": 0.0}  # type: ignore[attr-defined]


def test_a_method_may_say_what_is_searched(monkeypatch):
    recipe = cifar10.simclr()
    monkeypatch.setattr(type(recipe.method), "searched", ("optimizer.final_lr",))
    assert [found.path for found in parse_searches([], recipe)] == ["optimizer.final_lr"]


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ([], "simclr does not say what to search: give --search"),
        (["temprature=1..2"], "did you mean temperature"),
        (["optimizer.nothing=1..2"], "no 'nothing'"),
        (["temperature"], "needs bounds"),
        (["temperature="], "no bounds; write it as"),
        (["temperature=1"], "no bounds; write it as"),
        (["temperature=1..2..3"], "no bounds; write it as"),
        (["temperature=1..2:cubic"], "no bounds; write it as"),
        (["temperature=2..1"], "must be LOW < HIGH"),
        (["temperature=nan..1"], "must be LOW < HIGH"),
        (["temperature=0..1:log"], "must be 0 < LOW < HIGH"),
        (["temperature=-1..1"], "greater than 0"),
        (["optimizer.final_lr=0..2"], "less than or equal to 1"),
        (["optimizer.name=1..2"], "is no number"),
        (["backbone.options=0..1"], "no number in it"),
        (["seed=1..2"], "same in all runs"),
        (["epochs=1..2"], "same in all runs"),
        (["data.image_size=8..32"], "same in all runs"),
        (["temperature=0.1..1", "method.temperature=0.1..1"], "given twice"),
    ],
)
def test_what_cannot_be_searched_is_told(search, words):
    with pytest.raises(UserError, match=words):
        parse_searches(search, cifar10.simclr())


def test_the_first_individual_is_the_middle_and_all_lie_within_the_bounds():
    found = population(SQUARE, 50, 0, [])
    assert found[0] == {"a": 0.5, "b": 1.0}
    assert all(0 <= one["a"] <= 1 and 0.01 <= one["b"] <= 100 for one in found)
    assert len({one["a"] for one in found}) > 40


def test_a_generation_is_a_function_of_seed_and_ranks_alone():
    told = [[3.0, 1.0, math.inf, 2.0]]
    before = np.random.get_state()[1].copy()  # noqa: NPY002 (of whoever calls)
    found = population(SQUARE, 4, 0, told)
    assert found == population(SQUARE, 4, 0, [[0.3, 0.1, 99.0, 0.2]])
    assert found != population(SQUARE, 4, 0, [[1.0, 3.0, math.inf, 2.0]])
    assert found != population(SQUARE, 4, 1, told)
    assert (before == np.random.get_state()[1]).all()  # noqa: NPY002


def test_without_its_library_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(UserError, match=r"pip install 'similitude\[evolve\]'"):
        check_installed()
