"""Where this process stands among those that train together, and what passes between them.

Everything here is the identity in one process. N samples per process, W processes, M = W N.
"""

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor

from similitude.devices import fetched, moved, take_own_device
from similitude.errors import UserError
from similitude.slurm import launched

T = TypeVar("T")

TIME_TO_MEET = timedelta(minutes=10)
SECONDS_TO_ANSWER = 60  # of another machine's kernel; a switch that restarts takes half of them
MEETING = "SIMILITUDE_MEETING"  # in the environment: the file in which the processes meet

_alone = False


def _are_together() -> bool:
    return not _alone and dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """Number of processes W that train together; 1 without a process group."""
    return dist.get_world_size() if _are_together() else 1


def rank() -> int:
    """Number of this process, 0 to W - 1; 0 without a process group."""
    return dist.get_rank() if _are_together() else 0


@contextmanager
def alone() -> Iterator[None]:
    """Within the block this process is the only one, e.g. to try a step without the others."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def is_launched() -> bool:
    """Whether a launcher (ours, torchrun or srun) started this process as one of several."""
    told = launched(os.environ)
    size = told.get("WORLD_SIZE", "")
    return "RANK" in told and size.isdigit() and int(size) > 1


def is_first_launched() -> bool:
    """Whether this is the process that speaks: the only one, or number 0 of those launched."""
    return not is_launched() or int(launched(os.environ)["RANK"]) == 0


def is_first_of_machine() -> bool:
    """Whether this is the process that tells of mistakes: the first one of each machine."""
    return not is_launched() or int(launched(os.environ).get("LOCAL_RANK", "0")) == 0


def processes_of_machine() -> int:
    """How many of the processes share this machine's memory and cores."""
    return int(launched(os.environ).get("LOCAL_WORLD_SIZE", "1")) if is_launched() else 1


def join_processes() -> None:
    """Meet the other processes that a launcher started; nothing where there are none.

    Raises:
        UserError: the environment says that there are others and not where, or they do not come.
    """
    if not is_launched() or dist.is_initialized():
        return
    told = launched(os.environ)
    if missing := [n for n in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if n not in told]:
        raise UserError(
            f"the environment has WORLD_SIZE and RANK without {', '.join(missing)}: start the "
            "processes with torchrun, srun or --devices, or unset WORLD_SIZE to have one"
        )
    backend = take_own_device(int(told["LOCAL_RANK"]))
    number, processes = int(told["RANK"]), int(told["WORLD_SIZE"])
    where = f"tcp://{told['MASTER_ADDR']}:{told['MASTER_PORT']}"
    if meeting := told.get(MEETING):
        where = f"file://{meeting}"
    elif told is os.environ:
        where = "env://"  # torchrun may have opened the place already
    try:
        store, *_ = next(rendezvous(where, number, processes, timeout=TIME_TO_MEET))
    except dist.DistError as error:
        raise UserError(
            f"process {number} did not meet the other {processes - 1} at {told['MASTER_ADDR']}, "
            f"port {told['MASTER_PORT']} ({error}): see that all are started, and that this "
            "address is reached from every machine"
        ) from error
    # The first process may download or score for long while the others wait for it.
    dist.init_process_group(
        backend, timeout=timedelta(days=1), store=store, rank=number, world_size=processes
    )
    if processes_of_machine() < processes:
        _watch_connections()


def _watch_connections() -> None:
    """Have the kernel end connections to a machine that is gone without a word, as by its cable.

    Who waits at one then gets an error. A process that is only busy, however long, has a kernel
    that answers. gloo and the store hand out no sockets, so all that are open are watched.
    """
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        return  # not Linux
    options = {
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): SECONDS_TO_ANSWER // 4,
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL): SECONDS_TO_ANSWER // 4,
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT): 1000 * SECONDS_TO_ANSWER,
    }
    for entry in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # not a socket, or one of another kind
            connection = socket.socket(fileno=int(entry))
            try:
                for (level, name), value in options.items():
                    connection.setsockopt(level, name, value)
            finally:
                connection.detach()


@contextmanager
def telling_of_lost_machines() -> Iterator[None]:
    """Within the block, an error of the network is a sentence, where there are several machines.

    Raises:
        UserError: the connection to another process is gone.
    """
    try:
        yield
    except RuntimeError as error:
        of_network = any(word in str(error) for word in ("gloo", "NCCL"))  # they have no class
        if not of_network or processes_of_machine() == world_size():
            raise
        raise UserError(
            f"process {rank()} of {world_size()} has lost another one ({error}): give the same "
            "command again on every machine, with --resume or --auto-resume"
        ) from error


