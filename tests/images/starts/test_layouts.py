"""Every published layout: all of the backbone, nothing else, and the same features."""

import argparse
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from similitude.images.backbones import BackboneConfig, build_backbone
from similitude.images.starts import open_start
from similitude.images.starts.layouts import LAYOUTS
from similitude.runs.checkpoint import export_backbone

pytestmark = pytest.mark.slow

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OLDER = {"_use_new_zipfile_serialization": False}  # as PyTorch saved before 1.6

State = dict[str, Tensor]


@dataclass
class Case:
    """A file as published, and what must come out of it."""

    content: Any
    source: nn.Module  # whose state and features are expected
    title: str
    backbone: BackboneConfig
    left_out: list[str] = field(default_factory=list)  # words of the report
    pixels: tuple = IMAGENET
    image_size: int = 224
    options: dict[str, bool] = field(default_factory=dict)  # of torch.save


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def body(network: nn.Module) -> State:
    """Without the classifier, as an Identity in its place leaves it."""
    return {n: t for n, t in network.state_dict().items() if not n.startswith(("fc.", "head."))}


def linear(prefix: str, *shape: int) -> State:
    return {f"{prefix}.weight": torch.randn(*shape), f"{prefix}.bias": torch.randn(shape[0])}


def mlp(prefix: str, *, last: int = 2) -> State:
    """A head of a few numbers: a layer, a norm, a layer."""
    norm = {f"{prefix}.1.{n}": torch.ones(4) for n in ("weight", "bias", "running_mean")}
    return {**linear(f"{prefix}.0", 4, 8), **norm, **linear(f"{prefix}.{last}", 4, 4)}


def other(state: State) -> State:
    """Weights of the same shapes that must not be taken instead."""
    return {name: torch.randn_like(tensor.float()) for name, tensor in state.items()}


def features(network: nn.Module, images: Tensor) -> Tensor:
    """What stands before the classifier."""
    network.eval()
    with torch.no_grad():
        if isinstance(network, torchvision.models.ResNet):
            *layers, _ = network.children()
            return nn.Sequential(*layers)(images).flatten(1)
        return network(images)


RESNET18, RESNET50 = BackboneConfig(), BackboneConfig(name="resnet50")


def moco(resnet: nn.Module, *, v2: bool) -> Any:
    fc = mlp("fc") if v2 else linear("fc", 4, 8)
    both = {**body(resnet), **fc}
    queue = {"queue": torch.randn(4, 16), "queue_ptr": torch.zeros(1, dtype=torch.long)}
    state = {**queue, **under("encoder_q.", both), **under("encoder_k.", other(both))}
    return {
        "epoch": 200,
        "arch": "resnet50",
        "state_dict": under("module.", state),
        "optimizer": {},
    }


def moco_v3(network: nn.Module, head: str) -> Any:
    own = {**body(network), **mlp(head, last=3)}
    copy = under("momentum_encoder.", other(own))
    state = {**under("base_encoder.", own), **copy, **mlp("predictor")}
    return {"epoch": 300, "arch": "vit_small", "state_dict": under("module.", state), "scaler": {}}


def simsiam(resnet: nn.Module) -> Any:
    fc = {**mlp("fc", last=3), **linear("fc.6", 4, 4), "fc.7.running_mean": torch.zeros(4)}
    state = {**under("encoder.", {**body(resnet), **fc}), **mlp("predictor", last=3)}
    return {"epoch": 100, "state_dict": under("module.", state), "optimizer": {"state": {}}}


def swav(resnet: nn.Module) -> Any:
    state = {
        **body(resnet),
        **mlp("projection_head", last=3),
        "prototypes.weight": torch.ones(9, 4),
    }
    return under("module.", state)


