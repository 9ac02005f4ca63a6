"""What is seen in the images themselves, and what of a recipe it decides."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from similitude.images.image_set import ImageSet
from similitude.images.views import PatchViewConfig, image_views
from similitude.recipes.recipe import Recipe, because

LOOKED_AT = 500  # images
FEWEST = 80  # below, chance alone reaches the limits that follow
GRID = 8  # cells of a side, of which brightness and contrast are compared
# Squared mean over variance of the differences between a picture and its mirror, over cells: photos
# of scenes and things have 0.04 and more from top to bottom, cells under a microscope and steel
# 0.012 at most, of 100 to 500 pictures each.
SYMMETRIC = 0.02
# Log ratio of horizontal to vertical edges, mean over deviation: cells 0.1, steel, which is rolled
# in one direction, 0.4, photos 0.4 to 1.3. Its deviation: cells 0.14, since each has edges in all
# directions; photos 0.46 to 1.2, also those of one kind of bird, which pass all other limits.
UNDIRECTED = 0.2
ROUND = 0.25
STRONG_JITTER = (0.8, 0.8, 0.8, 0.2)  # SimCLR's on ImageNet (Chen et al. 2020, App. A)


@dataclass(frozen=True)
class Looks:
    """What is seen in some of the pictures.

    Attributes:
        gray: all their channels are equal.
        upright: they have an upper side, or a direction: turned, they would look different.
    """

    gray: bool
    upright: bool


def look_at(images: ImageSet) -> Looks:
    """Look at some of the images, evenly spread over all; too few say nothing of an upper side."""
    pixels = images.spread(LOOKED_AT).pixels[:]
    gray = bool((pixels == pixels[:, :1]).all())
    light = pixels.float().mean(dim=1) / torch.iinfo(pixels.dtype).max
    if len(pixels) < FEWEST:
        return Looks(gray, True)
    return Looks(gray, not (_is_symmetric(light) and _is_undirected(light)))


def _is_symmetric(light: Float[Tensor, "N S S"]) -> bool:
    """Whether mirrors and turns leave the pictures, taken together, as they are."""
    smooth = F.avg_pool2d(light[:, None], 5, stride=1, padding=2)[:, 0]
    contrast = _cells((light - smooth).square()).clamp_min(1e-8).log()
    return all(
        _effect(cells - turned) < SYMMETRIC
        for cells in (_cells(light), contrast)
        for turned in (cells.flip(1), cells.flip(2), cells.transpose(1, 2))
    )


def _cells(planes: Float[Tensor, "N S S"]) -> Float[Tensor, "N G G"]:
    return F.adaptive_avg_pool2d(planes[:, None], GRID)[:, 0]


def _effect(differences: Float[Tensor, "N G G"]) -> float:
    """Mean over cells of squared mean over variance, less what chance makes of N pictures."""
    mean, std = differences.mean(dim=0), differences.std(dim=0).clamp_min(1e-6)
    return (mean / std).square().mean().item() - 1 / len(differences)


def _is_undirected(light: Float[Tensor, "N S S"]) -> bool:
    across = light.diff(dim=2).square().mean(dim=(1, 2)).clamp_min(1e-8)
    down = light.diff(dim=1).square().mean(dim=(1, 2)).clamp_min(1e-8)
    ratio = (across / down).log()
    mean, std = ratio.mean().abs().item(), max(ratio.std().item(), 1e-6)
    return mean < UNDIRECTED * std and std < ROUND


def choose_looks(recipe: Recipe, images: ImageSet, given: Collection[str] = ()) -> Recipe:
    """Turns and strong colors where pictures have no upper side; no color where there is none.

    Pictures that look alike whichever side is up are taken from above or through a microscope: what
    differs between two sets of them is the light and the stain.

    Args:
        recipe: the views are chosen.
        images: some of which are looked at.
        given: fields that stay as they are, e.g. "method.view.turn".
    """
    looks = look_at(images)
    if looks.upright and not looks.gray:
        return recipe
    for name, view in image_views(recipe.method.view_configs).items():
        where = f"method.{name}"
        # the patches of an image lie above each other
        if isinstance(view, PatchViewConfig) or where in given:
            continue
        jitter, why = view.jitter, ""
        if not looks.upright:
            if f"{where}.turn" not in given:
                turned = "these pictures look alike whichever side is up"
                recipe = because(recipe, turned, **{f"{where}.turn": 0.75})
            if view.jitter_probability > 0:
                strong = STRONG_JITTER if images.channels == 3 else (*STRONG_JITTER[:2], 0.0, 0.0)
                jitter = tuple(map(max, jitter, strong))
                why = "light and stain differ where these come from"
        if looks.gray:
            jitter, why = (*jitter[:2], 0.0, 0.0), "these pictures are gray"
            if f"{where}.grey" not in given:
                recipe = recipe.with_value(f"{where}.grey", 0.0)
        if why and f"{where}.jitter" not in given:
            recipe = because(recipe, why, **{f"{where}.jitter": jitter})
    return recipe


def choose_normalization(recipe: Recipe, images: ImageSet, given: Collection[str] = ()) -> Recipe:
    """Mean and standard deviation of the pixels, unless one of them is given."""
    if {"mean", "std"} & set(given):
        return recipe
    few = images.pixels[:: max(1, len(images) // 2000)]
    few = few.float() / torch.iinfo(few.dtype).max
    mean = few.mean(dim=(0, 2, 3)).tolist()
    std = few.std(dim=(0, 2, 3)).clamp_min(0.05).tolist()  # an all-black channel has none
    measured = {"mean": [round(m, 4) for m in mean], "std": [round(s, 4) for s in std]}
    return because(recipe, "measured on these images", **measured)
