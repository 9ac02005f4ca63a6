"""Parts of a data set by the names that people give them."""

import pytest

from similitude.data.parts import parts_of


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["train", "test"], {"train": "train", "test": "test"}),
        (["Train", "VALID", "other"], {"train": "Train", "val": "VALID"}),
        (["train", "dev", "validation", "val"], {"train": "train", "val": "val"}),
        (["train"], {}),
        (["val", "test"], {}),
        (["car", "train"], {}),
    ],
)
def test_parts_of_names(names, found):
    assert parts_of(names) == found
