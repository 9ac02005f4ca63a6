"""A folder of sounds is pretrained, scored, reported, embedded and resumed as one of photos is."""

import base64
import io
import json
import os
import re
import shutil
from contextlib import nullcontext

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import similitude as sim
from builders import BreakOff, write_tar
from servers import serving
from similitude.embeddings import answer, outliers
from similitude.embeddings.answer import pictures_of
from similitude.errors import UserError
from similitude.evaluation import Features
from similitude.listener import Silent
from similitude.modalities import modality, modality_of
from similitude.runs.metrics import read_metrics

QUICK = ["data.sample_rate=8000", "data.high=4000", "data.hop=200", "data.window=256"]
NARROW = ["backbone.channels=4", "backbone.hidden=16"]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def pretrained(tones, out, method="byol_a", epochs=2, **more):
    changes = [*QUICK, *NARROW] if method != "cpc_audio" else [*QUICK[:2], *NARROW]
    if method == "speech_simclr":
        changes = [*QUICK, "backbone.hidden=16"]
    options = {"overrides": [*changes, "precision=float32"], "batch_size": 16, "report": False}
    return sim.pretrain(tones, method=method, out=out, epochs=epochs, **{**options, **more})


@pytest.mark.slow
@pytest.mark.parametrize("method", ["byol_a", "speech_simclr", "cpc_audio", "simclr", "moco_v2"])
def test_a_method_trains_on_sounds_and_again_with_the_same_bits(tones, tmp_path, method):
    run = pretrained(tones, tmp_path / "r", method)
    losses = [row["loss"] for row in read_metrics(run.path / "metrics.csv") if "loss" in row]
    assert len(losses) > 0
    assert np.isfinite(losses).all()
    again = pretrained(tones, tmp_path / "s", method)
    mine, other = run.checkpoint.method, again.checkpoint.method
    assert all(torch.equal(other[name], value) for name, value in mine.items())


@pytest.mark.slow
def test_it_is_scored_beside_what_needs_no_learning(tones, tmp_path):
    run = pretrained(tones, tmp_path / "r", report=True)
    table = run.evaluate(tones, protocols=["knn"])
    assert list(table.rows) == [
        *("raw log-mel", "log-mel statistics", "MFCC", "random backbone", "pretrained backbone")
    ]
    assert table.rows["raw log-mel"]["knn"].mean > 0.9  # high tones and low ones
    assert "log-mel statistics" in run.report().read_text()
    assert Image.open(run.path / "views.png").size[0] > 64


@pytest.mark.slow
def test_it_embeds_every_sound(tones, tmp_path):
    run = pretrained(tones, tmp_path / "r")
    features = run.embed(tones)
    assert features.x.shape == (80, run.backbone.num_features)
    assert features.names[0].startswith(("train/", "test/"))


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_bits(tones, tmp_path):
    whole = pretrained(tones, tmp_path / "whole", epochs=3)
    with pytest.raises(KeyboardInterrupt):
        pretrained(tones, tmp_path / "cut", epochs=3, listener=BreakOff())
    run = sim.pretrain(tones, out=tmp_path / "cut", resume=True, report=False)
    mine, other = whole.checkpoint.method, run.checkpoint.method
    assert all(torch.equal(other[name], value) for name, value in mine.items())


def test_what_was_decoded_is_found_again_and_a_changed_file_is_not(tones, tmp_path):
    folder = tmp_path / "sounds"
    shutil.copytree(tones / "train", folder)
    kind = modality_of(folder)
    config = kind.data_config()
    first = kind.load(kind.open_training(folder, None), config)
    kept = list((tmp_path / "cache" / "similitude" / "sounds").iterdir())
    again = kind.load(kind.open_training(folder, None), config)
    assert np.array_equal(first.waves.samples, again.waves.samples)
    soundfile.write(folder / "low" / "00.wav", np.zeros(4_000), 8_000)
    changed = kind.load(kind.open_training(folder, None), config)
    assert not changed.take(slice(32, 33)).middle(100).any()
    assert len(kept) == 1


