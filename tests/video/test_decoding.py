"""Frames at a steady rate, flow in pixels, and the sound of a video."""

import io

import numpy as np
import pytest

from similitude.audio.decoding import decode
from similitude.data.files import UnreadableError
from similitude.video.decoding import FLOW_UNIT, decode_flow, decode_frames
from video_fixtures import RATE, moving_square, write_video


@pytest.fixture(scope="module")
def brighter(tmp_path_factory):
    """Frame i is 10 i bright."""
    path = tmp_path_factory.mktemp("decoding") / "v.mp4"
    frames = np.broadcast_to(
        np.arange(20, dtype=np.uint8)[:, None, None, None] * 10, (20, 32, 48, 3)
    )
    write_video(path, np.ascontiguousarray(frames))
    return path


def shown(path, rate):
    with path.open("rb") as file:
        return decode_frames(file, rate, 16)


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(RATE, range(20)), (RATE / 2, range(0, 20, 2)), (2 * RATE, [i // 2 for i in range(39)])],
)
def test_frames_are_those_that_are_shown_at_steady_times(brighter, rate, expected):
    frames = shown(brighter, rate)
    assert frames.shape == (len(expected), 3, 16, 16)
    np.testing.assert_allclose(frames.mean((1, 2, 3)), [10 * i for i in expected], atol=3)


def test_flow_is_in_pixels_of_the_side_that_is_kept(tmp_path):
    write_video(tmp_path / "v.mp4", moving_square(4, count=6, side=128))
    for side, expected in ((128, 4.0), (64, 2.0)):
        with (tmp_path / "v.mp4").open("rb") as file:
            flow = decode_flow(file, RATE, side) * FLOW_UNIT
        assert flow.shape == (6, 2, side, side)
        unit = side // 64
        inside = flow[0, :, 12 * unit : 20 * unit, 5 * unit : 10 * unit]  # where the square is
        assert inside[0].mean() == pytest.approx(expected, rel=0.2)
        assert abs(inside[1].mean()) < 0.3
        np.testing.assert_array_equal(flow[-1], flow[-2])


def test_the_sound_of_a_video_is_a_sound(tmp_path):
    frames = moving_square(1)
    write_video(tmp_path / "tone.mp4", frames, pitch=440)
    write_video(tmp_path / "mute.mp4", frames)
    with (tmp_path / "tone.mp4").open("rb") as file:
        wave = decode(file, 8_000)
    assert abs(len(wave) - 16_000) < 1_000
    spectrum = np.abs(np.fft.rfft(wave[2000:10_000]))
    assert np.argmax(spectrum) == pytest.approx(440, abs=2)
    with (
        (tmp_path / "mute.mp4").open("rb") as file,
        pytest.raises(UnreadableError, match="no sound"),
    ):
        decode(file, 8_000)


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"\0\0\0\x18ftypisom" + b"\0" * 40])
def test_what_is_no_video_is_said(content):
    with pytest.raises(UnreadableError):
        decode_frames(io.BytesIO(content), 8, 16)
