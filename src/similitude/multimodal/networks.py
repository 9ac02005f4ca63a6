"""Networks for several sensors: a tower for each, of which one, some or all are kept.

Letters: N samples, D features.
"""

from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, SerializeAsAny, field_validator, model_validator
from torch import Tensor, nn

from similitude.errors import UserError
from similitude.modalities import modality
from similitude.multimodal.inputs import SensorInputs
from similitude.sample import Alone, Config, NetworkConfig


class TowerConfig(Config):
    """The network of one sensor.

    Attributes:
        kind: Of data, that the sensor gives.
        network: Of that kind.
    """

    kind: str
    network: SerializeAsAny[NetworkConfig]

    @model_validator(mode="before")
    @classmethod
    def _network_of_its_kind(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("network"), dict):
            own: Any = modality(values.get("kind", "")).network_config
            values = {**values, "network": own.model_validate(values["network"])}
        return values


class TowersConfig(NetworkConfig):
    """A network for every sensor.

    Attributes:
        towers: By sensor.
        kept: Sensors whose features are evaluated and embedded, side by side.
    """

    name: Literal["towers"] = "towers"
    towers: dict[str, TowerConfig] = Field(default_factory=dict)
    kept: tuple[str, ...] = ()

    @field_validator("kept")
    @classmethod
    def _kept_are_there(cls, kept: tuple[str, ...], info: Any) -> tuple[str, ...]:
        towers = info.data.get("towers", kept)  # not there if they are wrong, which is said
        for name in kept:
            if name not in towers:
                raise ValueError(f"no sensor {name!r}: there are {', '.join(towers)}")
        return kept

    def alone(self, data: Any, facts: Any) -> Alone:
        """The network of the sensor that is kept; all networks where there are several."""
        kept = list(self.kept or self.towers)
        if len(kept) > 1:
            return Alone(self, data, facts)
        name = kept[0]
        prefix = f"inner.networks.{name}."
        return Alone(self.towers[name].network, data.sensors[name], facts.of[name], prefix)

    def preparing_snippet(self, data: Any, facts: Any) -> str:
        """What the networks take."""
        return """
from similitude.multimodal.inputs import SensorInputs

# of: a batch for each sensor, as its own network takes it; present: which of them are there
# features = backbone(SensorInputs(of, present))"""

    def build(self) -> nn.Module:
        """The networks with random weights."""
        built = {name: tower.network.build() for name, tower in self.towers.items()}
        network = Towers(built, self.kept or tuple(built))
        network.built_from = self  # type: ignore[assignment]
        network.has_pretrained_weights = False  # type: ignore[assignment]
        return network


class AllTowers(nn.Module):
    """All that the networks of all sensors give, side by side; zeros where an entry is missing.

    Of a network with ``stages`` the mean outputs of each of its stages, the last of which are its
    features; of another one the features.
    """

    def __init__(self, networks: dict[str, nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(networks)

    def forward(self, inputs: SensorInputs) -> Float[Tensor, "N _"]:
        """Of samples of which some entries, or all of some sensors, may be missing."""
        found = []
        for name, x in inputs.of.items():
            network: Any = self.networks[name]
            stages = network.stages(x) if hasattr(network, "stages") else [network(x)]
            found += [h * inputs.present[name][:, None].to(h.dtype) for h in stages]
        return torch.cat(found, dim=1)


class Towers(nn.Module):
    """A network for each sensor.

    Attributes:
        inner: All of them; a method calls it, and has the features of all.
        widths: Features of each sensor, in order.
        stage_widths: Numbers of each of its stages, the last of which are the features.
        kept: Sensors whose features the network itself gives.
    """

    def __init__(self, networks: dict[str, nn.Module], kept: tuple[str, ...]) -> None:
        super().__init__()
        self.inner = AllTowers(networks)
        self.widths = {name: int(network.num_features) for name, network in networks.items()}  # type: ignore[arg-type]
        self.stage_widths: dict[str, tuple[int, ...]] = {
            name: getattr(network, "stage_widths", (self.widths[name],))
            for name, network in networks.items()
        }
        self.kept = kept
        self.num_features = sum(self.widths[name] for name in kept)

    def stages(self, inputs: SensorInputs) -> dict[str, list[Float[Tensor, "N _"]]]:
        """What the stages of every sensor's network give, the features last."""
        names = list(inputs.of)
        sizes = [width for name in names for width in self.stage_widths[name]]
        found = iter(self.inner(inputs).split(sizes, dim=1))
        return {name: [next(found) for _ in self.stage_widths[name]] for name in names}

    def parts(self, inputs: SensorInputs) -> dict[str, Float[Tensor, "N _"]]:
        """The features of every sensor."""
        return {name: stages[-1] for name, stages in self.stages(inputs).items()}

    def forward(self, inputs: SensorInputs) -> Float[Tensor, "N D"]:
        """The features of the sensors that are kept.

        Raises:
            UserError: one is missing everywhere.
        """
        for name in self.kept:
            if name not in inputs.of:
                raise UserError(f"the network of {name!r} is kept, and this data has no {name}")
        kept = {name: inputs.of[name] for name in self.kept}
        return torch.cat(list(self.parts(replace(inputs, of=kept)).values()), dim=1)
