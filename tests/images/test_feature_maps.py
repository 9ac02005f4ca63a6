"""A backbone for dense tasks: maps whose mean are the features, and torchvision's heads on them."""

import pytest
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.segmentation.fcn import FCN, FCNHead
from torchvision.ops import FeaturePyramidNetwork

from similitude.errors import UserError
from similitude.images.backbones import BackboneConfig, build_backbone
from similitude.images.feature_maps import FeatureMaps

FOUR = ("0", "1", "2", "3")
NARROW = BackboneConfig(base_width=4)


def maps_of(config=NARROW, size=64, names=FOUR):
    backbone = build_backbone(config).eval()
    return backbone, FeatureMaps(backbone, size, names)


@pytest.mark.parametrize(
    ("config", "strides"), [(NARROW, [4, 8, 16, 32]), (NARROW.changed(stem="small"), [1, 2, 4, 8])]
)
def test_maps_of_a_resnet_are_its_stages(config, strides):
    backbone, maps = maps_of(config)
    assert maps.strides == strides
    assert maps.channels == [4, 8, 16, 32]
    images = torch.rand(2, 3, 96, 64)
    found = maps(images)
    assert list(found) == list(FOUR)
    assert found["3"].shape == (2, 32, 96 // strides[3], 64 // strides[3])
    torch.testing.assert_close(found["3"].mean((2, 3)), backbone(images))


@pytest.mark.slow
def test_maps_of_a_vit_are_its_patches():
    options = {"img_size": 32, "patch_size": 8, "depth": 3}
    config = BackboneConfig(name="vit_tiny_patch16_224", options=options)
    backbone, maps = maps_of(config, 32, ("out",))
    assert (maps.strides, maps.channels) == ([8], [192])
    images = torch.rand(2, 3, 32, 32)
    tokens = backbone.forward_features(images)[:, 1:]
    torch.testing.assert_close(maps(images)["out"].flatten(2).mT, tokens)


def test_training_maps_leaves_the_backbone_as_it_is():
    backbone, maps = maps_of()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    maps.train()(torch.rand(2, 3, 64, 64))["3"].sum().backward()
    assert all(p.grad is None for p in backbone.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


@pytest.mark.slow
def test_torchvisions_detector_trains_on_them():
    _, maps = maps_of()
    backbone = nn.Sequential(maps, FeaturePyramidNetwork(maps.channels, 8))
    backbone.out_channels = 8
    anchors = {"min_size": 64, "max_size": 64, "rpn_pre_nms_top_n_train": 20}
    detector = FasterRCNN(backbone, num_classes=2, rpn_anchor_generator=four_levels(), **anchors)
    boxes = {"boxes": torch.tensor([[4.0, 4, 40, 40]]), "labels": torch.tensor([1])}
    losses = detector([torch.rand(3, 64, 64)], [boxes])
    sum(losses.values()).backward()
    assert maps.backbone.conv1.weight.grad.abs().sum() > 0


def four_levels():
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    return AnchorGenerator(((8,), (16,), (32,), (64,)), ((0.5, 1.0, 2.0),) * 4)


@pytest.mark.slow
def test_torchvisions_segmenter_takes_the_last_one():
    _, maps = maps_of(names=("out",))
    segmenter = FCN(maps, FCNHead(maps.channels[-1], 5)).eval()
    assert segmenter(torch.rand(1, 3, 64, 64))["out"].shape == (1, 5, 64, 64)


@pytest.mark.slow
def test_a_segmenter_on_a_pyramid_learns_which_half_is_bright():
    torch.manual_seed(0)
    _, maps = maps_of(names=("out", "1", "2"))
    assert maps.strides == [8, 16, 32]
    pyramid = FeaturePyramidNetwork(maps.channels, 8)
    segmenter = FCN(nn.Sequential(maps, pyramid), FCNHead(8, 2)).train()
    classes = torch.zeros(4, 64, 64, dtype=torch.long)
    classes[:2, :32], classes[2:, :, 32:] = 1, 1
    images = classes[:, None].float().expand(-1, 3, -1, -1) - 0.5
    optimizer = torch.optim.AdamW(segmenter.parameters(), 1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        logits = segmenter(images)["out"]
        nn.functional.cross_entropy(logits, classes).backward()
        optimizer.step()
    assert (segmenter(images)["out"].argmax(1) == classes).float().mean() > 0.9


def test_networks_without_maps_are_told():
    with pytest.raises(UserError, match="gives no feature maps"):
        FeatureMaps(nn.Flatten(), 32, FOUR)
    with pytest.raises(UserError, match="does not give 9 feature maps: name fewer"):
        maps_of(names=tuple("012345678"))
