"""Two real processes against one that holds the whole batch."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from builders import leave, start_processes
from similitude.distributed import gather, rank, world_size
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
    torch.save([loss.detach(), [p.grad for p in layer.parameters()], order], f"{folder}/{number}")
    leave()


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_two_processes_equal_one_with_the_whole_batch(tmp_path):
    start_processes(process, str(tmp_path))

    layer, (x1, x2) = projector_and_views()
    expected = nt_xent(layer(x1), layer(x2), temperature=0.3)
    expected.backward()
    for number in range(WORLD):
        loss, grads, order = torch.load(tmp_path / str(number), weights_only=True)
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-9, atol=0)
        torch.testing.assert_close(
            grads, [p.grad for p in layer.parameters()], rtol=1e-9, atol=1e-15
        )
        assert order.flatten().tolist() == [0, 1, 10, 11]


def test_one_process_gathers_nothing():
    x = torch.randn(3, 2, requires_grad=True)
    assert gather(x) is x
    assert (rank(), world_size()) == (0, 1)
