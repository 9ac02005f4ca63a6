"""Images in Parquet files are those that were put there, and a row group is read once."""

import json
import pickle
import sys
import tarfile
import threading
import time
from contextlib import suppress

import fsspec
import numpy as np
import pytest
import torch

from builders import small_recipe, write_photos
from servers import serving
from similitude import pretrain, randomness
from similitude.data import row_group_index, row_groups, stores
from similitude.data.files import UnreadableError
from similitude.data.loader import Loader
from similitude.data.row_groups import Held
from similitude.errors import UserError
from similitude.evaluation import online
from similitude.evaluation.online import OnlineMonitor
from similitude.images import loading
from similitude.images.lazy import LazyCanvases
from similitude.images.loading import load_images, pack_images
from similitude.images.opening import open_parts, open_source
from similitude.images.views import ImageFacts, ImageView, ImageViewConfig, MultiView
from similitude.modalities import modality_of
from similitude.multimodal.table import is_table

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

FILES = "/train-{0..2}.parquet"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(stores, "_PAUSES", (0.01, 0.01))


@pytest.fixture
def photos(tmp_path):
    return sorted(write_photos(tmp_path / "photos", 24, classes=0).iterdir())


def declared(**features):
    return {"huggingface": json.dumps({"info": {"features": features}})}


def write(path, contents, labels=None, *, of_group=4, features=None, column="image"):
    """A file as Hugging Face's library writes it."""
    images = [None if c is None else {"bytes": c, "path": "x.png"} for c in contents]
    columns = {column: pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()}))}
    if labels is not None:
        columns = {"label": pa.array(labels, pa.int64())} | columns
    names = {"_type": "ClassLabel", "names": ["a", "b", "c"]}
    known = declared(**{column: {"_type": "Image"}}, label=names) if features is None else features
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns).replace_schema_metadata(known)
    pq.write_table(table, path, row_group_size=of_group)
    return path


@pytest.fixture
def folder(tmp_path, photos):
    """Three files of two row groups of four images each."""
    contents = [photo.read_bytes() for photo in photos]
    for s in range(3):
        path = tmp_path / "files" / f"train-{s}.parquet"
        write(path, contents[8 * s : 8 * s + 8], [i % 2 for i in range(8)])
    return tmp_path / "files"


@pytest.fixture
def server(folder):
    with serving(folder) as served:
        yield served


@pytest.fixture
def lazily(monkeypatch, tmp_path):
    """Images that are decoded in every epoch, in windows of two row groups."""
    monkeypatch.setattr(loading, "LAZY_FROM", 10)
    monkeypatch.setattr(randomness, "WINDOW_BYTES", 1)
    (tmp_path / "no-folder").touch()

    def load(source):
        images = load_images(source, 8, cache_dir=tmp_path / "no-folder", memory_limit_bytes=0)
        assert isinstance(images.pixels, LazyCanvases)
        assert images.pixels.kept is None
        return images

    return load


def groups_of(server):
    """The ranges of image columns that were asked for."""
    return [asked for asked in server.asked if asked[2] - asked[1] > 1000]


# --- what is read ------------------------------------------------------------------------------


def test_images_are_those_of_the_files_that_were_put_there(folder, server, photos):
    near, far = open_source(folder), open_source(server.url + FILES)
    for source in (near, far):
        assert [source.origin.file(i).read() for i in range(24)] == [p.read_bytes() for p in photos]
    assert near.names[7:9] == ["train-0.parquet/00007", "train-1.parquet/00000"]
    assert near.names == far.names
    assert list(near.names[20:]) == [near.names[i] for i in range(20, 24)]
    assert near.labels.tolist() == [0, 1] * 12
    assert near.class_names == ["a", "b", "c"]
    ours, theirs = load_images(far), load_images(open_source(photos[0].parent))
    assert torch.equal(ours.pixels, theirs.pixels)
    assert ours.fingerprint() == load_images(near).fingerprint()
    assert ours.blocks is None  # all in memory: the usual order


