"""Arrays become a graph with classes and parts; what does not fit is told."""

import numpy as np
import pytest
import torch

from similitude.errors import UserError
from similitude.graphs.labeled import LARGEST_DEGREE, from_arrays, from_many

RING = np.array([[0, 1, 2, 3], [1, 2, 3, 0]])


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": np.eye(2)},
        {"x": np.eye(2), "edge_index": np.array([[0], [2]])},
        {"x": np.eye(2), "edge_index": np.array([[0], [-1]])},
        {"x": np.zeros(3), "edge_index": np.array([[0], [1]])},
    ],
)
def test_what_is_no_graph_is_named(arrays):
    with pytest.raises(UserError, match="somewhere is no graph with x and edge_index"):
        from_arrays(arrays, "somewhere")


def test_numbers_that_are_not_finite_are_refused():
    x = np.eye(4)
    x[1, 2] = np.nan
    with pytest.raises(UserError, match="no finite numbers"):
        from_arrays({"x": x, "edge_index": RING}, "somewhere")


def test_classes_are_those_that_occur():
    found = from_arrays({"x": np.eye(4), "edge_index": RING, "y": [7, -1, 300_000_000, 7]}, "it")
    assert found.labels.tolist() == [0, -1, 1, 0]
    assert found.class_names == ["7", "300000000"]


@pytest.mark.parametrize("y", [np.zeros((4, 3)), np.array([0.5, 1, 2, 3]), np.zeros(3)])
def test_a_y_that_is_no_class_is_told_of_and_left_out(y):
    found = from_arrays({"x": np.eye(4), "edge_index": RING, "y": y}, "it")
    assert found.labels is None
    assert "is not read" in found.notes[0]


def test_masks_are_parts_and_the_first_split_of_several():
    masks = {"train_mask": np.eye(4), "val_mask": [0, 1, 1, 0]}
    found = from_arrays({"x": np.eye(4), "edge_index": RING, **masks}, "it")
    assert {part: at.tolist() for part, at in found.parts.items()} == {"train": [0], "test": [1, 2]}
    assert [note for note in found.notes if "4 splits" in note]
    assert [note for note in found.notes if "validation part is used to test" in note]
    with pytest.raises(UserError, match="test_mask is of 3 nodes, and there are 4"):
        from_arrays({"x": np.eye(4), "edge_index": RING, "test_mask": [0, 1, 1]}, "it")


def test_what_is_not_read_is_told():
    found = from_arrays({"x": np.eye(4), "edge_index": RING, "edge_attr": np.zeros(4)}, "it")
    assert found.notes == ("it: edge_attr is not read",)


def test_degrees_stand_for_features_that_are_not_there():
    star = np.stack([np.zeros(100, int), np.arange(1, 101)])
    found = from_arrays({"edge_index": star, "num_nodes": 102}, "it")
    assert found.graph.x.shape == (102, LARGEST_DEGREE + 1)
    assert found.graph.x.argmax(dim=1).tolist() == [LARGEST_DEGREE, *[1] * 100, 0]
    assert "it has no features of nodes" in found.notes[0]


def test_many_graphs_are_one_that_no_edge_connects():
    one = {"x": torch.eye(3), "edge_index": torch.tensor([[0, 1], [1, 2]]), "y": torch.tensor([4])}
    two = {"x": torch.ones(2, 3), "edge_index": torch.tensor([[1], [0]]), "y": torch.tensor(2)}
    found = from_many([one, two], "they")
    assert found.sizes.tolist() == [3, 2]
    assert found.graph.edges.tolist() == [[0, 1, 1, 2, 3, 4], [1, 0, 2, 1, 4, 3]]
    assert found.labels.tolist() == [1, 0]
    assert len(found) == 2


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"x": torch.ones(3, 4)}, "graph 1 of they has 4 features of a node, and graph 0 has 3"),
        ({"edge_index": torch.tensor([[5], [0]])}, "graph 1 of they is no graph"),
        ({"x": torch.ones(0, 3), "edge_index": torch.ones(2, 0)}, "graph 1 of they has no nodes"),
    ],
)
def test_one_of_many_that_does_not_fit_is_named(second, words):
    one = {"x": torch.eye(3), "edge_index": torch.tensor([[0, 1], [1, 2]])}
    with pytest.raises(UserError, match=words):
        from_many([one, one | second], "they")


def test_classes_of_nodes_are_not_taken_for_classes_of_graphs():
    one = {"x": torch.eye(3), "edge_index": torch.tensor([[0], [1]]), "y": torch.tensor([0, 1, 1])}
    found = from_many([one, one], "they")
    assert found.labels is None
    assert found.notes == ("they: y has shape [6] for 2 graphs, and is not read",)
