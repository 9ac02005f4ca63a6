"""What is on disk is the old content or the new, whatever goes wrong while writing."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
import torch

from similitude.errors import UserError
from similitude.files.writing import (
    held,
    making,
    new_folder,
    remove_folder,
    remove_temporaries,
    replacing,
    write_text,
    write_with,
)
from similitude.runs.checkpoint import export_backbone

pytest.importorskip("resource", reason="needs the system's limit of file sizes")

# The system refuses to let a file grow, as on a full disk, in a process of its own.
WRITER = """
import resource, sys
from pathlib import Path
import torch
from similitude.runs.checkpoint import export_backbone
from similitude.errors import UserError

resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    export_backbone({"weight": torch.ones(10_000)}, Path(sys.argv[1]))
except UserError as error:
    print(error)
"""


def test_content_is_replaced(tmp_path):
    path = tmp_path / "new folder" / "a.txt"
    write_text(path, "old")
    write_text(path, "n\u00e9w")
    assert path.read_text(encoding="utf-8") == "n\u00e9w"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_failure_in_the_middle_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(temporary):
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_with(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/a\.txt"):
        write_text(tmp_path / "file" / "a.txt", "new")


def killed_while(do) -> None:
    """Do something in a process that kills itself in the middle."""
    if (pid := os.fork()) == 0:
        with suppress(BaseException):
            do()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def die(path) -> None:
    (path / "half").write_text("half") if path.is_dir() else path.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)


def make_folder(path) -> None:
    with new_folder(path) as temporary:
        (temporary / "a").write_text("whole")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_was_writing_goes_when_it_is_written_again(kind, tmp_path):
    path = tmp_path / "x.npz"

    def killed():
        with (replacing if kind == "file" else new_folder)(path) as temporary:
            die(temporary)

    killed_while(killed)
    assert [p.name.endswith(".tmp.npz") for p in tmp_path.iterdir()] == [True]
    write_text(path, "whole") if kind == "file" else make_folder(path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


def test_a_temporary_file_of_a_temporary_file_goes_too(tmp_path):
    """An export writes into a temporary file what takes care of itself."""
    path = tmp_path / "x.safetensors"

    def killed():
        with replacing(path) as outer, replacing(outer) as inner:
            die(inner)

    killed_while(killed)
    assert len(list(tmp_path.iterdir())) == 2
    write_text(path, "whole")
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_what_somebody_else_is_writing_stays_whatever_its_process_is_called(tmp_path):
    """Two containers have processes of the same number, and none of the other's."""
    path = tmp_path / "a.txt"
    with replacing(path) as first:
        with replacing(path) as second:
            assert first != second
            remove_temporaries(tmp_path)
            first.write_text("first")
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_file_that_is_moved_into_its_place_is_held_while_it_is_finished(tmp_path):
    """Canvases are decoded into a file of their own, and get their facts at its end."""
    partial, path = tmp_path / "x.partial", tmp_path / "x.pack"
    partial.write_text("canvases")
    with making(path, partial.replace) as temporary:
        remove_temporaries(tmp_path)
        assert temporary.read_text() == "canvases"
    assert path.read_text() == "canvases"
    assert [p.name for p in tmp_path.iterdir()] == ["x.pack"]


def test_a_file_that_somebody_took_for_a_leftover_is_made_again(tmp_path):
    path, made = tmp_path / "x", []

    def make():
        made.append(1)
        if len(made) > 1:  # the first is gone before it is locked
            path.touch()

    with held(path, make) as is_ours:
        assert is_ours
    assert len(made) == 2


def test_one_alone_holds_a_folder_until_it_is_gone(tmp_path):
    folder = tmp_path / "parts"

    def make():
        folder.mkdir(exist_ok=True)

    with held(folder, make) as is_ours, held(folder, make) as is_theirs:
        assert (is_ours, is_theirs) == (True, False)
        remove_folder(folder)
        with held(folder, make) as is_next:
            assert is_next
    killed_while(lambda: held(folder, make).__enter__() and os.kill(os.getpid(), signal.SIGKILL))
    with held(folder, make) as is_ours:
        assert is_ours


def test_a_folder_that_is_being_removed_has_its_name_no_more(tmp_path, monkeypatch):
    folder = tmp_path / "x.parts"
    folder.mkdir()
    (folder / "a").write_text("a")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *given, **more: None)  # killed before it
        remove_folder(folder)
    assert not folder.exists()
    remove_temporaries(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_write_that_the_system_refuses_keeps_the_old_weights(tmp_path):
    path = tmp_path / "backbone.safetensors"
    export_backbone({"weight": torch.zeros(3)}, path)
    before = path.read_bytes()
    writer = subprocess.run(
        [sys.executable, "-c", WRITER, path], capture_output=True, text=True, check=True
    )
    assert f"cannot write {path}: File too large" in writer.stdout
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
