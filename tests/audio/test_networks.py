"""Networks whose methods need an output for every frame."""

import torch

from similitude.audio.networks import FrameTransformer, Predictive
from similitude.method import Batch, Progress
from similitude.methods import build_method, make_config
from similitude.nets.precision import Arithmetic, GradientCache, computing

BATCHES = {
    "speech_simclr": (lambda: FrameTransformer(8, 16, 1, 2, 2, 0.0), (2, 8, 12)),
    "cpc_audio": (lambda: Predictive(8, 16), (1, 1600)),
}


def gradients(name, micro_batch_size=None, dtype=torch.float64):
    network, shape = BATCHES[name]
    torch.manual_seed(0)
    method = build_method(make_config(name, {}), network()).to(dtype)
    views = [torch.randn(8, *shape, dtype=dtype) for _ in range(2)]
    if name == "speech_simclr":
        for view in views:
            view[:, 0] = view[:, 1]
            view[:, 0, :, 2:4] = 0
    cache = None if micro_batch_size is None else GradientCache(micro_batch_size)
    arithmetic = Arithmetic(torch.bfloat16 if dtype == torch.float32 else torch.float32)
    with computing(method, arithmetic, cache):
        loss = method.training_loss(Batch(views, torch.arange(8)), Progress(0, 10, 5)).loss
        loss.backward()
        if cache is not None:
            assert cache._calls, "no pass through the backbone was recorded"
            cache.backward()
    return {n: p.grad for n, p in method.named_parameters() if p.grad is not None}


def test_micro_batches_are_one_batch_where_frames_are_predicted():
    for name in BATCHES:
        torch.testing.assert_close(gradients(name, 2), gradients(name), rtol=1e-9, atol=1e-12)


def test_the_precision_of_a_recipe_reaches_them():
    for name in BATCHES:
        network, shape = BATCHES[name]
        method = build_method(make_config(name, {}), network())
        with computing(method, Arithmetic(torch.bfloat16)):
            found = method.backbone.inner(torch.randn(2, *shape))
        rounded = found.bfloat16().float()
        torch.testing.assert_close(found, rounded, rtol=0, atol=0)


def test_a_context_knows_nothing_of_what_comes_later():
    network = Predictive(8, 16).eval()
    wave = torch.randn(1, 1, 3200)
    other = wave.clone()
    other[..., 1600:] += 1
    first, second = (network.inner(x) for x in (wave, other))
    torch.testing.assert_close(first[:, :8], second[:, :8], rtol=0, atol=0)
    assert not torch.equal(first[:, 12:], second[:, 12:])
