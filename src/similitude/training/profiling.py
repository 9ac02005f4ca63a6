"""Where the time of a training step goes, beside what this machine could do at best."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from similitude.distributed.threads import one_by_one

WARM_UP = 5  # steps that are not timed: memory is taken, kernels are chosen
STEPS = 30  # that are timed
STAGES = (
    "waiting for images",
    "views",
    "networks, forward",
    "target networks",
    "loss",
    "networks, backward",
    "sum over processes",
    "optimizer",
    "targets and schedules",
    "records",
)
UNNAMED = "loss"  # what a method computes besides its networks
NETWORKS = ("networks, forward", "target networks", "networks, backward")


class Stages:
    """Names the stages of a step; this one times nothing, which costs nothing."""

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around a whole step."""
        yield

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Around a part of a step; what is inside another stage counts for the inner one."""
        yield


@dataclass
class Work:
    """What a stage did."""

    seconds: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0


class Profile(Stages):
    """Times every stage over some steps, and counts the operations and bytes of another one.

    Args:
        method: its networks are told apart from the loss.
        device: waits for it at the borders of stages.
        waited: seconds that have been spent waiting for images so far.
    """

    def __init__(
        self, method: nn.Module, device: torch.device, waited: Callable[[], float] = lambda: 0.0
    ) -> None:
        self.work = {name: Work() for name in STAGES}
        self.device = device
        self.steps = 0
        self._stack: list[str] = []
        self._waited = waited
        self._since, self._waited_before = time.perf_counter(), waited()
        self._counters: tuple[FlopCounterMode, _Traffic] | None = None
        self._counted = (0.0, 0.0)
        self._handles: list[Any] = []
        for name, module in method.named_modules():
            if 1 <= name.count(".") + 1 <= 2 and name and any(True for _ in module.parameters()):
                kind = "target networks" if name.startswith("target_") else "networks, forward"
                self._watch(module, kind)

    @property
    def is_finished(self) -> bool:
        """Whether all steps that it needs have been taken."""
        return self.steps == WARM_UP + STEPS

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Around one step, of which operations and bytes are counted instead of time.

        Under the counters PyTorch takes other ways through some operations: the last digits of such
        a step may differ, and nothing of it should be kept.
        """
        flops, traffic = FlopCounterMode(display=False), _Traffic()
        with flops, traffic, one_by_one():  # the counters hear of this thread alone
            self._counters = flops, traffic
            self._enter(UNNAMED)
            try:
                yield
            finally:
                self._leave()
                self._counters = None

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time a step."""
        if self.is_finished:
            yield
            return
        self._enter(UNNAMED)
        try:
            yield
        finally:
            self._leave()
        self.steps += 1
        if self.steps == WARM_UP:
            for work in self.work.values():
                work.seconds = 0.0
        if self.is_finished:
            for handle in self._handles:
                handle.remove()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a part of the step."""
        if self.is_finished:
            yield
            return
        self._enter(name)
        try:
            yield
        finally:
            self._leave()

    def table(self, limits: "Limits") -> str:
        """One line for each stage: its time, share and work, and the least time for that work.

        Args:
            limits: of this machine.
        """
        steps = self.steps - WARM_UP
        if steps < 1:
            return (
                f"no profile: the run took {self.steps} steps, and the first {WARM_UP} are not "
                "timed\n"
            )
        total = sum(work.seconds for work in self.work.values()) / steps
        lines = [f"{'stage':<24}{'ms':>9}{'share':>8}{'GFLOP':>9}{'GB':>8}{'floor ms':>10}"]
        for name, work in self.work.items():
            seconds = work.seconds / steps
            if seconds == 0 and work.bytes == 0:
                continue
            floor = max(work.flops / limits.flops, work.bytes / limits.bytes)
            lines.append(
                f"{name:<24}{1e3 * seconds:9.2f}{seconds / total:8.1%}{work.flops / 1e9:9.2f}"
                f"{work.bytes / 1e9:8.2f}{1e3 * floor:10.2f}"
            )
        inside = sum(self.work[name].seconds for name in NETWORKS) / steps
        lines += [
            f"{'a whole step':<24}{1e3 * total:9.2f}{1:8.1%}",
            f"means of {steps} steps; outside the networks {1 - inside / total:.1%}; this machine: "
            f"{limits.flops / 1e9:,.0f} GFLOP/s in matrix products, {limits.bytes / 1e9:.1f} GB/s "
            "in copies; floor: the longer of both for the operations and bytes of a stage "
            "(operations are those of matrix products and convolutions, bytes count operands that "
            "a cache may hold)",
        ]
        return "\n".join(lines) + "\n"

    def _watch(self, module: nn.Module, kind: str) -> None:
        self._handles += [
            module.register_forward_pre_hook(lambda *_: self._enter(kind)),
            module.register_forward_hook(lambda *_: self._leave()),
        ]

    def _enter(self, name: str) -> None:
        self._book()
        self._stack.append(name)

    def _leave(self) -> None:
        self._book()
        self._stack.pop()

    def _book(self) -> None:
        """Give what has passed since the last call to the innermost stage."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        work = self.work[self._stack[-1] if self._stack else "records"]
        if self._counters is None:
            waiting = self._waited() - self._waited_before
            self.work["waiting for images"].seconds += waiting
            work.seconds += now - self._since - waiting
        else:
            flops, traffic = self._counters
            counted = (float(flops.get_total_flops()), traffic.bytes)
            work.flops += counted[0] - self._counted[0]
            work.bytes += counted[1] - self._counted[1]
            self._counted = counted
        self._since, self._waited_before = time.perf_counter(), self._waited()


class _Traffic(TorchDispatchMode):
    """Bytes of the tensors that operations read and write; views move none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not _is_view(func):
            inputs, outputs = tree_iter((args, kwargs)), tree_iter(result)
            tensors = {id(t): t for t in (*inputs, *outputs) if isinstance(t, Tensor)}
            self.bytes += sum(t.numel() * t.element_size() for t in tensors.values())
        return result


def _is_view(func: Any) -> bool:
    aliases = [output.alias_info for output in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


@dataclass(frozen=True)
class Limits:
    """The best this machine does: operations and bytes in a second."""

    flops: float
    bytes: float


def measure_limits(dtype: torch.dtype, device: torch.device) -> Limits:
    """Time large matrix products in ``dtype``, and copies of more than any cache holds."""
    matrix = torch.ones(2048, 2048, dtype=dtype, device=device)
    block = torch.ones(2**26, device=device)  # 256 MB
    target = torch.empty_like(block)
    flops = 2 * len(matrix) ** 3 / _best_seconds(lambda: matrix @ matrix, device)
    return Limits(flops, 2 * block.nbytes / _best_seconds(lambda: target.copy_(block), device))


def _best_seconds(run: Callable[[], object], device: torch.device, rounds: int = 5) -> float:
    seconds = []
    for _ in range(rounds + 1):  # the first one warms up
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
