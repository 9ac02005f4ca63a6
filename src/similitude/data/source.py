"""What every source of samples can do, before anything is decoded.

Letters: N samples, K partners at most.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from jaxtyping import Int
from torch import Tensor

from similitude.data.files import ByteFile
from similitude.distributed.threads import cores
from similitude.randomness import Blocks, spread

S = TypeVar("S", bound="Source")


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """Samples that can be listed without decoding them.

    Attributes:
        name: What this is, for people ("photos/train", "fashion-mnist test").
        names: Name of each sample, sorted for a folder.
        labels: Class of each sample, shape [N], -1 where unknown; None without any. For
            evaluations only.
        class_names: Name of each class, or None.
        notes: Choices that were made on the way and that people should hear of, as sentences.
        partners: Positions of the samples that belong to each one, or None.
        blocks: How samples lie, where one is read with all that lie beside it; None elsewhere.
    """

    name: str
    names: Sequence[str]
    labels: Int[Tensor, " N"] | None = None
    class_names: list[str] | None = None
    notes: tuple[str, ...] = ()
    partners: Int[Tensor, "N K"] | None = None
    blocks: Blocks | None = None

    def __len__(self) -> int:
        return len(self.names)

    def with_labels(self: S, labels: Int[Tensor, " N"], class_names: list[str]) -> S:
        """The same samples with other labels, for example those of :func:`read_labels`."""
        return replace(self, labels=labels, class_names=class_names)

    @property
    def noun(self) -> str | None:
        """What its samples are called, where it is not what those of their kind are."""
        return None

    @property
    def origin(self) -> "Source":
        """Where the samples come from: the files of encoded ones."""
        return self

    def spread(self, count: int) -> list[int]:
        """Positions of at most so many samples: see :func:`similitude.randomness.spread`."""
        return spread(len(self), count, self.blocks)

    def read_ahead(self, blocks: Sequence[int]) -> None:
        """Begin to read these blocks, and let go of all others."""
        return

    def check_mapped(self) -> None:
        """Look whether a file that is mapped is still the one that was opened.

        Raises:
            UserError: it was changed in place, and reading beyond its end would kill the process.
        """
        return

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash that changes when the samples change, for the cache."""


@dataclass(frozen=True, kw_only=True)
class FileSource(Source):
    """Samples that are encoded, each as a file of its own.

    Attributes:
        may_lack: Whether a file may have none of what is looked for, as a video without sound; then
            any number of them may be left out.
    """

    may_lack: bool = False

    @property
    def readers(self) -> int:
        """Threads that should read and decode at once: more than cores where files are far away."""
        return cores()

    @property
    def texts_of(self) -> str | None:
        """Where it stands what is written beside each sample; None where nothing is."""
        return None

    def texts(self) -> list[str]:
        """What is written beside each sample, as a caption; "" where nothing is."""
        return [""] * len(self)

    @abstractmethod
    def file(self, i: int) -> ByteFile:
        """The content of sample ``i``, at its beginning.

        Raises:
            UnreadableError: it is missing, or no regular file.
        """


def numbered(n: int, start: int = 0) -> list[str]:
    """Names for ``n`` samples that have none: ``00012``."""
    return [f"{i:05d}" for i in range(start, start + n)]
