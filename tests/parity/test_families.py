"""No family of reference vectors is forgotten."""

import re
from pathlib import Path

from families import FAMILIES


def test_every_family_has_a_row_and_a_test(golden_dir):
    there = {re.sub(r"_[a-z]$", "", path.stem) for path in golden_dir.glob("*.npz")}
    assert there == set(FAMILIES)
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert there == {name for name in there if f'golden("{name}")' in tests}
