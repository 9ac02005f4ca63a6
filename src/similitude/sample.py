"""What samples, their rows and their views are, whatever kind of data they are of.

Letters: N samples of a batch, K partners of a sample at most, D numbers of a sample.
"""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import (
    Annotated,
    Any,
    ClassVar,
    Generic,
    NamedTuple,
    Protocol,
    TypeVar,
    runtime_checkable,
)

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL.Image import Image
from pydantic import BaseModel, BeforeValidator, ConfigDict, SerializeAsAny
from torch import Tensor, nn

from similitude.errors import UserError, told_unreadable
from similitude.modalities import view_config
from similitude.randomness import BlockOrder, Blocks, Order, spread

T = TypeVar("T")


@runtime_checkable
class Rows(Protocol):
    """Raw samples side by side, as their kind is kept: canvases, wave forms, a graph."""

    def __len__(self) -> int: ...

    def to(self: T, device: torch.device) -> T:
        """The same rows where views are made."""
        ...


@runtime_checkable
class Facts(Protocol):
    """What is true of a whole data set and its views depend on: sides, means, a rate."""

    @property
    def numbers(self) -> int:
        """About how many numbers one input of a network has."""
        ...


class Draw(NamedTuple):
    """What the choices of a view are a pure function of, beside the samples themselves."""

    seed: int
    epoch: int
    index: Int[Tensor, " N"]  # position of each sample in the data set, on the CPU
    views: Sequence[int]  # numbers, within a sample, of the views that are drawn alike


R = TypeVar("R", bound=Rows)


class View(ABC, Generic[R]):
    """One random view of a sample. Views that are equal (``==``) are drawn and made together."""

    @abstractmethod
    def draw(self, draw: Draw, rows: R) -> Any:
        """The choices for every sample and view, which are alike whatever else is in the batch."""

    @abstractmethod
    def apply(self, rows: R, choices: Any) -> Sequence[Any]:
        """The inputs of a network that the choices describe: a batch for each view drawn."""


C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Settings that do not change: a change makes new ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def changed(self: C, **fields: Any) -> C:
        """The same with other values of some fields, each checked as those of a file are.

        Raises:
            pydantic.ValidationError: there is no such field, or the value is out of range.
        """
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self).model_validate(values | fields)


class ViewConfig(Config, ABC):
    """How a view is drawn. A subclass adds ``kind: Literal["..."] = "..."``."""

    kind: str

    @abstractmethod
    def on(self, facts: Any) -> View[Any]:
        """The view of samples of which these facts are true."""

    @property
    def inputs(self) -> int:
        """How many inputs of a network one view of a sample is."""
        return 1

    def input_side(self, side: int) -> int:
        """How large an input of a network is, of samples that are so large."""
        return side

    def small(self: C, side: int) -> C:
        """The same on samples so small, for an experiment."""
        return self


class DataConfig(Config, ABC):
    """What a recipe decides of a kind of data. A subclass adds ``kind: Literal["..."] = "..."``."""

    kind: str

    # Whether samples are so small that what is published for large ones does not fit.
    is_small: ClassVar[bool | property] = True
    # Steps of a run from random weights below which it hardly leaves them.
    fewest_steps: ClassVar[int] = 1_500
    # Whether RGB pictures of 8 bits are all that there is of samples.
    are_pictures: ClassVar[bool | property] = True
    # A sentence on samples that are cut for training and whole for all else, or None.
    told_cut: ClassVar[str | property | None] = None

    @abstractmethod
    def facts(self, views: Collection[ViewConfig]) -> Facts:
        """The facts that views, of which all are given, and evaluations depend on."""

    @abstractmethod
    def noise(self, number: int) -> Rows:
        """Random rows as large as those of training, for a look at a step."""

    def view_cost(self, views: Sequence[Any]) -> float:
        """What the views of one sample cost to make, in pixels of images."""
        return 0.0

    def training_view(self, views: Collection[ViewConfig]) -> ViewConfig:
        """A mild view for training on labels, made of those of the pretraining."""
        return next(iter(views))

    def mild_view(self, views: Collection[ViewConfig]) -> ViewConfig:
        """A milder one still, where another sensor is the view to learn from."""
        return self.training_view(views)

    def completed(self, view: ViewConfig) -> ViewConfig:
        """The view with what it leaves open until the data is known."""
        return view

    def serving(self: C, others: Sequence[C]) -> C:
        """The config with which samples that are loaded once serve all others too."""
        return self


