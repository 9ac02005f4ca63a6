"""The losses of CPC, through the methods' own code, against Greedy InfoMax and v2's pseudocode."""

from functools import partial

import pytest
import torch
from torch import nn

from builders import START, TinyBackbone
from similitude.images.views import PatchViewConfig
from similitude.losses import cpc_info_nce
from similitude.method import Batch
from similitude.methods import cpc_v1, cpc_v2


class Given(nn.Module):
    """A context network that gives what it was told to give."""

    def __init__(self, contexts):
        super().__init__()
        self.contexts = contexts

    def forward(self, latents):
        return self.contexts


def small_backbone(features):
    backbone = TinyBackbone()
    backbone.num_features = features
    return backbone


@pytest.mark.golden("cpc_infonce_sampled")
def test_cpc_v1_with_the_negatives_that_were_drawn(vectors, close, monkeypatch):
    latents = vectors["z"].permute(0, 2, 3, 1).contiguous().requires_grad_()
    contexts = vectors["c"].permute(0, 2, 3, 1).contiguous().requires_grad_()
    n, rows, columns, features = latents.shape
    config = cpc_v1.CPCV1Config(
        view=PatchViewConfig(patch_size=6),
        prediction_steps=vectors["prediction_steps"],
        skip=vectors["skip_step"],
        num_negatives=vectors["negative_samples"],
        hidden_dim=features,
    )
    method = cpc_v1.CPCV1(small_backbone(features), config).double()
    method.backbone, method.context = nn.Identity(), Given(contexts)
    for predict, w in zip(method.predictor, vectors["W"], strict=True):
        predict.weight.data.copy_(w.T)  # c . (W z) = (W^T c) . z

    def drawn(own, each, total, k, progress):
        """Theirs count rows, then columns, then images; ours images, rows, columns."""
        height = rows - vectors["skip_step"] - k
        index = vectors[f"negative_index_k{k}"]
        place, image = index // n, index % n
        ours = (image * height * columns + place).view(height, columns, n, -1)
        return ours.permute(2, 0, 1, 3).flatten(0, 2)

    monkeypatch.setattr(method, "_draw", drawn)
    with_eps = partial(cpc_info_nce, log_eps=vectors["log_eps"])
    monkeypatch.setattr(cpc_v1, "cpc_info_nce", with_eps)
    loss = method.training_loss(Batch([latents], torch.arange(n)), START).loss
    loss.backward()

    close(loss.item(), vectors["loss"])
    close(latents.grad.permute(0, 3, 1, 2), vectors["grad_z"])
    close(contexts.grad.permute(0, 3, 1, 2), vectors["grad_c"])
    for k, predict in enumerate(method.predictor, start=1):
        close(predict.weight.grad.T, vectors[f"grad_W_k{k}"])


@pytest.mark.golden("cpcv2_infonce")
def test_cpc_v2_against_all_targets_of_the_batch(vectors, close):
    latents = vectors["latents"].requires_grad_()
    contexts = vectors["context"].requires_grad_()
    first, last = vectors["first_offset"], vectors["last_offset"]
    config = cpc_v2.CPCV2Config(
        view=PatchViewConfig(patch_size=6),
        projection_dim=len(vectors["b_target"]),
        prediction_scale=vectors["emb_scale"],
        skip=first,
        prediction_steps=last - first,
        directions=1,
    )
    method = cpc_v2.CPCV2(small_backbone(latents.shape[3]), config).double()
    method.backbone = nn.Identity()
    (heads,) = method.predictor
    heads.context = Given(contexts)
    heads.target.weight.data.copy_(vectors["W_target"])
    heads.target.bias.data.copy_(vectors["b_target"])
    for step, w, b in zip(heads.steps, vectors["W_pred"], vectors["b_pred"], strict=True):
        step.weight.data.copy_(w)
        step.bias.data.copy_(b)

    loss = method.training_loss(Batch([latents], torch.arange(len(latents))), START).loss
    loss.backward()

    close(loss.item(), vectors["loss"])
    close(sum(vectors["loss_terms"]).item(), vectors["loss"])
    close(latents.grad, vectors["grad_latents"])
    close(contexts.grad, vectors["grad_context"])
