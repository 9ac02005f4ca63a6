"""TUDataset's text files."""

import pytest

from similitude.errors import UserError
from similitude.graphs.tu import read_tu, tu_name


def change(folder, what, old, new):
    path = folder / f"ROUND_{what}.txt"
    path.write_text(path.read_text().replace(old, new, 1))


def test_graphs_with_labels_of_nodes(molecules):
    assert tu_name(molecules) == "ROUND"
    assert tu_name(molecules.parent) is None
    found = read_tu(molecules, "ROUND")
    assert found.sizes.tolist() == [5 + i % 4 for i in range(60)]
    assert found.class_names == ["-1", "1"]  # -1 is a class here
    assert found.labels.tolist() == [1 - i % 2 for i in range(60)]
    assert found.graph.x[:5].argmax(dim=1).tolist() == [0, 1, 2, 0, 1]
    assert found.graph.edges[:, :10].tolist() == [
        [0, 0, 1, 1, 2, 2, 3, 3, 4, 4],
        [1, 4, 0, 2, 1, 3, 2, 4, 0, 3],
    ]


def test_attributes_stand_beside_labels_and_degrees_for_neither(molecules):
    count = len((molecules / "ROUND_node_labels.txt").read_text().split())
    (molecules / "ROUND_node_attributes.txt").write_text("0.5, -1\n" * count)
    (molecules / "ROUND_edge_labels.txt").write_text("1\n")
    found = read_tu(molecules, "ROUND")
    assert found.graph.x[1].tolist() == [0.5, -1, 0, 1, 0]
    assert "ROUND_edge_labels.txt is not read" in found.notes[0]
    (molecules / "ROUND_node_attributes.txt").unlink()
    (molecules / "ROUND_node_labels.txt").unlink()
    found = read_tu(molecules, "ROUND")
    assert found.graph.x[:11].argmax(dim=1).tolist() == [2] * 5 + [5, *[1] * 5]  # a ring, a star
    assert "no features" in found.notes[0]


def test_nodes_in_any_order_go_to_their_graphs(tmp_path):
    for what, text in {
        "A": "1, 3\n2, 4\n",
        "graph_indicator": "1\n2\n1\n2\n",
        "node_attributes": "1\n2\n3\n4\n",
    }.items():
        (tmp_path / f"Z_{what}.txt").write_text(text)
    found = read_tu(tmp_path, "Z")
    assert found.graph.x[:, 0].tolist() == [1, 3, 2, 4]
    assert found.graph.edges.tolist() == [[0, 1, 2, 3], [1, 0, 3, 2]]
    assert found.labels is None


@pytest.mark.parametrize(
    ("what", "old", "new", "words"),
    [
        ("A", "1, 2", "1, 999", r"ROUND_A.txt line 1: 999 is no node: there are 390"),
        ("A", "1, 2", "1, 7", r"ROUND_A.txt line 1: the edge is between two graphs"),
        ("A", "1, 2", "1", r"ROUND_A.txt line 1 has 1 numbers, and 2 are needed"),
        ("A", "1, 2", "1, b", r"ROUND_A.txt line 1: '1,  b' is no finite number"),
        ("graph_labels", "1\n", "", r"ROUND_graph_labels.txt has 59 classes, and .* 60 graphs"),
        ("node_labels", "0\n", "", r"ROUND_node_labels.txt has 389 lines for 390 nodes"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(molecules, what, old, new, words):
    change(molecules, what, old, new)
    with pytest.raises(UserError, match=words):
        read_tu(molecules, "ROUND")
