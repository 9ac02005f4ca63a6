import multiprocessing
import threading
from pathlib import Path

import pytest
import torch

from similitude.distributed.threads import one_by_one, side_by_side


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_every_number_is_done_once_by_threads_that_compute_alone():
    done, computing = [], set()

    def work(number):
        done.append(number)
        computing.add(torch.get_num_threads())

    side_by_side(work, range(100))
    assert sorted(done) == list(range(100))
    assert computing == {1}
    assert torch.get_num_threads() == 2


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted on Linux")
def test_products_in_threads_start_no_threads_of_their_own():
    """More threads than cores would make all of OpenMP's sleep between operations."""

    def threads():
        return len(list(Path("/proc/self/task").iterdir()))

    matrices = torch.rand(8, 128, 128)
    torch.bmm(matrices, matrices)
    side_by_side(lambda number: None, range(8))
    before = threads()
    side_by_side(lambda number: torch.bmm(matrices, matrices), range(8))
    assert threads() == before


def test_an_error_reaches_the_caller():
    def work(number):
        if number == 3:
            raise ValueError("the third")

    with pytest.raises(ValueError, match="the third"):
        side_by_side(work, range(5))
    side_by_side(work, range(3))


def test_work_may_be_divided_again():
    done = []

    def work(number, depth=2):
        done.append(number)
        if depth:
            side_by_side(lambda n: work(n, depth - 1), range(2))

    side_by_side(work, range(2))
    assert len(done) == 2 + 4 + 8


def test_one_by_one_stays_in_the_calling_thread():
    here = []
    with one_by_one():
        side_by_side(lambda number: here.append(threading.current_thread()), range(3))
    assert here == [threading.current_thread()] * 3


def _in_a_fork(queue):
    side_by_side(queue.put, range(2))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own():
    """As a worker of a DataLoader that makes views: the threads of the parent are not in it."""
    side_by_side(lambda number: None, range(2))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_a_fork, args=[queue])
    child.start()
    assert sorted(queue.get(timeout=20) for _ in range(2)) == [0, 1]
    child.join(timeout=20)
