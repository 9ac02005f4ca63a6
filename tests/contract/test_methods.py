"""What every method promises, checked on every entry of METHODS."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from builders import (
    IMAGE,
    IMAGE_METHODS,
    START,
    LogitsHead,
    TinyBackbone,
    random_batch,
    small_config,
)
from similitude.images.canvases import Canvases
from similitude.losses import tiles
from similitude.memory import Center, FeatureQueue, MemoryBank
from similitude.method import Batch, Method, Progress
from similitude.methods import CONFIGS, METHODS, build_method


@pytest.fixture(params=IMAGE_METHODS)
def method(request) -> Method:
    return build_method(small_config(request.param), TinyBackbone())


def trained(method: Method) -> dict[str, torch.nn.Parameter]:
    return {n: p for n, p in method.named_parameters() if p.requires_grad}


def drift(method: Method) -> None:
    """Move the online network away from its target: at the start they are equal and hide bugs."""
    for parameter in trained(method).values():
        parameter.data.add_(0.1 * torch.randn_like(parameter))


def test_every_method_has_a_config():
    assert list(METHODS) == list(CONFIGS)
    assert all(name == CONFIGS[name]().name for name in CONFIGS)


def test_every_method_has_a_title_of_its_own():
    titles = [config.title for config in CONFIGS.values()]
    assert all(titles)
    assert len(set(titles)) == len(titles)


def test_loss_is_finite_and_reaches_every_trained_weight(method):
    output = method.training_loss(random_batch(method), START)
    assert output.loss.isfinite()
    assert output.loss.ndim == 0
    output.loss.backward()
    silent = [n for n, p in trained(method).items() if p.grad is None or not p.grad.any()]
    # a bias in front of a normalization has gradient zero, and only such biases may
    assert all(name.endswith("bias") for name in silent), silent


def test_param_groups_hold_every_trained_parameter_once(method):
    grouped = [id(p) for group in method.param_groups() for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in trained(method).values())


def test_targets_move_only_after_the_step(method):
    drift(method)
    frozen = {n: p.clone() for n, p in method.named_parameters() if not p.requires_grad}
    method.training_loss(random_batch(method), START).loss.backward()
    method.before_step(START)
    now = dict(method.named_parameters())
    assert all(torch.equal(now[name], value) for name, value in frozen.items())
    method.after_step(START)
    weights = [n for n, p in frozen.items() if n.startswith("target_") and p.ndim > 1]
    assert all(not torch.equal(now[name], frozen[name]) for name in weights)


@pytest.mark.slow
def test_nothing_is_left_out_of_the_state(method):
    drift(method)
    method.training_loss(random_batch(method, seed=1), START)  # fills memory and running statistics
    twin = build_method(method.config, TinyBackbone())
    twin.load_state_dict(method.state_dict())
    batch = random_batch(method, seed=2)
    assert torch.equal(
        method.training_loss(batch, START).loss, twin.training_loss(batch, START).loss
    )


@pytest.mark.slow
def test_a_method_that_has_trained_forgets_it_when_other_weights_are_loaded(method):
    fresh = copy.deepcopy(method)
    for seed in range(5):  # memory is full, and known to be
        method.training_loss(random_batch(method, seed=seed), START)
    method.load_state_dict(fresh.state_dict())
    for seed in (6, 7):
        batch = random_batch(method, seed=seed)
        loss, expected = (m.training_loss(batch, START).loss for m in (method, fresh))
        assert torch.equal(loss, expected)


@pytest.mark.slow
def test_loss_reads_memory_from_before_the_batch(method, monkeypatch):
    drift(method)
    twin = copy.deepcopy(method)
    loss = method.training_loss(random_batch(method), START).loss
    monkeypatch.setattr(FeatureQueue, "enqueue", lambda *args: None)
    monkeypatch.setattr(MemoryBank, "update", lambda *args: None)
    monkeypatch.setattr(Center, "update", lambda *args: None)
    assert torch.equal(twin.training_loss(random_batch(method), START).loss, loss)


def test_features_are_the_backbones_of_the_first_view_and_carry_no_gradient(method):
    batch = random_batch(method)
    features = method.training_loss(batch, START).features
    assert not features.requires_grad
    expected = method.backbone(batch.views[0]).detach()
    while expected.ndim > 2:  # of patches: an image is their mean
        expected = expected.mean(dim=1)
    torch.testing.assert_close(features, expected)


def test_metrics_are_detached_scalars(method):
    for name, value in method.training_loss(random_batch(method), START).metrics.items():
        assert value.ndim == 0, name
        assert not value.requires_grad, name


@pytest.mark.slow
def test_all_but_cpc_say_how_much_their_outputs_have_in_common(method):
    """CPC compares products of patches, of any length."""
    metrics = method.training_loss(random_batch(method), START).metrics
    assert ("center_share" in metrics) == (not method.config.name.startswith("cpc"))
    assert all(-1e-6 <= v <= 1 + 1e-6 for n, v in metrics.items() if n.endswith("_share"))
    assert all(abs(v) <= 1 + 1e-6 for n, v in metrics.items() if n.endswith("_cosine"))


@pytest.mark.slow
def test_those_with_a_predictor_or_infonce_say_what_holds_them_apart():
    def reads(name):
        method = build_method(small_config(name), TinyBackbone())
        return method.training_loss(random_batch(method), START).metrics

    found = {name for name in IMAGE_METHODS if "extra_center_cosine" in reads(name)}
    assert found == {
        "byol",
        "end_to_end",
        "memory_bank",
        "moco_v1",
        "moco_v2",
        "moco_v3",
        "simclr",
        "simclr_v2",
        "simsiam",
        "simtriplet",
    }


def test_repeating_a_step_gives_the_same_bits(method):
    twin = copy.deepcopy(method)
    torch.manual_seed(1)
    first = method.training_loss(random_batch(method), START).loss
    torch.manual_seed(2)  # no method may depend on the global random state
    assert torch.equal(twin.training_loss(random_batch(method), START).loss, first)


def test_views_are_as_many_and_as_large_as_the_loss_takes(method):
    canvases = Canvases(torch.randint(0, 256, (4, 3, 20, 20), dtype=torch.uint8))
    multi_view = method.views(IMAGE)
    views = multi_view(canvases, torch.arange(4), seed=0, epoch=0)
    assert len(views) == len(multi_view)
    method.double().training_loss(Batch([view.double() for view in views], torch.arange(4)), START)


@pytest.mark.parametrize("step", [1, 9])
def test_progress_is_all_a_step_knows_of_time(method, step):
    """Two runs that meet at the same step go on alike, whatever they did before."""
    drift(method)
    twin = copy.deepcopy(method)
    method.after_step(Progress(step, 10, 5))
    twin.after_step(Progress(step, 10, 5))
    for a, b in zip(method.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


class Constant(nn.Module):
    """A head that gives the same unit vector whatever it sees."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x):
        return nn.functional.one_hot(torch.full((len(x),), self.axis), 12).to(x.dtype)


