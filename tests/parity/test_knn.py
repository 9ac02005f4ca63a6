"""KNNProbe against the published kNN evaluations of MoCo, DINO and InstDisc, in float64."""

import pytest
import torch

from builders import vote_scores
from similitude.evaluation import KNNProbe


def fitted(vectors, k, temperature):
    return KNNProbe(k, temperature).fit(vectors["train_features"], vectors["train_labels"])


@pytest.mark.golden("knn")
@pytest.mark.parametrize("i", [0, 1])
def test_votes_and_predictions_equal_the_published_code(vectors, close, i: int):
    probe = fitted(vectors, vectors["k"], float(vectors["temperatures"][i]))
    x = vectors["test_features"]
    assert len(probe.classes_) == vectors["num_classes"]
    close(vote_scores(probe, x), vectors[f"class_scores_T{i}"])
    assert torch.equal(probe.predict(x), vectors[f"pred_T{i}"])
    top1 = vectors[f"top1_T{i}"]
    top1 = top1 / 100 if top1 > 1 else top1
    assert probe.score(x, vectors["test_labels"]) == pytest.approx(top1, abs=1e-12)


@pytest.mark.golden("knn")
def test_nearest_neighbour(vectors):
    found = fitted(vectors, 1, 0.07).predict(vectors["test_features"])
    assert torch.equal(found, vectors["pred_1nn"])


@pytest.mark.golden("knn")
@pytest.mark.parametrize("i", [0, 1])
def test_float32_agrees_where_the_margin_is_not_tiny(vectors, i: int):
    probe = KNNProbe(vectors["k"], float(vectors["temperatures"][i])).fit(
        vectors["train_features"].float(), vectors["train_labels"]
    )
    found = probe.predict(vectors["test_features"].float())
    clear = vectors[f"relative_margin_T{i}"] > 1e-3
    assert clear.sum() > 50
    assert torch.equal(found[clear], vectors[f"pred_T{i}"][clear])
