import json

import pytest

from similitude.report import read_run, scores, words
from similitude.report.read import Evaluation, Score

RAW = (0.859, 0.84, 0.39, 0.607, 0.68, 0.79)
RANDOM = (0.71, 0.76, 0.31, 0.498, 0.57, 0.71)


def verdict_with(make_run, pretrained, state="healthy"):
    means = {"raw pixels": RAW, "random backbone": RANDOM, "pretrained backbone": pretrained}
    return words.verdict(read_run(make_run(count=24, means=means, state=state)))


def test_better_than_random_in_every_column_means_learned(make_run):
    verdict = verdict_with(make_run, tuple(score + 0.05 for score in RANDOM))
    assert (verdict.state, verdict.tone, verdict.learned) == ("healthy", "healthy", "yes")
    assert "5.0 points above the same backbone with random weights" in verdict.lead
    assert "below raw pixels" in verdict.lead


def test_healthy_numbers_without_a_gain_are_not_sold_as_success(make_run):
    verdict = verdict_with(make_run, tuple(score - 0.01 for score in RANDOM))
    assert (verdict.state, verdict.tone, verdict.learned) == ("healthy", "doubtful", "no")
    assert "no better than random" in verdict.headline
    assert verdict.advice


def test_an_uneven_gain_says_so(make_run):
    verdict = verdict_with(make_run, (RANDOM[0] - 0.02, *(score + 0.1 for score in RANDOM[1:])))
    assert verdict.learned == "partly"
    assert "between 2.0 points below and 10.0 above the same backbone" in verdict.lead


@pytest.mark.parametrize("state", ["doubtful", "collapsed"])
def test_good_scores_do_not_overrule_bad_health(make_run, state: str):
    verdict = verdict_with(make_run, tuple(score + 0.05 for score in RANDOM), state)
    assert verdict.tone == state
    assert verdict.headline.lower().startswith(state)
    assert verdict.advice == ["Try `--set method.temperature=0.2`."]


def test_without_health_there_is_no_verdict(minimal_run):
    verdict = words.verdict(read_run(minimal_run))
    assert (verdict.state, verdict.learned) == ("unknown", None)
    assert verdict.headline.startswith("No verdict")


def test_the_summary_says_what_was_done(make_run):
    text = words.summary(read_run(make_run(count=24)))
    for fact in ("SimCLR", "a resnet18", "1,797 images", "digits", "10 epochs", "5 min 12 s"):
        assert fact in text
    assert "83.8\N{NO-BREAK SPACE}% of the test images" in text
    assert "85.9\N{NO-BREAK SPACE}% of raw pixels" in text
    assert "2 files were unreadable" in text
    assert "stopped" not in text


def test_a_run_that_was_stopped_says_so(minimal_run):
    assert "stopped after 0.3 of 20 epochs" in words.summary(read_run(minimal_run))


def test_commands_are_quoted_for_the_shell(make_run):
    run = make_run("my run; rm -rf", count=24)
    command = "similitude pretrain 'my photos' --epochs 3"
    (run / "environment.json").write_text(json.dumps({"command": command}))
    read = read_run(run)
    assert words.evaluate_command(read) == f"similitude evaluate '{run}' 'my photos'"
    assert f"--recipe '{run}/recipe.yaml'" in words.repeat_command(read)


@pytest.mark.parametrize(
    ("command", "data"),
    [
        ("bin/similitude pretrain digits --out x", "digits"),
        ("similitude pretrain photos", "photos"),
        ("similitude pretrain my photos --out x", "DATA"),
        ("similitude pretrain --method byol photos", "DATA"),
        ("similitude pretrain", "DATA"),
        ("notebook.py", "DATA"),
        ("similitude pretrain it's", "DATA"),
        (None, "DATA"),
    ],
)
def test_commands_take_the_data_from_the_command_that_ran(make_run, command, data: str):
    run = make_run(count=24)
    (run / "environment.json").write_text(json.dumps({"command": command, "data": "digits train"}))
    assert words.evaluate_command(read_run(run)) == f"similitude evaluate {run} {data}"


