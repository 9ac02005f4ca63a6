"""What is a graph, and what is none."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from similitude.errors import UserError
from similitude.graphs import opening
from similitude.modalities import modality_of


def data(nodes=8, **more):
    edges = torch.tensor([[0, 1], [1, 2]])
    return SimpleNamespace(x=torch.rand(nodes, 3), edge_index=edges, y=None, **more)


class DataSet:
    """As those of torch_geometric: no list, with the edges of all its graphs."""

    edge_index = torch.zeros(2, 0)
    x = torch.zeros(0, 3)

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def test_objects_of_torch_geometric_and_their_data_sets():
    assert len(opening.read(data())) == 8
    one = opening.read(DataSet(data()))
    assert (len(one), one.sizes) == (8, None)
    graphs = [data(4, num_nodes=4), data(5, edge_attr=torch.rand(2, 2))]
    for given in (graphs, tuple(graphs), DataSet(*graphs)):
        many = opening.read(given)
        assert many.sizes.tolist() == [4, 5]
        assert many.notes == ("the data set: edge_attr is not read",)


def test_an_object_without_features():
    nothing = SimpleNamespace(x=None, edge_index=torch.tensor([[0], [1]]), num_nodes=3)
    assert opening.read(nothing).graph.x[:, :2].tolist() == [[0, 1], [0, 1], [1, 0]]


def test_files(tmp_path, file, molecules):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "nodes.csv").write_text("id,a\n1,2\n3,4\n")
    (tmp_path / "tables" / "edges.csv").write_text("from,to\n1,3\n")
    pair = (tmp_path / "tables" / "edges.csv", str(tmp_path / "tables" / "nodes.csv"))
    for given, samples in {file: 120, molecules: 60, str(tmp_path / "tables"): 2, pair: 2}.items():
        assert modality_of(given).kind == "graph"
        assert len(opening.read(given)) == samples


def test_other_data_is_no_graph(tmp_path):
    np.savez(tmp_path / "photos.npz", x=np.zeros((4, 8, 8)))

    class Broken:
        def __len__(self):
            return 2

        def __getitem__(self, i):
            raise RuntimeError("no connection")

    others = (tmp_path, tmp_path / "photos.npz", torch.rand(4, 8, 8), [], {}, "digits")
    for given in (*others, Broken(), [torch.rand(3)], iter([data()])):
        assert not opening.claims(given)
    with pytest.raises(UserError, match="is no graph: give a folder of Planetoid's"):
        opening.read(tmp_path)
