import base64
import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from similitude.report import read_run
from similitude.report.gallery import (
    Gallery,
    build_gallery,
    choose_queries,
    make_sprite,
    nearest,
    project,
    same_class,
    views_uri,
)
from similitude.report.read import Embedding


def embedding(count: int, *, width: int = 16, side: int = 8, labels=None) -> Embedding:
    rng = np.random.default_rng(1)
    return Embedding(
        features=rng.normal(size=(count, width)).astype(np.float32),
        thumbnails=rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8),
        names=[str(i) for i in range(count)],
        labels=labels,
        class_names=None,
        spectrum=np.ones(width),
    )


def decode(uri: str) -> np.ndarray:
    head, data = uri.split(",")
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def test_neighbors_are_those_of_the_naive_cosine():
    x = np.random.default_rng(0).normal(size=(40, 5)) * np.arange(1, 41)[:, None]
    found = nearest(x, 8)
    for i in range(40):
        cosine = [x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]) for j in range(40)]
        cosine[i] = -2
        assert found[i].tolist() == np.argsort(cosine)[::-1][:8].tolist()


def test_every_thumbnail_is_in_its_cell():
    colors = np.random.default_rng(0).integers(0, 256, (11, 3), dtype=np.uint8)
    sprite = make_sprite(np.broadcast_to(colors[:, None, None], (11, 8, 8, 3)).copy())
    sheet = decode(sprite.uri)
    assert sheet.shape == (sprite.rows * 8, sprite.columns * 8, 3)
    for i, color in enumerate(colors):
        x, y = (float(part.rstrip("%")) for part in sprite.position(i).split())
        # CSS: at p %, the point p % into the sheet lies p % into the box.
        left = round(x / 100 * (sheet.shape[1] - 8))
        top = round(y / 100 * (sheet.shape[0] - 8))
        cell = sheet[top : top + 8, left : left + 8].astype(int)
        assert abs(cell - color).max() <= 8


def test_a_thumbnail_of_odd_size_fills_whole_jpeg_blocks():
    thumbnails = np.full((3, 28, 28, 3), 200, np.uint8)
    sprite = make_sprite(thumbnails)
    assert sprite.side == 32
    assert abs(decode(sprite.uri)[:32, :32].astype(int) - 200).max() <= 8


def test_the_sprite_stays_below_its_limit():
    noise = embedding(300, side=32).thumbnails
    limit = 300_000
    generous, tight = make_sprite(noise, 10**8), make_sprite(noise, limit)
    assert len(base64.b64decode(generous.uri.split(",")[1])) > limit
    assert len(base64.b64decode(tight.uri.split(",")[1])) <= limit


def test_few_images_are_placed_by_pca():
    x = np.random.default_rng(0).normal(size=(20, 6)) * [9, 5, 1, 1, 1, 1]
    plane, method = project(x)
    assert method == "PCA"
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    np.testing.assert_allclose(abs(plane), abs(u[:, :2] * s[:2]), rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_the_map_keeps_groups_apart_and_repeats_itself():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 0.1, (30, 12)) + 3 * rng.normal(size=12) for _ in range(3)])
    plane, method = project(x)
    assert method == "t-SNE"
    np.testing.assert_array_equal(plane, project(x)[0])
    labels = np.repeat(np.arange(3), 30)
    distances = np.linalg.norm(plane[:, None] - plane[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert (labels[distances.argmin(1)] == labels).all()


def test_one_remaining_direction_still_gives_a_map():
    x = np.outer(np.linspace(-1, 1, 40), np.ones(8))
    plane, _ = project(x)
    assert np.isfinite(plane).all()
    assert plane.std() > 0


def test_a_collapsed_embedding_gives_a_sentence_not_a_map():
    collapsed = dataclasses.replace(embedding(40), features=np.full((40, 16), 0.3, np.float32))
    assert "same embedding" in str(build_gallery(collapsed))


def test_zero_features_give_a_sentence():
    assert "same embedding" in str(
        build_gallery(dataclasses.replace(embedding(40), features=np.zeros((40, 16), np.float32)))
    )


def test_features_that_are_not_finite_give_a_sentence():
    broken = embedding(40)
    broken.features[3, 2] = np.nan
    assert "not finite" in str(build_gallery(broken))


def test_too_few_images_give_a_sentence():
    assert "fewer than three" in str(build_gallery(embedding(2)))


def test_agreement_counts_neighbors_of_the_same_class():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 12)
    features = np.where(labels[:, None] == 0, [5.0, 0], [0, 5]) + rng.normal(0, 0.01, (24, 2))
    separated = dataclasses.replace(
        embedding(24, labels=labels), features=features.astype(np.float32)
    )
    gallery = build_gallery(separated)
    assert isinstance(gallery, Gallery)
    assert gallery.agreement == 1.0
    assert gallery.chance_agreement == pytest.approx(11 / 23)
    assert gallery.pixel_agreement is not None
    assert 0.2 < gallery.pixel_agreement < 0.8
    same = same_class(gallery, gallery.queries[0])
    assert same is not None
    assert same.all()


def test_images_without_a_label_are_no_class():
    """Not the last one, as an index of -1 would have it; agreement is among the others."""
    labels = np.array([0, 1, 2] * 12)
    features = np.eye(3)[labels] + 1e-3 * np.random.default_rng(0).normal(size=(36, 3))
    labels[::5] = -1
    partly = dataclasses.replace(
        embedding(36, labels=labels), features=features.astype(np.float32), class_names=list("abc")
    )
    gallery = build_gallery(partly)
    assert isinstance(gallery, Gallery)
    assert gallery.classes[:3] == ["no label", "b", "c"]
    assert gallery.agreement == 1
    assert same_class(gallery, 0) is None
    assert same_class(gallery, 1) is not None
    nothing = build_gallery(embedding(24, labels=np.full(24, -1)))
    assert isinstance(nothing, Gallery)
    assert nothing.labels is None
    assert nothing.agreement is None


def test_queries_take_turns_over_the_classes():
    labels = np.array([0] * 90 + list(range(1, 12)))
    queries = choose_queries(len(labels), labels)
    assert sorted(labels[queries]) == list(range(12))


def test_without_labels_queries_differ_and_repeat():
    queries = choose_queries(50, None)
    assert len(set(queries)) == 12
    assert queries == choose_queries(50, None)


@pytest.mark.slow
def test_a_large_contact_sheet_is_made_smaller(make_run, tmp_path):
    run = read_run(make_run(count=24))
    assert run.views is not None
    assert views_uri(run.views)[1:] == (96, 64)
    noise = np.random.default_rng(0).integers(0, 256, (900, 2000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "big.png")
    uri, width, height = views_uri(tmp_path / "big.png")
    assert (width, height) == (1600, 720)
    assert len(uri) < 900 * 2000
