"""The rows of a score table beside each other: their names, paired differences, what those say.

All rows meet the same test images and the same draws of labels, so that the differences of two rows
are taken image by image, or draw by draw. Nothing here imports PyTorch: the report uses it too.
"""

import math
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

RAW_PIXELS = "raw pixels"
RANDOM_BACKBONE = "random backbone"
BEFORE_TRAINING = "before training"  # the published weights that a run started from
PRETRAINED_BACKBONE = "pretrained backbone"
_NORMAL_95 = 1.959964  # two-sided 95 % point
_PHRASES = {RANDOM_BACKBONE: "the random backbone", BEFORE_TRAINING: "the weights it started from"}
_SUBJECT = "The pretrained backbone"
_TRAIN_ON = (
    "train longer, or choose views that keep what your classes differ in (`similitude views` draws "
    "them)"
)


@dataclass(frozen=True)
class Difference:
    """Accuracy of the pretrained backbone minus that of another row, -1..1.

    ``low`` and ``high`` bound it with 95 % confidence; they are None where that is not known.
    """

    mean: float
    low: float | None = None
    high: float | None = None

    @property
    def is_above(self) -> bool:
        """Whether the pretrained backbone is better, and not by chance."""
        return (self.mean if self.low is None else self.low) > 0

    @property
    def is_below(self) -> bool:
        """Whether the other row is better, and not by chance."""
        return (self.mean if self.high is None else self.high) < 0

    @property
    def margin(self) -> float | None:
        """Half the width of the interval: what chance can make of a difference."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    def to_text(self) -> str:
        """In points, with the margin: ``+3.1 ± 1.2``."""
        margin = "" if self.margin is None else f" ± {100 * self.margin:.1f}"
        return f"{100 * self.mean:+.1f}{margin}"


def student_95(degrees: int) -> float:
    """Two-sided 95 % point of Student's t."""
    return float(stdtrit(degrees, 0.975))


def difference_of_shares(only_ours: int, only_theirs: int, images: int) -> Difference:
    """Of two accuracies on the same images.

    The differences of the images are 1, -1 or 0; their mean is taken as normal, with half an image
    added to each of the four outcomes (Agresti and Min 2005): so no difference at all on
    a few images is not taken for certain.

    Args:
        only_ours: Images that only the pretrained backbone names right.
        only_theirs: Images that only the other row names right.
        images: All.
    """
    total = images + 2
    mean = (only_ours - only_theirs) / total
    variance = (only_ours + only_theirs + 1) / total - mean**2
    half = _NORMAL_95 * math.sqrt(variance / total)
    return Difference((only_ours - only_theirs) / images, mean - half, mean + half)


