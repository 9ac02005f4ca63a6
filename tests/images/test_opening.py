"""What open_source finds in folders and arrays."""

import os

import numpy as np
import pytest
import torch

from similitude.errors import UserError
from similitude.images import arrays
from similitude.images.loading import load_images
from similitude.images.opening import open_parts, open_source


def test_other_objects_are_told_what_is_taken():
    with pytest.raises(UserError, match="object of type list: give a folder"):
        open_source([torch.zeros(3, 8, 8)])


def test_nested_folder_is_listed_in_order_without_labels(photos):
    source = open_source(photos)
    assert len(source) == 12
    assert source.names == sorted(source.names)
    assert "trip1/day0/img04.ppm" in source.names
    assert "img03.bmp" in source.names
    assert source.labels is None
    assert source.notes == ()
    assert open_source(str(photos)).names == source.names


def test_read_gives_the_pixels(tmp_path, make_image):
    pixels = make_image(tmp_path / "x/a.png", 1)
    make_image(tmp_path / "x/b.png", 2)
    image = open_source(tmp_path / "x").read(0)
    assert (image.permute(1, 2, 0).numpy() == pixels).all()


def test_hidden_files_and_macos_leftovers_are_ignored(photos, make_image):
    make_image(photos / ".hidden.png")
    make_image(photos / ".thumbnails/a.png")
    make_image(photos / "__MACOSX/a.png")
    assert len(open_source(photos)) == 12


def test_circular_links_end_and_no_image_counts_twice(photos):
    names = open_source(photos).names
    (photos / "aaa").symlink_to(photos, target_is_directory=True)
    for link in ("bbb", "zzz"):  # wherever it sorts, the folder's own path counts
        (photos / link).symlink_to(photos / "trip1", target_is_directory=True)
    (photos / "trip1" / "again").symlink_to(photos / "trip2", target_is_directory=True)
    assert open_source(photos).names == names


def test_a_linked_folder_is_followed(tmp_path, photos):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "link").symlink_to(photos, target_is_directory=True)
    assert len(open_source(elsewhere)) == 12
    assert open_source(elsewhere).names[0].startswith("link/")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_no_image(photos):
    os.mkfifo(photos / "pipe.png")
    assert len(open_source(photos)) == 12


@pytest.mark.skipif(os.name == "nt", reason="needs names that are no text")
def test_a_file_name_that_is_no_text_can_be_printed(photos, make_image):
    make_image(photos / "new.png")
    os.rename(photos / "new.png", os.fsencode(photos) + b"/caf\xe9.png")
    source = open_source(photos)
    name = next(n for n in source.names if n.startswith("caf"))
    assert name.encode("utf-8") == b"caf\\xe9.png"
    assert name in load_images(source, 4).names


def test_other_files_are_told(photos):
    (photos / "notes.txt").write_text("x")
    (photos / "a.heic").write_text("x")
    (note,) = open_source(photos).notes
    assert "1 .heic" in note
    assert "1 .txt" in note


def make_classes(folder, make_image, classes, each=3):
    for name in classes:
        for i in range(each):
            make_image(folder / name / f"{i}.png", hash((name, i)) % 1000)


def test_class_folders_give_labels(tmp_path, make_image):
    make_classes(tmp_path / "x", make_image, ["dog", "ant", "cat"])
    source = open_source(tmp_path / "x")
    assert source.class_names == ["ant", "cat", "dog"]
    assert source.labels is not None
    assert source.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert load_images(source).labels.tolist() == source.labels.tolist()


@pytest.mark.parametrize("spoiler", ["top.png", "dog/deep/a.png"])
def test_no_labels_unless_every_image_sits_in_a_class_folder(tmp_path, make_image, spoiler):
    make_classes(tmp_path / "x", make_image, ["dog", "ant"])
    make_image(tmp_path / "x" / spoiler)
    assert open_source(tmp_path / "x").labels is None


def test_one_class_is_none(tmp_path, make_image):
    make_classes(tmp_path / "x", make_image, ["dog"])
    assert open_source(tmp_path / "x").labels is None


