"""What all losses share: full precision, and unit vectors."""

from collections.abc import Callable, Iterator
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from similitude.devices import computing_in

P = ParamSpec("P")
R = TypeVar("R")

LOW_PRECISION = (torch.float16, torch.bfloat16)


def full_precision(loss: Callable[P, R]) -> Callable[P, R]:
    """Decorate a loss to run outside autocast, in float32 at least.

    A cosine in bfloat16 is off by up to 0.004, which a temperature of 0.07 turns into 6 percent of
    the probability. The matrices are small beside the backbone's, so precision here is free.
    """

    @wraps(loss)
    def in_full_precision(*args: P.args, **kwargs: P.kwargs) -> R:
        tensors = _tensors((*args, *kwargs.values()))
        device = next((t.device for t in tensors), torch.device("cpu"))
        with computing_in(torch.float32, device):
            return loss(
                *(_upcast(a) for a in args),  # type: ignore[arg-type]
                **{name: _upcast(a) for name, a in kwargs.items()},  # type: ignore[arg-type]
            )

    return in_full_precision


def _tensors(argument: object) -> Iterator[Tensor]:
    """Those in an argument, which may be a list of one tensor per view."""
    if isinstance(argument, Tensor):
        yield argument
    elif isinstance(argument, list | tuple):
        for item in argument:
            yield from _tensors(item)


def _upcast(argument: object) -> object:
    if isinstance(argument, list | tuple):
        return type(argument)(_upcast(item) for item in argument)
    if isinstance(argument, Tensor) and argument.dtype in LOW_PRECISION:
        return argument.float()
    return argument


def unit(x: Tensor) -> Tensor:
    """Rows scaled to length 1, with the *squared* length clamped at 1e-12.

    As in the code of SimCLR (``tf.math.l2_normalize``) and BYOL (``l2_normalize``). PyTorch's
    ``F.normalize`` clamps the length itself, and its gradient at a vanishing row is a million
    times larger.
    """
    return x * x.square().sum(dim=-1, keepdim=True).clamp_min(1e-12).rsqrt()
