"""Fine-tuning and distillation from Python, on images of a few pixels."""

import re
import signal

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import similitude as sim
from builders import BACKBONE, TinyBackbone, random_images, small_config, small_recipe
from similitude.errors import UserError
from similitude.evaluation import LinearProbe, extract_features
from similitude.images.views import ImageViewConfig
from similitude.listener import Silent
from similitude.methods import build_method
from similitude.nets.start import Start
from similitude.optimizers import LARS
from similitude.recipes import find_recipe
from similitude.recipes.recipe import InitConfig
from similitude.runs.card import model_card
from similitude.runs.checkpoint import load_checkpoint
from similitude.training.pretrain import train
from similitude.transfer import ClassifierNetwork, draw_labels
from similitude.transfer.network import Learner, from_labels, from_teacher, projector_layers
from similitude.transfer.recipes import (
    FinetuneRecipe,
    as_tuned,
    choose_distillation,
    choose_finetuning,
    mild_view,
)
from similitude.transfer.training import begin_with_probe_

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked_runs", "forked_exports")]

CPU = torch.device("cpu")
FAST = {"epochs": 2, "batch_size": 16}


def pretrained(folder, name="simclr_v2", **changes):
    recipe = small_recipe(name, epochs=1, **changes)
    train(random_images(32), "x", recipe, folder, device=CPU, listener=Silent())
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.set_num_threads(1)
    return pretrained(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def classifier(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("classifier") / "c"
    return sim.finetune(run, random_images(160), out=out, epochs=8, batch_size=16, lr=0.1)


class Heard(Silent):
    def __init__(self, stop_at=None):
        self.sentences, self.stop_at = [], stop_at

    def say(self, sentence):
        self.sentences.append(sentence)

    def progress(self, what, done, total, note=""):
        if what == "training" and done == self.stop_at:
            signal.raise_signal(signal.SIGINT)


# --- the network -------------------------------------------------------------------------------


def method(name="simclr_v2", **changes):
    return build_method(small_config(name, **changes), TinyBackbone())


@pytest.mark.parametrize(
    ("layer", "kinds", "width"),
    [
        (0, [], 8),
        (1, ["Linear", "BatchNorm1d", "ReLU"], 16),
        (2, 2 * ["Linear", "BatchNorm1d", "ReLU"], 16),
        (3, 2 * ["Linear", "BatchNorm1d", "ReLU"] + ["Linear", "ScaleBatchNorm1d"], 12),
    ],
)
def test_a_layer_of_the_head_ends_with_its_activation(layer, kinds, width):
    network = ClassifierNetwork(method(), layer, 5)
    assert [type(m).__name__ for m in network.head] == kinds
    assert network.logits.in_features == width


def test_the_head_is_that_of_the_run_and_the_logits_start_at_0():
    pretraining = method()
    network, x = ClassifierNetwork(pretraining, 1, 5).eval(), torch.rand(4, 3, 12, 12)
    h = pretraining.eval().projector[:3](pretraining.backbone(x))
    torch.testing.assert_close(network.head(network.backbone(x)), h)
    assert not network(x).any()


@pytest.mark.parametrize(
    ("name", "changes", "layers"),
    [
        ("simclr", {}, 2),
        ("simclr", {"projector": "none"}, 0),
        ("moco_v1", {}, 1),
        ("moco_v2", {}, 2),
        ("byol", {}, 2),
        ("simsiam", {}, 3),
    ],
)
def test_layers_of_every_kind_of_projector(name, changes, layers):
    assert len(projector_layers(method(name, **changes))) == layers


def test_split_batchnorm_and_frozen_weights_do_not_survive():
    config = small_config("moco_v2", bn_splits=2)
    pretraining = build_method(config, sim.backbones.build_backbone(BACKBONE))
    pretraining.backbone.conv1.requires_grad_(False)
    network = ClassifierNetwork(pretraining, 1, 3)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(getattr(m, "num_splits", 1) == 1 for m in norms)
    assert all(p.requires_grad for p in network.parameters())


# --- what it learns from -----------------------------------------------------------------------


def test_criteria_are_cross_entropies():
    logits, view, index = torch.randn(4, 3), torch.rand(4, 3, 8, 8), torch.tensor([5, 0, 3, 1])
    labels = torch.tensor([0, 1, 2, 2, 0, 1])
    loss, metrics = from_labels(labels, 3).judge(logits, view, index)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels[index]))
    assert metrics["train_accuracy"] == (logits.argmax(1) == labels[index]).float().mean()

    said = torch.randn(4, 3)
    criterion = from_teacher(
        lambda seen: said if seen is view else said * 0,
        3,
        temperature=0.5,
        scale_by_temperature_squared=False,
    )
    loss, metrics = criterion.judge(logits, view, index)
    target = (said / 0.5).softmax(1)
    torch.testing.assert_close(loss, -(target * (logits / 0.5).log_softmax(1)).sum(1).mean())
    torch.testing.assert_close(metrics["teacher_entropy"], -(target * target.log()).sum(1).mean())


