import sys

import pytest
import torch
from PIL import Image

from builders import write_photos
from servers import serving
from similitude.errors import UserError
from similitude.images.loading import load_images, pack_images
from similitude.images.opening import open_parts, open_source, open_stream

datasets = pytest.importorskip("datasets")


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos", 12, classes=2)


def make(photos, **more):
    paths = sorted(photos.glob("*/*.png"))
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
    columns = {"image": [Image.open(p) for p in paths], "label": [i % 2 for i in range(12)]}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


@pytest.fixture
def dataset(photos):
    return make(photos)


def test_images_and_classes_of_a_data_set(photos, dataset):
    source = open_source(dataset)
    images, plain = load_images(source), load_images(open_source(photos))
    assert torch.equal(images.pixels, plain.pixels)
    assert images.labels.tolist() == [0, 1] * 6
    assert images.class_names == ["a", "b"]
    assert images.names[:2] == ["00000", "00001"]
    assert source.probe_sizes() == [(20, 20)] * 12


def test_parts_of_a_data_set(dataset):
    parts = datasets.DatasetDict(train=dataset, validation=dataset.select(range(3)))
    assert len(open_parts(parts)) == 2
    assert len(open_source(parts, split="test")) == 3
    chosen = open_source(parts)
    assert len(chosen) == 12
    assert "those of validation are not" in chosen.notes[0]
    only = datasets.DatasetDict(everything=dataset)
    assert len(open_parts(only)) == 1
    assert len(open_source(only)) == 12
    with pytest.raises(UserError, match="no split 'test', only everything"):
        open_source(only, split="test")
    with pytest.raises(UserError, match="a single set"):
        open_source(dataset, split="test")


def test_a_saved_folder(dataset, tmp_path):
    dataset.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=dataset, test=dataset).save_to_disk(tmp_path / "two")
    assert len(open_source(tmp_path / "one")) == 12
    assert len(open_parts(tmp_path / "one")) == 1
    assert len(open_parts(tmp_path / "two")) == 2
    assert open_source(tmp_path / "two", split="test").name.endswith("two test")


@pytest.mark.slow
def test_a_name_is_what_the_library_makes_of_it(photos, tmp_path, monkeypatch):
    """On the hub or, as here, a folder on disk."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    source = open_source(f"hf:{photos}")
    assert len(source) == 12
    assert source.class_names == ["class0", "class1"]
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)  # it tries again for long
    with pytest.raises(UserError, match="cannot load hf:no/such-thing"):
        open_source("hf:no/such-thing")


def test_an_empty_row_is_an_unreadable_image(dataset, photos):
    image = Image.open(next(photos.glob("*/*.png")))
    columns = {"image": [image] * 11 + [None]}
    kinds = datasets.Features({"image": datasets.Image()})
    images = load_images(open_source(datasets.Dataset.from_dict(columns, features=kinds)))
    assert images.unreadable == [("00011", "nothing in this row")]
    assert images.labels is None


def test_a_pack_of_a_stream(photos, dataset, tmp_path):
    parts = datasets.IterableDatasetDict(train=dataset.to_iterable_dataset())
    stream = open_stream(parts)
    packed = pack_images(stream, tmp_path / "s.pack")
    assert torch.equal(packed.pixels[:], load_images(open_source(photos)).pixels)
    assert packed.labels.tolist() == [0, 1] * 6
    assert packed.class_names == ["a", "b"]
    unknown = datasets.IterableDataset.from_generator(lambda: iter([{"a": 1}]))
    with pytest.raises(UserError, match="no images, only columns of unknown kinds"):
        open_stream(unknown)


def test_what_is_not_images_is_told(dataset):
    with pytest.raises(UserError, match="no images, only label"):
        open_source(dataset.remove_columns("image"))
    with pytest.raises(UserError, match="is a stream"):
        open_source(dataset.to_iterable_dataset())


def test_the_fingerprint_follows_the_content(dataset):
    assert open_source(dataset).fingerprint() == open_source(dataset).fingerprint()
    assert open_source(dataset.select(range(5))).fingerprint() != open_source(dataset).fingerprint()


def test_without_the_library_it_is_named(dataset, tmp_path, monkeypatch):
    dataset.save_to_disk(tmp_path / "one")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'similitude\[huggingface\]'"):
        open_source(tmp_path / "one")


def test_parquet_files_that_the_library_writes_are_the_data_set(photos, dataset, tmp_path):
    contents = [{"bytes": p.read_bytes(), "path": None} for p in sorted(photos.glob("*/*.png"))]
    columns = {"image": contents, "label": dataset["label"]}
    dataset = datasets.Dataset.from_dict(columns, features=dataset.features)
    (tmp_path / "files").mkdir()
    for part, number in (("train", 0), ("train", 1), ("test", 0)):
        rows = dataset.select(range(6 * number, 6 * number + 6))
        rows.to_parquet(tmp_path / "files" / f"{part}-{number}.parquet")
    with serving(tmp_path / "files") as server:
        train, test = open_parts(f"{server.url}/{{train-0,train-1,test-0}}.parquet")
        assert (len(train), len(test)) == (12, 6)
        assert torch.equal(load_images(train).pixels, load_images(open_source(dataset)).pixels)
    assert train.labels.tolist() == [0, 1] * 6
    assert train.class_names == ["a", "b"]
