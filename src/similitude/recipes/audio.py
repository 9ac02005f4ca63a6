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
from similitude.errors import UserError
from similitude.method import MethodConfig, Role
from similitude.methods import make_config
from similitude.recipes.choose import Chooser, Surroundings, set_num_samples, with_batch, with_views
from similitude.recipes.recipe import OptimizerConfig, Recipe, because

WIDTH = 512  # of hidden layers in heads
BATCH_SIZE = 64
LONGEST = 10.0  # seconds of a clip in evaluations
CUT = 0.95  # seconds of a view, as in BYOL-A
SHARE = 0.9  # of a sound that is a view, where sounds are shorter than that

# What a small run of a method is on, where it is not BYOL-A's: frames of 63 ms, which cost a tenth
# of published ones, and a network an eighth as wide.
_COARSE = AudioData(bands=32, hop=1000)
_NETWORK = AudioNetworkConfig(name="byol_a_v2", bands=32, channels=32, hidden=256, dropout=0)
# So few steps leave no time to forget units, nor a target that lags (docs/results.md).
_SETTINGS = {"byol_a": {"ema_decay": 0.98}}
_OTHERS = {
    "speech_simclr": (
        AudioData(bands=32, hop=256),
        AudioNetworkConfig(
            name="transformer", bands=32, hidden=64, blocks=2, heads=4, dropout=0.1, segments=4
        ),
    ),
    "cpc_audio": (AudioData(raw=True), AudioNetworkConfig(name="cpc", channels=64, hidden=128)),
}


def byol_a() -> Recipe:
    """BYOL-A (Niizumi et al. 2021, Sec. IV-A): 100 epochs of AudioSet, 2,048 features."""
    return _published("byol_a", {}, AudioNetworkConfig(name="byol_a"), 3e-4)


def byol_a_v2() -> Recipe:
    """BYOL-A, second version (2022): less is mixed in, a fader is added, 3,072 features."""
    view = AudioViewConfig(seconds=CUT, mix=0.2, fade=1.0)
    return _published("byol_a", {"view": view}, AudioNetworkConfig(name="byol_a_v2"), 1e-4)


def speech_simclr() -> Recipe:
    """Speech SimCLR (Jiang et al. 2021) on its smaller transformer, with Adam in place of LAMB."""
    network = AudioNetworkConfig(
        name="transformer", bands=40, hidden=768, blocks=3, heads=12, dropout=0.1
    )
    recipe = _published("speech_simclr", {}, network, 1e-4, batch_size=64)
    return recipe.changed(data=AudioData(bands=40, window=400, seconds=5.0))


def cpc_audio() -> Recipe:
    """CPC on LibriSpeech (van den Oord et al. 2018, Sec. 3.1): 512 channels, a GRU of 256."""
    network = AudioNetworkConfig(name="cpc", channels=512, hidden=256)
    recipe = _published("cpc_audio", {}, network, 2e-4 * 4, batch_size=64)
    return recipe.changed(data=AudioData(raw=True, seconds=1.28))


def _published(
    method: str,
    settings: dict[str, Any],
    network: AudioNetworkConfig,
    base_lr: float,
    batch_size: int = 256,
) -> Recipe:
    return Recipe(
        method=make_config(method, settings),
        data=AudioData(),
        backbone=network,
        optimizer=OptimizerConfig(
            name="adam", base_lr=base_lr, weight_decay=0, schedule="constant"
        ),
        epochs=100,
        batch_size=batch_size,
    )


def _small(method: str) -> Recipe:
    """A method on a few thousand short clips, in minutes on two cores."""
    data, network = _OTHERS.get(method, (_COARSE, _NETWORK))
    return Recipe(
        method=_on_sounds(make_config(method, _SETTINGS.get(method, {}))),
        data=data,
        backbone=network,
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
    config = with_views(config, AudioViewConfig(seconds=CUT))
    local = {
        name: view.changed(seconds=CUT / 2)
        for name, view in config.view_configs.items()
        if name.startswith("local") and isinstance(view, AudioViewConfig)
    }
    narrow = {name: min(WIDTH, width) for name, width in config.in_role(Role.WIDTH).items()}
    return config.changed(**narrow, **local)


class Audio(Chooser):
    """What :mod:`similitude.training.choose` asks about sounds."""

    default_method = "byol_a"

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
        recipe = _small(method)
        seconds = around.short_side / 1000
        recipe = with_batch(recipe, around, batch_size, "many steps in a short run")
        why = f"the median length of the sounds, at most {LONGEST:g}"
        recipe = because(recipe, why, **{"data.seconds": min(LONGEST, seconds)})
        for name, view in recipe.method.view_configs.items():
            share = SHARE / 2 if name.startswith("local") else SHARE
            if isinstance(view, AudioViewConfig) and (view.seconds or seconds) > share * seconds:
                why = f"{100 * share:.0f} % of a sound"
                recipe = because(recipe, why, **{f"method.{name}.seconds": share * seconds})
        return recipe

    def any_recipe(self) -> Recipe:
        """One whose data fields are those of all."""
        return _small("byol_a")

    def network(self, name: str, beside: Recipe, *, keep: bool = False) -> AudioNetworkConfig:
        """One of the networks for sounds, or of timm's on spectrograms."""
        known = ("byol_a", "byol_a_v2", "transformer", "cpc")
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
        assert isinstance(recipe.data, AudioData)
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
