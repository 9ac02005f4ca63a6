"""GroupNorm becomes BatchNorm, with every channel's mean and spread as they were."""

import pytest
import torch
from torch import Tensor, nn

import similitude as sim
from builders import write_photos
from similitude.errors import UserError
from similitude.images.backbones import BackboneConfig, build_backbone
from similitude.images.canvases import Canvases
from similitude.images.image_set import ImageSet
from similitude.images.starts import unfit_norm, with_batchnorm
from similitude.images.views import ImageFacts, evaluation_view
from similitude.methods import BYOL, SimSiam
from similitude.nets.start import Start
from similitude.runs.checkpoint import export_backbone
from similitude.runs.starts import open_start

SPEC = ImageFacts(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
GROUPS = BackboneConfig(base_width=32, zero_init_last=False, options={"norm_layer": "groupnorm"})
# Big Transfer's network: GroupNorm with its ReLU inside, and standardized convolutions.
BIT = BackboneConfig(name="resnetv2_50x1_bit", options={"channels": (256, 256, 256, 256)})


def start_of(config: BackboneConfig) -> Start:
    torch.manual_seed(0)
    network = build_backbone(config)
    for layer in network.modules():
        if isinstance(layer, nn.GroupNorm):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.3)
    state = network.state_dict()
    return Start("published", "ours", config, state, 32, SPEC.mean, SPEC.std, ["Loaded."])


@pytest.fixture(scope="module")
def images() -> ImageSet:
    g = torch.Generator().manual_seed(0)
    coarse = torch.rand((48, 3, 4, 4), generator=g)
    pixels = nn.functional.interpolate(coarse, size=32, mode="bilinear").mul(255).byte()
    return ImageSet(pixels, torch.ones(48), [f"{i:02d}" for i in range(48)])


def outputs(network: nn.Module, kind: type[nn.Module], images: ImageSet) -> dict[str, Tensor]:
    """Every norm layer's output before its activation, [channels, images and pixels]."""
    found = {}

    def keep(name: str, layer: nn.Module):
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            norm = nn.GroupNorm if isinstance(layer, nn.GroupNorm) else nn.BatchNorm2d
            found[name] = norm.forward(layer, inputs[0]).transpose(0, 1).flatten(1)

        return hook

    for name, layer in network.named_modules():
        if isinstance(layer, kind):
            layer.register_forward_pre_hook(keep(name, layer))
    with torch.no_grad():
        network(evaluation_view(Canvases(images.pixels[:]), SPEC))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("config", [GROUPS, BIT], ids=["ResNet", "Big Transfer"])
def test_every_channel_keeps_its_mean_and_spread(config: BackboneConfig, images: ImageSet) -> None:
    start = start_of(config)
    converted = with_batchnorm(start, images, SPEC)
    before = outputs(start.build(), nn.GroupNorm, images)
    after = outputs(converted.build().train(), nn.BatchNorm2d, images)
    assert before.keys() == after.keys()
    assert len(before) >= 20
    for name, y in before.items():
        torch.testing.assert_close(after[name].mean(1), y.mean(1), rtol=1e-3, atol=1e-3)
        # where the values of a channel are nearly equal, epsilon takes a part of the spread
        torch.testing.assert_close(after[name].std(1), y.std(1), rtol=0.02, atol=0.02)


@pytest.mark.slow
def test_running_statistics_are_those_of_the_images(images: ImageSet) -> None:
    converted = with_batchnorm(start_of(GROUPS), images, SPEC)
    network = converted.build().train()
    network.bn1.momentum = 1.0
    with torch.no_grad():
        network(evaluation_view(Canvases(images.pixels[:]), SPEC))
    for name in ("running_mean", "running_var"):
        measured = network.bn1.state_dict()[name]
        torch.testing.assert_close(converted.state[f"bn1.{name}"], measured)


@pytest.mark.slow
def test_convolutions_stay_and_the_report_says_what_changed(images: ImageSet) -> None:
    start = start_of(GROUPS)
    converted = with_batchnorm(start, images, SPEC)
    assert torch.equal(converted.state["conv1.weight"], start.state["conv1.weight"])
    assert converted.backbone.options["norm_layer"] == "batchnorm2d"
    assert converted.report[0] == "Loaded."
    assert (
        "BatchNorm of 20 GroupNorm layers, with the statistics of 48 images"
        in (converted.report[-1])
    )
    assert converted.fingerprint != start.fingerprint


@pytest.mark.slow
def test_groupnorm_is_told_where_it_is_in_the_way_of_the_method(images: ImageSet) -> None:
    start = start_of(GROUPS)
    assert "--set init.norm=batch" in (unfit_norm(SimSiam, start) or "")
    assert unfit_norm(BYOL, start) is None
    assert unfit_norm(SimSiam, with_batchnorm(start, images, SPEC)) is None
    assert unfit_norm(SimSiam, start_of(BackboneConfig(base_width=8))) is None


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (BackboneConfig(base_width=8), "has no GroupNorm"),
        # the option would also change the norms of its transformer
        (
            BackboneConfig(name="vit_tiny_r_s16_p8_224", options={"img_size": 32, "depth": 1}),
            "cannot be built with BatchNorm",
        ),
    ],
)
def test_a_network_that_does_not_fit_is_refused(
    config: BackboneConfig, sentence: str, images: ImageSet
) -> None:
    with pytest.raises(UserError, match=sentence):
        with_batchnorm(start_of(config), images, SPEC)


@pytest.mark.slow
def test_a_run_with_converted_weights_is_whole_without_the_file(tmp_path) -> None:
    photos = write_photos(tmp_path / "photos", 48, size=32)
    weights = tmp_path / "bit.safetensors"
    export_backbone(start_of(GROUPS).state, weights)
    start = open_start(weights, backbone=GROUPS)
    overrides = ["image_size=32", "canvas_size=32", "method.view.size=null", "init.norm=batch"]
    run = sim.pretrain(
        photos,
        init=start,
        method="simsiam",
        epochs=2,
        batch_size=16,
        overrides=overrides,
        out=tmp_path / "run",
    )
    assert run is not None
    weights.unlink()
    assert not any(isinstance(layer, nn.GroupNorm) for layer in run.backbone.modules())
    assert run.recipe.init.norm == "batch"
    assert 0 < run.verdict.readings.drift < 1
    assert "before training" in run.evaluate(photos, protocols=("knn",)).rows
    assert open_start(run.path).backbone.options["norm_layer"] == "batchnorm2d"
