"""Crops and blurs equal torchvision's on the same box and sigma, within float32 rounding."""

import pytest
import torch
import torchvision.transforms.v2.functional as TF
from torchvision.transforms import InterpolationMode

from similitude.images.views.resampling import crop_and_resize, gaussian_blur_, resize_taps

BOXES = [  # top, left, height, width as shares of the canvas
    (0.0, 0.0, 1.0, 1.0),
    (0.1, 0.3, 0.5, 0.6),
    (0.7, 0.0, 0.3, 1.0),
    (0.0, 0.9, 0.05, 0.05),
    (0.5, 0.25, 0.5, 0.75),
    (0.0, 0.5, 1.0, 0.0),  # a column of one pixel
]


def every(images):
    return torch.arange(len(images))


def blurred(images, sigma, *, radius):
    out = images.clone()
    gaussian_blur_(out, every(images), sigma, radius=radius)
    return out


def canvases_and_boxes(side):
    canvases = torch.randint(0, 256, (len(BOXES), 3, side, side), dtype=torch.uint8)
    boxes = (torch.tensor(BOXES) * side).long()
    boxes[:, 2:].clamp_(min=1)
    return canvases, boxes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "size"),
    [(32, 32), (40, 24), (17, 48), (96, 96), (160, 96), (200, 24), (90, 117), (1000, 24)],
)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crop_equals_torchvision(side, size, interpolation):
    canvases, boxes = canvases_and_boxes(side)
    flip = torch.tensor([False, True, False, True, True, True])
    ours = crop_and_resize(
        canvases, every(canvases), *boxes.unbind(1), flip, size=size, interpolation=interpolation
    )
    for canvas, box, mirrored, out in zip(canvases, boxes.tolist(), flip, ours, strict=True):
        theirs = TF.resized_crop(
            canvas.float() / 255,
            *box,
            [size, size],
            interpolation=InterpolationMode(interpolation),
            antialias=True,
        ).clamp(0, 1)
        theirs = TF.horizontal_flip(theirs) if mirrored else theirs
        torch.testing.assert_close(out, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("length", [1, 5, 20, 64])
def test_weights_sum_to_one_and_stay_in_the_interval(interpolation, length):
    start = torch.tensor([0, 64 - length])
    pixels, weights = resize_taps(
        start,
        torch.tensor([length, length]),
        torch.tensor([False, True]),
        size=20,
        interpolation=interpolation,
    )
    torch.testing.assert_close(weights.sum(2), torch.ones(2, 20))
    assert (pixels >= start[:, None, None]).all()
    assert (pixels < start[:, None, None] + length).all()


def test_whole_canvas_at_its_own_size_is_the_identity():
    canvases, _ = canvases_and_boxes(32)
    zero = torch.zeros(len(canvases), dtype=torch.int64)
    for interpolation in ("bilinear", "bicubic"):
        out = crop_and_resize(
            canvases,
            every(canvases),
            zero,
            zero,
            zero + 32,
            zero + 32,
            zero.bool(),
            size=32,
            interpolation=interpolation,
        )
        torch.testing.assert_close(out, canvases / 255, atol=2e-7, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "radius"),
    [(32, 8), (32, 1), (9, 8), (49, 48), (65, 8), (96, 5), (112, 11), (115, 112)],
)
def test_blur_equals_torchvision(size, radius):
    images = torch.rand(4, 3, size, size)
    sigma = torch.tensor([0.1, 0.7, 1.3, 2.0])
    ours = blurred(images, sigma, radius=radius)
    for image, deviation, out in zip(images, sigma.tolist(), ours, strict=True):
        width = 2 * radius + 1
        theirs = TF.gaussian_blur(image, [width, width], [deviation, deviation])
        torch.testing.assert_close(out, theirs, atol=3e-6, rtol=0)


def test_a_blur_without_neighbours_changes_nothing():
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(blurred(images, torch.ones(2), radius=0), images)


def test_cutting_the_gaussian_at_four_deviations_does_not_show():
    """Less than a tenth of a grey level between the default radius and a much wider one."""
    images = torch.rand(2, 3, 64, 64).round()
    sigma = torch.full((2,), 2.0)
    difference = blurred(images, sigma, radius=8) - blurred(images, sigma, radius=20)
    assert difference.abs().max() * 255 < 0.1


def test_of_no_image_there_is_no_crop_and_no_blur():
    none, nothing = torch.rand(0, 3, 8, 8), torch.zeros(0, dtype=torch.int64)
    assert blurred(none, torch.ones(0), radius=2).shape == (0, 3, 8, 8)
    canvases, choices = none.to(torch.uint8), [nothing] * 5
    out = crop_and_resize(canvases, *choices, nothing.bool(), size=5, interpolation="bilinear")
    assert out.shape == (0, 3, 5, 5)


def test_canvases_may_lie_in_memory_in_any_order():
    canvases, boxes = canvases_and_boxes(20)
    turned = canvases.to(memory_format=torch.channels_last)
    flip = torch.arange(len(canvases)) % 2 == 0
    ours, theirs = (
        crop_and_resize(c, every(c), *boxes.unbind(1), flip, size=12, interpolation="bicubic")
        for c in (turned, canvases)
    )
    assert torch.equal(ours, theirs)


def test_the_gradient_of_a_blur_is_its_adjoint():
    images = torch.rand(2, 3, 40, 40, requires_grad=True)
    other, weight = torch.rand(2, 2, 3, 40, 40)
    sigma = torch.tensor([0.3, 1.5])  # of different reaches
    (blurred(images, sigma, radius=6) * weight).sum().backward()
    assert images.grad is not None
    product = (blurred(other, sigma, radius=6) * weight).sum()
    torch.testing.assert_close(product, (images.grad * other).sum())


def test_a_sigma_that_is_no_number_shows():
    out = blurred(torch.rand(1, 3, 40, 40), torch.tensor([torch.nan]), radius=4)
    assert out.isnan().all()


def test_some_images_are_blurred_and_the_others_left():
    """In any order, and of different reaches, which are summed apart."""
    images, sigma = torch.rand(5, 3, 40, 40), torch.tensor([2.0, 0.2, 0.9])
    which = torch.tensor([4, 1, 2])
    out = images.clone()
    gaussian_blur_(out, which, sigma, radius=8)
    assert torch.equal(out[which], blurred(images[which], sigma, radius=8))
    assert torch.equal(out[[0, 3]], images[[0, 3]])


def test_crops_in_any_order_and_several_of_a_canvas():
    canvases, boxes = canvases_and_boxes(30)
    which = torch.tensor([2, 0, 2, 5, 1, 0])
    flip = torch.arange(len(which)) % 2 == 0
    ours, theirs = (
        crop_and_resize(c, w, *boxes.unbind(1), flip, size=12, interpolation="bilinear")
        for c, w in ((canvases, which), (canvases[which], every(which)))
    )
    assert torch.equal(ours, theirs)
