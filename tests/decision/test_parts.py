"""What belongs together stays on one side; what cannot be learned or read is told."""

import numpy as np
import pytest
import torch
from PIL import Image

from similitude.decision import parts
from similitude.decision.parts import open_parts
from similitude.errors import UserError


def photos(folder, names):
    """A tiny picture of each name."""
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), i % 256, np.uint8)).save(path)
    return folder


@pytest.fixture
def slides(tmp_path):
    """Two classes, six slides with four crops each, in class folders."""
    names = [f"{c}/{s:02d}_{i}.png" for c in "ab" for s in range(6) for i in range(4)]
    folder = photos(tmp_path / "slides", names)
    rows = [f"{n},{n[0]},slide {n[2:4]}" for n in names]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["file,label,slide", *rows]))
    return folder, table


def slides_of(part):
    return {name[2:4] for name in part.names}


def test_without_groups_a_fifth_of_each_class_is_held_out(slides):
    found = open_parts(slides[0], None, None, None, 0)
    assert len(found.train) == 38
    assert found.test.y.bincount().tolist() == [5, 5]
    assert slides_of(found.train) & slides_of(found.test)
    assert len(np.unique(found.test.units)) == 10  # each alone
    assert found.pool_positions == found.train.positions


def test_a_column_keeps_what_belongs_together_on_one_side(slides):
    found = open_parts(slides[0], None, slides[1], "slide", 0)
    assert not slides_of(found.train) & slides_of(found.test)
    assert len(np.unique(found.test.units)) == len(slides_of(found.test))
    assert set(found.test.y.tolist()) == {0, 1}
    assert f"The test is of {len(slides_of(found.test))} groups" in found.notes[-1]


def test_a_level_of_folders_does_too(tmp_path):
    names = [f"{c}/s{s}-{i}.png" for c in "ab" for s in range(4) for i in range(3)]
    folder = photos(tmp_path / "x", names)
    with pytest.raises(UserError, match="1 levels of folders above every sample"):
        open_parts(folder, None, None, "2", 0)
    with pytest.raises(UserError, match="--group"):  # each class is one group
        open_parts(folder, None, None, "1", 0)


def test_a_column_needs_a_table_that_has_it(slides):
    with pytest.raises(UserError, match="give --labels"):
        open_parts(slides[0], None, None, "slide", 0)
    with pytest.raises(UserError, match="no column 'patient': its columns are file, label, slide"):
        open_parts(slides[0], None, slides[1], "patient", 0)


def test_test_samples_of_a_group_of_the_training_part_are_left_out(tmp_path):
    names = [f"train/{c}/x{i}.png" for c in "ab" for i in range(4)]
    names += [f"test/{c}/y{i}.png" for c in "ab" for i in range(4)]
    with pytest.raises(UserError, match=r"everything in .* belongs to a group of"):
        open_parts(photos(tmp_path / "x", names), None, None, "1", 0)  # the classes


def test_the_test_part_is_the_test_and_classes_have_one_numbering(tmp_path):
    names = [f"train/{c}/{i}.png" for c in "acd" for i in range(3)]
    names += [f"test/{c}/{i}.png" for c in "cd" for i in range(2)]
    found = open_parts(photos(tmp_path / "x", names), None, None, None, 0)
    assert found.class_names == ["a", "c", "d"]
    assert found.test.y.tolist() == [1, 1, 2, 2]
    assert found.pool_positions is None
    assert len(found.pool) == 9


def test_unlabeled_data_is_the_pool_of_labeled_samples_elsewhere(tmp_path):
    flat = photos(tmp_path / "flat", [f"{i}.png" for i in range(9)])
    labeled = photos(tmp_path / "labeled", [f"{c}/{i}.png" for c in "ab" for i in range(10)])
    found = open_parts(flat, labeled, None, None, 0)
    assert found.pool_size == 9
    assert (len(found.train), len(found.test)) == (16, 4)


def test_large_parts_are_cut_class_by_class(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "MOST", 10)
    names = [f"train/{c}/{i:02d}.png" for c, n in (("a", 30), ("b", 15)) for i in range(n)]
    names += [f"test/{c}/{i}.png" for c in "ab" for i in range(4)]
    found = open_parts(photos(tmp_path / "x", names), None, None, None, 0)
    assert found.train.y.bincount().tolist() == [7, 3]
    assert len(found.test) == 8
    assert "10 of 45 labeled training samples are used." in found.notes


def test_splits_differ_by_seed_and_never_else(slides):
    first, again, other = (open_parts(slides[0], None, None, None, seed) for seed in (0, 0, 1))
    assert first.test.names == again.test.names != other.test.names


def test_kept_samples_keep_their_classes_and_groups(slides):
    test = open_parts(slides[0], None, slides[1], "slide", 0).test
    mask = torch.arange(len(test)) % 2 == 0
    kept = test.kept(mask)
    assert kept.names == test.names[::2]
    assert kept.y.tolist() == test.y[::2].tolist()
    assert kept.units.tolist() == test.units[::2].tolist()
