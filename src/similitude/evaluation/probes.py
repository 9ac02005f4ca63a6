"""The probes that an evaluation knows; a line at the end adds one."""

from collections.abc import Sequence

from jaxtyping import Int
from torch import Tensor

from similitude.evaluation.features import Features
from similitude.evaluation.few_labels import LABELS_PER_CLASS, few_label_accuracies, few_label_skips
from similitude.evaluation.knn import KNNProbe
from similitude.evaluation.linear import LinearProbe
from similitude.evaluation.probe import Outcome, Probe


class Neighbors(Probe):
    """The vote of the nearest training rows (InstDisc, Sec. 3.4)."""

    name = "knn"

    def outcomes(
        self, train: Features, test: Features, *, k: int, draws: int, seed: int
    ) -> dict[str, Outcome]:
        known = train.labeled()
        assert known.y is not None
        probe = KNNProbe(min(k, len(known))).fit(known.x, known.y)
        return {"knn": Outcome(probe.predict(test.x) == test.y)}

    def notes(
        self, labels: Int[Tensor, " N"], k: int, class_names: Sequence[str] | None
    ) -> list[str]:
        if k <= len(labels):
            return []
        return [f"kNN uses all {len(labels)} labeled training samples instead of {k}."]


class Linear(Probe):
    """A linear probe on all labels."""

    name = "linear"

    def outcomes(
        self, train: Features, test: Features, *, k: int, draws: int, seed: int
    ) -> dict[str, Outcome]:
        known = train.labeled()
        assert known.y is not None
        probe = LinearProbe(seed=seed, one_scale=known.one_scale).fit(known.x, known.y)
        return {"linear": Outcome(probe.predict(test.x) == test.y)}


class FewLabels(Probe):
    """A linear probe on some labels of each class, over several draws of them."""

    name = "few"

    def outcomes(
        self, train: Features, test: Features, *, k: int, draws: int, seed: int
    ) -> dict[str, Outcome]:
        few = few_label_accuracies(train, test, draws=draws, seed=seed)
        return {f"linear_{n}": Outcome(draws=shares) for n, shares in few.items()}

    def notes(
        self, labels: Int[Tensor, " N"], k: int, class_names: Sequence[str] | None
    ) -> list[str]:
        return list(few_label_skips(labels, LABELS_PER_CLASS, class_names).values())


PROBES = {probe.name: probe for probe in (Neighbors(), Linear(), FewLabels())}
