"""A device that is far away: what would break or wait on a GPU, does on any machine.

Its tensors say that they are on "meta", which PyTorch's autograd takes like any other device, and
hold their numbers on the processor all the same, so that results can be compared. What a GPU does
not do is an error here, at the line where it is asked for:

- an operation on tensors of the device and of the processor together;
- a number that Python reads, or a shape that depends on numbers: there the processor would wait
  until the device has done all it was told. Likewise a copy to the device that is waited for;
- float64, which the GPUs of Apple do not have.
"""

import os
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

from similitude import devices
from similitude.data import loader

FAR = torch.device("meta")
aten = torch.ops.aten
_READS = {  # give Python a number, or make a shape of numbers
    aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten.bincount,
    aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.is_nonzero, aten.histc,
}  # fmt: skip


_REPEATS = aten.repeat_interleave.Tensor  # without the size that comes out


class FarDeviceError(AssertionError):
    """What a GPU would not do, or would make the processor wait for."""


class FarTensor(Tensor):
    """A tensor whose numbers are ``near``, and which says that it is far away."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> "FarTensor":
        far = Tensor._make_wrapper_subclass(
            cls,
            near.shape,
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            device=FAR,
            requires_grad=near.requires_grad,
        )
        far.near = near
        return far

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"FarTensor({self.near!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {}, waits_are_errors=True)


class FarDevice(TorchDispatchMode):
    """Within the block tensors made on "meta" are far.

    Args:
        may_wait: numbers may be read: an evaluation does, a training step does not.
    """

    def __init__(self, *, may_wait: bool = False) -> None:
        super().__init__()
        self.may_wait = may_wait

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {}, waits_are_errors=not self.may_wait)


def _dispatch(func: Any, args: Any, kwargs: dict[str, Any], *, waits_are_errors: bool) -> Any:
    leaves = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    far = [x for x in leaves if isinstance(x, FarTensor)]
    target = kwargs.get("device")
    target = None if target is None else torch.device(target)
    to_far = target == FAR or (target is None and bool(far))
    packet = func.overloadpacket
    copies = packet in (aten._to_copy, aten.copy_)
    if copies:
        source = args[1] if packet is aten.copy_ else args[0]
        goes_far = isinstance(args[0], FarTensor) if packet is aten.copy_ else to_far
        non_blocking = kwargs.get("non_blocking") or (packet is aten.copy_ and args[2:] == (True,))
        if (
            isinstance(source, FarTensor) != goes_far
            and waits_are_errors
            and not (goes_far and non_blocking)
        ):
            raise FarDeviceError(f"a copy that is waited for: {func}, shape {list(source.shape)}")
        to_far = goes_far
    elif far:
        near = [x for x in leaves if not isinstance(x, FarTensor) and x.dim() > 0]
        indexes = packet in (aten.index, aten.index_put_, aten.index_put, aten._index_put_impl_)
        if near:
            raise FarDeviceError(f"tensors of two devices meet: {func}")
        masks = indexes and any(x is not None and x.dtype == torch.bool for x in args[1])
        if waits_are_errors and (packet in _READS or masks or func is _REPEATS):
            raise FarDeviceError(f"a number is read back: {func}")
    if target == FAR:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    near_args, near_kwargs = tree_map(_near, (args, kwargs))
    out = func(*near_args, **near_kwargs)
    if not to_far:
        return out
    out = tree_map(_far, out)
    if waits_are_errors:
        doubles = [x for x in tree_leaves(out) if isinstance(x, Tensor) and x.dtype == torch.double]
        if doubles and not any(x.dtype == torch.double for x in far):
            raise FarDeviceError(f"float64 on the device: {func}")
    if packet is aten._to_copy or not far:
        return out
    return return_and_correct_aliasing(func, args, kwargs, out)


def _near(x: Any) -> Any:
    return x.near if isinstance(x, FarTensor) else x


def _far(x: Any) -> Any:
    return FarTensor(x) if isinstance(x, Tensor) and not isinstance(x, FarTensor) else x


def sent(x: Tensor) -> FarTensor:
    """A copy of a tensor, far away."""
    return FarTensor(x.detach().clone())


def send_(module: nn.Module) -> None:
    """Send a module's parameters and buffers far away, in place."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                part._parameters[name] = nn.Parameter(sent(value), value.requires_grad)
        for name, value in part._buffers.items():
            if value is not None:
                part._buffers[name] = sent(value)


class _InThisThread:
    """In place of a pool: another thread would not know the device."""

    def __init__(self, *_: Any) -> None:
        pass

    def __enter__(self) -> "_InThisThread":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, work: Any, *arguments: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(work(*arguments))
        return done


@contextmanager
def far_device(*, may_wait: bool = False) -> Iterator[torch.device]:
    """Within the block the device exists."""
    kinds = {**devices.KINDS, FAR.type: lambda: True}
    with (
        patch.object(devices, "KINDS", kinds),
        patch.object(devices, "WITHOUT_FLOAT64", [FAR.type]),
        patch.dict(os.environ, {devices.CHOSEN: FAR.type}),
        patch.object(
            torch, "inference_mode", lambda mode=True: torch.set_grad_enabled(not mode)
        ),  # of which wrappers know nothing
        patch.object(loader, "ThreadPoolExecutor", _InThisThread),
        FarDevice(may_wait=may_wait),
    ):
        yield FAR


@contextmanager
def must_not_wait() -> Iterator[None]:
    """Within the block, in one of :func:`far_device`, no number may be read."""
    with FarDevice():
        yield


def fetched(x: Any) -> Any:
    """The numbers of far tensors, near."""
    return tree_map(_near, x)
