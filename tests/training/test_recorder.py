"""What a run writes while it trains."""

import errno
import math
import signal

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import similitude as sim
from builders import random_images, small_recipe
from similitude.evaluation.online import OnlineMonitor
from similitude.evaluation.verdict import diagnose
from similitude.listener import Silent
from similitude.recipes import OptimizerConfig
from similitude.runs.metrics import Metrics, read_metrics
from similitude.training import logs, recorder
from similitude.training.pretrain import judge, train

CPU = torch.device("cpu")


@pytest.mark.slow
def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_checkpoint_before(tmp_path):
    images = random_images(64)
    recipe = small_recipe(
        "simsiam", optimizer=OptimizerConfig(base_lr=1e30, schedule="constant"), epochs=20
    )
    run = train(images, "x", recipe, tmp_path / "run", device=CPU, listener=Silent())
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert not math.isfinite([row["loss"] for row in rows if "loss" in row][-1])
    assert rows[-1]["step"] < 80
    assert run is not None
    assert run.verdict.state == "collapsed"
    assert "not a number" in run.verdict.sentence


@pytest.mark.slow
def test_weights_that_a_step_broke_are_not_saved_over_sound_ones(tmp_path):
    images = random_images(64)  # four steps per epoch; the loss of step 1 is that of sound weights
    recipe = small_recipe(
        "simclr", optimizer=OptimizerConfig(base_lr=math.inf), epochs=1, batch_size=64
    )
    run = train(images, "x", recipe, tmp_path / "run", device=CPU, listener=Silent())
    assert run is not None
    assert run.verdict.state == "collapsed"
    assert "not a number since step 1" in run.verdict.sentence
    assert all(weight.isfinite().all() for weight in run.backbone.state_dict().values())


@pytest.mark.slow
def test_features_that_are_not_numbers_end_the_run_with_a_verdict(tmp_path, monkeypatch):
    """Weights and loss may be numbers still: they are of before the last activations overflow."""
    measure = OnlineMonitor.measure

    def overflowing(self, backbone, device):
        if not calls:
            calls.append(1)
            return measure(self, backbone, device)
        with torch.no_grad():
            hook = backbone.register_forward_hook(lambda *a: a[2] * math.inf)
        try:
            return measure(self, backbone, device)
        finally:
            hook.remove()

    calls = []
    monkeypatch.setattr(OnlineMonitor, "measure", overflowing)
    run = sim.pretrain(random_images(64), recipe=small_recipe("simclr"), out=tmp_path / "run")
    assert run is not None
    assert run.verdict.state == "collapsed"
    assert "A weight or feature is not a number since step 4" in run.verdict.sentence
    assert run.checkpoint.step == 0  # the one from before
    for name in ("report.html", "health.json", "embedding.npz", "backbone.safetensors"):
        assert (run.path / name).exists()


@pytest.mark.slow
def test_speed_and_waiting_are_logged(tmp_path):
    train(random_images(64), "x", small_recipe("simclr"), tmp_path, device=CPU, listener=Silent())
    rows = [row for row in read_metrics(tmp_path / "metrics.csv") if "images_per_second" in row]
    assert all(row["images_per_second"] > 0 for row in rows)
    assert all(0 <= row["waiting_share"] <= 1 for row in rows)
    assert {"knn", "effective_rank", "alignment", "uniformity", "feature_std"} <= set(rows[-1])


@pytest.mark.slow
def test_judging_needs_only_what_was_written(tmp_path):
    images = random_images(64)
    run = train(images, "x", small_recipe("byol"), tmp_path, device=CPU, listener=Silent())
    assert run is not None
    verdict = judge(Metrics(tmp_path / "metrics.csv", 10_000), images)
    assert (verdict.state, verdict.reasons) == (run.verdict.state, run.verdict.reasons)
    assert verdict.reasons == diagnose(verdict.readings).reasons


class Heard(Silent):
    def __init__(self):
        self.sentences = []

    def say(self, sentence):
        self.sentences.append(sentence)


@pytest.mark.slow
def test_the_event_file_is_read_by_tensorboard(tmp_path):
    train(random_images(64), "x", small_recipe("simclr"), tmp_path, device=CPU, listener=Silent())
    found = EventAccumulator(str(tmp_path / "events")).Reload()
    rows = read_metrics(tmp_path / "metrics.csv")
    losses = {int(row["step"]): row["loss"] for row in rows if "loss" in row}
    scalars = {event.step: event.value for event in found.Scalars("loss")}
    assert scalars == pytest.approx(losses, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("at", [0, 2])
def test_a_full_disk_costs_the_event_file_and_not_the_run(tmp_path, monkeypatch, at):
    written = []

    def write(self, data):
        written.append(data)
        if len(written) > at:
            raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(logs.RecordWriter, "write", write)
    heard = Heard()
    run = train(
        random_images(64), "x", small_recipe("simclr"), tmp_path, device=CPU, listener=heard
    )
    assert run is not None
    assert run.verdict.state in ("healthy", "doubtful")
    told = [s for s in heard.sentences if "events" in s]
    assert len(told) == 1
    assert "the disk is full" in told[0]
    assert "goes on without events" in told[0]


class ToldLate:
    """What one process hears of all: of itself, one call late."""

    def __init__(self, device) -> None:
        self.before: list[bool] = []

    def any(self, flags) -> list[bool]:
        before, self.before = self.before, list(flags)
        return before or [False] * len(self.before)


@pytest.mark.slow
def test_a_checkpoint_that_is_due_is_written_once_though_it_is_told_late(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "FlagsOfAll", ToldLate)
    monkeypatch.setattr(recorder, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    saved = []
    save = recorder.save_checkpoint
    monkeypatch.setattr(
        recorder, "save_checkpoint", lambda *a, **k: (saved.append(k["step"]), save(*a, **k))
    )
    recipe = small_recipe("simclr", epochs=2, batch_size=16)  # of six steps each
    train(random_images(96), "x", recipe, tmp_path / "run", device=CPU, listener=Silent())
    assert saved == [0, 2, 4, 6, 8, 10, 12]  # due at every step, and just written at every other


@pytest.mark.slow
def test_a_signal_that_another_process_heard_in_the_last_step_ends_this_one_too(
    tmp_path, monkeypatch
):
    told = [number == signal.SIGTERM for number in recorder.STOPS]
    monkeypatch.setattr(
        recorder, "any_process", lambda flags, _: told if len(list(flags)) > 1 else [False]
    )
    recipe = small_recipe("simclr", epochs=1, batch_size=16)
    with pytest.raises(SystemExit) as ended:
        train(random_images(32), "x", recipe, tmp_path / "run", device=CPU, listener=Silent())
    assert ended.value.code == 143
    assert sim.load(tmp_path / "run").checkpoint.step == 2
