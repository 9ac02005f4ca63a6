"""How the backbone computes: precision, memory format, micro-batches. Never what it computes.

Heads and losses always run in float32 on the whole batch; only the backbone is touched.
"""

import ctypes
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Tell the C library to keep freed memory for the next step instead of returning it.

    Each step allocates the same large tensors again. Memory returned between steps comes back as
    empty pages that the kernel fills with zeros first: on a CPU, a third of the time of the views.
    The process, from then on, keeps the most it ever had in use.

    Returns:
        Whether this C library can be told; glibc can, others are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # This one first: setting the other freezes it, at 128 KB if it was not raised before. Older
    # versions take at most 32 MB.
    if not (mallopt(_M_MMAP_THRESHOLD, 2**31 - 1) or mallopt(_M_MMAP_THRESHOLD, 2**25)):
        return False
    return mallopt(_M_TRIM_THRESHOLD, -1) == 1  # -1: never


@dataclass(frozen=True)
class Arithmetic:
    """The number format and the order of memory in which a backbone computes."""

    dtype: torch.dtype = torch.float32
    channels_last: bool = False

    def place(self, backbone: nn.Module) -> None:
        """Lay the weights out in the chosen order, in place."""
        if self.channels_last:
            backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def wrap(self, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """``forward`` in this arithmetic, with features in the dtype of its input."""

        def run(x: Tensor) -> Tensor:
            if self.channels_last and x.ndim == 4:
                x = x.contiguous(memory_format=torch.channels_last)
            if self.dtype == torch.float32:
                return forward(x)
            with torch.autocast(x.device.type, dtype=self.dtype):
                return forward(x).to(x.dtype)

        return run


class _Recorded(NamedTuple):
    module: nn.Module
    forward: Callable[[Tensor], Tensor]
    inputs: tuple[Tensor, ...]
    random_states: list[Tensor]
    features: Tensor  # leaf; collects the loss's gradient


@dataclass
class GradientCache:
    """The gradient of a whole-batch loss in the memory of a micro-batch (GradCache, 2021).

    The backbone first runs without a graph, micro-batch by micro-batch; the loss sees the features
    of the whole batch and leaves its gradient on them; :meth:`backward` runs each micro-batch
    again, with a graph, and carries that gradient on to the weights. Dropout repeats its draws, and
    the second pass leaves running statistics alone. BatchNorm in the backbone sees micro-batches.
    """

    micro_batch_size: int
    _calls: list[_Recorded] = field(default_factory=list)

    def wrap(
        self, module: nn.Module, forward: Callable[[Tensor], Tensor]
    ) -> Callable[[Tensor], Tensor]:
        """``forward`` of ``module`` in micro-batches, recorded for :meth:`backward`."""

        def run(x: Tensor) -> Tensor:
            inputs, states, outputs = x.split(self.micro_batch_size), [], []
            with torch.no_grad():
                for part in inputs:
                    states.append(_random_state(x.device))
                    outputs.append(forward(part))
            features = torch.cat(outputs)
            if torch.is_grad_enabled() and any(p.requires_grad for p in module.parameters()):
                features.requires_grad_()
                self._calls.append(_Recorded(module, forward, inputs, states, features))
            return features

        return run

    def backward(self) -> None:
        """Carry the gradients of all recorded features to the weights, then forget them."""
        calls, self._calls = self._calls, []
        for call in calls:
            if call.features.grad is None:
                continue
            buffers = {name: b.clone() for name, b in call.module.named_buffers()}
            grads = call.features.grad.split(self.micro_batch_size)
            for part, state, grad in zip(call.inputs, call.random_states, grads, strict=True):
                with _random_state_set_to(state, part.device):
                    call.forward(part).backward(grad)
            with torch.no_grad():
                for name, buffer in call.module.named_buffers():
                    buffer.copy_(buffers[name])


@contextmanager
def computing(
    method: nn.Module, arithmetic: Arithmetic, cache: GradientCache | None = None
) -> Iterator[None]:
    """Within the block every backbone of ``method`` computes as told.

    Backbones are the direct children called ``backbone`` or ``..._backbone``.
    """
    with ExitStack() as stack:
        for module in backbones_of(method):
            forward = arithmetic.wrap(module.forward)
            if cache is not None:
                forward = cache.wrap(module, forward)
            stack.enter_context(_patched(module, forward))
        yield


def backbones_of(method: nn.Module) -> list[nn.Module]:
    """The online backbone and its moving averages."""
    named = method.named_children()
    return [m for name, m in named if name == "backbone" or name.endswith("_backbone")]


@contextmanager
def _patched(module: Any, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    module.forward = forward  # an instance attribute hides the class's method ...
    try:
        yield
    finally:
        del module.forward  # ... until it is gone


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


@contextmanager
def _random_state_set_to(state: Tensor, device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if device.type == "cuda":
            torch.cuda.set_rng_state(state, device)
        else:
            torch.set_rng_state(state)
        yield


def fastest_arithmetic(
    backbone: nn.Module, image_size: int, device: torch.device, batch_size: int = 32
) -> tuple[Arithmetic, float, str]:
    """Time a few training steps of ``backbone`` on this machine.

    Returns:
        The fastest arithmetic, its images per second (forward and backward), and the reason in
        words. ``backbone`` is for this trial alone: its running statistics change.
    """
    candidates = {
        "float32": Arithmetic(),
        "float32 channels_last": Arithmetic(channels_last=True),
        "bfloat16 channels_last": Arithmetic(torch.bfloat16, channels_last=True),
    }
    images = torch.rand(batch_size, 3, image_size, image_size, device=device)
    speed: dict[str, float] = {}
    backbone.to(device).train()
    for name, arithmetic in candidates.items():
        arithmetic.place(backbone)
        forward = arithmetic.wrap(backbone.forward)
        seconds = min(_seconds(forward, images) for _ in range(3))
        speed[name] = batch_size / seconds
    best = max(speed, key=lambda name: speed[name])
    measured = ", ".join(f"{name} {rate:.0f}" for name, rate in speed.items())
    return candidates[best], speed[best], f"fastest in a short trial here (images/s: {measured})"


def _seconds(forward: Callable[[Tensor], Tensor], images: Tensor) -> float:
    start = time.perf_counter()
    forward(images).sum().backward()
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - start
