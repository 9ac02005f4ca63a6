"""From what is asked for to a recipe: given values, then a named recipe's, then choices."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from similitude.distributed import world_size
from similitude.errors import UserError
from similitude.method import SENSORS_NEEDED, Method, MethodConfig
from similitude.methods import (
    METHODS,
    build_method,
    config_class,
    given_method,
    make_config,
    name_of,
)
from similitude.modalities import Modality, chooser, modality, modality_of
from similitude.nets import convert_sync_batchnorm
from similitude.nets.blocks import blocks_of
from similitude.nets.start import Start
from similitude.recipes import Recipe, find_recipe, override, touched_fields
from similitude.recipes.arithmetic import choose_arithmetic
from similitude.recipes.choose import Chooser, Surroundings
from similitude.recipes.duration import choose_epochs, shorten_warmup
from similitude.sample import DataConfig, NetworkConfig
from similitude.training.request import PretrainRequest


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


def _origin(method: Method) -> NetworkConfig:
    """What the backbone of an object was built from."""
    for module in method.backbone.modules():
        if isinstance(config := getattr(module, "built_from", None), NetworkConfig):
            return config
    raise UserError(
        "the backbone of this method was not made by build_backbone, so a saved run could not make "
        "it again: build it with similitude.build_backbone(BackboneConfig(...)), or give backbone"
    )


def kind_for(method: Any, data: Any, recipe: str | Path | Recipe | None = None) -> Modality:
    """The kind of data: that of a recipe, or where a method compares sensors, of several.

    Args:
        method: a name, a class, a config or an object; None where none is given.
        data: what the user gave.
        recipe: that is asked for, if one is.

    Raises:
        UserError: the method compares sensors, and the data is of one.
    """
    if recipe is not None:
        return modality(named_recipe(recipe, None).data.kind)
    kind = modality_of(data)
    name = given_method(method) if isinstance(method, str | type) else getattr(method, "name", None)
    config = None if name is None else config_class(name)
    alone = ("sensors", *(config.compares_parts_of if config else ()))
    if not config or not config.compares_sensors or kind.kind in alone:
        return kind
    if not kind.sensors_of(data):
        shown = data if isinstance(data, str | Path) else "this data"
        raise UserError(f"{name} compares sensors: {SENSORS_NEEDED}; {shown} has {kind.noun} alone")
    return modality("sensors")


def choose_for(modality: Modality, source: Any, num_samples: int, **options: Any) -> Recipe:
    """The recipe that a pretraining with these options would have for so many samples.

    Only what is measured on decoded samples is left open: the normalization and, in methods with a
    slot for each sample, their number.
    """
    around = chooser(modality.kind).surroundings(source, num_samples)
    return choose(PretrainRequest(None, **options), chooser(modality.kind), around)


def choose(
    request: PretrainRequest, chooser: Chooser, around: Surroundings, start: Start | None = None
) -> Recipe:
    """The recipe that is asked for, as far as it can be known before samples are decoded.

    Args:
        request: see :func:`by_name`.
        chooser: of the kind of data.
        around: the samples and the machine.
        start: the published weights that it asks for.

    Raises:
        UserError: what is asked for does not go together, or does not fit the samples.
    """
    name = method_name(request)
    if request.recipe is not None:
        chosen = named_recipe(request.recipe, name)
        inits = [a for a in request.settings if a.partition("=")[0] == "init"]
        chosen = override(chosen, inits)
        if chosen.init is not None and start is None:
            raise UserError(
                f"the recipe starts from published weights, {chosen.init.name}, which a recipe "
                f"does not hold: give them with --init, or train without: --set init=null"
            )
        chosen = chosen if start is None else chooser.started(chosen, start)
    elif start is not None:
        chosen = chooser.adapt(name or chooser.default_method, around, start, request.batch_size)
    else:
        chosen = chooser.choose(
            name or chooser.default_method,
            around,
            request.batch_size,
            request.minutes,
            own_network=request.backbone is not None,
        )
    given = request.overridden
    if start is not None:
        _refuse_what_start_decides(given)
    chosen = chooser.to_fit(_with_given(chosen, request, chooser, start), around)
    if chosen.batch_size > around.num_samples:  # told before any work
        raise too_few_samples(around.num_samples, around.name, chosen.batch_size)
    if request.recipe is None:
        free = start is None and not isinstance(request.method, MethodConfig)
        chosen = chooser.sizes(chosen, given, views=free)
    network = _checked_network(chosen, chooser, start)
    chosen = chosen.changed(method=chosen.method.for_network(network))
    chosen = choose_arithmetic(chosen, network, around.device)
    epochs_are_free = request.recipe is None and request.epochs is None and "epochs" not in given
    if epochs_are_free or request.minutes is not None:
        chosen = choose_epochs(chosen, around.num_samples, around.device, request.minutes)
    if request.recipe is None and "optimizer.warmup_epochs" not in given:
        chosen = shorten_warmup(chosen)
    return chosen


def refuse_other_values(recipe: Recipe, request: PretrainRequest, chooser: Chooser) -> None:
    """Refuse given values that the run of a recipe has otherwise: it goes on with its own.

    What only a new choice could compare (--minutes, --recipe, --init) says nothing any more.

    Raises:
        UserError: says which.
    """
    backbone = request.backbone if recipe.init is None else None
    plain = replace(request, method=None, backbone=backbone, recipe=recipe)
    asked = _with_given(recipe, plain, chooser, None)
    for field in set(Recipe.model_fields) - {"reasons"}:
        if getattr(asked, field) != getattr(recipe, field):
            raise UserError(
                f"the run in {request.out} has another value of {field} than is given now: leave "
                "that option out, or give another --out"
            )


def refuse_what_no_samples_mend(request: PretrainRequest, chooser: Chooser) -> None:
    """Refuse what is wrong whatever the samples are, before any are opened.

    What is looked at depends on no choice: the method's own settings, but not those of its views,
    and the optimizer's; each alone, since two of them may be right together.

    Raises:
        UserError: there is no such field or network, or a value that none of its kind has.
    """
    if request.init is not None:
        _refuse_what_start_decides(request.overridden)
    recipe, method = request.recipe, request.method
    base = chooser.any_recipe() if recipe is None else named_recipe(recipe, method_name(request))
    if isinstance(request.backbone, str) and request.init is None:
        chooser.network(request.backbone, base, keep=recipe is not None)
    if not isinstance(method, MethodConfig):
        name = method_name(request) or (chooser.default_method if recipe is None else None)
        try:
            method = base.method if name in (None, base.method.name) else make_config(name, {})
        except ValidationError:  # one of the user's own that must be given a setting
            return
    base = base.changed(method=method)
    for setting in request.settings:
        first, *rest = setting.partition("=")[0].strip().split(".")
        of_method = first == "method" and not {*rest[:1]} & {*method.view_configs}
        is_known = first in Recipe.model_fields or first in _data_fields(chooser)
        if of_method or first == "optimizer" or not is_known:
            _try(base, setting)


def _try(recipe: Recipe, setting: str) -> None:
    try:
        override(recipe, [setting])
    except UserError as error:
        mistakes = error.__cause__
        if not isinstance(mistakes, ValidationError) or (
            mistakes.errors()[0]["type"] != "value_error"  # of values beside each other
        ):
            raise


def choose_views(request: PretrainRequest, chooser: Chooser, around: Surroundings) -> Recipe:
    """The recipe that is asked for, as far as a look at its views needs it."""
    if request.recipe is not None:
        named = named_recipe(request.recipe, method_name(request))
        return chooser.to_fit(override(named, request.settings), around)
    chosen = chooser.choose(method_name(request) or chooser.default_method, around)
    chosen = chooser.to_fit(override(chosen, request.settings), around)
    return chooser.sizes(chosen, request.overridden, views=True)


def fit_to_samples(
    recipe: Recipe, samples: Any, request: PretrainRequest, chooser: Chooser, *, has_start: bool
) -> Recipe:
    """The chosen recipe with what is measured on the decoded samples."""
    return chooser.fit(
        recipe,
        samples,
        request.overridden,
        pixels=request.recipe is None and not has_start,
        views=request.recipe is None and not isinstance(request.method, MethodConfig),
    )


def opened_with(request: PretrainRequest, chooser: Chooser) -> DataConfig | None:
    """What is said of the data before it is opened; None where nothing is."""
    recipe = request.recipe
    if wrong := request.form.keys() - _data_fields(chooser):
        raise UserError(f"--{min(wrong)} is of images, and this data has none: leave it out")
    said = [a for a in request.settings if touched_fields([a]) & set(_data_fields(chooser))]
    if recipe is None and not said:
        return None
    # of no recipe any will do
    named = chooser.any_recipe() if recipe is None else named_recipe(recipe, None)
    return override(named, said).data


def _data_fields(chooser: Chooser) -> Collection[str]:
    return type(chooser.any_recipe().data).model_fields


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


def too_few_samples(number: int, name: str, batch_size: int) -> UserError:
    """The sentence on fewer samples than a batch holds."""
    advice = "add samples"
    if number >= 16:  # a comparison of fewer is none
        fitting = 2 ** max(3, (number // 4).bit_length() - 1)
        advice += f" or use --batch-size {fitting}"
    return UserError(
        f"{number} samples in {name} are fewer than one batch of {batch_size}; {advice}"
    )


def start_would_help(recipe: Recipe, chooser: Chooser, num_samples: int) -> str | None:
    """A sentence on published weights where they would be better, and would fit."""
    with torch.random.fork_rng(devices=[]):
        network = recipe.backbone.build()
    names = network.state_dict().keys()
    if _with_little_memory(recipe, network).kept_backbone.state_dict().keys() != names:
        return None
    return chooser.better_start(recipe, num_samples)


def _with_given(
    recipe: Recipe, request: PretrainRequest, chooser: Chooser, start: Start | None
) -> Recipe:
    """The recipe with the values that are given, whose reasons are gone."""
    backbone = request.backbone
    if isinstance(backbone, str):
        backbone = chooser.network(backbone, recipe, keep=request.recipe is not None)
    given: dict[str, Any] = {
        "method": request.method if isinstance(request.method, MethodConfig) else None,
        "backbone": None if start is not None else backbone,
        "batch_size": request.batch_size,
        "micro_batch_size": request.micro_batch_size,
        "activation_checkpointing": request.activation_checkpointing or None,
        "seed": request.seed,
        "epochs": request.epochs,
    }
    given = {field: value for field, value in given.items() if value is not None}
    reasons = {f: r for f, r in recipe.reasons.items() if f.split(".")[0] not in given}
    return override(recipe.changed(**given, reasons=reasons), request.settings)


def _refuse_what_start_decides(given: Collection[str]) -> None:
    """Refuse settings that published weights have decided already.

    Raises:
        UserError: says which.
    """
    fixed = ("init", "init.name", "init.fingerprint")
    wrong = [field for field in given if field in fixed or field.split(".")[0] == "backbone"]
    if wrong:
        raise UserError(f"--init decides {wrong[0]}: leave --set {wrong[0]} or --init out")


def _checked_network(recipe: Recipe, chooser: Chooser, start: Start | None) -> nn.Module:
    """The backbone, which takes the inputs it will get, and keeps what published weights give.

    Raises:
        UserError: it does not.
    """
    network = recipe.backbone.build()
    chooser.check(recipe, network)
    if recipe.activation_checkpointing and not blocks_of(network):
        raise UserError(
            f"backbone {recipe.backbone.name!r} has no list of blocks (residual ones, or layers of "
            "a transformer) that could be computed twice: leave out activation_checkpointing"
        )
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
