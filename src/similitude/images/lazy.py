"""Canvases that are decoded when they are first looked at, so that a run can start at once.

Letters: N images, C channels, S side of a canvas in pixels, M of the images, K = N
where canvases are kept and 0 elsewhere.
"""

from collections.abc import Callable, Sequence
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
        aspect: Width / height of each original, shape [N]; 1 before it has been looked at, and
            always where nothing is kept: no memory grows then with the number of images.
    """

    source: ImageSource
    size: int
    workers: int
    kept: UInt[np.ndarray, "N C S S"] | None
    on_complete: Callable[["LazyCanvases"], None] = lambda lazy: None
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        nothing = self.kept is None
        self.aspect: Float[Tensor, " N"] = torch.ones(1 if nothing else len(self)).expand(len(self))
        self._seen: Bool[np.ndarray, " K"] = np.zeros(0 if nothing else len(self), bool)
        self._looked_at = 0  # images, again and again where nothing is kept
        self._pool = lone_threads(self.workers, "decode")

    def take_as_complete(
        self, aspect: Float[Tensor, " N"], unreadable: list[tuple[str, str]]
    ) -> None:
        """All canvases are kept already, with what was found when they were decoded."""
        self.aspect, self.unreadable = aspect, unreadable
        self._seen[:] = True
        self._looked_at = len(self)

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
        return torch.from_numpy(self.rows(self.positions(index))[0])

    def read_ahead(self, blocks: Sequence[int]) -> None:
        """Begin to read these blocks of the source, but for those of which all is kept."""
        of = self.source.blocks
        if of is not None and self.kept is not None:
            ranges = ((number, of.range(number)) for number in blocks)
            blocks = [number for number, r in ranges if not self._seen[r.start : r.stop].all()]
        self.source.read_ahead(blocks)

    def positions(self, index: slice | Int[Tensor, " M"] | Bool[Tensor, " N"]) -> np.ndarray:
        """Those that an index means, int64 of shape [M]."""
        if isinstance(index, slice):
            return np.arange(*index.indices(len(self)))
        return np.flatnonzero(index) if index.dtype == torch.bool else index.numpy()

    def rows(
        self, index: Int[np.ndarray, " M"]
    ) -> tuple[UInt[np.ndarray, "M C S S"], Float[np.ndarray, " M"]]:
        """The canvases at ``index`` with their aspects, decoded now if they are not kept.

        Raises:
            UserError: more than 10 % of the images looked at cannot be read, or a mapped file has
                changed.
        """
        self.source.check_mapped()
        if self.kept is None:
            canvases = np.empty((len(index), *self.shape[1:]), self.source.dtype)
            aspects = np.empty(len(index), np.float32)
            decoded = self._pool.map(self._decode, index.tolist())
            for i, (canvas, aspect) in enumerate(decoded):
                canvases[i], aspects[i] = canvas, aspect
                self._looked_at += 1
            return canvases, aspects
        missing = np.unique(index[~self._seen[index]])
        decoded = self._pool.map(self._decode, missing.tolist())
        for i, (canvas, aspect) in zip(missing, decoded, strict=True):
            self.kept[i] = canvas
            self.aspect[i] = aspect
            self._seen[i] = True
            self._looked_at += 1
        if len(missing) and self._seen.all():
            self.on_complete(self)
        return self.kept[index], self.aspect.numpy()[index]

    def _decode(self, place: int) -> tuple[UInt[np.ndarray, "C S S"], float]:
        for i in chain(range(place, len(self)), range(place)):
            try:
                image = self.source.read(i, self.size)
            except UnreadableError as error:
                self._note(self.source.names[i], str(error))
                continue
            return to_canvas(image, self.size).numpy(), image.shape[2] / image.shape[1]
        raise UserError(f"no image in {self.source.name} can be read")

    def _note(self, name: str, reason: str) -> None:
        if (name, reason) in self.unreadable:
            return
        self.unreadable.append((name, reason))
        count, looked_at = len(self.unreadable), min(len(self), self._looked_at)
        if count > MAX_UNREADABLE_SHARE * max(looked_at, _LOOKED_AT):
            raise UserError(
                f"{count} of {looked_at + count} files looked at in {self.source.name} cannot be "
                f"read (more than 10 %), the last is {name} ({reason}): remove or replace them"
            )
