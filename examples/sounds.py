"""Sounds: what BYOL-A learns of a folder of clips, and which clips sound alike.

    pip install 'similitude[audio]'
    python examples/sounds.py CLIPS --minutes 10

CLIPS has train/ and test/, each with a folder for each class.
"""

import argparse

import similitude as sim


def main() -> None:
    """Train, score beside log-mel spectrograms, search."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("clips")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", default="runs/clips")
    args = parser.parse_args()

    run = sim.pretrain(args.clips, minutes=args.minutes, out=args.out)
    if run is None:
        raise SystemExit("stopped by Ctrl-C")
    print(run.verdict.sentence)
    print(run.evaluate(args.clips, protocols=("knn", "linear")))
    embeddings = run.embed(args.clips)
    alike = sim.embeddings.search(embeddings, query=[embeddings.names[0]], count=3)
    print(alike.told, *alike.rows(), sep="\n")


if __name__ == "__main__":
    main()
