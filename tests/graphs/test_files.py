"""Graphs in files: Planetoid's without running what is pickled, and .npz."""

import os
import pickle
import tarfile

import numpy as np
import pytest
import torch

from similitude.errors import UserError
from similitude.graphs.files import planetoid_name, read_npz, read_planetoid


def test_npz(tmp_path):
    np.savez(
        tmp_path / "g.npz",
        x=np.eye(4, dtype=np.float32),
        edge_index=np.array([[0, 1, 2, 2], [1, 0, 2, 3]]),
        y=np.array([0, 1, 0, -1]),
        train_mask=np.array([1, 1, 0, 0]),
        test_mask=np.array([0, 0, 1, 0]),
    )
    found = read_npz(tmp_path / "g.npz")
    assert found.graph.edges.tolist() == [[0, 1, 2, 3], [1, 0, 3, 2]]  # both ways, no loops
    assert found.labels.tolist() == [0, 1, 0, -1]
    assert found.parts["train"].tolist() == [0, 1]
    assert found.parts["test"].tolist() == [2]


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/evil-of-a-graph",)


def test_nothing_in_a_pickle_runs(tmp_path):
    for part in ("x", "tx", "allx", "y", "ty", "ally", "graph"):
        (tmp_path / f"ind.a.{part}").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "ind.a.test.index").write_text("1\n")
    with pytest.raises(UserError, match=r"it would make a posix\.system"):
        read_planetoid(tmp_path, "a")
    assert not os.path.exists("/tmp/evil-of-a-graph")


def test_cora(tmp_path, shared_data_dir):
    with tarfile.open(shared_data_dir / "cora-planetoid.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    assert planetoid_name(tmp_path) == "cora"
    found = read_planetoid(tmp_path, "cora")
    assert found.graph.x.shape == (2708, 1433)
    assert found.graph.edges.shape == (2, 2 * 5278)
    assert torch.bincount(found.labels).tolist() == [351, 217, 418, 818, 426, 298, 180]
    assert {part: len(nodes) for part, nodes in found.parts.items()} == {"train": 140, "test": 1000}
