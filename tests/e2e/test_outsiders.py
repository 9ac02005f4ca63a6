"""What stands in an export and in recipe.yaml is enough to get the vectors of ``embed``."""

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from PIL import Image

import similitude as sim

pytestmark = pytest.mark.usefixtures("unchecked_runs", "forked_exports")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(32):
        width, height = (100, 80) if i % 2 else (90, 120)
        waves = np.add.outer(np.arange(height) * (1 + i % 5), np.arange(width) * (i % 7))
        pixels = 128 + 80 * np.sin(waves / 20)[..., None] + rng.normal(0, 9, (height, width, 3))
        exif = Image.Exif()
        exif[0x0112] = 6 if i % 3 == 0 else 1
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(folder / f"{i:02d}.jpg", quality=95, exif=exif)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("method", ["simclr", "simsiam"])  # views in [0, 1], and normalized ones
def test_the_exported_python_gives_the_vectors_of_embed(method, photos, tmp_path, monkeypatch):
    fast = ["backbone.base_width=4", "precision=float32", "memory_format=contiguous"]
    run = sim.pretrain(
        photos, method=method, epochs=1, batch_size=8, out=tmp_path / "run", overrides=fast,
        report=False,
    )  # fmt: skip
    embedded = run.embed(photos)
    code = run.export(tmp_path / "weights.safetensors")
    monkeypatch.setitem(sys.modules, "similitude", None)  # whatever imports it fails
    names: dict = {}
    exec(code, names)
    with torch.inference_mode():
        theirs = torch.cat(
            [names["backbone"](names["prepare"](photos / n)) for n in embedded.names]
        )
    assert F.cosine_similarity(theirs, embedded.x).min() > 0.9995
    said = yaml.safe_load((run.path / "recipe.yaml").read_text())["data"]
    assert tuple(said["mean"]) == pytest.approx(run.facts.mean)
    assert tuple(said["std"]) == pytest.approx(run.facts.std)
    assert str(said["canvas_size"]) in code
    assert str(said["image_size"]) in code
