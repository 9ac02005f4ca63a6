"""What is said of processes that did not come to their end."""

from types import SimpleNamespace

import pytest

from similitude.distributed.launch import _who_ended


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        ((1, -9), "process 2 of 2 was killed by signal 9"),  # without which the first crashed
        ((-6, -9), "process 2 of 2 was killed by signal 9"),
        ((0, -11), "process 2 of 2 was killed by signal 11"),
        ((None, 1), "process 2 of 2 ended"),
    ],
)
def test_who_was_killed_is_named_before_who_failed_of_it(codes, said):
    children = [SimpleNamespace(exitcode=code) for code in codes]
    assert _who_ended(children).startswith(said)
