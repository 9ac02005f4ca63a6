"""The memory bank of MoCo's comparison: keys and negatives from the bank, no second network."""

import copy

import pytest
import torch
from torch.nn import functional as F

from builders import START, TinyBackbone, random_batch
from similitude.losses import bank_softmax
from similitude.method import Batch, Progress
from similitude.methods.memory_bank import MemoryBankConfig, MemoryBankContrast

NEXT = Progress(step=1, total_steps=10, steps_per_epoch=5)


def method(**changes) -> MemoryBankContrast:
    torch.manual_seed(0)
    config = MemoryBankConfig(num_samples=40, num_negatives=6, projection_dim=12, **changes)
    return MemoryBankContrast(TinyBackbone(), config).double()


def batch(seed=0):
    views = random_batch(method(), seed=seed, dtype=torch.float64).views
    return Batch(views, torch.arange(8) * 5)


def query_of(contrast, batch):
    return F.normalize(contrast.projector(contrast.backbone(batch.views[0])), dim=1)


@pytest.mark.parametrize("progress", [START, NEXT])
def test_the_loss_is_softmax_over_the_own_row_and_drawn_ones(progress):
    contrast = method()
    bank = contrast.bank.features.clone()
    drawn = contrast.bank.draw(torch.arange(6), 1, step=progress.step)[:, 0]
    query, index = query_of(contrast, batch()), batch().index
    candidates = torch.cat([index[:, None], drawn.expand(8, -1)], dim=1)
    loss = contrast.training_loss(batch(), progress).loss
    torch.testing.assert_close(loss, bank_softmax(query, bank[candidates], temperature=0.07))


def test_the_dictionary_changes_with_the_step():
    contrast = method()
    losses = [copy.deepcopy(contrast).training_loss(batch(), p).loss for p in (START, NEXT)]
    assert losses[0] != losses[1]


def test_the_average_runs_over_representations():
    contrast = method(ema_decay=0.25)
    old, query, index = contrast.bank.features.clone(), query_of(contrast, batch()), batch().index
    contrast.training_loss(batch(), START)
    moved = F.normalize(0.25 * old[index] + 0.75 * query, dim=1)
    torch.testing.assert_close(contrast.bank.features[index], moved.detach())
    others = [i for i in range(40) if i not in index]
    assert torch.equal(contrast.bank.features[others], old[others])


def test_there_is_one_network_and_one_view():
    contrast = method()
    assert {name.partition(".")[0] for name in contrast.state_dict()} == {
        "backbone",
        "projector",
        "bank",
    }
    assert all(p.requires_grad for p in contrast.parameters())
    assert len(batch().views) == 1


def test_similarity_to_the_key_is_reported_from_before_the_update():
    contrast = method()
    key, query = contrast.bank.features[batch().index], query_of(contrast, batch())
    told = contrast.training_loss(batch(), START).metrics["bank_similarity"]
    torch.testing.assert_close(told, F.cosine_similarity(query, key).mean().detach())