def test_the_logits_are_excluded_from_the_trust_ratio():
    """With it, weights that start at 0 would stay near 0."""
    learner = Learner(
        ClassifierNetwork(method(), 1, 5),
        None,
        ImageViewConfig(),
        from_labels(torch.tensor([0]), 5),
    )
    groups = learner.param_groups()
    params = [id(p) for group in groups for p in group["params"]]
    assert sorted(params) == sorted(id(p) for p in learner.parameters())
    optimizer = LARS(groups, lr=0.1, momentum=0.0, weight_decay=1.0, momentum_style="classic")
    weight = learner.logits.weight
    with torch.no_grad():
        weight.fill_(1.0)
    weight.grad = torch.full_like(weight, 2.0)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.full_like(weight, 0.8))


def test_labels_are_drawn_by_class_and_seed_alone():
    y = torch.arange(400) % 4
    few, more = draw_labels(y, 0.05, 0), draw_labels(y, 0.1, 0)
    assert torch.bincount(y[few]).tolist() == [5] * 4
    assert torch.bincount(y[more]).tolist() == [10] * 4
    assert not (few & ~more).any(), "the few are among the many"
    assert torch.equal(few, draw_labels(y, 0.05, 0))
    assert not torch.equal(few, draw_labels(y, 0.05, 1))
    assert draw_labels(y, 1.0, 0).all()


def test_a_drawn_subset_is_balanced_though_the_data_is_not():
    y = torch.tensor([0] * 90 + [1] * 10)
    assert torch.bincount(y[draw_labels(y, 0.1, 0)]).tolist() == [5, 5]
    assert torch.bincount(y[draw_labels(y, 0.4, 0)]).tolist() == [20, 10], "all it has"


@pytest.mark.parametrize(("fraction", "word"), [(0.0, "0"), (1.5, "1.5"), (0.001, "0.01")])
def test_impossible_fractions_are_told(fraction, word):
    with pytest.raises(sim.UserError, match=word):
        draw_labels(torch.arange(400) % 4, fraction, 0)


# --- what is chosen ----------------------------------------------------------------------------


def test_many_labels_of_large_images_are_learned_as_published():
    network = find_recipe("imagenet.simclr_v2")
    chosen = choose_finetuning(network, 12_811, 0.01)
    optimizer = chosen["optimizer"]
    assert (optimizer["name"], chosen["batch_size"], chosen["epochs"]) == ("lars", 1024, 60)
    assert optimizer["base_lr"] * 1024 / 256 == pytest.approx(0.005 * 1024**0.5)
    assert optimizer["weight_decay"] == optimizer["warmup_epochs"] == 0
    assert choose_finetuning(network, 128_116, 0.1)["epochs"] == 30
    assert optimizer["lars_momentum"] == "classic"


