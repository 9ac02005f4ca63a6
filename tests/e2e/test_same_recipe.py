"""The machine's load has no say in what is trained."""

import subprocess
import sys

import pytest

import similitude as sim
from builders import write_photos


@pytest.mark.slow
def test_a_busy_machine_makes_the_same_recipe_as_a_quiet_one(tmp_path) -> None:
    photos = write_photos(tmp_path / "photos", 160, size=64)

    def recipe(name: str) -> str:
        run = sim.pretrain(photos, minutes=0.005, out=tmp_path / name, report=False)
        assert run is not None
        return (run.path / "recipe.yaml").read_text()

    quiet = recipe("quiet")
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        assert recipe("busy") == quiet
    finally:
        for process in others:
            process.kill()
            process.wait()
