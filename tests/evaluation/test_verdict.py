import json
import math
from dataclasses import replace

import pytest

from similitude.evaluation import Readings, diagnose
from similitude.evaluation.verdict_rules import RULES

# A short run of SimCLR on Fashion-MNIST: 230 steps, batch 256, 512 features.
HEALTHY = Readings(
    loss=3.24,
    chance_loss=math.log(511),
    feature_std=0.0234,
    feature_dim=512,
    projection_std=0.9,
    effective_rank=75.6,
    alignment=0.4,
    uniformity=-1.05,
    knn=0.833,
    knn_random=0.78,
    steps=230,
    unreadable_share=0.0,
    num_images=60_000,
)


def test_a_healthy_short_run_reads_healthy_and_says_the_numbers() -> None:
    verdict = diagnose(HEALTHY)
    assert verdict.state == "healthy"
    assert verdict.advice == []
    assert "75.6 directions" in verdict.sentence
    assert "below the 6.236 of chance" in verdict.sentence


def test_what_was_not_measured_raises_no_alarm() -> None:
    verdict = diagnose(Readings())
    assert (verdict.state, verdict.sentence) == ("healthy", "Healthy.")


STD = 1 / math.sqrt(512)


def falling(last: float, lowest: float) -> dict[str, float]:
    peak = {"projection_std_peak": 1.0, "projection_std_lowest": lowest}
    return {"projection_std": last, "steps": 300.0, **peak}


@pytest.mark.parametrize(
    ("change", "state", "words"),
    [
        ({"loss": math.nan}, "collapsed", "not a number."),
        ({"loss": math.inf, "nan_step": 17}, "collapsed", "not a number since step 17."),
        ({"feature_std": 0.099 * STD}, "collapsed", "same features for every image"),
        ({"feature_std": 0.101 * STD}, "doubtful", "unusually alike"),
        ({"feature_std": 0.199 * STD}, "doubtful", "unusually alike"),
        ({"feature_std": 0.201 * STD}, "healthy", ""),
        ({"feature_std": math.nan}, "collapsed", "same features for every image"),
        ({"projection_std": 0.099}, "collapsed", "projections are nearly the same"),
        ({"projection_std": 0.101}, "healthy", ""),
        ({"projection_std": 0.49, "projection_std_peak": 0.99}, "doubtful", "from 0.99 to 0.49"),
        ({"projection_std": 0.5, "projection_std_peak": 0.99}, "healthy", ""),
        ({"weight_change": 0.0009}, "doubtful", "where they began (0.09 % off)"),
        ({"weight_change": 0.0011}, "healthy", ""),
        ({"weight_change": 0.0, "steps": 99}, "doubtful", "hardly move"),
        ({"weight_change": 0.51, "steps": 100}, "doubtful", "by 0.5 times their norm in 100 steps"),
        ({"weight_change": 0.49, "steps": 100}, "healthy", ""),
        ({"weight_change": 9.0, "steps": 10_000}, "healthy", ""),
        (falling(0.69, 0.6), "doubtful", "from 1.00 to 0.69"),
        (falling(0.71, 0.6), "healthy", ""),
        (falling(0.69, 0.55), "healthy", ""),
        ({"copies": 0.51}, "doubtful", "51 % of the images are copies"),
        ({"copies": 0.5}, "healthy", ""),
        ({"alignment": 0.0}, "doubtful", "two views of an image have the same features"),
        ({"loss": -0.1}, "doubtful", "cannot be below 0.000"),
        ({"loss": -0.06}, "healthy", ""),
        ({"loss": -0.9, "chance_loss": 0.0}, "healthy", ""),
        ({"target_entropy": 0.06, "target_kl": 0.06}, "collapsed", "into the same class"),
        ({"target_entropy": 0.06, "target_kl": 0.07}, "healthy", ""),
        ({"target_entropy": 0.07, "target_kl": 0.06}, "healthy", ""),
        ({"target_entropy": 6.18, "target_kl": 0.0}, "collapsed", "6.180 of 6.236 = ln 511"),
        ({"target_entropy": 6.17, "target_kl": 0.0}, "healthy", ""),
        ({"prototype_entropy": math.log(1.49)}, "collapsed", "as if 1.5 were in use"),
        ({"prototype_entropy": math.log(1.51)}, "healthy", ""),
        ({"effective_rank": 1.99}, "collapsed", "dimensional collapse"),
        ({"effective_rank": 2.01}, "doubtful", "fewer than 10.2"),
        ({"effective_rank": 10.2}, "doubtful", "fewer than 10.2"),
        ({"effective_rank": 10.3}, "healthy", ""),
        ({"effective_rank": 4.9, "feature_dim": 64, "feature_std": 0.1}, "doubtful", "than 5.0"),
        ({"effective_rank": 5.1, "feature_dim": 64, "feature_std": 0.1}, "healthy", ""),
        ({"effective_rank": 2.1, "feature_dim": 8, "feature_std": 0.3}, "healthy", ""),
        (
            {"loss": 0.991 * math.log(511)},
            "doubtful",
            "equals chance: 6.180 against 6.236 = ln 511",
        ),
        ({"loss": 0.989 * math.log(511)}, "healthy", ""),
        ({"loss": 0.991 * math.log(511), "loss_floor": 4.5}, "healthy", ""),
        ({"loss": math.log(511) - 0.0173, "loss_floor": 4.5}, "doubtful", "equals chance"),
        ({"loss": math.log(511) - 0.0174, "loss_floor": 4.5}, "healthy", ""),
        ({"knn": 0.78}, "doubtful", "78.0 %, not above the 78.0 %"),
        ({"knn": 0.781}, "healthy", ""),
        ({"steps": 99}, "doubtful", "only 99 steps"),
        ({"steps": 100}, "healthy", ""),
        ({"num_images": 199}, "doubtful", "only 199 images"),
        ({"num_images": 200}, "healthy", ""),
        ({"unreadable_share": 0.0101}, "doubtful", "1.0 % of the files"),
        ({"unreadable_share": 0.01}, "healthy", ""),
    ],
)
def test_every_rule_on_both_sides_of_its_boundary(
    change: dict[str, float], state: str, words: str
) -> None:
    verdict = diagnose(replace(HEALTHY, **change))
    assert verdict.state == state
    if state != "healthy":
        assert len(verdict.reasons) == 1
        assert words in verdict.reasons[0]
        assert len(verdict.advice) == 1


