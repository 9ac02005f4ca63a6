"""The section on what one sensor finds of another, from the files of a run folder."""

import dataclasses

import numpy as np
import pytest

from similitude.errors import UserError
from similitude.evaluation.retrieval_table import Retrieval, RetrievalTable, read_retrieval
from similitude.report.page import render_run
from similitude.report.read import read_run
from similitude.report.retrieval import Answer, build_retrieval

ROWS = [
    Retrieval("random backbone", "photo", "text", 9, 7, {1: 0.125, 5: 0.5}, 4.5),
    Retrieval("pretrained backbone", "photo", "text", 9, 7, {1: 0.75, 5: 1.0}, 1.0),
]
TABLE = RetrievalTable("pairs.csv test", ROWS, {"random backbone": 0.25})
EXAMPLES = {
    "asked": np.array(["photo"]),
    "found": np.array(["text"]),
    "query": np.array([0]),
    "answers": np.array([[2, 1, -1]]),
    "right": np.array([[False, True, False]]),
    "names": np.array(["a.png", "a <red> thing", "a blue thing"]),
    "is_text": np.array([False, True, True]),
    "thumbnails": np.zeros((3, 8, 8, 3), np.uint8),
}


@pytest.fixture
def asked_run(minimal_run):
    (minimal_run / "retrieval.json").write_text(TABLE.to_json())
    np.savez(minimal_run / "retrieval.npz", **EXAMPLES)
    return minimal_run


def test_the_table_is_read_as_it_was_written(asked_run):
    assert read_retrieval(asked_run / "retrieval.json") == TABLE


def test_rows_are_percent_and_what_was_not_asked_is_empty(asked_run):
    page = build_retrieval(read_run(asked_run))
    assert [row.cells for row in page.rows] == [
        ["12.5", "50.0", "", "4.5"],
        ["75.0", "100.0", "", "1"],
    ]
    assert page.zero_shot == ["25.0 % by the random backbone"]


def test_a_question_stands_beside_what_was_found_and_texts_are_read(asked_run):
    run = read_run(asked_run)
    (direction,) = build_retrieval(run).examples
    assert direction.questions == [(0, [Answer(2, False), Answer(1, True)])]
    html, facts = render_run(run)
    assert '<q class="words">a &lt;red&gt; thing</q>' in html
    assert html.index("a blue thing") < html.index("a &lt;red&gt; thing")
    assert facts["retrieval"]["rows"][1]["median_rank"] == 1


def test_a_table_without_examples_is_shown(asked_run):
    (asked_run / "retrieval.npz").unlink()
    html, _ = render_run(read_run(asked_run))
    assert "text by photo, of 7" in html


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"answers": np.array([[2, 3, -1]])}, "entries that it does not hold"),
        ({"answers": np.array([[2, 1]])}, "differ in number"),
        ({"thumbnails": np.zeros((3, 8, 8), np.uint8)}, "thumbnails are not"),
        ({"names": np.array(["a.png"])}, "one for each name"),
    ],
)
def test_damaged_examples_are_one_sentence(asked_run, change, words):
    np.savez(asked_run / "retrieval.npz", **(EXAMPLES | change))
    with pytest.raises(UserError, match=words):
        read_run(asked_run)


def test_a_damaged_table_is_one_sentence(asked_run):
    broken = dataclasses.asdict(TABLE) | {"rows": [{"row": "x"}]}
    (asked_run / "retrieval.json").write_text(str(broken).replace("'", '"'))
    with pytest.raises(UserError, match=r"retrieval\.json"):
        read_run(asked_run)
