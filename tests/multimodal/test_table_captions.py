"""Images with texts beside them, wherever they lie, are the table that names them."""

import csv
import math

import pytest
import torch

import similitude as sim
from builders import BreakOff, Ears, write_tar
from servers import serving
from similitude.errors import UserError
from similitude.images import loading
from similitude.modalities import modality, modality_of
from similitude.runs.metrics import read_metrics
from similitude.training.choose import kind_for

SENSORS = modality("sensors")
QUICK = ["precision=float32", "backbone.towers.image.network.base_width=4"]
QUICK += ["backbone.towers.text.network.width=32"]


@pytest.fixture(scope="module")
def rows(pairs):
    """Of 40 photos the bytes, what is on them, and their class; nothing is written of some."""
    with pairs.open() as file:
        found = list(csv.DictReader(file))[:40]
    return [((pairs.parent / r["photo"]).read_bytes(), r["text"], r["label"]) for r in found]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_table(rows, folder):
    folder.mkdir()
    lines = [["image", "text", "label"]]
    for i, (photo, text, label) in enumerate(rows):
        (folder / f"{i:02d}.png").write_bytes(photo)
        lines.append([f"{i:02d}.png", text, label])
    with (folder / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return folder / "pairs.csv"


def write_shards(rows, folder):
    for shard in range(2):
        files = {}
        for i in range(20 * shard, 20 * shard + 20):
            photo, text, label = rows[i]
            files |= {f"{i:02d}.png": photo, f"{i:02d}.cls": label.encode()}
            files |= {f"{i:02d}.txt": text.encode()} if text else {}
            files |= {f"{i:02d}.json": b"{}"}
        write_tar(folder / f"{shard}.tar", files)
    return folder


def as_dataset(rows):
    datasets = pytest.importorskip("datasets")
    names = sorted({label for _, _, label in rows})
    columns = {
        "note": ["nothing of interest"] * len(rows),
        "image": [{"bytes": photo, "path": None} for photo, _, _ in rows],
        "label": [names.index(label) for _, _, label in rows],
        "caption": [text or None for _, text, _ in rows],
    }
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    words = {name: datasets.Value("string") for name in ("note", "caption")}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds | words))


def stored(rows, place, folder):
    if place == "tar":
        return write_shards(rows, folder)
    if place == "parquet":
        folder.mkdir()
        as_dataset(rows).to_parquet(folder / "x.parquet", batch_size=16)
        return folder
    return as_dataset(rows)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["tar", "parquet", "dataset"])
def test_clip_learns_from_them_what_it_learns_from_a_table(rows, tmp_path, place):
    options = {"method": "clip", "epochs": 2, "overrides": QUICK, "batch_size": 16}
    plain = sim.pretrain(write_table(rows, tmp_path / "t"), out=tmp_path / "s", **options)
    data = stored(rows, place, tmp_path / "stored")
    heard = Ears()
    run = sim.pretrain(data, out=tmp_path / "r", listener=heard, **options)
    mine, other = run.checkpoint.method, plain.checkpoint.method
    assert all(torch.equal(other[name], value) for name, value in mine.items())
    of = "files KEY.txt" if place == "tar" else "column caption"
    assert f"  texts are those of {of}" in heard.sentences
    assert "  text is missing in 4 of 40 samples" in heard.sentences
    assert run.retrieve(data).rows == plain.retrieve(tmp_path / "t" / "pairs.csv").rows
    scores = [r.evaluate(d, protocols=["knn"]).rows for r, d in ((run, data), (plain, data))]
    assert scores[0]["pretrained backbone"] == scores[1]["pretrained backbone"]
    assert run.embed(data).x.shape == (40, run.backbone.num_features)


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_both_and_over_the_network(rows, tmp_path):
    options = {"method": "clip", "overrides": QUICK, "batch_size": 16, "report": False}
    shards = write_shards(rows, tmp_path / "shards")
    whole = sim.pretrain(shards, out=tmp_path / "s", epochs=4, **options)
    with serving(shards) as server:
        url = server.url + "/{0..1}.tar"
        with pytest.raises(KeyboardInterrupt):
            sim.pretrain(url, out=tmp_path / "r", epochs=4, listener=BreakOff(), **options)
        run = sim.pretrain(url, out=tmp_path / "r", resume=True, report=False)
    mine, other = whole.checkpoint.method, run.checkpoint.method
    assert all(torch.equal(other[name], value) for name, value in mine.items())


