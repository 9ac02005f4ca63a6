"""Speech SimCLR is contrast and reconstruction, each alone where the weight says so."""

import numpy as np
import pytest
import torch

from builders import START
from similitude.audio.networks import FrameTransformer
from similitude.losses import nt_xent
from similitude.method import Batch
from similitude.methods import build_method, make_config
from similitude.methods.speech_simclr import error_where


def made(weight):
    torch.manual_seed(0)
    settings = {"reconstruction_weight": weight, "hidden_dim": 16, "projection_dim": 6}
    method = build_method(
        make_config("speech_simclr", settings), FrameTransformer(8, 16, 1, 2, 2, 0.0)
    ).double()
    views = [torch.randn(4, 2, 8, 12, dtype=torch.float64) for _ in range(2)]
    for view in views:  # what is shown, beside what it was: two of six pairs of frames are hidden
        view[:, 0] = view[:, 1]
        view[:, 0, :, 4:8] = 0
    return method, views


def loss_of(weight):
    method, views = made(weight)
    return method.training_loss(Batch(views, torch.arange(4)), START)


def test_the_loss_is_the_weighted_sum_of_both():
    contrast, both, reconstruction = (loss_of(weight) for weight in (0.0, 0.25, 1.0))
    expected = 0.25 * reconstruction.loss + 0.75 * contrast.loss
    torch.testing.assert_close(both.loss, expected)
    torch.testing.assert_close(both.metrics["contrast"], contrast.loss.detach())
    torch.testing.assert_close(both.metrics["reconstruction"], reconstruction.loss.detach())


def test_what_is_contrasted_is_the_mean_over_time():
    method, views = made(0.0)
    z = [method.projector(method.backbone.inner(view[:, :1]).mean(dim=1)) for view in views]
    torch.testing.assert_close(loss_of(0.0).loss, nt_xent(*z, temperature=0.1))


def test_only_hidden_frames_are_reconstructed():
    rng = np.random.default_rng(0)
    found, target = rng.normal(size=(2, 3, 5, 4))
    hidden = rng.random((3, 5)) < 0.4
    expected = np.abs(found - target)[hidden].mean()
    loss = error_where(*(torch.from_numpy(x) for x in (hidden, found, target)))
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    nothing = torch.zeros(3, 5, dtype=torch.bool)
    assert error_where(nothing, torch.from_numpy(found), torch.from_numpy(target)).item() == 0