@pytest.mark.parametrize("test_name", ["test", "val", "valid", "Validation", "dev"])
def test_parts(tmp_path, make_image, test_name):
    root = tmp_path / "x"
    make_classes(root / "train", make_image, ["ant", "bee", "cat"])
    make_classes(root / test_name, make_image, ["bee", "cat"], each=2)
    assert len(open_parts(root)) == 2
    train = open_source(root)
    assert len(train) == 9
    assert "the training images are used" in train.notes[0]
    assert test_name in train.notes[0]
    assert open_source(root, split="train").notes == ()
    names = ["bee/0.png", "bee/1.png", "cat/0.png", "cat/1.png"]
    assert open_source(root, split="test").names == names
    train, test = open_parts(root)
    # a class that the test images lack keeps its number
    assert test.class_names == train.class_names == ["ant", "bee", "cat"]
    assert test.labels is not None
    assert test.labels.tolist() == [1, 1, 2, 2]


def test_a_validation_part_with_labels_stands_for_a_test_part_without(tmp_path, make_image):
    root = tmp_path / "x"
    for part in ("train", "valid"):
        make_classes(root / part, make_image, ["ant", "bee"])
    make_image(root / "test" / "0.png")
    test = open_source(root, split="test")
    assert test.files.folder.name == "valid"
    assert "valid is used to test in its place" in test.notes[0]
    make_classes(root / "test", make_image, ["ant", "bee"])
    (root / "test" / "0.png").unlink()
    test = open_source(root, split="test")
    assert test.files.folder.name == "test"
    assert "valid is not" in test.notes[0]
    assert open_source(root, split="val").files.folder.name == "valid"


def test_a_run_inside_the_data_is_no_data(tmp_path, make_image):
    make_image(tmp_path / "a.png")
    make_image(tmp_path / "b.png")
    make_image(tmp_path / "runs/first/views.png")
    (tmp_path / "runs/first/checkpoints").mkdir()
    assert len(open_source(tmp_path)) == 3
    (tmp_path / "runs/first/recipe.yaml").touch()
    assert open_source(tmp_path).names == ["a.png", "b.png"]


@pytest.mark.parametrize("place", ["loop.png", "deep/loop.png", "loop"])
def test_a_link_that_leads_to_itself_is_one_unreadable_file(tmp_path, make_image, place):
    for i in range(12):
        make_image(tmp_path / f"{i}.png")
    (tmp_path / "deep").mkdir()
    (tmp_path / place).symlink_to((tmp_path / place).name)
    images = load_images(open_source(tmp_path))
    assert len(images) == 12
    assert [name for name, _ in images.unreadable] == ([place] if "." in place else [])


def test_a_class_called_train_is_no_split(tmp_path, make_image):
    make_classes(tmp_path / "x", make_image, ["car", "train"])
    assert len(open_parts(tmp_path / "x")) == 1
    assert open_source(tmp_path / "x").class_names == ["car", "train"]
    with pytest.raises(UserError, match="no split 'test'"):
        open_source(tmp_path / "x", split="test")


def test_errors_say_what_is_there(tmp_path):
    with pytest.raises(UserError, match=r"no folder or file .*nowhere"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(UserError, match="did you mean fashion-mnist"):
        open_source("fashion_mnist")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no image in .*\.jpg .*it is empty"):
        open_source(tmp_path / "empty")
    (tmp_path / "empty" / "a.heic").write_bytes(b"x")
    with pytest.raises(UserError, match=r"only other files \(1 \.heic\)"):
        open_source(tmp_path / "empty")
    (tmp_path / "a.zip").write_bytes(b"x")
    with pytest.raises(UserError, match="is a file: give the folder"):
        open_source(tmp_path / "a.zip")


def test_probe_sizes_reads_headers_only(photos):
    sizes = open_source(photos).probe_sizes()
    assert sorted(sizes) == sorted((10 + i, 20 - i) for i in range(12))
    assert len(open_source(photos).probe_sizes(5)) == 5
    for path in photos.rglob("*.png"):  # cut off the pixels
        path.write_bytes(path.read_bytes()[:60])
    assert len(open_source(photos).probe_sizes()) == 12


GREY = np.random.default_rng(0).integers(0, 256, (6, 5, 7), np.uint8)
COLOR = np.random.default_rng(0).integers(0, 256, (6, 5, 7, 3), np.uint8)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GREY, GREY[..., None]),
        (GREY[..., None], GREY[..., None]),
        (GREY[:, None], GREY[..., None]),
        (COLOR, COLOR),
        (COLOR.transpose(0, 3, 1, 2), COLOR),
        (COLOR[:, ::-1], COLOR[:, ::-1]),
        (COLOR.astype(np.float32) / 255, COLOR),
        (COLOR.astype(np.float64) / 255, COLOR),
        (torch.from_numpy(COLOR), COLOR),
    ],
    ids=["NHW", "NHW1", "N1HW", "NHWC", "NCHW", "flipped", "float32", "float64", "tensor"],
)
def test_arrays(array, expected):
    source = open_source(array)
    assert source.probe_sizes() == [(7, 5)] * 6
    for i in range(6):
        shown = np.broadcast_to(expected[i], (5, 7, 3))
        assert (source.read(i).permute(1, 2, 0).numpy() == shown).all()
    images = load_images(source, 4)
    assert images.pixels.shape == (6, 3, 4, 4)
    assert images.aspect.tolist() == pytest.approx([1.4] * 6)


