"""Small graphs of different shapes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from similitude.graphs.graph import Graph
from similitude.graphs.labeled import with_features
from similitude.graphs.many import ManyGraphs

CLASSES, EACH = 4, 30


@pytest.fixture
def graph() -> Graph:
    """200 nodes with 300 features; some have many neighbors, and some none."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(200, 300, generator=generator)
    ends = torch.rand(2, 1500, generator=generator)
    edges = (190 * torch.stack([ends[0], ends[1] ** 3])).long()
    return with_features(x, edges, 200, "")[0]


@pytest.fixture
def many() -> ManyGraphs:
    """Graphs of 3 to 9 nodes."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([3, 9, 4, 5, 7, 3])
    start, edges = 0, []
    for n in sizes.tolist():
        edges.append(start + torch.randint(0, n, (2, 3 * n), generator=generator))
        start += n
    x = torch.rand(start, 40, generator=generator)
    return ManyGraphs(with_features(x, torch.cat(edges, dim=1), start, "")[0], sizes)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Classes that features hardly tell and edges do."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(CLASSES), EACH)
    x = rng.random((len(y), 24)) + 0.2 * np.eye(CLASSES).repeat(6, axis=1)[y]
    a, b = rng.integers(0, len(y), (2, 3000))
    kept = (y[a] == y[b]) | (rng.random(3000) < 0.05)
    path = tmp_path / "g.npz"
    np.savez(path, x=x.astype(np.float32), edge_index=np.stack([a[kept], b[kept]]), y=y)
    return path


@pytest.fixture
def molecules(tmp_path: Path) -> Path:
    """TUDataset's files: 60 graphs, rings of class 1 and stars of class -1."""
    folder = tmp_path / "ROUND"
    folder.mkdir()
    pairs, indicator, kinds = [], [], []
    for i in range(60):
        size, start = 5 + i % 4, len(indicator) + 1
        hub = [0] * size if i % 2 else [(k + 1) % size for k in range(size)]
        pairs += [(start + k, start + other) for k, other in enumerate(hub) if k != other]
        indicator += [i + 1] * size
        kinds += [k % 3 for k in range(size)]
    (folder / "ROUND_A.txt").write_text("".join(f"{a}, {b}\n{b}, {a}\n" for a, b in pairs))
    (folder / "ROUND_graph_indicator.txt").write_text("".join(f"{i}\n" for i in indicator))
    (folder / "ROUND_graph_labels.txt").write_text(
        "".join(f"{1 - 2 * (i % 2)}\n" for i in range(60))
    )
    (folder / "ROUND_node_labels.txt").write_text("".join(f"{k}\n" for k in kinds))
    return folder
