"""Whom a run is scored beside: published weights, and images at the size that each row wants."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import nn

from similitude.evaluation.baselines import Entrant
from similitude.images.decoder import native_size
from similitude.images.image_set import MAX_PIXEL_SIDE, ImageSet
from similitude.images.source import ImageSource
from similitude.images.views import ImageFacts

Parts = tuple[ImageSet, ImageSet | None]  # training images, and test images where there are some


@runtime_checkable
class Published(Protocol):
    """Weights that somebody else has trained, as ``starts.open_start`` gives them."""

    @property
    def name(self) -> str:
        """Of their row."""
        ...

    @property
    def image_size(self) -> int:
        """Side of the images they were made for, in pixels."""
        ...

    @property
    def mean(self) -> Sequence[float]:
        """Per channel, of pixels in [0, 1]."""
        ...

    @property
    def std(self) -> Sequence[float]:
        """Per channel, of pixels in [0, 1]."""
        ...

    def build(self) -> nn.Module:
        """The backbone in evaluation mode."""
        ...


def open_published(against: Sequence[str | Path | Published]) -> list[Published]:
    """What ``evaluate --against`` names: published weights by name, a file, or a run."""
    opened = []
    for given in against:
        if isinstance(given, str | Path):
            from similitude.runs.starts import open_start

            given = open_start(given)
        opened.append(given)
    return opened


def published_entrant(weights: Published, sizes: "AtSizes") -> Entrant:
    """Their row: on images of their own size, mean and std, in full precision."""
    mean, std = ((v[0], v[1], v[2]) for v in (weights.mean, weights.std))
    return Entrant(
        weights.name,
        weights.build(),
        ImageFacts(weights.image_size, mean, std),
        lambda: sizes.fit_for(weights.image_size),
        channels_last=True,
    )


class AtSizes:
    """The same images at several sizes; besides those of the run, one size is kept at a time."""

    def __init__(
        self,
        own: Parts,
        sources: tuple[ImageSource, ImageSource | None],
        load: Callable[[ImageSource, int], ImageSet],
    ) -> None:
        self.own = own
        self._sources, self._load = sources, load
        self._other: Parts | None = None
        self._native = native_size(sources[0])

    def of_size(self, size: int) -> Parts:
        """Canvases of this side in pixels."""
        for known in (self.own, self._other):
            if known is not None and known[0].size == size:
                return known
        known = self._other = None  # room for the next ones
        train, test = self._sources
        parts = self._load(train, size), None if test is None else self._load(test, size)
        self._other = parts
        return parts

    def fit_for(self, image_size: int) -> Parts:
        """For a backbone's input: an eighth larger, as recipes choose, if the originals are."""
        wanted = round(image_size * 8 / 7)
        wanted = min(wanted, self._native or wanted)
        return self.own if wanted <= self.own[0].size else self.of_size(wanted)

    def for_pixels(self) -> Parts:
        """For the row of raw pixels: of a size that does not depend on the run's canvases."""
        return self.of_size(min(MAX_PIXEL_SIDE, self._native or MAX_PIXEL_SIDE))
