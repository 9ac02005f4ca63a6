"""Ranks and recall on embeddings that are known."""

import pytest
import torch
from torch.nn import functional as F

from similitude.evaluation.retrieval import ranks_of, retrieval, zero_shot


def test_each_finds_itself_first_among_orthogonal_ones():
    found = retrieval(
        "run", ("a", "b"), torch.eye(12), torch.eye(12), torch.arange(12).expand(2, -1)
    )
    assert found.recall == {1: 1.0, 5: 1.0, 10: 1.0}
    assert found.median_rank == 1


def test_a_constant_embedding_finds_nothing():
    same = torch.ones(12, 3) / 3**0.5
    assert ranks_of(same, same, torch.arange(12).expand(2, -1)).tolist() == [12] * 12


def test_the_best_of_several_right_ones_counts():
    candidates = F.normalize(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), dim=1)
    question = torch.tensor([[0.0, 1.0]])
    assert ranks_of(question, candidates, torch.tensor([[0, 0], [0, 2]])).item() == 1
    assert ranks_of(question, candidates, torch.tensor([[0, 0], [0, 1]])).item() == 2


def test_random_embeddings_find_as_chance_does():
    generator = torch.Generator().manual_seed(0)
    a, b = (F.normalize(torch.randn(2000, 64, generator=generator), dim=1) for _ in range(2))
    found = retrieval("run", ("a", "b"), a, b, torch.arange(2000).expand(2, -1))
    assert found.median_rank == pytest.approx(1000, rel=0.1)
    assert found.recall[10] == pytest.approx(0.005, abs=0.005)


def test_classes_are_named_by_the_mean_of_their_descriptions():
    prompts = torch.tensor([[[1.0, 0.0], [0.8, 0.6]], [[0.0, 1.0], [0.0, 1.0]]])
    x = torch.tensor([[1.0, 0.0], [0.5, 0.87], [0.0, 1.0]])
    assert zero_shot(x, prompts, torch.tensor([0, 1, -1])) == 1.0
    assert zero_shot(x, prompts, torch.tensor([1, 1, 0])) == pytest.approx(1 / 3)
