"""A graph as large as ogbn-arxiv: seconds and memory of sampled steps, and of all embeddings.

    python benchmarks/graph_scale.py [--nodes 169343] [--edges 1166243] [--features 128]

The graph is made up: few nodes have most of the edges, as in citations. What `similitude pretrain`
would choose for it takes some steps, then all nodes are embedded: exactly, of all their neighbors,
in one pass. Prints a Markdown table of seconds and of the most memory that the process has held so
far.
"""

import argparse
import time

import torch

from process import memory
from similitude.data.loader import Loader
from similitude.evaluation import extract_features
from similitude.methods import build_method
from similitude.modalities import modality
from similitude.training.choose import choose_for
from similitude.training.step import Pretraining


class MadeUp:
    """What torch_geometric's Data has."""

    def __init__(self, nodes: int, edges: int, features: int) -> None:
        generator = torch.Generator().manual_seed(0)
        ends = torch.rand(2, edges, generator=generator)
        self.edge_index = (nodes * torch.stack([ends[0], ends[1] ** 4])).long()
        self.x = torch.randn(nodes, features, generator=generator)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nodes", type=int, default=169_343)
    parser.add_argument("--edges", type=int, default=1_166_243)
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--method", default="barlow_twins")
    parser.add_argument("--set", action="append", default=[], help="FIELD=VALUE of the recipe")
    args = parser.parse_args()
    print("| | s | GB so far |\n|---|---|---|")
    begin = time.perf_counter()
    kind = modality("graph")
    source = kind.open_training(MadeUp(args.nodes, args.edges, args.features), None)
    begin = tell("the graph, every edge in both directions", begin)
    options = {"method": args.method, "overrides": args.set, "epochs": 1}
    recipe = choose_for(kind, source, len(source), **options)
    nodes = kind.load(source, recipe.data)
    method = build_method(recipe.method, recipe.backbone.build())
    per_epoch = len(nodes) // recipe.batch_size
    module = Pretraining(method, recipe, steps_per_epoch=per_epoch)
    steps = min(args.steps, per_epoch * recipe.epochs)
    begin = time.perf_counter()
    for step, batch in enumerate(
        Loader(nodes, batch_size=recipe.batch_size, seed=0, total_steps=steps)
    ):
        module.training_step(batch)
        if step == 0:
            begin = tell("the first step, which draws the epoch's edges", begin)
    each = (time.perf_counter() - begin) / max(1, steps - 1)
    tell(f"each of {steps - 1} more, of {recipe.batch_size:,} nodes", time.perf_counter() - each)
    begin = time.perf_counter()
    features = extract_features(method.kept_backbone, nodes, recipe.facts).x
    tell(f"all {len(features):,} embeddings of {features.shape[1]} numbers", begin)
    reason = recipe.reasons.get("data.neighbors", "as given")
    print(f"\nneighbors = {recipe.data.neighbors}: {reason}; {per_epoch} steps in an epoch")


def tell(what: str, begin: float) -> float:
    """A row of the table; the time after it."""
    gigabytes = memory("VmHWM") / 2**30
    print(f"| {what} | {time.perf_counter() - begin:.2f} | {gigabytes:.2f} |", flush=True)
    return time.perf_counter()


if __name__ == "__main__":
    main()
