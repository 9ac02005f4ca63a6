"""Curves go to whoever is asked for; their faults are not the run's."""

import importlib.util
import sys
from types import SimpleNamespace
from typing import ClassVar

import pytest

import similitude as sim
from builders import random_images, small_recipe
from similitude.training.logs import LOGGERS
from similitude.training.request import LOGGER_NAMES


class Backend:
    """What wandb, mlflow and trackio have in common, and what they are called with."""

    def __init__(self, fail_at=None):
        self.rows, self.calls, self.fail_at = [], [], fail_at

    def init(self, **options):
        self.calls.append(options)
        return self

    def log(self, values, step):
        if step == self.fail_at:
            raise ConnectionError("the server is gone")
        self.rows.append((step, values))

    log_metrics = log

    def finish(self):
        self.calls.append("finish")

    end_run = finish

    def set_experiment(self, name):
        self.calls.append(name)

    def start_run(self, run_name):
        self.calls.append(run_name)

    def log_dict(self, content, name):
        self.calls.append((name, content["batch_size"]))


@pytest.fixture
def backend(monkeypatch):
    def install(name, **options):
        found = Backend(**options)
        monkeypatch.setitem(sys.modules, name, found)
        real = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda n: SimpleNamespace() if n == name else real(n)
        )
        return found

    return install


def train(out, **options):
    recipe = small_recipe("simclr", epochs=2)
    return sim.pretrain(random_images(32), recipe=recipe, out=out, report=False, **options)


def test_the_names_are_known_without_their_functions():
    assert tuple(LOGGERS) == LOGGER_NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", LOGGERS)
def test_every_row_of_metrics_is_told(name, backend, tmp_path):
    found = backend(name)
    run = train(tmp_path / "r", log=name)
    steps = [row.split(",")[0] for row in (run.path / "metrics.csv").read_text().splitlines()[1:]]
    assert [str(step) for step, _ in found.rows] == steps
    assert "loss" in found.rows[-1][1]
    assert found.calls[-1] == "finish"


@pytest.mark.slow
def test_a_server_that_fails_ends_no_run(backend, tmp_path):
    class Heard:
        sentences: ClassVar = []

        def say(self, sentence):
            self.sentences.append(sentence)

        def progress(self, *args):
            pass

    backend("wandb", fail_at=2)
    run = train(tmp_path / "r", log=["wandb"], listener=Heard())
    assert run.verdict is not None
    assert sum("wandb failed (the server is gone)" in s for s in Heard.sentences) == 1


def test_a_logger_that_is_not_there_is_told_before_any_work(tmp_path):
    with pytest.raises(sim.UserError, match="unknown logger 'wandbb': did you mean wandb"):
        train(tmp_path / "r", log="wandbb")
    if importlib.util.find_spec("wandb") is None:
        with pytest.raises(sim.UserError, match=r"pip install 'similitude\[wandb\]'"):
            train(tmp_path / "r", log="wandb")
    assert not (tmp_path / "r").exists()
