"""Contexts see no row below, and a backbone of patches is one of images."""

import pytest
import torch
from torch import nn

from similitude.images.views import cut_patches
from similitude.nets import GatedContext, PatchBackbone, ResidualContext

CONTEXTS = [lambda layers: GatedContext(5, 6, layers), lambda layers: ResidualContext(5, 6, layers)]


def what_is_seen(context, row, column):
    """Which latents a context depends on: [rows, columns]."""
    latents = torch.randn(1, 7, 9, 5, dtype=torch.float64, requires_grad=True)
    context.double()(latents)[0, row, column].sum().backward()
    return latents.grad[0].abs().sum(dim=2) > 0


@pytest.mark.slow
@pytest.mark.parametrize("build", CONTEXTS)
@pytest.mark.parametrize("row", range(7))
def test_no_context_sees_a_row_below(build, row):
    torch.manual_seed(0)
    seen = torch.stack([what_is_seen(build(4), row, 4) for _ in range(10)]).any(dim=0)
    assert not seen[row + 1 :].any()
    assert seen[row, 4]


@pytest.mark.slow
@pytest.mark.parametrize("build", CONTEXTS)
def test_every_layer_sees_one_more_row_and_a_wider_part_of_it(build):
    torch.manual_seed(0)
    for layers in (0, 1, 3):
        seen = torch.stack([what_is_seen(build(layers), 5, 4) for _ in range(20)]).any(dim=0)
        assert seen.any(dim=1).nonzero().flatten().tolist() == list(range(5 - layers, 6))
        columns = seen.any(dim=0).nonzero().flatten().tolist()
        assert columns == list(range(4 - layers, 5 + layers))


class Mean(nn.Module):
    num_features = 3

    def forward(self, x):
        return x.mean(dim=(2, 3))


def test_an_image_is_the_mean_of_its_patches():
    backbone = PatchBackbone(Mean(), lambda images: cut_patches(images, 4, 3))
    images = torch.randn(2, 3, 10, 10)
    patches = cut_patches(images, 4, 3)
    latents = backbone(patches)
    assert latents.shape == (2, 3, 3, 3)
    torch.testing.assert_close(latents[1, 2, 0], images[1, :, 6:10, 0:4].mean(dim=(1, 2)))
    torch.testing.assert_close(backbone(images), latents.mean(dim=(1, 2)))
    assert backbone.num_features == 3
