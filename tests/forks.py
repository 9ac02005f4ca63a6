"""Scripts run in a process that is forked from one that has imported what takes seconds."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# What exports are opened with; similitude is not among it.
_SERVER = """
import contextlib, importlib, json, os, runpy, sys, traceback

for name in ("torch", "torchvision.transforms.v2", "timm", "transformers", "onnxruntime", "numpy"):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
for line in sys.stdin:
    words, folder, errors = json.loads(line)
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    code = 1
    try:
        file = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.chdir(folder)
        sys.argv = words
        sys.path[0] = os.path.dirname(words[0])
        runpy.run_path(words[0], run_name="__main__")
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
"""


class Forks:
    """In place of the module ``subprocess``, as exports use it."""

    def __init__(self, folder: Path) -> None:
        self._errors = folder / "errors"
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
        """Run ``[sys.executable, SCRIPT, ...]``."""
        asked, told = self._process.stdin, self._process.stdout
        assert asked is not None
        assert told is not None
        asked.write(json.dumps([command[1:], os.getcwd(), str(self._errors)]) + "\n")
        asked.flush()
        if not (line := told.readline()):
            raise RuntimeError(f"the process that forks has ended: {self._process.wait()}")
        errors = self._errors.read_text(encoding="utf-8")
        return subprocess.CompletedProcess(command, int(line), "", errors)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
