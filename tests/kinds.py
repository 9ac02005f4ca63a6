"""A little of every kind of data besides images, and quick settings for it."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
from PIL import Image

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


# A package that is not everywhere where tests of a GPU run.
NEEDS = {"audio": "soundfile", "sensors": "soundfile", "video": "av"}


def write_kinds(folder: Path, without: Collection[str] = ()) -> dict[str, Path]:
    """Write 24 samples of every kind but some; where each is."""
    rng = np.random.default_rng(0)
    places = {"graph": folder / "graph.npz", "text": folder / "texts.csv"}
    (folder / "texts.csv").write_text("\n".join(["text", *map(_text, range(24))]))
    edges = rng.integers(0, 24, (2, 120))
    np.savez(folder / "graph.npz", x=rng.random((24, 12), np.float32), edge_index=edges)
    if "audio" not in without:
        places |= _write_sounds(folder, rng)
    if "video" not in without:
        places["video"] = _write_videos(folder / "films", rng)
    return places


def _text(i: int) -> str:
    return f"{'low' if i % 2 else 'high'} tone {i}"


def _write_sounds(folder: Path, rng: np.random.Generator) -> dict[str, Path]:
    """Sounds, and a table of photos, sounds and texts."""
    import soundfile

    for i in range(24):
        time = np.arange(4_000) / 8_000
        tone = np.sin(2 * np.pi * (300 if i % 2 else 900) * time) + 0.1 * rng.normal(size=4_000)
        place = folder / "tones" / ("low" if i % 2 else "high")
        place.mkdir(parents=True, exist_ok=True)
        soundfile.write(place / f"{i:02d}.wav", 0.4 * tone, 8_000)
    rows = []
    for i in range(24):
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(folder / f"{i}.png")
        sound = f"tones/{'low' if i % 2 else 'high'}/{i:02d}.wav" if i % 5 else ""
        rows.append(f"{f'{i}.png' if i % 7 else ''},{sound},{_text(i) if i % 3 else ''}")
    (folder / "sensors.csv").write_text("\n".join(["photo,sound,text", *rows]))
    return {"audio": folder / "tones", "sensors": folder / "sensors.csv"}


def _write_videos(folder: Path, rng: np.random.Generator) -> Path:
    from video_fixtures import write_video

    folder.mkdir()
    for i in range(24):
        frames = rng.integers(0, 256, (10, 32, 32, 3), np.uint8)
        write_video(folder / f"{i}.mp4", frames, pitch=440 * (i % 2))
    return folder
