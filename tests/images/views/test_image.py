"""A view equals torchvision's transforms on the same drawn parameters, and nothing else counts."""

from contextlib import contextmanager

import pytest
import torch
import torchvision.transforms.v2.functional as TF
from jaxtyping import TypeCheckError
from torchvision.transforms import InterpolationMode

from similitude.errors import UserError
from similitude.images.canvases import Canvases
from similitude.images.views import image as image_module
from similitude.images.views.config import ImageFacts, ImageViewConfig
from similitude.images.views.drawing import JITTER_ORDERS
from similitude.images.views.image import ImageView, evaluation_view
from similitude.sample import Draw, MultiView

MEAN, STD = (0.49, 0.48, 0.45), (0.2, 0.25, 0.3)
SPEC = ImageFacts(32, MEAN, STD)
JITTERS = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)
CONFIGS = {
    "moco_v2": ImageViewConfig(),
    "simclr": ImageViewConfig(
        crop_scale=(0.08, 1.0),
        interpolation="bicubic",
        jitter=(0.8, 0.8, 0.8, 0.2),
        blur_kernel=0.1,
        normalize=False,
    ),
    "byol_2": ImageViewConfig(
        crop_scale=(0.08, 1.0),
        crop_attempts=0,
        interpolation="bicubic",
        jitter=(0.4, 0.4, 0.2, 0.1),
        blur=0.1,
        blur_kernel=0.1,
        solarize=0.5,
    ),
    "moco_v1": ImageViewConfig(jitter=(0.4, 0.4, 0.4, 0.4), jitter_probability=1.0, blur=0.0),
    "only brightness": ImageViewConfig(jitter=(0.9, 0.0, 0.0, 0.0), grey=0.0, blur=0.0),
    "only hue": ImageViewConfig(jitter=(0.0, 0.0, 0.0, 0.5), grey=0.0, blur=0.0),
    "no jitter": ImageViewConfig(jitter_probability=0.0),
}


def random_canvases(n, side):
    """Smooth colors with some noise, so that every operation shows."""
    coarse = torch.rand(n, 3, 5, 5)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    return ((smooth + 0.2 * torch.rand(n, 3, side, side)) * 255).clamp(0, 255).to(torch.uint8)


def reference(canvas, parameters, config, size):
    """One sample through torchvision, in the order of the papers."""
    drawn = parameters._asdict() | parameters.operations
    p = {name: value.item() for name, value in drawn.items() if name != "operations"}
    image = TF.resized_crop(
        canvas.float() / 255,
        p["top"],
        p["left"],
        p["height"],
        p["width"],
        [size, size],
        interpolation=InterpolationMode(config.interpolation),
        antialias=True,
    ).clamp(0, 1)
    if p["jitter"]:
        values = [p[name] for name in ("brightness", "contrast", "saturation", "hue")]
        for operation in JITTER_ORDERS[p["jitter_order"]]:
            image = JITTERS[operation](image, values[operation])
    if p["grey"]:
        image = TF.rgb_to_grayscale(image, num_output_channels=3)
    if p["blur"]:
        width = 2 * config.blur_radius(size) + 1
        image = TF.gaussian_blur(image, [width, width], [p["blur sigma"], p["blur sigma"]])
    if p["solarize"]:
        image = TF.solarize(image, config.solarize_threshold)
    if p["flip"]:  # last, as in the MoCo family: every operation before it commutes with it
        image = TF.horizontal_flip(image)
    return TF.normalize(image, list(MEAN), list(STD)) if config.normalize else image


def sample(parameters, i):
    return parameters.select(torch.tensor([i]))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("side", "size"), [(32, 32), (72, 56), (120, 104)])
