"""The report in a real browser: nothing fails, every chart draws, light and dark, wide and narrow, and on paper.

Chromium is started once. `make test` leaves these tests out, since not every machine has one; `make test-browser` runs
them, and continuous integration does so after it has put one there.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

import pytest

from cambrian.report.draw import read_figures_config
from tests.report.devtools import Browser, open_browser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.browser

DRAW_EVERYTHING = """
(async () => {
  for (const chart of document.querySelectorAll("[data-figure]")) {
    chart.scrollIntoView();
    await new Promise(resolve => requestAnimationFrame(() => setTimeout(resolve, 0)));
  }
  const charts = [...document.querySelectorAll("[data-figure]")];
  const waiting = () => charts.filter(chart => !chart.querySelector(".vega-embed"));
  for (let turn = 0; turn < 200 && waiting().length; turn++) await new Promise(resolve => setTimeout(resolve, 50));
  return waiting().map(chart => chart.dataset.figure);
})()
"""
BROKEN_LINKS = """
[...document.querySelectorAll("a[href^='#']")].map(a => a.getAttribute("href").slice(1))
  .filter(id => !document.getElementById(id))
"""
WIDER_THAN_THE_PAGE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
CONTRAST = """
(() => {
  const read = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const linear = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = rgb => rgb.reduce((sum, v, k) => sum + linear(v / 255) * [0.2126, 0.7152, 0.0722][k], 0);
  const style = getComputedStyle(document.body);
  const [a, b] = [light(read(style.color)), light(read(style.backgroundColor))].sort((x, y) => y - x);
  return {ratio: (a + 0.05) / (b + 0.05), background: light(read(style.backgroundColor))};
})()
"""


@pytest.fixture(scope="module")
def browser(report: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("chromium")) as opened:
        opened.open((report / "report.html").as_uri())
        yield opened


def test_the_page_opens_without_an_error_or_a_request(browser: Browser) -> None:
    assert browser.evaluate("document.querySelectorAll('section.table').length") > 20
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_every_chart_becomes_interactive(browser: Browser, figures: Path) -> None:
    charts = [name for name in read_figures_config() if (figures / f"{name}.vl.json").is_file()]
    assert browser.evaluate("document.querySelectorAll('[data-figure]').length") == len(charts) > 10
    assert browser.evaluate(DRAW_EVERYTHING) == []
    assert browser.errors == []


def test_every_link_arrives(browser: Browser) -> None:
    assert browser.evaluate("document.querySelectorAll('a').length") > 500
    assert browser.evaluate(BROKEN_LINKS) == []


def test_a_button_changes_the_face_of_every_table(browser: Browser) -> None:
    shown = "[...document.querySelectorAll('td .difference')].filter(e => e.checkVisibility()).length"
    assert browser.evaluate(shown) == 0
    browser.evaluate("document.querySelector('button[data-face=difference]').click()")
    assert browser.evaluate(shown) > 100
    browser.evaluate("document.querySelector('button[data-face=both]').click()")


@pytest.mark.parametrize(("width", "height"), [(1400, 900), (390, 844)], ids=["desk", "phone"])
def test_nothing_makes_the_page_scroll_sideways(browser: Browser, width: int, height: int) -> None:
    browser.resize(width, height, is_phone=width < 500)
    assert browser.evaluate(WIDER_THAN_THE_PAGE) <= 0
    browser.resize(1400, 900, is_phone=False)


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_light_and_dark_can_both_be_read(browser: Browser, scheme: str, is_dark: bool) -> None:
    browser.prefer(scheme)
    found: dict[str, Any] = browser.evaluate(CONTRAST)
    assert found["ratio"] > 7
    assert (found["background"] < 0.1) == is_dark
    browser.prefer("light")


def test_it_prints_on_landscape_pages(browser: Browser) -> None:
    printed = base64.b64decode(browser.call("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert printed.startswith(b"%PDF")
    pages = len(re.findall(rb"/Type\s*/Page\b(?!s)", printed))
    assert 10 < pages < 150
