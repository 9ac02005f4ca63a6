import torch

from similitude.distributed.threads import cores, lone_threads


def test_lone_threads_compute_with_one_core_and_leave_the_callers_as_they_were():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with lone_threads(2, "test") as pool:
            found = list(pool.map(lambda _: torch.get_num_threads(), range(8)))
        assert set(found) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_there_is_a_core():
    assert cores() >= 1
