"""Several sensors as one of the kinds of data: a table, or one sensor's data alone."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, SerializeAsAny, field_validator
from torch import nn

from similitude.data.openers import find, open_both, open_part
from similitude.data.source import Source
from similitude.errors import UserError
from similitude.modalities import Modality, modality, modality_of
from similitude.multimodal.inputs import SensorRows
from similitude.multimodal.networks import Towers, TowersConfig
from similitude.multimodal.sensor_set import SensorSet
from similitude.multimodal.table import OPENER, TableSource, is_table, table_of
from similitude.multimodal.views import SensorFacts, SensorViewConfig
from similitude.sample import DataConfig, Rows, Samples, ViewConfig


class SensorData(DataConfig):
    """What a recipe decides of each sensor.

    Attributes:
        sensors: By name, in the order of the table's columns.
    """

    kind: Literal["sensors"] = "sensors"
    sensors: dict[str, SerializeAsAny[DataConfig]] = Field(default_factory=dict)

    fewest_steps: ClassVar[int] = 500

    @field_validator("sensors", mode="before")
    @classmethod
    def _each_of_its_kind(cls, values: Any) -> Any:
        def of_its_kind(value: Any) -> Any:
            if not isinstance(value, dict):
                return value
            own: Any = modality(value.get("kind", "")).data_config
            return own.model_validate(value)

        return {name: of_its_kind(value) for name, value in dict(values).items()}

    def facts(self, views: Collection[ViewConfig]) -> SensorFacts:
        """The facts of every sensor."""
        return SensorFacts({n: own.facts(_views_of(n, views)) for n, own in self.sensors.items()})

    def noise(self, number: int) -> SensorRows:
        """Noise from every sensor."""
        rows: dict[str, Rows] = {name: own.noise(number) for name, own in self.sensors.items()}
        return SensorRows(rows, {name: torch.ones(number, dtype=torch.bool) for name in rows})

    def view_cost(self, views: Sequence[Any]) -> float:
        """That of every sensor's views."""
        own = self.sensors.items()
        return sum(c.view_cost([view.of[name] for view in views]) for name, c in own)

    def training_view(self, views: Collection[ViewConfig]) -> SensorViewConfig:
        """The mild view of every sensor."""
        own = self.sensors.items()
        return SensorViewConfig(of={n: c.training_view(_views_of(n, views)) for n, c in own})

    def completed(self, view: ViewConfig) -> ViewConfig:
        """With the mild view of every sensor of which it says nothing."""
        if not isinstance(view, SensorViewConfig):
            return view
        own = self.sensors.items()
        return view.changed(of={n: c.mild_view(_views_of(n, [view])) for n, c in own} | view.of)

    def serving(self, others: Sequence["SensorData"]) -> "SensorData":
        """Each sensor so that it serves all."""
        served = {
            name: own.serving([o.sensors[name] for o in others if name in o.sensors])
            for name, own in self.sensors.items()
        }
        return self.changed(sensors=served)


def _views_of(name: str, views: Collection[ViewConfig]) -> list[ViewConfig]:
    found = (view.of.get(name) for view in views if isinstance(view, SensorViewConfig))
    return [view for view in found if view is not None]


@dataclass(frozen=True, kw_only=True)
class OneSensor(Source):
    """The samples of one sensor, where there is no other: photos after a training on more."""

    sensor: str
    source: Any

    def fingerprint(self) -> str:
        """That of the sensor's source."""
        return self.source.fingerprint()