def barlow_training(resnet: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Any:
    # their optimizer's state names a function of their script, which no other process has

    def exclude_bias_and_norm(p: Tensor) -> bool:
        raise AssertionError("code of the file was run")

    exclude_bias_and_norm.__module__ = "__main__"
    exclude_bias_and_norm.__qualname__ = "exclude_bias_and_norm"
    monkeypatch.setattr(
        sys.modules["__main__"], "exclude_bias_and_norm", exclude_bias_and_norm, raising=False
    )
    state = {
        **under("backbone.", body(resnet)),
        **mlp("projector"),
        "bn.running_mean": torch.ones(4),
    }
    groups = [{"params": [0], "weight_decay_filter": exclude_bias_and_norm}]
    return {
        "epoch": 1000,
        "model": under("module.", state),
        "optimizer": {"state": {}, "param_groups": groups},
    }


def lucidrains(resnet: nn.Module) -> Any:
    whole = resnet.state_dict()
    online = {**under("net.", whole), **mlp("projector", last=3)}
    return {
        **under("net.", whole),
        **under("online_encoder.", online),
        **under("target_encoder.", other(online)),
        **mlp("online_predictor", last=3),
    }


def converted_byol(resnet: nn.Module) -> Any:
    """No counters, statistics at the end."""
    state = {n: t for n, t in resnet.state_dict().items() if "tracked" not in n}
    return dict(sorted(state.items(), key=lambda item: "running" in item[0]))


def converted_simclr(resnet: nn.Module) -> Any:
    """The shortcut of a block is named first."""
    state = OrderedDict(resnet.state_dict())
    for name in reversed([n for n in state if "downsample" in n]):
        state.move_to_end(name, last=False)
    return {"state_dict": state}


def dino_head() -> State:
    last = {
        "head.last_layer.weight_g": torch.ones(9, 1),
        "head.last_layer.weight_v": torch.ones(9, 4),
    }
    return {**mlp("head.mlp"), **last}


def dino_training(network: nn.Module, *, parallel: bool) -> Any:
    state = {**under("backbone.", body(network)), **dino_head()}
    return {
        "student": under("module.", other(state)),
        "teacher": under("module.", state) if parallel else state,
        "optimizer": {"state": {}},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", patch_size=16),
        "dino_loss": {"center": torch.zeros(1, 9)},
    }


def lightly(resnet: nn.Module, **more: Any) -> Any:
    *layers, _ = resnet.children()
    sequence = nn.Sequential(*layers).state_dict()
    state = {
        **under("backbone.", sequence),
        **mlp("projection_head.layers"),
        **mlp("prediction_head.layers"),
        **under("backbone_momentum.", other(sequence)),
        **mlp("projection_head_momentum.layers"),
        "criterion.memory_bank.bank": torch.zeros(4, 4),
    }
    return {"epoch": 9, "pytorch-lightning_version": "2.1.0", "state_dict": state, **more}


def lightly_teacher(resnet: nn.Module) -> Any:
    *layers, _ = resnet.children()
    sequence = nn.Sequential(*layers).state_dict()
    state = {
        **under("student_backbone.", other(sequence)),
        **mlp("student_head.layers"),
        **under("teacher_backbone.", sequence),
        **mlp("teacher_head.layers"),
        "criterion.center": torch.zeros(1, 4),
    }
    return {"state_dict": state}


def lightly_benchmark(vit: nn.Module) -> Any:
    whole = {**vit.state_dict(), **linear("head", 10, 384)}
    wrapped = {**under("vit.", whole), "mask_token": torch.zeros(1, 1, 384)}
    state = {
        **under("backbone.", wrapped),
        **mlp("projection_head.layers"),
        **under("student_backbone.", other(wrapped)),
        **mlp("student_projection_head.layers"),
        **linear("online_classifier.linear", 10, 4),
    }
    return {"state_dict": state, "hyper_parameters": {"num_classes": 10}}


def solo_learn(network: nn.Module, name: str) -> Any:
    state = {
        **under(f"{name}.", body(network)),
        **linear("classifier", 10, 4),
        **mlp("projector", last=3),
        **mlp("predictor", last=3),
        **under(f"momentum_{name}.", other(body(network))),
        **mlp("momentum_projector", last=3),
        "queue": torch.zeros(2, 4),
        "queue_ptr": torch.zeros(1, dtype=torch.long),
    }
    return {"state_dict": state, "hyper_parameters": {"cfg": argparse.Namespace(method="mocov3")}}


def dinov2(vit: nn.Module) -> Any:
    """The authors' names: a token for masked patches, and registers without a position."""
    state = {**body(vit), "mask_token": torch.zeros(1, 384)}
    if "reg_token" in state:
        state["register_tokens"] = state.pop("reg_token")
        position = torch.full((1, 1, 384), 0.25)
        state["pos_embed"] = torch.cat([position, state["pos_embed"]], dim=1)
        state["cls_token"] = state["cls_token"] - position
    return state


def cifar(resnet: nn.Module) -> nn.Module:
    """The network for small images, with a padding of 1 pixel."""
    copy = type(resnet)(torchvision.models.resnet.BasicBlock, [2, 2, 2, 2])
    copy.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    copy.maxpool = nn.Identity()
    copy.load_state_dict({**resnet.state_dict(), "conv1.weight": copy.conv1.weight.detach()})
    return copy


def cases() -> dict[str, Callable[..., Case]]:
    momentum = ["moving average", "projector"]

    def vit_case(make_vit, content, title, *, name="vit_small_patch16_224", **rest) -> Case:
        options = rest.pop("options", {})
        vit = make_vit(name, **options)
        config = BackboneConfig(name=name, options={**options, "depth": 2})
        return Case(content(vit), vit, title, config, **rest)

    return {
        "MoCo v1": lambda r18, r50, vit: Case(
            moco(r18, v2=False), r18, "MoCo v1's", RESNET18, [*momentum, "queue"], options=OLDER
        ),
        "MoCo v2": lambda r18, r50, vit: Case(
            moco(r18, v2=True), r18, "MoCo v2's", RESNET18, [*momentum, "queue"]
        ),
        "MoCo v3, ResNet": lambda r18, r50, vit: Case(
            moco_v3(r18, "fc"), r18, "MoCo v3's", RESNET18, [*momentum, "predictor"]
        ),
        "MoCo v3, ViT-S": lambda r18, r50, vit: vit_case(
            vit,
            lambda network: moco_v3(network, "head"),
            "MoCo v3's",
            options={"num_heads": 12},  # not timm's 6
            left_out=[*momentum, "predictor"],
        ),
        "MoCo v3, ViT-B": lambda r18, r50, vit: vit_case(
            vit,
            lambda network: moco_v3(network, "head"),
            "MoCo v3's",
            name="vit_base_patch16_224",
            left_out=[*momentum, "predictor"],
        ),
        "SimSiam": lambda r18, r50, vit: Case(
            simsiam(r18), r18, "SimSiam's", RESNET18, ["projector", "predictor", "optimizer"]
        ),
        "SwAV": lambda r18, r50, vit: Case(
            swav(r18),
            r18,
            "SwAV's",
            RESNET18,
            ["projector", "prototypes"],
            (IMAGENET[0], (0.228, 0.224, 0.225)),
            options=OLDER,
        ),
        "Barlow Twins, DINO: ResNet-50": lambda r18, r50, vit: Case(
            body(r50), r50, "plain", RESNET50
        ),
        "BYOL, byol-pytorch": lambda r18, r50, vit: Case(
            lucidrains(r18),
            r18,
            "byol-pytorch",
            RESNET18,
            [*momentum, "predictor", "second name", "classifier"],
        ),
        "BYOL, converted": lambda r18, r50, vit: Case(
            converted_byol(r18), r18, "plain", RESNET18, ["classifier", "20 counters"]
        ),
        "SimCLR, converted": lambda r18, r50, vit: Case(
            converted_simclr(r50),
            r50,
            "SimCLR's",
            RESNET50,
            ["classifier"],
            ((0.0,) * 3, (1.0,) * 3),
        ),
        "DINO, ViT-S/16": lambda r18, r50, vit: vit_case(vit, body, "plain"),
        "DINO, ViT-S/8": lambda r18, r50, vit: vit_case(
            vit, body, "plain", name="vit_small_patch8_224"
        ),
        "DINO, training of a ViT": lambda r18, r50, vit: vit_case(
            vit,
            lambda network: dino_training(network, parallel=False),
            "DINO's",
            left_out=["projector", "trained network", "args"],
        ),
        "DINO, training of a ResNet": lambda r18, r50, vit: Case(
            dino_training(r18, parallel=True), r18, "DINO's", RESNET18, ["projector"]
        ),
        "DINOv2": lambda r18, r50, vit: vit_case(
            vit,
            dinov2,
            "DINOv2's",
            name="vit_small_patch14_dinov2",
            left_out=["mask_token"],
            options={},
            image_size=518,
        ),
        "lightly": lambda r18, r50, vit: Case(
            lightly(r18), r18, "lightly's", RESNET18, [*momentum, "predictor", "the loss"]
        ),
        "lightly, DINO": lambda r18, r50, vit: Case(
            lightly_teacher(r18), r18, "lightly's", RESNET18, ["trained network", "projector"]
        ),
        "lightly, ViT": lambda r18, r50, vit: vit_case(
            vit,
            lightly_benchmark,
            "lightly's",
            left_out=["masked patches", "classifier", "trained network"],
        ),
        "solo-learn": lambda r18, r50, vit: Case(
            solo_learn(r18, "backbone"),
            r18,
            "solo-learn's",
            RESNET18,
            [*momentum, "predictor", "classifier", "queue"],
        ),
        "solo-learn of 2021": lambda r18, r50, vit: Case(
            solo_learn(r18, "encoder"), r18, "solo-learn's", RESNET18, [*momentum, "classifier"]
        ),
        "solo-learn on CIFAR": lambda r18, r50, vit: Case(
            solo_learn(network := cifar(r18), "backbone"),
            network,
            "solo-learn's",
            BackboneConfig(stem="small"),
            momentum,
            image_size=32,
        ),
        "torchvision": lambda r18, r50, vit: Case(
            r18.state_dict(), r18, "plain", RESNET18, ["classifier"]
        ),
        "timm, training": lambda r18, r50, vit: vit_case(
            vit,
            lambda network: {
                "state_dict": under("module.", {**body(network), **linear("head", 10, 384)}),
                "args": argparse.Namespace(model="vit"),
            },
            "plain",
            left_out=["classifier"],
            options={"img_size": 96, "init_values": 1e-5},
            image_size=96,
        ),
        "timm, small patches": lambda r18, r50, vit: vit_case(
            vit,
            body,
            "plain",
            name="vit_tiny_patch16_224",
            options={"patch_size": 4, "img_size": 32, "mlp_ratio": 2.0, "qkv_bias": False},
            image_size=32,
        ),
    }


CASES = cases()


@pytest.mark.parametrize("name", CASES)
def test_a_published_file_becomes_its_backbone(name, resnet18, resnet50, make_vit, save):
    case = CASES[name](resnet18, resnet50, make_vit)
    start = open_start(save(case.content, "w.pth.tar", **case.options))
    assert start.name == "w"
    assert case.title in start.title
    assert start.backbone == case.backbone
    assert (start.mean, start.std) == case.pixels
    assert start.image_size == case.image_size
    expected = body(case.source)
    if "counters" in "".join(start.report):
        expected = {n: t * 0 if "tracked" in n else t for n, t in expected.items()}
    assert start.state.keys() == expected.keys()
    for tensor_name, tensor in expected.items():
        assert torch.equal(start.state[tensor_name], tensor), tensor_name
    left_out = " ".join(s for s in start.report if s.startswith(("Left out", "Set")))
    assert all(words in left_out for words in case.left_out), left_out
    assert bool(case.left_out) == bool(left_out)
    size = case.image_size if "vit" in start.backbone.name else 64
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(3))
    network = start.build()
    assert list(start.state) == list(network.state_dict())
    assert not network.training
    assert network.has_pretrained_weights
    expected_features = features(case.source, images)
    with torch.no_grad():
        torch.testing.assert_close(network(images), expected_features, rtol=1e-5, atol=1e-5)