class NetworkConfig(Config, ABC):
    """Which network is trained and kept."""

    name: str

    # Channels of an input, where it has some.
    input_channels: ClassVar[int | property] = 3

    @abstractmethod
    def build(self) -> nn.Module:
        """The network with random weights; it maps a view to [N, D] and has ``num_features``, D."""

    def alone(self, data: DataConfig, facts: Any) -> "Alone":
        """The network that is used after a training with these; of several, the one kept."""
        return Alone(self, data, facts)

    def loading_snippet(self, weights: str, data: Any, facts: Any) -> str:
        """Python that rebuilds the network, and loads a file of weights into it."""
        own = type(self)
        return f"""\
from safetensors.torch import load_file
from {own.__module__} import {own.__name__}

backbone = {own.__name__}.model_validate({self.model_dump()!r}).build().eval()
backbone.load_state_dict(load_file({weights!r}))
{self.preparing_snippet(data, facts)}""".rstrip()

    def preparing_snippet(self, data: Any, facts: Any) -> str:
        """Python that makes of a file what the network takes."""
        return ""


class Alone(NamedTuple):
    """A network without the others beside which it was trained, and what it takes."""

    network: NetworkConfig
    data: DataConfig
    facts: Any
    prefix: str = ""  # of its weights among those of all


def _by_kind(value: Any) -> Any:
    return (
        view_config(value.get("kind")).model_validate(value) if isinstance(value, dict) else value
    )


AnyView = Annotated[SerializeAsAny[ViewConfig], BeforeValidator(_by_kind)]


class MultiView:
    """Several views of the same samples: what a method learns to make the same.

    Attributes:
        views: One after the other.
        has_partner: Whether the last view is of the sample's partner (SimTriplet).
    """

    def __init__(self, *views: View[Any], partner: View[Any] | None = None) -> None:
        if not views:
            raise UserError("MultiView has no views: give it at least one.")
        self.has_partner = partner is not None
        self.views = views if partner is None else (*views, partner)
        # numbers of views that are drawn alike and made together; a partner is another sample
        self._alike: list[list[int]] = []
        for number, view in enumerate(views):
            same = next((group for group in self._alike if views[group[0]] == view), None)
            if same is None:
                self._alike.append([number])
            else:
                same.append(number)
        if partner is not None:
            self._alike.append([len(views)])

    def __len__(self) -> int:
        return len(self.views)

    def __call__(
        self,
        rows: Rows,
        index: Int[Tensor, " N"],
        *,
        seed: int,
        epoch: int,
        partners: Rows | None = None,
    ) -> list[Any]:
        """Makes all views of a batch, as a pure function of the arguments.

        Args:
            rows: The samples.
            index: Position of each sample in the data set.
            seed: Of the run.
            epoch: Number of the pass over the data.
            partners: A partner of each sample, for the view of a partner; without them that view
                is of the sample itself.

        Returns:
            What a network takes, one batch for each view.

        Raises:
            UserError: An index is missing, or the view does not take such rows.
        """
        index = index.cpu()  # drawn on the CPU: the same bits, whatever computes the views
        if index.shape != (len(rows),):
            raise UserError(
                f"index has shape {list(index.shape)} for {len(rows)} samples; give one position "
                "for each."
            )
        made: dict[int, Any] = {}
        # of no samples the choices do not tell how many views they are for
        alike = self._alike if len(rows) else [[number] for number in range(len(self))]
        for group in alike:
            is_partner = self.has_partner and group[0] == len(self.views) - 1
            shown = partners if is_partner and partners is not None else rows
            view = self.views[group[0]]
            choices = view.draw(Draw(seed, epoch, index, group), shown)
            made |= zip(group, view.apply(shown, choices), strict=True)
        return [made[number] for number in range(len(self.views))]


S = TypeVar("S", bound="Samples[Any]")


