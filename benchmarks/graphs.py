"""Nodes of a graph without labels: Graph Barlow Twins and GRACE beside propagation.

    python benchmarks/graphs.py CORA_FOLDER --seeds 0 1 2

Takes what `similitude pretrain` takes as one graph, with classes. Prints a Markdown table:
accuracies in percent, mean and standard deviation over the seeds, of three splits: the graph's own,
where it has one; 20 labels of each class; 10 % of the nodes. Of the last two each seed draws one,
the same for all rows, and all other nodes are the test.

The probe is a logistic regression on rows of unit length with one scale for all features, as in the
code of Graph Barlow Twins: a scale of its own for each feature harms sparse ones, on Cora by five
points.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split

import similitude as sim
from similitude.evaluation import extract_features
from similitude.modalities import modality

RECIPES = {
    "Graph Barlow Twins": "graphs.barlow_twins",
    "Graph Barlow Twins, HSIC": "graphs.barlow_twins_hsic",
    "GRACE": "graphs.grace",
}
PENALTIES = 10.0 ** np.arange(-3, 4)  # as scikit-learn's C, over the number of nodes
PER_CLASS, SHARE = 20, 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], help="FIELD=VALUE of the recipes")
    args = parser.parse_args()
    kind = modality("graph")
    source = kind.open_training(args.data, None)
    nodes = kind.load(source, kind.data_config())
    labels = nodes.labels.numpy()
    own = kind.open_parts(args.data, None)
    found: dict[str, dict[str, list[float]]] = {}
    seconds: dict[str, list[float]] = {}
    for seed in args.seeds:
        splits = {"20 per class": drawn(labels, seed, PER_CLASS), "10 %": drawn(labels, seed)}
        if len(own) == 2:
            splits = {"its own": tuple(part.index.numpy() for part in own)} | splits
        rows = {nodes.raw_name: nodes.raw(), **nodes.baselines()}
        for name, recipe in RECIPES.items():
            start = time.perf_counter()
            run = trained(args.data, recipe, seed, args.set)
            seconds.setdefault(name, []).append(time.perf_counter() - start)
            if "random GCN" not in rows:
                rows["random GCN"] = extract_features(run.untrained(), nodes, run.facts).x
            rows[name] = run.embed(args.data).x
        for name, x in rows.items():
            for split, (train, test) in splits.items():
                score = accuracy(x, labels, train, test, seed)
                found.setdefault(name, {}).setdefault(split, []).append(score)
        print(f"seed {seed} is done", flush=True)
    columns = list(next(iter(found.values())))
    print(f"\n| | {' | '.join(columns)} | s |\n{'|---' * (len(columns) + 2)}|")
    for name, scores in found.items():
        took = f"{statistics.fmean(seconds[name]):.0f}" if name in seconds else ""
        print(f"| {name} | {' | '.join(map(told, scores.values()))} | {took} |")


def trained(data: Path, recipe: str, seed: int, settings: list[str]) -> sim.Run:
    out = Path(tempfile.mkdtemp(prefix="graphs-")) / "run"
    return sim.pretrain(data, recipe=recipe, seed=seed, overrides=settings, out=out, report=False)


def drawn(labels: np.ndarray, seed: int, per_class: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Nodes to learn from and to test on: so many of each class, or a share of all."""
    known = np.flatnonzero(labels >= 0)
    if not per_class:
        return tuple(
            train_test_split(known, train_size=SHARE, stratify=labels[known], random_state=seed)
        )
    order = np.random.default_rng(seed).permutation(known)
    train = np.concatenate(
        [order[labels[order] == c][:per_class] for c in np.unique(labels[known])]
    )
    return train, np.setdiff1d(known, train)


def accuracy(
    x: torch.Tensor, labels: np.ndarray, train: np.ndarray, test: np.ndarray, seed: int
) -> float:
    """Of a logistic regression whose penalty is chosen by five folds of the training nodes."""
    rows = torch.nn.functional.normalize(x.double())
    if len(train) < rows.shape[1]:  # the solution lies in the span of the training rows
        rows = rows @ torch.linalg.qr(rows[train].T)[0]
    scaled = (rows / rows[train].std()).numpy()
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    probe = GridSearchCV(LogisticRegression(max_iter=500), {"C": PENALTIES / len(train)}, cv=folds)
    return probe.fit(scaled[train], labels[train]).score(scaled[test], labels[test])


def told(scores: list[float]) -> str:
    spread = f" ± {100 * statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
    return f"{100 * statistics.fmean(scores):.1f}{spread}"


if __name__ == "__main__":
    main()