def test_without_a_method_that_compares_them_they_are_images(rows, tmp_path):
    shards = write_shards(rows, tmp_path / "shards")
    assert modality_of(shards).kind == "image"
    (source,) = modality("image").open_parts(shards, None)
    assert source.notes == (f"files in {shards} that are no known images are not used: 40 .json",)
    assert source.origin.texts() == [text for _, text, _ in rows]
    (table,) = SENSORS.open_parts(shards, None)
    assert table.cells["text"] == [text for _, text, _ in rows]
    assert table.class_names == ["blue", "green", "red", "white"]


def test_images_with_nothing_beside_them_are_no_pairs(pairs):
    with pytest.raises(UserError, match="is no table, and nothing is written beside"):
        SENSORS.open_training(pairs.parent, None)


def texts_of(data):
    (source,) = modality("image").open_parts(data, None)
    return source.origin.texts()


def test_a_caption_is_the_text_with_the_name_of_its_image_alone(rows, tmp_path):
    photo = rows[0][0]
    long = ("\N{SNOWMAN}" * 999 + "\n ab").encode("utf-8-sig")
    beside = {"a.txt": b"one", "a.de.txt": b"eins", "c.txt": long, "alone.txt": b"nothing"}
    photos = dict.fromkeys(("a.png", "b.png", "c.png"), photo)
    path = write_tar(tmp_path / "x.tar", photos | beside, {"b.txt": "a.txt"})
    assert texts_of(path) == ["one", "one", "\N{SNOWMAN}" * 999 + " "]
    (source,) = modality("image").open_parts(path, None)
    assert source.notes[0].endswith("are not used: 2 .txt")


def test_texts_without_a_word_are_none(rows, tmp_path):
    photo = rows[0][0]
    path = write_tar(tmp_path / "x.tar", {"a.png": photo, "a.txt": b" \n", "b.png": photo})
    assert modality("image").sensors_of(path) == {}
    parts = {"train": None, "test": b"a thing"}
    for part, text in parts.items():
        beside = {} if text is None else {"a.txt": text}
        write_tar(tmp_path / "two" / f"{part}-0.tar", {"a.png": photo, "b.png": photo} | beside)
    assert modality("image").sensors_of(tmp_path / "two") == {}  # what is trained on has none


@pytest.mark.slow
def test_a_test_part_without_texts_is_evaluated(rows, tmp_path):
    for part in ("train", "test"):
        files = {}
        for i, (photo, text, label) in enumerate(rows):
            files |= {f"{i}.png": photo, f"{i}.cls": label.encode()}
            files |= {f"{i}.txt": text.encode()} if text and part == "train" else {}
        write_tar(tmp_path / "two" / f"{part}-0.tar", files)
    options = {"method": "clip", "overrides": QUICK, "batch_size": 16, "epochs": 1}
    run = sim.pretrain(tmp_path / "two", out=tmp_path / "r", report=False, **options)
    assert "pretrained backbone" in run.evaluate(tmp_path / "two", protocols=["knn"]).rows
    with pytest.raises(UserError, match="fewer than two of the run's sensors"):
        run.retrieve(tmp_path / "two")


def test_two_samples_of_one_name_are_refused(rows, tmp_path):
    files = {"a.png": rows[0][0], "a.txt": b"one"}
    for folder in ("x", "y"):
        write_tar(tmp_path / "in" / folder / "0.tar", files)
    places = f"file://{tmp_path}/in/{{x,y}}/0.tar"
    with pytest.raises(UserError, match=r"has 2 samples that are called 0\.tar/a\.png"):
        SENSORS.open_training(places, None)


def test_most_samples_say_what_a_tar_file_is_of(rows, tmp_path):
    photos = {f"{i:02d}.png": rows[i][0] for i in range(12)}
    hidden = {"._a.mp4": b"x", "__MACOSX/a.mp4": b"x"}
    path = write_tar(tmp_path / "x.tar", hidden | photos | {"clip.mp4": b"x"}, {"l.mp4": "no"})
    assert modality_of(path).kind == "image"
    beside = {f"{i}.{suffix}": b"x" for i in range(9) for suffix in ("json", "mp4", "jpg", "txt")}
    assert modality_of(write_tar(tmp_path / "y.tar", beside)).kind == "video"


def test_what_a_url_is_of_is_asked_once(rows, tmp_path):
    shards = write_shards(rows, tmp_path / "shards")
    with serving(shards) as server:
        url = server.url + "/{0..1}.tar"
        assert modality_of(url).kind == "image"
        assert 0 < len(server.asked) < 40
        server.asked.clear()
        assert modality_of(url).kind == "image"
        assert server.asked == []


