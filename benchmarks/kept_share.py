"""How much of its start an adapted run should keep: finished runs scored at several shares.

    python benchmarks/kept_share.py RUN FOLDER [RUN FOLDER ...] [--shares 0,0.25,0.5,0.75,1]

A run that started from published weights keeps them as they were and as they became, so any mean of
the two can be scored without training: 1 is the start, 0 the network as training left it. Prints a
Markdown table.
"""

import argparse
from pathlib import Path

import similitude as sim
from similitude.evaluation import Entrant, evaluate_entrants
from similitude.evaluation.comparison import PRETRAINED_BACKBONE
from similitude.listener import Silent
from similitude.modalities import modality
from similitude.nets.adapting import averaged
from similitude.runs.checkpoint import load_backbone
from similitude.runs.scoring import labeled_parts

COLUMNS = {"knn": "kNN", "linear": "linear", "linear_1": "1", "linear_5": "5", "linear_10": "10"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("pairs", type=Path, nargs="+", metavar="RUN FOLDER")
    parser.add_argument("--shares", default="0,0.25,0.5,0.75,1")
    args = parser.parse_args()
    shares = [float(text) for text in args.shares.split(",")]
    print(f"| folder | of the start | {' | '.join(COLUMNS.values())} |")
    print("|---|---|" + "---|" * len(COLUMNS))
    for place, folder in zip(args.pairs[::2], args.pairs[1::2], strict=True):
        run = sim.load(place)
        if run.start is None:
            parser.error(f"{place} did not start from published weights")
        train, test = labeled_parts(modality("image"), folder, None, None)
        images = run.load_source(train, Silent())
        held_out = None if test is None else run.load_source(test, Silent())
        for share in shares:
            weights = averaged(run.checkpoint.backbone, run.start, share)
            table = evaluate_entrants(
                [Entrant(PRETRAINED_BACKBONE, load_backbone(run.recipe, weights), run.facts)],
                (images, held_out),
                data=folder.name,
                seed=run.split_seed,
            )
            scores = table.rows[PRETRAINED_BACKBONE]
            cells = " | ".join(scores[c].to_text() if c in scores else "-" for c in COLUMNS)
            print(f"| {folder.name} | {share:g} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
