"""Classes by what people write, and one numbering of them in all parts."""

import pytest
import torch

from similitude.data.classes import check_classes, numbered_classes, told_single, with_same_classes
from similitude.errors import UserError
from similitude.images.arrays import from_array


@pytest.mark.parametrize(
    ("texts", "labels", "names"),
    [
        (["b", "a", "b"], [1, 0, 1], ["a", "b"]),
        (["10", "9", "1.0", "1"], [2, 1, 0, 0], ["1", "9", "10"]),
        (["-1", "", None, " ", "-1.0", "0"], [-1, -1, -1, -1, -1, 0], ["0"]),
        (["caf\u00e9", "cafe\u0301"], [0, 0], ["caf\u00e9"]),
        (["300000000", "7"], [1, 0], ["7", "300000000"]),
        (["007", "7"], [0, 1], ["007", "7"]),
    ],
)
def test_classes_are_those_that_occur(texts, labels, names):
    found, class_names = numbered_classes(texts)
    assert (found.tolist(), class_names) == (labels, names)


def labeled(labels, names):
    source = from_array(torch.zeros(len(labels), 8, 8, 1, dtype=torch.uint8), "part")
    return source.with_labels(torch.tensor(labels), names)


def test_classes_of_parts_are_numbered_alike_by_name():
    train, test = with_same_classes(
        [labeled([0, 1, -1, 1], ["bee", "cat"]), labeled([0, 1, -1], ["ant", "cat"])]
    )
    assert train.class_names == test.class_names == ["bee", "cat", "ant"]
    assert train.labels.tolist() == [0, 1, -1, 1]
    assert test.labels.tolist() == [2, 1, -1]


def test_a_part_without_labels_leaves_the_others_as_they_are():
    sources = [labeled([0, 1], ["a", "b"]), from_array(torch.zeros(2, 8, 8, 1, dtype=torch.uint8))]
    assert with_same_classes(sources) == sources


def test_classes_without_training_images_are_named():
    cats = with_same_classes([labeled([0, 1], ["cat", "dog"]), labeled([0, 1], ["Cat", "dog"])])
    with pytest.raises(UserError, match=r"1 classes of part .*: Cat \(there: cat, dog\)"):
        check_classes(*cats)
    check_classes(*with_same_classes([labeled([0, 1], ["a", "b"]), labeled([0, 0], ["b", "c"])]))


def test_a_class_of_one_image_may_be_a_slip():
    source = from_array(torch.zeros(4, 3, 8, 8, dtype=torch.uint8))
    labels, names = numbered_classes(["cat", "cat", "caat", None])

    told = told_single(source.with_labels(labels, names))

    assert told == f"{source.name}: a single image has the label caat; look whether it is a slip"
    assert told_single(source) is None
    assert told_single(source.with_labels(torch.tensor([0, 0, 1, 1]), ["a", "b"])) is None
