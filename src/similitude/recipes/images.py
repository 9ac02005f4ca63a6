"""Recipes for images: every choice with its reason."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from similitude.distributed import world_size
from similitude.errors import UserError
from similitude.images.backbones import PLAIN_RESNETS, BackboneConfig, check_input, check_name
from similitude.images.config import SMALL_IMAGE
from similitude.images.loading import load_images
from similitude.images.source import ImageSource
from similitude.images.views import image_views
from similitude.methods import make_config
from similitude.recipes import RECIPES
from similitude.recipes.arithmetic import choose_arithmetic
from similitude.recipes.choose import Chooser, Surroundings, set_num_samples, with_views
from similitude.recipes.duration import default_minutes, seconds_per_step
from similitude.recipes.looks import choose_looks, choose_normalization
from similitude.recipes.recipe import Recipe, because
from similitude.recipes.rehearsal import check_batchnorm
from similitude.recipes.sizes import (
    canvas_size_of,
    choose_canvas_size,
    choose_view_sizes,
    image_data,
    input_sizes,
    scale_patches,
    scale_views,
)

TINY_IMAGE = 40  # pixels: up to here a narrow network affords the small-image stem
MANY_IMAGES = 50_000  # from here, and on an accelerator, the papers' settings pay
MANY_STEPS = 10_000  # worth more than a wider network or larger views, up to here
CANVAS_REASON = "an eighth larger than the views, as 256 px is to 224"


class Rung(NamedTuple):
    """A network and the size of its images; each costs two to four times the one before."""

    image_size: int  # pixels
    backbone: str
    base_width: int | None

    def of(self, recipe: Recipe, side: int) -> Recipe:
        """The recipe with this network, for images of ``side`` pixels."""
        size = min(self.image_size, side)
        return recipe.changed(
            image_size=size,
            canvas_size=canvas_size_of(size),
            backbone=recipe.backbone.changed(name=self.backbone, base_width=self.base_width),
        )


LADDER = (
    Rung(64, "resnet18", 16),
    Rung(64, "resnet18", 32),
    Rung(96, "resnet18", 32),
    Rung(96, "resnet18", None),
    Rung(160, "resnet18", None),
    Rung(224, "resnet50", None),
)


@dataclass(frozen=True)
class ImageSurroundings(Surroundings):
    """Those of images, with what they are decoded to."""

    channels: int = 3


def choose_recipe(
    method: str,
    around: Surroundings,
    batch_size: int | None = None,
    minutes: float | None = None,
    *,
    own_backbone: bool = False,
) -> Recipe:
    """A recipe for these images on this machine, without precision and epochs.

    Many images on an accelerator take the papers' settings; tiny images the CIFAR-10 recipe of the
    method; all others its small recipe, with the largest network that gets thousands of steps. A
    given batch size is kept, and memory and BatchNorm splits are made to fit it.

    Args:
        method: whose recipe.
        around: the images and the machine.
        batch_size: given by the user.
        minutes: that the training may take; see :func:`duration.choose_epochs`.
        own_backbone: whether the user names the network, so that none is looked for.
    """
    on_cpu, many = around.device.type == "cpu", around.num_samples >= MANY_IMAGES
    as_published = many and not on_cpu
    if around.short_side <= (SMALL_IMAGE if as_published else TINY_IMAGE):
        return _for_tiny_images(method, around, batch_size)
    if as_published:
        return _as_published(method, around, batch_size)
    ladder = LADDER[:1] if own_backbone else LADDER
    return _for_small_data(method, around, batch_size, minutes, ladder)


def for_short_runs(method: str, around: Surroundings, batch_size: int | None) -> Recipe:
    """The method's small recipe with a batch that fits the images."""
    recipe = template(method, "small")
    why = f"the settings of {method} for few images and short runs"
    recipe = because(recipe, why, method=recipe.method)
    return with_batch_size(recipe, around, batch_size, "many steps")


def _for_small_data(
    method: str,
    around: Surroundings,
    batch_size: int | None,
    minutes: float | None,
    ladder: Sequence[Rung],
) -> Recipe:
    """The method's small recipe, with the largest network that gets many steps."""
    chosen, usual = for_short_runs(method, around, batch_size), template(method, "small")
    minutes = minutes or default_minutes(around.device)
    side = max(16, around.short_side)
    first, *larger = (scale_views(rung.of(chosen, side), usual) for rung in ladder)
    found, why = first, "small: steps count before size where images are few"
    for candidate in larger:
        network = candidate.backbone.build()
        timed = choose_arithmetic(candidate, network, around.device)
        if 60 * minutes / seconds_per_step(timed, around.device) < MANY_STEPS:
            break
        found, why = candidate, f"the largest with {MANY_STEPS:,} steps in {minutes:g} minutes"
    found = because(found, why, image_size=image_data(found).image_size, backbone=found.backbone)
    return because(found, CANVAS_REASON, canvas_size=image_data(found).canvas_size)


