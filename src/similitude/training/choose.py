"""From what is asked for to a recipe: given values, then a named recipe's, then choices."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from similitude.distributed import world_size
from similitude.errors import UserError
from similitude.images.backbones import PLAIN_RESNETS, BackboneConfig, build_backbone, check_input
from similitude.images.image_set import ImageSet
from similitude.images.loading import load_images
from similitude.images.opening import Range
from similitude.images.source import ImageSource
from similitude.images.tiles import cut_into_tiles
from similitude.method import Method, MethodConfig
from similitude.methods import METHODS, build_method, given_method, name_of
from similitude.nets import convert_sync_batchnorm
from similitude.recipes import Recipe, find_recipe, override, with_used_normalization
from similitude.recipes.adapting import better_start, choose_adapting, starting_from
from similitude.recipes.arithmetic import choose_arithmetic
from similitude.recipes.choose import Surroundings, choose_recipe
from similitude.recipes.duration import choose_epochs, shorten_warmup
from similitude.recipes.looks import choose_looks, choose_normalization, set_num_samples
from similitude.recipes.rehearsal import check_batchnorm
from similitude.recipes.sizes import choose_canvas_size, choose_view_sizes, input_sizes
from similitude.runs.starts import Start
from similitude.training.request import PretrainRequest

DEFAULT_METHOD = "simclr"


def by_name(request: PretrainRequest) -> PretrainRequest:
    """The request with a class or an object in the form that a recipe can hold.

    Raises:
        UserError: there is no such method, or what is asked of an object contradicts it.
    """
    method = request.method
    if isinstance(method, Method):
        touched = any(f.startswith(("method", "backbone")) for f in request.overridden)
        if request.backbone is not None or touched:
            raise UserError(
                "a method that is given as an object has its backbone and settings already: leave "
                "out backbone and what --set says of method and backbone"
            )
        if request.init is not None:
            raise UserError("a method that is given as an object has its weights: leave out --init")
        config, kind = method.config, type(method)
        name = config.name if METHODS.get(config.name) is kind else name_of(kind)
        named = config.model_copy(update={"name": name})
        return replace(request, method=named, backbone=_origin(method))
    if isinstance(method, MethodConfig):
        given_method(method.name)
        return request
    return request if method is None else replace(request, method=given_method(method))


def _origin(method: Method) -> BackboneConfig:
    """What the backbone of an object was built from."""
    for module in method.backbone.modules():
        if isinstance(config := getattr(module, "built_from", None), BackboneConfig):
            return config
    raise UserError(
        "the backbone of this method was not made by build_backbone, so a saved run could not make "
        "it again: build it with similitude.build_backbone(BackboneConfig(...)), or give backbone"
    )


def surroundings(source: ImageSource, num_images: int | None = None) -> Surroundings:
    """What choices depend on, for so many images of a source on this machine."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = source.probe_sizes()
    if not sizes:  # no header can be read: decoding says why, or gets further than the headers
        sizes = [(load_images(source).size,) * 2]
    count = len(source) if num_images is None else num_images
    return Surroundings(count, [min(size) for size in sizes], device, source.name)


def choose_for(source: ImageSource, num_images: int, **options: Any) -> Recipe:
    """The recipe that a pretraining with these options would have for so many images.

    Only what is measured on decoded images is left open: the normalization and, in methods with a
    slot for each image, their number.
    """
    return choose(PretrainRequest(None, **options), surroundings(source, num_images))


