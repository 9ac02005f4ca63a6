import torch

from builders import TinyBackbone
from similitude.nets import multi_crop_features


class Counting(TinyBackbone):
    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, x):
        self.batches.append((len(x), x.shape[-1]))
        return super().forward(x)


def test_features_stand_view_by_view_after_one_pass_per_size():
    backbone = Counting()
    views = [torch.randn(5, 3, size, size) for size in (12, 12, 8, 8, 8)]
    features = multi_crop_features(backbone, views)
    assert backbone.batches == [(10, 12), (15, 8)]
    for part, view in zip(features.chunk(5), views, strict=True):
        torch.testing.assert_close(part, backbone(view))


def test_sizes_that_alternate_keep_their_order():
    backbone = Counting()
    views = [torch.randn(2, 3, size, size) for size in (8, 12, 8)]
    parts = multi_crop_features(backbone, views).chunk(3)
    assert len(backbone.batches) == 3
    for part, view in zip(parts, views, strict=True):
        torch.testing.assert_close(part, backbone(view))


def test_gradients_reach_the_backbone_from_every_view():
    backbone = TinyBackbone()
    views = [torch.randn(2, 3, size, size, requires_grad=True) for size in (12, 8)]
    multi_crop_features(backbone, views).sum().backward()
    assert all(view.grad is not None and view.grad.any() for view in views)
