"""The pictures of the methods are what the methods do."""

from pathlib import Path

import pytest
from tools.draw_methods import PICTURES, drawn, measured

from similitude.methods import METHODS

PAGES = Path(__file__).parents[2] / "docs" / "methods"


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_the_picture_of_a_method_is_what_the_tool_draws(name):
    assert (PICTURES / f"{name}.svg").read_text() == drawn(measured(name)), "run: make pictures"


@pytest.mark.parametrize("name", METHODS)
def test_the_picture_of_a_method_is_on_its_page(name):
    page = next(p for p in PAGES.glob("*.md") if f"`{name}`" in p.read_text()[:600])
    assert f"](images/{name}.svg)" in page.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"stop_gradient": False}, "stop-gradient"),
        ({"predictor": "none"}, ">predictor<"),
        ({"symmetric": False}, "each way is drawn once"),
    ],
)
def test_what_is_switched_off_goes_from_the_picture(change, seen):
    assert seen in drawn(measured("simsiam"))
    assert seen not in drawn(measured("simsiam", **change))


@pytest.mark.slow
def test_a_memory_is_filled_by_the_end_that_it_keeps():
    idea = measured("moco_v2")
    assert idea.memories == {"queue": [1]}
    assert idea.rows[1].networks == ("target_backbone", "target_projector")
    assert idea.follows == {"target_backbone": "backbone", "target_projector": "projector"}
    assert idea.negatives == "the memory"
