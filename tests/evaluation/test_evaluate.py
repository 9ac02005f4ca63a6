import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from scipy import stats
from torch import nn

from similitude.errors import UserError
from similitude.evaluation import (
    Entrant,
    Features,
    Score,
    ScoreTable,
    centered,
    check_protocols,
    evaluate_entrants,
    extract_features,
    probe_features,
    read_scores,
)
from similitude.evaluation.comparison import (
    PRETRAINED_BACKBONE,
    RANDOM_BACKBONE,
    RAW_PIXELS,
    Difference,
    difference_of_draws,
    student_95,
)
from similitude.evaluation.few_labels import few_label_accuracies
from similitude.evaluation.knn import KNNProbe
from similitude.evaluation.scores import mean_score
from similitude.images.image_set import ImageSet
from similitude.images.views.image import ImageFacts

OPEN = Difference(0.01, -0.01, 0.03)
SPEC = ImageFacts(size=8, mean=(0.3, 0.3, 0.3), std=(0.3, 0.3, 0.3))


def constant_backbone() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.Flatten()).apply(
        lambda m: nn.init.zeros_(m.weight) if isinstance(m, nn.Linear) else None
    )


def scored(
    backbone: nn.Module,
    train: ImageSet,
    test: ImageSet | None,
    facts: ImageFacts = SPEC,
    *,
    random_backbone: nn.Module | None = None,
    raw_pixels: bool = True,
    **options: Any,
) -> ScoreTable:
    """The table of a backbone beside raw pixels and, if there is one, a random backbone."""
    networks = {RANDOM_BACKBONE: random_backbone, PRETRAINED_BACKBONE: backbone}
    rows = [Entrant(name, network, facts) for name, network in networks.items() if network]
    pixels = (train, test) if raw_pixels else None
    return evaluate_entrants(rows, (train, test), data="digits", pixels=pixels, **options)


def table(**changes: object) -> ScoreTable:
    rows = {
        "raw pixels": {"knn": Score(0.859), "linear_5": Score(0.60, 0.59, 0.61, 10)},
        "random backbone": {"knn": Score(0.70), "linear_5": Score(0.50, 0.48, 0.52, 10)},
        "pretrained backbone": {"knn": Score(0.84), "linear_5": Score(0.67, 0.66, 0.68, 10)},
    }
    value = ScoreTable("fashion-mnist", 60_000, 10_000, 10, ["knn", "linear_5"], rows)
    return replace(value, **changes)  # type: ignore[arg-type]


def text_of(value: ScoreTable, *, styled: bool = False) -> str:
    out = io.StringIO()
    Console(file=out, width=120, force_terminal=styled).print(value.render())
    return out.getvalue()


@pytest.mark.slow
def test_probes_give_the_columns_that_are_asked_for(digits: tuple[Features, Features]) -> None:
    train, test = digits
    seen: list[str] = []
    found = probe_features(train, test, ("few", "knn"), draws=2, on_progress=seen.append)
    assert list(found) == ["knn", "linear_1", "linear_5", "linear_10", "linear_100"]
    assert seen == ["knn", "few"]
    assert found["knn"].score.draws == 1
    assert found["linear_5"].score.draws == 2
    assert list(probe_features(train, test, ("linear",))) == ["linear"]


def test_knn_uses_fewer_neighbors_where_there_are_fewer(digits: tuple[Features, Features]) -> None:
    train, test = digits
    few = train.subset(range(12))
    assert 0.2 < probe_features(few, test, ("knn",), k=20)["knn"].score.mean < 0.8


def test_unknown_protocols_are_told_with_the_nearest_names() -> None:
    assert check_protocols(("few", "knn", "knn")) == ("knn", "few")
    with pytest.raises(UserError, match="'linaer': did you mean linear"):
        check_protocols(("linaer",))
    with pytest.raises(UserError, match="choose from knn, linear, few"):
        check_protocols(("xyz",))
    with pytest.raises(UserError, match="no protocol"):
        check_protocols(())


