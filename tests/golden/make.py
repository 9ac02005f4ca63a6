"""What must not change by accident: 20 steps of every method, every recipe, stored runs.

    OMP_NUM_THREADS=1 python tests/golden/make.py [traces] [recipes] [runs]

writes the files beside it anew; `tests/contract/test_golden.py` compares. Losses to the last bit
and the state's fingerprint hold for one build of PyTorch on one processor. Elsewhere rounding grows
with the steps: with AVX2 in place of AVX-512 ten steps differ by 2e-5 at most, twenty by 0.2
(SimCLR v2), so ten are compared there.
"""

import csv
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from builders import IMAGE_METHODS, random_images, small_recipe
from similitude import pretrain
from similitude.listener import Silent
from similitude.nets.weights import fingerprint_of
from similitude.recipes import RECIPES, dump_recipe, find_recipe
from similitude.report import write_report
from similitude.runs.checkpoint import load_checkpoint
from similitude.runs.environment import processor

HERE = Path(__file__).parent
STEPS = 20
RUNS = ("finished", "stopped", "adapted")


def machine() -> str:
    """What the last bits depend on."""
    return f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {processor()}"


def trace(name: str) -> dict[str, Any]:
    """Losses of the first steps of a method, and a fingerprint of all its state after them."""
    recipe = small_recipe(name, epochs=STEPS // 4, precision="float32")
    with tempfile.TemporaryDirectory() as folder:
        pretrain(random_images(64), recipe=recipe, out=folder, overwrite=True, report=False)
        with (Path(folder) / "metrics.csv").open() as file:
            losses = [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]
        state = load_checkpoint(Path(folder) / "checkpoints" / "last.ckpt").method
    return {"losses": losses, "state": fingerprint_of(state)}


def recipes() -> str:
    """Every recipe by its name, as a run folder keeps it."""
    return "".join(f"--- # {name}\n{dump_recipe(find_recipe(name))}" for name in sorted(RECIPES))


class _StopAt(Silent):
    """Presses Ctrl-C when a step is reported."""

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        if what == "training" and done == STEPS // 2:
            signal.raise_signal(signal.SIGINT)


def store_runs() -> None:
    """One run finished and evaluated, one stopped half-way, one that started from the first."""
    os.chdir(HERE)  # so that no place on this machine stands in them
    shutil.rmtree("stored", ignore_errors=True)
    images = random_images(64)
    changes = {"epochs": STEPS // 4, "precision": "float32"}

    def options(name: str, folder: str) -> dict[str, Any]:
        return {"recipe": small_recipe(name, **changes), "out": f"stored/{folder}"}

    run = pretrain(images, **options("simclr", "finished"))
    assert run is not None
    run.evaluate(images)
    with suppress(KeyboardInterrupt):
        pretrain(images, **options("moco_v2", "stopped"), listener=_StopAt())
    pretrain(images, **options("byol", "adapted"), init="stored/finished")
    for name in RUNS:
        folder = HERE / "stored" / name
        shutil.rmtree(folder / "events")
        for file in (".lock", "embedding.npz", "report.html"):
            (folder / file).unlink(missing_ok=True)
        (folder / "page.html").write_text(page(folder))


def page(folder: Path) -> str:
    """The report of a copy of a run folder, without scripts and style; pictures as fingerprints."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / folder.name
        shutil.copytree(folder, copy)
        html = write_report([copy]).read_text()
    html = re.sub(r"<(script|style)>.*?</\1>", r"<\1></\1>", html, flags=re.DOTALL)
    html = re.sub(
        r"base64,([A-Za-z0-9+/=]+)",
        lambda found: "base64," + hashlib.sha256(found[1].encode()).hexdigest()[:16],
        html,
    )
    return html.replace(place, "...")


def main() -> None:
    wanted = sys.argv[1:] or ["traces", "recipes", "runs"]
    if "traces" in wanted:
        content = {"machine": machine(), **{name: trace(name) for name in IMAGE_METHODS}}
        (HERE / "traces.json").write_text(json.dumps(content, indent=1) + "\n")
    if "recipes" in wanted:
        (HERE / "recipes.yaml").write_text(recipes())
    if "runs" in wanted:
        store_runs()


if __name__ == "__main__":
    main()
