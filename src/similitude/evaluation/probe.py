"""What a probe is: something that tells how much of the classes is in the features.

Shapes: N test rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from jaxtyping import Bool, Int
from torch import Tensor

from similitude.evaluation.comparison import Difference, difference_of_draws, difference_of_shares
from similitude.evaluation.features import Features
from similitude.evaluation.scores import Score, mean_score


@dataclass(frozen=True)
class Outcome:
    """What came out in one column: right or wrong for each test image, or the share of each draw.

    Two rows of one column are compared entry by entry.
    """

    right: Bool[Tensor, " N"] | None = None
    draws: list[float] = field(default_factory=list)

    @property
    def score(self) -> Score:
        """The accuracy."""
        if self.right is None:
            return mean_score(self.draws)
        return Score(self.right.double().mean().item())

    def above(self, other: "Outcome") -> Difference:
        """This accuracy minus another one of the same images and draws."""
        if self.right is None or other.right is None:
            return difference_of_draws(self.draws, other.draws)
        only_ours, only_theirs = self.right & ~other.right, other.right & ~self.right
        return difference_of_shares(int(only_ours.sum()), int(only_theirs.sum()), len(self.right))


class Probe(ABC):
    """One protocol of an evaluation. An instance in ``probes.PROBES`` is all that one needs.

    Attributes:
        name: As `--protocol` takes it.
    """

    name: ClassVar[str]

    @abstractmethod
    def outcomes(
        self, train: Features, test: Features, *, k: int, draws: int, seed: int
    ) -> dict[str, Outcome]:
        """What comes out in each column; ``scores.TITLES`` may say more of it than its name.

        Args:
            train: Rows to learn from, some of which may have no label.
            test: Rows to score on, all with a label.
            k: Neighbors, for probes that ask them.
            draws: Draws of labels, for probes that draw.
            seed: Of whatever is drawn.

        Raises:
            UserError: Labels are missing.
        """

    def notes(
        self, labels: Int[Tensor, " N"], k: int, class_names: Sequence[str] | None
    ) -> list[str]:
        """What a reader must know beside the numbers, as where a column is missing."""
        return []