@pytest.mark.slow
def test_the_table_of_a_backbone_beside_its_baselines(digit_images: ImageSet) -> None:
    train, test = digit_images.subset(range(200)), digit_images.subset(range(200, 300))
    steps: list[str] = []
    found = scored(
        nn.Flatten(),
        train,
        test,
        random_backbone=constant_backbone(),
        draws=2,
        on_progress=steps.append,
    )
    assert list(found.rows) == ["raw pixels", "random backbone", "pretrained backbone"]
    assert (found.num_train, found.num_test, found.num_classes) == (200, 100, 10)
    assert found.columns == ["knn", "linear", "linear_1", "linear_5", "linear_10"]
    assert any("100 labels per class" in note for note in found.notes)
    assert found.rows["raw pixels"]["linear"].mean > 0.8
    assert found.rows["random backbone"]["linear"].mean < 0.2
    assert list(found.label_free) == ["random backbone", "pretrained backbone"]
    assert found.label_free["pretrained backbone"]["effective_rank"] > 5
    assert "alpha_req" not in found.label_free["random backbone"]  # it is constant
    assert ScoreTable.from_json(found.to_json()) == found
    assert "without labels" in text_of(found)
    assert "raw pixels: features" in steps
    assert "pretrained backbone: few" in steps


@pytest.mark.slow
def test_raw_pixels_do_not_depend_on_the_backbone_and_its_images(digit_images: ImageSet) -> None:
    train, test = digit_images.subset(range(200)), digit_images.subset(range(200, 300))
    found = [
        scored(constant_backbone(), train, test, spec, draws=2)
        for spec in (SPEC, ImageFacts(8, (0.0, 0.1, 0.9), (0.1, 0.5, 1.0)))
    ]
    assert found[0].rows["raw pixels"] == found[1].rows["raw pixels"]


def test_pixels_are_centered_by_the_training_images_alone(
    digits: tuple[Features, Features],
) -> None:
    train, test = digits
    a, b = centered(train, test)
    torch.testing.assert_close(a.x.mean(0), torch.zeros(64), rtol=0, atol=1e-5)
    torch.testing.assert_close(b.x, test.x - train.x.mean(0))
    assert (a.y is train.y, b.names) == (True, test.names)
    # What all pixels have in common does not count: they are never negative.
    shifted = [Features(f.x + 8, f.y, f.names) for f in (train, test)]
    torch.testing.assert_close(centered(*shifted)[1].x, b.x, rtol=0, atol=1e-4)


def test_each_row_is_scored_on_images_of_its_own(digit_images: ImageSet) -> None:
    """A published network wants other pixels than the run, and is given them at its turn."""
    train, test = digit_images.subset(range(200)), digit_images.subset(range(200, 300))
    loaded: list[str] = []

    class Seen(nn.Flatten):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            loaded.append(f"{tuple(x.shape[1:])} {x.amax():.2f}")
            return super().forward(x)

    def large() -> tuple[ImageSet, ImageSet]:
        loaded.append("load")
        big = [p.pixels[:].repeat_interleave(2, 2).repeat_interleave(2, 3) for p in (train, test)]
        return replace(train, pixels=big[0]), replace(test, pixels=big[1])

    rows = [
        Entrant("timm:x", Seen(), ImageFacts(16, (0.5,) * 3, (0.25,) * 3), large),
        Entrant(PRETRAINED_BACKBONE, Seen(), ImageFacts(8, (0.0,) * 3, (1.0,) * 3)),
    ]
    found = evaluate_entrants(rows, (train, test), data="digits", protocols=("knn",))
    assert list(found.rows) == ["timm:x", "pretrained backbone"]
    assert loaded == ["load", *["(3, 16, 16) 1.76"] * 2, *["(3, 8, 8) 0.94"] * 2]


def test_rows_that_cannot_be_told_apart_are_refused(digit_images: ImageSet) -> None:
    rows = [Entrant("a", nn.Flatten(), SPEC)] * 2
    with pytest.raises(UserError, match="two rows of the table would be called 'a'"):
        evaluate_entrants(rows, (digit_images, None), data="digits")
    rows = [Entrant(RAW_PIXELS, nn.Flatten(), SPEC)]
    with pytest.raises(UserError, match="'raw pixels'"):
        evaluate_entrants(rows, (digit_images, None), data="digits")


@pytest.mark.slow
def test_differences_are_taken_image_by_image_and_draw_by_draw(digit_images: ImageSet) -> None:
    train, test = digit_images.subset(range(200)), digit_images.subset(range(200, 300))
    found = scored(
        nn.Flatten(),
        train,
        test,
        random_backbone=nn.Sequential(nn.AvgPool2d(4), nn.Flatten()),
        raw_pixels=False,
        protocols=("knn", "few"),
        draws=3,
    )
    parts = []
    for pool in (nn.Identity(), nn.AvgPool2d(4)):
        network = nn.Sequential(pool, nn.Flatten())
        parts.append([extract_features(network, part, SPEC) for part in (train, test)])
    right = []
    for bank, queries in parts:
        assert bank.y is not None
        predicted = KNNProbe(20).fit(bank.x, bank.y).predict(queries.x)
        right.append((predicted == queries.y).double())
    each = right[0] - right[1]
    difference = found.differences["random backbone"]["knn"]
    assert difference.mean == pytest.approx(each.mean().item())
    assert difference.margin == pytest.approx(1.96 * each.std().item() / 10, rel=0.05)
    draws = [few_label_accuracies(*pair, (5,), draws=3)[5] for pair in parts]
    assert found.differences["random backbone"]["linear_5"] == difference_of_draws(*draws)
    for column, difference in found.differences["random backbone"].items():
        ours, theirs = (
            found.rows[r][column].mean for r in ("pretrained backbone", "random backbone")
        )
        assert difference.mean == pytest.approx(ours - theirs)


