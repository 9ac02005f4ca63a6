"""What is on disk is the old content or the new, whatever goes wrong while writing."""

import subprocess
import sys

import pytest
import torch

from similitude.errors import UserError
from similitude.files.writing import write_text, write_with
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