def _for_tiny_images(method: str, around: Surroundings, batch_size: int | None) -> Recipe:
    """The method's CIFAR-10 recipe, at the images' own size."""
    side, on_cpu = around.short_side, around.device.type == "cpu"
    usual = template(method, "cifar10")
    why = f"the settings of {method} for small images (median short side {side} px)"
    chosen = because(usual, why, method=usual.method)
    why = f"the images' own size, {side} px" + (", enlarged to 16" if side < 16 else "")
    chosen = because(chosen, why, image_size=max(16, side))
    width = ", a quarter as wide because there is no accelerator" if on_cpu else ""
    network = BackboneConfig(stem="small", base_width=16 if on_cpu else None, **_of_resnet(usual))
    why = f"a ResNet-18 with the small-image stem{width}"
    chosen = because(chosen, why, backbone=network)
    chosen = with_batch_size(chosen, around, batch_size, "many steps in a short run")
    return scale_patches(chosen, usual)


def _as_published(method: str, around: Surroundings, batch_size: int | None) -> Recipe:
    """The method's ImageNet recipe, at a batch that one accelerator takes."""
    usual = template(method, "imagenet")
    side = around.short_side
    why = f"the settings of {method} for large images (median short side {side} px)"
    chosen = because(usual, why, method=usual.method)
    network = BackboneConfig(name="resnet50", **_of_resnet(usual))
    size = min(side, 224)
    chosen = because(chosen, "as in the papers", image_size=size, backbone=network)
    chosen = because(chosen, CANVAS_REASON, canvas_size=canvas_size_of(size))
    chosen = with_batch_size(chosen, around, batch_size, "the papers' smallest", usual=256)
    chosen = scale_views(chosen, usual)
    is_lars = usual.optimizer.name == "lars" and not chosen.method.keeps_lars
    if chosen.batch_size <= 512 and is_lars:
        # LARS is for batches of thousands; small batches train with plain SGD (SimSiam, Tab. 4).
        sgd = {"name": "sgd", "base_lr": 0.1, "weight_decay": 1e-4, "warmup_epochs": 1}
        why = "plain SGD, because the batch is too small for LARS"
        chosen = because(chosen, why, optimizer=usual.optimizer.changed(**sgd))
    return chosen


