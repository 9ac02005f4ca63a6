"""The place of a process in a job of Slurm, and the request to queue the job again.

This module imports nothing that takes time: whoever hears the first signals needs it.
"""

import os
import re
import subprocess
from collections.abc import Mapping

from similitude.errors import UserError

_NEEDED = (
    *("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE"),
    *("SLURM_NODEID", "SLURM_PROCID", "SLURM_LOCALID"),
)


def is_in_job() -> bool:
    """Whether this process belongs to a job of Slurm, with others or alone."""
    return "SLURM_JOB_ID" in os.environ


def place(environment: Mapping[str, str]) -> dict[str, str]:
    """What torchrun would tell a process that ``srun`` started as one of several; else nothing.

    The number of tasks of the *step* decides, which srun alone sets. A batch script and an
    interactive shell have those of the job too, SLURM_NTASKS and SLURM_PROCID, and are one process.

    Args:
        environment: as srun made it; MASTER_ADDR and MASTER_PORT in it win.

    Raises:
        UserError: a part of what srun sets is missing.
    """
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
        return {}
    if lacking := [name for name in _NEEDED if name not in environment]:
        raise UserError(
            f"the environment has SLURM_STEP_NUM_TASKS without {', '.join(lacking)}: hand all of "
            "srun's variables on, as into a container, or set RANK, WORLD_SIZE and the like"
        )
    node = environment["SLURM_NODEID"]
    # steps of a job may run at once; below the ports that a system hands out
    port = 15_000 + (int(environment["SLURM_JOB_ID"]) + int(environment["SLURM_STEP_ID"])) % 10_000
    return {
        "MASTER_ADDR": environment.get("MASTER_ADDR")
        or first_host(environment["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": environment.get("MASTER_PORT") or str(port),
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "GROUP_RANK": node,
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(tasks_of(environment["SLURM_STEP_TASKS_PER_NODE"])[int(node)]),
    }


def launched(environment: Mapping[str, str]) -> Mapping[str, str]:
    """What a launcher told a process, in torchrun's names: ours, torchrun, or srun."""
    return environment if environment.get("RANK") else place(environment)


def is_first() -> bool:
    """Whether this is the only process, or number 0 of those launched."""
    return int(launched(os.environ).get("RANK") or 0) == 0


def first_host(nodes: str) -> str:
    """The first host of a list as Slurm writes it: ``gpu001`` of ``gpu[001-004,007],big1``."""
    return re.sub(r"\[([^],-]+)[^]]*\]", r"\1", nodes).partition(",")[0]


def tasks_of(counts: str) -> list[int]:
    """The number of tasks on each node: [4, 4, 3] of ``4(x2),3``."""
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", counts)
    return [int(number) for number, times in found for _ in range(int(times or 1))]


def requeue() -> str:
    """Have Slurm queue this job again, which it ends at once; what came of it, in a sentence."""
    job = os.environ["SLURM_JOB_ID"]
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    command = ["scontrol", "requeue", job]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        why = done.stderr.strip() if done.returncode else ""
    except OSError as error:  # in a container scontrol may be missing
        why = f"scontrol: {error.strerror}"
    if why:
        return f"job {job} is not queued again ({why}): submit it once more"
    return f"job {job} is queued again"
