"""One training from images to a finished run folder."""

import json
import signal
import sys
from types import SimpleNamespace

import pytest
import torch

import similitude as sim
from builders import BACKBONE, Ears, random_images, small_recipe
from similitude.errors import UserError
from similitude.images import samples
from similitude.listener import Silent
from similitude.runs.folder import training_in
from similitude.runs.metrics import read_metrics
from similitude.training.loop import training_note
from similitude.training.pretrain import SCORES, train

CPU = torch.device("cpu")


@pytest.mark.slow
def test_the_log_keeps_what_was_said_and_measured(tmp_path):
    ears = Ears()
    train(random_images(64), "x", small_recipe("simclr"), tmp_path, device=CPU, listener=ears)
    log = (tmp_path / "log.txt").read_text()
    assert all(sentence in log for sentence in ears.sentences)
    assert "kNN" in log


@pytest.mark.slow
def test_what_outputs_have_in_common_is_recorded_judged_and_shown(tmp_path):
    names = ["center_share", "extra_center_share", "extra_center_cosine", "extra_residual_cosine"]
    run = sim.pretrain(random_images(64), recipe=small_recipe("simsiam"), out=tmp_path / "r")
    assert run is not None
    for name in names:
        last = read_metrics(run.path / "metrics.csv")[-1][name]
        assert getattr(run.verdict.readings, name) == pytest.approx(last, rel=1e-6)
    page = (run.path / "report.html").read_text()
    assert "What all unit projections have in common" in page
    assert "Center share of the extra gradient" in page


def test_one_override_need_not_be_a_list():
    with pytest.raises(UserError, match="did you mean temperature"):
        sim.pretrain(random_images(32), overrides="method.temprature=0.2")


@pytest.mark.slow
def test_the_environment_says_how_and_where(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/some/where/similitude", "pretrain", "my photos"])
    recipe = small_recipe("simclr")
    train(random_images(64), "colors", recipe, tmp_path, device=CPU, listener=Silent())
    content = json.loads((tmp_path / "environment.json").read_text())
    assert content["command"] == "similitude pretrain 'my photos'"
    assert content["data"] == "colors"
    assert content["num_images"] == 64
    assert content["seconds"] > 0
    assert {"torch", "timm", "processor", "images_per_second"} <= set(content)


@pytest.mark.slow
def test_scores_of_an_earlier_state_do_not_survive_a_resume(tmp_path):
    images, ears = random_images(64), Ears()

    class Impatient(Silent):
        pressed = False

        def progress(self, what, done, total, note=""):
            if what == "training" and 0 < done < total and not self.pressed:
                self.pressed = True
                signal.raise_signal(signal.SIGINT)

    recipe = small_recipe("simclr", epochs=6)
    assert sim.pretrain(images, recipe=recipe, out=tmp_path / "r", listener=Impatient()) is None
    for name in SCORES:
        (tmp_path / "r" / name).write_text("{}")
    sim.pretrain(images, out=tmp_path / "r", resume=True, listener=ears)
    assert not any((tmp_path / "r" / name).exists() for name in SCORES)
    assert any("evaluate again" in sentence for sentence in ears.sentences)
    assert any("retrieve again" in sentence for sentence in ears.sentences)


@pytest.mark.slow
def test_a_job_of_a_cluster_is_one_process_and_writes_nowhere_else(tmp_path, monkeypatch):
    for name, value in {
        "SLURM_NTASKS": "4",
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NAME": "x",
        "SLURM_PROCID": "2",
        "LSB_JOBID": "1",
        "LSB_DJOB_RANKFILE": "/nowhere",
        "JSM_NAMESPACE_SIZE": "4",
        "WORLD_SIZE": "",
        "RANK": "",
        "KUBERNETES_PORT": "1",
        "OMPI_COMM_WORLD_SIZE": "4",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hpc_ckpt_1.ckpt").write_text("of another run")
    handlers = [signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGTERM)]
    run = sim.pretrain(random_images(64), recipe=small_recipe("simclr"), out="r")
    assert run is not None
    assert run.checkpoint.step == 12
    environment = (run.path / "environment.json").read_text()
    assert '"processes": 1' in environment
    assert '"title": "SimCLR"' in environment
    assert {path.name for path in tmp_path.iterdir()} == {"hpc_ckpt_1.ckpt", "r"}
    assert [signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGTERM)] == handlers


