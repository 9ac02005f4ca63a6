"""The page of an ablation, from a fabricated folder: what it shows, and that it stands alone."""

import json
import re
import shutil

import pytest

from similitude.errors import UserError
from similitude.report.ablation import write_ablation_page

MEANS = {
    "knn": {"mean": 0.6, "low": 0.55, "high": 0.65, "draws": 2},
    "effective_rank": {"mean": 21.5, "low": None, "high": None, "draws": 1},
}


def cell(name, folders, means=None, settings=None, early=False):
    return {
        "name": name,
        "settings": settings or {},
        "verdict": "healthy",
        "minutes": 1.25,
        "means": MEANS if means is None else means,
        "runs": [
            {
                "seed": seed,
                "folder": folder,
                "verdict": "healthy",
                "stopped_early": early,
                "seconds": 75.0,
                "values": {"knn": 0.58 + 0.04 * seed, "effective_rank": 21.5, "loss": None},
            }
            for seed, folder in enumerate(folders)
        ],
    }


@pytest.fixture
def folder(make_run):
    """Two cells with two runs each; the second cell has no scores, as if its features were NaN."""
    runs = [make_run(f"{name}/seed-{seed}", count=24) for name in "ab" for seed in (0, 1)]
    return runs[0].parents[1]


def write(folder, **changes):
    facts = {
        "title": "simsiam: <b>stop</b>",
        "question": "",
        "fields": ["stop_gradient", "view.crop_scale"],
        "notes": ["1,000 training images of photos."],
        "baselines": {"raw pixels": {"knn": {"mean": 0.458, "low": None, "high": None}}},
        "cells": [
            cell("a", ["a/seed-0", "a/seed-1"], None, settings(True, [0.2, 1])),
            cell("b", ["b/seed-0", "b/seed-1"], {}, settings(False, [0.5, 1]), early=True),
        ],
        "expected": [],
    }
    (folder / "ablation.json").write_text(json.dumps({**facts, **changes}))
    page = write_ablation_page(folder).read_text(encoding="utf-8")
    figures = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page)
    assert figures is not None
    return page.partition("<noscript>")[0], json.loads(figures[1])


def settings(stop_gradient, crop_scale):
    return {"stop_gradient": stop_gradient, "view.crop_scale": crop_scale}


@pytest.mark.slow
def test_the_table_has_means_intervals_baselines_and_early_stops(folder):
    html, _ = write(folder)
    assert "simsiam: &lt;b&gt;stop&lt;/b&gt;" in html
    assert '<span class="mean">60.0</span><span class="interval">± 5.0</span>' in html
    assert "45.8" in html
    assert html.count("not measured") == 2
    assert "2 of 2 stopped early" in html
    assert "1,000 training images of photos." in html
    assert "published" not in html


@pytest.mark.slow
def test_every_varied_field_has_its_plots_with_intervals_and_single_runs(folder):
    html, figures = write(folder)
    assert {"points-stop_gradient-knn", "points-view.crop_scale-effective_rank"} <= set(figures)
    means, rings = figures["points-stop_gradient-knn"]["data"]
    assert means["x"] == ["true"]
    assert means["y"] == [60.0]
    assert means["error_y"]["array"] == [5.0]
    assert rings["y"] == [58.0, 62.0]
    assert "view.crop_scale=[0.2, 1]" in html  # the line's other setting
    assert not any("linear" in key for key in figures)


@pytest.mark.slow
def test_curves_of_a_cell_share_a_color(folder):
    _, figures = write(folder)
    runs = [t for t in figures["curve-knn"]["data"] if "seed" in t["name"]]
    colors = [trace["line"]["color"] for trace in runs]
    assert [trace["name"] for trace in runs] == ["a, seed 0", "a, seed 1", "b, seed 0", "b, seed 1"]
    assert colors[0] == colors[1] != colors[2] == colors[3]


@pytest.mark.slow
def test_a_study_shows_what_was_expected_beside_what_was_published(folder):
    expected = [
        {"sentence": "b collapses", "shows": shows, "numbers": "2 of 2", "published": "0.1 %"}
        for shows in (True, False, None)
    ]
    html, figures = write(folder, fields=[], question="Does it?", expected=expected)
    for text in ("Does it?", "b collapses", "0.1 %", ">yes<", ">not at this size<"):
        assert text in html
    means, _ = figures["points-study-knn"]["data"]
    assert means["y"] == ["a"]  # cells beside each other, for their names need room
    assert means["error_x"]["array"] == [5.0]


@pytest.mark.slow
def test_the_page_needs_nothing_from_elsewhere(folder):
    page = (write(folder), (folder / "ablation.html").read_text(encoding="utf-8"))[1]
    own = page[: page.index("<script>")] + page[page.rindex("<script>") :]
    assert not re.findall(r'(?:src|href)="(?!#|data:)', own)


def test_a_folder_without_an_ablation_is_told(tmp_path, folder):
    with pytest.raises(UserError, match="no finished ablation"):
        write_ablation_page(tmp_path)
    shutil.rmtree(folder / "b")
    with pytest.raises(UserError, match="no such run folder"):
        write(folder)
