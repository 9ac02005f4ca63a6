"""The contract every pretraining method fulfils."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar, get_args

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from similitude.sample import Config, MultiView, ViewConfig

M = TypeVar("M", bound="MethodConfig")
Changes = dict[str, tuple[Any, str]]  # field -> its new value, and why


class Role(Enum):
    """What a number in a config is for, so that others can fit it without knowing the method."""

    WIDTH = "outputs of a layer in a head"
    QUEUE = "keys of a queue"
    BANK = "samples of which something is kept"
    NEGATIVES = "negatives of a sample that are drawn from a memory"
    PARTS = "parts of a batch that BatchNorm sees apart"


Width = Annotated[int, Field(ge=1), Role.WIDTH]
Prototypes = Annotated[int, Field(ge=2), Role.WIDTH]
QueueLength = Annotated[int, Field(ge=0), Role.QUEUE]
BankRows = Annotated[int, Field(ge=1), Role.BANK]
Negatives = Annotated[int, Field(ge=1), Role.NEGATIVES]
BatchParts = Annotated[int, Field(ge=1), Role.PARTS]


# What a method that compares sensors says where there is one alone.
SENSORS_NEEDED = (
    "give a table (CSV or Parquet) whose rows name the entries of at least two, images or sounds "
    "with texts beside them (KEY.txt in tar files, a column caption or text in Parquet files), or "
    "videos"
)


class MethodConfig(Config):
    """Hyper-parameters of a method. Subclasses default to the paper's main setting.

    A subclass adds ``name: Literal["..."] = "..."``: the method's name on the command line.
    """

    name: str

    # As its paper writes it; empty where the name does.
    title: ClassVar[str] = ""
    # Whether LARS stays where a batch is small: of a loss in the thousands, which needs it.
    keeps_lars: ClassVar[bool] = False
    # Whether it trains the networks of all sensors of a sample, not only those that are kept.
    compares_sensors: ClassVar[bool] = False
    # Kinds of data of which it compares parts of a sample, and needs no other sensor.
    compares_parts_of: ClassVar[tuple[str, ...]] = ()
    # Fields, numbers or tables of numbers, that an evolution searches where nothing else is said.
    searched: ClassVar[tuple[str, ...]] = ()

    def in_role(self, role: Role) -> dict[str, int]:
        """The fields that are for this, with their values; without those that are None or 0."""
        found = {name: getattr(self, name) for name, of in _roles(type(self)).items() if of is role}
        return {name: value for name, value in found.items() if value}

    @property
    def batch_parts(self) -> int:
        """Parts of a batch that BatchNorm sees apart."""
        return max(self.in_role(Role.PARTS).values(), default=1)

    def fitted(self, num_samples: int, batch_size: int, processes: int = 1) -> Changes:
        """What does not fit so many samples and such batches: memory too large, parts too small.

        Args:
            num_samples: of the data set.
            batch_size: over all processes.
            processes: each of which has samples of every part.
        """
        changes: Changes = {}
        for name, length in self.in_role(Role.QUEUE).items():
            fitting = max(_halved(length, num_samples // 2), 2 * batch_size)
            if fitting != length:  # both directions' keys fit
                changes[name] = (
                    fitting,
                    f"about half of the {num_samples} images, or a key would meet its own older "
                    "self",
                )
        for name, number in self.in_role(Role.NEGATIVES).items():
            if (fitting := _halved(number, num_samples)) != number:
                changes[name] = fitting, f"not more than the {num_samples} images"
        local = batch_size // processes
        for name, parts in self.in_role(Role.PARTS).items():
            fitting = parts
            while fitting > 1 and (local % fitting or batch_size // fitting < 2):
                fitting -= 1
            if fitting != parts:
                changes[name] = fitting, f"the most that a batch of {local} divides into"
        return changes

    def adapting(self) -> Changes:
        """What is set otherwise where a training starts from published weights."""
        why = "published statistics are of whole batches"
        return {name: (1, why) for name, n in self.in_role(Role.PARTS).items() if n > 1}

    def of_samples(self: M, num_samples: int) -> M:
        """The same with memory of so many samples, if it keeps something of every one."""
        return self.changed(**dict.fromkeys(self.in_role(Role.BANK), num_samples))

    def for_network(self: M, network: nn.Module) -> M:
        """The same with what depends on the network, whose sensors a table decides."""
        return self

    def small(self: M, num_samples: int) -> M:
        """The same with as little memory as so many samples need, for a look at one step."""
        queues = dict.fromkeys(self.in_role(Role.QUEUE), 2 * num_samples)
        return self.of_samples(num_samples).changed(**queues)

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


def _roles(kind: type[MethodConfig]) -> dict[str, Role]:
    """The role of each field that has one."""

    def inside(annotation: Any) -> list[Any]:
        parts = get_args(annotation)  # of a union its members, of Annotated the notes too
        return [*parts, *(note for part in parts for note in inside(part))]

    found = {}
    for name, field in kind.model_fields.items():
        notes = [*field.metadata, *inside(field.annotation)]
        if (role := next((note for note in notes if isinstance(note, Role)), None)) is not None:
            found[name] = role
    return found


def _halved(number: int, most: int) -> int:
    while number > most:
        number //= 2
    return number


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
    # Whether biases and norms decay like weights.
    decays_all: ClassVar[bool] = False
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
        """The loss when views carry no information, e.g. ln K; None where there is none.

        Where it differs from batch to batch, a step's metrics have it, as ``chance_loss``.
        """
        return None

    def train(self, mode: bool = True) -> "Method":
        """Set training mode, except in layers that are kept as they were (see ``freeze_``)."""
        super().train(mode)
        for module in self.modules():
            if getattr(module, "is_frozen", False):
                module.training = False
        return self

    def param_groups(self) -> list[dict[str, Any]]:
        """Optimizer groups: weights, then biases and norms without decay; one, if all decay.

        A group with ``fixed_lr: True`` keeps its peak learning rate through the whole run; one
        with ``lr_scale: 0.1`` trains at a tenth of the rate; ``weight_decay`` is the group's own.
        """
        params = [p for p in self.parameters() if p.requires_grad]
        if self.decays_all:
            return [{"params": params}]
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
