"""What is written is read again, by us and by others; what is no such file is one sentence."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from similitude.embeddings import table
from similitude.embeddings.table import Layout, check_output, read_embeddings, write_embeddings
from similitude.errors import UserError

NAMES = ["a/1.png", "b/ä 2.png", 'c,"3".png']
X = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


@pytest.mark.parametrize("suffix", table.SUFFIXES)
def test_every_bit_comes_back(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(table, "_ROWS", 2)  # the last part is shorter
    path = tmp_path / f"e{suffix}"
    write_embeddings(path, NAMES, X)
    found = read_embeddings(path)
    assert found.names == NAMES
    np.testing.assert_array_equal(found.x.numpy(), X)
    assert list(tmp_path.iterdir()) == [path]


def test_numpy_reads_it_without_pickles(tmp_path):
    write_embeddings(tmp_path / "e.npz", NAMES, X)
    with np.load(tmp_path / "e.npz", allow_pickle=False) as arrays:
        assert arrays["names"].tolist() == NAMES
        assert arrays["embeddings"].dtype == np.float32
        np.testing.assert_array_equal(arrays["embeddings"], X)


def test_a_page_that_shows_embeddings_finds_map_and_neighbors(tmp_path):
    neighbors = np.array([[1, 2], [0, 2], [1, 0]])
    distances = np.array([[0.1, 0.2], [0.1, 0.3], [0.2, 0.3]], np.float32)
    layout = Layout(np.arange(6.0).reshape(3, 2), neighbors, distances)
    write_embeddings(tmp_path / "e.parquet", NAMES, X, layout)
    found = pq.read_table(tmp_path / "e.parquet")
    assert found.column_names == ["file", "embedding", "x", "y", "neighbors"]
    assert found["y"].to_pylist() == [1, 3, 5]
    first = found["neighbors"].to_pylist()[0]
    assert first == {"ids": [1, 2], "distances": pytest.approx([0.1, 0.2])}
    assert read_embeddings(tmp_path / "e.parquet").names == NAMES


def test_lists_of_others_are_read(tmp_path):
    lists = pa.array(X.tolist(), pa.list_(pa.float64()))
    pq.write_table(pa.table({"file": NAMES, "embedding": lists}), tmp_path / "e.parquet")
    np.testing.assert_array_equal(read_embeddings(tmp_path / "e.parquet").x.numpy(), X)


def test_what_is_no_embedding_is_told(tmp_path):
    np.savez(tmp_path / "other.npz", x=X)
    with pytest.raises(UserError, match="it needs the arrays names"):
        read_embeddings(tmp_path / "other.npz")
    pq.write_table(pa.table({"id": NAMES}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match="it needs the columns file and embedding, and has id"):
        read_embeddings(tmp_path / "other.parquet")
    uneven = pa.array([[1.0, 2.0], [1.0], [2.0]])
    pq.write_table(pa.table({"file": NAMES, "embedding": uneven}), tmp_path / "uneven.parquet")
    (tmp_path / "cut.npz").write_bytes(b"PK\3\4 no archive")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 cut")
    for name in ("uneven.parquet", "cut.npz", "cut.parquet"):
        with pytest.raises(UserError, match=f"cannot read .*{name}"):
            read_embeddings(tmp_path / name)
    with pytest.raises(UserError, match=r"ends in \.npz or \.parquet"):
        read_embeddings(tmp_path / "e.txt")


def test_a_row_that_is_not_finite_is_named(tmp_path):
    bad = X.copy()
    bad[1, 2] = np.nan
    write_embeddings(tmp_path / "e.npz", NAMES, bad)
    with pytest.raises(UserError, match=r"the embedding of b/ä 2\.png is not finite"):
        read_embeddings(tmp_path / "e.npz")


def test_a_format_is_refused_before_any_work(tmp_path):
    with pytest.raises(UserError, match=r"must end in \.npz or \.parquet"):
        check_output(tmp_path / "e.txt")