def test_a_cache_that_changes_in_place_while_it_is_mapped_is_told(tones, tmp_path):
    kind = modality_of(tones)
    sounds = kind.load(kind.open_training(tones, None), kind.data_config())
    sounds.take(slice(0, 2)).middle(100)
    (rows,) = (tmp_path / "cache" / "similitude" / "sounds").iterdir()
    os.truncate(rows, 100)
    with pytest.raises(UserError, match="changed while it was in use"):
        sounds.take(slice(0, 2)).middle(100)


def test_unreadable_sounds_are_left_out_and_many_are_refused(tones, tmp_path):
    folder = tmp_path / "sounds"
    shutil.copytree(tones / "train", folder)
    (folder / "low" / "00.wav").write_bytes(b"broken")
    kind = modality_of(folder)
    source = kind.open_training(folder, None)
    sounds = kind.load(source, kind.data_config())
    assert len(sounds) == 63
    assert [name for name, _ in sounds.unreadable] == ["low/00.wav"]
    for i in range(1, 9):
        (folder / "low" / f"{i:02d}.wav").write_bytes(b"broken")
    with pytest.raises(UserError, match="more than 10 %"):
        kind.load(kind.open_training(folder, None), kind.data_config())


def test_photos_and_sounds_are_told_apart(tones, tmp_path):
    assert modality_of(tones).kind == "audio"
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert modality_of(tmp_path).kind == "image"
    assert modality_of("cifar10").kind == "image"


def test_what_a_method_cannot_have_is_told(tones, tmp_path):
    with pytest.raises(UserError, match="cpc_v1 needs views that such data does not have"):
        sim.pretrain(tones, method="cpc_v1", out=tmp_path / "r")
    with pytest.raises(UserError, match="sounds and --backbone transformer"):
        sim.pretrain(tones, method="speech_simclr", backbone="byol_a", out=tmp_path / "r")
    with pytest.raises(UserError, match="unknown network for sounds"):
        sim.pretrain(tones, backbone="resnet18", out=tmp_path / "r")


@pytest.mark.slow
def test_the_printed_python_gives_the_features_of_embed(tones, tmp_path):
    run = pretrained(tones, tmp_path / "r")
    code = run.export(tmp_path / "b.safetensors")
    waves = run.load_source(run.modality.open_part(tones, "test", run.recipe.data), Silent())
    given = {"waves": waves.take(slice(0, 4)).middle(round(run.facts.seconds * 8_000))}
    exec(code, given)
    expected = run.embed(tones)
    rows = [expected.names.index(f"test/{name}") for name in waves.names[:4]]
    torch.testing.assert_close(given["features"], expected.x[rows], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_page_plays_what_it_shows(tones, tmp_path):
    run = pretrained(tones, tmp_path / "r", report=True)
    page = run.report().read_text()
    assert "Click one to hear it" in page
    assert "80 sounds placed" in page or "64 sounds placed" in page
    arrays = np.load(run.path / "embedding.npz")
    wave, rate = soundfile.read(io.BytesIO(arrays["track"].tobytes()))
    begin, end = arrays["times"][1]
    sounds = run.load_source(run.modality.open_training(tones, None), Silent())
    length = sounds.seconds[arrays["heard"][1]]
    assert rate == 8_000
    assert end - begin == pytest.approx(length)
    piece, pause = wave[int(begin * rate) : int(end * rate)], wave[int(end * rate) + 300 :][:300]
    assert np.abs(piece).max() > 10 * np.abs(pause).max()


def test_a_page_of_answers_plays_what_it_shows(tones, tmp_path, monkeypatch):
    monkeypatch.setattr(answer, "MAX_HEARD", 3)
    names = [f"{part}/{i:02d}.wav" for part in ("low", "high") for i in range(4)]
    places = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    rows = Features(places, None, names)
    outliers(rows, pictures=tones / "train", output=tmp_path / "far.csv", count=5)
    page = (tmp_path / "far.html").read_text()
    heard = re.findall(r'data-heard="(\d+) ([\d.]+) ([\d.]+)"', page)
    assert len(heard) == 3
    assert "Click one to hear it" in page
    points = json.loads(re.search(r'id="points">(.*?)</script>', page, re.DOTALL)[1])
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(points["tracks"][0])))
    assert all(0 <= float(begin) < float(end) <= len(wave) / rate for _, begin, end in heard)


