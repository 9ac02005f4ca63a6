"""A sample of benchmarks/fuzz.py: damaged files of every kind are one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"


def test_damaged_files_of_every_kind_are_one_sentence():
    command = [sys.executable, str(SCRIPT), "--count", "15", "--seed", "1"]
    command += ["--seconds", "60"]  # other tests keep the cores busy
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout
