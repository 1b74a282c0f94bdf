"""The page in a real browser. Every request that is not for a file or for data in the page is refused, so a page that needs a network fails here."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from rllc.figures.drawing import Line, Panel, Plot
from rllc.figures.interactive import write_page
from rllc.figures.palette import DARK, TYPES, Style
from rllc.report.build import build_report
from rllc.report.data import ReportData, table_rows

pytest.importorskip("pytest_playwright", reason="pytest-playwright is not installed, so no browser can be driven")
from playwright.sync_api import Browser, Page, Route

pytestmark = pytest.mark.browser

DRAW_ALL = """async () => {
  for (let y = 0; y < document.documentElement.scrollHeight; y += 900) {
    window.scrollTo({ top: y, behavior: "instant" });
    await new Promise((done) => setTimeout(done, 25));
  }
  window.scrollTo({ top: 0, behavior: "instant" });
}"""
DRAWN = "() => [...document.querySelectorAll('[data-figure]')].filter((n) => n.offsetParent).every((n) => n.querySelector('.main-svg'))"
PICTURE = "() => document.querySelector('canvas.map').toDataURL()"
SHOWN = "(value) => document.getElementById('attention').dataset.shown === value"


class Opened:
    """A page with what it said and asked for."""

    def __init__(self, browser: Browser, path: Path, **context: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1400, "height": 1000}, **context})
        self.page: Page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text) if message.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.route("**/*", self._guard)
        self.page.goto(path.as_uri())

    def _guard(self, route: Route) -> None:
        url = route.request.url
        if url.startswith(("file:", "data:", "blob:")):
            route.continue_()
        else:
            self.asked.append(url)
            route.abort()

    def draw_all(self) -> None:
        self.page.evaluate(DRAW_ALL)
        self.page.wait_for_function(DRAWN)

    def colors(self, figure: str) -> set[str]:
        """Colours of the lines of a figure, as plotly holds them."""
        return set(self.page.evaluate(f"() => document.querySelector('[data-figure={figure}]').data.map((t) => t.line && t.line.color)"))

    def close(self) -> None:
        self.context.close()
        assert self.said == []
        assert self.asked == []


@pytest.fixture(scope="module")
def opened(browser: Browser, written: Path) -> Iterator[Opened]:
    """One page for the tests that leave it as they found it; closing it asserts that nothing was complained of."""
    found = Opened(browser, written, accept_downloads=True, color_scheme="light")
    yield found
    found.close()


def test_every_figure_is_drawn_without_a_complaint(opened: Opened) -> None:
    opened.draw_all()
    assert opened.page.locator("[data-figure] .main-svg").count() >= 10
    assert opened.page.locator("h1").inner_text() == "How sixteen attention heads came to differ"
    assert opened.said == []
    assert opened.asked == []


def test_no_button_sends_a_figure_away(opened: Opened) -> None:
    opened.draw_all()
    titles = opened.page.evaluate("() => [...document.querySelectorAll('.modebar-btn')].map((b) => b.dataset.title)")
    assert set(titles) <= {"Download plot", "Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"}
    assert "Download plot" in titles


def test_the_policy_forbids_every_fetch(browser: Browser, written: Path) -> None:
    own = Opened(browser, written)
    assert own.page.evaluate("() => fetch('data:text/plain,hello').then(() => 'came', () => 'refused')") == "refused"
    assert (
        own.page.evaluate(
            "() => { const s = document.createElement('script'); s.textContent = 'window.came = 1'; document.body.append(s); return window.came; }"
        )
        is None
    )
    assert len(own.said) >= 2
    own.context.close()


def test_a_figure_s_own_page_is_drawn_and_runs_nothing_but_its_scripts(browser: Browser, tmp_path: Path) -> None:
    line = Line(np.arange(3.0), np.arange(3.0), Style("#123456", "solid", "circle", "o"), "a line")
    plot = Plot("A <b>title</b>", "A caption.", (Panel("one", (line,)),))
    own = Opened(browser, write_page(plot, tmp_path, "plot"))
    own.page.wait_for_selector(".main-svg")
    assert own.said == []
    assert own.asked == []
    run = "(text) => { const s = document.createElement('script'); s.textContent = text; document.body.append(s); return window.came; }"
    assert own.page.evaluate(run, "window.came = 1") is None
    assert own.page.evaluate("() => fetch('data:text/plain,hello').then(() => 'came', () => 'refused')") == "refused"
    own.context.close()


def test_the_slider_moves_through_training(opened: Opened, data: ReportData) -> None:
    page, patterns = opened.page, data.findings.patterns
    assert patterns is not None
    last = len(patterns.steps) - 1
    page.wait_for_function(SHOWN, arg=f"2/{last}/14")
    before = page.evaluate(PICTURE)
    assert page.locator("[data-part=step]").inner_text() == "step 2,600"
    page.locator("[data-part=slider]").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(SHOWN, arg=f"2/{last - 1}/14")
    assert page.locator("[data-part=step]").inner_text() == "step 1,800"
    assert page.evaluate(PICTURE) != before
    page.keyboard.press("ArrowRight")
    page.wait_for_function(SHOWN, arg=f"2/{last}/14")
    assert page.evaluate(PICTURE) == before


def test_heads_and_texts_are_chosen_for_the_attention_map(opened: Opened) -> None:
    page = opened.page
    last = int(page.locator("[data-part=slider]").get_attribute("max") or 0)
    before = page.evaluate(PICTURE)
    page.get_by_role("button", name="Head 0:1, previous-token").click()
    page.wait_for_function(SHOWN, arg=f"2/{last}/1")
    assert page.evaluate(PICTURE) != before
    assert page.locator(".thumbs [aria-pressed=true]").count() == 1
    page.locator("[data-part=snippet]").select_option(label="code 1")
    page.wait_for_function(SHOWN, arg=f"0/{last}/1")
    assert "⟨202E⟩" in page.locator(".tokens").inner_text()
    assert page.locator(".tokens b, .tokens script").count() == 0
    page.locator("[data-part=snippet]").select_option(label="echo")
    page.get_by_role("button", name="Head 1:6, induction").click()
    page.wait_for_function(SHOWN, arg=f"2/{last}/14")


def test_the_map_and_the_text_tell_the_weight_under_the_pointer(opened: Opened, data: ReportData) -> None:
    page, patterns = opened.page, data.findings.patterns
    assert patterns is not None
    canvas = page.locator("canvas.map")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    query, key = 40, 25
    cell = box["width"] / 64
    page.mouse.move(box["x"] + (key + 0.5) * cell, box["y"] + (query + 0.5) * cell)
    weight = patterns.weights[2][-1, 14, query, key] / 255
    assert weight > 0.5, "the stripe of induction"
    told = page.locator("[data-part=readout]").inner_text()
    assert f"(position {query})" in told
    assert f"(position {key}): {weight:.2f}." in told
    assert page.locator(".tokens span.query").inner_text() == patterns.tokens[2][query]
    assert page.locator(".tokens span.key").inner_text() == patterns.tokens[2][key]
    page.mouse.move(1, 1)
    canvas.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert "(position 2)" in page.locator("[data-part=readout]").inner_text()
    page.keyboard.press("Escape")
    assert "Point at the map" in page.locator("[data-part=readout]").inner_text()


def test_chosen_heads_come_forward_everywhere(opened: Opened) -> None:
    page = opened.page
    opened.draw_all()
    faded = """(name) => document.querySelector(`[data-figure=${name}]`).data
        .filter((t) => t.meta && t.meta.head && t.opacity !== undefined && t.opacity < 1).map((t) => t.meta.head)"""
    assert page.evaluate(faded, "heads") == []
    page.locator("#heads .chooser").get_by_role("button", name="1:6", exact=True).click()
    for figure in ("heads", "scores", "domains"):
        assert set(page.evaluate(faded, figure)) == {f"{i}:{j}" for i in range(2) for j in range(8)} - {"1:6"}
    assert page.locator("#behaviour .chooser [aria-pressed=true]").all_inner_texts() == ["1:6"]
    page.locator("#heads .chooser").get_by_role("button", name="induction").click()
    assert "1:7" not in page.evaluate(faded, "heads")
    page.locator("#heads .chooser").get_by_role("button", name="all").click()
    assert page.evaluate(faded, "heads") == []


def test_clusterings_take_turns(opened: Opened) -> None:
    page = opened.page
    assert page.locator("#figure-clusters-0").is_visible()
    assert not page.locator("#figure-tree-1").is_visible()
    page.locator("#which-clusters").select_option(label="Hierarchical clustering, standardised, all heads")
    assert page.locator("#figure-tree-1 .main-svg").first.is_visible()
    assert not page.locator("#figure-clusters-0").is_visible()
    page.locator("#which-clusters").select_option(value="0")


def test_downloads_equal_the_table(opened: Opened, data: ReportData) -> None:
    columns, rows = table_rows(data)
    with opened.page.expect_download() as waiting:
        opened.page.get_by_role("button", name="Download CSV").click()
    assert waiting.value.suggested_filename == "cells.csv"
    head, *lines = csv.reader(io.StringIO(waiting.value.path().read_text(encoding="utf-8"), newline=""))
    assert head == columns
    assert len(lines) == len(rows)
    for told, row in zip(lines, rows, strict=True):
        for text, value in zip(told, row.values(), strict=True):
            assert text == "" if value is None else type(value)(text) == value
    with opened.page.expect_download() as waiting:
        opened.page.get_by_role("button", name="Download JSON").click()
    assert json.loads(waiting.value.path().read_text()) == rows


def test_the_table_is_filtered_and_sorted(opened: Opened) -> None:
    page = opened.page
    assert page.locator("#cells-count").inner_text() == "492 of 492 rows"
    page.get_by_label("Filter by outcome").select_option(label="unstable")
    (row,) = page.locator("#cells-table tbody tr").all_inner_texts()
    assert row.split("\t")[:5] == ["train", "1:3", "1,000", "", ""]
    page.get_by_label("Filter by outcome").select_option(value="")
    page.get_by_label("Filter by data").select_option(label="code")
    page.locator("#cells-table thead").get_by_role("button", name="llc").click()
    shown = [float(v.replace("−", "-")) for v in page.locator("#cells-table tbody td:nth-child(4)").all_inner_texts()]
    assert shown == sorted(shown)
    assert len(shown) == 15
    page.locator("#cells-more").click()
    assert page.locator("#cells-table tbody tr").count() == 96
    assert page.locator("#cells-table th[aria-sort=ascending]").count() == 1
    page.get_by_label("Filter by data").select_option(value="")


def test_dark_colours_follow_the_button(opened: Opened) -> None:
    page = opened.page
    opened.draw_all()
    light, dark = TYPES["induction"].color, DARK[TYPES["induction"].color]
    assert light in opened.colors("heads")
    background = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    assert dark in opened.colors("heads")
    assert light not in opened.colors("heads")
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") != background
    page.locator("#theme").click()
    assert page.locator("#theme").inner_text() == "Colours: auto"
    assert light in opened.colors("heads")


def test_on_a_phone_nothing_runs_off_the_side(browser: Browser, written: Path) -> None:
    own = Opened(browser, written, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    own.draw_all()
    assert own.page.evaluate("() => document.documentElement.scrollWidth") <= 390
    domains = "() => document.querySelector('[data-figure=domains]').layout"
    layout = own.page.evaluate(domains)
    assert layout["xaxis"]["domain"][1] < 0.51, "two columns instead of four"
    assert layout["xaxis3"]["domain"][0] == 0
    assert layout["dragmode"] is False, "a finger scrolls the page and does not drag the figure"
    own.close()


def test_print_is_light_and_holds_everything(browser: Browser, written: Path) -> None:
    own = Opened(browser, written, color_scheme="dark", viewport={"width": 700, "height": 1000})
    assert own.page.locator("html").get_attribute("data-theme") == "dark", "as the system says"
    own.page.emulate_media(media="print", color_scheme="dark")
    own.page.wait_for_function(DRAWN)
    assert own.page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert TYPES["induction"].color in own.colors("heads")
    assert own.page.locator("details:not([open])").count() == 0
    assert not own.page.locator(".toc").is_visible()
    assert own.page.evaluate("() => document.documentElement.scrollWidth") <= 700
    assert own.page.pdf(format="A4").startswith(b"%PDF")
    own.page.emulate_media(media="screen")
    own.page.wait_for_function("() => document.documentElement.dataset.theme === 'dark'")
    assert own.page.locator("details:not([open])").count() > 0
    own.close()


def test_poor_runs_open_too(browser: Browser, synthetic: ModuleType, data: ReportData, tmp_path: Path) -> None:
    f = synthetic.findings(layers=1, steps=np.array([0, 1000]), patterns=False)
    bare = replace(f, stages=None, clusterings=(), agreements=(), specialisation=(), curves={"train": f.curves["train"]}, full={})
    nobody = replace(bare, curves={}, types=replace(f.types, heads=(), types=(), score=np.array([])))
    for i, (poor, table) in enumerate(
        [(bare, synthetic.table(bare)), (nobody, ()), (synthetic.findings(layers=3, steps=np.array([0, 1000]), data=("train",), context=16), ())]
    ):
        path = tmp_path / f"{i}.html"
        build_report(replace(data, findings=poor, table=table), path)
        own = Opened(browser, path)
        own.draw_all()
        own.close()
