"""Drawn parameters follow torchvision's distributions and depend on nothing but their sample."""

import math

import pytest
import torch
from scipy import stats
from torchvision.transforms import ColorJitter, RandomResizedCrop

from similitude.images.views.config import ImageViewConfig
from similitude.images.views.drawing import JITTER_ORDERS, draw_parameters

N = 4000


def all_of(parameters):
    """Every tensor by its name."""
    named = parameters._asdict()
    return named.pop("operations") | named


def draw(config=None, n=N, *, index=None, aspect=1.0, canvas_size=256, view=0, epoch=0):
    index = torch.arange(n) if index is None else index
    aspect = torch.full((len(index),), aspect) if isinstance(aspect, float) else aspect
    return draw_parameters(
        config or ImageViewConfig(),
        seed=0,
        epoch=epoch,
        index=index,
        view=view,
        aspect=aspect,
        canvas_size=canvas_size,
    )


def same_distribution(ours, theirs):
    return stats.ks_2samp(ours.double().numpy(), torch.as_tensor(theirs).double().numpy()).pvalue


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "height", "scale", "ratio"),
    [
        (256, 256, (0.2, 1.0), (3 / 4, 4 / 3)),
        (32, 32, (0.08, 1.0), (3 / 4, 4 / 3)),
        (384, 256, (0.08, 1.0), (3 / 4, 4 / 3)),
        (256, 400, (0.3, 0.9), (0.5, 2.0)),
    ],
)
def test_boxes_are_those_of_random_resized_crop(width, height, scale, ratio):
    size = min(width, height)
    boxes = draw(
        ImageViewConfig(crop_scale=scale, crop_ratio=ratio), aspect=width / height, canvas_size=size
    )
    image = torch.empty(3, height, width)
    top, left, rows, columns = torch.tensor(
        [RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(N)]
    ).T
    # ours in pixels of the original; a jitter of one grid step hides the different grids
    step_x, step_y = width / size, height / size
    noise = torch.rand(8, N)
    pairs = [
        (boxes.width * step_x + noise[0] * step_x, columns + noise[1] * step_x),
        (boxes.height * step_y + noise[2] * step_y, rows + noise[3] * step_y),
        (boxes.left * step_x + noise[4] * step_x, left + noise[5] * step_x),
        (boxes.top * step_y + noise[6] * step_y, top + noise[7] * step_y),
    ]
    for ours, theirs in pairs:
        assert same_distribution(ours, theirs) > 1e-4
    area = boxes.width * step_x * boxes.height * step_y
    assert same_distribution(area, rows * columns) > 1e-4
    log_ratio = (boxes.width * step_x / (boxes.height * step_y)).log()
    assert same_distribution(log_ratio + noise[0] / 50, (columns / rows).log() + noise[1] / 50) > (
        1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), [(1024, 256), (256, 1024)])
def test_long_originals_fall_back_to_the_center_as_often_as_torchvision(width, height):
    image, scale, ratio = torch.empty(3, height, width), (0.25, 1.0), (3 / 4, 4 / 3)
    theirs = torch.tensor(
        [RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(N)]
    )
    boxes = draw(ImageViewConfig(crop_scale=scale), aspect=width / height)
    ours = torch.stack([boxes.top, boxes.left, boxes.height, boxes.width], dim=1)
    ours = ours * torch.tensor([height, width, height, width]) / 256
    central = torch.tensor([0, 341, 256, 341] if width > height else [341, 0, 341, 256])
    # within one step of the canvas's grid
    share, reference = (((b - central).abs() <= 4).all(1).float().mean() for b in (ours, theirs))
    assert 0.2 < reference < 0.9
    assert abs(share - reference) < 4 * (2 * 0.25 / N) ** 0.5


@pytest.mark.parametrize("attempts", [0, 1, 10])
@pytest.mark.parametrize("aspect", [0.1, 0.7, 1.0, 1.5, 12.0])
@pytest.mark.parametrize("canvas_size", [2, 32])
def test_boxes_lie_on_the_canvas(attempts, aspect, canvas_size):
    boxes = draw(
        ImageViewConfig(crop_scale=(0.01, 1.0), crop_attempts=attempts),
        aspect=aspect,
        canvas_size=canvas_size,
    )
    for start, length in ((boxes.top, boxes.height), (boxes.left, boxes.width)):
        assert start.min() >= 0
        assert length.min() >= 1
        assert (start + length).max() <= canvas_size


def test_areas_and_ratios_cover_their_ranges():
    config = ImageViewConfig(crop_scale=(0.1, 0.4), crop_ratio=(0.5, 2.0), crop_attempts=0)
    boxes = draw(config, canvas_size=10_000)
    area = boxes.width * boxes.height / 1e8
    assert stats.kstest(area.numpy(), "uniform", (0.1, 0.3)).pvalue > 1e-3
    log_ratio = (boxes.width / boxes.height).log()
    span = math.log(4.0)
    assert stats.kstest(log_ratio.numpy(), "uniform", (-span / 2, span)).pvalue > 1e-3


