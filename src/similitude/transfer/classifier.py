"""A classifier's folder: a run whose backbone carries a head and logits.

N images, C classes.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from similitude.errors import UserError
from similitude.evaluation import Features, extract_features
from similitude.files.reading import MAX_NAMES, read_yaml
from similitude.files.writing import as_path
from similitude.listener import Listener, Silent
from similitude.nets.precision import computing
from similitude.nets.weights import load_strictly
from similitude.recipes import Recipe, arithmetic_of, validated
from similitude.runs.folder import settle
from similitude.runs.metrics import Metrics, read_metrics
from similitude.runs.run import Run
from similitude.sample import Samples
from similitude.transfer.network import ClassifierNetwork, build_network
from similitude.transfer.recipes import DistillRecipe, FinetuneRecipe

_KINDS: dict[str, type[FinetuneRecipe] | type[DistillRecipe]] = {
    "finetune": FinetuneRecipe,
    "distill": DistillRecipe,
}


class Predictions(NamedTuple):
    """What a classifier says of images.

    Attributes:
        names: of the images.
        classes: name of the most probable class of each.
        probabilities: of all classes, in the order of ``Classifier.class_names``.
    """

    names: list[str]
    classes: list[str]
    probabilities: Float[Tensor, "N C"]


class Classifier(Run):
    """A folder written by :func:`similitude.finetune` or :func:`similitude.distill`.

    Everything a :class:`Run` does with its backbone works here too.

    Raises:
        UserError: there is no such folder, or no classifier in it.
    """

    @cached_property
    def transfer(self) -> FinetuneRecipe | DistillRecipe:
        """How it was made: the content of recipe.yaml."""
        return read_transfer(self.path)

    @property
    def pretraining(self) -> Recipe:
        """That of the run that was fine-tuned, or of the student."""
        return self.transfer.network

    @property
    def labeled_stage(self) -> str:
        """What came after the pretraining, in words."""
        if isinstance(self.transfer, DistillRecipe):
            return "trained on what a classifier says of images"
        return f"fine-tuned on labels of {len(self.class_names)} classes"

    @property
    def learned_without_labels(self) -> bool:
        """Whether there was a pretraining, not random or published weights alone."""
        init = self.transfer.network.init
        straight = init is not None and init.name == self.transfer.source
        return not (straight or getattr(self.transfer, "from_scratch", False))

    @property
    def labeled_settings(self) -> dict[str, Any]:
        """The recipe of the training on labels, without the network's and without paths."""
        told = {"network", "source", "data", "reasons"}
        return self.transfer.model_dump(mode="json", exclude=told)

    @property
    def split_seed(self) -> int:
        """The seed of the pretraining: what fine-tuning held out stays held out."""
        return self.transfer.network.seed

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the C classes, in the order of the logits."""
        return self.transfer.class_names

    @property
    def test_accuracy(self) -> float | None:
        """Share of the test images whose class was found, 0..1; None where there were none."""
        rows = read_metrics(self.path / "metrics.csv")
        return next((r["test_accuracy"] for r in reversed(rows) if "test_accuracy" in r), None)

    @cached_property
    def network(self) -> ClassifierNetwork:
        """Backbone, head and logits in evaluation mode; images [N, 3, H, W] to logits [N, C]."""
        recipe = self.transfer.network
        state = torch.get_rng_state()
        network = build_network(self.transfer)
        torch.set_rng_state(state)
        load_network(network, self.checkpoint.method, recipe.method.kept, self.path)
        arithmetic_of(recipe).place(network.backbone)
        return network.eval()

    @property
    def classifying(self) -> nn.Module:
        """Head and logits: features [N, D] to [N, C], on the CPU."""
        return nn.Sequential(self.network.head, self.network.logits).cpu().float()

    def predict(
        self, data: Any, *, split: str | None = None, listener: Listener | None = None
    ) -> Predictions:
        """The classes of images.

        Args:
            data: whatever :func:`similitude.pretrain` takes.
            split: "train" or "test", where it has both; by default the training part.
            listener: hears how it goes, and which files cannot be read, which are left out.
        """
        source = self.modality.open_part(data, split, self.recipe.data)
        images = self.load_source(source, listener or Silent())
        logits = self.logits(images, listener)
        probabilities = logits.x.softmax(1)
        best = probabilities.argmax(1).tolist()
        return Predictions(logits.names, [self.class_names[c] for c in best], probabilities)

    def logits(self, images: Samples[Any], listener: Listener | None = None) -> Features:
        """Logits of those loaded images that can be read, on the CPU."""
        heard = listener or Silent()
        with computing(self.network, arithmetic_of(self.transfer.network)):
            return extract_features(
                self.network,
                images,
                self.transfer.network.facts,
                device=self.device,
                on_progress=lambda done, total: heard.progress("classifying", done, total),
            )


def accuracy(logits: Features) -> float:
    """Share of the images with a label whose class has the largest logit."""
    known = logits.labeled()
    assert known.y is not None
    return (known.x.argmax(1) == known.y).double().mean().item()


def commonest_share(images: Samples[Any]) -> float:
    """Accuracy of who always says the commonest class, 0..1: what a classifier has to beat."""
    assert images.labels is not None
    counts = images.labels[images.labels >= 0].bincount()
    return (counts.max() / counts.sum()).item()


def measure_accuracy(classifier: Classifier, images: Samples[Any]) -> float:
    """The accuracy on labeled images, 0..1; written to metrics.csv beside the last step."""
    score = accuracy(classifier.logits(images))
    step = classifier.checkpoint.step
    Metrics(classifier.path / "metrics.csv", step).add({"step": step, "test_accuracy": score})
    return score


def load_network(
    network: ClassifierNetwork, state: dict[str, Tensor], kept: str, path: Path
) -> None:
    """Load a checkpoint's weights, whose backbone is called ``kept``.

    Raises:
        UserError: they are of another network.
    """
    prefix = f"{kept}."
    renamed = {
        f"backbone.{k.removeprefix(prefix)}" if k.startswith(prefix) else k: v
        for k, v in state.items()
    }
    load_strictly(network, renamed, f"the classifier that {path}/recipe.yaml describes")


def is_classifier(path: str | Path) -> bool:
    """Whether a folder holds a classifier (its recipe names a stage) and not a pretraining."""
    folder = as_path(path)
    settle(folder)
    file = folder / "recipe.yaml"
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(6) == b"stage:"


def read_transfer(path: Path) -> FinetuneRecipe | DistillRecipe:
    """The recipe of a classifier.

    Raises:
        UserError: there is none, or it is damaged.
    """
    file = path / "recipe.yaml"
    if not is_classifier(path):
        raise UserError(
            f"{path} is not a classifier: make one with: similitude finetune RUN LABELED "
            f"--out {path}"
        )
    content = read_yaml(file, MAX_NAMES)
    kind = _KINDS.get(str(content["stage"])) if isinstance(content, dict) else None
    if kind is None:
        raise UserError(f"{file} is damaged or not the recipe of a classifier")
    return validated(kind, content, str(file))