def test_rows_of_other_test_images_are_not_paired(digit_images: ImageSet) -> None:
    """A file may be readable at one size of canvases only."""
    train, test = digit_images.subset(range(200)), digit_images.subset(range(200, 300))
    rows = [
        Entrant("a", nn.Flatten(), SPEC, lambda: (train, test.subset(range(99)))),
        Entrant("b", nn.Flatten(), SPEC),
        Entrant(PRETRAINED_BACKBONE, nn.Flatten(), SPEC),
    ]
    found = evaluate_entrants(rows, (train, test), data="digits", protocols=("knn",))
    assert list(found.differences) == ["b"]
    assert found.num_test == 100


@pytest.mark.slow
def test_an_outcome_gives_the_score(digits: tuple[Features, Features]) -> None:
    train, test = digits
    found = probe_features(train, test, ("knn", "few"), draws=2)
    assert found["knn"].score == Score(KNNProbe(20).fit(train.x, train.y).score(test.x, test.y))
    for k, accuracies in few_label_accuracies(train, test, draws=2).items():
        assert found[f"linear_{k}"].score == mean_score(accuracies)


def test_without_a_test_part_a_fifth_is_held_out(digit_images: ImageSet) -> None:
    found = scored(nn.Flatten(), digit_images, None, protocols=("knn",))
    assert found.num_train + found.num_test == 300
    assert found.num_test == pytest.approx(60, abs=5)
    assert "20% of the labeled samples were held out" in found.notes[0]
    assert list(found.rows) == ["raw pixels", "pretrained backbone"]


def test_the_last_classes_may_lack_images_in_one_part(digit_images: ImageSet) -> None:
    """An array's classes are numbers up to its own largest one."""
    assert digit_images.labels is not None
    few = digit_images.subset(digit_images.labels < 7)
    few = replace(few, class_names=[str(i) for i in range(7)])
    all_ten = replace(digit_images, class_names=[str(i) for i in range(10)])
    for train, test in ((all_ten, few), (few, all_ten)):
        found = scored(nn.Flatten(), train, test, protocols=("knn",))
        assert found.num_test == len(test)


def test_parts_with_other_classes_are_refused(digit_images: ImageSet) -> None:
    other = replace(digit_images, class_names=[f"class {i}" for i in range(10)])
    with pytest.raises(UserError, match="must be the same, in the same order"):
        scored(nn.Flatten(), digit_images, other)


def test_images_without_labels_are_refused_in_a_sentence(digit_images: ImageSet) -> None:
    flat = replace(digit_images, labels=None, class_names=None)
    with pytest.raises(UserError, match="needs labels"):
        scored(nn.Flatten(), flat, None)


def test_json_there_and_back() -> None:
    value = table(
        seconds=12.5,
        notes=["A note."],
        weights={"pretrained backbone": "00c0ffee"},
        differences={"raw pixels": {"knn": OPEN, "linear_5": Difference(0.07)}},
    )
    text = json.dumps(value.to_json())
    assert ScoreTable.from_json(text) == value
    assert ScoreTable.from_json(json.loads(text)) == value
    row = json.loads(text)["rows"][0]
    assert row["name"] == "raw pixels"
    assert row["scores"]["knn"] == {"mean": 0.859, "low": None, "high": None, "draws": 1}


def test_a_table_of_an_earlier_version_is_read_without_differences() -> None:
    value = table().to_json()
    del value["differences"], value["weights"]
    value["titles"] = {"knn": ["kNN", "kNN", "vote of the nearest training images"]}
    assert ScoreTable.from_json(value) == table()


def test_columns_stay_where_a_protocol_is_not_asked_for() -> None:
    both = table(key="a", notes=["Of both.", "Of few."])
    again = {name: {"knn": Score(0.5), "linear": Score(0.6)} for name in both.rows}
    later = table(key="a", columns=["knn", "linear"], rows=again, notes=["Of both."])
    whole = later.completed_by(both)
    assert whole.columns == ["knn", "linear", "linear_5"]
    for name, row in whole.rows.items():
        assert row == {**again[name], "linear_5": both.rows[name]["linear_5"]}
    assert whole.notes == ["Of both.", "Of few."]


