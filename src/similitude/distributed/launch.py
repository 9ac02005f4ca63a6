"""Start several processes that do the same thing together, and listen to the first of them."""

import os
import pickle
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.multiprocessing as mp

from similitude.devices import CHOSEN, best_device, number_of
from similitude.distributed import MEETING, is_launched
from similitude.errors import UserError
from similitude.listener import INTERRUPTED, Listener, end, end_anywhere, hearing, stop_signals

_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_END = 20.0  # for the other processes, once one has failed


def wants_processes(devices: int | None, num_nodes: int) -> bool:
    """Whether this process is to start others; not if it is itself one of several.

    Raises:
        UserError: fewer than one, or more devices than the machine has.
    """
    devices = 1 if devices is None else devices
    if devices < 1 or num_nodes < 1:
        raise UserError(f"{devices} devices on {num_nodes} machines; give at least 1 of each")
    if is_launched() or devices * num_nodes == 1:
        return False
    device = best_device()
    if device.type == "cuda" and device.index is None and devices > number_of("cuda"):
        raise UserError(
            f"{devices} devices are asked for and this machine has {number_of('cuda')}: ask for no "
            f"more, or let them share one with {CHOSEN}=cuda:0"
        )
    return True


def refuse_processes(command: str) -> None:
    """For what one process does alone.

    Raises:
        UserError: a launcher started several.
    """
    if is_launched():
        raise UserError(
            f"similitude {command} runs in one process: start it without torchrun or srun"
        )


def run_on_devices(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    *,
    devices: int,
    num_nodes: int = 1,
    listener: Listener | None = None,
) -> Any:
    """Call ``function(**arguments, listener=...)`` in a process for each device of this machine.

    The processes find each other as torchrun's do, through the environment. On several machines
    the same command runs on each, with MASTER_ADDR, MASTER_PORT and NODE_RANK set.

    Args:
        function: importable by name; its result must be picklable.
        arguments: its keyword arguments, picklable.
        devices: processes on this machine; on a machine with GPUs each has one.
        num_nodes: machines.
        listener: hears the first process.

    Returns:
        What the first process of this machine returned.

    Raises:
        UserError: one in a process, or a process that died.
    """
    with ExitStack() as stack:
        meeting = _meeting_point(num_nodes)
        places = [_environment(local, devices, num_nodes, *meeting) for local in range(devices)]
        if num_nodes == 1:
            folder = stack.enter_context(TemporaryDirectory(prefix="similitude-"))
            for place in places:
                place |= _within_the_machine(Path(folder) / "meeting")
        return _run_in(places, function, arguments, listener)


def _within_the_machine(meeting: Path) -> dict[str, str]:
    """Meet in a file and talk through the loopback alone: no port is open to other machines."""
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if loopback else ()
    return {MEETING: str(meeting), **dict.fromkeys(names, str(loopback))}


def _run_in(
    places: list[dict[str, str]],
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    listener: Listener | None,
) -> Any:
    """Call the function in a process for each place; see :func:`run_on_devices`."""
    context = mp.get_context("spawn")
    messages = context.Queue()
    # As bytes: multiprocessing would share the memory of tensors, and so one set of weights.
    try:
        given = pickle.dumps(dict(arguments))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UserError(
            f"what was given cannot be sent to other processes ({error}): define its class in a "
            "module, or start the script itself with torchrun"
        ) from error
    children = [
        context.Process(target=_child, args=(place, function, given, messages), daemon=True)
        for place in places
    ]
    with _passing_interrupts_on(children) as interrupts:
        try:
            for child in children:
                child.start()
                if interrupts.number:  # while there was nobody yet to tell
                    child.kill()
                    end(interrupts.number)
            return _listen(children, messages, listener, interrupts)
        except (UserError, RuntimeError):
            if interrupts.number:  # they died of it, wherever they were
                end(interrupts.number)
            raise
        finally:
            _end(children)


def _meeting_point(num_nodes: int) -> tuple[str, str, int]:
    """Address and port of the first process, and the number of this machine."""
    if num_nodes == 1:
        return "127.0.0.1", str(_free_port()), 0
    missing = [k for k in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if k not in os.environ]
    if missing:
        raise UserError(
            f"{num_nodes} machines need {', '.join(missing)} in the environment of each: the "
            "address and a free port of the first machine, and the machine's own number from 0"
        )
    return os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"], int(os.environ["NODE_RANK"])


