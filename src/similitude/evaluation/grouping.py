"""What belongs together (crops of a slide, frames of a film) is on one side of a split.

Letters: N samples.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from similitude.data.labels import read_groups
from similitude.data.source import Source
from similitude.errors import UserError


def groups_of(source: Source, group: str, labels: str | Path | None) -> list[str]:
    """What each sample belongs to; empty where nothing is said.

    Args:
        source: Of the samples.
        group: A column of the table of labels, or the level of a folder, 1 the first.
        labels: The table, or None.

    Raises:
        UserError: There is no such column or level.
    """
    if not group.isdecimal():
        if labels is None:
            raise UserError(
                f"--group {group} is a column of the table of labels: give --labels, or the level "
                "of a folder as a number, 1 for the first"
            )
        return read_groups(labels, source, group)
    level = int(group)
    folders = [name.split("/")[:-1] for name in source.names]
    if level < 1 or any(len(found) < level for found in folders):
        deepest = min(map(len, folders))
        raise UserError(
            f"--group {group}: {source.name} has {deepest} levels of folders above every sample: "
            "give one of them, or a column of --labels; the folders of the classes are the first"
        )
    return ["/".join(found[:level]) for found in folders]


def held_out_groups(
    y: Int[Tensor, " N"], groups: Sequence[str], fraction: float, seed: int
) -> Bool[Tensor, " N"]:
    """Mask of whole groups, of about this fraction of the labeled samples of each class.

    Args:
        y: Classes; below 0 where there is no label.
        groups: As :func:`groups_of` gives them.
        fraction: A part of all, such as a fifth.
        seed: Of what is drawn.

    Raises:
        UserError: There is one group, or classes and groups do not allow it.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # a second, which other runs save

    known = (y >= 0).nonzero()[:, 0].numpy()
    units = units_of(groups)
    if len(np.unique(units[known])) < 2:
        raise UserError("--group: all labeled samples are of one group, and none can be held out")
    folds = StratifiedGroupKFold(round(1 / fraction), shuffle=True, random_state=seed)
    try:
        _, out = next(folds.split(known, y.numpy()[known], units[known]))
    except ValueError as error:
        raise UserError(
            f"--group: these classes and groups cannot be split ({error}): give a test part"
        ) from error
    if len(np.unique(y.numpy()[np.delete(known, out)])) < len(np.unique(y.numpy()[known])):
        raise UserError(
            "--group: a class lies in one group alone, or in so few that none is left to learn "
            "from: a group is what holds samples of several classes, or a part of one"
        )
    mask = torch.zeros(len(y), dtype=torch.bool)
    mask[known[out]] = True
    # what has no label goes with its group
    return mask | torch.from_numpy(np.isin(units, units[known[out]]))


def shared_groups(
    train: Sequence[str], test: Sequence[str], train_name: str, test_name: str
) -> tuple[Bool[Tensor, " N"], list[str]]:
    """Which test samples are of no group of the training part, and a sentence on the others.

    Raises:
        UserError: None is.
    """
    mask = torch.tensor([name == "" or name not in set(train) for name in test])
    if not bool(mask.any()):
        raise UserError(
            f"--group: everything in {test_name} belongs to a group of {train_name}: give another "
            "group (the folders of the classes are the first level), or one part without a test "
            "part"
        )
    if bool(mask.all()):
        return mask, []
    shared = sorted(set(train) & set(test) - {""})
    count = f"{len(shared)} groups are" if len(shared) > 1 else "1 group is"
    return mask, [
        f"{count} in both parts ({', '.join(shared[:3])}): their {int((~mask).sum())} test samples "
        "are left out."
    ]


def units_of(groups: Sequence[str]) -> Int[np.ndarray, " N"]:
    """A number for each group; a sample of none is alone."""
    return np.unique([name or f"\0{i}" for i, name in enumerate(groups)], return_inverse=True)[1]