def test_view_equals_torchvision(name, side, size):
    """Within 5e-5 of values whose range is about 5."""
    config = CONFIGS[name]
    n = 48 if size == 32 else 12
    canvases, aspect = random_canvases(n, side), 0.6 + torch.rand(n)
    view = ImageView(config, ImageFacts(size, MEAN, STD))
    parameters = view.draw(Draw(0, 0, torch.arange(n), [0]), Canvases(canvases, aspect))
    (ours,) = view.apply(Canvases(canvases), parameters)
    theirs = torch.stack(
        [reference(canvases[i], sample(parameters, i), config, size) for i in range(n)]
    )
    wrong = (ours - theirs).abs() > 5e-5
    if config.solarize == 0 or config.solarize_threshold != 0.5:
        assert not wrong.any()
    else:  # a value within rounding of the threshold may fall on its other side
        assert wrong.float().mean() < 1e-4


def test_all_24_orders_of_the_jitter():
    config = ImageViewConfig(jitter=(0.8, 0.8, 0.8, 0.5), normalize=False, grey=0.0, blur=0.0)
    view, n = ImageView(config, SPEC), 48
    canvases = random_canvases(n, 32)
    parameters = view.draw(Draw(1, 0, torch.arange(n), [0]), Canvases(canvases, torch.ones(n)))
    parameters = parameters._replace(jitter_order=torch.arange(n) % 24, jitter=torch.arange(n) < 40)
    (ours,) = view.apply(Canvases(canvases), parameters)
    for i in range(n):
        theirs = reference(canvases[i], sample(parameters, i), config, 32)
        torch.testing.assert_close(ours[i], theirs, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "side"), [(32, 32), (64, 64), (91, 91), (24, 256), (64, 250), (128, 144)]
)
def test_a_view_is_the_same_bits_alone_in_a_batch_and_in_any_chunk(size, side, monkeypatch):
    n = 37
    canvases, index = random_canvases(n, side), torch.arange(100, 100 + n)
    aspect = 0.6 + torch.rand(n)
    views = MultiView(
        *(
            ImageView(config, ImageFacts(size, MEAN, STD))
            for config in (ImageViewConfig(blur=1.0), CONFIGS["byol_2"])
        )
    )
    together = views(Canvases(canvases, aspect), index, seed=3, epoch=2)
    some = torch.tensor([30, 4, 4, 11])
    shuffled = views(Canvases(canvases[some], aspect[some]), index[some], seed=3, epoch=2)
    alone = views(Canvases(canvases[9:10], aspect[9:10]), index[9:10], seed=3, epoch=2)
    monkeypatch.setattr(image_module, "_CACHE_BYTES", 5 * 3 * (4 * size**2 + 5 * side**2))
    chunked = views(Canvases(canvases, aspect), index, seed=3, epoch=2)
    torch.set_num_threads(2)
    threaded = views(Canvases(canvases, aspect), index, seed=3, epoch=2)
    alone_threaded = views(Canvases(canvases[9:10], aspect[9:10]), index[9:10], seed=3, epoch=2)
    for number, view in enumerate(together):
        assert torch.equal(shuffled[number], view[some])
        assert torch.equal(alone[number], view[9:10])
        assert torch.equal(chunked[number], view)
        assert torch.equal(threaded[number], view)
        assert torch.equal(alone_threaded[number], view[9:10])


@pytest.mark.slow
@pytest.mark.parametrize("size", [32, 128])
@pytest.mark.parametrize("n", [0, 1, 13])
def test_views_that_are_drawn_alike_are_those_made_alone(size, n, monkeypatch):
    torch.set_num_threads(2)
    spec, side = ImageFacts(size, MEAN, STD), size + 8
    large = ImageView(CONFIGS["byol_2"], spec)
    small = ImageView(CONFIGS["byol_2"].model_copy(update={"size": 24}), spec)
    canvases, index, aspect = random_canvases(n, side), torch.arange(n) + 5, torch.rand(n) + 0.5
    monkeypatch.setattr(image_module, "_CACHE_BYTES", 15 * 3 * (4 * size**2 + 5 * side**2))
    views = MultiView(large, small, large, small, small, partner=large)
    made = views(Canvases(canvases, aspect), index, seed=3, epoch=2)
    for number, (view, pixels) in enumerate(zip(views.views, made, strict=True)):
        rows = Canvases(canvases, aspect)
        (alone,) = view.apply(rows, view.draw(Draw(3, 2, index, [number]), rows))
        assert pixels.is_contiguous()
        assert torch.equal(pixels, alone)