class Interjecting(Ears):
    """Does something once, in the middle of a training."""

    def __init__(self, what):
        super().__init__()
        self.what = what

    def progress(self, what, done, total, note=""):
        if what == "training" and done == total // 2 and self.what is not None:
            act, self.what = self.what, None
            act()


@pytest.mark.slow
def test_scores_that_are_given_while_a_run_trains_do_not_survive_it(tmp_path):
    images, out, ears = random_images(64), tmp_path / "r", Ears()

    def evaluate():
        sim.load(out).evaluate(images, protocols="knn", listener=ears)
        assert (out / "evaluation.json").exists()

    listener = Interjecting(evaluate)
    sim.pretrain(images, recipe=small_recipe("simclr"), out=out, listener=listener)
    assert any(
        "is trained still: these are scores of step" in sentence for sentence in ears.sentences
    )
    assert any("evaluation.json is of weights before" in s for s in listener.sentences)
    assert json.loads((out / "report.json").read_text())["evaluation"] is None
    sim.load(out).evaluate(images, protocols="knn")
    sim.pretrain(images, out=out, resume=True)  # finished: the scores are of its weights
    assert (out / "evaluation.json").exists()


@pytest.mark.slow
def test_scores_are_not_kept_if_the_run_has_trained_on_meanwhile(tmp_path):
    images, out, ears = random_images(64), tmp_path / "r", Ears()
    stop = Interjecting(lambda: signal.raise_signal(signal.SIGINT))
    assert sim.pretrain(images, recipe=small_recipe("simclr"), out=out, listener=stop) is None
    run = sim.load(out)
    assert run.checkpoint.step < 12
    sim.pretrain(images, out=out, resume=True)
    run.evaluate(images, protocols="knn", listener=ears)
    assert any("has trained on meanwhile" in sentence for sentence in ears.sentences)
    assert not (out / "evaluation.json").exists()


@pytest.mark.slow
def test_resuming_what_another_command_has_resumed_meanwhile_is_refused(tmp_path, monkeypatch):
    images, out = random_images(64), tmp_path / "r"
    stop = Interjecting(lambda: signal.raise_signal(signal.SIGINT))
    sim.pretrain(images, recipe=small_recipe("simclr"), out=out, listener=stop)
    load = samples.load_images

    def slowly(*args, **options):
        monkeypatch.setattr(samples, "load_images", load)
        sim.pretrain(images, out=out, resume=True)
        return load(*args, **options)

    monkeypatch.setattr(samples, "load_images", slowly)
    with pytest.raises(UserError, match="another command has gone on with the run"):
        sim.pretrain(images, out=out, resume=True)
    assert sim.load(out).checkpoint.step == 12


@pytest.mark.slow
def test_a_folder_that_another_command_fills_while_images_are_read_is_left_alone(
    tmp_path, monkeypatch
):
    images, out, load = random_images(64), tmp_path / "r", samples.load_images

    def slowly(*args, **options):
        monkeypatch.setattr(samples, "load_images", load)
        sim.pretrain(images, recipe=small_recipe("simclr"), out=out)
        return load(*args, **options)

    monkeypatch.setattr(samples, "load_images", slowly)
    with pytest.raises(UserError, match="not empty"):
        sim.pretrain(images, recipe=small_recipe("byol"), out=out)
    assert sim.load(out).recipe.method.name == "simclr"


@pytest.mark.slow
@pytest.mark.parametrize("micro", [1, 3])
def test_micro_batches_of_one_image_are_refused_before_anything_is_begun(tmp_path, micro):
    """The last maps are of one pixel: BatchNorm has one number to take the spread of."""
    options = {"method": "byol", "out": tmp_path / "r", "epochs": 1, "batch_size": 16}
    settings = ["backbone.base_width=4", "backbone.stem=standard", "image_size=32"]
    with pytest.raises(UserError, match="give --micro-batch-size 2"):
        sim.pretrain(random_images(64), micro_batch_size=micro, overrides=settings, **options)
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_two_trainings_do_not_share_a_folder(tmp_path):
    images, recipe = random_images(64), small_recipe("simclr")
    with training_in(tmp_path / "r"), pytest.raises(UserError, match="another process trains into"):
        sim.pretrain(images, recipe=recipe, out=tmp_path / "r")
    assert sim.pretrain(images, recipe=recipe, out=tmp_path / "r") is not None


