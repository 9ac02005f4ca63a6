"""The kinds of data: what each has to give, and the one list of them.

A kind is a folder whose ``samples.py`` has its :class:`Modality`, ``views.py`` its views and
``networks.py`` its networks, and a file of the folder's name in ``recipes/`` with its ``Chooser``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar

from similitude.errors import UserError, did_you_mean

# kind -> folder, in the order in which they are asked whether data is theirs, the last first
KINDS = {
    "image": "images",
    "graph": "graphs",
    "audio": "audio",
    "video": "video",
    "text": "text",
    "sensors": "multimodal",
}
DEFAULT_KIND = "image"  # of recipes from before there were kinds

# What ``similitude.data`` shows, and where it is.
DATA = {
    "ArraySource": "similitude.images.arrays",
    "FolderSource": "similitude.data.folders",
    "ImageSet": "similitude.images.image_set",
    "ImageSource": "similitude.images.source",
    "Loader": "similitude.data.loader",
    "Range": "similitude.images.opening",
    "RowBatch": "similitude.data.loader",
    "TiledSource": "similitude.images.tiles",
    "ValueRange": "similitude.images.decoding",
    "cache_folder": "similitude.data.cache",
    "cut_into_tiles": "similitude.images.tiles",
    "default_size": "similitude.images.loading",
    "load_images": "similitude.images.loading",
    "load_some": "similitude.images.loading",
    "native_size": "similitude.images.decoder",
    "open_parts": "similitude.images.opening",
    "open_source": "similitude.images.opening",
    "open_stream": "similitude.images.opening",
    "pack_images": "similitude.images.loading",
    "read_labels": "similitude.data.labels",
}


class Modality(ABC):
    """A kind of data. The core asks it for sources, samples and the configs in a recipe.

    Attributes:
        kind: its name in recipes.
        noun: what several samples are called.
        data_config: the class of ``Recipe.data``.
        network_config: the class of ``Recipe.backbone``.
        view_configs: classes of views, by kind of view.
        suffixes: of files that hold one sample each, so that a table may name them.
        is_streamed: whether :meth:`load_some` reads no more than it is asked for.
    """

    kind: ClassVar[str]
    noun: ClassVar[str]
    data_config: ClassVar[type]
    network_config: ClassVar[type]
    view_configs: ClassVar[Mapping[str, type]]
    suffixes: ClassVar[tuple[str, ...]] = ()
    is_streamed: ClassVar[bool] = False

    @abstractmethod
    def claims(self, data: Any) -> bool:
        """Whether what a user gave is of this kind."""

    def sensors_of(self, data: Any) -> Mapping[str, str]:
        """Kinds of what each sample gives, by the name of a sensor; none where that is one."""
        return {}

    @abstractmethod
    def open_training(self, data: Any, config: Any | None, *, resumed: bool = False) -> Any:
        """The source of what is trained on.

        Args:
            data: what the user gave.
            config: of type ``data_config``, where a recipe is known already.
            resumed: whether it is that of a run that goes on, which nothing may change.
        """

    @abstractmethod
    def open_part(self, data: Any, split: str | None, config: Any) -> Any:
        """The source of one part: "train", "test", or None for what is trained on."""

    @abstractmethod
    def open_parts(self, data: Any, config: Any | None) -> list[Any]:
        """The sources of training part and test part, or of all where there is one part."""

    def open_all(self, data: Any, config: Any | None) -> list[Any]:
        """The sources of all that is embedded: by default the parts."""
        return self.open_parts(data, config)

    @abstractmethod
    def load(
        self, source: Any, config: Any, on_progress: Callable[[int, int], None] | None = None
    ) -> Any:
        """The samples of a source."""

    def of_files(self, files: Any, sensor: str, config: Any | None = None) -> Any:
        """The source of what a ``FileSource`` names; of a kind with ``suffixes``.

        Args:
            files: the entries of a column of a table.
            sensor: name of the column, which may say what of the files is meant.
            config: of type ``data_config``, where a recipe is known already.
        """
        raise NotImplementedError

    def of_texts(self, name: str, texts: list[str], config: Any = None) -> Any:
        """The source of texts, which are their own names; of a kind that has texts."""
        raise NotImplementedError

    def load_some(self, source: Any, positions: Any, config: Any) -> Any:
        """A few samples, and no others."""
        return self.load(source, config).subset(positions)

    def for_pictures(self, side: int, source: Any) -> Any:
        """The config with which samples are loaded for thumbnails alone.

        Args:
            side: of a thumbnail, in pixels.
            source: of the samples.
        """
        return self.data_config()

    def pack(self, data: Any, output: Any, size: int | None, listener: Any, **form: int) -> Any:
        """Decode all samples once, into one file; its path."""
        raise UserError(f"only images are packed, not {self.noun}")

    def for_raw(self, config: Any, source: Any) -> Any:
        """The config with which samples are loaded for the baseline of raw numbers."""
        return config

    @property
    def starts(self) -> Any:
        """What opens published weights and looks at them, as ``images.starts``; None without any.

        It has ``open_start``, ``of_run``, ``license_of``, ``unfit_norm``, ``with_batchnorm`` and
        the name of what is compared with where nobody names anything, ``DEFAULT_START``, one of
        ``NAMED``: weights that are neither a file nor timm's.
        """
        return None

    @property
    def exports(self) -> Mapping[str, Any]:
        """Formats beside safetensors in which a backbone is used elsewhere, by name.

        Each is a :class:`similitude.nets.export.Export`.
        """
        return {}

    def as_files(self, samples: Any, config: Any, folder: Any) -> list[Any]:
        """Write samples that are more than pictures as files that an export's snippet opens."""
        raise NotImplementedError

    def same(self, config: Any, samples: Any) -> bool:
        """Whether samples are already as this config would have them loaded."""
        return False

    def start_for(self, weights: Any, config: Any | None) -> Any:
        """Published weights as the samples of a config need them; of none as they are.

        Raises:
            UserError: they do not fit such samples.
        """
        return weights

    def for_start(self, weights: Any, source: Any) -> tuple[Any, Any]:
        """Facts and config of the samples that published weights want; of a kind with starts.

        Args:
            weights: a :class:`similitude.nets.start.Start`.
            source: of the samples.
        """
        raise NotImplementedError

    def entrant_at(self, weights: Any, samples: Any, source: Any) -> tuple[Any, Any | None]:
        """Facts and config of the samples that published weights want.

        Args:
            weights: a :class:`similitude.nets.start.Start`.
            samples: as they are.
            source: of the samples.

        Returns:
            None for the config if the samples are good as they are.
        """
        raise NotImplementedError

    def tiny(self, method: str, side: int, features: int) -> tuple[Any, Any]:
        """A data config and a network so small that a step of a method costs next to nothing.

        Args:
            method: which may need a network of its own kind.
            side: how large a sample is, in whatever it is measured.
            features: of the network, which is smooth and in which samples do not meet.
        """
        raise NotImplementedError

    def feature_maps(self, backbone: Any, facts: Any, names: Sequence[str]) -> Any:
        """The backbone as a network that gives maps of features, where there are places.

        Raises:
            UserError: there are none.
        """
        raise UserError(f"there are no feature maps of {self.noun}, only of images")

    def look_inside(
        self, backbone: Any, samples: Any, facts: Any, device: Any
    ) -> Mapping[str, Any] | None:
        """Arrays for the report on what a backbone looks at, where it can be told."""
        return None


def modality(kind: str) -> Modality:
    """The modality of this name.

    Raises:
        ValueError: there is none.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of data {kind!r}: {did_you_mean(str(kind), KINDS)}")
    return import_module(f"similitude.{KINDS[kind]}.samples").MODALITY


def modality_of(data: Any) -> Modality:
    """The modality of what a user gave."""
    kinds = [modality(kind) for kind in reversed(KINDS)]
    return next((kind for kind in kinds if kind.claims(data)), kinds[-1])


def chooser(kind: str) -> Any:
    """What chooses recipes for this kind: a ``recipes.choose.Chooser``."""
    return import_module(f"similitude.recipes.{KINDS[kind]}").CHOOSER


def view_config(kind: str | None) -> Any:
    """The class of configs of a kind of views.

    Raises:
        ValueError: there is no such kind.
    """
    known = {name: c for each in KINDS for name, c in modality(each).view_configs.items()}
    if (kind or DEFAULT_KIND) not in known:
        raise ValueError(f"unknown kind of view {kind!r}: {did_you_mean(str(kind), known)}")
    return known[kind or DEFAULT_KIND]
