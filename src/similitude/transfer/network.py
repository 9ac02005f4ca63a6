"""The network of a classifier, and what it learns from. N images, C classes, D features."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from similitude.errors import UserError
from similitude.losses import distill_logits
from similitude.method import Batch, Method, Progress, StepOutput
from similitude.methods import build_method
from similitude.nets import convert_split_batchnorm
from similitude.nets.weights import load_strictly
from similitude.recipes import Recipe
from similitude.runs.run import Run
from similitude.sample import MultiView, ViewConfig
from similitude.transfer.recipes import TransferRecipe


class ClassifierNetwork(nn.Module):
    """Backbone, the first layers of its projector, and a linear layer of logits that starts at 0.

    Args:
        method: a pretraining method; its networks are taken over, not copied.
        from_layer: layers of the projector to keep; 0 is the backbone alone.
        num_classes: C.

    Raises:
        UserError: the projector has no such layer.
    """

    def __init__(self, method: Method, from_layer: int, num_classes: int) -> None:
        super().__init__()
        check_layer(method, from_layer)
        self.backbone = convert_split_batchnorm(method.kept_backbone, 1)  # MoCo's: whole again
        layers = projector_layers(method)[:from_layer]
        self.head = nn.Sequential(*(module for layer in layers for module in layer))
        linear = [m for m in self.head if isinstance(m, nn.Linear)]
        width = linear[-1].out_features if linear else self.backbone.num_features
        self.logits = nn.Linear(width, num_classes)  # type: ignore[arg-type]
        nn.init.zeros_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)
        self.requires_grad_(True)  # also what a method had frozen

    def forward(self, x: Any) -> Float[Tensor, "N C"]:
        """Logits of what the backbone takes N of."""
        return self.logits(self.head(self.backbone(x)))


def projector_layers(method: Method) -> list[list[nn.Module]]:
    """The layers of the projector behind the kept backbone, each a Linear and what follows it.

    Empty for a method without a projector, and for one that is no chain of Linears.
    """
    kept: str = getattr(method.config, "kept", "backbone")
    projector = getattr(method, kept.removesuffix("backbone") + "projector", None)
    chain: list[Any] = [*projector] if isinstance(projector, nn.Sequential) else [projector]
    layers: list[list[nn.Module]] = []
    for module in chain:
        if isinstance(module, nn.Linear):
            layers.append([])
        elif not layers:
            return []
        layers[-1].append(module)
    return layers


def check_layer(method: Method, from_layer: int) -> None:
    """Refuse a layer that the projector does not have.

    Raises:
        UserError: says which there are.
    """
    count = len(projector_layers(method))
    if not 0 <= from_layer <= count:
        there = f"{count} layers: give --from-layer 0 (the backbone alone) to {count}"
        if count == 0:
            there = "no layers to keep: give --from-layer 0, the backbone alone"
        raise UserError(
            f"there is no layer {from_layer}; the projector of {method.config.name} has {there}"
        )


def random_method(recipe: Recipe, seed: int) -> Method:
    """The method of a recipe with random weights, a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_method(recipe.method, recipe.backbone.build())


def learned_method(run: Run) -> Method:
    """The method of a run with the weights that it learned, and the backbone that it keeps."""
    method = random_method(run.recipe, run.recipe.seed)
    of = f"method {run.recipe.method.name!r} of {run.path}"
    load_strictly(method, run.checkpoint.method, of)
    method.kept_backbone.load_state_dict(run.kept_weights)
    return method


def build_network(recipe: TransferRecipe) -> ClassifierNetwork:
    """The network of a classifier, with fresh random weights drawn with the recipe's seed."""
    torch.manual_seed(recipe.seed)
    backbone = recipe.network.backbone.build()
    method = build_method(recipe.network.method, backbone)
    return ClassifierNetwork(method, recipe.from_layer, len(recipe.class_names))


class Criterion(NamedTuple):
    """What the logits of a batch should be like.

    Attributes:
        judge: loss, and scalars to log, of logits [N, C], a view of each and positions [N].
        chance: the loss of a network that knows nothing.
    """

    judge: Callable[[Tensor, Any, Tensor], tuple[Tensor, dict[str, Tensor]]]
    chance: float


def from_labels(labels: Int[Tensor, " N"], num_classes: int) -> Criterion:
    """Cross-entropy to the labels of the images, which are 0 to C - 1."""
    copies: dict[torch.device, Tensor] = {}

    def judge(logits: Tensor, view: Any, index: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if index.device not in copies:  # once: it would be waited for in every step
            copies[index.device] = labels.to(index.device)
        y = copies[index.device][index]
        right = logits.detach().argmax(1) == y
        return F.cross_entropy(logits, y), {"train_accuracy": right.float().mean()}

    return Criterion(judge, math.log(num_classes))


def from_teacher(
    teacher: Callable[[Tensor], Tensor],
    num_classes: int,
    *,
    temperature: float,
    scale_by_temperature_squared: bool,
) -> Criterion:
    """Cross-entropy to what a frozen teacher says of the same view (SimCLR v2, eq. 2)."""
    scale = temperature**2 if scale_by_temperature_squared else 1.0

    def judge(logits: Tensor, view: Any, index: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            said = teacher(view)
        loss = distill_logits(
            said,
            logits,
            temperature=temperature,
            scale_by_temperature_squared=scale_by_temperature_squared,
        )
        agree = logits.detach().argmax(1) == said.argmax(1)
        entropy = torch.special.entr((said / temperature).softmax(1)).sum(1).mean()
        # the loss cannot fall below the entropy of what the teacher says
        return loss, {"agreement": agree.float().mean(), "teacher_entropy": scale * entropy}

    return Criterion(judge, scale * math.log(num_classes))


class Learner(Method):
    """A classifier's network in training. Not a pretraining method: its criterion may hold labels.

    In the shape of a method, so that the same trainer runs it: precision, micro-batches, metrics,
    checkpoints and resume are those of pretraining. Its backbone has the name that the pretraining
    method keeps it by, so a checkpoint is read like any other.
    """

    def __init__(
        self, network: ClassifierNetwork, config: Any, view: ViewConfig, criterion: Criterion
    ) -> None:
        super().__init__()
        self.config = config
        self.view = view
        self.criterion = criterion
        self.add_module(getattr(config, "kept", "backbone"), network.backbone)
        self.head = network.head
        self.logits = network.logits

    def views(self, facts: Any) -> MultiView:
        return MultiView(self.view.on(facts))

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        (view,) = batch.views
        h = self.kept_backbone(view)
        loss, metrics = self.criterion.judge(self.logits(self.head(h)), view, batch.index)
        return StepOutput(loss, features=h.detach(), metrics=metrics)

    def chance_loss(self, batch_size: int) -> float:
        """The loss while the logits are 0."""
        return self.criterion.chance

    def param_groups(self) -> list[dict[str, Any]]:
        """As every method's, but the logits' weights stand alone.

        SimCLR's code excludes them from LARS's trust ratio: it would hold weights that start at 0
        near 0.
        """
        weights, rest = super().param_groups()
        logits = self.logits.weight
        weights["params"] = [p for p in weights["params"] if p is not logits]
        return [weights, rest, {"params": [logits], "adapt": False}]
