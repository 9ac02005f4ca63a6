import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from similitude.errors import UserError
from similitude.report import write_report
from similitude.report.attention import build_attention, half_share, heat, spotlight
from similitude.report.read import Attention, read_run


def write_attention(run, count=3, heads=2, side=6, **changes):
    rng = np.random.default_rng(0)
    arrays = {
        "maps": rng.dirichlet(np.ones(side * side), (count, heads))
        .reshape(count, heads, side, side)
        .astype(np.float32),
        "images": rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
        "names": np.array([f"photo {i} <b>.png" for i in range(count)]),
        "classes": np.array(["cat", "", "dog"][:count]),
    }
    arrays = {k: v for k, v in {**arrays, **changes}.items() if v is not None}
    np.savez(run / "attention.npz", **arrays)
    return arrays


def page_of(run):
    return write_report([run]).read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_vit_has_a_section_with_every_head_of_every_image(make_run):
    run = make_run(count=24)
    write_attention(run, heads=4)
    page = page_of(run)
    assert page.count('<section id="attention"') == 1
    assert '<a href="#attention">' in page
    section = page.partition('<section id="attention"')[2].partition("</section>")[0]
    assert section.count('class="look"') == 3 * (2 + 4)
    assert 'aria-label="cat: the image"' in section
    assert 'aria-label="dog: head 4"' in section
    assert "photo 1 &lt;b&gt;.png: all heads" in section  # no class: its name, escaped
    assert "6&nbsp;&times;&nbsp;6 patches" in section
    positions = re.findall(r"background-position: ([\d.]+% [\d.]+%)", section)
    assert len(set(positions)) == 18


@pytest.mark.slow
def test_other_backbones_have_no_such_section(make_run):
    page = page_of(make_run(count=24))
    assert "attention" not in page.partition("</style>")[2].partition("<main")[0]
    assert 'id="attention"' not in page


def decoded(pictures):
    data = base64.b64decode(pictures.sprite.uri.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=float)


def tile(pictures, row, column):
    side = pictures.sprite.side
    return decoded(pictures)[row * side : (row + 1) * side, column * side : (column + 1) * side]


def test_tiles_are_the_image_all_heads_and_each_head():
    maps = np.zeros((2, 2, 4, 4), dtype=np.float32)
    maps[:, 0, 0, 0] = 1.0  # head 1 looks at the upper left patch, head 2 at the lower right one
    maps[:, 1, 3, 3] = 1.0
    images = np.full((2, 48, 48, 3), 200, dtype=np.uint8)
    pictures = build_attention(Attention(maps, images, ["a", "b"], None))
    assert pictures.grid == (4, 4)
    assert (pictures.heads, pictures.sprite.columns, pictures.sprite.rows) == (2, 4, 2)
    assert list(pictures.cells(1)) == [4, 5, 6, 7]
    whole = tile(pictures, 1, 0)
    assert np.abs(whole - 200).max() < 6
    together, first, second = (tile(pictures, 1, column).mean(axis=2) for column in (1, 2, 3))
    assert together[4, 4] > 150
    assert together[-5, -5] > 150
    assert together[48, 48] < 60
    assert first[4, 4] > 150
    assert first[-5, -5] < 30
    assert second[4, 4] < 30
    assert second[-5, -5] > 150


def test_brightness_rises_with_attention():
    ramp = np.linspace(0, 1, 6)[None].repeat(6, axis=0)
    line = np.asarray(heat(ramp).convert("L"), dtype=float)[48]
    assert (np.diff(line) >= -1).all()
    assert line[0] < 20
    assert line[-1] > 220
    lit = np.asarray(spotlight(Image.new("RGB", (96, 96), (200, 100, 50)), ramp), dtype=float)
    assert lit[48, -1] == pytest.approx([200, 100, 50], abs=6)
    assert lit[48, 0] == pytest.approx([32, 16, 8], abs=6)


def test_an_even_gaze_leaves_the_image_as_it_is():
    picture = Image.new("RGB", (96, 96), (200, 100, 50))
    lit = spotlight(picture, np.full((4, 4), 1 / 16))
    assert np.array_equal(np.asarray(lit), np.asarray(picture))


def test_half_share_counts_the_patches_that_hold_half():
    assert half_share(np.full((3, 4, 4), 1 / 16)) == 0.5
    one = np.zeros((1, 4, 4))
    one[0, 2, 1] = 0.6  # the rest goes to the class token
    assert half_share(one) == 1 / 16
    both = np.concatenate([one, np.full((1, 4, 4), 0.01)])
    assert half_share(both) == (1 / 16 + 8 / 16) / 2


@pytest.mark.slow
def test_maps_that_are_not_numbers_have_no_section(make_run):
    run = make_run(count=24)
    write_attention(run, maps=np.full((3, 2, 4, 4), np.nan, dtype=np.float32))
    assert 'id="attention"' not in page_of(run)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"maps": None}, "maps"),
        ({"maps": np.zeros((3, 4, 4))}, "maps are not"),
        ({"names": np.array(["one"])}, "differ in number"),
        ({"classes": np.array(["one"])}, "differ in number"),
    ],
)
def test_damaged_files_are_told(make_run, changes, words):
    run = make_run(count=24)
    write_attention(run, **changes)
    with pytest.raises(UserError, match=words) as error:
        read_run(run)
    assert "attention.npz" in str(error.value)


def test_a_file_that_is_no_archive_is_told(make_run):
    run = make_run(count=24)
    (run / "attention.npz").write_text("not an archive")
    with pytest.raises(UserError, match=r"attention\.npz"):
        read_run(run)