def choose(request: PretrainRequest, around: Surroundings, start: Start | None = None) -> Recipe:
    """The recipe that is asked for, as far as it can be known before images are decoded.

    Args:
        request: see :func:`by_name`.
        around: the images and the machine.
        start: the published weights that it asks for.

    Raises:
        UserError: what is asked for does not go together, or does not fit the images.
    """
    name = method_name(request)
    if request.recipe is not None:
        chosen = named_recipe(request.recipe, name)
        inits = [a for a in request.overrides if a.partition("=")[0] == "init"]
        chosen = override(chosen, inits)
        if chosen.init is not None and start is None:
            raise UserError(
                f"the recipe starts from published weights, {chosen.init.name}, which a recipe "
                f"does not hold: give them with --init, or train without: --set init=null"
            )
        chosen = chosen if start is None else starting_from(chosen, start)
    elif start is not None:
        chosen = choose_adapting(name or DEFAULT_METHOD, around, start, request.batch_size)
    else:
        chosen = choose_recipe(
            name or DEFAULT_METHOD,
            around,
            request.batch_size,
            request.minutes,
            own_backbone=request.backbone is not None,
        )
    given = request.overridden
    if start is not None:
        _refuse_what_start_decides(given)
    chosen = _with_given(chosen, request, start)
    if chosen.batch_size > around.num_images:  # told before any work
        raise too_few_images(around.num_images, around.name, chosen.batch_size)
    if request.recipe is None:
        chosen = choose_canvas_size(chosen, given)
        if start is None and not isinstance(request.method, MethodConfig):
            chosen = choose_view_sizes(chosen, given)
    chosen = choose_arithmetic(chosen, _checked_network(chosen, start), around.device)
    epochs_are_free = request.recipe is None and request.epochs is None and "epochs" not in given
    if epochs_are_free or request.minutes is not None:
        chosen = choose_epochs(chosen, around.num_images, around.device, request.minutes)
    if request.recipe is None and "optimizer.warmup_epochs" not in given:
        chosen = shorten_warmup(chosen)
    return chosen


def choose_views(request: PretrainRequest, around: Surroundings) -> Recipe:
    """The recipe that is asked for, as far as a look at its views needs it."""
    if request.recipe is not None:
        return override(named_recipe(request.recipe, method_name(request)), request.overrides)
    chosen = choose_recipe(method_name(request) or DEFAULT_METHOD, around)
    return choose_view_sizes(override(chosen, request.overrides), request.overridden)


def fit_to_images(
    recipe: Recipe, images: ImageSet, request: PretrainRequest, *, has_start: bool
) -> Recipe:
    """The chosen recipe with what is measured on the decoded images."""
    recipe = set_num_samples(recipe, len(images))
    if request.recipe is None and not has_start:
        recipe = choose_normalization(recipe, images, request.overridden)
    if request.recipe is None and not isinstance(request.method, MethodConfig):
        recipe = choose_looks(recipe, images, request.overridden)
    return with_used_normalization(recipe)


def method_name(request: PretrainRequest) -> str | None:
    """The name of the method that is asked for, if one is."""
    method: Any = request.method
    return method if isinstance(method, str) else getattr(method, "name", None)


def named_recipe(recipe: str | Path | Recipe, method: str | None) -> Recipe:
    """The recipe that the user names, which is for the method that he names, if he does.

    Raises:
        UserError: it is for another method, or there is no such recipe.
    """
    found = recipe if isinstance(recipe, Recipe) else find_recipe(recipe)
    if method not in (None, found.method.name):
        raise UserError(
            f"--method {method} and a recipe for {found.method.name} contradict each other; "
            "give one of them"
        )
    return found


def value_range(recipe: str | Path | Recipe | None) -> Range:
    """How a recipe shows deep pictures; to be measured where it does not say."""
    if recipe is None:
        return "measured"
    found = (recipe if isinstance(recipe, Recipe) else find_recipe(recipe)).value_range
    return "measured" if found is None else found


def in_tiles(
    source: ImageSource, recipe: str | Path | Recipe | None, overrides: Collection[str]
) -> ImageSource:
    """The source, cut into tiles if recipe or overrides say so: all other choices depend on it."""
    sizes = [a for a in overrides if a.partition("=")[0].strip() == "tile_size"]
    if recipe is None and not sizes:
        return source
    # of no recipe any will do
    named = recipe if isinstance(recipe, Recipe) else find_recipe(recipe or "small.simclr")
    tile_size = override(named, sizes).tile_size
    return source if tile_size is None else cut_into_tiles(source, tile_size)


