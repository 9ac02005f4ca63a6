"""The best of an evolution, and whether its fitness says anything."""

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from similitude.evolution.findings import Evolution, Individual
from similitude.evolution.search import Range


def individual(number, state="healthy", x=0.5, generation=0, **values):
    return Individual(generation, number, {"x": x}, state, "", values)


def evolution(*individuals):
    return Evolution(Path("e"), "t", [], [Range("x", 0.0, 1.0)], {}, list(individuals))


def test_the_best_is_the_least_of_those_that_are_sound():
    found = evolution(
        individual(0, fitness=0.3),
        individual(1, "collapsed", fitness=0.0),
        individual(2, "failed"),
        individual(3, "doubtful", fitness=0.2),
    )
    assert found.best is found.individuals[3]
    assert [one.told for one in found.individuals] == [0.3, math.inf, math.inf, 0.2]
    assert found.lines[-1] == "--set x=0.5"
    assert evolution(individual(0, "failed")).best is None


def test_rank_correlations_are_over_sound_individuals_that_have_both():
    numbers = [(0.1, 0.9), (0.2, 0.8), (0.3, 0.6), (0.4, 0.7), (0.5, 0.5)]
    sound = [
        individual(i, x=fitness, fitness=fitness, knn=knn)
        for i, (fitness, knn) in enumerate(numbers)
    ]
    found = evolution(
        *sound, individual(5, "collapsed", fitness=0.0, knn=0.0), individual(6, "failed")
    )
    rank = found.correlation("fitness", "knn")
    assert rank is not None
    assert (rank.rho, rank.count) == (pytest.approx(-0.9), 5)
    assert rank.p == pytest.approx(2 * 5 / 120)  # of all pairings: the perfect one and 4 swaps
    assert found.correlation("fitness", "linear") is None  # not measured
    assert found.correlation("x", "fitness") is not None
    assert evolution(*sound[:3]).correlation("fitness", "knn") is None  # too few
    same = [individual(i, fitness=0.1, knn=0.1 * i) for i in range(5)]
    assert evolution(*same).correlation("fitness", "knn") is None  # constant


def test_the_table_fits_into_80_columns():
    people = [
        individual(
            i, x=0.01 * i, generation=i // 8, fitness=0.1 + i / 7, knn=0.5, linear=0.5 + i / 99
        )
        for i in range(32)
    ]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(evolution(*people).render())
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("8 of 8" in line and "50.0" in line for line in lines)
