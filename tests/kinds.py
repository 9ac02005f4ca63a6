"""A little of every kind of data besides images, and quick settings for it."""

from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

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


def write_kinds(folder: Path) -> dict[str, Path]:
    """Write 24 samples of every kind; where each is."""
    rng = np.random.default_rng(0)
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
