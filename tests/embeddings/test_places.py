"""Embeddings of places, and where they are written."""

import numpy as np
import pytest
import torch

import similitude as sim
from builders import write_photos
from similitude.embeddings import embed_patches
from similitude.errors import UserError


@pytest.mark.slow
def test_the_mean_over_the_places_is_the_embedding(tmp_path):
    photos = write_photos(tmp_path / "photos", 24)
    run = sim.pretrain(
        photos, method="simsiam", epochs=1, batch_size=12, out=tmp_path / "run", report=False,
        overrides=["backbone.base_width=4", "precision=float32", "memory_format=contiguous"],
    )  # fmt: skip
    whole, places = run.embed(photos), run.embed_patches(photos)
    assert places.names == whole.names
    assert places.x.shape == (24, 3, 3, 32)
    torch.testing.assert_close(places.x.mean((1, 2)), whole.x, rtol=1e-4, atol=1e-5)
    assert embed_patches(run.path, photos, tmp_path / "places.npz") == (24, 3, 3, 32)
    with np.load(tmp_path / "places.npz") as found:
        np.testing.assert_array_equal(found["embeddings"], places.x.numpy())


def test_patches_go_into_npz_alone(tmp_path):
    with pytest.raises(UserError, match=r"patches to .*\.npz"):
        embed_patches(tmp_path, tmp_path, tmp_path / "p.parquet")
