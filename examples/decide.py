"""Which model to use: a published one as it is, an adapted one, or one of your own.

python examples/decide.py PHOTOS LABELED --against efficientnet-lite0 --minutes 20
"""

import argparse

import similitude as sim


def main() -> None:
    """Try all ways on equal terms, and print them from the best on."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos")
    parser.add_argument("labeled")
    parser.add_argument("--against", nargs="*", default=())
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", default="decisions/photos")
    args = parser.parse_args()

    found = sim.decide(
        args.photos, args.labeled, against=args.against, minutes=args.minutes, out=args.out
    )
    if found is None:
        raise SystemExit("stopped by Ctrl-C: the same command goes on")
    for way in sorted(found.ways, key=lambda way: -way.score.mean):
        print(f"{100 * way.score.mean:5.1f} %  {way.title}")
    print(found.sentence)


if __name__ == "__main__":
    main()
