"""A search over a million embeddings: time to build, memory, milliseconds of a query, recall.

    pip install 'similitude[search]'
    python benchmarks/search.py
    python benchmarks/search.py --rows 50000 --dim 128

Each row of the table is a process of its own, so that its memory is its own: the exact search, and
graphs of usearch with several numbers of candidates. Rows are drawn around some thousand centers on
the unit sphere, as embeddings lie; queries are other draws of the same. Recall is the share of the
exact 10 nearest that are found. Memory is the largest the process had, less what it had when the
rows were there. Prints one Markdown table.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
import torch

from similitude.embeddings import neighbors
from similitude.embeddings.neighbors import build_index, unit_rows
from similitude.listener import Silent

K = 10
CENTERS = 5_000
SPREAD = 0.5  # length of the noise around a center of length 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--candidates", default="64,128,256", help="that a graph keeps")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        print(json.dumps(measure(args)))
        return
    print(f"{args.rows:,} rows of {args.dim} numbers, {args.threads} threads\n")
    print("| search | build, s | memory beside the rows, MB | ms a query | at once, ms | recall |")
    print("|---|---|---|---|---|---|")
    for candidates in (0, *map(int, args.candidates.split(","))):
        given = {**vars(args), "one": candidates}
        options = [f"--{name}={value}" for name, value in given.items()]
        done = subprocess.run(
            [sys.executable, __file__, *options], stdout=subprocess.PIPE, text=True, check=True
        )
        found = json.loads(done.stdout)
        name = f"graph, {candidates} candidates" if candidates else "exact"
        print(f"| {name} | " + " | ".join(f"{value:.4g}" for value in found) + " |", flush=True)


def measure(args: argparse.Namespace) -> list[float]:
    """Seconds to build, MB, milliseconds of a query alone and of all at once, recall."""
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    centers = unit_rows(rng.normal(size=(CENTERS, args.dim)).astype(np.float32)).numpy()
    x, queries = (drawn(centers, n, rng) for n in (args.rows, args.queries))
    with_rows = peak()
    begin = time.perf_counter()
    if args.one:
        neighbors.EXPANSION = args.one
    index = build_index(x, approximate=args.one > 0)
    built = time.perf_counter() - begin
    begin = time.perf_counter()
    _, found = index.search(queries, K, Silent())
    at_once = time.perf_counter() - begin
    begin = time.perf_counter()
    for query in queries[:100].split(1):
        index.search(query, K, Silent())
    alone = time.perf_counter() - begin
    memory = peak() - with_rows
    right = build_index(x).search(queries, K, Silent())[1]
    recall = (right[:, :, None] == found[:, None]).any(dim=2).double().mean().item()
    return [built, memory, 10 * alone, 1000 * at_once / len(queries), recall]


def drawn(centers: np.ndarray, count: int, rng: np.random.Generator) -> torch.Tensor:
    """Rows of unit norm, some at a time: a million in double precision would be too many."""
    dim = centers.shape[1]
    x = np.empty((count, dim), np.float32)
    for first in range(0, count, 10_000):
        some = x[first : first + 10_000]
        noise = rng.standard_normal(some.shape, np.float32) * (SPREAD / dim**0.5)
        some[:] = centers[rng.integers(0, len(centers), len(some))] + noise
    return unit_rows(x)


def peak() -> float:
    """The most memory that the process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
