"""One training on one, two and four machines, and what happens when one of them is lost.

    sudo env OMP_NUM_THREADS=1 python benchmarks/machines.py

Machines are network namespaces of this one: each has its own name, address and processes, and they
see each other through a bridge alone; the disk stands for one that all of them mount. Linux, as
root. Prints Markdown tables: the same run started in each way against one process, the bytes that
a step sends against the arithmetic of benchmarks/arithmetic.py, and the seconds from the loss of a
machine to the next step. What is set up is torn down, however it ends.
"""

import argparse
import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

import similitude as sim
from arithmetic import counted
from similitude.runs.checkpoint import load_checkpoint

# names of this process's own, so that two may run at once
NAME = f"sim{os.getpid()}n"
BRIDGE, NET = f"sim{os.getpid()}", f"10.213.{os.getpid() % 255}"
PORT = 20_000 + os.getpid() % 10_000  # of torchrun's rendezvous
STORE = f"{NET}.254"  # the bridge itself: a machine that does not train
NETNS = Path("/etc/netns")  # files there stand in for those of /etc within a namespace
# at a rate that does not make much of rounding: at 0.4 runs of other sums part within ten steps
TRAINING = [
    *("pretrain", "digits", "--method", "byol", "--batch-size", "64", "--backbone", "resnet18"),
    *("--set", "backbone.base_width=16", "--set", "method.hidden_dim=256"),
    *("--set", "precision=float32", "--set", "memory_format=contiguous"),
    *("--set", "optimizer.base_lr=0.01"),
]
SIMILITUDE = ["-m", "similitude", *TRAINING]


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def name(number: int) -> str:
    return f"{NAME}{number}"


def link(number: int) -> str:
    return f"{BRIDGE}-{number}"


