"""Embeddings on disk: one row for each image, its file name and its vector."""

from pathlib import Path

import numpy as np

from similitude.errors import UserError
from similitude.evaluation import Features
from similitude.files.writing import as_path, check_writable, write_with

SUFFIXES = (".npz", ".parquet")


def check_output(given: str | Path) -> Path:
    """The file that is to be written; refuses a format or place before any work is done for it.

    Raises:
        UserError: the name ends in neither .npz nor .parquet, pyarrow is missing, or the place
            cannot be written.
    """
    path = as_path(given)
    check_writable(path)
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


def write_embeddings(features: Features, path: Path) -> None:
    """Write file names and float32 vectors.

    ``.npz``: arrays ``names`` [N] and ``embeddings`` [N, D]. ``.parquet``: columns ``file`` and
    ``embedding``, a list of D floats.

    Raises:
        UserError: an unknown suffix, or the disk is full.
    """
    path = check_output(path)
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
