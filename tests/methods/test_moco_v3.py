import copy
import math

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from builders import START, TinyBackbone, random_batch, small_config
from similitude.errors import UserError
from similitude.images.backbones import BackboneConfig, build_backbone
from similitude.images.vit import set_sincos_positions_, sincos_positions, xavier_init_
from similitude.method import Batch, Progress
from similitude.methods.moco_v3 import MoCoV3
from similitude.recipes import find_recipe
from similitude.training.rates import build_optimizer

SIZE, DIM = 16, 48


def make(**changes):
    torch.manual_seed(0)
    return MoCoV3(TinyBackbone(), small_config("moco_v3", **changes)).double()


def tiny_vit(**options):
    sizes = {"img_size": SIZE, "patch_size": 4, "embed_dim": DIM, "depth": 2, "num_heads": 3}
    return timm.create_model("vit_tiny_patch16_224", num_classes=0, **(sizes | options))


def make_vit(**changes):
    torch.manual_seed(0)
    vit = {"projector_layers": 3, "predictor_last_norm": True, "temperature": 0.2}
    return MoCoV3(tiny_vit(), small_config("moco_v3", **(vit | changes)))


def drift(method):
    for parameter in method.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn_like(parameter))


def batch(method, n=8, seed=0):
    return random_batch(method, n, seed=seed, dtype=torch.float64)


def images(n=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Batch([torch.randn(n, 3, SIZE, SIZE, generator=generator)] * 2, torch.arange(n))


# --- loss and target ---------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_the_loss_is_two_tau_times_both_directions_of_cross_entropy(temperature):
    method = make(temperature=temperature)
    drift(method)
    data = batch(method)
    q1, q2 = (method.predictor(method.projector(method.backbone(v))) for v in data.views)
    k1, k2 = (method.target_projector(method.target_backbone(v)) for v in data.views)

    def direction(q, k):
        logits = F.normalize(q, dim=1) @ F.normalize(k, dim=1).T / temperature
        return 2 * temperature * F.cross_entropy(logits, torch.arange(len(q)))

    expected = direction(q1, k2) + direction(q2, k1)
    torch.testing.assert_close(method.training_loss(data, START).loss, expected)
    one = make(temperature=temperature, symmetric=False)
    one.load_state_dict(method.state_dict())
    torch.testing.assert_close(one.training_loss(data, START).loss, direction(q1, k2))


def test_the_keys_of_all_processes_are_candidates(monkeypatch):
    method = make()
    drift(method)
    mine, others = batch(method), batch(method, seed=1)
    whole = Batch(
        [torch.cat(pair) for pair in zip(mine.views, others.views, strict=True)], torch.arange(16)
    )
    method.eval()  # running statistics: what is left to couple samples is the loss
    expected = method.training_loss(whole, START).loss
    q = [method.predictor(method.projector(method.backbone(v))) for v in others.views]
    k = [method.target_projector(method.target_backbone(v)) for v in others.views]
    rows = iter([q[0], k[1], q[1], k[0]])
    monkeypatch.setattr("similitude.methods.moco_v3.gather", lambda x: torch.cat([x, next(rows)]))
    torch.testing.assert_close(method.training_loss(mine, START).loss, expected)


def test_no_gradient_reaches_the_keys():
    method = make(symmetric=False)
    drift(method)
    v1, v2 = (view.requires_grad_() for view in batch(method).views)
    method.training_loss(Batch([v1, v2], torch.arange(8)), START).loss.backward()
    assert v1.grad.abs().max() > 0
    assert v2.grad is None


def test_the_target_reads_the_weights_that_the_reference_reads():
    """There: at the start of step t the target moves with the decay of t, before the keys."""
    method, total = make(ema_decay=0.9), 6
    reference = copy.deepcopy(method.target_backbone.state_dict())
    for step in range(total):
        decay = 1 - (1 - 0.9) * (math.cos(math.pi * step / total) + 1) / 2
        online = method.backbone.state_dict()
        reference = {n: decay * v + (1 - decay) * online[n] for n, v in reference.items()}
        for name, value in method.target_backbone.state_dict().items():
            torch.testing.assert_close(value, reference[name])
        drift(method)  # the optimizer's step
        method.after_step(Progress(step, total, 3))


def test_a_constant_decay_stays():
    method = make(ema_decay=0.75, ema_schedule="constant")
    drift(method)
    before = method.target_projector[0].weight.clone()
    method.after_step(Progress(9, 10, 5))
    expected = 0.75 * before + 0.25 * method.projector[0].weight
    torch.testing.assert_close(method.target_projector[0].weight, expected.detach())


def test_the_predictor_can_be_left_out():
    method = make(predictor="none")
    assert isinstance(method.predictor, nn.Identity)
    assert method.training_loss(batch(method), START).loss.isfinite()


def test_every_trained_weight_is_in_the_one_group_that_decays():
    (group,) = make_vit().param_groups()
    assert "weight_decay" not in group
    recipe = find_recipe("imagenet.moco_v3_vit")
    optimizer = build_optimizer(make_vit(), recipe)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.1]


# --- the vision transformer --------------------------------------------------------------------


