"""How the backbone computes: precision, memory format, micro-batches. Never what it computes.

Heads and losses always run in float32 on the whole batch; only the backbone is touched.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from similitude.devices import computing_in, random_state, random_state_set_to
from similitude.errors import UserError
from similitude.nets.blocks import blocks_of, computed_twice

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Arithmetic:
    """How a backbone computes what it computes.

    Attributes:
        dtype: number format of its products.
        channels_last: order of memory.
        plain_attention: attention as products and softmax, instead of PyTorch's fused kernel. That
            keeps all weights of a layer in memory, and is faster where the kernel is slow: in
            bfloat16 on processors without matrix units, whose backward pass it is.
        activation_checkpointing: blocks keep their inputs alone, and run again in the backward
            pass. Less memory for one more forward pass, and the same bits.
    """

    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    plain_attention: bool = False
    activation_checkpointing: bool = False

    def place(self, backbone: nn.Module, *, for_training: bool = False) -> None:
        """Lay the weights out in the chosen order, in place.

        Args:
            backbone: whose weights.
            for_training: choose the kernel of attention too, whose backward pass it is for.
        """
        if self.channels_last:
            for weight in backbone.parameters():
                weight.data = in_channels_last(weight.data)
        if self.plain_attention and for_training:
            for module in fused_attentions(backbone):
                module.fused_attn = False

    def wrap(self, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """``forward`` in this arithmetic, with features in the dtype of its input."""

        def run(x: Any) -> Tensor:  # a tensor, or what the network takes in its place
            if self.channels_last:
                x = in_channels_last(x)
            if self.dtype == torch.float32:
                return forward(x)
            with computing_in(self.dtype, x.device):
                return forward(x).to(x.dtype)

        return run


def in_channels_last(x: Any) -> Any:
    """Images and clips in the order of memory in which channels come last, all else as it is.

    Args:
        x: a tensor, or what a network takes in its place; what has several has ``each``.
    """
    if isinstance(x, Tensor):
        return x.contiguous(memory_format=_CHANNELS_LAST[x.ndim]) if x.ndim in _CHANNELS_LAST else x
    return x.each(in_channels_last) if hasattr(x, "each") else x


def fused_attentions(backbone: nn.Module) -> list[Any]:
    """The modules of timm in which attention is PyTorch's fused kernel."""
    return [module for module in backbone.modules() if getattr(module, "fused_attn", False)]


class _Recorded(NamedTuple):
    module: nn.Module
    forward: Callable[[Tensor], Tensor]
    inputs: Sequence[Any]
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

        def run(x: Any) -> Tensor:  # a tensor, or what the network takes in its place
            inputs, states, outputs = x.split(self.micro_batch_size), [], []
            with torch.no_grad():
                for part in inputs:
                    states.append(random_state(x.device))
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
                with random_state_set_to(state, part.device):
                    call.forward(part).backward(grad)
            with torch.no_grad():
                for name, buffer in call.module.named_buffers():
                    buffer.copy_(buffers[name])


@contextmanager
def computing(
    method: nn.Module,
    arithmetic: Arithmetic,
    cache: GradientCache | None = None,
    compiled: Mapping[nn.Module, Callable[[Tensor], Tensor]] | None = None,
) -> Iterator[None]:
    """Within the block every backbone of ``method`` computes as told.

    Backbones are the direct children called ``backbone`` or ``..._backbone``.

    Args:
        method: whose backbones.
        arithmetic: number format and order of memory.
        cache: for micro-batches.
        compiled: what :func:`compiled_forwards` made of the backbones, to use in their place.
    """
    with ExitStack() as stack:
        for name, module in _named_backbones(method):
            if arithmetic.activation_checkpointing:
                for block in blocks_of(module):
                    stack.enter_context(_patched(block, computed_twice(block)))
            forward = arithmetic.wrap((compiled or {}).get(module, module.forward))
            stage = "target backbone" if name.startswith("target_") else "backbone"
            forward = record_function(stage)(forward)
            if cache is not None:
                forward = cache.wrap(module, forward)
            stack.enter_context(_patched(module, forward))
        yield


def compiled_forwards(method: nn.Module) -> dict[nn.Module, Callable[[Tensor], Tensor]]:
    """The forward pass of every backbone, which ``torch.compile`` turns into kernels when called.

    For the shapes and the mode of training alone: each other one would be compiled anew. Whatever
    this process compiled before is forgotten, so that the kernels are those of a fresh process.
    """
    torch.compiler.reset()
    return {module: compiled_forward(module) for module in backbones_of(method)}


def compiled_forward(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """``module.forward``, compiled at its first call for each shape of the input.

    Raises:
        UserError: (its calls) it cannot be compiled here.
    """
    from torch._dynamo.exc import TorchDynamoException  # seconds, which other runs save

    compiled = torch.compile(module.forward, dynamic=False)

    def run(x: Tensor) -> Tensor:
        try:
            return compiled(x)
        except TorchDynamoException as error:
            cause = str(getattr(error, "inner_exception", error)).strip() or type(error).__name__
            raise UserError(
                f"torch.compile cannot compile the backbone here ({cause.splitlines()[0]}): "
                "train with --set compile=false"
            ) from error

    return run


def backbones_of(method: nn.Module) -> list[nn.Module]:
    """The online backbone and its moving averages."""
    return [module for _, module in _named_backbones(method)]


def _named_backbones(method: nn.Module) -> list[tuple[str, nn.Module]]:
    """Of a network with ``inner``, whose outputs are more than features, that: methods call it."""
    named = method.named_children()
    found = [(n, m) for n, m in named if n == "backbone" or n.endswith("_backbone")]
    return [(name, getattr(module, "inner", module)) for name, module in found]


@contextmanager
def _patched(module: Any, forward: Callable[..., Any]) -> Iterator[None]:
    module.forward = forward  # an instance attribute hides the class's method ...
    try:
        yield
    finally:
        del module.forward  # ... until it is gone
