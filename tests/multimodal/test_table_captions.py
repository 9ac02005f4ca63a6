"""Images with texts beside them, wherever they lie, are the table that names them."""

import csv
import io
import tarfile

import pytest
import torch

import similitude as sim
from builders import BreakOff, Ears
from servers import serving
from similitude.errors import UserError
from similitude.modalities import modality, modality_of

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
    folder.mkdir()
    for shard in range(2):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for i in range(20 * shard, 20 * shard + 20):
                photo, text, label = rows[i]
                beside = {"cls": label.encode(), "txt": text.encode()}
                for suffix, content in {"png": photo, **beside, "json": b"{}"}.items():
                    if content:
                        info = tarfile.TarInfo(f"{i:02d}.{suffix}")
                        info.size = len(content)
                        tar.addfile(info, io.BytesIO(content))
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
    with pytest.raises(UserError, match="is no table"):
        SENSORS.open_training(pairs.parent, None)
