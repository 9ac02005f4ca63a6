"""Images that can be listed without decoding them.

Letters: N images, C channels, H height, W width.
"""

from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import UInt
from torch import Tensor

from similitude.data.files import UnreadableError
from similitude.data.source import FileSource, Source
from similitude.distributed.threads import cores
from similitude.errors import UserError
from similitude.images import stored
from similitude.images.decoding import DTYPES, ValueRange
from similitude.images.stored import Look


@dataclass(frozen=True, kw_only=True)
class ImageSource(Source):
    """Images that can be listed without decoding them; :func:`load_images` decodes.

    Attributes:
        channels: C that are decoded: 3 are red, green and blue of whatever a file holds.
        depth: Bits that are kept of a pixel, 8 or 16.
        values: Of deep pictures (16 bits, floats), or None where there are none.
    """

    channels: int = 3
    depth: int = 8
    values: ValueRange | None = None

    @property
    def dtype(self) -> type[Any]:
        """NumPy's, of a decoded pixel."""
        return DTYPES[self.depth]

    @property
    def readers(self) -> int:
        """See :attr:`FileSource.readers`."""
        return cores()

    def canvas(self, size: int) -> tuple[int, int, int]:
        """Shape of a canvas of this side."""
        return self.channels, size, size

    def decoded_as(self, **fields: Any) -> "ImageSource":
        """The same images, decoded with other channels, depth or values.

        Raises:
            UserError: there are not these channels.
        """
        return replace(self, **fields)

    def with_values(self, values: ValueRange) -> "ImageSource":
        """The same images, whose deep pictures are shown in another range."""
        return self.decoded_as(values=values)

    @abstractmethod
    def read(self, i: int, size: int | None = None) -> UInt[Tensor, "C H W"]:
        """Decode image ``i``.

        Args:
            i: Its position in ``names``.
            size: If given, a large image may come out smaller, though never below twice this
                short side.

        Raises:
            UnreadableError: the file is damaged or missing.
        """

    @abstractmethod
    def probe_size(self, i: int) -> tuple[int, int] | None:
        """Width and height of image ``i`` as :meth:`read` gives it, or None if it is unreadable."""

    def shown_channels(self) -> int:
        """C of the same images where they are decoded to be looked at."""
        return self.channels

    def look(self, i: int, count: int) -> Look:
        """What is deep in image ``i``, with about ``count`` of its values."""
        return Look()

    def probe_sizes(self, sample: int = 200) -> list[tuple[int, int]]:
        """Width and height of ``sample`` images, chosen by :meth:`spread`.

        Only headers are read; files without a readable one are left out.
        """
        some = self.spread(sample)
        with ThreadPoolExecutor(self.readers, "similitude-sizes") as threads:
            sizes = list(threads.map(self.probe_size, some))
        return [size for size in sizes if size is not None]


@dataclass(frozen=True, kw_only=True)
class EncodedSource(ImageSource):
    """Images that are encoded, each as a file of its own.

    Attributes:
        files: Wherever they lie.
    """

    files: FileSource

    @property
    def origin(self) -> Source:
        return self.files

    @property
    def readers(self) -> int:
        return self.files.readers

    def read(self, i: int, size: int | None = None) -> UInt[Tensor, "C H W"]:
        with self.files.file(i) as file:
            return stored.decode(file, size, self.values, self.channels, self.depth)

    def probe_size(self, i: int) -> tuple[int, int] | None:
        try:
            with self.files.file(i) as file:
                return stored.probe_size(file)
        except UnreadableError:
            return None

    def shown_channels(self) -> int:
        try:
            with self.files.file(0) as file:
                return stored.shown_channels(file)
        except UnreadableError:
            return self.channels

    def look(self, i: int, count: int) -> Look:
        try:
            with self.files.file(i) as file:
                return stored.look(file, self.channels, self.depth, count)
        except UnreadableError:
            return Look()

    def read_ahead(self, blocks: Sequence[int]) -> None:
        self.files.read_ahead(blocks)

    def fingerprint(self) -> str:
        return self.files.fingerprint()


def check_number(name: str, count: int, kind: str = "image") -> None:
    """Refuse too few images to learn from."""
    if count < 2:
        raise UserError(f"{name} has {count or 'no'} {kind}, but learning needs at least 2")


def as_images(files: Source) -> EncodedSource:
    """Files as the images that they hold."""
    assert isinstance(files, FileSource)
    return EncodedSource(
        name=files.name,
        names=files.names,
        labels=files.labels,
        class_names=files.class_names,
        notes=files.notes,
        blocks=files.blocks,
        files=files,
    )
