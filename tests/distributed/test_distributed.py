"""Two real processes against one that holds the whole batch."""

import os
import socket
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import nn

from builders import join_as, leave, start_processes
from similitude import distributed
from similitude.distributed import FlagsOfAll, gather, join_processes, rank, world_size
from similitude.distributed.launch import _free_port
from similitude.errors import UserError
from similitude.losses import nt_xent

N, WORLD = 4, 2


def projector_and_views():
    generator = torch.Generator().manual_seed(3)
    layer = nn.Linear(5, 3).double()
    for p in layer.parameters():
        p.data.copy_(torch.randn(p.shape, generator=generator))
    return layer, torch.randn(2, WORLD * N, 5, generator=generator, dtype=torch.float64)


def process(number, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=number, world_size=WORLD
    )
    assert (rank(), world_size()) == (number, WORLD)
    layer, views = projector_and_views()
    x1, x2 = views[:, number * N : (number + 1) * N]
    model = nn.parallel.DistributedDataParallel(layer)
    z1, z2 = model(torch.cat([x1, x2])).chunk(2)
    loss = nt_xent(gather(z1), gather(z2), temperature=0.3)
    loss.backward()
    order = gather(torch.tensor([[10 * number], [10 * number + 1]]))
    flags = FlagsOfAll(torch.device("cpu"))
    told = [flags.any([number == 1 and call == 0, False]) for call in range(3)]
    grads = [p.grad for p in layer.parameters()]
    torch.save([loss.detach(), grads, order, told], f"{folder}/{number}")
    leave()


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_two_processes_equal_one_with_the_whole_batch(tmp_path):
    start_processes(process, str(tmp_path))

    layer, (x1, x2) = projector_and_views()
    expected = nt_xent(layer(x1), layer(x2), temperature=0.3)
    expected.backward()
    for number in range(WORLD):
        loss, grads, order, told = torch.load(tmp_path / str(number), weights_only=True)
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-9, atol=0)
        torch.testing.assert_close(
            grads, [p.grad for p in layer.parameters()], rtol=1e-9, atol=1e-15
        )
        assert told == [[False, False], [True, False], [False, False]]  # one call late, in both
        assert order.flatten().tolist() == [0, 1, 10, 11]


def test_alone_a_flag_is_told_at_once():
    flags = FlagsOfAll(torch.device("cpu"))
    assert [flags.any([True, False]), flags.any([False, False])] == [[True, False], [False, False]]


def test_one_process_gathers_nothing():
    x = torch.randn(3, 2, requires_grad=True)
    assert gather(x) is x
    assert (rank(), world_size()) == (0, 1)


def watched_connections() -> list[int]:
    """Milliseconds after which each connection of this process is given up; 0: the kernel's."""
    found = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            connection = socket.socket(fileno=int(entry))
        except OSError:
            continue
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            found.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == (found[-1] > 0)
        connection.detach()
    return found


def meet_and_tell(number, folder, port, on_one_machine):
    join_as(number, 2, port, on_one_machine=on_one_machine)
    torch.save(watched_connections(), f"{folder}/{number}")
    leave()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="of Linux")
@pytest.mark.xdist_group("processes")
@pytest.mark.parametrize("on_one_machine", [True, False])
def test_connections_to_other_machines_are_given_up_after_a_minute_without_an_answer(
    tmp_path, on_one_machine
):
    """A lost machine says nothing, and messages may take a day; processes die with sockets."""
    start_processes(meet_and_tell, str(tmp_path), _free_port(), on_one_machine)
    for number in range(2):
        found = torch.load(tmp_path / str(number), weights_only=True)
        assert len(found) >= 2  # the store, and the other process
        assert set(found) == ({0} if on_one_machine else {60_000})


@pytest.mark.slow
def test_others_that_do_not_come_are_told_of(monkeypatch):
    monkeypatch.setattr(distributed, "TIME_TO_MEET", timedelta(seconds=1))
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    for name, value in (place | {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"process 0 did not meet the other 1 at 127\.0\.0\.1"):
        join_processes()


def test_a_lost_machine_is_told_of_and_other_errors_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer")
    with (
        pytest.raises(UserError, match=r"lost another one \(.*reset by peer\): give the same"),
        distributed.telling_of_lost_machines(),
    ):
        raise lost
    with pytest.raises(RuntimeError, match="shapes"), distributed.telling_of_lost_machines():
        raise RuntimeError("shapes do not fit")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # of one machine: its launcher says who it was
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(RuntimeError, match="gloo"), distributed.telling_of_lost_machines():
        raise lost
