"""One training in two processes, started in both ways, is the training of one process."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import similitude as sim
from builders import write_photos
from similitude.cli import app, main
from similitude.distributed import join_processes
from similitude.distributed.launch import run_on_devices, wants_processes
from similitude.errors import UserError
from similitude.runs.checkpoint import load_checkpoint

SETTINGS = [
    *("--method", "byol", "--epochs", "2", "--batch-size", "16", "--backbone", "resnet18"),
    *("--set", "backbone.base_width=4", "--set", "method.hidden_dim=16"),
    *("--set", "precision=float32", "--set", "memory_format=contiguous"),
    *("--set", "optimizer.base_lr=0.4"),
]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
DEVICES = ["--devices", "2"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("e2e_processes"),
    pytest.mark.usefixtures("forked_processes"),  # those of `train_long` are as a user's
]


def similitude(folder: Path, *words: str) -> str:
    """What a command prints, typed in a folder; this process is the one that starts others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def train_long(folder: Path, out: str) -> subprocess.Popen[str]:
    """Begin a training in two processes that goes on until it is ended."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "similitude", "pretrain", "photos", *SETTINGS, *DEVICES]
    return subprocess.Popen(
        [*command, "--set", "epochs=500", "--out", out],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=hear_ctrl_c,
    )


def hear_ctrl_c() -> None:
    """A shell lets the commands that it runs in the background ignore it, and so their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="module")
def place(tmp_path_factory, forked_processes) -> Path:
    folder = tmp_path_factory.mktemp("together")
    write_photos(folder / "photos", 64)
    pretrain = ["pretrain", "photos", *SETTINGS, "--out"]
    similitude(folder, *pretrain, "one")
    similitude(folder, *pretrain, "two", *DEVICES)
    torchrun = [*TORCHRUN, "-m", "similitude", *pretrain, "torchrun"]
    done = subprocess.run(torchrun, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (folder / "torchrun.txt").write_text(done.stdout)
    return folder


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "checkpoints" / "last.ckpt").method


def backbone(run: Path) -> torch.Tensor:
    """All its numbers in a row; counters left out."""
    state = load_checkpoint(run / "checkpoints" / "last.ckpt").backbone
    return torch.cat([value.double().flatten() for value in state.values() if value.ndim])


def test_two_processes_find_the_weights_of_one(place):
    """In float32: rounding only, a thousandth of the way that training went."""
    one, two = backbone(place / "one"), backbone(place / "two")
    start = sim.load(place / "one").untrained().state_dict()
    start = torch.cat([value.double().flatten() for value in start.values() if value.ndim])
    assert (one - start).norm() > 0.1
    assert (one - two).norm() < 1e-3 * (one - start).norm()


def test_torchrun_gives_the_same_bits_as_devices(place):
    two, torchrun = weights(place / "two"), weights(place / "torchrun")
    assert all(torch.equal(two[name], torchrun[name]) for name in two)


def test_shard_gives_the_same_bits_and_the_same_folder(place):
    similitude(place, "pretrain", "photos", *SETTINGS, "--out", "sharded", *DEVICES, "--shard")
    two, sharded = weights(place / "two"), weights(place / "sharded")
    assert all(torch.equal(two[name], sharded[name]) for name in two)
    files = [{p.name for p in (place / name).iterdir()} for name in ("two", "sharded")]
    assert files[0] == files[1]


def test_a_run_of_two_processes_is_complete(place):
    assert (place / "torchrun.txt").read_text().count("report: ") == 1
    one = {p.relative_to(place / "one").parts[0] for p in (place / "one").rglob("*")}
    for name in ("two", "torchrun"):
        assert {p.relative_to(place / name).parts[0] for p in (place / name).rglob("*")} == one
        assert (place / name / "log.txt").read_text().count("report: ") == 1
        assert '"processes": 2' in (place / name / "environment.json").read_text()


def test_two_processes_evaluate_and_embed_as_one(place):
    evaluate = ["evaluate", "one", "photos", "--protocol", "knn"]
    assert similitude(place, *evaluate, *DEVICES) == similitude(place, *evaluate)
    similitude(place, "embed", "one", "photos", "-o", "1.npz")
    similitude(place, "embed", "one", "photos", "-o", "2.npz", *DEVICES)
    with np.load(place / "1.npz") as one, np.load(place / "2.npz") as two:
        assert (one["names"] == two["names"]).all()
        np.testing.assert_allclose(one["embeddings"], two["embeddings"], rtol=1e-5, atol=1e-6)


