"""The page of an answer: what is known of a sample is shown, and nothing of it runs."""

import re

import numpy as np

from similitude.report.answers import Shown, write_answers_page

BLACK = np.zeros((16, 16, 3), np.uint8)


def test_pictures_stand_at_their_own_place_of_one_sprite(tmp_path):
    rows = [(Shown("q", "", BLACK), [Shown("a", "0.9", BLACK), Shown("b", "0.8", BLACK)])]
    write_answers_page(tmp_path / "p.html", "Alike", "the 2 nearest", rows, 3)
    page = (tmp_path / "p.html").read_text()
    places = re.findall(r"background-position: ([^\"]+)\"", page)
    assert len(set(places)) == 3
    assert page.count("data:image/jpeg;base64,") == 1
    assert "3 more are in the table" in page
    assert '<p class="summary">The 2 nearest.</p>' in page


def test_a_sample_without_a_picture_has_its_name_and_names_are_text(tmp_path):
    rows = [(None, [Shown("<i>a\n", "", None), Shown("b", "1.2", BLACK)])]
    write_answers_page(tmp_path / "p.html", "Groups", "one group", rows, 0)
    page = (tmp_path / "p.html").read_text()
    assert "&lt;i&gt;a\\n" in page
    assert "<i>a" not in page


def test_nothing_found_is_said(tmp_path):
    for rows in ([], [(None, [])]):
        write_answers_page(tmp_path / "p.html", "Groups", "no group", rows, 0)
        assert "Nothing was found" in (tmp_path / "p.html").read_text()
