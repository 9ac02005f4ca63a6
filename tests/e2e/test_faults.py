"""A sample of benchmarks/faults.py: whatever befalls a command, it goes on to the same bits."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "faults.py"
SOME = [
    *("--only", "kill", "writes", "full", "--kills", "2", "--writes", "2"),
    *("--methods", "byol_a", "--commands", "pretrain", "embed, npz", "report"),
]


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and looks into /proc")
def test_a_command_that_something_befalls_goes_on_to_the_same_bits():
    command = [sys.executable, str(SCRIPT), "--seed", "1", *SOME]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "20 of 20 right" in done.stdout
