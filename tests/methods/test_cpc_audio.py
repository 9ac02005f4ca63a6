"""CPC's loss on sound is eq. 4 of its paper, written again with NumPy."""

import math

import numpy as np
import pytest
import torch

from builders import START
from similitude.audio.networks import Predictive
from similitude.audio.samples import AudioData
from similitude.audio.views import AudioViewConfig
from similitude.errors import UserError
from similitude.method import Batch
from similitude.methods import build_method, make_config
from similitude.methods.cpc_audio import prediction_loss


def made(steps=3, samples=1_600):
    method = build_method(make_config("cpc_audio", {"prediction_steps": steps}), Predictive(8, 6))
    return method.double(), torch.randn(5, 1, samples, dtype=torch.float64)


@torch.no_grad()
def test_a_latent_is_found_among_those_of_other_clips_at_the_same_time():
    method, waves = made()
    found = method.training_loss(Batch([waves], torch.arange(5)), START)
    both = method.backbone.inner(waves).numpy()
    z, c = both[:, :, :8], both[:, :, 8:]
    losses = []
    for k in (1, 2, 3):
        w = method.predictor[k - 1].weight.numpy()
        for t in range(z.shape[1] - k):
            f = np.exp(z[:, t + k] @ (c[:, t] @ w.T).T)  # [whose latent, who predicts]
            losses.append((k, -np.log(f.diagonal() / f.sum(axis=0)).mean()))
    each = [np.mean([loss for step, loss in losses if step == k]) for k in (1, 2, 3)]
    np.testing.assert_allclose(found.loss.item(), np.mean(each), rtol=1e-10)
    np.testing.assert_allclose(found.features.numpy(), c.mean(axis=1), rtol=1e-12)


def test_equal_products_are_at_chance():
    loss = prediction_loss(torch.zeros(5, 4, 8), torch.randn(5, 4, 8))
    assert loss.item() == pytest.approx(math.log(5))


def test_a_cut_that_is_too_short_is_one_sentence():
    method, _ = made()
    with pytest.raises(UserError, match="too short to predict anything"):
        method.training_loss(Batch([torch.randn(5, 1, 200).double()], torch.arange(5)), START)


@pytest.mark.parametrize("seconds", [0.005, 0.0195])  # of the first there is no latent
def test_a_cut_without_two_latents_is_refused_before_it_is_made(seconds):
    facts = AudioData(raw=True).facts(())
    method, _ = made()
    config = AudioViewConfig(seconds=seconds, mix=0, resize=False, standardize=False)
    short = build_method(method.config.changed(view=config), method.backbone)
    least = r"set method.view.seconds to 0.02 at least, 319 samples at 16,000 a second"
    with pytest.raises(UserError, match=least):
        short.views(facts)
    assert method.backbone.inner(torch.randn(1, 1, 319).double()).shape[1] == 2
    assert method.backbone.inner(torch.randn(1, 1, 318).double()).shape[1] == 1
