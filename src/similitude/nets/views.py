"""Views of any kind: tensors, or objects that know how to be joined and indexed.

An object has ``joined(views)`` and ``rows_at(order)``, as a graph in ``similitude.graphs``.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from similitude.distributed import gather, world_size
from similitude.errors import UserError


def joined(views: Sequence[Any]) -> Any:
    """Several views as one, the rows of the first before those of the next."""
    first = views[0]
    return torch.cat(list(views)) if isinstance(first, Tensor) else type(first).joined(views)


def gathered(view: Any) -> Any:
    """A view of all processes' samples, in rank order.

    Raises:
        UserError: it is no tensor, and there are several processes.
    """
    if isinstance(view, Tensor):
        return gather(view)
    if world_size() > 1:
        raise UserError("such data is trained on in one process: leave out --devices")
    return view


def rows_at(view: Any, order: Int[Tensor, " M"]) -> Any:
    """The rows of a view at these positions."""
    return view[order] if isinstance(view, Tensor) else view.rows_at(order)
