"""Color operations equal torchvision's; tolerance 2e-6 for float32 rounding."""

import pytest
import torch
import torchvision.transforms.v2.functional as TF

from similitude.images.views.color import blend_, scale_brightness_, shift_hue_, solarize, to_grey

IMAGES = torch.rand(6, 3, 9, 9, generator=torch.Generator().manual_seed(0))
FACTORS = torch.tensor([0.0, 0.3, 0.99, 1.0, 1.4, 1.8])
ZERO = torch.zeros(6)


def each(function, images=IMAGES, values=FACTORS):
    return torch.stack([function(i, v) for i, v in zip(images, values.tolist(), strict=True)])


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)


def blended(factor, grey, mean):
    images = IMAGES.clone()
    blend_(images, factor, grey, mean)
    return images


def test_grey():
    close(to_grey(IMAGES)[:, None], TF.rgb_to_grayscale(IMAGES))


def test_brightness():
    theirs = each(TF.adjust_brightness)
    close(blended(FACTORS, ZERO, ZERO), theirs)
    images = IMAGES.clone()
    scale_brightness_(images, FACTORS)
    close(images, theirs)


def test_contrast():
    close(blended(FACTORS, ZERO, 1 - FACTORS), each(TF.adjust_contrast))


def test_saturation():
    close(blended(FACTORS, 1 - FACTORS, ZERO), each(TF.adjust_saturation))


@pytest.mark.parametrize("kind", ["random", "two values", "grey", "primaries"])
def test_hue(kind):
    images = IMAGES.clone()
    if kind == "two values":  # ties between channels, where the branches of HSV meet
        images = images.round()
    if kind == "grey":
        images = images[:, :1].expand(-1, 3, -1, -1).clone()
    if kind == "primaries":
        images = torch.eye(3).repeat(6, 1, 3).view(6, 3, 3, 3).contiguous()
    turns = torch.tensor([-0.5, -0.2, -0.01, 0.0, 0.13, 0.5])
    theirs = each(TF.adjust_hue, images, turns)
    shift_hue_(images, turns)
    close(images, theirs)


def test_hue_turns_red_into_green_into_blue():
    red = torch.zeros(1, 3, 1, 1)
    red[:, 0] = 0.8
    shift_hue_(red, torch.tensor([1 / 3]))
    close(red.flatten(), torch.tensor([0.0, 0.8, 0.0]))
    shift_hue_(red, torch.tensor([1 / 3]))
    close(red.flatten(), torch.tensor([0.0, 0.0, 0.8]))


def test_solarize_inverts_from_the_threshold_on():
    values = torch.tensor([0.0, 0.49, 0.5, 0.75, 1.0]).view(1, 1, 1, 5).expand(1, 3, 5, 5)
    expected = torch.tensor([0.0, 0.49, 0.5, 0.25, 0.0])
    close(solarize(values, 0.5)[0, 0, 0], expected)
    close(solarize(IMAGES, 0.7), TF.solarize(IMAGES, 0.7))
