"""A test lies where what it tests lies, so that one finds the other."""

from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SOURCE = TESTS.parent / "src" / "similitude"
# promises, stories and numbers of all rooms
OF_NO_ROOM = ("contract", "e2e", "examples", "golden", "gpu", "parity")
FILES = sorted(
    path.relative_to(TESTS)
    for path in TESTS.rglob("test_*.py")
    if path.relative_to(TESTS).parts[0] not in OF_NO_ROOM
)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_test_is_named_for_a_module_of_its_room(file):
    room = SOURCE / file.parent
    modules = {path.stem.strip("_") for path in room.glob("*.py")} | {room.name}

    subject = file.stem.removeprefix("test_")

    assert any(subject == name or subject.startswith(f"{name}_") for name in modules)
