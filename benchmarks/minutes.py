"""Minutes to a kNN accuracy on CIFAR-10, from the JPEG folder on, against lightly.

    python -m venv peer && peer/bin/pip install lightly timm
    python benchmarks/minutes.py CIFAR10_FOLDER --peer peer/bin/python

The folder holds train/CLASS/*.jpg and test/CLASS/*.jpg. Each side trains whole schedules of more
and more epochs, each from the start, until its last epoch reaches --target; what counts is the time
from the start of Python to the end of that training, decoding
included. lightly has our views' settings (crops, jitter), our rate and warm-up, and its own
implementation of them in float32, as its examples have it. One seed. Prints one Markdown table of
all that was trained.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PEER = Path(__file__).parent / "peers" / "lightly_knn.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--peer", type=Path, help="python with lightly; without it only ours")
    parser.add_argument("--recipe", default="cifar10.inva_spread")
    parser.add_argument("--epochs", default="3,4,5,6,8,10")
    parser.add_argument("--peer-epochs", default="4,6,8,10,12,16")
    parser.add_argument("--sizes", default="32,24", help="of lightly's views, in pixels")
    parser.add_argument("--target", type=float, default=60.0, help="per cent")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(*train(args.folder, args.recipe, args.one))
        return
    print("| | epochs | kNN-20 | minutes |\n|---|---|---|---|")
    here = [sys.executable, __file__, str(args.folder), "--recipe", args.recipe, "--one"]
    reach(args.recipe, args.epochs, args.target, here, [], dict(os.environ))
    if args.peer is None:
        return
    # spinning threads would take the cores from the peer's worker processes
    quiet = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    for size in args.sizes.split(","):
        name = f"lightly, SimCLR, views of {size} px"
        command = [str(args.peer), str(PEER), str(args.folder)]
        reach(name, args.peer_epochs, args.target, command, ["--size", size], quiet)


def reach(
    name: str,
    epochs: str,
    target: float,
    command: list[str],
    options: list[str],
    environment: dict[str, str],
) -> None:
    """Train longer and longer until the target is reached; a row for each try."""
    for number in epochs.split(","):
        with tempfile.TemporaryDirectory() as cache:
            done = subprocess.run(
                [*command, number, *options],
                capture_output=True,
                text=True,
                env=environment | {"XDG_CACHE_HOME": cache},
                check=False,
            )
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        seconds, knn = map(float, done.stdout.split()[-2:])
        print(f"| {name} | {number} | {100 * knn:.1f} | {seconds / 60:.1f} |", flush=True)
        if 100 * knn >= target:
            return


def train(folder: Path, recipe: str, epochs: int) -> tuple[float, float]:
    """Seconds of a training from the start of Python, and the share that kNN finds."""
    start = time.time()
    import similitude as sim

    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "run"
        run = sim.pretrain(folder / "train", recipe=recipe, epochs=epochs, out=out, report=False)
        seconds = time.time() - start
        assert run is not None
        table = run.evaluate(folder, protocols=["knn"])
    return seconds, table.rows["pretrained backbone"]["knn"].mean


if __name__ == "__main__":
    main()
