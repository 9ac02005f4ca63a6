"""Photos with texts: CLIP on a table, and which photos a sentence finds.

    pip install 'similitude[text]'
    python examples/image_text.py pairs.csv --epochs 30

The table has a column of image files and one of texts; perhaps label and split (docs/sensors.md).
"""

import argparse

import similitude as sim


def main() -> None:
    """Train both networks, and count how often a text finds its photo."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("table")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--out", default="runs/pairs")
    args = parser.parse_args()

    run = sim.pretrain(
        args.table, method="clip", epochs=args.epochs, batch_size=args.batch_size, out=args.out
    )
    if run is None:
        raise SystemExit("stopped by Ctrl-C")
    print(run.verdict.sentence)
    print(run.retrieve(args.table))  # beside the same networks with random weights
    print("features of photos:", tuple(run.embed(args.table).x.shape))


if __name__ == "__main__":
    main()