def test_a_run_begun_in_two_processes_goes_on_in_one(place):
    """The state is the whole batch's, so nothing in it depends on who made it."""
    run = sim.pretrain(place / "photos", out=place / "two", resume=True)
    assert run is not None


def test_mistakes_are_one_sentence_from_one_process(place, monkeypatch, capfd):
    command = ["similitude", "pretrain", "photos", *SETTINGS, "--out", "odd", *DEVICES]
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", [*command, "--set", "batch_size=15"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "multiple of 2" in said
    assert not (place / "odd").exists()


def test_several_machines_need_an_address(monkeypatch, tmp_path):
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="MASTER_ADDR, MASTER_PORT, NODE_RANK"):
        sim.pretrain(write_photos(tmp_path / "photos"), num_nodes=2, out=tmp_path / "run")


def test_a_launched_process_starts_no_others(monkeypatch):
    assert wants_processes(2, 1)
    assert not wants_processes(1, 1)
    assert not wants_processes(None, 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert not wants_processes(2, 1)
    with pytest.raises(UserError, match="at least 1"):
        wants_processes(0, 1)


@pytest.mark.parametrize("progress", ["", "training"])
def test_ctrl_c_ends_all_processes(place, progress):
    """While they start, and while they train: then the run is saved and can go on."""
    out = f"interrupted-{progress}"
    running = train_long(place, out)
    if progress:
        assert any(progress in line for line in running.stdout)
        time.sleep(1)  # into the steps
    else:
        time.sleep(3)
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=120)
    assert running.returncode == 130
    if progress:
        assert (
            f"everything is saved, and this goes on: similitude pretrain photos --out {out} "
            "--resume --devices 2" in said.replace("\n", " ")
        )
        assert (place / out / "checkpoints" / "last.ckpt").exists()


def workers_of(running: subprocess.Popen[str]) -> list[int]:
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_text() for pid in children}
    return [pid for pid, command in commands.items() if "spawn_main" in command]


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
@pytest.mark.parametrize("told", ["second", "all of them"])
def test_sigterm_to_any_process_saves_and_ends_all(place, told):
    out = f"told-{told}"
    running = train_long(place, out)
    assert running.stdout is not None
    assert any("training" in line for line in running.stdout)
    time.sleep(1)  # into the steps
    first, second = workers_of(running)
    of = {"second": [second], "all of them": [running.pid, first, second]}
    for pid in of[told]:
        os.kill(pid, signal.SIGTERM)
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 143
    assert "everything is saved" in said
    metrics = (place / out / "metrics.csv").read_text().splitlines()
    step = load_checkpoint(place / out / "checkpoints" / "last.ckpt").step
    assert step == int(float(metrics[-1].split(",")[0])) > 0


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_a_killed_process_is_named_and_ends_the_others(place):
    running = train_long(place, "killed")
    assert running.stdout is not None
    assert any("training" in line for line in running.stdout)
    time.sleep(1)  # into the steps
    workers = workers_of(running)
    os.kill(workers[1], signal.SIGKILL)
    _, error = running.communicate(timeout=120)
    assert running.returncode == 2
    assert "process 2 of 2 was killed by signal 9" in error.replace("\n", " ")
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def be_told(listener) -> None:
    """As a process that gets SIGTERM while the other one waits for it."""
    if os.environ["RANK"] == "0":
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)


def test_sigterm_outside_of_a_training_ends_all_at_once(capfd):
    begun = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        run_on_devices(be_told, {}, devices=2)
    assert ended.value.code == 143
    assert time.monotonic() - begun < 15
    assert capfd.readouterr().err.count("give the same command again") == 1


def be_deaf(listener) -> None:
    """As a process that is not there yet."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    time.sleep(60)


def listening_places(*, listener) -> list[str]:
    """Local addresses, in hexadecimal, at which this process waits for others."""
    join_processes()
    torch.distributed.barrier()
    links = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    rows = [
        line.split()
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()[1:]
    ]
    return [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in links]


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="asks Linux who listens")
def test_processes_of_one_machine_listen_to_it_alone():
    places = run_on_devices(listening_places, {}, devices=2)
    assert places
    assert all(place.startswith("0100007F:") for place in places)  # 127.0.0.1


def test_ctrl_c_ends_processes_that_do_not_hear_it_yet():
    begun = time.monotonic()
    threading.Timer(4.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        run_on_devices(be_deaf, {}, devices=2)
    assert time.monotonic() - begun < 30