def test_a_pass_reads_footers_and_classes_once_and_each_row_group_in_one_range(server, photos):
    open_source(server.url + FILES)
    assert len([a for a in server.asked if a[2] - a[1] == 1]) == 1  # whether there are ranges
    server.asked.clear()
    source = open_source(server.url + FILES, values=None)
    assert len(server.asked) == 1
    server.asked.clear()
    load_images(source, 8)
    asked = sorted(groups_of(server))
    assert len(asked) == len(set(asked)) == 6
    assert len(server.asked) == 6
    files = sum(path.stat().st_size for path in server.folder.iterdir())
    assert sum(stop - start for _, start, stop in asked) < files


def test_a_footer_is_parsed_once_for_all_row_groups_of_its_file(folder, monkeypatch):
    seen, parsed = [], row_group_index.parsed
    source = open_source(folder, values=None)
    monkeypatch.setattr(row_group_index, "parsed", lambda *a: (seen.append(a[1]), parsed(*a))[1])
    for i in (0, 4, 8, 12):
        source.origin.file(i)
        source.read_ahead(())
    assert len(seen) == len(set(seen)) == 2


def test_parts_are_what_names_of_files_or_of_folders_say(tmp_path, photos):
    some = [photo.read_bytes() for photo in photos]
    write(tmp_path / "a" / "data" / "test-00000-of-00001.parquet", some[:4])
    write(tmp_path / "a" / "data" / "train-00000-of-00001.parquet", some[4:])
    write(tmp_path / "b" / "train" / "0000.parquet", some[:20], [2] * 20)
    write(tmp_path / "b" / "val" / "0000.parquet", some[20:], [1] * 4)
    for place in ("a", "b"):
        train, test = open_parts(tmp_path / place)
        assert (len(train), len(test)) == (20, 4)
        assert train.fingerprint() != test.fingerprint()
    assert train.labels.tolist() == [2] * 20
    assert test.labels.tolist() == [1] * 4
    assert train.class_names == test.class_names == ["a", "b", "c"]
    with pytest.raises(UserError, match="no split 'test': give the files of each part by name"):
        open_source(tmp_path / "b" / "train", split="test")


def test_a_folder_behind_a_url_is_listed(folder, photos):
    fs = fsspec.filesystem("memory")
    for path in folder.iterdir():
        fs.pipe(f"/hub/data/{path.name}", path.read_bytes())
    try:
        for place in ("memory://hub", "memory://hub/data", "memory://hub/data/train-*.parquet"):
            assert len(open_source(place)) == 24
        fs.pipe("/hub/data/x.tar", b"")
        with pytest.raises(UserError, match=r"has \.parquet and \.tar files: name those of one"):
            open_source("memory://hub/data")
        with pytest.raises(UserError, match=r"no \.tar or \.parquet files at memory://nowhere"):
            open_source("memory://nowhere")
    finally:
        fs.rm("/hub", recursive=True)


def test_a_local_file_a_pattern_and_what_is_a_table(folder, tmp_path):
    assert len(open_source(folder / "train-1.parquet")) == 8
    assert len(open_source(f"{folder}/train-*.parquet")) == 24
    assert len(open_source(f"{folder}{FILES}")) == 24
    assert not is_table(folder / "train-1.parquet")
    assert modality_of(folder / "train-1.parquet").kind == "image"
    pq.write_table(pa.table({"photo": ["a.png"], "text": ["x"]}), tmp_path / "table.parquet")
    assert is_table(tmp_path / "table.parquet")


def test_columns_that_nobody_declared_are_found(tmp_path, photos):
    some = [photo.read_bytes() for photo in photos[:4]]
    path = write(tmp_path / "struct.parquet", some, [0, 1, 0, 1], features={}, column="picture")
    source = open_source(path)
    assert source.labels is None
    assert source.origin.file(2).read() == some[2]
    for kind in (pa.binary(), pa.large_binary()):
        table = pa.table({"caption": ["x"] * 4, "jpg": pa.array(some, kind)})
        pq.write_table(table, tmp_path / "plain.parquet", row_group_size=3)
        source = open_source(tmp_path / "plain.parquet")
        assert [source.origin.file(i).read() for i in range(4)] == some


def test_classes_may_be_unknown_and_rows_empty(tmp_path, photos):
    some = [photo.read_bytes() for photo in photos[:20]]
    source = open_source(write(tmp_path / "x.parquet", [*some, None, b""], [None, -1, *[2] * 20]))
    assert source.labels.tolist() == [-1, -1, *[2] * 20]
    images = load_images(source, 8)
    assert [name for name, _ in images.unreadable] == ["x.parquet/00020", "x.parquet/00021"]
    assert images.unreadable[0][1] == "no bytes in this row"
    with pytest.raises(UserError, match=r"the column label of .* has labels beside those of its 3"):
        open_source(write(tmp_path / "y.parquet", some[:2], [0, 3]))