def test_the_training_checkpoint_of_barlow_twins_runs_nothing(resnet18, save, monkeypatch):
    with monkeypatch.context() as patch:
        path = save(barlow_training(resnet18, patch))
    start = open_start(path)
    assert "Barlow Twins" in start.title
    assert all(torch.equal(start.state[n], t) for n, t in body(resnet18).items())
    report = " ".join(start.report)
    assert "before the loss" in report
    assert "optimizer" in report


def test_registers_of_dinov2_take_the_names_of_timm(make_vit, save):
    source = make_vit("vit_small_patch14_reg4_dinov2", img_size=56)
    start = open_start(save(dinov2(source)))
    assert start.backbone == BackboneConfig(
        name="vit_small_patch14_reg4_dinov2", options={"img_size": 56, "depth": 2}
    )
    for name, tensor in source.state_dict().items():
        torch.testing.assert_close(start.state[name], tensor)
    report = " ".join(start.report)
    assert "'register_tokens' is 'reg_token'" in report
    assert "Changed cls_token" in report
    again = open_start(save(source.state_dict()))  # under timm's names
    assert again.backbone == start.backbone


@pytest.mark.parametrize(
    "config",
    [
        BackboneConfig(stem="small", base_width=8),
        BackboneConfig(name="resnet34", base_width=16),
        BackboneConfig(name="vit_tiny_patch16_224", options={"img_size": 32, "patch_size": 8}),
    ],
)
def test_an_exported_backbone_is_a_start(config, tmp_path):
    network = build_backbone(config)
    path = tmp_path / "backbone.safetensors"
    export_backbone(network.state_dict(), path)
    start = open_start(path)
    assert start.backbone == config
    assert all(torch.equal(start.state[n], t) for n, t in network.state_dict().items())
    assert any("Assumed" in sentence for sentence in start.report)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "convnext_atto"])
