"""What is nearly the same in both parts is found, and strangers are not taken for it."""

import torch

from similitude.decision.copies import Pair, equal, near_copies


def two_kinds(n=200, m=300):
    pixels, seen = torch.randn(m, 48), torch.randn(m, 16)
    return (torch.randn(n, 48), pixels), (torch.randn(n, 16), seen)


def test_strangers_are_no_copies():
    assert near_copies(two_kinds()) == []


def test_a_photo_that_is_stored_again_is_found_with_what_it_is_a_copy_of():
    pixels, seen = two_kinds()
    for some, others in (pixels, seen):
        some[7] = 3 * others[42] + 0.01 * torch.randn(others.shape[1])  # brighter, and lossy
    assert near_copies([pixels, seen]) == [Pair(7, 42)]


def test_it_takes_all_kinds_of_features_to_call_two_samples_the_same():
    pixels, seen = two_kinds()
    pixels[0][7] = pixels[1][42]  # two faces before one wall
    assert near_copies([pixels, seen]) == []


def test_equal_rows_are_found_bit_by_bit():
    others = torch.randn(50, 4)
    some = torch.cat([others[[3]], others[[3]] + 1e-6, torch.randn(1, 4)])
    assert equal(some, others).tolist() == [True, False, False]