def own_share() -> tuple[int, int]:
    """Number of this process, and of how many that share the work on the same rows."""
    return rank(), world_size()


def own_rows(x: Shaped[Tensor, "M ..."]) -> Shaped[Tensor, "N ..."]:
    """This process's rows of what :func:`gather` gave."""
    return x.chunk(world_size())[rank()]


def gather(x: Shaped[Tensor, "N ..."]) -> Shaped[Tensor, "M ..."]:
    """Concatenate ``x`` over processes along dim 0, in rank order, with gradients.

    Every process works out its part of the whole batch's loss from the gathered rows, so that the
    mean over processes is the loss. The gradient that reaches ``x`` is the sum of theirs, W times
    that of the loss; averaging the gradients of weights over the W processes makes the update that
    of one process holding the whole batch.

    Args:
        x: the same shape in every process.
    """
    return x if world_size() == 1 else _Gather.apply(x)  # type: ignore[return-value]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        x = x.contiguous()
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> Tensor:  # type: ignore[override]
        return own_rows(sum_over_processes(grad))


@torch.no_grad()
def sum_over_processes(x: Tensor) -> Tensor:
    """The sum of ``x`` over processes, without gradients; a new tensor where there are several."""
    if world_size() == 1:
        return x
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def mean_over_processes(x: Tensor) -> Tensor:
    """The mean of ``x`` over processes, without gradients."""
    return sum_over_processes(x) / world_size()


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over processes.

    Called once, after everything has been propagated back: under micro-batches a parameter's
    gradient grows in many small passes, and only the whole one is worth sending. Those of sharded
    parameters are means already.
    """
    if world_size() == 1:
        return
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None and not isinstance(parameter, DTensor):
            kinds.setdefault((parameter.dtype, parameter.device), []).append(parameter.grad)
    for grads in kinds.values():  # one message for each kind of number
        whole = sum_over_processes(torch.cat([grad.flatten() for grad in grads]))
        whole /= world_size()
        for grad, mean in zip(grads, whole.split([g.numel() for g in grads]), strict=True):
            grad.copy_(mean.view_as(grad))


@torch.no_grad()
def share_state_of_first(module: nn.Module) -> None:
    """Give every process the parameters and buffers of process 0."""
    if world_size() > 1:
        for value in module.state_dict().values():
            dist.broadcast(value, 0)


def any_process(flags: Iterable[bool], device: torch.device) -> list[bool]:
    """For each flag, whether it is set in any process; the same answer in all."""
    mine = [bool(flag) for flag in flags]
    if world_size() == 1:
        return mine
    return sum_over_processes(torch.tensor(mine, dtype=torch.int64, device=device)).gt(0).tolist()


class FlagsOfAll:
    """Flags of all processes, told one call late, so that nobody waits for what is under way.

    Args:
        device: where the processes talk.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before: Callable[[], Tensor] | None = None

    def any(self, flags: Iterable[bool]) -> list[bool]:
        """For each flag, whether it was set in any process at the call before; alone, now."""
        mine = [bool(flag) for flag in flags]
        if world_size() == 1:
            return mine
        before = self._before
        sent = moved(torch.tensor(mine, dtype=torch.int64, device="cpu"), self._device)
        self._before = fetched(sum_over_processes(sent))
        return [False] * len(mine) if before is None else before().gt(0).tolist()


def decided_by_first(decide: Callable[[], T]) -> T:
    """What ``decide`` returns in process 0, in all of them; a UserError there is one in all.

    Raises:
        UserError: the decision cannot be made.
    """
    if world_size() == 1:
        return decide()
    answer: list[object] = [None]
    if rank() == 0:
        try:
            answer = [(decide(), None)]
        except UserError as error:
            answer = [(None, str(error))]
    dist.broadcast_object_list(answer)
    decision, refusal = answer[0]  # type: ignore[misc]
    if refusal is not None:
        raise UserError(refusal)
    return decision


def first_then_others(do: Callable[[], T]) -> T:
    """Call ``do`` in process 0, then in the others, e.g. where the first call downloads a file.

    Raises:
        UserError: the first call raised it.
    """
    mine: list[T] = []
    decided_by_first(lambda: mine.append(do()))
    return mine[0] if mine else do()
