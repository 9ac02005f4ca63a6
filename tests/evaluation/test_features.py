from dataclasses import replace

import pytest
import torch
from torch import nn

from similitude.errors import UserError
from similitude.evaluation import Features, extract_features, raw_features, split_features
from similitude.images.canvases import Canvases
from similitude.images.image_set import ImageSet
from similitude.images.views.image import ImageFacts, evaluation_view

SPEC = ImageFacts(size=8, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def backbone() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 5)
    )


def test_features_are_the_backbone_on_evaluation_views(digit_images: ImageSet) -> None:
    network = backbone()
    found = extract_features(network, digit_images, SPEC, batch_size=77)
    network.eval()
    with torch.no_grad():
        expected = network(evaluation_view(Canvases(digit_images.pixels), SPEC))
    torch.testing.assert_close(found.x, expected)
    assert found.x.dtype == torch.float32
    assert found.names == digit_images.names
    assert found.y is not None
    assert digit_images.labels is not None
    assert torch.equal(found.y, digit_images.labels)


def test_the_backbone_is_left_exactly_as_it_was(digit_images: ImageSet) -> None:
    network = backbone()
    network.train()
    network[1].eval()  # a frozen BatchNorm inside a network in training
    before = {name: value.clone() for name, value in network.state_dict().items()}
    flags = [module.training for module in network.modules()]
    extract_features(network, digit_images, SPEC)
    assert [module.training for module in network.modules()] == flags
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    # Also after a failure.
    with pytest.raises(RuntimeError):
        extract_features(network, digit_images, ImageFacts(16, SPEC.mean, SPEC.std))
    assert [module.training for module in network.modules()] == flags


def test_features_can_be_used_in_training(digit_images: ImageSet) -> None:
    """Tensors made in inference mode cannot; these are ordinary ones."""
    found = extract_features(backbone(), digit_images, SPEC)
    layer = nn.Linear(5, 1)
    layer(found.x).sum().backward()
    assert layer.weight.grad is not None
    assert not found.x.is_inference()


def test_autocast_and_memory_layout_give_nearly_the_same(digit_images: ImageSet) -> None:
    network = backbone()
    plain = extract_features(network, digit_images, SPEC)
    fast = extract_features(
        network, digit_images, SPEC, autocast_dtype=torch.bfloat16, channels_last=True
    )
    assert fast.x.dtype == torch.float32
    assert not torch.equal(fast.x, plain.x)
    torch.testing.assert_close(fast.x, plain.x, rtol=0.05, atol=0.05)


def test_progress_is_told(digit_images: ImageSet) -> None:
    seen = []
    extract_features(
        backbone(),
        digit_images,
        SPEC,
        batch_size=128,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(128, 300), (256, 300), (300, 300)]


def test_a_backbone_that_gives_maps_is_refused(digit_images: ImageSet) -> None:
    with pytest.raises(UserError, match="one row of features per image"):
        extract_features(nn.Conv2d(3, 4, 3), digit_images, SPEC)
    with pytest.raises(UserError, match="no images"):
        extract_features(backbone(), digit_images.subset([]), SPEC)


def test_raw_pixels_keep_one_channel_of_gray_images(digit_images: ImageSet) -> None:
    found = raw_features(digit_images)
    torch.testing.assert_close(found.x, digit_images.pixels[:, 0].flatten(1) / 255)
    color = digit_images.subset(range(300))
    color.pixels[5, 1, 0, 0] += 1
    assert digit_images.is_gray
    assert not color.is_gray
    assert raw_features(color).x.shape == (300, 3 * 64)
    assert raw_features(digit_images, [color]).x.shape == (300, 3 * 64)


def test_raw_pixels_of_large_images_are_brought_down_to_16_a_side(digit_images: ImageSet) -> None:
    pixels = digit_images.pixels[:].repeat_interleave(5, 2).repeat_interleave(5, 3)
    large = replace(digit_images, pixels=pixels)
    view = evaluation_view(Canvases(pixels), ImageFacts(16, (0.0,) * 3, (1.0,) * 3))
    assert torch.equal(raw_features(large).x, view[:, 0].flatten(1))


@pytest.mark.usefixtures("unchecked_shapes")
def test_subset_and_labeled(digits: tuple[Features, Features]) -> None:
    train, _ = digits
    assert train.y is not None
    mask = train.y == 4
    fours = train.subset(mask)
    assert set(fours.y.tolist() if fours.y is not None else []) == {4}
    assert fours.names == [n for n, keep in zip(train.names, mask.tolist(), strict=True) if keep]
    y = train.y.clone()
    y[::2] = -1
    assert len(Features(train.x, y, train.names).labeled()) == 600
    with pytest.raises(UserError, match="none of the samples has a label"):
        Features(train.x, None, train.names).labeled()
    with pytest.raises(UserError, match="2 names"):
        Features(torch.zeros(3, 1), None, ["a", "b"])
    with pytest.raises(UserError, match="2 labels"):
        Features(torch.zeros(3, 1), torch.zeros(2).long(), ["a", "b", "c"])


def test_split_is_stratified_complete_and_the_same_for_all_features(
    digits: tuple[Features, Features],
) -> None:
    train, _ = digits
    kept, out = split_features(train, 0.2, seed=1)
    assert sorted(kept.names + out.names) == train.names
    assert train.y is not None
    assert out.y is not None
    share = out.y.bincount() / train.y.bincount()
    assert (share - 0.2).abs().max() < 0.01
    other = Features(torch.randn(len(train), 3), train.y, train.names)
    assert split_features(other, 0.2, seed=1)[1].names == out.names
    assert split_features(train, 0.2, seed=2)[1].names != out.names
    unlabeled = Features(train.x, None, train.names)
    assert len(split_features(unlabeled, 0.25, seed=0)[1]) == 300
