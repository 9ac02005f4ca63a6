import io
import os
import tarfile

import pytest
import torch

from builders import write_photos, write_tar
from similitude.errors import UserError
from similitude.images.loading import load_images
from similitude.images.opening import open_parts, open_source


@pytest.fixture
def photos(tmp_path):
    folder = write_photos(tmp_path / "photos", 12, classes=0)
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@pytest.fixture
def shards(tmp_path, photos):
    """Two shards of six images, in the order of the photos, with their classes beside them."""
    for s in range(2):
        files = {}
        for i in range(6 * s, 6 * s + 6):
            files[f"{i:04d}.cls"] = f"{i % 3}\n".encode()
            files[f"{i:04d}.png"] = photos[i]
            files[f"{i:04d}.json"] = b"{}"
        write_tar(tmp_path / "shards" / f"part-{s}.tar", files)
    return tmp_path / "shards"


def test_images_of_shards_are_those_of_the_folder(shards, tmp_path):
    source = open_source(shards)
    images, plain = load_images(source), load_images(open_source(tmp_path / "photos"))
    assert torch.equal(images.pixels, plain.pixels)
    assert images.names[0] == "part-0.tar/0000.png"
    assert images.names[-1] == "part-1.tar/0011.png"
    assert images.labels.tolist() == [i % 3 for i in range(12)]
    assert images.class_names == ["0", "1", "2"]
    assert source.probe_sizes() == [(20, 20)] * 12


@pytest.mark.parametrize("given", ["", "part-*.tar", "part-[01].tar"])
def test_a_folder_and_a_pattern_mean_the_same(shards, given):
    assert open_source(shards / given).names == open_source(shards).names


def test_one_shard_needs_no_prefix_and_unknown_classes_are_none(shards, photos, tmp_path):
    files = {"a/x.seg.png": photos[0], "a/y.png": photos[1], "a/x.cls": b"cat", "z.png": photos[2]}
    source = open_source(write_tar(tmp_path / "one.tar", {**files, "z.cls": b"ape"}))
    assert source.names == ["a/x.seg.png", "a/y.png", "z.png"]
    assert source.labels.tolist() == [1, -1, 0]
    assert source.class_names == ["ape", "cat"]
    assert open_source(write_tar(tmp_path / "two.tar", {"b.png": photos[0]})).labels is None


def test_classes_are_those_that_occur_and_no_text_is_unknown(photos, tmp_path):
    texts = {"a": b"300000000", "b": b"-1", "c": b"", "d": b"17\n", "e": b" \n"}
    files = {f"{key}.png": photos[i] for i, key in enumerate(texts)}
    files |= {f"{key}.cls": text for key, text in texts.items()}
    source = open_source(write_tar(tmp_path / "x.tar", files))
    assert source.class_names == ["17", "300000000"]
    assert source.labels.tolist() == [1, -1, -1, 0, -1]
    with pytest.raises(UserError, match=r"a\.cls in .*x\.tar is no class: .*1000 bytes"):
        open_source(write_tar(tmp_path / "x.tar", files | {"a.cls": b"x" * 10**6}))


def test_a_folder_that_also_holds_images_is_a_folder_of_images(shards, photos):
    (shards / "image.png").write_bytes(photos[0])
    (shards / "other.png").write_bytes(photos[1])
    assert open_source(shards).names == ["image.png", "other.png"]


def test_a_damaged_image_is_left_out_and_listed(shards, tmp_path, photos):
    files = {f"{i}.png": photo for i, photo in enumerate([*photos, b"no image"])}
    images = load_images(open_source(write_tar(tmp_path / "x.tar", files)))
    assert len(images) == 12
    assert images.unreadable == [("12.png", "not an image")]


def test_a_shard_that_is_cut_off_or_compressed_is_told(shards, tmp_path, photos):
    path = shards / "part-0.tar"
    whole = path.read_bytes()
    path.write_bytes(b"no tar file" * 100)
    with pytest.raises(UserError, match=r"part-0\.tar: .*without compression"):
        open_source(shards)
    path.write_bytes(whole)
    with pytest.raises(UserError, match="no split"):
        open_source(shards, split="test")
    with pytest.raises(UserError, match="no image in"):
        open_source(write_tar(tmp_path / "none.tar", {"a.txt": b"x"}))
    with pytest.raises(UserError, match="no folder or file"):
        open_source(tmp_path / "nothing-*.tar")


