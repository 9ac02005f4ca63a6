"""The contract every pretraining method fulfils."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from similitude.sample import Config, MultiView, ViewConfig

M = TypeVar("M", bound="MethodConfig")


class MethodConfig(Config):
    """Hyper-parameters of a method. Subclasses default to the paper's main setting.

    A subclass adds ``name: Literal["..."] = "..."``: the method's name on the command line.
    """

    name: str

    @property
    def view_configs(self) -> dict[str, ViewConfig]:
        """The fields that describe views, by name."""
        return {name: value for name, value in self if isinstance(value, ViewConfig)}

    def changed(self: M, **fields: Any) -> M:
        """The same with other values of some fields; see :meth:`Config.changed`."""
        # by its place, "module:Class", recipes call a user's own, whatever its field says
        name = type(self).model_fields["name"]
        own = {} if name.is_required() else {"name": name.default}
        return super().changed(**own, **fields).model_copy(update={"name": self.name})

    @property
    def kept(self) -> str:
        """Name of the network that is exported and evaluated; DINO keeps "target_backbone"."""
        return "backbone"


class Batch(NamedTuple):
    """What a method may see. Labels are absent on purpose: only probes get them."""

    views: list[Any]  # V augmented versions of the same N samples: tensors, or a graph's parts
    index: Int[Tensor, " N"]  # position of each sample in the data set


@dataclass(frozen=True)
class Progress:
    """Where training stands. Every schedule is a pure function of this."""

    step: int  # optimizer steps already taken
    total_steps: int
    steps_per_epoch: int

    @property
    def fraction(self) -> float:
        """Share of the optimizer steps already taken, in [0, 1]."""
        return self.step / self.total_steps

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.step // self.steps_per_epoch


class StepOutput(NamedTuple):
    """What one training step yields."""

    loss: Float[Tensor, ""]
    features: Float[Tensor, "N D"]  # detached backbone features of the first view
    metrics: dict[str, Tensor]  # detached scalars to log, e.g. projection_std


class Method(nn.Module, ABC):
    """One pretraining method: its views, its networks, its loss, and what moves after a step.

    The trainer calls, in this order, once per optimizer step: ``training_loss`` and backward,
    ``before_step``, the optimizer, ``after_step``. A method is a plain module, so four lines of
    PyTorch run it as well. ``method.kept_backbone(x)`` extracts features.

    Over several processes each has its part of the batch: gradients and losses are averaged over
    them, and ``distributed.gather`` gives a loss or a memory the rows of all.
    """

    # What is trained, and kept unless the config says otherwise: inputs of N samples to features
    # [N, num_features]. Often the network given; a method may wrap it (patches, color channels).
    backbone: nn.Module
    config: Any  # the method's own MethodConfig
    # Whether a backbone with GroupNorm is known to be in the method's way.
    wants_batchnorm: ClassVar[bool] = False

    @property
    def kept_backbone(self) -> nn.Module:
        """What is exported and evaluated: ``backbone``, or the network ``config.kept`` names."""
        return self.get_submodule(getattr(self.config, "kept", "backbone"))

    @abstractmethod
    def views(self, facts: Any) -> MultiView:
        """The random transforms that turn one sample into its views.

        Args:
            facts: What is true of the whole data set (sides, means, a rate); a view's config takes
                it: ``self.config.view.on(facts)``.
        """

    @abstractmethod
    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        """The loss of one batch. Memory is written last, after the loss has read it."""

    def chance_loss(self, batch_size: int) -> float | None:
        """The loss when views carry no information, e.g. ln K; None where there is none."""
        return None

    def train(self, mode: bool = True) -> "Method":
        """Set training mode, except in layers that are kept as they were (see ``freeze_``)."""
        super().train(mode)
        for module in self.modules():
            if getattr(module, "is_frozen", False):
                module.training = False
        return self

    def param_groups(self) -> list[dict[str, Any]]:
        """Optimizer groups: weights, then biases and norms, which do not decay.

        A group with ``fixed_lr: True`` keeps its peak learning rate through the whole run; one
        with ``lr_scale: 0.1`` trains at a tenth of the rate; ``weight_decay`` is the group's own.
        """
        params = [p for p in self.parameters() if p.requires_grad]
        return [
            {"params": [p for p in params if p.ndim > 1]},
            {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
        ]

    def before_step(self, progress: Progress) -> None:
        """Edit gradients, e.g. to freeze a layer for the first epochs."""
        return

    def after_step(self, progress: Progress) -> None:
        """Move what gradients do not: the target network."""
        return