@pytest.mark.slow
def test_chance_is_the_loss_of_projections_that_tell_nothing(method):
    """All candidates or prototypes alike; unrelated to the prediction where there are neither."""
    if method.chance_loss(8) is None:
        pytest.skip("this loss has no level of chance")
    logits = any(isinstance(module, Center) for module in method.children())
    alike = LogitsHead(lambda h: h.new_zeros(len(h), 12), 12)
    method.projector = alike if logits else Constant(0)
    if hasattr(method, "prototypes"):
        method.prototypes.weight.data[:, 0] = 0  # at right angles to the projections
    if hasattr(method, "classifier"):  # of indices: all of them alike
        method.classifier = nn.Linear(12, 64, bias=False)
        nn.init.zeros_(method.classifier.weight)
    if hasattr(method, "target_projector"):
        method.target_projector = method.projector
    if hasattr(method, "projectors"):
        method.projectors = nn.ModuleList(Constant(0) for _ in method.projectors)
    if isinstance(getattr(method, "predictor", None), nn.ModuleList):  # of several steps ahead
        for parameter in method.predictor.parameters():
            parameter.data.zero_()
    elif hasattr(method, "predictor"):
        method.predictor = Constant(1)
    if hasattr(method, "queue"):
        method.queue.enqueue(Constant(0)(torch.zeros(32, 1)))
    for bank in (module for module in method.modules() if isinstance(module, MemoryBank)):
        bank.features.copy_(Constant(0)(bank.features))
    loss = method.training_loss(random_batch(method), START).loss.item()
    assert loss == pytest.approx(method.chance_loss(8), abs=1e-5)


