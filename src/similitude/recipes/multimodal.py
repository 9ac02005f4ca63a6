"""Recipes for several sensors: each sensor's own kind says how its data, network and view are."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from similitude.errors import UserError
from similitude.method import MethodConfig, Role
from similitude.methods import make_config
from similitude.modalities import chooser
from similitude.multimodal.networks import TowerConfig, Towers, TowersConfig
from similitude.multimodal.samples import OneSensor, SensorData
from similitude.multimodal.sensor_set import SensorSet
from similitude.multimodal.table import TableSource
from similitude.multimodal.views import SensorViewConfig
from similitude.recipes.choose import Chooser, Surroundings, set_num_samples, with_batch, with_views
from similitude.recipes.recipe import OptimizerConfig, Recipe, because

WIDTH = 256  # of projections
BATCH_SIZE = 64
RATES = {"elo": 8e-3}  # two points of a probe above a quarter of it (docs/results.md)


@dataclass(frozen=True)
class SensorSurroundings(Surroundings):
    """Those of every sensor, with its kind.

    Attributes:
        of: Of each sensor.
        together: Sensors of one file, so of one place and time.
    """

    of: Mapping[str, tuple[str, Surroundings]] = field(default_factory=dict)
    together: tuple[str, ...] = ()


def clip() -> Recipe:
    """CLIP (Radford et al. 2021, Sec. 2.5), but for its networks and its 400 million pairs."""
    return _recipe("clip", {}, batch_size=32_768, epochs=32, base_lr=5e-4 / 128)


def siglip() -> Recipe:
    """CLIP with a sigmoid for every pair (Zhai et al. 2023, Sec. 4)."""
    return _recipe("clip", {"loss": "sigmoid"}, batch_size=32_768, epochs=32, base_lr=1e-3 / 128)


def elo() -> Recipe:
    """ELo (Piergiovanni et al. 2020) with equal weights; the paper does not print its schedule."""
    return _recipe("elo", {}, batch_size=256, epochs=50, base_lr=1e-3)


def _recipe(
    method: str, settings: dict[str, Any], batch_size: int, epochs: int, base_lr: float
) -> Recipe:
    return Recipe(
        method=with_views(make_config(method, settings), SensorViewConfig()),
        data=SensorData(),
        backbone=TowersConfig(),
        optimizer=OptimizerConfig(name="adamw", base_lr=base_lr, weight_decay=0.2, warmup_epochs=1),
        epochs=epochs,
        batch_size=batch_size,
    )


class Multimodal(Chooser):
    """What :mod:`similitude.training.choose` asks about several sensors."""

    default_method = "clip"

    def surroundings(self, source: Any, num_samples: int | None = None) -> SensorSurroundings:
        """Those of every sensor that the source has."""
        own: dict[str, tuple[str, Surroundings]] = {}
        together: list[str] = []
        if isinstance(source, TableSource):
            for name, kind in source.kinds.items():
                own[name] = (kind, chooser(kind).surroundings(source.column(name)))
            together = [n for n in own if list(source.cells.values()).count(source.cells[n]) > 1]
        else:
            assert isinstance(source, OneSensor)
            raise UserError(f"{source.name} has one sensor: name a table to train on several")
        plain = Surroundings.of(source, (), num_samples)
        return SensorSurroundings(
            plain.num_samples, (), plain.device, plain.name, own, tuple(together)
        )

    def choose(
        self,
        method: str,
        around: Surroundings,
        batch_size: int | None = None,
        minutes: float | None = None,
        *,
        own_network: bool = False,
    ) -> Recipe:
        """For every sensor its kind's own choice, and few large steps."""
        assert isinstance(around, SensorSurroundings)
        rate = RATES.get(method, 2e-3)
        recipe = _recipe(method, {}, batch_size=BATCH_SIZE, epochs=60, base_lr=rate)
        narrow = recipe.method.in_role(Role.WIDTH)
        fields = {name: min(WIDTH, width) for name, width in narrow.items()}
        recipe = recipe.changed(method=recipe.method.changed(**fields))
        for name, (kind, own) in around.of.items():
            chosen = chooser(kind).choose("simclr", own, batch_size, minutes, own_network=True)
            view = chosen.data.mild_view(chosen.method.view_configs.values())
            recipe = _with_sensor(recipe, name, chosen, view)
        recipe = _in_one_time(recipe, around.together)
        recipe = with_batch(recipe, around, batch_size, "others to be told from, in many steps")
        first = next(iter(around.of))
        why = "the first column of the table"
        if len(around.of) > 1 and not recipe.method.compares_sensors:
            why += f", and all that {method} trains: clip and cmc compare sensors"
        return because(recipe, why, **{"backbone.kept": (first,)})

    def any_recipe(self) -> Recipe:
        """One whose data fields are those of all."""
        return clip()

    def any_data(self, source: TableSource) -> SensorData:
        """That of every column."""
        kinds = source.kinds.items()
        own = {name: chooser(kind).any_data(source.column(name)) for name, kind in kinds}
        return SensorData(sensors=own)

    def network(self, name: str, beside: Recipe, *, keep: bool = False) -> TowersConfig:
        """The towers of the recipe."""
        if name != "towers":
            raise UserError(
                f"each sensor has a network of its own: set backbone.towers.SENSOR.network.name "
                f"to {name}"
            )
        assert isinstance(beside.backbone, TowersConfig)
        return beside.backbone

    def settle(self, recipe: Recipe, source: Any) -> Recipe:
        """With what each kind finds in its column."""
        assert isinstance(source, TableSource)
        own_sources = {
            name: source.column(name, own)
            for name, own in recipe.data.sensors.items()  # type: ignore[attr-defined]
            if name in source.kinds
        }
        return _each(
            recipe,
            lambda name, own: (
                _chooser_of(own).settle(own, own_sources[name]) if name in own_sources else own
            ),
        )

    def to_fit(self, recipe: Recipe, around: Surroundings) -> Recipe:
        """With what each network must know of its sensor."""
        if not isinstance(around, SensorSurroundings):
            return recipe
        if not recipe.data.sensors:  # type: ignore[attr-defined]
            recipe = self._filled(recipe, around)
        sensors = recipe.data.sensors  # type: ignore[attr-defined]
        if not sensors.keys() <= around.of.keys():
            raise UserError(
                f"the recipe is for the sensors {', '.join(sensors)}, and {around.name} has "
                f"{', '.join(around.of)}: name a table with such columns"
            )
        return _each(recipe, lambda name, own: _chooser_of(own).to_fit(own, around.of[name][1]))

    def _filled(self, recipe: Recipe, around: SensorSurroundings) -> Recipe:
        """A published recipe, which says nothing of the sensors, with those of the table."""
        chosen = self.choose(recipe.method.name, around, recipe.batch_size)
        method = with_views(recipe.method, SensorViewConfig()).changed(**chosen.method.view_configs)
        return recipe.changed(method=method, data=chosen.data, backbone=chosen.backbone)

    def check(self, recipe: Recipe, network: nn.Module) -> None:
        """Let each kind look at its network."""
        assert isinstance(network, Towers)
        assert isinstance(recipe.data, SensorData)
        for name in recipe.data.sensors:
            own = _of_sensor(recipe, name)
            _chooser_of(own).check(own, network.inner.networks[name])

    def fit(
        self, recipe: Recipe, samples: Any, given: Collection[str], *, pixels: bool, views: bool
    ) -> Recipe:
        """With what each kind measures on its sensor."""
        assert isinstance(samples, SensorSet)
        recipe = set_num_samples(recipe, len(samples))

        def fitted(name: str, own: Recipe) -> Recipe:
            prefix = f"data.sensors.{name}."
            known = {path.removeprefix(prefix) for path in given}
            return _chooser_of(own).fit(own, samples.of[name], known, pixels=pixels, views=False)

        return _each(recipe, fitted)


