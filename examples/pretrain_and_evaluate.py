"""From a folder of photos to a judged backbone.

    python examples/pretrain_and_evaluate.py PHOTOS LABELED --method byol --minutes 10

LABELED has a folder for each class, or train/ and test/ with such folders. Labels are read by the
scores alone.
"""

import argparse

import similitude as sim


def main() -> None:
    """Train, read the verdict, score, export."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos")
    parser.add_argument("labeled")
    parser.add_argument("--method", default="simclr")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", default="runs/photos")
    args = parser.parse_args()

    run = sim.pretrain(args.photos, method=args.method, minutes=args.minutes, out=args.out)
    if run is None:
        raise SystemExit("stopped by Ctrl-C: give resume=True to go on")
    print(run.verdict.sentence)
    table = run.evaluate(args.labeled)  # beside raw pixels and random weights
    print(table, *table.sentences(), sep="\n")
    print(run.report())
    print(run.export(f"{args.out}/backbone.safetensors"))  # Python that loads it with timm


if __name__ == "__main__":
    main()