@pytest.mark.slow
def test_tiles_of_one_row_give_the_loss_and_gradients_of_the_whole_matrix(method, monkeypatch):
    drift(method.double())
    batch = random_batch(method, dtype=torch.float64)
    twin = copy.deepcopy(method)
    loss = method.training_loss(batch, START).loss
    loss.backward()
    monkeypatch.setattr(tiles, "NUMBERS", 1)
    in_tiles = twin.training_loss(batch, START).loss
    in_tiles.backward()
    torch.testing.assert_close(in_tiles, loss, rtol=1e-10, atol=0)
    for ours, theirs in zip(trained(twin).values(), trained(method).values(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)
    for name, value in method.state_dict().items():
        torch.testing.assert_close(twin.state_dict()[name], value, rtol=1e-10, atol=1e-12)


# Weight of the old target after step 4 of 10, as the papers give it: constant, along a cosine to 1,
# or along it with the decay that the next keys are made with.
COSINE = (math.cos(math.pi * 4 / 10) + 1) / 2
COSINE_OF_NEXT = (math.cos(math.pi * 5 / 10) + 1) / 2
DECAYS = {
    "moco_v1": 0.999,
    "moco_v2": 0.999,
    "byol": 1 - (1 - 0.996) * COSINE,
    "dino": 1 - (1 - 0.996) * COSINE,
    "raft": 0.996,
    "moco_v3": 1 - (1 - 0.99) * COSINE_OF_NEXT,
}


def test_every_target_has_a_known_decay():
    with_target = {
        name
        for name in IMAGE_METHODS
        if hasattr(build_method(small_config(name), TinyBackbone()), "target_backbone")
    }
    assert with_target == set(DECAYS)


@pytest.mark.parametrize("name", DECAYS)
def test_targets_move_by_the_decay_of_the_paper(name):
    method = build_method(small_config(name), TinyBackbone()).double()
    drift(method)
    targets = {n: p.clone() for n, p in method.named_parameters() if n.startswith("target_")}
    online = {"target_" + n: p.clone() for n, p in method.named_parameters()}
    method.after_step(Progress(4, 10, 5))
    for target, now in method.named_parameters():
        if target in targets:
            expected = torch.lerp(online[target], targets[target], DECAYS[name])
            torch.testing.assert_close(now, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", DECAYS)
def test_the_loss_reads_the_target(name):
    method = build_method(small_config(name), TinyBackbone())
    drift(method)
    batch = random_batch(method)
    before = copy.deepcopy(method).training_loss(batch, START).loss
    for module in (method.target_backbone, method.target_projector):
        twin = copy.deepcopy(method)
        moved = twin.target_backbone if module is method.target_backbone else twin.target_projector
        for parameter in moved.parameters():
            parameter.data.add_(0.3 * torch.randn_like(parameter))
        assert not torch.isclose(twin.training_loss(batch, START).loss, before, rtol=1e-6)


@pytest.mark.parametrize("name", DECAYS)
def test_targets_start_as_exact_copies_heads_included(name):
    method = build_method(small_config(name), TinyBackbone())
    online = {f"target_{n}": value for n, value in method.state_dict().items()}
    targets = {n: v for n, v in method.state_dict().items() if n.startswith("target_")}
    assert targets
    assert all(torch.equal(value, online[n]) for n, value in targets.items())


@pytest.mark.slow
def test_views_of_one_sample_belong_together(method):
    """Equal views have a lower loss than the same views handed out to the wrong samples."""
    batch = random_batch(method)
    if len(batch.views) == 1:
        pytest.skip("one view: the other side is in a memory, or in the same image")
    if hasattr(method, "predictor"):
        method.predictor = nn.Identity()  # an untrained one predicts nothing
    for seed in range(3):  # the order of the keys is another one at every step
        view = random_batch(method, seed=seed).views[0]
        size = [v.shape[-2:] for v in batch.views]
        right = [F.interpolate(view, s, mode="area") for s in size]
        wrong = [right[0], *(v.roll(1, dims=0) for v in right[1:])]
        progress = Progress(seed, 10, 5)
        losses = [
            copy.deepcopy(method).training_loss(Batch(views, batch.index), progress).loss
            for views in (right, wrong)
        ]
        assert losses[0] < losses[1] - 1e-4
