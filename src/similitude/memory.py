"""Stored features. N samples, P projection size, Q length of the queue."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from similitude.errors import UserError


class FeatureQueue(nn.Module):
    """The Q most recent keys, oldest overwritten first (MoCo, arXiv:1911.05722, Sec. 3.2).

    Starts as random unit vectors drawn from PyTorch's global generator, as in the authors' code.
    Keys and cursor are buffers: they are saved, moved and resumed with the model.
    """

    keys: Tensor
    cursor: Tensor

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        if length < 1:
            raise UserError(f"queue length is {length}; give at least 1")
        self.register_buffer("keys", F.normalize(torch.randn(length, dim), dim=1))
        self.register_buffer("cursor", torch.zeros((), dtype=torch.long))

    def snapshot(self) -> Float[Tensor, "Q P"]:
        """A copy: ``enqueue`` overwrites in place, and backward needs the keys as they were."""
        return self.keys.clone()

    @torch.no_grad()
    def enqueue(self, keys: Float[Tensor, "N P"]) -> None:
        """Overwrite the N oldest keys, wrapping around.

        Args:
            keys: unit norm, at most Q rows, in the order in which they will be overwritten.

        Raises:
            UserError: more keys than the queue holds.
        """
        length = len(self.keys)
        if len(keys) > length:
            raise UserError(
                f"{len(keys)} keys do not fit into a queue of {length}; "
                "make the queue at least as long as the batch"
            )
        slots = (self.cursor + torch.arange(len(keys), device=self.keys.device)) % length
        self.keys.index_copy_(0, slots, keys.to(self.keys))
        self.cursor.add_(len(keys)).remainder_(length)

    def extra_repr(self) -> str:
        """Length and size, for print."""
        length, dim = self.keys.shape
        return f"length={length}, dim={dim}"
