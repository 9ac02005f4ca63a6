"""Embeddings as the first step of a pipeline of scikit-learn.

    python examples/scikit_learn.py efficientnet-lite0 LABELED
    python examples/scikit_learn.py runs/photos LABELED

LABELED has a folder for each class. The model, a run or published weights, is not trained.
"""

import argparse

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import similitude as sim


def main() -> None:
    """Cross-validate a classifier on the embeddings, and name what is far from all else."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("labeled")
    parser.add_argument("--folds", type=int, default=5)
    args = parser.parse_args()

    source = sim.data.open_source(args.labeled)
    if source.labels is None:
        raise SystemExit(f"{args.labeled} has no folder for each class")
    paths = [f"{args.labeled}/{name}" for name in source.names]
    encoder = sim.embeddings.SimilitudeEncoder(args.model)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    x = encoder.fit_transform(paths)  # once, not in each fold: nothing in it learns
    scores = cross_val_score(classifier, x, source.labels.numpy(), cv=args.folds)
    print(f"{100 * scores.mean():.1f} % in {args.folds} folds, from {100 * scores.min():.1f}")

    whole = make_pipeline(encoder, classifier).fit(paths, source.labels.numpy())
    print("the first file is of class", source.class_names[int(whole.predict(paths[:1])[0])])


if __name__ == "__main__":
    main()
