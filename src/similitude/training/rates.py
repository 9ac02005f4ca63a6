"""The optimizer of a run, and its learning rate and weight decay in every step.

Both are functions of the step, so that a run that goes on has them right without remembering.
"""

from typing import Any

import torch

from similitude.distributed.sharding import own_parameter
from similitude.method import Method, Progress
from similitude.nets.adapting import layer_scales, split_by_scale
from similitude.optimizers import OPTIMIZERS
from similitude.recipes import Recipe
from similitude.schedules import cosine, step_decay, warmup_cosine


def learning_rate(recipe: Recipe, progress: Progress) -> float:
    """The rate of one step: base_lr * batch_size / 256, times its schedule."""
    config = recipe.optimizer
    peak = config.base_lr * recipe.batch_size / 256
    fraction = progress.fraction if config.per == "step" else progress.epoch / recipe.epochs
    warmup = min(1.0, config.warmup_epochs / recipe.epochs)
    if fraction < warmup or config.schedule == "cosine":
        start, end = config.warmup_start * peak, config.final_lr * peak
        return warmup_cosine(peak, end, warmup, fraction, start=start)
    if config.schedule == "step":
        return step_decay(peak, config.step_milestones, config.step_factor, fraction)
    return peak  # constant


def weight_decay(recipe: Recipe, progress: Progress) -> float:
    """The weight decay of one step, for groups without one of their own."""
    config = recipe.optimizer
    if config.final_weight_decay is None:
        return config.weight_decay
    return cosine(config.weight_decay, config.final_weight_decay, progress.fraction)


def build_optimizer(method: Method, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over the method's parameter groups."""
    config = recipe.optimizer
    peak = config.base_lr * recipe.batch_size / 256
    options: dict[str, Any] = {"lr": peak, "weight_decay": config.weight_decay}
    if config.name in ("sgd", "lars", "larc"):
        options["momentum"] = config.momentum
    if config.name == "lars":
        options["momentum_style"] = config.lars_momentum
    if config.name == "sgd":
        options["foreach"] = True  # one pass over all tensors instead of one call for each
    groups = method.param_groups()
    if recipe.init is not None and recipe.init.layer_decay < 1:
        groups = split_by_scale(groups, layer_scales(method.backbone, recipe.init.layer_decay))
    for group in groups:
        group["params"] = [own_parameter(parameter) for parameter in group["params"]]
        # Groups without a decay of their own follow the recipe's; see Pretraining.
        group["scheduled_decay"] = "weight_decay" not in group
        group["lr"] = peak * group.setdefault("lr_scale", 1.0)
    return OPTIMIZERS[config.name](groups, **options)