def difference_of_draws(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """Of the mean accuracies over the same draws of labels, with Student's t; none for one draw."""
    each = [one - other for one, other in zip(ours, theirs, strict=True)]
    mean, n = statistics.fmean(each), len(each)
    if n == 1:
        return Difference(mean)
    half = student_95(n - 1) * statistics.stdev(each) / math.sqrt(n)
    return Difference(mean, mean - half, mean + half)


@dataclass(frozen=True)
class Comparison:
    """The pretrained backbone beside another row."""

    row: str
    differences: dict[str, Difference]  # by column
    is_plain: bool = False  # whether the row needs no network: raw pixels

    @property
    def is_published(self) -> bool:
        """Whether the row is of published weights, which one could use."""
        return not self.is_plain and self.row not in (RANDOM_BACKBONE, BEFORE_TRAINING)

    @property
    def phrase(self) -> str:
        """What a sentence calls the other row."""
        return _PHRASES.get(self.row, self.row)

    @property
    def gains(self) -> dict[str, float]:
        """What the pretrained backbone gains in each column, -1..1."""
        return {column: d.mean for column, d in self.differences.items()}

    @property
    def is_no_better(self) -> bool:
        """Whether the pretrained backbone gains nothing, in the mean over the columns."""
        return sum(self.gains.values()) <= 0

    @property
    def below(self) -> list[str]:
        """Columns in which the other row is better, and not by chance."""
        return [column for column, d in self.differences.items() if d.is_below]

    @property
    def open(self) -> list[str]:
        """Columns in which the two cannot be told apart."""
        found = self.differences.items()
        return [column for column, d in found if not d.is_above and not d.is_below]

    @property
    def loses(self) -> bool:
        """Whether it must be said that the other row is as good, or better in some column."""
        return self.is_no_better or bool(self.below)

    @property
    def advice(self) -> str:
        """What to do where the other row is as good or better."""
        if self.row == BEFORE_TRAINING:
            return f"Use these weights as they are, or {_TRAIN_ON}."
        if self.is_published:
            return "Use it as it is, or train from it."
        return f"{_TRAIN_ON[0].upper()}{_TRAIN_ON[1:]}."

    def loss(self, title: Callable[[str], str]) -> str:
        """A sentence on the columns in which the other row is better, or on all."""
        if not self.is_no_better:
            below = _listed(self.below, self.differences, title)
            return f"{_SUBJECT} is below {self.phrase} in {below}."
        lower = [c for c, d in self.differences.items() if d.mean < 0] or list(self.differences)
        verb = "scores less than" if self.below else "is no better than"
        where = f": {_listed(lower, self.differences, title)}"
        if len(lower) == len(self.differences) > 2:
            where = f" in every column ({self.example(lower, title)})"
        return f"{_SUBJECT} {verb} {self.phrase}{where}."

    def example(self, columns: Sequence[str], title: Callable[[str], str]) -> str:
        """One of these columns with its number, that of the linear probe if it is among them."""
        column = "linear" if "linear" in columns else columns[0]
        return _listed([column], self.differences, title)


def compare(
    means: Mapping[str, Mapping[str, float]],
    columns: Sequence[str],
    differences: Mapping[str, Mapping[str, Difference]],
    plain: Collection[str] = (RAW_PIXELS,),
) -> list[Comparison]:
    """The pretrained backbone beside every other row, in the order in which they are told.

    Args:
        means: Accuracies, row -> column; what is not in ``differences`` is their difference alone.
        columns: In their order.
        differences: Row -> column.
        plain: Rows that need no network.
    """
    ours = means.get(PRETRAINED_BACKBONE, {})
    found = []
    for row, theirs in means.items():
        known = differences.get(row, {})
        both = [c for c in columns if c in ours and c in theirs]
        if row != PRETRAINED_BACKBONE and both:
            of_row = {c: known.get(c, Difference(ours[c] - theirs[c])) for c in both}
            found.append(Comparison(row, of_row, row in plain))
    # What a run must beat first: what it started from, and what needs no network.
    order = (lambda c: c.row == BEFORE_TRAINING, lambda c: c.is_plain, lambda c: c.is_published)
    return sorted(found, key=lambda c: [not is_so(c) for is_so in order])


def sentences(
    comparisons: Sequence[Comparison],
    title: Callable[[str], str],
    images: int | None,
    nouns: str = "images",
) -> list[str]:
    """What the differences say: first where the pretrained backbone does not win, and what to do.

    Args:
        comparisons: As :func:`compare` gives them.
        title: What a reader calls a column.
        images: Of the test, if that is known.
        nouns: What they are called.
    """
    said = [*losses(comparisons, title), *_gains(comparisons, title)]
    said[1:] = [sentence.replace(_SUBJECT, "It", 1) for sentence in said[1:]]
    if images and (smallest := _smallest_difference(comparisons, images, nouns)):
        said.append(smallest)
    return said


def losses(comparisons: Sequence[Comparison], title: Callable[[str], str]) -> list[str]:
    """Sentences on the rows that the pretrained backbone does not beat, and what to do."""
    told, advised = [], False
    for comparison in comparisons:
        if not comparison.loses:
            continue
        # "Train longer" is said once; of published weights each may be used as it is.
        say_what_to_do = comparison.is_no_better if comparison.is_published else not advised
        advised = advised or not comparison.is_published
        advice = f" {comparison.advice}" if say_what_to_do else ""
        told.append(comparison.loss(title) + advice)
    return told


def _gains(comparisons: Sequence[Comparison], title: Callable[[str], str]) -> list[str]:
    """Sentences on the other rows, and on columns in which chance decides."""
    told, clear = [], []
    for comparison in comparisons:
        differences, phrase = comparison.differences, comparison.phrase
        undecided = comparison.open
        where = join([title(column) for column in undecided])
        above = [column for column, d in differences.items() if d.is_above]
        number = comparison.example(above or list(differences), title)
        if comparison.is_no_better:
            continue
        if comparison.loses:
            if undecided:
                told.append(f"{_SUBJECT} cannot be told apart from {phrase} in {where}.")
        elif not undecided:
            clear.append(f"{phrase} ({number})")
        elif not above:
            told.append(f"{_SUBJECT} cannot be told apart from {phrase} in any column ({number}).")
        else:
            open_ones = _listed(undecided, differences, title)
            told.append(
                f"{_SUBJECT} is above {phrase} ({number}), but not for sure in {open_ones}."
            )
    return [*([f"{_SUBJECT} is above {join(clear)} in every column."] if clear else []), *told]


def _smallest_difference(comparisons: Sequence[Comparison], images: int, nouns: str) -> str | None:
    """A sentence on what so few test images can show; None where nothing is left open."""
    margins = [
        d.margin
        for comparison in comparisons
        for column, d in comparison.differences.items()
        if column in ("knn", "linear") and d.margin is not None
    ]
    if not margins or not any(comparison.open for comparison in comparisons):
        return None
    return (
        f"On {images:,} test {nouns} kNN and linear can show differences from about "
        f"{100 * max(margins):.1f} points on."
    )


def _listed(
    columns: Sequence[str], differences: Mapping[str, Difference], title: Callable[[str], str]
) -> str:
    return join([f"{title(column)} {differences[column].to_text()}" for column in columns])


def join(items: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