def _in_one_time(recipe: Recipe, together: Collection[str]) -> Recipe:
    """With views of one place and time of the sensors of one file, as long as its clips."""
    if not together:
        return recipe
    data, views = recipe.data, recipe.method.view_configs
    assert isinstance(data, SensorData)
    sensors = dict(data.sensors)
    clips = [own for own in sensors.values() if own.kind == "video"]
    for name in together:
        if sensors[name].kind == "audio" and clips:
            seconds = clips[0].frames / clips[0].rate  # type: ignore[attr-defined]
            sensors[name] = sensors[name].changed(seconds=seconds)
            views = {
                n: v.changed(of={**v.of, name: v.of[name].changed(seconds=None)})
                if isinstance(v, SensorViewConfig)
                else v
                for n, v in views.items()
            }
    method = recipe.method.changed(**views)
    recipe = recipe.changed(data=data.changed(sensors=sensors), method=method)
    why = f"{', '.join(together)} are of the same files"
    return because(recipe, why, **{f"method.{name}.aligned": True for name in views})


def _of_sensor(recipe: Recipe, name: str) -> Recipe:
    """A recipe of one sensor alone, for what its kind has to say."""
    data, backbone = recipe.data, recipe.backbone
    assert isinstance(data, SensorData)
    assert isinstance(backbone, TowersConfig)
    configs = recipe.method.view_configs.values()
    views = [config.of[name] for config in configs if isinstance(config, SensorViewConfig)]
    return Recipe(
        method=_simclr(views[0]),
        data=data.sensors[name],
        backbone=backbone.towers[name].network,
        optimizer=recipe.optimizer,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        micro_batch_size=recipe.micro_batch_size,
        activation_checkpointing=recipe.activation_checkpointing,
    )


def _simclr(view: Any) -> MethodConfig:
    return make_config("simclr", {}).changed(view=view)


def _chooser_of(own: Recipe) -> Chooser:
    return chooser(own.data.kind)


def _each(recipe: Recipe, change: Callable[[str, Recipe], Recipe]) -> Recipe:
    """The recipe after a change of every sensor's own."""
    assert isinstance(recipe.data, SensorData)
    for name in recipe.data.sensors:
        own = change(name, _of_sensor(recipe, name))
        recipe = _with_sensor(recipe, name, own, next(iter(own.method.view_configs.values())))
    return recipe


def _with_sensor(recipe: Recipe, name: str, own: Recipe, view: Any) -> Recipe:
    """The recipe with data, network and view of one sensor, and the reasons for them."""
    data, backbone, method = recipe.data, recipe.backbone, recipe.method
    assert isinstance(data, SensorData)
    assert isinstance(backbone, TowersConfig)
    tower = TowerConfig(kind=own.data.kind, network=own.backbone)
    views = {
        field: config.changed(of={**config.of, name: view})
        for field, config in method.view_configs.items()
        if isinstance(config, SensorViewConfig)
    }
    places = {"data.": f"data.sensors.{name}.", "backbone": f"backbone.towers.{name}.network"}
    reasons = {
        place + field.removeprefix(start): why
        for field, why in own.reasons.items()
        for start, place in places.items()
        if field.startswith(start)
    }
    return recipe.changed(
        method=method.changed(**views),
        data=data.changed(sensors={**data.sensors, name: own.data}),
        backbone=backbone.changed(towers={**backbone.towers, name: tower}),
        reasons={**recipe.reasons, **reasons},
    )


CHOOSER = Multimodal()
