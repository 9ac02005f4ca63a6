import copy
import math

import pytest
import timm
import torch

from builders import IMAGE, START, LogitsHead, TinyBackbone, random_batch, small_config
from similitude.images.backbones import BackboneConfig, build_backbone
from similitude.method import Batch, Progress
from similitude.methods.dino import DINO, DINOConfig

VIT = BackboneConfig(
    name="vit_tiny_patch16_224",
    options={
        "img_size": 16,
        "patch_size": 4,
        "embed_dim": 24,
        "depth": 3,
        "num_heads": 3,
        "dynamic_img_size": True,
        "drop_path_rate": 0.9,
    },
)


def make(**changes):
    torch.manual_seed(0)
    return DINO(TinyBackbone(), small_config("dino", **changes)).double()


def batch(n=8, seed=0):
    return random_batch(make(), n, seed=seed, dtype=torch.float64)


def drift(method):
    for parameter in method.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn_like(parameter))


def test_the_target_starts_as_an_exact_copy_head_included():
    method = make(norm_last_layer=False)
    for online, target in (
        (method.backbone, method.target_backbone),
        (method.projector, method.target_projector),
    ):
        assert online.state_dict().keys() == target.state_dict().keys()
        for a, b in zip(online.parameters(), target.parameters(), strict=True):
            assert torch.equal(a, b)
            assert a is not b
            assert not b.requires_grad


def test_the_target_sees_global_views_alone(monkeypatch):
    method, seen = make(), {"backbone": [], "target_backbone": []}
    for name, shapes in seen.items():
        forward = getattr(method, name).forward
        monkeypatch.setattr(
            getattr(method, name),
            "forward",
            lambda x, forward=forward, shapes=shapes: shapes.append(x.shape) or forward(x),
        )
    method.training_loss(batch(4), START)
    assert seen["target_backbone"] == [(8, 3, 12, 12)]
    assert seen["backbone"] == [(8, 3, 12, 12), (32, 3, 8, 8)]


def test_the_two_global_views_and_the_local_ones_are_three_families():
    views = make(local_views=3).views(IMAGE).views
    config = DINOConfig()
    assert [view.config.blur for view in views] == [1.0, 0.1, 0.5, 0.5, 0.5]
    assert [view.config.solarize for view in views] == [0.0, 0.2, 0.0, 0.0, 0.0]
    assert config.local_view.crop_scale[1] == config.view1.crop_scale[0]
    assert len(make(local_views=0).views(IMAGE)) == 2


def test_every_parameter_is_clipped_by_its_own_norm():
    """Clipped by the norm of all together, the short gradient would shrink too."""
    method = make(clip_norm=3.0, freeze_last_layer_epochs=0)
    long, short = method.projector.mlp[0].weight, method.projector.mlp[0].bias
    for parameter in method.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    long.grad[0, 0], short.grad[0] = 30.0, 1.0
    method.before_step(START)
    assert long.grad.norm().item() == pytest.approx(3.0, rel=1e-6)
    assert short.grad[0] == 1.0
    unclipped = make(clip_norm=None, freeze_last_layer_epochs=0)
    unclipped.projector.mlp[0].weight.grad = torch.full_like(long, 9.0)
    unclipped.before_step(START)
    assert (unclipped.projector.mlp[0].weight.grad == 9.0).all()


@pytest.mark.slow
@pytest.mark.parametrize("norm_last_layer", [True, False])
def test_the_last_layer_rests_in_the_first_epoch(norm_last_layer):
    """Its scale too where that is trained; and AdamW's averages do not gather meanwhile."""
    method = make(norm_last_layer=norm_last_layer)
    optimizer = torch.optim.AdamW(method.param_groups(), lr=0.1)
    for step, free in ((0, False), (4, False), (5, True)):
        progress = Progress(step, 20, 5)
        optimizer.zero_grad()
        method.training_loss(batch(seed=step), progress).loss.backward()
        before = [p.detach().clone() for p in method.projector.last_layer.parameters()]
        assert len(before) == (1 if norm_last_layer else 2)
        method.before_step(progress)
        optimizer.step()
        after = list(method.projector.last_layer.parameters())
        assert all(torch.equal(a, b) is not free for a, b in zip(before, after, strict=True))
        assert all((p in optimizer.state) == free for p in after)


def test_the_center_moves_after_the_loss_has_read_it():
    method = make(center_decay=0.5)
    drift(method)
    twin, one = copy.deepcopy(method), batch()
    loss = method.training_loss(one, START).loss
    with torch.no_grad():
        images = torch.cat(one.views[:2])
        mean = twin.target_projector(twin.target_backbone(images)).mean(dim=0)
    torch.testing.assert_close(method.center.value, 0.5 * mean)
    assert torch.equal(loss, twin.training_loss(one, START).loss)
    assert not torch.equal(loss, twin.training_loss(one, START).loss)


@pytest.mark.slow
def test_centering_can_be_switched_off():
    method = make(centering=False)
    drift(method)
    losses = [method.training_loss(batch(), START).loss for _ in range(2)]
    assert torch.equal(*losses)
    assert not method.center.value.any()