class Samples(ABC, Generic[R]):
    """A data set from which batches are taken.

    Attributes:
        names: One for each sample, all different.
        labels: Class of each sample, shape [N], -1 where unknown; None without any. Only
            evaluations look at them.
        class_names: Name of each class, or None.
        partners: Positions of samples that belong to each one (beside it, next in time, of the
            same speaker), shape [N, K], -1 where there are fewer; None where nothing belongs
            together.
        unreadable: What was left out, each with the reason in a few words.
        blocks: How samples lie, where one is read with all that lie beside it; None elsewhere. It
            is so however many of them are in memory by now: the order depends on it.
    """

    noun: ClassVar[str] = "images"  # what several samples are called
    raw_name: ClassVar[str] = "raw pixels"  # the row of :meth:`raw`
    pictured: ClassVar[str] = ""  # a sentence on what thumbnails show, where one has to be told
    can_be_heard: ClassVar[bool] = False
    is_text: ClassVar[bool] = False  # whose names are the samples themselves
    # Whether one pass of a network sees all of them, so that it may as well be for all.
    seen_together: ClassVar[bool] = False

    names: Sequence[str]
    labels: Int[Tensor, " N"] | None
    class_names: list[str] | None
    partners: Int[Tensor, "N K"] | None
    unreadable: list[tuple[str, str]]
    blocks: Blocks | None = None

    def __len__(self) -> int:
        return len(self.names)

    def thumbnails_of(self, index: Int[Tensor, " M"], side: int) -> UInt8[np.ndarray, "M s s 3"]:
        """Pictures of the samples at these positions; gray where one cannot be read."""
        some = self.subset(index)
        found = some.thumbnails(side)
        if len(some) == len(index):
            return found
        at = {name: i for i, name in enumerate(some.names)}
        pictures = np.full((len(index), *found.shape[1:]), 128, np.uint8)
        for i, position in enumerate(index.tolist()):
            if (row := at.get(self.names[int(position)])) is not None:
                pictures[i] = found[row]
        return pictures

    def order(self, seed: int, epoch: int) -> Order | BlockOrder:
        """A random order of all, whose first samples cost no more to read than they have to."""
        if self.blocks is None:
            return Order(seed, epoch, len(self))
        return BlockOrder(seed, epoch, self.blocks)

    def read_ahead(self, blocks: Sequence[int]) -> None:
        """Begin to read these blocks, and let go of all others."""
        return

    @abstractmethod
    def take(self, index: Int[Tensor, " N"] | slice) -> R:
        """The rows at these positions."""

    @abstractmethod
    def subset(self: S, index: Int[Tensor, " M"] | Bool[Tensor, " N"] | slice | Sequence[int]) -> S:
        """The samples at these positions, in that order, without those that cannot be read."""

    @abstractmethod
    def clean(self, rows: R, facts: Any) -> Any:
        """The view without chance: what evaluations give a network."""

    @abstractmethod
    def raw(self: S, beside: Sequence[S] = ()) -> Float[Tensor, "N D"]:
        """Every sample as plain numbers, in columns that fit those beside it too: a baseline."""

    def baselines(self) -> dict[str, Float[Tensor, "N D"]]:
        """Further plain numbers of every sample, by the name of their row."""
        return {}

    def has_one_scale(self, row: str) -> bool:
        """Whether a row of plain numbers is of counts or the like, whose columns share a scale.

        Probes then keep it: a scale of its own for each would make the rarest column the loudest.
        """
        return False

    @abstractmethod
    def sheet(self, views: MultiView, facts: Any, *, seed: int) -> Image:
        """A picture of the first samples, each beside its views."""

    @abstractmethod
    def copies(self) -> float:
        """The share of the samples that are equal to another one, 0..1."""

    @abstractmethod
    def thumbnails(self, side: int) -> UInt8[np.ndarray, "N h w 3"]:
        """Every sample as a small picture, at most so many pixels a side."""

    def track(self) -> tuple[bytes, Float[np.ndarray, "N 2"]]:
        """All samples one after the other as a sound file, and when each begins and ends there.

        In seconds. Only of a class that ``can_be_heard``.
        """
        raise NotImplementedError

    def with_labels(self: S, labels: Int[Tensor, " N"] | None, class_names: list[str] | None) -> S:
        """The same samples with other labels; of a class that is no dataclass, overridden."""
        return replace(self, labels=labels, class_names=class_names)  # type: ignore[type-var]

    def without_labels(self: S) -> S:
        """The same samples, of which nobody knows a class."""
        return self.with_labels(None, self.class_names)

    def spread(self: S, count: int) -> S:
        """At most so many samples, at even distances: names, and so classes, stand in order."""
        return self.subset(spread(len(self), count, self.blocks))

    @property
    def has_partners(self) -> bool:
        """Whether any sample belongs to another."""
        return self.partners is not None and bool((self.partners >= 0).any())

    @property
    def is_substitute(self) -> Bool[Tensor, " N"]:
        """Samples in the place of one that cannot be read, as far as they have been looked at."""
        return torch.zeros(len(self), dtype=torch.bool)

    def told_unreadable(self, name: str) -> str | None:
        """A sentence on the files of what is called ``name`` that are left out, or None."""
        total = len(self) + len(self.unreadable) - int(self.is_substitute.sum())
        return told_unreadable(name, self.unreadable, total)

    def told_missing(self) -> list[str]:
        """Sentences on what some samples lack, of a kind in which they may."""
        return []

    def fingerprint(self) -> str:
        """Number and names in a few characters; positions are what views depend on."""
        lazy = getattr(self.names, "checksum", None)  # of names that are not in memory
        found = zlib.crc32("\n".join(self.names).encode()) if lazy is None else lazy()
        return f"{len(self)}-{found:08x}"
