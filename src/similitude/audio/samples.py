"""Sounds as one of the kinds of data."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn

from similitude.audio.clips import Clips, Waves
from similitude.audio.decoding import SOUNDS
from similitude.audio.loading import decode_some, load_sounds
from similitude.audio.networks import AudioNetworkConfig, FrameTransformer, Predictive
from similitude.audio.sound_set import SoundSet
from similitude.audio.spectrograms import Mel
from similitude.audio.views import AudioFacts, AudioViewConfig
from similitude.data.encoded import are_wanted, find_encoded, have_texts
from similitude.data.openers import open_both, open_part
from similitude.data.source import FileSource
from similitude.modalities import Modality
from similitude.sample import DataConfig, ViewConfig

Positive = Annotated[float, Field(gt=0)]


class AudioData(DataConfig):
    """What a recipe decides of sounds: their rate, and how spectrograms are computed.

    Attributes:
        sample_rate: Samples in a second, to which all sounds are brought.
        seconds: Of a clip in evaluations, which see its middle; measured on the data.
        window: Samples of a frame.
        hop: Samples from one frame to the next.
        bands: Mel bands.
        low: Lowest frequency in Hz.
        high: Highest frequency in Hz.
        mean: Of all log-mel spectrograms; measured on the data.
        std: Likewise.
        raw: Whether networks are given wave forms.
    """

    kind: Literal["audio"] = "audio"
    sample_rate: int = Field(default=16_000, ge=1_000)
    seconds: Positive = 1.0
    window: int = Field(default=1024, ge=16)
    hop: int = Field(default=160, ge=1)
    bands: int = Field(default=64, ge=8)
    low: float = Field(default=60.0, ge=0)
    high: Positive = 7_800.0
    mean: float = 0.0
    std: Positive = 1.0
    raw: bool = False

    fewest_steps: ClassVar[int] = 500

    @model_validator(mode="after")
    def _bands_fit(self) -> "AudioData":
        if not self.low < self.high <= self.sample_rate / 2:
            raise ValueError(
                f"bands from {self.low:g} to {self.high:g} Hz do not fit {self.sample_rate} "
                f"samples a second: the highest is at most {self.sample_rate / 2:g}"
            )
        return self

    def facts(self, views: Collection[ViewConfig]) -> AudioFacts:
        """How spectrograms are computed and normalized."""
        mel = Mel(self.sample_rate, self.window, self.hop, self.bands, self.low, self.high)
        return AudioFacts(mel, self.seconds, self.mean, self.std, self.raw)

    def noise(self, number: int) -> Clips:
        """White noise."""
        size = max(1, round(self.seconds * self.sample_rate))
        wave = torch.randint(-3000, 3000, (number * size,), dtype=torch.int16).numpy()
        lengths = np.full(number, size, np.int64)
        waves = Waves(wave, np.cumsum(lengths) - lengths, lengths, self.sample_rate)
        return Clips(waves, torch.arange(number))

    def view_cost(self, views: Sequence[Any]) -> float:
        """The Fourier transforms of the frames, which cost as much as so many pixels."""
        return sum(float(view[0].numel()) for view in views) * 4

    def training_view(self, views: Collection[ViewConfig]) -> AudioViewConfig:
        """A random cut, without anything else."""
        ours = next((v for v in views if isinstance(v, AudioViewConfig)), AudioViewConfig())
        return AudioViewConfig(seconds=ours.seconds, mix=0, resize=False, standardize=False)

    def serving(self, others: Sequence["AudioData"]) -> "AudioData":
        """Wave forms of one rate serve all that have it."""
        return self


class Sounds(Modality):
    """Sound files: in folders, tar or Parquet files, data sets of Hugging Face."""

    kind = "audio"
    noun = "sounds"
    data_config = AudioData
    network_config = AudioNetworkConfig
    view_configs: ClassVar[Mapping[str, type]] = {"audio": AudioViewConfig}
    suffixes: ClassVar[tuple[str, ...]] = SOUNDS.suffixes
    is_streamed = True

    def of_files(
        self, files: FileSource, sensor: str, config: AudioData | None = None
    ) -> FileSource:
        """Files as they are; of videos some may be silent."""
        # rows of Parquet files have no suffix
        suffixes = {PurePosixPath(name).suffix.lower() for name in files.names}
        return replace(files, may_lack=not suffixes <= {"", *SOUNDS.suffixes})

    def claims(self, data: Any) -> bool:
        """Files that are sounds, or sounds that are loaded already."""
        return isinstance(data, SoundSet) or are_wanted(data, SOUNDS)

    def sensors_of(self, data: Any) -> Mapping[str, str]:
        """Itself and what is written beside it, where something is."""
        return {"sound": "audio", "text": "text"} if have_texts(data, SOUNDS) else {}

    def open_training(
        self, data: Any, config: AudioData | None, *, resumed: bool = False
    ) -> FileSource:
        """The training part, or all."""
        return open_part(find_encoded(data, SOUNDS), None, self.noun)

    def open_part(self, data: Any, split: str | None, config: AudioData) -> FileSource:
        """A part."""
        return open_part(find_encoded(data, SOUNDS), split, self.noun)

    def open_parts(self, data: Any, config: AudioData | None) -> list[FileSource]:
        """The training part and the test part, or all."""
        return open_both(find_encoded(data, SOUNDS), lambda source, first: source, self.noun)

    def load(
        self,
        source: FileSource,
        config: AudioData,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> SoundSet:
        """Decode to wave forms."""
        return load_sounds(source, config.sample_rate, on_progress=on_progress)

    def load_some(
        self, source: FileSource, positions: Sequence[int], config: AudioData
    ) -> SoundSet:
        """Decode a few sounds."""
        return decode_some(source, positions, config.sample_rate)

    def tiny(self, method: str, side: int, features: int) -> tuple[AudioData, nn.Module]:
        """Clips of a twentieth of a second."""
        shape = {"sample_rate": 8000, "seconds": 0.05, "window": 64, "hop": 40, "bands": 8}
        data = AudioData(**shape, low=0.0, high=4000.0, raw=method == "cpc_audio")
        if data.raw:
            return data, Predictive(8, features)
        return data, FrameTransformer(8, features, 1, 2, 1, 0.0)


MODALITY = Sounds()