def test_rows_that_are_not_asked_for_again_stay_in_their_place() -> None:
    both = table(key="a", weights={"timm:a": "1", "pretrained backbone": "0"})
    again = {name: {"knn": Score(0.5)} for name in both.rows}
    rows = {**both.rows, "timm:a": {"knn": Score(0.4)}}
    differences = {"timm:a": {"knn": Difference(0.1, 0.0, 0.2)}}
    earlier = replace(both, rows=rows, differences=differences)
    later = table(key="a", columns=["knn"], rows=again, weights={"pretrained backbone": "0"})
    whole = later.completed_by(earlier)
    assert list(whole.rows) == ["raw pixels", "random backbone", "timm:a", "pretrained backbone"]
    assert whole.rows["timm:a"] == {"knn": Score(0.4)}
    assert whole.differences == differences
    assert whole.weights == both.weights


def test_columns_of_other_weights_of_the_same_name_do_not_stay() -> None:
    """A file may hold other weights than before."""
    few = {"linear_5": Score(0.3), "knn": Score(0.4)}
    rows = {**table().rows, "mine": few}
    earlier = table(
        key="a", rows=rows, weights={"mine": "1"}, differences={"mine": {"linear_5": OPEN}}
    )
    again = {name: {"knn": Score(0.5)} for name in rows}
    later = table(key="a", columns=["knn"], rows=again, weights={"mine": "2"})
    whole = later.completed_by(earlier)
    assert whole.rows["mine"] == {"knn": Score(0.5)}
    assert whole.differences == {}
    assert whole.rows["raw pixels"]["linear_5"] == rows["raw pixels"]["linear_5"]


@pytest.mark.parametrize("keys", [("a", "b"), ("", "")])
def test_columns_of_other_images_or_weights_do_not_stay(keys: tuple[str, str]) -> None:
    later = table(key=keys[1], columns=["knn"])
    assert later.completed_by(table(key=keys[0])) == later


def test_a_table_is_read_back_and_one_that_is_damaged_is_none(tmp_path: Path) -> None:
    place = tmp_path / "evaluation.json"
    assert read_scores(place) is None
    place.write_text(json.dumps(table(key="a").to_json()))
    assert read_scores(place) == table(key="a")
    value = table(key="a").to_json()
    row = {"name": "raw pixels", "scores": []}
    for text in (
        *("", "[]", "{}", '{"rows": 3}'),
        *(json.dumps({**value, name: None}) for name in ("columns", "notes", "rows")),
        json.dumps({**value, "rows": [row]}),
    ):
        place.write_text(text)
        assert read_scores(place) is None


@pytest.mark.slow
def test_a_table_knows_its_weights_images_labels_and_seed(digit_images: ImageSet) -> None:
    few = digit_images.subset(torch.arange(100))
    assert few.labels is not None
    assert isinstance(few.pixels, torch.Tensor)

    backbone = constant_backbone()
    backbone.register_buffer("last", torch.tensor(0.0))

    def scores(images: ImageSet, last: float = 0.0, seed: int = 0) -> ScoreTable:
        backbone.get_buffer("last").fill_(last)
        return scored(backbone, images, None, protocols=["knn"], seed=seed)

    pixels = few.pixels.clone()
    pixels[7, :, 3, 3] ^= 1
    one = scores(few)
    assert one.is_alike(scores(few))
    for other in (
        scores(few.subset(torch.arange(99, -1, -1))),
        scores(replace(few, labels=(few.labels + 1) % 10)),
        scores(replace(few, pixels=pixels)),
        scores(few, last=1.0),
        scores(few, seed=1),
    ):
        assert not one.is_alike(other)


def test_the_best_of_each_column_is_bold() -> None:
    assert table().best("knn") == ["raw pixels"]
    assert table().best("linear_5") == ["pretrained backbone"]
    text = text_of(table(), styled=True)
    assert "\x1b[1m85.9\x1b[0m" in text
    assert re.search(r"\x1b\[1m +67.0±1.0\x1b", text)
    assert not re.search(r"\x1b\[1m *84.0", text)


