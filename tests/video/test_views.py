"""A view is some frames in a row through a window; frames and flow of one draw see the same."""

import numpy as np
import pytest
import torch

from similitude.sample import MultiView
from similitude.video.films import Films, Frames
from similitude.video.views import VideoFacts, VideoViewConfig

PLAIN = VideoViewConfig(crop_scale=(1, 1), move=0, flip=0, brightness=0, contrast=0, grey=0)


def films(rows, lengths):
    lengths = np.array(lengths)
    frames = Frames(rows, np.cumsum(lengths) - lengths, lengths, 8.0)
    return Films(frames, torch.arange(len(lengths)))


@pytest.fixture
def rgb():
    rows = np.random.default_rng(0).integers(0, 256, (30, 3, 12, 12)).astype(np.uint8)
    return films(rows, [12, 14, 4])


def facts(shows="frames", size=12, frames=6):
    channels = {"frames": 3, "gray": 1, "flow": 2}[shows]
    return VideoFacts(shows, size, frames, (0.0,) * channels, (1.0,) * channels)


def seen(config, rows, known, epoch=0, index=None):
    index = torch.arange(len(rows)) if index is None else index
    return MultiView(config.on(known))(rows, index, seed=0, epoch=epoch)[0]


def test_without_changes_a_view_is_frames_in_a_row(rgb):
    clips = seen(PLAIN, rgb, facts())
    assert clips.shape == (3, 3, 6, 12, 12)
    rows = torch.from_numpy(rgb.frames.rows).float() / 255
    windows = [rows[start : start + 6].transpose(0, 1) for start in range(7)]
    assert any(torch.allclose(clips[0], w, atol=1e-5) for w in windows)
    short = rows[26:30].transpose(0, 1)
    torch.testing.assert_close(clips[2, :, :4], short, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        clips[2, :, 4:], short[:, -1:].expand(-1, 2, -1, -1), rtol=0, atol=1e-5
    )


def test_a_view_does_not_depend_on_the_others_of_its_batch(rgb):
    config = VideoViewConfig()
    whole = seen(config, rgb, facts())
    alone = Films(rgb.frames, torch.tensor([1]))
    assert torch.equal(seen(config, alone, facts(), index=torch.tensor([1]))[0], whole[1])
    assert not torch.equal(seen(config, rgb, facts(), epoch=1), whole)


def test_frames_and_flow_see_one_place_at_one_time(rgb):
    """Of flow whose number at a place is the brightness there, nothing tells them apart."""
    gray = (rgb.frames.rows[:, :1] // 2).astype(np.uint8)
    as_frames = films(np.repeat(gray, 3, axis=1), [12, 14, 4])
    as_flow = films(
        np.concatenate([np.zeros_like(gray), gray], axis=1).astype(np.int8), [12, 14, 4]
    )
    config = VideoViewConfig(crop_scale=(0.5, 0.5), brightness=0, contrast=0, grey=0)
    frames = seen(config, as_frames, facts())[:, 0] * 255
    flow = seen(config, as_flow, facts("flow"))[:, 1] * 8 * 0.5**0.5  # steps of 1/8, zoomed
    torch.testing.assert_close(frames, flow, rtol=1e-3, atol=1e-2)


def test_a_mirror_turns_flow_to_the_right_into_flow_to_the_left():
    rows = np.zeros((8, 2, 12, 12), np.int8)
    rows[:, 0], rows[:, 1] = 8, 16  # a pixel right, two down
    mirrored = seen(PLAIN.changed(flip=1), films(rows, [8]), facts("flow"))
    assert torch.allclose(mirrored[0, 0], torch.tensor(-1.0))
    assert torch.allclose(mirrored[0, 1], torch.tensor(2.0))


def test_a_window_moves_with_time():
    """Over a ramp from left to right, the mean of what is seen says where the window is."""
    rows = np.broadcast_to(np.arange(0, 240, 20, dtype=np.uint8), (6, 3, 12, 12)).copy()
    still, moving = (
        seen(PLAIN.changed(crop_scale=(0.1, 0.1), move=m), films(rows, [6]), facts())[0, 0]
        for m in (0, 1)
    )
    assert still.mean((1, 2)).std() < 1e-4
    steps = moving.mean((1, 2)).diff()
    assert steps.abs().min() > 1e-3
    assert steps.std() < 0.1 * steps.abs().mean()  # at an even pace


def test_gray_is_the_luminance(rgb):
    gray, frames = seen(PLAIN, rgb, facts("gray")), seen(PLAIN, rgb, facts())
    red, green, blue = frames.unbind(1)
    torch.testing.assert_close(
        gray[:, 0], 0.299 * red + 0.587 * green + 0.114 * blue, rtol=0, atol=1e-5
    )