def test_the_center_is_saved():
    method = make()
    method.training_loss(batch(), START)
    assert method.state_dict()["center.value"].any()


@pytest.mark.parametrize(
    ("schedule", "decay", "moved"),
    [("constant", 0.0, 1.0), ("constant", 0.9, 0.1), ("cosine", 0.9, 0.05), ("constant", 1.0, 0.0)],
)
def test_the_target_follows_by_the_decay_of_the_step(schedule, decay, moved):
    method = make(ema_decay=decay, ema_schedule=schedule, norm_last_layer=False)
    start = copy.deepcopy(method)
    drift(method)
    method.after_step(Progress(5, 10, 5))  # halfway: cosine from 0.9 to 1 gives 0.95
    for part in ("backbone", "projector"):
        for old, online, target in zip(
            getattr(start, part).parameters(),
            getattr(method, part).parameters(),
            getattr(method, f"target_{part}").parameters(),
            strict=True,
        ):
            torch.testing.assert_close(target, old + moved * (online - old))


def test_the_targets_temperature_warms_up_by_epochs():
    method = make(
        warmup_target_temperature=0.04, target_temperature=0.07, warmup_target_temperature_epochs=4
    )
    temperatures = [method._target_temperature(Progress(5 * e + 3, 40, 5)) for e in range(6)]
    assert temperatures == pytest.approx([0.04, 0.05, 0.06, 0.07, 0.07, 0.07])
    at_once = make(target_temperature=0.06)
    assert at_once._target_temperature(START) == 0.06


def metrics(method, one):
    return {name: m.item() for name, m in method.training_loss(one, START).metrics.items()}


def test_metrics_are_entropy_and_divergence_of_the_targets():
    method, one = make(local_views=0), batch()
    drift(method)
    one = Batch(one.views[:2], one.index)
    with torch.no_grad():
        t = [method.target_projector(method.target_backbone(v)) for v in one.views]
        s = [method.projector(method.backbone(v)) for v in one.views]
    q, p = ([(x / scale).softmax(1) for x in part] for part, scale in ((t, 0.04), (s, 0.1)))
    entropy = sum(-(a * a.log()).sum(dim=1).mean() for a in q) / 2
    kl = sum((a * (a / b).log()).sum(dim=1).mean() for a, b in ((q[0], p[1]), (q[1], p[0]))) / 2
    read = metrics(method, one)
    assert read["target_entropy"] == pytest.approx(entropy.item())
    assert read["target_kl"] == pytest.approx(kl.item())
    assert read["target_kl"] > 0.01


@pytest.mark.parametrize(("peak", "entropy"), [(0.0, math.log(12)), (50.0, 0.0)])
def test_both_collapses_have_no_divergence_and_an_entropy_of_log_k_or_0(peak, entropy):
    method = make(centering=False)
    logits = torch.zeros(12, dtype=torch.float64)
    logits[4] = peak
    method.projector = LogitsHead(lambda h: logits.expand(len(h), -1), 12).double()
    method.target_projector = method.projector
    read = metrics(method, batch())
    assert read["target_entropy"] == pytest.approx(entropy, abs=1e-9)
    assert read["target_kl"] == pytest.approx(0.0, abs=1e-9)
    assert read["projection_std"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("evaluate", "name"), [("target", "target_backbone"), ("online", "backbone")]
)
def test_the_network_that_is_kept(evaluate, name):
    method = make(evaluate=evaluate)
    assert method.kept_backbone is getattr(method, name)
    assert method.config.kept == name


def vit_method(**changes):
    torch.manual_seed(0)
    return DINO(build_backbone(VIT), small_config("dino", **changes))


def test_stochastic_depth_is_the_online_networks_alone():
    method = vit_method()
    image = torch.randn(6, 3, 12, 12)
    assert method.training  # both networks train; only one drops paths
    online = [method.backbone(image) for _ in range(2)]
    target = [method.target_backbone(image) for _ in range(2)]
    assert not torch.equal(*online)
    assert torch.equal(*target)
    method.eval()
    torch.testing.assert_close(method.backbone(image), method.target_backbone(image))


def test_a_vit_takes_local_views_by_interpolating_its_positions():
    method = vit_method()
    positions = method.backbone.pos_embed
    assert positions.shape == (1, 1 + 16, 24)  # of 16 pixels; views have 12 and 8
    method.training_loss(random_batch(method, 4), START).loss.backward()
    assert positions.grad.abs().sum(dim=2).all()


def test_the_head_can_have_batchnorm_and_other_depths():
    method = make(head_norm=True, projector_layers=2)
    kinds = [type(layer).__name__ for layer in method.projector.mlp]
    assert kinds == ["Linear", "BatchNorm1d", "GELU", "Linear"]
    linear = make(projector_layers=1)
    assert [type(layer).__name__ for layer in linear.projector.mlp] == ["Linear"]


def test_timm_still_has_what_the_recipes_ask_for():
    assert {"vit_tiny_patch16_224", "vit_small_patch16_224"} <= set(timm.list_models("vit*"))
