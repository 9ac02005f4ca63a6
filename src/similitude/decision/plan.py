"""The rows of a decision, in the order of what they cost, and which of them are left out.

A way is a row and a protocol, such as published weights as they are under a linear probe. Minutes
are shared out before anything is trained, so that the same command trains the same networks however
fast the machine is, and however often it is stopped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from similitude.evaluation.comparison import RANDOM_BACKBONE as RANDOM
from similitude.evaluation.comparison import Difference
from similitude.evaluation.scores import Score

SUPERVISED = "supervised from scratch"
OWN = "own from scratch"

# Shares of the minutes. Learning without labels takes long, and training on few labels does not.
_SUPERVISED, _OWN, _ADAPTED, _TUNED_PUBLISHED, _TUNED = 1.0, 3.0, 2.5, 1.5, 1.0
TOO_FEW = 0.25  # of the steps that a training takes to leave its random weights

Task = Literal["plain", "frozen", "pretrain", "finetune"]


@dataclass(frozen=True)
class Planned:
    """Something to be done for a row.

    Attributes:
        row: Of the table.
        task: Score plain numbers or a network as it is; train without labels and score; or train
            on all labels.
        start: Name of the published weights that the row comes from; empty for none.
        share: Of the minutes; 0 where nothing is trained.
    """

    row: str
    task: Task
    start: str = ""
    share: float = 0.0

    @property
    def title(self) -> str:
        """What a person reads while it is done."""
        if not self.is_tuned:
            return self.row
        return f"{self.row} fine-tuned" if self.row == self.start else f"{self.row} and fine-tuned"

    @property
    def is_tuned(self) -> bool:
        """Whether labels train a network that has been something before."""
        return self.task == "finetune" and self.row != SUPERVISED

    @property
    def column(self) -> str:
        """The protocol that stands for it where ways are compared: on all labels."""
        return "finetuned" if self.task == "finetune" else "linear"

    @property
    def is_trained(self) -> bool:
        """Whether it takes some of the minutes."""
        return self.share > 0


def adapted(start: str) -> str:
    """The row of published weights that went on without labels."""
    return f"{start} adapted"


def all_rows(plain: Sequence[str], published: Sequence[str]) -> list[Planned]:
    """Everything that may be done, the cheap before the dear.

    Args:
        plain: Rows of plain numbers.
        published: Names of published weights.
    """
    return [
        *(Planned(name, "plain") for name in plain),
        Planned(RANDOM, "frozen"),
        *(Planned(name, "frozen", name) for name in published),
        Planned(SUPERVISED, "finetune", share=_SUPERVISED),
        *(Planned(name, "finetune", name, _TUNED_PUBLISHED) for name in published),
        *(Planned(adapted(name), "pretrain", name, _ADAPTED) for name in published),
        Planned(OWN, "pretrain", share=_OWN),
        *(Planned(adapted(name), "finetune", name, _TUNED) for name in published),
        Planned(OWN, "finetune", share=_TUNED),
    ]


def minutes_of(planned: Planned, everything: Sequence[Planned], minutes: float) -> float:
    """What a training may take, of the minutes for all."""
    return minutes * planned.share / sum(p.share for p in everything)


def costs(everything: Sequence[Planned]) -> dict[str, float]:
    """By title, what it takes to have a way: the shares of it and of what it comes from.

    Of two that train nothing, the one that comes first in the plan is the cheaper.
    """
    found: dict[str, float] = {}
    for place, planned in enumerate(everything):
        before = found.get(planned.row, 0.0) if planned.is_tuned else 0.0
        found[planned.title] = planned.share + before + 1e-3 * place / len(everything)
    return found


@dataclass(frozen=True)
class Standing:
    """What is known before a training that may be left out.

    Attributes:
        best: The title of the best way so far.
        score: Of it.
        perfect: Accuracy of a way that is always right minus that of the best.
        behind: The published weights that others are above for sure, with by how much and which.
        left_out: Title -> why it was left out.
    """

    best: str
    score: Score
    perfect: Difference
    behind: Mapping[str, tuple[Difference, str]]
    left_out: Mapping[str, str]


def left_out(planned: Planned, standing: Standing) -> str | None:
    """Why a training cannot change the answer, as a clause; None where it may.

    Args:
        planned: A training.
        standing: What is known before it.
    """
    if not standing.perfect.is_above:
        return (
            f"{standing.best} has {standing.score.to_text()} %, and not even a row without a "
            "mistake could be told apart from it on so few test samples"
        )
    if planned.start in standing.behind:
        gap, other = standing.behind[planned.start]
        return f"as it is, {planned.start} is {-100 * gap.mean:.1f} points below {other}, for sure"
    return standing.left_out.get(planned.row) if planned.is_tuned else None


def too_short(steps: float, enough: int, minutes: float) -> str | None:
    """Why a training in so few minutes would say nothing, as a clause; None where it may.

    Args:
        steps: That fit into the minutes.
        enough: That such a training takes.
        minutes: Of this training.
    """
    if steps >= TOO_FEW * enough:
        return None
    times = enough / max(steps, 1e-9)
    return (
        f"only {steps:,.0f} of the {enough:,} steps that it takes fit into its {minutes:.2g} "
        f"minutes: give {times:,.0f} times the --minutes"
    )
