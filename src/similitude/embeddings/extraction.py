"""Embed as many samples as there are: block after block, shared by processes, from disk to disk.

N samples, D numbers of an embedding.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from similitude.distributed import (
    any_process,
    decided_by_first,
    first_then_others,
    join_processes,
    rank,
    world_size,
)
from similitude.distributed.launch import run_on_devices, wants_processes
from similitude.embeddings.embedder import (
    Embedder,
    Model,
    Part,
    embed_some,
    fingerprint_of_all,
    nothing_readable,
    open_embedder,
    open_parts,
    tell_unreadable,
)
from similitude.embeddings.neighbors import neighbors, unit_rows
from similitude.embeddings.projection import check_projection, project
from similitude.embeddings.table import Layout, check_output, write_embeddings
from similitude.errors import UserError
from similitude.files.reading import read_arrays, read_bytes
from similitude.files.writing import (
    contents,
    held,
    remove_folder,
    remove_temporaries,
    reserve,
    write_text,
    write_with,
    writing_error,
)
from similitude.listener import Listener, Silent
from similitude.method import Method
from similitude.methods import given_method
from similitude.modalities import modality_of
from similitude.runs.run import Run

NEIGHBORS = 10  # of each row, in Parquet, where nothing is said
MAX_UNASKED = 100_000  # rows whose neighbors are looked for without being asked: minutes on a CPU
_KEY = "key.txt"


class Block(NamedTuple):
    """Some positions of a part, and the file in which their embeddings wait for the others."""

    file: Path
    part: Part
    positions: range


def embed(
    model: Model,
    data: object,
    output: str | Path,
    *,
    method: str | type[Method] | None = None,
    backbone: str | None = None,
    neighbors: int | None = None,
    projection: str | None = None,
    devices: int | None = None,
    listener: Listener | None = None,
) -> tuple[int, int]:
    """Write the embedding of every sample to a file.

    Samples are loaded, embedded and put on disk 1,024 at a time, so that memory does not grow with
    their number. What a stopped call has done waits in ``OUTPUT.parts`` beside the file; the same
    call goes on from there, to the same bits, in as many processes as it likes.

    Args:
        model: a run, its folder, or published weights without any training: "efficientnet-lite0",
            "timm:NAME", a file of weights.
        data: whatever :func:`similitude.pretrain` takes, or one file. Where it has a training and a
            test part, both are embedded and names begin with ``train/`` or ``test/``.
        output: a .npz or .parquet file, replaced if it is there; see
            :func:`similitude.embeddings.table.write_embeddings`.
        method: "module:Class" of your own, if the run was trained with it.
        backbone: the network that a file of weights is of, where its tensors do not tell.
        neighbors: nearest rows of each that a Parquet file lists, 0 for none; by default 10 of up
            to 100,000 rows.
        projection: of a Parquet file's map: "pca" (the default), "umap", or "none".
        devices: processes on this machine that share the samples.
        listener: hears how it goes, and which files cannot be read, which are left out.

    Returns:
        N and D.

    Raises:
        UserError: as :func:`similitude.pretrain`; or the parts beside the file are of other
            embeddings.
    """
    path = check_output(output)
    if path.suffix == ".npz" and (neighbors is not None or projection is not None):
        raise UserError(f"{path} has no place for neighbors or a map: let its name end in .parquet")
    check_projection(projection)
    asked = {
        "path": path,
        "backbone": backbone,
        "neighbor_count": neighbors,
        "projection": projection,
    }
    if isinstance(model, Run):  # its folder says all, and goes to other processes
        model, method = model.path, model.method_name
    method = None if method is None else given_method(method)
    if wants_processes(devices, 1):
        return run_on_devices(
            _embed,
            {"model": model, "data": data, "method": method, **asked},
            devices=devices or 1,
            listener=listener,
        )
    return _embed(model, data, method=method, **asked, listener=listener or Silent())  # type: ignore[arg-type]


def _embed(
    model: Model,
    data: object,
    *,
    path: Path,
    method: str | None,
    backbone: str | None,
    neighbor_count: int | None,
    projection: str | None,
    listener: Listener,
) -> tuple[int, int]:
    join_processes()
    heard = listener if rank() == 0 else Silent()
    embedder = first_then_others(
        lambda: open_embedder(model, method=method, backbone=backbone, kind=modality_of(data).kind)
    )
    for sentence in embedder.told:
        heard.say(f"  {sentence}")
    parts = open_parts(embedder, data, heard)
    folder = path.with_name(f"{path.name}.parts")
    with ExitStack() as stack:
        key = fingerprint_of_all(embedder, parts)
        decided_by_first(lambda: _begin(folder, key, stack))
        pairs = [(part, positions) for part in parts for positions in part.blocks()]
        blocks = [Block(folder / f"{i:06d}.npz", *pair) for i, pair in enumerate(pairs)]
        _fill(embedder, blocks, heard)
        # a message to all, that none goes on before the last has done its part
        any_process([False], next(embedder.backbone.parameters()).device)
        return decided_by_first(
            lambda: _finish(folder, parts, blocks, path, neighbor_count, projection, heard)
        )


def _begin(folder: Path, key: str, stack: ExitStack) -> None:
    """Take the folder of parts, or go on in it, for as long as the stack is open."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        is_ours = stack.enter_context(held(folder, lambda: folder.mkdir(exist_ok=True)))
    except OSError as error:
        raise writing_error(folder, error) from error
    if not is_ours:
        raise UserError(
            f"another process writes {folder}: wait for its end, or write to a file of another name"
        )
    place = folder / _KEY
    if contents(folder):
        if not place.exists() or read_bytes(place, 1000).decode(errors="replace") != key:
            raise UserError(
                f"{folder} holds parts of other embeddings, of a command that was stopped: delete "
                "it, or write to a file of another name"
            )
        remove_temporaries(folder)
    write_text(place, key)


