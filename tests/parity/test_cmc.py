"""CMC's two banks, through the method's own code, against the authors'."""

import pytest
import torch

from builders import TinyBackbone
from similitude.methods.cmc import CMC, CMCConfig


def check_steps(vectors, close, loss):
    l_init, ab_init = vectors["memory_l_init"], vectors["memory_ab_init"]
    config = CMCConfig(
        num_samples=len(l_init),
        projection_dim=l_init.shape[1],
        num_negatives=vectors["K"],
        temperature=vectors["temperature"],
        loss=loss,
    )
    method = CMC(TinyBackbone(), config).double()
    assert method.pairs == [(0, 1), (1, 0)]
    bank_l, bank_ab = method.banks
    bank_l.features.copy_(l_init)
    bank_ab.features.copy_(ab_init)
    for step, index in enumerate(vectors["index"]):
        l = vectors["features_l"][step].requires_grad_()  # noqa: E741
        ab = vectors["features_ab"][step].requires_grad_()
        drawn = vectors["sampled_indices"][step]
        loss_l = method._loss(0, l, bank_ab.features, drawn)
        loss_ab = method._loss(1, ab, bank_l.features, drawn)
        torch.autograd.backward([loss_l, loss_ab])
        bank_l.update(index, l.detach(), vectors["momentum"])
        bank_ab.update(index, ab.detach(), vectors["momentum"])
        close(loss_l.item(), vectors["loss_l"][step].item())
        close(loss_ab.item(), vectors["loss_ab"][step].item())
        close(l.grad, vectors["grad_l"][step])
        close(ab.grad, vectors["grad_ab"][step])
        close(bank_l.features, vectors["memory_l_after"][step])
        close(bank_ab.features, vectors["memory_ab_after"][step])
        if loss == "nce":
            expected = torch.stack([vectors["Z_l"][step], vectors["Z_ab"][step]])
            close(method.normalizers, expected)


@pytest.mark.golden("cmc_nce")
def test_cmc_with_nce(vectors, close):
    check_steps(vectors, close, "nce")


@pytest.mark.golden("cmc_softmax")
def test_cmc_with_softmax(vectors, close):
    check_steps(vectors, close, "softmax")