@contextmanager
def machines(number: int) -> Iterator[None]:
    """So many machines in a network, until the end of the block."""
    numbers = range(number)
    try:
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("address", "add", f"{STORE}/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        hosts = "".join(f"{NET}.{i + 1} {name(i)}\n" for i in numbers)
        for i in numbers:
            ip("netns", "add", name(i))
            ip("link", "add", link(i), "type", "veth", "peer", "name", "eth0", "netns", name(i))
            ip("link", "set", link(i), "master", BRIDGE, "up")
            ip("-n", name(i), "address", "add", f"{NET}.{i + 1}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", name(i), "link", "set", device, "up")
            (NETNS / name(i)).mkdir(parents=True)
            (NETNS / name(i) / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
        yield
    finally:
        for i in numbers:
            with suppress(subprocess.CalledProcessError):  # as far as it came
                kill(i)
                ip("netns", "del", name(i))
            shutil.rmtree(NETNS / name(i), ignore_errors=True)
        with suppress(subprocess.CalledProcessError):
            ip("link", "del", BRIDGE)


def kill(node: int) -> None:
    """End everything on a machine at once, as a power cut does."""
    for pid in ip("netns", "pids", name(node)).split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


class Process:
    """A command on a machine; what it says is kept with the time at which it was said."""

    def __init__(self, node: int, words: Sequence[str], **environment: str) -> None:
        # with a core and a host name of its own, as a machine has
        core = str(node % (os.cpu_count() or 1))
        on = ["ip", "netns", "exec", name(node), "taskset", "-c", core, "unshare", "--uts", "sh"]
        own = ["-c", 'hostname "$0" && exec "$@"', name(node), sys.executable]
        self.lines: list[tuple[float, str]] = []
        self.process = subprocess.Popen(
            [*on, *own, *words],
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line.rstrip()))

    def end(self, seconds: float = 600) -> int:
        code = self.process.wait(seconds)
        self.reader.join()
        return code

    def told(self, words: str, after: float) -> float | None:
        """When it first said so, after a time."""
        return next((at for at, line in self.lines if at > after and words in line), None)


def torchrun(nodes: str, node: int, where: str, *options: str) -> list[str]:
    return [
        *("-m", "torch.distributed.run", "--nnodes", nodes, "--node-rank", str(node)),
        *("--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "machines"),
        *("--rdzv-endpoint", f"{where}:{PORT}", *options),
    ]


def by_torchrun(number: int, node: int) -> tuple[list[str], dict[str, str]]:
    return torchrun(str(number), node, name(0)), {}


def by_num_nodes(number: int, node: int) -> tuple[list[str], dict[str, str]]:
    place = {"MASTER_ADDR": name(0), "MASTER_PORT": "29500", "NODE_RANK": str(node)}
    return [], place | {"OPTIONS": f"--num-nodes {number}"}


def by_srun(number: int, node: int) -> tuple[list[str], dict[str, str]]:
    """The environment that srun makes, of which a shell has the first three."""
    return [], {
        "SLURM_JOB_ID": "4711",
        "SLURM_NTASKS": str(number),
        "SLURM_JOB_NODELIST": f"{NAME}[0-{number - 1}]",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": str(number),
        "SLURM_STEP_NODELIST": f"{NAME}[0-{number - 1}]",
        "SLURM_STEP_TASKS_PER_NODE": f"1(x{number})",
        "SLURM_PROCID": str(node),
        "SLURM_NODEID": str(node),
        "SLURM_LOCALID": "0",
    }


WAYS = {"torchrun": by_torchrun, "--num-nodes": by_num_nodes, "srun's environment": by_srun}


def sent(node: int) -> int:
    """Bytes that a machine has sent."""
    [device] = json.loads(ip("-n", name(node), "-s", "-j", "link", "show", "eth0"))
    return int(device["stats64"]["tx"]["bytes"])


def rows(run: Path) -> list[dict[str, str]]:
    path = run / "metrics.csv"
    if not path.exists():
        return []
    with path.open() as file:
        return [row for row in csv.DictReader(file) if row.get("loss")]


def weights(run: Path) -> torch.Tensor:
    state = load_checkpoint(run / "checkpoints" / "last.ckpt").backbone
    return torch.cat([value.double().flatten() for value in state.values() if value.ndim])


def start_weights(run: Path) -> torch.Tensor:
    state = sim.load(run).untrained().state_dict()
    return torch.cat([value.double().flatten() for value in state.values() if value.ndim])


def way(run: Path, other: Path) -> str:
    """How far two runs ended from each other, to how far training went; or that they are one."""
    a, b = weights(run), weights(other)
    if torch.equal(a, b):
        return "the same bits"
    return f"{float((a - b).norm() / (b - start_weights(other)).norm()):.1e}"


def alone(out: Path, *options: str) -> None:
    command = [sys.executable, *SIMILITUDE, "--out", str(out), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def compare(folder: Path, epochs: int) -> None:
    """The same training in each way, against one process."""
    options = ["--epochs", str(epochs)]
    alone(folder / "one", *options)
    print("| machines | started by | loss | weights apart | s | MB sent per step | on paper |")
    print("|---|---|---|---|---|---|---|")
    print(row(folder / "one", folder / "one", "1", "-", "-", "-"), flush=True)
    for number, (how, start) in itertools.product((2, 4), WAYS.items()):
        out = folder / f"{number}-{how}"
        with machines(number):
            processes = []
            for node in range(number):
                words, environment = start(number, node)
                more = environment.pop("OPTIONS", "").split()
                command = [*words, *SIMILITUDE, "--out", str(out), *options, *more]
                processes.append(Process(node, command, **environment))
            for process in processes:
                if process.end() != 0:
                    raise SystemExit("\n".join(line for _, line in process.lines))
            steps = load_checkpoint(out / "checkpoints" / "last.ckpt").step
            megabytes = max(sent(node) for node in range(number)) / steps / 1e6
        paper = sum(counted(sim.load(out).recipe, number).sent.values()) / 1e6
        cells = (str(number), how, f"{megabytes:.2f}", f"{paper:.2f}")
        print(row(out, folder / "one", *cells), flush=True)


def row(out: Path, one: Path, number: str, how: str, megabytes: str, paper: str) -> str:
    seconds = load_checkpoint(out / "checkpoints" / "last.ckpt").seconds
    apart = "-" if out == one else way(out, one)
    cells = (number, how, rows(out)[-1]["loss"], apart, f"{seconds:.0f}", megabytes, paper)
    return f"| {' | '.join(cells)} |"


def step_of(run: Path) -> int:
    return int(float(rows(run)[-1]["step"])) if rows(run) else 0


def wait_for_step(run: Path, step: int, processes: Sequence[Process]) -> float:
    """Wait until the run has recorded more steps than so many; when it did."""
    while step_of(run) <= step:
        if all(process.process.poll() is not None for process in processes):
            raise SystemExit("\n".join(line for p in processes for _, line in p.lines))
        time.sleep(0.1)
    return time.monotonic()


# what is lost and how, whether another machine takes its place, and the --nnodes of torchrun
LOSSES: dict[str, dict[str, Any]] = {
    "node1 is killed; it comes back after 10 s": {"node": 1, "nodes": "2", "back": 10},
    "node1 is killed; one goes on": {"node": 1, "nodes": "1:2"},
    "node1's cable is pulled; one goes on": {"node": 1, "nodes": "1:2", "cable": True},
    "node1's cable is pulled; it is back, started again, after 100 s": {
        "node": 1,
        "nodes": "2",
        "cable": True,
        "back": 100,
    },
    "node0 is killed; one goes on (rendezvous elsewhere)": {"node": 0, "nodes": "1:2"},
    "node0's cable is pulled; one goes on (rendezvous elsewhere)": {
        "node": 0,
        "nodes": "1:2",
        "cable": True,
    },
}


def lose(folder: Path, epochs: int, which: Sequence[str]) -> None:
    """Lose a machine in the middle, and go on."""
    options = ["--epochs", str(epochs), "--auto-resume"]
    undisturbed = folder / "undisturbed"
    with machines(2):
        command = [*SIMILITUDE, *options, "--out", str(undisturbed)]
        pair = [Process(node, [*torchrun("2", node, name(0)), *command]) for node in range(2)]
        assert [process.end() for process in pair] == [0, 0], pair[0].lines
    print("| what happens | noticed after s | next step after s | steps repeated | weights apart |")
    print("|---|---|---|---|---|")
    for number, (what, loss) in enumerate(LOSSES.items()):
        if any(words in what for words in which):
            print(lost(what, folder / str(number), undisturbed, options, **loss), flush=True)


def lost(
    what: str,
    out: Path,
    undisturbed: Path,
    options: Sequence[str],
    *,
    node: int,
    nodes: str,
    cable: bool = False,
    back: float | None = None,
) -> str:
    command = [*SIMILITUDE, *options, "--out", str(out)]
    with machines(2), rendezvous(STORE):

        def start(number: int) -> Process:
            restarts = ("--max-restarts", "3")
            words = [*torchrun(nodes, number, STORE, *restarts), *command]
            # torch 2.14: a first machine that stays tells one that comes where the store is only so
            return Process(number, words, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")

        processes = [start(0), start(1)]
        wait_for_step(out, 24, processes)  # past the end of an epoch, where it was saved
        step, begin = step_of(out), time.monotonic()
        saved = load_checkpoint(out / "checkpoints" / "last.ckpt").step
        if cable:
            ip("link", "set", link(node), "down")
        else:
            kill(node)
        if back is not None:
            time.sleep(back)
            kill(node)
            ip("link", "set", link(node), "up")
            processes[node] = start(node)
        survivor = processes[1 - node]
        while (noticed := survivor.told("failed (exitcode", begin)) is None:
            time.sleep(0.1)
            if survivor.process.poll() is not None:
                raise SystemExit("\n".join(line for _, line in survivor.lines))
        while step_of(out) >= step and survivor.process.poll() is None:
            time.sleep(0.1)  # rows after the checkpoint go with the first new one
        again = time.monotonic()
        if survivor.end() != 0:
            raise SystemExit("\n".join(line for p in processes for _, line in p.lines))
    cells = (f"{noticed - begin:.0f}", f"{again - begin:.0f}", str(step - saved))
    return f"| {' | '.join((what, *cells, way(out, undisturbed)))} |"


@contextmanager
def rendezvous(address: str) -> Iterator[None]:
    """A place where torchrun's agents meet, on a machine that does not train."""
    store = torch.distributed.TCPStore(address, PORT, is_master=True, wait_for_workers=False)
    yield
    del store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", nargs="*", default=["compare", "lose"])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument(
        "--loss", nargs="*", default=[""], help="those whose names have these words"
    )
    args = parser.parse_args()
    if sys.platform != "linux" or os.geteuid() != 0:
        raise SystemExit("network namespaces are made by root on Linux: run it there, with sudo")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # through the cleaning
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        if "compare" in args.what:
            compare(Path(folder), args.epochs)
        if "lose" in args.what:
            lose(Path(folder), 3 * args.epochs, args.loss)


if __name__ == "__main__":
    main()