def _fill(embedder: Embedder, blocks: Sequence[Block], listener: Listener) -> None:
    """Embed this process's blocks that are not there yet."""
    total = sum(len(block.positions) for block in blocks)
    there = [block.file.exists() for block in blocks]
    if any(there):
        listener.say(f"goes on: {sum(there)} of {len(blocks)} parts are there already")
    done = sum(len(b.positions) for b, is_there in zip(blocks, there, strict=True) if is_there)
    missing = [b for b, is_there in zip(blocks, there, strict=True) if not is_there]
    for number, block in enumerate(missing):
        done += len(block.positions)  # of all processes, which go side by side
        if number % world_size() == rank():
            found = embed_some(embedder, block.part, block.positions)
            arrays: dict[str, Any] = {
                "x": found.features.x.numpy(),
                "kept": np.array(found.kept, np.int64),
                "unreadable": np.array(found.unreadable, np.str_).reshape(-1, 2),
            }
            write_with(block.file, lambda place, arrays=arrays: np.savez(place, **arrays))
            listener.progress("embedding", done, total)


def _finish(
    folder: Path,
    parts: Sequence[Part],
    blocks: Sequence[Block],
    path: Path,
    neighbor_count: int | None,
    projection: str | None,
    listener: Listener,
) -> tuple[int, int]:
    """One file of all blocks, after which these are removed."""
    names: list[str] = []
    unreadable: dict[str, list[tuple[str, str]]] = {part.prefix: [] for part in parts}
    try:
        with (folder / "rows").open("wb") as rows:
            for block in blocks:
                found = read_arrays(block.file)
                rows.write(found["x"].tobytes())
                prefix = block.part.prefix
                names += [prefix + block.part.names[i] for i in found["kept"].tolist()]
                unreadable[prefix] += [(str(name), str(why)) for name, why in found["unreadable"]]
    except OSError as error:
        raise writing_error(folder / "rows", error) from error
    for part in parts:
        tell_unreadable(part, unreadable[part.prefix], listener)
    if not names:
        remove_folder(folder)
        raise nothing_readable(parts)
    # mapped: of what is written next no more than some rows are in memory
    flat = np.memmap(folder / "rows", np.float32, "r+")
    x = flat.reshape(len(names), -1)
    layout = None
    if path.suffix == ".parquet":
        layout = _laid_out(x, folder / "unit", neighbor_count, projection, listener)
    write_embeddings(path, names, x, layout)
    remove_folder(folder)
    return x.shape


def _laid_out(
    x: np.ndarray, scratch: Path, count: int | None, projection: str | None, listener: Listener
) -> Layout:
    """Neighbors and map."""
    if count is None:
        count = NEIGHBORS if len(x) <= MAX_UNASKED else 0
        if count == 0:
            listener.say(
                f"without neighbors: of {len(x):,} rows they take long; ask with --neighbors 10"
            )
    count = min(count, len(x) - 1)
    plane = None if projection == "none" else project(x, projection or "pca")
    if count < 1:
        return Layout(plane)
    try:
        with scratch.open("wb") as file:
            reserve(file, x.nbytes)
    except OSError as error:
        raise writing_error(scratch, error) from error
    unit = np.memmap(scratch, np.float32, "r+", shape=x.shape)
    similar, index = neighbors(unit_rows(x, unit), count, listener=listener)
    return Layout(plane, index.numpy(), (1 - similar).clamp_min(0).numpy())