def test_floats_are_rounded_not_cut():
    array = np.array([0.999, 0.001, 0.003, 0.25])[:, None, None] * np.ones((4, 2, 2))
    assert [int(open_source(array).read(i)[0, 0, 0]) for i in range(4)] == [255, 0, 1, 64]


def test_transparent_array_lies_over_white():
    array = np.concatenate([COLOR, np.zeros((6, 5, 7, 1), np.uint8)], axis=3)
    assert (open_source(array).read(2) == 255).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((6, 5)), r"shape \[6, 5\]"),
        (np.zeros((6, 5, 5, 2), np.uint8), "channels=2 keeps them"),
        (np.zeros((0, 5, 5), np.uint8), "shape"),
        (np.zeros((6, 5, 5), np.int64), "holds int64"),
        (np.full((6, 5, 5), 200.0), "divide by 255"),
        (np.full((6, 5, 5), -1.0), "rescale"),
        (np.full((6, 5, 5), np.nan), "nan"),
    ],
)
def test_arrays_that_are_no_images(array, message):
    with pytest.raises(UserError, match=message):
        open_source(array)


def test_npy_is_mapped_not_read(tmp_path):
    np.save(tmp_path / "a.npy", COLOR)
    source = open_source(tmp_path / "a.npy")
    assert isinstance(source.array, np.memmap)
    assert torch.equal(load_images(source, 5).pixels, load_images(open_source(COLOR), 5).pixels)


@pytest.mark.parametrize("keys", [("images", "labels"), ("x", "y")])
def test_npz_with_labels(tmp_path, keys):
    np.savez(
        tmp_path / "a.npz", **{keys[0]: GREY, keys[1]: np.array([[0], [2], [1], [-1], [0], [2]])}
    )
    source = open_source(tmp_path / "a.npz")
    assert source.labels is not None
    assert source.labels.tolist() == [0, 2, 1, -1, 0, 2]
    assert source.class_names == ["0", "1", "2"]


def test_class_numbers_are_names_of_the_classes_that_occur(tmp_path):
    """An identity takes no more memory than another name."""
    numbers = np.array([17, 300_000_017, -1, 2**62, 17, 9])
    np.savez(tmp_path / "a.npz", x=GREY, y=numbers)
    source = open_source(tmp_path / "a.npz")
    assert source.class_names == ["9", "17", "300000017", str(2**62)]
    assert source.labels.tolist() == [1, 2, -1, 3, 1, 0]
    np.savez(tmp_path / "b.npz", x=GREY, y=np.full(6, -1))
    assert open_source(tmp_path / "b.npz").labels is None
    np.savez(tmp_path / "c.npz", x=GREY, y=np.array(["", "-1", "b", "a", "b", "a"]))
    assert open_source(tmp_path / "c.npz").labels.tolist() == [-1, -1, 1, 0, 1, 0]


def test_the_classes_of_both_parts_agree(tmp_path):
    path = tmp_path / "a.npz"
    y_train, y_test = np.array([0, 1, 5, 0, 1, 5]), np.array([0, 5, 0, 5, 7, 0])
    np.savez(path, x_train=GREY, y_train=y_train, x_test=GREY, y_test=y_test)
    train, test = open_parts(path)
    assert train.class_names == test.class_names == ["0", "1", "5", "7"]
    assert train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert test.labels.tolist() == [0, 2, 0, 2, 3, 0]


