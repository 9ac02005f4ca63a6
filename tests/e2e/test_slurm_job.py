"""Two processes as srun starts them: signaled before the limit, queued again, and gone on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from builders import write_photos
from similitude.distributed.launch import _free_port
from similitude.runs.checkpoint import load_checkpoint
from similitude.runs.metrics import read_metrics

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("e2e_processes")]
TRAINING = [
    *("pretrain", "photos", "--out", "run", "--auto-resume", "--method", "byol"),
    *("--batch-size", "16", "--backbone", "resnet18", "--set", "backbone.base_width=4"),
    *("--set", "method.hidden_dim=16", "--set", "precision=float32"),
]


def srun(folder: Path, port: int, *options: str) -> list[subprocess.Popen[str]]:
    """What a batch script's ``srun similitude pretrain ...`` starts on two nodes."""
    return [
        subprocess.Popen(
            [sys.executable, "-m", "similitude", *TRAINING, *options],
            cwd=folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ
            | {
                "OMP_NUM_THREADS": "1",
                "PYTHONUNBUFFERED": "1",
                "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
                "MASTER_PORT": str(port),  # tests may run at once
                "SLURM_JOB_ID": "4711",
                "SLURM_NTASKS": "2",
                "SLURM_STEP_ID": "0",
                "SLURM_STEP_NUM_TASKS": "2",
                "SLURM_STEP_NODELIST": "localhost",
                "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
                "SLURM_PROCID": str(number),
                "SLURM_NODEID": str(number),
                "SLURM_LOCALID": "0",
            },
        )
        for number in range(2)
    ]


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="Windows has no Slurm")
def test_a_job_is_queued_again_before_its_limit_and_the_same_command_goes_on(tmp_path):
    write_photos(tmp_path / "photos", 64)
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\necho $@ >> $0.called\n")
    scontrol.chmod(0o755)

    tasks = srun(tmp_path, _free_port(), "--set", "epochs=12")
    first = tasks[0].stdout
    assert first is not None
    said = []
    for line in first:
        said.append(line)
        if "training" in line:
            break
    time.sleep(0.5)  # into the steps
    tasks[1].send_signal(signal.SIGUSR1)
    outputs = [task.communicate(timeout=300)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [138, 138], outputs
    assert "everything is saved" in outputs[0]
    assert "job 4711 is queued again" in outputs[0]
    assert (tmp_path / "scontrol.called").read_text() == "requeue 4711\n"
    saved = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt").step
    assert 0 < saved < 48

    tasks = srun(tmp_path, _free_port(), "--set", "epochs=12")
    outputs = [task.communicate(timeout=300)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], outputs
    steps = [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.csv")]
    assert steps == sorted(set(steps))  # no step twice
    assert saved in steps
    assert steps[-1] == 48