def test_other_networks_open_with_their_name(name, tmp_path):
    network = timm.create_model(name)
    path = tmp_path / "model.safetensors"
    save_file(network.state_dict(), path)
    start = open_start(path, backbone=BackboneConfig(name=name))
    own = network.state_dict()
    assert all(torch.equal(own[n], t) for n, t in start.state.items())
    assert len(own) - len(start.state) == 2
    assert any("classifier" in sentence for sentence in start.report)


def test_timms_own_names_are_left_alone(make_vit, save, monkeypatch):
    # older filters of timm took a Swin without a classifier for one of its authors' own

    def mistaken(state: State, _model: nn.Module) -> State:
        return under("layers.", state)

    monkeypatch.setattr("timm.models.vision_transformer.checkpoint_filter_fn", mistaken)
    source = make_vit("vit_tiny_patch16_224", img_size=32)
    start = open_start(save(source.state_dict()))
    assert all(torch.equal(start.state[n], t) for n, t in source.state_dict().items())


def test_a_layout_knows_the_heads_of_the_network_that_one_names(make_vit, save):
    source = make_vit(num_heads=12)
    path = save(moco_v3(source, "head"))
    config = BackboneConfig(name="vit_small_patch16_224", options={"depth": 2})
    start = open_start(path, backbone=config)
    assert start.backbone.options == {"depth": 2, "num_heads": 12}


