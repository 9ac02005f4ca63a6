"""How long a run of a recipe takes, counted on one step of it."""

import torch

from similitude.acceleration import backbones_of
from similitude.adapting import freeze_
from similitude.backbones import build_backbone
from similitude.budget import Work, counting, machine
from similitude.distributed import alone, world_size
from similitude.method import Batch, Progress
from similitude.methods import build_method
from similitude.recipes.recipe import Recipe, image_spec

SAMPLES = 4  # at least, of the step that is counted; two for each part of a split BatchNorm
UPDATE = 12.0  # numbers read and written for each weight that an optimizer moves
AROUND = 1.1  # the loss, metrics, measurements and checkpoints


def seconds_per_step(recipe: Recipe, device: torch.device) -> float:
    """About how long one optimizer step takes on this machine, in seconds.

    One small step is counted with the recipe's own method and views, so that target networks,
    local views, patches and frozen layers cost what they do.
    """
    samples, number, weights, pixels = _counted(recipe)
    here = machine(device)
    precision = "bfloat16" if recipe.precision == "bfloat16" else "float32"
    local = recipe.batch_size / world_size()
    # the calls of a step are as many however large its batch; those of micro-batches are not
    batches = local / min(local, recipe.micro_batch_size or local)
    per_sample = samples / number
    work = Work(
        per_sample.dense * local,
        per_sample.depthwise * local,
        per_sample.moved * local + UPDATE * weights,
        samples.calls * batches,
    )
    views = pixels * local / here.float32.pixels
    return AROUND * (here.seconds(work, precision) + views)


def _counted(recipe: Recipe) -> tuple[Work, int, int, float]:
    """Work of a step of so many samples; weights that move; pixels of one sample's views."""
    config = recipe.method
    number = max(SAMPLES, 2 * getattr(config, "bn_splits", 1))
    # memory that takes so many, and no more
    memory = {"num_samples": 2 * number, "queue_length": 4 * number}
    fields = type(config).model_fields
    config = config.model_copy(update={n: v for n, v in memory.items() if n in fields})
    random_state = torch.get_rng_state()
    with alone():
        method = build_method(config, build_backbone(recipe.backbone)).train()
        if recipe.init is not None:
            for backbone in backbones_of(method):
                freeze_(backbone, recipe.init.frozen)
        side = recipe.canvas_size or recipe.image_size
        canvases = torch.randint(0, 256, (number, 3, side, side), dtype=torch.uint8)
        index = torch.arange(number)
        views = method.views(image_spec(recipe))(canvases, index, seed=0, epoch=0)
        with counting(method) as calls:
            method.training_loss(Batch(views, index), Progress(0, 1000, 100))
    torch.set_rng_state(random_state)
    # a canvas is read once for each view, as bytes
    pixels = sum(view[0].numel() / 3 + side**2 / 4 for view in views)
    weights = sum(p.numel() for p in method.parameters() if p.requires_grad)
    return sum(calls, Work()), number, weights, pixels


def in_words(seconds: float) -> str:
    """A duration to about a tenth of it: "40 seconds", "7 minutes", "3.5 hours"."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