def _environment(
    local: int, devices: int, num_nodes: int, address: str, port: str, node: int
) -> dict[str, str]:
    """What torchrun tells a process."""
    return {
        "MASTER_ADDR": address,
        "MASTER_PORT": port,
        "RANK": str(node * devices + local),
        "LOCAL_RANK": str(local),
        "GROUP_RANK": str(node),
        "WORLD_SIZE": str(devices * num_nodes),
        "LOCAL_WORLD_SIZE": str(devices),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _end(children: list[Any]) -> None:
    """Wait a little for those that are still at work, then end them."""
    deadline = time.monotonic() + _SECONDS_TO_END
    for child in children:
        if child.pid is not None:
            child.join(max(0.0, deadline - time.monotonic()))
    for child in children:
        if child.is_alive():
            child.kill()  # a request to terminate can wait in a message that never comes
            child.join()


@dataclass
class _Interrupts:
    """The last signal, how many there were, and whether the processes have begun to speak."""

    number: int = 0
    times: int = 0
    begun: bool = False


@contextmanager
def _passing_interrupts_on(children: list[Any]) -> Iterator[_Interrupts]:
    """Stop signals go to the children, which end in their own way.

    The third one kills them, and so does one before they have begun: nothing is lost yet, and not
    all of them may be there to hear it.
    """
    interrupts = _Interrupts()

    def hear(number: int) -> None:
        interrupts.number = number
        interrupts.times += 1
        gently = interrupts.begun and interrupts.times < 3
        for child in children:
            if child.pid is not None and child.is_alive():
                os.kill(child.pid, number if gently else signal.SIGKILL)

    with hearing(hear):
        yield interrupts


class _Relay:
    """Sends what the first process says to the one that started it."""

    def __init__(self, messages: Any, speaks: bool) -> None:
        self.messages, self.speaks = messages, speaks

    def say(self, sentence: str) -> None:
        if self.speaks:
            self.messages.put(("say", (sentence,)))

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        if self.speaks:
            self.messages.put(("progress", (what, done, total, note)))


def _child(
    place: dict[str, str], function: Callable[..., Any], given: bytes, messages: Any
) -> None:
    threading.Thread(target=end_with_parent, daemon=True).start()
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # a terminal's Ctrl-C comes through the parent alone, and so once
    signal.signal(signal.SIGINT, end_anywhere)
    os.environ.update(place)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(max(1, (cores or 1) // int(place["LOCAL_WORLD_SIZE"])))
    first = place["LOCAL_RANK"] == "0"
    try:
        result = function(**pickle.loads(given), listener=_Relay(messages, first))
    except UserError as error:
        messages.put(("refusal", str(error)))
        sys.exit(2)
    except KeyboardInterrupt:
        messages.put(("interrupted", signal.SIGINT))
        sys.exit(INTERRUPTED)
    except SystemExit as ended:
        told = [number for number in stop_signals() if ended.code == 128 + number]
        if told:
            messages.put(("interrupted", told[0]))
        else:  # somebody's method may end the process
            messages.put(("crash", f"a process ended itself: sys.exit({ended.code!r})"))
        raise
    except BaseException:
        messages.put(("crash", traceback.format_exc()))
        sys.exit(1)
    if first:
        # As bytes: tensors would stay in this process, which ends before they are read.
        messages.put(("result", pickle.dumps(result)))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def end_with_parent() -> None:
    """No process goes on alone when the one that started it is gone, however it went."""
    parent = mp.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _listen(
    children: list[Any], messages: Any, listener: Listener | None, interrupts: _Interrupts
) -> Any:
    """Pass messages on until the first process has answered and all have ended."""
    answer: tuple[str, Any] | None = None
    while True:
        try:
            kind, content = messages.get(timeout=_SECONDS_BETWEEN_LOOKS)
        except queue.Empty:
            # once interrupted, the first may still be saving what the others have left
            waits = answer is not None and answer[0] == "interrupted"
            if any(child.is_alive() for child in children) and (waits or not _failed(children)):
                continue
            for number in stop_signals():
                if any(child.exitcode == -number for child in children):
                    for child in children:  # outside of a training; without it they cannot go on
                        child.terminate()
                    end(number)
            if answer is None:
                raise _ended(children) from None
            break
        interrupts.begun = True
        if kind in ("say", "progress"):
            if listener is not None:
                getattr(listener, kind)(*content)
        elif answer is None or (kind == "refusal" and answer[0] == "crash"):
            # A process that refuses makes the others crash: its sentence is the one that counts.
            answer = (kind, content)
        if answer is not None and answer[0] == "result":
            break
    if answer[0] == "interrupted":
        end(answer[1], told=True)
    if answer[0] == "refusal":
        raise UserError(answer[1])
    if answer[0] == "crash":
        if any((child.exitcode or 0) < 0 for child in children):
            raise _ended(children)  # the others crash when one of them is gone
        raise RuntimeError(f"a process failed:\n{answer[1]}")
    return pickle.loads(answer[1])


def _ended(children: list[Any]) -> UserError:
    return UserError(
        f"{_who_ended(children)}; what it said stands above. If nothing does, the memory may not "
        "hold that many: try fewer --devices, or --micro-batch-size"
    )


def _who_ended(children: list[Any]) -> str:
    """The one whose end came first, as far as can be told: the others may have failed of it."""
    killed_first = sorted(enumerate(children, start=1), key=lambda c: _cause(c[1].exitcode))
    for number, child in killed_first:
        if child.exitcode not in (None, 0):
            killed = f"was killed by signal {-child.exitcode}" if child.exitcode < 0 else "ended"
            return f"process {number} of {len(children)} {killed} without a result"
    return "the processes ended without a result"


def _cause(exit_code: int | None) -> int:
    """Small for what comes from outside, as from who ends the process that takes most memory."""
    return 0 if exit_code == -signal.SIGKILL else 1 if (exit_code or 0) < 0 else 2


def _failed(children: list[Any]) -> bool:
    return any(child.exitcode not in (None, 0) for child in children)