def test_a_view_of_a_users_own_class_is_not_taken_for_another():
    class Dark(ImageView):
        def draw(self, draw, rows):
            assert draw.views == [1]
            return super().draw(draw, rows)

        def apply(self, rows, choices):
            return [view - 1.0 for view in super().apply(rows, choices)]

    config, spec = CONFIGS["byol_2"], ImageFacts(32, MEAN, STD)
    canvases, index = random_canvases(4, 32), torch.arange(4)
    own = MultiView(ImageView(config, spec), Dark(config, spec))(
        Canvases(canvases), index, seed=0, epoch=0
    )
    plain = MultiView(*[ImageView(config, spec)] * 2)(Canvases(canvases), index, seed=0, epoch=0)
    assert torch.equal(own[0], plain[0])
    assert torch.equal(own[1], plain[1] - 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_views_do_not_depend_on_what_the_caller_computes_in(threads):
    size = 128
    canvases, index = random_canvases(4, size), torch.arange(4)
    views = MultiView(ImageView(CONFIGS["byol_2"], ImageFacts(size, MEAN, STD)))
    plain = views(Canvases(canvases), index, seed=3, epoch=2)[0]
    torch.set_num_threads(threads)
    with torch.inference_mode():
        assert torch.equal(views(Canvases(canvases), index, seed=3, epoch=2)[0], plain)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(views(Canvases(canvases), index, seed=3, epoch=2)[0], plain)


@pytest.mark.slow
def test_views_change_with_seed_epoch_index_and_view_number():
    canvases, index = random_canvases(4, 32), torch.arange(4)
    views = MultiView(*[ImageView(ImageViewConfig(), SPEC)] * 2)
    first, second = views(Canvases(canvases), index, seed=0, epoch=0)
    others = [
        second,
        views(Canvases(canvases), index, seed=1, epoch=0)[0],
        views(Canvases(canvases), index, seed=0, epoch=1)[0],
        views(Canvases(canvases), index + 1, seed=0, epoch=0)[0],
    ]
    for other in others:
        assert ((first - other).abs().amax(dim=(1, 2, 3)) > 0.01).all()
    assert torch.equal(first, views(Canvases(canvases), index, seed=0, epoch=0)[0])


def test_nothing_happens_when_nothing_is_asked_for():
    config = ImageViewConfig(
        crop_scale=(1.0, 1.0),
        crop_ratio=(1.0, 1.0),
        flip=0.0,
        jitter_probability=0.0,
        grey=0.0,
        blur=0.0,
    )
    canvases = random_canvases(5, 32)
    (view,) = MultiView(ImageView(config, SPEC))(
        Canvases(canvases), torch.arange(5), seed=0, epoch=0
    )
    torch.testing.assert_close(view, evaluation_view(Canvases(canvases), SPEC), atol=2e-6, rtol=0)


def test_probability_one_reaches_every_sample():
    certain = {"flip": 0.0, "jitter_probability": 0.0, "blur": 0.0, "normalize": False}
    canvases, index = random_canvases(20, 32), torch.arange(20)

    def make(**changes):
        config = ImageViewConfig(**(certain | {"grey": 0.0} | changes))
        return MultiView(ImageView(config, SPEC))(Canvases(canvases), index, seed=0, epoch=0)[0]

    plain = make()
    torch.testing.assert_close(make(flip=1.0), plain.flip(3), atol=1e-6, rtol=0)
    grey = make(grey=1.0)
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert torch.equal(grey[:, 1], grey[:, 2])
    assert torch.equal(make(solarize=1.0, solarize_threshold=0.0), 1 - plain)
    for changes in ({"blur": 1.0, "blur_sigma": (1.0, 2.0)}, {"jitter_probability": 1.0}):
        assert ((make(**changes) - plain).abs().amax(dim=(1, 2, 3)) > 1e-3).all()


def test_turns_are_quarter_turns_of_the_same_view():
    canvases, image = random_canvases(64, 20), ImageFacts(12, (0.5,) * 3, (0.5,) * 3)
    index = torch.arange(64)
    turned = ImageView(ImageViewConfig(turn=0.75), image)
    rows = Canvases(canvases)
    chosen = turned.draw(Draw(0, 0, index, [0]), rows)
    plain = ImageView(ImageViewConfig(), image)
    (views,), (straight,) = turned.apply(rows, chosen), plain.apply(rows, chosen)
    assert set(chosen.quarter_turns.tolist()) == {0, 1, 2, 3}
    for view, upright, quarters in zip(views, straight, chosen.quarter_turns, strict=True):
        expected = upright.rot90(int(quarters), dims=(1, 2))
        torch.testing.assert_close(view, expected, rtol=0, atol=1e-5)  # sums in another order


def test_multi_crop_gives_views_of_their_own_sizes():
    views = MultiView(ImageView(ImageViewConfig(), SPEC), ImageView(ImageViewConfig(size=12), SPEC))
    shapes = [
        v.shape for v in views(Canvases(random_canvases(3, 40)), torch.arange(3), seed=0, epoch=0)
    ]
    assert shapes == [(3, 3, 32, 32), (3, 3, 12, 12)]
    assert len(views) == 2


def test_empty_batches_and_untouched_inputs():
    canvases = random_canvases(6, 32)
    before = canvases.clone()
    views = MultiView(ImageView(ImageViewConfig(solarize=0.5), SPEC))
    views(Canvases(canvases), torch.arange(6), seed=0, epoch=0)
    assert torch.equal(canvases, before)
    assert views(Canvases(canvases[:0]), torch.arange(0), seed=0, epoch=0)[0].shape == (
        0,
        3,
        32,
        32,
    )
    assert evaluation_view(Canvases(canvases[:0]), SPEC).shape == (0, 3, 32, 32)


@pytest.mark.parametrize(("side", "size"), [(32, 32), (40, 28), (96, 64)])
def test_evaluation_view_equals_torchvision(side, size):
    canvases = random_canvases(7, side)
    theirs = TF.normalize(
        TF.resize(canvases / 255, [size, size], antialias=True), list(MEAN), list(STD)
    )
    ours = evaluation_view(Canvases(canvases), ImageFacts(size, MEAN, STD))
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


def test_views_are_bounded():
    """No operation leaves [0, 1] before normalization, bicubic overshoot included."""
    canvases = (torch.rand(64, 3, 32, 32).round() * 255).to(torch.uint8)
    config = ImageViewConfig(
        interpolation="bicubic",
        crop_scale=(0.05, 1),
        jitter=(0.8, 0.8, 0.8, 0.5),
        solarize=0.3,
        normalize=False,
    )
    (view,) = MultiView(ImageView(config, SPEC))(
        Canvases(canvases), torch.arange(64), seed=0, epoch=0
    )
    assert view.min() >= -1e-6
    assert view.max() <= 1 + 1e-6


@contextmanager
def told(sentence):
    """Shape checkers in a test session refuse some of these first, in words of their own."""
    with pytest.raises((UserError, TypeCheckError)) as caught:
        yield
    if caught.type is UserError:
        assert sentence in str(caught.value)


@pytest.mark.slow
def test_wrong_input_is_told():
    views = MultiView(ImageView(ImageViewConfig(), SPEC))
    good, index = random_canvases(4, 32), torch.arange(4)
    with told("uint8 canvases"):
        views(Canvases(good.float()), index, seed=0, epoch=0)
    with told("[4, 3, 32, 16]"):
        views(Canvases(good[..., :16]), index, seed=0, epoch=0)
    with told("index has shape [3] for 4 samples"):
        views(Canvases(good), index[:3], seed=0, epoch=0)
    with told("aspect has shape [1] for 4 canvases"):
        views(Canvases(good, torch.ones(1)), index, seed=0, epoch=0)
    with told("no views"):
        MultiView()
