"""Weights of which each process holds a part: along the first dimension, as FSDP2 parts them.

A sharded tensor is a ``DTensor``; every other one is whole in each process.
"""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from similitude.devices import moved
from similitude.distributed import rank, sum_over_processes, world_size
from similitude.errors import UserError

# pyright: reportPrivateImportUsage=false
# torch._foreach_* (what torch.optim itself runs on) treats all tensors in one call.


def check_sharding(micro_batch_size: int | None, device: torch.device) -> None:
    """Refuse what sharding does not go with.

    Raises:
        UserError: one process, micro-batches, or a PyTorch in which FSDP2 needs a GPU.
    """
    if world_size() == 1:
        raise UserError("--shard parts a network among processes, and there is one: give --devices")
    if micro_batch_size is not None:
        raise UserError(
            "--shard does not go with micro-batches: give --activation-checkpointing in place of "
            "--micro-batch-size"
        )
    if device.type == "cpu" and not hasattr(torch.cpu.Stream, "record_event"):  # as 2.6
        raise UserError(
            f"PyTorch {torch.__version__} shards on GPUs alone: install a later one, or leave out "
            "--shard"
        )


def check_mean(device: torch.device) -> None:
    """See in all processes that gradients come as a mean: some PyTorch gives sums without a word.

    Raises:
        UserError: they are sums, as with PyTorch 2.8 and gloo.
    """
    layer = nn.Linear(1, world_size(), bias=False, device=device)
    shard_(layer, ())
    layer(torch.ones(1, 1, device=device)).sum().backward()
    grad = layer.weight.grad
    if grad is None or not torch.allclose(whole(grad), torch.ones(world_size(), 1)):
        raise UserError(
            f"PyTorch {torch.__version__} adds gradients of sharded weights up on {device.type}, "
            "where a mean is due: install a later one, or leave out --shard"
        )


def shard_(network: nn.Module, blocks: Iterable[nn.Module]) -> None:
    """Let each process keep a part of every weight, in place.

    A block's weights are gathered when it runs, forward and backward, and parted again; gradients
    come as the mean over the processes, in parts.

    Args:
        network: the same in all processes, on the device where it computes; called as a module.
        blocks: of the network, one gathered after the other; what is in none is gathered for the
            whole pass.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    device = next(network.parameters()).device
    mesh = init_device_mesh(device.type, (world_size(),))
    for module in (*blocks, network):
        # also after a pass that no backward pass follows, so that parameters are always parts
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
    # features may be a view; nothing changes them in place, of which FSDP warns
    name = re.escape(type(network).__name__)
    warnings.filterwarnings("ignore", rf"FSDP2-wrapped module \({name}\) returned a view")


def own_part(x: Tensor) -> Tensor:
    """What this process holds of a tensor, in the same memory."""
    return x.to_local() if isinstance(x, DTensor) else x


def part_of(x: Tensor) -> Tensor:
    """What this process would hold of a whole tensor, were it sharded."""
    parts = x.chunk(world_size())
    return parts[rank()].clone() if rank() < len(parts) else x[:0]


def whole(x: Tensor) -> Tensor:
    """The whole of a tensor, for which all processes ask; a sharded one in the CPU's memory."""
    return x.full_tensor().cpu() if isinstance(x, DTensor) else x


def whole_in_first(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The whole tensors in process 0, and nothing in the others, one after the other."""
    found = {}
    for name, value in state.items():
        gathered = whole(value)
        if rank() == 0:
            found[name] = gathered
    return found


def norms(tensors: Sequence[Tensor], are_parts: Sequence[bool]) -> Tensor:
    """Euclidean norms of the whole tensors, in one tensor: no device is waited for.

    Args:
        tensors: what this process holds.
        are_parts: of which of them the others hold the rest.
    """
    own = torch.stack(torch._foreach_norm(list(tensors)))
    if not any(are_parts):
        return own
    together = sum_over_processes(own.square()).sqrt()
    return torch.where(moved(torch.tensor(are_parts, device="cpu"), own.device), together, own)


@torch.no_grad()
def own_parameter(parameter: nn.Parameter) -> nn.Parameter:
    """What an optimizer moves of a parameter: the part that is here, as one of its own.

    So that every optimizer sees plain tensors; one that is not sharded stays what it is.
    """
    if not isinstance(parameter, DTensor):
        return parameter
    part = nn.Parameter(own_part(parameter), parameter.requires_grad)
    part.whole = parameter  # type: ignore[attr-defined]
    return part


def is_part(parameter: Tensor) -> bool:
    """Whether :func:`own_parameter` made it of a sharded one."""
    return hasattr(parameter, "whole")


@torch.no_grad()
def hand_gradients_on(optimizer: Optimizer) -> None:
    """Give the parts that an optimizer moves what their parameters have got."""
    for part in filter(is_part, _parameters(optimizer)):
        parameter: Any = part.whole  # type: ignore[attr-defined]
        part.data = own_part(parameter)
        part.grad = None if parameter.grad is None else own_part(parameter.grad)


def whole_state_in_first(optimizer: Optimizer) -> dict[str, Any]:
    """The state of an optimizer as if nothing were sharded, in process 0."""
    parameters, state = _parameters(optimizer), optimizer.state_dict()
    for index, values in state["state"].items():
        part = parameters[index]
        if is_part(part):
            like: Any = part.whole  # type: ignore[attr-defined]
            sharded = {n: _as_part(v, like) if _lies_as(v, part) else v for n, v in values.items()}
            state["state"][index] = whole_in_first(sharded)
    return state


def load_whole_state(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load the state of an optimizer, of which this process may keep parts alone."""
    parameters, kept = _parameters(optimizer), {}
    for index, values in state["state"].items():  # in this order they are saved again
        kept[index] = dict(values)
        if index < len(parameters) and is_part(part := parameters[index]):
            like: Any = part.whole  # type: ignore[attr-defined]
            kept[index] = {n: part_of(v) if _lies_as(v, like) else v for n, v in values.items()}
    optimizer.load_state_dict({**state, "state": kept})


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _lies_as(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape


def _as_part(value: Tensor, like: DTensor) -> DTensor:
    where = {"shape": like.shape, "stride": like.stride()}
    return DTensor.from_local(value, like.device_mesh, like.placements, run_check=False, **where)
