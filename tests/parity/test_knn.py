"""KNNProbe against the published kNN evaluations of MoCo, DINO and InstDisc, in float64."""

from pathlib import Path

import numpy as np
import pytest
import torch

from similitude.evaluation import KNNProbe


@pytest.fixture(params=["a", "b"])
def golden(request: pytest.FixtureRequest, golden_dir: Path) -> dict[str, np.ndarray]:
    with np.load(golden_dir / f"knn_{request.param}.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _probe(golden: dict[str, np.ndarray], k: int, temperature: float) -> KNNProbe:
    probe = KNNProbe(k, temperature)
    return probe.fit(
        torch.from_numpy(golden["train_features"]), torch.from_numpy(golden["train_labels"])
    )


@pytest.mark.parametrize("i", [0, 1])
def test_votes_and_predictions_equal_the_published_code(
    golden: dict[str, np.ndarray], i: int
) -> None:
    probe = _probe(golden, int(golden["k"]), float(golden["temperatures"][i]))
    x = torch.from_numpy(golden["test_features"])
    assert len(probe.classes_) == golden["num_classes"]
    np.testing.assert_allclose(
        probe.vote_scores(x).numpy(), golden[f"class_scores_T{i}"], rtol=1e-7, atol=1e-9
    )
    np.testing.assert_array_equal(probe.predict(x).numpy(), golden[f"pred_T{i}"])
    score = probe.score(x, torch.from_numpy(golden["test_labels"]))
    top1 = float(golden[f"top1_T{i}"])
    assert score == pytest.approx(top1 / 100 if top1 > 1 else top1, abs=1e-12)


def test_nearest_neighbour(golden: dict[str, np.ndarray]) -> None:
    found = _probe(golden, 1, 0.07).predict(torch.from_numpy(golden["test_features"]))
    np.testing.assert_array_equal(found.numpy(), golden["pred_1nn"])


@pytest.mark.parametrize("i", [0, 1])
def test_float32_agrees_where_the_margin_is_not_tiny(golden: dict[str, np.ndarray], i: int) -> None:
    probe = KNNProbe(int(golden["k"]), float(golden["temperatures"][i])).fit(
        torch.from_numpy(golden["train_features"]).float(),
        torch.from_numpy(golden["train_labels"]),
    )
    found = probe.predict(torch.from_numpy(golden["test_features"]).float()).numpy()
    clear = golden[f"relative_margin_T{i}"] > 1e-3
    assert clear.sum() > 50
    np.testing.assert_array_equal(found[clear], golden[f"pred_T{i}"][clear])
