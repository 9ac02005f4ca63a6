"""Whatever moment a process is killed at, the next one finds a whole run."""

import errno
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from similitude.errors import UserError
from similitude.files.writing import locked, replacing
from similitude.runs import folder as places
from similitude.runs.folder import (
    RUN_FILES,
    check_run_folder,
    free_run_folder,
    is_held,
    replacing_run,
    settle,
    training_in,
)

CALLS = ("mkdir", "rename", "replace", "rmdir", "unlink")  # that change a folder
FOLDERS = ("checkpoints", "events")


class Killed(BaseException):
    """What follows does not happen."""


@contextmanager
def killed_at(monkeypatch, number):
    """From this call on nothing is changed on the disk; counts the calls."""
    calls = []

    def counted(real):
        def call(*args, **options):
            calls.append(real)
            if len(calls) > number:
                raise Killed
            return real(*args, **options)

        return call

    with monkeypatch.context() as patch, suppress(Killed):
        for name in CALLS:
            patch.setattr(os, name, counted(getattr(os, name)))
        yield calls


def write_run(folder: Path, content: str, *, without: tuple[str, ...] = ()) -> None:
    for name in RUN_FILES:
        path = folder / name / "last.ckpt" if name in FOLDERS else folder / name
        if name not in without:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)


def read(folder: Path) -> dict[str, str]:
    """Every file of the folder but its lock."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def whole(content: str) -> dict[str, str]:
    names = {n: f"{n}/last.ckpt" if n in FOLDERS else n for n in RUN_FILES}
    return {**dict.fromkeys(names.values(), content), "notes.txt": "mine"}


def replace_run(folder: Path, *, succeeds: bool) -> None:
    with training_in(folder, overwrite=True), replacing_run(folder):
        write_run(folder, "new", without=("checkpoints",))
        if not succeeds:
            raise UserError("no checkpoint")
        write_run(folder, "new")


@pytest.mark.slow
@pytest.mark.parametrize("succeeds", [True, False])
def test_a_replacement_that_is_killed_anywhere_leaves_the_old_run_or_the_new_one(
    succeeds, tmp_path, monkeypatch, caplog
):
    """Killed a second time while the first kill is being repaired, too."""
    write_run(tmp_path / "run", "old")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    folder, found, number, was_killed = tmp_path / "copy", set(), 0, True
    while was_killed:
        for second in (0, 3):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(tmp_path / "run", folder)
            with killed_at(monkeypatch, number) as calls, suppress(UserError):
                replace_run(folder, succeeds=succeeds)
            was_killed = len(calls) > number
            with killed_at(monkeypatch, second):
                settle(folder)
            caplog.clear()
            settle(folder)
            assert read(folder) in (whole("old"), whole("new")), number
            found.add(read(folder)["recipe.yaml"])
            check_run_folder(folder, resume=True)
        number += 1
    assert number > 30
    assert found == ({"old", "new"} if succeeds else {"old"})


def test_a_disk_that_is_full_is_told_and_the_old_run_stays(tmp_path, monkeypatch):
    write_run(tmp_path, "old")
    (tmp_path / "notes.txt").write_text("mine")

    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    with training_in(tmp_path, overwrite=True), monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", full)
        with pytest.raises(UserError, match="the disk is full"), replacing_run(tmp_path):
            pass
    assert read(tmp_path) == whole("old")


def test_a_repair_is_told(tmp_path, monkeypatch, caplog):
    write_run(tmp_path, "old")
    with killed_at(monkeypatch, 5):
        replace_run(tmp_path, succeeds=False)
    settle(tmp_path)
    assert f"the run in {tmp_path}" in caplog.text
    assert "the old one" in caplog.text


def test_a_replacement_under_way_is_left_alone(tmp_path):
    write_run(tmp_path, "old")
    with training_in(tmp_path, overwrite=True), replacing_run(tmp_path):
        assert is_held(tmp_path)
        settle(tmp_path)
        assert (tmp_path / ".replaced" / "recipe.yaml").exists()
        write_run(tmp_path, "new")
    assert not is_held(tmp_path)
    assert set(read(tmp_path).values()) == {"new"}


def test_a_folder_that_was_filled_meanwhile_is_refused_under_the_lock(tmp_path):
    folder = tmp_path / "run"
    check_run_folder(folder)
    write_run(folder, "of another command")
    with pytest.raises(UserError, match="not empty"), training_in(folder):
        pass
    assert set(read(folder).values()) == {"of another command"}


def test_a_lock_goes_with_its_holder_and_one_that_went_meanwhile_holds_nothing(
    tmp_path, monkeypatch
):
    opened = []

    def late(file, **how):
        if not opened:
            (tmp_path / ".lock").unlink()  # by the holder before, at its end
        opened.append(file)
        return locked(file, **how)

    monkeypatch.setattr(places, "locked", late)
    with training_in(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(UserError, match="another process trains"), training_in(tmp_path):
            pass
        assert is_held(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_killed_processes_were_writing_is_removed_and_does_not_stand_in_the_way(tmp_path):
    left = [".recipe.yaml.7.tmp.yaml", "checkpoints/.last.ckpt.7-0a1b2c3d.tmp.ckpt"]
    kept = [".hidden.tmp", "a.7.tmp"]  # not of such a name
    (tmp_path / "checkpoints").mkdir()
    for name in left + kept:
        (tmp_path / name).write_text("half")
    with replacing(tmp_path / "scores.json") as written:  # by a process that is at work
        with training_in(tmp_path, resume=True):
            pass
        assert sorted(read(tmp_path)) == sorted([*kept, written.name])
    for path in tmp_path.iterdir():
        path.rmdir() if path.is_dir() else path.unlink()
    (tmp_path / left[0]).write_text("half")
    (tmp_path / "log.txt").write_text("before the recipe was written")
    check_run_folder(tmp_path)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("photos/birds.pack", "birds-simclr"),
        ("https://a.b/c/train-{000..099}.tar?key=a/b", "train-simclr"),
        ("hf://datasets/a/b/*.tar", "images-simclr"),
        ("my photos", "my-photos-simclr"),
    ],
)
def test_a_run_is_called_after_its_data_in_letters_that_shells_leave_alone(data, name):
    assert free_run_folder(data, "simclr") == Path("runs") / name


def test_the_own_default_place_is_checked_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(UserError, match="cannot write runs"):
        check_run_folder(None)