def test_raw_pixels_that_win_are_named(make_run):
    evaluation = read_run(make_run(count=24)).evaluation
    assert evaluation is not None
    sentence = scores.where_baselines_win(evaluation)
    assert sentence.startswith("Raw pixels win in kNN (85.9 against 83.8).")


def test_baselines_that_lose_everywhere_are_told_too(make_run):
    means = {"raw pixels": RAW, "pretrained backbone": tuple(score + 0.01 for score in RAW)}
    evaluation = read_run(make_run(count=24, means=means)).evaluation
    assert evaluation is not None
    sentence = scores.where_baselines_win(evaluation)
    assert sentence == (
        "The pretrained backbone is ahead of raw pixels in every column. With only 297 test "
        "images, chance could make the difference to raw pixels in every column."
    )


@pytest.mark.parametrize(
    ("images", "scores_in", "expected"),
    [
        # 60 against 50 %: 1.96 * sqrt((0.24 + 0.25) / n) is 13.7 points at 100, 4.3 at 1,000
        (1000, (0.6, 0.5), "The pretrained backbone is ahead of raw pixels in every column."),
        (
            100,
            (0.6, 0.5),
            "The pretrained backbone is ahead of raw pixels in every column. With only 100 "
            "test images, chance could make the difference to raw pixels in kNN.",
        ),
        (
            100,
            (0.5, 0.6),
            "Raw pixels win in kNN (60.0 against 50.0). With only 100 test images, chance could "
            "make the difference to raw pixels in kNN.",
        ),
        (100, (0.6, 0.6), ""),
    ],
)
def test_differences_that_chance_can_make_are_named(images, scores_in, expected):
    ours, raw = (Score(mean=mean, low=None, high=None, draws=1) for mean in scores_in)
    rows = {"raw pixels": {"knn": raw}, "pretrained backbone": {"knn": ours}}
    evaluation = Evaluation("photos", 500, images, 2, ["knn"], rows)
    assert scores.where_baselines_win(evaluation) == expected


def test_the_table_marks_the_best_and_the_difference(make_run):
    evaluation = read_run(make_run(count=24)).evaluation
    assert evaluation is not None
    table = scores.run_table(evaluation)
    assert [title for title, _ in table.columns][:4] == [
        "kNN",
        "linear probe",
        "1 label per class",
        "5 labels per class",
    ]
    raw, random, ours = table.rows
    assert [row.cells[0].best for row in (raw, random, ours)] == [True, False, False]
    assert [row.cells[3].best for row in (raw, random, ours)] == [False, False, True]
    assert raw.cells[0].difference == ""
    assert (ours.cells[0].difference, ours.cells[0].sign) == ("\N{MINUS SIGN}2.1", "down")
    assert (ours.cells[3].difference, ours.cells[3].sign) == ("+6.7", "up")
    assert ours.cells[3].interval == "66.4\N{EN DASH}68.4"
    assert ours.cells[0].interval == ""
    assert table.draws == 10


def test_a_score_that_is_missing_is_an_empty_cell():
    score = scores.Score(0.5)
    table = scores.table([("a", "run", {"knn": score}), ("b", "run", {})], ["knn"], None)
    assert table.rows[1].cells == [None]
    assert table.rows[0].cells[0].best


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(42.4, "42 s"), (60, "1 min"), (312.4, "5 min 12 s"), (12_000, "3 h 20 min"), (59.6, "1 min")],
)
def test_durations(seconds: float, text: str):
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\N{EM DASH}"),
        (float("nan"), "not a number"),
        (0.0, "0"),
        (0.177, "0.177"),
        (1.5e-5, "1.50e-05"),
        (1450.2, "1,450"),
    ],
)
def test_numbers(value, text: str):
    assert words.number(value) == text


def test_a_baseline_is_shared_where_the_columns_in_common_agree():
    knn, linear, other = (Score(mean=mean) for mean in (0.5, 0.6, 0.7))
    both = {"knn": knn, "linear": linear}
    assert scores.shared_baseline([{"knn": knn}, both]) == both
    assert scores.shared_baseline([both, {"knn": other}]) is None
    assert scores.shared_baseline([{"knn": knn}, {"linear": linear}]) is None
    assert scores.shared_baseline([both, None]) is None
