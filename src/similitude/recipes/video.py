"""Recipes for videos."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from similitude.data.source import FileSource
from similitude.errors import UserError
from similitude.method import Role
from similitude.methods import make_config
from similitude.modalities import modality
from similitude.recipes.choose import Chooser, Surroundings, set_num_samples, with_batch, with_views
from similitude.recipes.recipe import OptimizerConfig, Recipe, because
from similitude.video.networks import VideoNetworkConfig
from similitude.video.samples import VideoData
from similitude.video.video_set import VideoSet
from similitude.video.views import CHANNELS, Shown, VideoViewConfig

WIDTH = 256  # of layers in heads
BATCH_SIZE = 32
SIZE, FRAMES = 32, 16  # pixels of a side, and the most frames of a clip, of a small run
LOOKED_AT = 16  # videos whose length is looked at


@dataclass(frozen=True)
class VideoSurroundings(Surroundings):
    """With what is looked at."""

    shows: Shown = "frames"


class Video(Chooser):
    """What :mod:`similitude.training.choose` asks about videos."""

    default_method = "simclr"

    def surroundings(self, source: FileSource, num_samples: int | None = None) -> VideoSurroundings:
        """The median length of some of the videos, in milliseconds."""
        some = modality("video").load_some(source, source.spread(LOOKED_AT), VideoData(size=4))
        lengths = [max(1, round(1000 * s)) for s in some.seconds.tolist()] or [1000]
        plain = Surroundings.of(source, lengths, num_samples)
        shows: Shown = getattr(source, "shows", "frames")
        return VideoSurroundings(plain.num_samples, lengths, plain.device, plain.name, shows)

    def choose(
        self,
        method: str,
        around: Surroundings,
        batch_size: int | None = None,
        minutes: float | None = None,
        *,
        own_network: bool = False,
    ) -> Recipe:
        """Small frames, and clips as long as the videos, at most 16 frames."""
        shows = around.shows if isinstance(around, VideoSurroundings) else "frames"
        config = with_views(make_config(method, {}), VideoViewConfig())
        narrow = {name: min(WIDTH, width) for name, width in config.in_role(Role.WIDTH).items()}
        data = VideoData(shows=shows, size=SIZE)
        recipe = Recipe(
            method=config.changed(**narrow),
            data=data,
            backbone=VideoNetworkConfig(channels=CHANNELS[shows], width=16, layers=(1, 1, 1, 1)),
            optimizer=OptimizerConfig(
                name="adamw", base_lr=4e-3, weight_decay=1e-4, warmup_epochs=2
            ),
            epochs=60,
            batch_size=BATCH_SIZE,
        )
        recipe = with_batch(recipe, around, batch_size, "many steps in a short run")
        frames = max(1, min(FRAMES, round(around.short_side / 1000 * data.rate)))
        why = f"the median length of the videos, at most {FRAMES}"
        return because(recipe, why, **{"data.frames": frames})

    def any_recipe(self) -> Recipe:
        """One whose data fields are those of all."""
        return self.choose("simclr", Surroundings(2, (1000,), torch.device("cpu")))

    def network(self, name: str, beside: Recipe, *, keep: bool = False) -> VideoNetworkConfig:
        """The network for videos, or one of timm's on each frame."""
        if name != "r2plus1d" and not name.startswith("timm:"):
            raise UserError(f"unknown network for videos {name!r}: there are r2plus1d, timm:NAME")
        assert isinstance(beside.backbone, VideoNetworkConfig)
        return beside.backbone.changed(name=name)

    def to_fit(self, recipe: Recipe, around: Surroundings) -> Recipe:
        """With as many channels as there are."""
        assert isinstance(recipe.data, VideoData)
        channels = CHANNELS[recipe.data.shows]
        return recipe.changed(backbone=recipe.backbone.changed(channels=channels))

    def check(self, recipe: Recipe, network: nn.Module) -> None:
        """Send noise through the network."""
        assert isinstance(recipe.data, VideoData)
        facts, rows = recipe.facts, recipe.data.noise(2)
        with torch.no_grad():
            try:
                network.eval()(facts.normalized(facts.shown(rows.middle(facts.frames))))
            except (RuntimeError, AssertionError, ValueError) as error:
                raise UserError(
                    f"the network does not take clips of {facts.frames} frames of {facts.size} "
                    f"pixels: {error}"
                ) from error

    def fit(
        self, recipe: Recipe, samples: Any, given: Collection[str], *, pixels: bool, views: bool
    ) -> Recipe:
        """With mean and standard deviation of each channel."""
        recipe = set_num_samples(recipe, len(samples))
        assert isinstance(samples, VideoSet)
        assert isinstance(recipe.data, VideoData)
        if pixels and not {"data.mean", "data.std"} & set(given):
            plain = recipe.data.changed(mean=(), std=()).facts(())
            some = samples.spread(200)
            x = some.clean(some.take(slice(None)), plain).transpose(0, 1).flatten(1)
            found = {
                "data.mean": tuple(round(m, 4) for m in x.mean(1).tolist()),
                "data.std": tuple(round(max(1e-3, s), 4) for s in x.std(1).tolist()),
            }
            recipe = because(recipe, "measured on these videos", **found)
        return recipe


CHOOSER = Video()
