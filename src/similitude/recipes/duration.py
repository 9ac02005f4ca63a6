"""How long a run of a recipe takes, counted on one step of it."""

import torch

from similitude.distributed import alone, world_size
from similitude.recipes.budget import Work, counting, machine
from similitude.recipes.recipe import Recipe, because
from similitude.recipes.rehearsal import BEGINNING, small_step

UPDATE = 12.0  # numbers read and written for each weight that an optimizer moves
MINUTES_ON_CPU = 10.0  # a first run should end while one waits
MINUTES_ON_ACCELERATOR = 60.0
FEWEST_ADAPTING = 200  # of a run that starts from published weights
MOST_EPOCHS = 500  # of a chosen run: images seen more often are learned by heart
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
    pixels = recipe.data.view_cost(batch.views)
    weights = sum(p.numel() for p in method.parameters() if p.requires_grad)
    return sum(calls, Work()), len(batch.index), weights, pixels


def in_words(seconds: float) -> str:
    """A duration to about a tenth of it: "40 seconds", "7 minutes", "3.5 hours"."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"


def default_minutes(device: torch.device) -> float:
    """How long a training may take where nobody says it."""
    return MINUTES_ON_CPU if device.type == "cpu" else MINUTES_ON_ACCELERATOR


def choose_epochs(
    recipe: Recipe, num_images: int, device: torch.device, minutes: float | None = None
) -> Recipe:
    """As many epochs as fit into the minutes, at least one and at most 500.

    Args:
        recipe: everything else is chosen.
        num_images: of the data set.
        device: where it will train.
        minutes: of training; None: ten on a CPU, an hour on an accelerator.
    """
    minutes = minutes or default_minutes(device)
    seconds = seconds_per_step(recipe, device)
    per_epoch = max(1, num_images // recipe.batch_size)
    fitting = max(1, int(60 * minutes / (seconds * per_epoch)))
    epochs = min(fitting, MOST_EPOCHS)
    steps = epochs * per_epoch
    reason = (
        f"{steps:,} steps, in about {in_words(steps * seconds)} here: an estimated "
        f"{recipe.batch_size / seconds:.0f} images/s on {machine(device).kind}"
    )
    if epochs < fitting:
        reason += "; with more epochs so few images are learned by heart"
    return because(recipe, reason, epochs=epochs)


def too_few_steps(
    recipe: Recipe, num_images: int, device: torch.device, took: float | None = None
) -> str | None:
    """A sentence where a run ends before it can have learned; None where it does not.

    Args:
        recipe: Of the run.
        num_images: Of the data set.
        device: Where it trains.
        took: Seconds of its steps, where it has ended; else they are estimated.
    """
    per_epoch = max(1, num_images // recipe.batch_size)
    steps = recipe.epochs * per_epoch
    enough = recipe.data.fewest_steps if recipe.init is None else FEWEST_ADAPTING
    if steps >= enough:
        return None
    each = seconds_per_step(recipe, device) if took is None else took / steps
    seconds = enough * each
    return (
        f"{steps:,} steps are too few to learn from: {enough:,} would take --epochs "
        f"{-(-enough // per_epoch)}, about {in_words(seconds)} here"
    )


def shorten_warmup(recipe: Recipe) -> Recipe:
    """Warm up for a tenth of the run at most; the templates' warm-ups are for long runs."""
    usual, longest = recipe.optimizer.warmup_epochs, recipe.epochs / 10
    if usual <= longest:
        return recipe
    reason = f"a tenth of the run, less than the usual {usual:g}"
    return because(recipe, reason, **{"optimizer.warmup_epochs": longest})
