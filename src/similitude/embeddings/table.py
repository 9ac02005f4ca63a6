"""Embeddings on disk: one row for each sample, its name and its vector.

N samples, D numbers of an embedding, K neighbors.
"""

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from similitude.errors import UserError
from similitude.evaluation import Features
from similitude.files.reading import MAX_ARRAYS, check_file, damaged, read_arrays
from similitude.files.writing import as_path, check_writable, write_with

SUFFIXES = (".npz", ".parquet")
_ROWS = 2**14  # written and read at once


@dataclass(frozen=True)
class Layout:
    """What a page that shows embeddings wants beside them.

    Attributes:
        plane: Two coordinates of each row.
        neighbors: Positions of the nearest rows of each, nearest first.
        distances: Cosine distance to each of them, 0..2.
    """

    plane: Float[np.ndarray, "N 2"] | None = None
    neighbors: Int[np.ndarray, "N K"] | None = None
    distances: Float[np.ndarray, "N K"] | None = None


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
        _check_pyarrow(path)
    return path


def _check_pyarrow(path: Path) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"cannot read or write {path}: Parquet needs pyarrow (pip install "
            "'similitude[parquet]'); a name that ends in .npz needs nothing more"
        ) from error


def write_embeddings(
    path: Path,
    names: Sequence[str],
    x: Float[np.ndarray, "N *places D"],
    layout: Layout | None = None,
) -> None:
    """Write names and float32 vectors, some rows at a time: ``x`` may be mapped from a file.

    ``.npz``: arrays ``names`` [N] and ``embeddings`` [N, D], of places [N, h, w, D]. ``.parquet``:
    columns ``file`` and ``embedding``, a list of D floats; with a layout ``x`` and ``y``, and
    ``neighbors``, a struct of the lists ``ids`` (row numbers from 0) and ``distances``: what
    ``embedding-atlas --x x --y y --neighbors neighbors`` opens.

    Args:
        path: of the file; see :func:`check_output`.
        names: of the samples.
        x: float32.
        layout: for Parquet alone.

    Raises:
        UserError: the disk is full, or the place cannot be written.
    """
    if path.suffix == ".npz":
        write_with(path, lambda place: _write_npz(place, names, x))
    else:
        write_with(path, lambda place: _write_parquet(place, names, x, layout or Layout()))


def _tiles(count: int) -> Iterator[slice]:
    return (slice(i, i + _ROWS) for i in range(0, count, _ROWS))


def _write_npz(path: Path, names: Sequence[str], x: np.ndarray) -> None:
    kind = np.dtype(f"<U{max(map(len, names), default=1)}")
    with zipfile.ZipFile(path, "w") as archive:
        parts = (np.array(names[tile], kind) for tile in _tiles(len(names)))
        _write_array(archive, "names", kind, (len(names),), parts)
        parts = (np.ascontiguousarray(x[tile], np.float32) for tile in _tiles(len(x)))
        _write_array(archive, "embeddings", np.dtype(np.float32), x.shape, parts)


def _write_array(
    archive: zipfile.ZipFile,
    name: str,
    kind: np.dtype,
    shape: tuple[int, ...],
    parts: Iterator[np.ndarray],
) -> None:
    header = {"descr": kind.str, "fortran_order": False, "shape": shape}
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(part.tobytes())


def _write_parquet(path: Path, names: Sequence[str], x: np.ndarray, layout: Layout) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def listed(values: np.ndarray) -> Any:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])

    def table(tile: slice) -> Any:
        rows = {
            "file": pa.array(names[tile], pa.string()),
            "embedding": listed(np.asarray(x[tile], np.float32)),
        }
        if layout.plane is not None:
            plane = layout.plane[tile].astype(np.float32)
            rows |= {"x": plane[:, 0], "y": plane[:, 1]}
        if layout.neighbors is not None and layout.distances is not None:
            both = [
                listed(layout.neighbors[tile].astype(np.int64)).cast(pa.list_(pa.int64())),
                listed(layout.distances[tile].astype(np.float32)).cast(pa.list_(pa.float32())),
            ]
            rows["neighbors"] = pa.StructArray.from_arrays(both, ["ids", "distances"])
        return pa.table(rows)

    with pq.ParquetWriter(path, table(slice(0, 0)).schema) as writer:
        for tile in _tiles(len(x)):
            writer.write_table(table(tile))


def read_embeddings(given: str | Path) -> Features:
    """Names and vectors that :func:`write_embeddings` wrote, or somebody else in these formats.

    All of them are in memory: 4 N D bytes.

    Raises:
        UserError: there is no such file, it holds no embeddings, or one that is not finite.
    """
    path = as_path(given)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path} is no file of embeddings: the name ends in .npz or .parquet")
    size = check_file(path)
    read = _read_npz if path.suffix == ".npz" else _read_parquet
    names, x = read(path, size)
    if x.ndim != 2 or len(names) != len(x) or not x.size:
        raise damaged(path, f"it has {len(names)} names, and embeddings of shape {list(x.shape)}")
    for tile in _tiles(len(x)):
        bad = ~np.isfinite(x[tile]).all(axis=1)
        if bad.any():
            name = names[tile.start + int(bad.argmax())]
            raise UserError(f"{path}: the embedding of {name} is not finite; embed it again")
    return Features(torch.from_numpy(x), None, names)


def _read_npz(path: Path, size: int) -> tuple[list[str], np.ndarray]:
    arrays = read_arrays(path, max(MAX_ARRAYS, size))  # as it is written it is not compressed
    if not {"names", "embeddings"} <= arrays.keys() or arrays["embeddings"].dtype.kind != "f":
        raise UserError(
            f"{path} holds no embeddings: it needs the arrays names [N] and embeddings [N, D], as "
            "similitude embed writes them"
        )
    return [str(n) for n in arrays["names"]], arrays["embeddings"].astype(np.float32, copy=False)


def _read_parquet(path: Path, size: int) -> tuple[list[str], np.ndarray]:
    _check_pyarrow(path)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            if not {"file", "embedding"} <= set(columns):
                raise UserError(
                    f"{path} holds no embeddings: it needs the columns file and embedding, and has "
                    f"{', '.join(columns[:8])}"
                )
            names: list[str] = []
            x = np.empty((file.metadata.num_rows, 0), np.float32)
            for batch in file.iter_batches(_ROWS, columns=["file", "embedding"]):
                rows = batch.column("embedding")
                flat = rows.flatten().to_numpy(zero_copy_only=False)
                if len(names) == 0:
                    x = np.empty((len(x), len(flat) // max(1, len(rows))), np.float32)
                x[len(names) : len(names) + len(rows)] = flat.reshape(len(rows), x.shape[1])
                names += map(str, batch.column("file").to_pylist())
    except (pa.ArrowException, AttributeError, OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise damaged(path, error) from error
    return names, x
