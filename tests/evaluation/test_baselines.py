import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from scipy import stats
from torch import nn

from similitude.data.images import ImageSet
from similitude.errors import UserError
from similitude.evaluation import (
    Features,
    Score,
    ScoreTable,
    check_protocols,
    evaluate_backbone,
    read_scores,
    score_features,
)
from similitude.evaluation.scores import PRETRAINED_BACKBONE, RAW_PIXELS, mean_score, student_95
from similitude.views.image import ImageSpec

SPEC = ImageSpec(size=8, mean=(0.3, 0.3, 0.3), std=(0.3, 0.3, 0.3))


def constant_backbone() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.Flatten()).apply(
        lambda m: nn.init.zeros_(m.weight) if isinstance(m, nn.Linear) else None
    )


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


def test_score_features_gives_the_columns_that_are_asked_for(
    digits: tuple[Features, Features],
) -> None:
    train, test = digits
    seen: list[str] = []
    scores = score_features(train, test, ("few", "knn"), draws=2, on_progress=seen.append)
    assert list(scores) == ["knn", "linear_1", "linear_5", "linear_10", "linear_100"]
    assert seen == ["knn", "few"]
    assert scores["knn"].draws == 1
    assert scores["linear_5"].draws == 2
    assert list(score_features(train, test, ("linear",))) == ["linear"]


def test_knn_uses_fewer_neighbours_where_there_are_fewer(digits: tuple[Features, Features]) -> None:
    train, test = digits
    few = train.subset(range(12))
    assert 0.2 < score_features(few, test, ("knn",), k=20)["knn"].mean < 0.8


def test_unknown_protocols_are_told_with_the_nearest_names() -> None:
    assert check_protocols(("few", "knn", "knn")) == ("knn", "few")
    with pytest.raises(UserError, match="'linaer': did you mean linear"):
        check_protocols(("linaer",))
    with pytest.raises(UserError, match="choose from knn, linear, few"):
        check_protocols(("xyz",))
    with pytest.raises(UserError, match="no protocol"):
        check_protocols(())


def test_the_table_of_a_backbone_beside_its_baselines(digit_images: ImageSet) -> None:
    train, test = digit_images.subset(range(200)), digit_images.subset(range(200, 300))
    steps: list[str] = []
    found = evaluate_backbone(
        nn.Flatten(),
        train,
        test,
        SPEC,
        data="digits",
        random_backbone=constant_backbone(),
        draws=2,
        on_progress=steps.append,
    )
    assert list(found.rows) == ["raw pixels", "random backbone", "pretrained backbone"]
    assert (found.num_train, found.num_test, found.num_classes) == (200, 100, 10)
    assert found.columns == ["knn", "linear", "linear_1", "linear_5", "linear_10"]
    assert any("100 labels per class" in note for note in found.notes)
    # The "pretrained" backbone hands the pixels through: it must equal the pixels' row.
    assert found.rows["pretrained backbone"]["knn"] == found.rows["raw pixels"]["knn"]
    assert found.rows["raw pixels"]["linear"].mean > 0.8
    assert found.rows["random backbone"]["linear"].mean < 0.2
    assert "raw pixels: features" in steps
    assert "pretrained backbone: few" in steps


def test_without_a_test_part_a_fifth_is_held_out(digit_images: ImageSet) -> None:
    found = evaluate_backbone(
        nn.Flatten(), digit_images, None, SPEC, data="digits", protocols=("knn",)
    )
    assert found.num_train + found.num_test == 300
    assert found.num_test == pytest.approx(60, abs=5)
    assert "20% of the labelled images were held out" in found.notes[0]
    assert list(found.rows) == ["raw pixels", "pretrained backbone"]
    assert found.rows["raw pixels"] == found.rows["pretrained backbone"]


def test_the_last_classes_may_lack_images_in_one_part(digit_images: ImageSet) -> None:
    """An array's classes are numbers up to its own largest one."""
    assert digit_images.labels is not None
    few = digit_images.subset(digit_images.labels < 7)
    few = replace(few, class_names=[str(i) for i in range(7)])
    all_ten = replace(digit_images, class_names=[str(i) for i in range(10)])
    for train, test in ((all_ten, few), (few, all_ten)):
        found = evaluate_backbone(
            nn.Flatten(), train, test, SPEC, data="digits", protocols=("knn",)
        )
        assert found.num_test == len(test)


def test_parts_with_other_classes_are_refused(digit_images: ImageSet) -> None:
    other = replace(digit_images, class_names=[f"class {i}" for i in range(10)])
    with pytest.raises(UserError, match="must be the same, in the same order"):
        evaluate_backbone(nn.Flatten(), digit_images, other, SPEC, data="digits")


def test_images_without_labels_are_refused_in_a_sentence(digit_images: ImageSet) -> None:
    flat = replace(digit_images, labels=None, class_names=None)
    with pytest.raises(UserError, match="needs labels"):
        evaluate_backbone(nn.Flatten(), flat, None, SPEC, data="photos")


def test_json_there_and_back() -> None:
    value = table(seconds=12.5, notes=["A note."])
    text = json.dumps(value.to_json())
    assert ScoreTable.from_json(text) == value
    assert ScoreTable.from_json(json.loads(text)) == value
    row = json.loads(text)["rows"][0]
    assert row["name"] == "raw pixels"
    assert row["scores"]["knn"] == {"mean": 0.859, "low": None, "high": None, "draws": 1}


def test_columns_stay_where_a_protocol_is_not_asked_for() -> None:
    both = table(key="a", notes=["Of both.", "Of few."])
    again = {name: {"knn": Score(0.5), "linear": Score(0.6)} for name in both.rows}
    later = table(key="a", columns=["knn", "linear"], rows=again, notes=["Of both."])
    whole = later.completed_by(both)
    assert whole.columns == ["knn", "linear", "linear_5"]
    for name, row in whole.rows.items():
        assert row == {**again[name], "linear_5": both.rows[name]["linear_5"]}
    assert whole.notes == ["Of both.", "Of few."]


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


def test_a_table_knows_its_weights_images_labels_and_seed(digit_images: ImageSet) -> None:
    few = digit_images.subset(torch.arange(100))
    assert few.labels is not None
    assert isinstance(few.pixels, torch.Tensor)

    backbone = constant_backbone()
    backbone.register_buffer("last", torch.tensor(0.0))

    def scores(images: ImageSet, last: float = 0.0, seed: int = 0) -> ScoreTable:
        backbone.get_buffer("last").fill_(last)
        return evaluate_backbone(
            backbone, images, None, SPEC, data="x", protocols=["knn"], seed=seed
        )

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
    text = text_of(table())
    assert "Raw pixels beat the pretrained backbone in: kNN (85.9 against 84.0)." in text
    assert "5 labels" in text
    assert "random backbone beats" not in text
    rows = table().rows
    better = {**rows, "pretrained backbone": {"knn": Score(0.9), "linear_5": Score(0.7)}}
    assert table(rows=better).warnings() == []
    worse = {**rows, "pretrained backbone": {"knn": Score(0.6), "linear_5": Score(0.9)}}
    assert "The random backbone beats" in table(rows=worse).warnings()[1]


def test_differences_that_chance_could_make_are_told() -> None:
    sentence = "With only 100 test images, chance could make some of these differences."
    assert table(num_test=100).warnings()[1:] == [sentence]  # 1.9 points; the margin is 9.9
    assert len(table(num_test=10_000).warnings()) == 1  # the margin is 0.99


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
