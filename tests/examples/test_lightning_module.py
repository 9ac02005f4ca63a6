"""The example for projects that live in Lightning does what it says."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

EXAMPLE = Path(__file__).parents[2] / "examples" / "lightning_module.py"


@pytest.mark.slow
def test_a_method_trains_in_lightnings_trainer_with_its_callbacks(tmp_path):
    pytest.importorskip("lightning", reason="the example needs Lightning: pip install lightning")
    torch.manual_seed(0)
    for part, count in (("train", 16), ("test", 4)):
        for number in range(2):
            folder = tmp_path / part / f"class{number}"
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8).numpy()
                Image.fromarray(pixels).save(folder / f"{i}.png")
    out = tmp_path / "run"
    command = [sys.executable, EXAMPLE, tmp_path / "train", tmp_path / "test", "--method", "byol"]
    options = ["--epochs", "1", "--batch-size", "16", "--out", out]
    done = subprocess.run(
        [str(word) for word in [*command, *options]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "kNN" in done.stdout
    weights = torch.load(out / "backbone.pt", weights_only=True)
    assert "conv1.weight" in weights
    assert list((out / "lightning_logs").rglob("best.ckpt"))
