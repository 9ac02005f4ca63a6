"""The page of a decision: what it shows, of names that are not to be trusted too."""

import json

import numpy as np
import pytest

from similitude.decision.findings import Holdout, decided
from similitude.decision.plan import OWN, RANDOM, all_rows
from similitude.decision.work import Row
from similitude.errors import UserError
from similitude.report.decision import write_decision_page


@pytest.fixture
def folder(tmp_path):
    """A decision among three rows, with two mistakes in pictures."""
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    names = ["<b>cat</b>", "dog"]
    holdout = Holdout("photos & films", y, np.arange(200), names, 40, "images", ["raw pixels"])

    def row(rate):
        columns = {"linear_1": 10, "linear_5": 10, "linear": 1}
        said = {c: np.where(rng.random((r, 200)) < rate, y, 1 - y) for c, r in columns.items()}
        return Row(said, 60.0)

    rows = {"raw pixels": row(0.6), RANDOM: row(0.5), "net": row(0.9)}
    decided(
        tmp_path,
        all_rows(["raw pixels"], ["net"]),
        rows,
        holdout,
        notes=["A fifth is held out."],
        copies=[("a/1.jpg", "b/<2>.jpg")],
        left_out={OWN: "its minutes are too few"},
        minutes=10,
        seed=0,
        is_complete=True,
    ).write()
    pictures = rng.integers(0, 255, (2, 16, 16, 3), dtype=np.uint8)
    texts = {"names": ["x.jpg", "y.jpg"], "classes": [names[0], "dog"], "said": ["dog", names[0]]}
    arrays = {name: np.array(values) for name, values in texts.items()}
    np.savez(tmp_path / "mistakes.npz", thumbnails=pictures, **arrays)
    return tmp_path


def test_the_page_has_the_sentence_the_numbers_and_the_pictures(folder):
    page = write_decision_page(folder).read_text()
    facts = json.loads((folder / "decision.json").read_text())
    assert facts["sentence"] in page
    assert f"Left out: {OWN}: its minutes are too few." in page
    assert "&lt;b&gt;cat&lt;/b&gt;, taken for dog" in page
    assert "a/1.jpg and b/&lt;2&gt;.jpg" in page
    assert "<b>cat" not in page.split('id="figures"')[0]
    assert 'data-figure="labels"' in page
    assert page.count("data:image/jpeg") == 1
    for row in facts["confusion"]:
        assert all(f">{count}</td>" in page for count in row)


def test_without_mistakes_and_copies_the_page_does_without_their_sections(folder):
    (folder / "mistakes.npz").unlink()
    facts = json.loads((folder / "decision.json").read_text())
    (folder / "decision.json").write_text(json.dumps(facts | {"copies": []}))
    page = write_decision_page(folder).read_text()
    assert 'id="mistakes"' not in page
    assert 'id="copies"' not in page


def test_a_damaged_decision_is_one_sentence(folder):
    (folder / "decision.json").write_text('{"table": 3}')
    with pytest.raises(UserError, match=r"cannot read .*decision.json"):
        write_decision_page(folder)
