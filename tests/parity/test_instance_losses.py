"""InstDisc, InvaSpread and the memory bank of MoCo's comparison against their authors' code."""

import pytest
import torch

from similitude.losses import bank_softmax, instance_nce, instance_softmax, invariant_spread
from similitude.memory import MemoryBank


def bank_of(features):
    bank = MemoryBank(*features.shape).double()
    bank.features.copy_(features)
    return bank


def check_steps(vectors, close, loss_of):
    """Loss against the bank as it was, then the update, for several batches."""
    bank = bank_of(vectors["memory_init"])
    for step, index in enumerate(vectors["index"]):
        features = vectors["features"][step].requires_grad_()
        loss = loss_of(bank.features.clone(), features, step)
        bank.update(index, features.detach(), vectors["momentum"])
        (gradient,) = torch.autograd.grad(loss, features)
        close(loss.item(), vectors["losses"][step].item())
        close(gradient, vectors["grad_features"][step])
        close(bank.features, vectors["memory_after"][step])


@pytest.mark.golden("instdisc_nce")
def test_instance_nce(vectors, close):
    temperature, num_samples = vectors["temperature"], vectors["n_data"]
    first = vectors["memory_init"][vectors["sampled_indices"][0]]
    similarity = (first * vectors["features"][0][:, None]).sum(dim=2)
    normalizer = num_samples * (similarity / temperature).exp().mean()
    close(normalizer.expand(len(vectors["Z_after"])), vectors["Z_after"])

    def loss_of(bank, features, step):
        rows = bank[vectors["sampled_indices"][step]]
        return instance_nce(
            features,
            rows,
            temperature=temperature,
            normalizer=normalizer.item(),
            num_samples=num_samples,
        )

    check_steps(vectors, close, loss_of)


@pytest.mark.golden("instdisc_softmax")
def test_instance_softmax(vectors, close):
    def loss_of(bank, features, step):
        return instance_softmax(
            features, bank, vectors["index"][step], temperature=vectors["temperature"]
        )

    check_steps(vectors, close, loss_of)


@pytest.mark.golden("memory_bank_softmax")
def test_bank_softmax(vectors, close):
    def loss_of(bank, features, step):
        rows = bank[vectors["sampled_indices"][step]]
        return bank_softmax(features, rows, temperature=vectors["temperature"])

    check_steps(vectors, close, loss_of)


@pytest.mark.golden("invaspread_loss")
def test_invariant_spread(vectors, close):
    z = vectors["features"].requires_grad_()
    loss = invariant_spread(
        *z.chunk(2), temperature=vectors["temperature"], negative_weight=vectors["neg_weight"]
    )
    loss.backward()
    close(loss.item(), vectors["loss"])
    close(z.grad, vectors["grad_features"])
