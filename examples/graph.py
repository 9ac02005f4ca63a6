"""A graph: learn of nodes from edges and features, without labels.

    python examples/graph.py GRAPH --method simclr --epochs 200

GRAPH is an .npz file with x [M, D], edge_index [2, E] and y [M], or any other form that
docs/graphs.md names.
"""

import argparse

import similitude as sim


def main() -> None:
    """Train, and score beside features that are averaged over neighbors and learn nothing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("graph")
    parser.add_argument("--method", default="barlow_twins")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--out", default="runs/graph")
    args = parser.parse_args()

    run = sim.pretrain(args.graph, method=args.method, epochs=args.epochs, out=args.out)
    if run is None:
        raise SystemExit("stopped by Ctrl-C")
    print(run.verdict.sentence)
    print(run.evaluate(args.graph, protocols=("knn", "linear")))
    print("a node is", run.embed(args.graph).x.shape[1], "numbers")


if __name__ == "__main__":
    main()
