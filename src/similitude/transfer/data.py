"""The images of the two stages: labeled ones for fine-tuning, any for distillation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from similitude.errors import UserError
from similitude.evaluation.draws import held_out, random_keys, rank_within_class
from similitude.evaluation.evaluate import TEST_FRACTION
from similitude.listener import Listener
from similitude.runs.run import Run
from similitude.runs.scoring import labeled_parts
from similitude.sample import Samples


class Labeled(NamedTuple):
    """Images whose labels are 0 to C - 1.

    Attributes:
        name: what they are, in words.
        train: those to learn from.
        test: those to test on.
        class_names: of the C classes.
        held_out: whether ``test`` was taken from the training part.
    """

    name: str
    train: Samples[Any]
    test: Samples[Any]
    class_names: tuple[str, ...]
    held_out: bool


def read_labeled(
    run: Run,
    data: Any,
    labels: str | Path | None,
    *,
    fraction: float,
    seed: int,
    listener: Listener,
) -> Labeled:
    """Labeled images, a fraction of the training labels drawn with the seed.

    Raises:
        UserError: no labels, or too few for the fraction.
    """
    check_fraction(fraction)
    train_source, test_source = labeled_parts(run.modality, data, labels, run.recipe.data)
    train = test = run.load_source(train_source, listener)
    out = torch.zeros(len(train), dtype=torch.bool)
    tested = torch.ones(len(train), dtype=torch.bool)
    if test_source is None:
        out = tested = held_out(_labels(train), TEST_FRACTION, run.split_seed)  # as `evaluate` does
    else:
        test = run.load_source(test_source, listener)
        tested = torch.ones(len(test), dtype=torch.bool)
    names = _names(train)
    class_names = [names[i] for i in _labels(train)[~out].unique().tolist() if i in names]
    train, test = _relabel(train, class_names), _relabel(test, class_names)
    candidates, tested = int(tested.sum()), tested & (_labels(test) >= 0)
    if not bool(tested.any()):
        raise UserError(
            f"none of the {candidates} test images of {train_source.name} is of a class to learn "
            f"({', '.join(class_names[:5])}, ...): give both parts the same classes"
        )
    # positions first: taking images out copies them
    learned = (~out & (_labels(train) >= 0)).nonzero()[:, 0]
    learned = learned[draw_labels(_labels(train)[learned], fraction, seed)]
    train, test = train.subset(learned), test.subset(tested)
    return Labeled(train_source.name, train, test, tuple(class_names), test_source is None)


def read_images(
    teacher: Run, class_names: Sequence[str], data: Any, listener: Listener
) -> tuple[str, Samples[Any], Samples[Any] | None]:
    """Their name, images without labels, and images of the teacher's classes to test on.

    A test part is taken as it is; class subfolders without one give the fifth that fine-tuning
    holds out too.
    """
    sources = teacher.modality.open_parts(data, teacher.recipe.data)
    images = teacher.load_source(sources[0], listener)
    test = None
    if len(sources) > 1:
        test = teacher.load_source(sources[1], listener)
    elif _of_classes(images, class_names) is not None:
        out = held_out(_labels(images), TEST_FRACTION, teacher.split_seed)
        images, test = images.subset(~out), images.subset(out)
    if test is not None:
        test = _of_classes(test, class_names)
    return sources[0].name, images.without_labels(), test


def check_fraction(fraction: float) -> None:
    """Refuse what is no fraction.

    Raises:
        UserError: it is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"the fraction of the labels is {fraction:g}; give a number in (0, 1]")


def draw_labels(y: Int[Tensor, " N"], fraction: float, seed: int) -> Bool[Tensor, " N"]:
    """Mask of the images whose labels are used: the same number of each class.

    A pure function of seed and labels; a smaller fraction's images are among a larger one's. A
    class with too few images gives all it has. A fraction of 1 takes everything.

    Args:
        y: classes, 0 or more.
        fraction: of all images, above 0 and at most 1.
        seed: any integer.

    Raises:
        UserError: the fraction is out of range, or smaller than one image for each class.
    """
    check_fraction(fraction)
    if fraction == 1:
        return torch.ones_like(y, dtype=torch.bool)
    num_classes = len(y.unique())
    each = round(fraction * len(y) / num_classes)
    if each < 1:
        least = num_classes / len(y)
        raise UserError(
            f"a fraction of {fraction:g} of {len(y)} labeled images leaves classes without any: "
            f"for one image of each of the {num_classes} classes use --label-fraction {least:.2g}"
        )
    return rank_within_class(random_keys(seed, 0, len(y), "label fraction"), y) < each


def _labels(images: Samples[Any]) -> Int[Tensor, " N"]:
    assert images.labels is not None
    return images.labels


def _names(images: Samples[Any]) -> dict[int, str]:
    """Of the classes that occur."""
    occurring = [i for i in _labels(images).unique().tolist() if i >= 0]
    given = images.class_names
    return {i: str(i) if given is None else given[i] for i in occurring}


def _relabel(images: Samples[Any], class_names: Sequence[str]) -> Samples[Any]:
    """Labels by the position of their class in ``class_names``, -1 for another class."""
    position = {name: i for i, name in enumerate(class_names)}
    names = _names(images)
    old, places = _labels(images).unique(return_inverse=True)
    new = torch.tensor([position.get(names.get(i, ""), -1) for i in old.tolist()])
    return images.with_labels(new[places], list(class_names))


def _of_classes(images: Samples[Any], class_names: Sequence[str]) -> Samples[Any] | None:
    """The images, relabeled; None if none of them is labeled with one of the classes."""
    if images.labels is None or not bool((images.labels >= 0).any()):
        return None
    relabeled = _relabel(images, class_names)
    return relabeled if bool((_labels(relabeled) >= 0).any()) else None
