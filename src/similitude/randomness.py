"""Counter-based random numbers: a value is a pure function of what it is for.

A generator with hidden state gives different numbers when the batch, the number of workers or the
number of draws before it changes. Here every number is a hash of (seed, epoch, sample, view,
purpose, counter), so a view is the same in any batch, in any process and after any resumption.
The hash is the finaliser of splitmix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom
number generators"), chained over the parts.

Letters: N samples, B places, V views, M = V N, K blocks, W windows.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import isqrt
from typing import NamedTuple
from zlib import crc32

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from similitude.devices import moved

_MASK64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: the step of splitmix64's counter
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9
_MULTIPLIER_2 = 0x94D049BB133111EB

MANY = 1 << 24  # samples: the order of as many is held, in 134 MB, and takes seconds to sort
_ROUNDS = 8  # even
WINDOW_BYTES = 1 << 28  # of the blocks whose samples are shuffled together
_FEW_BLOCKS = 8  # tell of all, where that many hold enough samples


def _signed(value: int) -> int:
    """The int64 that has the same 64 bits; torch has no complete uint64 arithmetic."""
    value &= _MASK64
    return value - (1 << 64) if value >> 63 else value


def _mix_int(value: int) -> int:
    value &= _MASK64
    value = ((value ^ (value >> 30)) * _MULTIPLIER_1) & _MASK64
    value = ((value ^ (value >> 27)) * _MULTIPLIER_2) & _MASK64
    return value ^ (value >> 31)


def _xor_shift_(state: Tensor, bits: int) -> Tensor:
    # torch shifts int64 arithmetically; the mask clears the copies of the sign bit
    return state.bitwise_xor_((state >> bits).bitwise_and_((1 << (64 - bits)) - 1))


def _mix_(state: Tensor) -> Tensor:
    """``_mix_int`` on every element, in place; int64 products wrap around as uint64 ones do."""
    _xor_shift_(state, 30).mul_(_signed(_MULTIPLIER_1))
    _xor_shift_(state, 27).mul_(_signed(_MULTIPLIER_2))
    return _xor_shift_(state, 31)


def _key(*parts: int) -> int:
    key = 0
    for part in parts:
        key = _mix_int(key + _GOLDEN + _mix_int(part))
    return key


def uniform(
    seed: int, epoch: int, index: Int[Tensor, " N"], view: int, purpose: str, count: int = 1
) -> Float[Tensor, "N count"]:
    """Uniform numbers in [0, 1) that depend on the arguments and on nothing else.

    Args:
        seed: Of the run; any integer.
        epoch: Number of the pass over the data.
        index: Position of each sample in the data set, shape [N]; the result is on its device.
        view: Number of the view within the sample.
        purpose: What the numbers are for ("flip", "hue"): other purposes are independent.
        count: Numbers per sample. The first ones are the same for every count.

    Returns:
        Float32 of shape [N, count], multiples of 2**-24.
    """
    return uniforms(seed, epoch, index, view, {purpose: count})[purpose]


def uniforms(
    seed: int,
    epoch: int,
    index: Int[Tensor, " N"],
    view: int | Sequence[int],
    purposes: Mapping[str, int],
) -> dict[str, Float[Tensor, "M count"]]:
    """``uniform`` for several purposes and views in one pass; the numbers are the same.

    Args:
        seed: Of the run; any integer.
        epoch: Number of the pass over the data.
        index: Position of each sample in the data set, shape [N]; the results are on its device.
        view: Number of the view within the sample, or of each of V views.
        purposes: Numbers per sample for each purpose.

    Returns:
        For each purpose float32 of shape [M, count], multiples of 2**-24: all samples of the
        first view, then those of the next.
    """
    views = [view] if isinstance(view, int) else view
    counts = tuple(purposes.items())
    offsets = torch.stack([_offsets(seed, epoch, one, counts) for one in views], dim=2)
    offsets = moved(offsets, index.device)
    sample = (index.to(torch.int64) + 1).mul_(_signed(_GOLDEN))
    bits = _mix_(_mix_(sample + offsets[0]).add_(offsets[1])).flatten(1)
    # 24 bits are what a float32 below one holds exactly, so that 1.0 never comes out
    numbers = (bits >> 40).bitwise_and_((1 << 24) - 1).to(torch.float32).mul_(2.0**-24)
    rows = numbers.split(list(purposes.values()))
    return {purpose: part.t() for purpose, part in zip(purposes, rows, strict=True)}


@lru_cache(maxsize=16)  # as many as the views of a batch; negatives draw thousands of numbers
def _offsets(
    seed: int, epoch: int, view: int, purposes: tuple[tuple[str, int], ...]
) -> Int[Tensor, "2 numbers 1"]:
    """Key and counter of every number, which all batches of an epoch share."""
    keys, steps = [], []
    for purpose, count in purposes:
        key = _signed(_key(seed, epoch, view, crc32(purpose.encode())))
        keys += [key] * count
        steps += [_signed(_GOLDEN * (number + 1)) for number in range(count)]
    return torch.tensor([keys, steps], dtype=torch.int64, device="cpu")[:, :, None]


class Order:
    """A random order of ``range(n)``, of which any stretch is to be had: ``Order(0, 0, 9)[2:5]``.

    Up to 2**24 samples it is :func:`permutation`. That of more is computed place by place and takes
    no memory: a Feistel network on pairs (row, column), whose rounds add a hash of one half to the
    other, so that it maps places to samples one to one; what falls beyond ``n`` goes through again
    (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
    """

    def __init__(self, seed: int, epoch: int, n: int) -> None:
        """Fix the order, which depends on the arguments and on nothing else.

        Args:
            seed: Of the run; any integer.
            epoch: Number of the pass over the data.
            n: Number of samples.
        """
        self._n = n
        self._held = permutation(seed, epoch, n) if n <= MANY else None
        purpose = crc32(b"order")
        self._keys = [_signed(_key(seed, epoch, purpose, number)) for number in range(_ROUNDS)]

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, places: slice) -> Int[Tensor, " B"]:
        """The samples at these places, int64 on the CPU, in memory of their own."""
        if self._held is not None:
            return self._held[places].clone()
        found = self._permuted(torch.arange(*places.indices(self._n)))
        while bool((beyond := found >= self._n).any()):
            found[beyond] = self._permuted(found[beyond])
        return found

    def _permuted(self, place: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """A one-to-one map of ``range(rows * columns)``, which is hardly more than ``range(n)``."""
        columns = isqrt(self._n - 1) + 1
        rows = -(-self._n // columns)
        row, column = place // columns, place % columns
        for key in self._keys:
            # the halves take turns: after an even number of rounds each is where it was
            row, column = (row + self._hash(column, key)) % rows, column
            row, column, rows, columns = column, row, columns, rows
        return row * columns + column

    def _hash(self, half: Int[Tensor, " B"], key: int) -> Int[Tensor, " B"]:
        state = _mix_((half + 1).mul_(_signed(_GOLDEN)).add_(key))
        return state.bitwise_and_((1 << 62) - 1)  # room for the sum


class Blocks(NamedTuple):
    """How samples lie where each is read with all that lie beside it.

    Attributes:
        ends: How many samples there are up to the end of each block.
        sizes: Bytes of each block in memory.
    """

    ends: Int[np.ndarray, " K"]
    sizes: Int[np.ndarray, " K"]

    def range(self, number: int) -> range:
        """The samples of a block."""
        return range(int(self.ends[number - 1]) if number else 0, int(self.ends[number]))


def spread(n: int, count: int, blocks: Blocks | None = None) -> list[int]:
    """Some of ``n`` samples, at even distances; where they lie in blocks, in few of these.

    Args:
        n: Samples in all.
        count: How many at most.
        blocks: That hold the samples, if any do.
    """
    positions: Sequence[int] = range(n)
    if blocks is not None:
        k = len(blocks.ends)
        few = max(_FEW_BLOCKS, -(-count * k // n))
        chosen = sorted({i * k // few for i in range(few)})
        positions = [i for number in chosen for i in blocks.range(number)]
    m = len(positions)
    return [positions[i * m // min(count, m)] for i in range(min(count, m))]


class BlockOrder:
    """A random order of samples that lie in blocks, in which no block is read twice.

    The blocks are permuted. As many of that order as have ``WINDOW_BYTES``, but two at least (fewer
    at the end), are a window, and the samples of a window are shuffled.
    """

    def __init__(self, seed: int, epoch: int, blocks: Blocks) -> None:
        """Fix the order, which depends on the arguments and on nothing else.

        Args:
            seed: Of the run; any integer.
            epoch: Number of the pass over the data.
            blocks: That hold the samples.
        """
        self._seed, self._epoch, self._of = seed, epoch, blocks
        self._blocks = permutation(seed, epoch, len(blocks.ends)).numpy()
        starts, held = [], 0
        for place, size in enumerate(blocks.sizes[self._blocks].tolist()):
            held += size
            if not starts or (held > WINDOW_BYTES and place - starts[-1] >= 2):
                starts.append(place)
                held = size
        self._bounds = np.array([*starts, len(self._blocks)])
        lengths = np.diff(blocks.ends, prepend=0)[self._blocks]
        self._ends = np.cumsum(lengths)[self._bounds[1:] - 1]
        self._drawn: dict[int, Int[Tensor, " B"]] = {}  # samples of the windows last looked at

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, places: slice) -> Int[Tensor, " B"]:
        """The samples at these places, int64 on the CPU, in memory of their own."""
        start, stop, _ = places.indices(len(self))
        if start >= stop:
            return torch.empty(0, dtype=torch.int64)
        numbers = range(self.window(start), self.window(stop - 1) + 1)
        samples = torch.cat([self._samples(number) for number in numbers])
        first = int(self._ends[numbers[0] - 1]) if numbers[0] else 0
        return samples[start - first : stop - first]

    @property
    def windows(self) -> int:
        """W."""
        return len(self._ends)

    def window(self, place: int) -> int:
        """Number of the window in which a place lies."""
        return int(np.searchsorted(self._ends, place, "right"))

    def blocks(self, first: int, stop: int) -> list[int]:
        """The blocks of windows ``first`` to ``stop - 1``, in the order in which they are read."""
        return self._blocks[self._bounds[first] : self._bounds[min(stop, self.windows)]].tolist()

    def _samples(self, window: int) -> Int[Tensor, " B"]:
        if window not in self._drawn:
            ranges = [self._of.range(block) for block in self.blocks(window, window + 1)]
            samples = torch.cat([torch.arange(r.start, r.stop) for r in ranges])
            key = _signed(_key(self._seed, crc32(b"window"), window))
            while len(self._drawn) > 1:
                del self._drawn[next(iter(self._drawn))]
            self._drawn[window] = samples[permutation(key, self._epoch, len(samples))]
        return self._drawn[window]


def permutation(seed: int, epoch: int, n: int) -> Int[Tensor, " n"]:
    """A random order of ``range(n)`` that depends on the arguments and on nothing else.

    Args:
        seed: Of the run; any integer.
        epoch: Number of the pass over the data.
        n: Number of samples.

    Returns:
        Int64 of shape [n] on the CPU: every number from 0 to n-1 once.
    """
    key = _key(seed, epoch, crc32(b"permutation"))
    state = _mix_(torch.arange(1, n + 1).mul_(_signed(_GOLDEN)).add_(_signed(key)))
    return state.bitwise_and_((1 << 63) - 1).argsort(stable=True)
