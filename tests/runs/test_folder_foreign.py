"""A run folder of somebody else leads to no file of mine."""

import os

import pytest
from typer.testing import CliRunner

import similitude as sim
from builders import BACKBONE, write_photos
from similitude.cli import app
from similitude.errors import UserError
from similitude.runs.folder import RUN_FILES, refuse_links

PLACES = [*RUN_FILES, ".lock", ".replaced", "checkpoints/last.ckpt"]


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe"])
def test_every_place_that_is_written_to_must_be_of_the_run(tmp_path, name, kind):
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        target = tmp_path / "mine"
        if kind == "link":
            target.write_text("precious")
        path.symlink_to(target)
    with pytest.raises(UserError, match=r"link to another place|pipe or device"):
        refuse_links(tmp_path / "run")


def test_what_is_appended_to_has_no_other_name(tmp_path):
    (tmp_path / "mine").write_text("precious")
    for name in ("log.txt", ".lock"):
        os.link(tmp_path / "mine", tmp_path / name)
        with pytest.raises(UserError, match="link to another place"):
            refuse_links(tmp_path)
        (tmp_path / name).unlink()
    os.link(tmp_path / "mine", tmp_path / "metrics.csv")  # a copy by hard links: it is replaced
    refuse_links(tmp_path)


@pytest.mark.slow
def test_no_command_writes_through_a_link(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos", 40)
    small = {"backbone": BACKBONE, "epochs": 1, "batch_size": 8}
    assert sim.pretrain("photos", out="run", **small) is not None
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "elsewhere").mkdir()
    runner = CliRunner()
    for name, commands in {
        "log.txt": (["pretrain", "photos", "--out", "run", "--resume"],),
        ".lock": (
            ["pretrain", "photos", "--out", "run", "--resume"],
            ["pretrain", "photos", "--out", "run", "--overwrite"],
        ),
        "evaluation.json": (["evaluate", "run", "photos", "--protocol", "knn"],),
        "report.html": (["report", "run"], ["evaluate", "run", "photos"]),
        "events": (["pretrain", "photos", "--out", "run", "--resume"],),
    }.items():
        place, aside = tmp_path / "run" / name, tmp_path / "aside"
        if place.exists():
            place.rename(aside)
        place.symlink_to(tmp_path / ("elsewhere" if name == "events" else "mine"))
        for words in commands:
            refused = runner.invoke(app, words).exception
            assert isinstance(refused, UserError), words
            assert str(place.relative_to(tmp_path)) in str(refused)
        place.unlink()
        if aside.exists():
            aside.rename(place)
    assert (tmp_path / "mine").read_text() == "precious"
    assert list((tmp_path / "elsewhere").iterdir()) == []
