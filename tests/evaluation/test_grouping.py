"""What belongs together is on one side of a split, or it is told why it cannot be."""

import numpy as np
import pytest
import torch

from similitude.errors import UserError
from similitude.evaluation.grouping import held_out_groups, shared_groups, units_of

GROUPS = [f"film {i // 5}" for i in range(200)]


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_on_both_sides_and_a_fifth_is_out(seed):
    y = torch.arange(200) % 3
    out = held_out_groups(y, GROUPS, 0.2, seed).numpy()
    units = units_of(GROUPS)
    assert set(units[out]).isdisjoint(units[~out])
    assert out.sum() == 40
    assert set(y.numpy()[out]) == set(y.numpy()[~out]) == {0, 1, 2}


def test_what_has_no_label_goes_with_its_group_and_a_sample_of_none_is_alone():
    y = torch.arange(200) % 3
    y[::5] = -1
    groups = ["" if i < 5 else name for i, name in enumerate(GROUPS)]
    out = held_out_groups(y, groups, 0.2, 0).numpy()
    units = units_of(groups)
    assert len(set(units[:5])) == 5
    assert set(units[out]).isdisjoint(units[~out])


def test_classes_that_are_groups_cannot_be_split():
    y = torch.arange(200) // 34
    with pytest.raises(UserError, match="a class lies in one group alone"):
        held_out_groups(y, [str(c) for c in y.tolist()], 0.2, 0)
    with pytest.raises(UserError, match="all labeled samples are of one group"):
        held_out_groups(y, ["one"] * 200, 0.2, 0)


def test_test_samples_of_groups_that_are_learned_from_are_left_out():
    mask, told = shared_groups(["a", "b", ""], ["b", "c", "", "b"], "train", "test")
    assert mask.tolist() == [False, True, True, False]
    assert told == ["1 group is in both parts (b): their 2 test samples are left out."]
    assert shared_groups(["a"], ["b"], "train", "test")[1] == []
    with pytest.raises(UserError, match="everything in test belongs to a group of train"):
        shared_groups(["a", "b"], ["b", "a"], "train", "test")


def test_units_are_numbers_of_groups():
    assert np.array_equal(units_of(["b", "a", "b"]), [1, 0, 1])
