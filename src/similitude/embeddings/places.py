"""Embeddings of every place of an image, in a file.

N images; D numbers of each of h x w places.
"""

from pathlib import Path
from typing import Any

from similitude.distributed import rank
from similitude.embeddings.table import check_output, write_embeddings
from similitude.errors import UserError
from similitude.listener import Listener
from similitude.runs.run import Run


def embed_patches(
    run: str | Path,
    data: Any,
    output: str | Path,
    *,
    method: Any = None,
    devices: int | None = None,
    listener: Listener | None = None,
) -> tuple[int, ...]:
    """Write ``names`` [N] and ``embeddings`` [N, h, w, D] to an .npz file.

    Args:
        run: a run folder.
        data: as for :func:`similitude.pretrain`.
        output: the file.
        method: "module:Class" of your own, if the run was trained with it.
        devices: processes that share the work.
        listener: hears how it goes.

    Returns:
        N, h, w and D.

    Raises:
        UserError: the name ends in something else, or anything else the caller can mend.
    """
    path = check_output(output)
    if path.suffix != ".npz":
        raise UserError(f"cannot write patches to {path}: the name must end in .npz")
    found = Run(run, method=method).embed_patches(data, devices=devices, listener=listener)
    if rank() == 0:
        write_embeddings(path, found.names, found.x.float().numpy())
    return tuple(found.x.shape)
