"""A folder of short videos."""

from pathlib import Path

import pytest

pytest.importorskip("av", reason="videos need: pip install 'similitude[video]'")
pytest.importorskip("cv2", reason="videos need: pip install 'similitude[video]'")


@pytest.fixture(scope="session")
def films(tmp_path_factory) -> Path:
    """Two classes, slow and fast; each second video has a tone."""
    from video_fixtures import moving_square, write_video

    folder = tmp_path_factory.mktemp("films")
    for name, speed in (("slow", 1), ("fast", 3)):
        (folder / name).mkdir()
        for i in range(12):
            frames = moving_square(speed, seed=i)
            write_video(folder / name / f"{i:02d}.mp4", frames, pitch=(i % 2) * (300 + 50 * i))
    return folder
