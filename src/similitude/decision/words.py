"""The sentences of a decision: which way to use, because of what; and what else is to be known."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from similitude.decision.plan import OWN, RANDOM, SUPERVISED, Planned
from similitude.decision.statistics import Saved
from similitude.decision.work import slug
from similitude.evaluation.comparison import join

if TYPE_CHECKING:
    from similitude.decision.findings import Holdout, Way

UNEVEN = 2.0  # a class so many times as large as it would be among equal ones


def phrase(planned: Planned, folder: Path) -> str:
    """What a sentence calls a way, with the folder of what was trained."""
    place = folder / slug(planned.title)
    if planned.task == "plain":
        return f"{planned.row} under a linear probe, without any network"
    if planned.row == SUPERVISED:
        return f"a network trained from scratch on your labels ({folder / slug(SUPERVISED)})"
    if planned.row == RANDOM:
        return "a random backbone under a linear probe"
    if planned.row == OWN:
        tuned = "fine-tuned on your labels" if planned.is_tuned else "under a linear probe"
        return f"your own network ({place}), {tuned}"
    if planned.is_tuned:
        return f"{planned.title} on your labels ({place})"
    if planned.task == "pretrain":
        return f"{planned.start} adapted to your data ({place}), under a linear probe"
    return f"{planned.row} as it is, under a linear probe"


def sentence(
    candidates: "Sequence[Way]",
    beaten: "Way | None",
    use: Planned,
    tested: "Holdout",
    folder: Path,
    *,
    is_cheapest: bool,
    smallest: float | None,
    needed: int | None,
    untried: Literal["", "minutes", "test"],
    is_complete: bool,
) -> str:
    """The one sentence.

    Args:
        candidates: The ways that cannot be told from the best, which comes first.
        beaten: The best of the others.
        use: The one that is advised.
        tested: The test samples.
        folder: Of the decision.
        is_cheapest: Whether it is the cheapest of the candidates.
        smallest: The difference that would be told for sure, 0..1.
        needed: Test samples, or groups of them, that would tell the best from the next.
        untried: Why something was left out that might be better: the minutes are too few for it, or
            the test to show it.
        is_complete: Whether everything was done.
    """
    so_far = "" if is_complete else "So far: "
    best, count = candidates[0], tested.counted
    what = phrase(use, folder)
    if len(candidates) == 1:
        because = f"it names {best.score.to_text()} % of the {count} right"
        if beaten is not None:
            because += (
                f", {beaten.behind.to_text().lstrip('+')} points above the next, {beaten.title}"
            )
        if untried == "test":
            because += "; whether a training would do better, so few cannot show"
        if untried == "minutes":
            because += "; what takes more --minutes was not tried"
        return f"{so_far}Use {what}, because {because}."
    titles = [way.title for way in candidates]
    shown = join(titles if len(titles) < 6 else [*titles[:4], f"{len(titles) - 4} others"])
    told = ""
    if smallest is not None:
        told = f" (a difference shows from {100 * smallest:.1f} points on)"
        if smallest >= 1:
            told = " (no difference could show)"
    more = ""
    if needed is not None and needed > tested.num_units:
        of = "" if tested.num_units == len(tested.y) else " groups"
        more = f"; some {_round(needed):,}{of} would tell the first two"
    advice = f"take the cheapest, {what}"
    if not is_cheapest:
        advice = f"take the cheapest that is not below the best beside it alone, {what}"
    ahead = ""
    if use.title != best.title:
        own = next(way for way in candidates if way.title == use.title)
        ahead = f"; {best.title} is {own.behind.to_text().lstrip('+')} points above it here"
    return (
        f"{so_far}{shown} cannot be told apart for sure on so few as {count}{told}{more}: "
        f"{advice}{ahead}."
    )


def _round(number: int) -> int:
    """To two digits."""
    return round(number, 2 - len(str(number)))


def remarks(
    ways: "Sequence[Way]",
    tested: "Holdout",
    *,
    saved: tuple[str, str, Saved] | None,
    smallest: float | None,
    left_out: Mapping[str, str],
    trained: Mapping[str, str],
    minutes: float,
    waiting: Sequence[str],
    how: str | None,
) -> list[str]:
    """Sentences beside the one: labels saved, uneven classes, what was left out or went wrong."""
    told = []
    if smallest is not None:
        told.append(
            f"On {tested.counted} a difference between the first two shows "
            f"from {100 * smallest:.1f} points on, {len(ways)} ways being compared."
        )
    if saved is not None:
        told.append(_labels(*saved))
    shares = np.bincount(tested.y, minlength=len(tested.class_names)) / len(tested.y)
    if shares.max() > UNEVEN / len(shares):
        commonest = tested.class_names[int(shares.argmax())]
        fair = max(ways, key=lambda way: way.balanced)
        told.append(
            f"Classes are uneven: {100 * shares.max():.0f} % are {commonest}, and who always says "
            f"so has that accuracy. By balanced accuracy {fair.title} is first "
            f"({100 * fair.balanced:.1f} %)."
        )
    told += [f"{title}: {remark}" for title, remark in trained.items()]
    for why in dict.fromkeys(left_out.values()):
        titles = [title for title, its in left_out.items() if its == why]
        told.append(f"Left out: {', '.join(titles)}: {why}.")
    if waiting:
        told.append(f"Not tried yet: {', '.join(waiting)}.")
    if any(way.row == OWN for way in ways):
        told.append(
            f"Networks were trained in {minutes:g} minutes altogether, once each: longer ones, or "
            "another seed, may give others. Intervals are of these networks."
        )
    if how is not None:
        told.append(f"To use it: {how}")
    return told


def how_to_use(planned: Planned, folder: Path) -> str | None:
    """A line that uses a way on further data; None of plain numbers and random networks."""
    if planned.task == "plain" or planned.row == RANDOM:
        return None
    if planned.task == "finetune":
        place = folder / slug(SUPERVISED if planned.row == SUPERVISED else planned.title)
        return f"sim.load({str(place)!r}).predict(DATA)"
    model = planned.start if planned.task == "frozen" else str(folder / slug(planned.title))
    return f"make_pipeline(SimilitudeEncoder({model!r}), StandardScaler(), LogisticRegression())"


def _labels(ours: str, theirs: str, saved: Saved) -> str:
    """What the label curves say."""
    reach = ""
    if saved.low < saved.high:
        reach = f" ({saved.low:,.0f} to {saved.high:,.0f} fewer)"
    if round(saved.labels) <= 0:
        return f"{ours} saves no labels against {theirs}{reach}."
    least = ", the fewest that were tried," if saved.is_least else ""
    needed = saved.of - saved.labels
    return (
        f"{ours} with {needed:,.0f} label{'' if round(needed) == 1 else 's'} per class{least} is "
        "as accurate as "
        f"{theirs} with {saved.of:,.0f}{reach}."
    )
