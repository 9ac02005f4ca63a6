"""The sentence: which way, why, how sure; and what stands beside it."""

import json

import numpy as np
import pytest

from similitude.decision.findings import Holdout, decided, standing
from similitude.decision.plan import OWN, RANDOM, SUPERVISED, all_rows
from similitude.decision.work import Row
from similitude.evaluation.scores import ScoreTable

EVERYTHING = all_rows(["raw pixels"], ["net"])
COLUMNS = {"linear_1": 0.5, "linear_5": 0.7, "linear_10": 0.85, "linear_100": 0.95, "linear": 1.0}


def holdout(n, classes=4, units=None, y=None):
    y = np.arange(n) % classes if y is None else y
    units = np.arange(n) if units is None else units
    names = [f"class {i}" for i in range(classes)]
    return Holdout("photos", y, units, names, 200 * classes, "images", ["raw pixels"])


def said(rng, of, rate, draws=1):
    """What a probe says that is right at this rate, harder samples being wrong in all draws."""
    hard = rng.random(len(of.y))
    right = hard + 0.05 * rng.normal(size=(draws, len(of.y))) < rate
    wrong = (of.y + 1) % len(of.class_names)
    return np.where(right, of.y, wrong)


def rows_of(of, rates, seed=0):
    """Rows by title -> accuracy on all labels, on fewer a share of it."""
    rng = np.random.default_rng(seed)
    rows = {}
    for title, rate in rates.items():
        planned = next(p for p in EVERYTHING if p.title == title)
        if planned.task == "finetune":
            predicted = {"finetuned": said(rng, of, rate)}
        else:
            predicted = {
                column: said(rng, of, rate * share, 1 if column == "linear" else 5)
                for column, share in COLUMNS.items()
            }
        rows[title] = Row(predicted, 60.0)
    return rows


def decision(tmp_path, of, rates, **options):
    given = {"minutes": 10.0, "seed": 0, "is_complete": True, **options}
    return decided(tmp_path, EVERYTHING, rows_of(of, rates), of, **given)


CLEAR = {"raw pixels": 0.4, RANDOM: 0.3, "net": 0.9, SUPERVISED: 0.5, OWN: 0.6}


def test_a_clear_best_is_named_with_its_lead_over_the_next(tmp_path):
    found = decision(tmp_path, holdout(500), CLEAR)
    assert found.use == "net"
    assert found.is_certain
    assert found.sentence.startswith("Use net as it is, under a linear probe, because it names 9")
    assert "of the 500 test images right" in found.sentence
    assert found.sentence.endswith(f"points above the next, {OWN}.")
    assert [way.title for way in found.ways[:2]] == ["net", OWN]


def test_of_what_cannot_be_told_apart_the_cheapest_is_taken(tmp_path):
    rates = CLEAR | {OWN: 0.91, "net fine-tuned": 0.93}
    found = decision(tmp_path, holdout(60), rates)
    assert found.use == "net"  # though others are above it
    assert not found.is_certain
    assert "cannot be told apart for sure on so few as 60 test images" in found.sentence
    assert "take the cheapest, net as it is, under a linear probe; net fine-tuned is " in (
        found.sentence
    )
    assert found.sentence.endswith(" points above it here.")
    assert found.smallest is not None
    assert f"{100 * found.smallest:.1f} points" in found.sentence


