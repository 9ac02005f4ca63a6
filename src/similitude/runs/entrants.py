"""The rows of an evaluation, and samples as each of them wants them."""

from collections.abc import Callable
from typing import Any

from similitude.evaluation.evaluate import Entrant
from similitude.modalities import Modality
from similitude.sample import DataConfig, Samples

Parts = tuple[Samples[Any], Samples[Any] | None]  # to learn from, and to test on if there are some


class AsWanted:
    """The same samples in several ways; besides the run's own, one is kept at a time.

    Args:
        own: the parts as the run has them.
        config: how it has them.
        sources: of both parts.
        modality: of the data.
        load: makes samples of a source.
    """

    def __init__(
        self,
        own: Parts,
        config: DataConfig,
        sources: tuple[Any, Any],
        modality: Modality,
        load: Callable[[Any, DataConfig], Samples[Any]],
    ) -> None:
        self.own = own
        self._config = config
        self._sources, self._modality, self._load = sources, modality, load
        self._other: tuple[DataConfig, Parts] | None = None

    def with_config(self, config: DataConfig) -> Parts:
        """The parts, loaded so."""
        for known, parts in filter(None, ((self._config, self.own), self._other)):
            if config == known or self._modality.same(config, parts[0]):
                return parts
        self._other = None  # room for the next ones
        train, test = self._sources
        parts = self._load(train, config), None if test is None else self._load(test, config)
        self._other = config, parts
        return parts

    def for_raw(self) -> Parts:
        """For the row of raw numbers."""
        return self.with_config(self._modality.for_raw(self._config, self._sources[0]))

    def row_of(self, weights: Any) -> Entrant:
        """The row of published weights: on samples as they want them, in full precision."""
        facts, config = self._modality.entrant_at(weights, self.own[0], self._sources[0])
        wanted = config or self._config
        load = lambda: self.with_config(wanted)  # noqa: E731
        return Entrant(weights.name, weights.build(), facts, load, channels_last=True)
