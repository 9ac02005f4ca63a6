"""Short videos: a bright square that moves over noise, some of them with a tone."""

from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av", reason="videos need: pip install 'similitude[video]'")

RATE = 10
SOUND_RATE = 16_000


def write_video(path: Path, frames: np.ndarray, rate: int = RATE, pitch: float = 0) -> None:
    """Frames [T, H, W, 3], with a tone where a pitch is given."""
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        sound = container.add_stream("aac", rate=SOUND_RATE, layout="mono") if pitch else None
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            time = np.arange(len(frames) * SOUND_RATE // rate) / SOUND_RATE
            wave = (0.5 * np.sin(2 * np.pi * pitch * time)).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.sample_rate = SOUND_RATE
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))


def moving_square(speed: int, seed: int = 0, count: int = 20, side: int = 64) -> np.ndarray:
    """A textured square of 24 pixels that goes right by so many pixels a frame."""
    rng = np.random.default_rng(seed)
    back = rng.integers(60, 90, (side, side, 3)).astype(np.uint8)
    texture = rng.integers(120, 255, (24, 24, 3)).astype(np.uint8).repeat(1, 0)
    frames = np.stack([back] * count)
    for i, frame in enumerate(frames):
        left = (4 + speed * i) % (side - 24)
        frame[20:44, left : left + 24] = texture
    return frames
