"""The order of the rows, what they cost, and what cannot change the answer."""

import pytest

from similitude.decision.plan import (
    OWN,
    RANDOM,
    SUPERVISED,
    Standing,
    adapted,
    all_rows,
    costs,
    left_out,
    minutes_of,
    too_short,
)
from similitude.evaluation.comparison import Difference
from similitude.evaluation.scores import Score

EVERYTHING = all_rows(["raw pixels"], ["net", "other"])


def planned(title):
    return next(p for p in EVERYTHING if p.title == title)


def standing(**changes):
    given = {
        "best": "net",
        "score": Score(0.9, 0.85, 0.95),
        "perfect": Difference(0.1, 0.05, 0.15),
        "behind": {},
        "left_out": {},
    }
    return Standing(**(given | changes))


def test_what_trains_nothing_comes_first_and_own_networks_last():
    titles = [p.title for p in EVERYTHING]
    assert titles[:5] == ["raw pixels", RANDOM, "net", "other", SUPERVISED]
    assert titles[-1] == f"{OWN} and fine-tuned"
    assert titles.index(OWN) < titles.index(f"{OWN} and fine-tuned")
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("published", [[], ["net"], ["net", "other"]])
def test_the_minutes_are_shared_out_to_the_last(published):
    everything = all_rows(["raw pixels"], published)
    assert sum(minutes_of(p, everything, 10) for p in everything) == pytest.approx(10)
    assert all(p.is_trained == (minutes_of(p, everything, 10) > 0) for p in everything)


def test_a_fine_tuned_network_costs_what_it_comes_from_too():
    cost = costs(EVERYTHING)
    assert cost["raw pixels"] < cost[RANDOM] < cost["net"] < cost["other"] < cost[SUPERVISED]
    assert cost["net fine-tuned"] < cost[adapted("net")] < cost[OWN]
    assert cost[OWN] < cost[f"{adapted('net')} and fine-tuned"] < cost[f"{OWN} and fine-tuned"]


def test_nothing_is_trained_where_not_even_perfection_could_be_told_apart():
    hopeless = standing(perfect=Difference(0.01, -0.01, 0.03))
    for p in EVERYTHING:
        if p.is_trained:
            assert "not even a row without a mistake" in (left_out(p, hopeless) or "")
    assert left_out(planned(OWN), standing()) is None


def test_published_weights_that_another_is_above_for_sure_are_not_trained():
    behind = standing(behind={"other": (Difference(-0.12, -0.15, -0.09), "net")})
    for title in ("other fine-tuned", adapted("other"), f"{adapted('other')} and fine-tuned"):
        assert "12.0 points below net" in (left_out(planned(title), behind) or "")
    assert left_out(planned("net fine-tuned"), behind) is None


def test_a_row_that_was_left_out_is_not_fine_tuned():
    without = standing(left_out={OWN: "its minutes are too few"})
    assert left_out(planned(f"{OWN} and fine-tuned"), without) == "its minutes are too few"
    assert left_out(planned(f"{adapted('net')} and fine-tuned"), without) is None


def test_a_training_of_a_few_steps_is_left_out_and_says_how_many_minutes_it_takes():
    assert too_short(400, 1500, 3) is None
    why = too_short(150, 1500, 3)
    assert why is not None
    assert "only 150 of the 1,500 steps" in why
    assert "10 times the --minutes" in why
