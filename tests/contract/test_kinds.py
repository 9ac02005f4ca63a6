"""Every method on every kind of data: it takes steps there, or says in a sentence why it cannot."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

import similitude as sim
from similitude.errors import UserError
from similitude.methods import CONFIGS, METHODS
from similitude.runs.metrics import read_metrics
from video_fixtures import write_video

# Quick settings of each kind: coarse spectrograms and narrow networks.
SETTINGS = {
    "audio": ["data.sample_rate=8000", "data.high=4000", "precision=float32"],
    "graph": ["backbone.width=16", "precision=float32"],
    "sensors": [
        *("data.sensors.sound.sample_rate=8000", "data.sensors.sound.high=4000"),
        *("backbone.towers.photo.network.base_width=4", "backbone.towers.text.network.width=16"),
        "precision=float32",
    ],
    "text": ["backbone.towers.text.network.width=16", "precision=float32"],
    "video": ["data.size=16", "backbone.width=4", "precision=float32"],
}
# Of what one video gives, to methods that compare sensors.
OF_FILMS = [
    *(f"backbone.towers.{name}.network.width=4" for name in ("frames", "flow")),
    *(f"data.sensors.{name}.size=16" for name in ("frames", "flow")),
    "precision=float32",
]
# What a loss needs and a kind does not have. Whatever is not here trains.
REFUSED = (
    {
        (kind, name): "needs views that such data does not have"
        for kind in SETTINGS
        for name in ("cpc_v1", "cpc_v2")  # patches
    }
    | {(kind, "cmc"): "compares colors of images, or the sensors" for kind in ("audio", "graph")}
    | {("text", "cmc"): "cmc compares sensors: give a table that has at least two"}
    | {
        (kind, name): f"{name} compares sensors: give a"
        for kind in ("audio", "graph", "text")
        for name in ("clip", "elo")
    }
    | {
        (kind, name): "takes a folder of sounds and --backbone"
        for kind in ("graph", "text", "sensors", "video")
        for name in ("speech_simclr", "cpc_audio")
    }
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("kinds")
    for i in range(24):
        time = np.arange(4_000) / 8_000
        tone = np.sin(2 * np.pi * (300 if i % 2 else 900) * time) + 0.1 * rng.normal(size=4_000)
        place = folder / "tones" / ("low" if i % 2 else "high")
        place.mkdir(parents=True, exist_ok=True)
        soundfile.write(place / f"{i:02d}.wav", 0.4 * tone, 8_000)
    rows, texts = [], []
    for i in range(24):
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(folder / f"{i}.png")
        sound = f"tones/{'low' if i % 2 else 'high'}/{i:02d}.wav" if i % 5 else ""
        text = f"{'low' if i % 2 else 'high'} tone {i}"
        rows.append(f"{f'{i}.png' if i % 7 else ''},{sound},{text if i % 3 else ''}")
        texts.append(text)
    (folder / "sensors.csv").write_text("\n".join(["photo,sound,text", *rows]))
    (folder / "texts.csv").write_text("\n".join(["text", *texts]))
    (folder / "films").mkdir()
    for i in range(24):
        frames = rng.integers(0, 256, (10, 32, 32, 3), np.uint8)
        write_video(folder / "films" / f"{i}.mp4", frames, pitch=440 * (i % 2))
    edges = rng.integers(0, 24, (2, 120))
    np.savez(folder / "graph.npz", x=rng.random((24, 12), np.float32), edge_index=edges)
    return {
        "audio": folder / "tones",
        "graph": folder / "graph.npz",
        "sensors": folder / "sensors.csv",
        "text": folder / "texts.csv",
        "video": folder / "films",
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_steps_or_says_why_not(data, tmp_path, name, kind):
    compares = kind == "video" and CONFIGS[name].compares_sensors

    def run():
        return sim.pretrain(
            data[kind],
            method=name,
            out=tmp_path / "r",
            epochs=2,
            overrides=OF_FILMS if compares else SETTINGS[kind],
            report=False,
        )

    if (kind, name) in REFUSED:
        with pytest.raises(UserError, match=REFUSED[kind, name]):
            run()
        assert not (tmp_path / "r").exists()
        return
    losses = [r["loss"] for r in read_metrics(run().path / "metrics.csv") if "loss" in r]
    assert losses
    assert all(math.isfinite(loss) for loss in losses)