def test_positions_are_fixed_and_the_patch_embedding_is_frozen_at_random():
    method = make_vit()
    vit = method.backbone
    frozen = {n for n, p in vit.named_parameters() if not p.requires_grad}
    assert frozen == {"pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    before = {n: p.clone() for n, p in vit.named_parameters()}
    optimizer = torch.optim.AdamW(method.param_groups(), lr=0.01)
    method.training_loss(images(), START).loss.backward()
    optimizer.step()
    method.after_step(START)
    moved = {n for n, p in vit.named_parameters() if not torch.equal(p, before[n])}
    # a key's bias moves all logits of a query alike, and is the one that may stay
    assert moved == set(before) - frozen
    for name in frozen:
        assert torch.equal(method.target_backbone.get_parameter(name), before[name])


def test_the_patch_embedding_learns_if_asked_to():
    method = make_vit(frozen_patch_embedding=False)
    method.training_loss(images(), START).loss.backward()
    assert method.backbone.patch_embed.proj.weight.grad.abs().max() > 0
    assert method.backbone.pos_embed.grad is None


@pytest.mark.parametrize("positions", ["sincos", "learned", "none"])
def test_positions_can_be_learned_or_left_out(positions):
    method = make_vit(positions=positions)
    vit = method.backbone
    assert vit.pos_embed.requires_grad == (positions == "learned")
    patches = images().views[0]
    features = vit.eval()(patches)
    # exchange two patches: only positions tell them apart
    swapped = patches.clone()
    swapped[..., :4, :4], swapped[..., -4:, -4:] = patches[..., -4:, -4:], patches[..., :4, :4]
    same = torch.allclose(features, vit(swapped), atol=1e-5)
    assert same == (positions == "none")


def test_fixed_positions_fit_the_grid_and_tell_every_patch_apart():
    positions = sincos_positions((4, 4), DIM)[0]
    assert positions.shape == (16, DIM)
    assert torch.allclose(positions.square().sum(dim=1), torch.tensor(DIM / 2).double())
    distance = torch.cdist(positions, positions) + 10 * torch.eye(16)
    assert distance.min() > 0.5
    # the first half of the features says the row, the second half the column
    rows = positions[:, : DIM // 2].view(4, 4, -1)
    columns = positions[:, DIM // 2 :].view(4, 4, -1)
    assert torch.equal(rows, rows[:, :1].expand_as(rows))
    assert torch.equal(columns, columns[:1].expand_as(columns))


def test_registers_and_the_class_token_have_no_position():
    vit = tiny_vit(reg_tokens=2)
    set_sincos_positions_(vit)
    assert vit.pos_embed.shape == (1, 3 + 16, DIM)
    assert not vit.pos_embed[:, :3].any()
    torch.testing.assert_close(vit.pos_embed[:, 3:].double(), sincos_positions((4, 4), DIM))
    without = tiny_vit(no_embed_class=True)
    set_sincos_positions_(without)
    torch.testing.assert_close(without.pos_embed.double(), sincos_positions((4, 4), DIM))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"pos_embed": "none"}, "absolute"), ({"embed_dim": 54}, "multiple of 4")],
)
def test_a_vit_that_cannot_have_fixed_positions_is_told(options, words):
    with pytest.raises(UserError, match=words):
        MoCoV3(tiny_vit(**options), small_config("moco_v3"))


def test_first_weights_are_uniform_after_xavier_with_qkv_as_three():
    torch.manual_seed(0)
    vit = tiny_vit(embed_dim=96)
    nn.init.ones_(vit.cls_token)
    xavier_init_(vit)

    def bound(fan_in, fan_out):
        return math.sqrt(6 / (fan_in + fan_out))

    limits = {
        "blocks.0.attn.qkv": bound(96, 96),  # not 96 + 3 * 96
        "blocks.1.attn.proj": bound(96, 96),
        "blocks.0.mlp.fc1": bound(96, 4 * 96),
        "blocks.1.mlp.fc2": bound(4 * 96, 96),
        "patch_embed.proj": bound(3 * 4 * 4, 96),
    }
    for name, limit in limits.items():
        layer = vit.get_submodule(name)
        largest = layer.weight.abs().max().item()
        assert 0.99 * limit < largest <= limit, name
        assert layer.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.03), name
        assert not layer.bias.any(), name
    assert 1e-7 < vit.cls_token.std() < 1e-5


def test_target_and_online_start_alike_and_the_seed_decides():
    a, b = make_vit(), make_vit()
    for (name, p), q in zip(a.named_parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q), name
    for p, q in zip(a.backbone.parameters(), a.target_backbone.parameters(), strict=True):
        assert torch.equal(p, q)


def test_other_backbones_are_left_as_they_are():
    torch.manual_seed(3)
    backbone = build_backbone(BackboneConfig(name="resnet18", stem="small", base_width=4))
    before = copy.deepcopy(backbone.state_dict())
    method = MoCoV3(backbone, small_config("moco_v3"))
    assert all(torch.equal(v, before[n]) for n, v in method.backbone.state_dict().items())
    assert all(p.requires_grad for p in method.backbone.parameters())


def test_the_vit_loads_into_plain_timm():
    method = make_vit()
    drift(method)
    twin = tiny_vit()
    twin.load_state_dict(method.backbone.state_dict())
    x = images().views[0]
    assert torch.equal(twin.eval()(x), method.backbone.eval()(x))


def test_pretrained_weights_are_left_as_they_are():
    vit = tiny_vit()
    vit.has_pretrained_weights = True
    before = {name: p.clone() for name, p in vit.named_parameters()}
    method = MoCoV3(vit, small_config("moco_v3"))
    for name, p in method.backbone.named_parameters():
        assert torch.equal(p, before[name])
    assert not any(p.requires_grad for p in method.backbone.patch_embed.parameters())


def test_published_vit_has_twelve_heads_and_small_crops():
    recipe = find_recipe("imagenet.moco_v3_vit")
    assert recipe.backbone.options == {"num_heads": 12}
    assert recipe.method.view1.crop_scale == recipe.method.view2.crop_scale == (0.08, 1.0)
    assert find_recipe("imagenet.moco_v3").method.view1.crop_scale == (0.2, 1.0)
    assert recipe.method.frozen_patch_embedding