def test_positions_follow_the_size_that_one_asks_for(make_vit, save):
    path = save(dinov2(make_vit("vit_small_patch14_dinov2")))
    config = BackboneConfig(name="vit_small_patch14_dinov2", options={"depth": 2, "img_size": 56})
    start = open_start(path, backbone=config)
    assert start.image_size == 56
    assert start.state["pos_embed"].shape == (1, 17, 384)
    assert any("pos_embed" in sentence and "1370" in sentence for sentence in start.report)


def test_half_precision_is_told_and_becomes_float32(resnet18, save):
    start = open_start(
        save({n: t.half() if t.is_floating_point() else t for n, t in body(resnet18).items()})
    )
    assert {t.dtype for t in start.state.values()} == {torch.float32, torch.int64}
    assert any("float16" in sentence for sentence in start.report)


def test_the_fingerprint_is_that_of_the_weights_alone(resnet18, save):
    state = body(resnet18)
    start = open_start(save(state))
    other_file = open_start(save(lightly(resnet18), "other.ckpt"))
    assert start.fingerprint == other_file.fingerprint
    assert len(start.fingerprint) == 16
    state["bn1.bias"] = state["bn1.bias"].clone()
    state["bn1.bias"][3] += 1e-6
    assert open_start(save(state)).fingerprint != start.fingerprint


def test_building_leaves_the_generator_alone(resnet18, save):
    start = open_start(save(body(resnet18)))
    before = torch.get_rng_state()
    start.build()
    assert torch.equal(before, torch.get_rng_state())


def test_the_page_names_every_layout_in_the_order_in_which_they_are_tried():
    page = (Path(__file__).parents[3] / "docs" / "starts.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("|")]
    titles = [layout.title for layout in LAYOUTS]
    assert [row for row in rows if row in titles] == titles
