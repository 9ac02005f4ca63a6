"""Images as one of the kinds of data."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from similitude.data.encoded import have_texts
from similitude.data.source import FileSource
from similitude.files.writing import as_path, check_writable
from similitude.images.attention import attention_maps, has_attention
from similitude.images.backbones import BackboneConfig
from similitude.images.config import ImageData
from similitude.images.decoder import native_size
from similitude.images.decoding import IMAGES, ValueRange
from similitude.images.feature_maps import FeatureMaps
from similitude.images.image_set import MAX_PIXEL_SIDE, ImageSet
from similitude.images.loading import load_images, load_some, pack_images
from similitude.images.opening import Range, open_parts, open_source, open_stream
from similitude.images.source import ImageSource, as_images
from similitude.images.stored import ARRAYS
from similitude.images.tiles import cut_into_tiles
from similitude.images.views import ImageFacts, ImageViewConfig, PatchViewConfig
from similitude.listener import Listener
from similitude.modalities import Modality

ATTENTION_IMAGES = 8  # shown with the attention of a ViT
ATTENTION_SIZE = 112  # pixels at most


class Images(Modality):
    """Photos and other pictures, whatever file, array or data set they are in."""

    kind = "image"
    noun = "images"
    data_config = ImageData
    network_config = BackboneConfig
    view_configs: ClassVar = {"image": ImageViewConfig, "patches": PatchViewConfig}
    suffixes: ClassVar[tuple[str, ...]] = (*IMAGES.suffixes, *ARRAYS.suffixes)
    is_streamed = True

    def of_files(
        self, files: FileSource, sensor: str, config: ImageData | None = None
    ) -> ImageSource:
        """Files as images, with the channels of the first where nothing is said."""
        source = as_images(files)
        form = _form(config) or {"channels": source.shown_channels()}
        return open_source(source, values=_values(config), **form)

    def claims(self, data: Any) -> bool:
        """Whatever no other kind claims is taken for images, and refused as such."""
        return True

    def sensors_of(self, data: Any) -> Mapping[str, str]:
        """Itself and what is written beside it, where something is."""
        return {"image": "image", "text": "text"} if have_texts(data, IMAGES) else {}

    def open_training(
        self, data: Any, config: ImageData | None, *, resumed: bool = False
    ) -> ImageSource:
        """Images, cut into tiles if the config says so: all other choices depend on it."""
        # of a run of before: each picture in the range of its type
        values = None if resumed and config and config.value_range is None else _values(config)
        source = open_source(data, values=values, **_form(config))
        tile_size = None if config is None else config.tile_size
        return source if tile_size is None else cut_into_tiles(source, tile_size)

    def open_part(self, data: Any, split: str | None, config: ImageData) -> ImageSource:
        """Images, deep ones shown as in training."""
        return open_source(data, split=split, values=_values(config), **_form(config))

    def open_parts(self, data: Any, config: ImageData | None) -> list[ImageSource]:
        """Images, deep ones shown as in training."""
        return open_parts(data, values=_values(config), **_form(config))

    def load(
        self,
        source: ImageSource,
        config: ImageData,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> ImageSet:
        return load_images(_as_in(config, source), config.canvas_size, on_progress=on_progress)

    def load_some(
        self, source: ImageSource, positions: Sequence[int], config: ImageData
    ) -> ImageSet:
        return load_some(_as_in(config, source), positions, config.canvas_size)

    def for_pictures(self, side: int, source: ImageSource) -> ImageData:
        return ImageData(image_size=side, canvas_size=side, channels=source.shown_channels())

    def pack(
        self,
        data: Any,
        output: str | Path | None,
        size: int | None,
        listener: Listener,
        **form: Any,
    ) -> Path:
        source = open_stream(data) or open_source(data, **form)
        for note in source.notes:
            listener.say(f"  {note}")
        name = Path(data).resolve().stem if isinstance(data, str | Path) else "images"
        path = as_path(output) if output is not None else Path(f"{name}.pack")
        check_writable(path)
        if output is None and path.exists():
            open_source(path)  # or it is no pack, and nobody said that it may go
            listener.say(f"  replaces {path}")
        images = pack_images(
            source,
            path,
            size,
            on_progress=lambda done, total: listener.progress("reading images", done, total),
            **form,
        )
        listener.say(f"{len(images):,} images of {source.name}, {images.size} px")
        if (told := images.told_unreadable(source.name)) is not None:
            listener.say(f"  {told}")
        return path

    def for_raw(self, config: ImageData, source: ImageSource) -> ImageData:
        """Of a size that does not depend on the run's canvases."""
        size = min(MAX_PIXEL_SIDE, native_size(source) or MAX_PIXEL_SIDE)
        return config.changed(canvas_size=max(4, size))

    @property
    def starts(self) -> Any:
        from similitude.images import starts  # timm takes a second

        return starts

    @property
    def exports(self) -> Mapping[str, Any]:
        from similitude.images.exports import EXPORTS

        return EXPORTS

    def as_files(self, samples: ImageSet, config: ImageData, folder: Path) -> list[Path]:
        """As ``.npy`` files, deep ones in the range that the originals have."""
        files = [folder / f"{number}.npy" for number in range(len(samples))]
        for file, pixels in zip(files, samples.pixels[:], strict=True):
            array = pixels.permute(1, 2, 0).numpy()
            if config.depth == 16 and config.value_range is not None:
                black, white = config.value_range
                array = (array * np.float32((white - black) / 65535) + black).astype(np.float32)
            np.save(file, array)
        return files

    def same(self, config: ImageData, samples: ImageSet) -> bool:
        """Whether canvases are of this size, and hold the same."""
        wanted = config.canvas_size, config.channels, config.depth
        return wanted == (samples.size, samples.channels, samples.depth)

    def start_for(self, weights: Any, config: ImageData | None) -> Any:
        """With a first layer for as many channels."""
        return self.starts.widened(weights, 3 if config is None else config.channels)

    def for_start(self, weights: Any, source: ImageSource) -> tuple[ImageFacts, ImageData]:
        """Images of the weights' own size: canvases an eighth larger, if the originals are."""
        wanted = round(weights.image_size * 8 / 7)
        wanted = max(4, min(wanted, native_size(source) or wanted))
        sizes: dict[str, Any] = {"image_size": weights.image_size, "canvas_size": wanted}
        form: dict[str, Any] = {"channels": source.channels, "depth": source.depth}
        config = ImageData(**sizes, **form, value_range=source.values)
        return ImageFacts(weights.image_size, weights.mean, weights.std), config

    def entrant_at(
        self, weights: Any, samples: ImageSet, source: ImageSource
    ) -> tuple[ImageFacts, ImageData | None]:
        """As :meth:`for_start`, unless the canvases are large enough already."""
        facts, config = self.for_start(weights, source)
        assert config.canvas_size is not None
        return facts, None if config.canvas_size <= samples.size else config

    def tiny(self, method: str, side: int, features: int) -> tuple[ImageData, nn.Module]:
        """Images of a few pixels; views may have sizes of their own."""
        network = nn.Sequential(
            nn.AdaptiveAvgPool2d(side),
            nn.Flatten(),
            nn.Linear(3 * side * side, features),
            nn.Tanh(),
        )
        network.num_features = features  # type: ignore[assignment]
        return ImageData(image_size=side), network

    def feature_maps(
        self, backbone: nn.Module, facts: ImageFacts, names: Sequence[str]
    ) -> FeatureMaps:
        return FeatureMaps(backbone, facts.size, names, facts.channels)

    def look_inside(
        self, backbone: nn.Module, samples: ImageSet, facts: ImageFacts, device: torch.device
    ) -> Mapping[str, Any] | None:
        """Where a ViT looks in a few images."""
        if not has_attention(backbone):
            return None
        few = samples.subset(samples.order(0, -2)[:ATTENTION_IMAGES])
        maps = attention_maps(backbone, few, facts, device=device)
        return {"maps": maps.numpy(), "images": few.thumbnails(ATTENTION_SIZE), "of": few}


def _as_in(config: ImageData, source: ImageSource) -> ImageSource:
    """The same images, with the channels and depth of the config and deep ones in its range."""
    source = source.decoded_as(**_form(config))
    return source.with_values(ValueRange(*config.value_range)) if config.value_range else source


def _form(config: ImageData | None) -> dict[str, Any]:
    return {} if config is None else {"channels": config.channels, "depth": config.depth}


def _values(config: ImageData | None) -> Range:
    """How deep pictures are shown; measured where nothing is said."""
    return "measured" if config is None or config.value_range is None else config.value_range


MODALITY = Images()