def test_few_labels_are_learned_by_sgd_with_reasons():
    chosen = choose_finetuning(find_recipe("cifar10.simclr_v2"), 500, 0.01)
    assert chosen["optimizer"]["name"] == "sgd"
    assert chosen["epochs"] * (500 // chosen["batch_size"]) >= 600
    assert {"optimizer.name", "batch_size", "epochs"} <= set(chosen["reasons"])
    assert choose_finetuning(find_recipe("cifar10.simclr_v2"), 5, 1.0)["batch_size"] <= 5


@pytest.mark.parametrize("num_labels", [200, 20_000])
def test_published_weights_are_tuned_from_the_probe_on_at_a_low_rate(num_labels):
    init = InitConfig(name="some", fingerprint="0", frozen=0.6)
    network = find_recipe("imagenet.simclr").changed(init=init)
    chosen = choose_finetuning(network, num_labels, 1.0)
    optimizer = chosen["optimizer"]
    assert (optimizer["name"], optimizer["base_lr"], chosen["batch_size"]) == ("adamw", 2e-3, 64)
    kept = chosen["frozen"], chosen["batchnorm"], chosen["probe_first"]
    assert kept == (0.6, "kept", True)
    assert {"frozen", "batchnorm", "probe_first"} <= set(chosen["reasons"])
    scratch = choose_finetuning(network, num_labels, 1.0, from_scratch=True)
    assert (scratch["optimizer"]["name"], scratch["frozen"]) == ("sgd", 0)
    assert not scratch["probe_first"]


def test_published_weights_are_tested_at_the_size_that_they_are_tuned_at():
    network = find_recipe("imagenet.simclr")
    view = network.method.view.changed(size=128)
    network = network.changed(method=network.method.changed(view=view))
    assert as_tuned(network).facts.size == 224  # as published
    init = InitConfig(name="some", fingerprint="0")
    assert as_tuned(network.changed(init=init)).facts.size == 128


@pytest.mark.parametrize("each", [1, 8])
def test_before_its_first_step_a_tuned_network_is_the_linear_probe(each):
    recipe = small_recipe("simclr_v2")
    images = random_images(4 * each)
    tuning = FinetuneRecipe(
        source="some",
        data="some",
        class_names=tuple(images.class_names),
        from_layer=1,
        view=mild_view(recipe),
        network=recipe,
        optimizer=recipe.optimizer,
        epochs=1,
        batch_size=4,
    )
    torch.manual_seed(0)
    network = ClassifierNetwork(build_method(recipe.method, BACKBONE.build()), 1, 4)
    begin_with_probe_(network, images, tuning)
    features = extract_features(nn.Sequential(network.backbone, network.head), images, recipe.facts)
    probe = LinearProbe((0.1,) if each == 1 else None).fit(features.x, features.y)
    said = extract_features(network, images, recipe.facts)
    torch.testing.assert_close(said.x, probe.decision(features.x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("squared", "factor"), [(False, 0.1), (True, 10)])
def test_distillation_by_sgd_knows_the_size_of_its_gradients(squared, factor):
    recipe = find_recipe("cifar10.simclr_v2")
    chosen = choose_distillation(recipe, 50_000, 0.1, scale_by_temperature_squared=squared)
    assert chosen["optimizer"]["base_lr"] == pytest.approx(factor * recipe.optimizer.base_lr)
    assert (chosen["epochs"], chosen["batch_size"]) == (recipe.epochs, recipe.batch_size)


def test_training_sees_crops_and_mirrors_alone():
    for name in ("cifar10.simclr_v2", "imagenet.byol", "cifar10.cpc_v2"):
        view, recipe = mild_view(find_recipe(name)), find_recipe(name)
        first = next(iter(recipe.method.view_configs.values()))
        assert view.jitter_probability == view.grey == view.blur == view.solarize == 0
        assert type(view) is ImageViewConfig
        assert (view.size, view.crop_scale, view.flip) == (first.size, first.crop_scale, 0.5)


# --- stories -----------------------------------------------------------------------------------


def test_fine_tuning_learns_and_says_so(classifier, run):
    assert classifier.test_accuracy > 0.9  # the classes are colors; chance is 0.25
    assert classifier.class_names == ("color 0", "color 1", "color 2", "color 3")
    log = (classifier.path / "log.txt").read_text()
    assert re.search(r"test accuracy \d+\.\d %.*; always the commonest class: 25\.0 %", log)
    assert classifier.transfer.from_layer == 1
    assert not list(classifier.path.rglob("*.tmp*"))


def test_a_classifier_is_loaded_and_predicts(classifier):
    loaded, images = sim.load(classifier.path), random_images(24, seed=0)
    assert isinstance(loaded, sim.Classifier)
    said = loaded.predict(images)
    assert said.names == images.names
    torch.testing.assert_close(said.probabilities.sum(1), torch.ones(24))
    right = [images.class_names[y] for y in images.labels.tolist()]
    assert sum(a == b for a, b in zip(said.classes, right, strict=True)) >= 20


def test_a_classifier_does_what_a_run_does(classifier, tmp_path):
    images = random_images(80)
    x = sim.load(classifier.path).embed(images).x
    torch.testing.assert_close(x, sim.Run(classifier.path).embed(images).x)
    network = classifier.network
    with torch.no_grad():
        h = network.backbone(torch.rand(2, 3, 16, 16))
    assert x.shape[1] == h.shape[1]
    assert classifier.evaluate(images, protocols="knn").rows
    classifier.export(tmp_path / "backbone.safetensors")
    card = model_card(classifier, "onnx", "code", [])
    assert "without labels, then fine-tuned on labels of 4 classes" in card
    assert "and logits of 4 classes" in card
    assert "## Recipe of the training on labels" in card
    with pytest.raises(sim.UserError, match="is a classifier"):
        classifier.report()


def test_the_baseline_is_the_same_network_with_random_weights(run, tmp_path):
    heard = Heard()
    sim.finetune(
        run, random_images(80), out=tmp_path / "c", from_scratch=True, listener=heard, **FAST
    )
    baseline = sim.load(tmp_path / "c" / "from_scratch")
    tuned = sim.load(tmp_path / "c")
    assert baseline.transfer.from_scratch
    assert not tuned.transfer.from_scratch
    assert baseline.checkpoint.step == tuned.checkpoint.step
    shapes = [{k: v.shape for k, v in c.checkpoint.method.items()} for c in (baseline, tuned)]
    assert shapes[0] == shapes[1]
    assert sum("test accuracy" in sentence for sentence in heard.sentences) == 2


@pytest.mark.parametrize(("name", "layer"), [("byol", 1), ("moco_v1", 0), ("simsiam", 2)])
def test_runs_of_other_methods_are_fine_tuned_too(name, layer, tmp_path):
    folder = pretrained(tmp_path / name, name)
    given = None if layer < 2 else layer
    tuned = sim.finetune(folder, random_images(80), from_layer=given, out=tmp_path / "c", **FAST)
    assert tuned.transfer.from_layer == layer
    assert tuned.test_accuracy is not None


def test_the_backbone_starts_as_the_run_left_it(run, tmp_path):
    tuned = sim.finetune(run, random_images(80), out=tmp_path / "c", lr=1e-12, **FAST)
    before, after = sim.Run(run).checkpoint.backbone, tuned.checkpoint.backbone
    weights = [name for name in before if "weight" in name]
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in weights)


def test_a_published_start_keeps_its_early_layers_and_its_accuracy(tmp_path):
    """The rate of the paper's networks took EfficientNet-Lite0 to chance."""
    torch.manual_seed(0)
    half, state = (0.5,) * 3, BACKBONE.build().state_dict()
    start = Start("net", "weights of a test", BACKBONE, state, 16, half, half, ["Loaded."])
    images = random_images(80)
    run = sim.pretrain(images, init=start, epochs=1, batch_size=16, out=tmp_path / "r")
    tuned = sim.finetune(tmp_path / "r", images, out=tmp_path / "c", **FAST)
    assert (tuned.transfer.from_layer, tuned.transfer.frozen) == (0, run.recipe.init.frozen)
    before, after = run.kept_weights, tuned.checkpoint.backbone
    assert all(torch.equal(before[n], after[n]) for n in before if n.startswith(("bn1", "layer1")))
    assert not torch.equal(before["layer4.0.conv1.weight"], after["layer4.0.conv1.weight"])
    probe = run.evaluate(images, protocols="linear").rows["pretrained backbone"]["linear"]
    assert tuned.test_accuracy >= probe.mean


def test_labels_are_the_fraction_and_the_test_part_stays(run, tmp_path):
    heard = Heard()
    sim.finetune(
        run, random_images(200), label_fraction=0.1, out=tmp_path / "c", epochs=1, listener=heard
    )
    # a fifth is held out of 200 images, and a tenth of the 160 others has labels
    assert "16 labeled samples of 4 classes to learn from, 40 to test on" in heard.sentences[0]


def test_what_is_held_out_does_not_depend_on_the_seed_of_fine_tuning(run, tmp_path, monkeypatch):
    """Or evaluate and distill would test on images whose labels were learned."""
    tested = []
    logits = sim.Classifier.logits

    def noting(self, images, *rest):
        tested.append(images.names)
        return logits(self, images, *rest)

    monkeypatch.setattr(sim.Classifier, "logits", noting)
    images = random_images(160)
    teacher = sim.finetune(run, images, out=tmp_path / "t", seed=5, **FAST)
    sim.distill(tmp_path / "t", images, out=tmp_path / "s", seed=7, **FAST)
    assert len(tested) == 3  # the classifier; the teacher and its student
    assert tested[0] == tested[1] == tested[2]
    assert teacher.split_seed == sim.load(run).split_seed


def test_a_student_follows_its_teacher_without_labels(classifier, tmp_path):
    images = random_images(160)
    heard = Heard()
    student = sim.distill(
        classifier.path,
        images,
        backbone=sim.backbones.BackboneConfig(name="resnet18", stem="small", base_width=8),
        temperature=1.0,
        epochs=12,
        batch_size=16,
        lr=0.1,
        out=tmp_path / "s",
        listener=heard,
    )
    assert student.test_accuracy > 0.6
    assert student.transfer.from_layer == 0
    assert student.transfer.network.backbone.base_width == 8
    assert student.class_names == classifier.class_names
    assert any("of the student" in s and "of its teacher" in s for s in heard.sentences)


def test_distillation_leaves_the_teacher_and_sees_no_labels(classifier, tmp_path):
    before = {k: v.clone() for k, v in classifier.checkpoint.method.items()}
    images = random_images(48)
    blind = type(images)(pixels=images.pixels, aspect=images.aspect, names=images.names)
    student = sim.distill(classifier.path, blind, out=tmp_path / "s", **FAST)
    assert student.test_accuracy is None
    after = load_checkpoint(classifier.checkpoint_path).method
    assert all(torch.equal(before[k], after[k]) for k in before)
    held = sim.distill(classifier.path, images, out=tmp_path / "t", **FAST)
    shuffled = type(images)(
        pixels=images.pixels,
        aspect=images.aspect,
        names=images.names,
        labels=images.labels,
        class_names=list(reversed(images.class_names)),
    )
    other = sim.distill(classifier.path, shuffled, out=tmp_path / "u", **FAST)
    a, b = held.checkpoint.method, other.checkpoint.method
    assert all(torch.equal(a[k], b[k]) for k in a), "names of classes changed the training"


def test_a_student_teaches_another(classifier, tmp_path):
    first = sim.distill(classifier.path, random_images(48), out=tmp_path / "a", **FAST)
    second = sim.distill(first.path, random_images(48), out=tmp_path / "b", **FAST)
    assert second.transfer.source == str(first.path)


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("stage", ["finetune", "distill"])
def test_a_stopped_and_resumed_stage_gives_the_same_bits(stage, run, classifier, tmp_path):
    images = random_images(80)

    def go(out, **options):
        source = run if stage == "finetune" else classifier.path
        return getattr(sim, stage)(source, images, out=tmp_path / out, **options)

    whole = go("whole", **FAST)
    assert go("parts", listener=Heard(stop_at=3), **FAST) is None
    halfway = load_checkpoint(tmp_path / "parts" / "checkpoints" / "last.ckpt")
    assert 0 < halfway.step < 8
    torch.manual_seed(123)
    parts = go("parts", resume=True)
    assert same(whole.checkpoint.method, parts.checkpoint.method)
    assert whole.test_accuracy == parts.test_accuracy
    assert parts.checkpoint.step == whole.checkpoint.step > 3


def test_resuming_with_other_labels_is_refused(run, tmp_path):
    images = random_images(80)
    sim.finetune(run, images, out=tmp_path / "c", listener=Heard(stop_at=3), **FAST)
    other = type(images)(
        pixels=images.pixels,
        aspect=images.aspect,
        names=images.names,
        labels=images.labels.roll(1),
        class_names=images.class_names,
    )
    with pytest.raises(sim.UserError, match="resume with the same"):
        sim.finetune(run, other, out=tmp_path / "c", resume=True)
    with pytest.raises(sim.UserError, match="leave out"):
        sim.finetune(run, images, out=tmp_path / "c", resume=True, epochs=3)


def test_a_resumed_command_goes_on_to_its_baseline(run, tmp_path):
    options = {"out": tmp_path / "c", "from_scratch": True}
    choices = {**FAST, "label_fraction": 0.5, "from_layer": 2, "seed": 3}
    images = random_images(80)

    class StopsSecond(Heard):
        def progress(self, what, done, total, note=""):
            if any("fine-tuned" in s for s in self.sentences) and what == "training" and done == 2:
                signal.raise_signal(signal.SIGINT)

    assert sim.finetune(run, images, listener=StopsSecond(), **options, **choices) is None
    assert sim.finetune(run, images, resume=True, **options) is not None
    baseline = sim.load(tmp_path / "c" / "from_scratch")
    assert baseline.test_accuracy is not None
    tuned = sim.load(tmp_path / "c")
    for name in ("label_fraction", "from_layer", "seed", "epochs", "batch_size"):
        assert getattr(baseline.transfer, name) == getattr(tuned.transfer, name)


def test_a_baseline_may_be_added_to_a_finished_classifier(run, tmp_path):
    images, choices = random_images(80), {**FAST, "from_layer": 2, "seed": 3}
    sim.finetune(run, images, out=tmp_path / "c", **choices)
    sim.finetune(run, images, out=tmp_path / "c", resume=True, from_scratch=True)
    assert sim.load(tmp_path / "c" / "from_scratch").transfer.from_layer == 2


def test_overwriting_removes_the_baseline_too(run, tmp_path):
    images = random_images(80)
    sim.finetune(run, images, out=tmp_path / "c", from_scratch=True, **FAST)
    sim.finetune(run, images, out=tmp_path / "c", overwrite=True, **FAST)
    assert not (tmp_path / "c" / "from_scratch" / "recipe.yaml").exists()


def test_what_is_overwritten_comes_back_if_the_new_training_does_not_start(
    run, tmp_path, monkeypatch
):
    images, out = random_images(80), tmp_path / "c"
    sim.finetune(run, images, out=out, from_scratch=True, **FAST)
    teacher = sim.finetune(run, images, out=tmp_path / "teacher", **FAST)
    before = {p: p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}

    def fail(*args, **kwargs):
        (out / "recipe.yaml").write_text("half a run")
        raise UserError("no")

    monkeypatch.setattr("similitude.transfer.training.train_network", fail)
    with pytest.raises(UserError, match="no"):
        sim.finetune(run, images, out=out, overwrite=True, **FAST)
    with pytest.raises(UserError, match="no"):
        sim.distill(teacher.path, images, out=out, overwrite=True, epochs=1, batch_size=16)
    assert {p: p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()} == before


def test_micro_batches_give_the_whole_batchs_gradient(tmp_path):
    """With a backbone without BatchNorm the engine's promise holds for these stages too."""
    images = random_images(64)
    vit = sim.backbones.BackboneConfig(
        name="vit_tiny_patch16_224",
        options={"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 2},
    )
    weights = []
    for size in (None, 4):
        changes = {"backbone": vit, "micro_batch_size": size, "method": vit_config()}
        folder = pretrained(tmp_path / f"run{size}", **changes)
        tuned = sim.finetune(folder, images, out=tmp_path / f"c{size}", **FAST)
        weights.append(tuned.checkpoint.method)
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-3, atol=1e-4, msg=name)


def vit_config():
    config = small_config("simclr_v2")
    return config.model_copy(update={"view": config.view.model_copy(update={"size": None})})
