"""Embeddings on disk: one row for each image, its file name and its vector, or those of its places.

N images; D features of h x w places.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor, nn

from similitude.errors import UserError
from similitude.evaluation import Features
from similitude.files.writing import as_path, check_writable, write_with

SUFFIXES = (".npz", ".parquet")


class PatchFeatures(NamedTuple):
    """Features of every place of some images, row by row; ``y`` is as of :class:`Features`."""

    x: Float[Tensor, "N h w D"]
    y: Int[Tensor, " N"] | None
    names: list[str]


class LastMap(nn.Module):
    """The coarsest of a network's maps as one row of numbers for each image.

    Args:
        maps: samples to maps by name.

    Attributes:
        shape: D, h and w of the map that was made last.
    """

    shape: tuple[int, ...]

    def __init__(self, maps: nn.Module) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, x: Any) -> Float[Tensor, "N Dhw"]:
        """Rows of numbers, of which ``shape`` tells the places."""
        *_, last = self.maps(x).values()
        self.shape = tuple(last.shape[1:])
        return last.flatten(1)


def check_output(given: str | Path, *, patches: bool = False) -> Path:
    """The file that is to be written; refuses a format or place before any work is done for it.

    Args:
        given: by the user.
        patches: whether it is to hold the features of places, which .npz alone does.

    Raises:
        UserError: the name ends in neither .npz nor .parquet, pyarrow is missing, or the place
            cannot be written.
    """
    path = as_path(given)
    check_writable(path)
    if patches and path.suffix != ".npz":
        raise UserError(f"cannot write patches to {path}: the name must end in .npz")
    if path.suffix not in SUFFIXES:
        raise UserError(f"cannot write embeddings to {path}: the name must end in .npz or .parquet")
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise UserError(
                f"cannot write {path}: Parquet needs pyarrow (pip install 'similitude[parquet]'); "
                "a name that ends in .npz needs nothing more"
            ) from error
    return path


def write_embeddings(features: Features | PatchFeatures, path: Path) -> None:
    """Write file names and float32 vectors.

    ``.npz``: arrays ``names`` [N] and ``embeddings`` [N, D], of patches [N, h, w, D].
    ``.parquet``: columns ``file`` and ``embedding``, a list of D floats.

    Raises:
        UserError: an unknown suffix, or the disk is full.
    """
    path = check_output(path, patches=features.x.ndim > 2)
    vectors = features.x.float().numpy()

    def write_npz(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, names=np.array(features.names), embeddings=vectors)

    def write_parquet(temporary: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        flat = pa.array(vectors.ravel())
        column = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        table = pa.table({"file": features.names, "embedding": column})
        pq.write_table(table, temporary)

    write_with(path, write_npz if path.suffix == ".npz" else write_parquet)
