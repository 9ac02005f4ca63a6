"""A run that starts from published weights keeps what it needs of them, and stays near them."""

import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file, save_file

import similitude as sim
from builders import write_photos
from similitude.errors import UserError
from similitude.images.backbones import BackboneConfig, build_backbone
from similitude.recipes import load_recipe
from similitude.runs import scoring
from similitude.runs.checkpoint import export_backbone
from similitude.runs.starts import open_start

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked_runs", "forked_exports")]

QUICK = ["image_size=32", "canvas_size=32", "method.view.size=null", "optimizer.base_lr=0.02"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(7)
    state = build_backbone(BackboneConfig(base_width=8)).state_dict()
    path = tmp_path_factory.mktemp("published") / "published.safetensors"
    export_backbone(state, path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"), 48, size=32)


@pytest.fixture(scope="module")
def run(weights, photos, tmp_path_factory):
    """A run of three epochs whose file of published weights is gone afterwards."""
    copy = tmp_path_factory.mktemp("gone") / "published.safetensors"
    shutil.copyfile(weights, copy)
    out = tmp_path_factory.mktemp("runs") / "adapted"
    run = sim.pretrain(photos, init=copy, epochs=3, batch_size=8, out=out, overrides=QUICK)
    copy.unlink()
    return run


def test_the_network_is_that_of_the_weights_and_its_first_half_stays(run, weights):
    start, trained = load_file(weights), run.checkpoint.backbone
    assert run.recipe.backbone.base_width == 8
    assert run.recipe.init.name == "published"
    early = [n for n in trained if n.startswith(("conv1", "bn1", "layer1", "layer2"))]
    late = [n for n in trained if n.startswith("layer4") and trained[n].is_floating_point()]
    assert all(torch.equal(trained[n], start[n]) for n in early)  # statistics too
    assert not any(torch.equal(trained[n], start[n]) for n in late)


def test_what_is_kept_is_half_way_back_to_the_start(run, weights):
    start, trained = load_file(weights), run.checkpoint.backbone
    for name, kept in load_file(run.path / "backbone.safetensors").items():
        if kept.is_floating_point():
            torch.testing.assert_close(kept, (start[name] + trained[name]) / 2)
    kept = run.backbone.state_dict()
    assert torch.equal(kept["layer4.1.conv2.weight"], run.kept_weights["layer4.1.conv2.weight"])


def test_it_is_scored_reported_and_exported_without_the_file(run, photos, tmp_path):
    table = run.evaluate(photos, protocols=("knn",))
    assert list(table.rows) == [
        "raw pixels",
        "random backbone",
        "before training",
        "pretrained backbone",
    ]
    assert "before training" in run.report().read_text()
    assert "create_model('resnet18'" in run.export(tmp_path / "b.safetensors")
    again = open_start(run.path)
    assert torch.equal(
        again.state["layer4.1.conv2.weight"],
        load_file(tmp_path / "b.safetensors")["layer4.1.conv2.weight"],
    )


def test_random_weights_are_random_and_the_start_is_itself(run, weights):
    rows = {entrant.name: entrant.backbone.state_dict() for entrant in scoring._before(run)}
    start = load_file(weights)["layer1.0.conv1.weight"]
    assert torch.equal(rows["before training"]["layer1.0.conv1.weight"], start)
    assert not torch.equal(rows["random backbone"]["layer1.0.conv1.weight"], start)


def test_drift_is_measured_and_begins_at_nothing(run):
    drift = [float(row["drift"]) for row in read_rows(run) if "drift" in row]
    assert drift[0] == pytest.approx(0, abs=1e-3)  # in another arithmetic
    assert drift[-1] > 1e-4
    assert "drift" in (run.path / "health.json").read_text()


def read_rows(run):
    from similitude.runs.metrics import read_metrics

    return read_metrics(run.path / "metrics.csv")


@pytest.mark.parametrize("method", ["byol", "dino"])
def test_a_stopped_run_goes_on_bit_for_bit_without_the_file(
    method, weights, photos, tmp_path, monkeypatch
):
    from similitude.training.recorder import Recorder

    local = ["method.local_view.size=16"] if method == "dino" else []
    views = ["method.view1.size=null", "method.view2.size=null"]
    # bfloat16 on maps of one pixel is not the same bits in every call of a kernel
    settings = [QUICK[0], QUICK[1], QUICK[3], *views, *local, "precision=float32"]
    options = {"method": method, "epochs": 2, "batch_size": 8, "overrides": settings}
    copy = tmp_path / "published.safetensors"
    shutil.copyfile(weights, copy)
    whole = sim.pretrain(photos, init=copy, out=tmp_path / "whole", report=False, **options)
    record = Recorder.record

    def stopping(self, module, outputs):
        self.stop_signal = signal.SIGINT if module.step == 5 else 0
        record(self, module, outputs)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "record", stopping)
        stopped = sim.pretrain(photos, init=copy, out=tmp_path / "half", report=False, **options)
    assert stopped is None
    copy.unlink()
    resumed = sim.pretrain(photos, out=tmp_path / "half", resume=True, report=False)
    assert resumed.kept_weights.keys() == whole.kept_weights.keys()
    for name, value in whole.checkpoint.method.items():
        assert torch.equal(value, resumed.checkpoint.method[name]), name
    for name, value in whole.kept_weights.items():
        assert torch.equal(value, resumed.kept_weights[name]), name


def test_heads_move_alone_at_first(weights, photos, tmp_path):
    settings = [*QUICK, "init.head_warmup=1", "init.average=0"]
    run = sim.pretrain(
        photos, init=weights, epochs=1, batch_size=8, out=tmp_path / "r", overrides=settings
    )
    trained = run.checkpoint.backbone
    parameters = {name for name, _ in run.backbone.named_parameters()}
    assert all(torch.equal(trained[n], v) for n, v in load_file(weights).items() if n in parameters)


def test_a_recipe_with_a_start_needs_the_weights_again(run, weights, photos, tmp_path):
    path = run.path / "recipe.yaml"
    with pytest.raises(UserError, match="--init"):
        sim.pretrain(photos, recipe=path, out=tmp_path / "a")
    free = sim.pretrain(
        photos, recipe=path, overrides=["init=null"], out=tmp_path / "free", report=False
    )
    assert free.recipe.init is None
    assert not (free.path / "start.safetensors").exists()
    again = sim.pretrain(photos, recipe=path, init=weights, out=tmp_path / "b", report=False)
    assert again.recipe == load_recipe(path)
    for name, value in run.checkpoint.method.items():
        assert torch.equal(value, again.checkpoint.method[name]), name


@pytest.mark.parametrize("change", ["cut", "missing", "other"])
def test_a_start_that_is_damaged_or_foreign_is_told(run, change, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    path = copy / "start.safetensors"
    if change == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif change == "missing":
        path.unlink()
    else:
        state = load_file(path)
        state["conv1.weight"] += 1
        save_file(state, path)
    with pytest.raises(UserError, match=r"start\.safetensors"):
        _ = sim.load(copy).backbone


def test_a_method_that_wraps_its_network_is_refused_with_published_weights(
    weights, photos, tmp_path
):
    with pytest.raises(UserError, match="cmc"):
        sim.pretrain(photos, method="cmc", init=weights, epochs=1, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_contradictions_are_told_before_any_work(weights, photos, tmp_path):
    with pytest.raises(UserError, match="--minutes and --epochs"):
        sim.pretrain(photos, minutes=1, epochs=1)
    with pytest.raises(UserError, match="--minutes"):
        sim.pretrain(photos, minutes=0)
    with pytest.raises(UserError, match="--init"):
        sim.pretrain(photos, init=weights, resume=True, out=tmp_path)
    with pytest.raises(UserError, match="--minutes and --set epochs"):
        sim.pretrain(photos, minutes=1, overrides=["epochs=3"], out=tmp_path / "r")
    with pytest.raises(UserError, match=r"--init decides backbone\.name"):
        sim.pretrain(photos, init=weights, overrides=["backbone.name=resnet34"])
    with pytest.raises(UserError, match="--init decides init"):
        sim.pretrain(photos, init=weights, overrides=["init=null"])
    with pytest.raises(UserError, match="own network"):
        sim.pretrain(photos, init=open_start(weights), backbone="resnet50")


def test_a_run_of_somebody_elses_method_is_no_start(run, tmp_path):
    """Its name would be imported from the current folder."""
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    path = copy / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    content["recipe"]["method"]["name"] = "evil:Method"
    torch.save(content, path)
    with pytest.raises(UserError, match="evil:Method"):
        open_start(copy)
