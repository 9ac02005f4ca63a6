import json

import pytest

from similitude.evaluation.scores import Score, ScoreTable
from similitude.report import read_run, scores, words

RAW = (0.859, 0.84, 0.39, 0.607, 0.68, 0.79)
RANDOM = (0.71, 0.76, 0.31, 0.498, 0.57, 0.71)


def verdict_with(make_run, pretrained, state="healthy"):
    means = {"raw pixels": RAW, "random backbone": RANDOM, "pretrained backbone": pretrained}
    return words.verdict(read_run(make_run(count=24, means=means, state=state)))


def test_better_than_random_in_every_column_means_learned(make_run):
    verdict = verdict_with(make_run, tuple(score + 0.2 for score in RANDOM))
    assert (verdict.state, verdict.tone, verdict.learned) == ("healthy", "healthy", "yes")
    assert verdict.headline == "Healthy: the backbone learned"
    assert "20.0 points above the same backbone with random weights" in verdict.lead


def test_a_run_that_raw_pixels_beat_says_so_at_the_top(make_run):
    verdict = verdict_with(make_run, tuple(score + 0.05 for score in RANDOM))
    assert (verdict.tone, verdict.learned) == ("doubtful", "yes")
    assert verdict.headline == "Not collapsed, but no better than raw pixels"
    assert verdict.lead.startswith(
        "The pretrained backbone scores less than raw pixels in every column (linear probe -3.0). "
    )
    assert "5.0 points above the same backbone with random weights" in verdict.lead
    assert verdict.advice[0].startswith("Train longer, or choose views")


def test_a_run_that_its_start_beats_says_so_at_the_top(make_run):
    ours = tuple(score + 0.1 for score in RAW)
    rows = {"raw pixels": RAW, "random backbone": RANDOM}
    rows |= {"before training": tuple(score + 0.01 for score in ours), "pretrained backbone": ours}
    differences = {
        "before training": {
            c: {"mean": -0.01, "low": -0.03, "high": -0.002 if c == "knn" else 0.01}
            for c in ("knn", "linear", "linear_1", "linear_5", "linear_10", "linear_100")
        }
    }
    run = read_run(make_run(count=24, means=rows, differences=differences))
    verdict = words.verdict(run)
    assert (verdict.tone, verdict.learned) == ("doubtful", "no")
    assert verdict.headline == "Not collapsed, but no better than the weights it started from"
    assert verdict.lead.startswith(
        "The pretrained backbone scores less than the weights it started from in every column "
        "(linear probe -1.0 ± 2.0). Its features score 1.0 points below the published weights"
    )
    assert verdict.advice[0].startswith("Use these weights as they are")


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
    first, second = evaluation.sentences(scores.full_title)
    assert first.startswith("The pretrained backbone is below raw pixels in kNN -2.1. Train longer")
    assert second == "It is above the random backbone (linear probe +12.0) in every column."


def test_paired_differences_have_their_interval_and_sign(make_run):
    """They are those of the file: taken image by image, they cannot be had from the means."""
    differences = {
        "raw pixels": {
            "knn": {"mean": -0.021, "low": -0.033, "high": -0.009},
            "linear": {"mean": 0.04, "low": 0.021, "high": 0.059},
            "linear_1": {"mean": 0.09, "low": -0.01, "high": 0.19},
        }
    }
    evaluation = read_run(make_run(count=24, differences=differences)).evaluation
    assert evaluation is not None
    raw, random = scores.difference_rows(evaluation)
    assert raw[0] == "raw pixels"
    assert raw[1][:4] == [
        ("\N{MINUS SIGN}2.1 \N{PLUS-MINUS SIGN} 1.2", "down"),
        ("+4.0 \N{PLUS-MINUS SIGN} 1.9", "up"),
        ("+9.0 \N{PLUS-MINUS SIGN} 10.0", ""),
        ("+6.7", "up"),  # of a column without an interval
    ]
    assert random[0] == "random backbone"
    assert "It cannot be told apart from raw pixels in 1 label per class." in (
        evaluation.sentences(scores.full_title)
    )


def test_files_of_earlier_versions_have_no_table_of_differences(make_run):
    evaluation = read_run(make_run(count=24)).evaluation
    assert evaluation is not None
    assert scores.difference_rows(evaluation) == []


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


def shared_rows(name: str, *rows: dict[str, Score] | None) -> dict[str, dict[str, Score]]:
    tables = [ScoreTable("x", 9, 9, 2, [], {} if row is None else {name: row}) for row in rows]
    return scores.shared_baselines(tables)


def test_a_baseline_is_shared_where_the_columns_in_common_agree():
    knn, linear, other = (Score(mean=mean) for mean in (0.5, 0.6, 0.7))
    both = {"knn": knn, "linear": linear}
    assert shared_rows("raw pixels", {"knn": knn}, both) == {"raw pixels": both}
    assert shared_rows("raw pixels", both, {"knn": other}) == {}
    assert shared_rows("raw pixels", {"knn": knn}, {"linear": linear}) == {}
    assert shared_rows("raw pixels", both, None) == {}
    assert shared_rows("random backbone", both, both) == {}


def test_published_weights_are_shared_by_runs_that_have_the_same_scores():
    rows = {"raw pixels": {"knn": Score(0.5)}, "timm:a": {"knn": Score(0.7)}}
    one = ScoreTable("x", 9, 9, 2, ["knn"], {**rows, "pretrained backbone": {"knn": Score(0.6)}})
    other = ScoreTable("x", 9, 9, 2, ["knn"], {**rows, "before training": {"knn": Score(0.6)}})
    assert scores.shared_baselines([one, other]) == rows
    assert scores.shared_baselines([]) == {}
