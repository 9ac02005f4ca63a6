"""One small step of a recipe, for what its configuration alone does not tell."""

from collections.abc import Sequence

import torch
from torch import nn

from similitude.distributed import alone, world_size
from similitude.errors import UserError
from similitude.method import Batch, Method, Progress
from similitude.methods import build_method
from similitude.nets.adapting import freeze_
from similitude.nets.precision import backbones_of
from similitude.recipes.recipe import Recipe

BEGINNING = Progress(step=0, total_steps=1000, steps_per_epoch=100)
SAMPLES = 4  # at least; two for each part of a split BatchNorm


def small_step(recipe: Recipe) -> tuple[Method, Batch]:
    """The recipe's own method and views of a few samples, ready for its loss."""
    config = recipe.method
    number = max(SAMPLES, 2 * config.batch_parts)
    config = config.small(2 * number)
    method = build_method(config, recipe.backbone.build()).train()
    if recipe.init is not None:
        for backbone in backbones_of(method):
            freeze_(backbone, recipe.init.frozen)
    rows, index = recipe.data.noise(number), torch.arange(number)
    views = method.views(recipe.facts)(rows, index, seed=0, epoch=0)
    return method, Batch(views, index)


def check_batchnorm(recipe: Recipe) -> None:
    """Refuse micro-batches whose statistics BatchNorm in a backbone cannot take.

    Raises:
        UserError: one of them holds a single image where a layer's maps are of one pixel, or does
            not divide into the splits of the layer.
    """
    micro = recipe.micro_batch_size
    if micro is None or world_size() > 1:  # which share their statistics
        return
    shapes: set[tuple[nn.Module, torch.Size]] = set()
    splits = recipe.method.batch_parts
    advice = f"give --micro-batch-size {_fitting(recipe.batch_size, micro, splits)}"
    with torch.random.fork_rng(devices=[]), alone(), torch.no_grad():
        method, batch = small_step(recipe)
        for backbone in backbones_of(method):
            backbone.register_forward_pre_hook(lambda m, args: shapes.add((m, args[0].shape)))
        method.training_loss(batch, BEGINNING)
        for backbone, shape in list(shapes):
            rows = shape[0] * recipe.batch_size // len(batch.index)
            check_parts(backbone, shape[1:], rows, micro, advice=advice, splits=splits)


def check_parts(
    backbone: nn.Module,
    shape: Sequence[int],
    rows: int,
    micro: int,
    *,
    advice: str,
    splits: int = 1,
) -> None:
    """Refuse so many images of this shape in micro-batches if BatchNorm cannot take each of them.

    Args:
        backbone: which is for this check alone.
        shape: of an image, as the backbone takes it.
        rows: images in a batch.
        micro: images in a micro-batch.
        advice: what to do, for the sentence.
        splits: parts of a micro-batch that have statistics of their own.

    Raises:
        UserError: ends with the advice.
    """
    for part in {min(micro, rows), rows % micro or micro}:
        # as few that are as many to BatchNorm
        few = part if part <= 2 * splits else 2 * splits + part % splits
        try:
            with torch.no_grad():
                backbone.train()(torch.zeros(few, *shape))
        except ValueError as error:
            raise UserError(
                f"micro-batches of {micro} cut the {rows} views of a batch so that BatchNorm gets "
                f"{part}, whose spread it cannot tell ({error}): {advice}"
            ) from error


def _fitting(batch_size: int, micro: int, splits: int) -> int:
    """The nearest micro-batch size of equal parts that give every split two images."""
    sizes = [s for s in range(2 * splits, batch_size + 1, splits) if batch_size % s == 0]
    return min(sizes, key=lambda size: abs(size - micro), default=batch_size)
