"""Embedding goes through the disk: bounded, resumable, shared, and the same numbers."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

import similitude as sim
from builders import Ears, write_photos
from similitude.embeddings import embedder, extraction, read_embeddings
from similitude.errors import UserError
from similitude.evaluation import extract_features
from similitude.files.writing import held
from similitude.images.samples import Images

pytestmark = pytest.mark.slow


@pytest.fixture
def eights(monkeypatch):
    """Eight samples in a block."""
    monkeypatch.setattr(embedder, "BLOCK", 8)


def test_published_weights_embed_photos_without_any_training(start, photos, tmp_path):
    ears = Ears()
    assert sim.embed(start, photos, tmp_path / "e.npz", listener=ears) == (24, 32)
    found = read_embeddings(tmp_path / "e.npz")
    source = sim.data.open_source(photos)
    facts, config = Images().for_start(start, source)
    images = sim.data.load_images(source, config.canvas_size)
    expected = extract_features(start.build(), images, facts)
    assert found.names == expected.names
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-5, atol=1e-6)
    assert "  They are random." in ears.sentences
    assert {p.name for p in tmp_path.iterdir()} == {"photos", "e.npz"}


def test_no_more_than_a_block_is_loaded(start, photos, tmp_path, monkeypatch, eights):
    sizes, load_some = [], Images.load_some

    def spy(self, source, positions, config):
        sizes.append(len(positions))
        return load_some(self, source, positions, config)

    monkeypatch.setattr(Images, "load_some", spy)
    monkeypatch.setattr(Images, "load", lambda *given: pytest.fail("all are loaded"))
    sim.embed(start, photos, tmp_path / "e.npz")
    assert sizes == [8, 8, 8]


@pytest.fixture
def stopped(start, photos, tmp_path, monkeypatch, eights) -> Path:
    """Where embeddings were to be written, when one block was done."""
    embed_some, calls = extraction.embed_some, []

    def interrupted(*given):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(given)
        return embed_some(*given)

    with monkeypatch.context() as patch:
        patch.setattr(extraction, "embed_some", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sim.embed(start, photos, tmp_path / "e.npz")
    return tmp_path / "e.npz"


def test_what_was_stopped_goes_on_to_the_same_bits(stopped, start, photos, tmp_path, monkeypatch):
    assert not stopped.exists()
    embed_some, calls, ears = extraction.embed_some, [], Ears()
    monkeypatch.setattr(
        extraction, "embed_some", lambda *given: calls.append(given) or embed_some(*given)
    )
    sim.embed(start, photos, stopped, listener=ears)
    assert len(calls) == 2
    assert any("goes on: 1 of 3 parts" in sentence for sentence in ears.sentences)
    sim.embed(start, photos, tmp_path / "whole.npz")
    assert stopped.read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert not stopped.with_name("e.npz.parts").exists()


def test_parts_of_other_photos_are_neither_used_nor_lost(stopped, start, photos):
    (photos / "class0" / "photo000.png").unlink()
    with pytest.raises(UserError, match=r"e\.npz\.parts holds parts of other embeddings"):
        sim.embed(start, photos, stopped)
    assert (stopped.with_name("e.npz.parts") / "000000.npz").exists()


def test_a_command_that_was_killed_when_all_was_written_is_given_again(
    start, photos, tmp_path, monkeypatch
):
    """In the middle of removing the parts, of which the key may go first."""
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda folder, **options: (folder / "key.txt").unlink())
        sim.embed(start, photos, tmp_path / "e.npz")
    assert sim.embed(start, photos, tmp_path / "e.npz") == (24, 32)
    assert {p.name for p in tmp_path.iterdir()} == {"photos", "e.npz"}


def test_of_two_commands_that_write_one_file_the_second_is_refused(stopped, start, photos):
    parts = stopped.with_name(f"{stopped.name}.parts")
    with held(parts, lambda: None), pytest.raises(UserError, match="another process writes"):
        sim.embed(start, photos, stopped)
    assert sim.embed(start, photos, stopped) == (24, 32)


def test_unreadable_files_are_left_out_and_told(start, photos, tmp_path, eights):
    (photos / "class0" / "photo010.png").write_bytes(b"no image")
    ears = Ears()
    assert sim.embed(start, photos, tmp_path / "e.npz", listener=ears)[0] == 23
    names = read_embeddings(tmp_path / "e.npz").names
    assert "class0/photo010.png" not in names
    assert len(set(names)) == 23
    told = f"1 of 24 files in {photos} cannot be read and are left out: class0/photo010.png"
    assert any(sentence.startswith(told) for sentence in ears.sentences)


def test_a_training_and_a_test_part_are_told_apart(start, photos, tmp_path):
    (photos / "class0").rename(photos / "train")
    (photos / "class1").rename(photos / "test")
    sim.embed(start, photos, tmp_path / "e.npz")
    names = read_embeddings(tmp_path / "e.npz").names
    assert names[0] == "train/photo000.png"
    assert names[-1] == "test/photo023.png"


def test_parquet_has_a_map_and_neighbors(start, photos, tmp_path):
    sim.embed(start, photos, tmp_path / "e.parquet", neighbors=4)
    table = pq.read_table(tmp_path / "e.parquet")
    x = np.stack(table["embedding"].to_pylist())
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    cosine = x @ x.T
    np.fill_diagonal(cosine, -np.inf)
    for row, found in enumerate(table["neighbors"].to_pylist()):
        best = -np.sort(-cosine[row])[:4]
        np.testing.assert_allclose(1 - np.array(found["distances"]), best, atol=1e-5)
        np.testing.assert_allclose(cosine[row, found["ids"]], best, atol=1e-5)
    plane = np.stack([table["x"].to_numpy(), table["y"].to_numpy()])
    assert plane.std(axis=1).min() > 0
    sim.embed(start, photos, tmp_path / "bare.parquet", neighbors=0, projection="none")
    assert pq.read_schema(tmp_path / "bare.parquet").names == ["file", "embedding"]


def test_neighbors_have_their_room_on_the_disk_before_it_is_written_to(
    start, photos, tmp_path, monkeypatch
):
    """A mapped file without room kills the process."""

    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"the disk is full: .*unit"):
        sim.embed(start, photos, tmp_path / "e.parquet")
    monkeypatch.undo()
    assert sim.embed(start, photos, tmp_path / "e.parquet") == (24, 32)


def test_what_npz_has_no_place_for_is_refused(start, photos, tmp_path):
    with pytest.raises(UserError, match=r"let its name end in \.parquet"):
        sim.embed(start, photos, tmp_path / "e.npz", neighbors=3)
    with pytest.raises(UserError, match="unknown projection"):
        sim.embed(start, photos, tmp_path / "e.parquet", projection="tsne")


def test_neither_a_run_nor_weights(photos, tmp_path):
    with pytest.raises(UserError, match=r"no such run: .*nowhere"):
        sim.embed(tmp_path / "nowhere", photos, tmp_path / "e.npz")


def test_two_processes_share_the_samples(start, photos, tmp_path, forked_processes):
    sim.embed(start, photos, tmp_path / "one.npz")
    assert sim.embed(start, photos, tmp_path / "two.npz", devices=2) == (24, 32)
    one, two = (read_embeddings(tmp_path / name) for name in ("one.npz", "two.npz"))
    assert one.names == two.names
    np.testing.assert_allclose(one.x, two.x, rtol=1e-5, atol=1e-6)
    assert not (tmp_path / "two.npz.parts").exists()


def _sounds(folder: Path) -> Path:
    for i in range(16):
        time = np.arange(4_000) / 8_000
        (folder / "sounds").mkdir(exist_ok=True)
        wave = 0.4 * np.sin(2 * np.pi * (300 + 40 * i) * time)
        soundfile.write(folder / "sounds" / f"{i:02d}.wav", wave, 8_000)
    return folder / "sounds"


def _graph(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    edges = rng.integers(0, 24, (2, 120))
    np.savez(folder / "graph.npz", x=rng.random((24, 12), np.float32), edge_index=edges)
    return folder / "graph.npz"


def _table(folder: Path) -> Path:
    write_photos(folder / "photos", 20, classes=0)
    rows = [f"photos/photo{i:03d}.png,number {i} of them" for i in range(20)]
    (folder / "pairs.csv").write_text("\n".join(["photo,caption", *rows]))
    return folder / "pairs.csv"


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (_table, ["backbone.towers.photo.network.base_width=4"]),
        (_sounds, ["data.sample_rate=8000", "data.high=4000", "backbone.channels=4"]),
        (_graph, ["backbone.width=16"]),
    ],
)
def test_every_kind_of_data_is_embedded_searched_and_shown(
    make, settings, tmp_path, monkeypatch, eights
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = make(tmp_path)
    overrides = [*settings, "precision=float32"]
    run = sim.pretrain(data, out=tmp_path / "run", epochs=1, overrides=overrides, report=False)
    sim.embed(run, data, tmp_path / "e.npz")
    found, expected = read_embeddings(tmp_path / "e.npz"), run.embed(data)
    assert found.names == expected.names
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-4, atol=1e-5)
    if make is _sounds:
        files = [data / name for name in found.names]
        encoded = sim.embeddings.SimilitudeEncoder(run).fit_transform(files)
        np.testing.assert_allclose(encoded, expected.x, rtol=1e-4, atol=1e-5)
    else:
        with pytest.raises(UserError, match="takes one file for each sample"):
            sim.embeddings.SimilitudeEncoder(run).fit(found.names)
    for given in ((run, data), (tmp_path / "e.npz",)):
        pictures = None if len(given) == 2 else data
        sim.embeddings.outliers(*given, count=3, output=tmp_path / "o.csv", pictures=pictures)
        assert 'class="thumb' in (tmp_path / "o.html").read_text()
        (tmp_path / "o.html").unlink()
