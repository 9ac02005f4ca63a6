"""Views of sounds are what their papers say, and depend on the draw alone."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from similitude.audio.clips import Clips, Waves
from similitude.audio.spectrograms import EPSILON, Mel
from similitude.audio.views import AudioFacts, AudioViewConfig, mix, resize_crop
from similitude.errors import UserError
from similitude.sample import MultiView

MEL = Mel(8_000, 256, 80, 24, 0.0, 4_000.0)
FACTS = AudioFacts(MEL, 0.5, -6.0, 3.0)
PLAIN = AudioViewConfig(seconds=0.3, mix=0, resize=False, standardize=False)
ALL = AudioViewConfig(
    seconds=0.3,
    speed=3,
    reverb=0.5,
    noise=0.5,
    gain_db=6,
    fade=1,
    mask_time=0.3,
    mask_bands=0.3,
    standardize=False,
)


def clips(count=6) -> Clips:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1_000, 6_000, count)  # some shorter than a cut
    samples = rng.integers(-9_000, 9_000, lengths.sum()).astype(np.int16)
    waves = Waves(samples, np.cumsum(lengths) - lengths, lengths, MEL.rate)
    return Clips(waves, torch.arange(count))


def made(config, rows, index=None, **changes):
    views = MultiView(*[config.on(FACTS)] * 2)
    index = rows.index if index is None else index
    return views(rows, index, **{"seed": 1, "epoch": 2, **changes})


def test_a_view_does_not_depend_on_the_rest_of_its_batch():
    rows = clips()
    whole = made(ALL, rows)
    some = torch.tensor([4, 1])
    few = made(ALL, dataclasses.replace(rows, index=some), some)
    for a, b in zip(whole, few, strict=True):
        assert torch.allclose(a[some], b, atol=1e-4)


def test_views_are_alike_for_the_same_draw_and_not_for_another():
    rows = clips()
    first = made(ALL, rows)
    assert all(torch.equal(a, b) for a, b in zip(first, made(ALL, rows), strict=True))
    assert not torch.equal(first[0], first[1])
    for other in ({"seed": 2}, {"epoch": 3}):
        assert not torch.equal(first[0], made(ALL, rows, **other)[0])


def test_a_plain_view_is_a_cut_of_its_clip_and_silence_around_a_short_one():
    rows = clips()
    facts = dataclasses.replace(FACTS, raw=True)
    (view,) = MultiView(PLAIN.on(facts))(rows, rows.index, seed=0, epoch=0)
    assert view.shape == (6, 1, 2_400)
    for i, cut in enumerate(view[:, 0]):
        start, length = int(rows.waves.start[i]), int(rows.waves.length[i])
        clip = torch.from_numpy(rows.waves.samples[start : start + length] / 32768).float()
        longer, shorter = (clip, cut) if length >= 2_400 else (cut, clip)
        places = longer.unfold(0, len(shorter), 1)
        assert any(torch.equal(place, shorter) for place in places)
        if length < 2_400:
            assert cut.count_nonzero() == clip.count_nonzero()


def test_sounds_are_mixed_as_powers():
    x, z = torch.randn(2, 3, 1, 4, 5).unbind(0)
    a = torch.tensor([0.0, 0.25, 0.4])
    found = mix(x, z, a)
    assert torch.allclose(found[0], (x[0].exp() + EPSILON).log())
    b = a[:, None, None, None]
    assert torch.allclose(found.exp(), (1 - b) * x.exp() + b * z.exp() + EPSILON, rtol=1e-5)


def test_what_is_mixed_in_is_any_clip_of_the_data():
    rows = clips()
    view = PLAIN.changed(mix=0.4)
    loud = dataclasses.replace(rows.waves, samples=rows.waves.samples * 2)
    alone = dataclasses.replace(rows, index=torch.tensor([3]))
    index = torch.tensor([3])
    changed = made(view, dataclasses.replace(alone, waves=loud), index)
    assert not torch.equal(made(view, alone, index)[0], changed[0])


def test_a_crop_of_the_whole_is_the_spectrogram_itself():
    x = torch.randn(2, 1, 8, 12)
    u = torch.tensor([[0.0, 0.0, 0.0, 0.5]]).repeat(2, 1)
    assert torch.allclose(resize_crop(x, (1.0, 1.0), u), x, atol=1e-5)


def test_an_inner_crop_is_resized_as_bicubic_interpolation_does():
    x = torch.randn(1, 1, 16, 24)
    u = torch.tensor([[0.0, 0.0, 0.5, 0.5]])
    found = resize_crop(x, (0.5, 0.5), u)
    height, width = 8, 12
    top, left = int(0.5 * (16 - height + 1)), int(0.5 * (36 - width + 1)) - 6
    crop = x[:, :, top : top + height, left : left + width]
    wanted = F.interpolate(crop, (16, 24), mode="bicubic", align_corners=True)
    assert torch.allclose(found[..., 3:-3, 3:-3], wanted[..., 3:-3, 3:-3], atol=1e-4)


def test_beyond_the_sound_the_canvas_is_the_mean_of_the_data():
    x = torch.ones(1, 1, 8, 12)
    found = resize_crop(x, (1.0, 1.0), torch.tensor([[0.0, 0.0, 0.0, 0.0]]))
    assert found[..., :2].abs().max() < 0.2  # a quarter of the canvas is beside it
    assert torch.allclose(found[..., 4:], torch.ones(8), atol=1e-5)


def test_a_batch_is_standardized_over_both_views():
    views = torch.cat(made(PLAIN.changed(standardize=True), clips()))
    assert abs(views.mean()) < 1e-5
    assert abs(views.std() - 1) < 1e-5


def test_a_fader_adds_a_line_over_time():
    rows = clips()
    plain, faded = made(PLAIN, rows)[0], made(PLAIN.changed(fade=1.0), rows)[0]
    line = faded - plain
    assert torch.allclose(line, line[:, :, :1].expand_as(line), atol=1e-4)
    assert torch.allclose(line.diff(dim=3).diff(dim=3), torch.zeros(1), atol=1e-4)
    assert line.abs().max() <= 1.001


def test_noise_has_the_ratio_that_is_asked_for():
    rows = clips()
    facts = dataclasses.replace(FACTS, raw=True)

    def wave(config):
        return MultiView(config.on(facts))(rows, rows.index, seed=0, epoch=0)[0]

    added = wave(PLAIN.changed(noise=1.0, noise_db=(10.0, 10.0))) - wave(PLAIN)
    decibel = 20 * (wave(PLAIN).norm(dim=2) / added.norm(dim=2)).log10()
    assert torch.allclose(decibel, torch.full_like(decibel, 10.0), atol=0.2)


@pytest.mark.parametrize("semitones", [3.0])
def test_speed_moves_pitch_and_stays_within_its_range(semitones):
    time = np.arange(16_000) / MEL.rate
    samples = (9_000 * np.sin(2 * math.pi * 500 * time)).astype(np.int16)
    many = 32
    waves = Waves(samples, np.zeros(many, int), np.full(many, 16_000), MEL.rate)
    rows = Clips(waves, torch.arange(many))
    view = PLAIN.changed(seconds=1.0, speed=semitones).on(dataclasses.replace(FACTS, raw=True))
    (found,) = MultiView(view)(rows, rows.index, seed=0, epoch=0)
    pitch = torch.fft.rfft(found[:, 0]).abs().argmax(dim=1).float()
    moved = 12 * (pitch / 500).log2()
    assert moved.abs().max() <= semitones + 0.1
    assert moved.max() > 1.5
    assert moved.min() < -1.5


def test_hidden_frames_come_with_what_they_were():
    rows = clips()
    view = made(PLAIN.changed(hide_frames=0.5), rows)[0]
    shown, target = view[:, 0], view[:, 1]
    assert torch.equal(target, made(PLAIN, rows)[0][:, 0])
    hidden = (shown != target).any(dim=1)
    assert (shown.transpose(1, 2)[hidden] == 0).all()
    assert 0.3 < hidden.float().mean() < 0.7
    assert torch.equal(hidden[:, 0:-1:2], hidden[:, 1::2])  # in pairs


def test_wave_forms_cannot_be_changed_as_spectrograms():
    with pytest.raises(UserError, match="resize and standardize to false and to 0 mix"):
        AudioViewConfig().on(dataclasses.replace(FACTS, raw=True))
