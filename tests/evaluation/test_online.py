from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from similitude.evaluation import KNNProbe, effective_rank, feature_std, uniformity
from similitude.evaluation.online import OnlineMonitor, last_of_each_class
from similitude.images.image_set import ImageSet
from similitude.images.views import (
    Canvases,
    ImageFacts,
    ImageView,
    ImageViewConfig,
    MultiView,
    evaluation_view,
)

CPU = torch.device("cpu")
SPEC = ImageFacts(size=8, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
VIEWS = MultiView(  # not alike: the second one is solarized
    ImageView(ImageViewConfig(), SPEC), ImageView(ImageViewConfig(solarize=1.0), SPEC)
)
SHAPE = {"feature_std", "feature_dim", "effective_rank", "uniformity", "alignment", "copies"}


def backbone() -> nn.Module:
    """In training mode, with layers that compute something else in evaluation mode."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 5)
    )


def monitor(images: ImageSet, *, seed: int = 0, **changes: Any) -> OnlineMonitor:
    return OnlineMonitor(images, SPEC, VIEWS, seed=seed, **changes)


def labels_of(images: ImageSet) -> Tensor:
    assert images.labels is not None
    return images.labels.clone()


def test_the_shape_is_that_of_features_without_augmentation_in_evaluation_mode(
    digit_images: ImageSet,
) -> None:
    network, watching = backbone(), monitor(digit_images, size=200)
    readings = watching.measure(network, CPU)
    network.eval()
    with torch.no_grad():
        x = network(evaluation_view(Canvases(watching.samples.pixels), SPEC))
        u1, u2 = (F.normalize(network(view), dim=1) for view in (watching.view1, watching.view2))
    assert set(readings) == SHAPE | {"knn", "knn_raw", "knn_queries"}
    assert readings["feature_dim"] == 5
    assert readings["feature_std"] == pytest.approx(feature_std(x), rel=1e-5)
    assert readings["effective_rank"] == pytest.approx(effective_rank(x), rel=1e-5)
    assert readings["uniformity"] == pytest.approx(uniformity(x), rel=1e-5)
    distance = (u1 - u2).square().sum(1).mean().item()
    assert distance > 0.01
    assert readings["alignment"] == pytest.approx(distance, rel=1e-4)


def test_a_collapsed_backbone_reads_as_collapsed(digit_images: ImageSet) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 16))
    nn.init.zeros_(network[1].weight)  # type: ignore[arg-type]
    readings = monitor(digit_images).measure(network, CPU)
    assert readings["feature_std"] == pytest.approx(0, abs=1e-6)
    assert readings["effective_rank"] == pytest.approx(1, abs=1e-3)
    assert readings["uniformity"] == pytest.approx(0, abs=1e-6)
    assert readings["alignment"] == pytest.approx(0, abs=1e-6)
    assert readings["knn"] < 0.25  # of ten classes


@pytest.mark.slow
def test_knn_finds_digits_by_their_pixels_and_guesses_where_labels_mean_nothing(
    digit_images: ImageSet,
) -> None:
    """An image that voted for itself would be right even about meaningless labels."""
    assert monitor(digit_images).measure(nn.Flatten(), CPU)["knn"] > 0.8
    shuffled = labels_of(digit_images)[torch.randperm(300)]
    meaningless = replace(digit_images, labels=shuffled)
    assert monitor(meaningless).measure(nn.Flatten(), CPU)["knn"] < 0.25


@pytest.mark.slow
def test_knn_asks_the_last_fifth_of_each_class_about_the_rest(digit_images: ImageSet) -> None:
    labels = labels_of(digit_images)
    labels[::3] = -1  # these neither vote nor are asked
    watching = monitor(replace(digit_images, labels=labels))
    known = watching.samples.subset(labels_of(watching.samples) >= 0)
    assert known.names == [n for n, y in zip(digit_images.names, labels, strict=True) if y >= 0]
    x, y = evaluation_view(Canvases(known.pixels), SPEC).flatten(1), labels_of(known)
    asked = torch.zeros(200, dtype=torch.bool)
    for digit in range(10):
        rows = [i for i in range(200) if y[i] == digit]
        asked[rows[len(rows) - round(0.2 * len(rows)) :]] = True
    expected = KNNProbe(k=20).fit(x[~asked], y[~asked]).score(x[asked], y[asked])
    readings = watching.measure(nn.Flatten(), CPU)
    assert 0.5 < expected < 1
    assert readings["knn"] == expected
    assert readings["knn_queries"] == asked.sum()


def test_of_a_class_the_last_images_are_asked_for_and_never_all() -> None:
    labels = torch.tensor([1, 0, 1, 2, 1, 1, 2, 1])
    expected = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1]).bool()
    assert last_of_each_class(labels, 0.2).equal(expected)
    assert last_of_each_class(labels, 1.0).sum() == 4 + 0 + 1


def test_a_class_for_every_image_leaves_no_one_to_ask(digit_images: ImageSet) -> None:
    readings = monitor(replace(digit_images, labels=torch.arange(300))).measure(nn.Flatten(), CPU)
    assert set(readings) == SHAPE


def test_views_that_are_compared_are_spread_over_all_classes(digit_images: ImageSet) -> None:
    assert digit_images.spread(3).names == ["digit/00000", "digit/00100", "digit/00200"]
    assert digit_images.spread(160).names[-1] == "digit/00298"
    assert digit_images.spread(500).names == digit_images.names


def test_near_copies_beside_each_other_do_not_vote_for_one_another() -> None:
    """Pairs of one picture with meaningless labels: a random part would find half of them."""
    g = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (200, 3, 8, 8), generator=g, dtype=torch.uint8)
    images = ImageSet(
        pictures.repeat_interleave(2, dim=0),
        torch.ones(400),
        [f"{i:03d}" for i in range(400)],
        labels=torch.randint(0, 10, (200,), generator=g).repeat_interleave(2),
    )
    readings = monitor(images).measure(nn.Flatten(), CPU)
    assert readings["knn_raw"] < 0.25
    assert readings["knn"] < 0.25


@pytest.mark.parametrize(
    ("labeled", "classes", "told"),
    [(40, 10, True), (39, 10, False), (0, 10, False), (300, 1, False)],
)
def test_knn_is_told_only_where_the_labels_are_worth_a_number(
    digit_images: ImageSet, labeled: int, classes: int, told: bool
) -> None:
    labels = labels_of(digit_images) % classes
    labels[labeled:] = -1
    readings = monitor(replace(digit_images, labels=labels)).measure(nn.Flatten(), CPU)
    assert set(readings) == (SHAPE | {"knn", "knn_raw", "knn_queries"} if told else SHAPE)


@pytest.mark.slow
def test_labels_add_the_knn_accuracy_and_change_nothing_else(digit_images: ImageSet) -> None:
    network = backbone()
    with_labels = monitor(digit_images, size=100).measure(network, CPU)
    without = monitor(replace(digit_images, labels=None), size=100).measure(network, CPU)
    assert min(with_labels.pop(name) for name in ("knn", "knn_raw", "knn_queries")) > 0
    assert with_labels == without


@pytest.mark.slow
def test_labeled_images_are_watched_first_and_others_fill_up(digit_images: ImageSet) -> None:
    labels = torch.full((300,), -1)
    labels[3::6] = labels_of(digit_images)[3::6]
    images = replace(digit_images, labels=labels)
    all_labeled = set(images.subset(labels >= 0).names)
    assert set(monitor(images, size=50).samples.names) == all_labeled
    assert set(monitor(images, size=20).samples.names) < all_labeled
    more = monitor(images, size=70).samples
    assert len(set(more.names)) == 70
    assert set(more.names) > all_labeled


@pytest.mark.slow
def test_what_is_watched_is_a_fair_sample_that_only_the_seed_decides(
    digit_images: ImageSet,
) -> None:
    in_order = digit_images.subset(labels_of(digit_images).argsort(stable=True))
    watched = monitor(in_order, size=60).samples
    assert len(set(watched.names)) == 60
    assert len(labels_of(watched).unique()) == 10  # a folder is read class by class
    assert monitor(in_order, size=60).samples.names == watched.names
    assert set(monitor(in_order, size=60, seed=1).samples.names) != set(watched.names)
    assert sorted(monitor(in_order, size=301).samples.names) == sorted(in_order.names)


@pytest.mark.slow
def test_alignment_is_of_two_draws_of_the_first_view_that_training_never_makes(
    digit_images: ImageSet,
) -> None:
    panoramas = replace(digit_images, aspect=torch.rand(300) + 1.5)
    watching = monitor(panoramas, size=100, seed=3)
    assert not torch.equal(watching.view1, watching.view2)
    for epoch, view in ((-1, watching.view1), (-2, watching.view2)):
        expected = VIEWS(watching.samples.take(slice(None)), torch.arange(100), seed=3, epoch=epoch)
        assert torch.equal(view, expected[0])


def test_no_more_than_500_images_are_compared_in_two_views(digit_images: ImageSet) -> None:
    watching = monitor(digit_images.subset([*range(300), *range(300)]))
    assert len(watching.samples) == 600
    assert len(watching.view1) == len(watching.view2) == 500


def test_measuring_leaves_no_trace_in_the_training(digit_images: ImageSet) -> None:
    network, watching = backbone(), monitor(digit_images, size=100)
    network[1].eval()  # type: ignore[index]  # a frozen BatchNorm inside a network in training
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random_state = torch.get_rng_state()
    first = watching.measure(network, CPU)
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_state)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    assert watching.measure(network, CPU) == first


@pytest.mark.slow
def test_copies_are_images_that_equal_another_one(digit_images: ImageSet) -> None:
    assert monitor(digit_images).measure(nn.Flatten(), CPU)["copies"] < 0.02
    few = digit_images.subset(torch.arange(200) % 50)
    assert monitor(few).measure(nn.Flatten(), CPU)["copies"] == pytest.approx(0.75)