def test_what_random_weights_had_already_is_no_collapse() -> None:
    """A deep network makes all features alike until its BatchNorm has seen some batches."""
    early = replace(HEALTHY, feature_std=0.0012, feature_dim=2048, steps=4)
    early = replace(early, feature_std_start=0.0009)
    assert diagnose(early).state == "doubtful"
    assert "random weights" in diagnose(early).sentence
    assert diagnose(replace(early, feature_std_start=0.002)).state == "collapsed"
    assert diagnose(replace(early, steps=400.0)).state == "collapsed"


def test_what_a_published_start_had_already_is_no_collapse() -> None:
    """ResNet-V2's features are alike by their large mean, and tell images apart all the same."""
    adapted = replace(HEALTHY, feature_std=0.0017, feature_dim=1024, feature_std_start=0.0025)
    adapted = replace(adapted, effective_rank=40.0)
    assert diagnose(adapted).state == "collapsed"
    kept = diagnose(replace(adapted, drift=0.13))
    assert kept.state == "doubtful"
    assert "as its start did" in kept.sentence
    assert diagnose(replace(adapted, drift=0.13, feature_std=0.0012)).state == "collapsed"


def test_a_lost_spread_is_a_collapse_where_few_directions_are_left_too() -> None:
    # what BatchNorm at the projector's end leaves of a collapse in batches of 128
    fallen = replace(HEALTHY, projection_std=2 / math.sqrt(128), projection_std_peak=0.99)
    assert diagnose(fallen).state == "doubtful"
    verdict = diagnose(replace(fallen, effective_rank=2.3))
    assert verdict.state == "collapsed"
    assert "from 0.99 to 0.18" in verdict.sentence


def test_a_loss_at_chance_is_normal_before_the_warm_up_is_over() -> None:
    at_chance = replace(HEALTHY, loss=HEALTHY.chance_loss)
    assert "equals chance" in diagnose(at_chance).sentence
    assert "equals chance" not in diagnose(replace(at_chance, steps=99)).sentence
    assert "equals chance" in diagnose(replace(at_chance, steps=100)).sentence


@pytest.mark.parametrize(
    "reading", [{"target_entropy": 0.0, "target_kl": 0.0}, {"prototype_entropy": 0.0}]
)
def test_networks_agree_before_they_have_learned(reading) -> None:
    at_first = replace(HEALTHY, steps=99, **reading)
    assert diagnose(at_first).state == "doubtful"
    assert "steps" in diagnose(at_first).sentence
    assert diagnose(replace(at_first, steps=100)).state == "collapsed"