def test_where_raw_pixels_win_a_sentence_says_so() -> None:
    differences = {"raw pixels": {"knn": Difference(-0.019, -0.028, -0.010)}}
    text = text_of(table(differences=differences))
    assert "The pretrained backbone is below raw pixels in kNN -1.9 ± 0.9." in text
    assert "It is above the random backbone (knn" not in text
    assert "It is above the random backbone (kNN +14.0) in every column." in text
    assert (
        table(differences=differences).warnings() == table(differences=differences).sentences()[:1]
    )
    rows = table().rows
    better = {**rows, "pretrained backbone": {"knn": Score(0.9), "linear_5": Score(0.7)}}
    assert table(rows=better).warnings() == []
    worse = {**rows, "pretrained backbone": {"knn": Score(0.6), "linear_5": Score(0.9)}}
    assert "below the random backbone in kNN -10.0" in table(rows=worse).warnings()[1]


def test_differences_that_chance_could_make_are_told() -> None:
    open_one = {"raw pixels": {"knn": Difference(-0.019, -0.05, 0.012)}}
    said = table(num_test=100, differences=open_one).sentences()
    assert said[0].startswith("The pretrained backbone is above the random backbone")
    assert said[1] == (
        "It is above raw pixels (5 labels/class +7.0), but not for sure in kNN -1.9 ± 3.1."
    )
    assert said[2] == (
        "On 100 test images kNN and linear can show differences from about 3.1 points on."
    )


def test_a_missing_score_is_a_dash() -> None:
    rows = table().rows
    del rows["raw pixels"]["linear_5"]
    (line,) = [line for line in text_of(table(rows=rows)).splitlines() if "raw pixels  " in line]
    assert line.split() == ["raw", "pixels", "85.9", "-"]


def test_the_table_fits_into_80_columns() -> None:
    score = Score(0.881, 0.861, 0.901, 10)
    columns = ["knn", "linear", "linear_1", "linear_5", "linear_10", "linear_100"]
    scores = dict.fromkeys(columns, score) | {"knn": Score(0.9), "linear": Score(0.9)}
    rows = dict.fromkeys((RAW_PIXELS, PRETRAINED_BACKBONE), scores)
    out = io.StringIO()
    value = ScoreTable("fashion-mnist train", 60_000, 10_000, 10, columns, rows)
    Console(file=out, width=80).print(value.render())
    assert "…" not in out.getvalue()
    assert out.getvalue().count("88.1±2.0") == 8


def test_a_long_name_is_folded_and_not_cut() -> None:
    name = "timm:vit_small_patch14_reg4_dinov2.lvd142m"
    columns = ["knn", "linear", "linear_1", "linear_5", "linear_10", "linear_100"]
    scores = dict.fromkeys(columns, Score(0.881, 0.861, 0.901, 10))
    scores |= {"knn": Score(0.9), "linear": Score(0.9)}
    rows = {RAW_PIXELS: scores, name: scores, PRETRAINED_BACKBONE: scores}
    value = ScoreTable("photos", 600, 100, 3, columns, rows)
    out = io.StringIO()
    Console(file=out, width=80).print(value.render())
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert text.count("88.1±2.0") == 12
    names = "".join(line.split("  ")[0] for line in text.splitlines())
    assert f"raw pixels{name}pretrained backbone" in names
    assert name in str(value)


def test_a_printed_table_is_that_of_the_terminal() -> None:
    assert "67.0±1.0" in str(table())
    assert str(table()).split() == text_of(table()).split()


def test_interval_is_student_t() -> None:
    for degrees in (1, 2, 5, 9, 10, 19, 100):
        assert student_95(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), abs=2e-4)
    values = [0.61, 0.64, 0.60, 0.66]
    score = mean_score(values)
    low, high = stats.t.interval(0.95, 3, loc=score.mean, scale=stats.sem(values))
    assert score.low == pytest.approx(low, abs=1e-4)
    assert score.high == pytest.approx(high, abs=1e-4)
    assert mean_score([0.5]) == Score(0.5)
    assert torch.tensor(values).mean().item() == pytest.approx(score.mean)


def test_numbers_without_labels_stay_with_their_row() -> None:
    def of(**numbers: float) -> dict[str, dict[str, float]]:
        return {name: {"effective_rank": value} for name, value in numbers.items()}

    ours = "pretrained backbone"
    rows = {ours: {"knn": Score(0.8)}, "other": {"knn": Score(0.7)}}
    earlier = table(key="a", rows=rows, label_free=of(**{ours: 3.0, "other": 2.0}))
    later = table(key="a", rows={ours: {"linear": Score(0.9)}}, label_free=of(**{ours: 4.0}))
    assert later.completed_by(earlier).label_free == of(**{"other": 2.0, ours: 4.0})
    old = later.to_json()
    del old["label_free"]  # of an earlier version
    assert ScoreTable.from_json(old).label_free == {}
