"""A graph in two tables."""

import pytest

from similitude.errors import UserError
from similitude.graphs.tables import read_tables

NODES = """id,age,income,label,split
anna,31,2.5,cat,train
bert,40,1e3,,val
carl,7,0,dog,TRAIN
dora,8,-1,cat,
"""
EDGES = "from,to\nanna,bert\nbert,anna\ncarl,dora\ndora,dora\n"


@pytest.fixture
def read(tmp_path):
    def read(nodes=NODES, edges=EDGES):
        (tmp_path / "nodes.csv").write_text(nodes)
        (tmp_path / "edges.csv").write_text(edges)
        return read_tables(tmp_path / "edges.csv", tmp_path / "nodes.csv")

    return read


def test_tables(read):
    found = read()
    assert found.names == ["anna", "bert", "carl", "dora"]
    assert found.graph.x.tolist() == [[31, 2.5], [40, 1000], [7, 0], [8, -1]]
    assert found.graph.edges.tolist() == [[0, 1, 2, 3], [1, 0, 3, 2]]
    assert found.labels.tolist() == [0, -1, 1, 0]
    assert found.class_names == ["cat", "dog"]
    assert {part: at.tolist() for part, at in found.parts.items()} == {"train": [0, 2], "test": [1]}


def test_semicolons_other_names_and_columns_that_are_not_read(read):
    found = read(NODES.replace(",", ";"), "weight\tSource\tTarget\n0.5\tanna\tdora\n")
    assert found.graph.edges.tolist() == [[0, 3], [3, 0]]
    assert any("edges.csv: weight is not read" in note for note in found.notes)


def test_nodes_without_features_have_their_degrees(read):
    found = read("id\nanna\nbert\ncarl\ndora\n")
    assert found.graph.x.argmax(dim=1).tolist() == [1, 1, 1, 1]
    assert found.labels is None
    assert "no features" in found.notes[0]


@pytest.mark.parametrize(
    ("nodes", "edges", "words"),
    [
        (NODES.replace("id", "who"), EDGES, r"nodes.csv line 1 has no column id \(there: who"),
        (NODES, "a,b\n", r"edges.csv line 1 has no column from \(there: a, b\)"),
        (NODES.replace("40", "old"), EDGES, "nodes.csv line 3: 'old' in column 'age' is no finite"),
        (NODES.replace("40", ""), EDGES, "nodes.csv line 3: '' in column 'age' is no finite"),
        (NODES.replace("40", "nan"), EDGES, "nodes.csv line 3: 'nan' in column 'age'"),
        (NODES.replace("carl", "anna"), EDGES, "nodes.csv line 4: node 'anna' is there twice"),
        (NODES.replace("TRAIN", "often"), EDGES, "nodes.csv line 4: 'often' in column 'split'"),
        (NODES.replace("7,0,", "7,"), EDGES, "nodes.csv line 4 has 4 cells and the header 5"),
        (NODES, f"{EDGES}anna,emil\n", "edges.csv line 6: node 'emil' is not in .*nodes.csv: add"),
        (NODES, "from,to\nanna\n", "edges.csv line 2 has 1 cells and the header 2"),
        ("id,age\n", EDGES, "nodes.csv holds no node"),
        ("", EDGES, r"nodes.csv line 1 has no column id \(there: nothing\)"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(read, nodes, edges, words):
    with pytest.raises(UserError, match=words):
        read(nodes, edges)


def test_a_table_that_is_missing_is_named(tmp_path):
    (tmp_path / "edges.csv").write_text(EDGES)
    with pytest.raises(UserError, match=r"cannot read .*nodes\.csv"):
        read_tables(tmp_path / "edges.csv", tmp_path / "nodes.csv")
