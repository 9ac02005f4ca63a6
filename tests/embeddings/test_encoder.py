"""Embeddings in the pipelines of others: scikit-learn's rules, and data sets of Hugging Face."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

import similitude as sim
from similitude.embeddings import ColumnEncoder, SimilitudeEncoder, read_embeddings
from similitude.errors import UserError

pytestmark = pytest.mark.slow

# Those that give an estimator no matrix of numbers, which this one does not take.
CHECKS = [
    estimator_checks.check_estimator_cloneable,
    estimator_checks.check_estimator_repr,
    estimator_checks.check_estimator_tags_renamed,
    estimator_checks.check_valid_tag_types,
    estimator_checks.check_no_attributes_set_in_init,
    estimator_checks.check_get_params_invariance,
    estimator_checks.check_set_params,
    estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
    estimator_checks.check_parameters_default_constructible,
    estimator_checks.check_mixin_order,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_keeps_the_rules_of_estimators(check, unchecked_shapes):
    check("SimilitudeEncoder", SimilitudeEncoder())


@pytest.fixture
def paths(photos) -> list[Path]:
    return sorted(photos.rglob("*.png"))


def test_it_gives_what_embed_writes(start, photos, paths, tmp_path):
    sim.embed(start, photos, tmp_path / "e.npz")
    expected = read_embeddings(tmp_path / "e.npz").x.numpy()
    encoder = SimilitudeEncoder(start)
    np.testing.assert_allclose(encoder.fit_transform(paths), expected, rtol=1e-5, atol=1e-6)
    backwards = encoder.transform([str(path) for path in reversed(paths)])
    np.testing.assert_allclose(backwards[::-1], expected, rtol=1e-5, atol=1e-6)
    assert encoder.transform(paths[:1]).shape == (1, 32)
    assert encoder.get_feature_names_out()[0] == "similitudeencoder0"


def test_whatever_holds_a_picture_is_the_same_picture(start, paths):
    encoder = SimilitudeEncoder(start).fit(paths)
    expected = encoder.transform(paths[:1])
    content = paths[0].read_bytes()
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
    held = ({"bytes": content, "path": None}, {"bytes": None, "path": str(paths[0])})
    for sample in (content, *held, picture):
        np.testing.assert_array_equal(encoder.transform([sample]), expected)


def test_it_is_a_step_of_a_pipeline(start, paths):
    labels = [path.parent.name for path in paths]
    pipeline = make_pipeline(SimilitudeEncoder(start), LogisticRegression())
    assert pipeline.fit(np.array(paths, dtype=str), labels).score(paths, labels) > 0.9
    clone(pipeline).set_output(transform="pandas")


def test_it_says_that_it_is_not_fitted(start, paths):
    with pytest.raises(NotFittedError):
        SimilitudeEncoder(start).transform(paths)


def test_a_sample_that_cannot_be_read_is_named(start, paths):
    paths[3].write_bytes(b"no image")
    with pytest.raises(UserError, match=r"photo006\.png cannot be read"):
        SimilitudeEncoder(start).fit(paths[:2]).transform(paths)


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        ([], "at least one"),
        ("photo.png", "takes a list"),
        (np.zeros((4, 3)), r"not numbers of shape \[4, 3\]"),
        ([3.5], "sample 0 is of type float"),
    ],
)
def test_what_is_no_sample_is_told(start, samples, told):
    with pytest.raises(UserError, match=told):
        SimilitudeEncoder(start).fit(samples)


def test_a_data_set_gets_a_column(start, paths):
    from datasets import Dataset
    from datasets import Image as ImageColumn

    encode = ColumnEncoder(start, "image")
    data = Dataset.from_dict({"image": [str(path) for path in paths]})
    expected = SimilitudeEncoder(start).fit_transform(paths)
    for column in (ImageColumn(), ImageColumn(decode=False)):
        mapped = data.cast_column("image", column).map(encode, batched=True, batch_size=7)
        np.testing.assert_allclose(mapped["embedding"][:], expected, rtol=1e-5, atol=1e-6)
    again = pickle.loads(pickle.dumps(encode))
    assert not hasattr(again.encoder, "embedder_")  # every process opens its own
    with pytest.raises(UserError, match="there is no column 'photo': choose from image"):
        ColumnEncoder(start, "photo")({"image": []})