def test_a_sound_is_found_in_the_track_that_it_is_in(tones):
    tracks: list[bytes] = []
    looks = pictures_of(tones).of(["train/low/02.wav", "test/high/05.wav"], tracks)
    for name, pitch in (("train/low/02.wav", 218), ("test/high/05.wav", 1546)):
        track, begin, end = looks[name].heard
        wave, rate = soundfile.read(io.BytesIO(tracks[track]))
        piece = wave[int(begin * rate) : int(end * rate)]
        loudest = np.abs(np.fft.rfft(piece)).argmax() / (end - begin)
        assert abs(loudest - pitch) < 6


def write_shards(tones, folder):
    """Two tar files of each part, with the class of each sound beside it."""
    for part in ("train", "test"):
        sounds = sorted((tones / part).glob("*/*.wav"))
        half = len(sounds) // 2
        for s, some in enumerate((sounds[:half], sounds[half:])):
            files = {}
            for path in some:
                name = path.relative_to(tones / part).as_posix()
                files[name] = path.read_bytes()
                files[name.replace(".wav", ".cls")] = path.parent.name.encode()
            write_tar(folder / f"{part}-{s}.tar", files)
    return folder


def as_dataset(tones, part):
    datasets = pytest.importorskip("datasets")
    sounds = sorted((tones / part).glob("*/*.wav"))
    columns = {
        "sound": [{"bytes": path.read_bytes(), "path": path.name} for path in sounds],
        "label": [path.parent.name == "low" for path in sounds],
    }
    names = datasets.ClassLabel(names=["high", "low"])
    kinds = datasets.Features({"sound": datasets.Audio(), "label": names})
    return datasets.Dataset.from_dict(columns).cast(kinds)  # which encodes nothing anew


def stored(tones, place, folder):
    """The folder of tones, in another way."""
    if place in ("tar", "http"):
        return write_shards(tones, folder)
    parts = {part: as_dataset(tones, part) for part in ("train", "test")}
    if place == "parquet":
        folder.mkdir()
        for part, dataset in parts.items():
            dataset.to_parquet(folder / f"{part}.parquet", batch_size=16)
        return folder
    both = pytest.importorskip("datasets").DatasetDict(parts)
    if place == "saved":
        both.save_to_disk(folder)
    return folder if place == "saved" else both


@pytest.mark.slow
@pytest.mark.parametrize("place", ["tar", "http", "parquet", "saved", "dataset"])
def test_sounds_are_the_same_wherever_they_lie(tones, tmp_path, place):
    data = stored(tones, place, tmp_path / "stored")
    with serving(tmp_path / "stored") if place == "http" else nullcontext() as server:
        data = f"{server.url}/{{train,test}}-{{0..1}}.tar" if place == "http" else data
        kind = modality_of(data)
        assert kind.kind == "audio"
        config = kind.data_config(sample_rate=8000, high=4000)
        for mine, plain in zip(
            kind.open_parts(data, None), kind.open_parts(tones, None), strict=True
        ):
            found, expected = kind.load(mine, config), kind.load(plain, config)
            assert np.array_equal(found.waves.samples, expected.waves.samples)
            assert found.labels.tolist() == expected.labels.tolist()
            assert found.class_names == ["high", "low"]
            some = kind.load_some(mine, [3, 0], config)
            assert some.names == [found.names[3], found.names[0]]


@pytest.mark.slow
def test_a_run_of_shards_is_that_of_the_folder(tones, tmp_path):
    shards = write_shards(tones, tmp_path / "shards")
    run, plain = pretrained(shards, tmp_path / "r"), pretrained(tones, tmp_path / "s")
    mine, other = run.checkpoint.method, plain.checkpoint.method
    assert all(torch.equal(other[name], value) for name, value in mine.items())
    assert (
        run.evaluate(shards, protocols=["knn"]).rows
        == plain.evaluate(tones, protocols=["knn"]).rows
    )


def test_what_is_no_sound_is_told(tmp_path):
    with pytest.raises(UserError, match="has no sounds: give a folder of"):
        modality("audio").open_training(tmp_path / "none", None)