@pytest.mark.slow
def test_a_run_is_replaced_by_one_that_gets_somewhere_and_by_no_other(tmp_path, monkeypatch):
    images, out = random_images(64), tmp_path / "r"
    sim.pretrain(images, recipe=small_recipe("simclr"), out=out)
    (out / "notes.txt").write_text("mine")
    before = {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()}

    def broken(*args, **options):
        (out / "recipe.yaml").write_text("half")
        raise UserError("no")

    with monkeypatch.context() as patch:
        patch.setattr(sim.training.pretrain, "run_steps", broken)
        with pytest.raises(UserError, match="no"):
            sim.pretrain(images, recipe=small_recipe("byol"), out=out, overwrite=True)
    assert {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()} == before
    assert sim.load(out).recipe.method.name == "simclr"

    sim.pretrain(images, recipe=small_recipe("byol"), out=out, overwrite=True)
    assert sim.load(out).recipe.method.name == "byol"
    assert not (out / ".replaced").exists()
    assert (out / "notes.txt").exists()


@pytest.mark.slow
def test_images_without_labels_train_as_well(tmp_path):
    images = random_images(64)
    bare = type(images)(images.pixels, images.aspect, images.names)
    run = train(bare, "x", small_recipe("moco_v2"), tmp_path, device=CPU, listener=Silent())
    assert run is not None
    with_labels = train(
        images, "x", small_recipe("moco_v2"), tmp_path / "b", device=CPU, listener=Silent()
    )
    assert with_labels is not None
    a, b = run.checkpoint.method, with_labels.checkpoint.method
    assert all(torch.equal(a[name], b[name]) for name in a)  # no label reached the method


@pytest.mark.slow
def test_micro_batches_leave_a_run_without_batchnorm_as_it_is(tmp_path):
    """The gradient cache inside the trainer: a ViT has no batch statistics, so nothing changes."""
    from similitude.images.backbones import BackboneConfig

    vit = BackboneConfig(
        name="vit_tiny_patch16_224",
        options={"img_size": 16, "patch_size": 8, "depth": 1, "embed_dim": 24, "num_heads": 2},
    )
    states = []
    for size in (None, 4):
        recipe = small_recipe("simclr", backbone=vit, micro_batch_size=size, epochs=1)
        folder = tmp_path / str(size)
        run = train(random_images(32), "x", recipe, folder, device=CPU, listener=Silent())
        assert run is not None
        states.append(run.checkpoint.method)
    torch.testing.assert_close(states[0], states[1], rtol=1e-4, atol=1e-5)


def test_the_note_shows_the_loss_beside_chance_and_says_when_images_are_late():
    values = {"loss": 4.2, "chance_loss": 6.2366, "images_per_second": 812.3, "knn": 0.456}
    note = training_note(values | {"waiting_share": 0.25})
    assert note == (
        "812 images/s  loss 4.2 (chance 6.24)  kNN 45.6  25 % of the time waiting for images"
    )
    assert training_note({}) == ""


@pytest.mark.slow
def test_weights_that_decay_are_not_turned_and_those_that_learn_are(tmp_path, monkeypatch):
    """What a verdict calls hardly moved."""
    images = random_images(64)
    run = sim.pretrain(images, out=tmp_path / "run", backbone=BACKBONE, epochs=2, batch_size=16)
    assert run is not None
    assert run.weight_change() > 0.001
    decayed = {name: 0.9 * tensor for name, tensor in run.untrained().state_dict().items()}
    monkeypatch.setitem(
        run.__dict__, "checkpoint", SimpleNamespace(backbone=decayed, recipe=run.recipe)
    )
    monkeypatch.setitem(run.__dict__, "start", None)
    assert run.weight_change() < 1e-6
