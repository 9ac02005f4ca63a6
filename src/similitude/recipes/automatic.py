"""What is not given is chosen here from the images and the machine, each choice with a reason."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from similitude.acceleration import Arithmetic
from similitude.backbones import PLAIN_RESNETS, BackboneConfig
from similitude.data import ImageSet
from similitude.distributed import world_size
from similitude.listening import Listener
from similitude.method import MethodConfig
from similitude.methods import CONFIGS, make_config
from similitude.methods.barlow_twins import BarlowTwinsBaseConfig
from similitude.recipes import cifar10, imagenet
from similitude.recipes.recipe import Recipe, arithmetic_of
from similitude.trial import CANDIDATES, arithmetic_speeds, compiling
from similitude.views import PatchViewConfig

SMALL_IMAGE = 64  # pixels: up to here the small-image stem and views without blur
SECONDS_ON_CPU = 600  # a first run should end while one waits
MAX_EPOCHS = 200
LONG_RUN = 1800.0  # seconds from which a trial of compiling, of a minute or two, can pay
SLOWEST = 5.0  # images per second: a large network on a small machine
CANVAS_REASON = "an eighth larger than the views, as 256 px is to 224"


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


def choose_recipe(method: str, facts: Facts, batch_size: int | None = None) -> Recipe:
    """A recipe for these images on this machine, without precision and epochs.

    Small images take the CIFAR-10 recipe of the method, large ones its ImageNet recipe. A given
    batch size is kept, and memory and BatchNorm splits are made to fit it.
    """
    side, on_cpu = facts.short_side, facts.device.type == "cpu"
    small = side <= SMALL_IMAGE
    template = _template(method, small)
    update: dict[str, Any] = {}
    reasons: dict[str, str] = {}

    kind = "small" if small else "large"
    reasons["method"] = f"the settings of {method} for {kind} images (median short side {side} px)"
    if small:
        update["image_size"] = max(16, side)
        update["backbone"] = BackboneConfig(
            stem="small", base_width=16 if on_cpu else None, **_of_resnet(template)
        )
        reasons["image_size"] = f"the images' own size, {side} px" + (
            ", enlarged to 16" if side < 16 else ""
        )
        reasons["backbone"] = "a ResNet-18 with the small-image stem" + (
            ", a quarter as wide because there is no accelerator" if on_cpu else ""
        )
    else:
        update["image_size"] = min(side, 96 if on_cpu else 224)
        update["backbone"] = BackboneConfig(
            name="resnet18" if on_cpu else "resnet50", **_of_resnet(template)
        )
        reasons["image_size"] = (
            "small enough for a processor without accelerator" if on_cpu else "as in the papers"
        )
        reasons["backbone"] = "ResNet-18, affordable on a CPU" if on_cpu else "as in the papers"
        update["canvas_size"] = _canvas_size(update["image_size"])
        reasons["canvas_size"] = CANVAS_REASON

    if batch_size is None:
        batch_size = usual = template.batch_size if small else 256
        while batch_size > 8 and batch_size > facts.num_images // 4:
            batch_size //= 2
        batch_size = max(1, batch_size // world_size()) * world_size()  # equal parts
        kind = "many steps in a short run" if small else "the papers' smallest"
        few = f"at most a quarter of {facts.num_images} images"
        reasons["batch_size"] = kind if batch_size == usual else few
    update["batch_size"] = batch_size
    method_config = _fitted(template.method, facts.num_images, batch_size, reasons)
    if not small:
        method_config = _with_local_views(method_config, template, update["image_size"], reasons)
    update["method"] = _with_patches(method_config, template, update["image_size"], reasons)
    sums = isinstance(template.method, BarlowTwinsBaseConfig)  # whose loss is in the thousands
    if sums and on_cpu and not small:
        narrow = {"hidden_dim": 2048, "projection_dim": 2048}
        update["method"] = update["method"].model_copy(update=narrow)
        reasons["method.projection_dim"] = "a quarter as wide because there is no accelerator"
    if not small and batch_size <= 512 and template.optimizer.name == "lars" and not sums:
        # LARS is for batches of thousands; small batches train with plain SGD (SimSiam, Tab. 4).
        sgd = template.optimizer.model_copy(
            update={"name": "sgd", "base_lr": 0.1, "weight_decay": 1e-4, "warmup_epochs": 1}
        )
        update["optimizer"] = sgd
        reasons["optimizer"] = "plain SGD, because the batch is too small for LARS"
    return template.model_copy(update=update | {"reasons": reasons})


def choose_canvas_size(recipe: Recipe, given: Collection[str] = ()) -> Recipe:
    """Canvases that fit the image size, where that is not the one chosen for the images.

    Args:
        recipe: the fields are chosen.
        given: fields that are given, e.g. "image_size".
    """
    chosen_before = recipe.reasons.get("canvas_size") == CANVAS_REASON
    if not chosen_before or "image_size" not in given or "canvas_size" in given:
        return recipe
    return recipe.model_copy(update={"canvas_size": _canvas_size(recipe.image_size)})


def _canvas_size(image_size: int) -> int:
    return round(image_size * 8 / 7)  # as 256 is to 224


def _template(method: str, small: bool) -> Recipe:
    """The recipe of a method; a user's own takes SimCLR's with the method's own defaults."""
    recipes = cifar10 if small else imagenet
    if method in CONFIGS:
        if method == "dino" and not small:  # whose other recipe is a ViT's
            return imagenet.dino_resnet50()
        return getattr(recipes, method)()
    return recipes.simclr().model_copy(update={"method": make_config(method, {})})


