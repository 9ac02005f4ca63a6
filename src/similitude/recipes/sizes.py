"""Sizes of views, patches and canvases, in pixels, that fit each other."""

from collections.abc import Collection

from similitude.images.backbones import PLAIN_RESNETS
from similitude.images.config import SMALL_IMAGE, ImageData
from similitude.images.views import PatchViewConfig, image_views
from similitude.recipes.recipe import Recipe, because


def image_data(recipe: Recipe) -> ImageData:
    """What a recipe for images decides of them."""
    assert isinstance(recipe.data, ImageData)
    return recipe.data


def canvas_size_of(image_size: int) -> int:
    """Pixels that are kept of an image whose views have so many."""
    return round(image_size * 8 / 7)  # as 256 is to 224


def choose_canvas_size(recipe: Recipe, given: Collection[str] = ()) -> Recipe:
    """Canvases that fit the image size, where that is not the one chosen for the images.

    Args:
        recipe: the fields are chosen.
        given: fields that are given, e.g. "image_size".
    """
    chosen_before = "data.canvas_size" in recipe.reasons
    if not chosen_before or "image_size" not in given or "canvas_size" in given:
        return recipe
    return recipe.changed(canvas_size=canvas_size_of(image_data(recipe).image_size))


def scale_views(recipe: Recipe, usual: Recipe) -> Recipe:
    """Views with a size of their own, and patches, as small beside the image as is usual."""
    why = "as small beside the image size as in the paper"
    for name, view in image_views(recipe.method.view_configs).items():
        if view.size is not None and image_data(recipe).image_size != image_data(usual).image_size:
            size = round(view.size * image_data(recipe).image_size / image_data(usual).image_size)
            recipe = because(recipe, why, **{f"method.{name}.size": size})
    return scale_patches(recipe, usual)


def scale_patches(recipe: Recipe, usual: Recipe, side: int | None = None) -> Recipe:
    """Patches as small beside the view as is usual; its side, by default the image's."""
    side = image_data(recipe).image_size if side is None else side
    why = "as small beside the image size as in the method's recipe"
    for name, view in image_views(recipe.method.view_configs).items():
        if isinstance(view, PatchViewConfig) and side != image_data(usual).image_size:
            size = max(1, round(view.patch_size * side / image_data(usual).image_size))
            recipe = because(recipe, why, **{f"method.{name}.patch_size": size})
    return recipe


def view_sizes(recipe: Recipe) -> list[int]:
    """Sides of the views, in pixels; of patches where a view is cut into them."""
    views = image_views(recipe.method.view_configs).values()
    return [view.input_side(image_data(recipe).image_size) for view in views]


def input_sizes(recipe: Recipe) -> list[int]:
    """Sides of all that the network is given, in training and in evaluation, in pixels."""
    views = image_views(recipe.method.view_configs).values()
    in_patches = bool(views) and all(isinstance(view, PatchViewConfig) for view in views)
    return sorted({*view_sizes(recipe), *([] if in_patches else [image_data(recipe).image_size])})


def choose_view_sizes(recipe: Recipe, given: Collection[str] = ()) -> Recipe:
    """Views three quarters as large as small images, where the backbone takes images of any size.

    Objects are then about as large in a crop as in the whole images of evaluation.

    Args:
        recipe: everything but views, precision and epochs is chosen.
        given: fields to leave as they are, e.g. "method.view.size".
    """
    if image_data(recipe).image_size > SMALL_IMAGE or "data.canvas_size" in recipe.reasons:
        return recipe
    if recipe.backbone.name in PLAIN_RESNETS:
        size, reason = (
            round(0.75 * image_data(recipe).image_size),
            "three quarters of the image size",
        )
    else:
        size, reason = None, "the image size, because the backbone may take no other"
    largest = max(
        view_sizes(recipe), default=image_data(recipe).image_size
    )  # local views stay smaller
    for name, view in image_views(recipe.method.view_configs).items():
        if isinstance(view, PatchViewConfig):  # crops are of nearly the whole image
            continue
        if {f"method.{name}", f"method.{name}.size"} & set(given):
            continue
        side, why, share = size, reason, (view.size or image_data(recipe).image_size) / largest
        if size is not None and share != 1:
            side, why = round(share * size), "as small beside the global views as in the recipe"
        recipe = because(recipe, why, **{f"method.{name}.size": side})
    return recipe
