"""Recipes for sounds."""

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from similitude.audio.loading import decode_some
from similitude.audio.networks import AudioNetworkConfig
from similitude.audio.samples import AudioData
from similitude.audio.sound_set import SoundSet
from similitude.audio.views import AudioViewConfig
from similitude.data.source import FileSource
from similitude.distributed import world_size
from similitude.errors import UserError
from similitude.method import MethodConfig, Role
from similitude.methods import make_config
from similitude.recipes.choose import Chooser, Surroundings, set_num_samples
from similitude.recipes.recipe import OptimizerConfig, Recipe, because

WIDTH = 512  # of hidden layers in heads
BATCH_SIZE = 64
LONGEST = 10.0  # seconds of a clip in evaluations
CUT = 0.95  # seconds of a view, as in BYOL-A

# Coarse frames: a step costs a tenth of that of published ones.
SMALL_DATA = AudioData(bands=32, window=1024, hop=1000)
SMALL_NETWORK = AudioNetworkConfig(name="byol_a_v2", bands=32, channels=32, hidden=256)


def byol_a() -> Recipe:
    """BYOL-A (Niizumi et al. 2021, Tab. I): 100 epochs of AudioSet on its own network."""
    view = AudioViewConfig(seconds=CUT)
    return _published(view, "byol_a", hidden=2048, mix=0.4, fade=0.0, lr=3e-4)


def byol_a_v2() -> Recipe:
    """BYOL-A, second version (Niizumi et al. 2022): less mixing, a linear fader, 3,072 features."""
    view = AudioViewConfig(seconds=CUT)
    return _published(view, "byol_a_v2", hidden=2048, mix=0.2, fade=1.0, lr=1e-4)


def _published(
    view: AudioViewConfig, network: str, *, hidden: int, mix: float, fade: float, lr: float
) -> Recipe:
    view = view.changed(mix=mix, fade=fade)
    heads = {"hidden_dim": 4096, "projection_dim": 256}
    schedule = {"ema_decay": 0.99, "ema_schedule": "constant"}
    return Recipe(
        method=make_config("byol", {"view1": view, "view2": view, **heads, **schedule}),
        data=AudioData(),
        backbone=AudioNetworkConfig(name=network, hidden=hidden),
        optimizer=OptimizerConfig(name="adam", base_lr=lr, weight_decay=0, schedule="constant"),
        epochs=100,
        batch_size=256,
    )


def small(method: str) -> Recipe:
    """A method on short clips of a few thousand, in minutes on two cores."""
    config = _on_sounds(make_config(method, {}))
    return Recipe(
        method=config,
        data=SMALL_DATA,
        backbone=SMALL_NETWORK,
        optimizer=OptimizerConfig(name="adamw", base_lr=4e-3, weight_decay=1e-4, warmup_epochs=2),
        epochs=60,
        batch_size=BATCH_SIZE,
        precision="float32",
        memory_format="contiguous",
        attention="fused",
        compile=False,
    )


def _on_sounds(config: MethodConfig) -> MethodConfig:
    """The method with BYOL-A's views in the place of its views of images, and narrow heads."""
    view = AudioViewConfig(seconds=CUT)
    views = {
        name: given if isinstance(given, AudioViewConfig) else view
        for name, given in config.view_configs.items()
    }
    narrow = {name: min(WIDTH, width) for name, width in config.in_role(Role.WIDTH).items()}
    return config.changed(**views, **narrow)


class Audio(Chooser):
    """What :mod:`similitude.training.choose` asks about sounds."""

    default_method = "byol"

    def surroundings(self, source: FileSource, num_samples: int | None = None) -> Surroundings:
        """The median length of some of the sounds, in milliseconds."""
        n = len(source)
        some = decode_some(source, sorted({i * n // 32 for i in range(32)}), 16_000)
        lengths = [max(1, round(1000 * s)) for s in some.seconds.tolist()] or [1000]
        return Surroundings.of(source, lengths, num_samples)

    def choose(
        self,
        method: str,
        around: Surroundings,
        batch_size: int | None = None,
        minutes: float | None = None,
        *,
        own_network: bool = False,
    ) -> Recipe:
        """The small recipe, with cuts that fit the sounds and a batch that fits their number."""
        recipe = small(method)
        seconds = around.short_side / 1000
        size = batch_size or recipe.batch_size
        while batch_size is None and size > 8 and size > around.num_samples // 4:
            size //= 2
        size = size if batch_size else max(1, size // world_size()) * world_size()
        recipe = because(recipe, "many steps in a short run", batch_size=size)
        for name, (value, reason) in recipe.method.fitted(
            around.num_samples, size, world_size()
        ).items():
            recipe = because(recipe, reason, **{f"method.{name}": value})
        why = f"the median length of the sounds, at most {LONGEST:g}"
        recipe = because(recipe, why, **{"data.seconds": min(LONGEST, seconds)})
        if seconds < CUT:
            why = "nine tenths of a sound, as BYOL-A's cuts are of a second"
            cuts = {f"method.{n}.seconds": 0.9 * seconds for n in recipe.method.view_configs}
            recipe = because(recipe, why, **cuts)
        return recipe

    def any_recipe(self) -> Recipe:
        """One whose data fields are those of all."""
        return small("byol")

    def network(self, name: str, beside: Recipe, *, keep: bool = False) -> AudioNetworkConfig:
        """One of the networks for sounds, or of timm's on spectrograms."""
        known = ("byol_a", "byol_a_v2", "transformer")
        if name not in known and not name.startswith("timm:"):
            raise UserError(
                f"unknown network for sounds {name!r}: there are {', '.join(known)}, timm:NAME"
            )
        assert isinstance(beside.backbone, AudioNetworkConfig)
        return beside.backbone.changed(name=name)

    def to_fit(self, recipe: Recipe, around: Surroundings) -> Recipe:
        """With as many bands as spectrograms have."""
        assert isinstance(recipe.data, AudioData)
        return recipe.changed(backbone=recipe.backbone.changed(bands=recipe.data.bands))

    def check(self, recipe: Recipe, network: nn.Module) -> None:
        """Send noise through the network."""
        rows, facts = recipe.data.noise(2), recipe.facts
        with torch.no_grad():
            waves = rows.middle(max(1, round(facts.seconds * facts.mel.rate)))
            try:
                network.eval()(waves[:, None] if facts.raw else facts.normalized(waves))
            except RuntimeError as error:
                raise UserError(
                    f"the network does not take clips of {facts.seconds:g} s: {error}"
                ) from error

    def fit(
        self, recipe: Recipe, samples: Any, given: Collection[str], *, pixels: bool, views: bool
    ) -> Recipe:
        """With mean and standard deviation of the spectrograms."""
        recipe = set_num_samples(recipe, len(samples))
        assert isinstance(samples, SoundSet)
        assert isinstance(recipe.data, AudioData)
        if pixels and not recipe.data.raw and not {"data.mean", "data.std"} & set(given):
            plain = recipe.data.changed(mean=0.0, std=1.0).facts(())
            some = samples.spread(2000)
            x = torch.cat(
                [some.clean(some.take(slice(i, i + 256)), plain) for i in range(0, len(some), 256)]
            )
            found = {"data.mean": x.mean().item(), "data.std": max(1e-3, x.std().item())}
            recipe = because(recipe, "measured on these sounds", **found)
        return recipe


CHOOSER = Audio()