def test_cmc_compares_the_colors_of_images_whatever_is_beside_them(rows, tmp_path):
    shards = write_shards(rows, tmp_path / "shards")
    assert kind_for("cmc", shards).kind == "image"
    assert kind_for("clip", shards).kind == "sensors"


def test_a_column_of_texts_is_one_in_every_file(rows, tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = tmp_path / "files"
    folder.mkdir()
    for name, value in (("a", "one thing"), ("b", 3)):
        columns = {"image": [rows[0][0]] * 2, "caption": [value] * 2, "filename": ["x", "y"]}
        parquet.write_table(arrow.table(columns), folder / f"{name}.parquet")
    with pytest.raises(UserError, match=r"column caption of .*b\.parquet is of int64"):
        SENSORS.open_training(folder, None)
    (folder / "b.parquet").unlink()
    table = SENSORS.open_training(folder, None)
    assert table.cells["text"] == ["one thing"] * 2
    encoded = arrow.table({"image": [rows[0][0]] * 2, "text": arrow.array(["x", "y"])})
    column = encoded.column("text").dictionary_encode()
    parquet.write_table(encoded.set_column(1, "text", column), folder / "a.parquet")
    assert SENSORS.open_training(folder, None).cells["text"] == ["x", "y"]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["tar", "parquet"])
def test_very_many_pairs_of_which_one_is_unreadable_are_trained_on(
    rows, tmp_path, monkeypatch, place
):
    monkeypatch.setattr(loading, "LAZY_FROM", 10)
    broken = [*rows[:5], (b"x", *rows[5][1:]), *rows[6:]]
    data = stored(broken, place, tmp_path / "stored")
    options = {"method": "clip", "overrides": QUICK, "batch_size": 16, "epochs": 1}
    run = sim.pretrain(data, out=tmp_path / "r", **options)
    assert run.retrieve(data).rows
    with pytest.raises(KeyboardInterrupt):
        sim.pretrain(data, out=tmp_path / "s", listener=BreakOff(), **options)
    again = sim.pretrain(data, out=tmp_path / "s", resume=True)
    mine, other = run.checkpoint.method, again.checkpoint.method
    assert all(torch.equal(other[name], value) for name, value in mine.items())


@pytest.mark.slow
def test_chance_is_of_the_pairs_that_are_there(rows, tmp_path):
    few = [
        (photo, text if i % 4 == 1 else "", label) for i, (photo, text, label) in enumerate(rows)
    ]
    shards = write_shards(few, tmp_path / "shards")
    options = {"method": "clip", "batch_size": 40, "epochs": 1, "report": False}
    run = sim.pretrain(shards, out=tmp_path / "r", overrides=QUICK, **options)
    last = read_metrics(run.path / "metrics.csv")[-1]
    assert last["chance_loss"] == pytest.approx(math.log(sum(bool(text) for _, text, _ in few)))


@pytest.mark.slow
def test_features_of_both_are_kept_and_evaluated(rows, tmp_path):
    shards = write_shards(rows, tmp_path / "shards")
    options = {"method": "clip", "batch_size": 16, "epochs": 1, "report": False}
    run = sim.pretrain(
        shards, out=tmp_path / "r", overrides=[*QUICK, "backbone.kept=[image, text]"], **options
    )
    assert run.embed(shards).x.shape == (40, run.backbone.num_features)
    assert list(run.evaluate(shards, protocols=["knn"]).rows)[:2] == [
        "raw pixels of image",
        "bag of words of text",
    ]


@pytest.mark.slow
def test_an_ablation_of_pairs_is_scored(rows, tmp_path):
    found = sim.ablate(
        "clip", write_shards(rows, tmp_path / "shards"), vary=["scale=5,10"], seeds=1, epochs=1,
        overrides=["precision=float32"], out=tmp_path / "a",
    )  # fmt: skip
    assert found is not None
    recipe = sim.Run(tmp_path / "a" / "scale=5" / "seed-0").recipe
    again = sim.ablate(
        data=tmp_path / "shards", recipe=recipe, vary=["scale=5,10"], seeds=1, epochs=1,
        out=tmp_path / "b",
    )  # fmt: skip
    assert again is not None


def test_one_sensor_alone_is_refused_before_anything_is_read(pairs, tmp_path):
    with pytest.raises(UserError, match=r"KEY\.txt in tar files.* has images alone"):
        kind_for("clip", pairs.parent)


def test_compressed_shards_are_told(rows, tmp_path):
    path = write_shards(rows, tmp_path / "shards") / "0.tar"
    packed = path.rename(path.with_name("0.tar.gz"))
    with pytest.raises(UserError, match="is compressed, and samples are read in place"):
        modality("image").open_training(packed, None)
