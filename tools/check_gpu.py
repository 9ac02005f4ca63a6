"""All that is to be known of a GPU, in one command: the tests, then the table.

    python tools/check_gpu.py [tests] [table] [--cifar10 CIFAR10] [--out FOLDER]

Runs in a checkout that is not installed too, where packages cannot be fetched: benchmarks/wheels.py
says which wheels must lie beside it. Writes tests.txt, table.txt and gpu.json. Without a GPU the
tests skip with a sentence, and the table is rehearsed.
"""

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import wheels

WORKERS = 4  # that share the GPU
SECONDS = {"tests": 240, "table": 330}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "parts", nargs="*", choices=["tests", "table", []], default=[], metavar="tests|table"
    )
    parser.add_argument("--cifar10", type=Path, help="for the minutes to kNN on CIFAR-10")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    args = parser.parse_args()
    wheels.prepare()
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    from similitude.devices import best_device

    on_gpu = best_device().type != "cpu"
    table = ["benchmarks/gpu.py", "--out", str(args.out / "gpu.json")]
    if args.cifar10:
        table += ["--cifar10", str(args.cifar10.resolve())]
    here = {"tests": tests(on_gpu), "table": table if on_gpu else [*table, "--rehearse"]}
    codes = [
        run(here[part], args.out / f"{part}.txt", SECONDS[part] if on_gpu else None)
        for part in args.parts or here
    ]
    raise SystemExit(any(codes))


def tests(on_gpu: bool) -> list[str]:
    """The command that runs them; with several processes a GPU is busy."""
    words = ["-m", "pytest", "-q", "-m", "gpu", "tests/gpu", "--durations=10"]
    if on_gpu and importlib.util.find_spec("xdist"):
        words += ["-n", str(WORKERS), "--dist", "loadgroup"]
    return words


def run(words: list[str], log: Path, seconds: float | None) -> int:
    """Run Python in the checkout, and keep what it says, however it ends."""
    print(f"$ python {' '.join(words)}", flush=True)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if "pytest" in words:
        environment["OMP_NUM_THREADS"] = "1"  # of each of several workers
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        limit = threading.Timer(
            seconds or threading.TIMEOUT_MAX, process.send_signal, [signal.SIGINT]
        )  # upon which pytest tells what has failed
        limit.daemon = True
        limit.start()
        for line in process.stdout:
            print(line, end="", flush=True)
            file.write(line)
        limit.cancel()
    return process.returncode


if __name__ == "__main__":
    main()
