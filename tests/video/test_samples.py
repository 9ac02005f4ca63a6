"""A folder of videos is pretrained, scored and embedded as photos are."""

import numpy as np
import pytest
import torch

import similitude as sim
from builders import BreakOff, write_tar
from similitude.errors import UserError
from similitude.modalities import modality, modality_of
from similitude.runs.metrics import read_metrics
from video_fixtures import moving_square, write_video

VIDEO = modality("video")
QUICK = ["precision=float32", "data.size=16", "backbone.width=4"]
SENSORS = [
    "precision=float32",
    *(f"data.sensors.{s}.size=16" for s in ("frames", "flow")),
    *(f"backbone.towers.{s}.network.width=4" for s in ("frames", "flow")),
    "backbone.towers.sound.network.channels=4",
    "backbone.towers.sound.network.hidden=16",
]


@pytest.mark.slow
def test_a_folder_of_videos_is_one(films):
    assert modality_of(films).kind == "video"


@pytest.mark.slow
def test_motion_energy_is_how_much_frames_differ(films):
    source = VIDEO.open_training(films, None)
    videos = VIDEO.load(source, VIDEO.data_config(size=16, rate=10))
    energy = videos.baselines()["motion energy"]
    first = videos.frames.rows[: videos.frames.length[0]].astype(np.float64) / 255
    moved = np.abs(np.diff(first, axis=0)).mean((1, 2, 3))
    np.testing.assert_allclose(energy[0], [moved.mean(), moved.std(), moved.max()], rtol=1e-4)
    fast = videos.labels == videos.class_names.index("fast")
    assert energy[fast, 0].min() > energy[~fast, 0].max()


@pytest.mark.slow
def test_videos_are_pretrained_scored_embedded_and_shown(films, tmp_path):
    run = sim.pretrain(films, out=tmp_path / "r", epochs=1, overrides=QUICK, batch_size=8)
    table = run.evaluate(films, protocols=["knn"])
    assert list(table.rows)[:2] == ["mean frame", "motion energy"]
    found = run.embed(films)
    assert found.x.shape == (24, 32)
    assert "videos" in run.report().read_text()


@pytest.mark.slow
def test_elo_learns_from_what_one_video_gives(films, tmp_path):
    options = {"method": "elo", "overrides": SENSORS, "batch_size": 8, "report": False}
    run = sim.pretrain(films, out=tmp_path / "r", epochs=2, **options)
    assert run.recipe.backbone.kept == ("frames",)
    assert run.recipe.method.view.aligned
    assert set(run.recipe.method.weights.values()) == {0.5}
    losses = read_metrics(run.path / "metrics.csv")[-1]
    assert {f"loss_{kind}" for kind in ("predict", "order", "transfer", "distill")} <= set(losses)
    assert "sound is missing in 12 of 24 samples" in (run.path / "log.txt").read_text()
    found = run.embed(films)  # of frames alone
    assert found.x.shape == (24, 32)
    own: dict = {}
    snippet = run.export(tmp_path / "kept.safetensors")
    for i in (0, 3, 23):  # longer and shorter ones
        exec(snippet.replace("clip.mp4", str(films / found.names[i])), own)  # as a user does
        torch.testing.assert_close(own["features"][0], found.x[i], rtol=1e-4, atol=1e-5)
    again = sim.pretrain(films, out=tmp_path / "s", epochs=2, **options)
    mine, other = run.checkpoint.method, again.checkpoint.method
    assert all(torch.equal(other[name], value) for name, value in mine.items())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["clip", "cmc"])
def test_methods_that_compare_sensors_take_a_folder_of_videos(films, tmp_path, method):
    run = sim.pretrain(
        films,
        method=method,
        out=tmp_path / "r",
        epochs=1,
        overrides=SENSORS,
        batch_size=8,
        report=False,
    )
    assert list(run.recipe.data.sensors) == ["frames", "flow", "sound"]