def test_files_of_many_row_groups_are_looked_at_in_few(tmp_path, photos):
    some = [photo.read_bytes() for photo in photos]
    write(tmp_path / "files" / "x.parquet", [*some, *some], of_group=1)
    with serving(tmp_path / "files") as server:
        source = open_source(f"{server.url}/x.parquet", values=None)
        server.asked.clear()
        source.probe_sizes(8)
        assert len(groups_of(server)) == 8


@pytest.mark.parametrize("kind", ["tar", "parquet", "folder", "array"])
def test_a_source_can_be_sent_to_another_process(kind, folder, photos, tmp_path):
    if kind == "tar":
        with tarfile.open(folder / "x.tar", "w") as tar:
            for photo in photos:
                tar.add(photo, photo.name)
    np.save(folder / "x.npy", np.arange(24 * 64, dtype=np.uint8).reshape(-1, 8, 8))
    pictures = photos[0].parent
    near = {"tar": "x.tar", "parquet": ".", "folder": pictures, "array": "x.npy"}[kind]
    with serving(folder) as server:
        urls = {"tar": [f"{server.url}/x.tar"], "parquet": [server.url + FILES]}
        for data in [folder / near, *urls.get(kind, [])]:
            source = open_source(data, values=None)
            assert source.read(20).any()
            sent = pickle.loads(pickle.dumps(source))
            assert torch.equal(sent.read(20), source.read(20))
            assert torch.equal(sent.read(3), source.read(3))
            assert sent.fingerprint() == source.fingerprint()


def test_files_without_rows_are_no_hindrance(tmp_path, photos):
    some = [photo.read_bytes() for photo in photos]
    write(tmp_path / "files" / "part-0.parquet", [])
    with pytest.raises(UserError, match="has no images: there are no rows in its Parquet files"):
        open_source(tmp_path / "files" / "part-0.parquet")
    pq.write_table(pa.table({"image": pa.nulls(0)}), tmp_path / "files" / "part-1.parquet")
    write(tmp_path / "files" / "part-2.parquet", some[:20], [1] * 20)
    write(tmp_path / "files" / "part-3.parquet", [], [])
    write(tmp_path / "files" / "part-4.parquet", some[20:], [0] * 4)
    source = open_source(tmp_path / "files")
    assert [source.origin.file(i).read() for i in range(24)] == some
    assert source.names[0] == "part-2.parquet/00000"
    assert source.names[20] == "part-4.parquet/00000"
    assert source.labels.tolist() == [1] * 20 + [0] * 4


# --- what is wrong -----------------------------------------------------------------------------


