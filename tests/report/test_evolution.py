"""The page of an evolution, from fabricated facts: what it shows, and that it stands alone."""

import json
import re

import pytest

from similitude.errors import UserError
from similitude.report.evolution import write_evolution_page


def individual(generation, number, fitness, knn=None, state="healthy"):
    values = {} if fitness is None else {"fitness": fitness, "effective_rank": 3.21}
    return {
        "generation": generation,
        "number": number,
        "folder": f"generation-{generation}/individual-{number}",
        "settings": {"method.weights.<b>": 0.1234},
        "state": state,
        "reason": "The loss is not a number.",
        "values": values if knn is None else {**values, "knn": knn},
        "sound": fitness is not None and state != "collapsed",
    }


FACTS = {
    "title": "elo: <b>weights</b>",
    "notes": ["800 samples trained on for 1 epoch."],
    "ranges": [{"path": "method.weights.<b>", "low": 0.001, "high": 1.0, "log": True}],
    "baselines": {"random backbone": {"fitness": 0.3, "knn": 0.25}, "raw pixels": {"knn": 0.35}},
    "best": "generation-1/individual-0",
    "options": "--set method.weights.x=0.1234",
    "individuals": [
        individual(0, 0, 0.2, 0.5),
        individual(0, 1, 0.01, 0.1, "collapsed"),
        individual(0, 2, None, state="failed"),
        individual(1, 0, 0.1, 0.6),
        individual(1, 1, 0.3, 0.4),
    ],
    "correlations": [
        {"of": "fitness", "with_": "knn", "rho": -0.59, "p": 0.012, "count": 17},
        {"of": "method.weights.<b>", "with_": "fitness", "rho": 0.4, "p": 0.3, "count": 17},
    ],
}


def write(folder, **changes):
    (folder / "evolution.json").write_text(json.dumps({**FACTS, **changes}))
    page = write_evolution_page(folder).read_text(encoding="utf-8")
    figures = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page)
    assert figures is not None
    return page, page.partition("<noscript>")[0], json.loads(figures[1])


@pytest.mark.slow
def test_the_page_tells_the_best_every_individual_and_what_goes_together(tmp_path):
    _, html, figures = write(tmp_path)
    assert "elo: &lt;b&gt;weights&lt;/b&gt;" in html
    assert "<code>--set method.weights.x=0.1234</code>" in html
    assert "0.001 to 1, log" in html
    assert html.count('<tr class="run">') == 1
    assert html.count("The loss is not a number.") == 2  # of the collapsed and the failed one
    assert "+0.40" in html
    assert html.count('<tr class="baseline">') == 2
    assert set(figures) == {"generations", "fitness-knn", "effective_rank-knn"}
    assert "-0.59" in html


@pytest.mark.slow
def test_only_sound_individuals_are_drawn_colored_by_generation(tmp_path):
    _, _, figures = write(tmp_path)
    first, second, best, mean = figures["generations"]["data"]
    assert (first["x"], first["y"]) == ([0], [0.2])
    assert second["y"] == [0.1, 0.3]
    assert first["marker"]["color"] != second["marker"]["color"]
    assert (best["y"], mean["y"]) == ([0.2, 0.1], [0.2, 0.2])
    assert [trace["y"] for trace in figures["fitness-knn"]["data"]] == [[50.0], [60.0, 40.0]]


@pytest.mark.slow
def test_without_labels_or_a_sound_individual_the_page_says_so(tmp_path):
    people = [individual(0, 0, 0.2, state="collapsed")]
    changes = {"best": None, "options": "", "baselines": {}, "correlations": []}
    _, html, figures = write(tmp_path, individuals=people, **changes)
    assert "all collapsed or failed" in html
    assert set(figures) == {"generations"}
    assert "kNN" not in html


@pytest.mark.slow
def test_the_page_needs_nothing_from_elsewhere(tmp_path):
    page, _, _ = write(tmp_path)
    own = page[: page.index("<script>")] + page[page.rindex("<script>") :]
    assert not re.findall(r'(?:src|href)="(?!#|data:)', own)


def test_a_folder_without_an_evolution_is_told(tmp_path):
    with pytest.raises(UserError, match="no finished evolution"):
        write_evolution_page(tmp_path)