def test_the_fingerprint_follows_the_files(shards):
    before = open_source(shards).fingerprint()
    assert open_source(shards).fingerprint() == before
    path = shards / "part-1.tar"
    path.write_bytes(path.read_bytes() + b"\0" * 512)
    assert open_source(shards).fingerprint() != before


def test_files_that_a_mac_adds_are_left_out_and_others_are_told(tmp_path, photos):
    files = {"._a.png": b"Mac OS X", "__MACOSX/a.png": b"x", "a.png": photos[0], "b.png": photos[1]}
    source = open_source(write_tar(tmp_path / "one.tar", files | {"b.jfif": photos[2]}))
    assert source.names == ["a.png", "b.png"]
    assert "1 .jfif" in source.notes[0]


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_links_of_a_tar_file_are_the_files_they_name(tmp_path, photos, kind):
    path = write_tar(tmp_path / "one.tar", {"x/a.png": photos[0], "x/b.png": photos[1]})
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo("x/c.png")
        info.type, info.linkname = kind, "x/b.png" if kind == tarfile.LNKTYPE else "../x/b.png"
        tar.addfile(info)
    images = load_images(open_source(path))
    assert images.names == ["x/a.png", "x/b.png", "x/c.png"]
    assert torch.equal(images.pixels[1], images.pixels[2])


@pytest.mark.parametrize("form", ["folders", "names", "members"])
def test_parts_of_shards(tmp_path, photos, form):
    root = tmp_path / "set"
    train = {f"{i}.png": photos[i] for i in range(4)} | {f"{i}.cls": b"0" for i in range(4)}
    valid = {f"{i}.png": photos[i] for i in range(4, 6)} | {f"{i}.cls": b"5" for i in range(4, 6)}
    if form == "folders":
        write_tar(root / "train" / "0.tar", train)
        write_tar(root / "valid" / "0.tar", valid)
    elif form == "names":
        write_tar(root / "train-000.tar", train)
        write_tar(root / "valid-000.tar", valid)
    else:
        root = write_tar(
            tmp_path / "set.tar",
            {f"train/{name}": content for name, content in train.items()}
            | {f"valid/{name}": content for name, content in valid.items()},
        )
    first, second = open_parts(root)
    assert (len(first), len(second)) == (4, 2)
    assert first.class_names == second.class_names == ["0", "5"]
    assert second.labels.tolist() == [1, 1]
    assert len(open_source(root)) == 4
    assert "those of valid are not" in open_source(root).notes[0]


def test_a_pipe_is_no_shard(tmp_path):
    os.mkfifo(tmp_path / "x.tar")
    with pytest.raises(UserError, match="no image in"):
        open_source(tmp_path)
    with pytest.raises(UserError, match="no folder or file"):
        open_source(tmp_path / "x.tar")


def test_the_name_of_a_shard_says_its_part_whatever_folder_it_lies_in(tmp_path, photos):
    for name in ("train-0", "val-0"):
        write_tar(tmp_path / "dev" / f"{name}.tar", {f"{i}.png": photos[i] for i in range(3)})
    assert [len(part) for part in open_parts(tmp_path / "dev")] == [3, 3]


def test_hidden_folders_are_left_out_and_a_link_may_stand_before_its_file(tmp_path, photos):
    with tarfile.open(tmp_path / "one.tar", "w") as tar:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "b.png"
        tar.addfile(link)
        for name in (".thumbs/a.png", "b.png"):
            info = tarfile.TarInfo(name)
            info.size = len(photos[0])
            tar.addfile(info, io.BytesIO(photos[0]))
    images = load_images(open_source(tmp_path / "one.tar"))
    assert sorted(images.names) == ["a.png", "b.png"]
    assert torch.equal(images.pixels[0], images.pixels[1])
