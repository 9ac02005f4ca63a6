"""How the backbone computes may not change what it computes."""

import pytest
import torch
from torch import nn

from builders import IMAGE_METHODS, START, TinyBackbone, random_batch, small_config
from similitude.images.backbones import BackboneConfig, build_backbone
from similitude.methods import build_method
from similitude.nets.precision import (
    Arithmetic,
    GradientCache,
    backbones_of,
    computing,
    fused_attentions,
)


def gradients(name, micro_batch_size):
    torch.manual_seed(0)
    method = build_method(small_config(name), TinyBackbone()).double()
    torch.manual_seed(1)
    for parameter in method.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    cache = GradientCache(micro_batch_size) if micro_batch_size else None
    with computing(method, Arithmetic(), cache):
        output = method.training_loss(random_batch(method, dtype=torch.float64), START)
        output.loss.backward()
        if cache is not None:
            cache.backward()
    state = {k: v for k, v in method.state_dict().items() if v.is_floating_point()}
    return output.loss.detach(), {n: p.grad for n, p in method.named_parameters()}, state


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch_size", [1, 3, 4])
@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_micro_batches_give_the_gradient_of_the_whole_batch(name, micro_batch_size):
    loss, grads, state = gradients(name, None)
    small_loss, small_grads, small_state = gradients(name, micro_batch_size)
    torch.testing.assert_close(small_loss, loss, rtol=1e-9, atol=1e-12)
    for parameter, grad in grads.items():
        if grad is None:
            assert small_grads[parameter] is None
        else:
            torch.testing.assert_close(small_grads[parameter], grad, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(small_state, state, rtol=1e-9, atol=1e-12)


class Noisy(nn.Module):
    """Dropout and BatchNorm: what a second pass must repeat, and what it must not count twice."""

    num_features = 8

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(48, 8),
            nn.BatchNorm1d(8),
            nn.Dropout(0.5),
        )

    def forward(self, x):
        return self.layers(x)


def test_the_second_pass_repeats_dropout_and_leaves_running_statistics_alone():
    torch.manual_seed(0)
    method = build_method(small_config("simsiam"), Noisy())
    cache = GradientCache(4)
    seen = []
    with computing(method, Arithmetic(), cache):
        method.training_loss(random_batch(method), START).loss.backward()
        buffers = {n: b.clone() for n, b in method.backbone.named_buffers()}
        after_first_pass = torch.get_rng_state()
        method.backbone.layers.register_forward_hook(lambda m, i, out: seen.append(out.detach()))
        features = [call.features.detach().clone() for call in cache._calls]
        cache.backward()
    torch.testing.assert_close(torch.cat(seen), torch.cat(features))
    assert torch.equal(torch.get_rng_state(), after_first_pass)
    for name, buffer in method.backbone.named_buffers():
        assert torch.equal(buffer, buffers[name]), name


def test_backbones_are_the_online_one_and_its_average():
    method = build_method(small_config("byol"), TinyBackbone())
    assert backbones_of(method) == [method.backbone, method.target_backbone]


def test_heads_and_losses_stay_in_float32_when_the_backbone_does_not():
    method = build_method(small_config("simclr"), TinyBackbone())
    dtypes = []
    method.projector.register_forward_hook(lambda m, i, out: dtypes.append((i[0].dtype, out.dtype)))
    inner = []
    method.backbone.layers[2].register_forward_hook(lambda m, i, out: inner.append(out.dtype))
    with computing(method, Arithmetic(torch.bfloat16)):
        loss = method.training_loss(random_batch(method), START).loss
    assert inner == [torch.bfloat16]
    assert dtypes == [(torch.float32, torch.float32)]
    assert loss.dtype == torch.float32


def test_the_backbone_is_itself_again_afterwards():
    method = build_method(small_config("simclr"), TinyBackbone())
    with computing(method, Arithmetic(torch.bfloat16, channels_last=True)):
        pass
    assert "forward" not in vars(method.backbone)


def test_plain_attention_computes_what_the_fused_kernel_does():
    torch.manual_seed(0)
    config = BackboneConfig(
        name="vit_tiny_patch16_224",
        options={"img_size": 16, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2},
    )
    backbone = build_backbone(config).double()
    images = torch.rand(4, 3, 16, 16, dtype=torch.float64)
    found = []
    for arithmetic in (Arithmetic(), Arithmetic(plain_attention=True)):
        arithmetic.place(backbone)  # for evaluation, which keeps the kernel
        assert len(fused_attentions(backbone)) == 2
        arithmetic.place(backbone, for_training=True)
        backbone.zero_grad()
        features = arithmetic.wrap(backbone.forward)(images)
        features.square().sum().backward()
        found.append([features, *(p.grad for p in backbone.parameters())])
    assert fused_attentions(backbone) == []
    for fused, plain in zip(*found, strict=True):
        torch.testing.assert_close(plain, fused, rtol=1e-9, atol=1e-12)
