"""Open the report in headless Chromium: it must be whole, quiet, offline, and fit the window."""

import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from similitude.report import write_report

CHROMIUM = shutil.which("chromium")
CHROMEDRIVER = Path("/usr/bin/chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
WIDTHS = (390, 1280)
THEMES = ("light", "dark")

pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None or not CHROMEDRIVER.is_file(),
        reason="needs Debian's packages chromium and chromium-driver",
    ),
    pytest.mark.slow,
    pytest.mark.xdist_group("browser"),
]


def _fabricator() -> ModuleType:
    """The factory of run folders beside the unit tests of the report."""
    path = Path(__file__).parents[1] / "report" / "conftest.py"
    spec = importlib.util.spec_from_file_location("report_factory", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    factory = _fabricator()
    runs = tmp_path_factory.mktemp("browser") / "runs"
    full = factory.fabricate_run(runs / "full", count=200)
    other = factory.fabricate_run(
        runs / "other", count=40, state="collapsed", recipe={"batch_size": 512}
    )
    minimal = factory.fabricate_minimal_run(runs / "minimal")
    return {
        "run": write_report([full]),
        "minimal": write_report([minimal]),
        "comparison": write_report([full, other, minimal]),
    }


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # The path is given, so selenium has nothing to look for and nothing to download.
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(CHROMEDRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("SIMILITUDE_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def visit(browser: Any, page: Path, width: int = 1280, theme: str = "light") -> None:
    """Open the page in a window of that width and wait until its plots are drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get_log("browser")  # what an earlier page said is not this one's
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": theme}]},
    )
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    browser.get(page.as_uri())
    WebDriverWait(browser, 30).until(
        lambda driver: driver.execute_script("return document.documentElement.dataset.ready")
    )
    browser.execute_script("document.documentElement.style.scrollBehavior = 'auto'")


def complaints(browser: Any) -> list[str]:
    return [
        entry["message"]
        for entry in browser.get_log("browser")
        if entry["level"] in ("SEVERE", "WARNING")
    ]


def save_whole_page(browser: Any, target: Path) -> None:
    import base64

    size = browser.execute_script(
        "const e = document.documentElement; return [e.clientWidth, e.scrollHeight]"
    )
    clip = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
    png = browser.execute_cdp_cmd(
        "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
    )
    target.write_bytes(base64.b64decode(png["data"]))


@pytest.mark.parametrize("name", ["run", "minimal", "comparison"])
def test_the_page_is_quiet_and_needs_no_network(browser, pages, name: str):
    visit(browser, pages[name])
    assert complaints(browser) == []
    resources = browser.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert [url for url in resources if not url.startswith("data:")] == []


def test_no_button_offers_to_send_the_data_away(browser, pages):
    """By default plotly shows one that uploads the figure to its makers' server."""
    visit(browser, pages["run"])
    buttons = browser.execute_script(
        "return [...document.querySelectorAll('#map .modebar-btn')].map((b) => b.outerHTML)"
    )
    names = [re.findall(r'(?:data-title|aria-label|title)="([^"]*)"', html) for html in buttons]
    shown = sorted({name for found in names for name in found})
    assert shown == ["Pan", "Reset axes", "Zoom", "Zoom in", "Zoom out"]


@pytest.mark.parametrize(
    ("name", "sections"),
    [
        ("run", "verdict scores curves spectrum map neighbors views recipe environment"),
        ("minimal", "verdict scores curves embedding recipe"),
        ("comparison", "verdicts scores curves spectrum recipe"),
    ],
)
def test_every_section_is_there_and_its_links_lead_to_it(browser, pages, name, sections):
    from selenium.webdriver.common.by import By

    visit(browser, pages[name])
    for section in sections.split():
        assert browser.find_element(By.ID, section).rect["height"] > 20, section
    for link in browser.find_elements(By.CSS_SELECTOR, "nav a"):
        target = link.get_attribute("href").partition("#")[2]
        assert browser.find_element(By.ID, target).is_displayed()


@pytest.mark.parametrize("name", ["run", "minimal", "comparison"])
def test_every_plot_has_drawn_its_data(browser, pages, name: str):
    visit(browser, pages[name])
    browser.execute_script("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    drawn = browser.execute_script(
        """return [...document.querySelectorAll('.plot')].map((plot) => [
             plot.dataset.figure,
             plot.querySelectorAll('svg .scatterlayer .trace path').length,
             plot.getBoundingClientRect().width,
           ])"""
    )
    assert drawn
    for figure, paths, width in drawn:
        assert paths > 0, figure
        assert width > 200, figure


def first_dot(browser: Any) -> tuple[int, int]:
    """Where the first dot of the map is, in the window, after scrolling to the map."""
    browser.execute_script("document.querySelector('#map').scrollIntoView({block: 'center'})")
    x, y = browser.execute_script(
        """const dot = document.querySelector('#map .scatterlayer path.point');
           const box = dot.getBoundingClientRect();
           return [box.x + box.width / 2, box.y + box.height / 2];"""
    )
    return round(x), round(y)


def test_pointing_at_a_dot_shows_its_image(browser, pages, screenshots):
    from selenium.common.exceptions import TimeoutException
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    visit(browser, pages["run"])
    tip = browser.find_element(By.CSS_SELECTOR, ".tip")
    assert not tip.is_displayed()

    def pointed(driver: Any) -> bool:
        """A hand leaves the map and comes again; events are lost while the page is settling."""
        x, y = first_dot(driver)
        for place in ((5, 5), (x, y + 2), (x, y)):
            actions = ActionChains(driver)
            actions.w3c_actions.pointer_action.move_to_location(*place)
            actions.perform()
        try:  # plotly answers some time after the hand rests
            WebDriverWait(driver, 2, poll_frequency=0.05).until(lambda _: tip.is_displayed())
        except TimeoutException:
            return False
        return True

    WebDriverWait(browser, 60).until(pointed)
    assert re.search(r"digit \d", tip.text)
    assert re.search(r"train/\d{5}", tip.text)
    thumbs = tip.find_elements(By.CSS_SELECTOR, ".thumb")
    assert len(thumbs) == 1 + 8
    assert thumbs[0].rect["width"] == 96
    assert thumbs[0].value_of_css_property("background-image").startswith('url("data:image/jpeg')
    browser.save_screenshot(str(screenshots / "report-map-hover.png"))
    assert complaints(browser) == []


def test_the_image_shown_is_the_one_of_the_dot(browser, pages):
    """The place in the sprite that the script computes is the one that Python computes."""
    from selenium.webdriver.common.by import By

    visit(browser, pages["run"])
    arrow_right = "\ue014"
    tip = walk(browser, arrow_right, arrow_right, arrow_right)
    name = re.search(r"train/\d{5}", tip.text)
    assert name is not None
    index = int(name.group()[-5:])
    assert index > 0
    thumb = tip.find_element(By.CSS_SELECTOR, ".thumb")
    columns, rows = (
        round(float(part.rstrip("%")) / 100)
        for part in thumb.value_of_css_property("background-size").split()
    )
    x, y = (
        float(part.rstrip("%"))
        for part in thumb.value_of_css_property("background-position").split()
    )
    assert round(x / 100 * (columns - 1)) + columns * round(y / 100 * (rows - 1)) == index


def walk(browser: Any, *keys: str) -> Any:
    from selenium.webdriver.common.by import By

    frame = browser.find_element(By.CSS_SELECTOR, ".map-frame")
    browser.execute_script("arguments[0].scrollIntoView(); arguments[0].focus()", frame)
    for key in keys:
        frame.send_keys(key)
    return browser.find_element(By.CSS_SELECTOR, ".tip")


def test_the_map_can_be_walked_with_the_keyboard(browser, pages):
    visit(browser, pages["run"])
    left, right, escape = "\ue012", "\ue014", "\ue00c"
    start = walk(browser, left).text
    assert start
    assert walk(browser, left).text != start
    assert walk(browser, right, right).is_displayed()
    assert not walk(browser, escape).is_displayed()


def test_a_class_lights_up(browser, pages):
    from selenium.webdriver.common.by import By

    visit(browser, pages["run"])
    button = browser.find_element(By.CSS_SELECTOR, "[data-trace='2']")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    opacity = "return document.querySelector('[data-figure=map]').data.map((t) => t.marker.opacity)"
    lit = browser.execute_script(opacity)
    assert lit[2] > 0.8
    assert max(lit[:2] + lit[3:]) < 0.2
    button.click()
    assert min(browser.execute_script(opacity)) > 0.8


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["run", "minimal", "comparison"])
def test_the_page_fits_the_window(browser, pages, screenshots, name: str, width: int, theme: str):
    visit(browser, pages[name], width, theme)
    save_whole_page(browser, screenshots / f"report-{name}-{width}-{theme}.png")
    browser.execute_script("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width
    assert complaints(browser) == []


def test_plots_follow_the_theme_while_the_page_is_open(browser, pages):
    from selenium.webdriver.support.ui import WebDriverWait

    color = "return getComputedStyle(document.querySelector('.panel .trace path.js-line')).stroke"
    visit(browser, pages["run"], theme="light")
    light = browser.execute_script(color)
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    WebDriverWait(browser, 5).until(lambda driver: driver.execute_script(color) != light)


def test_paper_is_light_and_every_box_is_open(browser, pages):
    visit(browser, pages["run"], theme="dark")
    background = "return getComputedStyle(document.body).backgroundColor"
    closed = "return document.querySelectorAll('details:not([open])').length"
    dark, shut = browser.execute_script(background), browser.execute_script(closed)
    assert shut > 0
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script(background) == "rgb(247, 246, 242)" != dark
    assert browser.execute_script(closed) == 0
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert browser.execute_script(background) == dark
    assert browser.execute_script(closed) == shut