def test_an_archive_that_unpacks_to_more_than_the_memory_is_told(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((9, 64, 64), np.uint8))
    monkeypatch.setattr(arrays, "free_memory_bytes", lambda: 10_000)
    with pytest.raises(UserError, match=r"unpacks to 36,\d+ bytes, more than the 10,000 of memory"):
        open_source(tmp_path / "a.npz")


def test_npz_with_splits_and_class_names(tmp_path):
    path = tmp_path / "a.npz"
    words = np.array(["b", "a", "b", "c", "a", "a"])
    np.savez(path, x_train=GREY, y_train=words, x_test=COLOR, y_test=words)
    assert len(open_parts(path)) == 2
    train = open_source(path)
    assert "training images are used" in train.notes[0]
    assert train.names[5] == "00005"
    assert train.class_names == ["a", "b", "c"]
    assert train.labels is not None
    assert train.labels.tolist() == [1, 0, 1, 2, 0, 0]
    test = open_source(path, split="test")
    assert (test.read(0).permute(1, 2, 0).numpy() == COLOR[0]).all()
    with pytest.raises(UserError, match="called x_val or val_images"):
        open_source(path, split="val")


def test_files_of_arrays_that_are_damaged(tmp_path):
    np.savez(tmp_path / "a.npz", pictures=GREY)
    with pytest.raises(UserError, match="images or x, only pictures"):
        open_source(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x=GREY, y=np.zeros(3, int))
    with pytest.raises(UserError, match="6 images but 3 labels"):
        open_source(tmp_path / "b.npz")
    for name in ("c.npy", "c.npz"):
        (tmp_path / name).write_bytes(b"nonsense")
        with pytest.raises(UserError, match="cannot read"):
            open_source(tmp_path / name)
    np.save(tmp_path / "d.npy", np.array([{"code": 1}]), allow_pickle=True)
    with pytest.raises(UserError, match="cannot read"):  # a pickle is never opened
        open_source(tmp_path / "d.npy")


def test_loaded_images_are_a_source_again(photos):
    images = load_images(open_source(photos), 4)
    again = load_images(open_source(images), 4)
    assert again.pixels.data_ptr() == images.pixels.data_ptr()
    assert again.names == images.names
    assert torch.equal(again.aspect, images.aspect)
    smaller = load_images(open_source(images), 3)
    assert smaller.pixels.shape == (12, 3, 3, 3)
    assert torch.equal(smaller.aspect, images.aspect)


def test_a_pair_of_loaded_images_is_a_training_and_a_test_part(photos):
    train = load_images(open_source(photos), 4)
    test = train.subset(torch.arange(3))
    both = open_parts((train, test))
    assert [len(part) for part in both] == [12, 3]
    assert both[1].names == test.names
    assert len(open_source((train, test))) == 12
    assert len(open_source((train, test), split="test")) == 3


@pytest.mark.parametrize("shape", [(40, 30, 3), (3, 40, 30), (40, 30, 4)])
def test_one_picture_without_its_axis_is_not_taken_for_many(shape):
    with pytest.raises(UserError, match=r"looks like one picture.*array\[None\]"):
        open_source(np.zeros(shape, np.uint8))


def test_keys_of_an_archive_may_have_capitals(tmp_path):
    np.savez(tmp_path / "a.npz", X_train=GREY, Y_train=np.arange(6) % 2, X_test=GREY)
    train, test = open_parts(tmp_path / "a.npz")
    assert train.class_names == ["0", "1"]
    assert test.labels is None


def test_only_what_is_read_of_an_archive_must_fit_in_memory(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", x_train=GREY, x_test=np.zeros((4, 400, 400), np.uint8))
    monkeypatch.setattr(arrays, "free_memory_bytes", lambda: 100_000)
    assert len(open_source(tmp_path / "a.npz", split="train")) == 6
    with pytest.raises(UserError, match="more than the 100,000 of memory"):
        open_source(tmp_path / "a.npz", split="test")


def test_accents_of_class_folders_agree_in_both_parts(tmp_path, make_image):
    make_classes(tmp_path / "x/train", make_image, ["caf\u00e9", "b"])
    make_classes(tmp_path / "x/test", make_image, ["cafe\u0301", "b"])
    train, test = open_parts(tmp_path / "x")
    assert train.class_names == test.class_names == ["b", "caf\u00e9"]
