"""A backbone in a format of others: what its files say, and which networks it takes."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from similitude.images.backbones import BackboneConfig, build_backbone
from similitude.images.config import ImageData
from similitude.images.exports import EXPORTS, Pixels, through_memory, transformers_name
from similitude.images.small_maps import SmallMapConv2d, plain_convolutions
from similitude.images.views import Canvases, ImageFacts, evaluation_view
from similitude.nets.export import Exported

FACTS = ImageFacts(32, (0.5, 0.4, 0.3), (0.25, 0.2, 0.2))
NARROW = BackboneConfig(base_width=4)
SMALL = BackboneConfig(stem="small", base_width=4)
VIT = BackboneConfig(
    name="vit_tiny_patch16_224", options={"img_size": 32, "patch_size": 8, "depth": 2}
)


def model_of(config, *, is_wrapped=False):
    data = ImageData(image_size=32, canvas_size=36)
    return Exported(build_backbone(config).eval(), config, data, FACTS, is_wrapped)


@pytest.mark.parametrize(
    ("to", "config", "words"),
    [
        ("timm", SMALL, "a resnet18 with a base_width"),
        ("timm", BackboneConfig(stem="small"), "the stem for small images"),
        ("timm", BackboneConfig(norm="group"), "GroupNorm"),
        ("torchvision", VIT, "and this is vit_tiny_patch16_224"),
        (
            "torchvision",
            BackboneConfig(options={"aa_layer": "avg"}),
            "and this is resnet18 with options",
        ),
        ("torchvision", NARROW, "a base_width"),
        ("huggingface", SMALL, "a base_width"),
        ("huggingface", BackboneConfig(stem="small"), "the stem for small images"),
    ],
)
def test_what_a_format_cannot_hold_is_told_with_the_reason(to, config, words):
    model = Exported(nn.Identity(), config, None, FACTS, False)
    assert words in (EXPORTS[to].unfit(model) or "")


@pytest.mark.parametrize("to", ["timm", "torchvision", "huggingface"])
def test_more_than_one_network_is_no_model_of_a_library(to):
    model = Exported(nn.Identity(), BackboneConfig(), None, FACTS, True)
    assert "more than one network" in (EXPORTS[to].unfit(model) or "")


@pytest.mark.parametrize("to", ["onnx", "torch-export"])
@pytest.mark.parametrize("config", [SMALL, VIT, BackboneConfig(norm="group")])
def test_a_whole_computation_takes_every_network(to, config):
    assert EXPORTS[to].unfit(Exported(nn.Identity(), config, None, FACTS, True)) is None


@pytest.mark.slow
def test_the_preprocessing_of_timm_is_ours(tmp_path):
    EXPORTS["timm"].write(model_of(VIT), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"] == "vit_tiny_patch16_224"
    assert config["model_args"] == {"img_size": 32, "patch_size": 8, "depth": 2}
    told = config["pretrained_cfg"]
    assert told["input_size"] == [3, 32, 32]
    assert (told["mean"], told["std"]) == ([0.5, 0.4, 0.3], [0.25, 0.2, 0.2])
    assert (told["crop_mode"], told["crop_pct"], told["interpolation"]) == ("squash", 1, "bilinear")


@pytest.mark.parametrize("side", [32, 36, 20])
def test_pixels_become_what_evaluation_gives_a_backbone(side):
    pixels = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8)
    rows = Canvases(pixels.permute(0, 3, 1, 2).contiguous())
    found = Pixels(nn.Flatten(), FACTS)(pixels)
    torch.testing.assert_close(found, evaluation_view(rows, FACTS).flatten(1), rtol=1e-5, atol=1e-5)


def test_convolutions_become_pytorchs_own_and_stay_ours_in_the_run():
    backbone = build_backbone(SMALL)
    copied = plain_convolutions(backbone)
    assert not any(isinstance(m, SmallMapConv2d) for m in copied.modules())
    assert any(isinstance(m, SmallMapConv2d) for m in backbone.modules())


def test_every_tensor_of_a_narrow_resnet_has_a_name_in_transformers():
    names = [transformers_name(name) for name in build_backbone(NARROW).state_dict()]
    assert len(set(names)) == len(names)
    known = r"(embedder\.embedder|encoder\.stages\.\d\.layers\.\d\.(shortcut|layer\.[01]))"
    for name in names:
        assert re.fullmatch(known + r"\.(convolution|normalization)\.\w+", name), name
    assert transformers_name("layer2.0.conv1.weight") == (
        "encoder.stages.1.layers.0.layer.0.convolution.weight"
    )
    assert transformers_name("layer2.0.downsample.1.running_mean") == (
        "encoder.stages.1.layers.0.shortcut.normalization.running_mean"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_an_error_and_does_not_end_the_process():
    """PyTorch's own writer to a file aborts; this would take the tests with it."""
    with pytest.raises(OSError, match="No space left"):
        through_memory(lambda file: torch.save(torch.ones(100_000), file), Path("/dev/full"))