def test_without_images_or_pyarrow_it_is_told(tmp_path, folder, server, monkeypatch):
    pq.write_table(pa.table({"label": [1, 2]}), folder / "numbers.parquet")
    with pytest.raises(UserError, match="no images, only label in 2 rows"):
        open_source(f"{server.url}/numbers.parquet")
    with pytest.raises(UserError, match=r"there is no file http.*nothing\.parquet"):
        open_source(f"{server.url}/nothing.parquet")
    with pytest.raises(UserError, match=r"numbers\.parquet has no column image\.bytes, which"):
        open_source(f"{server.url}/{{train-0,numbers}}.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"needs pyarrow: pip install 'similitude\[parquet\]'"):
        open_source(server.url + FILES)


def test_columns_that_are_declared_something_else_hold_no_images(tmp_path, photos):
    some = [photo.read_bytes() for photo in photos[:4]]
    sounds = declared(audio={"_type": "Audio"})
    path = write(tmp_path / "x.parquet", some, features=sounds, column="audio")
    with pytest.raises(UserError, match="has no images, only audio in 4 rows"):
        open_source(path)
    table = pa.table({"audio": some, "jpg": some[::-1]})
    value = {"_type": "Value", "dtype": "binary"}
    for features in (sounds, declared(audio={"_type": "Audio"}, jpg=value)):
        pq.write_table(table.replace_schema_metadata(features), tmp_path / "y.parquet")
        assert open_source(tmp_path / "y.parquet").origin.file(0).read() == some[3]


@pytest.mark.parametrize("nested", [True, False])
def test_equal_images_take_the_memory_of_one(nested, tmp_path):
    one, other = bytes(400_000), bytes(range(200)) * 2_000
    contents = [one, None, *[one] * 97, other]
    path = write(tmp_path / "x.parquet", contents, of_group=100)
    if not nested:
        pq.write_table(pa.table({"image": pa.array(contents, pa.large_binary())}), path)
    source = open_source(path, values=None).origin
    assert path.stat().st_size < 1_000_000
    assert source.held[0].nbytes < 1_000_000
    assert source.held[0].nbytes < 1.1 * source.blocks.sizes[0]
    assert [source.file(i).read() for i in (0, 98, 99)] == [one, one, other]
    with pytest.raises(UnreadableError, match="no bytes in this row"):
        source.file(1)


def test_a_row_group_larger_than_the_memory_is_refused(folder, monkeypatch):
    monkeypatch.setattr(row_groups, "free_memory_bytes", lambda: 1000)
    with pytest.raises(UserError, match="has a row group of 0 MB, and 0 MB of memory"):
        open_source(folder)


def test_labels_that_are_no_numbers_of_classes_are_told(tmp_path, photos):
    some = [photo.read_bytes() for photo in photos[:4]]
    names = {"_type": "ClassLabel", "names": ["a", "b"]}
    for labels in (["a", "b", "a", "b"], [0, 1, 1.5, 0]):
        table = pa.table({"image": some, "label": labels})
        pq.write_table(table.replace_schema_metadata(declared(label=names)), tmp_path / "x.parquet")
        with pytest.raises(UserError, match=r"the column label of .*x\.parquet is .* no whole num"):
            open_source(tmp_path / "x.parquet")
    table = pa.table({"image": some, "label": [0.0, 1.0, None, 0.0]})
    pq.write_table(table.replace_schema_metadata(declared(label=names)), tmp_path / "x.parquet")
    assert open_source(tmp_path / "x.parquet").labels.tolist() == [0, 1, -1, 0]
    for listed in (3, "ab", None):
        features = declared(label={"_type": "ClassLabel", "names": listed})
        source = open_source(write(tmp_path / "y.parquet", some, [0, 1, 1, 0], features=features))
        assert source.labels is None
        assert source.class_names is None


def test_a_file_that_is_cut_off_or_none_is_told(server, folder):
    path = folder / "train-1.parquet"
    content = path.read_bytes()
    for damaged in (content[:-100], b"", b"PAR1" * 10):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"cannot read http.*train-1\.parquet: "):
            open_source(server.url + FILES)
    path.write_bytes(content[:30] + bytes(800) + content[830:])
    source = open_source(server.url + "/train-{0,2}.parquet")
    assert len(source) == 16
    with pytest.raises(UserError, match=r"cannot read http.*train-1\.parquet: row group \d: "):
        load_images(open_source(server.url + FILES, values=None), 8)


def test_a_file_that_changes_under_a_run_is_told(server, folder, photos):
    source = open_source(server.url + FILES, values=None)
    before = source.fingerprint()
    some = [photo.read_bytes() for photo in photos[:8]]
    write(folder / "train-1.parquet", some, [0] * 8)
    with pytest.raises(UserError, match=r"train-1\.parquet has changed since its footer was read"):
        source.origin.file(8)
    assert source.origin.file(0).read() == some[0]
    assert open_source(server.url + FILES).fingerprint() != before


def test_a_network_that_comes_back_is_waited_for_and_one_that_is_gone_told(server):
    source = open_source(server.url + FILES, values=None)
    server.failures = 1
    assert source.origin.file(0).read()
    server.failures = 10**6
    with pytest.raises(UserError, match=r"cannot read http://.*parquet: .*goes on with --resume"):
        source.origin.file(20)
    server.failures = 0
    assert source.origin.file(20).read()  # what failed is not kept


