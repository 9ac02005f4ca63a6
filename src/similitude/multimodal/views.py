"""Random views of what several sensors saw: a view of each.

Letters: N samples, V views.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from similitude.errors import UserError
from similitude.multimodal.inputs import SensorInputs, SensorRows
from similitude.sample import AnyView, Draw, Facts, View, ViewConfig


@dataclass(frozen=True)
class SensorFacts:
    """The facts of every sensor."""

    of: Mapping[str, Facts]

    @property
    def numbers(self) -> int:
        """Numbers of one input of all networks."""
        return sum(facts.numbers for facts in self.of.values())


class SensorViewConfig(ViewConfig):
    """How one view is drawn from each sensor.

    Attributes:
        of: The view of each sensor, by its name.
        aligned: Whether all sensors draw the same numbers, so that those of one kind see the same
            crop, and those of one time the same seconds.
    """

    kind: Literal["sensors"] = "sensors"
    aligned: bool = False
    of: dict[str, AnyView] = Field(default_factory=dict)

    def on(self, facts: SensorFacts) -> View[SensorRows]:
        """The view of sensors of which these facts are true."""
        if missing := [name for name in facts.of if name not in self.of]:
            raise UserError(f"method.view says nothing of the sensor {missing[0]!r}")
        of = {name: self.of[name].on(facts.of[name]) for name in facts.of}
        return SensorView(of, self.aligned)

    @property
    def inputs(self) -> int:
        """Inputs of a network: one of each sensor."""
        return max(1, sum(view.inputs for view in self.of.values()))

    def small(self, side: int) -> "SensorViewConfig":
        """The same on small samples."""
        return self.changed(of={name: view.small(side) for name, view in self.of.items()})


@dataclass(frozen=True)
class SensorView(View[SensorRows]):
    """One random view of every sensor, each drawn on its own unless they are aligned."""

    of: Mapping[str, View[Any]]
    aligned: bool = False

    def draw(self, draw: Draw, rows: SensorRows) -> dict[str, Any]:
        """The choices of the view of each sensor that is there."""
        return {
            name: view.draw(_of_sensor(draw, 0 if self.aligned else number), rows.of[name])
            for number, (name, view) in enumerate(self.of.items())
            if name in rows.of
        }

    def apply(self, rows: SensorRows, choices: dict[str, Any]) -> Sequence[SensorInputs]:
        """The inputs of all networks, one for each view."""
        made = {
            name: list(self.of[name].apply(rows.of[name], chosen))
            for name, chosen in choices.items()
        }
        count = len(next(iter(made.values())))
        return [
            SensorInputs({name: views[i] for name, views in made.items()}, rows.present)
            for i in range(count)
        ]


def _of_sensor(draw: Draw, sensor: int) -> Draw:
    """The draw of a sensor: views of its own numbers, which no other sensor has."""
    return draw._replace(views=[view + 1000 * sensor for view in draw.views])
