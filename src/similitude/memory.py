"""Stored features.

N samples, P projection size, Q length of the queue, K logits, or rows drawn for one sample.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from similitude.errors import UserError
from similitude.randomness import uniform


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


class MemoryBank(nn.Module):
    """One feature per sample of the data set (InstDisc, arXiv:1805.01978, Sec. 3).

    Starts as the authors' code does: every number uniform in [-s, s] with s = sqrt(3 / P), so that
    rows have length 1 on average only. Drawn from PyTorch's global generator.
    """

    features: Tensor

    def __init__(self, num_samples: int, dim: int) -> None:
        super().__init__()
        if num_samples < 1:
            raise UserError(f"a memory bank for {num_samples} samples; give at least 1")
        bound = (3 / dim) ** 0.5
        self.register_buffer("features", torch.empty(num_samples, dim).uniform_(-bound, bound))

    def draw(self, index: Int[Tensor, " N"], count: int, *, step: int) -> Int[Tensor, "N K"]:
        """Numbers of rows, uniform over the whole bank, with replacement: the noise of InstDisc.

        The row of a sample itself is not excluded, as in the authors' code. The draw is a function
        of step and index alone: the same in any batch, in any process and in a resumed run.

        Args:
            index: position of each sample in the data set.
            count: rows for each sample, K.
            step: number of the optimizer step.
        """
        numbers = uniform(0, step, index, 0, "memory bank", count)
        return (numbers * len(self.features)).long()

    @torch.no_grad()
    def update(
        self,
        index: Int[Tensor, " N"],
        features: Float[Tensor, "N P"],
        decay: float,
        known: Bool[Tensor, " N"] | None = None,
    ) -> None:
        """Row i <- unit(decay * row i + (1 - decay) * features).

        Args:
            index: rows to move, without repetition, each in 0 .. num_samples - 1.
            features: unit norm.
            decay: weight of the old value, in [0, 1]; 0.5 in InstDisc and CMC.
            known: which rows to move, where not all.
        """
        old = self.features.index_select(0, index)
        new = torch.lerp(features.to(old), old, decay)
        new = F.normalize(new, dim=1)
        if known is not None:
            new = torch.where(known[:, None], new, old)
        self.features.index_copy_(0, index, new)

    def extra_repr(self) -> str:
        """Number of samples and size, for print."""
        num_samples, dim = self.features.shape
        return f"num_samples={num_samples}, dim={dim}"


class Center(nn.Module):
    """Running mean of the target's logits (DINO, arXiv:2104.14294, eq. 4); starts at 0.

    It follows BatchNorm's running statistics: in evaluation mode it is read and does not move.

    Args:
        dim: number of logits.
        decay: weight of the old value, in [0, 1]; 0.9 in DINO.
    """

    value: Tensor

    def __init__(self, dim: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("value", torch.zeros(dim))

    @torch.no_grad()
    def update(self, target_logits: Float[Tensor, "M K"]) -> None:
        """Value <- decay * value + (1 - decay) * mean over the rows.

        Args:
            target_logits: of all target views of the whole batch, all processes together.
        """
        if self.training:
            self.value.lerp_(target_logits.mean(dim=0).to(self.value), 1 - self.decay)

    def extra_repr(self) -> str:
        """Size and decay, for print."""
        return f"{len(self.value)}, decay={self.decay}"