def with_batch_size(
    recipe: Recipe, around: Surroundings, given: int | None, why: str, usual: int | None = None
) -> Recipe:
    """The recipe with the given batch size, or the usual one, halved to a quarter of the images.

    Memory and the parts of BatchNorm are made to fit it.

    Args:
        recipe: everything but memory is chosen.
        around: the images and the machine.
        given: by the user.
        why: the reason of the usual one.
        usual: by default the recipe's.
    """
    size = usual = usual or recipe.batch_size
    if given is None:
        while size > 8 and size > around.num_samples // 4:
            size //= 2
        size = max(1, size // world_size()) * world_size()  # equal parts
        few = f"at most a quarter of {around.num_samples} images"
        recipe = because(recipe, why if size == usual else few, batch_size=size)
    else:
        recipe = recipe.changed(batch_size=given)
    fitted = recipe.method.fitted(around.num_samples, recipe.batch_size, world_size())
    for name, (value, reason) in fitted.items():
        recipe = because(recipe, reason, **{f"method.{name}": value})
    return recipe


def template(method: str, data: str) -> Recipe:
    """The recipe of a method; one without a recipe here takes SimCLR's, with its own defaults."""
    name = f"{data}.{method}"
    if name not in RECIPES:
        usual = RECIPES[f"{data}.simclr"]()
        view = next(iter(usual.method.view_configs.values()))
        return usual.changed(method=with_views(make_config(method, {}), view))
    # where the paper's own network is no ResNet
    return RECIPES.get(f"{name}_resnet50", RECIPES[name])()


def _of_resnet(usual: Recipe) -> dict[str, Any]:
    """What a method wants of any ResNet: its blocks' start, and its kind of normalization."""
    backbone = usual.backbone
    if not isinstance(backbone, BackboneConfig) or backbone.name not in PLAIN_RESNETS:
        return {}
    # CPC's patches must not share statistics
    options = {name: v for name, v in backbone.options.items() if name == "norm_layer"}
    return {"zero_init_last": backbone.zero_init_last, "options": options}


class Images(Chooser):
    """What :mod:`similitude.training.choose` asks about images."""

    def surroundings(
        self, source: ImageSource, num_samples: int | None = None
    ) -> ImageSurroundings:
        """The sides of some of the images, from their headers."""
        sizes = source.probe_sizes()
        if not sizes:  # no header can be read: decoding says why, or gets further than the headers
            sizes = [(load_images(source).size,) * 2]
        sides = [min(size) for size in sizes]
        around = Surroundings.of(source, sides, num_samples)
        return ImageSurroundings(**vars(around), channels=source.channels)

    def choose(
        self,
        method: str,
        around: Surroundings,
        batch_size: int | None = None,
        minutes: float | None = None,
        *,
        own_network: bool = False,
    ) -> Recipe:
        """See :func:`choose_recipe`."""
        recipe = choose_recipe(method, around, batch_size, minutes, own_backbone=own_network)
        channels = around.channels if isinstance(around, ImageSurroundings) else 3
        return recipe if channels == 3 else because(recipe, "the images' own", channels=channels)

    def adapt(
        self, method: str, around: Surroundings, start: Any, batch_size: int | None = None
    ) -> Recipe:
        """See :func:`choose_adapting`."""
        from similitude.recipes.adapting import choose_adapting

        return choose_adapting(method, around, start, batch_size)

    def started(self, recipe: Recipe, start: Any) -> Recipe:
        """See :func:`starting_from`."""
        from similitude.recipes.adapting import starting_from

        return starting_from(recipe, start)

    def evaluated_as_trained(self, recipe: Recipe) -> Recipe:
        """With images as large as the largest view, where views have a size of their own."""
        views = image_views(recipe.method.view_configs).values()
        sides = [view.size for view in views if view.size is not None]
        return recipe.changed(image_size=max(sides)) if sides else recipe

    def better_start(self, recipe: Recipe, num_samples: int) -> str | None:
        """See :func:`adapting.better_start`."""
        from similitude.recipes.adapting import better_start

        return better_start(recipe, num_samples)

    def any_recipe(self) -> Recipe:
        """One whose data fields are those of all."""
        return RECIPES["small.simclr"]()

    def settle(self, recipe: Recipe, source: ImageSource) -> Recipe:
        """With the range of deep pictures, where it was measured.

        Raises:
            UserError: the source decodes other channels or another depth.
        """
        data = image_data(recipe)
        if (source.channels, source.depth) != (data.channels, data.depth):
            wanted = data if (source.channels, source.depth) == (3, 8) else source
            raise UserError(
                f"{source.name} gives {source.channels} channels of {source.depth} bits, and the "
                f"recipe says {data.channels} of {data.depth}: give --set channels="
                f"{wanted.channels} --set depth={wanted.depth}"
            )
        if image_data(recipe).value_range is not None or source.values is None:
            return recipe
        return because(recipe, "measured on these pictures", value_range=source.values)

    def to_fit(self, recipe: Recipe, around: Surroundings) -> Recipe:
        """With a network of as many channels, and views that do without colors where none are."""
        data = image_data(recipe)
        recipe = recipe.with_value("backbone.channels", data.channels)
        if data.depth == 16 and recipe.precision == "auto":
            why = "bfloat16 would keep 8 of the 16 bits"
            recipe = because(recipe, why, precision="float32")
        if data.channels == 3:
            return recipe
        why = f"hue, saturation and gray are of three channels, and there are {data.channels}"
        for name, view in image_views(recipe.method.view_configs).items():
            without = {f"method.{name}.{field}": v for field, v in view.of_colors.items()}
            recipe = because(recipe, why, **without)
        return recipe

    def network(self, name: str, beside: Recipe, *, keep: bool = False) -> BackboneConfig:
        """The network of this name, with the stem and norms of that of a recipe."""
        check_name(name)
        other = beside.backbone
        assert isinstance(other, BackboneConfig)
        if keep and name == other.name:
            return other
        if name not in PLAIN_RESNETS:
            return BackboneConfig(name=name, channels=other.channels)
        # Only plain ResNets have a small-image stem, and a normalization that one may choose.
        options = {k: v for k, v in other.options.items() if k == "norm_layer"}
        own = {"channels": other.channels, "stem": other.stem, "options": options}
        return BackboneConfig(name=name, **own)

    def sizes(self, recipe: Recipe, given: Collection[str], *, views: bool) -> Recipe:
        """Canvases and, unless they are given, views that fit the image size."""
        recipe = choose_canvas_size(recipe, given)
        return choose_view_sizes(recipe, given) if views else recipe

    def check(self, recipe: Recipe, network: nn.Module) -> None:
        """Send an empty image of each size through the network, which is for this check alone."""
        sizes, image_size = input_sizes(recipe), image_data(recipe).image_size
        assert isinstance(recipe.backbone, BackboneConfig)
        for size in sizes:
            evaluated = image_size if image_size in sizes else size
            check_input(network, recipe.backbone, size, evaluated)
        check_batchnorm(recipe)

    def fit(
        self, recipe: Recipe, samples: Any, given: Collection[str], *, pixels: bool, views: bool
    ) -> Recipe:
        """With mean, std, turns and colors that are measured on the decoded images."""
        recipe = set_num_samples(recipe, len(samples))
        if pixels:
            recipe = choose_normalization(recipe, samples, given)
        if views:
            recipe = choose_looks(recipe, samples, given)
        return self.as_used(recipe)

    def as_used(self, recipe: Recipe) -> Recipe:
        """With the mean and std of the facts: the file of a recipe says what is used."""
        facts, data = recipe.facts, image_data(recipe)
        if (facts.mean, facts.std) == (data.mean, data.std):
            return recipe
        return because(recipe, "the method's views stay in [0, 1]", mean=facts.mean, std=facts.std)


CHOOSER = Images()
