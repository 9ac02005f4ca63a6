"""Peak memory and time of losses over large matrices, against their plain formulas.

    python benchmarks/losses.py [--losses nt_xent,info_nce] [--rounds 3]

Each measurement is a process of its own: value and gradient once to warm up, then timed; memory is
the most that the process held beyond what it had before. Ours and the plain formula take turns.
Prints one Markdown table of medians.
"""

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from similitude.losses import (
    barlow_twins,
    in_batch_info_nce,
    info_nce,
    instance_nce,
    mean_over_bank_rows,
    nt_xent,
)


def unit(*shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape), dim=-1)


def plain_nt_xent(z1: Tensor, z2: Tensor) -> Tensor:
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    logits = z @ z.T / 0.1
    logits = logits.masked_fill(torch.eye(len(z), dtype=torch.bool), -math.inf)
    return F.cross_entropy(logits, torch.arange(len(z)).roll(len(z1)))


def plain_info_nce(query: Tensor, key: Tensor, negatives: Tensor) -> Tensor:
    logits = torch.cat([(query * key).sum(dim=1, keepdim=True), query @ negatives.T], dim=1) / 0.2
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.long))


def plain_in_batch(query: Tensor, key: Tensor) -> Tensor:
    logits = F.normalize(query, dim=1) @ F.normalize(key, dim=1).T / 0.2
    return F.cross_entropy(logits, torch.arange(len(query)))


def plain_barlow_twins(z1: Tensor, z2: Tensor) -> Tensor:
    z1, z2 = (F.batch_norm(z, None, None, training=True) for z in (z1, z2))
    c = z1.T @ z2 / len(z1)
    on_diagonal = (c.diagonal() - 1).square().sum()
    return on_diagonal + 0.0051 * (c - torch.diag(c.diagonal())).square().sum()


NUM_SAMPLES = 1_281_167
ROWS = 16_385
NORMALIZER = 2.8e6  # what a first batch gives: 2.2 for each image


def plain_nce(features: Tensor, bank: Tensor, index: Tensor) -> Tensor:
    p = (torch.einsum("np,ncp->nc", features, bank[index]) / 0.07).exp() / NORMALIZER
    noise = (ROWS - 1) / NUM_SAMPLES
    is_data = (p[:, 0] / (p[:, 0] + noise + 1e-7)).log()
    return -(is_data + (noise / (p[:, 1:] + noise + 1e-7)).log().sum(dim=1)).mean()


def our_nce(features: Tensor, bank: Tensor, index: Tensor) -> Tensor:
    def loss(some: Tensor, rows: Tensor) -> Tensor:
        settings = {"temperature": 0.07, "normalizer": NORMALIZER, "num_samples": NUM_SAMPLES}
        return instance_nce(some, rows, **settings)

    return mean_over_bank_rows(loss, features, bank, index)


Loss = Callable[..., Tensor]
# name: ours, plain, inputs; the first "learned" of them get gradients
CASES: dict[str, tuple[Loss, Loss, Callable[[], list[Tensor]], int]] = {
    "nt_xent, N 16,384, P 128": (
        lambda *z: nt_xent(*z, temperature=0.1),
        plain_nt_xent,
        lambda: [torch.randn(16_384, 128) for _ in range(2)],
        2,
    ),
    "info_nce, N 1,024, queue 65,536": (
        lambda *z: info_nce(*z, temperature=0.2),
        plain_info_nce,
        lambda: [unit(1024, 128), unit(1024, 128), unit(65_536, 128)],
        1,
    ),
    "in_batch_info_nce, N 16,384": (
        lambda *z: in_batch_info_nce(*z, temperature=0.2),
        plain_in_batch,
        lambda: [torch.randn(16_384, 256) for _ in range(2)],
        1,
    ),
    "instance_nce, N 128, 16,384 noise rows": (
        our_nce,
        plain_nce,
        lambda: [unit(128, 128), unit(100_000, 128), torch.randint(100_000, (128, ROWS))],
        1,
    ),
    "barlow_twins, N 1,024, P 8,192": (
        lambda *z: barlow_twins(*z, off_diagonal_weight=0.0051),
        plain_barlow_twins,
        lambda: [torch.randn(1024, 8192) for _ in range(2)],
        2,
    ),
}


def measure(case: str, side: int, rounds: int) -> dict[str, float]:
    torch.manual_seed(0)
    *sides, inputs, learned = CASES[case]
    tensors = inputs()
    for tensor in tensors[:learned]:
        tensor.requires_grad_()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        value = sides[side](*tensors)
        grads = torch.autograd.grad(value, tensors[:learned])
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": min(seconds[1:]),
        "gigabytes": (peak - before) / 2**20,
        "loss": value.item(),
        "gradient": grads[0].double().norm().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--losses", default="", help="whose names begin so; default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], int(args.one[1]), 2)))
        return
    wanted = tuple(args.losses.split(","))
    print("| | GB | GB, plain | ratio | s | s, plain | ratio |\n|---|---|---|---|---|---|---|")
    for case in (name for name in CASES if name.startswith(wanted)):
        pairs = []
        for _ in range(args.rounds):
            pair = []
            for side in (0, 1):
                command = [sys.executable, __file__, "--one", case, str(side)]
                printed = subprocess.run(command, check=True, capture_output=True, text=True)
                pair.append(json.loads(printed.stdout))
            pairs.append(pair)
        ours, plain = pairs[0]
        for what in ("loss", "gradient"):
            if abs(ours[what] / plain[what] - 1) > 1e-3:
                raise SystemExit(f"{case}: {what} {ours[what]} is not {plain[what]}")
        cells = []
        for what in ("gigabytes", "seconds"):
            columns = zip(*((a[what], b[what]) for a, b in pairs), strict=True)
            a, b = (statistics.median(column) for column in columns)
            cells += [f"{a:.2f}", f"{b:.2f}", f"{b / a:.1f}"]
        print(f"| {case} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