def test_byol_cuts_sides_where_torchvision_draws_again():
    whole = {"crop_scale": (1.0, 1.0), "crop_ratio": (2.0, 2.0)}
    cut = draw(ImageViewConfig(**whole, crop_attempts=0), n=50)
    assert cut.width.unique().tolist() == [256]
    assert cut.height.unique().tolist() == [round(256 / math.sqrt(2))]
    assert len(cut.top.unique()) > 10
    central = draw(ImageViewConfig(**whole, crop_attempts=10), n=50)
    # the ratio of the image is below the allowed ones: full width, and height for ratio 2
    assert central.width.unique().tolist() == [256]
    assert central.height.unique().tolist() == [128]
    assert central.top.unique().tolist() == [64]


@pytest.mark.slow
def test_jitter_is_that_of_color_jitter():
    strengths = (1.2, 1.4, 1.3, 0.2)  # above 1, where the lower end is cut at 0
    ours = draw(ImageViewConfig(jitter=strengths))
    reference = ColorJitter(*strengths)
    drawn = [
        ColorJitter.get_params(
            reference.brightness, reference.contrast, reference.saturation, reference.hue
        )
        for _ in range(N)
    ]
    for position, name in enumerate(("brightness", "contrast", "saturation", "hue")):
        theirs = [parameters[1 + position] for parameters in drawn]
        assert same_distribution(getattr(ours, name), theirs) > 1e-4
    counts = torch.bincount(ours.jitter_order, minlength=24)
    assert len(counts) == len(JITTER_ORDERS) == 24
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_sigma_is_uniform_and_events_have_their_probabilities():
    config = ImageViewConfig(
        flip=0.3, jitter_probability=0.8, grey=0.2, blur=0.1, solarize=0.6, blur_sigma=(0.5, 1.5)
    )
    ours = draw(config)
    assert stats.kstest(ours.operations["blur sigma"].numpy(), "uniform", (0.5, 1.0)).pvalue > 1e-3
    for name, probability in (
        ("flip", 0.3),
        ("jitter", 0.8),
        ("grey", 0.2),
        ("blur", 0.1),
        ("solarize", 0.6),
    ):
        error = (probability * (1 - probability) / N) ** 0.5
        assert abs(all_of(ours)[name].float().mean() - probability) < 4 * error, name


def test_turns_are_equally_likely_and_change_no_other_choice():
    turned, plain = draw(ImageViewConfig(turn=0.6)), draw(ImageViewConfig())
    shares = torch.bincount(turned.quarter_turns, minlength=4) / N
    assert shares.tolist() == pytest.approx([0.4, 0.2, 0.2, 0.2], abs=0.03)
    theirs = all_of(plain)
    for name, ours in all_of(turned).items():
        assert name == "quarter_turns" or torch.equal(ours, theirs[name])
    assert plain.quarter_turns.sum() == 0


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_certain_and_impossible_events(probability):
    names = ("flip", "grey", "blur", "solarize")
    config = ImageViewConfig(**dict.fromkeys(names, probability), jitter_probability=probability)
    ours = draw(config)
    for name in (*names, "jitter"):
        assert all_of(ours)[name].float().mean() == probability


def test_choices_are_independent_of_each_other():
    # without retries, which tie the place of a box to its size
    ours = draw(ImageViewConfig(turn=0.7, solarize=0.3, crop_attempts=1))
    drawn = {**ours._asdict(), **ours.operations}
    fields = torch.stack([drawn[name].double() for name in drawn if name != "operations"])
    correlation = torch.corrcoef(fields) - torch.eye(len(fields))
    correlation[:4, :4] = 0  # a box's own four numbers are related
    assert correlation.abs().max() < 4.5 / N**0.5


def test_views_and_epochs_differ_and_batches_do_not_matter():
    aspect = 0.5 + 1.5 * torch.rand(100)
    ours = draw(n=100, aspect=aspect)
    index = torch.tensor([41, 7, 99])
    some = all_of(draw(index=index, aspect=aspect[index]))
    for name, all_samples in all_of(ours).items():
        assert torch.equal(all_samples[index], some[name])
    for other in (draw(n=100, aspect=aspect, view=1), draw(n=100, aspect=aspect, epoch=1)):
        assert not torch.equal(other.hue, ours.hue)
        assert not torch.equal(other.left, ours.left)


def test_several_views_are_drawn_as_one_after_the_other():
    aspect = torch.rand(7) + 0.5
    together = draw(n=7, aspect=aspect, view=[2, 0])
    first, then = (all_of(draw(n=7, aspect=aspect, view=view)) for view in (2, 0))
    for name, both in all_of(together).items():
        assert torch.equal(both, torch.cat([first[name], then[name]]))