def too_few_images(number: int, name: str, batch_size: int) -> UserError:
    """The sentence on fewer images than a batch holds."""
    advice = "add images"
    if number >= 16:  # a comparison of fewer is none
        fitting = 2 ** max(3, (number // 4).bit_length() - 1)
        advice += f" or use --batch-size {fitting}"
    return UserError(
        f"{number} images in {name} are fewer than one batch of {batch_size}; {advice}"
    )


def start_would_help(recipe: Recipe, num_images: int) -> str | None:
    """A sentence on published weights where they would be better, and would fit."""
    with torch.random.fork_rng(devices=[]):
        network = build_backbone(recipe.backbone)
    names = network.state_dict().keys()
    if _with_little_memory(recipe, network).kept_backbone.state_dict().keys() != names:
        return None
    return better_start(recipe, num_images)


def _with_given(recipe: Recipe, request: PretrainRequest, start: Start | None) -> Recipe:
    """The recipe with the values that are given, whose reasons are gone."""
    given: dict[str, Any] = {
        "method": request.method if isinstance(request.method, MethodConfig) else None,
        "backbone": None if start is not None else _backbone_config(request, recipe),
        "batch_size": request.batch_size,
        "micro_batch_size": request.micro_batch_size,
        "seed": request.seed,
        "epochs": request.epochs,
    }
    given = {field: value for field, value in given.items() if value is not None}
    reasons = {f: r for f, r in recipe.reasons.items() if f.split(".")[0] not in given}
    return override(recipe.changed(**given, reasons=reasons), request.overrides)


def _backbone_config(request: PretrainRequest, chosen: Recipe) -> BackboneConfig | None:
    backbone = request.backbone
    if not isinstance(backbone, str):
        return backbone
    if request.recipe is not None and backbone == chosen.backbone.name:
        return chosen.backbone
    if backbone not in PLAIN_RESNETS:
        return BackboneConfig(name=backbone)
    # Only plain ResNets have a small-image stem, and a normalization that one may choose.
    options = {k: v for k, v in chosen.backbone.options.items() if k == "norm_layer"}
    return BackboneConfig(name=backbone, stem=chosen.backbone.stem, options=options)


def _refuse_what_start_decides(given: Collection[str]) -> None:
    """Refuse settings that published weights have decided already.

    Raises:
        UserError: says which.
    """
    fixed = ("init", "init.name", "init.fingerprint")
    wrong = [field for field in given if field in fixed or field.split(".")[0] == "backbone"]
    if wrong:
        raise UserError(f"--init decides {wrong[0]}: leave --set {wrong[0]} or --init out")


def _checked_network(recipe: Recipe, start: Start | None) -> nn.Module:
    """The backbone, which takes the inputs it will get, and keeps what published weights give.

    Raises:
        UserError: it does not.
    """
    network = build_backbone(recipe.backbone)
    sizes = input_sizes(recipe)
    for size in sizes:
        evaluated = recipe.image_size if recipe.image_size in sizes else size
        check_input(network, recipe.backbone, size, evaluated)
    check_batchnorm(recipe)
    if start is None:
        return network
    method = _with_little_memory(recipe, network)
    if world_size() > 1:
        convert_sync_batchnorm(method)  # says which layers cannot be shared
    if method.kept_backbone.state_dict().keys() != start.state.keys():
        raise UserError(  # as CPC and CMC, which wrap their network
            f"{recipe.method.name} makes a network of its own from the backbone, which the weights "
            f"of {start.name} do not fit: choose another --method, or leave out --init"
        )
    return network


def _with_little_memory(recipe: Recipe, network: nn.Module) -> Method:
    """The method for a look at its networks: its memory may be large."""
    with torch.random.fork_rng(devices=[]):
        return build_method(recipe.method.of_samples(2), network)