def _with_local_views(
    method: MethodConfig, template: Recipe, image_size: int, reasons: dict[str, str]
) -> MethodConfig:
    """Views with a size of their own, as small beside the image as in the template."""
    views = {}
    for name, view in method.view_configs.items():
        if view.size is not None and image_size != template.image_size:
            size = round(view.size * image_size / template.image_size)
            views[name] = view.model_copy(update={"size": size})
            reasons[f"method.{name}.size"] = "as small beside the image size as in the paper"
    return method.model_copy(update=views)


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
    for name, view in method.view_configs.items():
        if isinstance(view, PatchViewConfig) and image_size != template.image_size:
            size = round(view.patch_size * image_size / template.image_size)
            views[name] = view.model_copy(update={"patch_size": max(1, size)})
            reasons[f"method.{name}.patch_size"] = (
                "as small beside the image size as in the method's recipe"
            )
    return method.model_copy(update=views)


def _fitted(
    config: MethodConfig, num_images: int, batch_size: int, reasons: dict[str, str]
) -> MethodConfig:
    """Memory that is not larger than the images, and BatchNorm splits that divide the batch."""
    update: dict[str, int] = {}
    has_queue = getattr(config, "queue", True)  # SimCLR v2 can do without
    queue_length = fitting = getattr(config, "queue_length", 0) if has_queue else 0
    while fitting > num_images // 2:
        fitting //= 2
    if queue_length and (fitting := max(fitting, 2 * batch_size)) != queue_length:
        update["queue_length"] = fitting  # both directions' keys fit
        reasons["method.queue_length"] = (
            f"about half of the {num_images} images, or a key would meet its own older self"
        )
    negatives = fitting = getattr(config, "num_negatives", 0)
    while fitting > num_images:
        fitting //= 2
    if fitting != negatives:
        update["num_negatives"] = fitting
        reasons["method.num_negatives"] = f"not more than the {num_images} images"
    splits = fitting = getattr(config, "bn_splits", 1)
    local = batch_size // world_size()  # each process has samples of every split
    while fitting > 1 and (local % fitting or batch_size // fitting < 2):
        fitting -= 1
    if fitting != splits:
        update["bn_splits"] = fitting
        reasons["method.bn_splits"] = f"the most that a batch of {local} divides into"
    return config.model_copy(update=update)


def view_sizes(recipe: Recipe) -> list[int]:
    """Sides of the views, in pixels; of patches where a view is cut into them."""
    views = recipe.method.view_configs.values()
    return [view.input_side(recipe.image_size) for view in views]


def input_sizes(recipe: Recipe) -> list[int]:
    """Sides of all that the network is given, in training and in evaluation, in pixels."""
    views = recipe.method.view_configs.values()
    in_patches = bool(views) and all(isinstance(view, PatchViewConfig) for view in views)
    return sorted({*view_sizes(recipe), *([] if in_patches else [recipe.image_size])})


def choose_arithmetic(
    recipe: Recipe, facts: Facts, listener: Listener | None = None
) -> tuple[Recipe, float]:
    """Settle precision, memory format and attention by a short trial; also images/s of one view.

    Of the candidates that agree with what the recipe says already the fastest is taken.
    """
    random_state = torch.get_rng_state()
    batch_size = recipe.micro_batch_size or recipe.batch_size // world_size()
    size = max(view_sizes(recipe))
    speeds = arithmetic_speeds(recipe.backbone, size, facts.device, batch_size, listener)
    torch.set_rng_state(random_state)
    found = {name: _fields(CANDIDATES[name]) for name in speeds.images}
    agreeing = [
        name
        for name, fields in found.items()
        if all(getattr(recipe, field) in ("auto", value) for field, value in fields.items())
    ]
    fastest = speeds.fastest(agreeing or list(found))
    update = {f: value for f, value in found[fastest].items() if getattr(recipe, f) == "auto"}
    told = set(update)
    if not any(CANDIDATES[name].plain_attention for name in found):
        told.discard("attention")  # there is none, or no choice
    first, *others = sorted(told, reverse=True) or [""]
    reasons = recipe.reasons | ({first: speeds.reason} if first else {})
    reasons |= dict.fromkeys(others, f"fastest in the same trial as {first}")
    chosen = recipe.model_copy(update={**update, "reasons": reasons})
    return chosen, speeds.images[fastest]


def _fields(arithmetic: Arithmetic) -> dict[str, str]:
    """What a recipe calls it."""
    return {
        "precision": "bfloat16" if arithmetic.dtype == torch.bfloat16 else "float32",
        "memory_format": "channels_last" if arithmetic.channels_last else "contiguous",
        "attention": "plain" if arithmetic.plain_attention else "fused",
    }


def settled(recipe: Recipe) -> Recipe:
    """What is still open becomes what it is without a trial, so that a recipe repeats its run."""
    update: dict[str, Any] = {}
    if recipe.attention == "auto":
        update["attention"] = "fused"
    if recipe.compile == "auto":
        update["compile"] = False
    return recipe.model_copy(update=update)


def may_compile(recipe: Recipe, facts: Facts, images_per_second: float = SLOWEST) -> bool:
    """Whether it is left to choose, and the run is long enough to try; as `choose_compiling`."""
    if recipe.compile != "auto" or world_size() > 1:  # BatchNorm over processes stays as it is
        return False
    return recipe.epochs * epoch_seconds(recipe, facts, images_per_second) >= LONG_RUN


def choose_compiling(
    recipe: Recipe, facts: Facts, images_per_second: float, listener: Listener | None = None
) -> Recipe:
    """Settle by a trial of a minute or two whether compiling the backbone pays in this run.

    Args:
        recipe: everything else is chosen.
        facts: about images and machine.
        images_per_second: of one view, forward and backward, without compiling.
        listener: hears of the trial's progress.
    """
    random_state = torch.get_rng_state()
    found = compiling(
        recipe.backbone,
        arithmetic_of(recipe),
        max(view_sizes(recipe)),
        facts.device,
        recipe.micro_batch_size or recipe.batch_size,
        listener,
    )
    torch.set_rng_state(random_state)
    if found.problem:
        pays, reason = False, found.problem
    else:
        seconds = recipe.epochs * epoch_seconds(recipe, facts, images_per_second)
        gain = seconds * (1 - found.plain / found.compiled) - found.seconds
        pays = gain > 0
        reason = (
            f"{found.compiled:.0f} images/s in a trial here instead of {found.plain:.0f}, for "
            f"{found.seconds:.0f} s at the start"
        )
    reasons = recipe.reasons | {"compile": reason}
    return recipe.model_copy(update={"compile": pays, "reasons": reasons})


def choose_view_sizes(recipe: Recipe, given: Collection[str] = ()) -> Recipe:
    """Views three quarters as large as small images, where the backbone takes images of any size.

    Objects are then about as large in a crop as in the whole images of evaluation.

    Args:
        recipe: everything but views, precision and epochs is chosen.
        given: fields to leave as they are, e.g. "method.view.size".
    """
    if recipe.image_size > SMALL_IMAGE:
        return recipe
    if recipe.backbone.name in PLAIN_RESNETS:
        size, reason = round(0.75 * recipe.image_size), "three quarters of the image size"
    else:
        size, reason = None, "the image size, because the backbone may take no other"
    views, reasons = {}, {}
    largest = max(view_sizes(recipe), default=recipe.image_size)  # local views stay smaller
    for name, view in recipe.method.view_configs.items():
        if isinstance(view, PatchViewConfig):  # crops are of nearly the whole image
            continue
        if not {f"method.{name}", f"method.{name}.size"} & set(given):
            share = (view.size or recipe.image_size) / largest
            if size is None or share == 1:
                side, why = size, reason
            else:
                side, why = round(share * size), "as small beside the global views as in the recipe"
            views[name] = view.model_copy(update={"size": side})
            reasons[f"method.{name}.size"] = why
    return recipe.model_copy(
        update={
            "method": recipe.method.model_copy(update=views),
            "reasons": recipe.reasons | reasons,
        }
    )


def choose_epochs(recipe: Recipe, facts: Facts, images_per_second: float) -> Recipe:
    """As many epochs as fit in ten minutes on a CPU; the papers' order of size elsewhere.

    Args:
        recipe: everything else is chosen.
        facts: about images and machine.
        images_per_second: of one view, or of one patch, forward and backward.
    """
    if facts.device.type != "cpu":
        reason = "usual for the number of images and an accelerator"
        epochs = MAX_EPOCHS
    else:
        seconds = epoch_seconds(recipe, facts, images_per_second)
        epochs = min(MAX_EPOCHS, max(1, round(SECONDS_ON_CPU / seconds)))
        minutes = epochs * seconds / 60
        reason = f"about {minutes:.0f} minutes here at an estimated {seconds:.1f} s per epoch"
    return recipe.model_copy(
        update={"epochs": epochs, "reasons": recipe.reasons | {"epochs": reason}}
    )


def epoch_seconds(recipe: Recipe, facts: Facts, images_per_second: float) -> float:
    """About how long an epoch takes; arguments as for :func:`choose_epochs`."""
    views = recipe.method.view_configs
    local = views.pop("local_view", None)
    inputs: float = max(2, sum(view.inputs for view in views.values()))
    if local is not None:  # several small ones, each at the price of its area
        share = (local.size or recipe.image_size) / max(view_sizes(recipe))
        inputs += share**2 * getattr(recipe.method, "local_views", 1)
    # and what is around them
    return 1.1 * inputs * facts.num_images / (images_per_second * world_size())


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
    return recipe.model_copy(update=update)


def set_num_samples(recipe: Recipe, num_images: int) -> Recipe:
    """Tell a method that keeps something of every image how many there are."""
    if getattr(recipe.method, "num_samples", num_images) == num_images:
        return recipe
    return recipe.model_copy(
        update={
            "method": recipe.method.model_copy(update={"num_samples": num_images}),
            "reasons": recipe.reasons | {"method.num_samples": "the number of images"},
        }
    )


def shorten_warmup(recipe: Recipe) -> Recipe:
    """Warm up for a tenth of the run at most; the templates' warm-ups are for long runs."""
    optimizer, longest = recipe.optimizer, recipe.epochs / 10
    if optimizer.warmup_epochs <= longest:
        return recipe
    reason = f"a tenth of {recipe.epochs} epochs, less than the usual {optimizer.warmup_epochs:g}"
    return recipe.model_copy(
        update={
            "optimizer": optimizer.model_copy(update={"warmup_epochs": longest}),
            "reasons": recipe.reasons | {"optimizer.warmup_epochs": reason},
        }
    )
