"""What srun sets is what torchrun sets in other words; what sbatch and salloc set is no launch."""

import os
import signal
import stat
import subprocess
import sys

import pytest

from similitude import slurm
from similitude.distributed import is_first_launched, is_launched, processes_of_machine
from similitude.errors import UserError

STEP = {  # the sixth of seven tasks on three nodes
    "SLURM_JOB_ID": "1234567",
    "SLURM_NTASKS": "7",
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_STEP_NODELIST": "gpu[007-008,011]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),3",
    "SLURM_PROCID": "5",
    "SLURM_NODEID": "2",
    "SLURM_LOCALID": "1",
}
BATCH = {name: value for name, value in STEP.items() if "STEP" not in name}


def test_a_task_of_srun_is_told_its_place():
    assert slurm.place(STEP) == {
        "MASTER_ADDR": "gpu007",
        "MASTER_PORT": "19569",
        "RANK": "5",
        "WORLD_SIZE": "7",
        "GROUP_RANK": "2",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "3",
    }


def test_steps_of_a_job_that_run_at_once_meet_at_other_ports_below_those_of_the_system():
    ports = [
        int(
            slurm.place(STEP | {"SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)})[
                "MASTER_PORT"
            ]
        )
        for job, step in ((9_999, 0), (9_999, 1), (123_456_789, 0))
    ]
    assert len(set(ports)) == 3
    assert all(15_000 <= port < 32_768 for port in ports)


def test_a_step_whose_variables_came_in_part_is_told():
    """As into a container that hands on some of them."""
    lacking = {k: v for k, v in STEP.items() if k not in ("SLURM_NODEID", "SLURM_LOCALID")}
    with pytest.raises(UserError, match="without SLURM_NODEID, SLURM_LOCALID"):
        slurm.place(lacking)


def test_a_given_place_wins():
    given = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "4000"}
    assert slurm.place(STEP | given).items() >= given.items()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        BATCH,  # an sbatch script, which has the rank of its own only task, and tasks of the job
        BATCH | {"SLURM_PROCID": "0", "SLURM_JOB_NAME": "interactive"},  # salloc
        STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},  # srun --pty bash
        STEP | {"RANK": "0", "WORLD_SIZE": "1"},  # torchrun with one process, in a task of srun
    ],
)
def test_one_process_in_a_job_of_many_tasks_is_alone(monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert not is_launched()
    assert is_first_launched()
    assert processes_of_machine() == 1


def test_srun_s_tasks_are_launched_and_torchrun_s_within_them_are_torchrun_s(monkeypatch):
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    assert is_launched()
    assert not is_first_launched()
    assert processes_of_machine() == 3
    for name, value in {"RANK": "0", "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    assert is_first_launched()
    assert processes_of_machine() == 8


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("login", "login"),
        ("a1,b2", "a1"),
        ("gpu[001-004,007],big1", "gpu001"),
        ("gpu[9,11]", "gpu9"),
        ("rack[1-2]n[03-04].site", "rack1n03.site"),
        ("x-y[2-3],x-z[4-5]", "x-y2"),
    ],
)
def test_the_first_host_of_a_list(nodes, first):
    assert slurm.first_host(nodes) == first


@pytest.mark.parametrize(
    ("counts", "tasks"), [("4", [4]), ("2(x3)", [2, 2, 2]), ("2(x2),3,1(x2)", [2, 2, 3, 1, 1])]
)
def test_tasks_of_each_node(counts, tasks):
    assert slurm.tasks_of(counts) == tasks


def fake_scontrol(folder, monkeypatch, code="echo $@ >> $0.called"):
    path = folder / "scontrol"
    path.write_text(f"#!/bin/sh\n{code}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder / "scontrol.called"


def test_a_job_and_one_of_an_array_are_queued_again_by_their_names(tmp_path, monkeypatch):
    called = fake_scontrol(tmp_path, monkeypatch)
    monkeypatch.setenv("SLURM_JOB_ID", "4712")
    assert slurm.requeue() == "job 4712 is queued again"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    slurm.requeue()
    assert called.read_text().splitlines() == ["requeue 4712", "requeue 4711_3"]


def test_what_keeps_a_job_from_the_queue_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "No such file" in slurm.requeue()
    fake_scontrol(tmp_path, monkeypatch, "echo 'Requested operation is disabled' >&2; exit 1")
    said = slurm.requeue()
    assert "not queued again (Requested operation is disabled): submit it once more" in said


LOADING = """
import os, signal, sys
class Told(type(sys)):
    def __getattr__(self, name):
        os.kill(os.getpid(), signal.SIGUSR1)
sys.modules["similitude.cli"] = Told("similitude.cli")
from similitude.__main__ import main
main()
"""


@pytest.mark.parametrize("job", [True, False])
def test_the_time_limit_before_a_training_has_begun_queues_the_job_again(
    tmp_path, monkeypatch, job
):
    """Outside of a job the signal is nobody's, and does what it always does."""
    called = fake_scontrol(tmp_path, monkeypatch)
    if job:
        monkeypatch.setenv("SLURM_JOB_ID", "4711")
    done = subprocess.run([sys.executable, "-c", LOADING], capture_output=True, check=False)
    assert done.returncode == (138 if job else -signal.SIGUSR1)
    assert called.exists() == job


def test_only_the_first_task_queues_the_job_again(tmp_path, monkeypatch):
    called = fake_scontrol(tmp_path, monkeypatch)
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run([sys.executable, "-c", LOADING], capture_output=True, check=False)
    assert done.returncode == 138
    assert not called.exists()