def test_samples_of_a_few_films_are_not_as_many_as_they_look(tmp_path):
    films = holdout(600, units=np.arange(600) // 100)
    rates = CLEAR | {OWN: 0.8}
    assert decision(tmp_path, holdout(600), rates).is_certain
    assert not decision(tmp_path, films, rates).is_certain


def test_labels_that_the_best_saves_against_the_next_are_told(tmp_path):
    found = decision(tmp_path, holdout(800), CLEAR)
    assert found.saved is not None
    # 0.6 of 0.9 is reached between one label (0.5) and five (0.7) of 200
    assert 193 < found.saved.low <= found.saved.labels <= found.saved.high < 199.5
    assert any(" is as accurate as " in s and s.startswith("net with ") for s in found.remarks)


def test_what_the_table_shows_to_be_worse_is_not_advised_though_it_is_cheapest(tmp_path):
    y = np.arange(18) % 2

    def right(count):
        return {"linear": np.where(np.arange(18) < count, y, 1 - y)[None]}

    rows = {"raw pixels": Row(right(10), 1.0), "net": Row(right(15), 1.0)}
    tested = holdout(18, classes=2, y=y)
    given = {"minutes": 10.0, "seed": 0, "is_complete": True}
    rows |= {RANDOM: Row(right(14), 1.0), OWN: Row(right(14), 1.0)}
    rows |= {"net adapted": Row(right(14), 1.0)}
    found = decided(tmp_path, EVERYTHING, rows, tested, **given)
    raw = next(way for way in found.ways if way.title == "raw pixels")
    assert raw.is_candidate  # among five ways five of eighteen are no proof
    assert raw.behind.is_above
    assert found.use == RANDOM
    assert "take the cheapest that is not below the best" in found.sentence


def test_groups_are_what_more_is_needed_of(tmp_path):
    films = holdout(600, units=np.arange(600) // 100)
    found = decision(tmp_path, films, CLEAR | {OWN: 0.8})
    assert "so few as 600 test images of 6 groups" in found.sentence
    assert " groups would tell the first two" in found.sentence


def test_uneven_classes_are_told_with_balanced_accuracy_beside(tmp_path):
    y = np.where(np.arange(400) % 10 < 8, 0, np.arange(400) % 4)
    found = decision(tmp_path, holdout(400, y=y), CLEAR)
    uneven = next(s for s in found.remarks if s.startswith("Classes are uneven"))
    assert "are class 0" in uneven
    always = {"linear": np.zeros((1, 400), int)}
    one = decided(
        tmp_path,
        EVERYTHING,
        {"raw pixels": Row(always, 1.0)},
        holdout(400, y=y),
        minutes=10,
        seed=0,
        is_complete=False,
    )
    assert one.ways[0].score.mean > 0.8
    assert one.ways[0].balanced == pytest.approx(0.25)
    assert one.ways[0].macro_f1 < 0.25
    assert one.confusion[1][0] > 0
    assert sum(map(sum, one.confusion)) == 400


def test_what_the_test_could_not_show_is_not_certain(tmp_path):
    rates = {"raw pixels": 0.5, "net": 0.93}
    found = decision(tmp_path, holdout(60), rates, left_out={OWN: "hopeless"})
    assert found.use == "net"
    assert not found.is_certain
    assert found.sentence.endswith("whether a training would do better, so few cannot show.")
    many = decision(tmp_path, holdout(600), rates, left_out={OWN: "its minutes are too few"})
    assert not many.is_certain
    assert many.sentence.endswith("what takes more --minutes was not tried.")
    assert decision(tmp_path, holdout(600), rates).is_certain


def test_what_was_left_out_and_what_is_unfinished_are_said(tmp_path):
    found = decision(
        tmp_path,
        holdout(200),
        {"raw pixels": 0.5, "net": 0.9},
        left_out={OWN: "too few steps", f"{OWN} and fine-tuned": "too few steps"},
        is_complete=False,
    )
    assert f"Left out: {OWN}, {OWN} and fine-tuned: too few steps." in found.remarks
    assert found.sentence.startswith("So far: ")
    assert f"Not tried yet: {', '.join(found.waiting)}." in found.remarks
    assert found.waiting[0] == RANDOM


def test_how_the_advised_way_is_used_is_told(tmp_path):
    frozen = decision(tmp_path, holdout(500), CLEAR)
    assert any("SimilitudeEncoder('net')" in s for s in frozen.remarks)
    tuned = decision(tmp_path, holdout(500), CLEAR | {"net fine-tuned": 0.99})
    place = tmp_path / "net-fine-tuned"
    assert f"To use it: sim.load({str(place)!r}).predict(DATA)" in tuned.remarks


def test_a_decision_is_plain_json_with_a_table_that_is_read_as_others(tmp_path):
    found = decision(tmp_path, holdout(100), CLEAR)
    found.write()
    stored = json.loads((tmp_path / "decision.json").read_text())
    assert stored["sentence"] == found.sentence
    table = ScoreTable.from_json(stored["table"])
    assert table.rows["net"]["linear"].mean == pytest.approx(found.ways[0].score.mean)
    assert table.columns == [
        "linear",
        "linear_1",
        "linear_5",
        "linear_10",
        "linear_100",
        "finetuned",
    ]


def test_what_is_known_before_a_training_says_whether_it_may_change_the_answer():
    of = holdout(100)
    rows = rows_of(of, {"raw pixels": 0.5, "net": 0.99})
    assert not standing(EVERYTHING, rows, of, {}).perfect.is_above
    rows = rows_of(of, {"raw pixels": 0.5, "net": 0.7})
    assert standing(EVERYTHING, rows, of, {}).perfect.is_above


def test_published_weights_are_behind_only_where_another_is_above_them_for_sure():
    two = all_rows(["raw pixels"], ["net", "other"])
    of, rng = holdout(300), np.random.default_rng(0)

    def rows(rate):
        rates = {"net": 0.9, "other": rate}
        return {name: Row({"linear": said(rng, of, r)}, 1.0) for name, r in rates.items()}

    assert list(standing(two, rows(0.6), of, {}).behind) == ["other"]
    assert standing(two, rows(0.6), of, {}).behind["other"][1] == "net"
    assert not standing(two, rows(0.89), of, {}).behind