def test_row_groups_are_let_go_once_images_are_decoded(folder, photos, tmp_path):
    source = open_source(folder)
    held = source.origin.held
    source.probe_sizes(8)
    assert held._held
    load_images(source, 8)
    assert not held._held
    pack_images(source, tmp_path / "x.pack", 8)
    assert not held._held
    some = [b"x", *[photo.read_bytes() for photo in photos[:3]]]
    source = open_source(write(tmp_path / "x.parquet", some), values=None)
    with pytest.raises(UserError, match="cannot be read"):
        load_images(source, 8)
    assert not source.origin.held._held


# --- blocks in memory --------------------------------------------------------------------------


def holding(sizes, monkeypatch, window=100):
    monkeypatch.setattr(row_groups, "WINDOW_BYTES", window)
    seen = []

    def read(number):
        seen.append(number)
        return number * 10

    return Held(read, np.array(sizes)), seen


def test_many_threads_wait_for_one_reading(monkeypatch):
    started = threading.Event()
    seen = []

    def read(number):
        seen.append(number)
        started.wait(5)
        return number

    held = Held(read, np.array([1, 1]))
    found = []
    threads = [threading.Thread(target=lambda: found.append(held[1])) for _ in range(5)]
    for thread in threads:
        thread.start()
    started.set()
    for thread in threads:
        thread.join()
    assert found == [1] * 5
    assert seen == [1]


def test_what_is_read_in_order_is_read_ahead_and_let_go(monkeypatch):
    held, seen = holding([10] * 60, monkeypatch)
    assert held[30] == 300
    assert seen == [30]
    for number in range(60):
        assert held[number] == number * 10
        assert len(held._held) <= 12
    assert sorted(seen) == sorted([*range(60), 30])  # long gone when its turn came


def test_read_ahead_are_these_and_no_others(monkeypatch):
    held, seen = holding([60] * 9, monkeypatch)
    held.read_ahead([7, 2, 5, 0])
    assert [held[n] for n in (0, 2, 5, 7)] == [0, 20, 50, 70]
    held.read_ahead([5, 8])
    assert set(held._held) == {5, 8}
    assert (held[5], held[8]) == (50, 80)
    assert sorted(seen) == [0, 2, 5, 7, 8]
    held.read_ahead(())
    assert not held._held


def test_very_many_small_blocks_are_asked_for_at_once():
    sizes = np.full(20_000, 30_000)
    held = Held(int, sizes)
    start = time.perf_counter()
    held.read_ahead(range(15_000))
    held.read_ahead(range(5_000, 20_000))
    assert time.perf_counter() - start < 5  # minutes where each looks at all others
    assert held[19_999] == 19_999
    held.read_ahead(())


def test_a_block_that_fails_is_not_asked_for_with_each_sample_before_it():
    seen = []

    def read(number):
        seen.append(number)
        if number == 2:
            raise UserError("gone")
        return number

    held = Held(read, np.array([1, 1, 1]))
    assert held[0] == 0
    assert held[1] == 1
    with suppress(UserError):
        held._held[2].result()
    for _ in range(9):
        assert held[1] == 1
    assert seen == [0, 1, 2]
    with pytest.raises(UserError, match="gone"):
        held[2]
    assert seen == [0, 1, 2, 2]


def test_what_is_let_go_of_are_those_longest_not_asked_for(monkeypatch):
    held, seen = holding([50] * 20, monkeypatch)
    held.read_ahead([0])
    for number in (2, 4, 6, 8, 4, 10):
        assert held[number] == number * 10
    assert set(held._held) == {0, 8, 4, 10}
    assert seen == [0, 2, 4, 6, 8, 10]


def test_an_error_reaches_who_asks_then_and_nobody_else():
    answers = [UserError("gone"), UserError("gone"), 5]

    def read(number):
        answer = answers.pop(0)
        if isinstance(answer, UserError):
            raise answer
        return answer

    held = Held(read, np.array([1]))
    held.read_ahead([0])
    while not held._held[0].done():
        pass
    with pytest.raises(UserError, match="gone"):
        held[0]
    assert held[0] == 5


# --- training ----------------------------------------------------------------------------------


def test_an_epoch_reads_every_row_group_once_in_any_process(server, lazily):
    source = open_source(server.url + FILES)
    images = lazily(source)
    options = {"batch_size": 4, "seed": 0, "total_steps": 12}
    whole = list(Loader(images, **options))
    for part in range(2):
        server.asked.clear()
        mine = list(Loader(images, **options, part=part, parts=2))
        assert all(
            torch.equal(a.index[2 * part : 2 * part + 2], b.index)
            for a, b in zip(whole, mine, strict=True)
        )
        asked = groups_of(server)
        assert len(set(asked)) == 6
        assert len(asked) <= 12
        assert sorted(asked[:6]) == sorted(set(asked))
    assert sorted(torch.cat([b.index for b in whole[:6]]).tolist()) == list(range(24))
    assert not source.origin.held._held  # what no batch needs is let go


