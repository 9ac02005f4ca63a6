"""Canvases that are decoded when they are first looked at, so that a run can start at once.

Letters: N images, C channels, S side of a canvas in pixels, M of the images.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt
from torch import Tensor

from similitude.data.files import UnreadableError
from similitude.distributed.threads import lone_threads
from similitude.errors import UserError
from similitude.images.decoding import to_canvas
from similitude.images.source import ImageSource

MAX_UNREADABLE_SHARE = 0.1
_LOOKED_AT = 1000  # so many before the share of unreadable ones means something


@dataclass
class LazyCanvases:
    """The canvases of a source; what has been decoded once is kept where there is room.

    An image that cannot be read gives its place to the next one in the source: how many there are
    must not change while a run draws from them.

    Attributes:
        source: What to decode.
        size: S.
        workers: Threads that decode.
        kept: Room for all canvases, shape [N, C, S, S]; None decodes again whenever asked.
        on_complete: Called once, when all canvases have been decoded and are kept.
        unreadable: Files met that cannot be read, each with the reason.
        aspect: Width / height of each original, shape [N]; 1 before it has been looked at.
    """

    source: ImageSource
    size: int
    workers: int
    kept: UInt[np.ndarray, "N C S S"] | None
    on_complete: Callable[["LazyCanvases"], None] = lambda lazy: None
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.aspect: Float[Tensor, " N"] = torch.ones(len(self.source))
        self._seen: Bool[np.ndarray, " N"] = np.zeros(len(self.source), bool)
        self._pool = lone_threads(self.workers, "decode")

    def take_as_complete(
        self, aspect: Float[Tensor, " N"], unreadable: list[tuple[str, str]]
    ) -> None:
        """All canvases are kept already, with what was found when they were decoded."""
        self.aspect, self.unreadable = aspect, unreadable
        self._seen[:] = True

    def __len__(self) -> int:
        return len(self.source)

    @property
    def shape(self) -> torch.Size:
        """[N, C, S, S]."""
        return torch.Size((len(self), self.source.channels, self.size, self.size))

    @property
    def dtype(self) -> torch.dtype:
        """torch.uint8 or torch.uint16."""
        return torch.from_numpy(np.empty(0, self.source.dtype)).dtype

    def __getitem__(
        self, index: slice | Int[Tensor, " M"] | Bool[Tensor, " N"]
    ) -> UInt[Tensor, "M C S S"]:
        rows = np.arange(len(self))[index if isinstance(index, slice) else index.numpy()]
        return torch.from_numpy(self.rows(rows))

    def rows(self, index: Int[np.ndarray, " M"]) -> UInt[np.ndarray, "M C S S"]:
        """The canvases at ``index``, decoded now if they are not kept.

        Raises:
            UserError: more than 10 % of the images looked at cannot be read, or a mapped file has
                changed.
        """
        self.source.check_mapped()
        if self.kept is None:
            canvases = np.stack(list(self._pool.map(self._decode, index.tolist())))
            self._seen[index] = True
            return canvases
        missing = np.unique(index[~self._seen[index]])
        for i, canvas in zip(missing, self._pool.map(self._decode, missing.tolist()), strict=True):
            self.kept[i] = canvas
            self._seen[i] = True
        if len(missing) and self._seen.all():
            self.on_complete(self)
        return self.kept[index]

    def _decode(self, place: int) -> UInt[np.ndarray, "C S S"]:
        for i in chain(range(place, len(self)), range(place)):
            try:
                image = self.source.read(i, self.size)
            except UnreadableError as error:
                self._note(self.source.names[i], str(error))
                continue
            self.aspect[place] = image.shape[2] / image.shape[1]
            return to_canvas(image, self.size).numpy()
        raise UserError(f"no image in {self.source.name} can be read")

    def _note(self, name: str, reason: str) -> None:
        if (name, reason) in self.unreadable:
            return
        self.unreadable.append((name, reason))
        count, looked_at = len(self.unreadable), int(self._seen.sum())
        if count > MAX_UNREADABLE_SHARE * max(looked_at, _LOOKED_AT):
            raise UserError(
                f"{count} of {looked_at + count} files looked at in {self.source.name} cannot be "
                f"read (more than 10 %), the last is {name} ({reason}): remove or replace them"
            )
