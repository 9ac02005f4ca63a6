"""The trainings of a decision: without labels, and on labels; stored, resumed, never twice."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from similitude.decision.parts import Parts
from similitude.decision.plan import too_short
from similitude.errors import UserError
from similitude.listener import Listener
from similitude.method import Method
from similitude.methods import build_method
from similitude.modalities import chooser as chooser_of
from similitude.nets.start import Start
from similitude.recipes import Recipe, touched_fields
from similitude.recipes.choose import Chooser, Surroundings, set_num_samples
from similitude.recipes.duration import FEWEST_ADAPTING, seconds_per_step
from similitude.runs.checkpoint import load_checkpoint
from similitude.runs.folder import CHECKPOINT, training_in
from similitude.runs.run import Run
from similitude.sample import DataConfig, Samples
from similitude.training.choose import choose
from similitude.training.pretrain import train
from similitude.training.request import PretrainRequest
from similitude.transfer.classifier import Classifier, is_classifier
from similitude.transfer.network import ClassifierNetwork
from similitude.transfer.recipes import FinetuneRecipe, as_tuned, choose_finetuning, mild_view
from similitude.transfer.training import train_on_labels

FEWEST_TUNING = 100  # steps of a training on labels
AGAIN = "the same command goes on"


@dataclass(frozen=True)
class Chosen:
    """A recipe, and how many samples its minutes allow."""

    recipe: Recipe
    samples: int


@dataclass(frozen=True)
class Trainings:
    """Trains into the folders of one decision.

    Attributes:
        parts: What is learned from.
        around: How many samples there are, and the machine.
        settings: Of all of them, as ``--set`` takes them.
        seed: Of everything.
        listener: Hears how it goes.
    """

    parts: Parts
    around: Surroundings
    settings: tuple[str, ...]
    seed: int
    listener: Listener

    @property
    def chooser(self) -> Chooser:
        """What chooses recipes for such data."""
        return chooser_of(self.parts.modality.kind)

    def choose(self, minutes: float, start: Start | None = None) -> Chosen:
        """The recipe of a training without labels in so many minutes."""
        request = PretrainRequest(
            None, minutes=minutes, seed=self.seed, init=start, overrides=self.settings
        )
        recipe = choose(request, self.chooser, self.around, start)
        steps = self.steps_in(recipe, minutes)
        # where an epoch takes longer than the minutes, it is one of fewer samples
        most = min(self.around.num_samples, max(1, int(steps)) * recipe.batch_size)
        recipe = choose(request, self.chooser, replace(self.around, num_samples=most), start)
        return Chosen(self.chooser.settle(recipe, self.parts.pool), most)

    def steps_in(self, recipe: Recipe, minutes: float) -> float:
        """How many steps fit into so many minutes."""
        return 60 * minutes / seconds_per_step(recipe, self.around.device)

    def pretrained(
        self,
        folder: Path,
        chosen: Chosen,
        minutes: float,
        start: Start | None,
        is_tested: Callable[[Samples[Any], DataConfig], Bool[Tensor, " N"]],
    ) -> Run | None:
        """A run without labels; None if Ctrl-C stopped it.

        Args:
            folder: Of the run; one that is there is read or goes on.
            chosen: The recipe, which for random weights fits the samples already.
            minutes: For the training.
            start: Published weights to go on from.
            is_tested: Tells which samples are equal to one of the test.

        Raises:
            UserError: The minutes are too few; a clause says so.
        """
        if (folder / "health.json").exists() and (folder / "embedding.npz").exists():
            return Run(folder)
        recipe = chosen.recipe
        enough = recipe.data.fewest_steps if start is None else FEWEST_ADAPTING
        if (why := too_short(self.steps_in(recipe, minutes), enough, minutes)) is not None:
            raise UserError(why)
        saved = folder.joinpath(*CHECKPOINT).exists()
        checkpoint = load_checkpoint(folder.joinpath(*CHECKPOINT)) if saved else None
        recipe = recipe if checkpoint is None else checkpoint.recipe
        samples = self.parts.load_pool(
            recipe.data,
            chosen.samples,
            self.seed,
            lambda done, total: self.listener.progress("reading", done, total),
        )
        copies = is_tested(samples, recipe.data)
        if bool(copies.any()):
            self.listener.say(
                f"  {int(copies.sum())} {samples.noun} are equal to one of the test: "
                "nothing is pretrained on them"
            )
            samples = samples.subset(~copies)
        if checkpoint is None:
            recipe = set_num_samples(recipe, len(samples))
            if start is not None:
                given = touched_fields(self.settings)
                recipe = self.chooser.fit(recipe, samples, given, pixels=False, views=True)
        with training_in(folder, resume=saved):
            return train(
                samples,
                self.parts.name,
                recipe,
                folder,
                device=self.around.device,
                listener=self.listener,
                checkpoint=checkpoint,
                start=None if start is None else dict(start.state),
                stop_collapsed=True,
                report=False,
                goes_on=AGAIN,
            )

    def tuned(
        self,
        folder: Path,
        method: Method,
        network: Recipe,
        minutes: float,
        *,
        source: str,
        from_scratch: bool,
    ) -> Classifier | None:
        """A network trained on all labels; None if Ctrl-C stopped it.

        One that has learned something begins with the linear probe on its features; else it is
        what ``similitude finetune`` does on the backbone alone.

        Args:
            folder: Of the classifier; one that is there is read or goes on.
            method: Whose backbone it is.
            network: The recipe that built the method.
            minutes: For the training.
            source: What the weights are, in words.
            from_scratch: Whether they are random.

        Raises:
            UserError: The minutes are too few; a clause says so.
        """
        if (folder / "backbone.safetensors").exists():
            return Classifier(folder)
        parts, init = self.parts, network.init
        network = as_tuned(network)
        samples = parts.load(parts.train, network.data)
        chosen = choose_finetuning(network, len(samples), 1.0, from_scratch=from_scratch)
        chosen["probe_first"] = not from_scratch
        recipe = FinetuneRecipe(
            source=source,
            data=parts.name,
            class_names=tuple(parts.class_names),
            from_layer=0,
            view=mild_view(network),
            seed=self.seed,
            network=network,
            from_scratch=from_scratch,
            **chosen,
        )
        counted = recipe.training.changed(init=init)
        if samples.seen_together:  # a step of a few costs what one of all does
            counted = counted.changed(batch_size=self.parts.pool_size)
        steps = 2 * self.steps_in(counted, minutes)  # of one view, where learning has two
        if (why := too_short(steps, FEWEST_TUNING, minutes)) is not None:
            raise UserError(why)
        fitting = max(1, int(steps) // max(1, len(samples) // recipe.batch_size))
        if fitting < recipe.epochs:
            warmup = min(recipe.optimizer.warmup_epochs, fitting / 10)
            recipe = recipe.changed(
                epochs=fitting,
                optimizer=recipe.optimizer.changed(warmup_epochs=warmup),
                reasons=recipe.reasons | {"epochs": f"as many as fit into {minutes:.2g} minutes"},
            )
        saved = folder.joinpath(*CHECKPOINT).exists() and is_classifier(folder)
        with training_in(folder, resume=saved):
            return train_on_labels(
                ClassifierNetwork(method, 0, len(parts.class_names)),
                samples,
                recipe,
                folder,
                listener=self.listener,
                resume=saved,
                goes_on=AGAIN,
            )


def started_method(recipe: Recipe, start: Start, seed: int) -> Method:
    """The method of a recipe around published weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_method(recipe.method, start.build())