@pytest.mark.slow
def test_a_column_called_flow_or_sound_says_what_of_a_video_is_meant(films, tmp_path):
    table = films / "all.csv"
    rows = [f"slow/{i:02d}.mp4,slow/{i:02d}.mp4,slow/{i:02d}.mp4" for i in range(12)]
    table.write_text("\n".join(["clip,flow,sound", *rows]))
    sensors = modality("sensors")
    source = sensors.open_training(table, None)
    table.unlink()
    assert source.kinds == {"clip": "video", "flow": "video", "sound": "audio"}
    assert (source.column("clip").shows, source.column("flow").shows) == ("frames", "flow")
    assert source.column("sound").may_lack


@pytest.mark.slow
def test_what_cannot_be_is_one_sentence(films, tmp_path):
    for weights, words in (
        ("method.weights.order_sound=1", "no task 'order_sound'"),
        ("method.weight=0", "all of method.weights are 0"),
        ("method.future=16", "set method.future to fewer"),
    ):
        with pytest.raises(UserError, match=words):
            sim.pretrain(
                films,
                method="elo",
                out=tmp_path / "r",
                epochs=1,
                batch_size=8,
                overrides=[*SENSORS, weights],
                report=False,
            )
    with pytest.raises(UserError, match="elo compares sensors: give a table"):
        sim.pretrain("digits", method="elo", out=tmp_path / "r", epochs=1)


@pytest.mark.slow
def test_damaged_videos_are_left_out(tmp_path):
    for i in range(11):
        write_video(tmp_path / f"{i:02d}.mp4", moving_square(1, seed=i, count=4))
    whole = (tmp_path / "00.mp4").read_bytes()
    (tmp_path / "00.mp4").write_bytes(whole[:64])
    videos = VIDEO.load(VIDEO.open_training(tmp_path, None), VIDEO.data_config(size=16))
    assert len(videos) == 10
    assert [name for name, _ in videos.unreadable] == ["00.mp4"]


@pytest.fixture
def shards(films, tmp_path):
    """The videos in two tar files, with a class beside each."""
    for s, name in enumerate(("fast", "slow")):
        files = {}
        for path in sorted((films / name).iterdir()):
            files[f"{name}/{path.name}"] = path.read_bytes()
            files[f"{name}/{path.stem}.cls"] = name.encode()
        write_tar(tmp_path / "shards" / f"{s}.tar", files)
    return tmp_path / "shards"


@pytest.mark.slow
def test_videos_of_tar_files_are_those_of_the_folder(films, shards):
    assert modality_of(shards).kind == "video"
    config = VIDEO.data_config(size=16, rate=10)
    mine, plain = (VIDEO.load(VIDEO.open_training(d, None), config) for d in (shards, films))
    assert np.array_equal(mine.frames.rows, plain.frames.rows)
    assert mine.labels.tolist() == plain.labels.tolist()


@pytest.mark.slow
def test_elo_takes_all_that_a_video_in_a_tar_file_gives(films, shards, tmp_path):
    options = {"method": "elo", "overrides": SENSORS, "batch_size": 8, "report": False}
    run, plain = (
        sim.pretrain(data, out=tmp_path / name, epochs=1, **options)
        for name, data in (("r", shards), ("s", films))
    )
    mine, other = run.checkpoint.method, plain.checkpoint.method
    assert all(torch.equal(other[name], value) for name, value in mine.items())


@pytest.mark.slow
def test_a_stopped_run_of_elo_goes_on_with_all_sensors(films, tmp_path):
    options = {"method": "elo", "overrides": SENSORS, "batch_size": 8, "report": False}
    whole = sim.pretrain(films, out=tmp_path / "s", epochs=2, **options)
    with pytest.raises(KeyboardInterrupt):
        sim.pretrain(films, out=tmp_path / "r", epochs=2, listener=BreakOff(), **options)
    run = sim.pretrain(films, out=tmp_path / "r", resume=True, report=False)
    mine, other = run.checkpoint.method, whole.checkpoint.method
    assert all(torch.equal(other[name], value) for name, value in mine.items())
