"""How long a run of a recipe takes, counted on one step of it."""

import torch

from similitude.distributed import alone, world_size
from similitude.recipes.budget import Work, counting, machine
from similitude.recipes.recipe import Recipe
from similitude.recipes.rehearsal import BEGINNING, small_step

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
    random_state = torch.get_rng_state()
    with alone():
        method, batch = small_step(recipe)
        with counting(method) as calls:
            method.training_loss(batch, BEGINNING)
    torch.set_rng_state(random_state)
    # a canvas is read once for each view, as bytes
    side = recipe.canvas_size or recipe.image_size
    pixels = sum(view[0].numel() / 3 + side**2 / 4 for view in batch.views)
    weights = sum(p.numel() for p in method.parameters() if p.requires_grad)
    return sum(calls, Work()), len(batch.index), weights, pixels


def in_words(seconds: float) -> str:
    """A duration to about a tenth of it: "40 seconds", "7 minutes", "3.5 hours"."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