def test_batches_have_the_images_of_their_rows_from_any_step(server, lazily):
    images = lazily(open_source(server.url + FILES))
    expected = images.pixels[:]
    options = {"batch_size": 5, "seed": 3, "total_steps": 11}
    whole = list(Loader(images, **options))
    for batch in whole:
        assert torch.equal(batch.rows.pixels, expected[batch.index])
    for first in (1, 3, 4, 10):
        rest = list(Loader(images, **options, first_step=first))
        for a, b in zip(whole[first:], rest, strict=True):
            assert torch.equal(a.index, b.index)
            assert torch.equal(a.rows.pixels, b.rows.pixels)


def test_the_order_is_the_same_once_all_canvases_are_kept(server, folder, lazily, tmp_path):
    def batches(images):
        return [b.index.tolist() for b in Loader(images, batch_size=4, seed=0, total_steps=12)]

    expected = batches(lazily(open_source(folder)))
    source = open_source(server.url + FILES, values=None)
    kept = load_images(source, 8, cache_dir=tmp_path / "canvases")
    server.asked.clear()
    assert batches(kept) == expected
    assert len(server.asked) == 6  # in the first epoch alone
    complete = load_images(source, 8, cache_dir=tmp_path / "canvases")
    assert not isinstance(complete.pixels, LazyCanvases)
    assert batches(complete) == expected
    assert batches(load_images(open_source(kept), 8, cache_dir=tmp_path / "canvases")) == expected
    assert batches(load_images(open_source(complete), 8)) == expected


def test_random_samples_are_of_few_row_groups(folder, lazily):
    source = open_source(folder)
    images = lazily(source)
    some = images.order(0, -1)[:6]
    assert len({int(i) // 4 for i in some}) <= 2


def test_the_monitor_looks_for_labels_in_few_row_groups(folder, photos, lazily, monkeypatch):
    for s in range(3):
        some = [photo.read_bytes() for photo in photos[8 * s : 8 * s + 8]]
        write(folder / f"train-{s}.parquet", some, [None, None, 1, None] * 2)
    images = lazily(open_source(folder))
    monkeypatch.setattr(online, "_LOOKED_AT", 8)
    facts = ImageFacts(8, (0.5,) * 3, (0.5,) * 3)
    view = ImageView(ImageViewConfig(), facts)
    watched = OnlineMonitor(images, facts, MultiView(view, view), seed=0, size=4).samples
    rows = [images.names.index(name) for name in watched.names]
    assert len({row // 4 for row in rows}) <= 2
    assert (watched.labels >= 0).sum() == 2


@pytest.mark.slow
def test_a_run_stopped_where_the_network_was_gone_is_bit_for_bit_a_whole_one(
    server, folder, lazily, tmp_path, monkeypatch
):
    monkeypatch.setattr(loading, "_room", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    monkeypatch.setattr(loading, "free_memory_bytes", lambda: 0)
    fixed = {"precision": "float32", "memory_format": "contiguous"}
    recipe = small_recipe("simclr", epochs=3, batch_size=8, canvas_size=8, **fixed)
    whole = pretrain(folder, recipe=recipe, out=tmp_path / "whole", report=False)
    gather = Loader._gather

    def cut(self, index, epoch, beside):
        if epoch == 2:
            server.failures = 10**6
            self.samples.read_ahead(())
        return gather(self, index, epoch, beside)

    monkeypatch.setattr(Loader, "_gather", cut)
    with pytest.raises(UserError, match=r"cannot read http.*goes on with --resume"):
        pretrain(server.url + FILES, recipe=recipe, out=tmp_path / "stopped", report=False)
    monkeypatch.setattr(Loader, "_gather", gather)
    server.failures = 0
    far = pretrain(server.url + FILES, out=tmp_path / "stopped", resume=True, report=False)
    ours, theirs = far.checkpoint.method, whole.checkpoint.method
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
