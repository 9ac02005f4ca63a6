"""A run that has collapsed is stopped, one that has not is left alone, and both say so."""

import json
import signal

import pytest
import torch

from builders import random_images, small_recipe
from similitude import api
from similitude.evaluation.verdict import Verdict
from similitude.evaluation.verdict_rules import WARM_UP_STEPS
from similitude.listener import Silent
from similitude.recipes import OptimizerConfig
from similitude.report import read_run
from similitude.report.words import training_summary
from similitude.runs.metrics import read_metrics
from similitude.runs.run import Run
from similitude.training import pretrain as training
from similitude.training import recorder as recording
from similitude.training.pretrain import train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked_runs")]

CPU = torch.device("cpu")
STEPS = 4  # of an epoch; one measurement each
STATES = {"h": "healthy", "c": "collapsed", "d": "doubtful"}


@pytest.fixture
def judged(monkeypatch):
    """Make the verdict after epoch i that of the i-th letter, and count from the first step on."""

    def states(letters: str, warm_up: int = 1) -> None:
        def judge(metrics, images, nan_step=None, weight_change=None):
            epoch = int(metrics.last("step")) // STEPS
            return Verdict(STATES[letters[epoch - 1]], ["because"])

        monkeypatch.setattr(training, "judge", judge)
        monkeypatch.setattr(recording, "WARM_UP_STEPS", warm_up)

    return states


def run(folder, epochs, listener=None, **options):
    recipe = small_recipe("simclr", epochs=epochs)
    images = random_images(STEPS * recipe.batch_size)
    options = {"stop_collapsed": True, **options}
    return train(images, "x", recipe, folder, device=CPU, listener=listener or Silent(), **options)


def last_step(folder) -> float:
    return read_metrics(folder / "metrics.csv")[-1]["step"]


def marked(folder) -> list[float]:
    return [r["step"] for r in read_metrics(folder / "metrics.csv") if "stopped_early" in r]


@pytest.mark.parametrize(
    ("letters", "warm_up", "stops_after"),
    [
        ("hhhhh", 1, None),
        ("ddddd", 1, None),
        ("chchc", 1, None),  # twice, but not in a row
        ("hccch", 1, 3),
        ("ccccc", 1, 2),
        ("ccccc", 2 * STEPS, 3),  # the first steps do not count
        ("cchhh", 2 * STEPS, None),
        ("hhhcc", 1, None),  # it is at its end anyway
    ],
)
def test_two_collapsed_measurements_in_a_row_stop_a_run(
    judged, tmp_path, letters, warm_up, stops_after
):
    judged(letters, warm_up)
    assert run(tmp_path / "run", len(letters)) is not None
    expected = len(letters) if stops_after is None else stops_after
    assert last_step(tmp_path / "run") == expected * STEPS
    assert marked(tmp_path / "run") == ([] if stops_after is None else [expected * STEPS])


def test_a_stopped_run_is_whole_and_says_that_it_was_stopped(judged, tmp_path):
    judged("cccc")
    folder = tmp_path / "run"
    stopped = run(folder, 4, report=False)
    assert stopped is not None
    assert stopped.verdict.state == "collapsed"
    assert stopped.checkpoint.step == 2 * STEPS
    for name in ("recipe.yaml", "environment.json", "backbone.safetensors", "embedding.npz"):
        assert (folder / name).exists()
    assert not (folder / "report.html").exists()
    assert (
        f"stopped early, after step {2 * STEPS} of {4 * STEPS}" in (folder / "log.txt").read_text()
    )
    summary = read_run(folder)
    assert summary.metrics.last("stopped_early") == 1.0
    assert "stopped after 2 of 4 epochs" in training_summary(summary)
    assert stopped.report().exists()


def test_nothing_is_stopped_unasked(judged, tmp_path):
    judged("ccc")
    assert run(tmp_path / "run", 3, stop_collapsed=False) is not None
    assert last_step(tmp_path / "run") == 3 * STEPS
    assert marked(tmp_path / "run") == []
    assert (tmp_path / "run" / "report.html").exists()


def test_watching_changes_no_bit_of_a_run_that_does_not_collapse(judged, tmp_path):
    judged("hch")
    watched = run(tmp_path / "watched", 3, report=False)
    alone = run(tmp_path / "alone", 3, report=False, stop_collapsed=False)
    assert watched is not None
    assert alone is not None
    one, other = watched.checkpoint.method, alone.checkpoint.method
    assert all(torch.equal(one[name], other[name]) for name in one)


class CtrlC(Silent):
    def __init__(self, step: int) -> None:
        self.step = step

    def progress(self, what, done, total, note=""):
        if what == "training" and done == self.step:
            signal.raise_signal(signal.SIGINT)


def test_a_resumed_run_stops_where_the_whole_one_does(judged, tmp_path):
    """What was measured before the interruption counts."""
    judged("hccc")
    assert run(tmp_path / "whole", 4) is not None
    assert run(tmp_path / "parts", 4, CtrlC(2 * STEPS + 1)) is None
    checkpoint = Run(tmp_path / "parts").checkpoint
    assert 2 * STEPS < checkpoint.step < 3 * STEPS
    assert run(tmp_path / "parts", 4, checkpoint=checkpoint) is not None
    assert last_step(tmp_path / "parts") == last_step(tmp_path / "whole") == 3 * STEPS
    one, other = (Run(tmp_path / name).checkpoint.method for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_loss_that_is_not_a_number_is_marked_too(tmp_path):
    optimizer = OptimizerConfig(base_lr=1e30, schedule="constant")
    recipe = small_recipe("simsiam", optimizer=optimizer, epochs=20)
    folder = tmp_path / "run"
    assert train(random_images(64), "x", recipe, folder, device=CPU, listener=Silent()) is not None
    assert marked(folder) == [last_step(folder)]
    assert json.loads((folder / "health.json").read_text())["state"] == "collapsed"


@pytest.mark.slow
def test_real_rules_stop_a_real_collapse_and_leave_a_real_run_alone(tmp_path):
    """SimSiam with and without stop-gradient and predictor, past the first steps."""
    images, epochs = random_images(128), 2 + 2 * WARM_UP_STEPS // 8
    # a rate that collapses soon, and one at which no run of three seeds came near
    fast, slow = (
        small_recipe(
            "simsiam",
            epochs=epochs,
            precision="float32",
            optimizer=OptimizerConfig(base_lr=rate, schedule="constant"),
        )
        for rate in (2.0, 0.1)
    )
    lost = fast.method.model_copy(update={"stop_gradient": False, "predictor": "none"})
    for name, recipe in (("lost", fast.model_copy(update={"method": lost})), ("healthy", slow)):
        trained = api.pretrain(
            images, recipe=recipe, out=tmp_path / name, report=False, stop_collapsed=True
        )
        assert trained is not None
    lost_run, healthy = Run(tmp_path / "lost"), Run(tmp_path / "healthy")
    assert lost_run.verdict.state == "collapsed"
    assert WARM_UP_STEPS < lost_run.checkpoint.step < epochs * 8
    assert marked(tmp_path / "lost") == [lost_run.checkpoint.step]
    assert healthy.verdict.state != "collapsed"
    assert marked(tmp_path / "healthy") == []
