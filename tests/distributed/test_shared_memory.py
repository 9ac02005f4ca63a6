"""Messages through shared memory between real processes."""

import os
import time

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from builders import join_as
from similitude import distributed
from similitude.distributed import average_gradients, gather, shared_memory, sum_over_processes
from similitude.distributed.launch import _free_port

WORLD = 3
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("processes"),
    pytest.mark.skipif(not distributed._can_share(), reason="no memory is shared here"),
]


def run_in(processes, function, folder):
    folder.joinpath("memory").mkdir()
    mp.spawn(begin, args=(function, _free_port(), processes, folder), nprocs=processes)
    assert not list(folder.joinpath("memory").iterdir())


def begin(number, function, port, processes, folder):
    shared_memory._FOLDER = str(folder / "memory")
    function(number, lambda: join_as(number, processes, port), folder)
    os._exit(0)  # some have lost the others


def messages(number):
    """One of every kind: dtypes, no dimension, no element, no order, longer than a slot."""
    generator = torch.Generator().manual_seed(number)
    yield torch.tensor(number + 0.25)
    yield torch.randn(0, 3, generator=generator)
    yield torch.randint(-9, 9, (5, 2), generator=generator)
    yield torch.randn(7, 11, generator=generator).T
    yield torch.randn(3, 4, 8, 8, generator=generator).to(memory_format=torch.channels_last)
    yield torch.randn(3, 300_001, generator=generator, dtype=torch.float64)
    yield torch.randn(1_500_000, generator=generator).to(torch.bfloat16)


def gradients(number):
    generator = torch.Generator().manual_seed(number)
    return [torch.randn(shape, generator=generator) for shape in [(600, 500), (7,), (0, 2), (3, 3)]]


def exchange(number, join, folder):
    join()
    assert distributed._shared is not None
    answers = []
    for x in messages(number):
        answers += [gather(x[None]), sum_over_processes(x)]
    weights = [torch.nn.Parameter(torch.zeros_like(grad)) for grad in gradients(number)]
    for weight, grad in zip(weights, gradients(number), strict=True):
        weight.grad = grad
    average_gradients(weights)
    torch.save([*answers, *(weight.grad for weight in weights)], folder / str(number))


def test_every_process_gets_the_parts_and_sums_of_all(tmp_path):
    run_in(WORLD, exchange, tmp_path)
    expected = []
    for parts in zip(*map(messages, range(WORLD)), strict=True):
        expected += [torch.stack(parts), parts[0] + parts[1] + parts[2]]
    for grads in zip(*map(gradients, range(WORLD)), strict=True):
        expected.append((grads[0] + grads[1] + grads[2]) / WORLD)
    for number in range(WORLD):
        answers = torch.load(tmp_path / str(number), weights_only=True)
        for answer, right in zip(answers, expected, strict=True):
            assert answer.dtype == right.dtype
            assert torch.equal(answer, right)


def out_of_step(number, join, folder):
    """Every round fills its slot whole, and the processes hurry and linger by turns."""
    join()
    generator = torch.Generator().manual_seed(number)
    for step in range(400):
        if torch.rand((), generator=generator) < 0.3:
            time.sleep(torch.rand((), generator=generator).item() * 3e-3)
        everybody = gather(torch.full((1, 2**18), step * WORLD + number, dtype=torch.int32))
        for rank, row in enumerate(everybody):
            if rank == number and torch.rand((), generator=generator) < 0.3:
                time.sleep(1e-3)
            assert row.eq(step * WORLD + rank).all()


def test_nobody_overwrites_what_another_has_not_read(tmp_path):
    run_in(WORLD, out_of_step, tmp_path)


def be_slow(number, join, folder):
    join()
    if number == 1:
        time.sleep(2.5)
    assert gather(torch.tensor([number])).tolist() == [0, 1]


def test_who_is_slow_is_waited_for(tmp_path):
    run_in(2, be_slow, tmp_path)


def leave_early(number, join, folder):
    join()
    if number == 1:
        os._exit(0)  # without a word, as when it is killed
    with pytest.raises(RuntimeError, match="process 2 of 2 has ended"):
        gather(torch.zeros(3))
    (folder / "told").touch()


def test_who_has_ended_is_not_waited_for(tmp_path):
    run_in(2, leave_early, tmp_path)
    assert (tmp_path / "told").exists()


def disagree(number, join, folder):
    join()
    with pytest.raises(
        RuntimeError, match=r"does not send what .* gather of torch.float32 \(\d,\)"
    ):
        gather(torch.zeros(2 + number))
    (folder / str(number)).touch()


def test_messages_that_do_not_match_are_refused(tmp_path):
    run_in(2, disagree, tmp_path)
    assert (tmp_path / "0").exists()
    assert (tmp_path / "1").exists()


def find_no_room(number, join, folder):
    def fail(*_):
        raise OSError(28, "No space left on device")

    if number == 0:
        os.posix_fallocate = fail
    join()
    assert distributed._shared is None
    assert gather(torch.tensor([number])).tolist() == [0, 1]
    dist.barrier()


def find_no_file(number, join, folder):
    if number == 1:
        shared_memory._opened = lambda *_: None
    join()
    assert distributed._shared is None
    assert gather(torch.tensor([number])).tolist() == [0, 1]
    dist.barrier()


@pytest.mark.parametrize("happen", [find_no_room, find_no_file])
def test_where_memory_cannot_be_shared_all_talk_through_gloo(tmp_path, happen):
    run_in(2, happen, tmp_path)
