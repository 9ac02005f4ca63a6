"""Videos as one of the kinds of data."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn

from similitude.data.decoded import Decoded, decode_once, decode_some
from similitude.data.encoded import are_wanted, find_encoded
from similitude.data.files import ByteFile
from similitude.data.openers import open_both, open_part
from similitude.data.source import FileSource
from similitude.modalities import Modality
from similitude.sample import DataConfig, ViewConfig
from similitude.video.decoding import VIDEOS, check_libraries, decode_flow, decode_frames
from similitude.video.films import Films, Frames
from similitude.video.networks import VideoNetworkConfig
from similitude.video.video_set import VideoSet
from similitude.video.views import CHANNELS, Shown, VideoFacts, VideoViewConfig

_FORMAT = 1  # of the cache; larger when frames would come out differently


class VideoData(DataConfig):
    """What a recipe decides of videos: how many frames a second, and what of them is seen.

    Attributes:
        shows: "frames" (RGB), "gray", or "flow" (optical flow from each frame to the next).
        rate: Frames in a second, at which all videos are read.
        size: Side of a frame in pixels: the short side, the middle square.
        frames: Of a clip in evaluations, which see the middle of a video.
        mean: Per channel; measured on the data.
        std: Likewise.
    """

    kind: Literal["video"] = "video"
    shows: Shown = "frames"
    rate: float = Field(default=8.0, gt=0, le=240)
    size: int = Field(default=112, ge=4)
    frames: int = Field(default=16, ge=1)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    fewest_steps: ClassVar[int] = 500

    @model_validator(mode="after")
    def _one_for_each_channel(self) -> "VideoData":
        channels = CHANNELS[self.shows]
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (0, channels):
                raise ValueError(f"{name} has one number for each of {channels} channels")
        return self

    def facts(self, views: Collection[ViewConfig]) -> VideoFacts:
        """What clips are and how they are normalized."""
        channels = CHANNELS[self.shows]
        mean, std = self.mean or (0.0,) * channels, self.std or (1.0,) * channels
        return VideoFacts(self.shows, self.size, self.frames, mean, std)

    def noise(self, number: int) -> Films:
        """Clips of random pixels."""
        channels = 2 if self.shows == "flow" else 3
        shape = (number * self.frames, channels, self.size, self.size)
        kept = torch.int8 if self.shows == "flow" else torch.uint8
        low, high = (-16, 17) if self.shows == "flow" else (0, 256)
        rows = torch.randint(low, high, shape, dtype=kept).numpy()
        length = np.full(number, self.frames, np.int64)
        frames = Frames(rows, np.cumsum(length) - length, length, self.rate)
        return Films(frames, torch.arange(number))

    def view_cost(self, views: Sequence[Any]) -> float:
        """The pixels of all frames."""
        return sum(float(view[0].numel()) for view in views)

    def training_view(self, views: Collection[ViewConfig]) -> VideoViewConfig:
        """A window and a mirror, without other light."""
        ours = next((v for v in views if isinstance(v, VideoViewConfig)), VideoViewConfig())
        return ours.changed(brightness=0, contrast=0, grey=0)

    def serving(self, others: Sequence["VideoData"]) -> "VideoData":
        """Frames that are read once serve all of their rate and size."""
        return self


@dataclass(frozen=True, kw_only=True)
class VideoSource(FileSource):
    """Video files of which frames or flow are looked at.

    Attributes:
        files: As they are.
        shows: What is looked at.
    """

    files: FileSource
    shows: Shown

    @property
    def readers(self) -> int:
        """Those of the files."""
        return self.files.readers

    def file(self, i: int) -> ByteFile:
        """The content of video ``i``."""
        return self.files.file(i)

    def read_ahead(self, blocks: Sequence[int]) -> None:
        """As the files do."""
        self.files.read_ahead(blocks)

    def fingerprint(self) -> str:
        """That of the files."""
        return self.files.fingerprint()


class Videos(Modality):
    """Video files: in folders, tar or Parquet files, data sets of Hugging Face."""

    kind = "video"
    noun = "videos"
    data_config = VideoData
    network_config = VideoNetworkConfig
    view_configs: ClassVar[Mapping[str, type]] = {"video": VideoViewConfig}
    suffixes: ClassVar[tuple[str, ...]] = VIDEOS.suffixes
    is_streamed = True

    def of_files(
        self, files: FileSource, sensor: str, config: VideoData | None = None
    ) -> VideoSource:
        """Files; of a column called flow or gray that is looked at."""
        shows: Shown = sensor if sensor in CHANNELS else "frames"  # type: ignore[assignment]
        known = {field.name: getattr(files, field.name) for field in fields(FileSource)}
        return VideoSource(**known, files=files, shows=shows)

    def claims(self, data: Any) -> bool:
        """Files that are videos, or videos that are loaded already."""
        return isinstance(data, VideoSet) or are_wanted(data, VIDEOS)

    def sensors_of(self, data: Any) -> Mapping[str, str]:
        """Its frames, their flow and the sound."""
        return {"frames": "video", "flow": "video", "sound": "audio"}

    def open_training(
        self, data: Any, config: VideoData | None, *, resumed: bool = False
    ) -> FileSource:
        """The training part, or all."""
        return open_part(find_encoded(data, VIDEOS), None, self.noun)

    def open_part(self, data: Any, split: str | None, config: VideoData) -> FileSource:
        """A part."""
        return open_part(find_encoded(data, VIDEOS), split, self.noun)

    def open_parts(self, data: Any, config: VideoData | None) -> list[FileSource]:
        """The training part and the test part, or all."""
        return open_both(find_encoded(data, VIDEOS), lambda source, first: source, self.noun)

    def load(
        self,
        source: FileSource,
        config: VideoData,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> VideoSet:
        """Decode to frames, or to flow."""
        flow = config.shows == "flow"
        check_libraries(flow=flow)
        stamp = f"{'flow' if flow else 'frames'}-{config.rate:g}-{config.size}-{_FORMAT}"
        found = decode_once(
            source, partial(_decoded, source, config), "video", stamp, on_progress=on_progress
        )
        return _video_set(source, found, config)

    def load_some(
        self, source: FileSource, positions: Sequence[int], config: VideoData
    ) -> VideoSet:
        """Decode a few videos."""
        check_libraries(flow=config.shows == "flow")
        channels = 2 if config.shows == "flow" else 3
        empty = np.zeros((0, channels, config.size, config.size), np.uint8)
        found = decode_some(source, positions, partial(_decoded, source, config), empty)
        return _video_set(source, found, config)

    def tiny(self, method: str, side: int, features: int) -> tuple[VideoData, nn.Module]:
        """Clips of two frames."""
        network = nn.Sequential(
            nn.AdaptiveAvgPool3d((2, side, side)),
            nn.Flatten(),
            nn.Linear(6 * side * side, features),
            nn.Tanh(),
        )
        network.num_features = features  # type: ignore[assignment]
        return VideoData(size=side, frames=2), network


def _decoded(source: FileSource, config: VideoData, i: int) -> np.ndarray:
    decode = decode_flow if config.shows == "flow" else decode_frames
    with source.file(i) as file:
        return decode(file, config.rate, config.size)


def _video_set(source: FileSource, found: Decoded, config: VideoData) -> VideoSet:
    kept = found.kept
    return VideoSet(
        frames=Frames(found.rows, found.start, found.length, config.rate),
        index=torch.arange(len(kept)),
        shows=config.shows,
        names=[source.names[i] for i in kept],
        labels=None if source.labels is None else source.labels[torch.tensor(kept)],
        class_names=source.class_names,
        unreadable=found.unreadable,
    )


MODALITY = Videos()
