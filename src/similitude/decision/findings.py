"""What the rows of a decision say together: the table, the ways beside each other, the sentence.

Letters: N test samples, R draws of labels, C classes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from rich.console import Group
from rich.text import Text

from similitude.decision import words
from similitude.decision.plan import Planned, Standing, costs
from similitude.decision.statistics import (
    Right,
    Saved,
    Units,
    above,
    difference,
    error_each,
    labels_saved,
    samples_needed,
    score_of,
    undecided,
)
from similitude.decision.work import Predicted, Row
from similitude.errors import visible
from similitude.evaluation.comparison import Difference
from similitude.evaluation.scores import Score, ScoreTable, labels_per_class, place_of_column
from similitude.files.writing import write_text


@dataclass(frozen=True)
class Holdout:
    """The test samples, and what is said of them.

    Attributes:
        data: What they are of, for people.
        y: Class of each, 0 to C - 1.
        units: Number of what each belongs to.
        class_names: Of the C classes.
        num_train: Labeled samples that were learned from.
        nouns: What several are called.
        plain: Rows of plain numbers.
    """

    data: str
    y: Int[np.ndarray, " N"]
    units: Units
    class_names: list[str]
    num_train: int
    nouns: str
    plain: list[str]

    @property
    def num_units(self) -> int:
        """Groups of test samples, each a group of its own where none were given."""
        return len(np.unique(self.units))

    @property
    def counted(self) -> str:
        """The test samples, and of how many groups they are, in words."""
        samples = f"{len(self.y):,} test {self.nouns}"
        groups = self.num_units
        return samples if groups == len(self.y) else f"{samples} of {groups:,} groups"


@dataclass(frozen=True)
class Way:
    """A row under the protocol that stands for it, on all labels.

    Attributes:
        title: Of the way.
        row: Of the table.
        score: Accuracy with its 95 % interval.
        balanced: Mean of the classes' recalls.
        macro_f1: Mean of the classes' F1.
        behind: Accuracy of the best minus its own, with 95 % for each pair alone.
        is_candidate: Whether no other is above it for sure.
        seconds: That it took.
    """

    title: str
    row: str
    score: Score
    balanced: float
    macro_f1: float
    behind: Difference
    is_candidate: bool
    seconds: float


@dataclass(frozen=True)
class Decision:
    """What was decided. ``decision.json`` and ``decision.html`` in its folder hold it too.

    Attributes:
        path: The folder.
        sentence: Which way to use, and why.
        use: The title of that way.
        is_certain: Whether all others are below it for sure, and nothing was left out that might be
            better; where they are not, it is the cheapest of those that cannot be told apart and
            that no comparison with the best alone shows to be worse.
        ways: The best first.
        smallest: The smallest difference between the best and the next that would be told for sure,
            0..1; None of a single way.
        saved: Labels that the best row saves against the next; None where that cannot be said.
        table: All rows and protocols.
        confusion: Of the way to use: true class -> said class -> test samples.
        class_names: Of the C classes.
        copies: Test samples that are nearly training samples, with these.
        left_out: Title -> why it was not trained.
        waiting: Titles that were not tried yet.
        remarks: Further sentences.
        is_complete: Whether everything was done; if not, the same command goes on.
    """

    path: Path
    sentence: str
    use: str
    is_certain: bool
    ways: list[Way]
    smallest: float | None
    saved: Saved | None
    table: ScoreTable
    confusion: list[list[int]]
    class_names: list[str]
    copies: list[tuple[str, str]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    is_complete: bool = True

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and texts."""
        return {**asdict(self), "path": str(self.path), "table": self.table.to_json()}

    def write(self) -> None:
        """Write decision.json."""
        write_text(self.path / "decision.json", json.dumps(self.to_json(), indent=2) + "\n")

    def render(self) -> Group:
        """For the terminal: the table, what else is to be known, and the sentence."""
        said = [*self.remarks, "", self.sentence]
        return Group(self.table.render(), *(Text(visible(line)) for line in said))


def ways_of(
    everything: Sequence[Planned], rows: Mapping[str, Row], y: Int[np.ndarray, " N"]
) -> dict[str, Right]:
    """Of each way that is there, whether it found the class of each test sample."""
    return {
        planned.title: rows[planned.title].predicted[planned.column] == y
        for planned in everything
        if planned.title in rows
    }


def standing(
    everything: Sequence[Planned],
    rows: Mapping[str, Row],
    tested: Holdout,
    left_out: Mapping[str, str],
) -> Standing:
    """What is known before a training."""
    ways, units = ways_of(everything, rows, tested.y), tested.units
    best = max(ways, key=lambda title: ways[title].mean())
    perfect = _perfect(ways, best, units)
    frozen = [p.row for p in everything if p.task == "frozen" and p.start and p.title in rows]
    behind: dict[str, tuple[Difference, str]] = {}
    for name in frozen:
        for other in frozen:
            gap = difference(ways[name], ways[other], units, error_each(len(frozen)))
            if gap.is_below and (name not in behind or gap.mean < behind[name][0].mean):
                behind[name] = gap, other
    return Standing(best, score_of(ways[best], units), perfect, behind, left_out)


def _perfect(ways: Mapping[str, Right], best: str, units: Units) -> Difference:
    """How far a further way without a mistake would be above the best."""
    error = error_each(len(ways) + 1)
    return difference(np.ones_like(ways[best]), ways[best], units, error)