class Sensors(Modality):
    """Tables that name for each sample its files and texts."""

    kind = "sensors"
    noun = "samples"
    data_config = SensorData
    network_config = TowersConfig
    view_configs: ClassVar[Mapping[str, type]] = {"sensors": SensorViewConfig}

    def claims(self, data: Any) -> bool:
        """A table, or samples that are loaded already."""
        return isinstance(data, SensorSet | TableSource) or is_table(data)

    def open_training(self, data: Any, config: SensorData | None, *, resumed: bool = False) -> Any:
        """The training part, or all."""
        kind, sensors = self._several(data)
        if sensors:
            table = table_of(kind.open_training(data, None, resumed=resumed), sensors)
            if wordless := [sensor for sensor, cells in table.cells.items() if not any(cells)]:
                raise UserError(f"{table.name} has no {wordless[0]}: all that is there is empty")
            return table
        if not self.claims(data) and config is not None:
            return self._one(data, config, lambda kind, own: kind.open_training(data, own))
        table = open_part(find(data, (OPENER,)) or _no_table(data), None, self.noun)
        said = [f"{name}: {note}" for name in table.kinds for note in table.column(name).notes]
        return replace(table, notes=(*table.notes, *said))

    def open_part(self, data: Any, split: str | None, config: SensorData | None) -> Any:
        """A part of a table, or of the data of one sensor."""
        if not self.claims(data) and config is not None:
            return self._one(data, config, lambda kind, own: kind.open_part(data, split, own))
        return open_part(find(data, (OPENER,)) or _no_table(data), split, self.noun)

    def open_parts(self, data: Any, config: SensorData | None) -> list[Any]:
        """The training part and the test part, or all."""
        kind, sensors = self._several(data)
        # what is written beside samples costs nothing; other sensors are for whom they are trained
        are_texts = any(not modality(of).suffixes for of in sensors.values())
        fits = config is None or (are_texts and config.sensors.keys() <= sensors.keys())
        if not self.claims(data) and config is not None and not fits:
            sensor, kind = _sensor_of(data, config)
            parts = kind.open_parts(data, config.sensors[sensor])
            return [_alone(sensor, part) for part in parts]
        if sensors:
            return [table_of(part, sensors) for part in kind.open_parts(data, None)]
        found = find(data, (OPENER,)) or _no_table(data)
        return open_both(found, lambda source, first: source, self.noun)

    def open_together(self, data: Any, config: SensorData) -> list[Any]:
        """The parts with all sensors that there are, of which an evaluation looks at one alone."""
        return self.open_parts(data, None if self._several(data)[1] else config)

    def _several(self, data: Any) -> tuple[Modality, Mapping[str, str]]:
        """The kind of data that is no table, and of what kinds each of its samples is."""
        kind: Modality = self if self.claims(data) else modality_of(data)
        return kind, kind.sensors_of(data)

    def _one(self, data: Any, config: SensorData, opened: Callable[..., Any]) -> OneSensor:
        sensor, kind = _sensor_of(data, config)
        return _alone(sensor, opened(kind, config.sensors[sensor]))

    def of_texts(self, name: str, texts: list[str], config: Any = None) -> OneSensor:
        """Texts of the first sensor that has some.

        Raises:
            UserError: none has.
        """
        sensors = [sensor for sensor, own in config.sensors.items() if own.kind == "text"]
        if not sensors:
            raise UserError("classes are told by words, and no column of the table is of texts")
        return _alone(sensors[0], modality("text").of_texts(name, texts))

    def load(
        self, source: Any, config: SensorData, on_progress: Callable[[int, int], None] | None = None
    ) -> SensorSet:
        """Every entry of every sensor, once."""
        if isinstance(source, OneSensor):
            own = config.sensors[source.sensor]
            labels = {"labels": source.labels, "class_names": source.class_names}
            labeled = replace(source.source, **labels)  # which may have come from a table
            samples = modality(own.kind).load(labeled, own, on_progress)
            everywhere = torch.arange(len(samples))
            return _set_of(
                samples, {source.sensor: samples}, {source.sensor: everywhere}, samples.unreadable
            )
        of: dict[str, Samples[Any]] = {}
        where, unreadable = {}, []
        for name, own in config.sensors.items():
            if name not in source.kinds or not any(source.cells[name]):
                continue
            column = source.column(name, own)
            of[name] = modality(own.kind).load(column, own, on_progress)
            where[name] = source.rows_of(name, of[name].names)
            unreadable += [] if getattr(column, "may_lack", False) else of[name].unreadable
        if not of:
            raise UserError(f"{source.name} has none of the columns {', '.join(config.sensors)}")
        there = torch.stack([rows >= 0 for rows in where.values()]).any(dim=0)
        samples = _set_of(source, of, where, unreadable)
        first = next(iter(of))  # the others are in memory
        if torch.equal(where[first], torch.arange(len(source))):
            samples = replace(samples, blocks=of[first].blocks)
        return samples if bool(there.all()) else samples.subset(there)

    def for_raw(self, config: SensorData, source: Any) -> SensorData:
        """Each sensor as its raw numbers want it."""

        def own_source(name: str) -> Any:
            return source.source if isinstance(source, OneSensor) else source.column(name)

        wanted = {
            name: modality(own.kind).for_raw(own, own_source(name))
            for name, own in config.sensors.items()
            if isinstance(source, OneSensor) is False or name == source.sensor
        }
        return config.changed(sensors={**config.sensors, **wanted})

    def for_pictures(self, side: int, source: TableSource) -> SensorData:
        """The first sensor alone, which is what a sample looks like."""
        first, kind = next(iter(source.kinds.items()))
        own = modality(kind).for_pictures(side, source.column(first))
        return SensorData(sensors={first: own})

    def same(self, config: SensorData, samples: SensorSet) -> bool:
        """Whether every sensor's samples are as the config would have them."""
        own = config.sensors
        return all(modality(own[n].kind).same(own[n], of) for n, of in samples.of.items())

    def tiny(self, method: str, side: int, features: int) -> tuple[SensorData, nn.Module]:
        """Two images."""
        made = {n: modality("image").tiny(method, side, features) for n in ("left", "right")}
        data = SensorData(sensors={name: own for name, (own, _) in made.items()})
        return data, Towers({name: network for name, (_, network) in made.items()}, ("left",))


def _set_of(
    known: Any,
    of: dict[str, Samples[Any]],
    where: dict[str, Any],
    unreadable: list[tuple[str, str]],
) -> SensorSet:
    return SensorSet(of, where, known.names, known.labels, known.class_names, unreadable)


def _sensor_of(data: Any, config: SensorData) -> tuple[str, Modality]:
    """The first sensor that gives such data."""
    kind = modality_of(data)
    for name, own in config.sensors.items():
        if own.kind == kind.kind:
            return name, kind
    known = ", ".join(f"{name} ({own.kind})" for name, own in config.sensors.items())
    raise UserError(f"{data} is neither a table (CSV, TSV or Parquet) nor of a sensor: {known}")


def _alone(sensor: str, source: Any) -> OneSensor:
    return OneSensor(
        name=source.name,
        names=source.names,
        labels=source.labels,
        class_names=source.class_names,
        notes=source.notes,
        sensor=sensor,
        source=source,
    )


def _no_table(data: Any) -> Any:
    shown = data if isinstance(data, str | Path) else "what was given"
    raise UserError(
        f"{shown} is no table, and nothing is written beside its samples: give a CSV, TSV or "
        "Parquet file"
    )


MODALITY = Sensors()
