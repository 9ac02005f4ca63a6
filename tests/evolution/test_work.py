"""The driver of an evolution, on functions that are known."""

import json
import math
from dataclasses import replace

import pytest

from similitude.errors import UserError
from similitude.evolution.findings import Individual
from similitude.evolution.search import Range
from similitude.evolution.work import RESULT, evolved, keep, kept

RANGES = [Range("a", 0.0, 1.0), Range("b", 0.01, 100.0, log=True)]


def distance(settings):
    """From a = 0.2 and b = 10, in widths of the ranges."""
    return (settings["a"] - 0.2) ** 2 + (math.log10(settings.get("b", 10) / 10) / 4) ** 2


def evaluate(generation, asked):
    return [
        Individual(generation, i, one, "healthy", "", {"fitness": distance(one)})
        for i, one in enumerate(asked)
    ]


@pytest.mark.parametrize("ranges", [RANGES, RANGES[:1]], ids=["two", "one"])
def test_an_evolution_finds_the_least_of_a_function(ranges):
    found = evolved(ranges, 8, 8, 0, evaluate)
    best = [min(one.told for one in found if one.generation == g) for g in (0, 7)]
    assert len(found) == 64
    assert min(one.told for one in found) < 0.003
    assert best[1] < best[0] / 3


def test_what_collapses_is_left_by_the_evolution_however_good_its_fitness():
    """As the clusters of a collapse may look, by chance, better than all others."""

    def collapsing(generation, asked):
        return [
            replace(one, state="collapsed", values={"fitness": -1.0})
            if one.settings["a"] > 0.6
            else one
            for one in evaluate(generation, asked)
        ]

    found = evolved(RANGES, 8, 8, 0, collapsing)
    sound = [[one.is_sound for one in found if one.generation == g] for g in (0, 7)]
    assert not all(sound[0])
    assert all(sound[1])
    assert min(found, key=lambda one: one.told).told < 0.01


def test_an_evolution_that_was_stopped_goes_on_to_the_same_end(tmp_path):
    """Nothing but the individuals is kept: those that are there are read."""
    trained = []

    def interrupted(generation, asked, last):
        found = []
        for one in evaluate(generation, asked):
            known = kept(tmp_path, one)
            if known is None:
                if len(trained) == last:
                    raise KeyboardInterrupt
                trained.append(one)
                keep(tmp_path, one)
            found.append(known or one)
        return found

    for last in (3, 11):
        with pytest.raises(KeyboardInterrupt):
            evolved(RANGES, 4, 4, 0, lambda g, asked, last=last: interrupted(g, asked, last))
    parts = evolved(RANGES, 4, 4, 0, lambda g, asked: interrupted(g, asked, None))
    assert parts == evolved(RANGES, 4, 4, 0, evaluate)
    assert len(trained) == 16


def test_an_individual_is_read_as_it_was_written(tmp_path):
    one = Individual(1, 2, {"batch_size": 32}, "failed", "out of memory", {}, 1.5)
    keep(tmp_path, one)
    found = kept(tmp_path, replace(one, state="", reason=""))
    assert found == one
    assert isinstance(found.settings["batch_size"], int)
    with pytest.raises(UserError, match="other settings: give another --out"):
        kept(tmp_path, replace(one, settings={"batch_size": 16}))
    path = tmp_path / one.folder / RESULT
    path.write_text(json.dumps({"generation": 1}))
    with pytest.raises(UserError, match="it is no individual"):
        kept(tmp_path, one)