def decided(
    folder: Path,
    everything: Sequence[Planned],
    rows: Mapping[str, Row],
    tested: Holdout,
    *,
    notes: Sequence[str] = (),
    copies: Sequence[tuple[str, str]] = (),
    left_out: Mapping[str, str] | None = None,
    minutes: float,
    seed: int,
    is_complete: bool,
) -> Decision:
    """The decision on the rows that there are.

    Args:
        folder: Of the decision.
        everything: The plan.
        rows: By title of what was planned; at least one.
        tested: The test samples.
        notes: Sentences on the data.
        copies: See :class:`Decision`.
        left_out: See :class:`Decision`.
        minutes: That all trainings might take.
        seed: Of the resampling.
        is_complete: Whether everything was done.
    """
    left_out = dict(left_out or {})
    units = tested.units
    ways = ways_of(everything, rows, tested.y)
    order = sorted(ways, key=lambda title: -ways[title].mean())
    best, candidates = order[0], undecided(ways, units)
    behind = standing(everything, rows, tested, left_out).behind
    # what was left out, not for being hopeless
    untried = [p for p in everything if p.title in left_out and p.start not in behind]
    can_be_told = _perfect(ways, best, units).is_above
    cost = costs(everything)
    # a pair alone says more than one among many: what it shows to be worse is not advised
    level = [t for t in candidates if not difference(ways[best], ways[t], units).is_above]
    use = min(level, key=cost.__getitem__)
    by_title = {planned.title: planned for planned in everything}
    found = [
        _way(by_title[title], rows[title], ways, best, tested, title in candidates)
        for title in order
    ]
    from sklearn.metrics import confusion_matrix  # a second, which other commands save

    smallest = needed = None
    if len(order) > 1:
        error = error_each(len(order))
        beside = above(ways[best], ways[order[1]], units)
        smallest = beside.reach(error)
        needed = samples_needed(beside, tested.num_units, error)
    table = _table(everything, rows, tested, notes)
    saved = _saved(use if len(candidates) == 1 else best, by_title, rows, tested, seed)
    predicted = rows[use].predicted[by_title[use].column][0]
    every = list(range(len(tested.class_names)))
    confusion = confusion_matrix(tested.y, predicted, labels=every).tolist()
    waiting = [p.title for p in everything if p.title not in rows and p.title not in left_out]
    remarks = words.remarks(
        found,
        tested,
        saved=saved,
        smallest=smallest if len(candidates) == 1 else None,  # else the sentence says it
        left_out=left_out,
        trained={title: row.remark for title, row in rows.items() if row.remark},
        minutes=minutes,
        waiting=waiting,
        how=words.how_to_use(by_title[use], folder),
    )
    sentence = words.sentence(
        [way for way in found if way.is_candidate],
        next((way for way in found if not way.is_candidate), None),
        by_title[use],
        tested,
        folder,
        is_cheapest=use == min(candidates, key=cost.__getitem__),
        smallest=smallest,
        needed=needed,
        untried="" if not untried else "minutes" if can_be_told else "test",
        is_complete=is_complete,
    )
    return Decision(
        folder,
        sentence,
        use,
        len(candidates) == 1 < len(order) and not untried,
        found,
        smallest,
        None if saved is None else saved[2],
        table,
        confusion,
        tested.class_names,
        list(copies),
        left_out,
        waiting,
        remarks,
        is_complete,
    )


def _way(
    planned: Planned,
    row: Row,
    ways: Mapping[str, Right],
    best: str,
    tested: Holdout,
    is_candidate: bool,
) -> Way:
    from sklearn.metrics import f1_score, recall_score

    right, said = ways[planned.title], row.predicted[planned.column][0]
    return Way(
        planned.title,
        planned.row,
        score_of(right, tested.units),
        # of the classes that are tested: others may be said
        float(recall_score(tested.y, said, labels=np.unique(tested.y), average="macro")),  # type: ignore[arg-type]
        float(f1_score(tested.y, said, average="macro", zero_division=0)),  # type: ignore[arg-type]
        difference(ways[best], right, tested.units),
        is_candidate,
        row.seconds,
    )


def _table(
    everything: Sequence[Planned], rows: Mapping[str, Row], tested: Holdout, notes: Sequence[str]
) -> ScoreTable:
    scores: dict[str, dict[str, Score]] = {}
    for planned in everything:
        if planned.title in rows:
            of_row = scores.setdefault(planned.row, {})
            for column, predicted in rows[planned.title].predicted.items():
                of_row[column] = score_of(predicted == tested.y, tested.units)
    return ScoreTable(
        data=tested.data,
        num_train=tested.num_train,
        num_test=len(tested.y),
        num_classes=len(tested.class_names),
        columns=sorted({c for row in scores.values() for c in row}, key=place_of_column),
        rows=scores,
        seconds=sum(row.seconds for row in rows.values()),
        notes=list(notes),
        plain=[name for name in tested.plain if name in scores],
        nouns=tested.nouns,
    )


def _saved(
    best: str, planned: Mapping[str, Planned], rows: Mapping[str, Row], tested: Holdout, seed: int
) -> tuple[str, str, Saved] | None:
    """The best row, the next one under a linear probe, and the labels that it saves."""
    each = tested.num_train / len(tested.class_names)

    def curve(predicted: Predicted) -> dict[float, Right]:
        few = {labels_per_class(column): p for column, p in predicted.items()}
        found = {float(k): p == tested.y for k, p in few.items() if k is not None and k < each}
        return found | {each: predicted["linear"] == tested.y}

    curves = {
        row: curve(rows[row].predicted)
        for row in dict.fromkeys(p.row for p in planned.values())
        if row in rows and "linear" in rows[row].predicted
    }
    order = sorted(curves, key=lambda row: -curves[row][each].mean())
    ours = planned[best].row if planned[best].row in curves else order[0] if order else ""
    others = [row for row in order if row != ours]
    if not others or len(curves[ours]) < 2:
        return None
    return ours, others[0], labels_saved(curves[ours], curves[others[0]], tested.units, seed)