def test_chance_of_a_negative_loss() -> None:
    # A loss that falls below 0, where 1 % of chance must still point downwards.
    r = replace(HEALTHY, chance_loss=-0.5, loss=-0.504)
    assert diagnose(r).state == "doubtful"
    assert diagnose(replace(r, loss=-0.506)).state == "healthy"
    assert "ln" not in diagnose(r).reasons[0]


def test_the_worst_finding_comes_first_and_gives_the_state() -> None:
    verdict = diagnose(replace(HEALTHY, num_images=10, knn=0.1, feature_std=0.0001))
    assert verdict.state == "collapsed"
    assert "same features" in verdict.reasons[0]
    assert len(verdict.reasons) == 3
    assert verdict.sentence.startswith("Collapsed: The backbone gives nearly the same features")
    # Also where the rule of the milder finding is asked first.
    verdict = diagnose(replace(HEALTHY, feature_std=0.15 * STD, projection_std=0.0))
    assert verdict.state == "collapsed"
    assert "projections" in verdict.reasons[0]
    assert "unusually alike" in verdict.reasons[1]


def test_every_rule_has_a_test_that_fires_it() -> None:
    fired = [
        Readings(loss=math.nan),
        Readings(knn=0.8, knn_random=0.9, drift=0.2),
        Readings(knn=0.1, knn_raw=0.2),
        Readings(feature_std=0.0, feature_dim=4),
        Readings(projection_std=0.0),
        Readings(target_entropy=0.0, target_kl=0.0, chance_loss=1.0),
        Readings(prototype_entropy=0.0),
        Readings(effective_rank=1.0, feature_dim=100),
        Readings(loss=1.0, chance_loss=1.0),
        Readings(loss=-1.0, chance_loss=1.0),
        Readings(weight_change=0.0),
        Readings(weight_change=9.0, steps=400.0),
        Readings(alignment=0.0),
        Readings(copies=0.9),
        Readings(knn=0.1, knn_random=0.1),
        Readings(steps=1),
        Readings(num_images=1),
        Readings(unreadable_share=0.5),
    ]
    assert len(fired) == len(RULES)
    for rule, readings in zip(RULES, fired, strict=True):
        assert len(list(rule(readings))) == 1
        assert list(rule(HEALTHY)) == []


def test_json_is_what_a_run_folder_holds() -> None:
    value = diagnose(replace(HEALTHY, loss=math.nan)).to_json()
    again = json.loads(json.dumps(value, allow_nan=False))
    assert again == value
    assert set(value) == {"state", "reasons", "advice", "readings"}
    assert value["readings"]["loss"] is None
    assert value["readings"]["effective_rank"] == 75.6


def test_a_run_from_published_weights_is_measured_by_them() -> None:
    worse = diagnose(Readings(knn=0.8, knn_random=0.9, drift=0.2))
    assert worse.state == "doubtful"
    assert "80.0 %, below the 90.0 % of the weights it started from" in worse.sentence
    assert "as they are" in worse.advice[0]
    chance = diagnose(Readings(knn=0.87, knn_random=0.9, drift=0.2, knn_queries=60))
    assert chance.state == "healthy"
    assert "its start gives 90.0 %" in chance.sentence
    equal = diagnose(Readings(knn=0.9, knn_random=0.9, drift=0.2))
    assert equal.state == "healthy"


def test_what_a_run_does_not_reach_stands_first() -> None:
    verdict = diagnose(Readings(knn=0.4, knn_raw=0.5, steps=10, num_images=100))
    assert "raw pixels" in verdict.reasons[0]


def test_a_short_run_is_told_how_much_longer_whatever_its_batch() -> None:
    for steps, much in ((0, "an epoch"), (20, "5 times as long"), (99, "2 times as long")):
        (advice,) = diagnose(Readings(steps=steps)).advice
        assert advice == f"Train at least {much} (--epochs)."


def test_it_speaks_of_what_the_samples_are():
    alike = replace(HEALTHY, alignment=0.0)
    assert "two views of an image" in diagnose(alike).sentence
    assert "two views of a sound" in diagnose(alike, "sounds").sentence
    worse = diagnose(replace(HEALTHY, knn=0.4, knn_raw=0.9), "sounds", "raw log-mel")
    assert "of raw log-mel" in worse.sentence
    assert not any("--init" in advice or "color" in advice for advice in worse.advice)
