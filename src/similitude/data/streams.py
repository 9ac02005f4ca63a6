"""Samples that come one after the other, and nobody knows how many: what a pack is made of."""

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from similitude.data.files import ByteFile, UnreadableError
from similitude.data.source import FileSource, numbered
from similitude.errors import UserError

_BLOCK = 1024  # samples that wait in memory, encoded


@dataclass(frozen=True)
class Stream:
    """Encoded samples in their order, of unknown number.

    Attributes:
        name: What this is, for people.
        files: The bytes of a file and its class, -1 where it is unknown; None for a missing one.
        class_names: Name of each class, or None.
        notes: As those of a :class:`Source`.
    """

    name: str
    files: Iterable[tuple[bytes | None, int]]
    class_names: list[str] | None = None
    notes: tuple[str, ...] = ()

    def blocks(self) -> Iterator["Block"]:
        """The samples in pieces of a known length, called by their number in the stream."""
        images, start = iter(self.files), 0
        while pairs := self._next(images, start):
            names = numbered(len(pairs), start)
            labels = torch.tensor([label for _, label in pairs])
            yield Block(
                name=self.name, names=names, labels=labels, files=[data for data, _ in pairs]
            )
            start += len(pairs)

    def _next(
        self, images: Iterator[tuple[bytes | None, int]], start: int
    ) -> list[tuple[bytes | None, int]]:
        try:
            return list(islice(images, _BLOCK))
        except UserError:
            raise
        except Exception as error:  # whatever a network or somebody's code raises
            raise UserError(
                f"{self.name} ended with an error after image {start}: {type(error).__name__}: "
                f"{error}"
            ) from error


@dataclass(frozen=True, kw_only=True)
class Block(FileSource):
    """Some samples of a stream.

    Attributes:
        files: The bytes of each.
    """

    files: list[bytes | None]

    def file(self, i: int) -> ByteFile:
        data = self.files[i]
        if data is None:
            raise UnreadableError("nothing in this row")
        return io.BytesIO(data)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for data in self.files:
            digest.update(hashlib.sha256(data or b"").digest())
        return digest.hexdigest()


def from_iterable(data: Iterable[Any], name: str) -> Stream:
    """A stream of whatever yields the bytes of image files, or (bytes, class number)."""

    def images() -> Iterator[tuple[bytes | None, int]]:
        for number, item in enumerate(data):
            content, label = item if isinstance(item, tuple) and len(item) == 2 else (item, -1)
            if not isinstance(content, bytes) or not isinstance(label, int):
                raise UserError(
                    f"item {number} of {name} is no image: a stream yields the bytes of image "
                    f"files, or pairs (bytes, class number), not {type(item).__name__}"
                )
            yield content, label

    return Stream(name, images())
